"""What is written on standard output: tables, JSON and CSV.

Text from files has no power there: none moves a terminal's cursor, and none becomes a formula of a
spreadsheet.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TextIO
from zoneinfo import ZoneInfo

from metering_core.errors import shown
from metering_core.periods import iso_8601

_UNPRINTABLE: Final = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def print_json(data: Mapping[str, Any]) -> None:
    """Print data as JSON that people can read, in which no text has power over a terminal."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    print(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()
) -> None:
    """Print a table: the first column to the left, all others to the right."""
    rows = [header, *rows, *([footer] if footer else [])]
    table = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [_aligned(row, widths) for row in table]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    lines.insert(1, rule)
    if footer:
        lines.insert(-1, rule)
    print(*lines, sep="\n")


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip()


def in_zone(moment: datetime, timezone: str) -> str:
    """Write a moment as the clocks of a zone show it."""
    if timezone == "UTC":
        return iso_8601(moment)
    return moment.astimezone(ZoneInfo(timezone)).isoformat()


def spreadsheet_cell(value: object) -> object:
    """Return what stands in a cell of CSV: text that a spreadsheet would run or read as a date gets
    a leading quote.

    >>> [spreadsheet_cell(one) for one in ("=1+1", "1/12", "-31.5", -2, "Tokens")]
    ["'=1+1", "'1/12", '-31.5', -2, 'Tokens']
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}" if _FORMULA.match(value) or _FRACTION.fullmatch(value) else value


_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")
_FRACTION: Final = re.compile(r"-?[0-9]+/[0-9]+")


def write_csv_rows(stream: TextIO, rows: Sequence[Sequence[object]]) -> None:
    """Write rows of CSV as a spreadsheet may open them."""
    csv.writer(stream, lineterminator="\n").writerows(
        [[spreadsheet_cell(one) for one in row] for row in rows]
    )
