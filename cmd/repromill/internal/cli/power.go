package cli

import (
	"fmt"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/compare"
)

// powered is what `power --json` prints.
type powered struct {
	Margin     float64     `json:"margin"`
	Diff       float64     `json:"diff"`
	Discordant float64     `json:"discordant"`
	Alpha      float64     `json:"alpha"`
	Power      float64     `json:"power"`
	Tests      []needed    `json:"tests"`
	Suite      *suitePower `json:"suite,omitempty"`
	Games      []game      `json:"simulated,omitempty"`
}

// needed is the size of a test that looks once.
type needed struct {
	Test      string  `json:"test"`
	Questions *int    `json:"questions"` // null if no number suffices
	Why       string  `json:"why,omitempty"`
	At        float64 `json:"power_at_total,omitzero"` // power with all questions of the benchmark
}

// suitePower is what repeats can do where the questions are few.
type suitePower struct {
	suites.Facts
	StdErr   float64 `json:"stderr"`
	Resolves float64 `json:"resolves"` // smallest difference shown at alpha per side with the power asked
	Enough   bool    `json:"enough"`
	Measured bool    `json:"within_measured"` // else assumed
	Repeats  int     `json:"repeats_needed"`
	Samples  int     `json:"samples_needed"` // per model
}

// game is the outcome of simulated comparisons by a sequential method.
type game struct {
	Method string `json:"method"`
	Total  int    `json:"questions"`
	compare.Tally
}

type powerFlags struct {
	margin, diff, discordant, suite, method string
	from                                    string
	alpha, power, within                    float64
	total, repeats, runs, look              int
	seed                                    uint64
	oneSided                                bool
}

func (a *app) powerCmd() *cobra.Command {
	var f powerFlags
	var known []string
	for _, s := range catalog.All() {
		known = append(known, s.Suite)
	}
	cmd := &cobra.Command{
		Use:   "power",
		Short: "Say how many questions and repeats a claim needs, before anything is spent",
		Long: `Say how many questions a claim of equivalence needs at a margin, what a suite can
and cannot resolve with the repeats that are usual for it, and (with --simulate)
how many questions the sequential methods use when they may stop at every look.

With --diff equal to minus the margin, --simulate measures how often a candidate
that is worse by exactly the margin passes: at most alpha for a method that is
valid.

Suites: ` + strings.Join(known, ", ") + `.`,
		Example: `  repromill power --margin 1pt --discordant 6%
  repromill power --margin 1pt --suite gpqa-diamond
  repromill power --margin 1pt --suite mmlu-pro --simulate 500 --look 16
  repromill power --margin 1pt --diff -1pt --total 12000 --simulate 10000 --method wor_e --one-sided`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.power(&f, cmd.Flags().Changed) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.margin, "margin", "1pt", "largest difference that counts as equal: 1pt, 1% or 0.01")
	fl.StringVar(&f.diff, "diff", "0", "true difference expected, candidate minus baseline")
	fl.StringVar(&f.discordant, "discordant", "6%", "share of questions on which the arms are expected to differ")
	fl.Float64Var(&f.alpha, "alpha", 0.05, "error rate per side")
	fl.Float64Var(&f.power, "power", 0.8, "chance of the right verdict")
	fl.StringVar(&f.suite, "suite", "", "suite, for its number of questions and usual repeats")
	fl.IntVar(&f.total, "total", 0, "questions of the benchmark; that of the suite, or 12,032")
	fl.IntVar(&f.repeats, "repeats", 0, "repeats per question; the suite's usual ones if not given")
	fl.Float64Var(&f.within, "within", 0, "mean variance p(1-p) of one answer around its question's own rate; assumed if not given")
	fl.StringVar(&f.from, "from", "", "estimate --within from the repeats in `FILE` of graded answers")
	fl.IntVar(&f.runs, "simulate", 0, "play this many comparisons with each sequential method")
	fl.StringVar(&f.method, "method", "", "simulate this method only")
	fl.IntVar(&f.look, "look", 1, "questions between looks")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of the simulation")
	fl.BoolVar(&f.oneSided, "one-sided", false, "claim only that the candidate is not worse by the margin")
	return cmd
}

func (a *app) power(f *powerFlags, changed func(string) bool) error {
	plan, err := f.plan()
	if err != nil {
		return err
	}
	if f.from != "" && f.suite == "" {
		return usererrf("add --suite", "--from says how answers to one question vary, which needs a suite")
	}
	out := powered{Margin: plan.Margin, Diff: plan.Diff, Discordant: plan.Discordant, Alpha: plan.Alpha, Power: plan.Power}
	total := 12032
	if f.suite != "" {
		facts, err := findFacts(f.suite)
		if err != nil {
			return err
		}
		total = facts.Questions
		if f.from != "" {
			if facts.Within, err = a.within(f.from); err != nil {
				return err
			}
		}
		if out.Suite, err = f.suitePower(facts, plan, changed); err != nil {
			return err
		}
		out.Suite.Measured = f.from != "" && !changed("within")
	}
	if f.total != 0 {
		if total = f.total; total < 1 {
			return usererrf("give the number of questions of the benchmark", "--total %d", f.total)
		}
	}
	for _, t := range []struct {
		name     string
		oneSided bool
	}{{"tost", false}, {"noninferiority", true}} {
		p := plan
		p.OneSided = t.oneSided
		n := needed{Test: t.name}
		if questions, err := p.Questions(); err != nil {
			n.Why = err.Error()
		} else {
			n.Questions, n.At = &questions, p.At(float64(total))
		}
		out.Tests = append(out.Tests, n)
	}
	if f.runs != 0 {
		if out.Games, err = f.simulate(plan, total); err != nil {
			return err
		}
	}
	if a.jsonOut {
		return a.printJSON(out)
	}
	a.printPower(out, total)
	return nil
}

// within estimates the variance within questions from stored repeats.
func (a *app) within(file string) (float64, error) {
	set, err := a.readSet(file, "")
	if err != nil {
		return 0, err
	}
	byID := set.Scores()
	scores := make([][]float64, 0, len(byID))
	for _, id := range sortedKeys(byID) {
		scores = append(scores, byID[id])
	}
	w, n := compare.Within(scores)
	if n == 0 || w == 0 {
		return 0, usererrf("give graded answers with several repeats of a question, or --within", "%s does not tell how answers to one question vary", file)
	}
	return w, nil
}

func (f *powerFlags) plan() (compare.Plan, error) {
	p := compare.Plan{Alpha: f.alpha, Power: f.power, OneSided: f.oneSided}
	for flag, dst := range map[string]*float64{"margin": &p.Margin, "diff": &p.Diff, "discordant": &p.Discordant} {
		v, err := points(flag, map[string]string{"margin": f.margin, "diff": f.diff, "discordant": f.discordant}[flag])
		if err != nil {
			return p, err
		}
		*dst = v
	}
	switch {
	case !(p.Margin > 0):
		return p, usererrf("give a margin such as 1pt", "--margin %s is not above 0", f.margin)
	case !(p.Discordant > 0) || math.Abs(p.Diff) > p.Discordant:
		return p, usererrf("give a share of at least the difference, such as 6%", "--discordant %s cannot go with --diff %s", f.discordant, f.diff)
	case !(p.Alpha > 0 && p.Alpha < 0.5) || !(p.Power > 0 && p.Power < 1):
		return p, usererrf("alpha is between 0 and 0.5, power between 0 and 1", "--alpha %v --power %v", p.Alpha, p.Power)
	}
	return p, nil
}

func findFacts(suite string) (suites.Facts, error) {
	d, err := catalog.All().Find(suite)
	return d.Facts, err
}

func (f *powerFlags) suitePower(k suites.Facts, p compare.Plan, changed func(string) bool) (*suitePower, error) {
	if changed("repeats") {
		k.Repeats = f.repeats
	}
	if changed("within") {
		k.Within = f.within
	}
	if changed("total") {
		k.Questions = f.total
	}
	if k.Repeats < 1 || k.Questions < 1 || !(k.Within > 0 && k.Within <= 0.25) {
		return nil, usererrf("repeats and questions are 1 or more, within is above 0 and at most 0.25", "--repeats %d --total %d --within %v", k.Repeats, k.Questions, k.Within)
	}
	s := suitePower{Facts: k, StdErr: compare.RepeatError(k.Questions, k.Repeats, k.Within)}
	s.Resolves = compare.Resolves(s.StdErr, p.Alpha, p.Power)
	s.Enough = s.Resolves <= p.Margin
	s.Repeats = compare.Repeats(k.Questions, k.Within, p.Margin, p.Alpha, p.Power)
	s.Samples = s.Repeats * k.Questions
	return &s, nil
}

func (f *powerFlags) simulate(p compare.Plan, total int) ([]game, error) {
	var out []game
	for _, m := range compare.Methods() {
		seq, ok := m.(compare.Sequential)
		if !ok || (f.method != "" && m.Name() != f.method) {
			continue
		}
		trial := compare.Trial{Method: seq, Diff: p.Diff, Differ: p.Discordant, Runs: f.runs, Seed: f.seed, Infinite: m.Name() != compare.WithoutReplacement().Name(),
			Options: compare.Options{Margin: p.Margin, Alpha: p.Alpha, Total: total, Look: f.look, OneSided: f.oneSided}}
		tally, err := trial.Run()
		if err != nil {
			return nil, err
		}
		out = append(out, game{m.Name(), total, tally})
	}
	if out == nil {
		return nil, usererrf("sequential methods are wor_e, mixture_e, betting_cs, asymptotic_cs", "--method %q cannot be simulated", f.method)
	}
	return out, nil
}

func (a *app) printPower(p powered, total int) {
	fmt.Fprintf(a.stdout, "margin %.2f pt, expected difference %s, %.1f %% of the questions differ, alpha %v per side, power %v\n", 100*p.Margin, pt(p.Diff), 100*p.Discordant, p.Alpha, p.Power)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "TEST\tQUESTIONS NEEDED\tPOWER WITH %d\n", total)
	for _, t := range p.Tests {
		if t.Questions == nil {
			fmt.Fprintf(w, "%s\tnone suffice: %s\t-\n", t.Test, t.Why)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%.3f\n", t.Test, *t.Questions, t.At)
	}
	w.Flush()
	if s := p.Suite; s != nil {
		kind := "assumed"
		if s.Measured {
			kind = "measured"
		}
		verdict := "resolves the margin"
		if !s.Enough {
			verdict = "cannot resolve the margin"
		}
		fmt.Fprintf(a.stdout, "%s: %d questions × %d repeats give a standard error of %.2f pt (within-question variance %.3g, %s): %s, it shows %.2f pt\n",
			s.Suite, s.Questions, s.Facts.Repeats, 100*s.StdErr, s.Within, kind, verdict, 100*s.Resolves)
		fmt.Fprintf(a.stdout, "  for the margin: %d repeats, %d answers of each model\n", s.Repeats, s.Samples)
		for _, n := range s.Needs {
			fmt.Fprintf(a.stdout, "  needs %s\n", n)
		}
	}
	if len(p.Games) == 0 {
		return
	}
	w = tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "METHOD\tRUNS\tPASSED %%\t±\tWORSE\tBETTER\tUNDECIDED\tQUESTIONS\tSAVED %%\n")
	for _, g := range p.Games {
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%d\t%d\t%d\t%.0f of %d\t%.1f\n", g.Method, g.Runs, 100*g.Passed, 100*g.PassedErr,
			g.Verdicts[compare.Worse], g.Verdicts[compare.Better], g.Verdicts[compare.Undecided], g.MeanUsed, g.Total, 100*g.Saved)
	}
	w.Flush()
}
