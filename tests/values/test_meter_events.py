"""Meter events and cancellations: Stripe's shapes, what they may hold, and what they may not."""

from __future__ import annotations

import copy
import json
import pickle
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

import attrs
import pytest

from metering_core.errors import InvalidValueError
from metering_core.meter_events import MeterEvent, MeterEventAdjustment, cancellation

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
NAIVE = datetime(2024, 6, 1)  # noqa: DTZ001 - the point of it
SECONDS = 1_717_243_200  # NOON
PAYLOAD = {"stripe_customer_id": "cus_1", "value": "25"}


# What an event is ---------------------------------------------------------------------------------


def test_seconds_and_datetimes_are_the_same_moment():
    """Unix seconds, a UTC datetime and one in another zone make equal events."""
    abroad = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    first, *others = (MeterEvent("tokens", PAYLOAD, timestamp=at) for at in (SECONDS, NOON, abroad))
    assert all(one == first for one in others)
    assert (first.microseconds, first.timestamp, first.instant) == (
        SECONDS * 1_000_000,
        SECONDS,
        NOON,
    )


def test_microseconds_are_kept():
    """A moment keeps its microseconds; its Unix seconds are floored, also before 1970."""
    assert (
        MeterEvent("e", {}, timestamp=NOON.replace(microsecond=1)).microseconds
        == SECONDS * 1_000_000 + 1
    )
    before = MeterEvent("e", {}, timestamp=datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    assert (before.microseconds, before.timestamp) == (-1, -1)


def test_now_is_no_moment_yet():
    """Without a timestamp an event happened when it is received, which it does not know."""
    event = MeterEvent("e", {})
    assert (event.timestamp, event.microseconds, event.instant) == ("now", None, None)
    assert event == MeterEvent("e", {}, timestamp="now")


def test_the_payload_is_a_copy_and_read_only():
    """What the sender does to its map later changes no event, and nobody can change the event's."""
    mine = dict(PAYLOAD)
    event = MeterEvent("e", mine)
    mine["value"] = "1000"
    assert event.payload == PAYLOAD
    with pytest.raises(TypeError):
        event.payload["value"] = "1000"


@pytest.mark.parametrize("kind", [OrderedDict, MappingProxyType])
def test_any_map_is_a_payload(kind):
    """A payload may be any map of strings, and is equal to the same one in a dict."""
    assert MeterEvent("e", kind(PAYLOAD)) == MeterEvent("e", PAYLOAD)


def test_subclasses_of_str_are_strings():
    """An enum of strings is a string as an event name, identifier, key or value."""

    class Text(str):
        __slots__ = ()

    event = MeterEvent(Text("e"), {Text("value"): Text("1")}, identifier=Text("i"))
    assert event == MeterEvent("e", {"value": "1"}, identifier="i")


@pytest.mark.parametrize("length", [1, 100])
def test_lengths_at_the_bounds(length):
    """Event names and identifiers have 1 to 100 characters."""
    assert MeterEvent("x" * length, {}, identifier="y" * length).identifier == "y" * length


def test_events_are_values():
    """An event cannot be changed, and equal ones have equal hashes."""
    event = MeterEvent("e", PAYLOAD, identifier="a", timestamp=5)
    assert len({event, MeterEvent("e", dict(PAYLOAD), identifier="a", timestamp=5)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.identifier = "b"


@pytest.mark.parametrize("timestamp", ["now", 5, NOON.replace(microsecond=7)], ids=str)
def test_events_come_back(timestamp):
    """Written and read, copied or pickled, an event is equal to what it was."""
    event = MeterEvent("e", PAYLOAD, identifier="a", timestamp=timestamp)
    assert MeterEvent.from_dict(json.loads(json.dumps(event.to_dict()))) == event
    assert copy.deepcopy(event) == event == pickle.loads(pickle.dumps(event))  # noqa: S301 - our own


def test_me_1():
    """ME-1: Stripe's sample of API v2, the value "25" at 2024-06-01T12:00:00.000Z, created ten
    minutes later.
    """
    event = MeterEvent.from_dict(
        {
            "object": "v2.billing.meter_event",
            "created": "2024-06-01T12:10:00.000Z",
            "event_name": "ai_search_api",
            "identifier": "identifier_123",
            "livemode": True,
            "payload": {"stripe_customer_id": "cus_123", "value": "25"},
            "timestamp": "2024-06-01T12:00:00.000Z",
        }
    )
    assert (event.timestamp, event.payload["value"], event.identifier) == (
        SECONDS,
        "25",
        "identifier_123",
    )


def test_api_v1_and_v2_say_the_same():
    """Unix seconds of API v1 and RFC 3339 of v2 are read alike; milliseconds stay."""
    shape = {"event_name": "e", "payload": {}}
    assert MeterEvent.from_dict({**shape, "timestamp": SECONDS}) == MeterEvent.from_dict(
        {**shape, "timestamp": NOON.isoformat()}
    )
    precise = MeterEvent.from_dict({**shape, "timestamp": "2024-06-01T12:00:00.123Z"})
    assert precise.to_dict()["timestamp"] == "2024-06-01T12:00:00.123000Z"
    assert MeterEvent.from_dict(shape).timestamp == "now"
    assert MeterEvent.from_dict({**shape, "timestamp": "now"}).timestamp == "now"


def test_written_shape():
    """An event is written with Stripe's keys, a timestamp of whole seconds as Unix seconds."""
    assert MeterEvent("e", PAYLOAD, identifier="a", timestamp=NOON).to_dict() == {
        "object": "billing.meter_event",
        "event_name": "e",
        "identifier": "a",
        "payload": PAYLOAD,
        "timestamp": SECONDS,
    }


# Nonsense -----------------------------------------------------------------------------------------

STRING, CHOICE, OBJECT = (
    "parameter_invalid_string",
    "parameter_invalid_choice",
    "parameter_invalid_object",
)
INSTANT, MISSING, UNKNOWN = "parameter_invalid_instant", "parameter_missing", "parameter_unknown"
BAD_EVENTS = [
    ({"event_name": ""}, STRING, "event_name"),
    ({"event_name": "x" * 101}, STRING, "event_name"),
    ({"event_name": None}, STRING, "event_name"),
    ({"event_name": 5}, STRING, "event_name"),
    ({"identifier": ""}, STRING, "identifier"),
    ({"identifier": "x" * 101}, STRING, "identifier"),
    ({"identifier": 5}, STRING, "identifier"),
    ({"identifier": True}, STRING, "identifier"),
    ({"payload": None}, OBJECT, "payload"),
    ({"payload": "value=5"}, OBJECT, "payload"),
    ({"payload": [("value", "5")]}, OBJECT, "payload"),
    ({"payload": {"value": 5}}, STRING, "payload[value]"),
    ({"payload": {"value": 5.0}}, STRING, "payload[value]"),
    ({"payload": {"value": None}}, STRING, "payload[value]"),
    ({"payload": {"value": True}}, STRING, "payload[value]"),
    ({"payload": {"value": {"value": "5"}}}, STRING, "payload[value]"),
    ({"payload": {5: "value"}}, STRING, "payload"),
    ({"payload": {b"value": "5"}}, STRING, "payload"),
    ({"timestamp": None}, INSTANT, "timestamp"),
    ({"timestamp": 5.0}, INSTANT, "timestamp"),
    ({"timestamp": True}, INSTANT, "timestamp"),
    ({"timestamp": "2024-06-01T12:00:00Z"}, INSTANT, "timestamp"),
    ({"timestamp": "Now"}, INSTANT, "timestamp"),
    ({"timestamp": NAIVE}, INSTANT, "timestamp"),
    ({"timestamp": 10**12}, INSTANT, "timestamp"),
    ({"timestamp": -(10**12)}, INSTANT, "timestamp"),
]


@pytest.mark.parametrize(
    ("changes", "code", "param"), BAD_EVENTS, ids=lambda value: str(value)[:60]
)
def test_events_that_cannot_be(changes, code, param):
    """An event with nonsense in it cannot be built; the error has a code, names the place, and says
    what came.
    """
    given = {"event_name": "e", "payload": PAYLOAD, **changes}
    with pytest.raises(InvalidValueError) as refusal:
        MeterEvent(given.pop("event_name"), given.pop("payload"), **given)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert refusal.value.message.startswith(f"{param}: expected ")
    assert "received " in refusal.value.message


BAD_SHAPES = [
    ([], OBJECT, "data"),
    ({"payload": {}}, MISSING, "event_name"),
    ({"event_name": "e"}, MISSING, "payload"),
    ({"event_name": "e", "payload": None}, MISSING, "payload"),
    ({"event_name": "e", "payload": {}, "time": 5}, UNKNOWN, "time"),
    ({"event_name": "e", "payload": {}, "timestamp": "yesterday"}, INSTANT, "timestamp"),
    ({"event_name": "e", "payload": {}, "timestamp": "2024-06-01T12:00:00"}, INSTANT, "timestamp"),
    ({"event_name": "e", "payload": {}, "timestamp": 5.5}, INSTANT, "timestamp"),
    ({"event_name": "e", "payload": {}, "identifier": 5}, STRING, "identifier"),
]


@pytest.mark.parametrize(("data", "code", "param"), BAD_SHAPES, ids=lambda value: str(value)[:60])
def test_shapes_that_are_no_events(data, code, param):
    """Nonsense in Stripe's shape is refused with a code and a param."""
    with pytest.raises(InvalidValueError) as refusal:
        MeterEvent.from_dict(data)
    assert (refusal.value.code, refusal.value.param) == (code, param)


# Adjustments --------------------------------------------------------------------------------------

CANCEL = {"type": "cancel", "event_name": "tokens", "cancel": {"identifier": "a"}}


def test_adjustments_are_complete_at_once():
    """A cancellation is written in Stripe's shape, with its number and moment, which are ours;
    nothing is pending here.
    """
    assert MeterEventAdjustment("tokens", "a", 7, NOON).to_dict() == {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": "a"},
        "event_name": "tokens",
        "status": "complete",
        "type": "cancel",
        "sequence": 7,
        "canceled_at": 1717243200,
    }


def test_cancellations_are_read():
    """Stripe's parameters say the event name and the identifier; both have at most 100
    characters.
    """
    assert cancellation(CANCEL) == ("tokens", "a")
    assert cancellation({**CANCEL, "cancel": {"identifier": "x" * 100}}) == ("tokens", "x" * 100)


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (None, OBJECT, "data"),
        ({**CANCEL, "type": None}, MISSING, "type"),
        ({**CANCEL, "type": "void"}, CHOICE, "type"),
        ({**CANCEL, "cancel": None}, MISSING, "cancel"),
        ({**CANCEL, "cancel": "a"}, OBJECT, "cancel"),
        ({**CANCEL, "cancel": {}}, MISSING, "cancel[identifier]"),
        ({**CANCEL, "cancel": {"id": "a"}}, UNKNOWN, "cancel[id]"),
        ({**CANCEL, "cancel": {"identifier": 5}}, STRING, "cancel[identifier]"),
        ({**CANCEL, "cancel": {"identifier": "x" * 101}}, STRING, "cancel[identifier]"),
        ({**CANCEL, "event_name": None}, MISSING, "event_name"),
        ({**CANCEL, "event_name": "x" * 101}, STRING, "event_name"),
        ({**CANCEL, "reason": "mistake"}, UNKNOWN, "reason"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_adjustments_that_are_none(data, code, param):
    """Nonsense among the parameters of an adjustment is refused with a code and a param."""
    with pytest.raises(InvalidValueError) as refusal:
        cancellation(data)
    assert (refusal.value.code, refusal.value.param) == (code, param)
