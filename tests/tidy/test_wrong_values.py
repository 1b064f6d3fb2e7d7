"""One law for every door: a wrong value is refused by an error of ours, or taken; and what is
refused changes nothing.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ContextDecorator, contextmanager, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from itertools import islice
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from zlib import crc32

import attrs
import pytest
from builders import DAY, FEB, JAN, START, priced, subscribed
from doors import NOW, Scene, doors
from public_names import modules_with_names
from wing_doors import INSIDE, NAMED, TESTING, WingScene, public, wing_doors
from wrong_values import WRONG, LyingNumber, LyingText, OddMoment, Own

import metering_core as mc
from metering_core.meter_summaries import Buckets
from metering_core.sql import DuckDBEvents, DuckDBUsage, SparkEvents, SparkUsage
from metering_core.testing import cases

ROOT = doors()
WINGS = wing_doors()
DOORS = [*ROOT, *WINGS]
KINDS = list(WRONG)
SAMPLE = 4
"""Wrong values that each parameter gets in the fast run, others for each; `make slow` passes them
all.
"""
SECONDS = 5
OWN = {"raising generator", "generator that raises at once", "broken map", "broken index"}
"""Values whose own code raises while it is asked for what it promised; that leaves our doors as it
is.
"""
CALLED = {("rounding", "class")}
"""A class can be called, so it is a rounding like any other, and what it raises is its own."""
COLUMNS = {"quantities", "item_ids", "customer_ids", "dimensions", "batch"}
"""Columns of the wings, which a range is, too: one that memory does not hold raises what it
raises.
"""


class TookTooLongError(BaseException):
    """Raised by the alarm; no `except Exception` holds it up."""


@contextmanager
def bounded() -> Iterator[None]:
    """Interrupt what takes out of proportion to what it was given."""

    def ring(*_: object) -> None:
        raise TookTooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def used(answer: object) -> None:
    """Take a lazy answer as its caller would."""
    if isinstance(answer, AbstractContextManager) and isinstance(
        answer, ContextDecorator
    ):  # Not a path, which is one, too.
        with answer:
            pass
    elif isinstance(answer, Iterator):
        list(islice(answer, 3))


def outcome(door, scene, parameter, kind):
    """Pass one wrong value; return "accepted", "refused", or what is wrong with what came out."""
    arguments = {**door.arguments(scene, parameter), parameter: WRONG[kind]()}
    before = scene.state()
    try:
        with bounded():
            used(door.find(scene)(**arguments))
    except mc.MeteringError as error:
        if (
            error.param is None
            or not isinstance(error.code, mc.ErrorCode)
            or not error.message.isprintable()
        ):
            return f"without param, code or a line of its own: {error!r}"
    except Own as error:
        if kind not in OWN:
            return f"raised {error!r}"
    except TookTooLongError:
        return "took too long"
    except BaseException as error:  # noqa: BLE001 - whatever comes out is the finding
        is_too_long = isinstance(error, MemoryError) and parameter in COLUMNS
        if (parameter, kind) not in CALLED and not is_too_long:
            return f"raised {type(error).__name__}: {str(error)[:90]}"
    else:
        return "accepted"
    return "refused" if scene.state() == before else "changed"


def slips(door, kinds_of):
    """Yield (parameter, kind of value, what came out) of what breaks the law."""
    scene = scene_of(door)
    for parameter in door.parameters:
        for kind in kinds_of(parameter):
            found = outcome(door, scene, parameter, kind)
            if found != "refused":
                scene = scene_of(door)  # What was accepted may have changed it.
            if found not in {"refused", "accepted"}:
                yield parameter, kind, found


def scene_of(door):
    return WingScene() if door in WINGS else Scene()


def sample_for(door):
    """Return which kinds of values each parameter of a door gets in the fast run: all kinds are
    passed somewhere.
    """
    size = (
        SAMPLE if door not in WINGS else 1 if door.name.startswith("DuckDB") else 2
    )  # Files take their time.

    def kinds_of(parameter):
        first = crc32(f"{door.name}.{parameter}".encode())
        return [KINDS[(first + step * 17) % len(KINDS)] for step in range(size)]

    return kinds_of


def test_every_public_callable_of_a_wing_has_a_door():
    """What a wing makes public is a door of the law, or stands in the table of exceptions with the
    reason.
    """
    named = {door.name for door in WINGS}
    assert [
        name
        for name, value in public()
        if name not in INSIDE and name not in named and signature(value).parameters
    ] == []
    packages = {name for name in modules_with_names() if (Path(mc.__path__[0]) / name).is_dir()}
    assert packages == {"bulk", "columnar", "feeds", "sql", "stripe", "tariffs"}


@pytest.mark.parametrize("module", TESTING)
def test_every_public_callable_for_tests_has_a_door_or_a_reason(module):
    """So does what the modules for tests make public, each callable by its own name."""
    found = import_module(f"metering_core.testing.{module}")
    own = {
        name
        for name, value in vars(found).items()
        if getattr(value, "__module__", None) == found.__name__
    }
    public_there = {
        name for name in own if not name.startswith("_") and callable(getattr(found, name))
    }
    assert public_there == TESTING[module].keys() | {*NAMED.get(f"testing.{module}", ())}
    there = {path.stem for path in (Path(mc.__path__[0]) / "testing").glob("[!_]*.py")}
    assert there - TESTING.keys() == {"restatement"}, "which the laws read"


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_every_door_opens(door):
    """Valid arguments are accepted, and there are some for every parameter: the table is drawn
    whole.
    """
    used(door.find(scene := scene_of(door))(**door.arguments(scene)))
    for parameter in door.parameters:
        door.valid(parameter)(scene)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_wrong_values_are_refused_by_name(door):
    """Only errors of ours leave a door, with code, param and one line; nothing changed then, and it
    took no time.
    """
    assert list(slips(door, sample_for(door))) == []


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_every_wrong_value_is_refused_by_name(door):
    """As above, with every kind of wrong value for every parameter."""
    assert list(slips(door, lambda _: KINDS)) == []


class SparkSession:
    """A session that says it is one, and is used no further."""

    def __init__(self):
        self.conf = SimpleNamespace(get=lambda _: "true")

    def __getattr__(self, name):
        raise TookTooLongError  # Heard by nobody on the way.


SPARK = {
    SparkUsage: (
        *("session", "subscriptions", "book", "policy", "closed", "now", "skip_malformed", "time"),
    ),
    SparkEvents: (
        *(
            "session",
            "meters",
            "subscriptions",
            "customers",
            "policy",
            "closed",
            "canceled",
            "now",
            "decimal_places",
            "skip_malformed",
            "time",
        ),
    ),
}
"""What a constructor of Spark can refuse before it uses the session; the table is read by it."""


@pytest.mark.skipif(not find_spec("pyspark"), reason="needs the extra 'spark'")
@pytest.mark.parametrize("engine", SPARK)
def test_spark_refuses_before_it_uses_a_session(engine):
    """Every parameter of the constructors but the table: refused by name, or the session is used
    for the first time.
    """
    assert {*SPARK[engine], "table_or_path"} == signature(engine).parameters.keys()
    scene = Scene()
    right = {"session": SparkSession(), "table_or_path": "t", "subscriptions": [scene.subscription]}
    if engine is SparkEvents:
        right |= {"meters": [scene.meter], "subscriptions": [scene.metered]}
    for parameter in SPARK[engine]:
        refused = 0
        for kind, make in WRONG.items():
            try:
                engine(**{**right, parameter: make()})
            except mc.MeteringError as error:
                refused += bool(error.param)
            except Own:
                assert kind in OWN, (parameter, kind)
            except TookTooLongError:
                assert parameter != "session"
        assert refused > len(WRONG) // 2, parameter


# What the caller's own code raises ----------------------------------------------------------------


def raising(error):
    def function(*_, **__):
        raise error

    return function


def drawn(error, *first):
    yield from first
    raise error


RECORD = mc.UsageRecord("si_0", 5, NOW)
EVENT = mc.MeterEvent(
    "calls", {"stripe_customer_id": "c", "value": "5", "region": "eu"}, timestamp=NOW
)


def finalized(scene, rounding):
    return mc.finalize_invoice(scene.subscription, scene.log, JAN, now=FEB.start, rounding=rounding)


def billed_by(scene, error):
    own = subscribed(priced(SimpleNamespace(charges=raising(error))), id="own")
    return mc.preview_invoice(own, mc.UsageLog([own]), now=NOW)


RAISING = [
    lambda scene, error: scene.log.append(drawn(error, RECORD), now=NOW),
    lambda scene, error: scene.log.partials(drawn(error, (scene.item, JAN))),
    lambda scene, error: scene.meter_log.append(drawn(error, EVENT), now=NOW),
    lambda scene, error: scene.stream.send(drawn(error, EVENT), session=scene.session, now=NOW),
    lambda scene, error: mc.UsageLog(drawn(error, scene.subscription)),
    lambda scene, error: mc.MeterLog(drawn(error, scene.meter)),
    lambda scene, error: mc.pricing.Graduated(drawn(error, mc.Tier(5, unit_amount=1))),
    lambda scene, error: mc.UsageLog([scene.subscription], clock=raising(error)).record("si_0", 1),
    lambda scene, error: mc.stripe.MeterEventStream(
        scene.meter_log, tokens=raising(error)
    ).create_session(now=NOW),
    lambda scene, error: mc.invoice_all(
        drawn(error, scene.subscription), scene.log, START, now=FEB.start
    ),
    lambda scene, error: finalized(scene, raising(error)),
    billed_by,
]


@pytest.mark.parametrize(
    "error", [Own("own"), KeyboardInterrupt(), MemoryError(), ArithmeticError()], ids=repr
)
@pytest.mark.parametrize("call", RAISING)
def test_what_the_callers_own_code_raises_leaves_unchanged(call, error):
    """A generator, clock, rounding, model or source of tokens that raises is heard as it is;
    nothing changed then.
    """
    scene = Scene()
    before = scene.state()
    with pytest.raises(type(error)) as caught:
        call(scene, error)
    assert caught.value is error
    assert scene.state() == before


# What is kept -------------------------------------------------------------------------------------

PLAIN = {int, str, bool, bytes, float, Decimal, Fraction, datetime, timedelta, type(None)}


def odd_leaves(value):
    """Yield what is kept somewhere in a value as anything but a plain number, text or moment, with
    the way to it.
    """
    match value:
        case Enum():
            pass
        case Mapping():
            for key, one in value.items():
                yield from odd_leaves(key)
                yield from odd_leaves(one)
        case tuple() | list() | frozenset() | set():
            for one in value:
                yield from odd_leaves(one)
        case _ if attrs.has(type(value)):
            for field in attrs.fields(type(value)):
                yield from odd_leaves(getattr(value, field.name))
        case _ if type(value).__module__ in {"zoneinfo", "array"} or type(value) in PLAIN | {
            MappingProxyType
        }:
            pass
        case _:
            yield type(value), value


def integers():
    yield LyingNumber
    if "numpy int" in WRONG:
        import numpy as np  # noqa: PLC0415 - an extra

        yield np.int64


def moments():
    yield lambda *parts: OddMoment(*parts, tzinfo=START_ZONE)
    if "NaT" in WRONG:
        import pandas as pd  # noqa: PLC0415 - not everybody has it

        yield (
            lambda *parts: pd.Timestamp(datetime(*parts, tzinfo=START_ZONE)) + pd.Timedelta(1, "ns")
        )


START_ZONE = JAN.start.tzinfo


@pytest.mark.parametrize("number", [*integers()])
@pytest.mark.parametrize("moment", [*moments()])
def test_what_is_kept_is_plain(number, moment):
    """Subclasses and numbers of other libraries are taken, and kept as plain ones; the log can be
    saved and restored.
    """
    text = LyingText
    model = mc.pricing.Graduated(
        [mc.Tier(number(5), unit_amount=number(2)), mc.Tier(text("inf"), flat_amount=text("5e-07"))]
    )
    package = mc.pricing.Package(number(5), number(5), text("up"))
    recurring = mc.Recurring(interval=text("month"), interval_count=number(1))
    prices = [
        mc.Price(text(f"p{at}"), text("USD"), one, recurring)
        for at, one in enumerate((model, package))
    ]
    items = [mc.SubscriptionItem(text(one.id.replace("p", "si_")), one) for one in prices]
    thresholds = mc.subscriptions.BillingThresholds(amount_gte=number(5))
    subscription = mc.Subscription(
        text("sub"), items, moment(2024, 1, 1), currency=text("usd"), timezone=text("Europe/Berlin"), customer=text("c"),
        start_date=moment(2024, 1, 1), ended_at=moment(2034, 1, 1), billing_thresholds=thresholds,
    )  # fmt: skip
    log = mc.UsageLog([subscription], policy=mc.AcceptancePolicy(late_grace=timedelta(days=1)))
    log.record(
        text("si_0"), number(5), timestamp=moment(2024, 1, 2), id=text("a"), now=moment(2024, 1, 2)
    )
    log.append_columns(
        [text("si_0")], [number(5)], [moment(2024, 1, 3)], ids=[text("b")], now=moment(2024, 1, 4)
    )
    log.close_period(
        text("sub"), subscription.period_at(moment(2024, 1, 5)), now=moment(2024, 3, 1)
    )
    policy = mc.MeterPolicy.history(batch_max=number(50), significant_digits=number(15))
    meters = mc.MeterLog(
        [mc.Meter(text("m"), text("calls"), text("sum"), decimal_places=number(2))], policy=policy
    )
    meters.record(
        text("calls"),
        {text("stripe_customer_id"): text("c"), text("value"): text("5")},
        now=moment(2024, 1, 2),
    )
    for one in (log, meters):
        assert list(odd_leaves(one.state())) == []
    assert mc.restore(json.loads(json.dumps(mc.snapshot(log)))) == log
    assert mc.restore_meter_log(json.loads(json.dumps(mc.snapshot(meters)))) == meters


# Lines that were shown to break it ----------------------------------------------------------------

LAST_DAY = 253_402_214_399  # 9999-12-30T23:59:59Z: its month ends in the year 10000.


@pytest.mark.parametrize("door", ["record", "append", "append_columns"])
@pytest.mark.parametrize("anchor", [START, -62_135_596_800])
@pytest.mark.parametrize("now", [LAST_DAY + 86_400, -62_135_596_800, -62_135_596_799 + 86_400 * 31])
@pytest.mark.parametrize("grace", [timedelta(0), timedelta(days=3_000_000)])
def test_judging_is_total(door, anchor, now, grace):
    """A moment whose period leaves the calendar has no current period: records are refused with a
    code, or taken.
    """
    subscription = subscribed(billing_cycle_anchor=anchor, start_date=-62_135_596_800)
    log = mc.UsageLog([subscription], policy=mc.AcceptancePolicy(late_grace=grace))
    if door == "record":
        with suppress(mc.UsageRejectedError):
            log.record("si_0", 1, timestamp=START, now=now)
    elif door == "append":
        assert len(log.append([mc.UsageRecord("si_0", 1, START)], now=now)) == 1
    else:
        receipts = log.append_columns(
            ["si_0"] * 3, [1] * 3, [START] * 3, received_at=[START, now, START]
        )
        assert [receipts[0].outcome, receipts[2].outcome] == ["accepted", "accepted"]
        assert receipts[1].code in {None, "timestamp_in_future", "timestamp_before_current_period"}


def test_the_last_days_of_the_calendar_are_refused():
    """A log that hears of 9999-12-30 refuses that record with a sentence, and keeps those before
    and after it.
    """
    log = mc.UsageLog([subscribed()])
    receipts = log.append_columns(
        ["si_0"] * 3, [1] * 3, [START] * 3, received_at=[START, LAST_DAY, START]
    )
    assert [receipt.outcome for receipt in receipts] == ["accepted", "rejected", "accepted"]
    assert (receipts[1].code, receipts[1].param) == ("timestamp_before_current_period", "timestamp")
    assert "in a billing period within the years 1 to 9999" in receipts[1].message


def test_great_quantities_cannot_poison_a_log():
    """What is accepted can be billed, explained, compared and saved, also where Python writes no
    more than 640 digits.
    """
    log = mc.UsageLog([subscribed(priced(mc.pricing.PerUnit(10**100 - 1)))])
    with pytest.raises(
        mc.InvalidValueError, match=r"^quantity: expected an integer of at most 200 digits"
    ):
        log.record("si_0", 10**4300, now=START)
    with pytest.raises(
        mc.InvalidValueError, match=r"^quantities\[1\]: expected an integer of at most 200 digits"
    ):
        log.append_columns(["si_0"] * 2, [1, 10**200], [START] * 2, now=START)
    log.append_columns(["si_0"] * 1000, [10**200 - 1] * 1000, [START] * 1000, now=START)
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        invoice = mc.preview_invoice(
            subscribed(priced(mc.pricing.PerUnit(10**100 - 1))), log, now=NOW - 86_400 * 20
        )
        assert invoice.total == (10**200 - 1) * 1000 * (10**100 - 1)
        for written in (
            str(invoice),
            str(mc.explain(invoice.lines[0])),
            json.dumps(mc.snapshot(log)),
            str(invoice.money),
        ):
            assert written
        mc.finalize_invoice(log.subscriptions[0], log, JAN, now=FEB.start)
        assert log.compact() == 1000
        assert mc.restore(json.loads(json.dumps(mc.snapshot(log)))) == log
        assert log.summaries("si_0", now=FEB.start)[1].total_usage == (10**200 - 1) * 1000
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "amount",
    [Decimal("1E+200000"), Decimal("1E-200000"), 10**100_001, Fraction(1, 10**100_001)],
    ids=range(4),
)
def test_models_cannot_charge_what_nobody_can_write(amount):
    """A user's model whose charges are too long is broken, and so says the refusal; a quantity that
    is too long is refused.
    """
    price = priced(
        SimpleNamespace(
            charges=lambda quantity: [mc.pricing.Charge("unit", quantity, None, amount)]
        )
    )
    with pytest.raises(mc.InvoicingError) as caught:
        mc.rate(price, 1)
    assert (caught.value.code, caught.value.param) == ("pricing_model_broken", "charges[0][amount]")
    with pytest.raises(mc.InvalidValueError, match=r"^quantity: expected an exact number"):
        mc.rate(priced(), 10**100_001)


def test_buckets_are_bounded_where_all_are_made():
    """A range of 8,000 years by the hour is refused by name; 54 years by the month are answered."""
    scene, ask = Scene(), mc.event_summaries
    asked = (scene.meter_log, "m", "c", 0, LAST_DAY)
    with (
        bounded(),
        pytest.raises(
            mc.InvalidValueError, match="at most 100,000 buckets, received 'hour'"
        ) as caught,
    ):
        ask(*asked, value_grouping_window="hour")
    assert caught.value.param == "value_grouping_window"
    with bounded():
        assert ask(*asked[:-1], START + DAY, value_grouping_window="month")


@pytest.mark.parametrize("formula", ["sum", "weighted_sum"])
@pytest.mark.parametrize("timezone", ["UTC", "Australia/Lord_Howe"])
@pytest.mark.parametrize("window", [*mc.meter_summaries.ValueGroupingWindow])
def test_pages_of_any_range_cost_what_they_show(window, timezone, formula, monkeypatch):
    """Of three events that lie thousands of years apart each is on a page of its own, and few
    buckets are looked at.
    """
    log = mc.MeterLog([mc.Meter("m", "calls", formula=formula)], policy=mc.MeterPolicy.history())
    moments = [-50_000_000_000, START, 200_000_000_000]
    for moment, value in zip(moments, ["3", "-3", "7"], strict=True):
        log.record(
            "calls", {"stripe_customer_id": "c", "value": value}, timestamp=moment, now=LAST_DAY
        )
    looked, holding = [], Buckets.holding
    monkeypatch.setattr(Buckets, "holding", lambda *of: looked.append(of) or holding(*of))

    def page(**cursor):
        options = {"value_grouping_window": window, "timezone": timezone, "limit": 1}
        with bounded():
            (found,) = mc.stripe.list_event_summaries(
                log, "m", "c", -60_000_000_000, 201_000_000_000, **options, **cursor
            ).data
        return found.start_time.timestamp(), found.end_time.timestamp()

    def beside(moment):
        return mc.event_summaries(log, "m", "c", moment, moment + 60)[0].id

    newest, middle = page(starting_after=None), page(starting_after=beside(moments[2] - 40 * DAY))
    assert newest[0] <= (moments[2] if formula == "sum" else 201_000_000_000 - 1) < newest[1]
    assert middle[0] <= moments[1] < middle[1]
    again = page(ending_before=beside(moments[1] + 40 * DAY))
    assert again[0] <= moments[2] < again[1]
    assert len(looked) < 20


def test_one_summary_of_many_costs_one():
    """The newest of 740,000 daily periods is looked up, not all of them listed; a page is as long
    as any list's.
    """
    item = mc.SubscriptionItem("si_0", priced(recurring=mc.Recurring(interval="day")))
    log = mc.UsageLog([mc.Subscription("old", [item], START, start_date=-62_135_500_000)])
    log.record("si_0", 5, timestamp=START, now=START)
    with bounded():
        newest, before = log.summaries("si_0", now=START + 60, limit=2)
    assert (newest.total_usage, newest.end, before.end) == (5, None, newest.start)
    with bounded():
        assert [one.start for one in log.summaries("si_0", now=START + 60, limit=100)[:2]] == [
            newest.start,
            before.start,
        ]
        with pytest.raises(mc.InvalidValueError, match="an integer of at least 1 and at most 100"):
            log.summaries("si_0", now=START + 60, limit=10**199)


# Files that a caller names ------------------------------------------------------------------------

DUCKDB = pytest.mark.skipif(not find_spec("duckdb"), reason="needs the extra 'duckdb'")
NO_JSON, NO_CSV = "{\n,}", "subscription_item,quantity,timestamp\nsi_0,1\n"


def written(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def rows_of(path):
    with Path(path).open() as stream:
        raise next(mc.feeds.read_usage(stream, "csv"))


FILES = {
    "catalog": (mc.feeds.read_catalog, "source", 2),
    "price": (mc.feeds.read_price, "reference", 2),
    "price of a catalog": (lambda path: mc.feeds.read_price(path + "#p"), "reference", 2),
    "cases": (cases.read_cases, "path", 2),
    "rows": (rows_of, "row", 2),
    "picture": (lambda path: mc.tariffs.curve(priced(), path + "/none/p.svg"), "path", None),
    "format": (lambda path: mc.feeds.UsageFormat.of_path(path + ".txt"), "path", None),
    "absent": (lambda path: mc.feeds.read_catalog(path + ".none"), "source", None),
    "no path": (lambda path: mc.feeds.read_catalog(path + "\0"), "source", None),
    "duckdb": (lambda path: DuckDBUsage(path, [subscribed()]), "row", 2),
    "duckdb, absent": (
        lambda path: DuckDBUsage(path + ".none.csv", [subscribed()]),
        "source",
        None,
    ),
    "duckdb, extension": (
        lambda path: DuckDBEvents(path[:-4], [mc.Meter("m", "calls")]),
        "source",
        None,
    ),
    "duckdb, damaged": (
        lambda path: DuckDBUsage(written(Path(path).parent, "u.parquet", "PAR1"), [subscribed()]),
        "source",
        None,
    ),
}
"""What reads or writes a file, the parameter that its refusals name, and the line."""


@pytest.mark.parametrize(
    "which", [pytest.param(one, marks=DUCKDB if "duckdb" in one else ()) for one in FILES]
)
def test_errors_of_files_name_the_parameter_and_the_place(which, tmp_path):
    """What is wrong with a file says by which parameter it was named, its path, and the line where
    there is one.
    """
    read, param, line = FILES[which]
    is_csv = which.startswith(("rows", "duckdb"))
    path = written(tmp_path, "u.csv" if is_csv else "u", NO_CSV if is_csv else NO_JSON)
    written(tmp_path, "u", NO_JSON)
    with pytest.raises(mc.errors.CatalogError) as caught:
        read(path)
    error = caught.value
    assert (error.param, error.details["line"]) == (param, line)
    assert error.details["path"].startswith(str(tmp_path))
    assert (
        error.message.startswith(error.details["path"].replace("\0", r"\x00"))
        or "extension" in which
    )
