"""Usage as DuckDB can read it: Parquet, CSV and JSON lines by path or glob, and anything that is an Arrow stream.

A source becomes two relations: ``source``, the rows as they are with a column ``seq``, and ``usage``, the same with the types
that the kernel reads. A value that cannot be read exactly becomes NULL in ``usage``, which the inspection refuses by name.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError
from metering_core.sql.engine import INSTANT_TYPES, column_refused, require_columns

Source: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]] | Any
"""A path, a glob, several of them, or an object with the Arrow PyCapsule interface (``__arrow_c_stream__``)."""

REQUIRED: Final = ("subscription_item", "quantity", "timestamp")
OPTIONAL: Final = ("action", "id", "received_at", "seq")

INTEGERS: Final = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER",
    "UINTEGER",
}
_NARROW: Final = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_CSV_OPTIONS: Final = {
    "header": "true",
    "all_varchar": "true",
    "delim": "','",
    "quote": "'\"'",
    "escape": "'\"'",
    "comment": "''",
    "skip": "0",
    "strict_mode": "true",
    "null_padding": "false",
    "ignore_errors": "false",
}
"""All that DuckDB would guess otherwise: a guess could skip a row without a word."""
_EXTENSIONS: Final = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
ISO: Final = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)"


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


@attrs.frozen
class Reader:
    """How DuckDB reads a source.

    Attributes:
        relation: what stands behind ``FROM``.
        columns: the names of its columns.
        kind: ``parquet``, ``csv``, ``jsonl``, or ``stream`` for anything that is no path.
        files: the files, in the order in which they are read.
    """

    relation: str
    columns: Sequence[str]
    kind: str
    files: Sequence[str] = ()


def reader_of(connection: Any, source: Source, required: Sequence[str]) -> Reader:  # noqa: ANN401 - as above
    """Return how a source is read; a file of JSON lines without a row has the ``required`` columns.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: for a source that is neither a path nor a stream.
    """
    files = files_of(connection, source)
    if files is None:
        return _stream_reader(connection, source)
    kind = format_of(files)
    listed = "[" + ", ".join(map(literal, files)) + "]"
    if kind == "jsonl":
        objects = f"read_json_objects({listed}, format = 'newline_delimited')"
        keys = connection.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {objects}").fetchall()
        columns = [row[0] for row in keys] or list(required)
        fields = ", ".join(f"json -> {literal('$.' + quoted(column))} AS {quoted(column)}" for column in columns)
        return Reader(f"(SELECT {fields} FROM {objects})", columns, kind, files)
    reader = "read_parquet" if kind == "parquet" else "read_csv"
    options = {"union_by_name": "true"} | (_CSV_OPTIONS if kind == "csv" else {})
    relation = f"{reader}({', '.join([listed, *(f'{name} = {value}' for name, value in options.items())])})"
    return Reader(relation, _columns_of(connection, relation), kind, files)


def _columns_of(connection: Any, relation: str) -> list[str]:  # noqa: ANN401 - as above
    return [row[0] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()]


def _stream_reader(connection: Any, source: Any) -> Reader:  # noqa: ANN401 - as above
    """Name an Arrow stream, which can be read only once."""
    if not hasattr(source, "__arrow_c_stream__"):
        expected = "a path, a glob, a list of them, or an object with __arrow_c_stream__"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "source", expected, source)
    connection.from_arrow(_Stream(source)).create_view("stream")
    return Reader("stream", _columns_of(connection, "stream"), "stream")


class _Stream:
    """Nothing but a stream: DuckDB would refuse a relation of another connection, and knows some classes by name."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401 - whatever it is
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:  # noqa: ANN401 - a PyCapsule
        return self._source.__arrow_c_stream__(requested_schema)


def quoted(name: str) -> str:
    """Write a column's name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def define_usage(connection: Any, source: Source, now: int | None) -> bool:  # noqa: ANN401 - as above
    """Define the relations ``source`` and ``usage``; return whether the order of arrival is a column of the source's own.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: ``parameter_missing`` or ``parameter_invalid_object`` for a column.
    """
    reader = reader_of(connection, source, REQUIRED)
    _refuse_slips(reader.columns)
    require_columns(reader.columns, REQUIRED, now)
    in_place = reader.kind == "parquet"
    read = [quoted(column) for column in (*REQUIRED, *OPTIONAL) if column in reader.columns]
    if "seq" not in reader.columns:
        read.append(f"{_number(connection, reader.files) if in_place else 'row_number() OVER ()'} AS seq")
    kind = "VIEW" if in_place else "TABLE"
    connection.execute(f"CREATE TEMP {kind} source AS SELECT {', '.join(read)} FROM {reader.relation}")
    kinds = {row[0]: row[1] for row in connection.execute("DESCRIBE source").fetchall()}
    _define_usage(connection, kinds, now, is_text=reader.kind in {"csv", "jsonl"})
    return "seq" in reader.columns


def _number(connection: Any, files: Sequence[str]) -> str:  # noqa: ANN401 - as above
    """Return the expression of a row's number in Parquet that is read in place: that in its file after all files before."""
    if len(files) == 1:
        return "file_row_number + 1"
    listed = "[" + ", ".join(map(literal, files)) + "]"
    counts = dict(connection.execute(f"SELECT file_name, num_rows FROM parquet_file_metadata({listed})").fetchall())
    before = list(accumulate((counts[file] for file in files[:-1]), initial=0))
    return f"list_extract({before}::BIGINT[], CAST(file_index AS BIGINT) + 1) + file_row_number + 1"


def _refuse_slips(columns: Sequence[str]) -> None:
    """Refuse an unknown column whose name is nearly that of one which is not there; others are not read."""
    known = [*REQUIRED, *OPTIONAL]
    for column in columns:
        if column not in known:
            meant = difflib.get_close_matches(column, [one for one in known if one not in columns], n=1, cutoff=0.8)
            if meant:
                message = f"usage: received the unknown column {column!r} (did you mean {meant[0]!r}?)"
                raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=column)


# Types -------------------------------------------------------------------------------------------------------------------


def _define_usage(connection: Any, columns: Mapping[str, str], now: int | None, *, is_text: bool) -> None:  # noqa: ANN401 - as above
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
    if kind in INTEGERS or (kind.startswith("DECIMAL(") and kind.endswith(",0)")):
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
            f"WHEN json_type({column}) = 'VARCHAR' AND regexp_full_match({text}, '{ISO}') "
            f"THEN {_seconds(f'TRY_CAST({text} AS TIMESTAMPTZ)')} END"
        )
    if is_text and kind == "VARCHAR":
        return (
            f"CASE WHEN regexp_full_match({column}, '-?[0-9]+') THEN TRY_CAST({column} AS BIGINT) "
            f"WHEN regexp_full_match({column}, '{ISO}') THEN {_seconds(f'TRY_CAST({column} AS TIMESTAMPTZ)')} END"
        )
    if kind in INTEGERS:
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
