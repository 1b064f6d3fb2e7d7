"""`python -m benchmarks`: measure, print the table, write the JSON and the chart."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import attrs

from benchmarks import answering, appending, billing, importing, inputs, memory, prices, report
from benchmarks.measuring import Group

ROOT: Final = Path(__file__).resolve().parents[1]


@attrs.frozen
class Size:
    """How much is measured.

    Attributes:
        records: of the appended batches and of the memory.
        items: of the log.
        cells: of the item that a single step must not be slower in.
        steps: single steps in a round.
        kept: records of the snapshot.
        rounds: of which the best counts.
        imports: fresh interpreters of each import.
        compared: records in the comparison with other tools.
        few: records there for tools that are slow.
        rated: quantities to be rated.
        turns: rounds of the comparison.
        grown: how many records growth ends at; it begins at 10,000 and goes by tens.
    """

    records: int
    items: int
    cells: int
    steps: int
    kept: int
    rounds: int
    imports: int
    compared: int
    few: int
    rated: int
    turns: int
    grown: int


FULL = Size(
    records=1_000_000,
    items=1_000,
    cells=1_000_000,
    steps=300,
    kept=100_000,
    rounds=5,
    imports=25,
    compared=10_000_000,
    few=1_000_000,
    rated=1_000_000,
    turns=3,
    grown=10_000_000,
)
QUICK = Size(
    records=5_000,
    items=20,
    cells=5_000,
    steps=20,
    kept=2_000,
    rounds=2,
    imports=2,
    compared=20_000,
    few=5_000,
    rated=10_000,
    turns=1,
    grown=10_000,
)
LARGE: Final = 100_000_000


@attrs.define
class Run:
    """What is measured, and of which inputs.

    Attributes:
        size: how much.
        inputs: the hashes of the inputs of the groups, by title.
    """

    size: Size
    inputs: dict[str, str] = attrs.field(factory=dict)

    def _noted(self, group: Group, digest: str) -> Group:
        self.inputs[group[0]] = digest
        return group

    def appending(self) -> Iterator[Group]:
        """Appending to the log."""
        size, items = self.size, inputs.item_ids(self.size.items)
        for shape, seconds in (
            ("about one to a cell", 1),
            ("about ten to a cell", 26_000 * size.items // size.records),
        ):
            usage = inputs.columns(items, size.records, seconds_per_cell=seconds)
            yield self._noted(appending.measure(items, usage, shape, size.rounds), usage.digest())

    def single(self) -> Iterator[Group]:
        """G: one record, and one preview after it."""
        yield answering.measure(1_000, self.size.cells, self.size.steps, self.size.rounds)

    def memory(self) -> Iterator[Group]:
        """What a record of the log takes in memory."""
        yield memory.measure(self.size.records, self.size.items)

    def importing(self) -> Iterator[Group]:
        """Importing the package."""
        yield importing.measure(self.size.imports)

    def billing(self) -> Iterator[Group]:
        """Summaries, previews, single ratings, snapshots."""
        items = inputs.item_ids(self.size.items)
        usage = inputs.columns(items, self.size.kept)
        for group in billing.measure(items, usage, self.size.rounds):
            yield self._noted(group, usage.digest())

    def prices(self) -> Iterator[Group]:
        """Audit, comparison and re-rating of prices."""
        yield prices.measure(self.size.kept, self.size.rounds)

    def events(self) -> Iterator[Group]:
        """Meter events: the doors of both logs, and warm summaries."""
        from benchmarks import meter_events  # noqa: PLC0415 - with those that follow

        items = inputs.item_ids(self.size.items)
        usage = inputs.columns(items, self.size.kept)
        for group in meter_events.measure(items, usage, 1_000, self.size.cells, self.size.rounds):
            yield self._noted(group, usage.digest())

    def summarizing(self) -> Iterator[Group]:
        """Hourly summaries of meter events of many customers, beside other tools."""
        from benchmarks import summarizing  # noqa: PLC0415 - needs NumPy, which the groups above do not

        # A question takes milliseconds, and the best of few turns would say more of the machine
        # than of the tools.
        for group, digest in summarizing.measure(self.size.few, 7 * self.size.turns, print):
            yield self._noted(group, digest)

    def folding(self) -> Iterator[Group]:
        """A, B and C: one number an item, beside other tools."""
        from benchmarks import folding  # noqa: PLC0415 - as above

        for group, digest in folding.measure(
            self.size.compared, self.size.few, self.size.turns, print
        ):
            yield self._noted(group, digest)

    def invoicing(self) -> Iterator[Group]:
        """D: from Parquet to invoice lines, beside other tools."""
        from benchmarks import invoicing  # noqa: PLC0415 - as above

        yield self._noted(*invoicing.measure(self.size.compared, self.size.turns, print))

    def rating(self) -> Iterator[Group]:
        """E: rating a column of quantities, beside other ways."""
        from benchmarks import rating  # noqa: PLC0415 - as above

        yield self._noted(*rating.measure(self.size.rated, max(self.size.turns, 2), print))

    def growing(self) -> Iterator[Group]:
        """F: time and peak memory a record, from 10,000 records on."""
        from benchmarks import growing  # noqa: PLC0415 - as above

        sizes = [10**power for power in range(4, 9) if 10**power <= self.size.grown]
        yield self._noted(*growing.measure(sizes, print))


GROUPS: Final[dict[str, Callable[[Run], Iterator[Group]]]] = {
    name: getattr(Run, name)
    for name in (
        *("appending", "single", "memory", "importing", "billing", "prices", "events"),
        *("summarizing", "folding", "invoicing", "rating", "growing"),
    )
}
COMPARED: Final = {
    "summarizing": ("numpy",),
    "folding": ("numpy",),
    "invoicing": ("numpy", "duckdb", "pyarrow"),
    "rating": ("numpy",),
    "growing": ("numpy", "duckdb", "pyarrow"),
}
"""Groups that need more than the core, and what they cannot do without."""


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: shows that everything runs, not how fast"
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help=f"let growth go on to {LARGE:,} records; takes 5 GB of disk",
    )
    listed = "; ".join(f"{name}: {group.__doc__}" for name, group in GROUPS.items())
    parser.add_argument(
        "--only",
        action="append",
        choices=GROUPS,
        metavar="GROUP",
        help=f"one group, or several: {listed}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "benchmarks" / "results",
        help="the folder of the JSON",
    )
    parser.add_argument(
        "--chart",
        type=Path,
        help="the folder of the picture; docs/_static for a full run unless given",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print each group as it is done, and write the JSON and the picture."""
    options = options_of()
    size = QUICK if options.quick else FULL
    run = Run(attrs.evolve(size, grown=LARGE) if options.large else size)
    print(report.heading())
    measured: list[Group] = []
    for name in options.only or GROUPS:
        missing = [package for package in COMPARED.get(name, ()) if find_spec(package) is None]
        if missing:
            print(f"\n{name} is not measured: {', '.join(missing)} not installed")
            continue
        for group in GROUPS[name](run):
            measured.append(group)
            print("\n".join(report.table([group])), flush=True)
    data = report.as_data(measured, run.inputs, {"seed": inputs.SEED, **attrs.asdict(run.size)})
    names = (
        ["quick"]
        if options.quick
        else ["-".join(options.only)]
        if options.only
        else ["latest", data["measured_at"][:16]]
    )
    for name in names:
        print("\nwritten to", report.write(data, options.output, name.replace(":", "")))
    if find_spec("matplotlib") is None:
        print("no picture: it needs matplotlib")
    else:
        is_full = not (options.quick or options.only)
        report.draw(
            measured, options.chart or (ROOT / "docs" / "_static" if is_full else options.output)
        )
    print("targets missed:", "; ".join(data["missed"]) or "none")


if __name__ == "__main__":
    main()
