"""What the command line does where output, input or a file fails: one line of ours, a status of its
own, nothing torn.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="needs the extra 'cli'")

import metering_core
from metering_core.cli import app as cli
from metering_core.cli.printing import spreadsheet_cell
from metering_core.errors import CatalogError
from metering_core.feeds.catalog import read_catalog
from metering_core.replacing import replacing

PACKAGE = Path(metering_core.__file__).parent
DEMO = (str(PACKAGE / "demo" / "catalog.json"), str(PACKAGE / "demo" / "usage.csv"))
START = 1_704_067_200  # 2024-01-01T00:00:00Z


def shell(command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command in which `metering` is the command line."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    script = f'metering() {{ "{sys.executable}" -m metering_core "$@"; }}; {command}'
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            f"metering invoice {DEMO[0]} {DEMO[1]} > /dev/full",
            "standard output: cannot be written: No space left on device",
        ),
        (
            "metering --help > /dev/full",
            "standard output: cannot be written: No space left on device",
        ),
        ("metering periods 0 day >&-", "standard output: cannot be written: it is closed"),
        (
            f"metering invoice {DEMO[0]} {DEMO[1]} --rejects /none/r.csv",
            "/none/r.csv: cannot be written: No such file or directory",
        ),
    ],
)
def test_output_that_cannot_be_written_is_told_with_status_3(command, said):
    """A full disk, a closed standard output and a folder that is not there: one line, no
    traceback.
    """
    if "/dev/full" in command and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    result = shell(command)
    assert (result.returncode, result.stderr.decode()) == (3, f"metering-core: {said}\n")


def test_a_closed_standard_input_is_a_file_that_cannot_be_read():
    """Status 2, as for any file."""
    result = shell(f"metering invoice {DEMO[0]} - <&-")
    said = b"metering-core: <standard input>: cannot be read: it is closed\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, b"", said)


def test_a_closed_standard_error_costs_nothing_but_the_sentences():
    """Complaints are not printed among the results; the status is what it is."""
    result = shell("metering periods 0 fortnight 2>&-")
    assert (result.returncode, result.stdout) == (2, b"")
    assert shell("metering periods 0 fortnight 2>/dev/full").returncode == 2


# Files that are whole -----------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for a kill."""


def test_who_is_killed_while_writing_leaves_the_good_file(tmp_path):
    """The old content stays, and nothing stands beside it."""
    (tmp_path / "r.csv").write_text("good")
    with pytest.raises(KilledError), replacing(tmp_path / "r.csv", "rejects") as beside:  # noqa: PT012 - what is killed is the block
        beside.write_text("torn")
        raise KilledError
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("r.csv", "good")]


def test_a_file_keeps_its_rights_and_a_link_its_place(tmp_path):
    """What replaces a file has its rights, a new one those of any new file, and a link goes on
    pointing.
    """
    (tmp_path / "r.csv").write_text("old")
    (tmp_path / "r.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to(tmp_path / "r.csv")
    (tmp_path / "plain").write_text("")
    for name in ("link.csv", "new.csv"):
        with replacing(tmp_path / name, "rejects") as beside:
            beside.write_text("new")
    assert (tmp_path / "link.csv").is_symlink()
    assert ((tmp_path / "r.csv").read_text(), (tmp_path / "r.csv").stat().st_mode & 0o777) == (
        "new",
        0o640,
    )
    assert (tmp_path / "new.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_device_is_written_itself():
    """Nothing takes the place of /dev/null."""
    with replacing(Path("/dev/null"), "rejects") as beside:
        assert beside == Path("/dev/null")


@pytest.mark.parametrize("path", ["a\0b.csv", "none/r.csv", "x" * 300 + ".csv", "."])
def test_a_path_that_cannot_be_written_is_our_error(path, tmp_path, monkeypatch):
    """`file_unwritable`, with the path on one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatalogError) as refused, replacing(Path(path), "rejects") as beside:
        beside.write_text("new")
    assert (refused.value.code, refused.value.details["path"]) == (
        "file_unwritable",
        str(Path(path)),
    )
    assert ": cannot be written: " in refused.value.message
    assert refused.value.message.isprintable()
    assert not list(tmp_path.iterdir())


# Catalogs that cannot be read ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nul", "pipe", "folder", "long", "damaged", "deep", "surrogate"])
def test_a_catalog_that_cannot_be_read_is_our_error(kind, tmp_path):
    """One sentence with the path, whatever is there; a pipe without a writer is not waited for."""
    paths = {"nul": "a\0", "folder": str(tmp_path), "long": "x" * 5_000, "surrogate": "a\udcff"}
    path = paths.get(kind, str(tmp_path / kind))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "damaged":
        Path(path).write_bytes(b"\xff\xfe{")
    elif kind == "deep":
        Path(path).write_text('{"prices": [{"product": ' + "[" * 985 + "]" * 985 + "}]}")
    with pytest.raises(CatalogError) as refused:
        read_catalog(path)
    assert (refused.value.code, refused.value.details["path"]) == ("file_unreadable", path)
    assert refused.value.message.isprintable()


def test_a_catalog_with_a_byte_order_mark_is_read(tmp_path):
    """As an editor on Windows saves it; so is one from a process substitution."""
    content = Path(DEMO[0]).read_text(encoding="utf-8")
    (tmp_path / "c.json").write_text(content, encoding="utf-8-sig")
    assert read_catalog(tmp_path / "c.json") == read_catalog(DEMO[0])


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_what_a_shell_substitutes_is_read():
    """`<(…)` is a pipe under /dev/fd, and is no pipe that waits for a writer."""
    bash = f"bash -c '{sys.executable} -m metering_core invoice <(cat {DEMO[0]}) {DEMO[1]}'"
    result = shell(bash)
    assert (result.returncode, result.stderr) == (0, b"")


# Text from outside --------------------------------------------------------------------------------


@pytest.fixture
def run(capsys):
    """Run a command; give its exit status, standard output and standard error."""

    def command(*arguments):
        status = cli.main([str(one) for one in arguments])
        return status, *capsys.readouterr()

    return command


def catalog_of(tmp_path, **fields):
    recurring = {"interval": "month", "usage_type": "metered"}
    price = {"id": "p", "currency": "usd", "unit_amount": 3, "recurring": recurring, **fields}
    items = [{"id": "si", "price": "p"}]
    subscription = {"id": "=cmd|' /C calc'!A0", "billing_cycle_anchor": START, "items": items}
    (tmp_path / "catalog.json").write_text(
        json.dumps({"prices": [price], "subscriptions": [subscription]})
    )
    (tmp_path / "u.csv").write_text(f"subscription_item,quantity,timestamp\nsi,5,{START}\n")
    return tmp_path / "catalog.json", tmp_path / "u.csv"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "@SUM(A1)", "\tx", "\rx", "-2+3", "1/12", "-1/3"])
def test_text_that_a_spreadsheet_would_run_is_text(cell):
    """A leading quote makes it text; a fraction would be read as a date."""
    assert spreadsheet_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-31.5", "12", "0.0000025", -5, 7, None, "a=b", "Tokens", ""])
def test_numbers_and_plain_text_stay(cell):
    """Negative decimals are numbers."""
    assert spreadsheet_cell(cell) == cell


def test_a_formula_in_an_id_is_no_formula_in_csv(run, tmp_path):
    """The subscription's id begins with `=`: its cell does not."""
    status, out, _ = run("invoice", *catalog_of(tmp_path), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (status, row["subscription"]) == (0, "'=cmd|' /C calc'!A0")
    assert row["amount"] == "15"


def test_no_output_has_power_over_a_terminal(run, tmp_path):
    """Escape sequences and line breaks of a price's name are escaped in tables, JSON and the table
    of `rate`.
    """
    catalog, usage = catalog_of(tmp_path, nickname="Tokens\nTotal   USD 0.00\x1b[8m\x9b8m\u202e")
    for arguments in (
        ("invoice", catalog, usage, "--format", "json"),
        ("rate", f"{catalog}#p", "5"),
    ):
        for options in ((), ("--json",)) if arguments[0] == "rate" else ((),):
            out = run(*arguments, *options)[1]
            assert not {"\x1b", "\x9b", "\u202e"} & set(out)
            assert not any(line.startswith("Total   USD 0.00") for line in out.splitlines())


def test_rejects_never_replace_a_file_that_is_read(run, tmp_path):
    """The usage is not overwritten by what is wrong with it."""
    catalog, usage = catalog_of(tmp_path)
    before = usage.read_text()
    status, out, err = run("invoice", catalog, usage, "--rejects", tmp_path / "." / "u.csv")
    assert (status, out, usage.read_text()) == (2, "", before)
    assert "--rejects: expected another file" in err


@pytest.mark.parametrize("layout", ["csv", "jsonl"])
def test_rejects_are_csv_or_json_lines(layout, run, tmp_path):
    """Both have path, line, code, message and the row; a run without refused rows writes none, and
    replaces an older file.
    """
    catalog, usage = catalog_of(tmp_path)
    rejects = tmp_path / f"r.{layout}"
    usage.write_text(usage.read_text() + f'"=A1",1,{START}\n')
    assert run("invoice", catalog, usage, "--rejects", rejects)[0] == 1
    text = rejects.read_text()
    (found,) = (
        csv.DictReader(io.StringIO(text)) if layout == "csv" else map(json.loads, text.splitlines())
    )
    assert (found["path"], str(found["line"]), found["code"]) == (
        str(usage),
        "3",
        "subscription_item_unknown",
    )
    assert found["row"] == (f"'=A1,1,{START}" if layout == "csv" else f"=A1,1,{START}")
    usage.write_text(usage.read_text().splitlines()[0] + f"\nsi,1,{START}\n")
    assert run("invoice", catalog, usage, "--rejects", rejects)[0] == 0
    assert rejects.read_text() == ("path,line,code,message,row\n" if layout == "csv" else "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--late-grace", "2"),
            "--late-grace: expected a duration of seconds, minutes, hours or days, such as 300s",
        ),
        (("--late-grace", "2.5h"), "--late-grace: expected a duration"),
        (("--future-tolerance", "1w"), "--future-tolerance: expected a duration"),
        (("--backdate-days", "3"), "--backdate-days: expected it with a file --events"),
        (("--identifier-scope", "global"), "--identifier-scope: expected it with a file --events"),
        (("--rejects", "r.txt"), "expected the extension .csv, .jsonl or .ndjson, received '.txt'"),
    ],
)
def test_options_that_say_nothing_are_refused(options, words, run, tmp_path):
    """Status 2 and a sentence; no option is taken and passed over."""
    status, out, err = run("invoice", *catalog_of(tmp_path), *options)
    assert (status, out) == (2, "")
    assert words in err


def test_fields_that_are_read_past_are_named_once(run, tmp_path):
    """A field of a newer version of Stripe's API alters no bill that is known here: one line says
    that it was there.
    """
    catalog, usage = catalog_of(tmp_path, object="price", newest_field=None, other_field=None)
    status, out, err = run("invoice", catalog, usage)
    said = (
        "fields that alter no bill here were read past: prices[0][newest_field], "
        "prices[0][other_field]"
    )
    assert (status, err) == (0, f"metering-core: {catalog}: {said}\n")
    assert "USD 0.15" in out
