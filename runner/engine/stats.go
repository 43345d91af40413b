package engine

import (
	"maps"
	"slices"
	"time"
)

// Stats is what an engine counts, in vLLM's vocabulary.
type Stats struct {
	Running, Waiting           int
	CacheUsage                 float64
	Preemptions                int64
	PromptTokens, OutputTokens int64
	Steps                      int64
	Finished                   map[string]int64 // by reason
	TTFT, ITL, E2E             Histogram        // seconds
}

// Histogram counts values by upper bounds, as Prometheus does.
type Histogram struct {
	Counts []int64 // one for each of its bounds, and one beyond; not summed up
	Sum    float64
	Count  int64
}

// Buckets are the bounds of the histograms, in seconds (vllm-project/vllm
// vllm/v1/metrics/loggers.py).
var Buckets = struct{ TTFT, ITL, E2E []float64 }{
	TTFT: []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560},
	ITL:  []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80},
	E2E:  []float64{0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680},
}

func (h *Histogram) add(bounds []float64, v float64) {
	if h.Counts == nil {
		h.Counts = make([]int64, len(bounds)+1)
	}
	at, _ := slices.BinarySearch(bounds, v)
	h.Counts[at]++
	h.Sum += v
	h.Count++
}

func (h Histogram) clone() Histogram {
	h.Counts = slices.Clone(h.Counts)
	return h
}

// token counts the token that a request has just been given.
func (s *Stats) token(q *sequence, now time.Time) {
	s.OutputTokens++
	if q.last.IsZero() {
		s.TTFT.add(Buckets.TTFT, now.Sub(q.arrived).Seconds())
	} else {
		s.ITL.add(Buckets.ITL, now.Sub(q.last).Seconds())
	}
	q.last = now
}

// request counts one that is complete.
func (s *Stats) request(q *sequence, now time.Time) {
	s.E2E.add(Buckets.E2E, now.Sub(q.arrived).Seconds())
	s.finished(q.finish)
}

func (s *Stats) finished(reason string) {
	if s.Finished == nil {
		s.Finished = map[string]int64{}
	}
	s.Finished[reason]++
}

// Stats returns the counters.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.stats
	out.Running, out.Waiting = len(e.running), len(e.waiting)
	all, free := e.cache.Blocks()
	out.CacheUsage = float64(all-free) / float64(all)
	out.Finished = maps.Clone(out.Finished)
	out.TTFT, out.ITL, out.E2E = out.TTFT.clone(), out.ITL.clone(), out.E2E.clone()
	return out
}
