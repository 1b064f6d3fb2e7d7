"""The fold, on columns: rows into cells, and cells into one number per item, exactly.

Nothing here may wrap. A sum of quantities is taken in one 64-bit integer only where a bound proves
that it fits: quantities are never negative, so no subset of some rows sums to more than all of
them, and :attr:`Rows.bound` says how much that is at most. Where the proof fails, quantities are
cut into two limbs of 32 bits, whose sums fit for up to 2**31 rows.

A cell is packed into one integer, the item's code above 39 bits of seconds since the year 1, so
that sorted keys are the cells of item after item, each in the order of time. To fold, rows are
sorted by a packed key as well, because sorting plain integers is many times the speed of sorting
indices; a key that would need more than 63 bits is not packed, and its rows are sorted by index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import INT64_MAX, ORIGIN, ROWS_MAX, Flags, Integers
from metering_core.exact import Number

STAMP_BITS: Final = 39
"""Bits that hold the seconds from the year 1 to 9999."""

CODES_MAX: Final = 2 ** (63 - STAMP_BITS)
"""So many items, at most: their cells are packed into 63 bits."""

BLOCK: Final = 1 << 16
"""Rows that are worked on at a time, so that what is in between stays in the cache."""

_LIMB_BITS: Final = 32
_LIMB_MASK: Final = 2**_LIMB_BITS - 1
_KEY_BITS: Final = 63
_FEW_SETS: Final = 6
"""Rows with a ``set`` are few where they are less than one in so many."""

_SPARSE: Final = 4
"""The table of touched cells has 2 to this power entries for each of them, or more."""


@attrs.frozen(eq=False)
class Rows:
    """Usage as columns in the order of arrival, all equally long.

    Attributes:
        codes: which item, from 0.
        stamps: Unix seconds.
        limbs: the quantities, or their upper and lower 32 bits.
        sets: where a row overwrites what came before it in its cell; None for nowhere.
        bound: what all quantities together sum to at most.
        low: no timestamp is earlier.
        high: no timestamp is later.
        greatest: no quantity is greater.
        are_cells: whether it is known that no two rows are of one cell.
    """

    codes: NDArray[Any]
    stamps: Integers
    limbs: tuple[Integers, ...]
    sets: Flags | None
    bound: int
    low: int
    high: int
    greatest: int
    are_cells: bool = False

    @classmethod
    def of(
        cls, codes: NDArray[Any], stamps: Integers, quantities: Integers, sets: Flags | None
    ) -> Self:
        """Measure some columns."""
        low, high = (int(stamps.min()), int(stamps.max())) if len(stamps) else (0, 0)
        greatest = int(quantities.max(initial=0))
        held = sets if sets is not None and sets.any() else None
        return cls(
            codes, stamps, (quantities,), held, _bound(quantities, greatest), low, high, greatest
        )

    def __len__(self) -> int:
        return len(self.codes)

    def part(self, which: slice | Flags | NDArray[np.intp] | NDArray[np.int32]) -> Self:
        """Return some of the rows; the bounds stay true."""
        return attrs.evolve(
            self,
            codes=self.codes[which],
            stamps=self.stamps[which],
            limbs=tuple(limb[which] for limb in self.limbs),
            sets=None if self.sets is None else self.sets[which],
        )


@attrs.frozen(eq=False)
class Cells:
    """Cells in the order of their keys, no key twice.

    Attributes:
        keys: item and timestamp, packed.
        limbs: the quantities, or their upper and lower 32 bits.
        sets: where a ``set`` was among the cell's rows; None for nowhere.
        bound: what all quantities together sum to at most.
    """

    keys: Integers
    limbs: tuple[Integers, ...]
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
        return attrs.evolve(
            self, keys=self.keys[which], limbs=tuple(limb[which] for limb in self.limbs), sets=sets
        )

    def as_rows(self) -> Rows:
        """Return each cell as a row of its own."""
        stamps = self.stamps
        low, high = (int(stamps.min()), int(stamps.max())) if len(stamps) else (0, 0)
        return Rows(
            self.codes, stamps, self.limbs, None, self.bound, low, high, self.bound, are_cells=True
        )

    def between(self, code: int, start: int, end: int) -> Self:
        """Return the cells of an item from the timestamp ``start`` to before ``end``."""
        ends = np.array([key_of(code, start), key_of(code, end)], dtype=np.int64)
        first, last = np.searchsorted(self.keys, ends).tolist()
        return self.part(slice(first, last))


NO_CELLS: Final = Cells(np.empty(0, np.int64), (np.empty(0, np.int64),), None, 0)


def key_of(code: int, stamp: int) -> int:
    """Pack a cell, or the first moment after the last cell of an item."""
    seconds: int = min(max(stamp - ORIGIN, 0), 2**STAMP_BITS - 1)
    return (code << STAMP_BITS) + seconds


def keys_of(codes: NDArray[Any], stamps: Integers) -> Integers:
    """Pack cells."""
    keys: Integers = (codes.astype(np.int64) << STAMP_BITS) + (stamps - ORIGIN)
    return keys


def _bound(quantities: Integers, greatest: int) -> int:
    """Return what quantities sum to at most; exactly where the cheap bound would ask for two
    limbs.
    """
    cheap = greatest * len(quantities)
    return cheap if cheap <= INT64_MAX else exact_sum(quantities)


def exact_sum(quantities: Integers) -> int:
    """Return the sum of non-negative 64-bit integers, however large."""
    assert len(quantities) <= ROWS_MAX, "the sums of the limbs fit"
    upper, lower = int((quantities >> _LIMB_BITS).sum()), int((quantities & _LIMB_MASK).sum())
    return (upper << _LIMB_BITS) + lower


def summable(limbs: tuple[Integers, ...], bound: int) -> tuple[Integers, ...]:
    """Return quantities as limbs whose sums cannot wrap: one where the bound proves that it
    suffices, else two.
    """
    if len(limbs) == 2 or bound <= INT64_MAX:
        return limbs
    assert len(limbs[0]) <= ROWS_MAX, "the sums of the limbs fit"
    return limbs[0] >> _LIMB_BITS, limbs[0] & _LIMB_MASK


def carried(limbs: tuple[Integers, ...]) -> tuple[Integers, ...]:
    """Carry what the lower limb holds above 32 bits to the upper one, so that equal numbers have
    equal limbs.
    """
    if len(limbs) == 1:
        return limbs
    return limbs[0] + (limbs[1] >> _LIMB_BITS), limbs[1] & _LIMB_MASK


def whole(limbs: tuple[Integers, ...]) -> list[int]:
    """Return quantities as Python integers, which know no limit."""
    if len(limbs) == 1:
        only: list[int] = limbs[0].tolist()
        return only
    return [
        (upper << _LIMB_BITS) + lower
        for upper, lower in zip(limbs[0].tolist(), limbs[1].tolist(), strict=True)
    ]


def as_array(limbs: tuple[Integers, ...]) -> NDArray[Any]:
    """Return quantities as an array of 64-bit integers, or of Python integers where one does not
    fit.
    """
    if len(limbs) == 1:
        return limbs[0]
    if not len(limbs[0]) or int(limbs[0].max()) < 2 ** (63 - _LIMB_BITS):
        return (limbs[0] << _LIMB_BITS) + limbs[1]
    return as_array_of(whole(limbs))


def as_array_of(values: Sequence[Number]) -> NDArray[Any]:
    """Return numbers as an array of 64-bit integers, or of Python's own where one is not whole or
    does not fit.
    """
    fit = all(isinstance(value, int) for value in values) and max(values, default=0) <= INT64_MAX
    found = np.empty(len(values), np.int64 if fit else np.object_)
    found[:] = values  # type: ignore[assignment]  # also of objects
    return found


# Rows into cells ----------------------------------------------------------------------------------


def fold(rows: Rows) -> Cells:
    """Fold rows into cells: from a cell's last ``set`` on, quantities add."""
    if not len(rows):
        return NO_CELLS
    packed = _fold_by_value(rows) if rows.sets is None and len(rows.limbs) == 1 else None
    return _fold_in_order(rows) if packed is None else packed


def _widths(rows: Rows) -> tuple[int, int, int]:
    """Return the earliest timestamp and how many bits the timestamps after it and the codes
    take.
    """
    low = int(rows.stamps.min())
    return low, (int(rows.stamps.max()) - low).bit_length(), int(rows.codes.max()).bit_length()


def _packed(
    rows: Rows, low: int, span_bits: int, more_bits: int, lowest: Callable[[slice], Integers]
) -> Integers:
    """Return keys of item, timestamp and ``more_bits`` of something; the caller has proven that
    they fit 63 bits.
    """
    keys = np.empty(len(rows), np.int64)
    for at in range(0, len(rows), BLOCK):
        block = slice(at, min(at + BLOCK, len(rows)))
        into = keys[block]
        np.left_shift(rows.codes[block], span_bits, out=into, dtype=np.int64)
        into |= rows.stamps[block] - low
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
    quantities = rows.limbs[0]
    more_bits = int(quantities.max()).bit_length()
    if item_bits + span_bits + more_bits > _KEY_BITS or rows.bound > INT64_MAX:
        return None
    keys = _packed(rows, low, span_bits, more_bits, quantities.__getitem__)
    keys.sort()
    values = keys & (2**more_bits - 1)
    keys >>= more_bits
    starts = _starts(keys)
    if len(starts) < len(keys):
        keys = keys[starts]
        values = _segment_sums(values, starts, np.append(starts[1:], len(values)))
    return Cells(_unpacked(keys, low, span_bits), (values,), None, rows.bound)


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
    order, groups, unpacked = _arrival_order(rows)
    starts = _starts(groups)
    keys = unpacked(groups[starts])
    del groups
    limbs, sets = _in_order(rows, order)
    return _cells(keys, starts, limbs, sets, rows.bound)


def _in_order(rows: Rows, order: NDArray[np.intp]) -> tuple[tuple[Integers, ...], Flags | None]:
    """Return the quantities and where rows are a ``set`` in another order; with one fetch for both,
    which is what costs.
    """
    if rows.sets is None or len(rows.limbs) == 2:
        return tuple(limb[order] for limb in rows.limbs), None if rows.sets is None else rows.sets[
            order
        ]
    values = (rows.limbs[0] ^ -rows.sets.astype(np.int64))[
        order
    ]  # The quantities of sets are inverted, so negative.
    sets = values < 0
    values ^= values >> 63
    return (values,), sets


def _arrival_order(rows: Rows) -> tuple[NDArray[np.intp], Integers, Callable[[Integers], Integers]]:
    """Return the rows' places by cell and, within one, by arrival; what tells cells apart in that
    order; how to unpack it.
    """
    low, span_bits, item_bits = _widths(rows)
    more_bits = (len(rows) - 1).bit_length()
    if item_bits + span_bits + more_bits > _KEY_BITS:
        groups = keys_of(rows.codes, rows.stamps)
        places = np.argsort(groups, kind="stable")
        return places, groups[places], lambda keys: keys
    keys = _packed(
        rows,
        low,
        span_bits,
        more_bits,
        lambda block: np.arange(block.start, block.stop, dtype=np.int64),
    )
    keys.sort()
    order = (keys & (2**more_bits - 1)).astype(np.intp, copy=False)
    keys >>= more_bits
    return order, keys, lambda groups: _unpacked(groups, low, span_bits)


def _starts(groups: Integers) -> NDArray[np.intp]:
    """Return where a new value begins in sorted ones."""
    flags = np.empty(len(groups), np.bool_)
    flags[:1] = True
    np.not_equal(groups[1:], groups[:-1], out=flags[1:])
    return np.flatnonzero(flags)


def _cells(
    keys: Integers,
    starts: NDArray[np.intp],
    limbs: tuple[Integers, ...],
    sets: Flags | None,
    bound: int,
) -> Cells:
    """Sum rows that stand cell by cell, in each from its last ``set`` on."""
    ends = np.append(starts[1:], len(limbs[0]))
    firsts, were_set = (starts, None) if sets is None else _last_sets(sets, starts)
    summed = tuple(_segment_sums(limb, firsts, ends) for limb in summable(limbs, bound))
    return Cells(keys, carried(summed), were_set, bound)


def _last_sets(sets: Flags, starts: NDArray[np.intp]) -> tuple[NDArray[np.intp], Flags | None]:
    """Return where each cell begins to count, which is at its last ``set``, and which cells have
    one.
    """
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


def _segment_sums(values: Integers, firsts: NDArray[np.intp], ends: NDArray[np.intp]) -> Integers:
    """Return the sum of each segment; that of all values fits 64 bits. Most segments are a single
    value.
    """
    sums = values[firsts]
    longer = np.flatnonzero(ends - firsts > 1)
    if len(longer):
        bounds = np.column_stack([firsts[longer], ends[longer]]).ravel()
        if bounds[-1] == len(values):
            bounds = bounds[:-1]
        sums[longer] = np.add.reduceat(values, bounds)[::2]
    return sums


def merge(runs: Sequence[Cells]) -> Cells:
    """Merge cells of earlier and later rows, in this order; the sort finds the sorted runs and only
    merges them.
    """
    some = [run for run in runs if len(run)]
    if len(some) < 2:
        return some[0] if some else NO_CELLS
    bound = sum(run.bound for run in some)
    keys = np.concatenate([run.keys for run in some])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = _starts(keys)
    wide = bound > INT64_MAX or any(len(run.limbs) == 2 for run in some)
    halves = [summable(run.limbs, INT64_MAX + 1) if wide else run.limbs for run in some]
    limbs = tuple(np.concatenate(limb)[order] for limb in zip(*halves, strict=True))
    return _cells(keys[starts], starts, limbs, _merged_sets(some, order), bound)


def _merged_sets(runs: Sequence[Cells], order: NDArray[np.intp]) -> Flags | None:
    if all(run.sets is None for run in runs):
        return None
    flags = [np.zeros(len(run), np.bool_) if run.sets is None else run.sets for run in runs]
    return np.concatenate(flags)[order]


# One number per item ------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Window:
    """What is asked for of each item: timestamps from ``lows`` to before ``highs``; nothing where
    they exclude each other.
    """

    lows: Integers
    highs: Integers

    @property
    def size(self) -> int:
        """The number of items."""
        return len(self.lows)

    def blocks(self, parts: Sequence[Rows]) -> Iterator[Rows]:
        """Yield what is asked for of some rows, a block at a time."""
        if not self.size:
            return
        earliest, latest = int(self.lows.min()), int(self.highs.max())
        surely, until = int(self.lows.max()), int(self.highs.min())
        for part in parts:
            if part.high < earliest or part.low >= latest:
                continue
            is_whole = surely <= part.low and part.high < until
            for at in range(0, len(part), BLOCK):
                block = part.part(slice(at, at + BLOCK))
                yield block if is_whole else block.part(self._holds(block))

    def together(self, parts: Sequence[Rows], bound: int) -> Rows:
        """Return what is asked for of some rows, as one; without a copy where it is all of them."""
        if (
            len(parts) == 1
            and int(self.lows.max()) <= parts[0].low
            and parts[0].high < int(self.highs.min())
        ):
            return parts[0]
        return joined(list(self.blocks(parts)), bound)

    def _holds(self, rows: Rows) -> NDArray[np.intp]:
        places = rows.codes.astype(np.intp, copy=False)
        return np.flatnonzero(
            (self.lows[places] <= rows.stamps) & (rows.stamps < self.highs[places])
        )


@attrs.frozen(eq=False)
class Totals:
    """One number per item, by code; ``stamps`` and ``is_there`` where the mode needs them."""

    limbs: tuple[Integers, ...]
    stamps: Integers | None = None
    is_there: Flags | None = None

    def of(self, codes: NDArray[np.intp]) -> Self:
        """Return the numbers of some items."""
        stamps = None if self.stamps is None else self.stamps[codes]
        return type(self)(
            tuple(limb[codes] for limb in self.limbs),
            stamps,
            None if self.is_there is None else self.is_there[codes],
        )


def _bound_of(parts: Sequence[Rows]) -> int:
    return sum(part.bound for part in parts)


def _accumulate(operation: np.ufunc, totals: tuple[Integers, ...], rows: Rows, bound: int) -> None:
    """Add rows to the totals of their items, or subtract what was added before."""
    places = rows.codes.astype(np.intp, copy=False)
    for total, limb in zip(totals, summable(rows.limbs, bound), strict=True):
        operation.at(total, places, limb)


def _width(parts: Sequence[Rows], bound: int) -> int:
    """Return how many limbs the sums of some rows take."""
    return 2 if bound > INT64_MAX or any(len(part.limbs) == 2 for part in parts) else 1


def sums(parts: Sequence[Rows], window: Window) -> Totals:
    """Return for each item the sum of its cells."""
    bound = _bound_of(parts)
    totals = tuple(np.zeros(window.size, np.int64) for _ in range(_width(parts, bound)))
    # Two limbs where any part has two, so that all add up in the same shape.
    wide = INT64_MAX + 1 if len(totals) == 2 else bound
    touched = _Touched.of(parts)
    held: list[Rows] = []
    for rows in window.blocks(parts):
        _accumulate(np.add, totals, rows, wide)
        if touched is not None:
            held.append(touched.among(rows))
    # Rows that share a cell with a `set` were added too: they are taken back, and what their cells
    # come to is added.
    together = joined(held, bound)
    collided = together.part(_collisions(together))
    _accumulate(np.subtract, totals, collided, wide)
    _accumulate(np.add, totals, fold(collided).as_rows(), wide)
    return Totals(carried(totals))


def maxima(parts: Sequence[Rows], window: Window) -> Totals:
    """Return for each item its greatest cell.

    A row that is alone in its cell is the cell, whether it is a ``set`` or not. So only the others
    are folded.
    """
    bound = _bound_of(parts)
    best = tuple(np.full(window.size, -1, np.int64) for _ in range(_width(parts, bound)))
    rows = window.together(parts, bound)
    collided = _collisions(rows)
    if 2 * len(collided) > len(rows):
        _raise(best, *_greatest(fold(rows)))
        return Totals(best, is_there=best[0] >= 0)
    alone = np.ones(len(rows), np.bool_)
    alone[collided] = False
    for at in range(0, len(rows), BLOCK):
        block = slice(at, at + BLOCK)
        some = rows.part(block) if alone[block].all() else rows.part(block).part(alone[block])
        _raise(best, some.codes, some.limbs)
    _raise(best, *_greatest(fold(rows.part(collided))))
    return Totals(best, is_there=best[0] >= 0)


def _collisions(rows: Rows) -> NDArray[np.intp]:
    """Return the places of the rows that are not alone in their cell, cell by cell in the order of
    arrival.
    """
    if len(rows) < 2 or rows.are_cells:
        return np.empty(0, np.intp)
    order, groups, _ = _arrival_order(rows)
    flags = np.zeros(len(rows), np.bool_)
    is_same = groups[1:] == groups[:-1]
    flags[1:] = is_same
    flags[:-1] |= is_same
    return order[flags]


def _greatest(cells: Cells) -> tuple[Integers, tuple[Integers, ...]]:
    """Return the greatest cell of each item, where quantities have one limb; else all cells."""
    codes = cells.codes
    if len(cells.limbs) == 2 or not len(cells):
        return codes, cells.limbs
    starts = _starts(codes)
    return codes[starts], (np.maximum.reduceat(cells.limbs[0], starts),)


def _raise(best: tuple[Integers, ...], codes: NDArray[Any], limbs: tuple[Integers, ...]) -> None:
    """Raise each item's best to the greatest of some quantities."""
    places = codes.astype(np.intp, copy=False)
    if len(best) == 1:
        np.maximum.at(best[0], places, limbs[0])
        return
    upper, lower = carried(summable(limbs, INT64_MAX + 1))
    before = best[0].copy()
    np.maximum.at(best[0], places, upper)
    best[1][best[0] > before] = -1
    is_best = upper == best[0][places]
    np.maximum.at(best[1], places[is_best], lower[is_best])


def lasts(parts: Sequence[Rows], window: Window) -> Totals:
    """Return for each item its latest cell: the greatest timestamps first, and then only the rows
    there are folded.
    """
    nothing = ORIGIN - 1
    latest = np.full(window.size, nothing, np.int64)
    for rows in window.blocks(parts):
        np.maximum.at(latest, rows.codes.astype(np.intp, copy=False), rows.stamps)
    deciding = [
        rows.part(np.flatnonzero(rows.stamps == latest[rows.codes.astype(np.intp, copy=False)]))
        for rows in window.blocks(parts)
    ]
    cells = fold(joined(deciding, _bound_of(parts)))
    limbs = tuple(np.zeros(window.size, np.int64) for _ in cells.limbs)
    for limb, values in zip(limbs, cells.limbs, strict=True):
        limb[cells.codes] = values
    return Totals(limbs, latest, latest > nothing)


def joined(parts: Sequence[Rows], bound: int) -> Rows:
    """Return rows one after the other, as one."""
    some = [part for part in parts if len(part)]
    if len(some) == 1:
        return some[0]
    if not some:
        nothing = np.empty(0, np.int64)
        return Rows(nothing, nothing, (nothing,), None, 0, 0, 0, 0)
    width = max(len(part.limbs) for part in some)
    halves = [
        carried(summable(part.limbs, INT64_MAX + 1)) if width == 2 else part.limbs for part in some
    ]
    flags = [np.zeros(len(part), np.bool_) if part.sets is None else part.sets for part in some]
    return Rows(
        np.concatenate([part.codes for part in some]),
        np.concatenate([part.stamps for part in some]),
        tuple(np.concatenate(limb) for limb in zip(*halves, strict=True)),
        None if all(part.sets is None for part in some) else np.concatenate(flags),
        bound,
        min(part.low for part in some),
        max(part.high for part in some),
        bound,
    )


# Cells that a `set` touched are few: only their rows need to be folded in order -------------------


@attrs.frozen(eq=False)
class _Touched:
    """The cells in which a ``set`` occurs, and by chance of hashing some others; all where they are
    many (no ``table``).
    """

    table: Flags | None
    shift: int

    @classmethod
    def of(cls, parts: Sequence[Rows]) -> Self | None:
        """Mark the cells of all ``set`` rows; None where there is none."""
        marked = [(part, np.flatnonzero(part.sets)) for part in parts if part.sets is not None]
        number = sum(len(rows) for _, rows in marked)
        if number * _FEW_SETS > sum(len(part) for part in parts):
            return cls(None, 0)
        bits = min(max(number.bit_length() + _SPARSE, 10), 24)
        table = np.zeros(1 << bits, np.bool_)
        for part, rows in marked:
            table[_hash(part.codes[rows], part.stamps[rows], 64 - bits)] = True
        return cls(table, 64 - bits) if number else None

    def among(self, rows: Rows) -> Rows:
        """Return the rows that may be of a marked cell, certainly those that are."""
        if self.table is None:
            return rows
        return rows.part(np.flatnonzero(self.table[_hash(rows.codes, rows.stamps, self.shift)]))


def _hash(codes: NDArray[Any], stamps: Integers, shift: int) -> NDArray[np.int64]:
    # These unsigned products wrap on purpose: they only choose which rows are folded in order,
    # which is right for any.
    mixed = codes.astype(np.uint64)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed += stamps.view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed >>= np.uint64(shift)
    return mixed.view(np.int64)
