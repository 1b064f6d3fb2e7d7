"""Usage as DuckDB can read it: Parquet, CSV and JSON lines by path or glob, and anything that is an Arrow stream.

A source becomes two relations: ``source``, the rows as they are with a column ``seq``, and ``usage``, the same with the types
that the kernel reads. A value that cannot be read exactly becomes NULL in ``usage``, which the inspection refuses by name.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TypeAlias

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError
from metering_core.sql.engine import INSTANT_TYPES, column_missing, column_refused

Source: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]] | Any
"""A path, a glob, several of them, or an object with the Arrow PyCapsule interface (``__arrow_c_stream__``)."""

REQUIRED: Final = ("subscription_item", "quantity", "timestamp")
OPTIONAL: Final = ("action", "id", "received_at", "seq")

_INTEGERS: Final = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER",
    "UINTEGER",
}
_NARROW: Final = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_EXTENSIONS: Final = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_ISO: Final = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)"


def literal(value: str) -> str:
    """Write a string for SQL."""
    return "'" + value.replace("'", "''") + "'"


def files_of(connection: Any, source: Source) -> list[str] | None:  # noqa: ANN401 - DuckDB is imported lazily
    """Return the files that paths and globs mean, in the order of their names; None for a source that is no path.

    Raises:
        CatalogError: ``file_unreadable`` where there is no such file.
    """
    if isinstance(source, str | PathLike):
        source = [source]
    if not isinstance(source, Sequence) or not all(isinstance(one, str | PathLike) for one in source):
        return None
    found: set[str] = set()
    for one in map(fspath, source):
        matches = [one] if Path(one).is_file() else [row[0] for row in connection.execute("FROM glob(?)", [one]).fetchall()]
        if not matches:
            message = f"{one}: cannot be read: there is no such file"
            raise CatalogError(ErrorCode.FILE_UNREADABLE, message, details={"path": one})
        found.update(matches)
    return sorted(found)


def format_of(files: Iterable[str]) -> str:
    """Return ``parquet``, ``csv`` or ``jsonl``, told by the extensions, which must agree.

    Raises:
        CatalogError: ``file_unreadable``.
    """
    formats = {_EXTENSIONS.get(Path(file).suffix.lower()) for file in files}
    if len(formats) != 1 or None in formats:
        received = ", ".join(sorted({Path(file).suffix or "none" for file in files}))
        message = f"usage: expected files of one extension of {', '.join(_EXTENSIONS)}, received {received}"
        raise CatalogError(ErrorCode.FILE_UNREADABLE, message)
    return str(formats.pop())


def define_usage(connection: Any, source: Source, now: int | None) -> bool:  # noqa: ANN401 - as above
    """Define the relations ``source`` and ``usage``; return whether the order of arrival is a column of the source's own.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: ``parameter_missing`` or ``parameter_invalid_object`` for a column.
    """
    files = files_of(connection, source)
    if files is None:
        has_order = _define_stream(connection, source)
        is_text = False
    else:
        kind = format_of(files)
        is_text = kind != "parquet"
        has_order = _DEFINITIONS[kind](connection, files)
    columns = {row[0]: row[1] for row in connection.execute("DESCRIBE source").fetchall()}
    _define_usage(connection, columns, now, is_text=is_text)
    return has_order


def _list(files: Iterable[str]) -> str:
    return "[" + ", ".join(map(literal, files)) + "]"


def _define_parquet(connection: Any, files: list[str]) -> bool:  # noqa: ANN401 - as above
    """Read Parquet in place: a row's number is its number in the file after the rows of the files before."""
    counts = dict(connection.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata({_list(files)})").fetchall())
    before, offsets = 0, []
    for file in files:
        offsets.append(before)
        before += counts[file]
    reader = f"read_parquet({_list(files)}, union_by_name = true)"
    columns = [row[0] for row in connection.execute(f"DESCRIBE FROM {reader}").fetchall()]
    number = f"list_extract({offsets}::BIGINT[], CAST(file_index AS BIGINT) + 1) + file_row_number + 1"
    if len(files) == 1:
        number = "file_row_number + 1"
    return _create(connection, "VIEW", columns, number, reader)


def _define_csv(connection: Any, files: list[str]) -> bool:  # noqa: ANN401 - as above
    # All that DuckDB would guess otherwise: a guess could skip a row without a word.
    options = (
        "header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', comment = '', skip = 0, "
        "strict_mode = true, null_padding = false, ignore_errors = false, union_by_name = true"
    )
    reader = f"read_csv({_list(files)}, {options})"
    columns = [row[0] for row in connection.execute(f"DESCRIBE FROM {reader}").fetchall()]
    return _create(connection, "TABLE", columns, "row_number() OVER ()", reader)


def _define_json(connection: Any, files: list[str]) -> bool:  # noqa: ANN401 - as above
    objects = f"read_json_objects({_list(files)}, format = 'newline_delimited')"
    keys = f"SELECT DISTINCT unnest(json_keys(json)) FROM {objects}"
    # A file without a row names no column; each of those required is then there and empty.
    columns = [row[0] for row in connection.execute(keys).fetchall()] or list(REQUIRED)
    fields = ", ".join(f"json -> {literal('$.' + _quoted(column))} AS {_quoted(column)}" for column in columns)
    return _create(connection, "TABLE", columns, "row_number() OVER ()", f"(SELECT {fields} FROM {objects})")


class _Stream:
    """Nothing but a stream: DuckDB would refuse a relation of another connection, and knows some classes by name."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401 - whatever it is
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:  # noqa: ANN401 - a PyCapsule
        return self._source.__arrow_c_stream__(requested_schema)


def _define_stream(connection: Any, source: Any) -> bool:  # noqa: ANN401 - as above
    """Copy an Arrow stream, which can be read only once."""
    if not hasattr(source, "__arrow_c_stream__"):
        expected = "a path, a glob, a list of them, or an object with __arrow_c_stream__"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "source", expected, source)
    connection.from_arrow(_Stream(source)).create_view("stream")
    columns = [row[0] for row in connection.execute("DESCRIBE stream").fetchall()]
    return _create(connection, "TABLE", columns, "row_number() OVER ()", "stream")


_DEFINITIONS: Final = {"parquet": _define_parquet, "csv": _define_csv, "jsonl": _define_json}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _create(connection: Any, kind: str, columns: Sequence[str], number: str, reader: str) -> bool:  # noqa: ANN401 - as above
    """Create ``source`` with the columns that are read and, unless it has one, ``seq``: the order of arrival."""
    known = [*REQUIRED, *OPTIONAL]
    for column in columns:
        if column not in known:
            meant = difflib.get_close_matches(column, [one for one in known if one not in columns], n=1, cutoff=0.8)
            if meant:
                message = f"usage: received the unknown column {column!r} (did you mean {meant[0]!r}?)"
                raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=column)
    for column in REQUIRED:
        if column not in columns:
            raise column_missing(column)
    read = [_quoted(column) for column in known if column in columns]
    if "seq" not in columns:
        read.append(f"{number} AS seq")
    connection.execute(f"CREATE TEMP {kind} source AS SELECT {', '.join(read)} FROM {reader}")
    return "seq" in columns


# Types -------------------------------------------------------------------------------------------------------------------


def _define_usage(connection: Any, columns: Mapping[str, str], now: int | None, *, is_text: bool) -> None:  # noqa: ANN401 - as above
    if now is not None and "received_at" in columns:
        message = "You may only specify one of these parameters: now, received_at."
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
    timestamp = _instant("timestamp", columns["timestamp"], is_text=is_text)
    received = timestamp if now is None else f"CAST({now} AS BIGINT)"
    if "received_at" in columns:
        given = _instant("received_at", columns["received_at"], is_text=is_text)
        # A row that does not say when it was received was received when it happened.
        received = f"CASE WHEN {_is_absent('received_at', columns)} THEN {timestamp} ELSE {given} END"
    fields = {
        "seq": _integer("seq", columns.get("seq", "BIGINT"), is_text=is_text, type="BIGINT"),
        "subscription_item": _string("subscription_item", columns),
        "quantity": _integer("quantity", columns["quantity"], is_text=is_text, type="DECIMAL(38, 0)"),
        "timestamp": timestamp,
        "is_set": _is_set(columns),
        "id": _string("id", columns),
        "received": received,
    }
    selected = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
    connection.execute(f"CREATE OR REPLACE TEMP VIEW usage AS SELECT {selected} FROM source")


def _is_absent(column: str, columns: Mapping[str, str]) -> str:
    return f"({column} IS NULL OR json_type({column}) = 'NULL')" if columns[column] == "JSON" else f"{column} IS NULL"


def _integer(column: str, kind: str, *, is_text: bool, type: str) -> str:  # noqa: A002 - what it is
    """Return the expression of an integer; NULL where a text is none."""
    if kind in _INTEGERS or (kind.startswith("DECIMAL(") and kind.endswith(",0)")):
        return f"CAST({column} AS BIGINT)" if kind in _NARROW else f"TRY_CAST({column} AS {type})"
    if kind == "JSON":
        return f"CASE WHEN json_type({column}) IN ('UBIGINT', 'BIGINT') THEN TRY_CAST({column} ->> '$' AS {type}) END"
    if is_text and kind == "VARCHAR":
        return f"CASE WHEN regexp_full_match({column}, '-?[0-9]+') THEN TRY_CAST({column} AS {type}) END"
    raise column_refused(column, "integers", kind)


def _instant(column: str, kind: str, *, is_text: bool) -> str:
    """Return the expression of Unix seconds; NULL where a text says no instant."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return _seconds(column)
    if kind == "JSON":
        text = f"{column} ->> '$'"
        return (
            f"CASE WHEN json_type({column}) IN ('UBIGINT', 'BIGINT') THEN TRY_CAST({text} AS BIGINT) "
            f"WHEN json_type({column}) = 'VARCHAR' AND regexp_full_match({text}, '{_ISO}') "
            f"THEN {_seconds(f'TRY_CAST({text} AS TIMESTAMPTZ)')} END"
        )
    if is_text and kind == "VARCHAR":
        return (
            f"CASE WHEN regexp_full_match({column}, '-?[0-9]+') THEN TRY_CAST({column} AS BIGINT) "
            f"WHEN regexp_full_match({column}, '{_ISO}') THEN {_seconds(f'TRY_CAST({column} AS TIMESTAMPTZ)')} END"
        )
    if kind in _INTEGERS:
        return f"TRY_CAST({column} AS BIGINT)"
    raise column_refused(column, INSTANT_TYPES, kind)


def _seconds(instant: str) -> str:
    """Floor to the second, also before 1970."""
    microseconds = f"epoch_us({instant})"
    return f"(({microseconds} - ((({microseconds} % 1000000) + 1000000) % 1000000)) // 1000000)"


def _string(column: str, columns: Mapping[str, str]) -> str:
    """Return the expression of a string. A JSON value of another type becomes an empty string, which is malformed."""
    kind = columns.get(column)
    if kind is None or kind == '"NULL"':
        return "CAST(NULL AS VARCHAR)"
    if kind == "JSON":
        text = f"CASE WHEN json_type({column}) = 'VARCHAR' THEN {column} ->> '$' ELSE '' END"
        return f"CASE WHEN {_is_absent(column, columns)} THEN NULL ELSE {text} END"
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        return f"CAST({column} AS VARCHAR)"
    raise column_refused(column, "strings", kind)


def _is_set(columns: Mapping[str, str]) -> str:
    """Return whether the action is ``set``; NULL for another word."""
    if "action" not in columns:
        return "FALSE"
    action = _string("action", columns)
    return f"CASE WHEN {action} = 'set' THEN TRUE WHEN {action} = 'increment' OR ({action}) IS NULL THEN FALSE END"
