package source

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/cloudsql"
)

// logFeed tells the keys of a table by tidemark.change_log, which triggers of ours
// fill. It reads below the oldest transaction that runs in the snapshot, so that no
// entry is committed behind its cursor (I2); a standby knows that one, too.
type logFeed struct {
	rows     *Rows
	pipeline string
	limit    int
	primary  *cloudsql.Pool // of the server that writes, where the source is its standby
}

// logCursor is the last entry consumed: all up to it are, and of later ones none.
type logCursor struct {
	XID uint64 `json:"xid"`
	ID  int64  `json:"id"`
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

// tenant is what the entries of this unit are marked with.
func (f *logFeed) tenant() string {
	if len(f.rows.Filters) == 0 {
		return ""
	}
	return f.rows.Filters[0].Value
}

func (f *logFeed) start(_ context.Context, s *session) (json.RawMessage, error) {
	return json.Marshal(logCursor{XID: s.now.xmin})
}

// changes reads the entries between the cursor and the horizon.
func (f *logFeed) changes(ctx context.Context, s *session, cursor json.RawMessage) (changes, error) {
	found := changes{cursor: cursor}
	at, err := position[logCursor](cursor)
	if err != nil {
		return found, err
	}
	if s.now.xmax < at.XID {
		return found, &LostError{"transaction ids went backwards, as after a restore to another server"}
	}
	if err := f.intact(ctx, s); err != nil {
		return found, err
	}
	if err := s.bind(ctx, f.rows.setting("feed"), f.name()); err != nil {
		return found, err
	}
	if err := s.bind(ctx, f.rows.setting("tenant"), f.tenant()); err != nil {
		return found, err
	}
	past := fmt.Sprintf("FROM tidemark.change_log WHERE feed = current_setting('%s') AND tenant IN (current_setting('%s'), '') AND (xid, id) > ('%d'::xid8, %d)",
		f.rows.setting("feed"), f.rows.setting("tenant"), at.XID, at.ID)
	var count int
	var last logCursor
	err = s.tx.QueryRow(ctx, fmt.Sprintf(`
		WITH entries AS (SELECT xid, id, key IS NULL AS truncated %s AND xid < '%d'::xid8 ORDER BY xid, id LIMIT %d)
		SELECT count(*), coalesce(bool_or(truncated), false),
		       coalesce((SELECT xid FROM entries ORDER BY xid DESC, id DESC LIMIT 1), '0')::text::bigint,
		       coalesce((SELECT id FROM entries ORDER BY xid DESC, id DESC LIMIT 1), 0) FROM entries`,
		past, s.now.xmin, f.limit)).Scan(&count, &found.truncated, &last.XID, &last.ID)
	if err != nil || count == 0 {
		return found, err
	}
	found.more = count >= f.limit
	if found.cursor, err = json.Marshal(last); err != nil {
		return found, fmt.Errorf("writing the cursor: %w", err)
	}
	columns := make([]string, len(f.rows.key))
	for i, at := range f.rows.key {
		c := f.rows.Table.Columns[at]
		columns[i] = fmt.Sprintf("key[%d]::%s AS %s", i+1, keyType(c), catalog.Quote(c.Name))
	}
	found.keys = fmt.Sprintf("SELECT %s %s AND (xid, id) <= ('%d'::xid8, %d) AND key IS NOT NULL", strings.Join(columns, ", "), past, last.XID, last.ID)
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
func (f *logFeed) trim(ctx context.Context, source *cloudsql.Pool, cursor json.RawMessage) error {
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
		_, err := tx.Exec(ctx, `DELETE FROM tidemark.change_log WHERE feed = $1 AND tenant = $2 AND (xid, id) <= ($3::text::xid8, $4)`,
			f.name(), f.tenant(), fmt.Sprint(at.XID), at.ID)
		return err
	})
}
