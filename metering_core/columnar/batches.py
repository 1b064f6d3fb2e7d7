"""Usage records as columns on their way in: checked a column at a time, named by the row where one
is malformed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.kernel import INT64_MAX, ORIGIN, Flags, Integers, held, optionally_held
from metering_core.columnar.paths import encoded
from metering_core.columns import Batch, check_each, require_length
from metering_core.errors import ErrorCode, InvalidValueError, MissingExtraError, describe
from metering_core.exact import exact_integer
from metering_core.names import NAME_MAX, flag, name, optional_name, refuse_slips
from metering_core.periods import SECONDS_MAX
from metering_core.usage import Action, UsageRecord, as_action, as_timestamp

Column = Any
"""A NumPy array, a sequence, or what NumPy can read as an array (a column of Polars, pandas or
pyarrow).
"""

_REQUIRED: Final = ("subscription_item", "quantity", "timestamp")
_OPTIONAL: Final = ("action", "id", "seq", "received_at")

_PIECE: Final = 1 << 20
"""Strings that are encoded as one piece."""


def optional_tuple(values: Sequence[str | None] | None) -> tuple[str | None, ...] | None:
    """Return None, or some texts as a tuple, which nobody changes."""
    return None if values is None else tuple(values)


@attrs.frozen(eq=False)
class UsageBatch:
    """Well-formed usage records, column by column and equally long, in the order of arrival. Build
    one with a class method.

    Its columns are those of the log once it was appended, so they are read-only.

    Attributes:
        names: the distinct ids of subscription items; ``codes`` counts in them.
        ids: idempotency keys, None where a record has none; None without any.
    """

    names: tuple[str, ...]
    _codes: NDArray[np.int32] = attrs.field(converter=held)
    _quantities: Integers = attrs.field(converter=held)
    _timestamps: Integers = attrs.field(converter=held)
    _sets: Flags | None = attrs.field(default=None, converter=optionally_held)
    ids: Sequence[str | None] | None = attrs.field(default=None, converter=optional_tuple)
    _as_now: Flags | None = attrs.field(default=None, converter=optionally_held)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._codes)

    def __repr__(self) -> str:
        """Return the counts."""
        return f"<UsageBatch: {len(self)} records of {len(self.names)} items>"

    @property
    def codes(self) -> NDArray[np.int32]:
        """Which of ``names`` each record is of."""
        return held(self._codes)

    @property
    def quantities(self) -> Integers:
        """Units, 0 to 2**63 - 1."""
        return held(self._quantities)

    @property
    def timestamps(self) -> Integers:
        """Unix seconds; 0 where ``as_now``."""
        return held(self._timestamps)

    @property
    def sets(self) -> Flags | None:
        """Where the action is ``set``; None for nowhere."""
        return optionally_held(self._sets)

    @property
    def as_now(self) -> Flags | None:
        """Where the timestamp is ``"now"``; None for nowhere."""
        return optionally_held(self._as_now)

    @classmethod
    def from_columns(
        cls,
        subscription_items: Column,
        quantities: Column,
        timestamps: Column,
        actions: Column | None = None,
        ids: Column | None = None,
        *,
        item_ids: Sequence[str] | None = None,
        copy: bool = True,
    ) -> Self:
        """Check columns of equal length.

        Args:
            subscription_items: ids of subscription items, or with ``item_ids`` integers that count
                in those.
            quantities: integers from 0 to 2**63 - 1.
            timestamps: Unix seconds, aware datetimes or ``"now"``.
            actions: ``increment`` or ``set``, or flags that are true for ``set``; all ``increment``
                unless given.
            ids: idempotency keys, None where a record has none.
            item_ids: the dictionary of dictionary-encoded items.
            copy: whether to copy columns that could be used as they are. Without a copy the batch
                cannot change them, but what they were given as still can, and with it accepted
                usage: then nothing may.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names the column and the row
                (``quantities[3]``).
        """
        flag(copy, "copy")
        length = length_of(subscription_items, "subscription_items")
        columns = {
            "quantities": quantities,
            "timestamps": timestamps,
            "actions": actions,
            "ids": ids,
        }
        for column, values in columns.items():
            if values is not None or column in {"quantities", "timestamps"}:
                length_of(values, column)
            require_length(values, length, column)
        names, codes = _encoded(subscription_items, item_ids, copy=copy)
        checked = _quantities(quantities, copy=copy)
        stamps, as_now = _timestamps(timestamps, copy=copy)
        return cls(names, codes, checked, stamps, _sets(actions, copy=copy), _ids(ids), as_now)

    @classmethod
    def from_records(cls, records: Iterable[UsageRecord]) -> Self:
        """Take ready records apart.

        Raises:
            InvalidValueError: for something that is not a usage record, or a quantity above 2**63 -
                1.
        """
        batch = Batch.of_records(records)
        actions = np.frombuffer(batch.sets, np.bool_) if batch.sets else None
        return cls.from_columns(
            batch.item_ids, batch.quantities, batch.timestamps, actions, batch.ids
        )

    @classmethod
    def from_arrow(cls, source: object, *, copy: bool = True) -> Self:
        """Read a table with the Arrow stream interface (``__arrow_c_stream__``): of Polars, pandas,
        pyarrow or DuckDB.

        Its columns are ``subscription_item``, ``quantity``, ``timestamp`` (Unix seconds, or
        timestamps with a time zone) and optionally ``action`` (words, or flags that are true for
        ``set``; a null is an ``increment``) and ``id``. Strings may be dictionary-encoded. The
        order of the rows is the order of arrival: a column ``seq`` must ascend. When the rows were
        received is said where the batch is appended, not in a column. Other columns are not read.

        Args:
            source: the table. Its stream is read with pyarrow.
            copy: whether to copy numbers that could be used where they are. Without a copy the
                table, and what it was made of, must not be changed afterwards, as
                :meth:`from_columns` says.

        Raises:
            InvalidValueError: for an object without the interface; for a column that is absent
                (``parameter_missing``), there twice, misspelt or ``received_at``
                (``parameter_unknown``); for a malformed value.
            MissingExtraError: without pyarrow.
        """
        flag(copy, "copy")
        table = arrow_table(source)
        with reading_arrow():
            return cls._of_arrow(arrow_columns(table), copy=copy)

    @classmethod
    def _of_arrow(cls, given: Mapping[str, Any], *, copy: bool) -> Self:
        if "seq" in given:
            refuse_disorder(given["seq"])
        with ThreadPoolExecutor(1) as pool:  # Which copies numbers while strings are encoded.
            quantities = pool.submit(_arrow_integers, given["quantity"], "quantities", copy=copy)
            stamps = pool.submit(_arrow_timestamps, given["timestamp"], copy=copy)
            codes, names = dictionary_of(given["subscription_item"], "subscription_items")
            actions = None if "action" not in given else _arrow_actions(given["action"])
            ids = None if "id" not in given else given["id"].to_pylist()
        # What had to be copied has been by now.
        return cls.from_columns(
            codes, quantities.result(), stamps.result(), actions, ids, item_ids=names, copy=False
        )


# Columns ------------------------------------------------------------------------------------------


def length_of(values: Column, column: str) -> int:
    """Return how many values a column has; refuse what is none, such as a generator, a text or a
    single number.
    """
    try:
        length = -1 if isinstance(values, str | bytes | bytearray | Mapping | type) else len(values)
    except Exception:  # noqa: BLE001 - an object of the caller's own may raise anything
        length = -1
    if length < 0:
        raise _no_column(values, column)
    return length


def _no_column(values: object, column: str) -> InvalidValueError:
    expected = "a column: a list, or an array of one dimension"
    return InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, column, expected, values)


def as_array(values: Column, column: str) -> NDArray[Any]:
    """Return a column as an array; what a mask hides is None there, and no value. Refuse what has
    not one dimension.
    """
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except Exception:  # noqa: BLE001 - as above
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


def _is_sequence(values: Column) -> bool:
    return isinstance(values, list | tuple | range)


def _encoded(
    values: Column, item_ids: Sequence[str] | None, *, copy: bool
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the distinct items and, for each row, which it is."""
    column = "subscription_items"
    if item_ids is not None:
        length_of(item_ids, "item_ids")
        names = tuple(item_ids)
        if not _are_names(names):
            names = tuple(check_each(names, "item_ids", name))
        return names, _integers(values, column, len(names) - 1, 0).astype(np.int32, copy=copy)
    rows = values if _is_sequence(values) else as_array(values, column).tolist()
    table: dict[str, int] = {}
    try:
        table = dict(zip(dict.fromkeys(rows), count(), strict=False))
        are_names = _are_names(table)
    except Exception:  # noqa: BLE001 - a caller's value may raise anything
        are_names = False
    if not are_names:
        rows = check_each(rows, column, name)
        table = dict(zip(dict.fromkeys(rows), count(), strict=False))
    return tuple(table), np.fromiter(map(table.__getitem__, rows), np.int32, len(rows))


def _are_names(values: Collection[Any]) -> bool:
    """Say whether all are names, without a word on which is not; much faster than
    :func:`check_each`.
    """
    return (
        set(map(type, values)) <= {str}
        and 1 <= min(map(len, values), default=1) <= max(map(len, values), default=1) <= NAME_MAX
    )


def _integers(values: Column, column: str, maximum: int, minimum: int) -> NDArray[Any]:
    """Return integers within bounds (inclusive) as an array, or name the row of the first that is
    none.
    """

    def check(value: object, param: str) -> int:
        return exact_integer(value, param, minimum=minimum, maximum=maximum)

    if _is_sequence(values):
        return np.array(_all_integers(values, column, maximum, minimum, check), dtype=np.int64)
    array = as_array(values, column)
    if array.dtype.kind not in "iu":
        return np.array(check_each(array.tolist(), column, check), dtype=np.int64)
    if len(array) and not minimum <= int(array.min()) <= int(array.max()) <= maximum:
        row = int(np.flatnonzero((array < minimum) | (array > maximum))[0])
        check(int(array[row]), f"{column}[{row}]")
    return array


def _all_integers(
    values: Sequence[Any],
    column: str,
    maximum: int,
    minimum: int,
    check: Callable[[object, str], int],
) -> Sequence[int]:
    if set(map(type, values)) == {int} and minimum <= min(values) and max(values) <= maximum:
        return values
    return check_each(values, column, check)


def _quantities(values: Column, *, copy: bool) -> Integers:
    return np.ascontiguousarray(
        _integers(values, "quantities", INT64_MAX, 0).astype(np.int64, copy=copy)
    )


def _timestamps(values: Column, *, copy: bool) -> tuple[Integers, Flags | None]:
    """Return Unix seconds, and where a timestamp is ``"now"`` instead."""
    if not _is_sequence(values):
        array = as_array(values, "timestamps")
        if array.dtype.kind in "iu":
            return _unix_seconds(array, copy=copy), None
        values = array.tolist() if array.dtype.kind != "M" else list(array)
    if not (set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= SECONDS_MAX):
        values = check_each(values, "timestamps", as_timestamp)
    as_now = np.fromiter((value == "now" for value in values), np.bool_, len(values))
    stamps = np.fromiter(
        (0 if value == "now" else value for value in values), np.int64, len(values)
    )
    return stamps, as_now if as_now.any() else None


def _unix_seconds(array: NDArray[Any], *, copy: bool) -> Integers:
    if len(array) and not ORIGIN <= int(array.min()) <= int(array.max()) <= SECONDS_MAX:
        row = int(np.flatnonzero((array < ORIGIN) | (array > SECONDS_MAX))[0])
        as_timestamp(int(array[row]), f"timestamps[{row}]")
    return np.ascontiguousarray(array.astype(np.int64, copy=copy))


def _sets(values: Column | None, *, copy: bool) -> Flags | None:
    if values is None:
        return None
    array = None if _is_sequence(values) else as_array(values, "actions")
    if array is not None and array.dtype == np.bool_:
        flags = array.astype(np.bool_, copy=copy)
    elif array is not None and array.dtype.kind == "U":
        flags = array == Action.SET.value
        if not (flags | (array == Action.INCREMENT.value)).all():
            check_each(array.tolist(), "actions", as_action)
    else:
        rows = values if array is None else array.tolist()
        are_flags = set(map(type, rows)) == {bool}
        flags = np.array(
            rows
            if are_flags
            else [one is Action.SET for one in check_each(rows, "actions", as_action)],
            np.bool_,
        )
    return flags if flags.any() else None


def _ids(values: Column | None) -> list[str | None] | None:
    if values is None:
        return None
    rows = list(values) if _is_sequence(values) else as_array(values, "ids").tolist()
    given = [value for value in rows if value is not None]
    if not _are_names(given):
        rows = check_each(rows, "ids", optional_name)
    return rows if given else None


# Arrow --------------------------------------------------------------------------------------------


def arrow_table(source: object, feature: str = "UsageBatch.from_arrow") -> Any:
    """Read an Arrow stream with pyarrow."""
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


@contextmanager
def reading_arrow() -> Iterator[None]:
    """Refuse columns of a type that Arrow does not convert, or of values that it cannot."""
    try:
        yield
    except import_module("pyarrow").lib.ArrowException as error:
        message = (
            "source: expected columns of plain types, received one of which Arrow says "
            f"{describe(str(error))}"
        )
        raise InvalidValueError(
            ErrorCode.PARAMETER_INVALID_OBJECT, message, param="source"
        ) from error


def arrow_columns(
    table: Any,
    required: Sequence[str] = _REQUIRED,
    optional: Sequence[str] = _OPTIONAL,
    param: str = "usage",
) -> dict[str, Any]:
    """Return the columns that are read, by their names; refuse what would be read otherwise than it
    was meant.
    """
    names, known = table.column_names, (*required, *optional)
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
    return {column: table.column(column) for column in known if column in names}


def refuse_disorder(column: Any) -> None:
    """Refuse numbers of arrival that say another order than that of the rows."""
    refuse_nulls(column, "seq", "an integer", ErrorCode.PARAMETER_INVALID_INTEGER)
    numbers = _integers(column.to_numpy(), "seq", INT64_MAX, -INT64_MAX)
    for row in np.flatnonzero(numbers[1:] <= numbers[:-1])[:1].tolist():
        expected = (
            f"more than the {numbers[row]} of the row before, because rows arrive in their "
            "order (sort them by seq)"
        )
        code = ErrorCode.PARAMETER_INVALID_OBJECT
        raise InvalidValueError.expecting(code, f"seq[{row + 1}]", expected, int(numbers[row + 1]))


def dictionary_of(column: Any, param: str) -> tuple[NDArray[Any], list[str]]:
    """Return codes and the dictionary that they count in; refuse a null by its row."""
    refuse_nulls(
        column, param, "a string of 1 to 255 characters", ErrorCode.PARAMETER_INVALID_STRING
    )
    pyarrow = import_module("pyarrow")
    types = pyarrow.types
    if types.is_dictionary(column.type):
        chunks = column.unify_dictionaries().chunks
    else:
        if not (types.is_string(column.type) or types.is_large_string(column.type)):
            for value in column[:1].to_pylist():  # Arrow would write numbers as strings.
                name(value, f"{param}[0]")
            column = column.cast(pyarrow.large_string())
        pieces = _pieces(column)
        found = encoded(pieces)
        if found is not None:
            return found[0], found[1].to_pylist()
        chunks = _encoded_by_arrow(pyarrow, pieces)
    if not chunks:
        return np.empty(0, np.int64), []
    return np.concatenate(
        [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    ), chunks[-1].dictionary.to_pylist()


def _pieces(column: Any) -> list[Any]:
    return [
        chunk.slice(at, _PIECE) for chunk in column.chunks for at in range(0, len(chunk), _PIECE)
    ]


def _encoded_by_arrow(pyarrow: Any, pieces: list[Any]) -> list[Any]:
    """Encode pieces with one dictionary, several at a time: Arrow itself works on one."""
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda piece: piece.dictionary_encode(), pieces))
    return list(pyarrow.chunked_array(done).unify_dictionaries().chunks) if done else []


def refuse_nulls(column: Any, param: str, expected: str, code: ErrorCode) -> None:
    """Refuse a null by its row."""
    if column.null_count:
        row = column.is_null().to_numpy(zero_copy_only=False).argmax()
        raise InvalidValueError.expecting(code, f"{param}[{row}]", expected, None)


def _arrow_actions(column: Any) -> Flags | None:
    """Return where the action is ``set``, None for nowhere; a null is an ``increment``, as it is in
    files.
    """
    pyarrow = import_module("pyarrow")
    flags: Flags | None = None
    if pyarrow.types.is_boolean(column.type):
        return np.asarray(column.fill_null(fill_value=False).to_numpy(), np.bool_)
    if column.null_count:
        column = column.cast(pyarrow.string()).fill_null(Action.INCREMENT.value)
    codes, names = dictionary_of(column, "actions")
    for place, value in enumerate(names):
        if value == Action.SET:
            flags = codes == place if flags is None else flags | (codes == place)
        elif value not in {Action.INCREMENT, None}:
            for row in np.flatnonzero(codes == place)[:1].tolist():
                as_action(value, f"actions[{row}]")
    return flags


def _arrow_integers(column: Any, param: str, *, copy: bool) -> NDArray[Any]:
    expected = f"an integer of at least 0 and at most {INT64_MAX}"
    refuse_nulls(column, param, expected, ErrorCode.PARAMETER_INVALID_INTEGER)
    return arrow_numbers(column, copy=copy)


def _arrow_timestamps(column: Any, *, copy: bool) -> NDArray[Any]:
    expected = "Unix seconds, or a timestamp with a time zone"
    code = ErrorCode.PARAMETER_INVALID_INSTANT
    refuse_nulls(column, "timestamps", expected, code)
    pyarrow = import_module("pyarrow")
    if not pyarrow.types.is_timestamp(column.type):
        return arrow_numbers(column, copy=copy)
    if column.type.tz is None:
        raise InvalidValueError.expecting(code, "timestamps", expected, str(column.type))
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    ticks = arrow_numbers(column.cast(pyarrow.int64()), copy=copy and units == 1)
    return ticks if units == 1 else ticks // units


def arrow_numbers(column: Any, *, copy: bool) -> NDArray[Any]:
    """Return a column without nulls as an array: with a copy, in memory that is nobody else's."""
    array: NDArray[Any]
    if copy and column.num_chunks:
        array = np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks])
    else:
        array = column.to_numpy()
    return array
