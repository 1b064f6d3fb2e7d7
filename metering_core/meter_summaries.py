"""Meter event summaries: what a customer's events of a meter come to in a range of time, whole or
bucket by bucket.

:func:`event_summaries` returns every bucket in the order of time, as a chart wants them;
:func:`list_event_summaries` returns pages of those that are not empty, newest first, as Stripe's
API lists them. Both are derived from the same partials as bills.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from itertools import chain, count, islice, pairwise, takewhile
from types import MappingProxyType
from typing import Any, Final

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, describe
from metering_core.exact import Number, add, exact_integer
from metering_core.measures import FORMULAS, formula_of
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_views import MeterReader
from metering_core.meters import Meter
from metering_core.names import (
    choice,
    each_of,
    name,
    require_iterable,
    require_kind,
    require_object,
    text_of,
)
from metering_core.periods import (
    MICROSECONDS,
    BillingCycle,
    Instant,
    from_unix_seconds,
    iso_8601,
    moment,
    unix_seconds,
    zone_named,
)
from metering_core.readings import window_of
from metering_core.timelines import Timeline

__all__ = ["MeterEventSummary", "ValueGroupingWindow", "event_summaries", "total_of"]

_HOUR: Final = 3600
# A Monday and the first of a month, at whose midnight no time zone moved its clocks: a boundary of
# days, weeks and months.
_ANCHOR: Final = datetime(2001, 1, 1)  # noqa: DTZ001 - the zone is that of the question
_ID_PREFIX: Final = "mtrusg_"

BUCKETS_MAX: Final = 100_000
"""Buckets that one answer has where all of them are made: hours of eleven years, days of 273."""

DimensionFilters = Mapping[str, str | Iterable[str]]
"""By dimension key, the value or the values that count; all keys must agree."""


class ValueGroupingWindow(StrEnum):
    """The calendar unit of a range's cuts, on the clock of a zone; weeks begin on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def _read_only(dimensions: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(require_object(dimensions, "dimensions")))


@attrs.frozen
class MeterEventSummary(Storable):
    """What a customer's events of a meter come to in ``[start_time, end_time)``; written in the
    shape of Stripe's summary, with ``customer`` and ``events``, which are ours.

    Attributes:
        meter: the meter's id.
        customer: the customer's id.
        start_time: the first moment of the bucket, UTC.
        end_time: the first moment after it.
        aggregated_value: what the meter's formula makes of the events, exactly; 0 without any, and
            it may be negative.
        dimensions: the values that the events share, by key, where they were grouped by keys; empty
            otherwise. Read-only.
        events: how many events of the bucket count; tells an empty bucket from one whose value is
            0.
    """

    computed = ("id",)
    stripe_object = "billing.meter_event_summary"

    meter: str
    customer: str
    start_time: datetime
    end_time: datetime
    aggregated_value: Number
    dimensions: Mapping[str, str] = attrs.field(factory=dict, converter=_read_only, hash=False)
    events: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by content; a read-only map cannot be pickled as it is."""
        times = (self.start_time, self.end_time)
        return MeterEventSummary, (
            self.meter,
            self.customer,
            *times,
            self.aggregated_value,
            dict(self.dimensions),
            self.events,
        )

    @property
    def id(self) -> str:
        """The same for the same bucket, whatever is in it; what lists are paged by."""
        times = [unix_seconds(self.start_time), unix_seconds(self.end_time)]
        bucket = json.dumps(
            [self.meter, self.customer, *times, dict(self.dimensions)], separators=(",", ":")
        )
        return _ID_PREFIX + urlsafe_b64encode(bucket.encode()).decode().rstrip("=")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell, as no event counts and no level is carried."""
        return not self.events and not self.aggregated_value


@attrs.frozen
class MeterEventSummaryPage(Storable):
    """One page of a list of summaries, newest first.

    Attributes:
        data: the summaries of the page.
        has_more: whether the list goes on in the direction of reading.
        url: the path that Stripe's API has for the list.
    """

    stripe_object = "list"

    data: tuple[MeterEventSummary, ...]
    has_more: bool
    url: str


def event_summaries(
    usage: MeterReader,
    meter_id: str,
    customer: str,
    start_time: Instant,
    end_time: Instant,
    *,
    value_grouping_window: str | None = None,
    timezone: str = "UTC",
    dimension_filters: DimensionFilters | None = None,
    dimension_group_by_keys: Iterable[str] = (),
) -> list[MeterEventSummary]:
    """Return a summary of every bucket from ``start_time`` (inclusive) to ``end_time`` (exclusive),
    in the order of time.

    Empty buckets are there, with the value 0; the first and the last are cut where the range is. An
    hour is an hour that passes: where clocks are put back by one, the hour that repeats is two;
    where they are moved by less than one (Lord Howe Island), it is cut there. A day is as long as
    the zone's calendar makes it, 23 and 25 hours included. Of an event time window that the range
    cuts, all belongs to the side that holds the moment of the event that counts.

    Args:
        usage: the meter log or a view of it.
        meter_id: what to summarize.
        customer: whose events; one without any has zeros.
        start_time: an aware datetime or Unix seconds, whole; under the policy ``aligned_summaries``
            a whole minute, and a whole hour or UTC day where it is grouped by them.
        end_time: as ``start_time``, and later.
        value_grouping_window: ``hour``, ``day``, ``week`` or ``month``; without one the range is a
            single bucket. It cuts the range into at most 100,000 buckets.
        timezone: the IANA zone of the calendar.
        dimension_filters: the value or the values that count, by dimension key; all keys must
            agree.
        dimension_group_by_keys: dimension keys; a summary for each set of their values that occurs
            in the range (or before it, where the formula looks back), in the order of the values,
            in every bucket.

    Raises:
        InvalidValueError: ``param`` names the argument.
    """
    options = (value_grouping_window, timezone, dimension_filters, dimension_group_by_keys)
    with _reader(usage).lock:
        query = _asked(usage, meter_id, customer, start_time, end_time, *options)
        return [
            query.summary(bucket, values)
            for bucket in pairwise(query.buckets.bounds())
            for values in query.timelines
        ]


def list_event_summaries(
    usage: MeterReader,
    meter_id: str,
    customer: str,
    start_time: Instant,
    end_time: Instant,
    *,
    value_grouping_window: str | None = None,
    timezone: str = "UTC",
    dimension_filters: DimensionFilters | None = None,
    dimension_group_by_keys: Iterable[str] = (),
    limit: int = 10,
    starting_after: str | None = None,
    ending_before: str | None = None,
) -> MeterEventSummaryPage:
    """Return a page of the summaries that are not empty, newest first, as Stripe lists them.

    Of one bucket they come in the order of the dimension values. A page costs what it shows,
    however long the range, which may be cut into any number of buckets. Further arguments and
    refusals as :func:`event_summaries`.

    Args:
        usage: the meter log or a view of it.
        meter_id: what to summarize.
        customer: whose events.
        start_time: inclusive.
        end_time: exclusive.
        value_grouping_window: ``hour``, ``day``, ``week`` or ``month``.
        timezone: the IANA zone of the calendar.
        dimension_filters: the values that count, by dimension key.
        dimension_group_by_keys: dimension keys.
        limit: summaries of a page, 1 to 100.
        starting_after: the id of a summary; the page begins with the next one in the list. It need
            not be there any more.
        ending_before: the id of a summary; the page ends with the one before it in the list.

    Raises:
        InvalidValueError: ``param`` names the argument; ``parameters_exclusive`` for both cursors.
    """
    size = exact_integer(limit, "limit", minimum=1, maximum=100)
    if starting_after is not None and ending_before is not None:
        message = "ending_before: expected one cursor, received starting_after, too"
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="ending_before")
    options = (value_grouping_window, timezone, dimension_filters, dimension_group_by_keys)
    with _reader(usage).lock:
        query = _asked(usage, meter_id, customer, start_time, end_time, *options)
        if ending_before is not None:
            cursor = query.rank_of(ending_before, "ending_before")
            summaries = query.found(-cursor[0], lambda rank: rank < cursor, newest_first=False)
        elif starting_after is not None:
            cursor = query.rank_of(starting_after, "starting_after")
            summaries = query.found(-cursor[0], lambda rank: rank > cursor)
        else:
            summaries = query.found(query.buckets.end)
        found = list(islice(summaries, size + 1))
    page = found[:size] if ending_before is None else found[:size][::-1]
    return MeterEventSummaryPage(
        tuple(page), len(found) > size, f"/v1/billing/meters/{query.meter.id}/event_summaries"
    )


def total_of(meter: Meter, summaries: Iterable[MeterEventSummary]) -> Number:
    """Return what summaries of one meter add up to: over any split of time, customers or
    dimensions, the value of the whole.

    Raises:
        InvoicingError: ``formula_not_additive`` unless the formula is ``sum`` or ``count``: ask for
            the whole range instead.
        InvalidValueError: ``parameter_invalid_object`` for the summary of another meter.
    """
    require_kind(Meter, meter, "meter")
    if not formula_of(meter).is_additive:
        additive = " or ".join(
            repr(formula.value) for formula, row in FORMULAS.items() if row.is_additive
        )
        message = (
            f"formula: expected {additive}, whose values add up over a split, received "
            f"{meter.formula.value!r}"
        )
        raise InvoicingError(ErrorCode.FORMULA_NOT_ADDITIVE, message, param="formula")
    total: Number = 0
    for position, summary in enumerate(each_of(MeterEventSummary, summaries, "summaries")):
        if summary.meter != meter.id:
            code, expected = (
                ErrorCode.PARAMETER_INVALID_OBJECT,
                f"a summary of the meter {meter.id!r}",
            )
            raise InvalidValueError.expecting(
                code, f"summaries[{position}]", expected, summary.meter
            )
        total = add(total, summary.aggregated_value)
    return total


# What was asked -----------------------------------------------------------------------------------

_Rank = tuple[int, tuple[str, ...]]
"""What Stripe sorts summaries by: the start, latest first, and the keys' values."""


@attrs.frozen
class _Query:
    """A checked question: the buckets of its range, and timelines by the keys' values."""

    meter: Meter
    customer: str
    buckets: Buckets
    keys: tuple[str, ...]
    timelines: dict[tuple[str, ...], list[Timeline]]
    """In the order of the values."""

    def found(
        self,
        moment: int,
        wanted: Callable[[_Rank], bool] = lambda _: True,
        *,
        newest_first: bool = True,
    ) -> Iterator[MeterEventSummary]:
        """Yield summaries that are not empty, from the bucket that holds a moment on, in Stripe's
        order or against it.

        Where a bucket has none, neither has one before the next reading: no event is in it, and no
        level was carried to it.
        """
        asked, order = (
            self.buckets,
            (list(self.timelines) if newest_first else list(self.timelines)[::-1]),
        )
        bucket: Bucket | None = asked.holding(min(max(moment, asked.start), asked.end - 1))
        while bucket is not None:
            is_empty = True
            for values in order:
                if not wanted((-bucket[0], values)):
                    is_empty = False  # Or it may be: that was not looked at.
                elif not (summary := self.summary(bucket, values)).is_empty:
                    is_empty = False
                    yield summary
            beside = (
                self._reading_beside(bucket, before=newest_first)
                if is_empty
                else bucket[0] - 1
                if newest_first
                else bucket[1]
            )
            bucket = (
                None
                if beside is None or not asked.start <= beside < asked.end
                else asked.holding(beside)
            )

    def _reading_beside(self, bucket: Bucket, *, before: bool) -> int | None:
        """Return the moment of the nearest reading before a bucket or after it, in Unix seconds."""
        asked = self.buckets
        start, end = (asked.start, bucket[0]) if before else (bucket[1], asked.end)
        timelines = chain.from_iterable(self.timelines.values())
        spans = [
            span
            for one in timelines
            if (span := one.span(start * MICROSECONDS, end * MICROSECONDS))
        ]
        if not spans:
            return None
        return (
            max(last for _, last in spans) if before else min(first for first, _ in spans)
        ) // MICROSECONDS

    def summary(self, bucket: Bucket, values: tuple[str, ...]) -> MeterEventSummary:
        """Return one summary."""
        start, end = bucket
        aggregator = formula_of(self.meter)
        partial, events = window_of(
            aggregator, self.timelines[values], start * MICROSECONDS, end * MICROSECONDS
        )
        return MeterEventSummary(
            self.meter.id,
            self.customer,
            from_unix_seconds(start),
            from_unix_seconds(end),
            aggregator.present(partial),
            dict(zip(self.keys, values, strict=True)),
            events,
        )

    def rank_of(self, cursor: object, param: str) -> _Rank:
        """Return the rank that the summary with an id has or had in this list."""
        match _bucket_of(cursor):
            case [self.meter.id, self.customer, int(start), int(), dict(dimensions)] if (
                tuple(dimensions) == self.keys
            ):
                return -start, tuple(map(str, dimensions.values()))
        code, expected = (
            ErrorCode.PARAMETER_INVALID_CHOICE,
            "the id of a summary of the same meter, customer and keys",
        )
        raise InvalidValueError.expecting(code, param, expected, cursor)


def _bucket_of(cursor: object) -> Any:
    """Return what an id says; None where it says nothing."""
    if not isinstance(cursor, str) or not cursor.startswith(_ID_PREFIX):
        return None
    try:
        return json.loads(urlsafe_b64decode(cursor.removeprefix(_ID_PREFIX) + "=="))
    except (ValueError, RecursionError):
        return None


def _reader(usage: MeterReader) -> MeterReader:
    return require_kind(MeterReader, usage, "usage", "a MeterLog, a view of one, or ColumnarEvents")


def _asked(
    usage: MeterReader,
    meter_id: str,
    customer: str,
    start_time: Instant,
    end_time: Instant,
    value_grouping_window: str | None,
    timezone: str,
    filters: DimensionFilters | None,
    group_by: Iterable[str],
) -> _Query:
    meter = usage.meter(meter_id)
    customer = name(customer, "customer")
    buckets = buckets_of(usage.policy, start_time, end_time, value_grouping_window, timezone)
    allowed, keys = filters_of(meter, filters), keys_of(meter, group_by)
    if keys or allowed:
        selected = _selected(meter, usage.timelines(meter.id, customer), allowed, keys)
    else:
        selected = {(): usage.whole(meter.id, customer)}
    if keys:
        since = None if formula_of(meter).looks_back else buckets.start * MICROSECONDS
        selected = {
            values: timelines
            for values, timelines in selected.items()
            if any(one.count(since, buckets.end * MICROSECONDS) for one in timelines)
        }
    return _Query(meter, customer, buckets, keys, dict(sorted(selected.items())))


def _selected(
    meter: Meter,
    timelines: Iterable[tuple[tuple[str, ...], Timeline]],
    allowed: Mapping[str, frozenset[str]],
    keys: tuple[str, ...],
) -> dict[tuple[str, ...], list[Timeline]]:
    """Return the timelines that the filters let through, by the values of the keys."""
    selected: dict[tuple[str, ...], list[Timeline]] = {} if keys else {(): []}
    for dimensions, timeline in timelines:
        values = dict(zip(meter.dimension_payload_keys, dimensions, strict=True))
        if all(values[key] in some for key, some in allowed.items()):
            selected.setdefault(tuple(values[key] for key in keys), []).append(timeline)
    return selected


# Buckets ------------------------------------------------------------------------------------------

Bucket = tuple[int, int]
"""The first second of a bucket, and the first after it."""


@attrs.frozen
class Buckets:
    """A range of time that is cut into buckets, none of which is made before it is asked for.

    Attributes:
        start: where the range begins, Unix seconds.
        end: the first second after it.
        window: what cuts it; None for nothing.
        zone: on whose clock.
    """

    start: int
    end: int
    window: ValueGroupingWindow | None
    zone: tzinfo
    _cycle: BillingCycle | None = attrs.field(init=False, eq=False)

    @_cycle.default
    def _days(self) -> BillingCycle | None:
        if self.window in {None, ValueGroupingWindow.HOUR}:
            return None
        return BillingCycle(
            _ANCHOR.replace(tzinfo=self.zone), str(self.window), timezone=str(self.zone)
        )

    def holding(self, moment: int) -> Bucket:
        """Return the bucket that holds a moment of the range."""
        if self._cycle is not None:
            period = self._cycle.period_at(moment)
            bucket = (period.start_seconds, period.end_seconds)
        else:
            bucket = (self.start, self.end) if self.window is None else _hour_at(moment, self.zone)
        return max(self.start, bucket[0]), min(self.end, bucket[1])

    def bounds(self) -> list[int]:
        """Return where all buckets begin and the last one ends.

        Raises:
            InvalidValueError: for more than :data:`BUCKETS_MAX`.
        """
        bounds = [
            self.start,
            *islice(takewhile(lambda one: one < self.end, self._ends()), BUCKETS_MAX),
            self.end,
        ]
        if len(bounds) - 1 > BUCKETS_MAX:
            code, expected = (
                ErrorCode.PARAMETER_INVALID_OBJECT,
                f"one that cuts the range into at most {BUCKETS_MAX:,} buckets",
            )
            raise InvalidValueError.expecting(
                code, "value_grouping_window", expected, str(self.window)
            )
        return bounds

    def _ends(self) -> Iterator[int]:
        """Yield where each bucket ends, without an end."""
        if self._cycle is not None:
            yield from (period.end_seconds for period in self._cycle.periods_from(self.start))
        if (
            self.window is not None and self.zone is UTC
        ):  # Hours that no clock cuts; there may be very many.
            yield from count(self.start - self.start % _HOUR + _HOUR, _HOUR)
        end = self.start
        while True:
            yield (end := self.holding(end)[1])


_ALIGNMENTS: Final = {
    ValueGroupingWindow.HOUR: (_HOUR, "hour"),
    ValueGroupingWindow.DAY: (24 * _HOUR, "UTC day"),
}


def buckets_of(
    policy: MeterPolicy,
    start_time: Instant,
    end_time: Instant,
    value_grouping_window: str | None,
    timezone: str,
) -> Buckets:
    """Return the buckets of a range; refusals as :func:`event_summaries`."""
    window = value_grouping_window
    if window is not None:
        window = choice(ValueGroupingWindow, window, "value_grouping_window")
    start, end = (
        _bound(value, param, window, is_aligned=policy.aligned_summaries)
        for value, param in ((start_time, "start_time"), (end_time, "end_time"))
    )
    if start >= end:
        expected = f"a moment after {iso_8601(from_unix_seconds(start))}, where the range begins"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "end_time", expected, end_time
        )
    return Buckets(start, end, window, zone_named(timezone))


def _bound(value: Instant, param: str, window: str | None, *, is_aligned: bool) -> int:
    """Return a bound of the range in Unix seconds."""
    seconds, microseconds = moment(value, param)
    unit, words = (1, "second")
    if is_aligned:
        unit, words = (
            (60, "minute")
            if window is None
            else _ALIGNMENTS.get(ValueGroupingWindow(window), (60, "minute"))
        )
    if microseconds % (unit * MICROSECONDS):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INSTANT, param, f"a whole {words}", value
        )
    return seconds


def _hour_at(moment: int, zone: tzinfo) -> Bucket:
    """Return the hour of the zone's clock that holds a moment; a move of the clock cuts it."""
    past_hour = 0 if zone is UTC else _past_hour(moment, zone)
    start = moment - (moment + past_hour) % _HOUR
    if zone is UTC:
        return start, start + _HOUR
    end = start + _HOUR
    if _past_hour(end - 1, zone) != past_hour:
        end = moment + bisect_left(
            range(moment, end), 1, key=lambda one: _past_hour(one, zone) != past_hour
        )
    if start < moment and _past_hour(start, zone) != past_hour:
        start += bisect_left(
            range(start, moment), 1, key=lambda one: _past_hour(one, zone) == past_hour
        )
    return start, end


def _past_hour(seconds: int, zone: tzinfo) -> int:
    """Return by how many seconds the zone's clock differs from UTC's, whole hours left aside."""
    try:
        offset = from_unix_seconds(seconds).astimezone(zone).utcoffset()
    except OverflowError:
        code, expected = (
            ErrorCode.PARAMETER_INVALID_INSTANT,
            "a moment within the years 1 to 9999 of the zone",
        )
        raise InvalidValueError.expecting(code, "start_time", expected, seconds) from None
    assert offset is not None, "a zone has an offset at every moment"
    return offset.seconds % _HOUR


# Dimensions ---------------------------------------------------------------------------------------


def _declared(meter: Meter, key: object, param: str) -> str:
    declared = text_of(key)
    if declared not in meter.dimension_payload_keys:
        expected = (
            f"a dimension of the meter ({', '.join(meter.dimension_payload_keys) or 'it has none'})"
        )
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_CHOICE, param, expected, key)
    return declared or ""


def filters_of(meter: Meter, given: object) -> dict[str, frozenset[str]]:
    """Return the values that count, by dimension key; refusals as :func:`event_summaries`."""
    if given is None:
        return {}
    filters: dict[str, frozenset[str]] = {}
    for key, values in require_object(
        given, "dimension_filters", "values by dimension key"
    ).items():
        param = f"dimension_filters[{describe(key) if text_of(key) is None else key}]"
        filters[_declared(meter, key, param)] = frozenset(_allowed(values, param))
    return filters


def _allowed(values: object, param: str) -> Iterator[str]:
    if isinstance(values, str):
        some: Iterable[object] = (values,)
    else:
        some = require_iterable(values, param)  # type: ignore[arg-type]
    for value in some:
        text = text_of(value)
        if text is None:
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_STRING, param, "a string, or several", value
            )
        yield text


def keys_of(meter: Meter, given: object) -> tuple[str, ...]:
    """Return the dimension keys to group by; refusals as :func:`event_summaries`."""
    code, param = ErrorCode.PARAMETER_INVALID_OBJECT, "dimension_group_by_keys"
    if isinstance(given, str):
        raise InvalidValueError.expecting(code, param, "a list of dimension keys", given)
    listed: Iterable[object] = require_iterable(given, param)  # type: ignore[arg-type]
    keys = tuple(_declared(meter, key, f"{param}[{at}]") for at, key in enumerate(listed))
    if len(set(keys)) < len(keys):
        raise InvalidValueError.expecting(code, param, "each key once", list(keys))
    return keys
