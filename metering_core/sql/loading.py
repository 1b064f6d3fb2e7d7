"""A source as the relation ``source``, with the order of its rows, and where in which file each of
them stands.

DuckDB copies text whole, and fast. Where it refuses a row, or would read one otherwise than the
other engines do, the text is read again row by row, by the reader that they use: what is a row, and
what is said of one that is none, is the same for all.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from os.path import realpath
from typing import Any, Final

import attrs

from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    MeteringError,
    UsageRejectedError,
    shown,
)
from metering_core.feeds.files import TextRow, numbers_for_digits
from metering_core.feeds.json import parse_json
from metering_core.names import refuse_slips
from metering_core.sql.duckdb_tables import DuckDBTables
from metering_core.sql.readers import ZONED, Reader, Source, listed, quoted, reader_of
from metering_core.sql.rules import Row

_BY_ROW: Final = "read_by_row"


@attrs.frozen
class Place:
    """Where a row stands.

    Attributes:
        seq: its place in the order of arrival.
        path: its file; None for a stream.
        line: where it begins in text, from 1.
        row: its number in its file, from 1, where it has no line.
    """

    seq: int
    path: str | None = None
    line: int | None = None
    row: int | None = None

    def __str__(self) -> str:
        """Return what a sentence about the row begins with."""
        place = "usage" if self.path is None else shown(self.path)
        return (
            f"{place}, row {self.row or self.seq}"
            if self.line is None
            else f"{place}, line {self.line}"
        )

    def complaint(self, error: InvalidValueError) -> MeteringError:
        """Return what is wrong with a malformed row: of a file, what
        :mod:`metering_core.feeds.files` says of one.
        """
        message, param = f"{self}: {error.message}", error.param or "row"
        if self.path is None:
            return InvalidValueError(
                error.code, message, param=param, details={**error.details, **self._details()}
            )
        details = {"cause": error.code, **self._details()}
        return CatalogError(ErrorCode.FILE_UNREADABLE, message, param=param, details=details)

    def refusal(self, error: UsageRejectedError) -> UsageRejectedError:
        """Return why a well-formed row was refused, with its place."""
        details = {**error.details, **self._details()}
        return UsageRejectedError(
            error.code, f"{self}: {error.message}", param=error.param, details=details
        )

    def _details(self) -> dict[str, Any]:
        known = {
            "path": self.path,
            "line": self.line,
            "row": self.row or (None if self.line else self.seq),
            "seq": self.seq,
        }
        return {key: value for key, value in known.items() if value is not None or key == "line"}


@attrs.frozen
class Origin:
    """What is known of the relation ``source``.

    Attributes:
        reader: how it is read.
        kinds: its columns, with DuckDB's types.
        has_seq: whether the order is a column of its own.
        complaints: about what is no row, by number, from 1; only text has them.
        is_by_row: whether the text was read row by row.
    """

    reader: Reader
    kinds: Mapping[str, str]
    has_seq: bool
    complaints: Mapping[int, CatalogError] = attrs.field(factory=dict)
    is_by_row: bool = False

    @property
    def is_text(self) -> bool:
        """Whether numbers and instants may be written as text."""
        return self.reader.kind in {"csv", "jsonl"}

    def places(self, tables: Any, wanted: Iterable[int]) -> dict[int, Place]:
        """Return where rows stand, by ``seq``; to look into the files takes time, so ask for all at
        once.
        """
        seqs = sorted(set(wanted))
        if self.has_seq or not self.reader.files or not seqs:
            path = self.reader.files[0] if len(self.reader.files) == 1 else None
            return {seq: Place(seq, path) for seq in seqs}
        if self.is_by_row:
            among = (
                f"SELECT number, path, line FROM {_BY_ROW} WHERE number >= {seqs[0]} AND "
                f"number <= {seqs[-1]}"
            )
            found = {number: Place(number, path, line) for number, path, line in tables.rows(among)}
            return {seq: found[seq] for seq in seqs}
        if self.reader.text is not None:
            return dict(_of_lines(self.reader.text.lines(), seqs))
        return dict(_of_counts(counts_of(tables, self.reader.files), self.reader.files, seqs))

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a row of ``source`` says, as :func:`~metering_core.feeds.files.usage_row`
        takes it.

        Raises:
            InvalidValueError: for what DuckDB takes for JSON and is none, such as NaN.
        """
        said = {column: value for column, value in values.items() if value is not None}
        if self.reader.kind == "jsonl":
            return {column: _parsed(value) for column, value in said.items()}
        if self.reader.kind == "csv":
            return numbers_for_digits(said)
        return {
            column: int(value) if isinstance(value, Decimal) else value
            for column, value in said.items()
        }

    def shown(self, expression: str, column: str) -> str:
        """Return the expression of a column's value as it is fetched: Python has no datetime beyond
        the year 9999.
        """
        kind = self.kinds.get(column)
        if kind == "timestamp":  # Spark writes it in the session's zone, and without it.
            return (
                f"CONCAT(CAST(TO_UTC_TIMESTAMP({expression}, CURRENT_TIMEZONE()) AS STRING), 'Z')"
            )
        return f"CAST({expression} AS STRING)" if kind in ZONED else expression


def _parsed(value: str) -> Any:
    try:
        return parse_json(value)
    except ValueError as error:
        raise InvalidValueError(
            ErrorCode.PARAMETER_INVALID_OBJECT, f"is not usable JSON: {error}"
        ) from None


def _of_lines(lines: Iterator[tuple[str, int]], seqs: Sequence[int]) -> Iterator[tuple[int, Place]]:
    wanted = iter(seqs)
    seq = next(wanted)
    for number, (path, line) in enumerate(lines, start=1):
        if number == seq:
            yield seq, Place(seq, path, line)
            if (seq := next(wanted, 0)) == 0:
                return


def _of_counts(
    before: Sequence[int], files: Sequence[str], seqs: Sequence[int]
) -> Iterator[tuple[int, Place]]:
    at = 0
    for seq in seqs:
        while at + 1 < len(files) and before[at + 1] < seq:
            at += 1
        yield seq, Place(seq, files[at], row=seq - before[at])


def counts_of(tables: DuckDBTables, files: Sequence[str]) -> list[int]:
    """Return for each file of Parquet how many rows all files before it have."""
    counted = tables.fetched(
        f"SELECT file_name, num_rows FROM parquet_file_metadata({listed(files)})"
    )
    counts = {realpath(file): rows for file, rows in counted}
    return list(accumulate((counts[realpath(file)] for file in files[:-1]), initial=0))


def load(
    tables: DuckDBTables,
    source: Source,
    required: Sequence[str],
    optional: Sequence[str],
) -> Origin:
    """Define ``source`` with those of the columns that there are, and ``seq``; Parquet stays where
    it is.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: as :func:`~metering_core.sql.readers.reader_of`.
    """
    reader = reader_of(tables, source, required, optional)
    known = (*required, *optional)
    if reader.relation is None:
        return _by_row(tables, reader, known)
    names = [column for column in known if column in reader.columns]
    is_view = reader.kind == "parquet"
    read = [quoted(column) for column in names]
    if "seq" not in names:
        read.append(
            f"{_number(tables, reader.files) if is_view else 'row_number() OVER ()'} AS seq"
        )
    text = (
        f"CREATE TEMP {'VIEW' if is_view else 'TABLE'} source AS SELECT {', '.join(read)} FROM "
        f"{reader.relation}"
    )
    try:
        tables.reading(lambda: tables.execute(text))
    except CatalogError:
        if reader.text is None:
            raise
        return _by_row(tables, reader, known)
    return Origin(reader, _kinds(tables), "seq" in names)


def _kinds(tables: DuckDBTables) -> dict[str, str]:
    return {row[0]: row[1] for row in tables.fetched("DESCRIBE source")}


def _number(tables: DuckDBTables, files: Sequence[str]) -> str:
    """Return the expression of a row's number in Parquet that is read in place: that in its file
    after all files before.
    """
    if len(files) == 1:
        return "file_row_number + 1"
    before = counts_of(tables, files)
    return f"list_extract({before}::BIGINT[], CAST(file_index AS BIGINT) + 1) + file_row_number + 1"


# Row by row ---------------------------------------------------------------------------------------


def _by_row(tables: DuckDBTables, reader: Reader, known: Sequence[str]) -> Origin:
    """Define ``source`` from the rows that the other engines read, and keep the complaints about
    those that are none.
    """
    text, is_json = reader.text, reader.kind == "jsonl"
    assert text is not None, "only text is read row by row"
    complaints: dict[int, CatalogError] = {}
    seen: dict[str, None] = {} if is_json else dict.fromkeys(reader.columns)
    columns = {
        "number": "BIGINT",
        "path": "VARCHAR",
        "line": "BIGINT",
        **{_said(column): "VARCHAR" for column in known},
    }

    def rows() -> Iterator[Row]:
        for number, row in enumerate(text.rows(), start=1):
            written = (
                row
                if isinstance(row, CatalogError)
                else _written(row, known, seen, is_json=is_json)
            )
            if isinstance(written, CatalogError):
                complaints[number] = written
            else:
                yield number, *written

    tables.define(_BY_ROW, columns, rows())
    refuse_slips(seen, known, shown(text.files[0]))
    names = [column for column in known if column in seen or column in text.required]
    kind = "JSON" if is_json else "VARCHAR"
    read = [f"CAST({_said(column)} AS {kind}) AS {quoted(column)}" for column in names]
    has_seq = "seq" in names
    numbered = [] if has_seq else ["number AS seq"]
    tables.execute(
        f"CREATE OR REPLACE TEMP VIEW source AS SELECT {', '.join([*read, *numbered])} "
        f"FROM {_BY_ROW}"
    )
    found = attrs.evolve(reader, columns=names)
    return Origin(found, _kinds(tables), has_seq, complaints, is_by_row=True)


def _said(column: str) -> str:
    return quoted(f"said {column}")


def _written(
    row: TextRow, known: Sequence[str], seen: dict[str, None], *, is_json: bool
) -> Sequence[Any] | CatalogError:
    """Return path, line and fields as text, or the complaint about text that UTF-8 cannot write."""
    values: list[Any] = [row.path, row.line]
    if is_json:
        seen.update(dict.fromkeys(row.fields))
    for column in known:
        value = row.fields.get(column)
        values.append(
            None
            if value is None
            else json.dumps(value, ensure_ascii=False)
            if is_json
            else str(value)
        )
    try:
        "".join(value for value in values[2:] if value is not None).encode()
    except UnicodeEncodeError:
        return CatalogError.of_file("row", row.path, "expected text that UTF-8 can write", row.line)
    return values
