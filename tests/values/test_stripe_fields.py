"""Every field of Stripe's objects by what it means for a bill: read, without effect, or refused
unless it is empty.
"""

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType

import pages
import pytest
from damaging import changed

import metering_core as mc
from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, SnapshotError
from metering_core.feeds.catalog import read_catalog
from metering_core.stripe_fields import KINDS, Meaning, Refused, is_empty, judged

JUNE = 1_780_272_000  # 2026-06-01T00:00:00Z
JULY = 1_782_864_000
DAY = 86_400

# The fields of stripe-python 16.1.0 (API 2026-10-28.endive), which are those of 2026-05-27.dahlia
# and `status_details`, `current_trial`; read off its classes, with what it calls optional empty and
# the rest as a plain subscription has it.
PRICE = {
    "id": "price_1", "object": "price", "active": True, "billing_scheme": "per_unit", "created": JUNE, "currency": "usd",
    "currency_options": None, "custom_unit_amount": None, "livemode": False, "lookup_key": None, "metadata": {},
    "nickname": "Team", "product": "prod_1",
    "recurring": {"interval": "month", "interval_count": 1, "meter": None, "trial_period_days": None, "usage_type": "licensed"},
    "tax_behavior": "exclusive", "tiers_mode": None, "transform_quantity": None, "type": "recurring", "unit_amount": 3000,
    "unit_amount_decimal": "3000",
}  # fmt: skip
PLAN = {
    "id": "price_1", "object": "plan", "active": True, "amount": 3000, "amount_decimal": "3000", "billing_scheme": "per_unit",
    "created": JUNE, "currency": "usd", "interval": "month", "interval_count": 1, "livemode": False, "metadata": {},
    "meter": None, "nickname": "Team", "product": "prod_1", "tiers_mode": None, "transform_usage": None,
    "trial_period_days": None, "usage_type": "licensed",
}  # fmt: skip
ITEM = {
    "id": "si_1", "object": "subscription_item", "billed_until": None, "billing_thresholds": None, "created": JUNE,
    "current_period_end": JULY, "current_period_start": JUNE, "current_trial": None, "discounts": [], "metadata": {},
    "plan": PLAN, "price": PRICE, "quantity": 2, "subscription": "sub_1", "tax_rates": [],
}  # fmt: skip
SUBSCRIPTION = {
    "id": "sub_1", "object": "subscription", "application": None, "application_fee_percent": None,
    "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None}, "billing_cycle_anchor": JUNE,
    "billing_cycle_anchor_config": None, "billing_mode": {"flexible": None, "type": "classic", "updated_at": None},
    "billing_schedules": [], "billing_thresholds": None, "cancel_at": None, "cancel_at_period_end": False, "canceled_at": None,
    "cancellation_details": {"comment": None, "feedback": None, "reason": None}, "collection_method": "charge_automatically",
    "created": JUNE, "currency": "usd", "customer": "cus_1", "customer_account": None, "days_until_due": None,
    "default_payment_method": "pm_1", "default_source": None, "default_tax_rates": [], "description": None, "discounts": [],
    "ended_at": None, "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
    "items": {"object": "list", "data": [ITEM], "has_more": False, "total_count": 1, "url": "/v1/subscription_items"},
    "latest_invoice": "in_1", "livemode": False, "managed_payments": {"enabled": False}, "metadata": {},
    "next_pending_invoice_item_invoice": None, "on_behalf_of": None, "pause_collection": None,
    "payment_settings": {"payment_method_options": None, "payment_method_types": None, "save_default_payment_method": "off"},
    "pending_invoice_item_interval": None, "pending_setup_intent": None, "pending_update": None, "presentment_details": None,
    "schedule": None, "start_date": JUNE, "status": "active", "status_details": None, "test_clock": None,
    "transfer_data": None, "trial_end": None, "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    "trial_start": None,
}  # fmt: skip
METER = {
    "id": "mtr_1", "object": "billing.meter", "created": JUNE, "customer_mapping": {"event_payload_key": "c", "type": "by_id"},
    "default_aggregation": {"formula": "sum"}, "display_name": "Calls", "event_name": "calls", "event_time_window": None,
    "livemode": False, "status": "active", "status_transitions": {"deactivated_at": None}, "updated": JUNE,
    "value_settings": {"event_payload_key": "v"},
}  # fmt: skip
OF_KIND = {
    "subscription": SUBSCRIPTION,
    "subscription_item": ITEM,
    "price": PRICE,
    "plan": PLAN,
    "billing.meter": METER,
}
SEATS = mc.Price.per_unit(
    "price_1",
    currency="usd",
    unit_amount=3000,
    recurring=mc.Recurring(usage_type="licensed"),
    nickname="Team",
    product="prod_1",
)


def read(**changes):
    return mc.Subscription.from_dict({**SUBSCRIPTION, **changes})


def with_item(**changes):
    return read(items=[{**ITEM, **changes}])


def refused(act, *args, code=ErrorCode.FIELD_NOT_BILLABLE, **options):
    with pytest.raises(InvalidValueError) as refusal:
        act(*args, **options)
    assert refusal.value.code == code
    return refusal.value


def test_a_whole_response_of_stripes_is_read():
    """Everything that stripe-python 16.1 has in a subscription, its item, price and plan; nothing
    of it is unknown.
    """
    expected = mc.Subscription(
        "sub_1", [mc.SubscriptionItem("si_1", SEATS, 2)], JUNE, customer="cus_1"
    )
    found = mc.Subscription.from_dict(json.loads(json.dumps(SUBSCRIPTION)))
    assert (found, found.ignored) == (expected, ())
    assert mc.Price.from_dict(PLAN) == mc.Price.from_dict(PRICE) == SEATS
    assert mc.Recurring.from_dict(PRICE["recurring"]) == SEATS.recurring
    assert mc.Meter.from_dict(METER) == mc.Meter(
        "mtr_1", "calls", display_name="Calls", customer_payload_key="c", value_payload_key="v"
    )


@pytest.mark.parametrize("kind", OF_KIND)
def test_the_table_of_an_object_is_whole(kind):
    """Each field of the responses has its row; what a response lacks is an older spelling,
    expanded, or ours.
    """
    elsewhere = {
        "subscription": {
            "discount",
            "tax_percent",
            "plan",
            "quantity",
            "timezone",
            "current_period_end",
            "current_period_start",
        },
        "subscription_item": {"deleted"},
        "price": {"deleted", "percent", "tiers"},
        "plan": {"deleted", "percent", "tiers", "aggregate_usage"},
        "billing.meter": {"carry_forward", "decimal_places", "dimension_payload_keys"},
    }[kind]
    assert KINDS[kind].keys() - OF_KIND[kind].keys() == elsewhere
    assert OF_KIND[kind].keys() <= KINDS[kind].keys()


EMPTY = (None, False, 0, "", [], {}, (), Decimal(0), 0.0, MappingProxyType({}))
# What a field says where it alters the bill, if anything but an empty value may stand there; and
# the param that names it.
SAYING = {
    "subscription": {
        "automatic_tax": ({"enabled": True, "liability": None}, "automatic_tax[enabled]"),
        "managed_payments": ({"enabled": True}, "managed_payments[enabled]"),
        "billing_cycle_anchor_config": (
            {"day_of_month": 31},
            "billing_cycle_anchor_config[day_of_month]",
        ),
        "cancel_at_period_end": (True, "cancel_at_period_end"),
        "status": ("incomplete", "status"),
        "quantity": (5, "quantity"),
    },
    "subscription_item": {"billed_until": (JULY + DAY, "items[billed_until]")},
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind in OF_KIND
        for field, row in KINDS[kind].items()
        if isinstance(row, Refused)
    ],
)
def test_what_alters_a_bill_is_refused_by_name(kind, field):
    """Every row that refuses does, with the field as param, and lets through what says nothing."""
    place = "items" if kind == "subscription_item" else ""
    own = {
        key: value
        for key, value in OF_KIND[kind].items()
        if key not in {"current_period_end", "items"}
    }
    plain_param = f"{place}[{field}]" if place else field
    value, param = SAYING.get(kind, {}).get(field, (["something"], plain_param))
    error = refused(judged, {**own, field: value}, kind, place)
    assert error.param == param
    assert str(error).startswith(f"{param}: expected ")
    for nothing in EMPTY:
        if field not in {"status", "quantity"} or nothing is None:
            assert judged({**own, field: nothing}, kind, place).ignored == ()


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"discounts": ["di_1"]}, "items[discounts]"),
        (
            {
                "discounts": [
                    {"id": "di_1", "object": "discount", "source": {"coupon": {"percent_off": 50}}}
                ]
            },
            "items[discounts]",
        ),
        ({"tax_rates": [{"id": "txr_1", "percentage": 19}]}, "items[tax_rates]"),
        (
            {"current_trial": {"end_date": JULY, "start_date": JUNE, "trial_offer": "tro_1"}},
            "items[current_trial]",
        ),
        ({"deleted": True}, "items[deleted]"),
        ({"billed_until": JULY + 1}, "items[billed_until]"),
        ({"billed_until": "2026-07-01"}, "items[billed_until]"),
        ({"price": {**PRICE, "custom_unit_amount": {"minimum": 100}}}, "custom_unit_amount"),
    ],
)
def test_what_an_item_says_of_its_bill_is_not_read_past(changes, param):
    """A discount of an item, also expanded, its taxes, its trial: what the subscription's own
    refused already.
    """
    assert refused(with_item, **changes).param == param


def test_an_item_that_is_billed_to_the_end_of_its_period_is_billed_as_usual():
    """Licensed items are billed ahead at Stripe: `billed_until` the current period's end says no
    more than that.
    """
    assert with_item(billed_until=JULY) == with_item(billed_until=None)


def test_items_beyond_the_page_are_refused():
    """A subscription has more items than the list object holds: the bill would lack them."""
    page = {**SUBSCRIPTION["items"], "has_more": True}
    assert refused(read, items=page).param == "items[has_more]"


@pytest.mark.parametrize("status", ["active", "past_due", "trialing", "unpaid", None])
def test_a_subscription_that_runs_is_read(status):
    """Whether an invoice was paid alters no bill."""
    assert read(status=status) == read()


@pytest.mark.parametrize(
    "status", ["incomplete", "incomplete_expired", "paused", "canceled", "Active", 1, ["active"]]
)
def test_a_subscription_that_owes_nothing_is_refused(status):
    """One that never began, or is paused, was billed as active; a canceled one must say when it
    ended.
    """
    error = refused(read, status=status)
    assert error.param == "status"
    assert "leave such a subscription out" in str(error)


def test_a_canceled_subscription_is_billed_until_it_ended():
    """With its end it is read, whatever `canceled_at` says of when that was asked for; the last
    period is partial.
    """
    found = read(status="canceled", canceled_at=JUNE + DAY, ended_at=JUNE + 15 * DAY)
    assert found.ended_at == datetime(2026, 6, 16, tzinfo=UTC)
    log = mc.UsageLog([found])
    assert mc.finalize_invoice(found, log, found.period_at(JUNE), now=JULY).total == 3000


def test_a_subscription_that_ends_with_its_period_ends_there():
    """`cancel_at_period_end` ends it where the current period does, said by the item or (before
    2025) the subscription.
    """
    end = datetime(2026, 7, 1, tzinfo=UTC)
    own = {key: value for key, value in ITEM.items() if not key.startswith("current_period")}
    assert read(cancel_at_period_end=True).ended_at == end
    assert read(cancel_at_period_end=True, current_period_end=JULY, items=[own]).ended_at == end
    assert read(cancel_at_period_end=True, cancel_at=JUNE + DAY).ended_at == datetime(
        2026, 6, 2, tzinfo=UTC
    )
    assert refused(read, cancel_at_period_end=True, items=[own]).param == "cancel_at_period_end"


@pytest.mark.parametrize(
    ("trial", "begins"),
    [
        ({"trial_start": JUNE - 14 * DAY, "trial_end": JUNE, "start_date": JUNE - 14 * DAY}, JUNE),
        (
            {
                "trial_start": JUNE - 28 * DAY,
                "trial_end": JUNE - 14 * DAY,
                "start_date": JUNE - 28 * DAY,
            },
            JUNE - 14 * DAY,
        ),
        ({"trial_end": JUNE - 14 * DAY, "start_date": JUNE}, JUNE),
        ({"trial_end": JUNE, "start_date": None}, JUNE),
        ({"trial_end": JULY, "start_date": JUNE, "status": "trialing"}, JULY),
    ],
)
def test_what_is_owed_begins_when_the_trial_ends(trial, begins):
    """Stripe says `trial_end` for ever. A trial is free, whether it is over or runs: no period
    before its end is billed.
    """
    found = read(**trial)
    assert found.start_date == datetime.fromtimestamp(begins, UTC)
    assert found.period_at(begins - 1) is None
    with pytest.raises(mc.InvoicingError):
        mc.preview_invoice(found, mc.UsageLog([found]), now=begins - 1)


def test_a_subscription_that_ended_within_its_trial_is_refused():
    """It never owed anything, and there is no period to bill."""
    assert refused(read, status="canceled", ended_at=JULY, trial_end=JULY).param == "trial_end"


@pytest.mark.parametrize(
    ("day", "anchor"),
    [(1, JUNE), (None, JUNE), (1, datetime(2026, 6, 1, 23, tzinfo=UTC)), (30, JULY - DAY)],
)
def test_an_anchor_on_its_day_is_read(day, anchor):
    """Boundaries follow from the anchor where its day is the configured one."""
    assert read(
        billing_cycle_anchor_config={"day_of_month": day}, billing_cycle_anchor=anchor
    ).cycle.boundary(1)


def test_an_anchor_that_its_month_cut_is_refused():
    """The 31st, anchored in June, comes back as the 31st at Stripe, as the 30th here; a malformed
    anchor is refused itself.
    """
    config = {"billing_cycle_anchor_config": {"day_of_month": 31}}
    assert (
        refused(read, billing_cycle_anchor=JULY - DAY, **config).param
        == "billing_cycle_anchor_config[day_of_month]"
    )
    error = refused(
        read, billing_cycle_anchor="June", **config, code=ErrorCode.PARAMETER_INVALID_INSTANT
    )
    assert error.param == "billing_cycle_anchor"


@pytest.mark.parametrize("quantity", [2, None])
def test_the_quantity_of_the_only_item_may_be_repeated(quantity):
    """Earlier versions of the API repeat it on the subscription."""
    assert read(quantity=quantity, plan=PLAN) == read()


def test_another_quantity_than_the_items_is_refused():
    """A quantity on the subscription that no item has would be billed as 1."""
    seats = {"id": "si", "price": PRICE}
    data = {"id": "sub", "billing_cycle_anchor": JUNE, "items": [seats]}
    assert mc.Subscription.from_dict({**data, "quantity": 1}).items[0].quantity == 1
    assert refused(mc.Subscription.from_dict, {**data, "quantity": 5}).param == "quantity"
    two = [seats, {**seats, "id": "other"}]
    assert (
        refused(mc.Subscription.from_dict, {**data, "items": two, "quantity": 1}).param
        == "quantity"
    )


# What no table knows ------------------------------------------------------------------------------


def test_what_is_new_at_stripe_is_read_past_and_named():
    """Unknown fields of objects that come from Stripe, and of parts of them, are listed by their
    paths.
    """
    recurring = {**PRICE["recurring"], "new_part": 1}
    item = {
        **ITEM,
        "new_of_item": None,
        "price": {**PRICE, "new_of_price": [], "recurring": recurring},
    }
    found = read(new_of_subscription={"a": 1}, items=[ITEM, {**item, "id": "si_2"}])
    assert found.ignored == (
        "new_of_subscription", "items[1][new_of_item]", "items[1][price][new_of_price]", "items[1][price][recurring][new_part]",
    )  # fmt: skip
    assert found == read(items=[ITEM, {**ITEM, "id": "si_2"}])
    assert "ignored" not in repr(found)
    assert hash(found.items[1]) == hash(mc.SubscriptionItem.from_dict({**ITEM, "id": "si_2"}))
    assert pickle.loads(pickle.dumps(found)).ignored == found.ignored  # noqa: S301 - our own
    assert mc.Price.from_dict({**PLAN, "new": 1}).ignored == ("new",)
    meter = mc.Meter.from_dict(
        {**METER, "new": 1, "value_settings": {"event_payload_key": "v", "scale": 1}}
    )
    assert meter.ignored == ("new", "value_settings[scale]")
    mc.Meter.from_dict(METER).require_successor(meter)


def nested_objects(value, path=""):
    """Yield every object within a response with its path; a list's elements have their place."""
    if isinstance(value, dict):
        yield path, value
        is_list = value.get("object") == "list"
        for key, part in value.items():
            yield from nested_objects(
                part, path if is_list and key == "data" else f"{path}[{key}]" if path else key
            )
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from nested_objects(one, f"{path}[{at}]")


SAYING_ALL = {
    **SUBSCRIPTION,
    "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": {"type": "self"}},
    "billing_cycle_anchor_config": {
        "day_of_month": 1,
        "hour": 0,
        "minute": 0,
        "month": None,
        "second": 0,
    },
    "billing_mode": {
        "flexible": {"proration_discounts": "included"},
        "type": "flexible",
        "updated_at": JUNE,
    },
    "customer": {
        "id": "cus_1",
        "object": "customer",
        "discount": None,
        "invoice_settings": {"footer": None},
    },
    "pending_invoice_item_interval": {"interval": "week", "interval_count": 1},
    "presentment_details": {"presentment_currency": "eur"},
    "transfer_data": {"amount_percent": 5, "destination": "acct_1"},
    "plan": PLAN,
}
"""A subscription with an object wherever there may be one which alters no bill."""
NESTED = [path for path, _ in nested_objects(SAYING_ALL)]


@pytest.mark.parametrize("path", NESTED)
def test_a_field_that_no_table_knows_is_named_wherever_it_is(path):
    """A new field of any object within a subscription of Stripe's is listed by its path; only free
    texts have no such.
    """
    data = json.loads(json.dumps(SAYING_ALL))
    assert mc.Subscription.from_dict(data).ignored == ()
    dict(nested_objects(data))[path]["new"] = 1
    is_free = "metadata" in path or path == "payment_settings"
    assert mc.Subscription.from_dict(data).ignored == (
        () if is_free else (f"{path}[new]" if path else "new",)
    )


def test_the_objects_within_are_all_there():
    """Those of the subscription, its list of items, the item, both of its prices and what these
    hold.
    """
    assert {
        "",
        "items",
        "items[0]",
        "items[0][price][recurring]",
        "items[0][plan]",
        "trial_settings[end_behavior]",
    } < {*NESTED}
    assert len(NESTED) > 20


def test_a_new_field_of_a_currency_option_or_an_object_in_place_of_a_text_is_named():
    """Also where the option is not the one that is billed, and where Stripe makes an object of what
    was none.
    """
    option = {"unit_amount": 2800, "new": 1}
    assert mc.Price.from_dict({**PRICE, "currency_options": {"eur": option}}).ignored == (
        "currency_options[eur][new]",
    )
    assert read(description={"text": "a"}).ignored == ("description[text]",)
    assert read(default_payment_method={"object": "payment_method", "card": {}}).ignored == ()


def test_a_schedule_is_named():
    """A schedule may alter the bills of coming periods, so that whoever bills later reads the
    subscription again.
    """
    assert read(schedule="sub_sched_1").ignored == ("schedule",)
    assert read(schedule={"id": "sub_sched_1", "object": "subscription_schedule"}).ignored == (
        "schedule",
    )
    assert read(schedule=None).ignored == ()


def test_periods_that_begin_anew_at_a_threshold_are_refused():
    """They move every later boundary, and nothing here makes an invoice at a threshold; also of our
    own.
    """
    thresholds = {"amount_gte": 100, "reset_billing_cycle_anchor": True}
    param = "billing_thresholds[reset_billing_cycle_anchor]"
    assert refused(read, billing_thresholds=thresholds).param == param
    assert refused(mc.subscriptions.BillingThresholds, **thresholds).param == param
    kept = read(billing_thresholds={**thresholds, "reset_billing_cycle_anchor": False})
    assert kept.billing_thresholds == mc.subscriptions.BillingThresholds(amount_gte=100)


@pytest.mark.parametrize("discount", ["di_1", {"id": "di_1", "object": "discount"}])
def test_a_discount_of_an_expanded_customer_is_refused(discount):
    """It is taken off all invoices of the customer at Stripe; an empty one says nothing."""
    customer = {"id": "cus_1", "object": "customer", "balance": -500, "discount": discount}
    assert refused(read, customer=customer).param == "customer[discount]"
    assert read(customer={**customer, "discount": None}).customer == "cus_1"


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (
            {"id": "sub", "billing_cycle_anchor": JUNE, "items": [], "billing_schemes": 1},
            "billing_schemes",
        ),
        ({**SUBSCRIPTION, "object": None, "new": 1}, "new"),
        ({**SUBSCRIPTION, "items": [{"id": "si", "price": PRICE, "new": 1}]}, "items[new]"),
        (
            {
                **SUBSCRIPTION,
                "items": [{**ITEM, "price": {**PRICE, "tiers": [{"up_to": "inf", "new": 1}]}}],
            },
            "tiers",
        ),
    ],
)
def test_an_object_of_your_own_has_no_unknown_key(data, param):
    """Without its kind an object was written by hand, where an unknown key is a slip; so is one
    where amounts are.
    """
    with pytest.raises(InvalidValueError) as refusal:
        mc.Subscription.from_dict(data)
    assert refusal.value.param == param


def test_an_unknown_field_of_a_tier_is_refused():
    """Whatever Stripe adds to a tier or a package would alter amounts."""
    tiered = {
        **PRICE,
        "billing_scheme": "tiered",
        "tiers_mode": "volume",
        "unit_amount": None,
        "unit_amount_decimal": None,
    }
    tiers = [{"up_to": None, "unit_amount": 1, "new": 1}]
    error = refused(
        mc.Price.from_dict, {**tiered, "tiers": tiers}, code=ErrorCode.PARAMETER_UNKNOWN
    )
    assert error.param == "tiers[0][new]"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("discountss", "discounts"), ("Ended_At", "ended_at"), ("trial_ends", "trial_end")],
)
def test_a_slip_in_an_object_of_stripes_is_refused(slip, meant):
    """A name that is nearly one that alters bills, and which is not there, was edited by hand."""
    data = {key: value for key, value in SUBSCRIPTION.items() if key != meant}
    error = refused(
        mc.Subscription.from_dict, {**data, slip: None}, code=ErrorCode.PARAMETER_UNKNOWN
    )
    assert (error.param, str(error)) == (
        slip, f"Received unknown parameter: {slip} (did you mean {meant!r}?)",
    )  # fmt: skip
    assert read(**{slip: None}).ignored == (slip,)


@pytest.mark.parametrize(
    ("act", "data"),
    [
        (mc.Subscription.from_dict, {**SUBSCRIPTION, "object": "invoice"}),
        (mc.SubscriptionItem.from_dict, {**ITEM, "object": "line_item"}),
        (mc.Price.from_dict, {**PRICE, "object": "product"}),
        (mc.Meter.from_dict, {**METER, "object": 5}),
    ],
)
def test_an_object_of_another_kind_is_refused(act, data):
    """An object that names another kind is not read as if it were one of this."""
    assert refused(act, data, code=ErrorCode.PARAMETER_INVALID_OBJECT).param in {
        "object",
        "items[object]",
    }


def test_a_catalog_gathers_what_was_read_past(tmp_path):
    """By the object it was in; an unknown key of a hand-written object is refused, with what was
    meant.
    """
    path = tmp_path / "catalog.json"
    catalog = {
        "prices": [{**PRICE, "new": 1}],
        "meters": [{**METER, "new": 1}],
        "subscriptions": [{**SUBSCRIPTION, "new": 1}],
    }
    path.write_text(json.dumps(catalog))
    assert read_catalog(path).ignored == (
        "prices[0][new]",
        "meters[0][new]",
        "subscriptions[0][new]",
    )
    assert pickle.loads(pickle.dumps(read_catalog(path))).ignored == read_catalog(path).ignored  # noqa: S301 - our own
    path.write_text(
        json.dumps({"subscriptions": [{**SUBSCRIPTION, "trial_end": "2026-06-01T00:00:00Z"}]})
    )
    assert read_catalog(path).subscriptions[0].start_date == datetime(2026, 6, 1, tzinfo=UTC)
    path.write_text(json.dumps({"prices": [{"id": "p", "currency": "usd", "unit_amounts": 1}]}))
    with pytest.raises(CatalogError, match=r"unit_amounts \(did you mean 'unit_amount'\?\)"):
        read_catalog(path)


def test_a_snapshot_has_nothing_that_is_read_past():
    """A stored object is ours: an unknown key in it is damage, although it names its kind."""
    log = mc.MeterLog([mc.Meter.from_dict(METER)], [])
    stored = json.loads(json.dumps(mc.snapshot(log)))
    changed("meters", 0, "new", value=1)(stored)
    with pytest.raises(SnapshotError, match="new is not among what was written"):
        mc.restore_meter_log(stored)


def test_what_says_nothing():
    """Null, false, 0 and what is empty; not what has a value, nor what is no value of JSON."""
    assert all(map(is_empty, EMPTY))
    assert not any(map(is_empty, (True, 1, "0", [0], {"a": None}, object(), Decimal("0.1"))))
    assert {Meaning.READ, Meaning.NOTHING, Meaning.LATER} == set(Meaning)


def test_the_documentation_has_every_field():
    """The page of fields names all of them in the section of their object, and what is refused in
    its own words.
    """
    text = pages.of_documentation("reference", "stripe-objects.md").read_text(encoding="utf-8")
    sections = dict(section.split("\n", 1) for section in text.split("\n## ")[1:])
    titles = {
        "subscription": "Subscription",
        "subscription_item": "Subscription item",
        "price": "Price",
        "plan": "Plan",
    }
    titles |= {"billing.meter": "Meter", "recurring": "`recurring`", "tier": "`tiers[]`"}
    titles |= {"billing_thresholds": "`billing_thresholds`", "customer": "`customer`, expanded"}
    assert list(sections) == list(titles.values())
    for kind, title in titles.items():
        read, *rest = sections[title].strip().split("\n\n")
        for field, row in KINDS[kind].items():
            if isinstance(row, Refused):
                assert f"| `{field}{row.at}` | expected {row.expected} |" in sections[title]
            else:
                assert f"`{field}`" in (
                    read if row is Meaning.READ else rest[0] if row is Meaning.NOTHING else rest[1]
                )
