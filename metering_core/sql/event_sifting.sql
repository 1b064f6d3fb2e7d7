-- Sifting meter events: which column of a row is the first that is malformed.
--
-- Reads   given      one row an event: seq (order of arrival, unique and never NULL), event_name, customer, value (its text),
--                    is_inexact (whether the value was a float before it was text), timestamp and received (Unix microseconds),
--                    identifier (NULL where it has none), and the dimensions; NULL where a value could not be read exactly
-- Writes  sifted     the same rows, with fault: the column at fault, or NULL. `usage`, which judging reads, are those without
SELECT
  given.*,
  CASE
    WHEN timestamp IS NULL OR timestamp NOT BETWEEN -62135596800000000 AND 253402300799999999 THEN 'timestamp'
    WHEN received IS NULL OR received NOT BETWEEN -62135596800000000 AND 253402300799999999 THEN 'received_at'
    WHEN event_name IS NULL OR LENGTH(event_name) NOT BETWEEN 1 AND 100 THEN 'event_name'
    WHEN LENGTH(identifier) NOT BETWEEN 1 AND 100 THEN 'identifier'
    WHEN is_inexact THEN 'value'
  END AS fault
FROM given
