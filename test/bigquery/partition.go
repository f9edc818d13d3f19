package bigquery

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	bq "google.golang.org/api/bigquery/v2"
)

// partitioning is the time partitioning of a table by a column.
type partitioning struct {
	column string // empty for none
	kind   kind
	unit   string // HOUR, DAY, MONTH or YEAR
	// filter is true where every query must bound the column.
	filter bool
	// expiration is how long after its end a partition is kept, 0 for ever.
	expiration time.Duration
}

func readPartitioning(meta *bq.Table, fields []field) (partitioning, error) {
	if meta.RangePartitioning != nil {
		return partitioning{}, errUnsupported("partitioning by integer range")
	}
	tp := meta.TimePartitioning
	if tp == nil {
		return partitioning{}, nil
	}
	if tp.Field == "" {
		return partitioning{}, errUnsupported("partitioning by ingestion time")
	}
	i, ok := findField(fields, tp.Field)
	if !ok {
		return partitioning{}, errInvalid("The field specified for time partitioning does not exist in the schema: %s", tp.Field)
	}
	f := fields[i]
	if f.repeated || f.kind != kindDate && f.kind != kindTimestamp && f.kind != kindDatetime {
		return partitioning{}, errInvalid("The field specified for partitioning must be a top-level DATE, TIMESTAMP or DATETIME: %s is %s", f.name, f.sqlType())
	}
	unit := strings.ToUpper(tp.Type)
	switch unit {
	case "DAY", "MONTH", "YEAR":
	case "HOUR":
		if f.kind == kindDate {
			return partitioning{}, errInvalid("A DATE column cannot be partitioned by HOUR: %s", f.name)
		}
	default:
		return partitioning{}, errInvalid("Unsupported time partitioning type: %q", tp.Type)
	}
	expiration, err := readExpiration(tp.ExpirationMs)
	if err != nil {
		return partitioning{}, err
	}
	return partitioning{
		expiration: expiration,
		column:     f.name, kind: f.kind, unit: unit,
		filter: meta.RequirePartitionFilter || tp.RequirePartitionFilter,
	}, nil
}

// layout is the form of a partition's id, in Go's and in DuckDB's terms.
func (p partitioning) layout() (goLayout, duckFormat string) {
	switch p.unit {
	case "HOUR":
		return "2006010215", "%Y%m%d%H"
	case "MONTH":
		return "200601", "%Y%m"
	case "YEAR":
		return "2006", "%Y"
	}
	return "20060102", "%Y%m%d"
}

// idSQL is the DuckDB expression of a row's partition id.
func (p partitioning) idSQL() string {
	_, format := p.layout()
	return fmt.Sprintf("coalesce(strftime(%s, '%s'), '__NULL__')", quoteIdent(p.column), format)
}

// startSQL is the DuckDB expression of the start of a row's partition, which
// costs less than its id.
func (p partitioning) startSQL() string {
	column := quoteIdent(p.column)
	if p.kind == kindTimestamp {
		column = "make_timestamp(epoch_us(" + column + "))"
	}
	return fmt.Sprintf("date_trunc('%s', %s)", strings.ToLower(p.unit), column)
}

// partitionState is what a partition holds.
type partitionState struct{ rows, bytes int64 }

// querier is a DuckDB connection, or any of them.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// partitionStates counts the rows of each partition, and the logical bytes of
// columns in those that keep lets through, all of them where it is nil. It is
// nil for a table without partitions.
func (s *Server) partitionStates(ctx context.Context, q querier, t *table, columns map[string]bool, keep func(partition string) bool) (map[string]partitionState, error) {
	if t.part.column == "" {
		return nil, nil //nolint:nilnil // no partitions
	}
	out := map[string]partitionState{}
	size, where := sumOfSizes(s.fieldsOf(t), columns), ""
	if size != "0" && keep != nil {
		all, err := s.partitionStates(ctx, q, t, nil, nil)
		if err != nil {
			return nil, err
		}
		out, where = all, " WHERE "+t.part.among(all, keep)
	}
	_, format := t.part.layout()
	rows, err := q.QueryContext(ctx, fmt.Sprintf("SELECT coalesce(strftime(p, '%s'), '__NULL__'), n, b FROM (SELECT %s AS p, count(*) AS n, %s AS b FROM %s%s GROUP BY 1)",
		format, t.part.startSQL(), size, t.real(), where))
	if err != nil {
		return nil, duckError(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is checked
	for rows.Next() {
		var id string
		var state partitionState
		if err := rows.Scan(&id, &state.rows, &state.bytes); err != nil {
			return nil, fmt.Errorf("counting partitions: %w", err)
		}
		out[id] = state
	}
	if err := rows.Err(); err != nil {
		return nil, duckError(err)
	}
	return out, nil
}

// among is a DuckDB condition that rows of kept partitions fulfil, and no others.
func (p partitioning) among(all map[string]partitionState, keep func(partition string) bool) string {
	layout, _ := p.layout()
	var starts []string
	conditions := []string{"FALSE"}
	for id := range all {
		start, err := time.Parse(layout, id)
		switch {
		case !keep(id):
		case err != nil: // __NULL__
			conditions = append(conditions, quoteIdent(p.column)+" IS NULL")
		default:
			starts = append(starts, start.Format("TIMESTAMP '2006-01-02 15:04:05'"))
		}
	}
	if len(starts) > 0 {
		conditions = append(conditions, p.startSQL()+" IN ("+strings.Join(starts, ", ")+")")
	}
	return "(" + strings.Join(conditions, " OR ") + ")"
}

// bounds are the first and last microsecond (of DATE: of its days) of the
// partition with this id.
func (p partitioning) bounds(id string) (first, last int64, err error) {
	layout, _ := p.layout()
	start, err := time.Parse(layout, id)
	if err != nil {
		return 0, 0, fmt.Errorf("reading partition id %q: %w", id, err)
	}
	var end time.Time
	switch p.unit {
	case "HOUR":
		end = start.Add(time.Hour)
	case "MONTH":
		end = start.AddDate(0, 1, 0)
	case "YEAR":
		end = start.AddDate(1, 0, 0)
	default:
		end = start.AddDate(0, 0, 1)
	}
	return start.UnixMicro(), end.UnixMicro() - 1, nil
}

// streamBounds are the values, in microseconds, that the Storage Write API
// takes now into the partitioning column: 10 years past to 1 year future.
// https://cloud.google.com/bigquery/docs/write-api-grpc#stream_into_partitioned_tables
func streamBounds(now time.Time) (first, last int64) {
	day := now.UTC().Truncate(24 * time.Hour)
	return day.AddDate(0, 0, -3650).UnixMicro(), day.AddDate(0, 0, 367).UnixMicro() - 1
}

// checkStreamed refuses a row whose partition cannot be streamed to.
func (p partitioning) checkStreamed(b *rowBatch, row int, now time.Time) error {
	if p.column == "" {
		return nil
	}
	i, ok := findField(b.fields, p.column)
	if !ok || !b.vectors[i].set[row] {
		return nil
	}
	at := b.vectors[i].ints[row]
	if p.kind == kindDate {
		at *= microsPerDay
	}
	first, last := streamBounds(now)
	if at < first || at > last {
		return fmt.Errorf("value %s for field %s is outside the allowed bounds: you can only stream to partitions within 3650 days in the past and 366 days in the future relative to the current date",
			datetimeText(at), p.column)
	}
	return nil
}
