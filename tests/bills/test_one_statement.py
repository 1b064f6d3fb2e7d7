"""Everything in the project that says what a quantity costs says the same, and comes through one
place or is held to it here.

The table of statements is whole: the sources are searched for whatever rates, charges or settles,
and each function that does is in it. A step that is put between rating and settling changes every
statement, or is refused by name.
"""

import ast
import io
import json
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path

import attrs
import numpy as np
import oracle
import pricing_models
import pytest
from hypothesis import given
from hypothesis import strategies as st

import metering_core as mc
from metering_core import rating
from metering_core.billing_run import invoice_all
from metering_core.bulk.lines import invoice_lines
from metering_core.bulk.rating import lines_one_by_one, rate_lines, rate_many
from metering_core.cli.app import main
from metering_core.columnar import ColumnarUsage, UsageBatch
from metering_core.exact import multiply
from metering_core.tariffs.pieces import tariff
from metering_core.tariffs.rerating import compare_usage, summaries_at
from metering_core.testing.cases import run_cases

PACKAGE = Path(mc.__file__).parent
JUNE, JULY = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
HALF = Fraction(1, 2)


def priced(model, usage_type="metered"):
    return mc.Price("p", "usd", model, mc.Recurring(usage_type=usage_type))


def exact_lines(model, quantity):
    """Return the exact amounts of the lines, by a biller that counts units one at a time and shares
    no code.
    """
    match model:
        case mc.pricing.PerUnit():
            item = {"scheme": "per_unit", "unit": model.unit_amount}
        case mc.pricing.Percentage():
            item = {"scheme": "per_unit", "unit": Fraction(model.percent) / 100}
        case mc.pricing.Package():
            item = {
                "scheme": "package",
                "unit": model.unit_amount,
                "size": model.divide_by,
                "round": model.round.value,
            }
        case _:
            tiers = [(tier.up_to, tier.unit_amount, tier.flat_amount) for tier in model.tiers]
            item = {"scheme": type(model).__name__.lower(), "tiers": tiers}
    return oracle.lines(item, quantity)


def expected(model, quantity, share):
    """Return what is billed for a share of the period, line by line."""
    return [oracle.whole(amount * share) for amount in exact_lines(model, quantity)]


def seconds(at):
    return int(at.timestamp())


# The statements: each returns the amounts of the lines, or their sum, of a quantity at a model for
# a share of June


class Life:
    """A subscription that agreed to a quantity (and used it, where the whole of June is billed),
    and its usage.
    """

    def __init__(self, model, quantity, share):
        start = JUNE + timedelta(seconds=int(30 * 86_400 * (1 - share)))
        self.is_metered = share == 1
        self.price = priced(model, "metered" if self.is_metered else "licensed")
        agreed = None if self.is_metered else quantity
        self.subscription = mc.Subscription(
            "sub", [mc.SubscriptionItem("si", self.price, agreed)], JUNE, start_date=start
        )
        self.start = start
        self.log = mc.UsageLog([self.subscription])
        if self.is_metered:
            self.log.append([mc.UsageRecord("si", quantity, timestamp=start)], now=start)

    @property
    def period(self):
        return self.subscription.period_at(self.start)


def amounts(invoice):
    return [line.amount for line in invoice.lines]


def previewed(model, quantity, share):
    life = Life(model, quantity, share)
    return amounts(mc.preview_invoice(life.subscription, life.log, now=life.start))


def finalized(model, quantity, share):
    life = Life(model, quantity, share)
    return amounts(mc.finalize_invoice(life.subscription, life.log, life.period, now=JULY))


def run_at_once(model, quantity, share):
    life = Life(model, quantity, share)
    return amounts(invoice_all([life.subscription], life.log, life.start, now=JULY)[0])


def in_columns(model, quantity, share):
    life = Life(model, quantity, share)
    return invoice_lines([life.subscription], life.log, life.start).lines.amounts.tolist()


def in_columns_of_columns(model, quantity, share):
    life = Life(model, quantity, share)
    columns = ColumnarUsage([life.subscription])
    if life.is_metered:
        columns.append(
            UsageBatch.from_records([mc.UsageRecord("si", quantity, timestamp=life.start)]),
            now=life.start,
        )
    return invoice_lines([life.subscription], columns, life.start).lines.amounts.tolist()


def one_by_one(model, quantity, share):
    segment = rating.Segment(priced(model), quantity, share)
    return lines_one_by_one([[segment]]).amounts.tolist()


def explained(model, quantity, share):
    life = Life(model, quantity, share)
    lines = mc.preview_invoice(life.subscription, life.log, now=life.start).lines
    last = [str(mc.explain(line)).splitlines()[-1] for line in lines]
    return [
        round(Fraction(sentence.rsplit("USD ", 1)[1].rstrip(".").replace(",", "")) * 100)
        for sentence in last
    ]


def in_cases(model, quantity, share):
    life = Life(model, quantity, share)
    subscription = json.loads(json.dumps(life.subscription.to_dict()))
    records = [{"subscription_item": "si", "quantity": quantity, "timestamp": seconds(life.start)}]
    period = {"start": life.period.start_seconds, "end": life.period.end_seconds}
    case = {
        "id": "one", "kind": "invoice", "subscription": subscription, "period": period,
        "records": records if life.is_metered else [],
    }  # fmt: skip
    return told_by_cases({**case, "expected": {"total": -1}})


def told_by_cases(case):
    (result,) = run_cases({"cases": [case]})
    (difference,) = result.differences
    return int(difference.rsplit(" ", 1)[1])


def rated(model, quantity, share):
    return [one.amount for one in mc.rate(priced(model), quantity).settled(share=share)]


def exactly_rated(model, quantity, _):
    return mc.rate(priced(model), quantity).amount.minor_units


def totalled(model, quantity, _):
    return rating.settled_total(priced(model), quantity)


def rated_in_cases(model, quantity, _):
    price = priced(model).to_dict()
    return told_by_cases(
        {
            "id": "one",
            "kind": "rating",
            "price": price,
            "quantity": quantity,
            "expected": {"total": -1},
        }
    )


def rated_many(model, quantity, _):
    return int(rate_many(priced(model), np.array([quantity]))[0])


def rated_in_lines(model, quantity, _):
    return rate_lines(priced(model), np.array([quantity])).amounts.tolist()


def compared(model, quantity, _):
    life = Life(model, quantity, Fraction(1))
    summaries = summaries_at(life.price, life.log, [life.subscription], now=JUNE)
    return compare_usage(life.price, life.price, summaries).old_revenue


def migrated(model, quantity, _):
    life = Life(model, quantity, Fraction(1))
    (period,) = mc.stripe.migrate_to_meters(life.log, [life.subscription], now=JUNE).periods
    assert period.records_amount == period.events_amount
    return period.records_amount


def as_a_tariff(model, quantity, _):
    return tariff(priced(model)).settled(quantity)


def exactly_as_a_tariff(model, quantity, _):
    return tariff(priced(model)).total(quantity)


def file_of(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def said_by(arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(arguments) == 0, out.getvalue()
    return json.loads(out.getvalue())


def rated_on_the_command_line(model, quantity, _, tmp_path):
    (one,) = said_by(
        ["rate", file_of(tmp_path, "price.json", priced(model).to_dict()), str(quantity), "--json"]
    )["ratings"]
    assert one["total"] == sum(line["amount"] for line in one["lines"])
    return [line["amount"] for line in one["lines"]]


def invoiced_on_the_command_line(model, quantity, share, tmp_path):
    life = Life(model, quantity, share)
    catalog = file_of(tmp_path, "catalog.json", {"subscriptions": [life.subscription.to_dict()]})
    usage = f"subscription_item,quantity,timestamp\nsi,{quantity},{seconds(life.start)}\n" if life.is_metered else (
        "subscription_item,quantity,timestamp\n"
    )  # fmt: skip
    at = str(seconds(life.start))
    said = said_by(
        ["invoice", catalog, file_of(tmp_path, "u.csv", usage), "--period", at, "--format", "json"]
    )
    (one,) = said["invoices"] if isinstance(said, dict) else said
    return [line["amount"] for line in one["lines"]]


def compared_on_the_command_line(model, quantity, _, tmp_path):
    life = Life(model, quantity, Fraction(1))
    price = file_of(tmp_path, "price.json", life.price.to_dict())
    catalog = file_of(tmp_path, "catalog.json", {"subscriptions": [life.subscription.to_dict()]})
    usage = file_of(
        tmp_path,
        "u.csv",
        f"subscription_item,quantity,timestamp\nsi,{quantity},{seconds(life.start)}\n",
    )
    said = said_by(
        ["compare", price, price, "--usage", usage, "--catalog", catalog, "--json", "--up-to", "9"]
    )
    return said["usage"]["old_revenue"]


def billed_late(model, quantity, _):
    """All of it comes after the period was billed with nothing, and is billed as the difference."""
    price = mc.Price("p", "usd", model, mc.Recurring(meter="m"))
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si", price)], JUNE, customer="cus_1"
    )
    log = mc.MeterLog(
        [mc.Meter("m", "calls")],
        [subscription],
        policy=mc.MeterPolicy.history(late_usage="carry_forward"),
    )
    june = subscription.period_at(JUNE)
    billed = mc.finalize_invoice(subscription, log, june, now=june.end).total
    log.record(
        "calls",
        {"stripe_customer_id": "cus_1", "value": str(quantity)},
        timestamp=JUNE,
        now=june.end,
    )
    lines = mc.preview_invoice(subscription, log, now=june.end).lines
    return billed + sum(line.amount for line in lines if line.before is not None)


# Which say it of a part of a period, which of usage alone; and which refuse a step that they do not
# know.
OF_A_SHARE = [
    previewed,
    finalized,
    run_at_once,
    in_columns,
    in_columns_of_columns,
    one_by_one,
    explained,
    in_cases,
    rated,
]
OF_USAGE = [
    totalled,
    rated_in_cases,
    rated_many,
    rated_in_lines,
    compared,
    migrated,
    as_a_tariff,
    billed_late,
]
EXACT = [exactly_rated, exactly_as_a_tariff]
IN_FILES = [invoiced_on_the_command_line, rated_on_the_command_line, compared_on_the_command_line]
REFUSING = [as_a_tariff, exactly_as_a_tariff]

STATEMENTS = {one.__name__ for one in (*OF_A_SHARE, *OF_USAGE, *EXACT, *IN_FILES)}

# Every function of the package that rates, charges or settles, and the statements that hold it.
PLACES = {
    "tariffs.auditing._cliff": {"as_a_tariff"},
    "tariffs.auditing._first_not_payable": {"as_a_tariff"},
    "tariffs.auditing._first_not_payable_of_many": {"as_a_tariff"},
    "tariffs.auditing._is_billed_nothing": {"as_a_tariff"},
    "tariffs.auditing._loses_a_line": {"as_a_tariff"},
    "tariffs.auditing._not_payable": {"as_a_tariff"},
    "cli.prices._print_rating": {"rated_on_the_command_line"},
    "cli.prices._rating_fields": {"rated_on_the_command_line"},
    "cli.prices._total": {"rated_on_the_command_line"},
    "cli.prices.rate_quantities": {"rated_on_the_command_line"},
    "bulk.rating._one_by_one": {"rated_many"},
    "bulk.rating._straight": {"rated_many", "rated_in_lines"},
    "bulk.rating.lines_one_by_one": {"one_by_one"},
    "bulk.rating.rate_lines": {"rated_in_lines"},
    "differences._by_part": {"billed_late"},
    "bulk.lines._rated": {"in_columns", "in_columns_of_columns"},
    "bulk.lines.invoice_lines": {"in_columns", "in_columns_of_columns"},
    "invoicing.invoice_of": {
        "previewed",
        "finalized",
        "run_at_once",
        "in_cases",
        "explained",
        "invoiced_on_the_command_line",
    },
    "stripe.migration._compared": {"migrated"},
    "rating.RatedUsage.amount": {"exactly_rated"},
    "rating.RatedUsage.settled": {"rated"},
    "rating._settled": {"rated"},
    "rating.rate": {"rated"},
    "rating.rate_segments": {"rated"},
    "rating.settled_total": {"totalled"},
    "tariffs.rerating._biller": {"compared"},
    "tariffs.rerating._biller.bill": {"compared", "compared_on_the_command_line"},
    "tariffs.pieces.FixedLines.plus": {"as_a_tariff", "exactly_as_a_tariff"},
    "tariffs.pieces.Piece.settled_at": {"as_a_tariff"},
    "tariffs.pieces.Tariff.settled": {"as_a_tariff"},
    "tariffs.pieces._charges": {"as_a_tariff"},
    "testing.cases._rated": {"rated_in_cases"},
    # What a model is asked, and laws that ask it: no bill.
    "money._ToMultiple.__call__": set(),
    "money.settle": set(),
    "pricing.charges_for": set(),
    "pricing.owes_at_zero": set(),
    "pricing.BuiltInModel.charges": set(),
    "testing.laws.bills._charged": set(),
    "testing.laws.bills.check_settle_laws": set(),
}
FUNCTIONS = {
    "rate",
    "settle",
    "settled_total",
    "billed",
    "half_up",
    "settled_half_up",
    "settled_units",
    "rate_many",
    "rate_lines",
}
FUNCTIONS |= {"lines_one_by_one", "charges_for"}
METHODS = {"charges", "settled", "settled_at"}


def is_of_a_price(call):
    function = call.func
    name = isinstance(function, ast.Name) and function.id in FUNCTIONS
    return name or (isinstance(function, ast.Attribute) and function.attr in METHODS)


def functions_that_price(node, path):
    """Yield the dotted name of every function in which something is rated, charged or settled."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and is_of_a_price(child):
            yield path
        is_scope = isinstance(child, ast.FunctionDef | ast.ClassDef)
        yield from functions_that_price(child, f"{path}.{child.name}" if is_scope else path)


@cache
def sources():
    """Return the parsed modules of the package by their dotted names."""
    files = sorted(PACKAGE.rglob("*.py"))
    names = (".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files)
    return {
        name: ast.parse(file.read_text(encoding="utf-8"))
        for name, file in zip(names, files, strict=True)
    }


def test_the_table_of_places_is_whole():
    """A function that rates, charges or settles and is not in the table is a statement that nothing
    holds to the others.
    """
    found = {
        place for module, tree in sources().items() for place in functions_that_price(tree, module)
    }
    assert found == PLACES.keys()
    assert set().union(*PLACES.values()) == STATEMENTS


def test_settling_is_said_in_one_place():
    """Only the step of rating's list settles, by what money says; a law has its own truth."""
    places = {
        module
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"settle", "settled_units"}
    }
    assert places == {"money", "rating", "testing.laws.bills"}


# The law ------------------------------------------------------------------------------------------


def disagreeing(statements, model, quantity, share, due, *more):
    """Return the statements that say something else than the lines' amounts, or their sum."""
    found = {one.__name__: one(model, quantity, share, *more) for one in statements}
    return {name for name, said in found.items() if said not in (due, sum(due))}


def check_one_statement(model, quantity, share):
    """Hold every statement to a biller that shares no code; of a whole period also those that know
    usage alone.
    """
    due = expected(model, quantity, share)
    assert disagreeing(OF_A_SHARE, model, quantity, share, due) == set()
    if share == 1:
        assert disagreeing(OF_USAGE, model, quantity, share, due) == set()
        exact = sum(exact_lines(model, quantity))
        assert [Fraction(one(model, quantity, share)) for one in EXACT] == [exact, exact]


@given(
    model=st.builds(mc.pricing.PerUnit, pricing_models.amounts())
    | st.builds(mc.pricing.Percentage, pricing_models.amounts())
    | pricing_models.tiered()
    | pricing_models.packages(),
    quantity=st.integers(0, 30),
    hours=st.just(720) | st.integers(1, 719),
)
def test_every_statement_says_the_same(model, quantity, hours):
    """On random prices, quantities and parts of June, line by line where there are lines, to the
    minor unit.
    """
    check_one_statement(model, quantity, Fraction(hours, 720))


MODELS = [
    mc.pricing.PerUnit("9.5"),
    mc.pricing.Graduated(
        [mc.Tier(5, unit_amount=700, flat_amount="0.5"), mc.Tier("inf", unit_amount="649.5")]
    ),
    mc.pricing.Volume(
        [mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650, flat_amount=101)]
    ),
    mc.pricing.Package("1000.5", 5),
    mc.pricing.Percentage("950.5"),
]


@pytest.mark.parametrize("share", [Fraction(1), HALF, Fraction(1, 720)], ids=str)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_so_do_files_and_the_command_line(model, share, tmp_path):
    """An invoice of a catalog, a rating of a price and a comparison over a file of usage."""
    check_one_statement(model, 7, share)
    statements = IN_FILES if share == 1 else IN_FILES[:1]
    assert disagreeing(statements, model, 7, share, expected(model, 7, share), tmp_path) == set()


# Steps ---------------------------------------------------------------------------------------------


def less_on_lines(draft):
    """10 % off, on every line."""
    lines = [
        attrs.evolve(line, exact=multiply(line.exact, Fraction(9, 10))) for line in draft.lines
    ]
    return attrs.evolve(draft, lines=tuple(lines))


def less_in_lines(draft):
    """10 % off, each as a line of its own below the segment's others."""
    lines = []
    for place in range(len(draft.segments)):
        own = [line for line in draft.lines if line.segment == place]
        off = multiply(sum(Fraction(line.exact) for line in own), Fraction(-1, 10))
        charge = mc.pricing.Charge("flat", 0, None, off, label="10 % off")
        lines += [*own, rating.DraftLine(place, charge, off)]
    return attrs.evolve(draft, lines=tuple(lines))


def due_with(step, model, quantity, share):
    """Return what is billed after a step, line by line, by the arithmetic of the oracle."""
    exact = [amount * share for amount in exact_lines(model, quantity)]
    if step is less_on_lines:
        return [oracle.whole(amount * Fraction(9, 10)) for amount in exact]
    return [*map(oracle.whole, exact), -oracle.whole(sum(exact) / 10)]


@pytest.mark.parametrize("share", [Fraction(1), HALF], ids=str)
@pytest.mark.parametrize("step", [less_on_lines, less_in_lines], ids=lambda step: step.__name__)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_step_changes_every_statement(model, step, share, tmp_path, monkeypatch, capsys):
    """10 % off between rating and settling is billed by every statement, or it refuses the step by
    name.
    """
    names = [name for name, _ in rating.STEPS]
    place = names.index("settle")
    steps = (*rating.STEPS[:place], ("discount", step), *rating.STEPS[place:])
    due = due_with(step, model, 7, share)
    assert due != expected(model, 7, share)
    monkeypatch.setattr(rating, "STEPS", steps)
    assert disagreeing(OF_A_SHARE, model, 7, share, due) == set()
    assert disagreeing(IN_FILES[:1], model, 7, share, due, tmp_path) == set()
    if share != 1:
        return
    agreeing = [one for one in OF_USAGE if one not in REFUSING]
    assert disagreeing(agreeing, model, 7, share, due) == set()
    assert disagreeing(IN_FILES[1:2], model, 7, share, due, tmp_path) == set()
    exact = sum(exact_lines(model, 7)) * Fraction(9, 10)
    assert Fraction(exactly_rated(model, 7, share)) == exact
    for one in REFUSING:
        with pytest.raises(mc.InvalidValueError, match="'discount'"):
            one(model, 7, share)
    with pytest.raises(AssertionError):
        compared_on_the_command_line(model, 7, share, tmp_path)
    assert "'discount'" in capsys.readouterr().err
