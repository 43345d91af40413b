// Package engine serves small language models on the CPU: a scheduler that
// computes many requests together, as vLLM's does, over the models of
// [decoder]. It is for models that fit a laptop, and measures what number formats
// do to answers; for speed there are vLLM and SGLang.
//
// An answer depends on the request alone: not on the others that are computed
// with it, on the number of threads, or on when its cache was taken away.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/token"
)

// Config says how an engine works. The zero value of all but Model and
// Tokenizer is ready.
type Config struct {
	Model     *decoder.Model
	Tokenizer *token.Tokenizer
	// EOS are tokens that end an answer, beside those of the model.
	EOS []int32

	// MaxModelLen is the number of tokens of a prompt with its answer; 0 means what
	// the model has, at most 32,768 and what fits into the cache.
	MaxModelLen int
	MaxBatch    int   // requests that run at once, 0 means 256
	StepTokens  int   // tokens computed in one step, 0 means 512
	CacheBytes  int64 // of keys and values, 0 means 1 GiB, or what one request needs
	MaxWaiting  int   // requests that wait, 0 means 4096
	Threads     int   // 0 means 1

	Seed uint64           // of requests without a seed of their own
	Now  func() time.Time // nil means time.Now
}

// Request is what is asked of an engine.
type Request struct {
	Prompt    []int32
	MaxTokens int
	MinTokens int // before which no end is taken
	IgnoreEOS bool
	Stop      []string
	StopIDs   []int32
	Sampling  Sampling
	// Logprobs is the number of alternatives wanted with the probability of each
	// token; -1 for none at all.
	Logprobs int
	// PromptLogprobs asks for the probabilities of the prompt's tokens too.
	PromptLogprobs bool
	// SkipSpecial leaves special tokens out of the text.
	SkipSpecial bool
}

// RequestError says why a request is refused.
type RequestError struct{ Why string }

func (e *RequestError) Error() string { return e.Why }

// ErrBusy says that too many requests wait.
var ErrBusy = errors.New("too many requests wait")

// ErrStopped says that the engine has ended.
var ErrStopped = errors.New("the engine has ended")

// Engine computes requests. [Engine.Run] must be running.
type Engine struct {
	cfg    Config
	runner *decoder.Runner
	cache  *decoder.Cache // of the goroutine that runs
	blocks int
	wake   chan struct{}

	mu      sync.Mutex
	waiting []*sequence
	running []*sequence
	stopped error
	serial  uint64
	stats   Stats
}

// What is used without being asked for: the longest context, and the memory for
// keys and values.
const (
	maxContext   = 32768
	defaultCache = 1 << 30
)

// logitValues bounds the logits of a step that reads prompts for their
// probabilities, in values: 64 MiB.
const logitValues = 16 << 20

// New returns an engine. Its error is a [*RequestError] where the configuration
// asks for what the model does not have.
func New(cfg Config) (*Engine, error) {
	m := cfg.Model
	if cfg.MaxModelLen > m.Config.Context {
		return nil, &RequestError{fmt.Sprintf("the model has a context of %d tokens, and %d were asked for", m.Config.Context, cfg.MaxModelLen)}
	}
	if n := cfg.Tokenizer.Size(); n > m.Config.Vocab {
		return nil, &RequestError{fmt.Sprintf("the tokenizer has %d tokens and the model %d: they are not of the same model", n, m.Config.Vocab)}
	}
	per := m.Config.BytesPerToken()
	if cfg.MaxModelLen == 0 {
		room := max(decoder.Block, cmp.Or(cfg.CacheBytes, defaultCache)/per)
		cfg.MaxModelLen = int(min(int64(m.Config.Context), maxContext, room))
	}
	cfg.MaxBatch = cmp.Or(cfg.MaxBatch, 256)
	cfg.StepTokens = max(cmp.Or(cfg.StepTokens, 512), cfg.MaxBatch)
	cfg.MaxWaiting = cmp.Or(cfg.MaxWaiting, 4096)
	cfg.Threads = cmp.Or(cfg.Threads, 1)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	tokens := cmp.Or(cfg.CacheBytes, defaultCache) / per
	if cfg.CacheBytes == 0 {
		// All requests at once need no more; one alone needs at least that.
		tokens = max(min(tokens, int64(cfg.MaxBatch)*int64(cfg.MaxModelLen)), int64(cfg.MaxModelLen))
	}
	if tokens < int64(cfg.MaxModelLen) {
		return nil, &RequestError{fmt.Sprintf("a cache of %d MiB holds %d tokens, fewer than the context of %d", cfg.CacheBytes>>20, tokens, cfg.MaxModelLen)}
	}
	cfg.EOS = append(slices.Clone(cfg.EOS), m.Config.EOS...)
	e := &Engine{cfg: cfg, runner: m.NewRunner(cfg.Threads, cfg.MaxModelLen), cache: decoder.NewCache(&m.Config, int(tokens)), wake: make(chan struct{}, 1)}
	e.blocks, _ = e.cache.Blocks()
	return e, nil
}

// Config is the configuration with all defaults filled in.
func (e *Engine) Config() Config { return e.cfg }

// Err is why the engine has ended; nil while it has not.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stopped
}

// Blocks is the size of the cache in blocks of [decoder.Block] tokens.
func (e *Engine) Blocks() int { return e.blocks }

// check refuses requests that cannot be computed.
func (e *Engine) check(r *Request) error {
	bad := func(format string, args ...any) error { return &RequestError{fmt.Sprintf(format, args...)} }
	n := len(r.Prompt)
	switch {
	case n == 0:
		return bad("the prompt is empty")
	case n > e.cfg.MaxModelLen || n == e.cfg.MaxModelLen && r.MaxTokens > 0:
		return bad("This model's maximum context length is %d tokens. However, your request has %d input tokens. Please reduce the length of the input messages.", e.cfg.MaxModelLen, n)
	case r.MaxTokens < 1 && !(r.MaxTokens == 0 && r.PromptLogprobs):
		return bad("max_tokens must be at least 1, got %d.", r.MaxTokens)
	case n+r.MaxTokens > e.cfg.MaxModelLen:
		return bad("'max_tokens' or 'max_completion_tokens' is too large: %d. This model's maximum context length is %d tokens and your request has %d input tokens (%d > %d - %d).",
			r.MaxTokens, e.cfg.MaxModelLen, n, r.MaxTokens, e.cfg.MaxModelLen, n)
	case r.MinTokens < 0 || r.MinTokens > r.MaxTokens:
		return bad("min_tokens must be between 0 and max_tokens=%d, got %d.", r.MaxTokens, r.MinTokens)
	case r.Logprobs > maxLogprobs:
		return bad("Requested %d logprobs, which is greater than the max allowed: %d", r.Logprobs, maxLogprobs)
	}
	for _, t := range r.Prompt {
		if t < 0 || int(t) >= e.cfg.Model.Config.Vocab {
			return bad("Token id %d is out of vocabulary", t)
		}
	}
	if len(r.Stop) > maxStops {
		return bad("%d stop strings are more than %d", len(r.Stop), maxStops)
	}
	for _, s := range r.Stop {
		if s == "" || len(s) > maxStop {
			return bad("a stop string has %d bytes; it needs 1 to %d", len(s), maxStop)
		}
	}
	return r.Sampling.check()
}

// Bounds of what a request may ask for.
const (
	maxLogprobs = 20
	maxStops    = 64
	maxStop     = 1024
)

// Submit hands a request in. The answer ends early when ctx does. Errors:
// [*RequestError], [ErrBusy] and [ErrStopped].
func (e *Engine) Submit(ctx context.Context, r Request) (*Stream, error) {
	if err := e.check(&r); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.stopped != nil:
		return nil, e.stopped
	case len(e.waiting) >= e.cfg.MaxWaiting:
		return nil, ErrBusy
	}
	e.serial++
	s := newSequence(ctx, e, r)
	e.waiting = append(e.waiting, s)
	e.stats.PromptTokens += int64(len(r.Prompt))
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return s.stream, nil
}

// Run computes until ctx ends, or until the computation itself fails, which
// ends all requests with that error.
func (e *Engine) Run(ctx context.Context) error {
	defer e.runner.Close()
	var failed error
	for ctx.Err() == nil && failed == nil {
		slots, owners := e.plan()
		if len(slots) == 0 {
			select {
			case <-e.wake:
			case <-ctx.Done():
			case <-time.After(idleCheck):
			}
			continue
		}
		var logits [][]float32
		if logits, failed = e.runner.Step(e.cache, slots); failed == nil {
			e.take(slots, owners, logits)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = ErrStopped
	if failed != nil {
		e.stopped = failed
	}
	for _, s := range slices.Concat(e.running, e.waiting) {
		s.stream.end(Piece{Err: e.stopped})
	}
	e.running, e.waiting = nil, nil
	return failed
}

// idleCheck is how often an idle engine looks for waiting requests whose client
// has left.
const idleCheck = time.Second

// plan chooses what the next step computes. Requests that run come first, one
// token each once their prompt has been read; then what is left of the step goes
// to prompts. Where the cache is full, the youngest request gives its part back
// and is computed again later (vllm-project/vllm vllm/v1/core/sched/scheduler.py).
func (e *Engine) plan() ([]decoder.Slot, []*sequence) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := func(s *sequence) bool {
		if s.ctx.Err() == nil {
			return false
		}
		e.cache.Release(&s.place)
		s.stream.end(Piece{Err: s.ctx.Err()})
		e.stats.finished("abort")
		return true
	}
	e.running = slices.DeleteFunc(e.running, gone)
	e.waiting = slices.DeleteFunc(e.waiting, gone)
	budget := e.cfg.StepTokens
	rows := max(16, logitValues/e.cfg.Model.Config.Vocab)
	for i := 0; i < len(e.running); i++ {
		s := e.running[i]
		for !e.cache.Grow(&s.place, len(s.tokens)) {
			victim := e.running[len(e.running)-1]
			e.preempt(victim)
			if victim == s {
				break
			}
		}
	}
	for len(e.waiting) > 0 && len(e.running) < e.cfg.MaxBatch {
		s := e.waiting[0]
		if !e.cache.Grow(&s.place, len(s.tokens)) {
			break
		}
		e.waiting = e.waiting[1:]
		e.running = append(e.running, s)
	}
	var slots []decoder.Slot
	var owners []*sequence
	for _, reading := range []bool{false, true} {
		for _, s := range e.running {
			left := len(s.tokens) - s.place.Len()
			n := min(left, budget)
			if s.wantsPrompt() {
				n = min(n, rows)
			}
			if (left > 1) != reading || n == 0 {
				continue
			}
			budget -= n
			slot := decoder.Slot{Seq: &s.place, Tokens: s.tokens[s.place.Len():][:n]}
			switch {
			case s.wantsPrompt():
				slot.Logits = n
				rows -= n
			case n == left:
				slot.Logits = 1
			}
			slots, owners = append(slots, slot), append(owners, s)
		}
	}
	e.stats.Steps++
	return slots, owners
}

// preempt takes the cache of the last running request; it waits first in line.
func (e *Engine) preempt(s *sequence) {
	e.cache.Release(&s.place)
	e.running = e.running[:len(e.running)-1]
	e.waiting = slices.Insert(e.waiting, 0, s)
	e.stats.Preemptions++
}

// take gives each request of a step its token. It is counted first: who has read
// an answer to its end finds it in the counters.
func (e *Engine) take(slots []decoder.Slot, owners []*sequence, logits [][]float32) {
	now := e.cfg.Now()
	var gave, done []*sequence
	pieces := make([]*Piece, len(owners))
	for i, s := range owners {
		n := min(slots[i].Logits, len(slots[i].Tokens))
		rows := logits[:n]
		logits = logits[n:]
		before := len(s.tokens)
		pieces[i] = s.advance(rows)
		if len(s.tokens) > before {
			gave = append(gave, s)
		}
		if s.finish != "" {
			done = append(done, s)
		}
	}
	e.count(gave, done, now)
	for i, s := range owners {
		if pieces[i] != nil {
			s.stream.push(*pieces[i], s.finish != "")
		}
	}
}

// count enters what a step gave into the counters and frees the places of the
// requests that are done.
func (e *Engine) count(gave, done []*sequence, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range gave {
		e.stats.token(s, now)
	}
	for _, s := range done {
		e.cache.Release(&s.place)
		e.stats.request(s, now)
	}
	if len(done) > 0 {
		e.running = slices.DeleteFunc(e.running, func(s *sequence) bool { return s.finish != "" })
	}
}
