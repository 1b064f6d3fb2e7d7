"""What the package makes public: the names of its root, and of each module that lists its own."""

import ast
from importlib import import_module
from pathlib import Path

import metering_core as mc

PACKAGE = Path(mc.__path__[0])
NEEDS_EXTRA = {"bulk", "columnar", "sql"}
"""The wings that stand on an extra: what they make public is asked for where it is installed."""


def modules_with_names():
    """Yield every module but the root that says what is public in it, found without importing."""
    for path in sorted(PACKAGE.rglob("*.py")):
        says = any(
            isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0])
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        module = module.removesuffix("__init__").rstrip(".")
        if says and module:
            yield module


def public_names(*, extras=False):
    """Return the address within the package of each public name and what it is: the root's own
    first, and nothing twice.
    """
    found = {name: getattr(mc, name) for name in mc.__all__}
    for module in modules_with_names():
        if extras or module.partition(".")[0] not in NEEDS_EXTRA:
            given = import_module(f"metering_core.{module}")
            found |= {
                f"{module}.{name}": getattr(given, name)
                for name in given.__all__
                if name not in found
            }
    return found


PUBLIC = public_names()
