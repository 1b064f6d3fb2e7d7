"""A slow reader of meter events that shares no code with the library: plain loops over a list, and
Fraction.

It says what a meter comes to in a window from the list of accepted events alone, and which events a
log accepts. Times are Unix microseconds, values the texts that were sent, and everything is
recomputed from the start at each question.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

SECOND = 1_000_000
WINDOWS = {"hour": 3600 * SECOND, "day": 86_400 * SECOND}


class Seen(NamedTuple):
    """An accepted event: its number, when it happened, whose it is, its dimension values, and the
    text of its value.
    """

    number: int
    moment: int
    customer: str
    dimensions: tuple
    text: str | None


def counting(events, window):
    """Return the events that count: with a window, of each set of dimension values and UTC window
    the one received last.
    """
    if window is None:
        return list(events)
    winners = {}
    for one in sorted(events, key=lambda one: one.number):
        winners[one.customer, one.dimensions, one.moment // WINDOWS[window]] = one
    return list(winners.values())


def in_order(events):
    return sorted(events, key=lambda one: (one.moment, one.number))


def level_over_time(events, start, end):
    """Return the average of a level that events raise and lower, walking from change to change."""
    area, level, since = Fraction(0), Fraction(0), start
    for one in in_order(events):
        if one.moment >= end:
            break
        if one.moment > start:
            area += level * (one.moment - since)
            since = one.moment
        level += Fraction(one.text)
    return (area + level * (end - since)) / (end - start)


PEAKS = {"hourly_peaks": 3600 * 10**6, "daily_peaks": 24 * 3600 * 10**6}


def measured(formula, events, start, end, *, window=None, carry=False):
    """Return what one customer's events come to in ``[start, end)``."""
    events = counting(events, window)
    if formula == "weighted_sum":
        return level_over_time(events, start, end)
    inside = in_order(one for one in events if start <= one.moment < end)
    if formula == "count":
        return Fraction(len(inside))
    if formula == "unique_count":
        return Fraction(len(different([one.text for one in inside])))
    if carry and not inside:
        inside = in_order(one for one in events if one.moment < start)[-1:]
    if formula in PEAKS:
        # Window by window, from its first second: what is greatest in each is added.
        found = {}
        for one in inside:
            found.setdefault(one.moment // PEAKS[formula], []).append(Fraction(one.text))
        return added(of_numbers("max", numbers) for numbers in found.values())
    return of_numbers(formula, [Fraction(one.text) for one in inside])


def of_numbers(formula, numbers):
    if not numbers:
        return Fraction(0)
    if formula in {"sum", "average"}:
        return added(numbers) / (1 if formula == "sum" else len(numbers))
    if formula == "last":
        return numbers[-1]
    best = numbers[0]
    for number in numbers:
        if (number > best) if formula == "max" else (number < best):
            best = number
    return best


def different(texts):
    found = []
    for text in texts:
        if text not in found:
            found.append(text)
    return found


def added(numbers):
    total = Fraction(0)
    for number in numbers:
        total += number
    return total


def is_number(text):
    """Whether a text is a plain decimal number, read character by character."""
    digits = text[1:] if text[:1] in {"+", "-"} else text
    whole, point, places = digits.partition(".")
    return (
        bool(whole or places)
        and all(one in "0123456789" for one in whole + places)
        and (bool(point) or not places)
    )


class Ledger:
    """What a meter log must say, kept as a list of everything that was accepted.

    ``meters`` maps an event name to a dict of ``formula``, ``window``, ``dimensions``, ``carry``
    and ``active``.
    """

    def __init__(
        self,
        meters,
        *,
        customers=None,
        retention=None,
        is_global=False,
        cancel_window=timedelta(hours=24),
    ):
        self.meters = meters
        self.customers = customers
        self.retention = None if retention is None else int(retention.total_seconds()) * SECOND
        self.cancel_window = int(cancel_window.total_seconds()) * SECOND
        self.is_global = is_global
        self.number = 0
        # (name, sent, Seen, received), and number → (number of the cancellation, when).
        self.rows = []
        self.canceled = {}

    def identified(self, name, identifier, now=None):
        """Return the newest row with the identifier that is remembered at ``now``."""
        for row in reversed(self.rows):
            own_name, sent, _, received = row
            if sent[1] == identifier and (own_name == name or (self.is_global and now is not None)):
                return (
                    row
                    if now is None or self.retention is None or now - received <= self.retention
                    else None
                )
        return None

    def judge(self, name, payload, identifier, moment, now):
        """Return ``accepted``, ``duplicate`` or a code; keep what is accepted."""
        sent = (dict(payload), identifier, moment)
        if identifier is not None:
            row = self.identified(name, identifier, now)
            if row is not None:
                return "duplicate" if (row[0], row[1]) == (name, sent) else "identifier_reused"
        meter = self.meters.get(name)
        if meter is None:
            return "meter_unknown"
        refusal = self.refusal(meter, payload, now if moment is None else moment, now)
        if refusal is not None:
            return refusal
        self.number += 1
        dimensions = tuple(payload[key] for key in meter["dimensions"])
        at = now if moment is None else moment
        seen = Seen(
            self.number, at, payload["stripe_customer_id"], dimensions, payload.get("value")
        )
        self.rows.append((name, sent, seen, now))
        return "accepted"

    def refusal(self, meter, payload, moment, now):
        if not meter["active"]:
            return "meter_inactive"
        if not payload.get("stripe_customer_id"):
            return "customer_missing"
        if self.customers is not None and payload["stripe_customer_id"] not in self.customers:
            return "customer_unknown"
        text = payload.get("value")
        if text is None and meter["formula"] != "count":
            return "value_missing"
        if text is not None and meter["formula"] != "unique_count" and not is_number(text):
            return "value_invalid"
        if any(key not in payload for key in meter["dimensions"]):
            return "dimension_missing"
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        days = (
            (epoch + timedelta(microseconds=now)).date()
            - (epoch + timedelta(microseconds=moment)).date()
        ).days
        if days > 35:
            return "timestamp_too_far_in_past"
        return "timestamp_in_future" if moment > now + 300 * SECOND else None

    def cancel(self, name, identifier, now):
        """Return ``canceled`` or a code; keep what is accepted."""
        row = self.identified(name, identifier)
        if row is None:
            return "event_not_found"
        if row[2].number in self.canceled:
            return "canceled"
        if now - row[3] > self.cancel_window:
            return "cancel_window_closed"
        self.number += 1
        self.canceled[row[2].number] = (self.number, now)
        return "canceled"

    def events(self, name, customer, *, number=None, received_by=None):
        """Return the events that stand, as of a number in the ledger or a moment."""

        def is_seen(own, at):
            return (number is None or own <= number) and (received_by is None or at <= received_by)

        standing = []
        for own_name, _, seen, received in self.rows:
            gone = self.canceled.get(seen.number)
            is_gone = gone is not None and is_seen(*gone)
            if (
                own_name == name
                and seen.customer == customer
                and is_seen(seen.number, received)
                and not is_gone
            ):
                standing.append(seen)
        return standing

    def value(self, name, customer, start, end, **as_of):
        """Return what the meter of an event name comes to for a customer in ``[start, end)``."""
        meter = self.meters[name]
        events = self.events(name, customer, **as_of)
        return measured(
            meter["formula"], events, start, end, window=meter["window"], carry=meter["carry"]
        )
