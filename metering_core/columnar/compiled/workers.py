"""How loops are compiled, and workers that do some of their tasks at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
Given = ParamSpec("Given")
Returned = TypeVar("Returned")
Task = TypeVar("Task")

SHARED_FROM: Final = 1 << 18
"""From so many rows on, workers share them; fewer are done before a second one has begun."""

_LINE: Final = 128
"""Bytes that cores take from each other as one: a line of the cache, and its neighbour that is
fetched with it.
"""


def jit(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Compile a function at its first call, without the interpreter's lock; kept on disk."""
    try:
        compiled: Callable[Given, Returned] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # No folder that could be written to: compiled anew in each process.
        compiled = numba.njit(nogil=True)(function)
    return compiled


def workers_for(rows: int) -> int:
    """Return how many workers some rows are worth."""
    if rows < SHARED_FROM:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Each(Protocol):
    """Does some tasks, several at a time."""

    def __call__(
        self, work: Callable[[Task], Returned], tasks: Sequence[Task], /
    ) -> list[Returned]:
        """Return the results in the order of the tasks."""


@contextmanager
def working(workers: int) -> Iterator[Each]:
    """Keep some workers for several steps: to start one takes longer than many a step of it."""
    if workers == 1:
        yield lambda work, tasks: list(map(work, tasks))
        return
    with ThreadPoolExecutor(workers) as pool:
        yield lambda work, tasks: list(pool.map(work, tasks))


def each_of(
    work: Callable[[Task], Returned], tasks: Sequence[Task], workers: int
) -> list[Returned]:
    """Do the tasks of a single step."""
    with working(max(min(workers, len(tasks)), 1)) as each:
        return each(work, tasks)


def apart(table: Column) -> Column:
    """Return a copy of a table no rows of which share a line of the cache."""
    rows, columns = table.shape
    roomy = np.zeros((rows, columns + _LINE // table.itemsize), table.dtype)[:, :columns]
    roomy[:] = table
    return roomy
