"""What all tests share: how hard Hypothesis searches, and data that only some machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# The default repeats itself, so that a red run is red again. `dev` searches anew each time; `ci` is for `make slow`.
settings.register_profile("default", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("dev", max_examples=100, deadline=None, derandomize=False)
settings.register_profile("ci", max_examples=1000, deadline=None, derandomize=True)
# For mutmut: a first failure is enough, no example needs to be small, and one process runs the tests again and again.
settings.register_profile(
    "mutation",
    max_examples=50,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.differing_executors],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of data too large to ship, beside the repository; skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of shared data beside the repository")
    return folder
