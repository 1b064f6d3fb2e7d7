"""The laws of billing as functions that raise where a law is broken, and say which and by what.

They hold for this library, and they are there to be run against yours: a pricing model or a formula
of your own, another engine behind the :class:`~metering_core.Usage` protocol, a log of your own, of
usage records or of meter events. Each states the truth independently of how it is computed here.
Most take a function that makes a log, so that a subclass or a stand-in can be held to them. Draw
their arguments with :mod:`metering_core.testing.strategies`, or write them down; Hypothesis is not
needed.

>>> import metering_core as mc
>>> tiers = [mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650)]
>>> check_rating_laws(mc.Price.graduated("seats", currency="usd", tiers=tiers), 5)
>>> second = 1_000_000
>>> readings = [(0, 1), (second, 2), (second, 6)]
>>> check_formula_laws(mc.Formula.AVERAGE, readings, {0, 2}, (0, 60 * second))
"""

from typing import TYPE_CHECKING

from metering_core.wings import doors

if TYPE_CHECKING:
    from metering_core.testing.laws.algebra import check_aggregator_laws as check_aggregator_laws
    from metering_core.testing.laws.algebra import check_cell_laws as check_cell_laws
    from metering_core.testing.laws.algebra import check_formula_laws as check_formula_laws
    from metering_core.testing.laws.bills import HOSTILE_CONTEXTS as HOSTILE_CONTEXTS
    from metering_core.testing.laws.bills import check_ambient_laws as check_ambient_laws
    from metering_core.testing.laws.bills import check_graduated_laws as check_graduated_laws
    from metering_core.testing.laws.bills import check_invoice_laws as check_invoice_laws
    from metering_core.testing.laws.bills import check_package_laws as check_package_laws
    from metering_core.testing.laws.bills import check_period_laws as check_period_laws
    from metering_core.testing.laws.bills import check_rating_laws as check_rating_laws
    from metering_core.testing.laws.bills import check_settle_laws as check_settle_laws
    from metering_core.testing.laws.bills import check_volume_laws as check_volume_laws
    from metering_core.testing.laws.lateness import check_carrying_laws as check_carrying_laws
    from metering_core.testing.laws.lateness import check_late_laws as check_late_laws
    from metering_core.testing.laws.lateness import check_unbilled_laws as check_unbilled_laws
    from metering_core.testing.laws.logs import check_append_laws as check_append_laws
    from metering_core.testing.laws.logs import check_compaction_laws as check_compaction_laws
    from metering_core.testing.laws.logs import check_engine_agrees as check_engine_agrees
    from metering_core.testing.laws.logs import check_retry_laws as check_retry_laws
    from metering_core.testing.laws.logs import check_snapshot_laws as check_snapshot_laws
    from metering_core.testing.laws.logs import check_usage_laws as check_usage_laws
    from metering_core.testing.laws.logs import metered_items as metered_items
    from metering_core.testing.laws.logs import used_periods as used_periods
    from metering_core.testing.laws.meters import check_arrival_laws as check_arrival_laws
    from metering_core.testing.laws.meters import check_cancel_laws as check_cancel_laws
    from metering_core.testing.laws.meters import check_summary_laws as check_summary_laws
    from metering_core.testing.laws.sentences import LAWS as LAWS
    from metering_core.testing.laws.sentences import LawBrokenError as LawBrokenError

_, __getattr__, __dir__ = doors(__name__)
