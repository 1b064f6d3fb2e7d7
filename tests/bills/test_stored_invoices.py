"""The invoice of a closed period is kept by the log: finalizing again returns it, whatever came
since.
"""

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
from metering_core.prices import PriceTable
from metering_core.snapshots.fields import closed_fields, read_closed, read_prices
from metering_core.testing import strategies

SEAT = mc.SubscriptionItem("seat", priced(mode=None, id="p_seat"), 3)
CALLS = mc.SubscriptionItem("si", priced(mc.pricing.PerUnit("0.5"), id="p_calls"))
DEARER = mc.SubscriptionItem("si", priced(mc.pricing.PerUnit(9), id="p_dearer"))
TOKENS = mc.Meter("m", "tokens")
COUNTED = mc.SubscriptionItem("counted", priced(id="p_tokens", recurring=mc.Recurring(meter="m")))


def of(*items, **options):
    """Return a subscription from January 2024 on."""
    return mc.Subscription("sub", items, START, customer="c", **options)


def token(value, at=START + DAY, name="tokens", **options):
    """Return an event of the customer."""
    return mc.MeterEvent(name, {"stripe_customer_id": "c", "value": value}, timestamp=at, **options)


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
    usage = mc.CombinedUsage(
        mc.UsageLog([both]), mc.MeterLog([TOKENS], [both], policy=mc.MeterPolicy.history())
    )
    usage.records.record("si", 5, now=START + DAY)
    usage.events.append([token("5")], now=START + DAY)
    return usage


def logs_of(usage):
    """Return the logs that some usage is made of."""
    return [usage.records, usage.events] if isinstance(usage, mc.CombinedUsage) else [usage]


ENGINES = [of_records, lambda: of_records(ColumnarUsage), of_events, of_both]


@pytest.mark.parametrize("made", ENGINES, ids=["records", "columns", "events", "both"])
def test_finalizing_again_returns_what_was_billed(made):
    """Another version, rounding, later usage, a shorter life, a run: all return the first invoice,
    byte for byte.
    """
    usage = made()
    first = logs_of(usage)[0].subscriptions[0]
    billed = mc.finalize_invoice(first, usage, JAN, now=JAN.end)
    dearer = attrs.evolve(
        first, items=[DEARER if item.id == "si" else item for item in first.items]
    )
    for log in logs_of(usage):
        log.subscribe(dearer, now=FEB.start)
    if isinstance(logs_of(usage)[-1], mc.MeterLog):
        logs_of(usage)[-1].append([token("100")], now=FEB.start)
    for version, rounding in ((dearer, mc.money.half_up), (first, half_even)):
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


@pytest.mark.parametrize(
    "made", [of_records, of_events, of_both], ids=["records", "events", "both"]
)
def test_a_restored_log_returns_what_was_billed(made):
    """A snapshot carries the invoices: the same bytes come out of the restored log, and its lines
    explain themselves.
    """
    usage = made()
    first = logs_of(usage)[0].subscriptions[0]
    billed = mc.finalize_invoice(first, usage, JAN, now=JAN.end + timedelta(microseconds=7))
    texts = [json.dumps(mc.snapshot(log)) for log in logs_of(usage)]
    restored = [
        (mc.restore_meter_log if "meter_log" in text else mc.restore)(json.loads(text))
        for text in texts
    ]
    again = mc.finalize_invoice(
        first, restored[0] if len(restored) == 1 else mc.CombinedUsage(*restored), JAN, now=MAR.end
    )
    assert (again, written(again)) == (billed, written(billed))
    assert list(map(str, map(mc.explain, again.lines))) == list(
        map(str, map(mc.explain, billed.lines))
    )
    assert [json.dumps(mc.snapshot(log)) for log in restored] == texts
    assert restored == logs_of(usage)


def test_a_line_without_evidence_comes_back_without():
    """An engine of one's own may keep no records; beside it the lines of a restored meter log
    explain themselves as before.
    """
    both = of(CALLS, COUNTED)
    events = mc.MeterLog([TOKENS], [both], policy=mc.MeterPolicy.history())
    events.append([token("5")], now=START + DAY)
    billed = mc.finalize_invoice(both, mc.CombinedUsage(Halves(), events), JAN, now=JAN.end)
    restored = mc.restore_meter_log(json.loads(json.dumps(mc.snapshot(events))))
    again = mc.finalize_invoice(both, mc.CombinedUsage(Halves(), restored), JAN, now=MAR.end)
    assert (
        [line.usage is None for line in again.lines]
        == [line.usage is None for line in billed.lines]
        == [True, False]
    )
    assert list(map(str, map(mc.explain, again.lines))) == list(
        map(str, map(mc.explain, billed.lines))
    )


def test_a_period_closed_without_an_invoice_is_billed_once():
    """``close_period`` keeps none: the first invoice afterwards is kept, with the moment of the
    closing.
    """
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
    """Where billing fails, nothing is closed and nothing kept; an invoice is taken while its period
    is being closed only.
    """
    log = of_records()
    (preview,) = invoice_all([of(CALLS, SEAT)], log, START)
    with pytest.raises(ZeroDivisionError), log.closing("sub", JAN, now=JAN.end):
        log.keep_invoice(attrs.evolve(preview, lines=preview.lines[: 1 // 0]))
    assert log.stored_invoice("sub", JAN) is None
    for wrong in (preview, "in_sub", None):
        with pytest.raises(mc.InvalidValueError) as refusal:
            log.keep_invoice(wrong)
        assert (refusal.value.code, refusal.value.param) == (
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "invoice",
        )


# Two logs, one invoice ----------------------------------------------------------------------------

BOTH = of(CALLS, SEAT, COUNTED)


def restored(log):
    """Return a log as a snapshot of it is restored."""
    text = json.loads(json.dumps(mc.snapshot(log)))
    return mc.restore_meter_log(text) if isinstance(log, mc.MeterLog) else mc.restore(text)


DEARER_BOTH = of(
    DEARER,
    SEAT,
    attrs.evolve(COUNTED, price=attrs.evolve(DEARER.price, recurring=COUNTED.recurring)),
)
CARRIED = mc.MeterPolicy.history(late_usage="carry_forward")


def finalized_again(usage):
    """Return what finalizing gives, and what it and a run give under a dearer version with the open
    period rebilled.
    """
    again = mc.finalize_invoice(BOTH, usage, JAN, now=MAR.end)
    for log in logs_of(usage):
        log.subscribe(DEARER_BOTH, now=FEB.start, rebill=True)
    later = mc.finalize_invoice(DEARER_BOTH, usage, JAN, now=MAR.end, rounding=half_even)
    return [again, *invoice_all([DEARER_BOTH], usage, START, now=MAR.end), later]


def refusal_of(usage, period=JAN, subscription=BOTH, now=MAR.end):
    """Return why a period is not finalized, by either call; nothing has changed then."""
    before, sentences = [log.state() for log in logs_of(usage)], set()
    for act in (
        lambda: mc.finalize_invoice(subscription, usage, period, now=now),
        lambda: invoice_all([subscription], usage, period.start, now=now),
    ):
        with pytest.raises(mc.InvoicingError) as refusal:
            act()
        assert (refusal.value.code, refusal.value.param) == (ErrorCode.INVOICE_CONFLICT, "invoice")
        sentences.add(str(refusal.value))
        assert [log.state() for log in logs_of(usage)] == before
    (sentence,) = sentences
    return sentence


@pytest.mark.parametrize("side", ["records", "events"])
def test_a_log_restored_from_before_the_closing_gets_the_invoice_that_the_other_keeps(side):
    """Whatever version, moment and late usage come since, the one invoice comes again, byte for
    byte, and both logs keep it.
    """
    usage = of_both()
    before = {"records": restored(usage.records), "events": restored(usage.events)}
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end + timedelta(hours=2))
    usage = attrs.evolve(usage, **{side: before[side]})
    assert usage.stored_invoice("sub", JAN) == billed
    assert [log.stored_invoice("sub", JAN) is None for log in logs_of(usage)] == [
        side == "records",
        side == "events",
    ]
    usage.events.append([token("7")], now=JAN.end)
    again = finalized_again(usage)
    assert [written(one) for one in again] == [written(billed)] * 3
    assert [log.stored_invoice("sub", JAN) for log in logs_of(usage)] == [billed] * 2
    assert [one.quantity for one in usage.events.unbilled("sub")] == [7]
    assert {
        closing.closed_at for log in logs_of(usage) for closing in log.state().closed["sub"]
    } == {billed.finalized_at}


@pytest.mark.parametrize("formula", ["sum", "max", "last"])
def test_a_log_of_events_restored_empty_keeps_the_invoice_once_its_usage_is_there(formula):
    """Without its usage it would not bill the invoice; with it, only what is late or canceled is
    carried forward, once.
    """
    meter = attrs.evolve(TOKENS, formula=formula)
    usage = mc.CombinedUsage(mc.UsageLog([BOTH]), mc.MeterLog([meter], [BOTH], policy=CARRIED))
    empty = restored(usage.events)
    sent = [token("5", identifier="a"), token("0", START, identifier="b")]
    usage.events.append(sent, now=START + DAY)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, events=empty)
    assert refusal_of(usage) == (
        "invoice: expected the log of events to bill what the invoice of subscription "
        "'sub' of 2024-01-01T00:00:00Z to "
        "2024-02-01T00:00:00Z says, which it lacks and the other log keeps; received 0 at "
        "price 'p_tokens' of item 'counted', "
        "where the invoice bills 5 at price 'p_tokens'. It seems to have been restored "
        "from before that invoice: send it again "
        "what was lost since and tell it again what was told (the same ids are "
        "duplicates), then finalize that period again; "
        "or restore both logs from the same moment"
    )
    usage.events.append(sent[::-1], now=FEB.start)
    assert written(mc.finalize_invoice(BOTH, usage, JAN, now=FEB.start)) == written(billed)
    assert usage.events.unbilled("sub") == []
    usage.events.cancel("tokens", "a", now=FEB.start)
    late = [
        line
        for line in mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end).lines
        if line.before is not None
    ]
    assert [(line.before.total_usage, line.total_usage) for line in late] == [(5, 0)]
    assert usage.events.unbilled("sub") == []


def test_a_completed_log_explains_its_lines_by_its_own_usage():
    """What was sent again has other numbers; the lines of the invoice are explained by those."""
    usage = of_both()
    empty = mc.CombinedUsage(
        mc.UsageLog([BOTH]), mc.MeterLog([TOKENS], [BOTH], policy=mc.MeterPolicy.history())
    )
    usage.events.append([token("6", FEB.start), token("3")], now=FEB.start)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=FEB.end)
    usage = attrs.evolve(usage, events=empty.events)
    usage.events.append([token("3"), token("5")], now=FEB.start)
    for _ in range(2):
        again = mc.finalize_invoice(BOTH, usage, JAN, now=FEB.end)
        assert again == billed
        assert [[one.sequence for one in mc.explain(line).events] for line in again.lines] == [
            [],
            [],
            [1, 2],
        ]
        usage = mc.CombinedUsage(*map(restored, logs_of(usage)))


def test_what_an_invoice_carried_is_not_carried_again():
    """The events' log, restored from before late usage of an earlier period was billed, needs that
    usage again, once.
    """
    usage = mc.CombinedUsage(mc.UsageLog([BOTH]), mc.MeterLog([TOKENS], [BOTH], policy=CARRIED))
    mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    before = restored(usage.events)
    usage.events.append([token("4")], now=FEB.start)
    billed = mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end)
    assert [line.amount for line in billed.lines if line.before is not None] == [4]
    usage = attrs.evolve(usage, events=before)
    assert "nothing of item 'counted' as late usage, where the invoice bills 4" in refusal_of(
        usage, FEB
    )
    usage.events.append([token("4")], now=FEB.end)
    assert [one.quantity for one in usage.events.unbilled("sub")] == [4]
    assert (
        "lacks and the other log keeps; received its usage to close the later 2024-03"
        in refusal_of(usage, MAR)
    )
    assert mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end) == billed
    assert usage.events.unbilled("sub") == []
    assert [
        line
        for line in mc.finalize_invoice(BOTH, usage, MAR, now=MAR.end).lines
        if line.before is not None
    ] == []


def test_late_usage_that_came_too_early_again_is_canceled_and_sent_anew():
    """Sent again before its period is finalized again, late usage is a part of it; the way out is
    what the guide says.
    """
    usage = mc.CombinedUsage(mc.UsageLog([BOTH]), mc.MeterLog([TOKENS], [BOTH], policy=CARRIED))
    empty, first, late = restored(usage.events), token("5"), token("4", identifier="late")
    usage.events.append([first], now=START + DAY)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, events=empty)
    usage.events.append([late, first], now=FEB.start)
    assert (
        "received 9 at price 'p_tokens' of item 'counted', where the invoice bills 5"
        in refusal_of(usage)
    )
    usage.events.cancel("tokens", "late", now=FEB.start)
    assert mc.finalize_invoice(BOTH, usage, JAN, now=FEB.start) == billed
    usage.events.append([token("4", identifier="anew")], now=FEB.start)
    assert [one.quantity for one in usage.events.unbilled("sub")] == [4]


def test_a_lost_record_is_not_billed_in_the_next_period():
    """Under ``open_period`` the same id counts where it was billed: the period is not completed, so
    not closed, without it.
    """
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=31), late_attribution="open_period")
    usage = attrs.evolve(of_both(), records=mc.UsageLog([BOTH], policy=policy))
    before, lost = restored(usage.records), mc.UsageRecord("si", 21, START + DAY, id="lost")
    usage.records.append([lost], now=START + DAY)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, records=before)
    assert "the log of records" in refusal_of(usage, now=FEB.start)
    usage.records.append([lost], now=FEB.start_seconds + DAY)
    assert mc.finalize_invoice(BOTH, usage, JAN, now=FEB.end) == billed
    assert [line.quantity for line in mc.finalize_invoice(BOTH, usage, FEB, now=FEB.end).lines] == [
        0,
        3,
        0,
    ]


def test_a_log_without_items_of_its_own_keeps_the_invoice_too():
    """Where all items are on meters, the records would bill nothing of the invoice, and nothing
    else.
    """
    only = of(COUNTED)
    usage = mc.CombinedUsage(mc.UsageLog([only]), of_events())
    before = restored(usage.records)
    billed = mc.finalize_invoice(only, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, records=before)
    assert not usage.invoice_changes(billed)
    assert (
        mc.finalize_invoice(only, usage, JAN, now=MAR.end)
        == billed
        == usage.records.stored_invoice("sub", JAN)
    )


def test_records_that_have_more_than_the_invoice_are_refused():
    """No later invoice would bill it: what records have of a period that is open to them, its
    invoice must bill.
    """
    usage = of_both()
    before = restored(usage.records)
    mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, records=before)
    usage.records.record("si", 4, timestamp=JAN.end_seconds - 1, now=JAN.end_seconds - 1)
    assert "received 9 at price 'p_calls' of item 'si', where the invoice bills 5" in refusal_of(
        usage
    )


def test_an_item_that_a_restored_log_was_not_told_is_told_first():
    """Restored from before an item came, the events bill neither version of the invoice; told it
    again, they do.
    """
    usage = of_both()
    other = attrs.evolve(
        COUNTED, id="new", price=attrs.evolve(COUNTED.price, recurring=mc.Recurring(meter="n"))
    )
    newer = of(CALLS, SEAT, COUNTED, other)
    usage.events.create_meter(mc.Meter("n", "new"))
    before = restored(usage.events)
    for log in logs_of(usage):
        log.subscribe(newer, now=START + DAY)
    usage.events.append([token("2", name="new")], now=START + DAY)
    billed = mc.finalize_invoice(newer, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, events=before)
    assert (
        "received nothing of item 'new', where the invoice bills 2 at price 'p_tokens'"
        in refusal_of(usage)
    )
    with pytest.raises(
        mc.InvalidValueError, match=r"as the usage was told \(tell it this version first"
    ) as refusal:
        mc.finalize_invoice(newer, usage, JAN, now=MAR.end)
    assert refusal.value.code == ErrorCode.CHANGE_NOT_BILLABLE
    usage.events.subscribe(newer, now=START + DAY)
    usage.events.append([token("2", name="new")], now=START + DAY)
    assert mc.finalize_invoice(newer, usage, JAN, now=MAR.end) == billed
    usage.events.append([token("3", name="new")], now=MAR.end)
    assert [(one.subscription_item, one.quantity) for one in usage.events.unbilled("sub")] == [
        ("new", 3)
    ]


@pytest.mark.parametrize(
    "newer", [DEARER_BOTH, BOTH.canceled(START + 15 * DAY)], ids=["dearer", "shorter"]
)
def test_another_version_is_not_completed(newer):
    """A log that was told another version while it lacked the invoice bills that one; told the
    former again, it bills it.
    """
    usage = of_both()
    before = restored(usage.events)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    usage = attrs.evolve(usage, events=before)
    for log in logs_of(usage):
        log.subscribe(newer, now=FEB.start, rebill=True)
    assert "It seems to have been restored from before that invoice" in refusal_of(
        usage, newer.period_at(START), newer
    )
    usage.events.subscribe(BOTH, now=FEB.start, rebill=True)
    assert mc.finalize_invoice(BOTH, usage, JAN, now=MAR.end) == billed


def test_formulas_that_do_not_add_up_are_completed_as_of_the_invoice():
    """Of a maximum what the log had when the invoice was made counts as billed; what came since is
    told as unbilled.
    """
    meter = mc.Meter("m", "tokens", formula="max")
    usage = mc.CombinedUsage(
        mc.UsageLog([BOTH]), mc.MeterLog([meter], [BOTH], policy=mc.MeterPolicy.history())
    )
    usage.events.append([token("5")], now=START + DAY)
    before = restored(usage.events)
    billed = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    before.append([token("9")], now=FEB.start)
    usage = attrs.evolve(usage, events=before)
    assert mc.finalize_invoice(BOTH, usage, JAN, now=FEB.start) == billed
    assert [(one.billed, one.measured) for one in before.unbilled("sub")] == [(5, 9)]


CLOSES = {
    "closing_all",
    "keep_invoice",
    "_bills",
    "decide",
    "_finish",
    "keep_bill",
    "_close_all",
    "close",
}
"""What carries out a closing."""


@knows_where_with_exits
@pytest.mark.parametrize(
    "where", [CLOSES, pytest.param(None, marks=pytest.mark.slow)], ids=["closing", "all of it"]
)
def test_an_interrupt_between_two_closings_leaves_one_invoice(where):
    """Finalizing is interrupted at every line: what comes out then is one invoice, in both logs,
    for ever.
    """
    case = Case(
        "finalize", of_both, lambda usage: mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end), None
    )
    billed, halves, recorded = case.act(of_both()), set(), of_both()
    with Recorder() as recorder:
        case.act(recorded)
    for at, (code, _) in enumerate(recorder.places, 1):
        if where is None or code.co_name in where:
            usage, _ = interrupted(case, at)
            kept = [log.stored_invoice("sub", JAN) for log in logs_of(usage)]
            halves.add(tuple(one is not None for one in kept))
            again = finalized_again(usage)
            assert again == [billed if any(kept) else again[0]] * 3, at
            assert [log.stored_invoice("sub", JAN) for log in logs_of(usage)] == again[1:], at
    assert halves == {(False, False), (True, False), (True, True)}  # The records come first.


@knows_where_with_exits
def test_an_interrupted_completion_is_completed():
    """While the second log learns of the invoice, too, an interrupt at any line leaves it without
    or with that invoice.
    """
    billed = mc.finalize_invoice(BOTH, of_both(), JAN, now=JAN.end)

    def half():
        usage = of_both()
        with usage.records.closing("sub", JAN, now=JAN.end):
            usage.records.keep_invoice(billed)
        return usage

    whole = half()
    case = Case(
        "complete", half, lambda usage: mc.finalize_invoice(BOTH, usage, JAN, now=MAR.end), None
    )
    assert case.act(whole) == billed
    places = every_place_of(case)
    for at in random.Random(5).sample(places, 60):  # noqa: S311 - it repeats itself
        usage, _ = interrupted(case, at)
        assert case.act(usage) == billed, at
        assert logs_of(usage) == logs_of(whole), at


def test_different_invoices_of_one_period_are_refused():
    """Two logs that keep different invoices of a period give none, and nothing changes; nor is one
    kept over another.
    """
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
        with pytest.raises(
            mc.InvoicingError, match=r"one invoice of the period of subscription 'sub'"
        ) as refusal:
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
        target=lambda: came.append(
            mc.finalize_invoice(first, usage, JAN, now=JAN.end, rounding=lambda exact: 7)
        )
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
    """Two views combined return what is kept, and close nothing."""
    usage = of_both()
    invoice = mc.finalize_invoice(BOTH, usage, JAN, now=JAN.end)
    views = mc.CombinedUsage(usage.records.as_of(1), usage.events.as_of(1))
    assert mc.finalize_invoice(BOTH, views, JAN, now=JAN.end) == invoice


# What would differ now ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
def test_changes_of_terms_are_told(engine):
    """Another price alters its line alone; names alter none; a dropped item's line would be gone;
    all is as data.
    """
    log = of_records(engine)
    billed = mc.finalize_invoice(of(CALLS, SEAT), log, JAN, now=JAN.end)
    assert log.invoice_changes(billed) == mc.InvoiceChanges(billed.id, ())
    assert not log.invoice_changes(billed)
    log.subscribe(
        of(attrs.evolve(CALLS, price=attrs.evolve(CALLS.price, nickname="Calls")), SEAT),
        now=FEB.start,
    )
    assert not log.invoice_changes(billed)
    log.subscribe(of(DEARER, SEAT), now=FEB.start)
    changes = log.invoice_changes(billed)
    assert [
        (one.subscription_item, [money.minor_units for money in one.amounts])
        for one in changes.lines
    ] == [("si", [3, 45])]
    assert changes.lines[0].billed == billed.lines[0]
    log.subscribe(of(SEAT), now=FEB.start)
    assert [
        (one.subscription_item, one.amounts[1], bool(changes))
        for one in log.invoice_changes(billed).lines
    ] == [("si", None, True)]
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
    """Of an invoice of both generations each log compares its own lines; both know what was
    agreed.
    """
    usage, both = of_both(), of(CALLS, SEAT, COUNTED)
    billed = mc.finalize_invoice(both, usage, JAN, now=JAN.end)
    assert not any(log.invoice_changes(billed) for log in logs_of(usage))
    for log in logs_of(usage):
        log.subscribe(of(DEARER, attrs.evolve(SEAT, quantity=4), COUNTED), now=FEB.start)
    changed = [
        [one.subscription_item for one in log.invoice_changes(billed).lines]
        for log in logs_of(usage)
    ]
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
    """What is no invoice, or one of a subscription that the log does not have, is refused by
    name.
    """
    with pytest.raises(mc.InvalidValueError) as refusal:
        of_records().invoice_changes(invoice)
    assert (refusal.value.code, refusal.value.param) == (code, param)


# As data ------------------------------------------------------------------------------------------


def through_text(invoice, prices=None):
    """Return an invoice after a round trip through the fields of a snapshot and JSON."""
    closing = Closing(invoice.period, invoice.finalized_at, invoice)
    table = PriceTable(is_of_log=True)
    fields = closed_fields({invoice.subscription: [closing]}, table)
    closed, written = json.loads(json.dumps([fields, table.written]))
    read = read_closed(closed, read_prices(written, prices or {}))
    return read[invoice.subscription][0].invoice


@settings(deadline=None, max_examples=15)
@given(
    strategies.subscriptions(ends=True).flatmap(
        lambda drawn: strategies.usage_logs(drawn, closes=False)
    )
)
def test_every_field_survives(log):
    """Whatever is billed comes back field by field, of the same types, so that it is written and
    read as it was.
    """
    (subscription,) = log.subscriptions
    for period in islice(
        subscription.periods_from(max(subscription.start_date, subscription.billing_cycle_anchor)),
        2,
    ):
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
        invoice.lines[0],
        quantity=Decimal("1.50"),
        exact=Fraction(1, 3),
        total_usage=Decimal(5),
        proration=Fraction(1, 2),
    )
    odd = attrs.evolve(invoice, lines=(line,))
    with pytest.raises(mc.errors.SnapshotError) as refusal:
        through_text(odd)
    assert refusal.value.code == ErrorCode.SNAPSHOT_NEEDS_PRICE
    again = through_text(odd, {"own": log.subscriptions[0].items[0].price})
    assert again == odd
    assert isinstance(again.lines[0].exact, Fraction)
    assert isinstance(again.lines[0].total_usage, Decimal)


def test_a_price_is_written_once():
    """However many lines and periods a price was billed in, the snapshot holds it once for all of
    them.
    """
    log = of_records()
    for period in (JAN, FEB, MAR):
        mc.finalize_invoice(of(CALLS, SEAT), log, period, now=period.end)
    content = mc.snapshot(log)["content"]
    assert {name: price["id"] for name, price in content["prices"].items()} == {
        "p_calls": "p_calls",
        "p_seat": "p_seat",
    }
    assert [len(one["invoice"]["lines"]) for one in content["closed"]["sub"]] == [2, 2, 2]
    (subscription,) = content["subscriptions"]
    assert [item["price"] for item in subscription["items"]] == ["p_calls", "p_seat"]


def test_a_thousand_subscriptions_of_one_price_hold_it_once():
    """A price of a hundred tiers is as long as forty subscriptions; it is there once, and is one
    object in the restored log. An older version under the same id is there, too.
    """
    tiers = [mc.Tier(bound, bound) for bound in range(1, 100)] + [mc.Tier("inf", 1)]
    tiered = priced(mc.pricing.Graduated(tiers), id="tiered")
    older = priced(mc.pricing.PerUnit(3), id="tiered")
    sold = [
        mc.Subscription(f"sub_{n}", [mc.SubscriptionItem(f"si_{n}", tiered if n else older)], START)
        for n in range(1000)
    ]
    log = mc.UsageLog(sold)
    text = json.dumps(mc.snapshot(log))
    assert len(text) < 1000 * 400 + 2 * len(json.dumps(tiered.to_dict()))
    restored = mc.restore(json.loads(text))
    assert restored == log
    found = {id(one.items[0].price): one.items[0].price for one in restored.subscriptions}
    assert list(found.values()) == [older, tiered]
