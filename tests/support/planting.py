"""Planting defects: a slip of the pen in the source of one function, for as long as a test runs.

A bite file lists its defects, gives them to a test with :func:`each`, and says with
:func:`expect_found` what must notice them.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
from functools import cache

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings

HUNT = settings(
    max_examples=2_000,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
"""No search beyond so many examples, the same ones each time, and no shrinking."""


def target_of(path):
    """Return what stands at ``module.name`` or ``module.Class.name``, as it is kept there."""
    names = path.split(".")
    module = next(
        name for length in (1, 2, 3) if (name := ".".join(names[:length])) and has_source(name)
    )
    target = importlib.import_module(f"metering_core.{module}")
    for name in names[module.count(".") + 1 :]:
        target = inspect.getattr_static(target, name)
    return target


def has_source(module):
    """Say whether a name is that of a module, and not of a package."""
    found = importlib.util.find_spec(f"metering_core.{module}")
    return found is not None and not found.submodule_search_locations


def found(path):
    """Return the function at a path, without what decorates it."""
    target = target_of(path)
    return inspect.unwrap(getattr(target, "fget", None) or getattr(target, "__func__", target))


@cache
def source_of(path):
    """Return a function's source. Ask when a test is collected: a file that is edited later would
    give other lines.
    """
    source = textwrap.dedent(inspect.getsource(found(path)))
    return source[source.index("def ") :]


@cache
def as_laid_out(text):
    """Return the pattern of a piece of code however the formatter breaks its lines."""
    lexemes = re.findall(r"\w+|[^\w\s]", text)
    return re.compile(r"\s*".join(r",?\s*" * (one in ")]}") + re.escape(one) for one in lexemes))


def reads(source, right):
    """Say whether a source has a piece of code in it."""
    return as_laid_out(right).search(source) is not None


def with_slip(path, right, wrong):
    """Return the function with the slip in it; where the right text is gone, the defect must be
    planted anew.
    """
    source = source_of(path)
    assert reads(source, right), f"{path} no longer reads {right!r}: plant the defect anew"
    function = found(path)
    names = dict(function.__globals__)
    slipped = as_laid_out(right).sub(lambda _: wrong, source)
    source = f"from __future__ import annotations\n{slipped}"
    exec(compile(source, "<planted>", "exec"), names)  # noqa: S102 - our own source with one slip of the pen
    return names[function.__name__]


def plant(patch, path, right, wrong):
    """Write ``wrong`` where a function reads ``right``; a compiled one is compiled anew."""
    function, broken = found(path), with_slip(path, right, wrong)
    if hasattr(target_of(path), "py_func"):
        module = sys.modules[function.__module__]
        patch.setattr(module, function.__name__, module.jit(broken))
    else:
        patch.setattr(function, "__code__", broken.__code__)


@attrs.frozen
class Defect:
    """A slip of the pen: in the named function, ``right`` is written ``wrong``; the law of that
    name must notice.
    """

    name: str
    law: str
    function: str
    right: str
    wrong: str

    def __str__(self):
        return f"{self.law}: {self.name}"


def forbidden_by(law, *rows, within=""):
    """Return the defects that a law must notice, from rows of name, function, right and wrong."""
    return [
        Defect(name, law, within + function, right, wrong) for name, function, right, wrong in rows
    ]


def slips(text):
    """Return rows for :func:`forbidden_by` from a table: ``function: name``, and indented below
    what is read ``  ->  `` what is written, or two lines where it does not fit one.
    """
    rows = []
    for line in textwrap.dedent(text).strip().splitlines():
        if not line.startswith(" "):
            function, name = line.split(": ", 1)
            rows.append([name, function, ""])
        else:
            rows[-1][2] += line.strip() + " "
    return [
        (name, function, *(part.strip() for part in slip.split("->", 1)))
        for name, function, slip in rows
    ]


def each(defects):
    """Give a test each of these defects. Their sources are asked for now, when the test is
    collected.
    """
    for defect in defects:
        source = source_of(defect.function)
        assert reads(source, defect.right), (
            f"{defect.function} no longer reads {defect.right!r}: plant {defect.name!r} anew"
        )
    return pytest.mark.parametrize("defect", defects, ids=str)


def expect_found(defect, hunt, *errors):
    """Hunt for a defect while it is planted: it must end in one of these errors, and not because
    the slip makes no sense.
    """
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, defect.function, defect.right, defect.wrong)
        with pytest.raises(errors) as found:
            hunt()
    assert not isinstance(found.value, NameError), f"{defect.wrong!r} cannot run: {found.value}"


def hunt_with(arguments, check):
    """Return a hunt: a check of whatever is drawn, which is the same each time."""

    @HUNT
    @given(arguments)
    def hunt(case):
        check(*case)

    return hunt
