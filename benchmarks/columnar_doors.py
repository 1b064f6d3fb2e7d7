"""The doors of usage and of meter events in columns, for `python -m benchmarks.against`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks import billing, inputs, meter_events
from benchmarks.inputs import NOW, START, Columns
from benchmarks.measuring import Contender
from metering_core.columnar import ColumnarEvents, ColumnarUsage, EventBatch, UsageBatch

try:
    from metering_core.bulk import invoice_lines
except ModuleNotFoundError:  # In a tree of before the wings.
    from metering_core.invoice_lines import invoice_lines  # type: ignore[import-not-found]

SMALL: Final = (100, 1_000)
TIMES: Final = 20
"""How often a batch of the records is appended in a turn; one alone is too short to be timed."""


def contenders(usage: Columns, items: list[str]) -> dict[str, Contender]:
    """Return the doors of both, the first question to each, and the lines of invoices."""
    return {**_of_usage(usage, items), **_of_many(len(usage.items)), **_of_events(usage, items)}


def _appended(make: Callable[[], Any], batch: object) -> Contender:
    """Append a batch several times to columns that have it once, so that what is looked up once for
    all was looked up.
    """

    def filled() -> Any:
        columns = make()
        columns.append(batch, now=NOW)
        return columns

    def append(columns: Any) -> int:
        for _ in range(TIMES):
            columns.append(batch, now=NOW)
        return len(columns)

    return Contender(lambda: partial(append, filled()), expected=(TIMES + 1) * len(batch))  # type: ignore[arg-type]


def _of_usage(usage: Columns, items: list[str]) -> dict[str, Contender]:
    totals = inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage))
    lines = billing.settled_by_line(totals)
    subscriptions = inputs.subscriptions(items)
    codes = {item: code for code, item in enumerate(items)}

    def first(rows: int) -> UsageBatch:
        return UsageBatch.from_columns(
            [codes[item] for item in usage.items[:rows]],
            usage.quantities[:rows],
            usage.timestamps[:rows],
            np.array(usage.actions[:rows]) == "set",
            item_ids=items,
        )

    batch = first(len(usage.items))

    def filled() -> ColumnarUsage:
        columns = ColumnarUsage(subscriptions)
        columns.append(batch, now=NOW)
        return columns

    def asked(columns: ColumnarUsage) -> dict[str, int]:
        requests = [(one.items[0], one.period_at(START)) for one in subscriptions]
        return dict(zip(items, map(int, columns.total_usage(requests)), strict=True))

    def billed(columns: ColumnarUsage) -> int:
        return int(invoice_lines(subscriptions, columns, at=START).lines.amounts.sum())

    warm = filled()
    return {
        "ColumnarUsage.append": _appended(lambda: ColumnarUsage(subscriptions), batch),
        **{
            f"ColumnarUsage.append, batches of {rows:,}": _appended(
                lambda: ColumnarUsage(subscriptions), first(rows)
            )
            for rows in SMALL
        },
        "ColumnarUsage, first question": Contender(
            lambda: partial(asked, filled()), expected=totals
        ),
        "invoice_lines": Contender(lambda: partial(billed, warm), expected=sum(lines.values())),
    }


def _of_many(number: int) -> dict[str, Contender]:
    """Return the questions for very many items at once, each of which has one record."""
    items = inputs.item_ids(number)
    subscriptions = inputs.subscriptions(items)
    quantities = list(range(number))
    columns = ColumnarUsage(subscriptions)
    columns.append(UsageBatch.from_columns(items, quantities, [START] * number), now=NOW)
    requests = [(one.items[0], one.period_at(START)) for one in subscriptions]
    usages = [
        0 if one is None else int(one[1]) if isinstance(one, tuple) else int(one)
        for one in columns.partials(requests)
    ]
    assert usages == quantities, "each mode comes to the one quantity"
    return {
        "ColumnarUsage.partials, many": Contender(
            lambda: partial(columns.partials, requests), len, number
        ),
        "ColumnarUsage.total_usage, many": Contender(
            lambda: partial(columns.total_usage, requests), lambda found: found.tolist(), quantities
        ),
    }


def _of_events(usage: Columns, items: list[str]) -> dict[str, Contender]:
    codes = {item: code for code, item in enumerate(items)}
    batch = EventBatch.from_columns(
        meter_events.NAME,
        [codes[item] for item in usage.items],
        usage.quantities,
        usage.timestamps,
        customer_ids=items,
    )
    make = partial(ColumnarEvents, [meter_events.METER])

    def asked(columns: ColumnarEvents) -> int:
        return int(
            columns.summaries(
                meter_events.METER.id, START, NOW, value_grouping_window="hour"
            ).numerators.sum()
        )

    def filled() -> ColumnarEvents:
        columns = make()
        columns.append(batch, now=NOW)
        return columns

    return {
        "ColumnarEvents.append": _appended(make, batch),
        "ColumnarEvents, first question": Contender(
            lambda: partial(asked, filled()), expected=sum(usage.quantities)
        ),
    }
