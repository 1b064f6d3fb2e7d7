"""Wrong values at every door of the columns: only our own errors come out, with code and param, and nothing changed."""

from __future__ import annotations

from functools import partial

import pytest
from builders import JAN, START, subscribed

pytest.importorskip("numpy", reason="needs the extra columnar")

import numpy as np

import metering_core as mc
from metering_core.columnar import ColumnarEvents, ColumnarUsage, EventBatch, UsageBatch
from metering_core.columnar_rating import rate_lines, rate_many
from metering_core.invoice_lines import invoice_lines
from metering_core.meters import Meter


class Row:
    """As a lazy row of an ORM whose session is closed: whatever it is asked for, it raises."""

    def __repr__(self):
        raise RuntimeError

    def __len__(self):
        raise RuntimeError

    def __array__(self, *_, **__):
        raise RuntimeError

    def __getattr__(self, name):
        raise RuntimeError


class Incomparable:
    """Raises where it is compared or hashed."""

    def __eq__(self, other):
        raise RuntimeError

    def __hash__(self):
        raise RuntimeError


WRONG = {
    "no dimension": lambda: np.array(5),
    "two dimensions": lambda: np.ones((2, 2), np.int64),
    "flags in two dimensions": lambda: np.ones((2, 2), np.bool_),
    "a generator": lambda: (one for one in [1, 2]),
    "a row": Row,
    "rows": lambda: [Row(), Row()],
    "incomparable": lambda: [Incomparable(), Incomparable()],
    "a text": lambda: "ab",
    "bytes": lambda: b"ab",
    "a number": lambda: 5,
    "a float": lambda: 1.5,
    "floats": lambda: np.array([1.0, np.nan]),
    "half floats": lambda: np.array([1, 2], np.float16),
    "complex": lambda: np.array([1j, 2]),
    "lists": lambda: [[1], [2]],
    "huge": lambda: [10**5000, -(10**5000)],
    "a map": lambda: {"a": 1, "b": 2},
    "a set": lambda: {1, 2},
    "a class": lambda: dict,
    "surrogates": lambda: ["\ud800", "\udfff"],
    "dates": lambda: np.array(["2024-01-01", "NaT"], "M8[s]"),
    "masked": lambda: np.ma.array([1, 2], mask=[True, False]),
    "records": lambda: np.array([(1, 2), (3, 4)], [("a", int), ("b", int)]),
    "empty": list,
    "nothing": lambda: None,
}

MONTHLY, METER = subscribed(), Meter("m", "e", dimension_payload_keys=["region"])
USAGE = {"subscription_items": ["si_0", "si_0"], "quantities": [1, 2], "timestamps": [START, START]}
EVENTS = {"event_name": "e", "customers": ["a", "b"], "values": [1, 2], "timestamps": [START, START]}
ITEM = MONTHLY.items[0]


def usage_door(parameter, value):
    """Build a batch of usage with one wrong column, and append it."""
    given = {**USAGE, parameter: value}
    return lambda usage: usage.append(UsageBatch.from_columns(**given), now=START)


def event_door(parameter, value):
    """Build a batch of events with one wrong column, and append it."""
    given = {"dimensions": {"region": ["eu", "us"]}, **EVENTS, parameter: value}
    return lambda events: events.append(EventBatch.from_columns(**given), now=START)


def of_usage(call, parameter, value, **others):
    """Call a method with one wrong argument."""
    return lambda usage: getattr(usage, call)(**others, **{parameter: value})


BATCH, EVENT_BATCH = UsageBatch.from_columns(**USAGE), EventBatch.from_columns(**EVENTS, dimensions={"region": ["eu", "us"]})
PRICE = ITEM.price
USAGE_DOORS = {
    **{f"from_columns {one}": partial(usage_door, one) for one in ("subscription_items", "quantities", "ids", "item_ids")},
    "append now": lambda value: of_usage("append", "now", value, batch=BATCH),
    "append received_at": lambda value: of_usage("append", "received_at", value, batch=BATCH),
    "subscribe": lambda value: of_usage("subscribe", "subscription", value),
    "from_arrow": lambda value: lambda _: UsageBatch.from_arrow(value),
    "partial item": lambda value: of_usage("partial", "item", value, period=JAN),
    "partial period": lambda value: of_usage("partial", "period", value, item=ITEM),
    "of all, period": lambda value: of_usage("total_usage_of_all", "period", value, modes=["sum"]),
    "as_of": lambda value: of_usage("as_of", "limit", value),
    "rate_many price": lambda value: lambda _: rate_many(value, np.array([1])),
    "rate_many quantities": lambda value: lambda _: rate_many(PRICE, value),
    "rate_lines quantities": lambda value: lambda _: rate_lines(PRICE, value),
    "rate_lines price": lambda value: lambda _: rate_lines(value, [1]),
    "invoice_lines at": lambda value: lambda usage: invoice_lines([MONTHLY], usage, value),
}
EVENT_DOORS = {
    **{f"from_columns {one}": partial(event_door, one) for one in (*EVENTS, "identifiers", "dimensions", "customer_ids")},
    "from_columns region": lambda value: event_door("dimensions", {"region": value}),
    "from_columns places": partial(event_door, "decimal_places"),
    "append received_at": lambda value: of_usage("append", "received_at", value, batch=EVENT_BATCH),
    "from_arrow": lambda value: lambda _: EventBatch.from_arrow("e", value),
    "create_meter": lambda value: of_usage("create_meter", "meter", value),
    "events customer": lambda value: of_usage("events", "customer", value),
}
DOORS = [
    *((f"usage: {name}", lambda: ColumnarUsage([MONTHLY]), door) for name, door in USAGE_DOORS.items()),
    *((f"events: {name}", lambda: ColumnarEvents([METER]), door) for name, door in EVENT_DOORS.items()),
]


@pytest.mark.parametrize(("make", "door"), [door[1:] for door in DOORS], ids=[door[0] for door in DOORS])
def test_only_our_errors_come_out(make, door):
    """Every wrong value is refused with a code and a param, or is right there; nothing is kept of a refused call."""
    for name, value in WRONG.items():
        engine, refused = make(), None
        try:
            door(value())(engine)
        except mc.MeteringError as error:
            refused = error
        except Exception as error:
            raise AssertionError(f"{name}: {type(error)} is not ours") from error
        if refused is not None:
            assert refused.param is not None, f"{name}: {refused}"
            assert (len(engine), engine.sequence) == (0, 0), name


class Broken:
    """A stream of Arrow that raises when it is read."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise OSError("the connection was lost\nmetering-core: 9 rows accepted")


def test_what_arrow_refuses_is_refused_by_name():
    """A stream that raises, columns of half floats and of types that are no columns of values are refused in our words."""
    pyarrow = pytest.importorskip("pyarrow")
    for read in (UsageBatch.from_arrow, partial(EventBatch.from_arrow, "e")):
        with pytest.raises(mc.InvalidValueError, match=r"the connection was lost\\nmetering") as refused:
            read(Broken())
        assert (refused.value.code, refused.value.param) == ("parameter_invalid_object", "source")
    halves = pyarrow.array(np.array([1, 2], np.float16))
    usage = {"subscription_item": ["si_0"] * 2, "quantity": halves, "timestamp": [START] * 2}
    with pytest.raises(mc.InvalidValueError) as refused:
        UsageBatch.from_arrow(pyarrow.table(usage))
    assert refused.value.param == "quantities[0]"
    with pytest.raises(mc.InvalidValueError, match="of plain types") as refused:
        UsageBatch.from_arrow(pyarrow.table({**usage, "quantity": [1, 2], "action": pyarrow.array([{"a": 1}, None])}))
    assert refused.value.param == "source"


def test_views_of_strings_are_read():
    """Columns of string views, on which older Arrow died, are read as any other text."""
    pyarrow = pytest.importorskip("pyarrow")
    names = pyarrow.array(["si_0", "a name that is too long to lie inside a view"]).cast(pyarrow.string_view())
    batch = UsageBatch.from_arrow(pyarrow.table({"subscription_item": names, "quantity": [1, 2], "timestamp": [START] * 2}))
    assert batch.names == tuple(names.to_pylist())
