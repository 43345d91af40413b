package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/observe"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// observed is what the results of a site tell.
type observed struct {
	runs      int
	rows      []calibrate.Row
	skipped   []observe.Skipped
	lengths   observe.Lengths
	estimates []schema.EstimateRow
}

// readResults reads every committed run of a dataset.
func (a *app) readResults(ctx context.Context, dir string) (*observed, error) {
	dir = a.expand(dir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, usererrf("name a folder of results; `repromill config show` prints yours as paths.results", "--from %q is no folder", dir)
	}
	d, err := dataset.Open(dir, dataset.Config{Now: a.now, Tool: createdBy()})
	if err != nil {
		return nil, err
	}
	runs, err := d.List(ctx)
	if err != nil {
		return nil, err
	}
	out := &observed{runs: len(runs)}
	for _, m := range runs {
		if err := out.run(ctx, d, &m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (o *observed) run(ctx context.Context, d *dataset.Dataset, m *dataset.Manifest) error {
	if m.Rows(schema.Estimates) > 0 {
		rows, err := dataset.Read[schema.EstimateRow](ctx, d, m.RunID)
		if err != nil {
			return err
		}
		o.estimates = append(o.estimates, rows...)
	}
	if m.Rows(schema.Samples) > 0 {
		err := dataset.Each(ctx, d, m.RunID, func(rows []schema.SampleRow) error { o.lengths.Add(rows); return nil })
		if err != nil {
			return err
		}
	}
	if m.Rows(schema.Requests) == 0 {
		return nil
	}
	var r observe.Run
	runs, err := dataset.Read[schema.RunRow](ctx, d, m.RunID)
	if err != nil {
		return err
	}
	if len(runs) > 0 {
		r.Run = runs[0]
	}
	if r.Servers, err = dataset.Read[schema.ServerRow](ctx, d, m.RunID); err != nil {
		return err
	}
	if r.Requests, err = dataset.Read[schema.RequestRow](ctx, d, m.RunID); err != nil {
		return err
	}
	rows, skipped := observe.Rows(r)
	o.rows, o.skipped = append(o.rows, rows...), append(o.skipped, skipped...)
	return nil
}

// structures are the configurations of the models that were measured: from a
// folder, and from the hub for those that it lacks.
func (a *app) structures(ctx context.Context, f *rowsFlags, o *observed) (*calibrate.Configs, error) {
	configs, err := f.folder()
	if err != nil {
		return nil, err
	}
	pl, err := a.pipeline()
	if err != nil {
		return nil, err
	}
	missing := map[string]string{}
	o.rows = slices.DeleteFunc(o.rows, func(r calibrate.Row) bool {
		why, tried := missing[r.Model]
		if !tried && !configs.Has(r.Model) {
			m, err := pl.Structure(ctx, r.Model, "")
			if err == nil {
				configs.Add(m)
			} else {
				why = "its model's structure could not be read: " + err.Error()
			}
		}
		missing[r.Model] = why
		if why != "" {
			o.skipped = append(o.skipped, observe.Skipped{Cell: r.Source + "/" + r.Model, Why: why})
		}
		return why != ""
	})
	return configs, ctx.Err()
}

// learn makes a calibration from the results of a site.
func (a *app) learn(ctx context.Context, f *rowsFlags, dir, base string) (*calibrate.Calibration, *observed, error) {
	o, err := a.readResults(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	cal, err := a.calibration(base)
	if err != nil {
		return nil, nil, err
	}
	lengths := o.lengths.Rows()
	if len(o.rows) > 0 {
		configs, err := a.structures(ctx, f, o)
		if err != nil {
			return nil, nil, err
		}
		if len(o.rows) > 0 {
			if cal, err = cal.Learn(o.rows, configs); err != nil {
				return nil, nil, err
			}
		}
	}
	if len(o.rows) == 0 && len(lengths) == 0 {
		return nil, nil, usererrf("measure first: `repromill load` and accuracy suites write what estimates learn from", "%d runs in %s hold nothing to learn from%s", o.runs, dir, o.because())
	}
	if len(lengths) > 0 {
		cal.Lengths = lengths
	}
	return cal, o, nil
}

// because names the first reasons why cells were left out.
func (o *observed) because() string {
	var why []string
	for _, s := range o.skipped {
		if !slices.Contains(why, s.Why) && len(why) < 3 {
			why = append(why, s.Why)
		}
	}
	if len(why) == 0 {
		return ""
	}
	return ": " + strings.Join(why, "; ")
}

// learnt says what a calibration took from the results of a site.
func (a *app) learnt(o *observed, cal *calibrate.Calibration) {
	fmt.Fprintf(a.stderr, "learnt from %d cells of %d runs", len(o.rows), o.runs)
	if n := len(cal.Lengths); n > 0 {
		fmt.Fprintf(a.stderr, ", and the answer lengths of %d suites", n)
	}
	if n := len(o.skipped); n > 0 {
		fmt.Fprintf(a.stderr, "; %d cells were left out%s", n, clean(o.because()))
	}
	fmt.Fprintln(a.stderr)
}

// pastScores is what `estimate backtest --from DIR --json` prints.
type pastScores struct {
	Runs       int               `json:"runs"`
	Estimates  []calibrate.Score `json:"estimates"`            // of the estimates table, by quantity
	Throughput *calibrate.Report `json:"throughput,omitempty"` // of load cells
	Skipped    []observe.Skipped `json:"skipped,omitempty"`
}

// backtestResults scores earlier estimates against what was measured after them,
// and the calibration against the load cells.
func (a *app) backtestResults(ctx context.Context, f *rowsFlags, dir, base string) error {
	o, err := a.readResults(ctx, dir)
	if err != nil {
		return err
	}
	out := pastScores{Runs: o.runs, Estimates: observe.Scores(o.estimates)}
	if len(o.rows) > 0 {
		configs, err := a.structures(ctx, f, o)
		if err != nil {
			return err
		}
		cal, err := a.calibration(base)
		if err != nil {
			return err
		}
		if len(o.rows) > 0 {
			if out.Throughput, err = cal.Check(o.rows, configs); err != nil {
				return err
			}
		}
	}
	out.Skipped = o.skipped
	if a.jsonOut {
		return a.printJSON(out)
	}
	fmt.Fprintf(a.stdout, "Estimates of %d runs against what they measured\n", o.runs)
	w := scoreTable(a)
	for _, s := range out.Estimates {
		score(w, s.Name, s)
	}
	w.Flush()
	if len(out.Estimates) == 0 {
		fmt.Fprintln(a.stdout, "no run has measured what was estimated for it")
	}
	if out.Throughput != nil {
		fmt.Fprintln(a.stdout)
		a.printReportTable(out.Throughput)
	}
	if len(o.skipped) > 0 {
		fmt.Fprintf(a.stdout, "%d cells were left out%s\n", len(o.skipped), clean(o.because()))
	}
	return nil
}
