package measure

import (
	"math"
	"slices"

	"github.com/repromill/repromill/suites/load"
)

// Column is a number as another tool would have printed it for this cell, under
// that tool's own name for it. They are here so that figures can be reconciled;
// compare like with like only.
type Column struct {
	Tool  string  `json:"tool"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// tools computes the columns of five tools from the recorded moments.
//
// Sources: vllm-project/vllm, vllm/benchmarks/serve.py and
// lib/endpoint_request_func.py; vllm-project/guidellm (TPOT over all tokens and
// from the request's start); kubernetes-sigs/inference-perf (NTPOT);
// ai-dynamo/aiperf (ITL as TPOT elsewhere, TTST); mlcommons/inference_policies,
// inference_rules.adoc (latency from the scheduled time).
func tools(recs []*load.Record, span float64, cfg Config) []Column {
	var vTTFT, vTPOT, vITL, vE2E, gTTFT, gTPOT, gITL, aTTFT, aTTST, aITL, iNTPOT, mTTFT, mE2E []float64
	var in, out, ok float64
	for _, r := range recs {
		if r.Status != load.OK {
			continue
		}
		ok++
		q := Derive(r, cfg.SLO)
		n := float64(q.OSL)
		in, out = in+float64(max(0, r.ISL)), out+n
		sec := func(from, to int64) float64 {
			if from < 0 || to < 0 {
				return nan
			}
			return float64(to-from) / 1e9
		}
		ttft := sec(r.Start, r.FirstChoice) // even of an empty chunk
		e2e := sec(r.Start, r.End)
		vTTFT, vE2E = keep(vTTFT, ttft), keep(vE2E, e2e)
		gTTFT = keep(gTTFT, sec(r.Start, r.FirstText))
		aTTFT = keep(aTTFT, sec(r.Start, r.FirstChoice))
		mTTFT, mE2E = keep(mTTFT, sec(r.Intended, r.FirstText)), keep(mE2E, sec(r.Intended, r.End))
		for _, g := range r.Gaps {
			vITL = append(vITL, float64(g)/1e6)
		}
		if len(r.Gaps) > 0 {
			aTTST = append(aTTST, float64(r.Gaps[0])/1e6)
		}
		if n > 0 {
			gTPOT, iNTPOT = keep(gTPOT, sec(r.Start, r.LastText)/n), keep(iNTPOT, e2e/n)
		}
		if n > 1 {
			vTPOT, aITL = keep(vTPOT, (e2e-ttft)/(n-1)), keep(aITL, (e2e-ttft)/(n-1))
			gITL = keep(gITL, sec(r.FirstText, r.LastText)/(n-1))
		}
	}
	var cols []Column
	add := func(tool, name string, v float64) {
		if !math.IsNaN(v) {
			cols = append(cols, Column{tool, name, v})
		}
	}
	three := func(tool, stem string, x []float64) {
		mean, p50, p99 := brief(x)
		add(tool, "mean_"+stem+"_ms", 1e3*mean)
		add(tool, "median_"+stem+"_ms", 1e3*p50)
		add(tool, "p99_"+stem+"_ms", 1e3*p99)
	}
	const vllm, guide, ip, ai, ml = "vllm bench serve", "guidellm", "inference-perf", "AIPerf", "MLPerf"
	add(vllm, "request_throughput", ok/span)
	add(vllm, "output_throughput", out/span)
	add(vllm, "total_token_throughput", (in+out)/span)
	three(vllm, "ttft", vTTFT)
	three(vllm, "tpot", vTPOT)
	three(vllm, "itl", vITL)
	three(vllm, "e2el", vE2E)
	three(guide, "time_to_first_token", gTTFT)
	three(guide, "time_per_output_token", gTPOT)
	three(guide, "inter_token_latency", gITL)
	three(ip, "normalized_time_per_output_token", iNTPOT)
	three(ai, "time_to_first_token", aTTFT)
	three(ai, "time_to_second_token", aTTST)
	three(ai, "inter_token_latency", aITL)
	three(ml, "ttft_from_scheduled", mTTFT)
	three(ml, "latency_from_scheduled", mE2E)
	return cols
}

// brief returns mean, median and p99 as those tools give them: without asking
// whether the sample supports them.
func brief(x []float64) (mean, p50, p99 float64) {
	if len(x) == 0 {
		return nan, nan, nan
	}
	s := slices.Clone(x)
	slices.Sort(s)
	for _, v := range s {
		mean += v
	}
	return mean / float64(len(s)), quantile(s, 0.5), quantile(s, 0.99)
}
