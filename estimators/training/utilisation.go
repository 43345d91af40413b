package training

import (
	"math"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/sku"
)

// Utilisation is the share of a GPU's dense rate that code of a kind reaches,
// recomputation counted as work.
type Utilisation struct {
	Share       estimators.Interval
	Sources     []string
	Assumptions []string
}

// prior is the share on an A100, which most published figures are near to.
type prior struct {
	share   estimators.Interval
	sources []string
	note    string
}

// priors are wide on purpose: between two repositories of one kind lies a factor
// of three.
func priors(c Class) prior {
	const palm = "arXiv 2204.02311 table 3"
	switch c {
	case Pretraining:
		// 21.3 (GPT-3, V100), 30.2 (MT-NLG), 32.5 (Gopher), 38 and 43 (Llama 3 405B,
		// H100), 46.2 (PaLM), 50 (nanochat, H100), 52 (Megatron-LM, A100) per cent.
		return prior{estimators.Interval{P10: 0.25, P50: 0.39, P90: 0.52},
			[]string{palm + ": 21.3 to 46.2 %", "arXiv 2407.21783: 38 to 43 %", "arXiv 2104.04473: 52 %"}, ""}
	case Finetuning:
		return prior{estimators.Interval{P10: 0.12, P50: 0.25, P90: 0.45}, nil, "utilisation of fine-tuning is judged from that of pre-training and of untuned code, not measured"}
	case Vision:
		return prior{estimators.Interval{P10: 0.08, P50: 0.17, P90: 0.35}, nil, "10 to 35 % of the dense rate, as for research code in general, and less where reading images bounds"}
	case Diffusion:
		return prior{estimators.Interval{P10: 0.20, P50: 0.35, P90: 0.55}, nil, "30 to 55 % where attention is fused; judged, not measured"}
	case Small:
		return prior{estimators.Interval{P10: 0.01, P50: 0.04, P90: 0.15}, nil, "3 to 15 % for small batches without compilation, less for graphs and simulators; judged, not measured"}
	}
	return prior{estimators.Interval{P10: 0.05, P50: 0.17, P90: 0.38}, nil, "nothing says how well this code uses a GPU: 10 to 35 %, and further at both ends"}
}

// Utilise is what a job reaches on a GPU.
//
// Code that leaves rates unused on one GPU leaves more on one whose arithmetic
// grew faster than its memory: the share goes with the fourth root of bandwidth
// over rate, which gives an H100 0.85 of an A100's. Its upper end stays, since
// code that was tuned for the newer GPU reaches there what others reached before
// (52 % on A100, 50 % on H100).
func Utilise(j *Job, g *sku.SKU) Utilisation {
	const balanceA100 = 2.039 / 312
	p := priors(j.Class)
	u := Utilisation{Share: p.share, Sources: p.sources}
	if p.note != "" {
		u.Assumptions = append(u.Assumptions, p.note)
	}
	rate, format := Rate(g, j.Precision)
	f := math.Pow(g.Bandwidth.Value/rate/balanceA100, 0.25)
	switch format {
	case "fp32", "tf32":
		// The root above already favours a slower format: the rest is that
		// convolutions and matrix products keep plain units busy.
		f = math.Max(f, 1)
	case "fp8":
		f *= 0.8
		u.Assumptions = append(u.Assumptions, "not every operation of training runs in FP8")
	}
	if j.method() == QLoRA {
		f *= 0.75
		u.Assumptions = append(u.Assumptions, "a quarter of the time goes into unpacking weights")
	}
	top := u.Share.P90 * math.Max(f, 1)
	if j.method() == QLoRA {
		top = u.Share.P90 * f
	}
	u.Share = u.Share.Scale(f)
	u.Share.P90 = top
	const most = 0.75 // no training is known to reach more
	u.Share.P90 = math.Min(u.Share.P90, most)
	u.Share.P50 = math.Min(u.Share.P50, 0.9*u.Share.P90)
	u.Share.P10 = math.Min(u.Share.P10, 0.9*u.Share.P50)
	return u
}
