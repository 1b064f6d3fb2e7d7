"""Values are written as plain data and read again: one law for every public value."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from builders import JAN, START, priced, subscribed, used
from public_names import PUBLIC
from test_invoicing import Steps
from test_travelling import graduated

import metering_core as mc
from examples import examples
from metering_core.codec import row_of

STRIPES_OWN = "a part of a price, in Stripe's spelling: to_stripe and from_stripe"
NOT_WRITTEN = {
    mc.pricing.Graduated: STRIPES_OWN,
    mc.pricing.Package: STRIPES_OWN,
    mc.pricing.PerUnit: STRIPES_OWN,
    mc.pricing.Percentage: STRIPES_OWN,
    mc.pricing.Volume: STRIPES_OWN,
    mc.CombinedUsage: "two logs: snapshot() each",
    mc.stripe.Migration: "holds a log: snapshot() it",
    mc.currencies.Currency: "a row of a table: currency(code) returns it",
    mc.stripe.StripeCodes: "a row of a table: STRIPE_CODES has it",
    mc.feeds.Catalog: "a file: read_catalog() reads it",
    mc.feeds.UsageRow: "a row of a file, with where it stands there; its record is a value",
    mc.feeds.EventRow: "a row of a file, with where it stands there; its event is a value",
    mc.stripe.MeterErrorReport: "what Stripe would send, in its words; made of RefusedEvent",
    mc.stripe.MeterErrorType: "what Stripe would send, in its words; made of RefusedEvent",
    mc.tariffs.UsageComparison: "to_dict() is its summary; made again of the prices and the usage",
}
"""Public values that are not written, or not read again, and why."""

VALUES = {one for one in PUBLIC.values() if inspect.isclass(one) and attrs.has(one)} | {
    mc.acceptance.Receipts
}
WRITTEN = sorted(VALUES - NOT_WRITTEN.keys(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.__name__)
def test_every_public_value_is_read_as_it_was_written(kind):
    """What is written is plain ASCII JSON in a stable order, and reads back as an equal value that
    is written alike; so it was exact.
    """
    for value in examples()[kind]:
        text = json.dumps(value.to_dict())
        assert text.isascii()
        read = kind.from_dict(json.loads(text))
        assert read == value
        assert json.dumps(read.to_dict()) == text
        for field in attrs.fields(kind) if attrs.has(kind) else ():
            one, other = getattr(read, field.name), getattr(value, field.name)
            is_beside = (field.name, one) == ("usage", None)
            is_empty = (field.name, one, other) == ("details", {}, {})
            assert type(one) is type(other) or is_beside or is_empty


def test_every_exception_is_one():
    """The table names public values that have no way there and back; what has one leaves it."""
    assert NOT_WRITTEN.keys() <= VALUES
    for kind in NOT_WRITTEN:
        assert not (hasattr(kind, "to_dict") and hasattr(kind, "from_dict")), kind


def test_an_invoice_is_explained_after_it_was_read():
    """A stored invoice is explained by the log beside it, as the invoice was that it was made of."""
    log = used((START, 7), (START + 5, 6), subscription=subscribed(graduated()))
    invoice = mc.finalize_invoice(log.subscriptions[0], log, JAN, now=JAN.end)
    read = mc.Invoice.from_dict(json.loads(json.dumps(invoice.to_dict())))
    assert read == invoice
    whole = [str(mc.explain(line)) for line in invoice.lines]
    assert [str(mc.explain(line, usage=log)) for line in read.lines] == whole


def test_a_part_of_a_period_knows_of_what_it_is_a_part():
    """What is prorated is written with the whole period beside it, though it makes no period
    another one.
    """
    part = mc.BillingPeriod(START, START + 9, cut_from=JAN)
    read = mc.BillingPeriod.from_dict(json.loads(json.dumps(part.to_dict())))
    assert (read.cut_from, read.share) == (JAN, part.share)


def test_an_invoice_has_each_price_once():
    """Lines of one price name it; an older version of a price is there beside the newer one."""
    log = used((START, 12), subscription=subscribed(graduated()))
    invoice = mc.preview_invoice(log.subscriptions[0], log, now=START + 9)
    written = invoice.to_dict()
    assert {line["price"] for line in written["lines"]} == written["prices"].keys() == {"price"}
    first, *rest = invoice.lines
    older = attrs.evolve(first, price=attrs.evolve(first.price, model=mc.pricing.PerUnit(3)))
    both = attrs.evolve(invoice, lines=(older, *rest))
    assert list(both.to_dict()["prices"]) == ["price", "price (2)"]
    assert mc.Invoice.from_dict(both.to_dict()) == both


def test_a_price_of_ones_own_is_given_by_who_reads():
    """A pricing model that Stripe's shape cannot say is written by the price's id alone."""
    own = priced(Steps(), id="own")
    rated = mc.rate(own, 2001)
    written = json.loads(json.dumps(rated.to_dict()))
    assert written["prices"] == {"own": "own"}
    assert mc.RatedUsage.from_dict(written, {"own": own}) == rated
    with pytest.raises(mc.InvalidValueError, match="or one that is given") as caught:
        mc.RatedUsage.from_dict(written)
    assert caught.value.param == "prices[own]"


ONE_LINE = mc.preview_invoice(subscribed(priced(mode=None)), mc.UsageLog(), now=START)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        (lambda data: data.update(total=2), "total", "expected 1, which the rest comes to"),
        (lambda data: data["lines"][0].update(amount="1"), "lines[0][amount]", "an integer"),
        (lambda data: data["lines"][0].update(exact="1e3"), "lines[0][exact]", "in digits"),
        (lambda data: data["lines"][0].update(exact="1/0"), "lines[0][exact]", "in digits"),
        (lambda data: data["lines"][0].update(price="p"), "lines[0][price]", "document's prices"),
        (lambda data: data["lines"][0].pop("charge"), "lines[0][charge]", "Missing required"),
        (lambda data: data["lines"][0]["charge"].update(kind=5), "lines[0][charge][kind]", "unit"),
        (lambda data: data["lines"][0].update(surplus=5), "lines[0][surplus]", "unknown parameter"),
        (lambda data: data["period"].update(end=0), "period[end]", "after start"),
        (lambda data: data.update(lines={}), "lines", "a list"),
        (lambda data: data.update(period=5), "period", "an object"),
        (lambda data: data.pop("prices"), "prices", "Missing required"),
        (lambda data: data["prices"].update(price=5), "prices[price]", "expected an object"),
        (
            lambda data: data["prices"]["price"].pop("currency"),
            "prices[price][currency]",
            "Missing",
        ),
    ],
)
def test_what_is_wrong_is_named_from_the_outside_in(change, param, words):
    """A key that is wrong, gone or unknown is refused with its whole path, and in the sentence."""
    data = json.loads(json.dumps(ONE_LINE.to_dict()))
    change(data)
    with pytest.raises(mc.InvalidValueError, match=words) as caught:
        mc.Invoice.from_dict(data)
    assert caught.value.param == param
    assert param.split("[")[0] in caught.value.message


@pytest.mark.parametrize(
    ("hint", "value", "written"),
    [
        (timedelta, timedelta(hours=1), 3600),
        (timedelta, timedelta(microseconds=-1), "-0.000001"),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC), 1704067200),
        (datetime, datetime(2024, 1, 1, 0, 0, 0, 1, UTC), "2024-01-01T00:00:00.000001Z"),
        (Fraction, Fraction(1, 3), "1/3"),
        (Decimal, Decimal("0.5"), "0.5"),
        (int | Decimal | Fraction, 5, 5),
        (int | Decimal | Fraction, Decimal(5), "5"),
        (mc.AggregateUsage | mc.Formula, mc.AggregateUsage.SUM, "sum"),
        (mc.AggregateUsage | mc.Formula, mc.Formula.SUM, "formula:sum"),
        (dict[mc.BillingPeriod, int], {JAN: 5}, [[JAN.to_dict(), 5]]),
        (tuple[int, str], (5, "a"), [5, "a"]),
    ],
)
def test_each_type_is_written_in_one_way(hint, value, written):
    """The rows of types: what each writes, and that it reads back as what it was."""
    row = row_of(hint)
    assert row.write(value, None) == written
    read = row.read(written, "it", None)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("hint", "data"),
    [
        (timedelta, "0.0000001"),
        (timedelta, 10**30),
        (Decimal, "1/3"),
        (int, 1 << 13_000),
        (Fraction, "9" * 5000),
        (int, True),
        (tuple[int, str], [5]),
        (mc.AggregateUsage | mc.Formula, "formula:none"),
    ],
)
def test_what_a_type_does_not_hold_is_refused(hint, data):
    """No number that Python would not write again, no duration it cannot hold, no part too few."""
    with pytest.raises(mc.InvalidValueError) as caught:
        row_of(hint).read(data, "it", None)
    assert caught.value.param == "it"


@pytest.mark.parametrize("hint", [complex, int | str, list])
def test_a_type_that_nothing_says_how_to_write_is_a_mistake_of_ours(hint):
    """A class with such a field is found when it is first written, and by the law above."""
    with pytest.raises(TypeError, match="nothing"):
        row_of(hint)


def test_details_are_kept_as_far_as_json_goes():
    """A receipt's details may hold anything that was received: what JSON lacks is described."""
    details = {"a": [1, {"b": None}], "b": "x", "c": Decimal("0.5"), "d": True}
    receipt = mc.Receipt(mc.Outcome.REJECTED, details=details)
    read = mc.Receipt.from_dict(receipt.to_dict())
    assert read.details == {**details, "c": "Decimal('0.5') (Decimal)"}
    assert mc.Receipt.from_dict(read.to_dict()) == read
    nested = json.loads("[" * 30 + "]" * 30)
    for wrong in (nested, 0.5):
        with pytest.raises(mc.InvalidValueError):
            mc.Receipt.from_dict({"outcome": "accepted", "details": {"a": wrong}})
