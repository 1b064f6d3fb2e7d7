"""Draw the picture of the README: a volume price with a cliff, and a graduated price that has none.

Run it in the root of the repository, with the extra `plot`: ``python examples/plot/draw_curve.py
[FOLDER]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metering_core import Price, Tier
from metering_core.pricing import Graduated, Volume
from metering_core.tariffs.plotting import curve

TIERS = [Tier(10, unit_amount=900), Tier(50, unit_amount=800), Tier("inf", unit_amount=600)]

PRICES = [
    Price("seats-volume", "usd", Volume(TIERS), nickname="Seats, volume", unit_label="seats"),
    Price(
        "seats-graduated", "usd", Graduated(TIERS), nickname="Seats, graduated", unit_label="seats"
    ),
]


def main(folder: str = "docs/_static") -> None:
    """Write the picture as SVG and as PNG."""
    for ending in ("svg", "png"):
        print(
            curve(
                PRICES,
                Path(folder, f"curve.{ending}"),
                up_to=70,
                title="The same tiers, volume and graduated",
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
