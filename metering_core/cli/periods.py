"""The command ``periods``: the calendar of a billing cycle."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any, cast

from metering_core import BillingCycle, ErrorCode, InvalidValueError
from metering_core.cli.options import (
    Dashed,
    DashedOrNone,
    WholeNumber,
    instant_option,
    time_of_today,
)
from metering_core.cli.printing import in_zone
from metering_core.feeds.instants import ANY_TIME, likeness


def periods(
    anchor: Dashed,
    interval: str,
    /,
    *,
    count: WholeNumber = 1,
    timezone: str = "UTC",
    at: DashedOrNone = None,
    number: WholeNumber = 12,
) -> None:
    """Print billing periods, one a line: the first moment of each, and the first moment after it.

    Args:
        anchor: A boundary: Unix seconds, or ISO 8601 with an offset.
        interval: day, week, month or year.
        count: Intervals in one period.
        timezone: IANA zone whose wall clock the boundaries keep, and in which they are printed.
        at: Begin with the period that holds this instant rather than with the anchor.
        number: How many periods to print.
    """
    if number < 1:
        code, expected = ErrorCode.PARAMETER_INVALID_INTEGER, "an integer of at least 1"
        raise InvalidValueError.expecting(code, "--number", expected, number)
    cycle = BillingCycle(_boundary(anchor, "ANCHOR"), cast("Any", interval), count, timezone)
    first = cycle.anchor if at is None else _boundary(at, "--at")
    for period in islice(cycle.periods_from(first), number):
        print(in_zone(period.start, timezone), in_zone(period.end, timezone))


def _boundary(text: str, option: str) -> datetime:
    """Return a moment of any year, unless it is written in digits that look like something else."""
    is_doubtful = text.isdecimal() and likeness(text.lstrip("0")[:30])
    return instant_option(text, option, time_of_today() if is_doubtful else ANY_TIME)
