// Package bigquery is an emulator of BigQuery for tests and demonstrations.
//
// It speaks the REST v2 API and the Storage Read and Write gRPC APIs as the
// official Go clients use them, stores in an in-memory DuckDB, and is strict
// where BigQuery is strict: pending data is invisible and committed
// atomically, values are checked against the type and range of their column,
// job ids are idempotent, quotas are counted, and, in a binary built with the
// tag googlesql, every statement passes Google's own analyzer. What it cannot
// do it refuses by name, with reason notImplemented (REST) or code
// UNIMPLEMENTED (gRPC); it never pretends.
package bigquery
