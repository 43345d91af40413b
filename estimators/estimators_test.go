package estimators

import (
	"math"
	"testing"
)

func TestInterval(t *testing.T) {
	i := Interval{50, 100, 200}
	if w := i.Widen(2); w.P50 != 100 || math.Abs(w.P10-25) > 1e-9 || math.Abs(w.P90-400) > 1e-9 {
		t.Errorf("Widen = %+v", w)
	}
	if v := i.Inverse(1000); v != (Interval{5, 10, 20}) {
		t.Errorf("Inverse = %+v", v)
	}
	if v := i.Scale(2); v != (Interval{100, 200, 400}) {
		t.Errorf("Scale = %+v", v)
	}
	if z := (Interval{0, 1, 2}); z.Widen(2) != z {
		t.Errorf("an interval from zero has no logarithm: %+v", z.Widen(2))
	}
	if v := i.Plus(Exact(10)); v != (Interval{60, 110, 210}) {
		t.Errorf("Plus = %+v", v)
	}
	if v := i.Most(Interval{60, 90, 300}); v != (Interval{60, 100, 300}) {
		t.Errorf("Most = %+v", v)
	}
	// Two factors of 2 that know nothing of each other are one of 2^√2.
	if v := i.Times(Interval{1, 2, 4}); v.P50 != 200 || math.Abs(v.P90/v.P50-math.Pow(2, math.Sqrt2)) > 1e-9 || math.Abs(v.P50/v.P10-math.Pow(2, math.Sqrt2)) > 1e-9 {
		t.Errorf("Times = %+v", v)
	}
	if v := i.Times(Exact(3)); math.Abs(v.P10-150) > 1e-9 || math.Abs(v.P90-600) > 1e-9 {
		t.Errorf("Times = %+v", v)
	}
	if v := i.Times(Interval{0, 1, 2}); v.P10 != 0 || v.P90 != 400 {
		t.Errorf("an interval from zero multiplies end by end: %+v", v)
	}
}
