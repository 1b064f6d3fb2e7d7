"""The SQL that judges and folds usage: one text for every engine that speaks SQL, and the same that
an auditor reads.

The texts are files beside this module. They use what DuckDB and Spark 4 (ANSI) share, without
user-defined functions, so neither needs a dialect of its own: quantities are added as ``DECIMAL(38,
0)``, which both refuse to overflow. The two kinds of usage have rules and words of their own, and
so a judging text each; what was accepted becomes entries of cells, which one text folds.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

from metering_core.names import flag

STATEMENTS: Final = ("sifting", "inspecting", "judging", "entries", "folding", "numbering")
"""The statements for usage records, in the order in which an engine runs them."""

EVENT_STATEMENTS: Final = (
    *("event_sifting", "event_judging", "event_entries"),
    *("folding", "numbering"),
)
"""Those for meter events."""


@cache
def statement(name: str) -> str:
    """Return one statement as it is run; ``name`` is one of those above."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text("utf-8")


def sql_kernel(*, events: bool = False) -> str:
    """Return the whole text for usage records, or for meter events, with what each statement reads
    and writes.

    >>> print(sql_kernel().splitlines()[0])
    -- Sifting: which column of a row is the first that is malformed.
    """
    names = EVENT_STATEMENTS if flag(events, "events") else STATEMENTS
    return "\n".join(f"{statement(name).rstrip()};\n" for name in names)
