"""Usage in files and streams of any size, judged and folded by DuckDB on one machine."""

# ruff: noqa: S608 - what is put into SQL here are names of our own

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Final

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing
from metering_core.errors import ErrorCode, InvalidValueError, MeteringError
from metering_core.feeds.instants import FROM_2000, PlausibleTime, time_of
from metering_core.periods import Instant, from_unix_seconds, instant, iso_8601, unix_seconds
from metering_core.sql.duckdb_tables import DuckDBTables
from metering_core.sql.engine import SqlUsage, out_of_range, require_order
from metering_core.sql.kernel import statement
from metering_core.sql.readers import Source
from metering_core.sql.sources import define_usage
from metering_core.subscriptions import Subscription

_FALLS: Final = """
SELECT seq, said, before
FROM (
  SELECT seq, said,
    MAX(said) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM usage
  WHERE said IS NOT NULL
) AS told
WHERE said < before
ORDER BY seq
LIMIT 1
"""
"""A row that says that it was received before one that stands before it."""


class DuckDBUsage(SqlUsage):
    """Usage that stays in its files; itself a :class:`~metering_core.Usage`. Needs the extra
    ``duckdb``.

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
            ``log.state().closed``.
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
        subscriptions: Iterable[Subscription],
        *,
        policy: AcceptancePolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        now: Instant | None = None,
        memory_limit: str | None = None,
        temp_directory: str | PathLike[str] | None = None,
        progress: Callable[[float], None] | None = None,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        super().__init__(subscriptions, policy, closed)
        self._time = time_of(time)
        self._tables: DuckDBTables = DuckDBTables(
            "DuckDBUsage",
            "usage",
            out_of_range,
            memory_limit=memory_limit,
            temp_directory=temp_directory,
            progress=progress,
        )
        seconds = None if now is None else unix_seconds(instant(now, "now"))
        origin, seq = define_usage(self._tables, source, seconds, self._time)
        if origin.has_seq:
            require_order(self._tables, "given", seq)
        self._tables.execute(f"CREATE TEMP VIEW sifted AS {statement('sifting')}")
        self._inspect(origin, skip_malformed=skip_malformed)
        # Where nothing is malformed, no question has to look for it again.
        usable = "sifted WHERE fault IS NULL" if self._malformed else "given"
        self._tables.execute(f"CREATE TEMP VIEW usage AS SELECT * FROM {usable}")
        self._define_rules()
        self._tables.execute(f"CREATE TEMP VIEW judged AS {statement('judging')}")
        self._tables.execute(
            "CREATE TEMP VIEW accepted AS SELECT * FROM judged WHERE verdict IS NULL"
        )

    def falls(self) -> MeteringError | None:
        """Return what is wrong with the first row whose ``received_at`` falls, or None: the order
        of rows is that of arrival.

        A row that says nothing of when it was received is passed over.
        """
        for seq, said, before in self._tables.rows(_FALLS):
            expected = (
                f"a moment at or after {iso_8601(from_unix_seconds(int(before)))}, that of "
                "an earlier row, because the order "
                "of rows is the order of arrival"
            )
            message = (
                f"received_at: expected {expected}, received "
                f"{iso_8601(from_unix_seconds(int(said)))}"
            )
            error = InvalidValueError(
                ErrorCode.PARAMETER_INVALID_INSTANT, message, param="received_at"
            )
            return self._origin.places(self._tables, [int(seq)])[int(seq)].complaint(error)
        return None

    def close(self) -> None:
        """Give back memory and temporary files; nothing can be asked afterwards but what is
        remembered.
        """
        self._tables.close()
