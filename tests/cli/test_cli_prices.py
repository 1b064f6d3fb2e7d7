"""The commands `audit`, `compare` and `curve` as their user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from metering_core import (
    Meter,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    finalize_invoice,
)
from metering_core.tariffs.auditing import audit
from metering_core.tariffs.comparing import compare

cli = pytest.importorskip("metering_core.cli.app", exc_type=ImportError)

START = 1_704_067_200  # 2024-01-01T00:00:00Z
DAY = 86_400

TIERS = [Tier(10, unit_amount=900), Tier("inf", unit_amount=800)]
OLD = Price.volume("old", currency="usd", tiers=TIERS)
NEW = Price.graduated("new", currency="usd", tiers=TIERS)
METERED = [attrs.evolve(price, recurring=Recurring(meter="m")) for price in (OLD, NEW)]
PLAIN = Price.per_unit("plain", currency="usd", unit_amount=100)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command in a folder of prices; give its exit status, standard output and standard
    error.
    """
    monkeypatch.chdir(tmp_path)
    subscription = Subscription("sub", [SubscriptionItem("si", OLD)], START)
    shape = subscription.to_dict()
    catalog = {"prices": [price.to_dict() for price in (OLD, NEW, PLAIN)], "subscriptions": [shape]}
    Path("catalog.json").write_text(json.dumps(catalog))
    for price in (OLD, NEW, PLAIN):
        Path(f"{price.id}.json").write_text(json.dumps(price.to_dict()))
    # January has 10 units, February none, March 11.
    rows = [f"si,10,{START + DAY}", f"si,11,{START + 61 * DAY}"]
    Path("usage.csv").write_text("subscription_item,quantity,timestamp\n" + "\n".join(rows) + "\n")

    def command(*arguments):
        status = cli.main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return command


class TestAudit:
    def test_findings_are_printed_with_their_severity(self, run):
        """Each price stands with its findings, and a cliff fails the run."""
        status, out, _ = run("audit", "old.json", "plain.json")
        assert status == 1
        assert out.splitlines() == [
            "old: 1 finding",
            (
                "  error   cliff             10 units cost USD 90.00 but 11 cost USD 88.00, "
                "which is USD 2.00 less."
            ),
            "plain: no findings",
        ]

    def test_a_price_without_findings_passes(self, run):
        """Without a finding the exit status is 0, so the command can guard a repository of
        prices.
        """
        assert run("audit", "catalog.json#plain", "new.json") == (
            0,
            "plain: no findings\nnew: no findings\n",
            "",
        )

    @pytest.mark.parametrize(("fail_on", "status"), [("info", 1), ("warning", 0), ("error", 0)])
    def test_the_severity_that_fails_can_be_chosen(self, run, fail_on, status):
        """A finding fails the run only where it is at least as severe as asked: a flat fee at zero
        is an `info`.
        """
        fee = Price.graduated(
            "fee", currency="usd", tiers=[Tier("inf", unit_amount=1, flat_amount=500)]
        )
        Path("fee.json").write_text(json.dumps(fee.to_dict()))
        assert run("audit", "fee.json", "--fail-on", fail_on)[0] == status

    def test_findings_as_json(self, run):
        """`--json` prints the findings as data, with the same exit status."""
        status, out, _ = run("audit", "old.json", "--json")
        assert status == 1
        expected = [one.to_dict() for one in audit(OLD)]
        assert json.loads(out) == {
            "audits": [{"price": "old", "currency": "usd", "findings": expected}]
        }

    @pytest.mark.parametrize(
        "arguments",
        [("audit",), ("audit", "absent.json"), ("audit", "old.json", "--fail-on", "some")],
    )
    def test_what_cannot_be_audited_is_refused(self, run, arguments):
        """No price, an absent file and an unknown severity end with exit status 2 and one
        complaint.
        """
        status, out, err = run(*arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)


class TestCompare:
    def test_two_prices_as_sentences(self, run):
        """The stretches and the largest gap are printed."""
        # From 11 units on the first ten cost 9.00 instead of 8.00 each: 10.00 more.
        assert run("compare", "old.json", "new.json")[1].splitlines() == [
            "new compared with old:",
            "  equal from 0 to 10 units",
            "  dearer from 11 units on",
            "  At most dearer: USD 10.00 at 11 units.",
        ]

    def test_two_prices_as_json(self, run):
        """`--json` prints the comparison as data."""
        status, out, _ = run("compare", "old.json", "new.json", "--json", "--up-to", "100")
        assert status == 0
        assert json.loads(out) == {**compare(OLD, NEW, up_to=100).to_dict(), "usage": None}

    def test_usage_is_billed_at_both_prices(self, run):
        """Periods with usage are re-rated, and the old side is what their invoices come to."""
        status, out, _ = run(
            "compare",
            "old.json",
            "new.json",
            "--usage",
            "usage.csv",
            "--catalog",
            "catalog.json",
            "--json",
        )
        usage = json.loads(out)["usage"]
        subscription = Subscription("sub", [SubscriptionItem("si", OLD)], START)
        log = UsageLog([subscription])
        invoiced = 0
        for at, quantity in ((START + DAY, 10), (START + 61 * DAY, 11)):
            log.record("si", quantity, timestamp=at, now=at)
            period = subscription.period_at(at)
            invoiced += finalize_invoice(subscription, log, period, now=period.end).total
        assert status == 0
        assert (usage["bills"], usage["old_revenue"]) == (2, invoiced)
        assert usage["revenue_change"] == 1000

    def test_usage_of_long_ago_is_billed_where_that_is_said(self, run):
        """A catalog of 1993 is refused as a mistake, unless all moments are taken."""
        catalog = json.loads(Path("catalog.json").read_text())
        catalog["subscriptions"][0]["start_date"] = catalog["subscriptions"][0][
            "billing_cycle_anchor"
        ] = 725_846_400
        Path("catalog.json").write_text(json.dumps(catalog))
        Path("usage.csv").write_text(
            "subscription_item,quantity,timestamp\nsi,11,1993-01-05T00:00:00Z\n"
        )
        command = (
            "compare",
            "old.json",
            "new.json",
            "--usage",
            "usage.csv",
            "--catalog",
            "catalog.json",
            "--json",
        )
        status, _, err = run(*command)
        assert (
            status,
            "billing_cycle_anchor: expected a moment in the years 2000 to 9999" in err,
        ) == (2, True)
        status, out, _ = run(*command, "--any-time")
        assert (status, json.loads(out)["usage"]["revenue_change"]) == (0, 1000)

    def test_usage_as_sentences(self, run):
        """The change of revenue stands below the comparison."""
        _, out, _ = run(
            "compare",
            "old.json",
            "new.json",
            "--usage",
            "usage.csv",
            "--catalog",
            "catalog.json",
        )
        assert (
            "\n\n2 bills at new instead of old:\n  revenue USD 188.00 instead of USD 178.00" in out
        )

    def test_events_are_billed_at_both_prices(self, run):
        """Where the old price is on a meter, its events are re-rated: 10 and 11 units as in the
        file of records.
        """
        on_meter = {
            "prices": [price.to_dict() for price in METERED],
            "meters": [Meter("m", "calls").to_dict()],
            "subscriptions": [
                Subscription(
                    "sub", [SubscriptionItem("si", METERED[0])], START, customer="a"
                ).to_dict()
            ],
        }
        Path("metered.json").write_text(json.dumps(on_meter))
        rows = [f"calls,{START + day * DAY},a,{value}" for day, value in ((1, 4), (2, 6), (61, 11))]
        Path("events.csv").write_text(
            "event_name,timestamp,payload[stripe_customer_id],payload[value]\n" + "\n".join(rows)
        )
        old = "metered.json#old"
        status, out, _ = run(
            "compare",
            old,
            "new.json",
            "--events",
            "events.csv",
            "--catalog",
            "metered.json",
            "--json",
        )
        usage = json.loads(out)["usage"]
        assert status == 0
        assert [usage[key] for key in ("bills", "old_revenue", "new_revenue")] == [2, 17800, 18800]
        for option, words in (
            ("--usage", "usage: expected --events, which the price 'old' bills"),
            ("--events", "together"),
        ):
            catalog = ("--catalog", "metered.json") if option == "--usage" else ()
            status, _, err = run("compare", old, "new.json", option, "events.csv", *catalog)
            assert (status, words in err) == (2, True)

    def test_a_refused_row_ends_the_comparison(self, run):
        """A malformed row is named by its line, with exit status 1, as it is where usage is
        billed.
        """
        Path("usage.csv").write_text(
            f"subscription_item,quantity,timestamp\nsi,1,{START}\nsi,-1,{START}\n"
        )
        status, out, err = run(
            "compare",
            "old.json",
            "new.json",
            "--usage",
            "usage.csv",
            "--catalog",
            "catalog.json",
        )
        assert (status, out) == (1, "")
        assert "usage.csv, line 3: quantity: expected an integer of at least 0" in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--usage", "usage.csv"), "--usage and --catalog go together"),
            (("--catalog", "catalog.json"), "--usage and --catalog go together"),
            (
                ("--usage", "absent.csv", "--catalog", "catalog.json"),
                "absent.csv: cannot be read",
            ),
            (
                ("--events", "events.csv", "--catalog", "catalog.json"),
                "expected --usage, which the price 'old' bills",
            ),
            (("--up-to", "-1"), "--up-to: expected an integer of at least 0"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(self, run, arguments, words):
        """One option without the other, an absent file and a bad bound end with exit status 2."""
        status, out, err = run("compare", "old.json", "new.json", *arguments)
        assert (status, out) == (2, "")
        assert words in err

    def test_a_price_that_nobody_has_is_refused(self, run):
        """Usage of items at another price than the old one has nothing to compare."""
        status, _, err = run(
            "compare",
            "plain.json",
            "new.json",
            "--usage",
            "usage.csv",
            "--catalog",
            "catalog.json",
        )
        assert status == 2
        assert "expected the price of an item of the subscriptions, received 'plain'" in err


class TestCurve:
    def test_a_picture_is_drawn(self, run):
        """The picture is where `-o` says, and the command says what it drew."""
        pytest.importorskip("matplotlib")
        assert run("curve", "old.json", "new.json", "-o", "curve.svg") == (
            0,
            "drew old, new into curve.svg\n",
            "",
        )
        assert Path("curve.svg").read_text().startswith("<?xml")

    def test_a_picture_is_reported_as_json(self, run):
        """`--json` prints what was drawn."""
        pytest.importorskip("matplotlib")
        _, out, _ = run(
            "curve",
            "old.json",
            "--output",
            "curve.png",
            "--scale",
            "log",
            "--up-to",
            "50",
            "--json",
        )
        assert json.loads(out) == {
            "prices": ["old"],
            "output": "curve.png",
            "scale": "log",
            "up_to": 50,
        }

    @pytest.mark.parametrize(
        "arguments", [("old.json",), ("-o", "curve.svg"), ("old.json", "-o", "curve.pdf")]
    )
    def test_what_cannot_be_drawn_is_refused(self, run, arguments):
        """No output, no price and an unknown ending end with exit status 2 and one complaint."""
        status, out, err = run("curve", *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
