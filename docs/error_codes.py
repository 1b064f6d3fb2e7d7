"""Write the table of error codes into its page of the reference.

Run `python docs/error_codes.py`. The table is made from :class:`metering_core.ErrorCode`, between
two marks on the page, so it cannot say anything else.
"""

from __future__ import annotations

from pathlib import Path

from metering_core import ErrorCode

BEGIN = "<!-- error codes: made by docs/error_codes.py -->"
END = "<!-- end of error codes -->"

PAGE = Path(__file__).resolve().parent / "reference" / "error-codes.md"


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
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
