-- +goose Up
-- Where every table stands: one row per pipeline, tenant and table.
CREATE TABLE tidemark.sync_state (
    pipeline     text        NOT NULL,
    tenant       text        NOT NULL DEFAULT '',
    table_name   text        NOT NULL,
    generation   integer     NOT NULL DEFAULT 1,
    position     bigint      NOT NULL DEFAULT 0, -- of the newest committed batch: the second section of _version
    cursor       jsonb,                          -- what the capture method resumes from; null: nothing was read yet
    pending      jsonb,                          -- a finished stream whose commit is not yet known to have happened
    fingerprint  text        NOT NULL DEFAULT '', -- of what the destination was last made to fit
    basis        text        NOT NULL DEFAULT '', -- what the cursor is about: capture, key, and the very log it fills
    succeeded_at timestamptz,
    PRIMARY KEY (pipeline, tenant, table_name)
);

-- One writer per unit of work. The token grows with every holder and is checked
-- in the transaction that moves a cursor.
CREATE TABLE tidemark.leases (
    unit       text        PRIMARY KEY,
    holder     text        NOT NULL,
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The log: one row per run of a table or sync that did, refused or failed
-- something. Runs that found nothing leave only sync_state.succeeded_at.
CREATE TABLE tidemark.runs (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text        NOT NULL, -- extract, dedup, reverse_etl, message
    pipeline      text        NOT NULL DEFAULT '',
    tenant        text        NOT NULL DEFAULT '',
    name          text        NOT NULL DEFAULT '', -- the table or the sync
    message_id    text        NOT NULL DEFAULT '',
    outcome       text        NOT NULL DEFAULT 'running'
                  CHECK (outcome IN ('running', 'ok', 'dry_run', 'skipped', 'failed')),
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    rows_read     bigint      NOT NULL DEFAULT 0,
    rows_written  bigint      NOT NULL DEFAULT 0,
    rows_deleted  bigint      NOT NULL DEFAULT 0,
    rows_rejected bigint      NOT NULL DEFAULT 0,
    bytes         bigint      NOT NULL DEFAULT 0,
    cursor_before jsonb,
    cursor_after  jsonb,
    detail        jsonb,
    error         text        NOT NULL DEFAULT '',
    remedy        text        NOT NULL DEFAULT ''
);
CREATE INDEX runs_by_name ON tidemark.runs (pipeline, tenant, name, id DESC);

-- Rows that could not be carried exactly, kept whole with the reason.
CREATE TABLE tidemark.rejects (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id      bigint      NOT NULL,
    kind        text        NOT NULL, -- extract or reverse_etl
    pipeline    text        NOT NULL,
    tenant      text        NOT NULL DEFAULT '',
    name        text        NOT NULL,
    position    bigint      NOT NULL DEFAULT 0, -- the batch it was met in
    column_name text        NOT NULL DEFAULT '',
    reason      text        NOT NULL,
    row         json, -- not jsonb, which refuses and changes some of what json holds
    rejected_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX rejects_by_name ON tidemark.rejects (kind, pipeline, tenant, name, position);

-- Partitions of T_log that received versions since their last clean-up; '' is
-- the whole of an unpartitioned log.
CREATE TABLE tidemark.dirty_partitions (
    pipeline   text   NOT NULL,
    tenant     text   NOT NULL DEFAULT '',
    table_name text   NOT NULL,
    partition  text   NOT NULL,
    position   bigint NOT NULL, -- of the newest batch that wrote to it
    PRIMARY KEY (pipeline, tenant, table_name, partition)
);

-- +goose Down
DROP TABLE tidemark.dirty_partitions, tidemark.rejects, tidemark.runs, tidemark.leases, tidemark.sync_state;
