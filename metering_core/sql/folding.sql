-- Folding: from accepted records to one partial for each request.
--
-- Reads   accepted   the judged records whose verdict is NULL: seq, item, timestamp, quantity, is_set, billed_at (a moment in
--                    the period that bills the record: its timestamp, unless a later period bills it)
--         requests   request (its number), item, aggregate_usage, and the period [starts, ends); where the mode looks back,
--                    starts is the beginning of time
-- Writes  partials   request, timestamp (of the latest cell; 0 for a sum), quantity; no row without usage
--
-- A cell is all the usage of one item at one timestamp (in one period). Its value is the sum of its records from its last
-- `set` on, which says the fold without an order: an increment before a `set` does not count, the `set` and all after it do.
WITH
asked AS (
  SELECT
    request, item, starts, ends, aggregate_usage = 'sum' AS adds_up,
    aggregate_usage IN ('last_during_period', 'last_ever') AS wants_latest
  FROM requests
),
requested AS (
  -- The records of each request. Periods are half-open: the start is in, the end is out.
  SELECT
    asked.request, asked.adds_up, asked.wants_latest,
    accepted.seq, accepted.timestamp, accepted.billed_at, accepted.quantity, accepted.is_set
  FROM accepted
  JOIN asked
    ON asked.item = accepted.item
    AND asked.starts <= accepted.billed_at AND accepted.billed_at < asked.ends
),
latest AS (
  -- The timestamp that the last_… modes bill: the greatest, not the one that arrived last.
  SELECT request, MAX(timestamp) AS timestamp
  FROM requested
  WHERE wants_latest
  GROUP BY request
),
billable AS (
  -- Records in cells that can show in the result: all of them, or for the last_… modes those of the latest timestamp.
  SELECT
    requested.request, requested.adds_up, requested.seq, requested.timestamp, requested.billed_at, requested.quantity,
    requested.is_set
  FROM requested
  LEFT JOIN latest
    ON latest.request = requested.request
  WHERE NOT requested.wants_latest OR requested.timestamp = latest.timestamp
),
last_sets AS (
  -- The last `set` of each cell that has one.
  SELECT request, billed_at, timestamp, MAX(seq) AS seq
  FROM billable
  WHERE is_set
  GROUP BY request, billed_at, timestamp
),
counted AS (
  -- Records from the last `set` of their cell on, and all records of a cell without one. A sum adds up to one cell at the end.
  SELECT
    billable.request,
    CASE WHEN billable.adds_up THEN 0 ELSE billable.billed_at END AS billed_at,
    CASE WHEN billable.adds_up THEN 0 ELSE billable.timestamp END AS timestamp,
    CAST(billable.quantity AS DECIMAL(38, 0)) AS quantity
  FROM billable
  LEFT JOIN last_sets
    ON last_sets.request = billable.request
    AND last_sets.billed_at = billable.billed_at
    AND last_sets.timestamp = billable.timestamp
  WHERE last_sets.seq IS NULL OR billable.seq >= last_sets.seq
),
cells AS (
  SELECT request, timestamp, SUM(quantity) AS quantity
  FROM counted
  GROUP BY request, billed_at, timestamp
)
-- max: the greatest cell. last_…: the latest cell, the only timestamp left of its request. sum: its one cell.
SELECT request, MAX(timestamp) AS timestamp, MAX(quantity) AS quantity
FROM cells
GROUP BY request
