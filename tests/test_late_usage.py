"""Late usage of billed periods: billed as the difference it makes, in the open period, or refused by name."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from itertools import product

import oracle
import planting
import pytest
from builders import DAY, FEB, JAN, START, priced, subscribed
from hypothesis import given, settings
from hypothesis import strategies as st

import metering_core as mc
from metering_core.columnar import ColumnarUsage

LATE = JAN.end_seconds - 9
GRACE = mc.AcceptancePolicy(late_grace=timedelta(days=40), late_attribution="open_period")
ENGINES = {"log": mc.UsageLog, "columns": ColumnarUsage}
# One row a pricing model, as the library and as the oracle say it.
TIERS = [(5, "10", None), (12, "2.5", "3"), (None, "0.5", None)]
MODELS = {
    "per_unit": (mc.PerUnit(3), {"unit": "3"}),
    "graduated": (mc.Graduated([mc.Tier(*tier) for tier in TIERS]), {"tiers": TIERS}),
    "volume": (mc.Volume([mc.Tier(*tier) for tier in TIERS]), {"tiers": TIERS}),
    "package": (mc.Package(7, 10), {"unit": "7", "size": 10, "round": "up"}),
}


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
    """A late increment of a sum is the difference it makes; a late ``set``, and anything late of the others, is refused."""
    usage = closed(engine, mode)
    (receipt,) = usage.append([mc.UsageRecord("si_0", 900, LATE, action)], now=JAN.end_seconds + 5)
    billed = [mc.summarize(subscribed(priced(mode=mode)).items[0], usage, one).total_usage for one in (JAN, FEB)]
    if (mode, action) == ("sum", "increment"):
        assert (receipt.outcome, billed) == ("accepted", [1000, 900])
    else:
        assert (receipt.code, receipt.sequence) == ("late_usage_not_billable", None)
        assert billed == [1000, 1000 if mode == "last_ever" else 0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_late_correction_is_not_billed_a_second_time(engine):
    """October was billed with 1,000; a late ``set`` to 900 is refused and says what to send, and November owes nothing."""
    usage = closed(engine)
    (receipt,) = usage.append([mc.UsageRecord("si_0", 900, LATE, "set")], now=JAN.end_seconds + 5)
    assert receipt.param == "action"
    assert receipt.message == (
        "Cannot create the usage record because its billing period was finalized at 2024-02-01T00:00:00Z and late usage is "
        "billed as the difference it makes. Expected action 'increment' with what was used more, received 'set' at "
        f"{LATE} (2024-01-31T23:59:51Z); what was billed too much is given back beside the log."
    )
    assert mc.preview_invoice(subscribed(), usage, now=FEB.start).total == 0


def test_a_line_says_what_is_late():
    """What was used in January and is billed in February's tiers is told beside the line, with its number and period."""
    log = closed("log")
    log.append([mc.UsageRecord("si_0", 30, LATE), mc.UsageRecord("si_0", 12, LATE - 1)], now=FEB.start)
    log.record("si_0", 5, now=FEB.start)
    (line,) = mc.preview_invoice(subscribed(), log, now=FEB.start).lines
    explanation = mc.explain(line)
    assert (line.total_usage, dict(explanation.carried)) == (47, {JAN: 42})
    assert f"Late: 42 of it came after {JAN}, in which it was used, had been finalized." in str(explanation)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_late_level_is_not_accepted_without_effect(engine):
    """``last_ever``: 9 was billed, a late ``set`` to 4 or increment by 2 at that second changes no bill, so it is refused."""
    usage = ENGINES[engine]([subscribed(priced(mode="last_ever"))], policy=GRACE)
    usage.append([mc.UsageRecord("si_0", 9, LATE, "set")], now=LATE)
    usage.close_period("sub", JAN, now=JAN.end)
    late = [mc.UsageRecord("si_0", 4, LATE, "set"), mc.UsageRecord("si_0", 2, LATE)]
    receipts = usage.append(late, now=FEB.start)
    assert [receipt.code for receipt in receipts] == ["late_usage_not_billable"] * 2
    assert [receipt.param for receipt in receipts] == ["timestamp"] * 2
    assert receipts[1].message == (
        "Cannot create the usage record because its billing period was finalized at 2024-02-01T00:00:00Z and what an item "
        "aggregates by 'last_ever' cannot be billed as the difference it makes later. Expected a timestamp in an open "
        f"period, or a price that aggregates by 'sum', received {LATE} (2024-01-31T23:59:51Z), in {JAN}."
    )
    assert len(usage) == 1


DEFECTS = [
    ("a late set is billed again", "is_additive and not is_set", "is_additive"),
    ("every late increment is billed", "AGGREGATORS[mode].is_additive and not is_set", "not is_set"),
    ("nothing late is billed", "AGGREGATORS[mode].is_additive and not is_set", "False"),
]


@pytest.mark.parametrize(("right", "wrong"), [row[1:] for row in DEFECTS], ids=[row[0] for row in DEFECTS])
def test_slips_in_the_refusal_die(monkeypatch, right, wrong):
    """Each slip in what is refused is seen by the table of modes and actions above."""
    planting.plant(monkeypatch, "acceptance.late_refusal", right, wrong)
    with pytest.raises(AssertionError):
        _check_whole_table()


def _check_whole_table():
    for mode, action, engine in product(mc.AggregateUsage, mc.Action, ENGINES):
        test_only_what_adds_is_billed_in_the_open_period(mode, action, engine)


# The law -----------------------------------------------------------------------------------------------------------------

DAILY = {mode: mc.Recurring(interval="day", usage_type="metered", aggregate_usage=mode) for mode in mc.AggregateUsage}
HOUR = 3600
steps = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.sampled_from([0, 1, 20, 24]), st.integers(0, 9), st.sampled_from(mc.Action)),
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
        self.now, self.closed, self.accepted = START, 0, []

    def use(self, ago, quantity, action):
        at = max(self.now - ago * HOUR, START)
        (receipt,) = self.usage.append([mc.UsageRecord("si", quantity, at, action)], now=self.now)
        if receipt.outcome is mc.Outcome.ACCEPTED:
            self.accepted.append(("si", at, action.value, quantity))
        else:
            assert receipt.code in {"timestamp_before_current_period", "late_usage_not_billable"}
            is_billable = action is mc.Action.INCREMENT and self.row["mode"] == "sum"
            assert receipt.code != "late_usage_not_billable" or not is_billable

    def wait(self, hours, *_):
        self.now += hours * HOUR

    def close(self, *_):
        while day(self.closed).end_seconds <= self.now:
            self.usage.close_period("sub", day(self.closed), now=self.now)
            self.closed += 1

    def billed(self):
        """Return each day's quantity and what it costs, as the engine says."""
        invoices = [mc.finalize_invoice(self.subscription, self.usage, day(at), now=self.now) for at in range(self.closed)]
        return [(one.lines[0].total_usage, [line.amount for line in one.lines]) for one in invoices]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("mode", mc.AggregateUsage)
@settings(max_examples=max(settings().max_examples // 5, 1))
@given(history=steps)
def test_what_was_accepted_is_billed_once(engine, mode, model, history):
    """All bills of a sum are together the bill of all that was accepted; of the others, each is that of its own day."""
    account = History(engine, mode, model)
    for step, *rest in history:
        getattr(account, step)(*rest)
    account.wait(24)
    account.close()
    billed = account.billed()
    bounds = [(day(at).start_seconds, day(at).end_seconds) for at in range(account.closed)]
    whole = [oracle.quantity(account.row, account.accepted, *one) for one in bounds]
    if mode is mc.AggregateUsage.SUM:
        assert sum(quantity for quantity, _ in billed) == sum(whole)
    else:
        assert [quantity for quantity, _ in billed] == whole
    for quantity, amounts in billed:
        assert amounts == [oracle.whole(Fraction(one)) for one in oracle.lines(account.row, quantity)]
