"""Files of prices, subscriptions and usage: what is read, and what each complaint says."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import metering_core as mc
from metering_core.feeds import appending
from metering_core.feeds.appending import append_events, append_usage
from metering_core.feeds.catalog import meter_log, read_catalog, read_price
from metering_core.feeds.files import EventRow, UsageRow, parse_quantity, read_events, read_usage
from metering_core.feeds.formats import UsageFormat
from metering_core.feeds.instants import PlausibleTime, likeness
from metering_core.feeds.json import in_json, read_json
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.periods import instant, parse_instant

START = 1_704_067_200  # 2024-01-01T00:00:00Z
TOKENS = {
    "id": "tokens",
    "currency": "usd",
    "unit_amount_decimal": "0.4",
    "recurring": {"interval": "month", "usage_type": "metered", "aggregate_usage": "sum"},
}
SUBSCRIPTION = {
    "id": "sub_1",
    "billing_cycle_anchor": START,
    "items": [{"id": "si_1", "price": "tokens"}],
}


def text(**changes) -> io.StringIO:
    return io.StringIO(json.dumps({"prices": [TOKENS], "subscriptions": [SUBSCRIPTION], **changes}))


def complaint(source) -> mc.errors.CatalogError:
    with pytest.raises(mc.errors.CatalogError) as caught:
        read_catalog(source)
    assert caught.value.code is mc.ErrorCode.FILE_UNREADABLE
    return caught.value


class TestCatalogs:
    def test_prices_and_subscriptions_are_read(self):
        """An item that names a price by id gets that price."""
        catalog = read_catalog(text())
        expected = mc.Price.per_unit("tokens", currency="usd", unit_amount="0.4")
        assert catalog.prices == {"tokens": expected}
        assert catalog.subscriptions == (
            mc.Subscription("sub_1", [mc.SubscriptionItem("si_1", expected)], START),
        )

    def test_a_price_may_stand_in_its_item(self):
        """A catalog needs no list of prices where its items hold theirs."""
        item = {"id": "si_1", "price": TOKENS}
        source = io.StringIO(json.dumps({"subscriptions": [{**SUBSCRIPTION, "items": [item]}]}))
        assert read_catalog(source).subscriptions[0].items[0].price.id == "tokens"

    def test_stripe_list_objects_are_lists(self):
        """What Stripe's API returns can be saved and read as it is."""
        wrapped = text(
            prices={"object": "list", "data": [TOKENS], "has_more": False, "url": "/v1/prices"},
            subscriptions={"data": [{**SUBSCRIPTION, "items": {"data": SUBSCRIPTION["items"]}}]},
        )
        assert read_catalog(wrapped) == read_catalog(text())

    def test_an_incomplete_stripe_list_is_refused(self):
        """A page of a longer list would bill some customers and forget the others."""
        error = complaint(text(prices={"data": [TOKENS], "has_more": True}))
        assert error.param == "prices[has_more]"
        error = complaint(
            text(subscriptions=[{**SUBSCRIPTION, "items": {"data": [], "has_more": True}}])
        )
        assert error.param == "items[has_more]"

    @pytest.mark.parametrize("anchor", ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"])
    def test_times_of_subscriptions_may_be_iso_8601(self, anchor):
        """An anchor written as text with an offset is the same moment as its Unix seconds."""
        written = {
            **SUBSCRIPTION,
            "billing_cycle_anchor": anchor,
            "start_date": anchor,
            "ended_at": "2024-03-01T00:00:00Z",
        }
        subscription = read_catalog(text(subscriptions=[written])).subscriptions[0]
        assert (
            subscription.billing_cycle_anchor
            == subscription.start_date
            == datetime(2024, 1, 1, tzinfo=UTC)
        )
        assert subscription.ended_at == datetime(2024, 3, 1, tzinfo=UTC)

    def test_a_path_is_read_with_or_without_a_byte_order_mark(self, tmp_path):
        """What Windows editors put before the text is no part of it."""
        path = tmp_path / "catalog.json"
        for mark in ("", "\ufeff"):
            path.write_text(mark + text().read(), encoding="utf-8")
            assert read_catalog(path) == read_catalog(str(path)) == read_catalog(text())
        assert read_catalog(io.StringIO("\ufeff" + text().read())) == read_catalog(text())

    @pytest.mark.parametrize(
        ("changes", "param", "words"),
        [
            (
                {"price": []},
                "price",
                ": Received unknown parameter: price (did you mean 'prices'?)",
            ),
            ({"prices": TOKENS}, "prices", "prices: expected a list"),
            (
                {"prices": [TOKENS, TOKENS]},
                "prices[1][id]",
                "an id that no other of the prices has",
            ),
            (
                {"prices": [{**TOKENS, "unit_ammount": 1}]},
                "unit_ammount",
                "prices[0] ('tokens'): Received unknown",
            ),
            (
                {"prices": [{**TOKENS, "unit_ammount": 1}]},
                "unit_ammount",
                "did you mean 'unit_amount'",
            ),
            ({"prices": [{**TOKENS, "up_to": 1}]}, "up_to", "Received unknown parameter: up_to"),
            ({"prices": [7]}, "data", "prices[0]: data: expected an object"),
            (
                {"prices": [{**TOKENS, "unit_amount_decimal": 0.4}]},
                "unit_amount_decimal",
                "received 0.4: a number",
            ),
            (
                {"subscriptions": [7]},
                "subscription",
                "subscriptions[0]: subscription: expected an object",
            ),
            (
                {"subscriptions": [SUBSCRIPTION, SUBSCRIPTION]},
                "subscriptions[1][id]",
                "no other of the subscriptions",
            ),
            (
                {"subscriptions": [{**SUBSCRIPTION, "id": None}]},
                "id",
                "subscriptions[0]: Missing required param: id",
            ),
            (
                {"subscriptions": [SUBSCRIPTION, {**SUBSCRIPTION, "id": "sub_2"}]},
                "items[id]",
                "'sub_1' has it",
            ),
            (
                {"prices": []},
                "items[price]",
                "subscriptions[0] ('sub_1'): items[price]: expected the id of a known price",
            ),
            (
                {"subscriptions": [{**SUBSCRIPTION, "billing_cycle_anchor": "2024-01-01"}]},
                "billing_cycle_anchor",
                "ISO 8601 with an offset",
            ),
        ],
    )
    def test_a_complaint_names_the_object_and_the_field(self, changes, param, words):
        """Whoever wrote the catalog finds the place without reading the library."""
        error = complaint(text(**changes))
        assert error.param == param
        assert words in error.message
        assert error.message.startswith("<stream>: ")

    def test_a_key_in_the_wrong_place_is_not_suggested_to_itself(self):
        """To ask "unknown: up_to, did you mean up_to?" would help nobody."""
        assert "did you mean" not in complaint(text(prices=[{**TOKENS, "up_to": 1}])).message

    def test_something_else_than_an_object_is_no_catalog(self):
        """A list of prices alone does not say what it is."""
        assert "expected an object" in complaint(io.StringIO("[]")).message


METER = {"id": "mtr_tokens", "event_name": "tokens", "default_aggregation": {"formula": "sum"}}
ON_METER = {
    **TOKENS,
    "recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_tokens"},
}
CUSTOMERS = {**SUBSCRIPTION, "customer": "cus_1"}


def on_meters(**changes) -> io.StringIO:
    return text(
        **{"prices": [ON_METER], "meters": [METER], "subscriptions": [CUSTOMERS], **changes}
    )


class TestMeters:
    def test_a_price_names_its_meter_by_id(self):
        """Meters come by id, in Stripe's shape, and a subscription carries its customer."""
        catalog = read_catalog(on_meters())
        assert catalog.meters == {"mtr_tokens": Meter("mtr_tokens", "tokens")}
        assert catalog.subscriptions[0].customer == "cus_1"
        assert catalog.subscriptions[0].items[0].recurring.meter == "mtr_tokens"

    def test_a_catalog_without_meters_has_none(self):
        """Who reports usage records needs no meters."""
        assert read_catalog(text()).meters == {}

    def test_a_list_object_of_meters_is_a_list(self):
        """What Stripe's API returns can be saved and read as it is; its event name serves a meter
        without an id.
        """
        unnamed = {
            "event_name": "mtr_tokens",
            "object": "billing.meter",
            "livemode": False,
            "created": 1,
        }
        wrapped = on_meters(meters={"object": "list", "data": [unnamed], "has_more": False})
        assert read_catalog(wrapped).meters == {"mtr_tokens": Meter("mtr_tokens", "mtr_tokens")}

    def test_a_list_of_prices_alone_needs_no_meters(self):
        """Prices are rated and audited without their meters; only what is billed asks for them."""
        assert (
            read_catalog(on_meters(meters=[], subscriptions=[])).prices["tokens"].recurring.meter
            == "mtr_tokens"
        )

    @pytest.mark.parametrize(
        ("changes", "param", "words"),
        [
            (
                {"meters": [{**METER, "id": "mtr_token"}]},
                "items[0][price][recurring][meter]",
                (
                    "subscriptions[0] ('sub_1'): items[0][price][recurring][meter]: expected "
                    "the id of a meter of this catalog"
                ),
            ),
            (
                {"meters": [{**METER, "id": "mtr_token"}]},
                "items[0][price][recurring][meter]",
                "(mtr_token), received 'mtr_tokens' (str) (did you mean 'mtr_token'?)",
            ),
            (
                {"meters": []},
                "items[0][price][recurring][meter]",
                "a meter of this catalog (it has none), received",
            ),
            (
                {"subscriptions": [SUBSCRIPTION]},
                "customer",
                "subscriptions[0] ('sub_1'): Missing required param: customer",
            ),
            ({"meters": [METER, METER]}, "meters[1][id]", "an id that no other of the meters has"),
            (
                {"meters": [METER, {**METER, "id": "b"}]},
                "meters[1][event_name]",
                "no other meter has ('mtr_tokens' has it)",
            ),
            (
                {"meters": [{**METER, "event_nam": 1}]},
                "event_nam",
                "meters[0] ('mtr_tokens'): Received unknown parameter",
            ),
            ({"meters": [{**METER, "event_nam": 1}]}, "event_nam", "did you mean 'event_name'?"),
            ({"meters": {"data": [], "has_more": True}}, "meters[has_more]", "a complete list"),
            ({"meter": []}, "meter", "Received unknown parameter: meter (did you mean 'meters'?)"),
            ({"meters": [7]}, "data", "meters[0]: data: expected an object"),
        ],
    )
    def test_a_complaint_names_the_place(self, changes, param, words):
        """What a subscription would be billed by must be there, and a slip in a meter is found."""
        error = complaint(on_meters(**changes))
        assert error.param == param
        assert words in error.message


class TestJson:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b'{\n"a": 1,,\n}', "catalog.json, line 2: is not JSON: "),
            (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice in one object"),
            (b'{"a": NaN}', "NaN is not a number of JSON"),
            (b"[" * 100_000, "is not usable JSON: "),
            (b'{\n"a": "\xff"}', "catalog.json, line 2: is not UTF-8"),
            (b"", "is not JSON"),
        ],
    )
    def test_what_is_no_json_is_refused_with_its_place(self, tmp_path, content, words):
        """A file that does not parse, or that would lose a value without a word, is refused."""
        path = tmp_path / "catalog.json"
        path.write_bytes(content)
        error = complaint(path)
        assert words in error.message
        assert error.details["path"] == str(path)

    def test_an_absent_file_is_refused(self, tmp_path):
        """The reason is the system's."""
        assert (
            complaint(tmp_path / "none.json").message
            == f"{tmp_path / 'none.json'}: cannot be read: No such file or directory"
        )

    def test_a_named_stream_is_called_by_its_name(self, tmp_path):
        """An open file complains as its path would."""
        path = tmp_path / "catalog.json"
        path.write_text("{", encoding="utf-8")
        with path.open(encoding="utf-8") as stream:
            assert complaint(stream).message.startswith(f"{path}, line 1: ")

    def test_any_json_is_read(self):
        """The reader itself asks for no shape."""
        assert read_json(io.StringIO("[1]"), "source") == [1]


class TestPrices:
    def write(self, tmp_path, data):
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        return str(path)

    def test_a_file_may_hold_one_price(self, tmp_path):
        """A price of its own needs no catalog around it."""
        assert read_price(self.write(tmp_path, TOKENS)).id == "tokens"

    def test_a_price_of_a_catalog_is_named_after_a_hash(self, tmp_path):
        """Which of a catalog's prices is meant stands after its path."""
        assert read_price(self.write(tmp_path, {"prices": [TOKENS]}) + "#tokens").id == "tokens"

    def test_a_path_may_contain_a_hash(self, tmp_path):
        """A file that exists under the whole name is that file."""
        path = tmp_path / "price#1.json"
        path.write_text(json.dumps(TOKENS), encoding="utf-8")
        assert read_price(str(path)).id == "tokens"

    def test_a_price_is_read_whatever_the_subscriptions_beside_it_say(self, tmp_path):
        """Who asks for a price asks for no moment."""
        old = {**SUBSCRIPTION, "billing_cycle_anchor": 725_846_400}
        assert (
            read_price(
                self.write(tmp_path, {"prices": [TOKENS], "subscriptions": [old]}) + "#tokens"
            ).id
            == "tokens"
        )

    @pytest.mark.parametrize(
        ("data", "ending", "words"),
        [
            ({"prices": [TOKENS]}, "", "expected a price ("),
            ({"prices": [TOKENS]}, "#token", "#tokens), received 'token' (did you mean 'tokens'?)"),
            ({"prices": []}, "#tokens", "but this catalog has none"),
            (
                {**TOKENS, "curency": "usd"},
                "",
                "Received unknown parameter: curency (did you mean 'currency'?)",
            ),
        ],
    )
    def test_a_price_that_is_not_there_is_refused(self, tmp_path, data, ending, words):
        """The complaint lists what the catalog has."""
        with pytest.raises(mc.errors.CatalogError) as caught:
            read_price(self.write(tmp_path, data) + ending)
        assert words in caught.value.message


class TestText:
    @pytest.mark.parametrize(
        "text",
        ["", "now", "2024-01-01", "2024-01-01T00:00:00", "1e9", "1704067200.5", "9" * 30, "٣"],
    )
    def test_what_is_no_instant_is_refused(self, text):
        """A moment without an offset, a fraction, or a year beyond 9999 is no instant."""
        with pytest.raises(mc.InvalidValueError) as caught:
            parse_instant(text, "at")
        assert (caught.value.code, caught.value.param) == (
            mc.ErrorCode.PARAMETER_INVALID_INSTANT,
            "at",
        )

    def test_quantities_are_digits(self):
        """Whole numbers of any size, and decimals where they are not whole."""
        assert parse_quantity(f"{10**40}", "quantity") == 10**40
        assert parse_quantity("0.000000000001", "quantity") == Decimal("0.000000000001")
        assert parse_quantity("5.0", "quantity") == 5

    @pytest.mark.parametrize(
        "text", ["", "-1", "-0.5", "1e3", "1_000", "+1", " 1", "NaN", "0.0000000000001", ".5", "٣"]
    )
    def test_what_is_no_quantity_is_refused(self, text):
        """The complaint shows what was typed."""
        with pytest.raises(mc.InvalidValueError) as caught:
            parse_quantity(text, "quantity")
        assert caught.value.code is mc.ErrorCode.PARAMETER_INVALID_DECIMAL
        assert repr(text) in caught.value.message


def rows_of(content: str, written: str = "csv") -> list[UsageRow | mc.errors.CatalogError]:
    return list(read_usage(io.StringIO(content), written, path="usage"))


def only_complaint(content: str, written: str) -> mc.errors.CatalogError:
    (found,) = rows_of(content, written)
    assert isinstance(found, mc.errors.CatalogError)
    assert found.code is mc.ErrorCode.FILE_UNREADABLE
    return found


HEADER = "subscription_item,quantity,timestamp\n"


class TestSentences:
    """What is wrong with a file is said in the words of JSON and of money."""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"unit_amount": 9.99},
                'received 9.99: a number with a point, write "9.99" as unit_amount_decimal',
            ),
            ({"unit_amount": 9.99}, "amounts are in the currency's minor unit, such as cents"),
            ({"unit_amount": "x"}, '(an integer, or a decimal in quotes), received "x"'),
            ({"unit_amount": True}, "received true"),
            ({"unit_amount": 1, "nickname": {"a": None}}, 'received {"a": null}'),
            ({"unit_amount": 1, "nickname": "x" * 300}, "x..."),
            ({"unit_amount": 1, "nickname": "\x1b[8m" * 100}, "\\u001b[8m"),
            (
                {"tiers": [{"up_to": 5, "unit_amount": 1}]},
                'Tiers go with "billing_scheme": "tiered".',
            ),
            (
                {
                    "billing_scheme": "tiered",
                    "tiers_mode": "volume",
                    "tiers": [{"up_to": "INF", "unit_amount": 1}],
                },
                '(did you mean "inf"?)',
            ),
            (
                {
                    "billing_scheme": "tiered",
                    "tiers_mode": "volume",
                    "tiers": [{"up_to": 2.5, "unit_amount": 1}],
                },
                'received 2.5: a number with a point, write "2.5"',
            ),
        ],
    )
    def test_a_price_in_a_catalog_or_alone_is_refused_in_these_words(
        self, changes, words, tmp_path
    ):
        """No type of Python is named."""
        price = {
            "id": "p",
            "currency": "usd",
            "recurring": {"interval": "month", "usage_type": "metered"},
            **changes,
        }
        (tmp_path / "price.json").write_text(json.dumps(price))
        with pytest.raises(mc.errors.CatalogError) as in_catalog:
            read_catalog(io.StringIO(json.dumps({"prices": [price]})))
        with pytest.raises(mc.errors.CatalogError) as alone:
            read_price(str(tmp_path / "price.json"))
        for refused in (in_catalog.value.message, alone.value.message):
            assert words in refused
            assert not any(
                word in refused for word in ("(str)", "(float)", "(int)", "(dict)", "Fraction")
            )


class TestUsage:
    def test_the_two_formats_say_the_same(self):
        """A row of CSV and a line of JSON with the same values are the same usage."""
        table = (
            "timestamp,id,subscription_item,action,quantity,received_at\n"
            f"{START},a,si_1,set,5,2024-01-01T00:00:01.5Z\n"
            f"2024-01-01T01:00:00+01:00,,si_1,,7,\n"
        )
        lines = (
            f'{{"timestamp": {START}, "id": "a", "subscription_item": "si_1", "action": '
            '"set", "quantity": 5, '
            f'"received_at": "2024-01-01T00:00:01.5Z"}}\n'
            '{"timestamp": "2024-01-01T00:00:00Z", "id": null, "subscription_item": '
            '"si_1", "quantity": 7}\n'
        )
        received = datetime(2024, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
        expected = [
            (mc.UsageRecord("si_1", 5, START, "set", "a"), received),
            (mc.UsageRecord("si_1", 7, START), START),
        ]
        for content, written in ((table, "csv"), (lines, "jsonl")):
            assert [(row.record, row.received_at) for row in rows_of(content, written)] == expected

    def test_lines_are_counted_as_an_editor_does(self):
        """Empty lines are skipped and counted; a row that spans two lines begins at its first."""
        rows = rows_of(f'{HEADER}\nsi_1,5,{START}\n"si\n_2",5,{START}\nsi_1,5,{START}\n')
        assert [row.line for row in rows] == [3, 4, 6]
        line = json.dumps({"subscription_item": "si_1", "quantity": 5, "timestamp": START})
        assert [row.line for row in rows_of(f"\n{line}\n  \r\n{line}", "jsonl")] == [2, 4]

    def test_a_byte_order_mark_is_no_part_of_the_first_column(self):
        """What a spreadsheet exports can be read."""
        assert rows_of(f"\ufeff{HEADER}si_1,5,{START}\n") == rows_of(f"{HEADER}si_1,5,{START}\n")

    def test_an_id_may_be_any_text(self):
        """Letters beyond ASCII are text like any other."""
        (row,) = rows_of(f"{HEADER.strip()},id\nsi_1,5,{START},größe\n")
        assert row.record.id == "größe"

    @pytest.mark.parametrize(
        ("fields", "param", "words"),
        [
            (
                f"si_1,-5,{START}",
                "quantity",
                "quantity: expected an integer of at least 0, received -5 (int)",
            ),
            (f"si_1,1.5,{START}", "quantity", "received '1.5' (str)"),
            (f"si_1,1e3,{START}", "quantity", "received '1e3' (str)"),
            (f"si_1, 5,{START}", "quantity", "received ' 5' (str)"),
            (f"si_1,,{START}", "quantity", "Missing required param: quantity"),
            (f",5,{START}", "subscription_item", "Missing required param: subscription_item"),
            (f"{'x' * 256},5,{START}", "subscription_item", "a string of 1 to 255 characters"),
            ("si_1,5,", "timestamp", "Missing required param: timestamp"),
            ("si_1,5,now", "timestamp", "expected Unix seconds, or ISO 8601 with an offset"),
            ("si_1,5,2024-01-01", "timestamp", "received '2024-01-01' (str)"),
            ("si_1,5,99999999999999", "timestamp", "a moment within the years 1 to 9999"),
            (f"si_1,5,{START},extra", "row", "expected 3 fields as in the header, received 4"),
            ("si_1,5", "row", "expected 3 fields as in the header, received 2"),
            (f'"si"_1,5,{START}', "row", "is not CSV: "),
            (f'"si_1,5,{START}', "row", "is not CSV: unexpected end of data"),
            (f"si\udcff,5,{START}", "row", "is not UTF-8 at column 3"),
        ],
    )
    def test_a_malformed_row_of_csv_is_named_with_its_line(self, fields, param, words):
        """What is wrong with one row is said with its line."""
        found = only_complaint(f"{HEADER}{fields}", "csv")
        assert found.param == param
        assert found.message.startswith("usage, line 2: ")
        assert words in found.message
        assert (found.details["path"], found.details["line"]) == ("usage", 2)

    @pytest.mark.parametrize(
        ("changes", "param", "words"),
        [
            ({"quantity": "5"}, "quantity", "received '5' (str)"),
            ({"quantity": 1.5}, "quantity", "received 1.5 (float)"),
            ({"quantity": True}, "quantity", "received True (bool)"),
            ({"quantity": None}, "quantity", "Missing required param: quantity"),
            ({"timestamp": f"{START}"}, "timestamp", f"received '{START}' (str)"),
            ({"timestamp": 1.5}, "timestamp", "received 1.5 (float)"),
            ({"timestamp": "now"}, "timestamp", "received 'now' (str)"),
            ({"received_at": True}, "received_at", "received True (bool)"),
            ({"received_at": "now"}, "received_at", "received 'now' (str)"),
            ({"action": "decrement"}, "action", "one of 'increment', 'set'"),
            ({"id": ""}, "id", "a string of 1 to 255 characters"),
            ({"subscription_item": 7}, "subscription_item", "received 7 (int)"),
            ({"subscription_itm": "si_1"}, "subscription_itm", "did you mean 'subscription_item'?"),
        ],
    )
    def test_a_malformed_line_of_json_is_named_with_its_number(self, changes, param, words):
        """JSON has numbers, so text is none."""
        line = json.dumps(
            {"subscription_item": "si_1", "quantity": 5, "timestamp": START, **changes}
        )
        found = only_complaint(f"\n{line}\n", "jsonl")
        assert (found.param, found.details["line"]) == (param, 2)
        assert words in found.message

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('{"quantity": 5', "is not JSON: "),
            ('{"quantity": 1e3, "quantity": 5}', "the key 'quantity' occurs twice"),
            (
                '{"subscription_item": "si_1", "quantity": 1e3, "timestamp": 1704067200}',
                "received 1000.0 (float)",
            ),
            ("[" * 100_000, "is not usable JSON"),
            ('{"quantity": Infinity}', "Infinity is not a number of JSON"),
            ("[5]", "row: expected an object"),
            ('{"id": "\udcff"}', "is not UTF-8 at column 9"),
        ],
    )
    def test_a_line_that_is_no_object_is_refused(self, line, words):
        """Reading goes on with the next line."""
        good = json.dumps({"subscription_item": "si_1", "quantity": 5, "timestamp": START})
        found, row = rows_of(f"{line}\n{good}\n", "jsonl")
        assert words in found.message
        assert row.line == 2

    def test_a_malformed_row_does_not_end_the_reading(self):
        """Each row is judged alone, also after one that is not CSV."""
        found = rows_of(f'{HEADER}si_1,5,{START}\n"a"b,5,{START}\nsi_1,x,{START}\nsi_1,6,{START}\n')
        assert [row.record.quantity for row in found if isinstance(row, UsageRow)] == [5, 6]
        assert [
            one.details["line"] for one in found if isinstance(one, mc.errors.CatalogError)
        ] == [3, 4]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                "",
                (
                    "line 1: is empty: expected a header with the columns subscription_item, "
                    "quantity, timestamp, received none"
                ),
            ),
            ("\n\n", "expected a header"),
            ("subscription_item,quantty,timestamp\n", "line 1: expected the columns"),
            (
                "subscription_item,quantty,timestamp\n",
                "received 'quantty' (str) (did you mean 'quantity'?)",
            ),
            (
                "subscription_item,quantity,timestamp,quantity\n",
                "each column once, received 'quantity' 2 times",
            ),
            ("subscription_item,quantity\n", "the column 'timestamp' is missing"),
            ("subscription_item;quantity;timestamp\n", "separated by commas"),
        ],
    )
    def test_a_wrong_header_ends_the_reading(self, content, words):
        """Without knowing the columns no row can be read."""
        with pytest.raises(mc.errors.CatalogError) as caught:
            rows_of(content)
        assert words in caught.value.message

    def test_an_empty_file_of_json_lines_is_no_usage(self):
        """JSON lines have no header that could be missing."""
        assert rows_of("", "jsonl") == []

    def test_bytes_that_are_no_text_end_the_reading_of_a_strict_stream(self):
        """Where the stream itself refuses, the complaint says how far it came."""
        stream = io.TextIOWrapper(io.BytesIO(b"\n" * 3 + b"\xff\n"), encoding="utf-8")
        with pytest.raises(
            mc.errors.CatalogError, match="<stream>: is not UTF-8 somewhere after line "
        ):
            list(read_usage(stream, "jsonl"))

    def test_a_disk_that_fails_is_a_complaint(self):
        """What the system says is passed on with the last line that was read."""

        class Failing(io.StringIO):
            def __iter__(self):
                yield HEADER
                raise OSError(5, "Input/output error")

        with pytest.raises(
            mc.errors.CatalogError, match="cannot be read after line 1: Input/output error"
        ):
            list(read_usage(Failing(), "csv"))

    def test_an_unknown_format_is_refused(self):
        """The refusal names the formats."""
        with pytest.raises(mc.InvalidValueError, match="'csv', 'jsonl'"):
            read_usage(io.StringIO(), "xml")

    def test_the_extension_tells_the_format(self):
        """Upper case is the same extension."""
        assert [UsageFormat.of_path(path) for path in ("a.csv", "b.jsonl", "c.NDJSON")] == [
            "csv",
            "jsonl",
            "jsonl",
        ]
        with pytest.raises(mc.errors.CatalogError, match=r"received '\.txt'"):
            UsageFormat.of_path("usage.txt")
        with pytest.raises(mc.errors.CatalogError, match="Parquet is read as USAGE"):
            UsageFormat.of_path("usage.parquet")


class TestAppending:
    def log(self) -> mc.UsageLog:
        return mc.UsageLog(read_catalog(text()).subscriptions)

    def rows(self, *rows: str):
        return read_usage(
            io.StringIO("subscription_item,quantity,timestamp,id,received_at\n" + "\n".join(rows)),
            "csv",
            path="u",
        )

    def test_history_is_imported_as_it_happened(self):
        """Rows of several months count as received when they happened, and their periods are
        returned in order.
        """
        log = self.log()
        february = START + 31 * 86_400
        periods = append_usage(
            log, self.rows(f"si_1,5,{february},,", f"si_1,7,{START},,", f"si_1,1,{START + 1},,")
        )
        assert [logged.received_at for logged in log.records()] == [
            datetime(2024, 2, 1, tzinfo=UTC),
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC),
        ]
        assert periods == {
            "sub_1": (
                mc.BillingPeriod(START, february),
                mc.BillingPeriod(february, february + 29 * 86_400),
            ),
        }

    def test_a_refused_record_stops_with_its_line(self):
        """The code is the door's, the message begins with the place."""
        with pytest.raises(mc.UsageRejectedError) as caught:
            append_usage(self.log(), self.rows(f"si_1,5,{START},,", f"si_2,5,{START},,"))
        assert caught.value.code is mc.ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
        assert caught.value.message.startswith("u, line 3: No such subscription item")
        assert (caught.value.details["path"], caught.value.details["line"]) == ("u", 3)

    def test_a_malformed_row_stops_too(self):
        """Unless it is told otherwise, nothing is skipped; rows before the complaint are in the
        log.
        """
        log = self.log()
        with pytest.raises(mc.errors.CatalogError, match="u, line 3: "):
            append_usage(
                log, self.rows(f"si_1,5,{START},,", f"si_1,x,{START},,", f"si_1,5,{START},,")
            )
        assert len(log) == 1

    def test_complaints_come_in_the_order_of_lines(self, monkeypatch):
        """Refused and malformed rows are told in the order of the file, whatever the size of a
        chunk.
        """
        rows = (
            f"si_2,5,{START},,",  # line 2: unknown item
            f"si_1,x,{START},,",  # line 3: malformed
            f"si_1,5,{START},a,",
            f"si_1,6,{START},a,",  # line 5: id reused
            # line 6: received before it happened, in the period before
            f"si_1,5,{START},,{START - 1}",
            f"si_1,5,{START},a,{START + 60}",  # a retry is no complaint
            f"si_1,5,{START},,{START + 40 * 86_400}",  # line 8: received in the next period
            f"si_1,8,{START},,",
        )
        for size in (1, 2, 3, 10_000):
            monkeypatch.setattr(appending, "CHUNK_ROWS", size)
            log, told = self.log(), []
            append_usage(log, self.rows(*rows), on_refusal=told.append)
            assert [(one.details["line"], one.code.value) for one in told] == [
                (2, "subscription_item_unknown"),
                (3, "file_unreadable"),
                (5, "id_reused"),
                (6, "timestamp_in_future"),
                (8, "timestamp_before_current_period"),
            ]
            assert [logged.record.quantity for logged in log.records()] == [5, 8]

    def test_refused_usage_has_no_period(self):
        """A period with nothing but refused usage is not billed."""
        found = append_usage(
            self.log(),
            self.rows(f"si_1,5,{START},,{START + 40 * 86_400}"),
            on_refusal=lambda refusal: None,
        )
        assert found == {}

    def test_late_usage_is_found_in_the_period_that_bills_it(self):
        """Late usage of a closed period is reported, and so billed, in the open one; sent again, it
        is reported there too.
        """
        policy = mc.AcceptancePolicy(late_grace=timedelta(days=3), late_attribution="open_period")
        log = mc.UsageLog(self.log().subscriptions, policy=policy)
        subscription, february = log.subscriptions[0], START + 31 * 86_400
        january = subscription.period_at(START)
        log.close_period("sub_1", january, now=february)
        late = f"si_1,5,{START},a,{february + 60}"
        for _ in range(2):
            assert append_usage(log, self.rows(late)) == {
                "sub_1": (subscription.period_at(february),)
            }
        assert log.attributed == {1: february}
        with pytest.raises(TypeError):
            log.attributed[1] = START

    def test_a_long_file_is_appended_in_chunks(self, monkeypatch):
        """No more rows wait at once than a chunk holds."""
        monkeypatch.setattr(appending, "CHUNK_ROWS", 4)
        log, seen = self.log(), []

        def rows():
            for row in self.rows(*(f"si_1,1,{START + second},," for second in range(10))):
                seen.append(len(log))
                yield row

        append_usage(log, rows())
        assert seen == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
        assert len(log) == 10


PAYLOAD = {"stripe_customer_id": "cus_1", "value": "2.5"}
EVENT = {"event_name": "tokens", "timestamp": START, "identifier": "a", "payload": PAYLOAD}
EVENT_HEADER = "event_name,timestamp,identifier,payload[stripe_customer_id],payload[value]\n"


def events_of(content: str, written: str = "csv") -> list[EventRow | mc.errors.CatalogError]:
    return list(read_events(io.StringIO(content), written, path="events"))


def only_complaint_about_events(content: str, written: str) -> mc.errors.CatalogError:
    (found,) = events_of(content, written)
    assert isinstance(found, mc.errors.CatalogError)
    assert found.code is mc.ErrorCode.FILE_UNREADABLE
    return found


def json_lines(*events: dict) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in events)


class TestEvents:
    def test_the_two_formats_say_the_same(self):
        """A payload has a column for each of its keys in CSV, and is an object in JSON."""
        table = (
            "payload[value],timestamp,payload[stripe_customer_id],event_name,received_at,payload[region],identifier\n"
            f"2.5,{START},cus_1,tokens,2024-01-01T00:00:01.5Z,eu,a\n"
            "-1,2024-01-01T01:00:00.25+01:00,cus_1,tokens,,,\n"
            f"1,,cus_1,tokens,{START + 2},,\n"
        )
        lines = json_lines(
            {
                **EVENT,
                "payload": {**PAYLOAD, "region": "eu"},
                "received_at": "2024-01-01T00:00:01.5Z",
            },
            {
                "event_name": "tokens",
                "identifier": None,
                "timestamp": "2024-01-01T00:00:00.25Z",
                "payload": {**PAYLOAD, "value": "-1"},
            },
            {
                "event_name": "tokens",
                "received_at": START + 2,
                "payload": {**PAYLOAD, "value": "1"},
            },
        )
        received = datetime(2024, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
        quarter = datetime(2024, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
        later = datetime(2024, 1, 1, 0, 0, 2, tzinfo=UTC)
        expected = [
            (
                MeterEvent("tokens", {**PAYLOAD, "region": "eu"}, identifier="a", timestamp=START),
                received,
            ),
            (MeterEvent("tokens", {**PAYLOAD, "value": "-1"}, timestamp=quarter), quarter),
            (MeterEvent("tokens", {**PAYLOAD, "value": "1"}, timestamp=START + 2), later),
        ]
        for content, written in ((table, "csv"), (lines, "jsonl")):
            found = [(row.event, row.received_at) for row in events_of(content, written)]
            assert [event for event, _ in found] == [event for event, _ in expected]
            assert [instant(at, "at") for _, at in found] == [at for _, at in expected]

    def test_what_stripe_returns_is_read_as_it_is(self):
        """The fields that Stripe adds to an event are read past."""
        returned = {
            **EVENT,
            "object": "billing.meter_event",
            "created": START + 1,
            "livemode": True,
        }
        (row,) = events_of(json_lines(returned), "jsonl")
        assert row.event == MeterEvent.from_dict(EVENT)

    @pytest.mark.parametrize(
        ("fields", "param", "words"),
        [
            (f",{START},,cus_1,1", "event_name", "Missing required param: event_name"),
            (f"{'x' * 101},{START},,cus_1,1", "event_name", "a string of 1 to 100 characters"),
            (
                f"tokens,{START},{'x' * 101},cus_1,1",
                "identifier",
                "a string of 1 to 100 characters",
            ),
            ("tokens,,,cus_1,1", "timestamp", "Missing required param: timestamp"),
            (
                "tokens,now,,cus_1,1",
                "timestamp",
                "expected Unix seconds, or ISO 8601 with an offset",
            ),
            (f"tokens,{START},,,", "payload", "Missing required param: payload"),
            (f"tokens,{START},,cus_1", "row", "expected 5 fields as in the header, received 4"),
        ],
    )
    def test_a_malformed_row_of_csv_is_named_with_its_line(self, fields, param, words):
        """What is wrong with one row is said with its line; whether its value is a number is the
        meter's to judge.
        """
        found = only_complaint_about_events(f"{EVENT_HEADER}{fields}\n", "csv")
        assert found.param == param
        assert found.message.startswith("events, line 2: ")
        assert words in found.message
        assert (found.details["path"], found.details["line"]) == ("events", 2)

    @pytest.mark.parametrize(
        ("changes", "param", "words"),
        [
            ({"payload": None}, "payload", "Missing required param: payload"),
            ({"payload": {}}, None, None),
            ({"payload": []}, "payload", "a map of strings to strings"),
            ({"payload": {**PAYLOAD, "value": 2.5}}, "payload[value]", "as Stripe sends it"),
            ({"timestamp": f"{START}"}, "timestamp", f"received '{START}' (str)"),
            ({"timestamp": None}, "timestamp", "Missing required param: timestamp"),
            ({"timestamp": 1.5}, "timestamp", "received 1.5 (float)"),
            ({"timestamp": "now"}, "timestamp", "received 'now' (str)"),
            ({"received_at": True}, "received_at", "received True (bool)"),
            ({"identifer": "a"}, "identifer", "did you mean 'identifier'?"),
            (
                {"payload[value]": "1"},
                "payload[value]",
                "Received unknown parameter: payload[value]",
            ),
        ],
    )
    def test_a_malformed_line_of_json_is_named_with_its_number(self, changes, param, words):
        """A line that is no meter event is told; an empty payload is well-formed, and lacks what a
        meter asks for.
        """
        line = json_lines({**EVENT, **changes})
        if param is None:
            assert isinstance(events_of(line, "jsonl")[0], EventRow)
        else:
            found = only_complaint_about_events(f"\n{line}", "jsonl")
            assert (found.param, found.details["line"]) == (param, 2)
            assert words in found.message

    @pytest.mark.parametrize(
        ("header", "words"),
        [
            ("", "expected a header with the columns event_name, timestamp, received none"),
            ("event_name,identifier\n", "the column 'timestamp' is missing"),
            (
                "event_name,timestamp,identifer\n",
                "received 'identifer' (str) (did you mean 'identifier'?)",
            ),
            (
                "event_name,timestamp,value\n",
                "expected the columns event_name, timestamp, identifier, received_at, payload[…]",
            ),
            ("event_name,timestamp,payload[]\n", "received 'payload[]'"),
            ("event_name,timestamp,payload\n", "received 'payload'"),
            (
                "event_name,timestamp,payload[value],payload[value]\n",
                "each column once, received 'payload[value]' 2 times",
            ),
        ],
    )
    def test_a_wrong_header_ends_the_reading(self, header, words):
        """A column that is no part of an event is a slip, not a key of the payload."""
        with pytest.raises(mc.errors.CatalogError) as caught:
            events_of(header)
        assert words in caught.value.message

    def test_columns_of_a_payload_are_none_of_usage(self):
        """Only meter events have a payload."""
        with pytest.raises(mc.errors.CatalogError, match="received 'payload\\[value\\]'"):
            rows_of(f"{HEADER.strip()},payload[value]\n")


class TestAppendingEvents:
    def log(self, **changes) -> MeterLog:
        return meter_log(read_catalog(on_meters(**changes)))

    def rows(self, *events: dict):
        return read_events(
            io.StringIO(json_lines(*({**EVENT, "identifier": None, **event} for event in events))),
            "jsonl",
            path="e",
        )

    def test_history_is_imported_as_it_happened(self):
        """Events of several months count as received when they happened, and their periods are
        returned in order.
        """
        log = self.log()
        february = START + 31 * 86_400
        rows = self.rows(
            {"timestamp": february},
            {},
            {"timestamp": START + 1},
            {"timestamp": START, "received_at": START + 9},
        )
        assert append_events(log, rows) == {
            "sub_1": (
                mc.BillingPeriod(START, february),
                mc.BillingPeriod(february, february + 29 * 86_400),
            ),
        }
        assert [logged.received_at.timestamp() for logged in log.events()] == [
            february,
            START,
            START + 1,
            START + 9,
        ]

    def test_an_event_received_in_the_next_period_lies_in_its_own(self):
        """The period is that of the timestamp, however late the event came within 35 days."""
        rows = self.rows({"timestamp": START + 5, "received_at": START + 34 * 86_400})
        (periods,) = append_events(self.log(), rows).values()
        assert [period.start_seconds for period in periods] == [START]

    def test_events_that_no_item_bills_have_no_period(self):
        """Events of another customer, and those before the subscription began, are accepted and not
        billed.
        """
        log = self.log(subscriptions=[{**CUSTOMERS, "start_date": START}])
        other = {"payload": {**PAYLOAD, "stripe_customer_id": "cus_2"}}
        assert append_events(log, self.rows({"timestamp": START - 1}, other)) == {}
        assert len(log) == 2

    def test_one_event_may_be_billed_by_several_subscriptions(self):
        """One meter, many prices: where they may overlap, each subscription of the customer that is
        on the meter bills it.
        """
        other = {"id": "calls", "event_name": "calls"}
        on_other = {
            **ON_METER,
            "id": "calls",
            "recurring": {**ON_METER["recurring"], "meter": "calls"},
        }
        second = {
            **CUSTOMERS,
            "id": "sub_2",
            "items": [{"id": "si_2", "price": "tokens"}, {"id": "si_3", "price": "calls"}],
        }
        third = {**CUSTOMERS, "id": "sub_3", "items": [{"id": "si_4", "price": "calls"}]}
        catalog = {
            "meters": [METER, other],
            "prices": [ON_METER, on_other],
            "subscriptions": [CUSTOMERS, second, third],
        }
        with pytest.raises(mc.InvalidValueError, match="bills at the same time"):
            self.log(**catalog)
        read = read_catalog(on_meters(**catalog))
        log = meter_log(read, mc.MeterPolicy.history(overlap="each_counts_all"))
        assert list(append_events(log, self.rows({}))) == ["sub_1", "sub_2"]

    def test_the_customer_stands_where_the_meter_says(self):
        """A meter with a customer key of its own finds its periods by it."""
        meter = {**METER, "customer_mapping": {"type": "by_id", "event_payload_key": "account"}}
        rows = self.rows(
            {"payload": {"account": "cus_1", "value": "1", "stripe_customer_id": "cus_9"}}
        )
        assert list(append_events(self.log(meters=[meter]), rows)) == ["sub_1"]

    def test_complaints_come_in_the_order_of_lines(self):
        """Refused and malformed rows are told with their lines; a duplicate is no complaint."""
        rows = (
            {"event_name": "token"},  # line 1: no meter
            {"timestamp": "x"},  # line 2: malformed
            {"identifier": "a"},
            {"identifier": "a"},
            {"identifier": "a", "payload": {**PAYLOAD, "value": "3"}},  # line 5: other content
            {"payload": {**PAYLOAD, "value": "x"}},  # line 6: no number
            {"received_at": START - 301},  # line 7: 5 minutes and a second ahead of its receipt
            {"received_at": START + 36 * 86_400},  # line 8: 36 days behind
            {},
        )
        log, told = self.log(), []
        append_events(log, self.rows(*rows), on_refusal=told.append)
        assert [(one.details["line"], one.code.value) for one in told] == [
            (1, "meter_unknown"),
            (2, "file_unreadable"),
            (5, "identifier_reused"),
            (6, "value_invalid"),
            (7, "timestamp_in_future"),
            (8, "timestamp_too_far_in_past"),
        ]
        assert len(log) == 2

    def test_a_refused_event_stops_with_its_line(self):
        """Unless it is told otherwise, nothing is skipped; events before the complaint are in the
        log.
        """
        log = self.log()
        with pytest.raises(mc.UsageRejectedError) as caught:
            append_events(log, self.rows({}, {"event_name": "token"}, {}))
        assert caught.value.message.startswith("e, line 2: No meter was found matching event_name")
        assert (caught.value.details["path"], caught.value.details["line"]) == ("e", 2)
        assert len(log) == 1

    def test_refused_events_have_no_period(self):
        """A period with nothing but refused events is not billed."""
        rows = self.rows({"payload": {**PAYLOAD, "value": "x"}})
        assert append_events(self.log(), rows, on_refusal=lambda refusal: None) == {}

    def test_a_customer_without_an_item_on_the_meter_is_told_so(self):
        """An event of a known customer that no item of theirs is priced on is kept, and the
        sentence says what is missing.
        """
        pages = {**METER, "id": "mtr_pages", "event_name": "pages"}
        log, told = self.log(meters=[METER, pages]), []
        assert append_events(log, self.rows({"event_name": "pages"}), on_unbilled=told.append) == {}
        assert [one.code.value for one in told] == ["usage_unbilled"]
        assert "expected an item on the meter of 'pages' for its customer" in told[0].message
        assert len(log) == 1

    def test_an_inactive_meter_takes_what_came_before_it_was_deactivated(self):
        """History of a meter that is no longer in use is billed; from its last moment on its events
        are refused.
        """
        deactivated = {
            **METER,
            "status": "inactive",
            "status_transitions": {"deactivated_at": START + 60},
        }
        log, told = self.log(meters=[deactivated]), []
        rows = self.rows(
            {"timestamp": START},
            {"timestamp": START + 59},
            {"timestamp": START, "received_at": START + 60},
            {},
        )
        assert list(append_events(log, rows, on_refusal=told.append)) == ["sub_1"]
        assert [(one.details["line"], one.code.value) for one in told] == [(3, "meter_inactive")]
        assert (len(log), log.meters[0].is_active) == (3, False)


def test_a_moment_that_json_has_no_word_for_is_shown_as_files_have_it():
    """A meter that is active and yet was deactivated is refused by its place and with the moment,
    not with Python's words.
    """
    meter = {**METER, "status": "active", "status_transitions": {"deactivated_at": START}}
    with pytest.raises(
        mc.errors.CatalogError,
        match=r'meters\[0\] \("?.mtr_tokens.\).*received "2024-01-01T00:00:00Z"$',
    ) as caught:
        read_catalog(on_meters(meters=[meter]))
    assert caught.value.code is mc.ErrorCode.FILE_UNREADABLE


def test_a_value_that_is_nested_too_deeply_to_be_written_is_left_to_python():
    """What could just be read may be too deep to be written again: the sentence is the reader's,
    and no RecursionError.
    """
    deep = []
    for _ in range(100_000):
        deep = [deep]
    error = mc.InvalidValueError.expecting(
        mc.ErrorCode.PARAMETER_INVALID_STRING, "product", "a string", deep
    )
    assert in_json(error) == error.message
    assert error.message.startswith("product: expected a string, received ")


@pytest.mark.parametrize(("year", "last"), [(2026, 2036), (9988, 9998), (9989, 9999), (9999, 9999)])
def test_files_may_name_the_ten_years_ahead(year, last):
    """The last plausible second is that of the tenth year after this one, and at most that of the
    calendar's last year.
    """
    until = PlausibleTime.until(datetime(year, 6, 1, tzinfo=UTC))
    assert until.last == datetime(last, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000], ids=["a NUL", "too long"])
def test_a_path_that_no_system_takes_is_unreadable(path):
    """A reference to a price in a file that cannot be, for whatever reason, is refused as one that
    is not there.
    """
    with pytest.raises(mc.errors.CatalogError) as refused:
        read_price(f"{path}#price")
    assert (refused.value.code, refused.value.param) == ("file_unreadable", "reference")


MISTAKEN_MOMENTS = {
    46296: "it looks like a spreadsheet's day number for 2026-10-01",
    1790812: "in the years 2000 to 9999, received 1790812",
    1790812800000: "it looks like milliseconds, divide by 1000 (2026-10-01T00:00:00Z)",
    1790812800.5: "received 1790812800.5",
    "1790812800": "write Unix seconds as a number, without quotes",
    "2026-10-01": "it has no offset, write 2026-10-01T00:00:00Z if it is in UTC",
    "01/10/2026": "write year, month and day with dashes",
}


@pytest.mark.parametrize(
    "key", ["billing_cycle_anchor", "start_date", "ended_at", "cancel_at", "deactivated_at"]
)
@pytest.mark.parametrize(
    ("written", "hint"), MISTAKEN_MOMENTS.items(), ids=map(str, MISTAKEN_MOMENTS)
)
def test_a_catalogs_moments_are_held_to_what_can_be_meant(key, written, hint):
    """A moment of a catalog is judged as one of a file of usage is: a wrong anchor would cut every
    period elsewhere.
    """
    if key == "deactivated_at":
        source = text(
            meters=[{**METER, "status": "inactive", "status_transitions": {key: written}}]
        )
    else:
        source = text(subscriptions=[{**SUBSCRIPTION, key: written}])
    error = complaint(source)
    assert f"{key}" in error.message
    assert hint in error.message


def test_a_catalog_of_long_ago_is_read_where_that_is_said():
    """Moments before 2000 are refused unless the caller takes all."""
    old = {
        **SUBSCRIPTION,
        "billing_cycle_anchor": 725_846_400,
        "start_date": "1993-01-01T00:00:00Z",
    }
    assert "in the years 2000 to 9999" in complaint(text(subscriptions=[old])).message
    (read,) = read_catalog(text(subscriptions=[old]), time=None).subscriptions
    assert (read.billing_cycle_anchor.year, read.start_date.year) == (1993, 1993)


def test_what_cannot_be_shown_looks_like_nothing():
    """A value whose own text raises is no slip of an instant that we could guess."""

    class Silent:
        def __repr__(self):
            raise RuntimeError

    assert likeness(Silent()) == ""
