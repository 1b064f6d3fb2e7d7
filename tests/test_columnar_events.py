"""Meter events in columns: everything as a meter log has it (law 4), exactly, and said plainly where columns cannot."""

from __future__ import annotations

import sys
from decimal import Decimal
from importlib import import_module
from pathlib import Path

import event_cases
import pytest
from builders import DAY, START
from event_cases import CUSTOMERS, HUGE, METERS, NOON, POLICIES, SECOND, SMALL, generated

np = pytest.importorskip("numpy", reason="needs the extra 'columnar'")

import metering_core as mc  # noqa: E402 - after it is known that columns can be
from metering_core.columnar import event_answers  # noqa: E402
from metering_core.columnar import events as events_module  # noqa: E402
from metering_core.columnar.event_batches import EventBatch  # noqa: E402
from metering_core.columnar.events import ColumnarEvents  # noqa: E402
from metering_core.meter_events import MeterEvent  # noqa: E402
from metering_core.meter_log import MeterLog  # noqa: E402
from metering_core.meter_summaries import event_summaries, list_event_summaries  # noqa: E402
from metering_core.meters import Meter  # noqa: E402


def columns_of(history):
    return ColumnarEvents(METERS, history.subscriptions, customers=history.customers, policy=history.policy)


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
    """Return a receipt as data; a message lists the keys of a payload, which have no order in columns."""
    letters = "".join(sorted(receipt.message or ""))
    return receipt.outcome, receipt.sequence, receipt.code, receipt.param, receipt.details, letters


def compare(history, events, receipts):
    """Compare every answer with the log's."""
    expected = history.expected
    for row, (receipt, right) in enumerate(zip(receipts, expected["receipts"], strict=True)):
        assert said(receipt) == said(right), f"row {row}, {history.rows[row]}"
    answers = history.answers(events)
    for (item, period), partial, right in zip(history.requests(), answers["partials"], expected["partials"], strict=True):
        assert partial == right, f"{item.id} in {period}"
        assert repr(partial) == repr(right) or "frozenset" in repr(right), f"{item.id} in {period}"
    assert answers["totals"] == expected["totals"]
    assert answers["invoices"] == expected["invoices"]
    for (meter, question), right in zip(history.asked(), expected["summaries"], strict=True):
        assert list(events.summaries(meter.id, **question)) == right, f"{meter.id} {question}"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_columns_say_what_a_log_says(policy, seed):
    """Receipts, partials, summaries and invoices are the log's, however the events are cut into batches."""
    history = generated(seed, 250, policy)
    sizes = ((10**9,), (1, 7, 40), (3,))[seed % 3]
    compare(history, *appended(history, sizes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [5, 50_000])
def test_compiled_loops_say_what_a_log_says(seed, rows, monkeypatch):
    """The loops that large questions run through give the same summaries, in small units and in one."""
    compiled = pytest.importorskip("metering_core.columnar.event_compiled", reason="needs the extra 'compiled'")
    monkeypatch.setattr(event_answers, "compiled_for", lambda events: compiled if events else None)
    monkeypatch.setattr(compiled, "UNIT_ROWS", rows)
    monkeypatch.setattr(compiled, "_workers", lambda events: seed + 1)
    history = generated(seed, 250, "history", values=(*SMALL, "-4000", "0.5"))
    events, _ = appended(history)
    for (meter, question), right in zip(history.asked(), history.expected["summaries"], strict=True):
        assert list(events.summaries(meter.id, **question)) == right, f"{meter.id} {question}"


@pytest.mark.parametrize("buckets", [2, 300])
@pytest.mark.parametrize("width", [0, 12, 40])
@pytest.mark.parametrize("least", [-5, 0, 10**6])
def test_compiled_sums_are_those_of_a_loop(buckets, width, least, monkeypatch):
    """Few sums and many, in keys of 32 bits and of 64, are those that a loop over a dictionary adds up, in the same order."""
    compiled = pytest.importorskip("metering_core.columnar.event_compiled", reason="needs the extra 'compiled'")
    monkeypatch.setattr(compiled, "UNIT_ROWS", 100)
    chosen = np.random.default_rng(buckets * 64 + width)
    codes = chosen.integers(0, 40, 2_000, np.int32) * 25
    places = chosen.integers(0, buckets, 2_000)
    values = chosen.integers(0, 2**width, 2_000) + least
    expected = {}
    for code, place, value in zip(codes.tolist(), places.tolist(), values.tolist(), strict=True):
        total, events = expected.get((code, place), (0, 0))
        expected[code, place] = (total + value, events + 1)
    rows = compiled.EventRows(codes, places * 60 + 7 + chosen.integers(0, 60, 2_000), values)
    found = compiled.bucket_sums(rows, 976, (7, 60, buckets), width, least)
    right = [(*key, *expected[key]) for key in sorted(expected)]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == right


@pytest.mark.parametrize("policy", ["default", "history"])
def test_numbers_beyond_64_bits_stay_exact(policy):
    """Values of up to 100 digits on each side of the point are added, compared and weighted to the last digit."""
    history = generated(99, 300, policy, values=(*HUGE, *SMALL, str(2**63 - 1), str(-(2**63))))
    compare(history, *appended(history, (60,)))


@pytest.mark.parametrize("seed", range(2))
def test_sums_at_the_edge_of_64_bits_do_not_wrap(seed):
    """Values that fit 64 bits, and whose sums and products with time do not, are still added exactly."""
    history = generated(seed, 300, "history", values=(str(2**63 - 1), str(-(2**63) + 1), str(2**62), str(2**40), "1"))
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
                assert function(events, meter.id, customer, **question) == function(log, meter.id, customer, **question)


def test_accepted_events_can_be_read_again():
    """Columns give back the events that they took, as the log does, of a meter and of a customer, too."""
    history = generated(5, 200, "history")
    (log, _), (events, _) = history.log, appended(history, (9,))
    for meter_id in (None, "m_regions", "m_unique"):
        for customer in (None, "cus_2"):
            assert events.events(meter_id, customer) == log.events(meter_id, customer)


def twins(batch, now=NOON, policy=None, meters=METERS):
    """Append a batch to columns, and the events that its rows stand for to a log; return both."""
    log, events = MeterLog(meters, policy=policy), ColumnarEvents(meters, policy=policy)
    meter = next((one for one in meters if one.event_name == batch.event_name), None)
    expected = log.append([batch.event_at(row, meter) for row in range(len(batch))], now=now)
    received = events.append(batch, now=now)
    assert list(map(said, received)) == list(map(said, expected))
    return log, events


def same_summaries(log, events, meter_id, **question):
    expected = [one for customer in log.customers(meter_id) for one in event_summaries(log, meter_id, customer, **question)]
    assert list(events.summaries(meter_id, **question)) == [one for one in expected if not one.is_empty]


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
    batch = EventBatch.from_columns("sum", ["a", "b", "a", "b"], values, [START] * 4, decimal_places=places)
    log, events = twins(batch)
    same_summaries(log, events, "m_sum", start_time=START, end_time=START + 1)


def test_values_worked_by_hand():
    """2.50 and -1 of one customer come to 1.5; 250 and 7 hundredths of another to 2.57."""
    events = ColumnarEvents([Meter("m", "m")])
    events.append(EventBatch.from_columns("m", ["a", "a"], ["2.50", "-1"], [START, START + 5]), now=NOON)
    batch = EventBatch.from_columns(
        "m", np.array([0, 0]), np.array([250, 7]), [START, START], customer_ids=["b"], decimal_places=2
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


@pytest.mark.parametrize("stamps", [np.array([START, START + 1]), np.array([START, START + 1]) * SECOND])
def test_timestamps_in_seconds_and_microseconds(stamps):
    """Integers are Unix seconds, or microseconds where it is said so."""
    are_microseconds = int(stamps[0]) > START
    batch = EventBatch.from_columns("sum", ["a", "a"], [1, 2], stamps, are_microseconds=are_microseconds)
    assert batch.moments.tolist() == [START * SECOND, (START + 1) * SECOND]
    listed = EventBatch.from_columns("sum", ["a", "a"], [1, 2], stamps.tolist(), are_microseconds=are_microseconds)
    assert listed.moments.tolist() == batch.moments.tolist()


def test_batches_do_not_change_with_their_source():
    """A batch copies its arrays, so that what is done to them afterwards changes no answer."""
    values, stamps = np.array([1, 2]), np.array([START, START]) * SECOND
    batch = EventBatch.from_columns("sum", ["a", "b"], values, stamps, are_microseconds=True)
    values[:], stamps[:] = 9, 0
    assert (batch.values.tolist(), batch.moments.tolist()) == ([1, 2], [START * SECOND] * 2)


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
        ({"customers": [0.5, 1.5], "customer_ids": ["a", "b"]}, "customers"),
        ({"timestamps": [START, "soon"]}, "timestamps[1]"),
        ({"timestamps": np.array([START, 10**15])}, "timestamps[1]"),
        ({"timestamps": np.array(["2024-01-01", "2024-01-02"], "M8[s]")}, "timestamps[0]"),
        ({"identifiers": ["a", ""]}, "identifiers[1]"),
        ({"identifiers": ["a", "b" * 101]}, "identifiers[1]"),
        ({"identifiers": ["a", 5]}, "identifiers[1]"),
        ({"dimensions": {"region": ["eu", 5]}}, "dimensions[region][1]"),
        ({"dimensions": {"region": ["eu"]}}, "region"),
        ({"decimal_places": -1}, "decimal_places"),
        ({"event_name": ""}, "event_name"),
    ],
)
def test_malformed_columns_are_refused_by_name(changes, param):
    """What is no column of events is refused with the column and the row; floats have already lost what they meant."""
    given = {"event_name": "sum", "customers": ["a", "b"], "values": [1, 2], "timestamps": [START, START]}
    with pytest.raises(mc.InvalidValueError) as refused:
        EventBatch.from_columns(**{**given, **changes})
    assert refused.value.param == param


def test_malformed_appends_change_nothing():
    """What is no event, no moment of receipt or two, and a dimension under the customer's key are refused before anything."""
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


DEFECTS = [
    (
        "event_groups",
        "places[self.codes[rows]] = rows ",
        "places[self.codes[rows][::-1]] = rows[::-1] ",
        "the first of a moment wins",
    ),
    ("event_groups", "greatest(values) * self.most <= INT64_MAX", "True", "sums wrap"),
    ("event_groups", "greatest(values) * greatest(factors) * self.most <= INT64_MAX", "True", "products wrap"),
    (
        "event_groups",
        'order = np.argsort(keys, kind="stable")',
        "order = np.argsort(keys)[::-1]",
        "the first in a window counts",
    ),
    (
        "event_answers",
        'np.searchsorted(bounds, moments, side="right")',
        "np.searchsorted(bounds, moments)",
        "a bound is of the bucket before",
    ),
    ("event_answers", "flags = (events.moments < end)", "flags = (events.moments <= end)", "the end is in the range"),
    ("event_answers", "levels * lengths + areas", "areas", "no level is carried"),
    (
        "event_answers",
        'order = np.argsort(self.places, kind="stable")',
        "order = np.arange(len(self.places))",
        "customers' regions in turn",
    ),
    (
        "event_store",
        "np.lexsort((events.moments, events.codes))",
        "np.lexsort((events.codes, events.moments))",
        "time before series",
    ),
    ("event_store", "10 ** (places - part.decimal_places)", "1", "units of one batch are those of another"),
    ("events", "ok &= False if given is None else", "ok &= True if given is None else", "a dimension may be missing"),
    (
        "events",
        "stamps >= days * (_DAY * MICROSECONDS)",
        "stamps > days * (_DAY * MICROSECONDS)",
        "the first moment is too early",
    ),
    ("events", "at - was <= retention", "at - was < retention", "an identifier is forgotten too early"),
    ("events", "verdict.accepted[row] = False\n", "pass\n", "a duplicate counts"),
    ("events", "extra <= self.policy.dimensions_max", "extra < self.policy.dimensions_max", "one dimension less"),
    ("events", "ids.get(identifier))", "None)", "identifiers of earlier batches are forgotten"),
]


@pytest.mark.parametrize(("module", "right", "wrong", "slip"), DEFECTS, ids=[defect[3] for defect in DEFECTS])
def test_planted_defects_die(module, right, wrong, slip, monkeypatch):
    """A slip in the columns is noticed by the comparison with the log."""
    broken = import_module(f"metering_core.columnar.{module}")
    source = Path(broken.__file__).read_text("utf-8")
    assert source.count(right) == 1, "the slip has one place"
    space = dict(vars(broken))
    exec(compile(source.replace(right, wrong), broken.__file__, "exec"), space)  # noqa: S102 - our own source
    for user in ("event_groups", "event_store", "event_answers", "events"):
        used = import_module(f"metering_core.columnar.{user}")
        for name in vars(used).keys() & space.keys():
            if getattr(space[name], "__module__", None) == broken.__name__:
                monkeypatch.setattr(used, name, space[name])
    monkeypatch.setattr(sys.modules[__name__], "ColumnarEvents", events_module.ColumnarEvents)
    histories = [generated(seed, 250, policy, values=EDGE) for policy in ("history", "global", "retained") for seed in range(3)]
    assert any(map(notices, [event_cases.tied(), *histories]))


EDGE = (*SMALL, "0.5", str(2**63 - 1), str(2**62), None)


def notices(history):
    """Whether a history shows that what is compared differs."""
    try:
        compare(history, *appended(history, (1, 7, 40)))
    except (AssertionError, ValueError, IndexError, KeyError, TypeError):
        return True
    return False
