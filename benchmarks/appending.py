"""Appending: columns, ready records and single calls, against the loop that a user would write."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import metering_core as mc
from benchmarks import inputs
from benchmarks.inputs import NOW, Columns
from benchmarks.measuring import Contender, Group, Row, race

LOOP: Final = "the loop, increments only"
LOOP_WITH_SETS: Final = "the loop with set"
LOOP_AND_TOTALS: Final = "the loop with set, then its totals"


def contenders(usage: Columns, items: list[str]) -> dict[str, Contender]:
    """Return the bounds, the loops and the doors of the log, in this order."""
    ready = inputs.records(usage)
    cells = inputs.unchecked_loop_with_sets(usage)
    totals = inputs.unchecked_totals(cells)

    def on_log(*work: Callable[[mc.UsageLog], object]) -> Contender:
        return Contender(
            lambda: partial(_worked, inputs.log_of(items), work),
            lambda log: inputs.totals(log, totals),
            totals,
        )

    def ask(log: mc.UsageLog) -> dict[str, int]:
        return inputs.totals(log, totals)

    return {
        "bound: walk four columns": Contender(lambda: lambda: _walk(usage)),
        "bound: copy three columns to arrays": Contender(lambda: lambda: _copy(usage)),
        LOOP: Contender(lambda: lambda: inputs.unchecked_loop(usage)),
        LOOP_WITH_SETS: Contender(
            lambda: lambda: inputs.unchecked_loop_with_sets(usage), expected=cells
        ),
        LOOP_AND_TOTALS: Contender(
            lambda: lambda: inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage)),
            expected=totals,
        ),
        "append_columns": on_log(lambda log: _append_columns(log, usage)),
        "append_columns, then every summary": on_log(lambda log: _append_columns(log, usage), ask),
        "append of ready records": on_log(lambda log: log.append(ready, now=NOW)),
        "append of ready records, then every summary": on_log(
            lambda log: log.append(ready, now=NOW), ask
        ),
        "record, one call each": on_log(lambda log: _record_each(log, usage)),
        "record, one call each, then every summary": on_log(
            lambda log: _record_each(log, usage), ask
        ),
    }


def _worked(log: mc.UsageLog, work: Iterable[Callable[[mc.UsageLog], object]]) -> mc.UsageLog:
    for step in work:
        step(log)
    return log


def _walk(usage: Columns) -> None:
    deque(
        zip(usage.items, usage.timestamps, usage.quantities, usage.actions, strict=True), maxlen=0
    )


def _copy(usage: Columns) -> list[array[int]]:
    codes = {item: code for code, item in enumerate(set(usage.items))}
    return [
        array("i", map(codes.__getitem__, usage.items)),
        array("q", usage.timestamps),
        array("q", usage.quantities),
    ]


def _append_columns(log: mc.UsageLog, usage: Columns) -> None:
    log.append_columns(usage.items, usage.quantities, usage.timestamps, usage.actions, now=NOW)


def _record_each(log: mc.UsageLog, usage: Columns) -> None:
    rows = zip(usage.items, usage.quantities, usage.timestamps, usage.actions, strict=True)
    for item, quantity, timestamp, action in rows:
        log.record(item, quantity, timestamp=timestamp, action=action, now=NOW)


TARGETS: Final = {
    "append_columns": 1.0,
    "append of ready records": 0.5,
    "record, one call each": 0.3,
}


def measure(items: list[str], usage: Columns, shape: str, rounds: int) -> Group:
    """Return the speed of each door in records a second, and in relation to the loop."""
    best = race(contenders(usage, items), rounds)
    answer = inputs.digest(inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage)))
    speeds = {name: len(usage.items) / seconds / 1e6 for name, seconds in best.items()}
    bound = speeds["bound: copy three columns to arrays"]
    rows = [
        Row(
            name,
            speed,
            "million records/s",
            bound=None if name.startswith("bound") else bound,
            ratio=None if name.startswith("bound") else speed / speeds[base],
            relative_to=base,
            at_least=TARGETS.get(name),
            answer=None if name.startswith(("bound", LOOP)) else answer,
        )
        for name, speed in speeds.items()
        for base in ([LOOP, LOOP_AND_TOTALS] if name.endswith("every summary") else [LOOP])
    ]
    return f"Appending {len(usage.items):,} records of {len(items):,} items, {shape}", rows
