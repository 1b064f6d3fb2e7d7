"""`python -m benchmarks.readme`: put the comparison of the latest full run into the README, as a
table and a picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- comparison: made by `python -m benchmarks.readme` -->"
END: Final = "<!-- end of comparison -->"

PICTURE: Final = (
    "![How fast each tool is in each workload, in relation to this "
    "library](docs/_static/benchmarks.svg)"
)

OURS: Final = ("metering_core", "our best")
RACES: Final = re.compile(r"[A-E]: |Hourly summaries ")
"""Titles of groups that race other tools."""

COSTS: Final = re.compile(r"F: |A summary |[\d,]+ meter events ")
"""Titles of groups that hold a cost of ours to another one."""


def table(data: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table: what a run says of us in relation to the best peer, or to the
    one that a target names.
    """
    yield "| workload | ours | measured | wanted |"
    yield "| --- | --- | --- | --- |"
    for title, rows in data["groups"].items():
        if RACES.match(title):
            for row in _headlines(rows):
                yield _line(
                    title, row, f"{_number(row['ratio'])} times as fast as {row['relative_to']}"
                )
    for title, rows in data["groups"].items():
        if COSTS.match(title):
            for row in (row for row in rows if row["target"]):
                yield _line(
                    title, row, f"{_number(row['ratio'])} times that of {row['relative_to']}"
                )


def _line(title: str, row: dict[str, Any], measured: str) -> str:
    workload = re.split(r" \(|, in relation", title)[0]
    return f"| {workload} | {_mode(row)} | {measured} | {_wanted(row)} |"


def _headlines(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return our rows that have a target, and our fastest: it stands against the best peer, whom a
    target need not name.
    """
    ours = [row for row in rows if row["name"].startswith(OURS) and row["ratio"] is not None]
    beside_the_best = [
        row
        for row in ours
        if " against " not in row["name"] and not row["relative_to"].startswith(OURS)
    ]
    fastest = max(beside_the_best, key=lambda row: float(row["value"]))
    return [row for row in ours if row["target"] or row is fastest]


def _mode(row: dict[str, Any]) -> str:
    return (
        str(row["name"])
        .partition(" against ")[0]
        .removeprefix("our best (")
        .rstrip(")")
        .removeprefix("metering_core ")
    )


def _number(ratio: float) -> str:
    """Return three digits, never as a power of ten."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _wanted(row: dict[str, Any]) -> str:
    return str(row["target"]).lstrip(">=< ") + (", **missed**" if row["is_met"] is False else "")


def written(text: str, data: dict[str, Any]) -> str:
    """Return the page with table and picture between its marks."""
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    shown = [*table(data), "", PICTURE]
    return f"{text[:begin]}\n\n" + "".join(f"{line}\n" for line in shown) + text[end:]


def latest(folder: Path = RESULTS) -> dict[str, Any]:
    """Return the latest full run; a workload that was measured again since, alone, stands as it was
    measured then.
    """
    runs = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("*.json"))
        if file.stem != "latest"
    ]
    data: dict[str, Any] = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    for run in sorted(runs, key=lambda one: str(one["measured_at"])):
        if run["measured_at"] > data["measured_at"]:
            data["groups"].update(
                {title: rows for title, rows in run["groups"].items() if title in data["groups"]}
            )
    return data


def main() -> None:
    """Rewrite the README."""
    README.write_text(written(README.read_text(encoding="utf-8"), latest()), encoding="utf-8")


if __name__ == "__main__":
    main()
