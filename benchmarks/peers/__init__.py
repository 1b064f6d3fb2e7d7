"""What data engineers would use instead, one file a tool, each query in the idiom of those who know
the tool well.

A peer loads a :class:`~benchmarks.datasets.Dataset` in its native form and offers ways to answer
each question. Columns are ``item`` (a number), ``timestamp`` (Unix seconds), ``quantity``,
``is_set`` and ``seq`` (the order of arrival). Of the records of one item and timestamp, those from
the last ``set`` on count, and are one cell:

* plain sum: what all records of an item add up to, as if nothing were ever set
* sum, max: what the item's cells add up to; the greatest of them
* last: the cell with the greatest timestamp
* every mode: sum, max and last at once

A way returns a table in the tool's own form, whose columns are ``item`` and the quantities; how
that becomes an array to be compared is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final, Protocol

import attrs

from benchmarks.datasets import Dataset, Question

PEERS: Final = {"duckdb": "DuckDB", "polars": "Polars", "pandas": "Pandas"}
"""Peers that are given as many records as this library: module and class."""

SMALL_PEERS: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
"""Peers that are given fewer, so that one can wait for them."""


class UnavailableError(Exception):
    """The tool cannot be measured on this machine; the message says why."""


@attrs.frozen
class Way:
    """One way to answer a question.

    Attributes:
        name: for people.
        prepare: returns what is timed; what it does itself is not.
        answer: turns the result into an array of one row a number and one column an item.
        is_ours: whether it is this library's.
    """

    name: str
    prepare: Callable[[], Callable[[], Any]]
    answer: Callable[[Any], Any]
    is_ours: bool = False


class Peer(Protocol):
    """A tool with usage loaded."""

    def __init__(self, dataset: Dataset) -> None:
        """Load the usage; raises UnavailableError where the tool cannot run here."""

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""

    def close(self) -> None:
        """Give everything back."""


def imported(names: Iterable[str], say: Callable[[str], None]) -> Iterator[tuple[str, Any]]:
    """Yield the modules of the peers that are installed, with their names; say of the others that
    they are not measured.
    """
    for name in names:
        try:
            module = import_module(f"benchmarks.peers.{name}")
        except ModuleNotFoundError as error:
            say(f"  {name} is not measured: {error.name} is not installed")
        else:
            yield name, module


def loaded(
    names: Mapping[str, str], dataset: Dataset, say: Callable[[str], None]
) -> Iterator[Peer]:
    """Yield the peers that can be measured here, with usage loaded; say of the others why they are
    not.
    """
    for name, module in imported(names, say):
        try:
            peer: Peer = getattr(module, names[name])(dataset)
        except UnavailableError as error:
            say(f"  {name} is not measured: {error}")
        else:
            yield peer
