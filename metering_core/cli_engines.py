"""The engines of the command line: which one reads a file of usage, how it is read, and the command ``sql``."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO, cast

import attrs
from cyclopts import App

from metering_core.acceptance import Receipts
from metering_core.aggregation import Usage
from metering_core.catalog import USAGE_COLUMNS, append_usage, read_usage
from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    MeteringError,
    MissingExtraError,
)
from metering_core.log import UsageLog
from metering_core.periods import BillingPeriod, Instant
from metering_core.sql import DuckDBUsage, events_kernel, sql_kernel
from metering_core.sql.readers import Files
from metering_core.subscriptions import Subscription

LARGE_BYTES: Final = 64 * 2**20
"""From this size on, text is read by an engine of columns or by DuckDB."""

Refuse = Callable[[MeteringError], None]
"""Takes each refusal in order; it may raise to stop."""


class Engine(StrEnum):
    """What judges and folds usage. All of them make the same bill."""

    AUTO = "auto"
    MEMORY = "memory"
    COLUMNAR = "columnar"
    DUCKDB = "duckdb"


@attrs.frozen
class Choice:
    """An engine and, for people, why it was taken; ``otherwise`` reads again what this one does not bill."""

    engine: Engine
    reason: str
    otherwise: Engine | None = None

    def __str__(self) -> str:
        """Return the sentence for standard error."""
        return f"engine {self.engine.value}: {self.reason}"


@attrs.frozen
class Loaded:
    """Usage that was read, the billing periods that have some, by subscription, and how many records were accepted."""

    usage: Usage
    periods: dict[str, tuple[BillingPeriod, ...]]
    accepted: int = 0


def register(app: App) -> None:
    """Add the command to the application."""
    app.command(print_kernel, name="sql")


def print_kernel(*, events: bool = False) -> None:
    """Print the SQL that judges and folds usage on DuckDB and on Spark, for auditors and for your own warehouse.

    Args:
        events: The SQL for meter events instead of that for usage records.
    """
    sys.stdout.write("\n;\n".join(events_kernel()) + "\n" if events else sql_kernel())


# Choosing ----------------------------------------------------------------------------------------------------------------


def choose_engine(
    engine: Engine, usage: str, usage_format: str | None = None, *, explains: bool = False, skips: bool = False
) -> Choice:
    """Return the engine that reads a file of usage.

    Args:
        engine: what was asked for; ``auto`` picks by format and size among the engines that are installed.
        usage: a path, a glob, or ``-`` for standard input.
        usage_format: how it is written, where that was said: text, whatever the extension.
        explains: whether lines are to be explained, which takes the records, which DuckDB leaves in their files.
        skips: whether malformed rows are to be skipped, which DuckDB does not do.

    Raises:
        InvalidValueError: ``parameters_exclusive`` where the engine asked for cannot do what is asked, or none can.
    """
    is_columns = _is_columns(usage, usage_format)
    choice = Choice(engine, "as asked")
    if engine is Engine.AUTO:
        choice = _picked(usage, is_columns=is_columns, is_read_by_row=explains or skips)
    problem = _problem(choice.engine, usage, is_columns=is_columns, explains=explains, skips=skips)
    if problem is not None:
        message = f"--engine: expected an engine that {problem}, received {choice.engine.value!r}"
        if engine is Engine.AUTO:
            message += f", because {choice.reason}"
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="--engine")
    return choice


def _problem(engine: Engine, usage: str, *, is_columns: bool, explains: bool, skips: bool) -> str | None:
    if engine is not Engine.DUCKDB:
        return "reads Parquet and several files (duckdb)" if is_columns else None
    if usage == "-":
        return "reads standard input (memory, columnar)"
    if explains:
        return "keeps records to explain lines by (memory, columnar)"
    return "skips malformed rows (memory, columnar)" if skips else None


def _picked(usage: str, *, is_columns: bool, is_read_by_row: bool) -> Choice:
    if usage == "-":
        return Choice(Engine.MEMORY, "standard input is read row by row")
    if is_columns:
        return Choice(Engine.DUCKDB, "Parquet and several files are read by DuckDB")
    size = _size(usage)
    if size < LARGE_BYTES:
        return Choice(Engine.MEMORY, f"{usage} is smaller than {LARGE_BYTES // 2**20} MiB")
    reason = f"{usage} has {size / 2**20:,.0f} MiB"
    by_row = Engine.COLUMNAR if _is_installed("numpy") else Engine.MEMORY
    if not is_read_by_row and _is_installed("duckdb"):
        return Choice(Engine.DUCKDB, reason, otherwise=by_row)
    if by_row is Engine.MEMORY:
        reason += "; the extras 'duckdb' and 'columnar', which are faster, are not installed"
    return Choice(by_row, reason)


def _is_columns(usage: str, usage_format: str | None) -> bool:
    """Whether only DuckDB can read it: Parquet, or a glob."""
    if usage == "-":
        return False
    is_parquet = usage_format is None and Path(usage).suffix.lower() == ".parquet"
    return is_parquet or (any(one in usage for one in "*?[") and not Path(usage).exists())


def _size(usage: str) -> int:
    return Path(usage).stat().st_size if Path(usage).is_file() else 0


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# Loading -----------------------------------------------------------------------------------------------------------------


def load_text(
    engine: Engine, subscriptions: Sequence[Subscription], stream: TextIO, usage_format: str, path: str, refuse: Refuse
) -> Loaded:
    """Read CSV or JSON lines into memory, row by row, with the engine ``memory`` or ``columnar``.

    Raises:
        MissingExtraError: without NumPy, for ``columnar``.
    """
    rows = read_usage(stream, usage_format, path=path)
    if engine is Engine.MEMORY:
        log = UsageLog(subscriptions)
        return Loaded(log, append_usage(log, rows, on_refusal=refuse), len(log))
    door = _ColumnarDoor(subscriptions)
    periods = append_usage(cast("UsageLog", door), rows, on_refusal=refuse)
    return Loaded(door.usage, periods, len(door.usage))


class _ColumnarDoor:
    """The columnar engine as :func:`append_usage` appends to it."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        if not _is_installed("numpy"):
            raise MissingExtraError.for_extra("columnar", "--engine columnar")
        from metering_core.columnar import ColumnarUsage, UsageBatch  # noqa: PLC0415 - it needs the extra

        self.usage: Any = ColumnarUsage(subscriptions)
        self.subscriptions = tuple(subscriptions)
        self.attributed: dict[int, int] = {}  # The strict policy attributes nothing to another period.
        self._batch: Any = UsageBatch

    def append_columns(self, *columns: Sequence[Any], received_at: Sequence[Instant]) -> Receipts:
        """Append a chunk of rows, each at its own moment of receipt."""
        receipts: Receipts = self.usage.append(self._batch.from_columns(*columns), received_at=received_at)
        return receipts


def load_files(subscriptions: Iterable[Subscription], usage: str, usage_format: str | None, refuse: Refuse) -> Loaded:
    """Read Parquet, CSV or JSON lines by path or glob where they are, with the engine ``duckdb``.

    Text has the columns of usage files and no others, as for the other engines.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: as :class:`~metering_core.sql.DuckDBUsage`, which skips malformed rows where ``refuse`` does not raise.
    """
    with _progress(f"Reading {usage}") as progress:
        try:
            source = Files(usage, usage_format, USAGE_COLUMNS)
            engine = DuckDBUsage(source, subscriptions, progress=progress, skip_malformed=True)
        except InvalidValueError as problem:
            raise _placed(problem, usage) from None
        for refusal in engine.refusals():
            refuse(refusal)
        return Loaded(engine, engine.periods_with_usage(), engine.counts().accepted)


def _placed(error: MeteringError, usage: str) -> CatalogError:
    """Return what is wrong with usage, with the path under which it was given."""
    reason = error.message.removeprefix("usage: ").removeprefix(f"{usage}: ")
    message = f"{usage}: {reason}"
    return CatalogError(error.code, message, param=error.param, details={**error.details, "path": usage})


@contextlib.contextmanager
def _progress(description: str) -> Iterator[Callable[[float], None] | None]:
    """Show a progress bar on standard error while someone looks; yield what it is told by."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - rich takes its time, and a short run needs none of it
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=1.0)
        yield lambda part: bar.update(task, completed=part)
