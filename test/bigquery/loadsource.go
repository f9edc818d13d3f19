package bigquery

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	bq "google.golang.org/api/bigquery/v2"
)

// cloudStorage reads objects over the JSON API.
// https://cloud.google.com/storage/docs/json_api/v1
type cloudStorage struct {
	host   string
	client *http.Client
}

// storedObject is one version of an object.
type storedObject struct {
	bucket, name, generation string
	size                     int64
}

func (o storedObject) uri() string { return "gs://" + o.bucket + "/" + o.name }

// resource is what the JSON API says of an object.
type resource struct {
	Name       string `json:"name"`
	Bucket     string `json:"bucket"`
	Generation string `json:"generation"`
	Size       string `json:"size"`
}

func (r resource) object() (storedObject, error) {
	size, err := strconv.ParseInt(r.Size, 10, 64)
	if err != nil {
		return storedObject{}, fmt.Errorf("reading the size of gs://%s/%s: %w", r.Bucket, r.Name, err)
	}
	return storedObject{r.Bucket, r.Name, r.Generation, size}, nil
}

// resolve finds the objects of source URIs, in the order of the URIs and of the
// names under each. All are as they are now: the job reads these versions.
func (c *cloudStorage) resolve(ctx context.Context, uris []string, location string) ([]storedObject, error) {
	var out []storedObject
	seen := map[string]bool{}
	buckets := map[string]bool{}
	for _, uri := range uris {
		p, err := readURI(uri)
		if err != nil {
			return nil, err
		}
		if !buckets[p.bucket] {
			if err := c.checkBucket(ctx, p.bucket, location); err != nil {
				return nil, err
			}
			buckets[p.bucket] = true
		}
		found, err := c.find(ctx, p)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, errNotFound("URI %s", uri)
		}
		for _, o := range found {
			if seen[o.uri()] {
				return nil, errUnsupported("one object in two source URIs (%s)", o.uri())
			}
			seen[o.uri()] = true
			out = append(out, o)
		}
	}
	return out, nil
}

// checkBucket refuses a bucket that is elsewhere than the destination.
func (c *cloudStorage) checkBucket(ctx context.Context, bucket, location string) error {
	var b struct {
		Location string `json:"location"`
	}
	if err := c.get(ctx, "/storage/v1/b/"+url.PathEscape(bucket), nil, &b); err != nil {
		return err
	}
	if b.Location == "" {
		return errNotFound("Bucket %s", bucket)
	}
	if !strings.EqualFold(b.Location, location) {
		return errInvalid("Cannot read and write in different locations: source: %s, destination: %s", b.Location, location)
	}
	return nil
}

// find lists the objects of a pattern; none is no error.
func (c *cloudStorage) find(ctx context.Context, p sourcePattern) ([]storedObject, error) {
	path := "/storage/v1/b/" + url.PathEscape(p.bucket) + "/o"
	if !p.prefix {
		var r resource
		if err := c.get(ctx, path+"/"+url.PathEscape(p.name), nil, &r); err != nil || r.Name == "" {
			return nil, err
		}
		o, err := r.object()
		return []storedObject{o}, err
	}
	var out []storedObject
	query := url.Values{"prefix": {p.name}, "maxResults": {"1000"}}
	for {
		var page struct {
			Items         []resource `json:"items"`
			NextPageToken string     `json:"nextPageToken"`
		}
		if err := c.get(ctx, path, query, &page); err != nil {
			return nil, err
		}
		for _, r := range page.Items {
			o, err := r.object()
			if err != nil {
				return nil, err
			}
			out = append(out, o)
		}
		if page.NextPageToken == "" {
			return out, nil
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

// get asks the JSON API; what does not exist leaves into as it is.
func (c *cloudStorage) get(ctx context.Context, path string, query url.Values, into any) error {
	answer, err := c.ask(ctx, path, query)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end, or given up
	if answer.StatusCode == http.StatusNotFound {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("reading Cloud Storage's answer to %s: %w", path, err)
	}
	return nil
}

// ask sends a request. An answer that is neither success nor notFound is an
// error, backendError where another attempt may do better.
func (c *cloudStorage) ask(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	address := "http://" + c.host + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("preparing a request to Cloud Storage: %w", err)
	}
	request.Header.Set("Accept-Encoding", "gzip") // objects as they are stored
	answer, err := c.client.Do(request)
	if err != nil {
		return nil, &apiError{reasonCode("backendError"), "backendError", "reading Cloud Storage: " + err.Error()}
	}
	if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusNotFound {
		return answer, nil
	}
	reason := "backendError"
	if answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized {
		reason = "accessDenied"
	}
	if err := answer.Body.Close(); err != nil {
		return nil, fmt.Errorf("ending Cloud Storage's answer: %w", err)
	}
	return nil, &apiError{reasonCode(reason), reason, "reading Cloud Storage: " + answer.Status}
}

// open reads an object as it is stored.
func (c *cloudStorage) open(ctx context.Context, o storedObject) (io.ReadCloser, error) {
	answer, err := c.ask(ctx, "/storage/v1/b/"+url.PathEscape(o.bucket)+"/o/"+url.PathEscape(o.name), url.Values{"alt": {"media"}, "generation": {o.generation}})
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusNotFound {
		return nil, errors.Join(errNotFound("URI %s", o.uri()), answer.Body.Close())
	}
	return answer.Body, nil
}

// rowLoader reads files into batches of rows.
type rowLoader struct {
	fields        []field
	ignoreUnknown bool
	maxBad        int64
	out           *loadOutcome
	keep          func(*rowBatch) error

	order      []int // see byName
	batch      *rowBatch
	filled     int
	records    int64
	compressed map[bool]bool // kinds of files seen
}

// maxProblems is how many bad records are described.
const maxProblems = 5

func (r *rowLoader) readAll(ctx context.Context, source *cloudStorage, objects []storedObject) error {
	r.compressed = map[bool]bool{}
	for _, o := range objects {
		if err := r.readObject(ctx, source, o); err != nil {
			return err
		}
	}
	return r.flush()
}

func (r *rowLoader) readObject(ctx context.Context, source *cloudStorage, o storedObject) (err error) {
	body, err := source.open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	in := bufio.NewReaderSize(body, 1<<16)
	magic, err := in.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s: %w", o.uri(), err)
	}
	if len(magic) == 0 {
		return nil // an empty file is of either kind
	}
	packed := bytes.Equal(magic, []byte{0x1f, 0x8b})
	r.compressed[packed] = true
	switch {
	case len(r.compressed) > 1:
		return errInvalid("Load configuration must not mix compressed and uncompressed files: %s", o.uri())
	case !packed:
		return r.readLines(in, o)
	case o.size > maxGzipFile:
		return errInvalid("Input compressed JSON files are too large: %s has %d bytes; the limit is %d", o.uri(), o.size, int64(maxGzipFile))
	}
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		return unreadable(o, err)
	}
	return r.readLines(bufio.NewReaderSize(unpacked, 1<<16), o)
}

func unreadable(o storedObject, err error) error {
	var own *apiError
	if errors.As(err, &own) {
		return err
	}
	return errInvalid("Error while reading data, error message: Failed to read %s: %v", o.uri(), err)
}

// readLines reads the rows of one file, one to a line.
func (r *rowLoader) readLines(in *bufio.Reader, o storedObject) error {
	var line []byte
	var position int64
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= maxJSONRow+1:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return errInvalid("Error while reading data, error message: JSON parsing error in row starting at position %d: Row size is larger than: %d. File: %s", position, maxJSONRow, o.uri())
		case err != nil && !errors.Is(err, io.EOF):
			return unreadable(o, err)
		}
		ended := err != nil
		if ended && len(line) == 0 {
			return nil
		}
		if err := r.record(bytes.TrimSuffix(line, []byte("\n")), position, o); err != nil || ended {
			return err
		}
		position += int64(len(line))
		line = line[:0]
	}
}

// record reads one row, and counts it as bad if it is.
func (r *rowLoader) record(line []byte, position int64, o storedObject) error {
	if r.batch == nil {
		r.batch, r.filled = newRowBatch(r.fields, loadBatch), 0
	}
	r.records++
	err := r.row(line)
	var bad *badRowError
	if errors.As(err, &bad) {
		r.batch.unset(r.filled)
		r.out.bad++
		if len(r.out.problems) < maxProblems {
			r.out.problems = append(r.out.problems, &bq.ErrorProto{
				Reason: "invalid", Location: o.uri(),
				Message: fmt.Sprintf("Error while reading data, error message: JSON parsing error in row starting at position %d: %s File: %s", position, bad.problem, o.uri()),
			})
		}
		if r.out.bad > r.maxBad {
			return errInvalid("Error while reading data, error message: JSON table encountered too many errors, giving up. Rows: %d; errors: %d. Please look into the errors[] collection for more details.", r.records, r.out.bad)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if r.filled++; r.filled == loadBatch {
		return r.flush()
	}
	return nil
}

// flush writes the rows of the batch.
func (r *rowLoader) flush() error {
	if r.batch == nil || r.filled == 0 {
		return nil
	}
	b := r.batch
	r.batch = nil
	b.rows = r.filled
	return r.keep(b)
}

// unset forgets what was read of a row.
func (b *rowBatch) unset(row int) {
	for i := range b.vectors {
		v := &b.vectors[i]
		v.set[row] = false
		delete(v.wide, row)
		if v.nested != nil {
			v.nested[row] = nil
		}
	}
}
