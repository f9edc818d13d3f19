// Command local-stack starts the local stack and leaves it running until Ctrl-C:
// `make local`. It prints what to set to use it from another terminal.
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
	"strings"
	"syscall"

	"github.com/tidemark-data/tidemark/test/stack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		slog.ErrorContext(ctx, "ending", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	var options stack.Options
	flags := flag.NewFlagSet("local-stack", flag.ContinueOnError)
	flags.StringVar(&options.Functions, "functions", "", "the built program functions/local (default: built now)")
	flags.StringVar(&options.Pipelines, "pipelines", "", "folder of pipeline files (default: schemas/pipelines)")
	flags.IntVar(&options.Port, "port", 8080, "where the functions are served")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("reading the arguments: %w", err)
	}
	options.Log = log
	running, err := stack.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.Stop()) }()
	if err := greet(out, running); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-running.FunctionsExited():
		return errors.New("the functions have ended; see their log above")
	}
}

func greet(out io.Writer, running *stack.Stack) error {
	text := "\nThe local stack is up; Ctrl-C ends it. To use it from another terminal:\n\n"
	for _, variable := range running.Environment() {
		name, value, _ := strings.Cut(variable, "=")
		text += "  export " + name + "='" + value + "'\n"
	}
	text += "\n  psql \"$DATABASE_URL\"\n" +
		"  curl -H 'Content-Type: application/json' -d '{\"message\":{\"data\":\"'$(echo '{}' | base64)'\"}}' " + running.FunctionURL("Extract") + "\n\n"
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
