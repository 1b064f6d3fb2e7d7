-- Sifting: which column of a row is the first that is malformed.
--
-- Reads   given      one row a record: seq (order of arrival, unique and never NULL), subscription_item, quantity, timestamp and
--                    received (Unix seconds), is_set, id (NULL where it has none); NULL where a value could not be read exactly
-- Writes  sifted     the same rows, with fault: the column at fault, or NULL. `usage`, which judging reads, are those without
SELECT
  given.*,
  CASE
    WHEN subscription_item IS NULL OR LENGTH(subscription_item) NOT BETWEEN 1 AND 255 THEN 'subscription_item'
    WHEN quantity IS NULL OR quantity < 0 THEN 'quantity'
    WHEN timestamp IS NULL OR timestamp NOT BETWEEN -62135596800 AND 253402300799 THEN 'timestamp'
    WHEN is_set IS NULL THEN 'action'
    WHEN LENGTH(id) NOT BETWEEN 1 AND 255 THEN 'id'
    WHEN received IS NULL OR received NOT BETWEEN -62135596800 AND 253402300799 THEN 'received_at'
  END AS fault
FROM given
