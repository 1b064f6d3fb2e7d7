"""CloudEvents become meter events; expected values are those of the specification's text, worked
out by hand.
"""

from __future__ import annotations

import base64
import decimal
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.feeds.cloudevents import (
    cloudevent_identifier,
    meter_event_from_cloudevent,
    read_cloudevents,
)
from metering_core.meter_events import MeterEvent
from metering_core.meters import Meter

NOON = 1_717_243_200  # 2024-06-01T12:00:00Z
PLAIN = {"specversion": "1.0", "type": "tokens", "source": "/api", "id": "7"}
FULL = {
    **PLAIN,
    "subject": "cus_1",
    "time": "2024-06-01T12:00:00Z",
    "data": {"value": "25", "model": "large"},
}


def refusal(data, **options):
    with pytest.raises(InvalidValueError) as caught:
        meter_event_from_cloudevent(data, **options)
    return caught.value


def refusal_of_text(content, **options):
    with pytest.raises(InvalidValueError) as caught:
        read_cloudevents(content, **options)
    return caught.value


def payload(data, **options):
    return dict(meter_event_from_cloudevent({**PLAIN, "data": data}, **options).payload)


def test_each_attribute_goes_to_its_field():
    """Type, source and id, time, data and subject become event name, identifier, timestamp, payload
    and customer.
    """
    expected = MeterEvent(
        "tokens",
        {"value": "25", "model": "large", "stripe_customer_id": "cus_1"},
        identifier="/api 7",
        timestamp=NOON,
    )
    assert meter_event_from_cloudevent(FULL) == expected


def test_the_customer_goes_under_the_key_that_the_meter_names():
    """A customer payload key of a meter takes the subject instead of Stripe's default."""
    event = meter_event_from_cloudevent(FULL, customer_payload_key="tenant")
    assert dict(event.payload) == {"value": "25", "model": "large", "tenant": "cus_1"}


def test_the_least_that_an_event_must_have():
    """Without subject, time and data there is an event, now, with nothing in its payload: a log
    judges whether that will do.
    """
    assert meter_event_from_cloudevent(PLAIN) == MeterEvent("tokens", {}, identifier="/api 7")


def test_null_attributes_are_absent():
    """The JSON format has null stand for an attribute that is not set, and we take null data for
    none.
    """
    nothing = {
        "subject": None,
        "time": None,
        "data": None,
        "data_base64": None,
        "datacontenttype": None,
        "region": None,
    }
    assert meter_event_from_cloudevent(
        {**PLAIN, **nothing}, extensions=["region"]
    ) == meter_event_from_cloudevent(PLAIN)


def test_the_specifications_example_is_read():
    """The example of the JSON format (section 3.2) with object data and extensions reads as it
    says.
    """
    example = """{
        "specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext", "subject": null,
        "id" : "C234-1234-1234", "time" : "2018-04-05T17:31:00Z", "comexampleextension1" : "value",
        "comexampleothervalue" : 5, "datacontenttype" : "application/json",
        "data" : { "appinfoA" : "abc", "appinfoB" : 123, "appinfoC" : true }
    }"""
    (event,) = read_cloudevents(example, extensions=["comexampleothervalue"])
    assert dict(event.payload) == {
        "appinfoA": "abc",
        "appinfoB": "123",
        "appinfoC": "true",
        "comexampleothervalue": "5",
    }
    assert event.event_name == "com.example.someevent"
    assert event.identifier == "/mycontext C234-1234-1234"
    assert event.instant == datetime(2018, 4, 5, 17, 31, tzinfo=UTC)


# Required attributes ------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["specversion", "type", "source", "id"])
@pytest.mark.parametrize("absent", [{}, None])
def test_required_attributes_are_required(attribute, absent):
    """What the specification requires is missed by name, whether it is left out or null."""
    data = (
        {key: value for key, value in FULL.items() if key != attribute}
        if absent == {}
        else {**FULL, attribute: None}
    )
    error = refusal(data)
    assert (error.code, error.param) == (ErrorCode.PARAMETER_MISSING, attribute)


@pytest.mark.parametrize(
    ("changed", "code", "param"),
    [
        ({"specversion": "0.3"}, ErrorCode.PARAMETER_INVALID_CHOICE, "specversion"),
        ({"specversion": 1}, ErrorCode.PARAMETER_INVALID_CHOICE, "specversion"),
        ({"type": ""}, ErrorCode.PARAMETER_INVALID_STRING, "type"),
        ({"type": "t" * 101}, ErrorCode.PARAMETER_INVALID_STRING, "type"),
        ({"source": ""}, ErrorCode.PARAMETER_INVALID_STRING, "source"),
        ({"source": "/a b"}, ErrorCode.PARAMETER_INVALID_STRING, "source"),
        ({"source": "/a\n"}, ErrorCode.PARAMETER_INVALID_STRING, "source"),
        ({"source": 5}, ErrorCode.PARAMETER_INVALID_STRING, "source"),
        ({"id": ""}, ErrorCode.PARAMETER_INVALID_STRING, "id"),
        ({"id": 7}, ErrorCode.PARAMETER_INVALID_STRING, "id"),
        ({"subject": ""}, ErrorCode.PARAMETER_INVALID_STRING, "subject"),
        ({"subject": 1}, ErrorCode.PARAMETER_INVALID_STRING, "subject"),
        ({"Subject": "cus_1"}, ErrorCode.PARAMETER_UNKNOWN, "Subject"),
        ({"data_type": "x"}, ErrorCode.PARAMETER_UNKNOWN, "data_type"),
        ({"data": [1]}, ErrorCode.PARAMETER_INVALID_OBJECT, "data"),
        ({"data": "25"}, ErrorCode.PARAMETER_INVALID_OBJECT, "data"),
        ({"data_base64": "e30="}, ErrorCode.PARAMETERS_EXCLUSIVE, "data_base64"),
        (
            {"datacontenttype": "application/xml"},
            ErrorCode.PARAMETER_INVALID_CHOICE,
            "datacontenttype",
        ),
        ({"datacontenttype": "json"}, ErrorCode.PARAMETER_INVALID_CHOICE, "datacontenttype"),
        ({"datacontenttype": 5}, ErrorCode.PARAMETER_INVALID_CHOICE, "datacontenttype"),
    ],
)
def test_what_an_attribute_may_not_be(changed, code, param):
    """A malformed attribute is refused by its own name."""
    error = refusal({**FULL, **changed})
    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize("data", [None, [PLAIN], "tokens"])
def test_an_event_is_an_object(data):
    """What is no object is no CloudEvent."""
    error = refusal(data)
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, "event")


def test_extensions_that_nobody_asked_for_are_read_past():
    """A producer may add extension attributes; they reach the payload only where they are named."""
    assert meter_event_from_cloudevent(
        {**FULL, "traceparent": "00-ab", "sequence": 5}
    ) == meter_event_from_cloudevent(FULL)


# The identifier -----------------------------------------------------------------------------------


def test_an_identifier_of_a_hundred_characters_is_kept_and_a_longer_one_hashed():
    """100 characters fit; 101 give the SHA-256 of the joined text, as hashlib computes it."""
    assert cloudevent_identifier("/" * 97, "ab") == "/" * 97 + " ab"
    digest = hashlib.sha256(b"/" * 97 + b" abc").hexdigest()
    assert cloudevent_identifier("/" * 97, "abc") == f"sha256:{digest}"


def test_an_identifier_is_the_same_on_every_machine():
    """The hash is what `sha256sum` prints for the joined text, so that other systems can compute
    it.
    """
    expected = "sha256:0d5cba7aa83e74e08d48563e94d4621afe2007148d87cccce68ca075a3fe232d"
    assert cloudevent_identifier("x" * 98, "id") == expected
    assert (
        meter_event_from_cloudevent({**PLAIN, "source": "x" * 98, "id": "id"}).identifier
        == expected
    )


def test_half_a_surrogate_pair_can_be_hashed():
    """JSON can hold a lone surrogate, which UTF-8 cannot write; such ids stay apart all the
    same.
    """
    high, low = (cloudevent_identifier("/api", half + "x" * 100) for half in ("\ud800", "\udc00"))
    assert high != low


TEXT = st.text(alphabet="ab: /é", min_size=1, max_size=4) | st.text(
    alphabet="ab: ", min_size=90, max_size=110
)


@given(TEXT, TEXT, TEXT, TEXT)
def test_two_pairs_never_share_an_identifier(source, event_id, other_source, other_id):
    """Identifiers are equal just where source and id are, however the two are cut, and fit in 100
    characters.
    """
    source, other_source = source.replace(" ", "%"), other_source.replace(" ", "%")
    first, second = (
        cloudevent_identifier(source, event_id),
        cloudevent_identifier(other_source, other_id),
    )
    assert (first == second) is ((source, event_id) == (other_source, other_id))
    assert 1 <= len(first) <= 100


def test_a_short_pair_cannot_forge_a_hash():
    """A pair whose source looks like a hash still has its space."""
    forged = cloudevent_identifier("/" * 100, "7")
    assert cloudevent_identifier(forged, "7") == f"{forged} 7"


# Time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "microseconds"),
    [
        ("2024-06-01T12:00:00Z", NOON * 10**6),
        ("2024-06-01t12:00:00z", NOON * 10**6),
        ("2024-06-01T17:30:00+05:30", NOON * 10**6),
        ("2024-06-01T12:00:00-00:00", NOON * 10**6),
        ("2024-06-01T12:00:00.5Z", NOON * 10**6 + 500_000),
        ("2024-06-01T12:00:00.123456999Z", NOON * 10**6 + 123_456),
        ("1969-12-31T23:59:59.999999999Z", -1),
        (datetime(2024, 6, 1, 14, tzinfo=timezone(timedelta(hours=2))), NOON * 10**6),
    ],
)
def test_times_are_read_as_rfc_3339(time, microseconds):
    """Letters in either case, any offset and any fraction are read; what is finer than a
    microsecond is cut.
    """
    assert meter_event_from_cloudevent({**PLAIN, "time": time}).microseconds == microseconds


@pytest.mark.parametrize(
    "time",
    [
        "2024-06-01",
        "2024-06-01T12:00:00",
        "2024-06-01T12:00Z",
        "20240601T120000Z",
        "2024-W22-6T12:00:00Z",
        "2024-06-01T12:00:60Z",
        "2024-13-01T12:00:00Z",
        "2024-06-01T12:00:00,5Z",
        "0001-01-01T00:00:00+01:00",
        "1717243200",
        "now",
        "",
        1_717_243_200,
        1.5,
        datetime(2024, 6, 1),  # noqa: DTZ001 - naive on purpose
    ],
)
def test_other_times_are_refused(time):
    """ISO 8601 is wider than RFC 3339, and neither numbers nor naive datetimes are times of a
    CloudEvent.
    """
    error = refusal({**PLAIN, "time": time})
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INSTANT, "time")


def test_a_leap_second_is_refused_as_one():
    """RFC 3339 has `23:59:60`, which no datetime can say: the sentence says that this is what is
    wrong.
    """
    error = refusal({**PLAIN, "time": "2016-12-31T23:59:60Z"})
    assert "as RFC 3339 writes it and without a leap second" in error.message


# Data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("25", "25"),
        ("-25", "-25"),
        ("0.1", "0.1"),
        ("1.50", "1.5"),
        ("2.0", "2"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("1E-3", "0.001"),
        ("12345678901234567890.12345678901234567890", "12345678901234567890.1234567890123456789"),
        ("9" * 100, "9" * 100),
        ("1e-100", "0." + "0" * 99 + "1"),
        ('"1.50"', "1.50"),
        ('"1e3"', "1e3"),
        ("true", "true"),
        ("false", "false"),
    ],
)
def test_values_of_data_become_text(written, text):
    """Numbers are written exactly and in one way, booleans as JSON does; strings stay as
    they are.
    """
    (event,) = read_cloudevents(json.dumps(PLAIN)[:-1] + f', "data": {{"value": {written}}}}}')
    assert dict(event.payload) == {"value": text}


def test_the_ambient_decimal_context_does_not_matter():
    """A number has all its digits though the caller's context keeps three, and traps nothing."""
    with decimal.localcontext(prec=3, traps=[]):
        (event,) = read_cloudevents(json.dumps(PLAIN)[:-1] + ', "data": {"value": 1234.5678}}')
    assert event.payload["value"] == "1234.5678"


def test_null_entries_are_left_out():
    """A payload has no null; the log says whether something is missing."""
    assert payload({"value": 1, "model": None}) == {"value": "1"}


@pytest.mark.parametrize(
    ("number", "text"), [(Decimal("2.50"), "2.5"), (Fraction(5, 2), "2.5"), (7, "7")]
)
def test_exact_numbers_of_python_are_taken(number, text):
    """A mapping that was read before may hold int, Decimal and Fraction."""
    assert payload({"value": number}) == {"value": text}


@pytest.mark.parametrize(
    "number",
    [
        2.5,
        2.0,
        float("nan"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Fraction(1, 3),
        10**100,
        Decimal("1e-101"),
    ],
)
def test_inexact_and_boundless_numbers_are_refused(number):
    """A float is refused by name, and so is what no bounded decimal can write."""
    error = refusal({**PLAIN, "data": {"value": number}})
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_DECIMAL, "data[value]")


@pytest.mark.parametrize(
    "written", ["1e999999999", "1e-999999999", "1e99999999999999999999", "9" * 5000, "1" * 200_000]
)
def test_a_hostile_number_is_refused_by_name(written):
    """A number of any size costs no more than its text, and is refused where it stands."""
    error = refusal_of_text(json.dumps(PLAIN)[:-1] + f', "data": {{"value": {written}}}}}')
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_DECIMAL, "data[value]")


@pytest.mark.parametrize("nested", [{}, {"a": 1}, [], ["a"], ("a",)])
def test_nested_values_are_refused_by_name(nested):
    """A payload is flat: nothing is flattened or dropped for the sender."""
    error = refusal({**PLAIN, "data": {"value": 1, "tags": nested}})
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_STRING, "data[tags]")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/json",
        "application/vnd.acme.usage+json",
        "a/b+json ;v=1",
    ],
)
def test_every_content_type_of_json_is_json(content_type):
    """The subtype is json or ends with +json; parameters and case do not matter."""
    assert meter_event_from_cloudevent(
        {**FULL, "datacontenttype": content_type}
    ) == meter_event_from_cloudevent(FULL)


def test_a_content_type_without_data_says_nothing():
    """The specification lets the content type appear though there is no data."""
    event = meter_event_from_cloudevent({**PLAIN, "datacontenttype": "application/xml"})
    assert event == meter_event_from_cloudevent(PLAIN)


def test_base64_data_is_decoded():
    """Binary data that is JSON reads as data does, its numbers exact."""
    encoded = base64.b64encode(b'{"value": 0.10}').decode()
    event = meter_event_from_cloudevent(
        {**PLAIN, "data_base64": encoded, "datacontenttype": "application/json"}
    )
    assert dict(event.payload) == {"value": "0.1"}


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        ("e30", ErrorCode.PARAMETER_INVALID_STRING),  # {} without its padding
        ("e3*0=", ErrorCode.PARAMETER_INVALID_STRING),
        ("é", ErrorCode.PARAMETER_INVALID_STRING),
        (5, ErrorCode.PARAMETER_INVALID_STRING),
        (base64.b64encode(b"\xff\xfe").decode(), ErrorCode.PARAMETER_INVALID_OBJECT),
        (base64.b64encode(b"25").decode(), ErrorCode.PARAMETER_INVALID_OBJECT),
    ],
)
def test_base64_data_that_is_none_is_refused(encoded, code):
    """What is no Base64, or decodes to no JSON object, is refused by its name."""
    error = refusal({**PLAIN, "data_base64": encoded})
    assert (error.code, error.param) == (code, "data_base64")


def test_base64_data_of_another_type_is_refused():
    """Binary data that is declared as something else than JSON cannot become a payload."""
    error = refusal(
        {**PLAIN, "data_base64": "e30=", "datacontenttype": "application/vnd.apache.thrift.binary"}
    )
    assert error.param == "datacontenttype"


# Collisions ---------------------------------------------------------------------------------------


def test_the_customer_may_stand_in_data():
    """Without a subject, the customer is what data says; with the same one in both places nothing
    is in doubt.
    """
    assert payload({"stripe_customer_id": "cus_1"}) == {"stripe_customer_id": "cus_1"}
    both = meter_event_from_cloudevent(
        {**PLAIN, "subject": "cus_1", "data": {"stripe_customer_id": "cus_1"}}
    )
    assert dict(both.payload) == {"stripe_customer_id": "cus_1"}


def test_two_customers_are_refused():
    """A subject that differs from the customer in data is refused: neither of the two is
    overwritten.
    """
    error = refusal({**PLAIN, "subject": "cus_1", "data": {"stripe_customer_id": "cus_2"}})
    assert (error.code, error.param) == (ErrorCode.PARAMETERS_EXCLUSIVE, "subject")


def test_named_extensions_become_payload_keys():
    """Strings, integers and booleans of the extensions that were named stand beside the data."""
    event = meter_event_from_cloudevent(
        {**FULL, "region": "eu", "shard": 5, "hot": True}, extensions=["region", "shard", "hot"]
    )
    assert {key: event.payload[key] for key in ("region", "shard", "hot")} == {
        "region": "eu",
        "shard": "5",
        "hot": "true",
    }


def test_an_extension_never_overwrites_data():
    """An extension that data contradicts is refused by its name; one that says the same is
    taken.
    """
    data = {**PLAIN, "data": {"region": "us"}}
    error = refusal({**data, "region": "eu"}, extensions=["region"])
    assert (error.code, error.param) == (ErrorCode.PARAMETERS_EXCLUSIVE, "region")
    assert dict(
        meter_event_from_cloudevent({**data, "region": "us"}, extensions=["region"]).payload
    ) == {"region": "us"}


def test_an_extension_never_overwrites_the_customer():
    """An extension under the customer's key must be the customer."""
    error = refusal(
        {**FULL, "tenant": "cus_2"}, customer_payload_key="tenant", extensions=["tenant"]
    )
    assert (error.code, error.param) == (ErrorCode.PARAMETERS_EXCLUSIVE, "tenant")


@pytest.mark.parametrize("name", ["id", "data", "subject", "Region", "re_gion", "", 5])
def test_only_extension_attributes_can_be_named(name):
    """An attribute that has its place already, or a name that no attribute may have, is no
    extension.
    """
    for error in (
        refusal(PLAIN, extensions=["ok", name]),
        refusal_of_text("[]", extensions=["ok", name]),
    ):
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_STRING, "extensions[1]")


@pytest.mark.parametrize("names", ["region", 5])
def test_extensions_are_a_list(names):
    """One string would be read letter by letter."""
    error = refusal(PLAIN, extensions=names)
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, "extensions")


def test_an_extension_that_is_nested_is_refused():
    """An extension attribute has a simple type."""
    assert refusal({**PLAIN, "region": ["eu"]}, extensions=["region"]).param == "region"


def test_a_customer_payload_key_is_a_key():
    """The key is checked even where there is no subject to put there."""
    assert refusal(PLAIN, customer_payload_key="").param == "customer_payload_key"


# Documents ----------------------------------------------------------------------------------------


def test_an_object_is_one_event_and_an_array_a_batch():
    """Structured mode and the batch format are told apart by the document, in text or bytes; an
    empty batch is one.
    """
    event = meter_event_from_cloudevent(FULL)
    assert read_cloudevents(json.dumps(FULL)) == [event]
    assert read_cloudevents(json.dumps([FULL, {**FULL, "id": "8"}]).encode()) == [
        event,
        meter_event_from_cloudevent({**FULL, "id": "8"}),
    ]
    assert read_cloudevents(b"[]") == []


def test_bytes_are_utf_8():
    """Text beyond ASCII is read as UTF-8, with or without a byte order mark."""
    content = json.dumps({**FULL, "subject": "café"}, ensure_ascii=False).encode()
    for given_bytes in (content, b"\xef\xbb\xbf" + content):
        assert read_cloudevents(given_bytes)[0].payload["stripe_customer_id"] == "café"


def test_each_event_of_a_batch_goes_to_its_meter():
    """The customer of each event goes under the key of the meter with its type; without one, under
    Stripe's.
    """
    batch = [FULL, {**FULL, "type": "seats"}, {**FULL, "type": "other"}]
    meters = [
        Meter("m1", "tokens", customer_payload_key="tenant"),
        Meter("m2", "seats", customer_payload_key="account"),
    ]
    events = read_cloudevents(json.dumps(batch), meters=meters)
    assert [
        [key for key, text in event.payload.items() if text == "cus_1"] for event in events
    ] == [
        ["tenant"],
        ["account"],
        ["stripe_customer_id"],
    ]


@pytest.mark.parametrize(
    ("broken", "param"),
    [
        ({**FULL, "source": ""}, "events[1][source]"),
        ({key: value for key, value in FULL.items() if key != "id"}, "events[1][id]"),
        ({**FULL, "data": {"value": [1]}}, "events[1][data][value]"),
        ({**FULL, "type": ["tokens"]}, "events[1][type]"),
        (5, "events[1]"),
        ([FULL], "events[1]"),
    ],
)
def test_a_batch_says_which_event_is_malformed(broken, param):
    """The first malformed event of a batch is named by its place, in param and in the message."""
    error = refusal_of_text(json.dumps([FULL, broken, {}]))
    assert error.param == param
    assert error.message.startswith("events[1]: ")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{} {}",
        '{"specversion": NaN}',
        '{"specversion": "1.0", "specversion": "1.0"}',
        b"\xff\xfe",
        "[" * 100_000,
        None,
        5,
    ],
)
def test_what_is_no_json_is_refused(content):
    """Broken or ambiguous JSON, or no text at all, is refused as the content."""
    error = refusal_of_text(content)
    assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, "content")


@pytest.mark.parametrize("content", ["5", "null", '"tokens"'])
def test_a_document_is_an_object_or_an_array(content):
    """Other JSON is no CloudEvent."""
    assert refusal_of_text(content).param == "event"


def test_meters_are_a_list():
    """What cannot be iterated is refused by name."""
    assert refusal_of_text("[]", meters=5).param == "meters"
