"""Sums of meter events by series and bucket, compiled with Numba (extra ``compiled``), on all
cores.

Where sums are few, each worker adds its rows to a table of its own. Where they are many, rows are
sorted: a key is the series, the bucket and, in its lower part, the value. Keys are spread over
units of neighbouring series, small enough for the cache, and count series from the first of their
unit, so that mostly 32 bits hold them. Each unit is sorted by NumPy, hard to beat at it, and read
off in one pass. Workers share the rows while these are spread, and the units afterwards. The caller
has proven that 63 bits hold every key, and 64 every sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import Integers, read_only
from metering_core.columnar.compiled.workers import (
    Column,
    Each,
    apart,
    each_of,
    jit,
    workers_for,
    working,
)
from metering_core.columnar.numbers import KEY_BITS


@attrs.frozen(eq=False)
class SeriesRows:
    """Series, moments and values of events; read-only, so that loops are compiled once."""

    codes: NDArray[np.int32] = attrs.field(converter=read_only)
    moments: Integers = attrs.field(converter=read_only)
    values: Integers = attrs.field(converter=read_only)

    def shares(self, workers: int) -> list[SeriesRows]:
        """Cut rows into a share for each worker."""
        edges = [len(self.codes) * worker // workers for worker in range(workers + 1)]
        return [
            SeriesRows(self.codes[at:to], self.moments[at:to], self.values[at:to])
            for at, to in pairwise(edges)
        ]


class Sums(NamedTuple):
    """Series, bucket, sum and count of all that have rows, in the order of series and buckets."""

    codes: Column
    places: Column
    sums: Integers
    counts: Column


TABLE_ROWS: Final = 2
"""With fewer rows for each sum than this, a table of all sums is slower than sorting: its entries
are fetched at random.
"""

UNIT_ROWS: Final = 50_000
"""A unit has about so many rows."""

UNITS_MAX: Final = 64
"""So many units at most: rows are spread over them at random, and each is another place to write
to.
"""


@jit
def _count(codes: Column, shift: np.int64, counts: Column) -> None:
    """Count the rows of each unit."""
    for i in range(len(codes)):
        counts[np.uint64(codes[i]) >> np.uint64(shift)] += 1


@jit
def _spread(
    codes: Column, moments: Column, values: Column, grid: Column, into: Column, keys: Column
) -> None:
    """Write the key of each row to where the next one of its unit belongs."""
    start, length, buckets, shift, width, least = grid
    for i in range(len(codes)):
        code = np.uint64(codes[i])
        bucket = np.uint64(moments[i] - start) // np.uint64(length)
        unit = code >> np.uint64(shift)
        number = (code - (unit << np.uint64(shift))) * np.uint64(buckets) + bucket
        keys[into[unit]] = number << np.uint64(width) | np.uint64(values[i] - least)
        into[unit] += 1


@jit
def _runs(keys: Column, width: np.int64) -> np.int64:
    """Count the runs of keys that are equal above their value."""
    found = np.int64(len(keys) > 0)
    for i in range(1, len(keys)):
        found += np.uint64(keys[i]) >> np.uint64(width) != np.uint64(keys[i - 1]) >> np.uint64(
            width
        )
    return found


@jit
def _read_off(
    keys: Column,
    base: np.int64,
    grid: Column,
    codes: Column,
    places: Column,
    sums: Column,
    counts: Column,
) -> None:
    """Write series, bucket, sum and count of each run of keys of a unit from ``base`` on."""
    buckets, width, least = np.uint64(grid[2]), np.uint64(grid[4]), grid[5]
    mask = (np.uint64(1) << width) - np.uint64(1)
    at, total, events = ~np.uint64(0), np.int64(0), np.int64(0)
    code, below, last = np.uint64(base), np.uint64(0), ~np.uint64(0)
    for i in range(len(keys)):
        number = np.uint64(keys[i]) >> width
        # Without a branch: how long a run is cannot be guessed, and a wrong guess costs more than
        # to write each row of it.
        is_same = np.int64(number == last)
        total = total * is_same + np.int64(np.uint64(keys[i]) & mask)
        events = events * is_same + 1
        while number - below >= buckets:
            code, below = code + np.uint64(1), below + buckets
        at += np.uint64(1 - is_same)
        codes[at], places[at], sums[at], counts[at] = (
            code,
            number - below,
            total + least * events,
            events,
        )
        last = number


@jit
def _add(codes: Column, moments: Column, values: Column, grid: Column, table: Column) -> None:
    """Add each row to the sum of its series and bucket, above the bits of their count."""
    start, length, buckets, bits, least = grid
    for i in range(len(codes)):
        bucket = np.uint64(moments[i] - start) // np.uint64(length)
        table[np.uint64(codes[i]) * np.uint64(buckets) + bucket] += (
            (values[i] - least) << bits
        ) + 1


@jit
def _tell(
    table: Column, grid: Column, codes: Column, places: Column, sums: Column, counts: Column
) -> None:
    """Write the series, bucket, sum and count of each entry of a table that has rows."""
    _, _, buckets, bits, least = grid
    mask, at = (np.int64(1) << bits) - 1, np.uint64(0)
    for code in range(len(table) // buckets):
        for place in range(buckets):
            packed = table[np.uint64(code * buckets + place)]
            if packed:
                codes[at], places[at], counts[at] = code, place, packed & mask
                sums[at] = (packed >> bits) + least * (packed & mask)
                at += np.uint64(1)


def _columns(length: int) -> list[Column]:
    """Return room for series, buckets, sums and counts: one piece of memory, in large pages."""
    sums, *others = np.split(np.empty(5 * length, np.int32), [2 * length, 3 * length, 4 * length])
    codes, places, counts = others
    return [codes, places, sums.view(np.int64), counts]


def _table_sums(
    rows: SeriesRows, size: int, buckets: tuple[int, int, int], bits: int, least: int
) -> Sums:
    """Return sums that are few for the rows; the lower ``bits`` of each entry count."""
    workers = workers_for(len(rows.codes))
    grid = np.array([*buckets, bits, least], np.int64)

    def work(share: SeriesRows) -> Integers:
        table = np.zeros(size * buckets[2], np.int64)
        _add(share.codes, share.moments, share.values, grid, table)
        return table

    table, *others = each_of(work, rows.shares(workers), workers)
    for other in others:
        table += other
    columns = _columns(int(np.count_nonzero(table)))
    _tell(table, grid, *columns)
    return Sums(*columns)


def bucket_sums(
    rows: SeriesRows, size: int, buckets: tuple[int, int, int], width: int, least: int
) -> Sums:
    """Return the sums of events that all lie in a bucket.

    Args:
        rows: the events; at least one.
        size: the number of series.
        buckets: where the first begins, how long each is, and how many there are.
        width: the bits that a value takes after ``least`` was taken off.
        least: the least value.
    """
    bits = len(rows.codes).bit_length()
    if TABLE_ROWS * size * buckets[2] <= len(rows.codes) and width + 2 * bits <= KEY_BITS:
        return _table_sums(rows, size, buckets, bits, least)
    workers = workers_for(len(rows.codes))
    shift = max((size - 1) // min(max(len(rows.codes) // UNIT_ROWS, 1), UNITS_MAX), 1).bit_length()
    grid = np.array([*buckets, shift, width, least], np.int64)
    with working(workers) as each:
        return _sorted_sums(
            _units(rows.shares(workers), ((size - 1) >> shift) + 1, grid, each), grid, each
        )


def _sorted_sums(units: Sequence[Column], grid: Integers, each: Each) -> Sums:
    """Return the sums of the keys of some units."""

    def runs(unit: Column) -> int:
        unit.sort()
        return int(_runs(unit, grid[4]))

    ends = np.cumsum(each(runs, units))
    columns = _columns(int(ends[-1]))
    parts = list(zip(*(np.split(column, ends[:-1]) for column in columns), strict=True))

    def read_off(unit: int) -> None:
        _read_off(units[unit], np.int64(unit) << grid[3], grid, *parts[unit])

    each(read_off, range(len(units)))
    return Sums(*columns)


def _units(shares: Sequence[SeriesRows], number: int, grid: Integers, each: Each) -> list[Column]:
    """Return the keys of the rows, unit by unit."""
    tallies = apart(np.zeros((len(shares), number), np.int64))
    each(lambda one: _count(shares[one].codes, grid[3], tallies[one]), range(len(shares)))
    # Unit after unit, and in each worker after worker: where each of them writes.
    into = apart((np.cumsum(tallies.T) - tallies.T.ravel()).reshape(tallies.T.shape).T)
    # Keys of half the width are sorted in half the time.
    bits = ((int(grid[2]) << int(grid[3])) - 1).bit_length() + int(grid[4])
    keys = np.empty(int(tallies.sum()), np.uint32 if bits <= 32 else np.uint64)
    firsts = into[0, 1:].copy()

    def spread(one: int) -> None:
        _spread(shares[one].codes, shares[one].moments, shares[one].values, grid, into[one], keys)

    each(spread, range(len(shares)))
    return np.split(keys, firsts)
