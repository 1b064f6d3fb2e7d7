"""The command line: reads files, asks the engine and prints. It knows no rule of billing.

Each group of commands is a module; this one names them, runs the one that was asked for and turns
whatever ends it into an exit status. All that is said on standard error passes ``complaints``.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError

from metering_core.cli.cases import check
from metering_core.cli.complaints import (
    INTERRUPTED,
    OK,
    REFUSED,
    UNUSABLE,
    UNWRITTEN,
    StoppedError,
    complain,
    in_options,
)
from metering_core.cli.engines import print_kernel
from metering_core.cli.invoices import demo, invoice
from metering_core.cli.periods import periods
from metering_core.cli.prices import audit_prices, compare_prices, draw_curve, rate_quantities
from metering_core.cli.summaries import summaries
from metering_core.errors import ErrorCode, MeteringError

COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "audit": audit_prices,
    "check": check,
    "compare": compare_prices,
    "curve": draw_curve,
    "demo": demo,
    "invoice": invoice,
    "periods": periods,
    "rate": rate_quantities,
    "sql": print_kernel,
    "summaries": summaries,
}

_HELP = """Billing as a query over an append-only log of usage: exact, repeatable, explainable.

Exit status: 0 where all is well; 1 where a row of usage was refused or is on no bill, nothing was
billed, or a case differs; 2 where the arguments or a file cannot be used; 3 where output could not
be written. Complaints go to standard error, one line each.
"""


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - it takes its time, and nothing else needs it

    try:
        return f"metering-core {metadata.version('metering-core')}"
    except metadata.PackageNotFoundError:
        return "metering-core, run from its source without being installed"


app = App(name="metering-core", help=_HELP, version=_version)
for _name, _command in COMMANDS.items():
    app.command(_command, name=_name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; see ``metering-core --help``."""
    for stream in (sys.stdout, sys.stderr):
        # The same bytes everywhere, whatever the locale and its line ends.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if sys.stdout is None:
        complain("standard output: cannot be written: it is closed")
        return UNWRITTEN
    try:
        status = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except _ENDS as end:
        status, said = _ended_by(end)
        complain(said)
    finally:
        _give_up_unwritten()
    return status if isinstance(status, int) else OK


_ENDS: Final = (
    CycloptsError,
    MeteringError,
    StoppedError,
    OSError,
    SystemExit,
    KeyboardInterrupt,
)


def _ended_by(end: BaseException) -> tuple[int, str]:
    """Return the exit status of what ended a run, and what is said of it.

    Files complain in words of their own, so an error of the system, or the exit of who prints the
    help where nobody reads on, is about what results are printed to.
    """
    match end:
        case CycloptsError() | MeteringError():
            is_unwritten = getattr(end, "code", None) is ErrorCode.FILE_UNWRITABLE
            return UNWRITTEN if is_unwritten else UNUSABLE, in_options(end)
        case StoppedError():
            return REFUSED, str(end)
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case OSError() if end.strerror is not None:
            reason = end.strerror
        case OSError():
            reason = str(end)
        case _:
            reason = os.strerror(errno.EPIPE)
    return UNWRITTEN, f"standard output: cannot be written: {reason}"


def _give_up_unwritten() -> None:
    """Leave nothing in a stream that cannot take it: Python would complain of it at the end, in
    words of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
