package cli

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/load/measure"
)

// checkPlots refuses files that cannot be drawn, before anything is measured.
func (a *app) checkPlots(files []string) error {
	for _, f := range files {
		if !slices.Contains(plot.Formats(), filepath.Ext(f)) {
			return usererrf("end the name in "+strings.Join(plot.Formats(), " or "), "--plot %s has no format", f)
		}
	}
	return nil
}

func (a *app) drawFrontier(files []string, title, ttft string, curves []plot.Curve) error {
	for _, f := range files {
		var b bytes.Buffer
		if err := plot.Tradeoff(&b, filepath.Ext(f), title, ttft, curves); err != nil {
			return err
		}
		if err := atomicfile.Write(a.expand(f), b.Bytes(), atomicfile.Options{}); err != nil {
			return usererrf("give --plot a file in a folder that can be written", "write plot: %v", err)
		}
	}
	return nil
}

// sweepCurve is a sweep as one curve. The percentile of TTFT is the highest that
// all cells support.
func sweepCurve(name string, cells []*bench.Cell, gpus int) (c plot.Curve, ttft string) {
	p := 99.0
	for _, cell := range cells {
		if math.IsNaN(cell.Summary.Whole.TTFTIntended.P(99)) {
			p = 50
		}
	}
	c.Name = name
	per := 1 / float64(max(1, gpus))
	for _, cell := range cells {
		if cell.Void {
			continue
		}
		part := &cell.Summary.Whole
		if cell.Summary.Steady != nil {
			part = cell.Summary.Steady
		}
		out := part.OutputRate
		c.Cells = append(c.Cells, plot.Cell{Label: loadLabel(cell.Spec), PerGPU: plot.Range{Value: out.Value * per, Lo: out.Lo * per, Hi: out.Hi * per},
			PerUser: inverse(quantileOf(part.TPOT, 50)), TTFT: quantileOf(cell.Summary.Whole.TTFTIntended, p)})
	}
	return c, ttftName(p)
}

func ttftName(p float64) string {
	if p == 50 {
		return "median TTFT (too few requests for P99)"
	}
	return fmt.Sprintf("P%g TTFT", p)
}

// loadLabel is a cell's load in a word.
func loadLabel(s load.Spec) string {
	switch {
	case s.Mode == load.Closed:
		return fmt.Sprintf("c%d", s.Concurrency)
	case s.Arrivals == load.Trace:
		return "trace"
	}
	return fmt.Sprintf("%g/s", s.Rate)
}

func quantileOf(d measure.Dist, p float64) (r plot.Range) {
	for _, q := range d.Quantiles {
		if q.P == p && q.Supported {
			r = plot.Range{Value: q.Value, Lo: q.Lo, Hi: q.Hi}
		}
	}
	return r
}

// inverse turns seconds per token into tokens per second.
func inverse(r plot.Range) plot.Range {
	if r.Value <= 0 || r.Lo <= 0 || r.Hi <= 0 {
		return plot.Range{}
	}
	return plot.Range{Value: 1 / r.Value, Lo: 1 / r.Hi, Hi: 1 / r.Lo}
}

// contestCurves are the arms of a contest: each point is the geometric mean over
// its blocks, and its cross spans all of them.
func contestCurves(arms []string, measured []bench.Measured, blocks []compare.Block) (out []plot.Curve, ttft string) {
	label := map[string]string{}
	var cells []string
	for _, m := range measured {
		if _, seen := label[m.Cell.Name]; !seen {
			cells = append(cells, m.Cell.Name)
		}
		label[m.Cell.Name] = loadLabel(m.Cell.Spec)
	}
	metric, p := compare.TTFTp99, 99.0
	for _, b := range blocks {
		if _, ok := b.Values[metric]; !ok && !b.Void {
			metric, p = compare.TTFTp50, 50
		}
	}
	for _, arm := range arms {
		c := plot.Curve{Name: arm}
		for _, cell := range cells {
			span := func(name string) (r plot.Range) {
				n, sum := 0, 0.0
				for _, b := range blocks {
					v, ok := b.Values[name]
					if b.Arm != arm || b.Cell != cell || b.Void || !ok {
						continue
					}
					if name == compare.OutputPerGPU {
						v /= float64(max(1, b.Setup.GPUs))
					}
					if n == 0 {
						r.Lo, r.Hi = v, v
					}
					n, sum, r.Lo, r.Hi = n+1, sum+math.Log(v), min(r.Lo, v), max(r.Hi, v)
				}
				if n > 0 {
					r.Value = math.Exp(sum / float64(n))
				}
				return r
			}
			c.Cells = append(c.Cells, plot.Cell{Label: label[cell], PerGPU: span(compare.OutputPerGPU), PerUser: span(compare.Interactive), TTFT: span(metric)})
		}
		out = append(out, c)
	}
	return out, ttftName(p)
}
