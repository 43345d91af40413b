package bench

import "testing"

func TestHighest(t *testing.T) {
	for _, limit := range []float64{0.5, 1, 7.3, 20, 1000} {
		n := 0
		best, err := highest(5, func(r float64) (bool, bool, error) { n++; return r <= limit, true, nil })
		if err != nil || best > limit || best < limit/1.06 || n > 16 {
			t.Errorf("limit %g: %g after %d tries, %v", limit, best, n, err)
		}
	}
	if best, _ := highest(5, func(float64) (bool, bool, error) { return false, true, nil }); best != 0 {
		t.Errorf("nothing meets, and %g is the best", best)
	}
	n := 0
	if best, _ := highest(1, func(r float64) (bool, bool, error) { n++; return true, n < 3, nil }); best != 2 || n != 3 {
		t.Errorf("after a void cell: %g, %d tries", best, n)
	}
}
