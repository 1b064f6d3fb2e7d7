"""Teaches Hypothesis our types: ``st.from_type(Price)`` draws a price.

Hypothesis calls this through the entry point group ``hypothesis``, by way of
``_metering_core_hypothesis.py`` beside the package, which waits until somebody imports
``metering_core``. The strategies are imported when the first value is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import metering_core as mc

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

STRATEGIES: dict[type[Any], str] = {
    mc.money.Amount: "amounts",
    mc.BillingCycle: "cycles",
    mc.BillingPeriod: "periods",
    mc.usage.Cell: "cells",
    mc.pricing.Graduated: "graduated",
    mc.Meter: "meters",
    mc.MeterEvent: "meter_event",
    mc.MeterLog: "meter_logs",
    mc.MeterPolicy: "meter_policies",
    mc.Money: "moneys",
    mc.pricing.Package: "packages",
    mc.pricing.PerUnit: "per_unit",
    mc.pricing.Percentage: "percentages",
    mc.Price: "prices",
    mc.Recurring: "recurrings",
    mc.Subscription: "subscriptions",
    mc.SubscriptionItem: "subscription_items",
    mc.Tier: "tiers",
    mc.UsageLog: "usage_logs",
    mc.UsageRecord: "usage_record",
    mc.pricing.Volume: "volumes",
}
"""Each type and the name of the strategy that draws it."""


def register() -> None:
    """Register a strategy for each type; doing it again changes nothing."""
    from hypothesis import strategies as st  # noqa: PLC0415 - an optional dependency

    for kind, strategy in STRATEGIES.items():
        st.register_type_strategy(kind, _drawn_by(strategy))


def _drawn_by(strategy: str) -> Callable[[type[Any]], SearchStrategy[Any]]:
    def draw(_: type[Any]) -> SearchStrategy[Any]:
        module = import_module("metering_core.testing.strategies")
        drawn: SearchStrategy[Any] = getattr(module, strategy)()
        return drawn

    return draw
