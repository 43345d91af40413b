package compare

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/results/stat"
)

// Sequential is a method that may look at any time.
type Sequential interface {
	Method
	// Start begins a comparison of which the pairs are still to come. Total must
	// be set. The error is a [*TermsError].
	Start(o Options) (*Monitor, error)
}

type sequential struct {
	method
	start func(null float64, s side, o Options) process
}

const permuted = "the questions are asked in a random order fixed before the run"

// WithoutReplacement is the mixture e-process for a fixed benchmark of Total
// questions: the verdict is about what all of its questions would say, and is
// exact once all are asked. The default.
func WithoutReplacement() Sequential {
	return &sequential{method{"wor_e", "betting, without replacement: what would the whole benchmark say", []string{permuted, "the claim is about these questions, not about others like them"}}, newWOR}
}

// Mixture is the closed-form mixture e-process: the verdict is about the
// questions that the benchmark's are a sample of.
func Mixture() Sequential {
	return &sequential{method{"mixture_e", "betting, closed form: does it hold beyond these questions", []string{permuted, sampled}}, newMixture}
}

// BettingCS decides by the hedged betting confidence sequence.
func BettingCS() Sequential {
	return &sequential{method{"betting_cs", "hedged betting confidence sequence", []string{permuted, sampled}}, newHedged}
}

// AsymptoticCS decides by a confidence sequence whose error rate is right only
// for many pairs; below 200 it does not decide.
func AsymptoticCS() Sequential {
	return &sequential{method{"asymptotic_cs", "normal-mixture confidence sequence, approximate", []string{permuted, sampled, fewDiffer}}, newAsymptotic}
}

// Start implements [Sequential].
func (s *sequential) Start(o Options) (*Monitor, error) {
	o = o.withDefaults(0)
	if err := o.check(0); err != nil {
		return nil, err
	}
	if o.Total < 1 {
		return nil, &TermsError{"the number of questions is not known", "say how many the whole benchmark has"}
	}
	m := &Monitor{o: o, start: s.start, lower: watch{p: s.start(-o.Margin, up, o)}, worse: watch{p: s.start(-o.Margin, down, o)}}
	if !o.OneSided {
		m.upper, m.better = watch{p: s.start(o.Margin, down, o)}, watch{p: s.start(o.Margin, up, o)}
	}
	return m, nil
}

// Compare implements [Method]: it goes through the pairs in their order and
// stops at the first look that decides.
func (s *sequential) Compare(pairs []Pair, o Options) (Result, error) {
	o = o.withDefaults(len(pairs))
	if err := o.check(len(pairs)); err != nil {
		return Result{}, err
	}
	m, err := s.Start(o)
	if err != nil {
		return Result{}, err
	}
	seen := newTracer(o)
	for i, p := range pairs {
		if err := checkScores(p); err != nil {
			return Result{}, err
		}
		if err := m.Observe(p.Diff()); err != nil {
			return Result{}, err
		}
		seen.pair(p)
		if m.due() && seen != nil {
			seen.look(m.within(), m.beyond(), m.Verdict())
		}
		if m.Verdict() != Undecided {
			pairs = pairs[:i+1]
			break
		}
	}
	m.look() // the end of the data is a look
	r, err := describe(s, pairs, o)
	if err != nil {
		return Result{}, err
	}
	r.Verdict = m.Verdict()
	if seen != nil {
		seen.look(m.within(), m.beyond(), r.Verdict)
	}
	r.Looks = seen.all()
	r.Lo, r.Hi = m.Interval()
	r.Level = 1 - 2*o.Alpha
	r.EValue = eValue(m.Evidence())
	for _, p := range pairs {
		if p.Cluster != "" {
			r.Warnings = append(r.Warnings, s.name+" does not know that questions share passages: order the questions by whole passages drawn at random, or use tost")
			break
		}
	}
	return r.finish(), nil
}

// watch is a process whose rejection stands.
type watch struct {
	p    process
	done bool
	at   float64 // evidence at the look that rejected
}

func (w *watch) look() {
	if w.p != nil && !w.done && w.p.rejected() {
		w.done, w.at = true, w.p.value()
	}
}

// evidence is what the rejection rests on, or what there is so far.
func (w *watch) evidence() float64 {
	switch {
	case w.p == nil:
		return 0
	case w.done:
		return w.at
	}
	return w.p.value()
}

// Monitor follows a comparison while its pairs arrive. A decision, once made,
// stands. The chance of making a claim that is false is at most alpha for each of
// the claims: not worse, equivalent, worse, better.
type Monitor struct {
	o             Options
	start         func(null float64, s side, o Options) process
	diffs         []float64
	lower, upper  watch // mean > -margin, mean < margin
	worse, better watch // mean < -margin, mean > margin
	verdict       Verdict
}

// Observe takes the next difference, and looks if it is time to. The error is a
// [*TermsError].
func (m *Monitor) Observe(d float64) error {
	if !(d >= -1 && d <= 1) {
		return &TermsError{fmt.Sprintf("difference %d is %v", len(m.diffs)+1, d), "scores are from 0 to 1"}
	}
	if len(m.diffs) >= m.o.Total {
		return &TermsError{fmt.Sprintf("there are more than the %d pairs announced", m.o.Total), "give the number of questions of the whole benchmark"}
	}
	m.diffs = append(m.diffs, d)
	for _, w := range []*watch{&m.lower, &m.upper, &m.worse, &m.better} {
		if w.p != nil {
			w.p.observe(d)
		}
	}
	if m.due() {
		m.look()
	}
	return nil
}

// due reports whether it is time to look.
func (m *Monitor) due() bool { return len(m.diffs)%m.o.Look == 0 || len(m.diffs) == m.o.Total }

// within is the evidence that the difference lies within the margin.
func (m *Monitor) within() float64 {
	if m.o.OneSided {
		return m.lower.evidence()
	}
	return min(m.lower.evidence(), m.upper.evidence())
}

// beyond is the evidence that it does not.
func (m *Monitor) beyond() float64 { return max(m.worse.evidence(), m.better.evidence()) }

func (m *Monitor) look() {
	for _, w := range []*watch{&m.lower, &m.upper, &m.worse, &m.better} {
		w.look()
	}
	switch {
	case m.verdict != "":
	case m.worse.done:
		m.verdict = Worse
	case m.better.done:
		m.verdict = Better
	case m.o.OneSided && m.lower.done:
		m.verdict = NotWorse
	case m.lower.done && m.upper.done:
		m.verdict = Equivalent
	}
}

// Verdict returns the decision so far.
func (m *Monitor) Verdict() Verdict {
	if m.verdict == "" {
		return Undecided
	}
	return m.verdict
}

// Used returns how many pairs have been observed.
func (m *Monitor) Used() int { return len(m.diffs) }

// Evidence returns the e-value behind the verdict, the lesser of two where it
// takes two, at the looks that decided; if undecided, the largest there is. NaN if the method has none.
func (m *Monitor) Evidence() float64 {
	switch m.Verdict() {
	case Worse:
		return m.worse.evidence()
	case Better:
		return m.better.evidence()
	case NotWorse:
		return m.lower.evidence()
	case Equivalent:
		return min(m.lower.evidence(), m.upper.evidence())
	}
	return max(m.lower.evidence(), m.upper.evidence(), m.worse.evidence(), m.better.evidence())
}

// Interval returns the confidence sequence's interval at the looks so far: the
// differences that no look rejected, at alpha per side. It covers the true
// difference at all looks at once with probability 1-2·alpha. It takes time in
// proportion to the pairs, unlike a look.
func (m *Monitor) Interval() (lo, hi float64) {
	lo, hi = -1, 1
	if m.lower.done {
		lo = -m.o.Margin
	}
	if m.better.done {
		lo = m.o.Margin
	}
	if m.upper.done {
		hi = m.o.Margin
	}
	if m.worse.done {
		hi = -m.o.Margin
	}
	return m.bound(up, lo, 1), m.bound(down, hi, -1)
}

// bound finds by bisection the null nearest to the data that is rejected, from
// one at out that is, or lies at the end of the scale.
func (m *Monitor) bound(s side, out, in float64) float64 {
	for range 24 {
		mid := (out + in) / 2
		if m.rejects(mid, s) {
			out = mid
		} else {
			in = mid
		}
	}
	return out
}

// rejects replays the pairs against another null.
func (m *Monitor) rejects(null float64, s side) bool {
	p := m.start(null, s, m.o)
	for i, d := range m.diffs {
		p.observe(d)
		if ((i+1)%m.o.Look == 0 || i+1 == len(m.diffs)) && p.rejected() {
			return true
		}
	}
	return false
}

// McNemarE is an early alarm for any difference at all: with b and c the pairs on
// which only one arm is right and M = b+c,
//
//	E = B(a+b, a+c) / B(a, a) · 2^M,  a = 10
//
// The null is rejected at 1/alpha, two-sided. It never shows equivalence.
//
// Source: the beta-binomial mixture likelihood ratio, Robbins 1970 (Ann. Math.
// Stat. 41:1397), on McNemar's discordant pairs; a states that no large
// difference is expected.
func McNemarE() Method { return mcNemarE{} }

type mcNemarE struct{}

func (mcNemarE) Name() string { return "mcnemar_e" }
func (mcNemarE) Doc() string  { return "early alarm for any difference" }
func (mcNemarE) Assumptions() []string {
	return []string{permuted, "only the sign of a difference counts", anyDifference}
}

const mcNemarPrior = 10

func (m mcNemarE) Compare(pairs []Pair, o Options) (Result, error) {
	o = o.withDefaults(len(pairs))
	if err := o.check(len(pairs)); err != nil {
		return Result{}, err
	}
	var b, c int
	verdict, seen := Undecided, newTracer(o)
	for i, p := range pairs {
		switch {
		case p.Cand < p.Base:
			b++
		case p.Cand > p.Base:
			c++
		}
		seen.pair(p)
		if (i+1)%o.Look != 0 && i+1 != len(pairs) {
			continue
		}
		e := McNemarEValue(b, c)
		if e >= 1/o.Alpha {
			verdict, pairs = anyVerdict(b, c), pairs[:i+1]
		}
		seen.look(math.NaN(), e, verdict)
		if verdict != Undecided {
			break
		}
	}
	r, err := describe(m, pairs, o)
	if err != nil {
		return Result{}, err
	}
	r.Verdict, r.EValue, r.Looks = verdict, eValue(McNemarEValue(b, c)), seen.all()
	r.Lo, r.Hi = -1, 1 // no interval: level 0
	return r.finish(), nil
}

// McNemarEValue returns the e-value against equal chances of b and c.
func McNemarEValue(b, c int) float64 {
	const a = mcNemarPrior
	return math.Exp(stat.LogBeta(a+float64(b), a+float64(c)) - stat.LogBeta(a, a) + float64(b+c)*math.Ln2)
}
