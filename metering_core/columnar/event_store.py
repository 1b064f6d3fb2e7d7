"""What is kept of accepted meter events: columns in the order of arrival, for each meter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import Flags, Integers
from metering_core.columnar.batches import EPOCH, EventBatch, number_of
from metering_core.columnar.event_series import Labels, Series
from metering_core.columnar.grouping import last_of_each
from metering_core.columnar.numbers import Numbers, times
from metering_core.exact import Number
from metering_core.measures import formula_of
from metering_core.meter_events import MeterEvent
from metering_core.meters import Meter
from metering_core.periods import MICROSECONDS


@attrs.frozen(eq=False)
class Part:
    """Accepted events that arrived together. The columns say which of them have what; the batch is
    what they were sent as.

    Attributes:
        batch: what they came in.
        places: which rows of the batch were accepted; None for all.
        first: how many events were accepted before; the number of the first one is one more.
        received: when each was received in Unix microseconds, or when all were.
        codes: which series each is of.
        moments: Unix microseconds.
        units: the values in units of ``10**-decimal_places``, or codes of texts.
        decimal_places: see ``units``.
        low: no moment is earlier.
        high: no moment is later.
        least: no value is less.
        most: no value is greater.
    """

    batch: EventBatch
    places: Integers | None
    first: int
    received: int | Integers
    codes: NDArray[np.int32]
    moments: Integers
    units: Numbers
    decimal_places: int
    low: int
    high: int
    least: int
    most: int

    def __len__(self) -> int:
        return len(self.codes)

    def place_of(self, row: int) -> int:
        """Return which row of the batch an event was; ``row`` counts all accepted events from 0."""
        return row - self.first if self.places is None else int(self.places[row - self.first])

    def received_of(self, row: int) -> int:
        """Return when an event was received, in Unix microseconds."""
        return (
            self.received
            if isinstance(self.received, int)
            else int(self.received[row - self.first])
        )

    def identified(self) -> dict[str, int]:
        """Return which of all accepted events have which identifier."""
        identifiers = self.batch.identifiers
        if identifiers is None:
            return {}
        rows = range(len(self.batch)) if self.places is None else self.places.tolist()
        return {
            one: self.first + at
            for at, row in enumerate(rows)
            if (one := identifiers[row]) is not None
        }

    def event_of(self, row: int, meter: Meter) -> tuple[datetime, MeterEvent]:
        """Return when an event was received, and the event with its timestamp resolved."""
        received = self.received_of(row)
        return EPOCH + timedelta(microseconds=received), self.batch.event_at(
            self.place_of(row), meter, received
        )


@attrs.frozen(eq=False)
class Counting:
    """The events of a meter that count, in the order of arrival.

    Attributes:
        codes: which series each is of.
        moments: Unix microseconds.
        units: the values in units of ``10**-decimal_places``, or codes of texts.
        first: which of all accepted events the first is, from 0, where they follow each other.
        rows: which of all accepted events each is; None where they follow each other.
        decimal_places: see ``units``.
        low: no moment is earlier.
        high: no moment is later.
        least: no value is less.
        most: no value is greater.
    """

    codes: NDArray[np.int32]
    moments: Integers
    units: Numbers
    first: int
    rows: Integers | None
    decimal_places: int
    low: int
    high: int
    least: int
    most: int

    def __len__(self) -> int:
        return len(self.codes)

    def where(self, flags: Flags) -> Self:
        """Return some of the events; the bounds stay true."""
        columns = {name: getattr(self, name)[flags] for name in ("codes", "moments", "units")}
        return attrs.evolve(self, rows=self.rows_at(np.flatnonzero(flags)), **columns)

    def rows_at(self, places: NDArray[np.intp]) -> Integers:
        """Return which of all accepted events some are."""
        found: Integers = places + self.first if self.rows is None else self.rows[places]
        return found


@attrs.frozen(eq=False)
class Index:
    """Events series by series, in each in the order of time and of equal moments in that of
    arrival.

    Attributes:
        order: the places of the events.
        moments: in this order.
        starts: where each series begins, and where the last one ends.
    """

    order: NDArray[np.intp]
    moments: Integers
    starts: NDArray[np.intp]

    def span(self, code: int, start: int | None, end: int) -> tuple[int, int]:
        """Return where a series has the events from ``start`` (None: from the beginning) to before
        ``end``.
        """
        first, after = int(self.starts[code]), int(self.starts[code + 1])
        moments = self.moments[first:after]
        last = first + int(np.searchsorted(moments, end))
        return (
            first if start is None else min(first + int(np.searchsorted(moments, start)), last)
        ), last


class MeterColumns:
    """The accepted events of one meter.

    Attributes:
        ids: identifier → which of all accepted events has it; one mapping for all meters where the
            scope is global.
        parts: the events, in the order of arrival.
        series: the customers and dimension values that occur together, by code.
        texts: the texts that are counted by ``unique_count``, by code.
    """

    def __init__(self, ids: dict[str, int], meter: Meter) -> None:
        self.ids = ids
        self.parts: list[Part] = []
        self.series = Series(len(meter.dimension_payload_keys))
        self.texts: dict[str, int] = {}
        self._counting: Counting | None = None
        self._index: Index | None = None

    def add(self, part: Part) -> None:
        """Take events."""
        self.parts.append(part)
        self._counting = self._index = None

    # Series ---------------------------------------------------------------------------------------

    def series_of(
        self, batch: EventBatch, meter: Meter, places: Integers | None
    ) -> NDArray[np.int32]:
        """Return which series some rows of a batch are of; series that are new are numbered in the
        order of these rows.
        """
        return self.series.take(
            [batch.customers, *(batch.dimensions[key] for key in meter.dimension_payload_keys)],
            places,
        )

    def text_codes(self, names: Iterable[str | None]) -> NDArray[np.int64]:
        """Return which of the counted texts each of some is; None is none of them."""
        return np.array(
            [-1 if one is None else self.texts.setdefault(one, len(self.texts)) for one in names],
            np.int64,
        )

    def groups(
        self, meter: Meter, allowed: Mapping[str, frozenset[str]], keys: Sequence[str]
    ) -> tuple[NDArray[np.int32] | None, Labels]:
        """Return which group each series is in, and the label of each group; see
        :meth:`Series.groups`.
        """
        places = {key: at for at, key in enumerate(meter.dimension_payload_keys, 1)}
        return self.series.groups(
            {places[key]: some for key, some in allowed.items()}, [places[key] for key in keys]
        )

    # Columns --------------------------------------------------------------------------------------

    def counting(self, meter: Meter) -> Counting:
        """Return the events that count: all, or with an event time window the one received last in
        each.
        """
        if self._counting is None:
            self._counting = _gathered(self.parts, meter)
        return self._counting

    def index(self, meter: Meter) -> Index:
        """Return the events that count, series by series."""
        if self._index is None:
            events = self.counting(meter)
            order = np.lexsort((events.moments, events.codes))
            starts = np.searchsorted(events.codes[order], np.arange(len(self.series) + 1))
            self._index = Index(order, events.moments[order], starts)
        return self._index

    def values_at(self, meter: Meter, places: NDArray[np.intp]) -> list[Number | str]:
        """Return what the formula works on, of some of the events that count."""
        events = self.counting(meter)
        units = events.units[places].tolist()
        if formula_of(meter).takes == "text":
            texts = list(self.texts)
            return [texts[code] for code in units]
        if formula_of(meter).takes == "nothing":
            return [1] * len(units)
        return [number_of(one, events.decimal_places) for one in units]


def _gathered(parts: Sequence[Part], meter: Meter) -> Counting:
    places = max((part.decimal_places for part in parts), default=0)
    factors = [10 ** (places - part.decimal_places) for part in parts]
    units = _joined(
        [times(part.units, factor) for part, factor in zip(parts, factors, strict=True)]
    )
    least = min(
        (part.least * factor for part, factor in zip(parts, factors, strict=True)), default=0
    )
    most = max((part.most * factor for part, factor in zip(parts, factors, strict=True)), default=0)
    codes, moments = (
        _joined([part.codes for part in parts]),
        _joined([part.moments for part in parts]),
    )
    # Numbers that follow each other are not written down: to do so would cost as much as to add the
    # values up.
    rows = (
        None
        if len(parts) == 1
        else _joined([np.arange(part.first, part.first + len(part)) for part in parts])
    )
    first = parts[0].first if parts else 0
    low, high = (
        min((part.low for part in parts), default=0),
        max((part.high for part in parts), default=0),
    )
    events = Counting(codes, moments, units, first, rows, places, low, high, least, most)
    window = meter.event_time_window
    return (
        events
        if window is None or not len(events)
        else events.where(_received_last(events, window.seconds * MICROSECONDS))
    )


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return columns one after the other; a single one without a copy."""
    if len(columns) == 1:
        return columns[0]
    return np.concatenate(columns) if columns else np.empty(0, np.int64)


def _received_last(events: Counting, window: int) -> Flags:
    """Say which events were received last in their series and window of so many microseconds."""
    windows = events.moments // window
    windows -= windows.min()
    return last_of_each(events.codes.astype(np.int64) * (int(windows.max()) + 1) + windows)
