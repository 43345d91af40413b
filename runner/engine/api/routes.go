package api

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/repromill/repromill/runner/engine"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/kernel"
	"github.com/repromill/repromill/suites/endpoint/openai"
)

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("POST /v1/chat/completions", s.chat)
	s.mux.HandleFunc("POST /v1/completions", s.completions)
	s.mux.HandleFunc("GET /v1/models", s.models)
	s.mux.HandleFunc("POST /tokenize", s.tokenize)
	s.mux.HandleFunc("POST /detokenize", s.detokenize)
	s.mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		openai.Reply(w, map[string]string{"version": s.cfg.Version})
	})
	s.mux.HandleFunc("GET /health", s.health)
	s.mux.HandleFunc("GET /ping", s.health)
	s.mux.HandleFunc("GET /metrics", s.metrics)
}

// id is that of an answer.
func (s *Server) id() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if err := s.engine.Err(); err != nil {
		openai.Fail(w, http.StatusServiceUnavailable, "ServiceUnavailableError", err.Error())
	}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	openai.Reply(w, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": s.cfg.Name, "object": "model", "created": s.began.Unix(), "owned_by": "repromill", "root": s.cfg.Root, "parent": nil,
		"max_model_len": s.engine.Config().MaxModelLen,
	}}})
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	q, err := s.decode(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	var list []prompt
	if len(q.Messages) > 0 {
		list, err = s.chatPrompt(q)
	} else {
		list, err = s.textPrompts(q)
	}
	if err == nil && len(list) != 1 {
		err = bad("%d prompts, want one", len(list))
	}
	if err != nil {
		fail(w, err)
		return
	}
	ids := list[0].ids
	if ids == nil {
		ids = []int32{}
	}
	openai.Reply(w, map[string]any{"count": len(ids), "max_model_len": s.engine.Config().MaxModelLen, "tokens": ids, "token_strs": nil})
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var q struct {
		request
		Tokens []int32 `json:"tokens"`
	}
	if err := s.decodeInto(w, r, &q, &q.request); err != nil {
		fail(w, err)
		return
	}
	for _, id := range q.Tokens {
		if id < 0 || int(id) >= s.model.Config.Vocab {
			fail(w, bad("Token id %d is out of vocabulary", id))
			return
		}
	}
	openai.Reply(w, map[string]string{"prompt": s.tok.Decode(q.Tokens, false)})
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	st, cfg := s.engine.Stats(), s.engine.Config()
	p := openai.NewPage(s.cfg.Name)
	p.One("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", float64(st.Running))
	p.One("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", float64(st.Waiting))
	p.One("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", st.CacheUsage)
	p.One("vllm:prefix_cache_queries_total", "counter", "Prefix cache queries, in terms of number of queried tokens.", 0)
	p.One("vllm:prefix_cache_hits_total", "counter", "Prefix cache hits, in terms of number of cached tokens.", 0)
	p.One("vllm:num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", float64(st.Preemptions))
	p.One("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", float64(st.PromptTokens))
	p.One("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", float64(st.OutputTokens))
	p.Labelled("vllm:request_success_total", "counter", "Count of successfully processed requests.", "finished_reason",
		slices.Sorted(maps.Keys(st.Finished)), func(v string) float64 { return float64(st.Finished[v]) })
	for _, h := range []struct {
		name, help string
		bounds     []float64
		h          engine.Histogram
	}{
		{"vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", engine.Buckets.TTFT, st.TTFT},
		{"vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", engine.Buckets.ITL, st.ITL},
		{"vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", engine.Buckets.E2E, st.E2E},
	} {
		p.Histogram(h.name, h.help, h.bounds, h.h.Counts, h.h.Sum, h.h.Count)
	}
	blocks := s.engine.Blocks()
	p.Info("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", fmt.Sprintf(`block_size="%d",cache_dtype="float32",enable_prefix_caching="False",num_gpu_blocks="%d"`, decoder.Block, blocks))
	p.Info("repromill:engine_info", "What the embedded engine computes with.", fmt.Sprintf(`math=%q,kernel=%q,threads="%d",max_num_seqs="%d"`, s.model.Math(), kernel.Name(), cfg.Threads, cfg.MaxBatch))
	p.One("repromill:engine_steps_total", "counter", "Steps computed.", float64(st.Steps))
	p.One("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", float64(s.began.UnixNano())/1e9)
	p.Serve(w)
}
