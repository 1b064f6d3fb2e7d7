"""The structure of the package as figures, each with its bound: what was reached stays reached."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from statistics import median

import pytest
from builders import START, priced, subscribed
from places import ROOT_FOLDER
from public_names import PACKAGE

import metering_core as mc

LAYERS_MAX = 16
NODES_MEDIAN_MAX = 46
"""Nodes of the syntax tree of a function, signature and docstring apart. Wanted: 40."""
NODES_MAX_OF_MOST = 161
"""Of nine functions in ten. Wanted: 150."""
FAN_OUT_MAX = 8
NAMED_TWICE_MAX = 0
"""Classes of one name in two modules."""


@cache
def trees():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def sizes():
    """Return the number of nodes of every function's body, ascending."""
    functions = (
        node
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return sorted(
        sum(1 for statement in body for _ in ast.walk(statement))
        for function in functions
        for body in [function.body[1:] if ast.get_docstring(function) else function.body]
    )


def test_functions_are_short_of_thought():
    """Half of the functions hold a thought, and nine in ten what a screen explains."""
    found = sizes()
    assert median(found) <= NODES_MEDIAN_MAX
    assert found[int(len(found) * 0.9)] <= NODES_MAX_OF_MOST


def test_a_class_has_a_name_of_its_own():
    """A name that is read in a traceback or a search leads to one class."""
    where = defaultdict(list)
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module)
    twice = {name: modules for name, modules in where.items() if len(modules) > 1}
    assert len(twice) <= NAMED_TWICE_MAX, twice


def contract():
    project = ROOT_FOLDER / "pyproject.toml"
    contracts = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["importlinter"]
    return next(one for one in contracts["contracts"] if one["type"] == "layers")


def test_imports_point_down_few_layers():
    """The contract that `lint-imports` holds has every module in it, in few layers."""
    layers = contract()["layers"]
    assert contract()["exhaustive"]
    assert len(layers) <= LAYERS_MAX
    named = {name.strip() for layer in layers for name in layer.split("|")}
    there = {module.partition(".")[0] for module in trees()} - {"__init__"}
    assert named == there


GROUND = {
    *("errors", "wings", "exact", "guarding", "names", "replacing", "currencies", "money"),
    *("periods", "stripe_fields"),
}
"""What every module may stand on: no part of billing."""
WIDE_MAX = 24
"""Modules that stand on more than `FAN_OUT_MAX` others above the ground. Wanted: none."""


def stood_on(tree):
    """Return the modules above the ground that a module imports, also within its functions."""
    imported = {
        node.module.removeprefix("metering_core.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metering_core.")
    }
    return {module for module in imported if module.partition(".")[0] not in GROUND}


def test_modules_stand_on_few_others():
    """A module that knows most others is where every change arrives."""
    wide = {
        module: len(others)
        for module, tree in trees().items()
        if not module.endswith("__init__") and len(others := stood_on(tree)) > FAN_OUT_MAX
    }
    assert len(wide) <= WIDE_MAX, wide


# The walk -----------------------------------------------------------------------------------------


def calls_up(walk):
    """Return the calls from a module to one of a higher layer while something runs, by their
    number.
    """
    height = {
        name.strip(): -place
        for place, layer in enumerate(contract()["layers"])
        for name in layer.split("|")
    }
    found = Counter()

    def module_of(frame):
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(PACKAGE):
            return None
        return path.relative_to(PACKAGE).with_suffix("").parts[0]

    def watch(frame, event, _):
        if event == "call" and frame.f_back is not None:
            called, caller = module_of(frame), module_of(frame.f_back)
            if None not in (called, caller) and height[called] > height[caller]:
                found[f"{caller} calls {called}.{frame.f_code.co_qualname}"] += 1

    sys.setprofile(watch)
    try:
        walk()
    finally:
        sys.setprofile(None)
    return found


def walk_a_record():
    log = mc.UsageLog([subscribed(priced())])
    log.record("si_0", 5, timestamp=START, now=START + 1)
    log.append([mc.UsageRecord("si_0", 7, START + 2)], now=START + 3)
    explained(log)


def walk_an_event():
    recurring = mc.Recurring(meter="mtr_tokens")
    price = mc.Price.per_unit("tokens", currency="usd", unit_amount=3, recurring=recurring)
    items = [mc.SubscriptionItem("si_0", price)]
    subscription = mc.Subscription("sub_0", items, START, customer="cus_0")
    log = mc.MeterLog([mc.Meter("mtr_tokens", "tokens")])
    log.subscribe(subscription)
    payload = {"stripe_customer_id": "cus_0", "value": "5"}
    log.record("tokens", payload, timestamp=START + 1, now=START + 2)
    log.append([mc.MeterEvent("tokens", payload, timestamp=START + 2)], now=START + 3)
    explained(log)


def explained(log):
    (subscription,) = log.subscriptions
    (line,) = mc.preview_invoice(subscription, log, now=START + 4).lines
    assert str(mc.explain(line, usage=log))


@pytest.mark.parametrize(("walk", "most"), [(walk_a_record, 37), (walk_an_event, 48)])
def test_usage_never_goes_up_the_layers(walk, most):
    """From its append to its explained line usage is handed down, and ever less calls back up.
    Wanted: nothing.
    """
    walk()
    found = calls_up(walk)
    assert found.total() <= most, found
