-- Entries: accepted records as folding reads them.
--
-- Reads   judged     as judging writes it
-- Writes  entries    the accepted ones. A cell is all the usage of one item at one timestamp, in one period: what is late and
--                    billed in another one is a part by itself
SELECT
  seq, item AS series, billed_at AS part, timestamp AS cell, billed_at AS place, timestamp, billed_at, quantity AS amount,
  CAST(NULL AS BIGINT) AS text, is_set
FROM judged
WHERE verdict IS NULL
