"""The door of the meter log: which events and cancellations are accepted, and the policy that says
so.

One event has one refusal: the checks run in the order of :class:`~metering_core.ErrorCode`, those
of time last. Whether an event was accepted before is judged before anything that time or a meter's
status can change, so that a retry hears ``duplicate`` for ever.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Self

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, UsageRejectedError, describe
from metering_core.exact import DIGITS_MAX, Number, exact_integer
from metering_core.measures import FORMULAS
from metering_core.meters import Meter
from metering_core.names import NAME_MAX, choice, flag
from metering_core.periods import MICROSECONDS, duration, from_unix_seconds

__all__ = ["IdentifierScope", "LateUsage", "MeterPolicy", "Overlap"]

_DAY: Final = 86_400


class IdentifierScope(StrEnum):
    """Within what an identifier is unique: the events of one name, or all events of the log."""

    EVENT_NAME = "event_name"
    GLOBAL = "global"


class LateUsage(StrEnum):
    """Whether a change to a billed period stays unbilled, or the next invoice carries it."""

    IGNORE = "ignore"
    CARRY_FORWARD = "carry_forward"


class Overlap(StrEnum):
    """Whether two subscriptions of a customer may bill one meter, so that each counts all."""

    REFUSE = "refuse"
    EACH_COUNTS_ALL = "each_counts_all"


def _at_least(minimum: int, value: int | None, param: str) -> int | None:
    return None if value is None else exact_integer(value, param, minimum=minimum)


def _lasting(minimum: timedelta, value: timedelta | None, param: str) -> timedelta | None:
    given = duration(value)
    if value is not None and (given is None or given < minimum):
        expected = f"a timedelta of at least {minimum}, or None"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, value
        )
    return given


def _scope(value: str) -> IdentifierScope:
    return choice(IdentifierScope, value, "identifier_scope")


def _late_usage(value: str) -> LateUsage:
    return choice(LateUsage, value, "late_usage")


def _overlap(value: object) -> Overlap:
    return choice(Overlap, value, "overlap")


@attrs.frozen(kw_only=True)
class MeterPolicy(Storable):
    """What a meter log accepts; where Stripe's rule is known and harmless, it is the default.

    Attributes:
        backdate_days: how many UTC calendar days back from now's an event may lie (inclusive); None
            for any. 35, as at Stripe.
        future_tolerance: how far ahead of now an event may lie (inclusive); None for any. 5
            minutes, as at Stripe.
        identifier_scope: within what an identifier is unique.
        identifier_retention: for how long after its receipt an identifier is remembered
            (inclusive), at least 24 hours; None for ever. Stripe says "at least 24 hours".
        significant_digits: how many a value may have at most; None for up to 100 on each side of
            the point.
        whole_values: whether values must be whole numbers.
        positive_values: whether values must be above 0.
        dimensions_max: how many payload keys beside the customer and the value; None for any
            number.
        cancel_window: for how long after its receipt an event can be canceled (inclusive); None for
            ever. 24 hours, as at Stripe.
        batch_max: how many events :meth:`MeterEventStream.send` takes at once; None for any number.
            100, as at Stripe.
        aligned_summaries: whether the bounds of a summary must be whole minutes, and whole hours or
            UTC days where it is grouped by them (Stripe's rule); otherwise any second.
        late_usage: what becomes of a change to a period that was billed.
        overlap: whether two subscriptions of one customer may bill one meter at the same time, so
            that each counts every event.
    """

    backdate_days: int | None = 35
    future_tolerance: timedelta | None = timedelta(minutes=5)
    identifier_scope: IdentifierScope = attrs.field(
        default=IdentifierScope.EVENT_NAME, converter=_scope
    )
    identifier_retention: timedelta | None = None
    significant_digits: int | None = None
    whole_values: bool = False
    positive_values: bool = False
    dimensions_max: int | None = None
    cancel_window: timedelta | None = timedelta(hours=24)
    batch_max: int | None = 100
    aligned_summaries: bool = False
    late_usage: LateUsage = attrs.field(default=LateUsage.IGNORE, converter=_late_usage)
    overlap: Overlap = attrs.field(default=Overlap.REFUSE, converter=_overlap)

    def __attrs_post_init__(self) -> None:
        """Keep bounds as plain numbers and spans, flags as bools, or refuse them."""
        keep = object.__setattr__
        for param, least in (
            ("backdate_days", 0),
            ("significant_digits", 1),
            ("dimensions_max", 0),
            ("batch_max", 1),
        ):
            keep(self, param, _at_least(least, getattr(self, param), param))
        for param, hours in (
            ("future_tolerance", 0),
            ("identifier_retention", 24),
            ("cancel_window", 0),
        ):
            keep(self, param, _lasting(timedelta(hours=hours), getattr(self, param), param))
        for param in ("whole_values", "positive_values", "aligned_summaries"):
            flag(getattr(self, param), param)

    @classmethod
    def stripe(cls, **changes: Any) -> Self:
        """Return what Stripe enforces beside the defaults: 15 digits, aligned summaries."""
        return cls(**{"significant_digits": 15, "aligned_summaries": True, **changes})

    @classmethod
    def history(cls, **changes: Any) -> Self:
        """Return a policy without bounds of time, to import events of long ago."""
        return cls(
            **{"backdate_days": None, "future_tolerance": None, "cancel_window": None, **changes}
        )

    def earliest(self, now: int) -> int | None:
        """Return the first second accepted at ``now`` (Unix seconds), a midnight; None for any."""
        return None if self.backdate_days is None else (now // _DAY - self.backdate_days) * _DAY

    def latest(self, now: int) -> int | None:
        """Return the last microsecond accepted at ``now`` (microseconds); None for any."""
        return (
            None
            if self.future_tolerance is None
            else now + self.future_tolerance // timedelta(microseconds=1)
        )


@attrs.frozen
class Reading:
    """What a meter reads off an accepted event.

    Attributes:
        customer: the customer's id.
        value: what the formula works on: a number, 1 for ``count``, the text itself for
            ``unique_count``.
        dimensions: the values of the meter's dimensions, in their order.
    """

    customer: str
    value: Number | str
    dimensions: tuple[str, ...]


def is_customer(customer: str, customers: Container[str] | None) -> bool:
    """Whether events can be of a customer: one of those known, or any possible id."""
    return 1 <= len(customer) <= NAME_MAX if customers is None else customer in customers


def read(
    meter: Meter, payload: Mapping[str, str], policy: MeterPolicy, customers: Container[str] | None
) -> Reading | Receipt:
    """Read an event's payload as its meter says, or refuse it."""
    customer = payload.get(meter.customer_payload_key)
    if not customer:
        return _customer_missing(meter)
    if not is_customer(customer, customers):
        expected = (
            f"the id of a customer, of at most {NAME_MAX} characters,"
            if customers is None
            else "a known customer"
        )
        message = (
            f"Expected {expected} in payload[{meter.customer_payload_key}], received "
            f"{describe(customer)}."
        )
        return rejected(
            ErrorCode.CUSTOMER_UNKNOWN,
            message,
            f"payload[{meter.customer_payload_key}]",
            customer=customer,
        )
    text = payload.get(meter.value_payload_key)
    value = value_of(meter, text, policy)
    if isinstance(value, Receipt):
        return value
    if not meter.dimension_payload_keys and policy.dimensions_max is None:
        return Reading(customer, value, ())
    return _dimensions_refusal(meter, payload, policy) or Reading(
        customer, value, tuple([payload[key] for key in meter.dimension_payload_keys])
    )


_SMALL: Final = re.compile(r"\d{1,15}", re.ASCII)
# A sign and a point beside the digits; bounded before it is parsed, as a hostile text must not cost
# more than its length.
_LENGTH_MAX: Final = 2 * DIGITS_MAX + 2
_READ_MAX: Final = 10 * DIGITS_MAX
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)

# Tuples of one: they are asked for each event, and find what is the same object without a hash.
_TEXTS: Final = tuple(formula for formula, row in FORMULAS.items() if row.takes == "text")
_COUNTS: Final = tuple(formula for formula, row in FORMULAS.items() if row.takes == "nothing")


def value_of(meter: Meter, text: str | None, policy: MeterPolicy) -> Number | str | Receipt:
    """Return what the formula works on, or why not; the payload is of a known customer."""
    formula, digits = meter.formula, policy.significant_digits
    if text is None:
        # Only a count can do without: the value is optional there, but garbage would hide a
        # mistake.
        return 1 if formula in _COUNTS else _value_missing(meter)
    if formula in _TEXTS:
        return text
    number: Number | Receipt
    if (
        _SMALL.fullmatch(text)
        and (digits is None or len(text) <= digits)
        and not policy.positive_values
    ):
        number = int(text)
    else:
        number = _checked_number(meter, text, policy)
    return 1 if formula in _COUNTS and not isinstance(number, Receipt) else number


def _checked_number(meter: Meter, text: str, policy: MeterPolicy) -> Number | Receipt:
    whole, _, places = text.lstrip("+-").partition(".")
    if not _NUMBER.fullmatch(text[:_READ_MAX]):
        return _value_invalid(meter, "a plain decimal number such as '25' or '-2.5'", text)
    if len(text) > _LENGTH_MAX or max(len(whole), len(places)) > DIGITS_MAX:
        return _value_invalid(
            meter, f"a number with at most {DIGITS_MAX} digits on either side of the point", text
        )
    places = places.rstrip("0")
    number = Decimal(text.rstrip("0")) if places else int(Decimal(text))
    allowed = 0 if policy.whole_values else meter.decimal_places
    if allowed is not None and len(places) > allowed:
        return _value_invalid(
            meter, f"at most {allowed} decimal places" if allowed else "a whole number", text
        )
    if policy.positive_values and number <= 0:
        return _value_invalid(meter, "a number above 0", text)
    digits = len((whole + places).strip("0"))
    if policy.significant_digits is not None and digits > policy.significant_digits:
        message = (
            f"Meter event values may have at most {policy.significant_digits} digits. Received "
            f"{text}."
        )
        param = f"payload[{meter.value_payload_key}]"
        details = {"max_digits": policy.significant_digits, "value": text}
        return rejected(ErrorCode.VALUE_TOO_MANY_DIGITS, message, param, **details)
    return number


def _customer_missing(meter: Meter) -> Receipt:
    message = (
        f"Customer mapping key {meter.customer_payload_key} not found in payload. Expected a "
        "customer's id, received none."
    )
    return rejected(ErrorCode.CUSTOMER_MISSING, message, f"payload[{meter.customer_payload_key}]")


def _value_missing(meter: Meter) -> Receipt:
    message = (
        f"Value key {meter.value_payload_key} not found in payload. Expected a value, received "
        "none."
    )
    return rejected(ErrorCode.VALUE_MISSING, message, f"payload[{meter.value_payload_key}]")


def _value_invalid(meter: Meter, expected: str, text: str) -> Receipt:
    param = f"payload[{meter.value_payload_key}]"
    message = f"{param}: expected {expected}, received {describe(text)}"
    return rejected(ErrorCode.VALUE_INVALID, message, param, value=text)


def _dimensions_refusal(
    meter: Meter, payload: Mapping[str, str], policy: MeterPolicy
) -> Receipt | None:
    missing = [key for key in meter.dimension_payload_keys if key not in payload]
    if missing:
        message = (
            f"Dimension key {missing[0]} not found in payload. Expected every key of "
            f"{list(meter.dimension_payload_keys)}."
        )
        return rejected(
            ErrorCode.DIMENSION_MISSING, message, f"payload[{missing[0]}]", missing=missing
        )
    extra = len(payload.keys() - {meter.customer_payload_key, meter.value_payload_key})
    if policy.dimensions_max is not None and extra > policy.dimensions_max:
        message = (
            f"payload: expected at most {policy.dimensions_max} keys beside customer and "
            f"value, received {extra}"
        )
        return rejected(
            ErrorCode.TOO_MANY_DIMENSIONS,
            message,
            "payload",
            expected=policy.dimensions_max,
            received=extra,
        )
    return None


def meter_unknown(event_name: str) -> Receipt:
    """Refuse an event that no meter measures."""
    message = (
        f"No meter was found matching event_name {describe(event_name)}. Expected the event "
        "name of a meter."
    )
    return rejected(ErrorCode.METER_UNKNOWN, message, "event_name", event_name=event_name)


def meter_inactive(meter: Meter) -> Receipt:
    """Refuse an event of a meter that was deactivated."""
    message = (
        f"The meter {meter.id!r} is inactive: expected an active meter, received an event "
        f"named {meter.event_name!r}."
    )
    return rejected(ErrorCode.METER_INACTIVE, message, "event_name", meter=meter.id)


def identifier_reused(
    identifier: str, first: Mapping[str, Any], received: Mapping[str, Any]
) -> Receipt:
    """Refuse an event whose identifier was accepted with other content."""
    message = (
        f"An event already exists with identifier {identifier}. Expected the same content "
        "as it was first sent with, "
        f"{dict(first)}, received {dict(received)}."
    )
    return rejected(
        ErrorCode.IDENTIFIER_REUSED, message, "identifier", first=first, received=received
    )


def time_refusal(stamp: int, now: int, policy: MeterPolicy) -> Receipt | None:
    """Refuse an event outside what is accepted now (both in microseconds), or return None."""
    earliest, latest = policy.earliest(now // MICROSECONDS), policy.latest(now)
    if earliest is not None and stamp < earliest * MICROSECONDS:
        expected = f"at or after {_shown(earliest)}, {policy.backdate_days} calendar days back"
        return _time_rejected(
            ErrorCode.TIMESTAMP_TOO_FAR_IN_PAST, "too far in the past", expected, stamp
        )
    if latest is not None and stamp > latest:
        expected = f"at or before {_shown(latest // MICROSECONDS)}"
        return _time_rejected(ErrorCode.TIMESTAMP_IN_FUTURE, "in the future", expected, stamp)
    return None


def _time_rejected(code: ErrorCode, reason: str, expected: str, stamp: int) -> Receipt:
    message = (
        f"The timestamp of the meter event is {reason}: expected one {expected}, received "
        f"{_shown(stamp // MICROSECONDS)}."
    )
    return rejected(code, message, "timestamp", expected=expected, received=stamp // MICROSECONDS)


def _shown(seconds: int) -> str:
    return f"{seconds} ({from_unix_seconds(seconds):%Y-%m-%dT%H:%M:%SZ})"


def rejected(code: ErrorCode, message: str, param: str, **details: object) -> Receipt:
    """Return the receipt of a refusal."""
    return Receipt(Outcome.REJECTED, code=code, message=message, param=param, details=details)


def event_not_found(
    event_name: str, identifier: str, meant: str | None = None
) -> UsageRejectedError:
    """Refuse to cancel an event that there is not; ``meant`` is how the events are named of the
    meter whose id was given for their name.
    """
    message = (
        f"Expected the identifier of an event named {event_name!r}, received "
        f"{identifier!r}, which there is not."
    )
    if meant is not None:
        message += f" The events of the meter {event_name!r} are named {meant!r}."
    return UsageRejectedError(
        ErrorCode.EVENT_NOT_FOUND,
        message,
        param="cancel[identifier]",
        details={"identifier": identifier},
    )


def late_cancellation(received: int, at: int, policy: MeterPolicy) -> UsageRejectedError | None:
    """Refuse to cancel an event at a moment that is too long after its receipt; both in Unix
    microseconds.
    """
    window = policy.cancel_window
    if window is None or at - received <= window // timedelta(microseconds=1):
        return None
    received_at, now = (
        from_unix_seconds(0) + timedelta(microseconds=one) for one in (received, at)
    )
    message = (
        f"The event can be canceled for {window} after it was received: expected a moment at or "
        f"before {received_at + window:%Y-%m-%dT%H:%M:%SZ}, received {now:%Y-%m-%dT%H:%M:%SZ}."
    )
    return rejected(
        ErrorCode.CANCEL_WINDOW_CLOSED, message, "cancel[identifier]", received_at=received_at
    ).error()
