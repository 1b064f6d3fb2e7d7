"""Meter events in columns, append-only: judged, kept and summarized as the meter log does, a batch at a time."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from datetime import timedelta
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.acceptance import Outcome, Receipt, Receipts
from metering_core.aggregators import Partial, formula_of
from metering_core.columnar.event_answers import EventSummaries, Question, partials_of, summarized
from metering_core.columnar.event_batches import EventBatch, Texts, as_units
from metering_core.columnar.event_groups import Numbers, as_wide, greatest, last_of_each, narrowed, times
from metering_core.columnar.kernel import INT64_MAX, ROWS_MAX, Flags, Integers
from metering_core.columnar.usage import _moments
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import Number
from metering_core.meter_acceptance import (
    IdentifierScope,
    MeterPolicy,
    identifier_reused,
    meter_inactive,
    meter_unknown,
    read,
    time_refusal,
)
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog, _content
from metering_core.meter_summaries import DimensionFilters
from metering_core.meter_views import MeterReader
from metering_core.meters import Formula, Meter
from metering_core.names import require_iterable
from metering_core.periods import BillingPeriod, Instant
from metering_core.readings import MICROSECONDS
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.timelines import Timeline
