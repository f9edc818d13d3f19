// Package source finds what changed in a PostgreSQL table since a saved
// position. A capture method is a file; each reads inside one read-only snapshot
// and writes COPY BINARY bytes to whoever asks.
package source
