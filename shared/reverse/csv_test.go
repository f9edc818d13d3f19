package reverse

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// null stands for NULL in what was read.
const null = "<NULL>"

// object is a reader of Cloud Storage in which there is one object, and how often it
// was closed.
type object struct {
	text   io.Reader
	closed int
}

func (o *object) Read(p []byte) (int, error) { return o.text.Read(p) }

func (o *object) Close() error {
	o.closed++
	return nil
}

func written() time.Time { return time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC) }

func (o *object) open(context.Context, string) (io.ReadCloser, time.Time, error) {
	return o, written(), nil
}

// readCSV is the names of the columns and the rows of a file.
func readCSV(ctx context.Context, text io.Reader) ([][]string, error) {
	o := &object{text: text}
	f, err := openCSV(ctx, "gs://bucket/names.csv", o.open)
	if err != nil {
		if o.closed != 1 {
			return nil, errors.New("a file that is refused stays open")
		}
		return nil, err
	}
	var names []string
	for _, field := range f.Schema.Fields() {
		names = append(names, field.Name)
	}
	out := [][]string{names}
	err = f.Each(ctx, func(record arrow.Record) error {
		if record.NumRows() == 0 {
			return errors.New("a record has no rows")
		}
		for i := range int(record.NumRows()) {
			row := make([]string, record.NumCols())
			for j := range row {
				column, ok := record.Column(j).(*array.String)
				switch {
				case !ok:
					return errors.New("a column is no text")
				case column.IsNull(i):
					row[j] = null
				default:
					row[j] = column.Value(i)
				}
			}
			out = append(out, row)
		}
		return nil
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if o.closed != 1 {
		return nil, errors.New("the file was not closed once")
	}
	return out, nil
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCSV: what is in a file, whatever the pieces it comes in.
func TestCSV(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 2<<20) // beyond any buffer
	for name, test := range map[string]struct {
		text string
		want [][]string
	}{
		"no rows":                       {"a,b\n", [][]string{{"a", "b"}}},
		"no end of the line":            {"a,b", [][]string{{"a", "b"}}},
		"rows":                          {"a,b\n1,2\n3,4\n", [][]string{{"a", "b"}, {"1", "2"}, {"3", "4"}}},
		"no end of the last line":       {"a,b\n1,2", [][]string{{"a", "b"}, {"1", "2"}}},
		"an empty field at the end":     {"a,b\n1,", [][]string{{"a", "b"}, {"1", null}}},
		"a quoted one at the end":       {"a,b\n1,\"\"", [][]string{{"a", "b"}, {"1", ""}}},
		"lines of Windows":              {"a,b\r\n1,2\r\n3,4\r\n", [][]string{{"a", "b"}, {"1", "2"}, {"3", "4"}}},
		"lines of both":                 {"a,b\n1,2\r\n3,4\n", [][]string{{"a", "b"}, {"1", "2"}, {"3", "4"}}},
		"NULL and empty":                {"a,b\n,\"\"\n\"\",\n", [][]string{{"a", "b"}, {null, ""}, {"", null}}},
		"NULL in one column":            {"a\n\n\"\"\nx\n", [][]string{{"a"}, {null}, {""}, {"x"}}},
		"lines without anything":        {"a,b\n\n1,2\r\n\r\n\n", [][]string{{"a", "b"}, {"1", "2"}}},
		"quotes":                        {"\"a\",b\n\"x,y\",\"say \"\"so\"\"\"\n\"\"\"\",\"\n\r\n,\"\n", [][]string{{"a", "b"}, {"x,y", `say "so"`}, {`"`, "\n\r\n,"}}},
		"white space":                   {" a ,b\n 1 , \n", [][]string{{" a ", "b"}, {" 1 ", " "}}},
		"the end of data of Postgres":   {"a\n\\.\n\\N\n", [][]string{{"a"}, {`\.`}, {`\N`}}},
		"a byte order mark":             {"\uFEFFa,b\n1,2\n", [][]string{{"a", "b"}, {"1", "2"}}},
		"one before quotes":             {"\uFEFF\"a\",b\n\uFEFF1,2\n", [][]string{{"a", "b"}, {"\uFEFF1", "2"}}},
		"names in other scripts":        {"größe,名前\n1,2\n", [][]string{{"größe", "名前"}, {"1", "2"}}},
		"a name over two lines":         {"\"a\nb\",c\n1,2\n", [][]string{{"a\nb", "c"}, {"1", "2"}}},
		"long fields":                   {"a,b\n" + long + ",\"" + long + "\"\n", [][]string{{"a", "b"}, {long, long}}},
		"compressed":                    {zipped(t, "\uFEFFa,b\n1,2\n"), [][]string{{"a", "b"}, {"1", "2"}}},
		"compressed in parts":           {zipped(t, "a,b\n1,") + zipped(t, "2\n"), [][]string{{"a", "b"}, {"1", "2"}}},
		"as many columns as can be had": {header(1599) + ",x\n", [][]string{append(strings.Split(header(1599), ","), "x")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			readers := []io.Reader{strings.NewReader(test.text), iotest.DataErrReader(strings.NewReader(test.text))}
			if len(test.text) < 1000 {
				readers = append(readers, iotest.OneByteReader(strings.NewReader(test.text)))
			}
			for _, r := range readers {
				got, err := readCSV(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("%T (-want +got):\n%.2000s", r, diff)
				}
			}
		})
	}
}

// header names that many columns.
func header(columns int) string {
	names := make([]string, columns)
	for i := range names {
		names[i] = "c" + strconv.Itoa(i)
	}
	return strings.Join(names, ",")
}

// TestCSVRefuses: what is no such file is an error that says where and what to do, and
// quotes no data.
func TestCSVRefuses(t *testing.T) {
	t.Parallel()
	const remedied = "; correct the file: fields are divided"
	for name, test := range map[string]struct{ text, want string }{
		"nothing":                   {"", "gs://bucket/names.csv is empty; write the names"},
		"a byte order mark alone":   {"\uFEFF", "gs://bucket/names.csv is empty; write the names"},
		"no first line":             {"\na,b\n", ":1: column 1 has no name; write the names of all"},
		"a column without a name":   {"a,,c\n", ":1: column 2 has no name; write the names of all"},
		"one with an empty name":    {"a,\"\"\n", ":1: column 2 has no name; write the names of all"},
		"a name twice":              {"\"x\ny\",Mail,mAIL\n", `:2: two columns are named "mAIL"; upper and lower case are the same; give each`},
		"a name of Tidemark's":      {"a,_TideMark_key\n", `:1: the name "_TideMark_key" is Tidemark's own; give the column another`},
		"too many columns":          {header(1601) + "\n", ":1: the row has more than 1600 fields, and a table has no more columns; leave out"},
		"commas without end":        {"a,b\n" + strings.Repeat(",", 1<<20), ":2: the row has more than 1600 fields, and a table has no more columns; leave out"},
		"too few fields":            {"a,b,c\n1,2,3\nsecret,secret\n", ":3: the row has 2 fields, and there are 3 columns" + remedied},
		"too many fields":           {"a,b\n1,\"\n\n\"\n3,secret,5\n", ":5: the row has 3 fields, and there are 2 columns" + remedied},
		"a row over lines":          {"a,b\n\"secret\n\n\"\n", ":2: the row has 1 fields, and there are 2 columns" + remedied},
		"a quote in a field":        {"a,b\n1,sec\"ret\n", `:2: column "b" has a quote and does not begin with one` + remedied},
		"more behind a quote":       {"a,b\n1,2\n\"secret\"x,1\n", `:3: column "a" goes on after its closing quote` + remedied},
		"a quote in a quote":        {"a,b\n\"sec\"ret\",1\n", `:2: column "a" goes on after its closing quote` + remedied},
		"a field too many, quoted":  {"a,b\n1,2,\"x\"secret\n", `:2: field 3 goes on after its closing quote` + remedied},
		"a quote that stays open":   {"a,b\n1,2\n\n3,\"secret\n\n\n", `:4: column "b" begins with a quote that is never closed` + remedied},
		"one in the names":          {"a,\"secret\n", `:1: field 2 begins with a quote that is never closed` + remedied},
		"Latin 1":                   {"a,b\n1,2\n\"x\n\",secret\xe9\n", `:4: column "b" is no text of UTF-8; save the file as UTF-8`},
		"Latin 1 in the names":      {"a,secret\xe9\n", `:1: field 2 is no text of UTF-8; save the file as UTF-8`},
		"UTF-16":                    {"\xff\xfea\x00,\x00", `:1: field 1 is no text of UTF-8; save the file as UTF-8`},
		"half a character":          {"a\n\xf0\x9f\x98\n", `:2: column "a" is no text of UTF-8; save the file as UTF-8`},
		"a surrogate":               {"a\n\xed\xa0\x80\n", `:2: column "a" is no text of UTF-8; save the file as UTF-8`},
		"code 0 at the beginning":   {"a,b\n\x00,x\n", `:2: column "a" has a character of code 0, which Postgres cannot store; take it out`},
		"a character of code 0":     {"a,b\nsecret,x\x00\n", `:2: column "b" has a character of code 0, which Postgres cannot store; take it out`},
		"lines of old Macs":         {"a,b\r1,2\r", ":1: a carriage return stands outside of quotes and ends no line; end lines with"},
		"a carriage return":         {"a,b\n1,sec\rret\n", ":2: a carriage return stands outside of quotes and ends no line; end lines with"},
		"a carriage return, quoted": {"a,b\n1,\"x\"\rsecret\n", ":2: a carriage return stands outside of quotes and ends no line; end lines with"},
		"a carriage return at last": {"a,b\n1,2\r", ":2: a carriage return stands outside of quotes and ends no line; end lines with"},
		"a row that never ends":     {"a,b\n1,2\n\"" + strings.Repeat("secret\n", maxCSVRow/7+1), ":3: the row that begins here is larger than 64 MB; close its quotes"},
		"a line that never ends":    {"a,b\n1,2\n" + strings.Repeat("secret ", maxCSVRow/7+1), ":3: the row that begins here is larger than 64 MB; close its quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := readCSV(t.Context(), strings.NewReader(test.text))
			if err == nil {
				t.Fatal("accepted")
			}
			class, remedy := fault.Classify(err)
			if got := err.Error() + "; " + remedy; class != fault.Permanent || !strings.HasPrefix(strings.TrimPrefix(got, "gs://bucket/names.csv"), strings.TrimPrefix(test.want, "gs://bucket/names.csv")) {
				t.Errorf("got %s (%s), want %s", got, class, test.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes data: %v", err)
			}
		})
	}
}

// TestCSVInterrupted: what fails while it is read is no end of the file.
func TestCSVInterrupted(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	for _, text := range []string{"", "a,b\n", "a,b\n1,2\n", "a,b\n1,2", "a,b\n1,\"x", "a,b\n1,\"x\"", "a,b\r"} {
		if _, err := readCSV(t.Context(), io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("%q, then cut off: %v", text, err)
		}
	}
	whole := zipped(t, "a,b\n"+strings.Repeat("1,2\n", 1000))
	for _, at := range []int{5, len(whole) / 2, len(whole) - 1} {
		if _, err := readCSV(t.Context(), strings.NewReader(whole[:at])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes compressed: %v", at, len(whole), err)
		}
	}
	if _, err := readCSV(t.Context(), strings.NewReader(whole[:len(whole)-8]+"12345678")); !errors.Is(err, gzip.ErrChecksum) {
		t.Errorf("compressed with a wrong checksum: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readCSV(ctx, strings.NewReader("a,b\n1,2\n")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	stop := errors.New("enough")
	f, err := openCSV(t.Context(), "gs://b/o", (&object{text: strings.NewReader("a\n1\n")}).open)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Each(t.Context(), func(arrow.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}

// TestCSVRecords: a record is no larger than it has to be for the memory there is.
func TestCSVRecords(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want []int64
	}{
		"many rows":  {"a\n" + strings.Repeat("1\n", 2*csvBatchRows+1), []int64{csvBatchRows, csvBatchRows, 1}},
		"large rows": {"a,b\n" + strings.Repeat("1,"+strings.Repeat("x", csvBatchBytes/2)+"\n", 3), []int64{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := openCSV(t.Context(), "gs://b/o", (&object{text: strings.NewReader(test.text)}).open)
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			if err := f.Each(t.Context(), func(record arrow.Record) error {
				got = append(got, record.NumRows())
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("rows of the records (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCSVFiles: paths are the machine's own.
func TestCSVFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "names.csv")
	if err := os.WriteFile(path, []byte("a\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, written()); err != nil {
		t.Fatal(err)
	}
	f, err := openCSV(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil || !f.Modified.Equal(written()) {
		t.Errorf("written at %s: %v", f.Modified, err)
	}
	for _, path := range []string{path + ".old", filepath.Dir(path)} {
		_, err := openCSV(t.Context(), path, nil)
		if class, remedy := fault.Classify(err); err == nil || class != fault.Permanent || remedy == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
	missing := errors.New("no such object")
	if _, err := openCSV(t.Context(), "gs://b/o", func(_ context.Context, uri string) (io.ReadCloser, time.Time, error) {
		if uri != "gs://b/o" {
			t.Errorf("asked for %s", uri)
		}
		return nil, time.Time{}, missing
	}); !errors.Is(err, missing) {
		t.Errorf("an object that is not there: %v", err)
	}
}

// TestCSVRoundTrip: whatever the values are, quoted or not, they come back.
func TestCSVRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.IntRange(1, 4).Draw(t, "columns")
		value := rapid.OneOf(rapid.Just(null), rapid.StringMatching(`[a"',\r\n é\\.\x01]{0,6}`))
		rows := rapid.SliceOfN(rapid.SliceOfN(value, columns, columns), 0, 5).Draw(t, "rows")
		text := header(columns) + "\n"
		want := [][]string{strings.Split(header(columns), ",")}
		for _, row := range rows {
			if line := encode(t, row); line != "" || columns == 1 {
				text += line + rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end")
				want = append(want, row)
			}
		}
		got, err := readCSV(t.Context(), strings.NewReader(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", text, diff)
		}
	})
}

// encode writes a row with as many quotes as need be, or more.
func encode(t *rapid.T, row []string) string {
	fields := make([]string, len(row))
	for i, v := range row {
		switch {
		case v == null:
		case v == "" || strings.ContainsAny(v, "\",\r\n") || rapid.Bool().Draw(t, "quoted"):
			fields[i] = `"` + strings.ReplaceAll(v, `"`, `""`) + `"`
		default:
			fields[i] = v
		}
	}
	return strings.Join(fields, ",")
}

// TestCSVAgrees: of any bytes, it accepts no more than encoding/csv does, but for empty
// lines, and reads the same.
func TestCSVAgrees(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := "x,y\n" + rapid.StringMatching(`[a",\n]{0,20}`).Draw(t, "text")
		got, err := readCSV(t.Context(), strings.NewReader(text))
		want, theirs := csv.NewReader(strings.NewReader(text)).ReadAll()
		if (err == nil) != (theirs == nil) {
			t.Fatalf("%q: %v, and encoding/csv: %v", text, err, theirs)
		}
		if err != nil {
			return
		}
		for _, row := range got {
			for i, v := range row {
				row[i] = strings.TrimPrefix(v, null)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", text, diff)
		}
	})
}
