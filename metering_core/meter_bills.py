"""What invoices billed of meters, and by how much that differs from what was measured since.

Usage of a billed period that comes late, or is canceled, is billed as the difference it makes
there: what the period comes to now, at the price under which it was billed, less what was billed
for it (:mod:`metering_core.differences`). The quantity of the period whose invoice says so is not
touched.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

import attrs

from metering_core.codec import Storable
from metering_core.exact import Number, add, subtract
from metering_core.measures import Partial
from metering_core.meters import Formula
from metering_core.periods import BillingPeriod
from metering_core.prices import Price
from metering_core.pricing import Charge

__all__ = ["UnbilledDelta"]


@attrs.frozen
class UnbilledDelta(Storable):
    """By how much what was measured in a billed period differs from what its invoice billed, and no
    later one made good.

    Attributes:
        subscription_item: the id of the item that bills it: the one that was billed, or its heir.
        period: the billed period.
        meter: the id of the meter that measured it.
        billed: the quantity that its invoice billed for this period, without what it carried for
            earlier ones.
        measured: what the events of the period come to now; may be negative.
        carried: how much of the difference later invoices billed.
    """

    subscription_item: str
    period: BillingPeriod
    meter: str
    billed: Number
    measured: Number
    carried: Number = 0

    @property
    def quantity(self) -> Number:
        """Units that no invoice has billed; negative where too many were."""
        return subtract(subtract(self.measured, self.billed), self.carried)


Part = tuple[str, int | None, str | None]
"""What of a price stays itself from one quantity to the next: the kind of charge, the tier's number
and the label.
"""

Settled = Mapping[BillingPeriod, Mapping[Part, int]]
"""What an invoice charged for an item, in minor units, by the period that it was for: its own, and
earlier ones.
"""


@attrs.frozen
class Correction:
    """A billed period whose quantity changed since, for the next invoice to bill the difference.

    Attributes:
        subscription_item: the item's id.
        period: the billed period.
        price: under which it was billed.
        formula: by which its quantity was measured.
        measured: what it comes to now, at least 0.
        billed: the quantity that invoices billed so far; below 0 only where bills of a snapshot of
            version 1 used it up.
        settled: what they charged for it so far, part by part in minor units; None where that is
            not known, because it was closed without an invoice, or billed before a snapshot of
            version 1: it counts as what ``billed`` comes to.
        sequence: the number in the log up to which it was measured.
    """

    subscription_item: str
    period: BillingPeriod
    price: Price
    formula: Formula
    measured: Number
    billed: Number
    settled: Mapping[Part, int] | None = attrs.field(hash=False)
    sequence: int


@attrs.frozen
class Bill:
    """What an invoice counted of one item.

    Attributes:
        meter: the id of the meter that the item was on.
        partial: of the meter's aggregator.
        quantity: what was billed of the period, at least 0.
        carried: how much of which earlier period was billed beside it, as a difference.
        sequence: the number in the log when it was made.
        price: under which it was billed; None for a preview, and in bills of a snapshot of version
            1, where what was carried is a part of the quantity.
        settled: what was charged; None where that is not known.
        made_at: when that was, in Unix microseconds; 0 for a preview.
        number: which of the log's bills it is, from 1; 0 for a preview.
    """

    meter: str
    partial: Partial
    quantity: Number
    carried: Mapping[BillingPeriod, Number] = attrs.field(hash=False)
    sequence: int
    price: Price | None = None
    settled: Settled | None = attrs.field(default=None, hash=False)
    made_at: int = 0
    number: int = 0

    def is_of_the_usage_of(self, other: Bill) -> bool:
        """Whether another bill of the period was made of the same usage: the first invoice of one
        that was closed without.
        """
        return (self.meter, self.sequence) == (other.meter, other.sequence)

    @property
    def is_noted(self) -> bool:
        """Whether it was noted when the period was closed without an invoice; never of a snapshot
        of version 1.
        """
        return self.price is not None and self.settled is None

    def may_be_followed_by(self, other: Bill) -> bool:
        """Whether another bill of the period may replace this one."""
        return self.is_noted or self.is_of_the_usage_of(other)

    def own(self, standing: Container[BillingPeriod]) -> Number:
        """Return what was billed for the period itself.

        Of a bill that counted what it carried in its quantity it is the rest, which is negative
        where it was used up to make good what earlier periods left. What was for a period whose
        bill no longer stands is the period's own then: the new bill of that one knows nothing of
        it.
        """
        if self.price is not None:
            return self.quantity
        return subtract(
            self.quantity, total(of for earlier, of in self.carried.items() if earlier in standing)
        )


_NEVER: Final = -(2**62)


class StandingBills:
    """The bills of an item that stand, and which of them a question for differences need not look
    at again.

    Attributes:
        heirs: who bills for whom, when these bills were gathered.
        bills: as :func:`standing_of` returns them.
    """

    __slots__ = ("_even_until", "_made", "_uneven", "bills", "heirs")

    def __init__(self, heirs: Mapping[str, str]) -> None:
        self.heirs = heirs
        self.bills: dict[BillingPeriod, Bill] = {}
        self._made = 0
        # Up to this moment (Unix seconds) no other periods than these have a difference.
        self._even_until = _NEVER
        self._uneven: list[BillingPeriod] = []

    def take(self, made: Sequence[tuple[BillingPeriod, Bill]]) -> None:
        """Take note of the bills that were made since."""
        last = next(reversed(self.bills), None)
        for period, bill in made[self._made :]:
            if last is not None and period.start < last.end:  # It replaces some.
                self.bills, self._even_until = standing_of(made), _NEVER
                break
            self.bills[period], last = bill, period
        self._made = len(made)

    def change(self, moment: int) -> None:
        """Take note that usage of a moment, in Unix seconds, came or went."""
        self._even_until = min(self._even_until, moment)

    def suspects(self) -> list[BillingPeriod]:
        """Return the periods that may have a difference, in their order."""
        periods = list(self.bills)
        first = bisect_right(periods, self._even_until, key=attrgetter("end_seconds"))
        return [one for one in self._uneven if one.end_seconds <= self._even_until] + periods[
            first:
        ]

    def found(self, uneven: Iterable[BillingPeriod]) -> None:
        """Take note of which periods have one: of all that there are, the others have none."""
        self._uneven = list(uneven)
        self._even_until = next(reversed(self.bills)).end_seconds


def standing_of(made: Iterable[tuple[BillingPeriod, Bill]]) -> dict[BillingPeriod, Bill]:
    """Return the bills that were not replaced, of some in the order in which they were made, in the
    order of their periods.
    """
    standing: list[tuple[BillingPeriod, Bill]] = []
    for period, bill in made:
        standing[replaced(standing, period)] = [(period, bill)]
    return dict(standing)


def part_of(charge: Charge) -> Part:
    """Return which part of its price a charge is."""
    return charge.kind.value, charge.tier, charge.label


def summed(amounts: Iterable[tuple[Part, int]]) -> dict[Part, int]:
    """Return the sum of the amounts of each part."""
    sums: dict[Part, int] = {}
    for part, amount in amounts:
        sums[part] = sums.get(part, 0) + amount
    return sums


def replaced(standing: Sequence[tuple[BillingPeriod, Bill]], period: BillingPeriod) -> slice:
    """Return where those bills stand, of some in the order of their periods, which a bill of a
    period replaces.

    They are the ones that it overlaps: the subscription was cut short or made longer since, and
    nothing is billed twice.
    """
    if not standing or standing[-1][0].end <= period.start:  # As nearly always.
        return slice(len(standing), None)
    first = bisect_right(standing, period.start, key=lambda one: one[0].end)
    return slice(first, bisect_left(standing, period.end, key=lambda one: one[0].start))


def carried_by_period(
    standing: Mapping[BillingPeriod, Bill],
) -> dict[BillingPeriod, list[tuple[BillingPeriod, Bill]]]:
    """Return the bills, of those that stand, that billed a difference, by its period, with that
    period as they knew it.

    A period whose bill was replaced lives on in the one that replaced it, so nothing that was
    billed for it is lost. A bill of a snapshot of version 1 knows no other period than the one that
    it names.
    """
    found: dict[BillingPeriod, list[tuple[BillingPeriod, Bill]]] = {}
    for bill in standing.values():
        for earlier in bill.carried:
            heir = earlier if bill.price is None else _heir(earlier, standing)
            if heir is not None:
                found.setdefault(heir, []).append((earlier, bill))
    return found


def _heir(period: BillingPeriod, standing: Mapping[BillingPeriod, Bill]) -> BillingPeriod | None:
    if period in standing:
        return period
    return next(
        (one for one in standing if one.start < period.end and period.start < one.end), None
    )


def charged(bills: Iterable[tuple[BillingPeriod, Bill]]) -> dict[Part, int] | None:
    """Return what some bills charged for a period each, part by part; None where one of them does
    not know.
    """
    amounts: list[tuple[Part, int]] = []
    for period, bill in bills:
        if bill.settled is None:
            return None
        amounts += bill.settled.get(period, {}).items()
    return summed(amounts)


def total(quantities: Iterable[Number]) -> Number:
    """Return the exact sum."""
    whole: Number = 0
    for quantity in quantities:
        whole = add(whole, quantity)
    return whole
