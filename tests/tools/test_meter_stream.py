"""The meter event stream: sessions of 15 minutes, batches of at most 100, one answer to each
event.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_core import InvalidValueError, Outcome, UsageRejectedError
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.stripe.stream import MeterEventSession, MeterEventStream

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
MICROSECOND = timedelta(microseconds=1)
QUARTER = timedelta(minutes=15)


def stream(policy=None, tokens=None):
    meters = [Meter("mtr_tokens", "tokens"), Meter("mtr_calls", "calls", "count")]
    source = (f"token-{number}" for number in itertools.count(1))
    return MeterEventStream(MeterLog(meters, policy=policy), tokens=tokens or source.__next__)


def tokens(value="1", **changes):
    return {
        "event_name": "tokens",
        "payload": {"stripe_customer_id": "cus_1", "value": value},
        **changes,
    }


def sent(opened, events, now=NOON):
    return opened.send(events, session=opened.create_session(now=now), now=now)


def verdicts(receipts):
    return [receipt.code or receipt.outcome for receipt in receipts]


# Sessions -----------------------------------------------------------------------------------------


def test_session_lasts_15_minutes():
    """SE-1: a session created at 12:00:00.000Z expires at 12:15:00.000Z, in the shape of Stripe's
    API v2.
    """
    assert stream().create_session(now=NOON).to_dict() == {
        "id": "mes_1",
        "object": "v2.billing.meter_event_session",
        "authentication_token": "token-1",
        "created": "2024-06-01T12:00:00.000Z",
        "expires_at": "2024-06-01T12:15:00.000Z",
    }


@pytest.mark.parametrize(
    ("after", "is_taken"),
    [
        (timedelta(0), True),
        (QUARTER - MILLISECOND, True),
        (QUARTER - MICROSECOND, True),
        (QUARTER, False),
        (QUARTER + MICROSECOND, False),
        (timedelta(days=365), False),
        # A clock that was put back does not make a session expire.
        (-MILLISECOND, True),
    ],
)
@pytest.mark.parametrize("by_token", [False, True])
def test_session_is_half_open(after, is_taken, by_token):
    """A session is valid until the last microsecond before expires_at, and expired exactly
    at it.
    """
    opened = stream()
    session = opened.create_session(now=NOON)
    given_session = session.authentication_token if by_token else session
    if is_taken:
        assert opened.send([tokens()], session=given_session, now=NOON + after).accepted == 1
    else:
        with pytest.raises(UsageRejectedError, match="has expired; create a new one") as caught:
            opened.send([tokens()], session=given_session, now=NOON + after)
        assert (caught.value.code, caught.value.param) == (
            "session_expired",
            "authentication_token",
        )


def test_only_sessions_of_the_stream_count():
    """An unknown token, the session of another stream and one with a later expiry written into it
    are no way in.
    """
    opened = stream()
    session = opened.create_session(now=NOON)
    other = stream(tokens=lambda: "elsewhere").create_session(now=NOON)
    late = MeterEventSession(
        "mes_1", session.authentication_token, created=NOON, expires_at=NOON + timedelta(days=1)
    )
    for stranger, now in [("guessed", NOON), (other, NOON), (late, NOON + QUARTER)]:
        with pytest.raises(UsageRejectedError) as caught:
            opened.send([tokens()], session=stranger, now=now)
        assert caught.value.code == "session_expired"


def test_sessions_overlap_and_are_forgotten():
    """Several sessions are open at once, each until its own end; one that is over stays over."""
    opened = stream()
    first = opened.create_session(now=NOON)
    second = opened.create_session(now=NOON + timedelta(minutes=10))
    assert (first.id, second.id) == ("mes_1", "mes_2")
    assert opened.send([tokens()], session=first, now=NOON + timedelta(minutes=14)).accepted == 1
    assert opened.send([tokens()], session=second, now=NOON + timedelta(minutes=20)).accepted == 1
    opened.create_session(now=NOON + QUARTER)
    with pytest.raises(UsageRejectedError, match="unknown or long over"):
        opened.send([tokens()], session=first, now=NOON)


def test_session_begins_at_a_millisecond():
    """A session's times are what can be written: the moment it was made, floored to the
    millisecond.
    """
    session = stream().create_session(now=NOON + 1999 * MICROSECOND)
    assert session.to_dict()["created"] == "2024-06-01T12:00:00.001Z"
    assert session.to_dict()["expires_at"] == "2024-06-01T12:15:00.001Z"
    assert MeterEventSession.from_dict(session.to_dict()) == session


def test_session_from_stripe():
    """A session that Stripe's API returned is read, livemode and object aside, in whatever offset
    it is written.
    """
    data = {
        "id": "mes_test_1",
        "object": "v2.billing.meter_event_session",
        "authentication_token": "t",
        "created": "2024-06-01T12:00:00.000Z",
        "expires_at": "2024-06-01T14:15:00.000+02:00",
        "livemode": False,
    }
    expected = MeterEventSession(
        "mes_test_1",
        "t",
        created=NOON,
        expires_at=NOON.astimezone(timezone(timedelta(hours=-5))) + QUARTER,
    )
    assert MeterEventSession.from_dict(data) == expected


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"id": None}, "parameter_missing", "id"),
        ({"id": ""}, "parameter_invalid_string", "id"),
        ({"authentication_token": None}, "parameter_missing", "authentication_token"),
        ({"authentication_token": "t" * 5001}, "parameter_invalid_string", "authentication_token"),
        ({"created": None}, "parameter_missing", "created"),
        ({"created": "2024-06-01T12:00:00"}, "parameter_invalid_instant", "created"),
        ({"created": 1.5}, "parameter_invalid_instant", "created"),
        ({"expires_at": "soon"}, "parameter_invalid_instant", "expires_at"),
        ({"expires_at": "2024-06-01T12:00:00.000Z"}, "parameter_invalid_instant", "expires_at"),
        ({"expire_at": "2024-06-01T12:00:00.000Z"}, "parameter_unknown", "expire_at"),
    ],
)
def test_malformed_sessions_are_refused(change, code, param):
    """A session that lacks a field, has one too many or ends when it begins cannot be read."""
    data = stream().create_session(now=NOON).to_dict() | change
    with pytest.raises(InvalidValueError) as caught:
        MeterEventSession.from_dict(data)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_tokens_stay_secret():
    """Neither the repr of a session nor a refusal shows a token."""
    opened = stream(tokens=lambda: "s3cret")
    session = opened.create_session(now=NOON)
    with pytest.raises(UsageRejectedError) as caught:
        opened.send([tokens()], session=session, now=NOON + QUARTER)
    assert "s3cret" not in repr(session) + str(caught.value) + repr(caught.value.details)


@pytest.mark.parametrize("token", ["", 7, None, "t" * 5001, "given before"])
def test_the_source_of_tokens_is_checked(token):
    """A source that gives no string, or a token of an open session once more, is refused."""
    source = iter(["given before", token])
    opened = stream(tokens=source.__next__)
    opened.create_session(now=NOON)
    with pytest.raises(InvalidValueError) as caught:
        opened.create_session(now=NOON)
    assert (caught.value.code, caught.value.param) == (
        "parameter_invalid_string",
        "authentication_token",
    )


def test_a_token_may_come_back_once_its_session_is_over():
    """Only among open sessions must a token be new."""
    opened = stream(tokens=lambda: "t")
    opened.create_session(now=NOON)
    assert opened.create_session(now=NOON + QUARTER).created == NOON + QUARTER


def test_tokens_must_be_a_function():
    """A list of tokens is no source: the stream would not know when it ends."""
    with pytest.raises(InvalidValueError) as caught:
        stream(tokens=["t"])
    assert caught.value.param == "tokens"


@pytest.mark.parametrize("log", [5, None, MeterLog().as_of(0)])
def test_a_stream_is_over_a_meter_log(log):
    """What is no log to append to is refused when the stream is opened, not with the first
    event.
    """
    with pytest.raises(InvalidValueError) as caught:
        MeterEventStream(log, tokens=lambda: "t")
    assert (caught.value.code, caught.value.param) == ("parameter_invalid_object", "log")


@pytest.mark.parametrize(
    "now",
    [datetime.max.replace(tzinfo=UTC), datetime(2024, 6, 1), 1.5, "now"],  # noqa: DTZ001
)
def test_a_session_needs_a_moment(now):
    """A session cannot begin at no moment, nor 15 minutes before the calendar ends."""
    with pytest.raises(InvalidValueError) as caught:
        stream().create_session(now=now)
    assert caught.value.code == "parameter_invalid_instant"


# Batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_max", "is_taken"),
    [
        (0, 100, False),
        (1, 100, True),
        (100, 100, True),
        (101, 100, False),
        (3, 3, True),
        (4, 3, False),
        (0, None, False),
        (1000, None, True),
    ],
)
def test_batches_have_a_size(count, batch_max, is_taken):
    """A batch has 1 to batch_max events; otherwise nothing of it is taken."""
    opened = stream(MeterPolicy(batch_max=batch_max))
    batch = (tokens() for _ in range(count))
    if is_taken:
        assert sent(opened, batch).accepted == count
    else:
        with pytest.raises(InvalidValueError, match=f"received {count}$") as caught:
            sent(opened, batch)
        assert caught.value.param == "events"
        assert sent(opened, [tokens()])[0].sequence == 1


@pytest.mark.parametrize(
    "batch", [None, 7, "tokens", tokens(), {"events": [tokens()]}, MeterEvent.from_dict(tokens())]
)
def test_what_is_no_batch_is_refused(batch):
    """A single event and a request's body still to be read are no batch."""
    with pytest.raises(InvalidValueError) as caught:
        sent(stream(), batch)
    assert (caught.value.code, caught.value.param) == ("parameter_invalid_object", "events")


@pytest.mark.parametrize("session", [None, 7, [], ""])
def test_what_is_no_session_is_refused(session):
    """A session is one, or its token."""
    with pytest.raises(InvalidValueError) as caught:
        stream().send([tokens()], session=session, now=NOON)
    assert caught.value.param == "authentication_token"


def test_the_session_is_judged_before_the_batch():
    """Who may not send hears nothing about what was sent."""
    with pytest.raises(UsageRejectedError):
        stream().send([], session="unknown", now=NOON)


MALFORMED = [
    (7, "parameter_invalid_object", "data"),
    (None, "parameter_invalid_object", "data"),
    ({}, "parameter_missing", "event_name"),
    ({"event_name": "tokens"}, "parameter_missing", "payload"),
    (tokens(event_name=""), "parameter_invalid_string", "event_name"),
    (tokens(event_name="t" * 101), "parameter_invalid_string", "event_name"),
    (tokens(payload=[]), "parameter_invalid_object", "payload"),
    (tokens(25), "parameter_invalid_string", "payload[value]"),
    (tokens(identifier="i" * 101), "parameter_invalid_string", "identifier"),
    (tokens(timestamp="yesterday"), "parameter_invalid_instant", "timestamp"),
    (tokens(timestamp=True), "parameter_invalid_instant", "timestamp"),
    (tokens(value="1", quantity=1), "parameter_unknown", "quantity"),
]


@pytest.mark.parametrize(("event", "code", "param"), MALFORMED)
def test_a_malformed_event_is_answered_as_data(event, code, param):
    """What is no event is a rejected receipt, says what building it says, and the others go on."""
    receipts = sent(stream(), [tokens("1"), event, tokens("2")])
    assert verdicts(receipts) == ["accepted", code, "accepted"]
    assert [receipt.sequence for receipt in receipts] == [1, None, 2]
    with pytest.raises(InvalidValueError) as caught:
        MeterEvent.from_dict(event)
    assert (receipts[1].message, receipts[1].param) == (caught.value.message, param)


def test_a_batch_of_nothing_right():
    """A batch without a single event is answered, too."""
    opened = stream()
    receipts = sent(opened, [event for event, _, _ in MALFORMED])
    assert verdicts(receipts) == [code for _, code, _ in MALFORMED]
    assert list(receipts.rejected) == list(range(len(MALFORMED)))


def test_outcomes_come_in_order():
    """Accepted, duplicate, conflict, unknown meter, missing customer: each at its place, as
    hand-judged.
    """
    event = MeterEvent.from_dict(tokens(identifier="a", timestamp="2024-06-01T11:59:59.500Z"))
    batch = [
        event,
        event,
        tokens("2", identifier="a", timestamp="2024-06-01T11:59:59.500Z"),
        tokens(event_name="unknown"),
        tokens(payload={"value": "1"}),
        tokens(identifier="b", timestamp=int(NOON.timestamp()) + 301),
        tokens("2"),
    ]
    receipts = sent(stream(), batch)
    assert verdicts(receipts) == [
        Outcome.ACCEPTED,
        Outcome.DUPLICATE,
        "identifier_reused",
        "meter_unknown",
        "customer_missing",
        "timestamp_in_future",
        Outcome.ACCEPTED,
    ]
    assert (receipts.accepted, receipts.duplicates, list(receipts.rejected)) == (2, 1, [2, 3, 4, 5])
    assert [receipt.sequence for receipt in receipts] == [1, 1, None, None, None, None, 2]


EVENTS = st.builds(
    tokens,
    st.sampled_from(["1", "2.5", "-1", "x"]),
    event_name=st.sampled_from(["tokens", "calls", "unknown", ""]),
    identifier=st.sampled_from([None, "a", "b", "", 5]),
    timestamp=st.sampled_from(
        [None, int(NOON.timestamp()), int(NOON.timestamp()) + 301, 0, "late"]
    ),
)


@given(st.lists(EVENTS, min_size=1, max_size=20), st.data())
def test_a_batch_is_its_events_one_by_one(events, data):
    """However a run of events is cut into batches, each event hears what it would hear alone after
    those before it.
    """
    one_by_one = stream()
    alone = [receipt for event in events for receipt in sent(one_by_one, [event])]
    cut = data.draw(st.integers(0, len(events)), label="cut")
    batched = stream()
    together = [
        receipt for part in (events[:cut], events[cut:]) if part for receipt in sent(batched, part)
    ]
    assert together == alone
