"""What users test their prices with: Hypothesis strategies, the laws of billing, worked cases.

``laws`` and ``cases`` need nothing but the library; ``strategies`` and
``conformance`` need the extra ``hypothesis``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from metering_core.errors import MissingExtraError

_NEEDS_HYPOTHESIS = frozenset({"conformance", "strategies"})
_MODULES = _NEEDS_HYPOTHESIS | {"cases", "laws"}


def __getattr__(name: str) -> ModuleType:
    """Import a module of this package when it is first asked for.

    Raises:
        MissingExtraError: ``extra_missing`` for ``strategies`` and ``conformance`` where Hypothesis
            is not installed.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """Return the modules that can be asked for."""
    return sorted(_MODULES)


def require_hypothesis(module: str = "metering_core.testing.strategies") -> None:
    """Refuse to go on without Hypothesis, and name the extra that brings it.

    Args:
        module: what needs it, as the message says.

    Raises:
        MissingExtraError: ``extra_missing``.
    """
    try:
        import_module("hypothesis")
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise MissingExtraError.for_extra("hypothesis", module) from error
