"""Laws that cannot fail prove nothing: each defect planted here must be found by the law that
forbids it.
"""

from __future__ import annotations

import pytest
from planting import Defect, each, expect_found, forbidden_by, hunt_with
from test_laws import CHECKS

from metering_core.testing.laws import LawBrokenError

pytestmark = pytest.mark.slow  # Half a minute: some defects are only found among many histories.


TIER_BY_TIER = "self._charge(band, subtract(quantity, band.above) if is_cut else quantity, charges)"
LATEST = "latest = max(cells, default=None)"

DEFECTS = [
    *forbidden_by(
        "rating",
        (
            "graduated: a tier's bound is exclusive",
            "charges",
            "quantity <= band.up_to",
            "(quantity < band.up_to or (quantity == band.up_to and self.reaches is Reach.LAST))",
        ),
        (
            "graduated: the first unit of a tier is lost",
            "charges",
            "subtract(quantity, band.above)",
            "subtract(quantity, band.above + 1)",
        ),
        (
            "graduated: all units in the last tier",
            "charges",
            "subtract(quantity, band.above)",
            "quantity",
        ),
        (
            "volume: a tier's bound is exclusive",
            "charges",
            "quantity <= band.up_to",
            "(quantity < band.up_to or (quantity == band.up_to and self.reaches is Reach.EACH))",
        ),
        (
            "volume: everything in the first tier",
            "charges",
            "quantity <= band.up_to",
            "(self.reaches is Reach.LAST or quantity <= band.up_to)",
        ),
        (
            "volume: everything in the last tier",
            "charges",
            "quantity <= band.up_to",
            "(self.reaches is Reach.EACH and quantity <= band.up_to)",
        ),
        ("the flat amount is forgotten", "_charge", "if flat is not None", "if False"),
        ("no flat amount for zero units", "_charge", "if flat is not None", "if flat and units"),
        (
            "graduated: the flat amount of the last tier reached only",
            "charges",
            TIER_BY_TIER,
            (
                "charges[:] = [one for one in charges if one.kind is not ChargeKind.FLAT]; "
                f"{TIER_BY_TIER}"
            ),
        ),
        (
            "the flat amount is charged per unit",
            "_charge",
            "0, flat, flat, band",
            "0, flat, units * flat, band",
        ),
        (
            "packages are rounded the wrong way",
            "_packages",
            "if self.rounds_up",
            "if not self.rounds_up",
        ),
        (
            "packages: one more even where they are full",
            "_packages",
            "ceil(exact_packages)",
            "floor(exact_packages) + 1",
        ),
        (
            "per unit: counted in floats",
            "_charge",
            "multiply(units if",
            "multiply(int(float(units)) if",
        ),
        within="pricing.Schedule.",
    ),
    Defect(
        "packages are counted in floats",
        "rating shares",
        "pricing.Schedule._packages",
        "Fraction(units)",
        "Fraction(float(units))",
    ),
    Defect(
        "shares of units are charged as people are shown them",
        "rating shares",
        "exact.multiply",
        "decimal_if_possible(Fraction(left) * Fraction(right))",
        "cut(Fraction(left) * Fraction(right))",
    ),
    Defect(
        "tiers cut what people are not shown",
        "rating shares",
        "exact.subtract",
        "whole_if_possible(Fraction(left) - Fraction(right))",
        "whole_if_possible(cut(Fraction(left) - Fraction(right)))",
    ),
    Defect(
        "long decimals are cut in products",
        "rating shares",
        "exact.multiply",
        "canonical(EXACT.multiply(",
        "cut(EXACT.multiply(",
    ),
    Defect(
        "products are rounded to the ambient precision",
        "ambient",
        "exact.multiply",
        "EXACT.multiply(",
        "Decimal.__mul__(",
    ),
    Defect(
        "sums are rounded to the ambient precision",
        "ambient",
        "money.settle",
        "amount.minor_units",
        "+amount.minor_units",
    ),
    # Cells and aggregation
    Defect(
        "a set does not replace",
        "usage",
        "cells.PeriodCells.apply",
        "is_set or before is None",
        "before is None",
    ),
    Defect(
        "in bulk a set does not replace",
        "usage",
        "log.UsageLog._fold_in_bulk",
        "if is_set:",
        "if False:",
    ),
    Defect(
        "a set replaces the whole period",
        "usage",
        "log.UsageLog._fold_in_bulk",
        "cells[timestamp] = quantity",
        "cells.clear(); cells[timestamp] = quantity",
    ),
    Defect(
        "an increment after a set is lost",
        "cells",
        "usage.Cell.merge",
        "return Cell(",
        "return self if self.is_set else Cell(",
    ),
    Defect(
        "the first set wins",
        "cells",
        "usage.Cell.merge",
        "return later",
        "return self if self.is_set else later",
    ),
    Defect(
        "merging forgets that a set was there",
        "cells",
        "usage.Cell.merge",
        ", self.is_set)",
        ", False)",
    ),
    Defect(
        "the order of arrival is swapped",
        "usage",
        "log.UsageLog._fold_in_bulk",
        "zip(*columns, strict=True)",
        "zip(*(x[::-1] for x in columns))",
    ),
    Defect(
        "max is taken over records",
        "usage",
        "log.UsageLog._fold_in_bulk",
        "cells.get(timestamp, 0) + quantity",
        "max(cells.get(timestamp, 0), quantity)",
    ),
    Defect(
        "max over records, folded one by one",
        "appending much",
        "cells.PeriodCells.apply",
        "add(before, quantity)",
        "max(before, quantity)",
    ),
    Defect(
        "last is the last to arrive",
        "aggregators",
        "measures._Last.fold",
        LATEST,
        "latest = next(reversed(cells), None)",
    ),
    Defect(
        "last is the last to arrive, in a log",
        "usage",
        "measures._Last.fold",
        LATEST,
        "latest = next(reversed(cells), None)",
    ),
    Defect(
        "last is the greatest",
        "aggregators",
        "measures._Last.merge",
        "max(left, right)",
        "max(left, right, key=lambda one: one[1])",
    ),
    Defect(
        "a kept sum adds what replaces",
        "aggregators",
        "measures._Sum.follow",
        "subtract(after, before)",
        "after",
    ),
    Defect(
        "a kept max does not sink",
        "aggregators",
        "measures._RunningExtreme.changed",
        "elif before == self._partial:",
        "elif False:",
    ),
    Defect(
        "a kept peak does not sink",
        "aggregators",
        "measures._RunningPeaks.changed",
        "elif before == peak:",
        "elif False:",
    ),
    Defect(
        "a kept peak is the latest",
        "aggregators",
        "measures._RunningPeaks.changed",
        "or after >= peak",
        "or True",
    ),
    Defect(
        "a kept count counts changes",
        "aggregators",
        "measures._Count.follow",
        "(before is None)",
        "1",
    ),
    Defect(
        "a kept average counts changes",
        "aggregators",
        "measures._Average.follow",
        "(before is None)",
        "1",
    ),
    Defect(
        "a window is a second longer",
        "aggregators",
        "measures._Peaks.prepare",
        "self.window_seconds",
        "3601",
    ),
    Defect(
        "merged peaks are the later ones",
        "aggregators",
        "measures._Peaks.merge",
        "max(peaks.get(window, quantity), quantity)",
        "quantity",
    ),
    Defect(
        "a kept last follows the arrival",
        "aggregators",
        "measures._Last.follow",
        "timestamp >= partial[0]",
        "True",
    ),
    Defect(
        "a kept partial is not told of changes",
        "appending much",
        "cells.PeriodCells.apply",
        "in self._running.values()",
        "in ()",
    ),
    Defect(
        "a kept partial survives a bulk change",
        "appending much",
        "log.UsageLog._fold_in_bulk",
        "found.forget_derived()",
        "pass",
    ),
    Defect(
        "last_ever does not look back",
        "usage",
        "cells.ItemCells.partial",
        "None if aggregator.looks_back else start",
        "start",
    ),
    Defect(
        "last_ever looks beyond the period's end",
        "usage",
        "cells.ItemCells.partial",
        "period.end_seconds",
        "period.end_seconds + aggregator.looks_back * 10**10",
    ),
    Defect(
        "usage of earlier periods counts",
        "usage",
        "cells.ItemCells.partial",
        "if not aggregator.looks_back:",
        "start = start if aggregator.looks_back else None\n    if False:",
    ),
    Defect(
        "a view shows later records",
        "usage",
        "views.UsageView._rows",
        "<= self._sequence",
        "<= self._sequence + 1",
    ),
    Defect(
        "a view hides its last record",
        "usage",
        "views.UsageView._rows",
        "<= self._sequence",
        "< self._sequence",
    ),
    # The door
    Defect(
        "the current period includes its end",
        "usage",
        "accounts.Account.is_current",
        "now < self.end",
        "now <= self.end",
    ),
    Defect(
        "a record exactly at now is refused",
        "usage",
        "acceptance.time_refusal",
        "timestamp > latest",
        "timestamp >= latest",
    ),
    Defect(
        "a record ahead of now is taken",
        "usage",
        "accounts.Account.is_current",
        "last <= now < self.end",
        "self.start <= now < self.end",
    ),
    Defect(
        "the first second is refused",
        "usage",
        "acceptance.Standing.holds",
        "first.start_seconds <= timestamp",
        "first.start_seconds < timestamp",
    ),
    Defect(
        "late usage is taken", "usage", "accounts.Account.is_current", "self.start <= first and", ""
    ),
    Defect(
        "a batch is judged by its first record",
        "usage",
        "log.UsageLog._take_all",
        "min(stamps), max(stamps)",
        "stamps[0], stamps[0]",
    ),
    Defect(
        "a set is taken in spite of thresholds",
        "usage",
        "acceptance.set_refusal",
        "if is_set and",
        "if False and",
    ),
    Defect(
        "usage of an ended subscription is taken",
        "usage",
        "acceptance.canceled_refusal",
        "if not standing.ended or",
        "if True or",
    ),
    Defect(
        "a duplicate counts twice",
        "retries",
        "log.UsageLog._take",
        "and record_id in ids",
        "and False",
    ),
    Defect(
        "an id may be used for other content",
        "retries",
        "accounts.Sent.answer",
        "received != first",
        "False",
    ),
    Defect(
        "an id may be used with the other action",
        "retries",
        "accounts._content",
        "if is_set else Action.INCREMENT",
        "if True else None",
    ),
    Defect(
        "a retry counts as a duplicate of the latest record",
        "usage",
        "accounts.Sent.answer",
        "self.sequence,",
        "self.sequence + 1,",
    ),
    Defect(
        "a retry is judged by the clock first",
        "retries",
        "log.UsageLog._take",
        "record_id in ids:",
        "record_id in ids and known.account.is_current(known.account.start, "
        "ids[record_id].timestamp, now):",
    ),
    Defect(
        "a refused record claims its id",
        "retries",
        "log.UsageLog._take",
        "return verdict",
        "self._holding(known).ids[record_id] = Sent(0, timestamp, quantity, bool(is_set), False); return verdict",
    ),
    Defect(
        "a refused record takes a number",
        "appending",
        "log.UsageLog._take_each",
        "exceptions[position] = taken",
        "exceptions[position] = taken; self._store._dropped += 1",
    ),
    Defect(
        "record() answers a retry with another timestamp",
        "appending",
        "log._resent",
        'timestamp=answer.details["timestamp"]',
        "timestamp=record.timestamp + 1",
    ),
    Defect(
        'in bulk "now" is a second early',
        "appending much",
        "columns.resolved",
        "now if",
        "now - 1 if",
    ),
    # Time
    Defect(
        "a period includes its end",
        "periods",
        "periods.BillingPeriod.__contains__",
        "< self.end",
        "<= self.end",
    ),
    Defect(
        "a period excludes its start",
        "periods",
        "periods.BillingPeriod.__contains__",
        "self.start <=",
        "self.start <",
    ),
    Defect(
        "boundaries drift from the last one",
        "periods",
        "periods.BillingCycle._boundary",
        "_months_after(self._wall_anchor, k * self._months)",
        "__import__('functools').reduce(_months_after, [self._months if k > 0 else "
        "-self._months] * abs(k), self._wall_anchor)",
    ),
    Defect(
        "a month has 30 days",
        "periods",
        "periods.BillingCycle._boundary",
        "if self._months:",
        "if False:",
    ),
    Defect(
        "a clock put back over a boundary is forgotten",
        "periods",
        "periods.BillingCycle._locate",
        "end <= moment",
        "False",
    ),
    Defect(
        "periods before the anchor are one too late",
        "periods",
        "periods.BillingCycle._locate",
        "start > moment",
        "start > moment and k > 0",
    ),
    Defect(
        "the second of two equal clock times",
        "periods",
        "periods.BillingCycle._boundary",
        "tzinfo=self._zone",
        "tzinfo=self._zone, fold=1",
    ),
    Defect(
        "boundaries ignore daylight saving",
        "periods",
        "periods.BillingCycle._boundary",
        "tzinfo=self._zone",
        "tzinfo=self._wall_anchor.replace(tzinfo=self._zone).astimezone().tzinfo",
    ),
    # Money
    Defect(
        "a half goes to the even number",
        "settling",
        "money.half_up",
        "2 * remainder >= unit",
        "2 * remainder + whole % 2 > unit",
    ),
    Defect(
        "a half goes down",
        "settling",
        "money.half_up",
        "2 * remainder >= unit",
        "2 * remainder > unit",
    ),
    Defect(
        "a half of a credit goes up",
        "settling",
        "money.half_up",
        "2 * remainder >= unit",
        "2 * remainder >= unit + (sign < 0)",
    ),
    Defect(
        "settling is done in floats",
        "settling",
        "money.half_up",
        "_magnitude(value)",
        "_magnitude(Decimal(float(value)))",
    ),
    Defect(
        "lines are settled half to even",
        "invoices",
        "money.half_up",
        "2 * remainder >= unit",
        "2 * remainder + whole % 2 > unit",
    ),
    Defect(
        "the total is rounded instead of the lines",
        "invoices",
        "invoicing.Invoice.subtotal",
        "sum(line.amount for line in self.lines)",
        "half_up(sum(line.exact for line in self.lines))",
    ),
    Defect(
        "packages are rounded before they are aggregated",
        "invoices",
        "invoicing._lines",
        "else summary.total_usage",
        "else -(-summary.total_usage // 5) * 5",
    ),
    Defect(
        "an item without usage is left out",
        "invoices",
        "invoicing.invoice_of",
        "billed(segments, rounding)",
        "(one for one in billed(segments, rounding) if segments[one.segment].quantity)",
    ),
    Defect(
        "a licensed item of none is billed as one",
        "invoices",
        "invoicing.segment_of",
        "item.quantity or 0",
        "item.quantity or 1",
    ),
    # State
    Defect(
        "a snapshot loses the ids",
        "snapshots",
        "log.UsageLog._ids",
        "if (ids := self._holding(known).ids)}",
        "if False}",
    ),
    Defect(
        "a snapshot loses the sets",
        "snapshots",
        "columns.RecordStore.values",
        "map(bool, self.sets)",
        "(False for _ in self.sets)",
    ),
    Defect(
        "a snapshot loses what was finalized",
        "snapshots",
        "book.Book.closed",
        "if account.closed}",
        "if False}",
    ),
    Defect(
        "a restored log counts from one again",
        "snapshots",
        "columns.RecordStore.of",
        "sequence - len(columns.codes)",
        "-len(columns.codes)",
    ),
]


@each(DEFECTS)
def test_planted_defects_die(defect):
    """The law that forbids a defect finds it within 400 examples, the same ones each time."""
    expect_found(defect, hunt_with(*CHECKS[defect.law]), LawBrokenError)
