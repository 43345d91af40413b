package load

import (
	"slices"
	"sync"
)

// Pools of a dual-pool cell.
const (
	Short  = "short"
	Long   = "long"
	Shared = "shared"
)

// Split routes requests to a short and a long pool by the total tokens that are
// expected of them. It is a [Router]; the zero value with a threshold is ready.
type Split struct {
	Threshold  int     // expected input and output tokens from which on a request is long
	ShortPool  []int   // endpoints; requests go round
	LongPool   []int   //
	Percentile float64 // of past output lengths of the request's class; 0 expects max_tokens

	mu   sync.Mutex
	past map[string][]int // sorted output lengths by class
	next [2]int
}

// Past lengths before a percentile is believed, and kept at most.
const (
	leastPast = 20
	mostPast  = 1000
)

// Expect is the total of tokens expected of a request.
func (s *Split) Expect(r Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expect(r)
}

func (s *Split) expect(r Request) int {
	past := s.past[r.Class]
	if s.Percentile <= 0 || len(past) < leastPast {
		return r.ISL + r.OSL
	}
	i := int(s.Percentile / 100 * float64(len(past)-1))
	return r.ISL + min(r.OSL, past[min(max(i, 0), len(past)-1)])
}

// Route implements [Router].
func (s *Split) Route(r Request) (int, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	which, pool, name := 0, s.ShortPool, Short
	if s.expect(r) >= s.Threshold {
		which, pool, name = 1, s.LongPool, Long
	}
	e := pool[s.next[which]%len(pool)]
	s.next[which]++
	return e, name
}

// Done implements [Router]: it learns the output length.
func (s *Split) Done(r Request, rec *Record) {
	if rec.Status != OK || rec.OSL < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.past == nil {
		s.past = map[string][]int{}
	}
	past := s.past[r.Class]
	i, _ := slices.BinarySearch(past, rec.OSL)
	past = slices.Insert(past, i, rec.OSL)
	if len(past) > mostPast {
		far := (i + mostPast/2) % len(past) // from the one that came, so that neither end wears away
		past = slices.Delete(past, far, far+1)
	}
	s.past[r.Class] = past
}

// Round sends requests to all endpoints in turn: one shared pool. It is a
// [Router].
type Round struct {
	Endpoints int

	mu   sync.Mutex
	next int
}

// Route implements [Router].
func (r *Round) Route(Request) (int, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.next % r.Endpoints
	r.next++
	return e, Shared
}

// Done implements [Router].
func (r *Round) Done(Request, *Record) {}
