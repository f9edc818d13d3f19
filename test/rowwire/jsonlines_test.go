package rowwire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/rowwire"
)

// jsonLines copies a query out through a transcoder and writes each row as a line.
func jsonLines(tb testing.TB, conn *pgx.Conn, l rowwire.Layout, names []string, query string) [][]byte {
	tb.Helper()
	w, err := rowwire.NewJSONLines(l, names)
	if err != nil {
		tb.Fatal(err)
	}
	var text []byte
	flush := func(b *rowwire.Batch) (*rowwire.Batch, error) {
		for _, row := range b.Rows {
			if text, err = w.Append(text, row); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	tr, err := rowwire.NewTranscoder(l, nil, flush, func(r rowwire.Reject) error { return fmt.Errorf("row %d: %v", r.Row, r.Reason) })
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := conn.PgConn().CopyTo(tb.Context(), tr, "COPY ("+query+") TO STDOUT (FORMAT binary)"); err != nil {
		tb.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		tb.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

// canonicalJSON returns the value of one member as PostgreSQL's text shows it.
func canonicalJSON(tb testing.TB, kind rowwire.Kind, raw json.RawMessage) string {
	tb.Helper()
	if kind == rowwire.JSON || kind == rowwire.JSONB {
		return string(raw) // its line breaks are spaces, which the cases do not have
	}
	text := string(raw)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(raw, &text); err != nil {
			tb.Fatal(err)
		}
	}
	switch kind {
	case rowwire.Bytes:
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			tb.Fatal(err)
		}
		return hex.EncodeToString(b)
	case rowwire.Timestamp:
		return strings.TrimSuffix(text, " UTC")
	case rowwire.Interval:
		return shortInterval(text)
	default:
		return canonicalText(tb, kind, text)
	}
}

// shortInterval is an ISO 8601 interval without the parts that are zero, as PostgreSQL writes it.
func shortInterval(text string) string {
	short := regexp.MustCompile(`-?\b0[YMDHS]`).ReplaceAllString(regexp.MustCompile(`([YMDHPT])`).ReplaceAllString(text, "$1 "), "")
	short = strings.TrimSuffix(strings.ReplaceAll(short, " ", ""), "T")
	if short == "P" {
		return "PT0S"
	}
	return short
}

// TestJSONLinesOfPostgres compares the lines of what PostgreSQL sends with its own texts of the values.
func TestJSONLinesOfPostgres(t *testing.T) {
	t.Parallel()
	for _, tc := range typeCases() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn := tableOf(t, tc.sqlType)
			for _, v := range tc.accepted {
				element := v
				if v == "null" {
					element = "{}" // a JSON null in an array is refused
				}
				execute(t, conn, fmt.Sprintf("INSERT INTO t (v, vs) SELECT $1::text::%[1]s, ARRAY[$2::text::%[1]s]", tc.sqlType), v, element)
			}
			execute(t, conn, "INSERT INTO t DEFAULT VALUES")
			if tc.text == "" || tc.kind == rowwire.Interval {
				tc.text = "v::text"
			}
			want := texts(t, conn, "SELECT "+tc.text+", (SELECT "+tc.text+" FROM unnest(vs) AS e(v)) FROM t ORDER BY id")
			l := rowwire.Layout{Columns: []rowwire.Column{
				{Name: "v", Kind: tc.kind, Field: 1}, {Name: "vs", Kind: tc.kind, Field: 2, Repeated: true},
			}}
			lines := jsonLines(t, conn, l, []string{"the value", "Werte"}, "SELECT v, vs FROM t ORDER BY id")
			if len(lines) != len(want) || string(lines[len(lines)-1]) != "{}" {
				t.Fatalf("%d lines, want %d; the last is %q", len(lines), len(want), lines[len(lines)-1])
			}
			for i, line := range lines[:len(lines)-1] {
				var got struct {
					V  json.RawMessage   `json:"the value"`
					Vs []json.RawMessage `json:"Werte"`
				}
				d := json.NewDecoder(bytes.NewReader(line))
				d.DisallowUnknownFields()
				if err := d.Decode(&got); err != nil || got.V == nil || len(got.Vs) != 1 {
					t.Fatalf("line %q: %v", line, err)
				}
				for j, raw := range []json.RawMessage{got.V, got.Vs[0]} {
					if got, want := canonicalJSON(t, tc.kind, raw), canonicalText(t, tc.kind, *want[i][j]); got != want {
						t.Errorf("row %d, column %d: got %q, want %q", i, j, got, want)
					}
				}
			}
		})
	}
}

// BenchmarkJSONLinesFromPostgres measures the whole way from a COPY to lines. One operation is 200,000 rows.
func BenchmarkJSONLinesFromPostgres(b *testing.B) {
	const rows = 200_000
	conn := connect(b)
	createMixed(b, conn, rows)
	l := mixedLayout()
	names := make([]string, len(l.Columns))
	for i := range names {
		names[i] = "c" + strconv.Itoa(i+1)
	}
	l.Partition = nil
	for b.Loop() {
		if got := len(jsonLines(b, conn, l, names, "SELECT * FROM mixed")); got != rows {
			b.Fatalf("%d lines", got)
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
