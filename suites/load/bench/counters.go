package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load/measure"
)

// Counters are a server's own figures under one vocabulary, NaN where it keeps
// none. Those ending in Total only ever grow.
type Counters struct {
	Engine                              string
	Running, Waiting                    float64 // requests
	KVUsage                             float64 // 0 to 1
	PreemptionsTotal                    float64
	PromptTotal, OutputTotal            float64 // tokens
	PrefixQueriesTotal, PrefixHitsTotal float64 // tokens
	DraftTotal, AcceptedTotal           float64 // tokens of speculative decoding
	GPUSecondsTotal                     float64 // of the simulated GPU
	StartTime                           float64 // of the process, seconds since 1970
}

// names are what the engines call them; the first that a page has counts.
//
// Sources: vllm-project/vllm, vllm/v1/metrics/loggers.py; sgl-project/sglang,
// python/sglang/srt/metrics/collector.py; huggingface/text-generation-inference,
// router/src/server.rs; ggml-org/llama.cpp, tools/server/README.md.
var names = map[string][]string{
	"running":     {"vllm:num_requests_running", "sglang:num_running_reqs", "tgi_batch_current_size", "llamacpp:requests_processing"},
	"waiting":     {"vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size", "llamacpp:requests_deferred"},
	"kv":          {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage", "llamacpp:kv_cache_usage_ratio"},
	"preemptions": {"vllm:num_preemptions_total", "sglang:num_retractions_total", "sglang:num_retracted_reqs"},
	"prompt":      {"vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "tgi_request_input_length_sum", "llamacpp:prompt_tokens_total"},
	"output":      {"vllm:generation_tokens_total", "sglang:generation_tokens_total", "tgi_request_generated_tokens_sum", "llamacpp:tokens_predicted_total"},
	"queries":     {"vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"},
	"hits":        {"vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "sglang:cached_tokens_total"},
	"draft":       {"vllm:spec_decode_num_draft_tokens_total"},
	"accepted":    {"vllm:spec_decode_num_accepted_tokens_total", "sglang:spec_accepted_tokens_total"},
	"gpu":         {"repromill:simulated_gpu_busy_seconds_total"},
	"start":       {"process_start_time_seconds"},
}

// engines are told by how the names of their figures begin.
var engines = []struct{ name, prefix string }{{"vllm", "vllm:"}, {"sglang", "sglang:"}, {"tgi", "tgi_"}, {"llama.cpp", "llamacpp:"}}

// Normalise reads a metrics page.
func Normalise(m endpoint.Metrics) Counters {
	get := func(what string) float64 {
		for _, n := range names[what] {
			if v, ok := m.Sum(n); ok {
				return v
			}
		}
		return math.NaN()
	}
	c := Counters{
		Running: get("running"), Waiting: get("waiting"), KVUsage: get("kv"), PreemptionsTotal: get("preemptions"),
		PromptTotal: get("prompt"), OutputTotal: get("output"), PrefixQueriesTotal: get("queries"), PrefixHitsTotal: get("hits"),
		DraftTotal: get("draft"), AcceptedTotal: get("accepted"), GPUSecondsTotal: get("gpu"), StartTime: get("start"),
	}
	for _, e := range engines {
		if slices.ContainsFunc(m, func(s endpoint.Sample) bool { return strings.HasPrefix(s.Name, e.prefix) }) {
			c.Engine = e.name
			break
		}
	}
	return c
}

// The flags that a server's counters raise.
const (
	Preempted       = "preemptions"
	PrefixCacheUsed = measure.Cached
	Speculative     = "speculative_decoding"
	OthersLoad      = "other_load"
	Restarted       = "server_changed"
	Gone            = "server_ended"
)

// counterFlags compares a server's counters before and after a cell. sent is
// what the cell itself asked for and got.
func counterFlags(before, after Counters, inTokens, outTokens float64) []measure.Flag {
	var out []measure.Flag
	add := func(code string, void bool, n float64, format string, args ...any) {
		out = append(out, measure.Flag{Code: code, Void: void, Count: int(n), Message: fmt.Sprintf(format, args...)})
	}
	grew := func(a, b float64) float64 {
		if d := b - a; d > 0 { // false for NaN
			return d
		}
		return 0
	}
	if after.StartTime > before.StartTime+1 || after.OutputTotal < before.OutputTotal {
		add(Restarted, true, 0, "the server restarted during the cell")
	}
	if n := grew(before.PreemptionsTotal, after.PreemptionsTotal); n > 0 {
		add(Preempted, false, n, "the server preempted %.0f times: its KV cache was full, and work was done twice", n)
	}
	if hits, q := grew(before.PrefixHitsTotal, after.PrefixHitsTotal), grew(before.PrefixQueriesTotal, after.PrefixQueriesTotal); hits > 0.05*max(q, inTokens) && hits > 1000 {
		add(PrefixCacheUsed, true, hits, "%.0f input tokens came from the prefix cache although every prompt is unique", hits)
	}
	if draft, acc := grew(before.DraftTotal, after.DraftTotal), grew(before.AcceptedTotal, after.AcceptedTotal); draft > 0 {
		add(Speculative, false, acc, "speculative decoding is on: %.0f of %.0f drafted tokens were accepted, and random prompts are not what it was made for", acc, draft)
	}
	if extra := grew(before.OutputTotal, after.OutputTotal) - outTokens; outTokens > 0 && extra > 0.05*outTokens+200 {
		add(OthersLoad, true, extra, "the server made %.0f tokens more than this cell got: somebody else uses it", extra)
	}
	return out
}
