package simserver

import (
	"context"
	"slices"
	"sync"
	"time"
)

// sequence is one request inside the engine.
type sequence struct {
	prompt  int // tokens
	cached  int // of them found in the prefix cache
	want    int // output tokens
	prefix  []uint64
	out     chan int // closed when over; receives how many tokens a step gave
	left    context.Context
	prefill int // tokens read so far, output included after a preemption
	made    int
	blocks  int
}

// engine is a continuous-batching scheduler in the manner of vLLM's: requests
// wait in order, a step reads prompts in chunks within a budget of tokens and
// gives one token to each running sequence, and when the KV cache is full the
// youngest sequence loses its blocks and waits again to be recomputed.
//
// Source of the behaviour: vllm-project/vllm, vllm/v1/core/sched/scheduler.py.
type engine struct {
	cfg     Config
	mu      sync.Mutex
	waiting []*sequence
	running []*sequence
	free    int // KV blocks
	prefix  map[uint64]bool
	wake    chan struct{}
	stopped bool
	stats   Stats
}

// Stats is what the engine counts, in vLLM's vocabulary.
type Stats struct {
	Running, Waiting           int
	KVUsage                    float64
	Preemptions                int64
	PromptTokens, OutputTokens int64
	PrefixQueries, PrefixHits  int64         // tokens
	Busy                       time.Duration // of the simulated GPU
}

func newEngine(cfg Config) *engine {
	return &engine{cfg: cfg, free: cfg.KVTokens / cfg.Block, prefix: map[uint64]bool{}, wake: make(chan struct{}, 1)}
}

func (e *engine) submit(s *sequence) {
	e.mu.Lock()
	if e.stopped {
		e.mu.Unlock()
		close(s.out)
		return
	}
	e.stats.PrefixQueries += int64(s.prompt)
	if e.cfg.PrefixCache {
		for i, h := range s.prefix {
			if !e.prefix[h] {
				break
			}
			s.cached = min((i+1)*e.cfg.Block, s.prompt-1)
		}
		for _, h := range s.prefix {
			e.prefix[h] = true
		}
		e.stats.PrefixHits += int64(s.cached)
	}
	s.prefill = s.cached
	e.waiting = append(e.waiting, s)
	e.stats.PromptTokens += int64(s.prompt)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run steps until ctx ends.
func (e *engine) run(ctx context.Context) {
	began := time.Now()
	next := began
	for ctx.Err() == nil {
		e.mu.Lock()
		cost, work := e.step()
		e.mu.Unlock()
		if !work {
			select {
			case <-e.wake:
			case <-ctx.Done():
			}
			next = time.Now()
			continue
		}
		next = next.Add(cost)
		for _, st := range e.cfg.Stalls {
			// A step that would end in a stall ends after it.
			if at := began.Add(st.At); next.After(at) && next.Before(at.Add(st.For)) {
				next = at.Add(st.For)
			}
		}
		if d := time.Until(next); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
		e.emit()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	for _, s := range append(e.running, e.waiting...) {
		close(s.out)
	}
	e.running, e.waiting = nil, nil
}

// step plans the next step: who reads, who writes, what it costs.
func (e *engine) step() (time.Duration, bool) {
	gone := func(s *sequence) bool {
		if s.left.Err() == nil {
			return false
		}
		e.release(s)
		close(s.out)
		return true
	}
	e.running = slices.DeleteFunc(e.running, gone)
	e.waiting = slices.DeleteFunc(e.waiting, gone)
	budget, read := e.cfg.PrefillBudget, 0
	for _, s := range e.running {
		n := min(budget, s.total()-s.prefill)
		s.prefill += n
		budget, read = budget-n, read+n
	}
	for len(e.waiting) > 0 && len(e.running) < e.cfg.MaxBatch && budget > 0 {
		s := e.waiting[0]
		if !e.grow(s, s.total()+1) {
			break
		}
		e.waiting = e.waiting[1:]
		n := min(budget, s.total()-s.prefill)
		s.prefill += n
		budget, read = budget-n, read+n
		e.running = append(e.running, s)
	}
	e.stats.Running, e.stats.Waiting = len(e.running), len(e.waiting)
	all := e.cfg.KVTokens / e.cfg.Block
	e.stats.KVUsage = float64(all-e.free) / float64(all)
	if len(e.running) == 0 {
		return 0, false
	}
	cost := e.cfg.StepBase + time.Duration(len(e.running))*e.cfg.PerSequence + time.Duration(read)*e.cfg.PerPrefill
	e.stats.Busy += cost
	return cost, true
}

func (s *sequence) total() int { return s.prompt + s.made }

// emit gives a token to each sequence that has read all it must.
func (e *engine) emit() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := 0; i < len(e.running); i++ {
		s := e.running[i]
		if s.prefill < s.total() {
			continue
		}
		if !e.grow(s, s.total()+1) {
			victim := e.running[len(e.running)-1]
			e.preempt(victim)
			if victim == s {
				break
			}
			i--
			continue
		}
		s.made++
		s.prefill++
		e.stats.OutputTokens++
		s.out <- 1
		if s.made >= s.want {
			close(s.out)
			e.release(s)
			e.running = slices.Delete(e.running, i, i+1)
			i--
		}
	}
}

// preempt takes the blocks of a running sequence; it waits first in line and is
// read again, its own output included.
func (e *engine) preempt(s *sequence) {
	e.release(s)
	s.prefill = 0
	e.running = slices.DeleteFunc(e.running, func(r *sequence) bool { return r == s })
	e.waiting = slices.Insert(e.waiting, 0, s)
	e.stats.Preemptions++
}

func (e *engine) grow(s *sequence, tokens int) bool {
	need := (tokens+e.cfg.Block-1)/e.cfg.Block - s.blocks
	if need > e.free {
		return false
	}
	if need > 0 {
		e.free -= need
		s.blocks += need
	}
	return true
}

func (e *engine) release(s *sequence) {
	e.free += s.blocks
	s.blocks = 0
}
