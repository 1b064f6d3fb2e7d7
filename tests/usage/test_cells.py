"""The cells of an item: any stretch of time can be asked for, whole periods or parts."""

from __future__ import annotations

from fractions import Fraction

import attrs
import pytest
from builders import FEB, JAN, MAR, MODES, START, four_modes
from hypothesis import given
from hypothesis import strategies as st

from metering_core import (
    AggregateUsage,
    BillingPeriod,
    UsageLog,
    UsageRecord,
    finalize_invoice,
    summarize,
)
from metering_core.cells import PeriodCells
from metering_core.errors import UsageCompactedError
from metering_core.measures import AGGREGATORS
from metering_core.periods import SECONDS_MIN
from metering_core.usage import Cell

STAMPS = [START, START + 1, JAN.end_seconds - 1, JAN.end_seconds, FEB.end_seconds - 1]
EDGES = sorted({*STAMPS, *(stamp + 1 for stamp in STAMPS), FEB.end_seconds})


def filled():
    """Return a log with quantities 1 to 5 at the stamps, in January and February, for every
    mode.
    """
    log = UsageLog([four_modes()])
    for quantity, stamp in enumerate(STAMPS, start=1):
        log.append([UsageRecord(mode, quantity, stamp) for mode in MODES], now=stamp)
    return log


@given(st.sampled_from(EDGES), st.sampled_from(EDGES), st.booleans())
def test_any_stretch_of_time_can_be_asked(one, other, is_warm):
    """A stretch that cuts through periods gives the naive answer in every mode, also after whole
    periods were asked.
    """
    first, end = sorted((one, other))
    if first == end:
        end += 1
    log = filled()
    if is_warm:
        [log.partial(item, period) for item in four_modes().items for period in (JAN, FEB, MAR)]
    stretch = BillingPeriod(first, end)
    inside = [quantity for quantity, stamp in enumerate(STAMPS, start=1) if first <= stamp < end]
    so_far = [quantity for quantity, stamp in enumerate(STAMPS, start=1) if stamp < end]
    # Quantities grow with time, so the greatest of a window is its last.
    peaks = [
        sum(
            {
                stamp // length: quantity
                for quantity, stamp in enumerate(STAMPS, start=1)
                if first <= stamp < end
            }.values()
        )
        for length in (3600, 86_400)
    ]
    mean = Fraction(sum(inside), len(inside)) if inside else 0
    expected = [sum(inside), max(inside, default=0), ([0, *inside])[-1], ([0, *so_far])[-1]]
    expected += [min(inside, default=0), len(inside), mean, *peaks]
    assert [summarize(item, log, stretch).total_usage for item in four_modes().items] == expected
    assert [cell.quantity for cell in log.cells("sum", stretch)] == inside
    assert [cell.quantity for cell in log.cells("sum", stretch, look_back=True)] == so_far


@pytest.mark.parametrize("stretch", [(START, START + 5), (START + 6, START + 9)])
def test_a_stretch_beside_the_usage_is_empty(stretch):
    """Inside a period with usage, the time before its first cell and after its last one holds
    nothing.
    """
    log = UsageLog([four_modes()])
    log.record("sum", 7, timestamp=START + 5, now=START + 5)
    assert summarize(four_modes().items[0], log, BillingPeriod(*stretch)).total_usage == 0
    assert PeriodCells(JAN).partial(AGGREGATORS[AggregateUsage.SUM], START, JAN.end_seconds) == 0


@pytest.mark.parametrize("stamp", [START + 3, START + 20])
def test_usage_before_and_after_what_was_asked_of_already_is_found(stamp):
    """A stretch that was beside the usage when it was asked first is not, once a record came
    there.
    """
    log = UsageLog([four_modes()])
    log.append([UsageRecord("sum", 1, START + 9)] * 20, now=START + 30)
    item, stretch = four_modes().items[0], BillingPeriod(stamp - 1, stamp + 2)
    assert [summarize(item, log, one).total_usage for one in (JAN, stretch)] == [20, 0]
    log.record(
        "sum", 7, timestamp=stamp, now=START + 30
    )  # Few against those before: the cells are kept up to date.
    assert [summarize(item, log, one).total_usage for one in (JAN, stretch)] == [27, 7]


def test_cells_come_by_timestamp():
    """Cells are listed by timestamp whatever the order of arrival, and records out of order find
    their period.
    """
    log = UsageLog([attrs.evolve(four_modes(), start_date=SECONDS_MIN)])
    late, early = JAN.end_seconds - 1, START
    log.append_columns(["sum"] * 3, [1, 2, 3], [late, early, late], received_at=[late] * 3)
    log.record("sum", 9, timestamp=START - 5, now=START - 5)  # The clock went back, to December.
    assert log.cells("sum", JAN) == (Cell(early, 2), Cell(late, 4))
    assert log.cells("sum", JAN, look_back=True)[0] == Cell(START - 5, 9)


@pytest.mark.parametrize("engine", ["log", "columns"])
def test_compaction_keeps_no_peaks_that_nobody_is_billed_by(engine):
    """Peaks are as many as hours: of an item that is billed otherwise they are dropped, and asking
    for them is refused.
    """
    kind = (
        UsageLog
        if engine == "log"
        else pytest.importorskip("metering_core.columnar", reason="needs NumPy").ColumnarUsage
    )
    usage = kind([four_modes()])
    usage.append([UsageRecord(mode, 5, START) for mode in MODES], now=START)
    usage.close_period("sub", JAN, now=JAN.end)
    assert usage.compact() == len(MODES)
    by_hour = four_modes().item("hourly_peaks")
    assert usage.partial(by_hour, JAN) == ((START // 3600, 5),)
    with pytest.raises(UsageCompactedError):
        usage.partial(attrs.evolve(by_hour, id="sum"), JAN)
    assert usage.partial(attrs.evolve(four_modes().item("min"), id="sum"), JAN) == 5


@pytest.mark.parametrize("mode", MODES)
def test_compacted_periods_answer_as_a_whole_only(mode):
    """After compaction a period's total stays, alone and in longer stretches; a part of it is
    refused by name.
    """
    log = filled()
    item = four_modes().item(mode)
    stretches = [JAN, FEB, BillingPeriod(START, FEB.end)]
    before = [summarize(item, log, stretch).total_usage for stretch in stretches]
    finalize_invoice(four_modes(), log, JAN, now=FEB.end)
    assert log.compact() == 3 * len(MODES)
    assert [summarize(item, log, stretch).total_usage for stretch in stretches] == before
    for ask in (
        lambda: summarize(item, log, BillingPeriod(START, START + 1)),
        lambda: log.cells(mode, JAN),
        lambda: log.records(mode, JAN),
        lambda: log.cells(mode, FEB, look_back=True),
    ):
        with pytest.raises(
            UsageCompactedError, match="2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z"
        ) as caught:
            ask()
        assert (caught.value.code, caught.value.details) == ("usage_compacted", {"period": JAN})
