package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDifferencesAreFoundOnEitherSide(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		inPostgres, computed map[int64]int64
		want                 returned
	}{
		"equal":   {map[int64]int64{1: 5, 2: 0}, map[int64]int64{1: 5, 2: 0}, returned{computed: 2}},
		"other":   {map[int64]int64{1: 5}, map[int64]int64{1: 6}, returned{1, 1, "contact 1: 5 in Postgres, 6 computed"}},
		"missing": {nil, map[int64]int64{1: 0}, returned{1, 1, "contact 1: none in Postgres, 0 computed"}},
		"extra":   {map[int64]int64{1: 0}, nil, returned{0, 1, "contact 1: 0 in Postgres, none computed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := differences(test.inPostgres, test.computed)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(returned{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if agree := (findings{busiest: got}).agree(); agree != (test.want.wrong == 0) {
				t.Errorf("both sides agree: %v, with %d rows wrong", agree, test.want.wrong)
			}
		})
	}
}

func TestAMistakeThatNoBrakeStopsFailsTheDemo(t *testing.T) {
	t.Parallel()
	good := stopped{id: 12, outcome: "failed", remedy: `publish {"sync":"busiest_by_mistake","override":12} to tidemark-reverse-etl`, before: "7:(1,2)", after: "7:(1,2)"}
	for name, test := range map[string]struct {
		change func(*stopped)
		passes bool
	}{
		"stopped":           {func(*stopped) {}, true},
		"not stopped":       {func(s *stopped) { s.outcome = "ok" }, false},
		"failed otherwise":  {func(s *stopped) { s.remedy = "correct the query" }, false},
		"another's message": {func(s *stopped) { s.id = 1 }, false},
		"counted":           {func(s *stopped) { s.changed = 10 }, false},
		"written":           {func(s *stopped) { s.after = "8:(1,2)" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := good
			test.change(&run)
			if err := run.verify(); (err == nil) != test.passes {
				t.Errorf("got %v", err)
			}
		})
	}
}
