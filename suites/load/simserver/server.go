// Package simserver is a model server without a model: it speaks the protocol of
// vLLM's OpenAI-compatible server and behaves like one (continuous batching, a
// KV cache that fills up, preemption, chunked prefill) or misbehaves as it is
// told to. Everything measured on it is a simulation and is marked so.
//
// Its null mode has no scheduler: each stream gives tokens at a fixed pace,
// and each event carries the moment at which it was written, so that a load
// generator can measure how late it reads. For those that do not look at it, GET
// /truth says how the streams that have ended since it was last asked were
// paced in fact.
package simserver

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/repromill/repromill/suites/endpoint/openai"
	"github.com/repromill/repromill/suites/load/wire"
)

// Config says how the server behaves. The zero value is a small fast model.
type Config struct {
	Model   string // "" for "simulated"
	Version string // "" for "0.0.0+simulated"

	Null      bool          // no scheduler: TTFT and ITL as below
	TTFT, ITL time.Duration // null mode; 0 for 20 ms and 10 ms

	StepBase      time.Duration // of each step, 0 for 5 ms
	PerSequence   time.Duration // more for each running sequence, 0 for 20 µs
	PerPrefill    time.Duration // more for each prompt token read, 0 for 10 µs
	MaxBatch      int           // sequences that run at once, 0 for 256
	KVTokens      int           // tokens that the KV cache holds, 0 for 500,000
	Block         int           // tokens of a block, 0 for 16
	PrefillBudget int           // prompt tokens read in one step, 0 for 2048
	PrefixCache   bool

	Faults Faults
	Stalls []Stall

	// Answer gives the text for a prompt; nil gives words without meaning.
	Answer func(prompt string, seed uint64) string
	Seed   uint64
}

// Stall stops the engine for a while.
type Stall struct{ At, For time.Duration }

// Faults are shares of requests, 0 to 1, and other ways of being wrong.
type Faults struct {
	EarlyStop   float64 // end after half of the output, with finish reason stop
	Refuse      float64 // answer with HTTP 500
	TooMany     float64 // answer with HTTP 429 and Retry-After
	CloseMid    float64 // close the connection in the middle of the stream
	Malformed   float64 // send an event that is no JSON
	ErrorMid    float64 // send an error object in the stream
	WrongUsage  bool    // count half of the output
	NoUsage     bool
	NoDone      bool // leave out [DONE]
	CRLF        bool
	BigLine     int // bytes of one comment line in each stream
	NoRole      bool
	Reasoning   float64 // share of the output that is reasoning
	PerChunk    int     // tokens of a chunk, 0 for 1
	HTML        bool    // answer everything with an HTML error page
	HoldHeaders time.Duration
}

// Server is an http.Handler. Run must be running while it serves, unless it is
// a null server.
type Server struct {
	cfg    Config
	clock  wire.Clock
	engine *engine
	began  time.Time
	mux    *http.ServeMux
	seq    atomic.Uint64
	hash   maphash.Seed
	truth  *truth
}

// New returns a server.
func New(cfg Config) *Server {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&cfg.MaxBatch, 256)
	set(&cfg.KVTokens, 500_000)
	set(&cfg.Block, 16)
	set(&cfg.PrefillBudget, 2048)
	set(&cfg.Faults.PerChunk, 1)
	dur(&cfg.StepBase, 5*time.Millisecond)
	dur(&cfg.PerSequence, 20*time.Microsecond)
	dur(&cfg.PerPrefill, 10*time.Microsecond)
	dur(&cfg.TTFT, 20*time.Millisecond)
	dur(&cfg.ITL, 10*time.Millisecond)
	if cfg.Model == "" {
		cfg.Model = "simulated"
	}
	if cfg.Version == "" {
		cfg.Version = "0.0.0+simulated"
	}
	s := &Server{cfg: cfg, clock: wire.NewClock(), engine: newEngine(cfg), began: time.Now(), mux: http.NewServeMux(), hash: maphash.MakeSeed(), truth: newTruth()}
	s.mux.HandleFunc("POST /v1/chat/completions", s.chat)
	s.mux.HandleFunc("POST /v1/completions", s.completions)
	s.mux.HandleFunc("GET /v1/models", s.models)
	s.mux.HandleFunc("POST /tokenize", s.tokenize)
	s.mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		openai.Reply(w, map[string]string{"version": cfg.Version})
	})
	s.mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	s.mux.HandleFunc("GET /metrics", s.metrics)
	if cfg.Null {
		s.mux.HandleFunc("GET /truth", func(w http.ResponseWriter, _ *http.Request) { openai.Reply(w, s.truth.take()) })
	}
	return s
}

// Run works the engine until ctx ends.
func (s *Server) Run(ctx context.Context) { s.engine.run(ctx) }

// Stats returns the engine's counters.
func (s *Server) Stats() Stats {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.engine.stats
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Faults.HTML {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>")
		return
	}
	s.mux.ServeHTTP(w, r)
}

// words are what the output is made of; each is one token.
var words = strings.Fields("the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many off before must well back through years where much your way down should because long each just state those people too mr how little good world make very year still see work life great us")

// text is n tokens of nothing in particular.
func text(r *rand.Rand, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = " " + words[r.IntN(len(words))]
	}
	return out
}
