package warehouse

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/bigquery"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// By its own history a run takes the rows that were appended to a table, as they were
// appended: of several with one key the newest. What is updated or deleted in place is
// not in that history. It is for tables to which rows are only ever added.

// appendsOverlap is how far a window of the history reaches back into the one before. A
// row of a pending or buffered stream of the Storage Write API may be given another time
// as long as it is in the streaming buffer, some 90 minutes. Rows that come twice change
// nothing. (GoogleSQL: APPENDS, limitations.)
const appendsOverlap = 2 * time.Hour

// travelMargin is how long before it ends the history is not relied upon any more: the
// query may wait that long.
const travelMargin = 6 * time.Hour

// The time travel of a dataset that says nothing of its own, and the least that one can
// have. (BigQuery: time travel.)
const (
	defaultTravel = 7 * 24 * time.Hour
	leastTravel   = 2 * 24 * time.Hour
)

// appendsPosition is a place in the history of a table.
type appendsPosition struct {
	Origin  string    `json:"origin"`
	Created int64     `json:"created"` // when the table was, in milliseconds: another one of its name has another
	Until   time.Time `json:"until"`   // what was appended before it has been read
}

func (c *Client) selectAppends(ctx context.Context, s Source, take Take) (*Result, error) {
	checked, err := c.check(ctx, &s)
	if err != nil {
		return nil, err
	}
	if err := s.checkTypes(checked.schema); err != nil {
		return nil, err
	}
	table, err := c.source(ctx, &s)
	if err != nil {
		return nil, err
	}
	at := appendsPosition{Origin: s.origin(), Created: table.created.UnixMilli()}
	after, ok := readPosition[appendsPosition](take.After)
	start := time.Time{}
	if ok {
		start = after.Until.Add(-appendsOverlap)
	}
	within := ok && after.Origin == at.Origin && after.Created == at.Created && start.After(checked.at.Add(travelMargin-table.travel))
	var sql string
	parameters := rejectedParameter(take)
	body := quote(s.From) + " AS " + sourceAlias
	switch {
	case take.Only:
		where, _ := s.only(take)
		sql = s.selectSQL(body, "") + where
	case take.All || !within:
		sql, parameters = s.selectSQL(body, ""), nil
	default:
		sql = s.appendedSQL(checked.schema, len(take.Rejected) > 0)
		parameters = append(parameters, bigquery.QueryParameter{Name: "start", Value: start})
	}
	r, done, err := c.query(ctx, s.statement(sql, parameters))
	if err != nil {
		return r, err
	}
	if r.next = take.After; !take.Only {
		r.Whole = parameters == nil
		at.Until = done.status.Statistics.CreationTime.UTC()
		if r.next, err = json.Marshal(at); err != nil {
			return r, fmt.Errorf("keeping where the next run begins: %w", err)
		}
	}
	return r, nil
}

// appendedSQL selects what was appended since @start and, on demand, the rows to be read
// again as they are in the table, unless newer ones of their keys are among the first.
// Rows that are alike in all columns are one.
func (s *Source) appendedSQL(schema bigquery.Schema, again bool) string {
	const at = "_tidemark_at"
	rows := s.selectSQL(fmt.Sprintf("APPENDS(TABLE %s, @start, NULL) AS %s", quote(s.From), sourceAlias),
		fmt.Sprintf(", %s._CHANGE_TIMESTAMP AS %s", sourceAlias, at))
	if again {
		rows += " UNION ALL " + s.selectSQL(quote(s.From)+" AS "+sourceAlias, ", TIMESTAMP '0001-01-01 00:00:00+00' AS "+at) + " WHERE " + rejectedSQL(fingerprintSQL(sourceAlias, s.Key))
	}
	names := strings.Join(quoteAll(append(s.columns(), KeyColumn)), ", "+sourceAlias+".")
	newest := sourceAlias + "." + at + " DESC"
	key := encodedSQL(columnsSQL(sourceAlias, s.Key)) // not its fingerprint: another key's row would hide one
	return fmt.Sprintf("SELECT %[1]s.%[2]s FROM (%[3]s) AS %[1]s WHERE TRUE QUALIFY RANK() OVER (PARTITION BY %[4]s ORDER BY %[5]s) = 1 AND ROW_NUMBER() OVER (PARTITION BY %[4]s, %[6]s ORDER BY %[5]s) = 1",
		sourceAlias, names, rows, key, newest, s.rowSQL(schema))
}

// sourceTable is what has to be known of a table to read its history.
type sourceTable struct {
	created time.Time
	travel  time.Duration // how long its history is kept
}

// source looks at the table that the source is.
func (c *Client) source(ctx context.Context, s *Source) (sourceTable, error) {
	var out sourceTable
	client, err := c.restClient(ctx)
	if err != nil {
		return out, err
	}
	dataset, name := client.Dataset(s.Dataset), s.From
	if n := strings.LastIndex(s.From, "."); n >= 0 {
		name = s.From[n+1:]
		dataset = client.Dataset(s.From[:n])
		if n := strings.LastIndex(s.From[:n], "."); n >= 0 {
			dataset = client.DatasetInProject(s.From[:n], s.From[n+1:len(s.From)-len(name)-1])
		}
	}
	md, err := dataset.Table(name).Metadata(ctx)
	if err != nil {
		return out, fmt.Errorf("looking at %s: %w", s.From, err)
	}
	if md.Type != bigquery.RegularTable {
		return out, fault.Fix(fmt.Errorf("%s is a %s, of which BigQuery keeps no history", s.From, md.Type), "read a table, or choose other changes than appends")
	}
	out = sourceTable{created: md.CreationTime, travel: defaultTravel}
	within, err := dataset.Metadata(ctx)
	switch {
	case unseen(err): // one may be let read a table, and not look at its dataset
		out.travel = leastTravel
	case err != nil:
		return out, fmt.Errorf("looking at the dataset of %s: %w", s.From, err)
	case within.MaxTimeTravel > 0:
		out.travel = within.MaxTimeTravel
	}
	return out, nil
}
