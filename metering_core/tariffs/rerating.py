"""What a change of price does to the usage of real customers: who pays more, and by how much.

Both sides are the same pure ``rate`` and ``settle`` on the same summaries, so the old side is what
was invoiced.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from datetime import datetime
from fractions import Fraction
from math import ceil, lcm
from typing import Any, Final, Protocol, runtime_checkable

import attrs

from metering_core.aggregation import UsageSummary
from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, shown
from metering_core.exact import Number, exact_integer, plain
from metering_core.money import Money, Rounding, half_up, require_rounding
from metering_core.names import each_of, require_kind
from metering_core.periods import Instant
from metering_core.prices import Price
from metering_core.pricing import is_built_in
from metering_core.rating import settled_total, steps_beyond_closed_form
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.tariffs.comparing import Direction, direction_of, require_one_currency
from metering_core.tariffs.pieces import Line, Piece, tariff

PERCENTILES: Final = (0, 5, 25, 50, 75, 95, 100)
"""The percentiles that a comparison over usage reports."""


@attrs.frozen
class UsageChange(Storable):
    """What one item's usage of one billing period was billed, and what the new price would bill for
    it.

    Attributes:
        subscription_item: the item's id.
        start: the start of the period, UTC, inclusive.
        quantity: the usage of the period, in units.
        old: minor units at the old price, each charge settled.
        new: minor units at the new price, each charge settled.
    """

    computed = ("difference",)

    subscription_item: str
    start: datetime
    quantity: Number
    old: int
    new: int

    @property
    def difference(self) -> int:
        """How much more the new price bills, in minor units; negative where it bills less."""
        return self.new - self.old


@attrs.frozen
class UsageComparison:
    """What a change of price does to usage that happened.

    Attributes:
        old: the price that is left.
        new: the price that is taken.
        changes: one for each summary, in the order given.
    """

    old: Price
    new: Price
    changes: tuple[UsageChange, ...]

    @property
    def old_revenue(self) -> int:
        """What the old price bills for all of it, in minor units."""
        return sum(change.old for change in self.changes)

    @property
    def new_revenue(self) -> int:
        """What the new price bills for all of it, in minor units."""
        return sum(change.new for change in self.changes)

    @property
    def revenue_change(self) -> int:
        """How much more the new price bills for all of it, in minor units."""
        return self.new_revenue - self.old_revenue

    @property
    def counts(self) -> dict[Direction, int]:
        """How many changes are dearer, equal and cheaper."""
        found = [direction_of(Fraction(change.difference)) for change in self.changes]
        return {direction: found.count(direction) for direction in Direction}

    @property
    def percentiles(self) -> dict[int, int]:
        """The difference in minor units at each percentile, by nearest rank, so that some customer
        really sees it.

        Empty where there are no changes.
        """
        ranked = sorted(change.difference for change in self.changes)
        return {
            percent: ranked[max(0, ceil(Fraction(percent * len(ranked), 100)) - 1)]
            for percent in PERCENTILES
            if ranked
        }

    def largest_increases(self, limit: int = 10) -> tuple[UsageChange, ...]:
        """Return the changes by which customers pay most more, largest first; equal ones in the
        order given.
        """
        return self._largest(limit, 1)

    def largest_decreases(self, limit: int = 10) -> tuple[UsageChange, ...]:
        """Return the changes by which customers pay most less, largest first; equal ones in the
        order given.
        """
        return self._largest(limit, -1)

    def _largest(self, limit: int, sign: int) -> tuple[UsageChange, ...]:
        ranked = sorted(self.changes, key=lambda change: -sign * change.difference)
        first = ranked[: exact_integer(limit, "limit")]
        return tuple(change for change in first if sign * change.difference > 0)

    def to_dict(self) -> dict[str, Any]:
        """Write the summary of the comparison for JSON, in minor units; of the changes the ten
        largest on each side.
        """
        return {
            "old": self.old.id,
            "new": self.new.id,
            "currency": self.old.currency,
            "bills": len(self.changes),
            "old_revenue": self.old_revenue,
            "new_revenue": self.new_revenue,
            "revenue_change": self.revenue_change,
            "counts": {direction.value: count for direction, count in self.counts.items()},
            "percentiles": {str(one): change for one, change in self.percentiles.items()},
            "largest_increases": [change.to_dict() for change in self.largest_increases()],
            "largest_decreases": [change.to_dict() for change in self.largest_decreases()],
        }

    def __str__(self) -> str:
        """Return the comparison as sentences, one a line."""
        counts, bills = self.counts, "bill" if len(self.changes) == 1 else "bills"
        directions = [f"{counts[one]:,} {one.value}" for one in reversed(Direction)]
        more = self._money(self.revenue_change)
        revenue = f"{self._money(self.new_revenue)} instead of {self._money(self.old_revenue)}"
        lines = [
            f"{len(self.changes):,} {bills} at {self.new.id} instead of {self.old.id}:",
            f"  revenue {revenue}, a change of {more}",
            f"  {', '.join(directions)}",
        ]
        if self.changes:
            spread = [f"{one}% {self._money(by)}" for one, by in self.percentiles.items()]
            lines.append(f"  differences by percentile: {', '.join(spread)}")
        for change in (*self.largest_increases(), *self.largest_decreases()):
            amounts = f"{self._money(change.new)} instead of {self._money(change.old)}"
            item = f"{change.subscription_item} from {change.start:%Y-%m-%d}"
            lines.append(f"  {item}: {amounts} for {plain(change.quantity)}")
        return "\n".join(map(shown, lines))

    def _money(self, minor_units: int) -> Money:
        return Money(minor_units, self.old.currency)


def compare_usage(
    old: Price, new: Price, summaries: Iterable[UsageSummary], *, rounding: Rounding = half_up
) -> UsageComparison:
    """Return what the usage of each summary is billed at both prices: rated, and each charge
    settled, as an invoice does.

    Args:
        old: the price the usage was billed at. Any pricing model will do here.
        new: another in the same currency.
        summaries: usage by item and billing period; :func:`summaries_at` collects those of a log.
        rounding: how each charge is settled.

    Raises:
        InvalidValueError: ``currency_mismatch``; ``parameter_invalid_object`` for what is no price
            or no summary.
        InvoicingError: ``pricing_model_broken``, as :func:`~metering_core.rate`.
    """
    for param, price in (("old", old), ("new", new)):
        require_kind(Price, price, param)
    require_rounding(rounding)
    require_one_currency(old, new)
    old_bill, new_bill = _biller(old, rounding), _biller(new, rounding)
    changes = []
    for summary in each_of(UsageSummary, summaries, "summaries"):
        quantity = summary.billable_usage
        bills = old_bill(quantity), new_bill(quantity)
        changes.append(UsageChange(summary.subscription_item, summary.start, quantity, *bills))
    return UsageComparison(old, new, tuple(changes))


def _biller(price: Price, rounding: Rounding) -> Callable[[Number], int]:
    """Return :func:`~metering_core.rating.settled_total` for one price; a built-in model and half
    up cost a tenth, in integers.

    A test holds both to each other. A model of the user's own is always asked itself: that it is
    linear is only its word.
    """
    is_known = is_built_in(price.model) and not steps_beyond_closed_form()
    if rounding is not half_up or not is_known:
        return lambda quantity: settled_total(price, quantity, rounding)
    rows = [_settled_row(piece) for piece in tariff(price).pieces]
    firsts = [row[0] for row in rows]

    def bill(quantity: Number) -> int:
        if type(quantity) is not int or quantity < 0:
            return settled_total(price, quantity, rounding)
        first, width, fixed, start, rise, unit = rows[bisect_right(firsts, quantity) - 1]
        return fixed + (start + rise * ((quantity - first) // width)) // unit

    return bill


def _settled_row(piece: Piece) -> tuple[int, int, int, int, int, int]:
    """Return a piece's first quantity, width and settled fixed charges, and its growing one plus a
    half over a denominator.
    """
    growing = piece.growing[0] if piece.growing else Line(Fraction(0), Fraction(0))
    unit = 2 * lcm(growing.start.denominator, growing.rise.denominator)
    start, rise = growing.start * unit + unit // 2, growing.rise * unit
    return piece.first, piece.width, piece.fixed.settled, int(start), int(rise), unit


@runtime_checkable
class KeepsSummaries(Protocol):
    """Usage that can be asked for the summaries of an item: the log, or a view of it."""

    def summaries(self, item_id: str, *, now: Instant) -> list[UsageSummary]:
        """Return the item's summaries, one for each billing period up to ``now``, newest first."""
        ...  # pragma: no cover


def summaries_at(
    price: Price, usage: KeepsSummaries, subscriptions: Iterable[Subscription], *, now: Instant
) -> list[UsageSummary]:
    """Return the summaries of every item that is billed at a price, oldest first within an item.

    The period that holds ``now`` is among them, as a preview would bill it.

    Args:
        price: items whose price equals it are taken.
        usage: the log, or a view of it.
        subscriptions: whose items to look at; ``log.subscriptions`` for all of them.
        now: up to when.

    Raises:
        InvalidValueError: ``parameter_invalid_choice`` where no item has this price.
        InvoicingError: ``price_not_metered`` where the price does not aggregate usage records.
    """
    # A protocol is no class by which mypy could tell the value.
    require_kind(KeepsSummaries, usage, "usage", "a UsageLog or a view of it")
    items = [item for _, item in items_at(price, subscriptions)]
    return [summary for item in items for summary in reversed(usage.summaries(item.id, now=now))]


def items_at(
    price: Price, subscriptions: Iterable[Subscription]
) -> list[tuple[Subscription, SubscriptionItem]]:
    """Return every item that is billed at a price, with its subscription.

    Raises:
        InvalidValueError: ``parameter_invalid_choice`` where there is none.
    """
    require_kind(Price, price, "price")
    given = each_of(Subscription, subscriptions, "subscriptions")
    found = [(one, item) for one in given for item in one.items if item.price == price]
    if not found:
        expected = "the price of an item of the subscriptions"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, "price", expected, price.id
        )
    return found
