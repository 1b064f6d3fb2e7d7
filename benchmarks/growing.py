"""Workload F: does a record cost more where there are more of them? Time and peak memory, each size
in a process of its own.

Each item is aggregated by one of the four modes, by turns. The columnar engine is given its
columns, and judges, appends and answers; DuckDB's engine is given a Parquet file and 2 GB. Peak
memory is what the process grew by from before its input was there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import metering_core as mc
from benchmarks import ours
from benchmarks.datasets import Dataset, Question, digest_of, expected, generated, write_parquet
from benchmarks.inputs import MODES, NOW, START
from benchmarks.measuring import Group, Row

STATUS: Final = Path("/proc/self/status")
CLEAR: Final = Path("/proc/self/clear_refs")
MEMORY_LIMIT: Final = "2GB"
ENGINES: Final = ("columnar", "duckdb")
COLUMNS: Final = ("codes", "timestamps", "quantities", "sets")
BYTES_A_RECORD: Final = 21
"""Of the input columns: an item's number in 4, a timestamp and a quantity in 8 each, a flag."""
IS_FLAT: Final = 1.5
"""So many times the cost of a record in the next smaller size is still flat."""
FROM: Final = 1_000_000
"""Below so many records the fixed cost of a process is most of it, and there is no target."""
WARM: Final = 1 << 21
"""With so many records at most, what a run loads and compiles is loaded and compiled before it is
measured.
"""
CHECKED: Final = 10_000_000
"""Up to so many records the answers are compared with those worked out without the library; beyond,
engine with engine.
"""


def measure(sizes: list[int], say: Callable[[str], None]) -> tuple[Group, str]:
    """Return what a record costs in each size and engine, with the hash of the largest usage."""
    found: dict[str, dict[int, dict[str, Any]]] = {engine: {} for engine in ENGINES}
    for records in sizes:
        say(f"  growing to {records:,} records")
        for engine, result in _of_size(records):
            found[engine][records] = result
            digest = result["input"]
    title = (
        f"F: growth to {sizes[-1]:,} records (columnar: append and answer; DuckDB: from "
        f"Parquet, limit {MEMORY_LIMIT})"
    )
    return (title, [row for engine in ENGINES for row in _rows(engine, found[engine])]), digest


def _of_size(records: int) -> Iterator[tuple[str, dict[str, Any]]]:
    with TemporaryDirectory(prefix="usage") as folder:
        usage = generated(records, 0.05)
        right = digest_of(_by_turns(usage)) if records <= CHECKED else None
        for name in COLUMNS:
            np.save(Path(folder) / f"{name}.npy", getattr(usage, name))
        write_parquet(usage, Path(folder) / "usage.parquet")
        items, digest = usage.items, usage.digest()
        del usage  # What is measured needs the memory.
        for engine in ENGINES:
            result = _in_process(engine, folder, items)
            right = right or result["answer"]
            assert result["answer"] == right, "flat, but wrong"
            yield engine, {**result, "input": digest}


def _by_turns(usage: Dataset) -> NDArray[np.int64]:
    """Return the right answers, each item by its mode."""
    sums, greatest, latest = expected(usage)[Question.EVERY_MODE]
    which = np.arange(usage.items) % len(MODES)
    answers: NDArray[np.int64] = np.where(which == 0, sums, np.where(which == 1, greatest, latest))
    return answers


def _in_process(engine: str, folder: str, items: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.growing", engine, folder, str(items)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _rows(engine: str, found: dict[int, dict[str, Any]]) -> Iterator[Row]:
    for records, result in found.items():
        name, smaller = f"{engine}, {records:,} records", found.get(records // 10)
        value = result["seconds"] / records * 1e9
        ratio = None if smaller is None else value / (smaller["seconds"] / (records // 10) * 1e9)
        yield Row(
            f"{name}: time",
            value,
            "ns/record",
            ratio=ratio,
            relative_to=f"{records // 10:,} records",
            at_most=IS_FLAT if records > FROM and ratio is not None else None,
            answer=result["answer"],
        )
        peak = result["peak"] / records
        is_bound = engine == "columnar"
        yield Row(
            f"{name}: peak memory",
            peak,
            "bytes/record",
            bound=BYTES_A_RECORD if is_bound else None,
            ratio=peak / BYTES_A_RECORD if is_bound else None,
            relative_to="the input columns" if is_bound else None,
            at_most=2.5 if is_bound and records >= FROM else None,
            note=f"{result['peak'] / 2**20:,.0f} MiB",
        )


# In the process that is measured ------------------------------------------------------------------


def peak() -> int:
    """Return the bytes of this process that were in memory at most, since they were last
    forgotten.
    """
    if STATUS.exists():
        line = next(
            line
            for line in STATUS.read_text(encoding="ascii").splitlines()
            if line.startswith("VmHWM:")
        )
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> int:
    """Let the peak begin at what is in memory now, where the system can do that, and return it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(
            0
        )  # What the allocator kept would be used again, and not be seen to grow.
    if CLEAR.exists():
        CLEAR.write_text("5", encoding="ascii")
    return peak()


def subscribed(items: int) -> list[mc.Subscription]:
    """Return subscriptions with so many items, by all modes in turn."""
    prices = [ours.priced(mode) for mode in MODES]
    return ours.subscribed(
        [f"si_{item:07d}" for item in range(items)],
        [prices[item % len(prices)] for item in range(items)],
    )


def answered(usage: Any, subscriptions: list[mc.Subscription]) -> NDArray[np.int64]:
    """Ask for all items at once."""
    period = subscriptions[0].period_at(START)
    assert period is not None, "the subscriptions are alive"
    requests = [(item, period) for one in subscriptions for item in one.items]
    return ours.quantities_of(usage, requests)


def in_columns(
    folder: Path, subscriptions: list[mc.Subscription]
) -> tuple[float, int, NDArray[np.int64]]:
    """Load the columns, append and answer; return seconds, peak and answers."""
    from metering_core.columnar import ColumnarUsage, UsageBatch  # noqa: PLC0415 - one engine a process

    names = [item.id for one in subscriptions for item in one.items]

    def appended_and_answered(
        usage: ColumnarUsage, columns: list[NDArray[Any]]
    ) -> NDArray[np.int64]:
        codes, timestamps, quantities, sets = columns
        batch = UsageBatch.from_columns(
            codes, quantities, timestamps, sets, item_ids=names, copy=False
        )
        usage.append(batch, now=NOW)
        return answered(usage, subscriptions)

    # What is compiled or imported at its first use is no matter of size.
    mapped = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS)
    appended_and_answered(ColumnarUsage(subscriptions), [column[:WARM].copy() for column in mapped])
    usage = ColumnarUsage(subscriptions)
    before = forget_peak()
    columns = [np.load(folder / f"{name}.npy") for name in COLUMNS]
    began = perf_counter()
    found = appended_and_answered(usage, columns)
    return perf_counter() - began, peak() - before, found


def in_place(
    folder: Path, subscriptions: list[mc.Subscription]
) -> tuple[float, int, NDArray[np.int64]]:
    """Answer from the Parquet file under the memory limit; return seconds, peak and answers."""
    from metering_core.sql import DuckDBUsage  # noqa: PLC0415 - as above

    before = forget_peak()
    began = perf_counter()
    file = folder / "usage.parquet"
    usage = DuckDBUsage(
        file, subscriptions, now=NOW, memory_limit=MEMORY_LIMIT, temp_directory=folder / "spilled"
    )
    found = answered(usage, subscriptions)
    return perf_counter() - began, peak() - before, found


def main(engine: str, folder: str, items: int) -> dict[str, object]:
    """Measure one engine on one size."""
    run = {"columnar": in_columns, "duckdb": in_place}[engine]
    seconds, grown, found = run(Path(folder), subscribed(items))
    return {"seconds": seconds, "peak": grown, "answer": digest_of(found)}


if __name__ == "__main__":
    asked_engine, asked_folder, asked_items = sys.argv[1:]
    print(json.dumps(main(asked_engine, asked_folder, int(asked_items))))
