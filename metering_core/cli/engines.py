"""The engines of the command line: which one reads a file of usage, how it is read, and the command
``sql``.

Every engine makes the same bill, or none. DuckDB is fast and knows no single row, so whatever it
does not bill as it stands is read again into memory, row by row, which names each row at fault.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, cast

import attrs

from metering_core import (
    AcceptancePolicy,
    BillingPeriod,
    ErrorCode,
    Instant,
    InvalidValueError,
    InvoicingError,
    MeteringError,
    Subscription,
    Usage,
    UsageLog,
)
from metering_core.acceptance import Receipts
from metering_core.cli.complaints import complain, slip
from metering_core.cli.files import HowToRead, format_of, is_watched, lines_of, opened, shown_name
from metering_core.errors import CatalogError, MissingExtraError, describe, shown
from metering_core.feeds import UsageFormat, UsageRow, append_usage, read_usage
from metering_core.feeds.appending import Spellings
from metering_core.feeds.files import USAGE_COLUMNS, Arrivals
from metering_core.feeds.formats import PARQUET, format_by_extension
from metering_core.sql import DuckDBUsage, sql_kernel
from metering_core.sql.readers import Files
from metering_core.sql.records import EXPECTED

LARGE_BYTES: Final = 64 * 2**20
"""From this size on, text is read by DuckDB."""


class Engine(StrEnum):
    """What judges and folds usage. All of them make the same bill, or none."""

    AUTO = "auto"
    MEMORY = "memory"
    COLUMNAR = "columnar"
    DUCKDB = "duckdb"


@attrs.frozen
class Choice:
    """An engine and, for people, why it was taken."""

    engine: Engine
    reason: str

    def __str__(self) -> str:
        """Return the sentence for standard error."""
        return f"engine {self.engine.value}: {self.reason}"


@attrs.frozen
class Loaded:
    """Usage that was read, the billing periods that have some, by subscription, and how many rows
    were what.

    Attributes:
        usage: what is billed.
        periods: by subscription.
        accepted: rows that were accepted.
        duplicates: rows that were accepted before; None where whoever counts the rows knows.
    """

    usage: Usage
    periods: dict[str, tuple[BillingPeriod, ...]]
    accepted: int = 0
    duplicates: int | None = None


def print_kernel(*, events: bool = False) -> None:
    """Print the SQL that judges and folds usage on DuckDB and on Spark, for auditors and for your
    own warehouse.

    Args:
        events: The SQL for meter events instead of that for usage records.
    """
    sys.stdout.write(sql_kernel(events=events))


# Choosing -----------------------------------------------------------------------------------------


def choose_engine(
    engine: Engine, usage: str, usage_format: str | None = None, *, explains: bool = False
) -> Choice:
    """Return the engine that reads a file of usage.

    Args:
        engine: what was asked for; ``auto`` picks by format and size among the engines that are
            installed.
        usage: a path, a glob, or ``-`` for standard input.
        usage_format: how it is written, where that was said: text, whatever the extension.
        explains: whether lines are to be explained, which takes the records, which DuckDB leaves in
            their files.

    Raises:
        InvalidValueError: ``parameters_exclusive`` where the engine asked for cannot do what is
            asked.
    """
    is_table = _is_table(usage, usage_format)
    choice = Choice(engine, "as asked")
    if engine is Engine.AUTO:
        choice = _picked(usage, is_table=is_table, explains=explains)
    problem = _problem(choice.engine, usage, is_table=is_table, explains=explains)
    if problem is not None:
        because = f", because {choice.reason}" if engine is Engine.AUTO else ""
        received = f"received {choice.engine.value!r}{because}"
        raise slip("--engine", f"expected an engine that {problem}, {received}")
    return choice


def _problem(engine: Engine, usage: str, *, is_table: bool, explains: bool) -> str | None:
    if engine is not Engine.DUCKDB:
        return "reads Parquet and several files (duckdb)" if is_table else None
    if usage == "-":
        return "reads standard input (memory, columnar)"
    return "keeps records to explain lines by (memory, columnar)" if explains else None


def _picked(usage: str, *, is_table: bool, explains: bool) -> Choice:
    if usage == "-":
        return Choice(Engine.MEMORY, "standard input is read row by row")
    if is_table:
        return Choice(Engine.DUCKDB, "Parquet and several files are read by DuckDB")
    size = _size(usage)
    if size < LARGE_BYTES:
        return Choice(Engine.MEMORY, f"{usage} is smaller than {LARGE_BYTES // 2**20} MiB")
    reason = f"{usage} has {size / 2**20:,.0f} MiB"
    if explains:
        return Choice(Engine.MEMORY, f"{reason}, and memory keeps the records to explain lines by")
    if _is_installed("duckdb"):
        return Choice(Engine.DUCKDB, reason)
    return Choice(Engine.MEMORY, f"{reason}; the extra 'duckdb', which is faster, is not installed")


def _is_table(usage: str, usage_format: str | None) -> bool:
    """Whether only DuckDB can read it: Parquet, or several files."""
    return usage != "-" and (_is_parquet(usage, usage_format) or _is_glob(usage))


def _is_parquet(usage: str, usage_format: str | None) -> bool:
    return usage_format is None and format_by_extension(usage) == PARQUET


def _is_glob(usage: str) -> bool:
    is_there = os.path.exists(usage)  # noqa: PTH110 - it refuses no path
    return any(one in usage for one in "*?[") and not is_there


def _size(usage: str) -> int:
    return os.path.getsize(usage) if os.path.isfile(usage) else 0  # noqa: PTH113, PTH202 - as above


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# Loading ------------------------------------------------------------------------------------------


@attrs.frozen
class UsageSource:
    """A file of usage, or several, as the command line was given it.

    Attributes:
        usage: a path, a glob, or ``-`` for standard input.
        format: how it is written, where that was said.
        reading: which moments it may name, and what becomes of rows that do not count.
        policy: what is accepted.
    """

    usage: str
    format: UsageFormat | None
    reading: HowToRead
    policy: AcceptancePolicy | None = None

    @property
    def is_table(self) -> bool:
        """Whether only DuckDB can read it."""
        return _is_table(self.usage, self.format)

    def rows(self, paths: Iterable[str] = ()) -> Iterator[UsageRow | CatalogError]:
        """Yield the rows of a file of text, or of several, and the complaint about each malformed
        one.
        """
        arrivals = Arrivals()
        for path in paths or (self.usage,):
            written = format_of(path) if self.format is None else self.format
            with opened(path) as stream:
                name, time = shown_name(path), self.reading.time
                rows = read_usage(stream, written, path=name, time=time, arrivals=arrivals)
                yield from self.reading.refusals.counted(rows)


def load_usage(
    subscriptions: Sequence[Subscription], source: UsageSource, engine: Engine
) -> Loaded:
    """Read usage with an engine. Text that DuckDB does not bill as it is goes into memory, which
    finds each row at fault.

    Raises:
        MissingExtraError: without what the engine or the format needs.
        CatalogError: where no row can be told from another, or the engine holds less than a valid
            row has.
    """
    if engine is Engine.DUCKDB:
        found = load_files(subscriptions, source)
        if not isinstance(found, Loaded):
            again = f"{source.usage} is read again row by row, because DuckDB refuses some of it"
            complain(f"engine {Engine.MEMORY.value}: {again}")
            found = load_rows(subscriptions, source, Engine.MEMORY, found)
    else:
        found = load_rows(subscriptions, source, engine)
    source.reading.refusals.count(shown_name(source.usage), found.accepted, found.duplicates)
    return found


def load_rows(
    subscriptions: Sequence[Subscription],
    source: UsageSource,
    engine: Engine,
    paths: Sequence[str] = (),
) -> Loaded:
    """Read usage into memory, row by row, with the engine ``memory`` or ``columnar``.

    Args:
        subscriptions: whose usage it is.
        source: what was given.
        engine: which of the two.
        paths: the files, where there are several.

    Raises:
        CatalogError: for a quantity of more than 64 bits with ``columnar``, also where malformed
            rows are skipped: it is valid.
    """
    refusals = source.reading.refusals
    if engine is Engine.MEMORY:
        log = UsageLog(subscriptions, policy=source.policy)
        return Loaded(log, append_usage(log, source.rows(paths), on_refusal=refusals), len(log))
    door = _ColumnarDoor(subscriptions, source.policy)
    periods = append_usage(
        cast("UsageLog", door), map(_in_64_bits, source.rows()), on_refusal=refusals
    )
    return Loaded(door.usage, periods, len(door.usage))


def _in_64_bits(row: UsageRow | CatalogError) -> UsageRow | CatalogError:
    """Refuse to go on at a quantity that columns do not hold."""
    if isinstance(row, CatalogError) or row.record.quantity < 2**63:
        return row
    expected = (
        "at most 2^63 - 1, which is what the engine columnar holds (--engine memory takes more)"
    )
    reason = f"quantity: expected {expected}, received {describe(row.record.quantity)}"
    code = ErrorCode.QUANTITY_OUT_OF_RANGE
    raise CatalogError.of_file("quantity", row.path, reason, row.line, code=code, source=row.source)


class _ColumnarDoor:
    """The columnar engine as :func:`append_usage` appends to it."""

    def __init__(
        self, subscriptions: Sequence[Subscription], policy: AcceptancePolicy | None
    ) -> None:
        if not _is_installed("numpy"):
            raise MissingExtraError.for_extra("columnar", "--engine columnar")
        from metering_core.columnar import ColumnarUsage, UsageBatch  # noqa: PLC0415 - an extra

        self.usage: Any = ColumnarUsage(subscriptions, policy=policy)
        self.subscriptions = tuple(subscriptions)
        # No period is closed while a file is read, so nothing moves to another.
        self.attributed: dict[int, int] = {}
        self._batch: Any = UsageBatch

    def append_columns(self, *columns: Sequence[Any], received_at: Sequence[Instant]) -> Receipts:
        """Append a chunk of rows, each at its own moment of receipt."""
        receipts: Receipts = self.usage.append(
            self._batch.from_columns(*columns), received_at=received_at
        )
        return receipts


def load_files(
    subscriptions: Sequence[Subscription], source: UsageSource
) -> Loaded | Sequence[str]:
    """Read usage where it is with DuckDB; return the paths of text that DuckDB cannot judge as it
    stands, and rows can.

    That is usage whose receipts fall from row to row, or what only SQL has bounds for. Text has the
    columns of usage files and no others, as for the other engines.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: as :class:`~metering_core.sql.DuckDBUsage`, which skips malformed rows.
    """
    text: Sequence[str] = () if source.is_table else (source.usage,)
    with _progress(f"Reading {shown(source.usage)}") as progress:
        try:
            engine = _duckdb(subscriptions, source, progress)
            text = text or engine.text_files
            fall = engine.falls()
            refusals = list(engine.refusals()) if fall is None else [fall]
            counts, periods = engine.counts(), engine.periods_with_usage()
        except (CatalogError, InvalidValueError, InvoicingError) as problem:
            if text:
                return text
            raise _of_file(problem, source.usage) from None
    if text and (fall is not None or any(_is_of_sql(one) for one in refusals)):
        return text
    for refusal in _with_rows(refusals, engine, source):
        source.reading.refusals(refusal)
    if fall is not None:  # What arrived after which row is not known: there is no bill without it.
        raise _of_file(fall, source.usage)
    return Loaded(engine, periods, counts.accepted, counts.duplicates)


def _duckdb(
    subscriptions: Sequence[Subscription],
    source: UsageSource,
    progress: Callable[[float], None] | None,
) -> DuckDBUsage:
    return DuckDBUsage(
        Files(source.usage, source.format, USAGE_COLUMNS),
        subscriptions,
        policy=source.policy,
        progress=progress,
        skip_malformed=True,
        time=source.reading.time,
    )


def _is_of_sql(refusal: MeteringError) -> bool:
    """Whether a row is refused by a bound that only SQL has."""
    return any(expected in refusal.message for expected in EXPECTED.values())


def _with_rows(
    refusals: Sequence[MeteringError], engine: DuckDBUsage, source: UsageSource
) -> Iterator[MeteringError]:
    """Yield refusals with the rows that they are about as these stand in their files, and with what
    was meant.
    """
    spellings = Spellings(engine.rules.items)
    source_of = _sources(refusals, engine) if source.reading.refusals.keeps_rows else {}
    for refusal in refusals:
        details = dict(refusal.details)
        details["source"] = source_of.get(_place(details))
        if details.get("line") is None:
            details["line"] = details.get("row")
        details.setdefault("path", source.usage)
        is_unknown = refusal.code is ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
        meant = spellings.near(details.get("received")) if is_unknown else ""
        message = refusal.message + meant
        yield type(refusal)(refusal.code, message, param=refusal.param, details=details)


def _place(details: Mapping[str, Any]) -> tuple[object, object]:
    """Return where a row stands: in a line of a file of text, or at a number in a table."""
    line = details.get("line")
    return (None, details.get("seq")) if line is None else (details.get("path"), line)


def _sources(
    refusals: Sequence[MeteringError], engine: DuckDBUsage
) -> dict[tuple[object, object], object]:
    """Return the rows that refusals are about, each by its place, reading every file once."""
    places = [_place(one.details) for one in refusals]
    found: dict[tuple[object, object], object] = {}
    for number, row in engine.rows_at(
        cast("int", at) for path, at in places if path is None
    ).items():
        found[None, number] = row
    for path in {path for path, _ in places if path is not None}:
        wanted = {cast("int", line) for named, line in places if named == path}
        for line, text in lines_of(str(path), wanted).items():
            found[path, line] = text
    return found


def _of_file(error: MeteringError, usage: str) -> CatalogError:
    """Return what is wrong with a file as a whole, with the path under which it was given."""
    reason = error.message.removeprefix("usage: ")
    message = reason if reason.startswith(shown(usage)) else f"{shown(usage)}: {reason}"
    return CatalogError(
        error.code, message, param=error.param, details={**error.details, "path": usage}
    )


@contextlib.contextmanager
def _progress(description: str) -> Iterator[Callable[[float], None] | None]:
    """Show a progress bar on standard error while someone looks; yield what it is told by."""
    if not is_watched():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - a short run needs none of it
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=1.0)
        yield lambda part: bar.update(task, completed=part)
