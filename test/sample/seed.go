package sample

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Size says how much Seed writes. Tags, flows and their results follow from it.
type Size struct {
	Organizations int
	Contacts      int
	Messages      int
}

const (
	tagsPerOrganization  = 8
	flowsPerOrganization = 3
	seedPeriod           = 90 * 24 * time.Hour
)

// Seed fills the tables of Create, in one transaction. The same size gives the
// same rows, but for their times, which end now.
func Seed(ctx context.Context, url string, size Size) error {
	if size.Organizations < 1 || size.Contacts < 1 || size.Messages < 0 {
		return fmt.Errorf("seeding: %+v is too small, at least one organization and one contact are needed", size)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to the application's database: %w", err)
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := loadEnums(ctx, conn); err != nil {
			return err
		}
		s := seeder{tx: tx, values: newValues(1), size: size, now: time.Now().UTC()}
		return s.all(ctx)
	})
	return errors.Join(err, conn.Close(ctx))
}

type seeder struct {
	values
	tx   pgx.Tx
	size Size
	now  time.Time
}

func (s *seeder) all(ctx context.Context) error {
	for _, table := range []struct {
		name    string
		columns []string
		rows    int
		row     func(i int) []any
	}{
		{"organizations", []string{"id", "slug", "name", "active", "seats", "balance", "settings", "logo", "founded_on", "created_at", "updated_at"}, s.size.Organizations, s.organization},
		{"contacts", []string{"id", "organization_id", "public_id", "name", "phone", "status", "language", "born_on", "labels", "attributes", "avatar", "created_at", "updated_at"}, s.size.Contacts, s.contact},
		{"messages", []string{"id", "organization_id", "contact_id", "public_id", "direction", "status", "body", "attachments", "payload", "cost", "latency_ms", "attempts", "sent_at", "created_at", "updated_at"}, s.size.Messages, s.message},
		{"tags", []string{"id", "organization_id", "label", "color", "updated_at"}, s.size.Organizations * tagsPerOrganization, s.tag},
		{"contact_tags", []string{"contact_id", "tag_id", "weight", "tagged_on", "updated_at"}, s.size.Contacts, s.contactTag},
		{"flows", []string{"id", "organization_id", "public_id", "name", "definition", "keywords", "revision", "opens_at", "updated_at"}, s.size.Organizations * flowsPerOrganization, s.flow},
		{"flow_results", []string{"id", "flow_id", "contact_id", "answers", "completed", "progress", "updated_at"}, s.size.Contacts, s.flowResult},
	} {
		source := pgx.CopyFromSlice(table.rows, func(i int) ([]any, error) { return table.row(i), nil })
		if _, err := s.tx.CopyFrom(ctx, pgx.Identifier{table.name}, table.columns, source); err != nil {
			return fmt.Errorf("seeding %s: %w", table.name, err)
		}
	}
	return s.advance(ctx)
}

// advance moves the identity sequences past the seeded ids.
func (s *seeder) advance(ctx context.Context) error {
	for _, table := range []string{"organizations", "contacts", "messages", "tags", "flows", "flow_results"} {
		statement := fmt.Sprintf("SELECT setval(pg_get_serial_sequence('%[1]s', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM %[1]s), false)", table)
		if _, err := s.tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("advancing the ids of %s: %w", table, err)
		}
	}
	return nil
}

// organizationOf spreads contacts, tags and flows over the organizations.
func (s *seeder) organizationOf(i int) int64 { return int64(i%s.size.Organizations) + 1 }

func (s *seeder) updated() time.Time { return s.within(seedPeriod, s.now) }

func (s *seeder) organization(i int) []any {
	created := s.updated()
	return []any{
		int64(i + 1), fmt.Sprintf("org_%d", i+1), s.name() + " Ltd", s.IntN(10) > 0, int32(1 + s.IntN(500)), s.decimal(6, 4),
		s.document("locale", "limits", "beta"), sometimes(s.values, 50, s.bytes(48)), sometimes(s.values, 80, s.date()), created, created,
	}
}

func (s *seeder) contact(i int) []any {
	updated := s.updated()
	return []any{
		int64(i + 1), s.organizationOf(i), s.uuid(), s.name(), s.phone(),
		pick(s.values, "active", "active", "active", "unsubscribed", "bounced", "blocked"),
		sometimes(s.values, 90, pick(s.values, "en", "fr", "pt", "ar", "zh")), sometimes(s.values, 60, s.date()), s.labels(),
		s.document("plan", "visits"), sometimes(s.values, 30, s.bytes(24)), s.within(seedPeriod, updated), updated,
	}
}

func (s *seeder) message(i int) []any {
	contact := s.IntN(s.size.Contacts)
	created := s.updated()
	row := []any{int64(i + 1), s.organizationOf(contact), int64(contact + 1)}
	return append(row, s.content(created)...)
}

// content is what a message holds besides its ids, as the columns follow.
func (v values) content(created time.Time) []any {
	return []any{
		v.uuid(), pick(v, "inbound", "outbound", "outbound"), pick(v, "sent", "delivered", "read", "failed"), v.body(),
		sometimes(v, 30, v.labels()), sometimes(v, 50, v.document("template", "buttons")), sometimes(v, 70, v.decimal(3, 5)),
		sometimes(v, 60, v.ExpFloat64()*250), int16(v.IntN(4)), sometimes(v, 80, created), created, created,
	}
}

func (s *seeder) tag(i int) []any {
	return []any{int64(i + 1), s.organizationOf(i), fmt.Sprintf("tag %d", i), fmt.Sprintf("#%06x", s.IntN(1<<24)), s.updated()}
}

// contactTag gives each contact one tag of its organization.
func (s *seeder) contactTag(i int) []any {
	tag := s.organizationOf(i) + int64(s.size.Organizations*s.IntN(tagsPerOrganization))
	return []any{int64(i + 1), tag, s.Float32(), s.date(), s.updated()}
}

func (s *seeder) flow(i int) []any {
	return []any{
		int64(i + 1), s.organizationOf(i), s.uuid(), fmt.Sprintf("Flow %d", i+1), s.document("start", "steps", "end"), s.labels(),
		int32(1 + s.IntN(9)), sometimes(s.values, 50, s.timeOfDay()), s.updated(),
	}
}

// flowResult lets each contact take one flow of its organization.
func (s *seeder) flowResult(i int) []any {
	flow := s.organizationOf(i) + int64(s.size.Organizations*s.IntN(flowsPerOrganization))
	return []any{int64(i + 1), flow, int64(i + 1), s.document("q1", "q2"), s.IntN(2) == 0, s.Float64(), s.updated()}
}
