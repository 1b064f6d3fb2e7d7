"""What is measured with: seeded columns of usage, and the loops a user would write instead of this
library.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

import metering_core as mc

SEED: Final = 2019
START: Final = 1704067200
"""2024-01-01T00:00:00Z, the anchor of every subscription here."""
NOW: Final = START + 30 * 86400
"""The moment of receipt: within the first billing period, after every timestamp."""
MODES: Final = (
    mc.AggregateUsage.SUM,
    mc.AggregateUsage.MAX,
    mc.AggregateUsage.LAST_DURING_PERIOD,
    mc.AggregateUsage.LAST_EVER,
)
"""Stripe's own, so that what was measured before there were others stays comparable."""

Cells = dict[tuple[str, int], int]


@attrs.frozen
class Columns:
    """Usage as plain sequences, in the order of arrival."""

    items: list[str]
    quantities: list[int]
    timestamps: list[int]
    actions: list[str]

    def digest(self) -> str:
        """Return a hash of the content, the same on every machine."""
        return digest([self.items, self.quantities, self.timestamps, self.actions])


def digest(data: object) -> str:
    """Return a short hash of plain data."""
    return hashlib.sha256(json.dumps(data, separators=(",", ":")).encode()).hexdigest()[:16]


def item_ids(number: int) -> list[str]:
    """Return so many ids of subscription items."""
    return [f"si_{index:04d}" for index in range(number)]


def columns(items: Sequence[str], records: int, *, seconds_per_cell: int = 1) -> Columns:
    """Return random usage of the items, 5 % of it `set`; timestamps are multiples of
    ``seconds_per_cell``.
    """
    chosen = random.Random(SEED)  # noqa: S311 - a repeatable input, not a secret
    span = (NOW - START) // seconds_per_cell
    return Columns(
        items=chosen.choices(items, k=records),
        quantities=[chosen.randrange(1_000) for _ in range(records)],
        timestamps=[START + chosen.randrange(span) * seconds_per_cell for _ in range(records)],
        actions=["set" if chosen.random() < 0.05 else "increment" for _ in range(records)],
    )


def mode_of(item_id: str) -> mc.AggregateUsage:
    """Return the mode that an item is aggregated by here: all four by turns."""
    return MODES[int(item_id[-4:]) % len(MODES)]


def price(mode: mc.AggregateUsage) -> mc.Price:
    """Return a graduated price with a free tier and fractions of a cent."""
    tiers = [
        mc.Tier(1_000, unit_amount=0),
        mc.Tier(100_000, unit_amount="0.4"),
        mc.Tier("inf", unit_amount="0.25"),
    ]
    recurring = mc.Recurring(aggregate_usage=mode)
    return mc.Price.graduated(f"price_{mode}", currency="usd", tiers=tiers, recurring=recurring)


def subscriptions(items: Iterable[str]) -> list[mc.Subscription]:
    """Return a subscription for each item, which costs the log more than many items in one."""
    prices = {mode: price(mode) for mode in MODES}
    return [
        mc.Subscription(f"sub_{item}", [mc.SubscriptionItem(item, prices[mode_of(item)])], START)
        for item in items
    ]


def log_of(items: Iterable[str]) -> mc.UsageLog:
    """Return an empty log that takes usage of the items."""
    return mc.UsageLog(subscriptions(items))


def unchecked_loop(usage: Columns) -> Cells:
    """Add usage up as a user would, who knows of no `set` and checks nothing: what the targets are
    relative to.
    """
    cells: Cells = {}
    for item, timestamp, quantity in zip(
        usage.items, usage.timestamps, usage.quantities, strict=True
    ):
        key = (item, timestamp)
        cells[key] = cells.get(key, 0) + quantity
    return cells


def unchecked_loop_with_sets(usage: Columns) -> Cells:
    """Do the same with `set`, which is what the library's answers are compared with."""
    cells: Cells = {}
    rows = zip(usage.items, usage.timestamps, usage.quantities, usage.actions, strict=True)
    for item, timestamp, quantity, action in rows:
        key = (item, timestamp)
        cells[key] = quantity if action == "set" else cells.get(key, 0) + quantity
    return cells


def unchecked_totals(cells: Cells) -> dict[str, int]:
    """Aggregate the loop's cells, each item by its mode, without the library."""
    by_item: dict[str, dict[int, int]] = {}
    for (item, timestamp), quantity in cells.items():
        by_item.setdefault(item, {})[timestamp] = quantity
    return {item: _aggregated(item, by_item[item]) for item in sorted(by_item)}


def _aggregated(item: str, cells: dict[int, int]) -> int:
    match mode_of(item):
        case mc.AggregateUsage.SUM:
            return sum(cells.values())
        case mc.AggregateUsage.MAX:
            return max(cells.values())
    return cells[max(cells)]


def totals(log: mc.UsageLog, items: Iterable[str]) -> dict[str, int]:
    """Return the total usage that the log's summaries say, of each item in its first billing
    period.
    """
    return {item: int(log.summaries(item, now=NOW)[-1].total_usage) for item in items}


def records(usage: Columns) -> list[mc.UsageRecord]:
    """Return the columns as ready records."""
    rows = zip(usage.items, usage.quantities, usage.timestamps, usage.actions, strict=True)
    return [mc.UsageRecord(*row) for row in rows]


def distinct_timestamps(number: int) -> list[int]:
    """Return so many distinct timestamps in no order, from the start of the period."""
    stamps = list(range(START, START + number))
    random.Random(SEED).shuffle(stamps)  # noqa: S311 - as above
    return stamps
