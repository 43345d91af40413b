package measure

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestIntervals: over many samples of a process whose neighbours resemble each
// other, the interval for the mean holds the truth about as often as it says,
// and one that takes them for independent does not.
func TestIntervals(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const runs, n = 200, 1000
	held, naive := 0, 0
	x := make([]float64, n)
	for run := range runs {
		state := 0.0
		for i := range x {
			state = 0.6*state + r.NormFloat64()
			x[i] = 5 + 0.1*state
		}
		d := newDist(x, Config{Seed: uint64(run)})
		if d.MeanLo <= 5 && 5 <= d.MeanHi {
			held++
		}
		if half := 1.96 * d.Std / math.Sqrt(n); math.Abs(d.Mean-5) <= half {
			naive++
		}
	}
	if share := float64(held) / runs; share < 0.84 || share > 0.99 {
		t.Errorf("the interval held the mean in %.1f %% of samples, want about 91 (the blocks are finite)", 100*share)
	}
	if naive >= held {
		t.Errorf("neighbours made no difference: %d against %d", naive, held)
	}
}
