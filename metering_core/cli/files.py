"""Files that the commands read: catalogs, usage and events, by path or from standard input.

Reading shows a progress bar where it takes long and someone looks, and goes on over what is no
UTF-8, since whoever reads the rows knows its line.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TextIO, cast

import attrs

from metering_core import BillingPeriod, MeterEvent, MeteringError, MeterLog, MeterPolicy
from metering_core.cli.complaints import NAMED_MAX, Refusals, complain
from metering_core.errors import CatalogError, shown
from metering_core.feeds import (
    Catalog,
    EventRow,
    UsageFormat,
    append_events,
    meter_log,
    read_catalog,
    read_events,
)
from metering_core.feeds.instants import PlausibleTime
from metering_core.feeds.json import refuse_pipe, unread

LONG_FILE_BYTES: Final = 4 * 2**20
"""From this size on, reading a file of usage shows a progress bar."""


@attrs.frozen
class HowToRead:
    """How files of usage are read: which moments they may name, and what becomes of rows that do
    not count.
    """

    time: PlausibleTime
    refusals: Refusals


def catalog_at(path: str, time: PlausibleTime) -> Catalog:
    """Read a catalog whose moments are held to these; name each field that was read past in it
    once, where it stands first.
    """
    read = read_catalog(path, time=time)
    fields: dict[str, str] = {}
    for place in read.ignored:
        fields.setdefault(place.rpartition("[")[2], place)
    if fields:
        more = f" and {len(fields) - NAMED_MAX:,} more" if len(fields) > NAMED_MAX else ""
        named = ", ".join([*fields.values()][:NAMED_MAX])
        complain(f"{path}: fields that alter no bill here were read past: {named}{more}")
    return read


def load_events(
    catalog: Catalog,
    events: str,
    reading: HowToRead,
    policy: MeterPolicy | None = None,
    *,
    on_event: Callable[[MeterEvent], None] | None = None,
) -> tuple[MeterLog, dict[str, tuple[BillingPeriod, ...]]]:
    """Read a file of meter events, and return them with the periods that have some.

    Those that nobody bills are told, unless ``on_event``, which sees every event, says that bills
    are not what they are for.
    """
    refusals = reading.refusals
    log = meter_log(catalog, policy)
    written = format_of(events)
    with opened(events) as stream:
        read = read_events(stream, written, path=shown_name(events), time=reading.time)
        rows = _seen(refusals.counted(read), on_event)
        unbilled = refusals.unbilled if on_event is None else None
        periods = append_events(log, rows, on_refusal=refusals, on_unbilled=unbilled)
    refusals.count(shown_name(events), len(log))
    return log, periods


def _seen(
    rows: Iterable[EventRow | CatalogError], on_event: Callable[[MeterEvent], None] | None
) -> Iterator[EventRow | CatalogError]:
    for row in rows:
        if on_event is not None and isinstance(row, EventRow):
            on_event(row.event)
        yield row


def shown_name(path: str) -> str:
    """Return what complaints call a file."""
    return "<standard input>" if path == "-" else path


def format_of(usage: str) -> UsageFormat:
    """Tell the format by the file's extension; by its first character where it comes from standard
    input.
    """
    if usage != "-":
        return UsageFormat.of_path(usage)
    peeked = cast("io.BufferedReader", _standard_input()).peek(1)
    beginning = peeked.removeprefix(codecs.BOM_UTF8).lstrip()
    return UsageFormat.JSONL if beginning.startswith(b"{") else UsageFormat.CSV


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise CatalogError.of_file("usage", "<standard input>", "cannot be read: it is closed")
    return sys.stdin.buffer


@contextlib.contextmanager
def opened(usage: str) -> Iterator[TextIO]:
    """Open a file of usage, or standard input; bytes that are no UTF-8 are left to the reader, who
    knows their line.
    """
    if usage == "-":
        yield _as_text(_standard_input())
        return
    with _open(usage) as file, _with_progress(file, usage) as source:
        yield _as_text(source)


def _as_text(source: BinaryIO) -> TextIO:
    return io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape", newline="")


def lines_of(path: str, wanted: Container[int]) -> dict[int, str]:
    """Return lines of a file of text by their numbers, from 1; one that ends within quotes goes on
    in the next.
    """
    found: dict[int, str] = {}
    begun = 0
    with opened(path) as stream:
        for number, text in enumerate(stream, start=1):
            if begun:
                found[begun] += text
            elif number in wanted:
                found[number] = text
                begun = number
            if begun and found[begun].count('"') % 2 == 0:
                begun = 0
    return found


def _open(path: str) -> BinaryIO:
    try:
        refuse_pipe(path, "usage")
        return Path(path).open("rb")
    except MeteringError:
        raise
    except (OSError, ValueError) as error:
        raise CatalogError.of_file("usage", path, unread(error)) from None


def _with_progress(file: BinaryIO, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Show a progress bar on standard error while a long file is read and someone looks."""
    size = os.fstat(file.fileno()).st_size
    if size < LONG_FILE_BYTES or not is_watched():
        return contextlib.nullcontext(file)
    from rich.console import Console  # noqa: PLC0415 - a short file needs none of it
    from rich.progress import wrap_file  # noqa: PLC0415 - as above

    description, console = f"Reading {shown(path)}", Console(stderr=True)
    return wrap_file(file, size, description=description, console=console, transient=True)


def is_watched() -> bool:
    """Whether someone looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()
