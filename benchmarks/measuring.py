"""How things are measured: by turns, best of several, with the answer checked each time.

The clock is the processor time of this process, so that what else runs on the machine costs little
of the truth. All that is measured runs in one thread and waits for nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from time import process_time
from typing import Any

import attrs


@attrs.frozen
class Contender:
    """One way to do the work.

    Attributes:
        prepare: returns what is timed; what it does itself is not.
        answer: turns what the timed call returned into what is compared, outside the timing.
        expected: the right answer, computed without the library.
    """

    prepare: Callable[[], Callable[[], Any]]
    answer: Callable[[Any], object] = lambda result: result
    expected: object = None

    def seconds(self) -> float:
        """Run once and return the seconds that it took.

        Raises:
            AssertionError: for a wrong answer.
        """
        run = self.prepare()
        gc.collect()
        began = process_time()
        result = run()
        took = process_time() - began
        self.check(result)
        return took

    def check(self, result: object) -> None:
        """Compare the answer, where there is one to compare with."""
        if self.expected is not None:
            assert self.answer(result) == self.expected, "fast, but wrong"


def race(contenders: Mapping[str, Contender], rounds: int) -> dict[str, float]:
    """Run all by turns, so that a busy moment of the machine hits each, and return the best seconds
    of each.
    """
    gc.collect()
    # The inputs would otherwise be walked again whenever what is measured makes the collector run.
    gc.freeze()
    try:
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(rounds):
            for name, contender in contenders.items():
                best[name] = min(best[name], contender.seconds())
        return best
    finally:
        gc.unfreeze()


@attrs.frozen
class Row:
    """One line of the report.

    Attributes:
        name: what was measured.
        value: the measurement, in ``unit``.
        unit: of value and bound.
        bound: what this machine could do at all; None where the row is itself a bound.
        ratio: the measurement in relation to ``relative_to``; more is better unless
            ``target_at_most``.
        relative_to: what the ratio is to.
        at_least: target of the ratio, inclusive.
        at_most: target of the ratio, inclusive.
        answer: hash of the answer, which was compared with one computed without the library.
        note: what else is to be known, such as by how much a peer's answer is wrong.
    """

    name: str
    value: float
    unit: str
    bound: float | None = None
    ratio: float | None = None
    relative_to: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    answer: str | None = None
    note: str | None = None

    @property
    def target(self) -> str:
        """The target of the ratio in words; empty without one."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.ratio is None:
            return None
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return None if self.at_most is None else self.ratio <= self.at_most


Group = tuple[str, list[Row]]
"""A title and its rows."""
