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
}
