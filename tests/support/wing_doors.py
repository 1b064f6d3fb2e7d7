"""The doors of the wings, found by introspection, with valid arguments beside those of the root's
table.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import doors as root
from builders import FEB, JAN, START
from doors import Door, Scene

import metering_core as mc
from metering_core.feeds.instants import PlausibleTime

NAMED = {
    "feeds.appending": ("append_usage", "append_events"),
    "feeds.catalog": ("read_catalog", "read_price", "meter_log", "Catalog"),
    "feeds.files": ("read_usage", "read_events", "UsageRow", "EventRow"),
    "feeds.formats": ("UsageFormat.of_path",),
    "bulk": ("rate_many", "rate_lines", "invoice_lines"),
    "feeds.instants": ("PlausibleTime",),
    "tariffs.pieces": ("tariff",),
    "testing.cases": ("read_cases", "run_cases"),
}
"""What the reference documents of wings that have no `__all__`."""

NEEDS = {"columnar": "numpy", "bulk": "numpy", "sql": "duckdb"}
FOLDER = Path(mkdtemp())
CSV = "subscription_item,quantity,timestamp\nsi_0,5,1704067260\n"


class WingScene(Scene):
    """A scene with columns and files."""

    @cached_property
    def columns(self):
        found = import_module("metering_core.columnar").ColumnarUsage([self.subscription])
        found.append(self.batch, now=START)
        return found

    @cached_property
    def event_columns(self):
        found = import_module("metering_core.columnar").ColumnarEvents([self.meter], [self.metered])
        found.append(self.event_batch, now=START)
        return found

    @property
    def batch(self):
        return import_module("metering_core.columnar").UsageBatch.from_records(
            [mc.UsageRecord("si_0", 5, START)]
        )

    @property
    def event_batch(self):
        return import_module("metering_core.columnar").EventBatch.from_events(
            [self.event], self.meter
        )

    @cached_property
    def duckdb_usage(self):
        return import_module("metering_core.sql").DuckDBUsage(
            file("u.csv", CSV), [self.subscription]
        )

    @cached_property
    def duckdb_events(self):
        return import_module("metering_core.sql").DuckDBEvents(
            EVENTS(), [self.meter], [self.metered]
        )

    def state(self):
        more = ()
        if find_spec("numpy"):
            totals = (self.columns.partial(self.item, JAN), self.columns.partial(self.item, FEB))
            more = (len(self.columns), totals, len(self.event_columns), self.event_columns.meters)
        return (*super().state(), *more)


def file(name, text):
    (FOLDER / name).write_text(text)
    return str(FOLDER / name)


def EVENTS():  # noqa: N802
    return file("e.csv", "event_name,customer,value,timestamp,region\ncalls,c,5,1704067260,eu\n")


def rows(scene):
    """Return the rows of a file of usage, read when they are asked for."""
    return list(mc.feeds.read_usage(io.StringIO(CSV), "csv", path="u.csv"))


def event_rows(scene):
    text = (
        "event_name,timestamp,payload[stripe_customer_id],payload[value],payload[region]\n"
        "calls,1706745600,c,5,eu\n"
    )
    return list(mc.feeds.read_events(io.StringIO(text), "csv", path="e.csv"))


ROOT = root.VALID
WINGS = {
    "ColumnarUsage": lambda s: s.columns,
    "ColumnarEvents": lambda s: s.event_columns,
    "UsageBatch": lambda s: s.batch,
    "EventBatch": lambda s: s.event_batch,
    "DuckDBUsage": lambda s: s.duckdb_usage,
    "DuckDBEvents": lambda s: s.duckdb_events,
    "PlausibleTime": lambda s: PlausibleTime(),
    "UsageFormat": lambda s: mc.feeds.UsageFormat,
}
VALID = {
    "ColumnarUsage.append.batch": lambda s: s.batch,
    "ColumnarUsage.invoice_changes.invoice": ROOT["UsageLog.invoice_changes.invoice"],
    "ColumnarEvents.append.batch": lambda s: s.event_batch,
    "ColumnarEvents.policy": lambda s: s.policy,
    "ColumnarEvents.item": lambda s: s.metered.items[0],
    "ColumnarEvents.requests": lambda s: [(s.metered.items[0], JAN)],
    "ColumnarEvents.subscription": lambda s: s.metered,
    "ColumnarEvents.create_meter.meter": lambda s: mc.Meter("another", "other"),
    "ColumnarUsage.closing_all.periods": lambda s: {"sub": JAN},
    "ColumnarUsage.as_of.limit": lambda s: 1,
    "ColumnarUsage.append.received_at": lambda s: [START],
    "ColumnarEvents.append.received_at": lambda s: [START],
    "ColumnarUsage.total_usage_of_all.requests": ROOT["requests"],
    "UsageBatch.from_columns.actions": lambda s: ["set"],
    "UsageBatch.from_columns.timestamps": lambda s: [START],
    "subscription_items": lambda s: ["si_0"],
    "item_ids": lambda s: None,
    "copy": lambda s: True,
    "UsageBatch.from_arrow.source": lambda s: table(
        subscription_item=["si_0"], quantity=[1], timestamp=[START]
    ),
    "EventBatch.from_arrow.source": lambda s: table(
        customer=["c"], value=[1], timestamp=[START], region=["eu"]
    ),
    "EventBatch.dimensions": lambda s: {"region": ["eu"]},
    "EventBatch.from_arrow.dimensions": lambda s: ["region"],
    "values": lambda s: [1],
    "EventBatch.timestamps": lambda s: [START],
    "identifiers": lambda s: ["a"],
    "customer_ids": lambda s: None,
    "are_microseconds": lambda s: False,
    "EventBatch.meter": lambda s: s.meter,
    "DuckDBUsage.book": lambda s: s.log.book,
    "DuckDBUsage.source": lambda s: file("u.csv", CSV),
    "DuckDBEvents.source": lambda s: EVENTS(),
    "closed": lambda s: {},
    "canceled": lambda s: [],
    "memory_limit": lambda s: "100MB",
    "temp_directory": lambda s: str(FOLDER),
    "progress": lambda s: None,
    "skip_malformed": lambda s: False,
    "DuckDBUsage.time": lambda s: PlausibleTime(),
    "DuckDBEvents.time": lambda s: PlausibleTime(),
    "read_catalog.time": lambda s: PlausibleTime(),
    "read_usage.time": lambda s: PlausibleTime(),
    "read_events.time": lambda s: PlausibleTime(),
    "DuckDBEvents.policy": lambda s: s.policy,
    "DuckDBEvents.subscriptions": lambda s: [s.metered],
    "DuckDBEvents.item": lambda s: s.metered.items[0],
    "DuckDBEvents.requests": lambda s: [(s.metered.items[0], JAN)],
    **{
        f"ColumnarEvents.{verb}.subscription_id": lambda s: "metered"
        for verb in ("unbilled", "close_period", "closing", "stored_invoice")
    },
    "ColumnarEvents.closing_all.periods": lambda s: {"metered": JAN},
    "ColumnarEvents.closing_all.versions": lambda s: [s.metered],
    "ColumnarEvents.invoice_changes.invoice": ROOT["MeterLog.invoice_changes.invoice"],
    "ColumnarEvents.as_of.limit": lambda s: 0,
    "ColumnarEvents.subscription.subscription_id": lambda s: "metered",
    "DuckDBEvents.subscription.subscription_id": lambda s: "metered",
    "seqs": lambda s: [1],
    "read_catalog.source": lambda s: file("c.json", '{"prices": []}'),
    "reference": lambda s: file("p.json", '{"id": "p", "currency": "usd", "unit_amount": 5}'),
    "stream": lambda s: io.StringIO(CSV),
    "read_events.stream": lambda s: io.StringIO("event_name,timestamp\n"),
    "format": lambda s: "csv",
    "read_usage.path": lambda s: "u.csv",
    "read_events.path": lambda s: "e.csv",
    "UsageFormat.of_path.path": lambda s: "u.csv",
    "read_cases.path": lambda s: file("cases.json", "{}"),
    "arrivals": lambda s: None,
    "rows": rows,
    "append_events.rows": event_rows,
    "append_events.log": lambda s: s.meter_log,
    "on_refusal": lambda s: lambda _: None,
    "on_unbilled": lambda s: None,
    "catalog": lambda s: mc.feeds.Catalog({}, (), {}),
    "meter_log.policy": lambda s: s.policy,
    "run_cases.data": lambda s: {"cases": []},
    "run_cases.kind": lambda s: "rating",
    "run_cases.prices": lambda s: {},
    "PlausibleTime.first": lambda s: START,
    "PlausibleTime.last": lambda s: START,
    "PlausibleTime.moment.param": lambda s: "timestamp",
    "PlausibleTime.moment.value": lambda s: START,
    "rate_many.quantities": lambda s: [1, 2],
    "rate_lines.quantities": lambda s: [1, 2],
    "sql_kernel.events": lambda s: True,
    "invoice_lines.usage": lambda s: s.columns,
    "invoice_lines.at": lambda s: START,
    "PlausibleTime.until.now": lambda s: START,
}
root.VALID.update(VALID)
root.ONE_OF |= {
    "DuckDBUsage.book",
    "ColumnarUsage.append.received_at",
    "ColumnarEvents.append.received_at",
}

INSIDE = {
    **dict.fromkeys(
        (
            *(
                "answers_until",
                "cells_of",
                "compacted",
                "compacted_items",
                "fold",
                "keep_invoice",
                "known",
                "logged",
                "questions",
                "readings_of",
                "readings_until",
            ),
            *(
                "received_of",
                "rows_of",
                "sequence_of",
                "cells",
                "counted",
                "timelines",
                "whole",
                "last_received",
                "merged",
            ),
            *(
                "settle",
                "measured",
                "event_at",
                "is_as_now",
                "payload_at",
                "texts",
                "value_at",
            ),
            *("corrections", "carried", "total_usage_of_all", "recorded"),
        ),
        "readers of the columns, as of a log (tests/support/doors.py)",
    ),
    "EventSummaries": "made by ColumnarEvents.summaries",
    "UsageBatch": "built by its class methods, which check",
    "EventBatch": "built by its class methods, which check",
    "Catalog": "made by read_catalog",
    "UsageRow": "made by read_usage",
    "EventRow": "made by read_events",
    "SparkUsage": "needs a session: what it refuses before is in test_wrong_values.py, the rest in "
    "test_sql_spark.py",
    "SparkEvents": "as SparkUsage",
}
"""What is public and no door of the law, with the reason."""

STRATEGIES = (
    *(
        "amounts",
        "anchors",
        "batches",
        "cells",
        "cycles",
        "decimals_of",
        "event_batches",
        "event_histories",
        "graduated",
    ),
    *(
        "histories",
        "log_of",
        "meter_event",
        "meter_events",
        "meter_log_of",
        "meter_logs",
        "meter_policies",
        "meters",
        "models",
    ),
    *(
        "moments",
        "moneys",
        "packages",
        "per_unit",
        "percentages",
        "periods",
        "prices",
        "quantities",
        "recurrings",
        "subscription_items",
    ),
    *(
        "subscriptions",
        "tables_of_tiers",
        "tiers",
        "usage_logs",
        "usage_record",
        "usage_records",
        "volumes",
        "Again",
        "Misfit",
    ),
)
LAWS = {
    "algebra": [f"check_{one}_laws" for one in ("aggregator", "cell", "formula")],
    "bills": [
        f"check_{one}_laws"
        for one in (
            *("ambient", "graduated", "invoice", "package", "period", "rating", "settle", "volume"),
        )
    ],
    "lateness": [f"check_{one}_laws" for one in ("carrying", "late", "unbilled")],
    "logs": [
        *(f"check_{one}_laws" for one in ("append", "compaction", "retry", "snapshot", "usage")),
        *("accepted_of", "check_engine_agrees", "close", "days", "held_events", "measured"),
        *("metered_items", "used_periods"),
    ],
    "meters": [f"check_{one}_laws" for one in ("arrival", "cancel", "summary")],
    "sentences": ["LawBrokenError", "forbid"],
}
"""By module: the laws, what raises where one is broken, and what reads the logs they are given."""
A_LAW = "what a law is given is what it tests: it raises LawBrokenError, or what its subject raises"
TESTING = {
    "cases": {"CaseKind": "a row of the table CASE_KINDS", "CaseResult": "made by run_cases"},
    "conformance": {
        "BillingConformance": "its methods are overridden, not called",
        "ServiceDisagreesError": "raised by BillingConformance",
    },
    **{f"laws.{module}": dict.fromkeys(names, A_LAW) for module, names in LAWS.items()},
    "strategies": dict.fromkeys(STRATEGIES, "Hypothesis judges what it draws from, when it draws"),
}
"""What the modules for tests make public and is no door, with the reason."""


def table(**columns):
    pyarrow = import_module("pyarrow")
    return pyarrow.table(columns)


def public() -> Iterator[tuple[str, object]]:
    """Yield the names and the values of every public callable of every wing that is installed."""
    for wing in ("columnar", "sql", *NAMED):
        if wing in NEEDS and not find_spec(NEEDS[wing]):
            continue
        module = import_module(f"metering_core.{wing}")
        for name in NAMED.get(wing) or module.__all__:
            value = module
            for part in name.split("."):
                value = getattr(value, part)
            yield name, value


def wing_doors() -> list[Door]:
    found = []
    for name, value in public():
        owner = name.partition(".")[0]
        if name not in INSIDE and (inspect.isclass(value) or inspect.signature(value).parameters):
            found.append(root.door_of(name, value, lambda scene, value=value: value))
        if inspect.isclass(value) and (name not in INSIDE or name in WINGS):
            found += root.methods_of(value, WINGS[owner])
    return [
        one
        for one in found
        if one.name.rpartition(".")[2] not in INSIDE or one.name.count(".") == 0
    ]
