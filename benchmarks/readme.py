"""`python -m benchmarks.readme`: put the comparison of the latest full run into the README, as a table and a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "latest.json"
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- comparison: made by `python -m benchmarks.readme` -->"
END: Final = "<!-- end of comparison -->"

PICTURE: Final = "![How fast each tool is in each workload, in relation to this library](docs/_static/benchmarks.svg)"

OURS: Final = ("metering_core", "our best")
COMPARED: Final = re.compile(r"^[A-E]: ")
GROWN: Final = "F: "


def table(data: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table: what a run says of us in relation to the best peer, or to the one that a target names."""
    yield "| workload | our speed is | wanted |"
    yield "| --- | --- | --- |"
    for title, rows in data["groups"].items():
        if COMPARED.match(title):
            for row in _headlines(rows):
                yield f"| {_workload(title)} | {row['ratio']:.3g} times {row['relative_to']} | {_wanted(row)} |"
    for title, rows in data["groups"].items():
        if title.startswith(GROWN):
            for row in rows:
                if row["target"]:
                    yield f"| F: {row['name']} | {row['ratio']:.3g} times that of {row['relative_to']} | {_wanted(row)} |"


def _headlines(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return our rows that have a target; without one, our fastest."""
    ours = [row for row in rows if row["name"].startswith(OURS) and row["ratio"] is not None]
    return [row for row in ours if row["target"]] or sorted(ours, key=lambda row: -float(row["value"]))[:1]


def _workload(title: str) -> str:
    return title.partition(" (")[0]


def _wanted(row: dict[str, Any]) -> str:
    return str(row["target"]).lstrip(">=< ") + (", **missed**" if row["is_met"] is False else "")


def written(text: str, data: dict[str, Any]) -> str:
    """Return the page with table and picture between its marks."""
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    shown = [*table(data), "", PICTURE]
    return f"{text[:begin]}\n\n" + "".join(f"{line}\n" for line in shown) + text[end:]


def main() -> None:
    """Rewrite the README."""
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    README.write_text(written(README.read_text(encoding="utf-8"), data), encoding="utf-8")


if __name__ == "__main__":
    main()
