"""Small subscriptions and logs that many tests start from: January 2024, one item, one cent
a unit.
"""

from __future__ import annotations

from typing import Any

from metering_core import (
    AggregateUsage,
    BillingPeriod,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    UsageLog,
)
from metering_core.pricing import PerUnit

START = 1_704_067_200  # 2024-01-01T00:00:00Z
DAY = 86_400
JAN = BillingPeriod(START, START + 31 * DAY)
FEB = BillingPeriod(JAN.end, START + 60 * DAY)  # 2024 is a leap year: 31 + 29 days.
MAR = BillingPeriod(FEB.end, START + 91 * DAY)
MODES = tuple(mode.value for mode in AggregateUsage)


def priced(
    model: Any = None,
    mode: str | None = "sum",
    *,
    currency: str = "usd",
    id: str = "price",
    **options: Any,
) -> Price:
    """Return a monthly price, metered in a mode or (None) licensed; one minor unit a unit unless a
    model is given.
    """
    usage_type = "licensed" if mode is None else "metered"
    recurring = options.pop("recurring", None) or Recurring(
        usage_type=usage_type, aggregate_usage=mode
    )
    return Price(id, currency, PerUnit(1) if model is None else model, recurring, **options)


def subscribed(*prices: Price, id: str = "sub", **options: Any) -> Subscription:
    """Return a subscription from 2024 on with the items ``si_0``, ``si_1`` … at these prices."""
    items = [
        SubscriptionItem(f"si_{number}", price) for number, price in enumerate(prices or [priced()])
    ]
    return Subscription(id, items, options.pop("billing_cycle_anchor", START), **options)


def planted(kind: Any, value: str) -> Any:
    """Return a member of an enumeration that it has not: what a later version might add, and an
    engine not know.
    """
    member = str.__new__(kind, value)
    member._name_, member._value_ = value.upper(), value
    return member


def four_modes(**options: Any) -> Subscription:
    """Return a subscription with one item a mode, named after it."""
    return Subscription(
        "sub", [SubscriptionItem(mode, priced(mode=mode, **options)) for mode in MODES], START
    )


def used(
    *rows: tuple[int, int] | tuple[int, int, str],
    subscription: Subscription | None = None,
    now: int | None = None,
) -> UsageLog:
    """Return a log with records of ``si_0``: (timestamp, quantity[, action]) each, received when
    they happened unless said.
    """
    log = UsageLog([subscribed() if subscription is None else subscription])
    for timestamp, quantity, *action in rows:
        log.record(
            "si_0",
            quantity,
            timestamp=timestamp,
            action=(action or ["increment"])[0],
            now=timestamp if now is None else now,
        )
    return log
