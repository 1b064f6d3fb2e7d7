"""Rows by group, and what they come to, exactly: the arithmetic behind summaries and partials.

A group is what one number is asked for: a customer, or a customer in an hour. Values may be
negative, and of any size.
"""

from __future__ import annotations

from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import INT64_MAX, Flags, Integers
from metering_core.columnar.folding import starts_of
from metering_core.columnar.numbers import (
    KEY_BITS,
    Numbers,
    as_wide,
    bound_of,
    greatest,
    narrowed,
    summable,
)

_ROOMY: Final = 2
"""Groups are numbered as they are where there are at most so many for each row; else only those
that have rows.
"""


@attrs.frozen(eq=False)
class Groups:
    """Which group each row is in.

    Attributes:
        codes: the group of each row, as a place in the answers.
        counts: how many rows each place has.
        ids: the number of the group at each place; None where they are the places.
    """

    codes: Integers
    counts: Integers
    ids: Integers | None = None

    @classmethod
    def of(cls, numbers: Integers, size: int) -> Self:
        """Group rows by a number from 0 to below ``size``."""
        if size <= _ROOMY * len(numbers) + 1024:
            return cls(numbers, np.bincount(numbers, minlength=size))
        ids, codes, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        return cls(codes, counts, ids)

    @property
    def size(self) -> int:
        """The number of places."""
        return len(self.counts)

    @property
    def most(self) -> int:
        """The rows of the greatest group."""
        return int(self.counts.max()) if len(self.counts) else 0

    def sums(self, values: Numbers) -> Numbers:
        """Return the sum of each group; 0 for an empty one."""
        if values.dtype == np.object_:
            return self._sums(values)
        largest = greatest(values)
        bound = largest * self.most
        if bound > INT64_MAX:
            bound = bound_of(values, largest)
        return narrowed(self._sums(summable(values, bound)))

    def _sums(self, values: Numbers) -> Numbers:
        totals = np.zeros(self.size, values.dtype)
        np.add.at(totals, self.codes, values)
        return totals

    def sums_of_products(self, values: Numbers, factors: Integers) -> Numbers:
        """Return the sum of value times factor of each group."""
        if greatest(values) * greatest(factors) * self.most <= INT64_MAX:
            return self._sums(values * factors)
        return narrowed(self._sums(as_wide(values) * as_wide(factors)))

    def maxima(self, values: Numbers) -> Numbers:
        """Return the greatest value of each group; of no account for an empty one."""
        return self._extremes(values, np.maximum, values.min() if len(values) else 0)

    def minima(self, values: Numbers) -> Numbers:
        """Return the least value of each group; of no account for an empty one."""
        return self._extremes(values, np.minimum, values.max() if len(values) else 0)

    def _extremes(self, values: Numbers, better: np.ufunc, worst: Any) -> Numbers:
        found = np.full(self.size, worst, values.dtype)
        better.at(found, self.codes, values)
        return found

    def lasts(self, moments: Integers) -> NDArray[np.intp]:
        """Return the row of each group with the greatest moment, of equal ones the last; -1 for an
        empty group.
        """
        latest = np.full(self.size, np.iinfo(np.int64).min)
        np.maximum.at(latest, self.codes, moments)
        rows = np.flatnonzero(moments == latest[self.codes])
        places = np.full(self.size, -1, np.intp)
        places[self.codes[rows]] = rows  # Of rows in one group the last assignment stays.
        return places

    def peaks(self, values: Numbers, windows: Integers) -> tuple[Integers, Integers, Numbers]:
        """Return the pairs of place and window, in their order, each with its greatest value."""
        low = int(windows.min()) if len(windows) else 0
        size = int(windows.max()) - low + 1 if len(windows) else 1
        if (
            self.size * size > INT64_MAX
        ):  # Senders may say anything of time: windows are numbered by those there are.
            known, windows = np.unique(windows, return_inverse=True)
            places, found, peaks = self.peaks(values, windows)
            return places, known[found], peaks
        inner = Groups.of(self.codes.astype(np.int64) * size + (windows - low), self.size * size)
        some = np.flatnonzero(inner.counts)
        places, found = np.divmod(some if inner.ids is None else inner.ids[some], size)
        return places, found + low, inner.maxima(values)[some]

    def distinct(self, texts: Integers) -> tuple[Integers, Integers]:
        """Return the pairs of place and text that occur, in their order."""
        size = int(texts.max()) + 1 if len(texts) else 1
        assert self.size * size <= INT64_MAX, "there are at most 2**31 of either"
        places, found = np.divmod(np.unique(self.codes.astype(np.int64) * size + texts), size)
        return places, found


def last_of_each(keys: Integers) -> Flags:
    """Say which rows are the last with their key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    flags = np.zeros(len(keys), np.bool_)
    flags[order[np.append(ordered[1:] != ordered[:-1], True)[: len(keys)]]] = True
    return flags


def packed_sums(
    numbers: Integers, size: int, values: Numbers
) -> tuple[Integers, Integers, Integers] | None:
    """Return the numbers of the groups that have rows, ascending, with their sums and counts; None
    where it does not fit.

    The value is the lower part of the sorted key, so that it need not be fetched from where it was:
    that pays where groups are so many that they do not fit the cache.
    """
    if values.dtype == np.object_ or not len(values):
        return None
    least = int(values.min())
    width = (int(values.max()) - least).bit_length()
    if size.bit_length() + width > KEY_BITS or greatest(values) * len(values) > INT64_MAX:
        return None
    keys = numbers << width
    keys |= values - least
    keys.sort()
    found = keys & (2**width - 1)
    keys >>= width
    starts = starts_of(keys)
    ends = np.append(starts[1:], len(keys))
    running = np.cumsum(found)
    sums = running[ends - 1]
    sums[1:] -= running[starts[1:] - 1]
    counts = ends - starts
    return keys[starts], sums + least * counts, counts
