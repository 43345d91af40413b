package ruler

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
)

// sizer finds how much haystack fits, with few questions to the tokenizer: each
// sends a whole prompt.
type sizer struct {
	m     *maker
	count func(ctx context.Context, text string) (int, error)
	calls atomic.Int64
}

func (s *sizer) tokens(ctx context.Context, text string) (int, error) {
	s.calls.Add(1)
	n, err := s.count(ctx, text)
	if err != nil {
		return 0, fmt.Errorf("count tokens of a prompt: %w", err)
	}
	return n, nil
}

// slack is how many tokens of a budget may stay unused, so that a few prompts are
// enough to find a size: one in 500.
func slack(budget int) int { return budget / 500 }

// search returns a size whose cost is at most budget, less than [slack] below it or
// the largest there is, and the tokens of one more unit. It goes by the line
// through what it has measured, and by halves where that does not help.
func search(least, budget int, cost func(size int) (int, error)) (size int, unit float64, err error) {
	fits, fitCost, over, overCost := 0, 0, math.MaxInt, 0
	for at, tries := least, 0; ; tries++ {
		c, err := cost(at)
		if err != nil {
			return 0, 0, err
		}
		was, wasCost := fits, fitCost
		if c <= budget {
			fits, fitCost = at, c
		} else if over, overCost = at, c; over <= least {
			return 0, 0, fmt.Errorf("%d tokens are not enough for the smallest question, which has %d", budget, c)
		}
		switch {
		case over < math.MaxInt:
			unit = max(float64(overCost-fitCost)/float64(over-fits), 0.01)
		case was > 0 && fitCost > wasCost:
			unit = float64(fitCost-wasCost) / float64(fits-was)
		default:
			unit = float64(fitCost) / float64(fits)
		}
		if budget-fitCost <= slack(budget) || over-fits <= 1 || tries > 40 {
			return fits, unit, nil
		}
		// Aim at the middle of what is allowed.
		at = fits + int((float64(budget-fitCost)-float64(slack(budget))/2)/unit)
		switch {
		case tries > 8 && over < math.MaxInt:
			at = fits + (over-fits)/2
		case over == math.MaxInt && fitCost == wasCost:
			at = 2 * fits
		}
		at = min(max(at, fits+1), over-1)
	}
}

// item is what is kept of a question.
type item struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`
	Index   int      `json:"index"`
	Size    int      `json:"size"`
	Tokens  int      `json:"tokens"` // of the prompt with the beginning of the answer
	SHA     string   `json:"sha256"` // of both
	Want    []string `json:"want"`
	Cluster string   `json:"cluster,omitempty"`
}

// workers is how many prompts are measured at once.
const workers = 8

// all makes n questions of each kind.
func (s *sizer) all(ctx context.Context, use []*kind, n int) ([]item, error) {
	var out []item
	for _, k := range use {
		list, err := s.kind(ctx, k, n)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", k.name, err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// kind makes the questions of one kind. The first is searched; the others begin
// with its size and give up what is too much.
func (s *sizer) kind(ctx context.Context, k *kind, n int) ([]item, error) {
	budget := s.m.budget - k.reply
	size, unit, err := search(k.least, budget, func(size int) (int, error) {
		d := k.make(s.m, k, 0, size)
		return s.tokens(ctx, d.input+d.prefix)
	})
	if err != nil {
		return nil, err
	}
	out := make([]item, n)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				out[i], errs[w] = s.fit(ctx, k, i, size, budget, unit)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fit makes one question as large as the budget lets it be, from size downwards.
func (s *sizer) fit(ctx context.Context, k *kind, index, size, budget int, unit float64) (item, error) {
	for {
		d := k.make(s.m, k, index, size)
		c, err := s.tokens(ctx, d.input+d.prefix)
		if err != nil {
			return item{}, err
		}
		if c <= budget {
			sum := d.sha()
			return item{ID: fmt.Sprintf("%s/%04d", k.name, index), Kind: k.name, Index: index, Size: size, Tokens: c, SHA: fmt.Sprintf("%x", sum), Want: d.want, Cluster: d.cluster}, nil
		}
		if size <= k.least {
			return item{}, fmt.Errorf("question %d has %d tokens at the least, %d are allowed", index, c, budget)
		}
		size = max(k.least, size-max(1, int(math.Ceil(float64(c-budget)/max(unit, 0.01)))))
	}
}
