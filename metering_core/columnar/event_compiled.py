"""Sums of meter events by series and bucket, compiled with Numba (extra ``compiled``), on all cores.

Where sums are few, each worker adds its rows to a table of its own. Where they are many, rows are sorted: a key is the series,
the bucket and, in its lower part, the value. Keys are spread over units of neighbouring series, small enough for the cache;
each unit is sorted by NumPy, which is hard to beat, and read off in one pass. Workers share the rows while these are spread,
and the units afterwards. The caller has proven that 63 bits hold every key, and 64 every sum.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.compiled import _each, _jit, _workers
from metering_core.columnar.kernel import Integers

Column = NDArray[Any]


@attrs.frozen(eq=False)
class EventRows:
    """The series, moment and value of some events."""

    codes: NDArray[np.int32]
    moments: Integers
    values: Integers

    def shares(self, workers: int) -> list[EventRows]:
        """Cut rows into a share for each worker."""
        edges = [len(self.codes) * worker // workers for worker in range(workers + 1)]
        return [EventRows(self.codes[at:to], self.moments[at:to], self.values[at:to]) for at, to in pairwise(edges)]


class Sums(NamedTuple):
    """Series, bucket, sum and count of all that have rows, in the order of series and buckets."""

    codes: Column
    places: Column
    sums: Integers
    counts: Column


_KEY_BITS: Final = 63

UNIT_ROWS: Final = 50_000
"""A unit has about so many rows."""

UNITS_MAX: Final = 64
"""So many units at most: rows are spread over them at random, and each is another place to write to."""


@_jit
def _count(codes: Column, shift: np.int64, counts: Column) -> None:
    """Count the rows of each unit."""
    for i in range(len(codes)):
        counts[np.uint64(codes[i]) >> np.uint64(shift)] += 1


@_jit
def _spread(codes: Column, moments: Column, values: Column, grid: Column, into: Column, keys: Column) -> None:
    """Write the key of each row to where the next one of its unit belongs."""
    start, length, buckets, shift, width, least = grid
    for i in range(len(codes)):
        code = np.uint64(codes[i])
        bucket = np.uint64(moments[i] - start) // np.uint64(length)
        unit = code >> np.uint64(shift)
        keys[into[unit]] = np.int64((code * np.uint64(buckets) + bucket) << np.uint64(width)) | (values[i] - least)
        into[unit] += 1


@_jit
def _runs(keys: Column, width: int) -> np.int64:
    """Count the runs of keys that are equal above their value."""
    found = np.int64(len(keys) > 0)
    for i in range(1, len(keys)):
        found += (keys[i] >> width) != (keys[i - 1] >> width)
    return found


@_jit
def _read_off(keys: Column, grid: Column, codes: Column, places: Column, sums: Column, counts: Column) -> None:
    """Write the series, bucket, sum and count of each run of keys."""
    _, _, buckets, _, width, least = grid
    mask = (np.int64(1) << width) - 1
    code = (keys[0] >> width) // buckets
    until = (code + 1) * buckets
    at, last = -1, np.int64(-1)
    for i in range(len(keys)):
        number, value = keys[i] >> width, (keys[i] & mask) + least
        if number == last:
            sums[at] += value
            counts[at] += 1
            continue
        last = number
        while number >= until:
            code += 1
            until += buckets
        at += 1
        codes[at], places[at], sums[at], counts[at] = code, number - until + buckets, value, 1


@_jit
def _add(codes: Column, moments: Column, values: Column, grid: Column, table: Column) -> None:
    """Add each row to the sum of its series and bucket, and count it: the sum above the bits of the count."""
    start, length, buckets, bits, least = grid
    for i in range(len(codes)):
        bucket = np.uint64(moments[i] - start) // np.uint64(length)
        table[np.uint64(codes[i]) * np.uint64(buckets) + bucket] += ((values[i] - least) << bits) + 1


def _table_sums(rows: EventRows, size: int, buckets: tuple[int, int, int], bits: int, least: int) -> Sums:
    """Return sums that are few for the rows; a sum and its count share 63 bits, the lower ``bits`` of which count."""
    workers = _workers(len(rows.codes))
    grid = np.array([*buckets, bits, least], np.int64)

    def work(share: EventRows) -> Integers:
        table = np.zeros(size * buckets[2], np.int64)
        _add(share.codes, share.moments, share.values, grid, table)
        return table

    table, *others = _each(work, rows.shares(workers), workers)
    for other in others:
        table += other
    numbers = np.flatnonzero(table)
    packed = table[numbers]
    codes, counts = numbers // buckets[2], packed & ((1 << bits) - 1)
    return Sums(codes, numbers - codes * buckets[2], (packed >> bits) + least * counts, counts)


def bucket_sums(rows: EventRows, size: int, buckets: tuple[int, int, int], width: int, least: int) -> Sums:
    """Return the sums of events that all lie in a bucket.

    Args:
        rows: the events; at least one.
        size: the number of series.
        buckets: where the first begins, how long each is, and how many there are.
        width: the bits that a value takes after ``least`` was taken off.
        least: the least value.
    """
    bits = len(rows.codes).bit_length()
    if size * buckets[2] <= len(rows.codes) and width + 2 * bits <= _KEY_BITS:
        return _table_sums(rows, size, buckets, bits, least)
    workers = _workers(len(rows.codes))
    shift = max((size - 1) // min(max(len(rows.codes) // UNIT_ROWS, 1), UNITS_MAX), 1).bit_length()
    grid = np.array([*buckets, shift, width, least], np.int64)
    units = _units(rows, ((size - 1) >> shift) + 1, grid, workers)

    def runs(unit: Column) -> int:
        unit.sort()
        return int(_runs(unit, width))

    ends = np.cumsum(_each(runs, units, workers))
    kinds = (np.int32, np.int32, np.int64, np.int32)
    columns: list[Column] = [np.empty(int(ends[-1]), kind) for kind in kinds]
    parts = zip(units, *(np.split(column, ends[:-1]) for column in columns), strict=True)
    _each(lambda one: _read_off(one[0], grid, *one[1:]), [one for one in parts if len(one[0])], workers)
    return Sums(*columns)


def _units(rows: EventRows, number: int, grid: Integers, workers: int) -> list[Column]:
    """Return the keys of the rows, unit by unit."""
    shares = rows.shares(workers)
    tallies = np.zeros((workers, number), np.int64)
    _each(lambda one: _count(shares[one].codes, grid[3], tallies[one]), range(workers), workers)
    # Unit after unit, and in each worker after worker: where each of them writes.
    into = (np.cumsum(tallies.T) - tallies.T.ravel()).reshape(tallies.T.shape).T.copy()
    firsts, keys = into[0, 1:].copy(), np.empty(len(rows.codes), np.int64)

    def spread(one: int) -> None:
        _spread(shares[one].codes, shares[one].moments, shares[one].values, grid, into[one], keys)

    _each(spread, range(workers), workers)
    return np.split(keys, firsts)
