"""The numbers as a table to read and as JSON to compare, with everything needed to repeat them."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import chart
from benchmarks.measuring import Group, Row

CPU_INFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Return what the numbers depend on beside the code."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }


def _cpu() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


PACKAGES: Final = (
    *("metering-core", "attrs", "python-dateutil", "numpy", "numba"),
    *("duckdb", "polars", "pandas", "pyarrow", "psycopg", "matplotlib"),
)


def versions() -> dict[str, str]:
    """Return the versions of what ran; ``not installed`` where only the tree was on the path, or
    nothing.
    """
    return {
        **{package: _version(package) for package in PACKAGES},
        "sqlite": sqlite3.sqlite_version,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def as_data(
    groups: Iterable[Group], inputs: dict[str, str], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the report as plain data; ``inputs`` are the hashes of what the groups were given, by
    their titles.
    """
    rows = {title: [_fields(row) for row in rows] for title, rows in groups}
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "options": options,
        "inputs": inputs,
        "groups": rows,
        "missed": [f"{title.partition(' (')[0]}: {name}" for title, name in _missed(rows)],
    }


def _missed(rows: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    return (
        (title, field["name"])
        for title, fields in rows.items()
        for field in fields
        if field["is_met"] is False
    )


def _fields(row: Row) -> dict[str, Any]:
    return {**attrs.asdict(row), "target": row.target, "is_met": row.is_met}


def write(data: dict[str, Any], folder: Path, name: str) -> Path:
    """Write the report as JSON and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def draw(groups: Iterable[Group], folder: Path) -> None:
    """Draw the comparison, where there was one, and say where."""
    on = machine()
    for file in chart.draw(groups, f"{on['cores']} cores of an {on['cpu']}", folder):
        print("drawn to", file)


def table(groups: Iterable[Group]) -> Iterator[str]:
    """Yield the lines of the table."""
    for title, rows in groups:
        yield ""
        yield title
        yield f"  {'':<72} {'bound':>10} {'measured':>10} {'unit':<22} {'ratio':>7} {'target':>8}"
        for row in rows:
            yield "  " + _line(row)


def _line(row: Row) -> str:
    bound = "" if row.bound is None else _number(row.bound)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = {True: "met", False: "MISSED", None: ""}[row.is_met]
    value = _number(row.value)
    found = (
        f"{row.name:<72} {bound:>10} {value:>10} {row.unit:<22} {ratio:>7} {row.target:>8} "
        f"{met:<6} {row.note or ''}"
    )
    return found.rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def heading() -> str:
    """Return one line on the machine."""
    on = machine()
    return f"{on['cpu']}, {on['cores']} cores, {on['python']}" + (
        "" if sys.flags.optimize == 0 else ", without assertions"
    )
