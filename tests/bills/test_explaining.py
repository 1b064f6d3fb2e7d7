"""Explanations: the records, cells, tiers and rounding behind a line, as data and as sentences."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from builders import DAY, FEB, JAN, START, priced, subscribed, used
from test_invoicing import Halves, Shares, Steps, everything

from metering_core import (
    Formula,
    Meter,
    MeterLog,
    MeterPolicy,
    Recurring,
    Tier,
    UsageLog,
    explain,
    finalize_invoice,
    preview_invoice,
)
from metering_core.pricing import Charge, Graduated, Package, PerUnit
from metering_core.usage import Cell

NOW = START + DAY


def explained(log, number=0, now=NOW):
    return explain(preview_invoice(log.subscriptions[0], log, now=now).lines[number])


def test_a_line_is_explained_in_sentences():
    """From records to rounding: 1,005 set and 26 more make 1,031, of which 31 x 3.6 = 111.6 is paid
    as 112.
    """
    price = priced(
        Graduated([Tier(1000, 0, 900), Tier("inf", "3.6")]),
        id="api",
        nickname="API calls",
        unit_label="calls",
    )
    log = used(
        (START, 7),
        (START, 1005, "set"),
        (START, 20),
        (START + 5, 6),
        subscription=subscribed(price),
    )
    unit, flat, rest = (str(explained(log, number)) for number in range(3))
    assert (
        rest
        == """\
USD 1.12 for 31 calls × API calls (Tier 2 at USD 0.036 / month)
  Records: 4 of item si_0, folded into 2 cells.
    2024-01-01T00:00:00Z: + 7 (#1), set 1005 (#2), + 20 (#3) → 1,025
    2024-01-01T00:00:05Z: + 6 (#4) → 6
  Quantity: the sum of the cells of item si_0 in 2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z is 1,031.
  Tier 2: 31 × USD 0.036 = USD 1.116 exactly.
  Rounding: 111.6 minor units, half up, is 112: USD 1.12."""
    )
    assert unit.endswith(
        "Tier 1: 1,000 × USD 0.00 = USD 0.00 exactly.\n"
        "  Rounding: none needed; the line is USD 0.00."
    )
    assert flat.endswith(
        "Tier 1: it is reached, so its flat amount USD 9.00 is due.\n"
        "  Rounding: none needed; the line is USD 9.00."
    )


@pytest.mark.parametrize(
    ("mode", "deciding", "words"),
    [
        ("sum", [5, 9, 9, 2], "the sum of the cells of item si_0"),
        ("max", [9, 9], "the greatest cell of item si_0"),
        ("last_during_period", [2], "the latest cell of item si_0"),
        ("min", [2], "the least cell of item si_0"),
        ("count", [5, 9, 9, 2], "the number of cells of item si_0"),
        ("average", [5, 9, 9, 2], "the average of the cells of item si_0"),
        ("hourly_peaks", [9, 9], "the sum of the greatest cell of each hour of item si_0"),
        ("daily_peaks", [9, 9], "the sum of the greatest cell of each day of item si_0"),
    ],
)
def test_the_deciding_cells_are_named(mode, deciding, words):
    """All cells decide a sum, a count and an average, the extreme ones an extreme or a peak, the
    latest one the last value.
    """
    log = used(
        *((START + at, quantity) for at, quantity in enumerate([5, 9, 9, 2])),
        subscription=subscribed(priced(mode=mode)),
    )
    explanation = explained(log)
    assert [cell.quantity for cell in explanation.deciding] == deciding
    assert [cell.quantity for cell in explanation.cells] == [5, 9, 9, 2]
    assert words in str(explanation)


@pytest.mark.parametrize(("now", "period"), [(NOW, JAN), (JAN.end_seconds, FEB)])
def test_last_ever_is_explained_by_its_one_cell(now, period):
    """The latest cell and its records explain a last_ever, of this period or of an earlier one."""
    log = used(
        (START, 5),
        (START + 5, 7),
        (START + 5, 1),
        (START + 1, 9),
        subscription=subscribed(priced(mode="last_ever")),
    )
    explanation = explained(log, now=now)
    assert explanation.line.period == period
    assert explanation.cells == explanation.deciding == (Cell(START + 5, 8),)
    assert [one.sequence for one in explanation.records] == [2, 3]
    assert "looking back through earlier periods" in str(explanation)


@pytest.mark.parametrize("mode", ["sum", "max", "last_during_period", "last_ever"])
def test_nothing_is_explained_by_nothing(mode):
    """A line without usage says so: no records, no cells, a quantity of 0."""
    explanation = explained(UsageLog([subscribed(priced(mode=mode))]))
    assert (explanation.records, explanation.cells, explanation.deciding) == ((), (), ())
    assert "Records: 0 of item si_0, folded into 0 cells." in str(explanation)
    assert "is 0." in str(explanation)


def test_long_explanations_are_cut():
    """The sentences show ten cells and ten records of one; the data holds all."""
    log = used(*((START + at, 1) for at in range(12)), *((START, 2) for _ in range(12)), now=NOW)
    explanation = explained(log)
    assert (len(explanation.cells), len(explanation.records)) == (12, 24)
    text = str(explanation)
    assert "… and 2 more cells" in text
    assert "+ 2 (#21), … 3 more → 25" in text


def test_licensed_lines_say_what_was_agreed():
    """A licensed item has no records: its quantity was agreed."""
    subscription, log = everything()
    text = str(explain(preview_invoice(subscription, log, now=NOW).lines[-1]))
    assert (
        "item seats is licensed; 3 was agreed for 2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z."
        in text
    )
    assert "Price: 3 × USD 15.00 = USD 45.00 exactly." in text


def test_packages_are_explained():
    """201 units make 3 packages of 100, and 3 x 12.5 is rounded."""
    log = used((START, 201), subscription=subscribed(priced(Package("12.5", 100))))
    text = str(explained(log))
    assert "Price: 201 units make 3 packages of 100; 3 × USD 0.125 = USD 0.375 exactly." in text
    assert "Rounding: 37.5 minor units, half up, is 38: USD 0.38." in text


def test_an_engine_without_records_explains_the_rest():
    """Where the engine keeps no records, the quantity and the money are explained all the same."""
    subscription = subscribed(priced(PerUnit(3)))
    explanation = explain(finalize_invoice(subscription, Halves(), JAN, now=JAN.end).lines[0])
    assert not explanation.has_records
    assert "Records: the engine that aggregated them keeps none of item si_0." in str(explanation)
    assert "Price: 2.5 × USD 0.03 = USD 0.075 exactly." in str(explanation)


def shared(model, quantity):
    return str(
        explain(
            finalize_invoice(subscribed(priced(model)), Shares(quantity), JAN, now=JAN.end).lines[
                -1
            ]
        )
    )


def test_a_share_is_explained_in_full():
    """Where the line shows twelve places, the explanation also has the exact quantity and the exact
    amount.
    """
    text = shared(Graduated([Tier(1, 0), Tier(None, 10)]), Fraction(5, 3))
    assert "is 1.666666666666 (exactly 5/3)." in text
    assert (
        "Tier 2: 0.666666666666 (exactly 2/3) × USD 0.10 = USD 0.06666666666666… (exactly "
        "20/3 minor units)." in text
    )
    assert text.endswith("Rounding: 20/3 minor units, half up, is 7: USD 0.07.")


def test_a_share_that_comes_to_a_decimal_is_explained():
    """A third of 9 cents is 3 cents exactly, with nothing to round."""
    text = shared(PerUnit(9), Fraction(1, 3))
    assert "Price: 0.333333333333 (exactly 1/3) × USD 0.09 = USD 0.03 exactly." in text
    assert text.endswith("Rounding: none needed; the line is USD 0.03.")


def test_a_long_decimal_is_explained_in_full():
    """Thirteen places are one more than the line shows; twelve are all there is to say."""
    assert "Price: 0.123456789012 (exactly 0.1234567890123) × USD 0.01" in shared(
        PerUnit(1), Decimal("0.1234567890123")
    )
    assert "Price: 0.123456789012 × USD 0.01" in shared(PerUnit(1), Decimal("0.123456789012"))


def test_shares_of_packages_and_of_users_models_are_explained():
    """Packages count the exact quantity; a model without a unit amount is explained by what it
    comes to.
    """
    assert "Price: 5.333333333333 (exactly 16/3) units make 2 packages of 5" in shared(
        Package(10, 5), Fraction(16, 3)
    )

    class Thirds:
        def charges(self, quantity):
            return [Charge("unit", quantity, None, Fraction(1, 3))]

    assert "Price: 2 units come to USD 0.00333333333333… (exactly 1/3 minor units)." in shared(
        Thirds(), 2
    )


def metered(formula, *values):
    """Return the explanation of a bill for January with a meter of these values, one a day, at 10
    cents a unit.
    """
    price = priced(PerUnit(10), recurring=Recurring(meter="m"))
    subscription = subscribed(price, customer="cus_1")
    log = MeterLog([Meter("m", "load", formula)], [subscription])
    for day, value in enumerate(values):
        log.record(
            "load",
            {"stripe_customer_id": "cus_1", "value": value},
            timestamp=START + day * DAY,
            now=START + day * DAY,
        )
    return explain(finalize_invoice(subscription, log, JAN, now=JAN.end).lines[0])


def test_a_meters_average_is_explained():
    """1, 1 and 3 average 5/3; at 10 cents that is 50/3 cents, paid as 17. The quantity comes from
    events, not records.
    """
    explanation = metered("average", "1", "1", "3")
    assert (explanation.records, explanation.cells, explanation.has_records) == ((), (), True)
    assert [logged.event.payload["value"] for logged in explanation.events] == ["1", "1", "3"]
    assert (
        str(explanation)
        == """\
USD 0.17 for 1.666666666666 × price (at USD 0.10 / month)
  Events: 3 count for item si_0.
    2024-01-01T00:00:00Z: load: stripe_customer_id cus_1, value 1 (#1)
    2024-01-02T00:00:00Z: load: stripe_customer_id cus_1, value 1 (#2)
    2024-01-03T00:00:00Z: load: stripe_customer_id cus_1, value 3 (#3)
  Quantity: the average of the meter events for item si_0 in 2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z is 1.666666666666 \
(exactly 5/3).
  Price: 1.666666666666 (exactly 5/3) × USD 0.10 = USD 0.16666666666666… (exactly 50/3 minor units).
  Rounding: 50/3 minor units, half up, is 17: USD 0.17."""
    )


def test_events_are_those_that_count():
    """Canceled and overwritten events are none of a line's; a level is explained by the changes
    before the period, too.
    """
    day = 20 * DAY  # Of January, and then of February.
    for formula, window, expected in (
        ("sum", "day", ["c"]),
        ("weighted_sum", None, ["a", "b", "c"]),
    ):
        subscription = subscribed(
            priced(PerUnit(10), recurring=Recurring(meter="m")), customer="cus_1"
        )
        log = MeterLog([Meter("m", "load", formula, event_time_window=window)], [subscription])
        times = {
            "a": START + day,
            "b": JAN.end_seconds + day,
            "c": JAN.end_seconds + day + 1,
            "d": JAN.end_seconds + day + 2,
        }
        for identifier, at in times.items():
            payload = {"stripe_customer_id": "cus_1", "value": "1"}
            log.record("load", payload, identifier=identifier, timestamp=at, now=at)
        log.cancel("load", "d", now=JAN.end_seconds + day + 3)
        (line,) = preview_invoice(subscription, log, now=JAN.end_seconds + day).lines
        assert [logged.event.identifier for logged in explain(line).events] == expected
        assert f"Events: {len(expected)} count" in str(explain(line))


def test_what_a_bill_carries_is_explained():
    """2 of January's events came after its bill; February's bill has a line of its own for them,
    which says so.
    """
    subscription = subscribed(priced(PerUnit(10), recurring=Recurring(meter="m")), customer="cus_1")
    log = MeterLog(
        [Meter("m", "load")], [subscription], policy=MeterPolicy(late_usage="carry_forward")
    )
    log.close_period("sub", JAN, now=JAN.end)
    for value, at in (("2", JAN.end_seconds - 1), ("1", JAN.end_seconds)):
        log.record(
            "load", {"stripe_customer_id": "cus_1", "value": value}, timestamp=at, now=JAN.end
        )
    own, late = preview_invoice(subscription, log, now=JAN.end).lines
    assert [one.event.payload["value"] for one in explain(own).events] == ["1"]
    assert [one.event.payload["value"] for one in explain(late).events] == ["2"]
    assert f" in {JAN} is 2 now; 0 of it were billed before." in str(explain(late))


def test_an_invoice_made_again_is_explained_as_it_was_billed():
    """10 were billed; 7 came late and the 10 were canceled: the invoice made again is still of the
    event of 10, #1.
    """
    subscription = subscribed(priced(PerUnit(10), recurring=Recurring(meter="m")), customer="cus_1")
    log = MeterLog([Meter("m", "load")], [subscription])
    payload = {"stripe_customer_id": "cus_1", "value": "10"}
    log.record(
        "load", payload, identifier="a", timestamp=JAN.end_seconds - 9, now=JAN.end_seconds - 9
    )
    (first,) = finalize_invoice(subscription, log, JAN, now=JAN.end).lines
    log.record("load", {**payload, "value": "7"}, timestamp=JAN.end_seconds - 5, now=JAN.end)
    log.cancel("load", "a", now=JAN.end)
    for usage in (log, log.as_of(log.sequence), log.as_of(JAN.end)):
        (again,) = finalize_invoice(subscription, usage, JAN, now=FEB.end).lines
        assert str(explain(again)) == str(explain(first))
        assert [one.sequence for one in explain(again).events] == [1]


def test_an_engine_without_events_says_so():
    """A meter's line from an engine that keeps no events is explained from its quantity on, and
    says what is missing.
    """
    line = metered("sum", "2").line
    text = str(explain(attrs.evolve(line, usage=None)))
    assert "Events: the engine that aggregated them lists none of item si_0." in text
    assert "is 2." in text


def test_many_events_are_counted():
    """Ten events are listed; the others are counted."""
    text = str(metered("count", *["1"] * 13))
    assert "Events: 13 count for item si_0." in text
    assert "… and 3 more events" in text


def test_a_negative_quantity_is_explained():
    """Corrections that exceed the usage are shown, and nothing is billed."""
    assert "is -1.5, and 0 is billed." in str(metered("sum", "1", "-2.5"))


@pytest.mark.parametrize("formula", Formula)
def test_every_formula_has_its_words(formula):
    """A line of any formula can be explained."""
    assert " for item si_0 in " in str(metered(formula, "2"))


def test_a_users_own_model_is_explained():
    """A charge without a unit amount is explained by its result."""
    text = str(explained(used((START, 2001), subscription=subscribed(priced(Steps())))))
    assert "Price: 2,001 units come to USD 0.075 exactly." in text
    assert Decimal("7.5") == Decimal("2.5") * 3


def test_an_explanation_is_about_then():
    """What arrived after a line was made does not enter its explanation, nor that of a
    view's line.
    """
    log = used((START, 5))
    line = preview_invoice(subscribed(), log, now=NOW).lines[0]
    before = str(explain(line))
    log.record("si_0", 9, timestamp=START, now=NOW)
    assert str(explain(line)) == before
    old = preview_invoice(subscribed(), log.as_of(1), now=NOW).lines[0]
    assert str(explain(old)) == before
    assert len(explain(line).records) == 1
