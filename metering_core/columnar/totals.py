"""One number for each item, from rows of many: sums, greatest and latest cells.

Most rows are alone in their cell, so few have to be folded: of a sum those of cells that a ``set``
touched, of a maximum those that share a cell, and of what comes last those of the latest moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar import folding
from metering_core.columnar.arrays import INT64_MAX, ORIGIN, Flags, Integers
from metering_core.columnar.folding import Rows, arrival_order, fold, joined
from metering_core.columnar.numbers import Numbers

_FEW_SETS: Final = 6
"""Rows with a ``set`` are few where they are less than one in so many."""

_SPARSE: Final = 4
"""The table of touched cells has 2 to this power entries for each of them, or more."""


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

    def takes_all(self, rows: Rows) -> bool:
        """Whether all rows are asked for, as their bounds tell."""
        return int(self.lows.max()) <= rows.low and rows.high < int(self.highs.min())

    def takes_some(self, rows: Rows) -> bool:
        """Whether a row may be asked for, as their bounds tell."""
        return rows.high >= int(self.lows.min()) and rows.low < int(self.highs.max())

    def blocks(self, parts: Sequence[Rows]) -> Iterator[Rows]:
        """Yield what is asked for of some rows, a block at a time."""
        for part in parts if self.size else ():
            if self.takes_some(part):
                takes_all = self.takes_all(part)
                for at in range(0, len(part), folding.BLOCK):
                    block = part.part(slice(at, at + folding.BLOCK))
                    yield block if takes_all else block.part(self._holds(block))

    def together(self, parts: Sequence[Rows]) -> Rows:
        """Return what is asked for of some rows, as one; without a copy where it is all of them."""
        is_whole = len(parts) == 1 and self.takes_all(parts[0])
        return parts[0] if is_whole else joined(list(self.blocks(parts)))

    def _holds(self, rows: Rows) -> NDArray[np.intp]:
        places = rows.codes.astype(np.intp, copy=False)
        return np.flatnonzero(
            (self.lows[places] <= rows.moments) & (rows.moments < self.highs[places])
        )


@attrs.frozen(eq=False)
class Totals:
    """One number per item, by code; ``stamps`` and ``is_there`` where the mode needs them."""

    values: Numbers
    stamps: Integers | None = None
    is_there: Flags | None = None

    def of(self, codes: NDArray[np.intp]) -> Self:
        """Return the numbers of some items."""
        stamps = None if self.stamps is None else self.stamps[codes]
        is_there = None if self.is_there is None else self.is_there[codes]
        return type(self)(self.values[codes], stamps, is_there)


def _dtype_of(parts: Sequence[Rows]) -> type[np.generic]:
    """Return in what sums of the rows fit."""
    return np.object_ if sum(part.bound for part in parts) > INT64_MAX else np.int64


def _accumulate(operation: np.ufunc, totals: Numbers, rows: Rows) -> None:
    """Put rows to the totals of their items."""
    places = rows.codes.astype(np.intp, copy=False)
    operation.at(totals, places, rows.values.astype(totals.dtype, copy=False))


def sums(parts: Sequence[Rows], window: Window) -> Totals:
    """Return for each item the sum of its cells."""
    totals = np.zeros(window.size, _dtype_of(parts))
    touched = _Touched.of(parts)
    held: list[Rows] = []
    for rows in window.blocks(parts):
        _accumulate(np.add, totals, rows)
        if touched is not None:
            held.append(touched.among(rows))
    # Rows that share a cell with a `set` were added too: they are taken back, and what their cells
    # come to is added.
    together = joined(held)
    collided = together.part(_collisions(together))
    _accumulate(np.subtract, totals, collided)
    _accumulate(np.add, totals, fold(collided).as_rows())
    return Totals(totals)


def maxima(parts: Sequence[Rows], window: Window) -> Totals:
    """Return for each item its greatest cell.

    A row that is alone in its cell is the cell, whether it is a ``set`` or not. So only the others
    are folded.
    """
    best = np.full(window.size, -1, _dtype_of(parts))
    rows = window.together(parts)
    collided = _collisions(rows)
    if 2 * len(collided) > len(rows):
        _accumulate(np.maximum, best, fold(rows).as_rows())
        return Totals(best, is_there=best >= 0)
    alone = np.ones(len(rows), np.bool_)
    alone[collided] = False
    for at in range(0, len(rows), folding.BLOCK):
        block = slice(at, at + folding.BLOCK)
        some = rows.part(block) if alone[block].all() else rows.part(block).part(alone[block])
        _accumulate(np.maximum, best, some)
    _accumulate(np.maximum, best, fold(rows.part(collided)).as_rows())
    return Totals(best, is_there=best >= 0)


def _collisions(rows: Rows) -> NDArray[np.intp]:
    """Return the places of rows that share their cell, cell by cell in the order of arrival."""
    if len(rows) < 2 or rows.are_cells:
        return np.empty(0, np.intp)
    order, groups, _ = arrival_order(rows)
    flags = np.zeros(len(rows), np.bool_)
    is_same = groups[1:] == groups[:-1]
    flags[1:] = is_same
    flags[:-1] |= is_same
    return order[flags]


def lasts(parts: Sequence[Rows], window: Window) -> Totals:
    """Return for each item its latest cell, of the rows with the greatest timestamps alone."""
    nothing = ORIGIN - 1
    latest = np.full(window.size, nothing, np.int64)
    for rows in window.blocks(parts):
        np.maximum.at(latest, rows.codes.astype(np.intp, copy=False), rows.moments)
    deciding = [
        rows.part(np.flatnonzero(rows.moments == latest[rows.codes.astype(np.intp, copy=False)]))
        for rows in window.blocks(parts)
    ]
    cells = fold(joined(deciding))
    values = np.zeros(window.size, cells.values.dtype)
    values[cells.codes] = cells.values
    return Totals(values, latest, latest > nothing)


# Cells that a `set` touched are few: only their rows need to be folded in order -------------------


@attrs.frozen(eq=False)
class _Touched:
    """The cells of a ``set``, and by chance of hashing others; all where many (no ``table``)."""

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
            table[_hash(part.codes[rows], part.moments[rows], 64 - bits)] = True
        return cls(table, 64 - bits) if number else None

    def among(self, rows: Rows) -> Rows:
        """Return the rows that may be of a marked cell, certainly those that are."""
        if self.table is None:
            return rows
        return rows.part(np.flatnonzero(self.table[_hash(rows.codes, rows.moments, self.shift)]))


def _hash(codes: NDArray[Any], stamps: Integers, shift: int) -> NDArray[np.int64]:
    # These unsigned products wrap on purpose: they only choose which rows are folded in order,
    # which is right for any.
    mixed = codes.astype(np.uint64)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed += stamps.view(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed >>= np.uint64(shift)
    return mixed.view(np.int64)
