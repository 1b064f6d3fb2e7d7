"""The comparison of two prices against brute force."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pricing_models import Segments, models, packages, prices, total

from metering_core import ErrorCode, InvalidValueError, Price, Tier
from metering_core.tariffs.comparing import STEPS_MAX, Direction, Gap, Stretch, compare

QUANTITIES = range(100)


def per_unit(unit_amount, **options):
    return Price.per_unit("per_unit", currency="usd", unit_amount=unit_amount, **options)


def package(unit_amount, divide_by, round="up"):
    return Price.package(
        "package", currency="usd", unit_amount=unit_amount, divide_by=divide_by, round=round
    )


def direction(difference):
    return (
        Direction.EQUAL
        if not difference
        else Direction.DEARER
        if difference > 0
        else Direction.CHEAPER
    )


def differences(old, new, quantities=QUANTITIES):
    return [total(new, quantity) - total(old, quantity) for quantity in quantities]


class TestCompare:
    @given(prices(), prices())
    def test_every_quantity_has_the_direction_that_rating_gives_it(self, old, new):
        """At each quantity the new price is dearer, cheaper or equal exactly as the difference of
        the totals says.
        """
        comparison = compare(old, new)
        assert [comparison.direction_at(quantity) for quantity in QUANTITIES] == [
            direction(difference) for difference in differences(old, new)
        ]

    @given(prices(packages(9)), prices(packages(9)))
    def test_two_stairs_are_compared_exactly(self, old, new):
        """Packages of unequal sizes agree with rating at every quantity, also where their
        directions repeat for ever.
        """
        comparison = compare(old, new)
        far = [10**9 + quantity for quantity in range(60)]
        for quantities in (QUANTITIES, far):
            assert [comparison.direction_at(quantity) for quantity in quantities] == [
                direction(difference) for difference in differences(old, new, quantities)
            ]

    @given(prices(), prices())
    def test_the_stretches_tile_the_quantities(self, old, new):
        """Stretches begin at 0, follow each other without gap, change direction each time, and end
        only where they repeat.
        """
        comparison = compare(old, new)
        stretches = comparison.stretches
        assert stretches[0].first == 0
        assert all(one.last + 1 == after.first for one, after in pairwise(stretches))
        assert all(one.direction is not after.direction for one, after in pairwise(stretches))
        assert (stretches[-1].last is None) == (comparison.repeats_every is None)
        assert comparison.crossings == tuple(stretch.first for stretch in stretches[1:])

    @given(prices(), prices(), st.integers(0, 60))
    def test_the_gaps_are_those_of_brute_force(self, old, new, end):
        """Up to a quantity, the largest difference on each side, and the least quantity with it,
        are brute force's.
        """
        comparison = compare(old, new, up_to=end)
        found = differences(old, new, range(end + 1))
        largest, least = max(found), min(found)
        assert comparison.dearer == (Gap(found.index(largest), largest) if largest > 0 else None)
        assert comparison.cheaper == (Gap(found.index(least), least) if least < 0 else None)

    @given(prices(), prices())
    def test_a_gap_is_unbounded_exactly_where_it_goes_on_growing(self, old, new):
        """Over all quantities a gap has an end if and only if the difference of far quantities does
        not grow with them.
        """
        comparison = compare(old, new)
        # 7!·1000 is a whole number of packages of every size drawn, so the stairs are where they
        # were.
        near, far = differences(old, new, (5_040_000, 10_080_000))
        for gap, grows in ((comparison.dearer, far > near), (comparison.cheaper, far < near)):
            assert (gap is not None and gap.is_unbounded) == grows
        bounded = [
            gap
            for gap in (comparison.dearer, comparison.cheaper)
            if gap is not None and not gap.is_unbounded
        ]
        found = differences(old, new)
        assert all(gap.amount in (max(found), min(found)) for gap in bounded)

    @given(prices())
    def test_a_price_equals_itself(self, price):
        """A price compared with itself is equal everywhere, and has no gap."""
        comparison = compare(price, price)
        assert comparison.stretches == (Stretch(0, None, Direction.EQUAL),)
        assert (comparison.dearer, comparison.cheaper) == (None, None)

    def test_a_crossing_by_hand(self):
        """10 a unit against 1000 and 5 a unit: 1000 + 5q = 10q at q = 200, where both cost 2000."""
        new = Price.graduated(
            "new", currency="usd", tiers=[Tier("inf", unit_amount=5, flat_amount=1000)]
        )
        comparison = compare(per_unit(10), new)
        assert comparison.stretches == (
            Stretch(0, 199, Direction.DEARER),
            Stretch(200, 200, Direction.EQUAL),
            Stretch(201, None, Direction.CHEAPER),
        )
        assert comparison.dearer == Gap(0, Decimal(1000))
        assert comparison.cheaper == Gap(None, None)
        assert comparison.cheaper.is_unbounded

    def test_a_crossing_far_away_is_computed(self):
        """Prices that differ by 10**-12 a unit meet after 10**15 units where one has a flat fee of
        1000.
        """
        new = Price.graduated("new", currency="usd", tiers=[Tier("inf", "0.999999999999", 1000)])
        assert compare(per_unit(1), new).crossings == (10**15, 10**15 + 1)

    def test_packages_against_units_by_hand(self):
        """100 units at 9.00 a package against 10 a unit: equal at 90 of the first hundred, cheaper
        to its end.
        """
        comparison = compare(per_unit(10), package(900, 100))
        assert comparison.stretches[:4] == (
            Stretch(0, 0, Direction.EQUAL),
            Stretch(1, 89, Direction.DEARER),
            Stretch(90, 90, Direction.EQUAL),
            Stretch(91, 100, Direction.CHEAPER),
        )
        # 9 packages cost 8100, as 810 units do; the next one is due at 901, when units cost 9010
        # and 10 packages 9000.
        assert comparison.stretches[-1] == Stretch(811, None, Direction.CHEAPER)
        assert comparison.dearer == Gap(1, Decimal(890))

    def test_stairs_of_equal_slope_repeat_for_ever(self):
        """Packages of 2 for 2 and of 3 for 3 cost the same a unit, so the comparison repeats every
        6 units.
        """
        comparison = compare(package(2, 2), package(3, 3))
        assert comparison.repeats_every == 6
        # Units 1 to 6 cost 2, 2, 4, 4, 6, 6 by twos and 3, 3, 3, 6, 6, 6 by threes.
        expected = ["dearer", "dearer", "cheaper", "dearer", "equal", "equal"]
        assert [comparison.direction_at(600 + unit).value for unit in range(1, 7)] == expected
        assert (comparison.dearer, comparison.cheaper) == (Gap(4, Decimal(2)), Gap(3, Decimal(-1)))
        assert "this repeats every 6 units" in str(comparison)

    def test_a_package_of_a_trillion_units_is_no_work(self):
        """Two packages of the same enormous size are one stair: nothing is enumerated."""
        comparison = compare(package(5, 10**12), package(6, 10**12))
        assert comparison.stretches == (
            Stretch(0, 0, Direction.EQUAL),
            Stretch(1, None, Direction.DEARER),
        )

    def test_stairs_that_repeat_too_late_are_refused_by_name(self):
        """Equal slopes over packages of 999,983 and 1,000,003 units repeat after a trillion: a
        bound is asked for.
        """
        old, new = package(999_983, 999_983), package(1_000_003, 1_000_003)
        with pytest.raises(
            InvalidValueError, match="packages of 999,983 and 1,000,003 units"
        ) as caught:
            compare(old, new)
        assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_MISSING, "up_to")
        bounded = compare(old, new, up_to=10_000_000)
        assert bounded.up_to == 10_000_000
        assert bounded.stretches[-1].last == 10_000_000
        # One more package of the new price is due from 1,000,004 units on, two of the old one from
        # 999,984 on.
        assert bounded.direction_at(999_984) is Direction.CHEAPER
        with pytest.raises(InvalidValueError) as caught:
            bounded.direction_at(10_000_001)
        assert caught.value.code is ErrorCode.PARAMETER_INVALID_INTEGER

    def test_a_bound_with_too_many_steps_is_refused_too(self):
        """`up_to` does not turn exactness off: where it leaves too many steps it is refused like
        its absence.
        """
        with pytest.raises(InvalidValueError, match="received 1000000000"):
            compare(package(2, 2), package(3 * 10**12 + 1, 3 * 10**12), up_to=10**9)
        assert STEPS_MAX < 10**9 // 2

    def test_a_tier_of_any_length_against_packages_is_no_work(self):
        """Where the slope decides the sign, the steps of a package are not gone through, however
        long the tier is.
        """
        tiers = [Tier(10**15, unit_amount=100), Tier("inf", unit_amount=1)]
        comparison = compare(package(10, 10), Price.graduated("new", currency="usd", tiers=tiers))
        assert comparison.direction_at(10**14) is Direction.DEARER

    @given(prices(), prices())
    def test_a_comparison_is_plain_data_and_sentences(self, old, new):
        """Every comparison goes through JSON as it is, and names both prices in its text."""
        comparison = compare(old, new)
        assert json.loads(json.dumps(comparison.to_dict())) == comparison.to_dict()
        assert str(comparison).startswith("price compared with price:")

    def test_a_long_comparison_is_cut_in_words_only(self):
        """The text shows the first twelve stretches and the last one; the value has all."""
        comparison = compare(per_unit(10), package(900, 100))
        assert (
            f"and so on, {len(comparison.stretches) - 12:,} more, the last: cheaper from "
            "811 units on" in str(comparison)
        )
        assert "At most dearer: USD 8.90 at 1 unit." in str(comparison)
        assert "At most cheaper: without end" in str(comparison)

    @pytest.mark.parametrize(
        ("old", "new", "up_to", "code", "param"),
        [
            (None, per_unit(1), None, ErrorCode.PARAMETER_INVALID_OBJECT, "price"),
            (per_unit(1), per_unit(1).model, None, ErrorCode.PARAMETER_INVALID_OBJECT, "price"),
            (per_unit(1), per_unit(1), 1.5, ErrorCode.PARAMETER_INVALID_INTEGER, "up_to"),
            (per_unit(1), per_unit(1), -1, ErrorCode.PARAMETER_INVALID_INTEGER, "up_to"),
            (
                per_unit(1),
                Price.per_unit("x", currency="eur", unit_amount=1),
                None,
                ErrorCode.CURRENCY_MISMATCH,
                "new",
            ),
        ],
    )
    def test_what_cannot_be_compared_is_refused_by_name(self, old, new, up_to, code, param):
        """What is no price, a malformed bound and two currencies are refused with the
        field's name.
        """
        with pytest.raises(InvalidValueError) as caught:
            compare(old, new, up_to=up_to)
        assert (caught.value.code, caught.value.param) == (code, param)

    @given(prices(models()), st.integers(1, 40))
    def test_falling_segments_are_compared_too(self, price, quantity):
        """A model of the user's own whose charges fall is compared like any other."""
        falling = Segments(
            ((20, ((Decimal(40), Decimal(-2)),)), (None, ((Decimal(3), Decimal(1)),)))
        )
        new = Price("new", "usd", falling)
        assert compare(price, new).direction_at(quantity) is direction(
            total(new, quantity) - total(price, quantity)
        )
