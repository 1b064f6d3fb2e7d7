"""Instants in files of usage: which ones are taken, and what those that are refused were probably
meant to be.

A spreadsheet's day number, milliseconds and a naive time are all numbers or texts that some reader
would take for a moment, and the usage would lie in a period that nobody bills. So files are held to
years in which usage can have happened.
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, cast

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, describe
from metering_core.exact import exact_integer
from metering_core.names import require_kind
from metering_core.periods import (
    INSTANT_TEXT,
    SECONDS_MAX,
    SECONDS_MIN,
    Instant,
    from_unix_seconds,
    instant,
    iso_8601,
    parse_instant,
    unix_seconds,
)

SECONDS_OF_2000: Final = 946_684_800
SECONDS_OF_2100: Final = 4_102_444_800
YEARS_AHEAD: Final = 10
"""How many calendar years after that of ``now`` an instant of a file may lie."""

_DAY_ZERO: Final = date(1899, 12, 30)
"""Day 0 of spreadsheets, for all days since March 1900."""
_UNITS: Final = {10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
_INTEGER: Final = re.compile(r"-?[0-9]{1,1000}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_SLASHES: Final = re.compile(r"\d{1,4}[/.]\d{1,2}[/.]\d{1,4}.*", re.DOTALL)


def instant_of_file(value: Any, param: str) -> Instant:
    """Return an instant of a file: text is ISO 8601, for digits are numbers there; all else is left
    to who takes it.
    """
    if not isinstance(value, str):
        return cast("Instant", value)
    if _INTEGER.fullmatch(value):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INSTANT, param, INSTANT_TEXT, value
        )
    return parse_instant(value, param)


def _first(value: object) -> int:
    return exact_integer(value, "first", minimum=SECONDS_MIN, maximum=SECONDS_MAX)


def _last(value: object) -> int:
    return exact_integer(value, "last", minimum=SECONDS_MIN, maximum=SECONDS_MAX)


@attrs.frozen
class PlausibleTime(Storable):
    """The moments that a file of usage may name: whole years.

    Attributes:
        first: the earliest, Unix seconds.
        last: the latest.
    """

    first: int = attrs.field(default=SECONDS_OF_2000, converter=_first)
    last: int = attrs.field(default=SECONDS_MAX, converter=_last)

    @classmethod
    def until(cls, now: Instant) -> PlausibleTime:
        """Return the years from 2000 to the tenth after that of ``now``."""
        now = instant(now, "now")
        if now.year + YEARS_AHEAD >= MAXYEAR:
            return cls()
        return cls(last=unix_seconds(datetime(now.year + YEARS_AHEAD + 1, 1, 1, tzinfo=UTC)) - 1)

    def moment(self, value: Any, param: str) -> Instant:
        """Return an instant of a file, or refuse it and say what it looks like.

        >>> PlausibleTime().moment(46178, "timestamp")
        Traceback (most recent call last):
        metering_core.errors.InvalidValueError: ...it looks like a spreadsheet's day number for ...
        """
        if type(value) is int and self.first <= value <= self.last:  # As nearly always.
            return value
        try:
            found = instant_of_file(value, param)
            seconds = unix_seconds(instant(found, param))
        except InvalidValueError as error:
            if isinstance(value, str):
                raise InvalidValueError(
                    error.code, error.message + likeness(value), param=param, details=error.details
                ) from None
            expected = "a moment within the years 1 to 9999" if type(value) is int else INSTANT_TEXT
            raise _refused(expected, value, param) from None
        if not self.first <= seconds <= self.last:
            years = " to ".join(str(from_unix_seconds(one).year) for one in (self.first, self.last))
            raise _refused(f"a moment in the years {years}", value, param)
        return found


def _refused(expected: str, value: object, param: str) -> InvalidValueError:
    message = f"{param}: expected {expected}, received {describe(value)}{likeness(value)}"
    details = {"expected": expected, "received": value}
    return InvalidValueError(
        ErrorCode.PARAMETER_INVALID_INSTANT, message, param=param, details=details
    )


ANY_TIME: Final = PlausibleTime(SECONDS_MIN)
"""All moments of the calendar, however much they look like something else."""

FROM_2000: Final = PlausibleTime()
"""What every reader of files takes unless it is told otherwise."""


def time_of(value: object, param: str = "time") -> PlausibleTime:
    """Return what moments a file may name; None stands for all of the calendar."""
    return ANY_TIME if value is None else require_kind(PlausibleTime, value, param)


def likeness(value: object) -> str:
    """Return what a refused instant was probably meant to be, as an ending of a sentence; empty
    where nothing suggests itself.

    >>> likeness(1780660800000)
    ': it looks like milliseconds, divide by 1000 (2026-06-05T12:00:00Z)'
    >>> likeness("2026-06-05T12:00:00")
    ': it has no offset, write 2026-06-05T12:00:00Z if it is in UTC'
    """
    try:
        written = str(value) if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - a caller's value may raise anything
        return ""
    said = (
        _as_number(written, is_text=isinstance(value, str))
        if _NUMBER.fullmatch(written)
        else _as_text(written)
    )
    return f": {said}" if said else ""


def _as_number(written: str, *, is_text: bool) -> str:
    whole = int(Decimal(written))
    if (
        0
        <= whole - _day_number(SECONDS_OF_2000)
        <= _day_number(SECONDS_OF_2100) - _day_number(SECONDS_OF_2000)
    ):
        return f"it looks like a spreadsheet's day number for {_DAY_ZERO + timedelta(days=whole)}"
    for unit, name in _UNITS.items():
        if SECONDS_OF_2000 <= whole // unit <= SECONDS_OF_2100:
            return (
                f"it looks like {name}, divide by {unit} "
                f"({iso_8601(from_unix_seconds(whole // unit))})"
            )
    is_seconds = is_text and SECONDS_OF_2000 <= whole <= SECONDS_OF_2100
    return (
        "write Unix seconds as a number, without quotes and without a point" if is_seconds else ""
    )


def _day_number(seconds: int) -> int:
    return (from_unix_seconds(seconds).date() - _DAY_ZERO).days


def _as_text(written: str) -> str:
    if _SLASHES.fullmatch(written):
        return "write year, month and day with dashes, as ISO 8601 has them"
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        return ""
    if found.tzinfo is not None:
        return ""
    return f"it has no offset, write {found.isoformat()}Z if it is in UTC"
