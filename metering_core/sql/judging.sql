-- Judging: which records count, and why the others do not.
--
-- Reads   usage      one row a record: seq (order of arrival, unique and never NULL), subscription_item, quantity, timestamp
--                    and received (Unix seconds), is_set, id (NULL where it has none)
--         items      one row a subscription item: subscription_item, item (its number), calendar, aggregate_usage (NULL where
--                    the price takes no usage records), has_thresholds
--         standings  how the subscriptions of a calendar stand for records received in [received_from, received_before):
--                    is_ended, future_tolerance, current_end (NULL outside a life), accepted_from and accepted_before (the
--                    timestamps that are in time, an empty interval where none is), late_billed_at (where usage of a closed
--                    period is billed in the current one: the start of that; else NULL)
--         closings   what was finalized of a calendar: timestamps in [starts, ends) are closed; the intervals are disjoint;
--                    bills_late says whether an increment there is the difference it makes in the period that bills it
-- Writes  judged     every record with its verdict: NULL where it was accepted, 'duplicate', or the code of the refusal
WITH
placed AS (
  -- Each record beside its item, the standing of its subscription when it arrived, and the closing that covers it.
  SELECT
    usage.seq, usage.subscription_item, usage.quantity, usage.timestamp, usage.is_set, usage.id, usage.received,
    items.item, items.aggregate_usage, items.has_thresholds,
    standings.is_ended, standings.future_tolerance, standings.current_end,
    standings.accepted_from, standings.accepted_before, standings.late_billed_at,
    closings.calendar AS closed_calendar, closings.bills_late
  FROM usage
  LEFT JOIN items
    ON items.subscription_item = usage.subscription_item
  LEFT JOIN standings
    ON standings.calendar = items.calendar
    AND standings.received_from <= usage.received AND usage.received < standings.received_before
  LEFT JOIN closings
    ON closings.calendar = items.calendar
    AND closings.starts <= usage.timestamp AND usage.timestamp < closings.ends
),
judged_alone AS (
  -- The first reason that refuses the record, other records aside; NULL where there is none.
  SELECT
    seq, subscription_item, quantity, timestamp, is_set, id, received, item,
    CASE WHEN closed_calendar IS NULL THEN timestamp ELSE late_billed_at END AS billed_at,
    CASE
      WHEN item IS NULL THEN 'subscription_item_unknown'
      WHEN aggregate_usage IS NULL THEN 'price_not_metered'
      WHEN is_ended AND NOT (accepted_from <= timestamp AND timestamp < accepted_before) THEN 'subscription_canceled'
      WHEN is_set AND has_thresholds THEN 'set_with_billing_thresholds'
      WHEN timestamp > received + future_tolerance THEN 'timestamp_in_future'
      WHEN timestamp >= current_end THEN 'timestamp_after_current_period'
      WHEN NOT (accepted_from <= timestamp AND timestamp < accepted_before) THEN 'timestamp_before_current_period'
      WHEN closed_calendar IS NOT NULL AND (late_billed_at IS NULL OR timestamp >= late_billed_at) THEN 'period_closed'
      WHEN closed_calendar IS NOT NULL AND (is_set OR NOT bills_late) THEN 'late_usage_not_billable'
    END AS refusal
  FROM placed
),
claims AS (
  -- The first otherwise acceptable record of an item and id claims it, with what it said.
  SELECT
    item, id, MIN(seq) AS seq, MIN_BY(quantity, seq) AS quantity, MIN_BY(timestamp, seq) AS timestamp,
    MIN_BY(is_set, seq) AS is_set
  FROM judged_alone
  WHERE id IS NOT NULL AND refusal IS NULL
  GROUP BY item, id
)
-- Identity is judged before anything that time can change: a later record of a claimed id is a retry or a misuse of it.
SELECT
  alone.seq, alone.subscription_item, alone.quantity, alone.timestamp, alone.is_set, alone.id, alone.received,
  alone.item, alone.billed_at,
  claims.seq AS first_seq, claims.quantity AS first_quantity, claims.timestamp AS first_timestamp,
  claims.is_set AS first_is_set,
  CASE
    WHEN claims.seq >= alone.seq OR claims.seq IS NULL THEN alone.refusal
    WHEN claims.quantity = alone.quantity AND claims.timestamp = alone.timestamp AND claims.is_set = alone.is_set
      THEN 'duplicate'
    ELSE 'id_reused'
  END AS verdict
FROM judged_alone AS alone
LEFT JOIN claims
  ON claims.item = alone.item AND claims.id = alone.id
