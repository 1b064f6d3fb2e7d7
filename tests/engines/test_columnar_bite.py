"""Tests that cannot fail prove nothing: each defect planted in the columns must be found by
comparing them with the log.
"""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

pytest.importorskip("numpy", reason="needs the extra columnar")

from builders import FEB, JAN, MAR, MODES, START, four_modes, priced
from columnar_twins import (
    MAX,
    Twins,
    days_apart,
    grace_and_retries,
    late_again,
    late_and_compacted,
    live,
    same_codes,
    same_in_both_kernels,
    stories,
    strings_and_hashes,
    two_kernels_asked,
)
from hypothesis import given, settings
from planting import HUNT, each, expect_found, forbidden_by
from test_columnar import catalog_of, usage_of

import metering_core as mc
from metering_core.columnar import answering, folding, totals
from metering_core.periods import from_unix_seconds

pytestmark = pytest.mark.slow  # A minute or two: some defects are only found among many stories.


SET_OR_NOT = ("set", "increment")

PLACES_REVERSED = "sizes.sum(axis=0) - np.cumsum(sizes, axis=0)"

DEFECTS = forbidden_by(
    "the log",
    # The kernel
    (
        "a set does not replace",
        "folding._last_sets",
        "firsts[cells[is_last]] = places[is_last]",
        "pass",
    ),
    (
        "the first set wins",
        "folding._last_sets",
        "cells[1:] != cells[:-1], True",
        "cells[1:] == cells[:-1], True",
    ),
    ("a cell forgets that it was set", "folding._last_sets", "were_set[cells] = True", "pass"),
    ("merging forgets sets", "folding._joined_sets", "all(", "any("),
    (
        "the bound is never proven",
        "numbers.bound_of",
        "return cheap",
        "return 0",
    ),
    ("the bound forgets the number of rows", "numbers.bound_of", "* len(values)", ""),
    (
        "bounds do not add up in a merge",
        "folding.merge",
        "sum(run.bound for run in some)",
        "max(run.bound for run in some)",
    ),
    ("bounds of parts do not add up", "totals._dtype_of", "sum(part.bound for part in parts)", "0"),
    ("no number is made wide", "numbers.summable", "bound <= INT64_MAX", "True"),
    (
        "exact bounds wrap",
        "numbers.bound_of",
        "if cheap <= INT64_MAX else _exact_sum(np.abs(values))",
        "",
    ),
    ("the halves of bits overlap", "numbers._exact_sum", "_HALF_BITS) +", "_HALF_BITS) *"),
    (
        "folding by value forgets rows of one cell",
        "folding._fold_by_value",
        "segment_sums(values, starts, np.append(starts[1:], len(values)))",
        "values[starts]",
    ),
    (
        "packed keys are one bit too narrow",
        "folding._widths",
        "(int(rows.moments.max()) - low).bit_length()",
        "max((int(rows.moments.max()) - low).bit_length() - 1, 0)",
    ),
    (
        "the arrival takes one bit too few",
        "folding.arrival_order",
        "(len(rows) - 1).bit_length()",
        "max((len(rows) - 1).bit_length() - 1, 0)",
    ),
    (
        "arrival is not part of the key",
        "folding.arrival_order",
        "np.arange(block.start, block.stop, dtype=np.int64)",
        "np.arange(block.start, block.stop, dtype=np.int64)[::-1]",
    ),
    (
        "values take one bit too few",
        "folding._fold_by_value",
        "int(rows.values.max()).bit_length()",
        "max(int(rows.values.max()).bit_length() - 1, 0)",
    ),
    ("the quantity of a set stays inverted", "folding._in_order", "values ^= values >> 63", "pass"),
    (
        "cells of two rows have one",
        "folding.segment_sums",
        "ends - firsts > 1",
        "ends - firsts > 2",
    ),
    ("wide numbers are cut", "numbers.narrowed", "greatest(values) > INT64_MAX", "False"),
    (
        "a cell's end is the next cell's second row",
        "folding._cells",
        "starts[1:]",
        "starts[1:] + 1",
    ),
    (
        "the last cell is lost",
        "folding.Cells.between",
        "slice(first, last)",
        "slice(first, max(last - 1, first))",
    ),
    (
        "a period ends inclusively",
        "totals.Window._holds",
        "rows.moments < self.highs",
        "rows.moments <= self.highs",
    ),
    ("a period begins late", "totals.Window._holds", "<= rows.moments)", "< rows.moments)"),
    (
        "parts are taken whole that are not",
        "totals.Window.takes_all",
        "rows.high < int",
        "True or int",
    ),
    (
        "parts are left out that count",
        "totals.Window.takes_some",
        "rows.high >= int",
        "rows.high > int",
    ),
    (
        "some of the parts are taken for all",
        "totals.Window.together",
        "len(parts) == 1",
        "len(parts) >= 1",
    ),
    (
        "touched rows are counted twice",
        "totals.sums",
        "_accumulate(np.subtract, totals, collided)",
        "pass",
    ),
    (
        "touched cells are lost",
        "totals.sums",
        "_accumulate(np.add, totals, fold(collided).as_rows())",
        "pass",
    ),
    (
        "touched cells are looked for in another place",
        "totals._Touched.among",
        "self.shift",
        "self.shift + 1",
    ),
    ("max is taken over records", "totals.maxima", "alone[collided] = False", "pass"),
    (
        "max forgets cells of several rows",
        "totals.maxima",
        "_accumulate(np.maximum, best, fold(rows.part(collided)).as_rows())",
        "pass",
    ),
    (
        "the first of several rows is taken for alone",
        "totals._collisions",
        "flags[:-1] |= is_same",
        "pass",
    ),
    ("last is the first", "totals.lasts", "np.maximum.at", "np.minimum.at"),
    (
        "last takes one row of the cell",
        "totals.lasts",
        "fold(joined(deciding))",
        "fold(attrs.evolve(joined(deciding), sets=None))",
    ),
    # Answers
    (
        "last_ever does not look back",
        "answering.Question.first",
        "AGGREGATORS[self.mode].looks_back",
        "False",
    ),
    (
        "a period counts what was before",
        "answering.Question.first",
        "AGGREGATORS[self.mode].looks_back",
        "True",
    ),
    ("late usage is forgotten", "answering.Answers._with_beside", "if beside is None", "if True"),
    (
        "later rows are not indexed",
        "answering.Answers._index",
        "self.parts[indexed:]",
        "self.parts[indexed + bool(indexed) :]",
    ),
    (
        "later late rows are not folded",
        "answering.Answers.beside",
        "folded < len(self.late)",
        "not folded",
    ),
    (
        "runs are merged in the wrong order",
        "answering.Answers._index",
        "fold(part.rows), merge)",
        "fold(part.rows), lambda some: merge(some[::-1]))",
    ),
    (
        "an item that is asked for twice is answered once",
        "answering._rounds",
        "windows - windows[",
        "0 * windows[",
    ),
    (
        "in bulk last_ever does not look back",
        "answering.Questions.of",
        "if AGGREGATORS[mode].looks_back",
        "if False",
    ),
    (
        "of all items last_ever does not look back",
        "answering.Questions.of_all",
        "looks_back else",
        "looks_back and False else",
    ),
    ("the last second of the rows is left out", "answering.Questions.within", "high + 1", "high"),
    (
        "no cell is less than nothing",
        "answering._Answered.quantities",
        "np.where(self.totals.is_there, values, 0)",
        "values",
    ),
    (
        "a mode answers for its neighbour",
        "answering.Answers.quantities_by_mode",
        "at * items :",
        "0 * at :",
    ),
    # The door
    ("the period's end is inclusive", "judging._between", "(stamps < high)", "(stamps <= high)"),
    (
        "the period's end is inclusive for all",
        "judging._between",
        "max()) < high",
        "max()) <= high",
    ),
    ("the period's start is exclusive", "judging._between", "stamps >= low", "stamps > low"),
    (
        "the earliest timestamp is not looked at",
        "judging._between",
        "low <= int(stamps.min())",
        "True",
    ),
    (
        "now is in the future",
        "judging.Rules._within_time",
        "batch.stamps <= latest",
        "batch.stamps < latest",
    ),
    (
        "only the last moment is looked at",
        "judging.Rules._within_time",
        "latest.min()",
        "latest.max()",
    ),
    ("a segment begins too late", "judging.Rules._within_time", 'side="right"', 'side="left"'),
    (
        "the first day after those without rows is left out",
        "judging.Received.from_then_on",
        "else found * _DAY",
        "else (found + 1) * _DAY",
    ),
    ("days begin too late", "judging.Rules._received", "days[0] * _DAY", "(days[0] + 1) * _DAY"),
    (
        "the late grace ends a second late",
        "judging._next_change",
        "// timedelta(seconds=1)",
        "// timedelta(seconds=1) + 1",
    ),
    ("thresholds are ignored", "judging.Rules.__init__", "& ~is_plain", "& False"),
    (
        "licensed items take usage",
        "judging.Rules.__init__",
        "price_refusal(items[code].item) is None",
        "True",
    ),
    ("dropped items take usage", "judging.Rules.__init__", "items[code].is_active", "True"),
    (
        "refused items are not looked for",
        "judging.Rules.acceptable",
        "self._is_open[batch.named].all()",
        "True",
    ),
    ("closed periods are forgotten", "judging.Rules.may_be_closed", "flags.any()", "False"),
    (
        "closed periods are looked up once",
        "judging.Rules.forget_closed",
        "self._closed_until = None",
        "pass",
    ),
    (
        "late usage is never attributed",
        "usage.ColumnarUsage._judge_closed",
        "elif said is not None",
        "elif False",
    ),
    (
        "a late set is an increment",
        "usage.ColumnarUsage._judge_closed",
        "is_set=is_set",
        "is_set=False",
    ),
    # Ids
    (
        "ids of the batch itself are not seen",
        "identity.Identities.suspects",
        "twice[1:] |= is_twice",
        "pass",
    ),
    (
        "ids of earlier batches are not seen",
        "identity.Identities.suspects",
        "twice |= run.hashes",
        "twice &= run.hashes",
    ),
    (
        "a refused row claims its id",
        "usage.ColumnarUsage._judge_ids",
        "elif verdict.accepted[row]",
        "else",
    ),
    (
        "a late duplicate is kept",
        "usage.ColumnarUsage._judge_ids",
        "verdict.attributed.pop(row, None)",
        "pass",
    ),
    (
        "a duplicate is kept",
        "usage.ColumnarUsage._judge_ids",
        "verdict.accepted[row] = False",
        "pass",
    ),
    (
        "a claim forgets that it was set",
        "usage._claims",
        "arriving.sets[rows].astype(np.int8)",
        "0 * arriving.sets[rows].astype(np.int8)",
    ),
    (
        "a claim forgets that it was sent as now",
        "usage._claims",
        "if as_now is not None",
        "if False",
    ),
    # Keeping
    (
        "refused rows are kept",
        "usage.ColumnarUsage._with",
        "flags = verdict.accepted",
        "flags = np.ones_like(verdict.accepted)",
    ),
    (
        "attributed rows are kept twice",
        "usage.ColumnarUsage._with",
        "flags[list(verdict.attributed)] = False",
        "pass",
    ),
    (
        "numbers have gaps",
        "usage.ColumnarUsage._with",
        "np.count_nonzero(verdict.accepted)",
        "len(arriving)",
    ),
    ("a view shows one more", "answering.Part.is_seen", "<= sequence", "<= sequence + 1"),
    (
        "a view shows what was received later",
        "answering.Part.is_seen",
        "received_by is None",
        "True",
    ),
    (
        "a view survives compaction",
        "usage.ColumnarView._answers",
        "self._answered[0] != self._usage.compactions",
        "False",
    ),
    (
        "compaction drops open periods",
        "usage._Dropping._period_of",
        "keys < self._ends[found]",
        "True",
    ),
    ("compaction forgets late rows", "usage._Dropping.take_late", "if period < 0", "if True"),
    within="columnar.",
)


COMPILED_DEFECTS = forbidden_by(
    "NumPy",
    (
        "a period ends inclusively",
        "compiled.folding._add",
        "stamps[i] < windows[c, 1]",
        "stamps[i] <= windows[c, 1]",
    ),
    (
        "a period begins late",
        "compiled.folding._add",
        "windows[c, 0] <= stamps[i]",
        "windows[c, 0] < stamps[i]",
    ),
    ("one worker's sums are lost", "compiled.folding._added_up", "first += other", "pass"),
    (
        "touched rows are counted twice",
        "compiled.folding._add_untouched",
        "quantities[i] & (is_touched - 1)",
        "quantities[i]",
    ),
    ("no row is touched", "compiled.folding._add_untouched", "& bits == bits", "& bits == ~bits"),
    (
        "half of the cells are marked",
        "compiled.folding._mark",
        "range(len(codes))",
        "range(len(codes) // 2)",
    ),
    (
        "touched cells are lost",
        "compiled.folding._sums_with_sets",
        "_ in done), folded.totals[:, 0]]",
        "_ in done)]",
    ),
    (
        "later rows of the latest cell are lost",
        "compiled.folding._follow",
        "stamp >= known >> 1",
        "stamp > known >> 1",
    ),
    ("a set does not replace the latest cell", "compiled.folding._follow", "and not is_set", ""),
    (
        "the latest cell forgets that it was set",
        "compiled.folding._follow",
        "is_set = known & 1",
        "is_set = 0",
    ),
    (
        "a later worker's set does not replace",
        "compiled.folding._follow_on",
        "and not later[c, 0] & 1",
        "",
    ),
    (
        "a later worker's cell is lost",
        "compiled.folding._follow_on",
        ">= latest[c, 0] >> 1:",
        "> latest[c, 0] >> 1:",
    ),
    (
        "later workers' rows arrive first",
        "compiled.folding._Units.of",
        "np.cumsum(sizes, axis=0) - sizes",
        PLACES_REVERSED,
    ),
    (
        "keys forget sets",
        "compiled.folding._spread",
        "(is_set << (value_bits - _ONE))",
        "np.uint64(0)",
    ),
    (
        "quantities apart forget sets",
        "compiled.folding._spread",
        "(is_set << _SIX)",
        "np.uint64(0)",
    ),
    (
        "quantities have no room for their flag",
        "compiled.folding._Layout.of",
        "bit_length() + 1",
        "bit_length()",
    ),
    (
        "the arrival is left out of keys",
        "compiled.folding._Layout.of",
        "all(part.sets is None for part in asked.parts)",
        "True",
    ),
    (
        "sets in keys are not read",
        "compiled.folding._part_from_values",
        "((key >> flag) & _ONE)",
        "np.uint64(0)",
    ),
    ("a set does not replace", "compiled.folding._reduce", "elif value & _SET:", "elif False:"),
    (
        "only the last cell is summed",
        "compiled.folding._reduce",
        "total += quantity",
        "total = quantity",
    ),
    ("the greatest is the last", "compiled.folding._reduce", "max(greatest, quantity)", "quantity"),
    (
        "a cell is its last row",
        "compiled.folding._reduce_to_cells",
        "quantities[found] += np",
        "quantities[found] = np",
    ),
    (
        "a cell forgets a later set",
        "compiled.folding._reduce_to_cells",
        "were_set[found] = True",
        "pass",
    ),
    (
        "a cell forgets a first set",
        "compiled.folding._reduce_to_cells",
        "were_set[found] = is_set",
        "were_set[found] = False",
    ),
    ("gaps between units stay", "compiled.folding._closed_up", "if at != which.start", "if False"),
    ("sums beyond 64 bits are let in", "paths._fast", "<= INT64_MAX", "<= 4 * INT64_MAX"),
    within="columnar.",
)

STRING_DEFECTS = forbidden_by(
    "Arrow",
    (
        "a sliced array begins with the first string",
        "_strings_of",
        "array.offset : array.offset +",
        "0 :",
    ),
    ("offsets are read as narrower ones", "_strings_of", '"large_string"', '"none"'),
    ("a name is numbered anew", "_number", "(h >> _HALF << _HALF) |", ""),
    ("a piece begins to number anew", "_numbered", "known = count", "pass"),
    ("no string is compared", "encoded", "all(are_named)", "True"),
    ("lengths are not compared", "_are_named", "end - start != other_end - other", "False"),
    (
        "the last bytes are not compared",
        "_are_named",
        "words[end - _WORD] != name_words[other_end - _WORD]",
        "False",
    ),
    (
        "the first bytes are not compared",
        "_are_named",
        "words[start] != name_words[other]",
        "False",
    ),
    ("short strings are not compared", "_are_named", "data[start] != name_data[other]", "False"),
    within="columnar.compiled.strings.",
)


def batch_after_batch():
    """Compare runs of cells that only differ from the log when they are merged: sets after none,
    sums beyond 64 bits.
    """
    twins = Twins(catalog_of(10))
    for item, _ in asked_of(twins, [JAN]):
        for action, quantity in (
            ("increment", MAX - 1),
            ("increment", MAX - 2),
            ("set", 2),
            ("increment", MAX - 1),
        ):
            twins.append(
                [mc.UsageRecord(item.id, quantity, timestamp=START, action=action)], START + 5
            )
            twins.same(lambda usage, item=item: usage.partial(item, JAN))


def one_number_wide():
    """Compare sums that leave 64 bits only when two batches of one record each are merged."""
    for action in ("increment", "set"):
        twins = Twins(catalog_of(10))
        for at in range(2):
            twins.append(
                [mc.UsageRecord("si_0", MAX - 1, timestamp=START + at, action=action)], START + 5
            )
            twins.same(lambda usage: usage.partial(usage.known("si_0").item, JAN))


def edges():
    """Compare periods at their first and last seconds, and one without rows of its own, all items
    at once.
    """
    twins = Twins(catalog_of(80))
    stamps = [
        START,
        START + 1,
        JAN.end_seconds - 1,
        FEB.start_seconds,
        FEB.start_seconds + 1,
        FEB.end_seconds - 1,
    ]
    records = [
        mc.UsageRecord(f"si_{number}", number + at % 7, timestamp=at)
        for at in stamps
        for number in range(80)
    ]
    twins.import_history(records, [record.timestamp for record in records])
    twins.same(lambda usage: usage.partials(asked_of(twins, [JAN, FEB, MAR])))
    tolerant = Twins(catalog_of(10), mc.AcceptancePolicy(future_tolerance=timedelta(seconds=9)))
    for offsets in ((-1, 0), (-1, 0, 1)):
        records = [mc.UsageRecord("si_0", 1, timestamp=FEB.start_seconds + at) for at in offsets]
        tolerant.append(records, FEB.start_seconds - 1)


def at_the_door():
    """Compare what few subscriptions refuse, the first second of a period, ids that come twice, and
    views of a moment.
    """
    seats = mc.SubscriptionItem("seats", priced(mode=None))
    limited = attrs.evolve(
        four_modes(), billing_thresholds=mc.subscriptions.BillingThresholds(amount_gte=9)
    )
    limited = attrs.evolve(limited, items=[*limited.items, seats])
    records = [
        mc.UsageRecord(item.id, 1, timestamp=START, action=action)
        for item in limited.items
        for action in SET_OR_NOT
    ]
    Twins([limited]).append(records, START)
    twins = Twins([four_modes()])
    stamps = [START - 1, START, START, START + 1, START + 1]
    twins.append([mc.UsageRecord("sum", 1, timestamp=at, id="same") for at in stamps], START + 1)
    twins.compare(START + 1)
    twins.import_history(
        [mc.UsageRecord("sum", 1, timestamp=START)] * 3, [START + at for at in (1, 2, 3)]
    )
    twins.compare_views([from_unix_seconds(START + at) for at in (0, 1, 2, 3)], START + 3)


def known_no_more():
    """Compare usage of an item that the newest version of its subscription dropped, and of history
    from the future.
    """
    subscription = four_modes()
    twins = Twins([subscription])
    kept = attrs.evolve(subscription, items=subscription.items[1:])
    twins.same(lambda usage: usage.subscribe(kept))
    records = [mc.UsageRecord(item.id, 1, timestamp=START + 5) for item in subscription.items]
    twins.append(records, START + 9)
    twins.import_history(records, [START + at for at in (9, 6, 5, 4)])


def one_mode():
    """Compare catalogs of a single mode, whose parts are taken whole."""
    for mode in MODES:
        twins = Twins(catalog_of(80, (mode,)))
        asked = asked_of(twins, [JAN])
        for seed, sets in enumerate((0, 0.1, 0.4)):
            twins.append(usage_of(80, 300, 9, [0, 1, 9], sets, seed), JAN.end_seconds - 1)
            twins.same(lambda usage, asked=asked: usage.partials(asked))
            twins.same_totals(asked)
            twins.same_totals_of_all(FEB)


def wide_maximum():
    """Compare a greatest cell of two limbs whose lower one is less than that of the greatest before
    it.
    """
    twins = Twins(catalog_of(80, ("max",)))
    quantities = (2**41 - 1, 2**41, 2**41)  # The first is alone in its cell; the others share one.
    records = [
        mc.UsageRecord("si_0", one, timestamp=START + min(at, 1))
        for at, one in enumerate(quantities)
    ]
    twins.append([*records, *[mc.UsageRecord("si_1", MAX, timestamp=START)] * 2], START + 5)
    twins.append([mc.UsageRecord("si_2", 1, timestamp=START + at) for at in range(9)], START + 9)
    lowered = [("increment", 100), ("set", 5)]
    twins.append(
        [mc.UsageRecord("si_3", one, timestamp=START, action=action) for action, one in lowered],
        START + 9,
    )
    asked = asked_of(twins, [JAN])
    twins.same(lambda usage: usage.partials(asked))


def asked_of(twins, periods):
    """Return each item of the twins with each period."""
    return [(item, period) for period in periods for one in twins.of for item in one.items]


def at_once():
    """Compare many items at once: small, huge and mixed quantities, few and many sets, before and
    after indexing.
    """
    subscriptions = catalog_of(80)
    asked = [(item, JAN) for one in subscriptions for item in one.items]
    for quantities, sets, seconds in (
        ([0, 1, 7], 0.03, 9),
        ([0, 5, MAX], 0.03, 3),
        ([MAX - 1, 2**62], 0.4, 700),
        ([3], 0, 2),
        ([MAX], 0, 1),
    ):
        twins = Twins(subscriptions)
        for seed in range(2):
            twins.append(usage_of(80, 500, seconds, quantities, sets, seed), JAN.end_seconds - 1)
            twins.same(lambda usage: usage.partials(asked))
        twins.same(lambda usage: [usage.partial(*one) for one in asked])
        twins.same(lambda usage: usage.partials(asked + asked))
        twins.same_totals(asked)
        twins.same_totals([(item, period) for item, _ in asked for period in (JAN, FEB)])


@settings(HUNT, max_examples=80)
@given(stories())
def one_by_one(story):
    """Compare whatever may happen to a log, item by item."""
    live(story)


def in_bulk():
    """Compare the same where all is asked from the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "_MANY", 1)
        patch.setattr(folding, "BLOCK", 3)
        patch.setattr(totals, "_FEW_SETS", 1)
        one_by_one()


def hunt_everywhere():
    """Compare the columns with the log in every way above, the quick ones first."""
    quick = (
        batch_after_batch,
        one_number_wide,
        edges,
        at_the_door,
        known_no_more,
        one_mode,
        wide_maximum,
        late_again,
    )
    of, policy, records, received = days_apart()
    Twins(of, policy).import_history(records, received)
    for hunt in (*quick, late_and_compacted, grace_and_retries, at_once, one_by_one, in_bulk):
        hunt()


@each(DEFECTS)
def test_every_planted_defect_is_found(defect):
    """Columns with a slip of the pen differ from the log in a receipt, a summary or an invoice, or
    fail an assertion.
    """
    expect_found(defect, hunt_everywhere, Exception)


@settings(HUNT, max_examples=300)
@given(two_kernels_asked())
def both_kernels(asked):
    """Compare the compiled loops with NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        same_in_both_kernels(patch, *asked)


@each(COMPILED_DEFECTS)
def test_every_planted_defect_of_the_compiled_loops_is_found(defect):
    """Compiled loops with a slip of the pen differ from NumPy."""
    pytest.importorskip("numba", reason="needs the extra compiled")
    expect_found(defect, both_kernels, AssertionError)


@settings(HUNT, max_examples=300)
@given(strings_and_hashes())
def both_encoders(drawn):
    """Compare the codes of strings with Arrow's."""
    with pytest.MonkeyPatch.context() as patch:
        same_codes(patch, *drawn)


@each(STRING_DEFECTS)
def test_every_planted_defect_of_the_strings_codes_is_found(defect):
    """Compiled loops over strings with a slip of the pen give other codes than Arrow, or none."""
    for module in ("numba", "pyarrow"):
        pytest.importorskip(module, reason="needs the extras arrow and compiled")
    expect_found(defect, both_encoders, Exception)
