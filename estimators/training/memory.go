package training

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/estimators/sku"
)

// Memory is what one GPU holds, in bytes.
type Memory struct {
	Weights     float64 `json:"weights_bytes"`
	Gradients   float64 `json:"gradients_bytes"`
	Optimizer   float64 `json:"optimizer_bytes"`
	Activations float64 `json:"activations_bytes"`
	Runtime     float64 `json:"runtime_bytes"`
	Total       float64 `json:"total_bytes"`
	Known       bool    `json:"known"` // false where the size of the network is not
	Fits        bool    `json:"fits"`
	Why         string  `json:"why,omitempty"` // it does not
	ZeRO        int     `json:"zero"`
}

const (
	// CUDA context, workspaces and what the allocator cannot use.
	runtimeBytes = 2e9
	// Drivers report 1024^3 bytes for each marketed gigabyte, less one per cent.
	gigabyte = 1.063e9
	usable   = 0.95
)

// MemoryOn is what a job needs on each of n GPUs.
//
// Mixed precision with Adam holds 2 bytes of weights, 2 of gradients and 12 of
// optimizer (a 32-bit copy and two moments) per parameter; ZeRO spreads the
// optimizer (1), the gradients too (2), the weights too (3) over the GPUs (arXiv
// 1910.02054). Activations of a layer are s·b·h·(34 + 5·a·s/h) bytes in 16 bits,
// 34·s·b·h without the scores that fused attention never stores, and 2·s·b·h
// when the layer is computed again (arXiv 2205.05198).
func (j *Job) MemoryOn(g *sku.SKU, n int) Memory {
	m := Memory{Runtime: runtimeBytes, ZeRO: j.ZeRO, Known: j.Params > 0}
	if !m.Known {
		m.Fits = true // nothing says otherwise
		return m
	}
	spread := func(stage int) float64 {
		if j.ZeRO >= stage {
			return float64(max(1, n))
		}
		return 1
	}
	width := 2.0
	if p := j.Precision; p == "fp32" || p == "tf32" {
		width = 4
	}
	learn := j.adapters()
	switch j.method() {
	case Forward:
		m.Weights = width * j.Params / spread(3)
		learn = 0
	case QLoRA:
		m.Weights = (0.516*j.Params + 2*learn) / spread(3) // 4.127 bits with nested scales (arXiv 2305.14314)
	case LoRA:
		m.Weights = (2*j.Params + 2*learn) / spread(3)
	default:
		m.Weights = width * j.Params / spread(3)
	}
	m.Gradients = width * learn / spread(2)
	m.Optimizer = optimizerBytes(j.Optimizer, width) * learn / spread(1)
	m.Activations = j.activations(width)
	m.Total = m.Weights + m.Gradients + m.Optimizer + m.Activations + m.Runtime
	have := g.MemoryGB.Value * gigabyte * usable
	m.Fits = m.Total <= have
	if !m.Fits {
		m.Why = fmt.Sprintf("%.1f GB a GPU are needed, %s has %.0f", m.Total/1e9, g.ID, g.MemoryGB.Value)
	}
	return m
}

// optimizerBytes is the state per learning parameter, with the 32-bit copy of
// the weights that mixed precision keeps.
func optimizerBytes(name string, width float64) float64 {
	master := 4.0
	if width == 4 {
		master = 0
	}
	switch name {
	case "paged":
		return 0 // spilled to the host when memory is short (arXiv 2305.14314)
	case "sgd", "lion":
		return master + 4
	case "adam8bit":
		return master + 2 // two moments of 8 bits (arXiv 2110.02861)
	case "adafactor", "none":
		return master
	}
	return master + 8
}

// activations of a transformer; 0 where its structure is not known.
func (j *Job) activations(width float64) float64 {
	if j.Layers == 0 || j.Hidden == 0 || j.Context == 0 {
		return 0
	}
	sbh := float64(max(1, j.MicroBatch)) * float64(j.Context) * float64(j.Hidden) * width / 2
	layers := float64(j.Layers)
	logits := 6 * float64(max(1, j.MicroBatch)) * float64(j.Context) * float64(j.Vocab) // 16 bits and a 32-bit copy
	switch {
	case j.method() == Forward:
		return 8*sbh + logits
	case j.Recompute == "full":
		return 2*sbh*layers + 34*sbh + logits
	case j.Recompute == "selective" || j.Heads == 0:
		return 34*sbh*layers + logits
	}
	return sbh*layers*(34+5*float64(j.Heads)*float64(j.Context)/float64(j.Hidden)) + logits
}

// fewest is the number of GPUs: the one that is asked for, or as few as hold
// the job, spreading state where plain data parallelism does not fit.
func (j *Job) fewest(g *sku.SKU, gpus int) (int, Memory) {
	if gpus > 0 {
		return gpus, j.MemoryOn(g, gpus)
	}
	const most = 1024
	one := j.MemoryOn(g, 1)
	if one.Fits {
		return 1, one
	}
	spread := *j
	spread.ZeRO = max(3, j.ZeRO)
	for n := 2; n <= most; n *= 2 {
		if m := spread.MemoryOn(g, n); m.Fits {
			return n, m
		}
	}
	return 1, one
}

// LoaderBound says when reading data, not the GPU, sets the pace: the items a
// second that a GPU asks for against what cores decode. A core decodes and
// augments 100 to 300 photographs a second (assumed; libjpeg-turbo at 500 by 375
// pixels). "" where nothing is to be said.
func LoaderBound(itemsPerSecond float64, cores int) string {
	const slow, fast = 100.0, 300.0
	need := itemsPerSecond / fast
	switch {
	case itemsPerSecond <= 0 || math.IsInf(itemsPerSecond, 0):
		return ""
	case cores > 0 && itemsPerSecond > fast*float64(cores):
		return fmt.Sprintf("a GPU would ask for %.0f items a second, which %d cores do not decode: reading data sets the pace", itemsPerSecond, cores)
	case cores == 0 && itemsPerSecond > slow*8:
		return fmt.Sprintf("a GPU asks for about %.0f items a second: with photographs that takes %.0f to %.0f cores for each GPU, or reading data sets the pace", itemsPerSecond, need, itemsPerSecond/slow)
	}
	return ""
}
