"""Summaries of meter events: buckets on any zone's calendar, dimensions, Stripe's lists, and what
adds up.
"""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_oracle import SECOND, Seen, counting, measured
from test_meter_machine import tell

from metering_core import meter_summaries, readings
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.measures import Aggregator
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meter_summaries import (
    MeterEventSummary,
    event_summaries,
    list_event_summaries,
    total_of,
)
from metering_core.meters import Meter

NOW = 1_735_689_600  # 2025-01-01T00:00:00Z, after everything here
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
)
HOUR, DAY = 3600, 86_400
DIMENSIONS = ("region", "model")

# In UTC: clocks of Berlin, New York and Lord Howe Island in 2024, and of Pyongyang (by half an
# hour, at 23:30), are moved.
TRANSITIONS = [
    int(datetime(*moment, tzinfo=UTC).timestamp())
    for moment in (
        (2024, 3, 31, 1),
        (2024, 10, 27, 1),
        (2024, 3, 10, 7),
        (2024, 11, 3, 6),
        (2024, 4, 6, 15),
        (2024, 10, 5, 15, 30),
        (2018, 5, 4, 15),
    )
]
SPANS = {None: 3 * DAY, "hour": 2 * DAY, "day": 9 * DAY, "week": 30 * DAY, "month": 70 * DAY}

# Every law is asked of nine formulas, so that a share of the profile's examples is enough for each.
few = settings(max_examples=max(settings().max_examples // 4, 1))


def at(text, zone="UTC"):
    """Return the Unix seconds of a wall-clock time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def log_of(meter, events, **policy):
    """Return a log with events (seconds, value, *dimensions) of one customer, accepted in this
    order.
    """
    log = MeterLog([meter], policy=MeterPolicy.history(**policy))
    for number, (moment, value, *dimensions) in enumerate(events):
        payload = {
            "stripe_customer_id": "cus_1",
            "value": value,
            **dict(zip(meter.dimension_payload_keys, dimensions, strict=True)),
        }
        log.record(meter.event_name, payload, identifier=f"e{number}", timestamp=moment, now=NOW)
    return log


def spans(summaries):
    """Return the length of each bucket in seconds."""
    return [int((one.end_time - one.start_time).total_seconds()) for one in summaries]


def values(summaries):
    return [one.aggregated_value for one in summaries]


TOKENS = Meter("mtr_tokens", "tokens")
REGIONS = Meter("mtr_regions", "regions", dimension_payload_keys=DIMENSIONS)


class TestWorkedCases:
    """What Stripe's pages show."""

    def test_ms_1_an_hourly_list_has_the_newest_first_and_no_empty_hours(self):
        """Of 23 hours, two have usage: 15 in the later comes before 10 in the earlier, and there is
        no more.
        """
        log = log_of(
            TOKENS,
            [(1711656000, "4"), (1711659599, "6"), (1711659600, "15")],
            aligned_summaries=True,
        )
        page = list_event_summaries(
            log, "mtr_tokens", "cus_1", 1711584000, 1711666800, value_grouping_window="hour"
        ).to_dict()
        rows = [
            (row["start_time"], row["end_time"], row["aggregated_value"]) for row in page["data"]
        ]
        assert rows == [(1711659600, 1711663200, 15), (1711656000, 1711659600, 10)]
        assert (page["object"], page["has_more"], page["url"]) == (
            "list",
            False,
            "/v1/billing/meters/mtr_tokens/event_summaries",
        )

    def test_ms_2_one_minute_without_grouping_is_a_range(self):
        """A window of one minute, 13:43:00 to 13:44:00, is accepted under Stripe's alignment; its
        end is not in it.
        """
        log = log_of(
            TOKENS,
            [(1717249379, "1"), (1717249380, "2"), (1717249439, "4"), (1717249440, "8")],
            aligned_summaries=True,
        )
        (summary,) = event_summaries(log, "mtr_tokens", "cus_1", 1717249380, 1717249440)
        assert (summary.aggregated_value, summary.events) == (6, 2)

    def test_mu_1_days_of_one_model_in_the_order_of_time(self):
        """Daily usage of the model gpt-4 is 1500, 2250 and 1875; what other models used is left
        out.
        """
        meter = Meter("mtr_1", "tokens", dimension_payload_keys=["model"])
        used = [
            (1733097600, "1500"),
            (1733270399, "2000"),
            (1733184000, "250"),
            (1733270400, "1875"),
        ]
        log = log_of(meter, [*((*one, "gpt-4") for one in used), (1733097600, "7", "other")])
        options = {"value_grouping_window": "day", "dimension_filters": {"model": "gpt-4"}}
        found = event_summaries(log, "mtr_1", "cus_1", 1733097600, 1733356800, **options)
        rows = [
            (int(one.start_time.timestamp()), int(one.end_time.timestamp()), one.aggregated_value)
            for one in found
        ]
        assert rows == [
            (1733097600, 1733184000, 1500),
            (1733184000, 1733270400, 2250),
            (1733270400, 1733356800, 1875),
        ]


class TestCalendars:
    """Buckets of hours, days, weeks and months on the wall clock of a zone."""

    def buckets(self, window, zone, start, end):
        log = log_of(TOKENS, [])
        return event_summaries(
            log, "mtr_tokens", "cus_1", start, end, value_grouping_window=window, timezone=zone
        )

    @pytest.mark.parametrize(
        ("zone", "day", "hours"),
        [
            ("Europe/Berlin", "2024-03-31", 23),
            ("Europe/Berlin", "2024-10-27", 25),
            ("America/New_York", "2024-03-10", 23),
            ("America/New_York", "2024-11-03", 25),
            ("Asia/Kathmandu", "2024-03-31", 24),
        ],
    )
    def test_the_days_that_daylight_saving_makes_short_or_long(self, zone, day, hours):
        """The days on which clocks are moved have 23 or 25 hours, as one bucket and as so many."""
        start = at(day, zone)
        end = at((datetime.fromisoformat(day) + timedelta(days=1)).isoformat(), zone)
        assert spans(self.buckets("day", zone, start, end)) == [hours * HOUR]
        assert spans(self.buckets("hour", zone, start, end)) == [HOUR] * hours

    def test_an_hour_cut_by_half_an_hour(self):
        """On Lord Howe Island clocks move by 30 minutes: the hour in which they do is cut there."""
        zone = "Australia/Lord_Howe"
        # 2:00 becomes 1:30: 1 to 2, then half an hour of the repeated 1:30 to 2, then 2 to 3.
        back = self.buckets(
            "hour", zone, at("2024-04-07T01:00", zone), at("2024-04-07T03:00", zone)
        )
        assert spans(back) == [HOUR, HOUR // 2, HOUR]
        # 2:00 becomes 2:30: 1 to 2, then 2:30 to 3, then 3 to 4.
        ahead = self.buckets(
            "hour", zone, at("2024-10-06T01:00", zone), at("2024-10-06T04:00", zone)
        )
        assert spans(ahead) == [HOUR, HOUR // 2, HOUR]

    def test_an_hour_cut_at_its_half(self):
        """In Pyongyang 23:30 became midnight on 2018-05-04: its hour from 23 on had half an hour,
        and midnight came next.
        """
        zone = "Asia/Pyongyang"
        found = self.buckets(
            "hour", zone, at("2018-05-04T22:00", zone), at("2018-05-05T01:00", zone)
        )
        assert spans(found) == [HOUR, HOUR // 2, HOUR]

    def test_buckets_at_the_ends_are_cut(self):
        """The hours of Kathmandu begin at a quarter past UTC's; a range that begins and ends at UTC
        hours cuts its ends.
        """
        # 5:45 ahead: 00:00Z is 5:45 there, so 15 minutes are left of the first hour, and 45 minutes
        # belong to the last.
        assert spans(
            self.buckets("hour", "Asia/Kathmandu", at("2024-05-01"), at("2024-05-01T02:00"))
        ) == [900, HOUR, 2700]
        # A range of UTC days, grouped by days of New York, which begin at 4:00Z in summer.
        cut = self.buckets("day", "America/New_York", at("2024-05-01"), at("2024-05-03"))
        assert spans(cut) == [4 * HOUR, DAY, 20 * HOUR]

    def test_weeks_begin_on_monday(self):
        """The first of May 2024 is a Wednesday: five days of its week are left, then come whole
        weeks from Monday on.
        """
        found = self.buckets(
            "week",
            "Europe/Berlin",
            at("2024-05-01", "Europe/Berlin"),
            at("2024-05-15", "Europe/Berlin"),
        )
        assert spans(found) == [5 * DAY, 7 * DAY, 2 * DAY]

    def test_months_are_as_long_as_the_calendar_says(self):
        """February to April 2024 in Berlin: 29, 31 days less the hour of March, 30 days."""
        found = self.buckets(
            "month",
            "Europe/Berlin",
            at("2024-02-01", "Europe/Berlin"),
            at("2024-05-01", "Europe/Berlin"),
        )
        assert spans(found) == [29 * DAY, 31 * DAY - HOUR, 30 * DAY]

    def test_midnights_that_do_not_exist_or_exist_twice(self):
        """Where clocks skip midnight the day begins at 1:00; where they repeat it, at the first of
        the two.
        """
        # São Paulo, 2018-11-04: 0:00 becomes 1:00. Havana, 2024-11-03: 1:00 becomes 0:00.
        skipped = self.buckets(
            "day",
            "America/Sao_Paulo",
            at("2018-11-03", "America/Sao_Paulo"),
            at("2018-11-05T12:00"),
        )
        assert spans(skipped)[:2] == [DAY, DAY - HOUR]
        twice = self.buckets(
            "day",
            "America/Havana",
            at("2024-11-03", "America/Havana"),
            at("2024-11-04", "America/Havana"),
        )
        assert spans(twice) == [DAY + HOUR]

    def test_the_anchor_of_calendars_is_a_midnight_everywhere(self):
        """What days, weeks and months are counted from is a Monday, the first of a month, and 0:00
        once in every zone.
        """
        anchor = meter_summaries._ANCHOR
        assert (anchor.weekday(), anchor.day) == (0, 1)
        for zone in map(ZoneInfo, sorted(available_timezones() - {"localtime"})):
            there = anchor.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
            assert (there.replace(tzinfo=None), there.fold) == (anchor, 0), zone


class TestDimensions:
    """Filters are equality, ANDed; groups are the sets of values that occur."""

    EVENTS = (
        (at("2024-05-01T00:10"), "1", "eu", "a"),
        (at("2024-05-01T01:10"), "2", "eu", "b"),
        (at("2024-05-01T01:20"), "4", "us", "a"),
        (at("2024-05-01T02:00"), "8", "us", "b"),
    )
    RANGE = ("mtr_regions", "cus_1", at("2024-05-01"), at("2024-05-01T02:00"))

    @pytest.mark.parametrize(
        ("filters", "value"),
        [
            (None, 7),
            ({"region": "eu"}, 3),
            ({"region": ["eu", "us"]}, 7),
            ({"region": "us", "model": ["a", "b"]}, 4),
            ({"region": "us", "model": "b"}, 0),
            ({"region": []}, 0),
        ],
    )
    def test_filters(self, filters, value):
        """A key takes one value or several, and all keys must agree; the range holds 1, 2 and 4,
        not the 8 at its end.
        """
        (found,) = event_summaries(
            log_of(REGIONS, self.EVENTS), *self.RANGE, dimension_filters=filters
        )
        assert (found.aggregated_value, found.dimensions) == (value, {})

    def test_groups_have_a_row_in_every_bucket_in_the_order_of_values(self):
        """Grouped by region there are two rows an hour, with zeros, in the order of the values,
        whatever came first.
        """
        log = log_of(REGIONS, self.EVENTS)
        found = event_summaries(
            log, *self.RANGE, value_grouping_window="hour", dimension_group_by_keys=["region"]
        )
        rows = [
            (one.start_time.hour, dict(one.dimensions), one.aggregated_value, one.events)
            for one in found
        ]
        eu, us = {"region": "eu"}, {"region": "us"}
        assert rows == [(0, eu, 1, 1), (0, us, 0, 0), (1, eu, 2, 1), (1, us, 4, 1)]

    def test_keys_in_the_order_asked_and_sets_that_occur_in_the_range(self):
        """The keys come in the order in which they were asked for; (us, b) occurs only after the
        range, so it has no row.
        """
        found = event_summaries(
            log_of(REGIONS, self.EVENTS), *self.RANGE, dimension_group_by_keys=["model", "region"]
        )
        rows = [(list(one.dimensions.items()), one.aggregated_value) for one in found]
        assert rows == [
            ([("model", "a"), ("region", "eu")], 1),
            ([("model", "a"), ("region", "us")], 4),
            ([("model", "b"), ("region", "eu")], 2),
        ]

    def test_a_level_from_before_is_a_set_that_occurs(self):
        """A gauge that carries forward has a row for what was last set before the range, and it is
        listed.
        """
        meter = Meter(
            "mtr_regions", "seats", "last", carry_forward=True, dimension_payload_keys=["region"]
        )
        log = log_of(meter, [(at("2024-04-01"), "5", "eu")])
        (found,) = event_summaries(log, *self.RANGE, dimension_group_by_keys=["region"])
        assert (found.aggregated_value, found.events, found.is_empty) == (5, 0, False)
        assert list_event_summaries(log, *self.RANGE).data == tuple(
            event_summaries(log, *self.RANGE)
        )


class TestCounting:
    """What is in a bucket."""

    def test_no_event_and_a_zero_are_told_apart(self):
        """An hour whose events add up to 0 has events and is listed; one without any is empty and
        is not.
        """
        log = log_of(TOKENS, [(at("2024-05-01T01:00"), "3"), (at("2024-05-01T01:30"), "-3")])
        asked = ("mtr_tokens", "cus_1", at("2024-05-01"), at("2024-05-01T02:00"))
        empty, zero = event_summaries(log, *asked, value_grouping_window="hour")
        assert (empty.aggregated_value, empty.events, empty.is_empty) == (0, 0, True)
        assert (zero.aggregated_value, zero.events, zero.is_empty) == (0, 2, False)
        assert list_event_summaries(log, *asked, value_grouping_window="hour").data == (zero,)

    def test_a_customer_without_events_has_zeros(self):
        """Who never used anything has an empty bucket, and nothing in the list."""
        log, asked = (
            log_of(TOKENS, [(at("2024-05-01"), "3")]),
            ("mtr_tokens", "cus_2", at("2024-05-01"), at("2024-05-02")),
        )
        assert values(event_summaries(log, *asked)) == [0]
        assert list_event_summaries(log, *asked).data == ()

    @pytest.mark.parametrize(("window", "width"), [("hour", HOUR), ("day", DAY)])
    def test_a_cut_event_time_window_belongs_to_its_winner(self, window, width):
        """The window's last received event counts, whole, on the side of the cut on which its own
        timestamp lies.
        """
        meter, start = Meter("mtr_tokens", "tokens", event_time_window=window), at("2024-05-01")
        log = log_of(meter, [(start + width - 60, "5"), (start + 60, "7")])
        before, after = (
            event_summaries(log, "mtr_tokens", "cus_1", *bounds)[0]
            for bounds in ((start, start + width // 2), (start + width // 2, start + width))
        )
        assert (
            (before.aggregated_value, before.events),
            (after.aggregated_value, after.events),
        ) == ((7, 1), (0, 0))

    def test_a_view_says_what_was_known(self):
        """A view before the second event and before a cancellation says what the log said then."""
        log, asked = (
            log_of(TOKENS, [(at("2024-05-01"), "3"), (at("2024-05-01"), "4")]),
            ("mtr_tokens", "cus_1"),
        )
        log.cancel("tokens", "e0", now=NOW)
        bounds = (at("2024-05-01"), at("2024-05-02"))
        seen = [
            values(event_summaries(usage, *asked, *bounds))
            for usage in (log.as_of(1), log.as_of(2), log)
        ]
        assert seen == [[3], [7], [4]]

    def test_a_cancellation_shows_in_a_warm_log(self):
        """What was asked before is asked again after a cancellation and a late event, and says the
        new value.
        """
        log = log_of(TOKENS, [(at("2024-05-01") + second, "1") for second in range(100)])
        asked = ("mtr_tokens", "cus_1", at("2024-05-01"), at("2024-05-02"))
        assert values(event_summaries(log, *asked)) == [100]
        log.cancel("tokens", "e50", now=NOW)
        assert values(event_summaries(log, *asked)) == [99]
        log.record(
            "tokens",
            {"stripe_customer_id": "cus_1", "value": "0.5"},
            timestamp=at("2024-05-01"),
            now=NOW,
        )
        assert values(event_summaries(log, *asked)) == [Decimal("99.5")]


class TestShape:
    """A summary and a page as data."""

    def summary(self, value=Decimal("2.50"), **changes):
        start = datetime(2024, 5, 1, tzinfo=UTC)
        return MeterEventSummary(
            "mtr_1", "cus_1", start, start + timedelta(hours=1), value, **changes
        )

    def test_to_dict_is_stripes_shape(self):
        """Times are Unix seconds, the value is exact, and everything can be written as JSON."""
        data = self.summary(dimensions={"region": "eu"}, events=3).to_dict()
        # 2024-05-01T00:00:00Z is day 19,844 since 1970: 19844 * 86400.
        assert {key: data[key] for key in data if key != "id"} == {
            "object": "billing.meter_event_summary",
            "aggregated_value": "2.5",
            "customer": "cus_1",
            "dimensions": {"region": "eu"},
            "end_time": 1714525200,
            "events": 3,
            "meter": "mtr_1",
            "start_time": 1714521600,
        }
        assert json.loads(json.dumps(data)) == data

    @pytest.mark.parametrize(
        ("value", "written"), [(7, 7), (Fraction(1, 3), "1/3"), (Decimal("-0.1"), "-0.1")]
    )
    def test_values_are_written_exactly(self, value, written):
        """A whole value is an int, others are strings: a decimal, or a fraction where no decimal
        can write it.
        """
        assert self.summary(value).to_dict()["aggregated_value"] == written

    def test_an_id_is_of_the_bucket_and_of_nothing_else(self):
        """The id stays when usage changes, and differs with the meter, the customer, each bound and
        the dimensions.
        """
        one = self.summary()
        assert one.id == self.summary(99, events=4).id
        later = one.end_time + timedelta(hours=1)
        start = datetime(2024, 5, 1, tzinfo=UTC)
        others = [
            self.summary(dimensions={"region": "eu"}),
            self.summary(dimensions={"region": "us"}),
            MeterEventSummary("mtr_2", "cus_1", start, one.end_time, 0),
            MeterEventSummary("mtr_1", "cus_2", start, one.end_time, 0),
            MeterEventSummary("mtr_1", "cus_1", start, later, 0),
            MeterEventSummary("mtr_1", "cus_1", one.end_time, later, 0),
        ]
        assert len({one.id, *(other.id for other in others)}) == 7

    def test_a_summary_is_a_value(self):
        """It can be hashed and pickled, and its dimensions cannot be changed."""
        one = self.summary(dimensions={"region": "eu"})
        assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own bytes
        assert len({one, self.summary(dimensions={"region": "eu"})}) == 1
        with pytest.raises(TypeError):
            one.dimensions["region"] = "us"


class TestPages:
    """Stripe's cursors: ids of summaries, in a list that is newest first."""

    START = at("2024-05-01")
    ASKED = ("mtr_tokens", "cus_1", START, START + 30 * HOUR)

    def list(self, log, **options):
        return list_event_summaries(log, *self.ASKED, value_grouping_window="hour", **options)

    def log(self):
        """Usage in the even ones of 30 hours; the hour's number is the value."""
        return log_of(TOKENS, [(self.START + hour * HOUR, str(hour)) for hour in range(0, 30, 2)])

    def test_ten_are_a_page_and_the_next_starts_after_it(self):
        """15 hours have usage: ten of them, then five, newest first; the hour 0 has an event,
        though its value is 0.
        """
        log = self.log()
        first = self.list(log)
        assert (values(first.data), first.has_more) == (
            [28, 26, 24, 22, 20, 18, 16, 14, 12, 10],
            True,
        )
        second = self.list(log, starting_after=first.data[-1].id)
        assert (values(second.data), second.has_more) == ([8, 6, 4, 2, 0], False)

    def test_a_page_before_a_cursor_is_the_one_next_to_it(self):
        """Reading back from the hour 8 the three before it in the list come newest first, and there
        are more.
        """
        log = self.log()
        cursor = self.list(log, limit=100).data[10].id
        page = self.list(log, ending_before=cursor, limit=3)
        assert (values(page.data), page.has_more) == ([14, 12, 10], True)
        page = self.list(log, ending_before=cursor)
        assert (values(page.data), page.has_more) == (
            [28, 26, 24, 22, 20, 18, 16, 14, 12, 10],
            False,
        )

    def test_a_cursor_holds_though_its_bucket_is_empty_now(self):
        """Paging goes on where it was although the last event of the cursor's bucket was canceled
        in between.
        """
        log = self.log()
        cursor = self.list(log, limit=2).data[-1]
        log.cancel("tokens", "e13", now=NOW)
        assert cursor.aggregated_value == 26
        assert values(self.list(log, limit=2, starting_after=cursor.id).data) == [24, 22]

    def test_nothing_is_before_the_newest_or_after_the_oldest(self):
        """At the ends of the list a page is empty, and there is no more."""
        log = self.log()
        every = self.list(log, limit=100).data
        for options in ({"ending_before": every[0].id}, {"starting_after": every[-1].id}):
            assert self.list(log, **options).to_dict() == {
                **self.list(log).to_dict(),
                "data": [],
                "has_more": False,
            }

    @pytest.mark.parametrize("limit", [0, 101, True, "10", None, 1.0])
    def test_a_limit_is_1_to_100(self, limit):
        """Any other limit is refused by name."""
        with pytest.raises(InvalidValueError) as refused:
            self.list(self.log(), limit=limit)
        assert refused.value.param == "limit"

    def test_two_cursors_exclude_each_other(self):
        """A page cannot start after one summary and end before another."""
        with pytest.raises(InvalidValueError) as refused:
            self.list(self.log(), starting_after="a", ending_before="b")
        assert refused.value.code is ErrorCode.PARAMETERS_EXCLUSIVE

    @pytest.mark.parametrize("param", ["starting_after", "ending_before"])
    @pytest.mark.parametrize(
        "cursor",
        [
            "",
            "mtrusg_",
            "mtrusg_!!!",
            "mtrusg_bnVsbA",
            "mtrusg_W1tb",
            7,
            "mtrusg_" + "W1tb" * 100_000,
            "é",
        ],
    )
    def test_a_cursor_is_an_id_of_the_list(self, param, cursor):
        """Anything but the id of a summary is refused by name."""
        with pytest.raises(InvalidValueError) as refused:
            self.list(self.log(), **{param: cursor})
        assert refused.value.param == param

    def test_a_cursor_of_another_list_is_refused(self):
        """The id of another customer's summary, or of one with dimensions, is no cursor here."""
        log = self.log()
        start = datetime(2024, 5, 1, tzinfo=UTC)
        for other in (
            MeterEventSummary("mtr_tokens", "cus_2", start, start + timedelta(hours=1), 0),
            MeterEventSummary(
                "mtr_tokens", "cus_1", start, start + timedelta(hours=1), 0, {"region": "eu"}
            ),
        ):
            with pytest.raises(InvalidValueError):
                self.list(log, starting_after=other.id)


class TestRefusals:
    """Each argument is checked by name."""

    GOOD: ClassVar = {
        "meter_id": "mtr_regions",
        "customer": "cus_1",
        "start_time": at("2024-05-01"),
        "end_time": at("2024-05-02"),
    }

    @pytest.mark.parametrize(
        ("changes", "code", "param"),
        [
            ({"meter_id": "mtr_x"}, ErrorCode.METER_UNKNOWN, "meter"),
            ({"customer": ""}, ErrorCode.PARAMETER_INVALID_STRING, "customer"),
            (
                {"start_time": datetime(2024, 5, 1)},  # noqa: DTZ001
                ErrorCode.PARAMETER_INVALID_INSTANT,
                "start_time",
            ),
            (
                {"start_time": datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=UTC)},
                ErrorCode.PARAMETER_INVALID_INSTANT,
                "start_time",
            ),
            ({"end_time": "2024-05-02"}, ErrorCode.PARAMETER_INVALID_INSTANT, "end_time"),
            ({"end_time": at("2024-05-01")}, ErrorCode.PARAMETER_INVALID_OBJECT, "end_time"),
            ({"end_time": at("2024-04-01")}, ErrorCode.PARAMETER_INVALID_OBJECT, "end_time"),
            (
                {"value_grouping_window": "year"},
                ErrorCode.PARAMETER_INVALID_CHOICE,
                "value_grouping_window",
            ),
            ({"timezone": "Mars/Base"}, ErrorCode.TIMEZONE_UNKNOWN, "timezone"),
            ({"timezone": None}, ErrorCode.PARAMETER_INVALID_STRING, "timezone"),
            (
                {"dimension_filters": {"color": "red"}},
                ErrorCode.PARAMETER_INVALID_CHOICE,
                "dimension_filters[color]",
            ),
            (
                {"dimension_filters": {"region": 5}},
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "dimension_filters[region]",
            ),
            (
                {"dimension_filters": {"region": ["eu", 5]}},
                ErrorCode.PARAMETER_INVALID_STRING,
                "dimension_filters[region]",
            ),
            (
                {"dimension_filters": ["region"]},
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "dimension_filters",
            ),
            (
                {"dimension_group_by_keys": "region"},
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "dimension_group_by_keys",
            ),
            (
                {"dimension_group_by_keys": ["color"]},
                ErrorCode.PARAMETER_INVALID_CHOICE,
                "dimension_group_by_keys[0]",
            ),
            (
                {"dimension_group_by_keys": [[]]},
                ErrorCode.PARAMETER_INVALID_CHOICE,
                "dimension_group_by_keys[0]",
            ),
            (
                {"dimension_group_by_keys": ["model", "model"]},
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "dimension_group_by_keys",
            ),
            ({"usage": object()}, ErrorCode.PARAMETER_INVALID_OBJECT, "usage"),
        ],
    )
    def test_what_is_wrong_is_named(self, changes, code, param):
        """The refusal has the code of its kind and names the argument, in both functions."""
        arguments = {"usage": log_of(REGIONS, []), **self.GOOD, **changes}
        for function in (event_summaries, list_event_summaries):
            with pytest.raises(InvalidValueError) as refused:
                function(**arguments)
            assert (refused.value.code, refused.value.param) == (code, param)

    def test_hours_of_the_first_year_of_a_zone_behind_utc(self):
        """A moment that a zone's clock cannot show is refused, not a crash."""
        first = -62_135_596_800
        arguments = {
            **self.GOOD,
            "start_time": first,
            "end_time": first + HOUR,
            "timezone": "America/New_York",
        }
        for window in ("hour", "day", "month"):
            with pytest.raises(InvalidValueError):
                event_summaries(log_of(REGIONS, []), **arguments, value_grouping_window=window)

    @pytest.mark.parametrize(
        ("window", "start", "is_taken"),
        [
            (None, "2024-05-01T00:01:00", True),
            (None, "2024-05-01T00:01:01", False),
            ("hour", "2024-05-01T01:00", True),
            ("hour", "2024-05-01T01:30", False),
            ("day", "2024-05-01", True),
            ("day", "2024-05-01T01:00", False),
            ("week", "2024-05-01T00:01:00", True),
            ("month", "2024-05-01T00:00:30", False),
        ],
    )
    def test_alignment_under_stripes_profile(self, window, start, is_taken):
        """Bounds are whole minutes, and whole hours or UTC days where grouped by them; any second
        without the policy.
        """
        asked = ("mtr_regions", "cus_1", at(start), at("2024-05-03"))
        event_summaries(log_of(REGIONS, []), *asked, value_grouping_window=window)
        strict = log_of(REGIONS, [], significant_digits=15, aligned_summaries=True)
        if is_taken:
            event_summaries(strict, *asked, value_grouping_window=window)
            return
        for usage in (strict, strict.as_of(0)):
            with pytest.raises(InvalidValueError) as refused:
                event_summaries(usage, *asked, value_grouping_window=window)
            assert (refused.value.code, refused.value.param) == (
                ErrorCode.PARAMETER_INVALID_INSTANT,
                "start_time",
            )

    @pytest.mark.parametrize(("hours", "is_taken"), [(100_000, True), (100_001, False)])
    def test_a_range_is_cut_into_at_most_100_000_buckets(self, hours, is_taken):
        """The limit itself is taken, and one hour more is refused by the name of the window, before
        any bucket is made.
        """
        start = at("2000-01-01")
        asked = (log_of(REGIONS, []), "mtr_regions", "cus_1", start, start + hours * HOUR)
        if is_taken:
            event_summaries(*asked, value_grouping_window="hour")
            return
        with pytest.raises(
            InvalidValueError, match=r"at most 100,000 buckets, received 'hour'"
        ) as refused:
            event_summaries(*asked, value_grouping_window="hour")
        assert (refused.value.code, refused.value.param) == (
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "value_grouping_window",
        )

    def test_zones_of_datetimes_do_not_matter(self):
        """A bound is a moment: given in another zone it is the same one."""
        log = log_of(TOKENS, [(at("2024-05-01"), "3")])
        east = timezone(timedelta(hours=9))
        bounds = (datetime(2024, 5, 1, 9, tzinfo=east), datetime(2024, 5, 2, 9, tzinfo=east))
        (found,) = event_summaries(log, "mtr_tokens", "cus_1", *bounds)
        assert (found.aggregated_value, found.start_time) == (3, datetime(2024, 5, 1, tzinfo=UTC))


class TestTotals:
    """What may be added over a split, and what may not."""

    @pytest.mark.parametrize(
        "formula", ["last", "max", "min", "unique_count", "average", "weighted_sum"]
    )
    def test_other_formulas_are_refused(self, formula):
        """Values of any formula but sum and count do not add up, even where there is only one
        summary, or none.
        """
        with pytest.raises(InvoicingError) as refused:
            total_of(Meter("mtr_1", "tokens", formula), [])
        assert refused.value.code is ErrorCode.FORMULA_NOT_ADDITIVE

    def test_decimals_add_up_exactly(self):
        """Ten tenths are 1, a whole number."""
        log = log_of(TOKENS, [(at("2024-05-01") + hour * HOUR, "0.1") for hour in range(10)])
        found = event_summaries(
            log,
            "mtr_tokens",
            "cus_1",
            at("2024-05-01"),
            at("2024-05-02"),
            value_grouping_window="hour",
        )
        assert total_of(TOKENS, found) == 1

    def test_a_summary_of_another_meter_is_refused(self):
        """Tokens and seats are not added; the position is named."""
        summary = MeterEventSummary(
            "mtr_seats",
            "cus_1",
            datetime(2024, 5, 1, tzinfo=UTC),
            datetime(2024, 5, 2, tzinfo=UTC),
            3,
        )
        with pytest.raises(InvalidValueError) as refused:
            total_of(TOKENS, [summary])
        assert refused.value.param == "summaries[0]"


# The law, against a slow reader that shares no code -----------------------------------------------


def bucket_of(seconds, window, zone):
    """Return what tells the bucket of a moment from others, off the wall clock of a zone."""
    wall = datetime.fromtimestamp(seconds, ZoneInfo(zone))
    match window:
        case None:
            return 0
        case "hour":
            # When it was this clock's whole hour last: distinct for the repeated hour, and where
            # clocks move by half of one.
            return seconds - wall.minute * 60 - wall.second
        case "day":
            return wall.date()
        case "week":
            return wall.date() - timedelta(days=wall.weekday())
    return wall.year, wall.month


def buckets_of(start, end, window, zone):
    """Return the buckets of a range by walking it in quarters of an hour, on which all clocks here
    are moved.
    """
    steps = [start, *range(start - start % 900 + 900, end, 900)]
    begins = [
        step
        for at, step in enumerate(steps)
        if not at or bucket_of(step, window, zone) != bucket_of(steps[at - 1], window, zone)
    ]
    return list(zip(begins, [*begins[1:], end], strict=True))


def expected_rows(meter, events, asked):
    """Return (start, end, dimensions, value, events) as the rules say, from a plain list of
    events.
    """
    filters, keys, end = (
        asked["dimension_filters"] or {},
        asked["dimension_group_by_keys"],
        asked["end_time"],
    )
    chosen = []
    for one in counting(events, meter.event_time_window and meter.event_time_window.value):
        own = dict(zip(DIMENSIONS, one.dimensions, strict=True))
        if all(
            own[key] == allowed or (type(allowed) is list and own[key] in allowed)
            for key, allowed in filters.items()
        ):
            chosen.append((tuple(own[key] for key in keys), one))
    looks_back = meter.carry_forward or meter.formula == "weighted_sum"
    first = asked["start_time"] * SECOND
    groups = {
        values
        for values, one in chosen
        if one.moment < end * SECOND and (looks_back or one.moment >= first)
    }
    rows = []
    for begin, stop in buckets_of(
        asked["start_time"], end, asked["value_grouping_window"], asked["timezone"]
    ):
        for values in sorted(groups) if keys else [()]:
            own = [one for mine, one in chosen if mine == values]
            bounds = (begin * SECOND, stop * SECOND)
            value = measured(meter.formula.value, own, *bounds, carry=meter.carry_forward)
            count = sum(bounds[0] <= one.moment < bounds[1] for one in own)
            rows.append((begin, stop, dict(zip(keys, values, strict=True)), value, count))
    return rows


def as_row(summary):
    start, end = int(summary.start_time.timestamp()), int(summary.end_time.timestamp())
    return start, end, dict(summary.dimensions), summary.aggregated_value, summary.events


@st.composite
def questions(draw):
    """Draw events around a moment at which clocks are moved, and a question whose range
    holds it.
    """
    window, middle = draw(st.sampled_from(list(SPANS))), draw(st.sampled_from(TRANSITIONS))
    span = SPANS[window]
    near = st.one_of(
        st.integers(-4, 4).map(lambda number: number * 1800),
        st.integers(-span // HOUR, span // HOUR).map(lambda number: number * HOUR),
        st.integers(-span, span),
    )
    shift = st.sampled_from([0, 0, 0, -1, 1, 500_000])
    moments = st.builds(lambda after, micro: (middle + after) * SECOND + micro, near, shift)
    dimensions = st.tuples(st.sampled_from(["eu", "us"]), st.sampled_from(["a", "b", ""]))
    texts = st.sampled_from(["1", "2", "3", "-4", "0", "0.5", "-0.25", "1000000000000000000.1"])
    events = draw(st.lists(st.tuples(moments, texts, dimensions), max_size=30))
    start, end = sorted(draw(st.lists(near, min_size=2, max_size=2, unique=True)))
    filters = st.none() | st.fixed_dictionaries(
        {},
        optional={
            "region": st.sampled_from(["eu", ["us"], ["us", "eu"], []]),
            "model": st.sampled_from(["a", ["a", ""]]),
        },
    )
    asked = {
        "start_time": middle + start,
        "end_time": middle + end,
        "value_grouping_window": window,
        "timezone": draw(st.sampled_from(ZONES)),
        "dimension_filters": draw(filters),
        "dimension_group_by_keys": draw(
            st.sampled_from([(), ("region",), ("model",), ("model", "region")])
        ),
    }
    canceled = draw(st.sets(st.integers(0, 29), max_size=5)) & set(range(len(events)))
    return events, sorted(canceled), asked


def told(meter, events, canceled, *, warm):
    """Return a log that was told the events and cancellations, and what stands of them after each
    number of the log.
    """
    log = MeterLog([meter], policy=MeterPolicy.history())
    standing = [[]]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for number, (moment, text, dimensions) in enumerate(events, 1):
        payload = {
            "stripe_customer_id": "cus_1",
            "value": text,
            **dict(zip(DIMENSIONS, dimensions, strict=True)),
        }
        at = epoch + timedelta(microseconds=moment)
        (receipt,) = log.append(
            [MeterEvent("used", payload, identifier=str(number), timestamp=at)], now=NOW
        )
        assert receipt.code is None
        standing.append([*standing[-1], Seen(number, moment, "cus_1", dimensions, text)])
    if warm:
        event_summaries(log, meter.id, "cus_1", 0, NOW)
    for place in canceled:
        log.cancel("used", str(place + 1), now=NOW)
        standing.append([one for one in standing[-1] if one.number != place + 1])
    return log, standing


METERS = [
    *[
        {"formula": formula}
        for formula in (
            "sum",
            "count",
            "last",
            "max",
            "min",
            "unique_count",
            "average",
            "weighted_sum",
        )
    ],
    {"formula": "last", "carry_forward": True},
]


@pytest.mark.parametrize(
    "options", METERS, ids=lambda options: "_".join(map(str, options.values()))
)
def test_summaries_are_what_a_slow_reader_says(options):
    """Any grouping, zone, filter, keys, view and event time window gives the rows that plain loops
    over the events give.
    """

    @given(questions(), st.sampled_from([None, "hour", "day"]), st.booleans(), st.data())
    @few
    def run(question, window, warm, data):
        events, canceled, asked = question
        meter = Meter(
            "mtr_1", "used", dimension_payload_keys=DIMENSIONS, event_time_window=window, **options
        )
        log, standing = told(meter, events, canceled, warm=warm)
        sequence = data.draw(st.none() | st.integers(0, len(standing) - 1))
        usage = log if sequence is None else log.as_of(sequence)
        found = event_summaries(usage, "mtr_1", "cus_1", **asked)
        assert [as_row(one) for one in found] == expected_rows(
            meter, standing[-1 if sequence is None else sequence], asked
        )
        if meter.formula in {"sum", "count"}:
            (whole,) = event_summaries(
                usage,
                "mtr_1",
                "cus_1",
                asked["start_time"],
                asked["end_time"],
                dimension_filters=asked["dimension_filters"],
            )
            assert total_of(meter, found) == whole.aggregated_value

    run()


@given(questions(), st.integers(1, 7), st.sampled_from(METERS))
@few
def test_pages_are_the_summaries_that_are_not_empty_newest_first(question, limit, options):
    """Read page by page in either direction, the list is the dense one without what is empty,
    newest bucket first.
    """
    events, canceled, asked = question
    meter = Meter("mtr_1", "used", dimension_payload_keys=DIMENSIONS, **options)
    log, _ = told(meter, events, canceled, warm=False)
    dense = event_summaries(log, "mtr_1", "cus_1", **asked)
    starts = sorted({one.start_time for one in dense}, reverse=True)
    expected = [
        one
        for start in starts
        for one in dense
        if one.start_time == start and (one.events or one.aggregated_value)
    ]
    forward, cursor, has_more = [], None, True
    while has_more:
        page = list_event_summaries(
            log, "mtr_1", "cus_1", **asked, limit=limit, starting_after=cursor
        )
        forward += page.data
        has_more, cursor = page.has_more, page.data[-1].id if page.data else None
        assert len(page.data) == limit or not has_more
    assert forward == expected
    if expected:
        backward, cursor, has_more = [expected[-1]], expected[-1].id, True
        while has_more:
            page = list_event_summaries(
                log, "mtr_1", "cus_1", **asked, limit=limit, ending_before=cursor
            )
            backward = [*page.data, *backward]
            has_more, cursor = page.has_more, backward[0].id
        assert backward == expected


class _CountsMerges(Aggregator):
    """The sum, with a count of what was called."""

    identity = 0
    calls = 0

    def prepare(self, timestamp, quantity):
        self.calls += 1
        return quantity

    def merge(self, left, right):
        self.calls += 1
        return left + right

    def present(self, partial):
        return partial


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_a_warm_question_costs_its_buckets_not_its_events(monkeypatch, zone):
    """A day by hours of a warm log takes no more merges for 100,000 events than for 1,000."""
    counter = _CountsMerges()
    monkeypatch.setattr("metering_core.readings.formula_of", lambda _: counter)
    monkeypatch.setattr(meter_summaries, "formula_of", lambda _: counter)
    merges = {}
    for size in (1_000, 100_000):
        log = MeterLog([TOKENS], policy=MeterPolicy.history())
        start = at("2024-05-01")
        payload = {"stripe_customer_id": "cus_1", "value": "1"}
        log.append(
            [
                MeterEvent("tokens", payload, timestamp=start + number * DAY // size)
                for number in range(size)
            ],
            now=NOW,
        )
        for _ in range(2):
            counter.calls = 0
            found = event_summaries(
                log,
                "mtr_tokens",
                "cus_1",
                start,
                start + DAY,
                value_grouping_window="hour",
                timezone=zone,
            )
        assert sum(values(found)) == size
        merges[size] = counter.calls
    assert merges[100_000] <= merges[1_000]


def test_a_summary_costs_the_same_however_many_dimension_values(monkeypatch):
    """A day by hours of a warm log takes no more merges for events of 1,000 sets of dimension
    values than for one set.
    """
    counter, start = _CountsMerges(), at("2024-05-01")
    monkeypatch.setattr("metering_core.readings.formula_of", lambda _: counter)
    monkeypatch.setattr(meter_summaries, "formula_of", lambda _: counter)
    meter = Meter("mtr_models", "models", dimension_payload_keys=["model"])
    merges = {}
    for sets in (1, 1_000):
        log = MeterLog([meter], policy=MeterPolicy.history())
        payloads = [
            {"stripe_customer_id": "cus_1", "value": "1", "model": str(one % sets)}
            for one in range(5_000)
        ]
        log.append(
            [
                MeterEvent("models", one, timestamp=start + at_ * 17)
                for at_, one in enumerate(payloads)
            ],
            now=NOW,
        )
        for _ in range(2):
            counter.calls = 0
            hours = event_summaries(
                log, meter.id, "cus_1", start, start + DAY, value_grouping_window="hour"
            )
            merges[sets] = counter.calls
        assert sum(values(hours)) == 5_000
    assert merges[1_000] <= merges[1]


def test_many_dimension_values_change_no_answer(monkeypatch):
    """Readings of all dimension values in one timeline say what each alone says, whatever comes,
    goes and is overwritten.
    """
    monkeypatch.setattr(readings, "_FEW", 0)
    for number in range(1000, 1060):
        tell(number, steps=20)


def test_overwritten_values_leave_the_timeline_of_all(monkeypatch):
    """5 overwrites the 1 of its hour and region, of which another region knows nothing; canceled,
    it gives the 1 back.
    """
    monkeypatch.setattr(readings, "_FEW", 0)
    meter, start = (
        Meter("mtr_levels", "levels", event_time_window="hour", dimension_payload_keys=["region"]),
        at("2024-05-01"),
    )
    log = log_of(meter, [(start, "1", "eu"), (start, "20", "us")])
    assert values(event_summaries(log, meter.id, "cus_1", start, start + DAY)) == [21]
    payload = {"stripe_customer_id": "cus_1", "value": "5", "region": "eu"}
    log.record("levels", payload, identifier="again", timestamp=start + 9, now=NOW)
    assert values(event_summaries(log, meter.id, "cus_1", start, start + DAY)) == [25]
    log.cancel("levels", "again", now=NOW)
    assert values(event_summaries(log, meter.id, "cus_1", start, start + DAY)) == [21]
