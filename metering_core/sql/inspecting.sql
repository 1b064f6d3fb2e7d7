-- Inspecting: what each item has, and the first malformed value of each column.
--
-- Reads   usage      as judging reads it
-- Writes  one row an item: the bounds of its timestamps and moments of receipt, and by column the seq of the first malformed row
SELECT
  subscription_item,
  MIN(timestamp) AS first_timestamp, MAX(timestamp) AS last_timestamp,
  MIN(received) AS first_received, MAX(received) AS last_received,
  MIN(CASE WHEN subscription_item IS NULL OR LENGTH(subscription_item) NOT BETWEEN 1 AND 255 THEN seq END) AS bad_item,
  MIN(CASE WHEN quantity IS NULL OR quantity < 0 THEN seq END) AS bad_quantity,
  MIN(CASE WHEN timestamp IS NULL OR timestamp NOT BETWEEN -62135596800 AND 253402300799 THEN seq END) AS bad_timestamp,
  MIN(CASE WHEN is_set IS NULL THEN seq END) AS bad_action,
  MIN(CASE WHEN LENGTH(id) NOT BETWEEN 1 AND 255 THEN seq END) AS bad_id,
  MIN(CASE WHEN received IS NULL OR received NOT BETWEEN -62135596800 AND 253402300799 THEN seq END) AS bad_received
FROM usage
GROUP BY subscription_item
