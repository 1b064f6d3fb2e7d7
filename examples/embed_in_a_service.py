"""The engine inside a service: report usage, preview, bill at the month's end, explain a line.

    python examples/embed_in_a_service.py

needs nothing but the library. The service owns its clock and its storage; the engine owns neither,
so this script prints the same on every day and on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import metering_core as mc

TOKENS = mc.Price.graduated(
    "price_tokens",
    currency="usd",
    nickname="Tokens",
    unit_label="tokens",
    tiers=[mc.Tier(100_000, unit_amount="0.06"), mc.Tier("inf", unit_amount="0.045")],
)
SEATS = mc.Price.per_unit(
    "price_seat",
    currency="usd",
    nickname="Seat",
    unit_label="seats",
    unit_amount=1500,
    recurring=mc.Recurring(usage_type="licensed"),
)


class Metering:
    """What a service needs of billing, over one log of usage."""

    def __init__(self, clock: Callable[[], datetime], stored: str | None = None) -> None:
        """Start empty, or from what :meth:`stored` returned before the last restart."""
        self._clock = clock
        if stored is None:
            self._log = mc.UsageLog(clock=clock)
        else:
            self._log = mc.restore(json.loads(stored), clock=clock)

    def sign_up(self, customer: str, seats: int) -> None:
        """Begin a subscription now; its months are counted from this moment, which is its
        anchor.
        """
        items = [
            mc.SubscriptionItem(f"{customer}_tokens", TOKENS),
            mc.SubscriptionItem(f"{customer}_seats", SEATS, seats),
        ]
        self._log.subscribe(mc.Subscription(customer, items, self._clock()))

    def report(self, customer: str, tokens: int, request_id: str) -> str:
        """Take note of a request. Safe to call again with the same id, also later; says what became
        of it.

        The record counts now, by the log's clock. It is not stamped here: the retry would be
        another record then.
        """
        record = mc.UsageRecord(f"{customer}_tokens", tokens, id=request_id)
        (receipt,) = self._log.append([record])
        return (
            receipt.outcome.value
            if receipt.message is None
            else f"{receipt.outcome.value}: {receipt.message}"
        )

    def leave(self, customer: str) -> None:
        """End a subscription now."""
        self._log.subscribe(self._subscription(customer).canceled(self._clock()))

    def bill_so_far(self, customer: str) -> mc.Invoice:
        """Return this month's invoice as it stands; of who left, that of the last month."""
        subscription, now = self._subscription(customer), self._clock()
        if subscription.ended_at is not None and now >= subscription.ended_at:
            now = subscription.ended_at - timedelta(seconds=1)
        return mc.preview_invoice(subscription, self._log, now=now)

    def bill_what_is_due(self, customer: str) -> list[mc.Invoice]:
        """Close every month that has ended, also of who left, and return the invoices of those that
        were not billed yet.
        """
        subscription, now = self._subscription(customer), self._clock()
        ended = takewhile(
            lambda period: period.end <= now, subscription.periods_from(subscription.start_date)
        )
        due = [period for period in ended if self._log.stored_invoice(customer, period) is None]
        return [mc.finalize_invoice(subscription, self._log, period, now=now) for period in due]

    def invoices(self, customer: str) -> list[mc.Invoice]:
        """Return what was billed, as it was billed."""
        subscription, now = self._subscription(customer), self._clock()
        ended = takewhile(
            lambda period: period.end <= now, subscription.periods_from(subscription.start_date)
        )
        stored = (self._log.stored_invoice(customer, period) for period in ended)
        return [invoice for invoice in stored if invoice is not None]

    def stored(self) -> str:
        """Return everything as text, for the service's database."""
        return json.dumps(mc.snapshot(self._log))

    def _subscription(self, customer: str) -> mc.Subscription:
        return next(one for one in self._log.subscriptions if one.id == customer)


class Clock:
    """A clock that the script sets; a service passes ``lambda: datetime.now(UTC)``."""

    def __init__(self, now: datetime) -> None:
        """Begin at a moment."""
        self.now = now

    def __call__(self) -> datetime:
        """Return the moment."""
        return self.now


def main() -> None:
    """Walk through a month and a day."""
    clock = Clock(datetime(2024, 1, 31, 9, 0, tzinfo=UTC))
    service = Metering(clock)
    service.sign_up("acme", seats=2)

    clock.now += timedelta(days=1)
    print("first request:   ", service.report("acme", 60_000, "request-1"))
    clock.now += timedelta(seconds=5)
    print("sent again:      ", service.report("acme", 60_000, "request-1"))
    print("other content:   ", service.report("acme", 61_000, "request-1")[:70], "…")
    clock.now += timedelta(days=9)
    print("another request: ", service.report("acme", 52_345, "request-2"))
    print()
    print(service.bill_so_far("acme"))

    stored = service.stored()  # The service restarts …
    clock.now = datetime(
        2024, 2, 29, 9, 0, tzinfo=UTC
    )  # … and a month after 31 January is the last day of February.
    service = Metering(clock, stored)
    (invoice,) = service.bill_what_is_due("acme")
    print()
    print(invoice)
    print()
    print("Billed again, nothing is due:  ", service.bill_what_is_due("acme") == [])
    print("Asked again, the same invoice:  ", service.invoices("acme") == [invoice])
    print()
    print(mc.explain(invoice.lines[1]))

    clock.now = datetime(2024, 3, 10, 9, 0, tzinfo=UTC)
    service.leave("acme")
    clock.now += timedelta(days=60)
    (last,) = service.bill_what_is_due("acme")
    print()
    print(f"The last invoice: {last.money} for {last.period}")


if __name__ == "__main__":
    main()
