// Command tidemark is the operator's command line: it writes the contracts of tables
// from the live source, has the functions run, retry and resync, runs reverse syncs, and
// lists what was refused. Its configuration is the functions' own, from the environment.
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

	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/instance"
)

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// tool is where the program runs.
type tool struct {
	getenv   func(string) string
	out, err io.Writer
}

// command is what the first argument names.
type command struct {
	name, arguments, what string
	run                   func(*tool, context.Context, *flag.FlagSet, []string) error
}

func commands() []command {
	return []command{
		{"contract", "[-pipeline P] [-table T] [-out FOLDER | -check]", "write the contracts of tables from the source, or compare them with it", (*tool).contract},
		{"run", "[-tenant T] [PIPELINE [TABLE]]", "have tables brought up to date now, due or not", (*tool).run},
		{"retry", "[-tenant T] PIPELINE [TABLE]", "have the rows that were refused read again", (*tool).retry},
		{"resync", "[-tenant T] PIPELINE [TABLE]", "have every row read again", (*tool).resync},
		{"sync", "[-apply] [-csv FILE] [-full] [-retry] [-override RUN] [-plan RUN] [-tenant T] PIPELINE SYNC", "run a reverse sync here and now: dry, unless -apply is given", (*tool).sync},
		{"rejects", "[-rows] PIPELINE [TABLE]", "list what was refused and is not mended", (*tool).rejects},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// What goes well is said by the commands themselves.
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	t := tool{getenv: os.Getenv, out: os.Stdout, err: os.Stderr}
	code := t.main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// errUsage is a command line that asks for nothing that there is. What is wrong with it
// has been printed.
var errUsage = errors.New("wrong usage")

// main runs the command that the arguments name, and returns the exit code.
func (t *tool) main(ctx context.Context, args []string) int {
	if len(args) == 0 {
		t.help(t.err)
		return exitUsage
	}
	if name := args[0]; name == "help" || name == "-h" || name == "-help" || name == "--help" {
		t.help(t.out)
		return 0
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return t.exit(c.run(t, ctx, t.flags(c), args[1:]))
		}
	}
	t.print(t.err, "tidemark: there is no command %q; see tidemark help\n", args[0])
	return exitUsage
}

// exit prints what failed, each part with its remedy.
func (t *tool) exit(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return exitUsage
	}
	for _, part := range fault.Parts(err) {
		t.print(t.err, "tidemark: %v\n", part)
		if _, remedy := fault.Classify(part); remedy != "" {
			t.print(t.err, "  to do: %s\n", remedy)
		}
	}
	return exitFailed
}

func (t *tool) flags(c command) *flag.FlagSet {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(t.err)
	flags.Usage = func() {
		t.print(flags.Output(), "tidemark %s %s: %s\n", c.name, c.arguments, c.what)
		flags.PrintDefaults()
	}
	return flags
}

// parse reads the flags, and returns as many arguments behind them as may be there, ""
// for those that are not.
func (t *tool) parse(flags *flag.FlagSet, args []string, least, most int) ([]string, error) {
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, flag.ErrHelp
	} else if err != nil {
		return nil, errUsage
	}
	if n := flags.NArg(); n < least || n > most {
		t.print(t.err, "tidemark: %s takes %d to %d names behind its flags, and got %q\n", flags.Name(), least, most, flags.Args())
		flags.Usage()
		return nil, errUsage
	}
	return append(flags.Args(), make([]string, most-flags.NArg())...), nil
}

// config is the configuration of the functions, without what only those need that land
// rows.
func (t *tool) config() (instance.Config, error) {
	return instance.Load(func(name string) string {
		if name == "FUNCTION_TARGET" {
			return "tidemark"
		}
		return t.getenv(name)
	})
}

func (t *tool) print(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...) // a terminal that is gone needs no word of it
}

func (t *tool) help(w io.Writer) {
	t.print(w, "tidemark is the command line of Tidemark's operator.\n\n")
	for _, c := range commands() {
		t.print(w, "  tidemark %s %s\n      %s\n", c.name, c.arguments, c.what)
	}
	t.print(w, `
tidemark COMMAND -h lists the flags of a command. The configuration is the functions' own:
DATABASE_URL, or CLOUD_SQL_INSTANCE, DB_USER and DB_NAME; CONTROL_DATABASE_URL;
GOOGLE_CLOUD_PROJECT; TIDEMARK_PIPELINES. The exit code is 0 if it is done, 1 if it failed,
found differences, or a brake or a missing approval stops it, 2 if the command line is wrong.
`)
}
