package compare_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/compare"
)

// draw makes pairs of arms of which one alone is right on shares of the questions.
func draw(seed uint64, n int, baseOnly, candOnly float64) []compare.Pair {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]compare.Pair, n)
	for i := range out {
		out[i] = compare.Pair{Base: 1, Cand: 1}
		switch u := r.Float64(); {
		case u < baseOnly:
			out[i].Cand = 0
		case u < baseOnly+candOnly:
			out[i].Base = 0
		}
	}
	return out
}

// TestNeededDecides: the number of questions that an undecided comparison names
// does decide in about four of five cases.
func TestNeededDecides(t *testing.T) {
	for name, c := range map[string]struct {
		baseOnly, candOnly float64
		want               compare.Verdict
	}{
		"alike": {0.03, 0.03, compare.Equivalent},
		"worse": {0.10, 0.04, compare.Worse},
	} {
		o := compare.Options{Margin: 0.02, Alpha: 0.05}
		n := needed(t, c.baseOnly, c.candOnly, o)
		decided := 0
		const times = 300
		for i := range times {
			r, err := compare.TOST().Compare(draw(uint64(i)+10, n, c.baseOnly, c.candOnly), o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict == c.want {
				decided++
			}
		}
		if decided < times*70/100 || decided > times*90/100 {
			t.Errorf("%s: %d questions decide %d of %d times", name, n, decided, times)
		}
	}
}

// needed is what a hundred pairs that differ on exactly these shares name.
func needed(t *testing.T, baseOnly, candOnly float64, o compare.Options) int {
	t.Helper()
	some := make([]compare.Pair, 100)
	for i := range some {
		some[i] = compare.Pair{Base: 1, Cand: 1}
		switch u := float64(i) / 100; {
		case u < baseOnly:
			some[i].Cand = 0
		case u < baseOnly+candOnly:
			some[i].Base = 0
		}
	}
	r, err := compare.TOST().Compare(some, o)
	if err != nil || r.Verdict != compare.Undecided {
		t.Fatalf("%+v %v", r, err)
	}
	if !strings.Contains(strings.Join(r.Warnings, "; "), "questions would decide it") {
		t.Errorf("it does not say how many questions would decide: %q", r.Warnings)
	}
	return r.Needed
}

func TestNeededAtTheMargin(t *testing.T) {
	r, err := compare.TOST().Compare(draw(3, 100, 0, 0), compare.Options{Margin: 0.01})
	if err != nil || r.Needed == 0 && r.Verdict == compare.Undecided {
		t.Errorf("arms that never differ: %+v %v", r, err)
	}
	pairs := make([]compare.Pair, 100)
	for i := range pairs {
		pairs[i] = compare.Pair{Base: 1, Cand: 1}
	}
	pairs[4].Cand, pairs[40].Cand = 0, 0 // two points, and the margin is two
	r, err = compare.TOST().Compare(pairs, compare.Options{Margin: 0.02})
	if err != nil || r.Verdict != compare.Undecided || r.Needed != 0 || !strings.Contains(strings.Join(r.Warnings, "; "), "another margin may") {
		t.Errorf("%+v %v", r, err)
	}
}
