"""What all tests share: how hard Hypothesis searches, and data that only some machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The default repeats itself, so that a red run is red again. `dev` searches anew each time; `ci` is for `make slow`.
settings.register_profile("default", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("dev", max_examples=100, deadline=None, derandomize=False)
settings.register_profile("ci", max_examples=1000, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of data too large to ship, beside the repository; skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder of shared data beside the repository")
    return folder
