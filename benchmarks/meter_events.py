"""Meter events beside usage records, door by door, and summaries of a warm log with few events and
with many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

import metering_core as mc
from benchmarks import inputs
from benchmarks.inputs import NOW, START, Columns
from benchmarks.measuring import Contender, Group, Row, race
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meter_summaries import event_summaries
from metering_core.meters import Meter

NAME: Final = "tokens"
METER: Final = Meter("mtr_tokens", NAME)
PLAIN: Final = MeterLog([METER])
BY_MODEL: Final = Meter("mtr_tokens", NAME, dimension_payload_keys=["model"])
DAYS: Final = 30
AT_MOST: Final = 1.5


def measure(items: list[str], usage: Columns, few: int, many: int, rounds: int) -> Iterator[Group]:
    """Yield the doors of both logs on the same usage, and warm summaries of few and of many
    events.
    """
    yield _doors(items, usage, rounds)
    yield _summaries(few, many, rounds)


# The doors ----------------------------------------------------------------------------------------


def _doors(items: list[str], usage: Columns, rounds: int) -> Group:
    pairs = contenders(items, usage)
    best = race(
        {f"{name}, {log}": one for name, pair in pairs.items() for log, one in pair.items()}, rounds
    )
    rows = list(_door_rows(best, list(pairs), len(usage.items)))
    return (
        (
            f"{len(usage.items):,} meter events of {len(items):,} customers, in relation to "
            "usage records"
        ),
        rows,
    )


def _door_rows(best: dict[str, float], doors: list[str], events: int) -> Iterator[Row]:
    for door in doors:
        record, event = (
            best[f"{door}, {log}"] / events * 1e6 for log in ("usage record", "meter event")
        )
        yield Row(f"{door}: usage record", record, "µs each")
        ratio = event / record
        yield Row(
            f"{door}: meter event",
            event,
            "µs each",
            ratio=ratio,
            relative_to="usage record",
            at_most=AT_MOST,
        )


def contenders(items: list[str], usage: Columns) -> dict[str, dict[str, Contender]]:
    """Return each door of both logs; every usage is an increment, its event's value the same number
    as text.
    """
    payloads = payloads_of(usage)
    identifiers = [f"evt_{number}" for number in range(len(payloads))]
    identified = "one call each, with an identifier"
    return {
        **_doors_of(items, usage, payloads),
        identified: {
            "usage record": _on_usage(
                items, usage, lambda log: _record_usage(log, usage, identifiers)
            ),
            "meter event": _on_meters(
                payloads, lambda log: _record_events(log, payloads, usage.timestamps, identifiers)
            ),
        },
        **_doors_of(
            items,
            usage,
            payloads,
            MeterLog([METER], policy=MeterPolicy.stripe()),
            ", Stripe's profile",
        ),
        **_doors_of(items, usage, payloads_of(usage, ".5"), PLAIN, ", decimals"),
        **_doors_of(
            items, usage, payloads_of(usage, model="large"), MeterLog([BY_MODEL]), ", one dimension"
        ),
    }


def _doors_of(
    items: list[str],
    usage: Columns,
    payloads: list[dict[str, str]],
    like: MeterLog = PLAIN,
    kind: str = "",
) -> dict[str, dict[str, Contender]]:
    """Return both doors for events of one kind, beside the same usage records for each kind."""
    events, none = events_of(payloads, usage), [None] * len(payloads)
    columns = zip(usage.items, usage.quantities, usage.timestamps, strict=True)
    records = [mc.UsageRecord(item, quantity, timestamp) for item, quantity, timestamp in columns]
    return {
        f"one call each{kind}": {
            "usage record": _on_usage(items, usage, lambda log: _record_usage(log, usage, none)),
            "meter event": _on_meters(
                payloads, lambda log: _record_events(log, payloads, usage.timestamps, none), like
            ),
        },
        f"append of ready ones{kind}": {
            "usage record": _on_usage(items, usage, lambda log: log.append(records, now=NOW)),
            "meter event": _on_meters(payloads, lambda log: log.append(events, now=NOW), like),
        },
    }


def payloads_of(usage: Columns, places: str = "", **dimensions: str) -> list[dict[str, str]]:
    """Return a payload for each quantity of the usage, as text with these decimal places."""
    rows = zip(usage.items, usage.quantities, strict=True)
    return [
        {"stripe_customer_id": item, "value": f"{quantity}{places}", **dimensions}
        for item, quantity in rows
    ]


def events_of(payloads: list[dict[str, str]], usage: Columns) -> list[MeterEvent]:
    """Return ready events with the usage's timestamps."""
    rows = zip(payloads, usage.timestamps, strict=True)
    return [MeterEvent(NAME, payload, timestamp=timestamp) for payload, timestamp in rows]


def _on_usage(items: list[str], usage: Columns, work: Callable[[mc.UsageLog], object]) -> Contender:
    expected = inputs.unchecked_totals(inputs.unchecked_loop(usage))
    return Contender(
        lambda: partial(_worked, inputs.log_of(items), work),
        lambda log: inputs.totals(log, expected),
        expected,
    )


def _on_meters(
    payloads: list[dict[str, str]], work: Callable[[MeterLog], object], like: MeterLog = PLAIN
) -> Contender:
    """Return work on a new log with the meters and the policy of another."""
    expected: dict[str, Decimal] = {}
    for payload in payloads:
        customer = payload["stripe_customer_id"]
        expected[customer] = expected.get(customer, Decimal(0)) + Decimal(payload["value"])
    return Contender(
        lambda: partial(_worked, MeterLog(like.meters, policy=like.policy), work),
        lambda log: _totals(log, expected),
        expected,
    )


def _worked(log: Any, work: Callable[[Any], object]) -> Any:
    work(log)
    return log


def _totals(log: MeterLog, customers: dict[str, Decimal]) -> dict[str, Any]:
    return {
        one: event_summaries(log, METER.id, one, START, NOW)[0].aggregated_value
        for one in customers
    }


def _record_usage(log: mc.UsageLog, usage: Columns, ids: Sequence[str | None]) -> None:
    for item, quantity, timestamp, own in zip(
        usage.items, usage.quantities, usage.timestamps, ids, strict=True
    ):
        log.record(item, quantity, timestamp=timestamp, id=own, now=NOW)


def _record_events(
    log: MeterLog, payloads: list[dict[str, str]], stamps: list[int], ids: Sequence[str | None]
) -> None:
    for payload, timestamp, own in zip(payloads, stamps, ids, strict=True):
        log.record(NAME, payload, identifier=own, timestamp=timestamp, now=NOW)


# Warm summaries -----------------------------------------------------------------------------------

QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "one range": {},
    "days in Berlin": {"value_grouping_window": "day", "timezone": "Europe/Berlin"},
    "hours in UTC": {"value_grouping_window": "hour"},
    "hours in Kathmandu": {"value_grouping_window": "hour", "timezone": "Asia/Kathmandu"},
}


def filled(events: int) -> MeterLog:
    """Return a log with so many events of one customer, evenly over 30 days."""
    log = MeterLog([METER], policy=MeterPolicy.history())
    span = DAYS * 86_400
    payload = {"stripe_customer_id": "cus_1", "value": "1"}
    log.append(
        [
            MeterEvent(NAME, payload, timestamp=START + number * span // events)
            for number in range(events)
        ],
        now=NOW,
    )
    return log


def _summaries(few: int, many: int, rounds: int) -> Group:
    logs = {events: filled(events) for events in (few, many)}
    rows = [_summary_row(name, options, logs, rounds) for name, options in QUESTIONS.items()]
    return (
        (
            f"A summary of {DAYS} days from a warm log of {many:,} events, in relation to "
            f"{few:,} (as its bound)"
        ),
        rows,
    )


def _summary_row(name: str, options: dict[str, Any], logs: dict[int, MeterLog], rounds: int) -> Row:
    """Measure one question; the first time it is asked the blocks are merged, which is not
    timed.
    """
    (few, many), end = logs, START + DAYS * 86_400
    asked = {
        size: partial(event_summaries, log, METER.id, "cus_1", START, end, **options)
        for size, log in logs.items()
    }
    for size, ask in asked.items():
        assert sum(int(one.aggregated_value) for one in ask()) == size, "fast, but wrong"
    best = race(
        {str(size): Contender(partial(_as_it_is, ask)) for size, ask in asked.items()}, rounds * 3
    )
    seconds = {size: best[str(size)] for size in logs}
    return Row(
        f"{name}, {len(asked[many]()):,} buckets",
        seconds[many] * 1e6,
        "µs",
        bound=seconds[few] * 1e6,
        ratio=seconds[many] / seconds[few],
        relative_to=f"{few:,} events",
        at_most=AT_MOST,
    )


def _as_it_is(ask: Callable[[], Any]) -> Callable[[], Any]:
    """Return what is timed; nothing has to be prepared in a warm log."""
    return ask
