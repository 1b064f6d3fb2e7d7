"""Each defect planted in what refuses a newer version must be found by the law that forbids it, or by the row of a table."""

from __future__ import annotations

import pytest
import test_changing_laws as laws
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planting import HUNT, plant

import metering_core as mc


def hunt_records():
    """Search histories of records."""
    _hunt(lambda first, steps, newer: laws.hold_the_law(mc.UsageLog([begun(first)]), steps, newer), laws.RECORDS)


def hunt_events():
    """Search histories of meter events."""
    policy = mc.MeterPolicy.history()
    _hunt(
        lambda first, steps, newer: laws.hold_the_law(mc.MeterLog(laws.METERS, [begun(first)], policy=policy), steps, newer),
        laws.EVENTS,
    )


def begun(first):
    """Return a first version that lives from the anchor on."""
    return mc.Subscription("sub", first.items, first.billing_cycle_anchor, customer="c")


def _hunt(law, versions):
    @settings(HUNT, max_examples=300, suppress_health_check=list(HealthCheck))
    @given(versions, laws.STEPS, st.lists(versions, min_size=4, max_size=4))
    def run(first, steps, newer):
        law(first, steps, newer)

    run()


DEFECTS = {
    "a price is no term": (
        hunt_records,
        "changing.terms_of",
        "price.currency, price.model, price.recurring",
        "price.recurring,",
    ),
    "an item may go": (hunt_records, "changing._changed_items", 'yield _Change("items", item, None)', "pass"),
    "usage is not looked for": (hunt_records, "changing.FoldedUsage.open_spans", "is None", "is not None"),
    "a start may come later": (hunt_records, "changing._refuse_cut", "if first < starts", "if False"),
    "an end may come earlier": (hunt_records, "changing._refuse_cut", "if last >= ends", "if False"),
    "a fee is not owed": (hunt_records, "changing._owes_unused", "return any(", "return False and any("),
    "a level is not carried": (hunt_records, "changing.FoldedUsage.is_carried", "return mode is not None", "return False"),
    "a closed period is billed anew": (hunt_records, "accounts.Account.stored_invoice", "if closing is None", "if True"),
    "events are not looked for": (hunt_events, "meter_log.MeasuredUsage.open_spans", "if span is not None", "if False"),
    "events of closed periods count alone": (hunt_events, "changing.open_stretches", "if start < end", "if False"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("hunt", "path", "right", "wrong"), DEFECTS.values(), ids=DEFECTS)
def test_defects_are_found(hunt, path, right, wrong, monkeypatch):
    """The law turns red where the defect is planted."""
    plant(monkeypatch, path, right, wrong)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the law's own assertion, or what the defect breaks
        hunt()


@pytest.mark.slow
def test_hunts_find_nothing_where_nothing_is_planted():
    """Without a defect the same searches are silent."""
    hunt_records()
    hunt_events()
