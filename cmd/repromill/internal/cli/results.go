package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner"
)

func (a *app) resultsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "results",
		Short: "List, show, query, verify, merge and export what has been committed",
		Long: `Results are Parquet files that any tool reads, without this program:

  duckdb -c "SELECT * FROM read_parquet('~/.local/share/repromill/claims/*/**/*.parquet', hive_partitioning=true)"`,
	}
	cmd.AddCommand(a.resultsListCmd(), a.resultsShowCmd(), a.resultsVerifyCmd(), a.resultsCompactCmd(), a.resultsPushCmd(), a.resultsExportCmd(), a.resultsSQLCmd())
	return cmd
}

func (a *app) dataset() (*dataset.Dataset, error) {
	return dataset.Open(a.cfg.String("paths.results"), dataset.Config{Now: a.now, Hook: a.failpoint(), Tool: createdBy()})
}

func (a *app) resultsListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the committed runs",
		Example: "  repromill results list --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			list, err := ds.List(cmd.Context())
			if err != nil && len(list) == 0 {
				return err
			}
			if a.jsonOut {
				if list == nil {
					list = []dataset.Manifest{}
				}
				if err := a.printJSON(list); err != nil {
					return err
				}
			} else if len(list) == 0 {
				fmt.Fprintf(a.stdout, "nothing is committed in %s yet\n", ds.Root())
			} else {
				w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
				fmt.Fprintln(w, "RUN\tCOMMITTED (UTC)\tVERDICT\tROWS\tBYTES\tTARGET")
				for _, m := range list {
					target, verdict := "-", "-"
					if rep, err := readReport(ds, m.RunID); err == nil {
						target, verdict = firstOf(rep.Target.Input, "-"), firstOf(rep.Verdict, "-")
					} else if b, err := readBare(cmd.Context(), ds, m.RunID); err == nil {
						target = firstOf(b.Run.TargetInput, "-")
					}
					var rows int64
					for _, f := range m.Files {
						rows += f.Rows
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", m.RunID, m.Committed.UTC().Format("2006-01-02 15:04"), verdict, rows, m.Bytes(), clean(target))
				}
				w.Flush()
			}
			return err // a damaged manifest beside good ones
		},
	}
}

func (a *app) resultsShowCmd() *cobra.Command {
	var markdown, page bool
	var card string
	cmd := &cobra.Command{
		Use:   "show RUN",
		Short: "Print a run's report",
		Long: `Print the report of a run: for the terminal, as Markdown, as one HTML file that
needs nothing else, or as JSON. --card draws the verdict as a picture for chats.`,
		Example: "  repromill results show 01K9…\n  repromill results show 01K9… --markdown > report.md\n  repromill results show 01K9… --html > report.html\n  repromill results show 01K9… --card verdict.png\n  repromill results show 01K9… --json",
		Args:    exactArgs(1, "one run id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.close()
			id := args[0]
			if run, err := st.store.Find(cmd.Context(), id); err == nil {
				id = run.ID
			}
			rep, err := st.report(id)
			if errors.Is(err, fs.ErrNotExist) {
				return a.showBare(cmd.Context(), st.data, id)
			}
			if err != nil {
				return err
			}
			if card != "" {
				return drawCard(rep, card)
			}
			switch {
			case a.jsonOut:
				return a.printJSON(rep)
			case page:
				return rep.HTML(a.stdout)
			case markdown:
				return rep.Markdown(a.stdout)
			default:
				return a.printReport(cmd.Context(), st, id, a.stdout)
			}
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print Markdown")
	cmd.Flags().BoolVar(&page, "html", false, "print one HTML file that needs nothing else")
	cmd.Flags().StringVar(&card, "card", "", "draw the verdict into `FILE`, which ends in .png or .svg")
	return cmd
}

// writeReport writes the report of a committed run into files, where they are
// named.
func (s *stack) writeReport(out runner.Outcome, page, card string) error {
	if out.Manifest == "" || page+card == "" {
		return nil
	}
	rep, err := s.report(out.RunID)
	if err != nil {
		return err
	}
	if page != "" {
		var b bytes.Buffer
		if err := rep.HTML(&b); err != nil {
			return err
		}
		if err := atomicfile.Write(page, b.Bytes(), atomicfile.Options{}); err != nil {
			return usererrf("name a file in a folder that can be written", "cannot write the report: %v", err)
		}
	}
	if card != "" {
		return drawCard(rep, card)
	}
	return nil
}

// drawCard writes the picture of the verdict.
func drawCard(rep *report.Report, name string) error {
	var b bytes.Buffer
	var err error
	switch filepath.Ext(name) {
	case ".png":
		err = rep.Card().PNG(&b, plot.Light())
	case ".svg":
		err = rep.Card().SVG(&b, plot.Light())
	default:
		return usererrf("end its name in .png or .svg", "--card %q has no format", name)
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return usererrf("name a file in a folder that can be written", "cannot write the picture: %v", err)
	}
	return nil
}

func (a *app) resultsVerifyCmd() *cobra.Command {
	var repair bool
	var inBucket string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that every committed file is whole and every whole file is committed",
		Long: `Check every manifest: its files exist with the stated size, hash, rows and schema.
Find files that no manifest names, leftovers of interrupted commits and damaged
Parquet. Exits 1 when something is wrong; --repair finishes or removes half
commits and touches nothing else. --bucket reads and checks an object store.`,
		Example: "  repromill results verify\n  repromill results verify --repair --json\n  repromill results verify --bucket s3://lab-results/papers",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			if inBucket != "" && repair {
				return usererrf("push the runs again, which finishes what is half there", "--repair is for folders")
			}
			rep, err := a.verify(cmd.Context(), ds, inBucket, repair)
			if err != nil {
				return err
			}
			if a.jsonOut {
				if err := a.printJSON(rep); err != nil {
					return err
				}
			} else {
				a.printVerify(rep)
			}
			if !rep.OK() {
				return &exitError{exitOurs}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "finish or remove half commits")
	cmd.Flags().StringVar(&inBucket, "bucket", "", "check the object store at `URL` in place of the folder")
	return cmd
}

func (a *app) verify(ctx context.Context, ds *dataset.Dataset, bucket string, repair bool) (*dataset.VerifyReport, error) {
	if bucket == "" {
		return ds.Verify(ctx, repair)
	}
	b, err := a.openBucket(ctx, bucket)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return b.Verify(ctx)
}
