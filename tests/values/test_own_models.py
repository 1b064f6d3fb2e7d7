"""A model of the user's own is held to its word wherever it is asked: also before a change, and
when usage comes late.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import DAY, FEB, JAN, START
from wrong_values import WRONG, Own

import metering_core as mc
from metering_core.columnar import ColumnarUsage
from metering_core.pricing import is_linear, owes_at_zero
from metering_core.tariffs.pieces import tariff

ENGINES = [mc.UsageLog, ColumnarUsage]
LATE = JAN.end_seconds - 10
GRACE = mc.AcceptancePolicy(late_grace=timedelta(days=40), late_attribution="open_period")


def per_unit(quantity):
    """Charge a cent a unit."""
    return [mc.pricing.Charge("unit", quantity, 1, quantity)]


class Model:
    """A model of the user's own, a cent a unit unless it is told otherwise."""

    def __init__(self, charges=per_unit, breakpoints=lambda: ()):
        self.charges = charges
        self.breakpoints = breakpoints


def charging(field):
    """Return what makes a model that charges a wrong value in one of the fields of a charge."""

    def model(wrong):
        numbers = {"quantity": 0, "unit_amount": 1, "amount": 0, field: wrong}
        return Model(lambda _: [mc.pricing.Charge("unit", **numbers)])

    return model


def not_callable(field):
    """Return what makes a model whose verb is a wrong value; one that can be called is the model's
    own code.
    """
    return lambda wrong: Model(**{field: 5 if callable(wrong) else wrong})


RETURNING = {
    "charges": lambda wrong: Model(lambda _: wrong),
    "a charge": lambda wrong: Model(lambda _: [wrong]),
    "an amount": charging("amount"),
    "a quantity": charging("quantity"),
    "a unit amount": charging("unit_amount"),
    "no method for charges": not_callable("charges"),
    "breakpoints": lambda wrong: Model(breakpoints=lambda: wrong),
    "a breakpoint": lambda wrong: Model(breakpoints=lambda: [wrong]),
    "no method for breakpoints": not_callable("breakpoints"),
}
CHARGES = [
    place for place in RETURNING if "breakpoint" not in place
]  # Which is all that is asked before a change.


def version(model):
    """Return a subscription at a model."""
    return mc.Subscription("sub", [mc.SubscriptionItem("si", mc.Price("p", "usd", model))], START)


def outcome(ask, state):
    """Return the code of a refusal, or None; else only the value's own exception leaves, and what
    raises changes nothing.
    """
    before = state()
    try:
        ask()
    except mc.MeteringError as refusal:
        assert state() == before
        return str(refusal.code)
    except Own:
        assert state() == before
    return None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", CHARGES)
def test_a_broken_model_is_told_from_a_version(engine, place):
    """Whatever a model charges for 0, a version at its price is taken or refused by name, and then
    nothing has changed.
    """
    codes = []
    for wrong in WRONG.values():
        log = engine([version(mc.pricing.PerUnit(1))])
        try:
            newer = version(RETURNING[place](wrong()))
        except mc.MeteringError:  # None is no verb.
            continue
        codes.append(
            outcome(
                lambda log=log, newer=newer: log.subscribe(newer, now=START + DAY),
                lambda log=log: log.subscriptions,
            )
        )
    assert set(codes) <= {"pricing_model_broken", "change_not_billable", None}
    assert codes.count("pricing_model_broken") > len(WRONG) / 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", RETURNING)
def test_a_broken_model_is_told_from_late_usage(engine, place):
    """Whatever a model charges and declares, late usage at its price is answered or refused by
    name, and appended whole.
    """
    codes = []
    for wrong in WRONG.values():
        model = Model()
        log = engine([version(model)], policy=GRACE)
        log.close_period("sub", JAN, now=JAN.end)
        vars(model).update(vars(RETURNING[place](wrong())))
        batch = [mc.UsageRecord("si", 1, FEB.start), mc.UsageRecord("si", 1, LATE)]
        codes.append(
            outcome(
                lambda log=log, batch=batch: log.append(batch, now=FEB.start),
                lambda log=log: len(log),
            )
        )
    assert set(codes) <= {"pricing_model_broken", None}
    assert codes.count("pricing_model_broken") > len(WRONG) / 2


@pytest.mark.parametrize(
    ("model", "param", "received"),
    [
        (Model(lambda _: None), "charges", "None"),
        (Model(lambda _: [None]), "charges[0]", "None"),
        (Model("charges"), "charges", "'charges' (str)"),
        (Model(breakpoints=lambda: None), "breakpoints", "None"),
        (Model(breakpoints=lambda: [0.5, 1]), "breakpoints[0]", "0.5 (float)"),
        (Model(breakpoints=5), "breakpoints", "5 (int)"),
    ],
)
def test_the_refusal_says_what_the_model_returned(model, param, received):
    """The same sentence names the model, the place and what it returned, whoever asks."""
    asks = [tariff, lambda price: is_linear(price.model), lambda price: mc.rate(price, 1)]
    found = []
    for ask in asks[: 2 if "breakpoints" in param else 3]:
        with pytest.raises(mc.InvoicingError) as refusal:
            ask(mc.Price("p", "usd", model))
        found.append((refusal.value.code, refusal.value.param))
        assert "expected of Model " in str(refusal.value)
        assert str(refusal.value).endswith(f"received {received}")
    assert set(found) == {("pricing_model_broken", param)}


def test_what_a_model_raises_leaves_as_it_is():
    """An exception of the model's own code is not wrapped."""

    def fail(*_):
        raise Own("its own")

    for ask in (owes_at_zero, is_linear):
        with pytest.raises(Own):
            ask(Model(fail))
    with pytest.raises(Own):
        is_linear(Model(breakpoints=fail))
