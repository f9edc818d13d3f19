package source

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
)

// logFeed tells the keys of a table by tidemark.change_log, which triggers of ours
// fill. An entry has the id of its top-level transaction, so that a snapshot tells of
// each whether an earlier read could see it: nothing committed late is skipped, and
// what a transaction that stays open has to do with other tables delays nothing (I2).
// A standby's snapshot does not list what runs; there the entries below the oldest
// running transaction are read, and no others.
type logFeed struct {
	rows     *Rows
	pipeline string // whose log it is, with the query's name behind it where it is of a further table
	limit    int
	primary  *pgxpool.Pool // of the server that writes, where the source is its standby
}

// logCursor says which entries are consumed: those visible to Snapshot, and, while
// more were found than one read takes, those of Drain.
type logCursor struct {
	Snapshot string `json:"snapshot"`
	Drain    *drain `json:"drain,omitempty"`
	Leaves   Leaves `json:"leaves,omitempty"`
}

// drain is a read of several batches: the entries visible to To, in order, up to one.
type drain struct {
	To  string `json:"to"`
	XID uint64 `json:"xid"`
	ID  int64  `json:"id"`
}

// consistent is the session's snapshot as far as it says what is visible.
func (s *session) consistent() string {
	if s.standby {
		return fmt.Sprintf("%d:%d:", s.now.xmin, s.now.xmin)
	}
	return s.text
}

func (f *logFeed) table() *catalog.Table { return f.rows.Table }
func (f *logFeed) name() string {
	return f.pipeline + "/" + f.rows.Table.Schema + "." + f.rows.Table.Name
}
func (f *logFeed) basis() string { return "changelog" + f.rows.basis() + f.tenantColumn() }

func (f *logFeed) tenantColumn() string {
	if len(f.rows.Filters) == 0 {
		return ""
	}
	return " of " + catalog.Quote(f.rows.Filters[0].Column)
}

// feedName is what the entries of a table are marked with.
func feedName(owner, schema, table string) string { return owner + "/" + schema + "." + table }

// tenant is what the entries of this unit are marked with.
func (f *logFeed) tenant() string {
	if len(f.rows.Filters) == 0 {
		return ""
	}
	return f.rows.Filters[0].Value
}

func (f *logFeed) start(ctx context.Context, s *session) (json.RawMessage, error) {
	leaves, _, err := f.rows.Leaves(ctx, s.tx, nil, false)
	if err != nil {
		return nil, err
	}
	return encode(logCursor{Snapshot: s.consistent(), Leaves: leaves})
}

// changes reads the entries that became visible since the cursor.
func (f *logFeed) changes(ctx context.Context, s *session, cursor json.RawMessage) (changes, error) {
	var found changes
	at, err := position[logCursor](cursor)
	if err != nil {
		return found, err
	}
	then, err := parseSnapshot(at.Snapshot)
	if err != nil {
		return found, err
	}
	if s.now.xmax < then.xmin {
		return found, &LostError{"transaction ids went backwards, as after a restore to another server"}
	}
	if err := f.intact(ctx, s); err != nil {
		return found, err
	}
	next := drain{To: s.consistent()}
	if at.Drain != nil {
		next = *at.Drain
	}
	for name, value := range map[string]string{"feed": f.name(), "tenant": f.tenant(), "from": at.Snapshot, "to": next.To} {
		if err := s.bind(ctx, f.rows.setting(name), value); err != nil {
			return found, err
		}
	}
	set := func(name string) string { return "current_setting('" + f.rows.setting(name) + "')" }
	past := fmt.Sprintf(`FROM tidemark.change_log WHERE feed = %s AND tenant IN (%s, '') AND xid >= '%d'::xid8 AND (xid, id) > ('%d'::xid8, %d)
		AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot) AND pg_visible_in_snapshot(xid, %s::pg_snapshot)`,
		set("feed"), set("tenant"), then.xmin, next.XID, next.ID, set("from"), set("to"))
	var count int
	err = s.tx.QueryRow(ctx, fmt.Sprintf(`
		WITH entries AS (SELECT xid, id, key IS NULL AS truncated %s ORDER BY xid, id LIMIT %d)
		SELECT count(*), coalesce(bool_or(truncated), false),
		       coalesce((SELECT xid FROM entries ORDER BY xid DESC, id DESC LIMIT 1), '0')::text::bigint,
		       coalesce((SELECT id FROM entries ORDER BY xid DESC, id DESC LIMIT 1), 0) FROM entries`,
		past, f.limit)).Scan(&count, &found.truncated, &next.XID, &next.ID)
	if err != nil {
		return found, fmt.Errorf("reading the change log: %w", err)
	}
	found.more, found.trim = count >= f.limit, count > 0
	leaves, missed, err := f.rows.Leaves(ctx, s.tx, at.Leaves, found.truncated)
	if err != nil {
		return found, err
	}
	if missed != "" {
		return found, &LostError{missed}
	}
	after := logCursor{Snapshot: next.To, Leaves: leaves}
	if found.more {
		after = logCursor{Snapshot: at.Snapshot, Drain: &next, Leaves: leaves}
	}
	if found.cursor, err = encode(after); err != nil {
		return found, err
	}
	if count == 0 {
		return found, nil
	}
	columns := make([]string, len(f.rows.key))
	for i, at := range f.rows.key {
		c := f.rows.Table.Columns[at]
		columns[i] = fmt.Sprintf("key[%d]::%s AS %s", i+1, keyType(c), catalog.Quote(c.Name))
	}
	found.keys = fmt.Sprintf("SELECT %s %s AND (xid, id) <= ('%d'::xid8, %d) AND key IS NOT NULL", strings.Join(columns, ", "), past, next.XID, next.ID)
	return found, nil
}

// intact fails with a *LostError unless every trigger is there and fires.
func (f *logFeed) intact(ctx context.Context, s *session) error {
	var triggers int
	if err := s.tx.QueryRow(ctx, `
		SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
		 WHERE t.tgrelid = $1::regclass AND n.nspname = 'tidemark' AND p.proname = ANY ($2) AND t.tgenabled IN ('O', 'A')`,
		f.rows.Table.SQLName(), []string{f.function("new"), f.function("old"), f.function("truncate")}).Scan(&triggers); err != nil {
		return fmt.Errorf("looking for the triggers: %w", err)
	}
	if triggers != len(f.triggers()) {
		return &LostError{fmt.Sprintf("the triggers that log the changes of %s were dropped or disabled", f.rows.Table.Name)}
	}
	return nil
}

// trim deletes the entries that a committed cursor has passed. Those of a truncation
// concern every tenant and stay: they are few.
func (f *logFeed) trim(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) error {
	at, err := position[logCursor](cursor)
	if err != nil {
		return err
	}
	pool, err := f.writable(ctx, source)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '5s', true)`); err != nil {
			return err
		}
		if d := at.Drain; d != nil {
			_, err := tx.Exec(ctx, `DELETE FROM tidemark.change_log WHERE feed = $1 AND tenant = $2
				AND (xid, id) <= ($3::text::xid8, $4) AND pg_visible_in_snapshot(xid, $5::text::pg_snapshot)`,
				f.name(), f.tenant(), strconv.FormatUint(d.XID, 10), d.ID, d.To)
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM tidemark.change_log WHERE feed = $1 AND tenant = $2
			AND xid < pg_snapshot_xmax($3::text::pg_snapshot) AND pg_visible_in_snapshot(xid, $3::text::pg_snapshot)`,
			f.name(), f.tenant(), at.Snapshot)
		return err
	})
}
