"""Worked cases: those in tests/cases, most of them rows of a table of Stripe's published numbers,
and the runner itself.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from places import CASES_FOLDER, ROOT_FOLDER

from metering_core import Price
from metering_core.errors import CatalogError, ErrorCode, InvalidValueError
from metering_core.periods import instant, iso_8601
from metering_core.pricing import Charge, ChargeKind
from metering_core.testing import cases as runner
from metering_core.testing.cases import CASE_KINDS, CaseResult, read_cases, run_cases

FOLDER = CASES_FOLDER
FILES = sorted(FOLDER.glob("*.json"))
CASES = [case for file in FILES for case in read_cases(file)["cases"]]

# -- What the engine must give ---------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case):
    """The engine gives what the worked case says."""
    (result,) = run_cases({"cases": [case]})
    assert result == CaseResult(case["id"], case["kind"], ())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file(file):
    """Each file runs as a whole, as users run theirs."""
    data = read_cases(file)
    assert [result.id for result in run_cases(data)] == [case["id"] for case in data["cases"]]


def test_ids_are_unique_in_all_files():
    """A case is found by its id alone."""
    ids = [case["id"] for case in CASES]
    assert len(ids) == len(set(ids))


def test_no_numbered_row_is_missing():
    """Every numbered row that is a number of our scope has a case; E28 and E29 are shapes, E31 says
    there is no number.
    """
    rows = {f"E{number}" for number in (*range(1, 50), *range(65, 70))} | {"E37b"}
    derived = {f"d-volume-flat-{quantity}" for quantity in (1, 5, 6, 10, 11, 15, 16, 20, 21, 30)}
    derived |= {
        f"d-graduated-flat-{quantity}" for quantity in (1, 5, 6, 10, 11, 15, 16, 20, 21, 30)
    }
    derived |= {f"d-package-down-{quantity}" for quantity in (999, 1000, 1999, 2000)}
    derived |= {"d-E30-100077", "d-E31-tie", "d-E37b-2"}
    ids = {case["id"] for case in CASES}
    assert derived <= ids
    assert rows - ids - {case_id.partition("-")[0] for case_id in ids} == {"E28", "E29", "E31"}
    meters = ("MS-1", "MS-2", "MU-1", "ME-1", "ID-1", "PR-1", "PR-2", "PR-3", "PR-4")
    assert not [
        row
        for row in meters
        if not any(case_id == row or case_id.startswith(f"{row}-") for case_id in ids)
    ]


OTHER = {
    "outcome": {"accepted": "rejected", "duplicate": "accepted", "rejected": "accepted"},
    "kind": {"unit": "flat", "flat": "unit", "package": "unit", "percent": "unit"},
    "aggregate_usage": {
        "sum": "max",
        "max": "sum",
        "last_during_period": "sum",
        "last_ever": "sum",
        None: "sum",
    },
    "currency": {"usd": "eur", "gbp": "eur"},
}


def planted(key, value):
    """Return a value that is as well-formed as the one expected, and wrong."""
    if key in OTHER:
        return OTHER[key][value]
    if key == "code":
        return "period_closed"
    if key == "value":
        return str(Fraction(value) + 1)
    if key in {"boundaries", "start", "end", "start_time", "end_time"} and isinstance(value, str):
        return (datetime.fromisoformat(value) + timedelta(seconds=1)).isoformat()
    if key == "sequence":
        return 7 if value is None else value + 1
    if isinstance(value, int):
        return value + 1
    return f"1{value}"


def with_one_defect(expected, key=None):
    """Yield copies of what is expected, each with one value planted."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            yield from ({**expected, name: wrong} for wrong in with_one_defect(value, name))
    elif isinstance(expected, list):
        for position, value in enumerate(expected):
            yield from (
                [*expected[:position], wrong, *expected[position + 1 :]]
                for wrong in with_one_defect(value, key)
            )
        if key != "boundaries":
            yield expected[:-1] if expected else [{}]
    else:
        yield planted(key, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_every_expected_value_is_compared(case):
    """Whichever value of a case is changed, the case differs: none is there for show."""
    defects = list(with_one_defect(case["expected"]))
    assert defects
    for expected in defects:
        (result,) = run_cases({"cases": [{**case, "expected": expected}]})
        assert result.differences, expected


# -- The runner says what differs ------------------------------------------------------------------

TIERS = [{"up_to": 5, "unit_amount": 700}, {"up_to": "inf", "unit_amount": 650}]
RATING = {
    "id": "one",
    "kind": "rating",
    "price": {
        "currency": "usd",
        "billing_scheme": "tiered",
        "tiers_mode": "graduated",
        "tiers": TIERS,
    },
    "quantity": 6,
    "expected": {},
}
AGGREGATION = {
    "id": "one",
    "kind": "aggregation",
    "aggregate_usage": "sum",
    "period": {"start": 0, "end": 1000},
    "records": [{"timestamp": 10, "quantity": 5}],
    "expected": {},
}
PERIOD = {
    "id": "one",
    "kind": "period",
    "billing_cycle_anchor": "2024-01-31T00:00:00Z",
    "interval": "month",
    "expected": {},
}
SUBSCRIPTION = {
    "id": "sub",
    "billing_cycle_anchor": 0,
    "items": [
        {
            "id": "si",
            "price": {
                "currency": "usd",
                "unit_amount": 2,
                "recurring": {"interval": "month", "usage_type": "metered"},
            },
        }
    ],
}
APPEND = {
    "id": "one",
    "kind": "append",
    "subscription": SUBSCRIPTION,
    "now": 100,
    "records": [
        {"subscription_item": "si", "quantity": 5},
        {"subscription_item": "si", "quantity": 5, "timestamp": 101},
    ],
    "expected": {},
}
INVOICE = {
    "id": "one",
    "kind": "invoice",
    "subscription": SUBSCRIPTION,
    "period": {"start": 0, "end": "1970-02-01T00:00:00Z"},
    "records": [{"subscription_item": "si", "quantity": 5, "timestamp": 10}],
    "expected": {},
}
PAYLOAD = {"stripe_customer_id": "cus_1", "value": "2.5", "region": "eu"}
METER = {
    "id": "one",
    "kind": "meter",
    "meter": {"event_name": "m", "dimension_payload_keys": ["region"]},
    "events": [
        {"event_name": "m", "timestamp": 3590, "identifier": "a", "payload": PAYLOAD},
        {
            "event_name": "m",
            "timestamp": "1970-01-01T01:30:00Z",
            "payload": {**PAYLOAD, "value": "4"},
        },
    ],
    "customer": "cus_1",
    "start_time": 0,
    "end_time": 86_400,
    "value_grouping_window": "hour",
    "expected": {},
}
SAMPLES = [RATING, AGGREGATION, PERIOD, APPEND, INVOICE, METER]


def run(sample, **changes):
    (result,) = run_cases({"cases": [{**sample, **changes}]})
    return result.differences


def refused(case):
    with pytest.raises(CatalogError) as caught:
        run_cases({"cases": [case]})
    assert caught.value.code is ErrorCode.FILE_UNREADABLE
    return caught.value


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["kind"])
def test_what_is_absent_is_not_checked(sample):
    """A case that expects nothing agrees with anything."""
    assert run(sample) == ()


@pytest.mark.parametrize(
    ("sample", "expected", "sentences"),
    [
        (RATING, {"total": 4151}, ["total: expected 4151, received 4150"]),
        (RATING, {"exact": "4150.5"}, ['exact: expected "4150.5", received "4150"']),
        (RATING, {"exact": 4150, "total": 4150}, []),
        (
            RATING,
            {"lines": [{"quantity": 6, "tier": 1}, {"amount": 650, "kind": "flat", "packages": 2}]},
            [
                "lines[0][quantity]: expected 6, received 5",
                'lines[1][kind]: expected "flat", received "unit"',
                "lines[1][packages]: expected 2, received null",
            ],
        ),
        (
            RATING,
            {"lines": [{}, {}, {"amount": 1}]},
            ['lines[2]: expected {"amount": 1}, received nothing'],
        ),
        (AGGREGATION, {"quantity": "5.5"}, ['quantity: expected "5.5", received 5']),
        (AGGREGATION, {"quantity": "5.0"}, []),
        (
            PERIOD,
            {"boundaries": ["2024-01-31T00:00:00Z", 1709251200]},
            ['boundaries[1]: expected "2024-03-01T00:00:00Z", received "2024-02-29T00:00:00Z"'],
        ),
        (
            PERIOD,
            {"boundaries": ["2024-02-15T00:00:00Z"]},
            ['boundaries[0]: expected "2024-02-15T00:00:00Z", received "2024-01-31T00:00:00Z"'],
        ),
        (PERIOD, {"boundaries": ["2024-01-31T01:00:00+01:00"]}, []),
        (
            APPEND,
            {
                "receipts": [
                    {"outcome": "rejected"},
                    {"outcome": "accepted", "code": None, "sequence": 2},
                ]
            },
            [
                'receipts[0][outcome]: expected "rejected", received "accepted"',
                'receipts[1][outcome]: expected "accepted", received "rejected"',
                'receipts[1][code]: expected null, received "timestamp_in_future"',
                "receipts[1][sequence]: expected 2, received null",
            ],
        ),
        (
            APPEND,
            {"receipts": [{"message": "no"}, {"message": "must not be in the future"}]},
            ['receipts[0][message]: expected a text with "no", received null'],
        ),
        (
            INVOICE,
            {"total": 11, "subtotal": 12},
            ["total: expected 11, received 10", "subtotal: expected 12, received 10"],
        ),
        (INVOICE, {"currency": "EUR"}, ['currency: expected "eur", received "usd"']),
        (
            INVOICE,
            {"lines": [{"period": {"end": "1970-02-01T00:00:01Z"}, "id": "x", "total_usage": 5}]},
            [
                "lines[0][period][end]: expected 2678401, received 2678400",
                'lines[0][id]: expected "x", received "in_sub_0_1"',
            ],
        ),
        (METER, {"value": "6.50"}, []),
        (METER, {"value": "-2"}, ['value: expected "-2", received "6.5"']),
        (METER, {"value": "13/2"}, []),
        (METER, {"value": "26/4", "summaries": [{"value": "5/2"}, {"value": 4}]}, []),
        (
            METER,
            {
                "summaries": [
                    {"start_time": 0, "end_time": "1970-01-01T00:59:59Z"},
                    {"value": "4"},
                    {"value": "0"},
                ]
            },
            [
                (
                    'summaries[0][end_time]: expected "1970-01-01T00:59:59Z", received '
                    '"1970-01-01T01:00:00Z"'
                ),
                'summaries[2]: expected {"value": "0"}, received nothing',
            ],
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) and "kind" in value else None,
)
def test_differences_are_sentences(sample, expected, sentences):
    """A difference says what, what was expected and what was received; values that mean the same do
    not differ.
    """
    assert list(run(sample, expected=expected)) == sentences


def test_surplus_lines_are_shown():
    """A line that nobody expected is a difference, and the sentence shows it."""
    (sentence,) = run(RATING, expected={"lines": [{}]})
    assert sentence.startswith(
        'lines[1]: expected nothing, received {"kind": "unit", "tier": 2, "quantity": 1'
    )


def test_quantities_that_no_decimal_can_write():
    """A third of a unit at 7 cents is 7/3 of a cent, in whatever terms the ratio is written; a line
    shows it cut.
    """
    case = {**RATING, "price": {"currency": "usd", "unit_amount": 7}}
    lines = [{"quantity": "1/3", "exact": "14/6", "unit_amount": 7}]
    for quantity, shown in (("1/3", lines), ("2/6", [{"quantity": "0.333333333333", "amount": 2}])):
        expected = {"total": 2, "exact": "7/3", "lines": shown}
        assert (
            run_cases({"cases": [{**case, "quantity": quantity, "expected": expected}]})[
                0
            ].differences
            == ()
        )
    wrong = {"exact": "5/3", "lines": [{"quantity": "2/3"}]}
    (result,) = run_cases({"cases": [{**case, "quantity": "1/3", "expected": wrong}]})
    assert result.differences == (
        'exact: expected "5/3", received "7/3"',
        'lines[0][quantity]: expected "0.666666666666", received "0.333333333333"',
    )


def test_period_that_holds_an_instant():
    """A period case may ask for the period of an instant; the end is excluded."""
    expected = {"start": "2024-02-29T00:00:00Z", "end": "2024-03-31T00:00:00Z"}
    assert run(PERIOD, at="2024-02-29T00:00:00Z", expected=expected) == ()
    assert run(PERIOD, at="2024-03-31T00:00:00Z", expected=expected) == (
        'start: expected "2024-02-29T00:00:00Z", received "2024-03-31T00:00:00Z"',
        'end: expected "2024-03-31T00:00:00Z", received "2024-04-30T00:00:00Z"',
    )


def test_refused_record_of_an_aggregation_is_a_difference():
    """A record that the log refuses does not vanish silently from the quantity of a case."""
    records = [
        {"timestamp": 10, "quantity": 5, "id": "k"},
        {"timestamp": 10, "quantity": 6, "id": "k"},
    ]
    (sentence,) = run(AGGREGATION, records=records, expected={"quantity": 5})
    assert sentence.startswith(
        "records[1]: expected a record that is accepted, received id_reused: Keys for idempotent"
    )


def test_refused_record_of_an_invoice_is_a_difference():
    """A record for an item that nobody bills, and one received before it happened, are
    differences.
    """
    records = [
        {"subscription_item": "si_2", "quantity": 1, "timestamp": 10},
        {"subscription_item": "si", "quantity": 5, "timestamp": 10, "received_at": 9},
        {"subscription_item": "si", "quantity": 5, "timestamp": 10, "received_at": 11},
    ]
    first, second = run(INVOICE, records=records, expected={"total": 10})
    assert first.startswith(
        "records[0]: expected a record that is accepted, received subscription_item_unknown: "
    )
    assert second.startswith(
        "records[1]: expected a record that is accepted, received timestamp_in_future: "
    )


def test_duplicate_record_is_no_difference():
    """A retry is accepted usage that counts once."""
    record = {"timestamp": 10, "quantity": 5, "id": "k"}
    assert run(AGGREGATION, records=[record, record], expected={"quantity": 5}) == ()


def without(sample, *keys):
    return {key: value for key, value in sample.items() if key not in keys}


def test_refused_event_of_a_meter_is_a_difference():
    """ID-2: an identifier with other content is refused in Stripe's words, and the value stays; so
    are others.
    """
    events = [
        *METER["events"],
        {**METER["events"][0], "timestamp": 3591},
        {"event_name": "n", "timestamp": 0, "payload": PAYLOAD},
        {"event_name": "m", "timestamp": 0, "payload": {**PAYLOAD, "value": "1e3"}},
    ]
    first, second, third = run(METER, events=events, expected={"value": "6.5"})
    assert first.startswith(
        "events[2]: expected an event that is accepted, received identifier_reused: An "
        "event already exists with identifier a."
    )
    assert second.startswith(
        "events[3]: expected an event that is accepted, received meter_unknown: "
    )
    assert third.startswith(
        "events[4]: expected an event that is accepted, received value_invalid: "
    )


def test_events_of_any_age_are_accepted():
    """History is checked: an event far from its neighbours in the list is neither too old nor too
    new.
    """
    years = [
        {**event, "timestamp": f"{year}-01-01T00:00:00Z"}
        for event, year in zip(METER["events"], (2024, 1999), strict=True)
    ]
    assert (
        run(
            METER,
            events=years,
            end_time="2025-01-01T00:00:00Z",
            value_grouping_window=None,
            expected={"value": "6.5"},
        )
        == ()
    )


@pytest.mark.parametrize(
    "key", ["customer", "start_time", "end_time", "value_grouping_window", "expected"]
)
def test_optional_key_of_a_meter(key):
    """Each key beyond the events may be absent, or null, and the case still says the same."""
    summaries = (
        {"summaries": [{"value": "2.5"}, {"value": "4"}]} if key != "value_grouping_window" else {}
    )
    sample = {**METER, "expected": {"value": "6.5", **summaries}}
    (absent,) = run_cases({"cases": [without(sample, key)]})
    assert absent.differences == ()
    if key != "expected":
        assert run({**sample, key: None}) == ()


def test_range_of_a_meter_case_covers_its_events_in_whole_windows():
    """Bounds that are absent are those of whole windows of the case's zone; without a window, of
    minutes.
    """
    bare = without(METER, "customer", "start_time", "end_time", "value_grouping_window")
    for window, zone, start, end in (
        (
            "day",
            "Asia/Kathmandu",
            "1969-12-31T18:30:00Z",
            "1970-01-01T18:30:00Z",
        ),  # +05:30 until 1986
        ("week", "UTC", "1969-12-29T00:00:00Z", "1970-01-05T00:00:00Z"),
        ("month", "Europe/Berlin", "1969-12-31T23:00:00Z", "1970-01-31T23:00:00Z"),
        (None, "UTC", "1970-01-01T00:59:00Z", "1970-01-01T01:31:00Z"),
    ):
        expected = {
            "value": "6.5",
            "summaries": [{"start_time": start, "end_time": end, "value": "6.5"}],
        }
        assert run(bare, value_grouping_window=window, timezone=zone, expected=expected) == ()


@pytest.mark.parametrize("window", [None, "hour", "day", "week", "month"])
@pytest.mark.parametrize("bounds", [(), ("start_time",), ("end_time",), ("start_time", "end_time")])
@pytest.mark.parametrize("events", [[], METER["events"]], ids=["no events", "another's events"])
def test_customer_without_events_comes_to_nothing(events, bounds, window):
    """Nothing is 0 in any range, whatever of it the case says, and has no summaries."""
    sample = without(METER, *{"start_time", "end_time"} - set(bounds))
    nothing = {"value": 0, "summaries": []}
    assert (
        run(sample, events=events, customer="cus_2", value_grouping_window=window, expected=nothing)
        == ()
    )


@pytest.mark.parametrize(
    ("given", "window", "start", "end"),
    [
        (
            {"start_time": "1970-01-02T10:20:30Z"},
            None,
            "1970-01-02T10:20:30Z",
            "1970-01-02T10:21:00Z",
        ),
        (
            {"start_time": "1970-01-02T10:20:00Z"},
            "hour",
            "1970-01-02T10:20:00Z",
            "1970-01-02T11:00:00Z",
        ),
        (
            {"start_time": "1970-02-01T00:00:00Z"},
            "month",
            "1970-02-01T00:00:00Z",
            "1970-03-01T00:00:00Z",
        ),
        (
            {"end_time": "1970-01-01T00:02:00Z"},
            None,
            "1970-01-01T00:01:00Z",
            "1970-01-01T00:02:00Z",
        ),
        (
            {"end_time": "1970-01-01T00:00:00Z"},
            "day",
            "1969-12-31T00:00:00Z",
            "1970-01-01T00:00:00Z",
        ),
        (
            {"start_time": "1969-12-31T00:00:00Z"},
            "day",
            "1969-12-31T00:00:00Z",
            "1970-01-02T00:00:00Z",
        ),
        (
            {"end_time": "1970-01-03T00:00:00Z"},
            "day",
            "1970-01-01T00:00:00Z",
            "1970-01-03T00:00:00Z",
        ),
    ],
)
def test_one_bound_of_a_meter_case_tells_the_other(given, window, start, end, monkeypatch):
    """Where no event lies on the side of the bound that is absent, the range is the rest of the
    window of the other bound.
    """
    asked = []

    def event_summaries(log, meter_id, customer, start_time, end_time, **options):
        asked.append([iso_8601(instant(bound, "bound")) for bound in (start_time, end_time)])
        return real(log, meter_id, customer, start_time, end_time, **options)

    real = runner.event_summaries
    monkeypatch.setattr(runner, "event_summaries", event_summaries)
    run({**without(METER, "start_time", "end_time"), **given}, value_grouping_window=window)
    assert asked[-2:] == [[start, end]] * 2


def test_level_is_carried_into_a_range_after_the_last_event():
    """A case may ask what a level comes to later than anything happened."""
    meter = {**METER["meter"], "default_aggregation": {"formula": "last"}, "carry_forward": True}
    day = {"start_time": 86_400, "end_time": 172_800, "value": "4"}
    later = {**without(METER, "end_time"), "meter": meter, "start_time": 86_400}
    assert (
        run(later, value_grouping_window="day", expected={"value": "4", "summaries": [day]}) == ()
    )


def test_window_beyond_the_calendar_is_refused():
    """The window of the calendar's last minute ends after the calendar, so the case must say an
    end.
    """
    event = {**METER["events"][0], "timestamp": "9999-12-31T23:59:59Z"}
    sample = without(METER, "end_time", "value_grouping_window")
    error = refused({**sample, "events": [event]})
    assert (error.param, error.details["code"]) == ("end_time", ErrorCode.PARAMETER_INVALID_INSTANT)
    assert (
        run(
            METER,
            events=[event],
            start_time="9999-12-31T00:00:00Z",
            end_time="9999-12-31T23:00:00Z",
        )
        == ()
    )


def test_meter_case_without_events_needs_its_customer():
    """Where there is nothing to tell the customer by, the case must name one."""
    error = refused({**without(METER, "customer"), "events": []})
    assert (error.param, error.details["code"]) == ("customer", ErrorCode.PARAMETER_MISSING)


def test_customer_of_a_meter_case_must_be_told_from_others():
    """Where the events have several customers, the case must say which it means."""
    other = {
        **METER["events"][0],
        "identifier": "b",
        "payload": {**PAYLOAD, "stripe_customer_id": "cus_2"},
    }
    error = refused({**without(METER, "customer"), "events": [*METER["events"], other]})
    assert (error.param, error.details["code"]) == ("customer", ErrorCode.PARAMETER_MISSING)


def test_invoice_that_cannot_be_made_is_a_difference():
    """A period that is not one of the subscription's is answered by the engine's refusal."""
    (sentence,) = run(INVOICE, period={"start": 1, "end": 2}, records=[])
    assert sentence.startswith("expected an answer, received period_not_of_subscription: ")


def test_policy_in_seconds():
    """The acceptance policy of an append case is the engine's, with durations in seconds."""
    expected = {"receipts": [{"outcome": "accepted"}, {"outcome": "accepted"}]}
    assert (
        run(
            APPEND,
            policy={"future_tolerance": 1, "late_attribution": "open_period"},
            expected=expected,
        )
        == ()
    )


def test_instants_of_a_subscription_in_iso_8601():
    """Instants are Unix seconds or ISO 8601 inside a subscription too, and a list object of items
    is taken.
    """
    shape = {
        **SUBSCRIPTION,
        "billing_cycle_anchor": "1970-01-01T00:00:00Z",
        "start_date": "1970-01-01T00:00:05Z",
        "cancel_at": "1970-01-01T01:00:30+01:00",
        "items": {"object": "list", "data": SUBSCRIPTION["items"]},
    }
    expected = {"total": 10, "lines": [{"period": {"start": 5, "end": 30}, "price": "price"}]}
    assert run(INVOICE, subscription=shape, period={"start": 5, "end": 30}, expected=expected) == ()


def test_kind_selects():
    """With a kind, only its cases are returned, in their order; the others must still be
    well-formed.
    """
    data = {"cases": [{**RATING, "id": "a"}, {**PERIOD, "id": "b"}, {**RATING, "id": "c"}]}
    assert [result.id for result in run_cases(data, "rating")] == ["a", "c"]
    with pytest.raises(CatalogError):
        run_cases({"cases": [{**PERIOD, "interval": "fortnight"}]}, "rating")


def test_unknown_kind_to_select():
    """Selecting a kind that does not exist is the caller's mistake, not the file's."""
    with pytest.raises(InvalidValueError) as caught:
        run_cases({"cases": []}, "ratings")
    assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_INVALID_CHOICE, "kind")


# -- A typing slip cannot pass ---------------------------------------------------------------------


def placed(sample, path, value):
    """Return a copy of the case with a value put at the path."""
    changed = copy.deepcopy(sample)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("sample", "path", "param"),
    [
        (RATING, ["expcted"], "expcted"),
        (RATING, ["records"], "records"),
        (RATING, ["price", "unit_amuont"], "unit_amuont"),
        (RATING, ["price", "tiers", 0, "upto"], "tiers[0][upto]"),
        (RATING, ["expected", "totl"], "expected[totl]"),
        (RATING, ["expected", "subtotal"], "expected[subtotal]"),
        (AGGREGATION, ["period", "begin"], "period[begin]"),
        (AGGREGATION, ["records", 0, "time"], "records[0][time]"),
        (AGGREGATION, ["records", 0, "received_at"], "records[0][received_at]"),
        (AGGREGATION, ["expected", "total"], "expected[total]"),
        (PERIOD, ["intervall"], "intervall"),
        (PERIOD, ["expected", "boundary"], "expected[boundary]"),
        (APPEND, ["polcy"], "polcy"),
        (APPEND, ["subscription", "itemz"], "itemz"),
        (APPEND, ["subscription", "items", 0, "prize"], "items[prize]"),
        (
            APPEND,
            ["subscription", "items", 0, "price", "recurring", "aggregate"],
            "recurring[aggregate]",
        ),
        (APPEND, ["records", 1, "received_at"], "records[1][received_at]"),
        (INVOICE, ["now"], "now"),
        (INVOICE, ["records", 0, "at"], "records[0][at]"),
        (METER, ["cancel"], "cancel"),
        (METER, ["meter", "formula"], "formula"),
        (METER, ["meter", "value_settings"], "value_settings[key]"),
        (METER, ["events", 1, "received_at"], "events[1][received_at]"),
        (METER, ["expected", "total"], "expected[total]"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else None,
)
def test_unknown_key(sample, path, param):
    """An unknown key at any level makes the file unreadable; the complaint names case and key."""
    error = refused(placed(sample, path, {"key": 1} if path[-1] == "value_settings" else 1))
    assert (error.param, error.details["case"], error.details["code"]) == (
        param,
        "one",
        ErrorCode.PARAMETER_UNKNOWN,
    )
    assert str(error) == f"case 'one': Received unknown parameter: {param}"


@pytest.mark.parametrize(
    ("sample", "expected", "param"),
    [
        (RATING, {"lines": [{"amount": 1}, {"amuont": 1}]}, "expected[lines][1][amuont]"),
        (RATING, {"lines": [{"total_usage": 1}]}, "expected[lines][0][total_usage]"),
        (APPEND, {"receipts": [{"status": "accepted"}]}, "expected[receipts][0][status]"),
        (INVOICE, {"lines": [{"period": {"begin": 0}}]}, "expected[lines][0][period][begin]"),
        (METER, {"summaries": [{"start": 0}]}, "expected[summaries][0][start]"),
    ],
)
def test_unknown_key_in_a_list_of_expectations(sample, expected, param):
    """The lines and receipts that a case expects are read as strictly as the case."""
    assert refused({**sample, "expected": expected}).param == param


@pytest.mark.parametrize(
    ("sample", "path"),
    [
        (RATING, ["quantity"]),
        (RATING, ["price", "tiers", 0, "unit_amount"]),
        (RATING, ["price", "metadata"]),
        (RATING, ["expected", "total"]),
        (AGGREGATION, ["records", 0, "quantity"]),
        (PERIOD, ["billing_cycle_anchor"]),
        (APPEND, ["now"]),
        (INVOICE, ["period", "end"]),
        (METER, ["events", 0, "payload", "value"]),
        (METER, ["expected", "value"]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else None,
)
def test_floats(sample, path):
    """A JSON float is refused wherever it stands, and the complaint says to write a string."""
    error = refused(placed(sample, path, 7.0))
    place = path[0] + "".join(f"[{step}]" for step in path[1:])
    assert (error.param, error.details["code"]) == (place, ErrorCode.PARAMETER_INVALID_DECIMAL)
    assert 'a decimal written as a string such as "0.5", received 7.0 (float)' in str(error)


@pytest.mark.parametrize(
    ("sample", "path", "value", "param", "code"),
    [
        (RATING, ["id"], None, "id", ErrorCode.PARAMETER_MISSING),
        (RATING, ["id"], 5, "id", ErrorCode.PARAMETER_INVALID_STRING),
        (RATING, ["kind"], None, "kind", ErrorCode.PARAMETER_MISSING),
        (RATING, ["kind"], "ratings", "kind", ErrorCode.PARAMETER_INVALID_CHOICE),
        (RATING, ["kind"], ["rating"], "kind", ErrorCode.PARAMETER_INVALID_CHOICE),
        (RATING, ["expected"], None, "expected", ErrorCode.PARAMETER_MISSING),
        (RATING, ["expected"], [], "expected", ErrorCode.PARAMETER_INVALID_OBJECT),
        (RATING, ["expected", "lines"], {}, "expected[lines]", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            RATING,
            ["expected", "lines"],
            [{"kind": "units"}],
            "expected[lines][0][kind]",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (
            RATING,
            ["expected", "lines"],
            [{"description": 5}],
            "expected[lines][0][description]",
            "parameter_invalid_string",
        ),
        (
            RATING,
            ["expected", "total"],
            "4150",
            "expected[total]",
            ErrorCode.PARAMETER_INVALID_INTEGER,
        ),
        (
            RATING,
            ["expected", "total"],
            True,
            "expected[total]",
            ErrorCode.PARAMETER_INVALID_INTEGER,
        ),
        (
            RATING,
            ["expected", "total"],
            None,
            "expected[total]",
            ErrorCode.PARAMETER_INVALID_INTEGER,
        ),
        (
            RATING,
            ["expected", "exact"],
            "1e",
            "expected[exact]",
            ErrorCode.PARAMETER_INVALID_DECIMAL,
        ),
        (
            RATING,
            ["expected", "exact"],
            "1/0",
            "expected[exact]",
            ErrorCode.PARAMETER_INVALID_DECIMAL,
        ),
        (
            RATING,
            ["expected", "lines"],
            [{"quantity": "0.1234567890123"}],
            "expected[lines][0][quantity]",
            ErrorCode.PARAMETER_INVALID_DECIMAL,
        ),
        (RATING, ["quantity"], "-1/3", "quantity", ErrorCode.PARAMETER_INVALID_DECIMAL),
        (RATING, ["price"], "p", "price", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            RATING,
            ["price", "tiers_mode"],
            "graded",
            "tiers_mode",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (RATING, ["quantity"], -1, "quantity", ErrorCode.PARAMETER_INVALID_DECIMAL),
        (
            AGGREGATION,
            ["aggregate_usage"],
            "mean",
            "aggregate_usage",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (
            AGGREGATION,
            ["records", 0, "quantity"],
            "5",
            "records[0][quantity]",
            ErrorCode.PARAMETER_INVALID_INTEGER,
        ),
        (
            AGGREGATION,
            ["records", 0, "action"],
            "add",
            "records[0][action]",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (
            AGGREGATION,
            ["records", 0, "timestamp"],
            "now",
            "records[0][timestamp]",
            ErrorCode.PARAMETER_INVALID_INSTANT,
        ),
        (
            AGGREGATION,
            ["records", 0],
            {"quantity": 5},
            "records[0][timestamp]",
            ErrorCode.PARAMETER_MISSING,
        ),
        (AGGREGATION, ["period", "end"], 0, "end", ErrorCode.PARAMETER_INVALID_OBJECT),
        (AGGREGATION, ["period"], {"start": 0}, "period[end]", ErrorCode.PARAMETER_MISSING),
        (
            PERIOD,
            ["billing_cycle_anchor"],
            "2024-01-31T00:00:00",
            "billing_cycle_anchor",
            "parameter_invalid_instant",
        ),
        (
            PERIOD,
            ["billing_cycle_anchor"],
            "yesterday",
            "billing_cycle_anchor",
            ErrorCode.PARAMETER_INVALID_INSTANT,
        ),
        (PERIOD, ["interval"], "fortnight", "interval", ErrorCode.PARAMETER_INVALID_CHOICE),
        (PERIOD, ["interval_count"], 37, "interval_count", ErrorCode.INTERVAL_OUT_OF_RANGE),
        (PERIOD, ["timezone"], "Mars/Olympus", "timezone", ErrorCode.TIMEZONE_UNKNOWN),
        (PERIOD, ["expected", "start"], 0, "at", ErrorCode.PARAMETER_MISSING),
        (
            PERIOD,
            ["expected", "boundaries"],
            [],
            "expected[boundaries]",
            ErrorCode.PARAMETER_INVALID_OBJECT,
        ),
        (APPEND, ["subscription"], [], "subscription", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            APPEND,
            ["subscription", "start_date"],
            "x",
            "subscription[start_date]",
            ErrorCode.PARAMETER_INVALID_INSTANT,
        ),
        (
            APPEND,
            ["subscription", "items"],
            {"dta": []},
            "subscription[items][dta]",
            ErrorCode.PARAMETER_UNKNOWN,
        ),
        (
            APPEND,
            ["subscription", "items"],
            {"object": "list"},
            "subscription[items][data]",
            ErrorCode.PARAMETER_MISSING,
        ),
        (APPEND, ["subscription", "items"], "si", "items", ErrorCode.PARAMETER_INVALID_OBJECT),
        (APPEND, ["subscription", "items", 0], "si", "items", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            APPEND,
            ["subscription", "items", 0, "price"],
            "p",
            "items[price]",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (
            APPEND,
            ["policy"],
            {"late_grace": -1},
            "policy[late_grace]",
            ErrorCode.PARAMETER_INVALID_INTEGER,
        ),
        (
            APPEND,
            ["expected", "receipts"],
            [{"code": "late"}],
            "expected[receipts][0][code]",
            "parameter_invalid_choice",
        ),
        (
            APPEND,
            ["records", 0],
            {"quantity": 5},
            "records[0][subscription_item]",
            ErrorCode.PARAMETER_MISSING,
        ),
        (INVOICE, ["records", 0, "id"], "", "records[0][id]", ErrorCode.PARAMETER_INVALID_STRING),
        (INVOICE, ["expected", "currency"], "zzz", "currency", ErrorCode.CURRENCY_UNKNOWN),
        (METER, ["meter"], None, "meter", ErrorCode.PARAMETER_MISSING),
        (METER, ["meter"], [], "meter", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            METER,
            ["meter", "default_aggregation"],
            {"formula": "mean"},
            "default_aggregation[formula]",
            "parameter_invalid_choice",
        ),
        (METER, ["events"], None, "events", ErrorCode.PARAMETER_MISSING),
        (METER, ["events"], {}, "events", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            METER,
            ["events", 1],
            {"event_name": "m", "payload": {}},
            "events[1][timestamp]",
            ErrorCode.PARAMETER_MISSING,
        ),
        (
            METER,
            ["events", 1, "timestamp"],
            "now",
            "events[1][timestamp]",
            ErrorCode.PARAMETER_INVALID_INSTANT,
        ),
        (
            METER,
            ["events", 1, "payload"],
            "x",
            "events[1][payload]",
            ErrorCode.PARAMETER_INVALID_OBJECT,
        ),
        (
            METER,
            ["events", 1, "payload", "value"],
            4,
            "events[1][payload][value]",
            ErrorCode.PARAMETER_INVALID_STRING,
        ),
        (
            METER,
            ["events", 1, "identifier"],
            "",
            "events[1][identifier]",
            ErrorCode.PARAMETER_INVALID_STRING,
        ),
        (
            METER,
            ["events", 1, "event_name"],
            "x" * 101,
            "events[1][event_name]",
            ErrorCode.PARAMETER_INVALID_STRING,
        ),
        (METER, ["customer"], "", "customer", ErrorCode.PARAMETER_INVALID_STRING),
        (METER, ["start_time"], "1970-01-01", "start_time", ErrorCode.PARAMETER_INVALID_INSTANT),
        (METER, ["end_time"], 0, "end_time", ErrorCode.PARAMETER_INVALID_OBJECT),
        (
            METER,
            ["value_grouping_window"],
            "year",
            "value_grouping_window",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (METER, ["timezone"], "Mars/Olympus", "timezone", ErrorCode.TIMEZONE_UNKNOWN),
        (
            METER,
            ["dimension_filters"],
            {"region": "eu"},
            "dimension_filters[region]",
            ErrorCode.PARAMETER_INVALID_OBJECT,
        ),
        (
            METER,
            ["dimension_filters"],
            {"model": ["a"]},
            "dimension_filters[model]",
            ErrorCode.PARAMETER_INVALID_CHOICE,
        ),
        (
            METER,
            ["expected", "value"],
            "1/0",
            "expected[value]",
            ErrorCode.PARAMETER_INVALID_DECIMAL,
        ),
        (
            METER,
            ["expected", "value"],
            "1e",
            "expected[value]",
            ErrorCode.PARAMETER_INVALID_DECIMAL,
        ),
        (
            METER,
            ["expected", "value"],
            "1/-3",
            "expected[value]",
            ErrorCode.PARAMETER_INVALID_DECIMAL,
        ),
    ],
)
def test_malformed_case(sample, path, value, param, code):
    """A value that cannot be read makes the file unreadable; param and code say what it was."""
    error = refused(placed(sample, path, value))
    assert (error.param, error.details["code"]) == (param, code)


@pytest.mark.parametrize("value", [None, True, [], "abc", "1/0", "1e", f"0.{'1' * 201}", "9" * 201])
def test_complaint_about_a_number_speaks_json(value):
    """It says what can be written in a file, and names no type of Python's."""
    error = refused({**METER, "expected": {"value": value}})
    assert (error.param, error.details["code"]) == (
        "expected[value]",
        ErrorCode.PARAMETER_INVALID_DECIMAL,
    )
    assert (
        'expected an integer, or a decimal or a ratio written as a string such as "0.5" or "1/3"'
        in str(error)
    )


@pytest.mark.parametrize("key", ["quantity", "price", "id", "kind", "expected"])
def test_missing_key(key):
    """What a case needs must be there."""
    error = refused({name: value for name, value in RATING.items() if name != key})
    assert (error.param, error.details["code"]) == (key, ErrorCode.PARAMETER_MISSING)
    assert error.details["case"] == ("cases[0]" if key == "id" else "one")


def test_repeated_id():
    """Two cases with one id make the file unreadable."""
    with pytest.raises(
        CatalogError, match="case 'one': id: expected an id that no other case has, received 'one'"
    ):
        run_cases({"cases": [RATING, PERIOD]})


@pytest.mark.parametrize(
    "data", [[], {}, {"cases": {}}, {"cases": None}, {"cases": [], "case": []}, {"cases": [5]}]
)
def test_malformed_file(data):
    """A file is an object with a list of case objects, and nothing else."""
    with pytest.raises(CatalogError) as caught:
        run_cases(data)
    assert caught.value.code is ErrorCode.FILE_UNREADABLE


# -- Reading files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "line 1: is not JSON"),
        (b'{"cases": \xff}', "is not UTF-8"),
        (b"[]", "expected a JSON object with a list of cases, received a JSON list"),
        (b'{"cases": [], "cases": []}', "the key 'cases' occurs twice"),
        (b'{"cases": [{"expected": {"total": 1, "total": 2}}]}', "the key 'total' occurs twice"),
        (b'{"cases": [NaN]}', "NaN is not a number"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_unreadable_file(tmp_path, content, reason):
    """A file that is not the JSON it should be is refused with its path and the reason."""
    file = tmp_path / "cases.json"
    file.write_bytes(content)
    with pytest.raises(CatalogError) as caught:
        read_cases(file)
    assert (caught.value.code, caught.value.details["path"]) == (
        ErrorCode.FILE_UNREADABLE,
        str(file),
    )
    assert str(caught.value).startswith(str(file))
    assert reason in str(caught.value)


def test_absent_file(tmp_path):
    """A file that is not there is named."""
    with pytest.raises(CatalogError, match=r"absent\.json.* No such file") as caught:
        read_cases(tmp_path / "absent.json")
    assert caught.value.code is ErrorCode.FILE_UNREADABLE


def test_file_with_a_byte_order_mark(tmp_path):
    """Editors that write a byte order mark do no harm, and a path may be a string."""
    file = tmp_path / "cases.json"
    file.write_text("\ufeff" + json.dumps({"cases": [RATING]}), encoding="utf-8")
    assert run_cases(read_cases(str(file))) == [CaseResult("one", "rating", ())]


# -- The format ------------------------------------------------------------------------------------


def test_every_key_is_documented():
    """The module's docstring, which is the format's reference, names each kind, each key and each
    expected key.
    """
    words = {
        word for kind in CASE_KINDS.values() for word in (*kind.keys, *kind.expected)
    } | CASE_KINDS.keys()
    words |= (
        runner._INVOICE_LINE.keys()
        | runner._RECEIPT.keys()
        | runner._ITEM_RECORD.keys()
        | {"received_at"}
    )
    words |= runner._METER_EVENT.keys() | runner._SUMMARY.keys()
    assert not [word for word in words if f"``{word}``" not in runner.__doc__]


def test_runner_needs_no_hypothesis():
    """Checking cases works with the bare install: neither Hypothesis nor pytest is imported."""
    program = (
        "import sys; import metering_core.testing.cases; "
        "assert not {'hypothesis', 'pytest', '_pytest'} & sys.modules.keys(), 'imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT_FOLDER)


class MinimumFee:
    """A pricing model of a user's own: a cent a unit, but at least 500 cents."""

    def charges(self, quantity):
        return [Charge(ChargeKind.UNIT, quantity, None, Decimal(max(500, quantity)))]


def own_model_cases(price):
    """Return a rating and an invoice case of a price; 30 units cost the minimum, 700 cost 7.00."""
    item = {"id": "si_1", "price": price}
    subscription = {"id": "sub_1", "billing_cycle_anchor": 1704067200, "items": [item]}
    records = [{"subscription_item": "si_1", "quantity": 30, "timestamp": 1704067300}]
    period = {"start": 1704067200, "end": 1706745600}
    invoice = {
        "subscription": subscription,
        "records": records,
        "period": period,
        "expected": {"total": 500},
    }
    rating = {"price": price, "quantity": 700, "expected": {"total": 700}}
    return {
        "cases": [
            {"id": "r", "kind": "rating", **rating},
            {"id": "i", "kind": "invoice", **invoice},
        ]
    }


def test_a_pricing_model_of_ones_own_is_checked_like_all_others():
    """A case names such a price by the id under which it is given; one that is not given makes the
    file unreadable.
    """
    prices = {"minimum": Price("minimum", "usd", MinimumFee())}
    assert [
        result.differences for result in run_cases(own_model_cases("minimum"), prices=prices)
    ] == [(), ()]
    for case in own_model_cases("minimum")["cases"]:
        with pytest.raises(CatalogError, match="'minimum'"):
            run_cases({"cases": [case]})
