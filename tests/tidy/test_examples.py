"""The examples run as they are, say the same on every day, and say what is right."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT_FOLDER

import metering_core

PACKAGE = Path(metering_core.__file__).parent
EXAMPLES = ROOT_FOLDER / "examples"


def output_of(script: str, **environment: str) -> str:
    """Run an example in a process of its own, where importing an extra would fail."""
    guarded = (
        "import runpy, sys\n"
        "for extra in ('cyclopts', 'rich', 'hypothesis', 'matplotlib', 'numpy'): "
        "sys.modules[extra] = None\n"
        f"runpy.run_path({str(EXAMPLES / script)!r}, run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", guarded],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "PYTHONIOENCODING": "utf-8",
            **environment,
        },
    )
    assert result.stderr == b""
    return result.stdout.decode()


@pytest.fixture(scope="module")
def service_output() -> str:
    return output_of("embed_in_a_service.py")


def test_the_service_hears_what_became_of_each_report(service_output):
    """A retry is a duplicate, other content under its id is refused, and neither is billed."""
    assert [
        line.split(": ", 1)[1].split()[0].rstrip(":") for line in service_output.splitlines()[:4]
    ] == [
        "accepted",
        "duplicate",
        "rejected",
        "accepted",
    ]


def test_the_service_bills_what_was_used(service_output):
    """112,345 tokens: 100,000 at 0.06 cents are 6000, 12,345 at 0.045 are 555.525 and so 556, and
    two seats are 3000: 9556.
    """
    assert 60_000 + 52_345 == 100_000 + 12_345
    invoices = service_output.split("Invoice ")[1:]
    assert [one.split(")")[0].split("(")[1] for one in invoices] == ["draft", "finalized"]
    for one in invoices:
        amounts = [
            line.split("USD ")[-1]
            for line in one.splitlines()
            if "USD" in line and "Tier 2: " not in line
        ]
        assert amounts[:4] == ["60.00", "5.56", "30.00", "95.56"]
    assert "2024-01-31 09:00 to 2024-02-29 09:00 UTC" in service_output


def test_the_service_restarts_and_bills_the_same_again(service_output):
    """Stored and restored, billed and billed again: the invoice does not change."""
    assert "Billed again, nothing is due:   True" in service_output
    assert "Asked again, the same invoice:   True" in service_output
    assert "Tier 2: 12,345 × USD 0.00045 = USD 5.55525 exactly." in service_output


def test_the_service_bills_who_left(service_output):
    """Ten of the 31 days from 29 February to 31 March: two seats of 1500 come to 967.74, so 968."""
    assert (
        "The last invoice: USD 9.68 for 2024-02-29T09:00:00Z to 2024-03-10T09:00:00Z"
        in service_output
    )


def test_the_service_says_the_same_on_every_machine(service_output):
    """Neither the hash seed nor the time zone changes a byte."""
    assert (
        output_of("embed_in_a_service.py", PYTHONHASHSEED="7", TZ="Pacific/Auckland")
        == service_output
    )


def test_the_usage_of_the_demo_is_what_its_script_makes(tmp_path, monkeypatch, capsys):
    """The shipped files are the script's own bytes, so that anyone can make them again."""
    spec = importlib.util.spec_from_file_location(
        "make_demo_usage", EXAMPLES / "make_demo_usage.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = tmp_path / "usage.csv"
    monkeypatch.setattr(module, "TARGETS", (made, tmp_path / "no such folder" / "usage.csv"))
    module.main()
    assert "368 rows" in capsys.readouterr().out
    assert made.read_bytes() == (PACKAGE / "demo" / "usage.csv").read_bytes()


@pytest.mark.parametrize("name", ["catalog.json", "usage.csv"])
def test_the_examples_have_the_files_of_the_demo(name):
    """What a reader of the repository opens is what `metering-core demo` bills."""
    assert (EXAMPLES / name).read_bytes() == (PACKAGE / "demo" / name).read_bytes()
