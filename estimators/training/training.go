// Package training says what training, fine-tuning and batch evaluation of a
// network cost on a GPU: operations, memory, time.
//
// Two methods are kept apart and shown side by side, as Epoch AI proposes
// (epoch.ai/blog/estimating-training-compute): counting operations and dividing
// by what code of that kind reaches of a GPU's rate, and converting the time
// that authors state from their GPU to another. What is not known is not
// guessed: [Job.Estimate] says what is missing instead.
package training

import (
	"fmt"
	"math"
	"strings"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/sku"
)

// Method is which part of a network learns.
type Method string

// The methods.
const (
	Full    Method = "full"      // every weight
	LoRA    Method = "lora"      // adapters beside frozen weights of 16 bits
	QLoRA   Method = "lora-4bit" // adapters beside frozen weights of 4 bits
	Forward Method = "forward"   // nothing: evaluation, feature extraction
)

// Class is a kind of code; it decides how much of a GPU's rate is reached.
type Class string

// The classes.
const (
	Pretraining Class = "pretraining" // decoders with fused kernels and mixed precision
	Finetuning  Class = "finetuning"  // language models through a general library
	Vision      Class = "vision"      // images: convolutions and vision transformers
	Diffusion   Class = "diffusion"
	Small       Class = "small" // small networks, graphs, reinforcement learning
	Unknown     Class = ""
)

// Job is what is to be computed. Zero means unknown, or the default that is
// named.
type Job struct {
	Params    float64 // of the network
	Active    float64 // that a token multiplies with; 0 is Params
	Trainable float64 // of the adapters, for LoRA and QLoRA; 0 is one per cent

	Layers, Hidden, Context int // for the operations of attention
	Heads, Vocab            int // for the memory of activations

	Tokens float64 // tokens, patches or nodes through the network, over all epochs

	// ItemFLOPs are the operations of one item forward, for networks that are not
	// 2 per parameter and token; Items counts all epochs.
	ItemFLOPs float64
	Items     float64
	// TotalFLOPs are stated by the authors, forward and backward together.
	TotalFLOPs float64

	Method     Method // empty is Full
	Recompute  string // none|selective|full; empty is none
	Precision  string // bf16|fp16|fp8|tf32|fp32; empty is bf16
	Optimizer  string // adamw|adam8bit|paged|sgd|lion|adafactor|none; empty is adamw
	ZeRO       int    // 0 to 3: what of the state is spread over the GPUs
	MicroBatch int    // items a GPU works on at once; 0 is 1
	Class      Class
}

// Operations of a job.
type Operations struct {
	Model    float64 `json:"model_flop"`    // what the mathematics needs
	Computed float64 `json:"computed_flop"` // with what is computed twice to save memory
}

// MissingError says what has to be known before a job can be estimated.
type MissingError struct{ What string }

func (e *MissingError) Error() string { return e.What }

// Operations counts the operations of a job.
//
// Dense training takes 6 operations per parameter and token and 12·L·d·T for
// attention (arXiv 2001.08361; arXiv 2204.02311 appendix B). Frozen weights have
// no gradient of their own, which leaves 4 per parameter and token: forward, and
// backward through them. Recomputing all activations repeats the forward pass,
// a third of training; selective recomputation repeats attention's (arXiv
// 2205.05198).
func (j *Job) Operations() (Operations, error) {
	if j.TotalFLOPs > 0 {
		return Operations{j.TotalFLOPs, j.TotalFLOPs}, nil
	}
	active := j.Active
	if active == 0 {
		active = j.Params
	}
	forward, attention := 0.0, 0.0
	switch {
	case j.ItemFLOPs > 0 && j.Items > 0:
		forward = j.ItemFLOPs * j.Items
	case j.ItemFLOPs > 0:
		return Operations{}, &MissingError{"how many items the network sees"}
	case active == 0 && j.Tokens == 0:
		return Operations{}, &MissingError{"the size of the network and how much data it sees"}
	case active == 0:
		return Operations{}, &MissingError{"the size of the network"}
	case j.Tokens == 0:
		return Operations{}, &MissingError{"how much data the network sees"}
	default:
		forward = 2 * active * j.Tokens
		attention = 4 * float64(j.Layers) * float64(j.Hidden) * float64(j.Context) * j.Tokens
	}
	var o Operations
	switch j.method() {
	case Forward:
		o.Model = forward + attention
		o.Computed = o.Model
		return o, nil
	case LoRA, QLoRA:
		o.Model = 2*forward + 3*attention + 3*forward*j.adapters()/math.Max(1, active)
	default:
		o.Model = 3 * (forward + attention)
	}
	o.Computed = o.Model
	switch j.Recompute {
	case "full":
		o.Computed += forward + attention
	case "selective":
		o.Computed += attention
	}
	return o, nil
}

func (j *Job) method() Method {
	if j.Method == "" {
		return Full
	}
	return j.Method
}

// adapters is how many parameters learn.
func (j *Job) adapters() float64 {
	if j.method() == Full {
		return j.Params
	}
	if j.Trainable > 0 {
		return j.Trainable
	}
	return 0.01 * j.Params
}

// Rate is the dense rate in 10^12 operations per second at which a GPU computes
// in a precision, and the name of the format that does.
func Rate(g *sku.SKU, precision string) (tflops float64, format string) {
	switch strings.ToLower(precision) {
	case "fp8":
		if g.Has("fp8") {
			return g.FP8.Value, "fp8"
		}
		return g.BF16.Value, "bf16"
	case "fp32":
		return g.FP32.Value, "fp32"
	case "tf32":
		// Half of BF16 on every part that has it; older ones fall back to FP32.
		if g.Capability >= 80 {
			return g.BF16.Value / 2, "tf32"
		}
		return g.FP32.Value, "fp32"
	}
	return g.BF16.Value, "bf16"
}

// Cost is what a job takes on a number of GPUs.
type Cost struct {
	SKU         string              `json:"sku"`
	GPUs        int                 `json:"gpus"`
	Method      string              `json:"method"` // operations|stated
	Operations  Operations          `json:"operations"`
	Utilisation estimators.Interval `json:"utilisation"` // of the dense rate of Format
	Format      string              `json:"format,omitempty"`
	Memory      Memory              `json:"memory"`
	Wall        estimators.Interval `json:"wall_s"`
	GPUHours    estimators.Interval `json:"gpu_hours"`
	Assumptions []string            `json:"assumptions,omitempty"`
	Sources     []string            `json:"sources,omitempty"`
}

// Estimate counts operations and divides them by what the GPUs reach. gpus 0
// takes as few as hold the job. Its error is a [*MissingError].
func (j *Job) Estimate(g *sku.SKU, gpus int) (*Cost, error) {
	ops, err := j.Operations()
	if err != nil {
		return nil, err
	}
	c := &Cost{SKU: g.ID, Method: "operations", Operations: ops}
	c.GPUs, c.Memory = j.fewest(g, gpus)
	u := Utilise(j, g)
	c.Utilisation, c.Sources = u.Share, u.Sources
	rate, format := Rate(g, j.Precision)
	c.Format = format
	busy := ops.Computed / (rate * 1e12)
	wall := u.Share.Inverse(busy / float64(c.GPUs)) // published shares hold the exchange between GPUs
	c.Wall, c.GPUHours = wall, wall.Scale(float64(c.GPUs)/3600)
	c.Assumptions = append(j.assumed(), u.Assumptions...)
	return c, nil
}

// scaling is how much longer n GPUs take than an n-th of one: gradients are
// exchanged, and all wait for the slowest. Four per cent for each doubling is
// what published weak scaling of data parallelism amounts to (arXiv 2006.15704,
// figure 9, within a node and over fast links); slow links are worse.
func scaling(n int) float64 { return 1 + 0.04*math.Log2(float64(max(1, n))) }

// assumed lists what was not stated.
func (j *Job) assumed() []string {
	var out []string
	if j.Precision == "" {
		out = append(out, "16-bit arithmetic")
	}
	if j.TotalFLOPs == 0 && j.ItemFLOPs == 0 && (j.Layers == 0 || j.Hidden == 0 || j.Context == 0) {
		out = append(out, "attention's own operations are left out: layers, width and context are not all known")
	}
	if (j.method() == LoRA || j.method() == QLoRA) && j.Trainable == 0 {
		out = append(out, "adapters of one per cent of the parameters")
	}
	return out
}

// Stated is the time that the authors of a work say it takes.
type Stated struct {
	SKU       *sku.SKU
	GPUs      int
	Hours     float64 // of wall clock
	Precision string
	Source    string
}

// Convert is the stated time on another GPU, in GPU-hours. Arithmetic speeds a
// program up by the ratio of the rates, memory by that of the bandwidths, and
// what launches kernels or reads data by neither: the middle is the geometric
// mean of the first two, and the ends are the better of them and none.
func (s *Stated) Convert(g *sku.SKU, gpus int) *Cost {
	if gpus == 0 {
		gpus = s.GPUs
	}
	from, _ := Rate(s.SKU, s.Precision)
	to, format := Rate(g, s.Precision)
	flops, bytes := to/from, g.Bandwidth.Value/s.SKU.Bandwidth.Value
	// "About four days" is right to a sixth.
	const loose = 1.18
	f := estimators.Interval{
		P10: 1 / math.Max(flops, bytes) / loose, P50: 1 / math.Sqrt(flops*bytes), P90: loose / math.Min(1, math.Min(flops, bytes)),
	}
	if low := math.Min(flops, bytes); low > 1 {
		f.P90 = loose / math.Sqrt(low)
	}
	f.P10, f.P90 = math.Min(f.P10, f.P50/loose), math.Max(f.P90, f.P50*loose)
	c := &Cost{SKU: g.ID, GPUs: gpus, Method: "stated", Format: format, Sources: []string{s.Source}}
	c.GPUHours = f.Scale(s.Hours * float64(s.GPUs) * scaling(gpus) / scaling(s.GPUs))
	c.Wall = c.GPUHours.Scale(3600 / float64(gpus))
	if g.ID != s.SKU.ID {
		c.Assumptions = append(c.Assumptions, fmt.Sprintf("converted from %d × %s by the ratios of arithmetic (%.2g) and bandwidth (%.2g)", s.GPUs, s.SKU.ID, flops, bytes))
	}
	return c
}

// Step is a job of which the time of one step was measured or stated: seconds
// per step and number of steps.
func Step(seconds estimators.Interval, steps float64, gpus int) estimators.Interval {
	return seconds.Scale(steps * float64(max(1, gpus)) / 3600)
}

// Disagree says in words that two estimates of one job do not go together, ""
// where they do.
func Disagree(a, b *Cost) string {
	if a == nil || b == nil || (a.GPUHours.P10 <= b.GPUHours.P90 && b.GPUHours.P10 <= a.GPUHours.P90) {
		return ""
	}
	return fmt.Sprintf("%s gives %.3g GPU-hours (%.3g to %.3g), %s %.3g (%.3g to %.3g): they disagree, so one of their inputs is wrong",
		a.Method, a.GPUHours.P50, a.GPUHours.P10, a.GPUHours.P90, b.Method, b.GPUHours.P50, b.GPUHours.P10, b.GPUHours.P90)
}
