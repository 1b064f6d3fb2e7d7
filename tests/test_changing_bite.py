"""Each defect planted in what refuses a newer version, or keeps an invoice, must be found by the row that forbids it."""

from __future__ import annotations

import pytest
import test_changing
import test_changing_laws
import test_stored_invoices
from planting import plant

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
    test_stored_invoices.test_finalizing_again_returns_what_was_billed(test_stored_invoices.of_records)


unused = test_changing.test_what_is_owed_without_usage_is_agreed

DEFECTS = {
    "a price is no term": (records, "prices.terms_of", "price.model, ", ""),
    "an item may go": (records, "changing._changed_items", 'yield _Change("items", item, None)', "pass"),
    "usage is not looked for": (records, "changing.FoldedUsage.open_spans", "is None", "is not None"),
    "a start may come later": (records, "changing._refuse_cut", "if first < starts", "if False"),
    "an end may come earlier": (records, "changing._refuse_cut", "if last >= ends", "if False"),
    "a fee is not owed": (unused, "pricing.owes_at_zero", "return any(", "return False and any("),
    "a level is not carried": (unused, "changing.FoldedUsage.is_carried", "return mode is not None", "return False"),
    "a closed period is billed anew": (stored, "accounts.Account.stored_invoice", "if closing is None", "if True"),
    "events are not looked for": (events, "meter_log.MeasuredUsage.open_spans", "if span is not None", "if False"),
    "no stretch is open": (events, "changing.open_stretches", "if start < end", "if False"),
}


@pytest.mark.parametrize(("rows", "path", "right", "wrong"), DEFECTS.values(), ids=DEFECTS)
def test_defects_are_found(rows, path, right, wrong, monkeypatch):
    """The rows turn red where the defect is planted, and are silent without it."""
    rows()
    plant(monkeypatch, path, right, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception, MeteringError)):
        rows()


BY_LAW = {name: defect for name, (_, *defect) in DEFECTS.items()} | {
    "how it recurs is no term": ("prices.terms_of", ", price.recurring", ""),
    "a quantity is no term": ("changing._changed_items", "item.quantity != other.quantity", "False"),
    "a level that comes is not owed": (
        "changing.refuse_unbillable",
        "_owes_unused(one.newer, usage)",
        "_owes_at_zero(one.newer)",
    ),
    "a life may be moved": ("changing.refuse_unbillable", "_refuse_life(account, newer, usage, now)", "pass"),
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


@pytest.mark.parametrize(("path", "right", "wrong"), BY_LAW.values(), ids=BY_LAW)
def test_the_law_finds_them(path, right, wrong, monkeypatch):
    """The law of versions, which knows no rule, turns red where a defect is planted; it is silent without, as its tests say."""
    plant(monkeypatch, path, right, wrong)
    with pytest.raises((AssertionError, mc.MeteringError)):
        law()
