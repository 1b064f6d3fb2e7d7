"""JSON from outside, and what is said of it where it is wrong.

Two promises. Nothing is lost without a word: a key that occurs twice is refused, because one of
its values would be. And a complaint speaks the language of the file, not of Python: it names the
place, shows the value as JSON has it and says what was probably meant.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO, cast

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, describe, shown
from metering_core.feeds.formats import UsageFormat, format_by_extension
from metering_core.feeds.instants import likeness
from metering_core.names import path_of

WRITTEN_MAX: Final = 80
"""Characters of a value that a complaint shows."""

# Reading ------------------------------------------------------------------------------------------


def parse_json(text: str) -> Any:
    """Return what a text of JSON says; ValueError for a key that occurs twice and for what is no
    number of JSON.
    """
    return _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def read_json(source: str | PathLike[str] | TextIO, param: str) -> Any:
    """Return the content of a JSON file, given by path or as a text stream; UTF-8, with or without
    a byte order mark.

    ``param`` is what a refusal calls the source.

    Raises:
        CatalogError: ``file_unreadable``; ``details`` has ``path`` and ``line``.
    """
    path, text = _text_of(source, param)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {error.msg} (column {error.colno})"
        if isinstance(format_by_extension(path), UsageFormat):
            reason += ": by its extension it is a file of usage, and CATALOG stands before USAGE"
        raise CatalogError.of_file(param, path, reason, error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise CatalogError.of_file(param, path, f"is not usable JSON: {error}") from None


def _text_of(source: str | PathLike[str] | TextIO, param: str) -> tuple[str, str]:
    """Return what complaints call a source, and its text."""
    if not isinstance(source, str | PathLike):
        path = name_of(stream := stream_of(source, "read", param))
        return path, _read_text(stream.read, path, param)
    path = path_of(source, param)

    def content() -> str:
        refuse_pipe(path, param)
        return Path(path).read_text("utf-8-sig")

    return path, _read_text(content, path, param)


def _read_text(content: Callable[[], str], path: str, param: str) -> str:
    try:
        return content().removeprefix("\ufeff")
    except CatalogError:
        raise
    except UnicodeDecodeError as error:
        meant = written_as(error.object[:4].decode(errors="surrogateescape"))
        line = error.object[: error.start].count(b"\n") + 1
        reason = f"is not UTF-8: {error.reason}{meant}"
        raise CatalogError.of_file(param, path, reason, line) from None
    except (OSError, ValueError) as error:  # Also a path that no system takes, with a NUL in it.
        raise CatalogError.of_file(param, path, unread(error)) from None


def unread(error: Exception) -> str:
    """Say that a file cannot be read, in the words of the system."""
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def refuse_pipe(path: str, param: str) -> None:
    """Refuse a pipe by its own name: reading it may wait for ever. What a shell puts under
    ``/dev/fd`` is read.
    """
    if stat.S_ISFIFO(os.lstat(path).st_mode):
        reason = "cannot be read: expected a file, received a named pipe ('-' reads standard input)"
        raise CatalogError.of_file(param, path, reason)


def stream_of(stream: Any, method: str, param: str) -> TextIO:
    """Return a text stream, or refuse what is none."""
    has_method = not isinstance(stream, type) and hasattr(type(stream), method)
    if isinstance(stream, io.TextIOBase) or has_method:
        return cast("TextIO", stream)
    expected = "a text stream" if param == "stream" else "a path or a text stream"
    raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, stream)


def name_of(stream: TextIO) -> str:
    """Return what complaints call a stream."""
    given = getattr(stream, "name", None)
    return given if isinstance(given, str) else "<stream>"


# Complaints ---------------------------------------------------------------------------------------


def near(word: str, known: Iterable[str]) -> str:
    """Return what was probably meant, as an ending of a sentence."""
    others = [name for name in known if name != word]
    close = difflib.get_close_matches(word, others, n=1, cutoff=0.7)
    return f" (did you mean {close[0]!r}?)" if close else ""


def written_as(beginning: str) -> str:
    """Return what a file looks like that is no UTF-8 text, as an ending of a sentence; its bytes
    were read as they came.
    """
    return next((meant for bytes_read, meant in _NO_TEXT if beginning.startswith(bytes_read)), "")


_NO_TEXT: Final = (
    ("\x1f\udc8b", " (it looks like gzip: unpack it)"),
    ("PK\x03\x04", " (it looks like a spreadsheet or another archive: export CSV from it)"),
    ("PAR1", " (it looks like Parquet: name it .parquet)"),
    (("\udcff\udcfe", "\udcfe\udcff"), " (it looks like UTF-16: write it as UTF-8)"),
)
"""How files begin that are given for text by mistake, as bytes that are no UTF-8 are read."""


def in_json(error: InvalidValueError) -> str:
    """Return what is wrong with a value of a file in the words of JSON and of money, where the
    message has Python's.
    """
    if error.code is ErrorCode.PARAMETERS_EXCLUSIVE and "billing_scheme=per_unit" in error.message:
        return f'{error.message} Tiers go with "billing_scheme": "tiered".'
    if not {"expected", "received"} <= error.details.keys():
        return error.message
    received = error.details["received"]
    written = _written(received)
    if written is None:
        return error.message
    param, expected = error.param or "", str(error.details["expected"]).replace(*_NUMBERS)
    is_instant = error.code is ErrorCode.PARAMETER_INVALID_INSTANT
    meant = likeness(received) if is_instant else _meant(param, received)
    return f"{param}: expected {expected}, received {shown(written)}{meant}"


def _written(value: object) -> str | None:
    """Write a value as JSON has it, cut to a readable length."""
    try:
        written = json.dumps(value, ensure_ascii=False, default=describe)
    except RecursionError:  # Nested as deeply as it could just be read.
        return None
    return written if len(written) <= WRITTEN_MAX else f"{written[: WRITTEN_MAX - 3]}..."


_NUMBERS: Final = (
    " (int, Decimal, Fraction or decimal string)",
    " (an integer, or a decimal in quotes)",
)
"""What Python has for exact numbers, and what JSON has."""


def _meant(param: str, received: object) -> str:
    """Return what to write instead of a value, as an ending of a sentence."""
    key = last_key(param)
    if key == "up_to" and isinstance(received, str) and received.strip().casefold() in _INFINITE:
        return ' (did you mean "inf"?)'
    if not isinstance(received, float):
        return ""
    said = f': a number with a point, write "{received}"'
    if "amount" not in key:
        return said
    decimal = f"{key.removesuffix('_decimal')}_decimal"
    note = "note that amounts are in the currency's minor unit, such as cents"
    return f"{said} as {decimal}, and {note}"


_INFINITE: Final = frozenset({"inf", "infinity", "+inf"})


def last_key(param: str) -> str:
    """Return the innermost key of a path such as ``tiers[2][up_to]``."""
    return re.split(r"[\[\]]+", param.rstrip("]"))[-1]
