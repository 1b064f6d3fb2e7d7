"""What people who own prices ask: is this price what it was meant to be, and what would another
one change? Audits, comparisons, usage rated again, and curves.
"""

from typing import TYPE_CHECKING

from metering_core.wings import doors

if TYPE_CHECKING:
    from metering_core.tariffs.auditing import Finding as Finding
    from metering_core.tariffs.auditing import FindingCode as FindingCode
    from metering_core.tariffs.auditing import Severity as Severity
    from metering_core.tariffs.auditing import audit as audit
    from metering_core.tariffs.comparing import Comparison as Comparison
    from metering_core.tariffs.comparing import Direction as Direction
    from metering_core.tariffs.comparing import Gap as Gap
    from metering_core.tariffs.comparing import Stretch as Stretch
    from metering_core.tariffs.comparing import compare as compare
    from metering_core.tariffs.pieces import tariff as tariff
    from metering_core.tariffs.plotting import curve as curve
    from metering_core.tariffs.rerating import UsageChange as UsageChange
    from metering_core.tariffs.rerating import UsageComparison as UsageComparison
    from metering_core.tariffs.rerating import compare_usage as compare_usage
    from metering_core.tariffs.rerating import summaries_at as summaries_at

__all__, __getattr__, __dir__ = doors(__name__)
