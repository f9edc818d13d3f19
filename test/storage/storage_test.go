package storage_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	storageapi "cloud.google.com/go/storage"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"github.com/tidemark-data/tidemark/test/storage"
)

func TestMain(m *testing.M) {
	// Started by an import of the Google libraries.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const bucketName = "staging"

// start starts an emulator with a bucket and Google's client of it.
func start(t *testing.T, o storage.Options) (*storage.Server, *storageapi.BucketHandle) {
	t.Helper()
	o.Buckets = []string{bucketName}
	s, err := storage.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, connect(t, bucketName, option.WithEndpoint("http://"+s.Host()+"/storage/v1/"), option.WithoutAuthentication())
}

// connect is Google's client of a bucket.
func connect(t *testing.T, bucket string, options ...option.ClientOption) *storageapi.BucketHandle {
	t.Helper()
	client, err := storageapi.NewClient(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client.Bucket(bucket)
}

// The official client finds the emulator by the environment alone.
func TestClientFindsItByEnvironment(t *testing.T) {
	s, _ := start(t, storage.Options{})
	t.Setenv("STORAGE_EMULATOR_HOST", s.Host())
	bucket := connect(t, bucketName)
	if _, err := write(t, bucket.Object("x/y"), 0, []byte("content")); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, bucket.Object("x/y"))); got != "content" || !slices.Equal(list(t, bucket, nil), []string{"x/y"}) {
		t.Errorf("read %q", got)
	}
}

func write(t *testing.T, o *storageapi.ObjectHandle, chunk int, content []byte) (*storageapi.ObjectAttrs, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w := o.NewWriter(ctx)
	w.ChunkSize = chunk
	_, err := w.Write(content)
	err = errors.Join(err, w.Close())
	return w.Attrs(), err
}

func read(t *testing.T, o *storageapi.ObjectHandle) []byte {
	t.Helper()
	r, err := o.NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func list(t *testing.T, b *storageapi.BucketHandle, q *storageapi.Query) []string {
	t.Helper()
	var names []string
	for it := b.Objects(t.Context(), q); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, attrs.Name)
	}
}

func code(err error) int {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func unsupported(err error) bool {
	var e *googleapi.Error
	return errors.As(err, &e) && len(e.Errors) == 1 && e.Errors[0].Reason == "notImplemented"
}

// Every kind of upload keeps the bytes: in one request, and resumable over many.
func TestUploads(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"", t.TempDir()} {
		_, bucket := start(t, storage.Options{Folder: folder})
		content := make([]byte, 3<<20+17)
		for i := range content {
			content[i] = byte(rand.Uint32())
		}
		for _, tc := range []struct {
			name  string
			chunk int
			size  int
		}{{"empty", 0, 0}, {"one request", 0, len(content)}, {"resumable", googleapi.MinUploadChunkSize, len(content)}, {"one chunk", 16 << 20, 9}} {
			o := bucket.Object("run/" + tc.name + " é+%.json.gz")
			attrs, err := write(t, o, tc.chunk, content[:tc.size])
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			sum := md5.Sum(content[:tc.size])
			if attrs.Size != int64(tc.size) || !bytes.Equal(attrs.MD5, sum[:]) || attrs.Generation == 0 {
				t.Errorf("%s: attributes %+v", tc.name, attrs)
			}
			if got := read(t, o); !bytes.Equal(got, content[:tc.size]) {
				t.Errorf("%s: %d bytes came back as %d others", tc.name, tc.size, len(got))
			}
		}
	}
}

// Objects are listed by prefix, over pages, and are gone when deleted.
func TestListAndDelete(t *testing.T) {
	t.Parallel()
	s, bucket := start(t, storage.Options{})
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("run-1/part-%05d.json.gz", i)
		want = append(want, name)
		if _, err := write(t, bucket.Object(name), 0, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := write(t, bucket.Object("run-10/part-00000.json.gz"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, list(t, bucket, &storageapi.Query{Prefix: "run-1/"})); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
	var paged []string
	pager := iterator.NewPager(bucket.Objects(t.Context(), &storageapi.Query{Prefix: "run-1/"}), 10, "")
	for pages := 1; ; pages++ {
		var page []*storageapi.ObjectAttrs
		next, err := pager.NextPage(&page)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page {
			paged = append(paged, o.Name)
		}
		if next == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
	}
	if !slices.Equal(paged, want) {
		t.Errorf("pages: %v", paged)
	}
	for _, name := range want {
		if err := bucket.Object(name).Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	left, err := s.Objects(bucketName, "")
	if diff := cmp.Diff([]string{"run-10/part-00000.json.gz"}, left); diff != "" || err != nil {
		t.Errorf("left over (-want +got):\n%s%v", diff, err)
	}
	if err := bucket.Object(want[0]).Delete(t.Context()); !errors.Is(err, storageapi.ErrObjectNotExist) {
		t.Errorf("deleting what is gone: %v", err)
	}
	if _, err := bucket.Object(want[0]).NewReader(t.Context()); !errors.Is(err, storageapi.ErrObjectNotExist) {
		t.Errorf("reading what is gone: %v", err)
	}
}

// Of many writers that want an object not to exist, one wins; a delete of another
// generation does nothing.
func TestGenerationPreconditions(t *testing.T) {
	t.Parallel()
	_, bucket := start(t, storage.Options{})
	o := bucket.Object("once")
	var won, lost atomic.Int32
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			chunk := 0
			if i%2 == 0 {
				chunk = googleapi.MinUploadChunkSize
			}
			_, err := write(t, o.If(storageapi.Conditions{DoesNotExist: true}), chunk, bytes.Repeat([]byte{byte(i)}, 300<<10))
			switch {
			case err == nil:
				won.Add(1)
			case code(err) == http.StatusPreconditionFailed:
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if won.Load() != 1 || lost.Load() != 7 {
		t.Errorf("%d writers won and %d lost, want 1 and 7", won.Load(), lost.Load())
	}
	first, err := o.Attrs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := write(t, o.If(storageapi.Conditions{GenerationMatch: first.Generation}), 0, []byte("second"))
	if err != nil || second.Generation <= first.Generation {
		t.Fatalf("generation %d after %d, error %v", second.Generation, first.Generation, err)
	}
	if err := o.If(storageapi.Conditions{GenerationMatch: first.Generation}).Delete(t.Context()); code(err) != http.StatusPreconditionFailed {
		t.Errorf("deleting another generation: %v", err)
	}
	if got := string(read(t, o)); got != "second" {
		t.Errorf("content is %q", got)
	}
	if err := o.If(storageapi.Conditions{GenerationMatch: second.Generation}).Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := o.If(storageapi.Conditions{GenerationMatch: second.Generation}).Delete(t.Context()); code(err) != http.StatusPreconditionFailed {
		t.Errorf("deleting what is gone: %v", err)
	}
}

// What is stored compressed is given out as it is to who asks for that.
func TestCompressedObject(t *testing.T) {
	t.Parallel()
	_, bucket := start(t, storage.Options{})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write([]byte("{}\n"))
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	o := bucket.Object("rows.json.gz")
	w := o.NewWriter(t.Context())
	w.ContentEncoding, w.ContentType = "gzip", "application/x-ndjson"
	_, err = w.Write(packed.Bytes())
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, o.ReadCompressed(true)); !bytes.Equal(got, packed.Bytes()) {
		t.Errorf("compressed: %q", got)
	}
	if got := string(read(t, o)); got != "{}\n" {
		t.Errorf("content: %q", got)
	}
}

func TestIntercept(t *testing.T) {
	t.Parallel()
	s, bucket := start(t, storage.Options{})
	var failed atomic.Int32
	s.Intercept(func(c storage.Call) error {
		switch {
		case c.Method == "objects.delete":
			return &googleapi.Error{Code: http.StatusForbidden, Errors: []googleapi.ErrorItem{{Reason: "forbidden"}}}
		case c.Method == "objects.insert" && failed.Add(1) == 1:
			return errors.New("busy")
		}
		return nil
	})
	o := bucket.Object("x").Retryer(storageapi.WithPolicy(storageapi.RetryAlways))
	if _, err := write(t, o, googleapi.MinUploadChunkSize, []byte("x")); err != nil {
		t.Errorf("an upload that is tried again: %v", err)
	}
	if err := o.Delete(t.Context()); code(err) != http.StatusForbidden {
		t.Errorf("forbidden delete: %v", err)
	}
	s.Intercept(nil)
	if err := o.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if calls := s.Calls(); calls["objects.delete"] != 2 || calls["objects.insert"] < 2 {
		t.Errorf("calls: %v", calls)
	}
}

// What the fake would ignore or do otherwise is refused by name.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s, bucket := start(t, storage.Options{})
	if _, err := write(t, bucket.Object("x"), 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	_, err := bucket.Object("x").If(storageapi.Conditions{GenerationMatch: 1}).Attrs(t.Context())
	if !unsupported(err) {
		t.Errorf("conditional attributes: %v", err)
	}
	_, err = bucket.Object("x").Update(t.Context(), storageapi.ObjectAttrsToUpdate{ContentType: "a/b"})
	if !unsupported(err) {
		t.Errorf("update: %v", err)
	}
	_, err = bucket.Object("y").CopierFrom(bucket.Object("x")).Run(t.Context())
	if !unsupported(err) {
		t.Errorf("copy: %v", err)
	}
	if err := bucket.Delete(t.Context()); !unsupported(err) {
		t.Errorf("deleting the bucket: %v", err)
	}
	for _, path := range []string{"/_internal/delete_all", "/storage/v1/b", "/upload/resumable/1", "/storage/v1/b/staging/o/x/acl?project=p"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Host()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s, %v", path, answer.Status, err)
		}
	}
	if attrs, err := bucket.Attrs(t.Context()); err != nil || attrs.Location != storage.Location {
		t.Errorf("bucket: %+v, %v", attrs, err)
	}
	if got := list(t, bucket, nil); !slices.Equal(got, []string{"x"}) {
		t.Errorf("objects: %v", got)
	}
	w := connect(t, "absent", option.WithEndpoint("http://"+s.Host()+"/storage/v1/"), option.WithoutAuthentication()).Object("x").NewWriter(t.Context())
	if err := w.Close(); code(err) != http.StatusNotFound {
		t.Errorf("writing to a bucket that is not there: %v", err)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	s, _ := start(t, storage.Options{})
	host, port, err := net.SplitHostPort(s.Host())
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("listens on %s, want the loopback interface: %v", host, err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Start(t.Context(), storage.Options{Port: number}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a taken port: %v", err)
	}
}
