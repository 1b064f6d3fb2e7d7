"""Periods: instants, half-open periods, and cycles that tile time from an anchor."""

from __future__ import annotations

import calendar
import itertools
import pickle
import time
import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.periods import (
    INTERVAL_COUNT_MAX,
    BillingCycle,
    BillingPeriod,
    Interval,
    from_unix_seconds,
    instant,
    parse_instant,
    unix_seconds,
)

ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Dublin",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "America/Sao_Paulo",  # changed at midnight
    "Asia/Kathmandu",
    "Pacific/Apia",  # skipped 2011-12-30
    "Pacific/Kwajalein",  # skipped a day in 1993
    "America/Juneau",  # repeated a day in 1867
]
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001
LENGTHS = st.sampled_from(Interval).flatmap(
    lambda interval: st.tuples(st.just(interval), st.integers(1, INTERVAL_COUNT_MAX[interval]))
)
MOMENTS = st.datetimes(NAIVE.replace(year=1850), NAIVE.replace(year=2200), timezones=st.just(UTC))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def months_after(anchor: datetime, months: int) -> datetime:
    """Add months by counting them from the year 0: the day is the anchor's, or the month's last."""
    year, month_before = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    last = calendar.monthrange(year, month_before + 1)[1]
    return anchor.replace(year=year, month=month_before + 1, day=min(anchor.day, last))


def refusal(build: Any, *arguments: Any, **named: Any) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        build(*arguments, **named)
    return caught.value


class TestInstant:
    def test_aware_datetimes_become_utc(self) -> None:
        """An aware datetime keeps its moment, with its microseconds, and is written in UTC."""
        plus_one = timezone(timedelta(hours=1))
        assert instant(datetime(2024, 1, 1, 0, 30, 0, 7, tzinfo=plus_one), "x") == utc(
            2023, 12, 31, 23, 30, 0, 7
        )
        assert instant(datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), "x").tzinfo is UTC
        assert instant(utc(2024, 1, 1), "x").tzinfo is UTC

    @pytest.mark.parametrize(
        ("seconds", "moment"),
        [
            (0, utc(1970, 1, 1)),
            (-1, utc(1969, 12, 31, 23, 59, 59)),
            (1_571_252_444, utc(2019, 10, 16, 19, 0, 44)),
        ],
    )
    def test_unix_seconds_become_utc(self, seconds: int, moment: datetime) -> None:
        """An int is Unix seconds, also before 1970."""
        assert instant(seconds, "x") == moment
        assert from_unix_seconds(seconds) == moment
        assert instant(seconds, "x").tzinfo is UTC

    def test_integers_of_other_libraries_are_taken(self) -> None:
        """Whatever answers __index__, such as a NumPy integer, is an integer."""

        class Seconds:
            def __index__(self) -> int:
                return 86_400

        assert instant(Seconds(), "x") == utc(1970, 1, 2)

    @pytest.mark.parametrize(
        "value",
        [
            NAIVE,
            date(2024, 1, 1),
            1.0,
            Decimal(1),
            True,
            "2024-01-01T00:00:00Z",
            "0",
            None,
            -62_135_596_801,
            253_402_300_800,
            10**400,
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            datetime(9999, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-1))),
        ],
        ids=repr,
    )
    def test_what_is_not_an_instant_is_refused(self, value: object) -> None:
        """Naive datetimes, floats, bools, strings and moments outside the years 1 to 9999 are
        refused by name.
        """
        error = refusal(instant, value, "timestamp")
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "timestamp")
        assert error.details["expected"].startswith(
            "an aware datetime or Unix seconds, within the years 1 to 9999"
        )
        assert error.details["received"] is value

    def test_an_absent_datetime_is_no_instant(self) -> None:
        """What pandas holds where a timestamp is absent is a datetime that equals nothing and has
        no offset to ask for.
        """

        class Absent(datetime):
            __hash__ = datetime.__hash__

            def __eq__(self, other: object) -> bool:
                return False

            def __ne__(self, other: object) -> bool:
                return True

            def utcoffset(self) -> None:
                raise ValueError("NaTType does not support utcoffset")

        error = refusal(instant, Absent(2024, 1, 1), "timestamp")
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "timestamp")

    def test_the_message_says_naive(self) -> None:
        """A naive datetime is told from other nonsense, since it looks right in print."""
        assert "not naive" in str(refusal(instant, NAIVE, "timestamp"))

    def test_the_bounds_are_inclusive(self) -> None:
        """The first and the last second of the years 1 to 9999 are instants, and the seconds beyond
        are not.
        """
        assert from_unix_seconds(-62_135_596_800) == utc(1, 1, 1)
        assert from_unix_seconds(253_402_300_799) == utc(9999, 12, 31, 23, 59, 59)
        assert instant(-62_135_596_800, "x") == utc(1, 1, 1)
        assert instant(253_402_300_799, "x") == utc(9999, 12, 31, 23, 59, 59)
        for outside in (-62_135_596_801, 253_402_300_800):
            error = refusal(from_unix_seconds, outside)
            assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "seconds")
            assert error.details["received"] == outside

    @pytest.mark.parametrize(
        ("text", "is_told_why"),
        [
            ("2016-12-31T23:59:60Z", True),  # there was one, at the end of 2016
            ("2017-01-01 00:59:60.5+01:00", True),
            ("2016-12-31T23:59:61Z", False),  # never was one
            ("2016-12-31T23:60:00Z", False),
            ("2016-12-31T23:59:60", False),  # its offset is the first thing that it lacks
        ],
    )
    def test_a_leap_second_is_refused_and_told_why(self, text: str, is_told_why: bool) -> None:
        """Unix seconds have no leap second: the refusal of one says so, that of another malformed
        text says the shape.
        """
        error = refusal(parse_instant, text, "at")
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "at")
        assert ("no leap second" in error.message, "ISO 8601 with an offset" in error.message) == (
            is_told_why,
            not is_told_why,
        )
        assert parse_instant("2016-12-31T23:59:59Z", "at") == utc(2016, 12, 31, 23, 59, 59)


class TestUnixSeconds:
    @pytest.mark.parametrize(
        ("moment", "seconds"),
        [
            (utc(1970, 1, 1), 0),
            (utc(1970, 1, 1, 0, 0, 0, 999_999), 0),
            (utc(1969, 12, 31, 23, 59, 59, 999_999), -1),
            (utc(1969, 12, 31, 23, 59, 59), -1),
            (utc(1969, 12, 31, 23, 59, 58, 1), -2),
            (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        ],
    )
    def test_floors(self, moment: datetime, seconds: int) -> None:
        """Part of a second is dropped toward the past, on both sides of 1970."""
        assert unix_seconds(moment) == seconds

    @given(st.datetimes(timezones=st.just(UTC)))
    def test_agrees_with_the_calendar(self, moment: datetime) -> None:
        """The seconds are those of calendar.timegm, and lead back to the moment's second."""
        assert unix_seconds(moment) == calendar.timegm(moment.utctimetuple())
        assert from_unix_seconds(unix_seconds(moment)) == moment.replace(microsecond=0)


class TestBillingPeriod:
    def test_is_half_open(self) -> None:
        """A period holds its start and its last microsecond, not its end and not what lies
        before.
        """
        january = BillingPeriod(utc(2024, 1, 1), utc(2024, 2, 1))
        assert january.start in january
        assert january.end_seconds - 1 in january
        assert utc(2024, 1, 31, 23, 59, 59, 999_999) in january
        assert january.end not in january
        assert utc(2023, 12, 31, 23, 59, 59, 999_999) not in january

    def test_membership_refuses_what_is_no_instant(self) -> None:
        """Asking for a naive datetime is an error, not False."""
        january = BillingPeriod(0, 1)
        error = refusal(january.__contains__, NAIVE)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "instant")

    def test_bounds_are_floored_and_equal_however_written(self) -> None:
        """Datetimes and Unix seconds of the same second make the same period."""
        by_datetime = BillingPeriod(utc(1970, 1, 1, 0, 0, 0, 999_999), utc(1970, 1, 2, 0, 0, 0, 1))
        assert by_datetime == BillingPeriod(0, 86_400)
        assert (by_datetime.start, by_datetime.end) == (utc(1970, 1, 1), utc(1970, 1, 2))
        assert (by_datetime.start_seconds, by_datetime.end_seconds) == (0, 86_400)
        assert hash(by_datetime) == hash(BillingPeriod(0, 86_400))

    def test_prints_in_iso_8601(self) -> None:
        """The text has both bounds in UTC, with four digits for the year also long ago."""
        assert (
            str(BillingPeriod(utc(2024, 1, 1), utc(2024, 2, 1)))
            == "2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z"
        )
        assert (
            str(BillingPeriod(utc(7, 1, 1), utc(7, 1, 2)))
            == "0007-01-01T00:00:00Z to 0007-01-02T00:00:00Z"
        )

    @pytest.mark.parametrize(
        ("start", "end"), [(5, 5), (5, 4), (utc(1970, 1, 1), utc(1970, 1, 1, 0, 0, 0, 999_999))]
    )
    def test_cannot_be_empty(self, start: datetime | int, end: datetime | int) -> None:
        """A period without a whole second is refused."""
        error = refusal(BillingPeriod, start, end)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, "end")

    def test_the_refusal_of_an_empty_period_shows_both_bounds(self) -> None:
        """Given as seconds or not, the bounds are shown as people read them."""
        message = "end: expected a moment at least one second after start, 1970-01-01T00:00:05Z, "
        assert (
            refusal(BillingPeriod, 5, 4).message
            == message + "received '1970-01-01T00:00:04Z' (str)"
        )

    def test_one_second_is_enough(self) -> None:
        """The shortest period is one second long."""
        assert 5 in BillingPeriod(5, 6)

    @pytest.mark.parametrize("param", ["start", "end"])
    def test_names_the_bound_that_is_no_instant(self, param: str) -> None:
        """The error says which bound was naive."""
        bounds: dict[str, Any] = {"start": 0, "end": 1, param: NAIVE}
        error = refusal(BillingPeriod, **bounds)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, param)

    def test_cannot_be_changed_and_pickles(self) -> None:
        """A period is a value: frozen, and equal after a journey between processes."""
        period = BillingPeriod(0, 86_400)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            period.start = utc(2024, 1, 1)  # type: ignore[misc]
        assert pickle.loads(pickle.dumps(period)) == period  # noqa: S301
        assert attrs.evolve(period, end=172_800).end_seconds == 172_800


class TestWorkedAnchors:
    """Rows E65 to E69 of Stripe's documentation of billing cycles."""

    def test_e65_january_31_comes_back(self) -> None:
        """Monthly from January 31: the last of February, March 31, April 30."""
        cycle = BillingCycle(utc(2023, 1, 31, 8), "month")
        assert [cycle.boundary(k) for k in range(4)] == [
            utc(2023, 1, 31, 8),
            utc(2023, 2, 28, 8),
            utc(2023, 3, 31, 8),
            utc(2023, 4, 30, 8),
        ]
        assert cycle.boundary(13) == utc(2024, 2, 29, 8)

    def test_e66_two_months_before_an_august_anchor(self) -> None:
        """Every 2 months, anchored on August 31: the boundaries before it include the end of
        February.
        """
        cycle = BillingCycle(utc(2024, 8, 31), Interval.MONTH, 2)
        assert [cycle.boundary(k) for k in (-3, -2, -1)] == [
            utc(2024, 2, 29),
            utc(2024, 4, 30),
            utc(2024, 6, 30),
        ]
        assert cycle.period_at(utc(2024, 2, 10)).end == utc(2024, 2, 29)
        assert BillingCycle(utc(2023, 8, 31), "month", 2).period_at(utc(2023, 2, 10)).end == utc(
            2023, 2, 28
        )

    def test_e67_september_2_is_every_second_of_the_month(self) -> None:
        """Monthly from September 2: every month on its 2nd."""
        cycle = BillingCycle(utc(2024, 9, 2), "month")
        periods = itertools.islice(cycle.periods_from(cycle.anchor), 12)
        assert [(period.end.month, period.end.day) for period in periods] == [
            (month, 2) for month in (10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9)
        ]

    def test_e68_friday_weekly_is_every_friday(self) -> None:
        """Weekly from Friday, June 3 (2022): each boundary is the Friday after the one before."""
        cycle = BillingCycle(utc(2022, 6, 3), "week")
        assert [cycle.boundary(k) for k in range(5)] == [
            utc(2022, 6, 3),
            utc(2022, 6, 10),
            utc(2022, 6, 17),
            utc(2022, 6, 24),
            utc(2022, 7, 1),
        ]
        assert cycle.boundary(-1000).weekday() == calendar.FRIDAY

    def test_e69_an_eastern_creation_time_is_kept_in_utc(self) -> None:
        """A creation time of 17:00 EST is an anchor at 22:00 UTC, in summer too."""
        eastern = zoneinfo.ZoneInfo("America/New_York")
        cycle = BillingCycle(datetime(2024, 1, 15, 17, tzinfo=eastern), "month")
        assert cycle.anchor == utc(2024, 1, 15, 22)
        assert cycle.boundary(6) == utc(2024, 7, 15, 22)

    def test_leap_day_yearly(self) -> None:
        """Yearly from February 29: February 28, and the 29th again in leap years (decision 18)."""
        cycle = BillingCycle(utc(2024, 2, 29), "year")
        assert [cycle.boundary(k) for k in range(5)] == [
            utc(2024, 2, 29),
            utc(2025, 2, 28),
            utc(2026, 2, 28),
            utc(2027, 2, 28),
            utc(2028, 2, 29),
        ]
        assert cycle.boundary(76) == utc(2100, 2, 28)


class TestZones:
    """Boundaries on the wall clock of a zone."""

    def test_wall_clock_time_is_kept_over_daylight_saving(self) -> None:
        """Midnight in New York is 05:00 UTC in winter and 04:00 UTC in summer."""
        cycle = BillingCycle(utc(2024, 1, 1, 5), "month", 1, "America/New_York")
        assert cycle.period_at(utc(2024, 3, 15)) == BillingPeriod(
            utc(2024, 3, 1, 5), utc(2024, 4, 1, 4)
        )
        assert cycle.period_at(utc(2024, 11, 15)) == BillingPeriod(
            utc(2024, 11, 1, 4), utc(2024, 12, 1, 5)
        )

    def test_a_skipped_time_is_the_later_moment(self) -> None:
        """02:30 on the day the clocks go forward is 03:30 EDT, which is 07:30 UTC; the next day is
        02:30 EDT again.
        """
        cycle = BillingCycle(utc(2024, 3, 9, 7, 30), "day", 1, "America/New_York")
        assert [cycle.boundary(k) for k in (1, 2)] == [
            utc(2024, 3, 10, 7, 30),
            utc(2024, 3, 11, 6, 30),
        ]
        assert cycle.index_at(utc(2024, 3, 10, 7, 29, 59)) == 0
        assert cycle.index_at(utc(2024, 3, 10, 7, 30)) == 1

    def test_a_repeated_time_is_the_first_moment(self) -> None:
        """01:30 on the day the clocks go back is 01:30 EDT, 05:30 UTC; both 01:15 EST and 01:45 EST
        come after it.
        """
        cycle = BillingCycle(utc(2024, 11, 2, 5, 30), "day", 1, "America/New_York")
        assert [cycle.boundary(k) for k in (1, 2)] == [
            utc(2024, 11, 3, 5, 30),
            utc(2024, 11, 4, 6, 30),
        ]
        assert cycle.index_at(utc(2024, 11, 3, 5, 29, 59)) == 0
        assert cycle.index_at(utc(2024, 11, 3, 6, 15)) == 1
        assert cycle.index_at(utc(2024, 11, 3, 6, 45)) == 1

    def test_a_repeated_time_is_found_far_from_the_anchor(self) -> None:
        """01:15 EST on the day the clocks go back is in the period that began at 01:30 EDT,
        whatever its number.
        """
        cycle = BillingCycle(utc(2024, 10, 1, 5, 30), "day", 1, "America/New_York")
        assert (
            cycle.index_at(utc(2024, 11, 3, 6, 15)) == 33
        )  # 30 days from October 1 to 31, and 3 more
        assert cycle.period_at(utc(2024, 11, 3, 6, 15)) == BillingPeriod(
            utc(2024, 11, 3, 5, 30), utc(2024, 11, 4, 6, 30)
        )

    def test_boundaries_are_told_in_utc(self) -> None:
        """A boundary is in UTC, whatever zone its wall clock shows and wherever the machine
        stands.
        """
        cycle = BillingCycle(utc(2024, 1, 1, 5), "month", 1, "America/New_York")
        assert all(cycle.boundary(k).tzinfo is UTC for k in (-1, 0, 1))

    def test_an_anchor_in_the_second_of_two_equal_hours_stays(self) -> None:
        """Boundary 0 is the anchor itself, also where its wall-clock time occurred an hour
        before.
        """
        cycle = BillingCycle(utc(2024, 11, 3, 6, 30), "day", 1, "America/New_York")
        assert [cycle.boundary(k) for k in (-1, 0, 1)] == [
            utc(2024, 11, 2, 5, 30),
            utc(2024, 11, 3, 6, 30),
            utc(2024, 11, 4, 6, 30),
        ]
        assert cycle.index_at(utc(2024, 11, 3, 6, 0)) == -1
        yearly = BillingCycle(utc(2019, 11, 3, 6, 30), "year", 1, "America/New_York")
        assert yearly.boundary(5) == utc(2024, 11, 3, 5, 30)

    def test_a_skipped_day_makes_no_period(self) -> None:
        """Apia had no 2011-12-30: the daily periods of the 29th and the 31st meet, and none is
        empty.
        """
        cycle = BillingCycle(utc(2011, 12, 28, 10), "day", 1, "Pacific/Apia")  # midnight at UTC-10
        periods = list(itertools.islice(cycle.periods_from(cycle.anchor), 3))
        assert periods == [
            BillingPeriod(utc(2011, 12, 28, 10), utc(2011, 12, 29, 10)),
            BillingPeriod(utc(2011, 12, 29, 10), utc(2011, 12, 30, 10)),
            BillingPeriod(utc(2011, 12, 30, 10), utc(2011, 12, 31, 10)),
        ]
        assert cycle.index_at(utc(2011, 12, 30, 9, 59, 59)) == 1
        assert cycle.index_at(utc(2011, 12, 30, 10)) == 3
        assert refusal(cycle.period, 2).code is ErrorCode.PARAMETER_INVALID_OBJECT
        assert (
            cycle.period_at(utc(2011, 12, 30, 10)).start
            == cycle.period_at(utc(2011, 12, 30, 9)).end
        )

    def test_without_a_zone_every_day_has_86_400_seconds(self) -> None:
        """UTC, the default, knows no daylight saving and equals the zone of that name."""
        cycle = BillingCycle(utc(2024, 3, 9), "day")
        assert cycle.timezone == "UTC"
        assert {
            period.end_seconds - period.start_seconds
            for period in itertools.islice(cycle.periods_from(0), 9)
        } == {86_400}
        assert cycle.boundary(400) == BillingCycle(utc(2024, 3, 9), "day", 1, "Etc/UTC").boundary(
            400
        )

    @pytest.mark.skipif(not hasattr(time, "tzset"), reason="the platform cannot change its zone")
    def test_the_zone_of_the_machine_does_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same boundaries come out wherever the machine stands."""
        seen = set()
        for machine in ("UTC", "America/New_York", "Pacific/Apia"):
            monkeypatch.setenv("TZ", machine)
            time.tzset()
            cycle = BillingCycle(utc(2024, 1, 31, 3), "month", 1, "Europe/Dublin")
            seen.add((cycle.period_at(utc(2024, 4, 1)), BillingCycle(0, "day").period_at(86_399)))
        monkeypatch.undo()
        time.tzset()
        april = BillingPeriod(utc(2024, 3, 31, 2), utc(2024, 4, 30, 2))
        assert seen == {(april, BillingPeriod(0, 86_400))}


class TestLaws:
    @given(MOMENTS, LENGTHS, st.sampled_from(ZONES), MOMENTS)
    @example(utc(2011, 12, 30, 22), (Interval.DAY, 1), "Pacific/Apia", utc(2011, 12, 31))
    @example(utc(1993, 8, 1), (Interval.DAY, 1), "Pacific/Kwajalein", utc(1993, 8, 21, 13))
    @example(utc(2024, 11, 3, 6, 30), (Interval.DAY, 1), "America/New_York", utc(2024, 11, 3, 6))
    @example(utc(1867, 10, 18), (Interval.DAY, 1), "America/Juneau", utc(1867, 10, 19, 1))
    def test_periods_tile_time(
        self, anchor: datetime, length: tuple[Interval, int], zone: str, moment: datetime
    ) -> None:
        """Every moment lies in exactly one period, whose neighbours on both sides meet it."""
        cycle = BillingCycle(anchor, *length, zone)
        period = cycle.period_at(moment)
        assert moment in period
        assert cycle.period_at(period.start) == cycle.period_at(period.end_seconds - 1) == period
        assert cycle.period_at(period.start_seconds - 1).end == period.start
        following = cycle.period_at(period.end)
        assert following.start == period.end
        assert list(itertools.islice(cycle.periods_from(moment), 2)) == [period, following]
        assert cycle.period(cycle.index_at(moment)) == period

    @given(MOMENTS, LENGTHS, st.sampled_from(ZONES), st.integers(-40, 40))
    def test_boundaries_never_go_back(
        self, anchor: datetime, length: tuple[Interval, int], zone: str, k: int
    ) -> None:
        """Boundaries ascend with their number, boundary 0 is the anchor, and each is found again at
        its own instant.
        """
        cycle = BillingCycle(anchor, *length, zone)
        assert cycle.boundary(0) == cycle.anchor == anchor.replace(microsecond=0)
        assert cycle.boundary(k) <= cycle.boundary(k + 1)
        assert cycle.boundary(cycle.index_at(cycle.boundary(k))) == cycle.boundary(k)

    @given(MOMENTS, LENGTHS, st.integers(-200, 200))
    def test_boundaries_are_those_counted_by_hand(
        self, anchor: datetime, length: tuple[Interval, int], k: int
    ) -> None:
        """In UTC a boundary is the anchor plus whole days, or plus whole months clamped to the
        month's last day.
        """
        interval, count = length
        by_hand = {
            Interval.DAY: lambda: anchor + timedelta(seconds=86_400 * count * k),
            Interval.WEEK: lambda: anchor + timedelta(seconds=604_800 * count * k),
            Interval.MONTH: lambda: months_after(anchor, count * k),
            Interval.YEAR: lambda: months_after(anchor, 12 * count * k),
        }[interval]()
        assert BillingCycle(anchor, interval, count).boundary(k) == by_hand.replace(microsecond=0)

    @given(st.integers(29, 31), st.integers(1, 36), st.integers(-500, 500))
    def test_late_anchors_come_back(self, day: int, count: int, k: int) -> None:
        """Wherever the month has the anchor's day, the boundary falls on it; elsewhere on the
        month's last day.
        """
        boundary = BillingCycle(utc(2024, 1, day, 23, 59, 59), "month", count).boundary(k)
        assert boundary.day == min(day, calendar.monthrange(boundary.year, boundary.month)[1])
        assert (boundary.hour, boundary.minute, boundary.second) == (23, 59, 59)

    @given(
        MOMENTS,
        LENGTHS,
        st.sampled_from([zone for zone in ZONES if zone != "UTC"]),
        st.integers(-60, 60),
    )
    def test_zoned_boundaries_show_the_anchors_wall_clock(
        self, anchor: datetime, length: tuple[Interval, int], zone: str, k: int
    ) -> None:
        """A boundary shows the anchor's time of day in its zone, unless the zone skipped
        that time.
        """
        cycle = BillingCycle(anchor, *length, zone)
        place = zoneinfo.ZoneInfo(zone)
        wanted = anchor.replace(microsecond=0).astimezone(place).time()
        local = cycle.boundary(k).astimezone(place)
        shown = local.replace(tzinfo=None)
        skipped_to = (
            local.utcoffset() != (local - timedelta(days=1)).replace(tzinfo=place).utcoffset()
        )
        assert shown.time() == wanted or skipped_to

    @pytest.mark.parametrize("interval", Interval)
    @pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
    def test_the_cost_does_not_grow_with_the_distance(
        self, interval: Interval, zone: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At most four boundaries are computed to find a period, a day or seven thousand years from
        the anchor.
        """
        computed = []
        original = BillingCycle._boundary
        monkeypatch.setattr(
            BillingCycle, "_boundary", lambda cycle, k: computed.append(k) or original(cycle, k)
        )
        cycle = BillingCycle(utc(2024, 1, 31, 12), interval, 1, zone)
        for year in (2, 1024, 2023, 2024, 2025, 3024, 9997):
            for month in range(1, 13):
                computed.clear()
                cycle.period_at(utc(year, month, 11))
                assert len(computed) <= 4


class TestBounds:
    @pytest.mark.parametrize(
        ("interval", "maximum"), [("day", 1095), ("week", 156), ("month", 36), ("year", 3)]
    )
    def test_the_longest_cycle_is_three_years(self, interval: str, maximum: int) -> None:
        """3 years, 36 months, 156 weeks and 1095 days are taken; one more is refused."""
        assert BillingCycle(0, interval, maximum).interval_count == maximum
        error = refusal(BillingCycle, 0, interval, maximum + 1)
        assert (error.code, error.param) == (ErrorCode.INTERVAL_OUT_OF_RANGE, "interval_count")
        message = (
            f"interval_count: expected at most {maximum} for the interval '{interval}', "
            f"received {maximum + 1} (int)"
        )
        assert error.message == message

    @pytest.mark.parametrize("count", [0, -1, True, 1.0, "1", None])
    def test_the_count_is_a_positive_integer(self, count: object) -> None:
        """A count of zero, or one that is not an integer, is refused."""
        error = refusal(BillingCycle, 0, "month", count)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INTEGER, "interval_count")

    @pytest.mark.parametrize("interval", ["quarter", "Month", "", None, 1])
    def test_the_interval_is_one_of_four(self, interval: object) -> None:
        """Any other interval is refused, and the message lists the four."""
        error = refusal(BillingCycle, 0, interval)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_CHOICE, "interval")
        assert error.details == {
            "expected": "one of 'day', 'week', 'month', 'year'",
            "received": interval,
        }

    @pytest.mark.parametrize(
        "zone",
        ["Mars/Olympus", "", "localtime", "../etc/passwd", "/etc/localtime", "utc+1", "Africa"],
    )
    def test_an_unknown_zone_is_refused(self, zone: str) -> None:
        """A name that is not in the IANA database, or that means the machine's own zone, is
        refused.
        """
        error = refusal(BillingCycle, 0, "month", 1, zone)
        assert (error.code, error.param) == (ErrorCode.TIMEZONE_UNKNOWN, "timezone")
        assert error.details == {
            "expected": "an IANA time zone name, such as 'Europe/Berlin'",
            "received": zone,
        }

    def test_a_machine_without_zones_is_told_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where no zone at all is known, the message names the tzdata package; UTC works
        without.
        """
        monkeypatch.setattr(zoneinfo, "available_timezones", set)
        assert refusal(BillingCycle, 0, "month", 1, "Mars/Olympus").message == (
            "timezone: expected an IANA time zone name, such as 'Europe/Berlin' "
            "(this machine has no time zone data: pip install tzdata), received "
            "'Mars/Olympus' (str)"
        )
        monkeypatch.setattr(zoneinfo, "ZoneInfo", None)
        assert BillingCycle(0, "month").boundary(1) == utc(1970, 2, 1)

    @pytest.mark.parametrize("zone", [None, 1, UTC])
    def test_the_zone_is_a_name(self, zone: object) -> None:
        """A zone is given by its name, so that it can be stored."""
        error = refusal(BillingCycle, 0, "month", 1, zone)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_STRING, "timezone")
        assert error.details == {"expected": "an IANA time zone name", "received": zone}

    def test_the_length_is_judged_before_the_zone(self) -> None:
        """Codes come in their order of precedence."""
        assert (
            refusal(BillingCycle, 0, "year", 4, "Mars/Olympus").code
            is ErrorCode.INTERVAL_OUT_OF_RANGE
        )

    def test_the_anchor_is_an_instant(self) -> None:
        """A naive anchor is refused, as is one whose wall clock leaves the years 1 to 9999."""
        assert refusal(BillingCycle, NAIVE, "month").param == "anchor"
        error = refusal(BillingCycle, utc(9999, 12, 31, 20), "month", 1, "Asia/Tokyo")
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "anchor")

    def test_the_anchor_is_floored(self) -> None:
        """Part of a second of the anchor is dropped, also before 1970."""
        assert BillingCycle(utc(1969, 12, 31, 23, 59, 59, 999_999), "day").anchor == utc(
            1969, 12, 31, 23, 59, 59
        )

    @pytest.mark.parametrize("interval", Interval)
    @pytest.mark.parametrize("k", [8000 * 366, -2024 * 366, 10**30, -(10**199)])
    def test_boundaries_end_with_the_calendar(self, interval: Interval, k: int) -> None:
        """A boundary outside the years 1 to 9999 is refused, however far."""
        error = refusal(BillingCycle(utc(2024, 1, 31), interval).boundary, k)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "boundary")
        assert error.details == {"expected": "a boundary within the years 1 to 9999", "received": k}

    @pytest.mark.parametrize(
        "moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    )
    @pytest.mark.parametrize("interval", Interval)
    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
    def test_a_period_that_leaves_the_calendar_is_refused(
        self, moment: datetime, interval: Interval, zone: str
    ) -> None:
        """The first and the last moment lie in periods that cannot be written down."""
        cycle = BillingCycle(utc(2024, 1, 31, 12), interval, 1, zone)
        assert refusal(cycle.period_at, moment).code is ErrorCode.PARAMETER_INVALID_INSTANT

    def test_the_first_period_of_the_calendar_is_found_at_its_first_moment(self) -> None:
        """Nothing before the year 1 is asked for on the way."""
        cycle = BillingCycle(utc(1, 1, 1), "day")
        assert cycle.period_at(utc(1, 1, 1)) == BillingPeriod(utc(1, 1, 1), utc(1, 1, 2))

    def test_iteration_ends_with_the_calendar_by_name(self) -> None:
        """The last period that can be written down is yielded; after it, iteration is refused."""
        periods = BillingCycle(utc(2024, 1, 1), "year").periods_from(utc(9998, 6, 1))
        assert next(periods).end == utc(9999, 1, 1)
        assert refusal(next, periods).code is ErrorCode.PARAMETER_INVALID_INSTANT

    def test_iteration_refuses_nonsense_at_once(self) -> None:
        """A naive datetime is refused by the call, not by the first step of the loop."""
        assert refusal(BillingCycle(0, "day").periods_from, NAIVE).param == "instant"

    def test_the_moment_in_question_is_named(self) -> None:
        """A moment that is no instant is named, and so is one that has no wall clock in the zone of
        the cycle.
        """
        last = utc(9999, 12, 31, 23)
        for cycle, moment in (
            (BillingCycle(0, "day"), NAIVE),
            (BillingCycle(0, "day", 1, "Asia/Tokyo"), last),
        ):
            for question in (cycle.index_at, cycle.period_at, cycle.periods_from):
                error = refusal(question, moment)
                assert (error.param, error.details["received"]) == ("instant", moment)

    @pytest.mark.parametrize("k", [1.5, True, "1", None])
    def test_a_boundary_has_an_integer_number(self, k: object) -> None:
        """Half a period is no boundary."""
        error = refusal(BillingCycle(0, "day").boundary, k)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INTEGER, "k")
        assert refusal(BillingCycle(0, "day").period, k).param == "k"

    def test_cycles_are_values(self) -> None:
        """Cycles are equal by what they were given, frozen, and survive pickling."""
        cycle = BillingCycle(utc(2024, 1, 31), "month", 2, "Europe/Dublin")
        twin = BillingCycle(unix_seconds(utc(2024, 1, 31)), Interval.MONTH, 2, "Europe/Dublin")
        assert cycle == twin
        assert hash(cycle) == hash(twin)
        assert pickle.loads(pickle.dumps(cycle)).boundary(7) == cycle.boundary(7)  # noqa: S301
        assert attrs.evolve(cycle, interval_count=3).boundary(1) == utc(2024, 4, 29, 23)
        assert "_" not in repr(cycle).replace("interval_count", "")
