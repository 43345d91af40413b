package repeat_test

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/collect"
	"github.com/repromill/repromill/runner/repeat"
	"github.com/repromill/repromill/runner/verdict"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/harness"
)

func ptr(v float64) *float64 { return &v }

// side is a run with one claim, one other number and one suite.
func side(edit func(*repeat.Side)) repeat.Side {
	p := &spec.Plan{Source: spec.Source{Repo: "r", Commit: "c"}}
	p.Seal()
	s := repeat.Side{RunID: "R", Plan: p, Outcome: runner.Outcome{
		PlanHash: p.Hash, Verdict: verdict.Aligned, Lock: "numpy==1.26.4\nscipy==1.11.0\n", Executor: "local", Python: "3.11",
		Claims:  []verdict.Row{{ClaimID: "c", Metric: "acc", RunID: "main", Verdict: verdict.Aligned, Measured: ptr(0.84), Reported: ptr(0.8), Tolerance: &spec.Tolerance{Value: 0.02, Kind: "absolute", Source: "stated"}}},
		Metrics: []runner.Measured{{Run: "main", Seed: 1, Value: collect.Value{Metric: "acc", Value: 0.84}}, {Run: "main", Seed: 1, Value: collect.Value{Metric: "loss", Value: 2}}},
		Suites: []runner.SuiteOutcome{{Suite: "aime", Result: &harness.Result{DatasetSHA: "d", Rule: "v1", Arms: []harness.ArmResult{{Arm: "a", Answers: 100, Score: 0.5}},
			Comparisons: []harness.Compared{{Baseline: "b", Candidate: "a", Result: compare.Result{Verdict: compare.Equivalent}}}}}},
	}}
	if edit != nil {
		edit(&s)
	}
	return s
}

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*repeat.Side)
		want repeat.Outcome
		why  string
		env  int
	}{
		"the same":             {nil, repeat.Same, "4 of 4", 0},
		"within the tolerance": {func(s *repeat.Side) { s.Outcome.Claims[0].Measured = ptr(0.825) }, repeat.Same, "4 of 4", 0},
		"beyond it":            {func(s *repeat.Side) { s.Outcome.Claims[0].Measured = ptr(0.81) }, repeat.Differs, "1 number lies beyond", 0},
		"another verdict":      {func(s *repeat.Side) { s.Outcome.Claims[0].Verdict = verdict.PartiallyAligned }, repeat.Differs, "1 verdict is another", 0},
		"not measured": {func(s *repeat.Side) {
			s.Outcome.Claims[0].Measured, s.Outcome.Claims[0].Verdict = nil, verdict.Inconclusive
		}, repeat.Incomplete, "1 number is measured in one", 0},
		"another number":        {func(s *repeat.Side) { s.Outcome.Metrics[1].Value.Value = 2.03 }, repeat.Differs, "beyond", 0},
		"within 1 %":            {func(s *repeat.Side) { s.Outcome.Metrics[1].Value.Value = 2.019 }, repeat.Same, "", 0},
		"a score by chance":     {func(s *repeat.Side) { s.Outcome.Suites[0].Result.Arms[0].Score = 0.6 }, repeat.Same, "", 0},
		"a score that fell":     {func(s *repeat.Side) { s.Outcome.Suites[0].Result.Arms[0].Score = 0.3 }, repeat.Differs, "", 0},
		"undecided":             {func(s *repeat.Side) { s.Outcome.Suites[0].Result.Comparisons[0].Result.Verdict = compare.Undecided }, repeat.Same, "", 0},
		"worse":                 {func(s *repeat.Side) { s.Outcome.Suites[0].Result.Comparisons[0].Result.Verdict = compare.Worse }, repeat.Differs, "1 verdict", 0},
		"without the suite":     {func(s *repeat.Side) { s.Outcome.Suites = nil }, repeat.Incomplete, "2 numbers", 0},
		"other packages":        {func(s *repeat.Side) { s.Outcome.Lock = "numpy==2.0.0\npandas==2.2.0\n" }, repeat.Same, "", 3},
		"another interpreter":   {func(s *repeat.Side) { s.Outcome.Python = "3.12" }, repeat.Same, "", 1},
		"a deviation":           {func(s *repeat.Side) { s.Outcome.Deviations = []spec.Deviation{{What: "isolation", Used: "none"}} }, repeat.Same, "", 1},
		"nothing at all":        {func(s *repeat.Side) { s.Outcome = runner.Outcome{PlanHash: s.Outcome.PlanHash} }, repeat.Incomplete, "", 4},
		"an infinite tolerance": {func(s *repeat.Side) { s.Outcome.Claims[0].Measured = ptr(-1) }, repeat.Differs, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := repeat.Compare(side(nil), side(c.edit), repeat.Options{})
			var b strings.Builder
			if err := r.Text(&b); err != nil {
				t.Fatal(err)
			}
			if r.Outcome != c.want || !strings.Contains(r.Reason, c.why) || len(r.Environment) != c.env {
				t.Errorf("%s: %s, environment %+v\n%s", r.Outcome, r.Reason, r.Environment, b.String())
			}
			if r.Fails([]string{"environment"}) != (c.env > 0) || !r.Fails([]string{"x", string(c.want)}) {
				t.Error("the outcome does not fail what it is named in")
			}
		})
	}
}

// TestSeeds: means over seeds may differ by what the seeds spread, and no more.
func TestSeeds(t *testing.T) {
	seeded := func(v float64) func(*repeat.Side) {
		return func(s *repeat.Side) {
			c := &s.Outcome.Claims[0]
			c.Measured, c.MeasuredLo, c.MeasuredHi, c.Seeds = ptr(v), ptr(v-0.03), ptr(v+0.03), 3
		}
	}
	for v, want := range map[float64]repeat.Status{0.84: repeat.Equal, 0.88: repeat.Within, 0.89: repeat.Beyond} {
		r := repeat.Compare(side(seeded(0.84)), side(seeded(v)), repeat.Options{})
		if got := r.Claims[0]; got.Status != want || !strings.Contains(got.By, "seeds") {
			t.Errorf("%v: %+v", v, got)
		}
	}
}
