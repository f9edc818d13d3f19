package main

import (
	"context"
	"flag"
	"strconv"
	"time"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/controlplane"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// shownRows is how many refused rows are listed.
const shownRows = 100

// rejects lists what was refused: how much of what and why, or the rows themselves.
func (t *tool) rejects(ctx context.Context, flags *flag.FlagSet, args []string) error {
	rows := flags.Bool("rows", false, "list the newest "+strconv.Itoa(shownRows)+" rows with their values")
	names, err := t.parse(flags, args, 1, 2)
	if err != nil {
		return err
	}
	config, err := t.config()
	if err != nil {
		return err
	}
	if err := known(config.Pipelines, names[0], names[1]); err != nil {
		return err
	}
	db, closeDB, err := cloudsql.Open(ctx, config.Control, 1)
	if err != nil {
		return err
	}
	defer closeDB()
	if *rows {
		return t.rejectedRows(ctx, db, names[0], names[1])
	}
	groups, err := controlplane.RejectGroups(ctx, db, names[0], names[1])
	if err != nil {
		return err
	}
	cells := [][]string{{"tenant", "table", "column", "reason", "rows", "first", "last"}}
	for _, g := range groups {
		cells = append(cells, []string{g.Tenant, g.Table, g.Column, g.Reason, strconv.FormatInt(g.Rows, 10), at(g.First), at(g.Last)})
	}
	t.table(cells)
	return nil
}

// known is a permanent error for a name that would be looked for in vain: rows are kept
// by their table, or their reverse sync.
func known(pipelines []pipeline.Pipeline, of, name string) error {
	d := tick.Dispatcher{Pipelines: pipelines}
	m := tick.Message{Pipeline: of, Table: name}
	for _, p := range pipelines {
		if p.Name == of && p.Sync(name) != nil {
			m.Table = ""
		}
	}
	return d.Check(m)
}

func (t *tool) rejectedRows(ctx context.Context, db *cloudsql.Pool, pipeline, name string) error {
	refused, err := controlplane.RejectedRows(ctx, db, pipeline, name, shownRows)
	if err != nil {
		return err
	}
	cells := [][]string{{"tenant", "table", "column", "reason", "at", "row"}}
	for _, r := range refused {
		cells = append(cells, []string{r.Tenant, r.Table, r.Column, r.Reason, at(r.At), string(r.Row)})
	}
	t.table(cells)
	return nil
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
