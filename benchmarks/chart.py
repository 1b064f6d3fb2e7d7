"""A picture of the comparison: each tool's best speed in each workload, in relation to ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import Group, Row

WORKLOADS: Final = {
    "A: plain sum": "A  plain sum",
    "B: sum of": "B  sum, 5 % set",
    "B: max of": "B  max, 5 % set",
    "B: last of": "B  last, 5 % set",
    "B: every mode of": "B  every mode, 5 % set",
    "C: every mode of": "C  every mode, skewed",
    "D: from Parquet": "D  from Parquet to lines",
    "E: rating": "E  rating",
}
"""How titles begin, and what they are called in the picture."""

OURS: Final = "metering_core"
COLOURS: Final = {
    OURS: "#1b4965",
    "DuckDB": "#f2a541",
    "Polars": "#7fb069",
    "Polars streaming": "#3c7a3f",
    "pandas": "#b08ea2",
    "NumPy in floats": "#c0c0c0",
}
_BAR: Final = 0.8


def speeds(groups: Iterable[Group]) -> dict[str, dict[str, float]]:
    """Return for each workload how fast each tool is in its best form, in relation to ours; who is
    wrong has no bar.
    """
    found: dict[str, dict[str, float]] = {}
    for title, rows in groups:
        name = next((name for start, name in WORKLOADS.items() if title.startswith(start)), None)
        if name is not None and (not title.startswith("B") or ", 5% set" in title):
            found[name] = _relative(
                [row for row in rows if row.note is None and "against" not in row.name]
            )
    return {name: best for name, best in found.items() if best}


def _relative(rows: Sequence[Row]) -> dict[str, float]:
    best: dict[str, float] = {}
    for row in rows:
        tool = OURS if row.name.startswith(OURS) else row.name.partition(",")[0]
        if tool in COLOURS:
            best[tool] = max(best.get(tool, 0.0), row.value)
    return {tool: value / best[OURS] for tool, value in best.items()} if OURS in best else {}


def draw(groups: Iterable[Group], machine: str, folder: Path) -> list[Path]:
    """Write the picture as SVG and PNG; nothing where there is nothing to show."""
    found = speeds(groups)
    if not found:
        return []
    from matplotlib import rc_context  # noqa: PLC0415 - only here
    from matplotlib.figure import Figure  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "benchmarks.svg", folder / "benchmarks.png"]
    with rc_context({"svg.hashsalt": "metering-core", "font.size": 9}):
        figure = Figure(figsize=(8, 1.4 + 0.75 * len(found)), layout="constrained")
        _bars(figure.add_subplot(), found, machine)
        figure.legend(loc="outside upper center", ncol=len(COLOURS), frameon=False)
        for file in files:
            figure.savefig(
                file,
                dpi=120,
                metadata={"Date": None} if file.suffix == ".svg" else {"Software": None},
            )
    return files


def _bars(axes: Any, found: dict[str, dict[str, float]], machine: str) -> None:
    """Draw a group of bars for each workload, the first on top."""
    tools = [tool for tool in COLOURS if any(tool in best for best in found.values())]
    for place, best in enumerate(found.values()):
        shown = [tool for tool in tools if tool in best]
        height = _BAR / len(shown)
        for number, tool in enumerate(shown):
            at = place - _BAR / 2 + height * (number + 0.5)
            axes.barh(at, best[tool], height * 0.92, color=COLOURS[tool])
            if tool != OURS:
                axes.text(best[tool], at, f" {best[tool]:.2f}", va="center", fontsize=7)
    for tool in tools:
        axes.barh(0, 0, color=COLOURS[tool], label=tool)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.axvline(1, color=COLOURS[OURS], linewidth=0.8)
    axes.set_xlabel(f"speed, metering_core = 1 (longer is faster); {machine}")
    axes.spines[["top", "right"]].set_visible(False)
