"""Ids, on columns: which rows of a batch come with an id that was seen before, and what it was
first accepted with.

Ids are compared by a hash first, which is sorted; only rows whose hash occurs twice are looked at
one by one, by their true ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.accounts import Sent
from metering_core.columnar.arrays import Flags, Integers
from metering_core.columnar.piles import and_run


@attrs.frozen(eq=False)
class Claims:
    """Accepted ids by their hash, ascending, with what they were accepted with."""

    hashes: Integers
    codes: Integers
    ids: NDArray[np.object_]
    sequences: Integers
    stamps: Integers
    quantities: Integers
    flags: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(
        cls,
        hashes: Integers,
        codes: NDArray[Any],
        ids: NDArray[np.object_],
        sequences: Integers,
        stamps: Integers,
        quantities: Integers,
        flags: NDArray[np.int8],
    ) -> Claims:
        """Sort accepted rows by their hash."""
        order = np.argsort(hashes, kind="stable")
        numbers = (sequences[order], stamps[order], quantities[order])
        return cls(hashes[order], codes[order].astype(np.int64), ids[order], *numbers, flags[order])

    def find(self, hashed: int, code: int, record_id: str) -> Sent | None:
        """Return what an item's id was accepted with."""
        first = int(np.searchsorted(self.hashes, hashed, side="left"))
        last = int(np.searchsorted(self.hashes, hashed, side="right"))
        for place in range(first, last):
            if self.codes[place] == code and self.ids[place] == record_id:
                sequence, stamp, quantity = (
                    int(column[place]) for column in (self.sequences, self.stamps, self.quantities)
                )
                flags = int(self.flags[place])
                return Sent(sequence, stamp, quantity, bool(flags & 1), bool(flags & 2))
        return None


def merged(runs: Sequence[Claims]) -> Claims:
    """Merge sorted runs into one."""
    names = [field.name for field in attrs.fields(Claims)]
    columns = [np.concatenate([getattr(run, name) for run in runs]) for name in names]
    return Claims.of(*columns)


@attrs.frozen(eq=False)
class Identities:
    """All ids that were accepted, as a value.

    Attributes:
        runs: the ids of one batch after the other, merged where they are of like size.
    """

    runs: tuple[Claims, ...] = ()

    def and_those(self, claims: Claims) -> Identities:
        """Return these and a batch's ids."""
        return Identities(and_run(self.runs, claims, merged)) if len(claims) else self

    def find(self, hashed: int, code: int, record_id: str) -> Sent | None:
        """Return what an item's id was accepted with, or None."""
        for run in self.runs:
            found = run.find(hashed, code, record_id)
            if found is not None:
                return found
        return None

    def suspects(self, hashes: Integers) -> Flags:
        """Say which rows may have an id that was accepted, or that another of these rows has; never
        no for one that has.
        """
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        is_twice = ordered[1:] == ordered[:-1]
        twice = np.zeros(len(hashes), np.bool_)
        twice[1:] |= is_twice
        twice[:-1] |= is_twice
        for run in self.runs:
            places = np.searchsorted(run.hashes, ordered)
            twice |= run.hashes[np.minimum(places, len(run) - 1)] == ordered
        flags = np.empty(len(hashes), np.bool_)
        flags[order] = twice
        return flags

    def ids_of(self, code: int) -> dict[int, str]:
        """Return the ids of an item by the number of their record."""
        found: dict[int, str] = {}
        for run in self.runs:
            places = np.flatnonzero(run.codes == code)
            found |= dict(
                zip(run.sequences[places].tolist(), run.ids[places].tolist(), strict=True)
            )
        return found


def hashes_of(codes: NDArray[Any], ids: Sequence[str | None]) -> Integers:
    """Return a hash of item and id for each row; equal ones for equal rows."""
    hashed = np.fromiter(map(hash, ids), np.int64, len(ids)).view(np.uint64)
    # This unsigned product wraps on purpose: it only chooses which rows are compared by their true
    # ids.
    return (hashed ^ (codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))).view(np.int64)
