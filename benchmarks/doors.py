"""Door by door, what `python -m benchmarks.against` compares an older tree by; it runs in a process
for each of the two.

The workloads are those of *this* tree, on the library of whichever tree is measured, so that both
do the same. What they use of it is public, and the older one has it, too.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import metering_core as mc
from benchmarks import appending, billing, inputs, meter_events
from benchmarks.inputs import NOW, START, Columns
from benchmarks.measuring import Contender
from metering_core.meter_log import MeterLog
from metering_core.meter_summaries import event_summaries

ITEMS: Final = 50
BILLED: Final = 100
RATED: Final = 500

Contenders = dict[str, Contender]


def of_usage(usage: Columns, items: list[str]) -> Contenders:
    """Return the doors of the log of usage records, and the first question to it."""
    doors = appending.contenders(usage, items)
    totals = inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage))

    def unasked() -> Callable[[], dict[str, int]]:
        log = inputs.log_of(items)
        log.append_columns(usage.items, usage.quantities, usage.timestamps, usage.actions, now=NOW)
        return partial(inputs.totals, log, totals)

    return {
        "UsageLog.record": doors["record, one call each"],
        "UsageLog.append": doors["append of ready records"],
        "UsageLog.append_columns": doors["append_columns"],
        "UsageLog, first question": Contender(unasked, expected=totals),
    }


def of_events(usage: Columns, items: list[str]) -> Contenders:
    """Return the doors of the log of meter events, and the first question to it."""
    doors = meter_events.contenders(items, usage)
    payloads = meter_events.payloads_of(usage)
    events = meter_events.events_of(payloads, usage)
    totals = dict.fromkeys(items, 0)
    for item, quantity in zip(usage.items, usage.quantities, strict=True):
        totals[item] += quantity

    def asked(log: MeterLog) -> dict[str, int]:
        summaries = {
            one: event_summaries(log, meter_events.METER.id, one, START, NOW)[0] for one in totals
        }
        return {one: int(summary.aggregated_value) for one, summary in summaries.items()}

    def unasked() -> Callable[[], dict[str, int]]:
        log = MeterLog([meter_events.METER])
        log.append(events, now=NOW)
        return partial(asked, log)

    return {
        "MeterLog.record": doors["one call each"]["meter event"],
        "MeterLog.record with an identifier": doors["one call each, with an identifier"][
            "meter event"
        ],
        "MeterLog.append": doors["append of ready ones"]["meter event"],
        "MeterLog, first question": Contender(unasked, expected=totals),
    }


def of_rating() -> Contenders:
    """Return what rates: single quantities by each model."""

    def rated(price: mc.Price) -> mc.RatedUsage:
        return [mc.rate(price, billing.QUANTITY) for _ in range(RATED)][-1]

    return {
        f"rate, {name}": Contender(
            lambda price=price: partial(rated, price), exact, billing.CHARGED[name]
        )  # type: ignore[misc]
        for name, price in billing.PRICES.items()
    }


def exact(rated: mc.RatedUsage) -> Fraction:
    """Return the exact amount in minor units."""
    return Fraction(rated.amount.minor_units)


def of_bills(usage: Columns, items: list[str]) -> Contenders:
    """Return what makes previews and invoices of a log that was asked before."""
    log = billing.filled_log(items, usage)
    totals = inputs.unchecked_totals(inputs.unchecked_loop_with_sets(usage))
    bills = billing.settled_by_line(totals)

    def all_at_once() -> dict[str, int]:
        return {
            one.lines[0].subscription_item: one.total
            for one in mc.invoice_all(log.subscriptions, log, at=NOW)
        }

    return {
        "preview_invoice": Contender(lambda: partial(billing.previewed, log), expected=bills),
        "invoice_all": Contender(lambda: all_at_once, expected=bills),
    }


def of_columns(usage: Columns, items: list[str]) -> Contenders:
    """Return the doors of columns and the questions to them; none without NumPy."""
    if find_spec("numpy") is None:
        return {}
    from benchmarks import columnar_doors  # noqa: PLC0415 - needs NumPy

    return columnar_doors.contenders(usage, items)


def contenders(records: int) -> Contenders:
    """Return all that is measured; each checks its answer."""
    items, many = inputs.item_ids(ITEMS), inputs.item_ids(BILLED)
    usage = inputs.columns(items, records)
    return {
        **of_usage(usage, items),
        **of_events(usage, items),
        **of_rating(),
        **of_bills(inputs.columns(many, records), many),
        **of_columns(usage, items),
    }


def serve(records: int) -> None:
    """Say where the library is from and what can be measured; then run what is asked for, line by
    line, and say the seconds.

    They are processor time. What is measured finds the inputs out of the collector's sight.
    """
    found = contenders(records)
    for one in found.values():
        one.seconds()  # What is loaded or compiled at the first use is none of its speed.
    gc.collect()
    gc.freeze()
    print(json.dumps([str(Path(mc.__file__).resolve().parents[1]), list(found)]), flush=True)
    for name in sys.stdin:
        print(found[name.rstrip("\n")].seconds(), flush=True)
