package reverse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/shared/rowwire"
	"github.com/tidemark-data/tidemark/shared/target"
	"github.com/tidemark-data/tidemark/shared/warehouse"
)

// input is the rows of a source, ready to be staged.
type input struct {
	schema  *arrow.Schema
	each    func(context.Context, func(arrow.Record) error) error             // the rows
	columns []target.Column                                                   // as they are staged
	whole   bool                                                              // the source has no other row
	standIn bool                                                              // it is not the sync's own source
	confirm func(ctx context.Context, stage *target.Staging, done bool) error // tells the ledger what was applied; nil: there is none
	next    func() json.RawMessage                                            // where the next run begins, once every row is staged
	close   func() error

	unstaged []target.Reject // rows that were left out when the others were staged
}

// open finds the rows that the run takes. Nothing of them has moved yet.
func (w *walk) open(ctx context.Context) (*input, error) {
	if w.sync.CSV != "" {
		return w.openFile(ctx)
	}
	src := w.source()
	d, err := w.Warehouse.Describe(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := w.inspect(d); err != nil {
		return nil, err
	}
	take := warehouse.Take{All: w.full() && !w.message.Retry, After: w.state.Position, Only: w.message.Retry, Dry: w.dry()}
	if take.Rejected, err = w.rejected(ctx); err != nil {
		return nil, err
	}
	result, err := w.Warehouse.Select(ctx, src, take)
	if result != nil { // the query ran, whatever became of its result
		w.o.Job, w.o.bytes = result.Job, result.Bytes
	}
	if err != nil {
		return nil, err
	}
	in := &input{schema: result.Schema, each: result.Each, whole: result.Whole, next: result.Next, close: func() error { return nil }}
	if w.sync.Changes == pipeline.ChangesLedger {
		in.confirm = func(ctx context.Context, stage *target.Staging, through bool) error {
			return w.confirm(ctx, src, result, stage, in.unstaged, through)
		}
	}
	return in, in.types()
}

// rejected are the keys that are read again whatever the source says of them. A whole
// comparison reads every row anyway.
func (w *walk) rejected(ctx context.Context) ([]int64, error) {
	if w.full() && !w.message.Retry {
		return nil, nil
	}
	return w.Control.SyncRejects(ctx, w.own)
}

func (w *walk) confirm(ctx context.Context, src warehouse.Source, result *warehouse.Result, stage *target.Staging, unstaged []target.Reject, through bool) error {
	done, err := stage.Confirmed(ctx)
	if err != nil {
		return err
	}
	for _, r := range unstaged { // of them the table of what was staged knows nothing
		done.Except = append(done.Except, *r.Fingerprint)
	}
	if err := w.Warehouse.Confirm(ctx, src, result, warehouse.Confirmed{Only: done.Only, Except: done.Except, Partial: !through || w.o.Withheld != "" || w.message.Retry}); err != nil {
		return fmt.Errorf("telling the ledger what was applied: %w", err)
	}
	w.o.bytes = result.Bytes
	return nil
}

// source is what the sync reads in BigQuery.
func (w *walk) source() warehouse.Source {
	s, dataset := w.sync, w.unit.Dataset()
	names := map[string]string{"dataset": dataset}
	src := warehouse.Source{
		Dataset: dataset, Query: pipeline.Fill(s.Query, names), From: pipeline.Fill(s.From, names),
		Cursor: s.Cursor, Lookback: s.Lookback, Ledger: w.own.Pipeline + "_" + s.Name, Mapping: w.mapping(),
		Labels: map[string]string{"tidemark-pipeline": w.own.Pipeline, "tidemark-sync": s.Name},
		Changes: map[pipeline.Changes]warehouse.Changes{
			pipeline.ChangesFull: warehouse.ChangesFull, pipeline.ChangesCursor: warehouse.ChangesCursor,
			pipeline.ChangesAppends: warehouse.ChangesAppends, pipeline.ChangesLedger: warehouse.ChangesLedger,
		}[s.Changes],
	}
	for _, m := range s.Key {
		src.Key = append(src.Key, m.From)
	}
	for _, m := range s.Columns {
		src.Columns = append(src.Columns, m.From)
	}
	return src
}

// mapping tells one declaration of what is written where from another: what the sync
// knows of its source holds for one alone.
func (w *walk) mapping() string {
	s := w.sync
	tenantColumn := ""
	if t := w.unit.Pipeline.Tenants; t != nil {
		tenantColumn = t.Column
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q %q %q %q %q %q %v %q %q %q", s.Query, s.From, s.CSV, s.Changes, s.Cursor,
		w.unit.Pipeline.Schema, s.Table, s.Key, s.Columns, s.Mode, s.Where, s.Many, s.Deletes, s.DeletedColumn, tenantColumn))
	return hex.EncodeToString(sum[:])
}

// inspect checks what the source has, and how old that is, before it is paid for.
func (w *walk) inspect(d warehouse.Description) error {
	for _, m := range slices.Concat(w.sync.Key, w.sync.Columns) {
		if !slices.ContainsFunc(d.Columns, func(name string) bool { return strings.EqualFold(name, m.From) }) {
			return target.NoColumn(m.From, d.Columns)
		}
	}
	for _, table := range d.Tables {
		w.age(qualified(table), table.Changed)
	}
	return w.freshTables(d)
}

// freshTables refuses the name of a table whose age was to be looked at, and that the
// source does not read.
func (w *walk) freshTables(d warehouse.Description) error {
	for _, fresh := range w.sync.Limits.FreshTables {
		var names []string
		known := false
		for _, table := range d.Tables {
			names = append(names, qualified(table))
			known = known || isNamed(qualified(table), fresh)
		}
		if !known {
			return fault.Fix(fmt.Errorf("fresh_tables names %q, which the source does not read", fresh), "name one of: "+strings.Join(names, ", "))
		}
	}
	return nil
}

func qualified(t warehouse.ReadTable) string { return t.Project + "." + t.Dataset + "." + t.Name }

// isNamed reports whether a name, qualified or not, is that of a table.
func isNamed(table, name string) bool {
	return table == name || strings.HasSuffix(table, "."+name)
}

// age notes the brake for something the source reads that is too old.
func (w *walk) age(what string, modified time.Time) {
	l := w.sync.Limits
	watched := len(l.FreshTables) == 0 || slices.ContainsFunc(l.FreshTables, func(name string) bool { return isNamed(what, name) })
	switch age := time.Since(modified); {
	case l.MaxStaleness <= 0 || !watched:
	case modified.IsZero():
		w.o.Brakes = append(w.o.Brakes, ageless(what))
	case age > l.MaxStaleness:
		w.o.Brakes = append(w.o.Brakes, stale(what, age, l.MaxStaleness))
	}
}

// openFile opens a CSV file in place of a query.
func (w *walk) openFile(ctx context.Context) (*input, error) {
	if w.message.Retry {
		return nil, fault.Fix(fmt.Errorf("a file cannot be asked for the rows that were refused"), "send the message without retry: the whole file is read, and rows that are as they should be are not written")
	}
	name := pipeline.Fill(w.sync.CSV, map[string]string{"dataset": w.unit.Dataset()})
	file, err := openCSV(ctx, name, w.Warehouse.Object)
	if err != nil {
		return nil, err
	}
	w.age(path.Base(name), file.Modified)
	in := &input{schema: file.Schema, each: file.Each, whole: true, standIn: w.StandIn, next: func() json.RawMessage { return nil }, close: file.Close}
	return in, in.types()
}

// types says as what each column of the rows is staged.
func (in *input) types() error {
	for _, f := range in.schema.Fields() {
		typ, err := rowwire.StagingType(f)
		if err != nil {
			return fault.Fix(err, "cast the column in the query")
		}
		in.columns = append(in.columns, target.Column{Name: f.Name, Type: typ})
	}
	return nil
}
