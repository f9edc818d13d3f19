package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidemark-data/tidemark/shared/catalog"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// Tenants runs a pipeline's tenants query, read-only, and returns its rows with
// every value as text.
func Tenants(ctx context.Context, pool *pgxpool.Pool, query string) ([]tick.Tenant, error) {
	var tenants []tick.Tenant
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// A policy that hides rows would hide tenants: it is an error instead.
		if _, err := tx.Exec(ctx, `SELECT set_config('row_security', 'off', true), set_config('statement_timeout', '60s', true)`); err != nil {
			return err
		}
		// The simple protocol returns text, whatever the types are.
		rows, err := tx.Query(ctx, query, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			row := map[string]string{}
			for i, raw := range rows.RawValues() {
				if raw == nil && i == 0 {
					return fault.Fix(errors.New("a tenant is NULL"), "add WHERE .. IS NOT NULL to tenants.query")
				}
				row[rows.FieldDescriptions()[i].Name] = string(raw)
			}
			tenants = append(tenants, tick.Tenant{ID: row[rows.FieldDescriptions()[0].Name], Values: row})
		}
		return rows.Err()
	})
	if fault.SQLState(err) == "42501" { // insufficient_privilege
		err = fault.Fix(err, "GRANT SELECT ON the tables that tenants.query reads TO "+catalog.Quote(pool.Config().ConnConfig.User))
	}
	if err != nil {
		return nil, fmt.Errorf("running tenants.query: %w", err)
	}
	return tenants, nil
}
