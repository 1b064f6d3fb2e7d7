"""Two kinds of usage under one subscription: whichever side lacks an earlier invoice bills no late
usage a second time, and loses none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import metering_core as mc

MAY, JUNE, JULY, AUGUST, SEPTEMBER = (
    datetime(2026, month, 1, tzinfo=UTC) for month in range(5, 10)
)
LATE = JULY + timedelta(hours=12)


def item(name, **recurring):
    price = mc.Price.per_unit(
        name, currency="usd", unit_amount=100, recurring=mc.Recurring(**recurring)
    )
    return mc.SubscriptionItem(name, price)


def subscription(start):
    return mc.Subscription("s", [item("r"), item("e", meter="m")], start, customer="c")


def bill(known, records, events, month, now):
    usage = mc.CombinedUsage(records, events)
    return mc.finalize_invoice(known, usage, known.period_at(month), now=now).total


def of_log(log, _):
    return log


def of_view(log, _):
    return log.as_of(log.sequence)


def of_columns(log, folder):
    columnar = pytest.importorskip("metering_core.columnar", exc_type=ImportError)
    return columnar.ColumnarUsage(log.subscriptions, book=log.book)


def of_sql(log, folder):
    pytest.importorskip("duckdb")
    from metering_core.sql import DuckDBUsage  # noqa: PLC0415 - needs the extra

    file = folder / "usage.csv"
    file.write_text("subscription_item,quantity,timestamp\nr,1,2026-06-03T00:00:00Z\n")
    return DuckDBUsage(str(file), log.subscriptions, closed=log.state().closed)


ENGINES = [of_log, of_view, of_columns, of_sql]


@pytest.mark.parametrize("engine", ENGINES)
def test_late_events_are_not_billed_twice(engine, tmp_path):
    """The events are restored from before July's invoice, which billed 5 late units of June at
    USD 1, and sent again: August is refused, whatever the records are.
    """
    known = subscription(JUNE)
    carry = mc.MeterPolicy(late_usage="carry_forward")
    log = mc.UsageLog([known])
    events = mc.MeterLog([mc.Meter("m", "e")], [known], policy=carry)
    late = mc.MeterEvent(
        "e",
        {"stripe_customer_id": "c", "value": "5"},
        timestamp=JULY - timedelta(hours=3),
        identifier="late",
    )
    log.record("r", 1, timestamp=JUNE + timedelta(days=2), now=JUNE + timedelta(days=2))
    assert bill(known, log, events, JUNE, JULY) == 100
    before = mc.snapshot(events)
    events.append([late], now=LATE)
    assert bill(known, log, events, JULY, AUGUST) == 500
    restored = mc.restore_meter_log(before)
    restored.append([late], now=LATE)
    with pytest.raises(mc.InvoicingError) as caught:
        bill(known, engine(log, tmp_path), restored, AUGUST, SEPTEMBER)
    assert caught.value.code == "invoice_conflict"


@pytest.mark.parametrize("first", [MAY, JUNE])
def test_late_records_are_not_lost(first):
    """The records are sent again to a log of before June's invoice, or of before any: 5 late units
    that July owes lie in June there, so July is refused rather than billed without them.
    """
    known = subscription(first)
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=2), late_attribution="open_period")
    events = mc.MeterLog([mc.Meter("m", "e")], [known])

    def sent(records):
        for quantity, at, now in (
            (10, JUNE + timedelta(days=9), JUNE + timedelta(days=9)),
            (5, JULY - timedelta(hours=3), LATE),
        ):
            yield records.record("r", quantity, timestamp=at, now=now)

    log = mc.UsageLog([known], policy=policy)
    arriving = sent(log)
    if first == MAY:
        assert bill(known, log, events, MAY, JUNE) == 0
    lost = mc.snapshot(log)
    next(arriving)
    assert bill(known, log, events, JUNE, JULY) == 1000
    next(arriving)
    owed = mc.preview_invoice(known, mc.CombinedUsage(log, events), now=JULY + timedelta(days=3))
    assert owed.total == 500
    again = mc.restore(lost)
    list(sent(again))
    with pytest.raises(mc.InvoicingError) as caught:
        bill(known, again, events, JULY, AUGUST)
    assert caught.value.code == "invoice_conflict"


def test_a_side_that_is_newer_bills_on():
    """Events that were begun to be kept in July, of an item that is new, lack no invoice of June:
    none of their usage can be in it.
    """
    old = mc.Subscription("s", [item("r")], JUNE, customer="c")
    log = mc.UsageLog([old])
    log.record("r", 2, timestamp=JUNE + timedelta(days=2), now=JUNE + timedelta(days=2))
    assert mc.finalize_invoice(old, log, old.period_at(JUNE), now=JULY).total == 200
    known = subscription(JUNE)
    log.subscribe(known, now=JULY)
    carry = mc.MeterPolicy(late_usage="carry_forward")
    events = mc.MeterLog([mc.Meter("m", "e")], [known], policy=carry)
    payload = {"stripe_customer_id": "c", "value": "3"}
    events.record("e", payload, timestamp=LATE, now=LATE)
    assert bill(known, log, events, JULY, AUGUST) == 300
