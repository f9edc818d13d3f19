-- +goose Up
-- By its key, as texts in the order of the table's, a rejected row is read again.
ALTER TABLE tidemark.rejects ADD COLUMN key jsonb;

-- The load jobs of a day: BigQuery counts them for each table.
CREATE TABLE tidemark.load_jobs (
    pipeline   text        NOT NULL,
    tenant     text        NOT NULL DEFAULT '',
    table_name text        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX load_jobs_by_table ON tidemark.load_jobs (pipeline, tenant, table_name, started_at);

-- +goose Down
DROP TABLE tidemark.load_jobs;
ALTER TABLE tidemark.rejects DROP COLUMN key;
