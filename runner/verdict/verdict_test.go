package verdict

import (
	"math"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func ptr(v float64) *float64 { return &v }

func run(kind, route string, values ...float64) Run {
	r := Run{Spec: spec.Run{ID: "r", Kind: kind, Route: route, ClaimIDs: []string{"c"}}, Attempted: true}
	for i, v := range values {
		r.Values = append(r.Values, Value{Metric: "m", Seed: int64(i), Value: v, Quote: "m = x", File: "out.txt", Line: 3})
	}
	return r
}

func with(r Run, f func(*Run)) Run { f(&r); return r }

func TestJudge(t *testing.T) {
	acc := spec.Claim{Value: ptr(0.90), Direction: "higher", Tolerance: &spec.Tolerance{Value: 0.01, Kind: "absolute", Source: "stated"}}
	less := spec.Claim{ValueLo: ptr(31), ValueHi: ptr(42), Unit: "%", Relation: "difference"}
	fewer := spec.Claim{Value: ptr(5.4), Unit: "x", Relation: "ratio"}
	drop := spec.Claim{Value: ptr(-0.2), Relation: "difference"}
	upTo := spec.Claim{ValueHi: ptr(3), Unit: "x", Relation: "ratio"}
	full := func(v ...float64) []Run { return []Run{run("full", "recompute", v...)} }
	for name, c := range map[string]struct {
		claim  spec.Claim
		runs   []Run
		want   Verdict
		reason string
	}{
		"within":             {acc, full(0.905), Aligned, "within the tolerance"},
		"at the edge":        {acc, full(0.91), Aligned, ""},
		"better, one seed":   {acc, full(0.95), Inconclusive, "better than claimed"},
		"worse, one seed":    {acc, full(0.50), Inconclusive, "by one seed, which is no evidence"},
		"worse, three seeds": {acc, full(0.50, 0.51, 0.49), Inconclusive, "the whole interval over 3 seeds; worse"},
		"worse, deterministic": {acc, []Run{with(run("full", "recompute", 0.5), func(r *Run) {
			r.Spec.Seeding = &spec.Seeding{By: "exempt", Reason: "it reads what is stored"}
		})}, Inconclusive, "other seeds would give the same, since it reads what is stored"},
		"worse, one seed passed": {acc, []Run{with(run("full", "recompute", 0.5), func(r *Run) {
			r.Spec.Seeding = &spec.Seeding{By: "flag", Name: "--seed"}
		})}, Inconclusive, "no evidence against the claim"},
		"seeds straddle":            {acc, full(0.85, 0.93, 0.86), Inconclusive, "more seeds would decide"},
		"mean within, three seeds":  {acc, full(0.89, 0.90, 0.91), Aligned, "within"},
		"range, within":             {less, full(35), Aligned, "within the stated range"},
		"range, below":              {less, full(12), PartiallyAligned, "the same direction as claimed, of another size"},
		"range, above":              {less, full(60), PartiallyAligned, ""},
		"range, opposite":           {less, full(-3), Inconclusive, "direction of the effect is not shown"},
		"range, none":               {less, full(0), Inconclusive, ""},
		"range, interval has zero":  {less, full(-5, 20, 3), Inconclusive, "direction of the effect is not shown"},
		"range, interval above":     {less, full(10, 11, 12), PartiallyAligned, ""},
		"ratio, default tolerance":  {fewer, full(5.5), Aligned, "within the tolerance"},
		"ratio, smaller effect":     {fewer, full(2), PartiallyAligned, ""},
		"ratio, below one":          {fewer, full(0.9), Inconclusive, ""},
		"ratio, one":                {fewer, full(1), Inconclusive, ""},
		"negative, same direction":  {drop, full(-0.5), PartiallyAligned, ""},
		"negative, within":          {drop, full(-0.205), Aligned, ""},
		"negative, other":           {drop, full(0.2), Inconclusive, ""},
		"up to, within":             {upTo, full(2), Aligned, "within the stated range"},
		"up to, no effect":          {upTo, full(0.5), Inconclusive, ""},
		"up to, larger":             {upTo, full(4), PartiallyAligned, ""},
		"smoke run":                 {acc, []Run{run("smoke", "recompute", 0.9)}, Inconclusive, "not counted, since it is a smoke run"},
		"short schedule":            {acc, []Run{run("minimal", "short_schedule", 0.9)}, Inconclusive, "shortened"},
		"reduced training":          {less, []Run{run("minimal", "reduced_training", 12)}, Inconclusive, "reduced"},
		"minimal on the checkpoint": {acc, []Run{run("minimal", "eval_checkpoint", 0.9)}, Aligned, ""},
		"patched": {acc, []Run{with(run("full", "recompute", 0.9), func(r *Run) {
			r.Spec.Patches = []spec.Patch{{File: "a.py"}}
		})}, Inconclusive, "the code was patched"},
		"patched, yet stated for this run": {acc, []Run{with(run("full", "recompute", 0.9), func(r *Run) {
			r.Spec.Patches = []spec.Patch{{File: "a.py"}}
			r.Spec.Expects = &spec.Expectation{Metric: "m", Value: 0.9}
		})}, Aligned, ""},
		"patched, and another value stated for this run": {acc, []Run{with(run("full", "recompute", 0.9), func(r *Run) {
			r.Spec.Patches = []spec.Patch{{Kind: "flag"}}
			r.Spec.Expects = &spec.Expectation{Metric: "m", Value: 0.7}
		})}, Inconclusive, "its command was changed"},
		"other data set": {spec.Claim{Value: ptr(0.9), Dataset: "ImageNet"}, []Run{with(run("full", "recompute", 0.9), func(r *Run) {
			r.Spec.Expects = &spec.Expectation{Metric: "other", Dataset: "CIFAR-10"}
		})}, Inconclusive, "it ran on CIFAR-10 instead of ImageNet"},
		"failed run with a value": {acc, []Run{with(run("full", "recompute", 0.9), func(r *Run) {
			r.Reason = "it was stopped by the time limit"
		})}, Inconclusive, "not counted, since it was stopped by the time limit"},
		"failed run": {acc, []Run{with(run("full", "recompute"), func(r *Run) { r.Reason = "the command ended with code 1" })},
			Inconclusive, "the command ended with code 1"},
		"metric not found": {acc, []Run{with(run("full", "recompute"), func(r *Run) {
			r.Missing = []Metric{{"m", "no line matches"}}
		})}, Inconclusive, "metric m was not found: no line matches"},
		"no rule":         {acc, full(), Inconclusive, "no rule of run r collects the metric m"},
		"NaN is no value": {acc, full(math.NaN()), Inconclusive, "no rule"},
		"not attempted": {acc, []Run{with(run("full", "recompute"), func(r *Run) {
			r.Attempted, r.Reason = false, "it needs 8 GPUs"
		})}, NotAttempted, "run r was not executed: it needs 8 GPUs"},
		"no run":         {acc, nil, NotAttempted, "no run of the plan"},
		"figure only":    {spec.Claim{Value: ptr(1), Checkable: "figure_only"}, full(1), NotCheckable, "figure"},
		"no number":      {spec.Claim{}, full(1), NotCheckable, "no number"},
		"infinite":       {spec.Claim{Value: ptr(math.Inf(1))}, full(1), NotCheckable, "not finite"},
		"units differ":   {less, []Run{with(run("full", "recompute", 35), func(r *Run) { r.Values[0].Unit = "fraction" })}, Inconclusive, `in "%" and the measurement in "fraction"`},
		"units synonyms": {less, []Run{with(run("full", "recompute", 35), func(r *Run) { r.Values[0].Unit = "percent" })}, Aligned, ""},
		"comparable before fuller": {acc, []Run{
			run("full", "short_schedule", 0.1), with(run("minimal", "recompute", 0.9), func(r *Run) { r.Spec.ID = "min" }),
		}, Aligned, ""},
		"fuller before smoke, whatever it says": {acc, []Run{
			run("smoke", "recompute", 0.9), with(run("full", "recompute", 0.1), func(r *Run) { r.Spec.ID = "full" }),
		}, Inconclusive, "worse than claimed"},
		"simulated": {acc, []Run{with(run("full", "recompute", 0.9), func(r *Run) { r.Simulated = true })}, Aligned, "(in a simulation)"},
	} {
		t.Run(name, func(t *testing.T) {
			c.claim.ID, c.claim.Metric = "c", "m"
			if c.claim.Checkable == "" {
				c.claim.Checkable = "numeric"
			}
			row := Judge([]spec.Claim{c.claim}, c.runs)[0]
			if row.Verdict != c.want || !strings.Contains(row.Reason, c.reason) {
				t.Errorf("%s: %s\nwant %s with %q", row.Verdict, row.Reason, c.want, c.reason)
			}
			if strings.Contains(strings.ToLower(row.Reason), "failed to reproduce") {
				t.Error("the verdict accuses")
			}
		})
	}
}

// TestStatedOnOneLine: what a document shows as a run's output holds for all
// values of that line, whatever had to be changed for the run.
func TestStatedOnOneLine(t *testing.T) {
	at := spec.Where{File: "README.md", Line: 80}
	claims := []spec.Claim{
		{ID: "a", Metric: "m", Value: ptr(0.3), Checkable: "numeric", Where: at},
		{ID: "b", Metric: "n", Value: ptr(1), Checkable: "numeric", Where: at},
		{ID: "c", Metric: "n", Value: ptr(1), Checkable: "numeric", Where: spec.Where{File: "README.md", Line: 81}},
	}
	r := run("minimal", "recompute", 0.3)
	r.Spec.ClaimIDs = []string{"a", "b", "c"}
	r.Spec.Expects = &spec.Expectation{Metric: "m", Value: 0.3}
	r.Spec.Patches = []spec.Patch{{Kind: "source", File: "a.py"}}
	r.Values = append(r.Values, Value{Metric: "n", Value: 1})
	for i, want := range []Verdict{Aligned, Aligned, Inconclusive} {
		if row := Judge(claims, []Run{r})[i]; row.Verdict != want {
			t.Errorf("claim %s: %s, %s; want %s", row.ClaimID, row.Verdict, row.Reason, want)
		}
	}
}

func TestRowCarriesItsEvidence(t *testing.T) {
	c := spec.Claim{ID: "c", Metric: "m", Value: ptr(1), Checkable: "numeric"}
	row := Judge([]spec.Claim{c}, []Run{run("full", "recompute", 1, 1.02)})[0]
	if row.Seeds != 2 || row.MeasuredLo == nil || *row.MeasuredLo >= 1.01 || *row.Measured != 1.01 ||
		row.Quote != "m = x" || row.File != "out.txt" || row.Line != 3 || row.Tolerance.Source != "default" || row.RunID != "r" {
		t.Errorf("row = %+v", row)
	}
}

func TestOverall(t *testing.T) {
	for _, c := range []struct {
		rows string
		want Verdict
	}{
		{"", NotCheckable},
		{"k k", NotCheckable},
		{"k n", NotAttempted},
		{"a", Aligned},
		{"a k n", Aligned},
		{"a i", PartiallyAligned},
		{"a p", PartiallyAligned},
		{"p", PartiallyAligned},
		{"p i", PartiallyAligned},
		{"i i k", Inconclusive},
		{"i n", Inconclusive},
	} {
		var rows []Row
		for _, f := range strings.Fields(c.rows) {
			rows = append(rows, Row{Verdict: map[string]Verdict{"a": Aligned, "p": PartiallyAligned, "i": Inconclusive, "n": NotAttempted, "k": NotCheckable}[f]})
		}
		if got, why := Overall(rows); got != c.want || why == "" {
			t.Errorf("Overall(%q) = %s (%s), want %s", c.rows, got, why, c.want)
		}
	}
}

// The expected quantiles are those of R's qt(0.975, df).
func TestStudentT(t *testing.T) {
	for df, want := range map[int]float64{1: 12.7062, 10: 2.2281, 30: 2.0423, 31: 2.0395, 40: 2.0211, 120: 1.9799, 100000: 1.95998} {
		if got := studentT975(df); math.Abs(got-want) > 6e-5 {
			t.Errorf("t(%d) = %.5f, want %.5f", df, got, want)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	r := run("full", "recompute", 1, 2, 3)
	claims := make([]spec.Claim, 200)
	for i := range claims {
		claims[i] = spec.Claim{ID: "c", Metric: "m", Value: ptr(2), Checkable: "numeric"}
	}
	for b.Loop() {
		Judge(claims, []Run{r})
	}
}
