"""Cumulative points become deltas; the answers of the hand-made series are worked out in the
comments beside them.
"""

from __future__ import annotations

import itertools
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.feeds.opentelemetry import (
    CumulativePoint,
    CumulativeSum,
    Delta,
    cumulative_to_delta,
    meter_event_from_delta,
)
from metering_core.meters import Formula, Meter
from metering_core.periods import unix_seconds

COUNTER = CumulativeSum("tokens")
UP_DOWN = CumulativeSum("connections", monotonic=False)


def point(time, value, start_time=None, **attributes):
    return CumulativePoint(time, value, start_time=start_time, attributes=attributes)


def run_of(rows, state=COUNTER):
    """Convert rows of (time, value[, start_time])."""
    return cumulative_to_delta(state, [point(*row) for row in rows])


def windows(run):
    """Return (start_time, time, value) of each delta, in Unix seconds."""
    return [
        (unix_seconds(delta.start_time), unix_seconds(delta.time), delta.value)
        for delta in run.deltas
    ]


# Hand-made series ---------------------------------------------------------------------------------


def test_a_counter_without_resets():
    """Each delta is what the value grew by, from one point to the next."""
    run = run_of(
        [
            (60, 10, 0),  # first, and known to start at 0: 10 came in (0, 60]
            (120, 25, 0),  # 25 - 10 = 15 in (60, 120]
            (180, 25, 0),  # nothing came: 25 - 25 = 0
            (240, 26, 0),  # 1
        ]
    )
    assert windows(run) == [(0, 60, 10), (60, 120, 15), (120, 180, 0), (180, 240, 1)]
    assert run.overlapping == ()
    assert run.state == CumulativeSum("tokens", last=[point(240, 26, 0)])


def test_a_restart_that_start_time_tells():
    """A start time that moved on means a new beginning at zero, whether the value is less than
    before or not.
    """
    run = run_of(
        [
            (60, 10, 0),  # 10
            (180, 4, 150),  # restarted at 150: its 4 came in (150, 180]; nobody saw (60, 150]
            (240, 9, 150),  # 9 - 4 = 5
            (400, 30, 300),  # restarted at 300 and grew past 9 since: 30, not 21
        ]
    )
    assert windows(run) == [(0, 60, 10), (150, 180, 4), (180, 240, 5), (300, 400, 30)]


def test_a_restart_that_only_the_value_tells():
    """A monotonic value that fell began at zero again, though its start time is the same, or is not
    said at all.
    """
    # 10, then 25 - 10 = 15, then it fell to 3: those 3 came since, then 8 - 3 = 5.
    assert windows(run_of([(60, 10, 0), (120, 25, 0), (180, 3, 0), (240, 8, 0)])) == [
        (0, 60, 10),
        (60, 120, 15),
        (120, 180, 3),
        (180, 240, 5),
    ]
    # Without start times the first 10 are of unknown age and are not counted; the rest is as above.
    assert windows(run_of([(60, 10), (120, 25), (180, 3), (240, 8)])) == [
        (60, 120, 15),
        (120, 180, 3),
        (180, 240, 5),
    ]


def test_a_restart_to_zero():
    """A value that fell to zero is a restart with nothing since."""
    # 10; fell to 0, so 0; then 2 - 0 = 2.
    assert [delta.value for delta in run_of([(60, 10, 0), (120, 0, 0), (180, 2, 0)]).deltas] == [
        10,
        0,
        2,
    ]


def test_a_first_point_of_unknown_age_is_where_counting_begins():
    """A start time equal to the time says that what was before is unknown: only what comes after is
    counted.
    """
    # 1000 had come at some time before 60. Then 1005 - 1000 = 5, and 1012 - 1005 = 7, all with the
    # start time 60.
    assert windows(run_of([(60, 1000, 60), (120, 1005, 60), (180, 1012, 60)])) == [
        (60, 120, 5),
        (120, 180, 7),
    ]


def test_a_reset_of_unknown_age():
    """A start time that moved on to the time itself makes no delta, and is counted from."""
    # 10 in (0, 60]. At 180 a new sequence begins at 1000 of unknown age; 1004 - 1000 = 4.
    assert windows(run_of([(60, 10, 0), (180, 1000, 180), (240, 1004, 180)])) == [
        (0, 60, 10),
        (180, 240, 4),
    ]


def test_a_new_writers_clock_may_be_behind():
    """A sequence that started before the last point is counted whole, from where the last window
    ended.
    """
    # The process of 0 wrote 10 at 100; the next one, said to be of 90, had 6 at 150. 10 + 6 came.
    assert windows(run_of([(100, 10, 0), (150, 6, 90)])) == [(0, 100, 10), (100, 150, 6)]


def test_missing_points_lose_nothing():
    """Where points are missing, one delta covers the whole gap."""
    # 120 and 180 never came: 40 - 10 = 30 in (60, 240].
    assert windows(run_of([(60, 10, 0), (240, 40, 0)])) == [(0, 60, 10), (60, 240, 30)]


def test_repeated_and_late_points_of_a_sequence_are_passed_over():
    """An exporter that sends points again changes nothing: the latest value includes them."""
    run = run_of(
        [
            (60, 10, 0),  # 10
            (60, 10, 0),  # again: 0
            (180, 40, 0),  # 30
            (120, 25, 0),  # late, and within the 40
            (60, 10, 0),  # again, later
            (240, 41, 0),  # 1
        ]
    )
    assert windows(run) == [(0, 60, 10), (60, 180, 30), (180, 240, 1)]
    assert run.overlapping == ()


def test_two_writers_are_not_counted_twice():
    """Points of a second writer whose start time is earlier are returned as overlapping; the newest
    sequence goes on.
    """
    run = run_of(
        [
            (60, 100, 0),  # the old process: 100
            (90, 3, 70),  # a new one started at 70: 3
            (
                120,
                120,
                0,
            ),  # the old one is still there: overlapping, else its 120 would count again and again
            (150, 8, 70),  # 8 - 3 = 5
        ]
    )
    assert windows(run) == [(0, 60, 100), (70, 90, 3), (90, 150, 5)]
    assert run.overlapping == (point(120, 120, 0),)


@pytest.mark.parametrize(
    "contradicting",
    [
        (120, 26, 0),  # the same moment, another value
        (120, 24, 0),
        (90, 26, 0),  # an earlier moment, a greater value
        (90, 5, 80),  # an earlier moment, of a sequence that started later
        (90, 10),  # an earlier moment of an unknown sequence
        (110, 7, 30),
    ],
)
def test_points_that_contradict_the_latest_are_overlapping(contradicting):
    """What the latest point does not include is not counted, and not lost without a word either."""
    run = run_of([(120, 25, 0), contradicting, (180, 30, 0)])
    assert [delta.value for delta in run.deltas] == [25, 5]  # 30 - 25
    assert run.overlapping == (point(*contradicting),)


def test_a_point_before_a_reset_that_comes_after_it_is_overlapping():
    """Usage between the last point before a reset and the reset cannot be told any more; the caller
    is told that.
    """
    # 10, then a reset at 100: 3. The point of 90 would have added 14 - 10 = 4 that nobody can place
    # now.
    run = run_of([(60, 10, 0), (120, 3, 100), (90, 14, 0)])
    assert [delta.value for delta in run.deltas] == [10, 3]
    assert run.overlapping == (point(90, 14, 0),)


def test_a_sum_that_is_not_monotonic_may_fall():
    """A value of an UpDownCounter that falls is a negative delta, and below zero it goes on; only a
    start time resets it.
    """
    run = run_of(
        [
            (60, 5, 0),  # 5
            (120, 2, 0),  # 2 - 5 = -3
            (180, -4, 0),  # -4 - 2 = -6
            (240, 1, 0),  # 1 - (-4) = 5
            (300, 2, 250),  # restarted at 250: 2
        ],
        UP_DOWN,
    )
    assert [delta.value for delta in run.deltas] == [5, -3, -6, 5, 2]
    assert {delta.metric for delta in run.deltas} == {"connections"}


def test_a_late_point_of_a_sum_that_is_not_monotonic_may_be_greater():
    """An UpDownCounter that was higher in between says nothing against the latest point."""
    run = run_of(
        [(60, 5, 0), (180, 2, 0), (120, 9, 0)], UP_DOWN
    )  # 5, then 2 - 5 = -3; the 9 of 120 is within
    assert [delta.value for delta in run.deltas] == [5, -3]
    assert run.overlapping == ()


def test_start_times_that_come_and_go():
    """A point that does not say its start goes on from the last one; one that does begins anew only
    if it starts after it.
    """
    run = run_of(
        [
            (60, 10, 0),  # 10
            (120, 14),  # no start: 14 - 10 = 4
            (180, 20, 0),  # started long before 120: 20 - 14 = 6
            (240, 21),  # 1
            (300, 30, 240),  # started when the last point ended: 30
        ]
    )
    assert [delta.value for delta in run.deltas] == [10, 4, 6, 1, 30]


def test_series_are_kept_apart():
    """Attributes tell the series of a sum apart, whatever the order in which they are written."""
    run = cumulative_to_delta(
        COUNTER,
        [
            point(60, 10, 0, model="large", pod="a"),  # 10
            point(60, 100, 0, model="small", pod="a"),  # 100
            point(120, 13, 0, pod="a", model="large"),  # 3
            point(120, 1, 100, model="small", pod="a"),  # restarted: 1
        ],
    )
    assert [(dict(delta.attributes)["model"], delta.value) for delta in run.deltas] == [
        ("large", 10),
        ("small", 100),
        ("large", 3),
        ("small", 1),
    ]


def test_values_are_exact():
    """Decimals and integers beyond a float's reach are subtracted without losing a digit."""
    # 0.3 - 0.1 is 0.2 here, which it is not in floats; 2**80 + 0.5 - 0.3 = 2**80 + 0.2.
    run = run_of([(60, "0.1", 0), (120, Decimal("0.3"), 0), (180, Fraction(2**81 + 1, 2), 0)])
    assert [delta.value for delta in run.deltas] == [
        Decimal("0.1"),
        Decimal("0.2"),
        Decimal(2**80) + Decimal("0.2"),
    ]


def test_nothing_in_nothing_out():
    """No points make no deltas and leave the state as it is."""
    run = run_of([])
    assert (run.deltas, run.overlapping, run.state) == ((), (), COUNTER)


# State --------------------------------------------------------------------------------------------


def test_a_point_in_the_state_counts_as_billed():
    """Counting can begin at a point that was billed elsewhere."""
    state = CumulativeSum("tokens", last=[point(60, 1000, 0)])
    assert windows(run_of([(120, 1007, 0)], state)) == [(60, 120, 7)]  # 1007 - 1000


def test_the_state_goes_through_json_and_pickle():
    """A state that was written and read again goes on in the same way."""
    state = run_of([(60, "2.5", 0), (120, Decimal("1e-9"))], UP_DOWN).state
    state = cumulative_to_delta(
        state, [point(datetime(2024, 1, 1, 0, 0, 0, 5, UTC), -1, 7, pod="a")]
    ).state
    assert CumulativeSum.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301
    assert json.dumps(state.to_dict()["last"][0]) == (
        '{"time": "1970-01-01T00:02:00+00:00", "value": "0.000000001", "start_time": null, '
        '"attributes": {}}'
    )


def test_points_are_values():
    """Points are equal by content, hash alike, and can be evolved."""
    first = point(60, Decimal("2.0"), 0, pod="a", model="x")
    assert first == point(60, 2, 0, model="x", pod="a")
    assert len({first, attrs.evolve(first), attrs.evolve(first, value=3)}) == 2


# Laws ---------------------------------------------------------------------------------------------

STARTS = st.sampled_from([None, 0, 40, 60, 100])
ROWS = st.lists(
    st.builds(
        lambda time, value, start, pod: point(
            time, value, start if start is None or start <= time else None, pod=pod
        ),
        st.integers(1, 120),
        st.integers(0, 50),
        STARTS,
        st.sampled_from("ab"),
    ),
    max_size=12,
)


@given(ROWS, st.integers(0, 12), st.booleans())
def test_a_split_changes_nothing(points, at, monotonic):
    """Two runs with the state carried over give the deltas, the overlaps and the state of one run,
    wherever the split is.
    """
    state = CumulativeSum("tokens", monotonic=monotonic)
    whole = cumulative_to_delta(state, points)
    first = cumulative_to_delta(state, points[:at])
    second = cumulative_to_delta(first.state, points[at:])
    assert first.deltas + second.deltas == whole.deltas
    assert first.overlapping + second.overlapping == whole.overlapping
    assert second.state == whole.state


@given(ROWS)
def test_windows_of_a_series_never_overlap(points):
    """Whatever the points, the windows of a series' deltas are ascending and apart, and no delta of
    a counter is negative.
    """
    run = cumulative_to_delta(COUNTER, points)
    for pod in "ab":
        deltas = [delta for delta in run.deltas if delta.attributes == (("pod", pod),)]
        assert all(delta.start_time < delta.time and delta.value >= 0 for delta in deltas)
        assert all(one.time <= other.start_time for one, other in itertools.pairwise(deltas))


@given(
    st.lists(
        st.lists(st.decimals(0, 1000, places=2), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    st.randoms(),
)
def test_deltas_between_resets_sum_to_the_last_value(sequences, random):
    """The deltas of a counter sum to the last values of its sequences, also where points repeat or
    come late.
    """
    points, expected, clock = [], Fraction(0), 0
    for increments in sequences:
        start, total, sent = clock, Fraction(0), []
        for increment in increments:
            clock, total = clock + 10, total + Fraction(increment)
            sent.append(point(clock, total, start))
            points += [sent[-1], random.choice(sent)]  # One of this sequence comes again.
        expected += total
        clock += 5  # The next process starts a little later.
    run = cumulative_to_delta(COUNTER, points)
    assert sum((Fraction(delta.value) for delta in run.deltas), Fraction(0)) == expected
    assert run.overlapping == ()


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=10))
def test_deltas_of_an_up_down_counter_sum_to_its_level(levels):
    """Without resets, the deltas of a sum that is not monotonic sum to its last value, whatever its
    course.
    """
    run = run_of([(10 * at, level, 0) for at, level in enumerate(levels, start=1)], UP_DOWN)
    assert sum(delta.value for delta in run.deltas) == levels[-1]


# Meter events -------------------------------------------------------------------------------------

TOKENS = Meter(
    "mtr_tokens",
    "tokens",
    dimension_payload_keys=["model"],
    customer_payload_key="tenant",
    value_payload_key="n",
)


def delta_of(value=10, time=60, metric="llm.tokens", **attributes):
    moment = datetime.fromtimestamp(time, UTC)
    return Delta(
        metric, datetime.fromtimestamp(0, UTC), moment, value, tuple(sorted(attributes.items()))
    )


def test_a_delta_becomes_an_event_of_its_meter():
    """Customer, value and declared dimensions stand where the meter looks for them, at the end of
    the delta's window.
    """
    event = meter_event_from_delta(
        delta_of(Decimal("2.5"), model="large", pod="a"), TOKENS, "cus_1"
    )
    assert event.event_name == "tokens"
    assert dict(event.payload) == {"tenant": "cus_1", "n": "2.5", "model": "large"}
    assert event.timestamp == 60


def test_a_negative_delta_is_written_as_one():
    """A delta below zero lowers what the meter sums."""
    assert meter_event_from_delta(delta_of(-3), TOKENS, "cus_1").payload["n"] == "-3"


def test_a_tiny_delta_is_written_in_digits():
    """A meter takes plain decimals only, so no exponent is written."""
    assert (
        meter_event_from_delta(delta_of(Decimal("1e-9")), TOKENS, "cus_1").payload["n"]
        == "0.000000001"
    )


def test_a_delta_that_is_sent_again_is_the_same_event():
    """The same points give the same events, so that a retry is a duplicate."""
    runs = [cumulative_to_delta(COUNTER, [point(60, 10, 0, pod="a")]) for _ in range(2)]
    first, again = (meter_event_from_delta(run.deltas[0], TOKENS, "cus_1") for run in runs)
    assert first == again


def test_deltas_that_differ_in_anything_that_tells_them_apart_are_different_events():
    """Metric, series, customer and time tell events apart, and their parts cannot run into each
    other.
    """
    events = [
        meter_event_from_delta(delta, TOKENS, customer)
        for delta, customer in [
            (delta_of(pod="a"), "cus_1"),
            (delta_of(pod="b"), "cus_1"),
            (delta_of(pod="a"), "cus_2"),
            (delta_of(time=61, pod="a"), "cus_1"),
            (delta_of(metric="llm", pod="a"), "cus_1"),
            (delta_of(pod="a,b"), "cus_1"),
            (delta_of(pod="a", b=""), "cus_1"),
            (delta_of(poda=""), "cus_1"),
        ]
    ]
    assert len({event.identifier for event in events}) == len(events)
    assert all(len(event.identifier) <= 100 for event in events)


def test_a_delta_that_was_computed_otherwise_keeps_its_identifier():
    """After a lost state the same moment gives another value: one identifier, so that a log refuses
    instead of adding.
    """
    first, other = (meter_event_from_delta(delta_of(value), TOKENS, "cus_1") for value in (5, 10))
    assert first.identifier == other.identifier
    assert first != other


@pytest.mark.parametrize("formula", Formula)
def test_only_meters_that_add_take_deltas(formula):
    """A sum adds deltas up, a weighted sum takes them as changes of a level; the other formulas
    would measure nonsense.
    """
    meter = Meter("m", "tokens", formula)
    if formula in {Formula.SUM, Formula.WEIGHTED_SUM}:
        assert meter_event_from_delta(delta_of(), meter, "cus_1").payload["value"] == "10"
    else:
        with pytest.raises(InvalidValueError) as caught:
            meter_event_from_delta(delta_of(), meter, "cus_1")
        assert (caught.value.code, caught.value.param) == (
            ErrorCode.PARAMETER_INVALID_CHOICE,
            "meter",
        )


def test_a_meter_of_time_windows_takes_no_deltas():
    """Where only the last event of an hour counts, the other deltas of that hour would be lost."""
    with pytest.raises(InvalidValueError) as caught:
        meter_event_from_delta(delta_of(), Meter("m", "tokens", event_time_window="hour"), "cus_1")
    assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_INVALID_CHOICE, "meter")


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "code", "param"),
    [
        (lambda: CumulativePoint(60, 2.5), ErrorCode.PARAMETER_INVALID_DECIMAL, "value"),
        (lambda: CumulativePoint(60, True), ErrorCode.PARAMETER_INVALID_DECIMAL, "value"),
        (lambda: CumulativePoint(60, "1e"), ErrorCode.PARAMETER_INVALID_DECIMAL, "value"),
        (lambda: CumulativePoint(60, Decimal("NaN")), ErrorCode.PARAMETER_INVALID_DECIMAL, "value"),
        (lambda: CumulativePoint(60, Fraction(1, 3)), ErrorCode.PARAMETER_INVALID_DECIMAL, "value"),
        (lambda: CumulativePoint(60.0, 1), ErrorCode.PARAMETER_INVALID_INSTANT, "time"),
        (
            lambda: CumulativePoint(datetime(2024, 1, 1), 1),  # noqa: DTZ001
            ErrorCode.PARAMETER_INVALID_INSTANT,
            "time",
        ),
        (
            lambda: CumulativePoint(60, 1, start_time="0"),
            ErrorCode.PARAMETER_INVALID_INSTANT,
            "start_time",
        ),
        (
            lambda: CumulativePoint(60, 1, start_time=61),
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "start_time",
        ),
        (
            lambda: CumulativePoint(60, 1, attributes=5),
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "attributes",
        ),
        (
            lambda: CumulativePoint(60, 1, attributes={"a": 1}),
            ErrorCode.PARAMETER_INVALID_STRING,
            "attributes[a]",
        ),
        (
            lambda: CumulativePoint(60, 1, attributes={1: "a"}),
            ErrorCode.PARAMETER_INVALID_STRING,
            "attributes[1 (int)]",
        ),
        (lambda: CumulativePoint.from_dict({"time": 60}), ErrorCode.PARAMETER_MISSING, "value"),
        (
            lambda: CumulativePoint.from_dict({"time": 60, "value": 1.5}),
            ErrorCode.PARAMETER_INVALID_DECIMAL,
            "value",
        ),
        (lambda: CumulativePoint.from_dict({"tiem": 60}), ErrorCode.PARAMETER_UNKNOWN, "tiem"),
        (lambda: CumulativeSum(""), ErrorCode.PARAMETER_INVALID_STRING, "metric"),
        (lambda: CumulativeSum("m", monotonic=1), ErrorCode.PARAMETER_INVALID_CHOICE, "monotonic"),
        (lambda: CumulativeSum("m", last=5), ErrorCode.PARAMETER_INVALID_OBJECT, "last"),
        (lambda: CumulativeSum("m", last=[5]), ErrorCode.PARAMETER_INVALID_OBJECT, "last[0]"),
        (
            lambda: CumulativeSum("m", last=[point(1, 1), point(2, 2)]),
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "last",
        ),
        (
            lambda: CumulativeSum("m", last=[point(1, -1)]),
            ErrorCode.PARAMETER_INVALID_DECIMAL,
            "last[0][value]",
        ),
        (
            lambda: CumulativeSum.from_dict({"metric": "m", "last": []}),
            ErrorCode.PARAMETER_MISSING,
            "monotonic",
        ),
        (lambda: cumulative_to_delta(COUNTER, 5), ErrorCode.PARAMETER_INVALID_OBJECT, "points"),
        (
            lambda: run_of([(1, 1), (2, -1)]),
            ErrorCode.PARAMETER_INVALID_DECIMAL,
            "points[1][value]",
        ),
        (
            lambda: cumulative_to_delta(COUNTER, [point(1, 1), (2, 2)]),
            ErrorCode.PARAMETER_INVALID_OBJECT,
            "points[1]",
        ),
        (
            lambda: meter_event_from_delta(delta_of(), TOKENS, 5),
            ErrorCode.PARAMETER_INVALID_STRING,
            "customer",
        ),
    ],
)
def test_what_cannot_be_is_refused(build, code, param):
    """Floats, naive times, shapes that are none and impossible values are refused by name."""
    with pytest.raises(InvalidValueError) as caught:
        build()
    assert (caught.value.code, caught.value.param) == (code, param)
