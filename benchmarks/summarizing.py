"""Hourly summaries of meter events in memory, of all customers at once, beside what others would
write.

Timed is the question alone: every tool has the events loaded in its own form, with customers as
integers, and returns its own kind of table: customer, hour, sum and number of events, of the hours
that have any. Nothing that was computed before is kept. Where events have a dimension, the table
has its value, too, and each tool keeps it in its own type for few different texts.
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
MODELS: Final = ("large", "medium", "small")
"""The values of the dimension, in their order."""

SHAPES: Final = ((1, False), (30, False), (1, True))
"""How many days the events lie scattered over, and whether they have a dimension that summaries are
grouped by.

In a day nearly every hour of every customer has events; in 30 days nearly every event has an hour
of its own.
"""

OURS: Final = "metering_core, columns"
AT_LEAST: Final = 4.0


@attrs.frozen(eq=False)
class Events:
    """Meter events in the order of arrival, column by column.

    Attributes:
        days: how long they lie scattered over.
        size: how many customers there are.
        customers: integers from 0.
        timestamps: Unix seconds.
        values: what is added up.
        models: which of :data:`MODELS` each event is of; None without a dimension.
    """

    days: int
    size: int
    customers: NDArray[np.int32]
    timestamps: Integers
    values: Integers
    models: Integers | None = None

    @classmethod
    def generated(cls, number: int, days: int, *, has_models: bool = False) -> Events:
        """Return random events."""
        chosen = np.random.default_rng(SEED)
        size = max(number // EVENTS_A_CUSTOMER, 1)
        stamps = START + chosen.integers(0, days * 24 * HOUR, number)
        customers = chosen.integers(0, size, number, dtype=np.int32)
        values = chosen.integers(0, VALUE_BELOW, number)
        return cls(
            days,
            size,
            customers,
            stamps,
            values,
            chosen.integers(0, len(MODELS), number) if has_models else None,
        )

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.customers)

    @property
    def end(self) -> int:
        """The first second after all events."""
        return START + self.days * 24 * HOUR

    def names(self) -> NDArray[np.str_]:
        """Return the dimension as texts."""
        return np.array(MODELS)[self.models]

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return what a peer loads."""
        models = {} if self.models is None else {"model": self.names()}
        return {
            "customer": self.customers,
            "timestamp": self.timestamps,
            "value": self.values,
            **models,
        }

    def expected(self) -> Integers:
        """Return the right answer, in the order of customers, models and hours: one stable sort,
        then sum by sum.
        """
        hours = START + (self.timestamps - START) // HOUR * HOUR
        keys = np.array([self.customers, *([] if self.models is None else [self.models]), hours])
        order = np.lexsort(keys[::-1])
        keys, values = keys[:, order], self.values[order]
        starts = np.flatnonzero(np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)))
        counts = np.diff(np.append(starts, len(order)))
        return np.array([*keys[:, starts], np.add.reduceat(values, starts), counts])

    def digest(self) -> str:
        """Return a hash of the content, the same on every machine."""
        models = () if self.models is None else (self.models,)
        return digest_of(self.customers, self.timestamps, self.values, *models)


def in_order(columns: list[Any]) -> Integers:
    """Return columns of customer, perhaps model, hour, sum and count in the order of the columns
    before the sum.
    """
    found = np.array([_numbers(np.asarray(column)) for column in columns])
    return found[:, np.lexsort(found[-3::-1])]


def _numbers(column: NDArray[Any]) -> Integers:
    """Return a column as integers; models as their places."""
    is_text = column.dtype.kind in "OUT"
    return np.searchsorted(MODELS, column.astype(np.str_)) if is_text else column.astype(np.int64)


# Ours ---------------------------------------------------------------------------------------------


def our_way(events: Events) -> Way:
    """Ask columns that took the events and were asked nothing yet."""
    names = [f"{code}" for code in range(events.size)]
    dimensions = {} if events.models is None else {"model": events.names()}
    meter = Meter("used", "used", dimension_payload_keys=list(dimensions))
    batch = EventBatch.from_columns(
        "used",
        events.customers,
        events.values,
        events.timestamps,
        customer_ids=names,
        dimensions=dimensions,
    )

    # The compiled loops are loaded once in a process; what is timed is a process that has asked
    # something before.
    compiled()

    def prepare() -> Callable[[], Any]:
        columns = ColumnarEvents([meter], policy=MeterPolicy.history())
        columns.append(batch, now=events.end)
        ask = partial(columns.summaries, "used", START, events.end, value_grouping_window="hour")
        return partial(ask, dimension_group_by_keys=list(dimensions))

    return Way(OURS, prepare, _ours, is_ours=True)


def _ours(found: Any) -> Integers:
    codes = np.array([int(customer) for customer, _ in found.labels])
    models = [
        np.array([values[at] for _, values in found.labels])[found.groups]
        for at in range(len(found.keys))
    ]
    return in_order(
        [codes[found.groups], *models, found.start_times, found.numerators, found.events]
    )


# Others -------------------------------------------------------------------------------------------


def duckdb_forms(events: Events) -> dict[str, str]:
    """Return the ways to write the question, by name."""
    total = "CAST(SUM(value) AS BIGINT) AS value, COUNT(*) AS events"
    key, keys, parts, form = (
        "CAST(customer AS BIGINT)",
        "customer",
        "key // 1000000 AS customer",
        "two keys",
    )
    if events.models is not None:
        key, keys, form = (
            f"({key} * {len(MODELS)} + enum_code(model))",
            "customer, model",
            "three keys",
        )
        parts = f"key // {len(MODELS)}000000 AS customer, key // 1000000 % {len(MODELS)} AS model"
    return {
        form: f"SELECT {keys}, timestamp // {HOUR} * {HOUR} AS hour, {total} FROM events GROUP "
        "BY ALL",
        "one key": f"""
            SELECT {parts}, key % 1000000 * {HOUR} AS hour, value, events FROM (
              SELECT {key} * 1000000 + timestamp // {HOUR} AS key, {total} FROM events
              GROUP BY ALL)""",
    }


def duckdb_ways(events: Events) -> Iterator[Way]:
    """Ask DuckDB: a table in memory, all cores, an Arrow table back."""
    import duckdb  # noqa: PLC0415 - a peer may be absent
    import pyarrow as pa  # noqa: PLC0415

    connection = duckdb.connect()
    connection.from_arrow(pa.table(events.columns())).create("events")
    if events.models is not None:
        connection.execute(f"ALTER TABLE events ALTER model TYPE ENUM {MODELS}")
    for form, text in duckdb_forms(events).items():
        run = partial(lambda text: connection.sql(text).to_arrow_table(), text)
        yield Way(
            f"DuckDB, {form}",
            partial(partial, run),
            lambda table: in_order([table[name] for name in table.column_names]),
        )


def polars_ways(events: Events) -> Iterator[Way]:
    """Ask Polars: a data frame in memory, both engines, all cores."""
    import polars as pl  # noqa: PLC0415 - as above

    frame = pl.DataFrame(events.columns()).lazy()
    hour, total = pl.col("timestamp") // HOUR, [pl.col("value").sum(), pl.len().alias("events")]
    packed, key, keys, form = (
        pl.col("customer").cast(pl.Int64),
        pl.col("key"),
        ["customer"],
        "two keys",
    )
    parts = [(key // 1_000_000).alias("customer")]
    if events.models is not None:
        frame = frame.with_columns(pl.col("model").cast(pl.Enum(MODELS))).collect().lazy()
        packed = packed * len(MODELS) + pl.col("model").to_physical().cast(pl.Int64)
        keys, form, codes = ["customer", "model"], "three keys", key // 1_000_000
        parts = [(codes // len(MODELS)).alias("customer"), (codes % len(MODELS)).alias("model")]
    forms = {
        form: frame.group_by(*keys, (hour * HOUR).alias("hour")).agg(*total),
        "one key": frame.group_by((packed * 1_000_000 + hour).alias("key"))
        .agg(*total)
        .select(*parts, (key % 1_000_000 * HOUR).alias("hour"), "value", "events"),
    }
    engines: dict[str, Literal["in-memory", "streaming"]] = {
        "Polars": "in-memory",
        "Polars streaming": "streaming",
    }
    for form, query in forms.items():
        for name, engine in engines.items():
            run = partial(query.collect, engine=engine)
            yield Way(
                f"{name}, {form}",
                partial(partial, run),
                lambda table: in_order([table[name] for name in table.columns]),
            )


PEERS: Final = {"duckdb": duckdb_ways, "polars": polars_ways}


def measure(number: int, rounds: int, say: Callable[[str], None]) -> Iterator[tuple[Group, str]]:
    """Yield each group as it is measured, with the hash of its events; ``say`` hears which peers
    are absent.
    """
    for days, has_models in SHAPES:
        events = Events.generated(number, days, has_models=has_models)
        ways = [our_way(events)]
        for name, peer in PEERS.items():
            try:
                ways += peer(events)
            except ModuleNotFoundError as error:
                say(f"{name} is not measured: {error}")
        turns = competing.race(ways, events.expected(), rounds)
        span = ("a day" if days == 1 else f"{days} days") + (
            f" by a dimension of {len(MODELS)} values" if has_models else ""
        )
        title = (
            f"Hourly summaries of {number:,} meter events of {events.size:,} customers over {span}"
        )
        yield (title, competing.rows(turns, number, "million events/s", AT_LEAST)), events.digest()


if __name__ == "__main__":
    for (title, found), _ in measure(1_000_000, 15, print):
        print(title)
        for row in found:
            print(
                f"  {row.name:32}{row.value:8.1f} {row.unit}  {row.ratio or 0:.2f} of "
                f"{row.relative_to}  {row.note or ''}"
            )
