"""Strings of Arrow to codes, compiled with Numba (extra ``compiled``), on all cores.

Arrow looks each string up and compares it with the one that it found, which waits for memory row by
row. Here a piece of the column is hashed, then looked up by hash alone, then compared with the
distinct strings, which lie together: three passes in each of which the rows do not wait for one
another. That two strings share what is kept of their hashes is all but impossible; where it
happens, the comparison finds it, and Arrow encodes the column.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.compiled.workers import Column, each_of, jit, workers_for

Array = Any
"""A ``pyarrow.StringArray`` or ``LargeStringArray`` without nulls; pyarrow has no types."""

Strings = tuple[Column, Column, Column]
"""Where each string begins, and the last one ends; the bytes of all; and the eight bytes from each
byte on, as one integer.
"""

Codes = NDArray[np.int32]

TABLE_BITS: Final = 19
"""Bits that number the places of the smallest table of hashes; one that is half full is begun anew,
16 times as large.
"""

_GROWN_BITS: Final = 4
_WORD: Final = np.uint64(8)
_HALF: Final = np.uint64(32)
_ONE: Final = np.uint64(1)
_LOWER: Final = np.uint64(2**32 - 1)
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_MORE: Final = np.uint64(0xC2B2AE3D27D4EB4F)
"""Products with these wrap on purpose: they only choose which strings are compared."""


def _strings_of(array: Array) -> Strings:
    """Return an array as the compiled loops take it, without a copy."""
    _, offsets, content = array.buffers()
    kind = np.int64 if str(array.type) == "large_string" else np.int32
    starts = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(content or b"", np.uint8)
    if len(data) < _WORD:
        data = np.append(data, np.zeros(_WORD, np.uint8))
    return starts, data, np.ndarray((len(data) - 7,), np.uint64, data, strides=(1,))


@jit
def _hash(strings: Strings, hashes: Column) -> None:
    """Hash each string, eight bytes at a time; the last eight may overlap those before."""
    offsets, data, words = strings
    for i in range(len(hashes)):
        at, end = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        h = end - at
        if h >= _WORD:
            while at + _WORD < end:
                h = (h ^ words[at]) * _MIX
                h ^= h >> _HALF
                at += _WORD
            h = (h ^ words[end - _WORD]) * _MIX
        else:
            while at < end:
                h = (h ^ np.uint64(data[at])) * _MIX
                at += _ONE
        h = (h ^ (h >> _HALF)) * _MIX_MORE
        hashes[i] = h ^ (h >> _HALF)


@jit
def _number(hashes: Column, table: Column, known: int, codes: Codes, firsts: Codes) -> int:
    """Give each hash the code of its like, or the next one; note the rows of new ones. Return how
    many codes there are.

    A place of the table holds the upper half of a hash and the code after it, above zero. Return -1
    where it is half full.
    """
    mask = np.uint64(len(table) - 1)
    count = known
    for i in range(len(hashes)):
        h = hashes[i]
        at = h & mask
        while table[at] and (table[at] ^ h) >> _HALF:
            at = (at + _ONE) & mask
        if not table[at]:
            if 2 * count >= len(table):
                return -1
            firsts[count - known] = i
            count += 1
            table[at] = (h >> _HALF << _HALF) | np.uint64(count)
        codes[i] = np.int64(table[at] & _LOWER) - 1
    return count


@jit
def _are_named(strings: Strings, codes: Codes, names: Strings) -> bool:
    """Say whether each string is the name with its code."""
    offsets, data, words = strings
    name_offsets, name_data, name_words = names
    for i in range(len(codes)):
        code = np.uint64(codes[i])
        start, end = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        other, other_end = np.uint64(name_offsets[code]), np.uint64(name_offsets[code + _ONE])
        if end - start != other_end - other:
            return False
        if end - start >= _WORD:
            if words[end - _WORD] != name_words[other_end - _WORD]:
                return False
            while start + _WORD < end:
                if words[start] != name_words[other]:
                    return False
                start += _WORD
                other += _WORD
        else:
            while start < end:
                if data[start] != name_data[other]:
                    return False
                start += _ONE
                other += _ONE
    return True


def encoded(pieces: Sequence[Array]) -> tuple[Codes, Array] | None:
    """Return a code for each string, and the distinct strings that they count in, in the order of
    their first rows.

    There is at least one piece, and none is empty. None where Arrow must encode them.
    """
    strings = [_strings_of(piece) for piece in pieces]
    attempts = (_numbered(strings, bits) for bits in itertools.count(TABLE_BITS, _GROWN_BITS))
    codes, firsts = next(found for found in attempts if found is not None)
    names = import_module("pyarrow").concat_arrays(
        [piece.take(rows) for piece, rows in zip(pieces, firsts, strict=True)]
    )
    named = _strings_of(names)
    found = np.concatenate(codes)
    pairs = list(zip(strings, codes, strict=True))
    are_named = each_of(lambda pair: _are_named(*pair, named), pairs, workers_for(len(found)))
    return (found, names) if all(are_named) else None


def _numbered(strings: Sequence[Strings], bits: int) -> tuple[list[Codes], list[Codes]] | None:
    """Return each piece's codes and rows of new strings; None where the table is too small."""
    table = np.zeros(1 << bits, np.uint64)
    known, codes, firsts = 0, [], []
    for some in strings:
        length = len(some[0]) - 1
        hashes, numbers, rows = (
            np.empty(length, np.uint64),
            np.empty(length, np.int32),
            np.empty(length, np.int32),
        )
        _hash(some, hashes)
        count = _number(hashes, table, known, numbers, rows)
        if count < 0:
            return None
        codes.append(numbers)
        firsts.append(rows[: count - known].copy())
        known = count
    return codes, firsts
