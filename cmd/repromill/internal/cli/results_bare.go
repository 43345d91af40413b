package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// bareRun is a run that was committed without a report, as `load` and `inspect
// --save` do: what it was about and how many rows of which table it has.
type bareRun struct {
	Run    schema.RunRow    `json:"run"`
	Tables map[string]int64 `json:"rows"`
	Glob   string           `json:"parquet"` // of the table that holds most
}

func readBare(ctx context.Context, d *dataset.Dataset, id string) (*bareRun, error) {
	m, err := d.Manifest(id)
	if err != nil {
		return nil, err
	}
	runs, err := dataset.Read[schema.RunRow](ctx, d, id)
	if err != nil {
		return nil, err
	}
	out := &bareRun{Tables: map[string]int64{}}
	if len(runs) > 0 {
		out.Run = runs[0]
	}
	most := schema.Runs
	for _, f := range m.Files {
		out.Tables[f.Table] += f.Rows
	}
	for _, t := range slices.Sorted(maps.Keys(out.Tables)) {
		if out.Tables[t] > out.Tables[most] {
			most = t
		}
	}
	out.Glob = d.Glob(most)
	return out, nil
}

// showBare prints such a run.
func (a *app) showBare(ctx context.Context, d *dataset.Dataset, id string) error {
	b, err := readBare(ctx, d, id)
	if err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(b)
	}
	what := "measured"
	if b.Run.Simulated {
		what = "simulated"
	}
	fmt.Fprintf(a.stdout, "%s\ntarget  %s\nrun     %s, %s, %s\n\n", clean(firstOf(b.Run.Title, "a run without a report")), clean(firstOf(b.Run.TargetInput, "-")), id, b.Run.Status, what)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tROWS")
	for _, t := range slices.Sorted(maps.Keys(b.Tables)) {
		fmt.Fprintf(w, "%s\t%d\n", t, b.Tables[t])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nduckdb -c \"SELECT * FROM read_parquet('%s', hive_partitioning=true, union_by_name=true) WHERE run_id='%s'\"\n", b.Glob, id)
	return nil
}
