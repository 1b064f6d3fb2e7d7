"""The command ``check``: worked cases from files, and what differs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from metering_core.cli.complaints import OK, REFUSED, UNUSABLE, complain
from metering_core.cli.options import AsJson
from metering_core.cli.printing import print_json
from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, shown
from metering_core.testing.cases import CaseResult, read_cases, run_cases


def check(
    *files: Annotated[str, Parameter(name="FILE")],
    kind: str | None = None,
    as_json: AsJson = False,
) -> int:
    """Run worked cases from JSON files against the engine and print what differs.

    Exit status 1 where a case differs, 2 where a file is unreadable.

    Args:
        files: JSON files of cases.
        kind: Only cases of this kind: rating, aggregation, period, append, invoice or meter.
        as_json: Print the result of every case as JSON.
    """
    if not files:
        message = "expected at least one FILE of cases, received none"
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="file")
    results = {file: found for file in files if (found := _results(file, kind)) is not None}
    different = sum(bool(result.differences) for found in results.values() for result in found)
    if as_json:
        print_json({"files": [_file_fields(file, found) for file, found in results.items()]})
    else:
        _print_differences(results)
        print(_count_sentence(sum(map(len, results.values())), len(results), different))
    if len(results) < len(set(files)):
        return UNUSABLE
    return REFUSED if different else OK


def _results(file: str, kind: str | None) -> list[CaseResult] | None:
    """Return what came of the cases of a file, or complain and return None where it is
    unreadable.
    """
    try:
        data = read_cases(file)
    except CatalogError as error:
        complain(error.message)
        return None
    if "cases" not in data:
        expected = "expected a file of cases, which has the key 'cases'"
        complain(f"{file}: {expected}; `metering-core audit` looks at prices")
        return None
    try:
        return run_cases(data, kind)
    except CatalogError as error:
        complain(f"{file}: {error.message}")
        return None


def _print_differences(results: Mapping[str, Sequence[CaseResult]]) -> None:
    for file, found in results.items():
        for result in found:
            if result.differences:
                differences = [f"  {shown(one)}" for one in result.differences]
                print(shown(f"{file}: {result.id} ({result.kind})"), *differences, sep="\n")


def _count_sentence(cases: int, files: int, different: int) -> str:
    counted = f"{_count(cases, 'case', 'cases')} in {_count(files, 'file', 'files')}"
    agree = _count(cases - different, "agrees", "agree")
    return f"{counted}: {agree}, {_count(different, 'differs', 'differ')}"


def _count(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"


def _file_fields(file: str, results: Sequence[CaseResult]) -> dict[str, Any]:
    cases = [
        {"id": one.id, "kind": one.kind, "differences": list(one.differences)} for one in results
    ]
    return {"path": file, "cases": cases}
