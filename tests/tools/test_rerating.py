"""The change of revenue against the invoices that were made."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from builders import DAY, FEB, JAN, MAR, START
from hypothesis import given
from hypothesis import strategies as st
from pricing_models import bill, prices

from metering_core import (
    ErrorCode,
    InvalidValueError,
    Price,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageSummary,
    finalize_invoice,
)
from metering_core.money import up
from metering_core.periods import from_unix_seconds
from metering_core.rating import settled_total
from metering_core.tariffs.comparing import Direction
from metering_core.tariffs.rerating import PERCENTILES, compare_usage, summaries_at


def per_unit(unit_amount, **options):
    return Price.per_unit("per_unit", currency="usd", unit_amount=unit_amount, **options)


OLD = Price.graduated("old", currency="usd", tiers=[Tier(1000, "0.4", 900), Tier("inf", "0.3")])
NEW = Price.graduated("new", currency="usd", tiers=[Tier("inf", "0.35", 1000)])


def three_months():
    """Return two subscriptions at the old price, one item at another, and a log of their usage."""
    other = SubscriptionItem("si_other", per_unit(7))
    first = Subscription("sub_1", [SubscriptionItem("si_small", OLD), other], START)
    second = Subscription("sub_2", [SubscriptionItem("si_large", OLD)], START)
    log = UsageLog([first, second])
    for index, period in enumerate((JAN, FEB, MAR)):
        now = period.start_seconds + DAY
        log.record("si_small", 333 * index, timestamp=now, now=now)
        log.record("si_large", 20_001 + index, timestamp=now, now=now)
        log.record("si_other", 5, timestamp=now, now=now)
    return log, first, second


def summary(quantity, item="si_0"):
    return UsageSummary(item, "sum", from_unix_seconds(START), None, quantity)


class TestCompareUsage:
    def test_the_old_side_equals_what_was_invoiced(self):
        """Every item and period is re-rated, and the old side is the sum of the invoice's lines, to
        the cent.
        """
        log, *subscriptions = three_months()
        comparison = compare_usage(
            OLD, NEW, summaries_at(OLD, log, subscriptions, now=MAR.end_seconds - 1)
        )
        invoiced = Counter()
        for subscription in subscriptions:
            for period in (JAN, FEB, MAR):
                for line in finalize_invoice(subscription, log, period, now=MAR.end).lines:
                    invoiced[line.subscription_item, period.start] += line.amount
        of_old = {key: amount for key, amount in invoiced.items() if key[0] != "si_other"}
        assert {
            (change.subscription_item, change.start): change.old for change in comparison.changes
        } == of_old
        assert comparison.old_revenue == sum(of_old.values())
        assert comparison.revenue_change == comparison.new_revenue - comparison.old_revenue

    def test_revenue_by_hand(self):
        """1,500 units: 400 + 900 + 150 (tier 2) = 1450 before, 1000 + 525 = 1525 after; none: 900
        before, 1000 after.
        """
        comparison = compare_usage(OLD, NEW, [summary(1500), summary(0), summary(1500)])
        assert [(change.old, change.new) for change in comparison.changes] == [
            (1450, 1525),
            (900, 1000),
            (1450, 1525),
        ]
        assert (comparison.old_revenue, comparison.new_revenue, comparison.revenue_change) == (
            3800,
            4050,
            250,
        )
        assert comparison.counts == {Direction.CHEAPER: 0, Direction.EQUAL: 0, Direction.DEARER: 3}

    @given(prices(), prices(), st.lists(st.integers(0, 50)))
    def test_both_sides_are_rated_and_settled_line_by_line(self, old, new, quantities):
        """Each change is the bill of its quantity at both prices, and the sums, counts and ranks
        follow from them.
        """
        comparison = compare_usage(old, new, [summary(quantity) for quantity in quantities])
        assert [change.old for change in comparison.changes] == [
            bill(old, quantity) for quantity in quantities
        ]
        assert [change.new for change in comparison.changes] == [
            bill(new, quantity) for quantity in quantities
        ]
        ranked = sorted(bill(new, quantity) - bill(old, quantity) for quantity in quantities)
        assert comparison.revenue_change == sum(ranked)
        assert [change.difference for change in comparison.largest_increases(3)] == [
            difference for difference in reversed(ranked[-3:]) if difference > 0
        ]
        assert [change.difference for change in comparison.largest_decreases()] == [
            difference for difference in ranked[:10] if difference < 0
        ]
        assert sum(comparison.counts.values()) == len(quantities)

    @pytest.mark.parametrize("count", [1, 2, 3, 19, 20, 21, 100])
    def test_percentiles_are_nearest_ranks(self, count):
        """The p-th percentile is the least difference that at least p % of the bills do not
        exceed.
        """
        comparison = compare_usage(
            per_unit(1), per_unit(2), [summary(quantity) for quantity in range(1, count + 1)]
        )
        expected = {
            percent: next(one for one in range(1, count + 1) if one * 100 >= percent * count)
            for percent in PERCENTILES
        }
        assert comparison.percentiles == expected
        assert comparison.percentiles[100] == count

    def test_another_rounding_settles_each_charge(self):
        """The rounding that settled the invoices settles both sides."""
        comparison = compare_usage(per_unit("0.1"), per_unit("0.2"), [summary(6)], rounding=up)
        assert [(change.old, change.new) for change in comparison.changes] == [(1, 2)]
        assert settled_total(per_unit("0.1"), 6, up) == ceil(Fraction(6, 10))

    def test_decimal_usage_is_re_rated(self):
        """A quantity that a meter gives in decimals is rated as it is."""
        comparison = compare_usage(per_unit(10), per_unit(20), [summary(Decimal("1.5"))])
        assert comparison.changes[0].new == 30
        assert comparison.to_dict()["largest_increases"][0]["quantity"] == "1.5"

    def test_the_report_is_plain_data_and_sentences(self):
        """The report goes through JSON as it is, and says the change of revenue first."""
        comparison = compare_usage(
            OLD, per_unit("0.4"), [summary(1500, "si_a"), summary(900_000, "si_b")]
        )
        assert json.loads(json.dumps(comparison.to_dict())) == comparison.to_dict()
        text = str(comparison)
        # 900,000 units: 400 + 900 + 269,700 = 271,000 before, 360,000 after; 1,500: 1,450 before,
        # 600 after.
        assert "revenue USD 3,606.00 instead of USD 2,724.50, a change of USD 881.50" in text
        assert "1 dearer, 0 equal, 1 cheaper" in text
        assert "si_b from 2024-01-01: USD 3,600.00 instead of USD 2,710.00 for 900000" in text

    def test_no_usage_changes_nothing(self):
        """Without summaries the revenue is 0 on both sides and there are no percentiles."""
        comparison = compare_usage(OLD, NEW, [])
        assert (comparison.revenue_change, comparison.percentiles) == (0, {})
        assert str(comparison).startswith("0 bills at new instead of old:")

    @pytest.mark.parametrize(
        ("old", "new", "summaries", "code", "param"),
        [
            ("old", NEW, [], ErrorCode.PARAMETER_INVALID_OBJECT, "old"),
            (OLD, None, [], ErrorCode.PARAMETER_INVALID_OBJECT, "new"),
            (OLD, NEW, [5], ErrorCode.PARAMETER_INVALID_OBJECT, "summaries[0]"),
            (
                OLD,
                Price.per_unit("x", currency="eur", unit_amount=1),
                [],
                ErrorCode.CURRENCY_MISMATCH,
                "new",
            ),
        ],
    )
    def test_what_cannot_be_re_rated_is_refused_by_name(self, old, new, summaries, code, param):
        """What is no price, what is no summary and two currencies are refused with the field's
        name.
        """
        with pytest.raises(InvalidValueError) as caught:
            compare_usage(old, new, summaries)
        assert (caught.value.code, caught.value.param) == (code, param)

    def test_a_price_that_nobody_has_is_refused_by_name(self):
        """Summaries are collected for a price that some item has, and an unknown one is a slip, not
        an empty answer.
        """
        log, *subscriptions = three_months()
        with pytest.raises(InvalidValueError, match="received 'new'") as caught:
            summaries_at(NEW, log, subscriptions, now=MAR.end)
        assert (caught.value.code, caught.value.param) == (
            ErrorCode.PARAMETER_INVALID_CHOICE,
            "price",
        )
