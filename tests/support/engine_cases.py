"""Adversarial usage for engines, many cases in one batch, and the comparison with what a log makes
of it (law 4).

Each case is a subscription of its own with items of its own, so cases cannot touch each other and
one run of a slow engine settles hundreds. Times, quantities and ids are drawn from the few values
at which engines go wrong.

An engine enters as a function from a batch to what it `Answered`; `differences` is all that any of
them must hold to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property
from itertools import islice, pairwise
from typing import Any

from builders import DAY, MODES, START, priced

from metering_core import (
    AcceptancePolicy,
    BillingPeriod,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    finalize_invoice,
)
from metering_core.aggregation import summarize_all
from metering_core.periods import SECONDS_MIN
from metering_core.pricing import Graduated, Package, Percentage, PerUnit, Volume
from metering_core.subscriptions import BillingThresholds

POLICIES = {
    "literal": AcceptancePolicy(),
    "late": AcceptancePolicy(late_grace=timedelta(hours=1)),
    "drifting": AcceptancePolicy(
        future_tolerance=timedelta(seconds=300), late_grace=timedelta(days=40)
    ),
    "attributed": AcceptancePolicy(late_grace=timedelta(days=3), late_attribution="open_period"),
}
QUANTITIES = (0, 1, 2, 5, 10, 2**53 + 1, 2**63 - 1, 2**63 - 1)
INTERVALS = (("day", 1), ("week", 1), ("month", 1), ("month", 2))
TIERS = [Tier(5, 3, 100), Tier(None, "1.5")]
MODELS = (
    PerUnit(1),
    PerUnit("0.4"),
    Graduated(TIERS),
    Volume(TIERS),
    Package(7, 10),
    Percentage("2.9"),
)
# Late usage that is billed at all must be frequent where a policy bills it: modes and models.
BILLABLE_LATE = dict.fromkeys(POLICIES, ((), ())) | {
    "attributed": (("sum",) * 20, (PerUnit(1), PerUnit("0.4")) * 8)
}
ZONES = ("UTC", "UTC", "UTC", "Europe/Berlin")
NAMES = ("subscription_item", "quantity", "timestamp", "action", "id", "received_at")


@dataclass
class Batch:
    """Subscriptions, what was closed of them, and rows: item, quantity, timestamp, action, id,
    received at.
    """

    policy: AcceptancePolicy
    subscriptions: list[Subscription] = field(default_factory=list)
    closings: list[tuple[str, BillingPeriod]] = field(default_factory=list)
    rows: list[tuple[str, int, int, str, str | None, int]] = field(default_factory=list)

    def empty_log(self):
        """Return the log before any usage arrived."""
        log = UsageLog(self.subscriptions, policy=self.policy)
        for subscription_id, period in self.closings:
            log.close_period(subscription_id, period, now=period.end)
        return log

    def closed(self):
        """Return the closed periods as engines take them."""
        return self.empty_log().state().closed

    def columns(self):
        """Return the rows by column, with the order of arrival."""
        columns = {name: [row[at] for row in self.rows] for at, name in enumerate(NAMES)}
        return columns | {"seq": list(range(1, len(self.rows) + 1))}

    def log(self):
        """Return the log after all rows, and their receipts."""
        log, columns = self.empty_log(), self.columns()
        return log, log.append_columns(
            *(columns[name] for name in NAMES[:5]), received_at=columns["received_at"]
        )

    def all_columns(self):
        """Return the rows by column, as engines that keep records take them."""
        return tuple(list(column) for column in zip(*self.rows, strict=True)) or ((),) * len(NAMES)

    def pieces(self):
        """Return the rows by column in a few pieces of unequal length, the first of them empty."""
        cuts = [0, 0, 1, len(self.rows) // 3, len(self.rows) // 2, len(self.rows)]
        columns = self.all_columns()
        return [[column[start:end] for column in columns] for start, end in pairwise(cuts)]

    def requests(self):
        """Return every billing period that may have usage, and periods that cut through them, of
        every item with usage.
        """
        found = []
        for subscription in self.subscriptions:
            for period in self.periods(subscription):
                cut = BillingPeriod(period.start_seconds + 1, period.end_seconds + DAY)
                metered = [
                    item
                    for item in subscription.items
                    if item.recurring.aggregate_usage is not None
                ]
                found += [(item, asked) for item in metered for asked in (period, cut)]
        return found

    @cached_property
    def expected(self):
        """Return what the log says."""
        log, receipts = self.log()
        requests = self.requests()
        return {
            "receipts": exceptional(receipts),
            "partials": log.partials(requests),
            "summaries": summarize_all(requests, log),
            "invoices": invoices_of(self, log.as_of(log.sequence)),
            "periods with usage": periods_with_usage(self, log.records()),
        }

    @staticmethod
    def periods(subscription):
        """Return the first billing periods."""
        return list(islice(subscription.periods_from(START), 3))


@cache
def generated(seed: int, cases: int, policy: str) -> Batch:
    """Return so many cases in one batch, the same ones for the same seed."""
    draw = random.Random(f"{seed} {policy}")  # noqa: S311 - no secret
    batch = Batch(POLICIES[policy])
    rows = []
    for number in range(cases):
        subscription = _subscription(draw, f"c{number}", *BILLABLE_LATE[policy])
        batch.subscriptions.append(subscription)
        periods = batch.periods(subscription)
        closed = draw.choice([0, 1, 1, 2])
        batch.closings += [(subscription.id, period) for period in periods[:closed]]
        rows.append(_rows(draw, subscription, periods, POLICIES[policy]))
    # Cases take turns, so that what one engine calls neighbours another does not.
    while any(rows):
        batch.rows += [pending.pop(0) for pending in rows if pending and draw.random() < 0.7]
    return batch


def _subscription(draw, case, more_modes, more_models):
    interval, count = draw.choice(INTERVALS)
    thresholds = BillingThresholds(usage_gte=5)
    items = []
    for number, mode in enumerate(
        draw.sample((*MODES, *MODES, None, "meter", *more_modes), draw.randint(1, 4))
    ):
        recurring = Recurring(
            interval=interval,
            interval_count=count,
            usage_type="licensed" if mode is None else "metered",
            aggregate_usage=None if mode == "meter" else mode,
            **({"meter": "mtr"} if mode == "meter" else {}),
        )
        item_thresholds = thresholds if draw.random() < 0.1 and mode in MODES else None
        price = priced(draw.choice((*MODELS, *more_models)), recurring=recurring)
        items.append(
            SubscriptionItem(f"{case}/{number}", price, billing_thresholds=item_thresholds)
        )
    always = {"start_date": SECONDS_MIN}
    life = draw.choice(
        [
            {},
            always,
            always,
            {"start_date": START + DAY // 2},
            {**always, "ended_at": START + DAY + 3600},
        ]
    )
    if draw.random() < 0.1:
        life["billing_thresholds"] = BillingThresholds(amount_gte=1)
    anchor = draw.choice([START, START, START + 3600, START + 30 * DAY])
    return Subscription(case, items, anchor, timezone=draw.choice(ZONES), **life)


def _rows(draw, subscription, periods, policy):
    grace, tolerance = (
        int(one.total_seconds()) for one in (policy.late_grace, policy.future_tolerance)
    )
    edges = [second for period in periods for second in (period.start_seconds, period.end_seconds)]
    stamps = [
        edge + delta for edge in draw.sample(edges, min(2, len(edges))) for delta in (-1, 0, 1, 60)
    ]
    rows = []
    for _ in range(draw.choice([0, 1, 3, 8, 16])):
        item = (
            draw.choice(subscription.items).id
            if draw.random() < 0.97
            else f"{subscription.id}/unknown"
        )
        timestamp = draw.choice(stamps)
        latest = timestamp - tolerance
        late = [edge + grace + delta for edge in edges for delta in (-1, 0)]
        received = draw.choice(
            [
                timestamp,
                timestamp,
                timestamp,
                timestamp + 1,
                timestamp + 3600,
                latest,
                latest - 1,
                draw.choice(late),
                max(edges),
            ]
        )
        action = draw.choice(["increment", "increment", "set"])
        rows.append(
            (
                item,
                draw.choice(QUANTITIES),
                timestamp,
                action,
                draw.choice([None, None, "a", "b"]),
                received,
            )
        )
        if draw.random() < 0.3:
            rows.append(_retry(draw, draw.choice(rows), received))
    return rows


def _retry(draw, row, received):
    """Return a row once more, as it was or with one thing changed."""
    item, quantity, timestamp, action, record_id, first_received = row
    other = {"increment": "set", "set": "increment"}[action]
    quantity, action = draw.choice(
        [(quantity, action)] * 3 + [(quantity, other), (quantity // 2, action)]
    )
    return item, quantity, timestamp, action, record_id, draw.choice([received, first_received])


@dataclass
class Answered:
    """What an engine made of a batch: the usage to ask, the receipts that were asked for, and the
    periods with usage.
    """

    usage: Any
    receipts: Callable[[], Mapping[int, Any]]
    periods_with_usage: Callable[[], Mapping[str, Any]]

    @classmethod
    def of_sql(cls, engine):
        """Return what an engine answers that knows its receipts and periods itself."""
        return cls(engine, engine.receipts, engine.periods_with_usage)


def differences(batch: Batch, answered: Answered) -> Iterator[str]:
    """Yield what an engine says otherwise than the log: receipts, partials, summaries, invoices,
    periods with usage.

    One after the other, so that whoever only wants to know whether there is any asks a slow engine
    no more than it takes.
    """
    expected, requests, usage = batch.expected, batch.requests(), answered.usage
    questions = {
        "receipts": answered.receipts,
        "periods with usage": answered.periods_with_usage,
        "partials": lambda: usage.partials(requests),
        "summaries": lambda: summarize_all(requests, usage),
        "invoices": lambda: invoices_of(batch, usage),
    }
    for what, ask in questions.items():
        answer = ask()
        if answer != expected[what]:
            pairs = (
                zip(expected[what], answer, strict=False)
                if isinstance(answer, list)
                else [(expected[what], answer)]
            )
            yield from [
                f"{what}: expected {left}, received {right}"
                for left, right in pairs
                if left != right
            ][:1]


def dies(batch: Batch, engine: Callable[[Batch], Answered]) -> bool:
    """Whether an engine with a defect is found out, by what it says or by an assertion of
    its own.
    """
    try:
        return next(differences(batch, engine(batch)), None) is not None
    except AssertionError:  # A receipt that the rules themselves would not give.
        return True


def exceptional(receipts) -> dict:
    """Return the receipts of records that were not accepted, by the number of the row, from 1."""
    return {
        row: receipt for row, receipt in enumerate(receipts, 1) if receipt.outcome != "accepted"
    }


def invoices_of(batch: Batch, usage):
    """Return the invoices of all billing periods of all cases that can be billed; items on a meter
    cannot.
    """
    return [
        finalize_invoice(subscription, usage, period, now=period.end)
        for subscription in batch.subscriptions
        if all(item.recurring.meter is None for item in subscription.items)
        for period in batch.periods(subscription)
    ]


def periods_with_usage(batch, records):
    """Return them by looking at each accepted record."""
    owners = {
        item.id: subscription for subscription in batch.subscriptions for item in subscription.items
    }
    found = {subscription.id: set() for subscription in batch.subscriptions}
    for logged in records:
        owner = owners[logged.record.subscription_item]
        found[owner.id].add(owner.period_at(logged.billed_at))
    return {
        key: tuple(sorted(periods, key=lambda period: period.start))
        for key, periods in found.items()
        if periods
    }


# The engines --------------------------------------------------------------------------------------


def log_one_by_one(batch: Batch) -> Answered:
    """Return a log to which each record was appended alone."""
    log, receipts = batch.empty_log(), []
    for *fields, received_at in batch.rows:
        receipts += log.append([UsageRecord(*fields)], now=received_at)
    return _of_records(batch, log, receipts)


def log_in_pieces(batch: Batch) -> Answered:
    """Return a log to which columns were appended in pieces, with questions between, seen through a
    view.
    """
    log, receipts = batch.empty_log(), []
    for piece in batch.pieces():
        receipts += log.append_columns(*piece[:5], received_at=piece[5])
        log.partials(batch.requests()[:20])
    return _of_records(batch, log.as_of(log.sequence), receipts)


def columnar(batch: Batch) -> Answered:
    """Return columns to which the batch was appended at once."""
    return _columnar(batch, [batch.all_columns()])


def columnar_in_pieces(batch: Batch) -> Answered:
    """Return columns to which the batch was appended in pieces."""
    return _columnar(batch, batch.pieces())


def _columnar(batch, pieces):
    from metering_core.columnar import ColumnarUsage, UsageBatch  # noqa: PLC0415 - it needs the extra

    usage, receipts = ColumnarUsage(batch.subscriptions, policy=batch.policy), []
    for subscription_id, period in batch.closings:
        usage.close_period(subscription_id, period, now=period.end)
    for piece in pieces:
        receipts += usage.append(UsageBatch.from_columns(*piece[:5]), received_at=piece[5])
    return _of_records(batch, usage, receipts)


def _of_records(batch, usage, receipts):
    return Answered(
        usage, lambda: exceptional(receipts), lambda: periods_with_usage(batch, usage.records())
    )


def duckdb(batch: Batch) -> Answered:
    """Return DuckDB over the batch as an Arrow table."""
    from metering_core.sql import DuckDBUsage  # noqa: PLC0415 - it needs the extra

    return Answered.of_sql(
        DuckDBUsage(arrow(batch), batch.subscriptions, policy=batch.policy, closed=batch.closed())
    )


def spark(session) -> Callable[[Batch], Answered]:
    """Return Spark in a session, classic or Connect, over batches as tables."""
    from metering_core.sql import SparkUsage  # noqa: PLC0415 - it needs the extra

    def engine(batch):
        usage = session.createDataFrame(arrow(batch))
        return Answered.of_sql(
            SparkUsage(
                session, usage, batch.subscriptions, policy=batch.policy, closed=batch.closed()
            )
        )

    return engine


def arrow(batch: Batch):
    """Return the rows as an Arrow table."""
    import pyarrow as pa  # noqa: PLC0415 - absent where nothing needs it

    texts = {"subscription_item", "action", "id"}
    columns = batch.columns().items()
    return pa.table(
        {
            name: pa.array(values, pa.string() if name in texts else pa.int64())
            for name, values in columns
        }
    )


ENGINES = {
    "log one by one": log_one_by_one,
    "log in pieces": log_in_pieces,
    "columnar": columnar,
    "columnar in pieces": columnar_in_pieces,
    "duckdb": duckdb,
}
"""Those of one machine; Spark is driven where a session is."""

EXTRAS = {"columnar": ("numpy",), "columnar in pieces": ("numpy",), "duckdb": ("duckdb", "pyarrow")}
"""What an engine and its table are made with."""
