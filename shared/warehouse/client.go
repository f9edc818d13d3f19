// Package warehouse is the BigQuery side: it makes the tables, appends changes
// exactly once, removes superseded versions and runs queries. A write mode is a
// file. Nothing of Google's types leaves it.
package warehouse

import (
	"context"
	"fmt"
	"sync"

	"cloud.google.com/go/bigquery"
	storage "cloud.google.com/go/bigquery/storage/apiv1"
	gcs "cloud.google.com/go/storage"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Config says which BigQuery to talk to.
type Config struct {
	Project  string // GOOGLE_CLOUD_PROJECT
	Location string // BIGQUERY_LOCATION, "" for the default
	// host:port of an emulator's REST and gRPC servers; "" for BigQuery itself.
	Host, StorageHost string
	// StagingBucket is the bucket of Cloud Storage that load jobs read from; "" for none.
	StagingBucket string
	// CloudStorageHost is the address, host:port, of an emulator of Cloud Storage.
	// "": the one of STORAGE_EMULATOR_HOST, which the client reads itself, or none.
	CloudStorageHost string
}

// Client is a connection to BigQuery. It is safe for concurrent use, and opens
// what it needs when it is first needed: an idle tick opens nothing.
type Client struct {
	config Config

	mu     sync.Mutex
	rest   *bigquery.Client
	writer *storage.BigQueryWriteClient
	reader *storage.BigQueryReadClient
	bucket *gcs.Client
}

// NewClient returns a client; it does not connect.
func NewClient(config Config) *Client { return &Client{config: config} }

// Close closes what was opened.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	if c.rest != nil {
		keep(c.rest.Close())
	}
	if c.writer != nil {
		keep(c.writer.Close())
	}
	if c.reader != nil {
		keep(c.reader.Close())
	}
	if c.bucket != nil {
		keep(c.bucket.Close())
	}
	if first != nil {
		return fmt.Errorf("closing BigQuery clients: %w", first)
	}
	return nil
}

// The libraries keep the context they are made with for their background
// connections, so it must outlive the request: only its values are kept.

func (c *Client) restClient(ctx context.Context) (*bigquery.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rest != nil {
		return c.rest, nil
	}
	var opts []option.ClientOption
	if c.config.Host != "" {
		opts = append(opts, option.WithEndpoint("http://"+c.config.Host+"/bigquery/v2/"), option.WithoutAuthentication())
	}
	client, err := bigquery.NewClient(context.WithoutCancel(ctx), c.config.Project, opts...)
	if err != nil {
		return nil, fmt.Errorf("opening BigQuery: %w", err)
	}
	client.Location = c.config.Location
	c.rest = client
	return client, nil
}

func (c *Client) writeClient(ctx context.Context) (*storage.BigQueryWriteClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writer != nil {
		return c.writer, nil
	}
	client, err := storage.NewBigQueryWriteClient(context.WithoutCancel(ctx), c.storageOptions()...)
	if err != nil {
		return nil, fmt.Errorf("opening the Storage Write API: %w", err)
	}
	c.writer = client
	return client, nil
}

func (c *Client) readClient(ctx context.Context) (*storage.BigQueryReadClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reader != nil {
		return c.reader, nil
	}
	client, err := storage.NewBigQueryReadClient(context.WithoutCancel(ctx), c.storageOptions()...)
	if err != nil {
		return nil, fmt.Errorf("opening the Storage Read API: %w", err)
	}
	c.reader = client
	return client, nil
}

func (c *Client) storageClient(ctx context.Context) (*gcs.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bucket != nil {
		return c.bucket, nil
	}
	var opts []option.ClientOption
	if c.config.CloudStorageHost != "" {
		opts = append(opts, option.WithEndpoint("http://"+c.config.CloudStorageHost+"/storage/v1/"), option.WithoutAuthentication())
	}
	client, err := gcs.NewClient(context.WithoutCancel(ctx), opts...)
	if err != nil {
		return nil, fmt.Errorf("opening Cloud Storage: %w", err)
	}
	c.bucket = client
	return client, nil
}

func (c *Client) storageOptions() []option.ClientOption {
	if c.config.StorageHost == "" {
		return nil
	}
	return []option.ClientOption{
		option.WithEndpoint(c.config.StorageHost),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}
