// Command demo shows Tidemark at work on one machine: `make demo`. A messaging
// service keeps writing to Postgres; the real functions, on the local stack, bring
// every table to BigQuery and a score computed there back into contacts.
//
// On a terminal it draws both sides live until Ctrl-C. Without one it runs for a
// while. Either way it then stops the writer, lets the functions catch up, compares
// every value of every table on both sides, and ends with status 0 only if they agree.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/tidemark-data/tidemark/test/sample"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout))
}

// settings are the demo's arguments.
type settings struct {
	functions string
	folder    string
	period    time.Duration
	patience  time.Duration
	rate      float64
	size      sample.Size
	live      bool
	width     func() int // of the terminal
}

// run returns the exit status: 0 if both sides agree, 1 if not or if anything
// failed, 2 for arguments it does not understand.
func run(ctx context.Context, args []string, out *os.File) int {
	s := settings{
		live: term.IsTerminal(int(out.Fd())),
		width: func() int {
			width, _, err := term.GetSize(int(out.Fd()))
			if err != nil {
				return 0
			}
			return width
		},
	}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&s.functions, "functions", "", "the built program functions/local (default: built now)")
	flags.StringVar(&s.folder, "folder", "", "where the functions' log and the pipeline file are put (default: a new temporary folder)")
	flags.DurationVar(&s.period, "for", 45*time.Second, "how long the application writes, where there is no terminal")
	flags.DurationVar(&s.patience, "patience", 2*time.Minute, "how long both sides may take to agree once the application has stopped")
	flags.Float64Var(&s.rate, "rate", 40, "transactions a second that the application begins")
	flags.IntVar(&s.size.Organizations, "organizations", 5, "organizations to begin with")
	flags.IntVar(&s.size.Contacts, "contacts", 2000, "contacts to begin with")
	flags.IntVar(&s.size.Messages, "messages", 40_000, "messages to begin with")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	interrupted, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the demo at once; the watchdogs clean up.
	defer context.AfterFunc(interrupted, stop)()
	agree, err := (&demo{settings: s, out: out}).run(interrupted)
	if err != nil {
		say(out, "\nThe demo failed: %v\n", err)
		return 1
	}
	if !agree {
		return 1
	}
	return 0
}

// say writes for people; nobody is left to tell if it fails.
func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format, args...)
}
