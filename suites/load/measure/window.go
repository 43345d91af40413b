package measure

import (
	"fmt"
	"math"
	"slices"

	"github.com/repromill/repromill/suites/load"
)

// Rate is a throughput with its 95 % interval, from a moving-block bootstrap
// over bins of time.
type Rate struct {
	Value float64 `json:"value"`
	Lo    float64 `json:"lo"`
	Hi    float64 `json:"hi"`
}

const nBins = 100

// bins counts what happens in equal stretches of time.
type bins struct {
	from, to                      int64
	requests, good, output, total []float64
}

func newBins(from, to int64) *bins {
	mk := func() []float64 { return make([]float64, nBins) }
	return &bins{from, max(to, from+1), mk(), mk(), mk(), mk()}
}

func (b *bins) add(series []float64, at int64, n float64) {
	if at < b.from || at > b.to {
		return
	}
	i := int(float64(at-b.from) / float64(b.to-b.from) * nBins)
	series[min(i, nBins-1)] += n
}

// tokens spreads a request's tokens over the moments at which they came. Input
// counts when the first token comes: that is when it has been read.
func (b *bins) tokens(r *load.Record) {
	if r.FirstText < 0 {
		return
	}
	osl := r.OSL
	if osl < 0 {
		osl = r.Chunks
	}
	counted := len(r.Tokens) == r.Chunks && r.Chunks > 0
	per := float64(osl) / float64(max(1, r.Chunks))
	at := r.FirstText
	for i := range r.Chunks {
		if i > 0 && i <= len(r.Gaps) {
			at += int64(r.Gaps[i-1]) * 1000
		}
		n := per
		if counted {
			n = float64(r.Tokens[i])
		}
		b.add(b.output, at, n)
		b.add(b.total, at, n)
	}
	b.add(b.total, r.FirstText, float64(max(0, r.ISL)))
}

func (b *bins) rate(series []float64, cfg Config) Rate {
	width := float64(b.to-b.from) / 1e9 / nBins
	d := newDist(series, Config{Seed: cfg.Seed})
	return Rate{d.Mean / width, d.MeanLo / width, d.MeanHi / width}
}

// steady finds the stretch in which the load was even.
//
// Closed loop: from when every worker has ended its first request until the
// last request was begun, so that all of them were busy. Open loop: the start
// that MSER-5 puts off from the number of requests in flight (K. P. White,
// "An effective truncation heuristic for bias reduction in simulation output",
// Simulation 69(6), 1997), until the last arrival.
func steady(res *load.Result, recs []*load.Record) (from, to int64, why string, ok bool) {
	if len(recs) == 0 {
		return 0, 0, "no request was measured", false
	}
	from, to = recs[0].Intended, 0
	for _, r := range recs {
		to = max(to, r.Intended)
	}
	if res.Schedule.Mode == load.Closed {
		return steadyClosed(recs, from, to)
	}
	if to <= from {
		return 0, 0, "all requests arrived at once", false
	}
	x := inFlight(recs, from, to, 250)
	d := mser5(x)
	start := from + int64(float64(d)/float64(len(x))*float64(to-from))
	// A truncation at its limit says that the load was still changing there.
	if g := growth(x[d:]); g > 0.5 || g > 0.15 && d >= len(x)/2-5 {
		return 0, 0, fmt.Sprintf("requests in flight grew by %.0f %% of their mean from the window's first half to its second: the server does not keep up", 100*g), false
	}
	return start, to, "MSER-5 over requests in flight, to the last arrival", true
}

func steadyClosed(recs []*load.Record, from, to int64) (int64, int64, string, bool) {
	firstEnd := map[int]int64{}
	for _, r := range recs {
		if e, seen := firstEnd[r.Worker]; !seen || r.End < e {
			firstEnd[r.Worker] = r.End
		}
	}
	for _, e := range firstEnd {
		from = max(from, e)
	}
	// Workers that go in step leave a sliver between two waves.
	within := 0
	for _, r := range recs {
		if r.End >= from && r.End <= to {
			within++
		}
	}
	if to <= from || within < len(firstEnd) {
		return 0, 0, "too few requests ended while all workers were busy: ask for more", false
	}
	return from, to, "from when every worker had ended its first request until the last was begun", true
}

// inFlight is the mean number of requests under way, from intended to end, in
// each of n equal stretches.
func inFlight(recs []*load.Record, from, to int64, n int) []float64 {
	width := float64(to-from) / float64(n)
	// Integrated twice: once over the changes, once over time.
	level, area := make([]float64, n+1), make([]float64, n+1)
	change := func(t int64, by float64) {
		x := max(0, float64(t-from)/width)
		i := int(x)
		if i >= n {
			return
		}
		area[i] += by * (float64(i+1) - x)
		level[i+1] += by
	}
	for _, r := range recs {
		change(r.Intended, 1)
		if r.End >= 0 {
			change(r.End, -1)
		}
	}
	out, now := make([]float64, n), 0.0
	for i := range out {
		now += level[i]
		out[i] = now + area[i]
	}
	return out
}

// mser5 returns how many leading values to leave out: those that minimise the
// marginal standard error of the rest, over batches of five. No more than half
// is left out, as its authors advise.
func mser5(x []float64) int {
	const batch = 5
	var y []float64
	for i := 0; i+batch <= len(x); i += batch {
		s := 0.0
		for _, v := range x[i : i+batch] {
			s += v
		}
		y = append(y, s/batch)
	}
	best, at := math.Inf(1), 0
	sum, sq := 0.0, 0.0
	// From the back, so that sums grow by one value each.
	for d := len(y) - 1; d >= 0; d-- {
		sum, sq = sum+y[d], sq+y[d]*y[d]
		n := float64(len(y) - d)
		if se := (sq - sum*sum/n) / (n * n); d <= len(y)/2 && se <= best+1e-12 {
			best, at = se, d
		}
	}
	return at * batch
}

// growth compares the means of the second half and the first, over the whole's.
func growth(x []float64) float64 {
	mean := func(v []float64) float64 {
		s := 0.0
		for _, a := range v {
			s += a
		}
		return s / float64(max(1, len(v)))
	}
	m := mean(x)
	if m <= 0 || slices.Max(x) < 4 {
		return 0
	}
	return (mean(x[len(x)/2:]) - mean(x[:len(x)/2])) / m
}
