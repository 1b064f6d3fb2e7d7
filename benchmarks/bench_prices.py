"""Audit, comparison and re-rating, each beside the loop a person would write: `pytest benchmarks/bench_prices.py`.

`python -m benchmarks.bench_prices` prints milliseconds, the target, and the ratio to the bare loop (below 1: faster than it).
The loops look at the edges only, one after the other; they find no interval, no worst pair and no proof.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import metering_core as mc
from benchmarks.measuring import Contender, race
from metering_core.auditing import audit
from metering_core.comparing import compare
from metering_core.rerating import billed, compare_usage
from metering_core.periods import from_unix_seconds

TIERS = 50
SUMMARIES = 100_000
STEP = 1_000
ROUNDS = 5

START = from_unix_seconds(1_704_067_200)


def price(kind: Callable[[list[mc.Tier]], Any], name: str, first: str) -> mc.Price:
    """Return a price of 50 tiers, each a hundredth cheaper than the one before, with flat fees."""
    amounts = [Decimal(first) - Decimal(number) / 100 for number in range(TIERS)]
    bounds = [*(STEP * (number + 1) for number in range(TIERS - 1)), "inf"]
    tiers = [mc.Tier(bound, amount, number) for number, (bound, amount) in enumerate(zip(bounds, amounts, strict=True))]
    return mc.Price(name, "usd", kind(tiers))


OLD = price(mc.Volume, "old", "2.003")
NEW = price(mc.Graduated, "new", "1.997")
EDGES = [edge for number in range(1, TIERS) for edge in (STEP * number, STEP * number + 1)]


def summaries(count: int = SUMMARIES) -> list[mc.UsageSummary]:
    """Return summaries of different quantities over all tiers."""
    mode = mc.AggregateUsage.SUM
    return [mc.UsageSummary(f"si_{number}", mode, START, None, number * 7 % (STEP * TIERS * 2)) for number in range(count)]


def bare_audit() -> list[Decimal]:
    """Rate every edge, and keep what the total falls by."""
    totals = [mc.rate(OLD, edge).amount.minor_units for edge in EDGES]
    return [before - after for before, after in pairwise(totals) if after < before]


def bare_compare() -> list[bool]:
    """Rate every edge at both prices."""
    return [mc.rate(NEW, edge).amount.minor_units > mc.rate(OLD, edge).amount.minor_units for edge in EDGES]


def bare_bills(used: list[mc.UsageSummary]) -> tuple[int, int]:
    """Bill all quantities at both prices in integers, with the tiers' figures at hand; thousandths of a minor unit."""
    bounds = [STEP * (number + 1) for number in range(TIERS - 1)]
    units = [[int(tier.unit_amount * 1000) for tier in one.model.tiers] for one in (OLD, NEW)]
    below = [sum((units[1][tier] * STEP + 500) // 1000 for tier in range(number)) for number in range(TIERS)]
    old = new = 0
    for one in used:
        quantity = one.total_usage
        tier = bisect_left(bounds, quantity)
        old += (units[0][tier] * quantity + 500) // 1000 + tier
        new += below[tier] + (units[1][tier] * (quantity - STEP * tier) + 500) // 1000 + tier * (tier + 1) // 2
    return old, new


def revenues(used: list[mc.UsageSummary]) -> tuple[int, int]:
    """Return what the comparison says that both prices bill."""
    comparison = compare_usage(OLD, NEW, used)
    return comparison.old_revenue, comparison.new_revenue


def test_audit(benchmark: Callable[..., Any]) -> None:
    """An audit finds a cliff wherever the loop over the edges sees a fall."""
    (cliff,) = [one for one in benchmark(audit, OLD) if one.code == "cliff"]
    assert len(cliff.intervals) == len(bare_audit())


def test_compare(benchmark: Callable[..., Any]) -> None:
    """A comparison gives every edge the direction that the loop sees."""
    comparison = benchmark(compare, OLD, NEW)
    assert [comparison.direction_at(edge) == "dearer" for edge in EDGES] == bare_compare()


def test_rerating(benchmark: Callable[..., Any]) -> None:
    """Re-rated summaries come to what the loop in integers comes to, and to what rating says line by line."""
    used = summaries(10_000)
    assert benchmark(revenues, used) == bare_bills(used)
    few = used[::500]
    assert revenues(few) == tuple(sum(billed(one, used_.total_usage) for used_ in few) for one in (OLD, NEW))


def measured() -> dict[str, tuple[Callable[[], Any], Callable[[], Any], int]]:
    """Return what is measured, the bare loop beside it, and the target in milliseconds."""
    used = summaries()
    return {
        f"audit of {TIERS} tiers": (lambda: audit(OLD), bare_audit, 50),
        f"compare two of {TIERS} tiers": (lambda: compare(OLD, NEW), bare_compare, 100),
        f"re-rate {SUMMARIES:,} summaries": (lambda: compare_usage(OLD, NEW, used), lambda: bare_bills(used), 2000),
    }


def main() -> None:
    """Print the table."""
    print(f"{'':<28}{'ms':>10}{'target':>10}{'bare loop ms':>14}{'ratio':>8}")
    for name, (ours, bare, target) in measured().items():
        best = race({"ours": Contender(lambda run=ours: run), "bare": Contender(lambda run=bare: run)}, ROUNDS)
        ours_ms, bare_ms = best["ours"] * 1000, best["bare"] * 1000
        print(f"{name:<28}{ours_ms:>10.1f}{target:>10,}{bare_ms:>14.1f}{ours_ms / bare_ms:>8.2f}")


if __name__ == "__main__":
    main()
