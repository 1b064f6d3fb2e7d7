"""Tables of Arrow (of Polars, pandas, pyarrow or DuckDB), read with pyarrow into columns: the only
module that knows Arrow.

What Arrow has no value for is absent where a row may lack it, and refused by its row elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import INT64_MAX, Flags, integers
from metering_core.columnar.paths import encoded
from metering_core.columnar.texts import ANY_TEXTS, Allowed, Texts
from metering_core.errors import ErrorCode, InvalidValueError, MissingExtraError, describe
from metering_core.names import refuse_slips
from metering_core.usage import Action, as_action

ArrowColumn = Any
"""A ``pyarrow.ChunkedArray``; pyarrow has no types."""

_PIECE: Final = 1 << 20
"""Strings that are encoded as one piece."""

_TICKS: Final[Mapping[str, int]] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""How many of a unit a second has."""


# Tables -------------------------------------------------------------------------------------------


@contextmanager
def columns_of(
    source: object, required: Sequence[str], optional: Sequence[str], param: str, feature: str
) -> Iterator[dict[str, ArrowColumn]]:
    """Yield the columns of a table that are read; what Arrow cannot convert is refused."""
    table = _table(source, feature)
    try:
        yield _chosen(table, required, optional, param)
    except import_module("pyarrow").lib.ArrowException as error:
        message = (
            "source: expected columns of plain types, received one of which Arrow says "
            f"{describe(str(error))}"
        )
        code = ErrorCode.PARAMETER_INVALID_OBJECT
        raise InvalidValueError(code, message, param="source") from error


def _table(source: object, feature: str) -> Any:
    code, expected = ErrorCode.PARAMETER_INVALID_OBJECT, "an object with __arrow_c_stream__"
    try:
        has_stream = hasattr(source, "__arrow_c_stream__")
    except Exception:  # noqa: BLE001 - an object of the caller's own may raise anything
        has_stream = False
    if not has_stream:
        raise InvalidValueError.expecting(code, "source", expected, source)
    try:
        pyarrow = import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_extra("arrow", feature) from error
    try:
        return pyarrow.RecordBatchReader.from_stream(source).read_all()
    except Exception as error:  # What the stream's own maker raises comes out here, in any class.
        message = (
            "source: expected a stream that Arrow can read to its end, received one that says "
            f"{describe(str(error))}"
        )
        raise InvalidValueError(code, message, param="source") from error


def _chosen(
    table: Any,
    required: Sequence[str],
    optional: Sequence[str],
    param: str,
) -> dict[str, ArrowColumn]:
    """Return the columns that are read; refuse what would be read otherwise than it was meant."""
    names, known = table.column_names, (*required, *optional, "seq", "received_at")
    refuse_slips(names, known, param)
    for column in required:
        if column not in names:
            raise InvalidValueError(
                ErrorCode.PARAMETER_MISSING, f"Missing required param: {column}", param=column
            )
    for column in known:
        if names.count(column) > 1:
            expected, code = "one column of that name", ErrorCode.PARAMETER_INVALID_OBJECT
            raise InvalidValueError.expecting(code, column, expected, names.count(column))
    if "received_at" in names:
        message = (
            f"{param}: received the column 'received_at', which is an argument instead: "
            "append(batch, received_at=…)"
        )
        raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param="received_at")
    if "seq" in names:
        _refuse_disorder(table.column("seq"))
    return {column: table.column(column) for column in known if column in names}


def _refuse_disorder(column: ArrowColumn) -> None:
    """Refuse numbers of arrival that say another order than that of the rows."""
    _refuse_nulls(column, "seq", "an integer", ErrorCode.PARAMETER_INVALID_INTEGER)
    numbers = integers(column.to_numpy(), "seq", INT64_MAX, -INT64_MAX)
    for row in np.flatnonzero(numbers[1:] <= numbers[:-1])[:1].tolist():
        expected = (
            f"more than the {numbers[row]} of the row before, because rows arrive in their "
            "order (sort them by seq)"
        )
        code = ErrorCode.PARAMETER_INVALID_OBJECT
        raise InvalidValueError.expecting(code, f"seq[{row + 1}]", expected, int(numbers[row + 1]))


def _refuse_nulls(column: ArrowColumn, param: str, expected: str, code: ErrorCode) -> None:
    if column.null_count:
        row = column.is_null().to_numpy(zero_copy_only=False).argmax()
        raise InvalidValueError.expecting(code, f"{param}[{row}]", expected, None)


# Numbers and instants -----------------------------------------------------------------------------


def _numbers(column: ArrowColumn, *, copy: bool) -> NDArray[Any]:
    """Return a column without nulls as an array: with a copy, in memory that is nobody else's."""
    array: NDArray[Any]
    if copy and column.num_chunks:
        array = np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks])
    else:
        array = column.to_numpy()
    return array


def quantities(column: ArrowColumn, *, copy: bool) -> NDArray[Any]:
    """Return quantities, of which each row has one."""
    expected = f"an integer of at least 0 and at most {INT64_MAX}"
    _refuse_nulls(column, "quantities", expected, ErrorCode.PARAMETER_INVALID_INTEGER)
    return _numbers(column, copy=copy)


def values(column: ArrowColumn, *, copy: bool) -> NDArray[Any] | Texts | list[Any]:
    """Return values, which may be integers, decimals or texts, and absent."""
    if _holds_texts(column):
        return texts(column, "values")
    if import_module("pyarrow").types.is_integer(column.type) and not column.null_count:
        return _numbers(column, copy=copy)
    return list(column.to_pylist())


def instants(column: ArrowColumn, per_second: int, *, copy: bool) -> tuple[Any, bool]:
    """Return instants, and whether they are ticks, so many a second, or as the column has them."""
    pyarrow = import_module("pyarrow")
    expected = "Unix seconds, or a timestamp with a time zone"
    code = ErrorCode.PARAMETER_INVALID_INSTANT
    _refuse_nulls(column, "timestamps", expected, code)
    if not pyarrow.types.is_timestamp(column.type):
        is_whole = pyarrow.types.is_integer(column.type)
        return _numbers(column, copy=copy) if is_whole else column.to_pylist(), False
    if column.type.tz is None:
        raise InvalidValueError.expecting(code, "timestamps", expected, str(column.type))
    unit = _TICKS[column.type.unit]
    ticks = _numbers(column.cast(pyarrow.int64()), copy=copy and unit == per_second)
    if unit > per_second:
        return ticks // (unit // per_second), True
    factor = per_second // unit
    if factor > 1 and len(ticks) and max(-int(ticks.min()), int(ticks.max())) > INT64_MAX // factor:
        return [tick * factor for tick in ticks.tolist()], True  # One of them is of no year.
    return ticks * factor if factor > 1 else ticks, True


# Texts --------------------------------------------------------------------------------------------


def texts(column: ArrowColumn, param: str, allowed: Allowed = ANY_TEXTS) -> Texts:
    """Return texts; a null is no text, and refused where one is needed."""
    pyarrow = import_module("pyarrow")
    if not allowed.is_optional:
        expected = "a string of 1 to 255 characters"
        _refuse_nulls(column, param, expected, ErrorCode.PARAMETER_INVALID_STRING)
    if pyarrow.types.is_string_view(column.type):
        column = column.cast(pyarrow.large_string())
    if not _holds_texts(column) or column.null_count:
        return Texts.of(column.to_pylist(), param, allowed)
    codes, names = _dictionary_of(column)
    return Texts.counted(codes, param, names, param, allowed, copy=False)


def _holds_texts(column: ArrowColumn) -> bool:
    types = import_module("pyarrow").types
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_dictionary)
    return any(is_kind(column.type) for is_kind in kinds)


def _dictionary_of(column: ArrowColumn) -> tuple[NDArray[Any], list[str]]:
    """Return codes and the dictionary that they count in, of a column of texts without nulls."""
    pyarrow = import_module("pyarrow")
    if pyarrow.types.is_dictionary(column.type):
        chunks = column.unify_dictionaries().chunks
    else:
        pieces = [
            chunk.slice(at, _PIECE)
            for chunk in column.cast(pyarrow.large_string()).chunks
            for at in range(0, len(chunk), _PIECE)
        ]
        found = encoded(pieces)
        if found is not None:
            return found[0], found[1].to_pylist()
        chunks = _encoded_by_arrow(pyarrow, pieces)
    if not chunks:
        return np.empty(0, np.int64), []
    codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks])
    return codes, chunks[-1].dictionary.to_pylist()


def _encoded_by_arrow(pyarrow: Any, pieces: list[Any]) -> list[Any]:
    """Encode pieces with one dictionary, several at a time: Arrow itself works on one."""
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda piece: piece.dictionary_encode(), pieces))
    return list(pyarrow.chunked_array(done).unify_dictionaries().chunks) if done else []


def refuse_other_names(column: ArrowColumn, event_name: str) -> None:
    """Refuse an event of another name than that of its batch."""
    named = texts(column, "event_name")
    for row in np.flatnonzero(~named.each(lambda one: one == event_name))[:1].tolist():
        expected = f"{event_name!r}, as all events of a batch have one name"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, f"event_name[{row}]", expected, named.at(row)
        )


def sets(column: ArrowColumn) -> Flags:
    """Return where the action is ``set``; a null is an ``increment``, as it is in files."""
    pyarrow = import_module("pyarrow")
    if pyarrow.types.is_boolean(column.type):
        return np.asarray(column.fill_null(fill_value=False).to_numpy(), np.bool_)
    if column.null_count:
        column = column.cast(pyarrow.string()).fill_null(Action.INCREMENT.value)
    actions = texts(column, "actions")
    for place, action in enumerate(actions.names):
        for row in np.flatnonzero(actions.codes == place)[: action is not None].tolist():
            as_action(action, f"actions[{row}]")
    return actions.each(lambda one: one == Action.SET)
