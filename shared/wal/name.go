package wal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	prefix     = "tidemark_"
	maxName    = 63 // NAMEDATALEN - 1
	hashDigits = 10
)

// SlotName is the name of a pipeline's slot and publication: of letters, digits
// and underscores only, as slots need it, and at most 63 bytes. Slot names are
// shared by all databases of a server, and pipelines differ in what they must not
// contain, so that a hash of both tells them apart.
func SlotName(database, pipeline string) string {
	sum := sha256.Sum256([]byte(database + "\x00" + pipeline))
	suffix := "_" + hex.EncodeToString(sum[:])[:hashDigits]
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, pipeline)
	return prefix + readable[:min(len(readable), maxName-len(prefix)-len(suffix))] + suffix
}

// querier is a pool, a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// slotName is the pipeline's name in the database at hand.
func slotName(ctx context.Context, q querier, pipeline string) (string, error) {
	var database string
	if err := q.QueryRow(ctx, `SELECT current_database()`).Scan(&database); err != nil {
		return "", fmt.Errorf("reading the database's name: %w", err)
	}
	return SlotName(database, pipeline), nil
}
