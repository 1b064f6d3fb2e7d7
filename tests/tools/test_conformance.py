"""The conformance machine finds what is wrong with a billing service, says it in few words, and
leaves a right one alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from math import floor
from pathlib import Path

import hypothesis
import pytest
from builders import START
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from places import ROOT_FOLDER

import metering_core as mc
from metering_core import testing
from metering_core.periods import from_unix_seconds, unix_seconds
from metering_core.testing.conformance import BillingConformance, ServiceDisagreesError
from metering_core.testing.restatement import RestatedLog

ROOT = ROOT_FOLDER
EXAMPLE = ROOT / "examples" / "conformance"
NAIVE = ["NaiveMoney", "NaiveUsage", "NaiveCalendar"]
SMALL = settings(
    max_examples=25, stateful_step_count=8, derandomize=True, database=None, deadline=None
)

ALL_FAILURES = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import test_naive_biller
from hypothesis.stateful import run_state_machine_as_test
from metering_core.testing.conformance import ServiceDisagreesError
said = {}
for name in sys.argv[3:]:
    try:
        run_state_machine_as_test(getattr(test_naive_biller, name), settings=test_naive_biller.SETTINGS)
    except ServiceDisagreesError as error:
        said[name] = {"disagreement": error.disagreement, "steps": error.steps, "message": str(error)}
print(json.dumps(said))
"""


def run_alone(script, *arguments):
    """Run a script in a process of its own."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    result = subprocess.run(
        command,
        capture_output=True,
        check=False,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Return what each test of the naive biller fails with, where the library is installed as its
    users have it.

    Hypothesis also draws the constants of loaded modules, unless they lie in a folder of this name:
    in the working tree a new module anywhere in the library would make it find other examples, and
    shrink to others.
    """
    installed = tmp_path_factory.mktemp("installation") / "site-packages"
    package = Path(mc.__file__).parent
    shutil.copytree(package, installed / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    return json.loads(run_alone(ALL_FAILURES, installed, EXAMPLE, *NAIVE).splitlines()[-1])


# The naive biller ---------------------------------------------------------------------------------


def test_floats_are_found(failures):
    """One unit at 29 cents is 29 cents, but 100 times 0.29 is below 29 in floats."""
    assert 0.29 * 100 < 29
    assert (
        failures["NaiveMoney"]["disagreement"]
        == "The service previewed USD 0.28 for sub_1, we previewed USD 0.29"
    )


def test_a_set_of_the_whole_period_is_found(failures):
    """A `set` at one second leaves the usage of another second alone."""
    assert re.search(
        r"increment si_1_1 by 1 at .*set si_1_1 to 0 at ", " ".join(failures["NaiveUsage"]["steps"])
    )
    assert (
        failures["NaiveUsage"]["disagreement"]
        == "The service read a usage of 0 for si_1_1, we read 1"
    )


def test_drift_on_the_31st_is_found(failures):
    """The period after 29 February begins on 31 March, not on the 29th."""
    said = failures["NaiveCalendar"]["disagreement"]
    assert re.search(
        r"The service bills sub_1 from 2024-0[23]-29 .* we from 2024-02-29 00:00:00 to "
        r"2024-03-31 00:00:00",
        said,
    )


@pytest.mark.parametrize("name", NAIVE)
def test_failures_are_shrunk(failures, name):
    """What is reported takes at most four steps, the start included."""
    assert 1 <= len(failures[name]["steps"]) <= 4


@pytest.mark.parametrize("name", NAIVE)
def test_the_page_shows_what_is_said(failures, name):
    """The README beside the example shows these failures, to the word; numbers may differ from one
    Python to the next.
    """
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    shown = re.search(
        rf"^## `{name}`.*?^```text\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL
    )[1].strip()
    said = failures[name]["message"].strip()
    if (
        f"Hypothesis {hypothesis.__version__}" not in page
    ):  # Another version may also shrink to other steps.
        shown, said = shown.splitlines()[0], said.splitlines()[0]
    assert re.sub(r"\d+", "0", said) == re.sub(r"\d+", "0", shown)


# Services that are right --------------------------------------------------------------------------


def machine_of(file, name):
    spec = importlib.util.spec_from_file_location(file, EXAMPLE / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def test_the_adapter_of_our_log_passes():
    """A service that is the log itself, stored and read back as time passes, agrees in every
    receipt, period and line.
    """
    run_state_machine_as_test(machine_of("test_our_log", "LogConformance"), settings=SMALL)


class Restated(BillingConformance):
    """A service that shares no code with the log: the rules of usage read off a plain list."""

    compare_codes = True

    def start(self, subscriptions, now):
        self.service = RestatedLog(subscriptions)
        self.items = {item.id: (item, one) for one in subscriptions for item in one.items}

    def record_usage(self, record, now):
        outcome, _, code = self.service.take(record, unix_seconds(now))
        return code or outcome

    def read_quantity(self, item_id, now):
        item, subscription = self.items[item_id]
        return self.service.quantity(item, subscription.period_at(now))


def test_an_independent_service_passes():
    """A plain list of what was accepted agrees with the log, codes of refusals included."""
    run_state_machine_as_test(Restated, settings=settings(SMALL, max_examples=60))


class Seats(BillingConformance):
    """A service that bills seats by the second, with its own arithmetic: per unit, half up, from
    the start of the life.
    """

    models = ("per_unit",)
    aggregate_usage = ()
    partial_periods = True
    thresholds = strangers = False

    def start(self, subscriptions, now):
        self.known = {one.id: one for one in subscriptions}

    def record_usage(self, record, now):
        return "rejected"

    def preview_invoice(self, subscription_id, now):
        subscription = self.known[subscription_id]
        whole = subscription.cycle.period_at(now)
        lived = unix_seconds(whole.end) - max(
            unix_seconds(whole.start), unix_seconds(subscription.start_date)
        )
        part = Fraction(lived, unix_seconds(whole.end) - unix_seconds(whole.start))
        return [
            floor(item.quantity * self.owed(item, part) + Fraction(1, 2))
            for item in subscription.items
        ]

    def owed(self, item, part):
        return Fraction(item.price.model.unit_amount) * part


class WholeSeats(Seats):
    """A service that bills the first month whole."""

    def owed(self, item, part):
        return Fraction(item.price.model.unit_amount)


def test_partial_periods_are_compared():
    """A service that prorates to the second agrees; one that does not is found."""
    run_state_machine_as_test(Seats, settings=SMALL)
    with pytest.raises(ServiceDisagreesError, match="The service previewed"):
        run_state_machine_as_test(WholeSeats, settings=SMALL)


# One step at a time: what each comparison notices, and how an answer may be given -----------------

CALLS = mc.Price.per_unit("calls", currency="usd", unit_amount=7)
TWO = mc.Subscription(
    "sub_1", [mc.SubscriptionItem(f"si_{number}", CALLS) for number in (1, 2)], START
)


def begun(answers=None, **options):
    """Return a machine that has begun, of a service that gives these answers."""

    def answer(given):
        return lambda self, *_: given(self) if callable(given) else given

    methods = {"start": None, "record_usage": "accepted", **(answers or {})}
    made = {name: answer(given) for name, given in methods.items()}
    machine = type("Service", (BillingConformance,), {**made, **options})()
    machine.begin(([TWO], from_unix_seconds(START)))
    return machine


def raising(error):
    def refuse(_):
        raise error

    return refuse


RECORD = mc.UsageRecord("si_1", 5, START, id="a")
STRANGE = mc.UsageRecord("si_unknown", 5, START)
REFUSED = mc.UsageRejectedError(mc.ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, "no such item")


@pytest.mark.parametrize("answer", [None, "accepted", mc.Outcome.ACCEPTED])
def test_ways_to_accept(answer):
    """None and `accepted` both say that a record was taken."""
    begun({"record_usage": answer}).send(RECORD)


@pytest.mark.parametrize(
    "answer", ["rejected", "subscription_item_unknown", raising(REFUSED), raising(KeyError())]
)
def test_ways_to_refuse(answer):
    """A service may return that it refuses, with a code or without, or raise an exception that it
    declares.
    """
    begun({"record_usage": answer}, refusals=(KeyError, mc.UsageRejectedError)).send(STRANGE)
    with pytest.raises(ServiceDisagreesError, match="we answer 'accepted'"):
        begun({"record_usage": answer}, refusals=(KeyError, mc.UsageRejectedError)).send(RECORD)


@pytest.mark.parametrize("answer", ["subscription_item_unknown", raising(REFUSED)])
def test_codes_are_compared_where_that_is_asked_for(answer):
    """With `compare_codes` a refusal needs our code; without it any refusal does."""
    begun({"record_usage": answer}, compare_codes=True).send(STRANGE)
    begun({"record_usage": "rejected"}).send(STRANGE)
    with pytest.raises(
        ServiceDisagreesError,
        match=r"'rejected', we answer 'subscription_item_unknown'[\s\S]*No such",
    ):
        begun({"record_usage": "rejected"}, compare_codes=True).send(STRANGE)


def test_duplicates_are_told_apart_unless_excluded():
    """A retry is a duplicate; for a service that cannot say so, `accepted` is as good."""
    for options, is_right in (({}, False), ({"tell_duplicates": False}, True)):
        machine = begun(**options)
        machine.send(RECORD)
        if is_right:
            machine.send_again(RECORD)
        else:
            with pytest.raises(ServiceDisagreesError, match="'accepted', we answer 'duplicate'"):
                machine.send_again(RECORD)


def test_an_unknown_answer_is_refused_by_name():
    """A word that is none of ours is an error of the adapter, and not a refusal."""
    with pytest.raises(
        mc.InvalidValueError, match=r"record_usage: expected None, 'accepted'.*received 'ok'"
    ) as caught:
        begun({"record_usage": "ok"}).send(RECORD)
    assert caught.value.code == "parameter_invalid_choice"


def test_a_crash_of_the_service_says_after_which_steps():
    """An exception that is no refusal passes, with the steps as a note."""
    with pytest.raises(ZeroDivisionError) as caught:
        begun({"record_usage": raising(ZeroDivisionError())}).send(RECORD)
    assert "send increment si_1 by 5" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("bill", "options", "is_right"),
    [
        (35, {}, True),
        (34, {}, False),
        (35.5, {}, False),
        (None, {}, False),
        ([30, 5], {}, True),
        ([30, 5], {"line_by_line": True}, False),
        ([35, 0], {"line_by_line": True}, True),
        ([], {"line_by_line": True}, False),
    ],
)
def test_bills_are_compared(bill, options, is_right):
    """Five units at 7 cents are 35: as a total, or line by line where that is asked for, lines of 0
    aside.
    """
    machine = begun({"preview_invoice": bill}, **options)
    machine.send(RECORD)
    if is_right:
        machine.previews_agree()
    else:
        with pytest.raises(ServiceDisagreesError, match=r"we previewed USD 0\.35"):
            machine.previews_agree()


def test_finalized_bills_are_compared():
    """A period that has ended is billed on both sides, by total here."""
    machine = begun({"finalize_invoice": 36})
    machine.send(RECORD)
    period = TWO.period_at(START)
    machine.wait(period.end)
    with pytest.raises(
        ServiceDisagreesError,
        match=r"(?s)finalized USD 0\.36 for sub_1, we finalized USD 0\.35.*wait until",
    ):
        machine.finalize((TWO, period))


def test_a_total_is_no_list_of_lines():
    """Where lines are to be compared, a bare total is refused by name."""
    with pytest.raises(mc.InvalidValueError, match="line_by_line"):
        begun({"preview_invoice": 0}, line_by_line=True).previews_agree()


@pytest.mark.parametrize("method", ["start", "record_usage"])
def test_what_must_be_written_is_named(method):
    """A service without `start` or `record_usage` is told to write it."""
    with pytest.raises(NotImplementedError, match=f"write {method}\\(self"):
        getattr(BillingConformance(), method)(None, None)


def test_without_hypothesis_the_extra_is_named():
    """Where Hypothesis is missing, asking for the machine names the extra that brings it."""
    script = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import metering_core as mc, metering_core.testing as testing\n"
        "try: testing.conformance\n"
        "except mc.errors.MissingExtraError as error: print(error)\n"
    )
    expected = (
        "metering_core.testing.conformance needs the extra 'hypothesis': pip install "
        "'metering-core[hypothesis]'"
    )
    assert run_alone(script).strip() == expected
    assert "conformance" in dir(testing)
