"""Which customers and dimension values occur together: each such series numbered as it came, and
put into groups.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Final, overload

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.arrays import Integers, own
from metering_core.columnar.texts import Texts

Label = tuple[str, tuple[str, ...]]
"""A customer and the values of some dimensions."""

_ROOMY: Final = 2
"""Numbers are kept as they are where there may be at most so many for each row; else only those
that occur.
"""


@attrs.frozen(eq=False)
class Labels(Sequence[Label]):
    """The customer and the values of some dimensions of each group, column by column; one is put
    together when looked at.

    Attributes:
        names: the distinct texts of each column; customers come first.
        codes: which of them each group has.
    """

    names: Sequence[Sequence[str]]
    codes: Sequence[NDArray[np.int32]]

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.codes[0])

    @overload
    def __getitem__(self, index: int) -> Label: ...
    @overload
    def __getitem__(self, index: slice) -> list[Label]: ...
    def __getitem__(self, index: int | slice) -> Label | list[Label]:
        """Return one label, or several."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        customer, *values = (
            names[codes[index]] for names, codes in zip(self.names, self.codes, strict=True)
        )
        return customer, tuple(values)


class SeriesCodes:
    """The series of one meter, numbered in the order in which they came.

    Args:
        dimensions: how many dimension keys the meter has.

    Attributes:
        names: the distinct customers, and then the values of each dimension, in the order in which
            they came.
    """

    def __init__(self, dimensions: int) -> None:
        self.names: list[list[str]] = [[] for _ in range(1 + dimensions)]
        self._places: list[dict[str, int]] = [{} for _ in self.names]
        # Which of the names each series has, column by column; the other way round; and the series
        # of each customer.
        self._codes = [array("i") for _ in self.names]
        self._numbers: dict[tuple[int, ...], int] = {}
        self._of_customers: list[list[int]] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, customer: str) -> Sequence[int]:
        """Return the series of a customer."""
        place = self._places[0].get(customer)
        return () if place is None else self._of_customers[place]

    def label(self, number: int) -> tuple[str, ...]:
        """Return the customer and the dimension values of a series."""
        columns = zip(self.names, self._codes, strict=True)
        return tuple(names[codes[number]] for names, codes in columns)

    def take(self, columns: Sequence[Texts], rows: Integers | None) -> NDArray[np.int32]:
        """Return which series some rows (None: all) are of; new ones are numbered as they come."""
        own_codes = (own(column, "codes") for column in columns)
        codes = [one if rows is None else one[rows] for one in own_codes]
        combined, size = _combined(codes, [len(column.names) for column in columns])
        firsts = np.full(size, len(combined), np.int64)
        firsts[combined[::-1]] = np.arange(
            len(combined) - 1, -1, -1
        )  # Of rows that are alike the last assignment stays.
        firsts = np.sort(firsts[firsts < len(combined)])
        named = [self._named(at, column, codes[at][firsts]) for at, column in enumerate(columns)]
        table = np.empty(size, np.int32)
        table[combined[firsts]] = self._numbered(named)
        found: NDArray[np.int32] = table[combined]
        return found

    def _named(self, at: int, column: Texts, codes: NDArray[np.int32]) -> list[int]:
        """Return which of the names the texts of a column are."""
        names, places, given = self.names[at], self._places[at], codes.tolist()
        for code in dict.fromkeys(given):
            text = column.names[code]
            assert text is not None, "accepted events have a customer and every dimension"
            if text not in places:
                places[text] = len(names)
                names.append(text)
        known = {code: places[column.names[code] or ""] for code in set(given)}
        return [known[code] for code in given]

    def _numbered(self, columns: list[list[int]]) -> list[int]:
        """Return the numbers of series, all different, by their names in each column."""
        numbers, before = self._numbers, len(self)
        found = [numbers.setdefault(key, len(numbers)) for key in zip(*columns, strict=True)]
        are_new = [number >= before for number in found]
        for column, codes in zip(self._codes, columns, strict=True):
            column.extend(compress(codes, are_new))
        self._of_customers += [[] for _ in range(len(self.names[0]) - len(self._of_customers))]
        for number, customer in enumerate(compress(columns[0], are_new), before):
            self._of_customers[customer].append(number)
        return found

    def groups(
        self, allowed: Mapping[int, frozenset[str]], keys: Sequence[int]
    ) -> tuple[NDArray[np.int32] | None, Labels]:
        """Return which group each series is in, and the label of each group, in the order of
        customers and of the values.

        A group is a customer and the values of ``keys``; -1 for a series that a filter leaves out.
        None where each series is a group of its own.

        Args:
            allowed: the values that a filter lets through, by column; dimensions are counted from
                1.
            keys: the columns of the dimensions.
        """
        codes = [np.array(column, np.int32) for column in self._codes]
        if len(codes) == 1:
            return None, Labels([tuple(self.names[0])], codes)
        is_in = np.ones(len(self), np.bool_)
        for at, some in allowed.items():
            is_in &= np.array([name in some for name in self.names[at]], np.bool_)[codes[at]]
        chosen, columns = np.flatnonzero(is_in), [0, *keys]
        ordered = [codes[0][chosen], *(_ranks(self.names[at])[codes[at][chosen]] for at in keys)]
        combined, size = _combined(ordered, [len(self.names[at]) for at in columns])
        occurs = np.zeros(size, np.bool_)
        occurs[combined] = True
        found = np.full(len(self), -1, np.int32)
        found[chosen] = (np.cumsum(occurs) - 1)[combined]
        members = np.empty(np.count_nonzero(occurs), np.int64)
        members[found[chosen]] = chosen
        return found, Labels(
            [tuple(self.names[at]) for at in columns], [codes[at][members] for at in columns]
        )


def _combined(columns: Sequence[NDArray[np.int32]], sizes: Sequence[int]) -> tuple[Integers, int]:
    """Return a number for each row that tells its codes in all columns, and in their order; and how
    many there may be.

    Args:
        columns: codes from 0.
        sizes: how many codes there may be in each column.
    """
    combined, size = np.zeros(len(columns[0]), np.int64), 1
    for column, more in zip(columns, sizes, strict=True):
        combined, size = combined * more + column, size * more
        if size > _ROOMY * len(combined) + 1024:
            found, combined = np.unique(combined, return_inverse=True)
            size = len(found)
    return combined, size


def _ranks(names: Sequence[str]) -> NDArray[np.int32]:
    """Return where each name would be if they were sorted."""
    ranks = np.empty(len(names), np.int32)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return ranks
