package source

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

func be(width int, v int64) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(v))
	return b[8-width:]
}

func TestCursorFamily(t *testing.T) {
	t.Parallel()
	want := map[string]family{
		"int2": counter, "int4": counter, "int8": counter, "timestamptz": instant, "timestamp": civil, "date": daily,
		"text": unordered, "uuid": unordered, "numeric": unordered, "time": unordered, "": unordered,
	}
	got := map[string]family{}
	for base := range want {
		got[base] = cursorFamily(base)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cursorFamily (-want +got):\n%s", diff)
	}
}

func TestNumberAndText(t *testing.T) {
	t.Parallel()
	const day = int64(86_400_000_000)
	tests := []struct {
		name   string
		family family
		bytes  []byte
		number int64
		text   string // "" where the number is never written as text
	}{
		{"smallint", counter, be(2, -7), -7, "-7"},
		{"integer", counter, be(4, math.MinInt32), math.MinInt32, "-2147483648"},
		{"bigint", counter, be(8, math.MaxInt64), math.MaxInt64, "9223372036854775807"},
		{"Postgres' epoch", instant, be(8, 0), 946_684_800_000_000, "2000-01-01 00:00:00+00"},
		{"a microsecond before 1970", instant, be(8, -946_684_800_000_001), -1, "1969-12-31 23:59:59.999999+00"},
		{"without time zone", civil, be(8, 1), 946_684_800_000_001, "2000-01-01 00:00:00.000001"},
		{"trailing zeros", civil, be(8, 500_000), 946_684_800_500_000, "2000-01-01 00:00:00.5"},
		{"year one", instant, be(8, yearOne-postgresEpoch), yearOne, "0001-01-01 00:00:00+00"},
		{"year 12345", instant, be(8, time.Date(12345, 6, 7, 0, 0, 0, 0, time.UTC).UnixMicro()-postgresEpoch), time.Date(12345, 6, 7, 0, 0, 0, 0, time.UTC).UnixMicro(), "12345-06-07 00:00:00+00"},
		{"infinity", instant, be(8, math.MaxInt64), math.MaxInt64, ""},
		{"-infinity", civil, be(8, math.MinInt64), math.MinInt64, ""},
		{"date", daily, be(4, 1), 946_684_800_000_000 + day, "2000-01-02"},
		{"date before 1970", daily, be(4, -10958), -day, "1969-12-31"},
		{"infinite date", daily, be(4, math.MaxInt32), math.MaxInt64, ""},
		{"-infinite date", daily, be(4, math.MinInt32), math.MinInt64, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := test.family.number(test.bytes)
			if got != test.number {
				t.Errorf("number = %d, want %d", got, test.number)
			}
			if test.text == "" {
				return
			}
			if text := test.family.text(got); text != test.text {
				t.Errorf("text = %q, want %q", text, test.text)
			}
		})
	}
}

// TestTextRoundsDown: a bound that went up would leave rows out.
func TestTextRoundsDown(t *testing.T) {
	t.Parallel()
	layouts := map[family]string{instant: "2006-01-02 15:04:05-07", civil: "2006-01-02 15:04:05", daily: time.DateOnly}
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]family{instant, civil, daily}).Draw(t, "family")
		n := rapid.Int64Range(yearOne, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMicro()).Draw(t, "n")
		at, err := time.Parse(layouts[f], f.text(n))
		if err != nil {
			t.Fatal(err)
		}
		lost := n - at.UnixMicro()
		if lost < 0 || f != daily && lost != 0 || lost >= microsPerDay {
			t.Fatalf("%d becomes %s, %d off", n, f.text(n), lost)
		}
	})
}

// TestNumberKeepsOrder: the numbers of two values compare as the values do.
func TestNumberKeepsOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]family{counter, instant, civil, daily}).Draw(t, "family")
		width, values := 8, rapid.Int64Range(-211_813_488_000_000_000, math.MaxInt64-postgresEpoch) // 4714 BC to 294246
		if f == daily {
			width, values = 4, rapid.OneOf(rapid.Int64Range(-2_451_545, 100_000_000), rapid.SampledFrom([]int64{math.MinInt32, math.MaxInt32}))
		}
		a, b := values.Draw(t, "a"), values.Draw(t, "b")
		x, y := f.number(be(width, a)), f.number(be(width, b))
		if (a < b) != (x < y) || (a == b) != (x == y) {
			t.Fatalf("%d and %d became %d and %d", a, b, x, y)
		}
	})
}

func TestFloor(t *testing.T) {
	t.Parallel()
	const hour = 3_600_000_000
	at := time.UnixMicro(1_000_000_000)
	tests := []struct {
		name     string
		family   family
		position Position
		want     *int64
	}{
		{"a counter before its first row", counter, Position{}, nil},
		{"a counter", counter, Position{Cursor: []string{"50"}, At: 50}, new(int64(40))},
		{"the least of counters", counter, Position{Cursor: []string{""}, At: math.MinInt64 + 9}, nil},
		{"a clock before the first row", instant, Position{}, new(int64(940_000_000))},
		{"rows behind the clock", instant, Position{Cursor: []string{""}, At: 500_000_000}, new(int64(440_000_000))},
		{"rows ahead of the clock", instant, Position{Cursor: []string{""}, At: 5_000_000_000}, new(int64(940_000_000))},
		{"rows at infinity", instant, Position{Cursor: []string{"infinity"}, At: math.MaxInt64}, new(int64(940_000_000))},
		{"of an unknown zone", civil, Position{Cursor: []string{""}, At: 1_000_000_000}, new(int64(940_000_000 - 12*hour))},
		{"of an unknown zone, far behind", civil, Position{Cursor: []string{""}, At: -100 * hour}, new(int64(-102*hour - 60_000_000))},
		{"infinite dates", daily, Position{Cursor: []string{"infinity"}, At: math.MaxInt64}, new(int64(940_000_000 - 12*hour))},
		{"rows before Christ", instant, Position{Cursor: []string{""}, At: yearOne - 1}, nil},
		{"rows of Go's zero time", instant, Position{Cursor: []string{""}, At: yearOne}, nil}, // the look-back begins in a year that is none
		{"rows a look-back later", instant, Position{Cursor: []string{""}, At: yearOne + 60_000_000}, new(int64(yearOne))},
		{"rows at -infinity", instant, Position{Cursor: []string{"-infinity"}, At: math.MinInt64}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := Watermark{family: test.family, Lookback: pipeline.Lookback{Time: time.Minute, Count: 10}}
			if diff := cmp.Diff(test.want, w.floor(at, &test.position)); diff != "" {
				t.Errorf("floor (-want +got):\n%s", diff)
			}
		})
	}
}

func sqlWatermark() *Watermark {
	columns := []catalog.Column{
		{Name: "id", Base: "int8", Param: 20, NotNull: true},
		{Name: `up"dated`, Base: "timestamptz", Param: 1184, NotNull: true},
		{Name: "code", Param: 25, NotNull: true}, // citext, an enum: no built-in type
		{Name: "tenant", Base: "uuid", Param: 2950},
	}
	return &Watermark{
		Rows:   &Rows{Table: &catalog.Table{Schema: `we"ird`, Name: "T", Columns: columns}, Key: []string{"code", "id"}, key: []int{2, 0}},
		Cursor: `up"dated`, family: instant, keyset: []catalog.Column{columns[1], columns[2], columns[0]},
	}
}

// What these statements do is tested on a real Postgres; here it is that names
// are quoted, that values stay out, and that order and bound match in length.
func TestKeysetSQL(t *testing.T) {
	t.Parallel()
	w := sqlWatermark()
	got := []string{w.keysetSQL(), w.boundSQL(w.atName), w.filterSQL()}
	w.Filters = []Filter{{"tenant", "x'; DROP TABLE y; --"}}
	got = append(got, w.filterSQL())
	w.Filters = append(w.Filters, Filter{"code", "acme"})
	got = append(got, w.filterSQL())
	want := []string{
		`("T"."up""dated", ("T"."code"::text COLLATE "C"), "T"."id")`,
		`(current_setting('tidemark.at_0')::pg_catalog."timestamptz", (current_setting('tidemark.at_1')::pg_catalog."text" COLLATE "C"), current_setting('tidemark.at_2')::pg_catalog."int8")`,
		``,
		` AND "tenant" = current_setting('tidemark.filter_0')::pg_catalog."uuid"`,
		` AND "tenant" = current_setting('tidemark.filter_0')::pg_catalog."uuid" AND "code"::text = current_setting('tidemark.filter_1')::pg_catalog."text"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SQL (-want +got):\n%s", diff)
	}
	oids, formats := params(w.keyset)
	if diff := cmp.Diff([]uint32{1184, 25, 20}, oids); diff != "" {
		t.Errorf("params (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int16{1, 1, 1}, formats); diff != "" {
		t.Errorf("formats (-want +got):\n%s", diff)
	}
}

func TestKeyOfCopies(t *testing.T) {
	t.Parallel()
	tuple := [][]byte{[]byte("id"), []byte("updated"), []byte("code"), nil}
	key := sqlWatermark().KeyOf(tuple)
	tuple[2][0], tuple[0][0] = '?', '?' // the transcoder uses its buffer again
	if diff := cmp.Diff([][]byte{[]byte("code"), []byte("id")}, key); diff != "" {
		t.Errorf("KeyOf (-want +got):\n%s", diff)
	}
}

// TestWideXmin: a row's 32-bit id belongs to the snapshot's epoch, or to the
// one before when it is above the snapshot's end.
func TestWideXmin(t *testing.T) {
	t.Parallel()
	for xmax, want := range map[uint64][2]string{
		5:          {"+ 0 ", "> 5 "},
		1<<32 + 9:  {"+ 4294967296 ", "> 9 "},
		7<<32 - 1:  {"+ 25769803776 ", "> 4294967295 "},
		3 << 32:    {"+ 12884901888 ", "> 0 "},
		1<<32 - 10: {"+ 0 ", "> 4294967286 "},
	} {
		r := watermarkRead{session: &session{now: snapshot{xmax: xmax}}}
		got := r.wideXmin()
		if !strings.Contains(got, want[0]) || !strings.Contains(got, want[1]) || !strings.Contains(got, "< 3 THEN 0") {
			t.Errorf("wideXmin at %d = %s, want %q", xmax, got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	got := []string{ids(nil), ids([]uint64{7}), ids([]uint64{7, math.MaxInt64})}
	if diff := cmp.Diff([]string{"{}", "{7}", "{7,9223372036854775807}"}, got); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
}

func TestStatementTimeout(t *testing.T) {
	t.Parallel()
	if got := statementTimeout(t.Context()); got != "540001" {
		t.Errorf("without a deadline: %s ms", got)
	}
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	if got := statementTimeout(past); got != "2" { // 0 would mean: for ever
		t.Errorf("after the deadline: %s ms", got)
	}
	soon, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := strconv.Atoi(statementTimeout(soon))
	if err != nil || got > 60_001 || got < 50_000 {
		t.Errorf("a minute before the deadline: %d ms (%v)", got, err)
	}
}

func TestUnchanged(t *testing.T) {
	t.Parallel()
	fence := &Fence{Snapshot: "5:9:5"}
	tests := []struct {
		name     string
		previous *Position
		now      string
		want     bool
	}{
		{"first sight", nil, "5:9:5", false},
		{"nothing ended", &Position{Fence: fence}, "5:9:5", true},
		{"more to read", &Position{Fence: fence, More: true}, "5:9:5", false},
		{"something ended", &Position{Fence: fence}, "9:9:", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := watermarkRead{session: &session{text: test.now}, previous: test.previous}
			if r.Unchanged() != test.want {
				t.Errorf("Unchanged = %t", r.Unchanged())
			}
		})
	}
}

// TestNewRowsRefuses what the catalogue contradicts before anything else.
func TestNewRowsRefuses(t *testing.T) {
	t.Parallel()
	table := sqlWatermark().Table
	for name, rows := range map[string]Rows{
		"no key": {}, "no such column": {Key: []string{"nope"}}, "nullable": {Key: []string{"tenant"}}, "not unique": {Key: []string{"id"}},
	} {
		rows.Table = table
		if _, err := NewRows(rows); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
