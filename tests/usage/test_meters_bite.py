"""Each defect planted in how meter events are read, judged and billed must be found by the law that
forbids it.

In the manner of :mod:`test_laws_bite`: one slip of the pen in one function, then the law's own
test, without shrinking. Most laws are those of the state machine, so the hunts are long; ``make
slow`` runs them.
"""

from __future__ import annotations

import pytest
import test_formulas
import test_meter_bills
import test_meter_log
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from planting import HUNT, Defect, each, expect_found, forbidden_by, found, with_slip
from test_formulas import ROWS, histories, lengths, starts
from test_meter_bills import actions
from test_meter_machine import tell

from metering_core.errors import MeteringError


def hunted(test, *strategies):
    """Return a hunt by a Hypothesis test's own body, with these fixed arguments."""
    body = test.hypothesis.inner_test

    def hunt(*fixed):
        @settings_of(HUNT, max_examples=100)
        @given(st.tuples(*strategies))
        def run(case):
            body(*fixed, *case)

        run()

    return hunt


def in_every_row(test, *strategies):
    hunt = hunted(test, *strategies)

    def through_rows():
        for row in ROWS:
            hunt(row)

    return through_rows


def warm():
    hunt = hunted(test_meter_log.test_what_was_asked_before_does_not_matter, st.integers(0, 2**32))
    for formula in ("sum", "last", "weighted_sum"):
        for window in (None, "hour"):
            hunt(formula, window)


def carrying():
    test_meter_bills.test_carried_deltas_are_billed_by_the_next_invoice()
    hunted(test_meter_bills.test_what_carry_forward_bills, actions)("sum")


def machine():
    for number in range(1500):
        tell(number)


LAWS = {
    "agreeing": in_every_row(
        test_formulas.test_formulas_agree_with_the_slow_reader, histories, starts, lengths
    ),
    "merging": in_every_row(
        test_formulas.test_merging_is_associative_and_commutative, histories, histories, histories
    ),
    "carrying": carrying,
    "warm": warm,
    "machine": machine,
}


def in_formulas(*rows):
    return [
        Defect(name, law, f"measures.{function}", right, wrong)
        for name, law, function, right, wrong in rows
    ]


def at_the_machine(module, *rows):
    return forbidden_by("machine", *rows, within=f"{module}.")


DEFECTS = [
    *in_formulas(
        (
            "sums round to the ambient context",
            "agreeing",
            "_Sum.merge",
            "add(left, right)",
            "left + right",
        ),
        (
            "the least is the greatest",
            "agreeing",
            "_Min.merge",
            "min(left, right)",
            "max(left, right)",
        ),
        ("no least is above 0", "agreeing", "_Min.present", "else partial", "else min(partial, 0)"),
        (
            "no greatest is below 0",
            "agreeing",
            "_Max.present",
            "else partial",
            "else max(partial, 0)",
        ),
        (
            "values in two parts are in none",
            "agreeing",
            "_UniqueCount.merge",
            "left | right",
            "left ^ right",
        ),
        (
            "nothing is one value",
            "agreeing",
            "_UniqueCount.present",
            "len(partial)",
            "len(partial) or 1",
        ),
        (
            "an average counts parts, not events",
            "agreeing",
            "_Average.merge",
            "left[1] + right[1]",
            "max(left[1], right[1])",
        ),
        (
            "averages are floats",
            "agreeing",
            "_Average.present",
            "Fraction(total)",
            "Fraction(float(total))",
        ),
        ("the later part has the last", "merging", "_Last.merge", "max(left, right)", "right"),
        (
            "the greater of two at one moment is last",
            "agreeing",
            "_Last.prepare_event",
            "((microseconds, sequence), value)",
            "((microseconds, value), value)",
        ),
        (
            "nothing is carried forward",
            "agreeing",
            "Aggregator.over",
            "if self.looks_back",
            "if False",
        ),
        (
            "a level counts from before its window",
            "agreeing",
            "_WeightedSum.over",
            "multiply(before[0], start)",
            "before[1]",
        ),
        (
            "no level is carried",
            "agreeing",
            "_WeightedSum.over",
            "(before[0], multiply",
            "(0, multiply",
        ),
        (
            "a window is a microsecond longer",
            "agreeing",
            "_WeightedSum.present",
            "/ (end - start)",
            "/ (end - start + 1)",
        ),
        (
            "levels are floats",
            "agreeing",
            "_WeightedSum.prepare",
            "multiply(quantity,",
            "multiply(int(float(quantity)),",
        ),
    ),
    *at_the_machine(
        "meter_log.MeterLog",
        (
            "a canceled event frees its identifier",
            "_take",
            "if row is not None and",
            "if row is not None and row not in self._store.canceled and",
        ),
        (
            "5 minutes are exclusive",
            "_take",
            "stamp - received > tolerance",
            "stamp - received >= tolerance",
        ),
        ("35 days are exclusive", "_take", "stamp < earliest", "stamp <= earliest"),
        ("the bounds of time stay", "_take", "if not day <= received < until", "if not until"),
        (
            "a refusal has a number",
            "_take",
            "return meter_unknown",
            "self._store.received.append(0); return meter_unknown",
        ),
        ("retention is exclusive", "_remembers", "<= retention", "< retention"),
        (
            "retention counts from the event's time",
            "_remembers",
            "self._store.received[row]",
            "self._store.moments[row]",
        ),
        (
            "a retry may have another time",
            "_answer",
            "received == first",
            'received["payload"] == first["payload"]',
        ),
        ("a retry of now must know when", "_content_at", "in self._sent_as_now", "in ()"),
        ("what was sent is not kept", "_keep_rest", "if not is_told", "if False"),
        (
            "a second cancellation has a number",
            "cancel",
            "if row not in self._store.canceled:",
            "if True:",
        ),
        (
            "a cancellation takes nothing away",
            "_cancel",
            "self._store.sequence_of(row))",
            "self.sequence)",
        ),
        (
            "the cancel window counts from the event's time",
            "_refuse_late_cancellation",
            "self._store.received[row]",
            "self._store.moments[row]",
        ),
        (
            "events are canceled by any name",
            "_find",
            "or self._streams[self._store.codes[row]].known is not known",
            "",
        ),
        (
            "other keys are forgotten",
            "_take",
            "is_told=is_told and width == known.keys",
            "is_told=is_told",
        ),
        (
            "what comes after a question is not folded",
            "_fold",
            "into.rows = len(self)",
            "into.rows = len(self) + 1",
        ),
        (
            "a view knows later cancellations",
            "_is_shown",
            "sees(canceled.sequence,",
            "sees(self._store.sequence_of(row),",
        ),
    ),
    *at_the_machine(
        "meter_log",
        (
            "an inactive meter takes events of known series",
            "_KnownMeter.take",
            "bound if meter.is_active else 0",
            "bound",
        ),
        ("leading zeros are dropped", "_KnownMeter.read", "plain(value) == text", "True"),
    ),
    *at_the_machine(
        "meter_views",
        ("a closed day is billed anew", "MeterReader._bill", "if period in bills:", "if False:"),
        (
            "less than 0 counts as billed",
            "MeterReader._bill",
            "max(formula_of(meter).present(partial), 0)",
            "formula_of(meter).present(partial)",
        ),
        ("what was carried is owed still", "MeterReader._deltas", "measured, later)", "measured)"),
        (
            "a view knows later bills",
            "MeterView._knows",
            "bill.number <= self._bills_made and ",
            "",
        ),
        (
            "a view's moment is exclusive",
            "MeterView._sees",
            "received <= self._received_by",
            "received < self._received_by",
        ),
        (
            "a view shows one number more",
            "MeterView._sees",
            "sequence <= self._sequence",
            "sequence <= self._sequence + 1",
        ),
        (
            "a bill begins a second late",
            "MeterReader._measured",
            "period.start_seconds *",
            "(period.start_seconds + 1) *",
        ),
    ),
    Defect(
        "late usage is carried for ever",
        "carrying",
        "meter_views.MeterReader._deltas",
        "measured, later)",
        "measured)",
    ),
    Defect(
        "what is below 0 is paid out",
        "carrying",
        "meter_views.MeterReader._corrected_now",
        "max(one.measured, 0)",
        "one.measured",
    ),
    *at_the_machine(
        "meter_acceptance",
        (
            "35 days are 840 hours",
            "MeterPolicy.earliest",
            "(now // _DAY - self.backdate_days) * _DAY",
            "now - self.backdate_days * _DAY",
        ),
        (
            "values go through floats",
            "_checked_number",
            'Decimal(text.rstrip("0"))',
            "Decimal(float(text))",
        ),
        (
            "an empty dimension is none",
            "_dimensions_refusal",
            "if key not in payload",
            "if not payload.get(key)",
        ),
        ("a count takes garbage", "value_of", "and not isinstance(number, Receipt)", ""),
        ("an unknown customer is known", "is_customer", "customer in customers", "bool(customers)"),
    ),
    *at_the_machine(
        "timelines",
        (
            "the winner of a window is the latest",
            "Series.timeline",
            "readings[-1]",
            "max(readings)",
        ),
        ("overwritten events count", "Series._count", "if former is not None:", "if False:"),
        (
            "a canceled winner leaves an empty window",
            "Series.remove",
            "one[1] != sequence",
            "False",
        ),
        (
            "late events are last",
            "Timeline.add",
            "(self.moments[-1], self.sequences[-1]) < (moment, sequence)",
            "True",
        ),
    ),
    *forbidden_by(
        "warm",
        (
            "a late event leaves blocks stale",
            "timelines.Timeline.settle",
            "self._forget(moment for moment, _ in changes)",
            "pass",
        ),
        (
            "small blocks are stale",
            "timelines.Timeline._forget",
            "moment // width",
            "moment // width if width > 900_000_000 else 0",
        ),
        (
            "part of a block is kept for all of it",
            "timelines.Timeline._of_block",
            "if is_whole and",
            "if",
        ),
        (
            "a block is taken that ends too late",
            "timelines.Timeline._between",
            "or first + kept[1] > end",
            "",
        ),
        ("a block is taken that began before", "timelines.Timeline._between", "or is_cut", ""),
        (
            "an event at the end is inside",
            "timelines.Timeline._places",
            "bisect_left(self.moments, end)",
            "bisect_left(self.moments, end + 1)",
        ),
        (
            "what is in a window was before it",
            "readings.window_of",
            "timeline.partial(None, start)",
            "timeline.partial(None, end)",
        ),
    ),
]


@pytest.mark.slow
@each(DEFECTS)
def test_planted_defects_die(defect):
    """The law that forbids a defect finds it, among the same examples each time."""
    expect_found(defect, LAWS[defect.law], AssertionError, MeteringError, TypeError)


def test_planted_defects_are_slips():
    """Every defect can still be planted: the right text is in its function, and the wrong one
    compiles.
    """
    for defect in DEFECTS:
        planted = with_slip(defect.function, defect.right, defect.wrong)
        assert planted.__code__ != found(defect.function).__code__
    assert len(DEFECTS) >= 25
