"""What all commands share: files that are read, rows that are refused, and what is written of them."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO, cast

from metering_core.catalog import Catalog, UsageFormat, append_events, meter_log, read_events
from metering_core.errors import CatalogError, ErrorCode, MeteringError
from metering_core.meter_log import MeterLog
from metering_core.periods import BillingPeriod

LONG_FILE_BYTES: Final = 4 * 2**20
"""From this size on, reading a file of usage shows a progress bar."""


class OnError(StrEnum):
    """What becomes of a run at a malformed row or a refused record."""

    STOP = "stop"
    SKIP = "skip"


class StoppedError(Exception):
    """A complaint about usage that ends the run."""


def complain(message: str) -> None:
    """Say a sentence on standard error."""
    print(f"metering-core: {message}", file=sys.stderr)


def print_json(data: Mapping[str, Any]) -> None:
    """Print data as JSON that people can read."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


class Refusals:
    """What becomes of refused rows: the first one ends the run, or all are told and counted."""

    def __init__(self, on_error: OnError) -> None:
        self._on_error = on_error
        self._skipped = 0

    def __call__(self, refusal: MeteringError) -> None:
        """Take a refusal, in the order of rows."""
        if self._on_error is OnError.STOP:
            raise StoppedError(refusal.message)
        self._skipped += 1
        complain(refusal.message)

    def count(self, path: str, accepted: int) -> None:
        """Say how many rows of a file were skipped, if any."""
        if self._skipped:
            complain(f"{path}: {self._skipped:,} {'row' if self._skipped == 1 else 'rows'} skipped, {accepted:,} accepted")


def load_events(catalog: Catalog, events: str, on_error: OnError) -> tuple[MeterLog, dict[str, tuple[BillingPeriod, ...]]]:
    """Read a file of meter events, and return them with the periods that have some."""
    refusals = Refusals(on_error)
    log = meter_log(catalog)
    written = format_of(events)
    with opened(events) as stream:
        periods = append_events(log, read_events(stream, written, path=shown_name(events)), on_refusal=refusals)
    refusals.count(shown_name(events), len(log))
    return log, periods


def shown_name(path: str) -> str:
    """Return what complaints call a file."""
    return "<standard input>" if path == "-" else path


def format_of(usage: str) -> UsageFormat:
    """Tell the format by the file's extension; by its first character where it comes from standard input."""
    if usage != "-":
        return UsageFormat.of_path(usage)
    beginning = cast("io.BufferedReader", sys.stdin.buffer).peek(1).removeprefix(codecs.BOM_UTF8).lstrip()
    return UsageFormat.JSONL if beginning.startswith(b"{") else UsageFormat.CSV


@contextlib.contextmanager
def opened(usage: str) -> Iterator[TextIO]:
    """Open a file of usage, or standard input; bytes that are no UTF-8 are left to the reader, who knows their line."""
    with contextlib.ExitStack() as stack:
        source = sys.stdin.buffer
        if usage != "-":
            source = stack.enter_context(_with_progress(stack.enter_context(_open(usage)), usage))
        yield io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape", newline="")


def _open(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise CatalogError(ErrorCode.FILE_UNREADABLE, message, details={"path": path}) from None


def _with_progress(file: BinaryIO, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Show a progress bar on standard error while a long file is read and someone looks."""
    size = os.fstat(file.fileno()).st_size
    if size < LONG_FILE_BYTES or not sys.stderr.isatty():
        return contextlib.nullcontext(file)
    from rich.console import Console  # noqa: PLC0415 - rich takes its time, and a short file needs none of it
    from rich.progress import wrap_file  # noqa: PLC0415 - as above

    return wrap_file(file, size, description=f"Reading {path}", console=Console(stderr=True), transient=True)
