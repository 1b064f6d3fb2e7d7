"""Sums as OpenTelemetry reports them: cumulative points in, deltas out, and from deltas meter
events.

A cumulative point says how much there has been since its ``start_time``; a delta says how much came
since the point before, which is what a meter adds up. The rules are those of OpenTelemetry's
metrics data model (https://opentelemetry.io/docs/specs/otel/metrics/data-model/, "Temporality",
"Resets and Gaps" and "Overlap").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Self, cast

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, describe
from metering_core.exact import (
    DIGITS_MAX,
    Number,
    exact_decimal,
    plain,
    subtract,
    whole_if_possible,
)
from metering_core.meter_events import MeterEvent
from metering_core.meters import Formula, Meter
from metering_core.names import (
    each_of,
    flag,
    known_keys,
    name,
    require_iterable,
    require_kind,
    required,
    text_of,
)
from metering_core.periods import instant, parse_instant

Attributes = tuple[tuple[str, str], ...]
"""The attributes of a point, sorted by key: which series of its sum it belongs to."""

_ADDING: Final = (Formula.SUM, Formula.WEIGHTED_SUM)
_POINT_KEYS: Final = frozenset({"time", "value", "start_time", "attributes"})


def _time(value: object) -> datetime:
    return instant(value, "time")


def _start_time(value: object) -> datetime | None:
    return None if value is None else instant(value, "start_time")


def _value(value: object) -> Number:
    return whole_if_possible(exact_decimal(value, "value", places=DIGITS_MAX, minimum=None))


def _attributes(value: object) -> Attributes:
    """Return the pairs of a map of strings to strings, sorted; pairs that were sorted before are
    taken again.
    """
    try:
        given: dict[Any, Any] = dict(require_iterable(cast("Any", value), "attributes"))
    except (TypeError, ValueError):
        expected = "a map of strings to strings"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "attributes", expected, value
        ) from None
    return tuple(sorted(_pair(key, text) for key, text in given.items()))


def _pair(key: object, value: object) -> tuple[str, str]:
    attribute, text = text_of(key), text_of(value)
    if attribute is None or text is None:
        param = f"attributes[{describe(key) if attribute is None else attribute}]"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, "a string by a string", value
        )
    return attribute, text


@attrs.frozen
class CumulativePoint:
    """What a sum had come to at a moment, since a start.

    Attributes:
        time: when the value was measured (OpenTelemetry's ``time_unix_nano``), given as an aware
            datetime or Unix seconds; UTC.
        value: how much there had been from ``start_time`` (exclusive) to ``time`` (inclusive): int,
            Decimal, a Fraction that a decimal can write, or a plain decimal string, as
            OpenTelemetry's JSON has ``asInt``; at most 100 digits on either side of the point.
        start_time: since when the value counts (``start_time_unix_nano``), at or before ``time``.
            Equal to ``time``, or None: not known since when.
        attributes: strings by string, kept as sorted pairs. They tell the series of a sum apart, so
            those of the resource that wrote the point (``service.instance.id``) belong here too:
            one series has one writer.

    >>> CumulativePoint(60, "2.50", start_time=0, attributes={"model": "large"}).value
    Decimal('2.5')

    Raises:
        InvalidValueError: ``param`` names the field; floats are refused, because they have already
            lost what they meant.
    """

    time: datetime = attrs.field(converter=_time)
    value: Number = attrs.field(converter=_value)
    start_time: datetime | None = attrs.field(default=None, converter=_start_time, kw_only=True)
    attributes: Attributes = attrs.field(factory=dict, converter=_attributes, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse a point that ends before it starts."""
        if self.start_time is not None and self.start_time > self.time:
            expected = f"a moment at or before time, {self.time.isoformat()}"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "start_time",
                expected,
                self.start_time.isoformat(),
            )

    @property
    def starts_known(self) -> bool:
        """Whether it is known since when the value counts, so that it counts from zero."""
        return self.start_time is not None and self.start_time < self.time

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        known_keys(data, _POINT_KEYS)
        start_time, attributes = data.get("start_time"), data.get("attributes")
        return cls(
            _written(required(data, "time"), "time"),
            required(data, "value"),
            start_time=None if start_time is None else _written(start_time, "start_time"),
            attributes={} if attributes is None else attributes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the point, ready for JSON: times as ISO 8601, the value as decimal text."""
        return {
            "time": self.time.isoformat(),
            "value": plain(self.value),
            "start_time": None if self.start_time is None else self.start_time.isoformat(),
            "attributes": dict(self.attributes),
        }


def _written(value: Any, param: str) -> datetime:
    """Return a moment that was written as text, or given as any other argument is."""
    return instant(value, param) if text_of(value) is None else parse_instant(value, param)


def _metric(value: object) -> str:
    return name(value, "metric")


def _last(values: object) -> tuple[CumulativePoint, ...]:
    """Return one point a series, in the order of the series."""
    points = sorted(each_of(CumulativePoint, values, "last"), key=lambda point: point.attributes)
    if len({point.attributes for point in points}) < len(points):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "last", "one point a series", points
        )
    return tuple(points)


def _monotonic(value: bool) -> bool:  # noqa: FBT001 - it is the value that is checked
    return flag(value, "monotonic")


@attrs.frozen
class CumulativeSum:
    """A cumulative sum as far as it was read: what is carried from one run of
    :func:`cumulative_to_delta` to the next.

    Attributes:
        metric: the metric's name, 1 to 255 characters.
        monotonic: whether the sum only grows (OpenTelemetry's ``is_monotonic``): a Counter does, an
            UpDownCounter does not.
        last: the latest point of each series. A point given here counts as billed already: what
            comes after it is counted against it.

    >>> tokens = CumulativeSum("tokens")
    >>> CumulativeSum.from_dict(tokens.to_dict()) == tokens
    True

    Raises:
        InvalidValueError: ``param`` names the field.
    """

    metric: str = attrs.field(converter=_metric)
    monotonic: bool = attrs.field(default=True, converter=_monotonic, kw_only=True)
    last: tuple[CumulativePoint, ...] = attrs.field(default=(), converter=_last, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse last points that a monotonic sum cannot have."""
        for at, point in enumerate(self.last):
            self.require_possible(point, f"last[{at}]")

    def require_possible(self, point: CumulativePoint, param: str) -> None:
        """Refuse a negative value of a monotonic sum, which began at zero and only grows."""
        require_kind(CumulativePoint, point, param)
        if self.monotonic and point.value < 0:
            expected = "a value of at least 0, since the sum is monotonic"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_DECIMAL, f"{param}[value]", expected, point.value
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        known_keys(data, {"metric", "monotonic", "last"})
        last = [
            CumulativePoint.from_dict(point)
            for point in require_iterable(required(data, "last"), "last")
        ]
        return cls(required(data, "metric"), monotonic=required(data, "monotonic"), last=last)

    def to_dict(self) -> dict[str, Any]:
        """Write the state, ready for JSON."""
        return {
            "metric": self.metric,
            "monotonic": self.monotonic,
            "last": [point.to_dict() for point in self.last],
        }


@attrs.frozen
class Delta(Storable):
    """How much came within a window of time.

    Attributes:
        metric: the metric's name.
        start_time: where the window begins (exclusive), UTC.
        time: where it ends (inclusive), UTC.
        value: how much came; negative only where the sum is not monotonic.
        attributes: the series, as sorted pairs.
    """

    metric: str
    start_time: datetime
    time: datetime
    value: Number
    attributes: Attributes = ()


@attrs.frozen
class DeltaRun(Storable):
    """What one run of :func:`cumulative_to_delta` made.

    Attributes:
        deltas: in the order of their points.
        overlapping: points that were not counted, because they speak of time that was counted
            otherwise: a second writer, or a point that came after a reset it was measured before.
            Worth an alert, since usage may be missing.
        state: what the next run goes on from.
    """

    deltas: tuple[Delta, ...]
    overlapping: tuple[CumulativePoint, ...]
    state: CumulativeSum


def cumulative_to_delta(state: CumulativeSum, points: Iterable[CumulativePoint]) -> DeltaRun:
    """Turn the cumulative points of a sum into deltas, series by series, going on from where the
    run before ended.

    Reading points in two runs gives the deltas and the state of reading them in one. In short, of
    each point:

    * The first of a series counts from zero if it says since when: its value is the delta. Where
      that is unknown (no ``start_time``, or one equal to ``time``) it makes no delta, and later
      points are counted against it.
    * A later one with the same ``start_time``, or none, counts what it has more than the point
      before; points that are missing between the two lose nothing.
    * A reset begins at zero again: ``start_time`` has moved on, or the value of a monotonic sum has
      fallen. The point's value is the delta. Where ``start_time`` has moved on to ``time`` itself,
      the point makes no delta, as a first one.
    * A point that repeats the latest one, or came late from the same sequence, is passed over: what
      it says is counted.
    * Any other point at or before the latest one, or whose ``start_time`` has moved back, is
      overlapping: it is not counted, and returned as such.

    >>> read = [(60, 10, 0), (120, 25, 0), (180, 4, 150)]
    >>> points = [CumulativePoint(time, value, start_time=start) for time, value, start in read]
    >>> run = cumulative_to_delta(CumulativeSum("tokens"), points)
    >>> [delta.value for delta in run.deltas]
    [10, 15, 4]

    Raises:
        InvalidValueError: for what is no :class:`CumulativePoint`, and a negative value of a
            monotonic sum; ``param`` has the place (``points[3][value]``).
    """
    require_kind(CumulativeSum, state, "state")
    latest = {point.attributes: point for point in state.last}
    deltas: list[Delta] = []
    overlapping: list[CumulativePoint] = []
    for at, point in enumerate(require_iterable(points, "points")):
        state.require_possible(point, f"points[{at}]")
        last = latest.get(point.attributes)
        if last is not None and _is_behind(last, point):
            if not _is_counted(state, last, point):
                overlapping.append(point)
            continue
        deltas += _deltas(state, last, point)
        latest[point.attributes] = point
    return DeltaRun(tuple(deltas), tuple(overlapping), attrs.evolve(state, last=latest.values()))


def _is_behind(last: CumulativePoint, point: CumulativePoint) -> bool:
    moved_back = (
        last.start_time is not None
        and point.start_time is not None
        and point.start_time < last.start_time
    )
    return moved_back or point.time <= last.time


def _is_counted(state: CumulativeSum, last: CumulativePoint, point: CumulativePoint) -> bool:
    """Whether the latest point includes what a point at or before it says."""
    if point.start_time != last.start_time:
        return False
    if point.time == last.time:
        return point.value == last.value
    return not state.monotonic or point.value <= last.value


def _deltas(
    state: CumulativeSum, last: CumulativePoint | None, point: CumulativePoint
) -> list[Delta]:
    """Return the delta of a point after the latest one, or none where it only says from where to
    count.
    """
    if last is None or _is_restarted(last, point):
        if point.start_time is None or not point.starts_known:
            return []
        # A new writer's clock may be behind that of the one before: windows do not overlap.
        start_time = point.start_time if last is None else max(point.start_time, last.time)
        return [Delta(state.metric, start_time, point.time, point.value, point.attributes)]
    fell = state.monotonic and point.value < last.value
    value = point.value if fell else subtract(point.value, last.value)
    return [Delta(state.metric, last.time, point.time, value, point.attributes)]


def _is_restarted(last: CumulativePoint, point: CumulativePoint) -> bool:
    if point.start_time is None:
        return False
    if last.start_time is None:
        return point.start_time >= last.time
    return point.start_time > last.start_time


def meter_event_from_delta(delta: Delta, meter: Meter, customer: str) -> MeterEvent:
    """Return the meter event that reports a delta: its value, at the end of its window.

    Attributes that the meter declares as dimensions go into the payload, the others do not. The
    identifier is ``sha256:`` and 64 hexadecimal digits, made of the metric, all attributes, the
    customer and ``time``: a delta that is computed and sent again is a duplicate, and one that was
    computed otherwise is refused. So two writers whose attributes are the same would be taken for
    one.

    >>> tokens = Meter("mtr_tokens", "tokens", dimension_payload_keys=["model"])
    >>> first = CumulativePoint(60, 10, start_time=0, attributes={"model": "large", "pod": "a"})
    >>> run = cumulative_to_delta(CumulativeSum("llm.tokens"), [first])
    >>> event = meter_event_from_delta(run.deltas[0], tokens, "cus_1")
    >>> event.timestamp, dict(event.payload)
    (60, {'model': 'large', 'stripe_customer_id': 'cus_1', 'value': '10'})

    Raises:
        InvalidValueError: where deltas do not add up to what the meter measures: its formula is
            neither ``sum`` nor ``weighted_sum`` (whose events are changes of a level), or in a time
            window only one event counts.
    """
    require_kind(Delta, delta, "delta")
    require_kind(Meter, meter, "meter")
    customer = name(customer, "customer")
    if meter.formula not in _ADDING:
        expected = "a meter that adds: formula 'sum' or 'weighted_sum'"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, "meter", expected, meter.formula.value
        )
    if meter.event_time_window is not None:
        expected = "a meter on which every event counts: no event_time_window"
        window = meter.event_time_window.value
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, "meter", expected, window
        )
    payload = {key: text for key, text in delta.attributes if key in meter.dimension_payload_keys}
    payload |= {meter.customer_payload_key: customer, meter.value_payload_key: plain(delta.value)}
    identifier = _identifier(delta, customer)
    return MeterEvent(meter.event_name, payload, identifier=identifier, timestamp=delta.time)


def _identifier(delta: Delta, customer: str) -> str:
    told_apart = [delta.metric, delta.attributes, customer, delta.time.isoformat()]
    return f"sha256:{hashlib.sha256(json.dumps(told_apart).encode()).hexdigest()}"
