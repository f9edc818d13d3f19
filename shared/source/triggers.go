package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// changeLog holds one narrow row per change of a followed table. The id orders the
// changes of one transaction.
const changeLog = `
	CREATE TABLE IF NOT EXISTS tidemark.change_log (
		feed   text   COLLATE "C" NOT NULL, -- pipeline/schema.table
		tenant text   COLLATE "C" NOT NULL DEFAULT '',
		xid    xid8   NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
		id     bigint GENERATED ALWAYS AS IDENTITY,
		key    text[]                       -- of the changed row, as text; null: the table was truncated
	);
	CREATE INDEX IF NOT EXISTS change_log_by_feed ON tidemark.change_log (feed, tenant, xid, id);
	CREATE INDEX IF NOT EXISTS change_log_truncations ON tidemark.change_log (feed, xid) WHERE key IS NULL`

// function is the name of one of the feed's trigger functions.
func (f *logFeed) function(event string) string {
	sum := sha256.Sum256([]byte(f.name()))
	return "log_" + hex.EncodeToString(sum[:8]) + "_" + event
}

// functions are the bodies of the trigger functions. They run as their owner, who
// alone may write the log, and name nothing that a search_path could redirect: no
// operator, and no name without its schema.
func (f *logFeed) functions() map[string]string {
	insert := func(record string) string {
		keys := make([]string, len(f.rows.key))
		for i, at := range f.rows.key {
			keys[i] = output(record, f.rows.Table.Columns[at], true)
		}
		tenant, of := "''", ""
		if len(f.rows.Filters) > 0 { // a row of no tenant is nobody's (I8)
			tenant = output(record, *f.rows.Table.Stored(f.rows.Filters[0].Column), false)
			of = " WHERE " + tenant + " OPERATOR(pg_catalog.<>) ''"
		}
		return fmt.Sprintf("INSERT INTO tidemark.change_log (feed, tenant, key) SELECT %s, %s, ARRAY[%s]%s", literal(f.name()), tenant, strings.Join(keys, ", "), of)
	}
	return map[string]string{
		"new":      insert("NEW"),
		"old":      insert("OLD"),
		"truncate": fmt.Sprintf("INSERT INTO tidemark.change_log (feed) VALUES (%s)", literal(f.name())),
	}
}

// forms are the settings of the functions under which the text of a key is what a read
// of ours takes it for, whatever the session that writes the table has set. Where the
// text does not depend on any it costs nothing.
func (f *logFeed) forms() string {
	logged := make([]catalog.Column, 0, len(f.rows.key)+len(f.rows.Filters))
	for _, at := range f.rows.key {
		logged = append(logged, f.rows.Table.Columns[at])
	}
	for _, filter := range f.rows.Filters {
		logged = append(logged, *f.rows.Table.Stored(filter.Column))
	}
	plain := []string{"bool", "int2", "int4", "int8", "numeric", "text", "varchar", "bpchar", "name", "uuid"}
	if !slices.ContainsFunc(logged, func(c catalog.Column) bool { return !slices.Contains(plain, c.Base) }) {
		return ""
	}
	return " SET datestyle = 'ISO, YMD' SET timezone = 'UTC' SET intervalstyle = 'iso_8601' SET extra_float_digits = 1"
}

// triggers are the triggers by which the functions are called.
func (f *logFeed) triggers() []string {
	moved := make([]string, 0, len(f.rows.key)+1)
	for _, at := range f.rows.key {
		c := f.rows.Table.Columns[at]
		name := catalog.Quote(c.Name)
		switch { // what the source takes for equal, as citext and some collations do A and a, may be two keys
		case c.Base == "":
			name += "::pg_catalog.text"
		case c.Collated():
			name += ` COLLATE pg_catalog."C"`
		}
		moved = append(moved, "OLD."+name+" IS DISTINCT FROM NEW."+name)
	}
	for _, filter := range f.rows.Filters {
		moved = append(moved, fmt.Sprintf("OLD.%[1]s IS DISTINCT FROM NEW.%[1]s", catalog.Quote(filter.Column)))
	}
	return []string{
		f.trigger("new", "AFTER INSERT OR UPDATE", "FOR EACH ROW", "new"),
		f.trigger("old", "AFTER DELETE", "FOR EACH ROW", "old"),
		f.trigger("moved", "AFTER UPDATE", "FOR EACH ROW WHEN ("+strings.Join(moved, " OR ")+")", "old"),
		f.trigger("truncate", "AFTER TRUNCATE", "FOR EACH STATEMENT", "truncate"),
	}
}

func (f *logFeed) trigger(name, when, each, function string) string {
	return fmt.Sprintf("CREATE OR REPLACE TRIGGER %s %s ON %s %s EXECUTE FUNCTION tidemark.%s()",
		catalog.Quote("tidemark_"+f.function(name)), when, f.rows.Table.SQLName(), each, catalog.Quote(f.function(function)))
}

// output is the text of a column. Of a type that is not built in it is what its output
// function writes: a cast to text could be anybody's function, and run as our owner. That
// of char(n) cuts the padding, which a key has and a tenant's value may not have.
func output(record string, c catalog.Column, padded bool) string {
	value := record + "." + catalog.Quote(c.Name)
	if c.Base == "" || padded && c.Base == "bpchar" {
		return "pg_catalog.format('%s', " + value + ")"
	}
	return value + "::pg_catalog.text"
}

// literal quotes a text constant, where SQL takes no parameter.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// install makes the log, and the functions and triggers of this feed: all or none.
// The triggers wait for transactions that are writing the table, and not long: others
// wait behind them.
func (f *logFeed) install(ctx context.Context, source *pgxpool.Pool) error {
	pool, err := writable(ctx, source, f.primary)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '60s', true), pg_advisory_xact_lock($1)`, installLock); err != nil {
			return err
		}
		if right, err := f.installed(ctx, tx); err != nil || right {
			return err // other tenants' cursors are about the triggers that there are
		}
		if err := actAsOwner(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, changeLog); err != nil {
			return err
		}
		for event, body := range f.functions() {
			name := "tidemark." + catalog.Quote(f.function(event))
			if _, err := tx.Exec(ctx, fmt.Sprintf("CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER%s AS %s; COMMENT ON FUNCTION %s() IS %s",
				name, f.forms(), literal(f.source(body)), name, literal(f.name()))); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `SELECT set_config('role', 'none', true)`); err != nil {
			return err
		}
		for _, trigger := range f.triggers() {
			if _, err := tx.Exec(ctx, trigger); err != nil {
				return err
			}
		}
		return nil
	})
	if fault.SQLState(err) == "55P03" { // lock_not_available
		err = &fault.Error{Class: fault.Transient, Remedy: "the next run tries again; end the transactions that hold the table, see pg_locks", Err: err}
	}
	if err != nil {
		err = f.rows.Table.Explain(ctx, pool, err, append(f.rows.Table.Selected(), catalog.Right{Privilege: "TRIGGER"}))
		return fmt.Errorf("installing the triggers of %s: %w", f.rows.Table.Name, err)
	}
	if pool != source {
		return replayed(ctx, pool, source)
	}
	return nil
}

// patience is how long a standby is waited for; runs after it find out for themselves.
const patience = 10 * time.Second

// replayed waits until a standby has what its primary has committed, and not for long.
func replayed(ctx context.Context, primary, standby *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var end string
	if err := primary.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
		return fmt.Errorf("asking the primary how far its log goes: %w", err)
	}
	for done := false; !done; {
		if err := standby.QueryRow(ctx, `SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, true)`, end).Scan(&done); err != nil && ctx.Err() == nil {
			return fmt.Errorf("asking the standby how far it is: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// source is a function's text. The settings stand in it so that it tells all of the
// function.
func (f *logFeed) source(body string) string {
	return "BEGIN " + body + "; RETURN NULL; END --" + f.forms()
}

// installed reports whether functions and triggers are there already, as they would be
// made.
func (f *logFeed) installed(ctx context.Context, tx pgx.Tx) (right bool, err error) {
	var names, sources []string
	for event, body := range f.functions() {
		names, sources = append(names, f.function(event)), append(sources, f.source(body))
	}
	err = tx.QueryRow(ctx, `
		WITH ours AS (SELECT p.oid, p.proname, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'tidemark')
		SELECT (SELECT count(*) FROM unnest($2::text[], $3::text[]) AS f(name, source) JOIN ours ON proname = f.name AND prosrc = f.source) = $4
		   AND (SELECT count(*) FROM pg_trigger t JOIN ours ON ours.oid = t.tgfoid
		         WHERE t.tgrelid = $1::regclass AND proname = ANY ($2) AND t.tgenabled IN ('O', 'A')) = $5`,
		f.rows.Table.SQLName(), names, sources, len(names), len(f.triggers())).Scan(&right)
	if err != nil {
		return false, fmt.Errorf("looking for the triggers: %w", err)
	}
	return right, nil
}

// installLock is the advisory lock that serializes installations: "tidelogs" in hex.
const installLock = 0x74696465_6c6f6773

// actAsOwner takes the role that owns the schema tidemark, if the user may, so that
// what one user makes is all users'; the schema is made where there is none.
func actAsOwner(ctx context.Context, tx pgx.Tx) error {
	tag, err := tx.Exec(ctx, `
		SELECT set_config('role', pg_get_userbyid(nspowner), true) FROM pg_namespace
		 WHERE nspname = 'tidemark' AND pg_has_role(nspowner, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)`)
	if err == nil && tag.RowsAffected() == 0 {
		_, err = tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS tidemark`)
	}
	return err
}

// writable is the pool of the server that takes writes: the source, or, where that is
// a standby, its primary, if the control plane is there.
func writable(ctx context.Context, source, control *pgxpool.Pool) (*pgxpool.Pool, error) {
	const who = `SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), current_database()`
	type server struct {
		standby  bool
		system   int64
		database string
	}
	var here, there server
	if err := source.QueryRow(ctx, who).Scan(&here.standby, &here.system, &here.database); err != nil {
		return nil, fmt.Errorf("asking whether the source is a standby: %w", err)
	}
	if !here.standby {
		return source, nil
	}
	if control != nil {
		if err := control.QueryRow(ctx, who).Scan(&there.standby, &there.system, &there.database); err != nil {
			return nil, fmt.Errorf("asking for the primary of the source: %w", err)
		}
		if !there.standby && there.system == here.system && there.database == here.database {
			return control, nil
		}
	}
	return nil, fault.Fix(fmt.Errorf("%w, where no trigger can be made and no log trimmed", ErrStandby),
		"set CONTROL_DATABASE_URL to the same database of its primary, or capture by watermark")
}

// feeds are the names of the logs of ours that a pipeline declares.
func feeds(p *pipeline.Pipeline) []string {
	var out []string
	for _, t := range p.Tables {
		if t.Capture.Method == pipeline.MethodChangelog && t.Capture.Log == nil {
			out = append(out, feedName(p.Name, p.Schema, t.Name))
		}
		for _, r := range t.AlsoChangedBy {
			if r.Capture.Method == pipeline.MethodChangelog {
				schema, name := qualified(p, r.Table)
				out = append(out, feedName(p.Name+"/"+t.Name, schema, name))
			}
		}
	}
	return out
}

// RemoveTriggers drops the triggers of ours on tables that the pipeline no longer
// follows by them, and what they logged. It returns the names of their feeds. control
// is where the control plane is: of a standby, the triggers are its primary's.
func RemoveTriggers(ctx context.Context, source, control *pgxpool.Pool, p *pipeline.Pipeline) ([]string, error) {
	keep := feeds(p)
	rows, err := source.Query(ctx, `
		SELECT p.proname, obj_description(p.oid, 'pg_proc') FROM pg_proc p
		 WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'tidemark') AND p.proname ~ '^log_[0-9a-f]{16}_[a-z]+$'`)
	if err != nil {
		return nil, fmt.Errorf("looking for triggers: %w", err)
	}
	var function string
	var feed *string
	surplus := map[string][]string{}
	if _, err := pgx.ForEachRow(rows, []any{&function, &feed}, func() error {
		if feed == nil {
			return nil
		}
		if strings.HasPrefix(*feed, p.Name+"/") && !slices.Contains(keep, *feed) {
			surplus[*feed] = append(surplus[*feed], function)
		}
		return nil
	}); err != nil || len(surplus) == 0 {
		return nil, err
	}
	pool, err := writable(ctx, source, control)
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for feed, functions := range surplus {
		if err := removeFeed(ctx, pool, feed, functions); err != nil {
			errs = append(errs, fmt.Errorf("removing the triggers of %s: %w", feed, err))
			continue
		}
		removed = append(removed, feed)
	}
	return removed, errors.Join(errs...)
}

// removeFeed drops the functions, and with them the triggers: a trigger alone only
// the table's owner may drop.
func removeFeed(ctx context.Context, source *pgxpool.Pool, feed string, functions []string) error {
	return pgx.BeginFunc(ctx, source, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '60s', true)`); err != nil {
			return err
		}
		if err := actAsOwner(ctx, tx); err != nil {
			return err
		}
		for _, name := range functions {
			if _, err := tx.Exec(ctx, "DROP FUNCTION IF EXISTS tidemark."+catalog.Quote(name)+"() CASCADE"); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `DELETE FROM tidemark.change_log WHERE feed = $1`, feed)
		return err
	})
}
