"""Names of outside cannot forge a line of ours nor command a terminal: they are escaped wherever
they enter a text.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import DAY, FEB, JAN, START
from doors import Scene

import metering_core as mc

HOSTILE = [
    "Tokens\nTotal   USD 0.00",
    "a\x1b[8mb",
    "a\rb",
    "a\r\nRounding: none",
    "a\u2028b\u2029c\x85d",
    "a\u202eb\u2066c",
    "a\ud800b",
    "a\0b\x9b31m",
]
TAME = "Tokens"
NOW = FEB.start_seconds + DAY


def texts_of(name):
    """Yield every text that is made of values with this name, and of the refusals that speak
    of it.
    """
    model = mc.pricing.Graduated(
        [mc.Tier(5, unit_amount=200), mc.Tier("inf", unit_amount=100, flat_amount=3)]
    )
    price = mc.Price(f"p{name}", "usd", model, nickname=name, product=name, unit_label=name)
    flat = mc.Price.per_unit(
        f"q{name}", currency="usd", unit_amount=1, nickname=name, unit_label=name
    )
    metered = mc.Price.per_unit(
        "m", currency="usd", unit_amount=1, nickname=name, recurring=mc.Recurring(meter=name)
    )
    named = mc.Price("own", "usd", Labelled(name), nickname=name)
    items = [
        mc.SubscriptionItem(f"{at}{name}", one)
        for at, one in enumerate((price, flat, metered, named))
    ]
    subscription = mc.Subscription(name, items, START, customer=name)
    log = mc.UsageLog([subscription], policy=mc.AcceptancePolicy(late_grace=timedelta(days=9)))
    meter = mc.Meter(
        name,
        name,
        display_name=name,
        dimension_payload_keys=[f"d{name}"],
        customer_payload_key=f"c{name}",
    )
    meters = mc.MeterLog([meter], [subscription], policy=mc.MeterPolicy.history())
    for item in items[:2]:
        log.record(item.id, 7, timestamp=START, id=name, now=START)
    payload = {f"c{name}": name, f"d{name}": name, "value": "7"}
    meters.record(name, payload, identifier=name, timestamp=START, now=START)
    usage = mc.CombinedUsage(log, meters)
    invoice = mc.finalize_invoice(subscription, usage, JAN, now=NOW)
    yield str(invoice)
    yield from (str(mc.explain(line)) for line in invoice.lines)
    yield from (line.description for line in invoice.lines)
    yield from (
        str(one)
        for one in (
            mc.tariffs.compare(price, flat),
            mc.tariffs.compare_usage(price, flat, log.summaries(items[0].id, now=NOW)),
        )
    )
    yield from (finding.message for one in (price, flat) for finding in mc.tariffs.audit(one))
    yield from (
        str(one)
        for one in mc.stripe.migrate_to_meters(
            log, [mc.Subscription("x", items[:2], START)], now=NOW
        ).periods
    )
    yield from refusals(name, log, meters, subscription, payload)


class Labelled:
    """A model of somebody's own that says what its lines are called."""

    def __init__(self, label):
        self.label = label

    def charges(self, quantity):
        return [mc.pricing.Charge("unit", quantity, 1, quantity, label=self.label)]


def refusals(name, log, meters, subscription, payload):
    """Yield the messages of errors and receipts that speak of a name."""
    item = subscription.items[0]
    calls = [
        lambda: log.record(f"no{name}", 1, now=NOW),
        lambda: log.record(item.id, 8, timestamp=START, id=name, now=NOW),
        lambda: log.record(subscription.items[2].id, 1, now=NOW),
        lambda: log.close_period(f"no{name}", JAN, now=NOW),
        lambda: log.subscribe(mc.Subscription("other", [item], START)),
        lambda: log.partial(subscription.items[2], JAN),
        lambda: mc.preview_invoice(subscription, log, now=START - DAY),
        lambda: meters.record(f"no{name}", payload, now=NOW),
        lambda: meters.record(name, {**payload, "value": "8"}, identifier=name, now=NOW),
        lambda: meters.record(name, {**payload, "value": name}, now=NOW),
        lambda: meters.record(name, {"value": "8"}, now=NOW),
        lambda: meters.record(name, {f"c{name}": name, "value": "8"}, now=NOW),
        lambda: meters.cancel(name, f"no{name}", now=NOW),
        lambda: meters.meter(f"no{name}"),
        lambda: mc.event_summaries(
            meters, name, name, START, NOW, dimension_filters={f"no{name}": "a"}
        ),
        lambda: mc.Price.from_dict({f"x{name}": 1}),
        lambda: mc.MeterEvent("e", {name: 5}),
        lambda: mc.Price.from_dict({"id": name, "currency": name}),
        lambda: mc.SubscriptionItem.from_dict(
            {"id": name, "price": f"no{name}"}, {name: item.price}
        ),
        lambda: subscription.item(f"no{name}"),
        lambda: mc.BillingCycle(START, "month", 1, name),
        lambda: mc.Money(1, name),
        lambda: mc.feeds.CumulativePoint(60, 5, attributes={name: 5}),
    ]
    for call in calls:
        with pytest.raises(mc.MeteringError) as caught:
            call()
        assert caught.value.message == str(caught.value)
        yield str(caught.value)
    receipts = log.append([mc.UsageRecord(f"no{name}", 1, NOW)], now=NOW)
    yield from (receipts[0].message, repr(receipts))


@pytest.fixture(scope="module")
def tame():
    return [len(text.split("\n")) for text in texts_of(TAME)]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_stay_in_their_place(tame, name):
    """Each text has as many lines as with a tame name, and each of them is printable, whatever the
    names in it are.
    """
    texts = list(texts_of(name))
    assert [len(text.split("\n")) for text in texts] == tame
    assert [text for text in texts for line in text.split("\n") if not line.isprintable()] == []


def test_what_is_kept_is_as_it_was_given():
    """Only texts are escaped: ids, nicknames and payloads stay as they were."""
    (name, *_), scene = HOSTILE, Scene()
    event = scene.meter_log.record(
        "calls", {"stripe_customer_id": name, "value": "1", "region": name}, now=NOW
    )
    assert event.payload["region"] == name
    assert mc.Price.per_unit("p", currency="usd", unit_amount=1, nickname=name).nickname == name
    with pytest.raises(mc.InvalidValueError) as caught:
        mc.MeterEvent("e", {name: 5})
    assert caught.value.param == f"payload[{name}]"
