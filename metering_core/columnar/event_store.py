"""What is kept of accepted meter events: columns in the order of arrival, for each meter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.event_batches import EPOCH, EventBatch, number_of
from metering_core.columnar.event_groups import Numbers, last_of_each, times
from metering_core.columnar.kernel import Flags, Integers
from metering_core.exact import Number
from metering_core.meter_events import MeterEvent
from metering_core.meters import Formula, Meter
from metering_core.readings import MICROSECONDS

Label = tuple[str, tuple[str, ...]]
"""A customer and the values of some dimensions."""


@attrs.frozen(eq=False)
class Part:
    """Accepted events that arrived together. The columns say which of them have what; the batch is what they were sent as.

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
        return self.received if isinstance(self.received, int) else int(self.received[row - self.first])

    def event_of(self, row: int, meter: Meter) -> tuple[datetime, MeterEvent]:
        """Return when an event was received, and the event with its timestamp resolved."""
        received = self.received_of(row)
        return EPOCH + timedelta(microseconds=received), self.batch.event_at(self.place_of(row), meter, received)


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
    """Events series by series, in each in the order of time and of equal moments in that of arrival.

    Attributes:
        order: the places of the events.
        moments: in this order.
        starts: where each series begins, and where the last one ends.
    """

    order: NDArray[np.intp]
    moments: Integers
    starts: NDArray[np.intp]

    def span(self, code: int, start: int | None, end: int) -> tuple[int, int]:
        """Return where a series has the events from ``start`` (None: from the beginning) to before ``end``."""
        first, after = int(self.starts[code]), int(self.starts[code + 1])
        moments = self.moments[first:after]
        last = first + int(np.searchsorted(moments, end))
        return (first if start is None else min(first + int(np.searchsorted(moments, start)), last)), last


class MeterColumns:
    """The accepted events of one meter.

    Attributes:
        ids: identifier → which of all accepted events has it; one mapping for all meters where the scope is global.
        parts: the events, in the order of arrival.
        labels: the customer and dimension values of each series, by code.
        customers: in the order in which they came.
        owners: which of ``customers`` each series is of.
        texts: the texts that are counted by ``unique_count``, by code.
    """

    def __init__(self, ids: dict[str, int]) -> None:
        self.ids = ids
        self.parts: list[Part] = []
        self.labels: list[Label] = []
        self.customers: dict[str, list[int]] = {}
        self.owners: list[int] = []
        self.texts: dict[str, int] = {}
        self._codes: dict[Label, int] = {}
        self._counting: Counting | None = None
        self._index: Index | None = None

    def add(self, part: Part) -> None:
        """Take events."""
        self.parts.append(part)
        self._counting = self._index = None

    # Series ----------------------------------------------------------------------------------------------------------

    def series_of(self, batch: EventBatch, meter: Meter, places: Integers | None) -> NDArray[np.int32]:
        """Return which series some rows of a batch are of; series that are new are numbered in the order of these rows."""
        columns = [batch.customers, *(batch.dimensions[key] for key in meter.dimension_payload_keys)]
        combined: NDArray[Any] = columns[0].codes if places is None else columns[0].codes[places]
        size = len(columns[0].names)
        names: list[tuple[int, ...]] | None = None
        if len(columns) > 1:
            every = [one.codes if places is None else one.codes[places] for one in columns]
            stacked, combined = np.unique(np.column_stack(every), axis=0, return_inverse=True)
            names, size = list(map(tuple, stacked.tolist())), len(stacked)
        table = np.full(size, -1, np.int32)
        for code in _in_order(combined, size):
            places_of_names = (code,) if names is None else names[code]
            customer, *values = (column.names[at] or "" for column, at in zip(columns, places_of_names, strict=True))
            table[code] = self._series(customer, tuple(values))
        found: NDArray[np.int32] = table[combined]
        return found

    def _series(self, customer: str, values: tuple[str, ...]) -> int:
        label = customer, values
        code = self._codes.get(label)
        if code is None:
            code = self._codes[label] = len(self.labels)
            self.labels.append(label)
            self.customers.setdefault(customer, []).append(code)
            self.owners.append(
                len(self.customers) - 1 if len(self.customers[customer]) == 1 else self.owners[self.customers[customer][0]]
            )
        return code

    def text_codes(self, names: Iterable[str | None]) -> NDArray[np.int64]:
        """Return which of the counted texts each of some is; None is none of them."""
        return np.array([-1 if one is None else self.texts.setdefault(one, len(self.texts)) for one in names], np.int64)

    def groups(
        self, meter: Meter, allowed: Mapping[str, frozenset[str]], keys: Sequence[str]
    ) -> tuple[Integers | None, list[Label]]:
        """Return which group each series is in, and the label of each group, in the order of customers and of the values.

        A group is a customer and the values of ``keys``; -1 for a series that a filter leaves out. None where each series is a
        group of its own.
        """
        if not meter.dimension_payload_keys:
            return None, self.labels
        places = {key: at for at, key in enumerate(meter.dimension_payload_keys)}
        wanted: dict[tuple[int, tuple[str, ...]], int] = {}
        chosen: list[tuple[int, tuple[str, ...]] | None] = []
        for owner, (_, values) in zip(self.owners, self.labels, strict=True):
            is_in = all(values[places[key]] in some for key, some in allowed.items())
            chosen.append((owner, tuple(values[places[key]] for key in keys)) if is_in else None)
        wanted = dict(zip(sorted({one for one in chosen if one is not None}), count(), strict=False))
        names = list(self.customers)
        numbers = np.array([-1 if one is None else wanted[one] for one in chosen], np.int64)
        return numbers, [(names[owner], values) for owner, values in wanted]

    # Columns ---------------------------------------------------------------------------------------------------------

    def counting(self, meter: Meter) -> Counting:
        """Return the events that count: all, or with an event time window the one received last in each."""
        if self._counting is None:
            self._counting = _gathered(self.parts, meter)
        return self._counting

    def index(self, meter: Meter) -> Index:
        """Return the events that count, series by series."""
        if self._index is None:
            events = self.counting(meter)
            order = np.lexsort((events.moments, events.codes))
            starts = np.searchsorted(events.codes[order], np.arange(len(self.labels) + 1))
            self._index = Index(order, events.moments[order], starts)
        return self._index

    def values_at(self, meter: Meter, places: NDArray[np.intp]) -> list[Number | str]:
        """Return what the formula works on, of some of the events that count."""
        events = self.counting(meter)
        units = events.units[places].tolist()
        if meter.formula is Formula.UNIQUE_COUNT:
            texts = list(self.texts)
            return [texts[code] for code in units]
        if meter.formula is Formula.COUNT:
            return [1] * len(units)
        return [number_of(one, events.decimal_places) for one in units]


def _in_order(codes: NDArray[Any], size: int) -> list[int]:
    """Return the codes that occur, in the order of their first row."""
    firsts = np.full(size, len(codes), np.int64)
    firsts[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # Of rows with one code the last assignment stays.
    order: list[int] = np.argsort(firsts, kind="stable")[: np.count_nonzero(firsts < len(codes))].tolist()
    return order


def _gathered(parts: Sequence[Part], meter: Meter) -> Counting:
    places = max((part.decimal_places for part in parts), default=0)
    factors = [10 ** (places - part.decimal_places) for part in parts]
    units = _joined([times(part.units, factor) for part, factor in zip(parts, factors, strict=True)])
    least = min((part.least * factor for part, factor in zip(parts, factors, strict=True)), default=0)
    most = max((part.most * factor for part, factor in zip(parts, factors, strict=True)), default=0)
    codes, moments = _joined([part.codes for part in parts]), _joined([part.moments for part in parts])
    # Numbers that follow each other are not written down: to do so would cost as much as to add the values up.
    rows = None if len(parts) == 1 else _joined([np.arange(part.first, part.first + len(part)) for part in parts])
    first = parts[0].first if parts else 0
    low, high = min((part.low for part in parts), default=0), max((part.high for part in parts), default=0)
    events = Counting(codes, moments, units, first, rows, places, low, high, least, most)
    window = meter.event_time_window
    return events if window is None or not len(events) else events.where(_received_last(events, window.seconds * MICROSECONDS))


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
