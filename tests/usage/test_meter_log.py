"""The meter log: what it keeps, what it answers, and what a retry, a cancellation and a view make
of it.
"""

from __future__ import annotations

import random
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from builders import DAY, JAN, START, priced, subscribed
from hypothesis import given, settings
from hypothesis import strategies as st
from meter_oracle import SECOND, Seen, measured

from metering_core import (
    BillingPeriod,
    Outcome,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    UsageLog,
)
from metering_core.aggregation import summarize
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, UsageRejectedError
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meter_views import MeterReader
from metering_core.meters import Meter

HOUR = 3600
NOW = START + DAY // 2  # 2024-01-01T12:00:00Z
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - the point of it
MICRO = timedelta(microseconds=1)
TOKENS = Meter("mtr_tokens", "tokens")


def paid(value="1", customer="cus_1", **dimensions):
    return {"stripe_customer_id": customer, "value": value, **dimensions}


def event(value="1", *, at=NOW, name="tokens", identifier=None, customer="cus_1", **dimensions):
    return MeterEvent(
        name, paid(value, customer, **dimensions), identifier=identifier, timestamp=at
    )


def item_on(meter="mtr_tokens", id="si"):
    return SubscriptionItem(
        id, Price.per_unit("p", currency="usd", unit_amount=1, recurring=Recurring(meter=meter))
    )


def billed_to(customer="cus_1", *items, id="sub"):
    return Subscription(id, items or [item_on()], START, customer=customer)


def total(usage, item=None, period=JAN):
    return summarize(item or item_on(), usage, period).total_usage


def of(formula, **options):
    """Return a log with one meter of a formula, billed to ``cus_1``."""
    return MeterLog(
        [Meter("mtr_tokens", "tokens", formula, **options)],
        [billed_to()],
        policy=MeterPolicy.history(),
    )


# The door -----------------------------------------------------------------------------------------


def test_record_returns_the_event_resolved():
    """An accepted event comes back as it was sent, ``"now"`` resolved to the moment of receipt."""
    log = MeterLog([TOKENS])
    sent = log.record("tokens", paid("25"), now=NOON + MICRO)
    assert (sent.instant, sent.payload) == (NOON + MICRO, paid("25"))
    assert log.record("tokens", paid("25"), timestamp=NOW - 5, identifier="a", now=NOW) == event(
        "25", at=NOW - 5, identifier="a"
    )


def test_a_clock_gives_the_now():
    """The log's clock is asked where a call gives no now, and not where it does."""
    times = iter([NOW, NOON + timedelta(hours=1)])
    log = MeterLog([TOKENS], clock=lambda: next(times))
    log.record("tokens", paid())
    log.record("tokens", paid(), now=NOW + 60)
    log.append([event(identifier="a", at="now")])
    assert [one.received_at for one in log.events()] == [
        NOON,
        NOON + timedelta(minutes=1),
        NOON + timedelta(hours=1),
    ]


def test_refused_events_are_raised_and_leave_no_trace():
    """A refusal of a single event is raised with its code, param and details; the log is as
    before.
    """
    log = MeterLog([TOKENS])
    with pytest.raises(UsageRejectedError) as refusal:
        log.record("tokens", {"value": "1"}, identifier="a", now=NOW)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.CUSTOMER_MISSING,
        "payload[stripe_customer_id]",
    )
    assert (len(log), log.sequence, log.events(), log.customers("mtr_tokens")) == (0, 0, [], [])


def test_receipts_come_in_order():
    """A batch is judged one by one: each event has its receipt, and one that is refused stops no
    other.
    """
    log = MeterLog([TOKENS])
    batch = [
        event(),
        event("much"),
        event(name="nobody"),
        event(identifier="a"),
        event(identifier="a"),
        event("2", identifier="a"),
    ]
    receipts = log.append(batch, now=NOW)
    assert [one.code or one.outcome for one in receipts] == [
        "accepted",
        "value_invalid",
        "meter_unknown",
        "accepted",
        "duplicate",
        "identifier_reused",
    ]
    assert [one.sequence for one in receipts][:5] == [1, None, None, 2, 2]
    assert (len(log), log.sequence) == (2, 2)


DOOR_METERS = [
    TOKENS,
    Meter("mtr_peaks", "peaks", "max"),
    Meter("mtr_calls", "calls", "count"),
    Meter("mtr_users", "users", "unique_count"),
    Meter("mtr_routed", "routed", dimension_payload_keys=["plan"]),
    Meter("mtr_coarse", "coarse", decimal_places=1),
]


def plain_events(*names):
    """Draw events that a meter may take without a further look, by names of meters that are read
    alike.
    """
    drawn = st.tuples(
        st.sampled_from(names),
        st.sampled_from(["cus_1", "cus_2"]),
        st.sampled_from(["0", "7", "123456789012345", "2.5", "-1", "07", "0.0000001"]),
        st.sampled_from([NOW, NOW - 1, NOW + 300, NOON - MICRO]),
        st.sampled_from(["pro", "free"]),
    )
    return drawn.map(
        lambda one: event(
            one[2], at=one[3], name=one[0], customer=one[1], **planned(one[0], one[4])
        )
    )


def planned(name, plan):
    return {"plan": plan} if name == "routed" else {}


plain_batches = st.sampled_from(
    [("tokens", "peaks"), ("calls",), ("users",), ("routed",), ("coarse",), ("routed", "calls")]
).flatmap(lambda names: st.lists(plain_events(*names), min_size=1, max_size=4))
ODD_EVENTS = [
    event("2.5"),
    event("07"),
    event("-1"),
    event("much"),
    event(""),
    event("\N{ARABIC-INDIC DIGIT SEVEN}"),
    event("1234567890123456"),
    event(at="now"),
    event(at=NOW + 301),
    event(at=NOW - 36 * DAY),
    event(identifier="a"),
    event(name="nobody"),
    event("7", name="calls"),
    event(customer="cus_3"),
    event(customer=""),
    event(plan="pro"),
    event(name="calls", plan="pro"),
    event(name="routed"),
    event(name="routed", plan="pro", trace="1"),
    event("", name="users"),
    event("2.55", name="coarse"),
    MeterEvent("calls", {"stripe_customer_id": "cus_1"}, timestamp=NOW),
    MeterEvent("calls", {"stripe_customer_id": "cus_1", "plan": "pro"}, timestamp=NOW),
    MeterEvent("users", {"stripe_customer_id": "cus_1"}, timestamp=NOW),
    MeterEvent("tokens", {"stripe_customer_id": "cus_1", "plan": "pro"}, timestamp=NOW),
    MeterEvent("tokens", {"value": "1", "plan": "cus_1"}, timestamp=NOW),
]
BATCHES = st.tuples(
    st.lists(plain_batches, max_size=4),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(ODD_EVENTS)), max_size=2),
    st.sampled_from([NOW, NOW + DAY]),
)
POLICIES = pytest.mark.parametrize(
    ("policy", "customers"),
    [
        (MeterPolicy(), ["cus_1", "cus_2"]),
        (MeterPolicy(), None),
        (MeterPolicy.stripe(), None),
        (MeterPolicy(dimensions_max=0), ["cus_1", "cus_2"]),
        (MeterPolicy(dimensions_max=1, significant_digits=1, positive_values=True), None),
    ],
    ids=["ours", "anybody's", "stripe", "narrow", "strict"],
)


@POLICIES
@settings(max_examples=max(settings().max_examples // 4, 1))
@given(BATCHES)
def test_batches_are_judged_one_by_one(policy, customers, batches):
    """Whatever is in a batch, its receipts and what the log holds then are those of its events
    appended one at a time.
    """
    agree_one_by_one(policy, customers, batches)


@POLICIES
@pytest.mark.parametrize("odd", range(len(ODD_EVENTS)))
def test_one_odd_event_is_judged_by_itself(policy, customers, odd):
    """An event that is not plain is judged the same among plain ones as alone, and so are they."""
    agree_one_by_one(
        policy, customers, ([[event(), event(customer="cus_2")]], [(1, ODD_EVENTS[odd])], NOW)
    )


def agree_one_by_one(policy, customers, batches):
    together, alone = (
        MeterLog(DOOR_METERS, [billed_to()], customers=customers, policy=policy) for _ in range(2)
    )
    nobodys = event(
        name="nobody"
    )  # Refused without a trace; beside it, an event is judged by itself.
    plain, odd, now = batches
    for batch in plain:
        for at, one in odd:
            batch.insert(at, one)
        receipts = [
            (one.outcome, one.code, one.sequence, one.message)
            for one in together.append(batch, now=now)
        ]
        single = [alone.append([one, nobodys], now=now)[0] for one in batch]
        assert receipts == [(one.outcome, one.code, one.sequence, one.message) for one in single]
    assert together == alone
    assert total(together) == total(alone)


@POLICIES
def test_what_a_log_has_seen_changes_no_receipt(policy, customers):
    """An event of a known series and with a known value hears what it hears from a log that has
    seen nothing, and is kept.
    """
    names, plans = [meter.event_name for meter in DOOR_METERS], ["pro", "free"]
    warm = [
        event(value, name=name, **planned(name, plan))
        for name in names
        for value in ("7", "2.5")
        for plan in plans
    ]
    odd = [one for one in ODD_EVENTS if one.identifier is None]
    log = MeterLog(DOOR_METERS, customers=customers, policy=policy)
    log.append(warm, now=NOW)
    for one in [*warm, *odd, *odd]:
        (seen,) = log.append([one], now=NOW)
        (first,) = MeterLog(DOOR_METERS, customers=customers, policy=policy).append([one], now=NOW)
        assert (seen.outcome, seen.code, seen.message) == (first.outcome, first.code, first.message)
        if seen.outcome is Outcome.ACCEPTED and one.microseconds is not None:
            assert log.events()[-1].event == one


def test_few_digits_are_counted_in_small_numbers_too():
    """A bound below 15 digits holds for whole numbers of few digits; zeros at the end are none of
    them.
    """
    log = MeterLog([TOKENS], policy=MeterPolicy(significant_digits=3))
    receipts = log.append([event(value) for value in ("123", "1230", "1234", "12.34")], now=NOW)
    assert [one.code for one in receipts] == [
        None,
        None,
        "value_too_many_digits",
        "value_too_many_digits",
    ]


def test_many_different_values_are_read_as_few():
    """A log forgets what it has read off texts once they are many; what it holds is the same."""
    log = MeterLog([TOKENS], [billed_to()])
    for value in [*range(5_000), 7]:
        log.record("tokens", paid(str(value)), now=NOW)
    log.append([event(str(value)) for value in range(5_000)], now=NOW)
    assert total(log) == 2 * sum(range(5_000)) + 7


def test_an_event_of_a_subclass_is_an_event():
    """Users may derive from the event; a log keeps what it says."""

    class TokenEvent(MeterEvent):
        pass

    log = MeterLog([TOKENS])
    derived = TokenEvent("tokens", {"stripe_customer_id": "cus_1", "value": "7"}, timestamp=NOW)
    assert log.append([derived, event("5")], now=NOW).accepted == 2
    assert [one.event.payload["value"] for one in log.events()] == ["7", "5"]


def test_a_batch_keeps_what_was_sent():
    """Other keys of a payload are kept with the event, also in a batch of events that are plain but
    for them.
    """
    log = MeterLog([TOKENS])
    batch = [event(), event(plan="pro"), event("7", customer="cus_2")]
    for _ in range(2):
        log.append(batch, now=NOW)
    assert [one.event for one in log.events()] == batch * 2


def test_an_empty_batch_is_no_event():
    """Nothing appended is nothing answered; the stream alone asks for at least one event."""
    log = MeterLog([TOKENS])
    assert list(log.append([], now=NOW)) == []
    assert log.append(iter([event()]), now=NOW)[0].outcome is Outcome.ACCEPTED


def test_repr_and_counts():
    """The log counts meters, events and numbers; a canceled event stays an event, and a
    cancellation has a number.
    """
    log = MeterLog([TOKENS])
    log.append([event(identifier="a"), event()], now=NOW)
    log.cancel("tokens", "a", now=NOW)
    assert (len(log), log.sequence, log.meters) == (2, 3, (TOKENS,))
    assert repr(log) == "<MeterLog: 1 meters, 2 events, sequence 3>"


# Identifiers --------------------------------------------------------------------------------------


def test_id_1():
    """ID-1: 2, the same again under the same identifier, and 3 make 5."""
    log = MeterLog([TOKENS], [billed_to()])
    for value, identifier in [("2", "a"), ("2", "a"), ("3", "b")]:
        log.record("tokens", paid(value), identifier=identifier, timestamp=NOW, now=NOW)
    assert (total(log), len(log)) == (5, 2)


def test_id_2():
    """ID-2: the first identifier with other content is refused in Stripe's words, and the sum
    stays.
    """
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("2", identifier="a"), event("3", identifier="b")], now=NOW)
    with pytest.raises(
        UsageRejectedError,
        match=r"^An event already exists with identifier a\. Expected .*, received ",
    ) as refusal:
        log.record("tokens", paid("4"), identifier="a", timestamp=NOW, now=NOW)
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.IDENTIFIER_REUSED, "identifier")
    assert refusal.value.details["first"]["payload"]["value"] == "2"
    assert total(log) == 5


@pytest.mark.parametrize(
    "other",
    [
        {"value": "1.0"},
        {"value": "01"},
        {"at": NOW + 1},
        {"at": NOON + MICRO},
        {"at": "now"},
        {"customer": "cus_2"},
        {"plan": "pro"},
    ],
    ids=str,
)
def test_what_makes_content_another(other):
    """Same content is the same texts and the same moment: 1 and 1.0 are not, though they are equal
    numbers.
    """
    log = MeterLog([TOKENS])
    log.append([event(identifier="a")], now=NOW)
    (receipt,) = log.append([event(identifier="a", **other)], now=NOW)
    assert receipt.code == ErrorCode.IDENTIFIER_REUSED


@pytest.mark.parametrize("formula", ["sum", "count", "unique_count", "last"])
@pytest.mark.parametrize(
    "payload",
    [paid("5"), paid("005"), paid("5.0"), paid("5", plan="pro"), paid("5", region="eu")],
    ids=lambda payload: "-".join(payload.values()),
)
@pytest.mark.parametrize("at", ["now", NOW, NOON - timedelta(seconds=1, microseconds=3)], ids=str)
def test_retries_are_duplicates(formula, payload, at):
    """Whatever the payload and the time, the same content is a duplicate, answered with the event
    accepted first.
    """
    keys = ["region"] if "region" in payload else []
    log = MeterLog([Meter("m", "e", formula, dimension_payload_keys=keys)])
    first = log.record("e", payload, identifier="a", timestamp=at, now=NOW)
    later = log.record("e", payload, identifier="a", timestamp=at, now=NOW + 90 * DAY)
    assert later == first == log.events()[0].event
    assert (len(log), log.sequence, dict(first.payload)) == (1, 1, payload)


def test_a_count_without_a_value_is_kept_as_it_was_sent():
    """An event without a value is not one with the value 1: what was sent is what the log shows and
    compares.
    """
    log = MeterLog([Meter("m", "e", "count")])
    bare = {"stripe_customer_id": "cus_1"}
    assert log.record("e", bare, identifier="a", now=NOW).payload == bare
    (receipt,) = log.append([MeterEvent("e", paid("1"), identifier="a")], now=NOW)
    assert receipt.code == ErrorCode.IDENTIFIER_REUSED


def test_a_retry_is_a_duplicate_whatever_became_of_the_meter():
    """Identity is judged before status and time: a retry hears ``duplicate`` of an inactive meter
    and a year later, too.
    """
    log = MeterLog([TOKENS])
    log.append([event(identifier="a")], now=NOW)
    log.update_meter(TOKENS.deactivate(NOW))
    again, other, new = log.append(
        [event(identifier="a"), event("2", identifier="a"), event()], now=NOW + 365 * DAY
    )
    assert (again.outcome, again.sequence) == (Outcome.DUPLICATE, 1)
    assert (other.code, new.code) == (ErrorCode.IDENTIFIER_REUSED, ErrorCode.METER_INACTIVE)


def test_a_refused_event_burns_no_identifier():
    """An event that was refused can be corrected and sent again under its identifier."""
    log = MeterLog([TOKENS])
    receipts = log.append(
        [event("much", identifier="a"), event("2", identifier="a"), event("2", identifier="a")],
        now=NOW,
    )
    assert [one.code or one.outcome for one in receipts] == [
        "value_invalid",
        "accepted",
        "duplicate",
    ]


def test_a_canceled_event_keeps_its_identifier():
    """A late retry of a canceled event does not bring it back, and nothing else can have its
    identifier.
    """
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("5", identifier="a")], now=NOW)
    log.cancel("tokens", "a", now=NOW)
    same, other = log.append([event("5", identifier="a"), event("7", identifier="a")], now=NOW)
    assert (same.outcome, other.code, total(log)) == (
        Outcome.DUPLICATE,
        ErrorCode.IDENTIFIER_REUSED,
        0,
    )


def test_identifiers_belong_to_an_event_name():
    """One request's id feeds two meters, unless the policy makes identifiers unique in all of the
    log.
    """
    calls = Meter("mtr_calls", "calls", "count")
    batch = [
        event(identifier="a"),
        event(identifier="a", name="calls"),
        event(identifier="a", name="nobody"),
    ]
    log, one_scope = (
        MeterLog([TOKENS, calls]),
        MeterLog([TOKENS, calls], policy=MeterPolicy(identifier_scope="global")),
    )
    assert [one.code for one in log.append(batch, now=NOW)] == [None, None, "meter_unknown"]
    # With one scope identity is judged even before it is asked whether there is such a meter.
    assert [one.code for one in one_scope.append(batch, now=NOW)] == [
        None,
        "identifier_reused",
        "identifier_reused",
    ]


def test_global_identifiers_are_canceled_by_their_name():
    """With one scope for all names an event is still canceled by its own name only."""
    log = MeterLog(
        [TOKENS, Meter("mtr_calls", "calls", "count")],
        policy=MeterPolicy(identifier_scope="global"),
    )
    log.append([event(identifier="a")], now=NOW)
    with pytest.raises(UsageRejectedError) as refusal:
        log.cancel("calls", "a", now=NOW)
    assert refusal.value.code == ErrorCode.EVENT_NOT_FOUND
    assert log.cancel("tokens", "a", now=NOW).identifier == "a"


def test_retention():
    """A rolling period of 24 hours is counted from receipt, inclusive: a microsecond later the
    identifier is free again.
    """
    log = MeterLog(
        [TOKENS], [billed_to()], policy=MeterPolicy(identifier_retention=timedelta(days=1))
    )
    sent = event("5", identifier="a", at=NOW - 3600)
    at_the_end, after = NOON + timedelta(days=1), NOON + timedelta(days=1) + MICRO
    outcomes = [log.append([sent], now=now)[0].outcome for now in (NOON, at_the_end, after, after)]
    assert outcomes == [Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert total(log) == 10
    # The newest event under an identifier is the one that is canceled.
    log.cancel("tokens", "a", now=after)
    assert ([one.canceled_at is None for one in log.events()], total(log)) == ([True, False], 5)


# Formulas through the log -------------------------------------------------------------------------

WORKED = [
    ("3", 0),
    ("-1", 1),
    ("0", 2),
    ("3.0", 3),
    ("0.5", 3),
]  # A value an hour; the last two at one moment.


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("sum", Decimal("5.5")),
        ("count", 5),
        ("last", Decimal("0.5")),
        ("max", 3),
        ("min", -1),
        ("unique_count", 5),  # 3 and 3.0 are two texts.
        ("average", Decimal("1.1")),
        # 3 from hour 0 on, 2 from hour 1, 2 from hour 2, 5.5 from hour 3 to the end of the 744
        # hours of January.
        ("weighted_sum", (Fraction(3) + 2 + 2 + Fraction(11, 2) * 741) / 744),
    ],
)
def test_each_formula_once(formula, value):
    """Five events of one customer by every formula, worked out by hand; another customer's change
    nothing.
    """
    log = of(formula)
    log.append([event(text, at=START + hour * HOUR) for text, hour in WORKED], now=NOW)
    log.append([event("1000", at=START, customer="cus_2")], now=NOW)
    found = total(log)
    assert (found, type(found)) == (value, type(value))


def test_exact_to_the_last_digit():
    """A hundred digits before the point and a hundred after it survive a sum, whatever a float
    would make of them.
    """
    log = of("sum")
    log.append(
        [event("9" * 100), event("0." + "0" * 99 + "1"), event("0.1"), event("0.2")], now=NOW
    )
    assert Fraction(total(log)) == 10**100 - 1 + Fraction(1, 10**100) + Fraction(3, 10)


def test_negative_totals_stay_negative():
    """The measured total may fall below zero; what is billed does not."""
    log = of("sum")
    log.append([event("5"), event("-12.5")], now=NOW)
    summary = summarize(item_on(), log, JAN)
    assert (summary.total_usage, summary.billable_usage) == (Decimal("-7.5"), 0)


def test_zero_is_a_value():
    """Zero ends a gauge: ``last`` is 0, the least is 0, and the event counts."""
    for formula, value in [("last", 0), ("min", 0), ("count", 2), ("average", 2)]:
        log = of(formula)
        log.append([event("4"), event("0", at=NOW + 1)], now=NOW)
        assert total(log) == value


def test_last_is_by_time_and_not_by_arrival():
    """An older event that arrives late is not the last one; of two at one moment the one received
    later is.
    """
    log = of("last")
    log.append([event("3", at=NOW), event("9", at=NOW - 1), event("4", at=NOW)], now=NOW)
    assert total(log) == 4


def test_carry_forward_looks_back():
    """A gauge set in January is February's value, too, where the meter carries it; else February is
    0.
    """
    feb = BillingPeriod(JAN.end, START + 60 * DAY)
    for carries, value in [(True, 7), (False, 0)]:
        log = of("last", carry_forward=carries)
        log.append([event("7")], now=NOW)
        assert (total(log), total(log, period=feb)) == (7, value)


def test_dimensions_add_up_to_the_customer():
    """A bill counts all dimension values of a customer together, by every formula as if there were
    none.
    """
    for formula, value in [
        ("sum", 9),
        ("count", 3),
        ("last", 2),
        ("max", 4),
        ("unique_count", 3),
        ("average", 3),
    ]:
        log = of(formula, dimension_payload_keys=["region"])
        rows = [("3", "eu", 1), ("2", "us", 3), ("4", "eu", 2)]
        log.append([event(text, at=NOW + at, region=region) for text, region, at in rows], now=NOW)
        assert total(log) == value


histories = st.lists(
    st.tuples(
        st.integers(0, 5 * HOUR),
        st.sampled_from(["cus_1", "cus_1", "cus_2"]),
        st.sampled_from(["eu", "us"]),
        st.decimals(-99, 99, places=2).map(lambda number: f"{number:f}"),
    ),
    max_size=25,
)


@pytest.mark.parametrize("window", [None, "hour", "day"])
@pytest.mark.parametrize(
    "formula", ["sum", "count", "last", "max", "min", "unique_count", "average", "weighted_sum"]
)
@settings(max_examples=max(settings().max_examples // 8, 1))
@given(histories, st.integers(0, 2 * HOUR), st.integers(1, 5 * HOUR))
def test_any_window_of_any_events(formula, window, rows, start, length):
    """Whatever is sent in whatever order, any range comes to what the slow reader says."""
    log = MeterLog(
        [
            Meter(
                "mtr_tokens",
                "tokens",
                formula,
                event_time_window=window,
                dimension_payload_keys=["region"],
            )
        ],
        [billed_to()],
    )
    log.append(
        [event(text, at=START + at, customer=who, region=region) for at, who, region, text in rows],
        now=NOW,
    )
    seen = [
        Seen(number, (START + at) * SECOND, who, (region,), text)
        for number, (at, who, region, text) in enumerate(rows, 1)
        if who == "cus_1"
    ]
    start, end = START + start, START + start + length
    expected = measured(formula, seen, start * SECOND, end * SECOND, window=window)
    assert total(log, period=BillingPeriod(start, end)) == expected


@pytest.mark.parametrize("window", [None, "hour"])
@pytest.mark.parametrize(
    "formula", ["sum", "count", "last", "max", "min", "unique_count", "average", "weighted_sum"]
)
@settings(max_examples=max(settings().max_examples // 25, 1))
@given(st.integers(0, 2**32))
def test_what_was_asked_before_does_not_matter(formula, window, number):
    """A log that keeps partials answers as one that is asked for the first time, whatever came late
    or went in between.
    """
    meter = Meter("mtr_tokens", "tokens", formula, event_time_window=window)
    log, seen = MeterLog([meter], [billed_to()]), {}
    # A source of its own: Hypothesis has no room for so many choices, and nothing here gets
    # smaller.
    source = random.Random(number)  # noqa: S311 - dice
    for turn in range(5):
        # Thirty seconds, an hour or two days, so that some blocks of time are full and others are
        # not; now and then in order.
        width, later = source.choice([(30, 40 * turn), (30, 0), (HOUR, 0), (2 * DAY, 0)])
        moments = [
            START + DAY // 4 + later + source.randrange(width)
            for _ in range(source.randrange(1, 60))
        ]
        for at in sorted(moments) if later else moments:
            text = str(source.randrange(-99, 99))
            (receipt,) = log.append(
                [event(text, at=at, identifier=str(len(seen)))], now=NOW + 3 * DAY
            )
            seen[str(len(seen))] = Seen(receipt.sequence, at * SECOND, "cus_1", (), text)
        for identifier in source.sample(sorted(seen), len(seen) // 10):
            log.cancel("tokens", identifier, now=NOW + 3 * DAY)
            seen[identifier] = None
        standing = [one for one in seen.values() if one is not None]
        for _ in range(4):
            start = START + DAY // 4 + source.randrange(-60, HOUR)
            end = start + source.choice([1, 15, 60, HOUR, DAY])
            expected = measured(formula, standing, start * SECOND, end * SECOND, window=window)
            assert total(log, period=BillingPeriod(start, end)) == expected


# Event time windows -------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "value"), [(None, 16), ("hour", 14), ("day", 9)])
def test_the_one_received_last_in_a_window_counts(window, value):
    """Of events in one UTC hour or day the one received last counts, also where an earlier moment
    is received later.
    """
    log = of("sum", event_time_window=window)
    # At 12:59:59 and 12:00:00, then at 13:00:00; the day after at 00:00:00.
    sent = [("2", HOUR - 1), ("5", 0), ("1", HOUR), ("8", 12 * HOUR)]
    log.append([event(text, at=NOW + after) for text, after in sent], now=NOW)
    # By the hour 5 + 1 + 8, by the day 1 + 8.
    assert total(log) == value


def test_windows_belong_to_a_customer_and_a_set_of_dimension_values():
    """An event overwrites none of another customer or with other dimension values."""
    log = of("sum", event_time_window="hour", dimension_payload_keys=["region", "model"])
    for text, region, model in [
        ("1", "eu", "a"),
        ("2", "us", "a"),
        ("4", "eu", "b"),
        ("8", "eu", "a"),
    ]:
        log.append([event(text, region=region, model=model)], now=NOW)
    log.append([event("16", customer="cus_2", region="us", model="a")], now=NOW)
    assert total(log) == 2 + 4 + 8


def test_counts_and_lasts_of_windows():
    """A count is that of the windows with an event; the last is the winner of the latest window."""
    rows = [("1", 0), ("2", 60), ("3", HOUR), ("9", 2 * HOUR + 60), ("4", 2 * HOUR)]
    for formula, value in [("count", 3), ("last", 4), ("max", 4), ("min", 2), ("average", 3)]:
        log = of(formula, event_time_window="hour")
        log.append([event(text, at=NOW + after) for text, after in rows], now=NOW)
        assert total(log) == value


def test_a_cut_window_belongs_to_its_winners_side():
    """A range that cuts an hour has all of it where the event that counts is in the range, else
    nothing.
    """
    log = of("sum", event_time_window="hour")
    log.append([event("5", at=NOW + 2400), event("7", at=NOW + 1200)], now=NOW)
    first, second = BillingPeriod(NOW, NOW + 1800), BillingPeriod(NOW + 1800, NOW + 3600)
    assert (total(log, period=first), total(log, period=second)) == (7, 0)


def test_cancellation_makes_the_former_winner_count_again():
    """Canceling the winner of a window is as if it had never been received; canceling an
    overwritten event changes nothing.
    """
    log = of("sum", event_time_window="hour")
    log.append(
        [event(text, identifier=name) for text, name in [("1", "a"), ("2", "b"), ("4", "c")]],
        now=NOW,
    )
    found = [total(log)]
    for name in ("b", "c", "a"):
        log.cancel("tokens", name, now=NOW)
        found.append(total(log))
    assert found == [4, 4, 1, 0]
    log.append([event("8")], now=NOW)
    assert total(log) == 8


# Cancellation -------------------------------------------------------------------------------------


def test_canceling_twice_changes_nothing():
    """The second cancellation returns the first, also when the window has long closed, and has no
    number.
    """
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("5", identifier="a"), event("2")], now=NOW)
    first = log.cancel("tokens", "a", now=NOW + 60)
    assert (first.event_name, first.identifier, first.sequence) == ("tokens", "a", 3)
    assert first.canceled_at == NOON + timedelta(minutes=1)
    assert log.cancel("tokens", "a", now=NOW + 9 * DAY) == first
    assert (total(log), log.sequence) == (2, 3)


@pytest.mark.parametrize(
    ("window", "after", "is_taken"),
    [
        (timedelta(hours=24), timedelta(hours=24), True),
        (timedelta(hours=24), timedelta(hours=24) + MICRO, False),
        (timedelta(0), timedelta(0), True),
        (timedelta(0), MICRO, False),
        (None, timedelta(days=9000), True),
    ],
    ids=str,
)
def test_the_cancel_window_counts_from_receipt(window, after, is_taken):
    """An event can be canceled for so long after it was received, inclusive, whenever it
    happened.
    """
    log = MeterLog([TOKENS], policy=MeterPolicy(cancel_window=window))
    log.append([event(identifier="a", at=NOW - 20 * DAY)], now=NOON)
    if is_taken:
        assert log.cancel("tokens", "a", now=NOON + after).canceled_at == NOON + after
        return
    with pytest.raises(UsageRejectedError) as refusal:
        log.cancel("tokens", "a", now=NOON + after)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.CANCEL_WINDOW_CLOSED,
        "cancel[identifier]",
    )
    assert "expected a moment at or before" in refusal.value.message
    assert (log.events()[0].canceled_at, log.sequence) == (None, 1)


@pytest.mark.parametrize(("name", "identifier"), [("tokens", "b"), ("calls", "a"), ("nobody", "a")])
def test_what_is_not_there_cannot_be_canceled(name, identifier):
    """An unknown identifier, another event name or no such meter: there is no such event."""
    log = MeterLog([TOKENS, Meter("mtr_calls", "calls", "count")])
    log.append([event(identifier="a"), event()], now=NOW)
    with pytest.raises(UsageRejectedError) as refusal:
        log.cancel(name, identifier, now=NOW)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.EVENT_NOT_FOUND,
        "cancel[identifier]",
    )
    assert f"received {identifier!r}" in refusal.value.message
    assert log.sequence == 2


def test_events_of_an_inactive_meter_can_be_canceled():
    """Deactivation refuses events, not corrections of those there are."""
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("5", identifier="a")], now=NOW)
    log.update_meter(TOKENS.deactivate(NOW))
    assert total(log) == 5
    log.cancel("tokens", "a", now=NOW)
    assert total(log) == 0


# Views --------------------------------------------------------------------------------------------


def test_views_by_number():
    """A view by number shows events and cancellations up to and including it, whatever came
    since.
    """
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("1", identifier="a"), event("2")], now=NOW)
    log.cancel("tokens", "a", now=NOW)
    log.append([event("4")], now=NOW)
    views = [log.as_of(number) for number in range(5)]
    assert [total(view) for view in views] == [0, 1, 3, 2, 6]
    assert [view.sequence for view in views] == [0, 1, 2, 3, 4]
    log.append([event("8")], now=NOW)
    assert [total(view) for view in views] == [0, 1, 3, 2, 6]
    assert (total(log), repr(views[2])) == (14, "<MeterView up to sequence 2>")


def test_views_by_moment():
    """A view by moment shows what had been received by then, inclusive to the microsecond, before
    and after a cancellation.
    """
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("1", identifier="a")], now=NOON)
    log.append([event("2")], now=NOON + timedelta(minutes=1))
    log.cancel("tokens", "a", now=NOON + timedelta(minutes=2))
    moments = [
        NOON - MICRO,
        NOON,
        NOON + timedelta(minutes=1),
        NOON + timedelta(minutes=2) - MICRO,
        NOON + timedelta(minutes=2),
    ]
    views = [log.as_of(at) for at in moments]
    assert [total(view) for view in views] == [0, 1, 3, 3, 2]
    assert repr(views[1]) == "<MeterView up to sequence 3, received by 2024-01-01 12:00:00+00:00>"
    # What comes later by number is not shown, even if it says that it was received before.
    log.append([event("4")], now=NOON - timedelta(hours=1))
    assert [total(view) for view in views] == [0, 1, 3, 3, 2]


def test_views_of_views():
    """A view of a view shows what both show."""
    log = MeterLog([TOKENS], [billed_to()])
    for minute in range(4):
        log.append([event(str(2**minute))], now=NOW + 60 * minute)
    early = NOON + timedelta(minutes=1)
    assert total(log.as_of(3).as_of(2)) == 3
    assert total(log.as_of(2).as_of(3)) == 3
    assert total(log.as_of(early).as_of(4)) == 3
    assert total(log.as_of(NOON + timedelta(minutes=2)).as_of(early)) == 3
    assert total(log.as_of(early).as_of(NOON + timedelta(minutes=2))) == 3
    assert total(log.as_of(1).as_of(early)) == 1


def test_readers_say_what_they_show():
    """What only a log or a view can say is no reader's: the base has no answer of its own."""
    reader = MeterReader()
    for ask in (lambda: reader.sequence, reader._log, reader._readings, lambda: reader._sees(1, 1)):
        with pytest.raises(NotImplementedError):
            ask()


def test_events_are_listed():
    """Events are listed in the order of arrival with number, receipt and cancellation; by meter, by
    customer, or both.
    """
    log = MeterLog([TOKENS, Meter("mtr_calls", "calls", "count")])
    batch = [event(identifier="a"), event(name="calls"), event(customer="cus_2")]
    log.append(batch, now=NOON + MICRO)
    log.cancel("tokens", "a", now=NOON + 2 * MICRO)
    listed = log.events()
    assert [(one.sequence, one.received_at, one.event) for one in listed] == [
        (number, NOON + MICRO, sent) for number, sent in enumerate(batch, 1)
    ]
    assert [one.canceled_at for one in listed] == [NOON + 2 * MICRO, None, None]
    assert [one.sequence for one in log.events("mtr_tokens")] == [1, 3]
    assert [one.sequence for one in log.events(customer="cus_1")] == [1, 2]
    assert [one.sequence for one in log.events("mtr_tokens", "cus_2")] == [3]
    assert log.events(customer="cus_9") == []
    before = log.as_of(2).events()
    assert [(one.sequence, one.canceled_at) for one in before] == [(1, None), (2, None)]
    assert log.customers("mtr_tokens") == ["cus_1", "cus_2"]
    assert log.as_of(2).customers("mtr_tokens") == ["cus_1"]


# Meters, customers, subscriptions -----------------------------------------------------------------


def test_meters_come_and_change():
    """A meter can come later; its name and status change, and nothing else of it."""
    log = MeterLog()
    assert log.append([event()], now=NOW)[0].code == ErrorCode.METER_UNKNOWN
    log.create_meter(TOKENS)
    log.append([event()], now=NOW)
    renamed = Meter("mtr_tokens", "tokens", display_name="Tokens used")
    log.update_meter(renamed)
    assert (log.meter("mtr_tokens"), log.meters) == (renamed, (renamed,))
    with pytest.raises(InvalidValueError) as refusal:
        log.update_meter(Meter("mtr_tokens", "tokens", "max"))
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.METER_CHANGED, "formula")
    assert log.meter("mtr_tokens") == renamed


def test_a_reactivated_meter_takes_events_again():
    """Deactivated, active again: events are refused in between and nothing is buffered."""
    log = MeterLog([TOKENS])
    codes = []
    for meter in (TOKENS, TOKENS.deactivate(NOW), TOKENS):
        log.update_meter(meter)
        codes.append(log.append([event()], now=NOW)[0].code)
    assert codes == [None, ErrorCode.METER_INACTIVE, None]
    assert len(log) == 2


@pytest.mark.parametrize(
    ("meter", "param"),
    [
        (Meter("mtr_tokens", "other"), "id"),
        (Meter("mtr_other", "tokens"), "event_name"),
        (TOKENS, "id"),
    ],
)
def test_names_of_meters_are_taken_for_ever(meter, param):
    """An id and an event name belong to one meter, also when it is inactive."""
    log = MeterLog([TOKENS])
    log.update_meter(TOKENS.deactivate(NOW))
    with pytest.raises(InvalidValueError) as refusal:
        log.create_meter(meter)
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.METER_CHANGED, param)
    assert log.meters == (TOKENS.deactivate(NOW),)


def test_customers_can_be_listed_and_added():
    """Where the customers are listed another one's events wait until it is added; where not, adding
    one changes nothing.
    """
    log = MeterLog([TOKENS], customers=["cus_2"])
    assert log.append([event()], now=NOW)[0].code == ErrorCode.CUSTOMER_UNKNOWN
    log.add_customer("cus_1")
    assert log.append([event(), event(customer="cus_2")], now=NOW)[1].outcome is Outcome.ACCEPTED
    anybody = MeterLog([TOKENS])
    anybody.add_customer("cus_1")
    assert anybody.append([event(customer="cus_3")], now=NOW)[0].outcome is Outcome.ACCEPTED


def test_customers_ids_are_those_that_can_be_asked_for():
    """An id of 255 characters can be summarized and subscribed; a longer one is no customer's,
    alone or in a batch.
    """
    log = MeterLog([TOKENS], [billed_to("c" * 255)])
    batch = [event(customer="c" * length) for length in (255, 256)]
    assert [one.code for one in log.append(batch, now=NOW)] == [None, ErrorCode.CUSTOMER_UNKNOWN]
    with pytest.raises(UsageRejectedError, match="of at most 255 characters, in") as refusal:
        log.record("tokens", paid(customer="c" * 256), now=NOW)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.CUSTOMER_UNKNOWN,
        "payload[stripe_customer_id]",
    )
    assert (total(log), log.customers("mtr_tokens")) == (1, ["c" * 255])


def test_an_inactive_meter_takes_no_new_item():
    """An item on an inactive meter is refused where it is new; one that was attached before stays,
    and still bills.
    """
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("5")], now=NOW)
    log.update_meter(TOKENS.deactivate(NOW))
    log.subscribe(billed_to())
    with pytest.raises(InvalidValueError) as refusal:
        log.subscribe(billed_to("cus_1", item_on(), item_on(id="si_new")))
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.METER_INACTIVE,
        "items[price][recurring][meter]",
    )
    assert (total(log), log.subscriptions) == (5, (billed_to(),))


def test_an_inactive_meter_takes_no_item_of_another():
    """An item that is there already moves to no inactive meter, and cannot come back to one that it
    left.
    """
    log = MeterLog([TOKENS, Meter("mtr_old", "old").deactivate(NOW)], [billed_to()])
    with pytest.raises(InvalidValueError) as refusal:
        log.subscribe(billed_to("cus_1", item_on("mtr_old")))
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.METER_INACTIVE,
        "items[price][recurring][meter]",
    )
    assert log.subscriptions == (billed_to(),)
    log.update_meter(TOKENS.deactivate(NOW))
    log.create_meter(Meter("mtr_new", "new"))
    log.subscribe(billed_to("cus_1", item_on("mtr_new")))
    with pytest.raises(InvalidValueError, match="an active meter for an item that is new on it"):
        log.subscribe(billed_to())


OTHER_CYCLE = Subscription("sub", [item_on()], START + DAY, customer="cus_1")
NOBODYS = Subscription("sub_2", [item_on(id="si_2")], START)


@pytest.mark.parametrize(
    ("subscription", "code", "param"),
    [
        (NOBODYS, ErrorCode.PARAMETER_MISSING, "customer"),
        (
            billed_to("cus_1", item_on("mtr_none", "si_2"), id="sub_2"),
            ErrorCode.METER_UNKNOWN,
            "meter",
        ),
        (billed_to("cus_2", id="sub_2"), ErrorCode.SUBSCRIPTION_CHANGED, "items[id]"),
        (billed_to("cus_2"), ErrorCode.SUBSCRIPTION_CHANGED, "customer"),
        (OTHER_CYCLE, ErrorCode.SUBSCRIPTION_CHANGED, "billing_cycle_anchor"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_subscriptions_that_are_refused(subscription, code, param):
    """A subscription that nothing can be billed by is refused whole, and the log is as before."""
    log = MeterLog([TOKENS], [billed_to()])
    with pytest.raises(InvalidValueError) as refusal:
        log.subscribe(subscription)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert log.subscriptions == (billed_to(),)


def test_items_of_other_kinds_are_left_alone():
    """A subscription needs no customer where none of its items is on a meter; its items are not
    this log's.
    """
    log = MeterLog([TOKENS], [subscribed()])
    with pytest.raises(InvoicingError) as refusal:
        log.partial(subscribed().items[0], JAN)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.PRICE_NOT_METERED,
        "subscription_item",
    )
    licensed = SubscriptionItem("si_l", priced(mode=None), quantity=1)
    with pytest.raises(InvoicingError, match="is licensed"):
        log.meter_of(licensed)


def test_an_item_nobody_subscribed_to_is_unknown():
    """An item that no subscription of the log has is nobody's: its usage is not zero, it is not
    known.
    """
    log = MeterLog([TOKENS], [billed_to()])
    with pytest.raises(InvoicingError) as refusal:
        log.partial(item_on(id="si_other"), JAN)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN,
        "subscription_item",
    )


# Nonsense -----------------------------------------------------------------------------------------

STRING, OBJECT, INSTANT = (
    "parameter_invalid_string",
    "parameter_invalid_object",
    "parameter_invalid_instant",
)
INTEGER, MISSING, CHOICE = (
    "parameter_invalid_integer",
    "parameter_missing",
    "parameter_invalid_choice",
)
BAD_CALLS = {
    "meters": (lambda log: MeterLog(5), OBJECT, "meters"),
    "a meter's name for a meter": (lambda log: MeterLog("tokens"), OBJECT, "meter"),
    "a usage log for a meter": (lambda log: MeterLog([UsageLog([])]), OBJECT, "meter"),
    "subscriptions": (lambda log: MeterLog([], 5), OBJECT, "subscriptions"),
    "a subscription": (lambda log: MeterLog([], ["sub"]), OBJECT, "subscription"),
    "customers": (lambda log: MeterLog([], customers=5), OBJECT, "customers"),
    "one customer for many": (lambda log: MeterLog([], customers="cus_1"), OBJECT, "customers"),
    "a customer": (lambda log: MeterLog([], customers=["cus_1", ""]), STRING, "customer"),
    "a clock": (lambda log: MeterLog([], clock=NOW), OBJECT, "clock"),
    "a policy": (lambda log: MeterLog([], policy="stripe"), OBJECT, "policy"),
    "an event name": (lambda log: log.record(5, paid(), now=NOW), STRING, "event_name"),
    "a payload": (lambda log: log.record("tokens", [("value", "5")], now=NOW), OBJECT, "payload"),
    "a float": (
        lambda log: log.record("tokens", {"value": 5.0}, now=NOW),
        STRING,
        "payload[value]",
    ),
    "an identifier": (
        lambda log: log.record("tokens", paid(), identifier="", now=NOW),
        STRING,
        "identifier",
    ),
    "a timestamp": (
        lambda log: log.record("tokens", paid(), timestamp=NAIVE, now=NOW),
        INSTANT,
        "timestamp",
    ),
    "a timestamp in milliseconds": (
        lambda log: log.record("tokens", paid(), timestamp=NOW * 1000, now=NOW),
        INSTANT,
        "timestamp",
    ),
    "no now": (lambda log: log.record("tokens", paid()), MISSING, "now"),
    "a float for now": (lambda log: log.record("tokens", paid(), now=1.5), INSTANT, "now"),
    "a bool for now": (lambda log: log.record("tokens", paid(), now=True), INSTANT, "now"),
    "a naive now": (lambda log: log.append([event()], now=NAIVE), INSTANT, "now"),
    "a far now": (lambda log: log.append([event()], now=10**12), INSTANT, "now"),
    "no now for a batch": (lambda log: log.append([event()]), MISSING, "now"),
    "no batch": (lambda log: log.append(None, now=NOW), OBJECT, "events"),
    "one event for a batch": (lambda log: log.append(event(), now=NOW), OBJECT, "events"),
    "a dict for an event": (
        lambda log: log.append([event(), event().to_dict()], now=NOW),
        OBJECT,
        "events[1]",
    ),
    "a name to cancel": (lambda log: log.cancel(None, "a", now=NOW), STRING, "event_name"),
    "an identifier to cancel": (
        lambda log: log.cancel("tokens", "", now=NOW),
        STRING,
        "identifier",
    ),
    "a long identifier to cancel": (
        lambda log: log.cancel("tokens", "x" * 101, now=NOW),
        STRING,
        "identifier",
    ),
    "no now to cancel": (lambda log: log.cancel("tokens", "a"), MISSING, "now"),
    "a naive now to cancel": (lambda log: log.cancel("tokens", "a", now=NAIVE), INSTANT, "now"),
    "a meter to create": (lambda log: log.create_meter("tokens"), OBJECT, "meter"),
    "a meter to update": (lambda log: log.update_meter(TOKENS.to_dict()), OBJECT, "meter"),
    "an unknown meter to update": (
        lambda log: log.update_meter(Meter("m", "e")),
        "meter_unknown",
        "meter",
    ),
    "a meter's id": (lambda log: log.meter("tokens"), "meter_unknown", "meter"),
    "a meter's id to list": (lambda log: log.events("tokens"), "meter_unknown", "meter"),
    "a meter's id of customers": (lambda log: log.customers("tokens"), "meter_unknown", "meter"),
    "a customer to add": (lambda log: log.add_customer(5), STRING, "customer"),
    "a subscription to add": (lambda log: log.subscribe("sub"), OBJECT, "subscription"),
    "a number": (lambda log: log.as_of(-1), INTEGER, "as_of"),
    "a float for a number": (lambda log: log.as_of(1.0), INTEGER, "as_of"),
    "no number": (lambda log: log.as_of(None), INTEGER, "as_of"),
    "a naive moment": (lambda log: log.as_of(NAIVE), INSTANT, "as_of"),
    "a number of a view": (lambda log: log.as_of(1).as_of(True), INTEGER, "as_of"),
    "a subscription's id": (lambda log: log.unbilled("sub_9"), CHOICE, "subscription"),
    "a view's subscription's id": (
        lambda log: log.as_of(1).unbilled("sub_9"),
        CHOICE,
        "subscription",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_nonsense_is_refused_and_changes_nothing(case):
    """A call with nonsense raises with a code, a param, what was expected and what came; the log
    answers as before.
    """
    call, code, param = BAD_CALLS[case]
    log = MeterLog([TOKENS], [billed_to()])
    log.append([event("5", identifier="a")], now=NOW)
    before = (len(log), log.sequence, log.meters, log.subscriptions, log.events(), total(log))
    with pytest.raises(InvalidValueError) as refusal:
        call(log)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert refusal.value.message.startswith(f"{param}: expected ")
    assert "received " in refusal.value.message
    assert (
        len(log),
        log.sequence,
        log.meters,
        log.subscriptions,
        log.events(),
        total(log),
    ) == before


def test_a_broken_batch_appends_nothing():
    """Where one of a batch is no event, or there is no now, none is appended."""
    log = MeterLog([TOKENS])
    for batch, now in [([event(), 5], NOW), ([event()], 1.5)]:
        with pytest.raises(InvalidValueError):
            log.append(batch, now=now)
    assert len(log) == 0


def test_a_broken_clock_is_named():
    """A clock that gives no instant is refused like a now that is none."""
    log = MeterLog([TOKENS], clock=lambda: 1.5)
    with pytest.raises(InvalidValueError) as refusal:
        log.record("tokens", paid())
    assert (refusal.value.param, len(log)) == ("now", 0)


def test_the_lock_is_free_after_a_refusal():
    """A refused or malformed event leaves the log's lock as it found it: another thread can
    go on.
    """
    log = MeterLog([TOKENS])
    for payload, now in [({}, NOW), (paid(), 1.5)]:
        with pytest.raises((UsageRejectedError, InvalidValueError)):
            log.record("tokens", payload, now=now)
    worker = threading.Thread(
        target=log.record, args=("tokens", paid()), kwargs={"now": NOW}, daemon=True
    )
    worker.start()
    worker.join(10)
    assert len(log) == 1


def test_many_threads_lose_no_event():
    """Four threads that record and ask at once leave all events, numbered without a gap, and the
    right sum.
    """
    log = MeterLog([TOKENS], [billed_to()])
    former = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(which):
        for at in range(250):
            log.record("tokens", paid("1"), identifier=f"{which}-{at}", now=NOW)
            if at % 50 == 0:
                assert total(log) >= at - at // 50
                log.cancel("tokens", f"{which}-{at}", now=NOW)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    try:
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        sys.setswitchinterval(former)
    assert (len(log), log.sequence, total(log)) == (1000, 1020, 980)
    numbers = [one.sequence for one in log.events()]
    assert (len(set(numbers)), numbers == sorted(numbers)) == (1000, True)


def test_an_event_of_the_id_of_a_meter_is_told_the_name():
    """Who cancels by the meter's id hears by which name its events are canceled."""
    log = MeterLog([Meter("mtr_tokens", "tokens")])
    with pytest.raises(UsageRejectedError, match="'mtr_tokens' are named 'tokens'"):
        log.cancel("mtr_tokens", "a", now=START)
