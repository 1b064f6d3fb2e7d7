"""Each defect planted in what refuses a newer version, or keeps an invoice, must be found by the
row that forbids it.
"""

from __future__ import annotations

import pytest
import test_changing
import test_changing_laws
import test_stored_invoices
import test_told
from planting import Defect, each, expect_found, forbidden_by

import metering_core as mc
from metering_core.errors import MeteringError


def records():
    """Ask every row of the table of records."""
    for newer, param in test_changing.REBILLING.values():
        test_changing.test_what_would_rebill_records_is_refused(mc.UsageLog, newer, param)


def events():
    """Ask every row of the table of events."""
    for newer, param in test_changing.EVENTS_REBILLING.values():
        test_changing.test_what_would_rebill_events_is_refused(mc.MeterLog, newer, param)


def stored():
    """Finalize again, whatever came since."""
    test_stored_invoices.test_finalizing_again_returns_what_was_billed(
        test_stored_invoices.of_records
    )


def told():
    """Finalize what was not told."""
    for kind in ("records", "events", "both, of events"):
        test_told.test_a_version_that_was_not_told_is_not_finalized(
            *test_told.KINDS[kind], "finalize_invoice"
        )


def joining():
    """Bring items to meters with events, before and after the change."""
    for row in test_told.JOINING.values():
        test_told.test_an_item_does_not_bill_what_was_before_it(mc.MeterLog, *row)
    test_told.test_an_item_bills_what_comes_after_it(mc.MeterLog)
    test_told.test_a_clock_says_when_an_item_comes()


def late():
    """Tell another price under usage that was late."""
    test_changing.test_late_usage_counts_where_it_is_billed(mc.UsageLog)


def compacted():
    """Tell another price under usage that was compacted."""
    test_changing.test_what_was_compacted_before_it_was_billed_is_held()


def forward():
    """Tell every row as of the moment of the usage."""
    for name in test_changing.REBILLING:
        test_changing.test_records_from_the_change_on_are_for_the_newer_version(mc.UsageLog, name)


def longer():
    """Lengthen a life and add an item."""
    row = {"start_date": test_changing.day(10)}, {}, test_changing.day(5), test_changing.day(12)
    test_changing.test_a_longer_life_bills_nothing_from_before_on_other_terms(
        mc.MeterLog, "added", *row
    )


def shut():
    """Close without an invoice, tell another version, and bill."""
    for made in test_told.SHUT.values():
        test_told.test_what_was_closed_without_an_invoice_is_not_rated_anew(made)
    test_told.test_seats_of_a_month_that_was_closed_are_owed_as_agreed()
    test_told.test_late_usage_is_billed_against_what_was_billed()
    test_told.test_the_first_invoice_of_a_closed_month_is_that_of_then()


unused = test_changing.test_what_is_owed_without_usage_is_agreed

DEFECTS = {
    "a price is no term": (records, "prices.terms_of", "price.model, ", ""),
    "an item may go": (
        records,
        "changing._changed_items",
        'yield _Change("items", item, None)',
        "pass",
    ),
    "usage is not looked for": (records, "changing.FoldedUsage.open_usage", "if not", "if"),
    "a start may come later": (
        records,
        "changing._Judged.refuse_cut",
        "if one.first < starts",
        "if False",
    ),
    "an end may come earlier": (
        records,
        "changing._Judged.refuse_cut",
        "elif one.last >= ends",
        "elif False",
    ),
    "a fee is not owed": (unused, "pricing.owes_at_zero", "return any(", "return False and any("),
    "a level is not carried": (
        unused,
        "changing.FoldedUsage.is_carried",
        "return mode is not None",
        "return False",
    ),
    "a closed period is billed anew": (
        stored,
        "accounts.Account.finalized",
        "if closing is None",
        "if True",
    ),
    "events are not looked for": (
        events,
        "meter_log.MeasuredUsage.open_usage",
        "is not None:",
        "is None and False:",
    ),
    "no stretch is open": (events, "changing.open_stretches", "if start < end", "if False"),
}


# Of what the law does not ask.
UNTOLD = {
    "who bills does not say what": (
        told,
        "invoicing.closing_in",
        "versions=versions",
        "versions=()",
    ),
    "one of two logs is not asked": (
        told,
        "combining.CombinedUsage.closing_all",
        "(self.events, given, at, told)",
        "(self.events, given, at, [])",
    ),
    "an item too many is no difference": (
        told,
        "accounts._refuse_item_told_otherwise",
        "if item.id not in known",
        "if False",
    ),
    "an item too few is no difference": (
        told,
        "accounts.refuse_told_otherwise",
        "in known.values()",
        "in ()",
    ),
    "a quantity is no difference": (
        told,
        "accounts._refuse_item_told_otherwise",
        "if one.quantity != item.quantity",
        "if False",
    ),
    "an end is no difference": (
        told,
        "accounts.refuse_told_otherwise",
        "in _OF_ALL_ITEMS",
        "in _OF_ALL_ITEMS[:-1]",
    ),
    "a new item bills all": (
        joining,
        "changing._Judged.refuse_used",
        "[] if newer is None else",
        "[] if True else",
    ),
    "an unknown moment is late": (
        joining,
        "changing.OpenUsage.began_before",
        "said is None or self.is_late or",
        "said is not None and",
    ),
    "a moment is not before itself": (
        joining,
        "changing.OpenUsage.began_before",
        "< said",
        "<= said",
    ),
    "what is late came in time": (late, "changing.OpenUsage.began_before", "or self.is_late", ""),
    "what was compacted came in time": (
        compacted,
        "cells.PeriodCells.is_late",
        "self.kept is not None or",
        "bool(self.cells) and",
    ),
    "a dropped item bills on": (
        forward,
        "changing._Judged.refuse_used",
        "if used and not stays",
        "if False",
    ),
    "only the former life counts": (
        longer,
        "changing._Judged.refuse_used",
        "(newer, self.newer)",
        "(newer, self.former)",
    ),
    "closed is billed": (shut, "accounts.Account.is_billed", "and closing.invoice is not None", ""),
    "what is closed is no stretch": (
        shut,
        "changing.open_stretches",
        "if one.invoice is not None",
        "if True",
    ),
    "the first note stays": (
        shut,
        "meter_log.MeterLog._is_to_note",
        "or (closing.invoice",
        "or (None",
    ),
    "a bill again knows more": (
        shut,
        "meter_views.MeterReader._corrected_by",
        "before=min(same)",
        "before=bill.number",
    ),
}
BY_ROWS = DEFECTS | UNTOLD


@each([Defect(name, rows.__name__, *slip) for name, (rows, *slip) in BY_ROWS.items()])
def test_defects_are_found(defect):
    """The rows turn red where the defect is planted, and are silent without it."""
    rows = BY_ROWS[defect.name][0]
    rows()
    expect_found(defect, rows, AssertionError, KeyError, MeteringError, pytest.fail.Exception)


BY_LAW = {name: defect for name, (_, *defect) in DEFECTS.items()} | {
    "how it recurs is no term": ("prices.terms_of", ", price.recurring", ""),
    "a quantity is no term": (
        "changing._changed_items",
        "item.quantity != other.quantity",
        "False",
    ),
    "a level that comes is not owed": (
        "changing.refuse_unbillable",
        "_owes_unused(one.newer, usage)",
        "_owes_at_zero(one.newer)",
    ),
    "a life may be moved": ("changing.refuse_unbillable", "judged.refuse_life()", "pass"),
}
# One log of records and one of events, and of each those kinds whose bills are made otherwise.
KINDS = [
    "sum, records",
    "last_ever, records",
    "with a fee, records",
    "licensed, records",
    "mtr_sum, events",
    "mtr_level, events",
]


def law():
    """Hold the law for the histories that are not left to luck."""
    for name in KINDS:
        engine, kind = test_changing_laws.ENGINES[name]
        for history in test_changing_laws.SAMPLES:
            test_changing_laws.hold_the_law(engine, kind, history)


@each(forbidden_by("law", *((name, *slip) for name, slip in BY_LAW.items())))
def test_the_law_finds_them(defect):
    """The law of versions, which knows no rule, turns red where a defect is planted; it is silent
    without, as its tests say.
    """
    expect_found(defect, law, AssertionError, MeteringError)
