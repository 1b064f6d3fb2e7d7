-- Folding: from accepted usage, of either kind, to what each request needs of its cells.
--
-- Reads   entries    accepted usage: seq (order of arrival), series (whose usage it is), part and cell (within which a `set`
--                    replaces what was there before), place (what tells cells of one timestamp apart), timestamp, billed_at (a
--                    moment in the period that bills it), amount, text (what counts different values), is_set
--         requests   request (its number), series, the period [starts, ends), looks_back (whether all that came before it counts
--                    too), the moments [reads_from, reads_before) that hold every cell which the period meets; adds_up (whether
--                    only the total is needed), wants_total (whether it is needed), wants_latest (whether only the latest cell
--                    is), is_windowed (whether its cells are windows), wants_texts (whether different texts are told apart), wants_area (whether amounts are weighed by
--                    time), window_length (of the windows that are looked at apart; 0 without)
-- Writes  partials   request, text (NULL unless wants_texts, else there is a row for each), bucket (where the window begins; NULL
--                    without windows, else there is a row for each that has usage), cells (how many), total (NULL unless
--                    wants_total, since many cells may have more digits together than each has), greatest, least, the
--                    greatest timestamp, place and amount of the latest cell where only that is asked for, and area: the sum of amounts times
--                    the time since starts; no row without usage
--
-- A usage record belongs to the cell of its item and timestamp. A meter event is a cell of its own, or where its meter has a
-- window, a `set` of that window. The value of a cell is the sum of its entries from its last `set` on, which says the fold
-- without an order: an increment before a `set` does not count, the `set` and all after it do.
WITH
requested AS (
  -- The entries that a request must see. A window may reach beyond the period, and another entry of it may count there.
  -- Periods are half-open: the start is in, the end is out.
  SELECT
    requests.request, requests.adds_up, requests.wants_latest AND NOT requests.is_windowed AS is_latest,
    entries.seq, entries.part, entries.cell, entries.timestamp, entries.place, entries.amount, entries.is_set,
    CASE WHEN requests.wants_texts THEN entries.text END AS text,
    (requests.looks_back OR requests.starts <= entries.billed_at) AND entries.billed_at < requests.ends AS is_within
  FROM entries
  JOIN requests
    ON requests.series = entries.series
    AND requests.reads_from <= entries.billed_at AND entries.billed_at < requests.reads_before
),
latest AS (
  -- The timestamp of the latest cell: the greatest, not the one that arrived last.
  SELECT request, MAX(timestamp) AS timestamp
  FROM requested
  WHERE is_latest
  GROUP BY request
),
billable AS (
  -- Entries in cells that can show in the result: all of them, or those of the latest timestamp.
  SELECT requested.*
  FROM requested
  LEFT JOIN latest
    ON latest.request = requested.request
  WHERE NOT requested.is_latest OR requested.timestamp = latest.timestamp
),
last_sets AS (
  -- The last `set` of each cell that has one.
  SELECT request, part, cell, MAX(seq) AS seq
  FROM billable
  WHERE is_set
  GROUP BY request, part, cell
),
counted AS (
  -- Entries from the last `set` of their cell on, and all of a cell without one. What only adds up is one cell at the end.
  SELECT
    billable.request, billable.text, CAST(billable.amount AS DECIMAL(38, 0)) AS amount,
    CASE WHEN billable.adds_up THEN 0 ELSE billable.place END AS place,
    CASE WHEN billable.adds_up THEN 0 ELSE billable.timestamp END AS timestamp
  FROM billable
  LEFT JOIN last_sets
    ON last_sets.request = billable.request
    AND last_sets.part = billable.part
    AND last_sets.cell = billable.cell
  WHERE (last_sets.seq IS NULL OR billable.seq >= last_sets.seq) AND is_within
),
cells AS (
  SELECT request, place, timestamp, MAX(text) AS text, SUM(amount) AS amount
  FROM counted
  GROUP BY request, place, timestamp
)
-- The latest cell is the one of the greatest timestamp, and of those the one of the greatest place, which has 64 bits.
SELECT
  cells.request, cells.text,
  cells.timestamp - MOD(MOD(cells.timestamp, length) + length, length) AS bucket,
  COUNT(*) AS cells, SUM(CASE WHEN wants_total THEN cells.amount END) AS total,
  MAX(cells.amount) AS greatest, MIN(cells.amount) AS least,
  MAX(cells.timestamp) AS timestamp,
  MAX_BY(cells.place, CASE WHEN wants_latest THEN
    CAST(cells.timestamp * CAST(18446744073709551616 AS DECIMAL(20, 0)) AS DECIMAL(38, 0)) + cells.place
  END) AS place,
  MAX_BY(cells.amount, CASE WHEN wants_latest THEN
    CAST(cells.timestamp * CAST(18446744073709551616 AS DECIMAL(20, 0)) AS DECIMAL(38, 0)) + cells.place
  END) AS latest,
  SUM(CASE WHEN wants_area THEN
    CAST(cells.amount * CAST(GREATEST(cells.timestamp - starts, 0) AS DECIMAL(19, 0)) AS DECIMAL(38, 0))
  END) AS area
FROM cells
JOIN (
  SELECT request, wants_latest, wants_total, wants_area, starts, NULLIF(window_length, 0) AS length
  FROM requests
) AS wanted
  ON wanted.request = cells.request
GROUP BY cells.request, cells.text, bucket
