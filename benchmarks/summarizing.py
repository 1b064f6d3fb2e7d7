"""Hourly summaries of meter events in memory, of all customers at once, beside what others would write.

Timed is the question alone: every tool has the events loaded in its own form, with customers as integers, and returns its own
kind of table: customer, hour, sum and number of events, of the hours that have any. Nothing that was computed before is kept.
"""

# ruff: noqa: S608 - what is put into SQL here is a number of our own

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from benchmarks import competing
from benchmarks.datasets import Integers, digest_of
from benchmarks.inputs import SEED, START
from benchmarks.measuring import Group
from benchmarks.peers import Way
from metering_core.columnar import ColumnarEvents, EventBatch
from metering_core.columnar.paths import compiled
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meters import Meter

EVENTS_A_CUSTOMER: Final = 100
VALUE_BELOW: Final = 1_000
HOUR: Final = 3_600
DAYS: Final = (1, 30)
"""How long the events lie scattered over: nearly every hour of every customer has events, or nearly every event has its own."""

OURS: Final = "metering_core, columns"
AT_LEAST: Final = 4.0


@attrs.frozen(eq=False)
class Events:
    """Meter events in the order of arrival, column by column; ``customers`` are integers from 0, times Unix seconds."""

    days: int
    size: int
    customers: NDArray[np.int32]
    timestamps: Integers
    values: Integers

    @classmethod
    def generated(cls, number: int, days: int) -> Events:
        """Return random events."""
        chosen = np.random.default_rng(SEED)
        size = max(number // EVENTS_A_CUSTOMER, 1)
        stamps = START + chosen.integers(0, days * 24 * HOUR, number)
        customers = chosen.integers(0, size, number, dtype=np.int32)
        return cls(days, size, customers, stamps, chosen.integers(0, VALUE_BELOW, number))

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.customers)

    @property
    def end(self) -> int:
        """The first second after all events."""
        return START + self.days * 24 * HOUR

    def expected(self) -> Integers:
        """Return the right answer, in the order of customers and hours: one stable sort, then sum by sum."""
        hours = START + (self.timestamps - START) // HOUR * HOUR
        order = np.lexsort((hours, self.customers))
        customers, hours, values = self.customers[order].astype(np.int64), hours[order], self.values[order]
        is_first = np.append(True, (customers[1:] != customers[:-1]) | (hours[1:] != hours[:-1]))
        starts = np.flatnonzero(is_first)
        counts = np.diff(np.append(starts, len(order)))
        return np.array([customers[starts], hours[starts], np.add.reduceat(values, starts), counts])

    def digest(self) -> str:
        """Return a hash of the content, the same on every machine."""
        return digest_of(self.customers, self.timestamps, self.values)


def in_order(columns: list[Any]) -> Integers:
    """Return columns of customer, hour, sum and count in the order of customers and hours."""
    found = np.array([np.asarray(column).astype(np.int64) for column in columns])
    return found[:, np.lexsort((found[1], found[0]))]


# Ours ----------------------------------------------------------------------------------------------------------------


def our_way(events: Events) -> Way:
    """Ask columns that took the events and were asked nothing yet."""
    names = [f"{code}" for code in range(events.size)]
    batch = EventBatch.from_columns("used", events.customers, events.values, events.timestamps, customer_ids=names)

    # The compiled loops are loaded once in a process; what is timed is a process that has asked something before.
    compiled()

    def prepare() -> Callable[[], Any]:
        columns = ColumnarEvents([Meter("used", "used")], policy=MeterPolicy.history())
        columns.append(batch, now=events.end)
        return partial(columns.summaries, "used", START, events.end, value_grouping_window="hour")

    return Way(OURS, prepare, _ours, is_ours=True)


def _ours(found: Any) -> Integers:  # noqa: ANN401 - summaries
    codes = np.array([int(customer) for customer, _ in found.labels])
    return in_order([codes[found.groups], found.start_times, found.numerators, found.events])


# Others --------------------------------------------------------------------------------------------------------------

DUCKDB: Final = {
    "two keys": f"""
        SELECT customer, timestamp // {HOUR} * {HOUR} AS hour, CAST(SUM(value) AS BIGINT) AS value, COUNT(*) AS events
        FROM events GROUP BY ALL""",
    "one key": f"""
        SELECT key // 1000000 AS customer, key % 1000000 * {HOUR} AS hour, value, events FROM (
          SELECT CAST(customer AS BIGINT) * 1000000 + timestamp // {HOUR} AS key, CAST(SUM(value) AS BIGINT) AS value,
            COUNT(*) AS events
          FROM events GROUP BY ALL)""",
}


def duckdb_ways(events: Events) -> Iterator[Way]:
    """Ask DuckDB: a table in memory, all cores, an Arrow table back."""
    import duckdb  # noqa: PLC0415 - a peer may be absent
    import pyarrow as pa  # noqa: PLC0415

    connection = duckdb.connect()
    columns = {"customer": events.customers, "timestamp": events.timestamps, "value": events.values}
    connection.from_arrow(pa.table(columns)).create("events")
    for form, text in DUCKDB.items():
        run = partial(lambda text: connection.sql(text).to_arrow_table(), text)
        yield Way(
            f"DuckDB, {form}", partial(partial, run), lambda table: in_order([table[name] for name in table.column_names])
        )


def polars_ways(events: Events) -> Iterator[Way]:
    """Ask Polars: a data frame in memory, both engines, all cores."""
    import polars as pl  # noqa: PLC0415 - as above

    columns = {"customer": events.customers, "timestamp": events.timestamps, "value": events.values}
    frame = pl.DataFrame(columns).lazy()
    hour, total = pl.col("timestamp") // HOUR, [pl.col("value").sum(), pl.len().alias("events")]
    packed = pl.col("customer").cast(pl.Int64) * 1_000_000 + hour
    key = pl.col("key")
    forms = {
        "two keys": frame.group_by("customer", (hour * HOUR).alias("hour")).agg(*total),
        "one key": frame.group_by(packed.alias("key"))
        .agg(*total)
        .select((key // 1_000_000).alias("customer"), (key % 1_000_000 * HOUR).alias("hour"), "value", "events"),
    }
    engines: dict[str, Literal["in-memory", "streaming"]] = {"Polars": "in-memory", "Polars streaming": "streaming"}
    for form, query in forms.items():
        for name, engine in engines.items():
            run = partial(query.collect, engine=engine)
            yield Way(f"{name}, {form}", partial(partial, run), lambda table: in_order([table[name] for name in table.columns]))


PEERS: Final = {"duckdb": duckdb_ways, "polars": polars_ways}


def measure(number: int, rounds: int, say: Callable[[str], None]) -> Iterator[tuple[Group, str]]:
    """Yield each group as it is measured, with the hash of its events; ``say`` hears which peers are absent."""
    for days in DAYS:
        events = Events.generated(number, days)
        ways = [our_way(events)]
        for name, peer in PEERS.items():
            try:
                ways += peer(events)
            except ModuleNotFoundError as error:
                say(f"{name} is not measured: {error}")
        turns = competing.race(ways, events.expected(), rounds)
        span = "a day" if days == 1 else f"{days} days"
        title = f"Hourly summaries of {number:,} meter events of {events.size:,} customers over {span}"
        yield (title, competing.rows(turns, number, "million events/s", AT_LEAST)), events.digest()


if __name__ == "__main__":
    for (title, found), _ in measure(1_000_000, 15, print):
        print(title)
        for row in found:
            print(f"  {row.name:32}{row.value:8.1f} {row.unit}  {row.ratio or 0:.2f} of {row.relative_to}  {row.note or ''}")
