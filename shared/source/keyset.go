package source

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidemark-data/tidemark/shared/catalog"
)

// bindKeyset binds the values of a keyset to the names.
func (r *watermarkRead) bindKeyset(ctx context.Context, bindings func(int) string, texts []string) error {
	for i, text := range texts {
		if err := r.bind(ctx, bindings(i), text); err != nil {
			return err
		}
	}
	return nil
}

// atName is the setting that the n-th value of a cursor is bound to.
func (w *Watermark) atName(n int) string { return w.setting("at_" + strconv.Itoa(n)) }

// uptoName is the setting that the n-th value of where a read ends is bound to.
func (w *Watermark) uptoName(n int) string { return w.setting("upto_" + strconv.Itoa(n)) }

// nextName is the setting that the n-th value of the next cursor is bound to.
func (w *Watermark) nextName(n int) string { return w.setting("next_" + strconv.Itoa(n)) }

// keysetExprs are (cursor, key) as they are selected.
func (w *Watermark) keysetExprs() []string {
	out := make([]string, len(w.keyset))
	for i, c := range w.keyset {
		out[i] = c.Expr
	}
	return out
}

// keysetColumns are (cursor, key) as they are ordered and compared. Types
// whose comparison operators may live outside pg_catalog are compared as text
// under a fixed collation, so that ORDER BY and the row comparison always agree. They
// are qualified, since ORDER BY takes a bare name for what is selected under it, such
// as the text of an address, which has another order.
func (w *Watermark) keysetColumns() []string {
	out := make([]string, len(w.keyset))
	for i, c := range w.keyset {
		out[i] = catalog.Quote(w.Table.Name) + "." + catalog.Quote(c.Name)
		if c.Base == "" {
			out[i] = "(" + out[i] + `::text COLLATE "C")`
		}
	}
	return out
}

func (w *Watermark) keysetSQL() string { return "(" + strings.Join(w.keysetColumns(), ", ") + ")" }

// boundSQL are the values of a keyset that are bound to the names.
func (w *Watermark) boundSQL(bindings func(int) string) string {
	out := make([]string, len(w.keyset))
	for i, c := range w.keyset {
		name := bindings(i)
		out[i] = bound(name, c.Base)
		if c.Base == "" {
			out[i] = "(" + bound(name, "text") + ` COLLATE "C")`
		}
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// lookbackSQL keeps rows at or above the lower bound, which is bound to the name; every
// row without one.
func (r *watermarkRead) lookbackSQL(ctx context.Context, name string, lower *int64) (string, error) {
	if lower == nil {
		return "true", nil
	}
	if err := r.bind(ctx, r.w.setting(name), r.w.family.text(*lower)); err != nil {
		return "", err
	}
	return catalog.Quote(r.w.Cursor) + " >= " + bound(r.w.setting(name), r.w.Table.Stored(r.w.Cursor).Base), nil
}

// wideXmin is the 64-bit id of the transaction that wrote a row. Ids of rows
// are 32 bits wide and never newer than the snapshot's end, which says the
// epoch. Ids below 3 are frozen rows of old. (PostgreSQL manual, 25.1.5.)
func (r *watermarkRead) wideXmin() string {
	low := r.now.xmax & math.MaxUint32
	high := r.now.xmax - low
	return fmt.Sprintf("(CASE WHEN xmin::text::bigint < 3 THEN 0 ELSE xmin::text::bigint + %d - CASE WHEN xmin::text::bigint > %d THEN 4294967296 ELSE 0 END END)", high, low)
}

// unseenSQL is true for rows whose transaction the previous read did not see (I2).
func (r *watermarkRead) unseenSQL(ctx context.Context, u unseen) (string, error) {
	x := r.wideXmin()
	tests := []string{fmt.Sprintf("%s >= %d", x, u.From)}
	if u.Doubt > 0 {
		if err := r.bind(ctx, r.w.setting("seen"), ids(u.Seen)); err != nil {
			return "", err
		}
		tests = append(tests, fmt.Sprintf("(%s >= %d AND %s NOT IN (SELECT unnest(current_setting('%s')::bigint[])))", x, u.Doubt, x, r.w.setting("seen")))
	}
	return "(" + strings.Join(tests, " OR ") + ")", nil
}

func ids(xs []uint64) string {
	texts := make([]string, len(xs))
	for i, x := range xs {
		texts[i] = strconv.FormatUint(x, 10)
	}
	return "{" + strings.Join(texts, ",") + "}"
}
