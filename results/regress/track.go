package regress

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/repromill/repromill/results/stat"
)

// finding is what one series looks like in one slot, before it is set against
// the others of the night.
type finding struct {
	series   int
	night    Night
	missing  bool
	fresh    bool    // first night of a segment
	p        float64 // NaN where no test could be made
	effect   float64 // in the metric's scale, positive is better
	lo, hi   float64
	resolves float64
	from     int  // index, in the segment, of the first night of the change
	single   bool // tonight alone differs, beyond the floor
	why      string
}

// point is one night of a segment on the scale on which effects add: log of the
// median, turned so that more is better.
type point struct {
	slot time.Time
	x, c float64 // candidate and canary; c is NaN without a canary
	pair *Paired
}

// tracker follows one series.
type tracker struct {
	series Series
	policy Policy
	nights map[int64]Night
	unit   float64             // 1 where more is better, −1 where less is
	t975   map[float64]float64 // quantiles of Student's t by degrees of freedom, shared; they cost more than all else

	segment string
	points  []point // of the segment, from the level that now is the normal one
	open    *Verdict
	seen    bool
	y       []float64 // kept for its memory
}

func newTracker(s Series, p Policy, t975 map[float64]float64) (*tracker, error) {
	t := &tracker{series: s, policy: p, nights: map[int64]Night{}, unit: 1, t975: t975}
	if s.LowerIsBetter {
		t.unit = -1
	}
	for _, n := range s.Nights {
		key := n.Slot.UTC().UnixNano()
		if _, twice := t.nights[key]; twice {
			return nil, fmt.Errorf("read series %s: two nights for the slot %s", s.Key, n.Slot.UTC().Format(time.RFC3339))
		}
		if n.Missing == "" {
			if err := n.check(); err != nil {
				return nil, fmt.Errorf("read series %s, night %s: %w", s.Key, n.Slot.UTC().Format(time.RFC3339), err)
			}
		}
		t.nights[key] = n
	}
	return t, nil
}

func (n Night) check() error {
	if (len(n.Candidate) > 0) == (n.Paired != nil) {
		return fmt.Errorf("a night has either repetitions or a paired comparison")
	}
	for _, v := range slices.Concat(n.Candidate, n.Canary) {
		if !(v > 0) || math.IsInf(v, 0) {
			return fmt.Errorf("speed %v is not a positive number", v)
		}
	}
	if n.Paired != nil && !(math.Abs(n.Paired.Diff) <= 1 && n.Paired.P >= 0 && n.Paired.P <= 1) {
		return fmt.Errorf("difference %v with p %v", n.Paired.Diff, n.Paired.P)
	}
	return nil
}

// look tests the series in a slot; false in one that is not its own.
func (t *tracker) look(slot time.Time) (finding, bool) {
	n, ok := t.nights[slot.UTC().UnixNano()]
	if !ok {
		return finding{}, false
	}
	f := finding{night: n, p: math.NaN()}
	if n.Missing != "" {
		f.missing, f.why = true, n.Missing
		return f, true
	}
	if n.Segment != t.segment || !t.seen {
		f.fresh = t.seen
		t.segment, t.seen, t.points, t.open = n.Segment, true, nil, nil
	}
	pt := point{slot: n.Slot, c: math.NaN(), pair: n.Paired}
	if n.Paired == nil {
		pt.x = t.unit * math.Log(median(n.Candidate))
		if len(n.Canary) > 0 {
			pt.c = t.unit * math.Log(median(n.Canary))
		}
	}
	t.points = append(t.points, pt)
	if len(t.points) > t.policy.Window+t.policy.Baseline {
		t.points = t.points[1:] // no decision looks further back
	}
	if n.Paired != nil {
		t.lookPaired(&f)
	} else {
		t.lookSpeed(&f)
	}
	return f, true
}

// lookPaired asks that the last nights each show a difference beyond the margin:
// the p-value is the largest of theirs.
func (t *tracker) lookPaired(f *finding) {
	pair := f.night.Paired
	f.effect, f.lo, f.hi, f.resolves = pair.Diff, pair.Lo, pair.Hi, pair.Resolves
	f.from = len(t.points) - 1
	if pair.Resolves > t.policy.Margin {
		f.why = fmt.Sprintf("%d items show a difference of %.2f points at best, and the margin is %.2f", pair.Items, 100*pair.Resolves, 100*t.policy.Margin)
		return
	}
	beyond := func(q *Paired) bool { return math.Abs(q.Diff) >= t.policy.Margin && (q.Diff < 0) == (pair.Diff < 0) }
	f.single = beyond(pair) && pair.P <= 0.05
	p, run := 0.0, 0
	for i := len(t.points) - 1; i >= 0 && beyond(t.points[i].pair) && run < t.policy.Nights; i-- {
		p = max(p, t.points[i].pair.P)
		f.from = i
		run++
	}
	f.p = 1
	if run == t.policy.Nights {
		f.p = p
	}
}

// spans are over how many recent nights a change is sought.
var spans = []int{1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 28, 40, 60}

// lookSpeed seeks the recent nights that differ most from those before: a
// generalised likelihood ratio over where the change began, with Student's t
// because the noise is not known either, and Bonferroni's correction for the
// number of beginnings tried.
func (t *tracker) lookSpeed(f *finding) {
	y := t.adjusted()
	n := len(y)
	if n < t.policy.Before+1 {
		f.why = fmt.Sprintf("this segment has %d of the %d nights that a level takes", n, t.policy.Before+1)
		return
	}
	f.p, f.from = 1, n-1
	sums := cumulate(y)
	tests, best, bestDF := 0, 0.0, 0.0
	for _, k := range spans {
		if k > t.policy.Window || n-k < t.policy.Before {
			break
		}
		d, se, df := sums.split(max(0, n-k-t.policy.Baseline), n-k, n)
		score := math.Abs(d) / se
		if k == 1 {
			half := t.quantile(df) * se
			f.effect, f.lo, f.hi, f.resolves = d, d-half, d+half, 2.8*se // power 0.8 at 0.05, two-sided
			f.single = math.Abs(d) >= t.policy.floor() && 2*stat.TTail(score, df) <= 0.01
			continue
		}
		if k < t.policy.Nights {
			continue
		}
		tests++
		if math.Abs(d) >= t.policy.floor() && score > best {
			best, bestDF, f.from = score, df, n-k
		}
	}
	// Where one night alone explains the squares best, two have not been seen yet.
	if best > 0 && t.date(sums, 1) <= n-t.policy.Nights {
		f.p = min(1, 2*stat.TTail(best, bestDF)*float64(tests))
	}
}

// quantile is the half-width of a 95 % interval in standard errors.
func (t *tracker) quantile(df float64) float64 {
	q, ok := t.t975[df]
	if !ok {
		q = stat.TQuantile(0.975, df)
		t.t975[df] = q
	}
	return q
}

func (p Policy) floor() float64 { return math.Log1p(p.Floor) }

// adjusted returns the nights of the segment with what the canary shares taken
// off. The weight of the canary is the slope of the candidate's steps from night
// to night on the canary's, drawn towards 1 while nights are few: steps hold no
// level, so that a change of level does not move the weight.
func (t *tracker) adjusted() []float64 {
	const prior = 5 // nights
	var sxc, scc float64
	steps := 0
	for i := 1; i < len(t.points); i++ {
		a, b := t.points[i-1], t.points[i]
		if math.IsNaN(a.c) || math.IsNaN(b.c) {
			continue
		}
		sxc += (b.x - a.x) * (b.c - a.c)
		scc += (b.c - a.c) * (b.c - a.c)
		steps++
	}
	w := 1.0
	if scc > 0 {
		mean := scc / float64(steps)
		w = min(1, max(0, (sxc+prior*mean)/(scc+prior*mean)))
	}
	var level float64
	counted := 0
	for _, p := range t.points {
		if !math.IsNaN(p.c) {
			level += p.c
			counted++
		}
	}
	if counted > 0 {
		level /= float64(counted)
	}
	t.y = t.y[:0]
	for _, p := range t.points {
		v := p.x
		if !math.IsNaN(p.c) {
			v -= w * (p.c - level)
		}
		t.y = append(t.y, v)
	}
	return t.y
}

// sums are running sums of values and of their squares, from which any stretch's
// mean and squares follow at once.
type sums struct{ x, xx []float64 }

func cumulate(y []float64) sums {
	both := make([]float64, 2*(len(y)+1))
	c := sums{both[:len(y)+1], both[len(y)+1:]}
	for i, v := range y {
		v -= y[0] // near zero, where differences of sums lose nothing
		c.x[i+1], c.xx[i+1] = c.x[i]+v, c.xx[i]+v*v
	}
	return c
}

// spread returns the mean of the values from lo to hi, relative to the first of
// all, and the sum of squared deviations from it.
func (c sums) spread(lo, hi int) (mean, squares float64) {
	n := float64(hi - lo)
	mean = (c.x[hi] - c.x[lo]) / n
	return mean, max(0, c.xx[hi]-c.xx[lo]-n*mean*mean)
}

// split compares the values from at to hi with those from lo to at: the
// difference of means, its standard error and degrees of freedom, with the
// variance pooled.
func (c sums) split(lo, at, hi int) (d, se, df float64) {
	mb, sb := c.spread(lo, at)
	ma, sa := c.spread(at, hi)
	df = float64(hi - lo - 2)
	// A series of equal values still has the resolution of its clock.
	v := max((sb+sa)/df, 1e-10)
	return ma - mb, math.Sqrt(v * (1/float64(hi-at) + 1/float64(at-lo))), df
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
