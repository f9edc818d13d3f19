// Package sample is the demo's application: a messaging service with several
// organizations as tenants. It creates its tables, seeds them, and then keeps
// writing the way applications do that make a sync lose rows: transactions that
// commit long after the time they stamped on their rows, updates that give hundreds of
// rows one updated_at, rollbacks that leave gaps, deletes, and labels renamed that
// many rows of other tables are shown with.
package sample

import (
	"context"
	_ "embed" // for the schema
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var schema string

// Tables are the tables that the application writes, those referred to before those
// that refer to them.
func Tables() []string {
	return []string{"organizations", "contacts", "messages", "tags", "contact_tags", "flows", "flow_results"}
}

// Create creates the application's tables in an empty database.
func Create(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to the application's database: %w", err)
	}
	_, err = conn.Exec(ctx, schema)
	if err != nil {
		err = fmt.Errorf("creating the application's tables: %w", err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// loadEnums teaches a connection the application's enum types, which COPY in
// binary form needs.
func loadEnums(ctx context.Context, conn *pgx.Conn) error {
	types, err := conn.LoadTypes(ctx, []string{"contact_status", "message_direction", "message_status"})
	if err != nil {
		return fmt.Errorf("loading the application's types: %w", err)
	}
	conn.TypeMap().RegisterTypes(types)
	return nil
}
