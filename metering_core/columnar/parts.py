"""What is kept of accepted usage: columns in the order of arrival, as they came and gathered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import Flags, Integers
from metering_core.columnar.batches import EPOCH, EventBatch, number_of
from metering_core.columnar.folding import Rows, joined
from metering_core.columnar.grouping import last_of_each
from metering_core.columnar.numbers import Numbers, times
from metering_core.columnar.series import Labels, SeriesCodes
from metering_core.exact import Number
from metering_core.measures import formula_of
from metering_core.meter_events import MeterEvent
from metering_core.meters import Meter
from metering_core.periods import MICROSECONDS

Numbering = range | Integers
"""Sequence numbers, ascending; a range where they follow each other."""


@attrs.frozen(eq=False)
class Part:
    """Accepted usage that arrived together.

    Attributes:
        rows: the columns.
        numbers: the sequence numbers.
        received: when each was received in Unix microseconds, or when all were.
    """

    rows: Rows
    numbers: Numbering
    received: int | Integers

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, flags: Flags) -> Self:
        """Return some of the rows."""
        if flags.all():
            return self
        received = self.received if isinstance(self.received, int) else self.received[flags]
        numbers = self.all_numbers()[flags]
        return attrs.evolve(self, rows=self.rows.part(flags), numbers=numbers, received=received)

    def all_numbers(self) -> Integers:
        """Return the sequence numbers as an array."""
        return np.asarray(self.numbers, dtype=np.int64)

    def place_of(self, number: int) -> int:
        """Return the row with a number."""
        if isinstance(self.numbers, range):
            return self.numbers.index(number)
        return int(np.searchsorted(self.numbers, number))

    def received_at(self, place: int) -> int:
        """Return when a row was received, in Unix microseconds."""
        return self.received if isinstance(self.received, int) else int(self.received[place])

    def is_seen(self, sequence: int, received_by: int | None) -> Flags:
        """Say which rows have at most this number and were received by this moment."""
        flags = self.all_numbers() <= sequence
        return flags if received_by is None else flags & (self.received <= received_by)


@attrs.frozen(eq=False)
class EventPart(Part):
    """Accepted events that arrived together. The columns say which of them have what; the batch is
    what they were sent as.

    Attributes:
        batch: what they came in.
        places: which rows of the batch were accepted; None for all.
        decimal_places: values count in units of ``10**-decimal_places``.
    """

    batch: EventBatch
    places: Integers | None
    decimal_places: int

    def where(self, flags: Flags) -> Self:
        """Return some of the events."""
        some = super().where(flags)
        places = np.flatnonzero(flags) if self.places is None else self.places[flags]
        return some if some is self else attrs.evolve(some, places=places)

    def sent_at(self, number: int) -> int:
        """Return which row of the batch an event was."""
        place = self.place_of(number)
        return place if self.places is None else int(self.places[place])

    def identified(self) -> dict[str, int]:
        """Return which events have which identifier."""
        identifiers = self.batch.identifiers
        if identifiers is None:
            return {}
        rows = range(len(self.batch)) if self.places is None else self.places.tolist()
        numbers = self.all_numbers().tolist()
        return {
            one: number
            for number, row in zip(numbers, rows, strict=True)
            if (one := identifiers[row]) is not None
        }

    def event_of(self, number: int, meter: Meter) -> tuple[datetime, MeterEvent]:
        """Return when an event was received, and the event with its timestamp resolved."""
        received = self.received_at(self.place_of(number))
        event = self.batch.event_at(self.sent_at(number), meter, received)
        return EPOCH + timedelta(microseconds=received), event


@attrs.frozen(eq=False)
class Counting:
    """The events of a meter that count, in the order of arrival.

    Attributes:
        rows: the columns; values count in units of ``10**-decimal_places``, or are codes of texts.
        numbers: the sequence numbers.
        decimal_places: see ``rows``.
    """

    rows: Rows
    numbers: Numbering
    decimal_places: int

    @classmethod
    def of(cls, parts: Sequence[EventPart], meter: Meter) -> Self:
        """Gather events: all, or with an event time window the one received last in each."""
        places = max((part.decimal_places for part in parts), default=0)
        rows = joined([_scaled(part.rows, 10 ** (places - part.decimal_places)) for part in parts])
        # Numbers that follow each other are not written down: to do so would cost as much as to
        # add the values up.
        if len(parts) == 1:
            numbers = parts[0].numbers
        else:
            numbers = np.concatenate([np.empty(0, np.int64), *(one.all_numbers() for one in parts)])
        if meter.event_time_window is None or not len(rows):
            return cls(rows, numbers, places)
        flags = _received_last(rows, meter.event_time_window.seconds * MICROSECONDS)
        return cls(rows.part(flags), np.asarray(numbers, np.int64)[flags], places)

    def numbers_at(self, places: NDArray[np.intp]) -> Integers:
        """Return the numbers of some events."""
        if not isinstance(self.numbers, range):
            return self.numbers[places]
        found: Integers = places + self.numbers.start
        return found


def _scaled(rows: Rows, factor: int) -> Rows:
    if factor == 1:
        return rows
    bounds = {name: getattr(rows, name) * factor for name in ("bound", "least", "most")}
    return attrs.evolve(rows, values=times(rows.values, factor), **bounds)


def _received_last(rows: Rows, window: int) -> Flags:
    """Say which events were received last in their series and window of so many microseconds."""
    windows = rows.moments // window
    windows -= windows.min()
    return last_of_each(rows.codes.astype(np.int64) * (int(windows.max()) + 1) + windows)


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
        """Return where a series has the events from ``start`` (None: all) to before ``end``."""
        first, after = int(self.starts[code]), int(self.starts[code + 1])
        moments = self.moments[first:after]
        last = first + int(np.searchsorted(moments, end))
        if start is None:
            return first, last
        return min(first + int(np.searchsorted(moments, start)), last), last


class MeterColumns:
    """The accepted events of one meter.

    Attributes:
        ids: identifier → the number of the event that has it; one mapping for all meters where the
            scope is global.
        parts: the events, in the order of arrival.
        series: the customers and dimension values that occur together, by code.
        texts: the texts that are counted by ``unique_count``, by code.
    """

    def __init__(self, ids: dict[str, int], meter: Meter) -> None:
        self.ids = ids
        self.parts: list[EventPart] = []
        self.series = SeriesCodes(len(meter.dimension_payload_keys))
        self.texts: dict[str, int] = {}
        self._counting: Counting | None = None
        self._index: Index | None = None

    def add(self, part: EventPart) -> None:
        """Take events."""
        self.parts.append(part)
        self._counting = self._index = None

    def series_of(
        self, batch: EventBatch, meter: Meter, places: Integers | None
    ) -> NDArray[np.int32]:
        """Return which series some rows of a batch are of; new ones are numbered as they come."""
        dimensions = (batch.dimensions[key] for key in meter.dimension_payload_keys)
        return self.series.take([batch.customers, *dimensions], places)

    def text_codes(self, names: Iterable[str | None]) -> NDArray[np.int64]:
        """Return which of the counted texts each of some is; None is none of them."""
        return np.array(
            [-1 if one is None else self.texts.setdefault(one, len(self.texts)) for one in names],
            np.int64,
        )

    def groups(
        self, meter: Meter, allowed: Mapping[str, frozenset[str]], keys: Sequence[str]
    ) -> tuple[NDArray[np.int32] | None, Labels]:
        """Return which group each series is in, and the labels; see :meth:`SeriesCodes.groups`."""
        places = {key: at for at, key in enumerate(meter.dimension_payload_keys, 1)}
        let_through = {places[key]: some for key, some in allowed.items()}
        return self.series.groups(let_through, [places[key] for key in keys])

    def counting(self, meter: Meter) -> Counting:
        """Return the events that count."""
        if self._counting is None:
            self._counting = Counting.of(self.parts, meter)
        return self._counting

    def index(self, meter: Meter) -> Index:
        """Return the events that count, series by series."""
        if self._index is None:
            rows = self.counting(meter).rows
            order = np.lexsort((rows.moments, rows.codes))
            starts = np.searchsorted(rows.codes[order], np.arange(len(self.series) + 1))
            self._index = Index(order, rows.moments[order], starts)
        return self._index

    def values_at(self, meter: Meter, places: NDArray[np.intp]) -> list[Number | str]:
        """Return what the formula works on, of some of the events that count."""
        counting = self.counting(meter)
        units = counting.rows.values[places]
        return read_off(meter, self.texts, units, counting.decimal_places)


def read_off(
    meter: Meter, texts: Iterable[str], units: Numbers, decimal_places: int
) -> list[Number | str]:
    """Return what the formula works on, from values as they are kept."""
    takes = formula_of(meter).takes
    if takes == "nothing":
        return [1] * len(units)
    if takes == "text":
        named = list(texts)
        return [named[code] for code in units.tolist()]
    return [number_of(one, decimal_places) for one in units.tolist()]
