package calibrate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
)

// Ask is a job to be priced on several GPUs: so many requests of one kind
// against one model.
type Ask struct {
	Shape     *serving.Shape
	Load      serving.Workload
	Requests  int
	Framework string
	GPUs      int // 0 means as few as hold the model
	// Price of a GPU; nil, or ok false, leaves money out.
	Price func(id string) (p sku.Price, ok bool)
	Now   time.Time
}

// Offer is what a job takes on one GPU model.
type Offer struct {
	SKU  string      `json:"sku"`
	Name string      `json:"name"`
	Fit  serving.Fit `json:"memory"`

	Throughput *estimators.Interval `json:"output_tokens_per_s,omitempty"`
	PerGPU     *estimators.Interval `json:"output_tokens_per_s_per_gpu,omitempty"`
	TTFT       float64              `json:"ttft_s,omitempty"`
	TPOT       float64              `json:"tpot_s,omitempty"`
	Parts      *serving.Parts       `json:"decode_step,omitempty"`
	Dominant   string               `json:"dominant,omitempty"` // what takes most of the time
	Startup    *estimators.Interval `json:"startup_s,omitempty"`
	Wall       *estimators.Interval `json:"wall_s,omitempty"`
	GPUHours   *estimators.Interval `json:"gpu_hours,omitempty"` // reserved, with startup
	BusyHours  *estimators.Interval `json:"busy_gpu_hours,omitempty"`
	USD        *estimators.Interval `json:"usd,omitempty"`
	Price      *sku.Price           `json:"price,omitempty"` // absent where none is known
	// NVFP4OverFP8 is the ratio of the throughputs at equal configuration.
	NVFP4OverFP8 *estimators.Interval `json:"nvfp4_over_fp8,omitempty"`

	Confidence  string   `json:"confidence,omitempty"`
	SupportedBy string   `json:"supported_by,omitempty"`
	Assumptions []string `json:"assumptions,omitempty"`
	Cheapest    bool     `json:"cheapest,omitempty"`
	Fastest     bool     `json:"fastest,omitempty"`
}

// Offers estimates a job on each GPU, in the order given, and marks the cheapest
// and the fastest that fit.
func (c *Calibration) Offers(a Ask, skus []*sku.SKU) []Offer {
	out := make([]Offer, len(skus))
	cheap, fast := -1, -1
	for i, g := range skus {
		out[i] = c.offer(a, g)
		if o := &out[i]; o.Fit.Fits {
			if o.USD != nil && (cheap < 0 || o.USD.P50 < out[cheap].USD.P50) {
				cheap = i
			}
			if fast < 0 || o.Wall.P50 < out[fast].Wall.P50 {
				fast = i
			}
		}
	}
	if cheap >= 0 {
		out[cheap].Cheapest = true
	}
	if fast >= 0 {
		out[fast].Fastest = true
	}
	return out
}

func (c *Calibration) offer(a Ask, g *sku.SKU) Offer {
	o := Offer{SKU: g.ID, Name: g.Name, Fit: serving.FitMemory(a.Shape, g, a.Load, a.GPUs)}
	if !o.Fit.Fits {
		return o
	}
	e := c.Estimate(Query{a.Shape, g, o.Fit.Layout, a.Load, a.Framework})
	n := float64(o.Fit.Layout.GPUs)
	per := e.Throughput.Scale(1 / n)
	o.Throughput, o.PerGPU = &e.Throughput, &per
	o.TTFT, o.TPOT, o.Parts = e.Times.TTFT, e.Times.TPOT, &e.Times.Parts
	o.Dominant = Dominant(e.Times.Parts)
	o.Confidence, o.SupportedBy, o.Assumptions = e.Confidence, e.SupportedBy, e.Assumptions
	if a.Load.Concurrency > o.Fit.Batch {
		o.Assumptions = append(o.Assumptions, fmt.Sprintf("%d of %d concurrent requests fit at full length, the others wait", o.Fit.Batch, a.Load.Concurrency))
	}
	start := Startup(o.Fit.Weights * n)
	busy := e.Throughput.Inverse(float64(a.Requests) * float64(a.Load.OSL))
	wall := estimators.Interval{P10: busy.P10 + start.P10, P50: busy.P50 + start.P50, P90: busy.P90 + start.P90}
	hours, used := wall.Scale(n/3600), busy.Scale(n/3600)
	o.Startup, o.Wall, o.GPUHours, o.BusyHours = &start, &wall, &hours, &used
	if start.P50 > busy.P50 {
		o.Dominant = "startup"
	}
	o.money(a)
	if g.Has("fp4") {
		o.NVFP4OverFP8 = c.formatRatio(a, g, o.Fit.Layout)
	}
	return o
}

func (o *Offer) money(a Ask) {
	if a.Price == nil {
		return
	}
	p, ok := a.Price(o.SKU)
	if !ok {
		return
	}
	if p.Stale(a.Now) {
		o.Assumptions = append(o.Assumptions, "the price of "+o.SKU+" is of "+p.AsOf)
	}
	h := o.GPUHours
	o.Price = &p
	o.USD = &estimators.Interval{P10: h.P10 * p.Low, P50: h.P50 * p.Mid, P90: h.P90 * p.High}
}

// Dominant names the largest part of a decode step with its share of prefill.
func Dominant(p serving.Parts) string {
	names := []string{"weights", "cache", "compute", "overhead", "link", "prefill"}
	v := []float64{p.Weights, p.Cache, p.Compute, p.Overhead, p.Link, p.Prefill}
	at := 0
	for i := range v {
		if v[i] > v[at] {
			at = i
		}
	}
	return names[at]
}

// Startup is the time until a server answers: weights at 3, 1.5 and 0.5 GB/s,
// and compilation, graph capture and warm-up between a minute and seven
// (vllm-project/vllm issues 19824 and 44881; kunwar.page chapter 52).
func Startup(weights float64) estimators.Interval {
	return estimators.Interval{P10: 60 + weights/3e9, P50: 180 + weights/1.5e9, P90: 420 + weights/0.5e9}
}

// formatRatio is the throughput with NVFP4 over that with FP8, all else equal.
func (c *Calibration) formatRatio(a Ask, g *sku.SKU, l serving.Layout) *estimators.Interval {
	if !slices.Contains([]model.Format{model.FormatNVFP4, model.FormatFP8}, a.Shape.Weights) || a.Shape.Alternative == nil {
		return nil
	}
	if !serving.FitMemory(a.Shape.Alternative, g, a.Load, l.GPUs).Fits {
		return nil
	}
	own := c.Estimate(Query{a.Shape, g, l, a.Load, a.Framework}).Throughput.P50
	other := c.Estimate(Query{a.Shape.Alternative, g, l, a.Load, a.Framework}).Throughput.P50
	r := own / other
	if a.Shape.Weights == model.FormatFP8 {
		r = 1 / r
	}
	s, ok := c.Spread[ratioSpread]
	if !ok {
		return nil
	}
	return &estimators.Interval{P10: r * math.Exp(s.P10), P50: r, P90: r * math.Exp(s.P90)}
}
