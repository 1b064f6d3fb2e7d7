"""Instants in UTC, half-open billing periods, and the cycle that tiles time with them from an
anchor.

Boundary ``k`` of a cycle is always ``anchor + k * interval``, never the boundary before plus one
interval: only so do anchors on the 29th to the 31st come back after a short month (Stripe, "How
subscriptions work": billing cycle anchor).
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final

import attrs
from dateutil.relativedelta import relativedelta

from metering_core.codec import ROWS, Row, Shared, Storable
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import as_index, exact_integer
from metering_core.names import choice, text_of

__all__ = ["BillingCycle", "BillingPeriod", "Instant", "Interval"]

Instant = datetime | int
"""A moment as callers give it: an aware datetime, or Unix seconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_PER_DAY: Final = 86_400
_UNITS: Final = ((_SECONDS_PER_DAY, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
_DIGITS: Final = re.compile(r"-?[0-9]{1,200}")
_HOUR: Final = r"([01]\d|2[0-3])"
ISO: Final = (
    rf"\d{{4}}-\d{{2}}-\d{{2}}[T ]{_HOUR}:\d{{2}}(:\d{{2}}(\.\d+)?)?(Z|[+-]{_HOUR}(:?\d{{2}})?)"
)
"""The one spelling of ISO 8601 that files may have, whichever engine reads them: a date, a time of
the day, an offset. Beyond six digits of a second it is read on and cut.
"""
_ISO: Final = re.compile(ISO, re.ASCII)
_LEAP_SECOND: Final = re.compile(r"[T ]\d{2}:\d{2}:60", re.ASCII)
INSTANT_TEXT: Final = "Unix seconds, or ISO 8601 with an offset such as '2024-01-31T00:00:00Z'"
"""What an instant looks like in a file."""
_EXPECTED: Final = "an aware datetime or Unix seconds, within the years 1 to 9999"


WHOLE: Final = Fraction(1)
"""The share of a billing period that no subscription begins or ends in."""


def unix_seconds(value: datetime) -> int:
    """Return the Unix seconds of an aware datetime, floored to the second also before 1970.

    >>> unix_seconds(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    -1
    """
    elapsed = value - _EPOCH
    return elapsed.days * _SECONDS_PER_DAY + elapsed.seconds


MICROSECONDS: Final = 1_000_000
"""In a second; moments of events are kept in Unix microseconds."""

SECONDS_MIN: Final = unix_seconds(datetime.min.replace(tzinfo=UTC))
SECONDS_MAX: Final = unix_seconds(datetime.max.replace(tzinfo=UTC))
"""The last second of the year 9999: up to it an int is an instant without a calendar."""


def from_unix_seconds(seconds: int) -> datetime:
    """Return the UTC datetime of Unix seconds.

    >>> from_unix_seconds(1_704_067_200)
    datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)

    Raises:
        InvalidValueError: ``parameter_invalid_instant`` outside the years 1 to 9999.
    """
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise _not_an_instant(seconds, "seconds")
    return _EPOCH + timedelta(seconds=seconds)


def instant(value: object, param: str) -> datetime:
    """Return an aware datetime or Unix seconds as a plain UTC datetime; microseconds are kept, and
    what is finer is cut.

    So a moment of pandas with nanoseconds is the microsecond that holds it.

    >>> from datetime import timezone
    >>> instant(datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "timestamp")
    datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)

    Raises:
        InvalidValueError: ``parameter_invalid_instant`` for a naive datetime (it does not say which
            moment it means), a float, a bool, a string, or a moment outside the years 1 to 9999.
    """
    if isinstance(value, datetime):
        return value if type(value) is datetime and value.tzinfo is UTC else _to_utc(value, param)
    try:
        seconds = as_index(value)
    except TypeError:
        raise _not_an_instant(value, param) from None
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise _not_an_instant(value, param)
    return _EPOCH + timedelta(seconds=seconds)


def duration(value: object) -> timedelta | None:
    """Return a timedelta as a plain one, or None for what is none; what is finer than a microsecond
    is cut.

    >>> duration(timedelta(hours=1)), duration(3600)
    (datetime.timedelta(seconds=3600), None)
    """
    return (
        timedelta(value.days, value.seconds, value.microseconds)
        if isinstance(value, timedelta)
        else None
    )


def moment(value: Instant, param: str) -> tuple[int, int]:
    """Return an instant in whole Unix seconds (floored) and in Unix microseconds; refusals as
    :func:`instant`.

    >>> moment(datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), "now")
    (1, 1500000)
    """
    if type(value) is int and 0 <= value <= SECONDS_MAX:
        return value, value * 1_000_000
    elapsed = instant(value, param) - _EPOCH
    seconds = elapsed.days * _SECONDS_PER_DAY + elapsed.seconds
    return seconds, seconds * 1_000_000 + elapsed.microseconds


def parse_instant(text: str, param: str) -> datetime:
    """Return the UTC datetime of Unix seconds in digits, or of ISO 8601 with an offset; fractions
    of a second are kept.

    >>> print(parse_instant("1704067200", "at"), parse_instant("2024-01-01T01:00:00+01:00", "at"))
    2024-01-01 00:00:00+00:00 2024-01-01 00:00:00+00:00

    Raises:
        InvalidValueError: ``parameter_invalid_instant``.
    """
    written = text_of(text) or ""
    try:
        if _DIGITS.fullmatch(written):
            return instant(int(written), param)
        if _ISO.fullmatch(written):
            return instant(datetime.fromisoformat(written), param)
    except ValueError:  # InvalidValueError is one.
        pass
    expected = INSTANT_TEXT
    if _ISO.fullmatch(written) and _LEAP_SECOND.search(written):
        expected = (
            "a second from 00 to 59: no leap second, because Unix seconds have none (write the "
            "second before or after)"
        )
    raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_INSTANT, param, expected, text)


def _to_utc(value: datetime, param: str) -> datetime:
    """Return a moment of any zone, or of a subclass, as a plain UTC datetime."""
    try:
        # Asked of utcoffset, not of tzinfo: astimezone would read a datetime without an offset in
        # the machine's zone.
        is_naive = value.utcoffset() is None
        if type(value) is not datetime:
            parts = (
                value.year,
                value.month,
                value.day,
                value.hour,
                value.minute,
                value.second,
                value.microsecond,
            )
            value = datetime(*parts, tzinfo=value.tzinfo, fold=value.fold)
        if not is_naive:
            return value.astimezone(UTC)
    except Exception:  # noqa: BLE001 - a zone may raise anything; pandas' NaT does
        raise _not_an_instant(value, param) from None
    raise InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_INSTANT, param, f"{_EXPECTED}, not naive", value
    )


def _not_an_instant(value: object, param: str) -> InvalidValueError:
    return InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_INSTANT, param, _EXPECTED, value)


def _floor(value: object, param: str) -> datetime:
    return instant(value, param).replace(microsecond=0)


def _as_start(value: Instant) -> datetime:
    return _floor(value, "start")


def _as_end(value: Instant) -> datetime:
    return _floor(value, "end")


@attrs.frozen
class BillingPeriod(Storable):
    """The time from ``start`` (inclusive) to ``end`` (exclusive), in UTC and whole seconds.

    Both are taken as aware datetimes or Unix seconds and floored to the second.

    Attributes:
        start: the first moment of the period.
        end: the first moment after it.
        start_seconds: ``start`` in Unix seconds.
        end_seconds: ``end`` in Unix seconds.
        cut_from: the whole billing period of the cycle, where a subscription begins or ends within
            it and this is what is left; None for a whole one. Two periods are equal whatever they
            were cut from.

    >>> january = BillingPeriod(1_704_067_200, 1_706_745_600)
    >>> print(january)
    2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z
    >>> january.start in january, january.end in january
    (True, False)

    Raises:
        InvalidValueError: ``parameter_invalid_instant``, or ``parameter_invalid_object`` unless
            start < end.
    """

    start: datetime = attrs.field(converter=_as_start)
    end: datetime = attrs.field(converter=_as_end)
    start_seconds: int = attrs.field(init=False, eq=False, repr=False)
    end_seconds: int = attrs.field(init=False, eq=False, repr=False)
    cut_from: BillingPeriod | None = attrs.field(default=None, eq=False, repr=False, kw_only=True)

    @start_seconds.default
    def _start_in_seconds(self) -> int:
        return unix_seconds(self.start)

    @end_seconds.default
    def _end_in_seconds(self) -> int:
        return unix_seconds(self.end)

    def __attrs_post_init__(self) -> None:
        """Refuse a period that holds no second."""
        if self.start_seconds >= self.end_seconds:
            expected = f"a moment at least one second after start, {iso_8601(self.start)}"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "end", expected, iso_8601(self.end)
            )
        whole = self.cut_from
        if whole is not None and not (
            isinstance(whole, BillingPeriod)
            and whole.start_seconds <= self.start_seconds
            and self.end_seconds <= whole.end_seconds
        ):
            expected = f"a BillingPeriod that holds {self}, or None"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "cut_from", expected, whole
            )

    @property
    def share(self) -> Fraction:
        """How much of the whole billing period this is, to the second; 1 unless it was cut.

        >>> june = BillingPeriod(1_780_272_000, 1_782_864_000)
        >>> BillingPeriod(1_781_568_000, 1_782_864_000, cut_from=june).share
        Fraction(1, 2)
        """
        whole = self.cut_from
        if whole is None:
            return WHOLE
        return Fraction(
            self.end_seconds - self.start_seconds, whole.end_seconds - whole.start_seconds
        )

    @property
    def part(self) -> str:
        """What of the whole billing period this is, in the greatest unit of which both are whole;
        empty where it was not cut.

        >>> june = BillingPeriod(1_780_272_000, 1_782_864_000)
        >>> BillingPeriod(1_781_568_000, 1_782_864_000, cut_from=june).part
        '15 of 30 days'
        """
        whole = self.cut_from
        if whole is None:
            return ""
        own, all_ = self.end_seconds - self.start_seconds, whole.end_seconds - whole.start_seconds
        length, unit = next(
            (length, unit) for length, unit in _UNITS if not (own % length or all_ % length)
        )
        return f"{own // length:,} of {all_ // length:,} {unit}"

    def __contains__(self, moment: Instant) -> bool:
        """Say whether a moment lies in the period: from the start on, before the end."""
        return self.start <= instant(moment, "instant") < self.end

    def __str__(self) -> str:
        """Write both bounds in ISO 8601, in UTC."""
        return f"{iso_8601(self.start)} to {iso_8601(self.end)}"


def rfc3339(at: datetime) -> str:
    """Write a UTC datetime as Stripe's API v2 does, with milliseconds.

    >>> rfc3339(from_unix_seconds(0))
    '1970-01-01T00:00:00.000Z'
    """
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_8601(at: datetime) -> str:
    """Write a UTC datetime for people: no more of the second than there is.

    >>> iso_8601(from_unix_seconds(0))
    '1970-01-01T00:00:00Z'
    """
    # Not strftime: its %Y has fewer than four digits before the year 1000 on some platforms.
    return at.isoformat().removesuffix("+00:00") + "Z"


def _write_instant(at: datetime, shared: Shared | None) -> int | str:
    return iso_8601(at) if at.microsecond else unix_seconds(at)


def _read_instant(data: object, param: str, shared: Shared | None) -> datetime:
    text = text_of(data)
    return instant(data, param) if text is None else parse_instant(text, param)


ROWS[datetime] = Row(_write_instant, _read_instant)


class Interval(StrEnum):
    """The unit of a billing cycle, in Stripe's spelling."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


_DAYS: Final = {Interval.DAY: 1, Interval.WEEK: 7}
_MONTHS: Final = {Interval.MONTH: 1, Interval.YEAR: 12}

INTERVAL_COUNT_MAX: Final = {
    Interval.DAY: 1095,
    Interval.WEEK: 156,
    Interval.MONTH: 36,
    Interval.YEAR: 3,
}
"""The longest cycle of each unit (Stripe's ``interval_count``; days by analogy)."""


def _as_anchor(value: Instant) -> datetime:
    return _floor(value, "anchor")


def _as_interval(value: str) -> Interval:
    return choice(Interval, value, "interval")


def _as_timezone(value: str) -> str:
    return (
        text_of(value) or value
    )  # What is no name is refused once the length is known to be right.


def _as_interval_count(value: int) -> int:
    return exact_integer(value, "interval_count", minimum=1)


@attrs.frozen
class BillingCycle(Storable):
    """An endless run of billing periods in both directions, fixed by an anchor and an interval.

    Boundary ``k`` is ``anchor + k * interval_count * interval`` on the wall clock of ``timezone``,
    clamped to the last day of the month. A wall-clock time that daylight saving skips means the
    later moment, as far after the gap as it lies in it; one that occurs twice means the first.
    Boundary 0 is the anchor itself.

    A zone that once skipped a whole day leaves an empty period in a daily cycle; it is never
    returned, and its neighbours meet.

    Attributes:
        anchor: a boundary, as an aware datetime or Unix seconds; floored to the second, kept in
            UTC.
        interval: ``"day"``, ``"week"``, ``"month"`` or ``"year"``.
        interval_count: at least 1, at most 3 years, 36 months, 156 weeks or 1095 days.
        timezone: an IANA name; ``"UTC"``, Stripe's own rule, needs no time zone data.

    >>> cycle = BillingCycle(datetime(2024, 1, 31, tzinfo=UTC), "month")
    >>> [f"{cycle.boundary(k):%b %d}" for k in range(4)]
    ['Jan 31', 'Feb 29', 'Mar 31', 'Apr 30']

    Raises:
        InvalidValueError: ``parameter_invalid_integer``, ``parameter_invalid_string``,
            ``parameter_invalid_choice``, ``parameter_invalid_instant``, ``interval_out_of_range``
            or ``timezone_unknown``.
    """

    anchor: datetime = attrs.field(converter=_as_anchor)
    interval: Interval = attrs.field(converter=_as_interval)
    interval_count: int = attrs.field(default=1, converter=_as_interval_count)
    timezone: str = attrs.field(default="UTC", converter=_as_timezone)
    _zone: tzinfo = attrs.field(init=False, eq=False, repr=False)
    _wall_anchor: datetime = attrs.field(init=False, eq=False, repr=False)
    _days: int = attrs.field(init=False, eq=False, repr=False)
    _months: int = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Check the length and the zone, and keep what every boundary needs."""
        maximum = INTERVAL_COUNT_MAX[self.interval]
        if self.interval_count > maximum:
            expected = f"at most {maximum} for the interval {self.interval.value!r}"
            raise InvalidValueError.expecting(
                ErrorCode.INTERVAL_OUT_OF_RANGE, "interval_count", expected, self.interval_count
            )
        keep = object.__setattr__
        keep(self, "_zone", zone_named(self.timezone))
        keep(self, "_wall_anchor", self._wall_clock(self.anchor, "anchor"))
        keep(self, "_days", self.interval_count * _DAYS.get(self.interval, 0))
        keep(self, "_months", self.interval_count * _MONTHS.get(self.interval, 0))

    def __str__(self) -> str:
        """Return the cycle in words, as complaints have it."""
        unit = (
            self.interval.value
            if self.interval_count == 1
            else f"{self.interval_count} {self.interval.value}s"
        )
        return f"every {unit} from {iso_8601(self.anchor)} on the clock of {self.timezone}"

    def boundary(self, k: int) -> datetime:
        """Return the start of period ``k``, which is the end of period ``k - 1``; ``k`` may be
        negative.

        Raises:
            InvalidValueError: ``parameter_invalid_instant`` outside the years 1 to 9999,
                ``parameter_invalid_integer``.
        """
        return self._boundary(exact_integer(k, "k", minimum=None))

    def period(self, k: int) -> BillingPeriod:
        """Return period ``k``; period 0 starts at the anchor.

        Raises:
            InvalidValueError: as :meth:`boundary`, and ``parameter_invalid_object`` for the empty
                period of a day that the zone skipped. :meth:`period_at` and :meth:`periods_from`
                never meet it.
        """
        start, end = self.boundary(k), self._boundary(k + 1)
        if start == end:
            expected = (
                f"a period that holds time: the one from {rfc3339(start)} is a day that "
                f"{self.timezone} skipped"
            )
            raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "k", expected, k)
        return BillingPeriod(start, end)

    def index_at(self, moment: Instant) -> int:
        """Return the ``k`` of the period that holds a moment, at the same cost at any distance from
        the anchor.

        Raises:
            InvalidValueError: ``parameter_invalid_instant``, also when a bound of the period is not
                in the years 1 to 9999.
        """
        return self._locate(instant(moment, "instant"))[0]

    def period_at(self, moment: Instant) -> BillingPeriod:
        """Return the period that holds a moment, at the same cost at any distance from the anchor.

        The period before a period is ``cycle.period_at(period.start_seconds - 1)``.

        Raises:
            InvalidValueError: as :meth:`index_at`.
        """
        _, start, end = self._locate(instant(moment, "instant"))
        return BillingPeriod(start, end)

    def periods_from(self, moment: Instant) -> Iterator[BillingPeriod]:
        """Yield the period that holds a moment and every later one, without end.

        Raises:
            InvalidValueError: as :meth:`index_at`, at once; while iterating, when the year 9999 is
                over.
        """
        return self._periods_from_index(self.index_at(moment))

    def _periods_from_index(self, k: int) -> Iterator[BillingPeriod]:
        start = self._boundary(k)
        while True:
            k += 1
            end = self._boundary(k)
            if start < end:  # Not so for a day that the zone skipped.
                yield BillingPeriod(start, end)
            start = end

    def _locate(self, moment: datetime) -> tuple[int, datetime, datetime]:
        """Find the last boundary at or before ``moment``: an estimate, then a step or two."""
        k = self._estimated_index(moment)
        start = self._boundary(k)
        while (
            start > moment
        ):  # The day or the time of day is still to come in this month, or its clock skipped.
            k -= 1
            start = self._boundary(k)
        end = self._boundary(k + 1)
        while end <= moment:  # The wall clock was put back over the boundary.
            k += 1
            start, end = end, self._boundary(k + 1)
        return k, start, end

    def _estimated_index(self, moment: datetime) -> int:
        wall, anchor = self._wall_clock(moment, "instant"), self._wall_anchor
        if self._months:
            return ((wall.year - anchor.year) * 12 + wall.month - anchor.month) // self._months
        return (wall - anchor).days // self._days

    def _boundary(self, k: int) -> datetime:
        if (
            k == 0
        ):  # Itself, also where its wall-clock time occurs twice and the anchor is the second.
            return self.anchor
        try:
            if self._months:
                wall = _months_after(self._wall_anchor, k * self._months)
            else:
                wall = self._wall_anchor + timedelta(days=k * self._days)
            # A sum has fold=0, which is our rule: PEP 495 reads a gap with the offset before it, a
            # fold as the first.
            return wall.replace(tzinfo=self._zone).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_INSTANT,
                "boundary",
                "a boundary within the years 1 to 9999",
                k,
            ) from None

    def _wall_clock(self, moment: datetime, param: str) -> datetime:
        try:
            return moment.astimezone(self._zone).replace(tzinfo=None)
        except OverflowError:
            raise _not_an_instant(moment, param) from None


@lru_cache(
    maxsize=4096
)  # The same few boundaries are asked for again and again, and relativedelta takes its time.
def _months_after(wall: datetime, months: int) -> datetime:
    return wall + relativedelta(months=months)


def zone_named(name: object) -> tzinfo:
    """Return the zone of an IANA name; refusals as :class:`BillingCycle`."""
    text = text_of(name)
    if text is None:
        expected = "an IANA time zone name"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, "timezone", expected, name
        )
    if text == "UTC":
        return UTC
    try:
        if (
            text == "localtime"
        ):  # Debian's zoneinfo has a link of this name to whatever the machine's zone is.
            raise zoneinfo.ZoneInfoNotFoundError(text)
        return zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        expected = "an IANA time zone name, such as 'Europe/Berlin'"
        if not zoneinfo.available_timezones():
            expected += " (this machine has no time zone data: pip install tzdata)"
        raise InvalidValueError.expecting(
            ErrorCode.TIMEZONE_UNKNOWN, "timezone", expected, name
        ) from None
