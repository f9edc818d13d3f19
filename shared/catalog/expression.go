package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// What an expression depends on besides the row, Postgres tells of what is stored in
// its catalogue only, where nothing is written for a look. So it is looked for in the
// words here, leaning to the safe side; that the words are an expression, and of which
// type, Postgres says itself.

// rowOnly refuses what shows in the words of an expression: sub-selects, and
// functions that may have another value for the same row another time.
func (t *Table) rowOnly(ctx context.Context, tx pgx.Tx, sql string) error {
	words := split(sql)
	if !enclosed(words) {
		return fault.Fix(errors.New("it is not one expression: its parentheses do not match, or it has a semicolon"), rowRemedy)
	}
	var called []string
	for i, w := range words {
		var next, previous word
		if i+1 < len(words) {
			next = words[i+1]
		}
		if i > 0 {
			previous = words[i-1]
		}
		if err := t.besidesRow(w, next, previous); err != nil {
			return err
		}
		if w.name && (next.is("(") || previous.is(".") && t.Stored(w.text) == nil) { // t.f is f(t) where there is no such column
			called = append(called, w.text)
		}
	}
	if literal := clockLiteral(sql); literal != "" {
		return fault.Fix(fmt.Errorf("%s means the time of asking where a date is expected", literal), rowRemedy)
	}
	return unstable(ctx, tx, called)
}

// enclosed reports whether the words stay inside of parentheses put around them.
func enclosed(words []word) bool {
	depth := 0
	for _, w := range words {
		switch {
		case w.is("("):
			depth++
		case w.is(")"):
			depth--
		case w.is(";"):
			return false
		}
		if depth < 0 {
			return false
		}
	}
	return depth == 0
}

// besidesRow refuses a word that means something else than the row's values.
func (t *Table) besidesRow(w, next, previous word) error {
	switch {
	case w.names(t.Name) && t.Stored(w.text) == nil && !next.is(".") && !previous.is("."):
		return fault.Fix(fmt.Errorf("it has the whole row of %s, whatever columns that has or will have", t.Name), "name the columns")
	case w.any:
		return fault.Fix(errors.New(`it has a name written as U&"..", which is not worked out`), "write the name itself, in double quotes")
	case w.quoted || previous.is("."):
		return nil
	case w.is("select") || w.is("table") || w.is("values") && next.is("("):
		return fault.Fix(errors.New("it has a sub-select, and what that reads changes without the row"), rowRemedy)
	case slices.Contains(sessionValues(), w.text):
		return fault.Fix(fmt.Errorf("%s is no value of the row", w.text), rowRemedy)
	case slices.Contains(systemColumns(), w.text) && t.Stored(w.text) == nil:
		return fault.Fix(fmt.Errorf("%s says where or when the row was written", w.text), rowRemedy)
	}
	return nil
}

// clockLiteral is a string that a date or time is made of by the clock: 'now',
// 'tomorrow 12:00'. (PostgreSQL manual, 8.5.1.4.)
func clockLiteral(sql string) string {
	for sql != "" {
		rest, ok := skip(sql)
		if !ok {
			_, length := first(sql)
			sql = sql[length:]
			continue
		}
		literal := sql[:len(sql)-len(rest)]
		sql = rest
		if strings.HasPrefix(literal, "--") || strings.HasPrefix(literal, "/*") {
			continue
		}
		words := strings.FieldsFunc(strings.ToLower(literal), func(r rune) bool { return !unicode.IsLetter(r) })
		if len(words) <= 2 && slices.ContainsFunc(words, func(w string) bool { return slices.Contains([]string{"now", "today", "tomorrow", "yesterday"}, w) }) {
			return literal
		}
	}
	return ""
}

// sessionValues are the functions without parentheses. (PostgreSQL manual, 9.9 and 9.27.)
func sessionValues() []string {
	return []string{
		"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp",
		"current_role", "current_user", "session_user", "system_user", "user", "current_catalog", "current_schema",
	}
}

func systemColumns() []string { return []string{"xmin", "xmax", "cmin", "cmax", "ctid"} }

// settled are functions of Postgres that are not immutable only because they depend
// on settings, such as the time zone, which are the same in every read of ours.
func settled() []string {
	return []string{
		"array_to_json", "array_to_string", "concat", "concat_ws", "date", "date_bin", "date_part", "date_trunc", "extract", "format",
		"json_build_array", "json_build_object", "jsonb_build_array", "jsonb_build_object", "make_timestamptz",
		"time", "timestamp", "timestamptz", "timetz", "timezone", "to_char", "to_date", "to_json", "to_jsonb", "to_number", "to_timestamp",
	}
}

const unstableSQL = `
	SELECT DISTINCT proname::text FROM pg_catalog.pg_proc
	 WHERE proname = ANY ($1) AND provolatile <> 'i' AND NOT (pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ($2)) ORDER BY 1`

// unstable refuses functions that are not immutable. It goes by their names: one of
// several that share a name is enough.
func unstable(ctx context.Context, tx pgx.Tx, called []string) error {
	if len(called) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, unstableSQL, called, settled())
	if err != nil {
		return fmt.Errorf("looking for its functions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking for its functions: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	return fault.Fix(fmt.Errorf("%s may have another value for the same row another time", strings.Join(names, ", ")),
		rowRemedy+"; a function of your own that needs nothing but its arguments can be declared IMMUTABLE")
}
