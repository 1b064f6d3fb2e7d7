"""Small spaces completely: every short sequence of set and increment, in every mode, through every
way to fold.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from builders import DAY, JAN, MODES, START, four_modes

from metering_core import Action, Subscription, SubscriptionItem, UsageLog, UsageRecord
from metering_core.aggregation import summarize_all

SUBSCRIPTION = four_modes()
NOW = START + DAY
TIMES = (START, START + 1)  # The first is the period's first second.
STEPS = tuple(itertools.product(TIMES, Action, (0, 1, 3)))
# Three and fewer steps are tried with every quantity; four with those that still collide, sink to
# nothing and rise again.
LONG_STEPS = tuple(
    (time, *step)
    for time in TIMES
    for step in [(Action.INCREMENT, 2), (Action.SET, 2), (Action.SET, 0)]
)
SEQUENCES = [
    steps for length in range(4) for steps in itertools.product(STEPS, repeat=length)
] + list(itertools.product(LONG_STEPS, repeat=4))
BALLAST = 200


def expected(steps):
    """Restate the modes for two timestamps: what stands at each is what the records from its last
    set on come to.
    """
    standing = []
    for time in TIMES:
        here = [(action, quantity) for at, action, quantity in steps if at == time]
        last_set = max(
            (index for index, (action, _) in enumerate(here) if action is Action.SET), default=0
        )
        standing.append(sum(quantity for _, quantity in here[last_set:]) if here else None)
    early, late = standing
    latest = (early or 0) if late is None else late
    total, count = (early or 0) + (late or 0), (early is not None) + (late is not None)
    greatest = max(early or 0, late or 0)
    # With one of the two alone that is the least and the average. Both lie in one hour of one day,
    # whose peak is the greatest.
    least = min(early, late) if count == 2 else total
    average = Fraction(total, 2) if count == 2 else total
    return (total, greatest, latest, latest, least, count, average, greatest, greatest)


def answers(log, subscription=SUBSCRIPTION):
    return tuple(
        one.total_usage for one in summarize_all([(item, JAN) for item in subscription.items], log)
    )


def loaded_log():
    """Return a log that has folded so much of another item that the next few records are folded one
    by one.
    """
    ballast = SubscriptionItem("ballast", SUBSCRIPTION.items[0].price)
    log = UsageLog([SUBSCRIPTION, Subscription("other", [ballast], START)])
    log.append_columns(["ballast"] * BALLAST, [1] * BALLAST, [START] * BALLAST, now=NOW)
    log.partial(ballast, JAN)
    return log


def records(steps):
    return [
        UsageRecord(mode, quantity, time, action)
        for time, action, quantity in steps
        for mode in MODES
    ]


@pytest.mark.parametrize(
    "new_log", [lambda: UsageLog([SUBSCRIPTION]), loaded_log], ids=["bulk", "one_by_one"]
)
def test_every_short_sequence_at_once(new_log):
    """Appended at once, every sequence gives the naive answer, folded in bulk and record by
    record.
    """
    for steps in SEQUENCES:
        log = new_log()
        log.append(records(steps), now=NOW)
        assert answers(log) == expected(steps), steps


def test_every_short_sequence_step_by_step():
    """Asked after every single record, the running answers are the naive ones at each step."""
    for steps in SEQUENCES:
        log = loaded_log()
        for length, step in enumerate(steps, start=1):
            log.append(records([step]), now=NOW)
            assert answers(log) == expected(steps[:length]), steps[:length]
