package engine

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling says how a token is chosen. The zero value takes the most probable.
type Sampling struct {
	Temperature float64
	TopP        float64 // 0 means 1
	TopK        int     // 0 or -1 means all
	MinP        float64
	Seed        *uint64
}

func (s *Sampling) check() error {
	switch {
	case !(s.Temperature >= 0 && s.Temperature <= 100):
		return &RequestError{"temperature must be between 0 and 100"}
	case !(s.TopP >= 0 && s.TopP <= 1):
		return &RequestError{"top_p must be in (0, 1]"}
	case s.TopK < -1:
		return &RequestError{"top_k must be -1 or at least 1"}
	case !(s.MinP >= 0 && s.MinP <= 1):
		return &RequestError{"min_p must be in [0, 1]"}
	}
	return nil
}

// greedyBelow is the temperature below which the most probable token is taken,
// as in vLLM (vllm/sampling_params.py).
const greedyBelow = 1e-5

// best is the most probable token; the first of several.
func best(logits []float32) int32 {
	at := 0
	for i, v := range logits {
		if v > logits[at] || logits[at] != logits[at] {
			at = i
		}
	}
	return int32(at)
}

// candidate is a token that may be drawn.
type candidate struct {
	id int32
	p  float64
}

// choose draws a token: temperature first, then the top_k most probable, then
// the least of those that reach top_p together, then those of at least min_p
// times the most probable one.
func (s *Sampling) choose(logits []float32, r *rand.Rand) int32 {
	if s.Temperature < greedyBelow {
		return best(logits)
	}
	top := float64(logits[best(logits)])
	list := make([]candidate, 0, len(logits))
	for i, v := range logits {
		if p := math.Exp((float64(v) - top) / s.Temperature); p > 0 {
			list = append(list, candidate{int32(i), p})
		}
	}
	if s.TopK > 0 || s.TopP > 0 && s.TopP < 1 || s.MinP > 0 {
		list = s.narrow(list)
	}
	var sum float64
	for _, c := range list {
		sum += c.p
	}
	u := r.Float64() * sum
	for _, c := range list {
		if u -= c.p; u < 0 {
			return c.id
		}
	}
	return best(logits) // of sums that rounding leaves a little short, or NaN
}

func (s *Sampling) narrow(list []candidate) []candidate {
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.id, b.id)) })
	if s.TopK > 0 {
		list = list[:min(len(list), s.TopK)]
	}
	if s.TopP > 0 && s.TopP < 1 {
		var sum, reached float64
		for _, c := range list {
			sum += c.p
		}
		for i, c := range list {
			if reached += c.p; reached >= s.TopP*sum {
				list = list[:i+1]
				break
			}
		}
	}
	if s.MinP > 0 && len(list) > 0 {
		least := s.MinP * list[0].p
		if i := slices.IndexFunc(list, func(c candidate) bool { return c.p < least }); i >= 0 {
			list = list[:i]
		}
	}
	return list
}

// Logprob is the natural logarithm of a token's probability, before temperature
// and narrowing.
type Logprob struct {
	ID    int32
	Value float64
	Rank  int // 1 is the most probable; 0 where it was not asked for
}

// logprobs gives that of a token and of the n most probable ones.
func logprobs(logits []float32, id int32, n int) (own Logprob, tops []Logprob) {
	top := float64(logits[best(logits)])
	var sum float64
	rank := 1
	for i, v := range logits {
		sum += math.Exp(float64(v) - top)
		if v > logits[id] || v == logits[id] && int32(i) < id {
			rank++
		}
	}
	all := top + math.Log(sum)
	own = Logprob{id, float64(logits[id]) - all, rank}
	for i, v := range logits {
		l := Logprob{ID: int32(i), Value: float64(v) - all}
		if len(tops) == n {
			if n == 0 || l.Value <= tops[n-1].Value {
				continue
			}
			tops = tops[:n-1]
		}
		at, _ := slices.BinarySearchFunc(tops, l, func(a, b Logprob) int {
			if a.Value >= b.Value {
				return -1
			}
			return 1
		})
		tops = slices.Insert(tops, at, l)
	}
	for i := range tops {
		tops[i].Rank = i + 1
	}
	return own, tops
}
