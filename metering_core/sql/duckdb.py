"""Usage in files and streams of any size, judged and folded by DuckDB on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Final

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing
from metering_core.book import Book
from metering_core.feeds.instants import FROM_2000, PlausibleTime
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meters import Meter
from metering_core.periods import ISO, Instant
from metering_core.sql.columns import INSTANT_TYPES, column_refused
from metering_core.sql.duckdb_tables import DuckDBTables
from metering_core.sql.events import SqlEvents
from metering_core.sql.loading import Origin, load
from metering_core.sql.readers import INTEGERS, ZONED, Source, literal, quoted
from metering_core.sql.records import SqlRecords
from metering_core.sql.rules import book_for
from metering_core.subscriptions import Subscription

_NARROW: Final = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_INEXACT: Final = (
    "json_type(value) IN ('DOUBLE', 'OBJECT', 'ARRAY', 'BOOLEAN') AND NOT "
    "regexp_full_match(CAST(value AS VARCHAR), '-?[0-9]+')"
)
"""A JSON number with a point was a float before it came here."""


class DuckDBColumns:
    """How DuckDB reads the columns of a source; see
    :class:`~metering_core.sql.columns.SourceColumns`.
    """

    def __init__(self, origin: Origin) -> None:
        self.kinds: Mapping[str, str] = origin.kinds
        self._is_text = origin.is_text

    def integer(self, column: str, type: str) -> str:
        """Return an integer; NULL where a text is none."""
        kind = self.kinds[column]
        if kind in INTEGERS or (kind.startswith("DECIMAL(") and kind.endswith(",0)")):
            return f"CAST({column} AS BIGINT)" if kind in _NARROW else _tried(column, type)
        if kind == "JSON":
            # Of a number, its digits: also beyond 64 bits, where its type would be a float.
            text = f"CAST({column} AS VARCHAR)"
            return f"CASE WHEN {_is_whole(text)} THEN {_tried(text, type)} END"
        if self._is_text and kind == "VARCHAR":
            return f"CASE WHEN {_is_whole(column)} THEN {_tried(column, type)} END"
        raise column_refused(column, "integers", kind)

    def text(self, column: str, *, other: str | None = None) -> str:
        """Return a text. A JSON value of another type is ``other``, or where that is None what it
        looks like.
        """
        kind, name = self.kinds.get(column, '"NULL"'), quoted(column)
        if kind == '"NULL"':
            return "CAST(NULL AS VARCHAR)"
        if kind == "JSON":
            text = f"({name} ->> '$')"
            if other is None:
                return text
            text = f"CASE WHEN json_type({name}) = 'VARCHAR' THEN {text} ELSE {literal(other)} END"
            return f"(CASE WHEN {self.is_absent(column)} THEN NULL ELSE {text} END)"
        if kind == "VARCHAR" or kind.startswith("ENUM"):
            return f"CAST({name} AS VARCHAR)"
        raise column_refused(column, "strings", kind)

    def moment(self, column: str, ticks: int) -> str:
        """Return so many ticks of a second since 1970; NULL where a text says no instant."""
        kind = self.kinds[column]
        if kind in ZONED:
            epoch, second = ZONED[kind]
            return _floored(f"{epoch}({column})", second // ticks)
        if kind in INTEGERS:
            return _ticking(column, ticks)
        if kind == "JSON":
            text, type_of = f"({column} ->> '$')", f"json_type({column})"
            is_number = f"{type_of} IN ('UBIGINT', 'BIGINT')"
            is_text = f"{type_of} = 'VARCHAR' AND "
        elif self._is_text and kind == "VARCHAR":
            text, is_number, is_text = column, _is_whole(column), ""
        else:
            raise column_refused(column, INSTANT_TYPES, kind)
        said = _floored(f"epoch_us(TRY_CAST({text} AS TIMESTAMPTZ))", 10**6 // ticks)
        return (
            f"CASE WHEN {is_number} THEN {_ticking(text, ticks)} "
            f"WHEN {is_text}regexp_full_match({text}, '{ISO}') THEN {said} END"
        )

    def value(self) -> tuple[str, str]:
        """Return the text of an event's value, and whether it was a float before."""
        kind = self.kinds.get("value", '"NULL"')
        if kind == "JSON":
            return "value ->> '$'", _INEXACT
        if kind in INTEGERS or kind.startswith(("DECIMAL", "VARCHAR", "ENUM")):
            return "CAST(value AS VARCHAR)", "FALSE"
        if kind == '"NULL"':
            return "CAST(NULL AS VARCHAR)", "FALSE"
        raise column_refused("value", "texts, integers or decimals", kind)

    def is_absent(self, column: str) -> str:
        """Return whether a row says nothing in a column."""
        is_null = f"{quoted(column)} IS NULL"
        if self.kinds[column] == "JSON":
            return f"({is_null} OR json_type({quoted(column)}) = 'NULL')"
        return is_null

    quoted = staticmethod(quoted)
    literal = staticmethod(literal)


def _tried(expression: str, type: str) -> str:
    return f"TRY_CAST({expression} AS {type})"


def _is_whole(text: str) -> str:
    return f"regexp_full_match({text}, '-?[0-9]+')"


def _ticking(expression: str, ticks: int) -> str:
    """Return the ticks of so many seconds; NULL where 64 bits do not hold them."""
    seconds = _tried(expression, "BIGINT")
    return seconds if ticks == 1 else _tried(f"CAST({seconds} AS HUGEINT) * {ticks}", "BIGINT")


def _floored(number: str, unit: int) -> str:
    """Return how many whole units a number has, rounded down also below 0."""
    return (
        number
        if unit == 1
        else f"(({number} - ((({number} % {unit}) + {unit}) % {unit})) // {unit})"
    )


class DuckDB(DuckDBTables):
    """A DuckDB that reads a source; see :class:`~metering_core.sql.columns.Tables`."""

    numbers_rows = True
    """Whether a source without ``seq`` has an order of its own."""

    def load(
        self, source: Source, required: Sequence[str], optional: Sequence[str]
    ) -> tuple[Origin, DuckDBColumns]:
        """Define ``source``; return what is known of it, and how its columns are read."""
        origin = load(self, source, required, optional)
        return origin, DuckDBColumns(origin)


class DuckDBUsage(SqlRecords):
    """Usage records that stay in their files; itself a :class:`~metering_core.Usage`. Needs the
    extra ``duckdb``.

    Columns are ``subscription_item``, ``quantity``, ``timestamp`` and optionally ``action``,
    ``id``, ``received_at`` and ``seq``. Arrival order is ``seq``, or the order of the rows; of
    several files, by name first. A row counts as received when it happened unless ``received_at``
    or ``now`` says otherwise. Other columns are not read.

    Parquet is read in place, again for each question; text and streams are copied into DuckDB's own
    storage once.

    Args:
        source: a path or a glob of Parquet (``.parquet``), CSV (``.csv``) or JSON lines
            (``.jsonl``, ``.ndjson``), a list of them, or any object with ``__arrow_c_stream__``: a
            table of pyarrow, Polars or pandas, a DuckDB relation.
        subscriptions: one version of each.
        policy: as for :class:`~metering_core.UsageLog`.
        closed: by subscription, the periods that were finalized before any of this usage arrived;
            ``log.book.closed``.
        book: instead of both, that of a log, as it is now.
        now: the moment of receipt of every row, instead of a column.
        memory_limit: what DuckDB may hold in memory, such as ``"2GB"``; beyond it, it spills. 80 %
            of the machine's unless given.
        temp_directory: where it spills to; the working directory's ``.tmp`` unless given.
        progress: called a few times a second during a long statement, such as copying text, with
            the part of it that is done, from 0 to 1.
        skip_malformed: leave malformed rows out and count them, instead of refusing the source for
            the first of them; :meth:`refusals` says what is wrong with each.
        time: the moments that rows may name: those from the year 2000 on unless given, all with
            None. By earlier ones files mostly mean something else, such as a spreadsheet's day
            number.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: ``file_unreadable``: also for the first malformed row of a file, in the words
            of :func:`~metering_core.read_usage`, for a path that is no file of this machine, and
            whenever DuckDB finds a file damaged.
        InvalidValueError: for a column of a type that is not exact (floats) or not an instant
            (timestamps without a zone), for a misspelt one, for the first malformed row of a
            stream, for a ``seq`` that a row lacks or that comes twice, and for an option of another
            kind, or a ``memory_limit`` that is none or too small.
    """

    def __init__(
        self,
        source: Source,
        subscriptions: Iterable[Subscription] = (),
        *,
        policy: AcceptancePolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        book: Book | None = None,
        now: Instant | None = None,
        memory_limit: str | None = None,
        temp_directory: str | PathLike[str] | None = None,
        progress: Callable[[float], None] | None = None,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        told = book_for(subscriptions, closed, book)
        super().__init__(told, policy, now, time, skip_malformed=skip_malformed)
        tables: Any = DuckDB(
            "DuckDBUsage",
            self._called,
            self._out_of_range,
            memory_limit=memory_limit,
            temp_directory=temp_directory,
            progress=progress,
        )
        self._open(tables, source)


class DuckDBEvents(SqlEvents):
    """Meter events that stay in their files; itself a :class:`~metering_core.Usage`. Needs the
    extra ``duckdb``.

    Columns are ``event_name``, ``customer``, ``value`` (text, integers or decimals), ``timestamp``
    and optionally ``identifier``, ``received_at``, ``seq`` and the dimension keys of the meters.
    An event counts as received when it happened unless ``received_at`` or ``now`` says otherwise;
    the order of rows, and what is read in place, are as for :class:`DuckDBUsage`. What was judged
    of them is kept in DuckDB's own storage.

    Args:
        source: as for :class:`DuckDBUsage`.
        meters: what to measure.
        subscriptions: whose items to bill, with a ``customer`` each.
        customers: the customers whose events are accepted; any customer unless given.
        policy: what is accepted; it must not forget identifiers, nor carry late usage forward.
        closed: as for :class:`DuckDBUsage`. Events of these periods are taken, as a log takes them;
            finalizing one again returns its invoice.
        canceled: events that were canceled after all of these had arrived.
        now: the moment of receipt of every row, instead of a column.
        decimal_places: values may have so many, and with them 38 digits in all.
        memory_limit: as for :class:`DuckDBUsage`, like those that follow.
        temp_directory: where DuckDB spills to.
        progress: called with the part that is done.
        skip_malformed: leave malformed rows out and count them.
        time: the moments that rows may name.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: as :class:`DuckDBUsage`.
        InvalidValueError: as :class:`DuckDBUsage`, for a value that ``decimal_places`` do not hold,
            for a policy with an ``identifier_retention`` or that carries late usage forward, and
            for a dimension with the name of a column.
        UsageRejectedError: for a cancellation that a log refuses.
    """

    _engine = "DuckDB"

    def __init__(
        self,
        source: Source,
        meters: Iterable[Meter],
        subscriptions: Iterable[Subscription] = (),
        *,
        customers: Iterable[str] | None = None,
        policy: MeterPolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        canceled: Iterable[MeterEventAdjustment] = (),
        now: Instant | None = None,
        decimal_places: int = 12,
        memory_limit: str | None = None,
        temp_directory: str | PathLike[str] | None = None,
        progress: Callable[[float], None] | None = None,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        super().__init__(
            *(meters, subscriptions, customers, policy, closed, canceled, decimal_places),
            *(now, time),
            skip_malformed=skip_malformed,
        )
        tables: Any = DuckDB(
            "DuckDBEvents",
            self._called,
            self._out_of_range,
            memory_limit=memory_limit,
            temp_directory=temp_directory,
            progress=progress,
        )
        self._open(tables, source)
