package simserver

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/suites/endpoint/openai"
)

// request is what both protocols ask for.
type request struct {
	Model               string               `json:"model"`
	Prompt              json.RawMessage      `json:"prompt"`
	Messages            []openai.Message     `json:"messages"`
	MaxTokens           *int                 `json:"max_tokens"`
	MaxCompletionTokens *int                 `json:"max_completion_tokens"`
	Stream              bool                 `json:"stream"`
	IgnoreEOS           bool                 `json:"ignore_eos"`
	StreamOptions       openai.StreamOptions `json:"stream_options"`
	Seed                *uint64              `json:"seed"`
	NullITL             int64                `json:"null_itl_ns"` // null mode: the pace of this stream
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request)        { s.generate(w, r, true) }
func (s *Server) completions(w http.ResponseWriter, r *http.Request) { s.generate(w, r, false) }

func (s *Server) generate(w http.ResponseWriter, r *http.Request, chat bool) {
	arrived := time.Now()
	var q request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, openai.MaxBody)).Decode(&q); err != nil {
		openai.Fail(w, http.StatusBadRequest, "BadRequestError", err.Error())
		return
	}
	if q.Model != "" && q.Model != s.cfg.Model {
		openai.Fail(w, http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", q.Model))
		return
	}
	id := s.seq.Add(1)
	rnd := rand.New(rand.NewPCG(s.cfg.Seed, id))
	f := s.cfg.Faults
	if rnd.Float64() < f.TooMany {
		w.Header().Set("Retry-After", "1")
		openai.Fail(w, http.StatusTooManyRequests, "RateLimitError", "too many requests")
		return
	}
	if rnd.Float64() < f.Refuse {
		openai.Fail(w, http.StatusInternalServerError, "InternalServerError", "simulated failure")
		return
	}
	time.Sleep(f.HoldHeaders)
	prompt, n, prefix := s.read(q)
	g := &generation{s: s, q: q, chat: chat, rnd: rnd, id: id, prompt: n, arrived: arrived, want: 128}
	switch {
	case q.MaxCompletionTokens != nil:
		g.want = *q.MaxCompletionTokens
	case q.MaxTokens != nil:
		g.want = *q.MaxTokens
	}
	if n+g.want > s.cfg.KVTokens || g.want < 1 {
		openai.Fail(w, http.StatusBadRequest, "BadRequestError", fmt.Sprintf("This model's maximum context length is %d tokens, and %d were asked for.", s.cfg.KVTokens, n+g.want))
		return
	}
	g.finish = "length"
	if s.cfg.Answer != nil {
		g.text = split(s.cfg.Answer(prompt, rnd.Uint64()))
		if len(g.text) <= g.want {
			g.want, g.finish = max(1, len(g.text)), "stop"
		}
	} else {
		g.text = text(rnd, g.want)
	}
	if rnd.Float64() < f.EarlyStop {
		g.want, g.finish = max(1, g.want/2), "stop"
	}
	g.run(w, r, prefix)
}

// split cuts a text after blanks, so that its pieces joined are the text.
func split(t string) []string { return strings.SplitAfter(t, " ") }

// read returns a request's prompt, its tokens, and a hash of each block's prefix.
func (s *Server) read(q request) (prompt string, tokens int, prefix []uint64) {
	var b strings.Builder
	var ids []int
	for _, m := range q.Messages {
		text, _ := m.Text() // of images and the like the words count that stand beside them
		fmt.Fprintf(&b, "%s ", text)
		tokens += templateTokens
	}
	if len(q.Prompt) > 0 && json.Unmarshal(q.Prompt, &ids) != nil {
		var t string
		_ = json.Unmarshal(q.Prompt, &t)
		b.WriteString(t)
	}
	prompt = b.String()
	fields := strings.Fields(prompt)
	for _, id := range ids {
		fields = append(fields, strconv.Itoa(id))
	}
	var h maphash.Hash
	h.SetSeed(s.hash)
	for i, w := range fields {
		h.WriteString(w)
		h.WriteByte(' ')
		if (i+1)%s.cfg.Block == 0 {
			prefix = append(prefix, h.Sum64())
		}
	}
	return strings.TrimSpace(prompt), tokens + len(fields), prefix
}

// templateTokens is what the chat template adds to each message.
const templateTokens = 4

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	openai.Reply(w, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": s.cfg.Model, "object": "model", "created": s.began.Unix(), "owned_by": "simulation", "root": s.cfg.Model, "max_model_len": s.cfg.KVTokens,
	}}})
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var q request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, openai.MaxBody)).Decode(&q); err != nil {
		openai.Fail(w, http.StatusBadRequest, "BadRequestError", err.Error())
		return
	}
	_, n, _ := s.read(q)
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i
	}
	openai.Reply(w, map[string]any{"count": n, "max_model_len": s.cfg.KVTokens, "tokens": ids})
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	st := &s.engine.stats
	page := openai.NewPage(s.cfg.Model)
	one := page.One
	one("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", float64(st.Running))
	one("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", float64(st.Waiting))
	one("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", st.KVUsage)
	one("vllm:prefix_cache_queries_total", "counter", "Prefix cache queries, in terms of number of queried tokens.", float64(st.PrefixQueries))
	one("vllm:prefix_cache_hits_total", "counter", "Prefix cache hits, in terms of number of cached tokens.", float64(st.PrefixHits))
	one("vllm:num_preemptions_total", "counter", "Cumulative number of preemption from the engine.", float64(st.Preemptions))
	one("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", float64(st.PromptTokens))
	one("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", float64(st.OutputTokens))
	one("repromill:simulated_gpu_busy_seconds_total", "counter", "Time that the simulated GPU has worked.", st.Busy.Seconds())
	one("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", float64(s.began.UnixNano())/1e9)
	page.Serve(w)
}
