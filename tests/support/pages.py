"""The examples on a Markdown page: Python sessions run as doctests, and command lines run as
commands.

Examples stand in fences, so the end of a fence ends an output. A blank line within an output is
therefore written as it is, not as `<BLANKLINE>`: pages show what a reader would see.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import ROOT_FOLDER

ROOT = ROOT_FOLDER
DOCS = ROOT / "docs"
README = ROOT / "README.md"

OPTIONS = doctest.ELLIPSIS
_FENCE = re.compile(
    r"^```(?P<language>[\w{}-]*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_BLANK_IN_OUTPUT = re.compile(r"^$(?=\n(?!>>> ))", re.MULTILINE)


def of_documentation(*parts: str) -> Path:
    """Return a file under docs/; where there is none, skip the test or the module that asks."""
    page = DOCS.joinpath(*parts)
    if not page.exists():
        pytest.skip("an installed wheel is tested without docs/", allow_module_level=True)
    return page


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and how many lines of the page stand above the
    text.
    """

    language: str
    text: str
    lines_above: int


@dataclass(frozen=True)
class Command:
    """A command line that a page shows, and the output that it shows under it."""

    line: str
    expected: str
    number: int


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start("text")))
        for found in _FENCE.finditer(text)
    ]


def python_session(page: Path) -> doctest.DocTest:
    """Return all Python examples of a page as one session, so that later ones may use what earlier
    ones made.
    """
    examples = []
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "pycon":
            session = _BLANK_IN_OUTPUT.sub("<BLANKLINE>", block.text.rstrip("\n")) + "\n"
            found = doctest.DocTestParser().get_examples(session, page.name)
            for example in found:
                example.lineno += block.lines_above
            examples += found
    return doctest.DocTest(examples, {"__name__": "__main__"}, page.name, str(page), 0, None)


def needed(page: Path) -> list[str]:
    """Return the modules of extras that the page's examples need: those of its `<!-- needs:
    … -->`.
    """
    return re.findall(
        r"^<!-- needs: (\w+) -->$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )


def failures_of(session: doctest.DocTest) -> str:
    """Run a session and return what differed, empty where nothing did."""
    said: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(session, out=said.append)
    return "".join(said)


def failures_elsewhere(page: Path) -> str:
    """Run a page's session in a process of its own, where nothing that it starts outlives it."""
    done = subprocess.run(
        [sys.executable, __file__, str(page)],
        capture_output=True,
        encoding="utf-8",
        env=_environment(),
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""


def commands(page: Path) -> list[Command]:
    """Return the command lines of a page that start our own command or an example."""
    found = []
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "console":
            for part in re.split(r"^(?=\$ )", block.text, flags=re.MULTILINE):
                line, _, expected = part.partition("\n")
                if line.startswith(("$ metering-core", "$ python examples/")):
                    number = (
                        block.lines_above + 1 + block.text[: block.text.index(part)].count("\n")
                    )
                    found.append(Command(line.removeprefix("$ "), expected, number))
    return found


def run(line: str, cwd: Path = ROOT) -> str:
    """Run a command line as the reader would and return what it printed."""
    program, *arguments = shlex.split(line)
    ours = ["-m", "metering_core"] if program == "metering-core" else []
    result = subprocess.run(
        [sys.executable, *ours, *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env=_environment(),
        check=False,
    )
    return result.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {
        **os.environ,
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": path,
        "TERM": "dumb",
    }


def is_as_shown(expected: str, received: str) -> bool:
    """Whether an output is what the page shows; `...` on the page stands for anything."""

    def stripped(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"

    return doctest.OutputChecker().check_output(stripped(expected), stripped(received), OPTIONS)


if __name__ == "__main__":
    sys.exit(failures_of(python_session(Path(sys.argv[1]))) or None)
