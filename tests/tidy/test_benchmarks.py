"""The benchmarks run and check their answers; how fast they are is no matter of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from places import ROOT_FOLDER

ROOT = ROOT_FOLDER

pytestmark = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="needs the benchmarks, which no wheel has"
)


def run_quick(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(folder), *options]
    return subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_quick_run_reports_every_group(tmp_path):
    """A quick run finds every answer right, prints the table and writes machine, versions, hashes
    and rows as JSON.
    """
    done = run_quick(tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "quick.json").read_text(encoding="utf-8"))
    assert {"cpu", "cores", "python"} <= data["machine"].keys()
    assert "attrs" in data["versions"]
    titles = [title.split()[0] for title in data["groups"]]
    assert titles[:9] == [
        "Appending",
        "Appending",
        "One",
        "Memory",
        "Import,",
        "Bills",
        "Rating",
        "Snapshot",
        "Price",
    ]
    events, compared = titles[9:11], list(dict.fromkeys(titles[11:]))
    assert all(" events" in title for title in list(data["groups"])[9:11]), events
    assert compared in ([], ["Hourly", "A:", "B:", "C:", "Small:", "D:", "E:", "F:"])
    assert all(row["value"] >= 0 for rows in data["groups"].values() for row in rows)
    assert all(title in done.stdout for title in data["groups"])


@pytest.mark.slow
def test_other_tools_give_our_answers(tmp_path):
    """Each tool that is installed is asked every question, and not one of them differs from ours in
    a digit.
    """
    pytest.importorskip("numpy", reason="needs the extra columnar")
    done = run_quick(tmp_path, "--only", "folding")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "quick.json").read_text(encoding="utf-8"))
    for title, rows in data["groups"].items():
        assert rows[0]["name"].startswith("metering_core"), title
        assert {row["answer"] for row in rows} == {rows[0]["answer"]}, title
        assert not any(row["note"] for row in rows), title
    assert set(data["inputs"]) == set(data["groups"])
    named = [name for name in ("duckdb", "polars", "pandas") if find_spec(name)]
    measured = " ".join(row["name"].lower() for rows in data["groups"].values() for row in rows)
    assert all(name in measured for name in named)


def test_floats_are_told_by_how_much_they_are_wrong():
    """Rating in floats does not agree with all the other ways, which agree, and its row says by how
    much it is wrong.
    """
    pytest.importorskip("numpy", reason="needs the extra columnar")
    rating = pytest.importorskip("benchmarks.rating")
    said: list[str] = []
    (title, rows), _ = rating.measure(20_000, 1, said.append)
    notes = {row.name: row.note for row in rows}
    assert title.startswith("E: rating 20,000 quantities")
    assert notes["NumPy in floats, tier by tier"].startswith("wrong in ")
    assert {note for name, note in notes.items() if "floats" not in name} <= {
        None,
        "measured on a sample of one in 50",
    }


def test_lines_from_a_file_are_everybody_s(tmp_path):
    """From a Parquet file both of our engines, DuckDB and Polars make the same invoice lines."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    invoicing = pytest.importorskip("benchmarks.invoicing")
    (_, rows), _ = invoicing.measure(5_000, 1, lambda said: None)
    assert {row.answer for row in rows} == {rows[0].answer}
    assert not any(row.note for row in rows)


def test_the_expected_answers_agree_with_hand_work():
    """The answers that all tools are compared with: a `set` overwrites what came before it in its
    cell and nowhere else.
    """
    numpy = pytest.importorskip("numpy", reason="needs the extra columnar")
    datasets = pytest.importorskip("benchmarks.datasets")
    # Item 0: cell 60 is 5, set 10, + 1 = 11; cell 0 is 7. Item 1: cell 60 is 3 + 4 = 7, cell 120 is
    # set 2. Item 2 has nothing.
    rows = [
        (0, 60, 5, False),
        (1, 60, 3, False),
        (0, 60, 10, True),
        (0, 0, 7, False),
        (1, 120, 2, True),
    ]
    rows += [(0, 60, 1, False), (1, 60, 4, False)]
    codes, timestamps, quantities, sets = map(numpy.array, zip(*rows, strict=True))
    found = datasets.expected(datasets.Dataset("", 3, codes, timestamps, quantities, sets))
    plain, sums, greatest, latest = [23, 9, 0], [18, 9, 0], [11, 7, 0], [11, 2, 0]
    assert {question.value: answer.tolist() for question, answer in found.items()} == {
        "plain sum": [plain],
        "sum": [sums],
        "max": [greatest],
        "last": [latest],
        "every mode": [sums, greatest, latest],
    }


def test_who_is_wrong_does_not_count():
    """A peer that is fast but wrong is shown with its fault, and our ratio is to the best of those
    that are right.
    """
    numpy = pytest.importorskip("numpy", reason="needs the extra columnar")
    competing, peers = (
        pytest.importorskip("benchmarks.competing"),
        pytest.importorskip("benchmarks.peers"),
    )
    right, wrong = numpy.array([1, 2]), numpy.array([1.0, 2.5])

    def way(name, found, *, is_ours=False):
        return peers.Way(
            name,
            lambda: lambda: sum(range(1_000 if name == "wrong" else 200_000)),
            lambda _: found,
            is_ours,
        )

    field = competing.race(
        [way("wrong", wrong), way("right", right), way("ours", right, is_ours=True)], right, 2
    )
    rows = {row.name: row for row in competing.rows(field, 1, "a unit", at_least=0.001)}
    assert rows["wrong"].note == "wrong in 1 of 2, by up to 0.5"
    assert rows["ours"].relative_to == "right"
    assert rows["ours"].is_met
    with pytest.raises(AssertionError, match="fast, but wrong in 1 of 2"):
        competing.race([way("ours", wrong, is_ours=True)], right, 1)


def test_the_pages_show_the_latest_run():
    """The comparison in the documentation and the headlines of the README are what the latest runs
    say.
    """
    readme = pytest.importorskip("benchmarks.readme")
    for path, text in readme.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"run python -m benchmarks.readme: {path}"


def test_headlines_of_the_readme():
    """A race says how many times the speed of the best peer ours is, also where a target names
    another; by hand, 2,000 ns a record are 200 s for a hundred million.
    """
    readme = pytest.importorskip("benchmarks.readme")
    ours = {
        "name": "metering_core columnar",
        "value": 9.0,
        "ratio": 0.9,
        "relative_to": "Polars",
        "target": "",
    }
    named = {**ours, "name": "metering_core columnar against DuckDB", "ratio": 3.0, "target": "> 1"}
    data = {"groups": {f"{start} (timed)": [named, ours] for start in readme.RACED}}
    rows = [
        {"name": "duckdb, 100,000,000 records: time", "value": 2_000.0, "note": None},
        {"name": "duckdb, 100,000,000 records: peak memory", "value": 1.0, "note": "7 MiB"},
    ]
    lines = list(readme.headlines(data, {"groups": {readme.GROWN: rows}}))[2:]
    assert [line.split(" | ")[-1] for line in lines] == [
        "0.9 times the speed of Polars |",
        "0.9 times the speed of Polars |",
        "200 s, and 7 MiB of memory |",
    ]


def test_a_workload_that_was_measured_again_stands_as_it_was_then(tmp_path):
    """What was measured alone after the full run takes the place of the same workload, and nothing
    else does.
    """
    readme = pytest.importorskip("benchmarks.readme")
    runs = {
        "latest": ("2026-01-02", {"A: one": [1], "B: two": [1]}),
        "folding": ("2026-01-03", {"A: one": [2], "A: ten": [2]}),
        "rating": ("2026-01-01", {"B: two": [3]}),
    }
    for name, (measured_at, groups) in runs.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"measured_at": measured_at, "groups": groups}), encoding="utf-8"
        )
    assert readme.latest(tmp_path)["groups"] == {"A: one": [2], "B: two": [1]}


def test_the_table_of_the_comparison():
    """A row says how many times the speed of which tool ours is, what was wanted, and whether it
    was missed.
    """
    readme = pytest.importorskip("benchmarks.readme")
    row = {
        "name": "metering_core columnar, sum",
        "value": 9.0,
        "ratio": 1.5,
        "relative_to": "DuckDB, group by",
    }
    missed = {**row, "target": ">= 2", "is_met": False}
    peer = {**row, "name": "DuckDB, group by", "target": "", "is_met": None}
    data = {"groups": {"A: plain sum of 9 records (timed)": [missed, peer], "Small: sum": [missed]}}
    shown = (
        "| A: plain sum of 9 records | columnar, sum | 1.5 times as fast as DuckDB, group by | "
        "2, **missed** |"
    )
    assert list(readme.table(data))[2:] == [shown]
    begin, end = readme.BEGIN.format("comparison"), readme.END.format("comparison")
    page = f"before\n{begin}\nold\n{end}\nafter"
    made = readme.written(page, "comparison", [shown], "../")
    picture = readme.PICTURE.format("../")
    assert made.splitlines() == ["before", begin, "", shown, "", picture, end, "after"]
    assert readme.written(made, "comparison", [shown], "../") == made


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
    # si_0000 sums, si_0001 takes the greatest cell: 10 was set over 5, then 1 came on top; 7 stands
    # alone.
    usage = inputs.Columns(
        ["si_0000", "si_0000", "si_0000", "si_0000", "si_0001", "si_0001"],
        [5, 10, 1, 7, 3, 2],
        [60, 60, 60, 61, 60, 61],
        ["increment", "set", "increment", "increment", "increment", "increment"],
    )
    assert inputs.MODES[:2] == ("sum", "max")
    assert inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage)) == {
        "si_0000": 18,
        "si_0001": 3,
    }
    assert sum(inputs.unchecked_loop(usage).values()) == 28


@pytest.mark.slow
def test_a_tree_is_compared_with_another():
    """Each door is measured in a process of the tree that it is of, by turns; a tree beside itself
    has each of them.
    """
    against = pytest.importorskip("benchmarks.against")
    found = list(against.measured(ROOT, 1_000, 1, 2, "UsageLog.record"))
    assert [one.door for one in found] == ["UsageLog.record"]
    assert [len(one.older) for one in found] == [2]


def test_a_row_says_how_fast_this_tree_is():
    """By hand: 2 ms became 4 ms in one turn and 3 ms became 3 ms in the other, so 2/3 by the least,
    and 3/4 by the median.
    """
    against = pytest.importorskip("benchmarks.against")
    slow = against.Turns("a door", [0.002, 0.003], [0.004, 0.003])
    even = against.Turns("another", [0.002, 0.002], [0.002, 0.002])
    head, _, first, second, last = against.table([slow, even])
    assert head.startswith("| door | older, ms | this, ms |")
    assert first.startswith("| a door | 2.00 | 3.00 | 0.667 | 0.750 |")
    assert second.startswith("| another | 2.00 | 2.00 | 1.000 | 1.000 | 1.000 to 1.000 |")
    assert last == "below 0.95 by both: a door"
