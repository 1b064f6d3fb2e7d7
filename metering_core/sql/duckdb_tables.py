"""A DuckDB of our own: its tables are the relations that the kernel's statements read, and it runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitTimeoutError
from functools import partial
from itertools import islice
from os import PathLike, fspath
from typing import Any, Final, NoReturn

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, InvoicingError, MissingExtraError
from metering_core.sql.rules import Row

_CHUNK: Final = 50_000
_POLL_SECONDS: Final = 0.2


class DuckDBTables:
    """A DuckDB in memory; see :class:`~metering_core.sql.engine.Tables`.

    Args:
        asked_by: the name of the class that needs it.
        read: what its source is called in a refusal.
        overflow: makes the error of a sum that has too many digits.
        memory_limit: as for :class:`~metering_core.sql.DuckDBUsage`, like the rest.
        temp_directory: where it spills to.
        progress: called with the part that is done.

    Attributes:
        connection: DuckDB's own.
    """

    def __init__(
        self,
        asked_by: str,
        read: str,
        overflow: Callable[[Exception], InvoicingError],
        *,
        memory_limit: str | None = None,
        temp_directory: str | PathLike[str] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        try:
            import duckdb  # noqa: F401, PLC0415 - the extra is imported where it is needed
        except ModuleNotFoundError as error:
            raise MissingExtraError.for_extra("duckdb", asked_by) from error
        # Nothing is fetched from anywhere, and no Python variable is taken for a table.
        settings: dict[str, Any] = {"autoinstall_known_extensions": False, "python_enable_replacements": False}
        if memory_limit is not None:
            settings["memory_limit"] = memory_limit
        if temp_directory is not None:
            settings["temp_directory"] = fspath(temp_directory)
        self._read, self._overflow, self._progress, self._memory_limit = read, overflow, progress, memory_limit
        self.connection: Final[Any] = self.running(lambda: _connected(settings))
        # Progress is counted for those who ask for it, and never printed by DuckDB; the machine's time zone changes nothing.
        self.connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false; SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Give back memory and temporary files."""
        self.connection.close()

    def define(self, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Fill a table, chunk by chunk."""
        columns = {column: kind.replace("STRING", "VARCHAR") for column, kind in columns.items()}
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({declared})")
        inserted = f"INSERT INTO {name} SELECT unnest(from_json(?, '{json.dumps([columns])}'), recursive := true)"
        remaining = iter(rows)
        # As JSON: lists as parameters take DuckDB 1.4 a time that grows with the square of their length.
        while chunk := [dict(zip(columns, row, strict=True)) for row in islice(remaining, _CHUNK)]:
            self.running(partial(self.connection.execute, inserted, [json.dumps(chunk)]))

    def rows(self, text: str) -> Iterator[tuple[Any, ...]]:
        """Run a statement and yield its rows; one statement at a time."""
        result = self.running(lambda: self.execute(text))
        while chunk := self.running(lambda: result.fetchmany(_CHUNK)):
            yield from chunk

    def execute(self, text: str) -> Any:  # noqa: ANN401 - DuckDB is imported lazily
        """Run a statement that may take long, and tell how much of it is done."""
        if self._progress is None:
            return self.connection.execute(text)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.connection.execute, text)
            while True:
                try:
                    return running.result(_POLL_SECONDS)
                except WaitTimeoutError:
                    self._progress(max(0.0, self.connection.query_progress()) / 100)
                except BaseException:
                    self.connection.interrupt()
                    raise

    def running(self, run: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Raise DuckDB's complaints as our own where they are about what is read."""
        import duckdb  # noqa: PLC0415 - the extra is imported where it is needed

        try:
            return run()
        except duckdb.OutOfRangeException as error:
            raise self._overflow(error) from None
        except duckdb.OutOfMemoryException as error:
            expected = f"memory enough for what cannot be spilled ({str(error).splitlines()[0]})"
            _refuse_limit(expected, self._memory_limit)
        except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException) as error:
            message = f"{self._read}: cannot be read: {str(error).splitlines()[0]}"
            raise CatalogError(ErrorCode.FILE_UNREADABLE, message) from error


def _connected(settings: dict[str, Any]) -> Any:  # noqa: ANN401 - DuckDB is imported lazily
    """Open a database in memory."""
    import duckdb  # noqa: PLC0415 - the extra is imported where it is needed

    limit, expected = settings.get("memory_limit", "1GB"), "a size with its unit, such as '2GB'"
    if not str(limit).strip()[:1].isdigit():  # A limit of less than nothing is none to DuckDB.
        _refuse_limit(expected, limit)
    try:
        return duckdb.connect(":memory:", config=settings)
    except duckdb.ParserException:
        _refuse_limit(expected, limit)


def _refuse_limit(expected: str, received: object) -> NoReturn:
    raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "memory_limit", expected, received) from None
