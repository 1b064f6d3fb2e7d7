"""What all tests share: how hard Hypothesis searches, and data that only some machines have."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# The default repeats itself, so that a red run is red again. `dev` searches anew each time; `ci` is
# for `make slow`.
settings.register_profile("default", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("dev", max_examples=100, deadline=None, derandomize=False)
settings.register_profile("ci", max_examples=1000, deadline=None, derandomize=True)
# For mutmut: a first failure is enough, no example needs to be small, and one process runs the
# tests again and again.
settings.register_profile(
    "mutation",
    max_examples=50,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.differing_executors],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    """Let CI run a part of the slow tests: the same part each time, so that a red run is red
    again.
    """
    parser.addoption(
        "--slow-sample", type=int, default=1, metavar="N", help="of the slow tests, one in N"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out what is not in the sample. The first slow test of each file always is."""
    one_in, seen, left_out = config.getoption("--slow-sample"), set(), []
    for item in items:
        if item.get_closest_marker("slow") is not None:
            is_first = item.path not in seen
            seen.add(item.path)
            if not is_first and zlib.crc32(item.nodeid.encode()) % one_in:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        without = set(left_out)
        items[:] = [item for item in items if item not in without]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of data too large to ship, beside the repository; skip where it is
    absent.
    """
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of shared data beside the repository")
    return folder
