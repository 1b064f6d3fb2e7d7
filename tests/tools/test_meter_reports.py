"""Error reports of meter events, and Stripe's two vocabularies of codes beside our one."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_core import ErrorCode, InvalidValueError, Outcome, Receipt
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.stripe.reports import (
    STRIPE_CODES,
    MeterErrorReporter,
    RefusedEvent,
    error_reports,
    from_stripe_async_code,
    from_stripe_sync_code,
    refused_events,
    stripe_async_code,
    stripe_sync_code,
)
from metering_core.stripe.stream import MeterEventStream

# Section 2.7 of our reference on Stripe's meters: every code of the answers to a request, with its
# status ...
SYNCHRONOUS = {
    "archived_meter": 400,
    "duplicate_meter_event": 400,
    "no_meter": 400,
    "payload_invalid_value": 400,
    "payload_no_customer_defined": 400,
    "payload_no_value_defined": 400,
    "invalid_cancel_configuration": 400,
    "billing_meter_event_session_expired": 401,
}
# ... and the union of the guide's and the SDK's lists of codes in reports.
ASYNCHRONOUS = {
    "archived_meter",
    "meter_event_customer_not_found",
    "meter_event_no_customer_defined",
    "meter_event_dimension_count_too_high",
    "meter_event_invalid_value",
    "meter_event_value_not_found",
    "meter_event_value_too_many_digits",
    "missing_dimension_payload_keys",
    "no_meter",
    "timestamp_in_future",
    "timestamp_too_far_in_past",
}
# What each of our codes for meter events is called, by hand: (ours, synchronous, asynchronous).
WORDS = [
    ("parameter_missing", None, None),
    ("parameter_unknown", None, None),
    ("parameter_invalid_string", None, None),
    ("parameter_invalid_choice", None, None),
    ("parameter_invalid_instant", None, None),
    ("parameter_invalid_object", None, None),
    ("identifier_reused", "duplicate_meter_event", None),
    ("meter_unknown", "no_meter", "no_meter"),
    ("meter_inactive", "archived_meter", "archived_meter"),
    ("customer_missing", "payload_no_customer_defined", "meter_event_no_customer_defined"),
    ("customer_unknown", None, "meter_event_customer_not_found"),
    ("value_missing", "payload_no_value_defined", "meter_event_value_not_found"),
    ("value_invalid", "payload_invalid_value", "meter_event_invalid_value"),
    ("value_too_many_digits", "payload_invalid_value", "meter_event_value_too_many_digits"),
    ("dimension_missing", None, "missing_dimension_payload_keys"),
    ("too_many_dimensions", None, "meter_event_dimension_count_too_high"),
    ("timestamp_too_far_in_past", None, "timestamp_too_far_in_past"),
    ("timestamp_in_future", None, "timestamp_in_future"),
    ("event_not_found", "invalid_cancel_configuration", None),
    ("cancel_window_closed", "invalid_cancel_configuration", None),
    ("session_expired", "billing_meter_event_session_expired", None),
]
# Codes that refuse something else: a value outside an event, a usage record, a bill, a file.
NOT_OF_EVENTS = {
    *(
        "parameters_exclusive",
        "parameter_invalid_integer",
        "parameter_invalid_decimal",
        "interval_out_of_range",
    ),
    *(
        "timezone_unknown",
        "currency_unknown",
        "currency_mismatch",
        "subscription_item_unknown",
        "id_reused",
    ),
    *(
        "price_not_metered",
        "subscription_canceled",
        "set_with_billing_thresholds",
        "timestamp_after_current_period",
    ),
    *("timestamp_before_current_period", "period_closed", "late_usage_not_billable"),
    *(
        "meter_changed",
        "formula_not_additive",
        "subscription_changed",
        "change_not_billable",
        "usage_billed_twice",
    ),
    *("period_being_billed", "copy_refused", "invoice_conflict"),
    *("formula_not_available", "field_not_billable"),
    *(
        "period_not_of_subscription",
        "period_not_ended",
        "quantity_out_of_range",
        "pricing_model_broken",
        "usage_compacted",
    ),
    *(
        "snapshot_version_unknown",
        "snapshot_damaged",
        "snapshot_needs_price",
        "file_unreadable",
        "file_unwritable",
        "usage_unbilled",
        "extra_missing",
    ),
    "explanation_needs_usage",
}


@pytest.mark.parametrize(("ours", "synchronous", "asynchronous"), WORDS)
def test_stripe_words(ours, synchronous, asynchronous):
    """Every reason to refuse a meter event has its name in each of Stripe's vocabularies, or says
    why it has none.
    """
    code = ErrorCode(ours)
    assert (stripe_sync_code(code), stripe_async_code(code)) == (synchronous, asynchronous)
    assert STRIPE_CODES[code].note or (synchronous and asynchronous)


def test_every_code_is_classified():
    """A new error code must say what Stripe calls it, or that it refuses something else than a
    meter event.
    """
    assert {code.value for code in ErrorCode if code.value not in NOT_OF_EVENTS} == {
        ours for ours, _, _ in WORDS
    }
    assert [code.value for code in STRIPE_CODES] == [ours for ours, _, _ in WORDS]
    for code in NOT_OF_EVENTS:
        assert stripe_sync_code(ErrorCode(code)) is stripe_async_code(ErrorCode(code)) is None


def test_every_stripe_code_is_reached():
    """Each code of Stripe's lists comes from one of ours, and none that Stripe does not list."""
    assert {row.synchronous for row in STRIPE_CODES.values()} - {None} == set(SYNCHRONOUS)
    assert {row.asynchronous for row in STRIPE_CODES.values()} - {None} == ASYNCHRONOUS


@pytest.mark.parametrize(("word", "status"), SYNCHRONOUS.items())
def test_statuses(word, status):
    """An answer to a request has the status that Stripe documents for its code."""
    assert {row.http_status for row in STRIPE_CODES.values() if row.synchronous == word} == {status}


def test_statuses_without_a_code():
    """A malformed request is a 400; where Stripe documents no answer to a request, there is no
    status.
    """
    for code, row in STRIPE_CODES.items():
        if row.synchronous is None:
            assert row.http_status == (400 if code.value.startswith("parameter_") else None)


@pytest.mark.parametrize("word", SYNCHRONOUS)
def test_sync_codes_read_back(word):
    """A synchronous code is read as the first of our codes that it stands for, in order of
    precedence.
    """
    assert from_stripe_sync_code(word) == next(
        ours for ours, synchronous, _ in WORDS if synchronous == word
    )


@pytest.mark.parametrize("word", sorted(ASYNCHRONOUS))
def test_async_codes_read_back(word):
    """An asynchronous code stands for exactly one of ours."""
    assert [from_stripe_async_code(word)] == [
        ours for ours, _, asynchronous in WORDS if asynchronous == word
    ]


def test_shared_codes_read_back():
    """The two codes that several of ours share are read as the reason that is checked first."""
    assert from_stripe_sync_code("payload_invalid_value") is ErrorCode.VALUE_INVALID
    assert from_stripe_sync_code("invalid_cancel_configuration") is ErrorCode.EVENT_NOT_FOUND


@pytest.mark.parametrize(
    "word", ["too_many_concurrent_requests", "meter_event_of_tomorrow", "", "value_missing"]
)
def test_unknown_stripe_codes(word):
    """Stripe's vocabularies are open: a code that we have no reason for is None, no error."""
    assert from_stripe_sync_code(word) is from_stripe_async_code(word) is None


@pytest.mark.parametrize("read", [from_stripe_sync_code, from_stripe_async_code])
@pytest.mark.parametrize("word", [None, 400, b"no_meter", ["no_meter"]])
def test_stripe_codes_are_strings(read, word):
    """A status or an object in the place of a code is refused, and not taken for a code that we
    have no reason for.
    """
    with pytest.raises(InvalidValueError) as refused:
        read(word)
    assert (refused.value.code, refused.value.param) == (
        ErrorCode.PARAMETER_INVALID_STRING,
        "stripe_code",
    )


# Reports ------------------------------------------------------------------------------------------

METERS = [Meter("mtr_tokens", "tokens"), Meter("mtr_calls", "calls", "count")]
START = datetime(2024, 8, 28, 20, 54, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


def event(payload=None, event_name="tokens", identifier=None):
    return MeterEvent(
        event_name,
        {"stripe_customer_id": "cus_1", "value": "1"} if payload is None else payload,
        identifier=identifier,
    )


NO_CUSTOMER = event({"value": "1"}, identifier="n")
NO_VALUE = event({"stripe_customer_id": "cus_1"})
NO_METER = event(event_name="tokns", identifier="m")


def refused(*sent):
    """What a real log refuses of (after START, event)."""
    log = MeterLog(METERS)
    return [
        one
        for after, each in sent
        for one in refused_events(
            [each], log.append([each], now=START + after), meters=METERS, now=START + after
        )
    ]


def reported(*sent):
    return error_reports(refused(*sent))


def test_one_event_without_a_customer():
    """ER-1: one event lacks the customer key; the report is Stripe's, window 20:54:00 to
    20:54:10.
    """
    (report,) = reported((3 * SECOND, NO_CUSTOMER))
    assert report.to_dict() == {
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2024-08-28T20:54:10.000Z",
        "related_object": {
            "id": "mtr_tokens",
            "type": "billing.meter",
            "url": "/v1/billing/meters/mtr_tokens",
        },
        "data": {
            "developer_message_summary": "There is 1 invalid event",
            "reason": {
                "error_count": 1,
                "error_types": [
                    {
                        "code": "meter_event_no_customer_defined",
                        "error_count": 1,
                        "sample_errors": [
                            {
                                "error_message": "Customer mapping key stripe_customer_id "
                                "not found in "
                                "payload. "
                                "Expected a customer's id, received none.",
                                "request": {"identifier": "n"},
                            }
                        ],
                    }
                ],
            },
            "validation_start": "2024-08-28T20:54:00.000Z",
            "validation_end": "2024-08-28T20:54:10.000Z",
        },
    }


def test_one_event_of_no_meter():
    """ER-2: one event with an unknown name; no_meter_found without a meter, window 20:42:40 to
    20:42:50.
    """
    at = datetime(2024, 8, 28, 20, 42, 47, 203_000, tzinfo=UTC) - START
    (report,) = reported((at, NO_METER))
    data = report.to_dict()
    assert (data["type"], data["related_object"]) == ("v1.billing.meter.no_meter_found", None)
    assert (data["data"]["validation_start"], data["data"]["validation_end"]) == (
        "2024-08-28T20:42:40.000Z",
        "2024-08-28T20:42:50.000Z",
    )
    (error_type,) = data["data"]["reason"]["error_types"]
    assert (error_type["code"], error_type["error_count"]) == ("no_meter", 1)
    message = error_type["sample_errors"][0]["error_message"]
    assert message.startswith("No meter was found matching event_name 'tokns'")


def test_counts_and_samples():
    """Seven events without a customer and two without a value: counted by code, the first five of
    each shown, in order.
    """
    sent = [
        (number * SECOND, event({"value": "1"}, identifier=f"n{number}")) for number in range(7)
    ]
    (report,) = reported(*sent[:1], (SECOND, NO_VALUE), (SECOND, NO_VALUE), *sent[1:])
    assert report.developer_message_summary == "There are 9 invalid events"
    assert [(one.code.value, one.error_count) for one in report.error_types] == [
        ("customer_missing", 7),
        ("value_missing", 2),
    ]
    first, second = report.to_dict()["data"]["reason"]["error_types"]
    assert [sample["request"]["identifier"] for sample in first["sample_errors"]] == [
        "n0",
        "n1",
        "n2",
        "n3",
        "n4",
    ]
    assert [sample["request"]["identifier"] for sample in second["sample_errors"]] == [None, None]


@pytest.mark.parametrize(
    ("after", "start"),
    [
        (timedelta(0), 0),
        (10 * SECOND - MICROSECOND, 0),
        (10 * SECOND, 10),
        (-MICROSECOND, -10),
        # Before 1970 as after it.
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC) - START, -1_724_878_440 - 10),
    ],
)
def test_windows_follow_the_clock(after, start):
    """A window begins at Unix seconds divisible by 10, takes its first moment and leaves its last
    to the next.
    """
    (report,) = error_reports(
        [RefusedEvent(START + after, None, ErrorCode.METER_UNKNOWN, "no", None)]
    )
    assert report.validation_start == START + start * SECOND
    assert report.validation_end == START + (start + 10) * SECOND


def test_each_meter_has_its_report():
    """In one window each meter has a report, and unknown names share one without a meter; windows
    come oldest first.
    """
    reports = reported(
        (12 * SECOND, NO_VALUE),
        (SECOND, NO_METER),
        (SECOND, NO_CUSTOMER),
        (2 * SECOND, event({}, "calls")),
        (3 * SECOND, event({}, "other")),
    )
    assert [(report.meter, report.error_count) for report in reports] == [
        (None, 2),
        ("mtr_tokens", 1),
        ("mtr_calls", 1),
        ("mtr_tokens", 1),
    ]
    assert [report.validation_start - START for report in reports] == [0 * SECOND] * 3 + [
        10 * SECOND
    ]


def test_duplicates_are_no_errors():
    """Accepted events and duplicates are in no report; other content under a known identifier is,
    with our own word.
    """
    first = event(identifier="a")
    other = event({"stripe_customer_id": "cus_1", "value": "2"}, identifier="a")
    assert reported((SECOND, first), (SECOND, first)) == []
    (report,) = reported((SECOND, first), (SECOND, other))
    (error_type,) = report.to_dict()["data"]["reason"]["error_types"]
    assert (error_type["code"], error_type["error_count"]) == ("identifier_reused", 1)


def test_malformed_events_are_reported():
    """What was sent as a mapping and is no event counts, at its meter where it names one."""
    stream = MeterEventStream(MeterLog(METERS), tokens=lambda: "t")
    batch = [
        {"event_name": "calls", "payload": {}, "identifier": "x", "quantity": 1},
        {"event_name": 5, "payload": {}, "identifier": 5},
        "calls",
    ]
    receipts = stream.send(batch, session=stream.create_session(now=START), now=START)
    calls, none = error_reports(refused_events(batch, receipts, meters=METERS, now=START))
    assert (calls.meter, none.meter) == ("mtr_calls", None)
    assert [(one.code.value, one.error_count) for one in calls.error_types] == [
        ("parameter_unknown", 1)
    ]
    assert calls.error_types[0].sample_errors[0].identifier == "x"
    assert [one.code.value for one in none.error_types] == [
        "parameter_invalid_string",
        "parameter_invalid_object",
    ]
    assert none.error_types[0].sample_errors[0].identifier is None


def test_no_meter_is_said_of_no_meter():
    """An event refused for want of a meter is reported without one, also where the meter was made
    since.
    """
    receipts = MeterLog().append([NO_VALUE], now=START)
    (one,) = refused_events([NO_VALUE], receipts, meters=METERS, now=START)
    assert (one.code, one.meter) == (ErrorCode.METER_UNKNOWN, None)


def test_receipts_belong_to_events():
    """Receipts of another batch cannot be reported."""
    receipt = Receipt(Outcome.DUPLICATE, 1)
    for events, received in (([NO_VALUE] * 2, "'more'"), ([], "'0'")):
        with pytest.raises(
            InvalidValueError,
            match=f"events: expected as many events as receipts, 1, received {received}",
        ):
            refused_events(events, [receipt], meters=METERS, now=START)


# The reporter -------------------------------------------------------------------------------------


def rejection(code=ErrorCode.VALUE_MISSING):
    return Receipt(Outcome.REJECTED, code=code, message=f"{code.value}!")


def test_a_window_is_reported_when_it_is_over():
    """A report comes at the first advance at or after its window's end, not before, and once."""
    reporter = MeterErrorReporter()
    reporter.record([NO_VALUE], [rejection()], meters=METERS, now=START + 3 * SECOND)
    assert reporter.advance(START + 3 * SECOND) == []
    assert reporter.advance(START + 10 * SECOND - MICROSECOND) == []
    (report,) = reporter.advance(START + 10 * SECOND)
    assert (report.meter, report.validation_start, report.error_count) == ("mtr_tokens", START, 1)
    assert reporter.advance(START + 10 * SECOND) == reporter.advance(START + 1000 * SECOND) == []


def test_one_advance_closes_many_windows():
    """An advance over several windows brings their reports oldest first, and leaves the open one
    open.
    """
    reporter = MeterErrorReporter()
    for after in (3, 14, 35, 42):
        reporter.record([NO_VALUE], [rejection()], meters=METERS, now=START + after * SECOND)
    assert [
        report.validation_start - START for report in reporter.advance(START + 45 * SECOND)
    ] == [
        timedelta(0),
        10 * SECOND,
        30 * SECOND,
    ]
    assert [
        report.validation_start - START for report in reporter.advance(START + 50 * SECOND)
    ] == [40 * SECOND]


def test_a_clock_put_back_loses_nothing():
    """What comes with a moment of a reported window counts in the first open one, and advancing
    backwards reports nothing.
    """
    reporter = MeterErrorReporter()
    assert reporter.advance(START + 25 * SECOND) == []
    reporter.record([NO_VALUE], [rejection()], meters=METERS, now=START + 5 * SECOND)
    assert reporter.advance(START) == []
    reporter.record([NO_VALUE], [rejection()], meters=METERS, now=START + 5 * SECOND)
    assert reporter.advance(START + 29 * SECOND) == []
    (report,) = reporter.advance(START + 30 * SECOND)
    assert (report.validation_start, report.error_count) == (START + 20 * SECOND, 2)


@pytest.mark.parametrize("now", [None, 1.5, "now", datetime(2024, 6, 1)])  # noqa: DTZ001
def test_the_reporter_needs_moments(now):
    """What is no moment is refused, and changes nothing."""
    reporter = MeterErrorReporter()
    for call in (
        lambda: reporter.advance(now),
        lambda: reporter.record([NO_VALUE], [rejection()], meters=METERS, now=now),
    ):
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert (caught.value.code, caught.value.param) == ("parameter_invalid_instant", "now")
    assert reporter.advance(START) == []


CODES = st.sampled_from(
    [ErrorCode.METER_UNKNOWN, ErrorCode.VALUE_MISSING, ErrorCode.PARAMETER_UNKNOWN, None]
)
NAMES = st.sampled_from(["tokens", "calls", "other"])
# Milliseconds after START, in ascending order: ends and beginnings of windows are drawn often.
MOMENTS = st.one_of(
    st.integers(0, 60_000),
    st.builds(lambda window, off: window * 10_000 + off, st.integers(0, 6), st.integers(0, 1)),
)
RUNS = st.lists(st.tuples(MOMENTS, NAMES, CODES), max_size=30).map(
    lambda run: sorted(run, key=lambda one: one[0])
)


def ran(run, advances):
    """Return the reports of a run, advanced to at the moments given, in step with the run, and at
    last to the end.
    """
    reporter, reports = MeterErrorReporter(), []
    steps = [(at, 1, name, code) for at, name, code in run] + [
        (at, 0, None, None) for at in advances
    ]
    for at, is_event, name, code in sorted(steps, key=lambda step: step[:2]):
        now = START + timedelta(milliseconds=at)
        if is_event:
            receipt = Receipt(Outcome.ACCEPTED, 1) if code is None else rejection(code)
            reporter.record([event(event_name=name)], [receipt], meters=METERS, now=now)
        else:
            reports += reporter.advance(now)
    return reports + reporter.advance(START + timedelta(minutes=5))


@given(RUNS, st.lists(MOMENTS, max_size=10))
def test_advancing_more_often_changes_nothing(run, advances):
    """However a run of refusals is split over advances, the reports are the same, and those of the
    pure function.
    """
    once = ran(run, [])
    assert ran(run, advances) == once
    sent = [(START + timedelta(milliseconds=at), name, code) for at, name, code in run]
    pure = [
        one
        for now, name, code in sent
        if code is not None
        for one in refused_events(
            [event(event_name=name)], [rejection(code)], meters=METERS, now=now
        )
    ]
    assert once == error_reports(pure)


@given(RUNS, st.lists(MOMENTS, max_size=10))
def test_every_refusal_is_counted_once(run, advances):
    """Counts add up to the refusals, by code and over all; no two reports of a meter share a
    window.
    """
    reports = ran(run, advances)
    by_code: Counter[ErrorCode] = Counter()
    for report in reports:
        assert report.error_count == sum(one.error_count for one in report.error_types) > 0
        for one in report.error_types:
            by_code[one.code] += one.error_count
            assert len(one.sample_errors) == min(one.error_count, 5)
            assert all(
                report.validation_start <= sample.received_at < report.validation_end
                for sample in one.sample_errors
            )
    assert +by_code == Counter(code for _, _, code in run if code is not None)
    windows = [(report.meter, report.validation_start) for report in reports]
    assert len(set(windows)) == len(windows)
    assert all((start - START) % (10 * SECOND) == timedelta(0) for _, start in windows)
    assert [start for _, start in windows] == sorted(start for _, start in windows)
