package access

import (
	"math"
	"sync"
	"time"
)

// Limiter bounds how often each caller may ask: a bucket of tokens that fills
// evenly (RFC 6585 gives the status 429; the headers are of
// draft-ietf-httpapi-ratelimit-headers). The zero value works.
type Limiter struct {
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// maxBuckets bounds the memory that callers can take by changing their names;
// beyond it the ones that are full again are forgotten.
const maxBuckets = 10_000

// Allowance is what is left of a limit.
type Allowance struct {
	OK        bool
	Limit     int           // requests per minute
	Remaining int           // at this moment
	Reset     time.Duration // until the bucket is full
	Retry     time.Duration // until the next request is allowed; 0 when OK
}

// Allow takes a token of the caller's bucket of perMinute tokens.
func (l *Limiter) Allow(caller string, perMinute int, now time.Time) Allowance {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets == nil {
		l.buckets = map[string]*bucket{}
	}
	size, rate := float64(perMinute), float64(perMinute)/60
	b := l.buckets[caller]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.forget(size, rate, now)
		}
		b = &bucket{size, now}
		l.buckets[caller] = b
	}
	// A clock that jumps back gives nothing, one that jumps ahead a full bucket.
	b.tokens = min(size, b.tokens+max(0, now.Sub(b.at).Seconds())*rate)
	b.at = now
	a := Allowance{Limit: perMinute}
	if b.tokens >= 1 {
		b.tokens--
		a.OK = true
	} else {
		a.Retry = seconds((1 - b.tokens) / rate)
	}
	a.Remaining = int(b.tokens)
	a.Reset = seconds((size - b.tokens) / rate)
	return a
}

func seconds(s float64) time.Duration {
	return time.Duration(math.Ceil(s)) * time.Second
}

func (l *Limiter) forget(size, rate float64, now time.Time) {
	for name, b := range l.buckets {
		if b.tokens+now.Sub(b.at).Seconds()*rate >= size {
			delete(l.buckets, name)
		}
	}
	for name := range l.buckets { // all are busy: any will do
		if len(l.buckets) < maxBuckets {
			return
		}
		delete(l.buckets, name)
	}
}
