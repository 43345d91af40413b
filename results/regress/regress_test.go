package regress_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/results/regress"
)

var start = time.Date(2026, 1, 1, 2, 0, 0, 0, time.UTC)

func slot(i int) time.Time { return start.AddDate(0, 0, i) }

// world makes nights of a speed: 5 repetitions of the candidate and 3 of the
// canary, a drift of 1 % from night to night that both share, and noise on every
// repetition.
type world struct {
	noise, drift float64
	change       func(night int) float64 // factor on the candidate
}

func (w world) series(seed uint64, nights int) regress.Series {
	r := rand.New(rand.NewPCG(seed, 1))
	s := regress.Series{Key: regress.Key{Suite: "load", Metric: "output_tok_per_s", Model: fmt.Sprint("m", seed)}}
	for i := range nights {
		shared := math.Exp(w.drift * r.NormFloat64())
		n := regress.Night{Slot: slot(i), Run: fmt.Sprint("r", i), Segment: "a"}
		for range 5 {
			n.Candidate = append(n.Candidate, 1000*w.change(i)*shared*math.Exp(w.noise*r.NormFloat64()))
		}
		for range 3 {
			n.Canary = append(n.Canary, 800*shared*math.Exp(w.noise*r.NormFloat64()))
		}
		s.Nights = append(s.Nights, n)
	}
	return s
}

func steady(int) float64 { return 1 }

// slower returns a candidate that is slower by d from a night on.
func slower(d float64, from int) func(int) float64 {
	return func(i int) float64 {
		if i >= from {
			return 1 - d
		}
		return 1
	}
}

func evaluate(t testing.TB, s ...regress.Series) [][]regress.Verdict {
	t.Helper()
	out, err := regress.Evaluate(s, regress.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMatrix prints how soon slowdowns are found, how well they are dated and how
// often nothing raises an alarm, and holds the last to under 1 in 1,000
// series-nights.
func TestMatrix(t *testing.T) {
	const seeds, nights, from = 200, 90, 45
	t.Logf("%d seeds, %d nights, change in night %d, 5 repetitions and 3 of the canary a night, 1 %% shared drift", seeds, nights, from)
	t.Logf("slower  noise  found   nights to alarm p50/p90   dated within 1   dating error p90   before the change")
	for _, noise := range []float64{.01, .03, .05} {
		for _, d := range []float64{.02, .03, .05, .10} {
			var delays, errs []float64
			early, exact := 0, 0
			for seed := range uint64(seeds) {
				for _, v := range evaluate(t, world{noise, .01, slower(d, from)}.series(seed, nights))[0] {
					if !v.Alarm {
						continue
					}
					night := int(v.Slot.Sub(start).Hours() / 24)
					if night < from {
						early++
						continue
					}
					delays = append(delays, float64(night-from+1))
					if v.Slot.Sub(v.Since) < 24*time.Hour {
						t.Errorf("an alarm after one night: %+v", v)
					}
					e := math.Abs(v.Since.Sub(slot(from)).Hours() / 24)
					errs = append(errs, e)
					if e <= 1 {
						exact++
					}
					break
				}
			}
			t.Logf("%4.0f %%  %4.0f %%  %3.0f %%   %8.0f / %.0f   %18.0f %%   %10.0f   %16d of %d nights", 100*d, 100*noise, 100*float64(len(delays))/seeds,
				quantile(delays, .5), quantile(delays, .9), 100*float64(exact)/float64(max(1, len(delays))), quantile(errs, .9), early, seeds*from)
			if float64(early) > .001*seeds*from {
				t.Errorf("%d false alarms in %d series-nights", early, seeds*from)
			}
			if d >= .05 && noise <= .03 && len(delays) < seeds*95/100 {
				t.Errorf("a slowdown of %v at a noise of %v is found in %d of %d", d, noise, len(delays), seeds)
			}
		}
	}
}

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := append([]float64(nil), v...)
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[int(q*float64(len(s)-1)+.5)]
}

// TestNothingChanges counts alarms where there is nothing to alarm, over many
// series together and one by one.
func TestNothingChanges(t *testing.T) {
	const nights, many = 120, 100
	for _, noise := range []float64{.01, .05} {
		var all []regress.Series
		for i := range many {
			all = append(all, world{noise, .01, steady}.series(uint64(1000+i), nights))
		}
		alone, together, better := 0, 0, 0
		for i, vs := range evaluate(t, all...) {
			for _, v := range vs {
				if v.Alarm {
					together++
				}
			}
			for _, v := range evaluate(t, all[i])[0] {
				if v.Alarm {
					alone++
				}
				if v.Status == regress.Improvement {
					better++
				}
			}
		}
		t.Logf("noise %v: %d alarms in %d series-nights together; one by one %d and %d improvements", noise, together, nights*many, alone, better)
		if worst := max(alone, together); float64(worst) > .001*nights*many {
			t.Errorf("noise %v: %d of %d", noise, worst, nights*many)
		}
	}
}

func statuses(vs []regress.Verdict) string {
	var b strings.Builder
	for _, v := range vs {
		c := map[regress.Status]string{regress.Regression: "r", regress.Suspicious: "s", regress.Improvement: "i", regress.NoChange: ".", regress.InsufficientData: "?", regress.Missing: "-"}[v.Status]
		if v.Alarm {
			c = "R"
		}
		b.WriteString(c)
	}
	return b.String()
}

// exact makes nights without drift, with small alternating noise, so that every
// status can be foreseen.
func exact(factors ...float64) regress.Series {
	s := regress.Series{Key: regress.Key{Suite: "load", Metric: "tok", Model: "m"}}
	for i, f := range factors {
		n := regress.Night{Slot: slot(i), Segment: "a", Run: fmt.Sprint("r", i)}
		if f == 0 {
			n.Missing = "the node was gone"
		} else {
			e := []float64{.998, 1.001, 1.002, .999, 1.0005, .9995}[i%6]
			n.Candidate = []float64{1000 * f * e}
		}
		s.Nights = append(s.Nights, n)
	}
	return s
}

func TestStatuses(t *testing.T) {
	one := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = 1
		}
		return v
	}
	for _, c := range []struct {
		name    string
		nights  []float64
		want    string
		segment int
	}{
		{"two nights make an alarm", append(one(10), .95, .95, .95), "?????.....sRr", 0},
		{"one bad night is none", append(one(10), .9, 1, 1, 1), "?????.....s...", 0},
		{"an improvement", append(one(10), 1.1, 1.1, 1.1), "?????.....si?", 0},
		{"a missing night stays one", append(one(8), 0, 1, .95, 0, .95), "?????...-.s-R", 0},
		{"a regression lasts until it is mended", append(one(10), .9, .9, .9, .9, .9, .9, .9, 1, 1, 1), "?????.....sRrrrrrri?", 0},
		{"below the floor", append(one(10), .985, .985, .985, .985), "?????.........", 0},
		{"a new segment is no alarm", append(one(10), .9, .9, .9, .9, .9, .9), "?????.....?????.", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := exact(c.nights...)
			for i := range s.Nights {
				if c.segment > 0 && i >= c.segment {
					s.Nights[i].Segment = "b"
				}
			}
			got := evaluate(t, s)[0]
			if statuses(got) != c.want {
				t.Errorf("got  %s\nwant %s", statuses(got), c.want)
				for _, v := range got {
					t.Logf("%s %s %s", v.Slot.Format("01-02"), v.Status, v.Reason)
				}
			}
		})
	}
}

// TestLowerIsBetter turns the sign, and only that.
func TestLowerIsBetter(t *testing.T) {
	s := exact(1, 1, 1, 1, 1, 1, 1, 1, 1.1, 1.1)
	s.LowerIsBetter = true
	got := evaluate(t, s)[0]
	last := got[len(got)-1]
	if last.Status != regress.Regression || !last.Alarm || last.Effect > -.08 || last.Effect < -.1 || !last.Since.Equal(slot(8)) {
		t.Errorf("%+v", last)
	}
}

// TestAccepted ends a regression that somebody declares normal.
func TestAccepted(t *testing.T) {
	s := exact(1, 1, 1, 1, 1, 1, 1, 1, .9, .9, .9, .9, .9, .9, .9, .9)
	s.Accepted = []time.Time{slot(11)}
	if got := statuses(evaluate(t, s)[0]); got != "?????...sRr??..." && got != "?????...sRr?...." {
		t.Errorf("got %s", got)
	}
}

func paired(diffs ...float64) regress.Series {
	s := regress.Series{Key: regress.Key{Suite: "mmlu-pro", Metric: "accuracy", Model: "m"}}
	for i, d := range diffs {
		p := 1.0
		if math.Abs(d) >= .01 {
			p = 1e-5
		}
		s.Nights = append(s.Nights, regress.Night{Slot: slot(i), Segment: "a", Paired: &regress.Paired{Items: 12032, Diff: d, Lo: d - .004, Hi: d + .004, P: p, Resolves: .006}})
	}
	return s
}

func TestAccuracy(t *testing.T) {
	for _, c := range []struct {
		name  string
		diffs []float64
		want  string
	}{
		{"nothing", []float64{0, .002, -.003, 0}, "...."},
		{"one night", []float64{0, -.02, 0, 0}, ".s.."},
		{"two nights, once an alarm, then mended", []float64{0, -.02, -.02, -.02, 0, 0}, ".sRrr."},
		{"better", []float64{0, .02, .02}, ".si"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := statuses(evaluate(t, paired(c.diffs...))[0]); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	few := paired(-.03, -.03, -.03)
	for i := range few.Nights {
		few.Nights[i].Paired.Resolves = .05
	}
	if got := statuses(evaluate(t, few)[0]); got != "???" {
		t.Errorf("with too few items: %s", got)
	}
}

// TestFalseDiscoveryControl: a p-value that would do alone does not among many.
func TestFalseDiscoveryControl(t *testing.T) {
	borderline := paired(-.02, -.02)
	for i := range borderline.Nights {
		borderline.Nights[i].Paired.P = 4e-4
	}
	if got := statuses(evaluate(t, borderline)[0]); got != "sR" {
		t.Errorf("alone: %s", got)
	}
	all := []regress.Series{borderline}
	for range 499 {
		all = append(all, paired(0, 0))
	}
	if got := statuses(evaluate(t, all...)[0]); got != "ss" {
		t.Errorf("among 500: %s", got)
	}
}

// TestDifferentHours: series that begin at different hours are not missing in each
// other's slots, and share one family of tests and one night of alarms.
func TestDifferentHours(t *testing.T) {
	early, late := exact(1, 1, 1, 1, 1, 1, 1, 1, .9, .9), exact(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	for i := range late.Nights {
		late.Nights[i].Slot = late.Nights[i].Slot.Add(90 * time.Minute)
	}
	got := evaluate(t, early, late)
	if statuses(got[0]) != "?????...sR" || statuses(got[1]) != "?????....." {
		t.Errorf("%s and %s", statuses(got[0]), statuses(got[1]))
	}
	r, err := regress.NewReport("x", []regress.Series{early, late}, regress.Policy{})
	if err != nil || r.Alarms != 1 || !r.Night.Equal(late.Nights[9].Slot) || r.Counts[regress.Missing] != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	// A borderline finding among many tests of an hour before is none.
	borderline := paired(-.02, -.02)
	for i := range borderline.Nights {
		borderline.Nights[i].Paired.P = 4e-4
	}
	all := []regress.Series{borderline}
	for range 499 {
		s := paired(0, 0)
		for i := range s.Nights {
			s.Nights[i].Slot = s.Nights[i].Slot.Add(-time.Hour)
		}
		all = append(all, s)
	}
	if got := statuses(evaluate(t, all...)[0]); got != "ss" {
		t.Errorf("among 500 of the hour before: %s", got)
	}
}

// TestYesterdayStands: verdicts of a night do not depend on later nights.
func TestYesterdayStands(t *testing.T) {
	s := world{.03, .01, slower(.05, 30)}.series(4, 60)
	whole := evaluate(t, s)[0]
	for _, n := range []int{10, 31, 33, 45} {
		part := s
		part.Nights = s.Nights[:n]
		for i, v := range evaluate(t, part)[0] {
			if v != whole[i] {
				t.Fatalf("night %d with %d nights known: %+v, with all: %+v", i, n, v, whole[i])
			}
		}
	}
}

func TestBadInput(t *testing.T) {
	for name, s := range map[string]regress.Series{
		"not positive": {Nights: []regress.Night{{Slot: slot(0), Candidate: []float64{0}}}},
		"not a number": {Nights: []regress.Night{{Slot: slot(0), Candidate: []float64{math.NaN()}}}},
		"nothing":      {Nights: []regress.Night{{Slot: slot(0)}}},
		"twice":        {Nights: []regress.Night{{Slot: slot(0), Missing: "x"}, {Slot: slot(0), Missing: "y"}}},
	} {
		if _, err := regress.Evaluate([]regress.Series{s}, regress.Policy{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := regress.Evaluate(nil, regress.Policy{FDR: 2}); err == nil {
		t.Error("an impossible policy was accepted")
	}
}

func BenchmarkEvaluate(b *testing.B) {
	var all []regress.Series
	for i := range 500 {
		all = append(all, world{.03, .01, steady}.series(uint64(i), 365))
	}
	b.ResetTimer()
	for range b.N {
		evaluate(b, all...)
	}
}
