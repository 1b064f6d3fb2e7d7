"""How long the import takes, in relation to the import of what the core depends on, in fresh
interpreters by turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.measuring import Group, Row

DEPENDENCIES: Final = "import attrs, dateutil.relativedelta"
IMPORT: Final = "import metering_core"
BILLING: Final = "from metering_core import UsageLog, finalize_invoice"
EVERYTHING: Final = "from metering_core import *"
"""The package imports its names on first use, so the bare import says little: what is used is paid
for here.
"""

TIMED: Final = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


def measure(rounds: int) -> Group:
    """Return the best time of each import, without the start of the interpreter."""
    best = dict.fromkeys((DEPENDENCIES, IMPORT, BILLING, EVERYTHING), float("inf"))
    with TemporaryDirectory() as folder:
        for statement in (*best, *list(best) * rounds):
            best[statement] = min(best[statement], _seconds(statement, folder))
    base = best.pop(DEPENDENCIES)
    rows = [Row("bound: " + DEPENDENCIES, base * 1e3, "ms")]
    for statement, own in best.items():
        target = 1.5 if statement == IMPORT else None
        rows.append(
            Row(statement, own * 1e3, "ms", base * 1e3, own / base, DEPENDENCIES, at_most=target)
        )
    return "Import, in a fresh interpreter", rows


def _seconds(statement: str, compiled: str) -> float:
    """Import in a fresh interpreter, which keeps compiled code in a folder of ours: an installed
    package is compiled once.
    """
    command = [sys.executable, "-c", TIMED.format(statement)]
    kept = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=folder, env=kept, check=True, capture_output=True, text=True)  # noqa: S603 - our own
    return float(done.stdout)
