"""Slips of the pen in the SQL kernel, each of which the comparison with the log must find, on every
engine that runs it.
"""

from __future__ import annotations

import engine_cases

from metering_core.sql import texts

RESETS = "    AND last_sets.part = billable.part\n    AND last_sets.cell = billable.cell\n"

ONE_CELL = (
    "CASE WHEN billable.adds_up THEN 0 ELSE billable.place END AS place,\n"
    "    CASE WHEN billable.adds_up THEN 0 ELSE billable.timestamp END AS timestamp"
)

DEFECTS = {
    "an ended subscription is forgotten": ("judging", "is_ended AND NOT", "FALSE AND NOT"),
    "late usage of an ended subscription is refused": (
        "judging",
        "WHEN is_ended AND NOT (accepted_from",
        "WHEN is_ended AND NOT (received + 1",
    ),
    "the end of a late period is in it": (
        "judging",
        "timestamp < accepted_before) THEN 'subscription",
        "timestamp <= accepted_before) THEN 'subscription",
    ),
    "the start of what is in time is exclusive": (
        "judging",
        "WHEN NOT (accepted_from <= timestamp",
        "WHEN NOT (accepted_from < timestamp",
    ),
    "now is the future": (
        "judging",
        "timestamp > received + future",
        "timestamp >= received + future",
    ),
    "the tolerance is forgotten": ("judging", "received + future_tolerance", "received"),
    "the end of the current period is in it": (
        "judging",
        "timestamp >= current_end",
        "timestamp > current_end",
    ),
    "thresholds are ignored": ("judging", "is_set AND has_thresholds", "is_set AND FALSE"),
    "thresholds refuse increments": ("judging", "is_set AND has_thresholds", "has_thresholds"),
    "licensed prices take usage": (
        "judging",
        "WHEN aggregate_usage IS NULL THEN",
        "WHEN FALSE THEN",
    ),
    "closed periods take usage": (
        "judging",
        "WHEN closed_calendar IS NOT NULL AND (late_billed",
        "WHEN FALSE AND (late_billed",
    ),
    "the end of a closed period is closed": (
        "judging",
        "usage.timestamp < closings.ends",
        "usage.timestamp <= closings.ends",
    ),
    "the start of a closed period is open": (
        "judging",
        "closings.starts <= usage",
        "closings.starts < usage",
    ),
    "a standing begins a second late": (
        "judging",
        "standings.received_from <= usage",
        "standings.received_from < usage",
    ),
    "two standings at once": (
        "judging",
        "usage.received < standings.received_before",
        "usage.received <= standings.received_before",
    ),
    "late usage stays in its period": ("judging", "ELSE late_billed_at END", "ELSE timestamp END"),
    "what is in the closed current period is late": (
        "judging",
        "(late_billed_at IS NULL OR",
        "(FALSE OR",
    ),
    "a late set is billed again": ("judging", "(is_set OR NOT bills_late)", "NOT bills_late"),
    "late usage of any mode and price is billed": (
        "judging",
        "(is_set OR NOT bills_late)",
        "is_set",
    ),
    "a refused record claims its id": (
        "judging",
        "id IS NOT NULL AND refusal IS NULL",
        "id IS NOT NULL",
    ),
    "the last record claims the id": (
        "judging",
        "MIN(seq) AS seq, MIN_BY(quantity",
        "MAX(seq) AS seq, MIN_BY(quantity",
    ),
    "a claim has the content of the last": (
        "judging",
        "MIN_BY(quantity, seq)",
        "MAX_BY(quantity, seq)",
    ),
    "the timestamp is no content": ("judging", "AND claims.timestamp = alone.timestamp AND", "AND"),
    "the action is no content": ("judging", "AND claims.is_set = alone.is_set\n", "\n"),
    "the quantity is no content": ("judging", "claims.quantity = alone.quantity AND", ""),
    "an id counts for all items": (
        "judging",
        "claims.item = alone.item AND claims.id",
        "claims.id",
    ),
    "a retry is judged by time": (
        "judging",
        "claims.seq >= alone.seq OR",
        "alone.refusal IS NOT NULL OR claims.seq >= alone.seq OR",
    ),
    "canceled before licensed": (
        "judging",
        "WHEN aggregate_usage IS NULL THEN",
        "WHEN aggregate_usage IS NULL AND NOT is_ended THEN",
    ),
    "thresholds before canceled": (
        "judging",
        "WHEN is_ended AND NOT (",
        "WHEN NOT (is_set AND has_thresholds) AND is_ended AND NOT (",
    ),
    "future before thresholds": (
        "judging",
        "WHEN is_set AND has_thresholds",
        "WHEN timestamp <= received AND is_set AND has_thresholds",
    ),
    "after before future": (
        "judging",
        "WHEN timestamp > received +",
        "WHEN timestamp < current_end AND timestamp > received +",
    ),
    "before before closed": (
        "judging",
        "WHEN NOT (accepted_from",
        "WHEN closed_calendar IS NULL AND NOT (accepted_from",
    ),
    "the period's start is out": (
        "folding",
        "requests.reads_from <= entries.billed_at",
        "requests.reads_from < entries.billed_at",
    ),
    "late usage is found at its timestamp": (
        "folding",
        "requests.reads_from <= entries.billed_at",
        "requests.reads_from <= entries.timestamp",
    ),
    "the record that arrived last is the last": (
        "folding",
        "MAX(timestamp) AS timestamp\n  FROM requested",
        "MAX_BY(timestamp, seq) AS timestamp\n  FROM requested",
    ),
    "the earliest cell is the last": (
        "folding",
        "MAX(timestamp) AS timestamp\n  FROM requested",
        "MIN(timestamp) AS timestamp\n  FROM requested",
    ),
    "the first set resets": ("folding", "MAX(seq) AS seq", "MIN(seq) AS seq"),
    "a set does not count itself": (
        "folding",
        "billable.seq >= last_sets.seq",
        "billable.seq > last_sets.seq",
    ),
    "a set resets nothing": ("folding", "WHERE is_set\n", "WHERE FALSE\n"),
    "an increment resets": ("folding", "WHERE is_set\n", "WHERE TRUE\n"),
    "a set resets other timestamps": ("folding", RESETS, ""),
    "the greatest record, not cell": (
        "folding",
        "GROUP BY request, place, timestamp\n)",
        "GROUP BY request, place, timestamp, amount\n)",
    ),
    "all cells are one": ("folding", ONE_CELL, "0 AS place,\n    0 AS timestamp"),
    "an average is of its greatest cell": (
        "folding",
        "SUM(CASE WHEN wants_total",
        "MAX(CASE WHEN wants_total",
    ),
    "the least cell": (
        "folding",
        "MAX(cells.amount) AS greatest",
        "MIN(cells.amount) AS greatest",
    ),
    "the greatest cell": (
        "folding",
        "MIN(cells.amount) AS least",
        "MAX(cells.amount) AS least",
    ),
    "windows are not looked at apart": (
        "folding",
        "NULLIF(window_length, 0)",
        "NULLIF(10000000000 * window_length, 0)",
    ),
    "a count of different cells": (
        "folding",
        "COUNT(*) AS cells",
        "COUNT(DISTINCT cells.amount) AS cells",
    ),
    "a duplicate names the number before": (
        "numbering",
        "AS BIGINT) AS sequence",
        "AS BIGINT) - 1 AS sequence",
    ),
    "refused rows have numbers": ("numbering", "WHERE verdict IS NULL", "WHERE TRUE"),
}
"""By what goes wrong: the statement, what it says, and what is written instead."""

BATCHES = {policy: engine_cases.generated(8, 250, policy) for policy in ("attributed", "drifting")}


def defective(name: str):
    """Return which statement has the slip, and that statement with it."""
    where, right, wrong = DEFECTS[name]
    text = texts.statement(where)
    assert text.count(right) == 1, "the slip is planted in one place"
    return where, text.replace(right, wrong)


def plant(name: str, monkeypatch) -> str:
    """Let the engines read the kernel with the slip; return which statement has it."""
    where, text = defective(name)
    for module in ("engine", "records", "refusing"):
        monkeypatch.setattr(
            f"metering_core.sql.{module}.statement",
            lambda one: text if one == where else texts.statement(one),
        )
    return where
