"""A billing run gives each subscription the invoice that it would get by itself."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
from builders import DAY, FEB, JAN, MAR, START, four_modes, priced, subscribed

import metering_core as mc
from metering_core.accounts import Account
from metering_core.billing_run import invoice_all


def run_of(number, kind=mc.UsageLog):
    """Return subscriptions with a metered and a licensed item each, and their usage in January and
    February.
    """
    prices = priced(mc.pricing.PerUnit("0.5")), priced(mode=None, id="seat")
    made = [
        mc.Subscription(
            f"sub_{at}",
            [
                mc.SubscriptionItem(f"si_{at}", prices[0]),
                mc.SubscriptionItem(f"seat_{at}", prices[1]),
            ],
            START,
        )
        for at in range(number)
    ]
    usage = kind(made)
    for month in (JAN, FEB):
        stamp = month.start_seconds + DAY
        usage.append(
            [mc.UsageRecord(f"si_{at}", at + 1, timestamp=stamp) for at in range(number)], now=stamp
        )
    return made, usage


def kinds():
    """Return the engines that are installed."""
    try:
        from metering_core.columnar import ColumnarUsage  # noqa: PLC0415 - an extra
    except mc.errors.MissingExtraError:
        return [mc.UsageLog]
    return [mc.UsageLog, ColumnarUsage]


@pytest.mark.parametrize("kind", kinds())
def test_previews_are_those_of_each_subscription(kind):
    """Without a moment of closing the run gives the previews, in the order given."""
    made, usage = run_of(80, kind)
    expected = [mc.preview_invoice(one, usage, now=FEB.start) for one in made]
    assert invoice_all(made, usage, FEB.start) == expected
    assert invoice_all(made, usage.as_of(usage.sequence), FEB.start) == expected


@pytest.mark.parametrize("kind", kinds())
def test_finalized_invoices_close_their_periods(kind):
    """With a moment of closing the invoices are final, and a second run gives them again although
    more came.
    """
    made, usage = run_of(80, kind)
    _, other = run_of(80)
    expected = [mc.finalize_invoice(one, other, JAN, now=FEB.start) for one in made]
    final = invoice_all(made, usage, START, now=FEB.start)
    assert final == expected
    assert [
        one.code
        for one in usage.append([mc.UsageRecord("si_3", 1, timestamp=START)], now=FEB.start)
    ] == ["timestamp_before_current_period"]
    assert invoice_all(made, usage, START, now=MAR.start) == final
    assert str(mc.explain(final[3].lines[0])) == str(mc.explain(expected[3].lines[0]))


def test_all_or_none_are_closed():
    """Where one subscription's period has not ended, none is closed."""
    made, usage = run_of(2)
    yearly = mc.Subscription(
        "year",
        [
            mc.SubscriptionItem(
                "si_year", priced(recurring=mc.Recurring(interval="year"), mode="sum")
            )
        ],
        START,
    )
    usage.subscribe(yearly)
    with pytest.raises(mc.InvoicingError) as caught:
        invoice_all([*made, yearly], usage, START, now=FEB.start)
    assert caught.value.code == "period_not_ended"
    summaries = usage.summaries("si_0", now=FEB.start)
    assert [summary.invoice for summary in summaries] == [None, None]


def metered_run(number):
    """Return subscriptions with an item on a meter each, and their events in January."""
    price = mc.Price.per_unit("p", currency="usd", unit_amount=2, recurring=mc.Recurring(meter="m"))
    made = [
        mc.Subscription(
            f"sub_{at}", [mc.SubscriptionItem(f"si_{at}", price)], START, customer=f"c{at}"
        )
        for at in range(number)
    ]
    usage = mc.MeterLog([mc.Meter("m", "sent")], made, policy=mc.MeterPolicy.history())
    usage.append(
        [
            mc.MeterEvent(
                "sent", {"stripe_customer_id": f"c{at}", "value": f"{at}"}, timestamp=START
            )
            for at in range(number)
        ],
        now=START,
    )
    return made, usage


RUNS = {kind.__name__: partial(run_of, kind=kind) for kind in kinds()} | {"MeterLog": metered_run}


@pytest.mark.parametrize("made", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("closed", range(5))
def test_an_interrupted_run_closed_all_or_none(made, closed, monkeypatch):
    """Interrupted after no matter how many of its closings, a run has closed all of them, and again
    it gives the same.
    """
    subscriptions, usage = made(5)
    closings, close = [], Account.close

    def interrupted(account, closing):
        if len(closings) == closed:
            closings.append(None)
            raise KeyboardInterrupt
        closings.append(account)
        close(account, closing)

    monkeypatch.setattr(Account, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        invoice_all(subscriptions, usage, START, now=FEB.start)
    stored = [usage.stored_invoice(one.id, JAN) for one in subscriptions]
    assert None not in stored
    _, other = made(5)
    assert (
        stored
        == invoice_all(subscriptions, usage, START, now=MAR.start)
        == invoice_all(subscriptions, other, START, now=FEB.start)
    )
    if isinstance(usage, mc.MeterLog):
        assert usage.state().bills == other.state().bills


@pytest.mark.parametrize("made", RUNS.values(), ids=RUNS)
def test_a_run_that_fails_closes_none(made):
    """Where the invoice of one subscription cannot be made or kept, no period is closed."""
    subscriptions, usage = made(3)
    before, settled = [usage.stored_invoice(one.id, JAN) for one in subscriptions], []

    def failing(exact):
        settled.append(exact)
        if len(settled) == 3:
            raise ZeroDivisionError
        return mc.money.half_up(exact)

    with pytest.raises(ZeroDivisionError):
        invoice_all(subscriptions, usage, START, now=FEB.start, rounding=failing)
    assert before == [usage.stored_invoice(one.id, JAN) for one in subscriptions] == [None] * 3
    with pytest.raises(mc.InvalidValueError) as refusal:
        invoice_all([*subscriptions, subscribed(id="unknown")], usage, START, now=FEB.start)
    assert refusal.value.param in {"subscription", "items"}
    assert [usage.stored_invoice(one.id, JAN) for one in subscriptions] == [None] * 3


def test_an_interrupted_run_of_both_logs_is_completed(monkeypatch):
    """Between the two logs an interrupt leaves the records closed and the events open; a second run
    closes those alike.
    """
    subscriptions, events = metered_run(4)
    usage = mc.CombinedUsage(mc.UsageLog(subscriptions), events)
    _, other = metered_run(4)
    expected = invoice_all(
        subscriptions, mc.CombinedUsage(mc.UsageLog(subscriptions), other), START, now=FEB.start
    )
    with monkeypatch.context() as patched:
        patched.setattr(mc.MeterLog, "_bills", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            invoice_all(subscriptions, usage, START, now=FEB.start)
    assert [usage.records.stored_invoice(one.id, JAN) for one in subscriptions] == expected
    assert [events.stored_invoice(one.id, JAN) for one in subscriptions] == [None] * 4
    events.append(
        [mc.MeterEvent("sent", {"stripe_customer_id": "c1", "value": "9"}, timestamp=START)],
        now=FEB.start,
    )
    assert invoice_all(subscriptions, usage, START, now=MAR.start) == expected
    assert [events.stored_invoice(one.id, JAN) for one in subscriptions] == expected
    assert [delta.quantity for one in subscriptions for delta in events.unbilled(one.id)] == [9]


@pytest.mark.parametrize(
    "periods", [None, 5, [("sub_0", JAN)], {"sub_0": 5}, {5: JAN}, {"nobody": JAN}], ids=str
)
@pytest.mark.parametrize(
    "made",
    [
        *RUNS.values(),
        lambda number: (
            None,
            mc.CombinedUsage(*(made(number)[1] for made in (run_of, metered_run))),
        ),
    ],
)
def test_periods_to_close_are_judged_before_any_is_closed(made, periods):
    """What is not a mapping of subscriptions to their periods closes nothing."""
    _, usage = made(1)
    with pytest.raises(mc.InvalidValueError) as refusal, usage.closing_all(periods, now=FEB.start):
        pass
    assert refusal.value.param in {"periods", "period", "subscription"}
    with usage.closing_all({}, now=FEB.start) as closed_at:
        assert closed_at == {}


def test_a_subscription_without_a_period_has_no_invoice():
    """Who is not alive at the instant is not billed, and who comes twice is refused."""
    ended = four_modes().canceled(START + DAY)
    usage = mc.UsageLog([ended, subscribed(id="other")])
    assert [one.subscription for one in invoice_all(usage.subscriptions, usage, START + DAY)] == [
        "other"
    ]
    with pytest.raises(mc.InvoicingError, match="expected each subscription once"):
        invoice_all([subscribed(id="other")] * 2, usage, START, now=FEB.start)


class Totals:
    """An engine that answers and does nothing else: it keeps no records and closes no period."""

    def __init__(self, usage):
        self.partial, self.partials = usage.partial, usage.partials


def test_an_engine_that_only_answers_is_billed_too():
    """Usage that cannot be closed, or that keeps no records, gives the same invoices; their lines
    just have no records.
    """
    made, usage = run_of(3)
    _, other = run_of(3)
    expected = [mc.finalize_invoice(one, other, JAN, now=FEB.start) for one in made]
    for engine in (Totals(usage), usage.as_of(usage.sequence)):
        assert invoice_all(made, engine, START, now=FEB.start) == expected
    assert invoice_all(made, Totals(usage), START)[0].lines[0].usage is None
    assert usage.summaries("si_0", now=FEB.start)[-1].invoice is None


def test_meters_and_records_are_billed_together():
    """A run over both generations makes the invoices that each subscription gets alone, and they
    can be explained.
    """
    metered = mc.Recurring(meter="m")
    gigabytes = mc.SubscriptionItem(
        "gb", mc.Price.per_unit("gb", currency="usd", unit_amount=9, recurring=metered)
    )
    calls = mc.SubscriptionItem("calls", mc.Price.per_unit("calls", currency="usd", unit_amount=2))
    subscriptions = [
        mc.Subscription("one", [gigabytes, calls], START, customer="cus_1"),
        mc.Subscription("two", [attrs.evolve(calls, id="other")], START),
    ]
    records, events = (
        mc.UsageLog(subscriptions),
        mc.MeterLog([mc.Meter("m", "sent")], subscriptions),
    )
    records.record("calls", 7, timestamp=START, now=START)
    records.record("other", 5, timestamp=START, now=START)
    events.record(
        "sent", {"stripe_customer_id": "cus_1", "value": "1.5"}, timestamp=START, now=START
    )
    both = mc.CombinedUsage(records, events)
    drafts = mc.invoice_all(subscriptions, both, START)
    assert drafts == [mc.preview_invoice(one, both, now=START) for one in subscriptions]
    assert [[line.amount for line in draft.lines] for draft in drafts] == [[14, 14], [10]]
    assert "Events: 1 count" in str(mc.explain(drafts[0].lines[0]))
    assert "Records: 1 of item" in str(mc.explain(drafts[0].lines[1]))
    (first, _) = mc.invoice_all(subscriptions, both, START, now=drafts[0].period.end)
    events.record(
        "sent",
        {"stripe_customer_id": "cus_1", "value": "1"},
        timestamp=START,
        now=drafts[0].period.end,
    )
    assert mc.finalize_invoice(subscriptions[0], both, first.period, now=first.period.end) == first
