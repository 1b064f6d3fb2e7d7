"""Money in columns: millions of quantities rated, and millions of items billed, at once.

It stands apart from the engines, which know no price. Needs the extra ``columnar``.
"""

from typing import TYPE_CHECKING

from metering_core.wings import doors

if TYPE_CHECKING:
    from metering_core.bulk.lines import InvoiceLines as InvoiceLines
    from metering_core.bulk.lines import invoice_lines as invoice_lines
    from metering_core.bulk.rating import RatedLines as RatedLines
    from metering_core.bulk.rating import rate_lines as rate_lines
    from metering_core.bulk.rating import rate_many as rate_many

__all__, __getattr__, __dir__ = doors(__name__)
