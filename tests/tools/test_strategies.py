"""The strategies that users draw from: what they reach, what they shrink to, and that nobody pays
who does not use them.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from places import ROOT_FOLDER

import metering_core as mc
from metering_core import testing
from metering_core.testing import _hypothesis_hook, laws
from metering_core.testing import strategies as drawn

REPOSITORY = ROOT_FOLDER
QUIETLY = settings(database=None, derandomize=True, deadline=None, max_examples=2_000)
JANUARY = mc.BillingPeriod(1_704_067_200, 1_706_745_600)


@pytest.fixture(autouse=True, scope="module")
def registered():
    """Register the strategies, as the entry point does where the package is installed."""
    _hypothesis_hook.register()


def first(strategy, condition):
    """Return the simplest value that meets the condition."""
    return find(strategy, condition, settings=QUIETLY)


def python(script, *, path=(), block=()):
    """Run a script in a new interpreter, with some modules blocked, and return what it printed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({list(block)!r})); "
    places = [str(place) for place in (*path, *sys.path) if place]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-W", "error", "-c", blocked + script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reached(strategy, condition):
    """Return whether a value that meets the condition is drawn, without looking for the
    simplest.
    """
    return (
        find(
            strategy,
            lambda value: bool(condition(value)),
            settings=settings(QUIETLY, phases=[Phase.generate]),
        )
        is not None
    )


# By type ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", _hypothesis_hook.STRATEGIES, ids=lambda kind: kind.__name__)
def test_every_type_can_be_drawn(kind):
    """With Hypothesis taught, `st.from_type` draws values of each of our types."""

    @settings(max_examples=20)
    @given(st.from_type(kind))
    def draws(value):
        assert isinstance(value, kind)

    draws()


@pytest.mark.slow
def test_types_inside_annotations_are_found():
    """A function annotated with our types can be called by `st.builds`."""

    def cost(price: mc.Price, record: mc.UsageRecord) -> mc.money.Amount:
        return mc.rate(price, record.quantity).amount

    assert first(st.builds(cost), lambda amount: amount.minor_units > 0).minor_units == 1


# Shrinking ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_price_shrinks_to_one_unit_amount():
    """Any price that costs something shrinks to the simplest one: per unit, whole minor units."""
    price = first(st.from_type(mc.Price), lambda price: mc.rate(price, 1).amount.minor_units >= 1)
    assert price == mc.Price.per_unit("price", currency="usd", unit_amount=1)


def test_a_cliff_shrinks_to_two_small_tiers():
    """A volume price where more costs less shrinks to two tiers with small bounds and amounts."""

    def has_a_cliff(model):
        bound = model.tiers[0].up_to
        price = mc.Price("price", "usd", model)
        return (
            bound is not None
            and mc.rate(price, bound).amount.minor_units
            > mc.rate(price, bound + 1).amount.minor_units
        )

    model = first(drawn.volumes(decimals=0), has_a_cliff)
    assert model == mc.pricing.Volume([mc.Tier(1, unit_amount=1), mc.Tier("inf", unit_amount=0)])


def test_a_rounded_line_shrinks_to_a_half():
    """An amount that settling moves by half a unit shrinks to half a unit."""
    amount = first(
        st.from_type(mc.money.Amount),
        lambda amount: mc.money.settle(amount).minor_units - amount.minor_units == Decimal("0.5"),
    )
    assert amount == mc.money.Amount(Decimal("0.5"), "usd")


@pytest.mark.slow
def test_a_batch_shrinks_to_the_records_that_matter():
    """A set that lowers a cell shrinks to the two records it takes."""

    def sinks(batch):
        return any(
            one.action == "increment" and other.action == "set" and other.quantity < one.quantity
            for one, other in pairwise(batch)
        )

    batch = first(
        drawn.usage_records(["si_1"], JANUARY, JANUARY.end_seconds - 1, retries=False), sinks
    )
    assert batch == [mc.UsageRecord("si_1", 1), mc.UsageRecord("si_1", 0, action="set")]


def test_a_cycle_shrinks_to_a_plain_month():
    """A cycle shrinks to calendar months; one whose boundaries come back to the 31st shrinks to an
    anchor on a 31st.
    """
    assert first(st.from_type(mc.BillingCycle), lambda cycle: True) == mc.BillingCycle(
        1_704_067_200, "month"
    )
    returning = first(
        drawn.cycles(intervals=["month"]),
        lambda cycle: cycle.boundary(1).day < cycle.boundary(2).day,
    )
    assert (returning.anchor.day, returning.interval_count) == (31, 1)


@pytest.mark.slow
def test_a_subscription_shrinks_to_one_item():
    """A subscription shrinks to one item with the simplest price."""
    subscription = first(st.from_type(mc.Subscription), lambda subscription: True)
    assert [item.price.model for item in subscription.items] == [mc.pricing.PerUnit(0)]


@pytest.mark.slow
def test_meters_and_their_events_shrink_to_plain_ones():
    """A meter shrinks to a sum without windows and dimensions, a rejected batch to the one event
    that is.
    """
    assert first(st.from_type(mc.Meter), lambda meter: True) == mc.Meter("mtr_1", "api_requests")
    assert first(st.from_type(mc.MeterPolicy), lambda policy: True) == mc.MeterPolicy()

    def refuses(batch):
        return any(
            receipt.code
            for receipt in mc.MeterLog([PLAIN]).append(batch, now=JANUARY.end_seconds - 1)
        )

    batch = first(drawn.meter_events(PLAIN), refuses)
    assert batch == [mc.MeterEvent("api_requests", {"value": "0"})]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        mc.Price,
        pytest.param(mc.Subscription, marks=pytest.mark.slow),
        mc.UsageRecord,
        mc.BillingCycle,
        mc.money.Amount,
        mc.Meter,
        mc.MeterEvent,
        mc.MeterPolicy,
    ],
)
def test_counterexamples_read_as_values(kind):
    """What Hypothesis shows of a failure is the value as one would write it, not how it was
    drawn.
    """

    @settings(QUIETLY, report_multiple_bugs=False)
    @given(st.from_type(kind))
    def fails(value):
        raise AssertionError

    with pytest.raises(AssertionError) as failure:
        fails()
    note = "".join(failure.value.__notes__)
    assert kind.__name__ in note
    assert "lambda" not in note
    assert "_table" not in note


# Reaching the edges -------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", [0, 1, 4, 5, 6, 999, 1_000, 1_001, 2**53 + 1, 2**63])
def test_quantities_reach_the_edges_of_tiers(quantity):
    """Zero, each tier's last unit, the ones beside it and huge quantities are drawn."""
    tiers = [
        mc.Tier(5, unit_amount=7),
        mc.Tier(1_000, unit_amount=6),
        mc.Tier("inf", unit_amount=5),
    ]
    assert reached(drawn.quantities(mc.pricing.Graduated(tiers)), lambda one: one == quantity)


@pytest.mark.parametrize("quantity", [0, 11, 12, 13, 23, 24, 25])
def test_quantities_reach_the_edges_of_packages(quantity):
    """Full packages and the quantities beside them are drawn."""
    assert reached(drawn.quantities(mc.pricing.Package(100, 12)), lambda one: one == quantity)


@pytest.mark.parametrize(
    "cuts", [lambda one: one % 1, lambda one: one == Decimal("0.01")], ids=["fraction", "smallest"]
)
def test_quantities_may_have_decimals(cuts):
    """With decimals, quantities between two units are drawn; without, none is."""
    assert reached(drawn.quantities(mc.pricing.PerUnit(1), decimals=2), cuts)


@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("exactly now", lambda one, now: one.timestamp == now),
        ("as now", lambda one, now: one.timestamp == "now"),
        ("just ahead of now", lambda one, now: one.timestamp == now + 1),
        ("the first second", lambda one, now: one.timestamp == JANUARY.start_seconds),
        ("the second before", lambda one, now: one.timestamp == JANUARY.start_seconds - 1),
        ("the end", lambda one, now: one.timestamp == JANUARY.end_seconds),
        ("the last second", lambda one, now: one.timestamp == JANUARY.end_seconds - 1),
        ("beyond 64 bits", lambda one, now: one.quantity >= 2**63),
    ],
)
def test_records_reach_the_edges(what, holds):
    """Usage records lie on each edge of the period and of now."""
    now = JANUARY.start_seconds + 1_000
    strategy = drawn.usage_records(["si_1"], JANUARY, now)
    assert reached(strategy, lambda batch: any(holds(one, now) for one in batch)), what


@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("retry", lambda one, other: one.id is not None and one == other),
        (
            "changed",
            lambda one, other: (
                one.id is not None and one.id == other.id and one.quantity != other.quantity
            ),
        ),
        (
            "collision",
            lambda one, other: one.id is None and one.timestamp == other.timestamp != "now",
        ),
    ],
)
def test_records_meet(what, holds):
    """Retries, ids with other content and collisions on one timestamp are drawn."""

    def meets(batch):
        return any(
            holds(one, other) for place, one in enumerate(batch) for other in batch[place + 1 :]
        )

    assert reached(drawn.usage_records(["si_1"], JANUARY, JANUARY.end_seconds - 1), meets), what


@given(
    drawn.usage_records(
        ["si_1"],
        JANUARY,
        JANUARY.start_seconds,
        sets=False,
        retries=False,
        late=False,
        future=False,
    )
)
def test_what_is_switched_off_is_not_drawn(batch):
    """Without sets, retries, late and future stamps, every record is a plain one at now."""
    for record in batch:
        assert record.action == "increment"
        assert record.id is None
        assert record.timestamp in {"now", JANUARY.start_seconds}


@given(drawn.prices(models=["graduated", "volume"], currencies=["jpy"], max_tiers=2, decimals=0))
def test_prices_keep_to_their_knobs(price):
    """Models, currencies, the number of tiers and the decimals are those that were asked for."""
    assert isinstance(price.model, mc.pricing.Graduated | mc.pricing.Volume)
    assert price.currency == "jpy"
    assert len(price.model.tiers) <= 2
    amounts = [
        amount
        for tier in price.model.tiers
        for amount in (tier.unit_amount, tier.flat_amount)
        if amount is not None
    ]
    assert all(amount == int(amount) for amount in amounts)


@pytest.mark.parametrize("names", [["tiered"], []])
def test_unknown_models_are_refused(names):
    """A model that does not exist is refused by name."""
    with pytest.raises(mc.InvalidValueError) as refused:
        drawn.prices(models=names)
    assert (refused.value.code, refused.value.param) == (
        mc.ErrorCode.PARAMETER_INVALID_CHOICE,
        "models",
    )


@settings(max_examples=30)
@given(
    drawn.subscriptions(thresholds=True, ends=True).flatmap(
        lambda one: st.tuples(st.just(one), drawn.batches(one))
    )
)
def test_histories_never_go_back(history):
    """The moments at which a subscription's batches arrive ascend and begin with its anchor."""
    subscription, batches = history
    moments = [now for now, _ in batches]
    assert moments == sorted(moments)
    assert all(now >= subscription.billing_cycle_anchor.timestamp() for now in moments)


def test_logs_are_finalized_only_where_asked():
    """Some drawn logs have a finalized period; with `closes=False` none has."""
    assert reached(drawn.usage_logs(), lambda log: bool(log.state().closed))

    @settings(max_examples=20)
    @given(drawn.usage_logs(closes=False))
    def stays_open(log):
        assert not log.state().closed

    stays_open()


# Meters -------------------------------------------------------------------------------------------

PLAIN = mc.Meter("mtr_1", "api_requests")
DETAILED = mc.Meter(
    "mtr_1", "api_requests", dimension_payload_keys=["region", "model"], decimal_places=2
)
SECOND = 1_000_000
MEDIUM_NOW = JANUARY.start_seconds + 10 * 86_400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("a third", lambda quantity: quantity.denominator == 3),
        ("just past a tier", lambda quantity: 5 < quantity < 5 + Fraction(1, 10**20)),
        ("just before the last unit", lambda quantity: 5 - Fraction(1, 10**20) < quantity < 5),
        ("twelve places", lambda quantity: (quantity * 10**12) % 10 == 1),
    ],
)
def test_quantities_of_meters_are_shares(what, holds):
    """For a price on a meter quantities are drawn that no decimal writes; for one of usage records
    none is.
    """
    tiers = [mc.Tier(5, unit_amount=7), mc.Tier("inf", unit_amount=5)]
    on_a_meter = mc.Price("price", "usd", mc.pricing.Graduated(tiers), mc.Recurring(meter="mtr_1"))
    assert reached(drawn.quantities(on_a_meter), lambda quantity: holds(Fraction(quantity))), what
    of_records = drawn.quantities(mc.Price("price", "usd", mc.pricing.Graduated(tiers)))
    with pytest.raises(NoSuchExample):
        reached(of_records, lambda quantity: type(quantity) is not int)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("now", lambda event: event.microseconds is None),
        ("exactly now", lambda event: event.microseconds == MEDIUM_NOW * SECOND),
        ("just ahead of now", lambda event: event.microseconds == MEDIUM_NOW * SECOND + 1),
        ("five minutes ahead", lambda event: event.microseconds == (MEDIUM_NOW + 300) * SECOND),
        ("a microsecond more", lambda event: event.microseconds == (MEDIUM_NOW + 300) * SECOND + 1),
        ("35 days back", lambda event: event.microseconds == (MEDIUM_NOW - 35 * 86_400) * SECOND),
        (
            "a microsecond less",
            lambda event: event.microseconds == (MEDIUM_NOW - 35 * 86_400) * SECOND - 1,
        ),
        ("the start", lambda event: event.microseconds == JANUARY.start_seconds * SECOND),
        ("just before it", lambda event: event.microseconds == JANUARY.start_seconds * SECOND - 1),
        (
            "the end of its first hour",
            lambda event: event.microseconds == (JANUARY.start_seconds + 3600) * SECOND - 1,
        ),
        (
            "the second hour",
            lambda event: event.microseconds == (JANUARY.start_seconds + 3600) * SECOND,
        ),
        (
            "the second day",
            lambda event: event.microseconds == (JANUARY.start_seconds + 86_400) * SECOND,
        ),
        ("the end of the period", lambda event: event.microseconds == JANUARY.end_seconds * SECOND),
        ("nothing", lambda event: event.payload.get("value") == "0"),
        ("less than nothing", lambda event: event.payload.get("value", "").startswith("-")),
        ("15 digits", lambda event: event.payload.get("value") == "999999999999999"),
        ("16 digits", lambda event: event.payload.get("value") == "1234567890123456"),
        ("many places", lambda event: len(event.payload.get("value", "").partition(".")[2]) >= 30),
        ("beyond 64 bits", lambda event: event.payload.get("value") == str(10**30)),
        ("no value", lambda event: "value" not in event.payload),
        ("no customer", lambda event: "stripe_customer_id" not in event.payload),
        ("no number", lambda event: event.payload.get("value") == "much"),
        ("a key too many", lambda event: len(event.payload) == 3),
    ],
)
def test_events_reach_the_edges(what, holds):
    """Meter events lie on each edge of the period, of now and of what is accepted, and their values
    on those of numbers.
    """
    strategy = drawn.meter_events(PLAIN, period=JANUARY, now=MEDIUM_NOW)
    assert reached(strategy, lambda batch: any(map(holds, batch))), what


@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("retry", lambda one, other: one.identifier is not None and one == other),
        (
            "conflict",
            lambda one, other: (
                one.identifier is not None and one.identifier == other.identifier and one != other
            ),
        ),
        (
            "one moment",
            lambda one, other: (
                one.microseconds == other.microseconds is not None and one.payload != other.payload
            ),
        ),
        (
            "two customers",
            lambda one, other: {one.payload.get("who"), other.payload.get("who")} == {"x", "y"},
        ),
    ],
)
def test_events_meet(what, holds):
    """Retries, identifiers with other content, collisions on one moment and several customers are
    drawn.
    """

    def meets(batch):
        return any(
            holds(one, other) for place, one in enumerate(batch) for other in batch[place + 1 :]
        )

    meter = mc.Meter("mtr_1", "api_requests", customer_payload_key="who")
    assert reached(drawn.meter_events(meter, customers=["x", "y"]), meets), what


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"dimension_payload_keys": ["region", "model"], "decimal_places": 2},
        {"decimal_places": 0},
    ],
)
def test_events_fit_their_meter(shape):
    """Without misfits every event that comes in time is accepted: it has the meter's keys, and no
    more places than it may.
    """
    meter = mc.Meter("mtr_1", "api_requests", **shape)

    @given(
        drawn.meter_events(
            meter, misfits=False, retries=False, late=False, future=False, negatives=False
        )
    )
    def fits(batch):
        receipts = mc.MeterLog([meter]).append(batch, now=JANUARY.end_seconds - 1)
        assert all(receipt.outcome is mc.Outcome.ACCEPTED for receipt in receipts)
        assert not any(
            event.payload["value"].startswith("-") or event.identifier for event in batch
        )

    fits()


@pytest.mark.parametrize("misfit", list(drawn.Misfit), ids=lambda misfit: misfit.name)
def test_misfits_say_what_is_wrong(misfit):
    """Each misfit is refused with the code of its kind, save the one that is harmless."""
    codes = {
        drawn.Misfit.NO_CUSTOMER: mc.ErrorCode.CUSTOMER_MISSING,
        drawn.Misfit.NO_VALUE: mc.ErrorCode.VALUE_MISSING,
        drawn.Misfit.NO_NUMBER: mc.ErrorCode.VALUE_INVALID,
        drawn.Misfit.NO_DIMENSION: mc.ErrorCode.DIMENSION_MISSING,
    }
    event = mc.MeterEvent(
        "api_requests",
        drawn._payload(DETAILED, "cus_1", (0, "1", 0, None, drawn.Again.NEVER, misfit, 0)),
    )
    (receipt,) = mc.MeterLog([DETAILED]).append([event], now=MEDIUM_NOW)
    assert receipt.code == codes.get(misfit)


@pytest.mark.slow
@pytest.mark.parametrize("formula", mc.Formula)
@pytest.mark.parametrize("window", [None, "hour", "day"])
def test_meters_of_every_kind_are_drawn(formula, window):
    """Every formula occurs with every event time window and with dimensions."""
    assert reached(
        drawn.meters(),
        lambda meter: (
            meter.formula == formula
            and meter.event_time_window == window
            and meter.dimension_payload_keys
        ),
    )


@settings(max_examples=30)
@given(drawn.subscriptions(meters=["mtr_1", "mtr_2"], customer="cus_1"))
def test_subscriptions_on_meters_take_no_usage_records(subscription):
    """With meters every metered item is on one of them, and the subscription has the customer."""
    assert subscription.customer == "cus_1"
    for item in subscription.items:
        assert item.recurring.aggregate_usage is None
        assert item.is_metered is (item.recurring.meter in {"mtr_1", "mtr_2"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("closed", lambda log: log.book.bills_made),
        ("canceled", lambda log: any(one.canceled_at for one in log.events())),
        ("unbilled", lambda log: log.unbilled("sub_1")),
        (
            "billed in two periods",
            lambda log: len({period for _, period in laws.used_periods(log)}) > 1,
        ),
    ],
)
def test_logs_of_events_reach_what_logs_can_be(what, holds):
    """Drawn logs have cancellations, closed periods, and usage that came too late for them."""
    assert reached(drawn.meter_logs(), holds), what


# Who does not use them pays nothing ---------------------------------------------------------------


def test_the_package_never_imports_hypothesis():
    """Importing the package, its laws and its testing package leaves Hypothesis alone."""
    script = "import metering_core.testing.laws; print('hypothesis' in sys.modules)"
    assert python(script) == "False"


@pytest.mark.parametrize(
    "spelling",
    [
        "import metering_core.testing as testing; testing.strategies",
        "from metering_core.testing import strategies",
        "import metering_core.testing.strategies",
    ],
)
def test_without_hypothesis_the_extra_is_named(spelling):
    """Where Hypothesis is missing, the laws work, and asking for the strategies names the extra
    that brings them.
    """
    script = (
        "import metering_core as mc; from metering_core.testing import laws; "
        "laws.check_rating_laws(mc.pricing.PerUnit(1), 5)\n"
        f"try:\n    {spelling}\nexcept mc.errors.MissingExtraError as error: print(error.code, "
        "error.param, error)"
    )
    expected = (
        "metering_core.testing.strategies needs the extra 'hypothesis': pip install "
        "'metering-core[hypothesis]'"
    )
    assert python(script, block=["hypothesis"]) == f"extra_missing hypothesis {expected}"


def test_modules_come_when_they_are_asked_for():
    """The testing package lists its modules, imports them by attribute and knows no others."""
    assert {"cases", "laws", "strategies"} <= set(dir(testing))
    assert testing.laws is laws
    assert testing.strategies is drawn
    with pytest.raises(AttributeError, match="nonsense"):
        testing.nonsense  # noqa: B018 - asked for on purpose


@pytest.fixture
def installed(tmp_path):
    """Return a folder that makes Python find our entry point, as an installation does."""
    info = tmp_path / "metering_core-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: metering-core\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[hypothesis]\nmetering_core = _metering_core_hypothesis:register\n"
    )
    return tmp_path


def test_the_entry_point_is_declared():
    """The entry point that these tests imitate is the one in pyproject.toml, and what it names is
    shipped.
    """
    toml = importlib.import_module("tomllib")
    project = toml.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["hypothesis"] == {
        "metering_core": "_metering_core_hypothesis:register"
    }
    assert (
        "_metering_core_hypothesis.py"
        in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    )


@pytest.mark.parametrize("order", ["metering_core, hypothesis", "hypothesis, metering_core"])
def test_hypothesis_is_taught_in_either_order(installed, order):
    """With the entry point installed, our types can be drawn, whichever of the two is imported
    first.
    """
    script = (
        f"import {order}; from hypothesis.strategies import from_type; "
        "print(from_type(metering_core.Price))"
    )
    assert "price" in python(script, path=[installed])


def test_hypothesis_alone_does_not_import_us(installed):
    """Another project's test run loads the entry point and nothing of the package, nor what the
    package needs.
    """
    script = (
        "import hypothesis; print([name for name in sys.modules if name.split('.')[0] in "
        "('metering_core', 'dateutil')])"
    )
    assert python(script, path=[installed]) == "[]"


def test_a_missing_dependency_of_ours_breaks_no_other_test_run(installed):
    """Where the package cannot be imported, Hypothesis still can."""
    assert (
        python(
            "import hypothesis; print('fine')",
            path=[installed],
            block=["attrs", "attr", "dateutil"],
        )
        == "fine"
    )


def test_drawing_is_prepared_when_first_asked_for(installed):
    """Importing both does not import the strategies yet."""
    script = (
        "import hypothesis, metering_core; print('metering_core.testing.strategies' in sys.modules)"
    )
    assert python(script, path=[installed]) == "False"
