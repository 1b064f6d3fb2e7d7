"""What is billed of meters: periods, late usage, what stays unbilled, and invoices that come out
again byte for byte.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from random import Random

import attrs
import pytest
from builders import DAY, FEB, JAN, MAR, START
from hypothesis import given, settings
from hypothesis import strategies as st
from test_meter_log import MICRO, NOON, NOW, TOKENS, billed_to, event, item_on, paid, total

from metering_core import (
    BillingPeriod,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    explain,
    finalize_invoice,
    preview_invoice,
    restore_meter_log,
    snapshot,
)
from metering_core.aggregation import summarize, summarize_all
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_bills import UnbilledDelta
from metering_core.meter_log import MeterLog
from metering_core.meter_views import MeterReader
from metering_core.meters import Formula, Meter

ON_TOKENS = Recurring(meter="mtr_tokens")
IGNORING, CARRYING = MeterPolicy.history(), MeterPolicy.history(late_usage="carry_forward")
AFTER_JAN, AFTER_FEB, AFTER_MAR = (period.end_seconds for period in (JAN, FEB, MAR))


def log_of(formula="sum", policy=CARRYING, *subscriptions, **options):
    return MeterLog(
        [Meter("mtr_tokens", "tokens", formula, **options)],
        subscriptions or [billed_to()],
        policy=policy,
    )


def finalized(log, period, subscription=None, now=None):
    return finalize_invoice(subscription or billed_to(), log, period, now=now or period.end_seconds)


def written(invoice):
    return json.dumps(invoice.to_dict()).encode()


def sold(price, id="si"):
    return billed_to("cus_1", SubscriptionItem(id, price))


def deltas(usage):
    return [
        (one.period, one.billed, one.measured, one.carried, one.quantity)
        for one in usage.unbilled("sub")
    ]


# Who is billed, and when --------------------------------------------------------------------------


def test_usage_before_any_subscription():
    """Usage may come before a subscription exists; it is billed where a period of an item covers
    it, else never.
    """
    log = MeterLog([TOKENS], policy=IGNORING)
    log.append([event("5", at=START), event("7", at=AFTER_JAN)], now=NOW)
    from_february = Subscription(
        "sub", [item_on()], AFTER_JAN, start_date=AFTER_JAN, customer="cus_1"
    )
    log.subscribe(from_february)
    until_february = Subscription(
        "sub_2", [item_on(id="si_2")], START, ended_at=AFTER_JAN, customer="cus_1"
    )
    log.subscribe(until_february)
    assert finalized(log, FEB, from_february).total == 7
    assert finalized(log, JAN, until_february).total == 5
    with pytest.raises(InvoicingError) as refusal:
        finalized(log, JAN, from_february)
    assert refusal.value.code == ErrorCode.PERIOD_NOT_OF_SUBSCRIPTION


def test_one_meter_with_many_prices_customers_and_subscriptions():
    """Each item bills all of its own customer's usage at its own price, two of one subscription
    alike.
    """
    cheap, dear = (
        Price.per_unit(name, currency="usd", unit_amount=at, recurring=ON_TOKENS)
        for name, at in (("c", 1), ("d", 9))
    )
    two_items = billed_to(
        "cus_1", SubscriptionItem("a", cheap), SubscriptionItem("b", dear), id="one"
    )
    another = billed_to("cus_1", SubscriptionItem("c", dear), id="two")
    of_other = billed_to("cus_2", SubscriptionItem("d", cheap), id="three")
    each = attrs.evolve(IGNORING, overlap="each_counts_all")
    log = MeterLog([TOKENS], [two_items, another, of_other], policy=each)
    log.append([event("10"), event("3", customer="cus_2"), event("100", customer="cus_3")], now=NOW)
    invoices = [finalized(log, JAN, one) for one in (two_items, another, of_other)]
    assert [[line.amount for line in invoice.lines] for invoice in invoices] == [
        [10, 90],
        [90],
        [3],
    ]
    assert log.partials([(item_on(id=name), JAN) for name in "adcb"]) == [10, 3, 10, 10]


def test_boundary_instants():
    """An event at a period's end belongs to the next one; a microsecond before it still to this
    one.
    """
    log = log_of(policy=IGNORING)
    end = datetime.fromtimestamp(AFTER_JAN, tz=NOON.tzinfo)
    log.append(
        [
            event("1", at=end - MICRO),
            event("2", at=end),
            event("4", at=START),
            event("8", at=START - 1),
        ],
        now=NOW,
    )
    assert (total(log), total(log, period=FEB)) == (5, 2)


def test_a_price_names_a_meter_that_is_there():
    """An item of a meter that the log does not have has no quantity: it is refused by name."""
    log = log_of()
    with pytest.raises(InvalidValueError) as refusal:
        log.partial(item_on("mtr_none"), JAN)
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.METER_UNKNOWN, "meter")


def test_preview_and_final_invoice_agree():
    """A preview of the current period becomes the invoice where nothing more comes."""
    log = log_of(policy=IGNORING)
    log.append([event("2.5"), event("4")], now=NOW)
    preview = preview_invoice(billed_to(), log, now=NOW)
    final = finalized(log, JAN)
    assert [line.to_dict() for line in preview.lines] == [line.to_dict() for line in final.lines]
    assert (final.total, final.lines[0].quantity, final.lines[0].aggregate_usage) == (
        7,
        Decimal("6.5"),
        Formula.SUM,
    )


# Quantities that are no integers ------------------------------------------------------------------


def line_fields(price, formula, *values):
    """Return the lines of January's invoice for these values at a price, as they are written."""
    log = log_of(formula, IGNORING, sold(price))
    log.append([event(value, at=NOW + at) for at, value in enumerate(values)], now=NOW)
    lines = finalized(log, JAN, sold(price)).to_dict()["lines"]
    return [(line["quantity"], line["exact"], line["amount"]) for line in lines]


def per_unit(amount):
    return Price.per_unit("p", currency="usd", unit_amount=amount, recurring=ON_TOKENS)


def test_long_decimals_through_an_invoice():
    """A quantity of 18 places is charged and written exactly: 0.123456789012345678 at 1,000
    cents.
    """
    assert line_fields(per_unit(1000), "sum", "0.123456789012345678") == [
        ("0.123456789012345678", "123.456789012345678", 123)
    ]


def test_fractions_through_an_invoice():
    """An average that no decimal can write is charged exactly: 1/3 of a unit at 100 cents is 33
    1/3, settled to 33.
    """
    assert line_fields(per_unit(100), "average", "1", "0", "0") == [("1/3", "100/3", 33)]
    # Half a cent goes up, and a sixth less does not: 1/6 at 3 and at 2 cents.
    assert line_fields(per_unit(3), "average", "1", *["0"] * 5) == [("1/6", "0.5", 1)]
    assert line_fields(per_unit(2), "average", "1", *["0"] * 5) == [("1/6", "1/3", 0)]


def test_decimals_are_cut_at_the_tiers():
    """Tiers cut a decimal quantity at their bounds: 2.5 is 1 at 10 cents and 1.5 at 5, which
    settles to 8.
    """
    tiers = [Tier(1, unit_amount=10), Tier("inf", unit_amount=5)]
    graduated = Price.graduated("p", currency="usd", tiers=tiers, recurring=ON_TOKENS)
    assert line_fields(graduated, "sum", "1.25", "1.25") == [(1, "10", 10), ("1.5", "7.5", 8)]


def test_pr_1():
    """PR-1: 150 minutes in packages of 60, rounded up, at 10 dollars each are 3 packages, 30
    dollars.
    """
    price = Price.package(
        "p", currency="usd", unit_amount=1000, divide_by=60, round="up", recurring=ON_TOKENS
    )
    assert line_fields(price, "sum", "100", "50") == [(150, "3000", 3000)]


def test_pr_2():
    """PR-2: 110 units in packages of 100 at 4 cents, rounded up, are 8 cents."""
    price = Price.package(
        "p", currency="usd", unit_amount=4, divide_by=100, round="up", recurring=ON_TOKENS
    )
    assert line_fields(price, "sum", "110") == [(110, "8", 8)]


def test_pr_4():
    """PR-4: 4 dollars for the first 100,000, then 0.0065 cents each: of 100,070, the last 70 settle
    to nothing.
    """
    tiers = [Tier(100_000, flat_amount=400), Tier("inf", unit_amount="0.0065")]
    price = Price.graduated("p", currency="usd", tiers=tiers, recurring=ON_TOKENS)
    lines = line_fields(price, "sum", "100070")
    assert sum(amount for _, _, amount in lines) == 400
    assert lines[-1] == (70, "0.455", 0)


def test_negative_totals_bill_nothing_and_show_the_remainder():
    """A total below zero is a line of 0 that says the truth, and what no invoice billed is there to
    be asked for.
    """
    log = log_of(policy=IGNORING)
    log.append([event("5"), event("-12.5")], now=NOW)
    (line,) = finalized(log, JAN).lines
    assert (line.quantity, line.amount, line.total_usage) == (0, 0, Decimal("-7.5"))
    assert log.unbilled("sub") == [UnbilledDelta("si", JAN, "mtr_tokens", 0, Decimal("-7.5"))]
    assert log.unbilled("sub")[0].quantity == Decimal("-7.5")


# What comes after an invoice ----------------------------------------------------------------------


def test_late_events_and_cancellations_leave_the_invoice():
    """A late event or a cancellation after an invoice changes what was measured, not the invoice;
    the delta says how much.
    """
    log = log_of(policy=IGNORING)
    log.append([event("5", identifier="a"), event("7")], now=NOW)
    first = finalized(log, JAN)
    log.append([event("2.5")], now=AFTER_JAN + 5)
    log.cancel("tokens", "a", now=AFTER_JAN + 6)
    assert written(finalized(log, JAN, now=AFTER_FEB)) == written(first)
    assert finalized(log, JAN, now=AFTER_FEB).finalized_at == first.finalized_at
    assert deltas(log) == [(JAN, 12, Decimal("9.5"), 0, Decimal("-2.5"))]
    # The summary of a bill is that of its invoice.
    assert summarize(item_on(), log, JAN).total_usage == 12


def test_ignored_deltas_stay():
    """Under the policy ``ignore`` no later invoice bills what an earlier one did not."""
    log = log_of(policy=IGNORING)
    finalized(log, JAN)
    log.append([event("5"), event("3", at=AFTER_JAN)], now=AFTER_JAN)
    assert finalized(log, FEB).lines[0].quantity == 3
    assert deltas(log) == [(JAN, 0, 5, 0, 5)]


def quantities(invoice):
    """Return the quantity of each line, with the period that it is for."""
    return [(line.period, line.quantity) for line in invoice.lines]


def test_carried_deltas_are_billed_by_the_next_invoice():
    """Under ``carry_forward`` the next invoice bills late usage on a line of its own; the delta is
    then made good and gone.
    """
    log = log_of()
    log.append([event("10")], now=NOW)
    finalized(log, JAN)
    log.append([event("5"), event("3", at=AFTER_JAN)], now=AFTER_JAN)
    assert deltas(log) == [(JAN, 10, 15, 0, 5)]
    assert quantities(preview_invoice(billed_to(), log, now=AFTER_JAN)) == [(FEB, 3), (JAN, 5)]
    assert quantities(finalized(log, FEB)) == [(FEB, 3), (JAN, 5)]
    assert deltas(log) == []
    # Making it again carries nothing a second time.
    assert quantities(finalized(log, FEB)) == [(FEB, 3), (JAN, 5)]
    assert quantities(finalized(log, MAR)) == [(MAR, 0)]
    # Later still in January: 1 more, of which nothing is carried yet.
    log.append([event("1")], now=AFTER_MAR)
    assert deltas(log) == [(JAN, 10, 16, 5, 1)]


def test_what_is_below_zero_stays_where_it_is():
    """A month of -8 is billed as 0 and takes nothing off the next ones: what no bill counts is
    unbilled, by name.
    """
    log = log_of()
    log.append([event("-8"), event("5", at=AFTER_JAN), event("4", at=AFTER_FEB)], now=NOW)
    invoices = [finalized(log, period) for period in (JAN, FEB, MAR)]
    assert [quantities(invoice) for invoice in invoices] == [[(JAN, 0)], [(FEB, 5)], [(MAR, 4)]]
    assert deltas(log) == [(JAN, 0, -8, 0, -8)]
    # With 10 more it is above 0, and that much is billed.
    log.append([event("10")], now=AFTER_MAR)
    assert quantities(preview_invoice(billed_to(), log, now=AFTER_MAR))[1:] == [(JAN, 2)]


def test_a_canceled_event_is_given_back_once():
    """What was billed and canceled since is given back by the next invoice, and not by the one
    after.
    """
    log = log_of()
    log.append(
        [event("6", identifier="a"), event("9", at=AFTER_JAN), event("9", at=AFTER_FEB)], now=NOW
    )
    finalized(log, JAN)
    log.cancel("tokens", "a", now=AFTER_JAN)
    assert [quantities(finalized(log, period)) for period in (FEB, MAR)] == [
        [(FEB, 9), (JAN, -6)],
        [(MAR, 9)],
    ]


@pytest.mark.parametrize("formula", [formula.value for formula in Formula])
def test_every_formula_carries_its_difference(formula):
    """What a month comes to now less what was billed of it is told for every formula, also where
    values do not add up.
    """
    log = log_of(formula)
    log.append([event("2", at=START)], now=NOW)
    finalized(log, JAN)
    log.append([event("9", at=START), event("9", at=AFTER_JAN)], now=AFTER_JAN)
    billed = 1 if formula in {"unique_count", "count"} else 2
    measured = {
        "sum": 11,
        "count": 2,
        "weighted_sum": 11,
        "unique_count": 2,
        "average": Decimal("5.5"),
        "min": 2,
    }.get(formula, 9)
    # A least of 2 stays the least, so that nothing is late.
    late = [] if formula == "min" else [(JAN, measured - billed)]
    assert quantities(finalized(log, FEB))[1:] == late
    assert deltas(log) == []


def test_items_owe_on_the_meter_that_measured_it():
    """An item that moves to another meter owes the tokens of before at the price of then, beside
    its seconds.
    """
    seconds = Meter("mtr_seconds", "seconds")
    log = MeterLog([TOKENS, seconds], [billed_to()], policy=CARRYING)
    log.append([event("10")], now=NOW)
    finalized(log, JAN)
    moved = billed_to("cus_1", item_on("mtr_seconds"))
    log.subscribe(moved)
    log.append([event("5"), event("3", name="seconds", at=AFTER_JAN)], now=AFTER_JAN)
    assert quantities(finalized(log, FEB, moved)) == [(FEB, 3), (JAN, 5)]
    assert log.unbilled("sub") == []


LICENSED = Price.per_unit(
    "l", currency="usd", unit_amount=3, recurring=Recurring(usage_type="licensed")
)


@pytest.mark.parametrize(
    "items", [[item_on(id="other")], [item_on(id="other"), SubscriptionItem("si", LICENSED)]]
)
def test_items_that_left_their_meter_still_owe(items):
    """What an item owes stays visible where it left the subscription, or its meter, also to a view
    and after a snapshot.
    """
    log = log_of("sum", CARRYING, billed_to("cus_1", item_on(), item_on(id="other")))
    log.append([event("10", identifier="a")], now=NOW)
    finalized(log, JAN, *log.subscriptions)
    log.subscribe(billed_to("cus_1", *items), now=JAN.end)
    log.cancel("tokens", "a", now=AFTER_JAN)
    for usage in (log, log.as_of(log.sequence), restore_meter_log(snapshot(log))):
        assert [(one.subscription_item, one.quantity) for one in usage.unbilled("sub")] == [
            ("other", -10),
            ("si", -10),
        ]


def dearer(id, amount=5):
    return SubscriptionItem(
        id, Price.per_unit("d", currency="usd", unit_amount=amount, recurring=ON_TOKENS)
    )


@pytest.mark.parametrize(
    "told",
    [
        [[item_on(id="b")]],
        [[dearer("b")]],
        [[dearer("c"), item_on(id="b")]],  # The one on equal terms, wherever it stands.
        [[item_on(id="b")], [item_on(id="c")]],
        [[item_on(id="b")], [item_on()]],  # And back.
    ],
)
@pytest.mark.parametrize("again", [lambda log: log, lambda log: restore_meter_log(snapshot(log))])
def test_what_comes_late_for_a_dropped_item_is_billed_by_its_heir(told, again):
    """An item that comes for a dropped one bills its late usage, once, at the price of then; so
    does who comes for that one.
    """
    log = log_of()
    log.append([event("4")], now=NOW)
    finalized(log, JAN)
    for items in told:
        log.subscribe(billed_to("cus_1", *items), now=JAN.end)
    log = again(log)
    newest, heir = log.subscription("sub"), told[-1][-1].id
    log.append([event("3")], now=AFTER_JAN)
    assert [(one.subscription_item, one.billed, one.quantity) for one in log.unbilled("sub")] == [
        (heir, 4, 3)
    ]
    late = [line for line in finalized(log, FEB, newest).lines if line.period == JAN]
    assert [(line.subscription_item, line.quantity, line.amount) for line in late] == [(heir, 3, 3)]
    assert log.unbilled("sub") == []
    assert not [line for line in finalized(again(log), MAR, newest).lines if line.period == JAN]


def test_a_month_that_was_closed_for_a_dropped_item_is_its_heirs():
    """What was closed without an invoice and is billed under the heir is billed once, and so is
    what comes late for it.
    """
    log, newer = log_of(), billed_to("cus_1", item_on(id="b"))
    log.append([event("4")], now=NOW)
    log.close_period("sub", JAN, now=AFTER_JAN)
    log.subscribe(newer, now=JAN.end)
    assert quantities(finalized(log, JAN, newer)) == [(JAN, 4)]
    log.append([event("3")], now=AFTER_JAN)
    assert [(one.subscription_item, one.billed, one.measured) for one in log.unbilled("sub")] == [
        ("b", 4, 7)
    ]
    assert quantities(finalized(log, FEB, newer)) == [(FEB, 0), (JAN, 3)]
    assert log.unbilled("sub") == []


def test_an_item_whose_bills_went_to_another_does_not_come_back_beside_it():
    """What is late for an id has one who bills it: the id comes back in place of its heir only,
    also with ``rebill=True``.
    """
    log = log_of()
    finalized(log, JAN)
    log.subscribe(billed_to("cus_1", item_on(id="b")), now=JAN.end)
    for rebill in (False, True):
        with pytest.raises(
            InvalidValueError, match="expected another id, because 'b' bills what comes late"
        ) as refusal:
            log.subscribe(
                billed_to("cus_1", item_on(id="b"), dearer("si")), now=JAN.end, rebill=rebill
            )
        assert (refusal.value.code, refusal.value.param) == (
            ErrorCode.SUBSCRIPTION_CHANGED,
            "items[1][id]",
        )


def test_an_item_with_bills_of_its_own_comes_for_no_other():
    """An item that billed the month itself does not bill it for another one, too: the difference
    stays in sight.
    """
    log = log_of("sum", CARRYING, billed_to("cus_1", item_on(), item_on(id="b")))
    finalized(log, JAN, *log.subscriptions)
    for items in ([item_on()], [item_on(id="b")]):
        log.subscribe(billed_to("cus_1", *items), now=JAN.end)
    log.append([event("3")], now=AFTER_JAN)
    assert [line.quantity for line in finalized(log, FEB, *log.subscriptions).lines] == [0, 3]
    assert [(one.subscription_item, one.quantity) for one in log.unbilled("sub")] == [("si", 3)]


@pytest.mark.parametrize(
    ("newer", "param"),
    [
        (attrs.evolve(billed_to(), ended_at=JAN.end), "ended_at"),
        (billed_to("cus_1", item_on("mtr_seconds", id="b")), "items"),
        (billed_to("cus_1", SubscriptionItem("si", LICENSED)), "items"),
        (
            billed_to(
                "cus_1", SubscriptionItem("b", attrs.evolve(item_on().price, currency="eur"))
            ),
            "items",
        ),
    ],
)
def test_a_version_that_leaves_a_difference_to_nobody_is_refused(newer, param):
    """What is to be billed of a closed month keeps its item and its subscription until it is; what
    is told after stays.
    """
    log = MeterLog([TOKENS, Meter("mtr_seconds", "seconds")], [billed_to()], policy=CARRYING)
    log.append([event("4")], now=NOW)
    finalized(log, JAN)
    early = restore_meter_log(snapshot(log))
    early.subscribe(newer, now=JAN.end)
    log.append([event("3")], now=AFTER_JAN)
    with pytest.raises(
        InvalidValueError, match=r"its usage of .* changed since it was billed"
    ) as refusal:
        log.subscribe(newer, now=JAN.end)
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.CHANGE_NOT_BILLABLE, param)
    log.subscribe(newer, now=JAN.end, rebill=True)
    early.append([event("3")], now=AFTER_JAN)
    for accepted in (log, early):
        assert [(one.subscription_item, one.quantity) for one in accepted.unbilled("sub")] == [
            ("si", 3)
        ]


def test_a_difference_that_nobody_would_bill_holds_no_version_back():
    """Under ``ignore``, and where an end is moved that leaves a period to bill it in, a difference
    is no obstacle.
    """
    for policy, ends in ((IGNORING, JAN.end), (CARRYING, FEB.end)):
        log = log_of("sum", policy)
        log.append([event("4")], now=NOW)
        finalized(log, JAN)
        log.append([event("3")], now=AFTER_JAN)
        log.subscribe(attrs.evolve(billed_to(), ended_at=ends), now=AFTER_JAN)
        assert deltas(log) == [(JAN, 4, 7, 0, 3)]


def test_a_subscription_without_meters_owes_nothing():
    """A subscription of licensed items has no customer to ask, and nothing of it is unbilled."""
    log = log_of("sum", IGNORING, Subscription("sub", [SubscriptionItem("si", LICENSED)], START))
    assert log.unbilled("sub") == []


@pytest.mark.parametrize(
    ("formula", "other"),
    [("sum", "last"), ("last", "sum"), ("sum", "sum"), ("average", "unique_count")],
)
def test_a_bill_is_not_told_in_the_units_of_another_meter(formula, other):
    """A billed period is asked for by the meter that billed it; the item on another one since is
    refused by name.
    """
    log = MeterLog(
        [Meter("mtr_tokens", "tokens", formula), Meter("mtr_seconds", "seconds", other)],
        [billed_to()],
        policy=IGNORING,
    )
    log.append([event("10")], now=NOW)
    january = finalized(log, JAN)
    moved = billed_to("cus_1", item_on("mtr_seconds"))
    log.subscribe(moved)
    for version in (None, moved):
        assert written(finalized(log, JAN, version, now=AFTER_FEB)) == written(january)
    for ask in (
        lambda: preview_invoice(moved, log, now=START),
        lambda: log.counted(moved.items[0], JAN),
    ):
        with pytest.raises(InvalidValueError) as refusal:
            ask()
        assert (refusal.value.code, refusal.value.param) == (
            ErrorCode.SUBSCRIPTION_CHANGED,
            "items[price][recurring][meter]",
        )


# Closing ------------------------------------------------------------------------------------------


def test_a_period_closes_when_it_has_ended():
    """An invoice cannot be finalized before its period's end, nor for a period that is none;
    nothing is closed then.
    """
    log = log_of()
    for period, now, code in [
        (JAN, AFTER_JAN - 1, ErrorCode.PERIOD_NOT_ENDED),
        (BillingPeriod(START, START + DAY), AFTER_JAN, ErrorCode.PERIOD_NOT_OF_SUBSCRIPTION),
    ]:
        with pytest.raises(InvoicingError) as refusal, log.closing("sub", period, now=now):
            pass
        assert refusal.value.code == code
    log.append([event("5")], now=NOW)
    assert (total(log), deltas(log)) == (5, [])


def test_unknown_subscriptions_are_not_closed():
    """A subscription that the log does not have has no periods to close."""
    log = log_of()
    with pytest.raises(InvalidValueError) as refusal, log.closing("sub_9", JAN, now=AFTER_JAN):
        pass
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.PARAMETER_INVALID_CHOICE,
        "subscription",
    )
    assert (
        refusal.value.message
        == "subscription: expected the id of a subscription in the log, received 'sub_9' (str)"
    )


def test_a_bill_that_fails_closes_nothing():
    """Where the block raises, the period stays open and nothing counts as billed."""
    log = log_of()
    log.append([event("5")], now=NOW)
    with pytest.raises(ZeroDivisionError), log.closing("sub", JAN, now=AFTER_JAN):
        raise ZeroDivisionError
    log.append([event("2")], now=AFTER_JAN)
    assert (finalized(log, JAN).lines[0].quantity, deltas(log)) == (7, [])


def test_closing_says_when_it_was_first():
    """Closing again yields the moment of the first time, and keeps what was billed then."""
    log = log_of()
    for now in (AFTER_JAN + 7, AFTER_FEB):
        with log.closing("sub", JAN, now=now) as closed_at:
            assert closed_at == datetime.fromtimestamp(AFTER_JAN + 7, tz=NOON.tzinfo)
    assert log.book.bills_made == 1


def test_a_period_can_be_closed_without_an_invoice():
    """Closing alone keeps what an invoice would have billed: what comes later is unbilled, and the
    invoice is that of then.
    """
    log = log_of()
    log.append([event("5")], now=NOW)
    closed_at = log.close_period("sub", JAN, now=AFTER_JAN + 7)
    log.append([event("2")], now=AFTER_JAN + 8)
    invoice = finalized(log, JAN, now=AFTER_FEB)
    assert (invoice.total, invoice.finalized_at, deltas(log)) == (5, closed_at, [(JAN, 5, 7, 0, 2)])


def test_items_of_other_kinds_are_not_billed_here():
    """Closing a subscription with licensed items keeps bills of its items on meters alone."""
    licensed = SubscriptionItem(
        "seats",
        Price.per_unit(
            "s", currency="usd", unit_amount=5, recurring=Recurring(usage_type="licensed")
        ),
        quantity=3,
    )
    subscription = billed_to("cus_1", item_on(), licensed)
    log = log_of("sum", CARRYING, subscription)
    log.append([event("4")], now=NOW)
    assert [line.amount for line in finalized(log, JAN, subscription).lines] == [4, 15]
    assert log.unbilled("sub") == []


def until(day):
    """Return the subscription, ended at the beginning of a day of January."""
    return Subscription(
        "sub", [item_on()], START, customer="cus_1", ended_at=START + (day - 1) * DAY
    )


def test_a_period_that_is_cut_short_is_billed_anew():
    """Closed with 15 but no invoice, then ended on the 16th by one who means it: its invoice has
    10, and 5 are nobody's.
    """
    log = log_of()
    log.append([event("10", at=START + DAY), event("5", at=START + 20 * DAY)], now=NOW)
    log.close_period("sub", JAN, now=AFTER_JAN)
    then = log.as_of(log.sequence)
    whole = preview_invoice(billed_to(), then, now=START)
    log.subscribe(until(16), rebill=True)
    cut = finalized(log, until(16).period_at(START), until(16), now=AFTER_JAN)
    assert (whole.total, cut.total, whole.id == cut.id) == (15, 10, True)
    log.append([event("1", at=START + DAY), event("1", at=START + 20 * DAY)], now=AFTER_JAN + 1)
    assert [(one.billed, one.measured) for one in log.unbilled("sub")] == [(10, 11)]
    # Who looks back sees what would have been billed then.
    assert written(preview_invoice(billed_to(), then, now=START)) == written(whole)


def test_a_period_that_is_made_longer_is_billed_once():
    """Closed on the 16th with 10, no invoice, and reopened: the invoice has 15, and a late unit is
    carried once, not twice.
    """
    log = log_of("sum", CARRYING, until(16))
    log.append([event("10", at=START + DAY), event("5", at=START + 20 * DAY)], now=NOW)
    log.close_period("sub", until(16).period_at(START), now=AFTER_JAN)
    log.subscribe(billed_to())
    assert finalized(log, JAN).total == 15
    log.append([event("1", at=START + DAY)], now=AFTER_JAN + 1)
    assert deltas(log) == [(JAN, 15, 16, 0, 1)]
    assert finalized(log, FEB).total == 1
    assert restore_meter_log(snapshot(log)) == log


def test_a_replaced_bill_takes_back_what_it_carried():
    """What a bill carried for an earlier month is carried by the bill that replaces it, and owed
    once.
    """
    log = log_of()
    finalized(log, JAN)
    log.append([event("2")], now=AFTER_JAN)
    log.close_period("sub", FEB, now=AFTER_FEB)
    cut = Subscription("sub", [item_on()], START, customer="cus_1", ended_at=AFTER_JAN + 9 * DAY)
    log.subscribe(cut)
    assert finalized(log, cut.period_at(AFTER_JAN), cut, now=AFTER_FEB).total == 2
    assert deltas(log) == []


def test_what_was_carried_and_is_billed_again_is_given_back():
    """February carried 2 of January; January is made longer and billed anew with them: February
    billed 2 too many, once.
    """
    log = log_of("sum", CARRYING, until(16))
    log.close_period("sub", until(16).period_at(START), now=AFTER_JAN)
    log.append([event("2", at=START + DAY), event("9", at=AFTER_FEB)], now=AFTER_JAN)
    log.subscribe(billed_to())
    assert finalized(log, FEB).total == 2
    assert finalized(log, JAN, now=AFTER_FEB).total == 2
    assert deltas(log) == [(JAN, 2, 2, 2, -2)]
    assert quantities(finalized(log, MAR)) == [(MAR, 9), (JAN, -2)]
    assert deltas(log) == []


def test_periods_side_by_side_replace_nothing():
    """Days that are closed in any order keep their bills: what comes late is owed by the day it is
    of.
    """
    account = Account(CARRYING)
    for at in (0, 3, 1, 2):
        account.use(at, "5")
        account.close(at, None)
    for at in range(4):
        account.use(at, str(at + 1))
    assert deltas(account.log) == [(day(at), 5, 6 + at, 0, 1 + at) for at in range(4)]


# Views of bills -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [IGNORING, CARRYING], ids=["ignore", "carry_forward"])
@pytest.mark.parametrize("formula", [formula.value for formula in Formula])
def test_last_months_invoice_comes_out_again(formula, policy):
    """A view reproduces the invoices of then, by number and by moment, after late events,
    cancellations and closings.
    """
    log = log_of(formula, policy)
    log.append(
        [event("5", identifier="a"), event("0.7", at=NOW + 9), event("-1", at=AFTER_JAN + 9)],
        now=NOW,
    )
    january = finalized(log, JAN, now=AFTER_JAN)
    log.append([event("2", identifier="b")], now=AFTER_JAN + 1)
    february = finalized(log, FEB, now=AFTER_FEB)
    number = log.sequence
    log.cancel("tokens", "a", now=AFTER_FEB + 1)
    log.append([event("50"), event("60", at=AFTER_JAN + 1)], now=AFTER_FEB + 1)
    finalized(log, MAR, now=AFTER_MAR)
    for view in (log.as_of(number), log.as_of(datetime.fromtimestamp(AFTER_FEB, tz=NOON.tzinfo))):
        assert written(finalized(view, JAN)) == written(january)
        assert written(finalized(view, FEB)) == written(february)


def test_views_before_a_closing_show_what_was_measured_then():
    """A view of the time before an invoice knows nothing of it: the period is as open as it was."""
    log = log_of()
    log.append([event("5")], now=NOW)
    before = log.as_of(NOON)
    finalized(log, JAN)
    log.append([event("2"), event("1", at=AFTER_JAN)], now=AFTER_JAN + 1)
    after = log.as_of(log.sequence)
    assert (before.unbilled("sub"), deltas(after)) == ([], [(JAN, 5, 7, 0, 2)])
    preview = preview_invoice(billed_to(), log, now=AFTER_JAN + 1)
    finalized(log, FEB)
    assert (deltas(log), deltas(after)) == ([], [(JAN, 5, 7, 0, 2)])
    # A preview is reproduced, too, with what it carried.
    assert written(preview_invoice(billed_to(), after, now=AFTER_JAN + 1)) == written(preview)


def test_views_of_a_moment_know_the_bills_of_it():
    """What replaced a bill was made when it was made: a view of the moment before still shows the
    one of then.
    """
    log = log_of()
    log.append([event("10", at=START + DAY), event("5", at=START + 20 * DAY)], now=NOW)
    log.close_period("sub", JAN, now=AFTER_JAN)
    whole = preview_invoice(billed_to(), log.as_of(log.sequence), now=START)
    log.append([event("7", at=START + 20 * DAY)], now=AFTER_JAN + 1)
    log.subscribe(until(16), rebill=True)
    finalized(log, until(16).period_at(START), until(16), now=AFTER_FEB)
    log.append([event("1", at=START + DAY)], now=AFTER_FEB)
    moments = [
        datetime.fromtimestamp(at, tz=NOON.tzinfo)
        for at in (AFTER_JAN - 1, AFTER_JAN, AFTER_FEB - 1, AFTER_FEB)
    ]
    views = [log.as_of(at) for at in moments]
    assert [[(one.period, one.quantity) for one in view.unbilled("sub")] for view in views] == [
        [],
        [],
        [(JAN, 7)],
        [(until(16).period_at(START), 1)],
    ]
    assert [view.partial(item_on(), JAN) for view in views[:3]] == [15] * 3
    first, second = (preview_invoice(billed_to(), view, now=START) for view in views[1:3])
    assert written(first) == written(second) == written(whole)


def test_lines_explain_themselves():
    """The explanation of a line says the formula, the exact quantity, and that 0 is billed where it
    is below 0.
    """
    log = log_of("average", IGNORING)
    log.append([event("1"), event("0"), event("0")], now=NOW)
    assert "average of the meter events" in str(explain(finalized(log, JAN).lines[0]))
    log.append([event("-1", at=AFTER_JAN)], now=NOW)
    assert "and 0 is billed" in str(explain(finalized(log, FEB).lines[0]))


# The laws of late usage ---------------------------------------------------------------------------

DAILY = Recurring(interval="day", meter="mtr_tokens")
BY_DAY = sold(Price.per_unit("p", currency="usd", unit_amount=1, recurring=DAILY))
values = st.one_of(
    st.integers(-9, 9).map(str), st.sampled_from(["0.5", "-0.25", "0.000000000000000001"])
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.integers(0, 3), values),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.none()),
        st.tuples(st.just("close"), st.integers(0, 3), st.none()),
    ),
    max_size=25,
)


few = settings(max_examples=max(settings().max_examples // 3, 1))


def day(at):
    return BillingPeriod(START + at * DAY, START + (at + 1) * DAY)


class Account:
    """A log that is used, corrected and closed by the day, and what it measured and billed, kept in
    plain lists.
    """

    def __init__(self, policy, formula="sum"):
        self.log = log_of(formula, policy, BY_DAY)
        self.used = []  # [day, value]; a canceled one is None.
        self.billed = {}
        self.is_count = formula == "count"

    def use(self, at, value):
        self.log.record(
            "tokens",
            paid(value),
            identifier=str(len(self.used)),
            timestamp=START + at * DAY,
            now=NOW,
        )
        self.used.append((at, 1 if self.is_count else Fraction(value)))

    def cancel(self, at, _):
        if at < len(self.used) and self.used[at] is not None:
            self.log.cancel("tokens", str(at), now=NOW)
            self.used[at] = None

    def close(self, at, _):
        invoice = finalize_invoice(BY_DAY, self.log, day(at), now=START + 99 * DAY)
        quantity = sum(Fraction(line.quantity) for line in invoice.lines)
        assert self.billed.setdefault(at, quantity) == quantity

    def measured(self, days):
        return sum(
            (Fraction(one[1]) for one in self.used if one is not None and one[0] in days),
            Fraction(0),
        )

    def unbilled(self):
        return sum((Fraction(delta.quantity) for delta in self.log.unbilled("sub")), Fraction(0))


@pytest.mark.parametrize("policy", [IGNORING, CARRYING], ids=["ignore", "carry_forward"])
@pytest.mark.parametrize("formula", ["sum", "count"])
@few
@given(actions)
def test_nothing_is_lost(policy, formula, steps):
    """Whatever comes late, and in whatever order days are closed: billed and unbilled together are
    what was measured.
    """
    account = Account(policy, formula)
    for action, *step in steps:
        getattr(account, action)(*step)
        assert sum(account.billed.values()) + account.unbilled() == account.measured(account.billed)


@pytest.mark.parametrize("formula", ["sum", "count"])
@few
@given(actions)
def test_what_carry_forward_bills(formula, steps):
    """Days closed in their order have billed, all together, what each had measured when the last of
    them was, at least 0.

    So nobody is billed twice, what is canceled is given back, and no day is billed below 0.
    """
    account, closed = Account(CARRYING, formula), 0
    for action, *step in steps:
        if action != "close":
            getattr(account, action)(*step)
            continue
        account.close(closed, None)
        closed += 1
        assert sum(account.billed.values()) == sum(
            max(account.measured({at}), Fraction(0)) for at in range(closed)
        )


@few
@given(actions)
def test_what_ignore_bills(steps):
    """Under ``ignore`` each day bills what it had measured when it was closed, at least 0, whatever
    the other days did.
    """
    account, closed = Account(IGNORING), set()
    for action, *step in steps:
        getattr(account, action)(*step)
        if action == "close" and step[0] not in closed:
            closed.add(step[0])
            assert account.billed[step[0]] == max(account.measured({step[0]}), 0)


# First and last days of a subscription that begins and ends anew; None has no end. Months are cut
# by them.
lives = st.sampled_from([(0, None), (0, 12), (0, 25), (5, None), (5, 40), (20, None), (20, 70)])
changes = st.lists(
    st.one_of(
        st.tuples(
            st.just("use"),
            st.sampled_from([0, 4, 6, 15, 22, 28, 33, 45, 75]),
            st.integers(-3, 9).map(str),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.none()),
        st.tuples(st.just("live"), lives, st.none()),
        st.tuples(st.just("close"), st.sampled_from([0, 4, 6, 15, 22, 28, 33, 45, 75]), st.none()),
    ),
    max_size=25,
)


class ChangingAccount(Account):
    """An account by the month whose subscription begins and ends anew; what stands of its bills is
    kept in a list.
    """

    def __init__(self, policy):
        super().__init__(policy)
        self.log = log_of("sum", policy)
        self.standing = []  # (first day, day after the last, quantity)

    def live(self, life, _):
        first, last = (None if at is None else START + at * DAY for at in life)
        subscription = Subscription(
            "sub", [item_on()], START, start_date=first, ended_at=last, customer="cus_1"
        )
        try:
            self.log.subscribe(subscription, rebill=True)
        except InvalidValueError as refusal:
            # It would make a billed period longer.
            if refusal.code != ErrorCode.CHANGE_NOT_BILLABLE:
                raise

    def close(self, at, _):
        subscription = self.log.subscription("sub")
        period = subscription.period_at(START + at * DAY)
        if period is None:
            return
        invoice = finalize_invoice(subscription, self.log, period, now=START + 99 * DAY)
        quantity = sum(Fraction(line.quantity) for line in invoice.lines)
        billed = invoice.period  # As it was cut when it was billed.
        first, end = ((one - START) // DAY for one in (billed.start_seconds, billed.end_seconds))
        former = [one for one in self.standing if one[:2] == (first, end)]
        assert former in ([], [(first, end, quantity)])
        self.standing = [one for one in self.standing if one[1] <= first or end <= one[0]] + [
            (first, end, quantity)
        ]

    def days(self):
        return {at for first, end, _ in self.standing for at in range(first, end)}


@pytest.mark.parametrize("policy", [IGNORING, CARRYING], ids=["ignore", "carry_forward"])
@few
@given(changes)
def test_nothing_is_lost_where_periods_change(policy, steps):
    """Whatever begins and ends anew: what stands of the bills and what is unbilled are together
    what was measured of it.
    """
    account = ChangingAccount(policy)
    for action, *step in steps:
        getattr(account, action)(*step)
        billed = sum((quantity for *_, quantity in account.standing), Fraction(0))
        assert billed + account.unbilled() == account.measured(account.days())
    assert restore_meter_log(snapshot(account.log)) == account.log


@pytest.mark.parametrize("policy", [IGNORING, CARRYING], ids=["ignore", "carry_forward"])
@few
@given(actions)
def test_explanations_add_up(policy, steps):
    """The events of a line, as an invoice is explained, sum to what its period comes to, also of
    one that is made again.
    """
    account = Account(policy)
    for action, *step in steps:
        getattr(account, action)(*step)
        for at in account.billed:
            for line in finalize_invoice(BY_DAY, account.log, day(at), now=START + 99 * DAY).lines:
                events = sum(Fraction(one.event.payload["value"]) for one in explain(line).events)
                assert (events if line.before is None else max(events, 0)) == line.total_usage


@few
@given(actions)
def test_many_items_at_once_are_as_one_by_one(steps):
    """The partials of many items and periods asked at once are those of each asked alone, open and
    closed.
    """
    account = Account(CARRYING)
    for action, *step in steps:
        getattr(account, action)(*step)
    (item,) = BY_DAY.items
    asked = [(item, day(at)) for at in (3, 0, 2, 1)]
    assert account.log.partials(asked) == [account.log.partial(*one) for one in asked]
    quantities = [one.total_usage for one in summarize_all(asked, account.log)]
    assert quantities == [summarize(item, account.log, period).total_usage for _, period in asked]


def test_deltas_say_what_they_are_made_of():
    """A delta is measured less billed less what later invoices carried, exactly."""
    delta = UnbilledDelta("si", JAN, "m", Decimal("0.1"), Fraction(1, 3), Decimal("0.2"))
    assert delta.quantity == Fraction(1, 3) - Fraction(3, 10)
    assert timedelta(days=31) == JAN.end - JAN.start


# Work in proportion -------------------------------------------------------------------------------

EVERY_DAY = Subscription(
    "sub",
    [
        SubscriptionItem(
            "si",
            Price.per_unit(
                "p",
                currency="usd",
                unit_amount=1,
                recurring=attrs.evolve(ON_TOKENS, interval="day"),
            ),
        )
    ],
    START,
    customer="cus_1",
)


def test_a_bill_asks_no_more_of_the_past_than_what_changed(monkeypatch):
    """Each of 400 finalizations measures as much as each of the first, and one of late usage the
    periods since it.
    """
    log, measured, asked = log_of("sum", CARRYING, EVERY_DAY), [], MeterReader._measured

    def counted(self, customer, meter, period):
        measured.append(period)
        return asked(self, customer, meter, period)

    monkeypatch.setattr(MeterReader, "_measured", counted)
    work = []
    for place, period in zip(
        range(400), EVERY_DAY.periods_from(EVERY_DAY.start_date), strict=False
    ):
        late = [event("1", at=period.start_seconds - 10 * DAY)] if place % 100 == 99 else []
        log.append([event("5", at=period.start_seconds), *late], now=period.start_seconds)
        measured.clear()
        finalized(log, period, EVERY_DAY)
        work.append(len(measured))
    assert max(work[:50]) <= 5
    assert max(one for place, one in enumerate(work) if place % 100 not in {99, 0}) <= 5
    assert 10 <= max(work) <= 30
    assert log.unbilled("sub") == []


@pytest.mark.parametrize("formula", [*Formula, "windows"])
def test_what_is_remembered_of_bills_is_what_a_new_log_finds(formula):
    """Whatever came late or was canceled between two questions: the answers are those of a log that
    was just restored.
    """
    draw = Random(str(formula))  # noqa: S311 - no secret
    subscription, options = EVERY_DAY, {"formula": formula}
    if (
        formula == "windows"
    ):  # A day's last event overwrites the others, also those of the period that ended at noon.
        subscription = attrs.evolve(
            EVERY_DAY, billing_cycle_anchor=START + DAY // 2, start_date=None
        )
        options = {"event_time_window": "day"}
    log = log_of(options.pop("formula", "sum"), CARRYING, subscription, **options)
    periods = list(islice(subscription.periods_from(subscription.start_date), 30))
    for place, period in enumerate(periods):
        at = [draw.randrange(START, period.end_seconds) for _ in range(draw.choice([0, 0, 1, 3]))]
        log.append(
            [
                event(str(draw.randrange(-3, 5)), at=one, identifier=f"{place}.{n}")
                for n, one in enumerate(at)
            ],
            now=period.end_seconds,
        )
        if draw.random() < 0.4 and len(log):
            sent = draw.choice(log.events()).event
            log.cancel("tokens", sent.identifier, now=period.end_seconds)
        again = restore_meter_log(snapshot(log))
        assert log.unbilled("sub") == again.unbilled("sub")
        assert log.corrections(subscription.items[0], period) == again.corrections(
            subscription.items[0], period
        )
        if draw.random() < 0.8:
            finalized(log, period, subscription)
    assert log.unbilled("sub") == restore_meter_log(snapshot(log)).unbilled("sub")
