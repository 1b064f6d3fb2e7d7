-- Entries of meter events: accepted events as folding reads them.
--
-- Reads   judged     as judging writes it
--         canceled   the seq of each accepted event that was canceled afterwards
-- Writes  entries    the accepted ones that were not canceled and that an item bills. An event is a cell of its own; in an event
--                    time window it replaces what was received before it of the same dimensions
SELECT
  judged.seq, series, dimensions AS part,
  CASE WHEN window_length > 0
    THEN timestamp - MOD(MOD(timestamp, window_length) + window_length, window_length) ELSE judged.seq
  END AS cell,
  judged.seq AS place, timestamp, timestamp AS billed_at, units AS amount, value AS text, window_length > 0 AS is_set
FROM judged
LEFT JOIN canceled
  ON canceled.seq = judged.seq
WHERE verdict IS NULL AND canceled.seq IS NULL AND series IS NOT NULL
