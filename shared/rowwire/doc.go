// Package rowwire turns rows from one wire format straight into another, with no row structs, no reflection, no SDK
// and no allocation per row.
//
// Forward, a [Transcoder] is the io.Writer that receives what PostgreSQL sends for
// COPY (SELECT ..) TO STDOUT (FORMAT binary) and fills batches of protocol-buffer (proto2) messages as the BigQuery
// Storage Write API takes them; rows that come one by one, as from a replication slot or as tombstones, take the same
// path. Back, a [CopyWriter] turns Arrow record batches into the bytes that
// COPY stage FROM STDIN (FORMAT binary) reads.
//
// Both keep one promise (I3): a value is carried exactly, or its row is handed to the caller with a typed reason and
// nothing of it is written. Bytes that do not follow the format at all are an error, because then nothing that
// follows can be trusted.
//
// Formats: PostgreSQL's COPY documentation ("Binary Format") and the send and recv functions of its types; the
// protocol buffer encoding guide; BigQuery's "Supported protocol buffer data types" for the Storage Write API.
package rowwire
