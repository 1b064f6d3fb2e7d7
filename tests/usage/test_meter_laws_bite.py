"""Each defect planted here must be found by the shipped law of meters, of late grace or of
compaction that forbids it.
"""

from __future__ import annotations

import pytest
import test_laws
import test_meter_laws
from planting import each, expect_found, forbidden_by, hunt_with

from metering_core.errors import SnapshotError
from metering_core.testing.laws import LawBrokenError

pytestmark = pytest.mark.slow  # Half a minute: some defects are only found among many histories.

CHECKS = {**test_laws.CHECKS, **test_meter_laws.CHECKS}

DEFECTS = {
    "formulas": [
        ("the later part has the last", "measures._Last.merge", "max(left, right)", "right"),
        (
            "the greater of two at one moment is last",
            "measures._Last.prepare_event",
            "sequence), value)",
            "value), value)",
        ),
        (
            "the least is the greatest",
            "measures._Min.merge",
            "min(left, right)",
            "max(left, right)",
        ),
        ("no greatest is below 0", "measures._Max.present", "else partial", "else max(partial, 0)"),
        ("a count adds up values", "measures._Count.prepare", "return 1", "return quantity"),
        (
            "values in two parts are in none",
            "measures._UniqueCount.merge",
            "left | right",
            "left ^ right",
        ),
        (
            "an average counts parts",
            "measures._Average.merge",
            "left[1] + right[1]",
            "max(left[1], right[1])",
        ),
        (
            "averages are floats",
            "measures._Average.present",
            "Fraction(total)",
            "Fraction(float(total))",
        ),
        (
            "a level counts from before its window",
            "measures._WeightedSum.over",
            "multiply(before[0], start)",
            "before[1]",
        ),
        (
            "no level is carried",
            "measures._WeightedSum.over",
            "(before[0], multiply",
            "(0, multiply",
        ),
    ],
    "events": [
        (
            "a refusal has a number",
            "meter_log.MeterLog._take",
            "return time_refusal(",
            (
                "self._store.begin_all([code], [stamp], [value]); "
                "self._store.received.append(received); return time_refusal("
            ),
        ),
        (
            "a question swallows what comes next",
            "meter_log.MeterLog._catch_up",
            "range(self._current.rows,",
            "range(self._current.rows * 2,",
        ),
        (
            "record() returns the first event",
            "meter_log.MeterLog.record",
            "self._event_at(self._store.last)",
            "self._event_at(0)",
        ),
        (
            "what was sent is not kept",
            "meter_log.MeterLog._keep_rest",
            "if not is_told",
            "if False",
        ),
        (
            "a batch keeps no text that is not the value's",
            "meter_log.MeterLog._take_all",
            "or not read[text][1]",
            "",
        ),
        (
            "a batch keeps no other keys",
            "meter_log.MeterLog._take_all",
            "len(payload) != known.keys or",
            "",
        ),
    ],
    "carrying": [
        (
            "nothing late is billed",
            "meter_views.MeterReader.corrections",
            "if not self.carries_late:",
            "if True:",
        ),
        (
            "no correction goes back",
            "differences.Difference.amount",
            "self.now - self.before",
            "max(self.now - self.before, 0)",
        ),
    ],
    "event retries": [
        (
            "a retry counts again",
            "meter_log.MeterLog._take",
            "if row is not None and",
            "if False and",
        ),
        (
            "cancelling frees the identifier",
            "meter_log.MeterLog._take",
            "if row is",
            "if row not in self._store.canceled and row is",
        ),
        (
            "an inactive meter refuses retries",
            "meter_log.MeterLog._take",
            "if row is",
            "if known.meter.is_active and row is",
        ),
        (
            "a retry may have another time",
            "meter_log.MeterLog._answer",
            "received == first",
            'received["payload"] == first["payload"]',
        ),
        (
            "a retry of now must know when",
            "meter_log.MeterLog._content_at",
            "in self._sent_as_now",
            "in ()",
        ),
    ],
    "arrival": [
        (
            "late events are last",
            "timelines.Timeline.add",
            "(self.moments[-1], self.sequences[-1]) < (moment, sequence)",
            "True",
        ),
        ("what came late is put in no order", "timelines.Timeline._rearrange", "sorted(", "list("),
        (
            "the last is the one received last",
            "measures._Last.prepare_event",
            "(microseconds, sequence)",
            "(sequence, microseconds)",
        ),
    ],
    "summaries": [
        (
            "an event at the end is inside",
            "timelines.Timeline._places",
            "(self.moments, end)",
            "(self.moments, end + 1)",
        ),
        (
            "the last bucket is cut off",
            "meter_summaries.Buckets.bounds",
            "BUCKETS_MAX), self.end]",
            "BUCKETS_MAX), self.end - 1]",
        ),
        (
            "filters let everything through",
            "meter_summaries._selected",
            "if all(",
            "if True or all(",
        ),
        (
            "a page repeats its cursor",
            "meter_summaries.list_event_summaries",
            "> cursor)",
            ">= cursor)",
        ),
        (
            "empty buckets are listed",
            "meter_summaries._Query.found",
            "elif not (summary := self.summary(bucket, values)).is_empty:",
            "elif (summary := self.summary(bucket, values)) is not None:",
        ),
    ],
    "cancellations": [
        (
            "a cancellation takes nothing away",
            "meter_log.MeterLog._cancel",
            "sequence_of(row))",
            "sequence_of(row) + 1)",
        ),
        (
            "a second cancellation has a number",
            "meter_log.MeterLog.cancel",
            "if row not in self._store.canceled:",
            "if True:",
        ),
        (
            "a canceled winner leaves an empty window",
            "timelines.Series.remove",
            "one[1] != sequence",
            "False",
        ),
        (
            "a view knows later cancellations",
            "meter_log.MeterLog._is_shown",
            "canceled.sequence,",
            "0,",
        ),
    ],
    "unbilled": [
        (
            "late events change a bill",
            "meter_views.MeterReader._bill",
            "if period in bills:",
            "if False:",
        ),
        (
            "less than 0 counts as billed",
            "meter_views.MeterReader._bill",
            "max(formula_of(meter).present(partial), 0)",
            "formula_of(meter).present(partial)",
        ),
        (
            "only what is missing is unbilled",
            "meter_views.MeterReader._deltas",
            "if delta.quantity:",
            "if delta.quantity > 0:",
        ),
    ],
    "engines": [
        (
            "a bill begins late",
            "meter_views.MeterReader._measured",
            "period.start_seconds *",
            "(period.start_seconds + 1) *",
        ),
        (
            "the first of a window counts",
            "timelines.Series.timeline",
            "readings[-1]",
            "readings[0]",
        ),
        (
            "late events are last",
            "timelines.Timeline.add",
            "(self.moments[-1], self.sequences[-1]) < (moment, sequence)",
            "True",
        ),
    ],
    "late grace": [
        (
            "the grace includes its end",
            "acceptance.standing_at",
            "< policy.late_grace",
            "<= policy.late_grace",
        ),
        (
            "the grace is the current period's",
            "acceptance.standing_at",
            "unix_seconds(boundary) - 1",
            "unix_seconds(boundary)",
        ),
        (
            "a closed period takes late usage",
            "accounts.Account.closing",
            "if not self.closed:",
            "if True:",
        ),
        (
            "late usage is billed where it was",
            "log.UsageLog._billed_at",
            "if not self._store.attributed",
            "if True",
        ),
    ],
    "compaction": [
        (
            "compaction keeps nothing",
            "cells.PeriodCells.totals",
            "row.fold(self.cells)",
            "row.identity",
        ),
        (
            "a view shows what it cuts through",
            "views.UsageView._take_compacted",
            "kept.sequences[1] <= self._sequence",
            "kept.sequences[0] <= self._sequence",
        ),
        (
            "a retry of what was dropped counts",
            "log.UsageLog._compact",
            "self._folded = len(left)",
            "self._folded = len(left); [self._holding(known).ids.clear() for known, _ in settled.values()]",
        ),
        (
            "a snapshot forgets what was dropped",
            "log.UsageLog._ids",
            "if (ids := self._holding(known).ids)}",
            "if (ids := self._holding(known).ids) and not self._store.kept}",
        ),
        (
            "compaction counts what it keeps",
            "log.UsageLog._compact",
            "flags.count(0)",
            "flags.count(1)",
        ),
    ],
}
"""Law → what is wrong, where, what is right, and what is written instead."""

ROWS = [defect for law, slips in DEFECTS.items() for defect in forbidden_by(law, *slips)]


@each(ROWS)
def test_planted_defects_die(defect):
    """The law that forbids a defect finds it within 400 examples, the same ones each time, or a
    snapshot is refused.
    """
    expect_found(defect, hunt_with(*CHECKS[defect.law]), LawBrokenError, SnapshotError)
