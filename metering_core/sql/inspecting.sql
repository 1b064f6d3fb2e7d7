-- Inspecting: what each item has.
--
-- Reads   sifted     as sifting writes it
-- Writes  one row an item: how many rows are malformed and the seq of the first of them; how many are not, and the bounds of
--         their timestamps and moments of receipt
SELECT
  subscription_item,
  COUNT(fault) AS malformed, MIN(CASE WHEN fault IS NOT NULL THEN seq END) AS first_malformed,
  COUNT(*) - COUNT(fault) AS usable,
  MIN(CASE WHEN fault IS NULL THEN timestamp END) AS first_timestamp,
  MAX(CASE WHEN fault IS NULL THEN timestamp END) AS last_timestamp,
  MIN(CASE WHEN fault IS NULL THEN received END) AS first_received,
  MAX(CASE WHEN fault IS NULL THEN received END) AS last_received
FROM sifted
GROUP BY subscription_item
