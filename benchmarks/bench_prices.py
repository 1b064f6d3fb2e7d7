"""Audit, comparison and re-rating under pytest-benchmark: `pytest benchmarks/bench_prices.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.prices import (
    EDGES,
    NEW,
    OLD,
    bare_audit,
    bare_bills,
    bare_compare,
    revenues,
    summaries,
)
from metering_core.rating import settled_total
from metering_core.tariffs.auditing import audit
from metering_core.tariffs.comparing import compare


def test_audit(benchmark: Callable[..., Any]) -> None:
    """An audit finds a cliff wherever the loop over the edges sees a fall."""
    (cliff,) = [one for one in benchmark(audit, OLD) if one.code == "cliff"]
    assert len(cliff.intervals) == len(bare_audit())


def test_compare(benchmark: Callable[..., Any]) -> None:
    """A comparison gives every edge the direction that the loop sees."""
    comparison = benchmark(compare, OLD, NEW)
    assert [comparison.direction_at(edge) == "dearer" for edge in EDGES] == bare_compare()


def test_rerating(benchmark: Callable[..., Any]) -> None:
    """Re-rated summaries come to what the loop in integers comes to, and to what rating says line
    by line.
    """
    used = summaries(10_000)
    assert benchmark(revenues, used) == bare_bills(used)
    few = used[::500]
    assert revenues(few) == tuple(
        sum(settled_total(one, used_.total_usage) for used_ in few) for one in (OLD, NEW)
    )
