"""The doors of the log under pytest-benchmark: `pytest benchmarks/bench_appending.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import appending, inputs
from benchmarks.measuring import Contender

ITEMS = inputs.item_ids(1_000)
CONTENDERS = appending.contenders(inputs.columns(ITEMS, 100_000), ITEMS)


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=CONTENDERS)
def test_appending(contender: Contender, benchmark: Callable[..., Any]) -> None:
    """Appending 100,000 records gives the totals of the loop, at this speed."""

    def prepared() -> tuple[tuple[Callable[[], object]], dict[str, object]]:
        return (contender.prepare(),), {}

    result = benchmark.pedantic(lambda run: run(), setup=prepared, rounds=5)  # type: ignore[attr-defined]
    contender.check(result)
