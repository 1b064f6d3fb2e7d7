"""Meter events and their adjustments, as Stripe's API takes and returns them.

A meter event is a record whose item is (meter, customer). Its payload is a map of strings to
strings: which key holds the customer and which the value is the meter's to say, so whether an event
is right is judged where the meters are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, Self

import attrs

from metering_core.codec import row_of
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.meters import EVENT_NAME_MAX, short_name
from metering_core.names import known_keys, required, text_of
from metering_core.periods import (
    MICROSECONDS,
    SECONDS_MAX,
    Instant,
    from_unix_seconds,
    moment,
    parse_instant,
)

_EPOCH: Final = from_unix_seconds(0)


@attrs.frozen(init=False)
class MeterEvent:
    """Something a customer used, in the shape of Stripe's meter event.

    Attributes:
        event_name: 1 to 100 characters; says which meter measures it.
        payload: strings by string; holds the customer and the value under the keys that the meter
            names. Read-only.
        identifier: 1 to 100 characters, unique within the event name; the event can be sent again
            and canceled by it. None for an event that may be repeated and cannot be canceled.
        microseconds: when it happened, in Unix microseconds; None for the moment at which it is
            received. Given as ``timestamp``: an aware datetime, Unix seconds or ``"now"``.

    >>> payload = {"stripe_customer_id": "cus_1", "value": "25"}
    >>> event = MeterEvent("tokens", payload, identifier="a", timestamp=1717243200)
    >>> event.timestamp
    1717243200
    >>> MeterEvent.from_dict(event.to_dict()) == event
    True

    Raises:
        InvalidValueError: ``param`` names the field.
    """

    event_name: str
    payload: Mapping[str, str] = attrs.field(hash=False)
    identifier: str | None
    microseconds: int | None

    def __init__(
        self,
        event_name: str,
        payload: Mapping[str, str],
        *,
        identifier: str | None = None,
        timestamp: Instant | str = "now",
    ) -> None:
        filled(self, event_name, payload, identifier, timestamp)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by content; a read-only map cannot be pickled as it is."""
        timestamp = "now" if self.instant is None else self.instant
        return _rebuild, (self.event_name, dict(self.payload), self.identifier, timestamp)

    @property
    def timestamp(self) -> int | Literal["now"]:
        """When it happened, in Unix seconds (floored), or ``"now"``."""
        return "now" if self.microseconds is None else self.microseconds // MICROSECONDS

    @property
    def instant(self) -> datetime | None:
        """When it happened, in UTC; None while it is ``"now"``."""
        return (
            None
            if self.microseconds is None
            else _EPOCH + timedelta(microseconds=self.microseconds)
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read Stripe's meter event, of either API: ``timestamp`` is Unix seconds, or ISO 8601 with
        an offset, or absent.

        ``created``, ``livemode`` and ``object`` are read past.
        """
        known_keys(data, _EVENT_KEYS)
        given = data.get("timestamp")
        timestamp = (
            parse_instant(given, "timestamp")
            if isinstance(given, str) and text_of(given) != "now"
            else given
        )
        return cls(
            required(data, "event_name"),
            required(data, "payload"),
            identifier=data.get("identifier"),
            timestamp="now" if timestamp is None else timestamp,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's meter event for JSON; its timestamp in Unix seconds, or ISO 8601."""
        at = self.instant
        timestamp = (
            self.timestamp
            if at is None or not at.microsecond
            else at.isoformat().replace("+00:00", "Z")
        )
        return {
            "object": "billing.meter_event",
            "event_name": self.event_name,
            "identifier": self.identifier,
            "payload": dict(self.payload),
            "timestamp": timestamp,
        }


# The slots themselves: what a frozen value is filled through, once.
_set_event_name, _set_payload, _set_identifier, _set_microseconds = (
    getattr(MeterEvent, field.name).__set__ for field in attrs.fields(MeterEvent)
)


def filled(
    event: MeterEvent,
    event_name: str,
    payload: Mapping[str, str],
    identifier: str | None,
    timestamp: Instant | str,
) -> MeterEvent:
    """Fill a new event and return it.

    Written by hand, and apart from the constructor, because one is built per event: what is plainly
    right is not looked at twice, and a constructor that is called with keywords takes a quarter
    longer.
    """
    if type(event_name) is not str or not 0 < len(event_name) <= EVENT_NAME_MAX:
        event_name = short_name(event_name, "event_name")
    if identifier is not None and (
        type(identifier) is not str or not 0 < len(identifier) <= EVENT_NAME_MAX
    ):
        identifier = short_name(identifier, "identifier")
    # A dict is asked for first because asking an abstract class costs as much as all the rest.
    copied = payload.copy() if type(payload) is dict else _copied(payload)
    for key in copied:
        if type(key) is not str or type(copied[key]) is not str:
            copied = dict([_entry(*entry) for entry in copied.items()])
            break
    _set_event_name(event, event_name)
    _set_payload(event, MappingProxyType(copied))
    _set_identifier(event, identifier)
    if type(timestamp) is int and 0 <= timestamp <= SECONDS_MAX:
        _set_microseconds(event, timestamp * MICROSECONDS)
    else:
        now = text_of(timestamp) == "now"
        read = None if now else moment(timestamp, "timestamp")[1]  # type: ignore[arg-type]
        _set_microseconds(event, read)
    return event


_EVENT_KEYS: Final = frozenset(
    {"object", "created", "event_name", "identifier", "livemode", "payload", "timestamp"}
)


def _rebuild(
    event_name: str, payload: dict[str, str], identifier: str | None, timestamp: Instant | str
) -> MeterEvent:
    return MeterEvent(event_name, payload, identifier=identifier, timestamp=timestamp)


def _copied(payload: object) -> dict[Any, Any]:
    """Copy a map, or refuse what is none."""
    if not isinstance(payload, Mapping):
        expected = "a map of strings to strings"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "payload", expected, payload
        )
    return dict(payload)


def _entry(key: object, value: object) -> tuple[str, str]:
    """Return an entry as plain strings (subclasses of str are taken), or refuse it."""
    name, text = text_of(key), text_of(value)
    if name is None:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, "payload", "keys that are strings", key
        )
    if text is None:
        expected = "a string, as Stripe sends it (a number is written '25')"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, f"payload[{name}]", expected, value
        )
    return name, text


@attrs.frozen
class MeterEventAdjustment:
    """The cancellation of one meter event, in the shape of Stripe's meter event adjustment; it is
    complete at once.

    Attributes:
        event_name: of the canceled event.
        identifier: of the canceled event.
        sequence: the number that the log gave to the cancellation.
        canceled_at: when the log received it first, UTC.
    """

    event_name: str
    identifier: str
    sequence: int
    canceled_at: datetime

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote."""
        known_keys(data, _ADJUSTMENT_KEYS)
        asked = {key: data.get(key) for key in ("cancel", "event_name", "type")}
        own = {key: row.read(required(data, key), key, None) for key, row in _OWN.items()}
        return cls(*cancellation(asked), **own)

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's meter event adjustment, ready for JSON; ``sequence`` and ``canceled_at``
        are ours.
        """
        return {
            "object": "billing.meter_event_adjustment",
            "cancel": {"identifier": self.identifier},
            "event_name": self.event_name,
            "status": "complete",
            "type": "cancel",
            **{key: row.write(getattr(self, key), None) for key, row in _OWN.items()},
        }


_OWN: Final = {"sequence": row_of(int), "canceled_at": row_of(datetime)}
"""What an adjustment says beside Stripe's."""
_ADJUSTMENT_KEYS: Final = frozenset({"object", "cancel", "event_name", "status", "type", *_OWN})


def cancellation(data: Mapping[str, Any]) -> tuple[str, str]:
    """Read Stripe's parameters of a meter event adjustment: the event name and the identifier to
    cancel.

    >>> cancellation({"type": "cancel", "event_name": "tokens", "cancel": {"identifier": "a"}})
    ('tokens', 'a')

    Raises:
        InvalidValueError: ``param`` names the field; ``type`` must be ``cancel``.
    """
    known_keys(data, {"cancel", "event_name", "type"})
    if text_of(required(data, "type")) != "cancel":
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, "type", "'cancel'", data["type"]
        )
    cancel = known_keys(required(data, "cancel"), {"identifier"}, "cancel")
    identifier = short_name(required(cancel, "identifier", "cancel"), "cancel[identifier]")
    return short_name(required(data, "event_name"), "event_name"), identifier
