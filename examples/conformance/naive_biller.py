"""A billing service as it is often written first. Its three defects are meant: see README.md beside
it.

It keeps a total per item and period, counts money in floats, and finds the next billing period by
adding a month to the last.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import datetime, timedelta


class RefusedError(Exception):
    """The biller does not take this usage."""


class NaiveBiller:
    """Bills items by the unit, per day or per month."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.items: dict[str, dict[str, object]] = {}
        self.period_starts: dict[str, datetime] = {}
        self.totals: dict[tuple[str, datetime], int] = {}

    def add_item(
        self, item_id: str, customer: str, dollars_per_unit: float, interval: str, since: datetime
    ) -> None:
        """Start billing an item."""
        self.items[item_id] = {
            "customer": customer,
            "price": dollars_per_unit,
            "interval": interval,
        }
        self.period_starts[item_id] = since

    def use(self, item_id: str, quantity: int, at: datetime, action: str) -> None:
        """Count usage, unless it is in the future or was already billed."""
        if item_id not in self.items:
            raise RefusedError("no such item")
        start = self.period_start(item_id)
        if not start <= at <= self.now:
            raise RefusedError("not in the current period")
        if action == "set":
            # Defect: `set` overwrites the usage at one timestamp, not that of the whole period.
            self.totals[item_id, start] = quantity
        else:
            self.totals[item_id, start] = self.usage(item_id) + quantity

    def usage(self, item_id: str) -> int:
        """Return what an item used in its current period."""
        return self.totals.get((item_id, self.period_start(item_id)), 0)

    def owed(self, customer: str) -> int:
        """Return what a customer owes for the current period, in cents."""
        # Defect: floats. 0.29 dollars are 29 cents, but in floats 100 times 0.29 is
        # 28.999999999999996.
        mine = [
            (item_id, item) for item_id, item in self.items.items() if item["customer"] == customer
        ]
        return sum(int(self.usage(item_id) * float(item["price"]) * 100) for item_id, item in mine)

    def period(self, item_id: str) -> tuple[datetime, datetime]:
        """Return when the current period of an item began and when it ends."""
        start = self.period_start(item_id)
        return start, self._after(item_id, start)

    def period_start(self, item_id: str) -> datetime:
        """Return when the current period of an item began."""
        start = self.period_starts[item_id]
        while self._after(item_id, start) <= self.now:
            start = self._after(item_id, start)
        self.period_starts[item_id] = start
        return start

    def _after(self, item_id: str, start: datetime) -> datetime:
        if self.items[item_id]["interval"] == "day":
            return start + timedelta(days=1)
        year, month = (start.year + 1, 1) if start.month == 12 else (start.year, start.month + 1)
        # Defect: from the 31st of January to the 29th of February, and then to the 29th of March.
        return start.replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))
