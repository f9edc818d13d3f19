package landing_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/warehouse"
	emulator "github.com/tidemark-data/tidemark/test/bigquery"
)

// deletesOf are the clean-ups that ran since a number of statements.
func deletesOf(s *shore, since int) []emulator.Statement {
	var out []emulator.Statement
	for _, st := range s.server.Statements()[since:] {
		if st.Kind == "DELETE" && !st.DryRun {
			out = append(out, st)
		}
	}
	return out
}

// TestCleanUpCostFollowsChurn: what other partitions hold does not count, under any
// policy; under hard deletes the tombstones do, for they may be anybody's.
func TestCleanUpCostFollowsChurn(t *testing.T) {
	t.Parallel()
	for name, deletes := range map[string]warehouse.Deletes{"soft": warehouse.SoftDeletes, "hard": warehouse.HardDeletes, "ignore": warehouse.IgnoreDeletes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShore(t)
			table := s.table(deletes)
			s.ensure(t, table)
			position := int64(0)
			land := func(rows ...version) {
				position++
				b := batch{Generation: 1, Position: position, Rows: rows}
				b.number()
				s.land(t, table, b)
			}
			clean := func(partitions ...string) emulator.Statement {
				before := len(s.server.Statements())
				if _, err := s.client.Dedup(t.Context(), table, partitions, 1<<40, nil); err != nil {
					t.Fatal(err)
				}
				done := deletesOf(s, before)
				if len(done) != 1 {
					t.Fatalf("%d clean-ups ran, want 1", len(done))
				}
				return done[0]
			}
			january := version{Key: 1, Name: "x", Day: "2026-01-05"}
			land(january)
			alone := clean("202601").BytesProcessed
			rows := make([]version, 1000)
			for i := range rows {
				rows[i] = version{Key: int64(100 + i), Name: strings.Repeat("x", 100), Day: "2026-05-09"}
			}
			land(rows...)
			if got := clean("202601").BytesProcessed; got != alone || alone == 0 {
				t.Errorf("beside a full partition it processes %d bytes, alone %d", got, alone)
			}
			land(version{Key: 100, Deleted: true}, version{Key: 101, Deleted: true})
			tombstones := clean("202601").BytesProcessed - alone
			const each = 8 + 36 + 8 + 1 // the key and the metadata, as an upper bound
			if want := map[bool]int64{true: 2 * each}[deletes == warehouse.HardDeletes]; tombstones != want {
				t.Errorf("tombstones cost %d bytes, want %d", tombstones, want)
			}
			land(january)
			got := clean("202601")
			if diff := cmp.Diff([]string{"202601"}, got.Partitions); diff != "" || got.RowsAffected != 1 {
				t.Errorf("%d rows are deleted, in partitions (-want +got):\n%s", got.RowsAffected, diff)
			}
		})
	}
}

// TestWhatStaysUntilAFullCleanUp is what the doc comment of Dedup says.
func TestWhatStaysUntilAFullCleanUp(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	for name, c := range map[string]struct {
		deletes warehouse.Deletes
		log     []version
		given   []string // partitions with new versions
		stays   []string
		finally []string
	}{
		"a row that moved": {
			warehouse.SoftDeletes,
			[]version{{Key: 1, Name: "was", Day: "2026-01-05"}, {Key: 1, Name: "is", Day: "2026-03-07"}},
			[]string{"202603"},
			[]string{"was", "is"},
			[]string{"is"},
		},
		"a row deleted, and nothing else happens in its partition": {
			warehouse.HardDeletes,
			[]version{{Key: 1, Name: "was", Day: "2026-01-05"}, {Key: 1, Deleted: true}},
			[]string{warehouse.NullPartition},
			[]string{"was", ""},
			[]string{""},
		},
		"a row deleted, and something else happens in its partition": {
			warehouse.HardDeletes,
			[]version{{Key: 1, Name: "was", Day: "2026-01-05"}, {Key: 1, Deleted: true}, {Key: 2, Name: "other", Day: "2026-01-06"}},
			[]string{"202601"},
			[]string{"", "other"},
			[]string{"", "other"},
		},
		"the tombstone of a row that came back": {
			warehouse.SoftDeletes,
			[]version{{Key: 1, Name: "was", Day: "2026-01-05"}, {Key: 1, Deleted: true}, {Key: 1, Name: "is", Day: "2026-01-05"}},
			[]string{"202601"},
			[]string{"", "is"},
			[]string{"is"},
		},
		"the last values of a row deleted": {
			warehouse.SoftDeletes,
			[]version{{Key: 1, Name: "was", Day: "2026-01-05"}, {Key: 1, Name: "is", Day: "2026-01-05"}, {Key: 1, Deleted: true}, {Key: 1, Deleted: true}},
			[]string{"202601", warehouse.NullPartition},
			[]string{"is", ""},
			[]string{"is", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := s.table(c.deletes)
			s.ensure(t, table)
			b := batch{Generation: 1, Position: 1, Rows: c.log}
			b.number()
			s.land(t, table, b)
			for _, step := range []struct{ partitions, want []string }{{c.given, c.stays}, {[]string{warehouse.WholeLog}, c.finally}} {
				if _, err := s.client.Dedup(t.Context(), table, step.partitions, 1<<40, nil); err != nil {
					t.Fatal(err)
				}
				var left []string
				for _, v := range s.log(t, table) {
					left = append(left, v.Name)
				}
				if diff := cmp.Diff(step.want, left); diff != "" {
					t.Errorf("left after a clean-up of %q (-want +got):\n%s", step.partitions, diff)
				}
			}
		})
	}
}

// TestCleanUpCountsTombstonesToo: the cap is held to what the statement reads, the
// tombstones among it.
func TestCleanUpCountsTombstonesToo(t *testing.T) {
	t.Parallel()
	s := newShore(t)
	table := s.table(warehouse.HardDeletes)
	s.ensure(t, table)
	b := batch{Generation: 1, Position: 1, Rows: []version{{Key: 1, Name: "x", Day: "2026-01-05"}}}
	for key := range int64(100) {
		b.Rows = append(b.Rows, version{Key: key, Deleted: true})
	}
	b.number()
	s.land(t, table, b)
	_, err := s.client.Dedup(t.Context(), table, []string{"202601"}, 1000, nil)
	if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
		t.Errorf("got %v, want it refused with a remedy", err)
	}
	if n := len(deletesOf(s, 0)); n != 0 {
		t.Errorf("%d clean-ups ran", n)
	}
	if _, err := s.client.Dedup(t.Context(), table, []string{"202601"}, 10_000, nil); err != nil {
		t.Error(err)
	}
}
