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
	// Triggers is the identity of the triggers, which changes when one is made anew,
	// disabled or enabled: then some change may not have been logged.
	Triggers string `json:"triggers,omitempty"`
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
func (f *logFeed) basis() string { return "changelog" + f.rows.basis() }

// feedName is what the entries of a table are marked with.
func feedName(owner, schema, table string) string { return owner + "/" + schema + "." + table }

// tenant is what the entries of this unit are marked with: the text that Postgres makes
// of the tenant's value in the type of the column, of which value is SQL.
func (f *logFeed) tenant(value string) string {
	if len(f.rows.Filters) == 0 {
		return value
	}
	c := f.rows.Table.Stored(f.rows.Filters[0].Column)
	return "((" + value + ")::" + keyType(*c) + ")::pg_catalog.text"
}

// tenantValue is the tenant's value as its query has it.
func (f *logFeed) tenantValue() string {
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
	triggers, err := f.intact(ctx, s)
	if lost, ok := errors.AsType[*LostError](err); ok && s.standby { // changes meanwhile would be neither logged nor in a backfill
		return nil, &fault.Error{Class: fault.Transient, Remedy: "the next run tries again; look why the standby lags: pg_stat_replication on its primary", Err: fmt.Errorf("the standby has not replayed what was made on its primary: %w", lost)}
	}
	if err != nil {
		return nil, err
	}
	return encode(logCursor{Snapshot: s.consistent(), Leaves: leaves, Triggers: triggers})
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
	if at == nil {
		return found, &LostError{"the cursor is another method's"}
	}
	then, err := parseSnapshot(at.Snapshot)
	if err != nil {
		return found, err
	}
	if s.now.xmax < then.xmin || !s.standby && s.now.xmax < then.xmax {
		return found, &LostError{"transaction ids went backwards, as after a restore to another server"}
	}
	triggers, err := f.intact(ctx, s)
	if err != nil {
		return found, err
	}
	if at.Triggers != "" && at.Triggers != triggers {
		return found, &LostError{fmt.Sprintf("the triggers that log the changes of %s were disabled or dropped meanwhile", f.rows.Table.Name)}
	}
	next := drain{To: s.consistent()}
	if at.Drain != nil {
		next = *at.Drain
	}
	for name, value := range map[string]string{"feed": f.name(), "tenant": f.tenantValue(), "from": at.Snapshot, "to": next.To} {
		if err := s.bind(ctx, f.rows.setting(name), value); err != nil {
			return found, err
		}
	}
	set := func(name string) string { return "current_setting('" + f.rows.setting(name) + "')" }
	since := fmt.Sprintf(`FROM tidemark.change_log WHERE feed = %s AND tenant IN (%s, '')%s AND xid >= '%d'::xid8
		AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot) AND pg_visible_in_snapshot(xid, %s::pg_snapshot)`,
		set("feed"), f.tenant(set("tenant")), f.own(), then.xmin, set("from"), set("to"))
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
	after := logCursor{Snapshot: next.To, Leaves: at.Leaves, Triggers: triggers}
	if full {
		after.Snapshot, after.Drain = at.Snapshot, &next
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

// own keeps, of the entries of no tenant, those that concern every one (I8).
func (f *logFeed) own() string {
	if len(f.rows.Filters) == 0 {
		return ""
	}
	return " AND (tenant <> '' OR key IS NULL)"
}

// intact returns the identity of the triggers; it fails with a *LostError unless every
// one is there and fires.
func (f *logFeed) intact(ctx context.Context, s *session) (identity string, err error) {
	var triggers int
	if err := s.tx.QueryRow(ctx, `
		SELECT count(*), coalesce(md5(string_agg(t.oid || ' ' || t.xmin::text, ',' ORDER BY t.oid)), '')
		  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
		 WHERE t.tgrelid = $1::regclass AND n.nspname = 'tidemark' AND p.proname = ANY ($2) AND t.tgenabled IN ('O', 'A')`,
		f.rows.Table.SQLName(), []string{f.function("new"), f.function("old"), f.function("truncate")}).Scan(&triggers, &identity); err != nil {
		return "", fmt.Errorf("looking for the triggers: %w", err)
	}
	if triggers != len(f.triggers()) {
		return "", &LostError{fmt.Sprintf("the triggers that log the changes of %s were dropped or disabled", f.rows.Table.Name)}
	}
	return identity, nil
}

// trimRows bounds what is deleted at once; what is left goes with the next.
const trimRows = 200_000

// trim deletes the entries that a committed cursor has passed. Those of a truncation
// concern every tenant and stay: they are few.
func (f *logFeed) trim(ctx context.Context, source *pgxpool.Pool, cursor json.RawMessage) error {
	at, err := position[logCursor](cursor)
	if err != nil || at == nil {
		return err
	}
	consumed, args := `xid < pg_snapshot_xmax($3::text::pg_snapshot) AND pg_visible_in_snapshot(xid, $3::text::pg_snapshot)`, []any{at.Snapshot}
	if d := at.Drain; d != nil {
		consumed = `(xid, id) <= ($4::text::xid8, $5) AND pg_visible_in_snapshot(xid, $3::text::pg_snapshot)`
		args = []any{d.To, strconv.FormatUint(d.XID, 10), d.ID}
	}
	_, err = f.remove(ctx, source, "tenant = "+f.tenant("$2::text")+" AND "+consumed, append([]any{f.name(), f.tenantValue()}, args...)...)
	return err
}

// remove deletes entries of the feed, $1, that a condition holds for.
func (f *logFeed) remove(ctx context.Context, source *pgxpool.Pool, condition string, args ...any) (removed int64, err error) {
	pool, err := writable(ctx, source, f.primary)
	if err != nil {
		return 0, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '30s', true), set_config('lock_timeout', '5s', true)`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, fmt.Sprintf(`DELETE FROM tidemark.change_log WHERE ctid = ANY (ARRAY(SELECT ctid FROM tidemark.change_log WHERE feed = $1 AND %s LIMIT %d))`, condition, trimRows), args...)
		removed = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("deleting consumed entries: %w", err)
	}
	return removed, nil
}

// purge deletes what was logged for tenants that are not followed: of those nobody reads
// the log. known returns those that are, or are about to be: it is asked after the
// horizon is known, so that what a tenant logged since it was made known stays.
func (f *logFeed) purge(ctx context.Context, source *pgxpool.Pool, known func(context.Context) ([]string, error)) (int64, error) {
	if len(f.rows.Filters) == 0 {
		return 0, nil
	}
	var horizon string
	if err := source.QueryRow(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot())::text`).Scan(&horizon); err != nil {
		return 0, fmt.Errorf("reading the horizon: %w", err)
	}
	tenants, err := known(ctx)
	if err != nil {
		return 0, err
	}
	return f.remove(ctx, source, "tenant <> '' AND tenant <> ALL (SELECT "+f.tenant("k")+" FROM unnest($2::text[]) AS k) AND xid < $3::text::xid8", f.name(), tenants, horizon)
}
