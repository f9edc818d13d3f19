package source

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fence is what a read remembers so that the next one finds exactly the rows
// that were committed behind the cursor meanwhile (I2). It answers, for a row
// version, whether the transaction that wrote it was visible to that read.
//
// A snapshot alone does not: its list of running transactions has no
// subtransactions, so pg_visible_in_snapshot takes a row written under a
// savepoint of a still running transaction for visible, and it would be lost.
// Such a row can only surface when its transaction ends. Seen therefore keeps
// the ids that really were visible above the oldest running transaction; they
// are consulted only when one of the running ones has ended.
type Fence struct {
	Snapshot string   `json:"snapshot"`       // pg_current_snapshot() of the read: xmin:xmax:running,..
	Seen     []uint64 `json:"seen,omitempty"` // ids from the oldest running one up that were visible in the look-back, ascending

	// Floor is the lowest cursor value that a transaction begun after the read
	// can write; nil: unknown. Pins are those for transactions open at the read.
	Floor *int64 `json:"floor"`
	Pins  []Pin  `json:"pins,omitempty"`

	// Standby says that Snapshot is of a hot standby, which knows the oldest running
	// transaction and none above it: whatever is from there up may have been running.
	Standby bool `json:"standby,omitempty"`

	// Log is where the write-ahead log was after the read: one elsewhere may see an
	// earlier state. It is 0 in a fence of before it was kept. Furthest is the highest
	// that any read has met.
	Log      uint64 `json:"log,omitempty"`
	Furthest uint64 `json:"furthest,omitempty"`
}

// Pin holds the look-back's lower bound where it was while transactions that
// were open then are still open.
type Pin struct {
	Floor *int64   `json:"floor"`           // nil: no bound is known
	Open  []string `json:"open"`            // virtual transaction ids
	Below uint64   `json:"below,omitempty"` // of a standby, instead of Open: until every transaction below it has ended
}

// Open is a transaction open at a read: Floor is the lowest cursor value it can
// write, where its start is known.
type Open struct {
	ID    string
	Floor *int64
}

// seenLimit bounds Fence.Seen to the newest. Beyond it, rows committed while a
// transaction stayed open are sent once more when it ends; none is lost.
const seenLimit = 20_000

// snapshot is a parsed pg_snapshot.
type snapshot struct {
	xmin, xmax uint64
	running    []uint64
}

// moment is a snapshot, and what else a read knows of its server.
type moment struct {
	snapshot
	text    string // of the snapshot
	standby bool   // running is always empty
	next    uint64 // above the id of every transaction that had written before the snapshot
	from    uint64 // where the write-ahead log was before the snapshot
	to      uint64 // and after it
}

func parseSnapshot(text string) (snapshot, error) {
	var s snapshot
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return s, fmt.Errorf("reading snapshot %q: want xmin:xmax:running", text)
	}
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return s, fmt.Errorf("reading snapshot: %w", err)
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return s, fmt.Errorf("reading snapshot: %w", err)
	}
	for id := range strings.SplitSeq(parts[2], ",") {
		if id == "" {
			continue
		}
		x, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return s, fmt.Errorf("reading snapshot: %w", err)
		}
		s.running = append(s.running, x)
	}
	return s, nil
}

// ended reports whether a transaction that ran at an earlier snapshot is over.
func (s snapshot) ended(x uint64) bool {
	return x < s.xmin || x < s.xmax && !slices.Contains(s.running, x)
}

// unseen is the test a row's transaction id is put to: at or above From, or at
// or above Doubt without being in Seen.
type unseen struct {
	From  uint64
	Doubt uint64 // the oldest transaction that ran then and has ended since: it and its subtransactions have surfaced; 0: none
	Seen  []uint64
}

// since compares the fence with the present snapshot.
func (f *Fence) since(now moment) (unseen, error) {
	then, err := parseSnapshot(f.Snapshot)
	if err != nil {
		return unseen{}, err
	}
	if now.xmax < then.xmax || f.ahead(now) {
		// Time goes backwards only on another server, as after a restore, or on a
		// standby that lags: the whole look-back is sent again.
		return unseen{}, nil
	}
	u := unseen{From: then.xmax}
	if f.Standby {
		if then.xmin < then.xmax {
			u.Doubt, u.Seen = then.xmin, f.Seen
		}
		return u, nil
	}
	for _, x := range then.running { // ascending
		if now.ended(x) {
			u.Doubt, u.Seen = x, f.Seen
			break
		}
	}
	return u, nil
}

// doubtful reports whether a transaction below the snapshot's end may be running.
func (m moment) doubtful() bool { return len(m.running) > 0 || m.standby && m.xmin < m.xmax }

// ahead reports whether the fence may be of a later state than a read sees.
func (f *Fence) ahead(now moment) bool { return f.Log > now.from }

// continues reports whether the fence is that of an earlier read of the same server,
// as far as can be told: what it knows of open transactions then holds.
func (f *Fence) continues(now moment) bool {
	return f != nil && f.Standby == now.standby && !f.ahead(now)
}

// next is the fence of a read that found the given transactions open and whose
// own floor is floor. previous is nil for a first read.
func next(previous *Fence, open []Open, now moment, floor *int64) *Fence {
	f := &Fence{Snapshot: now.text, Floor: floor, Standby: now.standby, Log: now.to, Furthest: now.to}
	if previous != nil {
		f.Furthest = max(f.Furthest, previous.Furthest)
	}
	var before *int64 // what a transaction begun since the previous read can write
	if previous.continues(now) {
		before = previous.Floor
	}
	f.hold(previous, open, now)
	if now.standby {
		f.pinUnnamed(before, now)
	} else {
		f.pinOpen(open, before)
	}
	return f
}

// hold keeps the pins of the previous fence whose transactions are still open.
func (f *Fence) hold(previous *Fence, open []Open, now moment) {
	if previous == nil {
		return
	}
	for _, p := range previous.Pins {
		var still []string
		for _, id := range p.Open {
			if previous.continues(now) && slices.ContainsFunc(open, func(o Open) bool { return o.ID == id }) {
				still = append(still, id)
			}
		}
		if len(still) > 0 || p.Below > now.xmin {
			f.Pins = append(f.Pins, Pin{Floor: p.Floor, Open: still, Below: p.Below})
		}
	}
}

// pinOpen pins the open transactions that no pin holds yet.
func (f *Fence) pinOpen(open []Open, before *int64) {
	known := map[string]bool{}
	for _, p := range f.Pins {
		for _, id := range p.Open {
			known[id] = true
		}
	}
	var fresh []string
	for _, o := range open {
		switch {
		case known[o.ID]:
		case o.Floor != nil && (before == nil || *o.Floor > *before):
			f.Pins = append(f.Pins, Pin{Floor: o.Floor, Open: []string{o.ID}})
		default:
			fresh = append(fresh, o.ID)
		}
	}
	if len(fresh) > 0 {
		f.Pins = append(f.Pins, Pin{Floor: before, Open: fresh})
	}
}

// standbyPins bounds what a fence of a standby remembers; beyond it two pins become
// one that holds for as long and as low as either.
const standbyPins = 20

// pinUnnamed pins, on a standby, what the open transactions of the primary can write.
// Which those are is not known there, only that all from below xmin have ended: each
// read pins until all that had written before it have. The end of the snapshot does
// not bound them: it is above those that ended, and others may be running above it.
// A transaction that took longer than the look-back before it first wrote is not
// covered: nothing on the standby tells of it.
func (f *Fence) pinUnnamed(before *int64, now moment) {
	if now.xmin < now.next {
		f.Pins = append(f.Pins, Pin{Floor: before, Below: now.next})
	}
	if n := len(f.Pins); n > standbyPins {
		a, b := f.Pins[n-2], f.Pins[n-1]
		if b.Floor == nil || a.Floor != nil && *b.Floor < *a.Floor {
			a.Floor = b.Floor
		}
		f.Pins = append(f.Pins[:n-2], Pin{Floor: a.Floor, Below: max(a.Below, b.Below)})
	}
}

// lower is the bound of the look-back: the lowest of the floor and the pins,
// nil when one of them is unknown.
func (f *Fence) lower() *int64 {
	low := f.Floor
	for _, p := range f.Pins {
		if p.Floor == nil || low == nil {
			return nil
		}
		if *p.Floor < *low {
			low = p.Floor
		}
	}
	return low
}
