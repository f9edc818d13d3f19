package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
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
	err = f.intact(ctx, s)
	if lost, ok := errors.AsType[*LostError](err); ok && s.standby { // changes meanwhile would be neither logged nor in a backfill
		return nil, &fault.Error{Class: fault.Transient, Remedy: "the next run tries again; look why the standby lags: pg_stat_replication on its primary", Err: fmt.Errorf("the standby has not replayed what was made on its primary: %w", lost)}
	}
	if err != nil {
		return nil, err
	}
	return encode(logCursor{Snapshot: s.consistent(), Leaves: leaves})
}

// changes reads the entries that became visible since the cursor. Of a drain the first
// read tells of every truncation in it, before all rows: by their order, a truncation
// may come after entries of transactions that began before it and wrote after it, whose
// rows may have landed with an earlier batch.
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
	since := fmt.Sprintf(`FROM tidemark.change_log WHERE feed = %s AND tenant IN (%s, '') AND xid >= '%d'::xid8
		AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot) AND pg_visible_in_snapshot(xid, %s::pg_snapshot)`,
		set("feed"), set("tenant"), then.xmin, set("from"), set("to"))
	past := fmt.Sprintf("%s AND key IS NOT NULL AND (xid, id) > ('%d'::xid8, %d)", since, next.XID, next.ID)
	var count int
	err = s.tx.QueryRow(ctx, fmt.Sprintf(`
		WITH entries AS (SELECT xid, id %s ORDER BY xid, id LIMIT %d)
		SELECT count(*), $1 AND EXISTS (SELECT %s AND key IS NULL),
		       coalesce((SELECT xid FROM entries ORDER BY xid DESC, id DESC LIMIT 1), '0')::text::bigint,
		       coalesce((SELECT id FROM entries ORDER BY xid DESC, id DESC LIMIT 1), 0) FROM entries`,
		past, f.limit, since), at.Drain == nil).Scan(&count, &found.truncated, &next.XID, &next.ID)
	if err != nil {
		return found, fmt.Errorf("reading the change log: %w", err)
	}
	full := count >= f.limit
	found.more, found.trim = full || at.Drain != nil, count > 0 || found.truncated // after a drain, what came during it
	after := logCursor{Snapshot: next.To, Leaves: at.Leaves}
	if full {
		after = logCursor{Snapshot: at.Snapshot, Drain: &next, Leaves: at.Leaves}
	}
	if at.Drain == nil { // later reads of a drain see truncations that are not in it
		var missed string
		if after.Leaves, missed, err = f.rows.Leaves(ctx, s.tx, at.Leaves, found.truncated); err != nil {
			return found, err
		}
		if missed != "" {
			return found, &LostError{missed}
		}
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
	// OFFSET 0: the keys of other feeds must not be tried for the types of this one.
	found.keys = fmt.Sprintf("SELECT %s FROM (SELECT key %s AND (xid, id) <= ('%d'::xid8, %d) OFFSET 0) AS entry",
		strings.Join(columns, ", "), past, next.XID, next.ID)
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
	pool, err := writable(ctx, source, f.primary)
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
