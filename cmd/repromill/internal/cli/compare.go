package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/samples"
)

// compared is what `compare --json` prints.
type compared struct {
	Baseline  string            `json:"baseline_file"`
	Candidate string            `json:"candidate_file"`
	Arms      [2]string         `json:"arms"`
	Order     string            `json:"order"`
	Results   []compare.Result  `json:"results"` // one for each method asked for
	Strata    []stratum         `json:"strata,omitempty"`
	Outcomes  [2]map[string]int `json:"outcomes"`
	Warnings  []string          `json:"warnings,omitempty"`
}

// stratum is the difference within one category; it has no verdict of its own.
type stratum struct {
	Category string  `json:"category"`
	N        int     `json:"n"`
	Diff     float64 `json:"diff"`
	BaseOnly int     `json:"b"`
	CandOnly int     `json:"c"`
}

type compareFlags struct {
	margin, method, arms string
	alpha                float64
	total, look          int
	seed                 uint64
	oneSided             bool
	failOn               []string
}

func (a *app) compareCmd() *cobra.Command {
	var f compareFlags
	var methods strings.Builder
	for _, m := range compare.Methods() {
		fmt.Fprintf(&methods, "  %-15s %s\n", m.Name(), m.Doc())
	}
	cmd := &cobra.Command{
		Use:   "compare BASELINE CANDIDATE",
		Short: "Say whether two sets of graded answers to the same questions are equivalent",
		Long: `Compare two sets of graded answers to the same questions, given as files of JSON
lines (item_id, score or outcome, and if there are any: repeat, cluster,
category, position) or as our Parquet files.

The verdict is equivalent (the difference lies within the margin), worse or
better (by more than the margin), or undecided; with --one-sided also
not_worse. Undecided is not a pass. Questions that share a passage are one
cluster; categories of a benchmark are not.

Sequential methods, which have "betting", "sequence" or "alarm" below, take the
questions in the order asked and say how many were needed. Methods:

` + methods.String() + `
The first is the default; "all" shows every method side by side, of which one is
to be chosen before looking.`,
		Example: `  repromill compare fp8.jsonl nvfp4.jsonl --margin 1pt
  repromill compare fp8.jsonl nvfp4.jsonl --margin 0.5pt --method tost --json
  repromill compare samples.parquet samples.parquet --arms fp8,nvfp4 --fail-on worse,undecided`,
		Args: exactArgs(2, "two files: baseline and candidate"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.compare(&f, args[0], args[1]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.margin, "margin", "1pt", "largest difference that counts as equal: 1pt, 1% or 0.01")
	fl.StringVar(&f.method, "method", "", "how to decide, or all")
	fl.StringVar(&f.arms, "arms", "", "arms to take from the files: `BASELINE,CANDIDATE`")
	fl.Float64Var(&f.alpha, "alpha", 0.05, "error rate per side")
	fl.IntVar(&f.total, "total", 0, "questions of the whole benchmark, where the files hold fewer")
	fl.IntVar(&f.look, "look", 1, "questions between looks of a sequential method")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of the order, where the files do not say in which the questions were asked")
	fl.BoolVar(&f.oneSided, "one-sided", false, "claim only that the candidate is not worse by the margin")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on these verdicts, comma separated")
	return cmd
}

// points reads 1pt, 1pp, 1% or the fraction 0.01.
func points(flag, s string) (float64, error) {
	num, scale := strings.TrimSpace(s), 1.0
	for _, unit := range []string{"pts", "pt", "pp", "%"} {
		if rest, ok := strings.CutSuffix(num, unit); ok {
			num, scale = strings.TrimSpace(rest), 100
			break
		}
	}
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || !(v/scale > -1 && v/scale < 1) {
		return 0, usererrf("give points as 1pt, per cent as 1% or a fraction as 0.01", "--%s %q is no difference of scores", flag, s)
	}
	return v / scale, nil
}

func (f *compareFlags) options() (compare.Options, error) {
	margin, err := points("margin", f.margin)
	return compare.Options{Margin: margin, Alpha: f.alpha, Total: f.total, Look: f.look, OneSided: f.oneSided, Seed: f.seed}, err
}

func (f *compareFlags) methods() ([]compare.Method, error) {
	if f.method == "all" {
		return compare.Methods(), nil
	}
	m, err := compare.Find(f.method)
	return []compare.Method{m}, err
}

func (f *compareFlags) check() error {
	known := []string{"equivalent", "worse", "better", "not_worse", "undecided"}
	for _, v := range f.failOn {
		if !slices.Contains(known, v) {
			return usererrf("verdicts are "+strings.Join(known, ", "), "--fail-on %q is no verdict", v)
		}
	}
	if len(f.failOn) > 0 && f.method == "all" {
		return usererrf("choose one method", "--fail-on needs one verdict, --method all gives several")
	}
	return nil
}

func (a *app) compare(f *compareFlags, baseFile, candFile string) error {
	if err := f.check(); err != nil {
		return err
	}
	methods, err := f.methods()
	if err != nil {
		return err
	}
	baseArm, candArm, both := strings.Cut(f.arms, ",")
	if f.arms != "" && (!both || baseArm == "" || candArm == "") {
		return usererrf("give both: --arms BASELINE,CANDIDATE", "--arms %q does not name two arms", f.arms)
	}
	if baseFile == "-" && candFile == "-" {
		return usererrf("give a file for one of them", "both sets cannot come from standard input")
	}
	base, err := a.readSet(baseFile, baseArm)
	if err != nil {
		return err
	}
	cand, err := a.readSet(candFile, candArm)
	if err != nil {
		return err
	}
	p, err := samples.Pair(base, cand, f.seed)
	if err != nil {
		return err
	}
	o, err := f.options()
	if err != nil {
		return err
	}
	out := compared{Baseline: baseFile, Candidate: candFile, Arms: [2]string{base.Arm, cand.Arm}, Order: p.Order, Warnings: p.Warnings, Strata: strata(p)}
	for i, s := range []*samples.Set{base, cand} {
		out.Outcomes[i] = map[string]int{}
		for o, n := range s.Outcomes {
			out.Outcomes[i][string(o)] = n
		}
	}
	for _, m := range methods {
		r, err := m.Compare(p.Pairs, o)
		if err != nil && len(methods) > 1 {
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s: %v", m.Name(), err))
			continue
		}
		if err != nil {
			return err
		}
		out.Results = append(out.Results, r)
	}
	if a.jsonOut {
		err = a.printJSON(out)
	} else {
		err = a.printCompared(out)
	}
	if err == nil && len(out.Results) == 1 && slices.Contains(f.failOn, string(out.Results[0].Verdict)) {
		return &exitError{exitFailOn}
	}
	return err
}

func (a *app) readSet(file, arm string) (*samples.Set, error) {
	s := samples.NewSet(file, arm)
	if err := a.readSamples(file, s.Add); err != nil {
		return nil, err
	}
	if s.Len() == 0 {
		return nil, usererrf("check --arms and the file", "%s has no scored answers of arm %q", file, arm)
	}
	return s, nil
}

func strata(p samples.Paired) []stratum {
	by := map[string]*stratum{}
	for _, x := range p.Pairs {
		c := p.Category[x.ID]
		if c == "" {
			return nil
		}
		s := by[c]
		if s == nil {
			s = &stratum{Category: c}
			by[c] = s
		}
		s.N++
		s.Diff += x.Diff()
		switch {
		case x.Diff() < 0:
			s.BaseOnly++
		case x.Diff() > 0:
			s.CandOnly++
		}
	}
	var out []stratum
	for _, c := range sortedKeys(by) {
		by[c].Diff /= float64(by[c].N)
		out = append(out, *by[c])
	}
	return out
}

func (a *app) printCompared(c compared) error {
	if len(c.Results) == 1 {
		a.printOne(c)
	} else {
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "METHOD\tVERDICT\tDIFFERENCE\tINTERVAL\tUSED\tSAVED")
		for _, r := range c.Results {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\n", r.Method, r.Verdict, pt(r.Diff), interval(r), r.Used, r.Saved)
		}
		w.Flush()
	}
	for _, warning := range c.Warnings {
		fmt.Fprintf(a.stdout, "note: %s\n", clean(oneLine(warning)))
	}
	return nil
}

// pt prints a difference of scores in points.
func pt(v float64) string { return fmt.Sprintf("%+.2f pt", 100*v) }

func interval(r compare.Result) string {
	if r.Level == 0 {
		return "no interval"
	}
	return fmt.Sprintf("%.0f %% [%+.2f, %+.2f]", 100*r.Level, 100*r.Lo, 100*r.Hi)
}

func (a *app) printOne(c compared) {
	r := c.Results[0]
	names := [2]string{firstOf(c.Arms[0], c.Baseline), firstOf(c.Arms[1], c.Candidate)}
	what := map[compare.Verdict]string{
		compare.Equivalent: "the difference is within the margin",
		compare.Worse:      "the candidate is worse by more than the margin",
		compare.Better:     "the candidate is better by more than the margin",
		compare.NotWorse:   "the candidate is not worse by the margin",
		compare.Undecided:  "the answers do not tell; this is not a pass",
	}[r.Verdict]
	fmt.Fprintf(a.stdout, "%s: %s (margin %.2f pt, alpha %v per side, %s)\n", r.Verdict, what, 100*r.Margin, r.Alpha, r.Method)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "  baseline\t%s\t%.2f %%\n", clean(names[0]), 100*r.Base)
	fmt.Fprintf(w, "  candidate\t%s\t%.2f %%\n", clean(names[1]), 100*r.Cand)
	fmt.Fprintf(w, "  difference\t%s\t%s, standard error %.2f\n", pt(r.Diff), interval(r), 100*r.StdErr)
	fmt.Fprintf(w, "  discordant\t%.2f %%\tbaseline better on %d, candidate better on %d\n", 100*r.Discordant(), r.BaseOnly, r.CandOnly)
	fmt.Fprintf(w, "  questions\t%d of %d\t%d saved; order: %s\n", r.Used, r.Total, r.Saved, c.Order)
	if r.Clusters < r.Used {
		fmt.Fprintf(w, "  clusters\t%d\tpassages that questions share\n", r.Clusters)
	}
	if r.PValue != nil {
		fmt.Fprintf(w, "  p\t%.4g\t\n", *r.PValue)
	}
	if r.EValue != nil {
		e := fmt.Sprintf("%.4g", *r.EValue)
		if *r.EValue >= math.MaxFloat64 {
			e = "certain"
		}
		fmt.Fprintf(w, "  e\t%s\tdecides at %.0f\n", e, 1/r.Alpha)
	}
	fmt.Fprintf(w, "  resolves\t%.2f pt\tsmallest difference shown with power 0.8\n", 100*r.MDE)
	w.Flush()
	for _, s := range c.Strata {
		fmt.Fprintf(a.stdout, "  %s: %s over %d questions\n", clean(s.Category), pt(s.Diff), s.N)
	}
	for _, s := range r.Assumptions {
		fmt.Fprintf(a.stdout, "assumed: %s\n", s)
	}
	for _, s := range r.Warnings {
		fmt.Fprintf(a.stdout, "note: %s\n", s)
	}
}
