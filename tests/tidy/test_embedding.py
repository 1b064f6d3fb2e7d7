"""The documented service under failures: any call may raise, then it restarts and is equal; so is a
journal that fails.
"""

from __future__ import annotations

import doctest
import sqlite3
from datetime import UTC, datetime, timedelta

import pages
import pytest

import metering_core as mc
from metering_core.errors import ErrorCode

PAGE = pages.of_documentation("howto", "embed-in-a-billing-service.md")
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)


def service_of_the_page():
    """Return the class that the page defines."""
    defined = {}
    for example in doctest.DocTestParser().get_examples(PAGE.read_text(encoding="utf-8"))[:5]:
        exec(example.source, defined)  # noqa: S102 - what the documentation prints
        if "BillingService" in defined:
            break
    return defined["BillingService"]


BillingService = service_of_the_page()


class Failing(sqlite3.Connection):
    """A database that can be told to fail when a row is written."""

    is_full = False

    def executemany(self, statement, rows):
        if self.is_full and rows:
            raise sqlite3.OperationalError("database or disk is full")
        return super().executemany(statement, rows)


@pytest.fixture
def database():
    """Return a database in memory."""
    connection = sqlite3.connect(":memory:", factory=Failing)
    yield connection
    connection.close()


@pytest.fixture
def service(database):
    """Return a service with a subscription since October: tokens at a cent, and three seats of USD
    10.
    """
    seats = mc.Price.per_unit(
        "seat", currency="usd", unit_amount=1000, recurring=mc.Recurring(usage_type="licensed")
    )
    tokens = mc.SubscriptionItem(
        "tokens", mc.Price.per_unit("tokens", currency="usd", unit_amount=1)
    )
    made = BillingService(database)
    made.subscribe(
        mc.Subscription("acme", [tokens, mc.SubscriptionItem("seats", seats, 3)], OCTOBER), OCTOBER
    )
    return made


def equal_after_a_restart(service):
    """Whether a service that is built from the journal is as this one is."""
    return BillingService(service.database).log == service.log


def finalized_early(service):
    """Finalize a period that has not ended."""
    subscription = service.log.subscription("acme")
    with service._written_down():
        mc.finalize_invoice(subscription, service.log, subscription.period_at(OCTOBER), now=OCTOBER)


USE = [{"subscription_item": "tokens", "quantity": 5, "id": "r"}]

FAILURES = [
    lambda service: service.take([{"subscription_item": "tokens", "quantity": 0.5}], OCTOBER),
    lambda service: service.take([{"subscription_item": "tokens", "no_such": 5}], OCTOBER),
    lambda service: service.take(USE, datetime(2026, 10, 5)),  # noqa: DTZ001 - naive
    lambda service: service.subscribe(
        mc.Subscription("acme", service.log.subscription("acme").items[:1], OCTOBER), NOVEMBER
    ),
    lambda service: service.bill_what_is_due("nobody", NOVEMBER),
    lambda service: service.bill_so_far("acme", OCTOBER - timedelta(days=1)),
    finalized_early,
]


@pytest.mark.parametrize("fail", FAILURES)
def test_what_raises_is_not_written(service, fail):
    """Whatever a call raises, the journal has no row of it: the service starts again, equal, and
    goes on.
    """
    service.take(USE, OCTOBER)
    before = service.database.execute("SELECT * FROM journal").fetchall()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is
        fail(service)
    assert service.database.execute("SELECT * FROM journal").fetchall() == before
    assert equal_after_a_restart(service)
    assert service.take(USE, OCTOBER + timedelta(days=1))[0].outcome == "duplicate"


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.take([USE[0] | {"id": "other"}], OCTOBER),
        lambda service: service.subscribe(
            service.log.subscription("acme").canceled(NOVEMBER), OCTOBER
        ),
        lambda service: service.bill_what_is_due("acme", NOVEMBER),
    ],
)
def test_what_is_not_written_is_not_done(service, call):
    """Where the database does not take the row, the log forgets the deed; done again it is done
    once.
    """
    service.take(USE, OCTOBER)
    service.database.is_full = True
    before = mc.snapshot(service.log)
    with pytest.raises(sqlite3.OperationalError):
        call(service)
    service.database.is_full = False
    assert mc.snapshot(service.log) == before
    assert equal_after_a_restart(service)
    call(service)
    assert mc.snapshot(service.log) != before
    assert equal_after_a_restart(service)


def test_an_honest_retry_is_a_duplicate(service):
    """A request that is sent again an hour or a day later is the same request."""
    sequences = [service.take(USE, OCTOBER + timedelta(hours=later))[0] for later in (0, 1, 24)]
    assert [(one.outcome.value, one.sequence) for one in sequences] == [
        ("accepted", 1),
        ("duplicate", 1),
        ("duplicate", 1),
    ]
    assert equal_after_a_restart(service)


def test_nothing_is_due_before_the_first_month_ended(service):
    """A customer of October owes nothing for September, and in October nothing yet."""
    assert service.bill_what_is_due("acme", NOVEMBER - timedelta(seconds=1)) == []
    (invoice,) = service.bill_what_is_due("acme", NOVEMBER)
    assert (invoice.period.start, invoice.total) == (OCTOBER, 3000)
    assert service.bill_what_is_due("acme", NOVEMBER) == []
    assert service.invoices("acme", NOVEMBER) == [invoice]
    assert equal_after_a_restart(service)


def test_who_left_is_billed(service):
    """After a cancellation the last period is billed, once, and there is still a page to show."""
    left = OCTOBER + timedelta(days=10)
    service.take(USE, OCTOBER)
    service.subscribe(service.log.subscription("acme").canceled(left), left)
    assert service.bill_so_far("acme", left + timedelta(days=90)).total == 5 + 968  # 3000 x 10/31
    (last,) = service.bill_what_is_due("acme", left + timedelta(days=90))
    assert (last.period.end, last.total) == (left, 973)
    assert service.bill_what_is_due("acme", left + timedelta(days=91)) == []
    assert equal_after_a_restart(service)


def test_a_price_changes_while_requests_come(service):
    """November is used before October is finalized: told of the boundary, November has the new
    price; the restart knows it.
    """
    service.take(USE, OCTOBER)
    service.take([USE[0] | {"id": "november"}], NOVEMBER + timedelta(minutes=1))
    told = service.log.subscription("acme")
    dearer = mc.SubscriptionItem(
        "tokens", mc.Price.per_unit("dearer", currency="usd", unit_amount=2)
    )
    changed = mc.Subscription("acme", [dearer, told.items[1]], OCTOBER)
    with pytest.raises(mc.InvalidValueError, match=r"pass now=2026-10-01T00:00:00Z"):
        service.subscribe(changed, NOVEMBER)  # October is open.
    later = NOVEMBER + timedelta(minutes=5)
    (october,) = service.bill_what_is_due("acme", later)
    with pytest.raises(mc.InvalidValueError, match=r"pass now=2026-11-01T00:00:00Z"):
        service.subscribe(changed, later)
    service.subscribe(changed, NOVEMBER)
    assert (october.total, service.bill_so_far("acme", later).total) == (5 + 3000, 5 * 2 + 3000)
    assert equal_after_a_restart(service)


def test_rebilling_is_written(service):
    """A version that bills the open month anew does so after a restart, too."""
    service.take(USE, OCTOBER)
    dearer = mc.SubscriptionItem(
        "tokens", mc.Price.per_unit("dearer", currency="usd", unit_amount=2)
    )
    changed = mc.Subscription("acme", [dearer, service.log.subscription("acme").items[1]], OCTOBER)
    service.subscribe(changed, OCTOBER + timedelta(days=1), rebill=True)
    assert service.bill_so_far("acme", OCTOBER).total == 5 * 2 + 3000
    assert equal_after_a_restart(service)


def test_a_preview_after_the_end_says_what_to_do(service):
    """The refusal names the life, and the last period that can be asked for."""
    ended = service.log.subscription("acme").canceled(OCTOBER + timedelta(days=10))
    with pytest.raises(mc.InvoicingError) as refusal:
        mc.preview_invoice(ended, service.log, now=NOVEMBER)
    assert refusal.value.code == ErrorCode.PERIOD_NOT_OF_SUBSCRIPTION
    assert str(refusal.value) == (
        "now: expected a moment in the life of subscription 'acme' (from "
        "2026-10-01T00:00:00Z to 2026-10-11T00:00:00Z; "
        "its last period is 2026-10-01T00:00:00Z to 2026-10-11T00:00:00Z), received "
        "2026-11-01T00:00:00Z"
    )
