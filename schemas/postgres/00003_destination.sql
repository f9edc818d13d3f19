-- +goose Up
-- destination is the table that holds the rows; live, whether the name that people query
-- shows it: a table of another write mode, or of other types, is filled before it does.
-- shape is what the source's columns were when the destination was last made to fit.
ALTER TABLE tidemark.sync_state
    ADD COLUMN destination text    NOT NULL DEFAULT '',
    ADD COLUMN live        boolean NOT NULL DEFAULT true,
    ADD COLUMN shape       jsonb;

-- +goose Down
ALTER TABLE tidemark.sync_state DROP COLUMN destination, DROP COLUMN live, DROP COLUMN shape;
