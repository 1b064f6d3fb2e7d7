"""Lint as tests, after TigerBeetle's tidy: each failure says what to write instead."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from places import ROOT_FOLDER
from public_names import modules_with_names, public_names

import metering_core
from metering_core.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = ROOT_FOLDER / "tests"
# The package that is imported, so that the same checks hold for an installed wheel.
PACKAGE = Path(metering_core.errors.__file__).resolve().parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FUNCTION_LINES_MAX = 40
ROOT_NAMES_MAX = 55

BANNED = {
    "scaleb": "use EXACT.scaleb in exact.py or money.py: the method rounds to the "
    "ambient 28 digits",
    "quantize": "use settle(): money.py is the one place that rounds",
    "round": "use settle(): money.py is the one place that rounds",
    "float": "use exact_decimal() or exact_integer(): a float has already lost what it meant",
    "datetime.now": "take `now` as an argument",
    "datetime.utcnow": "take `now` as an argument",
    "time.time": "take `now` as an argument",
    "getcontext": "use EXACT: nothing reads the ambient decimal context",
}
OWNERS = {
    "scaleb": {"exact.py", "money.py"},
    "quantize": {"exact.py", "money.py"},
    "datetime.now": {"cli/options.py"},
    "float": {"tariffs/plotting.py"},
}


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def where(file: Path, line: int) -> str:
    return f"{file.relative_to(file.parents[1])}:{line}"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def mentions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every dotted name, and every plain name that is called: `isinstance(x, float)` is no
    call of float.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node), node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def is_banned(name: str, banned: str) -> bool:
    # A builtin is banned by its bare name only: `round` is also a field of Stripe's.
    return name == banned or (not hasattr(builtins, banned) and name.endswith("." + banned))


def violations(tree: ast.Module, file: Path) -> list[str]:
    return [
        f"{where(file, line)}: {name}: {instead}"
        for name, line in mentions(tree)
        for banned, instead in BANNED.items()
        if is_banned(name, banned) and str(file.relative_to(PACKAGE)) not in OWNERS.get(banned, ())
    ]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines that do something: without the signature and the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_banned_call(file):
    """A module rounds, floats or reads the machine's clock only if that is what the module
    is for.
    """
    found = violations(parse(file), file)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "x.scaleb(2)",
        "round(x)",
        "float(x)",
        "datetime.datetime.now()",
        "clock = time.time",
        "decimal.getcontext()",
    ],
)
def test_banned_calls_are_noticed(source):
    """The search finds a banned call in its usual spellings, also where it is passed on
    uncalled.
    """
    assert violations(ast.parse(source), PACKAGE / "log.py")


def test_fields_named_like_builtins_are_no_calls():
    """A field that is called `round` is not rounding."""
    assert not violations(ast.parse("self.round"), PACKAGE / "log.py")


def test_functions_fit_on_a_screen():
    """No function of the package is longer than 40 lines, signature and docstring apart."""
    long = [
        f"{where(file, function.lineno)}: {function.name} has {length(function)} lines: "
        "split it at its ideas"
        for file in MODULES
        for function in functions(parse(file))
        if length(function) > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_every_test_says_what_it_shows():
    """Every test has a docstring, which is the behaviour it shows."""
    silent = [
        f"{where(file, function.lineno)}: {function.name}: state the behaviour in a docstring"
        for file in sorted(TESTS.rglob("*.py"))
        for function in functions(parse(file))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert not silent, "\n".join(silent)


def test_imports_point_down():
    """The import contracts in pyproject.toml hold."""
    pytest.importorskip("importlinter")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("word", ["util", "helper", "manager", "common", "misc"])
def test_modules_are_named_by_the_field(word):
    """No module has a name that could hold anything."""
    assert not [file.name for file in MODULES if word in file.stem], (
        "name the module after the one idea it holds"
    )


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_is_tested(code):
    """Every error code is named in a test or a case, whether by its value or by its member's
    name.
    """
    named = re.compile(rf"\b({code.value}|{code.name})\b")
    files = [
        file
        for file in TESTS.rglob("*")
        if file.suffix in {".py", ".json"} and file != Path(__file__).resolve()
    ]
    assert any(named.search(file.read_text(encoding="utf-8")) for file in files), (
        f"show when {code.value} is raised"
    )


def test_public_names_are_sorted():
    """Each list of public names is sorted and names nothing twice."""
    for module in ["", *modules_with_names()]:
        names = import_module(f"metering_core.{module}".rstrip(".")).__all__
        assert list(names) == sorted(set(names)), module


def test_the_root_has_what_most_people_need():
    """About fifty names are at the root; the rest is in the modules that it names."""
    assert len(metering_core.__all__) <= ROOT_NAMES_MAX


def test_public_names_are_documented():
    """Every public class and function exists and has a docstring."""
    described = (inspect.isclass, inspect.isfunction)
    silent = [
        name
        for name, value in public_names(extras=find_spec("numpy") is not None).items()
        if any(kind(value) for kind in described) and not inspect.getdoc(value)
    ]
    assert not silent, f"write docstrings for {silent}"


@pytest.mark.parametrize("package", ["", ".stripe", ".feeds", ".tariffs", ".bulk"])
def test_a_package_has_names_and_no_logic(package):
    """A package gives what type checkers read in it, imports it on first use, and refuses the
    rest.
    """
    wing = import_module(f"metering_core{package}")
    assert not list(functions(parse(Path(wing.__file__))))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = wing.nonsense
    assert set(wing.__all__) <= set(dir(wing))
    needs_numpy = package == ".bulk"
    assert needs_numpy > (find_spec("numpy") is not None) or all(
        getattr(wing, name) is not None for name in wing.__all__
    )


def test_a_sample_of_the_slow_tests_can_be_taken():
    """What CI runs of the slow tests is collected: of one file at least its first slow test, and
    the others are left out.
    """
    asked = [
        "-m",
        "slow",
        "--slow-sample=1000000",
        str(TESTS / "usage" / "test_meter_laws_bite.py"),
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        *asked,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"1/\d+ tests collected", done.stdout), done.stdout
