"""The benchmarks run and check their answers; how fast they are is no matter of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs the benchmarks, which no wheel has")


def run_quick(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(folder)]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_quick_run_reports_every_group(tmp_path):
    """A quick run finds every answer right, prints the table and writes machine, versions, hashes and rows as JSON."""
    done = run_quick(tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "quick.json").read_text(encoding="utf-8"))
    assert {"cpu", "cores", "python"} <= data["machine"].keys()
    assert "attrs" in data["versions"]
    titles = [title.split()[0] for title in data["groups"]]
    assert titles == ["Appending", "Appending", "One", "Memory", "Import,", "Bills", "Rating", "Snapshot", "Price"]
    assert all(row["value"] >= 0 for rows in data["groups"].values() for row in rows)
    assert all(title in done.stdout for title in data["groups"])


def test_a_wrong_answer_is_no_measurement():
    """Whoever is fast but wrong is not timed: the run fails."""
    measuring = pytest.importorskip("benchmarks.measuring")
    wrong = measuring.Contender(lambda: lambda: 1, expected=2)
    with pytest.raises(AssertionError, match="fast, but wrong"):
        measuring.race({"wrong": wrong}, 1)


def test_inputs_are_the_same_everywhere():
    """The seeded columns hash to the same value in every process, with about 5 % `set`."""
    inputs = pytest.importorskip("benchmarks.inputs")
    usage = inputs.columns(inputs.item_ids(10), 2_000)
    assert usage.digest() == inputs.columns(inputs.item_ids(10), 2_000).digest()
    assert 60 <= usage.actions.count("set") <= 140


def test_the_loops_agree_with_hand_work():
    """The loop that answers are compared with sets, adds and aggregates as worked by hand."""
    inputs = pytest.importorskip("benchmarks.inputs")
    # si_0000 sums, si_0001 takes the greatest cell: 10 was set over 5, then 1 came on top; 7 stands alone.
    usage = inputs.Columns(
        ["si_0000", "si_0000", "si_0000", "si_0000", "si_0001", "si_0001"],
        [5, 10, 1, 7, 3, 2],
        [60, 60, 60, 61, 60, 61],
        ["increment", "set", "increment", "increment", "increment", "increment"],
    )
    assert inputs.MODES[:2] == ("sum", "max")
    assert inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage)) == {"si_0000": 18, "si_0001": 3}
    assert sum(inputs.unchecked_loop(usage).values()) == 28
