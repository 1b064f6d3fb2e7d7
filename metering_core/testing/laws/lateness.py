"""The laws of usage that comes after its period: it counts in time or not at all, and what was
billed stays, to the last digit, until a later bill says otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from itertools import takewhile

import attrs

from metering_core import (
    Action,
    AggregateUsage,
    BillingPeriod,
    ErrorCode,
    Invoice,
    MeterEvent,
    MeterLog,
    Outcome,
    Subscription,
    SubscriptionItem,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    finalize_invoice,
    preview_invoice,
    summarize,
)
from metering_core.acceptance import LateAttribution
from metering_core.aggregation import summarize_all
from metering_core.money import Rounding, half_up
from metering_core.pricing import is_linear
from metering_core.testing.laws.logs import close, used_periods
from metering_core.testing.laws.sentences import forbid


def check_late_laws(
    make_log: Callable[[], UsageLog], record: UsageRecord, now: int, later: int
) -> None:
    """Check what becomes of a record that comes late: while its period is open, and after it was
    closed.

    Args:
        make_log: makes a new log, whose policy has the late grace; the same one each time.
        record: what is sent.
        now: when it would have come in time, Unix seconds; what is refused then is no matter of
            this law.
        later: when it does come; before the end of the next period, since only the period before
            the current one has grace.
    """
    in_time, late = make_log(), make_log()
    if in_time.append([record], now=now)[0].outcome is not Outcome.ACCEPTED:
        return
    sent = attrs.evolve(record, timestamp=now) if record.timestamp == "now" else record
    item, subscription = _owner_of(in_time, sent.subscription_item)
    own = subscription.period_at(in_time.records()[0].billed_at)
    assert own is not None, "usage was accepted in it"
    has_grace = later - own.end_seconds < in_time.policy.late_grace // timedelta(seconds=1)
    (receipt,) = late.append([sent], now=later)
    due = "accepted" if has_grace else "refused"
    forbid(
        "late grace",
        (receipt.outcome is Outcome.ACCEPTED) is not has_grace,
        lambda: f"{sent}, received at {later}, hears {receipt}, and is not {due}",
    )
    found = summarize(item, late, own)
    expected = summarize(item, in_time if has_grace else make_log(), own)
    forbid(
        "late grace",
        found != expected,
        lambda: f"with {sent} at {later} it is {found}, not {expected}",
    )
    if has_grace and own.end_seconds <= later:
        _check_late_for_closed(make_log(), sent, later, own)


def _owner_of(log: UsageLog, item_id: str) -> tuple[SubscriptionItem, Subscription]:
    owners = (
        (item, subscription) for subscription in log.subscriptions for item in subscription.items
    )
    return next((item, subscription) for item, subscription in owners if item.id == item_id)


def _check_late_for_closed(
    log: UsageLog, sent: UsageRecord, later: int, closed: BillingPeriod
) -> None:
    """Check that usage of a period that was closed is refused, or billed in the current one where
    the policy says so.
    """
    item, subscription = _owner_of(log, sent.subscription_item)
    log.close_period(subscription.id, closed, now=later)
    before = summarize(item, log, closed)
    current = subscription.period_at(later)
    (receipt,) = log.append([sent], now=later)
    is_open = log.policy.late_attribution is LateAttribution.OPEN_PERIOD and current is not None
    code: ErrorCode | None = ErrorCode.PERIOD_CLOSED
    if is_open:
        code = None if _goes_on(item, sent) else ErrorCode.LATE_USAGE_NOT_BILLABLE
    forbid(
        "late grace",
        receipt.code is not code,
        lambda: f"{sent} for {closed}, which is closed, hears {receipt}, not {code or 'accepted'}",
    )
    forbid(
        "late grace",
        summarize(item, log, closed) != before,
        lambda: f"{sent} changed {before} of a closed period to {summarize(item, log, closed)}",
    )
    if code is None and current is not None:
        found = summarize(item, log, current).total_usage
        forbid(
            "late grace",
            found != sent.quantity,
            lambda: f"{sent}, billed in the open period, makes {found} there, not its quantity",
        )


def _goes_on(item: SubscriptionItem, sent: UsageRecord) -> bool:
    """Whether another period may bill a record: where its quantity adds up, at any tier's price."""
    is_sum = item.recurring.aggregate_usage is AggregateUsage.SUM
    return is_sum and sent.action is Action.INCREMENT and is_linear(item.price.model)


def check_unbilled_laws(
    make_log: Callable[[], MeterLog],
    events: Sequence[MeterEvent],
    late: Sequence[MeterEvent],
    now: int,
    later: int,
) -> None:
    """Check that events that come after a period was closed change its summary and what is
    unbilled, never what was billed.

    Args:
        make_log: makes a new log with subscriptions, which carries nothing to later bills; the same
            one each time.
        events: what comes in time.
        late: what comes after the periods that have ended by ``later`` were closed.
        now: when ``events`` are received, Unix seconds.
        later: when ``late`` is received.
    """
    log, open_log = make_log(), make_log()
    for one in (log, open_log):
        one.append(events, now=now)
    requests = [
        (item, period) for item, period in used_periods(log, now) if period.end_seconds <= later
    ]
    closed = [(item, period) for item, period in requests if close(log, item, period, later)]
    before = summarize_all(closed, log)
    for one in (log, open_log):
        one.append(late, now=later)
    forbid(
        "unbilled",
        summarize_all(closed, log) != before,
        lambda: f"{late} changed what was billed from {before} to {summarize_all(closed, log)}",
    )
    deltas = {
        (one.subscription_item, one.period): one.quantity
        for each in log.subscriptions
        for one in log.unbilled(each.id)
    }
    whole = summarize_all(closed, open_log)
    for billed, measured, (item, period) in zip(before, whole, closed, strict=True):
        due = Fraction(measured.total_usage) - Fraction(billed.billable_usage)
        found = deltas.get((item.id, period), 0)
        forbid(
            "unbilled",
            found != due,
            lambda: f"of {item.id} in {period} {found} is unbilled, not {due} as {measured} says",
        )


def check_carrying_laws(
    make_log: Callable[[], MeterLog],
    batches: Sequence[tuple[int, Sequence[MeterEvent], str | None]],
    *,
    rounding: Rounding = half_up,
) -> None:
    """Check that what all invoices charge for a period is together the one bill of all its usage,
    to the minor unit.

    One log finalizes each period as soon as it has ended, so that what comes later is corrected by
    later invoices; another one is fed alike and bills each period once, when everything has come.
    Subscriptions that have ended by then are left out: nothing corrects what they were billed last.

    Args:
        make_log: makes a new log with subscriptions, which carries late usage forward; the same one
            each time.
        batches: what is received in the order of time: at which moment in Unix seconds, which
            events, and which identifier is canceled then; ``event_batches`` of the strategies draws
            some.
        rounding: how each charge is settled.
    """
    log, open_log = make_log(), make_log()
    last = max((now for now, _, _ in batches), default=0)
    alive = {one.id: end for one in log.subscriptions if (end := one.period_at(last)) is not None}
    charged: Counter[tuple[str, BillingPeriod]] = Counter()
    due: Counter[tuple[str, BillingPeriod]] = Counter()
    billed = [one for one in log.subscriptions if one.id in alive]
    for now, events, canceled in batches:
        for one in (log, open_log):
            _receive(one, now, events, canceled)
        for subscription in billed:
            _charge(log, subscription, _ended(subscription, batches, now), charged, rounding)
    for subscription in billed:
        periods = _ended(subscription, batches, alive[subscription.id].end_seconds)
        _charge(log, subscription, periods, charged, rounding)
        for period in periods:
            _add(preview_invoice(subscription, open_log, now=period.start, rounding=rounding), due)
    for item, period in due.keys() | charged.keys():
        found, one_bill = charged[item, period], due[item, period]
        what = f"all invoices together charge {item} for {period} {found} minor units"
        forbid("carrying", found != one_bill, lambda: f"{what}, not {one_bill}, as one bill would")


def _receive(log: MeterLog, now: int, events: Sequence[MeterEvent], canceled: str | None) -> None:
    log.append(events, now=now)
    for meter in log.meters if canceled is not None else ():
        with suppress(UsageRejectedError):  # There may be no such event.
            log.cancel(meter.event_name, canceled or "", now=now)


def _ended(
    subscription: Subscription,
    batches: Sequence[tuple[int, Sequence[MeterEvent], str | None]],
    now: int,
) -> list[BillingPeriod]:
    """Return the periods that have ended, from the first that anything was used in."""
    told = [
        event.microseconds
        for _, events, _ in batches
        for event in events
        if event.microseconds is not None
    ]
    since = min(
        [*(moment // 10**6 for moment in told), *(received for received, _, _ in batches)],
        default=now,
    )
    return list(
        takewhile(lambda period: period.end_seconds <= now, subscription.periods_from(since))
    )


def _charge(
    log: MeterLog,
    subscription: Subscription,
    periods: Iterable[BillingPeriod],
    charged: Counter[tuple[str, BillingPeriod]],
    rounding: Rounding,
) -> None:
    """Finalize the periods that are open, and add up what each invoice charges for which."""
    for period in periods:
        if log.stored_invoice(subscription.id, period) is None:
            due = finalize_invoice(subscription, log, period, now=period.end, rounding=rounding)
            _add(due, charged)


def _add(invoice: Invoice, charged: Counter[tuple[str, BillingPeriod]]) -> None:
    for line in invoice.lines:
        charged[line.subscription_item, line.period] += line.amount
