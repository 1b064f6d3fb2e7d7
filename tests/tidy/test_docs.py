"""Every example in the documentation runs, and what is made from the code is up to date."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pages
import pytest
from public_names import PACKAGE, PUBLIC, public_names

from metering_core import ErrorCode
from metering_core.testing import cases

PAGES = sorted(path for path in pages.DOCS.rglob("*.md") if "_build" not in path.parts)

pytestmark = pytest.mark.skipif(not PAGES, reason="an installed wheel is tested without docs/")

EVERY_PAGE = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(pages.DOCS))
)


def named(page: Path) -> str:
    return str(page.relative_to(pages.DOCS))


def marked(page: Path) -> object:
    """Return the page, as slow where it says so itself."""
    return (
        pytest.param(page, marks=pytest.mark.slow)
        if "<!-- slow -->" in page.read_text(encoding="utf-8")
        else page
    )


@pytest.mark.parametrize(
    "page", [marked(page) for page in PAGES], ids=lambda page: str(page.relative_to(pages.DOCS))
)
def test_python_examples_run(page):
    """Every Python session on the page gives what the page shows, where the extras that the page
    needs are installed.
    """
    needed = pages.needed(page)
    for module in needed:
        pytest.importorskip(module, reason=f"the examples of {page.name} need {module}")
    if "pyspark" in needed and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java 17 or later, which Spark runs on")
    if "pyspark" in needed:
        failures = pages.failures_elsewhere(page)
    else:
        failures = pages.failures_of(pages.python_session(page))
    assert not failures, failures


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, command) for page in PAGES for command in pages.commands(page)],
    ids=lambda value: named(value) if isinstance(value, Path) else f"line {value.number}",
)
def test_commands_run(page, command):
    """Every `metering-core` command line on the page prints what the page shows."""
    pytest.importorskip("cyclopts")
    received = pages.run(command.line)
    assert pages.is_as_shown(command.expected, received), f"$ {command.line}\n{received}"


@EVERY_PAGE
def test_python_stands_in_sessions(page):
    """Python is shown in sessions only, because nothing else is run."""
    assert not [
        block
        for block in pages.blocks(page.read_text(encoding="utf-8"))
        if block.language in {"python", "py"}
    ]


@EVERY_PAGE
def test_page_reads_without_a_build(page):
    """No page has a role of Sphinx in its sentences: links are Markdown's, as forges show them."""
    assert not re.findall(r"\{\w+\}`", page.read_text(encoding="utf-8"))


@EVERY_PAGE
def test_page_has_one_title(page):
    """A page has one title, which the table of contents shows; the changelog brings its own."""
    prose = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert len(re.findall(r"^# ", prose, flags=re.MULTILINE)) == (
        0 if page.stem == "changelog" else 1
    )


@pytest.mark.parametrize("page", [pages.README, *PAGES], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    """Every relative link on the page names a file of the repository."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_contributing_has_the_tree():
    """CONTRIBUTING.md names every module and wing of the package on its floor, and no other."""
    text = (pages.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"^## The tree$(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)[1]
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    floors = re.findall(r"^\| [^|]+ \| ([^|]+) \| `tests/", tree, flags=re.MULTILINE)
    assert found - {"__init__", "__pycache__"} == set(re.findall(r"`(\w+)/?`", " ".join(floors)))


def error_codes():
    spec = importlib.util.spec_from_file_location("error_codes", pages.DOCS / "error_codes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_error_codes_is_up_to_date():
    """The page has every code once, in order of precedence, as `python docs/error_codes.py`
    writes it.
    """
    page = error_codes().PAGE.read_text(encoding="utf-8")
    assert error_codes().with_table(page) == page, "run python docs/error_codes.py"
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", page, flags=re.MULTILINE)
    assert rows == [(code.value, code.raised_as, code.meaning) for code in ErrorCode]


def test_a_stale_table_is_noticed():
    """The generator restores a row that was changed by hand, and refuses a page without marks."""
    made = error_codes()
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.with_table(page.replace("`id_reused`", "`id_reuse`")) == page
    with pytest.raises(ValueError, match="expected"):
        made.with_table("no marks")


@pytest.mark.parametrize("name", public_names(extras=find_spec("numpy") is not None))
def test_reference_has_every_public_name(name):
    """Every public name has its entry in the API reference."""
    reference = (pages.DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    entry = rf"(auto\w+|py:data):: metering_core\.{name}$"
    assert re.search(rf"^\.\. {entry}", reference, flags=re.MULTILINE)


KEYS_WITHIN_CASES = {
    "rating": {*cases._RATING_LINE},
    "aggregation": {*cases._TIMED_RECORD},
    "append": {*cases._RECEIPT, *cases._ITEM_RECORD},
    "invoice": {*cases._INVOICE_LINE} - {*cases._RATING_LINE},
    "meter": {*cases._METER_EVENT, *cases._SUMMARY},
}


@pytest.mark.parametrize("kind", cases.CASE_KINDS)
def test_reference_has_every_key_of_a_case(kind):
    """The page on the case format names every key of every kind, in the kind's own section."""
    text = (pages.DOCS / "reference" / "case-format.md").read_text(encoding="utf-8")
    section = re.search(rf"^## `{kind}`.*?(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)[0]
    known = cases.CASE_KINDS[kind]
    keys = {*known.keys, *known.expected, *KEYS_WITHIN_CASES.get(kind, ())}
    assert not {key for key in keys if f"`{key}`" not in section}


def test_reference_has_every_command_and_option():
    """The page on the command line has every command with every option, and no other."""
    cli = pytest.importorskip("metering_core.cli.app", exc_type=ImportError)
    text = (pages.DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(
            r"^## `metering-core (\w+).*?`$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL
        )
    )
    described = {
        name: set(re.findall(r"^\| `(--[\w-]+)", section, flags=re.MULTILINE))
        for name, section in sections.items()
    }
    assert described == options(cli.app)


def options(app):
    """Return the options of each command, without those that every command has."""
    return {
        name: {
            argument.name
            for argument in app[name].assemble_argument_collection()
            if argument.name.startswith("--")
        }
        for name in app
        if not name.startswith("-")
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_properties_say_no_type(name):
    """No property begins with words and a colon, which the reference would take for the name of its
    type.
    """
    found = vars(PUBLIC[name]) if isinstance(PUBLIC[name], type) else {}
    properties = [one for one in found.values() if isinstance(one, property)]
    assert not [one.__doc__ for one in properties if ": " in one.__doc__.splitlines()[0]]
