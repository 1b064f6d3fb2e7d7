"""The lines of very many invoices as columns: what :func:`~metering_core.invoice_all` would bill,
without an object a line.

Needs the extra ``columnar``. Quantities are asked of the engine at once and rated price by price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np

from metering_core.aggregation import Usage, require_usage, summarize_all
from metering_core.bulk.rating import RatedLines, exact_array, lines_one_by_one, rate_lines
from metering_core.differences import Difference, differences
from metering_core.exact import Number
from metering_core.invoicing import billed_share, corrections_in, no_corrections
from metering_core.meter_bills import Correction
from metering_core.money import Rounding, half_up, require_rounding
from metering_core.names import each_of, offers
from metering_core.periods import WHOLE, BillingPeriod, Instant, instant
from metering_core.pricing import ChargeKind
from metering_core.rating import Segment, steps_beyond_closed_form
from metering_core.subscriptions import Subscription, SubscriptionItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

Billed = tuple[SubscriptionItem, BillingPeriod]
"""An item and the period that it is billed for."""


class AnswersInColumns(Usage, Protocol):
    """Usage that can say the quantities of many items without an object for each."""

    def total_usage(self, requests: Iterable[Billed]) -> NDArray[Any]:
        """Return the aggregated quantity of each item in its period, in the order asked."""
        ...  # pragma: no cover


@attrs.frozen(eq=False)
class InvoiceLines:
    """Settled lines, column by column, in the order of the subscriptions, their items and the
    tiers.

    Attributes:
        items: what is billed, with the billing period of each. Late usage of an earlier period,
            where the usage bills it, has an item after the one that it is of, with that period and
            the price of then; its lines are the difference.
        total_usage: the whole quantity of each item in its period; negative where a meter's
            corrections exceed its usage, which is billed as 0.
        lines: the lines; ``rows`` counts in ``items``.
    """

    items: tuple[Billed, ...]
    total_usage: NDArray[Any]
    lines: RatedLines

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.lines)


def invoice_lines(
    subscriptions: Iterable[Subscription],
    usage: Usage,
    at: Instant,
    *,
    rounding: Rounding = half_up,
) -> InvoiceLines:
    """Return the lines of each subscription's invoice for the billing period that holds an instant.

    They are the lines of the previews that :func:`~metering_core.invoice_all` returns. A
    subscription that is not alive at the instant has none.

    Args:
        subscriptions: what to bill.
        usage: any engine; it is asked for all usage at once.
        at: an instant in the period of each subscription.
        rounding: how each line is settled; another one than half up is applied line by line.
    """
    when = instant(at, "at")
    require_usage(usage, "usage")
    require_rounding(rounding)
    given = each_of(Subscription, subscriptions, "subscriptions")
    due = [(one, period) for one in given if (period := one.period_at(when)) is not None]
    items = tuple((item, period) for one, period in due for item in one.items)
    # Mostly no period was cut, and asking each item for its share would take a tenth of the time.
    shares = {
        place: share
        for place, (item, period) in enumerate(items)
        if period.cut_from is not None and (share := billed_share(item, period)) is not WHOLE
    }
    whole: dict[int, list[int]] = {}
    prorated: dict[int, list[int]] = {}
    for place, (item, _) in enumerate(items):
        (prorated if place in shares else whole).setdefault(id(item.price), []).append(place)
    by_price = [*whole.values(), *prorated.values()]
    total_usage = _total_usage(items, by_price, usage)
    if steps_beyond_closed_form():
        lines = lines_one_by_one(_bills(due, total_usage), rounding)
    else:
        rated = (_rated(items, places, total_usage, shares, rounding) for places in by_price)
        lines = RatedLines.joined(rated)
    own = InvoiceLines(items, total_usage, lines.in_order())
    corrections = corrections_in(usage, items)
    return (
        own
        if corrections is no_corrections
        else _with_late(own, [corrections(*billed) for billed in items], rounding)
    )


def _bills(
    due: Iterable[tuple[Subscription, BillingPeriod]], total_usage: NDArray[Any]
) -> Iterator[list[Segment]]:
    """Yield what each subscription's bill is made of: a step may look at the whole of it."""
    quantities = iter(total_usage.tolist())
    for subscription, period in due:
        yield [
            Segment(item.price, max(next(quantities), 0), billed_share(item, period))
            for item in subscription.items
        ]


def _with_late(
    own: InvoiceLines, late: Iterable[Sequence[Correction]], rounding: Rounding
) -> InvoiceLines:
    """Put late usage of earlier periods after the item that bills it, each as an item of its own at
    the price of then.
    """
    items: list[Billed] = []
    totals: list[Number] = []
    places: list[int] = []
    found: list[tuple[int, Difference]] = []
    for billed, total, some in zip(own.items, own.total_usage.tolist(), late, strict=True):
        places.append(len(items))
        items.append(billed)
        totals.append(total)
        for one in some:
            found += [(len(items), difference) for difference in differences(one, rounding)]
            items.append((SubscriptionItem(one.subscription_item, one.price), one.period))
            totals.append(one.measured)
    added = RatedLines(
        np.array([place for place, _ in found], np.intp),
        np.array([one.charge.tier or 0 for _, one in found], np.int64),
        np.array([one.charge.kind is ChargeKind.FLAT for _, one in found], np.bool_),
        exact_array([one.charge.quantity for _, one in found]),
        exact_array([one.amount for _, one in found]),
    )
    return InvoiceLines(
        tuple(items),
        exact_array(totals),
        RatedLines.joined([own.lines.of(places), added]).in_order(),
    )


def _total_usage(
    items: Sequence[Billed], by_price: Iterable[list[int]], usage: Usage
) -> NDArray[Any]:
    """Return the quantity of each item: what was used of a metered one, what was agreed of a
    licensed one.
    """
    licensed = {
        place for places in by_price if not items[places[0]][0].is_metered for place in places
    }
    metered = (
        [billed for place, billed in enumerate(items) if place not in licensed]
        if licensed
        else items
    )
    if offers(usage, AnswersInColumns):
        quantities = usage.total_usage(metered)
    else:
        quantities = exact_array([one.total_usage for one in summarize_all(metered, usage)])
    if not licensed:
        return quantities
    used = iter(quantities.tolist())
    return exact_array(
        [
            item.quantity or 0 if place in licensed else next(used)
            for place, (item, _) in enumerate(items)
        ]
    )


def _rated(
    items: Sequence[Billed],
    places: list[int],
    total_usage: NDArray[Any],
    shares: Mapping[int, Fraction],
    rounding: Rounding,
) -> RatedLines:
    """Rate all items of one price, in whole periods or in partial ones; the lines know the places
    of the items among all.

    No quantity is billed below 0.
    """
    quantities = total_usage[places].clip(0)
    if quantities.dtype.kind == "O":  # Another price's quantities may be the reason.
        quantities = exact_array(quantities.tolist())
    price = items[places[0]][0].price
    if places[0] in shares:
        bills = (
            [Segment(price, quantity, shares[place])]
            for place, quantity in zip(places, quantities.tolist(), strict=True)
        )
        return lines_one_by_one(bills, rounding).of(places)
    return rate_lines(price, quantities, rounding=rounding).of(places)
