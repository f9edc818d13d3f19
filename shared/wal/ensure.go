package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/pgoutput"
)

// Slot is a pipeline's slot and publication as Ensure leaves them.
type Slot struct {
	Name    string // of both
	Created bool   // it begins now: every table has to be copied
	// Lost is why changes are missing that can never be read, or "". Nothing was
	// altered then: DropSlot, Ensure again, and copy every table.
	Lost      string
	Confirmed pgoutput.LSN // the next pull begins here
	Restart   pgoutput.LSN // the server keeps its log from here on
	Lag       int64        // bytes of that log
	Members   []Membership // one for each member that Ensure was given, in that order
	Surplus   []string     // tables that we may not remove from the publication, as SQL names: their changes are handed over too
}

// Membership is a member's place in the publication.
type Membership struct {
	// OID changes when the table leaves the publication and joins it again,
	// whoever did that, and when the table or the publication is dropped and made anew. Where it is
	// not the one of the last run, changes may be missing: the table has to be copied.
	OID   uint32
	Added bool  // it joined in this call
	Err   error // why the table is not captured, in the publication or not; the others are
}

// publication is one as the catalogue shows it.
type publication struct {
	oid    uint32 // 0: there is none
	misfit string // what is wrong with it as a whole, or ""
	tables []published
}

type published struct {
	oid          uint32 // of the membership
	schema, name string
	narrowed     bool   // by a row filter or a column list
	ancestor     string // under whose name its changes come, or ""
}

func (t published) sqlName() string { return catalog.Quote(t.schema) + "." + catalog.Quote(t.name) }

// Ensure makes a pipeline's publication hold exactly the members, in full and under
// the names of partition roots, and its slot exist. What fits already is only
// looked at, which takes no right but reading the catalogue. What stands in the way of one
// table is in its Membership, not in the error, and does not keep the others (I7). The
// tables are checked (CheckTable) before they join.
//
// After a Created slot or an Added member, and whenever a copy has yet to begin, take a
// NewFence for the copy.
func Ensure(ctx context.Context, pool *pgxpool.Pool, pipeline string, members []Member) (Slot, error) {
	if len(members) == 0 {
		return Slot{}, fmt.Errorf("preparing capture from the log for pipeline %s: it has no table for it", pipeline)
	}
	name, err := slotName(ctx, pool, pipeline)
	if err != nil {
		return Slot{}, err
	}
	e := ensuring{pool: pool, slot: Slot{Name: name, Members: make([]Membership, len(members))}, members: members}
	if err := e.run(ctx); err != nil {
		return Slot{}, fmt.Errorf("preparing capture from the log for pipeline %s: %w", pipeline, err)
	}
	return e.slot, nil
}

// ensuring is one call of Ensure.
type ensuring struct {
	pool    *pgxpool.Pool
	slot    Slot
	members []Member
	row     slotRow
	pub     publication
}

func (e *ensuring) run(ctx context.Context) error {
	if err := e.look(ctx); err != nil {
		return err
	}
	if e.row.found {
		if err := e.row.fits(e.slot.Name); err != nil {
			return err
		}
		if e.slot.Lost = e.lost(); e.slot.Lost != "" {
			e.report()
			return nil
		}
	}
	if err := e.publish(ctx); err != nil {
		return err
	}
	// Only now: the slot begins after the publication is there, so that no
	// transaction that it decodes is older than that.
	if !e.row.found {
		if err := create(ctx, e.pool, e.slot.Name); err != nil {
			return err
		}
		e.slot.Created = true
	}
	if err := e.look(ctx); err != nil {
		return err
	}
	e.report()
	return nil
}

// look reads slot and publication.
func (e *ensuring) look(ctx context.Context) error {
	return inTx(ctx, e.pool, pgx.ReadOnly, catalogueTimeout, func(tx pgx.Tx) error {
		var err error
		if e.row, err = readSlot(ctx, tx, e.slot.Name); err != nil {
			return err
		}
		e.pub, err = readPublication(ctx, tx, e.slot.Name)
		return err
	})
}

// lost is why what the slot holds is not all that happened.
func (e *ensuring) lost() string {
	switch {
	case e.row.lost() != "":
		return e.row.lost()
	case e.pub.oid == 0:
		return "publication " + e.slot.Name + " was dropped"
	case e.pub.misfit != "":
		return "publication " + e.slot.Name + " was altered: " + e.pub.misfit
	}
	return ""
}

// report fills in what was found.
func (e *ensuring) report() {
	e.slot.Confirmed, e.slot.Restart, e.slot.Lag = e.row.confirmed, e.row.restart, e.row.lag
	for i, m := range e.members {
		ms := &e.slot.Members[i]
		t, ok := e.pub.table(m)
		if !ok {
			continue
		}
		ms.OID = t.oid
		if t.ancestor != "" && ms.Err == nil {
			ms.Err = fault.Fix(fmt.Errorf("%s is a partition of %s, which is captured as well: its changes come under that name", t.sqlName(), t.ancestor),
				"leave one of the two out of the pipeline file")
		}
	}
	e.slot.Surplus = nil
	for _, t := range e.pub.surplus(e.members) {
		e.slot.Surplus = append(e.slot.Surplus, t.sqlName())
	}
}

const publicationSQL = `
	SELECT oid, concat_ws(', ',
	         CASE WHEN puballtables THEN 'it is FOR ALL TABLES' END,
	         CASE WHEN NOT (pubinsert AND pubupdate AND pubdelete AND pubtruncate) THEN 'it leaves out operations' END,
	         CASE WHEN NOT pubviaroot THEN 'publish_via_partition_root is off' END)
	  FROM pg_publication WHERE pubname = $1`

const publishedSQL = `
	SELECT r.oid, n.nspname::text, c.relname::text, to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL,
	       coalesce((SELECT format('%I.%I', an.nspname, ac.relname)
	          FROM pg_partition_ancestors(c.oid) a JOIN pg_publication_rel ar ON ar.prpubid = r.prpubid AND ar.prrelid = a.relid
	          JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace
	         WHERE a.relid <> c.oid LIMIT 1), '')
	  FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
	 WHERE r.prpubid = $1 ORDER BY 2, 3`

func readPublication(ctx context.Context, tx pgx.Tx, name string) (publication, error) {
	var p publication
	err := tx.QueryRow(ctx, publicationSQL, name).Scan(&p.oid, &p.misfit)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("reading publication %s: %w", name, err)
	}
	// Whole schemas can be published since version 15.
	var schemas bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL`).Scan(&schemas); err != nil {
		return p, fmt.Errorf("reading publication %s: %w", name, err)
	}
	if schemas {
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = $1)`, p.oid).Scan(&schemas); err != nil {
			return p, fmt.Errorf("reading publication %s: %w", name, err)
		}
		if schemas && p.misfit == "" {
			p.misfit = "it is FOR TABLES IN SCHEMA"
		}
	}
	rows, err := tx.Query(ctx, publishedSQL, p.oid)
	if err != nil {
		return p, fmt.Errorf("reading the tables of publication %s: %w", name, err)
	}
	p.tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (published, error) {
		var t published
		return t, row.Scan(&t.oid, &t.schema, &t.name, &t.narrowed, &t.ancestor)
	})
	if err != nil {
		return p, fmt.Errorf("reading the tables of publication %s: %w", name, err)
	}
	return p, nil
}

func (p publication) table(m Member) (published, bool) {
	i := slices.IndexFunc(p.tables, func(t published) bool { return t.schema == m.Table.Schema && t.name == m.Table.Name })
	if i < 0 {
		return published{}, false
	}
	return p.tables[i], true
}

// surplus are the tables that are no members.
func (p publication) surplus(members []Member) []published {
	var out []published
	for _, t := range p.tables {
		if !slices.ContainsFunc(members, func(m Member) bool { return t.schema == m.Table.Schema && t.name == m.Table.Name }) {
			out = append(out, t)
		}
	}
	return out
}

// publish makes the publication what it has to be.
func (e *ensuring) publish(ctx context.Context) error {
	if e.pub.oid == 0 || e.pub.misfit != "" {
		return e.createPublication(ctx)
	}
	for i, m := range e.members {
		t, ok := e.pub.table(m)
		if ok && !t.narrowed {
			// Somebody else may have put it there, or changed it since.
			e.slot.Members[i].Err = CheckTable(ctx, e.pool, m)
			continue
		}
		if err := e.add(ctx, m, ok); err != nil {
			e.slot.Members[i].Err = err
			continue
		}
		e.slot.Members[i].Added = true
	}
	for _, t := range e.pub.surplus(e.members) {
		alter := "ALTER PUBLICATION " + catalog.Quote(e.slot.Name) + " DROP TABLE ONLY " + t.sqlName()
		// It does no harm that a table stays, and the caller is told.
		if err := e.alter(ctx, alter); err != nil && fault.SQLState(err) != "42501" {
			return fmt.Errorf("removing %s from publication %s: %w", t.sqlName(), e.slot.Name, err)
		}
	}
	return nil
}

// createPublication makes the publication with all the members that pass the
// checks, in the place of one that does not fit. There is no slot yet.
func (e *ensuring) createPublication(ctx context.Context) error {
	var tables []string
	for i, m := range e.members {
		if err := CheckTable(ctx, e.pool, m); err != nil {
			e.slot.Members[i].Err = err
			continue
		}
		tables = append(tables, m.Table.Source())
	}
	if len(tables) == 0 {
		problems := make([]error, 0, len(e.members))
		for _, ms := range e.slot.Members {
			problems = append(problems, ms.Err)
		}
		return fmt.Errorf("no table can be captured: %w", errors.Join(problems...))
	}
	statement := "CREATE PUBLICATION " + catalog.Quote(e.slot.Name) + " FOR TABLE " + strings.Join(tables, ", ") +
		" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
	if e.pub.oid != 0 {
		statement = "DROP PUBLICATION " + catalog.Quote(e.slot.Name) + "; " + statement
	}
	if err := e.alter(ctx, statement); err != nil {
		return fmt.Errorf("creating publication %s: %w", e.slot.Name, byHand(err, statement))
	}
	for i, ms := range e.slot.Members {
		e.slot.Members[i].Added = ms.Err == nil
	}
	return nil
}

// add puts a table into the publication, in the place of its narrowed
// membership if it has one.
func (e *ensuring) add(ctx context.Context, m Member, again bool) error {
	if err := CheckTable(ctx, e.pool, m); err != nil {
		return err
	}
	alter := "ALTER PUBLICATION " + catalog.Quote(e.slot.Name)
	statement := alter + " ADD TABLE " + m.Table.Source()
	if again {
		statement = alter + " DROP TABLE " + m.Table.Source() + "; " + statement
	}
	if err := e.alter(ctx, statement); err != nil {
		return fmt.Errorf("adding %s to publication %s: %w", m.Table.SQLName(), e.slot.Name, byHand(err, statement))
	}
	return nil
}

// alter runs statements that take no parameters, in one transaction.
func (e *ensuring) alter(ctx context.Context, statements string) error {
	return inTx(ctx, e.pool, pgx.ReadWrite, catalogueTimeout, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}
