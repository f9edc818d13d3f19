-- +goose Up
-- While what follows a truncation is landed in several batches: the version below which
-- everything goes with the last of them.
ALTER TABLE tidemark.sync_state ADD COLUMN truncated text NOT NULL DEFAULT '';

-- The latest backfill of every table: its first sight, or a resync.
CREATE TABLE tidemark.backfills (
    pipeline       text        NOT NULL,
    tenant         text        NOT NULL DEFAULT '',
    table_name     text        NOT NULL,
    generation     integer     NOT NULL,
    requested_by   text        NOT NULL DEFAULT '', -- the message that asked for it; '' for a first sight
    reason         text        NOT NULL DEFAULT '',
    barrier        bigint      NOT NULL DEFAULT 0,  -- chunks are read in snapshots whose xmin has reached this transaction
    batch_rows     bigint      NOT NULL,            -- rows committed at once
    estimated_rows bigint      NOT NULL,
    rows           bigint      NOT NULL DEFAULT 0,  -- durable in BigQuery, rejected ones included
    rejected       bigint      NOT NULL DEFAULT 0,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at    timestamptz,
    PRIMARY KEY (pipeline, tenant, table_name)
);

-- What a backfill still has to read: one row per key or block range.
CREATE TABLE tidemark.backfill_chunks (
    pipeline   text    NOT NULL,
    tenant     text    NOT NULL DEFAULT '',
    table_name text    NOT NULL,
    chunk      integer NOT NULL,
    range      jsonb   NOT NULL, -- where it begins and ends
    cursor     jsonb,            -- what was read last; null: nothing yet
    pending    jsonb,            -- as in sync_state
    done       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (pipeline, tenant, table_name, chunk)
);

-- Positions of backfilled batches: below those of any change, which are microseconds
-- since 1970, so that a change wins over what was read of its row by a backfill.
CREATE SEQUENCE tidemark.backfill_position;

CREATE VIEW tidemark.backfill_progress AS
SELECT pipeline, tenant, table_name, generation, reason, rows, estimated_rows,
       CASE WHEN finished_at IS NOT NULL THEN 100 ELSE least(99.9, round(100.0 * rows / greatest(estimated_rows, 1), 1)) END AS percent,
       started_at, finished_at,
       CASE WHEN finished_at IS NULL AND rows > 0
            THEN clock_timestamp() + (clock_timestamp() - started_at) * (greatest(estimated_rows - rows, 0)::double precision / rows) END AS expected_at
  FROM tidemark.backfills;

-- +goose Down
DROP VIEW tidemark.backfill_progress;
DROP SEQUENCE tidemark.backfill_position;
DROP TABLE tidemark.backfill_chunks, tidemark.backfills;
ALTER TABLE tidemark.sync_state DROP COLUMN truncated;
