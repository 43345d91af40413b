package repeat

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/harness"
	loadcompare "github.com/repromill/repromill/suites/load/compare"
)

// suites compares what came of the plan's suites.
func (r *Report) suites(a, b Side) {
	for _, x := range a.Outcome.Suites {
		i := slices.IndexFunc(b.Outcome.Suites, func(y runner.SuiteOutcome) bool { return y.Suite == x.Suite })
		var y runner.SuiteOutcome
		if i >= 0 {
			y = b.Outcome.Suites[i]
		}
		if x.Result != nil {
			r.accuracy(x.Suite, x.Result, y.Result, y.Refused)
		}
		if x.Throughput != nil {
			var theirs []loadcompare.Comparison
			if y.Throughput != nil {
				theirs = y.Throughput.Comparisons
			}
			r.throughput(x.Suite, x.Throughput.Comparisons, theirs)
		}
	}
}

func (r *Report) accuracy(suite string, x, y *harness.Result, refused string) {
	if y == nil {
		y = &harness.Result{}
	}
	for _, arm := range x.Arms {
		v := Value{ID: suite + "/" + arm.Arm, Metric: "score", Unit: "fraction", Original: &arm.Score, Reason: refused}
		allowed, by := 0.0, ""
		if j := slices.IndexFunc(y.Arms, func(a harness.ArmResult) bool { return a.Arm == arm.Arm }); j >= 0 {
			again := y.Arms[j]
			v.Repeat = &again.Score
			// Scores of questions lie between 0 and 1, so that their variance is at most
			// p(1-p); that both runs ask the same questions makes the true spread smaller.
			p := (arm.Score + again.Score) / 2
			if n, m := float64(arm.Answers), float64(again.Answers); n > 0 && m > 0 {
				allowed = 1.96 * math.Sqrt(max(p*(1-p), 0)*(1/n+1/m))
				by = fmt.Sprintf("sampling of %d and %d answers, 95 %%", arm.Answers, again.Answers)
			}
		}
		v.weigh(allowed, by)
		r.Scores = append(r.Scores, v)
	}
	for _, c := range x.Comparisons {
		d := Decision{Suite: suite, What: c.Candidate + " against " + c.Baseline, Original: string(c.Result.Verdict)}
		if j := slices.IndexFunc(y.Comparisons, func(k harness.Compared) bool { return k.Candidate == c.Candidate && k.Baseline == c.Baseline }); j >= 0 {
			d.Repeat = string(y.Comparisons[j].Result.Verdict)
		}
		d.weigh(string(compare.Undecided))
		r.Comparisons = append(r.Comparisons, d)
	}
}

func (r *Report) throughput(suite string, ours, theirs []loadcompare.Comparison) {
	id := func(c loadcompare.Comparison) string {
		return strings.TrimRight(fmt.Sprintf("%s of %s against %s, %s %s %s", c.Metric, c.Cand.Arm, c.Base.Arm, c.Question, c.Workload, c.Cand.Cell), " ")
	}
	for _, c := range ours {
		d := Decision{Suite: suite, What: id(c), Original: string(c.Verdict)}
		if j := slices.IndexFunc(theirs, func(k loadcompare.Comparison) bool { return id(k) == id(c) }); j >= 0 {
			d.Repeat = string(theirs[j].Verdict)
		}
		d.weigh(string(loadcompare.Undecided))
		r.Comparisons = append(r.Comparisons, d)
	}
}

// weigh calls a verdict another only where both runs decided.
func (d *Decision) weigh(undecided string) {
	switch {
	case d.Repeat == "":
		d.Status = Missing
	case d.Original == d.Repeat:
		d.Status = Equal
	case d.Original == undecided || d.Repeat == undecided:
		d.Status = Within
	default:
		d.Status = Beyond
	}
}
