package warehouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Changes says how the rows of a source are found that have changed.
type Changes uint8

// The ways to find changes. What is their own stands in a file of their own.
const (
	ChangesFull    Changes = iota // every row, every time
	ChangesCursor                 // see cursor.go
	ChangesAppends                // see appends.go
	ChangesLedger                 // see ledger.go
)

// String returns the way as pipeline files have it.
func (c Changes) String() string { return [...]string{"full", "cursor", "appends", "ledger"}[c] }

// Source is what a reverse sync reads. Either Query or From is set. Names of columns are
// as the query has them; case does not matter.
type Source struct {
	Dataset string // where names without one are looked up
	Query   string // one SELECT in GoogleSQL, which may end in a semicolon and in comments
	From    string // table, dataset.table or project.dataset.table

	Key     []string // the columns that name a row
	Columns []string // the further ones that are read; a column may be in both

	Changes  Changes
	Cursor   string        // of ChangesCursor: a column, which need not be among those read
	Lookback time.Duration // of ChangesCursor, where it is a date or a time: how late a row may come
	// Ledger, of ChangesLedger, names the sync among all whose ledgers are in the dataset
	// that is called as Dataset is, with _ledger.
	Ledger string
	// Mapping is a fingerprint of what is written where: what an earlier run kept by
	// another is not used.
	Mapping string
	Labels  map[string]string // of every job
}

// Columns that a selection adds to those of the source.
const (
	// KeyColumn is an INT64 fingerprint of the key: what a row is called by in Take and
	// in Confirmed. Two keys have one by chance, in one of 2^64 pairs: whoever is given
	// it then reads, or leaves out, both.
	KeyColumn = "_tidemark_key"
	// RemovedColumn is, of ChangesLedger, a BOOL: the key is not in the source any more.
	// Of such a row no other columns are known than those of the key.
	RemovedColumn = "_tidemark_removed"
)

// sourceAlias is what a source is called in the statement around it.
const sourceAlias = "_tidemark_source"

// Take is which rows one run takes: those that have changed since another one, unless it
// says otherwise.
type Take struct {
	All bool // every row
	// After is Result.Next of the run before. Where it is nil, or of another source,
	// mapping or way to find changes, every row is taken.
	After json.RawMessage
	// Rejected are fingerprints of keys whose rows are taken besides, changed or not. To
	// find them the whole source is read.
	Rejected []int64
	Only     bool // take the rows of Rejected, and no others
	// Dry takes rows that will not be written: no trace of it is kept.
	Dry bool
}

// maxFingerprints is how many fingerprints go with one request, which BigQuery takes up
// to 10 MB of: each is some 33 bytes.
const maxFingerprints = 200_000

// Select reads the rows that a run takes: the columns of the source, each once, in the
// order of Key and Columns, then KeyColumn and, of ChangesLedger, RemovedColumn. It takes
// more rows than asked for where it cannot tell those that have changed: all of them,
// which Result.Whole says. A result that comes with an error says what ran.
//
// Rows whose key is NULL, or that share their key, are all in it.
func (c *Client) Select(ctx context.Context, s Source, take Take) (*Result, error) {
	if len(take.Rejected) > maxFingerprints {
		take.All = true
	}
	if take.All {
		take.Only = false
	}
	switch s.Changes {
	case ChangesFull:
		return c.selectFull(ctx, s, take)
	case ChangesCursor:
		return c.selectCursor(ctx, s, take)
	case ChangesAppends:
		return c.selectAppends(ctx, s, take)
	case ChangesLedger:
		return c.selectLedger(ctx, s, take)
	}
	return nil, fmt.Errorf("selecting rows: %d is no way to find changes", s.Changes)
}

func (c *Client) selectFull(ctx context.Context, s Source, take Take) (*Result, error) {
	body, err := s.body()
	if err != nil {
		return nil, err
	}
	where, parameters := s.only(take)
	r, _, err := c.query(ctx, s.statement(s.selectSQL(body, "")+where, parameters))
	if r != nil {
		r.Whole = !take.Only
	}
	return r, err
}

// Count is how many rows a source has, and how many bytes it took to count them.
func (c *Client) Count(ctx context.Context, s Source) (rows, bytes int64, err error) {
	body, err := s.body()
	if err != nil {
		return 0, 0, err
	}
	done, err := c.run(ctx, s.statement("SELECT COUNT(*) FROM "+body, nil), "count", fault.Permanent)
	if err != nil {
		return 0, 0, fmt.Errorf("counting the rows of the source: %w", err)
	}
	value, err := oneValue(ctx, done.job)
	if err != nil {
		return 0, 0, fmt.Errorf("counting the rows of the source: %w", err)
	}
	rows, ok := value.(int64)
	if !ok {
		return 0, 0, fmt.Errorf("counting the rows of the source: it came as %T", value)
	}
	return rows, done.result().Bytes, nil
}

// Next is where the next run begins, for Take.After, once every row of this one is in
// the table: it is known when Each has come to the end. It is nil where there is no such
// place.
func (r *Result) Next() json.RawMessage {
	if r.cursor != nil {
		return r.cursor.next()
	}
	return r.next
}

func (s *Source) statement(sql string, parameters []bigquery.QueryParameter) statement {
	return statement{dataset: s.Dataset, sql: sql, parameters: parameters, labels: s.Labels}
}

// columns are those that are read, each once.
func (s *Source) columns() []string {
	var out []string
	for _, name := range slices.Concat(s.Key, s.Columns) {
		if !containsFold(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func containsFold(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// body is the source for a FROM clause. A query keeps lines of its own, so that what
// BigQuery says of a line is easily found, and a comment at its end ends with it.
func (s *Source) body() (string, error) {
	if s.Query == "" {
		return quote(s.From) + " AS " + sourceAlias, nil
	}
	text, err := unterminated(s.Query)
	if err != nil {
		return "", err
	}
	return "(\n" + text + "\n) AS " + sourceAlias, nil
}

// selectSQL selects the columns of the source, and their key's fingerprint; further ones
// are given with a comma before each.
func (s *Source) selectSQL(body, further string) string {
	list := append(columnsSQL(sourceAlias, s.columns()), fingerprintSQL(sourceAlias, s.Key)+" AS "+KeyColumn)
	return "SELECT " + strings.Join(list, ", ") + further + " FROM " + body
}

// only is the condition of the rows to be read again where no others are.
func (s *Source) only(take Take) (where string, parameters []bigquery.QueryParameter) {
	if !take.Only {
		return "", nil
	}
	return " WHERE " + rejectedSQL(fingerprintSQL(sourceAlias, s.Key)), rejectedParameter(take)
}

func rejectedSQL(fingerprint string) string { return fingerprint + " IN UNNEST(@rejected)" }

func rejectedParameter(take Take) []bigquery.QueryParameter {
	return []bigquery.QueryParameter{{Name: "rejected", Value: append([]int64{}, take.Rejected...)}}
}

// encodedSQL is the text of a row's fields that is the same for the same values, and no
// other: BigQuery alone makes it. (GoogleSQL: JSON encodings.)
func encodedSQL(fields []string) string {
	return "TO_JSON_STRING(STRUCT(" + strings.Join(fields, ", ") + "))"
}

// rowSQL is the text of a whole row. It tells the null of a JSON from NULL, which their
// encodings do not.
func (s *Source) rowSQL(schema bigquery.Schema) string {
	fields := columnsSQL(sourceAlias, s.columns())
	for _, name := range s.columns() {
		if f := field(schema, name); f.Type == bigquery.JSONFieldType && !f.Repeated {
			fields = append(fields, sourceAlias+"."+quote(name)+" IS NULL")
		}
	}
	return encodedSQL(fields)
}

func columnsSQL(alias string, columns []string) []string {
	out := make([]string, len(columns))
	for i, name := range quoteAll(columns) {
		out[i] = alias + "." + name + " AS " + name
	}
	return out
}

func fingerprintSQL(alias string, key []string) string {
	return "FARM_FINGERPRINT(" + encodedSQL(columnsSQL(alias, key)) + ")"
}

// origin tells the source, and what is written from it, from any other.
func (s *Source) origin() string {
	return shortHash(s.Changes.String(), s.Dataset, s.Query, s.From, s.Mapping, s.Cursor)
}

// shortHash tells lists of texts apart.
func shortHash(parts ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return hex.EncodeToString(sum[:8])
}

// unterminated is a query without the semicolon at its end. What follows that is a
// comment, or a second statement, which is refused.
func unterminated(sql string) (string, error) {
	end := -1
	for i := 0; i < len(sql); {
		width, blank := lexeme(sql[i:])
		switch {
		case sql[i] == ';' && end < 0:
			end = i
		case end >= 0 && !blank && sql[i] != ';':
			return "", fault.Fix(errors.New("the query has several statements"), oneSelect)
		}
		i += width
	}
	if end < 0 {
		return sql, nil
	}
	return sql[:end], nil
}

// lexeme measures what SQL begins with: a comment, a literal or a quoted name as a whole,
// else one byte. blank says that it is a comment or a space. (GoogleSQL: lexical
// structure.)
func lexeme(sql string) (width int, blank bool) {
	until := func(end string, from int) int {
		if n := strings.Index(sql[from:], end); n >= 0 {
			return from + n + len(end)
		}
		return len(sql)
	}
	switch {
	case strings.HasPrefix(sql, "--"), sql[0] == '#':
		return until("\n", 1), true
	case strings.HasPrefix(sql, "/*"):
		return until("*/", 2), true
	case strings.HasPrefix(sql, `"""`), strings.HasPrefix(sql, "'''"):
		return quoted(sql, sql[:3]), false
	case sql[0] == '"', sql[0] == '\'', sql[0] == '`':
		return quoted(sql, sql[:1]), false
	}
	return 1, strings.ContainsRune(" \t\r\n\f\v", rune(sql[0]))
}

// quoted measures a literal between two of the quote. A backslash keeps the next byte
// from ending it, in raw literals too.
func quoted(sql, quote string) int {
	for i := len(quote); i < len(sql); i++ {
		switch {
		case sql[i] == '\\':
			i++
		case strings.HasPrefix(sql[i:], quote):
			return i + len(quote)
		}
	}
	return len(sql)
}
