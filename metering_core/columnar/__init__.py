"""Usage in columns: the answers of :class:`~metering_core.UsageLog` for hundreds of millions of
records, on NumPy.

A :class:`UsageBatch` is records column by column; a :class:`ColumnarUsage` judges and keeps them,
and is itself a :class:`~metering_core.Usage`, so that the same functions bill it. Its receipts,
summaries and invoices are those of the log. Needs the extra ``columnar``. Nothing in here knows a
price or money.
"""

from __future__ import annotations

from importlib import import_module

from metering_core.errors import MissingExtraError

try:
    import_module("numpy")
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    raise MissingExtraError.for_extra("columnar", "metering_core.columnar") from error

from metering_core.columnar.batches import EventBatch, UsageBatch
from metering_core.columnar.events import ColumnarEvents
from metering_core.columnar.summaries import EventSummaries
from metering_core.columnar.usage import ColumnarUsage

__all__ = ["ColumnarEvents", "ColumnarUsage", "EventBatch", "EventSummaries", "UsageBatch"]
