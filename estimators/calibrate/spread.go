package calibrate

import (
	"math"
	"runtime"
	"slices"
	"sync"
)

// left is a point that a fit did not see, with its error.
type left struct {
	p   *point
	err float64 // log(measured / predicted)
}

// leaveOut fits without each group of points in turn, starting from the fit of
// all, and returns the errors on what was left out, group by group in the order
// of their keys. One group alone is split by nothing and gives none.
func (c *Calibration) leaveOut(ps []*point, key func(*point) string) [][]left {
	groups := map[string]bool{}
	for _, p := range ps {
		groups[key(p)] = true
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if len(keys) < 2 {
		return nil
	}
	out := make([][]left, len(keys))
	parallel(len(keys), func(i int) { out[i] = c.without(ps, key, keys[i]) })
	return out
}

// without fits all points but one group's. Points are copied, since a fit gives
// them their features.
func (c *Calibration) without(ps []*point, key func(*point) string, group string) []left {
	var train []*point
	var test []left
	for _, p := range ps {
		q := *p
		if key(p) == group {
			test = append(test, left{p: &q})
		} else {
			train = append(train, &q)
		}
	}
	d := newDesign()
	d.learn(train)
	theta, err := fit(d, train, fitConfig{start: c.startFor(d), steps: 6})
	if err != nil {
		return nil // no rows are left: nothing is learnt from this group
	}
	for i := range test {
		p := test[i].p
		p.feats = d.features(p)
		k := coef(p.feats, theta)
		test[i].err = p.y - p.logPred(&k)
	}
	return test
}

// startFor carries the parameters over to another design.
func (c *Calibration) startFor(d *design) []float64 {
	start := make([]float64, len(d.list))
	for i, p := range d.list {
		start[i] = p.mean
		if at, ok := c.design.index[p.name]; ok {
			start[i] = c.theta[at]
		}
	}
	return start
}

// parallel runs n jobs on all processors.
func parallel(n int, job func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				job(i)
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func skuKey(p *point) string   { return p.sku.ID }
func modelKey(p *point) string { return p.model }

// cellKey leaves out a fifth of the rows of every cell: what a new load on a
// measured configuration is like.
func cellKey(p *point) string {
	return string(rune('0' + (p.load.ISL/7+p.load.OSL/13+p.load.Concurrency*5+p.layout.GPUs*3)%5))
}

// classes are the kinds of model whose errors are looked at apart: mixtures of
// experts are harder to predict.
var classes = []string{"dense", "moe"}

func classOf(p *point) string {
	if p.shape.Experts > 0 {
		return "moe"
	}
	return "dense"
}

// spread fills the spreads that are asked for, one for each class of models.
func (c *Calibration) spread(ps []*point, kinds []string) {
	want := func(k string) bool { return slices.Contains(kinds, k) }
	var sku, model, cell [][]left
	if want(knownModel) || want(knownNone) {
		sku = c.leaveOut(ps, skuKey)
	}
	if want(knownSKU) || want(knownNone) {
		model = c.leaveOut(ps, modelKey)
		if r := quantiles(pairErrors(model)); r.N > 0 {
			c.Spread[ratioSpread] = r
		}
	}
	if want(knownCell) {
		cell = c.leaveOut(ps, cellKey)
	}
	for _, class := range classes {
		s, m := classSpread(sku, class).fromMore(len(sku)), classSpread(model, class).fromMore(len(model))
		// A side with a single group says nothing of a new one; the other stands in.
		if s.N == 0 {
			s = m
		}
		if m.N == 0 {
			m = s
		}
		for kind, v := range map[string]Spread{
			knownModel: s, knownSKU: m, knownCell: classSpread(cell, class),
			knownNone: {-math.Hypot(s.P10, m.P10), math.Hypot(s.P90, m.P90), min(s.N, m.N)},
		} {
			if want(kind) {
				c.Spread[kind+"/"+class] = v
			}
		}
	}
}

// fromMore corrects the spread of n groups, each predicted from the other n-1,
// for a prediction from all n: the error of a new group's mean has the variance
// 1 + 1/n of that between groups.
func (s Spread) fromMore(n int) Spread {
	if n < 2 {
		return s
	}
	f := math.Sqrt((1 + 1/float64(n)) / (1 + 1/float64(n-1)))
	return Spread{s.P10 * f, s.P90 * f, s.N}
}

// classSpread is the spread of a class, drawn towards that of all models where
// few groups hold the class.
func classSpread(groups [][]left, class string) Spread {
	all := quantiles(groups)
	some := make([][]left, len(groups))
	n := 0.0
	for i, g := range groups {
		for _, l := range g {
			if classOf(l.p) == class {
				some[i] = append(some[i], l)
			}
		}
		if len(some[i]) > 0 {
			n++
		}
	}
	own := quantiles(some)
	if own.N == 0 {
		return all
	}
	w := n / (n + 2)
	return Spread{w*own.P10 + (1-w)*all.P10, w*own.P90 + (1-w)*all.P90, own.N}
}

// ratioSpread is the spread of the ratio of NVFP4 to FP8.
const ratioSpread = "nvfp4/fp8"

// pairErrors are the errors of that ratio on rows that only differ in format.
func pairErrors(groups [][]left) [][]left {
	out := make([][]left, len(groups))
	for i, g := range groups {
		fp8 := map[string]float64{}
		for _, l := range g {
			if isFormat(l.p.row.Precision, "fp8") {
				fp8[l.p.pair()] = l.err
			}
		}
		for _, l := range g {
			if base, ok := fp8[l.p.pair()]; ok && isFormat(l.p.row.Precision, "nvfp4") {
				out[i] = append(out[i], left{l.p, l.err - base})
			}
		}
	}
	return out
}

// quantiles are those of the left-out errors, every row counting the same.
func quantiles(groups [][]left) Spread {
	var all []float64
	for _, g := range groups {
		for _, l := range g {
			all = append(all, l.err)
		}
	}
	if len(all) == 0 {
		return Spread{-defaultSpread, defaultSpread, 0}
	}
	return Spread{math.Min(quantile(all, 0.1), -minSpread), math.Max(quantile(all, 0.9), minSpread), len(all)}
}

const (
	// defaultSpread is a factor of two, for calibrations without a second group.
	defaultSpread = 0.7
	// minSpread is what repeats of one configuration differ by.
	minSpread = 0.05
)
