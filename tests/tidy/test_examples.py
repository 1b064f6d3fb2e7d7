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
def service_output():
    return output_of("service.py")


def test_the_service_bills_a_request_once(service_output):
    """101,000 tokens, 100,000 of them at 0.003 cents and 1,000 at 0.0025, are 302.5 cents, of which
    2.5 are the second line; sent again after two days they are a duplicate.
    """
    assert service_output.splitlines()[:4] == [
        "reported: accepted",
        "and again: duplicate",
        "so far: USD 3.03",
        "October: USD 3.03",
    ]
    assert "Rounding: 2.5 minor units, half up, is 3: USD 0.03." in service_output


def test_the_service_says_the_same_on_every_machine(service_output):
    """Neither the hash seed nor the time zone changes a byte."""
    again = output_of("service.py", PYTHONHASHSEED="7", TZ="Pacific/Auckland")
    assert again == service_output


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
