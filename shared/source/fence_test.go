package source

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/pipeline"
)

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want *snapshot // nil: refused
	}{
		{"10:20:10,14,15", &snapshot{10, 20, []uint64{10, 14, 15}}},
		{"748:748:", &snapshot{748, 748, nil}},
		{"12884901890:12884901899:12884901890", &snapshot{12884901890, 12884901899, []uint64{12884901890}}},
		{"", nil},
		{"1:2", nil},
		{"a:2:", nil},
		{"1:b:", nil},
		{"1:2:c", nil},
		{"-1:2:", nil},
		{"1:99999999999999999999:", nil},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			t.Parallel()
			got, err := parseSnapshot(test.text)
			if (err == nil) != (test.want != nil) {
				t.Fatalf("parseSnapshot(%q): error %v", test.text, err)
			}
			if test.want == nil {
				return
			}
			if diff := gocmp.Diff(*test.want, got, gocmp.AllowUnexported(snapshot{})); diff != "" {
				t.Errorf("parseSnapshot(%q) (-want +got):\n%s", test.text, diff)
			}
		})
	}
}

func TestSince(t *testing.T) {
	t.Parallel()
	seen := []uint64{11, 13}
	tests := []struct {
		name, then, now string
		want            unseen
	}{
		{"nothing ran", "20:20:", "25:25:", unseen{From: 20}},
		{"still running", "10:20:10,14", "10:30:10,14", unseen{From: 20}},
		{"the first ended: everything above it is in doubt", "10:20:10,14", "14:30:14", unseen{From: 20, Doubt: 10, Seen: seen}},
		{"the second ended", "10:20:10,14", "10:30:10", unseen{From: 20, Doubt: 14, Seen: seen}},
		{"all ended", "10:20:10,14", "30:30:", unseen{From: 20, Doubt: 10, Seen: seen}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			now, err := parseSnapshot(test.now)
			if err != nil {
				t.Fatal(err)
			}
			got, err := (&Fence{Snapshot: test.then, Seen: seen}).since(moment{snapshot: now})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(test.want, got); diff != "" {
				t.Errorf("since (-want +got):\n%s", diff)
			}
		})
	}
	// Ids that went backwards are another server's.
	for name, now := range map[string]moment{
		"ids": {snapshot: snapshot{5, 19, nil}, from: 7}, "the log": {snapshot: snapshot{12, 30, nil}, from: 6},
	} {
		u, err := (&Fence{Snapshot: "10:20:10", Seen: seen, Log: 7}).since(now)
		if diff := gocmp.Diff(unseen{}, u); diff != "" || err != nil {
			t.Errorf("since of another server, by %s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	if _, err := (&Fence{Snapshot: "broken"}).since(moment{}); err == nil {
		t.Error("a fence with a broken snapshot was compared")
	}
}

func TestLower(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fence Fence
		want  *int64
	}{
		{"floor alone", Fence{Floor: new(int64(7))}, new(int64(7))},
		{"no floor is known", Fence{Pins: []Pin{{Floor: new(int64(3)), Open: []string{"1/1"}}}}, nil},
		{"a pin is lower", Fence{Floor: new(int64(7)), Pins: []Pin{{Floor: new(int64(9)), Open: nil}, {Floor: new(int64(-2)), Open: nil}}}, new(int64(-2))},
		{"a pin is unknown", Fence{Floor: new(int64(7)), Pins: []Pin{{Floor: new(int64(1)), Open: nil}, {Floor: nil, Open: nil}}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := gocmp.Diff(test.want, test.fence.lower()); diff != "" {
				t.Errorf("lower (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNext follows one long transaction through four reads: it holds the bound
// that was known when it was first met, and lets go when it has ended.
func TestNext(t *testing.T) {
	t.Parallel()
	open := func(ids ...string) (out []Open) {
		for _, id := range ids {
			out = append(out, Open{ID: id})
		}
		return out
	}
	one := next(nil, open("3/1"), moment{text: "5:5:"}, new(int64(100)))
	two := next(one, open("3/1", "4/1"), moment{text: "6:6:"}, new(int64(200)))
	three := next(two, open("4/1", "3/1"), moment{text: "7:7:"}, new(int64(300)))
	four := next(three, open("4/1"), moment{text: "8:8:"}, new(int64(400)))
	five := next(four, nil, moment{text: "9:9:"}, new(int64(500)))
	want := []*Fence{
		{Snapshot: "5:5:", Floor: new(int64(100)), Pins: []Pin{{Floor: nil, Open: []string{"3/1"}}}},
		{Snapshot: "6:6:", Floor: new(int64(200)), Pins: []Pin{{Floor: nil, Open: []string{"3/1"}}, {Floor: new(int64(100)), Open: []string{"4/1"}}}},
		{Snapshot: "7:7:", Floor: new(int64(300)), Pins: []Pin{{Floor: nil, Open: []string{"3/1"}}, {Floor: new(int64(100)), Open: []string{"4/1"}}}},
		{Snapshot: "8:8:", Floor: new(int64(400)), Pins: []Pin{{Floor: new(int64(100)), Open: []string{"4/1"}}}},
		{Snapshot: "9:9:", Floor: new(int64(500))},
	}
	if diff := gocmp.Diff(want, []*Fence{one, two, three, four, five}); diff != "" {
		t.Errorf("next (-want +got):\n%s", diff)
	}
}

// TestNextKnowsStarts: the start of a transaction is a bound too, where it says
// more than the previous read does.
func TestNextKnowsStarts(t *testing.T) {
	t.Parallel()
	previous := &Fence{Floor: new(int64(100)), Pins: []Pin{{Floor: new(int64(40)), Open: []string{"1/1"}}}}
	open := []Open{{"1/1", new(int64(90))}, {"2/1", new(int64(150))}, {"3/1", new(int64(50))}, {"4/1", nil}}
	got := [][]Pin{next(previous, open, moment{}, nil).Pins, next(nil, open[1:], moment{}, nil).Pins}
	want := [][]Pin{
		{{Floor: new(int64(40)), Open: []string{"1/1"}}, {Floor: new(int64(150)), Open: []string{"2/1"}}, {Floor: new(int64(100)), Open: []string{"3/1", "4/1"}}},
		{{Floor: new(int64(150)), Open: []string{"2/1"}}, {Floor: new(int64(50)), Open: []string{"3/1"}}, {Floor: nil, Open: []string{"4/1"}}},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("pins (-want +got):\n%s", diff)
	}
}

// TestFenceDeliversExactlyOnce is I2 on a model of a database: whatever the
// order in which transactions and their savepoints begin, write, roll back and
// commit, and wherever between them reads happen, fail or stop at their limit,
// every version of a row that a read could see arrives, and arrives once. Only
// what is drained while late rows are postponed may come once more.
func TestFenceDeliversExactlyOnce(t *testing.T) {
	t.Parallel()
	for f, name := range map[family]string{instant: "instant", civil: "civil", counter: "counter"} {
		for source, servers := range map[string][]int{"primary": {0}, "standby": {1}, "standbys": {1, 2}, "any": {0, 1, 2}} {
			t.Run(name+" "+source, func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) { follow(t, f, servers) })
			})
		}
	}
}

// follow has a table written, and read on servers: 0 is the primary, 1 and 2 are its standbys.
func follow(t *rapid.T, f family, servers []int) {
	w := &world{t: t, family: f, servers: servers, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), nextID: 700, rows: map[int]*version{}, arrived: map[*version]int{}, last: map[int]*version{}, drained: map[*version]bool{}}
	w.replay(1)
	w.replay(2)
	w.limit = rapid.SampledFrom([]int{1000, 5, 2, 1}).Draw(t, "limit")
	for range rapid.IntRange(10, 400).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"go on", "go on", "go on", "go on", "read", "read in vain", "replay"}).Draw(t, "then") {
		case "read":
			w.read(true)
		case "read in vain":
			w.read(false)
		case "replay":
			w.replay(rapid.IntRange(1, 2).Draw(t, "which"))
		default:
			w.step()
		}
	}
	for _, x := range slices.Clone(w.open) {
		w.end(x, rapid.Bool().Draw(t, "commit"))
	}
	w.quiet = true
	w.replay(1)
	w.replay(2)
	for w.read(true); w.at.More; {
		w.read(true)
	}
	w.read(true) // what was postponed
	for key, v := range w.rows {
		if v = w.visible(v); v != nil && w.last[key] != v {
			t.Fatalf("row %d (%+v) has not arrived; what has is %+v; fence %+v", key, *v, w.last[key], *w.at.Fence)
		}
	}
}

const (
	lag  = 10 // microseconds, or numbers, by which cursor values may be behind: the look-back
	idle = 4  // of which, on a standby, a transaction's first write comes after its start
)

// world is one table and the transactions on it.
type world struct {
	t       *rapid.T
	family  family
	servers []int    // that are read
	log     uint64   // grows with everything that happens
	ended   int64    // when the last transaction did
	standby [3]state // what each standby has replayed
	clock   int64
	nextID  uint64
	newest  uint64 // highest id that has ended
	begun   int
	open    []*transaction
	rows    map[int]*version // newest version of each key
	serial  int64
	limit   int
	quiet   bool // nothing happens between a read's clock and its snapshot
	at      *Position
	arrived map[*version]int
	last    map[int]*version  // that arrived, of each key
	drained map[*version]bool // by a read that left the fence where it was
}

// state is what a read sees of a server.
type state struct {
	moment
	at      int64 // clock
	open    []Open
	visible []*version
}

// look is the state of the primary, whose clock and open transactions are looked at first.
func (w *world) look() state {
	watermark := w.watermark()
	s := state{at: w.clock, moment: moment{from: w.log}}
	for _, x := range w.open {
		o := Open{ID: x.name}
		if x.known {
			o.Floor = watermark.startFloor(new(time.UnixMicro(x.start)))
		}
		s.open = append(s.open, o)
	}
	if !w.quiet {
		for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(w.t, "between clock and snapshot") {
			w.step()
		}
	}
	w.see(&s, w.snapshot())
	return s
}

// replay brings a standby to where the primary is. It shows the primary's clock when
// the last transaction ended, the oldest running one and none else.
func (w *world) replay(n int) {
	w.standby[n] = state{at: w.ended, moment: moment{standby: true, from: w.log}}
	text := w.snapshot()
	w.see(&w.standby[n], text[:strings.LastIndexByte(text, ':')+1])
}

func (w *world) see(s *state, text string) {
	var err error
	if s.snapshot, err = parseSnapshot(text); err != nil {
		w.t.Fatal(err)
	}
	s.text, s.next, s.to = text, w.nextID, w.log
	for _, v := range w.rows {
		if v = w.visible(v); v != nil {
			s.visible = append(s.visible, v)
		}
	}
	slices.SortFunc(s.visible, byCursor)
}

func (w *world) watermark() Watermark {
	return Watermark{Lookback: pipeline.Lookback{Time: lag * time.Microsecond, Count: lag}, family: w.family}
}

// transaction is a transaction or, with a parent, a savepoint in one. It gets
// its id with its first write, and its parents get theirs before it.
type transaction struct {
	name          string
	known         bool // its start shows in pg_stat_activity
	id            uint64
	start         int64
	parent, child *transaction
	ended, gone   bool
}

type version struct {
	key    int
	cursor int64
	by     *transaction
	older  *version
}

func (x *transaction) top() *transaction {
	for x.parent != nil {
		x = x.parent
	}
	return x
}

func (x *transaction) innermost() *transaction {
	for x.child != nil {
		x = x.child
	}
	return x
}

// lost: it or a savepoint around it was rolled back.
func (x *transaction) lost() bool { return x.gone || x.parent != nil && x.parent.lost() }

func (w *world) assign(x *transaction) {
	if x.parent != nil {
		w.assign(x.parent)
	}
	if x.id == 0 {
		x.id = w.nextID
		w.nextID++
		if w.servers[len(w.servers)-1] > 0 && x.parent == nil {
			x.start = max(x.start, w.clock-idle) // a standby tells nothing of what a transaction does before
		}
	}
}

// visible is the newest version of a row that a snapshot taken now contains.
func (w *world) visible(v *version) *version {
	for v != nil && (v.by.lost() || !v.by.top().ended) {
		v = v.older
	}
	return v
}

func (w *world) step() {
	w.log++
	w.clock += rapid.Int64Range(0, 6).Draw(w.t, "passes")
	if w.family == civil && rapid.IntRange(0, 9).Draw(w.t, "half a day?") == 9 {
		w.clock += (13 * time.Hour).Microseconds()
	}
	action := rapid.SampledFrom([]string{"write", "write", "write", "begin", "commit", "savepoint", "release", "rollback to", "abort"}).Draw(w.t, "action")
	if len(w.open) == 0 || action == "begin" && len(w.open) < 4 {
		w.begun++
		w.open = append(w.open, &transaction{name: fmt.Sprintf("%d/%d", w.begun%3, w.begun), start: w.clock, known: rapid.Bool().Draw(w.t, "start is known")})
		return
	}
	x := rapid.SampledFrom(w.open).Draw(w.t, "transaction")
	inner := x.innermost()
	switch action {
	case "write":
		w.write(inner)
	case "savepoint":
		inner.child = &transaction{parent: inner}
	case "release", "rollback to":
		if inner != x {
			inner.parent.child = nil
			inner.gone = action == "rollback to"
			if inner.gone {
				w.newest = max(w.newest, inner.id)
			}
		}
	case "commit", "abort":
		w.end(x, action == "commit")
	}
}

// write inserts a row or updates one whose newest version is not another
// transaction's: that one would be waited for.
func (w *world) write(x *transaction) {
	key := rapid.IntRange(0, 20).Draw(w.t, "key")
	older := w.rows[key]
	for older != nil && older.by.lost() {
		older = older.older
	}
	if older != nil && older.by.top() != x.top() && !older.by.top().ended {
		return
	}
	w.assign(x)
	v := &version{key: key, by: x, older: older}
	if w.family == counter {
		w.serial++ // numbers may have been handed out in advance
		v.cursor = w.serial - rapid.Int64Range(0, lag).Draw(w.t, "handed out")
	} else {
		// now() is the transaction's start, and the application's clock may lag or run ahead.
		behind := int64(lag)
		if w.servers[len(w.servers)-1] > 0 {
			behind -= idle
		}
		v.cursor = x.top().start + rapid.Int64Range(-behind, lag).Draw(w.t, "skew")
	}
	if w.family == civil { // nobody knows whose local time it is
		v.cursor += rapid.SampledFrom([]time.Duration{0, -12 * time.Hour, 14 * time.Hour}).Draw(w.t, "zone").Microseconds()
	}
	w.rows[key] = v
}

func (w *world) end(x *transaction, commit bool) {
	x.ended, x.gone, w.ended = true, !commit, w.clock
	w.log++
	for s := x; s != nil; s = s.child {
		w.newest = max(w.newest, s.id)
	}
	// Released savepoints count as well: theirs are among the ids given out to x.
	for _, v := range w.rows {
		for ; v != nil; v = v.older {
			if v.by.top() == x {
				w.newest = max(w.newest, v.by.id)
			}
		}
	}
	w.open = slices.DeleteFunc(w.open, func(o *transaction) bool { return o == x })
}

// snapshot is pg_current_snapshot(): it ends behind the newest ended id and
// lists running transactions, but not their savepoints.
func (w *world) snapshot() string {
	xmax := max(w.newest, 699) + 1
	xmin := xmax
	var running []string
	for _, x := range slices.SortedFunc(slices.Values(w.open), func(a, b *transaction) int { return cmp.Compare(a.id, b.id) }) {
		if x.id != 0 && x.id < xmax {
			xmin = min(xmin, x.id)
			running = append(running, strconv.FormatUint(x.id, 10))
		}
	}
	return fmt.Sprintf("%d:%d:%s", xmin, xmax, strings.Join(running, ","))
}

// read does with the model what Watermark has Postgres do. One that is not kept
// ended before its position was saved, and its rows with it.
func (w *world) read(keep bool) {
	var now state
	if n := rapid.SampledFrom(w.servers).Draw(w.t, "server"); n > 0 {
		now = w.standby[n]
	} else {
		now = w.look()
	}
	var late, fresh []*version
	after := &Position{}
	var before *Fence
	postponed := false
	if w.at != nil {
		*after, before, postponed = *w.at, w.at.Fence, w.at.postponed(now.moment)
	}
	behind := func(v *version) bool { return after.Cursor != nil && keyset(v) <= after.Cursor[0] }
	for _, v := range now.visible {
		switch {
		case !behind(v):
			fresh = append(fresh, v)
		case !postponed && w.inLookback(v, before) && w.wasUnseen(v, before, now.moment):
			late = append(late, v)
		}
	}
	fresh = fresh[:min(w.limit, len(fresh))]
	after.More = len(fresh) == w.limit
	if len(fresh) > 0 {
		last := fresh[len(fresh)-1]
		after.Cursor, after.At = []string{keyset(last)}, last.cursor
	}
	if postponed {
		if keep {
			for _, v := range fresh {
				w.drained[v] = true
			}
			w.keep(after, fresh)
		}
		return
	}
	watermark := w.watermark()
	after.Fence = watermark.fence(after, before, now.open, now.moment, time.UnixMicro(now.at))
	if now.doubtful() {
		for _, v := range now.visible {
			if behind(v) && w.inLookback(v, after.Fence) && v.by.id >= now.xmin {
				after.Fence.Seen = append(after.Fence.Seen, v.by.id)
			}
		}
		slices.Sort(after.Fence.Seen)
		after.Fence.Seen = slices.Compact(after.Fence.Seen)
	}
	if keep {
		w.keep(after, append(late, fresh...))
	}
}

func (w *world) keep(p *Position, rows []*version) {
	for _, v := range rows {
		w.arrived[v]++
		w.last[v.key] = v
		if w.arrived[v] > 1 && len(w.servers) == 1 && (w.arrived[v] > 2 || !w.drained[v]) {
			w.t.Fatalf("row %d (%+v) arrived again; fence %+v", v.key, *v, *w.at.Fence)
		}
	}
	saved, err := json.Marshal(p)
	if err != nil {
		w.t.Fatal(err)
	}
	w.at = new(Position)
	if err := json.Unmarshal(saved, w.at); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) inLookback(v *version, f *Fence) bool {
	lower := f.lower()
	return lower == nil || v.cursor >= *lower
}

func (w *world) wasUnseen(v *version, f *Fence, now moment) bool {
	u, err := f.since(now)
	if err != nil {
		w.t.Fatal(err)
	}
	id := v.by.id
	return id >= u.From || u.Doubt > 0 && id >= u.Doubt && !slices.Contains(u.Seen, id)
}

// keyset is (cursor, key) as text that sorts as they do.
func keyset(v *version) string { return fmt.Sprintf("%020d/%02d", v.cursor+1_000_000, v.key) }

func byCursor(a, b *version) int { return strings.Compare(keyset(a), keyset(b)) }
