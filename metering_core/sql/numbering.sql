-- Numbering: the numbers that a log would give to the records which claimed the ids of duplicates.
--
-- Reads   judged     as judging writes it
-- Writes  seq of a record with a duplicate, and sequence, its number among the accepted ones in the order of arrival, from 1
--
-- Counted by blocks of seq, so that no machine has to sort all records.
WITH
accepted_in_blocks AS (
  SELECT seq, CAST(FLOOR(seq / 65536) AS BIGINT) AS block
  FROM judged
  WHERE verdict IS NULL
),
blocks AS (
  SELECT block, SUM(COUNT(*)) OVER (ORDER BY block) - COUNT(*) AS accepted_before
  FROM accepted_in_blocks
  GROUP BY block
),
originals AS (
  SELECT DISTINCT first_seq AS seq
  FROM judged
  WHERE verdict = 'duplicate'
),
touched_blocks AS (
  SELECT DISTINCT CAST(FLOOR(seq / 65536) AS BIGINT) AS block
  FROM originals
),
numbered AS (
  SELECT accepted_in_blocks.seq, accepted_in_blocks.block,
    ROW_NUMBER() OVER (PARTITION BY accepted_in_blocks.block ORDER BY accepted_in_blocks.seq) AS number_in_block
  FROM accepted_in_blocks
  JOIN touched_blocks
    ON touched_blocks.block = accepted_in_blocks.block
)
SELECT numbered.seq, CAST(blocks.accepted_before + numbered.number_in_block AS BIGINT) AS sequence
FROM numbered
JOIN originals
  ON originals.seq = numbered.seq
JOIN blocks
  ON blocks.block = numbered.block
