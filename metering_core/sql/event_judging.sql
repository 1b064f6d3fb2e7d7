-- Judging meter events: which count, and why the others do not.
--
-- Reads   usage      one row an event: seq (order of arrival, unique and never NULL), event_name, customer, value (the text of
--                    the payload), timestamp and received (Unix microseconds), identifier (NULL where it has none),
--                    all_dimensions (as one text), dimensions (the values of those that its meter has, as one text; NULL where
--                    one is missing), dimension_count
--         meters     one row a meter: event_name, meter (its number), formula, is_active, places (how many decimal places a
--                    value may have; NULL for any), window_length (of its event time window, in microseconds; 0 without one)
--         billed     one row a meter and customer with an item: meter, customer, series (its number)
--         customers  the customers whose events are accepted, where rules.has_customers
--         rules      one row: has_customers, significant_digits, is_positive, dimensions_max, backdate, tolerance (the last four
--                    NULL where there is no bound; microseconds), is_global (whether identifiers are unique over all meters),
--                    decimal_places (values are counted in units of ten to the minus so many)
-- Writes  judged     every event with its verdict: NULL where it was accepted, 'duplicate', or the code of the refusal; units is
--                    the value as a whole number of units, NULL where it has none or where 38 digits do not hold it
WITH
placed AS (
  -- Each event beside its meter, and its value cut at the point. What is no plain decimal number is no number.
  SELECT
    usage.seq, usage.event_name, usage.customer, usage.value, usage.timestamp, usage.received, usage.identifier,
    usage.all_dimensions, usage.dimensions, usage.dimension_count,
    meters.meter, meters.formula, meters.is_active, meters.places, meters.window_length,
    billed.series, customers.customer IS NOT NULL AS is_known,
    CASE WHEN rules.is_global THEN '' ELSE usage.event_name END AS scope,
    rules.has_customers, rules.significant_digits, rules.is_positive, rules.dimensions_max, rules.backdate, rules.tolerance,
    rules.decimal_places,
    value <> '' AND REGEXP_EXTRACT(value, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)$', 0) = value AS is_plain,
    SUBSTRING(value, 1, 1) = '-' AS is_negative,
    REGEXP_EXTRACT(value, '^[+-]?([0-9]*)', 1) AS whole,
    REGEXP_EXTRACT(value, '[.]([0-9]*)$', 1) AS fraction
  FROM usage
  CROSS JOIN rules
  LEFT JOIN meters
    ON meters.event_name = usage.event_name
  LEFT JOIN billed
    ON billed.meter = meters.meter AND billed.customer = usage.customer
  LEFT JOIN customers
    ON customers.customer = usage.customer
),
measured AS (
  -- Each value as a whole number of units, and whether the meter can read it.
  SELECT
    placed.*,
    is_plain AND LENGTH(whole) <= 100 AND LENGTH(fraction) <= 100 AS is_number,
    TRIM(TRAILING '0' FROM fraction) AS digits_after,
    TRIM(BOTH '0' FROM CONCAT(whole, fraction)) AS significant,
    CASE WHEN is_plain AND LENGTH(TRIM(TRAILING '0' FROM fraction)) <= decimal_places THEN
      TRY_CAST(CONCAT(
        CASE WHEN is_negative THEN '-' ELSE '' END, whole,
        RPAD(TRIM(TRAILING '0' FROM fraction), CAST(decimal_places AS INTEGER), '0'),
        CASE WHEN whole = '' AND decimal_places = 0 THEN '0' ELSE '' END
      ) AS DECIMAL(38, 0))
    END AS units
  FROM placed
),
judged_alone AS (
  -- The first reason that refuses the event, other events aside; NULL where there is none.
  SELECT
    measured.*,
    CASE
      WHEN meter IS NULL THEN 'meter_unknown'
      WHEN NOT is_active THEN 'meter_inactive'
      WHEN customer IS NULL OR customer = '' THEN 'customer_missing'
      WHEN (has_customers AND NOT is_known) OR LENGTH(customer) > 255 THEN 'customer_unknown'
      WHEN value IS NULL AND formula <> 'count' THEN 'value_missing'
      WHEN value IS NOT NULL AND formula <> 'unique_count' AND (
        NOT is_number OR LENGTH(digits_after) > places OR (is_positive AND (is_negative OR significant = ''))
      ) THEN 'value_invalid'
      WHEN value IS NOT NULL AND formula <> 'unique_count' AND LENGTH(significant) > significant_digits
        THEN 'value_too_many_digits'
      WHEN dimensions IS NULL THEN 'dimension_missing'
      WHEN dimension_count > dimensions_max THEN 'too_many_dimensions'
      -- Days begin at midnight, also before 1970.
      WHEN timestamp < received - MOD(MOD(received, 86400000000) + 86400000000, 86400000000) - backdate
        THEN 'timestamp_too_far_in_past'
      WHEN timestamp > received + tolerance THEN 'timestamp_in_future'
    END AS refusal
  FROM measured
),
claims AS (
  -- The first otherwise acceptable event of a scope and identifier claims it, with what it said.
  SELECT
    scope, identifier, MIN(seq) AS seq, MIN_BY(event_name, seq) AS event_name, MIN_BY(customer, seq) AS customer,
    MIN_BY(COALESCE(value, 'none'), seq) AS value, MIN_BY(value IS NULL, seq) AS lacks_value,
    MIN_BY(timestamp, seq) AS timestamp, MIN_BY(all_dimensions, seq) AS all_dimensions
  FROM judged_alone
  WHERE identifier IS NOT NULL AND refusal IS NULL
  GROUP BY scope, identifier
)
-- Identity is judged before anything that time can change: a later event of a claimed identifier is a retry or a misuse of it.
SELECT
  alone.seq, alone.meter, alone.customer, alone.series, alone.dimensions, alone.timestamp, alone.value, alone.units,
  alone.formula, alone.window_length, claims.seq AS first_seq,
  CASE
    WHEN claims.seq >= alone.seq OR claims.seq IS NULL THEN alone.refusal
    WHEN claims.event_name = alone.event_name AND claims.customer IS NOT DISTINCT FROM alone.customer
      AND claims.value = COALESCE(alone.value, 'none') AND claims.lacks_value = (alone.value IS NULL)
      AND claims.timestamp = alone.timestamp AND claims.all_dimensions = alone.all_dimensions
      THEN 'duplicate'
    ELSE 'identifier_reused'
  END AS verdict
FROM judged_alone AS alone
LEFT JOIN claims
  ON claims.scope = alone.scope AND claims.identifier = alone.identifier
