"""What all commands share: files that are read, rows that are refused or unbilled, and what is
written of them.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, TextIO, TypeVar, cast

import attrs
from cyclopts import Parameter, Token

from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    MeteringError,
    describe,
    shown,
)
from metering_core.feeds.appending import append_events
from metering_core.feeds.catalog import Catalog, meter_log, read_catalog
from metering_core.feeds.files import EventRow, read_events
from metering_core.feeds.formats import UsageFormat
from metering_core.feeds.instants import PlausibleTime
from metering_core.feeds.json import refuse_pipe
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.periods import BillingPeriod, instant
from metering_core.replacing import replacing

LONG_FILE_BYTES: Final = 4 * 2**20
"""From this size on, reading a file of usage shows a progress bar."""

NAMED_MAX: Final = 10
"""Rows of one file that are named on standard error; all others are counted, and stand in the file
of ``--rejects``.
"""


class OnError(StrEnum):
    """What becomes of a run at a malformed row or a refused record."""

    STOP = "stop"
    SKIP = "skip"


RejectsFile = Annotated[Path | None, Parameter(name="--rejects")]


class StoppedError(Exception):
    """A complaint about usage that ends the run."""


# What is said and written -------------------------------------------------------------------------


def complain(message: str) -> None:
    """Say a sentence on standard error, on one line whatever it quotes; where there is none, nobody
    is told.
    """
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"metering-core: {shown(message)}", file=sys.stderr, flush=True)


_UNPRINTABLE: Final = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def print_json(data: Mapping[str, Any]) -> None:
    """Print data as JSON that people can read, in which no text has power over a terminal."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    print(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def spreadsheet_cell(value: object) -> object:
    """Return what stands in a cell of CSV: text that a spreadsheet would run or read as a date gets
    a leading quote.

    >>> [spreadsheet_cell(one) for one in ("=1+1", "1/12", "-31.5", -2, "Tokens")]
    ["'=1+1", "'1/12", '-31.5', -2, 'Tokens']
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if _FORMULA.match(value) or _FRACTION.fullmatch(value) else value


_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
_FRACTION: Final = re.compile(r"-?[0-9]+/[0-9]+")


def write_csv_rows(stream: TextIO, rows: Sequence[Sequence[object]]) -> None:
    """Write rows of CSV as a spreadsheet may open them."""
    csv.writer(stream, lineterminator="\n").writerows(
        [[spreadsheet_cell(one) for one in row] for row in rows]
    )


# Rows that do not count ---------------------------------------------------------------------------


Row = TypeVar("Row")


class Refusals:
    """What becomes of rows that are refused or that nobody bills, over all files of a run.

    Refused rows end the run at the first one, or are skipped; events that nobody bills are on no
    bill in either case. The first few of a file are named, all are counted, and all stand in the
    file of rejects.
    """

    def __init__(
        self, on_error: OnError, rejects: TextIO | None = None, *, as_csv: bool = True
    ) -> None:
        self._on_error, self._rejects, self._as_csv = on_error, rejects, as_csv
        self._skipped = self._rows = 0
        self._unbilled: list[str] = []
        self._unbilled_count = 0
        self.keeps_rows = rejects is not None
        """Whether the rows themselves are written down."""
        self.found = False
        """Whether there was any such row in the run."""
        if rejects is not None and as_csv:
            write_csv_rows(rejects, [REJECT_COLUMNS])

    def __call__(self, refusal: MeteringError) -> None:
        """Take a refusal, in the order of rows."""
        self.found = True
        self._write(refusal)
        is_late = refusal.code is ErrorCode.TIMESTAMP_BEFORE_CURRENT_PERIOD
        message = refusal.message + (_LATE if is_late else "")
        if self._on_error is OnError.STOP:
            raise StoppedError(message)
        self._skipped += 1
        if self._skipped <= NAMED_MAX:
            complain(message)

    def unbilled(self, error: MeteringError) -> None:
        """Take an event that was accepted and is on no bill; it is told once the file is read."""
        self.found = True
        self._write(error)
        self._unbilled_count += 1
        if len(self._unbilled) < NAMED_MAX:
            self._unbilled.append(error.message)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows of a file, and count them."""
        for row in rows:
            self._rows += 1
            yield row

    def count(self, path: str, accepted: int, duplicates: int | None = None) -> None:
        """Say what became of the rows of a file where some were skipped, and how many are on no
        bill, if any.
        """
        if self._skipped:
            again = self._rows - self._skipped - accepted if duplicates is None else duplicates
            said = f", {again:,} duplicate{'' if again == 1 else 's'}" if again else ""
            complain(f"{path}: {_rows(self._skipped)} skipped, {accepted:,} accepted{said}")
        for message in self._unbilled:
            complain(message)
        if self._unbilled_count:
            complain(f"{path}: {_rows(self._unbilled_count)} on no bill")
        self._skipped, self._rows, self._unbilled, self._unbilled_count = 0, 0, [], 0

    def _write(self, error: MeteringError) -> None:
        if self._rejects is None:
            return
        details = error.details
        code = str(details.get("cause", error.code))
        fields = (
            shown(str(details["path"])),
            details["line"],
            code,
            shown(error.message),
            _as_text(details.get("source")),
        )
        if self._as_csv:
            write_csv_rows(self._rejects, [fields])
        else:
            self._rejects.write(json.dumps(dict(zip(REJECT_COLUMNS, fields, strict=True))) + "\n")


_LATE: Final = " (late records are taken with --late-grace of `metering-core invoice`)"


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


REJECT_COLUMNS: Final = ("path", "line", "code", "message", "row")
"""What a file of rejects has of each row: the row is the text as it stands in the file, or JSON for
one of a table.
"""


def _as_text(source: object) -> str:
    """Write a row as it stands in its file."""
    if isinstance(source, list):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(source)
        return text.getvalue()
    if isinstance(source, Mapping):
        return json.dumps(source, ensure_ascii=False, default=str)
    return "" if source is None else str(source).rstrip("\r\n")


@contextlib.contextmanager
def refusals_of(on_error: OnError, rejects: Path | None) -> Iterator[Refusals]:
    """Yield what takes refused rows, and put the file of rejects in its place at the end, also
    where a row ended the run.
    """
    if rejects is None:
        yield Refusals(on_error)
        return
    as_csv = UsageFormat.of_path(rejects) is UsageFormat.CSV
    stopped: StoppedError | None = None
    with contextlib.suppress(_LeftAloneError), replacing(rejects, "rejects") as beside:
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            refusals = Refusals(on_error, stream, as_csv=as_csv)
            try:
                yield refusals
            except StoppedError as error:
                stopped = error
        if not refusals.found and _is_foreign(rejects, as_csv=as_csv):
            complain(
                f"{shown(str(rejects))}: left as it is: no row is to be written into it, "
                "and it holds no rejects"
            )
            raise _LeftAloneError
    if stopped is not None:
        raise stopped


class _LeftAloneError(Exception):
    """A file stays as it is."""


def _is_foreign(path: Path, *, as_csv: bool) -> bool:
    """Whether a file holds something that is no file of rejects, which is not to be lost for having
    nothing to write.
    """
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        beginning = stream.readline(1000)
    known = ",".join(REJECT_COLUMNS) + "\n" if as_csv else f'{{"{REJECT_COLUMNS[0]}": '
    return bool(beginning) and not beginning.startswith(known.encode())


def refuse_same_file(rejects: Path | None, *read: str | None) -> None:
    """Refuse to write rejects over a file that is read."""
    for one in read:
        if (
            rejects is not None
            and one is not None
            and os.path.realpath(one) == os.path.realpath(rejects)
        ):
            message = (
                "--rejects: expected another file than those that are read, received "
                f"{str(rejects)!r}"
            )
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="--rejects")


# Policies -----------------------------------------------------------------------------------------


_DURATION: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str, param: str) -> int:
    """Return the seconds of a duration such as ``300s``, ``2h`` or ``1d``.

    >>> duration("2h", "--late-grace")
    7200

    Raises:
        InvalidValueError: ``parameter_invalid_string``.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        expected = "a duration of seconds, minutes, hours or days, such as 300s, 5m, 2h or 1d"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_STRING, param, expected, text)
    return int(found[1]) * _SECONDS[found[2]]


def whole_number(_: object, tokens: Sequence[Token]) -> int:
    """Return the integer of an option, which is written in digits: a fraction is not cut off, nor
    any notation guessed.

    Raises:
        InvalidValueError: ``parameter_invalid_integer``, with the option as param.
    """
    (token,) = tokens
    if _WHOLE.fullmatch(token.value) is None:
        option = token.keyword or "integer"
        expected = f"an integer, received {describe(token.value)}"
        raise InvalidValueError(
            ErrorCode.PARAMETER_INVALID_INTEGER, f"{option}: expected {expected}", param=option
        )
    return int(token.value)


_WHOLE: Final = re.compile(r"-?[0-9]{1,200}")
WholeNumber = Annotated[int, Parameter(converter=whole_number)]


AnyTime = Annotated[bool, Parameter(negative="", show_default=False)]


def instant_option(text: str, option: str, time: PlausibleTime) -> datetime:
    """Return the moment of an option: digits are Unix seconds; one that looks like something else
    is refused as in files.

    Raises:
        InvalidValueError: ``parameter_invalid_instant``.
    """
    return instant(time.moment(int(text) if _WHOLE.fullmatch(text) else text, option), option)


# Files that are read ------------------------------------------------------------------------------


@attrs.frozen
class Reading:
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
    reading: Reading,
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
        rows = refusals.counted(
            read_events(stream, written, path=shown_name(events), time=reading.time)
        )
        unbilled = refusals.unbilled if on_event is None else None
        periods = append_events(
            log, _seen(rows, on_event), on_refusal=refusals, on_unbilled=unbilled
        )
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
    beginning = (
        cast("io.BufferedReader", _standard_input()).peek(1).removeprefix(codecs.BOM_UTF8).lstrip()
    )
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
    with contextlib.ExitStack() as stack:
        source = (
            _standard_input()
            if usage == "-"
            else stack.enter_context(_with_progress(stack.enter_context(_open(usage)), usage))
        )
        yield io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape", newline="")


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
    except (OSError, ValueError) as error:
        if isinstance(error, MeteringError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise CatalogError.of_file("usage", path, f"cannot be read: {reason}") from None


def _with_progress(file: BinaryIO, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Show a progress bar on standard error while a long file is read and someone looks."""
    size = os.fstat(file.fileno()).st_size
    if size < LONG_FILE_BYTES or not is_watched():
        return contextlib.nullcontext(file)
    from rich.console import Console  # noqa: PLC0415 - a short file needs none of it
    from rich.progress import wrap_file  # noqa: PLC0415 - as above

    return wrap_file(
        file,
        size,
        description=f"Reading {shown(path)}",
        console=Console(stderr=True),
        transient=True,
    )


def is_watched() -> bool:
    """Whether someone looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()
