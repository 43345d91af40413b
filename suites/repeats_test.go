package suites_test

import (
	"math"
	"testing"

	"github.com/repromill/repromill/suites"
)

// TestPassAtIsUnbiased compares with the definition: the share of all subsets of
// k answers that hold a right one (pass@k) or only right ones (pass^k).
func TestPassAtIsUnbiased(t *testing.T) {
	const n = 8
	for c := 0; c <= n; c++ {
		for k := 1; k <= n; k++ {
			var any, all, total float64
			for set := range 1 << n {
				size, hit := 0, 0
				for i := range n {
					if set>>i&1 == 1 {
						size++
						if i < c {
							hit++
						}
					}
				}
				if size != k {
					continue
				}
				total++
				if hit > 0 {
					any++
				}
				if hit == k {
					all++
				}
			}
			pass, err := suites.PassAt(n, c, k)
			if err != nil || math.Abs(pass-any/total) > 1e-12 {
				t.Errorf("pass@%d of %d/%d: %v, %v, want %v", k, c, n, pass, err, any/total)
			}
			every, err := suites.AllAt(n, c, k)
			if err != nil || math.Abs(every-all/total) > 1e-12 {
				t.Errorf("pass^%d of %d/%d: %v, %v, want %v", k, c, n, every, err, all/total)
			}
		}
	}
	for _, bad := range [][3]int{{3, 4, 1}, {3, 1, 0}, {3, 1, 4}, {3, -1, 1}} {
		if _, err := suites.PassAt(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("pass@k of %v was accepted", bad)
		}
	}
}

func TestMajority(t *testing.T) {
	for _, c := range []struct {
		answers []string
		want    string
	}{
		{[]string{"7", "16", "16"}, "16"},
		{[]string{"7", "16", "16", "7"}, "7"},
		{[]string{"", "", "", "3"}, "3"},
		{[]string{"", ""}, ""},
		{nil, ""},
	} {
		if got := suites.Majority(c.answers); got != c.want {
			t.Errorf("majority of %q is %q, want %q", c.answers, got, c.want)
		}
	}
}

func TestMean(t *testing.T) {
	if got := suites.Mean([][]float64{{1, 0, 1, 1}, {0}, nil}); got != .375 {
		t.Errorf("mean %v, want 0.375", got)
	}
}
