"""Usage that stays in files or on a cluster: judged and folded by SQL that an auditor can read,
billed by the same functions.

One text runs on DuckDB (extra ``duckdb``) and on Spark 4 (extra ``spark``); :func:`sql_kernel`
returns it. Neither engine knows of prices: both answer :class:`~metering_core.Usage`, and receipts,
summaries and invoices equal those of a :class:`~metering_core.UsageLog` with the same rows.
"""

from metering_core.sql.duckdb_engine import DuckDBUsage
from metering_core.sql.duckdb_events import DuckDBEvents
from metering_core.sql.events import events_kernel
from metering_core.sql.kernel import sql_kernel
from metering_core.sql.spark_engine import SparkUsage
from metering_core.sql.spark_events import SparkEvents

__all__ = [
    "DuckDBEvents",
    "DuckDBUsage",
    "SparkEvents",
    "SparkUsage",
    "events_kernel",
    "sql_kernel",
]
