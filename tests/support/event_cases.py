"""Adversarial meter events for engines, and the comparison with what a meter log makes of them (law
4).

Times, values and identifiers are drawn from the few values at which engines go wrong: equal
moments, the bounds of hours, days and periods to the microsecond, numbers beyond 64 bits and of
many places, identifiers that come twice, keys that are missing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property

from builders import DAY, START

import metering_core as mc
from metering_core.aggregation import summarize_all
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meter_summaries import event_summaries
from metering_core.meters import Formula, Meter
from metering_core.periods import from_unix_seconds

SECOND = 1_000_000
CUSTOMERS = ("cus_1", "cus_2", "cus_3")
_METERS = (
    Meter("m_sum", "sum"),
    Meter("m_regions", "regions", dimension_payload_keys=["region", "model"]),
    Meter("m_count", "count", "count", dimension_payload_keys=["region"]),
    Meter("m_last", "last", "last", dimension_payload_keys=["region"]),
    Meter("m_carried", "carried", "last", carry_forward=True),
    Meter("m_max", "max", "max", event_time_window="hour"),
    Meter("m_min", "min", "min", decimal_places=2),
    Meter(
        "m_unique", "unique", "unique_count", value_payload_key="user", customer_payload_key="who"
    ),
    Meter(
        "m_average",
        "average",
        "average",
        dimension_payload_keys=["region"],
        event_time_window="hour",
    ),
    Meter("m_weighted", "weighted", "weighted_sum"),
    Meter("m_levels", "levels", "weighted_sum", dimension_payload_keys=["region"]),
    Meter("m_window", "window", "sum", dimension_payload_keys=["region"], event_time_window="day"),
    Meter("m_off", "off").deactivate(START),
)
METERS = (
    *_METERS,
    # A formula that none of these has is drawn as it is, so that no engine is left without it
    # unnoticed.
    *(
        Meter(f"m_{one}", one.value, one.value)
        for one in Formula
        if one not in {meter.formula for meter in _METERS}
    ),
)
POLICIES = {
    "default": MeterPolicy(),
    "history": MeterPolicy.history(),
    "stripe": MeterPolicy.stripe(),
    "global": MeterPolicy(identifier_scope="global", dimensions_max=1),
    "retained": MeterPolicy(identifier_retention=timedelta(days=1), whole_values=True),
    "positive": MeterPolicy(positive_values=True, backdate_days=1, future_tolerance=timedelta(0)),
}
SMALL = ("1", "2", "3", "-4", "0", "10")
ODD = (
    "0.5",
    "-0.25",
    "007",
    "+1",
    "1.50",
    ".5",
    "5.",
    "-0",
    str(2**63 - 1),
    str(-(2**63)),
    str(2**63),
    "123456789012345.6",
)
HUGE = ("9" * 60, "0." + "0" * 50 + "1", "1" * 100, "-" + "7" * 30 + "." + "3" * 30)
WRONG = ("much", "", "1e3", "1" * 101, " 1", "\u0661", "NaN")
NOON = START + DAY + DAY // 2
MOMENTS = [
    (START + hours * 3600) * SECOND + off
    for hours in (0, 1, 2, 12, 13, 23, 24, 25, 36, 47, 48)
    for off in (-1, 0, 0, 1, 1_800 * SECOND)
]


@dataclass
class Row:
    """One event before it is known whether a log takes it; ``at`` in Unix microseconds, None for
    ``"now"``.
    """

    event_name: str
    customer: str | None
    value: str | None
    at: int | None
    identifier: str | None
    dimensions: dict[str, str]
    received: int

    def event(self):
        """Return the event."""
        meter = next((one for one in METERS if one.event_name == self.event_name), METERS[0])
        own = {
            meter.customer_payload_key: self.customer,
            meter.value_payload_key: self.value,
            **self.dimensions,
        }
        payload = {key: text for key, text in own.items() if text is not None}
        timestamp = (
            "now" if self.at is None else from_unix_seconds(0) + timedelta(microseconds=self.at)
        )
        return MeterEvent(self.event_name, payload, identifier=self.identifier, timestamp=timestamp)


@dataclass
class History:
    """Events in the order of arrival, and what to ask of them."""

    policy: MeterPolicy
    rows: list[Row] = field(default_factory=list)
    customers: tuple[str, ...] | None = None

    @cached_property
    def subscriptions(self):
        """Return a subscription of days for each customer, with an item for every meter that is
        active.
        """
        found = []
        for customer in CUSTOMERS:
            items = [
                mc.SubscriptionItem(
                    f"{customer}_{meter.id}",
                    mc.Price(
                        f"p_{meter.id}",
                        "usd",
                        mc.pricing.Graduated([mc.Tier(5, "1.5", 7), mc.Tier(None, 2)]),
                        mc.Recurring(interval="day", meter=meter.id),
                    ),
                )
                for meter in METERS
                if meter.is_active
            ]
            found.append(mc.Subscription(f"sub_{customer}", items, START, customer=customer))
        return found

    @cached_property
    def log(self):
        """Return the log after all events, and their receipts."""
        log = MeterLog(METERS, self.subscriptions, customers=self.customers, policy=self.policy)
        return log, [log.append([row.event()], now=row.received)[0] for row in self.rows]

    def requests(self):
        """Return the days around the events, and periods that cut through them, of every item."""
        periods = [
            mc.BillingPeriod(START + at * DAY, START + (at + 1) * DAY) for at in (-1, 0, 1, 2)
        ]
        periods.append(mc.BillingPeriod(START + 3601, START + DAY + 7200))
        return [
            (item, period)
            for subscription in self.subscriptions
            for item in subscription.items
            for period in periods
        ]

    def questions(self):
        """Return what summaries are asked for, by keyword."""
        grouped, filtered = (
            {"dimension_group_by_keys": ["region"]},
            {"dimension_filters": {"region": ["us", ""]}},
        )
        # Whole hours and days, so that a policy with aligned summaries takes them; and a zone whose
        # hours are not.
        return [
            {"start_time": START, "end_time": START + 2 * DAY},
            {
                "start_time": START - DAY,
                "end_time": START + 3 * DAY,
                "value_grouping_window": "hour",
            },
            {
                "start_time": START,
                "end_time": START + 2 * DAY,
                "value_grouping_window": "day",
                **grouped,
            },
            {
                "start_time": START,
                "end_time": START + DAY,
                "value_grouping_window": "hour",
                "timezone": "Asia/Kolkata",
            },
            {
                "start_time": START + 3600,
                "end_time": START + DAY,
                "value_grouping_window": "week",
                "dimension_filters": {"region": "eu"},
            },
            {"start_time": START + 3600, "end_time": START + DAY + 7200, **filtered, **grouped},
        ]

    @cached_property
    def expected(self):
        """Return what the log says."""
        log, receipts = self.log
        return {"receipts": receipts, **self.answers(log), "summaries": self.summaries(log)}

    def answers(self, usage):
        """Return what any engine says of partials and bills."""
        requests = self.requests()
        return {
            "partials": usage.partials(requests),
            "totals": summarize_all(requests, usage),
            "invoices": [
                billed(mc.preview_invoice(subscription, usage, now=START + at * DAY))
                for subscription in self.subscriptions
                for at in (0, 1)
            ],
        }

    def asked(self):
        """Yield each meter with each question that it can be asked."""
        for meter in METERS:
            for question in self.questions():
                keys = {
                    *question.get("dimension_filters", ()),
                    *question.get("dimension_group_by_keys", ()),
                }
                if keys <= set(meter.dimension_payload_keys):
                    yield meter, question

    def summaries(self, log):
        """Return the summaries that are not empty of each customer, by meter and question, in the
        order of engines.
        """
        found = []
        for meter, question in self.asked():
            some = [
                one
                for customer in log.customers(meter.id)
                for one in event_summaries(log, meter.id, customer, **question)
            ]
            order = {customer: at for at, customer in enumerate(log.customers(meter.id))}
            some.sort(
                key=lambda one: (order[one.customer], list(one.dimensions.values()), one.start_time)
            )
            found.append([one for one in some if not one.is_empty])
        return found


def billed(invoice):
    """Write an invoice without the numbers of a log up to which its lines counted."""
    written = invoice.to_dict()
    for line in written["lines"]:
        line.pop("usage", None)
    return written


def tied():
    """Return events of one moment in two regions, of which the one that arrived last is of the
    region that came first.
    """
    order = [("us", 0, "1"), ("eu", 0, "2"), ("eu", 60, "3"), ("us", 60, "4")]
    rows = [
        Row("last", "cus_1", value, (START + at) * SECOND, None, {"region": region}, NOON)
        for region, at, value in order
    ]
    return History(POLICIES["history"], rows)


def cut():
    """Return days of which a period ends within: the event that counts of them lies on the end, or
    after it.
    """
    rows = [
        Row(
            "window",
            customer,
            value,
            (START + DAY + at) * SECOND,
            None,
            {"region": "eu"},
            NOON + DAY,
        )
        for customer, last in (("cus_1", 7200), ("cus_2", 7201))
        for at, value in ((3600, "5"), (last, "7"))
    ]
    return History(POLICIES["history"], rows)


def retried():
    """Return events that were received over days: retries an hour and a day after an identifier was
    taken, not by the first.
    """
    taken = NOON + 2 * DAY
    rows = [
        ("a", NOON),
        ("b", NOON),
        ("c", taken),
        ("c", taken + 3600),
        ("c", taken + DAY),
        ("c", taken + DAY + 1),
    ]
    made = [
        Row("sum", "cus_1", "2", NOON * SECOND, identifier, {}, received)
        for identifier, received in rows
    ]
    return History(POLICIES["retained"], made)


def generated(seed, size, policy="default", *, values=(*SMALL, *SMALL, *ODD, *WRONG, None)):
    """Return so many events, the same ones for the same seed."""
    draw = random.Random(f"{seed} {size} {policy}")  # noqa: S311 - no secret
    history = History(POLICIES[policy], customers=draw.choice([None, CUSTOMERS[:2]]))
    names = [*(meter.event_name for meter in METERS), "nobody"]
    name, received = names[0], NOON
    for _ in range(size):
        # Runs of one name, as batches are, and now and then another moment of receipt.
        name = draw.choice(names) if draw.random() < 0.3 else name
        received = (
            draw.choice([NOON, NOON + 1, NOON + DAY, NOON + 2 * DAY])
            if draw.random() < 0.05
            else received
        )
        if history.rows and draw.random() < 0.25:
            again = draw.choice(history.rows[-30:])
            other = {
                "value": draw.choice(values),
                "dimensions": {"region": "eu", "model": "us"},
                "at": START * SECOND,
                "identifier": None,
            }
            changed = draw.choice([None, *other])
            again = replace(
                again, received=received, **({changed: other[changed]} if changed else {})
            )
            history.rows.append(replace(again, identifier=None) if draw.random() < 0.4 else again)
            name = again.event_name
            continue
        dimensions = {
            key: draw.choice(["eu", "us", ""])
            for key in ("region", "model", "extra")
            if draw.random() < 0.6
        }
        history.rows.append(
            Row(
                name,
                draw.choice([*CUSTOMERS, *CUSTOMERS, *CUSTOMERS, "cus_9", "", "c" * 256, None]),
                draw.choice(values),
                draw.choice(
                    [
                        *MOMENTS,
                        None,
                        *[(received // DAY - 35) * DAY * SECOND - off for off in (0, 1)],
                        (received + 300) * SECOND,
                        (received + 301) * SECOND,
                    ]
                ),
                draw.choice([None, None, None, *"abcdefghijkl"]),
                dimensions,
                received,
            )
        )
    return history
