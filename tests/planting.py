"""Planting defects: a slip of the pen in the source of one function, for as long as a test runs."""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from functools import cache

from hypothesis import HealthCheck, Phase, settings

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
    module = next(name for length in (1, 2) if (name := ".".join(names[:length])) and has_source(name))
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
    """Return a function's source. Ask when a test is collected: a file that is edited later would give other lines."""
    source = textwrap.dedent(inspect.getsource(found(path)))
    return source[source.index("def ") :]


def with_slip(path, right, wrong):
    """Return the function with the slip in it; where the right text is gone, the defect must be planted anew."""
    source = source_of(path)
    assert right in source, f"{path} no longer reads {right!r}: plant the defect anew"
    function = found(path)
    names = dict(function.__globals__)
    source = "from __future__ import annotations\n" + source.replace(right, wrong)
    exec(compile(source, "<planted>", "exec"), names)  # noqa: S102 - our own source with one slip of the pen
    return names[function.__name__]


def plant(patch, path, right, wrong):
    """Write ``wrong`` where a function reads ``right``; a compiled one is compiled anew."""
    function, broken = found(path), with_slip(path, right, wrong)
    if hasattr(target_of(path), "py_func"):
        module = sys.modules[function.__module__]
        patch.setattr(module, function.__name__, module._jit(broken))
    else:
        patch.setattr(function, "__code__", broken.__code__)
