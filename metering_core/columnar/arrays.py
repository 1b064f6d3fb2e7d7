"""Columns as they are given, read into arrays.

A column is taken whole where a bound tells that all of it is right; where none does, its values are
looked at one by one, and the first that is wrong is named by its row. What was read is lent to
everybody for reading only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columns import check_each
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import exact_integer
from metering_core.names import text_of
from metering_core.periods import MICROSECONDS, SECONDS_MAX, SECONDS_MIN, Instant, moment
from metering_core.usage import as_timestamp

Column = Any
"""A NumPy array, a sequence, or what NumPy can read as an array (a column of Polars, pandas or
pyarrow).
"""

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

INT64_MAX: Final = 2**63 - 1
ROWS_MAX: Final = 2**31
"""So many rows, at most: the sums of their limbs fit 64 bits."""

ORIGIN: Final = SECONDS_MIN
"""The first second of the year 1: no timestamp is earlier."""


# Lent for reading ---------------------------------------------------------------------------------


class _LentMemory:
    """The memory of an array, whose owner NumPy asks before it is made writeable again."""

    __slots__ = ("__array_struct__",)
    __array_struct__: object


def held(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that nobody can write to, nor make writeable; its source stays as it was."""
    lent = _LentMemory()
    lent.__array_struct__ = read_only(array).__array_struct__
    return np.asarray(lent)


def optionally_held(array: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return None, or what :func:`held` returns."""
    return None if array is None else held(array)


def own(batch: object, column: str) -> Any:
    """Return a column as the batch itself keeps it: for what it is appended to, which lends nobody
    any of it.

    Who asks a batch gets an array made for them by :func:`held`: the dtype, the shape and the
    strides of an array can be set in place although its values cannot.
    """
    return getattr(batch, f"_{column}")


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that is not written to, faster than :func:`held`: for what stays inside."""
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view


# What a column is ---------------------------------------------------------------------------------


def length_of(values: Column, column: str) -> int:
    """Return how many values a column has; refuse what is none, as a generator or a text."""
    try:
        length = -1 if isinstance(values, str | bytes | bytearray | Mapping | type) else len(values)
    except Exception:  # noqa: BLE001 - an object of the caller's own may raise anything
        length = -1
    if length < 0:
        raise _no_column(values, column)
    return length


def require_lengths(columns: Mapping[str, Column | None], first: str, length: int) -> None:
    """Refuse columns that are longer or shorter than the first one."""
    for column, values in columns.items():
        if values is not None and length_of(values, column) != length:
            expected = f"as many values as {first}, {length}"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, column, expected, len(values)
            )


def _no_column(values: object, column: str) -> InvalidValueError:
    expected = "a column: a list, or an array of one dimension"
    return InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, column, expected, values)


def is_sequence(values: Column) -> bool:
    """Whether a column is one of Python's own, whose values are what they are."""
    return isinstance(values, list | tuple | range)


def as_array(values: Column, column: str) -> NDArray[Any]:
    """Return a column as an array of one dimension; what a mask hides is None there."""
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except Exception:  # noqa: BLE001 - an object of the caller's own may raise anything
        raise _no_column(values, column) from None
    if array.ndim != 1:
        raise _no_column(values, column)
    if (
        type(array) is not np.ndarray
        and isinstance(array, np.ma.MaskedArray)
        and array.dtype.kind != "M"
    ):
        return np.array(array.tolist(), np.object_)
    return array


def rows_of(values: Column, column: str) -> Sequence[Any]:
    """Return the values of a column as Python's own."""
    if is_sequence(values):
        rows: Sequence[Any] = values
        return rows
    try:
        # Of pyarrow, and of Polars and pandas: an array knows neither zones nor nulls.
        for lists in ("to_pylist", "to_list"):
            if hasattr(values, lists):
                return list(getattr(values, lists)())
    except Exception:  # noqa: BLE001 - as above
        raise _no_column(values, column) from None
    array = as_array(values, column)
    return array.tolist() if array.dtype.kind != "M" else list(array)


# Numbers ------------------------------------------------------------------------------------------


def integers(values: Column, column: str, maximum: int, minimum: int = 0) -> NDArray[Any]:
    """Return integers within bounds (inclusive), or name the row of the first that is none."""

    def check(value: object, param: str) -> int:
        return exact_integer(value, param, minimum=minimum, maximum=maximum)

    if is_sequence(values):
        fits = _are_integers(values, minimum, maximum)
        return np.array(values if fits else check_each(values, column, check), np.int64)
    array = as_array(values, column)
    if array.dtype.kind not in "iu":
        return np.array(check_each(rows_of(values, column), column, check), np.int64)
    if len(array) and not minimum <= int(array.min()) <= int(array.max()) <= maximum:
        row = int(np.flatnonzero((array < minimum) | (array > maximum))[0])
        check(int(array[row]), f"{column}[{row}]")
    return array


def _are_integers(values: Sequence[Any], minimum: int, maximum: int) -> bool:
    return set(map(type, values)) == {int} and minimum <= min(values) and max(values) <= maximum


# Instants -----------------------------------------------------------------------------------------


@attrs.frozen
class InstantScale:
    """How the instants of a column are read.

    Attributes:
        low: no integer of the column is less.
        high: no integer of the column is greater.
        factor: what an integer is multiplied by.
        check: reads one value, an integer or not; None stands for ``"now"``.
    """

    low: int
    high: int
    factor: int
    check: Callable[[Any, str], int | None]


def _second(value: object, param: str) -> int | None:
    stamp = as_timestamp(value, param)
    return None if stamp == "now" else int(stamp)


def _microseconds(value: Any, param: str) -> int | None:
    return None if text_of(value) == "now" else moment(value, param)[1]


def _microsecond(value: Any, param: str) -> int | None:
    if type(value) is not int:
        return _microseconds(value, param)
    moment(value // MICROSECONDS, param)
    return value


SECONDS: Final = InstantScale(ORIGIN, SECONDS_MAX, 1, _second)
"""Unix seconds, which stay seconds; a datetime is floored."""

SECONDS_FINE: Final = InstantScale(ORIGIN, SECONDS_MAX, MICROSECONDS, _microseconds)
"""Unix seconds, which become microseconds; a datetime keeps its own."""

FINE: Final = InstantScale(
    ORIGIN * MICROSECONDS, (SECONDS_MAX + 1) * MICROSECONDS - 1, 1, _microsecond
)
"""Unix microseconds."""


def instants(
    values: Column, column: str, scale: InstantScale, *, copy: bool = True
) -> tuple[Integers, Flags | None]:
    """Return the instants of a column, and where one is ``"now"`` (0 there); None for nowhere."""
    if is_sequence(values):
        array = np.array(values, np.int64) if _are_integers(values, scale.low, scale.high) else None
    else:
        array = as_array(values, column)
    if array is not None and array.dtype.kind in "iu" and _is_within(array, scale):
        stamps = array.astype(np.int64, copy=copy and scale.factor == 1)
        return np.ascontiguousarray(stamps if scale.factor == 1 else stamps * scale.factor), None
    given = check_each(rows_of(values, column), column, scale.check)
    as_now = np.array([value is None for value in given], np.bool_)
    return np.array([value or 0 for value in given], np.int64), as_now if as_now.any() else None


def _is_within(array: NDArray[Any], scale: InstantScale) -> bool:
    return not len(array) or scale.low <= int(array.min()) <= int(array.max()) <= scale.high


def received_moments(
    length: int, now: Instant | None, received_at: Column | None
) -> int | Integers:
    """Return the moment of receipt in Unix microseconds, of all rows or of each."""
    if now is not None and received_at is not None:
        message = "You may only specify one of these parameters: now, received_at."
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
    if received_at is None:
        if now is None:
            message = "now: expected the moment of receipt, received None"
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="now")
        return moment(now, "now")[1]
    require_lengths({"received_at": received_at}, "the batch", length)
    return instants(received_at, "received_at", RECEIVED)[0]


RECEIVED: Final = attrs.evolve(SECONDS_FINE, check=lambda value, param: moment(value, param)[1])
"""As :data:`SECONDS_FINE`, without ``"now"``: that is what it says."""
