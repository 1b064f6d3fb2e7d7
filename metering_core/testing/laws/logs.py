"""The laws of logs: what must be true of how usage comes in, is kept and is asked for.

A log of usage records and a log of meter events keep the same laws; they differ in their *door*:
what an entry is called, how it is sent through ``record``, what makes it another one under the
same name. A door is a class below, and each law is stated once over it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import attrs

from metering_core import (
    Action,
    BillingPeriod,
    ErrorCode,
    Meter,
    MeterEvent,
    MeterEventSummary,
    MeterLog,
    Outcome,
    Receipt,
    Subscription,
    SubscriptionItem,
    Usage,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    event_summaries,
    preview_invoice,
    restore,
    restore_meter_log,
    snapshot,
    summarize,
)
from metering_core.aggregation import summarize_all
from metering_core.errors import UsageCompactedError
from metering_core.exact import Number
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meter_views import MeterReader
from metering_core.periods import from_unix_seconds
from metering_core.testing.laws.sentences import LawBrokenError, forbid
from metering_core.testing.restatement import RestatedLog
from metering_core.views import LoggedRecord

Log = TypeVar("Log", UsageLog, MeterLog)

# What a log holds ---------------------------------------------------------------------------------


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


def days(log: MeterLog) -> list[tuple[int, int]]:
    """Return the UTC days that have events, canceled ones included, and the range of all of them,
    in Unix seconds.
    """
    days = sorted(
        {one.event.timestamp // 86_400 for one in log.events() if one.event.timestamp != "now"}
    )
    spans = [(day * 86_400, (day + 1) * 86_400) for day in days]
    return [*spans, (spans[0][0], spans[-1][1])] if spans else []


def measured(
    usage: MeterReader, meters: Iterable[Meter], spans: Iterable[tuple[int, int]]
) -> list[MeterEventSummary]:
    """Return what each customer's events of each meter come to in some ranges, by dimensions and
    over all of them.
    """
    return [
        summary
        for meter in meters
        for customer in sorted(usage.customers(meter.id))
        for start, end in spans
        for keys in {meter.dimension_payload_keys, ()}
        for summary in event_summaries(
            usage, meter.id, customer, start, end, dimension_group_by_keys=keys
        )
        if not summary.is_empty
    ]


def held_events(log: MeterLog) -> tuple[Any, ...]:
    """Return what a log of events holds, and what it answers."""
    return log.sequence, log.events(), measured(log, log.meters, days(log))


def _event_with(event: MeterEvent, **changes: Any) -> MeterEvent:
    kept = {
        "payload": event.payload,
        "identifier": event.identifier,
        "timestamp": event.instant or "now",
    }
    return MeterEvent(event.event_name, **{**kept, **changes})


def close(log: MeterLog, item: SubscriptionItem, period: BillingPeriod, later: int) -> bool:
    """Close the period of an item, unless it is none of its subscription's."""
    subscription = next(one for one in log.subscriptions if item in one.items)
    if subscription.period_at(period.start) != period:
        return False
    log.close_period(subscription.id, period, now=later)
    return True


def _canceled(
    log: MeterLog, event_name: str, identifier: str, now: int
) -> MeterEventAdjustment | ErrorCode:
    try:
        return log.cancel(event_name, identifier, now=now)
    except UsageRejectedError as refused:
        return refused.code


def _told_by(
    log: MeterLog, usage: MeterReader, requests: Sequence[tuple[SubscriptionItem, BillingPeriod]]
) -> tuple[Any, ...]:
    customers = [usage.customers(meter.id) for meter in log.meters]
    unbilled = [usage.unbilled(subscription.id) for subscription in log.subscriptions]
    carried = [usage.carried(*request) for request in requests]
    return usage.events(), customers, unbilled, usage.partials(requests), carried


# Two doors ----------------------------------------------------------------------------------------


class _RecordDoor:
    """Usage records, and what a door is asked."""

    appending, retries, reused = "appending", "retries", ErrorCode.ID_REUSED

    def state(self, log: UsageLog, now: int) -> tuple[Any, ...]:
        """Return what a log holds, and what it answers."""
        return log.sequence, _records(log), _answers(log, now)

    def columns(self, log: UsageLog, batch: Sequence[UsageRecord], now: int) -> Iterable[Receipt]:
        """Append a batch as columns; None where the door has none."""
        fields = ("subscription_item", "quantity", "timestamp", "action", "id")
        columns = [[getattr(record, field) for record in batch] for field in fields]
        return log.append_columns(*columns, now=now)

    def through_record(self, log: UsageLog, entry: UsageRecord, now: int) -> tuple[object, object]:
        """Send an entry through ``record()``; return what that answers, and what is due."""
        due = attrs.evolve(entry, timestamp=now) if entry.timestamp == "now" else entry
        sent = attrs.asdict(entry)
        return log.record(sent.pop("subscription_item"), sent.pop("quantity"), **sent, now=now), due

    def named(self, entry: UsageRecord) -> UsageRecord:
        """Return an entry that has a name to be known by when it comes again."""
        return entry if entry.id is not None else attrs.evolve(entry, id="retried")

    def changed(self, sent: UsageRecord, now: int) -> tuple[UsageRecord, ...]:
        """Return entries of the same name with other content."""
        other = Action.INCREMENT if sent.action is Action.SET else Action.SET
        more = attrs.evolve(sent, quantity=sent.quantity + 1)
        return more, attrs.evolve(sent, action=other)

    def corrected(self, log: UsageLog, refused: UsageRecord) -> UsageRecord:
        """Return an entry of the same name as a sender would correct it."""
        more = refused.quantity + 1
        return attrs.evolve(refused, timestamp="now", action=Action.INCREMENT, quantity=more)

    def aftermath(self, log: UsageLog, sent: UsageRecord, now: int, later: int) -> Iterator[None]:
        """Let happen, one by one, what must not make an entry forgotten."""
        for subscription in log.subscriptions:
            period = subscription.period_at(now)
            if period is not None and period.end_seconds <= later:
                log.close_period(subscription.id, period, now=later)
        yield

    def restore(self, data: Any) -> UsageLog:
        """Return a log from its snapshot."""
        return restore(data)

    def compare_restored(self, log: UsageLog, restored: UsageLog, now: int | None) -> None:
        """Check that a restored log says what the one that was stored says."""
        forbid(
            "snapshots",
            restored != log or _records(restored) != _records(log),
            lambda: f"a log of {_records(log)} comes back as one of {_records(restored)}",
        )
        for item, period in used_periods(log):
            found, due = summarize(item, restored, period), summarize(item, log, period)
            forbid("snapshots", found != due, lambda: f"{due} comes back as {found}")
        if now is None:
            return
        for item in metered_items(log):
            listed, whole = (one.summaries(item.id, now=now) for one in (restored, log))
            forbid("snapshots", listed != whole, lambda: f"{whole} come back as {listed}")

    def go_on(self, log: UsageLog, restored: UsageLog, now: int) -> None:
        """What comes afterwards is all there is."""


class _EventDoor:
    """Meter events, asked the same."""

    appending, retries, reused = "events", "event retries", ErrorCode.IDENTIFIER_REUSED

    def state(self, log: MeterLog, now: int) -> tuple[Any, ...]:
        return held_events(log)

    def columns(self, log: MeterLog, batch: Sequence[MeterEvent], now: int) -> None:
        return None

    def through_record(self, log: MeterLog, entry: MeterEvent, now: int) -> tuple[object, object]:
        due = from_unix_seconds(now) if entry.instant is None else entry.instant
        sent: Any = {"identifier": entry.identifier, "timestamp": entry.instant or "now"}
        answer = log.record(entry.event_name, entry.payload, now=now, **sent)
        return (answer.payload, answer.instant), (entry.payload, due)

    def named(self, entry: MeterEvent) -> MeterEvent:
        return entry if entry.identifier is not None else _event_with(entry, identifier="retried")

    def changed(self, sent: MeterEvent, now: int) -> tuple[MeterEvent, ...]:
        more = _event_with(sent, payload={**sent.payload, "changed": "1"})
        timestamp = "now" if sent.microseconds is not None else now
        return more, _event_with(sent, timestamp=timestamp)

    def corrected(self, log: MeterLog, refused: MeterEvent) -> MeterEvent:
        corrected = _event_with(refused, timestamp="now")
        for meter in (one for one in log.meters if one.event_name == refused.event_name):
            keys = (meter.customer_payload_key, meter.value_payload_key)
            payload = dict.fromkeys((*keys, *meter.dimension_payload_keys), "1")
            payload[meter.customer_payload_key] = "cus_1"
            corrected = _event_with(corrected, payload=payload)
        return corrected

    def aftermath(self, log: MeterLog, sent: MeterEvent, now: int, later: int) -> Iterator[None]:
        assert sent.identifier is not None, "it was given one"
        log.cancel(sent.event_name, sent.identifier, now=now)
        yield
        meter = next(meter for meter in log.meters if meter.event_name == sent.event_name)
        log.update_meter(meter.deactivate(later))
        yield

    def restore(self, data: Any) -> MeterLog:
        return restore_meter_log(data)

    def compare_restored(self, log: MeterLog, restored: MeterLog, now: int | None) -> None:
        """Look at the same past, too, by number and by moment."""
        forbid(
            "snapshots",
            restored != log,
            lambda: f"a log of {log.state()} comes back as one of {restored.state()}",
        )
        requests = used_periods(log)
        events = log.events()
        canceled = {one.canceled_at for one in events if one.canceled_at is not None}
        moments = sorted({one.received_at for one in events} | canceled)
        limits: list[int | datetime] = [*range(log.sequence + 1), *moments]
        pairs: list[tuple[MeterReader, MeterReader]] = [(log, restored)]
        pairs += [(log.as_of(limit), restored.as_of(limit)) for limit in limits]
        for original, copy in pairs:
            found, due = (_told_by(log, one, requests) for one in (copy, original))
            forbid(
                "snapshots",
                found != due,
                lambda: f"{original} says {due} and comes back saying {found}",
            )

    def go_on(self, log: MeterLog, restored: MeterLog, now: int) -> None:
        """Cancel all that has an identifier, and close what has ended."""
        names = {(one.event.event_name, one.event.identifier or "-") for one in log.events()}
        for event_name, identifier in names:
            found, due = (_canceled(one, event_name, identifier, now) for one in (restored, log))
            said = f"{identifier}, canceled afterwards, is {found} in the restored log"
            forbid("snapshots", found != due, lambda: f"{said}, not {due}")
        for item, period in used_periods(log):
            for one in (log, restored):
                if period.end_seconds <= now:
                    close(one, item, period, now)
        self.compare_restored(log, restored, now)


_Door: TypeAlias = Any
"""One of the two, each typed for its own logs; no type says that a log goes with its door."""


def _door(log: UsageLog | MeterLog) -> _Door:
    return _EventDoor() if isinstance(log, MeterLog) else _RecordDoor()


# Appending ----------------------------------------------------------------------------------------


def check_append_laws(
    make_log: Callable[[], Log], x: Sequence[Any], y: Sequence[Any], now: int
) -> None:
    """Check that the way in which records or events come in one order makes no difference.

    At once, in two parts, one by one with a question after each, through ``record``, as columns
    (of usage records), and without what was refused: same log, same receipts, same answers. Split
    one batch into ``x`` and ``y`` at any place within it.

    Args:
        make_log: makes a new log; the same one each time.
        x: what comes first.
        y: what comes then, at the same moment.
        now: the moment of receipt, Unix seconds.
    """
    batch, at_once = [*x, *y], make_log()
    receipts = list(at_once.append(batch, now=now))
    door, accepted = _door(at_once), accepted_of(batch, receipts)
    state = door.state(at_once, now)
    ways: dict[str, Callable[[Log], Iterable[Receipt] | None]] = {
        "in two parts": lambda log: [*log.append(x, now=now), *log.append(y, now=now)],
        "one by one": lambda log: [_asked(door, log, one, now) for one in batch],
        "through record()": lambda log: _record_each(door, log, batch, receipts, now),
        "as columns": lambda log: door.columns(log, batch, now),
        "without what was refused": lambda log: _append_alone(log, accepted, now),
    }
    if door.columns(make_log(), [], now) is None:
        del ways["as columns"]
    for way, append in ways.items():
        log = make_log()
        heard = append(log)
        for entry, due, said in zip(batch, receipts, heard or receipts, strict=True):
            what = f"{entry} hears {due} at once"
            forbid(door.appending, said != due, lambda: f"{what} and {said} {way}")
        found = door.state(log, now)
        forbid(door.appending, found != state, lambda: f"{way} the log is {found}, at once {state}")
        _check_equal(door, way, log, at_once)


def _check_equal(door: _Door, way: str, log: Any, at_once: Any) -> None:
    forbid(
        door.appending,
        log != at_once,
        lambda: f"{way} the log differs: {snapshot(log)}, at once {snapshot(at_once)}",
    )


def accepted_of(batch: Sequence[Any], receipts: Iterable[Receipt]) -> list[Any]:
    """Return what was accepted of a batch."""
    said = zip(batch, receipts, strict=True)
    return [one for one, receipt in said if receipt.outcome is Outcome.ACCEPTED]


def _append_alone(log: Any, accepted: Sequence[Any], now: int) -> None:
    log.append(accepted, now=now)


def _asked(door: _Door, log: Any, entry: Any, now: int) -> Receipt:
    """Append one entry, and ask the log: no answer may change what it says later."""
    receipt: Receipt = log.append([entry], now=now)[0]
    door.state(log, now)
    return receipt


def _record_each(
    door: _Door, log: Any, batch: Sequence[Any], receipts: Sequence[Receipt], now: int
) -> None:
    """Check that ``record()`` returns each entry, its timestamp resolved, or raises what its
    receipt says.
    """
    for entry, receipt in zip(batch, receipts, strict=True):
        said = f"{entry} hears {receipt} at once, and record()"
        try:
            answer, due = door.through_record(log, entry, now)
        except UsageRejectedError as refused:
            code = refused.code
            forbid(door.appending, code is not receipt.code, lambda: f"{said} raises {code}")
        else:
            is_other = receipt.outcome is Outcome.REJECTED or answer != due
            forbid(door.appending, is_other, lambda: f"{said} returns {answer}")


# Retries ------------------------------------------------------------------------------------------


def check_retry_laws(make_log: Callable[[], Log], entry: Any, now: int, later: int) -> None:
    """Check what a sender hears who sends a record or an event again: at once, later, changed, and
    after its period was closed, or it was canceled and its meter made inactive.

    Args:
        make_log: makes a new log, which remembers identifiers from ``now`` to ``later``; the same
            one each time.
        entry: what is sent; it gets an id or identifier where it has none.
        now: when it is sent first, Unix seconds.
        later: when it is sent again.
    """
    log: Any = make_log()
    door = _door(log)
    sent = door.named(entry)
    (first,) = log.append([sent], now=now)
    if first.outcome is not Outcome.ACCEPTED:
        corrected = [door.corrected(log, sent)]
        (found,), (due,) = log.append(corrected, now=now), make_log().append(corrected, now=now)
        what = f"{sent} was refused; corrected and sent again it hears"
        forbid(door.retries, found != due, lambda: f"{what} {found}, not {due}")
        return
    _check_again(door, log, sent, first, now)
    for _ in chain([None], door.aftermath(log, sent, now, later)):
        _check_again(door, log, sent, first, later)
        for changed in door.changed(sent, later):
            _check_reused(door, log, changed, later)


def _check_again(door: _Door, log: Any, sent: Any, first: Receipt, now: int) -> None:
    before = door.state(log, now)
    (again,) = log.append([sent], now=now)
    forbid(
        door.retries,
        (again.outcome, again.sequence) != (Outcome.DUPLICATE, first.sequence),
        lambda: (
            f"{sent}, sent again at {now}, is {again.outcome} ({again.sequence}), not a duplicate "
            f"of {first.sequence}"
        ),
    )
    _check_untouched(door, log, before, f"{sent}, sent again at {now},", now)


def _check_reused(door: _Door, log: Any, changed: Any, now: int) -> None:
    before = door.state(log, now)
    (receipt,) = log.append([changed], now=now)
    forbid(
        door.retries,
        receipt.code is not door.reused,
        lambda: f"{changed}, whose name has other content, hears {receipt}, not {door.reused}",
    )
    _check_untouched(door, log, before, f"{changed} was refused and", now)


def _check_untouched(door: _Door, log: Any, before: object, what: str, now: int) -> None:
    after = door.state(log, now)
    changed = f"{what} changed the log"
    forbid(door.retries, after != before, lambda: f"{changed} from {before} to {after}")


# State --------------------------------------------------------------------------------------------


def check_snapshot_laws(
    log: UsageLog | MeterLog, more: Sequence[Any] = (), now: int | None = None
) -> None:
    """Check that a log survives being stored as JSON text with its whole past, and goes on as it
    would have.

    Args:
        log: any log; ``more`` is appended to it, and of events, all that has an identifier is
            canceled and what has ended is closed.
        more: what both logs receive afterwards, such as retries of what the log holds already.
        now: when they receive it, and when both are asked; needed with ``more``.
    """
    door, text = _door(log), json.dumps(snapshot(log))
    restored = door.restore(json.loads(text))
    door.compare_restored(log, restored, now)
    again = json.dumps(snapshot(restored))
    forbid("snapshots", again != text, lambda: f"the text {text} comes back as {again}")
    if now is not None:
        heard = restored.append(more, now=now), log.append(more, now=now)
        _compare_heard("snapshots", "restored", more, *heard)
        door.go_on(log, restored, now)


def _compare_heard(
    law: str, which: str, more: Sequence[Any], heard: Iterable[Receipt], due: Iterable[Receipt]
) -> None:
    for entry, one, other in zip(more, heard, due, strict=True):
        what = f"{entry}, sent afterwards, hears"
        forbid(law, one != other, lambda: f"{what} {one} of the {which} log, not {other}")


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
        _compare_heard("compaction", "compacted", more, one.append(more, now=now), heard)


def _compare_compacted(log: UsageLog, compacted: UsageLog) -> None:
    for item, period in used_periods(log):
        found, due = summarize(item, compacted, period), summarize(item, log, period)
        forbid("compaction", found != due, lambda: f"{due} becomes {found}")
    for subscription in log.subscriptions:
        for period in dict.fromkeys(
            period for item, period in used_periods(log) if item in subscription.items
        ):
            if subscription.period_at(period.start) == period:
                bill, due_bill = (
                    preview_invoice(subscription, one, now=period.start).to_dict()
                    for one in (compacted, log)
                )
                forbid(
                    "compaction", bill != due_bill, lambda: f"the bill {due_bill} becomes {bill}"
                )


def _compare_view(log: UsageLog, compacted: UsageLog, number: int) -> None:
    for item, period in used_periods(log):
        due = summarize(item, log.as_of(number), period)
        try:
            found = summarize(item, compacted.as_of(number), period)
        except UsageCompactedError:
            continue
        forbid("compaction", found != due, lambda: f"as of record {number}, {due} becomes {found}")


# Against the rules, and against another engine ----------------------------------------------------


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
        what = f"{view}the {summary.aggregate_usage} of {item.id} in {period}"
        forbid(
            "usage",
            summary.total_usage != due,
            lambda: (
                f"{what} is {summary.total_usage}, not {due}; its cells are "
                f"{restated.cells(item.id, until)}"
            ),
        )


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
    given = (period for _, period in used_periods(log)) if periods is None else periods
    asked = list(dict.fromkeys(given))
    requests = [(item, period) for item in wanted for period in asked]
    for (item, period), bulk in zip(requests, summarize_all(requests, usage), strict=True):
        due, single = summarize(item, log, period), summarize(item, usage, period)
        what = f"the engine's usage of {item.id} in {period} is {single.total_usage} alone"
        forbid(
            "engines",
            not bulk == single == due,
            lambda: f"{what} and {bulk.total_usage} among others, not {due.total_usage}",
        )
    _check_bills(usage, log, asked)


def _check_bills(usage: Usage, log: UsageLog | MeterLog, asked: Sequence[BillingPeriod]) -> None:
    for subscription in log.subscriptions:
        for period in (one for one in asked if subscription.period_at(one.start) == one):
            bills = [preview_invoice(subscription, one, now=period.start) for one in (usage, log)]
            # As values: written down, an invoice also says which log can explain it.
            forbid(
                "engines",
                bills[0] != bills[1],
                lambda: f"the engine's invoice for {period} is {bills[0]!r}, not {bills[1]!r}",
            )
