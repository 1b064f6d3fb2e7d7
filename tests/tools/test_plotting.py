"""Pictures of prices: their vertices are exact, their bytes repeat, and they say what they show."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pages
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT_FOLDER
from pricing_models import Segments, packages, prices, tiered, total

from metering_core import ErrorCode, InvalidValueError, Price, Tier
from metering_core.errors import MissingExtraError
from metering_core.pricing import Graduated
from metering_core.tariffs.pieces import tariff
from metering_core.tariffs.plotting import STEPS_MAX, Flight, Jump, curve, flights, jumps

SEATS = Price.volume(
    "seats",
    currency="eur",
    nickname="Team seats",
    unit_label="seats",
    tiers=[Tier(10, unit_amount=900), Tier(50, unit_amount=800), Tier("inf", unit_amount=600)],
)
TOKENS = Price.graduated(
    "tokens",
    currency="eur",
    unit_label="tokens",
    tiers=[
        Tier(1_000_000, unit_amount=0, flat_amount=900),
        Tier(5_000_000, unit_amount="0.0036"),
        Tier(10_000_000, unit_amount="0.003", flat_amount=5000),
        Tier(20_000_000, unit_amount="0.0024", flat_amount=10_000),
        Tier("inf", unit_amount="0.002", flat_amount=20_000),
    ],
)
MAILS = Price.package("mails", currency="eur", unit_amount=1000, divide_by=1000, unit_label="mails")
MAILS_DOWN = Price.package(
    "mails down", currency="eur", unit_amount=1000, divide_by=1000, round="down", unit_label="mails"
)


@pytest.fixture
def texts(monkeypatch):
    """Return a function that draws with letters kept as letters, and gives the words in the
    picture.
    """
    pytest.importorskip("matplotlib")
    from metering_core.tariffs import plotting  # noqa: PLC0415 - what is patched

    monkeypatch.setattr(plotting, "_STYLE", {**plotting._STYLE, "svg.fonttype": "none"})

    def words(path: Path) -> list[str]:
        # The picture is one that the test has just drawn.
        return [
            node.text
            for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314
            if node.text
        ]

    return words


class TestVertices:
    @given(prices(st.one_of(tiered(), packages())), st.integers(2, 40))
    def test_parts_go_through_the_totals(self, price, end):
        """Each whole quantity lies on the part that covers it, at its exact total; the end of a
        part belongs to it.
        """
        parts = list(flights(tariff(price), end))
        is_down = getattr(price.model, "round", None) == "down" and price.model.divide_by > 1
        for quantity in range(1, end):
            (part,) = [
                part
                for part in parts
                if (
                    part.left <= quantity < part.right
                    if is_down and price.model.unit_amount
                    else part.left < quantity <= part.right
                )
            ]
            share = (quantity - part.left) / (part.right - part.left)
            assert part.low + share * (part.high - part.low) == total(price, quantity)

    @given(prices(st.one_of(tiered(), packages())), st.integers(2, 40))
    def test_parts_follow_each_other(self, price, end):
        """Parts cover the quantities from 0 to the end of the picture without gap or overlap."""
        parts = list(flights(tariff(price), end))
        assert (parts[0].left, parts[-1].right) == (0, end)
        assert all(one.right == after.left for one, after in pairwise(parts))

    def test_a_cliff_is_vertical(self):
        """The tiers of a volume price meet at the bound itself: 90.00 there, and 80.00 right above
        it.
        """
        first, second, _ = flights(tariff(SEATS), 60)
        assert (first, second.left, second.low) == (Flight(0, 10, 0, 9000), 10, 8000)
        assert list(jumps(tariff(SEATS), 60)) == [
            Jump(Fraction(10), Fraction(-1000)),
            Jump(Fraction(50), Fraction(-10_000)),
        ]

    def test_steps_are_steps(self):
        """A package that is rounded up is due above 0, 1,000, …; one that is rounded down from
        1,000 on.
        """
        assert [jump.quantity for jump in jumps(tariff(MAILS), 2500)] == [0, 1000, 2000]
        assert [jump.quantity for jump in jumps(tariff(MAILS_DOWN), 2500)] == [1000, 2000]
        assert all(part.low == part.high for part in flights(tariff(MAILS), 2500))

    def test_a_fee_without_usage_is_a_jump_at_zero(self):
        """What is due without usage stands at quantity 0."""
        assert next(iter(jumps(tariff(TOKENS), 10))) == Jump(Fraction(0), Fraction(900))


class TestPictures:
    @pytest.mark.parametrize(
        ("drawn", "scale"),
        [
            ([MAILS, MAILS_DOWN], "log"),
            pytest.param([SEATS, TOKENS, MAILS], "log", marks=pytest.mark.slow),
        ],
    )
    def test_equal_prices_give_equal_bytes(self, tmp_path, drawn, scale):
        """An SVG is the same, byte for byte, each time it is drawn, and holds no date."""
        pytest.importorskip("matplotlib")
        one, two = (
            curve(drawn, tmp_path / name, scale=scale).read_bytes()
            for name in ("one.svg", "two.svg")
        )
        assert one == two
        assert b"<dc:date>" not in one
        ET.fromstring(one)  # noqa: S314 - the picture is one that the test has just drawn

    @pytest.mark.slow
    def test_the_bytes_do_not_depend_on_the_hash_seed_or_a_matplotlibrc(self, tmp_path):
        """Another process with another hash seed and a style of its own draws the same bytes."""
        pytest.importorskip("matplotlib")
        (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\n")
        code = (
            "from metering_core import Price; from metering_core.tariffs.plotting import curve;"
            "curve(Price.per_unit('x', currency='usd', unit_amount=5), 'there.svg')"
        )
        package = str(ROOT_FOLDER)
        environment = {
            "PYTHONHASHSEED": "7",
            "PYTHONPATH": package,
            "HOME": str(tmp_path),
            "MPLBACKEND": "svg",
        }
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
        here = curve(Price.per_unit("x", currency="usd", unit_amount=5), tmp_path / "here.svg")
        assert (tmp_path / "there.svg").read_bytes() == here.read_bytes()

    def test_a_png_is_a_png(self, tmp_path):
        """The ending of the path decides the format."""
        pytest.importorskip("matplotlib")
        one, two = (curve(SEATS, tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
        assert one.startswith(b"\x89PNG")
        assert one == two

    def test_the_axes_have_money_and_units(self, tmp_path, texts):
        """The axes name the currency and the price's own unit, and prices below a cent are shown
        for a thousand units.
        """
        words = texts(curve(TOKENS, tmp_path / "curve.svg"))
        assert {"total (EUR)", "quantity (tokens)", "one more, per 1,000 tokens (EUR)"} <= set(
            words
        )
        assert "average per 1,000 tokens (EUR)" in words
        assert "What it costs: tokens (graduated)" in words
        assert "20,000,000" in words

    def test_fees_are_labelled(self, tmp_path, texts):
        """What falls due at once is written beside its triangle."""
        words = texts(curve(TOKENS, tmp_path / "curve.svg"))
        assert {"+EUR 9.00", "+EUR 50.00", "+EUR 100.00", "+EUR 200.00"} <= set(words)

    def test_cliffs_are_marked_by_the_audit(self, tmp_path, texts):
        """The legend says what the audit found, and for which price where there are several."""
        assert "cliff: 51 seats cost EUR 94.00 less than 50" in texts(
            curve(SEATS, tmp_path / "one.svg")
        )
        words = texts(curve([SEATS, TOKENS], tmp_path / "two.svg", up_to=60))
        assert "Team seats, cliff: 51 seats cost EUR 94.00 less than 50" in words
        assert "tokens" in words
        assert "quantity (units)" in words

    def test_a_cliff_outside_the_picture_is_not_marked(self, tmp_path, texts):
        """A picture that ends before a range of savings does not speak of it."""
        assert not [
            word for word in texts(curve(SEATS, tmp_path / "curve.svg", up_to=5)) if "cliff" in word
        ]

    def test_a_title_can_be_given(self, tmp_path, texts):
        """A given title stands above the picture; without one it says how many prices there are."""
        assert "Ours" in texts(curve(SEATS, tmp_path / "curve.svg", title="Ours"))
        assert "What it costs: 3 prices" in texts(
            curve([SEATS, TOKENS, MAILS], tmp_path / "curve.svg")
        )

    def test_names_are_shown_as_they_are(self, tmp_path, texts):
        """A long name is cut, a dollar sign is no formula, and a name that begins with an
        underscore has its legend.
        """
        names = ["US$ 5 to US$ 9", "_internal", "x" * 200]
        drawn = [
            Price.per_unit(name, currency="usd", unit_amount=number)
            for number, name in enumerate(names, start=1)
        ]
        words = texts(curve(drawn, tmp_path / "curve.svg"))
        assert {"US$ 5 to US$ 9", "x" * 39 + "\N{HORIZONTAL ELLIPSIS}"} <= set(words)
        assert "_internal" in {word.strip() for word in words}

    def test_the_title_names_the_model(self, tmp_path, texts):
        """The title says what kind of price it is, also where the model is the user's own."""
        assert "What it costs: x (per unit)" in texts(
            curve(Price.per_unit("x", currency="usd", unit_amount=1), tmp_path / "a.svg")
        )
        own = Price("x", "usd", Segments(((None, ((Decimal(3), Decimal(1)),)),)))
        assert "What it costs: x (own model)" in texts(curve(own, tmp_path / "b.svg"))

    def test_a_price_of_nothing_can_be_drawn(self, tmp_path):
        """A free price, and a yen price without decimals, have pictures too."""
        pytest.importorskip("matplotlib")
        assert curve(
            Price.per_unit("free", currency="jpy", unit_amount=0), tmp_path / "curve.svg"
        ).exists()

    def test_a_falling_piece_can_be_drawn(self, tmp_path):
        """A model of the user's own whose total falls has a price of one more unit below 0."""
        pytest.importorskip("matplotlib")
        own = Segments(((20, ((Decimal(40), Decimal(-2)),)), (None, ((Decimal(3), Decimal(1)),))))
        assert curve(Price("own", "usd", own), tmp_path / "curve.svg").exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ("drawn", "options", "code", "param"),
        [
            ([], {}, ErrorCode.PARAMETER_MISSING, "prices"),
            (["seats"], {}, ErrorCode.PARAMETER_INVALID_OBJECT, "prices[0]"),
            (
                [SEATS, Price.per_unit("x", currency="usd", unit_amount=5)],
                {},
                ErrorCode.CURRENCY_MISMATCH,
                "prices",
            ),
            (SEATS, {"path": "curve.pdf"}, ErrorCode.PARAMETER_INVALID_CHOICE, "path"),
            (SEATS, {"scale": "cubic"}, ErrorCode.PARAMETER_INVALID_CHOICE, "scale"),
            (SEATS, {"up_to": 1}, ErrorCode.PARAMETER_INVALID_INTEGER, "up_to"),
            (SEATS, {"up_to": 10**18 + 1}, ErrorCode.PARAMETER_INVALID_INTEGER, "up_to"),
            (SEATS, {"up_to": 10.0}, ErrorCode.PARAMETER_INVALID_INTEGER, "up_to"),
            (
                MAILS,
                {"up_to": 1000 * (STEPS_MAX + 1)},
                ErrorCode.PARAMETER_INVALID_INTEGER,
                "up_to",
            ),
        ],
    )
    def test_what_cannot_be_drawn_is_refused_by_name(self, tmp_path, drawn, options, code, param):
        """No price, two currencies, an unknown ending or scale and a bad bound are refused, and
        nothing is written.
        """
        path = tmp_path / options.get("path", "curve.svg")
        with pytest.raises(InvalidValueError) as caught:
            curve(drawn, path, **{key: value for key, value in options.items() if key != "path"})
        assert (caught.value.code, caught.value.param) == (code, param)
        assert not path.exists()

    def test_without_matplotlib_the_extra_is_named(self, tmp_path, monkeypatch):
        """Where Matplotlib is absent the error says what to install."""
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r"metering-core\[plot\]") as caught:
            curve(SEATS, tmp_path / "curve.svg")
        assert caught.value.code is ErrorCode.EXTRA_MISSING

    def test_importing_does_not_import_matplotlib(self):
        """The module is light: Matplotlib is imported when a picture is drawn."""
        code = "import sys, metering_core.tariffs.plotting; sys.exit('matplotlib' in sys.modules)"
        package = str(ROOT_FOLDER)
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": package}, check=True)

    def test_the_picture_of_the_readme_is_up_to_date(self, tmp_path):
        """`python examples/plot/draw_curve.py` draws the vertices that the repository shows."""
        script = ROOT_FOLDER / "examples" / "plot" / "draw_curve.py"
        shown = pages.of_documentation("_static", "curve.svg")
        pytest.importorskip("matplotlib")
        package = str(script.parents[2])
        subprocess.run(
            [sys.executable, script, tmp_path],
            env={"PYTHONPATH": package, "HOME": str(tmp_path)},
            check=True,
        )

        def paths(file):
            return [
                node.get("d")
                for node in ET.parse(file).iter("{http://www.w3.org/2000/svg}path")  # noqa: S314 - ours
            ]

        # Another version of Matplotlib writes another comment, so it is the lines that are
        # compared.
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        if mpl.__version__ not in shown.read_text(encoding="utf-8"):
            pytest.skip("the picture was drawn by another version of Matplotlib")
        assert paths(tmp_path / "curve.svg") == paths(shown)


def test_graduated_prices_have_no_cliff(tmp_path):
    """A graduated price with amounts of at least 0 never falls, so no picture of one is marked."""
    price = Price("x", "usd", Graduated([Tier(5, 7), Tier("inf", 1)]))
    assert all(jump.amount > 0 for jump in jumps(tariff(price), 20))
