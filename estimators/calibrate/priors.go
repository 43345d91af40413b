package calibrate

import (
	"math"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
)

// archs are the generations that have parameters of their own.
var archs = []sku.Arch{sku.Volta, sku.Ampere, sku.Ada, sku.Hopper, sku.Blackwell, sku.BlackwellRT}

// priors are the parameters. Means of efficiencies are what tuned kernels reach
// on GPUs in general; a step of sd is what one sigma of doubt is worth.
func priors() []param {
	var out []param
	add := func(name string, mean, sd float64) { out = append(out, param{name, mean, sd}) }
	base := []struct {
		name     string
		mean, sd float64
	}{
		serving.CWeights: {"weights", math.Log(0.75), 0.3},
		serving.CExperts: {"experts", math.Log(0.6), 0.4},
		serving.CCache:   {"cache", math.Log(0.6), 0.4},
		serving.CDecode:  {"decode", math.Log(0.5), 0.4},
		serving.CPrefill: {"prefill", math.Log(0.5), 0.4},
		serving.CAttn:    {"attn", math.Log(0.4), 0.4},
		serving.CLayer:   {"layer", math.Log(30e-6), 0.5},
		serving.CSync:    {"sync", math.Log(20e-6), 0.5},
		serving.CLink:    {"link", math.Log(0.5), 0.5},
		serving.CSeq:     {"seq", math.Log(4e-6), 0.3},
		serving.CStep:    {"step", math.Log(0.25e-3), 0.35},
		serving.CRequest: {"request", math.Log(3e-3), 0.5},
		serving.COffset:  {"offset", 0, 0.1},
		serving.CBatch:   {"batch", math.Log(1000), 0.5},
	}
	for _, b := range base {
		add(b.name, b.mean, b.sd)
	}
	classPriors(add)
	kindPriors(add)
	return out
}

// classPriors are of engines and generations.
func classPriors(add func(name string, mean, sd float64)) {
	for _, e := range engines {
		for _, c := range []string{"layer", "step", "seq", "prefill", "decode", "request", "experts", "batch", "cache"} {
			add(c+"."+e, 0, 0.15)
		}
		add("offset."+e, 0, 0.05)
		add("offset.moe."+e, 0, 0.15)
		add("offset.offline."+e, 0, 0.2)
		add("offset.fp4."+e, 0, 0.225)
		add("offset.fp8."+e, 0, 0.225)
	}
	for _, a := range archs {
		for _, c := range []string{"weights", "experts", "cache", "decode", "prefill", "attn", "layer"} {
			add(c+"."+string(a), 0, 0.2)
		}
		add("offset."+string(a), 0, 0.1)
		for _, e := range engines {
			add("offset."+string(a)+"."+e, 0, 0.2)
		}
	}
}

// kindPriors are of formats, layouts and kinds of models. Those of FP4 are wide:
// kernels for it are young.
func kindPriors(add func(name string, mean, sd float64)) {
	for _, f := range []string{"fp8", "fp4", "w4a16"} {
		add("decode."+f, map[string]float64{"fp8": -0.1, "fp4": -0.2, "w4a16": -0.3}[f], 0.45)
		add("prefill."+f, map[string]float64{"fp8": -0.1, "fp4": -0.2, "w4a16": -0.3}[f], 0.45)
		add("offset."+f, 0, 0.075)
		add("layer."+f, 0, 0.3)
	}
	add("weights.fp8", 0, 0.3)
	add("weights.fp4", 0, 0.3)
	add("experts.fp4", 0, 0.3)
	// The faster the chip beside its memory, the less of it is reached.
	add("decode.flops", 0, 0.1)
	add("prefill.flops", 0, 0.1)
	add("attn.flops", 0, 0.1)
	add("weights.bw", 0, 0.15)
	add("experts.bw", 0, 0.15)
	add("cache.bw", 0, 0.15)
	add("layer.moe", 0.4, 0.3)
	add("layer.mla", 0.2, 0.3)
	add("layer.linear", 0.2, 0.3)
	add("layer.hidden", 0, 0.2)
	add("sync.moe", 0, 0.3)
	add("sync.n", 0.2, 0.3)
	add("sync.pcie", 0.7, 0.5)
	add("prefill.moe", 0, 0.3)
	add("decode.moe", 0, 0.3)
	add("prefill.n", -0.1, 0.2)
	add("decode.n", 0, 0.2)
	add("weights.n", -0.05, 0.2)
	add("decode.size", 0, 0.2)
	add("prefill.size", 0.1, 0.1)
	add("attn.mla", 0, 0.3)
	add("cache.mla", 0, 0.3)
	add("experts.sparse", 0, 0.2)
	add("link.pcie", 0, 0.4)
	add("offset.dp", 0, 0.15)
	add("offset.ep", 0, 0.15)
	add("offset.moe", 0, 0.1)
	add("offset.linear", 0, 0.15)
	add("offset.mla", 0, 0.15)
	add("offset.offline", 0, 0.1)
	for k := range sizeKnots {
		add(sizeName("dense", k), 0, 0.25)
		add(sizeName("moe", k), 0, 0.2)
	}
}
