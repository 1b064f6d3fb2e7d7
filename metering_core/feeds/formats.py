"""Formats of files, told by their extensions: one row of a table each.

Who reads a file asks here what it is. Text is read row by row, here and by every engine; Parquet
by DuckDB alone. A new extension is a row, and what it means stands nowhere else.
"""

from __future__ import annotations

import os
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Final

from metering_core.errors import CatalogError, shown
from metering_core.names import path_of

PARQUET: Final = "parquet"


class UsageFormat(StrEnum):
    """How a file of usage is written."""

    CSV = "csv"
    JSONL = "jsonl"

    @classmethod
    def of_path(cls, path: str | PathLike[str]) -> UsageFormat:
        """Tell the format by the file's extension: ``.csv``, or ``.jsonl`` and ``.ndjson``.

        Raises:
            CatalogError: ``file_unreadable`` for any other extension.
        """
        found = format_by_extension(given := path_of(path, "path"))
        if isinstance(found, cls):
            return found
        *others, last = (one for one, kind in EXTENSIONS.items() if isinstance(kind, cls))
        expected = f"expected the extension {', '.join(others)} or {last}"
        extension = Path(given).suffix.lower()
        meant = _instead(Path(given), extension)
        raise CatalogError.of_file("path", given, f"{expected}, received {extension!r}{meant}")


EXTENSIONS: Final[dict[str, str]] = {
    ".parquet": PARQUET,
    ".csv": UsageFormat.CSV,
    ".jsonl": UsageFormat.JSONL,
    ".ndjson": UsageFormat.JSONL,
}
"""What a file is by its extension, in small letters."""


def format_by_extension(path: str) -> str | None:
    """Return what a file is by its extension: a :class:`UsageFormat`, :data:`PARQUET`, or None."""
    return EXTENSIONS.get(Path(path).suffix.lower())


def _instead(path: Path, extension: str) -> str:
    """Return what works instead of a file that cannot be read, as an ending of a sentence."""
    if extension in {".gz", ".zip", ".bz2", ".xz", ".zst"}:
        return " (compressed text is not read: unpack it, or write Parquet, which is compressed)"
    if os.path.isdir(path):  # noqa: PTH112 - it refuses no path, whatever stands in it
        globs = ", ".join(f"'{shown(str(path))}/*{one}'" for one in (".parquet", ".csv"))
        return f" (a folder is read by a glob: {globs})"
    if EXTENSIONS.get(extension) == PARQUET:
        return " (Parquet is read as USAGE of `metering-core invoice`, and by metering_core.sql)"
    return ""
