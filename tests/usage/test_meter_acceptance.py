"""The door of the meter log: what is read off a payload, what is refused, in which order,
and when.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meter_oracle import is_number

from metering_core import Outcome
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.meter_acceptance import (
    IdentifierScope,
    LateUsage,
    MeterPolicy,
    Reading,
    read,
    time_refusal,
)
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter

SECOND = 1_000_000
NOON = datetime(2024, 6, 15, 12, tzinfo=UTC)
NOW = 1_718_452_800  # NOON
TOKENS = Meter("mtr", "tokens")
STRIPE = MeterPolicy.stripe()
DEFAULT = MeterPolicy()


def reading(text, meter=TOKENS, policy=DEFAULT, customers=None, **rest):
    return read(meter, {"stripe_customer_id": "cus_1", "value": text, **rest}, policy, customers)


def code_of(answer):
    return answer.code if answer.__class__.__name__ == "Receipt" else None


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25", 25),
        ("0", 0),
        ("-0", 0),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("2.5", Decimal("2.5")),
        ("2.50", Decimal("2.5")),
        ("2.0", 2),
        ("-.5", Decimal("-0.5")),
        ("5.", 5),
        ("0.000000000000000001", Decimal("1E-18")),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("9" * 100 + "." + "9" * 100, Decimal("9" * 100 + "." + "9" * 100)),
        ("-" + "9" * 100 + "." + "9" * 100, Decimal("-" + "9" * 100 + "." + "9" * 100)),
    ],
)
def test_values_that_are_numbers(text, value):
    """A plain decimal of any sign is read exactly, up to 100 digits on each side of the point, and
    has one spelling.
    """
    found = reading(text)
    assert found == Reading("cus_1", value, ())
    assert type(found.value) is type(value)


GARBAGE = [
    "",
    " ",
    "25 ",
    " 25",
    "2,5",
    "1e3",
    "1E3",
    "0x10",
    "NaN",
    "Infinity",
    "-inf",
    "1/3",
    "1_000",
    "\u0662\u0665",
    "\uff12\uff15",
    "½",
    "--1",
    "+-1",
]
GARBAGE += [".", "-", "-.", "1.2.3", "25\n", "true", "1" * 101, "0." + "1" * 101, "9" * 500]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text)[:20])
@pytest.mark.parametrize("formula", ["sum", "last", "count"])
def test_values_that_are_none(text, formula):
    """What is no plain decimal of bounded length is refused, by a count, too, where it would hide a
    mistake.
    """
    answer = reading(text, Meter("m", "e", formula))
    assert (answer.code, answer.param) == (ErrorCode.VALUE_INVALID, "payload[value]")
    digits = "a number with at most 100 digits on either side of the point"
    assert f"expected {digits if len(text) > 100 else 'a plain decimal number'}" in answer.message
    assert "received " in answer.message


@given(st.text(alphabet="0123456789+-.eE \u0663_", max_size=8))
def test_values_are_read_as_a_reader_reads_them(text):
    """A text is a number exactly where reading it character by character says so; its value is that
    of the digits.
    """
    answer = reading(text)
    if is_number(text):
        assert answer.value == Fraction(text)
    else:
        assert answer.code == ErrorCode.VALUE_INVALID


def test_counts_can_do_without_a_value():
    """A count takes an event without a value, and every event counts one whatever its value."""
    calls = Meter("m", "calls", "count")
    assert read(calls, {"stripe_customer_id": "cus_1"}, DEFAULT, None) == Reading("cus_1", 1, ())
    assert reading("-7.5", calls) == Reading("cus_1", 1, ())


@pytest.mark.parametrize(
    "formula", ["sum", "last", "max", "min", "unique_count", "average", "weighted_sum"]
)
def test_other_formulas_need_a_value(formula):
    """Any other formula refuses an event without a value."""
    answer = read(Meter("m", "e", formula), {"stripe_customer_id": "cus_1"}, DEFAULT, None)
    assert (answer.code, answer.param) == (ErrorCode.VALUE_MISSING, "payload[value]")


@pytest.mark.parametrize("text", ["Ada", "", "1", "1.0", "ﬁ", "9" * 500])
def test_unique_count_takes_any_text(text):
    """Different values are texts: a user's id need not be a number, and 1 and 1.0 are two."""
    assert reading(text, Meter("m", "e", "unique_count"), STRIPE) == Reading("cus_1", text, ())


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("123456789012345", 15),
        ("-123456789012345", 15),
        ("1234567890.12345", 15),
        ("0.000000123456789012345", 15),  # Leading zeros are not significant,
        ("12345678901234500", 15),  # nor are those at the end.
        ("1.23450000000000000000", 5),
        ("1234567890123456", 16),
        ("0.1234567890123456", 16),
        ("1000000000000001", 16),
        ("-1234567890.123456", 16),
    ],
)
def test_significant_digits(text, digits):
    """Stripe takes at most 15 significant digits; without its profile there is no such bound."""
    assert isinstance(reading(text), Reading)
    answer = reading(text, policy=STRIPE)
    if digits <= 15:
        assert answer == reading(text)
    else:
        assert (answer.code, answer.param) == (ErrorCode.VALUE_TOO_MANY_DIGITS, "payload[value]")
        assert answer.message == f"Meter event values may have at most 15 digits. Received {text}."


@pytest.mark.parametrize(
    ("places", "text", "is_taken"),
    [
        (0, "5", True),
        (0, "5.00", True),
        (0, "5.01", False),
        (2, "5.25", True),
        (2, "5.2500", True),
        (2, "-5.255", False),
        (None, "5." + "1" * 100, True),
    ],
)
def test_decimal_places(places, text, is_taken):
    """A meter may bound the decimal places; zeros at the end are none."""
    answer = reading(text, Meter("m", "e", decimal_places=places))
    assert isinstance(answer, Reading) is is_taken
    assert code_of(answer) == (None if is_taken else ErrorCode.VALUE_INVALID)


def test_whole_and_positive_values():
    """Old Stripe took whole numbers only, its API v2 positive ones; both are policies."""
    whole, positive = MeterPolicy(whole_values=True), MeterPolicy(positive_values=True)
    assert code_of(reading("2.5", policy=whole)) == ErrorCode.VALUE_INVALID
    assert (
        code_of(reading("2.5", Meter("m", "e", decimal_places=3), whole)) == ErrorCode.VALUE_INVALID
    )
    assert [code_of(reading(text, policy=positive)) for text in ("0.1", "0", "-0", "-1")] == [
        None,
        *["value_invalid"] * 3,
    ]
    assert reading("2.0", policy=whole).value == 2


# Customers and dimensions -------------------------------------------------------------------------


def test_customers_are_found_where_the_meter_says():
    """The customer's key is the meter's to name; the value's, too."""
    meter = Meter("m", "e", customer_payload_key="who", value_payload_key="seconds")
    assert read(meter, {"who": "cus_9", "seconds": "5", "value": "x"}, DEFAULT, None) == Reading(
        "cus_9", 5, ()
    )


@pytest.mark.parametrize("payload", [{"value": "1"}, {"value": "1", "stripe_customer_id": ""}])
def test_customers_that_are_missing(payload):
    """An event without the customer's key, or with an empty one, is nobody's; the message is
    Stripe's.
    """
    answer = read(TOKENS, payload, DEFAULT, None)
    assert (answer.code, answer.param) == (
        ErrorCode.CUSTOMER_MISSING,
        "payload[stripe_customer_id]",
    )
    assert answer.message.startswith(
        "Customer mapping key stripe_customer_id not found in payload."
    )


def test_customers_that_are_unknown():
    """Where the customers are listed, another one's events are refused; where they are not,
    anybody's are taken.
    """
    assert code_of(reading("1", customers={"cus_2"})) == ErrorCode.CUSTOMER_UNKNOWN
    assert code_of(reading("1", customers=set())) == ErrorCode.CUSTOMER_UNKNOWN
    assert reading("1", customers={"cus_1"}) == reading("1", customers=None)


def test_dimensions():
    """Every declared key must be there, also with an empty value; other keys are kept, and read
    past.
    """
    meter = Meter("m", "e", dimension_payload_keys=["region", "model"])
    assert reading("1", meter, region="eu", model="", plan="pro").dimensions == ("eu", "")
    answer = reading("1", meter, region="eu")
    assert (answer.code, answer.param) == (ErrorCode.DIMENSION_MISSING, "payload[model]")


@pytest.mark.parametrize(("bound", "is_taken"), [(None, True), (2, True), (1, False), (0, False)])
def test_dimensions_may_be_bounded(bound, is_taken):
    """A policy may bound how many keys there are beside the customer and the value; the bound is
    inclusive.
    """
    policy = MeterPolicy(dimensions_max=bound)
    answer = reading("1", policy=policy, region="eu", model="x")
    assert code_of(answer) == (None if is_taken else ErrorCode.TOO_MANY_DIMENSIONS)


def test_dimensions_are_bounded_for_known_customers_too():
    """The bound holds for every event, not for a customer's first alone; a value that is absent
    takes no place.
    """
    log = MeterLog([TOKENS, Meter("c", "calls", "count")], policy=MeterPolicy(dimensions_max=0))
    plain = MeterEvent("tokens", {"stripe_customer_id": "cus_1", "value": "1"})
    wide = MeterEvent("tokens", {"stripe_customer_id": "cus_1", "value": "1", "region": "eu"})
    call = MeterEvent("calls", {"stripe_customer_id": "cus_1"})
    receipts = log.append([plain, wide, plain, wide, call], now=NOW)
    assert [code_of(one) for one in receipts] == [
        None,
        "too_many_dimensions",
        None,
        "too_many_dimensions",
        None,
    ]


# Time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "now",
    [NOON.replace(hour=0), NOON, NOON.replace(hour=23, minute=59, second=59, microsecond=999_999)],
)
def test_35_calendar_days(now):
    """An event may lie 35 UTC calendar days back: from the midnight that begins May 11 on, at any
    hour of June 15.
    """
    earliest = datetime(2024, 5, 11, tzinfo=UTC)
    log = MeterLog([TOKENS])
    events = [
        MeterEvent("tokens", {"stripe_customer_id": "c", "value": "1"}, timestamp=at)
        for at in around(earliest)
    ]
    assert [code_of(one) for one in log.append(events, now=now)] == [
        "timestamp_too_far_in_past",
        None,
        None,
    ]


@pytest.mark.parametrize(
    "now", [NOON, NOON.replace(hour=23, minute=58), NOON.replace(microsecond=5)]
)
def test_5_minutes_ahead(now):
    """An event may lie up to 5 minutes ahead, to the microsecond and also beyond midnight."""
    log = MeterLog([TOKENS])
    latest = now + timedelta(minutes=5)
    events = [
        MeterEvent("tokens", {"stripe_customer_id": "c", "value": "1"}, timestamp=at)
        for at in around(latest)
    ]
    assert [code_of(one) for one in log.append(events, now=now)] == [
        None,
        None,
        "timestamp_in_future",
    ]


def around(at):
    """Return the microsecond before, the moment itself and the microsecond after it."""
    return [at - timedelta(microseconds=1), at, at + timedelta(microseconds=1)]


def test_bounds_of_time_move_at_midnight():
    """A log that runs over midnight forgets the bounds of the day before, forward and back."""
    log, first = MeterLog([TOKENS]), datetime(2024, 5, 11, tzinfo=UTC)
    payload = {"stripe_customer_id": "c", "value": "1"}
    for day, is_taken in [(15, True), (16, False), (15, True)]:
        (receipt,) = log.append(
            [MeterEvent("tokens", payload, timestamp=first)], now=NOON.replace(day=day)
        )
        assert (receipt.code is None) is is_taken


def test_time_is_no_matter_without_bounds():
    """Under the policy of histories an event may lie in any year of the calendar."""
    log = MeterLog([TOKENS], policy=MeterPolicy.history())
    payload = {"stripe_customer_id": "c", "value": "1"}
    ends = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
    receipts = log.append([MeterEvent("tokens", payload, timestamp=at) for at in ends], now=NOW)
    assert [one.outcome for one in receipts] == [Outcome.ACCEPTED] * 2


def test_messages_of_time_say_the_bound():
    """A refusal says which moment would have been taken, and which came."""
    past = time_refusal((NOW - 36 * 86_400) * SECOND, NOW * SECOND, DEFAULT)
    assert past.message == (
        "The timestamp of the meter event is too far in the past: expected one at or after "
        "1715385600 (2024-05-11T00:00:00Z), "
        "35 calendar days back, received 1715342400 (2024-05-10T12:00:00Z)."
    )
    future = time_refusal((NOW + 301) * SECOND, NOW * SECOND, DEFAULT)
    assert (
        "expected one at or before 1718453100 (2024-06-15T12:05:00Z), received 1718453101"
        in future.message
    )
    assert time_refusal(NOW * SECOND, NOW * SECOND, DEFAULT) is None
    assert time_refusal(0, NOW * SECOND, MeterPolicy.history()) is None


# The order of the checks --------------------------------------------------------------------------

# In the order of the reference, decision 24: identity first, which nothing that time changes may
# hide; time last.
FAULTS = {
    "identifier_reused": {"identifier": "taken"},
    "meter_unknown": {"event_name": "nobody"},
    "meter_inactive": {"event_name": "old"},
    "customer_missing": {"stripe_customer_id": None},
    "customer_unknown": {"stripe_customer_id": "cus_9"},
    "value_missing": {"value": None},
    "value_invalid": {"value": "much"},
    "value_too_many_digits": {"value": "1234567890123456"},
    "dimension_missing": {"region": None},
    "too_many_dimensions": {"extra": "1", "more": "2"},
    "timestamp_too_far_in_past": {"timestamp": NOW - 40 * 86_400},
    "timestamp_in_future": {"timestamp": NOW + 400},
}


def faulty(*names):
    """Return an event with some faults at once; of two that say something of one key the first is
    said.
    """
    given = {
        "event_name": "now",
        "stripe_customer_id": "cus_1",
        "value": "1",
        "region": "eu",
        "timestamp": NOW,
    }
    for name in reversed(names):
        given.update(FAULTS[name])
    name, timestamp, identifier = (
        given.pop("event_name"),
        given.pop("timestamp"),
        given.pop("identifier", None),
    )
    payload = {key: value for key, value in given.items() if value is not None}
    return MeterEvent(name, payload, identifier=identifier, timestamp=timestamp)


# A payload cannot lack its dimension and have too many beside.
PAIRS = [
    pair
    for pair in itertools.combinations(FAULTS, 2)
    if pair != ("dimension_missing", "too_many_dimensions")
]


@pytest.mark.parametrize("names", PAIRS, ids=" & ".join)
def test_one_event_has_one_refusal(names):
    """Of two faults the one that is checked first is said, and the event leaves no trace."""
    policy = MeterPolicy.stripe(dimensions_max=2, identifier_scope="global")
    meters = [Meter(name, name, dimension_payload_keys=["region"]) for name in ("now", "old")]
    log = MeterLog(meters, customers=["cus_1"], policy=policy)
    payload = {"stripe_customer_id": "cus_1", "value": "1", "region": "eu"}
    log.record("now", payload, identifier="taken", timestamp=NOW - 1, now=NOW)
    log.update_meter(log.meter("old").deactivate(NOW))
    (receipt,) = log.append([faulty(*names)], now=NOW)
    assert receipt.code == names[0]
    assert (len(log), log.sequence) == (1, 1)


# Policies -----------------------------------------------------------------------------------------


def test_what_stripe_enforces():
    """Stripe's profile is the defaults, 15 digits, and summaries of whole minutes; each can be
    changed.
    """
    assert (DEFAULT.backdate_days, DEFAULT.future_tolerance, DEFAULT.cancel_window) == (
        35,
        timedelta(minutes=5),
        timedelta(hours=24),
    )
    assert attrs.evolve(DEFAULT, significant_digits=15, aligned_summaries=True) == STRIPE
    assert MeterPolicy.stripe(significant_digits=9).significant_digits == 9
    history = MeterPolicy.history(late_usage="carry_forward")
    assert (history.backdate_days, history.future_tolerance, history.cancel_window) == (
        None,
        None,
        None,
    )
    assert history.late_usage is LateUsage.CARRY_FORWARD
    assert MeterPolicy(identifier_scope="global").identifier_scope is IdentifierScope.GLOBAL


INTEGER, OBJECT, CHOICE = (
    "parameter_invalid_integer",
    "parameter_invalid_object",
    "parameter_invalid_choice",
)
SHORT = timedelta(hours=24) - timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("param", "value", "code"),
    [
        ("backdate_days", -1, INTEGER),
        ("backdate_days", 35.0, INTEGER),
        ("backdate_days", True, INTEGER),
        ("backdate_days", timedelta(days=35), INTEGER),
        ("future_tolerance", 300, OBJECT),
        ("future_tolerance", timedelta(microseconds=-1), OBJECT),
        ("identifier_scope", "account", CHOICE),
        ("identifier_scope", None, CHOICE),
        ("identifier_retention", SHORT, OBJECT),
        ("identifier_retention", 86_400, OBJECT),
        ("significant_digits", 0, INTEGER),
        ("significant_digits", "15", INTEGER),
        ("whole_values", 1, CHOICE),
        ("positive_values", None, CHOICE),
        ("dimensions_max", -1, INTEGER),
        ("dimensions_max", False, INTEGER),
        ("cancel_window", timedelta(seconds=-1), OBJECT),
        ("cancel_window", "24h", OBJECT),
        ("batch_max", 0, INTEGER),
        ("aligned_summaries", "yes", CHOICE),
        ("late_usage", "carry", CHOICE),
        ("late_usage", None, CHOICE),
    ],
)
def test_policies_that_cannot_be(param, value, code):
    """A policy with nonsense in it cannot be built; the error has a code, names the field, and says
    what came.
    """
    with pytest.raises(InvalidValueError) as refusal:
        MeterPolicy(**{param: value})
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert refusal.value.message.startswith(f"{param}: expected ")
    assert "received " in refusal.value.message


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("backdate_days", 0),
        ("future_tolerance", timedelta(0)),
        ("identifier_retention", timedelta(hours=24)),
        ("significant_digits", 1),
        ("dimensions_max", 0),
        ("cancel_window", timedelta(0)),
        ("batch_max", 1),
    ],
)
def test_policies_at_their_bounds(param, value):
    """The least that a policy can say is taken."""
    assert getattr(MeterPolicy(**{param: value}), param) == value


def test_days_that_no_calendar_has():
    """A policy of more days back than there were refuses nothing, and breaks nothing."""
    log = MeterLog(
        [TOKENS], policy=MeterPolicy(backdate_days=10**9, future_tolerance=timedelta.max)
    )
    payload = {"stripe_customer_id": "c", "value": "1"}
    events = [
        MeterEvent("tokens", payload, timestamp=datetime(year, 1, 1, tzinfo=UTC))
        for year in (1, 9999)
    ]
    assert [one.code for one in log.append(events, now=NOW)] == [None, None]
