// Package dialect turns GoogleSQL text into DuckDB SQL text with the meaning
// that BigQuery documents, for an emulator that stores its tables in DuckDB.
//
// What the two engines do differently is rewritten (NULL and NaN ordering,
// integer division, rounding, date parts, division by zero, literals, ...).
// What is not known to mean the same is refused by name with an *Unsupported:
// nothing is passed through in the hope that it works.
//
// Values are stored as: STRING VARCHAR, BYTES BLOB, INT64 BIGINT, FLOAT64
// DOUBLE, BOOL BOOLEAN, NUMERIC DECIMAL(38, 9), BIGNUMERIC VARCHAR holding its
// canonical text (as CAST(x AS STRING) gives it in BigQuery), DATE DATE,
// DATETIME TIMESTAMP, TIMESTAMP TIMESTAMPTZ, TIME TIME, JSON JSON, INTERVAL
// INTERVAL, ARRAY<T> a list, STRUCT a struct. The session's TimeZone is UTC.
//
// Known to differ: FLOAT64 + - * that overflows gives Infinity where BigQuery
// fails; a NULL inside an ARRAY of a query's result is kept where BigQuery
// fails; NUMERIC products and quotients of more than 38 digits fail earlier;
// JSON_VALUE of a STRING gives numbers in DuckDB's spelling (1.50 as 1.5).
package dialect
