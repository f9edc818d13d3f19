package target

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Confirmed says by their fingerprints for which rows the table is as the source has
// them after Apply: those of Only, or all but those of Except, whichever are fewer. A
// row that has no row to be written to yet is not among them.
type Confirmed struct {
	Only   []int64 // nil where Except is the list
	Except []int64
}

// Confirmed tells which rows are as they should be, of rows that came with KeyMark.
func (s *Staging) Confirmed(ctx context.Context) (Confirmed, error) {
	there := fmt.Sprintf("EXISTS (SELECT FROM %s t WHERE %s AND %s)", s.table.SQLName(), s.joined("t", "c"), s.within("t"))
	// A fingerprint that stands for several rows is confirmed if all of them are.
	all := fmt.Sprintf(`
		SELECT r.fingerprint, bool_and(c.n IS NOT NULL AND (coalesce(r.removed, false) OR %s)
		       AND NOT EXISTS (SELECT FROM %s p WHERE p.staged = r.n AND (p.n > $1 OR p.action LIKE '%% %%'))) AS confirmed
		  FROM %s r LEFT JOIN %s c ON c.n = r.n GROUP BY 1`, there, s.plan, s.raw, s.cast)
	var out Confirmed
	err := s.tx(ctx, maxStatement, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "CREATE INDEX ON "+s.plan+" (staged)"); err != nil {
			return err
		}
		var yes, no int64
		if err := tx.QueryRow(ctx, "SELECT count(*) FILTER (WHERE confirmed), count(*) FILTER (WHERE NOT confirmed) FROM ("+all+") a", s.through).Scan(&yes, &no); err != nil {
			return fmt.Errorf("counting: %w", err)
		}
		byExcept := no <= yes
		rows, err := tx.Query(ctx, "SELECT fingerprint FROM ("+all+") a WHERE fingerprint IS NOT NULL AND confirmed = $2", s.through, !byExcept)
		if err != nil {
			return err
		}
		list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		if byExcept {
			out.Except = list
		} else {
			out.Only = list
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("telling the rows that are as they should be: %w", err)
	}
	return out, nil
}
