package warehouse

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/iterator"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// A ledger is a table with the key of every row that a sync wrote, and a checksum of what
// it wrote. A run takes the rows of the source that the ledger has no checksum of, or
// another one, and the keys that the source has no more.
//
// What a run takes it first keeps in a table of its own, its plan, which the ledger names
// by a label before that is made. So a run that died after it wrote some of its rows has
// left word of which they may be: the next one takes them all again, whatever their
// checksums (I4). In the ledger itself such a key has no checksum: it may be in the target,
// and nobody knows with which values. Confirm moves a plan into the ledger and drops it.
//
// A ledger is of one mapping and one type of key: its name has a hash of both. Others of
// the same sync are dropped before it is made, because nothing is known of what was
// written by them once something else is written.

const (
	checksumColumn = "_tidemark_checksum" // BYTES; NULL: not known
	planLabel      = "tidemark-plan"
	// A ledger has wholeLabel once a run of every row has come to its end. Until then
	// every run takes all: the target may have keys that the ledger does not know.
	wholeLabel = "tidemark-whole"
	// lastLabel names the plan of the last run that came to its end, and so does its
	// Result.Next: a run that goes on behind another one goes on behind that. It is another
	// one's if a second database keeps to the same ledger, or an older state of the same one
	// was restored.
	lastLabel = "tidemark-last"
)

// ledgerKept is how long a ledger is there after its last use, planKept a plan: for longer,
// so that no ledger is used without the plan that it names. Without a ledger every row is
// taken.
const (
	ledgerKept = 30 * 24 * time.Hour
	planKept   = 32 * 24 * time.Hour
)

// ledger is one for the statements about it.
type ledger struct {
	client  *Client
	source  Source
	schema  bigquery.Schema // of the source
	dataset *bigquery.Dataset
	name    string // of its table
}

// plan is the table of what a run took.
type plan struct {
	ledger  ledger
	name    string
	dropped bool // all of it is in the ledger
}

// Confirmed is which of the rows that a run took are in the table now as they were taken,
// or out of it if they were removed, by the fingerprints of their keys: those of Only or,
// where that is nil, all but those of Except. Where that is nil too, none is.
type Confirmed struct {
	Only, Except []int64
	// Partial says that the run was stopped before its end, or looked at nothing but rows
	// that were refused: the next one goes on where this one did.
	Partial bool
}

func (c *Client) selectLedger(ctx context.Context, s Source, take Take) (*Result, error) {
	checked, err := c.check(ctx, &s)
	if err != nil {
		return nil, err
	}
	if err := s.checkTypes(checked.schema); err != nil {
		return nil, err
	}
	l, err := c.ledger(ctx, s, checked.schema)
	if err != nil {
		return nil, err
	}
	r, err := l.take(ctx, take, checked.at)
	if err != nil {
		return r, fmt.Errorf("selecting by the ledger %s: %w", l.name, err)
	}
	return r, nil
}

// ledgerName is what the name of a sync becomes in that of its ledger.
var ledgerName = regexp.MustCompile(`[^A-Za-z0-9_-]`)

func (c *Client) ledger(ctx context.Context, s Source, schema bigquery.Schema) (*ledger, error) {
	client, err := c.restClient(ctx)
	if err != nil {
		return nil, err
	}
	l := &ledger{client: c, source: s, schema: schema, dataset: client.Dataset(s.Dataset + "_ledger")}
	parts := []string{s.Ledger, s.Mapping}
	for _, name := range s.Key {
		parts = append(parts, name, string(field(schema, name).Type))
	}
	l.name = l.prefix() + shortHash(parts...)
	return l, nil
}

// prefix begins the names of the sync's ledgers, which end with a hash.
func (l *ledger) prefix() string { return ledgerName.ReplaceAllString(l.source.Ledger, "_") + "_" }

func (l *ledger) path(table string) string { return l.client.path(l.dataset.DatasetID, table) }

// ledgerPosition is the end of a run.
type ledgerPosition struct {
	Last string `json:"last"` // see lastLabel
}

// take selects the rows of a run; now is the time by BigQuery's clock.
func (l *ledger) take(ctx context.Context, take Take, now time.Time) (*Result, error) {
	md, bytes, err := l.look(ctx)
	if err != nil {
		return nil, err
	}
	at, known := readPosition[ledgerPosition](take.After)
	if md == nil || md.Labels[wholeLabel] == "" || known && at.Last != md.Labels[lastLabel] {
		take.All, take.Only = true, false
	}
	var r *Result
	switch {
	case take.Dry:
		r, err = l.show(ctx, take)
	case md == nil:
		if md, err = l.make(ctx); err != nil {
			return nil, err
		}
		r, err = l.keep(ctx, take, md, now)
	default:
		r, err = l.keep(ctx, take, md, now)
	}
	if r != nil {
		r.next = take.After
		r.Whole = take.All
		r.Bytes += bytes
	}
	return r, err
}

// look returns what the ledger is, nil where there is none, with all in it that an earlier
// run left behind.
func (l *ledger) look(ctx context.Context) (md *bigquery.TableMetadata, bytes int64, err error) {
	for {
		md, err = l.dataset.Table(l.name).Metadata(ctx)
		if fault.HTTPStatus(err) == http.StatusNotFound {
			return nil, bytes, nil
		}
		if err != nil {
			return nil, bytes, fmt.Errorf("looking at it: %w", err)
		}
		left := md.Labels[planLabel]
		if left == "" {
			return md, bytes, nil
		}
		moved, settled, err := l.settle(ctx, left)
		bytes += moved
		if err != nil || !settled {
			return md, bytes, err
		}
		// It is another table now, by its ETag.
	}
}

// show takes rows without keeping them.
func (l *ledger) show(ctx context.Context, take Take) (*Result, error) {
	sql, parameters, err := l.takeSQL(take)
	if err != nil {
		return nil, err
	}
	r, _, err := l.client.query(ctx, l.source.statement(fmt.Sprintf("SELECT * EXCEPT (%s) FROM (%s)", checksumColumn, sql), parameters))
	return r, err
}

// keep takes rows by way of a plan.
func (l *ledger) keep(ctx context.Context, take Take, md *bigquery.TableMetadata, at time.Time) (*Result, error) {
	sql, parameters, err := l.takeSQL(take)
	if err != nil {
		return nil, err
	}
	p := plan{ledger: *l, name: l.name + "_plan_" + strings.ToLower(rand.Text())}
	var update bigquery.TableMetadataToUpdate
	update.SetLabel(planLabel, p.name[len(l.name)+len("_plan_"):])
	update.ExpirationTime = at.Add(ledgerKept)
	if _, err := l.dataset.Table(l.name).Update(ctx, update, md.ETag); err != nil {
		return nil, fmt.Errorf("naming the plan: %w", err)
	}
	done, err := l.client.run(ctx, l.source.statement(fmt.Sprintf(
		"CREATE TABLE %s OPTIONS (expiration_timestamp = TIMESTAMP '%s', description = 'What a run of a reverse sync took; it goes by itself.') AS %s",
		l.path(p.name), at.Add(planKept).UTC().Format("2006-01-02 15:04:05+00"), sql), parameters), "plan", fault.Permanent)
	r := done.result()
	if err != nil {
		return r, err
	}
	r.plan = &p
	return r, l.client.openRead(ctx, r, l.dataset.Table(p.name), append(l.source.columns(), KeyColumn, RemovedColumn))
}

// What tables are called in the statements about a ledger: no column has such a name.
const (
	ledgerAlias = "_tidemark_ledger"
	planAlias   = "_tidemark_plan"
)

// takeSQL selects the rows of a run, with their checksums.
func (l *ledger) takeSQL(take Take) (sql string, parameters []bigquery.QueryParameter, err error) {
	s := &l.source
	body, err := s.body()
	if err != nil {
		return "", nil, err
	}
	columns := s.columns()
	const rows = "_tidemark_rows"
	// Of a key that several rows have all come, lest one of them pass for the only one.
	source := s.selectSQL(body, fmt.Sprintf(", MD5(%s) AS %s, COUNT(*) OVER (PARTITION BY %s) AS %s",
		s.rowSQL(l.schema), checksumColumn, fingerprintSQL(sourceAlias, s.Key), rows))
	if take.All {
		return fmt.Sprintf("SELECT * EXCEPT (%s), FALSE AS %s FROM (%s)", rows, RemovedColumn, source), nil, nil
	}
	list, same := make([]string, len(columns)), make([]string, len(s.Key))
	for i, name := range quoteAll(columns) {
		list[i] = sourceAlias + "." + name
		if containsFold(s.Key, columns[i]) {
			list[i] = fmt.Sprintf("IFNULL(%s.%s, %s.%s)", sourceAlias, name, ledgerAlias, name)
		}
		list[i] += " AS " + name
	}
	for i, name := range quoteAll(s.Key) {
		same[i] = fmt.Sprintf("%s.%s = %s.%s", sourceAlias, name, ledgerAlias, name)
	}
	key, checksum := sourceAlias+"."+KeyColumn, sourceAlias+"."+checksumColumn
	fingerprint := fmt.Sprintf("IFNULL(%s, %s)", key, fingerprintSQL(ledgerAlias, s.Key))
	changed := fmt.Sprintf("%s IS NULL OR %s.%s IS NULL OR %s != %s.%s OR %s.%s > 1",
		key, ledgerAlias, checksumColumn, checksum, ledgerAlias, checksumColumn, sourceAlias, rows)
	switch {
	case take.Only:
		changed, parameters = rejectedSQL(fingerprint), rejectedParameter(take)
	case len(take.Rejected) > 0:
		changed, parameters = changed+" OR "+rejectedSQL(fingerprint), rejectedParameter(take)
	}
	return fmt.Sprintf("SELECT %s, %s AS %s, %s IS NULL AS %s, %s FROM (%s) AS %s FULL JOIN %s AS %s ON %s WHERE %s",
		strings.Join(list, ", "), fingerprint, KeyColumn, key, RemovedColumn, checksum, source, sourceAlias,
		l.path(l.name), ledgerAlias, strings.Join(same, " AND "), changed), parameters, nil
}

// settle moves what a run left behind into the ledger, if it has: nobody knows which of
// its rows are in the target.
func (l *ledger) settle(ctx context.Context, left string) (bytes int64, settled bool, err error) {
	p := plan{ledger: *l, name: l.name + "_plan_" + left}
	md, err := l.dataset.Table(p.name).Metadata(ctx)
	switch {
	case fault.HTTPStatus(err) == http.StatusNotFound:
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("looking at what an earlier run took: %w", err)
	}
	if md.NumRows > 0 {
		if bytes, err = p.move(ctx, Confirmed{}); err != nil {
			return bytes, false, fmt.Errorf("keeping what an earlier run took: %w", err)
		}
	}
	return bytes, true, p.drop(ctx)
}

// Confirm tells the ledger which of the rows that a run took are in the table: what it
// does not tell the next run takes again, all of it if Confirm is never called. It may be
// done again after whatever end (I4). Of other sources than those of ChangesLedger there
// is nothing to confirm.
func (c *Client) Confirm(ctx context.Context, s Source, r *Result, done Confirmed) error {
	if s.Changes != ChangesLedger {
		return nil
	}
	if r.plan == nil {
		return fmt.Errorf("confirming rows of %s: %w", s.Ledger, errDry)
	}
	if r.plan.dropped {
		return nil
	}
	var bytes int64
	var err error
	if len(r.streams) > 0 { // else it took nothing
		bytes, err = r.plan.move(ctx, done)
	}
	r.Bytes += bytes
	if err == nil && r.Whole && !done.Partial {
		bytes, err = r.plan.forget(ctx)
		r.Bytes += bytes
	}
	if refused, ok := errors.AsType[*bigquery.Error](err); ok && refused.Reason == "notFound" {
		err = &fault.Error{Class: fault.Transient, Err: fmt.Errorf("%w: %w", errOvertaken, err)}
	}
	if err == nil && !done.Partial {
		r.next, err = r.plan.end(ctx, r.Whole)
	}
	if err == nil {
		err = r.plan.drop(ctx)
	}
	if err != nil {
		return fmt.Errorf("confirming rows of %s: %w", s.Ledger, err)
	}
	return nil
}

var (
	errDry       = errors.New("a dry run took none")
	errOvertaken = errors.New("another run of the sync has begun since, and takes them again")
)

// move takes every key of the plan into the ledger: with its checksum or, if it is not
// confirmed, without.
func (p *plan) move(ctx context.Context, done Confirmed) (bytes int64, err error) {
	listed, given := "IN", done.Only
	if done.Only == nil && done.Except != nil {
		listed, given = "NOT IN", done.Except
	}
	sql := p.moveSQL(listed)
	for _, span := range spans(given) {
		s := p.ledger.source.statement(sql, []bigquery.QueryParameter{
			{Name: "from", Value: span.from}, {Name: "to", Value: span.to}, {Name: "keys", Value: span.keys},
		})
		// The statement is ours, and valid: what BigQuery calls invalid once it runs is that
		// somebody else changes the same rows.
		ran, err := p.ledger.client.run(ctx, s, "confirm", fault.Transient)
		if r := ran.result(); r != nil {
			bytes += r.Bytes
		}
		if err != nil {
			return bytes, err
		}
	}
	return bytes, nil
}

// moveSQL is the statement of move for the keys whose fingerprints are in a span. A key
// that several rows have is never confirmed, and one that is NULL has no place in a ledger.
func (p *plan) moveSQL(listed string) string {
	names := quoteAll(p.ledger.source.Key)
	same, known := make([]string, len(names)), make([]string, len(names))
	for i, name := range names {
		same[i] = fmt.Sprintf("%s.%s = %s.%s", ledgerAlias, name, planAlias, name)
		known[i] = planAlias + "." + name + " IS NOT NULL"
	}
	of := planAlias + "."
	key := of + strings.Join(names, ", "+of)
	const confirmed = "_tidemark_confirmed"
	rows := fmt.Sprintf("SELECT %s, COUNT(*) = 1 AND LOGICAL_AND(%s %s UNNEST(@keys)) AS %s, LOGICAL_OR(%s) AS %s, ANY_VALUE(%s) AS %s FROM %s AS %s WHERE %s BETWEEN @from AND @to AND %s GROUP BY %s",
		key, of+KeyColumn, listed, confirmed, of+RemovedColumn, RemovedColumn, of+checksumColumn, checksumColumn,
		p.ledger.path(p.name), planAlias, of+KeyColumn, strings.Join(known, " AND "), key)
	gone := of + confirmed + " AND " + of + RemovedColumn
	checksum := fmt.Sprintf("IF(%s, %s, NULL)", of+confirmed, of+checksumColumn)
	return fmt.Sprintf("MERGE %s AS %s USING (%s) AS %s ON %s", p.ledger.path(p.ledger.name), ledgerAlias, rows, planAlias, strings.Join(same, " AND ")) +
		fmt.Sprintf(" WHEN MATCHED AND %s THEN DELETE WHEN MATCHED THEN UPDATE SET %s = %s", gone, checksumColumn, checksum) +
		fmt.Sprintf(" WHEN NOT MATCHED AND NOT (%s) THEN INSERT (%s, %s) VALUES (%s, %s)", gone, strings.Join(names, ", "), checksumColumn, key, checksum)
}

// forget takes keys out of the ledger that a plan of every row does not have: the run has
// compared all of the target. Were they left, the next one would take them for removed, and
// what is one key in the target may be two spellings in BigQuery.
func (p *plan) forget(ctx context.Context) (bytes int64, err error) {
	same := make([]string, len(p.ledger.source.Key))
	for i, name := range quoteAll(p.ledger.source.Key) {
		same[i] = fmt.Sprintf("%s.%s = %s.%s", planAlias, name, ledgerAlias, name)
	}
	done, err := p.ledger.client.run(ctx, p.ledger.source.statement(fmt.Sprintf("DELETE FROM %s AS %s WHERE NOT EXISTS (SELECT 1 FROM %s AS %s WHERE %s)",
		p.ledger.path(p.ledger.name), ledgerAlias, p.ledger.path(p.name), planAlias, strings.Join(same, " AND ")), nil), "forget", fault.Transient)
	if r := done.result(); r != nil {
		bytes = r.Bytes
	}
	return bytes, err
}

// end notes that the run came to its end and, where it was one of every row, that the
// ledger knows every key that the target may have of the source. It returns where the next
// one begins.
func (p *plan) end(ctx context.Context, whole bool) (json.RawMessage, error) {
	var update bigquery.TableMetadataToUpdate
	last := strings.TrimPrefix(p.name, p.ledger.name+"_plan_")
	update.SetLabel(lastLabel, last)
	if whole {
		update.SetLabel(wholeLabel, "yes")
	}
	if _, err := p.ledger.dataset.Table(p.ledger.name).Update(ctx, update, ""); err != nil {
		return nil, fmt.Errorf("noting the end of the run: %w", err)
	}
	next, err := json.Marshal(ledgerPosition{last})
	if err != nil {
		return nil, fmt.Errorf("keeping where the next run begins: %w", err)
	}
	return next, nil
}

// drop drops the plan, of which the ledger knows all.
func (p *plan) drop(ctx context.Context) error {
	err := p.ledger.dataset.Table(p.name).Delete(ctx)
	if err != nil && fault.HTTPStatus(err) != http.StatusNotFound {
		return fmt.Errorf("dropping the plan: %w", err)
	}
	p.dropped = true
	return nil
}

// span is a part of all fingerprints, both ends in it, with those that are listed there.
type span struct {
	from, to int64
	keys     []int64
}

// spans divides all fingerprints so that no part has more listed ones than go with one
// request.
func spans(keys []int64) []span {
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	out := []span{{from: math.MinInt64, to: math.MaxInt64, keys: []int64{}}}
	for part := range slices.Chunk(keys, maxFingerprints) {
		last := &out[len(out)-1]
		if len(last.keys) > 0 {
			last.to = part[0] - 1
			out = append(out, span{from: part[0], to: math.MaxInt64})
			last = &out[len(out)-1]
		}
		last.keys = part
	}
	return out
}

// make makes the ledger, once there is no other of the sync any more.
func (l *ledger) make(ctx context.Context) (*bigquery.TableMetadata, error) {
	if err := l.dropOthers(ctx); err != nil {
		return nil, err
	}
	md := &bigquery.TableMetadata{
		Labels:      map[string]string{"managed-by": "tidemark"},
		Description: "What Tidemark has written of " + l.source.Ledger + ": without it the next run reads every row.",
	}
	var cluster []string
	for _, name := range l.source.Key {
		f := &bigquery.FieldSchema{Name: name, Type: field(l.schema, name).Type}
		md.Schema = append(md.Schema, f)
		if f.Type != bigquery.BytesFieldType && f.Type != bigquery.TimeFieldType && len(cluster) < 4 {
			cluster = append(cluster, name)
		}
	}
	md.Schema = append(md.Schema, &bigquery.FieldSchema{Name: checksumColumn, Type: bigquery.BytesFieldType})
	if len(cluster) > 0 {
		md.Clustering = &bigquery.Clustering{Fields: cluster}
	}
	table := l.dataset.Table(l.name)
	err := table.Create(ctx, md)
	if fault.HTTPStatus(err) == http.StatusNotFound {
		if err := l.makeDataset(ctx); err != nil {
			return nil, err
		}
		err = table.Create(ctx, md)
	}
	if err != nil && fault.HTTPStatus(err) != http.StatusConflict {
		return nil, fmt.Errorf("making it: %w", err)
	}
	made, err := table.Metadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking at it: %w", err)
	}
	return made, nil
}

// makeDataset makes the dataset of the ledgers where the source is.
func (l *ledger) makeDataset(ctx context.Context) error {
	md := &bigquery.DatasetMetadata{
		Location: l.client.config.Location, Labels: map[string]string{"managed-by": "tidemark"},
		Description: "What Tidemark's reverse syncs keep of " + l.source.Dataset + ".",
	}
	if md.Location == "" {
		client, err := l.client.restClient(ctx)
		if err != nil {
			return err
		}
		source, err := client.Dataset(l.source.Dataset).Metadata(ctx)
		if err != nil {
			return fmt.Errorf("looking where %s is: %w", l.source.Dataset, err)
		}
		md.Location = source.Location
	}
	if err := l.dataset.Create(ctx, md); err != nil && fault.HTTPStatus(err) != http.StatusConflict {
		return fmt.Errorf("making dataset %s: %w", l.dataset.DatasetID, err)
	}
	return nil
}

// dropOthers drops the ledgers of the sync's other mappings, and their plans.
func (l *ledger) dropOthers(ctx context.Context) error {
	of := regexp.MustCompile("^" + regexp.QuoteMeta(l.prefix()) + "[0-9a-f]{16}(_plan_[a-z0-9]+)?$")
	for tables := l.dataset.Tables(ctx); ; {
		table, err := tables.Next()
		switch {
		case errors.Is(err, iterator.Done), fault.HTTPStatus(err) == http.StatusNotFound: // nor is there a dataset
			return nil
		case err != nil:
			return fmt.Errorf("looking for its other mappings: %w", err)
		case !of.MatchString(table.TableID) || table.TableID == l.name:
			continue
		}
		if err := table.Delete(ctx); err != nil && fault.HTTPStatus(err) != http.StatusNotFound {
			return fmt.Errorf("dropping %s: %w", table.TableID, err)
		}
	}
}
