// Package postgres starts throw-away Postgres servers: real ones, from the
// binaries installed on this machine, for tests and for the demo.
//
// A server listens on the loopback interface and on a socket in its own folder,
// and never outlives the process that started it (see package child). Data is
// not flushed to disk unless Options.Settings asks for it: that loses nothing when the
// server crashes, only when the machine does.
//
// Tests call NewDatabase: one server per test process is started when the first
// test needs it, each test gets a database of its own, and Main, called from
// TestMain, stops the server and looks for leaked goroutines.
package postgres
