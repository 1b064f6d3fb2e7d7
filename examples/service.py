"""A service in thirty lines: usage in, a preview, an invoice and its reasons out."""

import json
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import metering_core as mc

TIERS = [mc.Tier(100_000, unit_amount="0.003"), mc.Tier("inf", unit_amount="0.0025")]  # in cents
TOKENS = mc.Price.graduated("tokens", currency="usd", nickname="Tokens", tiers=TIERS)
ITEM = mc.SubscriptionItem("acme_tokens", TOKENS)
ACME = mc.Subscription("acme", [ITEM], datetime(2026, 10, 1, tzinfo=UTC))
log = mc.UsageLog([ACME])


def report(tokens: int, request: str, now: datetime) -> str:
    """Take usage. The same request, sent again whenever it may be, changes nothing."""
    (receipt,) = log.append([mc.UsageRecord("acme_tokens", tokens, id=request)], now=now)
    return receipt.message or receipt.outcome.value


def close_months(now: datetime) -> list[mc.Invoice]:
    """Finalize every month that has ended; of one that was billed the same invoice comes again."""
    months = takewhile(lambda month: month.end <= now, ACME.periods_from(ACME.start_date))
    return [mc.finalize_invoice(ACME, log, month, now=now) for month in months]


noon = datetime(2026, 10, 5, 12, tzinfo=UTC)
print("reported:", report(101_000, "request-7", noon))
print("and again:", report(101_000, "request-7", noon + timedelta(days=2)))
print("so far:", mc.preview_invoice(ACME, log, now=noon).money)
log = mc.restore(json.loads(json.dumps(mc.snapshot(log))))  # As after a restart.
(october,) = close_months(datetime(2026, 11, 1, tzinfo=UTC))
print("October:", october.money)
print(mc.explain(october.lines[1]))
