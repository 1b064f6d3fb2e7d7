"""Each law in one sentence, and what is raised where one does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LAWS: Final = {
    "cells": "Cells are associative, nothing changes none, a set replaces and an increment adds.",
    "aggregators": "Aggregation is associative and commutative: any split of the cells "
    "changes nothing.",
    "appending": "Appending x + y at once equals appending x, then y; what is refused "
    "leaves no trace.",
    "usage": "Usage is what its accepted records say: per timestamp from the last set on, summed, "
    "then aggregated.",
    "engines": "Every engine gives the summaries and the invoices of the log.",
    "retries": "A repeated record changes nothing and is a duplicate, also later; a refused record "
    "claims no id.",
    "late grace": "Within the late grace a record counts as if it had come in time, after "
    "it not; a "
    "closed period stays.",
    "compaction": "A compacted log gives the same summaries, invoices and receipts, or "
    "refuses by name "
    "what it cannot give.",
    "periods": "Periods tile time, and every boundary is computed from the anchor.",
    "rating": "Rating loses no unit, is exact, and gives equal charges for equal quantities.",
    "graduated": "Graduated: one unit more costs its tier's unit amount, plus the flat "
    "amount if it "
    "opens the tier.",
    "volume": "Volume: the whole quantity is charged in the tier of its last unit.",
    "packages": "Packages: the fewest that hold the quantity, or rounded down the most that "
    "it fills, "
    "are charged.",
    "per unit": "Per unit: the quantity times the unit amount, or a percentage of it, and nothing "
    "else, is charged.",
    "settling": "Settling moves an amount by at most half a minor unit, a half away from "
    "zero, credits "
    "as debits.",
    "invoices": "An invoice is the sum of its lines, and each line is settled once from its "
    "own exact "
    "amount.",
    "snapshots": "A restored log equals the one that was stored, answers as it does, and "
    "stores to the "
    "same text.",
    "ambient": "Nothing depends on the ambient decimal context.",
    "formulas": "A formula is a commutative monoid: any split of the events and any order of "
    "the parts "
    "changes nothing.",
    "events": "Appending events x + y at once equals appending x, then y; what is refused "
    "leaves no "
    "trace.",
    "event retries": "An event sent again changes nothing and is a duplicate, also later and "
    "once it is "
    "canceled.",
    "arrival": "The order in which events arrive matters only within one moment, and within "
    "one event "
    "time window.",
    "summaries": "Buckets tile the range, each is what its own range comes to, and "
    "additive formulas "
    "add up to the whole.",
    "cancellations": "A canceled event counts as if it had never come, its identifier stays "
    "taken, and "
    "twice is once.",
    "unbilled": "A billed period stays as it was billed; what comes later is unbilled, to the last "
    "digit.",
    "carrying": "Where late usage is carried, all invoices together charge for a period "
    "what one bill "
    "of all its usage does.",
}
"""Each law in one sentence, by the name that its check raises it under."""


class LawBrokenError(AssertionError):
    """A law does not hold; the message states the law and the counterexample.

    Attributes:
        law: the law's name, a key of :data:`LAWS`.
        counterexample: what happened instead, in words.
    """

    def __init__(self, law: str, counterexample: str) -> None:
        super().__init__(f"{LAWS[law]}\nBut {counterexample}.")
        self.law = law
        self.counterexample = counterexample


def forbid(law: str, is_broken: bool, counterexample: Callable[[], str]) -> None:
    """Raise where a law does not hold; the counterexample is written only then."""
    if is_broken:
        raise LawBrokenError(law, counterexample())
