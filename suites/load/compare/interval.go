package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/repromill/repromill/results/stat"
)

// sample holds the logarithms of a metric: of each unit the values of its
// blocks, the two arms' in step. Units in which only one arm was measured stand
// apart.
type sample struct {
	base, cand         [][]float64
	loneBase, loneCand [][]float64
	void               int // blocks that were left out
	lone               int // blocks whose counterpart is missing
}

// over joins several cells into one sample: a unit's value is the mean over the
// cells, all of which it must have.
func over(cells []*sample) *sample {
	out := &sample{}
	n := math.MaxInt
	for _, s := range cells {
		n = min(n, len(s.base))
		out.void += s.void
	}
	for u := range n {
		blocks := math.MaxInt
		for _, s := range cells {
			blocks = min(blocks, len(s.base[u]))
		}
		x, y := make([]float64, blocks), make([]float64, blocks)
		for i := range blocks {
			for _, s := range cells {
				x[i] += s.base[u][i] / float64(len(cells))
				y[i] += s.cand[u][i] / float64(len(cells))
			}
		}
		out.base, out.cand = append(out.base, x), append(out.cand, y)
	}
	return out
}

// Method makes an interval for the mean of the logarithm of the ratio over
// starts. Arguments are the logarithms of both arms by start and block; the
// paired ones are in step. There are at least two starts of each arm.
type Method interface {
	Name() string
	Doc() string
	Paired() bool
	Interval(base, cand [][]float64, level float64, seed uint64) (lo, hi float64)
}

// Methods returns every method; the first is the default.
func Methods() []Method { return []Method{pairedT{}, welchT{}, nested{}} }

type pairedT struct{}

func (pairedT) Name() string { return "paired_t" }
func (pairedT) Doc() string {
	return "t interval over the rounds' mean log ratios; what drifts from round to round falls out"
}
func (pairedT) Paired() bool { return true }

func (pairedT) Interval(base, cand [][]float64, level float64, _ uint64) (lo, hi float64) {
	d := differences(base, cand)
	m, sd := meanSD(d)
	h := stat.TQuantile((1+level)/2, float64(len(d)-1)) * sd / math.Sqrt(float64(len(d)))
	return m - h, m + h
}

type welchT struct{}

func (welchT) Name() string { return "welch_t" }
func (welchT) Doc() string {
	return "t interval over the starts of each arm by themselves (Welch), for starts that were not made in rounds"
}
func (welchT) Paired() bool { return false }

func (welchT) Interval(base, cand [][]float64, level float64, _ uint64) (lo, hi float64) {
	ma, sa := meanSD(means(base))
	mb, sb := meanSD(means(cand))
	na, nb := float64(len(base)), float64(len(cand))
	va, vb := sa*sa/na, sb*sb/nb
	m, se := mb-ma, math.Sqrt(va+vb)
	if se == 0 {
		return m, m
	}
	df := (va + vb) * (va + vb) / (va*va/(na-1) + vb*vb/(nb-1))
	h := stat.TQuantile((1+level)/2, df) * se
	return m - h, m + h
}

type nested struct{}

func (nested) Name() string { return "nested_bootstrap" }
func (nested) Doc() string {
	return "percentiles of resampled rounds and blocks within them; too narrow below ten rounds"
}
func (nested) Paired() bool { return true }

// Interval resamples rounds, and blocks within them.
//
// Source: A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their
// Application", 1997, §3.8 (hierarchical data).
func (nested) Interval(base, cand [][]float64, level float64, seed uint64) (lo, hi float64) {
	const draws = 2000
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float64, draws)
	for i := range x {
		for range base {
			u := r.IntN(len(base))
			sum := 0.0
			for range base[u] {
				k := r.IntN(len(base[u]))
				sum += cand[u][k] - base[u][k]
			}
			x[i] += sum / float64(len(base[u])*len(base))
		}
	}
	slices.Sort(x)
	at := func(p float64) float64 { return x[min(draws-1, int(p*draws))] }
	return at((1 - level) / 2), at((1 + level) / 2)
}

func differences(base, cand [][]float64) []float64 {
	a, b := means(base), means(cand)
	for i := range a {
		b[i] -= a[i]
	}
	return b
}

func means(x [][]float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i], _ = meanSD(v)
	}
	return out
}

func meanSD(x []float64) (mean, sd float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		sd += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(sd / float64(max(1, len(x)-1)))
}

// advised is the number of starts below which an interval is a formality.
const advised = 3

// judge makes a comparison out of a sample.
func (o Options) judge(m Metric, s *sample) Comparison {
	base, cand, method := s.base, s.cand, o.Method
	if method == nil {
		method = pairedT{}
		if len(base) < 2 {
			method = welchT{}
		}
	}
	if !method.Paired() {
		base, cand = slices.Concat(base, s.loneBase), slices.Concat(cand, s.loneCand)
	}
	c := Comparison{Metric: m.Name, Unit: m.Unit, Higher: m.Higher, Verdict: Refused}
	if len(base) == 0 || len(cand) == 0 {
		c.Reason = "no round has both arms"
		return c
	}
	c.Base.Starts, c.Base.Blocks, c.Base.Value = tally(base)
	c.Cand.Starts, c.Cand.Blocks, c.Cand.Value = tally(cand)
	c.Ratio = c.Cand.Value / c.Base.Value
	if s.void > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d void blocks were left out", s.void))
	}
	if s.lone > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d blocks were left out, because the other arm has no value for the same schedule", s.lone))
	}
	c.WithinSD = within(base, cand)
	if len(base) < 2 || len(cand) < 2 {
		o.processes(&c, base, cand)
		return c
	}
	lo, hi := method.Interval(base, cand, o.Level, o.Seed)
	c.Method, c.Over = method.Name(), OverStarts
	c.Interval = &Interval{math.Exp(lo), math.Exp(hi), o.Level}
	if len(base) == len(cand) {
		_, c.BetweenSD = meanSD(differences(base, cand))
	}
	if n := min(len(base), len(cand)); n < advised {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%d starts of each arm: %d or more are advised", n, advised))
	}
	c.Verdict = o.verdict(m, *c.Interval)
	if c.Verdict == Undecided {
		c.Needs = o.needs(c.BetweenSD, len(base))
		c.Reason = "the interval holds 1 and is wider than the margin"
	}
	return c
}

// processes says of one start of each arm what can be said: how its two
// processes differ, and no more.
func (o Options) processes(c *Comparison, base, cand [][]float64) {
	c.Reason = "one start of a server: what differs from start to start cannot be told from what differs between the arms; restart both between rounds"
	if len(base) != 1 || len(cand) != 1 || len(base[0]) < 2 || len(base[0]) != len(cand[0]) {
		return
	}
	d := make([]float64, len(base[0]))
	for i := range d {
		d[i] = cand[0][i] - base[0][i]
	}
	m, sd := meanSD(d)
	h := stat.TQuantile((1+o.Level)/2, float64(len(d)-1)) * sd / math.Sqrt(float64(len(d)))
	c.Method, c.Over = "paired_t_of_blocks", OverProcesses
	c.Interval = &Interval{math.Exp(m - h), math.Exp(m + h), o.Level}
}

func (o Options) verdict(m Metric, i Interval) Verdict {
	switch {
	case i.Lo > 1/(1+o.Margin) && i.Hi < 1+o.Margin:
		return Equivalent
	case i.Lo > 1 && m.Higher || i.Hi < 1 && !m.Higher:
		return Better
	case i.Lo > 1 || i.Hi < 1:
		return Worse
	}
	return Undecided
}

// needs is the number of rounds at which an interval of this spread would be no
// wider than the margin to either side; 0 when there is no such number within
// reason.
func (o Options) needs(sd float64, have int) int {
	const most = 1000
	bound := math.Log1p(o.Margin)
	// The normal distribution's answer is a little too low, and close.
	z := math.Sqrt2 * math.Erfinv(o.Level) * sd / bound
	for n := max(have+1, int(min(z*z, most+1))); sd > 0 && n <= most; n++ {
		if stat.TQuantile((1+o.Level)/2, float64(n-1))*sd/math.Sqrt(float64(n)) <= bound {
			return n
		}
	}
	return 0
}

func tally(x [][]float64) (starts, blocks int, value float64) {
	for _, b := range x {
		blocks += len(b)
	}
	m, _ := meanSD(means(x))
	return len(x), blocks, math.Exp(m)
}

// within is the pooled standard deviation of the log ratio from block to block
// of one start; 0 where no start has two blocks.
func within(base, cand [][]float64) float64 {
	sq, df := 0.0, 0
	for u := range min(len(base), len(cand)) {
		n := min(len(base[u]), len(cand[u]))
		if n < 2 {
			continue
		}
		d := make([]float64, n)
		for i := range d {
			d[i] = cand[u][i] - base[u][i]
		}
		_, sd := meanSD(d)
		sq, df = sq+sd*sd*float64(n-1), df+n-1
	}
	if df == 0 {
		return 0
	}
	return math.Sqrt(sq / float64(df))
}
