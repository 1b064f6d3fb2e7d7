"""The command line as its user meets it: what is printed, where, and with which exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from places import GOLDEN_FOLDER

import metering_core
from metering_core import __main__
from metering_core.cli import app as cli
from metering_core.feeds import UsageFormat, read_catalog

PACKAGE = Path(metering_core.__file__).parent
GOLDEN = GOLDEN_FOLDER
DEMO = (str(PACKAGE / "demo" / "catalog.json"), str(PACKAGE / "demo" / "usage.csv"))
START = 1_704_067_200  # 2024-01-01T00:00:00Z
FEBRUARY = START + 31 * 86_400


@pytest.fixture
def run(capsys):
    """Run a command in this process; give its exit status, standard output and standard error."""

    def command(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return command


def refusal(result: tuple[int, str, str], status: int = 2) -> str:
    """Return the one line of a complaint."""
    assert result[0] == status
    assert result[1] == ""
    (line,) = result[2].splitlines()
    assert line.startswith("metering-core: ")
    return line.removeprefix("metering-core: ")


def price(price_id: str = "tokens", currency: str = "usd", **fields) -> dict:
    recurring = {"interval": "month", "usage_type": "metered"}
    return {
        "id": price_id,
        "currency": currency,
        "unit_amount": 3,
        "recurring": recurring,
        **fields,
    }


def subscription(subscription_id: str = "sub_1", price_id: str = "tokens", **fields) -> dict:
    items = [{"id": f"si_{subscription_id}", "price": price_id}]
    return {"id": subscription_id, "billing_cycle_anchor": START, "items": items, **fields}


@pytest.fixture
def files(tmp_path):
    """Write a catalog and a file of usage; give their paths."""

    def write(
        usage: str, *, prices=None, subscriptions=None, name: str = "usage.csv"
    ) -> tuple[str, str]:
        content = {
            "prices": prices or [price()],
            "subscriptions": subscriptions or [subscription()],
        }
        (tmp_path / "catalog.json").write_text(json.dumps(content), encoding="utf-8")
        (tmp_path / name).write_text(usage, encoding="utf-8")
        return str(tmp_path / "catalog.json"), str(tmp_path / name)

    return write


def in_a_process(
    *arguments: str, usage: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a shell does, with the package that this test imported."""
    return subprocess.run(
        [sys.executable, "-m", "metering_core", *arguments],
        input=usage,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
    )


HEADER = "subscription_item,quantity,timestamp\n"


class TestDemo:
    def test_the_bill_is_what_the_rows_come_to_by_hand(self):
        """Count the rows of the demo without the library: a retry counts once, a set replaces what
        its moment had.
        """
        moments: dict[tuple[str, str], int] = {}
        seen = set()
        with Path(DEMO[1]).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            if row["id"] not in seen:
                moment = (row["subscription_item"], row["timestamp"])
                before = 0 if row["action"] == "set" else moments.get(moment, 0)
                moments[moment] = before + int(row["quantity"])
            seen.add(row["id"])
        context, generated = (
            sum(quantity for (item, _), quantity in moments.items() if item == wanted)
            for wanted in ("si_context", "si_generated")
        )
        assert (len(rows), len(seen)) == (368, 367)
        assert (context, generated) == (4_230_600, 366_287)
        exact = (
            1_000_000 * Decimal("0.0003"),  # 300
            (context - 1_000_000) * Decimal("0.00025"),  # 807.65, half up 808
            200_000 * Decimal("0.0015"),  # 300
            (generated - 200_000) * Decimal("0.0012"),  # 199.5444, half up 200
            Decimal(3 * 2000),
        )
        cents = [int(amount.quantize(Decimal(1), ROUND_HALF_UP)) for amount in exact]
        assert cents == [300, 808, 300, 200, 6000]
        invoice = (GOLDEN / "demo_invoice.txt").read_text(encoding="utf-8")
        for amount in ("USD 3.00", "USD 8.08", "USD 2.00", "USD 60.00", f"USD {sum(cents) / 100}"):
            assert amount in invoice

    def test_the_demo_is_a_bill_and_its_reason(self, run):
        """The first thing a newcomer sees is an invoice that says why."""
        status, out, err = run("demo")
        assert (status, err) == (0, "")
        assert out.startswith((GOLDEN / "demo_invoice.txt").read_text(encoding="utf-8"))
        assert (GOLDEN / "demo_explanation.txt").read_text(encoding="utf-8") in out

    def test_the_demo_names_a_command_that_works(self, run):
        """The command that the demo suggests prints the same invoice."""
        command = run("demo")[1].splitlines()[-1].split()
        status, out, _ = run(*command[1:])
        assert status == 0
        assert out.startswith((GOLDEN / "demo_invoice.txt").read_text(encoding="utf-8"))

    def test_the_command_is_the_script_that_was_called(self, run, monkeypatch):
        """So the last line of `make demo` names the script in the virtual environment, which need
        not be on the PATH.
        """
        monkeypatch.setattr("sys.argv", [".venv/bin/metering-core", "demo"])
        assert run("demo")[1].splitlines()[-1].startswith("  .venv/bin/metering-core invoice ")


class TestInvoice:
    def test_tables_are_what_a_person_would_send_on(self, run):
        """The table is the golden one, to the byte."""
        assert run("invoice", *DEMO) == (
            0,
            (GOLDEN / "demo_invoice.txt").read_text(encoding="utf-8"),
            "",
        )

    def test_every_line_can_be_explained(self, run):
        """With --explain each of the five lines is followed by its reasons."""
        out = run("invoice", *DEMO, "--explain")[1]
        assert out.startswith((GOLDEN / "demo_invoice.txt").read_text(encoding="utf-8"))
        assert (GOLDEN / "demo_explanation.txt").read_text(encoding="utf-8") in out
        assert out.count("  Rounding: ") == 5

    def test_json_is_what_the_design_says(self, run, files):
        """Unix seconds, minor units, exact decimals as strings."""
        catalog = files(
            f"{HEADER}si_sub_1,5,{START}\n",
            prices=[price(unit_amount=None, unit_amount_decimal="0.3")],
        )
        status, out, err = run("invoice", *catalog, "--format", "json")
        assert (status, err) == (0, "")
        (found,) = json.loads(out)["invoices"]
        assert (found["subscription"], found["currency"]) == ("sub_1", "usd")
        assert found["period"] == {"start": START, "end": FEBRUARY}
        assert (found["subtotal"], found["total"]) == (2, 2)  # 5 * 0.3 = 1.5 cents, half up
        (line,) = found["lines"]
        assert (
            line["subscription_item"],
            line["price"],
            line["quantity"],
            line["exact"],
            line["amount"],
        ) == (*("si_sub_1", "tokens", 5, "1.5", 2),)

    def test_json_can_hold_the_reasons(self, run):
        """With --explain each line has its explanation, sentence by sentence."""
        lines = json.loads(run("invoice", *DEMO, "--explain", "--format", "json")[1])["invoices"][
            0
        ]["lines"]
        assert (
            lines[1]["explanation"]
            == (GOLDEN / "demo_explanation.txt").read_text(encoding="utf-8").splitlines()
        )

    def test_csv_has_a_row_a_line(self, run):
        """The amounts of the rows sum to the invoice's total."""
        rows = list(csv.DictReader(io.StringIO(run("invoice", *DEMO, "--format", "csv")[1])))
        assert [int(row["amount"]) for row in rows] == [300, 808, 300, 200, 6000]
        assert [row["exact"] for row in rows] == ["300", "807.65", "300", "199.5444", "6000"]
        assert {row["subscription"] for row in rows} == {"sub_acme"}

    def test_each_period_with_usage_is_billed_in_order(self, run, files):
        """Subscriptions come in the catalog's order, their periods in time's; a month without usage
        is not billed.
        """
        catalog = files(
            f"{HEADER}si_a,1,{FEBRUARY}\nsi_b,2,{FEBRUARY + 40 * 86_400}\n"
            f"si_a,3,{FEBRUARY + 40 * 86_400}\nsi_b,4,{START}\n",
            subscriptions=[subscription("b"), subscription("a"), subscription("idle")],
        )
        invoices = json.loads(run("invoice", *catalog, "--format", "json")[1])["invoices"]
        assert [
            (one["subscription"], one["period"]["start"], one["total"]) for one in invoices
        ] == [
            ("b", START, 12),
            ("b", FEBRUARY + 29 * 86_400, 6),
            ("a", FEBRUARY, 3),
            ("a", FEBRUARY + 29 * 86_400, 9),
        ]

    @pytest.mark.parametrize("period", ["2024-01-31T23:59:59Z", str(START)])
    def test_a_period_is_named_by_an_instant_in_it(self, run, files, period):
        """With --period every subscription is billed for that period, also without usage, and for
        no other.
        """
        catalog = files(
            f"{HEADER}si_a,1,{START}\nsi_a,1,{FEBRUARY}\n",
            subscriptions=[subscription("a"), subscription("idle")],
        )
        invoices = json.loads(run("invoice", *catalog, "--format", "json", "--period", period)[1])[
            "invoices"
        ]
        assert [
            (one["subscription"], one["period"]["start"], one["total"]) for one in invoices
        ] == [
            ("a", START, 3),
            ("idle", START, 0),
        ]

    def test_a_period_outside_all_subscriptions_is_said(self, run, files):
        """Nothing is billed, and standard error says why."""
        catalog = files(
            f"{HEADER}si_sub_1,1,{FEBRUARY}\n", subscriptions=[subscription(start_date=FEBRUARY)]
        )
        status, out, err = run("invoice", *catalog, "--format", "json", "--period", str(START))
        assert (status, json.loads(out)) == (1, {"invoices": []})
        assert err == f"metering-core: no subscription has a billing period at {START}\n"

    def test_no_usage_is_said(self, run, files):
        """An empty file is a bill of nothing, which is said and has an exit status."""
        assert run("invoice", *files(HEADER)) == (
            1,
            "",
            f"metering-core: there is no usage to bill: no row in {files(HEADER)[1]}\n",
        )

    @pytest.mark.parametrize(
        ("currency", "unit_amount", "quantity", "shown"),
        [
            ("jpy", "3", 500, "JPY 1,500"),
            ("kwd", "1", 1_500, "KWD 1.500"),
            (
                "usd",
                "0.000000000001",
                10**30,
                "USD 10,000,000,000,000,000.00",
            ),  # 10**30 / 10**12 cents
            ("usd", "100", 10**30, f"USD {10**30:,}.00"),
        ],
    )
    def test_amounts_have_the_decimals_of_their_currency(
        self, run, files, currency, unit_amount, quantity, shown
    ):
        """Yen have none, dinars have three, and no amount is too large to be exact."""
        prices = [price(currency=currency, unit_amount=None, unit_amount_decimal=unit_amount)]
        out = run("invoice", *files(f"{HEADER}si_sub_1,{quantity},{START}\n", prices=prices))[1]
        assert out.splitlines()[-1].endswith(f"  {shown}")

    def test_json_lines_are_known_by_their_extension(self, run, files):
        """The same usage in either format is the same bill."""
        line = json.dumps(
            {"subscription_item": "si_sub_1", "quantity": 5, "timestamp": "2024-01-01T00:00:00Z"}
        )
        bills = [
            run("invoice", *files(f"{HEADER}si_sub_1,5,{START}\n")),
            run("invoice", *files(f"{line}\n", name="usage.jsonl")),
            run("invoice", *files(f"{line}\n", name="usage.txt"), "--usage-format", "jsonl"),
        ]
        assert bills[0][0] == 0
        assert bills[0] == bills[1] == bills[2]


class TestComplaintsAboutUsage:
    def test_the_first_bad_row_stops_with_its_line(self, run, files):
        """Exit status 1, one line, nothing billed."""
        usage = (
            HEADER
            + "".join(f"si_sub_1,1,{START + second}\n" for second in range(5))
            + f"si_sub_1,-2,{START}\n"
        )
        catalog, path = files(usage)
        said = refusal(run("invoice", catalog, path), 1)
        assert (
            said
            == f"{path}, line 7: quantity: expected an integer of at least 0, received -2 (int)"
        )

    def test_a_refused_record_stops_with_its_line(self, run, files):
        """What the door refuses is said with the line too."""
        catalog, path = files(f"{HEADER}si_sub_1,1,{START}\nsi_2,1,{START}\n")
        assert refusal(run("invoice", catalog, path), 1).startswith(
            f"{path}, line 3: No such subscription item"
        )

    def test_bad_rows_can_be_skipped_and_are_counted(self, run, files):
        """The rest is billed; each complaint and the count go to standard error, and the exit
        status says that some is not.
        """
        catalog, path = files(
            f"{HEADER}si_sub_1,1,{START}\nsi_2,1,{START}\nsi_sub_1,x,{START}\nsi_sub_1,4,{START}\n"
        )
        status, out, err = run("invoice", catalog, path, "--on-error", "skip")
        assert status == 1
        assert out.splitlines()[-1].endswith("USD 0.15")
        first, second, count = err.splitlines()
        assert first.startswith(f"metering-core: {path}, line 3: ")
        assert second.startswith(f"metering-core: {path}, line 4: ")
        assert count == f"metering-core: {path}: 2 rows skipped, 2 accepted"

    def test_one_skipped_row_is_a_row(self, run, files):
        """The count is grammatical."""
        catalog, path = files(f"{HEADER}si_sub_1,x,{START}\n")
        assert "1 row skipped, 0 accepted" in run("invoice", catalog, path, "--on-error", "skip")[2]

    def test_bytes_that_are_no_text_have_a_line(self, run, files):
        """A file in another encoding is refused where it stops being UTF-8."""
        catalog, path = files("")
        Path(path).write_bytes(
            HEADER.encode() + f"si_sub_1,1,{START}\nsi_\xe4,1,{START}\n".encode("latin-1")
        )
        assert (
            refusal(run("invoice", catalog, path), 1) == f"{path}, line 3: is not UTF-8 at column 4"
        )


class TestComplaintsAboutArguments:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("nonsense",), 'Unknown command "nonsense"'),
            (("invoice",), "CATALOG requires an argument"),
            (("invoice", DEMO[0]), "USAGE requires an argument"),
            (
                ("invoice", "none.json", DEMO[1]),
                "none.json: cannot be read: No such file or directory",
            ),
            (
                ("invoice", DEMO[0], "none.csv"),
                "none.csv: cannot be read: No such file or directory",
            ),
            (
                ("invoice", DEMO[0], "usage.txt"),
                "expected the extension .csv, .jsonl or .ndjson, received '.txt'",
            ),
            (("invoice", *DEMO, "--format", "xml"), 'Invalid value "xml" for --format'),
            (("invoice", *DEMO, "--colour"), "Unknown option: --colour"),
            (
                ("invoice", *DEMO, "--explain", "--format", "csv"),
                "--explain: expected --format table or json",
            ),
            (
                ("invoice", *DEMO, "--period", "2024-10-05"),
                "--period: expected Unix seconds, or ISO 8601 with an offset",
            ),
            (("invoice", DEMO[1], DEMO[1]), "line 1: is not JSON"),
            (("rate", f"{DEMO[0]}#price_seat"), "at least one QUANTITY"),
            (("rate", f"{DEMO[0]}#price_seat", "-5"), "received '-5'"),
            (("rate", f"{DEMO[0]}#price_seats", "5"), "did you mean 'price_seat'?"),
            (("check",), "at least one FILE"),
            (("periods", "2024-01-31", "month"), "ANCHOR: expected Unix seconds, or ISO 8601"),
            (
                ("periods", "0", "fortnight"),
                "INTERVAL: expected one of 'day', 'week', 'month', 'year'",
            ),
            (("periods", "0", "day", "--count", "1096"), "--count: expected at most 1095"),
            (("periods", "0", "day", "--count", "x"), "--count: expected an integer, received 'x'"),
            (
                ("periods", "0", "day", "--number", "0"),
                "--number: expected an integer of at least 1",
            ),
            (
                ("periods", "0", "day", "--timezone", "Mars/Base"),
                "--timezone: expected an IANA time zone name",
            ),
        ],
    )
    def test_what_cannot_be_used_is_one_line_and_status_2(self, run, arguments, words):
        """No traceback, no box: one line that a script can log."""
        assert words in refusal(run(*arguments))

    def test_a_slip_in_a_price_is_found(self, run, files):
        """A misspelt key is not passed over, and the right one is suggested."""
        said = refusal(run("invoice", *files(HEADER, prices=[price(unit_ammount=5)])))
        assert (
            "prices[0] ('tokens'): Received unknown parameter: unit_ammount (did you mean "
            "'unit_amount'?)" in said
        )

    def test_a_wrong_column_is_found(self, run, files):
        """Without the columns nothing can be read, so even --on-error skip does not go on."""
        catalog = files("subscription_item,quantty,timestamp\n")
        assert "line 1: expected the columns" in refusal(
            run("invoice", *catalog, "--on-error", "skip")
        )


class TestRate:
    def test_each_tier_is_a_row_of_the_table(self, run):
        """1,000,001 tokens are a million at 0.0003 cents and one at 0.00025."""
        status, out, err = run("rate", f"{DEMO[0]}#price_context_tokens", "1000001")
        assert (status, err) == (0, "")
        header, _, first, second, _, total = out.splitlines()
        assert header.split() == ["Description", "Quantity", "Exactly", "Amount"]
        assert first.endswith("1,000,000       USD 3.00  USD 3.00")
        assert second.endswith("1  USD 0.0000025  USD 0.00")
        assert total.split() == ["Total", "1,000,001", "USD", "3.0000025", "USD", "3.00"]

    def test_several_quantities_are_several_tables(self, run):
        """Zero is rated too; so are decimals."""
        out = run("rate", f"{DEMO[0]}#price_seat", "0", "2.5")[1]
        assert [line.split()[-1] for line in out.splitlines() if line.startswith("Total")] == [
            "0.00",
            "50.00",
        ]
        assert out.count("\n\n") == 1

    def test_json_is_in_minor_units(self, run):
        """Exact decimals are strings, settled amounts integers."""
        (rating,) = json.loads(run("rate", f"{DEMO[0]}#price_context_tokens", "3000", "--json")[1])[
            "ratings"
        ]
        assert (rating["price"], rating["currency"], rating["quantity"]) == (
            "price_context_tokens",
            "usd",
            3000,
        )
        assert (rating["exact"], rating["total"]) == ("0.9", 1)  # 3000 * 0.0003 cents
        (line,) = rating["lines"]
        assert (line["tier"], line["unit_amount"], line["exact"], line["amount"]) == (
            1,
            "0.0003",
            "0.9",
            1,
        )

    def test_a_file_may_hold_the_price_alone(self, run, tmp_path):
        """A price saved from Stripe is rated as it is."""
        (tmp_path / "price.json").write_text(json.dumps(price(currency="jpy")), encoding="utf-8")
        assert run("rate", str(tmp_path / "price.json"), "5")[1].splitlines()[-1].split()[-2:] == [
            "JPY",
            "15",
        ]


METER = {"id": "mtr_tokens", "event_name": "tokens", "dimension_payload_keys": ["model"]}
METERED = {"interval": "month", "usage_type": "metered"}
MIGRATION = {
    "meters": [METER],
    "prices": [
        price(
            "tokens",
            nickname="Tokens",
            unit_amount=None,
            unit_amount_decimal="0.5",
            recurring={**METERED, "meter": "mtr_tokens"},
        ),
        price("calls", nickname="Calls", unit_amount=2),
    ],
    "subscriptions": [
        {
            "id": "new",
            "customer": "cus_1",
            "billing_cycle_anchor": START,
            "items": [{"id": "si_new", "price": "tokens"}],
        },
        {
            "id": "both",
            "customer": "cus_2",
            "billing_cycle_anchor": START + 14 * 86_400,
            "items": [
                {"id": "si_both_tokens", "price": "tokens"},
                {"id": "si_both_calls", "price": "calls"},
            ],
        },
        {"id": "old", "billing_cycle_anchor": START, "items": [{"id": "si_old", "price": "calls"}]},
    ],
}
CALLS = f"{HEADER}si_both_calls,3,2024-01-20T00:00:00Z\nsi_old,4,2024-01-20T00:00:00Z\n"
EVENT_HEADER = (
    "event_name,timestamp,identifier,payload[stripe_customer_id],payload[value],payload[model]\n"
)
TOKENS = (
    f"{EVENT_HEADER}tokens,2024-01-05T12:00:00Z,a,cus_1,1000.5,small\n"
    f"tokens,2024-01-05T12:00:00Z,a,cus_1,1000.5,small\n"  # a retry
    f"tokens,{FEBRUARY},,cus_1,100,large\n"
    f"tokens,{FEBRUARY},,cus_2,7,large\n"
)
NOBODYS = f"tokens,{FEBRUARY},,cus_9,5000,large\n"
"""An event of nobody's customer."""


def as_json_lines(table: str) -> str:
    """Write a table of meter events as JSON lines."""
    lines = []
    for row in csv.DictReader(io.StringIO(table)):
        payload = {key[8:-1]: value for key, value in row.items() if key.startswith("payload[")}
        at = int(row["timestamp"]) if row["timestamp"].isdigit() else row["timestamp"]
        event = {
            "event_name": row["event_name"],
            "timestamp": at,
            "identifier": row["identifier"] or None,
            "payload": payload,
        }
        lines.append(json.dumps(event) + "\n")
    return "".join(lines)


@pytest.fixture
def meters(tmp_path):
    """Write a catalog with meters, and files by their names; give their paths."""

    def write(catalog=MIGRATION, **contents: str) -> list[str]:
        paths = [
            tmp_path / "catalog.json",
            *(tmp_path / name.replace("_", ".") for name in contents),
        ]
        for path, content in zip(paths, [json.dumps(catalog), *contents.values()], strict=True):
            path.write_text(content, encoding="utf-8")
        return [str(path) for path in paths]

    return write


def totals(result: tuple[int, str, str]) -> list[tuple[str, int, int]]:
    assert (result[0], result[2]) == (0, "")
    return [
        (one["subscription"], one["period"]["start"], one["total"])
        for one in json.loads(result[1])["invoices"]
    ]


class TestMeters:
    def test_both_generations_of_usage_make_one_bill(self, run, meters):
        """The golden table: 1000.5 × 0.5 = 500.25 cents, 100 × 0.5 = 50, 7 × 0.5 = 3.5 and 3 × 2 =
        6, 4 × 2 = 8.
        """
        catalog, usage, events = meters(usage_csv=CALLS, events_csv=TOKENS)
        golden = (GOLDEN / "meter_invoice.txt").read_text(encoding="utf-8")
        assert run("invoice", catalog, usage, "--events", events) == (0, golden, "")
        assert totals(run("invoice", catalog, usage, "--events", events, "--format", "json")) == [
            ("new", START, 500),
            ("new", FEBRUARY, 50),
            ("both", START + 14 * 86_400, 10),  # 3.5, half up, and 6
            ("old", START, 8),
        ]

    @pytest.mark.parametrize("engine", ["memory", "columnar", "duckdb"])
    def test_every_engine_of_records_goes_with_events(self, run, meters, engine):
        """What judges the usage records does not change the bill."""
        pytest.importorskip({"memory": "json", "columnar": "numpy", "duckdb": "duckdb"}[engine])
        catalog, usage, events = meters(usage_csv=CALLS, events_csv=TOKENS)
        status, out, err = run("invoice", catalog, usage, "--events", events, "--engine", engine)
        assert (status, err) == (0, f"metering-core: engine {engine}: as asked\n")
        assert out == (GOLDEN / "meter_invoice.txt").read_text(encoding="utf-8")

    def test_events_alone_need_no_usage(self, run, meters):
        """Who has moved to meters altogether has no usage records; the format is told by the
        extension.
        """
        alone = {**MIGRATION, "subscriptions": MIGRATION["subscriptions"][:1]}
        tokens = TOKENS.replace(f"tokens,{FEBRUARY},,cus_2,7,large\n", "")
        catalog, table, lines = meters(alone, events_csv=tokens, events_jsonl=as_json_lines(tokens))
        for events in (table, lines):
            result = run("invoice", catalog, "--events", events, "--format", "json")
            assert totals(result) == [("new", START, 500), ("new", FEBRUARY, 50)]

    def test_events_are_read_from_standard_input(self, meters):
        """A dash is standard input, for CSV and for JSON lines, beside a file of usage."""
        catalog, usage = meters(usage_csv=CALLS)
        for events in (TOKENS, as_json_lines(TOKENS)):
            result = in_a_process("invoice", catalog, usage, "--events", "-", usage=events.encode())
            assert (result.returncode, result.stderr) == (0, b"")
            assert result.stdout == (GOLDEN / "meter_invoice.txt").read_bytes()

    def test_a_period_that_is_named_is_billed_also_without_events(self, run, meters):
        """With --period an item on a meter is billed for nothing, as one of usage records is."""
        catalog, usage, events = meters(usage_csv=HEADER, events_csv=EVENT_HEADER)
        result = run(
            "invoice",
            catalog,
            usage,
            "--events",
            events,
            "--format",
            "json",
            "--period",
            f"{FEBRUARY}",
        )
        assert totals(result) == [
            ("new", FEBRUARY, 0),
            ("both", START + 14 * 86_400, 0),
            ("old", FEBRUARY, 0),
        ]

    def test_more_corrections_than_usage_are_billed_as_nothing(self, run, meters):
        """The line's quantity is 0; what was measured stays visible."""
        catalog, usage, events = meters(
            usage_csv=HEADER, events_csv=f"{EVENT_HEADER}tokens,{START},,cus_1,-2.5,small\n"
        )
        (found,) = json.loads(
            run("invoice", catalog, usage, "--events", events, "--format", "json")[1]
        )["invoices"]
        (line,) = found["lines"]
        assert (line["quantity"], line["total_usage"], line["aggregate_usage"], found["total"]) == (
            0,
            "-2.5",
            "formula:sum",
            0,
        )

    def test_lines_of_both_can_be_explained(self, run, meters):
        """The line of a meter names its formula, and that of records still lists them."""
        catalog, usage, events = meters(usage_csv=CALLS, events_csv=TOKENS)
        out = run("invoice", catalog, usage, "--events", events, "--explain")[1]
        assert (
            "Quantity: the sum of the meter events for item si_new in 2024-01-01T00:00:00Z to "
            in out
        )
        assert "Records: 1 of item si_both_calls, folded into 1 cells." in out

    def test_a_refused_event_stops_with_its_line(self, run, meters):
        """Exit status 1, one line, nothing billed."""
        catalog, events = meters(events_csv=f"{TOKENS}token,{START},,cus_1,1,small\n")
        said = refusal(run("invoice", catalog, "--events", events), 1)
        assert said.startswith(f"{events}, line 6: No meter was found matching event_name 'token'")

    def test_bad_events_can_be_skipped_and_are_counted(self, run, meters):
        """The rest is billed; each complaint and the count go to standard error, of each file its
        own.
        """
        bad = f"{TOKENS}tokens,{START},,cus_1,x,small\ntokens,{START},a,cus_1,1,small\n"
        catalog, usage, events = meters(usage_csv=f"{CALLS}si_old,x,{START}\n", events_csv=bad)
        status, out, err = run("invoice", catalog, usage, "--events", events, "--on-error", "skip")
        assert (status, out) == (1, (GOLDEN / "meter_invoice.txt").read_text(encoding="utf-8"))
        first, skipped, *others, count = err.splitlines()
        assert first.startswith(f"metering-core: {usage}, line 4: quantity")
        assert skipped == f"metering-core: {usage}: 1 row skipped, 2 accepted"
        assert [one.split(": ")[1] for one in others] == [f"{events}, line 6", f"{events}, line 7"]
        assert count == f"metering-core: {events}: 2 rows skipped, 3 accepted, 1 duplicate"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ("USAGE",),
                (
                    "--events: expected a file of meter events, which the item "
                    "'si_both_tokens' bills, received none"
                ),
            ),
            (
                ("--events", "EVENTS"),
                "USAGE: expected a file of usage records, which the item 'si_both_calls' bills",
            ),
            ((), "USAGE requires an argument where --events has none"),
            (("USAGE", "--events", "USAGE"), "--events: expected another file than that of USAGE"),
            (("-", "--events", "-"), "--events: expected another file than that of USAGE"),
            (
                ("--events", "EVENTS", "--engine", "memory"),
                "--engine: expected it with a file USAGE",
            ),
            (
                ("--events", "EVENTS", "--usage-format", "csv"),
                "--usage-format: expected it with a file USAGE",
            ),
            (
                ("USAGE", "--events", "events.txt"),
                "expected the extension .csv, .jsonl or .ndjson, received '.txt'",
            ),
            (
                ("USAGE", "--events", "none.csv"),
                "none.csv: cannot be read: No such file or directory",
            ),
        ],
    )
    def test_files_that_do_not_go_together_are_refused(self, run, meters, arguments, words):
        """Nothing is billed as unused because its file was forgotten."""
        catalog, usage, events = meters(usage_csv=CALLS, events_csv=TOKENS)
        known = {"USAGE": usage, "EVENTS": events}
        assert words in refusal(
            run("invoice", catalog, *(known.get(one, one) for one in arguments))
        )


RANGE = ("--from", "2024-01-05T00:00:00Z", "--to", "2024-02-02T00:00:00Z")
ASKED = ("--meter", "mtr_tokens", "--customer", "cus_1", *RANGE)


class TestSummaries:
    def test_weeks_of_a_zone_are_rows_with_the_whole_below(self, run, meters):
        """The golden table: five weeks from Mondays in Berlin, cut at the ends; 1000.5 and 100 are
        1100.5.
        """
        catalog, events = meters(events_csv=TOKENS)
        asked = ("--events", events, *ASKED, "--by", "week", "--timezone", "Europe/Berlin")
        golden = (GOLDEN / "meter_summaries.txt").read_text(encoding="utf-8")
        assert run("summaries", catalog, *asked) == (0, golden, "")

    def test_a_range_that_is_not_cut_is_one_row(self, run, meters):
        """Without --by there is nothing to put below."""
        catalog, events = meters(events_csv=TOKENS)
        header, _, row = run("summaries", catalog, "--events", events, *ASKED)[1].splitlines()
        assert header.split() == ["From", "To", "Events", "Value"]
        assert row.split() == ["2024-01-05T00:00:00Z", "2024-02-02T00:00:00Z", "2", "1100.5"]

    def test_json_has_stripes_summaries(self, run, meters):
        """Unix seconds and exact decimals as strings; empty buckets are there."""
        catalog, events = meters(events_csv=TOKENS)
        status, out, err = run(
            "summaries", catalog, "--events", events, *ASKED, "--by", "month", "--json"
        )
        assert (status, err) == (0, "")
        found = json.loads(out)
        assert (found["summary"]["aggregated_value"], found["summary"]["object"]) == (
            "1100.5",
            "billing.meter_event_summary",
        )
        assert [
            (one["start_time"], one["end_time"], one["aggregated_value"])
            for one in found["summaries"]
        ] == [
            (START + 4 * 86_400, FEBRUARY, "1000.5"),
            (FEBRUARY, FEBRUARY + 86_400, 100),
        ]

    def test_averages_are_exact(self, run, meters):
        """A third is written as one."""
        meter = {**METER, "default_aggregation": {"formula": "average"}}
        rows = "".join(f"tokens,{START},,cus_1,{value},small\n" for value in (1, 0, 0))
        catalog, events = meters({"meters": [meter]}, events_csv=EVENT_HEADER + rows)
        asked = (
            "--meter",
            "mtr_tokens",
            "--customer",
            "cus_1",
            "--from",
            f"{START}",
            "--to",
            f"{FEBRUARY}",
        )
        assert run("summaries", catalog, "--events", events, *asked)[1].splitlines()[-1].split()[
            -2:
        ] == ["3", "1/3"]

    def test_bad_events_stop_or_are_skipped(self, run, meters):
        """As in a bill: status 1 with the line, or the count."""
        catalog, events = meters(events_csv=f"{TOKENS}token,{START},,cus_1,1,small\n")
        assert refusal(run("summaries", catalog, "--events", events, *ASKED), 1).startswith(
            f"{events}, line 6: "
        )
        status, out, err = run(
            "summaries", catalog, "--events", events, *ASKED, "--on-error", "skip"
        )
        assert (status, out.split()[-1]) == (1, "1100.5")
        assert (
            err.splitlines()[-1]
            == f"metering-core: {events}: 1 row skipped, 3 accepted, 1 duplicate"
        )

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"--meter": "tokens"},
                "--meter: expected the id of a meter in the log (mtr_tokens), received 'tokens'",
            ),
            ({"--from": "2024-01-05"}, "--from: expected Unix seconds, or ISO 8601 with an offset"),
            ({"--to": "2000-01-01T00:00:00Z"}, "--to: expected a moment after 20"),
            ({"--timezone": "Mars/Base"}, "--timezone: expected an IANA time zone name"),
            ({"--by": "year"}, 'Invalid value "year" for --by'),
        ],
    )
    def test_what_cannot_be_asked_is_one_line_and_status_2(self, run, meters, changes, words):
        """No traceback: one line that says what was expected."""
        catalog, events = meters(events_csv=TOKENS)
        asked = {**dict(zip(ASKED[::2], ASKED[1::2], strict=True)), "--events": events, **changes}
        assert words in refusal(
            run("summaries", catalog, *(part for pair in asked.items() for part in pair))
        )


CASE = {
    "id": "five",
    "kind": "rating",
    "price": {"currency": "usd", "unit_amount": 3},
    "quantity": 5,
}


class TestCheck:
    def write(self, tmp_path, *cases, name="cases.json") -> str:
        (tmp_path / name).write_text(json.dumps({"cases": cases}), encoding="utf-8")
        return str(tmp_path / name)

    def test_cases_that_agree_are_counted(self, run, tmp_path):
        """Exit status 0 and one line."""
        path = self.write(tmp_path, {**CASE, "expected": {"total": 15}})
        assert run("check", path) == (0, "1 case in 1 file: 1 agrees, 0 differ\n", "")

    def test_a_case_that_differs_is_printed(self, run, tmp_path):
        """Exit status 1; the file, the case and what differs."""
        good = {**CASE, "expected": {"total": 15}}
        bad = {**CASE, "id": "six", "expected": {"total": 18}}
        first, second = (
            self.write(tmp_path, good, bad),
            self.write(tmp_path, good, name="more.json"),
        )
        status, out, err = run("check", first, second)
        assert (status, err) == (1, "")
        assert out.splitlines() == [
            f"{first}: six (rating)",
            "  total: expected 18, received 15",
            "3 cases in 2 files: 2 agree, 1 differs",
        ]

    def test_an_unreadable_file_does_not_hide_the_others(self, run, tmp_path):
        """Exit status 2, a line for each unreadable file, and what the other files came to."""
        slip = self.write(tmp_path, {**CASE, "expcted": {}}, name="slip.json")
        bad = self.write(tmp_path, {**CASE, "expected": {"total": 18}})
        status, out, err = run("check", "none.json", slip, bad)
        assert status == 2
        first, second = err.splitlines()
        assert first.startswith("metering-core: none.json: ")
        assert second.startswith(
            f"metering-core: {slip}: case 'five': Received unknown parameter: expcted"
        )
        assert out.splitlines()[-1] == "1 case in 1 file: 0 agree, 1 differs"

    def test_one_kind_can_be_chosen(self, run, tmp_path):
        """Cases of other kinds are not counted; a kind that is none is refused."""
        path = self.write(tmp_path, {**CASE, "expected": {"total": 18}})
        assert run("check", path, "--kind", "period")[:2] == (
            0,
            "0 cases in 1 file: 0 agree, 0 differ\n",
        )
        assert "kind: expected one of" in refusal(run("check", path, "--kind", "none"))

    def test_json_has_every_case(self, run, tmp_path):
        """A program reads what a person would."""
        path = self.write(tmp_path, {**CASE, "expected": {"total": 18}})
        status, out, _ = run("check", path, "--json")
        assert status == 1
        case = {"id": "five", "kind": "rating", "differences": ["total: expected 18, received 15"]}
        assert json.loads(out) == {"files": [{"path": path, "cases": [case]}]}


class TestPeriods:
    def test_boundaries_come_back_to_the_31st(self, run):
        """February is clamped, March is not."""
        assert run("periods", "2024-01-31T00:00:00Z", "month", "--number", "2")[1].splitlines() == [
            "2024-01-31T00:00:00Z 2024-02-29T00:00:00Z",
            "2024-02-29T00:00:00Z 2024-03-31T00:00:00Z",
        ]

    def test_a_zone_keeps_its_wall_clock(self, run):
        """Berlin puts its clocks forward on the last Sunday of March."""
        arguments = (
            "2024-02-29T23:00:00Z",
            "month",
            "--timezone",
            "Europe/Berlin",
            "--number",
            "2",
        )
        assert run("periods", *arguments)[1].splitlines() == [
            "2024-03-01T00:00:00+01:00 2024-04-01T00:00:00+02:00",
            "2024-04-01T00:00:00+02:00 2024-05-01T00:00:00+02:00",
        ]

    def test_printing_may_begin_anywhere(self, run):
        """--at names the period by an instant in it; --count makes periods longer; instants may lie
        before 1970.
        """
        assert run("periods", "0", "week", "--count", "2", "--at", "-1", "--number", "1")[1] == (
            "1969-12-18T00:00:00Z 1970-01-01T00:00:00Z\n"
        )

    def test_a_year_of_months_is_printed_unless_told_otherwise(self, run):
        """Twelve periods suffice for a look."""
        assert len(run("periods", "-86400", "month")[1].splitlines()) == 12


class TestTheProgram:
    def test_the_bytes_are_the_same_everywhere(self):
        """Locale, hash seed and time zone of the machine change nothing."""
        outputs = {
            in_a_process("invoice", *DEMO, "--explain", "--format", "json", **environment).stdout
            for environment in (
                {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
                {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "PYTHONIOENCODING": "latin-1"},
            )
        }
        (output,) = outputs
        assert output.endswith(b"}\n")
        assert "×".encode() in output

    def test_usage_is_read_from_standard_input(self):
        """A dash is standard input, for CSV and for JSON lines."""
        usage = Path(DEMO[1]).read_bytes()
        for told in ((), ("--usage-format", "csv")):
            result = in_a_process("invoice", DEMO[0], "-", *told, usage=b"\xef\xbb\xbf" + usage)
            assert (result.returncode, result.stderr) == (0, b"")
            assert result.stdout == (GOLDEN / "demo_invoice.txt").read_bytes()
        line = (
            b'\n{"subscription_item": "si_context", "quantity": 1000000, "timestamp": 1727740800}\n'
        )
        assert b"USD 3.00" in in_a_process("invoice", DEMO[0], "-", usage=line).stdout
        wrong = in_a_process("invoice", DEMO[0], "-", "--usage-format", "jsonl", usage=usage)
        assert wrong.returncode == 1
        assert wrong.stderr.startswith(b"metering-core: <standard input>, line 1: is not JSON")

    def test_a_pipe_that_is_closed_early_is_told(self):
        """Who reads only the first lines, as `head` does, has not seen all: one line says so, and
        status 3.
        """
        with subprocess.Popen(
            [sys.executable, "-m", "metering_core", "periods", "0", "day", "--number", "100000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        ) as process:
            process.stdout.readline()
            process.stdout.close()
            assert (
                process.stderr.read()
                == b"metering-core: standard output: cannot be written: Broken pipe\n"
            )
            assert process.wait() == 3

    def test_without_the_extra_it_says_what_to_install(self, monkeypatch, capsys):
        """A bare install has no command line, and says so with status 2."""
        monkeypatch.setitem(sys.modules, "cyclopts", None)
        assert __main__.main() == 2
        assert capsys.readouterr() == (
            "",
            (
                "metering-core: the command line needs the extra 'cli': pip install "
                "'metering-core[cli]'\n"
            ),
        )

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"],
            ["invoice", "--help"],
            ["rate", "--help"],
            ["check", "--help"],
            ["summaries", "--help"],
            ["--version"],
        ],
    )
    def test_help_and_version_are_status_0(self, monkeypatch, capsys, arguments):
        """Both go to standard output; the help says what the exit statuses mean."""
        monkeypatch.setattr(sys, "argv", ["metering-core", *arguments])
        assert __main__.main() == 0
        out, err = capsys.readouterr()
        assert out.startswith(("Usage: metering-core", "metering-core"))
        assert err == ""
        assert "Exit status" in out or arguments not in (["--help"], ["check", "--help"])

    def test_a_long_file_shows_its_progress_where_someone_looks(
        self, run, files, monkeypatch, capsys
    ):
        """The bar is on standard error of a terminal, and the invoice is the same."""
        catalog, path = files(
            HEADER + "".join(f"si_sub_1,1,{START + second}\n" for second in range(100))
        )
        plain = run("invoice", catalog, path)
        assert plain[2] == ""
        monkeypatch.setattr("metering_core.cli.files.LONG_FILE_BYTES", 1)
        assert run("invoice", catalog, path) == plain  # No terminal, no bar.
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        status, out, err = run("invoice", catalog, path)
        assert (status, out) == plain[:2]
        assert "Reading" in err

    def test_the_demo_files_are_a_valid_catalog(self):
        """What is shipped can be read by the library alone."""
        assert [one.id for one in read_catalog(DEMO[0]).subscriptions] == ["sub_acme"]
        assert UsageFormat.of_path(DEMO[1]) == "csv"
