"""The SQL that judges and folds usage: one text for every engine that speaks SQL, and the same that
an auditor reads.

The texts are files beside this module. They use what DuckDB and Spark 4 (ANSI) share, without
user-defined functions, so neither needs a dialect of its own: quantities are added as ``DECIMAL(38,
0)``, which both refuse to overflow.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

STATEMENTS: Final = ("sifting", "inspecting", "judging", "folding", "numbering")
"""The statements of the kernel, in the order in which an engine runs them."""


@cache
def statement(name: str) -> str:
    """Return one statement of the kernel as it is run; ``name`` is one of :data:`STATEMENTS`."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text("utf-8")


def sql_kernel() -> str:
    """Return the whole kernel as text, with what each statement reads and writes.

    >>> print(sql_kernel().splitlines()[0])
    -- Sifting: which column of a row is the first that is malformed.
    """
    return "\n".join(f"{statement(name).rstrip()};\n" for name in STATEMENTS)
