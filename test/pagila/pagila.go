// Package pagila loads the Pagila sample database, the video rental shop that
// Postgres people test with: a partitioned table, composite keys, an enum, domains,
// arrays, bytea, a tsvector fed by a trigger, views. Its licence is beside the data.
package pagila

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed" // for the dump
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed testdata/pagila.sql.gz
var dump []byte

// Load loads the dump as it is into an empty database.
func Load(ctx context.Context, url string) error {
	return with(ctx, url, func(conn *pgconn.PgConn) error {
		compressed, err := gzip.NewReader(bytes.NewReader(dump))
		if err != nil {
			return fmt.Errorf("opening the dump: %w", err)
		}
		text, err := io.ReadAll(compressed)
		if err != nil {
			return fmt.Errorf("unpacking the dump: %w", err)
		}
		return restore(ctx, conn, string(text))
	})
}

// AddCursors gives every table with a key what watermark capture asks for and
// Pagila lacks: payment a last_update column, customer's made NOT NULL, and an index
// on (last_update, key) everywhere. On the tables that the dump keeps current by
// trigger it changes nothing else; payment gets the same trigger.
func AddCursors(ctx context.Context, url string) error {
	return with(ctx, url, func(conn *pgconn.PgConn) error {
		if _, err := conn.Exec(ctx, cursors).ReadAll(); err != nil {
			return fmt.Errorf("adding cursors: %w", err)
		}
		return nil
	})
}

const cursors = `
ALTER TABLE public.payment ADD COLUMN last_update timestamptz NOT NULL DEFAULT now();
UPDATE public.payment SET last_update = payment_date;
CREATE TRIGGER last_updated BEFORE UPDATE ON public.payment FOR EACH ROW EXECUTE FUNCTION public.last_updated();
ALTER TABLE public.customer ALTER COLUMN last_update SET NOT NULL;
DO $$
DECLARE
	found record;
BEGIN
	FOR found IN
		SELECT con.conrelid::regclass AS tab, string_agg(quote_ident(a.attname), ', ' ORDER BY k.position) AS keys
		FROM pg_constraint con
		JOIN pg_class c ON c.oid = con.conrelid AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
		CROSS JOIN unnest(con.conkey) WITH ORDINALITY AS k (attnum, position)
		JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum
		WHERE con.contype = 'p'
		GROUP BY con.conrelid
	LOOP
		EXECUTE format('CREATE INDEX ON %s (last_update, %s)', found.tab, found.keys);
	END LOOP;
END $$;
`

func with(ctx context.Context, url string, do func(*pgconn.PgConn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting for Pagila: %w", err)
	}
	err = do(conn.PgConn())
	if err != nil {
		err = fmt.Errorf("loading Pagila: %w", err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// restore runs a plain-text dump: SQL, and between it, blocks of COPY data that
// end with a line of backslash and dot.
func restore(ctx context.Context, conn *pgconn.PgConn, text string) error {
	const (
		copyStart = "\nCOPY "
		copyEnd   = "\n\\.\n"
	)
	for text != "" {
		statements, rest, more := strings.Cut(text, copyStart)
		if _, err := conn.Exec(ctx, statements).ReadAll(); err != nil {
			return fmt.Errorf("running the dump's statements: %w", err)
		}
		if !more {
			return nil
		}
		command, rest, _ := strings.Cut(rest, ";\n")
		// The marker's first line break ends the last row; without rows it follows at once.
		data, after, ended := strings.Cut("\n"+rest, copyEnd)
		if !ended {
			return fmt.Errorf("running the dump: the data of COPY %s has no end", command)
		}
		data = strings.TrimPrefix(data+"\n", "\n")
		if _, err := conn.CopyFrom(ctx, strings.NewReader(data), "COPY "+command); err != nil {
			return fmt.Errorf("running the dump's COPY %s: %w", command, err)
		}
		text = after
	}
	return nil
}
