"""Meters: what of a customer's events is measured, and by which formula it becomes one number.

A meter is a value in the shape of Stripe's Billing Meter. Everything but its display name and its
status is fixed once it is made, so what it measured can be measured again; a new formula needs a
new meter (Stripe, "Create and configure a meter").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self, cast

import attrs

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import DIGITS_MAX, exact_integer
from metering_core.names import (
    choice,
    flag,
    name,
    require_iterable,
    require_kind,
    required,
    text_of,
)
from metering_core.periods import Instant, from_unix_seconds, instant, unix_seconds
from metering_core.stripe_fields import Read, judged

__all__ = ["EventTimeWindow", "Formula", "Meter", "MeterStatus"]

EVENT_NAME_MAX: Final = 100
"""Characters of an event name, an identifier and a meter's payload keys (Stripe's limit)."""

DISPLAY_NAME_MAX: Final = 250
"""Characters of a display name (Stripe's limit)."""


class Formula(StrEnum):
    """How the events of a meter become one value (Stripe's ``default_aggregation.formula``, and
    seven that people miss).

    Stripe has ``sum``, ``count`` and ``last``. :data:`~metering_core.measures.FORMULAS` says of
    each whether it is additive: whether the values of the parts of a split of time add up to the
    value of the whole.
    """

    SUM = "sum"
    COUNT = "count"
    LAST = "last"
    MAX = "max"
    MIN = "min"
    UNIQUE_COUNT = "unique_count"
    AVERAGE = "average"
    WEIGHTED_SUM = "weighted_sum"
    HOURLY_PEAKS = "hourly_peaks"
    DAILY_PEAKS = "daily_peaks"


class EventTimeWindow(StrEnum):
    """In each UTC hour or day only the event received last counts (a pre-aggregated meter)."""

    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """The length of the window."""
        return 3600 if self is EventTimeWindow.HOUR else 86_400


class MeterStatus(StrEnum):
    """Whether a meter takes events."""

    ACTIVE = "active"
    INACTIVE = "inactive"


def short_name(value: object, param: str, maximum: int = EVENT_NAME_MAX) -> str:
    """Return a string of 1 to ``maximum`` characters (100), or refuse what is none."""
    return name(value, param, maximum)


def _id(value: object) -> str:
    return name(value, "id")


def _event_name(value: object) -> str:
    return short_name(value, "event_name")


def _formula(value: object) -> Formula:
    return choice(Formula, value, "default_aggregation[formula]")


def _display_name(value: object) -> str | None:
    return None if value is None else short_name(value, "display_name", DISPLAY_NAME_MAX)


def _customer_key(value: object) -> str:
    return short_name(value, "customer_mapping[event_payload_key]")


def _value_key(value: object) -> str:
    return short_name(value, "value_settings[event_payload_key]")


def _window(value: object) -> EventTimeWindow | None:
    return None if value is None else choice(EventTimeWindow, value, "event_time_window")


def _dimension_keys(values: object) -> tuple[str, ...]:
    if isinstance(values, str):
        expected = "a list of payload keys"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "dimension_payload_keys", expected, values
        )
    given: Iterable[object] = require_iterable(cast("Any", values), "dimension_payload_keys")
    keys = tuple(short_name(key, f"dimension_payload_keys[{at}]") for at, key in enumerate(given))
    if len(set(keys)) < len(keys):
        expected = "each key once"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "dimension_payload_keys", expected, list(keys)
        )
    return keys


def _decimal_places(value: object) -> int | None:
    return None if value is None else exact_integer(value, "decimal_places", maximum=DIGITS_MAX)


def _carry_forward(value: bool) -> bool:  # noqa: FBT001 - it is the value that is checked
    return flag(value, "carry_forward")


def _status(value: object) -> MeterStatus:
    return choice(MeterStatus, value, "status")


def _deactivated_at(value: object) -> datetime | None:
    return (
        None
        if value is None
        else from_unix_seconds(unix_seconds(instant(value, "status_transitions[deactivated_at]")))
    )


@attrs.frozen
class Meter:
    """What is measured of the events with one name.

    Attributes:
        id: 1 to 255 characters; a price names it in ``recurring.meter``.
        event_name: 1 to 100 characters; the events that the meter takes. It belongs to this meter
            alone.
        formula: how events become one value; ``sum`` unless given.
        display_name: 1 to 250 characters, for people; the event name unless given.
        customer_payload_key: the payload key that holds the customer's id.
        value_payload_key: the payload key that holds the value.
        event_time_window: ``hour`` or ``day``: of the events of one customer (and one set of
            dimension values) in a UTC hour or day only the one received last counts. None: every
            event counts.
        dimension_payload_keys: payload keys that every event must have, by which usage can be
            filtered and grouped.
        decimal_places: values may have at most so many (0: whole numbers); None for any number up
            to 100.
        carry_forward: for ``last`` only: where a window has no event, the latest one before it
            counts, as ``last_ever`` did.
        status: an inactive meter takes no events and no new prices; what it measured stays.
        deactivated_at: when it was last deactivated, UTC; None where it is active.
        ignored: the paths of fields of a Stripe object that :meth:`from_dict` did not know and read
            past.

    >>> tokens = Meter("mtr_tokens", "tokens", dimension_payload_keys=["model"])
    >>> Meter.from_dict(tokens.to_dict()) == tokens
    True

    Raises:
        InvalidValueError: ``param`` names the field.
    """

    id: str = attrs.field(converter=_id)
    event_name: str = attrs.field(converter=_event_name)
    formula: Formula = attrs.field(default=Formula.SUM, converter=_formula)
    display_name: str | None = attrs.field(default=None, converter=_display_name, kw_only=True)
    customer_payload_key: str = attrs.field(
        default="stripe_customer_id", converter=_customer_key, kw_only=True
    )
    value_payload_key: str = attrs.field(default="value", converter=_value_key, kw_only=True)
    event_time_window: EventTimeWindow | None = attrs.field(
        default=None, converter=_window, kw_only=True
    )
    dimension_payload_keys: tuple[str, ...] = attrs.field(
        default=(), converter=_dimension_keys, kw_only=True
    )
    decimal_places: int | None = attrs.field(default=None, converter=_decimal_places, kw_only=True)
    carry_forward: bool = attrs.field(default=False, converter=_carry_forward, kw_only=True)
    status: MeterStatus = attrs.field(default=MeterStatus.ACTIVE, converter=_status, kw_only=True)
    deactivated_at: datetime | None = attrs.field(
        default=None, converter=_deactivated_at, kw_only=True
    )
    ignored: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check what one field says against another."""
        if self.carry_forward and self.formula is not Formula.LAST:
            message = (
                "carry_forward: expected it with the formula 'last' only, received it with "
                f"{self.formula.value!r}"
            )
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="carry_forward")
        if (self.deactivated_at is None) is not self.is_active:
            expected = "a moment where the meter is inactive, and none where it is active"
            param = "status_transitions[deactivated_at]"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, self.deactivated_at
            )
        self._refuse_shared_key()

    def _refuse_shared_key(self) -> None:
        shared = {self.customer_payload_key, self.value_payload_key} & set(
            self.dimension_payload_keys
        )
        if shared or self.customer_payload_key == self.value_payload_key:
            expected = "different keys for the customer, the value and each dimension"
            received = sorted(shared) or self.customer_payload_key
            param = "dimension_payload_keys" if shared else "value_settings[event_payload_key]"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETERS_EXCLUSIVE, param, expected, received
            )

    @property
    def is_active(self) -> bool:
        """Whether the meter takes events."""
        return self.status is MeterStatus.ACTIVE

    @property
    def title(self) -> str:
        """What people call the meter."""
        return self.display_name or self.event_name

    def deactivate(self, at: Instant) -> Self:
        """Return the meter as it takes no more events; an inactive one is itself."""
        return (
            attrs.evolve(self, status=MeterStatus.INACTIVE, deactivated_at=at)
            if self.is_active
            else self
        )

    def reactivate(self) -> Self:
        """Return the meter as it is once it takes events again."""
        return attrs.evolve(self, status=MeterStatus.ACTIVE, deactivated_at=None)

    def require_successor(self, newer: Meter) -> None:
        """Refuse a newer version of this meter that changes what is fixed.

        Raises:
            InvalidValueError: ``meter_changed``; ``param`` names the field.
        """
        require_kind(Meter, newer, "newer")
        for field in attrs.fields(Meter):
            mine, theirs = getattr(self, field.name), getattr(newer, field.name)
            if field.name not in _CHANGEABLE and mine != theirs:
                expected = f"{mine!r}, which is fixed once the meter {self.id!r} was made"
                raise InvalidValueError.expecting(
                    ErrorCode.METER_CHANGED, field.name, expected, theirs
                )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read Stripe's Meter shape; without an ``id`` the event name serves.

        ``decimal_places`` and ``carry_forward`` are ours; ``created``, ``livemode`` and ``updated``
        are read past, and so is what a newer version of Stripe's API adds, which ``ignored`` names.
        Without ``"object"`` an unknown key is refused.
        """
        read = judged(data, "billing.meter")
        event_name = required(data, "event_name")
        parts = {key: _part(data, key, read) for key in _PARTS}
        aggregation, mapping, values, transitions = parts.values()
        if mapping.get("type") is not None and text_of(mapping["type"]) != "by_id":
            code = ErrorCode.PARAMETER_INVALID_CHOICE
            raise InvalidValueError.expecting(
                code, "customer_mapping[type]", "'by_id'", mapping["type"]
            )
        given = {
            "display_name": data.get("display_name"),
            "customer_payload_key": mapping.get("event_payload_key"),
            "value_payload_key": values.get("event_payload_key"),
            "event_time_window": data.get("event_time_window"),
            "dimension_payload_keys": data.get("dimension_payload_keys"),
            "decimal_places": data.get("decimal_places"),
            "carry_forward": data.get("carry_forward"),
            "status": data.get("status"),
            "deactivated_at": transitions.get("deactivated_at"),
        }
        options = {key: value for key, value in given.items() if value is not None}
        own_id = event_name if data.get("id") is None else data["id"]
        return cls(
            own_id,
            event_name,
            aggregation.get("formula", Formula.SUM),
            **options,
            ignored=read.ignored,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's Meter shape, ready for JSON."""
        deactivated_at = None if self.deactivated_at is None else unix_seconds(self.deactivated_at)
        return {
            "id": self.id,
            "object": "billing.meter",
            "carry_forward": self.carry_forward,
            "customer_mapping": {"event_payload_key": self.customer_payload_key, "type": "by_id"},
            "decimal_places": self.decimal_places,
            "default_aggregation": {"formula": self.formula.value},
            "dimension_payload_keys": list(self.dimension_payload_keys),
            "display_name": self.display_name,
            "event_name": self.event_name,
            "event_time_window": None
            if self.event_time_window is None
            else self.event_time_window.value,
            "status": self.status.value,
            "status_transitions": {"deactivated_at": deactivated_at},
            "value_settings": {"event_payload_key": self.value_payload_key},
        }


_CHANGEABLE: Final = frozenset({"display_name", "status", "deactivated_at", "ignored"})
_PARTS: Final = ("default_aggregation", "customer_mapping", "value_settings", "status_transitions")


def _part(data: Mapping[str, Any], key: str, read: Read) -> Mapping[str, Any]:
    """Return a nested object, empty where it is absent or null."""
    return (
        {}
        if data.get(key) is None
        else judged(data[key], key, key, is_stripes=read.is_stripes).data
    )
