package calibrate

import (
	"errors"
	"math"
	"slices"
)

// LengthRow is how long the answers of a model to a suite were, in tokens.
type LengthRow struct {
	Suite string  `json:"suite"`
	Model string  `json:"model"`
	N     float64 `json:"n"`
	In    float64 `json:"prompt_mean"`
	Out   float64 `json:"output_mean"`
	Sq    float64 `json:"output_squares"` // sum of squared distances from the mean
}

// Add takes one answer, by Welford's method.
func (l *LengthRow) Add(in, out float64) {
	l.N++
	l.In += (in - l.In) / l.N
	d := out - l.Out
	l.Out += d / l.N
	l.Sq += d * (out - l.Out)
}

// Error is the standard error of the mean output.
func (l *LengthRow) Error() float64 {
	if l.N < 2 {
		return l.Out
	}
	return math.Sqrt(l.Sq / (l.N - 1) / l.N)
}

// Learn adds own measurements to a calibration. What it was fitted to before is
// the prior, as tight as the number of configurations behind each parameter
// makes it; what a site's rows share (its model, GPU, engine version) is learnt
// as effects of their own. So a row tells most of its own configuration, less of
// those that share its model or its GPU, and little of all others.
func (c *Calibration) Learn(rows []Row, configs *Configs) (*Calibration, error) {
	if len(rows) == 0 {
		return nil, errors.New("learn: no rows")
	}
	ps, err := resolve(rows, configs)
	if err != nil {
		return nil, err
	}
	out := c.updated(ps)
	out.Spread = map[string]Spread{}
	for k, v := range c.Spread {
		out.Spread[k] = v
	}
	out.siteSpread(c, ps)
	return out, nil
}

// updated is the calibration after some own points.
func (c *Calibration) updated(ps []*point) *Calibration {
	d := c.tightened()
	d.learn(ps)
	theta, err := fit(d, ps, fitConfig{scale: siteScale})
	if err != nil {
		return c // no points: nothing is learnt
	}
	out := &Calibration{Version: c.Version, Rows: c.Rows + len(ps), Sources: slices.Clone(c.Sources), Cells: slices.Clone(c.Cells), Lengths: c.Lengths, Spread: c.Spread}
	// The written form counts from the general priors.
	plain := newDesign()
	for _, p := range d.list {
		if _, ok := plain.index[p.name]; !ok {
			plain.add(effectParam(c.design, p))
		}
	}
	out.design, out.theta = plain, make([]float64, len(plain.list))
	for i, p := range d.list {
		out.theta[plain.index[p.name]] = theta[i]
	}
	for _, p := range ps {
		out.own(p)
	}
	slices.Sort(out.Sources)
	out.sortCells()
	out.count()
	return out
}

// own adds a point to what was measured at this site.
func (c *Calibration) own(p *point) {
	key := Cell{Model: p.row.Model, Structure: p.model, SKU: p.sku.ID, Precision: p.shape.Precision.String(), Framework: p.version, Own: true}
	at := slices.IndexFunc(c.Cells, func(x Cell) bool { n := x; n.Rows = 0; return n == key })
	if at < 0 {
		at = len(c.Cells)
		c.Cells = append(c.Cells, key)
	}
	c.Cells[at].Rows++
	if p.row.Source != "" && !slices.Contains(c.Sources, p.row.Source) {
		c.Sources = append(c.Sources, p.row.Source)
	}
}

// tightened is the design with the fitted values as prior means. The rows of one
// configuration go together, so it is configurations that count as evidence.
func (c *Calibration) tightened() *design {
	evidence := map[string]int{}
	for _, cell := range c.Cells {
		for _, e := range effectsOf(cell.Structure, cell.SKU, cell.Precision, cell.Framework) {
			evidence[e.name]++
		}
	}
	d := &design{index: map[string]int{}}
	for i, p := range c.design.list {
		n, isEffect := evidence[p.name]
		if !isEffect {
			n = len(c.Cells)
		}
		sd := 1 / math.Sqrt(1/(p.sd*p.sd)+float64(n)/(residualScale*residualScale))
		d.add(param{p.name, c.theta[i], sd})
	}
	d.prepare()
	return d
}

// siteSpread looks how far off the own rows are when a fifth of them is left
// out. Few of them say little: until there are some tens, the spread of measured
// configurations in general counts beside theirs.
func (c *Calibration) siteSpread(before *Calibration, ps []*point) {
	folds := map[string][]*point{}
	for _, p := range ps {
		folds[cellKey(p)] = append(folds[cellKey(p)], p)
	}
	groups := map[string][]left{}
	for k, test := range folds {
		var train []*point
		for f, members := range folds {
			if f != k {
				for _, p := range members {
					q := *p
					train = append(train, &q)
				}
			}
		}
		if len(train) == 0 {
			continue
		}
		half := before.updated(train)
		for _, p := range test {
			if kind, _ := half.knows(p); kind != knownSite {
				continue
			}
			feats := half.design.features(p)
			k := coef(feats, half.theta)
			groups[classOf(p)] = append(groups[classOf(p)], left{p, p.y - p.logPred(&k)})
		}
	}
	for _, class := range classes {
		cell := before.Spread[knownCell+"/"+class]
		own := quantiles([][]left{groups[class]})
		n := float64(len(groups[class]))
		w := n / (n + 10)
		if n == 0 {
			own = cell
		}
		c.Spread[knownSite+"/"+class] = Spread{w*own.P10 + (1-w)*cell.P10, w*own.P90 + (1-w)*cell.P90, len(groups[class])}
	}
}

// effectParam is the parameter of an effect with its general prior.
func effectParam(d *design, p param) param {
	if at, ok := d.index[p.name]; ok {
		return param{p.name, 0, d.list[at].sd}
	}
	return p
}
