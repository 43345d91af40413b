// Package verdict compares what a paper or its repository claims with what
// was measured. It is pure: claims and observations in, rows out.
//
// A row says aligned, partially_aligned, inconclusive, not_attempted or
// not_checkable. No row ever says that something failed to reproduce: a
// measurement outside the tolerance is inconclusive, with the numbers, since a
// run of ours may differ from the authors' in ways nobody recorded.
//
// How one claim is judged:
//
//  1. It is not_checkable when it states no number that a run can give, and
//     not_attempted when no run that speaks to it was executed.
//  2. It is inconclusive when the run did not end well or the metric was not
//     found in its output.
//  3. The measured value is the mean over the seeds. With two or more seeds it
//     has a 95 % Student-t interval.
//  4. It is aligned when the mean lies within the stated value or range,
//     widened by the tolerance. One seed is enough for that, and one seed of a
//     stochastic run is never evidence against a claim.
//  5. For a ratio or a difference it is partially_aligned when the effect has
//     the claimed direction but another size; with two or more seeds the whole
//     interval must lie on that side.
//  6. Everything else is inconclusive, and so is every result of a run that is
//     not comparable: a smoke run, a shortened or demonstration run, a patched
//     one, or one on another data set, unless the plan quotes somebody who says that
//     this very run gives the claimed value ([spec.Expectation]).
//
// Where several runs speak to a claim, the comparable one is judged, then the
// fuller one; the choice never looks at the verdict.
package verdict

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Verdict is the closed vocabulary.
type Verdict string

// The verdicts on a claim and on a whole run.
const (
	Aligned          Verdict = "aligned"
	PartiallyAligned Verdict = "partially_aligned"
	Inconclusive     Verdict = "inconclusive"
	NotAttempted     Verdict = "not_attempted"
	NotCheckable     Verdict = "not_checkable"
)

// DefaultTolerance applies where neither the claim nor the run's expectation
// states one.
func DefaultTolerance() spec.Tolerance {
	return spec.Tolerance{Value: 0.05, Kind: "relative", Source: "default"}
}

// Run is what became of one run of the plan.
type Run struct {
	Spec      spec.Run
	Attempted bool     // something of it was executed
	Reason    string   // why it was not attempted, or did not end well; empty after success
	Values    []Value  // at most one per metric and seed
	Missing   []Metric // metrics whose rule found nothing
	Simulated bool     // the code simulates the system that was measured
}

// Value is one number read from the output of one seed.
type Value struct {
	Metric string
	Seed   int64
	Value  float64
	Unit   string
	Quote  string // the line it was read from
	File   string
	Line   int
}

// Metric is a metric that was not found, with why.
type Metric struct {
	Metric string
	Reason string
}

// Row is the verdict on one claim.
type Row struct {
	ClaimID    string          `json:"claim_id"`
	Text       string          `json:"text"`
	Verdict    Verdict         `json:"verdict"`
	Reason     string          `json:"reason"`
	Metric     string          `json:"metric,omitempty"`
	Unit       string          `json:"unit,omitempty"`
	Reported   *float64        `json:"reported,omitempty"`
	ReportedLo *float64        `json:"reported_lo,omitempty"`
	ReportedHi *float64        `json:"reported_hi,omitempty"`
	Measured   *float64        `json:"measured,omitempty"`    // mean over the seeds
	MeasuredLo *float64        `json:"measured_lo,omitempty"` // 95 % interval, with two or more seeds
	MeasuredHi *float64        `json:"measured_hi,omitempty"`
	Seeds      int             `json:"seeds"`
	Tolerance  *spec.Tolerance `json:"tolerance,omitempty"` // what was applied, with its source
	RunID      string          `json:"run,omitempty"`       // the id of the plan's run that was judged
	Simulated  bool            `json:"simulated,omitempty"`
	Quote      string          `json:"quote,omitempty"` // the line of the first seed's value
	File       string          `json:"file,omitempty"`
	Line       int             `json:"line,omitempty"`
}

// Judge returns one row per claim, in the order of the claims.
func Judge(claims []spec.Claim, runs []Run) []Row {
	rows := make([]Row, 0, len(claims))
	for _, c := range claims {
		rows = append(rows, judge(c, claims, runs))
	}
	return rows
}

func judge(c spec.Claim, all []spec.Claim, runs []Run) Row {
	row := Row{
		ClaimID: c.ID, Text: c.Text, Metric: c.Metric, Unit: c.Unit,
		Reported: c.Value, ReportedLo: c.ValueLo, ReportedHi: c.ValueHi,
	}
	if why := uncheckable(c); why != "" {
		row.Verdict, row.Reason = NotCheckable, why
		return row
	}
	run, values, why := choose(c, all, runs)
	if run == nil {
		row.Verdict, row.Reason = NotAttempted, why
		return row
	}
	row.RunID, row.Simulated = run.Spec.ID, run.Simulated
	if len(values) == 0 {
		row.Verdict, row.Reason = Inconclusive, missing(c, run)
		return row
	}
	s := summarise(values)
	row.Measured, row.Seeds = &s.mean, s.n
	if s.n >= 2 {
		row.MeasuredLo, row.MeasuredHi = &s.lo, &s.hi
	}
	row.Quote, row.File, row.Line = values[0].Quote, values[0].File, values[0].Line
	if row.Unit == "" {
		row.Unit = values[0].Unit
	}
	tol := tolerance(c, run)
	row.Tolerance = &tol
	if u := otherUnit(c.Unit, values); u != "" {
		row.Verdict, row.Reason = Inconclusive, fmt.Sprintf("the claim is in %q and the measurement in %q", c.Unit, u)
		return row
	}
	row.Verdict, row.Reason = compare(c, s, tol, run.Spec.Seeding)
	if why := incomparable(c, all, run); len(why) > 0 {
		row.Verdict = Inconclusive
		row.Reason += "; not counted, since " + strings.Join(why, " and ")
	}
	if run.Simulated {
		row.Reason += " (in a simulation)"
	}
	return row
}

// uncheckable says why no run could ever give a verdict on the claim.
func uncheckable(c spec.Claim) string {
	switch c.Checkable {
	case "paper_only":
		return "the claim is an argument of the paper, not a number that code gives"
	case "figure_only":
		return "the value stands only in a figure"
	case "judge_needed":
		return "the claim needs a human or model judge"
	case "none":
		return "the claim states nothing that can be measured"
	}
	if c.Value == nil && c.ValueLo == nil && c.ValueHi == nil {
		return "the claim states no number"
	}
	for _, v := range []*float64{c.Value, c.ValueLo, c.ValueHi} {
		if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
			return "the claim's number is not finite"
		}
	}
	if c.Metric == "" {
		return "the claim names no metric"
	}
	return ""
}

// choose picks the run that the claim is judged on, and its values.
func choose(c spec.Claim, all []spec.Claim, runs []Run) (best *Run, values []Value, why string) {
	why = "no run of the plan checks this claim"
	bestScore := -1
	for i := range runs {
		r := &runs[i]
		if !slices.Contains(r.Spec.ClaimIDs, c.ID) {
			continue
		}
		if !r.Attempted {
			if best == nil {
				why = "run " + r.Spec.ID + " was not executed"
				if r.Reason != "" {
					why += ": " + r.Reason
				}
			}
			continue
		}
		vs := r.metric(c.Metric)
		score := slices.Index([]string{"smoke", "minimal", "full"}, r.Spec.Kind) + 1
		if len(vs) > 0 {
			score += 10
			if len(incomparable(c, all, r)) == 0 {
				score += 10
			}
		}
		if score > bestScore {
			best, values, bestScore = r, vs, score
		}
	}
	return best, values, why
}

func (r *Run) metric(name string) (out []Value) {
	for _, v := range r.Values {
		if v.Metric == name && !math.IsNaN(v.Value) && !math.IsInf(v.Value, 0) {
			out = append(out, v)
		}
	}
	return out
}

func missing(c spec.Claim, r *Run) string {
	reason := r.Reason
	for _, m := range r.Missing {
		if m.Metric == c.Metric {
			if reason != "" {
				reason += "; "
			}
			reason += "metric " + c.Metric + " was not found: " + m.Reason
			return reason
		}
	}
	if reason != "" {
		return reason
	}
	return "no rule of run " + r.Spec.ID + " collects the metric " + c.Metric
}

// incomparable lists why the run cannot speak for or against the claim.
func incomparable(c spec.Claim, all []spec.Claim, r *Run) (why []string) {
	if r.Reason != "" {
		why = append(why, r.Reason)
	}
	e := r.Spec.Expects
	if e != nil && slices.ContainsFunc(all, func(d spec.Claim) bool {
		return (d.ID == c.ID || d.Where.File != "" && d.Where == c.Where) && statesClaim(*e, d, tolerance(d, r))
	}) {
		return why
	}
	if r.Spec.Kind == "smoke" {
		why = append(why, "it is a smoke run")
	}
	switch r.Spec.Route {
	case "short_schedule":
		why = append(why, "its schedule is shortened")
	case "reduced_training":
		why = append(why, "its training is reduced")
	case "demo":
		why = append(why, "it is a demonstration")
	}
	if slices.ContainsFunc(r.Spec.Patches, func(p spec.Patch) bool { return p.Kind == "flag" || p.Kind == "env" }) {
		why = append(why, "its command was changed")
	}
	if slices.ContainsFunc(r.Spec.Patches, func(p spec.Patch) bool { return p.Kind != "flag" && p.Kind != "env" }) {
		why = append(why, "the code was patched")
	}
	if e != nil && c.Dataset != "" && e.Dataset != "" && !sameName(c.Dataset, e.Dataset) {
		why = append(why, fmt.Sprintf("it ran on %s instead of %s", e.Dataset, c.Dataset))
	}
	return why
}

// statesClaim reports whether somebody says of this very run, as small as it
// is, that it gives the claimed value. The line that says so may state further
// values, of which the same holds.
func statesClaim(e spec.Expectation, c spec.Claim, tol spec.Tolerance) bool {
	lo, hi := widen(c, tol)
	return e.Metric == c.Metric && e.Value >= lo && e.Value <= hi &&
		(c.Dataset == "" || e.Dataset == "" || sameName(c.Dataset, e.Dataset))
}

func sameName(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

// otherUnit returns a unit among the values that is not the claim's.
func otherUnit(unit string, values []Value) string {
	for _, v := range values {
		if unit != "" && v.Unit != "" && canonicalUnit(v.Unit) != canonicalUnit(unit) {
			return v.Unit
		}
	}
	return ""
}

func canonicalUnit(u string) string {
	switch u = strings.ToLower(strings.TrimSpace(u)); u {
	case "percent", "pct":
		return "%"
	case "×", "times", "-fold", "fold":
		return "x"
	case "sec", "second", "seconds":
		return "s"
	}
	return u
}

// tolerance is the claim's own, else that of the run's expectation, else
// nothing beyond a stated range, else the default.
func tolerance(c spec.Claim, r *Run) spec.Tolerance {
	switch e := r.Spec.Expects; {
	case c.Tolerance != nil:
		return *c.Tolerance
	case e != nil && e.Metric == c.Metric && e.Tolerance != nil:
		return *e.Tolerance
	case c.ValueLo != nil || c.ValueHi != nil:
		return spec.Tolerance{Value: 0, Kind: "absolute", Source: "stated: the claim's own range"}
	}
	return DefaultTolerance()
}

// bounds is the stated value or range, before any tolerance. A range with one
// end is open at the other, but an effect "up to" some size ends where there
// is no effect.
func bounds(c spec.Claim) (lo, hi float64) {
	if c.ValueLo == nil && c.ValueHi == nil {
		return *c.Value, *c.Value
	}
	lo, hi = math.Inf(-1), math.Inf(1)
	if c.ValueLo != nil {
		lo = *c.ValueLo
	}
	if c.ValueHi != nil {
		hi = *c.ValueHi
	}
	if n := null(c); c.Relation == "ratio" || c.Relation == "difference" {
		if math.IsInf(lo, -1) && hi > n {
			lo = n
		}
		if math.IsInf(hi, 1) && lo < n {
			hi = n
		}
	}
	return lo, hi
}

// widen is the stated value or range with the tolerance around it.
func widen(c spec.Claim, t spec.Tolerance) (float64, float64) {
	lo, hi := bounds(c)
	if t.Kind == "relative" {
		return lo - t.Value*math.Abs(lo), hi + t.Value*math.Abs(hi)
	}
	return lo - t.Value, hi + t.Value
}

// compare gives the verdict on the numbers alone, with why in words; the
// numbers stand in the row.
func compare(c spec.Claim, s summary, tol spec.Tolerance, seeding *spec.Seeding) (Verdict, string) {
	lo, hi := bounds(c)
	tlo, thi := widen(c, tol)
	// Half a unit in the last place of float64 arithmetic must not decide.
	slack := 1e-12 * max(1, math.Abs(s.mean))
	switch {
	case lo < hi && s.mean >= lo && s.mean <= hi:
		return Aligned, "within the stated range"
	case s.mean >= tlo-slack && s.mean <= thi+slack:
		return Aligned, "within the tolerance"
	}
	verdict, note := Inconclusive, "outside the tolerance"
	switch {
	case s.n < 2 && seeding != nil && seeding.By == "exempt":
		note += "; other seeds would give the same, since " + seeding.Reason
	case s.n < 2:
		note += ", by one seed, which is no evidence against the claim"
	case s.hi >= tlo && s.lo <= thi:
		note += ", but the interval reaches into it; more seeds would decide"
	default:
		note += fmt.Sprintf(", and so is the whole interval over %d seeds", s.n)
	}
	if c.Relation == "ratio" || c.Relation == "difference" {
		if sameDirection(c, s, lo, hi) {
			verdict, note = PartiallyAligned, "the same direction as claimed, of another size"
		} else {
			note += "; the claimed direction of the effect is not shown"
		}
	}
	if b := better(c, s.mean, tlo, thi); b != "" {
		note += "; " + b
	}
	return verdict, note
}

// null is the value of a relation that stands for "no effect": 1 for "5.4×
// fewer", 0 for "6 % better" and for differences.
func null(c spec.Claim) float64 {
	if c.Relation == "ratio" && canonicalUnit(c.Unit) != "%" {
		return 1
	}
	return 0
}

func sameDirection(c spec.Claim, s summary, lo, hi float64) bool {
	n := null(c)
	switch {
	case lo >= n && hi > n:
		return s.lo > n
	case hi <= n && lo < n:
		return s.hi < n
	}
	return false // the claim itself allows no effect
}

func better(c spec.Claim, mean, lo, hi float64) string {
	switch {
	case c.Relation != "" && c.Relation != "absolute":
		return ""
	case c.Direction == "higher" && mean > hi, c.Direction == "lower" && mean < lo:
		return "better than claimed"
	case c.Direction == "higher" && mean < lo, c.Direction == "lower" && mean > hi:
		return "worse than claimed"
	}
	return ""
}
