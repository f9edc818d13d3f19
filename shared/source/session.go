package source

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// session is one read-only snapshot on a connection of its own.
type session struct {
	rows    *Rows
	conn    *pgxpool.Conn // nil: closed
	tx      pgx.Tx
	at      time.Time
	since   time.Time // that or, of a standby, when the last transaction that it knows ended by its primary's clock: nothing newer has reached it
	standby bool
	now     snapshot
	text    string            // of now
	next    uint64            // above the id of every transaction that had written before the snapshot
	from    uint64            // where the write-ahead log was before the snapshot
	to      uint64            // and after it
	open    []openTransaction // open before the snapshot
	copied  bool              // something, by copyNext
}

// moment is the snapshot, and what else a fence has to know.
func (s *session) moment() moment {
	return moment{snapshot: s.now, text: s.text, standby: s.standby, next: s.next, from: s.from, to: s.to}
}

// openTransaction is one that was open before a snapshot was taken.
type openTransaction struct {
	id    string
	began *time.Time // nil: not known
}

// openSession opens a snapshot for reading rows, and other tables beside them. It
// changes nothing, and no call outlasts the server-side timeouts it sets (I10).
func openSession(ctx context.Context, source *pgxpool.Pool, rows *Rows, others ...*catalog.Table) (*session, error) {
	conn, err := source.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the source: %w", err)
	}
	s := &session{rows: rows, conn: conn}
	if err := s.begin(ctx, append([]*catalog.Table{rows.Table}, others...)); err != nil {
		s.Close(ctx)
		for _, t := range append(others, rows.Table) {
			err = t.Explain(ctx, source, err, t.Selected())
		}
		return nil, fmt.Errorf("reading %s: %w", rows.Table.Name, err)
	}
	return s, nil
}

func (s *session) begin(ctx context.Context, tables []*catalog.Table) error {
	if err := s.observe(ctx); err != nil {
		return err
	}
	var err error
	s.tx, err = s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("opening the snapshot: %w", err)
	}
	if err := s.hold(ctx, tables); err != nil {
		return err
	}
	var names []string
	for _, t := range tables {
		if !t.IsQuery() {
			names = append(names, t.SQLName())
		}
	}
	var age uint64
	var hidden *string
	if err := s.tx.QueryRow(ctx, settings, s.rows.Table.Schema, statementTimeout(ctx), names).Scan(&s.text, &age, &s.to, &hidden); err != nil {
		return fmt.Errorf("opening the snapshot: %w", err)
	}
	if hidden != nil {
		return fault.Fix(fmt.Errorf("row-level security may hide rows of %s", *hidden),
			"ALTER ROLE "+catalog.Quote(s.conn.Conn().Config().User)+" BYPASSRLS, or have a role that owns the table read it")
	}
	if s.now, err = parseSnapshot(s.text); err != nil {
		return err
	}
	s.next = wide(s.now, age)
	for _, t := range tables {
		same, err := t.Unchanged(ctx, s.tx)
		if err != nil {
			return err
		}
		if !same {
			return &fault.Error{Class: fault.Transient, Remedy: "the next run reads it as it is then", Err: ErrChanged}
		}
	}
	return s.bindFilters(ctx, s.rows)
}

// observe notes the clock and the open transactions, before the snapshot is
// taken: a transaction running in the snapshot was open now, or began later
// than the clock says (I2). Virtual ids are used because a transaction gets a
// real one only when it first writes, long after its now().
func (s *session) observe(ctx context.Context) error {
	// Other roles' start times show only with pg_read_all_stats; without it a
	// transaction open at the first sight holds the look-back at the beginning.
	rows, err := s.conn.Query(ctx, `
		SELECT clock_timestamp(), pg_is_in_recovery(), pg_last_xact_replay_timestamp(), (`+logPosition+`)::bigint, NULL, NULL
		UNION ALL
		SELECT NULL, NULL, NULL, NULL, l.virtualtransaction, min(a.xact_start) FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		 WHERE l.locktype IN ('virtualxid', 'transactionid') AND l.mode = 'ExclusiveLock' AND l.granted
		   AND l.pid IS DISTINCT FROM pg_backend_pid()
		 GROUP BY l.virtualtransaction`)
	if err != nil {
		return fmt.Errorf("reading open transactions: %w", err)
	}
	var at, replayed, began *time.Time
	var standby *bool
	var position *uint64
	var id *string
	if _, err := pgx.ForEachRow(rows, []any{&at, &standby, &replayed, &position, &id, &began}, func() error {
		if id == nil {
			s.at, s.since, s.standby, s.from = *at, *at, *standby, *position
			if s.standby {
				s.since = time.Time{}
				if replayed != nil {
					s.since = *replayed
				}
			}
			return nil
		}
		s.open = append(s.open, openTransaction{*id, began})
		return nil
	}); err != nil {
		return fmt.Errorf("reading open transactions: %w", err)
	}
	return nil
}

// hold keeps the tables from being altered while they are read: bytes of another
// type of the same width would be taken for values (I3). It comes before the
// snapshot, to which a table rewritten after it would look empty.
func (s *session) hold(ctx context.Context, tables []*catalog.Table) error {
	if _, err := s.tx.Exec(ctx, "SET LOCAL lock_timeout = '5s'"); err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	for _, t := range tables {
		if err := t.Lock(ctx, s.tx); err != nil {
			return err
		}
	}
	return nil
}

// logPosition is how far the write-ahead log goes that the server shows the effects of.
const logPosition = `coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0') - '0/0'::pg_lsn`

// wide is the 64-bit id of the next transaction, by its distance from the first
// 32-bit one. It is never below the end of the snapshot.
func wide(s snapshot, age uint64) uint64 {
	const firstNormal = 3
	id := s.xmax&^math.MaxUint32 + (age+firstNormal)&math.MaxUint32
	if id < s.xmax {
		id += 1 << 32
	}
	return id
}

// forms are the settings that the text of a value depends on.
const forms = `set_config('datestyle', 'ISO, YMD', true), set_config('timezone', 'UTC', true),
	       set_config('intervalstyle', 'iso_8601', true), set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)`

// Of a transaction without an id, age counts to the one that the next gets: on a
// standby it is the only thing that tells it.
const settings = `
	SELECT pg_current_snapshot()::text, (age('3'::xid)::bigint + 4294967296) % 4294967296, (` + logPosition + `)::bigint,
	       (SELECT string_agg(name, ', ') FROM unnest($3::text[]) AS name WHERE row_security_active(name::regclass)) FROM (SELECT
	       ` + forms + `,
	       set_config('search_path', quote_ident($1) || ', public', true),
	       set_config('max_parallel_workers_per_gather', '0', true),
	       set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '60s', true),
	       set_config('statement_timeout', $2, true),
	       set_config('row_security', 'off', true) OFFSET 0) AS s` // rows hidden by a policy would be lost in silence: it is an error instead

// longestStatement is the bound of one statement where the context sets none.
const longestStatement = 9 * time.Minute

func statementTimeout(ctx context.Context) string {
	left := longestStatement
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline), time.Millisecond)
	}
	return strconv.FormatInt(left.Milliseconds()+1, 10)
}

// At is the source's clock when the snapshot was about to be taken.
func (s *session) At() time.Time { return s.at }

// bind sets a value for this transaction only; the statements read it with
// current_setting, so that no value ever becomes SQL: COPY takes no parameters.
func (s *session) bind(ctx context.Context, name, value string) error {
	if _, err := s.tx.Exec(ctx, `SELECT set_config($1, $2, true)`, name, value); err != nil {
		return fmt.Errorf("binding %s: %w", name, err)
	}
	return nil
}

// bound is a bound value as a type of pg_catalog, by its catalogue name: "bit" by
// its SQL name would be bit(1).
func bound(name, typ string) string {
	return "current_setting('" + name + "')::pg_catalog." + catalog.Quote(typ)
}

func copySQL(query string) string { return "COPY (" + query + ") TO STDOUT (FORMAT binary)" }

func (s *session) copy(ctx context.Context, w io.Writer, query string) error {
	if _, err := s.conn.Conn().PgConn().CopyTo(ctx, w, copySQL(query)); err != nil {
		return fmt.Errorf("reading %s: %w", s.rows.Table.Name, s.rows.withheld(err))
	}
	return nil
}

// copyNext is copy behind another one, or the first.
func (s *session) copyNext(ctx context.Context, rows *rowwire.Transcoder, query string) error {
	if s.copied {
		if err := rows.Continue(); err != nil {
			return err
		}
	}
	s.copied = true
	return s.copy(ctx, rows, query)
}

// copyTombstones is copyNext of rows that are gone, and says how many there were.
func (s *session) copyTombstones(ctx context.Context, rows *rowwire.Transcoder, query string) (int64, error) {
	before := rows.Rows()
	rows.Deleted(true)
	err := s.copyNext(ctx, rows, query)
	rows.Deleted(false)
	return rows.Rows() - before, err
}

// tuples runs a query and returns its rows in the bytes that COPY would give them.
func (s *session) tuples(ctx context.Context, query string) ([][][]byte, error) {
	result := s.conn.Conn().PgConn().ExecParams(ctx, query, nil, nil, nil, []int16{1}).Read()
	if result.Err != nil {
		return nil, fmt.Errorf("reading %s: %w", s.rows.Table.Name, s.rows.withheld(result.Err))
	}
	return result.Rows, nil
}

// texts asks Postgres for the text of values it sent in binary.
func (s *session) texts(ctx context.Context, columns []catalog.Column, values [][]byte) ([]string, error) {
	exprs := make([]string, len(values))
	for i := range values {
		exprs[i] = fmt.Sprintf("$%d::text", i+1)
	}
	oids, formats := params(columns)
	result := s.conn.Conn().PgConn().ExecParams(ctx, "SELECT "+strings.Join(exprs, ", "), values, oids, formats, nil).Read()
	if result.Err != nil {
		return nil, fmt.Errorf("reading the cursor's text: %w", result.Err)
	}
	return stringsOf(result), nil
}

func stringsOf(result *pgconn.Result) []string {
	out := make([]string, len(result.Rows[0]))
	for i, value := range result.Rows[0] {
		out[i] = string(value)
	}
	return out
}

func params(columns []catalog.Column) (oids []uint32, formats []int16) {
	for _, c := range columns {
		oids = append(oids, c.Param)
		formats = append(formats, 1)
	}
	return oids, formats
}

// KeyOf copies the key's COPY bytes out of a whole row's.
func (s *session) KeyOf(tuple [][]byte) [][]byte { return s.rows.KeyOf(tuple) }

// Row returns one row of the snapshot by what KeyOf returned: of its carried columns all
// but the hashed ones, whose values are to be seen nowhere.
func (s *session) Row(ctx context.Context, key [][]byte) (Whole, error) {
	columns := make([]catalog.Column, len(key))
	conditions := make([]string, len(key))
	for i, at := range s.rows.key {
		c := s.rows.Table.Columns[at]
		columns[i], conditions[i] = c, fmt.Sprintf("%s = $%d", c.Expr, i+1)
		if c.Param == pgtype.TextOID && c.Base != "" { // so that an index serves
			conditions[i] = fmt.Sprintf("%s = $%d::text::%s", catalog.Quote(c.Name), i+1, keyType(c))
		}
	}
	var shown []string
	for _, c := range s.rows.Table.Columns {
		switch {
		case c.Computed:
			shown = append(shown, c.Expr+" AS "+catalog.Quote(c.Name))
		case !c.Hash:
			shown = append(shown, catalog.Quote(c.Name))
		}
	}
	texts := make([]string, len(s.rows.key))
	for i, at := range s.rows.key {
		texts[i] = catalog.Quote(s.rows.Table.Columns[at].Name) + "::text"
		if s.rows.Table.Columns[at].Hash {
			texts = []string{"NULL"}
			break
		}
	}
	oids, formats := params(columns)
	// Not to_jsonb: it refuses what may be the very reason of the rejection.
	sql := fmt.Sprintf("SELECT (SELECT row_to_json(shown.*) FROM (SELECT %s) AS shown), to_json(ARRAY[%s]::text[]) FROM %s WHERE %s",
		strings.Join(shown, ", "), strings.Join(texts, ", "), s.rows.Table.Source(), strings.Join(conditions, " AND "))
	result := s.conn.Conn().PgConn().ExecParams(ctx, sql, key, oids, formats, nil).Read()
	if result.Err != nil {
		return Whole{}, fmt.Errorf("reading a rejected row: %w", s.rows.withheld(result.Err))
	}
	if len(result.Rows) == 0 {
		return Whole{}, nil
	}
	whole := Whole{Row: slices.Clone(result.Rows[0][0])}
	if err := json.Unmarshal(result.Rows[0][1], &whole.Key); err != nil {
		return Whole{}, fmt.Errorf("reading the key of a rejected row: %w", err)
	}
	if slices.Contains(whole.Key, nil) {
		whole.Key = nil
	}
	return whole, nil
}

// Close ends the snapshot and gives the connection back.
func (s *session) Close(ctx context.Context) {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if s.tx != nil {
		_ = s.tx.Rollback(ctx) // read-only: nothing to lose
	}
	s.conn.Release()
	s.conn = nil
}
