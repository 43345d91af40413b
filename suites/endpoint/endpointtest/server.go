// Package endpointtest is a model server for tests: it speaks the protocol of
// OpenAI and vLLM on a real port, and what it answers is given by a function.
package endpointtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Asked is one request as the server understood it.
type Asked struct {
	Chat   bool
	Model  string
	Prompt string // of completions, or the turns' contents joined by line feeds
	Prefix string // the assistant's turn that is to be gone on with
	Seed   *int64
	Max    int
	Stream bool
	N      int // requests with this very prompt before it
	Body   map[string]json.RawMessage
}

// Reply is what the server answers.
type Reply struct {
	Text      string
	Null      bool // content is null
	Reasoning string
	// ReasoningField is reasoning_content or reasoning; "" is the first.
	ReasoningField string
	Refusal        string
	Calls          []Call
	Finish         string // "" is stop
	Prompt, Output int    // tokens; 0 is one for each blank-separated word
	NoUsage        bool
	Delay          time.Duration
}

// Call is a tool call.
type Call struct{ Name, Arguments string }

// Config says how a server is. Model and Answer are needed.
type Config struct {
	Model   string
	Answer  func(Asked) Reply
	Key     string // wanted as a bearer token, if any
	Version string
	Started time.Time
	KVDtype string
	MaxLen  int
	// Listener is what it listens on; nil is a free port of 127.0.0.1.
	Listener net.Listener
	// Slots is how many requests are worked on at once; the others wait. 0 is no
	// bound.
	Slots int
	// Refuse is from how many requests in flight on 429 is answered. 0 is never.
	Refuse int
	// Fault may answer a request to the chat or completions endpoint in the
	// server's place; it then returns true. n counts from 0.
	Fault func(n int, w http.ResponseWriter, r *http.Request) bool
}

// Server is a running server.
type Server struct {
	*httptest.Server
	mu     sync.Mutex
	c      Config
	asked  map[string]int
	slots  chan struct{}
	n      atomic.Int64
	flying atomic.Int64
	peak   atomic.Int64
}

// New starts a server, which the caller closes.
func New(c Config) *Server {
	s := &Server{c: c, asked: map[string]int{}}
	if c.Slots > 0 {
		s.slots = make(chan struct{}, c.Slots)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.complete)
	mux.HandleFunc("POST /v1/completions", s.complete)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]string{"version": s.config().Version})
	})
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("POST /tokenize", s.tokenize)
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	s.Server = httptest.NewUnstartedServer(mux)
	if c.Listener != nil {
		_ = s.Server.Listener.Close()
		s.Server.Listener = c.Listener
	}
	s.Start()
	return s
}

// Become changes the server as a restart does. The answer function and the
// limits stay.
func (s *Server) Become(model, version string, started time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.Model, s.c.Version, s.c.Started = model, version, started
}

func (s *Server) config() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c
}

// Requests is how many requests came to the chat and completions endpoints.
func (s *Server) Requests() int { return int(s.n.Load()) }

// Peak is the most requests that were in flight at once.
func (s *Server) Peak() int { return int(s.peak.Load()) }

// Counts returns how often each request body came, by a hash of it.
func (s *Server) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.asked))
	for k, v := range s.asked {
		out[k] = v
	}
	return out
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": http.StatusText(status), "code": status}})
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	c := s.config()
	write(w, map[string]any{"object": "list", "data": []any{map[string]any{"id": c.Model, "object": "model", "created": time.Now().Unix(), "owned_by": "vllm", "root": c.Model, "max_model_len": c.MaxLen}}})
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	c := s.config()
	fmt.Fprintf(w, "# HELP process_start_time_seconds Start time of the process.\n# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %d\n", c.Started.Unix())
	fmt.Fprintf(w, "vllm:cache_config_info{block_size=\"16\",cache_dtype=%q,num_gpu_blocks=\"1024\"} 1.0\n", c.KVDtype)
	fmt.Fprintf(w, "vllm:num_requests_running{model_name=%q} %d\nvllm:num_requests_waiting{model_name=%q} 0.0\n", c.Model, s.flying.Load(), c.Model)
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var j struct {
		Prompt string `json:"prompt"`
	}
	if err := json.NewDecoder(r.Body).Decode(&j); err != nil {
		fail(w, 400, err.Error())
		return
	}
	n := len(strings.Fields(j.Prompt))
	write(w, map[string]any{"count": n, "max_model_len": s.config().MaxLen, "tokens": make([]int, n)})
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	n := int(s.n.Add(1) - 1)
	flying := s.flying.Add(1)
	defer s.flying.Add(-1)
	for {
		p := s.peak.Load()
		if flying <= p || s.peak.CompareAndSwap(p, flying) {
			break
		}
	}
	c := s.config()
	switch {
	case c.Key != "" && r.Header.Get("Authorization") != "Bearer "+c.Key:
		fail(w, 401, "Incorrect API key provided: "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		return
	case c.Refuse > 0 && int(flying) >= c.Refuse:
		w.Header().Set("Retry-After-Ms", "5")
		fail(w, 429, "Rate limit reached")
		return
	case c.Fault != nil && c.Fault(n, w, r):
		return
	}
	a, err := s.read(r)
	if err != nil {
		fail(w, 400, err.Error())
		return
	}
	if a.Model != c.Model {
		fail(w, 404, fmt.Sprintf("The model `%s` does not exist.", a.Model))
		return
	}
	if s.slots != nil {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
	}
	reply := c.Answer(a)
	if reply.Delay > 0 {
		select {
		case <-time.After(reply.Delay):
		case <-r.Context().Done():
			return
		}
	}
	Write(w, a, reply, c.Model)
}

func (s *Server) read(r *http.Request) (Asked, error) {
	a := Asked{Chat: strings.HasSuffix(r.URL.Path, "/chat/completions")}
	var j struct {
		Model    string
		Prompt   string
		Messages []struct{ Role, Content string }
		Stream   bool
		Seed     *int64
		Max      int  `json:"max_tokens"`
		Continue bool `json:"continue_final_message"`
	}
	if err := json.NewDecoder(r.Body).Decode(&a.Body); err != nil {
		return a, err
	}
	raw, err := json.Marshal(a.Body)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(raw, &j); err != nil {
		return a, err
	}
	a.Model, a.Prompt, a.Stream, a.Seed, a.Max = j.Model, j.Prompt, j.Stream, j.Seed, j.Max
	for i, m := range j.Messages {
		if j.Continue && i == len(j.Messages)-1 {
			a.Prefix = m.Content
			break
		}
		if i > 0 {
			a.Prompt += "\n"
		}
		a.Prompt += m.Content
	}
	sum := sha256.Sum256(raw)
	key := hex.EncodeToString(sum[:8])
	s.mu.Lock()
	a.N = s.asked[key]
	s.asked[key]++
	s.mu.Unlock()
	return a, nil
}
