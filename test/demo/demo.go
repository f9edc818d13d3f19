package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cloud.google.com/go/bigquery"
	"github.com/jackc/pgx/v5"

	"github.com/tidemark-data/tidemark/schemas"
	"github.com/tidemark-data/tidemark/shared/pipeline"
	"github.com/tidemark-data/tidemark/test/sample"
	"github.com/tidemark-data/tidemark/test/stack"
)

//go:embed pipelines/*.yaml
var pipelineFiles embed.FS

const (
	lookEvery = time.Second
	lineEvery = 10 * time.Second
)

// demo is one run.
type demo struct {
	settings
	out io.Writer

	pipeline pipeline.Pipeline
	logPath  string
	stack    *stack.Stack
	conn     *pgx.Conn
	client   *bigquery.Client
	activity sample.Counters
	written  time.Duration
}

// run runs the demo to its end and reports whether both sides agree. When
// interrupted ends, the application stops writing; what remains is bounded in time.
func (d *demo) run(interrupted context.Context) (agree bool, err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(interrupted))
	defer cancel()
	closeAll, err := d.open(ctx)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return false, err
	}
	d.greet()
	if err := d.write(ctx, interrupted); err != nil {
		return false, err
	}
	say(d.out, "\nThe application has stopped writing. Letting both sides catch up...\n")
	found, err := d.catchUp(ctx)
	if err != nil {
		return false, err
	}
	d.summarize(found)
	if found.agree() {
		err = d.brake(ctx)
	}
	d.farewell(found.agree() && err == nil)
	return found.agree(), err
}

// farewell says where to look now that it is over; braked, if the last error in the
// functions' log is there on purpose.
func (d *demo) farewell(braked bool) {
	onPurpose := ""
	if braked {
		onPurpose = " (its last error is that mistake)"
	}
	say(d.out, "\nWhere to look:\n  what the functions did:  %s%s\n  the pipeline:            %s\n  a stack to play with:    make local\n",
		d.logPath, onPurpose, filepath.Join(d.folder, "pipelines", "messaging.yaml"))
}

// open starts everything. The function it returns closes what was opened, also
// after an error.
func (d *demo) open(ctx context.Context) (func() error, error) {
	var closers []func() error
	closeAll := func() error {
		var err error
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	if err := d.prepareFolder(); err != nil {
		return closeAll, err
	}
	log, err := os.Create(d.logPath)
	if err != nil {
		return closeAll, fmt.Errorf("creating the log: %w", err)
	}
	closers = append(closers, log.Close)
	say(d.out, "Starting Postgres, the emulators and the functions; seeding %d organizations, %d contacts, %d messages...\n",
		d.size.Organizations, d.size.Contacts, d.size.Messages)
	if d.stack, err = stack.Start(ctx, stack.Options{
		Functions: d.functions, Pipelines: filepath.Join(d.folder, "pipelines"), Prepare: d.seed, Log: log,
	}); err != nil {
		return closeAll, err
	}
	closers = append(closers, d.stack.Stop)
	if d.conn, err = pgx.Connect(ctx, d.stack.DatabaseURL()); err != nil {
		return closeAll, fmt.Errorf("connecting to Postgres: %w", err)
	}
	closers = append(closers, func() error { return d.conn.Close(ctx) })
	if d.client, err = d.stack.BigQueryClient(ctx); err != nil {
		return closeAll, err
	}
	closers = append(closers, d.client.Close)
	return closeAll, nil
}

// prepareFolder puts the pipeline file where the functions and the reader of the
// summary find it, and reads it.
func (d *demo) prepareFolder() (err error) {
	if d.folder == "" {
		if d.folder, err = os.MkdirTemp("", "tidemark-demo-"); err != nil {
			return fmt.Errorf("creating the demo's folder: %w", err)
		}
	}
	if d.folder, err = filepath.Abs(d.folder); err != nil {
		return fmt.Errorf("finding the demo's folder: %w", err)
	}
	d.logPath = filepath.Join(d.folder, "functions.log")
	const name = "pipelines/messaging.yaml"
	text, err := pipelineFiles.ReadFile(name)
	if err != nil {
		return fmt.Errorf("reading the demo's pipeline: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(d.folder, "pipelines"), 0o750); err != nil {
		return fmt.Errorf("creating the demo's folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(d.folder, name), text, 0o600); err != nil {
		return fmt.Errorf("writing the demo's pipeline: %w", err)
	}
	files, err := fs.Sub(pipelineFiles, "pipelines")
	if err != nil {
		return fmt.Errorf("reading the demo's pipeline: %w", err)
	}
	loaded, err := pipeline.Load(files, schemas.PipelineSchema())
	if err != nil {
		return fmt.Errorf("reading the demo's pipeline: %w", err)
	}
	d.pipeline = loaded[0]
	return nil
}

func (d *demo) seed(ctx context.Context, url string) error {
	if err := sample.Create(ctx, url); err != nil {
		return err
	}
	return sample.Seed(ctx, url, d.size)
}

// greet says where to look while it runs.
func (d *demo) greet() {
	say(d.out, "\n  psql '%s'\n  functions:    %s, Dedup, ReverseETL\n  their log:    %s\n  the pipeline: %s\n\n",
		d.stack.DatabaseURL(), d.stack.FunctionURL("Extract"), d.logPath, filepath.Join(d.folder, "pipelines", "messaging.yaml"))
	if d.live {
		say(d.out, "Ctrl-C stops the application and compares both sides.\n\n")
		return
	}
	say(d.out, "The application writes for %v.\n", d.period)
}

// write lets the application write, and shows both sides meanwhile.
func (d *demo) write(ctx, interrupted context.Context) error {
	writing, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	ended := make(chan error, 1)
	go func() {
		ended <- sample.Run(writing, d.stack.DatabaseURL(), sample.Activity{Rate: d.rate}, &d.activity)
	}()
	shown := d.watch(ctx, interrupted, ended)
	stop()
	if shown.writerEnded {
		return errors.Join(errors.New("the application ended early"), shown.err)
	}
	err := errors.Join(shown.err, <-ended)
	d.written = time.Since(began)
	return err
}

// shown is how watching ended.
type shown struct {
	err         error
	writerEnded bool
}

// watch shows both sides until the period is over or the user interrupts.
func (d *demo) watch(ctx, interrupted context.Context, ended <-chan error) shown {
	var over <-chan time.Time
	interval := lineEvery
	if d.live {
		interval = lookEvery
	} else {
		over = time.After(d.period)
	}
	look := time.NewTicker(interval)
	defer look.Stop()
	view := display{out: d.out, live: d.live, width: d.width, began: time.Now()}
	for {
		select {
		case <-interrupted.Done():
			return shown{}
		case <-over:
			return shown{}
		case err := <-ended:
			return shown{err: err, writerEnded: true}
		case <-d.stack.FunctionsExited():
			return shown{err: fmt.Errorf("the functions have ended; they logged last:\n%s", d.stack.LastLog())}
		case <-look.C:
		}
		now, err := d.measure(ctx)
		if err != nil {
			return shown{err: err}
		}
		view.show(now, &d.activity)
	}
}
