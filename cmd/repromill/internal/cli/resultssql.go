package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/results/export"
)

func (a *app) resultsSQLCmd() *cobra.Command {
	var views, csv bool
	cmd := &cobra.Command{
		Use:   "sql [QUERY]",
		Short: "Query the results in SQL with an installed DuckDB",
		Long: `Query all committed results in SQL. Each table is a view: runs, claims, metrics,
samples, requests, estimates, events, comparisons, verdicts, layers, servers.

This needs DuckDB's command line, which is one file without dependencies
(https://duckdb.org/install, or pip install duckdb-cli). Without QUERY it is started
for typing, or reads queries from standard input. --print-views prints the SQL that
makes the views, for DuckDB anywhere else.`,
		Example: `  repromill results sql "SELECT status, count(*) FROM runs GROUP BY ALL"
  repromill results sql --csv "FROM metrics SELECT run_id, metric, value, unit WHERE NOT simulated"
  repromill results sql --json "DESCRIBE samples"
  repromill results sql --print-views > views.sql && duckdb -init views.sql`,
		Args: atMostOneQuery,
		RunE: func(cmd *cobra.Command, args []string) error {
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			sql, err := export.Views(ds)
			if err != nil {
				return err
			}
			if views {
				_, err := fmt.Fprint(a.stdout, sql)
				return err
			}
			if csv && a.jsonOut {
				return usererrf("leave one of them out", "--csv and --json are two formats")
			}
			return a.duckdb(cmd.Context(), sql, csv, args)
		},
	}
	cmd.Flags().BoolVar(&views, "print-views", false, "print the SQL that makes the views")
	cmd.Flags().BoolVar(&csv, "csv", false, "print CSV")
	return cmd
}

func atMostOneQuery(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usererrf("put the query in quotes", "%d arguments are given", len(args))
	}
	return nil
}

// duckdb runs DuckDB's command with the views in place.
func (a *app) duckdb(ctx context.Context, views string, csv bool, args []string) error {
	bin, err := a.lookPath("duckdb")
	if err != nil {
		return usererrf("install it (https://duckdb.org/install, or pip install duckdb-cli), or use --print-views with DuckDB elsewhere", "DuckDB's command is not installed")
	}
	f, err := os.CreateTemp("", "repromill-views-*.sql")
	if err != nil {
		return fmt.Errorf("write views: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(views)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write views: %w", err)
	}
	list := []string{"-init", f.Name()} // in place of the user's own ~/.duckdbrc
	switch {
	case a.jsonOut:
		list = append(list, "-json")
	case csv:
		list = append(list, "-csv")
	}
	if len(args) == 1 {
		list = append(list, "-c", args[0])
	}
	run := exec.CommandContext(ctx, bin, list...)
	run.Stdin, run.Stdout, run.Stderr = a.stdin, a.stdout, a.stderr
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	for k, v := range a.env {
		run.Env = append(run.Env, k+"="+v)
	}
	err = run.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit):
		return &exitError{exitUser} // DuckDB has said what is wrong with the query
	case err != nil:
		return fmt.Errorf("run %s: %w", bin, err)
	}
	return nil
}
