"""Two ways to one answer: the compiled loops where they are installed, pay and are proven exact;
else those of NumPy.

Both give the same numbers, so nothing but the time depends on which of them answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from metering_core.columnar import folding
from metering_core.columnar import totals as numpy_totals
from metering_core.columnar.arrays import INT64_MAX, ORIGIN, Flags
from metering_core.columnar.folding import Cells, Rows
from metering_core.columnar.totals import Totals, Window
from metering_core.measures import AGGREGATORS
from metering_core.prices import AggregateUsage

ENGINE: Final = "columns"
"""What a refusal calls this engine."""

Kind = Literal["sums", "maxima", "lasts"]
"""What computes a mode, by its name in either kernel. A mode without is computed by its own row,
cell by cell.
"""

KINDS: Final[Mapping[AggregateUsage, Kind]] = {
    mode: cast("Kind", row.column)
    for mode, row in AGGREGATORS.items()
    if row.column in get_args(Kind)
}


def kind_of(mode: AggregateUsage) -> Kind | None:
    """Return what computes a mode; None where its own row does, cell by cell."""
    return KINDS.get(mode)


PAYS_FROM: Final = 1 << 21
"""From so many rows on, loading compiled code (half a second, once in a process) costs less than it
saves.
"""

PAYS_ONCE_LOADED_FROM: Final = 1 << 16
"""The same where it has been loaded."""

ITEMS_A_ROW: Final = 1
"""With more items than this for each row, tables of all items would be most of the work."""


@cache
def compiled() -> ModuleType | None:
    """Load the compiled loops; None where the extra is absent."""
    try:
        import_module("numba")
    except ImportError:  # Also where it does not know this version of NumPy or Python.
        return None
    return import_module("metering_core.columnar.compiled.folding")


def pays(rows: int) -> bool:
    """Say whether compiled loops are installed and worth loading for so many rows."""
    least = PAYS_ONCE_LOADED_FROM if compiled.cache_info().currsize else PAYS_FROM
    return 0 < rows >= least and compiled() is not None


def _fast(parts: Sequence[Rows], items: int) -> ModuleType | None:
    """Return the compiled loops where they pay and 64 bits are proven to hold every sum."""
    rows = sum(map(len, parts))
    if items > ITEMS_A_ROW * rows:
        return None
    return compiled() if sum(part.bound for part in parts) <= INT64_MAX and pays(rows) else None


def encoded(pieces: Sequence[Any]) -> tuple[NDArray[np.int32], Any] | None:
    """Return a code for each string, and the distinct strings; None where Arrow must encode."""
    some = [piece for piece in pieces if len(piece)]
    if not pays(sum(map(len, some))):
        return None
    found: tuple[NDArray[np.int32], Any] | None
    found = import_module("metering_core.columnar.compiled.strings").encoded(some)
    return found


def fold(rows: Rows) -> Cells:
    """Fold rows into cells; see :func:`metering_core.columnar.folding.fold`."""
    fast = _fast([rows], int(rows.codes.max()) + 1 if len(rows) else 0)
    found: Cells | None = None if fast is None else fast.fold(rows)
    return folding.fold(rows) if found is None else found


def totals(
    parts: Sequence[Rows], window: Window, asked: Mapping[Kind, Flags]
) -> dict[Kind, Totals]:
    """Return totals of each kind for the items it is asked for, each by one kind."""
    fast = _fast(parts, window.size)
    if fast is not None and len(asked) > 1:
        everything = fast.everything(parts, window)
        if everything is not None:
            return {kind: getattr(everything, kind) for kind in asked}
    return {kind: _total(fast, kind, parts, _only(window, flags)) for kind, flags in asked.items()}


def _total(fast: ModuleType | None, kind: Kind, parts: Sequence[Rows], window: Window) -> Totals:
    found: Totals | None = None if fast is None else getattr(fast, kind)(parts, window)
    slow: Callable[[Sequence[Rows], Window], Totals] = getattr(numpy_totals, kind)
    return slow(parts, window) if found is None else found


def _only(window: Window, flags: Flags) -> Window:
    """Leave the other items out."""
    if flags.all():
        return window
    return Window(np.where(flags, window.lows, INT64_MAX), np.where(flags, window.highs, ORIGIN))
