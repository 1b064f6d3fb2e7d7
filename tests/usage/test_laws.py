"""The laws of `metering_core.testing.laws`, held against this library; `test_laws_bite.py` shows
that they can fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import metering_core as mc
from metering_core.exact import whole_if_possible
from metering_core.testing import laws
from metering_core.testing import strategies as drawn
from metering_core.testing.restatement import RestatedLog

# What each law is run with: strategies of its arguments. `test_laws_bite.py` plants defects under
# the same ones.

MODES = list(mc.AggregateUsage)


def rated(**options):
    """Draw a price and a quantity at one of its edges."""
    prices = drawn.prices(max_tiers=4, **options) | st.builds(
        partial(mc.Price, "price", "usd"),
        drawn.graduated(fractions=True) | drawn.volumes(fractions=True),
    )
    return prices.flatmap(
        lambda price: st.tuples(st.just(price), drawn.quantities(price, decimals=2))
    )


def shared():
    """Draw a price and a quantity as averages come to: past an edge or before the next, a share, or
    a long decimal.
    """
    models = (
        drawn.per_unit()
        | drawn.packages()
        | drawn.graduated(fractions=True)
        | drawn.volumes(fractions=True)
    )
    prices = st.builds(partial(mc.Price, "price", "usd"), models)
    return prices.flatmap(lambda price: st.tuples(st.just(price), shares(price)))


def shares(price):
    """Draw quantities that are not whole, many of them a hair from one of the price's edges."""
    parts = st.fractions(0, 1, max_denominator=10**12) | st.sampled_from(
        [HAIR, 1 - HAIR, Fraction(1, 10**30), Fraction(1, 3)]
    )
    return st.builds(
        lambda whole, part: whole_if_possible(whole + part), drawn.quantities(price), parts
    )


HAIR = Fraction(1, 3 * 10**30)


def shared_amounts():
    """Draw amounts that no decimal writes, many of them a hair from a half."""
    minor_units = st.fractions() | st.builds(
        lambda whole, part: whole + part, st.integers(-5, 5), st.sampled_from(NEAR_HALF)
    )
    return st.builds(mc.money.Amount, minor_units, st.just("usd"))


NEAR_HALF = [Fraction(1, 2) + HAIR, Fraction(1, 2) - HAIR, Fraction(1, 3)]


def writes():
    """Draw (mode, writes to few timestamps, on both sides of an hour that ends, a split within
    them).
    """
    cells = st.lists(
        st.tuples(st.integers(3597, 3602), st.integers(0, 9) | st.just(2**63)), max_size=20
    )
    return st.tuples(st.sampled_from(MODES), cells, st.sets(st.integers(3597, 3602)))


def split_batches():
    """Draw (subscription, batch, place within it, now)."""

    def split(subscription):
        period = subscription.cycle.period_at(subscription.billing_cycle_anchor)
        now = st.sampled_from(
            [period.start_seconds, period.start_seconds + 3600, period.end_seconds - 1]
        )
        return now.flatmap(
            lambda at: st.tuples(
                st.just(subscription),
                drawn.usage_records([*subscription.items, "si_unknown"], period, at, max_size=16),
                st.integers(0, 16),
                st.just(at),
            )
        )

    return drawn.subscriptions(thresholds=True).flatmap(split)


def long_batches():
    """Draw as `split_batches`, but long ones of one item with nothing to refuse: what the fast
    paths take.
    """

    def split(subscription):
        period = subscription.cycle.period_at(subscription.billing_cycle_anchor)
        now = period.start_seconds + 3600
        records = drawn.usage_records(
            subscription.items,
            period,
            now,
            min_size=10,
            max_size=30,
            retries=False,
            late=False,
            future=False,
        )
        return st.tuples(st.just(subscription), records, st.integers(0, 30), st.just(now))

    return drawn.subscriptions(max_items=1, licensed=False).flatmap(split)


def retried():
    """Draw (subscription, record, now, later)."""

    def sent(subscription):
        period = subscription.cycle.period_at(subscription.billing_cycle_anchor)
        now = period.start_seconds + 3600
        later = [
            now,
            now + 1,
            period.end_seconds - 1,
            period.end_seconds,
            period.end_seconds + 86_400,
        ]
        return st.tuples(
            st.just(subscription),
            drawn.usage_record(subscription.items, period, now),
            st.just(now),
            st.sampled_from(later),
        )

    return drawn.subscriptions(max_items=2, licensed=False, thresholds=True).flatmap(sent)


def sent_late():
    """Draw (policy, subscription, record, now, later): later around the period's end, and around
    the end of its grace.
    """

    def sent(subscription):
        period = subscription.period_at(subscription.billing_cycle_anchor)
        graces = st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=23)])
        policies = st.builds(
            mc.AcceptancePolicy,
            late_grace=graces,
            late_attribution=st.sampled_from(mc.acceptance.LateAttribution),
        )
        now = period.end_seconds - 1
        after = st.sampled_from(
            [-1, 0, 1, 3599, 3600, 3601, 23 * 3600 - 1, 23 * 3600, 23 * 3600 + 1]
        )
        later = after.map(lambda seconds: period.end_seconds + seconds)
        record = drawn.usage_record(subscription.items, period, now)
        return st.tuples(policies, st.just(subscription), record, st.just(now), later)

    return drawn.subscriptions(max_items=2, licensed=False, thresholds=True).flatmap(sent)


def numbered_periods():
    """Draw a cycle in any zone and the number of one of its boundaries, near the anchor or far from
    it.
    """
    return st.tuples(
        drawn.cycles(timezones=drawn.ZONES), st.integers(-3, 3) | st.integers(-150, 150)
    )


def append_laws(subscription, batch, place, now):
    """Run the append laws on the batch cut at a place within it."""
    place %= len(batch) + 1
    laws.check_append_laws(lambda: mc.UsageLog([subscription]), batch[:place], batch[place:], now)


def retry_laws(subscription, record, now, later):
    """Run the retry laws on logs of the subscription."""
    laws.check_retry_laws(lambda: mc.UsageLog([subscription]), record, now, later)


def late_laws(policy, subscription, record, now, later):
    """Run the laws of late grace on logs of the subscription under the policy."""
    laws.check_late_laws(lambda: mc.UsageLog([subscription], policy=policy), record, now, later)


def compaction_laws(subscription, batches, closes):
    """Run the laws of compaction on the log of a history, which then receives the history's last
    batch again.
    """
    log = drawn.log_of((subscription, batches), closes=closes)
    now, more = batches[-1] if batches else (None, [])
    laws.check_compaction_laws(log, more, now)


def usage_laws(subscription, batches):
    """Run the usage laws on logs of the subscription."""
    laws.check_usage_laws(lambda: mc.UsageLog([subscription]), batches)


def bills(subscription, batches):
    """Yield the previews after each batch and the finalized invoices of all periods that were used,
    each with its log.
    """
    log = mc.UsageLog([subscription])
    for now, records in batches:
        log.append(records, now=now)
        yield mc.preview_invoice(subscription, log, now=now), log
    for period in {period.start: period for _, period in laws.used_periods(log)}.values():
        yield mc.finalize_invoice(subscription, log, period, now=period.end), log


def invoice_laws(subscription, batches):
    """Run the invoice laws on every bill of a history."""
    for invoice, log in bills(subscription, batches):
        laws.check_invoice_laws(invoice, subscription, log)


def snapshot_laws(subscription, batches, closes):
    """Run the snapshot laws on the log of a history, which then receives the history's last batch
    again.
    """
    log = drawn.log_of((subscription, batches), closes=closes)
    now, more = batches[-1] if batches else (None, [])
    laws.check_snapshot_laws(log, more, now)


def histories_with_a_choice():
    """Draw a history and whether its elapsed periods are finalized."""
    return st.builds(lambda history, closes: (*history, closes), drawn.histories(), st.booleans())


def ambient_laws(subscription, batches):
    """Compute all bills of a history under hostile decimal contexts."""
    laws.check_ambient_laws(
        lambda: [(str(bill), bill.to_dict()) for bill, _ in bills(subscription, batches)]
    )


class PlainUsage:
    """Another engine: the restated rules behind the protocol `Usage`, for the law that engines
    agree.
    """

    def __init__(self, log):
        self.restated = RestatedLog(log.subscriptions)
        for logged in log.records():
            self.restated.sent.append(logged.record)
            self.restated.stamps.append(logged.record.timestamp)

    def partial(self, item, period):
        """Return the partial that presents as the restated quantity: of a cell that holds it, or of
        as many cells.
        """
        quantity = self.restated.quantity(item, period)
        row = mc.measures.AGGREGATORS[item.recurring.aggregate_usage]
        return (
            row.fold(dict.fromkeys(range(quantity), 0))
            if row.takes == "nothing"
            else row.prepare(0, quantity)
        )

    def partials(self, requests):
        """Return the partials one by one."""
        return [self.partial(item, period) for item, period in requests]


def engine_laws(log):
    """Compare the log with the plain engine."""
    laws.check_engine_agrees(PlainUsage, log)


CHECKS = {
    "cells": (st.tuples(drawn.cells(), drawn.cells(), drawn.cells()), laws.check_cell_laws),
    "aggregators": (writes(), laws.check_aggregator_laws),
    "appending": (split_batches(), append_laws),
    "appending much": (long_batches(), append_laws),
    "usage": (drawn.histories(thresholds=True, ends=True), usage_laws),
    "engines": (st.tuples(drawn.usage_logs()), engine_laws),
    "retries": (retried(), retry_laws),
    "late grace": (sent_late(), late_laws),
    "compaction": (histories_with_a_choice(), compaction_laws),
    "periods": (numbered_periods(), laws.check_period_laws),
    "rating": (rated(), laws.check_rating_laws),
    "rating shares": (shared(), laws.check_rating_laws),
    "settling": (st.tuples(drawn.amounts() | shared_amounts()), laws.check_settle_laws),
    "invoices": (drawn.histories(), invoice_laws),
    "snapshots": (histories_with_a_choice(), snapshot_laws),
    "ambient": (drawn.histories(), ambient_laws),
}
"""Law → strategy of its arguments, and the check."""


@pytest.mark.parametrize("law", CHECKS)
def test_laws_hold(law):
    """Each law holds for this library."""
    arguments, check = CHECKS[law]

    @given(arguments)
    def hold(case):
        check(*case)

    hold()


@pytest.mark.parametrize(("value", "lines"), [("-2.5", 1), ("0.1", 2)])
def test_invoices_of_meters_keep_the_law_of_invoices(value, lines):
    """What events average to is covered by the lines: nothing where it is negative, a third or a
    long decimal as it is.
    """
    tiers = [mc.Tier("0.01", unit_amount=300), mc.Tier("inf", unit_amount=500)]
    price = mc.Price.graduated(
        "price", currency="usd", tiers=tiers, recurring=mc.Recurring(meter="m")
    )
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si_0", price)], 1_704_067_200, customer="cus_1"
    )
    log = mc.MeterLog([mc.Meter("m", "load", "average")], [subscription])
    for number, one in enumerate([value, "0", "0"]):
        log.record(
            "load",
            {"stripe_customer_id": "cus_1", "value": one},
            timestamp=1_704_067_200 + number,
            now=1_704_067_210,
        )
    invoice = mc.preview_invoice(subscription, log, now=1_704_067_220)
    laws.check_invoice_laws(invoice, subscription, log)
    assert invoice.lines[0].total_usage == Fraction(value) / 3
    assert len(invoice.lines) == lines


# Yours, not ours ----------------------------------------------------------------------------------


class Doubling:
    """A user's own model: each of the first ten units costs twice as much as usual."""

    def charges(self, quantity):
        """Charge two stretches."""
        dear = min(quantity, 10)
        rows = [(dear, 2), (quantity - dear, 1)]
        return [
            mc.pricing.Charge(
                mc.pricing.ChargeKind.UNIT, units, Decimal(each), Decimal(units * each)
            )
            for units, each in rows
        ]


class Forgetful(Doubling):
    """A user's own model that loses every unit after the tenth."""

    def charges(self, quantity):
        """Charge the first stretch only."""
        return super().charges(quantity)[:1]


def test_a_model_of_your_own_is_held_to_the_laws():
    """A user's model that keeps the laws passes; one that loses a unit is told which law and by
    which quantity.
    """

    @given(drawn.quantities(Doubling()))
    def keeps(quantity):
        laws.check_rating_laws(Doubling(), quantity)

    keeps()
    laws.check_rating_laws(Forgetful(), 10)
    with pytest.raises(laws.LawBrokenError) as broken:
        laws.check_rating_laws(Forgetful(), 11)
    assert broken.value.law == "rating"
    assert str(broken.value).startswith("Rating loses no unit")
    assert "for 11 units cover 10" in broken.value.counterexample


def test_a_model_of_your_own_can_be_held_to_its_tiers():
    """The laws of tiers and packages take any model beside the terms that it should keep."""
    tiers = [mc.Tier(10, unit_amount=2), mc.Tier("inf", unit_amount=1)]
    for quantity in (0, 9, 10, 11):
        laws.check_graduated_laws(Doubling(), tiers, quantity)
    laws.check_volume_laws(Doubling(), tiers, 10)
    with pytest.raises(laws.LawBrokenError, match="11 units cost 21, not 11"):
        laws.check_volume_laws(Doubling(), tiers, 11)
    with pytest.raises(laws.LawBrokenError, match="one unit more than 4 costs 2, not 1"):
        laws.check_graduated_laws(Doubling(), [mc.Tier(4, unit_amount=2), *tiers[1:]], 4)
    with pytest.raises(laws.LawBrokenError, match="1 units cost 2, not 0 for 0 packages of 10"):
        laws.check_package_laws(Doubling(), Decimal(20), 10, "down", 1)


class Average(mc.measures.Aggregator):
    """A mode that looks like a monoid and is none: averages of averages."""

    identity = None

    def prepare(self, timestamp, quantity):
        """Take the cell's quantity."""
        return quantity

    def merge(self, left, right):
        """Average two averages."""
        if left is None or right is None:
            return right if left is None else left
        return (left + right) // 2

    def present(self, partial):
        """Return the average."""
        return partial or 0


def test_an_aggregation_mode_of_your_own_is_held_to_the_laws():
    """An average of averages depends on the split, and the law says so."""
    laws.check_aggregator_laws(Average(), [(1, 8), (2, 8)], {1})
    with pytest.raises(laws.LawBrokenError, match="merged cell by cell from the right"):
        laws.check_aggregator_laws(Average(), [(1, 0), (2, 0), (3, 8)], set())
    with pytest.raises(laws.LawBrokenError, match="come to 4, not 5"):
        laws.check_aggregator_laws(
            Average(), [(1, 4)], set(), expected=lambda cells: sum(cells.values()) + 1
        )


class Deaf(PlainUsage):
    """An engine that forgets the last record."""

    def __init__(self, log):
        super().__init__(log)
        self.restated.sent, self.restated.stamps = (
            self.restated.sent[:-1],
            self.restated.stamps[:-1],
        )


def test_an_engine_of_your_own_is_held_to_the_log():
    """An engine that forgets a record is told the item, the period and both quantities."""
    subscription = mc.Subscription(
        "sub_1",
        [mc.SubscriptionItem("si_1", mc.Price.per_unit("price", currency="usd", unit_amount=1))],
        1_704_067_200,
    )
    log = mc.UsageLog([subscription])
    log.record("si_1", 2, now=1_704_067_200)
    log.record("si_1", 3, now=1_704_067_201)
    laws.check_engine_agrees(PlainUsage, log)
    with pytest.raises(
        laws.LawBrokenError,
        match=r"usage of si_1 in 2024-01-01.* is 2 alone and 2 among others, not 5",
    ):
        laws.check_engine_agrees(Deaf, log)
    with pytest.raises(
        laws.LawBrokenError, match=r"bills \{'si_1': 2\}, but the usage was \{'si_1': 5\}"
    ):
        laws.check_invoice_laws(
            mc.preview_invoice(subscription, Deaf(log), now=1_704_067_300), subscription, log
        )


@pytest.mark.parametrize(
    "rounding",
    [mc.money.half_up, mc.money.half_down, mc.money.half_even],
    ids=lambda rounding: rounding.__name__,
)
def test_settling_to_the_nearest_keeps_the_law(rounding):
    """Whichever way a half goes, rounding to the nearest minor unit keeps the law of settling."""

    @given(drawn.amounts() | shared_amounts())
    def keeps(amount):
        laws.check_settle_laws(amount, rounding)

    keeps()


@pytest.mark.parametrize(
    "rounding",
    [mc.money.up, mc.money.down, mc.money.to_multiple(10)],
    ids=lambda rounding: rounding.__name__,
)
def test_other_rounding_breaks_the_law_of_settling(rounding):
    """Rounding always up, always down or to multiples moves an amount by more than half a minor
    unit.
    """
    broken = Decimal("1.1") if rounding(Decimal("1.1")) != 1 else Decimal("1.9")
    with pytest.raises(laws.LawBrokenError, match="settles to"):
        laws.check_settle_laws(mc.money.Amount(broken, "usd"), rounding)


def test_a_computation_that_reads_the_ambient_context_is_noticed():
    """Plain Decimal arithmetic breaks the ambient law; exact integers keep it."""
    laws.check_ambient_laws(lambda: 1234 * 1000)
    with pytest.raises(laws.LawBrokenError, match="ambient decimal context"):
        laws.check_ambient_laws(lambda: Decimal(1234) * 1000)


# The machine --------------------------------------------------------------------------------------

BILL = """
import json, time
def read(*_): raise AssertionError("the core read the machine's clock")
import metering_core as mc
for clock in ("time", "time_ns", "monotonic", "localtime", "perf_counter"):
    setattr(time, clock, read)
items = [mc.SubscriptionItem(f"si_{mode}", mc.Price.graduated(f"price_{mode}", currency="usd",
         tiers=[mc.Tier(5, unit_amount="0.5", flat_amount=1), mc.Tier("inf", unit_amount="0.3")],
         recurring=mc.Recurring(aggregate_usage=mode))) for mode in mc.AggregateUsage]
subscription = mc.Subscription("sub_1", items, 1706659200, timezone="America/New_York")
log = mc.UsageLog([subscription])
now = 1710054000
records = [mc.UsageRecord(item.id, place, now - place % 3, id=f"{item.id}{place}") for item in items for place in range(9)]
log.append(records + records, now=now)
print(json.dumps(mc.snapshot(log)), mc.preview_invoice(subscription, log, now=now))
print([str(mc.explain(line)) for line in mc.preview_invoice(subscription, log, now=now).lines])
"""


def test_bills_do_not_depend_on_the_machine():
    """Hash seed, time zone and clock of the machine change nothing in a snapshot, an invoice or an
    explanation.
    """
    seen = set()
    for seed, zone in (("0", "UTC"), ("1", "Asia/Kathmandu"), ("2", "America/New_York")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": zone,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        done = subprocess.run(
            [sys.executable, "-c", BILL],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1
    assert "si_last_ever" in seen.pop()


def test_every_law_is_stated_and_checked():
    """Each law that can be broken is one of the stated ones, and each stated one is raised by some
    check.
    """
    files = Path(laws.__path__[0]).glob("[!s]*.py")
    sources = "".join(file.read_text(encoding="utf-8") for file in files)
    doors = re.findall(r'appending, retries, reused = "([a-z ]+)", "([a-z ]+)"', sources)
    raised = re.findall(r'(?:LawBrokenError|forbid|_compare_heard)\(\s*"([a-z ]+)"', sources)
    assert {*raised, *(one for door in doors for one in door)} == set(laws.LAWS)
