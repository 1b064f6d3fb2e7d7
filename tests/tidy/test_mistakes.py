"""One table: mistakes in files of usage, and every engine of the command line, in every format,
saying the same of them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import attrs
import pytest

pytest.importorskip("cyclopts", reason="needs the extra 'cli'")

from metering_core import Meter, MeteringError
from metering_core.cli import app as cli
from metering_core.cli import engines as cli_engines
from metering_core.cli.engines import Engine
from metering_core.feeds.files import read_events, read_usage

JUNE = 1_780_272_000  # 2026-06-01T00:00:00Z
ITEMS = {"interval": "month", "usage_type": "metered"}
CATALOG = {
    "meters": [{"id": "m", "event_name": "calls", "default_aggregation": {"formula": "sum"}}],
    "prices": [
        {"id": "p", "currency": "usd", "unit_amount": 1, "recurring": ITEMS},
        {"id": "q", "currency": "usd", "unit_amount": 1, "recurring": {**ITEMS, "meter": "m"}},
    ],
    "subscriptions": [
        {
            "id": "s",
            "billing_cycle_anchor": JUNE,
            "start_date": JUNE,
            "items": [{"id": "si", "price": "p"}],
        },
        {
            "id": "t",
            "customer": "cus_1",
            "billing_cycle_anchor": JUNE,
            "start_date": JUNE,
            "items": [{"id": "ti", "price": "q"}],
        },
        {
            "id": "old",
            "billing_cycle_anchor": JUNE - 31 * 86_400,
            "start_date": JUNE - 31 * 86_400,
            "ended_at": JUNE,
            "items": [{"id": "ended", "price": "p"}],
        },
    ],
}
GOOD = {"subscription_item": "si", "quantity": 5, "timestamp": JUNE + 60}
EVENT = {
    "event_name": "calls",
    "timestamp": JUNE + 60,
    "payload": {"stripe_customer_id": "cus_1", "value": "5"},
}
ENGINES = [engine.value for engine in Engine]
NEEDS = {"auto": "json", "memory": "json", "columnar": "numpy", "duckdb": "duckdb"}


@attrs.frozen
class Mistake:
    """What is wrong with the second of two rows, and what is said of it after the place.

    Attributes:
        changes: fields that the row has beside, or instead of, those of a good one.
        code: the stable code of the rejected row.
        words: what the sentence says, worked out by hand.
        formats: those in which the mistake can be made.
        before: fields of the row before it.
    """

    changes: dict
    code: str
    words: str
    formats: tuple = ("csv", "jsonl")
    before: dict = attrs.field(factory=dict)


INSTANT, INTEGER = "parameter_invalid_instant", "parameter_invalid_integer"
RECORDS = {
    "unknown item": Mistake(
        {"subscription_item": "nobody"}, "subscription_item_unknown", "received 'nobody'"
    ),
    "blank after the id": Mistake(
        {"subscription_item": "si "}, "subscription_item_unknown", "(did you mean 'si'?)"
    ),
    "blank before the id": Mistake(
        {"subscription_item": "\u00a0si"}, "subscription_item_unknown", "(did you mean 'si'?)"
    ),
    "no item": Mistake(
        {"subscription_item": None},
        "parameter_missing",
        "Missing required param: subscription_item",
    ),
    "item of 256 characters": Mistake(
        {"subscription_item": "x" * 256}, "parameter_invalid_string", "1 to 255 characters"
    ),
    "item that is a number": Mistake(
        {"subscription_item": 7}, "parameter_invalid_string", "received 7 (int)", ("jsonl",)
    ),
    "an item on a meter": Mistake(
        {"subscription_item": "ti"}, "price_not_metered", "Call /v1/billing/meter_events instead"
    ),
    # Excel counts days from 1899-12-30: 46178 is 2026-06-05.
    "day number": Mistake(
        {"timestamp": 46_178}, INSTANT, "a spreadsheet's day number for 2026-06-05"
    ),
    "day number with a time": Mistake(
        {"timestamp": 46_178.5}, INSTANT, "a spreadsheet's day number for 2026-06-05"
    ),
    "milliseconds": Mistake(
        {"timestamp": (JUNE + 60) * 10**3}, INSTANT, "looks like milliseconds, divide by 1000"
    ),
    "microseconds": Mistake(
        {"timestamp": (JUNE + 60) * 10**6}, INSTANT, "looks like microseconds, divide by 1000000"
    ),
    "nanoseconds": Mistake(
        {"timestamp": (JUNE + 60) * 10**9}, INSTANT, "looks like nanoseconds, divide by 1000000000"
    ),
    "the epoch": Mistake({"timestamp": 0}, INSTANT, "expected a moment in the years 2000 to "),
    "before the epoch": Mistake(
        {"timestamp": -1}, INSTANT, "expected a moment in the years 2000 to "
    ),
    "a century ago": Mistake(
        {"timestamp": "1926-06-05T12:00:00Z"}, INSTANT, "received '1926-06-05T12:00:00Z'"
    ),
    "a century ahead": Mistake(
        {"timestamp": "2126-06-05T12:00:00Z"}, INSTANT, "received '2126-06-05T12:00:00Z'"
    ),
    "never": Mistake(
        {"timestamp": "9999-12-30T00:00:00Z"}, INSTANT, "received '9999-12-30T00:00:00Z'"
    ),
    "naive": Mistake(
        {"timestamp": "2026-06-05T12:00:00"},
        INSTANT,
        "no offset, write 2026-06-05T12:00:00Z if it is in UTC",
    ),
    "a date": Mistake({"timestamp": "2026-06-05"}, INSTANT, "received '2026-06-05'"),
    "slashes": Mistake(
        {"timestamp": "06/05/2026 12:00"}, INSTANT, "year, month and day with dashes"
    ),
    "now": Mistake({"timestamp": "now"}, INSTANT, "received 'now'"),
    "no timestamp": Mistake(
        {"timestamp": None}, "parameter_missing", "Missing required param: timestamp"
    ),
    "seconds as a string": Mistake(
        {"timestamp": f"{JUNE + 60}"},
        INSTANT,
        "write Unix seconds as a number, without quotes",
        ("jsonl",),
    ),
    "a fraction of a unit": Mistake({"quantity": "0.5"}, INTEGER, "received '0.5' (str)"),
    "a float": Mistake({"quantity": 5.0}, INTEGER, "received 5.0 (float)", ("jsonl",)),
    "a quantity in quotes": Mistake({"quantity": "5"}, INTEGER, "received '5' (str)", ("jsonl",)),
    "a word": Mistake({"quantity": "many"}, INTEGER, "received 'many' (str)"),
    "thousands": Mistake({"quantity": "1,000"}, INTEGER, "received '1,000' (str)"),
    "true": Mistake({"quantity": True}, INTEGER, "received True (bool)", ("jsonl",)),
    "negative": Mistake(
        {"quantity": -5}, INTEGER, "expected an integer of at least 0, received -5"
    ),
    "no quantity": Mistake(
        {"quantity": None}, "parameter_missing", "Missing required param: quantity"
    ),
    "an action that is none": Mistake(
        {"action": "add"}, "parameter_invalid_choice", "'increment', 'set'"
    ),
    "id of 256 characters": Mistake(
        {"id": "x" * 256}, "parameter_invalid_string", "1 to 255 characters"
    ),
    "an id with other content": Mistake(
        {"id": "a", "quantity": 6}, "id_reused", "quantity 5", before={"id": "a"}
    ),
    "late": Mistake(
        {"received_at": JUNE + 31 * 86_400},
        "timestamp_before_current_period",
        "current period start time",
    ),
    "in the future": Mistake(
        {"received_at": JUNE}, "timestamp_in_future", "must not be in the future"
    ),
    "after the end": Mistake(
        {"subscription_item": "ended"}, "subscription_canceled", "has been canceled"
    ),
    "received before the row before": Mistake(
        {"received_at": JUNE + 61},
        INSTANT,
        "the order of rows is the order of arrival",
        before={"received_at": JUNE + 62},
    ),
    "received at a day number": Mistake({"received_at": 46_178}, INSTANT, "received_at: expected"),
    "a key that nothing reads": Mistake(
        {"quantty": 5}, "parameter_unknown", "did you mean 'quantity'?", ("jsonl",)
    ),
}
"""What one row may do wrong, whatever the engine."""


@attrs.frozen
class Broken:
    """A file that is wrong as a text: its name, its bytes, the status, the line at fault, and words
    that are said.
    """

    name: str
    content: bytes
    status: int
    place: str
    words: str


HEADER = b"subscription_item,quantity,timestamp\n"
ROW = f"si,5,{JUNE + 60}\n".encode()
LINE = json.dumps(GOOD).encode() + b"\n"
TEXTS = {
    "short row": Broken(
        "u.csv",
        HEADER + ROW + b"si,5\n",
        1,
        ", line 3",
        "expected 3 fields as in the header, received 2",
    ),
    "short first row": Broken(
        "u.csv", HEADER + b"si,5\n" + ROW, 1, ", line 2", "expected 3 fields as in the header"
    ),
    "long row": Broken(
        "u.csv",
        HEADER + ROW + b"si,5,1,2\n",
        1,
        ", line 3",
        "expected 3 fields as in the header, received 4",
    ),
    "misspelt column": Broken(
        "u.csv", HEADER.replace(b"quantity", b"quantty"), 2, ", line 1", "did you mean 'quantity'?"
    ),
    "column in two lines": Broken(
        "u.csv", b'"quan\ntity",' + HEADER + ROW, 2, ", line 1", r"received 'quan\ntity'"
    ),
    "column twice": Broken(
        "u.csv", b"quantity," + HEADER + ROW, 2, ", line 1", "'quantity' 2 times"
    ),
    "column missing": Broken(
        "u.csv", b"subscription_item,quantity\nsi,5\n", 2, ", line 1", "'timestamp' is missing"
    ),
    "semicolons": Broken(
        "u.csv", HEADER.replace(b",", b";") + ROW, 2, ", line 1", "separated by commas"
    ),
    "latin-1": Broken(
        "u.csv", HEADER + ROW + b"si_\xe4,5,1\n", 1, ", line 3", "is not UTF-8 at column 4"
    ),
    "latin-1 in JSON": Broken(
        "u.jsonl", LINE + b'{"id": "\xe4"}\n', 1, ", line 2", "is not UTF-8 at column 9"
    ),
    "UTF-16": Broken(
        "u.csv", (HEADER + ROW).decode().encode("utf-16"), 2, ", line 1", "expected the columns"
    ),
    "NUL": Broken("u.csv", HEADER + ROW + b"s\0i,5,%d\n" % (JUNE + 60), 1, ", line 3", r"'s\x00i'"),
    "open quote": Broken(
        "u.csv", HEADER + ROW + b'"si,5,1\n', 1, ", line 3", "is not CSV: unexpected end of data"
    ),
    "empty": Broken(
        "u.csv",
        b"",
        2,
        ", line 1",
        "expected a header with the columns subscription_item, quantity, timestamp",
    ),
    "no JSON": Broken("u.jsonl", LINE + b"{5}\n", 1, ", line 2", "is not JSON"),
    "JSON of another kind": Broken(
        "u.jsonl", LINE + b"[5]\n", 1, ", line 2", "row: expected an object, received [5]"
    ),
    "a key twice": Broken(
        "u.jsonl",
        LINE + LINE.replace(b"{", b'{"id": "a", "id": "b", '),
        1,
        ", line 2",
        "occurs twice",
    ),
    "deep JSON": Broken(
        "u.jsonl", LINE + b'{"id": ' + b"[" * 100_000 + b"\n", 1, ", line 2", "is not usable JSON"
    ),
    "escapes": Broken(
        "u.jsonl",
        LINE + b'{"x\\ny\\u001b[8m": 1}\n',
        1,
        ", line 2",
        r"unknown parameter: x\ny\x1b[8m",
    ),
    "compressed": Broken("u.csv.gz", b"\x1f\x8b", 2, "", "unpack it, or write Parquet"),
    "another extension": Broken(
        "u.xlsx", b"PK", 2, "", "expected the extension .csv, .jsonl or .ndjson, received '.xlsx'"
    ),
}
"""What a file may do wrong as a text."""


def written(rows, layout):
    """Return rows as CSV or JSON lines."""
    if layout == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(
        [["" if row.get(column) is None else row[column] for column in columns] for row in rows]
    )
    return text.getvalue()


@pytest.fixture
def invoice(tmp_path, capsys):
    """Bill a file; give the exit status, standard output and the complaints that are not about the
    engine.
    """
    (tmp_path / "catalog.json").write_text(json.dumps(CATALOG))

    def run(*arguments):
        status = cli.main(["invoice", str(tmp_path / "catalog.json"), *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "datetime" not in err, "a sentence about a file speaks of instants as files do"
        return (
            status,
            out,
            [line for line in err.splitlines() if not line.startswith("metering-core: engine ")],
        )

    return run


def rejected(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


CELLS = [
    pytest.param(
        name,
        layout,
        marks=[pytest.mark.slow] if layout == "jsonl" and "csv" in mistake.formats else [],
    )
    for name, mistake in RECORDS.items()
    for layout in mistake.formats
]
"""Every mistake in every format; what CSV shows as well, JSON lines show one by one in the slow
tests, and together below.
"""


@pytest.mark.parametrize(("name", "layout"), CELLS)
def test_every_engine_says_the_same_of_a_row(name, layout, invoice, tmp_path):
    """The run ends at the row, with status 1 and one sentence that names path and line: the same
    from all engines.
    """
    mistake, file = RECORDS[name], tmp_path / f"u.{layout}"
    file.write_text(written([{**GOOD, **mistake.before}, {**GOOD, **mistake.changes}], layout))
    line = 3 if layout == "csv" else 2
    said = set()
    for engine in ENGINES:
        pytest.importorskip(NEEDS[engine])
        status, out, complaints = invoice(file, "--engine", engine)
        assert (status, out, len(complaints)) == (1, "", 1)
        said |= set(complaints)
    (sentence,) = said
    assert sentence.startswith(f"metering-core: {file}, line {line}: ")
    assert mistake.words in sentence


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
@pytest.mark.parametrize("engine", ENGINES)
def test_all_mistakes_are_skipped_written_down_and_the_rest_is_billed(
    engine, layout, invoice, tmp_path
):
    """With --on-error skip and --rejects each refused row is in the file, with its code and as it
    stood; status 1.
    """
    pytest.importorskip(NEEDS[engine])
    mistakes = [
        one
        for one in RECORDS.values()
        if layout in one.formats and not one.before and "received_at" not in one.changes
    ]
    file, rejects = tmp_path / f"u.{layout}", tmp_path / "rejects.jsonl"
    rows = [GOOD, *({**GOOD, **one.changes} for one in mistakes), GOOD]
    file.write_text(written(rows, layout))
    lines = file.read_text().splitlines()
    status, out, complaints = invoice(
        file, "--engine", engine, "--on-error", "skip", "--rejects", rejects
    )
    assert (status, complaints[-1]) == (
        1,
        f"metering-core: {file}: {len(mistakes)} rows skipped, 2 accepted",
    )
    assert "USD 0.10" in out  # twice 5 units at one cent
    assert len(complaints) == 11  # ten are named, and all are counted
    first = 3 if layout == "csv" else 2
    found = rejected(rejects)
    assert [(one["path"], one["line"], one["code"]) for one in found] == [
        (str(file), number, one.code) for number, one in enumerate(mistakes, start=first)
    ]
    assert [one["row"] for one in found] == lines[first - 1 : -1]
    assert all(one.words in reject["message"] for one, reject in zip(mistakes, found, strict=True))


@pytest.mark.parametrize("name", TEXTS)
def test_every_engine_says_the_same_of_a_text(name, invoice, tmp_path):
    """The same status and the same sentence with path and line from all engines, on one line and
    without escapes.
    """
    broken = TEXTS[name]
    file = tmp_path / broken.name
    file.write_bytes(broken.content)
    said = set()
    for engine in ENGINES:
        pytest.importorskip(NEEDS[engine])
        status, out, (sentence,) = invoice(file, "--engine", engine)
        assert (status, out) == (broken.status, "")
        said.add(sentence)
    (sentence,) = said
    assert sentence.startswith(f"metering-core: {file}{broken.place}: ")
    assert broken.words in sentence
    assert sentence.isprintable()


VALID = {
    "2^63": ([2**63, 1], "columnar"),
    "2^64 - 1": ([2**64 - 1, 1], "columnar"),
    "39 digits": ([10**38, 1], "columnar"),
    "200 digits": ([10**200 - 1], "columnar"),
    "a sum of 39 digits": ([10**38 - 1, 1], "columnar"),
    "a sum of 64 bits": ([2**63 - 1, 1], None),
}
"""Quantities that are no mistake, and the engine that holds less, if any. Each is counted with the
rest, or nothing is.
"""


@pytest.mark.parametrize("layout", ["csv", pytest.param("jsonl", marks=pytest.mark.slow)])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("name", VALID)
def test_every_engine_bills_a_valid_row_or_ends_the_run_by_its_name(
    name, on_error, layout, invoice, tmp_path
):
    """One bill from all engines; one that was asked for and holds less ends with status 2, also
    where rows are skipped.
    """
    quantities, holds_less = VALID[name]
    file, bad = tmp_path / f"u.{layout}", {**GOOD, "subscription_item": "nobody"}
    rows = [{**GOOD, "quantity": one} for one in quantities]
    file.write_text(written([*rows, *([bad] if on_error == "skip" else [])], layout))
    for engine in ENGINES:
        pytest.importorskip(NEEDS[engine])
        status, out, complaints = invoice(
            file, "--engine", engine, "--on-error", on_error, "--format", "json"
        )
        if engine == holds_less:
            place = f"{file}, line {2 if layout == 'csv' else 1}"
            assert (status, out, len(complaints)) == (2, "", 1)
            assert complaints[0].startswith(
                f"metering-core: {place}: quantity: expected at most 2^63 - 1"
            )
            assert "--engine memory takes more" in complaints[0]
        else:
            assert status == (1 if on_error == "skip" else 0)
            assert json.loads(out)["invoices"][0]["lines"][0]["quantity"] == sum(quantities)


@pytest.mark.parametrize(
    "options",
    [("--on-error", "skip"), pytest.param(("--engine", "duckdb"), marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", VALID)
def test_a_long_file_and_several_files_are_billed_as_a_short_one(
    name, options, invoice, tmp_path, monkeypatch
):
    """What DuckDB does not hold is read by memory, whether the engine was asked for or picked, for
    its length or a glob.
    """
    pytest.importorskip("duckdb")
    quantities, _ = VALID[name]
    for number, quantity in enumerate(quantities):
        (tmp_path / f"u{number}.csv").write_text(written([{**GOOD, "quantity": quantity}], "csv"))
    (tmp_path / "long.csv").write_text(
        written([{**GOOD, "quantity": one} for one in quantities], "csv")
    )
    monkeypatch.setattr(cli_engines, "LARGE_BYTES", 0)
    for file in ("u?.csv", "long.csv"):
        status, out, complaints = invoice(tmp_path / file, "--format", "json", *options)
        assert (status, complaints) == (0, [])
        assert json.loads(out)["invoices"][0]["lines"][0]["quantity"] == sum(quantities)


EVENTS = {
    "unknown customer": Mistake(
        {"payload": {"stripe_customer_id": "cus_typo", "value": "5"}},
        "usage_unbilled",
        "received the customer 'cus_typo'",
    ),
    "blank after the customer": Mistake(
        {"payload": {"stripe_customer_id": "cus_1 ", "value": "5"}},
        "usage_unbilled",
        "(did you mean 'cus_1'?)",
    ),
    "before the subscription": Mistake(
        {"timestamp": JUNE - 1}, "usage_unbilled", "expected a moment in the life"
    ),
    "unknown event name": Mistake(
        {"event_name": "calls "}, "meter_unknown", "(did you mean 'calls'?)"
    ),
    "day number": Mistake(
        {"timestamp": 46_178}, INSTANT, "a spreadsheet's day number for 2026-06-05"
    ),
    "milliseconds": Mistake(
        {"timestamp": (JUNE + 60) * 1000}, INSTANT, "looks like milliseconds, divide by 1000"
    ),
    "naive": Mistake(
        {"timestamp": "2026-06-05T12:00:00"}, INSTANT, "no offset, write 2026-06-05T12:00:00Z"
    ),
    "the epoch": Mistake({"timestamp": 0}, INSTANT, "expected a moment in the years 2000 to "),
    "a word": Mistake(
        {"payload": {"stripe_customer_id": "cus_1", "value": "many"}}, "value_invalid", "'many'"
    ),
    "no customer": Mistake({"payload": {"value": "5"}}, "customer_missing", "stripe_customer_id"),
    "other content": Mistake(
        {"identifier": "a", "payload": {"stripe_customer_id": "cus_1", "value": "6"}},
        "identifier_reused",
        "An event already exists",
        before={"identifier": "a"},
    ),
    "received before the row before": Mistake(
        {"received_at": JUNE + 61},
        INSTANT,
        "the order of rows is the order of arrival",
        before={"received_at": JUNE + 62},
    ),
    "late": Mistake({"received_at": JUNE + 40 * 86_400}, "timestamp_too_far_in_past", "35"),
    "in the future": Mistake({"received_at": JUNE - 600}, "timestamp_in_future", "future"),
}
"""What one meter event may do wrong. Events are read by one engine, the meter log."""


def flat(event):
    payload = {f"payload[{key}]": value for key, value in event["payload"].items()}
    return {**{key: value for key, value in event.items() if key != "payload"}, **payload}


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
@pytest.mark.parametrize("name", EVENTS)
def test_an_event_that_is_on_no_bill_is_told(name, layout, invoice, tmp_path):
    """A refused event ends the run, one that nobody bills does not; both have status 1, path and
    line, and are written down.
    """
    mistake, file, rejects = EVENTS[name], tmp_path / f"e.{layout}", tmp_path / "rejects.jsonl"
    events = [{**EVENT, **mistake.before}, {**EVENT, **mistake.changes}]
    file.write_text(
        written(events if layout == "jsonl" else map(flat, events), layout)
        if layout == "jsonl"
        else written([*map(flat, events)], layout)
    )
    status, out, complaints = invoice("--events", file, "--rejects", rejects)
    place = f"{file}, line {3 if layout == 'csv' else 2}"
    assert status == 1
    assert complaints[0].startswith(f"metering-core: {place}: ")
    assert mistake.words in complaints[0]
    is_unbilled = mistake.code == "usage_unbilled"
    assert ("USD 0.05" in out) == is_unbilled
    assert complaints[1:] == ([f"metering-core: {file}: 1 row on no bill"] if is_unbilled else [])
    assert [one["code"] for one in rejected(rejects)] == [mistake.code]


@pytest.mark.parametrize("engine", ENGINES)
def test_usage_of_which_nothing_is_billed_is_no_absence_of_usage(engine, invoice, tmp_path):
    """All rows refused: the status is 1 and the sentence says that there was usage; also of
    events.
    """
    pytest.importorskip(NEEDS[engine])
    (tmp_path / "u.csv").write_text(written([{**GOOD, "subscription_item": "x"}], "csv"))
    status, out, complaints = invoice(tmp_path / "u.csv", "--engine", engine, "--on-error", "skip")
    assert (status, out, complaints[-1]) == (
        1,
        "",
        "metering-core: nothing is billed: no row of the usage is on a bill",
    )


def test_events_of_which_nothing_is_billed_are_no_absence_of_usage(invoice, tmp_path):
    """The file of the report: one event of a customer that no subscription has."""
    lost = {**EVENT, "payload": {"stripe_customer_id": "cus_typo", "value": "5"}}
    (tmp_path / "e.csv").write_text(written([flat(lost)], "csv"))
    status, out, complaints = invoice("--events", tmp_path / "e.csv")
    assert (status, out) == (1, "")
    assert complaints[-1] == "metering-core: nothing is billed: no row of the usage is on a bill"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_late_row_is_taken_within_the_grace(engine, invoice, tmp_path):
    """The file of the report: a row of 30 June that arrives three seconds into July is billed with
    --late-grace.
    """
    pytest.importorskip(NEEDS[engine])
    late = {"timestamp": "2026-06-30T23:59:58Z", "received_at": "2026-07-01T00:00:03Z"}
    (tmp_path / "u.csv").write_text(written([{**GOOD, **late}], "csv"))
    assert invoice(tmp_path / "u.csv", "--engine", engine)[0] == 1
    status, out, complaints = invoice(tmp_path / "u.csv", "--engine", engine, "--late-grace", "2h")
    assert (status, complaints) == (0, [])
    assert "USD 0.05" in out


@pytest.mark.parametrize("engine", ENGINES)
def test_clocks_may_drift_within_the_tolerance(engine, invoice, tmp_path):
    """A row that arrives five minutes before it happened is billed with --future-tolerance 300s,
    and not with 299s.
    """
    pytest.importorskip(NEEDS[engine])
    early = {"timestamp": JUNE + 360, "received_at": JUNE + 60}
    (tmp_path / "u.csv").write_text(written([{**GOOD, **early}], "csv"))
    assert invoice(tmp_path / "u.csv", "--engine", engine, "--future-tolerance", "299s")[0] == 1
    assert invoice(tmp_path / "u.csv", "--engine", engine, "--future-tolerance", "300s")[0] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_old_usage_is_taken_where_that_is_said(engine, invoice, tmp_path):
    """With --any-time, usage of 1999 is usage of 1999."""
    pytest.importorskip(NEEDS[engine])
    (tmp_path / "u.csv").write_text(written([{**GOOD, "timestamp": "1999-06-05T12:00:00Z"}], "csv"))
    assert invoice(tmp_path / "u.csv", "--engine", engine)[0] == 1
    old = {**CATALOG["subscriptions"][0], "start_date": 915_148_800}
    (tmp_path / "catalog.json").write_text(json.dumps({**CATALOG, "subscriptions": [old]}))
    status, _, err = invoice(tmp_path / "u.csv", "--engine", engine)
    assert (status, "start_date: expected a moment in the years 2000 to" in str(err)) == (2, True)
    status, out, _ = invoice(tmp_path / "u.csv", "--engine", engine, "--any-time")
    assert (status, "1999-06-01" in out) == (0, True)


# Parquet, which one engine reads ------------------------------------------------------------------

TYPES = {
    "subscription_item": "VARCHAR",
    "quantity": "BIGINT",
    "timestamp": "BIGINT",
    "action": "VARCHAR",
    "id": "VARCHAR",
    "received_at": "BIGINT",
}
OF_TABLES = {
    name: mistake
    for name, mistake in RECORDS.items()
    if all(
        column in TYPES
        and (value is None or isinstance(value, str if TYPES[column] == "VARCHAR" else int))
        for column, value in mistake.changes.items()
    )
    and not any(isinstance(value, bool) for value in mistake.changes.values())
    and mistake.formats == ("csv", "jsonl")
}
"""Those mistakes of a row that a table of integers and strings can hold."""


def write_parquet(path, rows):
    duckdb = pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
    used = [column for column in TYPES if any(column in row for row in rows)]
    table = ", ".join(f"{column} {TYPES[column]}" for column in used)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE t ({table})")
        values = [[row.get(column) for column in used] for row in rows]
        connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(used))})", values)  # noqa: S608 - question marks
        connection.execute(f"COPY t TO '{path}' (FORMAT parquet)")


def test_the_table_of_parquet_is_not_empty():
    """Most mistakes of a row can be made in Parquet."""
    assert len(OF_TABLES) > 15


@pytest.mark.parametrize("name", OF_TABLES)
def test_a_row_of_parquet_is_refused_with_the_same_sentence(name, invoice, tmp_path):
    """Status 1, the path, the row and the sentence of all other engines; it is written down as it
    stands.
    """
    mistake, file, rejects = OF_TABLES[name], tmp_path / "u.parquet", tmp_path / "r.jsonl"
    write_parquet(file, [{**GOOD, **mistake.before}, {**GOOD, **mistake.changes}])
    status, out, (sentence,) = invoice(file, "--rejects", rejects)
    assert (status, out) == (1, "")
    assert sentence.startswith(f"metering-core: {file}, row 2: ")
    assert mistake.words in sentence
    (found,) = rejected(rejects)
    assert (found["path"], found["line"], found["code"]) == (str(file), 2, mistake.code)
    row = {
        column: value for column, value in {**GOOD, **mistake.changes}.items() if value is not None
    }
    assert json.loads(found["row"]) == row


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_parquet_are_skipped_by_those_who_read_it(engine, invoice, tmp_path):
    """DuckDB bills the rest, names and counts; the engines that read no Parquet say so by name, and
    who does.
    """
    pytest.importorskip(NEEDS[engine])
    mistakes = [
        one for one in OF_TABLES.values() if not one.before and "received_at" not in one.changes
    ]
    write_parquet(
        tmp_path / "u.parquet", [GOOD, *({**GOOD, **one.changes} for one in mistakes), GOOD]
    )
    rejects = tmp_path / "r.jsonl"
    status, out, complaints = invoice(
        tmp_path / "u.parquet", "--engine", engine, "--on-error", "skip", "--rejects", rejects
    )
    if engine in {"memory", "columnar"}:
        expected = (
            "metering-core: --engine: expected an engine that reads Parquet and several files "
            f"(duckdb), received '{engine}'"
        )
        assert (status, out, complaints) == (2, "", [expected])
        return
    assert (status, "USD 0.10" in out) == (1, True)
    assert (
        complaints[-1]
        == f"metering-core: {tmp_path / 'u.parquet'}: {len(mistakes)} rows skipped, 2 accepted"
    )
    assert [one["code"] for one in rejected(rejects)] == [one.code for one in mistakes]


def test_rows_of_several_files_are_named_by_their_file(invoice, tmp_path):
    """A glob of text is read as one; a refused row has the path and the line of its own file."""
    pytest.importorskip("duckdb")
    (tmp_path / "u1.csv").write_text(written([GOOD, GOOD], "csv"))
    (tmp_path / "u2.csv").write_text(
        written([GOOD, {**GOOD, "timestamp": 46_178}, {**GOOD, "subscription_item": "si "}], "csv")
    )
    rejects = tmp_path / "r.csv"
    status, out, complaints = invoice(
        tmp_path / "u?.csv", "--on-error", "skip", "--rejects", rejects
    )
    assert (status, "USD 0.15" in out) == (1, True)
    assert [one.split(": ")[1] for one in complaints[:-1]] == [
        f"{tmp_path / 'u2.csv'}, line {line}" for line in (3, 4)
    ]
    with rejects.open(newline="") as stream:
        assert [(one["line"], one["row"]) for one in csv.DictReader(stream)] == [
            ("3", "si,5,46178"),
            ("4", f"si ,5,{JUNE + 60}"),
        ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["folder", "pipe", "absent", "nul", "long", "/proc/self/mem"])
def test_what_is_no_file_is_said_by_every_engine(what, engine, invoice, tmp_path):
    """Status 2 and one sentence with the path; nothing hangs, and a folder is told what works."""
    pytest.importorskip(NEEDS[engine])
    path = {"nul": "a\0.csv", "long": "x" * 5_000 + ".csv", "folder": tmp_path / "folder"}.get(
        what, tmp_path / "u.csv"
    )
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what.startswith("/proc"):
        path = what
    options = ("--usage-format", "csv") if what.startswith("/proc") else ()
    status, out, (sentence,) = invoice(path, "--engine", engine, *options)
    assert (status, out) == (2, "")
    assert sentence.isprintable()
    assert what != "folder" or "a folder is read by a glob" in sentence


def test_an_event_is_billed_twice_only_where_that_is_said(invoice, tmp_path):
    """Two subscriptions of one customer on one meter: refused by name, or with --overlap each bills
    its 5 units.
    """
    twin = {**CATALOG["subscriptions"][1], "id": "twin", "items": [{"id": "ui", "price": "q"}]}
    both = [CATALOG["subscriptions"][1], twin]
    (tmp_path / "catalog.json").write_text(json.dumps({**CATALOG, "subscriptions": both}))
    (tmp_path / "e.csv").write_text(written([flat(EVENT)], "csv"))
    status, out, _ = invoice("--events", tmp_path / "e.csv")
    assert (status, out) == (2, "")
    status, out, _ = invoice("--events", tmp_path / "e.csv", "--overlap", "each-counts-all")
    assert (status, out.count("USD 0.05")) == (0, 4)  # a line and a total each


# Readers in Python --------------------------------------------------------------------------------

FLAT = {"event_name": "calls", "customer": "cus_1", "value": "5"}


def told_by_rows(read, path, **options):
    """Raise the first complaint of a reader of text."""
    with path.open(newline="") as stream:
        for row in read(stream, path.suffix[1:], **options):
            if isinstance(row, MeteringError):
                raise row


def of_duckdb(path, fields, **options):
    sql = pytest.importorskip("metering_core.sql")
    pytest.importorskip("duckdb")
    if "event_name" in fields:
        sql.DuckDBEvents(path, [Meter("m", "calls")], **options).close()
    else:
        sql.DuckDBUsage(path, [], **options).close()


READERS = {
    "read_usage": (
        GOOD,
        ("csv", "jsonl"),
        lambda path, fields, **more: told_by_rows(read_usage, path, **more),
    ),
    "read_events": (
        EVENT,
        ("jsonl",),
        lambda path, fields, **more: told_by_rows(read_events, path, **more),
    ),
    "DuckDBUsage": (GOOD, ("csv", "jsonl", "parquet"), of_duckdb),
    "DuckDBEvents": (FLAT, ("csv", "jsonl", "parquet"), of_duckdb),
}
LIKE = {
    46_178: "received 46178 (int): it looks like a spreadsheet's day number for 2026-06-05",
    JUNE * 1000: f"received {JUNE}000 (int): it looks like milliseconds, divide by 1000 "
    "(2026-06-01T00:00:00Z)",
}


@pytest.mark.parametrize("column", ["timestamp", "received_at"])
@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name, of in READERS.items() for layout in of[1]]
)
def test_every_reader_of_files_judges_instants(name, layout, column, tmp_path):
    """What looks like a day number or milliseconds is refused unless `time=None` takes every
    instant of the calendar.
    """
    fields, _, read = READERS[name]
    for received, words in LIKE.items():
        row = {"timestamp": JUNE + 60, **fields, column: received}
        path = tmp_path / f"{received}.{layout}"
        if layout == "parquet":
            pa = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(
                pa.table({key: [value] for key, value in row.items()}), path
            )
        else:
            path.write_text(
                ",".join(row) + "\n" + ",".join(map(str, row.values()))
                if layout == "csv"
                else json.dumps(row)
            )
        with pytest.raises(MeteringError) as caught:
            read(path, fields)
        assert (caught.value.param, caught.value.message.partition(words)[1]) == (column, words)
        if received == 46_178:
            read(path, fields, time=None)
