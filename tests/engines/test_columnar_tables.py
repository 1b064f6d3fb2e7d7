"""Columns know every mode, formula and pricing model, or refuse it by name: what each of their
tables is held to.
"""

from __future__ import annotations

from typing import get_args

import pytest
from builders import JAN, MODES, START, planted, priced, subscribed

pytest.importorskip("numpy", reason="needs the extra columnar")

import event_cases
import numpy as np

import metering_core as mc
from metering_core.bulk.lines import invoice_lines
from metering_core.bulk.rating import rate_lines, rate_many
from metering_core.columnar import (
    ColumnarEvents,
    ColumnarUsage,
    answering,
    paths,
    summaries,
)
from metering_core.columnar import (
    totals as numpy_totals,
)
from metering_core.measures import AGGREGATORS, FORMULAS
from metering_core.meters import Formula, Meter
from metering_core.pricing import PRICING_MODELS, Tier


class Unknown(type(FORMULAS[Formula.MIN])):
    """A row that a log computes with and nothing else does: a class and its functions, as a new one
    is told to be.
    """

    column = None
    sql = ()


LEAST = planted(mc.AggregateUsage, "least")
MEDIAN = planted(Formula, "median")


@pytest.fixture
def with_least(monkeypatch):
    """Have the modes grow by one that only the log computes."""
    monkeypatch.setitem(AGGREGATORS, LEAST, Unknown())


@pytest.fixture
def with_median(monkeypatch):
    """Have the formulas grow by one that only a log computes."""
    monkeypatch.setitem(FORMULAS, MEDIAN, Unknown())


def asked_of(items):
    """Return a subscription with so many items, all of the new mode."""
    return subscribed(*(priced(mode=LEAST, id=f"price_{number}") for number in range(items)))


WAYS = {
    "partial": lambda usage, subscription: usage.partial(subscription.items[0], JAN),
    "partials": lambda usage, subscription: usage.partials(
        [(item, JAN) for item in subscription.items]
    ),
    "total usage": lambda usage, subscription: usage.total_usage(
        [(item, JAN) for item in subscription.items]
    ),
    "total usage of all": lambda usage, _: usage.total_usage_of_all(JAN, [LEAST]),
    "a view": lambda usage, subscription: usage.as_of(min(1, usage.sequence)).partials(
        [(item, JAN) for item in subscription.items]
    ),
    "an invoice": lambda usage, subscription: mc.preview_invoice(
        subscription, usage, now=START + 9
    ),
    "invoice lines": lambda usage, subscription: invoice_lines([subscription], usage, START + 9),
}


@pytest.mark.usefixtures("with_least")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("items", [1, 100])
@pytest.mark.parametrize("records", [0, 3])
def test_a_mode_without_a_kernel_is_computed_by_its_row(way, items, records):
    """A mode that only has its row is folded cell by cell in columns: one item and many, with usage
    and without.
    """
    subscription = asked_of(items)
    usage, log = ColumnarUsage([subscription]), mc.UsageLog([subscription])
    used = [mc.UsageRecord("si_0", quantity, START + quantity) for quantity in (9, 4, 7)[:records]]
    usage.append(used, now=START + 9)
    log.append(used, now=START + 9)
    assert mc.summarize(subscription.items[0], log, JAN).total_usage == (4 if records else 0)
    of_all = [4 if records else 0] + [0] * (items - 1)
    found = WAYS[way](usage, subscription)
    if way == "an invoice":
        assert found.to_dict() == mc.preview_invoice(subscription, log, now=START + 9).to_dict()
    elif way == "invoice lines":
        assert found.total_usage.tolist() == of_all
    elif way.startswith("total usage"):
        assert (found[LEAST] if way.endswith("of all") else found).tolist() == of_all
    elif way == "partial":
        assert found == (4 if records else None)
    else:  # The view is of the first record alone.
        first = (9 if way == "a view" else 4) if records else None
        assert found == [first] + [None] * (items - 1)


@pytest.mark.usefixtures("with_median")
def test_a_formula_that_columns_lack_is_refused_by_name():
    """A meter whose formula columns cannot compute is none of theirs, from the beginning."""
    with pytest.raises(mc.InvoicingError) as caught:
        ColumnarEvents([Meter("m", "e", MEDIAN)])
    assert (caught.value.code, caught.value.param) == ("formula_not_available", "formula")
    columns = ColumnarEvents()
    with pytest.raises(mc.InvoicingError):
        columns.create_meter(Meter("m", "e", MEDIAN))
    assert columns.meters == ()


def test_every_table_of_modes_has_all_of_them():
    """A new mode without a row turns this red, and so does a kind without a mode."""
    assert set(AGGREGATORS) == set(mc.AggregateUsage)
    kinds = set(get_args(paths.Kind))
    assert set(paths.KINDS.values()) == set(answering._PARTIALS) == kinds
    assert all(callable(getattr(numpy_totals, kind)) for kind in kinds)


def test_the_compiled_loops_have_all_kinds():
    """The same of the compiled loops, together and one by one."""
    pytest.importorskip("numba", reason="needs the extra compiled")
    from metering_core.columnar.compiled import folding as compiled  # noqa: PLC0415

    for kind in get_args(paths.Kind):
        assert callable(getattr(compiled, kind))
        assert hasattr(compiled.Everything, kind)


def test_every_table_of_formulas_has_all_of_them():
    """A new formula without its arithmetic turns this red; a level is the only one that is not told
    by its own events.
    """
    assert set(FORMULAS) == set(Formula)
    assert set(summaries.PARTIALS) == {row.column for row in FORMULAS.values()}
    assert set(summaries._NUMERATORS) == set(summaries.PARTIALS) - {"levels"}


def test_tests_speak_of_all_of_them():
    """The modes and meters that tests of engines draw from are all there are."""
    assert set(MODES) == set(mc.AggregateUsage)
    assert {meter.formula for meter in event_cases.METERS} == set(Formula)


MODELS = {
    mc.pricing.PerUnit: mc.pricing.PerUnit("0.7"),
    mc.pricing.Percentage: mc.pricing.Percentage("2.9"),
    mc.pricing.Package: mc.pricing.Package(7, 10),
    mc.pricing.Graduated: mc.pricing.Graduated([Tier(3, 2, 5), Tier(None, "1.5")]),
    mc.pricing.Volume: mc.pricing.Volume([Tier(3, 2, 5), Tier(None, "1.5")]),
}


def test_every_pricing_model_is_rated_in_columns():
    """All models of the table, and one that is none of them, come to what rating them one by one
    comes to.
    """

    class ThreeEach(mc.pricing.PerUnit):
        """A model that columns do not know: theirs is chosen by the very class."""

        def charges(self, quantity):
            return mc.pricing.PerUnit(3).charges(quantity)

    assert set(MODELS) == set(PRICING_MODELS.values())
    for model in [*MODELS.values(), ThreeEach(1)]:
        price = priced(model)
        quantities = np.arange(12)
        expected = [mc.rate(price, quantity).charges for quantity in range(12)]
        settled = [
            [mc.money.settle(mc.money.Amount(one.amount, "usd")).minor_units for one in charges]
            for charges in expected
        ]
        assert rate_many(price, quantities).tolist() == [sum(amounts) for amounts in settled]
        assert rate_lines(price, quantities).amounts.tolist() == [
            amount for amounts in settled for amount in amounts
        ]
