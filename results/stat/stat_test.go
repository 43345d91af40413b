package stat

import (
	"math"
	"testing"
)

func TestQuantiles(t *testing.T) {
	for _, c := range []struct{ p, df, want float64 }{{.95, 29, 1.6991270265}, {.975, 1, 12.7062047362}, {.9, 3, 1.6377443537}, {.05, 10, -1.8124611228}, {.95, 1e6, 1.6448551}} {
		if got := TQuantile(c.p, c.df); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("t(%v, %v) = %v, want %v", c.p, c.df, got, c.want)
		}
	}
	if got := NormalQuantile(.95); math.Abs(got-1.6448536270) > 1e-9 {
		t.Errorf("z(.95) = %v", got)
	}
	for _, c := range []struct{ t, df float64 }{{0, 3}, {2, 5}, {-2, 5}, {9, 30}} {
		if got, want := TTail(c.t, c.df), 1-TCDF(math.Abs(c.t), c.df); math.Abs(got-want) > 1e-12 {
			t.Errorf("tail(%v, %v) = %v, want %v", c.t, c.df, got, want)
		}
	}
	// With one degree of freedom the tail is atan(1/t)/π.
	for _, x := range []float64{1, 1e4, 1e8} {
		if got, want := TTail(x, 1), math.Atan(1/x)/math.Pi; math.Abs(got/want-1) > 1e-9 {
			t.Errorf("tail(%v, 1) = %v, want %v", x, got, want)
		}
	}
}
