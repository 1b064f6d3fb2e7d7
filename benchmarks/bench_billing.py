"""Summaries, previews, rating and snapshots under pytest-benchmark: `pytest
benchmarks/bench_billing.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

import metering_core as mc
from benchmarks import answering, billing, inputs


@pytest.fixture(scope="module")
def log() -> mc.UsageLog:
    """Return a log of 10,000 records of 100 items."""
    items = inputs.item_ids(100)
    return billing.filled_log(items, inputs.columns(items, 10_000))


@pytest.mark.parametrize("mode", inputs.MODES)
@pytest.mark.parametrize("name", answering.STEPS)
@pytest.mark.parametrize("cells", [1_000, 100_000])
def test_one_step(
    cells: int, name: str, mode: mc.AggregateUsage, benchmark: Callable[..., Any]
) -> None:
    """A record, and a preview after it, are right and cost the same in a small and in a
    large item.
    """
    filled = answering.filled(mode, cells)
    benchmark(answering.STEPS[name], filled)
    assert filled.quantity() == filled.expected(mode)


@pytest.mark.parametrize("name", billing.PRICES)
def test_rating(name: str, benchmark: Callable[..., Any]) -> None:
    """A quantity costs what it comes to by hand."""
    rated = benchmark(mc.rate, billing.PRICES[name], billing.QUANTITY)
    assert Fraction(rated.amount.minor_units) == billing.CHARGED[name]


def test_previews(log: mc.UsageLog, benchmark: Callable[..., Any]) -> None:
    """The bills of 100 subscriptions are sums of lines that were each rounded once."""
    usage = inputs.columns(inputs.item_ids(100), 10_000)
    totals = inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage))
    assert benchmark(billing.previewed, log) == billing.settled_by_line(totals)


def test_snapshot(log: mc.UsageLog, benchmark: Callable[..., Any]) -> None:
    """A snapshot of 10,000 records restores to an equal log."""
    assert mc.restore(benchmark(mc.snapshot, log)) == log


def test_restore(log: mc.UsageLog, benchmark: Callable[..., Any]) -> None:
    """What was restored has the same snapshot."""
    data = mc.snapshot(log)
    assert mc.snapshot(benchmark(mc.restore, data)) == data
