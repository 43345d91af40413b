package bench

import (
	"context"

	"github.com/repromill/repromill/suites/load"
)

// Search finds the highest rate of an open loop at which at least share of the
// requests meet the SLO. It returns all cells it measured, and the best rate, 0
// when none met it. A void cell says nothing of the server: the search ends
// there. seen is called with each cell; it may be nil.
func (b *Bench) Search(ctx context.Context, spec load.Spec, share float64, seen func(*Cell)) (cells []*Cell, best float64, err error) {
	best, err = highest(spec.Rate, func(rate float64) (met, goOn bool, err error) {
		if ctx.Err() != nil {
			return false, false, nil
		}
		spec.Rate = rate
		c, err := b.Cell(ctx, spec, len(cells))
		if err != nil {
			return false, false, err
		}
		cells = append(cells, c)
		if seen != nil {
			seen(c)
		}
		ok := c.Summary.Statuses[load.OK]
		good := c.Summary.Whole.SLOFraction * float64(ok)
		return good >= share*float64(c.Summary.Sent) && c.Summary.Sent > 0, !c.Void, nil
	})
	return cells, best, err
}

// highest finds the highest rate that meets: it doubles the rate until one does
// not and then halves the stretch between, until its ends lie within a twentieth
// of each other.
func highest(rate float64, try func(float64) (met, goOn bool, err error)) (best float64, err error) {
	const most, downwards = 16, 5
	lo, hi := 0.0, 0.0
	for n := 1; n <= most; n++ {
		met, goOn, err := try(rate)
		if err != nil || !goOn {
			return lo, err
		}
		if met {
			lo = rate
		} else {
			hi = rate
		}
		switch {
		case hi == 0:
			rate = 2 * lo
		case lo == 0 && n >= downwards:
			return 0, nil
		case lo == 0:
			rate = hi / 2
		case hi <= 1.05*lo:
			return lo, nil
		default:
			rate = (lo + hi) / 2
		}
	}
	return lo, nil
}
