"""Make the usage of the demo: a month of an AI API, the same bytes on every machine.

    python examples/make_demo_usage.py

writes ``usage.csv`` beside this script and, in the repository, into the package. What makes it
lifelike: most requests come alone, some in the same second, a service that was not sure sends a
record again under the same id, and a count that was wrong is corrected.
"""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = (HERE / "usage.csv", HERE.parent / "metering_core" / "demo" / "usage.csv")

SEED = 2024
REQUESTS = 180
MONTH_START = int(datetime(2024, 10, 1, tzinfo=UTC).timestamp())
MONTH_SECONDS = 31 * 86_400

Row = dict[str, object]


def request_rows(moment: int, context: int, generated: int, request: str) -> list[Row]:
    """Return what one request reports: the tokens it read and the tokens it wrote."""
    return [
        {
            "subscription_item": "si_context",
            "quantity": context,
            "timestamp": moment,
            "id": f"{request}-context",
        },
        {
            "subscription_item": "si_generated",
            "quantity": generated,
            "timestamp": moment,
            "id": f"{request}-generated",
        },
    ]


def first_morning() -> list[Row]:
    """Return the rows that the demo explains: a collision, a retry and a correction."""
    opening = MONTH_START + 8 * 3600 + 75
    together = request_rows(opening, 1_842, 311, "req-0001") + request_rows(
        opening, 12_406, 958, "req-0002"
    )
    retry = request_rows(opening, 12_406, 958, "req-0002")[:1]
    wrong = request_rows(opening + 94, 790_550, 402, "req-0003")
    correction: Row = {
        "subscription_item": "si_context",
        "quantity": 79_055,
        "timestamp": opening + 94,
        "action": "set",
        "id": "req-0003-corrected",
        "received_at": opening + 3_600,
    }
    retry[0]["received_at"] = opening + 30
    return [*together, *retry, *wrong, correction]


def month_rows(generator: random.Random) -> list[Row]:
    """Return requests spread over the month; one in eight shares its second with the one before."""
    moments = sorted(
        MONTH_START + 86_400 + int(generator.random() * (MONTH_SECONDS - 86_400))
        for _ in range(REQUESTS)
    )
    rows: list[Row] = []
    for number, own in enumerate(moments):
        moment = moments[number - 1] if number % 8 == 7 else own
        context = 200 + int(generator.random() ** 3 * 90_000)
        generated = 20 + int(generator.random() ** 2 * 6_000)
        rows += request_rows(moment, context, generated, f"req-{number + 4:04d}")
    return rows


def main() -> None:
    """Write the files."""
    rows = [*first_morning(), *month_rows(random.Random(SEED))]  # noqa: S311 - repeatable, not secret
    columns = ("subscription_item", "quantity", "timestamp", "action", "id", "received_at")
    for target in (path for path in TARGETS if path.parent.is_dir()):
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"wrote {len(rows)} rows to {target.name} in {target.parent.name}")


if __name__ == "__main__":
    main()
