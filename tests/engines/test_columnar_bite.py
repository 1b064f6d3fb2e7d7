"""Tests that cannot fail prove nothing: each defect planted in the columns must be found by
comparing them with the log.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import chain

import attrs
import pytest

pytest.importorskip("numpy", reason="needs the extra columnar")

import event_cases
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
from event_cases import SMALL, generated
from hypothesis import given, settings
from planting import HUNT, each, expect_found, forbidden_by, slips
from test_columnar import catalog_of, usage_of
from test_columnar_events import appended, closed_and_viewed, compare

import metering_core as mc
from metering_core.columnar import answering, folding, totals
from metering_core.periods import from_unix_seconds

pytestmark = pytest.mark.slow  # A minute or two: some defects are only found among many stories.


SET_OR_NOT = ("set", "increment")

DEFECTS = forbidden_by(
    "the log",
    *slips(
        r"""
        folding._last_sets: a set does not replace
            firsts[cells[is_last]] = places[is_last]  ->  pass
        folding._last_sets: the first set wins
            cells[1:] != cells[:-1], True  ->  cells[1:] == cells[:-1], True
        folding._last_sets: a cell forgets that it was set
            were_set[cells] = True  ->  pass
        folding._joined_sets: merging forgets sets
            all(  ->  any(
        numbers.bound_of: the bound is never proven
            return cheap  ->  return 0
        numbers.bound_of: the bound forgets the number of rows
            * len(values)  ->
        folding.merge: bounds do not add up in a merge
            sum(run.bound for run in some)  ->  max(run.bound for run in some)
        totals._dtype_of: bounds of parts do not add up
            sum(part.bound for part in parts)  ->  0
        numbers.summable: no number is made wide
            bound <= INT64_MAX  ->  True
        numbers.bound_of: exact bounds wrap
            if cheap <= INT64_MAX else _exact_sum(np.abs(values))  ->
        numbers._exact_sum: the halves of bits overlap
            _HALF_BITS) +  ->  _HALF_BITS) *
        folding._fold_by_value: folding by value forgets rows of one cell
            segment_sums(values, starts, np.append(starts[1:], len(values)))  ->  values[starts]
        folding._widths: packed keys are one bit too narrow
            (int(rows.moments.max()) - low).bit_length()
              ->  max((int(rows.moments.max()) - low).bit_length() - 1, 0)
        folding.arrival_order: the arrival takes one bit too few
            (len(rows) - 1).bit_length()  ->  max((len(rows) - 1).bit_length() - 1, 0)
        folding.arrival_order: arrival is not part of the key
            np.arange(block.start, block.stop, dtype=np.int64)
              ->  np.arange(block.start, block.stop, dtype=np.int64)[::-1]
        folding._fold_by_value: values take one bit too few
            int(rows.values.max()).bit_length()  ->  max(int(rows.values.max()).bit_length() - 1, 0)
        folding._in_order: the quantity of a set stays inverted
            values ^= values >> 63  ->  pass
        folding.segment_sums: cells of two rows have one
            ends - firsts > 1  ->  ends - firsts > 2
        numbers.narrowed: wide numbers are cut
            greatest(values) > INT64_MAX  ->  False
        folding._cells: a cell's end is the next cell's second row
            starts[1:]  ->  starts[1:] + 1
        folding.Cells.between: the last cell is lost
            slice(first, last)  ->  slice(first, max(last - 1, first))
        totals.Window._holds: a period ends inclusively
            rows.moments < self.highs  ->  rows.moments <= self.highs
        totals.Window._holds: a period begins late
            <= rows.moments)  ->  < rows.moments)
        totals.Window.takes_all: parts are taken whole that are not
            rows.high < int  ->  True or int
        totals.Window.takes_some: parts are left out that count
            rows.high >= int  ->  rows.high > int
        totals.Window.together: some of the parts are taken for all
            len(parts) == 1  ->  len(parts) >= 1
        totals.sums: touched rows are counted twice
            _accumulate(np.subtract, totals, collided)  ->  pass
        totals.sums: touched cells are lost
            _accumulate(np.add, totals, fold(collided).as_rows())  ->  pass
        totals._Touched.among: touched cells are looked for in another place
            self.shift  ->  self.shift + 1
        totals.maxima: max is taken over records
            alone[collided] = False  ->  pass
        totals.maxima: max forgets cells of several rows
            _accumulate(np.maximum, best, fold(rows.part(collided)).as_rows())  ->  pass
        totals._collisions: the first of several rows is taken for alone
            flags[:-1] |= is_same  ->  pass
        totals.lasts: last is the first
            np.maximum.at  ->  np.minimum.at
        totals.lasts: last takes one row of the cell
            fold(joined(deciding))  ->  fold(attrs.evolve(joined(deciding), sets=None))
        answering.Question.first: last_ever does not look back
            AGGREGATORS[self.mode].looks_back  ->  False
        answering.Question.first: a period counts what was before
            AGGREGATORS[self.mode].looks_back  ->  True
        answering.Answers._with_beside: late usage is forgotten
            if beside is None  ->  if True
        answering.Answers._index: later rows are not indexed
            self.parts[indexed:]  ->  self.parts[indexed + bool(indexed) :]
        answering.Answers.beside: later late rows are not folded
            folded < len(self.late)  ->  not folded
        answering.Answers._index: runs are merged in the wrong order
            fold(part.rows), merge)  ->  fold(part.rows), lambda some: merge(some[::-1]))
        answering._rounds: an item that is asked for twice is answered once
            windows - windows[  ->  0 * windows[
        answering.Questions._made: in bulk last_ever does not look back
            np.where(looks_back[numbers], ORIGIN, starts)  ->  starts
        answering.Questions.of_all: all items are asked in the first mode
            np.repeat(np.arange(len(modes)), items)  ->  np.zeros(len(codes), np.int64)
        answering.Questions.within: the last second of the rows is left out
            high + 1  ->  high
        answering._Answered.quantities: no cell is less than nothing
            np.where(is_there, values, 0)  ->  values
        answering.Answers.quantities_by_mode: a mode answers for its neighbour
            at * items :  ->  0 * at :
        judging._between: the period's end is inclusive
            (stamps < high)  ->  (stamps <= high)
        judging._between: the period's end is inclusive for all
            max()) < high  ->  max()) <= high
        judging._between: the period's start is exclusive
            stamps >= low  ->  stamps > low
        judging._between: the earliest timestamp is not looked at
            low <= int(stamps.min())  ->  True
        judging.ItemRules._within_time: now is in the future
            batch.stamps <= latest  ->  batch.stamps < latest
        judging.ItemRules._within_time: only the last moment is looked at
            latest.min()  ->  latest.max()
        judging.ItemRules._within_time: a segment begins too late
            side="right"  ->  side="left"
        judging.Received.from_then_on: the first day after those without rows is left out
            else found * _DAY  ->  else (found + 1) * _DAY
        judging.ItemRules._received: days begin too late
            days[0] * _DAY  ->  (days[0] + 1) * _DAY
        judging._next_change: the late grace ends a second late
            // timedelta(seconds=1)  ->  // timedelta(seconds=1) + 1
        judging.ItemRules.__init__: thresholds are ignored
            & ~is_plain  ->  & False
        judging.ItemRules.__init__: licensed items take usage
            price_refusal(items[code].item) is None  ->  True
        judging.ItemRules.__init__: dropped items take usage
            items[code].is_active  ->  True
        judging.ItemRules.acceptable: refused items are not looked for
            self._is_open[batch.named].all()  ->  True
        judging.ItemRules.may_be_closed: closed periods are forgotten
            flags.any()  ->  False
        judging.ItemRules.forget_closed: closed periods are looked up once
            self._closed_until = None  ->  pass
        usage.ColumnarUsage._judge_closed: late usage is never attributed
            elif said is not None  ->  elif False
        usage.ColumnarUsage._judge_closed: a late set is an increment
            is_set=is_set  ->  is_set=False
        identity.Identities.suspects: ids of the batch itself are not seen
            twice[1:] |= is_twice  ->  pass
        identity.Identities.suspects: ids of earlier batches are not seen
            twice |= run.hashes  ->  twice &= run.hashes
        usage.ColumnarUsage._judge_ids: a refused row claims its id
            elif verdict.accepted[row]  ->  else
        usage.ColumnarUsage._judge_ids: a late duplicate is kept
            verdict.attributed.pop(row, None)  ->  pass
        usage.ColumnarUsage._judge_ids: a duplicate is kept
            verdict.accepted[row] = False  ->  pass
        usage._claims: a claim forgets that it was set
            arriving.sets[rows].astype(np.int8)  ->  0 * arriving.sets[rows].astype(np.int8)
        usage._claims: a claim forgets that it was sent as now
            if as_now is not None  ->  if False
        usage.ColumnarUsage._with: refused rows are kept
            flags = verdict.accepted  ->  flags = np.ones_like(verdict.accepted)
        usage.ColumnarUsage._with: attributed rows are kept twice
            flags[list(verdict.attributed)] = False  ->  pass
        usage.ColumnarUsage._with: numbers have gaps
            np.count_nonzero(verdict.accepted)  ->  len(arriving)
        answering.Part.is_seen: a view shows one more
            <= sequence  ->  <= sequence + 1
        answering.Part.is_seen: a view shows what was received later
            received_by is None  ->  True
        usage.ColumnarView._answers: a view survives compaction
            self._answered[0] != self._usage.compactions  ->  False
        usage._Dropping._period_of: compaction drops open periods
            keys < self._ends[found]  ->  True
        usage._Dropping.take_late: compaction forgets late rows
            if period < 0  ->  if True
        """
    ),
    within="columnar.",
)


COMPILED_DEFECTS = forbidden_by(
    "NumPy",
    *slips(
        r"""
        compiled.folding._add: a period ends inclusively
            stamps[i] < windows[c, 1]  ->  stamps[i] <= windows[c, 1]
        compiled.folding._add: a period begins late
            windows[c, 0] <= stamps[i]  ->  windows[c, 0] < stamps[i]
        compiled.folding._added_up: one worker's sums are lost
            first += other  ->  pass
        compiled.folding._add_untouched: touched rows are counted twice
            quantities[i] & (is_touched - 1)  ->  quantities[i]
        compiled.folding._add_untouched: no row is touched
            & bits == bits  ->  & bits == ~bits
        compiled.folding._mark: half of the cells are marked
            range(len(codes))  ->  range(len(codes) // 2)
        compiled.folding._sums_with_sets: touched cells are lost
            _ in done), folded.totals[:, 0]]  ->  _ in done)]
        compiled.folding._follow: later rows of the latest cell are lost
            stamp >= known >> 1  ->  stamp > known >> 1
        compiled.folding._follow: a set does not replace the latest cell
            and not is_set  ->
        compiled.folding._follow: the latest cell forgets that it was set
            is_set = known & 1  ->  is_set = 0
        compiled.folding._follow_on: a later worker's set does not replace
            and not later[c, 0] & 1  ->
        compiled.folding._follow_on: a later worker's cell is lost
            >= latest[c, 0] >> 1:  ->  > latest[c, 0] >> 1:
        compiled.folding._Units.of: later workers' rows arrive first
            np.cumsum(sizes, axis=0) - sizes  ->  sizes.sum(axis=0) - np.cumsum(sizes, axis=0)
        compiled.folding._spread: keys forget sets
            (is_set << (value_bits - _ONE))  ->  np.uint64(0)
        compiled.folding._spread: quantities apart forget sets
            (is_set << _SIX)  ->  np.uint64(0)
        compiled.folding._Layout.of: quantities have no room for their flag
            bit_length() + 1  ->  bit_length()
        compiled.folding._Layout.of: the arrival is left out of keys
            all(part.sets is None for part in asked.parts)  ->  True
        compiled.folding._part_from_values: sets in keys are not read
            ((key >> flag) & _ONE)  ->  np.uint64(0)
        compiled.folding._reduce: a set does not replace
            elif value & _SET:  ->  elif False:
        compiled.folding._reduce: only the last cell is summed
            total += quantity  ->  total = quantity
        compiled.folding._reduce: the greatest is the last
            max(greatest, quantity)  ->  quantity
        compiled.folding._reduce_to_cells: a cell is its last row
            quantities[found] += np  ->  quantities[found] = np
        compiled.folding._reduce_to_cells: a cell forgets a later set
            were_set[found] = True  ->  pass
        compiled.folding._reduce_to_cells: a cell forgets a first set
            were_set[found] = is_set  ->  were_set[found] = False
        compiled.folding._closed_up: gaps between units stay
            if at != which.start  ->  if False
        paths._fast: sums beyond 64 bits are let in
            <= INT64_MAX  ->  <= 4 * INT64_MAX
        """
    ),
    within="columnar.",
)

STRING_DEFECTS = forbidden_by(
    "Arrow",
    *slips(
        r"""
        _strings_of: a sliced array begins with the first string
            array.offset : array.offset +  ->  0 :
        _strings_of: offsets are read as narrower ones
            "large_string"  ->  "none"
        _number: a name is numbered anew
            (h >> _HALF << _HALF) |  ->
        _numbered: a piece begins to number anew
            known = count  ->  pass
        encoded: no string is compared
            all(are_named)  ->  True
        _are_named: lengths are not compared
            end - start != other_end - other  ->  False
        _are_named: the last bytes are not compared
            words[end - _WORD] != name_words[other_end - _WORD]  ->  False
        _are_named: the first bytes are not compared
            words[start] != name_words[other]  ->  False
        _are_named: short strings are not compared
            data[start] != name_data[other]  ->  False
        """
    ),
    within="columnar.compiled.strings.",
)


EVENT_DEFECTS = forbidden_by(
    "the meter log",
    *slips(
        r"""
        grouping.Groups.lasts: the first of a moment wins
            places[self.codes[rows]] = rows  ->  places[self.codes[rows][::-1]] = rows[::-1]
        grouping.Groups.sums: sums wrap
            self._sums(summable(values, bound))  ->  self._sums(values)
        grouping.Groups.sums_of_products: products wrap
            greatest(values) * greatest(factors) * self.most <= INT64_MAX  ->  True
        grouping.last_of_each: the first in a window counts
            order = np.argsort(keys, kind="stable")  ->  order = np.argsort(keys)[::-1]
        summaries._buckets: a bound is of the bucket before
            np.searchsorted(bounds, moments, side="right")  ->  np.searchsorted(bounds, moments)
        summaries._Asked.of: the end is in the range
            flags = (events.moments < end)  ->  flags = (events.moments <= end)
        summaries._Asked._weighted: no level is carried
            levels * lengths + areas  ->  areas
        summaries._Partials.lasts: customers' regions in turn
            order = np.argsort(self.places, kind="stable")  ->  order = np.arange(len(self.places))
        parts.MeterColumns.index: time before series
            np.lexsort((rows.moments, rows.codes))  ->  np.lexsort((rows.codes, rows.moments))
        parts.Counting.of: units of one batch are those of another
            10 ** (places - part.decimal_places)  ->  1
        series.SeriesCodes.groups: values as they came
            _ranks(self.names[at])[codes[at][chosen]]  ->  codes[at][chosen]
        series.SeriesCodes.take: customers from the last row on
            np.sort(firsts[firsts  ->  -np.sort(-firsts[firsts
        series.SeriesCodes.take: last rows
            combined[::-1]] = np.arange(len(combined) - 1, -1, -1)
              ->  combined] = np.arange(len(combined))
        series._combined: other values are one series
            combined * more + column  ->  combined + column
        events.ColumnarEvents._read: a dimension may be missing
            ok &= False if given is None else  ->  ok &= True if given is None else
        events.ColumnarEvents._in_time: the first moment is too early
            stamps >= days * (_DAY * MICROSECONDS)  ->  stamps > days * (_DAY * MICROSECONDS)
        events.ColumnarEvents._remembers: an identifier is remembered from the first row
            received[-1 - first]  ->  received[0]
        events.ColumnarEvents._remembers: an identifier is forgotten too early
            at - was <= retention  ->  at - was < retention
        events.ColumnarEvents._repeated: a duplicate counts
            verdict.accepted[row] = False  ->  pass
        events.SeenReadings._take: a view shows what came later
            number <= self.end and self._sees(number, self._events.received_of(number))  ->  True
        events.ColumnarEvents.logged: a view lists what came later
            and sees(number, received)  ->
        events.ColumnarEvents.partials: a closed period is measured again
            period in self._known_bills(item.id)  ->  False
        events.ColumnarEvents._read: one dimension less
            extra <= self.policy.dimensions_max  ->  extra < self.policy.dimensions_max
        events.ColumnarEvents._repeated: identifiers of earlier batches are forgotten
            ids.get(identifier))  ->  None)
        """
    ),
    within="columnar.",
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


EDGE = (*SMALL, "0.5", str(2**63 - 1), str(2**62), None)


def every_history():
    """Compare the columns of events with the meter log, over and over."""
    drawn = (
        generated(seed, 250, policy, values=EDGE)
        for policy in ("history", "global", "retained")
        for seed in range(3)
    )
    for history in chain([event_cases.tied(), event_cases.retried()], drawn):
        compare(history, *appended(history, (1, 7, 40)))
    closed_and_viewed(0, "carry_forward")


@each(EVENT_DEFECTS)
def test_every_planted_defect_of_events_is_found(defect):
    """Columns of events with a slip of the pen differ from the meter log, or fail an assertion."""
    expect_found(defect, every_history, Exception)
