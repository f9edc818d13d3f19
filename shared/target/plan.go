package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pipeline"
)

// Reject is a row that cannot be written, and why. Column and the fields of Row
// have the names of the table.
type Reject struct {
	Column string          `json:"column,omitempty"`
	Reason string          `json:"reason"`
	Row    json.RawMessage `json:"row"`
	// Fingerprint is what BigQuery knows the row's key by; nil where the rows came without.
	Fingerprint *int64 `json:"-"`

	n int64 // of the staged row
}

// MaxRejects is how many rows one step of a run may refuse: beyond, it is the
// query that is wrong, and the run ends with a permanent error.
const MaxRejects = 10_000

// TooMany is the error of a run that refused more than MaxRejects rows. The
// reason must not quote a row.
func TooMany(reason string) error {
	return fault.Fix(fmt.Errorf("more than %d rows refused, the last because %s", MaxRejects, reason), "correct the query")
}

// Plan is what a run would do: counts by what each staged row comes to.
type Plan struct {
	Insert    int64 `json:"insert"`
	Update    int64 `json:"update"`
	Delete    int64 `json:"delete"` // softly or not
	Unchanged int64 `json:"unchanged"`
	Present   int64 `json:"present"` // of ModeInsert: the key is there
	Absent    int64 `json:"absent"`  // no row has the key, and the mode does not insert
	Outside   int64 `json:"outside"` // the row is none of those that the sync may write
	Rows      int64 `json:"rows"`    // of the table that the sync may write, where that was counted
	Fill      *Fill `json:"fill,omitempty"`
	// Withheld says why no row is deleted that the source does not have; "" if such are.
	Withheld string    `json:"withheld,omitempty"`
	Cascades []Cascade `json:"cascades,omitempty"`
	Rejects  []Reject  `json:"-"`
}

// Fill is what is left of the rows of the table that are not filled, by why.
type Fill struct {
	NoKey    int64 `json:"no_key"`    // their key is NULL
	NotFound int64 `json:"not_found"` // the source has no row of their key
}

// Extent says how much of the source the staged rows are.
type Extent struct {
	Whole    bool // all of it: what is not among them is not in the source
	Unstaged int  // but for so many that could not be staged
}

// Sample is one row a plan would write: Before is null for an insert, After for a
// delete.
type Sample struct {
	Action string          `json:"action"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// samples is how many rows of each action are shown.
const samples = 5

// Plan casts the staged rows to the table's types, sets aside those that cannot
// be written exactly or whose key is NULL or not unique, compares the others
// with the table, notes what would change, and sets aside what the table would
// refuse. It writes nothing to the table.
func (s *Staging) Plan(ctx context.Context, e Extent) (Plan, error) {
	var p Plan
	if err := s.castAll(ctx, &p); err != nil {
		return p, fmt.Errorf("casting staged rows: %w", err)
	}
	steps := []func(context.Context, *Plan) error{s.rejectInexact, s.keepRemoved(e.Unstaged), s.rejectKeys, s.compare}
	switch {
	case e.Whole && s.deletes() && e.Unstaged > 0:
		p.Withheld = unstagedRows(e.Unstaged)
	case e.Whole && s.deletes():
		steps = append(steps, s.planDeletes)
	}
	if e.Whole && s.sync.Mode == pipeline.ModeFill {
		steps = append(steps, s.countUnfilled)
	}
	steps = append(steps, s.indexPlan, s.validate, s.weighDeletes)
	for _, step := range steps {
		if err := step(ctx, &p); err != nil {
			return p, err
		}
	}
	return p, s.fingerprint(ctx, p.Rejects)
}

func (s *Staging) castAll(ctx context.Context, p *Plan) error {
	last, indexed := s.rows, false // they are numbered as they came
	return s.isolate(ctx, 1, last, work{table: s.raw, staged: "n", rejects: &p.Rejects, run: func(ctx context.Context, from, to int64) error {
		if whole := from == 1 && to == last; !whole && !indexed { // to look for the rows that fail takes many ranges
			if err := s.exec(ctx, "CREATE INDEX ON "+s.raw+" (n)"); err != nil {
				return err
			}
			indexed = true
		}
		var cast int64
		err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, s.castSQL(), from, to)
			cast = tag.RowsAffected()
			return err
		})
		if err == nil {
			s.casts += cast
		}
		return err
	}})
}

// castSQL inserts the raw rows of a range in the table's types, those that
// survive it.
func (s *Staging) castSQL() string {
	exprs := []string{"n", "removed", "NULL"}
	for _, c := range s.all() {
		exprs = append(exprs, c.cast())
	}
	return fmt.Sprintf("INSERT INTO %s SELECT %s FROM %s WHERE n BETWEEN $1 AND $2 AND %s IS NULL", s.cast, strings.Join(exprs, ", "), s.raw, s.inexact())
}

// inexact is the index in unfit of the first condition that holds, or NULL. Only CASE
// keeps to an order: a row that fails for one column must do so whoever asks, and not
// for another.
func (s *Staging) inexact() string {
	whens := ""
	for i, u := range s.unfit() {
		whens += fmt.Sprintf(" WHEN %s THEN %d", u.condition, i)
	}
	if whens == "" {
		return "NULL::int"
	}
	return "CASE" + whens + " END"
}

// rejectInexact finds the rows that were neither cast nor refused with an error:
// a value of theirs would change. Afterwards every staged row is accounted for.
func (s *Staging) rejectInexact(ctx context.Context, p *Plan) error {
	left := s.rows - s.casts
	if left == int64(len(p.Rejects)) {
		return nil
	}
	if left > MaxRejects {
		return TooMany("values would change when stored in the types of the table")
	}
	failed := make([]int64, len(p.Rejects))
	for i, r := range p.Rejects {
		failed[i] = r.n
	}
	// Rows already set aside for an error would fail this cast again: it stands in
	// the select list, which is worked out for rows that the condition lets pass.
	found, err := s.rejected(ctx, fmt.Sprintf("SELECT n, %s, %s FROM %s r WHERE n <> ALL ($1) AND n NOT IN (SELECT n FROM %s)",
		s.object("r", false), s.inexact(), s.raw, s.cast), failed)
	if err != nil {
		return fmt.Errorf("finding values that would change: %w", err)
	}
	if int64(len(found)+len(failed)) != left {
		return fmt.Errorf("of %d staged rows that were not cast only %d are known", left, len(found)+len(failed))
	}
	why := s.unfit()
	for _, f := range found {
		f.Column, f.Reason = why[f.why].column, why[f.why].reason
		p.Rejects = append(p.Rejects, f.Reject)
	}
	return nil
}

// rejectedRow is a staged row that a query refuses, and for which of the reasons that
// it was asked for.
type rejectedRow struct {
	Reject

	why int
}

func (s *Staging) rejected(ctx context.Context, sql string, args ...any) (found []rejectedRow, err error) {
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		if found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r rejectedRow, err error) {
			err = row.Scan(&r.n, &r.Row, &r.why)
			return r, err
		}); err != nil {
			return fmt.Errorf("reading rejected rows: %w", err)
		}
		return nil
	})
	return found, err
}

// rejectKeys sets aside rows without a key and all rows of a key given twice:
// which of them is meant nobody can say.
func (s *Staging) rejectKeys(ctx context.Context, p *Plan) error {
	if err := s.analyze(ctx, s.cast); err != nil {
		return fmt.Errorf("analyzing staged rows: %w", err)
	}
	keys := strings.Join(names(s.keys), ", ")
	if len(s.keys) == 1 { // the usual case, and the usual answer, in one pass
		wrong, err := s.count(ctx, fmt.Sprintf("SELECT count(*) - count(%[1]s) + count(%[1]s) FILTER (WHERE removed IS NOT TRUE) - count(DISTINCT %[1]s) FILTER (WHERE removed IS NOT TRUE) FROM %[2]s", keys, s.cast))
		if err != nil {
			return fmt.Errorf("counting the keys: %w", err)
		}
		if wrong == 0 {
			return nil
		}
	}
	for _, step := range []struct{ condition, reason string }{
		{strings.Join(names(s.keys), " IS NULL OR ") + " IS NULL", "the key is NULL"},
		{fmt.Sprintf("removed IS NOT TRUE AND (%[1]s) IN (SELECT %[1]s FROM %[2]s WHERE removed IS NOT TRUE GROUP BY %[1]s HAVING count(*) > 1)", keys, s.cast), "the query gives this key more than once"},
	} {
		count, err := s.count(ctx, fmt.Sprintf("SELECT count(*) FROM %s WHERE %s", s.cast, step.condition))
		if err != nil {
			return fmt.Errorf("checking the keys: %w", err)
		}
		if count == 0 {
			continue
		}
		if int64(len(p.Rejects))+count > MaxRejects {
			return TooMany(step.reason)
		}
		found, err := s.rejected(ctx, fmt.Sprintf("DELETE FROM %s s WHERE %s RETURNING n, %s, 0", s.cast, step.condition, s.object("s", false)))
		if err != nil {
			return fmt.Errorf("setting rows aside for their key: %w", err)
		}
		for _, f := range found {
			f.Column, f.Reason = s.keys[0].column.Name, step.reason
			p.Rejects = append(p.Rejects, f.Reject)
		}
	}
	return nil
}

// planMemory is what the server may take to join and to sort the rows, each.
const planMemory = "64MB"

// compare joins the staged rows with the table and numbers what would change in
// key order, the order in which it is applied and locked; deletes come first, so that
// what they make room for fits.
func (s *Staging) compare(ctx context.Context, p *Plan) error {
	missing, present, removed := "absent", "CASE WHEN "+s.changed("t", "s")+" THEN 'update' ELSE 'unchanged' END", "unchanged"
	if s.inserts() {
		missing = "insert"
	}
	if s.sync.Mode == pipeline.ModeInsert {
		present = "'present'"
	}
	if s.deletes() {
		removed = "delete"
	}
	counts := map[string]*int64{
		"insert": &p.Insert, "update": &p.Update, "delete": &p.Delete, "unchanged": &p.Unchanged,
		"present": &p.Present, "absent": &p.Absent, "outside": &p.Outside,
	}
	columns, selected := names(s.all()), "s."+strings.Join(names(s.all()), ", s.")
	if s.sync.Many {
		for _, c := range s.ids {
			columns, selected = append(columns, c.name), selected+", t."+catalog.Quote(c.column.Name)+" AS "+c.name
		}
	}
	gone := "false"
	if s.deleted != nil {
		gone = s.isDeleted("t")
	}
	all := fmt.Sprintf(`
		SELECT s.n, %s,
		       CASE WHEN t.%s IS NULL THEN CASE WHEN s.removed THEN 'unchanged' ELSE '%s' END
		            WHEN NOT %s THEN 'outside'
		            WHEN s.removed THEN CASE WHEN %s OR s.kept THEN 'unchanged' ELSE '%s' END
		            ELSE %s END AS action
		  FROM %s s LEFT JOIN %s t ON %s`,
		selected, catalog.Quote(s.keys[0].column.Name), missing, s.within("t"), gone, removed, present,
		s.cast, s.table.SQLName(), s.joined("t", "s"))
	planned := fmt.Sprintf(`INSERT INTO %[1]s (n, staged, action, %[2]s) SELECT row_number() OVER (ORDER BY %[3]s), n, action, %[2]s FROM `, s.plan, strings.Join(columns, ", "), s.order())
	const written = " WHERE action IN ('insert', 'update', 'delete')"
	counted := "WITH compared AS (" + all + "), planned AS (" + planned + "compared" + written + ") SELECT action, count(*) FROM compared GROUP BY action"
	err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL work_mem = '"+planMemory+"'"); err != nil {
			return fmt.Errorf("setting memory: %w", err)
		}
		if s.inserts() && s.sync.Where == "" { // what is not written can be one thing only, so no row is kept to be counted
			if _, err := tx.Exec(ctx, planned+"("+all+" OFFSET 0) compared"+written); err != nil {
				return fmt.Errorf("planning: %w", err)
			}
			rest := "unchanged"
			if s.sync.Mode == pipeline.ModeInsert {
				rest = "present"
			}
			counted = fmt.Sprintf("SELECT action, count(*) FROM %[1]s GROUP BY action UNION ALL SELECT '%[2]s', (SELECT count(*) FROM %[3]s) - (SELECT count(*) FROM %[1]s)", s.plan, rest, s.cast)
		}
		rows, err := tx.Query(ctx, counted)
		if err != nil {
			return err
		}
		var action string
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&action, &n}, func() error {
			*counts[action] = n
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("comparing staged rows: %w", err)
	}
	return nil
}

// keepRemoved spares rows that the source no longer has under one spelling of their key,
// and has under another, which is the same key here: BigQuery tells 'A5' from 'a5', and a
// uuid does not. Where that other row was set aside, nothing is decided: the removal comes
// again.
func (s *Staging) keepRemoved(unstaged int) func(context.Context, *Plan) error {
	return func(ctx context.Context, p *Plan) error {
		removed, err := s.count(ctx, "SELECT count(*) FROM "+s.cast+" WHERE removed")
		if err != nil || removed == 0 {
			return err
		}
		if err := s.exec(ctx, fmt.Sprintf("UPDATE %[1]s s SET kept = true WHERE removed AND EXISTS (SELECT FROM %[1]s o WHERE o.removed IS NOT TRUE AND %[2]s)",
			s.cast, sameKey(s.keys, "o", "s"))); err != nil {
			return fmt.Errorf("looking for rows whose key is written otherwise: %w", err)
		}
		undecided, why, err := s.asideKeys(ctx, p, "s")
		if err != nil {
			return err
		}
		if unstaged > 0 {
			undecided, why = "true", unstagedRows(unstaged)
		}
		if why == "" && len(p.Rejects) == 0 {
			return nil
		}
		p.Withheld = why
		return s.exec(ctx, fmt.Sprintf("DELETE FROM %s s WHERE removed AND kept IS NOT TRUE AND (%s)", s.cast, undecided))
	}
}

func unstagedRows(n int) string {
	return fmt.Sprintf("%d rows of the source could not be staged, and each could be any", n)
}

// asideKeys is a condition on rows, of the staging tables, that have the key of one that was set
// aside so far, and "", or "true" and why such a key could be any.
func (s *Staging) asideKeys(ctx context.Context, p *Plan, alias string) (condition, why string, err error) {
	if len(p.Rejects) == 0 {
		return "false", "", nil
	}
	rows := make([]string, len(p.Rejects))
	for i, r := range p.Rejects {
		rows[i] = strconv.FormatInt(r.n, 10)
	}
	among := "n IN (" + strings.Join(rows, ", ") + ")"
	known, casts, exprs := "true", make([]string, len(s.keys)), make([]string, len(s.keys))
	for i, k := range s.keys {
		casts[i] = k.cast()
		exprs[i] = casts[i] + " AS " + k.name
		if exact := k.exact(); exact != "" {
			known += " AND (" + exact + ")"
		}
		known += " AND " + k.name + " IS NOT NULL"
	}
	var unknown int64
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error { // the cast as a whole, which may raise
		return tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FILTER (WHERE NOT (%s)), count(ROW(%s)::text) FROM %s WHERE %s",
			known, strings.Join(casts, ", "), s.raw, among)).Scan(&unknown, new(int64))
	})
	if s.isData(err) || err == nil && unknown > 0 {
		return "true", "rows of the source were refused with a key that cannot be read, and could be any", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("reading the keys of the rows set aside: %w", err)
	}
	return fmt.Sprintf("EXISTS (SELECT FROM (SELECT %s FROM %s WHERE %s) a WHERE %s)", strings.Join(exprs, ", "), s.raw, among, sameKey(s.keys, "a", alias)), "", nil
}

// sameKey joins rows of the staging tables.
func sameKey(keys []staged, a, b string) string {
	conditions := make([]string, len(keys))
	for i, k := range keys {
		conditions[i] = fmt.Sprintf("%s.%s OPERATOR(pg_catalog.=) %s.%s", a, k.name, b, k.name)
	}
	return strings.Join(conditions, " AND ")
}

// planDeletes adds the rows of the table that the source does not have. A row of the
// source that was set aside is in the source: if its key is known, the row of that key
// stays; if it is not, it could be any, and none is deleted.
func (s *Staging) planDeletes(ctx context.Context, p *Plan) error {
	selected := make([]string, len(s.keys))
	for i, k := range s.keys {
		selected[i] = "t." + catalog.Quote(k.column.Name) + " AS " + k.name
	}
	aside, why, err := s.asideKeys(ctx, p, "gone")
	if p.Withheld = why; err != nil || why != "" {
		return err
	}
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, fmt.Sprintf(`
			INSERT INTO %[1]s (n, action, %[2]s) SELECT row_number() OVER (ORDER BY %[2]s) - count(*) OVER (), 'delete', %[2]s
			  FROM (SELECT %[3]s FROM %[4]s t WHERE %[5]s AND NOT EXISTS (SELECT FROM %[6]s s WHERE %[7]s)) gone
			 WHERE NOT (%[8]s)`,
			s.plan, strings.Join(names(s.keys), ", "), strings.Join(selected, ", "), s.table.SQLName(),
			s.within("t")+s.alive("t"), s.cast, s.joined("t", "s"), aside))
		p.Delete += tag.RowsAffected()
		return err
	})
	if err != nil {
		return fmt.Errorf("finding rows that the source does not have: %w", err)
	}
	return nil
}

// weighDeletes counts what the deletes are a share of, and what goes with them.
func (s *Staging) weighDeletes(ctx context.Context, p *Plan) (err error) {
	if p.Delete == 0 {
		return nil
	}
	if p.Rows, err = s.count(ctx, "SELECT count(*) FROM "+s.table.SQLName()+" t WHERE "+s.within("t")+s.alive("t")); err != nil {
		return fmt.Errorf("counting the rows of %s: %w", s.table.Name, err)
	}
	if s.deleted == nil {
		p.Cascades, err = s.cascades(ctx)
	}
	return err
}

func (s *Staging) isData(err error) bool {
	var data *dataError
	return errors.As(err, &data)
}

// countUnfilled counts the rows of the table that have something to fill and no row
// of the source to fill it from.
func (s *Staging) countUnfilled(ctx context.Context, p *Plan) error {
	null := func(columns []staged) string {
		out := make([]string, len(columns))
		for i, c := range columns {
			out[i] = "t." + catalog.Quote(c.column.Name) + " IS NULL"
		}
		return "(" + strings.Join(out, " OR ") + ")"
	}
	p.Fill = &Fill{}
	err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`
			SELECT count(*) FILTER (WHERE %[1]s), count(*) FILTER (WHERE NOT %[1]s AND NOT EXISTS (SELECT FROM %[2]s s WHERE %[3]s))
			  FROM %[4]s t WHERE %[5]s AND %[6]s`,
			null(s.keys), s.cast, s.joined("t", "s"), s.table.SQLName(), null(s.values), s.within("t"))).Scan(&p.Fill.NoKey, &p.Fill.NotFound)
	})
	if err != nil {
		return fmt.Errorf("counting the rows that nothing fills: %w", err)
	}
	return nil
}

// order is that of the rows that are not absent from the source.
func (s *Staging) order() string {
	order := names(s.ids)
	if s.sync.Many { // each with one row of the source at a time
		order = append(order, names(s.keys)...)
	}
	return `action COLLATE "C", ` + strings.Join(order, ", ")
}

func (s *Staging) indexPlan(ctx context.Context, _ *Plan) error {
	if err := errors.Join(s.exec(ctx, "CREATE INDEX ON "+s.plan+" (n)"), s.analyze(ctx, s.plan)); err != nil {
		return fmt.Errorf("indexing the plan: %w", err)
	}
	return nil
}

// fingerprint adds to rejects of staged rows what BigQuery knows their key by.
func (s *Staging) fingerprint(ctx context.Context, rejects []Reject) error {
	if len(rejects) == 0 || !slices.ContainsFunc(s.marks, func(c Column) bool { return marked(c.Name) == "fingerprint" }) {
		return nil
	}
	at := map[int64][]int{}
	rows := make([]int64, len(rejects))
	for i, r := range rejects {
		rows[i] = r.n
		at[r.n] = append(at[r.n], i)
	}
	err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		found, err := tx.Query(ctx, "SELECT n, fingerprint FROM "+s.raw+" WHERE n = ANY ($1)", rows)
		if err != nil {
			return err
		}
		var n, fingerprint int64
		_, err = pgx.ForEachRow(found, []any{&n, &fingerprint}, func() error {
			for _, i := range at[n] {
				rejects[i].Fingerprint = new(fingerprint)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the keys of rejected rows: %w", err)
	}
	return nil
}

// joined joins the table and staged rows by key.
func (s *Staging) joined(table, stage string) string { return equal(s.keys, table, stage) }

// match joins the table and the rows of the plan.
func (s *Staging) match(table, plan string) string {
	if s.sync.Many { // the application may have changed the key since
		return equal(s.ids, table, plan) + " AND " + equal(s.keys, table, plan)
	}
	return equal(s.ids, table, plan)
}

// equal joins by columns. The operator is named in full: what comes first in a
// search_path must not redefine it.
func equal(columns []staged, table, stage string) string {
	conditions := make([]string, len(columns))
	for i, c := range columns {
		conditions[i] = fmt.Sprintf("%s.%s OPERATOR(pg_catalog.=) %s.%s", table, catalog.Quote(c.column.Name), stage, c.name)
	}
	return strings.Join(conditions, " AND ")
}

// within is true of the rows of the table that the sync may write. The condition is
// the user's; names in it are those of the table's columns first.
func (s *Staging) within(table string) string {
	if s.sync.Where == "" {
		return "true"
	}
	return fmt.Sprintf("EXISTS (SELECT FROM (SELECT %s.*) AS %s WHERE (%s\n))", table, catalog.Quote(s.table.Name), s.sync.Where)
}

// isDeleted is true of a row that is softly deleted.
func (s *Staging) isDeleted(table string) string {
	column := table + "." + catalog.Quote(s.deleted.Name)
	if s.deleted.Base == "bool" {
		return column + " IS TRUE"
	}
	return column + " IS NOT NULL"
}

// alive is the further condition for rows that are not softly deleted.
func (s *Staging) alive(table string) string {
	if s.deleted == nil {
		return ""
	}
	return " AND NOT (" + s.isDeleted(table) + ")"
}

// changed is true where a row really differs: a no-op is never written (I10).
func (s *Staging) changed(table, stage string) string {
	conditions := []string{"false"}
	for _, c := range s.values {
		if s.sync.Mode == pipeline.ModeFill {
			conditions = append(conditions, fmt.Sprintf("%s.%s IS NULL AND %s.%s IS NOT NULL", table, catalog.Quote(c.column.Name), stage, c.name))
		} else {
			conditions = append(conditions, c.differs(table, stage))
		}
	}
	if s.deleted != nil {
		conditions = append(conditions, s.isDeleted(table))
	}
	return "(" + strings.Join(conditions, " OR ") + ")"
}

// Samples shows some rows of each action of the plan, before and after.
func (s *Staging) Samples(ctx context.Context) ([]Sample, error) {
	var out []Sample
	before, after := s.object("t", true), s.object("s", false)
	for _, action := range []string{"insert", "update", "delete"} {
		err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, fmt.Sprintf(`
				SELECT s.action, CASE WHEN s.action <> 'insert' THEN %s END, CASE WHEN s.action <> 'delete' THEN %s END FROM %s s LEFT JOIN %s t ON %s WHERE s.action = $1 ORDER BY s.n LIMIT %d`,
				before, after, s.plan, s.table.SQLName(), s.match("t", "s"), samples), action)
			if err != nil {
				return err
			}
			found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x Sample, err error) {
				err = row.Scan(&x.Action, &x.Before, &x.After)
				return x, err
			})
			if err != nil {
				return fmt.Errorf("reading rows: %w", err)
			}
			out = slices.Concat(out, found)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("sampling the plan: %w", err)
		}
	}
	return out, nil
}

// Digest tells plans apart: it is the same for two that do the same to rows that are
// the same. After Apply it is that of what is left of the plan.
func (s *Staging) Digest(ctx context.Context) (digest string, err error) {
	row := fmt.Sprintf("regexp_replace(s.action, '^.* ', '') || ' ' || coalesce(CASE WHEN s.action <> 'insert' THEN (%s)::text END, '') || ' ' || (%s)::text", s.object("t", true), s.object("s", false))
	err = s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*) || '.' || coalesce(sum(hashtextextended(%[1]s, 0)::numeric), 0) || '.' || coalesce(sum(hashtextextended(%[1]s, 1)::numeric), 0) FROM %[2]s s LEFT JOIN %[3]s t ON %[4]s WHERE s.n > $1 OR s.action LIKE '%% %%'",
			row, s.plan, s.table.SQLName(), s.match("t", "s")), s.through).Scan(&digest)
	})
	if err != nil {
		return "", fmt.Errorf("reading the plan: %w", err)
	}
	return digest, nil
}

// object is the mapped columns of a row as one JSON object under the names of
// the table. json goes as text: it may hold what jsonb cannot.
func (s *Staging) object(alias string, table bool) string {
	if table && s.sync.Mode == pipeline.ModeInsert { // which meets no row, and may read none but the key
		return "NULL::jsonb"
	}
	exprs := make([]string, 0, len(s.keys)+len(s.values))
	for _, c := range s.all() {
		value := alias + "." + c.name
		if table {
			value = alias + "." + catalog.Quote(c.column.Name)
		}
		if strings.TrimPrefix(c.column.Base, "_") == "json" {
			value += "::text"
		}
		exprs = append(exprs, "jsonb_build_object("+literal(c.column.Name)+"::text, "+value+")")
	}
	return strings.Join(exprs, " || ")
}

// literal writes a name as a string constant.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func names(columns []staged) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.name
	}
	return out
}
