// Package repeat compares a run with its repetition: whether the same plan gave
// the same verdicts and numbers, what of the environment was another, and what
// each cost. It is pure.
package repeat

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
)

// SchemaV1 names the shape of a [Report]'s JSON.
const SchemaV1 = "repromill.rerun/v1"

// Outcome of a repetition.
type Outcome string

// The outcomes.
const (
	Same       Outcome = "same"       // every verdict is the same, every number within its tolerance
	Differs    Outcome = "differs"    // a verdict is another, or a number lies beyond its tolerance
	Incomplete Outcome = "incomplete" // nothing differs, but something was measured in one of the two only
)

// Side is one of the two runs.
type Side struct {
	RunID   string
	Plan    *spec.Plan
	Outcome runner.Outcome
}

// Report is what came of a repetition.
type Report struct {
	Schema   string  `json:"schema"`
	Outcome  Outcome `json:"outcome"`
	Reason   string  `json:"reason"`
	Original Summary `json:"original"`
	Repeat   Summary `json:"repeat"`
	// Claims and Metrics are numbers of commands: those that claims are judged by,
	// and the others. Scores are of the arms of suites.
	Claims  []Value `json:"claims"`
	Metrics []Value `json:"metrics"`
	Scores  []Value `json:"scores"`
	// Comparisons are the verdicts of suites on one arm against another.
	Comparisons []Decision   `json:"comparisons"`
	Environment []Difference `json:"environment"` // what was another; empty is the same
}

// Summary is one run in short. The cost is what was used, not what was planned.
type Summary struct {
	RunID    string      `json:"run_id"`
	PlanHash string      `json:"plan_hash"`
	Verdict  string      `json:"verdict"`
	Reason   string      `json:"reason,omitempty"`
	Executor string      `json:"executor,omitempty"`
	SKU      string      `json:"sku,omitempty"`
	Finished time.Time   `json:"finished,omitzero"`
	Spend    store.Spend `json:"spend"`
}

// Status of a number.
type Status string

// The statuses. A number that neither run has is no difference.
const (
	Equal   Status = "equal"
	Within  Status = "within"
	Beyond  Status = "beyond"
	Missing Status = "missing" // measured in one of the two only
	Absent  Status = "absent"  // measured in neither
)

// Value is one number in both runs.
type Value struct {
	ID       string   `json:"id"`
	Metric   string   `json:"metric"`
	Unit     string   `json:"unit,omitempty"`
	Original *float64 `json:"original"`
	Repeat   *float64 `json:"repeat"`
	Allowed  *float64 `json:"allowed,omitempty"` // largest difference that is none, in Unit
	By       string   `json:"allowed_by,omitempty"`
	Status   Status   `json:"status"`
	// Verdicts are those of a claim; empty for other numbers.
	OriginalVerdict string `json:"original_verdict,omitempty"`
	RepeatVerdict   string `json:"repeat_verdict,omitempty"`
	Reason          string `json:"reason,omitempty"` // why the repetition has none
}

// Decision is a verdict on two arms in both runs.
type Decision struct {
	Suite    string `json:"suite"`
	What     string `json:"what"`
	Original string `json:"original"`
	Repeat   string `json:"repeat"`
	Status   Status `json:"status"` // equal, within (one of the two is undecided), beyond, missing
}

// Difference is something that the two runs did not have in common.
type Difference struct {
	What     string `json:"what"`
	Original string `json:"original"`
	Repeat   string `json:"repeat"`
}

// Options of [Compare].
type Options struct {
	// Relative is the tolerance of numbers that have none of their own, as a
	// fraction of the original; 0 means 0.01.
	Relative float64
}

// Compare sets a repetition against the original.
func Compare(original, again Side, o Options) *Report {
	o.Relative = cmp.Or(o.Relative, 0.01)
	r := &Report{
		Schema: SchemaV1, Original: summary(original), Repeat: summary(again), Environment: environment(original, again),
		Claims: []Value{}, Metrics: []Value{}, Scores: []Value{}, Comparisons: []Decision{},
	}
	r.claims(original, again, o)
	r.metrics(original, again, o)
	r.suites(original, again)
	r.judge()
	return r
}

func summary(s Side) Summary {
	o := s.Outcome
	return Summary{s.RunID, o.PlanHash, string(o.Verdict), o.Reason, o.Executor, o.Placement.SKU, o.Finished, o.Spend}
}

func (r *Report) claims(a, b Side, o Options) {
	for _, x := range a.Outcome.Claims {
		v := Value{ID: x.ClaimID, Metric: x.Metric, Unit: x.Unit, Original: x.Measured, OriginalVerdict: string(x.Verdict)}
		i := slices.IndexFunc(b.Outcome.Claims, func(y verdict.Row) bool { return y.ClaimID == x.ClaimID })
		if i < 0 {
			v.Status, v.Reason = Missing, "the repetition has no such claim"
			r.Claims = append(r.Claims, v)
			continue
		}
		y := b.Outcome.Claims[i]
		v.Repeat, v.RepeatVerdict = y.Measured, string(y.Verdict)
		if y.Measured == nil {
			v.Reason = y.Reason
		}
		v.weigh(o.allowed(x, y))
		r.Claims = append(r.Claims, v)
	}
}

// allowed is how far two measurements of a claim may lie apart: what their seeds
// spread, else the claim's own tolerance, else the default.
func (o Options) allowed(x, y verdict.Row) (float64, string) {
	if x.Measured == nil || y.Measured == nil {
		return 0, ""
	}
	if x.MeasuredLo != nil && x.MeasuredHi != nil && y.MeasuredLo != nil && y.MeasuredHi != nil {
		// Two means of independent seeds: the half-widths add as variances do.
		hx, hy := (*x.MeasuredHi-*x.MeasuredLo)/2, (*y.MeasuredHi-*y.MeasuredLo)/2
		if h := math.Hypot(hx, hy); h > 0 {
			return h, "spread over seeds, 95 %"
		}
	}
	if t := x.Tolerance; t != nil && t.Value > 0 {
		if t.Kind == "absolute" {
			return t.Value, "the claim's tolerance, " + t.Source
		}
		stated := *x.Measured
		if x.Reported != nil {
			stated = *x.Reported
		}
		return t.Value * math.Abs(stated), "the claim's tolerance, " + t.Source
	}
	return o.relative(*x.Measured)
}

func (o Options) relative(v float64) (float64, string) {
	return o.Relative * math.Abs(v), fmt.Sprintf("default, %g %%", 100*o.Relative)
}

// weigh sets the status from the two numbers and what they may differ by.
func (v *Value) weigh(allowed float64, by string) {
	switch {
	case v.Original == nil && v.Repeat == nil:
		v.Status = Absent
		return
	case v.Original == nil || v.Repeat == nil:
		v.Status = Missing
		return
	}
	v.Allowed, v.By = &allowed, by
	d := math.Abs(*v.Original - *v.Repeat)
	// A difference in the last digit that doubles hold is none.
	switch slack := 1e-12 * math.Max(math.Abs(*v.Original), math.Abs(*v.Repeat)); {
	case d <= slack:
		v.Status = Equal
	case d <= allowed+slack:
		v.Status = Within
	default:
		v.Status = Beyond
	}
}

type number struct {
	run, metric string
	seed        int64
}

func (n number) String() string {
	if n.seed == 0 {
		return n.run
	}
	return fmt.Sprintf("%s, seed %d", n.run, n.seed)
}

// metrics compares the numbers that no claim is judged by, execution by execution.
func (r *Report) metrics(a, b Side, o Options) {
	judged := map[[2]string]bool{}
	for _, x := range a.Outcome.Claims {
		judged[[2]string{x.RunID, x.Metric}] = x.Measured != nil
	}
	read := func(s Side) (order []number, by map[number]runner.Measured) {
		by = map[number]runner.Measured{}
		for _, m := range s.Outcome.Metrics {
			n := number{m.Run, m.Metric, m.Seed}
			if _, twice := by[n]; !twice && !judged[[2]string{m.Run, m.Metric}] {
				order = append(order, n)
			}
			by[n] = m
		}
		return order, by
	}
	ours, first := read(a)
	theirs, second := read(b)
	for _, n := range ours {
		m := first[n]
		v := Value{ID: n.String(), Metric: m.Metric, Unit: m.Unit, Original: &m.Value.Value}
		if x, ok := second[n]; ok {
			v.Repeat = &x.Value.Value
		}
		v.weigh(o.relative(m.Value.Value))
		r.Metrics = append(r.Metrics, v)
	}
	for _, n := range theirs {
		if m := second[n]; !slices.Contains(ours, n) {
			r.Metrics = append(r.Metrics, Value{ID: n.String(), Metric: m.Metric, Unit: m.Unit, Repeat: &m.Value.Value, Status: Missing})
		}
	}
}

// judge sums up.
func (r *Report) judge() {
	var beyond, missing, changed, all int
	for _, v := range slices.Concat(r.Claims, r.Metrics, r.Scores) {
		switch v.Status {
		case Beyond:
			beyond++
		case Missing:
			missing++
		}
		if v.Status != Absent {
			all++
		}
		// A verdict that is gone with its number is missing, not another.
		if v.OriginalVerdict != v.RepeatVerdict && v.Status != Missing {
			changed++
		}
	}
	for _, d := range r.Comparisons {
		all++
		switch d.Status {
		case Beyond:
			changed++
		case Missing:
			missing++
		}
	}
	var parts []string
	say := func(n int, one, many string) {
		if n == 1 {
			parts = append(parts, "1 "+one)
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d %s", n, many))
		}
	}
	say(changed, "verdict is another", "verdicts are others")
	say(beyond, "number lies beyond its tolerance", "numbers lie beyond their tolerance")
	say(missing, "number is measured in one of the two only", "numbers are measured in one of the two only")
	switch {
	case changed+beyond > 0:
		r.Outcome = Differs
	case missing > 0 || all == 0:
		r.Outcome = Incomplete
	default:
		r.Outcome = Same
	}
	switch {
	case all == 0:
		parts = append(parts, "neither run has a number that could be compared")
	case len(parts) == 0:
		parts = append(parts, fmt.Sprintf("%d of %d numbers and verdicts agree", all, all))
	}
	r.Reason = strings.Join(parts, ", ")
}

// Fails says which of the outcomes named the report has; "environment" is a
// repetition in another environment.
func (r *Report) Fails(named []string) bool {
	return slices.Contains(named, string(r.Outcome)) || len(r.Environment) > 0 && slices.Contains(named, "environment")
}
