"""Usage in files and streams of any size, judged and folded by DuckDB on one machine."""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeoutError
from itertools import islice
from os import PathLike, fspath
from typing import Any, Final

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing
from metering_core.errors import CatalogError, ErrorCode, MissingExtraError
from metering_core.periods import Instant, instant, unix_seconds
from metering_core.sql.engine import SqlUsage, out_of_range, ties_refused
from metering_core.sql.kernel import statement
from metering_core.sql.rules import COLUMNS, Row
from metering_core.sql.sources import Source, define_usage
from metering_core.subscriptions import Subscription

_CHUNK: Final = 50_000
_POLL_SECONDS: Final = 0.2


class DuckDBUsage(SqlUsage):
    """Usage that stays in its files; itself a :class:`~metering_core.Usage`. Needs the extra ``duckdb``.

    Columns are ``subscription_item``, ``quantity``, ``timestamp`` and optionally ``action``, ``id``, ``received_at`` and
    ``seq``. Arrival order is ``seq``, or the order of the rows; of several files, by name first. A row counts as received when
    it happened unless ``received_at`` or ``now`` says otherwise. Other columns are not read.

    Parquet is read in place, again for each question; text and streams are copied into DuckDB's own storage once.

    Args:
        source: a path or a glob of Parquet (``.parquet``), CSV (``.csv``) or JSON lines (``.jsonl``, ``.ndjson``), a list of
            them, or any object with ``__arrow_c_stream__``: a table of pyarrow, Polars or pandas, a DuckDB relation.
        subscriptions: one version of each.
        policy: as for :class:`~metering_core.UsageLog`.
        closed: by subscription, the periods that were finalized before any of this usage arrived; ``log.state().closed``.
        now: the moment of receipt of every row, instead of a column.
        memory_limit: what DuckDB may hold in memory, such as ``"2GB"``; beyond it, it spills. 80 % of the machine's unless
            given.
        temp_directory: where it spills to; the working directory's ``.tmp`` unless given.
        progress: called a few times a second during a long statement with the part of it that is done, from 0 to 1.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: ``file_unreadable``.
        InvalidValueError: for a column of a type that is not exact (floats) or not an instant (timestamps without a zone), for
            the first malformed value, and for a ``seq`` that comes twice.
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
    ) -> None:
        super().__init__(subscriptions, policy, closed)
        self._progress = progress
        self._connection = _connect(memory_limit, temp_directory)
        seconds = None if now is None else unix_seconds(instant(now, "now"))
        has_order = self._reading(lambda: define_usage(self._connection, source, seconds))
        self._take_inspection(self._rows(statement("inspecting")))
        if has_order:
            self._refuse_ties()
        self._define("items", self.rules.item_rows())
        self._define("standings", self.rules.standing_rows(self._received))
        self._define("closings", self.rules.closing_rows())
        self._connection.execute(f"CREATE TEMP VIEW judged AS {statement('judging')}")
        self._connection.execute("CREATE TEMP VIEW accepted AS SELECT * FROM judged WHERE verdict IS NULL")

    def close(self) -> None:
        """Give back memory and temporary files; nothing can be asked afterwards but what is remembered."""
        self._connection.close()

    # Statements ------------------------------------------------------------------------------------------------------

    def _refuse_ties(self) -> None:
        for (seq,) in self._rows("SELECT MIN(seq) FROM (SELECT seq FROM usage GROUP BY seq HAVING COUNT(*) > 1) AS ties"):
            if seq is not None:
                raise ties_refused(seq)

    def _rows(self, text: str) -> Iterator[tuple[Any, ...]]:
        """Run a statement and yield its rows."""
        result = self._reading(lambda: self._execute(text))
        while chunk := self._reading(lambda: result.fetchmany(_CHUNK)):
            yield from chunk

    def _execute(self, text: str) -> Any:  # noqa: ANN401 - DuckDB is imported lazily
        if self._progress is None:
            return self._connection.execute(text)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self._connection.execute, text)
            while True:
                try:
                    return running.result(_POLL_SECONDS)
                except WaitTimeoutError:
                    self._progress(max(0.0, self._connection.query_progress()) / 100)
                except BaseException:
                    self._connection.interrupt()
                    raise

    @staticmethod
    def _reading(run: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Raise DuckDB's complaints as our own where they are about the usage."""
        import duckdb  # noqa: PLC0415 - the extra is imported where it is needed

        try:
            return run()
        except duckdb.OutOfRangeException as error:
            raise out_of_range(error) from None
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            message = f"usage: cannot be read: {str(error).splitlines()[0]}"
            raise CatalogError(ErrorCode.FILE_UNREADABLE, message) from error

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        """Fill an input relation of the kernel, chunk by chunk."""
        columns = {column: kind.replace("STRING", "VARCHAR") for column, kind in COLUMNS[name].items()}
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({declared})")
        structure = json.dumps([columns])
        remaining = iter(rows)
        # As JSON: lists as parameters take DuckDB 1.4 a time that grows with the square of their length.
        while chunk := [dict(zip(columns, row, strict=True)) for row in islice(remaining, _CHUNK)]:
            inserted = f"INSERT INTO {name} SELECT unnest(from_json(?, '{structure}'), recursive := true)"
            self._connection.execute(inserted, [json.dumps(chunk)])

    # What SqlUsage asks for --------------------------------------------------------------------------------------------

    def _value_at(self, column: str, seq: int) -> object:
        rows = self._connection.execute(f"SELECT {column} FROM source WHERE seq = {seq}").fetchall()
        return rows[0][0]


def _connect(memory_limit: str | None, temp_directory: str | PathLike[str] | None) -> Any:  # noqa: ANN401 - as above
    try:
        import duckdb  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_extra("duckdb", "DuckDBUsage") from error
    # Nothing is fetched from anywhere, and no Python variable is taken for a table.
    settings: dict[str, Any] = {"autoinstall_known_extensions": False, "python_enable_replacements": False}
    if memory_limit is not None:
        settings["memory_limit"] = memory_limit
    if temp_directory is not None:
        settings["temp_directory"] = fspath(temp_directory)
    connection = duckdb.connect(":memory:", config=settings)
    # Progress is counted for those who ask for it, and never printed by DuckDB.
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    return connection
