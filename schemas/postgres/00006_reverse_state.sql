-- +goose Up
-- Where every reverse sync stands: one row per pipeline, tenant and sync that ran to its end.
CREATE TABLE tidemark.reverse_state (
    pipeline text        NOT NULL,
    tenant   text        NOT NULL DEFAULT '',
    sync     text        NOT NULL,
    mapping  text        NOT NULL, -- fingerprint of what is written where
    position jsonb,                -- where the next run begins in the source; null: with every row
    rows     bigint,               -- that the last full comparison read; null: there was none
    full_at  timestamptz,          -- when that began
    PRIMARY KEY (pipeline, tenant, sync)
);

-- +goose Down
DROP TABLE tidemark.reverse_state;
