package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Lag counts how late events were read, where the server says when it wrote
// them. It is safe for concurrent use.
type Lag struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram // microseconds
}

// NewLag returns an empty one.
func NewLag() *Lag { return &Lag{h: hdrhistogram.New(1, 60_000_000, 3)} }

func (l *Lag) add(ns int64) {
	l.mu.Lock()
	_ = l.h.RecordValue(min(max(ns/1000, 0), 60_000_000))
	l.mu.Unlock()
}

// At returns a percentile, 0 to 100.
func (l *Lag) At(percent float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(l.h.ValueAtQuantile(percent)) * time.Microsecond
}

// N is the number of events.
func (l *Lag) N() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.h.TotalCount()
}
