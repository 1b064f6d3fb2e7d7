"""One hour of a production LLM service, billed by the token and checked against sums that the
library had no part in.
"""

from __future__ import annotations

import csv
from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from metering_core import (
    BillingPeriod,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    UsageLog,
    UsageRecord,
    explain,
    finalize_invoice,
    preview_invoice,
)

# Cents a token: 3 and 15 US dollars a million.
RATES = {"context": "0.0003", "generated": "0.0015"}
ANCHOR = datetime(2023, 11, 1, tzinfo=UTC)
NOVEMBER = BillingPeriod(ANCHOR, datetime(2023, 12, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def requests(shared):
    """Return (second, context tokens, generated tokens) of every request, the second read by hand
    from the text.
    """
    file = shared / "data" / "azure_llm_code_2023.csv"
    if not file.is_file():
        pytest.skip("needs azure_llm_code_2023.csv in the shared data")
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [
        (
            datetime.fromisoformat(row["TIMESTAMP"][:19] + "+00:00"),
            int(row["ContextTokens"]),
            int(row["GeneratedTokens"]),
        )
        for row in rows
    ]


@pytest.fixture(scope="module")
def subscription():
    """Return one customer with two items on one bill."""
    recurring = Recurring(aggregate_usage="sum")
    prices = [
        Price.per_unit(name, currency="usd", unit_amount=rate, recurring=recurring)
        for name, rate in RATES.items()
    ]
    return Subscription("llm", [SubscriptionItem(price.id, price) for price in prices], ANCHOR)


@pytest.fixture(scope="module")
def log(requests, subscription):
    """Return a log that received every request at the second in which it happened."""
    filled = UsageLog([subscription])
    for column, item in enumerate(RATES, start=1):
        seconds = [int(request[0].timestamp()) for request in requests]
        tokens = [request[column] for request in requests]
        receipts = filled.append_columns(
            [item] * len(requests), tokens, seconds, received_at=seconds
        )
        assert receipts.accepted == len(requests) == 8819
    return filled


def test_every_token_is_counted(requests, subscription, log):
    """18,059,974 context and 245,896 generated tokens of 8,819 requests: the file's own sums, and
    the invoice's quantities.
    """
    sums = [sum(request[column] for request in requests) for column in (1, 2)]
    assert sums == [18_059_974, 245_896]
    assert [
        line.quantity
        for line in preview_invoice(subscription, log, now=NOVEMBER.end_seconds - 1).lines
    ] == sums


def test_requests_of_one_second_make_one_cell(requests, log):
    """67 requests arrived in the peak second; they are records of their own, and one cell."""
    seconds = Counter(request[0] for request in requests)
    peak, count = seconds.most_common(1)[0]
    assert count == 67
    cells = {cell.timestamp: cell.quantity for cell in log.cells("context", NOVEMBER)}
    assert len(cells) == len(seconds)
    assert cells[int(peak.timestamp())] == sum(
        request[1] for request in requests if request[0] == peak
    )
    assert sum(one.record.instant == peak for one in log.records("context")) == 67


def test_the_bill_is_right_to_the_cent(requests, subscription, log):
    """18,059,974 x 0.0003 = 5,417.9922 cents is 54.18, and 245,896 x 0.0015 = 368.844 is 3.69:
    57.87 dollars.
    """
    exact = [
        sum(Fraction(request[column]) for request in requests) * Fraction(rate)
        for column, rate in enumerate(RATES.values(), 1)
    ]
    invoice = finalize_invoice(subscription, log, NOVEMBER, now=NOVEMBER.end)
    assert (
        [Fraction(line.exact) for line in invoice.lines]
        == exact
        == [Fraction("5417.9922"), Fraction("368.844")]
    )
    assert [line.amount for line in invoice.lines] == [5418, 369]
    assert str(invoice.money) == "USD 57.87"
    assert len(explain(invoice.lines[0]).records) == 8819


def test_the_door_does_not_matter(requests, subscription, log):
    """The same requests as records, in one batch at the end of the month, come to the same bill."""
    other = UsageLog([subscription])
    records = [
        UsageRecord(item, request[column], request[0])
        for request in requests
        for column, item in enumerate(RATES, start=1)
    ]
    assert other.append(records, now=NOVEMBER.end_seconds - 1).accepted == 2 * 8819
    bills = [
        preview_invoice(subscription, one, now=NOVEMBER.end_seconds - 1) for one in (log, other)
    ]
    assert bills[0].lines == bills[1].lines
