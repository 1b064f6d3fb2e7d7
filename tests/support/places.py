"""Where the project's files are, from the tests' point of view."""

from pathlib import Path

ROOT_FOLDER = Path(__file__).resolve().parents[2]
GOLDEN_FOLDER = ROOT_FOLDER / "tests" / "golden"
CASES_FOLDER = ROOT_FOLDER / "tests" / "cases"
