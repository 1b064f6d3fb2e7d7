"""The engines behind the command line: the same bill from each, and the choice between them."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

pytest.importorskip("cyclopts", reason="needs the extra 'cli'")

from pathlib import Path

from builders import START, subscribed
from cyclopts import App

from metering_core import InvalidValueError, MissingExtraError, finalize_invoice
from metering_core import cli_engines as engines
from metering_core.cli_engines import Engine
from metering_core.sql import events_kernel, sql_kernel

TEXT = (
    "subscription_item,quantity,timestamp,action\n"
    f"si_0,5,{START},\nunknown,1,{START},\nsi_0,10,{START},set\nsi_0,2,2024-02-01T00:00:00Z,\n"
)


@pytest.fixture
def usage(tmp_path):
    """Return the path of a file with usage in two periods, an overwritten cell and a refused row."""
    path = tmp_path / "usage.csv"
    path.write_text(TEXT)
    return path


def loaded(engine, path):
    """Return what an engine loads and what it refused."""
    refused = []
    if engine is Engine.DUCKDB:
        pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
        return engines.load_files([subscribed()], str(path), refused.append), refused
    if engine is Engine.COLUMNAR:
        pytest.importorskip("numpy", reason="needs the extra 'columnar'")
    with path.open(newline="") as stream:
        return engines.load_text(engine, [subscribed()], stream, "csv", str(path), refused.append), refused


@pytest.mark.parametrize("engine", [Engine.MEMORY, Engine.COLUMNAR, Engine.DUCKDB])
def test_each_engine_makes_the_same_bill(engine, usage):
    """Ten units in January (5, then set to 10) and two in February, at one cent each; the unknown item is refused."""
    found, refused = loaded(engine, usage)
    (periods,) = found.periods.values()
    bills = [finalize_invoice(subscribed(), found.usage, period, now=period.end).total for period in periods]
    assert bills == [10, 2]
    assert [one.code for one in refused] == ["subscription_item_unknown"]
    assert str(usage) in refused[0].message


@pytest.mark.parametrize(
    ("path", "size", "options", "expected"),
    [
        ("-", 0, {}, "memory"),
        ("small.csv", 10, {}, "memory"),
        ("absent.csv", None, {}, "memory"),
        ("a.parquet", 10, {}, "duckdb"),
        ("*.csv", None, {}, "duckdb"),
        ("large.csv", 100, {}, "duckdb"),
        ("large.csv", 100, {"explains": True}, "columnar"),
        ("large.csv", 100, {"skips": True}, "columnar"),
    ],
)
def test_auto_picks_by_format_and_size(path, size, options, expected, tmp_path, monkeypatch):
    """Small text goes to memory, large text to DuckDB unless records must be kept, and Parquet always to DuckDB."""
    monkeypatch.setattr(engines, "LARGE_BYTES", 100)
    monkeypatch.setattr(engines, "_is_installed", lambda module: True)
    if size is not None and path != "-":
        (tmp_path / path).write_bytes(b" " * size)
    choice = engines.choose_engine(Engine.AUTO, path if path == "-" else str(tmp_path / path), **options)
    assert (choice.engine, str(choice).split(":")[0]) == (expected, f"engine {expected}")


def test_auto_does_without_extras(tmp_path, monkeypatch):
    """Without the extras, large text is read into memory, and the reason names them."""
    monkeypatch.setattr(engines, "LARGE_BYTES", 1)
    monkeypatch.setattr(engines, "_is_installed", lambda module: False)
    (tmp_path / "u.csv").write_text(TEXT)
    assert "'duckdb' and 'columnar'" in str(engines.choose_engine(Engine.AUTO, str(tmp_path / "u.csv")))
    with pytest.raises(MissingExtraError, match="columnar"):
        engines.load_text(Engine.COLUMNAR, [], io.StringIO(TEXT), "csv", "u.csv", print)


@pytest.mark.parametrize(
    ("engine", "usage", "options", "what"),
    [
        ("memory", "u.parquet", {}, "reads Parquet"),
        ("columnar", "*.csv", {}, "several files"),
        ("duckdb", "-", {}, "reads standard input"),
        ("duckdb", "u.csv", {"explains": True}, "keeps records"),
        ("duckdb", "u.csv", {"skips": True}, "skips malformed rows"),
    ],
)
def test_an_engine_that_cannot_is_refused(engine, usage, options, what):
    """An engine that was asked for and cannot do what is asked is refused with the engines that can."""
    with pytest.raises(InvalidValueError, match=what) as refused:
        engines.choose_engine(Engine(engine), usage, **options)
    assert refused.value.param == "--engine"


@pytest.mark.parametrize("engine", ["memory", "columnar", "duckdb"])
def test_an_engine_that_can_is_taken(engine):
    """What was asked for is taken."""
    assert engines.choose_engine(Engine(engine), "u.csv").engine == engine


def test_the_kernel_is_printed(capsys):
    """The command `sql` prints the text that the engines run."""
    app = App()
    engines.register(app)
    app("sql", result_action="return_value")
    assert capsys.readouterr().out == sql_kernel()


def test_the_kernel_of_meter_events_is_printed(capsys):
    """With `--events` the command `sql` prints both statements for meter events."""
    app = App()
    engines.register(app)
    app(["sql", "--events"], result_action="return_value")
    printed = capsys.readouterr().out
    assert [one.strip() for one in printed.split("\n;\n")] == [one.strip() for one in events_kernel()]


def test_printing_the_kernel_needs_no_extra_engine():
    """The text can be read where neither DuckDB, pyspark nor NumPy is installed."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['duckdb', 'pyspark', 'numpy', 'pyarrow']));"
    code = f"{blocked} from metering_core.cli_engines import print_kernel; print_kernel()"
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == sql_kernel()
