"""`python -m benchmarks.readme`: put the comparison of the latest full run into the documentation,
and its headlines into the README, each with the picture.
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
PAGE: Final = ROOT / "docs" / "reference" / "benchmarks.md"
BEGIN: Final = "<!-- {}: made by `python -m benchmarks.readme` -->"
END: Final = "<!-- end of {} -->"

PICTURE: Final = (
    "![How fast each tool is in each workload, in relation to this "
    "library]({}_static/benchmarks.svg)"
)

RACED: Final = {
    "B: every mode of 10,000,000 records on 100,000 items, 5% set": (
        "all quantities of 100,000 items from 10,000,000 records in memory, 5 % of them `set`"
    ),
    "D: from Parquet": "from a Parquet file of 10,000,000 records to a table of invoice lines",
}
"""How titles begin whose fastest row is a headline, and how the README calls them."""

GROWN: Final = "F: growth to 100,000,000 records"
MANY: Final = 100_000_000

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
    ours = _ours(rows)
    fastest = _fastest(ours)
    return [row for row in ours if row["target"] or row is fastest]


def _ours(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["name"].startswith(OURS) and row["ratio"] is not None]


def _fastest(ours: Iterable[dict[str, Any]]) -> dict[str, Any]:
    beside_the_best = (
        row
        for row in ours
        if " against " not in row["name"] and not row["relative_to"].startswith(OURS)
    )
    return max(beside_the_best, key=lambda row: float(row["value"]))


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


def headlines(data: dict[str, Any], grown: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the README's table: two races, and how a hundred million records go
    through DuckDB.
    """
    yield "| what | measured |"
    yield "| --- | --- |"
    for start, words in RACED.items():
        (title,) = (one for one in data["groups"] if one.startswith(start))
        best = _fastest(_ours(data["groups"][title]))
        yield f"| {words} | {_number(best['ratio'])} times the speed of {best['relative_to']} |"
    (title,) = (one for one in grown["groups"] if one.startswith(GROWN))
    rows = {row["name"]: row for row in grown["groups"][title]}
    seconds = float(rows[f"duckdb, {MANY:,} records: time"]["value"]) * MANY / 1e9
    memory = rows[f"duckdb, {MANY:,} records: peak memory"]["note"]
    yield (
        f"| {MANY:,} records in Parquet through DuckDB, under a limit of 2 GB "
        f"| {seconds:.0f} s, and {memory} of memory |"
    )


def written(text: str, name: str, lines: Iterable[str], path: str) -> str:
    """Return a page with a table and the picture between the marks of a name."""
    begin = text.index(BEGIN.format(name)) + len(BEGIN.format(name))
    shown = [*lines, "", PICTURE.format(path)]
    made = "".join(f"{line}\n" for line in shown)
    return f"{text[:begin]}\n\n{made}{text[text.index(END.format(name)) :]}"


def pages() -> dict[Path, str]:
    """Return each page with what the runs say of it."""
    data = latest()
    grown = json.loads((RESULTS / "growing.json").read_text(encoding="utf-8"))
    front, page = (path.read_text(encoding="utf-8") for path in (README, PAGE))
    return {
        README: written(front, "headlines", headlines(data, grown), "docs/"),
        PAGE: written(page, "comparison", table(data), "../"),
    }


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
    """Rewrite the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
