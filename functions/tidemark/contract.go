package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tidemark-data/tidemark/shared/cloudsql"
	"github.com/tidemark-data/tidemark/shared/contract"
	"github.com/tidemark-data/tidemark/shared/fault"
	"github.com/tidemark-data/tidemark/shared/tick"
)

// contract writes the contracts of the tables, or compares those that there are.
func (t *tool) contract(ctx context.Context, flags *flag.FlagSet, args []string) error {
	pipeline := flags.String("pipeline", "", "tables of this `pipeline` alone")
	table := flags.String("table", "", "`tables` of this name alone")
	out := flags.String("out", "", "`folder` of the contracts; default: bigquery beside the pipeline files")
	check := flags.Bool("check", false, "write nothing: print what in the source does not fit the contracts, and exit with 1 if anything")
	if _, err := t.parse(flags, args, 0, 0); err != nil {
		return err
	}
	if *check && *out != "" {
		t.print(t.err, "tidemark: -check compares with the contracts that the functions read: give it without -out\n")
		return errUsage
	}
	config, err := t.config()
	if err != nil {
		return err
	}
	folder, err := t.contracts(*out)
	if err != nil && !*check {
		return err
	}
	db, closeDB, err := cloudsql.Open(ctx, config.Source, 1)
	if err != nil {
		return err
	}
	defer closeDB()
	tables, err := contract.Describe(ctx, db, &tick.Dispatcher{Pipelines: config.Pipelines}, *pipeline, *table)
	if *check {
		return errors.Join(err, t.checkContracts(tables))
	}
	return errors.Join(err, t.writeContracts(tables, folder))
}

// contracts is the folder to write to.
func (t *tool) contracts(out string) (string, error) {
	switch dir := t.getenv("TIDEMARK_PIPELINES"); {
	case out != "":
		return out, nil
	case dir != "":
		return filepath.Join(dir, "bigquery"), nil
	}
	folder := filepath.Join("schemas", "bigquery")
	if _, err := os.Stat(folder); err != nil {
		return "", fault.Fix(fmt.Errorf("looking for the folder of the contracts: %w", err), "run it where the repository is, set TIDEMARK_PIPELINES, or say -out")
	}
	return folder, nil
}

func (t *tool) writeContracts(tables []contract.Table, folder string) error {
	var failures []error
	for _, table := range tables {
		file, changed, err := table.Write(folder)
		switch {
		case err != nil:
			failures = append(failures, fmt.Errorf("%s: %w", file, err))
		case changed:
			t.print(t.out, "%s: written\n", file)
		default:
			t.print(t.out, "%s: as it was\n", file)
		}
	}
	return errors.Join(failures...)
}

func (t *tool) checkContracts(tables []contract.Table) error {
	differ := 0
	for _, table := range tables {
		switch found := table.Differences(); {
		case table.Spec.Contract == nil:
			t.print(t.out, "%s: no contract\n", table.Name())
		case len(found) > 0:
			differ++
			t.print(t.out, "%s: does not fit\n%v\n", table.Name(), found)
		default:
			t.print(t.out, "%s: fits\n", table.Name())
		}
	}
	if differ > 0 {
		return fault.Fix(fmt.Errorf("%d of %d tables do not fit their contracts", differ, len(tables)), "change the source back; or, if the readers agree, run tidemark contract and deploy what it writes")
	}
	return nil
}
