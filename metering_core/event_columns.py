"""Accepted meter events as columns: 36 bytes an event beside its value, and no object per event."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from metering_core.exact import Number


class EventColumns:
    """Accepted events in the order of arrival. A row is a position in the columns.

    Attributes:
        codes: which series, as the log counts them.
        moments: Unix microseconds.
        received: Unix microseconds.
        sequences: the numbers that the log gave.
        values: what the formula works on.
        append: keeps one event (code, moment, received, sequence, value).
    """

    __slots__ = ("append", "codes", "moments", "received", "sequences", "values")

    def __init__(self) -> None:
        self.codes = array("i")
        self.moments = array("q")
        self.received = array("q")
        self.sequences = array("q")
        self.values: list[Number | str] = []
        # A closure over the columns' own methods because it is called for every single event.
        add_code, add_moment, add_received = self.codes.append, self.moments.append, self.received.append
        add_sequence, add_value = self.sequences.append, self.values.append

        def append(code: int, moment: int, received: int, sequence: int, value: Number | str) -> None:
            add_code(code)
            add_moment(moment)
            add_received(received)
            add_sequence(sequence)
            add_value(value)

        self.append = append

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    def extend(self, codes: Iterable[int], moments: Iterable[int], received: int, first: int, values: list[int]) -> None:
        """Keep a batch that arrived at one moment; its numbers go on from ``first``."""
        length = len(values)
        self.codes.extend(codes)
        self.moments.extend(moments)
        self.received.extend(array("q", [received]) * length)
        self.sequences.extend(range(first, first + length))
        self.values.extend(values)
