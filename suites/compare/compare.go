// Package compare says whether a candidate is as good as a baseline on the same
// questions: equivalent, worse, better, or undecided.
//
// A difference is candidate minus baseline, per question, in score units from
// -1 to 1; a margin of 0.01 is one point. Every method is a named value that a
// user can choose, and says what it assumes. Fixed methods look once, at all
// pairs. Sequential methods may look after every pair and stop at the first
// decision without raising the error rate, and so save questions; looking
// repeatedly with a fixed method makes four false claims in ten.
package compare

import (
	"fmt"
	"math"
	"strings"

	"github.com/repromill/repromill/results/stat"
)

// Verdict is the outcome of a comparison.
type Verdict string

// The verdicts. Worse and Better mean by more than the margin, except for the
// methods that test for any difference at all, which say so. NotWorse is given
// only where the claim is one-sided.
const (
	Equivalent Verdict = "equivalent" // the difference is within the margin either way
	Worse      Verdict = "worse"
	Better     Verdict = "better"
	NotWorse   Verdict = "not_worse" // not worse by the margin or more; perhaps better
	Undecided  Verdict = "undecided" // the data do not tell; never a pass
)

// Passed reports whether the verdict backs the claim that nothing was lost.
func (v Verdict) Passed() bool { return v == Equivalent || v == NotWorse || v == Better }

// Pair is one question answered by both arms. A score is the mean over the
// question's repeats, 0 to 1.
type Pair struct {
	ID      string
	Cluster string // questions that share a passage; "" is a cluster of its own
	Base    float64
	Cand    float64
}

// Diff returns candidate minus baseline.
func (p Pair) Diff() float64 { return p.Cand - p.Base }

// Options are the terms of a comparison, to be fixed before the data are seen.
type Options struct {
	Margin   float64 // largest difference that counts as equal, a fraction: 0.01 is a point
	Alpha    float64 // error rate per side; 0 is 0.05
	Total    int     // questions of the whole benchmark; 0 is as many as there are pairs
	Look     int     // pairs between looks of a sequential method; 0 is 1
	OneSided bool    // claim only that the candidate is not worse by the margin
	Seed     uint64  // of methods that draw
	// Trace keeps every look of a sequential method in the result.
	Trace bool `json:"-"`
}

// TermsError says that terms or data cannot be compared; it is the user's to
// correct.
type TermsError struct{ Problem, Fix string }

func (e *TermsError) Error() string { return e.Problem }

// UserError returns the fix.
func (e *TermsError) UserError() string { return e.Fix }

func (o Options) withDefaults(pairs int) Options {
	if o.Alpha == 0 {
		o.Alpha = 0.05
	}
	if o.Total == 0 {
		o.Total = pairs
	}
	if o.Look == 0 {
		o.Look = 1
	}
	return o
}

func (o Options) check(pairs int) error {
	switch {
	case !(o.Margin > 0 && o.Margin < 1):
		return &TermsError{fmt.Sprintf("margin %v is not between 0 and 1", o.Margin), "give a margin such as 0.01, which is one point"}
	case !(o.Alpha > 0 && o.Alpha < 0.5):
		return &TermsError{fmt.Sprintf("alpha %v is not between 0 and 0.5", o.Alpha), "give an error rate per side such as 0.05"}
	case o.Look < 1:
		return &TermsError{fmt.Sprintf("%d pairs between looks", o.Look), "give 1 or more"}
	case o.Total < pairs:
		return &TermsError{fmt.Sprintf("the benchmark is said to have %d questions, but there are %d pairs", o.Total, pairs), "give the number of questions of the whole benchmark"}
	}
	return nil
}

// Method is one way to decide. Pairs of a sequential method are in the order,
// random and fixed in advance, in which they were asked.
type Method interface {
	Name() string
	Doc() string
	Assumptions() []string
	Compare(pairs []Pair, o Options) (Result, error)
}

// Methods returns every method. The first is the default: the question is what
// the whole benchmark would say.
func Methods() []Method {
	return []Method{WithoutReplacement(), Mixture(), BettingCS(), AsymptoticCS(), TOST(), NonInferiority(), SignFlip(), McNemarE(), McNemarMidP(), McNemarExact()}
}

// Find returns the method of a name; "" is the default. The error is a
// [*TermsError].
func Find(name string) (Method, error) {
	var names []string
	for _, m := range Methods() {
		if name == "" || m.Name() == name {
			return m, nil
		}
		names = append(names, m.Name())
	}
	return nil, &TermsError{fmt.Sprintf("there is no method %q", name), "choose one of " + strings.Join(names, ", ")}
}

// Result is a comparison with what it rests on.
type Result struct {
	Method   string   `json:"method"`
	Verdict  Verdict  `json:"verdict"`
	OneSided bool     `json:"one_sided,omitzero"`
	Margin   float64  `json:"margin"`
	Alpha    float64  `json:"alpha"`
	Base     float64  `json:"baseline"`  // mean score over the pairs used
	Cand     float64  `json:"candidate"` // mean score over the pairs used
	Diff     float64  `json:"diff"`
	StdErr   float64  `json:"stderr"`
	Lo       float64  `json:"ci_lo"`
	Hi       float64  `json:"ci_hi"`
	Level    float64  `json:"ci_level"` // 0 if the method gives no interval
	BaseOnly int      `json:"b"`        // pairs on which the baseline scored higher
	CandOnly int      `json:"c"`        // pairs on which the candidate scored higher
	Clusters int      `json:"clusters"`
	PValue   *float64 `json:"p_value,omitempty"`
	EValue   *float64 `json:"e_value,omitempty"` // least evidence that the verdict rests on, or the most there is
	MDE      float64  `json:"mde"`               // true difference that this many pairs show with power 0.8
	Used     int      `json:"questions_used"`    // pairs looked at before the decision
	Saved    int      `json:"questions_saved"`   // questions of the benchmark that were not needed
	Total    int      `json:"questions"`         // questions of the whole benchmark
	// Needed is of an undecided comparison how many questions would decide it with
	// power 0.8, were the arms to go on differing as they did; 0 where none would.
	Needed      int      `json:"questions_needed,omitempty"`
	Assumptions []string `json:"assumptions"`        //
	Looks       []Look   `json:"looks,omitempty"`    // where Options.Trace asks for them
	Warnings    []string `json:"warnings,omitempty"` //
}

// Look is what a sequential method saw when it looked. The last one is what the
// verdict rests on. Intervals are not among it: a look takes a moment, an interval
// time in proportion to the pairs.
type Look struct {
	Pairs    int     `json:"pairs"` // so far
	Base     float64 `json:"baseline"`
	Cand     float64 `json:"candidate"`
	BaseOnly int     `json:"b"`
	CandOnly int     `json:"c"`
	// Evidence that the difference lies within the margin (one-sided: that the
	// candidate is not worse by it), the lesser of two e-values; McNemar's alarm has
	// none. Decided at 1/alpha.
	Within *float64 `json:"e_within,omitempty"`
	// Beyond is the greater of the e-values for worse and better; McNemar's alarm
	// has that of any difference.
	Beyond  *float64 `json:"e_beyond,omitempty"`
	Verdict Verdict  `json:"verdict"`
}

// tracer collects looks; nil collects none.
type tracer struct {
	looks            []Look
	base, cand       float64
	n                int
	baseOnly, onCand int
}

func newTracer(o Options) *tracer {
	if !o.Trace {
		return nil
	}
	return &tracer{}
}

func (t *tracer) pair(p Pair) {
	if t == nil {
		return
	}
	t.n++
	t.base, t.cand = t.base+p.Base, t.cand+p.Cand
	switch {
	case p.Cand > p.Base:
		t.onCand++
	case p.Cand < p.Base:
		t.baseOnly++
	}
}

// look adds a look, unless these pairs were looked at before. An e-value of NaN is
// none.
func (t *tracer) look(within, beyond float64, v Verdict) {
	if t == nil || t.n == 0 || len(t.looks) > 0 && t.looks[len(t.looks)-1].Pairs == t.n {
		return
	}
	n := float64(t.n)
	t.looks = append(t.looks, Look{Pairs: t.n, Base: t.base / n, Cand: t.cand / n, BaseOnly: t.baseOnly, CandOnly: t.onCand,
		Within: eValue(within), Beyond: eValue(beyond), Verdict: v})
}

func (t *tracer) all() []Look {
	if t == nil {
		return nil
	}
	return t.looks
}

// eValue is an e-value as results have it: certainty is a number that JSON has.
func eValue(e float64) *float64 {
	if math.IsNaN(e) {
		return nil
	}
	e = min(e, math.MaxFloat64)
	return &e
}

// Discordant returns the share of pairs on which the arms differ.
func (r Result) Discordant() float64 {
	if r.Used == 0 {
		return 0
	}
	return float64(r.BaseOnly+r.CandOnly) / float64(r.Used)
}

// judge is the verdict that an interval for the difference gives.
func judge(lo, hi float64, o Options) Verdict {
	switch {
	case hi < -o.Margin:
		return Worse
	case o.OneSided && lo > -o.Margin:
		return NotWorse
	case o.OneSided:
		return Undecided
	case lo > o.Margin:
		return Better
	case lo > -o.Margin && hi < o.Margin:
		return Equivalent
	}
	return Undecided
}

// describe fills in what every method reports about the pairs it used.
func describe(m Method, pairs []Pair, o Options) (Result, error) {
	if len(pairs) == 0 {
		return Result{}, &TermsError{"there are no pairs", "give samples of both arms on the same questions"}
	}
	r := Result{Method: m.Name(), OneSided: o.OneSided, Margin: o.Margin, Alpha: o.Alpha, Used: len(pairs), Total: o.Total, Saved: o.Total - len(pairs), Assumptions: m.Assumptions(), Verdict: Undecided}
	for _, p := range pairs {
		if err := checkScores(p); err != nil {
			return Result{}, err
		}
		r.Base += p.Base
		r.Cand += p.Cand
		switch {
		case p.Cand > p.Base:
			r.CandOnly++
		case p.Cand < p.Base:
			r.BaseOnly++
		}
	}
	n := float64(len(pairs))
	r.Base /= n
	r.Cand /= n
	r.Diff, r.StdErr, r.Clusters = meanAndError(pairs)
	r.MDE = (stat.NormalQuantile(1-o.Alpha) + stat.NormalQuantile(0.8)) * r.StdErr
	if k := r.BaseOnly + r.CandOnly; k < 10 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("the arms differ on only %d questions: approximate methods are not reliable", k))
	}
	return r, nil
}

// finish closes a result: an undecided comparison has saved nothing.
func (r Result) finish() Result {
	if r.Verdict == Undecided {
		r.Saved = 0
		r.undecided()
	}
	return r
}

func checkScores(p Pair) error {
	for _, s := range []float64{p.Base, p.Cand} {
		if !(s >= 0 && s <= 1) { // also catches NaN
			return &TermsError{fmt.Sprintf("question %s has score %v", p.ID, s), "scores are from 0 to 1"}
		}
	}
	return nil
}

// meanAndError returns the mean difference and its standard error, clustered
// where questions share a passage:
//
//	SE = sqrt(C/(C-1) · Σ_c (Σ_{i in c} (D_i − mean))²) / n
//
// With every question its own cluster this is sd(D)/√n with n-1 in sd.
//
// Source: Miller, "Adding Error Bars to Evals", arXiv 2411.00640, with the
// small-sample factor C/(C-1) that UKGovernmentBEIS/inspect_ai 499e615 uses
// (src/inspect_ai/scorer/_metrics/std.py). Categories of a fixed benchmark are
// strata, not clusters.
func meanAndError(pairs []Pair) (mean, se float64, clusters int) {
	n := float64(len(pairs))
	for _, p := range pairs {
		mean += p.Diff()
	}
	mean /= n
	var squares float64
	shared := map[string]float64{}
	for _, p := range pairs {
		if p.Cluster != "" {
			shared[p.Cluster] += p.Diff() - mean
			continue
		}
		squares += (p.Diff() - mean) * (p.Diff() - mean)
		clusters++
	}
	for _, sum := range shared {
		squares += sum * sum
	}
	clusters += len(shared)
	if clusters < 2 {
		return mean, 1, clusters // as large as it can be: there is nothing to estimate it from
	}
	c := float64(clusters)
	return mean, math.Sqrt(squares*c/(c-1)) / n, clusters
}
