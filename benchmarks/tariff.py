"""Ten prices of five tiers with decimals, as every tool takes them; their amounts end in halves now
and then.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

import metering_core as mc

PRICES: Final = 10
BOUNDS: Final = (1_000, 10_000, 40_000, 50_000)
AMOUNTS: Final = tuple(map(Decimal, ("0.575", "0.29", "0.145", "0.115", "0.057")))
"""Cents for one unit in each tier of the first price; each further one costs a thousandth of a cent
more.
"""

PLACES: Final = 1_000
"""An amount times this is whole."""

OPEN: Final = 2**62
"""Where the last tier ends for those who need a number."""


@attrs.frozen
class TierRow:
    """A tier as a row of a table: it covers the units above ``above``, up to ``up_to``
    (inclusive).
    """

    price: int
    tier: int
    above: int
    up_to: int
    unit_amount: Decimal


def tier_rows() -> list[TierRow]:
    """Return all tiers of all prices."""
    edges = (0, *BOUNDS, OPEN)
    return [
        TierRow(price, tier + 1, edges[tier], edges[tier + 1], amount + Decimal(price) / PLACES)
        for price in range(PRICES)
        for tier, amount in enumerate(AMOUNTS)
    ]


def price_of(item: int) -> int:
    """Return which price an item has."""
    return item % PRICES


def catalog() -> list[mc.Price]:
    """Return the prices of this library."""
    rows = tier_rows()
    return [
        mc.Price.graduated(
            f"price_{price}",
            currency="usd",
            tiers=[
                mc.Tier("inf" if row.up_to == OPEN else row.up_to, unit_amount=row.unit_amount)
                for row in rows
                if row.price == price
            ],
        )
        for price in range(PRICES)
    ]


def expected_lines(totals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return item, tier, quantity and cents of each line, by item and tier, in whole thousandths of
    a cent on the way.
    """
    items = np.arange(len(totals))
    lines = []
    for row in tier_rows():
        mine = items[(items % PRICES == row.price) & ((totals > row.above) | (row.tier == 1))]
        units = np.minimum(totals[mine], row.up_to) - row.above
        cents = (units * int(row.unit_amount * PLACES) + PLACES // 2) // PLACES
        lines.append(np.array([mine, np.full(len(mine), row.tier), units, cents]))
    return in_order(np.concatenate(lines, axis=1))


def in_order(lines: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return lines by item and tier."""
    ordered: NDArray[np.int64] = lines[:, np.lexsort((lines[1], lines[0]))]
    return ordered
