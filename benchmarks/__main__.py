"""`python -m benchmarks [--quick] [--output FOLDER]`: measure, print the table, write the JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import attrs

from benchmarks import answering, appending, billing, importing, inputs, memory, prices, report
from benchmarks.measuring import Group


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
    """

    records: int
    items: int
    cells: int
    steps: int
    kept: int
    rounds: int
    imports: int


FULL = Size(records=1_000_000, items=1_000, cells=1_000_000, steps=300, kept=100_000, rounds=5, imports=25)
QUICK = Size(records=5_000, items=20, cells=5_000, steps=20, kept=2_000, rounds=2, imports=2)


def groups(size: Size) -> Iterator[Group]:
    """Yield each group when it is measured."""
    items = inputs.item_ids(size.items)
    for shape, seconds in (("about one to a cell", 1), ("about ten to a cell", 26_000 * size.items // size.records)):
        usage = inputs.columns(items, size.records, seconds_per_cell=seconds)
        yield appending.measure(items, usage, shape, size.rounds)
    yield answering.measure(1_000, size.cells, size.steps, size.rounds)
    yield memory.measure(size.records, size.items)
    yield importing.measure(size.imports)
    yield from billing.measure(items, inputs.columns(items, size.kept), size.rounds)
    yield prices.measure(size.kept, size.rounds)


def main() -> None:
    """Measure, print each group as it is done, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, not how fast")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="the folder of the JSON")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    print(report.heading())
    measured: list[Group] = []
    for group in groups(size):
        measured.append(group)
        print("\n".join(report.table([group])), flush=True)
    digest = inputs.columns(inputs.item_ids(size.items), size.records).digest()
    data = report.as_data(measured, digest, {"seed": inputs.SEED, **attrs.asdict(size)})
    names = ["quick"] if options.quick else ["latest", data["measured_at"][:16].replace(":", "")]
    for name in names:
        print("\nwritten to", report.write(data, options.output, name))
    print("targets missed:", "; ".join(data["missed"]) or "none")


if __name__ == "__main__":
    main()
