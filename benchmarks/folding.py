"""Workloads A, B and C: from usage in memory to one number an item, beside what others would write.

Timed is the question alone: every tool has the usage loaded in its own form, and returns its own
kind of table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Final

import attrs

from benchmarks import competing
from benchmarks.datasets import Dataset, Question, expected, generated
from benchmarks.measuring import Group
from benchmarks.ours import Columnar
from benchmarks.peers import PEERS, SMALL_PEERS, loaded

TARGETS: Final = {
    (Question.PLAIN_SUM, 0.0): 2.0,
    (Question.SUM, 0.05): 3.0,
    (Question.LAST, 0.0): 4.0,
    (Question.LAST, 0.05): 4.0,
    (Question.LAST, 0.3): 4.0,
    (Question.EVERY_MODE, 0.05): 4.0,
}
SHARES: Final = (0.0, 0.05, 0.3)
SLOW: Final = ("window form", "pandas")
WITH_SETS: Final = (Question.SUM, Question.MAX, Question.LAST, Question.EVERY_MODE)


@attrs.frozen
class Heat:
    """Some questions to one kind of usage.

    Attributes:
        name: of the workload.
        records: how many.
        set_share: how many of them are a `set`.
        questions: what is asked, one group each.
        is_skewed: whether half the records are of one item.
        peers: who is asked beside us.
        skips: forms that are left out, because they were slower by far with 5 %.
        has_targets: whether the targets are for this one.
    """

    name: str
    records: int
    set_share: float
    questions: tuple[Question, ...]
    is_skewed: bool = False
    peers: dict[str, str] = attrs.field(factory=lambda: PEERS)
    skips: tuple[str, ...] = ()
    has_targets: bool = True


def heats(records: int, few: int) -> Iterator[Heat]:
    """Yield the workloads; ``few`` records are for those who are slow."""
    yield Heat("A", records, 0.0, (Question.PLAIN_SUM,))
    for share in SHARES:
        yield Heat("B", records, share, WITH_SETS, skips=() if share == 0.05 else SLOW)
    skewed = (Question.SUM, Question.MAX, Question.EVERY_MODE)
    yield Heat("C", records, 0.05, skewed, is_skewed=True, skips=SLOW, has_targets=False)
    questions = (Question.PLAIN_SUM, *WITH_SETS)
    yield Heat("Small", few, 0.05, questions, peers=PEERS | SMALL_PEERS, has_targets=False)


def measure(
    records: int, few: int, rounds: int, say: Callable[[str], None]
) -> Iterator[tuple[Group, str]]:
    """Yield each group as it is measured, with the hash of its usage."""
    for heat in heats(records, few):
        usage = generated(heat.records, heat.set_share, is_skewed=heat.is_skewed)
        with ExitStack() as held:
            field = [
                held.enter_context(closing(one))
                for one in (Columnar(usage), *loaded(heat.peers, usage, say))
            ]
            answers, digest = expected(usage), usage.digest()
            for question in heat.questions:
                every = [way for one in field for way in one.ways(question)]
                ways = [way for way in every if not any(form in way.name for form in heat.skips)]
                turns = competing.race(ways, answers[question], rounds)
                target = TARGETS.get((question, heat.set_share)) if heat.has_targets else None
                yield (
                    (
                        _title(heat, question, usage),
                        competing.rows(turns, len(usage), "million records/s", target),
                    ),
                    digest,
                )


def _title(heat: Heat, question: Question, usage: Dataset) -> str:
    sets = "" if question is Question.PLAIN_SUM else f", {heat.set_share:.0%} set"
    return (
        f"{heat.name}: {question.value} of {usage.name}{sets} (from loaded usage to one number "
        "an item)"
    )
