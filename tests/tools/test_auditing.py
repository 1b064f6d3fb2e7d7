"""The audit against brute force: each finding is there exactly when trying all quantities of a
small tariff finds it.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import attrs
import pages
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pricing_models import (
    BOUND_MAX,
    Declared,
    Segments,
    bill,
    models,
    packages,
    prices,
    tier_lists,
    tiered,
    total,
)

from metering_core import ErrorCode, InvalidValueError, InvoicingError, Price, Tier
from metering_core.pricing import Charge, ChargeKind, Graduated, Package, PerUnit, Volume
from metering_core.tariffs.auditing import CHECKS, Finding, FindingCode, Severity, audit
from metering_core.tariffs.pieces import BREAKPOINTS_MAX, DeclaresBreakpoints, tariff

# Beyond the last bound (12, in tiers, or 7 units a package) every small tariff shows within 20
# units what it goes on to do: a charge of 0.1 a unit, the smallest, settles to more than 0 after 5.
QUANTITIES = range(BOUND_MAX + 20)


def found(price, code, **also):
    return [
        one
        for one in audit(price)
        if one.code is code and all(getattr(one, key) == it for key, it in also.items())
    ]


def the(price, code, **also):
    (finding,) = found(price, code, **also)
    return finding


def volume(*tiers, currency="usd"):
    return Price.volume(
        "price", currency=currency, tiers=[Tier(up_to, unit, flat) for up_to, unit, flat in tiers]
    )


def graduated(*tiers, currency="usd"):
    return Price.graduated(
        "price", currency=currency, tiers=[Tier(up_to, unit, flat) for up_to, unit, flat in tiers]
    )


def covered(finding):
    return {
        quantity
        for first, last in finding.intervals
        for quantity in range(first, (QUANTITIES[-1] if last is None else last) + 1)
    }


class TestTariff:
    @given(prices(currencies=("usd", "isk")), st.integers(0, 40))
    def test_the_pieces_cost_what_rating_says(self, price, quantity):
        """A tariff has the exact and the settled total of every quantity that rating has."""
        assert tariff(price).total(quantity) == total(price, quantity)
        assert tariff(price).settled(quantity) == bill(price, quantity)

    @given(prices())
    def test_the_pieces_tile_the_quantities(self, price):
        """Pieces follow each other without gap or overlap from 0 on, and the last has no end."""
        pieces = tariff(price).pieces
        assert pieces[0].first == 0
        assert pieces[-1].last is None
        assert all(before.last + 1 == after.first for before, after in pairwise(pieces))

    @given(tiered(whole=False))
    def test_a_model_of_the_users_own_is_read_like_a_built_in_one(self, model):
        """What a declared model costs is the same function, piece by piece, as that of the model it
        copies.
        """
        own = tariff(Price("own", "usd", Declared(model))).pieces
        built_in = tariff(Price("own", "usd", model)).pieces
        assert [(piece.first, piece.last, piece.start) for piece in own] == [
            (piece.first, piece.last, piece.start) for piece in built_in
        ]
        assert isinstance(Declared(model), DeclaresBreakpoints)

    def test_a_package_of_any_size_is_two_pieces(self):
        """Packages are kept as a stair, so a trillion units a package cost nothing to look at."""
        price = Price.package("price", currency="usd", unit_amount=5, divide_by=10**12)
        assert len(tariff(price).pieces) == 2
        assert [tariff(price).total(quantity) for quantity in (0, 1, 10**12, 10**12 + 1)] == [
            0,
            5,
            5,
            10,
        ]


class TestCliff:
    @given(prices())
    def test_there_is_a_cliff_exactly_when_the_total_falls(self, price):
        """No `cliff` finding if and only if the total is monotone; the pair, the money and the
        intervals are brute force's.
        """
        totals = [total(price, quantity) for quantity in QUANTITIES]
        falls = max(totals[low] - totals[high] for high in QUANTITIES for low in range(high + 1))
        cliffs = found(price, FindingCode.CLIFF)
        assert bool(cliffs) == (falls > 0)
        if cliffs:
            low, high = cliffs[0].quantities
            assert low < high
            assert cliffs[0].amounts == (totals[low], totals[high])
            assert totals[low] - totals[high] == falls
            saving = {
                low
                for low in QUANTITIES
                if any(totals[low] > totals[high] for high in range(low + 1, len(totals)))
            }
            assert covered(cliffs[0]) == saving

    def test_the_worst_pair_of_a_volume_price(self):
        """10 seats at 9.00 cost 90.00, 11 at 8.00 cost 88.00: 10 seats, and no fewer, had better be
        11 (9 cost 81.00).
        """
        cliff = the(volume((10, 900, None), ("inf", 800, None)), FindingCode.CLIFF)
        assert cliff.quantities == (10, 11)
        assert cliff.amounts == (9000, 8800)
        assert cliff.intervals == ((10, 10),)
        assert cliff.severity is Severity.ERROR
        assert (
            cliff.message
            == "10 units cost USD 90.00 but 11 cost USD 88.00, which is USD 2.00 less."
        )

    def test_of_equal_falls_the_closest_pair_is_shown(self):
        """10.00 for up to 5 units and 5.00 for more: it is the fifth unit whose neighbour costs
        less.
        """
        cliff = the(volume((5, None, 1000), ("inf", None, 500)), FindingCode.CLIFF)
        assert cliff.quantities == (5, 6)
        assert cliff.intervals == ((0, 5),)

    def test_a_cliff_over_millions_is_found_at_once(self):
        """Intervals are computed: 8 a unit from 10**12 + 1 on undercuts 9 a unit from 8 * (10**12 +
        1) / 9 up.
        """
        cliff = the(volume((10**12, 9, None), ("inf", 8, None)), FindingCode.CLIFF)
        assert cliff.intervals == ((8 * (10**12 + 1) // 9 + 1, 10**12),)

    def test_what_rounding_does_to_a_cliff_is_said(self):
        """A fall of 0.2 that the settled bill does not show is still a cliff, and the sentence says
        what is billed.
        """
        cliff = the(volume((1, "1.2", None), ("inf", "0.5", None)), FindingCode.CLIFF)
        assert "USD 0.002 less (USD 0.00 on the settled bill)" in cliff.message


class TestTiers:
    @given(prices(tiered(whole=False)))
    def test_a_tier_is_dead_exactly_when_each_of_its_quantities_had_better_be_greater(self, price):
        """A tier is dead if every whole quantity in it, or none at all, has a greater one that
        costs less.
        """
        totals = [total(price, quantity) for quantity in QUANTITIES]
        dead, below = [], -1
        for number, tier in enumerate(price.model.tiers, start=1):
            inside = [
                q for q in QUANTITIES if q > below and (tier.up_to is None or q <= tier.up_to)
            ]
            if tier.up_to is not None and all(min(totals[q:]) < totals[q] for q in inside):
                dead.append(number)
            below = tier.up_to
        assert [one.tier for one in found(price, FindingCode.DEAD_TIER)] == dead

    @given(st.sampled_from([Graduated, Volume]), tier_lists())
    def test_a_tier_is_like_its_neighbour_exactly_when_it_can_be_dropped(self, kind, tiers):
        """Dropping the tier, so that the one before reaches on, changes no total at any quarter of
        a unit.
        """
        price = Price("price", "usd", kind(tiers))
        quarters = [Decimal(quarter) / 4 for quarter in range(4 * BOUND_MAX + 20)]
        totals = [total(price, quantity) for quantity in quarters]
        droppable = []
        for index in range(1, len(tiers)):
            merged = attrs.evolve(tiers[index - 1], up_to=tiers[index].up_to)
            fewer = Price("price", "usd", kind([*tiers[: index - 1], merged, *tiers[index + 1 :]]))
            if [total(fewer, quantity) for quantity in quarters] == totals:
                droppable.append(index + 1)
        assert [one.tier for one in found(price, FindingCode.SAME_AS_NEIGHBOUR)] == droppable

    @given(prices(st.one_of(tiered(), packages(), st.builds(PerUnit, st.integers(0, 5)))))
    def test_the_rate_rises_exactly_when_a_later_tier_has_a_higher_unit_price(self, price):
        """The pair with the largest rise of the unit price is reported, and none where unit prices
        only fall.
        """
        rates = [tier.unit_amount for tier in getattr(price.model, "tiers", ())]
        rises = [late - early for index, late in enumerate(rates) for early in rates[:index]]
        reported = [one.amounts[1] - one.amounts[0] for one in found(price, FindingCode.RATE_RISES)]
        assert reported == ([max(rises)] if rises and max(rises) > 0 else [])

    def test_a_declared_model_has_rates_too(self):
        """The unit price of a model of the user's own is what it gains with a unit between two
        breakpoints.
        """
        price = Price("price", "usd", Declared(Graduated([Tier(5, 1), Tier(6, 9), Tier("inf", 3)])))
        rises = the(price, FindingCode.RATE_RISES)
        # The tier of a single quantity has no slope to read a rate from.
        assert rises.quantities == (0, 7)
        assert rises.amounts == (1, 3)


class TestAmounts:
    @given(prices())
    def test_a_flat_fee_at_zero_is_found_exactly_when_zero_costs_something(self, price):
        """`flat_fee_at_zero` is there if and only if rating 0 units gives an amount above 0, and
        says which.
        """
        expected = [total(price, 0)] if total(price, 0) > 0 else []
        assert [one.amounts[0] for one in found(price, FindingCode.FLAT_FEE_AT_ZERO)] == expected

    @given(prices(st.one_of(tiered(), packages(), st.builds(PerUnit, st.integers(0, 5)))))
    def test_a_jump_is_the_largest_cost_of_one_more_unit(self, price):
        """`jump` is there if and only if one more unit somewhere costs more than any unit price,
        and is the largest.
        """
        costs = [total(price, quantity + 1) - total(price, quantity) for quantity in QUANTITIES]
        model = price.model
        rates = [Fraction(tier.unit_amount) for tier in getattr(model, "tiers", ())]
        rates += [Fraction(model.unit_amount) / getattr(model, "divide_by", 1)] if not rates else []
        jumps = found(price, FindingCode.JUMP)
        assert bool(jumps) == (max(costs) > max(rates))
        if jumps:
            low, high = jumps[0].quantities
            assert (high, jumps[0].amounts[1] - jumps[0].amounts[0]) == (low + 1, max(costs))
            assert costs.index(max(costs)) == low

    @given(prices(models()))
    def test_a_jump_is_the_largest_cost_of_one_more_unit_for_any_model(self, price):
        """Whatever the model, a reported jump is the largest there is, and without one no step
        beats every rate.
        """
        costs = [total(price, quantity + 1) - total(price, quantity) for quantity in QUANTITIES]
        rates = [piece.rate for piece in tariff(price).pieces if piece.rate is not None]
        reported = [one.amounts[1] - one.amounts[0] for one in found(price, FindingCode.JUMP)]
        assert reported == ([max(costs)] if max(costs) > max(rates) else [])

    @given(prices(packages()))
    def test_package_waste_is_what_the_emptiest_package_costs(self, price):
        """Waste is found exactly when some quantity pays for units it does not use, and is the most
        that is paid so.
        """
        model = price.model
        per_unit = Fraction(model.unit_amount) / model.divide_by
        worst = max(
            Fraction(total(price, quantity)) - per_unit * quantity for quantity in QUANTITIES
        )
        assert [one.amounts[0] for one in found(price, FindingCode.PACKAGE_WASTE)] == (
            [worst] if worst > 0 else []
        )

    def test_a_share_that_no_decimal_can_write_is_exact(self):
        """One of three units at 10.00 a package leaves two thirds of it unused: a Fraction, and in
        words about 6.67.
        """
        waste = the(
            Price.package("price", currency="usd", unit_amount=1000, divide_by=3),
            FindingCode.PACKAGE_WASTE,
        )
        assert waste.amounts == (Fraction(2000, 3),)
        assert waste.to_dict()["amounts"] == ["2000/3"]
        assert "about USD 6.67 of USD 10.00" in waste.message


class TestRounding:
    @given(prices())
    def test_usage_rounds_to_zero_up_to_the_quantity_that_brute_force_finds(self, price):
        """The greatest quantity whose bill is 0 though its total is not is reported, or that there
        is no greatest.
        """
        lost = [q for q in QUANTITIES[1:] if total(price, q) > 0 and bill(price, q) == 0]
        findings = found(price, FindingCode.ROUNDS_TO_ZERO, tier=None)
        assert bool(findings) == bool(lost)
        if findings:
            assert findings[0].intervals[0][1] == (None if lost[-1] == QUANTITIES[-1] else lost[-1])
            assert findings[0].amounts == (total(price, findings[0].quantities[0]),)
            assert findings[0].quantities[0] in lost
            assert findings[0].severity is Severity.WARNING

    @given(prices())
    def test_a_charge_rounds_to_zero_up_to_the_quantity_that_brute_force_finds(self, price):
        """The greatest quantity with a charge above 0 that settles to 0 on a bill above 0 is
        reported, as an `info`.
        """
        lost = [
            q
            for q in QUANTITIES[1:]
            if bill(price, q) > 0
            and any(0 < charge.amount < Decimal("0.5") for charge in price.model.charges(q))
        ]
        findings = [one for one in found(price, FindingCode.ROUNDS_TO_ZERO) if one.tier is not None]
        assert bool(findings) == bool(lost)
        if findings:
            assert findings[0].intervals[0][1] == (None if lost[-1] == QUANTITIES[-1] else lost[-1])
            assert findings[0].severity is Severity.INFO

    def test_a_small_percentage_is_billed_nothing_for_long(self):
        """0.1% of 499 cents is 0.499 cents, which settles to 0; of 500 it is half a cent, and
        billed.
        """
        finding = the(
            Price.percentage("p", currency="usd", percent="0.1"), FindingCode.ROUNDS_TO_ZERO
        )
        assert finding.intervals == ((1, 499),)

    def test_a_price_that_never_bills_is_said_to(self):
        """A flat fee of 0.4 cents and nothing else is billed nothing for ever."""
        finding = the(graduated(("inf", None, "0.4")), FindingCode.ROUNDS_TO_ZERO)
        assert finding.intervals == ((1, None),)
        assert "for every quantity from 1 unit on" in finding.message

    @given(prices(currencies=("kwd", "usd")))
    def test_a_bill_is_not_payable_exactly_where_brute_force_finds_the_first(self, price):
        """The least quantity of each tier whose bill is no multiple of the currency's is reported,
        with the bill.
        """
        # Amounts are tenths and the multiple is 10, so settled bills repeat after at most 100
        # steps.
        multiple = {"kwd": 10, "usd": 1}[price.currency]
        expected = []
        for piece in tariff(price).pieces:
            last = piece.first + 110 * piece.width if piece.last is None else piece.last
            witness = next(
                (q for q in range(piece.first, last + 1) if bill(price, q) % multiple), None
            )
            if witness is not None:
                expected.append((piece.tier, (witness,), (bill(price, witness),)))
        reported = found(price, FindingCode.NOT_PAYABLE)
        assert [(one.tier, one.quantities, one.amounts) for one in reported] == expected

    def test_the_first_bill_that_cannot_be_paid_is_computed(self):
        """At 100.000000000001 aurar a unit the drift reaches half a minor unit after 5 * 10**11
        units.
        """
        price = Price.per_unit("price", currency="isk", unit_amount="100.000000000001")
        assert the(price, FindingCode.NOT_PAYABLE).quantities == (5 * 10**11,)

    def test_a_drift_downward_is_computed_too(self):
        """At 99.999999999999 the drift is more than half a minor unit, which rounds down, just
        after 5 * 10**11 units.
        """
        price = Price.per_unit("price", currency="isk", unit_amount="99.999999999999")
        assert the(price, FindingCode.NOT_PAYABLE).quantities == (5 * 10**11 + 1,)

    def test_what_would_have_to_be_tried_too_long_is_refused_by_name(self):
        """Several charges whose settled sum repeats too late are refused, not sampled."""
        own = Segments(
            ((None, ((Decimal(0), Decimal("100.000001")), (Decimal(0), Decimal("99.999999")))),)
        )
        with pytest.raises(InvalidValueError, match="to decide what is payable") as caught:
            audit(Price("price", "isk", own))
        assert caught.value.code is ErrorCode.PARAMETER_INVALID_OBJECT


class TestFindings:
    def test_a_plain_price_has_none(self):
        """A whole price a unit does nothing that its owner may not expect."""
        assert audit(Price.per_unit("price", currency="usd", unit_amount=100)) == ()

    def test_the_most_severe_comes_first(self):
        """Errors stand before warnings, and warnings before what is only worth knowing."""
        price = volume((1, 900, 100), (5, "0.1", None), ("inf", 800, None))
        severities = [list(Severity).index(one.severity) for one in audit(price)]
        assert severities == sorted(severities, reverse=True)
        assert len(set(severities)) > 1

    def test_severities_ascend(self):
        """An error is at least a warning, which is at least an info, and each is at least
        itself.
        """
        info, warning, error = Severity
        assert error.is_at_least(warning)
        assert warning.is_at_least(info)
        assert info.is_at_least(info)
        assert not info.is_at_least(warning)

    @given(prices(currencies=("usd", "isk")))
    def test_findings_are_plain_data(self, price):
        """Every finding goes through JSON as it is, and its sentence ends like one."""
        for one in audit(price):
            assert json.loads(json.dumps(one.to_dict())) == one.to_dict()
            assert one.message.endswith(".")
            assert isinstance(one, Finding)

    def test_every_code_has_a_check(self):
        """Each code is found in one of these prices, so no row of the table is idle."""
        seen = {
            one.code
            for price in (
                volume(
                    (1, "50.3", "0.4"),
                    ("5.2", 40, None),
                    ("5.7", 1, None),
                    (9, 40, None),
                    ("inf", 60, 90),
                    currency="isk",
                ),
                Price.package("price", currency="usd", unit_amount=5, divide_by=4),
                graduated((2, "0.1", None), (3, "0.1", None), ("inf", 1, None)),
                volume((10, 900, None), ("inf", 800, None)),
            )
            for one in audit(price)
        }
        assert seen == set(FindingCode)
        assert len(CHECKS) == len(FindingCode)

    def test_the_page_has_every_finding(self):
        """The table on the page about testing prices has every code, with its severity and what it
        means.
        """
        page = pages.of_documentation("howto", "test-your-prices.md")
        rows = re.findall(
            r"^\| `(\w+)` \| (\w+) \| (.+) \|$",
            page.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        shown = {name: (severity, meaning) for name, severity, meaning in rows}
        assert shown.keys() == {code.value for code in FindingCode}
        for code in FindingCode:
            severity, meaning = shown[code.value]
            assert severity == code.severity.value
            assert meaning.startswith(code.meaning[0].lower() + code.meaning[1:-1])


class Bent:
    """A model that is not linear where it says it is."""

    def charges(self, quantity):
        """Charge the square of the quantity."""
        return [Charge(ChargeKind.UNIT, quantity, None, Decimal(quantity) ** 2)]

    def breakpoints(self):
        """Claim one break."""
        return [10]


class TestRefusals:
    def test_a_model_without_breakpoints_is_refused_by_name(self):
        """A model of the user's own that does not say where its formula changes cannot be
        audited.
        """

        class Opaque:
            def charges(self, quantity):
                return []

        with pytest.raises(InvalidValueError, match=r"with breakpoints\(\)") as caught:
            audit(Price("price", "usd", Opaque()))
        assert (caught.value.code, caught.value.param) == (
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "model",
        )

    def test_a_model_that_is_not_linear_is_refused_by_name(self):
        """A claim of breakpoints is held to its word at more than two quantities."""
        with pytest.raises(
            InvoicingError, match="linear from quantity 0 to 10, received others at quantity 5"
        ) as caught:
            audit(Price("price", "usd", Bent()))
        assert caught.value.code is ErrorCode.PRICING_MODEL_BROKEN

    def test_a_model_that_changes_its_number_of_charges_is_refused_by_name(self):
        """Between breakpoints the charges are the same ones, so that each can be settled by
        itself.
        """

        class Growing(Bent):
            def charges(self, quantity):
                return [Charge(ChargeKind.UNIT, 1, None, Decimal(1))] * (quantity + 1)

        with pytest.raises(InvoicingError, match="received others at quantity 1"):
            audit(Price("price", "usd", Growing()))

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ((Decimal(-1), Decimal(0)), "a negative charge at quantity 0"),
            ((Decimal(9999), Decimal(-1)), "falls for ever"),
        ],
    )
    def test_a_negative_charge_is_refused_by_name(self, line, words):
        """A charge is never below 0, and so none may fall for ever."""
        with pytest.raises(InvoicingError, match=words) as caught:
            audit(Price("price", "usd", Segments(((None, (line,)),))))
        assert caught.value.param == "charges"

    def test_too_many_breakpoints_are_refused_before_they_are_read(self):
        """An endless declaration is refused after a bounded number of them."""

        class Endless(Bent):
            def breakpoints(self):
                return iter(int, 1)

        with pytest.raises(InvalidValueError, match=f"at most {BREAKPOINTS_MAX} breakpoints"):
            audit(Price("price", "usd", Endless()))

    @pytest.mark.parametrize(
        "value", [None, 5, PerUnit(5), Package(5, 2), Volume([Tier("inf", 5)])]
    )
    def test_only_a_price_is_audited(self, value):
        """A bare model, or anything else that is no price, is refused with the field's name."""
        with pytest.raises(InvalidValueError) as caught:
            audit(value)
        assert (caught.value.code, caught.value.param) == (
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "price",
        )
