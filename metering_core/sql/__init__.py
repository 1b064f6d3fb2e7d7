"""Usage that stays in files or on a cluster: judged and folded by SQL that an auditor can read,
billed by the same functions.

One text runs on DuckDB (extra ``duckdb``) and on Spark 4 (extra ``spark``); :func:`sql_kernel`
returns it. An engine has a door for usage records and one for meter events, which differ in what
they read and refuse, and in nothing else. Neither engine knows of prices: both answer
:class:`~metering_core.Usage`, and receipts, summaries and invoices equal those of a log with the
same rows.
"""

from metering_core.sql.duckdb import DuckDBEvents, DuckDBUsage
from metering_core.sql.spark import SparkEvents, SparkUsage
from metering_core.sql.texts import sql_kernel

__all__ = ["DuckDBEvents", "DuckDBUsage", "SparkEvents", "SparkUsage", "sql_kernel"]
