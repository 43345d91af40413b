package job

import (
	"fmt"
	"math"
	"strings"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
)

// served is one arm of a suite on one GPU model.
type served struct {
	arm   *spec.Arm
	shape *serving.Shape
	fit   serving.Fit
	part  part
}

// suiteParts estimates the arms of a suite on one GPU model. Arms that are
// compared item by item are served side by side, so that all are held for as
// long as the slowest takes.
func (c *Config) suiteParts(s *spec.Suite, g *sku.SKU) []part {
	if s.Kind == "checkpoint" {
		return []part{{name: "suite/" + s.ID, cpu: true, hours: &estimators.Interval{}, fits: "yes", method: "none", kind: spec.Derived, note: "reads checkpoints on the CPU: 0 GPU-hours"}}
	}
	var arms []served
	pinned := false
	for i := range s.Arms {
		a := &s.Arms[i]
		if a.SKU != "" {
			if on, err := sku.Find(a.SKU); err == nil && on.ID != g.ID {
				pinned = true
				continue
			}
		}
		arms = append(arms, c.serve(s, a, g))
	}
	if len(arms) == 0 && !pinned {
		return []part{unknown("suite/"+s.ID, "none", "suite %s has no arm", s.ID)}
	}
	var parts []part
	slowest := estimators.Interval{}
	for _, a := range arms {
		if a.part.hours != nil {
			slowest = slowest.Most(a.part.wall)
		}
	}
	for i, a := range arms {
		p := a.part
		if p.hours != nil && p.gpus > 0 && s.Kind == "accuracy" {
			h := slowest.Scale(float64(p.gpus) / 3600)
			p.hours = &h
			if i > 0 {
				p.wall = estimators.Interval{} // beside the first
			} else {
				p.wall = slowest
			}
			if len(arms) > 1 {
				p.assumptions = appendNew(p.assumptions, "arms are served side by side: the faster one waits for the slower")
			}
		}
		parts = append(parts, p)
	}
	return parts
}

// serve estimates one arm.
func (c *Config) serve(s *spec.Suite, a *spec.Arm, g *sku.SKU) served {
	name := "suite/" + s.ID + "/" + a.Name
	out := served{arm: a}
	m := c.Models[a.Model]
	if m == nil {
		out.part = unknown(name, "none", "the structure of %s was not read", a.Model)
		return out
	}
	shape, err := shapeOf(m, a)
	if err != nil {
		out.part = unknown(name, "none", "%s: %v", a.Model, err)
		return out
	}
	out.shape = shape
	asked, n := c.asked(s, a, shape)
	if a.Endpoint != "" && a.SKU == "" {
		out.part = part{name: name, hours: &estimators.Interval{}, fits: "yes", method: "none", kind: spec.Derived, note: "served elsewhere: 0 GPU-hours of ours", hosted: c.hosted(a, shape, asked, n)}
		return out
	}
	gpus := a.GPUs
	if gpus == 0 {
		gpus = a.TP
	}
	load := asked[0].load
	out.fit = serving.FitMemory(shape, g, longest(asked), gpus)
	if !out.fit.Fits {
		p := unknown(name, "serving", "%s does not fit: %s", a.Name, out.fit.Why)
		p.fits, p.gpus, p.hosted = "no", out.fit.Layout.GPUs, c.hosted(a, shape, asked, n)
		out.part = p
		return out
	}
	p := part{name: name, gpus: out.fit.Layout.GPUs, fits: "yes", method: "serving", kind: spec.Estimated, hosted: c.hosted(a, shape, asked, n)}
	var busy estimators.Interval
	for _, q := range asked {
		e := c.Calibration.Estimate(calibrate.Query{Shape: shape, SKU: g, Layout: out.fit.Layout, Load: q.load, Framework: framework(a)})
		tokens := q.osl.Scale(float64(q.requests)).Times(q.share)
		busy = busy.Plus(tokens.Times(e.Throughput.Inverse(1)))
		p.supported = appendNew(p.supported, fmt.Sprintf("%s: %s", a.Name, e.SupportedBy))
		p.assumptions = appendNew(p.assumptions, e.Assumptions...)
		p.assumptions = appendNew(p.assumptions, q.notes...)
		p.dominant = calibrate.Dominant(e.Times.Parts)
	}
	if load.Concurrency > out.fit.Batch {
		p.assumptions = appendNew(p.assumptions, fmt.Sprintf("%s: %d of %d concurrent requests fit, the others wait", a.Name, out.fit.Batch, load.Concurrency))
	}
	count := float64(p.gpus)
	start := calibrate.Startup(out.fit.Weights * count).Plus(pull())
	if rounds := float64(max(1, s.Repeats)); s.Kind == "throughput" && rounds > 1 {
		// Each round starts the server anew and measures every cell.
		busy, start = busy.Scale(rounds), start.Scale(rounds)
		p.assumptions = appendNew(p.assumptions, fmt.Sprintf("%d rounds, each with a start of the server", s.Repeats))
	}
	p.busy = busy.Scale(count / 3600)
	p.wall = busy.Times(again()).Plus(start)
	if start.P50 > busy.P50 {
		p.dominant = "startup"
	}
	h := p.wall.Scale(count / 3600)
	p.hours = &h
	p.note = fmt.Sprintf("%d × %s, %s", p.gpus, g.ID, out.fit.Math)
	out.part = p
	return out
}

// pull is the time to bring the image of an engine to a node: nothing where it
// lies there, minutes where it does not (kunwar.page chapter 52; images of 10 GB
// over 1 to 10 Gb/s).
func pull() estimators.Interval { return estimators.Interval{P10: 0, P50: 45, P90: 300} }

func shapeOf(m *model.Model, a *spec.Arm) (*serving.Shape, error) {
	var p serving.Precision
	if f, err := serving.ParsePrecision(a.Format); err == nil && a.Format != "" {
		p.Weights = f.Weights // activations and cache are the checkpoint's
	}
	if kv, err := serving.ParsePrecision(a.KVDtype); err == nil && a.KVDtype != "" {
		p.KV = kv.Weights
	}
	return serving.NewShape(m, p)
}

func framework(a *spec.Arm) string {
	e := strings.ToLower(a.Engine)
	if e != "" && a.EngineVersion != "" {
		e += "-" + a.EngineVersion
	}
	return e
}

// ask is a number of requests of one kind.
type ask struct {
	load     serving.Workload
	requests int
	osl      estimators.Interval // mean output tokens of a request
	share    estimators.Interval // of the requests that are sent before the answer is certain
	notes    []string
}

// asked is what a suite sends to one arm, and how many requests in all.
func (c *Config) asked(s *spec.Suite, a *spec.Arm, shape *serving.Shape) ([]ask, int) {
	if s.Kind == "throughput" && s.Load != nil {
		return cells(s.Load)
	}
	n := max(1, s.Questions) * max(1, s.Repeats)
	l := lengthOf(s.Name)
	if got, ok := measured(c.Calibration, s.Name, a.Model); ok {
		l = got
	}
	out := l.Out
	if limit := number(s.Sampling["max_tokens"]); limit > 0 {
		out = estimators.Interval{P10: math.Min(out.P10, limit), P50: math.Min(out.P50, limit), P90: math.Min(out.P90, limit)}
	}
	concurrency := int(number(s.Sampling["concurrency"]))
	notes := []string{l.Note}
	if concurrency == 0 {
		concurrency = 64
		notes = append(notes, "64 requests in flight")
	}
	share, why := stopShare(s.Compare)
	q := ask{load: serving.Workload{ISL: int(l.In), OSL: max(1, int(out.P50)), Concurrency: min(concurrency, n)}, requests: n, osl: out, share: share, notes: append(notes, why)}
	if shape.Context > 0 && q.load.ISL+q.load.OSL > shape.Context {
		q.load.OSL = max(1, shape.Context-q.load.ISL)
	}
	return []ask{q}, n
}

// longest is the request that needs the most memory.
func longest(asked []ask) serving.Workload {
	w := asked[0].load
	for _, q := range asked[1:] {
		if q.load.ISL+q.load.OSL > w.ISL+w.OSL {
			w = q.load
		}
	}
	return w
}

// stopShare is the share of the questions that a comparison is expected to use.
// For a model that did not change, sequential testing saves 61 to 78 % at a
// margin of one point and 85 to 92 % at two; on the edge of the margin it saves
// nothing, which the upper end allows for (computed by simulation over paired
// answers at 4 to 10 % discordance).
func stopShare(c *spec.Compare) (estimators.Interval, string) {
	if c == nil || c.Stop == "" || c.Stop == "none" || c.Stop == "fixed" {
		return estimators.Exact(1), ""
	}
	const why = "early stopping uses %.0f %% of the questions when the models are alike, all of them on the edge of the margin"
	if c.Margin >= 0.02 {
		return estimators.Interval{P10: 0.08, P50: 0.15, P90: 1}, fmt.Sprintf(why, 15.0)
	}
	return estimators.Interval{P10: 0.22, P50: 0.35, P90: 1}, fmt.Sprintf(why, 35.0)
}

// cells are those of a throughput measurement. Each runs until a steady state
// was long enough: ten requests for each place, and at least 100.
func cells(l *spec.Load) ([]ask, int) {
	type length struct{ in, out int }
	lengths := []length{}
	for i, in := range l.ISL {
		out := in
		if len(l.OSL) > 0 {
			out = l.OSL[min(i, len(l.OSL)-1)]
		}
		lengths = append(lengths, length{in, out})
	}
	if len(lengths) == 0 {
		lengths = []length{{1024, 1024}}
	}
	var out []ask
	total := 0
	add := func(w serving.Workload, requests int) {
		requests += l.Warmup
		total += requests
		out = append(out, ask{load: w, requests: requests, osl: estimators.Exact(float64(w.OSL)), share: estimators.Exact(1),
			notes: []string{"each cell sends ten requests for each place, and at least 100"}})
	}
	for _, n := range lengths {
		for _, c := range l.Concurrencies {
			add(serving.Workload{ISL: n.in, OSL: n.out, Concurrency: c}, l.Count(c))
		}
		for _, r := range l.Rates {
			add(serving.Workload{ISL: n.in, OSL: n.out, Rate: r}, l.Count(max(1, int(r))))
		}
		if len(l.Concurrencies)+len(l.Rates) == 0 {
			add(serving.Workload{ISL: n.in, OSL: n.out, Concurrency: 64}, 640)
		}
	}
	return out, total
}

// hosted is what a host that bills by token asks for the same requests.
func (c *Config) hosted(a *spec.Arm, s *serving.Shape, asked []ask, n int) *estimators.Interval {
	if c.Hosted == nil || n == 0 {
		return nil
	}
	p, ok := c.Hosted(a.Model, s.Total)
	if !ok {
		return nil
	}
	var sum estimators.Interval
	for _, q := range asked {
		in, out := float64(q.load.ISL), q.osl
		one := estimators.Interval{P10: in*p.In + out.P10*p.Out, P50: in*p.In + out.P50*p.Out, P90: in*p.In + out.P90*p.Out}
		sum = sum.Plus(one.Scale(float64(q.requests) / 1e6).Times(q.share))
	}
	return &sum
}

// number is a number of a JSON document.
func number(v any) float64 {
	switch x := v.(type) {
	case float64:
		return x
	case int:
		return float64(x)
	case int64:
		return float64(x)
	}
	return 0
}
