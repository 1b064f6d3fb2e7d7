"""Does an answer cost more where more was used before? One record, and a preview after it, in small
and in large items.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Final

import attrs

import metering_core as mc
from benchmarks import inputs
from benchmarks.inputs import NOW, SEED, START
from benchmarks.measuring import Contender, Group, Row, race

ITEM: Final = "si_0000"
HUGE: Final = 10**9


@attrs.define
class Filled:
    """A log whose only item has many cells, with the same cells in a plain dict beside it.

    Attributes:
        log: the log.
        subscription: of the item.
        cells: timestamp → quantity, kept without the library.
        stamps: endless timestamps, about half of them of an existing cell.
        sent: what was recorded since, and is not in ``cells`` yet.
    """

    log: mc.UsageLog
    subscription: mc.Subscription
    cells: dict[int, int]
    stamps: Iterator[int]
    sent: list[tuple[int, int, str]] = attrs.field(factory=list)

    def put(self, timestamp: int, quantity: int, action: str = "increment") -> None:
        """Record usage, and note it for :meth:`expected`, which is not timed."""
        self.log.record(ITEM, quantity, timestamp=timestamp, action=action, now=NOW)
        self.sent.append((timestamp, quantity, action))

    def expected(self, mode: mc.AggregateUsage) -> int:
        """Return the quantity that the preview must say, from the plain dict."""
        for timestamp, quantity, action in self.sent:
            self.cells[timestamp] = (
                quantity if action == "set" else self.cells.get(timestamp, 0) + quantity
            )
        self.sent.clear()
        return expected(mode, self.cells)

    def quantity(self) -> int:
        """Return the aggregated quantity of a preview."""
        return int(mc.preview_invoice(self.subscription, self.log, now=NOW).lines[0].total_usage)


def filled(mode: mc.AggregateUsage, cells: int) -> Filled:
    """Return a log with one item of so many cells, asked once, so that nothing is left to be
    folded.
    """
    item = mc.SubscriptionItem(ITEM, inputs.price(mode))
    subscription = mc.Subscription("sub_1", [item], START)
    log = mc.UsageLog([subscription])
    stamps = [START + 2 * index for index in range(cells)]
    quantities = [1 + index % 997 for index in range(cells)]
    log.append_columns([ITEM] * cells, quantities, stamps, now=NOW)
    made = Filled(log, subscription, dict(zip(stamps, quantities, strict=True)), _stamps(2 * cells))
    assert made.quantity() == expected(mode, made.cells), "fast, but wrong"
    return made


def _stamps(span: int) -> Iterator[int]:
    chosen = random.Random(SEED)  # noqa: S311 - a repeatable input, not a secret
    # Drawn beforehand: drawing one would take as long as recording it, in both items, and hide a
    # difference.
    return cycle([START + chosen.randrange(span) for _ in range(100_000)])


def expected(mode: mc.AggregateUsage, cells: dict[int, int]) -> int:
    """Return the quantity of the cells, computed without the library."""
    if mode is mc.AggregateUsage.SUM:
        return sum(cells.values())
    return max(cells.values()) if mode is mc.AggregateUsage.MAX else cells[max(cells)]


def record_only(filled: Filled) -> None:
    """Append one record."""
    filled.put(next(filled.stamps), 3)


def record_and_preview(filled: Filled) -> None:
    """Append one record and preview the invoice."""
    filled.put(next(filled.stamps), 3)
    filled.quantity()


def raise_and_sink_greatest(filled: Filled) -> None:
    """Make a cell the greatest there is, then `set` it to 0, with a preview after each."""
    timestamp = next(filled.stamps)
    filled.put(timestamp, HUGE, "set")
    filled.quantity()
    filled.put(timestamp, 0, "set")
    filled.quantity()


STEPS: Final[dict[str, Callable[[Filled], None]]] = {
    "one record": record_only,
    "one record, then a preview": record_and_preview,
    "set raises, then sinks the greatest cell, a preview after each": raise_and_sink_greatest,
}


def measure(small: int, large: int, steps: int, rounds: int) -> Group:
    """Return the cost of each step in the large item, and in relation to the small one."""
    rows = [row for mode in inputs.MODES for row in _rows(mode, small, large, steps, rounds)]
    return (
        f"One step in an item of {large:,} cells, in relation to one of {small:,} (as its bound)",
        rows,
    )


def _rows(
    mode: mc.AggregateUsage, small: int, large: int, steps: int, rounds: int
) -> Iterator[Row]:
    logs = {size: filled(mode, size) for size in (small, large)}
    for name, step in STEPS.items():
        for log in logs.values():
            # The first time that a cell sinks, the mode may have to look at all of them, once.
            step(log)
        best = race({str(size): _repeated(step, logs[size], steps) for size in logs}, rounds)
        seconds = {size: best[str(size)] / steps for size in logs}
        found = {size: log.quantity() for size, log in logs.items()}
        assert found == {size: log.expected(mode) for size, log in logs.items()}, "fast, but wrong"
        yield Row(
            f"{mode}: {name}",
            seconds[large] * 1e6,
            "µs",
            bound=seconds[small] * 1e6,
            ratio=seconds[large] / seconds[small],
            relative_to=f"{small:,} cells",
            at_most=1.5,
            answer=inputs.digest(list(found.values())),
        )


def _repeated(step: Callable[[Filled], None], log: Filled, times: int) -> Contender:
    def run() -> None:
        for _ in range(times):
            step(log)

    return Contender(lambda: run)
