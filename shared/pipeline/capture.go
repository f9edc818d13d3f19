package pipeline

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// captureDocument is how a table or a related table is captured, as it is written.
type captureDocument struct {
	Method   Method       `json:"method"`
	Cursor   string       `json:"cursor"`
	Lookback any          `json:"lookback"`
	Log      *logDocument `json:"log"`
}

type logDocument struct {
	Table    string `json:"table"`
	Cursor   string `json:"cursor"`
	Lookback any    `json:"lookback"`
	Object   any    `json:"object"`
	Type     *struct {
		Column string `json:"column"`
		Value  any    `json:"value"`
		Query  string `json:"query"`
	} `json:"type"`
	Action *struct {
		Column  string `json:"column"`
		Added   any    `json:"added"`
		Changed any    `json:"changed"`
		Deleted any    `json:"deleted"`
	} `json:"action"`
}

type relatedDocument struct {
	Table   string          `json:"table"`
	Key     []string        `json:"key"`
	Capture captureDocument `json:"capture"`
	Keys    string          `json:"keys"`
}

// changed is what stands for the changed rows in Related.Keys.
const changed = "{changed}"

// capture reads how a table with that declared key is captured.
func (r *reader) capture(at string, d captureDocument, key []string) Capture {
	c := Capture{Method: d.Method}
	if c.Method == MethodWatermark {
		c.Cursor, c.Lookback = d.Cursor, r.lookback(at+"/lookback", d.Lookback)
	} else {
		r.withoutWatermark(at, d)
	}
	if d.Log == nil {
		return c
	}
	if c.Method == MethodChangelog {
		c.Log = r.log(at+"/log", d.Log, key)
	} else {
		r.problem(at+"/log", fmt.Sprintf("a log goes with the method changelog, and this is %s", d.Method), "leave log out, or write method: changelog")
	}
	return c
}

func (r *reader) withoutWatermark(at string, d captureDocument) {
	remedy := "leave %[1]s out, or write method: watermark"
	if d.Log != nil {
		remedy = "write the %[1]s of the log into log"
	}
	if d.Cursor != "" {
		r.problem(at+"/cursor", fmt.Sprintf("a cursor goes with the method watermark, and this is %s", d.Method), fmt.Sprintf(remedy, "cursor"))
	}
	if d.Lookback != nil {
		r.problem(at+"/lookback", fmt.Sprintf("a lookback goes with the method watermark, and this is %s", d.Method), fmt.Sprintf(remedy, "lookback"))
	}
}

func (r *reader) log(at string, d *logDocument, key []string) *Log {
	log := &Log{Table: d.Table, Cursor: d.Cursor, Lookback: r.lookback(at+"/lookback", d.Lookback), Object: r.texts(at+"/object", d.Object)}
	if len(key) > 0 && len(log.Object) != len(key) {
		r.problem(at+"/object", fmt.Sprintf("log.object and key differ in length: %d and %d", len(log.Object), len(key)), "name a column of the log for each column of key, in its order")
	}
	if t := d.Type; t != nil {
		log.Type = &LogType{Column: t.Column, Value: strings.Join(r.texts(at+"/type/value", t.Value), ""), Query: t.Query}
		switch {
		case t.Value == nil && t.Query == "":
			r.problem(at+"/type", "log.type has neither a value nor a query", "add value: or query:")
		case t.Value != nil && t.Query != "":
			r.problem(at+"/type", "log.type has both a value and a query", "keep one of them")
		case t.Query != "":
			r.statement(at+"/type/query", t.Query, writeSelect)
		}
	}
	if a := d.Action; a != nil {
		log.Action = &LogAction{
			Column: a.Column, Added: r.texts(at+"/action/added", a.Added), Changed: r.texts(at+"/action/changed", a.Changed), Deleted: r.texts(at+"/action/deleted", a.Deleted),
		}
		r.action(at+"/action", log.Action)
	}
	return log
}

// action refuses values that mean two things, and an action without any.
func (r *reader) action(at string, a *LogAction) {
	meaning := map[string]string{}
	for _, list := range []struct {
		name   string
		values []string
	}{{"added", a.Added}, {"changed", a.Changed}, {"deleted", a.Deleted}} {
		for _, value := range list.values {
			if other, twice := meaning[value]; twice {
				r.problem(at+"/"+list.name, fmt.Sprintf("log.action lists %q as %s and as %s", value, other, list.name), "list each value once")
			}
			meaning[value] = list.name
		}
	}
	if len(meaning) == 0 {
		r.problem(at, "log.action lists no value", "add added:, changed: or deleted: with the values of the column")
	}
}

// plain is how a number has to be written to be taken as the text that it is.
var plain = regexp.MustCompile(`^(0|-?[1-9][0-9]*|true|false)$`)

// texts reads a text or a list of texts; numbers and booleans become the text that
// they are written as, or are refused where YAML reads it as another one.
func (r *reader) texts(at string, value any) []string {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		out := make([]string, 0, len(v))
		for i, item := range v {
			out = append(out, r.texts(at+"/"+strconv.Itoa(i), item)...)
		}
		return out
	case string:
		return []string{v}
	}
	literal := r.literals[at]
	if !plain.MatchString(literal) {
		r.problem(at, fmt.Sprintf("%s is read as %v, and is compared as text", literal, value), "put it into quotes")
	}
	return []string{literal}
}

// query checks a table that is a query, and what else makes its rows stale.
func (r *reader) query(at string, t *Table) {
	if t.Query == "" {
		if len(t.AlsoChangedBy) > 0 {
			r.problem(at+"/also_changed_by", "also_changed_by says what makes the rows of a query stale, and this is a table", "leave it out, or add query:")
		}
		return
	}
	r.statement(at+"/query", t.Query, writeSelect)
	if len(t.Key) == 0 {
		r.problem(at, fmt.Sprintf("the query %q has no key", t.Name), "add key: with the columns of the query that name a row")
	}
	switch {
	case t.Capture.Method == MethodWAL:
		r.problem(at+"/capture/method", "a query cannot be captured by wal: a slot follows tables", "capture it by watermark, and name the tables that it joins under also_changed_by")
	case t.Capture.Method == MethodChangelog && t.Capture.Log == nil:
		r.problem(at+"/capture/method", "a query cannot be captured by changelog: it is unclear which table's", "capture it by watermark, and name the tables that it joins under also_changed_by")
	case t.Capture.Method == MethodSnapshot && len(t.AlsoChangedBy) > 0:
		r.problem(at+"/also_changed_by", "a snapshot reads every row anew, whatever has changed", "leave also_changed_by out")
	}
}

// related reads the tables under also_changed_by.
func (r *reader) related(at string, documents []relatedDocument) []Related {
	var out []Related
	seen := map[string]int{}
	for i, d := range documents {
		here := at + "/" + strconv.Itoa(i)
		if line, twice := seen[d.Table]; twice {
			r.problem(here+"/table", fmt.Sprintf("table %q is also under also_changed_by on line %d", d.Table, line), "keep one of them, with a UNION of both in keys")
		}
		seen[d.Table] = r.line(here)
		r.statement(here+"/keys", d.Keys, writeSelect)
		if !strings.Contains(d.Keys, changed) {
			r.problem(here+"/keys", "keys does not look at what has changed", "join it as "+changed+": SELECT o.id FROM orders o JOIN "+changed+" c ON c.id = o.customer_id")
		}
		out = append(out, Related{Table: d.Table, Key: d.Key, Capture: r.capture(here+"/capture", d.Capture, nil), Keys: d.Keys})
	}
	return out
}

// writeSelect is the remedy for a query that holds nothing.
const writeSelect = "write a SELECT"

// statement refuses SQL that could not stand in parentheses; remedy says what to
// write in place of nothing.
func (r *reader) statement(at, sql, remedy string) {
	name := at[strings.LastIndexByte(at, '/')+1:]
	switch {
	case strings.HasSuffix(strings.TrimSpace(sql), ";"):
		r.problem(at, name+" ends in a semicolon", "leave it out: the query becomes a part of others")
	case blank(sql):
		r.problem(at, name+" holds nothing", remedy)
	}
}

// blank reports whether SQL is nothing but white space and comments to the end of a line.
func blank(sql string) bool {
	for line := range strings.Lines(sql) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			return false
		}
	}
	return true
}

// defaultMaxLag is in bytes; the schema documents the same.
const defaultMaxLag = "10GB"

// size reads a number of bytes in MB, GB or TB, as the schema has it.
func (r *reader) size(at, text string) int64 {
	unit := map[string]int64{"MB": 1e6, "GB": 1e9, "TB": 1e12}[text[len(text)-2:]]
	n, err := strconv.ParseInt(text[:len(text)-2], 10, 64)
	if bytes := n * unit; err == nil && bytes/unit == n {
		return bytes
	}
	r.problem(at, fmt.Sprintf("%q is more than can be counted", text), "write for example 500MB, 10GB or 1TB")
	return 0
}
