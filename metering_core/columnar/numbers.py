"""Integers of any size in arrays: of 64 bits where they are proven to fit, else Python's own (of
``dtype`` object), which know no limit.

Nothing here may wrap. A sum is taken in 64 bits only where a bound proves that it fits: the
greatest number times how many there are, which costs nothing, or else the exact sum of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import INT64_MAX, ROWS_MAX, Integers

Numbers = NDArray[Any]
"""Integers of 64 bits, or of any size (``dtype`` object)."""

KEY_BITS: Final = 63
"""Bits of a packed key that a signed integer has."""

_FAR_FROM_WIDE: Final = 2**48
_HALF_BITS: Final = 32


def greatest(values: Numbers) -> int:
    """Return the greatest absolute value; 0 of none."""
    return max(-int(values.min()), int(values.max()), 0) if len(values) else 0


def as_wide(values: Numbers) -> Numbers:
    """Return numbers as Python integers."""
    return values if values.dtype == np.object_ else values.astype(np.object_)


def narrowed(values: Numbers) -> Numbers:
    """Return numbers as integers of 64 bits where all fit."""
    is_narrow = values.dtype != np.object_ or greatest(values) > INT64_MAX
    return values if is_narrow else values.astype(np.int64)


def times(values: Numbers, factor: int) -> Numbers:
    """Multiply by a number that is not negative."""
    if factor == 1:
        return values
    is_narrow = values.dtype != np.object_ and max(greatest(values), 1) * factor <= INT64_MAX
    return values * factor if is_narrow else as_wide(values) * factor


def bound_of(values: Numbers, greatest: int) -> int:
    """Return what no sum of some values exceeds, but for its sign: the cheap bound where it is far
    from wide, so that many of its kind stay so, else the exact one.

    No absolute value is more than ``greatest``.
    """
    cheap = greatest * len(values)
    if cheap <= _FAR_FROM_WIDE or greatest > INT64_MAX:
        return cheap
    return int(np.abs(values).sum()) if cheap <= INT64_MAX else _exact_sum(np.abs(values))


def _exact_sum(values: Integers) -> int:
    """Return the sum of non-negative integers, however large, of the halves of their bits."""
    assert len(values) <= ROWS_MAX, "the sums of the halves fit"
    upper, lower = int((values >> _HALF_BITS).sum()), int((values & (2**_HALF_BITS - 1)).sum())
    return (upper << _HALF_BITS) + lower


def summable(values: Numbers, bound: int) -> Numbers:
    """Return numbers whose sums cannot wrap."""
    return values if bound <= INT64_MAX else as_wide(values)


def as_array_of(values: Sequence[Any]) -> NDArray[Any]:
    """Return numbers as 64-bit integers, or as Python's own where one does not fit."""
    fit = all(isinstance(value, int) for value in values) and max(values, default=0) <= INT64_MAX
    found = np.empty(len(values), np.int64 if fit else np.object_)
    found[:] = values
    return found
