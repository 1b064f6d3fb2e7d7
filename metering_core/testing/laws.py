"""The laws of billing as functions that raise where a law is broken, and say which and by what.

They hold for this library, and they are there to be run against yours: a pricing model of your own,
another engine behind the :class:`~metering_core.Usage` protocol, a log of your own. Each states the
truth independently of how it is computed here. Draw their arguments with
:mod:`metering_core.testing.strategies`, or write them down; Hypothesis is not needed.

>>> import metering_core as mc
>>> tiers = [mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650)]
>>> check_rating_laws(mc.Price.graduated("seats", currency="usd", tiers=tiers), 5)
"""

from __future__ import annotations

import decimal
import json
from calendar import monthrange
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

import attrs

from metering_core.acceptance import LateAttribution, Outcome, Receipt, Receipts
from metering_core.aggregation import Usage, summarize, summarize_all
from metering_core.errors import ErrorCode, UsageCompactedError, UsageRejectedError
from metering_core.exact import Number, whole_if_possible
from metering_core.invoicing import Invoice, InvoiceLineItem, preview_invoice
from metering_core.log import UsageLog
from metering_core.measures import AGGREGATORS, Aggregator
from metering_core.meter_log import MeterLog
from metering_core.money import Amount, Rounding, half_up, settle
from metering_core.periods import BillingCycle, BillingPeriod, Interval, from_unix_seconds
from metering_core.prices import AggregateUsage, Price
from metering_core.pricing import (
    Charge,
    ChargeKind,
    Graduated,
    Package,
    PerUnit,
    PricingModel,
    Round,
    Tier,
    Volume,
    is_linear,
)
from metering_core.rating import rate
from metering_core.snapshots.document import restore, snapshot
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.testing.restatement import RestatedLog
from metering_core.usage import Action, Cell, UsageRecord
from metering_core.views import LoggedRecord

LAWS: Final = {
    "cells": "Cells are associative, nothing changes none, a set replaces and an increment adds.",
    "aggregators": "Aggregation is associative and commutative: any split of the cells "
    "changes nothing.",
    "appending": "Appending x + y at once equals appending x, then y; what is refused "
    "leaves no trace.",
    "usage": "Usage is what its accepted records say: per timestamp from the last set on, summed, "
    "then aggregated.",
    "engines": "Every engine gives the summaries and the invoices of the log.",
    "retries": "A repeated record changes nothing and is a duplicate, also later; a refused record "
    "claims no id.",
    "late grace": "Within the late grace a record counts as if it had come in time, after "
    "it not; a "
    "closed period stays.",
    "compaction": "A compacted log gives the same summaries, invoices and receipts, or "
    "refuses by name "
    "what it cannot give.",
    "periods": "Periods tile time, and every boundary is computed from the anchor.",
    "rating": "Rating loses no unit, is exact, and gives equal charges for equal quantities.",
    "graduated": "Graduated: one unit more costs its tier's unit amount, plus the flat "
    "amount if it "
    "opens the tier.",
    "volume": "Volume: the whole quantity is charged in the tier of its last unit.",
    "packages": "Packages: the fewest that hold the quantity, or rounded down the most that "
    "it fills, "
    "are charged.",
    "per unit": "Per unit: the quantity times the unit amount, and nothing else, is charged.",
    "settling": "Settling moves an amount by at most half a minor unit, a half away from "
    "zero, credits "
    "as debits.",
    "invoices": "An invoice is the sum of its lines, and each line is settled once from its "
    "own exact "
    "amount.",
    "snapshots": "A restored log equals the one that was stored, answers as it does, and "
    "stores to the "
    "same text.",
    "ambient": "Nothing depends on the ambient decimal context.",
    "formulas": "A formula is a commutative monoid: any split of the events and any order of "
    "the parts "
    "changes nothing.",
    "events": "Appending events x + y at once equals appending x, then y; what is refused "
    "leaves no "
    "trace.",
    "event retries": "An event sent again changes nothing and is a duplicate, also later and "
    "once it is "
    "canceled.",
    "arrival": "The order in which events arrive matters only within one moment, and within "
    "one event "
    "time window.",
    "summaries": "Buckets tile the range, each is what its own range comes to, and "
    "additive formulas "
    "add up to the whole.",
    "cancellations": "A canceled event counts as if it had never come, its identifier stays "
    "taken, and "
    "twice is once.",
    "unbilled": "A billed period stays as it was billed; what comes later is unbilled, to the last "
    "digit.",
    "carrying": "Where late usage is carried, all invoices together charge for a period "
    "what one bill "
    "of all its usage does.",
}
"""Each law in one sentence, by the name that its check raises it under."""


class LawBrokenError(AssertionError):
    """A law does not hold; the message states the law and the counterexample.

    Attributes:
        law: the law's name, a key of :data:`LAWS`.
        counterexample: what happened instead, in words.
    """

    def __init__(self, law: str, counterexample: str) -> None:
        super().__init__(f"{LAWS[law]}\nBut {counterexample}.")
        self.law = law
        self.counterexample = counterexample


# Cells and aggregation ----------------------------------------------------------------------------


def check_cell_laws(a: Cell, b: Cell, c: Cell) -> None:
    """Check the four equations of :mod:`metering_core.usage` for three cells of one timestamp."""
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    if left != right:
        raise LawBrokenError(
            "cells", f"(a · b) · c is {left} and a · (b · c) is {right}, where a={a}, b={b}, c={c}"
        )
    nothing = Cell(a.timestamp)
    if a.merge(nothing) != a or nothing.merge(a) != a:
        raise LawBrokenError(
            "cells", f"{a} and nothing is {a.merge(nothing)}, nothing and it is {nothing.merge(a)}"
        )
    expected = (
        b
        if b.is_set
        else Cell(
            a.timestamp, whole_if_possible(Fraction(a.quantity) + Fraction(b.quantity)), a.is_set
        )
    )
    if a.merge(b) != expected:
        raise LawBrokenError("cells", f"{a}, then {b} is {a.merge(b)}, not {expected}")


_TRUTH: Final[dict[AggregateUsage, Callable[[Mapping[int, Number]], Number]]] = {
    AggregateUsage.SUM: lambda cells: sum(cells.values()),
    AggregateUsage.MAX: lambda cells: max(cells.values(), default=0),
    AggregateUsage.LAST_DURING_PERIOD: lambda cells: cells[max(cells)] if cells else 0,
    AggregateUsage.LAST_EVER: lambda cells: cells[max(cells)] if cells else 0,
    AggregateUsage.MIN: lambda cells: min(cells.values(), default=0),
    AggregateUsage.COUNT: len,
    AggregateUsage.AVERAGE: lambda cells: (
        whole_if_possible(_sum(cells) / len(cells)) if cells else 0
    ),
    AggregateUsage.HOURLY_PEAKS: lambda cells: _peaks(cells, 3600),
    AggregateUsage.DAILY_PEAKS: lambda cells: _peaks(cells, 86_400),
}


def _sum(cells: Mapping[int, Number]) -> Fraction:
    return sum((Fraction(quantity) for quantity in cells.values()), Fraction())


def _peaks(cells: Mapping[int, Number], seconds: int) -> Number:
    """Return what the greatest cells of all windows add up to, window by window."""
    windows = {at // seconds for at in cells}
    return whole_if_possible(
        sum(Fraction(max(cells[at] for at in cells if at // seconds == one)) for one in windows)
    )


def check_aggregator_laws(
    aggregator: Aggregator | AggregateUsage,
    writes: Sequence[tuple[int, Number]],
    split: Collection[int],
    *,
    expected: Callable[[Mapping[int, Number]], Number] | None = None,
) -> None:
    """Check that any split of the cells, any order and any history of changes gives one quantity.

    Args:
        aggregator: one of yours, or the name of a mode.
        writes: (timestamp, quantity) in the order in which the cells took these values; later ones
            replace earlier ones.
        split: the timestamps of one part; all others are the other part. Draw it within those of
            ``writes``.
        expected: what the cells must come to; known for the named modes.
    """
    row = AGGREGATORS[aggregator] if isinstance(aggregator, AggregateUsage) else aggregator
    truth = _TRUTH[aggregator] if isinstance(aggregator, AggregateUsage) else expected
    cells = dict(writes)
    whole = row.present(row.fold(cells))
    if truth is not None and whole != truth(cells):
        raise LawBrokenError(
            "aggregators", f"the cells {cells} come to {whole}, not {truth(cells)}"
        )
    parts = [
        row.fold({at: q for at, q in cells.items() if (at in split) is side})
        for side in (True, False)
    ]
    ways = {
        "merged part by part": row.merge(*parts),
        "merged the other way round": row.merge(*reversed(parts)),
        "merged cell by cell": _merged(
            row, [row.prepare(at, quantity) for at, quantity in cells.items()]
        ),
        "merged cell by cell from the right": _merged_from_the_right(row, cells),
        "merged with the identity": row.merge(
            row.merge(row.identity, row.fold(cells)), row.identity
        ),
    }
    for way, partial in ways.items():
        if row.present(partial) != whole:
            raise LawBrokenError(
                "aggregators",
                f"the cells {cells}, {way}, come to {row.present(partial)}, not {whole}",
            )
    _check_running(row, writes)


def _merged(row: Aggregator, partials: Iterable[Any]) -> Any:
    merged = row.identity
    for partial in partials:
        merged = row.merge(merged, partial)
    return merged


def _merged_from_the_right(row: Aggregator, cells: Mapping[int, Number]) -> Any:
    merged = row.identity
    for at, quantity in reversed(list(cells.items())):
        merged = row.merge(row.prepare(at, quantity), merged)
    return merged


def _check_running(row: Aggregator, writes: Sequence[tuple[int, Number]]) -> None:
    """Check that a partial kept up to date while cells change is the partial of the changed
    cells.
    """
    cells: dict[int, Number] = {}
    running = row.running(cells)
    for at, quantity in writes:
        running.partial()
        before = cells.get(at)
        cells[at] = quantity
        running.changed(at, before, quantity)
        kept, folded = row.present(running.partial()), row.present(row.fold(cells))
        if kept != folded:
            moved = f"after the cell at {at} went from {before} to {quantity}"
            raise LawBrokenError(
                "aggregators", f"{moved}, the kept quantity of {cells} is {kept}, not {folded}"
            )


# Appending and usage ------------------------------------------------------------------------------


def check_append_laws(
    make_log: Callable[[], UsageLog], x: Sequence[UsageRecord], y: Sequence[UsageRecord], now: int
) -> None:
    """Check that the way in which records come in one order makes no difference.

    At once, in two parts, one by one with a question after each, through ``record``, as columns,
    and without what was refused: same log, same receipts. Split one batch into ``x`` and ``y`` at
    any place within it.

    Args:
        make_log: makes a new log; the same one each time.
        x: what comes first.
        y: what comes then, at the same moment.
        now: the moment of receipt, Unix seconds.
    """
    batch = [*x, *y]
    at_once = make_log()
    receipts = list(at_once.append(batch, now=now))
    in_parts = make_log()
    _compare_receipts(
        "in two parts",
        receipts,
        [*in_parts.append(x, now=now), *in_parts.append(y, now=now)],
        batch,
    )
    singly = make_log()
    _compare_receipts(
        "one by one", receipts, [_asked(singly, record, now) for record in batch], batch
    )
    through_record = make_log()
    for record, receipt in zip(batch, receipts, strict=True):
        _compare_record(through_record, record, receipt, now)
    in_columns = make_log()
    _compare_receipts("as columns", receipts, list(_append_columns(in_columns, batch, now)), batch)
    without = make_log()
    without.append(
        [
            one
            for one, said in zip(batch, receipts, strict=True)
            if said.outcome is Outcome.ACCEPTED
        ],
        now=now,
    )
    ways = {
        "in two parts": in_parts,
        "one by one": singly,
        "through record()": through_record,
        "as columns": in_columns,
        "without what was refused": without,
    }
    for way, log in ways.items():
        _compare_logs(way, at_once, log, now)


def _asked(log: UsageLog, record: UsageRecord, now: int) -> Receipt:
    (receipt,) = log.append([record], now=now)
    _answers(log, now)
    return receipt


def _compare_record(log: UsageLog, sent: UsageRecord, receipt: Receipt, now: int) -> None:
    """Check that ``record()`` returns the record, its timestamp resolved, or raises what the
    receipt says.
    """
    due = attrs.evolve(sent, timestamp=now) if sent.timestamp == "now" else sent
    try:
        answer = log.record(
            sent.subscription_item,
            sent.quantity,
            timestamp=sent.timestamp,
            action=sent.action,
            id=sent.id,
            now=now,
        )
    except UsageRejectedError as refused:
        if refused.code is not receipt.code:
            raise LawBrokenError(
                "appending", f"{sent} gets {receipt} at once, and record() raises {refused.code}"
            ) from None
    else:
        if receipt.outcome is Outcome.REJECTED or answer != due:
            raise LawBrokenError(
                "appending", f"{sent} gets {receipt} at once, and record() returns {answer}"
            )


def _append_columns(log: UsageLog, batch: Sequence[UsageRecord], now: int) -> Receipts:
    columns = [
        [getattr(record, field) for record in batch]
        for field in ("quantity", "timestamp", "action", "id")
    ]
    return log.append_columns([record.subscription_item for record in batch], *columns, now=now)


def _compare_receipts(
    way: str, expected: Sequence[Receipt], found: Sequence[Receipt], batch: Sequence[UsageRecord]
) -> None:
    for record, one, other in zip(batch, expected, found, strict=True):
        if one != other:
            raise LawBrokenError("appending", f"{record} gets {one} at once and {other} {way}")


def _compare_logs(way: str, expected: UsageLog, found: UsageLog, now: int) -> None:
    if _records(expected) != _records(found):
        raise LawBrokenError(
            "appending", f"{way} the log holds {_records(found)}, at once {_records(expected)}"
        )
    if _answers(expected, now) != _answers(found, now):
        raise LawBrokenError(
            "appending",
            f"{way} the log answers {_answers(found, now)}, at once {_answers(expected, now)}",
        )
    if expected != found:
        raise LawBrokenError(
            "appending", f"the log differs {way}: {snapshot(found)}, at once {snapshot(expected)}"
        )


Log = TypeVar("Log", UsageLog, MeterLog)


def metered_items(log: UsageLog | MeterLog) -> list[SubscriptionItem]:
    """Return the items of a log whose quantity comes from what it holds: usage records, or meter
    events.
    """
    items = (item for subscription in log.subscriptions for item in subscription.items)
    by_events = isinstance(log, MeterLog)
    return [
        item
        for item in items
        if (item.recurring.meter if by_events else item.recurring.aggregate_usage) is not None
    ]


def used_periods(
    log: UsageLog | MeterLog, now: int | None = None
) -> list[tuple[SubscriptionItem, BillingPeriod]]:
    """Return each metered item with each period of its cycle that has usage of the log, and with
    the one that holds ``now``.
    """
    found = []
    for subscription in log.subscriptions:
        stamps = {
            stamp for item in subscription.items for stamp in _stamps(log, item, subscription)
        }
        moments = stamps if now is None else stamps | {from_unix_seconds(now)}
        periods = sorted(
            {subscription.cycle.period_at(moment) for moment in moments},
            key=lambda period: period.start,
        )
        found += [
            (item, period)
            for item in subscription.items
            if item in metered_items(log)
            for period in periods
        ]
    return found


def _stamps(
    log: UsageLog | MeterLog, item: SubscriptionItem, subscription: Subscription
) -> list[datetime]:
    if isinstance(log, UsageLog):
        return [
            from_unix_seconds(cells.start) for cells in log.cells_of(item.id)
        ]  # Compacted ones, too.
    meter = item.recurring.meter
    logged = [] if meter is None else log.events(meter, subscription.customer)
    return [one.event.instant for one in logged if one.event.instant is not None]


def _records(log: UsageLog) -> list[LoggedRecord] | ErrorCode:
    """Return what a log holds, or the code with which it refuses because some of it was
    compacted.
    """
    try:
        return log.records()
    except UsageCompactedError as error:
        return error.code


def _answers(log: UsageLog, now: int) -> list[tuple[str, Number]]:
    return [
        (one.subscription_item, one.total_usage)
        for one in summarize_all(used_periods(log, now), log)
    ]


def check_usage_laws(
    make_log: Callable[[], UsageLog], batches: Iterable[tuple[int, Sequence[UsageRecord]]]
) -> None:
    """Check receipts, summaries and views of a log against the rules stated once more, over a whole
    history.

    Args:
        make_log: makes the log, empty and with the default policy.
        batches: (moment of receipt in Unix seconds, records); the moments never go back.
    """
    log = make_log()
    restated = RestatedLog(log.subscriptions)
    moments = []
    for now, records in batches:
        receipts = log.append(records, now=now)
        for record, receipt in zip(records, receipts, strict=True):
            verdict = restated.take(record, now)
            if (receipt.outcome, receipt.sequence, receipt.code) != verdict:
                heard = f"{receipt.outcome} ({receipt.code or receipt.sequence})"
                due = f"{verdict[0]} ({verdict[2] or verdict[1]})"
                raise LawBrokenError("usage", f"{record}, received at {now}, is {heard}, not {due}")
        moments.append((now, len(restated.sent)))
        _compare_usage("", log, log, restated, now, None)
    for now, until in moments:
        _compare_usage(f"as of record {until} ", log.as_of(until), log, restated, now, until)


def _compare_usage(
    view: str, usage: Usage, log: UsageLog, restated: RestatedLog, now: int, until: int | None
) -> None:
    requests = used_periods(log, now)
    for (item, period), summary in zip(requests, summarize_all(requests, usage), strict=True):
        due = restated.quantity(item, period, until=until)
        if summary.total_usage != due:
            cells = restated.cells(item.id, until)
            found = (
                f"{view}the {summary.aggregate_usage} of {item.id} in {period} is "
                f"{summary.total_usage}"
            )
            raise LawBrokenError("usage", f"{found}, not {due}; its cells are {cells}")


def check_engine_agrees(
    make_usage: Callable[[Log], Usage],
    log: Log,
    items: Iterable[SubscriptionItem] | None = None,
    periods: Iterable[BillingPeriod] | None = None,
) -> None:
    """Check that another engine gives the summaries and the invoices of the log.

    Args:
        make_usage: builds the engine from what the log holds (``log.records()`` or
            ``log.events()``, in the order of arrival).
        log: the definition: a log of usage records or of meter events.
        items: which items to ask for; all metered ones unless given.
        periods: which periods; those with usage unless given.
    """
    usage = make_usage(log)
    wanted = metered_items(log) if items is None else list(items)
    asked = (
        list(periods)
        if periods is not None
        else list(dict.fromkeys(period for _, period in used_periods(log)))
    )
    requests = [(item, period) for item in wanted for period in asked]
    for (item, period), bulk in zip(requests, summarize_all(requests, usage), strict=True):
        due, single = summarize(item, log, period), summarize(item, usage, period)
        if not bulk == single == due:
            found = f"{single.total_usage} alone and {bulk.total_usage} among others"
            raise LawBrokenError(
                "engines",
                f"the engine's usage of {item.id} in {period} is {found}, not {due.total_usage}",
            )
    for subscription in log.subscriptions:
        for period in (one for one in asked if subscription.period_at(one.start) == one):
            bill, definition = (
                preview_invoice(subscription, one, now=period.start).to_dict()
                for one in (usage, log)
            )
            if bill != definition:
                raise LawBrokenError(
                    "engines", f"the engine's invoice for {period} is {bill}, not {definition}"
                )


def check_retry_laws(
    make_log: Callable[[], UsageLog], record: UsageRecord, now: int, later: int
) -> None:
    """Check what a sender hears who sends a record again: at once, later, after the period closed,
    or changed.

    Args:
        make_log: makes a new log; the same one each time.
        record: what is sent; it gets an id where it has none.
        now: when it is sent first, Unix seconds.
        later: when it is sent again.
    """
    log = make_log()
    sent = record if record.id is not None else attrs.evolve(record, id="retried")
    (first,) = log.append([sent], now=now)
    if first.outcome is not Outcome.ACCEPTED:
        _check_no_id_claimed(make_log, log, sent, now)
        return
    _check_again(log, sent, first, now)
    _check_again(log, sent, first, later)
    for subscription in log.subscriptions:
        period = subscription.period_at(now)
        if period is not None and period.end_seconds <= later:
            log.close_period(subscription.id, period, now=later)
    _check_again(log, sent, first, later)
    other = Action.INCREMENT if sent.action is Action.SET else Action.SET
    for changed in (
        attrs.evolve(sent, quantity=sent.quantity + 1),
        attrs.evolve(sent, action=other),
    ):
        _check_refused_as_reused(log, changed, later)


def _check_again(log: UsageLog, sent: UsageRecord, first: Receipt, now: int) -> None:
    before = _held(log, now)
    (again,) = log.append([sent], now=now)
    if (again.outcome, again.sequence) != (Outcome.DUPLICATE, first.sequence):
        due = f"a duplicate of {first.sequence}"
        raise LawBrokenError(
            "retries",
            f"{sent}, sent again at {now}, is {again.outcome} ({again.sequence}), not {due}",
        )
    if _held(log, now) != before:
        raise LawBrokenError(
            "retries",
            f"{sent}, sent again at {now}, changed the log from {before} to {_held(log, now)}",
        )


def _check_refused_as_reused(log: UsageLog, changed: UsageRecord, now: int) -> None:
    before = _held(log, now)
    (receipt,) = log.append([changed], now=now)
    if receipt.code is not ErrorCode.ID_REUSED:
        raise LawBrokenError(
            "retries",
            f"{changed}, whose id has other content, is {receipt.outcome}, not refused: id_reused",
        )
    if _held(log, now) != before:
        raise LawBrokenError(
            "retries", f"{changed} was refused and changed the log to {_held(log, now)}"
        )


def _check_no_id_claimed(
    make_log: Callable[[], UsageLog], log: UsageLog, refused: UsageRecord, now: int
) -> None:
    corrected = attrs.evolve(
        refused, timestamp="now", action=Action.INCREMENT, quantity=refused.quantity + 1
    )
    (found,), (due,) = log.append([corrected], now=now), make_log().append([corrected], now=now)
    if found != due:
        raise LawBrokenError(
            "retries",
            f"{refused} was refused; corrected and sent again it hears {found}, not {due}",
        )


def _held(log: UsageLog, now: int) -> tuple[Any, ...]:
    return len(log), log.sequence, _answers(log, now)


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
    if (receipt.outcome is Outcome.ACCEPTED) is not has_grace:
        due = "accepted" if has_grace else "refused"
        raise LawBrokenError(
            "late grace",
            f"{sent}, received at {later}, is {receipt.outcome} ({receipt.code}), not {due}",
        )
    found, expected = (
        summarize(item, late, own),
        summarize(item, in_time if has_grace else make_log(), own),
    )
    if found != expected:
        raise LawBrokenError("late grace", f"with {sent} at {later} it is {found}, not {expected}")
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
    adds_up = item.recurring.aggregate_usage is AggregateUsage.SUM and is_linear(item.price.model)
    goes_on = is_open and sent.action is Action.INCREMENT and adds_up
    code = (
        None
        if goes_on
        else ErrorCode.LATE_USAGE_NOT_BILLABLE
        if is_open
        else ErrorCode.PERIOD_CLOSED
    )
    if receipt.code is not code:
        raise LawBrokenError(
            "late grace",
            f"{sent} for {closed}, which is closed, hears {receipt}, not {code or 'accepted'}",
        )
    if summarize(item, log, closed) != before:
        raise LawBrokenError(
            "late grace",
            f"{sent} changed {before} of a closed period to {summarize(item, log, closed)}",
        )
    if (
        goes_on
        and current is not None
        and summarize(item, log, current).total_usage != sent.quantity
    ):
        found = summarize(item, log, current).total_usage
        raise LawBrokenError(
            "late grace",
            f"{sent}, billed in the open period, makes {found} there, not {sent.quantity}",
        )


# Periods ------------------------------------------------------------------------------------------


def check_period_laws(cycle: BillingCycle, k: int) -> None:
    """Check boundary ``k`` of a cycle against the calendar, and that the periods on both sides of
    it meet there.
    """
    start, end = cycle.boundary(k), cycle.boundary(k + 1)
    _check_boundary(cycle, k, start)
    if start == end and cycle.timezone != "UTC":
        return  # A day that the zone skipped.
    if not start < end:
        raise LawBrokenError(
            "periods",
            f"boundary {k} of {cycle} is {start}, which is not before boundary {k + 1}, {end}",
        )
    period = cycle.period(k)
    if (period.start, period.end) != (start, end):
        raise LawBrokenError(
            "periods",
            f"period {k} of {cycle} is {period}, but its boundaries are {start} and {end}",
        )
    second = timedelta(seconds=1)
    # Half an hour and an hour after a boundary, the clock may have been put back over it.
    inside = (
        start,
        start + 1799 * second,
        start + 3599 * second,
        start + (end - start) / 2,
        end - second / 10**6,
    )
    for moment in (one for one in inside if one < end):
        if moment not in period or cycle.period_at(moment) != period or cycle.index_at(moment) != k:
            at = f"{cycle.period_at(moment)} (number {cycle.index_at(moment)})"
            raise LawBrokenError(
                "periods", f"{moment} lies in period {k} of {cycle}, {period}, but is found in {at}"
            )
    before, after = cycle.period_at(start - second), cycle.period_at(end)
    if before.end != start or start - second in period or after.start != end or end in period:
        raise LawBrokenError(
            "periods",
            f"period {k} of {cycle}, {period}, does not meet its neighbours {before} and {after}",
        )


def _check_boundary(cycle: BillingCycle, k: int, found: datetime) -> None:
    """Check a boundary against the calendar: month by division, the day clamped to the month, on
    the clock of the zone.
    """
    zone = UTC if cycle.timezone == "UTC" else ZoneInfo(cycle.timezone)
    if k == 0:
        if found != cycle.anchor:
            raise LawBrokenError("periods", f"boundary 0 of {cycle} is {found}")
        return
    wall = _wall_clock(cycle, k, zone)
    shown = found.astimezone(zone).replace(tzinfo=None)
    if shown != wall and not _is_skipped(wall, zone):
        raise LawBrokenError(
            "periods", f"boundary {k} of {cycle} is {shown} on its clock, not {wall}"
        )
    if shown == wall and found > wall.replace(tzinfo=zone, fold=1).astimezone(UTC):
        raise LawBrokenError(
            "periods",
            f"boundary {k} of {cycle} is {found}, which is not the first moment at {wall}",
        )
    if shown < wall:
        raise LawBrokenError(
            "periods",
            f"boundary {k} of {cycle} is {shown}, before the {wall} that its clock skipped",
        )


def _is_skipped(wall: datetime, zone: tzinfo) -> bool:
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall


def _wall_clock(cycle: BillingCycle, k: int, zone: tzinfo) -> datetime:
    anchor = cycle.anchor.astimezone(zone).replace(tzinfo=None)
    steps = k * cycle.interval_count
    if cycle.interval in {Interval.DAY, Interval.WEEK}:
        return datetime.fromordinal(
            anchor.toordinal() + steps * (7 if cycle.interval is Interval.WEEK else 1)
        ).replace(hour=anchor.hour, minute=anchor.minute, second=anchor.second)
    year, month = divmod(
        anchor.year * 12
        + anchor.month
        - 1
        + steps * (12 if cycle.interval is Interval.YEAR else 1),
        12,
    )
    return anchor.replace(
        year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1])
    )


# Rating -------------------------------------------------------------------------------------------


def check_rating_laws(price: Price | PricingModel, quantity: Number) -> None:
    """Check what a price or a pricing model, built in or yours, charges for a quantity.

    Of any model: no unit is lost, amounts are exact, equal quantities give equal charges. Of the
    built-in ones also what each unit costs, as :func:`check_graduated_laws` and its neighbours
    state it.
    """
    model = price.model if isinstance(price, Price) else price
    charges = _charged(model, quantity)
    units = sum(
        (Fraction(charge.quantity) for charge in charges if charge.kind is not ChargeKind.FLAT),
        Fraction(),
    )
    if units != Fraction(quantity):
        raise LawBrokenError(
            "rating", f"the charges of {model} for {quantity} units cover {units}: {charges}"
        )
    if charges != _charged(model, quantity):
        raise LawBrokenError(
            "rating", f"{model} charges {quantity} units twice with different charges"
        )
    for charge in (
        one for one in charges if one.kind is ChargeKind.UNIT and one.unit_amount is not None
    ):
        if Fraction(charge.amount) != Fraction(charge.quantity) * _amount(charge.unit_amount):
            raise LawBrokenError(
                "rating",
                f"{charge} of {model} is not the product of its quantity and its unit amount",
            )
    _check_built_in(model, quantity)


def _check_built_in(model: PricingModel, quantity: Number) -> None:
    match model:
        case PerUnit():
            if _cost(model, quantity) != Fraction(quantity) * Fraction(model.unit_amount):
                raise LawBrokenError(
                    "per unit", f"{quantity} units cost {_cost(model, quantity)} with {model}"
                )
        case Graduated():
            check_graduated_laws(model, model.tiers, quantity)
        case Volume():
            check_volume_laws(model, model.tiers, quantity)
        case Package():
            check_package_laws(model, model.unit_amount, model.divide_by, model.round, quantity)
        case _:
            pass


def _charged(model: PricingModel, quantity: Number) -> tuple[Charge, ...]:
    return rate(Price("price", "usd", model), quantity).charges


def _cost(model: PricingModel, quantity: Number) -> Fraction:
    return sum((Fraction(charge.amount) for charge in _charged(model, quantity)), Fraction())


def _amount(amount: Decimal | None) -> Fraction:
    return Fraction(0 if amount is None else amount)


def check_graduated_laws(model: PricingModel, tiers: Sequence[Tier], quantity: Number) -> None:
    """Check that a model charges by these tiers, each unit in its own: what zero units cost, and
    what one unit more costs.
    """
    due = _amount(tiers[0].flat_amount)
    if _cost(model, 0) != due:
        raise LawBrokenError(
            "graduated",
            f"{model} charges {_cost(model, 0)} for zero units, not the first flat amount, {due}",
        )
    low = Fraction(quantity)
    step = _cost(model, low + 1) - _cost(model, quantity)
    due = _one_more_costs(tiers, low, low + 1)
    if step != due:
        raise LawBrokenError(
            "graduated", f"one unit more than {quantity} costs {step}, not {due}, with {model}"
        )


def _one_more_costs(tiers: Sequence[Tier], low: Fraction, high: Fraction) -> Fraction:
    """Charge the stretch from ``low`` to ``high``: what of it lies in each tier, and the flat
    amounts that it opens.
    """
    cost = below = Fraction()
    for number, tier in enumerate(tiers):
        until = high if tier.up_to is None else Fraction(tier.up_to)
        cost += max(min(high, until) - max(low, below), Fraction()) * _amount(tier.unit_amount)
        if number and low <= below < high:
            cost += _amount(tier.flat_amount)
        below = until
    return cost


def check_volume_laws(model: PricingModel, tiers: Sequence[Tier], quantity: Number) -> None:
    """Check that a model charges everything in the one of these tiers that holds the last unit."""
    holding = next(
        tier for tier in tiers if tier.up_to is None or Fraction(tier.up_to) >= Fraction(quantity)
    )
    due = Fraction(quantity) * _amount(holding.unit_amount) + _amount(holding.flat_amount)
    if _cost(model, quantity) != due:
        raise LawBrokenError(
            "volume",
            f"{quantity} units cost {_cost(model, quantity)}, not {due} as in {holding}, "
            f"with {model}",
        )


def check_package_laws(
    model: PricingModel,
    unit_amount: Decimal,
    divide_by: int,
    round: str,
    quantity: Number,
) -> None:
    """Check that a model charges whole packages of ``divide_by`` units, rounded ``up`` or ``down``
    on the whole quantity.
    """
    filled = Fraction(quantity) / divide_by
    packages = ceil(filled) if round == Round.UP else floor(filled)
    if _cost(model, quantity) != packages * Fraction(unit_amount):
        due = f"{packages * Fraction(unit_amount)} for {packages} packages of {divide_by}"
        raise LawBrokenError(
            "packages", f"{quantity} units cost {_cost(model, quantity)}, not {due}, with {model}"
        )
    said = [charge.packages for charge in _charged(model, quantity) if charge.packages is not None]
    if said not in ([], [packages]):
        raise LawBrokenError(
            "packages",
            f"{quantity} units are said to make {said} packages, not {packages}, with {model}",
        )


# Money --------------------------------------------------------------------------------------------


def check_settle_laws(amount: Amount, rounding: Rounding = half_up) -> None:
    """Check what settling makes of an amount; by ``half_up`` a half goes away from zero.

    Any rounding to the nearest minor unit must pass. Rounding to multiples, or always up, is not to
    the nearest.
    """
    settled, exact = settle(amount, rounding), Fraction(amount.minor_units)
    if abs(settled.minor_units - exact) > Fraction(1, 2) or settled.currency != amount.currency:
        raise LawBrokenError("settling", f"{exact} {amount.currency} settles to {settled}")
    if settle(-amount, rounding) != -settled:
        raise LawBrokenError(
            "settling",
            f"{exact} settles to {settled}, and the credit of it to {settle(-amount, rounding)}",
        )
    magnitude = floor(abs(exact) + Fraction(1, 2))
    if rounding is half_up and abs(settled.minor_units) != magnitude:
        raise LawBrokenError(
            "settling",
            f"{exact}, a half away from zero, is {magnitude} and not {abs(settled.minor_units)}",
        )


def check_invoice_laws(
    invoice: Invoice, subscription: Subscription | None = None, usage: Usage | None = None
) -> None:
    """Check that an invoice adds up, line by line and item by item.

    With the subscription and the usage that it bills, check also that every item stands on it with
    the usage it had.
    """
    if subscription is not None and usage is not None:
        _check_billed(invoice, subscription, usage)
    if invoice.total != sum(line.amount for line in invoice.lines):
        raise LawBrokenError(
            "invoices",
            f"the total is {invoice.total}, the lines are "
            f"{[line.amount for line in invoice.lines]}",
        )
    for line in invoice.lines:
        _check_settled(line, invoice.currency)
    for item in dict.fromkeys(line.subscription_item for line in invoice.lines):
        lines = [line for line in invoice.lines if line.subscription_item == item]
        charged = sum(
            (Fraction(line.quantity) for line in lines if line.charge.kind is not ChargeKind.FLAT),
            Fraction(),
        )
        # Where a meter's corrections exceed its usage, nothing is billed.
        if {max(Fraction(line.total_usage), Fraction()) for line in lines} != {charged}:
            raise LawBrokenError(
                "invoices", f"the lines of {item} cover {charged} units of {lines[0].total_usage}"
            )
        if _charged(lines[0].price.model, max(lines[0].total_usage, 0)) != tuple(
            line.charge for line in lines
        ):
            raise LawBrokenError(
                "invoices",
                f"the lines of {item} are not the charges for {lines[0].total_usage} units",
            )


def _check_settled(line: InvoiceLineItem, currency: str) -> None:
    """Check that a line settles its charge: by less than a minor unit, and by its rounding."""
    exact = Fraction(line.exact)
    due = Fraction(line.charge.amount) * (1 if line.proration is None else line.proration)
    if exact != due or line.currency != currency:
        raise LawBrokenError(
            "invoices",
            f"line {line.id} settles {exact} {line.currency}, but its charge is {line.charge}",
        )
    if line.rounding.startswith("half_") and abs(line.amount - exact) > Fraction(1, 2):
        raise LawBrokenError(
            "invoices",
            f"line {line.id} is {line.amount}, more than half a minor unit from {exact}",
        )
    if line.rounding == "half_up" and abs(line.amount) != floor(abs(exact) + Fraction(1, 2)):
        raise LawBrokenError(
            "invoices",
            f"line {line.id} is {line.amount}, which is not {exact}, a half away from zero",
        )


def _check_billed(invoice: Invoice, subscription: Subscription, usage: Usage) -> None:
    """Check the invoice's items and their quantities against what was used and agreed."""
    due: dict[str, Number] = {}
    for item in subscription.items:
        agreed = 0 if item.quantity is None else item.quantity
        due[item.id] = (
            summarize(item, usage, invoice.period).total_usage if item.is_metered else agreed
        )
    _check_prorated(invoice, subscription)
    found = {line.subscription_item: line.total_usage for line in invoice.lines}
    if found != due:
        raise LawBrokenError(
            "invoices", f"the invoice for {invoice.period} bills {found}, but the usage was {due}"
        )


def _check_prorated(invoice: Invoice, subscription: Subscription) -> None:
    """Check that what was agreed is billed by the second where the cycle's own period was cut, and
    usage never is.
    """
    whole = subscription.cycle.period_at(invoice.period.start)
    lived = Fraction((invoice.period.end - invoice.period.start) / timedelta(seconds=1))
    part = lived / Fraction((whole.end - whole.start) / timedelta(seconds=1))
    for line in invoice.lines:
        due = None if subscription.item(line.subscription_item).is_metered or part == 1 else part
        if line.proration != due:
            raise LawBrokenError(
                "invoices", f"line {line.id} is prorated by {line.proration}, not by {due}"
            )


# State and surroundings ---------------------------------------------------------------------------


def check_snapshot_laws(
    log: UsageLog, more: Sequence[UsageRecord] = (), now: int | None = None
) -> None:
    """Check that a log survives being stored as JSON text, and goes on as it would have.

    Args:
        log: any log; ``more`` is appended to it.
        more: what both logs receive afterwards, such as retries of what the log holds already.
        now: when they receive it, and when both are asked for their summaries; needed with
            ``more``.
    """
    text = json.dumps(snapshot(log))
    restored = restore(json.loads(text))
    if restored != log or _records(restored) != _records(log):
        raise LawBrokenError(
            "snapshots", f"a log of {_records(log)} comes back as one of {_records(restored)}"
        )
    if json.dumps(snapshot(restored)) != text:
        raise LawBrokenError(
            "snapshots", f"the text {text} comes back as {json.dumps(snapshot(restored))}"
        )
    for item, period in used_periods(log):
        found, due = summarize(item, restored, period), summarize(item, log, period)
        if found != due:
            raise LawBrokenError("snapshots", f"{due} comes back as {found}")
    if now is None:
        return
    for item in metered_items(log):
        listed, definition = (one.summaries(item.id, now=now) for one in (restored, log))
        if listed != definition:
            raise LawBrokenError("snapshots", f"the summaries {definition} come back as {listed}")
    for record, said, heard in zip(
        more, restored.append(more, now=now), log.append(more, now=now), strict=True
    ):
        if said != heard:
            raise LawBrokenError(
                "snapshots",
                f"{record}, sent afterwards, hears {said} of the restored log, not {heard}",
            )


def check_compaction_laws(
    log: UsageLog,
    more: Sequence[UsageRecord] = (),
    now: int | None = None,
    *,
    until: datetime | int | None = None,
) -> None:
    """Check that compaction changes no answer, or refuses it with ``usage_compacted``.

    Args:
        log: any log; ``more`` is appended to it. A copy of it is compacted.
        more: what both logs receive afterwards, such as retries of what the log has dropped.
        now: when they receive it; needed with ``more``.
        until: as in :meth:`~metering_core.UsageLog.compact`.
    """
    compacted = restore(snapshot(log))
    dropped = compacted.compact(until=until)
    if (len(compacted), compacted.sequence) != (len(log) - dropped, log.sequence):
        held = f"{len(compacted)} records up to number {compacted.sequence}"
        raise LawBrokenError(
            "compaction",
            f"of {len(log)} records up to {log.sequence} {dropped} are dropped: {held} remain",
        )
    restored = restore(snapshot(compacted))
    _compare_compacted(log, compacted)
    _compare_compacted(compacted, restored)
    for number in range(log.sequence + 1):
        _compare_view(log, compacted, number)
    if now is None:
        return
    heard = log.append(more, now=now)
    for one in (compacted, restored):
        for record, said, due in zip(more, one.append(more, now=now), heard, strict=True):
            if said != due:
                raise LawBrokenError(
                    "compaction",
                    f"{record}, sent afterwards, hears {said} of the compacted log, not {due}",
                )


def _compare_compacted(log: UsageLog, compacted: UsageLog) -> None:
    for item, period in used_periods(log):
        found, due = summarize(item, compacted, period), summarize(item, log, period)
        if found != due:
            raise LawBrokenError("compaction", f"{due} becomes {found}")
    for subscription in log.subscriptions:
        for period in dict.fromkeys(
            period for item, period in used_periods(log) if item in subscription.items
        ):
            if subscription.period_at(period.start) == period:
                bill, due_bill = (
                    preview_invoice(subscription, one, now=period.start).to_dict()
                    for one in (compacted, log)
                )
                if bill != due_bill:
                    raise LawBrokenError("compaction", f"the bill {due_bill} becomes {bill}")


def _compare_view(log: UsageLog, compacted: UsageLog, number: int) -> None:
    for item, period in used_periods(log):
        due = summarize(item, log.as_of(number), period)
        try:
            found = summarize(item, compacted.as_of(number), period)
        except UsageCompactedError:
            continue
        if found != due:
            raise LawBrokenError("compaction", f"as of record {number}, {due} becomes {found}")


HOSTILE_CONTEXTS: Final = (
    decimal.Context(prec=1, rounding=decimal.ROUND_UP, traps=[]),
    decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=[]),
    decimal.Context(prec=3, rounding=decimal.ROUND_DOWN, Emax=3, Emin=-3, traps=[]),
    decimal.Context(
        prec=50, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation, decimal.Subnormal]
    ),
)
"""Ambient decimal contexts that spoil every calculation that reads them."""


def check_ambient_laws(compute: Callable[[], object]) -> None:
    """Check that a computation gives the same under every one of :data:`HOSTILE_CONTEXTS`; compare
    bills as ``to_dict()``.
    """
    due = compute()
    for context in HOSTILE_CONTEXTS:
        with decimal.localcontext(context):
            found = compute()
        if found != due:
            raise LawBrokenError("ambient", f"under {context} it is {found}, not {due}")
