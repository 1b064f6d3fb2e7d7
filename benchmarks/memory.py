"""How small: what a record costs in memory, seen by the operating system and by Python, each in a
process of its own.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks import inputs
from benchmarks.inputs import NOW
from benchmarks.measuring import Group, Row

STATUS: Final = Path("/proc/self/status")
BATCH: Final = 10_000
TARGET: Final = 250.0


def measure(records: int, items: int) -> Group:
    """Return the bytes that a record of its own cell costs, in many items and in one, with and
    without ids.
    """
    rows = [
        row
        for shape in ((items, False), (1, False), (items, True))
        for row in _rows(records, *shape)
    ]
    return f"Memory of {records:,} records, each in a cell of its own", rows


def _rows(records: int, items: int, has_ids: bool) -> Iterator[Row]:  # noqa: FBT001
    for source in ("resident", "traced"):
        if source == "resident" and not STATUS.exists():
            continue
        found = _in_process(source, records, items, has_ids)
        told = "with" if has_ids else "without"
        for state in ("appended", "asked", "plain"):
            name = {
                "appended": "appended",
                "asked": "and every item asked",
                "plain": "bound: one dict of the same cells",
            }[state]
            value = found[state] / records
            is_target = state == "asked" and not has_ids
            yield Row(
                f"{items:,} items, {told} ids, {source}: {name}",
                value,
                "bytes/record",
                bound=None if state == "plain" else found["plain"] / records,
                ratio=value,
                relative_to="bytes/record",
                at_most=TARGET if is_target else None,
                answer=found["answer"],
            )


def _in_process(source: str, records: int, items: int, has_ids: bool) -> dict[str, Any]:  # noqa: FBT001
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        source,
        str(records),
        str(items),
        str(int(has_ids)),
    ]
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# In the process that is measured ------------------------------------------------------------------


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    line = next(
        line
        for line in STATUS.read_text(encoding="ascii").splitlines()
        if line.startswith("VmRSS:")
    )
    return int(line.split()[1]) * 1024


def traced() -> int:
    """Return the bytes that Python allocated since tracing began."""
    return tracemalloc.get_traced_memory()[0]


def batches(records: int, items: list[str]) -> Iterator[tuple[list[str], list[int], list[int]]]:
    """Yield the records in batches that are gone when they were taken, so that only what is kept is
    measured.

    Quantities are above 256, up to where Python shares one object for equal ints.
    """
    stamps = iter(inputs.distinct_timestamps(-(-records // len(items))))
    rows = ((item, timestamp) for timestamp in stamps for item in items)
    while batch := list(islice(rows, BATCH)):
        names, times = zip(*batch, strict=True)
        yield list(names), [257 + timestamp % 100_003 for timestamp in times], list(times)


def main(source: str, records: int, items: int, has_ids: bool) -> dict[str, object]:  # noqa: FBT001
    """Fill a log, then a plain dict, and return the growth of memory after each."""
    names = inputs.item_ids(items)
    log = inputs.log_of(names)
    used: Callable[[], int] = resident
    if source == "traced":
        tracemalloc.start()
        used = traced
    total, before = 0, _settled(used)
    for number, (owners, quantities, stamps) in enumerate(batches(records, names)):
        ids = [f"{number:06d}-{row:06d}" for row in range(len(owners))] if has_ids else None
        total += log.append_columns(owners, quantities, stamps, ids=ids, now=NOW).accepted
    appended = _settled(used)
    found = inputs.totals(log, names)
    asked = _settled(used)
    assert total == records, "every record is accepted"
    plain = _plain(records, names)
    grown = {
        "appended": appended - before,
        "asked": asked - before,
        "plain": _settled(used) - asked,
    }
    assert found == inputs.unchecked_totals(plain), "small, but wrong"
    return {**grown, "answer": inputs.digest(found)}


def _plain(records: int, names: list[str]) -> inputs.Cells:
    """Return the same cells as the loop that a user would write keeps them."""
    cells: inputs.Cells = {}
    for owners, quantities, stamps in batches(records, names):
        cells.update(zip(zip(owners, stamps, strict=True), quantities, strict=True))
    return cells


def _settled(used: Callable[[], int]) -> int:
    gc.collect()
    return used()


if __name__ == "__main__":
    source, *numbers = sys.argv[1:]
    records, items, has_ids = map(int, numbers)
    print(json.dumps(main(source, records, items, bool(has_ids))))
