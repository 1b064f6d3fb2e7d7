"""Options that several commands share, and how their text is read.

Text is taken as it is written or refused: no fraction is cut off, no notation guessed, and a moment
is held to the years in which files may name one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter, Token

from metering_core import AcceptancePolicy, ErrorCode, InvalidValueError, MeterPolicy
from metering_core.cli.complaints import slip
from metering_core.errors import describe
from metering_core.feeds.instants import ANY_TIME, PlausibleTime
from metering_core.meter_acceptance import IdentifierScope, Overlap
from metering_core.periods import instant

_DURATION: Final = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WHOLE: Final = re.compile(r"-?[0-9]{1,200}")


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
    """Return the integer of an option, which is written in digits.

    Raises:
        InvalidValueError: ``parameter_invalid_integer``, with the option as param.
    """
    (token,) = tokens
    if _WHOLE.fullmatch(token.value) is None:
        reason = f"expected an integer, received {describe(token.value)}"
        raise slip(token.keyword or "integer", reason, ErrorCode.PARAMETER_INVALID_INTEGER)
    return int(token.value)


def instant_option(text: str, option: str, time: PlausibleTime) -> datetime:
    """Return the moment of an option: digits are Unix seconds; one that looks like something else
    is refused as in files.

    Raises:
        InvalidValueError: ``parameter_invalid_instant``.
    """
    return instant(time.moment(int(text) if _WHOLE.fullmatch(text) else text, option), option)


def time_of_today() -> PlausibleTime:
    """Return the moments that usage of today may name: the one place that reads the clock."""
    return PlausibleTime.until(datetime.now(UTC))


def _flag(name: str | None = None) -> Parameter:
    return Parameter(name=name, negative="", show_default=False)


AnyTime = Annotated[bool, _flag()]
AsJson = Annotated[bool, _flag("--json")]
Explained = Annotated[bool, _flag("--explain")]
Dashed = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Text that may be ``-``, or a number before 1970."""
DashedOrNone = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
RejectsFile = Annotated[Path | None, Parameter(name="--rejects")]
WholeNumber = Annotated[int, Parameter(converter=whole_number)]


@attrs.frozen
class EventPolicies:
    """What is accepted of meter events: the options that two commands share.

    Attributes:
        future_tolerance: How far after its receipt usage may happen, such as 300s or 5m; none for
            usage records and 5m for meter events unless given.
        backdate_days: How many days before its receipt a meter event may have happened; 35 unless
            given.
        identifier_scope: Whether an identifier is unique among the meter events of one name or
            among all of them.
        overlap: Whether two subscriptions of one customer may bill one meter at the same time, so
            that each counts every event; refused unless given.
        any_time: Take instants before the year 2000 and more than ten years ahead, which usually
            are something else.
    """

    future_tolerance: str | None = None
    backdate_days: WholeNumber | None = None
    identifier_scope: IdentifierScope | None = None
    overlap: Overlap | None = None
    any_time: AnyTime = False

    def time(self) -> PlausibleTime:
        """Return the moments that files may name."""
        return ANY_TIME if self.any_time else time_of_today()

    def about_events(self) -> dict[str, object]:
        """Return the options that go with meter events only."""
        return {
            "--backdate-days": self.backdate_days,
            "--identifier-scope": self.identifier_scope,
            "--overlap": self.overlap,
        }

    def of_events(self) -> MeterPolicy:
        """Return what is accepted of meter events."""
        given: dict[str, Any] = {
            "backdate_days": self.backdate_days,
            "identifier_scope": self.identifier_scope,
            "overlap": self.overlap,
            "future_tolerance": _span(self.future_tolerance, "--future-tolerance"),
        }
        return MeterPolicy(**{key: value for key, value in given.items() if value is not None})


@attrs.frozen
class Policies(EventPolicies):
    """What is accepted of all usage.

    Attributes:
        late_grace: For how long after the end of a period its usage records are accepted, such as
            2h or 1d; not at all unless given. Of meter events --backdate-days says it.
    """

    late_grace: str | None = None

    def of_usage(self) -> AcceptancePolicy:
        """Return what is accepted of usage records."""
        tolerance = _span(self.future_tolerance, "--future-tolerance")
        grace = _span(self.late_grace, "--late-grace")
        return AcceptancePolicy(
            future_tolerance=tolerance or timedelta(0), late_grace=grace or timedelta(0)
        )


def _span(text: str | None, option: str) -> timedelta | None:
    return None if text is None else timedelta(seconds=duration(text, option))


PolicyOptions = Annotated[Policies, Parameter(name="*")]
EventPolicyOptions = Annotated[EventPolicies, Parameter(name="*")]
POLICIES_UNLESS_GIVEN: Final = Policies()
EVENT_POLICIES_UNLESS_GIVEN: Final = EventPolicies()
