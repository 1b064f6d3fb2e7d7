-- Folding: from accepted usage, of either kind, to what each request needs of its cells.
--
-- Reads   entries    accepted usage: seq (order of arrival), series (whose usage it is), part and cell (which together say what
--                    cell of the series it belongs to), timestamp, billed_at (a moment in the period that bills it), amount, text
--                    (what counts different values), is_set (whether it replaces what its cell had before)
--         requests   request (its number), series, the period [starts, ends), looks_back (whether all that came before it counts
--                    too), the moments [reads_from, reads_before) that hold every cell which the period meets; adds_up (whether
--                    only the total is needed), wants_total (whether it is needed), wants_latest (whether only the latest cell
--                    is), wants_texts (whether different texts are told apart), wants_area (whether amounts are weighed by
--                    time), window_length (of the windows that are looked at apart; 0 without)
-- Writes  partials   request, text (NULL unless wants_texts, else there is a row for each), bucket (where the window begins; NULL
--                    without windows, else there is a row for each that has usage), cells (how many), total (NULL unless
--                    wants_total, since many cells may have more digits together than each has), greatest, least, timestamp and
--                    seq of the latest cell and its amount, where only that is asked for, and area: the sum of amounts times
--                    the time since starts; no row without usage
--
-- A usage record belongs to the cell of its item and timestamp. A meter event is a cell of its own, or where its meter has a
-- window, a `set` of that window. The value of a cell is the sum of its entries from its last `set` on, which says the fold
-- without an order: an increment before a `set` does not count, the `set` and all after it do.
WITH
requested AS (
  -- The entries that a request must see. A window may reach beyond the period, and another entry of it may count.
  SELECT
    requests.request, requests.adds_up, requests.wants_latest, requests.looks_back, requests.starts, requests.ends,
    entries.seq, entries.part, entries.cell, entries.timestamp, entries.billed_at, entries.amount, entries.is_set,
    CASE WHEN requests.wants_texts THEN entries.text END AS text
  FROM entries
  JOIN requests
    ON requests.series = entries.series
    AND requests.reads_from <= entries.billed_at AND entries.billed_at < requests.reads_before
),
last_sets AS (
  -- The last `set` of each cell that has one.
  SELECT request, part, cell, MAX(seq) AS seq
  FROM requested
  WHERE is_set
  GROUP BY request, part, cell
),
counted AS (
  -- Entries from the last `set` of their cell on, and all of a cell without one. Periods are half-open: the start is in, the
  -- end is out.
  SELECT
    requested.request, requested.adds_up, requested.wants_latest, requested.seq, requested.part, requested.cell,
    requested.timestamp, requested.amount, requested.text
  FROM requested
  LEFT JOIN last_sets
    ON last_sets.request = requested.request
    AND last_sets.part = requested.part
    AND last_sets.cell = requested.cell
  WHERE (last_sets.seq IS NULL OR requested.seq >= last_sets.seq)
    AND (looks_back OR starts <= billed_at) AND billed_at < ends
),
latest AS (
  -- The timestamp of the latest cell: the greatest, not the one that arrived last.
  SELECT request, MAX(timestamp) AS timestamp
  FROM counted
  WHERE wants_latest
  GROUP BY request
),
cells AS (
  -- Cells that can show in the result: all of them, or those of the latest timestamp. What only adds up is one cell at the end.
  SELECT
    counted.request, MAX(counted.text) AS text, MAX(counted.timestamp) AS timestamp, MAX(counted.seq) AS seq,
    SUM(CAST(counted.amount AS DECIMAL(38, 0))) AS amount
  FROM counted
  LEFT JOIN latest
    ON latest.request = counted.request
  WHERE NOT counted.wants_latest OR counted.timestamp = latest.timestamp
  GROUP BY
    counted.request, CASE WHEN counted.adds_up THEN NULL ELSE counted.part END,
    CASE WHEN counted.adds_up THEN NULL ELSE counted.cell END
)
SELECT
  cells.request, cells.text,
  cells.timestamp - MOD(MOD(cells.timestamp, length) + length, length) AS bucket,
  COUNT(*) AS cells, SUM(CASE WHEN wants_total THEN cells.amount END) AS total,
  MAX(cells.amount) AS greatest, MIN(cells.amount) AS least,
  MAX(cells.timestamp) AS timestamp, MAX(cells.seq) AS seq, MAX_BY(cells.amount, cells.seq) AS latest,
  SUM(CASE WHEN wants_area THEN
    CAST(cells.amount * CAST(GREATEST(cells.timestamp - starts, 0) AS DECIMAL(19, 0)) AS DECIMAL(38, 0))
  END) AS area
FROM cells
JOIN (SELECT request, wants_total, wants_area, starts, NULLIF(window_length, 0) AS length FROM requests) AS wanted
  ON wanted.request = cells.request
GROUP BY cells.request, cells.text, bucket
