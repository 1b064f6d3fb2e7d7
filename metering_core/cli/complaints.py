"""What is said on standard error, and what is written of rows that are on no bill.

All complaints pass here. Each is one line that begins with ``metering-core:``, speaks of options as
people type them, and names a row by its file and line. A long run is not drowned by its own
complaints: the first few rows of a file are named, all are counted, and all stand in the file of
rejects.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, TextIO, TypeVar

import attrs
from cyclopts import UnusedCliTokensError

from metering_core import ErrorCode, InvalidValueError, MeteringError
from metering_core.cli.printing import write_csv_rows
from metering_core.errors import CatalogError, describe, shown
from metering_core.feeds.formats import UsageFormat
from metering_core.replacing import replacing

OK: Final = 0
REFUSED: Final = 1
UNUSABLE: Final = 2
UNWRITTEN: Final = 3
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""

NAMED_MAX: Final = 10
"""Rows of one file that are named on standard error; all others are counted, and stand in the file
of ``--rejects``.
"""

REJECT_COLUMNS: Final = ("path", "line", "code", "message", "row")
"""What a file of rejects has of each row: the row is the text as it stands in the file, or JSON for
one of a table.
"""

Row = TypeVar("Row")


class OnError(StrEnum):
    """What becomes of a run at a malformed row or a refused record."""

    STOP = "stop"
    SKIP = "skip"


class StoppedError(Exception):
    """A complaint about usage that ends the run."""


def complain(message: str) -> None:
    """Say a sentence on standard error, on one line whatever it quotes; where there is none, nobody
    is told.
    """
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"metering-core: {shown(message)}", file=sys.stderr, flush=True)


# About arguments ----------------------------------------------------------------------------------


def slip(
    option: str, reason: str, code: ErrorCode = ErrorCode.PARAMETERS_EXCLUSIVE
) -> InvalidValueError:
    """Return a complaint about an option, in words that begin with it."""
    return InvalidValueError(code, f"{option}: {reason}", param=option)


_OPTIONS: Final = {
    "anchor": "ANCHOR",
    "end_time": "--to",
    "interval": "INTERVAL",
    "interval_count": "--count",
    "path": "--output",
    "quantity": "QUANTITY",
    "start_time": "--from",
    "value_grouping_window": "--by",
    "backdate_days": "--backdate-days",
    "customer": "--customer",
    "kind": "--kind",
    "meter": "--meter",
    "timezone": "--timezone",
    "up_to": "--up-to",
}
"""What people call the parameters of what the commands ask."""


def in_options(error: Exception) -> str:
    """Return a complaint about arguments in the words of the command line, on one line."""
    # What refuses an option's text is wrapped by who reads options.
    if isinstance(error.__cause__, MeteringError):
        error = error.__cause__
    if isinstance(error, UnusedCliTokensError):
        return _unused(error)
    message = " ".join(str(error).split())
    message = message.replace(
        "say overlap='each_counts_all' in the policy", "say --overlap each-counts-all"
    )
    param = str(getattr(error, "param", None))
    is_ours = param in _OPTIONS and not isinstance(error, CatalogError)
    if is_ours and message.startswith(f"{param}: "):
        return f"{_OPTIONS[param]}{message.removeprefix(param)}"
    return message


def _unused(error: UnusedCliTokensError) -> str:
    """Say which arguments were one too many, and why that happens."""
    received = ", ".join(map(describe, error.unused_tokens or ()))
    message = f"expected no further argument, received {received}"
    if (error.command_chain or ("",))[0] != "invoice":
        return message
    if "--usage" in (error.root_input_tokens or ()):
        return f"{message}: USAGE is given without an option, as in `invoice CATALOG USAGE`"
    quoting = "quote a glob, as in 'usage/*.csv', so that all its files are"
    return f"{message}: one USAGE is read; {quoting}"


# About rows ---------------------------------------------------------------------------------------


@attrs.define
class _Counts:
    """What became of the rows of one file."""

    rows: int = 0
    skipped: int = 0
    unbilled: int = 0
    named: list[str] = attrs.field(factory=list)
    """Of those that are on no bill, the first few."""


class Refusals:
    """What becomes of rows that are refused or that nobody bills, over all files of a run.

    Refused rows end the run at the first one, or are skipped; events that nobody bills are on no
    bill in either case.
    """

    def __init__(
        self, on_error: OnError, rejects: TextIO | None = None, *, as_csv: bool = True
    ) -> None:
        self._on_error, self._rejects, self._as_csv = on_error, rejects, as_csv
        self._counts = _Counts()
        self.keeps_rows = rejects is not None
        """Whether the rows themselves are written down."""
        self.found = False
        """Whether there was any such row in the run."""
        if rejects is not None and as_csv:
            write_csv_rows(rejects, [REJECT_COLUMNS])

    def __call__(self, refusal: MeteringError) -> None:
        """Take a refusal, in the order of rows."""
        self._write(refusal)
        is_late = refusal.code is ErrorCode.TIMESTAMP_BEFORE_CURRENT_PERIOD
        message = refusal.message + (_LATE if is_late else "")
        if self._on_error is OnError.STOP:
            raise StoppedError(message)
        self._counts.skipped += 1
        if self._counts.skipped <= NAMED_MAX:
            complain(message)

    def unbilled(self, error: MeteringError) -> None:
        """Take an event that was accepted and is on no bill; it is told once the file is read."""
        self._write(error)
        self._counts.unbilled += 1
        if len(self._counts.named) < NAMED_MAX:
            self._counts.named.append(error.message)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows of a file, and count them."""
        for row in rows:
            self._counts.rows += 1
            yield row

    def count(self, path: str, accepted: int, duplicates: int | None = None) -> None:
        """Say what became of the rows of a file where some were skipped, and how many are on no
        bill, if any.
        """
        counts, self._counts = self._counts, _Counts()
        if counts.skipped:
            again = counts.rows - counts.skipped - accepted if duplicates is None else duplicates
            said = f", {again:,} duplicate{'' if again == 1 else 's'}" if again else ""
            complain(f"{path}: {_rows(counts.skipped)} skipped, {accepted:,} accepted{said}")
        for message in counts.named:
            complain(message)
        if counts.unbilled:
            complain(f"{path}: {_rows(counts.unbilled)} on no bill")

    def _write(self, error: MeteringError) -> None:
        self.found = True
        if self._rejects is None:
            return
        details = error.details
        fields = (
            shown(str(details["path"])),
            details["line"],
            str(details.get("cause", error.code)),
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
    # Leaving `replacing` by an error is what keeps the file that stands there. So a row that ends
    # the run is held back until the rejects are in place, and a file that holds something else,
    # which nothing is to be written into, is kept by an error that ends here.
    with contextlib.suppress(_LeftAloneError), replacing(rejects, "rejects") as beside:
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            refusals = Refusals(on_error, stream, as_csv=as_csv)
            try:
                yield refusals
            except StoppedError as error:
                stopped = error
        if not refusals.found and _is_foreign(rejects, as_csv=as_csv):
            reason = "no row is to be written into it, and it holds no rejects"
            complain(f"{shown(str(rejects))}: left as it is: {reason}")
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
    if rejects is None:
        return
    places = {os.path.realpath(one) for one in read if one is not None}
    if os.path.realpath(rejects) in places:
        expected = "expected another file than those that are read"
        raise slip("--rejects", f"{expected}, received {str(rejects)!r}")
