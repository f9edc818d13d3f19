package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/test/parity"
)

// findings are the comparison of both sides.
type findings struct {
	tables    []parity.Report
	scores    returned
	busiest   returned
	took      time.Duration // to catch up
	kept      []kept        // of each table
	labels    int64         // that have another name than they were seeded with
	overtaken int64         // contacts that have left the busiest
}

// kept is what a table holds beside its current rows.
type kept struct {
	versions int64 // of rows, that Dedup has left
	deleted  int64 // rows that are gone in Postgres, marked
}

func (f findings) agree() bool {
	for _, report := range f.tables {
		if !report.Agrees() {
			return false
		}
	}
	return f.scores.wrong == 0 && f.busiest.wrong == 0
}

// catchUp waits until both sides agree, or for as long as it may. It is the
// functions' own schedules that bring them together: a demo in which no tick is
// delivered has to fail.
func (d *demo) catchUp(ctx context.Context) (findings, error) {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	began := time.Now()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	var last findings
	failure := errors.New("there was no time to compare both sides")
	for _, table := range d.pipeline.Tables { // these are due too seldom to wait for
		if table.Write == pipeline.WriteReplace {
			if err := d.stack.Push(ctx, "Extract", fmt.Sprintf(`{"pipeline":%q,"table":%q}`, d.pipeline.Name, table.Name)); err != nil {
				return last, err
			}
		}
	}
	for {
		found, err := d.compare(ctx)
		switch {
		case ctx.Err() != nil: // cut short, it says nothing
		case err != nil:
			failure = err
		case found.agree():
			found.took = time.Since(began)
			return found, d.dedup(ctx, &found)
		default:
			last, failure = found, nil
		}
		select {
		case <-ctx.Done():
			last.took = time.Since(began)
			return last, failure
		case <-d.stack.FunctionsExited():
			return found, fmt.Errorf("the functions have ended; they logged last:\n%s", d.stack.LastLog())
		case <-again.C:
		}
	}
}

// compare compares every table, and what came back.
func (d *demo) compare(ctx context.Context) (findings, error) {
	var found findings
	var err error
	for _, table := range d.pipeline.Tables {
		compared := parity.Table{Name: table.Name, View: d.view(table.Name)}
		if table.Write == pipeline.WriteHistory {
			if compared.View, err = d.newest(ctx, &table); err != nil {
				return found, err
			}
		}
		if table.Query != "" {
			if err := d.materialize(ctx, &table); err != nil {
				return found, err
			}
			compared.Schema = "pg_temp"
		}
		report, err := parity.Compare(ctx, d.conn, d.client, compared)
		if err != nil {
			return found, err
		}
		found.tables = append(found.tables, report)
	}
	if found.scores, err = d.compareScores(ctx); err != nil {
		return found, err
	}
	found.busiest, err = d.compareBusiest(ctx)
	return found, err
}

// newest makes a view of what a table that keeps every version holds by now.
func (d *demo) newest(ctx context.Context, table *pipeline.Table) (string, error) {
	view := d.view(table.Name + "_newest")
	if _, err := d.firstRow(ctx, fmt.Sprintf("CREATE OR REPLACE VIEW `%s` AS SELECT * FROM `%s` WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY _version DESC) = 1", view, d.view(table.Name))); err != nil {
		return "", fmt.Errorf("looking at the newest versions of %s: %w", table.Name, err)
	}
	return view, nil
}

// materialize makes a temporary table of what a query returns: rows are told apart by
// a primary key.
func (d *demo) materialize(ctx context.Context, table *pipeline.Table) error {
	name, key := pgx.Identifier{"pg_temp", table.Name}.Sanitize(), make([]string, len(table.Key))
	for i, column := range table.Key {
		key[i] = pgx.Identifier{column}.Sanitize()
	}
	if _, err := d.conn.Exec(ctx, fmt.Sprintf("DROP TABLE IF EXISTS %[1]s; CREATE TABLE %[1]s AS %[2]s; ALTER TABLE %[1]s ADD PRIMARY KEY (%[3]s)",
		name, table.Query, strings.Join(key, ", ")), pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("running the query of %s: %w", table.Name, err)
	}
	return nil
}

// dedup removes superseded versions and counts what is left.
func (d *demo) dedup(ctx context.Context, found *findings) error {
	if err := d.stack.Push(ctx, "Dedup", fmt.Sprintf(`{"pipeline":%q}`, d.pipeline.Name)); err != nil {
		return err
	}
	for _, table := range d.pipeline.Tables {
		held := table.Name
		if table.Write == pipeline.WriteAppend {
			held += "_log"
		}
		row, err := d.firstRow(ctx, "SELECT (SELECT COUNT(*) FROM `"+d.view(held)+"`), (SELECT COUNTIF(_deleted) FROM `"+d.view(table.Name)+"`)")
		if err != nil {
			return fmt.Errorf("counting the versions of %s: %w", table.Name, err)
		}
		var k kept
		if row != nil {
			k.versions, _ = row[0].(int64)
			k.deleted, _ = row[1].(int64)
		}
		found.kept = append(found.kept, k)
	}
	if err := d.conn.QueryRow(ctx, "SELECT count(*) FROM tags WHERE label NOT LIKE 'tag %'").Scan(&found.labels); err != nil {
		return fmt.Errorf("counting the renamed labels: %w", err)
	}
	if err := d.conn.QueryRow(ctx, "SELECT sum(rows_deleted) FROM tidemark.runs WHERE kind = 'reverse_etl' AND name = 'busiest'").Scan(&found.overtaken); err != nil {
		return fmt.Errorf("counting who has left the busiest: %w", err)
	}
	return nil
}

func (d *demo) summarize(found findings) {
	say(d.out, "\nIn %.0f s the application: %s.\nBoth sides were compared %.1f s after it stopped:\n\n", d.written.Seconds(), did(&d.activity), found.took.Seconds())
	for i, report := range found.tables {
		if !found.agree() {
			say(d.out, "  %v\n", report)
			continue
		}
		table := &d.pipeline.Tables[i]
		by, after := string(table.Capture.Method), ""
		if table.Query != "" {
			by, after = "query", fmt.Sprintf("; %s labels were renamed", thousands(found.labels))
		}
		if n := found.kept[i].deleted; n > 0 {
			after = fmt.Sprintf("; %s deleted rows are kept, marked", thousands(n))
		}
		if n := found.kept[i].versions; table.Write == pipeline.WriteAppend || table.Write == pipeline.WriteHistory {
			after = fmt.Sprintf("; %s versions%s", thousands(n), after)
		}
		say(d.out, "  %-16s %10s rows by %-9s to %-8s every value equal%s\n",
			report.Table, thousands(int64(report.Postgres)), by, string(table.Write)+",", after)
	}
	d.summarizeReturned("scores", found.scores, "computed in BigQuery, each back in contacts")
	d.summarizeReturned("busiest_contacts", found.busiest, fmt.Sprintf("rows by query     to mirror,  every value equal; %s that were overtaken are deleted", thousands(found.overtaken)))
	verdict := "Both sides agree."
	if !found.agree() {
		verdict = "The two sides DIFFER."
	}
	say(d.out, "\n%s\n", verdict)
}

func (d *demo) summarizeReturned(name string, r returned, right string) {
	if r.wrong > 0 {
		say(d.out, "  %s: %d wrong, %d computed, such as %s\n", name, r.wrong, r.computed, r.example)
		return
	}
	say(d.out, "  %-16s %10s %s\n", name, thousands(int64(r.computed)), right)
}
