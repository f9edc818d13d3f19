package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
)

// Read is one read of changes inside one read-only snapshot. It holds a
// connection until Close.
type Read struct {
	w        *Watermark
	conn     *pgxpool.Conn
	tx       pgx.Tx
	previous *Position
	now      snapshot
	text     string // of now
	open     []Open
	at       time.Time
	late     string // COPY of rows behind the cursor, "" for none
	fresh    string // COPY of rows past it
}

// ErrStandby says that the server is a hot standby, whose snapshots do not
// list running transactions.
var ErrStandby = errors.New("the source is a standby server")

// Begin opens a snapshot and prepares the read from position, nil for a first
// sight. It changes nothing, and no call outlasts the server-side timeouts it
// sets (I10).
func (w *Watermark) Begin(ctx context.Context, pool *pgxpool.Pool, position *Position) (*Read, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the source: %w", err)
	}
	r := &Read{w: w, conn: conn, previous: position}
	if err := r.begin(ctx); err != nil {
		r.Close(ctx)
		return nil, fmt.Errorf("reading %s: %w", w.Table.Name, w.Table.Explain(ctx, pool, err, []catalog.Right{{Privilege: "SELECT"}}))
	}
	return r, nil
}

func (r *Read) begin(ctx context.Context) error {
	if err := r.observe(ctx); err != nil {
		return err
	}
	var err error
	r.tx, err = r.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("opening the snapshot: %w", err)
	}
	if err := r.hold(ctx); err != nil {
		return err
	}
	if err := r.tx.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&r.text); err != nil {
		return fmt.Errorf("opening the snapshot: %w", err)
	}
	if r.now, err = parseSnapshot(r.text); err != nil {
		return err
	}
	same, err := r.w.Table.Unchanged(ctx, r.tx)
	if err != nil {
		return err
	}
	if !same {
		return &fault.Error{Class: fault.Transient, Remedy: "the next run reads it as it is then", Err: ErrChanged}
	}
	return r.prepare(ctx)
}

// ErrChanged says that the table was altered after it was described.
var ErrChanged = errors.New("the table was altered meanwhile")

// hold keeps the table from being altered while it is read: bytes of another
// type of the same width would be taken for values (I3). It comes before the
// snapshot, to which a table rewritten after it would look empty.
func (r *Read) hold(ctx context.Context) error {
	if _, err := r.tx.Exec(ctx, "SET LOCAL lock_timeout = '5s'"); err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	if _, err := r.tx.Exec(ctx, "LOCK TABLE "+r.w.Table.Source()+" IN ACCESS SHARE MODE"); err != nil {
		return fmt.Errorf("holding the table: %w", err)
	}
	return nil
}

// observe notes the clock and the open transactions, before the snapshot is
// taken: a transaction running in the snapshot was open now, or began later
// than the clock says (I2). Virtual ids are used because a transaction gets a
// real one only when it first writes, long after its now().
func (r *Read) observe(ctx context.Context) error {
	var standby bool
	if err := r.conn.QueryRow(ctx, `SELECT clock_timestamp(), pg_is_in_recovery()`).Scan(&r.at, &standby); err != nil {
		return fmt.Errorf("reading the clock: %w", err)
	}
	if standby {
		return fault.Fix(ErrStandby, "point DATABASE_URL or CLOUD_SQL_INSTANCE at the primary")
	}
	// Other roles' start times show only with pg_read_all_stats; without it a
	// transaction open at the first sight holds the look-back at the beginning.
	rows, err := r.conn.Query(ctx, `
		SELECT l.virtualtransaction, min(a.xact_start) FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		 WHERE l.locktype IN ('virtualxid', 'transactionid') AND l.mode = 'ExclusiveLock' AND l.granted
		   AND l.pid IS DISTINCT FROM pg_backend_pid()
		 GROUP BY l.virtualtransaction`)
	if err != nil {
		return fmt.Errorf("reading open transactions: %w", err)
	}
	var id string
	var began *time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &began}, func() error {
		r.open = append(r.open, Open{ID: id, Floor: r.w.startFloor(began)})
		return nil
	}); err != nil {
		return fmt.Errorf("reading open transactions: %w", err)
	}
	return nil
}

// At is the source's clock when the snapshot was about to be taken.
func (r *Read) At() time.Time { return r.at }

// Unchanged reports that not a single transaction has ended since the previous
// read, so that there is nothing to look for.
func (r *Read) Unchanged() bool {
	return r.previous != nil && !r.previous.More && r.previous.Fence.Snapshot == r.text
}

const settings = `
	SELECT set_config('datestyle', 'ISO, YMD', true), set_config('timezone', 'UTC', true),
	       set_config('intervalstyle', 'iso_8601', true), set_config('extra_float_digits', '1', true),
	       set_config('search_path', quote_ident($1) || ', public', true),
	       set_config('max_parallel_workers_per_gather', '0', true),
	       set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '60s', true),
	       set_config('statement_timeout', $2, true),
	       set_config('row_security', 'off', true)` // rows hidden by a policy would be lost in silence: it is an error instead

// longestStatement is the bound of one statement where the context sets none.
const longestStatement = 9 * time.Minute

func statementTimeout(ctx context.Context) string {
	left := longestStatement
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline), time.Millisecond)
	}
	return strconv.FormatInt(left.Milliseconds()+1, 10)
}

// prepare binds the values of the read to settings of the transaction, because
// COPY takes no parameters, and writes its statements.
func (r *Read) prepare(ctx context.Context) error {
	if _, err := r.tx.Exec(ctx, settings, r.w.Table.Schema, statementTimeout(ctx)); err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	if r.w.Filter != nil {
		if err := r.bind(ctx, "tidemark.tenant", r.w.Filter.Value); err != nil {
			return err
		}
	}
	list := make([]string, len(r.w.Table.Columns))
	for i, c := range r.w.Table.Columns {
		list[i] = c.Expr
	}
	selected := "SELECT " + strings.Join(list, ", ") + " FROM " + r.w.Table.Source()
	p := r.previous
	var past string
	if p != nil && p.Cursor != nil {
		if err := r.bindCursor(ctx, p.Cursor); err != nil {
			return err
		}
		past = r.w.keysetSQL() + " > " + r.w.boundSQL()
	} else {
		past = catalog.Quote(r.w.Cursor) + " IS NOT NULL"
	}
	r.fresh = fmt.Sprintf("COPY (%s WHERE %s%s ORDER BY %s LIMIT %d) TO STDOUT (FORMAT binary)",
		selected, past, r.w.filterSQL(), strings.Join(r.w.keysetColumns(), ", "), r.w.Limit)
	return r.prepareLate(ctx, selected)
}

func (r *Read) prepareLate(ctx context.Context, selected string) error {
	p := r.previous
	cursor := r.w.Table.Column(r.w.Cursor)
	if p == nil || p.Fence == nil {
		if !cursor.NotNull { // a first sight takes the rows without a cursor value too
			r.late = copySQL(selected + " WHERE " + catalog.Quote(r.w.Cursor) + " IS NULL" + r.w.filterSQL())
		}
		return nil
	}
	if p.postponed() {
		return nil
	}
	u, err := p.Fence.since(r.now)
	if err != nil {
		return err
	}
	test, err := r.unseenSQL(ctx, u)
	if err != nil {
		return err
	}
	var branches []string
	if p.Cursor != nil {
		within, err := r.lookbackSQL(ctx, p.Fence.lower())
		if err != nil {
			return err
		}
		branches = append(branches, selected+" WHERE "+within+" AND "+r.w.keysetSQL()+" <= "+r.w.boundSQL()+" AND "+test+r.w.filterSQL())
	}
	if !cursor.NotNull {
		branches = append(branches, selected+" WHERE "+catalog.Quote(r.w.Cursor)+" IS NULL AND "+test+r.w.filterSQL())
	}
	if len(branches) > 0 {
		r.late = copySQL(strings.Join(branches, " UNION ALL "))
	}
	return nil
}

func copySQL(query string) string { return "COPY (" + query + ") TO STDOUT (FORMAT binary)" }

// CopyLate writes the rows committed behind the cursor since the previous read.
func (r *Read) CopyLate(ctx context.Context, w io.Writer) error { return r.copy(ctx, w, r.late) }

// CopyFresh writes the rows past the cursor in (cursor, key) order, at most
// Limit of them. It has to come last: Next takes the last row it wrote.
func (r *Read) CopyFresh(ctx context.Context, w io.Writer) error { return r.copy(ctx, w, r.fresh) }

// HasLate reports whether there can be rows for CopyLate.
func (r *Read) HasLate() bool { return r.late != "" }

func (r *Read) copy(ctx context.Context, w io.Writer, sql string) error {
	if _, err := r.conn.Conn().PgConn().CopyTo(ctx, w, sql); err != nil {
		return fmt.Errorf("reading %s: %w", r.w.Table.Name, err)
	}
	return nil
}

// Next is the position after the read. last holds the COPY bytes of the last
// row of CopyFresh, nil if it wrote none; more says that it stopped at its limit.
func (r *Read) Next(ctx context.Context, last [][]byte, more bool) (*Position, error) {
	p := &Position{More: more}
	if r.previous != nil {
		p.Cursor, p.At = r.previous.Cursor, r.previous.At
	}
	if last != nil {
		keyset := make([][]byte, len(r.w.keyset))
		for i, at := range r.w.keyset {
			keyset[i] = last[at]
		}
		var err error
		if p.Cursor, err = r.texts(ctx, keyset); err != nil {
			return nil, err
		}
		p.At = r.w.family.number(keyset[0])
	}
	var before *Fence
	if r.previous != nil {
		before = r.previous.Fence
	}
	if r.previous != nil && r.previous.postponed() {
		p.Fence = before
		return p, nil
	}
	p.Fence = next(before, r.open, r.text, r.w.floor(r.at, p))
	if err := r.see(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// see records which transactions above the oldest running one are visible in
// the part of the table that the next read will look back on.
func (r *Read) see(ctx context.Context, p *Position) error {
	if len(r.now.running) == 0 {
		return nil // all below the snapshot's end is visible
	}
	var branches []string
	if p.Cursor != nil {
		within, err := r.lookbackSQL(ctx, p.Fence.lower())
		if err != nil {
			return err
		}
		if err := r.bindCursor(ctx, p.Cursor); err != nil {
			return err
		}
		branches = append(branches, within+" AND "+r.w.keysetSQL()+" <= "+r.w.boundSQL())
	}
	if !r.w.Table.Column(r.w.Cursor).NotNull {
		branches = append(branches, catalog.Quote(r.w.Cursor)+" IS NULL")
	}
	if len(branches) == 0 {
		return nil
	}
	x := r.wideXmin()
	rows, err := r.tx.Query(ctx, fmt.Sprintf("SELECT DISTINCT %s FROM %s WHERE (%s) AND %s >= %d%s ORDER BY 1 DESC LIMIT %d",
		x, r.w.Table.Source(), strings.Join(branches, " OR "), x, r.now.xmin, r.w.filterSQL(), seenLimit+1))
	if err != nil {
		return fmt.Errorf("reading visible transactions: %w", err)
	}
	seen, err := pgx.CollectRows(rows, pgx.RowTo[uint64])
	if err != nil {
		return fmt.Errorf("reading visible transactions: %w", err)
	}
	if len(seen) > seenLimit {
		seen = seen[:seenLimit]
	}
	slices.Reverse(seen)
	p.Fence.Seen = seen
	return nil
}

// texts asks Postgres for the text of values it sent in binary.
func (r *Read) texts(ctx context.Context, values [][]byte) ([]string, error) {
	exprs := make([]string, len(values))
	for i := range values {
		exprs[i] = fmt.Sprintf("$%d::text", i+1)
	}
	oids, formats := r.w.params(r.w.keyset)
	result := r.conn.Conn().PgConn().ExecParams(ctx, "SELECT "+strings.Join(exprs, ", "), values, oids, formats, nil).Read()
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

func (w *Watermark) params(columns []int) (oids []uint32, formats []int16) {
	for _, at := range columns {
		oids = append(oids, w.Table.Columns[at].Param)
		formats = append(formats, 1)
	}
	return oids, formats
}

// KeyOf copies the key's COPY bytes out of a whole row's.
func (w *Watermark) KeyOf(tuple [][]byte) [][]byte {
	out := make([][]byte, len(w.key))
	for i, at := range w.key {
		out[i] = slices.Clone(tuple[at])
	}
	return out
}

// Row returns one row of the snapshot whole, as JSON, by what KeyOf returned.
func (r *Read) Row(ctx context.Context, key [][]byte) (json.RawMessage, error) {
	oids, formats := r.w.params(r.w.key)
	conditions := make([]string, len(key))
	for i, at := range r.w.key {
		conditions[i] = fmt.Sprintf("%s = $%d", r.w.Table.Columns[at].Expr, i+1)
	}
	// Not to_jsonb: it refuses what may be the very reason of the rejection.
	sql := "SELECT row_to_json(t) FROM " + r.w.Table.Source() + " AS t WHERE " + strings.Join(conditions, " AND ")
	result := r.conn.Conn().PgConn().ExecParams(ctx, sql, key, oids, formats, nil).Read()
	if result.Err != nil {
		return nil, fmt.Errorf("reading a rejected row: %w", result.Err)
	}
	if len(result.Rows) == 0 {
		return nil, nil
	}
	return json.RawMessage(slices.Clone(result.Rows[0][0])), nil
}

// Close ends the snapshot and gives the connection back.
func (r *Read) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if r.tx != nil {
		_ = r.tx.Rollback(ctx) // read-only: nothing to lose
	}
	r.conn.Release()
}
