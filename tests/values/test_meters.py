"""Meters: what is fixed, what changes and how, and Stripe's shape of them."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime

import attrs
import pytest

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.meters import EventTimeWindow, Formula, Meter, MeterStatus

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
NAIVE = datetime(2024, 6, 1)  # noqa: DTZ001 - the point of it
FULL = Meter(
    "mtr_1",
    "gpu_seconds",
    "average",
    display_name="GPU seconds",
    customer_payload_key="who",
    value_payload_key="seconds",
    event_time_window="hour",
    dimension_payload_keys=["region", "model"],
    decimal_places=3,
)
LEVEL = Meter("mtr_2", "seats", "last", carry_forward=True)


# What there is ------------------------------------------------------------------------------------


def test_defaults_are_stripes():
    """Without more than an id and a name a meter sums ``value`` of the customer in
    ``stripe_customer_id``, and is active.
    """
    meter = Meter("mtr_1", "tokens")
    assert (meter.formula, meter.value_payload_key, meter.customer_payload_key) == (
        "sum",
        "value",
        "stripe_customer_id",
    )
    assert (meter.status, meter.deactivated_at, meter.event_time_window) == ("active", None, None)
    assert (meter.dimension_payload_keys, meter.decimal_places, meter.carry_forward) == (
        (),
        None,
        False,
    )


def test_titles():
    """People see the display name, or the event name where there is none."""
    assert (FULL.title, LEVEL.title) == ("GPU seconds", "seats")


def test_windows_have_lengths():
    """An event time window is an hour of 3,600 seconds or a UTC day of 86,400."""
    assert [window.seconds for window in EventTimeWindow] == [3600, 86_400]


def test_formulas_are_stripes_and_seven_more():
    """Stripe has sum, count and last; max, min, unique_count, average, weighted_sum and sums of
    peaks are what people miss.
    """
    others = [
        "max",
        "min",
        "unique_count",
        "average",
        "weighted_sum",
        "hourly_peaks",
        "daily_peaks",
    ]
    assert list(Formula) == ["sum", "count", "last", *others]


# What is fixed, and what changes ------------------------------------------------------------------


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Meter)])
def test_meters_are_values(field):
    """No field can be assigned, whichever it is."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(FULL, field, getattr(FULL, field))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "mtr_9"),
        ("event_name", "other"),
        ("formula", "sum"),
        ("customer_payload_key", "customer"),
        ("value_payload_key", "value"),
        ("event_time_window", None),
        ("dimension_payload_keys", ["region"]),
        ("decimal_places", 4),
    ],
)
def test_what_is_fixed_is_named(field, value):
    """Any other value of a fixed field is no successor; the error names the field, what it is and
    what came.
    """
    with pytest.raises(InvalidValueError) as refusal:
        FULL.require_successor(attrs.evolve(FULL, **{field: value}))
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.METER_CHANGED, field)
    assert repr(getattr(FULL, field)) in refusal.value.message


def test_carry_forward_is_fixed():
    """A meter that looks back cannot become one that does not: its old bills would not come out
    again.
    """
    with pytest.raises(InvalidValueError, match="carry_forward: expected True"):
        LEVEL.require_successor(attrs.evolve(LEVEL, carry_forward=False))


def test_name_and_status_may_change():
    """The display name and the status are all that a newer version may change (Stripe: the name
    alone is updatable).
    """
    FULL.require_successor(attrs.evolve(FULL, display_name="Seconds on GPUs"))
    FULL.require_successor(FULL.deactivate(NOON))
    FULL.deactivate(NOON).require_successor(FULL)


def test_deactivation_and_back():
    """A deactivated meter says since when, a second deactivation keeps the first moment, and a
    reactivated one is as before.
    """
    inactive = FULL.deactivate(NOON)
    assert (inactive.status, inactive.deactivated_at, inactive.is_active) == (
        MeterStatus.INACTIVE,
        NOON,
        False,
    )
    assert inactive.deactivate(NOON.replace(year=2025)) is inactive
    assert inactive.reactivate() == FULL
    assert FULL.reactivate() == FULL
    assert FULL.is_active


def test_deactivation_is_kept_in_whole_seconds():
    """Stripe's transition is in Unix seconds: microseconds are cut, seconds and datetimes are the
    same moment.
    """
    assert FULL.deactivate(NOON.replace(microsecond=999_999)) == FULL.deactivate(1_717_243_200)


# Stripe's shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meter", [FULL, LEVEL, Meter("m", "e"), FULL.deactivate(NOON)], ids=lambda meter: meter.id
)
def test_shapes_come_back(meter):
    """What is written is JSON and reads as it was; copies and pickles are equal, too."""
    written = json.loads(json.dumps(meter.to_dict()))
    assert Meter.from_dict(written) == meter
    assert copy.deepcopy(meter) == meter == pickle.loads(pickle.dumps(meter))  # noqa: S301 - our own


def test_stripes_sample():
    """A meter as Stripe's API reference shows one (values of an example of its own) is read field
    by field.
    """
    meter = Meter.from_dict(
        {
            "id": "mtr_123",
            "object": "billing.meter",
            "created": 1704824589,
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "default_aggregation": {"formula": "sum"},
            "display_name": "Search API Calls",
            "event_name": "ai_search_api",
            "event_time_window": None,
            "livemode": False,
            "status": "inactive",
            "status_transitions": {"deactivated_at": 1704898330},
            "updated": 1704898330,
            "value_settings": {"event_payload_key": "tokens"},
        }
    )
    assert meter == Meter(
        "mtr_123",
        "ai_search_api",
        display_name="Search API Calls",
        value_payload_key="tokens",
        status="inactive",
        deactivated_at=1704898330,
    )


def test_a_bare_meter():
    """Without an id the event name serves, and without a formula the sum: a case file need not say
    more.
    """
    assert Meter.from_dict({"event_name": "m"}) == Meter("m", "m")


def test_written_shape():
    """All of Stripe's fields are there, whatever is at its default."""
    assert Meter("m", "e").to_dict() == {
        "id": "m",
        "object": "billing.meter",
        "carry_forward": False,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "decimal_places": None,
        "default_aggregation": {"formula": "sum"},
        "dimension_payload_keys": [],
        "display_name": None,
        "event_name": "e",
        "event_time_window": None,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "value_settings": {"event_payload_key": "value"},
    }


# Nonsense -----------------------------------------------------------------------------------------

STRING, CHOICE, OBJECT = (
    "parameter_invalid_string",
    "parameter_invalid_choice",
    "parameter_invalid_object",
)
INTEGER, INSTANT, EXCLUSIVE = (
    "parameter_invalid_integer",
    "parameter_invalid_instant",
    "parameters_exclusive",
)
MISSING, UNKNOWN = "parameter_missing", "parameter_unknown"
AT = "status_transitions[deactivated_at]"
BAD_METERS = [
    ({"id": ""}, STRING, "id"),
    ({"id": "x" * 256}, STRING, "id"),
    ({"id": 7}, STRING, "id"),
    ({"event_name": ""}, STRING, "event_name"),
    ({"event_name": "x" * 101}, STRING, "event_name"),
    ({"event_name": None}, STRING, "event_name"),
    ({"event_name": b"tokens"}, STRING, "event_name"),
    ({"formula": "median"}, CHOICE, "default_aggregation[formula]"),
    ({"formula": None}, CHOICE, "default_aggregation[formula]"),
    ({"formula": 1.5}, CHOICE, "default_aggregation[formula]"),
    ({"formula": ["sum"]}, CHOICE, "default_aggregation[formula]"),
    ({"display_name": ""}, STRING, "display_name"),
    ({"display_name": "x" * 251}, STRING, "display_name"),
    ({"customer_payload_key": ""}, STRING, "customer_mapping[event_payload_key]"),
    ({"customer_payload_key": "x" * 101}, STRING, "customer_mapping[event_payload_key]"),
    ({"value_payload_key": True}, STRING, "value_settings[event_payload_key]"),
    ({"value_payload_key": "stripe_customer_id"}, EXCLUSIVE, "value_settings[event_payload_key]"),
    ({"event_time_window": "minute"}, CHOICE, "event_time_window"),
    ({"event_time_window": 3600}, CHOICE, "event_time_window"),
    ({"dimension_payload_keys": "region"}, OBJECT, "dimension_payload_keys"),
    ({"dimension_payload_keys": 5}, OBJECT, "dimension_payload_keys"),
    ({"dimension_payload_keys": ["region", ""]}, STRING, "dimension_payload_keys[1]"),
    ({"dimension_payload_keys": ["region", 5]}, STRING, "dimension_payload_keys[1]"),
    ({"dimension_payload_keys": ["region", "region"]}, OBJECT, "dimension_payload_keys"),
    ({"dimension_payload_keys": ["region", "value"]}, EXCLUSIVE, "dimension_payload_keys"),
    ({"dimension_payload_keys": ["stripe_customer_id"]}, EXCLUSIVE, "dimension_payload_keys"),
    ({"decimal_places": -1}, INTEGER, "decimal_places"),
    ({"decimal_places": 101}, INTEGER, "decimal_places"),
    ({"decimal_places": 1.0}, INTEGER, "decimal_places"),
    ({"decimal_places": False}, INTEGER, "decimal_places"),
    ({"carry_forward": 1, "formula": "last"}, CHOICE, "carry_forward"),
    ({"carry_forward": "yes", "formula": "last"}, CHOICE, "carry_forward"),
    ({"carry_forward": True}, EXCLUSIVE, "carry_forward"),
    ({"carry_forward": True, "formula": "max"}, EXCLUSIVE, "carry_forward"),
    ({"status": "archived"}, CHOICE, "status"),
    ({"status": None}, CHOICE, "status"),
    ({"status": "inactive"}, OBJECT, AT),
    ({"deactivated_at": 0}, OBJECT, AT),
    ({"status": "inactive", "deactivated_at": NAIVE}, INSTANT, AT),
    ({"status": "inactive", "deactivated_at": 1.5}, INSTANT, AT),
    ({"status": "inactive", "deactivated_at": "2024-06-01"}, INSTANT, AT),
]


@pytest.mark.parametrize(
    ("changes", "code", "param"), BAD_METERS, ids=lambda value: str(value)[:60]
)
def test_meters_that_cannot_be(changes, code, param):
    """A meter with nonsense in it cannot be built; the error has a code, names the field, and says
    what came.
    """
    with pytest.raises(InvalidValueError) as refusal:
        Meter(**{"id": "m", "event_name": "e", **changes})
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert refusal.value.message.startswith(f"{param}: expected ")
    assert "received " in refusal.value.message


BAD_SHAPES = [
    ({}, MISSING, "event_name"),
    ([], OBJECT, "data"),
    ("meter", OBJECT, "data"),
    ({"event_name": "e", "formula": "sum"}, UNKNOWN, "formula"),
    ({"event_name": "e", "default_aggregation": "sum"}, OBJECT, "default_aggregation"),
    (
        {"event_name": "e", "default_aggregation": {"formulas": "sum"}},
        UNKNOWN,
        "default_aggregation[formulas]",
    ),
    (
        {"event_name": "e", "default_aggregation": {"formula": None}},
        CHOICE,
        "default_aggregation[formula]",
    ),
    (
        {"event_name": "e", "customer_mapping": {"type": "by_email"}},
        CHOICE,
        "customer_mapping[type]",
    ),
    ({"event_name": "e", "customer_mapping": {"key": "x"}}, UNKNOWN, "customer_mapping[key]"),
    ({"event_name": "e", "value_settings": ["value"]}, OBJECT, "value_settings"),
    ({"event_name": "e", "status_transitions": {"at": 5}}, UNKNOWN, "status_transitions[at]"),
    ({"event_name": "e", "status": "inactive"}, OBJECT, AT),
    # Stripe's own sample of a deactivated meter says this: a slip in its documentation, which no
    # meter can mean.
    (
        {"event_name": "e", "status": "active", "status_transitions": {"deactivated_at": 5}},
        OBJECT,
        AT,
    ),
    ({"event_name": "e", "id": 5}, STRING, "id"),
    ({"event_name": "e", "id": ""}, STRING, "id"),
    ({"event_name": "e", "decimal_places": "2"}, INTEGER, "decimal_places"),
    ({"event_name": "e", "carry_forward": True}, EXCLUSIVE, "carry_forward"),
]


@pytest.mark.parametrize(("data", "code", "param"), BAD_SHAPES, ids=lambda value: str(value)[:60])
def test_shapes_that_are_no_meters(data, code, param):
    """Nonsense in Stripe's shape is refused with a code and a param; a typing slip cannot pass for
    an absent option.
    """
    with pytest.raises(InvalidValueError) as refusal:
        Meter.from_dict(data)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert param in refusal.value.message


@pytest.mark.parametrize("at", [None, NAIVE, 1.5, "now", True, 10**18], ids=repr)
def test_moments_of_deactivation_that_are_none(at):
    """A meter is not deactivated at no moment."""
    with pytest.raises(InvalidValueError) as refusal:
        FULL.deactivate(at)
    assert refusal.value.param == AT
