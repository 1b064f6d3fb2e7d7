"""Values of every public kind, found within those that travel."""

from __future__ import annotations

import json
from functools import cache

import attrs

import metering_core as mc
from metering_core.invoicing import line_fields


def within(value):
    """Yield a value and all values that it is made of."""
    yield value
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from within(getattr(value, field.name))
    elif isinstance(value, list | tuple | mc.acceptance.Receipts):
        for one in value:
            yield from within(one)
    elif isinstance(value, dict):
        yield from within([*value.keys(), *value.values()])


@cache
def examples():
    """Return all examples by their kind."""
    from test_travelling import examples as travelling  # noqa: PLC0415 - its own tests look for doors

    found = {}
    for one in travelling():
        for value in within(one):
            found.setdefault(type(value), []).append(value)
    return found


def fullest(kind):
    """Return the example of a kind that says most when it is written."""
    return max(examples()[kind], key=lambda value: len(json.dumps(value.to_dict())))


def as_it_was_written(invoice):
    """Write an invoice as it was written when the golden bill was: flat, its prices by id."""
    kept = invoice.to_dict()
    keys = ("id", "subscription", "status", "currency", "period")
    return {
        **{key: kept[key] for key in keys},
        "lines": [line_fields(line) for line in invoice.lines],
        **{key: kept[key] for key in ("subtotal", "total")},
    }
