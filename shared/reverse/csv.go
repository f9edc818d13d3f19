package reverse

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/target"
)

const (
	// maxCSVColumns is what a table of Postgres can have.
	maxCSVColumns = 1600
	// maxCSVRow bounds what one row takes of memory: beyond, a quote was never closed.
	maxCSVRow = 64 << 20
	// csvBatchRows and csvBatchBytes bound a record that is handed on.
	csvBatchRows  = 8192
	csvBatchBytes = 4 << 20

	rowRemedy = "correct the file: fields are divided by commas, text with a comma, a quote or a line break is in quotes, and a quote in it is doubled"
)

// csvFile is a CSV file open at its first row: a source like the result of a query,
// whose columns are all STRING. It is RFC 4180 in UTF-8; as in Postgres' own CSV and
// the exports of BigQuery, an empty field is NULL without quotes, and the empty text
// with them.
type csvFile struct {
	Schema   *arrow.Schema // of the columns that the first line names
	Modified time.Time     // when the file was written

	rows  csvRows
	close func() error
}

// openCSV opens a path, or by object what is at gs://bucket/object, and reads the line
// with the names. What gzip has compressed is read as it was, whatever its name is.
// Errors about what is in the file say where, and quote nothing of it.
func openCSV(ctx context.Context, uri string, object func(ctx context.Context, uri string) (io.ReadCloser, time.Time, error)) (*csvFile, error) {
	open := openPath
	if strings.HasPrefix(uri, "gs://") {
		open = func(uri string) (io.ReadCloser, time.Time, error) { return object(ctx, uri) }
	}
	raw, modified, err := open(uri)
	if err != nil {
		return nil, err
	}
	f := &csvFile{Modified: modified, close: raw.Close}
	if err := f.begin(uri, raw); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func openPath(path string) (io.ReadCloser, time.Time, error) {
	file, err := os.Open(path) //nolint:gosec // the operator's own file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, fault.Fix(fmt.Errorf("opening the CSV file: %w", err), "correct the path: it is one on the machine that runs the sync")
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("opening the CSV file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, time.Time{}, errors.Join(fmt.Errorf("opening the CSV file: %w", err), file.Close())
	}
	if info.IsDir() {
		return nil, time.Time{}, errors.Join(fault.Fix(fmt.Errorf("opening the CSV file: %s is a folder", path), "name a file"), file.Close())
	}
	return file, info.ModTime(), nil
}

// begin reads up to the first row.
func (f *csvFile) begin(name string, raw io.Reader) error {
	in := bufio.NewReaderSize(raw, 1<<20)
	// No text of UTF-8 begins like this. (RFC 1952, 2.3.1)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		in = bufio.NewReaderSize(unzipped, 1<<20)
	}
	if mark, err := in.Peek(3); err == nil && string(mark) == "\uFEFF" {
		_, _ = in.Discard(3) // of what is in the buffer
	}
	f.rows = csvRows{name: name, in: in, line: 1}
	return f.header()
}

func (f *csvFile) header() error {
	names, err := f.rows.next()
	if errors.Is(err, io.EOF) {
		return fault.Fix(fmt.Errorf("%s is empty", f.rows.name), "write the names of the columns into the first line")
	}
	if err != nil {
		return err
	}
	fields := make([]arrow.Field, len(names))
	seen := map[string]bool{}
	for i, field := range names {
		name := string(field.text)
		lower := strings.ToLower(name)
		switch {
		case name == "":
			return f.rows.wrong(field.line, fmt.Sprintf("column %d has no name", i+1), "write the names of all columns into the first line")
		case seen[lower]:
			return f.rows.wrong(field.line, fmt.Sprintf("two columns are named %q; upper and lower case are the same", name), "give each column its own name")
		case lower == target.KeyMark || lower == target.RemovedMark:
			return f.rows.wrong(field.line, fmt.Sprintf("the name %q is Tidemark's own", name), "give the column another name")
		}
		seen[lower] = true
		fields[i] = arrow.Field{Name: name, Type: arrow.BinaryTypes.String, Nullable: true}
	}
	f.Schema = arrow.NewSchema(fields, nil)
	f.rows.columns = f.Schema.Fields()
	return nil
}

// Each calls f with the rows that are left, in records that are valid only during the
// call. A row that is no row of the file's columns ends it with an error.
func (f *csvFile) Each(ctx context.Context, do func(arrow.Record) error) error {
	build := array.NewRecordBuilder(memory.DefaultAllocator, f.Schema)
	defer build.Release()
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", f.rows.name, err)
		}
		more, err := f.fill(build)
		if err != nil {
			return err
		}
		record := build.NewRecord()
		if record.NumRows() > 0 {
			err = do(record)
		}
		record.Release()
		if err != nil || !more {
			return err
		}
	}
}

// fill adds rows until it is enough for a record, or reports that there are no more.
func (f *csvFile) fill(build *array.RecordBuilder) (more bool, err error) {
	size := 0
	for range csvBatchRows {
		row, err := f.rows.next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for i, field := range row {
			column, ok := build.Field(i).(*array.StringBuilder)
			if !ok {
				return false, fmt.Errorf("column %d of %s is not built as text", i+1, f.rows.name)
			}
			if field.null {
				column.AppendNull()
			} else {
				column.Append(string(field.text))
			}
			size += len(field.text)
		}
		if size >= csvBatchBytes {
			break
		}
	}
	return true, nil
}

// Close closes the file.
func (f *csvFile) Close() error {
	if err := f.close(); err != nil {
		return fmt.Errorf("closing %s: %w", f.rows.name, err)
	}
	return nil
}

// csvField is a field of a row: valid until the next one is read.
type csvField struct {
	text []byte
	null bool
	line int // where it begins
}

// csvRows reads rows. It is no encoding/csv, which does not tell an empty field with
// quotes from one without, and rewrites line breaks within quotes.
type csvRows struct {
	name    string // of the file
	in      *bufio.Reader
	columns []arrow.Field // nil before the names are read
	line    int           // of what is read next, from 1

	row  []csvField
	text []byte // of all its fields
	ends []int  // of the fields in text
}

// next returns the next row, or io.EOF behind the last. Of several columns, a line with
// nothing in it is no row.
func (c *csvRows) next() ([]csvField, error) {
	for {
		first := c.line
		if _, err := c.in.Peek(1); err != nil {
			return nil, c.ended(err)
		}
		if err := c.read(); err != nil {
			return nil, err
		}
		if len(c.row) == 1 && c.row[0].null && len(c.columns) > 1 {
			continue
		}
		start := 0
		for i, end := range c.ends {
			c.row[i].text = c.text[start:end]
			start = end
		}
		return c.row, c.check(first)
	}
}

// ended is what an error of the file comes to between two rows.
func (c *csvRows) ended(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("reading %s: %w", c.name, err)
}

// check holds a row to the columns of the file.
func (c *csvRows) check(line int) error {
	if c.columns != nil && len(c.row) != len(c.columns) {
		return c.wrong(line, fmt.Sprintf("the row has %d fields, and there are %d columns", len(c.row), len(c.columns)), rowRemedy)
	}
	for i, field := range c.row {
		switch {
		case !utf8.Valid(field.text):
			return c.wrong(field.line, c.column(i)+" is no text of UTF-8", "save the file as UTF-8")
		case bytes.IndexByte(field.text, 0) >= 0:
			return c.wrong(field.line, c.column(i)+" has a character of code 0, which Postgres cannot store", "take it out of the file")
		}
	}
	return nil
}

// column names the column of a field of the row.
func (c *csvRows) column(i int) string {
	if i < len(c.columns) {
		return "column " + strconv.Quote(c.columns[i].Name)
	}
	return "field " + strconv.Itoa(i+1)
}

func (c *csvRows) wrong(line int, what, remedy string) error {
	return fault.Fix(fmt.Errorf("%s:%d: %s", c.name, line, what), remedy)
}

// read reads the fields of one row, up to the end of its line.
func (c *csvRows) read() error {
	c.row, c.text, c.ends = c.row[:0], c.text[:0], c.ends[:0]
	for {
		c.row = append(c.row, csvField{line: c.line})
		last, err := c.field(&c.row[len(c.row)-1])
		if err != nil {
			return err
		}
		c.ends = append(c.ends, len(c.text))
		if last {
			return nil
		}
		if len(c.row) == maxCSVColumns {
			return c.wrong(c.row[0].line, fmt.Sprintf("the row has more than %d fields, and a table has no more columns", maxCSVColumns), "leave out columns that are not mapped")
		}
	}
}

// field reads a field with what divides it from the next, and reports whether it was
// the last of the line.
func (c *csvRows) field(f *csvField) (last bool, err error) {
	b, err := c.in.ReadByte()
	if err == nil && b == '"' {
		if err := c.quoted(f); err != nil {
			return false, err
		}
		if b, err = c.in.ReadByte(); err == nil && b != ',' && b != '\n' && b != '\r' {
			return false, c.wrong(c.line, c.column(len(c.row)-1)+" goes on after its closing quote", rowRemedy)
		}
		return c.divided(b, err)
	}
	start := len(c.text)
	for err == nil && b != ',' && b != '\n' && b != '\r' {
		if b == '"' {
			return false, c.wrong(c.line, c.column(len(c.row)-1)+" has a quote and does not begin with one", rowRemedy)
		}
		c.text = append(c.text, b)
		if len(c.text) > maxCSVRow {
			return false, c.tooLarge(c.row[0].line)
		}
		b, err = c.in.ReadByte()
	}
	f.null = len(c.text) == start
	return c.divided(b, err)
}

// divided takes what was read behind a field.
func (c *csvRows) divided(b byte, err error) (last bool, _ error) {
	switch {
	case errors.Is(err, io.EOF):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("reading %s: %w", c.name, err)
	case b == ',':
		return false, nil
	case b == '\r':
		if next, err := c.in.ReadByte(); err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("reading %s: %w", c.name, err)
		} else if err != nil || next != '\n' {
			return false, c.wrong(c.line, "a carriage return stands outside of quotes and ends no line", "end lines with \\n or \\r\\n, or put the field in quotes")
		}
	}
	c.line++
	return true, nil
}

// quoted reads up to the closing quote, what is before it included.
func (c *csvRows) quoted(f *csvField) error {
	for {
		part, err := c.in.ReadSlice('"')
		c.text = append(c.text, part...)
		c.line += bytes.Count(part, []byte{'\n'})
		switch {
		case len(c.text) > maxCSVRow:
			return c.tooLarge(c.row[0].line)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return c.wrong(f.line, c.column(len(c.row)-1)+" begins with a quote that is never closed", rowRemedy)
		case err != nil:
			return fmt.Errorf("reading %s: %w", c.name, err)
		}
		if next, _ := c.in.Peek(1); string(next) != `"` { // an error of the file comes back with the next byte
			c.text = c.text[:len(c.text)-1]
			return nil
		}
		_, _ = c.in.Discard(1) // the other half of a doubled quote
	}
}

func (c *csvRows) tooLarge(line int) error {
	return c.wrong(line, fmt.Sprintf("the row that begins here is larger than %d MB", maxCSVRow>>20), "close its quotes, or leave out what is so large")
}
