package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// mistake is the sync of the pipeline whose query is wrong on purpose.
const mistake = "busiest_by_mistake"

// stopped is a run that a brake has stopped, as tidemark.runs has it.
type stopped struct {
	id            int64
	outcome       string
	changed       int64 // rows
	err, remedy   string
	before, after string // the table that it would have emptied, with who wrote each row
}

// brake sends the sync with the mistake, as an operator would, and shows what became of it.
func (d *demo) brake(ctx context.Context) error {
	run, err := d.makeMistake(ctx)
	if err != nil {
		return err
	}
	if err := run.verify(); err != nil {
		return err
	}
	say(d.out, "\nThen a mistake was made on purpose: the sync %s, whose query returns no row, was sent by message. Nothing was written:\n\n"+
		"  run %d:  %s\n  remedy:  %s\n", mistake, run.id, run.err, run.remedy)
	return nil
}

func (d *demo) makeMistake(ctx context.Context) (run stopped, err error) {
	if run.before, err = d.busiestAsWritten(ctx); err != nil {
		return run, err
	}
	if err := d.stack.Push(ctx, "ReverseETL", fmt.Sprintf(`{"pipeline":%q,"sync":%q}`, d.pipeline.Name, mistake)); err != nil {
		return run, err
	}
	if run.after, err = d.busiestAsWritten(ctx); err != nil {
		return run, err
	}
	err = d.conn.QueryRow(ctx, "SELECT id, outcome, rows_written + rows_deleted, error, remedy FROM tidemark.runs WHERE kind = 'reverse_etl' AND name = $1 ORDER BY id DESC LIMIT 1", mistake).
		Scan(&run.id, &run.outcome, &run.changed, &run.err, &run.remedy)
	if errors.Is(err, pgx.ErrNoRows) {
		return run, fmt.Errorf("the sync %s was sent, and no run of it is in tidemark.runs", mistake)
	}
	if err != nil {
		return run, fmt.Errorf("reading the run of %s: %w", mistake, err)
	}
	return run, nil
}

// busiestAsWritten is the table with the transactions that its rows are of: a row
// written again, even as it was, is another.
func (d *demo) busiestAsWritten(ctx context.Context) (rows string, err error) {
	if err := d.conn.QueryRow(ctx, "SELECT coalesce(string_agg(xmin::text || ':' || b::text, ' ' ORDER BY contact_id), '') FROM busiest_contacts b").Scan(&rows); err != nil {
		return "", fmt.Errorf("reading busiest_contacts: %w", err)
	}
	return rows, nil
}

// verify is nil if a brake stopped the run before it wrote anything.
func (s *stopped) verify() error {
	if override := fmt.Sprintf(`"override":%d}`, s.id); s.outcome != "failed" || !strings.Contains(s.remedy, override) {
		return fmt.Errorf("run %d of %s was not stopped by a brake: outcome %s; error %q; remedy %q", s.id, mistake, s.outcome, s.err, s.remedy)
	}
	if s.changed != 0 || s.before != s.after {
		return fmt.Errorf("run %d of %s was stopped after it had written %d rows: busiest_contacts was %q, and is %q", s.id, mistake, s.changed, s.before, s.after)
	}
	return nil
}
