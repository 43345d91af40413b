package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
)

// Trial is a simulated comparison of which the truth is known.
type Trial struct {
	Method   Sequential
	Options  Options // Total questions, margin, look, one-sided
	Diff     float64 // true difference
	Differ   float64 // share of questions on which the arms differ
	Runs     int
	Seed     uint64
	Infinite bool // draw questions independently, in place of permuting a fixed benchmark with exactly this truth
}

// Tally is what came of the runs.
type Tally struct {
	Runs      int             `json:"runs"`
	Verdicts  map[Verdict]int `json:"verdicts"`
	MeanUsed  float64         `json:"questions_used_mean"`
	Saved     float64         `json:"saved"` // share of the benchmark's questions
	Passed    float64         `json:"passed"`
	PassedErr float64         `json:"passed_stderr"`
}

// Run goes through the same code as a real comparison, a look after every
// Options.Look pairs, and counts verdicts. Results depend on the seed alone.
func (t Trial) Run() (Tally, error) {
	o := t.Options.withDefaults(0)
	if err := (Plan{Margin: o.Margin, Discordant: t.Differ, Alpha: o.Alpha, Power: 0.5, OneSided: true}).check(); err != nil {
		return Tally{}, err
	}
	if math.Abs(t.Diff) > t.Differ || t.Runs < 1 {
		return Tally{}, &TermsError{fmt.Sprintf("%d runs at a difference of %v", t.Runs, t.Diff), "give at least one run, and a difference no larger than the share of questions that differ"}
	}
	if _, err := t.Method.Start(o); err != nil {
		return Tally{}, err
	}
	workers := runtime.GOMAXPROCS(0)
	type outcome struct {
		v    Verdict
		used int
	}
	all := make([]outcome, t.Runs)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for run := w; run < t.Runs; run += workers {
				v, used := t.one(o, uint64(run))
				all[run] = outcome{v, used}
			}
		})
	}
	wg.Wait()
	tally := Tally{Runs: t.Runs, Verdicts: map[Verdict]int{}}
	passed := 0
	for _, r := range all {
		tally.Verdicts[r.v]++
		tally.MeanUsed += float64(r.used) / float64(t.Runs)
		if r.v.Passed() {
			passed++
		}
	}
	tally.Passed = float64(passed) / float64(t.Runs)
	tally.Saved = 1 - tally.MeanUsed/float64(o.Total)
	tally.PassedErr = math.Sqrt(tally.Passed * (1 - tally.Passed) / float64(t.Runs))
	return tally, nil
}

// one plays one comparison to its decision.
func (t Trial) one(o Options, run uint64) (Verdict, int) {
	rng := rand.New(rand.NewPCG(t.Seed, run))
	m, err := t.Method.Start(o)
	if err != nil {
		panic(err) // Run has started one with the same terms
	}
	n := float64(o.Total)
	plus, minus := n*(t.Differ+t.Diff)/2, n*(t.Differ-t.Diff)/2
	if !t.Infinite {
		// The benchmark's mean is the stated difference up to rounding to whole
		// questions, which never favours the candidate.
		plus, minus = math.Floor(plus+exactness), math.Ceil(minus-exactness)
	}
	left := n
	for m.Used() < o.Total && m.Verdict() == Undecided {
		d := 0.0
		switch u := rng.Float64() * left; {
		case u < plus:
			d = 1
		case u < plus+minus:
			d = -1
		}
		if !t.Infinite {
			left--
			switch d {
			case 1:
				plus--
			case -1:
				minus--
			}
		}
		if err := m.Observe(d); err != nil {
			panic(err) // d is -1, 0 or 1, and no more than Total are drawn
		}
	}
	return m.Verdict(), m.Used()
}
