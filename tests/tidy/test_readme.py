"""The README shows what the engine does, to the byte."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import pages
import pytest
from places import ROOT_FOLDER

TEXT = pages.README.read_text(encoding="utf-8")


def test_examples_run():
    """Every Python session in the README gives what the README shows."""
    failures = pages.failures_of(pages.python_session(pages.README))
    assert not failures, failures


def test_the_service_is_the_file():
    """The service that the README shows is the file of the repository, whole."""
    (shown,) = (block.text for block in pages.blocks(TEXT) if block.language == "python")
    assert shown == (ROOT_FOLDER / "examples" / "service.py").read_text(encoding="utf-8")


def test_it_is_read_in_minutes():
    """The README stays short: what is longer has a page under docs/."""
    assert len(TEXT.splitlines()) <= 210


def test_every_extra_is_named():
    """The README names the extras that the project declares, and no other."""
    project = tomllib.loads((ROOT_FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
    sentence = re.search(r"^Extras bring .*?\.$", TEXT, flags=re.MULTILINE | re.DOTALL)[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {*project["project"]["optional-dependencies"]}


@pytest.mark.parametrize(
    "command", pages.commands(pages.README), ids=lambda command: f"line {command.number}"
)
def test_commands_run(command):
    """Every command line of ours in the README prints what the README shows."""
    pytest.importorskip("cyclopts")
    received = pages.run(command.line)
    assert pages.is_as_shown(command.expected, received), f"$ {command.line}\n{received}"


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
