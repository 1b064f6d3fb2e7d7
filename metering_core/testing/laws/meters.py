"""The laws of meter events that usage records have no like of: the order of arrival, summaries by
time and dimensions, cancellations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from metering_core import (
    ErrorCode,
    Formula,
    InvoicingError,
    Meter,
    MeterEvent,
    MeterEventSummary,
    MeterLog,
    Outcome,
    event_summaries,
)
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meter_summaries import ValueGroupingWindow, list_event_summaries, total_of
from metering_core.meter_views import MeterReader
from metering_core.testing.laws.logs import accepted_of, days, held_events, measured
from metering_core.testing.laws.sentences import LawBrokenError, forbid


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
    found, due = (measured(log, log.meters, days(log)) for log in (second, first))
    forbid(
        "arrival",
        found != due,
        lambda: f"{sent}, arriving in the order {order}, come to {found}, not {due}",
    )


def _meeting(meter: Meter | None, event: MeterEvent, now: int) -> tuple[Any, ...]:
    """Return what events share between which the order of arrival decides."""
    if meter is None:
        return (event.event_name,)
    moment = now * 10**6 if event.microseconds is None else event.microseconds
    window = 1 if meter.event_time_window is None else meter.event_time_window.seconds * 10**6
    return event.event_name, event.payload.get(meter.customer_payload_key), moment // window


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
            forbid(
                "summaries",
                attrs.evolve(filtered, dimensions=group.dimensions) != group,
                lambda: f"{group}, asked for by a filter, is {filtered}",
            )


def _check_buckets(
    usage: MeterReader, whole: MeterEventSummary, buckets: list[MeterEventSummary], how: str
) -> None:
    bounds = [whole.start_time, *(one.end_time for one in buckets)]
    forbid(
        "summaries",
        [one.start_time for one in buckets] != bounds[:-1] or bounds[-1] != whole.end_time,
        lambda: f"the buckets {how} are {buckets}, which do not tile {whole}",
    )
    for bucket in buckets:
        (alone,) = event_summaries(
            usage, whole.meter, whole.customer, bucket.start_time, bucket.end_time
        )
        forbid(
            "summaries",
            alone != bucket,
            lambda: f"{how} it is {bucket}, and asked for alone {alone}",
        )
    _check_added(usage.meter(whole.meter), whole, buckets, how)


def _check_added(
    meter: Meter, whole: MeterEventSummary, parts: Sequence[MeterEventSummary], how: str
) -> None:
    counted = sum(one.events for one in parts)
    forbid(
        "summaries",
        counted != whole.events,
        lambda: f"{how} {counted} events count, and {whole.events} in {whole}",
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
        forbid(
            "summaries",
            added != whole.aggregated_value,
            lambda: f"{how} the values add up to {added}, not to that of {whole}",
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
    forbid("summaries", listed != due, lambda: f"the list for {options} has {listed}, not {due}")


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
    accepted = accepted_of(events, log.append(events, now=now))
    known = [one for one in accepted if one.identifier is not None]
    if not known:
        return
    gone = known[place % len(known)]
    spans, number, view = days(log), log.sequence, log.as_of(log.sequence)
    before = measured(view, log.meters, spans)
    assert gone.identifier is not None, "it was chosen for it"
    first = log.cancel(gone.event_name, gone.identifier, now=now)
    without.append([one for one in accepted if one is not gone], now=now)
    found, due = (_standing(some, spans) for some in (log, without))
    forbid("cancellations", found != due, lambda: f"without {gone} there are {found}, not {due}")
    forbid(
        "cancellations",
        any(measured(some, log.meters, spans) != before for some in (view, log.as_of(number))),
        lambda: f"canceling {gone} changed what was there before it",
    )
    _check_canceled_again(log, gone, first, now)


def _standing(log: MeterLog, spans: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    """Return the events of a log that are not canceled, and what they come to."""
    standing = [one.event for one in log.events() if one.canceled_at is None]
    return standing, measured(log, log.meters, spans)


def _check_canceled_again(
    log: MeterLog, gone: MeterEvent, first: MeterEventAdjustment, now: int
) -> None:
    before = held_events(log)
    second = log.cancel(first.event_name, first.identifier, now=now)
    forbid(
        "cancellations",
        second != first,
        lambda: f"{gone} was canceled by {first}, and once more by {second}",
    )
    (again,) = log.append([gone], now=now)
    forbid(
        "cancellations",
        again.outcome is not Outcome.DUPLICATE,
        lambda: f"{gone} was canceled, and sent again it is {again.outcome}, not a duplicate",
    )
    forbid(
        "cancellations",
        held_events(log) != before,
        lambda: (
            f"canceled and sent again, {gone} changed the log from {before} to {held_events(log)}"
        ),
    )
