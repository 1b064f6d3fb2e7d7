"""Readings in the order of time, and the partials that are kept of blocks of them."""

from __future__ import annotations

import random
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering_core import timelines
from metering_core.measures import AGGREGATORS, FORMULAS, Aggregator
from metering_core.prices import AggregateUsage
from metering_core.timelines import Series, Timeline

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
ROWS = {**FORMULAS, "last, carried forward": AGGREGATORS[AggregateUsage.LAST_EVER]}

# Around the bounds of seconds, hours and days, before and after 1970, with many on one moment.
moments = st.builds(
    lambda unit, number, shift: unit * number + shift,
    st.sampled_from([SECOND, 900 * SECOND, HOUR, DAY, 16 * DAY]),
    st.integers(-3, 3),
    st.sampled_from([-1, 0, 0, 0, 1]),
)
# Every law is asked of nine formulas, twice, so that a share of the profile's examples is enough
# for each.
some = settings(max_examples=max(settings().max_examples // 2, 1))

steps = st.one_of(
    st.tuples(st.just("add"), moments, st.integers(-5, 5)),
    st.tuples(st.just("remove"), st.integers(0, 50), st.none()),
    st.tuples(st.just("ask"), st.none() | moments, moments),
)


def fold(aggregator, readings, start, end):
    """Merge the readings of a window one by one, in the order of time."""
    chosen = sorted(
        reading
        for reading in readings
        if (start is None or start <= reading[0]) and reading[0] < end
    )
    return reduce(
        aggregator.merge,
        (aggregator.prepare_event(*reading) for reading in chosen),
        aggregator.identity,
    )


class CountsMerges(Aggregator):
    """A sum that counts how often it merged and prepared."""

    identity = 0

    def __init__(self):
        self.calls = 0

    def prepare(self, timestamp, quantity):
        self.calls += 1
        return quantity

    def merge(self, left, right):
        self.calls += 1
        return left + right


def filled(readings, seconds=DAY // SECOND):
    """Return a timeline with so many readings of 1, evenly over so many seconds, asked once."""
    timeline = Timeline(CountsMerges())
    for number in range(readings):
        timeline.add(number * seconds * SECOND // readings, number + 1, 1)
    assert timeline.partial(None, seconds * SECOND) == readings
    return timeline


def calls(timeline, start, end):
    """Return how many calls a question takes."""
    timeline._aggregator.calls = 0
    timeline.partial(start, end)
    return timeline._aggregator.calls


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("few", [1, 16])
def test_any_order_of_changes_gives_the_partials_of_a_fold(row, few):
    """Readings may come and go in any order, with questions in between: a window's partial is that
    of a fold from scratch.
    """
    aggregator = ROWS[row]

    @given(st.lists(steps, max_size=60))
    @some
    def run(steps):
        timeline, readings = Timeline(aggregator), []
        for number, (step, first, second) in enumerate([*steps, ("ask", None, 100 * DAY)]):
            if step == "add":
                timeline.add(first, number, second)
                readings.append((first, number, second))
            elif step == "remove" and readings:
                timeline.remove(*readings.pop(first % len(readings))[:2])
            elif step == "ask":
                assert timeline.partial(first, second) == fold(aggregator, readings, first, second)
                assert timeline.count(first, second) == sum(
                    (first is None or first <= one[0]) and one[0] < second for one in readings
                )

    with pytest.MonkeyPatch.context() as patch:
        # With one as "few", two readings make a block that is kept.
        patch.setattr(timelines, "_FEW", few)
        run()


@pytest.mark.parametrize("row", ROWS)
def test_many_readings_that_come_late_and_go_again_leave_the_partials_of_a_fold(row):
    """A thousand readings, most of them out of order and a third of them dropped again, with a
    question after each hundred.
    """
    aggregator, chosen = ROWS[row], random.Random(7)  # noqa: S311 - it repeats itself
    timeline, readings = Timeline(aggregator), []
    for number in range(1000):
        reading = (chosen.randrange(40 * DAY), number, chosen.randrange(-9, 10))
        timeline.add(*reading)
        readings.append(reading)
        if number % 3 == 0:
            timeline.remove(*readings.pop(chosen.randrange(len(readings)))[:2])
        if number % 100 == 0:
            start, end = sorted(chosen.randrange(40 * DAY) for _ in range(2))
            for window in ((start, end), (None, end), (0, 40 * DAY), (3 * DAY, 4 * DAY)):
                assert timeline.partial(*window) == fold(aggregator, readings, *window)


def test_a_reading_that_goes_and_comes_back_before_a_question_is_there_once():
    """Dropped and taken again under its number, a reading counts as it was taken last."""
    timeline = Timeline(FORMULAS["sum"])
    for moment, sequence, value in ((10, 1, 5), (20, 2, 7)):
        timeline.add(moment, sequence, value)
    timeline.remove(10, 1)
    timeline.add(10, 1, 5)
    timeline.remove(20, 2)
    # 5 is left; the 7 went.
    assert (
        timeline.partial(None, 30),
        [*timeline.moments],
        [*timeline.sequences],
        timeline.values,
    ) == (5, [10], [1], [5])


@pytest.mark.parametrize("came", ["late", "at the end", "away"])
def test_a_window_that_begins_where_the_last_one_ended_begins_there_still(came):
    """Between two windows in a row a reading may come before their bound, come after all others, or
    go.
    """
    timeline = Timeline(FORMULAS["sum"])
    for second in range(10):
        timeline.add(second * SECOND, second, 1)
    assert timeline.partial(0, 5 * SECOND) == 5
    if came == "late":
        timeline.add(2 * SECOND, 10, 100)
    elif came == "at the end":
        timeline.add(9 * SECOND, 10, 100)
    else:
        timeline.remove(2 * SECOND, 2)
    # Seconds 5 to 9, and what came among them.
    assert timeline.window(5 * SECOND, 10 * SECOND) == (
        (105, 6) if came == "at the end" else (5, 5)
    )
    assert timeline.window(8 * SECOND, 3 * SECOND) == (0, 0)
    assert timeline.window(3 * SECOND, 5 * SECOND) == (2, 2)


@pytest.mark.parametrize("readings", [1_000, 100_000, 300_000])
def test_a_warm_hour_takes_one_merge_for_each_level_of_blocks_however_many_readings(readings):
    """A warm whole hour is one kept block: no more than a merge for each of the four widths down to
    it.
    """
    timeline = filled(readings)
    assert max(calls(timeline, hour * HOUR, (hour + 1) * HOUR) for hour in range(24)) <= 4


def test_a_window_of_any_bounds_takes_a_bounded_number_of_merges():
    """Bounds at odd seconds cost a constant: on each side one block of each width is cut, and its
    small ones are read out.
    """
    timeline, chosen = Timeline(CountsMerges()), random.Random(3)  # noqa: S311 - it repeats itself
    for second in range(200_000):
        timeline.add(second * SECOND, second, second)
    for _ in range(200):
        start, end = sorted(chosen.randrange(200_000) * SECOND for _ in range(2))
        assert timeline.partial(start, end) == sum(range(start // SECOND, end // SECOND))
        # 16 + 16 + 24 + 4 + 15 + 12 + 5 merges; of one width up to 24 blocks are small: 16
        # readings, each prepared and merged.
        assert calls(timeline, start, end) <= 2 * (92 + 24 * 16 * 2)


def test_a_late_reading_costs_the_blocks_that_it_lies_in():
    """After a reading at the very beginning of 100,000 the whole is known again in some hundred
    calls, not in 100,000.
    """
    timeline = filled(100_000)
    timeline.add(1, 100_001, 1)
    assert calls(timeline, None, DAY) <= 2 * (92 + 12 * 16 * 2)
    assert timeline.partial(None, DAY) == 100_001


def test_a_reading_at_the_end_costs_the_blocks_that_it_lies_in():
    """After a reading at the end of 100,000 the whole is known again in some hundred calls, too."""
    timeline = filled(100_000)
    timeline.add(DAY - 1, 100_001, 1)
    assert calls(timeline, None, DAY) <= 2 * (92 + 12 * 16 * 2)
    assert timeline.partial(None, DAY) == 100_001


def test_a_crowded_moment_is_a_kept_block_however_it_grows():
    """Ten thousand readings of one moment, of which twenty were there when first asked, are merged
    once and then known.
    """
    timeline = Timeline(CountsMerges())
    for number in range(10_000):
        timeline.add(5, number, 1)
        if number == 20:
            assert timeline.partial(None, SECOND) == 21
    assert timeline.partial(None, SECOND) == 10_000
    # The second time it is the widest block there is, and merged once.
    assert calls(timeline, None, SECOND) == 1


def test_a_window_that_begins_or_ends_within_a_kept_block_takes_only_its_part():
    """Of 100 readings that are kept as one block, windows within it count theirs, from either side
    and from both.
    """
    timeline = filled(100, seconds=100)
    timeline.partial(-DAY, 2 * DAY)
    windows = [(None, 60), (40, 86_400), (-86_400, 99), (1, 100_000), (10, 20), (-1, 1)]
    found = [timeline.partial(start and start * SECOND, end * SECOND) for start, end in windows]
    assert found == [60, 60, 99, 99, 10, 1]


class TestSeries:
    """Which readings count where only the one received last in a window does."""

    def test_the_last_received_of_each_window_counts(self):
        """Of an hour's readings the one with the greatest number counts, wherever in the hour it
        lies.
        """
        series = Series(FORMULAS["sum"], HOUR)
        for moment, sequence, value in ((HOUR - 1, 1, 5), (0, 2, 7), (HOUR, 3, 100)):
            series.add(moment, sequence, value)
        timeline = series.timeline()
        assert (
            timeline.partial(0, HOUR),
            timeline.partial(HOUR, 2 * HOUR),
            [*timeline.moments],
        ) == (7, 100, [0, HOUR])

    def test_a_removed_winner_gives_way_to_the_one_before_it(self):
        """When what counted goes, the reading received before it counts again; when all went, none
        does.
        """
        series = Series(FORMULAS["sum"], HOUR)
        series.add(10, 1, 5)
        series.add(20, 2, 7)
        assert series.timeline().partial(0, HOUR) == 7
        series.remove(20, 2)
        assert series.timeline().partial(0, HOUR) == 5
        series.remove(10, 1)
        assert series.timeline().count(None, HOUR) == 0

    def test_many_windows_are_overwritten_in_one_go(self):
        """Ten thousand hours that are all overwritten cost one rearrangement, not ten thousand."""
        series = Series(FORMULAS["sum"], HOUR)
        for sequence in range(10_000):
            series.add(sequence * HOUR, sequence + 1, 1)
        assert series.timeline().partial(None, 10_000 * HOUR) == 10_000
        arranged = []
        with pytest.MonkeyPatch.context() as patch:
            whole = Timeline._rearrange
            patch.setattr(
                Timeline,
                "_rearrange",
                lambda self, changes: (arranged.append(len(changes)), whole(self, changes)),
            )
            for sequence in range(10_000):
                series.add(sequence * HOUR + 1, 10_001 + sequence, 2)
            assert series.timeline().partial(None, 10_000 * HOUR) == 20_000
        # The last hour's new winner stands after all others, and is simply appended.
        assert arranged == [19_999]
