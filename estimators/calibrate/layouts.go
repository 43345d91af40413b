package calibrate

import (
	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
)

// Split is one way to lay a model over GPUs, with what it gives.
type Split struct {
	SKU        string              `json:"sku"`
	Layout     serving.Layout      `json:"layout"`
	Batch      int                 `json:"batch"`
	Throughput estimators.Interval `json:"output_tokens_per_s"`
	PerGPU     float64             `json:"output_tokens_per_s_per_gpu"`
	TTFT       float64             `json:"ttft_s"`
	TPOT       float64             `json:"tpot_s"`
	LinkShare  float64             `json:"link_share"` // of a decode step that goes over links and networks
	Confidence string              `json:"confidence"`
	Best       bool                `json:"best,omitempty"` // most tokens a GPU
}

// Splits estimates every layout of at most so many GPUs that holds the model,
// and marks the one that gives most for each GPU.
func (c *Calibration) Splits(a Ask, g *sku.SKU, most int) []Split {
	var out []Split
	best := -1
	for _, f := range serving.Layouts(a.Shape, g, a.Load, most) {
		e := c.Estimate(Query{a.Shape, g, f.Layout, a.Load, a.Framework})
		p := e.Times.Parts
		s := Split{SKU: g.ID, Layout: f.Layout, Batch: f.Batch, Throughput: e.Throughput, PerGPU: e.Throughput.P50 / float64(f.Layout.GPUs),
			TTFT: e.Times.TTFT, TPOT: e.Times.TPOT, Confidence: e.Confidence}
		if sum := p.Weights + p.Cache + p.Compute + p.Overhead + p.Link; sum > 0 {
			s.LinkShare = p.Link / sum
		}
		out = append(out, s)
		if best < 0 || s.PerGPU > out[best].PerGPU {
			best = len(out) - 1
		}
	}
	if best >= 0 {
		out[best].Best = true
	}
	return out
}
