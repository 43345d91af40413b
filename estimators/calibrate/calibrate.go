// Package calibrate fits the time model of estimators/serving to measured rows
// and answers with intervals that hold on GPUs and models that were not
// measured.
//
// How it works:
//
//  1. [ReadRows] reads measurements, and each is matched with the structure of
//     its model and with its GPU of the catalogue.
//  2. A mixed model is fitted: general coefficients shrunk to priors, and
//     effects that rows of the same model, engine version, GPU or cell share.
//     So what is known of a model on one GPU carries over to another, and a new
//     request is corrected by the measured rows that are nearest to it.
//  3. Everything is fitted again without each GPU and without each model in
//     turn. The errors on what was left out give the intervals: those of GPUs
//     for a new GPU, those of models for a new model, both for both.
//  4. [Backtest] does all of this inside each of its own folds.
package calibrate

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/spec"
)

// Version names the form of a calibration.
const Version = "serving-1"

// Calibration is a fitted time model.
type Calibration struct {
	Version string             `json:"version"`
	Rows    int                `json:"rows"`
	Sources []string           `json:"sources"`
	Cells   []Cell             `json:"cells"`
	Params  map[string]float64 `json:"params"` // those that differ from their prior
	Spread  map[string]Spread  `json:"spread"` // by what is known of a request, and class of model
	Lengths []LengthRow        `json:"lengths,omitempty"`

	design *design
	theta  []float64
	known  map[string]int // rows by what they are of, see supportKeys
}

// Cell is what a number of rows are of.
type Cell struct {
	Model     string `json:"model"`
	Structure string `json:"structure"`
	SKU       string `json:"sku"`
	Precision string `json:"precision"`
	Framework string `json:"framework"`
	Rows      int    `json:"rows"`
	Own       bool   `json:"own,omitempty"` // measured at this site
}

// Spread is the error of predictions as quantiles of log(measured/predicted).
type Spread struct {
	P10 float64 `json:"p10"`
	P90 float64 `json:"p90"`
	N   int     `json:"n"` // left-out rows it was seen on
}

// What is known of a request decides its spread.
const (
	knownSite  = "site"  // as the next, and measured here
	knownCell  = "cell"  // the model was measured on the GPU in the format
	knownModel = "model" // the GPU is new
	knownSKU   = "sku"   // the model is new
	knownNone  = "none"
)

// Fit fits rows. Its errors are those of the rows and their models.
func Fit(rows []Row, configs *Configs) (*Calibration, error) {
	ps, err := resolve(rows, configs)
	if err != nil {
		return nil, err
	}
	c, err := fitPoints(ps)
	if err != nil {
		return nil, err
	}
	c.spread(ps, []string{knownCell, knownModel, knownSKU, knownNone})
	return c, nil
}

// fitPoints fits without looking at how far off the result is.
func fitPoints(ps []*point) (*Calibration, error) {
	d := newDesign()
	d.learn(ps)
	theta, err := fit(d, ps, fitConfig{})
	if err != nil {
		return nil, err
	}
	c := &Calibration{Version: Version, Rows: len(ps), design: d, theta: theta, Spread: map[string]Spread{}}
	c.describe(ps)
	return c, nil
}

// describe lists what the points are of.
func (c *Calibration) describe(ps []*point) {
	index := map[Cell]int{}
	for _, p := range ps {
		key := Cell{p.row.Model, p.model, p.sku.ID, p.shape.Precision.String(), p.version, 0, false}
		if at, ok := index[key]; ok {
			c.Cells[at].Rows++
			continue
		}
		index[key] = len(c.Cells)
		key.Rows = 1
		c.Cells = append(c.Cells, key)
		if p.row.Source != "" && !slices.Contains(c.Sources, p.row.Source) {
			c.Sources = append(c.Sources, p.row.Source)
		}
	}
	c.sortCells()
	slices.Sort(c.Sources)
	c.count()
}

func (c *Calibration) sortCells() {
	slices.SortFunc(c.Cells, func(a, b Cell) int {
		return cmp.Or(cmp.Compare(a.Structure, b.Structure), cmp.Compare(a.Model, b.Model), cmp.Compare(a.SKU, b.SKU), cmp.Compare(a.Precision, b.Precision), cmp.Compare(a.Framework, b.Framework))
	})
}

func (c *Calibration) count() {
	c.known = map[string]int{}
	for _, cell := range c.Cells {
		if g, err := sku.Find(cell.SKU); err == nil {
			c.known["arch "+string(g.Arch)] += cell.Rows
		}
		for i, k := range supportKeys(cell.Structure, cell.SKU, cell.Precision, Engine(cell.Framework)) {
			c.known[k] += cell.Rows
			if cell.Own && i == 1 {
				c.known["own "+k] += cell.Rows
			}
		}
	}
}

// supportKeys name the sets of rows that may support a request, nearest first.
func supportKeys(model, sku, precision, engine string) [6]string {
	return [6]string{
		"model+sku+format+engine " + model + " " + sku + " " + precision + " " + engine,
		"model+sku+format " + model + " " + sku + " " + precision,
		"model " + model,
		"sku+format " + sku + " " + precision,
		"sku " + sku,
		"engine " + engine,
	}
}

// Query is one configuration to estimate.
type Query struct {
	Shape     *serving.Shape
	SKU       *sku.SKU
	Layout    serving.Layout
	Load      serving.Workload
	Framework string // engine with version, such as vllm-0.19.0; empty means vllm
}

// Estimate is the answer to a [Query].
type Estimate struct {
	// Throughput in output tokens per second of all GPUs.
	Throughput estimators.Interval `json:"output_tokens_per_s"`
	Times      serving.Times       `json:"times"`
	// Confidence is high where the model was measured on the GPU, medium where
	// one of both was, low where neither was.
	Confidence  string    `json:"confidence"`
	SupportedBy string    `json:"supported_by"`
	Assumptions []string  `json:"assumptions,omitempty"`
	Kind        spec.Kind `json:"kind"`
}

// Estimate predicts a configuration. Whether it fits is for
// [serving.FitMemory] to say.
func (c *Calibration) Estimate(q Query) Estimate {
	fw := q.Framework
	if fw == "" {
		fw = "vllm"
	}
	p := newPoint(q.Shape, q.SKU, q.Layout, q.Load, fw)
	site := c.siteVersion(p)
	if site != "" {
		p.version = site
	}
	p.feats = c.design.features(p)
	k := coef(p.feats, c.theta)
	t := p.terms.Run(p.load, &k)
	kind, counts := c.knows(p)
	s := c.Spread[kind+"/"+classOf(p)]
	e := Estimate{
		Throughput: estimators.Interval{P10: t.Throughput * math.Exp(s.P10), P50: t.Throughput, P90: t.Throughput * math.Exp(s.P90)},
		Times:      t, Kind: spec.Estimated, SupportedBy: supportText(kind, counts),
		Confidence: map[string]string{knownSite: "high", knownCell: "high", knownModel: "medium", knownSKU: "medium", knownNone: "low"}[kind],
	}
	e.Assumptions = append(e.Assumptions, q.Shape.Warnings...)
	if site != "" {
		e.Assumptions = append(e.Assumptions, "engine "+site+", as it was measured at this site")
	}
	if counts[5] == 0 {
		e.Assumptions = append(e.Assumptions, fmt.Sprintf("no row was measured with %s: an average engine was assumed", fw))
	}
	if !c.arch(q.SKU.Arch) {
		e.Confidence = "low"
		e.Assumptions = append(e.Assumptions, fmt.Sprintf("no GPU of the %s generation was measured: general efficiencies were assumed", q.SKU.Arch))
	}
	if q.Layout.PP > 1 || q.Layout.Nodes > 1 {
		e.Confidence = "low"
		e.Throughput = e.Throughput.Widen(1.5)
		e.Assumptions = append(e.Assumptions, "no pipeline and no layout over several servers was measured: its links are taken at the catalogue's rates")
	}
	if len(q.Shape.Warnings) > 0 {
		e.Throughput = e.Throughput.Widen(1.5)
	}
	return e
}

// siteVersion is the newest version of an engine that this site measured in the
// configuration of a request that names no version, "" where there is none.
func (c *Calibration) siteVersion(p *point) string {
	if strings.ContainsAny(p.version, "0123456789") {
		return ""
	}
	best := ""
	for i := range c.Cells {
		if x := &c.Cells[i]; x.Own && x.Structure == p.model && x.SKU == p.sku.ID && Engine(x.Framework) == p.engine && x.Framework > best && x.Precision == p.shape.Precision.String() {
			best = x.Framework
		}
	}
	return best
}

// arch reports whether a generation of GPUs was measured.
func (c *Calibration) arch(a sku.Arch) bool { return c.known["arch "+string(a)] > 0 }

// knows says what was measured of a point.
func (c *Calibration) knows(p *point) (kind string, counts [6]int) {
	for i, k := range supportKeys(p.model, p.sku.ID, p.shape.Precision.String(), p.engine) {
		counts[i] = c.known[k]
	}
	model, sku := counts[2] > 0, counts[4] > 0
	switch {
	case c.known["own "+supportKeys(p.model, p.sku.ID, p.shape.Precision.String(), p.engine)[1]] > 0:
		return knownSite, counts
	case counts[1] > 0:
		return knownCell, counts
	case model && sku:
		// Both are known, but not together: the harder half decides.
		return knownSKU, counts
	case model:
		return knownModel, counts
	case sku:
		return knownSKU, counts
	}
	return knownNone, counts
}

func supportText(kind string, n [6]int) string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d rows %s", n, what))
		}
	}
	switch {
	case n[0] > 0:
		add(n[0], "of the same model, GPU, format and engine")
	case n[1] > 0:
		add(n[1], "of the same model, GPU and format with another engine")
	default:
		add(n[2], "of the same model")
		add(n[3], "on the same GPU in the same format")
		if n[3] == 0 {
			add(n[4], "on the same GPU")
		}
	}
	if kind == knownNone {
		add(n[5], "with the same engine")
		parts = append(parts, "neither the model nor the GPU was measured")
	}
	if len(parts) == 0 {
		return "general coefficients only"
	}
	return strings.Join(parts, "; ")
}
