"""The fold, on columns: rows into cells, exactly.

A cell is packed into one integer, the item's code above 39 bits of seconds since the year 1, so
that sorted keys are the cells of item after item, each in the order of time. To fold, rows are
sorted by a packed key as well, because sorting plain integers is many times the speed of sorting
indices; a key that would need more than 63 bits is not packed, and its rows are sorted by index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import INT64_MAX, ORIGIN, Flags, Integers
from metering_core.columnar.numbers import KEY_BITS, Numbers, bound_of, narrowed, summable

STAMP_BITS: Final = 39
"""Bits that hold the seconds from the year 1 to 9999."""

CODES_MAX: Final = 2 ** (63 - STAMP_BITS)
"""So many items, at most: their cells are packed into 63 bits."""

BLOCK: Final = 1 << 16
"""Rows that are worked on at a time, so that what is in between stays in the cache."""


@attrs.frozen(eq=False)
class Rows:
    """Usage as columns in the order of arrival, all equally long.

    Attributes:
        codes: which item or series, from 0.
        moments: Unix seconds of records, microseconds of events.
        values: quantities, or values in units of a power of ten, or codes of texts.
        sets: where a row overwrites what came before it in its cell; None for nowhere.
        bound: no sum of some of the values is greater, nor less than its negative.
        low: no moment is earlier.
        high: no moment is later.
        least: no value is less.
        most: no value is greater.
        are_cells: whether it is known that no two rows are of one cell.
    """

    codes: NDArray[Any]
    moments: Integers
    values: Numbers
    sets: Flags | None
    bound: int
    low: int
    high: int
    least: int
    most: int
    are_cells: bool = False

    @classmethod
    def of(
        cls, codes: NDArray[Any], moments: Integers, values: Numbers, sets: Flags | None = None
    ) -> Self:
        """Measure some columns."""
        return cls.not_below(int(values.min()) if len(values) else 0, codes, moments, values, sets)

    @classmethod
    def not_below(
        cls,
        least: int,
        codes: NDArray[Any],
        moments: Integers,
        values: Numbers,
        sets: Flags | None,
    ) -> Self:
        """Measure some columns whose values are known to be no less than something."""
        low, high = (int(moments.min()), int(moments.max())) if len(moments) else (0, 0)
        most = int(values.max()) if len(values) else 0
        held = sets if sets is not None and sets.any() else None
        bound = bound_of(values, max(-least, most))
        return cls(codes, moments, values, held, bound, low, high, least, most)

    def __len__(self) -> int:
        return len(self.codes)

    def part(self, which: slice | Flags | NDArray[np.intp] | NDArray[np.int32]) -> Self:
        """Return some of the rows; the bounds stay true."""
        sets = None if self.sets is None else self.sets[which]
        columns = self.codes[which], self.moments[which], self.values[which]
        bounds = self.bound, self.low, self.high, self.least, self.most
        return type(self)(*columns, sets, *bounds, self.are_cells)


_NOTHING: Final = np.empty(0, np.int64)
NO_ROWS: Final = Rows.of(_NOTHING, _NOTHING, _NOTHING)


def joined(parts: Sequence[Rows]) -> Rows:
    """Return rows one after the other, as one; a single part without a copy."""
    some = [part for part in parts if len(part)]
    if len(some) < 2:
        return some[0] if some else NO_ROWS
    codes, moments, values = (
        np.concatenate([getattr(part, column) for part in some])
        for column in ("codes", "moments", "values")
    )
    least, most = min(part.least for part in some), max(part.most for part in some)
    low, high = min(part.low for part in some), max(part.high for part in some)
    bound = sum(part.bound for part in some)
    return Rows(codes, moments, values, _joined_sets(some), bound, low, high, least, most)


def _joined_sets(parts: Sequence[Rows] | Sequence[Cells]) -> Flags | None:
    if all(part.sets is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(len(part), np.bool_) if part.sets is None else part.sets for part in parts]
    )


@attrs.frozen(eq=False)
class Cells:
    """Cells in the order of their keys, no key twice.

    Attributes:
        keys: item and timestamp, packed.
        values: the quantities.
        sets: where a ``set`` was among the cell's rows; None for nowhere.
        bound: what all quantities together sum to at most.
    """

    keys: Integers
    values: Numbers
    sets: Flags | None
    bound: int

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def codes(self) -> Integers:
        """Which item each cell is of."""
        codes: Integers = self.keys >> STAMP_BITS
        return codes

    @property
    def stamps(self) -> Integers:
        """Unix seconds of each cell."""
        stamps: Integers = (self.keys & (2**STAMP_BITS - 1)) + ORIGIN
        return stamps

    def part(self, which: slice) -> Self:
        """Return some of the cells."""
        sets = None if self.sets is None else self.sets[which]
        return type(self)(self.keys[which], self.values[which], sets, self.bound)

    def as_rows(self, low: int = ORIGIN, high: int = INT64_MAX) -> Rows:
        """Return each cell as a row of its own, none before ``low`` or after ``high``."""
        bounds = self.bound, low, high, 0, self.bound
        return Rows(self.codes, self.stamps, self.values, None, *bounds, are_cells=True)

    def between(self, code: int, start: int, end: int) -> Self:
        """Return the cells of an item from the timestamp ``start`` to before ``end``."""
        ends = np.array([_key_of(code, start), _key_of(code, end)], dtype=np.int64)
        first, last = np.searchsorted(self.keys, ends).tolist()
        return self.part(slice(first, last))


NO_CELLS: Final = Cells(np.empty(0, np.int64), np.empty(0, np.int64), None, 0)


def _key_of(code: int, stamp: int) -> int:
    """Pack a cell, or the first moment after the last cell of an item."""
    seconds: int = min(max(stamp - ORIGIN, 0), 2**STAMP_BITS - 1)
    return (code << STAMP_BITS) + seconds


def keys_of(codes: NDArray[Any], stamps: Integers) -> Integers:
    """Pack cells."""
    keys: Integers = (codes.astype(np.int64) << STAMP_BITS) + (stamps - ORIGIN)
    return keys


# Rows into cells ----------------------------------------------------------------------------------


def fold(rows: Rows) -> Cells:
    """Fold rows into cells: from a cell's last ``set`` on, quantities add."""
    if not len(rows):
        return NO_CELLS
    packed = _fold_by_value(rows) if rows.sets is None else None
    return _fold_in_order(rows) if packed is None else packed


def _widths(rows: Rows) -> tuple[int, int, int]:
    """Return the earliest timestamp, and the bits of the timestamps after it and of the codes."""
    low = int(rows.moments.min())
    return low, (int(rows.moments.max()) - low).bit_length(), int(rows.codes.max()).bit_length()


def _packed(
    rows: Rows, low: int, span_bits: int, more_bits: int, lowest: Callable[[slice], Integers]
) -> Integers:
    """Return keys of item, timestamp and ``more_bits`` of something, proven to fit 63 bits."""
    keys = np.empty(len(rows), np.int64)
    for at in range(0, len(rows), BLOCK):
        block = slice(at, min(at + BLOCK, len(rows)))
        into = keys[block]
        np.left_shift(rows.codes[block], span_bits, out=into, dtype=np.int64)
        into |= rows.moments[block] - low
        into <<= more_bits
        into |= lowest(block)
    return keys


def _fold_by_value(rows: Rows) -> Cells | None:
    """Fold rows without a ``set``, where order is of no account: the quantity itself is the lower
    part of the sorted key.

    So the quantities need not be fetched from where they were, which would cost more than the sort.
    None where it does not fit.
    """
    low, span_bits, item_bits = _widths(rows)
    more_bits = int(rows.values.max()).bit_length()
    if item_bits + span_bits + more_bits > KEY_BITS or rows.bound > INT64_MAX:
        return None
    keys = _packed(rows, low, span_bits, more_bits, rows.values.__getitem__)
    keys.sort()
    values = keys & (2**more_bits - 1)
    keys >>= more_bits
    starts = starts_of(keys)
    if len(starts) < len(keys):
        keys = keys[starts]
        values = segment_sums(values, starts, np.append(starts[1:], len(values)))
    return Cells(_unpacked(keys, low, span_bits), values, None, rows.bound)


def _unpacked(groups: Integers, low: int, span_bits: int) -> Integers:
    """Turn narrow keys into those of :func:`keys_of`, in place."""
    for at in range(0, len(groups), BLOCK):
        block = groups[at : at + BLOCK]
        stamps = block & (2**span_bits - 1)
        block >>= span_bits
        block <<= STAMP_BITS
        block += stamps
        block += low - ORIGIN
    return groups


def _fold_in_order(rows: Rows) -> Cells:
    order, groups, unpacked = arrival_order(rows)
    starts = starts_of(groups)
    keys = unpacked(groups[starts])
    del groups
    values, sets = _in_order(rows, order)
    return _cells(keys, starts, values, sets, rows.bound)


def _in_order(rows: Rows, order: NDArray[np.intp]) -> tuple[Numbers, Flags | None]:
    """Return quantities and sets in another order, with one fetch for both, which costs."""
    if rows.sets is None or rows.values.dtype == np.object_:
        return rows.values[order], None if rows.sets is None else rows.sets[order]
    # The quantities of sets are inverted, so negative.
    values = (rows.values ^ -rows.sets.astype(np.int64))[order]
    sets = values < 0
    values ^= values >> 63
    return values, sets


def arrival_order(rows: Rows) -> tuple[NDArray[np.intp], Integers, Callable[[Integers], Integers]]:
    """Return places by cell and arrival, what tells cells apart there, and how to unpack it."""
    low, span_bits, item_bits = _widths(rows)
    more_bits = (len(rows) - 1).bit_length()
    if item_bits + span_bits + more_bits > KEY_BITS:
        groups = keys_of(rows.codes, rows.moments)
        places = np.argsort(groups, kind="stable")
        return places, groups[places], lambda keys: keys

    def arrival(block: slice) -> Integers:
        return np.arange(block.start, block.stop, dtype=np.int64)

    keys = _packed(rows, low, span_bits, more_bits, arrival)
    keys.sort()
    order = (keys & (2**more_bits - 1)).astype(np.intp, copy=False)
    keys >>= more_bits
    return order, keys, lambda groups: _unpacked(groups, low, span_bits)


def starts_of(groups: Integers) -> NDArray[np.intp]:
    """Return where a new value begins in sorted ones."""
    flags = np.empty(len(groups), np.bool_)
    flags[:1] = True
    np.not_equal(groups[1:], groups[:-1], out=flags[1:])
    return np.flatnonzero(flags)


def _cells(
    keys: Integers, starts: NDArray[np.intp], values: Numbers, sets: Flags | None, bound: int
) -> Cells:
    """Sum rows that stand cell by cell, in each from its last ``set`` on."""
    ends = np.append(starts[1:], len(values))
    firsts, were_set = (starts, None) if sets is None else _last_sets(sets, starts)
    summed = segment_sums(summable(values, bound), firsts, ends)
    return Cells(keys, narrowed(summed), were_set, bound)


def _last_sets(sets: Flags, starts: NDArray[np.intp]) -> tuple[NDArray[np.intp], Flags | None]:
    """Return where each cell begins to count, at its last ``set``, and which cells have one."""
    places = np.flatnonzero(sets)
    if not len(places):
        return starts, None
    numbers = np.zeros(len(sets), np.int32)
    numbers[starts[1:]] = 1
    cells = np.cumsum(numbers, out=numbers)[places]
    is_last = np.append(cells[1:] != cells[:-1], True)  # The last of all is the last of its cell.
    firsts = starts.copy()
    firsts[cells[is_last]] = places[is_last]
    were_set = np.zeros(len(starts), np.bool_)
    were_set[cells] = True
    return firsts, were_set


def segment_sums(values: Numbers, firsts: NDArray[np.intp], ends: NDArray[np.intp]) -> Numbers:
    """Return the sum of each segment; that of all values fits. Most segments are a single value."""
    sums = values[firsts]
    longer = np.flatnonzero(ends - firsts > 1)
    if len(longer):
        bounds = np.column_stack([firsts[longer], ends[longer]]).ravel()
        if bounds[-1] == len(values):
            bounds = bounds[:-1]
        sums[longer] = np.add.reduceat(values, bounds)[::2]
    return sums


def merge(runs: Sequence[Cells]) -> Cells:
    """Merge cells of earlier and later rows, in this order; the sort finds the sorted runs."""
    some = [run for run in runs if len(run)]
    if len(some) < 2:
        return some[0] if some else NO_CELLS
    bound = sum(run.bound for run in some)
    keys = np.concatenate([run.keys for run in some])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = starts_of(keys)
    values = np.concatenate([run.values for run in some])[order]
    sets = _joined_sets(some)
    return _cells(keys[starts], starts, values, None if sets is None else sets[order], bound)
