package simserver

import (
	"sync"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Pace is how streams were written: what a load generator without any lag of
// its own would have measured. Times are in milliseconds.
type Pace struct {
	Requests int   `json:"requests"`
	Events   int64 `json:"events"`  // with text
	TTFT     Shape `json:"ttft_ms"` // from the request's arrival
	Gap      Shape `json:"gap_ms"`  // between two events of a stream
	Mean     Shape `json:"mean_gap_ms"`
	Streams  int   `json:"peak_streams"`
	// EventsPerS is the rate between the first and the last event.
	EventsPerS float64 `json:"events_per_s"`
}

// Shape is a distribution in three numbers.
type Shape struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// truth gathers the pace of a null server's streams.
type truth struct {
	mu              sync.Mutex
	ttft, gap, mean *hdrhistogram.Histogram // microseconds
	requests        int
	from, to        int64
	open, peak      int
}

func newTruth() *truth {
	t := &truth{}
	t.reset()
	return t
}

func (t *truth) reset() {
	h := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }
	t.ttft, t.gap, t.mean, t.requests, t.from, t.to, t.peak = h(), h(), h(), 0, 0, 0, t.open
}

func (t *truth) began() {
	t.mu.Lock()
	t.open++
	t.peak = max(t.peak, t.open)
	t.mu.Unlock()
}

// add takes the moments at which a stream's events were written.
func (t *truth) add(arrived int64, wrote []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	if len(wrote) == 0 {
		return
	}
	rec := func(h *hdrhistogram.Histogram, ns int64) { _ = h.RecordValue(min(max(ns/1000, 1), 600_000_000)) }
	first, last := wrote[0], wrote[len(wrote)-1]
	rec(t.ttft, first-arrived)
	for i := 1; i < len(wrote); i++ {
		rec(t.gap, wrote[i]-wrote[i-1])
	}
	if n := int64(len(wrote) - 1); n > 0 {
		rec(t.mean, (last-first)/n)
	}
	if t.requests == 0 || first < t.from {
		t.from = first
	}
	t.to = max(t.to, last)
	t.requests++
}

// take returns what was gathered and begins anew.
func (t *truth) take() Pace {
	t.mu.Lock()
	defer t.mu.Unlock()
	shape := func(h *hdrhistogram.Histogram) Shape {
		at := func(p float64) float64 { return float64(h.ValueAtQuantile(p)) / 1e3 }
		return Shape{at(50), at(99), at(100)}
	}
	p := Pace{Requests: t.requests, Events: t.gap.TotalCount() + int64(t.requests), TTFT: shape(t.ttft), Gap: shape(t.gap), Mean: shape(t.mean), Streams: t.peak}
	if t.to > t.from {
		p.EventsPerS = float64(p.Events) / (float64(t.to-t.from) / 1e9)
	}
	t.reset()
	return p
}
