package measure

import (
	"math"
	"math/rand/v2"
	"slices"
)

var nan = math.NaN()

// Dist is a sample in numbers. Order matters: the interval allows for
// neighbours that resemble each other.
type Dist struct {
	N         int        `json:"n"`
	Mean      float64    `json:"mean"`
	MeanLo    float64    `json:"mean_lo"` // 95 %, moving-block bootstrap
	MeanHi    float64    `json:"mean_hi"`
	Std       float64    `json:"std"`
	Min       float64    `json:"min"`
	Max       float64    `json:"max"`
	Quantiles []Quantile `json:"quantiles"`
}

// Quantile is one percentile, or why there is none.
type Quantile struct {
	P         float64 `json:"p"`               // 0 to 100
	Value     float64 `json:"value"`           // linear between order statistics, as numpy.percentile
	Lo        float64 `json:"lo"`              // 95 %, moving-block bootstrap
	Hi        float64 `json:"hi"`              //
	Supported bool    `json:"supported"`       // the sample is large enough to state it
	Needs     int     `json:"needs,omitempty"` // sample size it would take, when it is not
}

// P is the value of a percentile, NaN when the sample does not support it.
func (d Dist) P(p float64) float64 {
	for _, q := range d.Quantiles {
		if q.P == p && q.Supported {
			return q.Value
		}
	}
	return nan
}

// Needs is the least sample size at which a two-sided 95 % interval for a
// percentile exists between order statistics: for the upper end some value must
// lie above the percentile with probability 97.5 %, 1 - p^n ≥ 0.975, and
// likewise below for low percentiles.
//
// Source: H. A. David, H. N. Nagaraja, "Order Statistics", 3rd ed., §7.1.
func Needs(percent float64) int {
	p := percent / 100
	p = max(p, 1-p)
	if p >= 1 {
		return math.MaxInt
	}
	return max(2, int(math.Ceil(math.Log(0.025)/math.Log(p))))
}

const resamples = 200

func newDist(x []float64, cfg Config) Dist {
	d := Dist{N: len(x)}
	if len(x) == 0 {
		for _, p := range cfg.Percentiles {
			d.Quantiles = append(d.Quantiles, Quantile{P: p, Needs: Needs(p)})
		}
		return d
	}
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	d.Mean = sum / float64(len(x))
	for _, v := range x {
		d.Std += (v - d.Mean) * (v - d.Mean)
	}
	d.Std = math.Sqrt(d.Std / float64(max(1, len(x)-1)))
	sorted := slices.Clone(x)
	slices.Sort(sorted)
	d.Min, d.Max = sorted[0], sorted[len(sorted)-1]
	b := resample(x, sorted, cfg)
	d.MeanLo, d.MeanHi = quantile(b.means, 0.025), quantile(b.means, 0.975)
	for i, p := range cfg.Percentiles {
		q := Quantile{P: p}
		if need := Needs(p); len(x) < need {
			q.Needs = need
		} else {
			q.Supported, q.Value = true, quantile(sorted, p/100)
			q.Lo, q.Hi = quantile(b.quantiles[i], 0.025), quantile(b.quantiles[i], 0.975)
		}
		d.Quantiles = append(d.Quantiles, q)
	}
	return d
}

// quantile interpolates linearly between order statistics (Hyndman and Fan's
// type 7, numpy's default).
func quantile(sorted []float64, p float64) float64 {
	h := p * float64(len(sorted)-1)
	i := int(h)
	if i >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (h-float64(i))*(sorted[i+1]-sorted[i])
}

type boot struct {
	means     []float64   // sorted
	quantiles [][]float64 // per percentile, sorted
}

// resample draws moving blocks of n^(1/3) neighbours, wrapped around.
//
// Source: H. R. Künsch, "The jackknife and the bootstrap for general stationary
// observations", Ann. Statist. 17(3), 1989; the circular form by D. N. Politis
// and J. P. Romano, 1992. Values are replaced by their ranks once, so that a
// resample is counted, not sorted.
func resample(x, sorted []float64, cfg Config) boot {
	const most = 50_000 // a longer sample's interval is narrow enough by every k-th block
	n := len(x)
	block := max(1, int(math.Cbrt(float64(n))))
	draws := min(n, most)
	rank := make([]int32, n)
	for i, v := range x {
		j, _ := slices.BinarySearch(sorted, v)
		rank[i] = int32(j)
	}
	r := rand.New(rand.NewPCG(cfg.Seed, uint64(n)))
	b := boot{quantiles: make([][]float64, len(cfg.Percentiles))}
	counts := make([]int32, n)
	order := make([]int, len(cfg.Percentiles))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return int(1e6 * (cfg.Percentiles[i] - cfg.Percentiles[j])) })
	shrink := math.Sqrt(float64(draws) / float64(n))
	for range resamples {
		clear(counts)
		sum := 0.0
		for drawn := 0; drawn < draws; {
			at := r.IntN(n)
			for k := 0; k < block && drawn < draws; k++ {
				j := at + k
				if j >= n {
					j -= n
				}
				counts[rank[j]]++
				sum += x[j]
				drawn++
			}
		}
		b.means = append(b.means, sum/float64(draws))
		at, seen := 0, 0
		for _, i := range order {
			want := int(cfg.Percentiles[i] / 100 * float64(draws-1))
			for at < n-1 && seen+int(counts[at]) <= want {
				seen += int(counts[at])
				at++
			}
			b.quantiles[i] = append(b.quantiles[i], sorted[at])
		}
	}
	slices.Sort(b.means)
	for i := range b.quantiles {
		slices.Sort(b.quantiles[i])
	}
	if shrink < 1 {
		b.narrow(shrink)
	}
	return b
}

// narrow pulls the resampled values towards their middle: they were drawn from
// fewer values than there are.
func (b *boot) narrow(by float64) {
	for _, s := range append([][]float64{b.means}, b.quantiles...) {
		mid := quantile(s, 0.5)
		for i := range s {
			s[i] = mid + by*(s[i]-mid)
		}
	}
}

// Percentile is a percentile of a sample, whether it supports it or not; NaN of
// an empty one.
func Percentile(x []float64, percent float64) float64 {
	if len(x) == 0 {
		return nan
	}
	s := slices.Clone(x)
	slices.Sort(s)
	return quantile(s, percent/100)
}
