"""Audit, comparison and re-rating, each beside the loop a person would write.

The loops look at the edges only, one after the other; they find no interval, no worst pair and no
proof.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import metering_core as mc
from benchmarks.measuring import Contender, Group, Row, race
from metering_core.periods import from_unix_seconds
from metering_core.tariffs.auditing import audit
from metering_core.tariffs.comparing import compare
from metering_core.tariffs.rerating import compare_usage

TIERS = 50
SUMMARIES = 100_000
STEP = 1_000

START = from_unix_seconds(1_704_067_200)


def price(kind: Callable[[list[mc.Tier]], Any], name: str, first: str) -> mc.Price:
    """Return a price of 50 tiers, each a hundredth cheaper than the one before, with flat fees."""
    amounts = [Decimal(first) - Decimal(number) / 100 for number in range(TIERS)]
    bounds = [*(STEP * (number + 1) for number in range(TIERS - 1)), "inf"]
    tiers = [
        mc.Tier(bound, amount, number)
        for number, (bound, amount) in enumerate(zip(bounds, amounts, strict=True))
    ]
    return mc.Price(name, "usd", kind(tiers))


OLD = price(mc.pricing.Volume, "old", "2.003")
NEW = price(mc.pricing.Graduated, "new", "1.997")
EDGES = [edge for number in range(1, TIERS) for edge in (STEP * number, STEP * number + 1)]


def summaries(count: int = SUMMARIES) -> list[mc.UsageSummary]:
    """Return summaries of different quantities over all tiers."""
    mode = mc.AggregateUsage.SUM
    return [
        mc.UsageSummary(f"si_{number}", mode, START, None, number * 7 % (STEP * TIERS * 2))
        for number in range(count)
    ]


def bare_audit() -> list[tuple[mc.exact.Unrounded, mc.exact.Unrounded]]:
    """Rate every edge, and keep where the total falls."""
    totals = [mc.rate(OLD, edge).amount.minor_units for edge in EDGES]
    return [(before, after) for before, after in pairwise(totals) if after < before]


def bare_compare() -> list[bool]:
    """Rate every edge at both prices."""
    return [
        mc.rate(NEW, edge).amount.minor_units > mc.rate(OLD, edge).amount.minor_units
        for edge in EDGES
    ]


def bare_bills(used: list[mc.UsageSummary]) -> tuple[int, int]:
    """Bill all quantities at both prices in integers, with the tiers' figures at hand; thousandths
    of a minor unit.
    """
    bounds = [STEP * (number + 1) for number in range(TIERS - 1)]
    units = [[int(tier.unit_amount * 1000) for tier in one.model.tiers] for one in (OLD, NEW)]  # type: ignore[attr-defined]
    below = [
        sum((units[1][tier] * STEP + 500) // 1000 for tier in range(number))
        for number in range(TIERS)
    ]
    old = new = 0
    for one in used:
        quantity = int(one.total_usage)
        tier = bisect_left(bounds, quantity)
        old += (units[0][tier] * quantity + 500) // 1000 + tier
        new += (
            below[tier]
            + (units[1][tier] * (quantity - STEP * tier) + 500) // 1000
            + tier * (tier + 1) // 2
        )
    return old, new


def revenues(used: list[mc.UsageSummary]) -> tuple[int, int]:
    """Return what the comparison says that both prices bill."""
    comparison = compare_usage(OLD, NEW, used)
    return comparison.old_revenue, comparison.new_revenue


def measure(count: int, rounds: int) -> Group:
    """Return milliseconds of each price tool, and their ratio to the bare loop (below 1: faster
    than it).
    """
    used = summaries(count)
    measured: Sequence[tuple[str, Callable[[], Any], Callable[[], Any]]] = (
        (f"audit of {TIERS} tiers (target 50 ms)", lambda: audit(OLD), bare_audit),
        (f"compare two of {TIERS} tiers (target 100 ms)", lambda: compare(OLD, NEW), bare_compare),
        (
            f"re-rate {count:,} summaries (target 2,000 ms for 100,000)",
            lambda: revenues(used),
            lambda: bare_bills(used),
        ),
    )
    rows = []
    for name, ours, bare in measured:
        best = race(
            {"ours": Contender(lambda run=ours: run), "bare": Contender(lambda run=bare: run)},
            rounds,
        )  # type: ignore[misc]
        rows.append(
            Row(
                name,
                best["ours"] * 1e3,
                "ms",
                best["bare"] * 1e3,
                best["ours"] / best["bare"],
                "bare loop",
            )
        )
    return "Price tools", rows
