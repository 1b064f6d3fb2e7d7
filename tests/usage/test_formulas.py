"""The formulas of meters are commutative monoids, say truly whether they are additive, and agree
with a slow reader.

A partial is made of single events, merged in any order and any grouping. The truth is that of
:mod:`meter_oracle`, which walks a list of events with Fraction.
"""

from __future__ import annotations

import random
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import reduce

import pytest
from hypothesis import Phase, assume, find, given, settings
from hypothesis import strategies as st
from meter_oracle import SECOND, Seen, measured

from metering_core.exact import whole_if_possible
from metering_core.measures import AGGREGATORS, FORMULAS, formula_of
from metering_core.meters import Formula, Meter
from metering_core.prices import AggregateUsage

HOUR = 3600 * SECOND
CARRY = Meter("m", "e", "last", carry_forward=True)
ROWS = {
    **{formula.value: FORMULAS[formula] for formula in Formula},
    "last, carried": formula_of(CARRY),
}
by_row = pytest.mark.parametrize("row", ROWS)
# Every law is asked of nine rows, so that a share of the profile's examples is enough for each.
few = settings(max_examples=max(settings().max_examples // 4, 1))

texts = st.one_of(
    st.integers(-5, 5).map(str),
    st.sampled_from(
        [
            "0.1",
            "-0.1",
            "2.5",
            "999999999999999",
            "0.000000000001",
            "-0.000000000000000001",
            "1" + "0" * 60,
        ]
    ),
)
# Few moments, so that events meet at one, at the bounds of a window and a microsecond beside them.
moments = st.one_of(
    st.integers(-2, 8).map(lambda n: n * HOUR), st.integers(0, 6 * HOUR), st.just(HOUR - 1)
)
histories = st.lists(st.tuples(moments, texts), max_size=12).map(
    lambda rows: [
        Seen(number, moment, "cus", (), text) for number, (moment, text) in enumerate(rows, 1)
    ]
)
starts = st.integers(0, 4).map(lambda n: n * HOUR)
lengths = st.integers(1, 4).map(lambda n: n * HOUR)


def value_of(row, text):
    """Return what the door of the log makes of a text for this formula."""
    return (
        text if row == "unique_count" else 1 if row == "count" else whole_if_possible(Decimal(text))
    )


def partial_of(row, events):
    aggregator = ROWS[row]
    prepared = (
        aggregator.prepare_event(one.moment, one.number, value_of(row, one.text)) for one in events
    )
    return reduce(aggregator.merge, prepared, aggregator.identity)


def present(row, events, start, end):
    """Return what a formula presents of the events in a window, as a reader of the log
    computes it.
    """
    aggregator = ROWS[row]
    within = partial_of(row, [one for one in events if start <= one.moment < end])
    before = partial_of(row, [one for one in events if one.moment < start])
    return aggregator.present(aggregator.over(within, before, start, end))


def truth(row, events, start, end):
    formula, _, carried = row.partition(", ")
    return measured(formula, events, start, end, carry=bool(carried))


def test_every_formula_has_a_row():
    """The table has a row a formula, and only ``last`` has a second one, that of usage records'
    ``last_ever``.
    """
    assert set(FORMULAS) == set(Formula)
    assert formula_of(CARRY) is AGGREGATORS[AggregateUsage.LAST_EVER]
    assert formula_of(Meter("m", "e", "last")) is FORMULAS[Formula.LAST]


@by_row
@few
@given(histories, starts, lengths)
def test_formulas_agree_with_the_slow_reader(row, events, start, length):
    """What a formula presents of a window is what a walk through the list of events comes to."""
    assert present(row, events, start, start + length) == truth(row, events, start, start + length)


@by_row
@few
@given(histories, histories, histories)
def test_merging_is_associative_and_commutative(row, left, middle, right):
    """Partials merge in any grouping and any order to the same partial, and that of no events
    changes none.
    """
    # Numbers are unique in a log; `last` needs them to tell events of one moment apart.
    a, b, c = (
        partial_of(row, [one._replace(number=one.number + 100 * at) for one in events])
        for at, events in enumerate((left, middle, right))
    )
    merge, identity = ROWS[row].merge, ROWS[row].identity
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, b) == merge(b, a)
    assert merge(identity, a) == a == merge(a, identity)


@by_row
@few
@given(histories, starts, lengths, st.randoms(use_true_random=False), st.integers(1, 4))
def test_splits_change_nothing(row, events, start, length, shuffle, parts):
    """However the events are dealt to machines, in any order, the merged partial presents
    the same.
    """
    dealt = [[] for _ in range(parts)]
    for one in shuffle.sample(events, len(events)):
        shuffle.choice(dealt).append(one)
    aggregator, end = ROWS[row], start + length
    within, before = aggregator.identity, aggregator.identity
    for part in dealt:
        within = aggregator.merge(
            within, partial_of(row, [one for one in part if start <= one.moment < end])
        )
        before = aggregator.merge(
            before, partial_of(row, [one for one in part if one.moment < start])
        )
    assert aggregator.present(aggregator.over(within, before, start, end)) == present(
        row, events, start, end
    )


def parts_and_whole(row, events, cut):
    """Return the sum of what the two sides of a cut present, and what the whole does."""
    start, end = 0, 4 * HOUR
    return Fraction(present(row, events, start, cut)) + Fraction(
        present(row, events, cut, end)
    ), present(row, events, start, end)


cuts = st.integers(1, 4 * HOUR - 1)


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row].is_additive])
@few
@given(histories, cuts)
def test_additive_formulas_add_up_over_time(row, events, cut):
    """Where a formula says that it is additive, the values of the parts of a window add up to that
    of the whole.
    """
    parts, whole = parts_and_whole(row, events, cut)
    assert parts == whole


@pytest.mark.parametrize("row", [row for row in ROWS if not ROWS[row].is_additive])
def test_other_formulas_do_not_add_up(row):
    """Where a formula says that it is not additive, some split of some events shows it: refusing to
    add is no whim.
    """
    plan = settings(max_examples=500, derandomize=True, database=None, phases=[Phase.generate])
    found = find(st.tuples(histories, cuts), lambda case: _differs(row, *case), settings=plan)
    assert found[0]


def _differs(row, events, cut):
    parts, whole = parts_and_whole(row, events, cut)
    return parts != whole


def test_sum_and_count_alone_are_additive():
    """Of all formulas exactly ``sum`` and ``count`` add up over a split of time."""
    assert {row for row in ROWS if ROWS[row].is_additive} == {"sum", "count"}


def test_average_carries_sum_and_count():
    """Two averages do not average: 1 and 2 in one part, 6 in the other make 3, not the mean 3.75 of
    1.5 and 6.
    """
    average = FORMULAS[Formula.AVERAGE]
    left = average.merge(average.prepare_event(1, 1, 1), average.prepare_event(2, 2, 2))
    right = average.prepare_event(3, 3, 6)
    assert (average.present(left), average.present(right)) == (Decimal("1.5"), 6)
    assert average.present(average.merge(left, right)) == 3
    assert average.present(
        average.merge(right, average.merge(right, average.prepare_event(4, 4, 1)))
    ) == Fraction(13, 3)


def test_unique_count_carries_the_values():
    """Two counts of different values do not add: a and b in one part, b and c in the other are
    three values.
    """
    unique = FORMULAS[Formula.UNIQUE_COUNT]
    left = unique.merge(unique.prepare_event(1, 1, "a"), unique.prepare_event(2, 2, "b"))
    right = unique.merge(unique.prepare_event(3, 3, "b"), unique.prepare_event(4, 4, "c"))
    assert unique.present(unique.merge(left, right)) == 3


def test_weighted_sum_weighs_by_time():
    """A level of 10 for a quarter of a window, then 6 for the rest, is 10/4 + 18/4 = 7."""
    events = [Seen(1, 0, "c", (), "10"), Seen(2, HOUR, "c", (), "-4")]
    assert present("weighted_sum", events, 0, 4 * HOUR) == 7


def test_weighted_sum_carries_the_level():
    """A level set long before a window holds in it: 3 all the time is 3, and 1 more from the middle
    on makes 3.5.
    """
    events = [Seen(1, -HOUR, "c", (), "3"), Seen(2, 3 * HOUR, "c", (), "1")]
    assert present("weighted_sum", events, 0, HOUR) == 3
    assert present("weighted_sum", events, 2 * HOUR, 4 * HOUR) == Decimal("3.5")
    assert present("weighted_sum", events, 4 * HOUR, 5 * HOUR) == 4


def test_weighted_sum_of_a_change_at_the_bounds():
    """A change at a window's start counts in all of it, one at its end not at all."""
    events = [Seen(1, HOUR, "c", (), "8"), Seen(2, 2 * HOUR, "c", (), "100")]
    assert present("weighted_sum", events, HOUR, 2 * HOUR) == 8


def test_weighted_sums_of_one_window_add_over_customers():
    """Areas under one window merge: levels of 2 and of 3 are one of 5; those of two windows are a
    mistake of ours.
    """
    weighted = FORMULAS[Formula.WEIGHTED_SUM]
    two = weighted.over(weighted.prepare_event(0, 1, 2), weighted.identity, 0, HOUR)
    three = weighted.over(weighted.prepare_event(0, 1, 3), weighted.identity, 0, HOUR)
    assert weighted.present(weighted.merge(two, three)) == 5
    later = weighted.over(weighted.prepare_event(HOUR, 1, 3), weighted.identity, HOUR, 2 * HOUR)
    with pytest.raises(AssertionError):
        weighted.merge(two, later)
    with pytest.raises(AssertionError):
        weighted.present(weighted.prepare_event(0, 1, 2))


def test_a_window_no_decimal_can_divide():
    """A level of 1 for a third of a window averages to the fraction 1/3, which no decimal can
    write.
    """
    events = [Seen(1, 2 * HOUR, "c", (), "1")]
    assert present("weighted_sum", events, 0, 3 * HOUR) == Fraction(1, 3)


def test_last_is_by_time_then_by_receipt():
    """Of two events at one moment the one received later is the last, whatever its value and
    whatever came in between.
    """
    events = [Seen(1, 5, "c", (), "9"), Seen(2, 5, "c", (), "1"), Seen(3, 4, "c", (), "7")]
    assert present("last", events, 0, HOUR) == 1
    assert present("last", events[:1], 0, HOUR) == 9


def test_last_without_events_is_zero_and_carries_if_asked():
    """A window without events is 0 for ``last``; with ``carry_forward`` it is what the latest event
    before it said.
    """
    events = [Seen(1, 0, "c", (), "4"), Seen(2, 2 * HOUR, "c", (), "0")]
    assert present("last", events, HOUR, 2 * HOUR) == 0
    assert present("last, carried", events, HOUR, 2 * HOUR) == 4
    assert present("last, carried", events, 2 * HOUR, 3 * HOUR) == 0  # A zero ends a gauge.
    assert present("last, carried", events, -2 * HOUR, -HOUR) == 0


@pytest.mark.parametrize(
    ("row", "value"), [("max", -3), ("min", -8), ("sum", -11), ("average", Decimal("-5.5"))]
)
def test_negative_values_are_values(row, value):
    """Without a positive value the greatest is the least negative one, not the 0 of an empty
    window.
    """
    events = [Seen(1, 0, "c", (), "-3"), Seen(2, 1, "c", (), "-8")]
    assert present(row, events, 0, HOUR) == value


@by_row
def test_nothing_is_zero(row):
    """A window without any event before or in it comes to 0, by every formula."""
    assert present(row, [], 0, HOUR) == 0


@by_row
@few
@given(histories, starts)
def test_the_ambient_context_does_not_matter(row, events, start):
    """A caller's decimal context of three digits changes no value."""
    assume(events)
    expected = present(row, events, start, start + HOUR)
    with localcontext() as context:
        context.prec = 3
        assert present(row, events, start, start + HOUR) == expected


@by_row
def test_many_events_fold_as_they_merge(row):
    """A thousand events presented part by part, in a shuffled tree of merges, are what one walk
    through them says.
    """
    source = random.Random(5)  # noqa: S311 - a shuffle that repeats itself
    events = [
        Seen(n, source.randrange(0, HOUR), "c", (), f"{source.randrange(-999, 999) / 100:.2f}")
        for n in range(1000)
    ]
    partials = [partial_of(row, events[at : at + 7]) for at in range(0, 1000, 7)]
    aggregator = ROWS[row]
    while len(partials) > 1:
        source.shuffle(partials)
        partials.append(aggregator.merge(partials.pop(), partials.pop()))
    folded = aggregator.present(aggregator.over(partials[0], aggregator.identity, 0, HOUR))
    assert folded == truth(row, events, 0, HOUR)
