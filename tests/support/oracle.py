"""A slow biller that counts units one at a time, with fractions. It shares no code with
metering_core.

In: plain dicts and tuples. An item is ``{"id", "mode", "scheme", …}`` with ``mode`` an aggregation
mode or None (licensed, then with ``"quantity"``) and ``scheme`` one of per_unit and package (with
``"unit"``; package also ``"size"`` and ``"round"``), graduated and volume (with ``"tiers"``, each
``(last unit or None, unit or None, flat or None)``). A record is ``(item, timestamp, action,
quantity)``, in the order of arrival. Out: whole minor units, line by line.
"""

from __future__ import annotations

from fractions import Fraction


def bill(items, records, start, end):
    """Return the settled amounts of all lines of the period [start, end)."""
    return [
        whole(amount)
        for item in items
        for amount in lines(
            item, item["quantity"] if item["mode"] is None else quantity(item, records, start, end)
        )
    ]


def quantity(item, records, start, end):
    """Replay the item's records into one value a timestamp, then aggregate the values."""
    values = {}
    for item_id, timestamp, action, amount in records:
        if item_id == item["id"]:
            values[timestamp] = amount if action == "set" else values.get(timestamp, 0) + amount
    if item["mode"] == "last_ever":
        start = min(values, default=start)
    return measured(
        item["mode"],
        {timestamp: one for timestamp, one in values.items() if start <= timestamp < end},
    )


WINDOWS = {"hourly_peaks": 3600, "daily_peaks": 24 * 3600}


def measured(mode, values):
    """Return what values, one a timestamp, come to in a mode, walking through them in the order of
    time.
    """
    inside = [values[timestamp] for timestamp in sorted(values)]
    if not inside:
        return 0
    if mode in WINDOWS:
        return sum_of_peaks(values, WINDOWS[mode])
    if mode == "average":
        return Fraction(sum(inside), len(inside))
    found, count = inside[0], 0
    for value in inside:
        count += 1
        if (
            (mode == "max" and value > found)
            or (mode == "min" and value < found)
            or mode.startswith("last")
        ):
            found = value
    return {"sum": sum(inside), "count": count}.get(mode, found)


def sum_of_peaks(values, length):
    """Walk through the windows of Unix time from the first to the last that has a value, and add
    the greatest of each.
    """
    total, window = 0, min(values) // length
    while window * length <= max(values):
        total += max(
            [value for timestamp, value in values.items() if timestamp // length == window],
            default=0,
        )
        window += 1
    return total


def lines(item, units):
    """Return the exact amounts of the item's lines: for each tier reached one for units, then its
    flat amount if any.

    A share of a unit is counted one part of it at a time.
    """
    units = Fraction(units)
    if units.denominator > 1:
        return lines(parted(item, units.denominator), units.numerator)
    units = units.numerator
    if item["scheme"] == "per_unit":
        return [sum((Fraction(item["unit"]) for _ in range(units)), Fraction(0))]
    if item["scheme"] == "package":
        return [packages(units, item["size"], item["round"]) * Fraction(item["unit"])]
    reached = [0] + [tier_of(item["tiers"], unit) for unit in range(1, units + 1)]
    if item["scheme"] == "volume":
        reached = [reached[-1]] * len(reached)
    amounts = []
    for number, (_, unit, flat) in enumerate(item["tiers"]):
        if number in reached:
            amounts.append(
                sum((Fraction(unit or 0) for tier in reached[1:] if tier == number), Fraction(0))
            )
            amounts += [] if flat is None else [Fraction(flat)]
    return amounts


def parts(item, units):
    """Return what each part of a price is settled to for an exact quantity: (tier's place or None,
    kind) → minor units.
    """
    units = Fraction(units)
    if item["scheme"] == "per_unit":
        return {(None, item.get("kind", "unit")): whole(units * Fraction(item["unit"]))}
    if item["scheme"] == "package":
        return {
            (None, "package"): whole(
                packages(units, item["size"], item["round"]) * Fraction(item["unit"])
            )
        }
    settled, below = {}, Fraction(0)
    for number, (last, unit, flat) in enumerate(item["tiers"]):
        is_here = last is None or units <= last
        if is_here or item["scheme"] == "graduated":
            own = (units if is_here else last) - below
            settled[number, "unit"] = whole(own * Fraction(unit or 0))
            if flat is not None:
                settled[number, "flat"] = whole(Fraction(flat))
        if is_here:
            return settled
        below = last if item["scheme"] == "graduated" else below
    raise AssertionError("the last tier has no end")


def parted(item, count):
    """Return the item with each unit cut into ``count`` equal parts, so that shares of a unit can
    be counted one at a time.
    """
    if item["scheme"] in {"graduated", "volume"}:
        scale = [
            (last and last * count, unit and Fraction(unit) / count, flat)
            for last, unit, flat in item["tiers"]
        ]
        return {**item, "tiers": scale}
    if item["scheme"] == "package":
        return {**item, "size": item["size"] * count}
    return {**item, "unit": Fraction(item["unit"]) / count}


def tier_of(tiers, unit):
    """Return which tier the unit with this number (from 1) falls in; its last unit belongs to a
    tier.
    """
    return next(number for number, (last, _, _) in enumerate(tiers) if last is None or unit <= last)


def packages(units, size, way):
    """Fill packages one by one; a part of one counts when rounding up."""
    count = 0
    while units >= size:
        units, count = units - size, count + 1
    return count + (1 if units and way == "up" else 0)


def whole(amount):
    """Round to the nearest integer, a half away from zero."""
    size = abs(amount)
    nearest = size.numerator // size.denominator
    nearest += size - nearest >= Fraction(1, 2)
    return nearest if amount >= 0 else -nearest
