package compare_test

import (
	"math/rand/v2"
	"testing"

	"github.com/repromill/repromill/suites/compare"
)

// TestLooks checks that every look of a sequential method is kept, that it is what
// a comparison of so many pairs says, and that nothing else changes by it.
func TestLooks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var pairs []compare.Pair
	for range 1000 {
		base := float64(r.IntN(2))
		cand := base
		if r.IntN(10) == 0 {
			cand = 1 - base
		}
		pairs = append(pairs, compare.Pair{Base: base, Cand: cand})
	}
	for _, name := range []string{"wor_e", "mixture_e", "mcnemar_e"} {
		m, err := compare.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		o := compare.Options{Margin: 0.08, Total: 1000, Look: 16}
		plain, err := m.Compare(pairs, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Trace = true
		traced, err := m.Compare(pairs, o)
		if err != nil {
			t.Fatal(err)
		}
		if plain.Looks != nil || plain.Verdict != traced.Verdict || plain.Used != traced.Used || *plain.EValue != *traced.EValue {
			t.Errorf("%s: %+v, traced %+v", name, plain, traced)
		}
		if want := (traced.Used + 15) / 16; len(traced.Looks) != want {
			t.Errorf("%s: %d looks over %d pairs, want %d", name, len(traced.Looks), traced.Used, want)
		}
		last := traced.Looks[len(traced.Looks)-1]
		if last.Pairs != traced.Used || last.Verdict != traced.Verdict || last.BaseOnly != traced.BaseOnly || last.CandOnly != traced.CandOnly || last.Base != traced.Base {
			t.Errorf("%s: the last look is %+v of %+v", name, last, traced)
		}
		for i, k := range traced.Looks[:len(traced.Looks)-1] {
			if k.Verdict != compare.Undecided || k.Pairs != 16*(i+1) {
				t.Errorf("%s, look %d: %+v", name, i, k)
			}
			if k.Beyond == nil || (k.Within == nil) != (name == "mcnemar_e") {
				t.Errorf("%s, look %d has no evidence: %+v", name, i, k)
			}
		}
		at := traced.Looks[len(traced.Looks)/2]
		o.Trace = false
		half, err := m.Compare(pairs[:at.Pairs], o)
		if err != nil {
			t.Fatal(err)
		}
		if half.BaseOnly != at.BaseOnly || half.CandOnly != at.CandOnly || half.Base != at.Base || half.Cand != at.Cand {
			t.Errorf("%s: %d pairs alone %+v, the look %+v", name, at.Pairs, half, at)
		}
	}
}
