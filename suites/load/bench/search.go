package bench

import (
	"context"

	"github.com/repromill/repromill/suites/load"
)

// Search finds the highest rate of an open loop at which at least share of the
// requests meet the SLO, void cells not counting as met: it doubles the rate
// until it fails and then halves the stretch between until the ends lie within a
// twentieth of each other. It returns all cells it measured, and the best rate,
// 0 when the first one failed. seen is called with each cell; it may be nil.
func (b *Bench) Search(ctx context.Context, spec load.Spec, share float64, seen func(*Cell)) (cells []*Cell, best float64, err error) {
	const most = 16
	met := func(rate float64) (bool, error) {
		spec.Rate = rate
		c, err := b.Cell(ctx, spec, len(cells))
		if err != nil {
			return false, err
		}
		cells = append(cells, c)
		if seen != nil {
			seen(c)
		}
		bad := c.Summary.Sent - c.Summary.Statuses[load.OK]
		good := c.Summary.Whole.SLOFraction * float64(c.Summary.Statuses[load.OK])
		return !c.Void && c.Summary.Sent > 0 && bad*100 <= c.Summary.Sent && good >= share*float64(c.Summary.Sent), nil
	}
	lo, hi := 0.0, 0.0
	rate := spec.Rate
	for len(cells) < most && ctx.Err() == nil {
		ok, err := met(rate)
		switch {
		case err != nil:
			return cells, lo, err
		case ok:
			lo = rate
		default:
			hi = rate
		}
		switch {
		case hi == 0:
			rate = 2 * lo
		case lo == 0 && len(cells) >= 5:
			return cells, 0, nil
		case lo == 0:
			rate = hi / 2
		case hi <= 1.05*lo:
			return cells, lo, nil
		default:
			rate = (lo + hi) / 2
		}
	}
	return cells, lo, nil
}
