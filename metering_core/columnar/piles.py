"""What grows at its end and is replaced in one assignment, so that what interrupts an append leaves
all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Generic, TypeVar, overload

Element = TypeVar("Element")
Run = TypeVar("Run", bound=Sized)


class Pile(Sequence[Element], Generic[Element]):
    """Elements that only ever grow at their end, as a value: to add one makes another pile, which
    shares those that were there.

    An added element is there once the new pile was kept, which is one assignment. What was added
    and never kept, because something interrupted the caller, is cut off by whoever adds next. So
    add to the newest pile that was kept, and to no other.
    """

    __slots__ = ("_elements", "_length")

    def __init__(self, elements: list[Element] | None = None) -> None:
        self._elements: list[Element] = [] if elements is None else elements
        self._length = len(self._elements)

    def __len__(self) -> int:
        """Return the number of elements."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Element: ...
    @overload
    def __getitem__(self, index: slice) -> list[Element]: ...
    def __getitem__(self, index: int | slice) -> Element | list[Element]:
        """Return one element, or several."""
        if isinstance(index, slice):
            return self._elements[slice(*index.indices(self._length))]
        return self._elements[range(self._length)[index]]

    def __iter__(self) -> Iterator[Element]:
        """Yield the elements in order."""
        return iter(self[:])

    def and_one(self, element: Element) -> Pile[Element]:
        """Return a pile with one more."""
        del self._elements[self._length :]
        self._elements.append(element)
        return Pile(self._elements)


def and_run(
    runs: tuple[Run, ...], run: Run, merge: Callable[[Sequence[Run]], Run]
) -> tuple[Run, ...]:
    """Return sorted runs with one more; those of like size are merged, so that there are few."""
    some = (*runs, run)
    while len(some) > 1 and len(some[-2]) <= 2 * len(some[-1]):
        some = (*some[:-2], merge(some[-2:]))
    return some
