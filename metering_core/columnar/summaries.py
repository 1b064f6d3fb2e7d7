"""Questions to columns of meter events: summaries of all customers at once, and the partials that
bills are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple, overload

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import INT64_MAX, Integers
from metering_core.columnar.batches import number_of
from metering_core.columnar.folding import Rows
from metering_core.columnar.grouping import Groups, packed_sums
from metering_core.columnar.numbers import KEY_BITS, Numbers, as_wide, greatest, narrowed
from metering_core.columnar.parts import MeterColumns
from metering_core.columnar.paths import ENGINE, pays
from metering_core.columnar.series import Label
from metering_core.exact import Number, whole_if_possible
from metering_core.measures import Partial, formula_of, kernel_for, row_of
from metering_core.meter_summaries import MeterEventSummary
from metering_core.meters import Formula, Meter
from metering_core.periods import MICROSECONDS, from_unix_seconds


@attrs.frozen(eq=False)
class EventSummaries(Sequence[MeterEventSummary]):
    """Summaries of all customers that are not empty, column by column.

    They come in the order of the customers, which is that in which these came, of the values of the
    keys, and of time. A row is made a :class:`~metering_core.MeterEventSummary` when it is looked
    at. Its value is ``numerators`` over ``denominators``, in units of ``10**-decimal_places``;
    exactly.

    Attributes:
        meter: what was summarized.
        bounds: where the buckets begin and the last one ends, in Unix seconds.
        keys: the dimension keys of the groups.
        labels: the customer and the values of ``keys`` of each group.
        groups: which of ``labels`` each row is of.
        buckets: which bucket each row is of, from 0.
        numerators: integers of 64 bits, or of any size (``dtype`` object).
        denominators: positive integers; None where all are 1.
        decimal_places: see above.
        events: how many events of the bucket count.
    """

    meter: Meter
    bounds: Integers
    keys: tuple[str, ...]
    labels: Sequence[Label]
    groups: Integers
    buckets: Integers
    numerators: Numbers
    denominators: Numbers | None
    decimal_places: int
    events: Integers

    def __len__(self) -> int:
        """Return the number of summaries."""
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> MeterEventSummary: ...
    @overload
    def __getitem__(self, index: slice) -> list[MeterEventSummary]: ...
    def __getitem__(self, index: int | slice) -> MeterEventSummary | list[MeterEventSummary]:
        """Return one summary, or several."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        customer, values = self.labels[self.groups[row]]
        bucket = int(self.buckets[row])
        start, end = (from_unix_seconds(int(second)) for second in self.bounds[bucket : bucket + 2])
        dimensions = dict(zip(self.keys, values, strict=True))
        return MeterEventSummary(
            self.meter.id, customer, start, end, self._value(row), dimensions, int(self.events[row])
        )

    def _value(self, row: int) -> Number:
        units = int(self.numerators[row])
        if self.denominators is None:
            return number_of(units, self.decimal_places)
        return whole_if_possible(
            Fraction(units, int(self.denominators[row]) * 10**self.decimal_places)
        )

    @property
    def start_times(self) -> Integers:
        """The first second of the bucket of each row, Unix."""
        found: Integers = self.bounds[self.buckets]
        return found


def compiled_for(rows: int) -> ModuleType | None:
    """Return the compiled loops where they pay for so many rows, and are there."""
    return import_module("metering_core.columnar.compiled.summing") if pays(rows) else None


# Summaries ----------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """What groups and buckets come to: the numerator, the denominator and the events of each."""

    groups: Integers
    buckets: Integers
    numerators: Numbers
    denominators: Numbers | None
    events: Integers


def summarized(
    columns: MeterColumns,
    meter: Meter,
    seconds: Sequence[int],
    allowed: Mapping[str, frozenset[str]],
    keys: tuple[str, ...],
) -> EventSummaries:
    """Return the summaries of all customers in buckets between some bounds (Unix seconds)."""
    bounds = np.array(seconds, np.int64)
    chosen, labels = columns.groups(meter, allowed, keys)
    formula, counting = formula_of(meter), columns.counting(meter)
    asked = _Asked.of(counting.rows, chosen, bounds * MICROSECONDS, looks_back=formula.looks_back)
    found = asked.answer(meter, len(labels))
    places = counting.decimal_places if formula.takes == "number" else 0
    return EventSummaries(meter, bounds, keys, labels, *found[:4], places, found.events)


@attrs.frozen(eq=False)
class _Asked:
    """Events that are asked for, by group.

    Attributes:
        events: all that count, or those that are asked for.
        groups: the group of each.
        bounds: of the buckets, in Unix microseconds.
    """

    events: Rows
    groups: NDArray[Any]
    bounds: Integers

    @classmethod
    def of(
        cls, events: Rows, chosen: NDArray[Any] | None, bounds: Integers, *, looks_back: bool
    ) -> _Asked:
        """Leave out what no bucket and no group asks for."""
        start, end = int(bounds[0]), int(bounds[-1])
        groups, flags = events.codes if chosen is None else chosen[events.codes], None
        if events.high >= end or (events.low < start and not looks_back):
            flags = (events.moments < end) & ((events.moments >= start) | looks_back)
        if chosen is not None and (chosen < 0).any():
            flags = groups >= 0 if flags is None else flags & (groups >= 0)
        if flags is not None and not flags.all():
            events, groups = events.part(flags), groups[flags]
        return cls(events, groups, bounds)

    def answer(self, meter: Meter, size: int) -> _Found:
        """Return what the formula makes of the events of each group and bucket."""
        if formula_of(meter).is_weighed:
            return self._weighted(size)
        if meter.carry_forward:
            return self._carried(size)
        if meter.formula in {Formula.SUM, Formula.COUNT, Formula.AVERAGE}:
            found = self._compiled(meter.formula, size)
            if found is not None:
                return found
        numbers = self.groups.astype(np.int64)
        numbers *= self.buckets
        numbers += self.places()
        if meter.formula is Formula.SUM and size * self.buckets > len(numbers):
            packed = packed_sums(numbers, size * self.buckets, self.events.values)
            if packed is not None:
                return _Found(*self._apart(packed[0]), packed[1], None, packed[2])
        return self._plain(meter.formula, Groups.of(numbers, size * self.buckets))

    @property
    def buckets(self) -> int:
        """How many there are."""
        return len(self.bounds) - 1

    def places(self) -> Integers:
        """Return the bucket of each event, from 0; -1 for those before the first."""
        return _buckets(self.events.moments, self.bounds)

    def _apart(self, numbers: Integers) -> tuple[Integers, Integers]:
        """Return groups and buckets of the numbers that both make."""
        groups = numbers // self.buckets
        return groups, numbers - groups * self.buckets

    def _compiled(self, formula: Formula, size: int) -> _Found | None:
        """Add up in the compiled loops where they pay and are proven exact; None elsewhere."""
        lengths = np.diff(self.bounds)
        fast = compiled_for(len(self.events)) if (lengths == lengths[0]).all() else None
        units, least, most = self.events.values, self.events.least, self.events.most
        if formula is Formula.COUNT:
            units, least, most = np.broadcast_to(np.int64(0), len(self.events)), 0, 0
        if fast is None or units.dtype == np.object_:
            return None
        if max(-least, most) * len(units) > INT64_MAX:
            return None
        width = (most - least).bit_length()
        if (size * self.buckets).bit_length() + width > KEY_BITS:
            return None
        rows = fast.SeriesRows(self.groups, self.events.moments, units)
        found = fast.bucket_sums(
            rows, size, (int(self.bounds[0]), int(lengths[0]), self.buckets), width, least
        )
        numerators = found.counts if formula is Formula.COUNT else found.sums
        denominators = found.counts if formula is Formula.AVERAGE else None
        return _Found(found.codes, found.places, numerators, denominators, found.counts)

    def _plain(self, formula: Formula, groups: Groups) -> _Found:
        window = row_of(formula, ENGINE).window_seconds * MICROSECONDS
        numerators = kernel_for(_NUMERATORS, formula, ENGINE)(groups, self.events, window)
        some = np.flatnonzero(groups.counts)
        numbers = some if groups.ids is None else groups.ids[some]
        below = groups.counts[some] if formula is Formula.AVERAGE else None
        return _Found(*self._apart(numbers), narrowed(numerators[some]), below, groups.counts[some])

    # Formulas that look back: every bucket of every group, and one before the first ---------------

    def _table(self, size: int) -> tuple[Groups, int]:
        """Return the events by group and bucket, one bucket more in front; and how many buckets."""
        width = len(self.bounds)
        numbers = self.groups.astype(np.int64) * width + self.places() + 1
        return Groups(numbers, np.bincount(numbers, minlength=size * width)), width

    def _shown(
        self, groups: Groups, width: int, values: Numbers, denominators: Integers | None
    ) -> _Found:
        """Leave out buckets in which no event counts and to which no level is carried."""
        events = groups.counts.reshape(-1, width)[:, 1:].ravel()
        flat = values.ravel()
        some = np.flatnonzero((events != 0) | (flat != 0))
        below = None if denominators is None else denominators[some % (width - 1)]
        return _Found(*self._apart(some), narrowed(flat[some]), below, events[some])

    def _carried(self, size: int) -> _Found:
        groups, width = self._table(size)
        rows = groups.lasts(self.events.moments).reshape(-1, width)
        latest = np.maximum.accumulate(np.where(rows >= 0, np.arange(width), 0), axis=1)
        carried = np.take_along_axis(rows, latest, axis=1)[:, 1:]
        return self._shown(groups, width, _at(self.events.values, carried), None)

    def _weighted(self, size: int) -> _Found:
        groups, width = self._table(size)
        lengths = np.diff(self.bounds)
        # Before the first bucket all counts from its start, so that nothing is left of it within.
        places = self.places()
        remaining = np.where(places >= 0, self.bounds[places + 1] - self.events.moments, 0)
        units = self.events.values
        if greatest(units) * max(len(units), 1) * greatest(lengths) > INT64_MAX:
            units = as_wide(units)
        areas = groups.sums_of_products(units, remaining).reshape(-1, width)[:, 1:]
        levels = np.cumsum(groups.sums(units).reshape(-1, width), axis=1)[:, :-1]
        if units.dtype == np.object_:
            areas, levels = as_wide(areas), as_wide(levels)
        return self._shown(groups, width, levels * lengths + areas, lengths)


def _at(units: Numbers, rows: NDArray[np.intp]) -> Numbers:
    """Return the values of some rows; 0 for -1."""
    if not len(units):
        return np.zeros(rows.shape, np.int64)
    return np.where(rows >= 0, units[rows], 0)


def _sums_of(groups: Groups, events: Rows, _: int) -> Numbers:
    return groups.sums(events.values)


def _peaks_of(groups: Groups, events: Rows, window: int) -> Numbers:
    places, _, peaks = groups.peaks(events.values, events.moments // window)
    return Groups(places, groups.counts).sums(peaks)


_NUMERATORS: Final[Mapping[str, Callable[[Groups, Rows, int], Numbers]]] = {
    "peaks": _peaks_of,
    "sums": _sums_of,
    "averages": _sums_of,
    "counts": lambda groups, *_: groups.counts,
    "maxima": lambda groups, events, _: groups.maxima(events.values),
    "minima": lambda groups, events, _: groups.minima(events.values),
    "texts": lambda groups, events, _: np.bincount(
        groups.distinct(events.values)[0], minlength=groups.size
    ),
    "lasts": lambda groups, events, _: _at(events.values, groups.lasts(events.moments)),
}
"""What the events of each group come to; a level, which looks back, has a way of its own."""


def _buckets(moments: Integers, bounds: Integers) -> Integers:
    """Return the bucket of each moment; -1 for those before the first."""
    lengths = np.diff(bounds)
    if (lengths == lengths[0]).all():
        places: Integers = moments - bounds[0]
        places //= lengths[0]
        np.maximum(places, -1, out=places)
        return places
    found: Integers = np.searchsorted(bounds, moments, side="right") - 1
    return found


# Partials -----------------------------------------------------------------------------------------


class EventQuestion(NamedTuple):
    """Whose events, from ``start`` (inclusive) to ``end`` (exclusive), in Unix microseconds."""

    customer: str
    start: int
    end: int


def partials_of(
    columns: MeterColumns, meter: Meter, questions: Sequence[EventQuestion]
) -> list[Partial]:
    """Return what the log would answer, in the order asked."""
    aggregator = formula_of(meter)
    within = _partials(columns, meter, [(one.customer, one.start, one.end) for one in questions])
    before = within
    if aggregator.looks_back:
        before = _partials(columns, meter, [(one.customer, None, one.start) for one in questions])
    return [
        aggregator.over(inside, earlier, one.start, one.end)
        for inside, earlier, one in zip(within, before, questions, strict=True)
    ]


def _partials(
    columns: MeterColumns, meter: Meter, asked: Sequence[tuple[str, int | None, int]]
) -> list[Partial]:
    index = columns.index(meter)
    spans = [
        (number, *index.span(code, start, end))
        for number, (customer, start, end) in enumerate(asked)
        for code in columns.series.of(customer)
    ]
    owners, firsts, ends = np.array(spans, np.int64).reshape(-1, 3).T
    lengths = ends - firsts
    if not lengths.any():
        return [formula_of(meter).identity] * len(asked)
    # The places of all spans one after the other: each span's first, and how far into it.
    into = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = index.order[np.repeat(firsts, lengths) + into]
    groups = Groups.of(np.repeat(owners, lengths), len(asked))
    return _spread(
        groups,
        _Partials(columns, meter, groups, places).each(),
        len(asked),
        formula_of(meter).identity,
    )


def _spread(groups: Groups, found: list[Partial], size: int, identity: Partial) -> list[Partial]:
    """Return an answer for each question, where the groups are only those that have events."""
    some = range(groups.size) if groups.ids is None else groups.ids.tolist()
    answers = [identity] * size
    for number, partial, events in zip(some, found, groups.counts.tolist(), strict=True):
        if events:
            answers[number] = partial
    return answers


@attrs.frozen(eq=False)
class _Partials:
    """Some of the events that count, by the question that they answer."""

    columns: MeterColumns
    meter: Meter
    groups: Groups
    places: NDArray[np.intp]

    def each(self) -> list[Partial]:
        """Return the partial of each group."""
        rows = self.columns.counting(self.meter).rows
        return kernel_for(PARTIALS, self.meter.formula, ENGINE)(
            self, rows, rows.values[self.places]
        )

    def sums(self, _: Rows, units: Numbers) -> list[Partial]:
        """Return the sum of each group."""
        return self._numbers(self.groups.sums(units))

    def counts(self, _: Rows, __: Numbers) -> list[Partial]:
        """Return how many events each group has."""
        return list(self.groups.counts.tolist())

    def maxima(self, _: Rows, units: Numbers) -> list[Partial]:
        """Return the greatest value of each group."""
        return self._numbers(self.groups.maxima(units))

    def minima(self, _: Rows, units: Numbers) -> list[Partial]:
        """Return the least value of each group."""
        return self._numbers(self.groups.minima(units))

    def averages(self, _: Rows, units: Numbers) -> list[Partial]:
        """Return the sum and the count of each group."""
        return list(
            zip(self._numbers(self.groups.sums(units)), self.groups.counts.tolist(), strict=True)
        )

    def _numbers(self, units: Numbers) -> list[Number]:
        places = self.columns.counting(self.meter).decimal_places
        return [number_of(one, places) for one in units.tolist()]

    def lasts(self, rows: Rows, _: Numbers) -> list[Partial]:
        """Return the last value of each group, and when it was."""
        # Events of one moment decide by the order of arrival, in which the places are ascending.
        moments = rows.moments[self.places]
        order = np.argsort(self.places, kind="stable")
        groups = Groups(self.groups.codes[order], self.groups.counts, self.groups.ids)
        found = order[groups.lasts(moments[order])]
        columns = (
            moments[found].tolist(),
            self.columns.counting(self.meter).numbers_at(self.places[found]).tolist(),
            self.columns.values_at(self.meter, self.places[found]),
        )
        return [((moment, number), value) for moment, number, value in zip(*columns, strict=True)]

    def peaks(self, rows: Rows, units: Numbers) -> list[Partial]:
        """Return the windows of each group that have an event, each with its greatest value."""
        length = formula_of(self.meter).window_seconds * MICROSECONDS
        places, windows, peaks = self.groups.peaks(units, rows.moments[self.places] // length)
        found: list[list[tuple[int, Number]]] = [[] for _ in range(self.groups.size)]
        for place, window, peak in zip(
            places.tolist(), windows.tolist(), self._numbers(peaks), strict=True
        ):
            found[place].append((window, peak))
        return list(map(tuple, found))

    def texts(self, _: Rows, units: Numbers) -> list[Partial]:
        """Return the different texts of each group."""
        sets: list[set[str]] = [set() for _ in range(self.groups.size)]
        texts = list(self.columns.texts)
        for place, code in zip(*map(np.ndarray.tolist, self.groups.distinct(units)), strict=True):
            sets[place].add(texts[code])
        return list(map(frozenset, sets))

    def levels(self, rows: Rows, units: Numbers) -> list[Partial]:
        """Return the level of each group, and the sum of its changes times their moments."""
        moments = rows.moments[self.places]
        base = int(moments.min())
        levels = self.groups.sums(units)
        products = (
            as_wide(self.groups.sums_of_products(units, moments - base)) + as_wide(levels) * base
        )
        return [
            (level, moment, None)
            for level, moment in zip(self._numbers(levels), self._numbers(products), strict=True)
        ]


PARTIALS: Final[Mapping[str, Callable[[_Partials, Rows, Numbers], list[Partial]]]] = {
    name: getattr(_Partials, name)
    for name in (
        "sums",
        "counts",
        "lasts",
        "maxima",
        "minima",
        "texts",
        "averages",
        "levels",
        "peaks",
    )
}
"""What makes partials, by the names that measures give it; a formula without is refused where its
meter is created.
"""
