package compare

import (
	"math"
	"math/rand/v2"
	"testing"
)

// sequences calls f with every sequence of n differences and its number of
// each.
func sequences(n int, f func(ds []float64, plus, minus int)) {
	ds := make([]float64, n)
	total := int(math.Pow(3, float64(n)))
	for code := range total {
		plus, minus := 0, 0
		for i, c := 0, code; i < n; i, c = i+1, c/3 {
			ds[i] = float64(c%3 - 1)
			switch ds[i] {
			case 1:
				plus++
			case -1:
				minus++
			}
		}
		f(ds, plus, minus)
	}
}

// TestEvidenceIsAFairBet: under the null the expected capital is the stake, so
// that large capital is rare (Ville). Over every sequence, with its probability.
func TestEvidenceIsAFairBet(t *testing.T) {
	o := Options{Margin: .1, Alpha: .05, Total: 7}
	const n, up1, down1 = 7, .3, .4 // mean −0.1
	for name, start := range map[string]func(float64, side, Options) process{"mixture": newMixture, "hedged": newHedged} {
		for _, s := range []side{up, down} {
			var expected float64
			sequences(n, func(ds []float64, plus, minus int) {
				p := start(-.1, s, o)
				for _, d := range ds {
					p.observe(d)
				}
				expected += p.value() * math.Pow(up1, float64(plus)) * math.Pow(down1, float64(minus)) * math.Pow(1-up1-down1, float64(n-plus-minus))
			})
			if math.Abs(expected-1) > 1e-9 {
				t.Errorf("%s, side %v: expected capital %v, want 1", name, s, expected)
			}
		}
	}
}

// TestWithoutReplacementIsFair goes through every order of a benchmark of ten
// questions whose mean is the null exactly.
func TestWithoutReplacementIsFair(t *testing.T) {
	const n, plus, minus = 10, 2, 3
	o := Options{Margin: .1, Alpha: .3, Total: n}
	for _, s := range []side{up, down} {
		orders, rejected := 0, 0
		means := make([]float64, n)
		sequences(n, func(ds []float64, p, m int) {
			if p != plus || m != minus {
				return
			}
			orders++
			w := newWOR(-.1, s, o).(*wor)
			ever := false
			for i, d := range ds {
				w.observe(d)
				means[i] += w.value()
				ever = ever || w.rejected()
			}
			if ever {
				rejected++
			}
			if w.rejected() {
				t.Fatalf("side %v: rejected a null that is exactly true, at the end of %v", s, ds)
			}
		})
		for i, sum := range means {
			if mean := sum / float64(orders); mean > 1+1e-9 {
				t.Errorf("side %v: expected capital %v after %d", s, mean, i+1)
			}
		}
		if share := float64(rejected) / float64(orders); share > o.Alpha {
			t.Errorf("side %v: rejected in %v of the orders", s, share)
		}
		if orders != 2520 {
			t.Errorf("%d orders", orders)
		}
	}
}

func TestMixtureDependsOnCountsOnly(t *testing.T) {
	ds := []float64{1, 0, -1, -1, 0, 0, 1, 1, 0, .5, -.25}
	product := func(null float64, s side) float64 {
		var sum float64
		for _, l := range grid() {
			l = capBet(l, null, s)
			k := 1.0
			for _, d := range ds {
				k *= 1 + float64(s)*l*(d-null)
			}
			sum += k
		}
		return sum / gridSize
	}
	for _, null := range []float64{-.5, -.01, 0, .01, .9} {
		for _, s := range []side{up, down} {
			p := newMixture(null, s, Options{Alpha: .05})
			rng := rand.New(rand.NewPCG(1, 1))
			for _, i := range rng.Perm(len(ds)) {
				p.observe(ds[i])
			}
			if want := product(null, s); math.Abs(p.value()-want) > 1e-9*want {
				t.Errorf("null %v, side %v: %v, want %v", null, s, p.value(), want)
			}
		}
	}
	if got := MixtureE(0, 0, 0, -.01, false); math.Abs(got-1) > 1e-12 {
		t.Errorf("evidence of nothing is %v", got)
	}
	if a, b := MixtureE(30, 900, 10, .01, false), MixtureE(10, 900, 30, -.01, true); math.Abs(a-b) > 1e-9*a {
		t.Errorf("not symmetric: %v and %v", a, b)
	}
}

// TestIntervalIsWhatIsNotRejected compares bisection with every null of a grid,
// which also shows that evidence is monotone in the null.
func TestIntervalIsWhatIsNotRejected(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, m := range []Sequential{WithoutReplacement(), Mixture(), BettingCS(), AsymptoticCS()} {
		mon, err := m.Start(Options{Margin: .02, Total: 900})
		if err != nil {
			t.Fatal(err)
		}
		var sum float64
		for range 400 {
			d := float64(rng.IntN(3)-1) * float64(rng.IntN(2))
			if rng.IntN(10) == 0 {
				d /= 4
			}
			sum += d
			if err := mon.Observe(d); err != nil {
				t.Fatal(err)
			}
		}
		lo, hi := mon.Interval()
		if !(lo < sum/400 && sum/400 < hi) {
			t.Errorf("%s: mean %v outside [%v, %v]", m.Name(), sum/400, lo, hi)
		}
		for null := -1.0; null <= 1; null += 1. / 128 {
			if got := mon.rejects(null, up); got != (null <= lo) {
				t.Errorf("%s: null %v rejected %v, but the interval is [%v, %v]", m.Name(), null, got, lo, hi)
			}
			if got := mon.rejects(null, down); got != (null >= hi) {
				t.Errorf("%s: null %v rejected from above %v, but the interval is [%v, %v]", m.Name(), null, got, lo, hi)
			}
		}
	}
}

// naive is a z test looked at again and again: what the sequential methods are
// there to replace.
type naive struct{ asymptotic }

func (n *naive) rejected() bool {
	mean := n.sum / n.n
	sd := math.Sqrt(max(n.sq/n.n-mean*mean, 0))
	return n.n >= 50 && sd > 0 && float64(n.side)*(mean-n.null) > 1.645*sd/math.Sqrt(n.n)
}

// TestFalsePasses plays comparisons whose true difference is the margin exactly
// and looks after every pair. At most alpha of them may pass; the bound is
// exceeded by chance once in a million. The same games show that a peeked z test
// breaks it, so that the test can fail.
func TestFalsePasses(t *testing.T) {
	const runs = 150
	bound := 0 // smallest count that Binomial(runs, 0.05) exceeds with probability below 1e-6
	for tail := 1.0; tail > 1e-6; bound++ {
		ln := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
		tail -= math.Exp(ln(runs) - ln(bound) - ln(runs-bound) + float64(bound)*math.Log(.05) + float64(runs-bound)*math.Log(.95))
	}
	trial := Trial{Options: Options{Margin: .04, Total: 1000, Alpha: .05}, Diff: -.04, Differ: .1, Runs: runs, Seed: 1}
	for _, m := range []Sequential{WithoutReplacement(), Mixture(), BettingCS()} {
		for _, oneSided := range []bool{false, true} {
			trial := trial
			trial.Method, trial.Options.OneSided = m, oneSided
			trial.Infinite = m.Name() != "wor_e"
			tally, err := trial.Run()
			if err != nil {
				t.Fatal(err)
			}
			if passed := runs - tally.Verdicts[Undecided] - tally.Verdicts[Worse]; passed > bound {
				t.Errorf("%s: %d of %d false passes, bound %d", m.Name(), passed, runs, bound)
			}
			if tally.Verdicts[Worse] > bound {
				t.Errorf("%s: %d of %d false verdicts of worse, bound %d", m.Name(), tally.Verdicts[Worse], runs, bound)
			}
		}
	}
	trial.Infinite, trial.Options.OneSided = true, true
	trial.Method = &sequential{method{name: "naive"}, func(null float64, s side, o Options) process {
		return &naive{*newAsymptotic(null, s, o).(*asymptotic)}
	}}
	tally, err := trial.Run()
	if err != nil {
		t.Fatal(err)
	}
	if tally.Verdicts[NotWorse] <= bound {
		t.Errorf("peeking passes only %d of %d: the games do not tell methods apart", tally.Verdicts[NotWorse], runs)
	}
}

func TestQuestionsSaved(t *testing.T) {
	trial := Trial{Method: WithoutReplacement(), Options: Options{Margin: .02, Total: 12032, Look: 16}, Differ: .06, Runs: 40, Seed: 2}
	tally, err := trial.Run()
	if err != nil {
		t.Fatal(err)
	}
	if tally.Verdicts[Equivalent] != trial.Runs || tally.Saved < .8 {
		t.Errorf("an unchanged model: %+v", tally)
	}
	again, _ := trial.Run()
	if again.MeanUsed != tally.MeanUsed {
		t.Error("the same seed gives another result")
	}
}

// BenchmarkLook is one pair and one look at the largest benchmark and at a
// million questions: the cost does not depend on how many came before.
func BenchmarkLook(b *testing.B) {
	for _, m := range []Sequential{WithoutReplacement(), Mixture(), BettingCS(), AsymptoticCS()} {
		for _, n := range []int{100, 10_000, 1_000_000} {
			b.Run(m.Name()+"/"+map[int]string{100: "1e2", 10_000: "1e4", 1_000_000: "1e6"}[n], func(b *testing.B) {
				mon, err := m.Start(Options{Margin: .01, Total: 1 << 40, Look: 1 << 40})
				if err != nil {
					b.Fatal(err)
				}
				ds := []float64{1, 0, 0, -1, 0, 0, 0, 0}
				for i := range n {
					_ = mon.Observe(ds[i%8])
				}
				mon.o.Look = 1
				i := 0
				for b.Loop() {
					i++
					if i%4096 == 0 { // keep the number of pairs near n
						mon.diffs = mon.diffs[:n]
					}
					_ = mon.Observe(ds[i%8])
				}
			})
		}
	}
}

func TestNoPairsAreNoEvidence(t *testing.T) {
	if got := McNemarEValue(0, 0); math.Abs(got-1) > 1e-9 {
		t.Errorf("evidence of no pairs is %v", got)
	}
}
