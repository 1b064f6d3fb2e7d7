"""The law of kind A: no telling of a newer version lowers what recorded usage owes, unless the caller says so."""

from __future__ import annotations

from itertools import takewhile

import attrs
import pytest
from builders import DAY, START
from hypothesis import given, settings
from hypothesis import strategies as st

import metering_core as mc
from metering_core.columnar import ColumnarUsage
from metering_core.errors import ErrorCode

METERS = [mc.Meter(f"mtr_{name}", name, formula) for name, formula in (("a", "sum"), ("b", "max"))]
REFUSALS = {ErrorCode.CHANGE_NOT_BILLABLE, ErrorCode.SUBSCRIPTION_CHANGED}


def recurring(name, mode):
    """Return how an item recurs: agreed, by records of a mode, or by the meter of its name."""
    match mode:
        case "agreed":
            return mc.Recurring(usage_type="licensed")
        case "meter":
            return mc.Recurring(meter=f"mtr_{name}")
        case _:
            return mc.Recurring(aggregate_usage=mode)


def versions(*modes):
    """Draw versions of a subscription whose items come and go, and change in price, mode, quantity and life."""
    terms = st.tuples(st.sampled_from(modes), st.sampled_from([1, 2]), st.booleans(), st.integers(1, 2))
    lives = st.sampled_from([(0, None), (0, None), (5, None), (31, None), (0, 12), (0, 45), (0, 70)])
    items = st.dictionaries(st.sampled_from("abc"), terms, min_size=1)
    return st.builds(version, items, lives, st.sampled_from(["usd", "usd", "usd", "eur"]))


def version(items, life, currency):
    """Return a version; a price may have a flat fee, which is owed without usage."""
    made = []
    for name, (mode, amount, has_fee, quantity) in sorted(items.items()):
        of = "agreed" if name == "c" else mode
        tier = mc.Tier("inf", unit_amount=amount, flat_amount=7 if has_fee else None)
        price = mc.Price.graduated(f"p_{amount}", currency=currency, tiers=[tier], recurring=recurring(name, of))
        made.append(mc.SubscriptionItem(name, price, quantity if of == "agreed" else None))
    first, last = (None if at is None else START + at * DAY for at in life)
    return mc.Subscription("sub", made, START, customer="c", start_date=first, ended_at=last)


STEPS = st.lists(
    st.tuples(st.sampled_from(["use", "use", "tell", "tell", "close"]), st.sampled_from("ab"), st.sampled_from([0, 1, 6, 20])),
    min_size=2,
    max_size=9,
)


def owed(log, at):
    """Return what metered lines owe in all periods that have begun by a moment: as billed where closed, else as previewed.

    Of a period that begins at this very moment, what is owed without usage may still change.
    """
    (subscription,) = log.subscriptions
    closed = [one.invoice for one in closings_of(log)]
    starts = {subscription.cycle.period_at(invoice.period.start).start for invoice in closed}
    begun = takewhile(lambda period: period.start_seconds <= at, subscription.periods_from(subscription.start_date))
    still_open = [period for period in begun if subscription.cycle.period_at(period.start).start not in starts]
    previews = [mc.preview_invoice(subscription, log, now=period.start) for period in still_open]
    lines = [line for invoice in (*closed, *previews) for line in invoice.lines if line.aggregate_usage is not None]
    return sum(line.amount for line in lines if line.period.start_seconds < at or not is_owed_unused(line))


def is_owed_unused(line):
    """Whether a line owes a flat fee, or a level of former periods."""
    return line.charge.kind is mc.ChargeKind.FLAT or line.aggregate_usage is mc.AggregateUsage.LAST_EVER


def closings_of(log):
    """Return what was finalized."""
    book = log if isinstance(log, mc.UsageLog | mc.MeterLog) else log._book
    return book.state().closed.get("sub", ())


def use(log, name, at):
    """Use two units of an item, if it takes them."""
    if isinstance(log, mc.MeterLog):
        log.append([mc.MeterEvent(name, {"stripe_customer_id": "c", "value": "2"}, timestamp=at)], now=at)
    else:
        log.append([mc.UsageRecord(name, 2, at)], now=at)


def close(log, now):
    """Finalize the first period that has ended and is open."""
    (subscription,) = log.subscriptions
    for period in subscription.periods_from(subscription.start_date):
        if period.end_seconds > now:
            return
        if log.stored_invoice("sub", period) is None:
            mc.finalize_invoice(subscription, log, period, now=now)
            return


def hold_the_law(log, steps, newer):
    """Take the steps, and compare what is owed before and after each telling."""
    at = START
    told = iter(newer)
    for verb, name, days in steps:
        at += days * DAY
        if verb == "use":
            use(log, name, at)
        elif verb == "close":
            close(log, at)
        else:
            before, former = owed(log, at), log.subscriptions
            try:
                log.subscribe(next(told, log.subscriptions[0]), now=at)
            except mc.InvalidValueError as refusal:
                if refusal.code not in REFUSALS:
                    raise
                assert log.subscriptions == former
            assert owed(log, at) >= before


RECORDS = versions("sum", "max", "last_ever", "last_during_period")
EVENTS = versions("meter")


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
@settings(deadline=None, max_examples=100)
@given(RECORDS, STEPS, st.lists(RECORDS, min_size=4, max_size=4))
def test_no_version_lowers_what_records_owe(engine, first, steps, newer):
    """Previews and closings in any order: told a newer version, records owe no less than before."""
    hold_the_law(engine([attrs.evolve(first, start_date=START, ended_at=None)]), steps, newer)


@settings(deadline=None, max_examples=100)
@given(EVENTS, STEPS, st.lists(EVENTS, min_size=4, max_size=4))
def test_no_version_lowers_what_events_owe(first, steps, newer):
    """The same of meter events, which count wherever a life covers them."""
    log = mc.MeterLog(METERS, [attrs.evolve(first, start_date=START, ended_at=None)], policy=mc.MeterPolicy.history())
    hold_the_law(log, steps, newer)
