"""Late usage of billed periods: billed as the difference it makes, in the open period, or refused
by name.
"""

from __future__ import annotations

import copy
from datetime import timedelta
from fractions import Fraction
from itertools import product

import attrs
import meter_oracle
import oracle
import planting
import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed
from hypothesis import given, settings
from hypothesis import strategies as st

import metering_core as mc
from metering_core.bulk.lines import invoice_lines
from metering_core.columnar import ColumnarUsage
from metering_core.differences import differences
from metering_core.pricing import is_linear
from metering_core.tariffs.pieces import tariff
from metering_core.testing import strategies

LATE = JAN.end_seconds - 9
GRACE = mc.AcceptancePolicy(late_grace=timedelta(days=40), late_attribution="open_period")
ENGINES = {"log": mc.UsageLog, "columns": ColumnarUsage}
ONE_RATE = [(5, "2", None), (None, "2", "0")]
# One row a pricing model, as the library and as the oracle say it.
TIERS = [(5, "10", None), (12, "2.5", "3"), (None, "0.5", None)]
MODELS = {
    "per_unit": (mc.pricing.PerUnit(3), {"unit": "3"}),
    "graduated": (mc.pricing.Graduated([mc.Tier(*tier) for tier in TIERS]), {"tiers": TIERS}),
    "volume": (mc.pricing.Volume([mc.Tier(*tier) for tier in TIERS]), {"tiers": TIERS}),
    "package": (mc.pricing.Package(7, 10), {"unit": "7", "size": 10, "round": "up"}),
    "percentage": (
        mc.pricing.Percentage(300),
        {"scheme": "per_unit", "unit": "3", "kind": "percent"},
    ),
    "one_rate": (
        mc.pricing.Graduated([mc.Tier(*tier) for tier in ONE_RATE]),
        {"scheme": "graduated", "tiers": ONE_RATE},
    ),
}
# At these, ten units cost ten times what one costs, wherever they are billed.
LINEAR = {"per_unit", "percentage", "one_rate"}


def closed(engine, mode="sum"):
    """Return an engine whose January was billed with one increment of 1,000 at the late second."""
    usage = ENGINES[engine]([subscribed(priced(mode=mode))], policy=GRACE)
    usage.append([mc.UsageRecord("si_0", 1000, LATE)], now=LATE)
    usage.close_period("sub", JAN, now=JAN.end)
    return usage


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("action", mc.Action)
@pytest.mark.parametrize("mode", mc.AggregateUsage)
def test_only_what_adds_is_billed_in_the_open_period(mode, action, engine):
    """A late increment of a sum is the difference it makes; a late ``set``, and anything late of
    the others, is refused.
    """
    usage = closed(engine, mode)
    (receipt,) = usage.append([mc.UsageRecord("si_0", 900, LATE, action)], now=JAN.end_seconds + 5)
    billed = [
        mc.summarize(subscribed(priced(mode=mode)).items[0], usage, one).total_usage
        for one in (JAN, FEB)
    ]
    if (mode, action) == ("sum", "increment"):
        assert (receipt.outcome, billed) == ("accepted", [1000, 900])
    else:
        assert (receipt.code, receipt.sequence) == ("late_usage_not_billable", None)
        # One second holds 1,000: it is counted once, and is every extreme, peak, average and level
        # there is.
        assert billed == [1 if mode == "count" else 1000, 1000 if mode == "last_ever" else 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_late_correction_is_not_billed_a_second_time(engine):
    """October was billed with 1,000; a late ``set`` to 900 is refused and says what to send, and
    November owes nothing.
    """
    usage = closed(engine)
    (receipt,) = usage.append([mc.UsageRecord("si_0", 900, LATE, "set")], now=JAN.end_seconds + 5)
    assert receipt.param == "action"
    assert receipt.message == (
        "Cannot create the usage record because its billing period was finalized at "
        "2024-02-01T00:00:00Z and late usage is "
        "billed as the difference it makes. Expected action 'increment' with what was used "
        "more, received 'set' at "
        f"{LATE} (2024-01-31T23:59:51Z); what was billed too much is given back beside the log."
    )
    assert mc.preview_invoice(subscribed(), usage, now=FEB.start).total == 0


@attrs.frozen
class Own:
    """A model of the user's own: a cent a unit after some free ones; below 0, seven cents where
    nothing is used.
    """

    free: int = 0
    changes: tuple = None

    def charges(self, quantity):
        amount = max(quantity - self.free, 0)
        return (
            [mc.pricing.Charge("unit", quantity, None, amount)]
            if quantity or self.free >= 0
            else [mc.pricing.Charge("flat", 0, 7, 7)]
        )


class Declared(Own):
    """The same, declaring it."""

    def breakpoints(self):
        return self.changes


class Dearer(mc.pricing.PerUnit):
    """A model of the user's own that charges otherwise than the one that it is made from."""

    def charges(self, quantity):
        return mc.pricing.Graduated([mc.Tier(100, 0), mc.Tier("inf", 1)]).charges(quantity)


T = mc.Tier
SHAPES = {
    "a unit price": (mc.pricing.PerUnit("0.4"), True),
    "one tier": (mc.pricing.Volume([T("inf", 3)]), True),
    "tiers of one price": (mc.pricing.Graduated([T(5, 2), T("inf", 2, 0)]), True),
    "nothing": (mc.pricing.Graduated([T(5, 0), T("inf", flat_amount=0)]), True),
    "packages of one": (mc.pricing.Package(7, 1), True),
    "packages for nothing": (mc.pricing.Package(0, 10), True),
    "declared to change nowhere": (Declared(0, ()), True),
    "free units": (mc.pricing.Graduated([T(100, 0), T("inf", 10)]), False),
    "volume tiers": (mc.pricing.Volume([T(100, 10), T("inf", 5)]), False),
    "a flat fee": (mc.pricing.Graduated([T("inf", 2, 1)]), False),
    "a flat fee above": (mc.pricing.Volume([T(5, 2), T("inf", 2, 1)]), False),
    "packages": (mc.pricing.Package(100, 100), False),
    "packages rounded down": (mc.pricing.Package(100, 100, "down"), False),
    "of one's own": (Own(), False),
    "declared to change": (Declared(5, (5,)), False),
    "declared to owe without usage": (Declared(-1, ()), False),
    "made from a unit price": (Dearer(1), False),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("model", "is_billed"), SHAPES.values(), ids=SHAPES)
def test_only_a_price_of_equal_units_bills_what_is_late(model, is_billed, engine):
    """January used up 100 units; ten more come late: billed where any ten cost the same, else
    refused with what to do.
    """
    subscription = subscribed(priced(model))
    usage = ENGINES[engine]([subscription], policy=GRACE)
    usage.append([mc.UsageRecord("si_0", 100, LATE)], now=LATE)
    january = mc.finalize_invoice(subscription, usage, JAN, now=JAN.end).subtotal
    (receipt,) = usage.append([mc.UsageRecord("si_0", 10, LATE)], now=FEB.start)
    february = mc.preview_invoice(subscription, usage, now=FEB.start).subtotal
    if is_billed:
        assert receipt.outcome == "accepted"
        assert january + february == sum(
            mc.money.settle(mc.rate(priced(model), units).amount).minor_units for units in (100, 10)
        )
        assert mc.rate(priced(model), 110).amount.minor_units == sum(
            mc.rate(priced(model), units).amount.minor_units for units in (100, 10)
        )
    else:
        assert (receipt.code, receipt.param) == ("late_usage_not_billable", "timestamp")
        assert february == mc.rate(priced(model), 0).amount.minor_units


def test_what_is_late_in_tiers_says_what_to_do():
    """100 units a month are free and used up; ten more, late, would be free in February, too:
    refused by name.
    """
    subscription = subscribed(priced(SHAPES["free units"][0]))
    log = mc.UsageLog([subscription], policy=GRACE)
    log.close_period("sub", JAN, now=JAN.end)
    (receipt,) = log.append([mc.UsageRecord("si_0", 10, LATE)], now=FEB.start)
    assert receipt.message == (
        "Cannot create the usage record because its billing period was finalized at "
        "2024-02-01T00:00:00Z and not every unit "
        "costs the same at the price 'price', so that the open period would rate it "
        "otherwise. Expected a timestamp in an open "
        "period (finalize once the late grace is over, or bill the item by a meter: "
        "late_usage='carry_forward' bills what is "
        f"late at the price and in the tiers of its own period), received {LATE} "
        f"(2024-01-31T23:59:51Z), in {JAN}."
    )


CHANGED = {
    "a price": (
        priced(mc.pricing.PerUnit(2), id="dear"),
        "was billed at the price 'price', and the open period is at 'dear'",
    ),
    "a currency": (
        priced(currency="eur", id="euro"),
        "was billed at the price 'price', and the open period is at 'euro'",
    ),
    "a name": (priced(id="other", nickname="Units"), None),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("has_invoice", [True, False], ids=["billed", "closed"])
@pytest.mark.parametrize(("newer", "why"), CHANGED.values(), ids=CHANGED)
def test_what_was_billed_otherwise_is_not_billed_at_the_new_price(newer, why, has_invoice, engine):
    """January cost a cent a unit, February two: what is late of January is billed at neither,
    unless nobody billed January.
    """
    first, second = subscribed(), subscribed(newer)
    usage = ENGINES[engine]([first], policy=GRACE)
    if has_invoice:
        mc.finalize_invoice(first, usage, JAN, now=JAN.end)
    else:
        usage.close_period("sub", JAN, now=JAN.end)
    usage.subscribe(second, now=FEB.start)
    (receipt,) = usage.append([mc.UsageRecord("si_0", 10, LATE)], now=FEB.start)
    if why is None or not has_invoice:
        assert receipt.outcome == "accepted"
    else:
        assert (receipt.code, why in str(receipt.message)) == ("late_usage_not_billable", True)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_no_invoice_billed_is_not_billed_late(engine):
    """An item that came after January was billed owes nothing for January, so its late usage has no
    bill to differ from.
    """
    first, both = subscribed(), subscribed(priced(), priced(id="new"))
    usage = ENGINES[engine]([first], policy=GRACE)
    mc.finalize_invoice(first, usage, JAN, now=JAN.end)
    usage.subscribe(both, now=FEB.start)
    receipts = usage.append(
        [mc.UsageRecord(item, 1, LATE) for item in ("si_0", "si_1")], now=FEB.start
    )
    assert [receipt.code for receipt in receipts] == [None, "late_usage_not_billable"]
    assert "its invoice does not bill the item 'si_1'" in str(receipts[1].message)


@given(price=strategies.prices())
def test_equal_units_are_what_the_price_tools_see(price):
    """The predicate and the pieces that prices are audited by are one notion: a line through 0 with
    one rise.
    """
    pieces = tariff(price).pieces
    is_line = all(
        piece.width == 1 and piece.start == pieces[-1].rise * piece.first for piece in pieces
    )
    is_line = is_line and len({piece.rise for piece in pieces if piece.last != piece.first}) == 1
    # Tiers that meet between two whole quantities may make no difference to these.
    tiers = getattr(price.model, "tiers", ())
    if all(tier.up_to is None or tier.up_to == int(tier.up_to) for tier in tiers):
        assert is_linear(price.model) == is_line


def test_a_line_says_what_is_late():
    """What was used in January and is billed in February is told beside the line, with its number
    and period.
    """
    log = closed("log")
    log.append(
        [mc.UsageRecord("si_0", 30, LATE), mc.UsageRecord("si_0", 12, LATE - 1)], now=FEB.start
    )
    log.record("si_0", 5, now=FEB.start)
    (line,) = mc.preview_invoice(subscribed(), log, now=FEB.start).lines
    explanation = mc.explain(line)
    assert (line.total_usage, dict(explanation.carried)) == (47, {JAN: 42})
    assert f"Late: 42 of it came after {JAN}, in which it was used, had been finalized." in str(
        explanation
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_late_level_is_not_accepted_without_effect(engine):
    """``last_ever``: 9 was billed, a late ``set`` to 4 or increment by 2 at that second changes no
    bill, so it is refused.
    """
    usage = ENGINES[engine]([subscribed(priced(mode="last_ever"))], policy=GRACE)
    usage.append([mc.UsageRecord("si_0", 9, LATE, "set")], now=LATE)
    usage.close_period("sub", JAN, now=JAN.end)
    late = [mc.UsageRecord("si_0", 4, LATE, "set"), mc.UsageRecord("si_0", 2, LATE)]
    receipts = usage.append(late, now=FEB.start)
    assert [receipt.code for receipt in receipts] == ["late_usage_not_billable"] * 2
    assert [receipt.param for receipt in receipts] == ["timestamp"] * 2
    assert receipts[1].message == (
        "Cannot create the usage record because its billing period was finalized at "
        "2024-02-01T00:00:00Z and what an item "
        "aggregates by 'last_ever' cannot be billed as the difference it makes later. "
        "Expected a timestamp in an open "
        f"period, or a price that aggregates by 'sum', received {LATE} "
        f"(2024-01-31T23:59:51Z), in {JAN}."
    )
    assert len(usage) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("mode", "code"), [("last_ever", "period_closed"), ("sum", None)])
def test_a_level_before_the_last_closed_period_is_refused(mode, code, engine):
    """January and March are billed, February is open: a level told of February would change
    March's, a sum would not.
    """
    usage = ENGINES[engine]([subscribed(priced(mode=mode))])
    for period in (JAN, MAR):
        usage.close_period("sub", period, now=MAR.end)
    (receipt,) = usage.append(
        [mc.UsageRecord("si_0", 9, FEB.start_seconds)], now=FEB.start_seconds + 1
    )
    assert receipt.code == code


LINE, STRAIGHT = "pricing.is_linear", "pricing.Schedule.is_linear"
DEFECTS = {
    "a late set is billed again": ("acceptance.late_refusal", "elif is_set", "elif False"),
    "every late increment is billed": (
        "acceptance.late_refusal",
        "not AGGREGATORS[mode].splits_cells",
        "False",
    ),
    "nothing late is billed": (
        "acceptance.late_refusal",
        "not AGGREGATORS[mode].splits_cells",
        "True",
    ),
    "late usage is rated in any tiers": (
        "acceptance._rate_fault",
        "not is_linear",
        "False and not is_linear",
    ),
    "another price may rate it": (
        "acceptance._rate_fault",
        "terms_of(billed_by) != terms_of(price)",
        "False",
    ),
    "an item that was not billed is": ("acceptance._rate_fault", "billed_by is None", "False"),
    "a flat fee is no matter": (STRAIGHT, "not any(one.flat_amount for one in self.bands)", "True"),
    "tiers are no matter": (STRAIGHT, "len(rates) == 1", "True"),
    "packages are no matter": (STRAIGHT, "not has_steps", "True"),
    "breakpoints are no matter": (LINE, "not any(True for _ in breakpoints_of(model))", "True"),
    "any model is a line": (
        LINE,
        "isinstance(model, DeclaresBreakpoints) and",
        "True or isinstance(model, Graduated) and",
    ),
    "a fee is no matter": (LINE, "not owes_at_zero(model)", "True"),
    "a kind of a unit price is one": (
        LINE,
        "is_built_in(model)",
        "isinstance(model, BuiltInModel)",
    ),
    "the open price is what billed": ("accounts.Closing.price_of", "self.invoice is None", "True"),
}


@pytest.mark.parametrize(("path", "right", "wrong"), DEFECTS.values(), ids=DEFECTS)
def test_slips_in_the_refusal_die(monkeypatch, path, right, wrong):
    """Each slip in what is refused is seen by the tables above."""
    _check_whole_table()
    planting.plant(monkeypatch, path, right, wrong)
    with pytest.raises((AssertionError, AttributeError)):
        _check_whole_table()


def _check_whole_table():
    for mode, action in product(mc.AggregateUsage, mc.Action):
        test_only_what_adds_is_billed_in_the_open_period(mode, action, "log")
    for model, is_billed in SHAPES.values():
        test_only_a_price_of_equal_units_bills_what_is_late(model, is_billed, "log")
    for newer, why in CHANGED.values():
        test_what_was_billed_otherwise_is_not_billed_at_the_new_price(newer, why, True, "log")
    test_what_no_invoice_billed_is_not_billed_late("log")


# The law ------------------------------------------------------------------------------------------

DAILY = {
    mode: mc.Recurring(interval="day", usage_type="metered", aggregate_usage=mode)
    for mode in mc.AggregateUsage
}
HOUR = 3600
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("use"),
            st.sampled_from([0, 1, 20, 24]),
            st.integers(0, 9),
            st.sampled_from(mc.Action),
        ),
        st.tuples(st.just("wait"), st.sampled_from([1, 20, 24]), st.none(), st.none()),
        st.tuples(st.just("close"), st.none(), st.none(), st.none()),
    ),
    max_size=25,
)


def day(at):
    return mc.BillingPeriod(START + at * DAY, START + (at + 1) * DAY)


class History:
    """An engine that is used late and closed by the day, and what it accepted, in a plain list."""

    def __init__(self, engine, mode, model):
        price = mc.Price("p", "usd", MODELS[model][0], DAILY[mode])
        self.subscription = mc.Subscription("sub", [mc.SubscriptionItem("si", price)], START)
        self.usage = ENGINES[engine]([self.subscription], policy=GRACE)
        self.row = {"id": "si", "mode": mode.value, "scheme": model} | MODELS[model][1]
        self.model = model
        self.now, self.closed, self.accepted = START, 0, []

    def use(self, ago, quantity, action):
        at = max(self.now - ago * HOUR, START)
        (receipt,) = self.usage.append([mc.UsageRecord("si", quantity, at, action)], now=self.now)
        if receipt.outcome is mc.Outcome.ACCEPTED:
            self.accepted.append(("si", at, action.value, quantity))
        else:
            assert receipt.code in {"timestamp_before_current_period", "late_usage_not_billable"}
            is_billable = (
                action is mc.Action.INCREMENT and self.row["mode"] == "sum" and self.model in LINEAR
            )
            assert receipt.code != "late_usage_not_billable" or not is_billable

    def wait(self, hours, *_):
        self.now += hours * HOUR

    def close(self, *_):
        while day(self.closed).end_seconds <= self.now:
            self.usage.close_period("sub", day(self.closed), now=self.now)
            self.closed += 1

    def billed(self):
        """Return each day's quantity and what it costs, as the engine says."""
        invoices = [
            mc.finalize_invoice(self.subscription, self.usage, day(at), now=self.now)
            for at in range(self.closed)
        ]
        return [(one.lines[0].total_usage, [line.amount for line in one.lines]) for one in invoices]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", mc.AggregateUsage)
@settings(max_examples=max(settings().max_examples // 10, 1))
@given(history=steps)
def test_what_was_accepted_is_billed_once(engine, mode, model, history):
    """Of a sum whose units cost the same, all bills are together that of each day's usage; else
    each is that of its own day.
    """
    account = History(engine, mode, model)
    for step, *rest in history:
        getattr(account, step)(*rest)
    account.wait(24)
    account.close()
    billed = account.billed()
    bounds = [(day(at).start_seconds, day(at).end_seconds) for at in range(account.closed)]
    whole = [oracle.quantity(account.row, account.accepted, *one) for one in bounds]
    if mode is mc.AggregateUsage.SUM and model in LINEAR:
        due = sum(sum(oracle.lines(account.row, quantity)) for quantity in whole)
        assert sum(sum(amounts) for _, amounts in billed) == due
    else:
        assert [quantity for quantity, _ in billed] == whole
    for quantity, amounts in billed:
        assert amounts == [
            oracle.whole(Fraction(one)) for one in oracle.lines(account.row, quantity)
        ]


# Meters: the difference in money ------------------------------------------------------------------

CARRYING = mc.MeterPolicy.history(late_usage="carry_forward")


def on_meter(model, *, interval="month"):
    """Return a subscription of one item that a meter measures."""
    price = mc.Price("p", "usd", model, mc.Recurring(interval=interval, meter="m"))
    return mc.Subscription("sub", [mc.SubscriptionItem("si", price)], START, customer="cus_1")


def meter_log(subscription, formula="sum", policy=CARRYING):
    return mc.MeterLog([mc.Meter("m", "calls", formula)], [subscription], policy=policy)


def use(log, value, at, identifier=None):
    log.record(
        "calls",
        {"stripe_customer_id": "cus_1", "value": value},
        identifier=identifier,
        timestamp=at,
        now=at,
    )


G_TIERS = {
    "graduated": [mc.Tier(100, 0), mc.Tier("inf", 10)],
    "volume": [mc.Tier(100, 10), mc.Tier("inf", 5)],
}
G_ROWS = {
    "graduated": (mc.pricing.Graduated(G_TIERS["graduated"]), 500, [(10, 100)]),
    "volume": (mc.pricing.Volume(G_TIERS["volume"]), 750, [(10, 50)]),
    "package": (mc.pricing.Package(100, 100), 200, [(10, 0)]),
    "per_unit": (mc.pricing.PerUnit(3), 450, [(10, 30)]),
}


@pytest.mark.parametrize(("model", "january", "late"), G_ROWS.values(), ids=G_ROWS)
def test_late_usage_is_rated_in_the_tiers_of_its_own_period(model, january, late):
    """150 were billed, ten more come late and the next month is empty: it bills what the first
    would have cost more.
    """
    subscription = on_meter(model)
    log = meter_log(subscription)
    use(log, "150", START)
    assert mc.finalize_invoice(subscription, log, JAN, now=JAN.end).total == january
    use(log, "10", LATE)
    february = mc.finalize_invoice(subscription, log, FEB, now=FEB.end)
    lines = [line for line in february.lines if line.period == JAN]
    assert [(line.quantity, line.amount) for line in lines] == late
    assert [line.quantity for line in february.lines if line.period == FEB] == [0]
    assert lines[0].description.endswith(", late usage of 2024-01-01 to 2024-02-01")
    assert (lines[0].total_usage, lines[0].before.total_usage) == (160, 150)
    assert log.unbilled("sub") == []


def test_a_correction_across_volume_tiers_gives_back():
    """100 at 10 cents were billed; one more, late, puts all in the cheaper tier: the next invoice
    gives USD 4.95 back.
    """
    subscription = on_meter(mc.pricing.Volume(G_TIERS["volume"]))
    log = meter_log(subscription)
    use(log, "100", START)
    assert mc.finalize_invoice(subscription, log, JAN, now=JAN.end).total == 1000
    use(log, "1", LATE)
    invoice = mc.finalize_invoice(subscription, log, FEB, now=FEB.end)
    late = [
        (line.charge.tier, line.quantity, line.exact, line.amount) for line in invoice.lines[1:]
    ]
    assert late == [(1, -100, -1000, -1000), (2, 101, 505, 505)]
    assert (invoice.total, str(invoice.money)) == (-495, "USD -4.95")
    # Nobody owes it twice.
    assert (
        mc.finalize_invoice(
            subscription, log, mc.BillingPeriod(FEB.end, START + 91 * DAY), now=START + 91 * DAY
        ).total
        == 0
    )


def test_a_canceled_event_is_given_back_at_its_own_price():
    """1,000 calls at 2 cents were billed; 100 of them are canceled: the next invoice gives back
    what those cost.
    """
    subscription = on_meter(mc.pricing.PerUnit(2))
    log = meter_log(subscription)
    use(log, "900", START)
    use(log, "100", START, "wrong")
    mc.finalize_invoice(subscription, log, JAN, now=JAN.end)
    log.cancel("calls", "wrong", now=FEB.start)
    use(log, "7", FEB.start)
    lines = mc.finalize_invoice(subscription, log, FEB, now=FEB.end).lines
    assert [(line.quantity, line.amount) for line in lines] == [(7, 14), (-100, -200)]


def test_the_price_of_then_rates_the_difference():
    """A price that changed since rates the months from then on: what is late of January costs what
    January cost.
    """
    dear, cheap = on_meter(mc.pricing.PerUnit(10)), on_meter(mc.pricing.PerUnit(1))
    log = meter_log(dear)
    use(log, "5", START)
    mc.finalize_invoice(dear, log, JAN, now=JAN.end)
    log.subscribe(cheap)
    use(log, "2", LATE)
    use(log, "3", FEB.start)
    lines = mc.finalize_invoice(cheap, log, FEB, now=FEB.end).lines
    assert [(line.quantity, line.amount) for line in lines] == [(3, 3), (2, 20)]


def test_what_another_currency_was_billed_in_stays_unbilled():
    """A difference in dollars is no line of an invoice in euros: it stays unbilled, and is told."""
    dollars = on_meter(mc.pricing.PerUnit(10))
    price = mc.Price("p", "eur", mc.pricing.PerUnit(10), mc.Recurring(meter="m"))
    euros = mc.Subscription("sub", [mc.SubscriptionItem("si", price)], START, customer="cus_1")
    log = meter_log(dollars)
    mc.finalize_invoice(dollars, log, JAN, now=JAN.end)
    use(log, "2", LATE)
    log.subscribe(euros)
    assert mc.finalize_invoice(euros, log, FEB, now=FEB.end).total == 0
    assert [(one.period, one.quantity) for one in log.unbilled("sub")] == [(JAN, 2)]


def test_differences_telescope_however_they_round():
    """A third of a cent each, one a day late: the lines are 0 or 1 cent, and all bills of January
    are what it comes to.
    """
    subscription = on_meter(mc.pricing.PerUnit("0.4"), interval="day")
    log = meter_log(subscription)
    use(log, "1", START)
    amounts = [mc.finalize_invoice(subscription, log, day(0), now=day(0).end).total]
    for at in range(1, 6):
        use(log, "1", START)
        amounts.append(mc.finalize_invoice(subscription, log, day(at), now=day(at).end).total)
    assert (amounts, sum(amounts)) == ([0, 1, 0, 1, 0, 0], 2)  # 6 × 0.4 is 2.4.


def test_a_closing_that_is_cut_short_closes_nothing():
    """What raises while a period is billed leaves the log as it was: the difference is owed still,
    once.
    """
    subscription = on_meter(mc.pricing.PerUnit(3))
    log = meter_log(subscription)
    mc.finalize_invoice(subscription, log, JAN, now=JAN.end)
    use(log, "2", LATE)
    before = mc.snapshot(log)

    def interrupted(value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mc.finalize_invoice(subscription, log, FEB, now=FEB.end, rounding=interrupted)
    assert mc.snapshot(log) == before
    assert mc.finalize_invoice(subscription, log, FEB, now=FEB.end).total == 6


def test_a_late_line_explains_itself():
    """The explanation names the events of its period, what was billed of it before, and how the
    difference is settled.
    """
    subscription = on_meter(mc.pricing.PerUnit("0.4"))
    log = meter_log(subscription)
    use(log, "1", START)
    mc.finalize_invoice(subscription, log, JAN, now=JAN.end)
    use(log, "2", LATE)
    invoice = mc.finalize_invoice(subscription, log, FEB, now=FEB.end)
    use(log, "50", LATE)
    own, late = invoice.lines
    for line in (late, mc.finalize_invoice(subscription, log, FEB, now=FEB.end).lines[1]):
        assert [one.event.payload["value"] for one in mc.explain(line).events] == ["1", "2"]
        assert str(mc.explain(line)) == str(mc.explain(copy.deepcopy(line), usage=log))
    text = str(mc.explain(late))
    assert f"in {JAN} is 3 now; 1 of it were billed before." in text
    assert (
        "Difference: in all it comes to USD 0.01 now, settled half up; USD 0.00 of it were "
        "billed before: USD 0.01." in text
    )
    assert mc.explain(own).events == ()


def test_late_usage_of_both_kinds_at_once():
    """Usage of both generations in one subscription, billed one by one or all at once, carries what
    is late of the meter.
    """
    price = mc.Price(
        "r", "usd", mc.pricing.PerUnit(1), mc.Recurring(usage_type="metered", aggregate_usage="sum")
    )
    both = mc.Subscription(
        "sub",
        [*on_meter(mc.pricing.PerUnit(3)).items, mc.SubscriptionItem("old", price)],
        START,
        customer="cus_1",
    )
    bills = []
    for bill in (
        mc.finalize_invoice,
        lambda one, usage, period, now: mc.invoice_all([one], usage, period.start, now=now)[0],
    ):
        usage = mc.CombinedUsage(mc.UsageLog([both]), meter_log(both))
        use(usage.events, "1", START)
        bill(both, usage, JAN, now=JAN.end)
        use(usage.events, "2", LATE)
        bills.append(bill(both, usage, FEB, now=FEB.end).to_dict())
        assert usage.events.unbilled("sub") == []
    assert bills[0] == bills[1]
    assert [line["amount"] for line in bills[0]["lines"]] == [0, 6, 0]


@pytest.mark.parametrize("model", [row[0] for row in G_ROWS.values()], ids=G_ROWS)
def test_lines_in_columns_have_what_is_late(model):
    """The lines as columns are those of the previews, late usage of an earlier month in its place,
    and plain beside it.
    """
    late, plain = on_meter(model), on_meter(model)
    plain = attrs.evolve(
        plain,
        id="other",
        items=[mc.SubscriptionItem("other", plain.items[0].price)],
        customer="cus_2",
    )
    log = mc.MeterLog([mc.Meter("m", "calls")], [late, plain], policy=CARRYING)
    use(log, "100", START)
    for one in (late, plain):
        mc.finalize_invoice(one, log, JAN, now=JAN.end)
    assert len(invoice_lines([plain, late], log, FEB.start).items) == 2
    use(log, "21", LATE)
    use(log, "5", FEB.start)
    found = invoice_lines([plain, late, plain], log, FEB.start)
    rows, _, _, quantities, amounts = (
        column.tolist() for column in attrs.astuple(found.lines, recurse=False)
    )
    columns = [
        (found.items[row][0].id, found.items[row][1], *rest)
        for row, *rest in zip(rows, quantities, amounts, strict=True)
    ]
    invoices = mc.invoice_all([plain, late, plain], log, FEB.start)
    lines = [line for invoice in invoices for line in invoice.lines]
    assert columns == [
        (line.subscription_item, line.period, line.quantity, line.amount) for line in lines
    ]
    totals = [found.total_usage[row] for row in rows]
    assert totals == [line.total_usage for line in lines]


def test_what_was_rounded_is_given_back_as_it_was():
    """0.4 cents were rounded up to 1; 0.4 more, late and half up, make 0.8: nothing is due, because
    1 was charged.
    """
    subscription = on_meter(mc.pricing.PerUnit("0.4"))
    log = meter_log(subscription)
    use(log, "1", START)
    assert mc.finalize_invoice(subscription, log, JAN, now=JAN.end, rounding=mc.money.up).total == 1
    use(log, "1", LATE)
    for usage in (log, mc.restore_meter_log(mc.snapshot(log))):
        assert mc.finalize_invoice(subscription, usage, FEB, now=FEB.end).total == 0
        assert usage.unbilled("sub") == []


class Wordy:
    """A model of the user's own: what a number of units costs depends on how many there are, in
    words that say so.
    """

    def charges(self, quantity):
        half = (
            mc.pricing.Charge("unit", quantity, 1, quantity, label="first"),
            mc.pricing.Charge("unit", 0, 2, quantity, label="first"),
        )
        return (*half, mc.pricing.Charge("flat", 0, None, 5, label=f"for {quantity}"))


def test_models_of_the_users_own_are_corrected():
    """Two charges of one part are one difference; a part that the new quantity no longer has is
    given back.
    """
    subscription = on_meter(Wordy())
    log = meter_log(subscription)
    use(log, "10", START)
    assert mc.finalize_invoice(subscription, log, JAN, now=JAN.end).total == 25
    use(log, "2", LATE)
    late = [
        line
        for line in mc.finalize_invoice(subscription, log, FEB, now=FEB.end).lines
        if line.before is not None
    ]
    assert [
        (line.charge.label, line.quantity, line.charge.unit_amount, line.amount) for line in late
    ] == [
        ("for 10", 0, None, -5),
        ("first", 2, None, 4),
        ("for 12", 0, None, 5),
    ]


def test_what_a_model_no_longer_charges_is_given_back():
    """A model that charges otherwise than it did: what was charged under words it no longer uses is
    given back, whole.
    """
    wordy = Wordy()
    subscription = on_meter(wordy)
    log = meter_log(subscription)
    mc.finalize_invoice(subscription, log, JAN, now=JAN.end)
    use(log, "2", LATE)
    period, bill = log.book.bills_of("si")[0]
    correction = attrs.evolve(
        log.corrections(subscription.items[0], FEB)[0], settled={("flat", None, "as it was"): 7}
    )
    assert [(one.charge.label, one.amount) for one in differences(correction)] == [
        ("for 0", 0),
        ("as it was", -7),
        ("first", 4),
        ("for 2", 5),
    ]
    assert (period, bill.settled[JAN]) == (
        JAN,
        {("unit", None, "first"): 0, ("flat", None, "for 0"): 5},
    )


SLIPS = [
    ("what was charged is not subtracted", "differences.differences", "before.get(part, 0)", "0"),
    (
        "what was charged is rated anew",
        "differences.differences",
        "if correction.settled is None else",
        "if True else",
    ),
    (
        "parts that are gone are forgotten",
        "differences.differences",
        "if one not in latter), *latter",
        "if False), *latter",
    ),
    (
        "the price of now rates the past",
        "meter_views.MeterReader._correction",
        "if bill.price is None else bill.price",
        "if True else bill.price",
    ),
    ("nothing was charged", "meter_log.MeterLog._bill_to_keep", "settled=settled", "settled={}"),
    ("nothing was carried", "meter_log.MeterLog._bill_to_keep", "carried=carried", "carried={}"),
    (
        "any currency will do",
        "meter_views.MeterReader._corrected_now",
        "one.price.currency == item.price.currency",
        "True",
    ),
    (
        "a later bill is known when one is made again",
        "meter_views.MeterReader._corrected_by",
        "before=min(same)",
        "before=None",
    ),
    (
        "later periods are corrected",
        "meter_views.MeterReader._corrected_now",
        "if one.period.end <= period.start",
        "if True",
    ),
    (
        "what was charged is forgotten",
        "meter_log.MeterLog._bills",
        "billing.settled",
        "{}",
    ),
]


@pytest.mark.parametrize(
    ("path", "right", "wrong"), [row[1:] for row in SLIPS], ids=[row[0] for row in SLIPS]
)
def test_slips_in_the_difference_die(monkeypatch, path, right, wrong):
    """Each slip in how a difference is found and remembered is seen by the worked rows above, or by
    a history of them.
    """
    planting.plant(monkeypatch, path, right, wrong)
    with pytest.raises(AssertionError):
        _check_worked_rows()


def _check_worked_rows():
    for row in G_ROWS.values():
        test_late_usage_is_rated_in_the_tiers_of_its_own_period(*row)
    test_a_correction_across_volume_tiers_gives_back()
    test_the_price_of_then_rates_the_difference()
    test_what_was_rounded_is_given_back_as_it_was()
    test_what_another_currency_was_billed_in_stays_unbilled()
    test_differences_telescope_however_they_round()
    account = Account("carry_forward", "sum", "graduated")
    for act, *rest in WORKED:
        getattr(account, act)(*rest)
    account.check()


WORKED = [
    ("use", 1, "7"),
    ("close", 1, True),
    ("use", 1, "4"),
    ("close", 0, True),
    ("close", 2, True),
    ("use", 1, "1"),
]
WORKED += [("cancel", 0, None), ("close", 3, True), ("use", 0, "2")]


# The law, of meters -------------------------------------------------------------------------------

acts = st.lists(
    st.one_of(
        st.tuples(
            st.just("use"), st.integers(0, 3), st.sampled_from(["0", "1", "4", "7", "13", "-3"])
        ),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.none()),
        st.tuples(st.just("close"), st.integers(0, 3), st.booleans()),
    ),
    max_size=25,
)


class Account:
    """A meter log that is used, corrected and closed by the day; what it must bill is kept apart,
    as the oracles say.
    """

    def __init__(self, policy, formula, model):
        self.subscription = on_meter(MODELS[model][0], interval="day")
        self.log = meter_log(self.subscription, formula, mc.MeterPolicy.history(late_usage=policy))
        self.is_carrying, self.formula = policy == "carry_forward", formula
        self.row = {"scheme": model} | MODELS[model][1]
        self.sent, self.invoices = [], {}
        self.counted = {}  # day → the quantity that was billed of it so far
        self.charged = {}  # day → part → minor units

    def use(self, at, value):
        moment = START + at * DAY + HOUR * (len(self.sent) % 24)
        use(self.log, value, moment, str(len(self.sent)))
        self.sent.append(meter_oracle.Seen(self.log.sequence, moment * 10**6, "cus_1", (), value))

    def cancel(self, at, _):
        if at < len(self.sent) and self.sent[at] is not None:
            self.log.cancel("calls", str(at), now=START)
            self.sent[at] = None

    def measured(self, at):
        events = [one for one in self.sent if one is not None]
        return meter_oracle.measured(
            self.formula,
            events,
            *(one * 10**6 for one in (START + at * DAY, START + (at + 1) * DAY)),
        )

    def close(self, at, has_invoice):
        if at in self.counted:
            return
        preview = mc.preview_invoice(self.subscription, self.log, now=day(at).start)
        if has_invoice:
            invoice = mc.finalize_invoice(self.subscription, self.log, day(at), now=START + 9 * DAY)
            assert invoice.lines == preview.lines
        else:
            self.log.close_period("sub", day(at), now=START + 9 * DAY)
        self.invoices[at] = [line.to_dict() for line in preview.lines]
        assert amounts_of(preview.lines) == self.due(at)

    def due(self, at):
        """Return what the invoice of a day charges, (day, tier's place, kind) → minor units, and
        count it as charged.
        """
        due = {}
        for one in [at, *(other for other in self.counted if other < at and self.is_carrying)]:
            quantity, former = max(self.measured(one), Fraction(0)), self.charged.get(one, {})
            if one != at and quantity == self.counted[one]:
                continue
            latter = oracle.parts(self.row, quantity)
            due |= {
                (one, *part): latter.get(part, 0) - former.get(part, 0)
                for part in {**former, **latter}
            }
            self.counted[one], self.charged[one] = quantity, latter
        return {key: amount for key, amount in due.items() if amount}

    def check(self):
        """All bills of a day are what it came to when it was billed last; the rest is unbilled, by
        name and to the digit.
        """
        owed = {
            at: self.measured(at) - counted
            for at, counted in self.counted.items()
            if self.measured(at) != counted
        }
        assert {(one.period, Fraction(one.quantity)) for one in self.log.unbilled("sub")} == {
            (day(at), quantity) for at, quantity in owed.items()
        }
        for usage in (
            self.log,
            self.log.as_of(self.log.sequence),
            mc.restore_meter_log(mc.snapshot(self.log)),
        ):
            for at, lines in self.invoices.items():
                kept = mc.finalize_invoice(self.subscription, usage, day(at), now=START + 9 * DAY)
                anew = mc.preview_invoice(self.subscription, usage, now=day(at).start)
                assert [[line.to_dict() for line in again.lines] for again in (kept, anew)] == [
                    lines
                ] * 2


def amounts_of(lines):
    keys = [
        (
            (line.period.start_seconds - START) // DAY,
            line.charge.tier and line.charge.tier - 1,
            line.charge.kind,
        )
        for line in lines
    ]
    return {key: line.amount for key, line in zip(keys, lines, strict=True) if line.amount}


def tell(policy, formula, model, history):
    """Go through a history, and close all days after it."""
    account = Account(policy, formula, model)
    for act, *rest in history:
        getattr(account, act)(*rest)
    account.check()
    for at in range(5):
        account.close(at, has_invoice=True)
    account.check()
    if policy == "carry_forward":
        # The last day was closed after all that came, so nothing is unbilled but what is below 0.
        assert all(max(account.measured(at), 0) == account.counted[at] for at in range(4))


LATE_POLICIES = [policy.value for policy in mc.meter_acceptance.LateUsage]
FORMULAS = [formula.value for formula in mc.Formula]


@pytest.mark.parametrize("formula", FORMULAS)
@settings(max_examples=max(settings().max_examples // 12, 1))
@given(policy=st.sampled_from(LATE_POLICIES), model=st.sampled_from(sorted(MODELS)), history=acts)
def test_late_usage_of_meters_is_billed_where_it_belongs(formula, policy, model, history):
    """Whatever comes late or is canceled, in whatever order days close: all bills of a day are the
    bill of all its usage.
    """
    tell(policy, formula, model, history)


@pytest.mark.slow
@pytest.mark.parametrize("policy", LATE_POLICIES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("formula", FORMULAS)
@settings(max_examples=max(settings().max_examples // 10, 1))
@given(history=acts)
def test_every_pair_of_formula_and_model_bills_what_is_late(formula, model, policy, history):
    """The same for each formula with each pricing model under each policy, a row of the tables at a
    time.
    """
    tell(policy, formula, model, history)
