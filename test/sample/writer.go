package sample

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Activity says how Run writes. Zero fields mean what their comments say.
type Activity struct {
	// Rate is the number of transactions begun a second; 20.
	Rate float64
	// Seed makes the sequence of transactions repeatable.
	Seed uint64
	// OpenFor is how long a late transaction stays open at most; 6 s.
	OpenFor time.Duration
	// One in so many transactions commits late; 23.
	LateEvery int
	// One in so many transactions gives many rows one updated_at; 47.
	BulkEvery int
	// One in so many transactions is rolled back; 41.
	RollbackEvery int
}

// Counters count what Run has done. They may be read while it runs.
type Counters struct {
	Inserted   atomic.Int64 // rows, committed
	Updated    atomic.Int64 // rows, committed
	Deleted    atomic.Int64 // rows, committed
	Late       atomic.Int64 // transactions that stayed open before they committed
	Bulk       atomic.Int64 // transactions that gave many rows one updated_at
	RolledBack atomic.Int64 // transactions
}

const (
	bulkRows    = 1200
	lateAtOnce  = 4
	atMostTakes = 30 * time.Second // a transaction
)

// Run writes into a seeded database until ctx ends, which is its normal end and
// no error. What is open then is committed before Run returns; nothing is written after.
func Run(ctx context.Context, url string, activity Activity, counters *Counters) error {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("reading the application's database address: %w", err)
	}
	config.MaxConns = lateAtOnce + 1
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connecting to the application's database: %w", err)
	}
	defer pool.Close()
	w := &writer{
		values: newValues(activity.Seed + 2), pool: pool, activity: activity.orDefaults(), counters: counters,
		places: make(chan struct{}, lateAtOnce), failed: make(chan error, lateAtOnce),
	}
	if err := w.survey(ctx); err != nil {
		return err
	}
	err = w.loop(ctx)
	w.late.Wait()
	close(w.failed)
	for failure := range w.failed {
		err = errors.Join(err, failure)
	}
	return err
}

func (a Activity) orDefaults() Activity {
	if a.Rate == 0 {
		a.Rate = 20
	}
	if a.OpenFor == 0 {
		a.OpenFor = 6 * time.Second
	}
	if a.LateEvery == 0 {
		a.LateEvery = 23
	}
	if a.BulkEvery == 0 {
		a.BulkEvery = 47
	}
	if a.RollbackEvery == 0 {
		a.RollbackEvery = 41
	}
	return a
}

// writer draws its changes in one goroutine, that of loop; late transactions
// then wait in goroutines of their own.
type writer struct {
	values
	pool                                     *pgxpool.Pool
	activity                                 Activity
	counters                                 *Counters
	organizations, contacts, messages, flows int
	places                                   chan struct{} // one for each late transaction
	late                                     sync.WaitGroup
	failed                                   chan error
}

// survey looks at which ids Seed gave.
func (w *writer) survey(ctx context.Context) error {
	err := w.pool.QueryRow(ctx, "SELECT (SELECT max(id) FROM organizations), (SELECT max(id) FROM contacts), "+
		"(SELECT coalesce(max(id), 0) FROM messages), (SELECT max(id) FROM flows)").
		Scan(&w.organizations, &w.contacts, &w.messages, &w.flows)
	if err != nil {
		return fmt.Errorf("looking at the seeded rows: %w", err)
	}
	return nil
}

// loop begins a transaction at every beat until ctx ends or one fails. What was
// begun is finished: the transactions themselves run apart from ctx.
func (w *writer) loop(ctx context.Context) error {
	beat := time.NewTicker(time.Duration(float64(time.Second) / w.activity.Rate))
	defer beat.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.failed:
			return err
		case <-beat.C:
		}
		if err := w.transaction(ctx, n); err != nil {
			return err
		}
	}
}

// transaction runs the nth transaction, or starts it if it is to commit late.
func (w *writer) transaction(ctx context.Context, n int) error {
	switch {
	case n%w.activity.LateEvery == 0 && w.takePlace():
		changes := []change{w.newMessage(), w.newMessage(), w.newAnswers()}
		timer := time.NewTimer(time.Duration(w.Int64N(int64(w.activity.OpenFor))))
		w.late.Go(func() {
			defer func() { <-w.places }()
			defer timer.Stop()
			err := w.commit(ctx, changes, func() error {
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
				return nil
			})
			if err != nil {
				w.failed <- err
				return
			}
			w.counters.Late.Add(1)
		})
		return nil
	case n%w.activity.RollbackEvery == 0:
		err := w.commit(ctx, w.changes(), func() error { return errRolledBack })
		if !errors.Is(err, errRolledBack) {
			return err
		}
		w.counters.RolledBack.Add(1)
		return nil
	case n%w.activity.BulkEvery == 0:
		if err := w.commit(ctx, []change{w.readMessages()}, nil); err != nil {
			return err
		}
		w.counters.Bulk.Add(1)
		return nil
	default:
		return w.commit(ctx, w.changes(), nil)
	}
}

func (w *writer) takePlace() bool {
	select {
	case w.places <- struct{}{}:
		return true
	default:
		return false
	}
}

// errRolledBack makes a transaction end without a trace.
var errRolledBack = errors.New("rolled back on purpose")

// commit makes the changes in one transaction, does before, if any, and commits.
func (w *writer) commit(ctx context.Context, changes []change, before func() error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), atMostTakes)
	defer cancel()
	var inserted, updated, deleted int64
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		for _, c := range changes {
			done, err := tx.Exec(ctx, c.statement, c.args...)
			if err != nil {
				return fmt.Errorf("running %s: %w", c.statement, err)
			}
			switch {
			case done.Insert():
				inserted += done.RowsAffected()
			case done.Delete():
				deleted += done.RowsAffected()
			default:
				updated += done.RowsAffected()
			}
		}
		if before != nil {
			return before()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing as the application: %w", err)
	}
	w.counters.Inserted.Add(inserted)
	w.counters.Updated.Add(updated)
	w.counters.Deleted.Add(deleted)
	return nil
}

// change is one statement.
type change struct {
	statement string
	args      []any
}

// changes draws what a usual transaction does.
func (w *writer) changes() []change {
	switch n := w.IntN(100); {
	case n < 45:
		contact := w.id(w.contacts)
		return []change{w.newMessageOf(contact), {"UPDATE contacts SET last_message_at = now(), updated_at = now() WHERE id = $1", []any{contact}}}
	case n < 60:
		return []change{w.newStatus()}
	case n < 70:
		return []change{{
			"UPDATE contacts SET name = $2, status = $3, labels = $4, attributes = attributes || $5, updated_at = now() WHERE id = $1",
			[]any{w.id(w.contacts), w.name(), pick(w.values, "active", "unsubscribed", "bounced"), w.labels(), w.document("visits", "note")},
		}}
	case n < 77:
		return []change{w.newContact(), w.newMessage()}
	case n < 81:
		return []change{w.newTagging(w.id(w.contacts))}
	case n < 83:
		return []change{untagging(w.id(w.contacts))}
	case n < 84: // its tag may come again
		contact := w.id(w.contacts)
		return []change{untagging(contact), w.newTagging(contact)}
	case n < 86:
		return []change{{"DELETE FROM flow_results WHERE contact_id = $1", []any{w.id(w.contacts)}}}
	case n < 92:
		return []change{w.newAnswers(), w.moreAnswers()}
	case n < 95:
		return []change{{
			"UPDATE flows SET definition = $2, revision = revision + 1, keywords = $3, opens_at = $4, updated_at = now() WHERE id = $1",
			[]any{w.id(w.flows), w.document("start", "steps"), w.labels(), sometimes(w.values, 50, w.timeOfDay())},
		}}
	case n < 98:
		return []change{{
			"UPDATE organizations SET balance = balance - $2, logo = $3, settings = $4, updated_at = now() WHERE id = $1",
			[]any{w.id(w.organizations), w.decimal(2, 4), sometimes(w.values, 70, w.bytes(40)), w.document("locale", "limits")},
		}}
	default:
		return []change{{
			"UPDATE tags SET label = $2 || ' ' || id, color = $3, updated_at = now() WHERE id = $1",
			[]any{w.id(w.organizations * tagsPerOrganization), pick(w.values, "lead", "VIP", "à rappeler", "常客"), fmt.Sprintf("#%06x", w.IntN(1<<24))},
		}}
	}
}

func untagging(contact int64) change {
	return change{"DELETE FROM contact_tags WHERE contact_id = $1", []any{contact}}
}

func (w *writer) newMessage() change { return w.newMessageOf(w.id(w.contacts)) }

func (w *writer) newMessageOf(contact int64) change {
	w.messages++
	args := append([]any{contact}, w.content(time.Now().UTC().Truncate(time.Microsecond))...)
	return change{
		"INSERT INTO messages (organization_id, contact_id, public_id, direction, status, body, attachments, payload, cost, latency_ms, attempts, sent_at) " +
			"SELECT organization_id, id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM contacts WHERE id = $1",
		args[:len(args)-2], // created_at and updated_at are the database's now()
	}
}

func (w *writer) newStatus() change {
	return change{
		"UPDATE messages SET status = $2, attempts = attempts + 1, latency_ms = $3, updated_at = now() WHERE id = $1",
		[]any{w.id(w.messages), pick(w.values, "sent", "delivered", "read", "failed"), sometimes(w.values, 90, w.ExpFloat64()*250)},
	}
}

// readMessages gives up to bulkRows messages one updated_at. It passes over rows
// that another transaction holds, so as not to wait for a late one.
func (w *writer) readMessages() change {
	return change{
		"UPDATE messages SET status = 'read', updated_at = now() WHERE id IN " +
			"(SELECT id FROM messages WHERE organization_id = $1 ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
		[]any{w.id(w.organizations), bulkRows},
	}
}

func (w *writer) newContact() change {
	w.contacts++
	return change{
		"INSERT INTO contacts (organization_id, public_id, name, phone, language, born_on, labels, attributes, avatar) " +
			"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		[]any{
			w.id(w.organizations), w.uuid(), w.name(), w.phone(), sometimes(w.values, 90, pick(w.values, "en", "fr", "pt", "ar", "zh")),
			sometimes(w.values, 60, w.date()), w.labels(), w.document("plan"), sometimes(w.values, 30, w.bytes(24)),
		},
	}
}

func (w *writer) newTagging(contact int64) change {
	return change{
		"INSERT INTO contact_tags (contact_id, tag_id, weight) SELECT c.id, t.id, $2 FROM contacts c JOIN tags t USING (organization_id) " +
			"WHERE c.id = $1 ORDER BY t.color LIMIT 1 " +
			"ON CONFLICT (contact_id, tag_id) DO UPDATE SET weight = excluded.weight, updated_at = now()",
		[]any{contact, w.Float32()},
	}
}

func (w *writer) newAnswers() change {
	return change{
		"INSERT INTO flow_results (flow_id, contact_id, answers, completed, progress) " +
			"SELECT f.id, c.id, $2, $3, $4 FROM contacts c JOIN flows f USING (organization_id) WHERE c.id = $1 ORDER BY f.revision, f.id LIMIT 1",
		[]any{w.id(w.contacts), w.document("q1", "q2", "q3"), w.IntN(2) == 0, w.Float64()},
	}
}

func (w *writer) moreAnswers() change {
	return change{
		"UPDATE flow_results SET answers = answers || $2, progress = least(1, progress + 0.1), completed = progress > 0.9, updated_at = now() WHERE contact_id = $1",
		[]any{w.id(w.contacts), w.document("q4")},
	}
}
