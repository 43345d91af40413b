package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/export"
	"github.com/repromill/repromill/results/schema"
)

// exported is what `results export --json` prints.
type exported struct {
	RunID  string   `json:"run_id,omitempty"`
	Format string   `json:"format"`
	Table  string   `json:"table,omitempty"`
	Rows   int64    `json:"rows,omitempty"`
	Files  []string `json:"files"`
}

// exporter is one invocation of `results export`.
type exporter struct {
	a                  *app
	format, out, table string
	who                export.Evaluator
}

func (a *app) resultsExportCmd() *cobra.Command {
	e := &exporter{a: a}
	cmd := &cobra.Command{
		Use:   "export [RUN…]",
		Short: "Write results in the formats of other tools",
		Long: `Write results in the format of another tool:

  csv         a table of the given runs, or of all, as one CSV file or on standard
              output. NULL is an empty field and an empty text is ""; times are ISO 8601
              in UTC, lists are JSON.
  every-eval  Every Eval Ever ` + export.EveryEvalVersion + `: an aggregate document and its samples for each
              suite and arm of one run, in the folders that project has. Who evaluates
              is said with --organization and --relationship.
  lm-eval     samples_*.jsonl and results_*.json of lm-evaluation-harness, a folder
              for each arm of one run

Questions and prompts are not stored, since some data sets forbid it; their hashes
are written in their place. Whole folders are written anew: what is there already is
an error.`,
		Example: `  repromill results export --format csv --table metrics -o metrics.csv
  repromill results export 01K9… --format csv --table claims | column -ts,
  repromill results export 01K9… --format every-eval --organization "Example Lab" -o exported
  repromill results export 01K9… --format lm-eval -o exported`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			switch e.format {
			case "csv":
				return e.csv(cmd.Context(), ds, args)
			case "lm-eval", "every-eval":
				return e.folder(cmd.Context(), ds, args)
			}
			return usererrf("the formats are csv, every-eval and lm-eval", "--format %q is not known", e.format)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&e.format, "format", "lm-eval", "format to write: csv, every-eval or lm-eval")
	fl.StringVarP(&e.out, "output", "o", "", "write below the folder `DIR`, or for csv into a file")
	fl.StringVar(&e.table, "table", "", "table to write as csv: "+strings.Join(schema.Tables(), ", "))
	fl.StringVar(&e.who.Organization, "organization", "", "who evaluates, for every-eval")
	fl.StringVar(&e.who.Relationship, "relationship", "other", "evaluator's relation to the model, for every-eval: "+strings.Join(export.Relationships(), ", "))
	return cmd
}

// folder writes the answers of one run.
func (e *exporter) folder(ctx context.Context, ds *dataset.Dataset, runs []string) error {
	switch {
	case len(runs) != 1:
		return usererrf("name one run; `repromill results list` lists what is committed", "%s is of one run and %d are named", e.format, len(runs))
	case e.out == "":
		return usererrf("add -o DIR", "it is not said where to write")
	case e.table != "":
		return usererrf("leave --table out, or use --format csv", "--table does not go with %s", e.format)
	case !slices.Contains(export.Relationships(), e.who.Relationship):
		return usererrf("give "+strings.Join(export.Relationships(), ", "), "--relationship %q is not known", e.who.Relationship)
	}
	var files []string
	var err error
	if e.format == "lm-eval" {
		files, err = export.LMEval(ctx, ds, runs[0], e.out)
	} else {
		files, err = export.EveryEval(ctx, ds, runs[0], e.out, e.who)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return usererrf("give a new folder with -o", "the run was exported there before: %v", err)
	case errors.Is(err, fs.ErrNotExist):
		return notCommitted(runs[0])
	case err != nil:
		return err
	case len(files) == 0:
		return usererrf("export a run with suites", "run %s has no answers", runs[0])
	}
	return e.done(exported{RunID: runs[0], Format: e.format, Files: files})
}

func notCommitted(run string) error {
	return usererrf("`repromill results list` lists what is committed", "run %q has no committed results", run)
}

func (e *exporter) done(x exported) error {
	if e.a.jsonOut {
		return e.a.printJSON(x)
	}
	for _, f := range x.Files {
		fmt.Fprintln(e.a.stdout, f)
	}
	return nil
}

// csv writes a table.
func (e *exporter) csv(ctx context.Context, ds *dataset.Dataset, runs []string) error {
	if !schema.Known(e.table) {
		return usererrf("add --table with one of "+strings.Join(schema.Tables(), ", "), "there is no table %q", e.table)
	}
	if e.out == "" && e.a.jsonOut {
		return usererrf("add -o FILE", "standard output cannot hold both the table and JSON")
	}
	if len(runs) == 0 {
		list, err := ds.List(ctx)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(list) { // oldest first, as new ones are added at the end
			if m.Problem != "" {
				return usererrf("see `repromill results verify`, or name the runs to export", "run %s: %s", m.RunID, m.Problem)
			}
			runs = append(runs, m.RunID)
		}
	}
	if e.out == "" {
		_, err := e.write(ctx, e.a.stdout, ds, runs)
		return err
	}
	if _, err := os.Lstat(e.out); err == nil {
		return usererrf("give a new name with -o", "%s is there already", e.out)
	}
	f, err := os.CreateTemp(filepath.Dir(e.out), "."+filepath.Base(e.out)+".*.tmp")
	if err != nil {
		return usererrf("name a file in a folder that can be written", "cannot write the table: %v", err)
	}
	defer os.Remove(f.Name())
	rows, err := e.write(ctx, f, ds, runs)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), e.out); err != nil {
		return err
	}
	return e.done(exported{Format: e.format, Table: e.table, Rows: rows, Files: []string{e.out}})
}

func (e *exporter) write(ctx context.Context, w io.Writer, ds *dataset.Dataset, runs []string) (int64, error) {
	rows, err := export.CSV(ctx, w, ds, runs, e.table)
	var missing *dataset.NotFoundError
	if errors.As(err, &missing) {
		return rows, notCommitted(missing.RunID)
	}
	return rows, err
}
