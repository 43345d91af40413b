package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/cache"
	"github.com/repromill/repromill/results/dataset"
)

func (a *app) resultsCompactCmd() *cobra.Command {
	var targetMB int64
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Merge the small files of many runs into few large ones",
		Long: `Merge the Parquet files of committed runs, for each table and date, into few large
ones, which readers scan many times faster. No row changes: every run's rows are
hashed before and after. A damaged file is named, left as it is, and ends the command
with 1.

It may be interrupted or killed anywhere and repeated, and runs may be committed and
read meanwhile. A query that is running keeps the files it has open; one that has
listed files and not opened them yet fails and is to be repeated. Each partition
changes in one step, so none sees a row twice or not at all (file systems that cannot
exchange folders miss it for a moment).

Manifests stay as committed, and ` + "`results push`" + ` gives a merged run files of its own again.`,
		Example: "  repromill results compact\n  repromill results compact --target-mb 512 --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if targetMB < 1 || targetMB > 1<<16 {
				return usererrf("give a size from 1 to 65536", "--target-mb %d is no size for a file", targetMB)
			}
			ds, err := a.dataset()
			if err != nil {
				return err
			}
			ui := a.ui()
			ui.start("compact")
			rep, err := ds.Compact(cmd.Context(), dataset.CompactConfig{Target: targetMB << 20, Progress: func(done, total int, partition string) {
				ui.progress(int64(done), int64(total), "folders", partition)
			}})
			ui.abandon()
			if err != nil {
				return err
			}
			if a.jsonOut {
				if err := a.printJSON(rep); err != nil {
					return err
				}
			} else {
				a.printCompact(ds, rep)
			}
			if len(rep.Problems) > 0 {
				return &exitError{exitOurs}
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&targetMB, "target-mb", 128, "end a merged file at about `MB` megabytes")
	return cmd
}

func (a *app) printCompact(ds *dataset.Dataset, rep *dataset.CompactReport) {
	if rep.Merged == 0 {
		fmt.Fprintf(a.stdout, "nothing to merge in %s\n", ds.Root())
	} else {
		fmt.Fprintf(a.stdout, "%d rows of %d files (%s) are in %d files (%s), in %d of %d folders\n", rep.Rows, rep.FilesBefore, cache.Size(rep.BytesBefore), rep.FilesAfter, cache.Size(rep.BytesAfter), rep.Merged, rep.Partitions)
	}
	for _, p := range rep.Problems {
		fmt.Fprintf(a.stdout, "  %s\n", clean(p.String()))
	}
}
