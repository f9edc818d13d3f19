-- +goose Up
-- When rows deleted for longer than they are kept were last looked for.
ALTER TABLE tidemark.sync_state ADD COLUMN expired_at timestamptz;

-- +goose Down
ALTER TABLE tidemark.sync_state DROP COLUMN expired_at;
