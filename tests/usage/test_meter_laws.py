"""The laws of `metering_core.testing.laws`, held against this library;
`test_meter_laws_bite.py` has them fail.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from builders import DAY, JAN, START
from hypothesis import given, settings
from hypothesis import strategies as st

import metering_core as mc
from metering_core.exact import whole_if_possible
from metering_core.measures import formula_of
from metering_core.testing import laws
from metering_core.testing import strategies as drawn

SECOND = 1_000_000
NOW = START + 20 * DAY
LATER = JAN.end_seconds + 3 * DAY

# What each law is run with: strategies of its arguments. `test_meter_laws_bite.py` plants defects
# under the same ones.


def readings():
    """Draw (readings at few moments, a split of them, a window that some are before, in and
    after).
    """
    numbers = (
        st.sampled_from([-1, -2, 1, 0])
        | st.integers(-5, 9)
        | drawn.decimals_of(12)
        | st.sampled_from([2**63, -(10**30)])
    )
    moments = st.sampled_from(
        [0, 1, SECOND - 1, SECOND, SECOND + 1, 3 * SECOND, 4 * SECOND - 1, 4 * SECOND, 5 * SECOND]
    )
    pairs = st.tuples(moments, numbers)
    events = st.lists(pairs, min_size=4, max_size=9) | st.lists(pairs, max_size=9)
    windows = st.sampled_from([(SECOND, 4 * SECOND), (0, SECOND), (0, 5 * SECOND)])
    return st.tuples(events, st.sets(st.integers(0, 8)), windows)


def formula_laws(events, split, window):
    """Run the laws on every formula; those of what counts different texts on texts."""
    for formula in mc.Formula:
        given = [(at, str(value)) for at, value in events] if formula == "unique_count" else events
        laws.check_formula_laws(formula, given, split, window)


def events_of(meter, now=NOW, **options):
    """Draw batches of January, half of them long enough for their events to meet."""
    long, any_length = (
        drawn.meter_events(meter, period=JAN, now=now, min_size=least, **options)
        for least in (5, 0)
    )
    return long | any_length


def sent(formulas=tuple(mc.Formula), **options):
    """Draw (meter, events received at NOW)."""
    return drawn.meters(formulas=formulas).flatmap(
        lambda meter: st.tuples(st.just(meter), events_of(meter, **options))
    )


def with_a_number(strategy):
    """Add a place within the events."""
    return st.builds(lambda case, place: (*case, place), strategy, st.integers(0, 12))


def with_ranks(strategy):
    """Add what the events are sorted by."""
    return st.builds(
        lambda case, ranks: (*case, ranks),
        strategy,
        st.lists(st.integers(0, 9), min_size=1, max_size=12),
    )


def retried():
    """Draw (meter, event, later)."""
    single = drawn.meters().flatmap(
        lambda meter: st.tuples(
            st.just(meter), drawn.meter_event(meter, period=JAN, now=NOW, misfits=True)
        )
    )
    later = st.sampled_from([NOW, NOW + 1, NOW + 100 * DAY])
    return st.builds(lambda case, later: (*case, later), single, later)


def subscribed():
    """Draw (meter, subscription, events in January 2024, events that come in February and may be of
    January).
    """
    subscription = mc.Subscription(
        "sub_1",
        [mc.SubscriptionItem("si_1", priced(mc.pricing.PerUnit(1)))],
        START,
        customer="cus_1",
    )

    def of(meter):
        return st.tuples(
            st.just(meter), st.just(subscription), events_of(meter), events_of(meter, LATER)
        )

    return drawn.meters(formulas=["sum", "last", "weighted_sum"]).flatmap(of)


def priced(model):
    return mc.Price("price", "usd", model, mc.Recurring(meter="mtr_1"))


def append_laws(meter, events, place):
    """Run the append laws on the events cut at a place within them."""
    place %= len(events) + 1
    laws.check_append_laws(lambda: mc.MeterLog([meter]), events[:place], events[place:], NOW)


def retry_laws(meter, event, later):
    """Run the retry laws on logs of the meter."""
    laws.check_retry_laws(lambda: mc.MeterLog([meter]), event, NOW, later)


def arrival_laws(meter, events, ranks):
    """Run the laws of arrival on logs of the meter."""
    laws.check_arrival_laws(lambda: mc.MeterLog([meter]), events, ranks, NOW)


def cancel_laws(meter, events, place):
    """Run the laws of cancellation on logs of the meter."""
    laws.check_cancel_laws(lambda: mc.MeterLog([meter]), events, place, NOW)


def unbilled_laws(meter, subscription, events, late):
    """Run the laws of what is unbilled on logs of the subscription."""
    made = lambda: mc.MeterLog([meter], [subscription])  # noqa: E731 - said twice otherwise
    laws.check_unbilled_laws(made, events, late, NOW, LATER)


def summary_laws(meter, events, zone, days):
    """Run the laws of summaries on a log of the meter, over some days of January."""
    log = mc.MeterLog([meter])
    log.append(events, now=NOW)
    laws.check_summary_laws(
        log, meter.id, "cus_1", START, START + days * DAY, timezones=["UTC", zone]
    )


def summarized():
    """Draw (meter, events, zone, how many days)."""
    zones, days = st.sampled_from(drawn.ZONES), st.sampled_from([1, 2, 31])
    return st.builds(lambda case, zone, days: (*case, zone, days), sent(), zones, days)


CARRYING = mc.MeterPolicy.history(late_usage="carry_forward")


def carried():
    """Draw (meter of any formula, subscription at any model, batches that come late, how charges
    are settled).
    """

    def of(meter, model):
        subscription = mc.Subscription(
            "sub_1", [mc.SubscriptionItem("si_1", priced(model))], START, customer="cus_1"
        )
        batches = drawn.event_batches(meter, subscription.cycle)
        rounding = st.sampled_from([mc.money.half_up, mc.money.down, mc.money.half_even])
        return st.tuples(st.just(meter), st.just(subscription), batches, rounding)

    return st.tuples(drawn.meters(), drawn.models()).flatmap(lambda case: of(*case))


def carrying_laws(meter, subscription, batches, rounding):
    """Run the law of carrying on logs of the subscription."""
    made = lambda: mc.MeterLog([meter], [subscription], policy=CARRYING)  # noqa: E731 - the line would be too long
    laws.check_carrying_laws(made, batches, rounding=rounding)


class PlainEvents:
    """Another engine: every event that stands, in a list, folded anew for each question by the
    laws' own measure.
    """

    def __init__(self, log):
        self.log = log
        self.events = [one for one in log.events() if one.canceled_at is None]

    def meter_of(self, item):
        """Return the meter."""
        return self.log.meter_of(item)

    def partial(self, item, period):
        """Return the partial of what counts, found by walking over the list."""
        meter, row = self.meter_of(item), formula_of(self.meter_of(item))
        customer = next(one.customer for one in self.log.subscriptions if item in one.items)
        start, end = period.start_seconds * SECOND, period.end_seconds * SECOND
        within, before = row.identity, row.identity
        for one in self.counting(meter, customer):
            prepared = row.prepare_event(
                one.event.microseconds, one.sequence, value_of(meter, one.event)
            )
            if start <= one.event.microseconds < end:
                within = row.merge(prepared, within)
            elif one.event.microseconds < start and row.looks_back:
                before = row.merge(prepared, before)
        return row.over(within, before, start, end)

    def counting(self, meter, customer):
        """Return the events that count: with a window the one received last for each set of
        dimension values.
        """
        found = {}
        for one in self.events:
            event = one.event
            if (
                event.event_name == meter.event_name
                and event.payload.get(meter.customer_payload_key) == customer
            ):
                dimensions = tuple(event.payload[key] for key in meter.dimension_payload_keys)
                window = meter.event_time_window
                place = (
                    one.sequence
                    if window is None
                    else event.microseconds // (window.seconds * SECOND)
                )
                found[dimensions, place] = one
        return found.values()

    def partials(self, requests):
        """Return the partials one by one."""
        return [self.partial(item, period) for item, period in requests]


def value_of(meter, event):
    """Return what the formula works on."""
    text = event.payload.get(meter.value_payload_key)
    if meter.formula == "unique_count":
        return text
    return 1 if meter.formula == "count" else whole_if_possible(Fraction(text))


def busy_logs():
    """Draw logs of one month of one customer, in which events meet more often than in a history of
    three periods.
    """

    def log_of(case):
        meter, subscription, events, _ = case
        log = mc.MeterLog([meter], [subscription])
        log.append(events, now=NOW)
        return log

    return st.builds(log_of, subscribed())


def engine_laws(log):
    """Compare the log with the plain engine."""
    laws.check_engine_agrees(PlainEvents, log)


CHECKS = {
    "formulas": (readings(), formula_laws),
    "events": (with_a_number(sent()), append_laws),
    "event retries": (retried(), retry_laws),
    "arrival": (with_ranks(sent(["last", "average", "weighted_sum"], misfits=False)), arrival_laws),
    "summaries": (summarized(), summary_laws),
    "cancellations": (with_a_number(sent(misfits=False)), cancel_laws),
    "unbilled": (subscribed(), unbilled_laws),
    "carrying": (carried(), carrying_laws),
    "engines": (st.tuples(busy_logs() | drawn.meter_logs(closes=False)), engine_laws),
}
"""Law → strategy of its arguments, and the check."""


@pytest.mark.parametrize("law", CHECKS)
def test_laws_hold(law):
    """Each law holds for this library."""
    arguments, check = CHECKS[law]

    # What bills each batch of a history takes its time.
    @settings(max_examples=max(settings().max_examples // (6 if law == "carrying" else 1), 1))
    @given(arguments)
    def hold(case):
        check(*case)

    hold()


# Yours, not ours ----------------------------------------------------------------------------------


class Range(mc.measures.Aggregator):
    """A user's own formula: the greatest value less the least; 0 without any."""

    def prepare(self, timestamp, quantity):
        """Take the value twice."""
        return (quantity, quantity)

    def merge(self, left, right):
        """Keep the least and the greatest."""
        if left is None or right is None:
            return right if left is None else left
        return (min(left[0], right[0]), max(left[1], right[1]))

    def present(self, partial):
        """Return the distance."""
        return 0 if partial is None else partial[1] - partial[0]


def distance(within, *_):
    values = [value for _, value in within]
    return max(values) - min(values) if values else 0


class Boastful(Range):
    """The same, which claims to add up."""

    is_additive = True


class Wide(Range):
    """The same, which looks back without saying so in its window."""

    looks_back = True


def test_a_formula_of_your_own_is_held_to_the_laws():
    """A range is a monoid and not additive; what claims to be, or counts earlier events, is told by
    which values.
    """
    readings = [(0, 7), (SECOND, 1), (2 * SECOND, 4)]
    window = (SECOND, 3 * SECOND)
    laws.check_formula_laws(Range(), readings, {1}, window, expected=distance)
    with pytest.raises(laws.LawBrokenError, match="does not add up to 3"):
        laws.check_formula_laws(Boastful(), readings, {1}, window, expected=distance)
    with pytest.raises(laws.LawBrokenError, match="come to 6, not 3; before"):
        laws.check_formula_laws(Wide(), readings, {1}, window, expected=distance)


class Deaf(PlainEvents):
    """An engine that forgets the last event."""

    def __init__(self, log):
        super().__init__(log)
        self.events = self.events[:-1]


def test_an_engine_of_your_own_is_held_to_the_log():
    """An engine that forgets an event is told the item, the period and both quantities, decimals
    and all.
    """
    meter = mc.Meter("mtr_1", "api_requests")
    subscription = mc.Subscription(
        "sub_1",
        [mc.SubscriptionItem("si_1", priced(mc.pricing.PerUnit(1)))],
        START,
        customer="cus_1",
    )
    log = mc.MeterLog([meter], [subscription])
    for value in ("2.5", "0.25"):
        log.record("api_requests", {"stripe_customer_id": "cus_1", "value": value}, now=NOW)
    laws.check_engine_agrees(PlainEvents, log)
    with pytest.raises(
        laws.LawBrokenError,
        match=r"usage of si_1 in 2024-01-01.* is 2\.5 alone and 2\.5 among others, not 2\.75",
    ):
        laws.check_engine_agrees(Deaf, log)


class Hasty(mc.MeterLog):
    """A log of a user's own that folds its events when they come, and takes each for the
    last one.
    """

    def append(self, events, *, now=None):
        """Append in the order of time, which is not that of arrival."""
        return super().append(sorted(events, key=lambda event: event.identifier or ""), now=now)


def test_a_log_of_your_own_is_held_to_the_laws():
    """A log that sorts what it receives keeps no receipts in order, and the law says which event
    heard what.
    """
    meter = mc.Meter("mtr_1", "api_requests", "last")
    events = [
        mc.MeterEvent(
            "api_requests",
            {"stripe_customer_id": "cus_1", "value": "1"},
            identifier=name,
            timestamp=NOW,
        )
        for name in ("b", "a")
    ]
    laws.check_append_laws(lambda: mc.MeterLog([meter]), events[:1], events[1:], NOW)
    with pytest.raises(laws.LawBrokenError, match="Appending events x \\+ y at once") as broken:
        laws.check_append_laws(lambda: Hasty([meter]), events[:1], events[1:], NOW)
    assert broken.value.law == "events"


def test_summaries_are_held_to_the_calendar():
    """In Berlin the last Sunday of March has 23 hours: 23 buckets tile it, and the law holds over
    them.
    """
    meter = mc.Meter("mtr_1", "api_requests", "weighted_sum")
    log = mc.MeterLog([meter], policy=mc.MeterPolicy.history())
    start, end = (
        1_711_839_600,
        1_711_922_400,
    )  # 2024-03-31 and 2024-04-01, 00:00 in Berlin: 23 hours apart.
    log.record(
        "api_requests",
        {"stripe_customer_id": "cus_1", "value": "23"},
        timestamp=start + 3600,
        now=end,
    )
    assert (
        len(
            mc.event_summaries(
                log,
                "mtr_1",
                "cus_1",
                start,
                end,
                value_grouping_window="hour",
                timezone="Europe/Berlin",
            )
        )
        == 23
    )
    laws.check_summary_laws(log, "mtr_1", "cus_1", start, end, timezones=["Europe/Berlin"])
    (whole,) = mc.event_summaries(log, "mtr_1", "cus_1", start, end)
    assert whole.aggregated_value == 22
