// Command bigquery-emulator serves an empty BigQuery emulator on loopback
// until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/tidemark-data/tidemark/test/bigquery"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bigquery-emulator:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to release
	}
}

// run serves until the context ends, after it wrote the addresses to out as
// shell assignments.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bigquery-emulator", flag.ContinueOnError)
	rest := flags.String("rest", "127.0.0.1:9050", "loopback address of the REST API")
	grpc := flags.String("grpc", "127.0.0.1:9060", "loopback address of the Storage APIs")
	project := flags.String("project", "local", "project to print in the example; the emulator serves every project")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("reading flags: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := bigquery.Start(ctx, bigquery.Options{RESTAddr: *rest, GRPCAddr: *grpc, Log: log})
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	_, err = fmt.Fprintf(out, "export BIGQUERY_EMULATOR_HOST=%s BIGQUERY_STORAGE_EMULATOR_HOST=%s GOOGLE_CLOUD_PROJECT=%s\n", s.RESTHost(), s.StorageHost(), *project)
	if err == nil {
		<-ctx.Done()
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
