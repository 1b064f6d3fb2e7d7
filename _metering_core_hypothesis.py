"""The entry point that Hypothesis loads when it is imported: waits for ``metering_core``, then
registers its strategies.

It stands beside the package, because a module inside it could not be loaded without loading the
package. So a test run that has nothing to do with ``metering_core`` pays for this file and nothing
else, and cannot fail for what it did not import.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = "metering_core"


def register() -> None:
    """Register the strategies, now or as soon as the package is imported."""
    if PACKAGE in sys.modules:
        _register_strategies()
    else:
        sys.meta_path.insert(0, _WhenImported())


def _register_strategies() -> None:
    from metering_core.testing import _hypothesis_hook  # noqa: PLC0415 - must not be imported before the package is

    _hypothesis_hook.register()


class _WhenImported(MetaPathFinder):
    """Stands in the way of one import, once: finds the package as anyone would, and registers after
    it has run.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the package through the other finders and append the registration to its
        execution.
        """
        if fullname != PACKAGE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register_strategies()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
