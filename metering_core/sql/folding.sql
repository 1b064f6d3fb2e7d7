-- Folding: from accepted records to what each request needs of their cells.
--
-- Reads   accepted   the judged records whose verdict is NULL: seq, item, timestamp, quantity, is_set, billed_at (a moment in
--                    the period that bills the record: its timestamp, unless a later period bills it)
--         requests   request (its number), item, adds_up (whether only the total is needed), wants_total (whether it is needed),
--                    wants_latest (whether only the latest cell is), window_length (of the windows that are looked at apart,
--                    in seconds; 0 without), and the period [starts, ends); where the mode looks back, starts is the beginning
--                    of time
-- Writes  partials   request, bucket (where the window begins; NULL without windows, else there is a row for each that has
--                    usage), cells (how many), total (NULL unless wants_total, since many cells may have more digits together
--                    than each has), greatest, least, and timestamp of the latest cell, which is the greatest where only it
--                    is asked for; no row without usage
--
-- A cell is all the usage of one item at one timestamp (in one period). Its value is the sum of its records from its last
-- `set` on, which says the fold without an order: an increment before a `set` does not count, the `set` and all after it do.
WITH
requested AS (
  -- The records of each request. Periods are half-open: the start is in, the end is out.
  SELECT
    requests.request, requests.adds_up, requests.wants_latest,
    accepted.seq, accepted.timestamp, accepted.billed_at, accepted.quantity, accepted.is_set
  FROM accepted
  JOIN requests
    ON requests.item = accepted.item
    AND requests.starts <= accepted.billed_at AND accepted.billed_at < requests.ends
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
-- Where only the latest cell is needed, it is the only timestamp left of its request; where only the total is, it is one cell.
SELECT
  cells.request,
  cells.timestamp - MOD(MOD(cells.timestamp, length) + length, length) AS bucket,
  COUNT(*) AS cells, SUM(CASE WHEN wants_total THEN cells.quantity END) AS total,
  MAX(cells.quantity) AS greatest, MIN(cells.quantity) AS least, MAX(cells.timestamp) AS timestamp
FROM cells
JOIN (SELECT request, wants_total, NULLIF(window_length, 0) AS length FROM requests) AS wanted
  ON wanted.request = cells.request
GROUP BY cells.request, bucket
