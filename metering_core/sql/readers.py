"""How DuckDB reads a source: Parquet, CSV and JSON lines by path or glob, and anything that is an
Arrow stream.

Nothing is left to DuckDB's guesses, and what it would pass over without a word is looked for here:
names of folders that it takes for columns, columns and keys that come twice, and files that hold
one column in different types.
"""

# ruff: noqa: S608 - what is put into SQL here are names of our own, and quoted literals

from __future__ import annotations

import csv
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from mmap import ACCESS_READ, mmap
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias, cast

import attrs

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, MeteringError, shown
from metering_core.feeds.files import TextRow, read_text, require_header
from metering_core.feeds.formats import EXTENSIONS, format_by_extension
from metering_core.names import refuse_slips
from metering_core.sql.duckdb_tables import DuckDBTables

Source: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]] | Any
"""A path, a glob, several of them, or an object with the Arrow PyCapsule interface
(``__arrow_c_stream__``).
"""

INTEGERS: Final = {
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
} | {
    "INTEGER",
    "UINTEGER",
}
ZONED: Final = {
    "TIMESTAMP WITH TIME ZONE": ("epoch_us", 10**6),
    "TIMESTAMPTZ_NS": ("epoch_ns", 10**9),
}
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
        relation: what stands behind ``FROM``; None where text is to be read row by row.
        columns: the names of its columns.
        kind: ``parquet``, ``csv``, ``jsonl``, or ``stream`` for anything that is no path.
        files: the files, in the order in which they are read.
        text: the same where they are text.
    """

    relation: str | None
    columns: Sequence[str]
    kind: str
    files: Sequence[str] = ()
    text: Text | None = None


def literal(value: str) -> str:
    """Write a string for SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Write a column's name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def listed(files: Iterable[str]) -> str:
    """Write the names of files for SQL: DuckDB would read a glob in each of them."""
    return "[" + ", ".join(literal(re.sub(r"[*?[]", r"[\g<0>]", file)) for file in files) + "]"


def reader_of(
    tables: DuckDBTables, source: Source, required: Sequence[str], optional: Sequence[str]
) -> Reader:
    """Return how the columns of a source are read; a file of JSON lines without a row has the
    ``required`` ones.

    Text that DuckDB does not read as others do is read row by row instead: one reader says what is
    a row, and what is wrong with one that is none.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: for a source that is neither a path nor a stream, and for columns that
            files disagree about.
    """
    said = source if isinstance(source, Files) else Files("")
    files = files_of(tables, source.path if isinstance(source, Files) else source)
    if files is None:
        return _stream_reader(tables, source)
    tables.files = files
    kind = said.format or format_of(files)
    if kind == "parquet":
        return _parquet_reader(tables, files, (*required, *optional))
    text = Text(files, kind, tuple(required), tuple(optional), said.columns)
    return _csv_reader(text) if kind == "csv" else _json_reader(tables, text)


# Files --------------------------------------------------------------------------------------------

_REMOTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")


def files_of(tables: DuckDBTables, source: Source) -> list[str] | None:
    """Return the files that paths and globs mean, each once, in the order of their names; None for
    a source that is no path.

    Raises:
        CatalogError: ``file_unreadable`` where there is no such file, and for what is not a file of
            this machine.
    """
    if isinstance(source, str | PathLike):
        source = [source]
    if not isinstance(source, Sequence) or isinstance(source, bytes | bytearray | range):
        return None
    paths = [fspath(one) if isinstance(one, str | PathLike) else None for one in source]
    if not all(isinstance(one, str) for one in paths):
        return None
    found = {match for one in paths for match in _matches(tables, str(one))}
    once: dict[str, str] = {}
    for file in sorted(found):
        once.setdefault(os.path.realpath(file), file)
    return list(once.values())


def _matches(tables: DuckDBTables, path: str) -> list[str]:
    """Return the file that has this name, or those that a glob means."""
    if _REMOTE.match(path):
        reason = (
            "cannot be read: expected a file of this machine, because nothing is fetched from "
            "anywhere"
        )
        raise CatalogError.of_file("source", path, reason)
    try:
        status = os.stat(path)  # noqa: PTH116 - a path of NULs or of any length, as it is
    except (OSError, ValueError) as error:
        glob = path if any(one in path for one in "*?[{") and "\0" not in path else None
        matches = [] if glob is None else [row[0] for row in _globbed(tables, glob)]
        if not matches:
            absent = isinstance(error, FileNotFoundError)
            reason = (
                "there is no such file"
                if absent
                else getattr(error, "strerror", None) or str(error)
            )
            raise CatalogError.of_file("source", path, f"cannot be read: {reason}") from None
        return [match for match in matches for _ in _matches(tables, match)]
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "something else"
        raise CatalogError.of_file(
            "source", path, f"cannot be read: expected a file, received {what}"
        )
    return [path]


def _globbed(tables: DuckDBTables, glob: str) -> list[tuple[str]]:
    if any("\ud800" <= one <= "\udfff" for one in glob):
        raise CatalogError.of_file("source", glob, "cannot be read: expected a path of UTF-8")
    return cast("list[tuple[str]]", tables.fetched("FROM glob(?)", [glob]))


def format_of(files: Sequence[str]) -> str:
    """Return ``parquet``, ``csv`` or ``jsonl``, told by the extensions, which must agree.

    Raises:
        CatalogError: ``file_unreadable``.
    """
    formats = {format_by_extension(file) for file in files}
    if len(formats) != 1 or None in formats:
        received = ", ".join(sorted({Path(file).suffix or "none" for file in files}))
        message = (
            f"usage: expected files of one extension of {', '.join(EXTENSIONS)}, received "
            f"{received}"
        )
        details = {"path": next(iter(files), None), "line": None}
        raise CatalogError(ErrorCode.FILE_UNREADABLE, message, param="source", details=details)
    return str(formats.pop())


def _place(files: Sequence[str]) -> str:
    return shown(files[0]) if len(files) == 1 else f"{shown(files[0])} and others"


# Text ---------------------------------------------------------------------------------------------


@attrs.frozen
class Text:
    """Files of CSV or JSON lines as :mod:`metering_core.feeds.files` reads them, which says what
    a row is.

    Attributes:
        files: in the order in which they are read.
        kind: ``csv`` or ``jsonl``.
        required: the columns that a header must have.
        optional: the others that are read.
        columns: those that there may be; any unless given.
    """

    files: Sequence[str]
    kind: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    columns: Collection[str] | None = None

    def rows(self) -> Iterator[TextRow | CatalogError]:
        """Yield the rows of all files, and the complaints about those that are none."""
        known = None if self.columns is None else tuple(self.columns)
        for file in self.files:
            with opened(file) as stream:
                yield from read_text(
                    stream, self.kind, path=file, required=self.required, columns=known
                )

    def lines(self) -> Iterator[tuple[str, int]]:
        """Yield the file and the line of each row, without looking into rows where that can be
        done.
        """
        for file in self.files:
            with opened(file) as stream:
                if self.kind == "csv" and _has_quotes(file):
                    yield from islice(((file, line) for line in _starts(stream)), 1, None)
                else:
                    numbered = (
                        number
                        for number, line in enumerate(stream, start=1)
                        if line.strip("\ufeff \t\r\n")
                    )
                    yield from (
                        (file, line) for line in islice(numbered, int(self.kind == "csv"), None)
                    )


def _starts(stream: TextIO) -> Iterator[int]:
    """Yield the line in which each row of CSV begins, the header's first."""
    rows = csv.reader(stream)
    line = 1
    for row in rows:
        if row:
            yield line
        line = rows.line_num + 1


@contextmanager
def opened(file: str) -> Iterator[TextIO]:
    """Open text as the command line does; bytes that are no UTF-8 are complained of in their
    row.
    """
    try:
        with Path(file).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            yield stream
    except (OSError, ValueError) as error:
        if isinstance(error, MeteringError):
            raise
        raise CatalogError.of_file(
            "source", file, f"cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None


def _has_quotes(file: str) -> bool:
    with Path(file).open("rb") as stream:
        return any(b'"' in block for block in iter(lambda: stream.read(2**20), b""))


# CSV ----------------------------------------------------------------------------------------------


def _csv_reader(text: Text) -> Reader:
    """Read headers ourselves: DuckDB trims names, ignores case, and gives a name that comes twice
    another one.
    """
    columns: dict[str, None] = {}
    is_plain = True
    for file in text.files:
        header, line = _header_of(file)
        if header and text.columns is not None:
            require_header(header, file, line, tuple(text.columns), text.required)
        _refuse_twice(header, file)
        refuse_slips(header, (*text.required, *text.optional), shown(file))
        columns |= dict.fromkeys(header)
        is_plain = is_plain and line == 1 and not _has_odd_blanks(file)
    options = {"union_by_name": "true", "hive_partitioning": "false", **_CSV_OPTIONS}
    written = ", ".join(
        [listed(text.files), *(f"{name} = {value}" for name, value in options.items())]
    )
    return Reader(
        f"read_csv({written})" if is_plain else None, list(columns), "csv", text.files, text
    )


def _header_of(file: str) -> tuple[list[str], int]:
    """Return the header of a file and its line; none where only who reads row by row can say what
    is wrong with it.
    """
    with opened(file) as stream:
        rows = csv.reader(stream, strict=True)
        try:
            header: list[str] = next(filter(None, rows), [])
        except csv.Error:
            header = []
    if header:
        header[0] = header[0].removeprefix("\ufeff")
    return header, rows.line_num if header else 0


def _refuse_twice(header: Iterable[str], file: str) -> None:
    for column, count in Counter(one.strip().casefold() for one in header).items():
        if count > 1:
            reason = f"expected each column once, received {column!r} {count} times"
            raise CatalogError.of_file("header", file, reason)


def _has_odd_blanks(file: str) -> bool:
    """Whether there are blanks between a quote and a comma: DuckDB passes over them, and for all
    others they are text.
    """
    if (
        Path(file).stat().st_size == 0
    ):  # As of what the system makes up while it is read, which has no pages to look at.
        return True
    with Path(file).open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as text:
        if text.find(b' "') < 0 and text.find(b'" ') < 0:
            return False
        quotes = at = 0
        for found in _BLANKS.finditer(text):
            outside = found.end() if found[0].startswith(b'"') else found.start()
            quotes += text[at:outside].count(b'"')
            at = outside
            if quotes % 2 == 0:  # Within quotes it is odd.
                return True
    return False


# JSON lines ---------------------------------------------------------------------------------------


def _json_reader(tables: DuckDBTables, text: Text) -> Reader:
    objects = (
        f"read_json_objects({listed(text.files)}, format = 'newline_delimited', "
        "hive_partitioning = false)"
    )
    columns = _keys_of(tables, text, objects)
    if columns is None:
        return Reader(None, [*text.required, *text.optional], "jsonl", text.files, text)
    columns = columns or list(text.required)
    read = [column for column in (*text.required, *text.optional) if column in columns]
    fields = ", ".join(
        f"json -> {literal(_pointer(column))} AS {quoted(column)}" for column in read
    )
    return Reader(f"(SELECT {fields} FROM {objects})", columns, "jsonl", text.files, text)


def _keys_of(tables: DuckDBTables, text: Text, objects: str) -> list[str] | None:
    """Return the keys of all rows; None where rows must be read one by one, because one is none or
    DuckDB would not say so.
    """
    if any(_is_passed_over(file) for file in text.files):
        return None
    is_odd = r"json_type(json) <> 'OBJECT' OR regexp_matches(CAST(json AS VARCHAR), ',[\s}\]]*$')"
    try:
        found = sorted(tables.fetched(f"SELECT DISTINCT json_keys(json), {is_odd} FROM {objects}"))
    except CatalogError:
        return None
    for keys, is_odd_row in found:
        if is_odd_row or len(set(keys)) < len(keys):
            return None
        if text.columns is not None and not set(keys) <= set(text.columns):
            return None
    for keys, _ in found:
        refuse_slips(keys, (*text.required, *text.optional), _place(text.files))
    return list(dict.fromkeys(key for keys, _ in found for key in keys))


def _is_passed_over(file: str) -> bool:
    """Whether DuckDB reads no row of a file that has some: of a single character, or made up while
    it is read.
    """
    with opened(file) as stream:
        start = stream.read(2)
    return bool(start) and (
        (len(start) == 1 and not start.isspace()) or Path(file).stat().st_size == 0
    )


def _pointer(key: str) -> str:
    """Write a key as a JSON pointer, in which only two characters are special."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


# Parquet ------------------------------------------------------------------------------------------


def _parquet_reader(tables: DuckDBTables, files: Sequence[str], read: Sequence[str]) -> Reader:
    if len(files) > 1:
        _refuse_mixed(tables, files, read)
    relation = f"read_parquet({listed(files)}, union_by_name = true, hive_partitioning = false)"
    return Reader(relation, list(_types_of(tables, relation)), "parquet", files)


def _refuse_mixed(tables: DuckDBTables, files: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a column of another sort in one file than in another: DuckDB would cast it, naive
    timestamps in its own zone.
    """
    first: dict[str, tuple[str, str]] = {}
    for file, empty in _one_of_each_schema(tables, files):
        types = _types_of(tables, f"read_parquet({listed([file])}, hive_partitioning = false)")
        refuse_slips(types, columns, file)
        for column in (one for one in columns if one in types and one not in (empty or ())):
            kind, where = first.setdefault(column, (types[column], file))
            if _sort_of(kind) != _sort_of(types[column]):
                received = f"{kind} in {where} and {types[column]} in {file}"
                message = (
                    f"{column}: expected a column of one type in all files, received {received}"
                )
                raise InvalidValueError(ErrorCode.PARAMETER_INVALID_OBJECT, message, param=column)


def _one_of_each_schema(tables: DuckDBTables, files: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return a file of each schema, and its columns without a value that are of no type."""
    field = "concat_ws(' ', name, type, converted_type, logical_type)"
    schemas = (
        f"SELECT file_name, list_sort(list({field})) AS fields, list(name) FILTER "
        "(logical_type = 'NullType()') AS empty "
        f"FROM parquet_schema({listed(files)}) GROUP BY file_name"
    )
    return tables.fetched(
        f"SELECT MIN(file_name), ANY_VALUE(empty) FROM ({schemas}) GROUP BY fields ORDER BY 1"
    )


def _sort_of(kind: str) -> str:
    if kind in INTEGERS or kind.startswith("DECIMAL"):
        return "number"
    return "instant" if kind in ZONED else kind


def _types_of(tables: DuckDBTables, relation: str) -> dict[str, str]:
    return {row[0]: row[1] for row in tables.fetched(f"DESCRIBE FROM {relation}")}


# Streams ------------------------------------------------------------------------------------------


def _stream_reader(tables: DuckDBTables, source: Any) -> Reader:
    """Name an Arrow stream, which can be read only once."""
    try:
        is_stream = hasattr(source, "__arrow_c_stream__")
    except Exception:  # noqa: BLE001 - an object of the caller's own may raise anything
        is_stream = False
    if not is_stream:
        expected = "a path, a glob, a list of them, or an object with __arrow_c_stream__"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "source", expected, source
        )
    tables.stream("stream", _BareStream(source))
    return Reader("stream", list(_types_of(tables, "stream")), "stream")


class _BareStream:
    """Nothing but a stream: DuckDB would refuse a relation of another connection, and knows some
    classes by name.
    """

    def __init__(self, source: Any) -> None:
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self._source.__arrow_c_stream__(requested_schema)
