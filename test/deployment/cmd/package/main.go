// Command package writes the archives that Terraform would upload, one per
// function, without Terraform: to look at, to deploy by hand, or, with -vendor, to
// build where there is no network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"

	"github.com/tidemark-data/tidemark/test/deployment"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "package:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("package", flag.ContinueOnError)
	out := flags.String("out", "package", "`folder` to write the archives to")
	terraform := flags.String("terraform", "../terraform", "`folder` of the Terraform files")
	vendor := flags.Bool("vendor", false, "write <function>-vendored.zip as well, with its dependencies in vendor/")
	if err := flags.Parse(args); err != nil {
		return err //nolint:wrapcheck // it names the flag
	}
	archives, err := load(*terraform)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "ARCHIVE\tFILES\tBYTES\tMODULES\tTO DOWNLOAD")
	for _, function := range slices.Sorted(maps.Keys(archives)) {
		archive := archives[function]
		if err := write(ctx, table, *out, function, archive, false); err != nil {
			return err
		}
		if !*vendor {
			continue
		}
		if archive, err = archive.Vendored(ctx); err != nil {
			return fmt.Errorf("packaging %s: %w", function, err)
		}
		if err := write(ctx, table, *out, function+"-vendored", archive, true); err != nil {
			return err
		}
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}

// load evaluates the archives with the variables' defaults.
func load(dir string) (map[string]deployment.Archive, error) {
	module, err := deployment.Load(dir)
	if err != nil {
		return nil, err
	}
	values, err := module.Evaluate(nil)
	if err != nil {
		return nil, err
	}
	return values.Archives()
}

// write writes one archive and its line of the table. A vendored one has nothing to
// download.
func write(ctx context.Context, table io.Writer, out, name string, archive deployment.Archive, vendored bool) (err error) {
	file, err := os.Create(filepath.Join(out, name+".zip"))
	if err != nil {
		return fmt.Errorf("creating the archive: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := archive.WriteZip(file); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("measuring the archive: %w", err)
	}
	var modules []deployment.Download
	if !vendored {
		if modules, err = archive.Downloads(ctx); err != nil {
			return err
		}
	}
	var size int64
	for _, m := range modules {
		size += m.Bytes
	}
	_, err = fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\n", file.Name(), len(archive), info.Size(), len(modules), size)
	return err //nolint:wrapcheck // the table is in memory until it is flushed
}
