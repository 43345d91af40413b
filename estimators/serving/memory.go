package serving

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
)

// Fit is whether and how a model lies in memory. Sizes are of one GPU, in bytes.
type Fit struct {
	Fits    bool    `json:"fits"`
	Why     string  `json:"why,omitempty"` // it does not
	Layout  Layout  `json:"layout"`
	Weights float64 `json:"weights_bytes"`
	Runtime float64 `json:"runtime_bytes"` // driver, workspaces, graphs, activations
	Spare   float64 `json:"spare_bytes"`   // for the cache
	PerSeq  float64 `json:"sequence_bytes"`
	Batch   int     `json:"batch"` // sequences of full length, over all GPUs
	Math    string  `json:"math"`  // what the quantised weights compute as on this GPU
}

// FitMemory finds the fewest GPUs that hold the weights and at least one
// sequence of the workload. gpus fixes their number; 0 tries 1, 2, 4, … up to
// what one fabric joins, and then pipelines over several servers. That nothing
// fits is an answer, not an error.
func FitMemory(s *Shape, g *sku.SKU, w Workload, gpus int) Fit {
	if f, ok := impossible(s, g, w, gpus); !ok {
		return f
	}
	if gpus > g.Domain {
		return overNodes(s, g, w, gpus)
	}
	var last Fit
	for n := 1; n <= max(1, g.Domain, gpus); n *= 2 {
		if gpus > 0 {
			n = gpus
		}
		last = fitOn(s, g, w, Layout{GPUs: n, TP: n})
		if last.Fits || gpus > 0 {
			return last
		}
	}
	for nodes := 2; nodes <= maxNodes && g.Network.Value >= fastNetwork; nodes *= 2 {
		if f := overNodes(s, g, w, nodes*ServerGPUs(g)); f.Fits {
			return f
		}
	}
	if last.Layout.GPUs > 1 {
		last.Why += fmt.Sprintf(" on each of %d, the most that one %s joins", last.Layout.GPUs, g.Fabric)
		if g.Network.Value >= fastNetwork {
			last.Why += fmt.Sprintf("; %d servers do not hold it either", maxNodes)
		}
	}
	return last
}

// impossible answers what no number of GPUs changes.
func impossible(s *Shape, g *sku.SKU, w Workload, gpus int) (Fit, bool) {
	f := Fit{Layout: Layout{GPUs: max(1, gpus), TP: max(1, gpus)}, Math: MathOn(s, g)}
	switch {
	case f.Math == "":
		f.Why = fmt.Sprintf("no kernel runs %s on compute capability %d.%d", s.Weights, g.Capability/10, g.Capability%10)
	case s.Context > 0 && w.ISL+w.OSL > s.Context:
		f.Why = fmt.Sprintf("%d tokens in and %d out are more than the model's context of %d", w.ISL, w.OSL, s.Context)
	case gpus > 0 && gpus <= g.Domain && s.Heads > 0 && s.Heads%gpus != 0:
		f.Why = fmt.Sprintf("%d attention heads cannot be split over %d GPUs", s.Heads, gpus)
	case gpus > g.Domain && gpus%ServerGPUs(g) != 0:
		f.Why = fmt.Sprintf("one %s joins %d GPUs; more than that come in servers of %d", g.Fabric, g.Domain, ServerGPUs(g))
	default:
		return f, true
	}
	return f, false
}

func fitOn(s *Shape, g *sku.SKU, w Workload, l Layout) Fit {
	f := Fit{Layout: l, Math: MathOn(s, g)}
	if s.Heads > 0 && s.Heads%l.TP != 0 {
		f.Why = fmt.Sprintf("%d attention heads cannot be split over %d GPUs", s.Heads, l.TP)
		return f
	}
	t := NewTerms(s, g, l)
	f.Weights, f.Spare = t.weights, t.spare
	f.Runtime = runtimeBytes + activationBytes(s)
	f.PerSeq = t.cacheElements(float64(w.ISL+w.OSL), false)*t.kvBytes + t.seqBytes
	switch {
	case t.spare <= 0:
		f.Why = fmt.Sprintf("weights of %.0f GB and a runtime of %.1f GB are more than %.0f %% of %.0f GB", t.weights/1e9, f.Runtime/1e9, usable*100, g.MemoryGB.Value)
	case t.spare < f.PerSeq:
		f.Why = fmt.Sprintf("%.1f GB are left for the cache, one sequence needs %.1f GB", t.spare/1e9, f.PerSeq/1e9)
	default:
		f.Fits = true
		f.Batch = int(math.Min(1e6, t.spare/math.Max(1, f.PerSeq)))
	}
	return f
}

// MathOn names what the quantised weights of a shape are multiplied as on a
// GPU: "w4a4", "w4a16", "w8a8", …; empty where no kernel exists.
func MathOn(s *Shape, g *sku.SKU) string {
	w, a := bits(s.Weights), bits(s.Activations)
	switch {
	case w >= 16:
		return "w16a16"
	case g.Capability < 75 || (w == 8 && g.Capability < 80):
		return ""
	case s.Weights == model.FormatNVFP4 && g.NVFP4 == "none":
		return ""
	}
	if mathOf(Group{Acts: s.Activations}, g) == "bf16" {
		a = 16
	}
	return fmt.Sprintf("w%.0fa%.0f", w, a)
}
