// Package wal captures changes from Postgres' write-ahead log: it makes, checks
// and drops a pipeline's logical slot and publication, reads the slot in bounded
// pulls over an ordinary connection (output plugin pgoutput, no replication
// protocol, nothing that stays running), and moves it on.
//
// A round of a pipeline is Ensure, Advance to what the caller's own state says is
// durable, Pull, make durable, Advance to Pulled.Upto. A process may die between any
// two of them: what was pulled and not advanced past is pulled again, the same
// transactions with the same positions and ordinals. A slot whose Confirmed is above
// the caller's state was made anew or moved by somebody else: its tables have to be
// copied again.
//
// A table's first copy and the stream meet exactly at a Fence.
package wal
