"""Texts as a dictionary and codes, so that what is asked of a text is asked once however often it
occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import count
from types import NoneType
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import Column, Flags, held, integers, length_of, rows_of
from metering_core.columns import check_each
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.meters import EVENT_NAME_MAX
from metering_core.names import NAME_MAX, name, optional_name


@attrs.frozen
class Allowed:
    """What the texts of a column may be.

    Attributes:
        check: refuses one by its name, or returns it as it is kept.
        longest: characters that one may have, and each has one or more; None for any.
        is_optional: whether None may stand for a row without one.
    """

    check: Callable[[Any, str], str | None]
    longest: int | None = None
    is_optional: bool = True

    def takes(self, values: Collection[Any]) -> bool:
        """Say whether all are right, much faster than to check each."""
        if not set(map(type, values)) <= ({str, NoneType} if self.is_optional else {str}):
            return False
        lengths = [] if self.longest is None else [len(one) for one in values if one is not None]
        return not lengths or 1 <= min(lengths) <= max(lengths) <= (self.longest or 0)


def _text(value: object, param: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, "a string, or None", value
        )
    return value


def _identifier(value: object, param: str) -> str | None:
    return None if value is None else name(value, param, EVENT_NAME_MAX)


NAMES: Final = Allowed(name, NAME_MAX, is_optional=False)
RECORD_IDS: Final = Allowed(optional_name, NAME_MAX)
IDENTIFIERS: Final = Allowed(_identifier, EVENT_NAME_MAX)
ANY_TEXTS: Final = Allowed(_text)


def identities_of(
    values: Column | None, column: str, allowed: Allowed
) -> Sequence[str | None] | None:
    """Return what rows are known by, None where one is known by nothing; None where all are."""
    if values is None:
        return None
    rows = rows_of(values, column)
    if not allowed.takes(rows):
        rows = check_each(rows, column, allowed.check)
    return rows if any(one is not None for one in rows) else None


@attrs.frozen(eq=False)
class Texts:
    """A column of texts: the distinct ones, in the order of their first row, and which of them each
    row has.

    Attributes:
        names: the distinct texts; None for rows without one.
    """

    names: tuple[Any, ...]
    _codes: NDArray[np.int32] = attrs.field(converter=held)

    @classmethod
    def of(cls, values: Column | Texts, column: str, allowed: Allowed = ANY_TEXTS) -> Texts:
        """Take a column of texts."""
        if isinstance(values, Texts):
            return values
        rows = rows_of(values, column)
        places: dict[Any, int] = {}
        try:
            places = _numbered(rows)
            is_right = allowed.takes(places)
        except Exception:  # noqa: BLE001 - a caller's value may raise anything
            is_right = False
        if not is_right:
            rows = check_each(rows, column, allowed.check)
            places = _numbered(rows)
        return cls(tuple(places), np.fromiter(map(places.__getitem__, rows), np.int32, len(rows)))

    @classmethod
    def counted(
        cls,
        values: Column,
        column: str,
        names: Sequence[str],
        names_column: str,
        allowed: Allowed = ANY_TEXTS,
        *,
        copy: bool = True,
    ) -> Self:
        """Take a column of codes that count in some texts."""
        length_of(names, names_column)
        table = tuple(names)
        if not allowed.takes(table):
            table = tuple(check_each(table, names_column, allowed.check))
        codes = integers(values, column, len(table) - 1)
        return cls(table, np.ascontiguousarray(codes.astype(np.int32, copy=copy)))

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def codes(self) -> NDArray[np.int32]:
        """Which of ``names`` each row has."""
        return held(self._codes)

    def at(self, row: int) -> str | None:
        """Return the text of a row."""
        text: str | None = self.names[int(self._codes[row])]
        return text

    def each(self, says: Callable[[str | None], object]) -> Flags:
        """Return for each row what is true of its text."""
        return np.fromiter(map(says, self.names), np.bool_, len(self.names))[self._codes]


def _numbered(rows: Sequence[Any]) -> dict[Any, int]:
    return dict(zip(dict.fromkeys(rows), count(), strict=False))
