"""From usage to one quantity, whatever holds the usage.

:class:`Usage` is the seam between engines and bills: give me the partial of this item in this
period. From :func:`summarize` on there is one implementation.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Protocol, runtime_checkable

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import Number
from metering_core.measures import AGGREGATORS, Aggregator, Partial, formula_of
from metering_core.meters import Formula, Meter
from metering_core.names import offers, require_iterable, require_kind, require_offer
from metering_core.periods import BillingPeriod
from metering_core.prices import AggregateUsage
from metering_core.subscriptions import SubscriptionItem

_PAIR: Final = (tuple, list)


def aggregator_of(item: SubscriptionItem) -> Aggregator:
    """Return the aggregator of an item; errors as :func:`required_mode`."""
    return AGGREGATORS[required_mode(item)]


def required_mode(item: SubscriptionItem) -> AggregateUsage:
    """Return the aggregation mode of an item whose quantity comes from usage records.

    Raises:
        InvoicingError: ``price_not_metered`` where it does not.
    """
    mode = item.recurring.aggregate_usage
    if mode is None:
        is_on = "on a meter: a MeterLog has its usage" if item.is_metered else "licensed"
        message = (
            "subscription_item: expected an item whose price aggregates usage records, "
            f"received {item.id!r}, whose price {item.price.id!r} is {is_on}"
        )
        raise InvoicingError(ErrorCode.PRICE_NOT_METERED, message, param="subscription_item")
    return mode


@runtime_checkable
class Usage(Protocol):
    """Where usage comes from (log, view, columns, files): the seam of engines and bills."""

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator over its cells in ``[period.start,
        period.end)``.

        For a mode that looks back, the cells of all earlier periods are included.
        """
        ...  # pragma: no cover

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        ...  # pragma: no cover


class KnowsMeters(Protocol):
    """Usage that is measured by meters, and can say by which."""

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names."""
        ...  # pragma: no cover


@attrs.frozen
class UsageSummary(Storable):
    """The usage of one item in one billing period, in the shape of Stripe's usage record summary.

    Attributes:
        subscription_item: the item's id.
        aggregate_usage: the mode, or the meter's formula, by which the usage became one quantity.
        start: start of the period, inclusive.
        end: end of the period, exclusive; None while it is open.
        total_usage: the aggregated quantity, in units; negative where a meter's corrections exceed
            its usage. A level that is averaged over time is averaged over the whole billing period,
            also where a subscription cut it.
        invoice: the id of the finalized invoice that billed it; None before.
    """

    subscription_item: str
    aggregate_usage: AggregateUsage | Formula
    start: datetime
    end: datetime | None
    total_usage: Number
    invoice: str | None = None

    @property
    def billable_usage(self) -> Number:
        """The quantity that an invoice bills, which is never below 0."""
        return max(self.total_usage, 0)


def summarize(item: SubscriptionItem, usage: Usage, period: BillingPeriod) -> UsageSummary:
    """Return the usage of an item in a period as one quantity, whatever engine holds the usage.

    A period of a subscription's own (``period_at``, ``periods_from``) knows which whole billing
    period it was cut from; one that was made of a start and an end is whole.

    Raises:
        InvoicingError: ``price_not_metered`` where the item's price does not aggregate usage
            records.
    """
    require_kind(SubscriptionItem, item, "item")
    require_kind(BillingPeriod, period, "period")
    (summary,) = summarize_all([(item, period)], require_usage(usage))
    return summary


def require_usage(usage: Usage, param: str = "usage") -> Usage:
    """Return what can be asked for usage; else refuse with ``parameter_invalid_object``."""
    return require_offer(Usage, usage, param, "a Usage, such as a UsageLog or a MeterLog")


def as_requests(
    requests: Iterable[tuple[SubscriptionItem, BillingPeriod]],
) -> list[tuple[SubscriptionItem, BillingPeriod]]:
    """Return what an engine is asked for, or refuse by its place what is no (item, period)."""
    if _are_requests(requests):
        return list(requests)
    asked = []
    for at, pair in enumerate(require_iterable(requests, "requests")):
        is_pair = isinstance(pair, _PAIR) and len(pair) == 2
        if not (
            is_pair and isinstance(pair[0], SubscriptionItem) and isinstance(pair[1], BillingPeriod)
        ):
            expected = "a SubscriptionItem and a BillingPeriod"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, f"requests[{at}]", expected, pair
            )
        asked.append(pair)
    return asked


def _are_requests(requests: Iterable[Any]) -> bool:
    """Say whether all are such pairs, but not which is none; faster than a look at each."""
    if type(requests) not in _PAIR or not set(map(type, requests)) <= {tuple}:
        return False
    try:
        are = [
            type(item) is SubscriptionItem and type(period) is BillingPeriod
            for item, period in requests
        ]
    except ValueError:  # One of them is no pair.
        return False
    return all(are)


def summarize_all(
    requests: Iterable[tuple[SubscriptionItem, BillingPeriod]], usage: Usage
) -> list[UsageSummary]:
    """Return what :func:`summarize` returns for each request, asking the engine once."""
    meters = usage if offers(usage, KnowsMeters) else None
    asked = [(item, period, *_row_of(item, meters)) for item, period in requests]
    partials = usage.partials([(item, period) for item, period, _, _ in asked])
    return [
        UsageSummary(
            item.id, mode, period.start, period.end, aggregator.billed(partial, period.share)
        )
        for (item, period, mode, aggregator), partial in zip(asked, partials, strict=True)
    ]


def _row_of(
    item: SubscriptionItem, meters: KnowsMeters | None
) -> tuple[AggregateUsage | Formula, Aggregator]:
    """Return how an item's usage is aggregated, by name and by row."""
    if meters is not None and item.recurring.meter is not None:
        meter = meters.meter_of(item)
        return meter.formula, formula_of(meter)
    mode = required_mode(item)
    return mode, AGGREGATORS[mode]
