package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/results/export"
)

// exported is what `results export --json` prints.
type exported struct {
	RunID  string   `json:"run_id"`
	Format string   `json:"format"`
	Files  []string `json:"files"`
}

func (a *app) resultsExportCmd() *cobra.Command {
	var format, out string
	cmd := &cobra.Command{
		Use:   "export RUN",
		Short: "Write a run's answers and scores as another tool has them",
		Long: `Write the answers and scores of a run's suites in the format of another tool:

  lm-eval   samples_*.jsonl and results_*.json of lm-evaluation-harness, a folder
            for each arm

Questions and prompts are not stored, since some data sets forbid it; their hashes
are written in their place.`,
		Example: "  repromill results export 01K9… --format lm-eval -o exported",
		Args:    exactArgs(1, "the id of a run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "lm-eval" {
				return usererrf("the format is lm-eval", "--format %q is not known", format)
			}
			if out == "" {
				return usererrf("add -o DIR", "it is not said where to write")
			}
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			files, err := export.LMEval(cmd.Context(), ds, args[0], out)
			switch {
			case errors.Is(err, fs.ErrExist):
				return usererrf("give a new folder with -o", "the run was exported there before: %v", err)
			case errors.Is(err, fs.ErrNotExist):
				return usererrf("`repromill results list` lists what is committed", "run %q has no committed results", args[0])
			case err != nil:
				return err
			case len(files) == 0:
				return usererrf("export a run with suites", "run %s has no answers", args[0])
			}
			if a.jsonOut {
				return a.printJSON(exported{args[0], format, files})
			}
			for _, f := range files {
				fmt.Fprintln(a.stdout, f)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "lm-eval", "format to write")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write below the folder `DIR`")
	return cmd
}
