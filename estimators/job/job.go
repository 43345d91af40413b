// Package job estimates whole plans: the runs of a paper's code and the suites
// of a model, from the start of the machine to the last answer, in reserved
// GPU-hours and money for each GPU model.
//
// Queueing is left out. What cannot be said is null with a reason; a sum with
// an unknown part is unknown, and its known parts are listed.
package job

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
)

// Config is what an estimate needs beside the plan. The zero value works: it
// knows no model and no price.
type Config struct {
	Calibration *calibrate.Calibration // nil is the one that comes with the program
	Models      map[string]*model.Model
	SKUs        []*sku.SKU // nil is [Usual]
	// Price of a GPU-hour; nil, or ok false, leaves money out.
	Price func(id string, terms sku.Terms) (p sku.Price, ok bool)
	// Hosted is the price per token of a model at a host; nil leaves it out.
	Hosted func(model string, params float64) (p sku.TokenPrice, ok bool)
	Now    time.Time
}

// Usual are the GPUs that a plan is estimated for when none is asked for: those
// that are rented most, one of each kind.
func Usual() []*sku.SKU {
	var out []*sku.SKU
	for _, id := range []string{"a100", "l40s", "h100", "h200", "b200", "gb200", "rtx-pro-6000-server"} {
		if g, err := sku.Find(id); err == nil {
			out = append(out, g)
		}
	}
	return out
}

// part is a share of a job on one GPU model.
type part struct {
	name   string
	gpus   int
	wall   estimators.Interval // seconds
	hours  *estimators.Interval
	busy   estimators.Interval // GPU-hours
	hosted *estimators.Interval
	cpu    bool
	fits   string // yes|no|unknown
	method string
	reason string // why hours is nil
	note   string
	kind   spec.Kind

	dominant               string
	supported, assumptions []string
}

func unknown(name, method string, format string, args ...any) part {
	return part{name: name, method: method, reason: fmt.Sprintf(format, args...), fits: "unknown", kind: spec.Estimated}
}

// Estimate returns what the selected runs and the suites of a plan take, one
// estimate for each GPU model, or a single one where no GPU is used.
func Estimate(p *spec.Plan, c Config) ([]spec.Estimate, error) {
	if c.Calibration == nil {
		cal, err := calibrate.Shipped()
		if err != nil {
			return nil, err
		}
		c.Calibration = cal
	}
	if c.SKUs == nil {
		c.SKUs = Usual()
	}
	return append(c.job(selected(p), todo(p)), c.others(p)...), nil
}

// job is the estimate of what is selected.
func (c *Config) job(runs []*spec.Run, suites []*spec.Suite) []spec.Estimate {
	if len(runs) == 0 && len(suites) == 0 {
		return []spec.Estimate{{SKU: "none", Method: "none", Kind: spec.Derived, Fits: "unknown", Reason: "nothing of this plan is selected to run"}}
	}
	if cpuOnly(runs, suites) {
		return []spec.Estimate{onCPU(runs, suites)}
	}
	var out []spec.Estimate
	for _, g := range c.SKUs {
		var parts []part
		for _, r := range runs {
			parts = append(parts, runPart(r, g))
		}
		for _, s := range suites {
			parts = append(parts, c.suiteParts(s, g)...)
		}
		if len(parts) == 0 { // every arm is pinned to another GPU
			continue
		}
		out = append(out, c.sum(g, parts))
	}
	return out
}

// others are the runs that are not selected, as far as their cost is known: what
// the whole experiment would take.
func (c *Config) others(p *spec.Plan) []spec.Estimate {
	var out []spec.Estimate
	for i := range p.Runs {
		r := &p.Runs[i]
		if r.Selected || r.Kind == "smoke" || len(r.Work) == 0 {
			continue
		}
		for _, g := range c.SKUs {
			one := runPart(r, g)
			if one.cpu || one.hours == nil {
				continue
			}
			e := c.sum(g, []part{one})
			e.Scope = "run/" + r.ID
			out = append(out, e)
		}
	}
	return out
}

func selected(p *spec.Plan) []*spec.Run {
	var out []*spec.Run
	for i := range p.Runs {
		if p.Runs[i].Selected {
			out = append(out, &p.Runs[i])
		}
	}
	return out
}

// todo are the suites that nothing keeps from starting.
func todo(p *spec.Plan) []*spec.Suite {
	var out []*spec.Suite
	for i := range p.Suites {
		if s := &p.Suites[i]; (s.Status == "" || s.Status == "auto") && (s.Selected || s.Kind == "checkpoint") {
			out = append(out, s)
		}
	}
	return out
}

func cpuOnly(runs []*spec.Run, suites []*spec.Suite) bool {
	for _, r := range runs {
		if r.GPUs.Min > 0 || (mayUseGPU(r) && len(r.Work) > 0) {
			return false
		}
	}
	for _, s := range suites {
		if s.Kind != "checkpoint" {
			return false
		}
	}
	return true
}

// mayUseGPU is a run that takes a GPU where there is one.
func mayUseGPU(r *spec.Run) bool {
	return r.GPUs.Min == 0 && strings.Contains(r.GPUs.Hint, "where there is one")
}

// onCPU says that no GPU is used, which is known, and bounds the time, which is
// not.
func onCPU(runs []*spec.Run, suites []*spec.Suite) spec.Estimate {
	e := spec.Estimate{SKU: "cpu", Fits: "yes", GPUHours: &spec.Interval{}, USD: &spec.Interval{}, Method: "none", Kind: spec.Derived,
		SupportedBy: []string{"no selected run asks for a GPU"},
		Assumptions: []string{"the machine itself is not priced"}}
	limit, stated := 0, 0.0
	for _, r := range runs {
		limit += r.TimeoutS
		if w := workOf(r); w[spec.WorkHoursSKU].Value == "cpu" && stated >= 0 {
			stated += 3600 * w.num(spec.WorkHours)
			e.SupportedBy = append(e.SupportedBy, r.ID+" takes "+length(3600*w.num(spec.WorkHours))+" by its authors' word")
		} else {
			stated = -1 // one part is not known
		}
		if mayUseGPU(r) {
			e.Assumptions = append(e.Assumptions, r.ID+" would take a GPU where there is one")
		}
	}
	for _, s := range suites {
		e.Assumptions = append(e.Assumptions, s.ID+" reads checkpoints on the CPU")
	}
	if stated > 0 && len(suites) == 0 {
		// The authors' machine is not named: processors differ by a factor of three,
		// and the start of a sandbox adds seconds.
		e.WallS, e.Method = &spec.Interval{P10: 0.4 * stated, P50: stated + 2, P90: 3*stated + 20}, "stated"
		return e
	}
	e.Reason = "the time on a CPU is not known before a first run"
	if limit > 0 {
		e.Reason += fmt.Sprintf("; the time limits add up to %s", length(float64(limit)))
	}
	return e
}

// length is a number of seconds as people say it.
func length(s float64) string {
	switch {
	case s >= 2*86400:
		return fmt.Sprintf("%.3g days", s/86400)
	case s >= 2*3600:
		return fmt.Sprintf("%.3g hours", s/3600)
	case s >= 120:
		return fmt.Sprintf("%.3g minutes", s/60)
	}
	return fmt.Sprintf("%.3g s", s)
}

// sum adds the parts of a job, which run one after the other.
func (c *Config) sum(g *sku.SKU, parts []part) spec.Estimate {
	e := spec.Estimate{SKU: g.ID, Fits: "yes", Kind: spec.Estimated}
	var wall, hours, busy, hosted estimators.Interval
	known, priced := true, true
	var why []string
	longest := -1.0
	held := map[string]int{} // GPUs at one time: the arms of a suite are held together
	for _, p := range parts {
		held[stageOf(p.name)] += p.gpus
		e.GPUs = max(e.GPUs, held[stageOf(p.name)])
		sp := spec.EstimatePart{Name: p.name, GPUs: p.gpus, Note: p.note}
		if p.hours != nil {
			sp.GPUHours = interval(*p.hours)
			wall, hours, busy = wall.Plus(p.wall), hours.Plus(*p.hours), busy.Plus(p.busy)
			if p.hours.P50 > longest {
				longest, e.Dominant = p.hours.P50, dominantOf(p)
			}
		} else {
			known = false
			sp.Note = p.reason
			why = appendNew(why, p.reason)
		}
		if p.hosted != nil {
			hosted = hosted.Plus(*p.hosted)
		} else {
			priced = false
		}
		e.Parts = append(e.Parts, sp)
		e.Method = joinWord(e.Method, p.method)
		e.SupportedBy = appendNew(e.SupportedBy, p.supported...)
		e.Assumptions = appendNew(e.Assumptions, p.assumptions...)
		if worse := []string{"yes", "unknown", "no"}; slices.Index(worse, p.fits) > slices.Index(worse, e.Fits) {
			e.Fits = p.fits
		}
	}
	e.Reason = strings.Join(why, "; ")
	if priced && hosted.P50 > 0 {
		e.HostedUSD = interval(hosted)
	}
	if !known {
		e.Dominant = ""
		return e
	}
	e.WallS, e.GPUHours, e.BusyHours = interval(wall), interval(hours), interval(busy)
	c.money(&e, hours)
	return e
}

// stageOf is what a part belongs to: run/<id> or suite/<id>.
func stageOf(name string) string {
	kind, rest, _ := strings.Cut(name, "/")
	id, _, _ := strings.Cut(rest, "/")
	return kind + "/" + id
}

func dominantOf(p part) string {
	if p.dominant == "" {
		return p.name
	}
	return p.name + ": " + p.dominant
}

// money fills both prices, which are different things and never mixed.
func (c *Config) money(e *spec.Estimate, h estimators.Interval) {
	if c.Price == nil {
		e.Reason = joinWord(e.Reason, "no price is known for "+e.SKU)
		return
	}
	cost := func(p sku.Price) *spec.Interval {
		return &spec.Interval{P10: h.P10 * p.Low, P50: h.P50 * p.Mid, P90: h.P90 * p.High}
	}
	if p, ok := c.Price(e.SKU, sku.OnDemand); ok {
		e.USD, e.PriceAsOf = cost(p), p.AsOf
		if p.Stale(c.Now) {
			e.Assumptions = append(e.Assumptions, "the price of "+e.SKU+" is of "+p.AsOf)
		}
	} else {
		e.Reason = joinWord(e.Reason, "no price is known for "+e.SKU)
	}
	if p, ok := c.Price(e.SKU, sku.Owned); ok {
		e.OwnedUSD = cost(p)
	}
}

func interval(i estimators.Interval) *spec.Interval {
	return &spec.Interval{P10: i.P10, P50: i.P50, P90: i.P90}
}

func appendNew(list []string, more ...string) []string {
	for _, s := range more {
		if s != "" && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func joinWord(a, b string) string {
	switch {
	case a == "" || a == b:
		return b
	case b == "" || strings.Contains(a, b):
		return a
	}
	return a + "; " + b
}
