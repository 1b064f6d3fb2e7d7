"""This library's ways to answer the questions that the peers are asked, through its public
interface only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import metering_core as mc
from benchmarks.datasets import Dataset, Question
from benchmarks.inputs import NOW, START
from benchmarks.peers import Way
from metering_core.columnar import ColumnarUsage, UsageBatch

ITEMS_A_SUBSCRIPTION: Final = 100

MODES: Final[dict[Question, list[tuple[mc.AggregateUsage, ...]]]] = {
    Question.SUM: [(mc.AggregateUsage.SUM,)],
    Question.PLAIN_SUM: [(mc.AggregateUsage.SUM,)],
    Question.MAX: [(mc.AggregateUsage.MAX,)],
    Question.LAST: [(mc.AggregateUsage.LAST_DURING_PERIOD,), (mc.AggregateUsage.LAST_EVER,)],
    Question.EVERY_MODE: [
        (mc.AggregateUsage.SUM, mc.AggregateUsage.MAX, mc.AggregateUsage.LAST_DURING_PERIOD)
    ],
}


def subscribed(items: list[str], prices: list[mc.Price]) -> list[mc.Subscription]:
    """Return subscriptions with all items, a hundred each, each at its price."""
    made = [mc.SubscriptionItem(item, price) for item, price in zip(items, prices, strict=True)]
    return [
        mc.Subscription(f"sub_{at}", made[at : at + ITEMS_A_SUBSCRIPTION], START)
        for at in range(0, len(made), ITEMS_A_SUBSCRIPTION)
    ]


def priced(mode: mc.AggregateUsage) -> mc.Price:
    """Return a price of a mode."""
    recurring = mc.Recurring(aggregate_usage=mode)
    return mc.Price.per_unit(
        f"price_{mode.value}", currency="usd", unit_amount=1, recurring=recurring
    )


Request = tuple[mc.SubscriptionItem, mc.BillingPeriod]


def quantities_of(usage: Any, requests: list[Request]) -> NDArray[np.int64]:
    """Return what was used, in the order asked."""
    if hasattr(usage, "total_usage"):
        return np.asarray(usage.total_usage(requests))
    partials = usage.partials(requests)
    return np.array(
        [partial[1] if isinstance(partial, tuple) else partial or 0 for partial in partials]
    )


class Columnar:
    """Usage in columns; every question is asked of a usage that was never asked before, so that
    nothing is remembered.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._names = dataset.item_ids()
        self._subscriptions = subscribed(
            self._names, [priced(mc.AggregateUsage.SUM)] * len(self._names)
        )

    @cached_property
    def _period(self) -> mc.BillingPeriod:
        period = self._subscriptions[0].period_at(START)
        assert period is not None, "the subscription is alive"
        return period

    def _loaded(self, *, is_plain: bool) -> ColumnarUsage:
        data = self._dataset
        usage = ColumnarUsage(self._subscriptions)
        sets = None if is_plain else data.sets
        batch = UsageBatch.from_columns(
            data.codes, data.quantities, data.timestamps, sets, item_ids=self._names, copy=False
        )
        usage.append(batch, now=NOW)
        return usage

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""
        for modes in MODES[question]:
            name = f"metering_core columnar, {question if len(modes) > 1 else modes[0].value}"
            yield Way(name, partial(self._prepared, question, modes), self._answer, is_ours=True)

    def _prepared(self, question: Question, modes: tuple[mc.AggregateUsage, ...]) -> Any:
        usage = self._loaded(is_plain=question is Question.PLAIN_SUM)
        return partial(usage.total_usage_of_all, self._period, modes)

    @staticmethod
    def _answer(found: dict[mc.AggregateUsage, NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.array(list(found.values()))

    def close(self) -> None:
        """Give everything back."""
        del self._subscriptions
