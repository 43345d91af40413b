package compare_test

import (
	"errors"
	"testing"

	"github.com/repromill/repromill/suites/compare"
)

func TestQuestions(t *testing.T) {
	for _, c := range []struct {
		margin, diff, d, power float64
		oneSided               bool
		want                   int
	}{
		// (z_.95 + z_(1-(1-power)/2))²·d/m² and (z_.95 + z_power)²·d/m²
		{.01, 0, .02, .8, false, 1713}, {.01, 0, .06, .8, false, 5139}, {.01, 0, .06, .9, false, 6494},
		{.02, 0, .10, .9, false, 2706}, {.03, 0, .04, .8, false, 381},
		{.01, 0, .02, .8, true, 1237}, {.01, 0, .10, .9, true, 8564}, {.02, 0, .08, .8, true, 1237}, {.03, 0, .06, .9, true, 572},
		// half a point worse than it seems
		{.01, -.005, .02, .8, true, 4940}, {.01, -.005, .04, .8, true, 9886}, {.01, -.005, .06, .8, true, 14832}, {.01, -.005, .10, .8, true, 24724},
	} {
		p := compare.Plan{Margin: c.margin, Diff: c.diff, Discordant: c.d, Power: c.power, OneSided: c.oneSided}
		got, err := p.Questions()
		if err != nil || got < c.want-1 || got > c.want+1 {
			t.Errorf("%+v: %d questions, %v, want %d", p, got, err, c.want)
		}
	}
	for _, p := range []compare.Plan{{}, {Margin: .01}, {Margin: .01, Discordant: .06, Diff: -.01}, {Margin: .01, Discordant: .001, Diff: .005}, {Margin: .01, Discordant: .06, Power: 1}} {
		_, err := p.Questions()
		var terms *compare.TermsError
		if !errors.As(err, &terms) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if got := compare.Detect(.01, .06, .05, .8); got != 4702 && got != 4701 {
		t.Errorf("to detect a loss of a point: %d questions", got)
	}
}

func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		n    int
		w    float64
		want int
	}{{12032, .05, 1}, {2158, .06, 5}, {1730, .07, 7}, {338, .08, 41}, {300, .09, 52}, {198, .07, 61}, {114, .04, 61}, {100, .09, 155}, {30, .05, 286}} {
		if got := compare.Repeats(c.n, c.w, .01, .05, .9); got != c.want {
			t.Errorf("%d questions at w=%v: %d repeats, want %d", c.n, c.w, got, c.want)
		}
	}
}

func TestResolvesIsInUnitsOfTheDifference(t *testing.T) {
	// 722 discordant pairs of 12,032: two-sided at 0.05 with power 0.8 it is 2.8
	// standard errors of the difference, 0.63 point, not 2.8/√722.
	r := run(t, "tost", made(12032, 361, 361, 1), compare.Options{Margin: .01})
	if got := 100 * compare.Resolves(r.StdErr, .025, .8); got < .62 || got > .64 {
		t.Errorf("resolves %v points, want 0.63", got)
	}
}

func TestWithin(t *testing.T) {
	// Rates of 1/2 and of 1: variances 1/4·k/(k-1) and 0.
	w, n := compare.Within([][]float64{{1, 0, 1, 0}, {1, 1, 1}, {0}, nil})
	if want := (1. / 3) / 2; n != 2 || w < want-1e-12 || w > want+1e-12 {
		t.Errorf("within %v over %d questions, want %v over 2", w, n, want)
	}
	if w, n := compare.Within(nil); w != 0 || n != 0 {
		t.Errorf("of nothing: %v, %d", w, n)
	}
}
