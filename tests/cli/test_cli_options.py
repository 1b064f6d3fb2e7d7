"""What people type: options that cannot be meant, files in each other's place, and complaints in
the words of the command.
"""

import gzip
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="needs the extra 'cli'")

from test_cli_output import DEMO, shell

from metering_core.cli import app as cli
from metering_core.cli.options import EventPolicies, Policies

PRICE = f"{DEMO[0]}#price_generated_tokens"
RANGE = ("--from", "2026-10-05T00:00:00Z", "--to", "2026-10-20T00:00:00Z")
JUNE = 1_780_660_800  # 2026-06-05T12:00:00Z, which is day 46178 of a spreadsheet


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in a folder with a catalog, usage and events; give its exit status, output and
    complaints.
    """
    recurring = {"interval": "month", "usage_type": "metered"}
    catalog = {
        "meters": [{"id": "m", "event_name": "calls", "default_aggregation": {"formula": "sum"}}],
        "prices": [
            {"id": "p", "currency": "usd", "unit_amount": 1, "recurring": recurring},
            {"id": "q", "currency": "usd", "unit_amount": 1, "recurring": {**recurring, "meter": "m"}},
        ],
        "subscriptions": [
            {"id": "s", "customer": "cus_1", "billing_cycle_anchor": "2026-06-01T00:00:00Z",
             "items": [{"id": "si", "price": "p"}, {"id": "ti", "price": "q"}]},
        ],
    }  # fmt: skip
    event = {
        "event_name": "calls",
        "timestamp": JUNE,
        "payload": {"stripe_customer_id": "cus_1", "value": "5"},
    }
    (tmp_path / "c.json").write_text(json.dumps(catalog))
    (tmp_path / "u.csv").write_text(f"subscription_item,quantity,timestamp\nsi,5,{JUNE}\n")
    (tmp_path / "u.jsonl").write_text(
        json.dumps({"subscription_item": "si", "quantity": 5, "timestamp": JUNE}) + "\n"
    )
    (tmp_path / "e.jsonl").write_text(json.dumps(event) + "\n")
    (tmp_path / "e.csv").write_text(
        f"event_name,timestamp,payload[stripe_customer_id],payload[value]\ncalls,{JUNE},cus_1,5\n"
    )
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        status = cli.main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        assert "datetime" not in err
        return status, out, [line.removeprefix("metering-core: ") for line in err.splitlines()]

    return command


@pytest.mark.parametrize("command", ["--help", "--version", "invoice --help"])
def test_a_pipe_that_closes_early_is_told(command):
    """Status 3 with its sentence: a library that prints the help would have left with 1, and
    silently.
    """
    code = (
        "import os, sys; from metering_core.cli.app import main; read, write = os.pipe(); "
        "os.close(read); os.dup2(write, 1); "
        f"sys.exit(main({command.split()!r}))"
    )
    result = shell(f'"{sys.executable}" -c "{code}"')
    assert (result.returncode, result.stderr) == (
        3,
        b"metering-core: standard output: cannot be written: Broken pipe\n",
    )


COMPARE, PERIODS = ("compare", PRICE, PRICE), ("periods", "2026-06-01T00:00:00Z")
INTEGERS = {
    "--up-to": COMPARE,
    "--up-to of a curve": ("curve", PRICE, "--output", "x.svg"),
    "--number": ("periods", "2026-06-01T00:00:00Z", "month"),
    "--count": ("periods", "2026-06-01T00:00:00Z", "month"),
    "--backdate-days": ("invoice", "c.json", "u.csv", "--events", "e.jsonl"),
}
"""Every option that takes an integer, with the rest of a command."""


@pytest.mark.parametrize(
    "text", ["1.5", "2.0", "1e3", "1_000", "0x10", "1,000", "many", "", "٣", "9" * 5_000]
)
@pytest.mark.parametrize("option", INTEGERS)
def test_an_integer_is_written_as_one(option, text, run):
    """A fraction was cut off silently, and other notations were guessed: each is refused by the
    name of its option.
    """
    name = option.partition(" ")[0]
    status, out, (complaint,) = run(*INTEGERS[option], f"{name}={text}")
    assert (status, out) == (2, "")
    assert complaint.startswith(f"{name}: expected an integer, received ")


def test_every_option_that_takes_an_integer_is_in_the_table():
    """By what the commands declare."""
    commands = [cli.app[one].default_command for one in cli.app if not one.startswith("-")]
    declared = [one.__annotations__ for one in (*commands, EventPolicies, Policies) if one]
    kinds = {
        f"--{name.replace('_', '-')}": str(kind)
        for annotations in declared
        for name, kind in annotations.items()
        if name != "return"
    }
    assert {name for name, kind in kinds.items() if "WholeNumber" in kind} == {
        one.partition(" ")[0] for one in INTEGERS
    }
    assert len(commands) > 8
    assert not [name for name, kind in kinds.items() if kind.split(" ")[0] in {"int", "float"}]


SUMMARIES = ("summaries", "c.json", "--events", "e.jsonl", "--meter", "m", "--customer", "cus_1")
INSTANTS = {
    "--period": ("invoice", "c.json", "u.csv", "--events", "e.jsonl", "--period"),
    "--from": (*SUMMARIES, "--to", "2026-06-20T00:00:00Z", "--from"),
    "--to": (*SUMMARIES, "--from", "2026-06-01T00:00:00Z", "--to"),
    "--at": ("periods", "2026-06-01T00:00:00Z", "month", "--at"),
    "ANCHOR": ("periods", "--number", "1", "--", "month"),
}
"""Every option that takes a moment, with the rest of a command."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{JUNE}000", "it looks like milliseconds, divide by 1000 (2026-06-05T12:00:00Z)"),
        ("46178", "it looks like a spreadsheet's day number for 2026-06-05"),
        ("2026-06-05T12:00:00", "it has no offset, write 2026-06-05T12:00:00Z if it is in UTC"),
        ("06/05/2026", "write year, month and day with dashes"),
    ],
)
@pytest.mark.parametrize("option", INSTANTS)
def test_a_moment_that_looks_like_something_else_is_refused_as_in_files(option, text, words, run):
    """Milliseconds, a spreadsheet's day number, a time without an offset: by the name of the
    option, with the guess.
    """
    command = INSTANTS[option]
    status, out, (complaint,) = (
        run(*command, text) if option != "ANCHOR" else run("periods", text, "month")
    )
    assert (status, out) == (2, "")
    assert complaint.startswith(f"{option}: expected ")
    assert complaint.endswith(words) or words in complaint


def test_moments_of_long_ago_are_taken_where_that_is_said(run):
    """With --any-time, and in `periods` wherever they look like nothing else."""
    assert (
        run(
            "invoice", "c.json", "u.csv", "--events", "e.jsonl", "--period", "1999-06-01T00:00:00Z"
        )[0]
        == 2
    )
    status, _, (complaint,) = run(
        "invoice",
        "c.json",
        "u.csv",
        "--events",
        "e.jsonl",
        "--period",
        "1999-06-01T00:00:00Z",
        "--any-time",
    )
    assert (status, complaint) == (
        1,
        "no subscription has a billing period at 1999-06-01T00:00:00Z",
    )
    for epoch in ("1970-01-01T00:00:00Z", "0"):
        assert (
            run("periods", epoch, "year", "--number", "1")[1]
            == "1970-01-01T00:00:00Z 1971-01-01T00:00:00Z\n"
        )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            (*SUMMARIES, "--from", "2026-06-20T00:00:00Z", "--to", "2026-06-01T00:00:00Z"),
            (
                "--to: expected a moment after 2026-06-20T00:00:00Z, where the range begins, "
                "received 2026-06-01T00:00:00Z"
            ),
        ),
        (
            (
                *SUMMARIES,
                "--from",
                "2001-06-20T00:00:00Z",
                "--to",
                "2026-06-01T00:00:00Z",
                "--by",
                "hour",
            ),
            "--by: expected one that cuts the range into at most 100,000 buckets, received 'hour'",
        ),
        (
            (*SUMMARIES[:5], "nope", "--customer", "c", *RANGE),
            "--meter: expected the id of a meter in the log (m), received 'nope'",
        ),
        (
            (*SUMMARIES[:7], "", *RANGE),
            "--customer: expected a string of 1 to 255 characters, received ''",
        ),
        (
            (*SUMMARIES, *RANGE, "--timezone", "Mars"),
            "--timezone: expected an IANA time zone name, such as 'Europe/Berlin'",
        ),
        (
            ("periods", "2026-06-01T00:00:00Z", "month", "--count", "0"),
            "--count: expected an integer of at least 1, received 0",
        ),
        (
            ("periods", "2026-06-01T00:00:00Z", "fortnight"),
            "INTERVAL: expected one of 'day', 'week', 'month', 'year'",
        ),
        ((*COMPARE, "--up-to", "-1"), "--up-to: expected an integer of at least 0, received -1"),
        (
            ("curve", PRICE, "--output", "x.txt"),
            "--output: expected a file that ends in .svg or .png, received 'x.txt'",
        ),
        (
            ("invoice", "c.json", "u.csv", "--events", "e.jsonl", "--backdate-days", "-1"),
            "--backdate-days: expected an integer of at least 0, received -1",
        ),
        (
            (*COMPARE, "--catalog", "c.json"),
            "--usage: --usage and --catalog go together, received one of them",
        ),
        (
            (*COMPARE, "--events", "e.jsonl", "--catalog", "c.json"),
            "--events: expected --usage, which the price",
        ),
        (("rate", PRICE), "expected at least one QUANTITY, received none"),
        (
            ("rate", PRICE, "1,5"),
            "QUANTITY: expected an integer, or a decimal of at most 12 places",
        ),
    ],
)
def test_complaints_speak_of_options(arguments, complaint, run):
    """And of moments as people write them; never of the parameters of Python's functions."""
    status, out, (said,) = run(*arguments)
    assert (status, out) == (2, "")
    assert said.startswith(complaint)


def test_a_customer_that_nobody_is_has_no_summaries(run):
    """Neither in the catalog nor in the events: as a meter that is none, with what was meant; a
    known one may have no usage.
    """
    status, out, (complaint,) = run(*SUMMARIES[:6], "--customer", "cus_1 ", *RANGE)
    assert (status, out) == (2, "")
    expected = (
        "--customer: expected a customer of the catalog or of an event, received 'cus_1 ' "
        "(str) (did you mean 'cus_1'?)"
    )
    assert complaint == expected
    status, out, complaints = run(*SUMMARIES, *RANGE)
    assert (status, complaints) == (0, [])
    assert out.splitlines()[-1].split()[-2:] == ["0", "0"]


def test_summaries_offer_what_they_take(run, capsys):
    """--late-grace is about usage records: it is no option of `summaries`, and of `invoice` one."""
    status, _, (complaint,) = run(*SUMMARIES, *RANGE, "--late-grace", "1d")
    assert (status, complaint.split(".")[0]) == (2, "Unknown option: --late-grace")
    for command, is_offered in (("summaries", False), ("invoice", True)):
        assert cli.main([command, "--help"]) == 0
        assert ("--late-grace" in capsys.readouterr().out) is is_offered


@pytest.mark.parametrize("file", ["e.jsonl", "e.csv"])
@pytest.mark.parametrize("engine", ["memory", "columnar", "duckdb"])
def test_events_in_the_place_of_usage_are_told_where_they_go(file, engine, run):
    """A file of meter events as USAGE is named for what it is."""
    pytest.importorskip({"memory": "json", "columnar": "numpy", "duckdb": "duckdb"}[engine])
    _, out, complaints = run("invoice", "c.json", file, "--engine", engine)
    assert out == ""
    assert complaints[-1].startswith(f"{file}, line 1: ")
    assert complaints[-1].endswith("(these look like meter events: give them with --events)")


@pytest.mark.parametrize("file", ["u.jsonl", "u.csv"])
def test_usage_in_the_place_of_events_is_told_where_it_goes(file, run):
    """And the reverse."""
    _, out, complaints = run("invoice", "c.json", "--events", file)
    assert out == ""
    assert complaints[-1].startswith(f"{file}, line 1: ")
    assert complaints[-1].endswith(
        "(these look like usage records, which are the USAGE of `metering-core invoice`)"
    )


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
@pytest.mark.parametrize("name", ["empty.csv", "empty.jsonl"])
def test_an_empty_file_is_said_to_be_empty(name, text, run, tmp_path):
    """Not that it lacks a header: a file without a byte of content was written by something that
    failed.
    """
    (tmp_path / name).write_text(text)
    for place in ((name,), ("--events", name)):
        status, out, complaints = run("invoice", "c.json", *place)
        assert (status > 0, out) == (True, "")
        said = (
            f"{name}, line 1: is empty: "
            if name.endswith("csv")
            else f"there is no usage to bill: no row in {name}"
        )
        assert complaints[0].startswith(said)


@pytest.mark.parametrize("engine", ["memory", "columnar", "duckdb"])
def test_duplicates_are_counted_with_the_rows(engine, run, tmp_path):
    """Every row is in the count: skipped, accepted or a duplicate."""
    pytest.importorskip({"memory": "json", "columnar": "numpy", "duckdb": "duckdb"}[engine])
    rows = [
        f"si,5,{JUNE},a",
        f"si,5,{JUNE},a",
        f"si,5,{JUNE},b",
        f"nobody,5,{JUNE},c",
        f"si,5,{JUNE},a",
    ]
    (tmp_path / "d.csv").write_text(
        "\n".join(["subscription_item,quantity,timestamp,id", *rows]) + "\n"
    )
    complaints = run(
        "invoice",
        "c.json",
        "d.csv",
        "--engine",
        engine,
        "--on-error",
        "skip",
        "--events",
        "e.jsonl",
    )[2]
    assert complaints[-1] == "d.csv: 1 row skipped, 2 accepted, 2 duplicates"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("invoice", "c.json", "u.csv", "v.csv"),
            "received 'v.csv' (str): one USAGE is read; quote a glob, as in 'usage/*.csv'",
        ),
        (
            ("invoice", "c.json", "--usage", "u.csv"),
            "received 'u.csv' (str): USAGE is given without an option",
        ),
        (
            ("periods", "2026-10-01T00:00:00Z", "month", "5"),
            "expected no further argument, received '5' (str)",
        ),
        (
            ("rate", PRICE, "5", "--format", "json"),
            "expected QUANTITY or --json, received the unknown option '--format' (str)",
        ),
        (("rate", PRICE, "5", "--josn"), "received the unknown option '--josn' (str)"),
        (
            ("check", "c.json"),
            (
                "c.json: expected a file of cases, which has the key 'cases'; `metering-core "
                "audit` looks at prices"
            ),
        ),
        (
            ("invoice", "u.csv", "c.json"),
            "by its extension it is a file of usage, and CATALOG stands before USAGE",
        ),
    ],
)
def test_arguments_in_the_wrong_place_hear_where_they_belong(arguments, expected, run):
    """One too many, one without its place, one that is no option of the command: the complaint says
    what goes there.
    """
    status, _, complaints = run(*arguments)
    assert (status, len(complaints)) == (2, 1)
    assert expected in complaints[0]


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        (
            gzip.compress(b"subscription_item,quantity,timestamp\n", mtime=0),
            "(it looks like gzip: unpack it)",
        ),
        (
            "subscription_item,quantity,timestamp\n".encode("utf-16"),
            "(it looks like UTF-16: write it as UTF-8)",
        ),
        (
            b"\xfe\xff" + "subscription_item".encode("utf-16-be"),
            "(it looks like UTF-16: write it as UTF-8)",
        ),
        (
            b"PK\x03\x04 a workbook",
            "(it looks like a spreadsheet or another archive: export CSV from it)",
        ),
    ],
    ids=["gzip", "UTF-16", "UTF-16 without an order", "a workbook"],
)
def test_bytes_that_are_no_text_are_told(content, meant, run):
    """Whatever its name says, a packed file or one of another encoding is told by how it begins; so
    is a catalog.
    """
    Path("v.csv").write_bytes(content)
    assert run("invoice", "c.json", "v.csv")[2][-1].endswith(meant)
    if not content.isascii():
        assert run("invoice", "v.csv", "u.csv")[2][-1].endswith(meant)


def test_a_late_record_hears_of_the_grace(run):
    """A record that came after its period had ended is refused with the option that takes it, and
    is taken with it.
    """
    Path("v.csv").write_text(
        f"subscription_item,quantity,timestamp,received_at\nsi,5,{JUNE},2026-07-01T01:00:00Z\n"
    )
    status, _, complaints = run("invoice", "c.json", "v.csv", "--engine", "memory")
    assert (status, "--late-grace" in complaints[-1]) == (1, True)
    assert run("invoice", "c.json", "v.csv", "--events", "e.csv", "--late-grace", "2h")[0] == 0


@pytest.mark.parametrize("name", ["kept.csv", "kept.jsonl"])
def test_a_run_without_rejects_leaves_a_file_of_something_else(name, run):
    """Nothing is written over what is no file of rejects unless there is a row to write; what was
    written before is renewed.
    """
    kept, row = Path(name), f"subscription_item,quantity,timestamp\nsi,-5,{JUNE}\n"
    kept.write_text("precious\n")
    clean = ("invoice", "c.json", "u.csv", "--events", "e.csv", "--rejects", name)
    status, _, complaints = run(*clean)
    assert (status, kept.read_text()) == (0, "precious\n")
    assert complaints == [
        f"{name}: left as it is: no row is to be written into it, and it holds no rejects"
    ]
    Path("v.csv").write_text(row)
    assert run("invoice", "c.json", "v.csv", "--events", "e.csv", "--rejects", name)[0] == 1
    assert "si,-5" in kept.read_text()
    assert run(*clean)[2] == []
    assert kept.read_text() in {"", "path,line,code,message,row\n"}


def test_the_last_line_of_the_demo_works_as_it_is_printed():
    """Whoever calls the demo as a module, without a script on the PATH, can paste its last line."""
    printed = shell("metering demo").stdout.decode().splitlines()[-1].strip()
    assert printed.startswith(f"{sys.executable} -m metering_core invoice ")
    expected = shell(f"metering invoice {DEMO[0]} {DEMO[1]} --explain").stdout
    assert shell(printed).stdout == expected != b""


def test_two_subscriptions_on_a_meter_hear_of_the_option(run):
    """The complaint names the other subscription and what to type, and typing it bills."""
    catalog = json.loads(Path("c.json").read_text())
    (first,) = catalog["subscriptions"]
    catalog["subscriptions"].append({**first, "id": "t", "items": [{"id": "ui", "price": "q"}]})
    Path("c.json").write_text(json.dumps(catalog))
    command = ("invoice", "c.json", "u.csv", "--events", "e.csv")
    status, _, complaints = run(*command)
    assert (
        status,
        "'s' bills it" in complaints[-1],
        "say --overlap each-counts-all" in complaints[-1],
    ) == (2, True, True)
    assert run(*command, "--overlap", "each-counts-all")[0] == 0
