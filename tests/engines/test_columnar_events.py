"""Meter events in columns: everything as a meter log has it (law 4), exactly, and said plainly
where columns cannot.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from decimal import Decimal

import attrs
import event_cases
import pytest
from builders import DAY, START
from event_cases import CUSTOMERS, HUGE, METERS, NOON, POLICIES, SECOND, SMALL, generated

np = pytest.importorskip("numpy", reason="needs the extra 'columnar'")

import metering_core as mc  # noqa: E402 - after it is known that columns can be
from metering_core.columnar import summaries  # noqa: E402
from metering_core.columnar.batches import EventBatch  # noqa: E402
from metering_core.columnar.events import ColumnarEvents  # noqa: E402
from metering_core.meter_acceptance import MeterPolicy  # noqa: E402
from metering_core.meter_events import MeterEvent  # noqa: E402
from metering_core.meter_log import MeterLog  # noqa: E402
from metering_core.meter_summaries import event_summaries, list_event_summaries  # noqa: E402
from metering_core.meters import Meter  # noqa: E402
from metering_core.periods import from_unix_seconds  # noqa: E402


def columns_of(history):
    return ColumnarEvents(
        METERS, history.subscriptions, customers=history.customers, policy=history.policy
    )


def appended(history, sizes=(10**9,)):
    """Return columns after all events in batches of some sizes, and the receipts."""
    events, receipts, at, turn = columns_of(history), [], 0, 0
    while at < len(history.rows):
        rows = history.rows[at : at + sizes[turn % len(sizes)]]
        given = [row.event() for row in rows]
        receipts += events.append(given, received_at=[row.received for row in rows])
        at, turn = at + len(rows), turn + 1
    return events, receipts


def said(receipt):
    """Return a receipt as data; a message lists the keys of a payload, which have no order in
    columns.
    """
    letters = "".join(sorted(receipt.message or ""))
    return receipt.outcome, receipt.sequence, receipt.code, receipt.param, receipt.details, letters


def compare(history, events, receipts):
    """Compare every answer with the log's."""
    expected = history.expected
    for row, (receipt, right) in enumerate(zip(receipts, expected["receipts"], strict=True)):
        assert said(receipt) == said(right), f"row {row}, {history.rows[row]}"
    answers = history.answers(events)
    for (item, period), partial, right in zip(
        history.requests(), answers["partials"], expected["partials"], strict=True
    ):
        assert partial == right, f"{item.id} in {period}"
        assert repr(partial) == repr(right) or "frozenset" in repr(right), f"{item.id} in {period}"
    assert answers["totals"] == expected["totals"]
    assert answers["invoices"] == expected["invoices"]
    for (meter, question), right in zip(history.asked(), expected["summaries"], strict=True):
        assert list(events.summaries(meter.id, **question)) == right, f"{meter.id} {question}"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_columns_say_what_a_log_says(policy, seed):
    """Receipts, partials, summaries and invoices are the log's, however the events are cut into
    batches.
    """
    history = generated(seed, 250, policy)
    sizes = ((10**9,), (1, 7, 40), (3,))[seed % 3]
    compare(history, *appended(history, sizes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [5, 50_000])
def test_compiled_loops_say_what_a_log_says(seed, rows, monkeypatch):
    """The loops that large questions run through give the same summaries, in small units and in
    one.
    """
    compiled = pytest.importorskip(
        "metering_core.columnar.compiled.summing", reason="needs the extra 'compiled'"
    )
    monkeypatch.setattr(summaries, "compiled_for", lambda events: compiled if events else None)
    monkeypatch.setattr(compiled, "UNIT_ROWS", rows)
    monkeypatch.setattr(compiled, "workers_for", lambda events: seed + 1)
    history = generated(seed, 250, "history", values=(*SMALL, "-4000", "0.5"))
    events, _ = appended(history)
    for (meter, question), right in zip(
        history.asked(), history.expected["summaries"], strict=True
    ):
        assert list(events.summaries(meter.id, **question)) == right, f"{meter.id} {question}"


@pytest.mark.parametrize("buckets", [2, 300])
@pytest.mark.parametrize("width", [0, 12, 40])
@pytest.mark.parametrize("least", [-5, 0, 10**6])
def test_compiled_sums_are_those_of_a_loop(buckets, width, least, monkeypatch):
    """Few sums and many, in keys of 32 bits and of 64, are those that a loop over a dictionary adds
    up, in the same order.
    """
    compiled = pytest.importorskip(
        "metering_core.columnar.compiled.summing", reason="needs the extra 'compiled'"
    )
    monkeypatch.setattr(compiled, "UNIT_ROWS", 100)
    chosen = np.random.default_rng(buckets * 64 + width)
    codes = chosen.integers(0, 40, 4_000, np.int32) * 25
    places = chosen.integers(0, buckets, 4_000)
    values = chosen.integers(0, 2**width, 4_000) + least
    expected = {}
    for code, place, value in zip(codes.tolist(), places.tolist(), values.tolist(), strict=True):
        total, events = expected.get((code, place), (0, 0))
        expected[code, place] = (total + value, events + 1)
    rows = compiled.SeriesRows(codes, places * 60 + 7 + chosen.integers(0, 60, 4_000), values)
    found = compiled.bucket_sums(rows, 976, (7, 60, buckets), width, least)
    right = [(*key, *expected[key]) for key in sorted(expected)]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == right


@pytest.mark.parametrize("policy", ["default", "history"])
def test_numbers_beyond_64_bits_stay_exact(policy):
    """Values of up to 100 digits on each side of the point are added, compared and weighted to the
    last digit.
    """
    history = generated(99, 300, policy, values=(*HUGE, *SMALL, str(2**63 - 1), str(-(2**63))))
    compare(history, *appended(history, (60,)))


@pytest.mark.parametrize("seed", range(2))
def test_sums_at_the_edge_of_64_bits_do_not_wrap(seed):
    """Values that fit 64 bits, and whose sums and products with time do not, are still added
    exactly.
    """
    history = generated(
        seed,
        300,
        "history",
        values=(str(2**63 - 1), str(-(2**63) + 1), str(2**62), str(2**40), "1"),
    )
    compare(history, *appended(history))


def test_of_one_moment_the_event_received_last_is_the_last():
    """Of two events at one moment in two regions, the one received later is the customer's last."""
    history = event_cases.tied()
    events, receipts = appended(history)
    compare(history, events, receipts)
    assert [one.aggregated_value for one in events.summaries("m_last", START, START + DAY)] == [4]


def test_no_events():
    """Nothing that was appended comes to nothing, as in an empty log."""
    history = event_cases.History(POLICIES["default"])
    compare(history, *appended(history))
    events = columns_of(history)
    batch = EventBatch.from_columns("sum", [], [], [])
    assert (len(batch), len(events.append(batch, now=NOON)), len(events)) == (0, 0, 0)
    compare(history, events, [])


@pytest.mark.parametrize("seed", range(3))
def test_the_summaries_of_one_customer(seed):
    """The functions that summarize a log summarize columns, too: dense, and page by page."""
    history = generated(seed, 200)
    (log, _), (events, _) = history.log, appended(history)
    for meter, question in history.asked():
        assert events.customers(meter.id) == log.customers(meter.id)
        for customer in CUSTOMERS:
            for function in (event_summaries, list_event_summaries):
                assert function(events, meter.id, customer, **question) == function(
                    log, meter.id, customer, **question
                )


def test_accepted_events_can_be_read_again():
    """Columns give back the events that they took, as the log does, of a meter and of a customer,
    too.
    """
    history = generated(5, 200, "history")
    (log, _), (events, _) = history.log, appended(history, (9,))
    for meter_id in (None, "m_regions", "m_unique"):
        for customer in (None, "cus_2"):
            assert events.events(meter_id, customer) == log.events(meter_id, customer)


@pytest.mark.parametrize("policy", ["history", "retained"])
@pytest.mark.parametrize("seed", range(2))
def test_the_events_that_count_for_an_item(policy, seed):
    """Columns list the events behind a quantity as the log does: of one moment, overwritten, and
    from before the period.
    """
    history = generated(seed, 250, policy)
    (log, _), (events, _) = history.log, appended(history, (1, 7, 40))
    for item, period in history.requests():
        assert events.counted(item, period) == log.counted(item, period), f"{item.id} in {period}"


def test_counted_events_worked_by_hand():
    """Of the customer's three events in the period, the two of June count; columns without events
    count none.
    """
    price = mc.Price.per_unit("p", currency="usd", unit_amount=3, recurring=mc.Recurring(meter="m"))
    subscription = mc.Subscription("s", [mc.SubscriptionItem("i", price)], START, customer="a")
    events, period = (
        ColumnarEvents([Meter("m", "m")], [subscription]),
        mc.BillingPeriod(START, START + DAY),
    )
    item = subscription.items[0]
    assert events.counted(item, period) == []
    batch = EventBatch.from_columns(
        "m", ["a", "b", "a", "a"], [1, 2, 3, 4], [START + 9, START, START, START + DAY]
    )
    events.append(batch, now=NOON)
    assert [(one.sequence, one.event.payload["value"]) for one in events.counted(item, period)] == [
        (3, "3"),
        (1, "1"),
    ]
    text = str(mc.explain(mc.preview_invoice(subscription, events, now=NOON).lines[0]))
    assert "Events: 3 count for item i." in text


def shown_by(history, usage):
    """Return what a log, columns or a view of either say of events and bills."""
    return {
        **history.answers(usage),
        "summaries": [
            (usage.customers(meter.id), event_summaries(usage, meter.id, customer, **question))
            for meter, question in history.asked()
            for customer in CUSTOMERS
        ],
        "events": usage.events(),
        "counted": [usage.counted(*request) for request in history.requests()],
        "corrections": [usage.corrections(*request) for request in history.requests()],
        "unbilled": [usage.unbilled(one.id) for one in history.subscriptions],
    }


@pytest.mark.parametrize("late_usage", ["ignore", "carry_forward"])
@pytest.mark.parametrize("seed", range(2))
def test_closed_periods_and_views_are_the_logs(seed, late_usage):
    """A finalized period stays as it was billed, what comes late is unbilled or carried forward,
    and columns are shown as they were: all as in the log.
    """
    closed_and_viewed(seed, late_usage)


def closed_and_viewed(seed, late_usage):
    """Compare columns with the log while periods are closed, and views of both."""
    policy = attrs.evolve(POLICIES[("history", "retained")[seed]], late_usage=late_usage)
    history = generated(seed, 60, "history")
    history.policy = policy
    log = MeterLog(METERS, history.subscriptions, customers=history.customers, policy=policy)
    columns, rows = columns_of(history), history.rows
    for part, day in ((rows[:30], 1), (rows[30:50], 2), (rows[50:], 3)):
        for usage in (log, columns):
            for row in part:
                usage.append([row.event()], now=row.received)
            for one in history.subscriptions:
                period = one.period_at(START + (day - 1) * DAY)
                mc.finalize_invoice(one, usage, period, now=NOON + 60 * DAY)
                assert usage.stored_invoice(one.id, period) is not None
        assert shown_by(history, columns) == shown_by(history, log)
    for limit in (0, 1, log.sequence // 2, log.sequence, from_unix_seconds(rows[20].received)):
        views = log.as_of(limit), columns.as_of(limit)
        assert shown_by(history, views[1]) == shown_by(history, views[0])
    last = history.subscriptions[0]
    changes = [
        usage.invoice_changes(usage.stored_invoice(last.id, last.period_at(START)))
        for usage in (log, columns)
    ]
    assert changes[0] == changes[1]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"customers": "cus_1"}, "customers"),
        ({"customers": 5}, "customers"),
        ({"customers": ["cus_1", ["cus_2"]]}, "customer"),
        ({"policy": mc.AcceptancePolicy()}, "policy"),
    ],
)
def test_what_columns_cannot_be_made_of(options, param):
    """A bare string is no list of customers, as for the log, and records' policy none of events."""
    with pytest.raises(mc.InvalidValueError) as refused:
        ColumnarEvents(METERS, **options)
    assert refused.value.param == param


def test_customers_may_be_an_iterator():
    """Customers are read once, and only their events are accepted."""
    events = ColumnarEvents([Meter("m", "m")], customers=iter(["a", "b"]))
    batch = EventBatch.from_columns("m", ["a", "c", "b"], [1, 2, 3], [START] * 3)
    assert [receipt.code for receipt in events.append(batch, now=NOON)] == [
        None,
        "customer_unknown",
        None,
    ]


def twins(batch, now=NOON, policy=None, meters=METERS):
    """Append a batch to columns, and the events that its rows stand for to a log; return both."""
    log, events = MeterLog(meters, policy=policy), ColumnarEvents(meters, policy=policy)
    meter = next((one for one in meters if one.event_name == batch.event_name), None)
    expected = log.append([batch.event_at(row, meter) for row in range(len(batch))], now=now)
    received = events.append(batch, now=now)
    assert list(map(said, received)) == list(map(said, expected))
    return log, events


def same_summaries(log, events, meter_id, **question):
    expected = [
        one
        for customer in log.customers(meter_id)
        for one in event_summaries(log, meter_id, customer, **question)
    ]
    assert list(events.summaries(meter_id, **question)) == [
        one for one in expected if not one.is_empty
    ]


@pytest.mark.parametrize(
    ("values", "places"),
    [
        (np.array([250, -100, 0, 5]), 2),
        (np.array([250, 1, 2, 3], np.uint8), 0),
        (np.array([2**63 + 5, 1, 2, 3], np.uint64), 0),
        ([1, 2, 2**70, -(2**64)], 0),
        ([1, 2, 2**70, 3], 4),
        ([Decimal("1.5"), Decimal("1E+3"), 2, "0.25"], 0),
        (["1", None, "x", "2.50"], 0),
        (np.array(["1", "2", "2", "3"]), 0),
    ],
)
def test_values_may_be_integers_decimals_and_texts(values, places):
    """A row is the event whose payload has the value in digits, whatever the column holds it in."""
    batch = EventBatch.from_columns(
        "sum", ["a", "b", "a", "b"], values, [START] * 4, decimal_places=places
    )
    log, events = twins(batch)
    same_summaries(log, events, "m_sum", start_time=START, end_time=START + 1)


def test_values_worked_by_hand():
    """2.50 and -1 of one customer come to 1.5; 250 and 7 hundredths of another to 2.57."""
    events = ColumnarEvents([Meter("m", "m")])
    events.append(
        EventBatch.from_columns("m", ["a", "a"], ["2.50", "-1"], [START, START + 5]), now=NOON
    )
    batch = EventBatch.from_columns(
        "m",
        np.array([0, 0]),
        np.array([250, 7]),
        [START, START],
        customer_ids=["b"],
        decimal_places=2,
    )
    events.append(batch, now=NOON)
    found = events.summaries("m", START, START + DAY, value_grouping_window="day")
    assert [(one.customer, one.aggregated_value, one.events) for one in found] == [
        ("a", Decimal("1.5"), 2),
        ("b", Decimal("2.57"), 2),
    ]
    assert found.numerators.tolist() == [150, 257]
    assert found.decimal_places == 2
    assert found.start_times.tolist() == [START, START]
    assert found[-1:] == [found[1]]


@pytest.mark.parametrize(
    "stamps", [np.array([START, START + 1]), np.array([START, START + 1]) * SECOND]
)
def test_timestamps_in_seconds_and_microseconds(stamps):
    """Integers are Unix seconds, or microseconds where it is said so."""
    are_microseconds = int(stamps[0]) > START
    batch = EventBatch.from_columns(
        "sum", ["a", "a"], [1, 2], stamps, are_microseconds=are_microseconds
    )
    assert batch.moments.tolist() == [START * SECOND, (START + 1) * SECOND]
    listed = EventBatch.from_columns(
        "sum", ["a", "a"], [1, 2], stamps.tolist(), are_microseconds=are_microseconds
    )
    assert listed.moments.tolist() == batch.moments.tolist()


def test_batches_do_not_change_with_their_source():
    """A batch copies its arrays, so that what is done to them afterwards changes no answer."""
    values, stamps = np.array([1, 2]), np.array([START, START]) * SECOND
    batch = EventBatch.from_columns("sum", ["a", "b"], values, stamps, are_microseconds=True)
    values[:], stamps[:] = 9, 0
    assert (batch.values.tolist(), batch.moments.tolist()) == ([1, 2], [START * SECOND] * 2)


NAMES = ("\u00e9", "z", "", "eu", "EU", "a", "10", "9", "a\x00", " a")
"""Values of dimensions whose order is not that of their arrival, nor that of an array of texts,
which drops the last NUL.
"""

QUESTIONS = [
    {"dimension_group_by_keys": ["region", "model"]},
    {"dimension_group_by_keys": ["model", "region"], "value_grouping_window": "hour"},
    {"dimension_group_by_keys": ["model"], "value_grouping_window": "hour"},
    {"dimension_filters": {"region": ["z", "none"]}, "dimension_group_by_keys": ["model"]},
    {
        "dimension_filters": {"region": "a", "model": [str(at) for at in range(20)]},
        "value_grouping_window": "hour",
    },
    {"dimension_filters": {"region": "none"}, "dimension_group_by_keys": ["region"]},
]


@pytest.mark.parametrize("formula", ["sum", "last", "average", "unique_count"])
@pytest.mark.parametrize("loops", ["plain", "compiled"])
def test_many_dimension_values(formula, loops, monkeypatch):
    """Combinations that are nearly all new, in every batch, are grouped and filtered as the log
    does.
    """
    if loops == "compiled":
        compiled = pytest.importorskip(
            "metering_core.columnar.compiled.summing", reason="needs the extra 'compiled'"
        )
        monkeypatch.setattr(summaries, "compiled_for", lambda events: compiled if events else None)
    meter = Meter("m", "m", formula, dimension_payload_keys=["region", "model"])
    log, events = MeterLog([meter]), ColumnarEvents([meter])
    chosen = np.random.default_rng(17)
    ids = [f"cus_{at}" for at in range(3_000)]
    for size in (1, 100, 150):
        batch = EventBatch.from_columns(
            "m",
            chosen.choice([2_999, 7, 41, 0], size),
            chosen.integers(0, 9, size),
            START + chosen.integers(0, DAY // 2, size),
            customer_ids=ids,
            dimensions={
                "region": [NAMES[at] for at in chosen.integers(0, len(NAMES), size)],
                "model": [str(at) for at in chosen.integers(0, 30, size)],
            },
        )
        log.append([batch.event_at(row, meter) for row in range(size)], now=NOON)
        assert events.append(batch, now=NOON).accepted == size
    assert events.customers("m") == log.customers("m")
    assert set(events.timelines("m", "cus_7")[0][0]) <= {*NAMES, *map(str, range(30))}
    for question in QUESTIONS:
        span = {"start_time": START, "end_time": START + DAY // 2, **question}
        found = [
            one
            for customer in log.customers("m")
            for one in event_summaries(log, "m", customer, **span)
        ]
        order = {customer: at for at, customer in enumerate(log.customers("m"))}
        found.sort(
            key=lambda one: (order[one.customer], list(one.dimensions.values()), one.start_time)
        )
        assert list(events.summaries("m", **span)) == [one for one in found if not one.is_empty], (
            question
        )


def test_labels_are_a_sequence():
    """The labels of groups are pairs of a customer and values, one by one or some at once."""
    events = ColumnarEvents([Meter("m", "m", dimension_payload_keys=["region"])])
    regions = {"region": ["us", "eu", "us"]}
    events.append(
        EventBatch.from_columns("m", ["b", "b", "a"], [1, 2, 3], [START] * 3, dimensions=regions),
        now=NOON,
    )
    labels = events.summaries("m", START, START + 1, dimension_group_by_keys=["region"]).labels
    assert list(labels) == labels[:] == [("b", ("eu",)), ("b", ("us",)), ("a", ("us",))]
    assert labels[-1] == ("a", ("us",))
    assert labels[1:2] == [("b", ("us",))]


def test_customers_and_meters_may_come_later():
    """A customer or a meter that is added, and a meter that is deactivated, count from then on."""
    events = ColumnarEvents(customers=["a"])
    batch = EventBatch.from_columns("m", ["a", "b"], [1, 2], [START, START])
    codes = lambda: [receipt.code for receipt in events.append(batch, now=NOON)]  # noqa: E731 - said three times
    assert codes() == ["meter_unknown"] * 2
    events.create_meter(Meter("m", "m"))
    assert codes() == [None, "customer_unknown"]
    events.add_customer("b")
    assert codes() == [None, None]
    events.update_meter(events.meter("m").deactivate(START))
    assert codes() == ["meter_inactive"] * 2
    assert [one.aggregated_value for one in events.summaries("m", START, START + 1)] == [2, 2]
    assert (events.sequence, len(events.meters), events.subscriptions) == (3, 1, ())
    assert repr(events) == "<ColumnarEvents: 1 meters, 3 events>"
    assert repr(batch) == "<EventBatch: 2 events named 'm' of 2 customers>"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"values": [1, 2.5]}, "values[1]"),
        ({"values": np.array([1.0, 2.0])}, "values[0]"),
        ({"values": [1, True]}, "values[1]"),
        ({"values": [1, Decimal("NaN")]}, "values[1]"),
        ({"values": [1]}, "values"),
        ({"customers": ["a", 5]}, "customers[1]"),
        ({"customers": ["a", ["b"]]}, "customers[1]"),
        ({"customers": [0, 2], "customer_ids": ["a", "b"]}, "customers[1]"),
        ({"customers": [0.5, 1.5], "customer_ids": ["a", "b"]}, "customers[0]"),
        ({"timestamps": [START, "soon"]}, "timestamps[1]"),
        ({"timestamps": np.array([START, 10**15])}, "timestamps[1]"),
        ({"timestamps": np.array(["2024-01-01", "2024-01-02"], "M8[s]")}, "timestamps[0]"),
        ({"timestamps": np.ma.array([START, START], mask=[0, 1])}, "timestamps[1]"),
        (
            {"customers": np.ma.array([0, 1], mask=[0, 1]), "customer_ids": ["a", "b"]},
            "customers[1]",
        ),
        ({"identifiers": ["a", ""]}, "identifiers[1]"),
        ({"identifiers": ["a", "b" * 101]}, "identifiers[1]"),
        ({"identifiers": ["a", 5]}, "identifiers[1]"),
        ({"dimensions": {"region": ["eu", 5]}}, "dimensions[region][1]"),
        ({"dimensions": {"region": ["eu"]}}, "dimensions[region]"),
        ({"decimal_places": -1}, "decimal_places"),
        ({"event_name": ""}, "event_name"),
    ],
)
def test_malformed_columns_are_refused_by_name(changes, param):
    """What is no column of events is refused with the column and the row; floats have already lost
    what they meant.
    """
    given = {
        "event_name": "sum",
        "customers": ["a", "b"],
        "values": [1, 2],
        "timestamps": [START, START],
    }
    with pytest.raises(mc.InvalidValueError) as refused:
        EventBatch.from_columns(**{**given, **changes})
    assert refused.value.param == param


def test_what_a_mask_hides_is_absent():
    """A value or a text that a mask hides is not in the payload, and one that it shows is."""
    customers, values = np.ma.array(["a", "b"], mask=[1, 0]), np.ma.array([5, 1_000], mask=[0, 1])
    batch = EventBatch.from_columns("sum", customers, values, [START, START])
    assert [batch.payload_at(row, None) for row in (0, 1)] == [
        {"value": "5"},
        {"stripe_customer_id": "b"},
    ]


def test_malformed_appends_change_nothing():
    """What is no event, no moment of receipt or two, and a dimension under the customer's key are
    refused before anything.
    """
    events = ColumnarEvents(METERS)
    event = MeterEvent("sum", {"stripe_customer_id": "a", "value": "1"}, timestamp=START)
    batch = EventBatch.from_columns("sum", ["a"], [1], [START])
    shared = EventBatch.from_columns("sum", ["a"], [1], [START], dimensions={"value": ["1"]})
    bad = [
        (([event, 5],), {"now": NOON}, "events[1]"),
        ((5,), {"now": NOON}, "events"),
        ((batch,), {}, "now"),
        ((batch,), {"now": NOON, "received_at": [NOON]}, "now"),
        ((batch,), {"received_at": [NOON, NOON]}, "received_at"),
        ((shared,), {"now": NOON}, "dimensions"),
    ]
    for given, options, param in bad:
        with pytest.raises(mc.InvalidValueError) as refused:
            events.append(*given, **options)
        assert refused.value.param == param
    assert len(events) == 0
    with pytest.raises(mc.InvalidValueError, match="all with one name"):
        EventBatch.from_events([event, MeterEvent("max", {}, timestamp=START)])


# Arrow --------------------------------------------------------------------------------------------


def arrow_table(**changed):
    """Return a table of three events."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    columns = {
        "customer": ["b", None, "b"],
        "value": [250, 7, -1],
        "timestamp": [START, START + 1, START],
    }
    return pyarrow.table(
        columns | {"model": ["x", None, ""], "identifier": ["one", None, "two"]} | changed
    )


def events_of(batch):
    """Return the events that the rows of a batch stand for."""
    return [batch.event_at(row, None) for row in range(len(batch))]


def sent(customer, value, at, identifier=None, **dimensions):
    """Return an event as its sender would have made it, ``at`` in seconds after the start."""
    own = {"stripe_customer_id": customer, "value": value, **dimensions}
    payload = {key: text for key, text in own.items() if text is not None}
    return MeterEvent(
        "sum",
        payload,
        identifier=identifier,
        timestamp=from_unix_seconds(START) + timedelta(seconds=at),
    )


THREE = [
    sent("b", "2.5", 0, "one", model="x"),
    sent(None, "0.07", 1),
    sent("b", "-0.01", 0, "two", model=""),
]


@pytest.mark.parametrize(
    "way",
    [
        "plain",
        "s",
        "ms",
        "us",
        "ns",
        "dictionary",
        "views",
        "chunks",
        "nothing",
        "decimals",
        "copies",
    ],
)
def test_arrow_streams_are_columns(way):
    """A table is the events that its rows say, whatever the encoding of its columns and the unit of
    its timestamps.
    """
    table, pyarrow = arrow_table(), pytest.importorskip("pyarrow")
    replaced = lambda column, values: table.set_column(  # noqa: E731
        table.column_names.index(column), column, values
    )
    match way:
        case "s" | "ms" | "us" | "ns":
            unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[way]
            stamps = [START * unit, START * unit + unit, START * unit]
            table = replaced(
                "timestamp", pyarrow.array(stamps, pyarrow.timestamp(way, "Asia/Kolkata"))
            )
        case "dictionary":
            table = replaced("customer", table["customer"].dictionary_encode())
        case "views":
            table = replaced("model", table["model"].cast(pyarrow.string_view()))
        case "chunks":
            table = pyarrow.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1, 2)])
        case "decimals":
            table = replaced(
                "value", pyarrow.array([Decimal("2.5"), Decimal("0.07"), Decimal("-0.01")])
            )
        case "nothing":
            assert len(EventBatch.from_arrow("sum", table.slice(0, 0), dimensions="model")) == 0
    batch = EventBatch.from_arrow(
        "sum", table, dimensions=["model"], decimal_places=2, copy=way != "copies"
    )
    assert events_of(batch) == THREE


def test_optional_columns_of_an_arrow_stream():
    """Events need no value and no identifier; a name and numbers of arrival may be there, and other
    columns are not read.
    """
    table = arrow_table(event_name=["sum"] * 3, seq=[1, 5, 6]).drop_columns(
        ["value", "identifier", "model"]
    )
    assert events_of(EventBatch.from_arrow("sum", table)) == [
        sent("b", None, 0),
        sent(None, None, 1),
        sent("b", None, 0),
    ]
    texts = arrow_table(value=["1", None, "much"], customer=["b", "c", "b"], spare=[1.5, 2.5, 3.5])
    expected = [sent("b", "1", 0, "one"), sent("c", None, 1), sent("b", "much", 0, "two")]
    assert events_of(EventBatch.from_arrow("sum", texts)) == expected


def test_fractions_of_a_second_survive_an_arrow_stream():
    """Events keep their microseconds; nanoseconds are floored to them, before 1970, too."""
    pyarrow = pytest.importorskip("pyarrow")
    stamps = pyarrow.array([1_500_000_999, -1, 0], pyarrow.timestamp("ns", "UTC"))
    assert EventBatch.from_arrow("sum", arrow_table(timestamp=stamps)).moments.tolist() == [
        1_500_000,
        -1,
        0,
    ]
    now = EventBatch.from_arrow("sum", arrow_table(timestamp=["now"] * 3))
    assert [now.is_as_now(row) for row in range(3)] == [True] * 3


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"customer": [1, 2, 3]}, "customers[0]"),
        ({"value": [1.5, 2.5, 3.5]}, "values[0]"),
        ({"value": [True, None, False]}, "values[0]"),
        ({"timestamp": [START, None, START]}, "timestamps[1]"),
        ({"timestamp": [datetime(2024, 1, 1)] * 3}, "timestamps"),  # noqa: DTZ001 - naive
        ({"timestamp": [START, 10**15, START]}, "timestamps[1]"),
        ({"timestamp": [START + 0.5] * 3}, "timestamps[0]"),
        ({"identifier": ["one", "", "two"]}, "identifiers[1]"),
        ({"model": [1, 2, 3]}, "dimensions[model][0]"),
        ({"event_name": ["sum", None, "sum"]}, "event_name[1]"),
        ({"event_name": ["sum", "sum", "max"]}, "event_name[2]"),
        ({"seq": [1, 3, 2]}, "seq[2]"),
        ({"received_at": [START] * 3}, "received_at"),
        ({"recieved_at": [START] * 3}, "recieved_at"),
        ({"Event_Name": ["sum"] * 3}, "Event_Name"),
    ],
)
def test_malformed_arrow_columns(changed, param):
    """What is no column of events is refused by its column and row; of timestamps also those
    without a zone.
    """
    with pytest.raises(mc.InvalidValueError) as refused:
        EventBatch.from_arrow("sum", arrow_table(**changed), dimensions=["model"])
    assert refused.value.param == param


def test_timestamps_outside_the_calendar_are_refused_by_their_row():
    """A timestamp in milliseconds that no year up to 9999 has is refused, and does not wrap."""
    pyarrow = pytest.importorskip("pyarrow")
    stamps = pyarrow.array([START, 2**63 - 1, START], pyarrow.timestamp("ms", "UTC"))
    with pytest.raises(mc.InvalidValueError) as refused:
        EventBatch.from_arrow("sum", arrow_table(timestamp=stamps))
    assert refused.value.param == "timestamps[1]"


@pytest.mark.parametrize("column", ["customer", "timestamp", "value", "identifier", "model"])
@pytest.mark.parametrize("slip", ["{}s", " {}", "title"])
def test_misspelt_arrow_columns_are_refused(column, slip):
    """A column that is nearly one that is read would change the bill by not being read."""
    spelt = column.title() if slip == "title" else slip.format(column)
    with pytest.raises(mc.InvalidValueError, match=f"did you mean '{column}'") as refused:
        EventBatch.from_arrow(
            "sum", arrow_table().rename_columns({column: spelt}), dimensions=["model"]
        )
    assert (refused.value.code, refused.value.param) == ("parameter_unknown", spelt)


def test_arrow_needs_its_columns_and_its_interface(monkeypatch):
    """An absent column, one that is there twice, a key that is none, no stream and no pyarrow are
    refused by name.
    """
    table = arrow_table()
    for drop, keys, param in [
        ("customer", [], "customer"),
        ("model", ["model"], "model"),
        ("model", ["value"], "dimensions[0]"),
        ("model", [""], "dimensions[0]"),
        ("value", ["model", "model"], "dimensions[1]"),
    ]:
        with pytest.raises(mc.InvalidValueError) as refused:
            EventBatch.from_arrow("sum", table.drop_columns(drop), dimensions=keys)
        assert refused.value.param == param
    with pytest.raises(mc.InvalidValueError, match="model: expected one column of that name"):
        EventBatch.from_arrow(
            "sum", table.append_column("model", table["model"]), dimensions="model"
        )
    with pytest.raises(mc.InvalidValueError, match="__arrow_c_stream__"):
        EventBatch.from_arrow("sum", [1, 2])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(mc.errors.MissingExtraError, match=r"EventBatch\.from_arrow"):
        EventBatch.from_arrow("sum", table)


def test_columns_of_arrow_keep_their_zones_and_nulls():
    """Timestamps with a zone and integers with nulls are what they are, as single columns, too; so
    are integers of NumPy.
    """
    pyarrow = pytest.importorskip("pyarrow")
    stamps = pyarrow.array(
        [START * SECOND, START * SECOND + SECOND], pyarrow.timestamp("us", "Asia/Kolkata")
    )
    batch = EventBatch.from_columns(
        "sum", pyarrow.array(["b", "c"]), pyarrow.array([1, None]), stamps
    )
    assert events_of(batch) == [sent("b", "1", 0), sent("c", None, 1)]
    mixed = [np.int64(250), "2.5"]
    assert (
        EventBatch.from_columns("sum", ["b", "b"], mixed, [START] * 2, decimal_places=2).value_at(0)
        == "2.5"
    )


def test_columns_of_polars_keep_their_zones_and_nulls():
    """The same of Polars: its columns as they are, and its data frames as Arrow streams."""
    polars = pytest.importorskip("polars", reason="needs Polars")
    pytest.importorskip("pyarrow")
    aware = from_unix_seconds(START)
    frame = polars.DataFrame(
        {
            "customer": ["b", "c"],
            "value": [1, None],
            "timestamp": [aware, aware + timedelta(seconds=1)],
        }
    )
    columns = EventBatch.from_columns("sum", frame["customer"], frame["value"], frame["timestamp"])
    expected = [sent("b", "1", 0), sent("c", None, 1)]
    assert events_of(columns) == events_of(EventBatch.from_arrow("sum", frame)) == expected


@pytest.mark.parametrize("sizes", [(10**9,), (1, 7, 40), (3,)])
def test_retries_of_later_days_are_what_a_log_says(sizes):
    """An hour and exactly a day after an identifier was taken it is a duplicate, a second later it
    is not, as in the log.
    """
    history = event_cases.retried()
    assert [receipt.outcome for receipt in history.log[1]] == [
        *["accepted"] * 3,
        *["duplicate"] * 2,
        "accepted",
    ]
    compare(history, *appended(history, sizes))


def test_an_identifier_is_remembered_from_when_it_was_taken():
    """Within a batch that was received over days, an identifier is remembered from the row that
    took it, not from the first.
    """
    policy = MeterPolicy(identifier_retention=timedelta(days=1))
    moments = [NOON, NOON + 2 * DAY, NOON + 2 * DAY + 3600, NOON + 4 * DAY]
    batch = EventBatch.from_columns(
        "sum", ["cus_1"] * 4, [1, 2, 2, 2], [NOON] * 4, identifiers=["a", "b", "b", "b"]
    )
    columns, log = (kind(METERS, policy=policy) for kind in (ColumnarEvents, MeterLog))
    receipts = list(columns.append(batch, received_at=moments))
    assert receipts == [
        log.append([event], now=at)[0] for event, at in zip(events_of(batch), moments, strict=True)
    ]
    assert [receipt.outcome for receipt in receipts] == [
        "accepted",
        "accepted",
        "duplicate",
        "accepted",
    ]


def test_the_columns_of_a_batch_are_read_only():
    """What was appended is the store itself: nothing that a batch holds can be written to."""
    batch = EventBatch.from_columns(
        "sum",
        ["a", "b"],
        np.array([1, 2]),
        np.array([NOON] * 2),
        identifiers=["x", None],
        copy=False,
    )
    now = EventBatch.from_columns("sum", ["a"], [1], ["now"], dimensions={"region": ["eu"]})
    for array in (
        batch.customers.codes,
        batch.values,
        batch.moments,
        now.as_now,
        now.dimensions["region"].codes,
    ):
        assert not array.flags.writeable
    assert batch.identifiers == ("x", None)
    with pytest.raises(TypeError):
        now.dimensions["region"] = now.customers
