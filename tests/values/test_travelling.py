"""Values travel: they pickle, copy and deep-copy whole, and keep no log alive."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import json
import pickle
import threading
import weakref
from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from builders import DAY, FEB, JAN, START, priced, subscribed, used
from public_names import PUBLIC
from test_invoicing import Halves

import metering_core as mc
from metering_core.currencies import currency
from metering_core.feeds.catalog import read_catalog
from metering_core.feeds.files import read_events, read_usage
from metering_core.feeds.instants import PlausibleTime

NOW = START + 10 * DAY
CALLS = mc.Meter("mtr", "calls", dimension_payload_keys=["region"], event_time_window="day")
METERED = mc.Price("events", "usd", mc.pricing.PerUnit(7), mc.Recurring(meter="mtr"))

HOLD_LOGS = {mc.CombinedUsage, mc.stripe.Migration}


def event(value="3", **options):
    payload = {"stripe_customer_id": "cus", "value": value, "region": "eu"}
    return mc.MeterEvent("calls", payload, timestamp=START + 5, **options)


def meter_log():
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si", METERED)], START, customer="cus"
    )
    log = mc.MeterLog([CALLS], [subscription], policy=mc.MeterPolicy.history())
    log.append(
        [event(identifier="a"), event("5", identifier="b"), event("9", identifier="c")], now=NOW
    )
    log.cancel("calls", "c", now=NOW)
    mc.finalize_invoice(subscription, log, JAN, now=JAN.end)
    log.append([event("1", identifier="late")], now=JAN.end)
    return log


def graduated():
    return priced(mc.pricing.Graduated([mc.Tier(10, 1, 100), mc.Tier(None, Decimal("0.5"))]))


def catalog(data):
    return read_catalog(io.StringIO(json.dumps(data)))


USAGE_FILE = "subscription_item,quantity,timestamp\nsi_0,5,1704067200\n"
EVENTS_FILE = (
    "event_name,timestamp,payload[stripe_customer_id],payload[value]\ntokens,1704067200,cus_1,2.5\n"
)


def examples():
    """Yield values of every public kind, and of the kinds behind them."""
    log = used(
        (START, 7),
        (START + 1, 12, "set"),
        subscription=subscribed(graduated(), priced(mc.pricing.Package(3, 5))),
    )
    subscription = log.subscriptions[0]
    invoice = mc.preview_invoice(subscription, log, now=NOW)
    yield from read_usage(io.StringIO(USAGE_FILE), "csv")
    yield from read_events(io.StringIO(EVENTS_FILE), "csv")
    yield from (
        PlausibleTime(),
        log.policy,
        subscription,
        invoice,
        invoice.money,
        *log.records(),
        *log.cells("si_0", JAN),
    )
    yield from (
        mc.explain(invoice.lines[0]),
        mc.summarize(subscription.items[0], log, JAN),
        currency("jpy"),
    )
    yield from (
        mc.rate(graduated(), 12),
        mc.money.Amount(Fraction(1, 3), "usd"),
        subscription.cycle,
    )
    finalized = mc.finalize_invoice(subscription, log, JAN, now=JAN.end)
    log.subscribe(
        subscribed(priced(mc.pricing.Percentage(9)), priced(mc.pricing.Package(3, 5))), now=JAN.end
    )
    yield from (finalized, log.invoice_changes(finalized))
    yield mc.subscriptions.BillingThresholds(usage_gte=3)
    yield from mc.tariffs.audit(graduated())
    yield mc.tariffs.compare(
        graduated(), priced(mc.pricing.Volume([mc.Tier(5, 9), mc.Tier(None, 1)]))
    )
    yield mc.tariffs.compare_usage(
        graduated(), priced(), mc.tariffs.summaries_at(graduated(), log, [subscription], now=NOW)
    )
    yield mc.stripe.migrate_to_meters(used((START, 7)), [subscribed()], now=NOW)
    points = [
        mc.feeds.CumulativePoint(at, value, start_time=0) for at, value in ((60, 2), (120, 5))
    ]
    yield mc.feeds.cumulative_to_delta(mc.feeds.CumulativeSum("requests"), points)
    yield from used((START, 7)).append([mc.UsageRecord("nobody", 1, START)], now=NOW)
    yield used((START, 7)).append([mc.UsageRecord("nobody", 1, START)], now=NOW)
    events = meter_log()
    yield from (events.policy, events.meters[0], *events.events(), *events.unbilled("sub"))
    yield events.cancel("calls", "c", now=NOW)
    yield mc.explain(mc.preview_invoice(events.subscriptions[0], events, now=NOW).lines[0])
    yield mc.stripe.list_event_summaries(
        events, "mtr", "cus", START, START + DAY, value_grouping_window="day"
    )
    yield mc.stripe.STRIPE_CODES[mc.ErrorCode.METER_UNKNOWN]
    receipts = events.append([mc.MeterEvent("other", {})], now=NOW)
    refused = mc.stripe.refused_events(
        [mc.MeterEvent("other", {})], receipts, meters=[CALLS], now=NOW
    )
    yield from mc.stripe.error_reports(refused)
    stream = mc.stripe.MeterEventStream(events, tokens=lambda: "token")
    yield stream.create_session(now=NOW)
    yield catalog({"prices": [graduated().to_dict()], "meters": [CALLS.to_dict()]})
    yield from (*log.changes(), *events.changes())
    yield mc.event_summaries(events, "mtr", "cus", START, START + DAY)[0]


@pytest.mark.parametrize(
    "way",
    [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy],  # noqa: S301
)
@pytest.mark.parametrize(
    "value",
    [one for one in examples() if type(one) not in HOLD_LOGS],
    ids=lambda value: type(value).__name__,
)
def test_values_travel_whole(value, way):
    """A value that was pickled, copied or copied deeply is equal to what it was, and reads the
    same.
    """
    arrived = way(value)
    assert arrived == value
    assert str(arrived) == str(value)


def kinds_of(value, found):
    """Collect the kinds of everything that a value is made of."""
    if attrs.has(type(value)):
        found.add(type(value))
        for field in attrs.fields(type(value)):
            kinds_of(getattr(value, field.name), found)
    elif isinstance(value, list | tuple):
        for one in value:
            kinds_of(one, found)
    elif isinstance(value, dict):
        kinds_of([*value.keys(), *value.values()], found)
    return found


def test_every_public_value_is_among_the_examples():
    """The examples are made of every kind of value that the root has, but for those that
    hold logs.
    """
    found = set()
    for value in examples():
        kinds_of(value, found)
    public = {one for one in PUBLIC.values() if inspect.isclass(one) and attrs.has(one)}
    assert public - found <= HOLD_LOGS


def one_of_each():
    """Return a log of each kind with a line that it makes."""
    records = used((START, 7), (START + 5, 6))
    events = meter_log()
    lines = [
        mc.preview_invoice(log.subscriptions[0], log, now=NOW).lines[0] for log in (records, events)
    ]
    return list(zip((records, events), lines, strict=True))


@pytest.mark.parametrize("position", [0, 1])
def test_a_line_keeps_no_log_alive(position):
    """An archive of invoices is no archive of logs; what was explained while the log was there
    stays explained.
    """
    log, line = one_of_each()[position]
    explanation, reference = mc.explain(line), weakref.ref(log)
    del log
    gc.collect()
    assert reference() is None
    assert str(explanation)
    with pytest.raises(mc.InvoicingError, match="outlived the log") as caught:
        mc.explain(line)
    assert (caught.value.code, caught.value.param) == (
        mc.ErrorCode.EXPLANATION_NEEDS_USAGE,
        "usage",
    )


@pytest.mark.parametrize("position", [0, 1])
def test_a_line_from_elsewhere_is_explained_with_the_log(position):
    """A pickled line is explained by the log, or by the log restored from its snapshot, whatever
    came since.
    """
    log, line = one_of_each()[position]
    whole = mc.explain(line)
    arrived = pickle.loads(pickle.dumps(line))  # noqa: S301
    with pytest.raises(mc.InvoicingError, match=r"explain\(line, usage=log\)"):
        mc.explain(arrived)
    if position == 0:
        log.record("si_0", 100, timestamp=START + 9, now=NOW + 1)
    restored = (mc.restore, mc.restore_meter_log)[position](mc.snapshot(log))
    for usage in (log, restored):
        explanation = mc.explain(arrived, usage=usage)
        assert explanation == whole
        assert str(explanation) == str(whole)


def test_a_licensed_line_needs_no_usage():
    """Its quantity was agreed: wherever it comes from, nothing is missing."""
    line = mc.preview_invoice(subscribed(priced(mode=None)), mc.UsageLog(), now=NOW).lines[0]
    assert "licensed" in str(mc.explain(pickle.loads(pickle.dumps(line))))  # noqa: S301


def test_other_usage_explains_other_lines():
    """Usage that does not come to the line's quantity is refused: it would explain something
    else.
    """
    _, line = one_of_each()[0]
    with pytest.raises(mc.InvoicingError, match="expected a quantity of 13, received one of 1"):
        mc.explain(pickle.loads(pickle.dumps(line)), usage=used((START, 1)))  # noqa: S301
    with pytest.raises(mc.InvalidValueError, match="usage: expected a Usage, such as a UsageLog"):
        mc.explain(line, usage=5)
    with pytest.raises(mc.InvalidValueError, match="usage: expected usage that keeps its records"):
        mc.explain(line, usage=Halves())
    with pytest.raises(mc.InvalidValueError, match="line: expected an InvoiceLineItem"):
        mc.explain("in_sub_0")


def test_a_stored_line_may_know_no_number():
    """A line whose number was not written down is explained by usage that comes to its quantity as
    it is now.
    """
    log, line = one_of_each()[0]
    assert mc.explain(attrs.evolve(line, usage=None), usage=log) == mc.explain(line)


@pytest.mark.parametrize(
    "received",
    [threading.RLock(), (one for one in ()), lambda: None],
    ids=lambda one: type(one).__name__,
)
def test_errors_travel_whatever_was_received(received):
    """What cannot be pickled of an error's details arrives as its description; all else arrives as
    it was.
    """
    error = mc.InvalidValueError.expecting(
        mc.ErrorCode.PARAMETER_INVALID_INTEGER, "quantity", "an integer", received
    )
    for arrived in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):  # noqa: S301
        assert (arrived.code, arrived.message, arrived.param) == (
            error.code,
            error.message,
            error.param,
        )
        assert arrived.details["expected"] == "an integer"
        assert type(received).__name__ in arrived.details["received"]


def test_roundings_travel():
    """A rounding to a multiple is a value: what was pickled rounds and is named as before."""
    rounding = mc.money.to_multiple(10, mc.money.half_even)
    arrived = pickle.loads(pickle.dumps(rounding))  # noqa: S301
    assert arrived(Decimal(5125)) == rounding(Decimal(5125)) == 5120
    assert arrived.__name__ == "half_even_to_multiple_of_10"


def test_the_period_after_is_another_line():
    """Two periods of one item are explained apart, each with the log beside it."""
    log = used((START, 7), (FEB.start_seconds, 5))
    lines = [
        mc.preview_invoice(log.subscriptions[0], log, now=at).lines[0]
        for at in (NOW, FEB.start_seconds)
    ]
    quantities = [
        mc.explain(pickle.loads(pickle.dumps(line)), usage=log).line.quantity  # noqa: S301
        for line in lines
    ]
    assert quantities == [7, 5]
