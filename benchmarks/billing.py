"""From a log to bills and to text: summaries, previews, rating, snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

import metering_core as mc
from benchmarks import inputs
from benchmarks.inputs import NOW, Columns
from benchmarks.measuring import Contender, Group, Row, race

QUANTITY: Final = 123_456
_TIERS: Final = (
    mc.Tier(1_000, unit_amount=0),
    mc.Tier(100_000, unit_amount="0.4", flat_amount=100),
    mc.Tier("inf", unit_amount="0.25"),
)
PRICES: Final = {
    "per unit": mc.Price.per_unit("per_unit", currency="usd", unit_amount="0.3"),
    "graduated, 3 tiers": mc.Price.graduated("graduated", currency="usd", tiers=_TIERS),
    "volume, 3 tiers": mc.Price.volume("volume", currency="usd", tiers=_TIERS),
    "package": mc.Price.package("package", currency="usd", unit_amount=7, divide_by=1_000),
}
CHARGED: Final = {
    "per unit": QUANTITY * Fraction("0.3"),
    "graduated, 3 tiers": 99_000 * Fraction("0.4") + 100 + (QUANTITY - 100_000) * Fraction("0.25"),
    "volume, 3 tiers": QUANTITY * Fraction("0.25"),
    "package": Fraction(124 * 7),
}
"""What each price comes to, in cents, by hand."""


def measure(items: list[str], usage: Columns, rounds: int) -> list[Group]:
    """Return what summaries, previews, rating and snapshots cost, each beside what Python needs for
    the bare arithmetic.
    """
    log = filled_log(items, usage)
    totals = inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage))
    return [_bills(log, totals, rounds), _rating(rounds), _snapshots(log, len(usage.items), rounds)]


def filled_log(items: list[str], usage: Columns) -> mc.UsageLog:
    """Return a log with the usage, asked once, so that nothing is left to be folded."""
    log = inputs.log_of(items)
    log.append_columns(usage.items, usage.quantities, usage.timestamps, usage.actions, now=NOW)
    log.summaries(items[0], now=NOW)
    return log


def _bills(log: mc.UsageLog, totals: dict[str, int], rounds: int) -> Group:
    def bound() -> list[int]:
        return [int(_graduated(quantity) + Fraction(1, 2)) for quantity in totals.values()]

    bills = bound()
    contenders = {
        "bound: the same bills by bare arithmetic": Contender(lambda: bound, expected=bills),
        "summaries": Contender(lambda: lambda: inputs.totals(log, totals), expected=totals),
        "previews": Contender(lambda: lambda: previewed(log), expected=settled_by_line(totals)),
    }
    best = {name: seconds / len(totals) * 1e6 for name, seconds in race(contenders, rounds).items()}
    answers = dict(zip(contenders, (bills, totals, settled_by_line(totals)), strict=True))
    return f"Bills of {len(totals):,} items", _rows(best, "µs/item", answers)


def _graduated(quantity: int) -> Fraction:
    """Return the cents that :func:`benchmarks.inputs.price` comes to."""
    return sum(_by_tier(quantity), Fraction(0))


def _by_tier(quantity: int) -> Iterable[Fraction]:
    middle = min(max(quantity - 1_000, 0), 99_000)
    return middle * Fraction("0.4"), max(quantity - 100_000, 0) * Fraction("0.25")


def settled_by_line(totals: dict[str, int]) -> dict[str, int]:
    """Return the bill of each item: every tier is a line, and every line is rounded once,
    half up.
    """
    return {
        item: sum(int(amount + Fraction(1, 2)) for amount in _by_tier(total))
        for item, total in totals.items()
    }


def previewed(log: mc.UsageLog) -> dict[str, int]:
    """Return the total of the preview of each subscription, in cents, by its item."""
    bills = {
        one.items[0].id: mc.preview_invoice(one, log, now=NOW).total for one in log.subscriptions
    }
    return dict(sorted(bills.items()))


def _rating(rounds: int, times: int = 1_000) -> Group:
    def repeated(price: mc.Price) -> Callable[[], mc.RatedUsage]:
        return lambda: [mc.rate(price, QUANTITY) for _ in range(times)][-1]

    def exact(rated: mc.RatedUsage) -> Fraction:
        return Fraction(rated.amount.minor_units)

    rate, quantity = Decimal("0.3"), Decimal(QUANTITY)
    contenders = {
        "bound: one multiplication of decimals": Contender(
            lambda: lambda: [rate * quantity for _ in range(times)]
        ),
        **{
            name: Contender(lambda price=price: repeated(price), exact, CHARGED[name])  # type: ignore[misc]
            for name, price in PRICES.items()
        },
    }
    best = {name: seconds / times * 1e6 for name, seconds in race(contenders, rounds).items()}
    return f"Rating {QUANTITY:,} units", _rows(
        best, "µs", {name: str(amount) for name, amount in CHARGED.items()}
    )


def _snapshots(log: mc.UsageLog, records: int, rounds: int) -> Group:
    text = json.dumps(mc.snapshot(log))
    contenders = {
        "bound: json.dumps of the same data": Contender(
            lambda: lambda: json.dumps(data), len, len(text)
        ),
        "snapshot, to text": Contender(lambda: lambda: json.dumps(mc.snapshot(log)), expected=text),
        "bound: json.loads of the same text": Contender(
            lambda: lambda: json.loads(text), expected=(data := json.loads(text))
        ),
        "restore, from text": Contender(
            lambda: lambda: mc.restore(json.loads(text)),
            lambda found: json.dumps(mc.snapshot(found)),
            text,
        ),
    }
    best = {name: seconds / records * 1e6 for name, seconds in race(contenders, rounds).items()}
    answers = dict.fromkeys(("snapshot, to text", "restore, from text"), inputs.digest(text))
    return (
        f"Snapshot of {records:,} records ({len(text) / records:.0f} bytes of text a record)",
        _rows(best, "µs/record", answers),
    )


def _rows(best: dict[str, float], unit: str, answers: Mapping[str, object]) -> list[Row]:
    """Relate each measurement to the bound that stands above it."""
    rows: list[Row] = []
    bound_name = bound = None
    for name, value in best.items():
        if name.startswith("bound"):
            bound_name, bound = name.removeprefix("bound: "), value
            rows.append(Row(name, value, unit))
        else:
            ratio = None if bound is None else value / bound
            answer = inputs.digest(answers[name])
            rows.append(Row(name, value, unit, bound, ratio, bound_name, answer=answer))
    return rows
