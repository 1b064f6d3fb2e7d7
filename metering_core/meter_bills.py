"""What invoices billed of meters, and by how much that differs from what was measured since."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence

import attrs

from metering_core.aggregators import Partial
from metering_core.exact import Number, add, subtract
from metering_core.periods import BillingPeriod


@attrs.frozen
class UnbilledDelta:
    """By how much what was measured in a billed period differs from what its invoice billed, and no later one made good.

    Attributes:
        subscription_item: the item's id.
        period: the billed period.
        meter: the id of the meter that measured it.
        billed: the quantity that its invoice billed for this period, without what it carried for earlier ones.
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


@attrs.frozen
class Bill:
    """What an invoice counted of one item.

    Attributes:
        meter: the id of the meter that the item was on.
        partial: of the meter's aggregator.
        quantity: what was billed, at least 0.
        carried: how much of it was for which earlier period.
        sequence: the number in the log when it was made.
        made_at: when that was, in Unix microseconds; 0 for a preview.
        number: which of the log's bills it is, from 1; 0 for a preview.
    """

    meter: str
    partial: Partial
    quantity: Number
    carried: Mapping[BillingPeriod, Number] = attrs.field(hash=False)
    sequence: int
    made_at: int = 0
    number: int = 0

    def own(self, standing: Container[BillingPeriod]) -> Number:
        """Return what was billed for the period itself; negative where it was used up to make good what earlier ones left.

        What was for a period whose bill no longer stands is the period's own: the new bill of that one knows nothing of it.
        """
        return subtract(self.quantity, total(of for earlier, of in self.carried.items() if earlier in standing))


def replaced(standing: Sequence[tuple[BillingPeriod, Bill]], period: BillingPeriod) -> slice:
    """Return where those bills stand, of some in the order of their periods, which a bill of a period replaces.

    They are the ones that it overlaps: the subscription was cut short or made longer since, and nothing is billed twice.
    """
    if not standing or standing[-1][0].end <= period.start:  # As nearly always.
        return slice(len(standing), None)
    first = bisect_right(standing, period.start, key=lambda one: one[0].end)
    return slice(first, bisect_left(standing, period.end, key=lambda one: one[0].start))


def total(quantities: Iterable[Number]) -> Number:
    """Return the exact sum."""
    whole: Number = 0
    for quantity in quantities:
        whole = add(whole, quantity)
    return whole
