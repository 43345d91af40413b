package compare_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/repromill/repromill/suites/compare"
)

// made returns n pairs with b on which only the baseline is right and c on
// which only the candidate is, in a random order.
func made(n, b, c int, seed uint64) []compare.Pair {
	pairs := make([]compare.Pair, n)
	for i := range pairs {
		pairs[i] = compare.Pair{ID: fmt.Sprint(i), Base: float64(i % 2), Cand: float64(i % 2)}
		switch {
		case i < b:
			pairs[i].Base, pairs[i].Cand = 1, 0
		case i < b+c:
			pairs[i].Base, pairs[i].Cand = 0, 1
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	rng.Shuffle(n, func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return pairs
}

func run(t *testing.T, name string, pairs []compare.Pair, o compare.Options) compare.Result {
	t.Helper()
	m, err := compare.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.Compare(pairs, o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return r
}

// TestEveryMethodDecidesThePlainCases gives every method data about which there
// is nothing to discuss.
func TestEveryMethodDecidesThePlainCases(t *testing.T) {
	o := compare.Options{Margin: .08, Seed: 1}
	same, worse, better := made(1500, 30, 30, 1), made(1500, 400, 30, 2), made(1500, 30, 400, 3)
	for _, m := range compare.Methods() {
		t.Run(m.Name(), func(t *testing.T) {
			want := map[string]compare.Verdict{"same": compare.Equivalent, "worse": compare.Worse, "better": compare.Better}
			switch m.Name() {
			case "noninferiority":
				want["same"], want["better"] = compare.NotWorse, compare.NotWorse
			case "mcnemar_exact", "mcnemar_midp", "mcnemar_e":
				want["same"] = compare.Undecided
			}
			for name, pairs := range map[string][]compare.Pair{"same": same, "worse": worse, "better": better} {
				r := run(t, m.Name(), pairs, o)
				if r.Verdict != want[name] {
					t.Errorf("%s: %s, want %s: %+v", name, r.Verdict, want[name], r)
				}
				if m.Name() != "mcnemar_e" && !(r.Lo <= r.Diff && r.Diff <= r.Hi) {
					t.Errorf("%s: %v is not in [%v, %v]", name, r.Diff, r.Lo, r.Hi)
				}
				if r.EValue != nil && r.Verdict != compare.Undecided && *r.EValue < 20 {
					t.Errorf("%s: decided on e = %v", name, *r.EValue)
				}
				if len(r.Assumptions) == 0 || r.Used+r.Saved > r.Total {
					t.Errorf("%s: %+v", name, r)
				}
			}
		})
	}
}

func TestUnusableTermsAndScoresAreTheUsers(t *testing.T) {
	good := made(10, 1, 1, 1)
	bad := made(10, 1, 1, 1)
	bad[9].Cand = math.NaN()
	large := made(10, 1, 1, 1)
	large[0].Base = 1.5
	for _, m := range compare.Methods() {
		for name, c := range map[string]struct {
			pairs []compare.Pair
			o     compare.Options
		}{
			"no margin":     {good, compare.Options{}},
			"NaN margin":    {good, compare.Options{Margin: math.NaN()}},
			"alpha":         {good, compare.Options{Margin: .01, Alpha: .5}},
			"look":          {good, compare.Options{Margin: .01, Look: -1}},
			"too few":       {good, compare.Options{Margin: .01, Total: 9}},
			"no pairs":      {nil, compare.Options{Margin: .01}},
			"NaN score":     {bad, compare.Options{Margin: .01}},
			"score above 1": {large, compare.Options{Margin: .01}},
		} {
			_, err := m.Compare(c.pairs, c.o)
			var terms *compare.TermsError
			if !errors.As(err, &terms) || terms.UserError() == "" {
				t.Errorf("%s, %s: %v", m.Name(), name, err)
			}
		}
	}
	if _, err := compare.Find("guess"); err == nil {
		t.Error("an unknown method was found")
	}
}

// TestPublishedPair reproduces what the AliceAI-Foundation-80B NVFP4 card's
// counts give: 56,227 paired answers, 1,994 right only in BF16, 1,427 only in
// NVFP4.
func TestPublishedPair(t *testing.T) {
	pairs := made(56227, 1994, 1427, 1)
	r := run(t, "noninferiority", pairs, compare.Options{Margin: .01})
	if r.Verdict != compare.Undecided || math.Abs(*r.PValue-.53) > .01 {
		t.Errorf("margin 1 point: %s, p %v, want undecided at 0.53", r.Verdict, *r.PValue)
	}
	if math.Abs(100*r.Diff+1.01) > .01 || math.Abs(r.Discordant()-.0608) > 1e-4 {
		t.Errorf("difference %v, discordance %v", r.Diff, r.Discordant())
	}
	if r := run(t, "noninferiority", pairs, compare.Options{Margin: .02}); r.Verdict != compare.NotWorse {
		t.Errorf("margin 2 points: %s", r.Verdict)
	}
	if r := run(t, "mcnemar_exact", pairs, compare.Options{Margin: .01}); r.Verdict != compare.Worse || *r.PValue > 1e-20 {
		t.Errorf("McNemar: %s, p %v", r.Verdict, *r.PValue)
	}
}

func TestMcNemar(t *testing.T) {
	for _, c := range []struct {
		b, c       int
		exact, mid float64
	}{
		{1, 5, 14. / 64, 8. / 64}, // 2·(1+6)/64 and less 6/64
		{0, 4, 2. / 16, 1. / 16},
		{3, 3, 1, 1},
		{0, 0, 1, 1},
	} {
		pairs := made(20, c.b, c.c, 1)
		o := compare.Options{Margin: .01}
		if p := *run(t, "mcnemar_exact", pairs, o).PValue; math.Abs(p-c.exact) > 1e-12 {
			t.Errorf("exact p of %d:%d is %v, want %v", c.b, c.c, p, c.exact)
		}
		if p := *run(t, "mcnemar_midp", pairs, o).PValue; math.Abs(p-c.mid) > 1e-12 {
			t.Errorf("mid-p of %d:%d is %v, want %v", c.b, c.c, p, c.mid)
		}
	}
	if r := run(t, "mcnemar_exact", made(200_000, 20_000, 20_300, 1), compare.Options{Margin: .01}); math.IsNaN(*r.PValue) || *r.PValue <= 0 {
		t.Errorf("p of many pairs: %v", *r.PValue)
	}
}

func TestClusteredError(t *testing.T) {
	// Ten passages of ten questions that are lost or won together: the error is
	// that of ten independent questions.
	var whole, split []compare.Pair
	for c := range 10 {
		cand := float64(c % 2)
		whole = append(whole, compare.Pair{ID: fmt.Sprint(c), Base: .5, Cand: cand})
		for range 10 {
			split = append(split, compare.Pair{ID: fmt.Sprint(len(split)), Cluster: fmt.Sprint(c), Base: .5, Cand: cand})
		}
	}
	o := compare.Options{Margin: .2}
	a, b := run(t, "tost", whole, o), run(t, "tost", split, o)
	if math.Abs(a.StdErr-b.StdErr) > 1e-12 || a.Clusters != 10 || b.Clusters != 10 || math.Abs(a.Lo-b.Lo) > 1e-9 {
		t.Errorf("questions %+v\nclusters %+v", a, b)
	}
	want := .5 * math.Sqrt(10./9) / math.Sqrt(10)
	if math.Abs(a.StdErr-want) > 1e-12 {
		t.Errorf("standard error %v, want %v", a.StdErr, want)
	}
	for i := range split {
		split[i].Cluster = "one"
	}
	if r := run(t, "tost", split, o); r.Verdict != compare.Undecided || len(r.Warnings) == 0 {
		t.Errorf("one passage: %+v", r)
	}
}

// TestNoDifferenceAtAllIsNotCertainty: five equal pairs prove nothing about a
// margin of one point, a thousand do.
func TestNoDifferenceAtAllIsNotCertainty(t *testing.T) {
	o := compare.Options{Margin: .01}
	if r := run(t, "tost", made(5, 0, 0, 1), o); r.Verdict != compare.Undecided {
		t.Errorf("5 pairs: %s [%v, %v]", r.Verdict, r.Lo, r.Hi)
	}
	if r := run(t, "tost", made(1000, 0, 0, 1), o); r.Verdict != compare.Equivalent {
		t.Errorf("1000 pairs: %s [%v, %v]", r.Verdict, r.Lo, r.Hi)
	}
}

func TestSignFlipAgreesWithT(t *testing.T) {
	pairs := make([]compare.Pair, 30)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range pairs {
		pairs[i] = compare.Pair{ID: fmt.Sprint(i), Base: .5, Cand: math.Min(1, math.Max(0, .5+.1*rng.NormFloat64()))}
	}
	o := compare.Options{Margin: .05, Seed: 9}
	a, b := run(t, "tost", pairs, o), run(t, "signflip", pairs, o)
	if math.Abs(a.Lo-b.Lo) > .004 || math.Abs(a.Hi-b.Hi) > .004 {
		t.Errorf("t [%v, %v], sign flip [%v, %v]", a.Lo, a.Hi, b.Lo, b.Hi)
	}
	if again := run(t, "signflip", pairs, o); again.Lo != b.Lo || *again.PValue != *b.PValue {
		t.Error("the same seed gives another result")
	}
}

func TestTinyAlphaDecidesNothing(t *testing.T) {
	for _, m := range compare.Methods() {
		r := run(t, m.Name(), made(30, 3, 3, 1), compare.Options{Margin: .3, Alpha: 1e-9, Total: 60})
		if r.Verdict != compare.Undecided {
			t.Errorf("%s: %+v", m.Name(), r)
		}
	}
}

func TestWithoutReplacementIsExactAtTheEnd(t *testing.T) {
	for _, c := range []struct {
		b, c int
		want compare.Verdict
	}{
		{60, 51, compare.Equivalent}, // −0.9 points
		{60, 50, compare.Undecided},  // −1 exactly: neither within the margin nor beyond it
		{60, 49, compare.Worse},
		{49, 60, compare.Better},
	} {
		r := run(t, "wor_e", made(1000, c.b, c.c, 7), compare.Options{Margin: .01})
		if r.Verdict != c.want {
			t.Errorf("%d:%d gives %s after %d, want %s", c.b, c.c, r.Verdict, r.Used, c.want)
		}
	}
}

func TestJoint(t *testing.T) {
	e := func(v float64) *float64 { return &v }
	named := func(vs ...compare.Verdict) (out []compare.Named) {
		for i, v := range vs {
			r := compare.Result{Verdict: v}
			if v == compare.Worse || v == compare.Better {
				r.EValue = e(25)
			}
			out = append(out, compare.Named{Suite: fmt.Sprint(i), Result: r})
		}
		return out
	}
	for _, c := range []struct {
		in   []compare.Named
		want compare.Verdict
	}{
		{named(compare.Equivalent, compare.Equivalent), compare.Equivalent},
		{named(compare.Equivalent, compare.Undecided), compare.Undecided},
		{named(compare.Equivalent, compare.Undecided, compare.Worse), compare.Worse},
		{named(compare.Equivalent, compare.NotWorse), compare.NotWorse},
		{named(compare.Better, compare.Equivalent), compare.NotWorse},
		{named(compare.Better, compare.Better), compare.Better},
	} {
		j, err := compare.All(c.in, .05)
		if err != nil || j.Verdict != c.want {
			t.Errorf("%v: %+v, %v, want %s", c.in, j, err, c.want)
		}
	}
	// e = 25 stands alone, but not among nine.
	nine := named(compare.Worse, compare.Equivalent, compare.Equivalent, compare.Equivalent, compare.Equivalent, compare.Equivalent, compare.Equivalent, compare.Equivalent, compare.Equivalent)
	if j, _ := compare.All(nine, .05); len(j.Differing) != 0 || len(j.Failed) != 1 {
		t.Errorf("nine suites: %+v", j)
	}
	nine[0].Result.EValue = e(180)
	if j, _ := compare.All(nine, .05); len(j.Differing) != 1 {
		t.Errorf("nine suites, strong evidence: %+v", j)
	}
	if got := compare.Holm([]float64{.03, .01, .04, math.NaN()}, .05); fmt.Sprint(got) != "[false true false false]" {
		t.Errorf("Holm: %v", got)
	}
}
