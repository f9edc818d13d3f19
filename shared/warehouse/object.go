package warehouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"github.com/tidemark-data/tidemark/shared/fault"
)

// Object opens what is at gs://bucket/object, and says when that was written. It is
// read as it is stored: what was compressed before it was uploaded still is. What is
// written there meanwhile is not seen. An object that is not there is a permanent error.
func (c *Client) Object(ctx context.Context, uri string) (io.ReadCloser, time.Time, error) {
	bucket, name, ok := strings.Cut(strings.TrimPrefix(uri, bucketScheme), "/")
	if !strings.HasPrefix(uri, bucketScheme) || !ok || bucket == "" || name == "" {
		return nil, time.Time{}, fault.Fix(fmt.Errorf("%q names no object of Cloud Storage", uri), "write gs://bucket/object")
	}
	client, err := c.storageClient(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	object := client.Bucket(bucket).Object(name)
	attributes, err := object.Attrs(ctx)
	if errors.Is(err, storage.ErrObjectNotExist) || errors.Is(err, storage.ErrBucketNotExist) {
		return nil, time.Time{}, fault.Fix(fmt.Errorf("looking up %s: %w", uri, err), "upload it, or correct its name")
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("looking up %s: %w", uri, err)
	}
	reader, err := object.Generation(attributes.Generation).ReadCompressed(true).NewReader(ctx)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("opening %s: %w", uri, err)
	}
	return reader, attributes.Created, nil
}
