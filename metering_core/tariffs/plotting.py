"""Pictures of prices: total, marginal and average price against quantity, drawn from exact pieces.

Steps are drawn as steps and cliffs as vertical drops, because every vertex is computed: nothing is
sampled but the hyperbolas of the average. What the audit calls a cliff is marked. Amounts become
floats here and nowhere else, in the last step before they are drawn. Needs the extra ``plot``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from metering_core.currencies import currency
from metering_core.errors import ErrorCode, InvalidValueError, MissingExtraError, shown
from metering_core.exact import exact_integer
from metering_core.names import choice, each_of, optional_name, path_of
from metering_core.prices import Price
from metering_core.pricing import PricingModel, is_built_in
from metering_core.replacing import replacing
from metering_core.tariffs.auditing import Finding, FindingCode, audit
from metering_core.tariffs.pieces import Piece, Tariff, tariff, units, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS_MAX: Final = 10_000
"""Steps of packages that one picture shows; more would be a solid band."""

QUANTITY_MAX: Final = 10**18
"""The greatest quantity that a picture shows."""

NAME_MAX: Final = 40
"""Characters of a price's title that a picture shows."""

CURVE_POINTS: Final = 40
"""Points of one part that is bent: of an average, or on a log scale."""

Point = tuple[Fraction, Fraction]
"""A quantity and an amount in minor units."""


class Scale(StrEnum):
    """How the quantities are laid out."""

    LINEAR = "linear"
    LOG = "log"


def curve(
    prices: Price | Iterable[Price],
    path: str | Path,
    *,
    up_to: int | None = None,
    scale: Scale | str = Scale.LINEAR,
    title: str | None = None,
) -> Path:
    """Draw what quantities cost at one price or several, and return where the picture is.

    Three panels share the quantity: the total; the price of one more unit, where a fee that falls
    due with a unit is a triangle with its amount; the total divided by the quantity. Equal prices
    give equal bytes, with one version of Matplotlib.

    Args:
        prices: a price, or several in one currency, of built-in models or of models that declare
            their breakpoints.
        path: a file that ends in ``.svg`` or ``.png``.
        up_to: the greatest quantity to show; chosen from the breakpoints unless given.
        scale: ``linear``, or ``log``, which begins two decades before the first bound.
        title: what stands above the picture, at most 255 characters; names the prices unless given.

    Raises:
        MissingExtraError: ``extra_missing`` without Matplotlib.
        InvalidValueError: ``parameter_missing`` without a price, ``currency_mismatch``,
            ``parameter_invalid_choice`` for another ending or scale, ``parameter_invalid_integer``
            for an ``up_to`` below 2, above :data:`QUANTITY_MAX` or one that would show more than
            :data:`STEPS_MAX` packages; and those of :func:`~metering_core.tariffs.pieces.tariff`.
        CatalogError: ``file_unwritable``; a picture that stood there is whole.
    """
    target, how = Path(path_of(path, "path")), choice(Scale, scale, "scale")
    if target.suffix not in {".svg", ".png"}:
        expected = "a file that ends in .svg or .png"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, "path", expected, str(target)
        )
    title = optional_name(title, "title")
    tariffs = _tariffs(prices)
    end = _end(tariffs) if up_to is None else exact_integer(up_to, "up_to", minimum=2)
    if end > QUANTITY_MAX:
        expected = f"at most {QUANTITY_MAX:,}, which a picture can show"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, "up_to", expected, end
        )
    _refuse_too_many(tariffs, end)
    _draw(_Picture(tariffs, end, how, _title(tariffs) if title is None else shown(title)), target)
    return target


def _tariffs(prices: Price | Iterable[Price]) -> tuple[Tariff, ...]:
    given = (prices,) if isinstance(prices, Price) else tuple(each_of(Price, prices, "prices"))
    if not given:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_MISSING, "prices", "at least one Price", None
        )
    tariffs = tuple(tariff(price) for price in given)
    for one in given:
        if one.currency != given[0].currency:
            expected = f"prices in one currency, {given[0].currency.upper()} as the first"
            raise InvalidValueError.expecting(
                ErrorCode.CURRENCY_MISMATCH, "prices", expected, one.currency
            )
    return tariffs


def _end(tariffs: Sequence[Tariff]) -> int:
    """Return a quantity that shows every breakpoint with some room after it, and six packages."""
    bounds = [piece.last for each in tariffs for piece in each.pieces if piece.last]
    widths = [piece.width for each in tariffs for piece in each.pieces if piece.width > 1]
    rooms = [*(4 * bound // 3 for bound in bounds), *(6 * width for width in widths), 10]
    wanted = min(max(rooms), QUANTITY_MAX)
    return min(wanted, max(widths) * 100) if widths else wanted


def _refuse_too_many(tariffs: Sequence[Tariff], end: int) -> None:
    narrowest = min(
        (piece.width for each in tariffs for piece in each.pieces if piece.width > 1), default=end
    )
    if end // narrowest > STEPS_MAX:
        expected = (
            f"at most {STEPS_MAX * narrowest}, which shows {STEPS_MAX} packages of {narrowest}"
        )
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, "up_to", expected, end
        )


def _name(of: Tariff) -> str:
    """Return the price's title, cut where a legend would cover the picture; Matplotlib hides what
    begins with `_`.
    """
    title = shown(of.price.title)
    short = title if len(title) <= NAME_MAX else title[: NAME_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return f" {short}" if short.startswith("_") else short


def _words(model: PricingModel) -> str:
    return model.words if is_built_in(model) else "own model"


def _title(tariffs: Sequence[Tariff]) -> str:
    names = [f"{_name(each)} ({_words(each.price.model)})" for each in tariffs]
    return f"What it costs: {', '.join(names) if len(names) < 3 else f'{len(names)} prices'}"


# From pieces to vertices, still exact -------------------------------------------------------------


@attrs.frozen
class Flight:
    """A straight part of a tariff: after quantity ``left`` up to ``right``, from ``low`` to
    ``high`` minor units.
    """

    left: Fraction
    right: Fraction
    low: Fraction
    high: Fraction


def flights(of: Tariff, end: int) -> Iterator[Flight]:
    """Yield the straight parts of a tariff up to a quantity, in order.

    A part begins right after the last quantity of the one before, as ``up_to`` is meant: the price
    of 11 seats begins above 10. A package that is rounded down begins with its own quantity.
    """
    for piece in of.pieces:
        if piece.first > end:
            return
        yield from _stair(piece, end) if piece.width > 1 else [_line(piece, end)]


def _line(piece: Piece, end: int) -> Flight:
    left = max(0, piece.first - 1)
    right = end if piece.last is None else min(piece.last, end)
    low = piece.start - piece.rise * (piece.first - left)
    return Flight(Fraction(left), Fraction(right), low, piece.total(right))


def _stair(piece: Piece, end: int) -> Iterator[Flight]:
    before = 1 if piece.first else 0
    for step in range(piece.step_of(end - 1 + before) + 1):
        left, right = (Fraction(piece.first_of(number) - before) for number in (step, step + 1))
        yield Flight(left, min(right, Fraction(end)), piece.at(step), piece.at(step))


@attrs.frozen
class Jump:
    """What one more unit costs beyond the unit prices around it, minor units; below 0 it is a
    cliff.
    """

    quantity: Fraction
    amount: Fraction


def jumps(of: Tariff, end: int) -> Iterator[Jump]:
    """Yield where the straight parts do not meet, beginning with what is due without usage."""
    height = Fraction(0)
    for flight in flights(of, end):
        if flight.low != height:
            yield Jump(flight.left, flight.low - height)
        height = flight.high


# From vertices to pixels --------------------------------------------------------------------------

COLORS: Final = ("#1f5fa8", "#d9730d", "#2a8a57", "#8e44ad", "#8c6d1f", "#4a4a4a")
CLIFF_COLOR: Final = "#c0392b"
STYLES: Final = ("-", "--", "-.", ":")
BATCHES: Final = (1, 1_000, 1_000_000, 1_000_000_000)
LABELS_MAX: Final = 6
"""Jumps of one price that get their amount written; more would cover each other."""


@attrs.frozen
class _Picture:
    """What is drawn: the tariffs, up to which quantity, how it is laid out, and under which
    title.
    """

    tariffs: tuple[Tariff, ...]
    end: int
    scale: Scale
    title: str

    @property
    def begin(self) -> int:
        if self.scale is Scale.LINEAR:
            return 0
        # Two decades before the first bound: further to the left nothing happens.
        bounds = [
            piece.last or piece.width
            for of in self.tariffs
            for piece in of.pieces
            if piece.last or piece.width > 1
        ]
        return max(1, min([*bounds, self.end]) // 100)

    @property
    def code(self) -> str:
        return self.tariffs[0].price.currency.upper()

    @property
    def unit(self) -> str:
        labels = {each.price.unit_label for each in self.tariffs}
        return shown(labels.pop() or "unit") if len(labels) == 1 else "unit"

    @property
    def is_stair(self) -> bool:
        """Whether no unit has a price of its own: then what falls due at once is drawn to scale."""
        return not any(
            piece.width == 1 and piece.rise for of in self.tariffs for piece in of.pieces
        )

    @property
    def batch(self) -> int:
        """Return how many units the price of units is shown for: 1, or as many as make it
        readable.
        """
        rates = [piece.rate for of in self.tariffs for piece in of.pieces if piece.rate]
        smallest = min(rates, default=Fraction(1)) / 10 ** currency(self.code).fraction_digits
        return next(
            (batch for batch in BATCHES if smallest * batch >= Fraction(1, 100)), BATCHES[-1]
        )

    @property
    def per(self) -> str:
        """Name what the price of units is shown for."""
        return "per unit" if self.batch == 1 else f"per {self.batch:,} {self.plural}"

    @property
    def plural(self) -> str:
        return "units" if self.unit == "unit" else self.unit

    def major(self, amount: Fraction) -> float:
        """Turn minor units into what an axis shows: the last step, and the only one that is not
        exact.
        """
        return float(amount / 10 ** currency(self.code).fraction_digits)


def _draw(picture: _Picture, target: Path) -> None:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra; nothing else here needs it
        from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    except ImportError:
        raise MissingExtraError.for_extra("plot", "a picture of a price") from None
    # A person's own matplotlibrc must not change the bytes.
    style: Any = {**mpl.rcParamsDefault, **_STYLE}
    with mpl.rc_context(style):
        figure = Figure(figsize=(8, 9.5), layout="constrained")
        top, middle, bottom = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 2]}
        )
        _draw_totals(top, picture)
        _draw_marginals(middle, picture)
        _draw_averages(bottom, picture)
        _label(figure, (top, middle, bottom), picture)
        metadata = {"Date": None} if target.suffix == ".svg" else {"Software": None}
        with replacing(target, "path") as beside:
            figure.savefig(beside, format=target.suffix[1:], dpi=120, metadata=metadata)


_STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "metering-core",
    "text.parse_math": False,  # A dollar sign in a name is a dollar sign.
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}


def _look(index: int) -> dict[str, Any]:
    # Later lines are thinner, so that one on top of another hides neither.
    style, width = STYLES[index // len(COLORS) % len(STYLES)], max(1.2, 2.2 - 0.6 * index)
    return {"color": COLORS[index % len(COLORS)], "linestyle": style, "linewidth": width}


def _draw_totals(axes: Axes, picture: _Picture) -> None:
    for index, of in enumerate(picture.tariffs):
        points = [one for flight in flights(of, picture.end) for one in _points(flight, picture)]
        amounts = [picture.major(amount) for _, amount in points]
        axes.plot(_quantities(points), amounts, label=_name(of), **_look(index))
        _mark_cliffs(axes, picture, of)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"total ({picture.code})")


def _quantities(points: Iterable[Point]) -> list[float]:
    return [float(quantity) for quantity, _ in points]


def _mark_cliffs(axes: Axes, picture: _Picture, of: Tariff) -> None:
    """Shade where a customer had better use more, and draw the drops."""
    for finding in audit(of.price):
        if finding.code is FindingCode.CLIFF:
            _shade(axes, picture, of, finding)
            _draw_drops(axes, picture, of)


def _shade(axes: Axes, picture: _Picture, of: Tariff, finding: Finding) -> None:
    low, high = finding.quantities
    saved = written(of.price, of.total(low) - of.total(high))
    whose = f"{_name(of)}, " if len(picture.tariffs) > 1 else ""
    label = f"{whose}cliff: {units(of.price, high)} cost {saved} less than {low:,}"
    look: dict[str, Any] = {"color": CLIFF_COLOR, "alpha": 0.12, "linewidth": 0}
    for first, last in finding.intervals:
        if first <= picture.end:
            end = picture.end if last is None else min(last, picture.end)
            axes.axvspan(max(first - 1, 0), end, label=label, **look)
            label = "_"  # Which Matplotlib leaves out of the legend.


def _draw_drops(axes: Axes, picture: _Picture, of: Tariff) -> None:
    for jump in jumps(of, picture.end):
        if jump.amount < 0:
            total = of.total(int(jump.quantity))
            heights = [picture.major(total), picture.major(total + jump.amount)]
            place = [float(jump.quantity)] * 2
            axes.plot(place, heights, color=CLIFF_COLOR, linewidth=2.4, zorder=3)


def _draw_marginals(axes: Axes, picture: _Picture) -> None:
    shown: list[float] = [0.0]
    for index, of in enumerate(picture.tariffs):
        for flight in flights(of, picture.end):
            if flight.right > flight.left:
                rise = (flight.high - flight.low) / (flight.right - flight.left)
                rate = picture.major(rise * picture.batch)
                axes.plot([float(flight.left), float(flight.right)], [rate, rate], **_look(index))
                shown.append(rate)
    if picture.is_stair:
        _draw_dues(axes, picture)
        return
    top = max(shown) or 1.0
    axes.set_ylim(min(shown), top * 1.6)
    axes.set_ylabel(f"one more, {picture.per} ({picture.code})")
    for index, of in enumerate(picture.tariffs):
        _draw_jumps(axes, picture, of, index, top * (1.15 + 0.14 * (index % 3)))


def _draw_dues(axes: Axes, picture: _Picture) -> None:
    """Draw to scale what the next unit costs where it opens a package, and nothing else costs
    anything.
    """
    for index, of in enumerate(picture.tariffs):
        for jump in jumps(of, picture.end):
            look = {**_look(index), "linewidth": max(1.2, 3.5 - 2 * index)}
            place, heights = [float(jump.quantity)] * 2, [0, picture.major(jump.amount)]
            axes.plot(place, heights, solid_capstyle="butt", **look)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set_ylabel(f"one more unit ({picture.code})")


def _draw_jumps(axes: Axes, picture: _Picture, of: Tariff, index: int, height: float) -> None:
    """Draw what falls due at once as triangles with its amount: on the axis of unit prices it would
    hide them.
    """
    found = [jump for jump in jumps(of, picture.end) if jump.quantity >= picture.begin]
    for number, jump in enumerate(found):
        color = CLIFF_COLOR if jump.amount < 0 else COLORS[index % len(COLORS)]
        marker = "v" if jump.amount < 0 else "^"
        at = (float(jump.quantity), height)
        axes.plot([at[0]], [height], marker=marker, color=color, markersize=6, clip_on=False)
        if len(found) <= LABELS_MAX:
            sign = "+" if jump.amount > 0 else "\N{MINUS SIGN}"
            words = sign + written(of.price, abs(jump.amount))
            # A log scale crowds the last bounds, so their amounts take turns in height.
            above = 6 + 11 * (number % 3) if picture.scale is Scale.LOG else 6
            look: dict[str, Any] = {"ha": _side(jump, picture), "fontsize": 8, "color": color}
            axes.annotate(words, at, (0, above), textcoords="offset points", **look)


def _side(jump: Jump, picture: _Picture) -> str:
    """Return where the words of a jump stand, so that they do not leave the picture."""
    if jump.quantity == picture.begin:
        return "left"
    return "right" if jump.quantity * 10 > picture.end * 9 else "center"


def _draw_averages(axes: Axes, picture: _Picture) -> None:
    seen: list[float] = []
    for index, of in enumerate(picture.tariffs):
        points = [one for flight in flights(of, picture.end) for one in _bent(flight, picture)]
        ys = [picture.major(amount / quantity * picture.batch) for quantity, amount in points]
        axes.plot(xs := _quantities(points), ys, **_look(index))
        seen += [y for x, y in zip(xs, ys, strict=True) if x >= picture.end / 20]
    # A flat fee makes the first units dear beyond any scale; the curve may leave the panel there.
    axes.set_ylim(0, max(seen, default=1.0) * 1.15 or 1.0)
    axes.set_ylabel(f"average {picture.per} ({picture.code})")


def _points(flight: Flight, picture: _Picture) -> Iterable[Point]:
    """Return the ends of a straight part; on a log scale, on which it is bent, points between them
    too.
    """
    if picture.scale is Scale.LOG:
        return _bent(flight, picture)
    return ((flight.left, flight.low), (flight.right, flight.high))


def _bent(flight: Flight, picture: _Picture) -> Iterator[Point]:
    """Yield points of a part from its first whole quantity on, close together where an average or a
    log scale bends most.
    """
    left = max(flight.left, Fraction(max(1, picture.begin)))
    for number in range(CURVE_POINTS + 1 if flight.right > left else 0):
        quantity = left + (flight.right - left) * Fraction(number, CURVE_POINTS) ** 3
        share = (quantity - flight.left) / (flight.right - flight.left)
        yield quantity, flight.low + (flight.high - flight.low) * share


def _label(figure: Figure, panels: Sequence[Axes], picture: _Picture) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - an extra

    # Matplotlib measures what it wraps as if a dollar sign began a formula.
    figure.suptitle(picture.title, fontsize=12, wrap="$" not in picture.title)
    bottom = panels[-1]
    bottom.set_xlabel(f"quantity ({picture.plural})")
    if picture.scale is Scale.LOG:
        bottom.set_xscale("log")
    else:
        bottom.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    bottom.set_xlim(picture.begin, picture.end)
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axes in panels:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    panels[0].legend(loc="upper left", fontsize=9, framealpha=0.9).set_in_layout(False)
