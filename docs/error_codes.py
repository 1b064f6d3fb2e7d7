"""Write the table of error codes into the README and the page on errors.

Run `python docs/error_codes.py`. The table is made from :class:`metering_core.ErrorCode`, between
two marks on each page, so it cannot say anything else.
"""

from __future__ import annotations

from pathlib import Path

from metering_core import ErrorCode

BEGIN = "<!-- error codes: made by docs/error_codes.py -->"
END = "<!-- end of error codes -->"

DOCS = Path(__file__).resolve().parent
PAGES = (DOCS.parent / "README.md", DOCS / "concepts" / "errors.md")


def table() -> str:
    """Return one row a code, in order of precedence."""
    rows = [f"| `{code.value}` | `{code.raised_as}` | {code.meaning} |" for code in ErrorCode]
    return "\n".join(["| code | raised as | meaning |", "| --- | --- | --- |", *rows])


def with_table(page: str) -> str:
    """Return a page's text with the table between its marks brought up to date."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"expected {BEGIN} and then {END} on the page")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
