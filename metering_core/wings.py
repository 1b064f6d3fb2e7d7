"""How a package gives its names without importing anything before it is asked.

A name stands once: in the ``TYPE_CHECKING`` block of the package, where type checkers read it. The
same block, read as text when the package is imported, says where the name lives; its module is
imported when the name is first used. So importing ``metering_core`` costs next to nothing, and no
second list can differ from the first.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module

_LINE = re.compile(r"^    from (\S+) import \(?\s*(\w+) as \2\b", re.MULTILINE)


def doors(package: str) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a package, which calls this itself.

    Args:
        package: its ``__name__``. Its ``TYPE_CHECKING`` block has lines of the form
            ``from metering_core.module import name as name``; a module of the package itself is
            given, but is none of its names.
    """
    own = sys.modules[package]
    source = own.__spec__.loader.get_source(package)  # type: ignore[union-attr] # File or zip.
    homes: dict[str, str] = {name: home for home, name in _LINE.findall(source)}

    def given(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if home == package:
            return import_module(f"{package}.{name}")
        value = getattr(import_module(home), name)
        setattr(own, name, value)
        return value

    names = sorted(name for name, home in homes.items() if home != package)
    return names, given, lambda: sorted({*vars(own), *homes})
