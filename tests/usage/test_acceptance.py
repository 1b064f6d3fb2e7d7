"""The door's policy: what may be relaxed, to the second, and the receipts that come back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed

from metering_core import (
    AcceptancePolicy,
    Outcome,
    Receipt,
    UsageLog,
    UsageRecord,
    finalize_invoice,
    preview_invoice,
    summarize,
)

HOUR = timedelta(hours=1)
GRACE = {
    way: AcceptancePolicy(late_grace=HOUR, late_attribution=way)
    for way in ("usage_period", "open_period")
}
TOLERANT = AcceptancePolicy(future_tolerance=timedelta(seconds=300))
BOUNDARY = JAN.end_seconds


def verdict(policy, timestamp, now, **life):
    receipt = UsageLog([subscribed(**life)], policy=policy).append(
        [UsageRecord("si_0", 1, timestamp)], now=now
    )[0]
    return receipt.code or receipt.outcome


@pytest.mark.parametrize(
    ("policy", "timestamp", "now", "expected"),
    [
        (None, START, START, "accepted"),  # the first second, at that second
        (None, START, BOUNDARY - 1, "accepted"),
        (None, BOUNDARY - 1, BOUNDARY, "timestamp_before_current_period"),
        (None, BOUNDARY, BOUNDARY, "accepted"),
        (None, BOUNDARY, BOUNDARY - 1, "timestamp_in_future"),
        (TOLERANT, START + 300, START, "accepted"),
        (TOLERANT, START + 301, START, "timestamp_in_future"),
        (TOLERANT, BOUNDARY - 1, BOUNDARY - 5, "accepted"),
        (TOLERANT, BOUNDARY, BOUNDARY - 5, "timestamp_after_current_period"),
        *[
            (policy, *row)
            for policy in GRACE.values()
            for row in [
                (BOUNDARY - 1, BOUNDARY + 3599, "accepted"),
                (START, BOUNDARY, "accepted"),
                (BOUNDARY - 1, BOUNDARY + 3600, "timestamp_before_current_period"),
                (START - 1, BOUNDARY, "timestamp_before_current_period"),
            ]
        ],
        # As long as time itself is no error.
        (
            AcceptancePolicy(late_grace=timedelta.max - timedelta(microseconds=999_999)),
            BOUNDARY - 1,
            MAR.start_seconds - 1,
            "accepted",
        ),
    ],
)
def test_the_window_to_the_second(policy, timestamp, now, expected):
    """Tolerance is inclusive and ends with the period; grace is exclusive and reaches one period
    back.
    """
    assert verdict(policy, timestamp, now) == expected


@pytest.mark.parametrize(
    ("policy", "timestamp", "now", "expected"),
    [
        (None, START + 9, START + 9, "timestamp_before_current_period"),  # before its life
        (None, START + 10, START + 10, "accepted"),
        (None, START + 9, START + 10, "timestamp_before_current_period"),
        (None, START + 99, START + 99, "accepted"),
        (None, START + 99, START + 100, "subscription_canceled"),
        (GRACE["usage_period"], START + 99, START + 100, "accepted"),
        (GRACE["usage_period"], START + 100, START + 100, "subscription_canceled"),
        (GRACE["usage_period"], START + 99, START + 100 + 3600, "subscription_canceled"),
        (
            AcceptancePolicy(future_tolerance=HOUR),
            START + 50,
            START + 5,
            "timestamp_before_current_period",
        ),
    ],
)
def test_the_ends_of_a_life(policy, timestamp, now, expected):
    """Usage counts from the start (inclusive) to the end (exclusive) of a subscription; grace
    reaches back over its end.
    """
    assert verdict(policy, timestamp, now, start_date=START + 10, ended_at=START + 100) == expected


@pytest.mark.parametrize(
    ("way", "late", "january", "february"),
    [("usage_period", "period_closed", 5, 0), ("open_period", "accepted", 5, 3)],
)
def test_late_usage_of_a_closed_period(way, late, january, february):
    """After the invoice, late usage is refused, or billed in the open period, as the policy says;
    before, in its own period.
    """
    subscription = subscribed()
    log = UsageLog([subscription], policy=GRACE[way])
    log.record("si_0", 5, timestamp=BOUNDARY - 9, now=BOUNDARY + 60)
    assert finalize_invoice(subscription, log, JAN, now=BOUNDARY + 90).total == 5
    receipt = log.append([UsageRecord("si_0", 3, BOUNDARY - 9)], now=BOUNDARY + 120)[0]
    assert (receipt.code or receipt.outcome) == late
    assert finalize_invoice(subscription, log, JAN, now=FEB.end).total == january
    assert preview_invoice(subscription, log, now=BOUNDARY + 120).total == february
    if late == "accepted":
        (logged,) = log.records("si_0", FEB)
        assert (logged.record.timestamp, logged.billed_at) == (BOUNDARY - 9, FEB.start)


def test_late_usage_has_nowhere_to_go_where_both_are_closed():
    """Late usage is not moved to a current period that was itself finalized before the clock went
    back.
    """
    log = UsageLog([subscribed()], policy=GRACE["open_period"])
    finalize_invoice(subscribed(), log, JAN, now=FEB.end)
    finalize_invoice(subscribed(), log, FEB, now=FEB.end)
    assert (
        log.append([UsageRecord("si_0", 3, BOUNDARY - 9)], now=BOUNDARY + 1)[0].code
        == "period_closed"
    )


def test_a_late_record_of_last_ever_may_not_change_an_older_bill():
    """A record in an open period is refused where a later period was billed from looking back."""
    subscription = subscribed(priced(mode="last_ever"))
    log = UsageLog([subscription], policy=GRACE["usage_period"])
    log.record("si_0", 5, timestamp=START, now=START)
    finalize_invoice(subscription, log, FEB, now=FEB.end)
    assert (
        log.append([UsageRecord("si_0", 3, BOUNDARY - 1)], now=BOUNDARY)[0].code == "period_closed"
    )
    assert summarize(subscription.items[0], log, FEB).total_usage == 5


def receipts_of_five():
    log = UsageLog([subscribed()])
    sent = [
        ("si_0", 1, "a"),
        ("si_9", 1, None),
        ("si_0", 1, "a"),
        ("si_0", 2, "a"),
        ("si_0", 1, None),
    ]
    return log.append(
        [UsageRecord(item, quantity, START, id=key) for item, quantity, key in sent],
        now=START + DAY,
    )


def test_receipts_answer_record_by_record():
    """One receipt a record, in order: accepted ones count on, a duplicate has the first one's
    number, a refusal has none.
    """
    receipts = receipts_of_five()
    assert [(one.outcome.value, one.sequence, one.code) for one in receipts] == [
        ("accepted", 1, None),
        ("rejected", None, "subscription_item_unknown"),
        ("duplicate", 1, None),
        ("rejected", None, "id_reused"),
        ("accepted", 2, None),
    ]
    assert (len(receipts), receipts.accepted, receipts.duplicates, list(receipts.rejected)) == (
        5,
        2,
        1,
        [1, 3],
    )


def test_receipts_are_a_sequence():
    """Receipts can be sliced, indexed from the end, compared and printed; beyond the end there is
    none.
    """
    receipts = receipts_of_five()
    assert receipts[-1] == Receipt(Outcome.ACCEPTED, 2)
    assert receipts[3:] == [receipts[3], receipts[4]]
    assert receipts == receipts_of_five()
    assert receipts != [*receipts]
    assert repr(receipts).startswith(
        "<Receipts: 2 accepted, 1 duplicate, 2 rejected, first rejection: "
    )
    assert "No such subscription item" in repr(receipts)
    assert (
        repr(UsageLog().append([], now=START)) == "<Receipts: 0 accepted, 0 duplicate, 0 rejected>"
    )
    with pytest.raises(IndexError):
        receipts[5]


def test_only_a_refusal_has_an_error():
    """Asking an accepted record's receipt for its error is a programmer's error."""
    with pytest.raises(AssertionError):
        Receipt(Outcome.ACCEPTED, 1).error()
