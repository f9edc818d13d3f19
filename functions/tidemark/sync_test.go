package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/reverse"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// ordered is the order of a command line, and what was printed.
func ordered(args ...string) (order, string, error) {
	var errs bytes.Buffer
	t := tool{err: &errs, out: &errs}
	o, err := t.order(t.flags(command{name: "sync"}), args)
	return o, errs.String(), err
}

// TestSyncOrder: nothing is written that was not asked for.
func TestSyncOrder(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		want order
	}{
		{"shop scores", order{tick.Message{Pipeline: "shop", Sync: "scores", DryRun: true}, ""}},
		{"-apply shop scores", order{tick.Message{Pipeline: "shop", Sync: "scores"}, ""}},
		{"-apply=false -full shop scores", order{tick.Message{Pipeline: "shop", Sync: "scores", DryRun: true, Full: true}, ""}},
		{"-retry -csv a.csv shop scores", order{tick.Message{Pipeline: "shop", Sync: "scores", DryRun: true, Retry: true}, "a.csv"}},
		{"-apply -override 12 -full -tenant acme shop scores", order{tick.Message{Pipeline: "shop", Sync: "scores", Override: 12, Full: true, Tenant: "acme"}, ""}},
		{"-plan 12 -apply -csv gs://b/a.csv shop scores", order{tick.Message{Pipeline: "shop", Sync: "scores", Plan: 12}, "gs://b/a.csv"}},
	} {
		got, printed, err := ordered(strings.Fields(test.args)...)
		if err != nil || printed != "" {
			t.Errorf("%s: %v: %s", test.args, err, printed)
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(order{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.args, diff)
		}
	}
	for args, want := range map[string]string{
		"":                             "takes 2 to 2 names",
		"shop":                         "takes 2 to 2 names",
		"shop scores again":            "takes 2 to 2 names",
		"-override 12 shop scores":     "-override takes the id of a run, and goes with -apply",
		"-plan 12 shop scores":         "-plan takes the id of a run, and goes with -apply",
		"-apply -plan 0 shop scores":   "-plan takes the id of a run, and goes with -apply",
		"-apply -plan -1 shop scores":  "-plan takes the id of a run, and goes with -apply",
		"-apply -override x shop s":    "invalid value",
		"-apply -override 0 shop s":    "-override takes the id of a run, and goes with -apply",
		"-dry_run shop scores":         "-dry_run",
		"shop scores -apply":           "takes 2 to 2 names",
		"-apply -plan 1.5 shop scores": "invalid value",
	} {
		if _, printed, err := ordered(strings.Fields(args)...); !errors.Is(err, errUsage) || !strings.Contains(printed, want) {
			t.Errorf("%q: %v, printed %q, want %q", args, err, printed, want)
		}
	}
	for _, args := range []string{"-full -retry shop s", "-apply -plan 1 -full shop s", "-apply -plan 1 -retry shop s", "-apply -plan 1 -override 2 shop s"} {
		_, _, err := ordered(strings.Fields(args)...)
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestSyncOrdered: which declaration is run.
func TestSyncOrdered(t *testing.T) {
	t.Parallel()
	query := pipeline.Sync{Name: "scores", Query: "SELECT 1", Changes: pipeline.ChangesCursor, Cursor: "at", Lookback: 1, FullEvery: 2, Mode: pipeline.ModeUpsert, Approve: true}
	pipelines := []pipeline.Pipeline{
		{Name: "crm", Tenants: &pipeline.Tenants{}, ReverseETL: []pipeline.Sync{query}},
		{Name: "shop", ReverseETL: []pipeline.Sync{{Name: "other"}, query}},
	}
	run := func(pipeline, sync string) tick.Message { return tick.Message{Pipeline: pipeline, Sync: sync} }
	file := pipeline.Sync{Name: "scores", CSV: "a.csv", Changes: pipeline.ChangesFull, Mode: pipeline.ModeUpsert, Approve: true}
	for csv, want := range map[string]pipeline.Sync{"": query, "a.csv": file} {
		got, err := order{run("shop", "scores"), csv}.sync(pipelines)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("with the file %q (-want +got):\n%s", csv, diff)
		}
	}
	if pipelines[1].ReverseETL[1].CSV != "" {
		t.Error("the declaration itself was changed")
	}
	tenant := run("crm", "scores")
	tenant.Plan, tenant.Tenant = 1, "acme"
	if _, err := (order{message: tenant}).sync(pipelines); err != nil {
		t.Error(err)
	}
	unnamed, overriding := tenant, run("crm", "scores")
	unnamed.Tenant, overriding.Override = "", 1
	for name, test := range map[string]struct {
		message tick.Message
		want    string
	}{
		"an unknown pipeline":             {run("shpo", "scores"), `there is no pipeline "shpo"; name one of: crm, shop`},
		"an unknown sync":                 {run("shop", "score"), `there is no sync "score"; name one of: other, scores`},
		"a plan of one of the tenants":    {unnamed, "a run is of one tenant, and the pipeline has several; name the tenant of the run with -tenant"},
		"an override of one of them":      {overriding, "a run is of one tenant, and the pipeline has several; name the tenant of the run with -tenant"},
		"a sync of the other pipeline":    {run("crm", "other"), `there is no sync "other"; name one of: scores`},
		"a pipeline's name as the sync's": {run("shop", "shop"), `there is no sync "shop"; name one of: other, scores`},
	} {
		_, err := order{message: test.message}.sync(pipelines)
		if err == nil {
			t.Errorf("%s was accepted", name)
			continue
		}
		if _, remedy := fault.Classify(err); err.Error()+"; "+remedy != test.want {
			t.Errorf("%s: %v; %s, want %s", name, err, remedy, test.want)
		}
	}
}

// TestReport: what an operator reads.
func TestReport(t *testing.T) {
	t.Parallel()
	dry, applied := tick.Message{Pipeline: "shop", Sync: "scores", DryRun: true}, tick.Message{Pipeline: "shop", Sync: "scores"}
	row := func(text string) json.RawMessage { return json.RawMessage(text) }
	for name, test := range map[string]struct {
		outcome reverse.Outcome
		failure error
		mode    pipeline.Mode
		tenant  string
		order   order
		want    string
	}{
		"a dry run": {
			outcome: reverse.Outcome{
				Run: 12, DryRun: true, Job: "j", Whole: true, Rows: 61, Insert: 1, Update: 2, Unchanged: 57, Rejected: 25, Outside: 3, Digest: "d",
				Samples: []target.Sample{{Action: "insert", Before: row("null"), After: row(`{"id":61}`)}, {Action: "update", Before: row(`{"id":1,"name":null}`), After: row(`{"id":1,"name":"x"}`)}, {Action: "delete", Before: row(`{"id":2}`)}},
				Rejects: []target.Reject{{Column: "code", Reason: "too long", Row: row(`{"id":3}`)}, {Reason: "the key is NULL", Row: row(`{"id":null}`)}, {Column: "code", Reason: "too long", Row: row(`{"id":4}`)}},
			},
			mode: pipeline.ModeUpsert, order: order{dry, ""},
			want: `shop scores, run 12, a dry run: nothing was written
BigQuery job j
          61 rows read: all of the source
           1 to insert
           2 to update
          57 unchanged
           3 left, since target.where does not hold for their row
          25 refused

samples, before (-) and after (+)
  insert + {"id":61}
  update - {"id":1,"name":null}
         + {"id":1,"name":"x"}
  delete - {"id":2}

refused: 3 of 25
  2 by code: too long
    {"id":3}
    {"id":4}
  1 by the key is NULL
    {"id":null}

to apply exactly this, as long as it is what there is to do:
  tidemark sync -apply -plan 12 shop scores
or publish to tidemark-reverse-etl:
  {"pipeline":"shop","sync":"scores","plan":12}
`,
		},
		"a dry run of a file for a tenant": {
			outcome: reverse.Outcome{Run: 13, DryRun: true, Rows: 2, Whole: true, Update: 1, Digest: "d", Absent: 1, Fill: &target.Fill{NoKey: 4, NotFound: 5}},
			mode:    pipeline.ModeFill, tenant: "acme", order: order{dry, "my own's.csv"},
			want: `shop scores of tenant acme, run 13, a dry run: nothing was written
           2 rows read: all of the source
           1 to update
           0 unchanged
           1 not found: no row of the table has their key
           0 refused
           4 rows of the table stay to be filled: they have no key
           5 rows of the table stay to be filled: the source does not have their key

to apply exactly this, as long as it is what there is to do:
  tidemark sync -apply -plan 13 -tenant acme -csv 'my own'\''s.csv' shop scores
`,
		},
		"a dry run beyond the brakes": {
			outcome: reverse.Outcome{
				Run: 14, DryRun: true, Rows: 2, Whole: true, Delete: 9, Table: 10, Digest: "d", Brakes: []reverse.Brake{{Name: "deletes", Found: 9, Why: "9 rows of 10 would be deleted"}},
				Cascades: []target.Cascade{{Table: "public.orders", Constraint: "orders_fk", Action: "cascade", Rows: 7}, {Table: "public.notes", Constraint: "notes_fk", Action: "set null", Rows: -1}, {Table: "public.tags", Constraint: "tags_fk", Action: "set default"}},
			},
			mode: pipeline.ModeMirror, order: order{dry, ""},
			want: `shop scores, run 14, a dry run: nothing was written
           2 rows read: all of the source
           0 to insert
           0 to update
           9 to delete, of 10 rows of the table
           0 unchanged
           0 refused

brakes
  deletes go on to 7 rows of public.orders (constraint orders_fk, on delete cascade)
  deletes go on to an unknown number of rows of public.notes (constraint notes_fk, on delete set null)
  deletes go on to 0 rows of public.tags (constraint tags_fk, on delete set default)
  a brake would stop it, deletes: 9 rows of 10 would be deleted

to apply exactly this, as long as it is what there is to do:
  tidemark sync -apply -plan 14 shop scores
or publish to tidemark-reverse-etl:
  {"pipeline":"shop","sync":"scores","plan":14}
`,
		},
		"a dry run of nothing": {
			outcome: reverse.Outcome{Run: 15, DryRun: true, Rows: 3, Unchanged: 2, Digest: "d", Rejected: 1, Rejects: []target.Reject{{Reason: "twice", Row: row(`{"id":1}`)}}}, mode: pipeline.ModeInsert, order: order{dry, ""},
			want: `shop scores, run 15, a dry run: nothing was written
           3 rows read: those that may have changed
           0 to insert
           2 unchanged
           1 refused

refused
  1 by twice
    {"id":1}

there is nothing to write
`,
		},
		"stopped": {
			outcome: reverse.Outcome{Run: 16, Rows: 0, Whole: true, Delete: 60, Table: 60, Brakes: []reverse.Brake{{Name: "empty", Why: "the source is empty"}}},
			failure: errors.New("stopped by its brakes"), mode: pipeline.ModeMirror, tenant: "7", order: order{tick.Message{Pipeline: "shop", Sync: "scores", Full: true}, ""},
			want: `shop scores of tenant 7, run 16, stopped by its brakes: nothing was written
           0 rows read: all of the source
           0 to insert
           0 to update
          60 to delete, of 60 rows of the table
           0 unchanged
           0 refused

brakes
  a brake has stopped it, empty: the source is empty

if this is meant, it may go as far once:
  tidemark sync -apply -override 16 -full -tenant 7 shop scores
or publish to tidemark-reverse-etl:
  {"pipeline":"shop","tenant":"7","sync":"scores","full":true,"override":16}
`,
		},
		"applied": {
			outcome: reverse.Outcome{Run: 17, Rows: 9, Insert: 1, Update: 2, Delete: 3, Unchanged: 1, Present: 1, Rejected: 1, Locked: 1, Paused: 1.26, Withheld: "a key\ncannot be read\x1b[2J"},
			mode:    pipeline.ModeMirror, order: order{applied, ""},
			want: `shop scores, run 17, applied
           9 rows read: those that may have changed
           1 inserted
           2 updated
           3 deleted
           1 unchanged
           1 left, since their key is in the table
           1 refused
           1 left, since other transactions hold their row
no row is deleted for being absent from the source: a key\ncannot be read\x1b[2J
waited 1.3 s for the other work of the database

refused
  tidemark rejects shop scores lists them
`,
		},
		"in part": {
			outcome: reverse.Outcome{Run: 18, Rows: 9, Update: 5, More: true}, mode: pipeline.ModeUpdate, order: order{applied, ""},
			want: `shop scores, run 18, applied in part; it goes on
           9 rows read: those that may have changed
           5 updated
           0 unchanged
           0 refused
`,
		},
		"failed": {
			outcome: reverse.Outcome{Run: 19, Job: "j", Rows: 9, Update: 5, Digest: "d"}, failure: errors.New("no connection"), mode: pipeline.ModeUpdate, order: order{applied, ""},
			want: "shop scores, run 19, failed\nBigQuery job j\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unit := tick.Unit{Pipeline: &pipeline.Pipeline{Name: "shop"}, Tenant: tick.Tenant{ID: test.tenant}}
			got := report{&test.outcome, test.failure, unit, &pipeline.Sync{Name: "scores", Mode: test.mode}, test.order}.String()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnfinished: what was asked for and is not done is no success.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	brakes := []reverse.Brake{{Name: "empty"}}
	for name, test := range map[string]struct {
		outcome reverse.Outcome
		message tick.Message
		want    bool
	}{
		"a dry run":                      {reverse.Outcome{DryRun: true}, tick.Message{DryRun: true}, false},
		"a dry run that would not write": {reverse.Outcome{DryRun: true, Brakes: brakes}, tick.Message{DryRun: true}, true},
		"a plan that waits":              {reverse.Outcome{DryRun: true}, tick.Message{}, true},
		"applied":                        {reverse.Outcome{Rejected: 1}, tick.Message{}, false},
		"rows that are held":             {reverse.Outcome{Locked: 1}, tick.Message{}, true},
		"rows that come later":           {reverse.Outcome{Locked: 1, More: true}, tick.Message{}, false},
	} {
		if err := unfinished(&test.outcome, test.message); (err != nil) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
