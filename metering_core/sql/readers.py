"""How DuckDB reads a source: Parquet, CSV and JSON lines by path or glob, and anything that is an Arrow stream.

Nothing is left to DuckDB's guesses, and what it would pass over without a word is looked for here: names of folders that it
takes for columns, columns and keys that come twice, and files that hold one column in different types.
"""

# ruff: noqa: S608 - what is put into SQL here are names of our own, and quoted literals

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from mmap import ACCESS_READ, mmap
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError
from metering_core.names import refuse_slips
from metering_core.sql.duckdb_tables import DuckDBTables

Source: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]] | Any
"""A path, a glob, several of them, or an object with the Arrow PyCapsule interface (``__arrow_c_stream__``)."""

INTEGERS: Final = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER",
    "UINTEGER",
}
ZONED: Final = {"TIMESTAMP WITH TIME ZONE": ("epoch_us", 10**6), "TIMESTAMPTZ_NS": ("epoch_ns", 10**9)}
"""Timestamps with a time zone: what counts their units since 1970, and the units of a second."""

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
_BLANKS: Final = re.compile(rb'[,\r\n] +"|" +(?=[,\r\n]|\Z)')
_EXTENSIONS: Final = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@attrs.frozen
class Files:
    """A source about which more is said than its path.

    Attributes:
        path: a path or a glob.
        format: ``parquet``, ``csv`` or ``jsonl``; the extension says it unless given.
        columns: those that text may have; any unless given.
    """

    path: str
    format: str | None = None
    columns: Collection[str] | None = None


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


def literal(value: str) -> str:
    """Write a string for SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Write a column's name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def listed(files: Iterable[str]) -> str:
    """Write the names of files for SQL: DuckDB would read a glob in each of them."""
    return "[" + ", ".join(literal(re.sub(r"[*?[]", r"[\g<0>]", file)) for file in files) + "]"


def reader_of(tables: DuckDBTables, source: Source, required: Sequence[str], optional: Sequence[str]) -> Reader:
    """Return how the columns of a source are read; a file of JSON lines without a row has the ``required`` ones.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: for a source that is neither a path nor a stream, and for columns that files disagree about.
    """
    connection, said = tables.connection, source if isinstance(source, Files) else Files("")
    files = files_of(connection, source.path if isinstance(source, Files) else source)
    if files is None:
        return _stream_reader(connection, source)
    kind = said.format or format_of(files)
    if kind == "parquet":
        return _parquet_reader(connection, files, (*required, *optional))
    reader = _csv_reader(files, required, optional) if kind == "csv" else _json_reader(tables, files, required, optional)
    if said.columns is not None:
        _refuse_unknown(reader.columns, said.columns)
    return reader


def _refuse_unknown(columns: Iterable[str], known: Collection[str]) -> None:
    for column in columns:
        if column not in known:
            message = f"usage: expected the columns {', '.join(known)}, received {column!r}"
            raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=column)


# Files -------------------------------------------------------------------------------------------------------------------


def files_of(connection: Any, source: Source) -> list[str] | None:  # noqa: ANN401 - DuckDB is imported lazily
    """Return the files that paths and globs mean, each once, in the order of their names; None for a source that is no path.

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
            raise _unreadable([one], "cannot be read: there is no such file")
        found.update(matches)
    once: dict[str, str] = {}
    for file in sorted(found):
        once.setdefault(os.path.realpath(file), file)
    return list(once.values())


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


def _unreadable(files: Sequence[str], reason: str) -> CatalogError:
    return CatalogError(ErrorCode.FILE_UNREADABLE, f"{_place(files)}: {reason}", details={"path": files[0]})


def _place(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} and others"


# CSV ---------------------------------------------------------------------------------------------------------------------


def _csv_reader(files: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> Reader:
    """Read headers ourselves: DuckDB trims names, ignores case, and gives a name that comes twice another one."""
    columns: dict[str, None] = {}
    for file in files:
        header = _header_of(file)
        refuse_slips(header, (*required, *optional), file)
        columns |= dict.fromkeys(header)
        if header:
            _refuse_blanks(file)
    options = {"union_by_name": "true", "hive_partitioning": "false", **_CSV_OPTIONS}
    written = ", ".join([listed(files), *(f"{name} = {value}" for name, value in options.items())])
    return Reader(f"read_csv({written})", list(columns), "csv", files)


def _header_of(file: str) -> list[str]:
    with Path(file).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        try:
            header: list[str] = next(filter(None, csv.reader(lines, strict=True)), [])
        except csv.Error as error:
            raise _unreadable([file], f"is not CSV: {error}") from None
    for column, count in Counter(one.strip().casefold() for one in header).items():
        if count > 1:
            raise _unreadable([file], f"expected each column once, received {column!r} {count} times")
    return header


def _refuse_blanks(file: str) -> None:
    """Refuse blanks between a quote and a comma: DuckDB passes over them, and for all others they are text."""
    with Path(file).open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as text:
        if text.find(b' "') < 0 and text.find(b'" ') < 0:
            return
        quotes = at = 0
        for found in _BLANKS.finditer(text):
            outside = found.end() if found[0].startswith(b'"') else found.start()
            quotes += text[at:outside].count(b'"')
            at = outside
            if quotes % 2 == 0:  # Within quotes it is odd.
                raise _unreadable([file], "is not CSV: expected no blanks between a quote and a comma, received some")


# JSON lines --------------------------------------------------------------------------------------------------------------


def _json_reader(tables: DuckDBTables, files: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> Reader:
    for file in files:
        if Path(file).stat().st_size == 1 and not Path(file).read_bytes().isspace():
            raise _unreadable([file], "is not JSON lines")  # DuckDB passes over a single character.
    objects = f"read_json_objects({listed(files)}, format = 'newline_delimited', hive_partitioning = false)"
    has_comma = r"regexp_matches(CAST(json AS VARCHAR), ',[\s}\]]*$')"
    found = sorted(tables.execute(f"SELECT DISTINCT json_keys(json), {has_comma} FROM {objects}").fetchall())
    for keys, ends_with_comma in found:
        _refuse_twice(keys, files)
        refuse_slips(keys, (*required, *optional), _place(files))
        if ends_with_comma:
            raise _unreadable(files, "is not JSON: an object ends with a comma")
    columns = list(dict.fromkeys(key for keys, _ in found for key in keys)) or list(required)
    read = [column for column in (*required, *optional) if column in columns]
    fields = ", ".join(f"json -> {literal(_pointer(column))} AS {quoted(column)}" for column in read)
    return Reader(f"(SELECT {fields} FROM {objects})", columns, "jsonl", files)


def _refuse_twice(keys: Iterable[str], files: Sequence[str]) -> None:
    for key, count in Counter(keys).items():
        if count > 1:
            raise _unreadable(files, f"is not usable JSON: the key {key!r} occurs twice in one object")


def _pointer(key: str) -> str:
    """Write a key as a JSON pointer, in which only two characters are special."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


# Parquet -----------------------------------------------------------------------------------------------------------------


def _parquet_reader(connection: Any, files: Sequence[str], read: Sequence[str]) -> Reader:  # noqa: ANN401 - as above
    if len(files) > 1:
        _refuse_mixed(connection, files, read)
    relation = f"read_parquet({listed(files)}, union_by_name = true, hive_partitioning = false)"
    return Reader(relation, list(_types_of(connection, relation)), "parquet", files)


def _refuse_mixed(connection: Any, files: Sequence[str], columns: Sequence[str]) -> None:  # noqa: ANN401 - as above
    """Refuse a column of another sort in one file than in another: DuckDB would cast it, naive timestamps in its own zone."""
    first: dict[str, tuple[str, str]] = {}
    for file, empty in _one_of_each_schema(connection, files):
        types = _types_of(connection, f"read_parquet({listed([file])}, hive_partitioning = false)")
        refuse_slips(types, columns, file)
        for column in (one for one in columns if one in types and one not in (empty or ())):
            kind, where = first.setdefault(column, (types[column], file))
            if _sort_of(kind) != _sort_of(types[column]):
                received = f"{kind} in {where} and {types[column]} in {file}"
                message = f"{column}: expected a column of one type in all files, received {received}"
                raise InvalidValueError(ErrorCode.PARAMETER_INVALID_OBJECT, message, param=column)


def _one_of_each_schema(connection: Any, files: Sequence[str]) -> list[tuple[str, list[str] | None]]:  # noqa: ANN401 - as above
    """Return a file of each schema, and its columns without a value that are of no type."""
    field = "concat_ws(' ', name, type, converted_type, logical_type)"
    schemas = (
        f"SELECT file_name, list_sort(list({field})) AS fields, list(name) FILTER (logical_type = 'NullType()') AS empty "
        f"FROM parquet_schema({listed(files)}) GROUP BY file_name"
    )
    found: list[tuple[str, list[str] | None]] = connection.execute(
        f"SELECT MIN(file_name), ANY_VALUE(empty) FROM ({schemas}) GROUP BY fields ORDER BY 1"
    ).fetchall()
    return found


def _sort_of(kind: str) -> str:
    if kind in INTEGERS or kind.startswith("DECIMAL"):
        return "number"
    return "instant" if kind in ZONED else kind


def _types_of(connection: Any, relation: str) -> dict[str, str]:  # noqa: ANN401 - as above
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}


# Streams -----------------------------------------------------------------------------------------------------------------


def _stream_reader(connection: Any, source: Any) -> Reader:  # noqa: ANN401 - as above
    """Name an Arrow stream, which can be read only once."""
    if not hasattr(source, "__arrow_c_stream__"):
        expected = "a path, a glob, a list of them, or an object with __arrow_c_stream__"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "source", expected, source)
    connection.from_arrow(_Stream(source)).create_view("stream")
    return Reader("stream", list(_types_of(connection, "stream")), "stream")


class _Stream:
    """Nothing but a stream: DuckDB would refuse a relation of another connection, and knows some classes by name."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401 - whatever it is
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:  # noqa: ANN401 - a PyCapsule
        return self._source.__arrow_c_stream__(requested_schema)
