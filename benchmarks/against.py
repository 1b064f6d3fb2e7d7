"""`python -m benchmarks.against TREE`: how fast this tree is in relation to an older one, door by
door.

    git worktree add --detach ../older b19d89c
    python -m benchmarks.against ../older

Each tree has a process of its own, and they work by turns, many and short, so that a busy moment of
the machine hits both. What is timed is processor time. A row is above 1 where this tree is faster:
the older one's seconds in relation to this one's, once of the least seconds of each and once as the
median of single turns; the quarters of these say how much they spread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Final, Self

import attrs

from benchmarks.report import heading

ROOT: Final = Path(__file__).resolve().parents[1]
BOUND: Final = 0.95
_WORK: Final = """
import sys
workloads, tree, records = sys.argv[1:]
sys.path.insert(0, workloads)
import benchmarks
sys.path[0] = tree
from benchmarks import doors
doors.serve(int(records))
"""


class Tree:
    """A process that measures one tree, as it is asked to."""

    def __init__(self, path: Path, records: int) -> None:
        command = [sys.executable, "-P", "-c", _WORK, str(ROOT), str(path), str(records)]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        used, self.doors = json.loads(self._answer())
        assert Path(used) == path, f"expected the library of {path}, it is that of {used}"

    def _answer(self) -> str:
        assert self._process.stdout is not None, "it was asked for"
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise SystemExit("a process that measures ended; what it said is above")
        return line

    def seconds(self, door: str) -> float:
        """Run one door once and return the seconds that it took."""
        assert self._process.stdin is not None, "it was asked for"
        print(door, file=self._process.stdin, flush=True)
        return float(self._answer())

    def __enter__(self) -> Self:
        """Keep the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.communicate()


@attrs.frozen
class Turns:
    """The seconds of one door in both trees, turn by turn."""

    door: str
    older: Sequence[float]
    newer: Sequence[float]

    @property
    def by_least(self) -> float:
        """How fast this tree is in relation to the older one, by the least seconds of each."""
        return min(self.older) / min(self.newer)

    @property
    def by_median(self) -> float:
        """The same by the median of the ratios of single turns, of which each has both trees at one
        time.
        """
        return median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each turn."""
        return [older / newer for older, newer in zip(self.older, self.newer, strict=True)]

    @property
    def is_slower(self) -> bool:
        """Whether this tree is below the bound by both measures."""
        return max(self.by_least, self.by_median) < BOUND

    def row(self) -> str:
        """Return a row of the table."""
        first, _, third = quantiles(self.ratios, n=4)
        took = f"{min(self.older) * 1e3:.2f} | {min(self.newer) * 1e3:.2f}"
        return (
            f"| {self.door} | {took} | {self.by_least:.3f} | {self.by_median:.3f} | "
            f"{first:.3f} to {third:.3f} |"
        )


def measured(older: Path, records: int, processes: int, turns: int, only: str) -> Iterator[Turns]:
    """Yield the turns of each door; those of several pairs of processes, because one may lie
    luckily in memory.
    """
    with ExitStack() as kept:
        pairs = [
            [kept.enter_context(Tree(path, records)) for path in (older, ROOT)]
            for _ in range(processes)
        ]
        for door in (one for one in pairs[0][0].doors if only in one):
            found = [
                _turn(pair, door, is_even=turn % 2 == 0) for turn in range(turns) for pair in pairs
            ]
            yield Turns(door, *zip(*found, strict=True))


def _turn(pair: Sequence[Tree], door: str, *, is_even: bool) -> tuple[float, float]:
    """Run one door in both trees, the older one first in every other turn."""
    older, newer = pair
    if is_even:
        return older.seconds(door), newer.seconds(door)
    took = newer.seconds(door)
    return older.seconds(door), took


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("tree", type=Path, help="the folder of an older tree")
    parser.add_argument("--records", type=int, default=10_000, help="in a turn (default: 10,000)")
    parser.add_argument("--processes", type=int, default=3, help="pairs of processes (default: 3)")
    parser.add_argument("--turns", type=int, default=15, help="of each pair (default: 15)")
    parser.add_argument("--only", default="", metavar="TEXT", help="doors whose name holds this")
    return parser.parse_args(arguments)


def table(found: Iterable[Turns]) -> Iterator[str]:
    """Yield the lines of the table, each as it is measured, and last what is slower than the
    bound.
    """
    slower = []
    yield "| door | older, ms | this, ms | by the least | by the median | half of the turns |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in found:
        if one.is_slower:
            slower.append(one.door)
        yield one.row()
    yield f"below {BOUND:g} by both: {'; '.join(slower) or 'none'}"


def main() -> None:
    """Measure and print the table."""
    options = options_of()
    print(heading())
    found = measured(
        options.tree.resolve(), options.records, options.processes, options.turns, options.only
    )
    for line in table(found):
        print(line, flush=True)


if __name__ == "__main__":
    main()
