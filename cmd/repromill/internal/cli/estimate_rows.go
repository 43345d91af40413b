package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/results/atomicfile"
)

func (a *app) estimateSKUsCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "skus",
		Short:   "List the GPUs of the catalogue; --json adds the source of every number",
		Example: "  repromill estimate skus\n  repromill estimate skus --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			all := sku.Catalogue()
			if a.jsonOut {
				return a.printJSON(all)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tGB\tTB/S\tBF16\tFP8\tFP4\tLINK GB/S\tW\tNVFP4 RUNS AS\tUSD/H ON DEMAND\tOWNED")
			for _, s := range all {
				fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.0f\t%s\t%s\t%.0f\t%.0f\t%s\t%s\t%s\n", s.ID, s.MemoryGB.Value, s.Bandwidth.Value, s.BF16.Value,
					rateText(s.FP8), rateText(s.FP4), s.Link.Value, s.PowerW.Value, s.NVFP4, defaultPrice(s.ID, sku.OnDemand), defaultPrice(s.ID, sku.Owned))
			}
			return w.Flush()
		},
	}
}

func rateText(c sku.Cell) string {
	if c.Value == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", c.Value)
}

func defaultPrice(id string, terms sku.Terms) string {
	p, ok := sku.DefaultPrice(id, terms)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f–%.2f (%s)", p.Low, p.High, p.AsOf)
}

// rowsFlags name measured rows and the models they are of.
type rowsFlags struct{ configs string }

func (f *rowsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.configs, "configs", "", "`DIR` with the config.json of each model, as NAME.json")
}

func (f *rowsFlags) read(file string) ([]calibrate.Row, *calibrate.Configs, error) {
	fd, err := os.Open(file)
	if err != nil {
		return nil, nil, usererrf("name a CSV file of measured rows", "cannot read rows: %v", err)
	}
	defer fd.Close()
	rows, err := calibrate.ReadRows(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	configs, err := f.folder()
	return rows, configs, err
}

// folder reads the configurations of --configs, none where it is not given.
func (f *rowsFlags) folder() (*calibrate.Configs, error) {
	if f.configs == "" {
		return &calibrate.Configs{}, nil
	}
	if info, err := os.Stat(f.configs); err != nil || !info.IsDir() {
		return nil, usererrf("name a folder of config.json files", "--configs %q is no folder", f.configs)
	}
	return calibrate.ReadConfigs(os.DirFS(f.configs))
}

func (a *app) estimateRowsCmd() *cobra.Command {
	var f rowsFlags
	var calibration string
	cmd := &cobra.Command{
		Use:     "rows FILE.csv",
		Short:   "Estimate every row of a CSV file, beside what it measured",
		Example: "  repromill estimate rows mine.csv --configs configs/ --json",
		Args:    exactArgs(1, "one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			rows, configs, err := f.read(args[0])
			if err != nil {
				return err
			}
			cal, err := a.calibration(calibration)
			if err != nil {
				return err
			}
			r, err := cal.Check(rows, configs)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(r.Predictions)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "LINE\tMODEL\tGPU\tPRECISION\tENGINE\tMEASURED\tESTIMATE\tERROR\tINSIDE")
			for _, p := range r.Predictions {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s (%s–%s)\t%+.0f %%\t%v\n", p.Line, clean(p.Model), p.SKU, clean(p.Precision), p.Engine, sig(p.Measured),
					sig(p.P50), sig(p.P10), sig(p.P90), 100*(p.P50/p.Measured-1), p.P10 <= p.Measured && p.Measured <= p.P90)
			}
			return w.Flush()
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&calibration, "calibration", "", "use the calibration in `FILE`")
	return cmd
}

func (a *app) estimateBacktestCmd() *cobra.Command {
	var f rowsFlags
	var leaveOut []string
	var calibration string
	var predictions bool
	var from string
	cmd := &cobra.Command{
		Use:   "backtest FILE.csv | --from DIR",
		Short: "Score the estimates against measured rows that they had not seen",
		Long: `Predict each row from rows of other GPUs (--leave-out sku) or of other models
(--leave-out model), fitting everything from scratch for each fold. Given both,
each is reported, and then both pooled. Without --leave-out the rows are scored
with the calibration that comes with the program, or with --calibration.

With --from, the estimates that earlier runs were given are scored against what
those runs measured, and the calibration against the load cells among them.

Errors are per cent of the measured output tokens per second.`,
		Example: `  repromill estimate backtest measured.csv --configs configs/ --leave-out sku
  repromill estimate backtest measured.csv --configs configs/ --leave-out sku,model --json
  repromill estimate backtest --from ~/.local/share/repromill`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (from != "") == (len(args) == 1) {
				return usererrf("see `repromill estimate backtest --help`", "backtest takes one of a file and --from DIR")
			}
			if from != "" {
				return a.backtestResults(cmd.Context(), &f, from, calibration)
			}
			rows, configs, err := f.read(args[0])
			if err != nil {
				return err
			}
			var reports []*calibrate.Report
			for _, kind := range leaveOut {
				r, err := calibrate.Backtest(rows, configs, kind)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			if len(leaveOut) == 0 {
				cal, err := a.calibration(calibration)
				if err != nil {
					return err
				}
				r, err := cal.Check(rows, configs)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			return a.printReports(reports, predictions)
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&leaveOut, "leave-out", nil, "what a fold leaves out: sku, model, or both as sku,model")
	cmd.Flags().StringVar(&calibration, "calibration", "", "without --leave-out: score the calibration in `FILE`")
	cmd.Flags().StringVar(&from, "from", "", "score the estimates in the results of `DIR`")
	cmd.Flags().BoolVar(&predictions, "predictions", false, "with --json: every row's prediction")
	return cmd
}

// pooled is what `backtest --json` prints for several kinds of folds.
type pooled struct {
	calibrate.Score
	Reports []*calibrate.Report `json:"reports"`
}

func (a *app) printReports(reports []*calibrate.Report, predictions bool) error {
	var pool *calibrate.Report
	if len(reports) > 1 {
		pool = calibrate.Pool(reports...)
		pool.Name = "pooled"
	}
	if !predictions {
		for _, r := range reports {
			r.Predictions = nil
		}
	}
	if a.jsonOut {
		if pool == nil {
			return a.printJSON(reports[0])
		}
		return a.printJSON(pooled{pool.Score, reports})
	}
	for _, r := range reports {
		a.printReportTable(r)
	}
	if pool != nil {
		fmt.Fprintln(a.stdout)
		w := scoreTable(a)
		score(w, "pooled", pool.Score)
		w.Flush()
	}
	return nil
}

func scoreTable(a *app) *tabwriter.Writer {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tN\tMEDIAN\tP90\tBIAS\tINSIDE 80 %\t")
	return w
}

func score(w *tabwriter.Writer, name string, s calibrate.Score) {
	fmt.Fprintf(w, "%s\t%d\t%.1f %%\t%.1f %%\t%+.1f %%\t%.1f %%\t\n", clean(name), s.N, s.Median, s.P90, s.Bias, s.Coverage)
}

func (a *app) printReportTable(r *calibrate.Report) {
	title := "Scored with a calibration that was fitted before"
	if r.LeaveOut != "none" {
		title = "Leaving out one " + r.LeaveOut + " at a time, everything fitted without it"
	}
	fmt.Fprintln(a.stdout, title)
	w := scoreTable(a)
	score(w, "overall", r.Score)
	groups := []struct {
		name string
		list []calibrate.Score
	}{{"fold", r.Folds}, {"sku", r.SKUs}, {"model", r.Models}, {"precision", r.Precisions}, {"engine", r.Engines}}
	for _, g := range groups {
		if (g.name == "fold" && r.LeaveOut == "none") || (g.name == r.LeaveOut && len(g.list) == len(r.Folds)) {
			continue
		}
		for _, s := range g.list {
			score(w, g.name+" "+s.Name, s)
		}
	}
	w.Flush()
	if n := r.NVFP4; n != nil {
		fmt.Fprintf(a.stdout, "NVFP4 over FP8 at equal configuration, %d pairs: measured %.2f, predicted %.2f, median error %.1f %%; the best constant, %.2f, errs by %.1f %%\n",
			n.Pairs, n.Measured, n.Predicted, n.Median, n.BestConstant, n.ConstantError)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(a.stdout, note)
	}
	fmt.Fprintln(a.stdout)
}

func (a *app) estimateCalibrateCmd() *cobra.Command {
	var f rowsFlags
	var out, from, base string
	cmd := &cobra.Command{
		Use:   "calibrate FILE.csv | --from DIR",
		Short: "Fit the estimates to measured rows",
		Long: `Fit the time model to measured rows and write the fitted constants, with the
sources of the rows and the intervals that errors on left-out rows give. The
calibration that comes with the program was written by this command.

With --from, learn from the results of this site on top of the calibration that
comes with the program: closed-loop load cells give throughputs, accuracy suites
give the lengths of answers. A row tells most of its own model, GPU and format,
less of what shares one of them. Name the file as calibration in config.yaml, and
every estimate uses it.`,
		Example: "  repromill estimate calibrate measured.csv --configs configs/ -o calibration.json\n  repromill estimate calibrate --from ~/.local/share/repromill -o site.json\n  repromill estimate Qwen/Qwen3-32B --calibration site.json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (from != "") == (len(args) == 1) {
				return usererrf("see `repromill estimate calibrate --help`", "calibrate takes one of a file and --from DIR")
			}
			cal, err := a.fit(cmd.Context(), &f, args, from, base)
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := cal.Write(&b); err != nil {
				return err
			}
			if out == "" || out == "-" {
				_, err := a.stdout.Write(b.Bytes())
				return err
			}
			if err := atomicfile.Write(out, b.Bytes(), atomicfile.Options{}); err != nil {
				return fmt.Errorf("write calibration: %w", err)
			}
			fmt.Fprintf(a.stdout, "fitted to %d rows of %d configurations; written to %s\n", cal.Rows, len(cal.Cells), out)
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to `FILE` instead of standard output")
	cmd.Flags().StringVar(&from, "from", "", "learn from the results in `DIR`")
	cmd.Flags().StringVar(&base, "calibration", "", "with --from: learn on top of the calibration in `FILE`")
	return cmd
}

// fit makes a calibration from a file of rows, or from the results of a site.
func (a *app) fit(ctx context.Context, f *rowsFlags, args []string, from, base string) (*calibrate.Calibration, error) {
	if from != "" {
		cal, o, err := a.learn(ctx, f, from, base)
		if err == nil {
			a.learnt(o, cal)
		}
		return cal, err
	}
	rows, configs, err := f.read(args[0])
	if err != nil {
		return nil, err
	}
	return calibrate.Fit(rows, configs)
}
