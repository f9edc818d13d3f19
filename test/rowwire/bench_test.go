package rowwire_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// createMixed makes a table of 14 columns such as an application's table has.
func createMixed(tb testing.TB, conn *pgx.Conn, rows int) {
	tb.Helper()
	execute(tb, conn, `CREATE TABLE mixed (c1 bigint, c2 integer, c3 smallint, c4 boolean, c5 double precision, c6 numeric(12,2),
		c7 text, c8 varchar(40), c9 text, c10 jsonb, c11 uuid, c12 date, c13 timestamp, c14 timestamptz)`)
	execute(tb, conn, fmt.Sprintf(`INSERT INTO mixed SELECT i, (random() * 1e9)::int, (i %% 30000)::smallint, i %% 3 = 0,
		random() * 1e6, (random() * 1e9)::numeric(12,2), 'customer ' || i, md5(i::text), 'a longer note, the text of row ' || i || ', in one line',
		jsonb_build_object('id', i, 'tags', jsonb_build_array('a', 'b'), 'score', (i %% 4000) * 0.25), gen_random_uuid(),
		date '2020-01-01' + (i %% 2000), timestamp '2020-01-01' + random() * interval '2000 days',
		timestamptz '2025-01-01 00:00Z' + i * interval '1 second' FROM generate_series(1, %d) AS i`, rows))
	execute(tb, conn, "VACUUM (FREEZE, ANALYZE) mixed")
}

func mixedLayout() rowwire.Layout {
	l := rowwire.Layout{
		VersionField: 15, SyncedAtField: 16, DeletedField: 17,
		VersionPrefix: "00000001/0005f3a2b1c00000/", SyncedAt: 1_795_000_000_000_000,
		Partition: &rowwire.Partition{Column: 13, Granularity: rowwire.Month},
	}
	for i, k := range []rowwire.Kind{
		rowwire.Int8, rowwire.Int4, rowwire.Int2, rowwire.Bool, rowwire.Float8, rowwire.Numeric, rowwire.Text,
		rowwire.Text, rowwire.Text, rowwire.JSONB, rowwire.UUID, rowwire.Date, rowwire.DateTime, rowwire.Timestamp,
	} {
		l.Columns = append(l.Columns, rowwire.Column{Name: fmt.Sprint("c", i+1), Kind: k, Field: int32(i + 1)})
	}
	return l
}

// BenchmarkCopyFromPostgres transcodes a COPY of 14 columns and discards the same COPY, by turns. One operation is one
// COPY of each. The ratio is 1 when transcoding costs no time at all.
func BenchmarkCopyFromPostgres(b *testing.B) {
	const rows = 300_000
	conn := connect(b)
	createMixed(b, conn, rows)
	const query = "COPY (SELECT * FROM mixed) TO STDOUT (FORMAT binary)"
	timed := func(w io.Writer) time.Duration {
		start := time.Now()
		if _, err := conn.PgConn().CopyTo(b.Context(), w, query); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	timed(io.Discard) // warms the cache
	var discarding, transcoding time.Duration
	for b.Loop() {
		discarding += timed(io.Discard)
		tr, err := rowwire.NewTranscoder(mixedLayout(), nil,
			func(batch *rowwire.Batch) (*rowwire.Batch, error) { return batch, nil },
			func(r rowwire.Reject) error { return fmt.Errorf("row %d: %v", r.Row, r.Reason) })
		if err != nil {
			b.Fatal(err)
		}
		transcoding += timed(tr)
		if err := tr.Close(); err != nil {
			b.Fatal(err)
		}
		if tr.Rows() != rows {
			b.Fatalf("%d rows", tr.Rows())
		}
	}
	b.ReportMetric(float64(b.N)*rows/discarding.Seconds(), "discarded-rows/s")
	b.ReportMetric(float64(b.N)*rows/transcoding.Seconds(), "rows/s")
	b.ReportMetric(discarding.Seconds()/transcoding.Seconds(), "ratio")
}
