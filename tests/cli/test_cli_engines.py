"""The engines behind the command line: the same bill from each, and the choice between them."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from places import ROOT_FOLDER

pytest.importorskip("cyclopts", reason="needs the extra 'cli'")


from builders import START, subscribed
from cyclopts import App

from metering_core import InvalidValueError, finalize_invoice
from metering_core.cli import app as cli
from metering_core.cli import engines
from metering_core.cli.complaints import OnError, Refusals
from metering_core.cli.engines import Engine
from metering_core.cli.files import HowToRead
from metering_core.errors import MissingExtraError
from metering_core.feeds.instants import PlausibleTime
from metering_core.sql import sql_kernel

TEXT = (
    "subscription_item,quantity,timestamp,action\n"
    f"si_0,5,{START},\nunknown,1,{START},\nsi_0,10,{START},set\nsi_0,2,2024-02-01T00:00:00Z,\n"
)


@pytest.fixture
def usage(tmp_path):
    """Return the path of a file with usage in two periods, an overwritten cell and a refused
    row.
    """
    path = tmp_path / "usage.csv"
    path.write_text(TEXT)
    return path


def loaded(engine, path):
    """Return what an engine loads and what it refused."""
    pytest.importorskip({"memory": "json", "columnar": "numpy", "duckdb": "duckdb"}[engine])
    refused = Refusals(OnError.SKIP, rejects=io.StringIO(), as_csv=False)
    source = engines.UsageSource(str(path), None, HowToRead(PlausibleTime(), refused))
    found = engines.load_usage([subscribed()], source, engine)
    return found, [json.loads(line) for line in refused._rejects.getvalue().splitlines()]


@pytest.mark.parametrize("engine", [Engine.MEMORY, Engine.COLUMNAR, Engine.DUCKDB])
def test_each_engine_makes_the_same_bill(engine, usage):
    """Ten units in January (5, then set to 10) and two in February, at one cent each; the unknown
    item is refused.
    """
    found, refused = loaded(engine, usage)
    (periods,) = found.periods.values()
    bills = [
        finalize_invoice(subscribed(), found.usage, period, now=period.end).total
        for period in periods
    ]
    assert bills == [10, 2]
    assert [(one["code"], one["path"], one["line"]) for one in refused] == [
        ("subscription_item_unknown", str(usage), 3)
    ]


@pytest.mark.parametrize(
    ("path", "size", "options", "expected"),
    [
        ("-", 0, {}, "memory"),
        ("small.csv", 10, {}, "memory"),
        ("absent.csv", None, {}, "memory"),
        ("a.parquet", 10, {}, "duckdb"),
        ("*.csv", None, {}, "duckdb"),
        ("large.csv", 100, {}, "duckdb"),
        ("large.csv", 100, {"explains": True}, "memory"),
        ("large.txt", 100, {"usage_format": "csv"}, "duckdb"),
        ("a.parquet", 10, {"usage_format": "csv"}, "memory"),
        ("a?.csv", None, {}, "duckdb"),
        ("a[0-9].csv", None, {"usage_format": "csv"}, "duckdb"),
        ("a[0-9].csv", 10, {}, "memory"),
    ],
)
def test_auto_picks_by_format_and_size(path, size, options, expected, tmp_path, monkeypatch):
    """Small text goes to memory, large text to DuckDB unless records must be kept, and Parquet
    always to DuckDB.
    """
    monkeypatch.setattr(engines, "LARGE_BYTES", 100)
    monkeypatch.setattr(engines, "_is_installed", lambda module: True)
    if size is not None and path != "-":
        (tmp_path / path).write_bytes(b" " * size)
    choice = engines.choose_engine(
        Engine.AUTO, path if path == "-" else str(tmp_path / path), **options
    )
    assert (choice.engine, str(choice).split(":")[0]) == (expected, f"engine {expected}")


def test_auto_does_without_extras(tmp_path, monkeypatch):
    """Without the extra, large text is read into memory, and the reason names it."""
    monkeypatch.setattr(engines, "LARGE_BYTES", 1)
    monkeypatch.setattr(engines, "_is_installed", lambda module: False)
    (tmp_path / "u.csv").write_text(TEXT)
    assert "the extra 'duckdb'" in str(engines.choose_engine(Engine.AUTO, str(tmp_path / "u.csv")))
    source = engines.UsageSource("u.csv", None, HowToRead(PlausibleTime(), Refusals(OnError.STOP)))
    with pytest.raises(MissingExtraError, match="columnar"):
        engines.load_rows([], source, Engine.COLUMNAR)


@pytest.mark.parametrize(
    ("engine", "usage", "options", "what"),
    [
        ("memory", "u.parquet", {}, "reads Parquet"),
        ("columnar", "*.csv", {}, "several files"),
        ("duckdb", "-", {}, "reads standard input"),
        ("duckdb", "u.csv", {"explains": True}, "keeps records"),
        ("memory", "u?.csv", {}, "several files"),
        ("columnar", "u[0-9].csv", {"usage_format": "csv"}, "several files"),
        (
            "auto",
            "u.parquet",
            {"explains": True},
            r"keeps records.*received 'duckdb', because Parquet",
        ),
        (
            "auto",
            "u*.csv",
            {"explains": True},
            r"keeps records.*received 'duckdb', because Parquet and several files",
        ),
    ],
)
def test_an_engine_that_cannot_is_refused(engine, usage, options, what):
    """An engine that was asked for and cannot do what is asked is refused with the engines that
    can.
    """
    with pytest.raises(InvalidValueError, match=what) as refused:
        engines.choose_engine(Engine(engine), usage, **options)
    assert refused.value.param == "--engine"


@pytest.mark.parametrize("engine", ["memory", "columnar", "duckdb"])
def test_an_engine_that_can_is_taken(engine):
    """What was asked for is taken."""
    assert engines.choose_engine(Engine(engine), "u.csv").engine == engine


# One behaviour ------------------------------------------------------------------------------------

CATALOG = {
    "prices": [
        {
            "id": "p",
            "currency": "usd",
            "unit_amount": 1,
            "recurring": {"interval": "month", "usage_type": "metered"},
        },
    ],
    "subscriptions": [
        {
            "id": "s",
            "billing_cycle_anchor": "2024-01-01T00:00:00Z",
            "items": [{"id": "si_0", "price": "p"}],
        },
    ],
}
HEADER = "subscription_item,quantity,timestamp"
OBJECT = f'"subscription_item":"si_0","quantity":5,"timestamp":{START}'
GOOD = f"{HEADER},id\nsi_0,5,{START},a\n"

TEXTS = {
    "good.csv": GOOD,
    "blank-first.csv": f"\n{GOOD}",
    "blank-within.csv": f"{GOOD}\nsi_0,2,{START},b\n",
    "mixed-line-ends.csv": f"{HEADER}\r\nsi_0,5,{START}\nsi_0,2,{START}\n",
    "mark.csv": f"\ufeff{GOOD}",
    "nothing.csv": "",
    "only-a-header.csv": f"{HEADER}\n",
    "column-twice.csv": f"{HEADER},quantity\nsi_0,5,{START},9\n",
    "column-unknown.csv": f"{HEADER},note\nsi_0,5,{START},x\n",
    "column-seq.csv": f"{HEADER},seq\nsi_0,5,{START},1\n",
    "column-in-capitals.csv": f"{HEADER},ID\nsi_0,5,{START},a\nsi_0,5,{START},a\n",
    "column-empty.csv": f"{HEADER},\nsi_0,5,{START},\n",
    "column-after-a-blank.csv": f"subscription_item, quantity,timestamp\nsi_0,5,{START}\n",
    "quantity-text.csv": f"{GOOD}si_0,x,{START},b\n",
    "quantity-long.csv": f"{HEADER}\nsi_0,{10**38},{START}\n",
    "fields-too-many.csv": f"{GOOD}si_0,5,{START},b,c\n",
    "quote-open.csv": f'{GOOD}si_0,5,{START},"b\n',
    "quote-after-a-blank.csv": f'{GOOD}si_0,5,{START}, "a"\n',
    "quote-before-a-blank.csv": f'{GOOD}si_0,5,{START},"a" \n',
    "item-unknown.csv": f"{GOOD}nobody,1,{START},b\n",
    "id-reused.csv": f"{GOOD}si_0,6,{START},a\n",
    "hour-24.csv": f"{HEADER}\nsi_0,5,2024-01-01T24:00:00Z\n",
    "offset-24.csv": f"{HEADER}\nsi_0,5,2024-01-02T00:00:00+24:00\n",
    "nine-digits.csv": f"{HEADER}\nsi_0,5,2024-01-01T00:00:00.123456789Z\n",
    "small-letters.csv": f"{HEADER}\nsi_0,5,2024-01-01t00:00:00z\n",
    "basic.csv": f"{HEADER}\nsi_0,5,20240101T000000Z\n",
    "received-later.csv": f"{HEADER},received_at\nsi_0,5,{START},soon\n",
    "good.jsonl": f"{{{OBJECT}}}\n",
    "mark.jsonl": f"\ufeff{{{OBJECT}}}\n",
    "nothing.jsonl": "",
    "broken-off.jsonl": "{",
    "key-twice.jsonl": f'{{{OBJECT},"quantity":9}}\n',
    "key-unknown.jsonl": f'{{{OBJECT},"note":1}}\n',
    "key-in-capitals.jsonl": f'{{{OBJECT},"QUANTITY":9}}\n',
    "comma-at-the-end.jsonl": f"{{{OBJECT},}}\n",
    "no-number.jsonl": f'{{{OBJECT},"note":NaN}}\n',
    "float.jsonl": f'{{"subscription_item":"si_0","quantity":5.0,"timestamp":{START}}}\n',
    "long.jsonl": f'{{"subscription_item":"si_0","quantity":{2**64},"timestamp":{START}}}\n',
    "array.jsonl": f"[{{{OBJECT}}}]\n",
    "old-line-end.jsonl": f"{{{OBJECT}}}\r{{{OBJECT}}}",
}
"""Files that are bills for one reader and none for another, unless somebody sees to it."""


@pytest.fixture
def invoice(tmp_path, capsys, monkeypatch):
    """Bill a file of the table; give the exit status, the invoice, and the complaints that are not
    about the choice.
    """
    (tmp_path / "catalog.json").write_text(json.dumps(CATALOG))

    def run(name, *options, large=engines.LARGE_BYTES):
        monkeypatch.setattr(engines, "LARGE_BYTES", large)
        if name in TEXTS:
            (tmp_path / name).write_text(TEXTS[name], newline="")
        status = cli.main(
            [
                "invoice",
                str(tmp_path / "catalog.json"),
                str(tmp_path / name),
                "--format",
                "json",
                *options,
            ]
        )
        out, err = capsys.readouterr()
        return (
            status,
            out,
            [line for line in err.splitlines() if not line.startswith("metering-core: engine ")],
        )

    return run


def quantity_of(out):
    """Return the quantity of the one line of the one invoice."""
    ((line,),) = (one["lines"] for one in json.loads(out)["invoices"])
    return line["quantity"]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("options", [(), ("--on-error", "skip")], ids=["stop", "skip"])
def test_a_long_file_is_judged_as_a_short_one(name, options, invoice):
    """The same bill, the same exit status and the same complaint, to the word, whichever engine the
    length calls for.
    """
    pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
    assert invoice(name, *options, large=0) == invoice(name, *options)


@pytest.mark.parametrize("name", TEXTS)
def test_duckdb_refuses_or_makes_the_same_bill(name, invoice, tmp_path):
    """Asked for by name, DuckDB may read less than memory does, but bills nothing that memory
    refuses, and names the file.
    """
    pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
    status, out, complaints = invoice(name, "--engine", "duckdb")
    assert (status, out) == invoice(name)[:2] or status != 0
    said = (f"metering-core: {tmp_path / name}", "metering-core: there is no usage to bill")
    assert status == 0 or all(line.startswith(said) for line in complaints)


@pytest.mark.parametrize("engine", ["memory", "columnar", "duckdb"])
@pytest.mark.parametrize("name", ["quantity-text.csv", "item-unknown.csv", "float.jsonl"])
def test_a_bad_row_stops_every_engine_with_the_same_status(engine, name, invoice):
    """Exit status 1 is for rows, whoever reads them."""
    pytest.importorskip({"memory": "json", "columnar": "numpy", "duckdb": "duckdb"}[engine])
    assert invoice(name, "--engine", engine)[0] == 1


@pytest.mark.parametrize("engine", ["auto", "memory", "columnar", "duckdb"])
@pytest.mark.parametrize(
    ("name", "written"), [("u.txt", "good.csv"), ("u.csv", "good.jsonl"), ("u.parquet", "good.csv")]
)
def test_the_format_that_was_said_is_read(engine, name, written, invoice, tmp_path):
    """The option `--usage-format` counts, and not the extension, for every engine and every
    length.
    """
    pytest.importorskip(
        {"memory": "json", "auto": "json", "columnar": "numpy", "duckdb": "duckdb"}[engine]
    )
    (tmp_path / name).write_text(TEXTS[written])
    said, other = ("jsonl", "csv") if written.endswith("jsonl") else ("csv", "jsonl")
    for large in (0, 2**20):
        status, out, _ = invoice(name, "--engine", engine, "--usage-format", said, large=large)
        assert (status, quantity_of(out)) == (0, 5)
        status, out, _ = invoice(name, "--engine", engine, "--usage-format", other, large=large)
        assert (status > 0, out) == (True, "")


@pytest.mark.parametrize("glob", ["u*.csv", "u?.csv", "u[0-9].csv"])
def test_globs_of_every_sort_are_read(glob, invoice, tmp_path):
    """A star, a question mark and brackets: five units of one file and two of another."""
    pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
    for number, quantity in enumerate((5, 2)):
        (tmp_path / f"u{number}.csv").write_text(f"{HEADER}\nsi_0,{quantity},{START}\n")
    status, out, _ = invoice(glob)
    assert (status, quantity_of(out)) == (0, 7)


@pytest.mark.parametrize("options", [("--explain",)])
@pytest.mark.parametrize("engine", [(), ("--engine", "auto"), ("--engine", "duckdb")])
def test_what_duckdb_cannot_do_is_refused_however_it_was_chosen(options, engine, invoice):
    """Parquet is read by DuckDB, which explains no lines: an option that would do nothing is
    refused.
    """
    status, out, (complaint,) = invoice("u.parquet", *options, *engine)
    assert (status, out) == (2, "")
    assert "received 'duckdb'" in complaint


@pytest.mark.parametrize("events", [False, True])
def test_the_kernel_is_printed(events, capsys):
    """The command `sql` prints the text that the engines run, with `--events` that for meter
    events.
    """
    app = App()
    app.command(engines.print_kernel, name="sql")
    app(["sql", *(["--events"] if events else [])], result_action="return_value")
    assert capsys.readouterr().out == sql_kernel(events=events)


def test_printing_the_kernel_needs_no_extra_engine():
    """The text can be read where neither DuckDB, pyspark nor NumPy is installed."""
    blocked = (
        "import sys; sys.modules.update(dict.fromkeys(['duckdb', 'pyspark', 'numpy', 'pyarrow']));"
    )
    code = f"{blocked} from metering_core.cli.engines import print_kernel; print_kernel()"
    root = ROOT_FOLDER
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout == sql_kernel()
