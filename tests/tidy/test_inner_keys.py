"""The law of wrong values for what is within: every key, at every depth, of every object, snapshot
and file that is read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from csv import DictWriter
from random import Random
from typing import Any

import attrs
import pytest
import test_meter_snapshots
import test_snapshots
import test_stripe_fields as stripe
from builders import START
from damaging import sealed
from doors import CLOUDEVENT, PUBLIC_BY_NAME
from places import CASES_FOLDER
from public_names import PUBLIC
from test_wrong_values import DOORS, OWN, TookTooLongError, bounded
from wing_doors import file
from wrong_values import WRONG, Own

import metering_core as mc
from examples import fullest
from metering_core.testing.cases import read_cases, run_cases

SAMPLE = 60
"""Changes of each object that the fast run makes; `make slow` makes them all."""
SEED = 9
GONE, UNKNOWN = "gone", "an unknown key beside it"
KINDS = [*WRONG, GONE, UNKNOWN]


# What is read -------------------------------------------------------------------------------------

TIERS = [mc.Tier(5, "0.5", 100), mc.Tier("inf", unit_amount=1)]
ON_METER = mc.Price(
    "metered",
    "usd",
    mc.pricing.Graduated(TIERS),
    mc.Recurring(meter="m"),
    nickname="Name",
    product="prod",
    unit_label="call",
)
PACKAGES = mc.Price(
    "packages",
    "usd",
    mc.pricing.Package("12.5", 10, "up"),
    mc.Recurring(interval="day", interval_count=2, aggregate_usage="max"),
)
SEATS = mc.Price(
    "seats",
    "usd",
    mc.pricing.Volume(TIERS),
    mc.Recurring(interval="day", interval_count=2, usage_type="licensed"),
)
THRESHOLDS = mc.subscriptions.BillingThresholds(usage_gte=5)
ITEMS = [
    mc.SubscriptionItem("a", PACKAGES, billing_thresholds=THRESHOLDS),
    mc.SubscriptionItem("b", SEATS, 3),
]
POINT = mc.feeds.CumulativePoint(START + 60, "5.5", start_time=START, attributes={"host": "a"})
HOURLY = {"event_time_window": "hour", "dimension_payload_keys": ["region"], "decimal_places": 2}
METER = mc.Meter("m", "calls", "max", display_name="Calls", **HOURLY)
WHOLE = mc.Subscription(
    "sub", ITEMS, START, customer="c", start_date=START, ended_at=START + 10**8, timezone="Europe/Berlin",
    billing_thresholds=mc.subscriptions.BillingThresholds(amount_gte=5),
)  # fmt: skip
WRITTEN = [
    *(
        mc.subscriptions.BillingThresholds(amount_gte=5),
        THRESHOLDS,
        POINT,
        mc.feeds.CumulativeSum("calls", last=[POINT]),
    ),
    *(
        mc.pricing.Graduated(TIERS),
        mc.pricing.Volume(TIERS),
        mc.pricing.Package("12.5", 10, "up"),
        mc.pricing.PerUnit("0.5"),
        mc.pricing.Percentage("2.9"),
    ),
    *(
        METER,
        METER.deactivate(START),
        mc.MeterEvent("calls", {"value": "5"}, timestamp=START, identifier="i"),
    ),
    mc.stripe.MeterEventSession("mes_1", "t0k3n", created=START, expires_at=START + 900),
    *(ON_METER, PACKAGES, SEATS, SEATS.recurring, ON_METER.recurring),
    *(*ITEMS, WHOLE),
    mc.pricing.Percentage("2.9"),
]
"""Values with something in each of their fields: what they write is what is changed, so that a new
key is found by itself.
"""
SAID = {
    "Meter.from_dict": stripe.METER,
    "Price.from_dict": stripe.PRICE,
    "Price.from_dict, of a plan": stripe.PLAN,
    "Recurring.from_dict": stripe.PRICE["recurring"],
    "Subscription.from_dict": stripe.SUBSCRIPTION,
    "SubscriptionItem.from_dict": stripe.ITEM,
    "cancellation": {"type": "cancel", "event_name": "calls", "cancel": {"identifier": "a"}},
    "meter_event_from_cloudevent": CLOUDEVENT,
}
"""What others write."""


@attrs.frozen
class Reader:
    """What reads an object: an object that is right, a function of it, and whether it comes as a
    text.
    """

    data: Any
    read: Callable[[Any], object]
    is_text: bool = False


def named(name: str) -> Callable[[Any], object]:
    """Return a public function, or a class method."""
    first, *parts = name.partition(",")[0].split(".")
    found: Any = PUBLIC_BY_NAME[first]
    for part in parts:
        found = getattr(found, part)
    return found


def of_text(read: Callable[[io.StringIO], object]) -> Callable[[Any], object]:
    """Return what reads a JSON text as an object's."""
    return lambda data: read(io.StringIO(json.dumps(data)))


def rows(read: Callable[..., Iterator[Any]], format: str) -> Callable[[Any], object]:
    """Return what reads the rows of a file; a complaint that a row is read as is raised."""

    def raising(data: Any) -> list[Any]:
        stream = io.StringIO()
        if format == "csv" and not isinstance(data, dict):
            return []
        if format == "csv":
            writer = DictWriter(stream, [str(key) for key in data])
            writer.writeheader()
            writer.writerow({str(key): value for key, value in data.items()})
        else:
            stream.write(json.dumps(data))
        stream.seek(0)
        found = list(read(stream, format, path="usage"))
        for one in found:
            if isinstance(one, mc.MeteringError):
                assert one.details["path"] == "usage"
                assert one.details["line"] in {1, 2}
                raise one
        return found

    return raising


def whole_catalog() -> dict[str, Any]:
    metered = mc.Subscription("other", [mc.SubscriptionItem("m", ON_METER)], START, customer="c")
    return {
        "prices": [one.to_dict() for one in (ON_METER, PACKAGES, SEATS)],
        "meters": [METER.to_dict()],
        "subscriptions": [WHOLE.to_dict(), metered.to_dict()],
    }


def case_of_each_kind() -> Iterator[tuple[str, Any]]:
    """Yield one case of each kind, the one that says most."""
    cases: dict[str, Any] = {}
    for path in sorted(CASES_FOLDER.glob("*.json")):
        for case in read_cases(path)["cases"]:
            cases[case["kind"]] = max(
                case,
                cases.get(case["kind"], {}),
                key=lambda one: len({place[-1:] for place in paths(one)}),
            )
    yield from cases.items()


def readers() -> Iterator[tuple[str, Reader]]:
    by_hand = {type(value) for value in WRITTEN}
    others = [
        fullest(kind)
        for kind in PUBLIC.values()
        if hasattr(kind, "from_dict") and kind not in by_hand
    ]
    for position, value in enumerate([*WRITTEN, *others]):
        verb, data = (
            ("from_dict", value.to_dict())
            if hasattr(value, "to_dict")
            else ("from_stripe", value.to_stripe())
        )
        yield f"{type(value).__name__}.{verb} {position}", Reader(data, getattr(type(value), verb))
    option = {"tax_behavior": None, "unit_amount": 5, "unit_amount_decimal": "5"}
    both = {**stripe.PRICE, "currency_options": {"eur": option}}
    yield (
        "Price.from_dict, in another currency",
        Reader(both, lambda data: mc.Price.from_dict(data, currency="eur")),
    )
    for name, data in SAID.items():
        yield f"{name}, said", Reader(data, named(name))
    for restore, module in (
        (mc.restore, test_snapshots),
        (mc.restore_meter_log, test_meter_snapshots),
    ):
        data = json.loads(json.dumps(mc.snapshot(module.hand_built())))
        yield restore.__name__, Reader(data, restore)
        yield (
            f"{restore.__name__}, content",
            Reader(
                data["content"],
                lambda content, data=data, restore=restore: restore(sealed(data, content)),
            ),
        )
    yield "read_catalog", Reader(whole_catalog(), of_text(mc.feeds.read_catalog), is_text=True)
    yield (
        "read_price",
        Reader(
            PACKAGES.to_dict(),
            lambda data: mc.feeds.read_price(file("p.json", json.dumps(data))),
            is_text=True,
        ),
    )
    usage = {
        "subscription_item": "si",
        "quantity": 5,
        "timestamp": START,
        "action": "set",
        "id": "a",
        "received_at": START,
    }
    event = {"event_name": "calls", "timestamp": START, "identifier": "a", "received_at": START}
    payload = {"stripe_customer_id": "c", "value": "5"}
    yield "read_usage jsonl", Reader(usage, rows(mc.feeds.read_usage, "jsonl"), is_text=True)
    yield "read_usage csv", Reader(usage, rows(mc.feeds.read_usage, "csv"), is_text=True)
    yield (
        "read_events jsonl",
        Reader({**event, "payload": payload}, rows(mc.feeds.read_events, "jsonl"), is_text=True),
    )
    flat = {f"payload[{key}]": value for key, value in payload.items()}
    yield (
        "read_events csv",
        Reader({**event, **flat}, rows(mc.feeds.read_events, "csv"), is_text=True),
    )
    for kind, case in case_of_each_kind():
        yield f"run_cases {kind}", Reader({"cases": [case]}, run_cases)


# How it is changed --------------------------------------------------------------------------------


def paths(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value; of the elements of a list to the first and the last one."""
    yield place
    keys = (
        list(data)
        if isinstance(data, dict)
        else sorted({0, len(data) - 1})
        if isinstance(data, list) and data
        else []
    )
    for key in keys:
        yield from paths(data[key], (*place, key))


def changes(reader: Reader) -> list[tuple[tuple[Any, ...], str]]:
    """Return every change of an object: each place with each kind; of what has a checksum only of
    what lies outside of it.
    """
    depth = 1 if "checksum" in reader.data else 99
    return [(place, kind) for place in paths(reader.data) if len(place) <= depth for kind in KINDS]


def after(data: Any, place: tuple[Any, ...], kind: str) -> Any:
    """Return the object with one change."""
    if not place:
        return (
            {} if kind == GONE else {**data, "unknown_key": 1} if kind == UNKNOWN else WRONG[kind]()
        )
    whole = deepcopy(data)
    owner = whole
    for key in place[:-1]:
        owner = owner[key]
    if kind == GONE:
        del owner[place[-1]]
    elif kind == UNKNOWN and isinstance(owner, dict):
        owner["unknown_key"] = 1
    elif kind != UNKNOWN:
        owner[place[-1]] = WRONG[kind]()
    return whole


def is_json(data: Any) -> bool:
    """Whether something can stand in a file of JSON."""
    with suppress(TypeError, ValueError, RecursionError, Own):
        json.dumps(data)
        return True
    return False


def slip(reader: Reader, place: tuple[Any, ...], kind: str) -> str | None:
    """Read a changed object; return what is wrong with what came out, None where it was refused by
    name or is kept whole.
    """
    data = after(reader.data, place, kind)
    if reader.is_text and not is_json(data):
        return None
    try:
        with bounded():
            kept_whole(reader.read(data))
    except mc.MeteringError as error:
        if (
            error.param is None
            or not isinstance(error.code, mc.ErrorCode)
            or not error.message.isprintable()
        ):
            return f"without param, code or a line of its own: {error!r}"
    except TookTooLongError:
        return "took too long"
    except BaseException as error:  # noqa: BLE001 - whatever comes out is the finding
        if not (isinstance(error, Own) and kind in OWN):
            return f"raised {type(error).__name__}: {str(error)[:120]}"
    return None


def kept_whole(value: Any) -> None:
    """Refuse a value that cannot be written and read again as it is."""
    if isinstance(value, mc.UsageLog | mc.MeterLog):
        restore = mc.restore if isinstance(value, mc.UsageLog) else mc.restore_meter_log
        assert restore(json.loads(json.dumps(mc.snapshot(value)))) == value
    elif hasattr(type(value), "from_dict"):
        assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value
    elif hasattr(type(value), "from_stripe"):
        assert type(value).from_stripe(json.loads(json.dumps(value.to_stripe()))) == value
    elif isinstance(value, mc.feeds.Catalog):
        for one in (*value.prices.values(), *value.meters.values(), *value.subscriptions):
            kept_whole(one)


READERS = dict(readers())


def test_every_reader_is_there():
    """Whatever has a door for an object, written by us or by others, is in the table, and reads
    what it is given.
    """
    read = {
        door.name
        for door in DOORS
        if "data" in door.parameters and door.name != "MeterEventSummaryPage"
    }
    assert {name.partition(" ")[0].rstrip(",") for name in READERS} - {
        "read_catalog",
        "read_price",
        "read_usage",
        "read_events",
    } == read
    for name, reader in READERS.items():
        assert isinstance(reader.data, Mapping), name
        kept_whole(reader.read(deepcopy(reader.data)))


@pytest.mark.parametrize("name", READERS)
def test_what_is_wrong_within_is_refused_by_name(name):
    """A key that is wrong, gone or unknown is refused by an error of ours, or the value is kept,
    and written as it was read.
    """
    found = changes(READERS[name])
    chosen = Random(f"{SEED} {name}").sample(found, min(SAMPLE, len(found)))  # noqa: S311 - no secret
    assert [(*change, wrong) for change in chosen if (wrong := slip(READERS[name], *change))] == []


FOUND = {
    "CumulativePoint.from_dict 2": [
        ("time", "unshowable"),
        ("start_time", "5,000 digits"),
        ("attributes", "array"),
    ],
    "Meter.from_dict, said": [("object", "nested"), ("customer_mapping.type", "Decimal snan")],
    "Price.from_dict, said": [("object", "incomparable"), ("custom_unit_amount", "Decimal snan")],
    "Price.from_dict, in another currency": [("currency_options", "array")],
    "Subscription.from_dict, said": [("status", "series"), ("currency", "array")],
    "Subscription.from_dict 20": [("timezone", "array")],
    "meter_event_from_cloudevent, said": [
        ("data", "unshowable key"),
        ("specversion", "array"),
        ("", "incomparable"),
    ],
    "restore": [("format", "array"), ("checksum", "array"), ("content", "nested")],
    "restore, content": [
        ("closed.acme.0.invoice.currency", "pair"),
        ("closed.acme.0.invoice.lines.2.charge.label", "pair"),
    ],
    "run_cases append": [
        ("cases", "endless"),
        ("cases.0", "unshowable key"),
        ("cases.0.records.3.timestamp", "array"),
    ],
}
"""What the law found first: by the way to the value, with the kind."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(name):
    """Each kind of slip that the law was written for."""
    places = {".".join(map(str, place)): place for place in paths(READERS[name].data)}
    for place, kind in FOUND[name]:
        if kind in WRONG:  # Some need an extra.
            assert slip(READERS[name], places[place], kind) is None, (place, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_whatever_is_wrong_within_is_refused_by_name(name):
    """The same of every key with every kind of wrong value."""
    assert [
        (*change, wrong)
        for change in changes(READERS[name])
        if (wrong := slip(READERS[name], *change))
    ] == []
