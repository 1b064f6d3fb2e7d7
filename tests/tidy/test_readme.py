"""The README shows what the engine does, to the byte."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pages
import pytest
from places import ROOT_FOLDER

from metering_core import ErrorCode

TEXT = pages.README.read_text(encoding="utf-8")


def shown_under(line: str) -> str:
    """Return the output that the README shows under a command line."""
    (shown,) = (block.text for block in pages.blocks(TEXT) if block.text.startswith(f"$ {line}\n"))
    return shown.partition("\n")[2]


def test_examples_run():
    """Every Python session in the README gives what the README shows."""
    pytest.importorskip("numpy", reason="one example is in columns")
    failures = pages.failures_of(pages.python_session(pages.README))
    assert not failures, failures


def test_there_are_ten_examples():
    """The ten short examples are all there, and each of them is run."""
    examples = re.search(r"^## Ten examples$(.*?)^## ", TEXT, flags=re.MULTILINE | re.DOTALL)[1]
    parts = re.split(r"^### ", examples, flags=re.MULTILINE)[1:]
    assert len(parts) == 10
    assert all(
        {"pycon", "console"} & {block.language for block in pages.blocks(part)} for part in parts
    )


def test_the_invoice_is_the_one_of_the_demo():
    """The invoice on the first screen is what `make demo` prints, whose last line names the script
    that it called.
    """
    pytest.importorskip("cyclopts")
    received = pages.run("metering-core demo").replace(
        f"{sys.executable} -m metering_core", ".venv/bin/metering-core"
    )
    assert pages.is_as_shown(shown_under("make demo"), received), received


@pytest.mark.parametrize(
    "command", pages.commands(pages.README), ids=lambda command: f"line {command.number}"
)
def test_commands_run(command):
    """Every `metering-core` command line in the README prints what the README shows."""
    pytest.importorskip("cyclopts")
    received = pages.run(command.line)
    assert pages.is_as_shown(command.expected, received), f"$ {command.line}\n{received}"


def test_the_cases_shown_are_those_of_the_file():
    """The cases that the README shows are those of the file that it checks."""
    (shown,) = (block.text for block in pages.blocks(TEXT) if block.language == "json")
    assert json.loads(shown) == json.loads(
        (pages.ROOT / "examples" / "cases.json").read_text(encoding="utf-8")
    )


def test_error_codes_are_those_of_the_enum():
    """The README lists every error code once, in order of precedence, with who raises it and what
    it means.
    """
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", TEXT, flags=re.MULTILINE)
    assert rows == [(code.value, code.raised_as, code.meaning) for code in ErrorCode]


def test_a_wrong_output_is_noticed(tmp_path):
    """The examples can fail: an output that differs by one digit is reported with its line."""
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```pycon\n>>> 1 + 1\n3\n```\n", encoding="utf-8")
    assert "line 4" in pages.failures_of(pages.python_session(page))


def test_a_blank_line_belongs_to_the_output(tmp_path):
    """A blank line in an output is compared, and one between examples is not."""
    page = tmp_path / "page.md"
    text = '```pycon\n>>> print("a\\n\\nb")\na\n\nb\n\n>>> 2\n2\n```\n'
    page.write_text(text, encoding="utf-8")
    assert not pages.failures_of(pages.python_session(page))
    page.write_text(text.replace("a\n\nb\n\n>", "a\nb\n\n>"), encoding="utf-8")
    assert pages.failures_of(pages.python_session(page))


def test_the_demo_installs_what_it_needs_and_says_so(tmp_path):
    """In a fresh clone `make demo` installs the library and its command line; the extras are for
    `make test`.
    """
    makefile = ROOT_FOLDER / "Makefile"
    if shutil.which("make") is None or not makefile.exists():
        pytest.skip("needs make and the tree")
    shutil.copy(makefile, tmp_path)
    (tmp_path / "pyproject.toml").touch()
    run = subprocess.run(
        ["make", "-n", "demo"],  # noqa: S607 - of the PATH
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (installed,) = (line for line in run.stdout.splitlines() if "--editable" in line)
    assert installed.endswith('--editable ".[cli]"')
    assert 'echo "installing the library and its command line into .venv' in run.stdout
