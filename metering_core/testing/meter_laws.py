"""The laws of meters, beside the :mod:`~metering_core.testing.laws` of billing: formulas, events,
summaries, cancellations.

Each raises :class:`~metering_core.testing.laws.LawBrokenError` where it does not hold. They take a
function that makes a log or the log itself, so that a subclass or a stand-in of yours can be held
to them; a formula of yours is one row, an :class:`~metering_core.measures.Aggregator`. That another
engine bills meters as the log does is :func:`~metering_core.testing.laws.check_engine_agrees`.

>>> import metering_core as mc
>>> second = 1_000_000
>>> readings = [(0, 1), (second, 2), (second, 6)]
>>> check_formula_laws(mc.Formula.AVERAGE, readings, {0, 2}, (0, 60 * second))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from fractions import Fraction
from functools import reduce
from itertools import takewhile
from typing import Any, Final, cast

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.aggregation import summarize_all
from metering_core.errors import ErrorCode, InvoicingError, UsageRejectedError
from metering_core.exact import Number
from metering_core.invoicing import Invoice, finalize_invoice, preview_invoice
from metering_core.measures import FORMULAS, Aggregator, Partial
from metering_core.meter_events import MeterEvent, MeterEventAdjustment
from metering_core.meter_log import MeterLog
from metering_core.meter_summaries import (
    MeterEventSummary,
    ValueGroupingWindow,
    event_summaries,
    list_event_summaries,
    total_of,
)
from metering_core.meter_views import MeterReader
from metering_core.meters import Formula, Meter
from metering_core.money import Rounding, half_up
from metering_core.periods import BillingPeriod, from_unix_seconds
from metering_core.snapshots.document import restore_meter_log, snapshot
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.testing.laws import LawBrokenError, used_periods

# Formulas -----------------------------------------------------------------------------------------

Measured = Callable[[Sequence[Any], Sequence[tuple[int, Any]], int, int], Any]
"""What values come to: those of a window in the order of time, (moment, value) before it, and its
bounds in microseconds.
"""


def _mean_level(
    within: Sequence[tuple[int, Any]], before: Sequence[tuple[int, Any]], start: int, end: int
) -> Fraction:
    """Walk from change to change, adding up the area under the level."""
    level, since, area = (
        sum((Fraction(value) for _, value in before), Fraction()),
        start,
        Fraction(),
    )
    for moment, value in within:
        area += level * (moment - since)
        level, since = level + Fraction(value), moment
    return (area + level * (end - since)) / (end - start)


def _added(numbers: Iterable[Number]) -> Fraction:
    return sum((Fraction(number) for number in numbers), Fraction())


def _numbers(readings: Sequence[tuple[int, Any]]) -> list[Fraction]:
    return [Fraction(value) for _, value in readings]


def _peaks(within: Sequence[tuple[int, Any]], seconds: int) -> Fraction:
    """Look at each window for itself."""
    length = seconds * 1_000_000
    windows = {moment // length for moment, _ in within}
    return _added(
        max(Fraction(value) for moment, value in within if moment // length == window)
        for window in windows
    )


_MEASURED: Final[dict[Formula, Measured]] = {
    Formula.SUM: lambda within, *_: sum(_numbers(within)),
    Formula.COUNT: lambda within, *_: len(within),
    Formula.LAST: lambda within, *_: _numbers(within)[-1] if within else 0,
    Formula.MAX: lambda within, *_: max(_numbers(within), default=0),
    Formula.MIN: lambda within, *_: min(_numbers(within), default=0),
    Formula.UNIQUE_COUNT: lambda within, *_: len({value for _, value in within}),
    Formula.AVERAGE: lambda within, *_: sum(_numbers(within)) / len(within) if within else 0,
    Formula.WEIGHTED_SUM: _mean_level,
    Formula.HOURLY_PEAKS: lambda within, *_: _peaks(within, 3600),
    Formula.DAILY_PEAKS: lambda within, *_: _peaks(within, 86_400),
}


def check_formula_laws(
    formula: Aggregator | Formula,
    readings: Sequence[tuple[int, Any]],
    split: Collection[int],
    window: tuple[int, int],
    *,
    expected: Measured | None = None,
) -> None:
    """Check that any split of the events, and any order of the parts, gives one value for a window
    of time.

    Of what is additive, the values of any two parts, of the events or of the window, must add up to
    the value of the whole.

    Args:
        formula: one of yours, or the name of one of :data:`~metering_core.measures.FORMULAS`.
        readings: (moment in Unix microseconds, value) in the order of arrival.
        split: the places of one part, from 0; all others are the other part. Draw it within those
            of ``readings``.
        window: ``[start, end)`` in Unix microseconds; for what looks back, earlier readings count,
            too.
        expected: what (moment, value) in the order of time within the window and before it must
            come to, given the window's bounds; known for the named formulas.
    """
    row = FORMULAS[formula] if isinstance(formula, Formula) else formula
    truth = _MEASURED[formula] if isinstance(formula, Formula) else expected
    events = _Events(
        row, sorted((moment, place, value) for place, (moment, value) in enumerate(readings))
    )
    start, end = window
    whole = events.value(start, end)
    within, before = events.told(start, end), events.told(None, start)
    if truth is not None and whole != truth(within, before, start, end):
        due = truth(within, before, start, end)
        raise LawBrokenError(
            "formulas", f"{within} in [{start}, {end}) come to {whole}, not {due}; before: {before}"
        )
    for way, found in events.ways(split, start, end).items():
        if found != whole:
            raise LawBrokenError(
                "formulas", f"{within} in [{start}, {end}), {way}, come to {found}, not {whole}"
            )
    if row.is_additive:
        _check_additive(events, split, start, end, whole)


def _check_additive(
    events: _Events, split: Collection[int], start: int, end: int, whole: Number
) -> None:
    sides = [attrs.evolve(events, rows=rows).value(start, end) for rows in events.parted(split)]
    if _added(sides) != whole:
        raise LawBrokenError(
            "formulas", f"two parts of the events come to {sides}, which does not add up to {whole}"
        )
    for cut in {moment for moment, _ in events.told(start, end)} - {start}:
        parts = [events.value(start, cut), events.value(cut, end)]
        if _added(parts) != whole:
            raise LawBrokenError(
                "formulas",
                f"cut at {cut}, the window comes to {parts}, which does not add up to {whole}",
            )


@attrs.frozen
class _Events:
    """Events of one meter, and its row: (moment, place, value) in the order of time."""

    row: Aggregator
    rows: Sequence[tuple[int, int, Any]]

    def told(self, start: int | None, end: int) -> list[tuple[int, Any]]:
        return [(moment, value) for moment, _, value in self._between(start, end)]

    def _between(self, start: int | None, end: int) -> list[tuple[int, int, Any]]:
        return [row for row in self.rows if row[0] < end and (start is None or start <= row[0])]

    def parted(self, split: Collection[int]) -> list[list[tuple[int, int, Any]]]:
        return [[row for row in self.rows if (row[1] in split) is side] for side in (True, False)]

    def partial(self, start: int | None, end: int) -> Partial:
        prepared = (self.row.prepare_event(*row) for row in self._between(start, end))
        return reduce(self.row.merge, prepared, self.row.identity)

    def value(self, start: int, end: int) -> Number:
        return self._over(self.partial(start, end), self.partial(None, start), start, end)

    def _over(self, within: Partial, before: Partial, start: int, end: int) -> Number:
        return self.row.present(self.row.over(within, before, start, end))

    def ways(self, split: Collection[int], start: int, end: int) -> dict[str, Number]:
        """Return the value by the ways in which partials may be merged."""
        merge, identity = self.row.merge, self.row.identity
        one, other = (attrs.evolve(self, rows=rows) for rows in self.parted(split))
        spans = ((start, end), (None, start))
        back = [self.row.prepare_event(*row) for row in reversed(self._between(start, end))]
        found = {
            "merged part by part": [
                merge(one.partial(*span), other.partial(*span)) for span in spans
            ],
            "merged the other way round": [
                merge(other.partial(*span), one.partial(*span)) for span in spans
            ],
            "merged from the right": [
                reduce(lambda right, left: merge(left, right), back, identity),
                self.partial(None, start),
            ],
            "merged with the identity": [
                merge(identity, merge(self.partial(*span), identity)) for span in spans
            ],
        }
        return {
            way: self._over(within, before, start, end) for way, (within, before) in found.items()
        }


# Events -------------------------------------------------------------------------------------------


def check_event_append_laws(
    make_log: Callable[[], MeterLog], x: Sequence[MeterEvent], y: Sequence[MeterEvent], now: int
) -> None:
    """Check that the way in which events come in one order makes no difference.

    At once, in two parts, one by one with a question after each, through ``record`` and without
    what was refused: same log, same receipts, same summaries. Split one batch into ``x`` and ``y``
    at any place within it.

    Args:
        make_log: makes a new log; the same one each time.
        x: what comes first.
        y: what comes then, at the same moment.
        now: the moment of receipt, Unix seconds.
    """
    batch = [*x, *y]
    at_once, in_parts, singly, recorded, without = (make_log() for _ in range(5))
    receipts = list(at_once.append(batch, now=now))
    heard = {
        "in two parts": [*in_parts.append(x, now=now), *in_parts.append(y, now=now)],
        "one by one": [_asked_of_meters(singly, event, now) for event in batch],
    }
    for way, others in heard.items():
        for event, receipt, other in zip(batch, receipts, others, strict=True):
            if (other.outcome, other.sequence, other.code) != (
                receipt.outcome,
                receipt.sequence,
                receipt.code,
            ):
                raise LawBrokenError("events", f"{event} hears {receipt} at once and {other} {way}")
    for event, receipt in zip(batch, receipts, strict=True):
        _compare_recorded(recorded, event, receipt, now)
    without.append(
        [
            one
            for one, said in zip(batch, receipts, strict=True)
            if said.outcome is Outcome.ACCEPTED
        ],
        now=now,
    )
    due = _state(at_once)
    ways = {
        "in two parts": in_parts,
        "one by one": singly,
        "through record()": recorded,
        "without what was refused": without,
    }
    for way, log in ways.items():
        if _state(log) != due:
            raise LawBrokenError("events", f"{way} the log is {_state(log)}, at once {due}")


def _asked_of_meters(log: MeterLog, event: MeterEvent, now: int) -> Receipt:
    (receipt,) = log.append([event], now=now)
    _state(log)
    return receipt


def _compare_recorded(log: MeterLog, event: MeterEvent, receipt: Receipt, now: int) -> None:
    """Check that ``record()`` returns the event, its timestamp resolved, or raises what the receipt
    says.
    """
    due = from_unix_seconds(now) if event.instant is None else event.instant
    sent = {"identifier": event.identifier, "timestamp": event.instant or "now"}
    try:
        # Each by its name.
        answer = log.record(event.event_name, event.payload, now=now, **cast("Any", sent))
    except UsageRejectedError as refused:
        if refused.code is not receipt.code:
            raise LawBrokenError(
                "events", f"{event} hears {receipt} at once, and record() raises {refused.code}"
            ) from None
    else:
        if receipt.outcome is Outcome.REJECTED or (answer.payload, answer.instant) != (
            event.payload,
            due,
        ):
            raise LawBrokenError(
                "events", f"{event} hears {receipt} at once, and record() returns {answer}"
            )


def _days(log: MeterLog) -> list[tuple[int, int]]:
    """Return the UTC days that have events, canceled ones included, and the range of all of them,
    in Unix seconds.
    """
    days = sorted(
        {one.event.timestamp // 86_400 for one in log.events() if one.event.timestamp != "now"}
    )
    spans = [(day * 86_400, (day + 1) * 86_400) for day in days]
    return [*spans, (spans[0][0], spans[-1][1])] if spans else []


def _measures(
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


def _state(log: MeterLog) -> tuple[Any, ...]:
    return log.sequence, log.events(), _measures(log, log.meters, _days(log))


def check_event_retry_laws(
    make_log: Callable[[], MeterLog], event: MeterEvent, now: int, later: int
) -> None:
    """Check what a sender hears who sends an event again: at once, later, changed, canceled, or
    once the meter is inactive.

    Args:
        make_log: makes a new log, which remembers identifiers from ``now`` to ``later``; the same
            one each time.
        event: what is sent; it gets an identifier where it has none.
        now: when it is sent first, Unix seconds.
        later: when it is sent again.
    """
    log = make_log()
    sent = event if event.identifier is not None else _event_with(event, identifier="retried")
    (first,) = log.append([sent], now=now)
    if first.outcome is not Outcome.ACCEPTED:
        _check_no_identifier_claimed(make_log, log, sent, now)
        return
    assert sent.identifier is not None, "it was given one"
    _check_event_again(log, sent, first, now)
    _check_event_again(log, sent, first, later)
    _check_identifier_reused(
        log, _event_with(sent, payload={**sent.payload, "changed": "1"}), later
    )
    _check_identifier_reused(
        log, _event_with(sent, timestamp="now" if sent.microseconds is not None else now), later
    )
    log.cancel(sent.event_name, sent.identifier, now=now)
    _check_event_again(log, sent, first, later)
    meter = next(meter for meter in log.meters if meter.event_name == sent.event_name)
    log.update_meter(meter.deactivate(later))
    _check_event_again(log, sent, first, later)


def _event_with(event: MeterEvent, **changes: Any) -> MeterEvent:
    kept = {
        "payload": event.payload,
        "identifier": event.identifier,
        "timestamp": event.instant or "now",
    }
    return MeterEvent(event.event_name, **{**kept, **changes})


def _check_event_again(log: MeterLog, sent: MeterEvent, first: Receipt, now: int) -> None:
    before = _state(log)
    (again,) = log.append([sent], now=now)
    if (again.outcome, again.sequence) != (Outcome.DUPLICATE, first.sequence):
        due = f"a duplicate of {first.sequence}"
        raise LawBrokenError(
            "event retries",
            f"{sent}, sent again at {now}, is {again.outcome} ({again.sequence}), not {due}",
        )
    if _state(log) != before:
        raise LawBrokenError(
            "event retries",
            f"{sent}, sent again at {now}, changed the log from {before} to {_state(log)}",
        )


def _check_identifier_reused(log: MeterLog, changed: MeterEvent, now: int) -> None:
    before = _state(log)
    (receipt,) = log.append([changed], now=now)
    if receipt.code is not ErrorCode.IDENTIFIER_REUSED:
        heard = f"{receipt.outcome} ({receipt.code}), not refused: identifier_reused"
        raise LawBrokenError(
            "event retries", f"{changed}, whose identifier has other content, is {heard}"
        )
    if _state(log) != before:
        raise LawBrokenError(
            "event retries", f"{changed} was refused and changed the log to {_state(log)}"
        )


def _check_no_identifier_claimed(
    make_log: Callable[[], MeterLog], log: MeterLog, refused: MeterEvent, now: int
) -> None:
    corrected = _event_with(refused, timestamp="now")
    for meter in (one for one in log.meters if one.event_name == refused.event_name):
        own = dict.fromkeys(
            (meter.customer_payload_key, meter.value_payload_key, *meter.dimension_payload_keys),
            "1",
        )
        corrected = _event_with(corrected, payload={**own, meter.customer_payload_key: "cus_1"})
    (found,), (due,) = log.append([corrected], now=now), make_log().append([corrected], now=now)
    if found != due:
        raise LawBrokenError(
            "event retries",
            f"{refused} was refused; corrected and sent again it hears {found}, not {due}",
        )


def check_arrival_laws(
    make_log: Callable[[], MeterLog], events: Sequence[MeterEvent], ranks: Sequence[int], now: int
) -> None:
    """Check that events that arrive in another order come to the same.

    Events of one customer at one moment, or in one event time window, keep their order. Of the
    events with one identifier only the first is taken.

    Args:
        make_log: makes a new log; the same one each time.
        events: what is sent, in one order.
        ranks: by what they are sorted for the other order; fewer than there are events begin again.
        now: the moment of receipt, Unix seconds.
    """
    first, second = make_log(), make_log()
    meters = {meter.event_name: meter for meter in first.meters}
    ids = [event.identifier for event in events]
    sent = [
        one
        for place, one in enumerate(events)
        if one.identifier is None or one.identifier not in ids[:place]
    ]
    meeting = [_meeting(meters.get(one.event_name), one, now) for one in sent]
    order = sorted(range(len(sent)), key=lambda place: ranks[place % len(ranks)] if ranks else 0)
    turns = {
        key: iter([one for one, own in zip(sent, meeting, strict=True) if own == key])
        for key in meeting
    }
    first.append(sent, now=now)
    second.append([next(turns[meeting[place]]) for place in order], now=now)
    found, due = (_measures(log, log.meters, _days(log)) for log in (second, first))
    if found != due:
        raise LawBrokenError(
            "arrival", f"{sent}, arriving in the order {order}, come to {found}, not {due}"
        )


def _meeting(meter: Meter | None, event: MeterEvent, now: int) -> tuple[Any, ...]:
    """Return what events share between which the order of arrival decides."""
    if meter is None:
        return (event.event_name,)
    moment = now * 10**6 if event.microseconds is None else event.microseconds
    window = 1 if meter.event_time_window is None else meter.event_time_window.seconds * 10**6
    return event.event_name, event.payload.get(meter.customer_payload_key), moment // window


# Summaries ----------------------------------------------------------------------------------------

_GROUPINGS: Final = (
    ValueGroupingWindow.HOUR,
    ValueGroupingWindow.DAY,
    ValueGroupingWindow.WEEK,
    ValueGroupingWindow.MONTH,
)


def check_summary_laws(
    usage: MeterReader,
    meter_id: str,
    customer: str,
    start: int,
    end: int,
    *,
    timezones: Iterable[str] = ("UTC",),
) -> None:
    """Check the summaries of a range against each other, in every grouping: by time, in zones, and
    by dimensions.

    Args:
        usage: a meter log, a view of it, or another reader of meter events.
        meter_id: what to summarize.
        customer: whose events.
        start: Unix seconds, inclusive.
        end: exclusive.
        timezones: the zones whose calendars group.
    """
    asked = (usage, meter_id, customer)
    (whole,) = event_summaries(*asked, start, end)
    groupings = [
        one
        for one in _GROUPINGS
        if one is not ValueGroupingWindow.HOUR or end - start <= 7 * 86_400
    ]
    for zone in timezones:
        for window in groupings:
            buckets = event_summaries(
                *asked, start, end, value_grouping_window=window, timezone=zone
            )
            _check_buckets(usage, whole, buckets, f"by {window} in {zone}")
            _check_listed(
                asked, whole, buckets, {"value_grouping_window": window, "timezone": zone}
            )
    meter = usage.meter(meter_id)
    for key in meter.dimension_payload_keys:
        groups = event_summaries(*asked, start, end, dimension_group_by_keys=[key])
        _check_added(meter, whole, groups, f"by {key}")
        for group in groups:
            (filtered,) = event_summaries(*asked, start, end, dimension_filters=group.dimensions)
            if attrs.evolve(filtered, dimensions=group.dimensions) != group:
                raise LawBrokenError("summaries", f"{group}, asked for by a filter, is {filtered}")


def _check_buckets(
    usage: MeterReader, whole: MeterEventSummary, buckets: list[MeterEventSummary], how: str
) -> None:
    bounds = [whole.start_time, *(one.end_time for one in buckets)]
    if [one.start_time for one in buckets] != bounds[:-1] or bounds[-1] != whole.end_time:
        raise LawBrokenError(
            "summaries", f"the buckets {how} are {buckets}, which do not tile {whole}"
        )
    for bucket in buckets:
        (alone,) = event_summaries(
            usage, whole.meter, whole.customer, bucket.start_time, bucket.end_time
        )
        if alone != bucket:
            raise LawBrokenError("summaries", f"{how} it is {bucket}, and asked for alone {alone}")
    _check_added(usage.meter(whole.meter), whole, buckets, how)


def _check_added(
    meter: Meter, whole: MeterEventSummary, parts: Sequence[MeterEventSummary], how: str
) -> None:
    counted = sum(one.events for one in parts)
    if counted != whole.events:
        raise LawBrokenError(
            "summaries", f"{how} {counted} events count, and {whole.events} in {whole}"
        )
    try:
        added = total_of(meter, parts)
    except InvoicingError as refused:
        if (
            meter.formula in {Formula.SUM, Formula.COUNT}
            or refused.code is not ErrorCode.FORMULA_NOT_ADDITIVE
        ):
            raise LawBrokenError(
                "summaries", f"the total of {meter.formula} {how} is refused with {refused.code}"
            ) from refused
    else:
        if added != whole.aggregated_value:
            raise LawBrokenError(
                "summaries", f"{how} the values add up to {added}, not to that of {whole}"
            )


def _check_listed(
    asked: tuple[MeterReader, str, str],
    whole: MeterEventSummary,
    buckets: list[MeterEventSummary],
    options: dict[str, Any],
) -> None:
    """Check that the pages of the list hold the buckets that are not empty, newest first."""
    due = [one for one in reversed(buckets) if not one.is_empty]
    page = list_event_summaries(*asked, whole.start_time, whole.end_time, limit=2, **options)
    listed = list(page.data)
    while page.has_more and len(listed) <= len(due):
        after = listed[-1].id
        page = list_event_summaries(
            *asked, whole.start_time, whole.end_time, limit=100, starting_after=after, **options
        )
        listed += page.data
    if listed != due:
        raise LawBrokenError("summaries", f"the list for {options} has {listed}, not {due}")


# What comes later ---------------------------------------------------------------------------------


def check_cancel_laws(
    make_log: Callable[[], MeterLog], events: Sequence[MeterEvent], place: int, now: int
) -> None:
    """Check that a canceled event leaves a log that says what one without it says.

    Args:
        make_log: makes a new log; the same one each time.
        events: what is received at once.
        place: which of the accepted events that have an identifier is canceled, counted round and
            round.
        now: when they are received, and one is canceled, Unix seconds.
    """
    log, without = make_log(), make_log()
    receipts = log.append(events, now=now)
    accepted = [
        one
        for one, receipt in zip(events, receipts, strict=True)
        if receipt.outcome is Outcome.ACCEPTED
    ]
    known = [one for one in accepted if one.identifier is not None]
    if not known:
        return
    gone = known[place % len(known)]
    spans, number, view = _days(log), log.sequence, log.as_of(log.sequence)
    before = _measures(view, log.meters, spans)
    assert gone.identifier is not None, "it was chosen for it"
    first = log.cancel(gone.event_name, gone.identifier, now=now)
    without.append([one for one in accepted if one is not gone], now=now)
    standing, due_events = (
        [one.event for one in some.events() if one.canceled_at is None] for some in (log, without)
    )
    found, due = (_measures(some, log.meters, spans) for some in (log, without))
    if (standing, found) != (due_events, due):
        raise LawBrokenError(
            "cancellations",
            f"without {gone} there are {standing} ({found}), not {due_events} ({due})",
        )
    if any(_measures(some, log.meters, spans) != before for some in (view, log.as_of(number))):
        raise LawBrokenError("cancellations", f"canceling {gone} changed what was there before it")
    _check_canceled_again(log, gone, first, now)


def _check_canceled_again(
    log: MeterLog, gone: MeterEvent, first: MeterEventAdjustment, now: int
) -> None:
    before = _state(log)
    second = log.cancel(first.event_name, first.identifier, now=now)
    if second != first:
        raise LawBrokenError(
            "cancellations", f"{gone} was canceled by {first}, and once more by {second}"
        )
    (again,) = log.append([gone], now=now)
    if again.outcome is not Outcome.DUPLICATE:
        raise LawBrokenError(
            "cancellations",
            f"{gone} was canceled, and sent again it is {again.outcome}, not a duplicate",
        )
    if _state(log) != before:
        raise LawBrokenError(
            "cancellations",
            f"canceled and sent again, {gone} changed the log from {before} to {_state(log)}",
        )


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
    closed = [(item, period) for item, period in requests if _close(log, item, period, later)]
    before = summarize_all(closed, log)
    for one in (log, open_log):
        one.append(late, now=later)
    if summarize_all(closed, log) != before:
        raise LawBrokenError(
            "unbilled",
            f"{late} changed what was billed from {before} to {summarize_all(closed, log)}",
        )
    deltas = {
        (one.subscription_item, one.period): one.quantity
        for each in log.subscriptions
        for one in log.unbilled(each.id)
    }
    for billed, measured, (item, period) in zip(
        before, summarize_all(closed, open_log), closed, strict=True
    ):
        due = Fraction(measured.total_usage) - Fraction(billed.billable_usage)
        if deltas.get((item.id, period), 0) != due:
            found = deltas.get((item.id, period), 0)
            raise LawBrokenError(
                "unbilled",
                f"of {item.id} in {period} {found} is unbilled, not {due} as {measured} says",
            )


def _close(log: MeterLog, item: SubscriptionItem, period: BillingPeriod, later: int) -> bool:
    subscription = next(one for one in log.subscriptions if item in one.items)
    if subscription.period_at(period.start) != period:
        return False
    log.close_period(subscription.id, period, now=later)
    return True


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
    charged: dict[tuple[str, BillingPeriod], int] = {}
    due: dict[tuple[str, BillingPeriod], int] = {}
    for now, events, canceled in batches:
        for one in (log, open_log):
            _receive(one, now, events, canceled)
        for subscription in (one for one in log.subscriptions if one.id in alive):
            _charge(log, subscription, _ended(subscription, batches, now), charged, rounding)
    for subscription in (one for one in log.subscriptions if one.id in alive):
        _charge(
            log,
            subscription,
            _ended(subscription, batches, alive[subscription.id].end_seconds),
            charged,
            rounding,
        )
        for period in _ended(subscription, batches, alive[subscription.id].end_seconds):
            _add(preview_invoice(subscription, open_log, now=period.start, rounding=rounding), due)
    for key in due.keys() | charged.keys():
        if charged.get(key, 0) != due.get(key, 0):
            found = f"{charged.get(key, 0)} minor units, not {due.get(key, 0)}"
            raise LawBrokenError(
                "carrying",
                f"all invoices together charge {key[0]} for {key[1]} {found}, as one bill would",
            )


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
    charged: dict[tuple[str, BillingPeriod], int],
    rounding: Rounding,
) -> None:
    """Finalize the periods that are open, and add up what each invoice charges for which."""
    for period in periods:
        if log.stored_invoice(subscription.id, period) is None:
            _add(
                finalize_invoice(subscription, log, period, now=period.end, rounding=rounding),
                charged,
            )


def _add(invoice: Invoice, charged: dict[tuple[str, BillingPeriod], int]) -> None:
    for line in invoice.lines:
        key = line.subscription_item, line.period
        charged[key] = charged.get(key, 0) + line.amount


# State --------------------------------------------------------------------------------------------


def check_meter_snapshot_laws(
    log: MeterLog, more: Sequence[MeterEvent] = (), now: int | None = None
) -> None:
    """Check that a log survives being stored as JSON text with its whole past, and goes on as it
    would have.

    Args:
        log: any log; ``more`` is appended to it, and what has ended is closed.
        more: what both logs receive afterwards, such as retries of what the log holds already.
        now: when they receive it, when all that has an identifier is canceled, and when periods are
            closed; needed with ``more``.
    """
    text = json.dumps(snapshot(log))
    restored = restore_meter_log(json.loads(text))
    _compare_restored(log, restored)
    if json.dumps(snapshot(restored)) != text:
        raise LawBrokenError(
            "snapshots", f"the text {text} comes back as {json.dumps(snapshot(restored))}"
        )
    if now is None:
        return
    for event, said, heard in zip(
        more, restored.append(more, now=now), log.append(more, now=now), strict=True
    ):
        if said != heard:
            raise LawBrokenError(
                "snapshots",
                f"{event}, sent afterwards, hears {said} of the restored log, not {heard}",
            )
    for event_name, identifier in {
        (one.event.event_name, one.event.identifier or "-") for one in log.events()
    }:
        found, due = (_canceled(one, event_name, identifier, now) for one in (restored, log))
        if found != due:
            raise LawBrokenError(
                "snapshots",
                f"{identifier}, canceled afterwards, is {found} in the restored log, not {due}",
            )
    for item, period in used_periods(log):
        for one in (log, restored):
            if period.end_seconds <= now:
                _close(one, item, period, now)
    _compare_restored(log, restored)


def _canceled(
    log: MeterLog, event_name: str, identifier: str, now: int
) -> MeterEventAdjustment | ErrorCode:
    try:
        return log.cancel(event_name, identifier, now=now)
    except UsageRejectedError as refused:
        return refused.code


def _compare_restored(log: MeterLog, restored: MeterLog) -> None:
    """Check that a restored log equals the original, says the same, and shows the same past by
    number and by moment.
    """
    if restored != log:
        raise LawBrokenError(
            "snapshots", f"a log of {log.state()} comes back as one of {restored.state()}"
        )
    requests = used_periods(log)
    moments = {
        one
        for logged in log.events()
        for one in (logged.received_at, logged.canceled_at)
        if one is not None
    }
    limits: list[int | datetime] = [*range(log.sequence + 1), *sorted(moments)]
    pairs: list[tuple[MeterReader, MeterReader]] = [
        (log.as_of(limit), restored.as_of(limit)) for limit in limits
    ]
    for original, copy in [(log, restored), *pairs]:
        found, due = (_told_by(log, one, requests) for one in (copy, original))
        if found != due:
            raise LawBrokenError(
                "snapshots", f"{original} says {due} and comes back saying {found}"
            )


def _told_by(
    log: MeterLog, usage: MeterReader, requests: Sequence[tuple[SubscriptionItem, BillingPeriod]]
) -> tuple[Any, ...]:
    customers = [usage.customers(meter.id) for meter in log.meters]
    unbilled = [usage.unbilled(subscription.id) for subscription in log.subscriptions]
    carried = [usage.carried(*request) for request in requests]
    return usage.events(), customers, unbilled, usage.partials(requests), carried
