"""The fold compiled with Numba (extra ``compiled``): what the NumPy kernel answers, several times
as fast, on all cores.

NumPy makes a pass over the rows for each step of a computation; here a row goes through all steps
while it is in a register. Nothing is taken on trust: a computation is only done here where the
bound of its rows proves that all sums fit 64 bits and where its packed keys do; otherwise a
function returns None, and the NumPy kernel answers.

A fold needs the rows of a cell together, in the order of arrival. Rows are spread over units, each
some neighbouring items and small enough for the cache; a unit's keys (item, timestamp, place in the
unit) are sorted by NumPy, which is hard to beat, and then reduced in one pass. Workers share the
rows while these are spread, and the units afterwards. Halving the *items* instead would have each
worker read all rows, which takes as long as all of its other work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import ORIGIN, Integers, read_only
from metering_core.columnar.compiled.workers import Column, apart, each_of, jit, workers_for
from metering_core.columnar.folding import STAMP_BITS, Cells, Rows
from metering_core.columnar.totals import Totals, Window

Columns = tuple[Column, Column, Column, Column]
"""Codes, timestamps, quantities, and where rows are a ``set`` (empty for nowhere)."""

Unsigned = NDArray[np.uint64]
Returned = TypeVar("Returned")

UNIT_ROWS: Final = 300_000
"""A unit has about so many rows, so that what is fetched in the order of time comes from the
cache.
"""

UNITS_MAX: Final = 32
"""So many units at most: spreading rows over more of them costs more than the cache gives back."""

_KEY_BITS: Final = 64
_SHIFT_MAX: Final = 63
"""A shift of 64 bits by 64 is not defined."""

_NOTHING: Final = ORIGIN - 1
_NO_WINDOWS: Final[Integers] = np.empty((0, 2), np.int64)
_ONE: Final = np.uint64(1)
_SET: Final = np.uint64(2**63)
_QUANTITY: Final = np.uint64(2**63 - 1)
_SIX: Final = np.uint64(63)
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_MORE: Final = np.uint64(0xC2B2AE3D27D4EB4F)
"""Products with these wrap on purpose: they only choose which rows are folded in order, which is
right for any.
"""

_FEW_SETS: Final = 6
"""Rows with a ``set`` are few where they are less than one in so many."""

_SPARSE: Final = 4
"""The filter of touched cells has 2 to this power bits for each of them, or more."""


def _shares(parts: Sequence[Rows], workers: int) -> list[list[Rows]]:
    """Cut rows into a share for each worker, in the order of arrival."""
    size = -(-sum(map(len, parts)) // workers)
    shares: list[list[Rows]] = [[] for _ in range(workers)]
    before = 0
    for part in parts:
        for worker in range(before // size, -(-(before + len(part)) // size)):
            shares[worker].append(
                part.part(slice(max(worker * size - before, 0), (worker + 1) * size - before))
            )
        before += len(part)
    return shares


@attrs.frozen(eq=False)
class _Windowed:
    """Rows that may count, and each item's window.

    Attributes:
        parts: rows in the order of arrival.
        size: the number of items.
        windows: for each item, the first second that counts and the first after; nothing where all
            rows count.
        low: no row that counts is earlier.
        high: no row that counts is later.
    """

    parts: Sequence[Rows]
    size: int
    windows: Integers
    low: int
    high: int

    @classmethod
    def of(cls, parts: Sequence[Rows], window: Window) -> _Windowed:
        """Leave out the parts of which nothing counts."""
        earliest, latest = int(window.lows.min()), int(window.highs.max())
        some = [part for part in parts if len(part) and part.high >= earliest and part.low < latest]
        low, high = (
            min((part.low for part in some), default=0),
            max((part.high for part in some), default=0),
        )
        is_whole = int(window.lows.max()) <= low and high < int(window.highs.min())
        windows = _NO_WINDOWS if is_whole else np.column_stack([window.lows, window.highs])
        return cls(some, window.size, windows, max(low, earliest), min(high, latest - 1))

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def _columns(rows: Rows) -> Columns:
    """Return rows as the loops take them: all read-only, so that they are compiled once."""
    sets = np.empty(0, np.bool_) if rows.sets is None else rows.sets
    return read_only(rows.codes), read_only(rows.moments), read_only(rows.values), read_only(sets)


# A plain sum --------------------------------------------------------------------------------------


@jit
def _add(columns: Columns, windows: Column, totals: Column) -> None:
    """Add each row that counts to its item's total."""
    codes, stamps, quantities, _ = columns
    if not len(windows):
        for i in range(len(codes)):
            totals[np.uint64(codes[i])] += quantities[i]
        return
    for i in range(len(codes)):
        c = np.uint64(codes[i])
        if windows[c, 0] <= stamps[i] and stamps[i] < windows[c, 1]:
            totals[c] += quantities[i]


def sums(parts: Sequence[Rows], window: Window) -> Totals | None:
    """Return for each item the sum of its cells; None where another kernel must."""
    asked = _Windowed.of(parts, window)
    sets = sum(int(np.count_nonzero(part.sets)) for part in asked.parts if part.sets is not None)
    if sets * _FEW_SETS > len(asked):
        found = _everything(asked)
        return None if found is None else found.sums
    workers = workers_for(len(asked))
    if not sets:
        return Totals(_added(asked, workers))
    return _sums_with_sets(asked, sets, workers)


def _added(asked: _Windowed, workers: int) -> Integers:
    """Add up rows without a ``set``."""

    def work(share: list[Rows]) -> Integers:
        totals = np.zeros(asked.size, np.int64)
        for rows in share:
            _add(_columns(rows), asked.windows, totals)
        return totals

    return _added_up(each_of(work, _shares(asked.parts, workers), workers))


def _added_up(totals: Iterable[Integers]) -> Integers:
    """Add up what each worker has; all together fits 64 bits, as the bound of the rows proves."""
    first, *others = totals
    for other in others:
        first += other
    return first


# A sum with few sets: only rows of cells that a `set` may have touched are folded in order --------


@jit
def _mark(codes: Column, stamps: Column, shift: np.uint64, words: Column) -> None:
    """Mark two bits of one word for each cell."""
    for i in range(len(codes)):
        h = ((np.uint64(codes[i]) << np.uint64(39)) + np.uint64(stamps[i])) * _MIX
        h = (h ^ (h >> np.uint64(32))) * _MIX_MORE
        words[h >> shift] |= (_ONE << (h & _SIX)) | (_ONE << ((h >> np.uint64(6)) & _SIX))


@jit
def _add_untouched(
    columns: Columns,
    windows: Column,
    totals: Column,
    shift: np.uint64,
    words: Column,
    touched: Column,
) -> np.int64:
    """Add rows of unmarked cells to their items' totals; note the places of the others."""
    codes, stamps, quantities, _ = columns
    found = np.int64(0)
    for i in range(len(codes)):
        c = np.uint64(codes[i])
        if not len(windows) or (windows[c, 0] <= stamps[i] and stamps[i] < windows[c, 1]):
            h = ((c << np.uint64(39)) + np.uint64(stamps[i])) * _MIX
            h = (h ^ (h >> np.uint64(32))) * _MIX_MORE
            bits = (_ONE << (h & _SIX)) | (_ONE << ((h >> np.uint64(6)) & _SIX))
            is_touched = np.int64(words[h >> shift] & bits == bits)
            touched[found] = i
            found += is_touched
            totals[c] += quantities[i] & (
                is_touched - 1
            )  # Without a branch, which would be guessed wrong.
    return found


def _sums_with_sets(asked: _Windowed, sets: int, workers: int) -> Totals | None:
    bits = max(sets.bit_length() + _SPARSE - 6, 1)
    shift, words = np.uint64(64 - bits), np.zeros(1 << bits, np.uint64)
    for part in asked.parts:
        if part.sets is not None:
            places = np.flatnonzero(part.sets)
            _mark(part.codes[places], part.moments[places], shift, words)

    def work(share: list[Rows]) -> tuple[Integers, list[Rows]]:
        totals = np.zeros(asked.size, np.int64)
        held = []
        for rows in share:
            touched = np.empty(len(rows), np.int32)
            found = _add_untouched(_columns(rows), asked.windows, totals, shift, words, touched)
            held.append(rows.part(touched[:found]))
        return totals, held

    done = each_of(work, _shares(asked.parts, workers), workers)
    folded = _everything(
        attrs.evolve(
            asked,
            parts=[rows for _, held in done for rows in held if len(rows)],
            windows=_NO_WINDOWS,
        )
    )
    return (
        None
        if folded is None
        else Totals(_added_up([*(totals for totals, _ in done), folded.totals[:, 0]]))
    )


# The latest cell: one pass ------------------------------------------------------------------------


@jit
def _follow(columns: Columns, windows: Column, latest: Column) -> None:
    """Keep each item's latest cell: twice its timestamp plus its ``set``, and its quantity."""
    codes, stamps, quantities, sets = columns
    has_sets = len(sets) > 0
    for i in range(len(codes)):
        c = np.uint64(codes[i])
        stamp = stamps[i]
        known = latest[c, 0]
        if stamp >= known >> 1 and (not len(windows) or (windows[c, 0] <= stamp < windows[c, 1])):
            quantity, is_set = quantities[i], np.int64(has_sets and sets[i])
            if stamp == known >> 1 and not is_set:
                quantity += latest[c, 1]
                is_set = known & 1
            latest[c, 0] = 2 * stamp + is_set
            latest[c, 1] = quantity


@jit
def _follow_on(latest: Column, later: Column) -> None:
    """Take the latest cells of later rows into those of earlier ones."""
    for c in range(len(latest)):
        if later[c, 0] >> 1 >= latest[c, 0] >> 1:
            if later[c, 0] >> 1 == latest[c, 0] >> 1 and not later[c, 0] & 1:
                latest[c, 1] += later[c, 1]
            else:
                latest[c, 0] = later[c, 0]
                latest[c, 1] = later[c, 1]


def lasts(parts: Sequence[Rows], window: Window) -> Totals | None:
    """Return for each item its latest cell; None where another kernel must."""
    asked = _Windowed.of(parts, window)
    workers = workers_for(len(asked))

    def work(share: list[Rows]) -> Integers:
        latest = np.empty((asked.size, 2), np.int64)
        latest[:] = 2 * _NOTHING, 0
        for rows in share:
            _follow(_columns(rows), asked.windows, latest)
        return latest

    latest, *others = each_of(work, _shares(asked.parts, workers), workers)
    for later in others:
        _follow_on(latest, later)
    stamps = latest[:, 0] >> 1
    return Totals(latest[:, 1].copy(), stamps, stamps > _NOTHING)


# Units: the rows of neighbouring items, by cell and arrival ---------------------------------------


@jit
def _count(columns: Columns, windows: Column, counts: Column) -> None:
    """Count each item's rows that count."""
    codes, stamps, _, _ = columns
    for i in range(len(codes)):
        c = np.uint64(codes[i])
        counts[c] += not len(windows) or (windows[c, 0] <= stamps[i] and stamps[i] < windows[c, 1])


@attrs.frozen
class _Layout:
    """How many bits of a key are whose: item, timestamp, place in the unit, quantity, from the
    highest on.

    Attributes:
        span: of a timestamp.
        place: of the place, by which rows of a cell stay in the order of arrival; 0 where order is
            of no account.
        value: of the quantity and a flag for ``set`` above it; 0 where quantities do not fit and
            are fetched from their place.
    """

    span: int
    place: int
    value: int

    @classmethod
    def of(cls, asked: _Windowed, items: int, rows: int) -> _Layout | None:
        """Lay out the keys of units of so many items and rows; None where they do not fit."""
        span = max(asked.high - asked.low, 0).bit_length()
        free = _KEY_BITS - max(items - 1, 0).bit_length() - span
        place = max(rows - 1, 0).bit_length()
        value = max((part.most for part in asked.parts), default=0).bit_length() + 1
        if all(part.sets is None for part in asked.parts) and value <= min(free, _SHIFT_MAX):
            return cls(span, 0, value)
        if place + value <= min(free, _SHIFT_MAX):
            return cls(span, place, value)
        return cls(span, place, 0) if place <= free else None

    @property
    def bits(self) -> tuple[np.uint64, np.uint64, np.uint64]:
        """The same as the compiled loops take it."""
        return np.uint64(self.span), np.uint64(self.place), np.uint64(self.value)


Bits = tuple[np.uint64, np.uint64, np.uint64]


@jit
def _spread(
    columns: Columns,
    windows: Column,
    units: tuple[Column, Column, Column],
    low: int,
    bits: Bits,
    at: Column,
    keys: Column,
    values: Column,
) -> None:
    """Put each row's key and quantity to its unit; ``at`` is where this worker's next one goes."""
    codes, stamps, quantities, sets = columns
    unit_of, firsts, starts = units
    span_bits, place_bits, value_bits = bits
    has_sets, has_place, is_apart = len(sets) > 0, place_bits > 0, value_bits == 0
    for i in range(len(codes)):
        c = np.uint64(codes[i])
        if not len(windows) or (windows[c, 0] <= stamps[i] and stamps[i] < windows[c, 1]):
            unit = np.uint64(unit_of[c])
            place = at[unit]
            at[unit] = place + _ONE
            key = ((c - firsts[unit]) << span_bits) | np.uint64(stamps[i] - low)
            if has_place:
                key = (key << place_bits) | (place - starts[unit])
            is_set = np.uint64(has_sets and sets[i])
            if is_apart:
                keys[place] = key
                values[place] = np.uint64(quantities[i]) | (is_set << _SIX)
            else:
                keys[place] = (
                    (key << value_bits) | (is_set << (value_bits - _ONE)) | np.uint64(quantities[i])
                )


@jit
def _fetch(keys: Column, values: Column, bits: Bits, fetched: Column) -> None:
    """Fetch the values at the places in sorted keys; nothing else, so that fetches overlap."""
    _, place_bits, _ = bits
    mask = (_ONE << place_bits) - _ONE
    for i in range(len(keys)):
        fetched[i] = values[keys[i] & mask]
        keys[i] >>= place_bits


@jit
def _part_from_values(keys: Column, bits: Bits, fetched: Column) -> None:
    """Take the quantities, and the places before them, off sorted keys."""
    _, place_bits, value_bits = bits
    flag = value_bits - _ONE
    mask = (_ONE << flag) - _ONE
    for i in range(len(keys)):
        key = keys[i]
        fetched[i] = (key & mask) | (((key >> flag) & _ONE) << _SIX)
        keys[i] = key >> (place_bits + value_bits)


@jit
def _reduce(
    keys: Column, values: Column, first: int, low: int, span_bits: np.uint64, totals: Column
) -> None:
    """Reduce a unit's rows to each item's sum, greatest cell, and latest cell."""
    length = len(keys)
    i = 0
    while i < length:
        cell = keys[i]
        item = cell >> span_bits
        quantity = np.int64(values[i] & _QUANTITY)
        total, greatest = np.int64(0), np.int64(-1)
        i += 1
        while i < length and keys[i] >> span_bits == item:
            value = values[i]
            if keys[i] != cell:
                total += quantity
                greatest = max(greatest, quantity)
                cell, quantity = keys[i], np.int64(value & _QUANTITY)
            elif value & _SET:
                quantity = np.int64(value & _QUANTITY)
            else:
                quantity += np.int64(value)
            i += 1
        c = np.int64(item) + first
        totals[c, 0] = total + quantity
        totals[c, 1] = max(greatest, quantity)
        totals[c, 2] = np.int64(cell & ((_ONE << span_bits) - _ONE)) + low
        totals[c, 3] = quantity


@jit
def _reduce_to_cells(
    keys: Column,
    values: Column,
    first: int,
    low: int,
    span_bits: np.uint64,
    cell_keys: Column,
    quantities: Column,
    were_set: Column,
) -> int:
    """Reduce a unit's rows to cells; ``cell_keys`` may be the keys' own place."""
    flags = len(were_set) > 0
    found = -1
    cell = np.uint64(0)
    for i in range(len(keys)):
        value = values[i]
        is_set = value & _SET != 0
        if found < 0 or keys[i] != cell:
            found += 1
            cell = keys[i]
            stamp = np.int64(cell & ((_ONE << span_bits) - _ONE)) + low
            cell_keys[found] = ((np.int64(cell >> span_bits) + first) << STAMP_BITS) + (
                stamp - ORIGIN
            )
            quantities[found] = np.int64(value & _QUANTITY)
            if flags:
                were_set[found] = is_set
        elif is_set:
            quantities[found] = np.int64(value & _QUANTITY)
            were_set[found] = True
        else:
            quantities[found] += np.int64(value)
    return found + 1


@attrs.frozen(eq=False)
class _Units:
    """The rows that count, unit by unit; ``keys`` and ``values`` are used up by the reduction.

    Attributes:
        edges: the first item of each unit, and the number of items.
        ends: where each unit begins, and where the last one ends.
        low: what timestamps in keys count from.
        layout: how keys are packed.
        keys: packed.
        values: the quantities that keys do not hold, and a flag for ``set`` above.
        workers: how many share the work.
    """

    edges: list[int]
    ends: list[int]
    low: int
    layout: _Layout
    keys: Unsigned
    values: Unsigned
    workers: int

    @classmethod
    def of(cls, asked: _Windowed) -> _Units | None:
        """Spread rows over units; None where their keys do not fit."""
        workers = workers_for(len(asked))
        shares = _shares(asked.parts, workers)
        counts = each_of(lambda share: _counted(asked, share), shares, workers)
        edges, sizes = _cut(np.array(counts))
        ends = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))])
        layout = _Layout.of(asked, int(np.diff(edges).max()), int(np.diff(ends).max()))
        if layout is None:
            return None
        keys, values = (
            np.empty(ends[-1], np.uint64),
            np.empty(0 if layout.value else ends[-1], np.uint64),
        )
        unit_of = np.repeat(np.arange(len(edges) - 1, dtype=np.uint8), np.diff(edges))
        units = unit_of, edges.astype(np.uint64), ends.astype(np.uint64)
        # A worker's rows of a unit come after those of the workers before it, whose rows arrived
        # earlier.
        places = (ends[:-1] + np.cumsum(sizes, axis=0) - sizes).astype(np.uint64)
        places = apart(places)

        def work(number: int) -> None:
            for rows in shares[number]:
                _spread(
                    _columns(rows),
                    asked.windows,
                    units,
                    asked.low,
                    layout.bits,
                    places[number],
                    keys,
                    values,
                )

        each_of(work, range(workers), workers)
        return cls(edges.tolist(), ends.tolist(), asked.low, layout, keys, values, workers)

    def reduced(
        self, reduce: Callable[[int, slice, Unsigned, Unsigned], Returned]
    ) -> list[Returned]:
        """Reduce each unit's cells, several units at a time."""

        def work(unit: int) -> Returned:
            which = slice(self.ends[unit], self.ends[unit + 1])
            keys = self.keys[which]
            keys.sort()
            fetched = np.empty(len(keys), np.uint64)
            if self.layout.value:
                _part_from_values(keys, self.layout.bits, fetched)
            else:
                _fetch(keys, self.values[which], self.layout.bits, fetched)
            return reduce(self.edges[unit], which, keys, fetched)

        return each_of(work, range(len(self.edges) - 1), self.workers)


def _counted(asked: _Windowed, share: list[Rows]) -> Integers:
    counts = np.zeros(asked.size, np.int64)
    for rows in share:
        _count(_columns(rows), asked.windows, counts)
    return counts


def _cut(counts: Integers) -> tuple[Integers, Integers]:
    """Cut items into units of as many rows; return edges, and workers' rows in each unit."""
    running = np.cumsum(counts.sum(axis=0))
    rows, size = int(running[-1]), counts.shape[1]
    units = min(max(rows // UNIT_ROWS, 1), UNITS_MAX)
    inner = np.searchsorted(running, np.arange(1, units) * rows // units, side="right")
    edges = np.unique(np.concatenate([[0], inner, [size]]))
    return edges, np.add.reduceat(counts, edges[:-1], axis=1)


@attrs.frozen(eq=False)
class Everything:
    """What every mode makes of each item; the greatest of no cells is -1."""

    totals: Integers

    @property
    def sums(self) -> Totals:
        """The sum of the cells."""
        return Totals(self.totals[:, 0])

    @property
    def maxima(self) -> Totals:
        """The greatest cell."""
        best = self.totals[:, 1]
        return Totals(best, is_there=best >= 0)

    @property
    def lasts(self) -> Totals:
        """The latest cell."""
        stamps = self.totals[:, 2]
        return Totals(self.totals[:, 3], stamps, stamps > _NOTHING)


def _everything(asked: _Windowed) -> Everything | None:
    totals = np.empty((asked.size, 4), np.int64)
    totals[:] = 0, -1, _NOTHING, 0
    units = _Units.of(asked) if asked.parts else None
    if units is None:
        return None if asked.parts else Everything(totals)
    spans = units.low, np.uint64(units.layout.span)
    units.reduced(lambda first, _, keys, values: _reduce(keys, values, first, *spans, totals))
    return Everything(totals)


def everything(parts: Sequence[Rows], window: Window) -> Everything | None:
    """Return for each item what every mode makes of its cells; None where another kernel must."""
    return _everything(_Windowed.of(parts, window))


def maxima(parts: Sequence[Rows], window: Window) -> Totals | None:
    """Return for each item its greatest cell; None where another kernel must."""
    found = everything(parts, window)
    return None if found is None else found.maxima


def fold(rows: Rows) -> Cells | None:
    """Fold rows into cells; None where another kernel must."""
    size = int(rows.codes.max()) + 1
    units = _Units.of(_Windowed([rows], size, _NO_WINDOWS, low=rows.low, high=rows.high))
    if units is None:
        return None
    were_set = np.empty(0 if rows.sets is None else len(rows), np.bool_)
    keys, quantities = (
        units.keys.view(np.int64),
        (units.values if len(units.values) else np.empty_like(units.keys)).view(np.int64),
    )
    spans = units.low, np.uint64(units.layout.span)

    def reduce(first: int, which: slice, sorted_keys: Unsigned, values: Unsigned) -> slice:
        columns = keys[which], quantities[which], were_set[which]
        return slice(
            which.start,
            which.start + _reduce_to_cells(sorted_keys, values, first, *spans, *columns),
        )

    some = units.reduced(reduce)
    held = None if rows.sets is None else _closed_up(were_set, some)
    return Cells(_closed_up(keys, some), _closed_up(quantities, some), held, rows.bound)


def _closed_up(column: NDArray[Any], some: Sequence[slice]) -> NDArray[Any]:
    """Close the gaps between slices, in place; copied where much would be held for little."""
    at = 0
    for which in some:
        length = which.stop - which.start
        if at != which.start:
            column[at : at + length] = (
                column[which].copy() if at + length > which.start else column[which]
            )
        at += length
    return column[:at].copy() if 4 * at < 3 * len(column) else column[:at]
