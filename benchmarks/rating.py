"""Workload E: a million quantities through five tiers with decimals, each line rounded, beside the
other ways to do it.

Timed is from a column of quantities to a column of whole cents (or to the lines, or to one total),
in each tool's own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import competing, tariff
from benchmarks.competing import Turns
from benchmarks.datasets import digest_of
from benchmarks.inputs import SEED
from benchmarks.measuring import Group, Row
from benchmarks.peers import Way, imported
from metering_core.bulk import rate_lines, rate_many
from metering_core.rating import settled_total

UNIT: Final = "million quantities/s"
LOOP: Final = "`rate` and `settle` in a loop"
TARGETS: Final = {LOOP: 60.0, "DuckDB, SQL expression in decimals": 5.0}
PEERS: Final = ("duckdb", "polars")
SAMPLE: Final = 50
"""Those who work one by one are given every so many of the quantities, and their time is multiplied
by it.
"""

Tariff = list[tuple[int, int, Decimal]]


def quantities_of(number: int) -> NDArray[np.int64]:
    """Return quantities over all tiers, small ones as often as great ones."""
    return np.floor(10 ** np.random.default_rng(SEED).uniform(0, 6, number)).astype(np.int64)


def measure(number: int, rounds: int, say: Callable[[str], None]) -> tuple[Group, str]:
    """Return the speed of each way, with the hash of the quantities."""
    quantities = quantities_of(number)
    totals = expected_totals(quantities)
    sampled = quantities[::SAMPLE]
    field = competing.race([*_ours(quantities), *_others(quantities, say)], totals, rounds)
    loops = competing.race(_loops(sampled), totals[::SAMPLE], 2)
    made = competing.rows(field, number, UNIT) + [
        _sampled(one, len(sampled), field[0]) for one in loops
    ]
    title = (
        f"E: rating {number:,} quantities at five tiers with decimals (from a column of "
        "quantities to one of cents)"
    )
    return (
        title,
        made + _side(quantities, totals, field[0], rounds) + _targets(field, loops, number),
    ), digest_of(quantities)


def expected_totals(quantities: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cents of each quantity, each line rounded half up, in whole thousandths of a cent
    on the way.
    """
    totals = np.zeros(len(quantities), np.int64)
    for above, up_to, amount in _tiers():
        units = np.clip(quantities, above, up_to) - above
        totals += (units * int(amount * tariff.PLACES) + tariff.PLACES // 2) // tariff.PLACES
    return totals


def _tiers() -> Tariff:
    return [(row.above, row.up_to, row.unit_amount) for row in tariff.tier_rows() if row.price == 0]


def _ours(quantities: NDArray[np.int64]) -> Iterator[Way]:
    price = tariff.catalog()[0]
    yield Way(
        "metering_core rate_many",
        lambda: partial(rate_many, price, quantities),
        lambda totals: totals,
        is_ours=True,
    )


def _others(quantities: NDArray[np.int64], say: Callable[[str], None]) -> Iterator[Way]:
    yield Way(
        "NumPy in floats, tier by tier",
        lambda: partial(in_floats, quantities),
        lambda totals: totals,
    )
    for _, module in imported(PEERS, say):
        yield from module.rating_ways(quantities)


def in_floats(quantities: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rate in floats, as one would who does not think of halves that no float can say."""
    totals = np.zeros(len(quantities))
    for above, up_to, amount in _tiers():
        totals += np.floor((np.clip(quantities, above, up_to) - above) * float(amount) + 0.5)
    return totals


def _loops(sampled: NDArray[np.int64]) -> Iterator[Way]:
    """Yield those that go one by one: `rate`, and the decimals that one would write."""
    price, wanted, tiers = tariff.catalog()[0], sampled.tolist(), _tiers()
    yield Way(
        LOOP, lambda: lambda: [settled_total(price, quantity) for quantity in wanted], np.array
    )
    yield Way(
        "Decimal by hand in a loop",
        lambda: lambda: [by_hand(tiers, quantity) for quantity in wanted],
        np.array,
    )


def by_hand(tiers: Tariff, quantity: int) -> int:
    """Rate one quantity in decimals."""
    total, one = 0, Decimal(1)
    for above, up_to, amount in tiers:
        if quantity <= above:
            break
        total += int(((min(quantity, up_to) - above) * amount).quantize(one, ROUND_HALF_UP))
    return total


def _sampled(one: Turns, number: int, ours: Turns) -> Row:
    """Return the row of a way that was given a sample; speeds compare as they are, because each
    quantity is by itself.
    """
    note = one.fault or f"measured on a sample of one in {SAMPLE}"
    speed = number / one.best / 1e6
    ratio = ours.best / (one.best * SAMPLE)
    return Row(
        one.way.name,
        speed,
        UNIT,
        ratio=ratio,
        relative_to=ours.way.name,
        answer=one.answer,
        note=note,
    )


def _side(
    quantities: NDArray[np.int64], totals: NDArray[np.int64], ours: Turns, rounds: int
) -> list[Row]:
    """Return rows of what else is ours: every line by itself, and the one total of all."""
    price, number = tariff.catalog()[0], len(quantities)
    ways = {
        "metering_core rate_lines, every line of every quantity": Way(
            "",
            lambda: partial(rate_lines, price, quantities),
            lambda lines: _by_row(lines, number),
            is_ours=True,
        ),
        "metering_core rate_many and one total": Way(
            "",
            lambda: lambda: int(rate_many(price, quantities).sum()),
            lambda total: np.array([total]),
            is_ours=True,
        ),
    }
    right = (totals, np.array([totals.sum()]))
    fields = [
        competing.race([way], expected, rounds)[0]
        for way, expected in zip(ways.values(), right, strict=True)
    ]
    return [
        Row(
            name,
            number / one.best / 1e6,
            UNIT,
            ratio=ours.best / one.best,
            relative_to=ours.way.name,
            answer=one.answer,
        )
        for name, one in zip(ways, fields, strict=True)
    ]


def _by_row(lines: Any, number: int) -> NDArray[np.int64]:
    totals = np.zeros(number, np.int64)
    np.add.at(totals, lines.rows, lines.amounts)
    return totals


def _targets(field: list[Turns], loops: list[Turns], number: int) -> list[Row]:
    """Return ours beside each way that it has a target against."""
    ours = field[0]
    seconds = {one.way.name: one.best for one in field} | {
        one.way.name: one.best * SAMPLE for one in loops
    }
    return [
        Row(
            f"metering_core rate_many against {name}",
            number / ours.best / 1e6,
            UNIT,
            ratio=seconds[name] / ours.best,
            relative_to=name,
            at_least=target,
            answer=ours.answer,
        )
        for name, target in TARGETS.items()
        if name in seconds
    ]
