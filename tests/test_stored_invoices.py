"""The invoice of a closed period is kept by the log: finalizing again returns it, whatever came since."""

from __future__ import annotations

import json
import random
import threading
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice

import attrs
import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed
from hypothesis import given, settings
from interrupting import Case, Recorder, every_place_of, interrupted, knows_where_with_exits
from test_invoicing import Halves
from test_snapshots import Flat

import metering_core as mc
from metering_core.accounts import Closing
from metering_core.billing_run import invoice_all
from metering_core.columnar import ColumnarUsage
from metering_core.errors import ErrorCode
from metering_core.money import half_even
from metering_core.stored_fields import closed_fields, read_closed
from metering_core.testing import strategies

SEAT = mc.SubscriptionItem("seat", priced(mode=None, id="p_seat"), 3)
CALLS = mc.SubscriptionItem("si", priced(mc.PerUnit("0.5"), id="p_calls"))
DEARER = mc.SubscriptionItem("si", priced(mc.PerUnit(9), id="p_dearer"))
TOKENS = mc.Meter("m", "tokens")
COUNTED = mc.SubscriptionItem("counted", priced(id="p_tokens", recurring=mc.Recurring(meter="m")))


def of(*items, **options):
    """Return a subscription from January 2024 on."""
    return mc.Subscription("sub", items, START, customer="c", **options)


def token(value, at=START + DAY):
    """Return an event of the customer."""
    return mc.MeterEvent("tokens", {"stripe_customer_id": "c", "value": value}, timestamp=at)


def written(invoice):
    """Return an invoice as bytes, with when it was finalized."""
    return json.dumps([invoice.to_dict(), invoice.finalized_at.isoformat(), str(invoice)]).encode()


def of_records(engine=mc.UsageLog):
    """Return usage with 5 calls and 3 seats in January."""
    log = engine([of(CALLS, SEAT)])
    log.append([mc.UsageRecord("si", 5, START + DAY)], now=START + DAY)
    return log


def of_events():
    """Return a log with 5 tokens in January."""
    log = mc.MeterLog([TOKENS], [of(COUNTED)], policy=mc.MeterPolicy.history())
    log.append([token("5")], now=START + DAY)
    return log


def of_both():
    """Return both, for a subscription with items of both."""
    both = of(CALLS, SEAT, COUNTED)
    usage = mc.CombinedUsage(mc.UsageLog([both]), mc.MeterLog([TOKENS], [both], policy=mc.MeterPolicy.history()))
    usage.records.record("si", 5, now=START + DAY)
    usage.events.append([token("5")], now=START + DAY)
    return usage


def logs_of(usage):
    """Return the logs that some usage is made of."""
    return [usage.records, usage.events] if isinstance(usage, mc.CombinedUsage) else [usage]


ENGINES = [of_records, lambda: of_records(ColumnarUsage), of_events, of_both]


@pytest.mark.parametrize("made", ENGINES, ids=["records", "columns", "events", "both"])
def test_finalizing_again_returns_what_was_billed(made):
    """Another version, rounding, later usage, a shorter life, a run: all return the first invoice, byte for byte."""
    usage = made()
    first = logs_of(usage)[0].subscriptions[0]
    billed = mc.finalize_invoice(first, usage, JAN, now=JAN.end)
    dearer = attrs.evolve(first, items=[DEARER if item.id == "si" else item for item in first.items])
    for log in logs_of(usage):
        log.subscribe(dearer, now=FEB.start)
    if isinstance(logs_of(usage)[-1], mc.MeterLog):
        logs_of(usage)[-1].append([token("100")], now=FEB.start)
    for version, rounding in ((dearer, mc.half_up), (first, half_even)):
        again = mc.finalize_invoice(version, usage, JAN, now=MAR.end, rounding=rounding)
        assert (again, written(again)) == (billed, written(billed))
    assert invoice_all([dearer], usage, START, now=MAR.end) == [billed]
    ended = dearer.canceled(START + 15 * DAY)
    for log in logs_of(usage):
        log.subscribe(ended, rebill=True)
    for period in (JAN, ended.period_at(START)):
        assert written(mc.finalize_invoice(ended, usage, period, now=MAR.end)) == written(billed)
    with pytest.raises(mc.InvoicingError) as refusal:
        mc.finalize_invoice(ended, usage, mc.BillingPeriod(START, START + DAY), now=MAR.end)
    assert refusal.value.code == ErrorCode.PERIOD_NOT_OF_SUBSCRIPTION


@pytest.mark.parametrize("made", [of_records, of_events, of_both], ids=["records", "events", "both"])
def test_a_restored_log_returns_what_was_billed(made):
    """A snapshot carries the invoices: the same bytes come out of the restored log, and its lines explain themselves."""
    usage = made()
    first = logs_of(usage)[0].subscriptions[0]
    billed = mc.finalize_invoice(first, usage, JAN, now=JAN.end + timedelta(microseconds=7))
    texts = [json.dumps(mc.snapshot(log)) for log in logs_of(usage)]
    restored = [(mc.restore_meter_log if "meter_log" in text else mc.restore)(json.loads(text)) for text in texts]
    again = mc.finalize_invoice(first, restored[0] if len(restored) == 1 else mc.CombinedUsage(*restored), JAN, now=MAR.end)
    assert (again, written(again)) == (billed, written(billed))
    assert list(map(str, map(mc.explain, again.lines))) == list(map(str, map(mc.explain, billed.lines)))
    assert [json.dumps(mc.snapshot(log)) for log in restored] == texts
    assert restored == logs_of(usage)


def test_a_line_without_evidence_comes_back_without():
    """An engine of one's own may keep no records; beside it the lines of a restored meter log explain themselves as before."""
    both = of(CALLS, COUNTED)
    events = mc.MeterLog([TOKENS], [both], policy=mc.MeterPolicy.history())
    events.append([token("5")], now=START + DAY)
    billed = mc.finalize_invoice(both, mc.CombinedUsage(Halves(), events), JAN, now=JAN.end)
    restored = mc.restore_meter_log(json.loads(json.dumps(mc.snapshot(events))))
    again = mc.finalize_invoice(both, mc.CombinedUsage(Halves(), restored), JAN, now=MAR.end)
    assert [line.usage is None for line in again.lines] == [line.usage is None for line in billed.lines] == [True, False]
    assert list(map(str, map(mc.explain, again.lines))) == list(map(str, map(mc.explain, billed.lines)))


def test_a_period_closed_without_an_invoice_is_billed_once():
    """``close_period`` keeps none: the first invoice afterwards is kept, with the moment of the closing."""
    log = of_records()
    log.close_period("sub", JAN, now=JAN.end)
    assert log.stored_invoice("sub", JAN) is None
    billed = mc.finalize_invoice(of(CALLS, SEAT), log, JAN, now=MAR.end)
    assert billed.finalized_at == JAN.end
    assert log.stored_invoice("sub", JAN) == billed
    log.close_period("sub", JAN, now=MAR.end)
    assert log.stored_invoice("sub", JAN) == billed
    assert log.stored_invoice("sub", FEB) is None


def test_what_fails_keeps_no_invoice():
    """Where billing fails, nothing is closed and nothing kept; an invoice is taken while its period is being closed only."""
    log = of_records()
    (preview,) = invoice_all([of(CALLS, SEAT)], log, START)
    with pytest.raises(ZeroDivisionError), log.closing("sub", JAN, now=JAN.end):
        log.keep_invoice(attrs.evolve(preview, lines=preview.lines[: 1 // 0]))
    assert log.stored_invoice("sub", JAN) is None
    for wrong in (preview, "in_sub", None):
        with pytest.raises(mc.InvalidValueError) as refusal:
            log.keep_invoice(wrong)
        assert (refusal.value.code, refusal.value.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, "invoice")


# Two logs, one invoice --------------------------------------------------------------------------------------------------

BOTH = of(CALLS, SEAT, COUNTED)


def restored(log):
    """Return a log as a snapshot of it is restored."""
    text = json.loads(json.dumps(mc.snapshot(log)))
    return mc.restore_meter_log(text) if isinstance(log, mc.MeterLog) else mc.restore(text)


def finalized_again(usage):
    """Return what a run gives, and what finalizing does, under a dearer version with the open period rebilled."""
    dearer = of(DEARER, SEAT, attrs.evolve(COUNTED, price=attrs.evolve(DEARER.price, recurring=COUNTED.recurring)))
    for log in logs_of(usage):
        log.subscribe(dearer, now=FEB.start, rebill=True)
    return [*invoice_all([dearer], usage, START, now=MAR.end), mc.finalize_invoice(dearer, usage, JAN, now=MAR.end)]


@pytest.mark.parametrize("side", ["records", "events"])
def test_a_log_restored_from_before_the_closing_gets_the_invoice_that_the_other_keeps(side):
    """Whatever version, moment and usage come since, the one invoice comes again, byte for byte, and both logs keep it."""
    usage = of_both()
    before = {"records": restored(usage.records), "events": restored(usage.events)}
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end + timedelta(hours=2))
    usage = attrs.evolve(usage, **{side: before[side]})
    assert usage.stored_invoice("sub", JAN) == billed
    assert [log.stored_invoice("sub", JAN) is None for log in logs_of(usage)] == [side == "records", side == "events"]
    usage.records.append([mc.UsageRecord("si", 4, JAN.end_seconds - 1)], now=JAN.end_seconds - 1)
    usage.events.append([token("7")], now=JAN.end)
    again = finalized_again(usage)
    assert [written(one) for one in again] == [written(billed)] * 2
    assert [log.stored_invoice("sub", JAN) for log in logs_of(usage)] == [billed] * 2
    assert [one.quantity for one in usage.events.unbilled("sub")] == [7]
    assert {closing.closed_at for log in logs_of(usage) for closing in log.state().closed["sub"]} == {billed.finalized_at}


@pytest.mark.parametrize(("again", "owed"), [((), -5), (("2",), -3), (("5",), 0), (("7", "5"), 7), (("5", "7"), 7)], ids=str)
def test_a_log_of_events_restored_empty_owes_what_the_invoice_did_not_bill(again, owed):
    """What is sent again after the period was completed is what was billed; only more than that is carried forward, once."""
    policy = mc.MeterPolicy.history(late_usage="carry_forward")
    usage = mc.CombinedUsage(mc.UsageLog([BOTH]), mc.MeterLog([TOKENS], [BOTH], policy=policy))
    empty = restored(usage.events)
    usage.events.append([token("5")], now=START + DAY)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, events=empty)
    assert written(mc.finalize_invoice(BOTH, usage, JAN, now=FEB.start)) == written(billed)
    usage.events.append([token(value) for value in again], now=FEB.start)
    assert sum(one.quantity for one in usage.events.unbilled("sub")) == owed
    late = [line for line in mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end).lines if line.before is not None]
    assert [(line.before.total_usage, line.total_usage) for line in late] == ([(5, 5 + owed)] if owed else [])
    assert usage.events.unbilled("sub") == []


def test_what_an_invoice_carried_is_not_carried_again():
    """The events' log, restored from before late usage of an earlier period was billed, learns that it was."""
    policy = mc.MeterPolicy.history(late_usage="carry_forward")
    usage = mc.CombinedUsage(mc.UsageLog([BOTH]), mc.MeterLog([TOKENS], [BOTH], policy=policy))
    mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    before = restored(usage.events)
    usage.events.append([token("4")], now=FEB.start)
    billed = mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end)
    assert [line.amount for line in billed.lines if line.before is not None] == [4]
    usage = attrs.evolve(usage, events=before)
    assert mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end) == billed
    usage.events.append([token("4")], now=FEB.end)
    assert usage.events.unbilled("sub") == []
    assert [line for line in mc.finalize_invoice(BOTH, usage, MAR, now=MAR.end).lines if line.before is not None] == []


def test_formulas_that_do_not_add_up_are_completed_as_of_the_invoice():
    """Of a maximum what the log had when the invoice was made counts as billed; what came since is told as unbilled."""
    meter = mc.Meter("m", "tokens", formula="max")
    usage = mc.CombinedUsage(mc.UsageLog([BOTH]), mc.MeterLog([meter], [BOTH], policy=mc.MeterPolicy.history()))
    usage.events.append([token("5")], now=START + DAY)
    before = restored(usage.events)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    before.append([token("9")], now=FEB.start)
    usage = attrs.evolve(usage, events=before)
    assert mc.finalize_invoice(BOTH, usage, JAN, now=FEB.start) == billed
    assert [(one.billed, one.measured) for one in before.unbilled("sub")] == [(5, 9)]


CLOSES = {"closing_all", "keep_invoice", "_change_that_closes", "decide", "_finish", "_keep_bills", "_close_all", "close"}
"""What carries out a closing."""


@knows_where_with_exits
@pytest.mark.parametrize("where", [CLOSES, pytest.param(None, marks=pytest.mark.slow)], ids=["closing", "all of it"])
def test_an_interrupt_between_two_closings_leaves_one_invoice(where):
    """Finalizing is interrupted at every line: what comes out then is one invoice, in both logs, for ever."""
    case = Case("finalize", of_both, lambda usage: mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end), None)
    billed, halves, recorded = case.act(of_both()), set(), of_both()
    with Recorder() as recorder:
        case.act(recorded)
    for at, (code, _) in enumerate(recorder.places, 1):
        if where is None or code.co_name in where:
            usage, _ = interrupted(case, at)
            kept = [log.stored_invoice("sub", JAN) for log in logs_of(usage)]
            halves.add(tuple(one is not None for one in kept))
            again = finalized_again(usage)
            assert again == [billed if any(kept) else again[0]] * 2, at
            assert [log.stored_invoice("sub", JAN) for log in logs_of(usage)] == again, at
    assert halves == {(False, False), (True, False), (True, True)}  # The records come first.


@knows_where_with_exits
def test_an_interrupted_completion_is_completed():
    """While the second log learns of the invoice, too, an interrupt at any line leaves it without or with that invoice."""
    billed = mc.finalize_invoice(BOTH, of_both(), JAN, now=JAN.end)

    def half():
        usage = of_both()
        with usage.records.closing("sub", JAN, now=JAN.end):
            usage.records.keep_invoice(billed)
        return usage

    whole = half()
    case = Case("complete", half, lambda usage: mc.finalize_invoice(BOTH, usage, JAN, now=MAR.end), None)
    assert case.act(whole) == billed
    places = every_place_of(case)
    for at in random.Random(5).sample(places, 60):  # noqa: S311 - it repeats itself
        usage, _ = interrupted(case, at)
        assert case.act(usage) == billed, at
        assert logs_of(usage) == logs_of(whole), at


def test_different_invoices_of_one_period_are_refused():
    """Two logs that keep different invoices of a period give none, and nothing changes; nor is one kept over another."""
    usage = of_both()
    first = mc.finalize_invoice(BOTH, of_both(), JAN, now=JAN.end)
    other = attrs.evolve(first, lines=first.lines[:1])
    for log, invoice in zip(logs_of(usage), (first, other), strict=True):
        with log.closing("sub", JAN, now=JAN.end):
            log.keep_invoice(invoice)
    before = [log.state() for log in logs_of(usage)]
    for act in (
        lambda: usage.stored_invoice("sub", JAN),
        lambda: mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end),
        lambda: invoice_all([BOTH], usage, START, now=JAN.end),
    ):
        with pytest.raises(mc.InvoicingError, match=r"one invoice of the period of subscription 'sub'") as refusal:
            act()
        assert (refusal.value.code, refusal.value.param) == (ErrorCode.INVOICE_CONFLICT, "invoice")
    for log, invoice in zip(logs_of(usage), (other, first), strict=True):
        with pytest.raises(mc.InvoicingError) as refusal, log.closing("sub", JAN, now=JAN.end):
            log.keep_invoice(invoice)
        assert refusal.value.code == ErrorCode.INVOICE_CONFLICT
    assert [log.state() for log in logs_of(usage)] == before


@pytest.mark.parametrize("made", ENGINES, ids=["records", "columns", "events", "both"])
def test_an_equal_invoice_takes_no_other_one_s_place(made):
    """Kept again, an invoice stays the object that it was; so do its bytes."""
    usage = made()
    first = logs_of(usage)[0].subscriptions[0]
    billed = mc.finalize_invoice(first, usage, JAN, now=JAN.end)
    with usage.closing("sub", JAN, now=MAR.end):
        usage.keep_invoice(attrs.evolve(billed, currency="usd"))
    assert all(log.stored_invoice("sub", JAN) is billed for log in logs_of(usage))


@pytest.mark.parametrize("made", [of_records, of_events], ids=["records", "events"])
def test_two_threads_finalize_one_invoice(made, monkeypatch):
    """Of two threads that find the period open, the second one gets what the first one billed."""
    usage, came = made(), []
    first = usage.subscriptions[0]
    other = threading.Thread(
        target=lambda: came.append(mc.finalize_invoice(first, usage, JAN, now=JAN.end, rounding=lambda exact: 7))
    )

    closing_all = type(usage).closing_all

    def later(log, *given, **options):
        """Let the other thread try between the question and the closing."""
        if threading.current_thread() is not other:
            other.start()
            other.join(0.1)
        return closing_all(log, *given, **options)

    monkeypatch.setattr(type(usage), "closing_all", later)
    billed = mc.finalize_invoice(first, usage, JAN, now=JAN.end)
    other.join()
    assert came == [billed] == [usage.stored_invoice("sub", JAN)]


def test_views_of_both_keep_nothing():
    """Two views combined answer as ever, and close nothing."""
    usage = of_both()
    invoice = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    views = mc.CombinedUsage(usage.records.as_of(1), usage.events.as_of(1))
    assert views.stored_invoice("sub", JAN) is None
    assert mc.finalize_invoice(BOTH, views, JAN, now=JAN.end) == invoice


# What would differ now -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
def test_changes_of_terms_are_told(engine):
    """Another price alters its line alone; names alter none; a dropped item's line would be gone; all is as data."""
    log = of_records(engine)
    billed = mc.finalize_invoice(of(CALLS, SEAT), log, JAN, now=JAN.end)
    assert log.invoice_changes(billed) == mc.InvoiceChanges(billed.id, ())
    assert not log.invoice_changes(billed)
    log.subscribe(of(attrs.evolve(CALLS, price=attrs.evolve(CALLS.price, nickname="Calls")), SEAT), now=FEB.start)
    assert not log.invoice_changes(billed)
    log.subscribe(of(DEARER, SEAT), now=FEB.start)
    changes = log.invoice_changes(billed)
    assert [(one.subscription_item, [money.minor_units for money in one.amounts]) for one in changes.lines] == [("si", [3, 45])]
    assert changes.lines[0].billed == billed.lines[0]
    log.subscribe(of(SEAT), now=FEB.start)
    assert [(one.subscription_item, one.amounts[1], bool(changes)) for one in log.invoice_changes(billed).lines] == [
        ("si", None, True)
    ]
    log.subscribe(of(SEAT, attrs.evolve(SEAT, id="more")), now=FEB.start)
    assert [one.subscription_item for one in log.invoice_changes(billed).lines] == ["si", "more"]
    assert log.invoice_changes(billed).lines[1].billed is None
    assert mc.finalize_invoice(of(SEAT), log, JAN, now=MAR.end) == billed


def test_changes_of_usage_are_told():
    """Late events would alter the line; canceled ones, too; what later periods used does not."""
    log = of_events()
    billed = mc.finalize_invoice(of(COUNTED), log, JAN, now=JAN.end)
    log.append([token("7", FEB.start)], now=FEB.start)
    mc.finalize_invoice(of(COUNTED), log, FEB, now=FEB.end)
    assert not log.invoice_changes(billed)
    log.append([token("2")], now=FEB.end)
    (line,) = log.invoice_changes(billed).lines
    assert (line.billed.quantity, line.now.quantity) == (5, 7)
    assert [money.minor_units for money in line.amounts] == [5, 7]
    assert mc.finalize_invoice(of(COUNTED), log, JAN, now=MAR.end) == billed


def test_each_log_knows_its_own_items():
    """Of an invoice of both generations each log compares its own lines; both know what was agreed."""
    usage, both = of_both(), of(CALLS, SEAT, COUNTED)
    billed = mc.finalize_invoice(both, usage, JAN, now=JAN.end)
    assert not any(log.invoice_changes(billed) for log in logs_of(usage))
    for log in logs_of(usage):
        log.subscribe(of(DEARER, attrs.evolve(SEAT, quantity=4), COUNTED), now=FEB.start)
    changed = [[one.subscription_item for one in log.invoice_changes(billed).lines] for log in logs_of(usage)]
    assert changed == [["si", "seat"], ["seat"]]


def test_a_life_elsewhere_would_bill_nothing():
    """Where the newest version does not live in the period, every line would be gone."""
    log = of_records()
    billed = mc.finalize_invoice(of(CALLS, SEAT), log, JAN, now=JAN.end)
    log.subscribe(of(CALLS, SEAT, start_date=FEB.start), now=FEB.start)
    assert [one.now for one in log.invoice_changes(billed).lines] == [None, None]


@pytest.mark.parametrize(
    ("invoice", "param", "code"),
    [
        ("in_sub", "invoice", ErrorCode.PARAMETER_INVALID_OBJECT),
        (mc.finalize_invoice(subscribed(id="other"), mc.UsageLog([subscribed(id="other")]), JAN, now=JAN.end), "subscription",
         ErrorCode.PARAMETER_INVALID_CHOICE),
    ],
)  # fmt: skip
def test_only_invoices_of_the_log_are_compared(invoice, param, code):
    """What is no invoice, or one of a subscription that the log does not have, is refused by name."""
    with pytest.raises(mc.InvalidValueError) as refusal:
        of_records().invoice_changes(invoice)
    assert (refusal.value.code, refusal.value.param) == (code, param)


# As data ---------------------------------------------------------------------------------------------------------------


def through_text(invoice, prices=None):
    """Return an invoice after a round trip through the fields of a snapshot and JSON."""
    closing = Closing(invoice.period, invoice.finalized_at, invoice)
    fields = json.loads(json.dumps(closed_fields({invoice.subscription: [closing]})))
    return read_closed(fields, prices or {})[invoice.subscription][0].invoice


@settings(deadline=None, max_examples=15)
@given(strategies.subscriptions(ends=True).flatmap(lambda drawn: strategies.usage_logs(drawn, closes=False)))
def test_every_field_survives(log):
    """Whatever is billed comes back field by field, of the same types, so that it is written and read as it was."""
    (subscription,) = log.subscriptions
    for period in islice(subscription.periods_from(max(subscription.start_date, subscription.billing_cycle_anchor)), 2):
        invoice = mc.finalize_invoice(subscription, log, period, now=period.end)
        again = through_text(invoice)
        assert (again, written(again)) == (invoice, written(invoice))
        for line, other in zip(invoice.lines, again.lines, strict=True):
            for field in set(attrs.fields_dict(mc.InvoiceLineItem)) - {"usage"}:
                assert type(getattr(line, field)) is type(getattr(other, field)), field
            assert line.period.cut_from == other.period.cut_from
            assert (line.usage is None) == (other.usage is None)
            assert line.usage is None or line.usage.sequence == other.usage.sequence


def test_numbers_of_every_kind_survive():
    """A fraction, a decimal, an integer and a model's own words come back as what they were."""
    log = mc.UsageLog([subscribed(priced(Flat(), id="own"))])
    invoice = mc.finalize_invoice(log.subscriptions[0], log, JAN, now=JAN.end)
    line = attrs.evolve(
        invoice.lines[0], quantity=Decimal("1.50"), exact=Fraction(1, 3), total_usage=Decimal(5), proration=Fraction(1, 2)
    )
    odd = attrs.evolve(invoice, lines=(line,))
    with pytest.raises(mc.SnapshotError) as refusal:
        through_text(odd)
    assert refusal.value.code == ErrorCode.SNAPSHOT_NEEDS_PRICE
    again = through_text(odd, {"own": log.subscriptions[0].items[0].price})
    assert again == odd
    assert isinstance(again.lines[0].exact, Fraction)
    assert isinstance(again.lines[0].total_usage, Decimal)


def test_a_price_is_written_once():
    """However many lines and periods a price was billed in, the snapshot holds it once for all of them."""
    log = of_records()
    for period in (JAN, FEB, MAR):
        mc.finalize_invoice(of(CALLS, SEAT), log, period, now=period.end)
    content = mc.snapshot(log)["content"]
    assert [price["id"] for price in content["prices"]] == ["p_calls", "p_seat"]
    assert [len(closing[-1]["lines"]) for closing in content["closed"]["sub"]] == [2, 2, 2]
