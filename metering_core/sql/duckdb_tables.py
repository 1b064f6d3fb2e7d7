"""A DuckDB of our own: its tables are the relations that the kernel's statements read, and it runs
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from os import PathLike
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, NoReturn
from weakref import finalize

from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    InvoicingError,
    MeteringError,
    MissingExtraError,
    shown,
)
from metering_core.names import path_of, text_of
from metering_core.sql.rules import Row

_CHUNK: Final = 50_000
_POLL_SECONDS: Final = 0.2


class DuckDBTables:
    """A DuckDB in memory; see :class:`~metering_core.sql.columns.Tables`.

    Args:
        asked_by: the name of the class that needs it.
        read: what its source is called in a refusal.
        overflow: makes the error of a sum that has too many digits.
        memory_limit: as for :class:`~metering_core.sql.DuckDBUsage`, like the rest.
        temp_directory: where it spills to.
        progress: called with the part that is done.

    Attributes:
        files: those that are read, once they are known; a complaint names the first.
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
        # Nothing is fetched from anywhere, no extension is looked for, and no Python variable is
        # taken for a table.
        settings: dict[str, Any] = {
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
        if memory_limit is not None:
            # A limit of less than nothing is none to DuckDB.
            settings["memory_limit"] = text_of(memory_limit)
            if not (settings["memory_limit"] or "").strip()[:1].isdigit():
                _refuse("memory_limit", _SIZE, memory_limit)
        if temp_directory is not None:
            settings["temp_directory"] = _folder(temp_directory)
        if progress is not None and not callable(progress):
            _refuse("progress", "something to call with the part that is done", progress)
        self._read, self._overflow = read, overflow
        self._progress, self._memory_limit = progress, memory_limit
        self.files: Sequence[str] = ()
        self._is_closed = False
        self._asked: SimpleQueue[Any] = SimpleQueue()
        self._beside = Thread(
            target=_work, args=(self._asked,), name="metering_core DuckDB", daemon=True
        )
        self._beside.start()
        finalize(self, self._asked.put, None)
        self._connection: Final[Any] = self.running(lambda: _connected(settings))
        # Progress is counted for those who ask for it, and never printed by DuckDB; the machine's
        # time zone changes nothing.
        self.execute(
            "SET enable_progress_bar = true; SET enable_progress_bar_print = false; SET "
            "TimeZone = 'UTC'"
        )

    def close(self) -> None:
        """Give back memory and temporary files."""
        self._is_closed = True
        self._asked.put(None)
        self._beside.join()
        self._connection.close()

    def define(self, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Fill a table, chunk by chunk."""
        columns = {column: kind.replace("STRING", "VARCHAR") for column, kind in columns.items()}
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({declared})")
        inserted = (
            f"INSERT INTO {name} SELECT unnest(from_json(?, '{json.dumps([columns])}'), "
            "recursive := true)"
        )
        remaining = iter(rows)
        # As JSON: lists as parameters take DuckDB 1.4 a time that grows with the square of their
        # length.
        while chunk := [dict(zip(columns, row, strict=True)) for row in islice(remaining, _CHUNK)]:
            self.execute(inserted, [json.dumps(chunk)])

    def rows(self, text: str) -> Iterator[tuple[Any, ...]]:
        """Run a statement and yield its rows; one statement at a time."""
        result = self.execute(text)
        while chunk := self.running(lambda: self._awaited(lambda: result.fetchmany(_CHUNK))):
            yield from chunk

    def fetched(self, text: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with values and return its rows."""
        result = self.execute(text, values)
        rows: list[tuple[Any, ...]] = self.running(lambda: self._awaited(result.fetchall))
        return rows

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Leave nothing behind where what is opened is refused."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def view(self, name: str, text: str) -> None:
        """Let a statement be what others read under a name."""
        self.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {text}")

    def keep(self, name: str, text: str, *, again: bool) -> None:
        """Run a statement and keep its rows under a name, or run it ``again`` for each question."""
        self.execute(f"CREATE OR REPLACE TEMP {'VIEW' if again else 'TABLE'} {name} AS {text}")

    def stream(self, name: str, stream: Any) -> None:
        """Let statements read an Arrow stream under a name; whatever the stream raises is a
        complaint about what is read.
        """
        self.reading(lambda: self._connection.from_arrow(stream).create_view(name))

    def execute(self, text: str, values: Sequence[object] = ()) -> Any:
        """Run a statement that may take long, tell how much of it is done, and complain in our own
        words.
        """
        return self.running(
            lambda: self._awaited(lambda: self._connection.execute(text, list(values)))
        )

    def _awaited(self, run: Callable[[], Any]) -> Any:
        """Wait for what runs beside us: what interrupts the wait stops it, and leaves as what it
        is.

        DuckDB would notice Ctrl-C or a timeout itself, and raise "Query interrupted" in its place.
        """
        # Bare locks: a future's own may stay held where an interruption falls between two lines of
        # it.
        done, answers = Lock(), list[tuple[Any, BaseException | None]]()
        done.acquire()
        try:
            self._asked.put((run, done, answers))
            while not done.acquire(timeout=_POLL_SECONDS):
                if self._progress is not None:
                    self._progress(max(0.0, self._connection.query_progress()) / 100)
        except BaseException:
            # Should it not stop, the next statement waits for it: one thread runs them all.
            self._connection.interrupt()
            raise
        ((answer, error),) = answers
        if error is not None:
            raise error
        return answer

    def running(self, run: Callable[[], Any]) -> Any:
        """Raise all that DuckDB complains of as our own."""
        import duckdb  # noqa: PLC0415 - an extra

        if self._is_closed:
            raise self.unreadable("it was closed, and only what is remembered can be asked")
        try:
            return run()
        except duckdb.OutOfRangeException as error:
            raise self._overflow(error) from None
        except duckdb.OutOfMemoryException as error:
            expected = f"memory enough for what cannot be spilled ({_first_line(error)})"
            _refuse("memory_limit", expected, self._memory_limit)
        except duckdb.Error as error:
            raise self.unreadable(_first_line(error)) from error

    def reading(self, run: Callable[[], Any]) -> Any:
        """Run what reads the caller's own object, which may raise anything, as :meth:`running` runs
        a statement.
        """
        try:
            return self.running(run)
        except MeteringError:
            raise
        except Exception as error:
            raise self.unreadable(f"{type(error).__name__}: {_first_line(error)}") from error

    def unreadable(self, reason: str) -> CatalogError:
        """Return the complaint that what is read cannot be read, with the file where there
        is one.
        """
        place = (
            shown(self.files[0]) + (" and others" if len(self.files) > 1 else "")
            if self.files
            else self._read
        )
        details = {"path": self.files[0] if self.files else None, "line": None}
        message = f"{place}: cannot be read: {shown(reason)}"
        return CatalogError(ErrorCode.FILE_UNREADABLE, message, param="source", details=details)


def _work(asked: SimpleQueue[Any]) -> None:
    """Run what is asked, one after the other, until nothing more will be."""
    while (one := asked.get()) is not None:
        run, done, answers = one
        try:
            answers.append((run(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
            answers.append((None, error))
        done.release()
        del one, run, done, answers


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:400]


def _folder(given: object) -> str:
    folder = path_of(given, "temp_directory")
    if "\0" in folder or (
        not folder.isascii() and any("\ud800" <= one <= "\udfff" for one in folder)
    ):
        _refuse("temp_directory", "the path of a folder", given)
    return folder


_SIZE: Final = "a size with its unit, such as '2GB'"


def _connected(settings: dict[str, Any]) -> Any:
    """Open a database in memory."""
    import duckdb  # noqa: PLC0415 - an extra

    try:
        return duckdb.connect(":memory:", config=settings)
    except duckdb.ParserException:
        _refuse("memory_limit", _SIZE, settings.get("memory_limit"))


def _refuse(param: str, expected: str, received: object) -> NoReturn:
    raise InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, received
    ) from None
