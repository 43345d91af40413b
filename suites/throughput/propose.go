// Package throughput is the way between a plan's throughput suite and the load
// generator: it proposes what a plan says of it, and carries out what a plan
// says. Arms are measured in interleaved rounds, each with a server that was
// started for it, on the same schedules.
package throughput

import (
	"fmt"
	"slices"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/load"
)

// Name is the suite's.
const Name = "throughput"

// Wish is what somebody wants to know, as the command line and stored requests
// have it. Zero fields are the usual ones.
type Wish struct {
	ISL           []int     `json:"isl,omitempty"` // input tokens; the i-th goes with the i-th output length
	OSL           []int     `json:"osl,omitempty"`
	Concurrencies []int     `json:"concurrencies,omitempty"`
	Rates         []float64 `json:"rates,omitempty"`
	Requests      int       `json:"requests,omitempty"`
	Rounds        int       `json:"rounds,omitempty"` // starts of each arm's server
	Floors        []float64 `json:"floors,omitempty"` // tokens per second and user
	TP            []int     `json:"tp,omitempty"`     // tensor-parallel sizes to look for the best configuration in, beside the arm's own
}

// UserError is a mistake of the user's, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// minRounds is from how many starts on a ratio is a claim about servers as they
// come up, and not about the processes that were measured.
const minRounds = 3

// defaults are the lengths that published comparisons use (1k/1k, 1k/8k, 8k/1k:
// InferenceX), of which the two that differ most in what limits them, and loads
// from one user to a full batch.
func (w *Wish) defaults() {
	if len(w.ISL) == 0 && len(w.OSL) == 0 {
		w.ISL, w.OSL = []int{1024, 8192}, []int{1024, 1024}
	}
	if len(w.Concurrencies) == 0 && len(w.Rates) == 0 {
		w.Concurrencies = []int{1, 8, 64}
	}
	if w.Rounds == 0 {
		w.Rounds = minRounds
	}
	if w.Floors == nil {
		w.Floors = []float64{30, 60}
	}
}

// Propose says what a throughput suite over the arms would measure, the first of
// which is the baseline. Nothing is read or asked.
func Propose(w Wish, arms []spec.Arm, seed int64, named bool) (spec.Suite, error) {
	w.defaults()
	s := spec.Suite{ID: Name, Name: Name, Kind: "throughput", Repeats: w.Rounds, Seed: max(1, seed), Arms: arms, Status: "auto", Selected: named,
		Load: &spec.Load{Mode: load.Closed, Rates: w.Rates, Concurrencies: w.Concurrencies, ISL: w.ISL, OSL: w.OSL, Seed: max(1, seed),
			Requests: w.Requests, Floors: w.Floors, TP: w.TP}}
	if len(w.Rates) > 0 {
		s.Load.Mode = load.Open
		if len(w.Concurrencies) > 0 {
			return s, &UserError{"a throughput suite sends in open loop or in closed loop, and not in both", "give --load-rate or --load-concurrency"}
		}
	}
	if len(arms) < 2 {
		s.Status, s.Selected = "blocked", named
		s.Reasons = []string{"there is nothing to compare with; add --baseline MODEL, or measure one server with: repromill load --server"}
		return s, nil
	}
	if !named {
		s.Reasons = []string{fmt.Sprintf("not chosen: name it with --suites %s; it starts every arm %d times", Name, w.Rounds)}
	}
	_, err := Specs(s)
	return s, err
}

// Specs are the cells of a suite.
func Specs(s spec.Suite) ([]load.Spec, error) {
	l := s.Load
	if l == nil {
		return nil, &UserError{fmt.Sprintf("suite %s says nothing of a load", s.ID), "plan again"}
	}
	if len(l.ISL) == 0 || len(l.ISL) != len(l.OSL) {
		return nil, &UserError{fmt.Sprintf("suite %s has %d input lengths and %d output lengths", s.ID, len(l.ISL), len(l.OSL)), "give as many of the one as of the other: --load-isl 1024,8192 --load-osl 1024,1024"}
	}
	var out []load.Spec
	add := func(x load.Spec, places int) {
		x.Requests = l.Count(places)
		if x.Warmup = l.Warmup; x.Warmup == 0 {
			x.Warmup = places
		}
		out = append(out, x)
	}
	for i := range l.ISL {
		base := load.Spec{Mode: l.Mode, ISL: load.Length{Mean: l.ISL[i]}, OSL: load.Length{Mean: l.OSL[i]}, Seed: uint64(l.Seed)}
		for _, c := range l.Concurrencies {
			x := base
			x.Mode, x.Concurrency = load.Closed, c
			add(x, c)
		}
		for _, r := range l.Rates {
			x := base
			x.Mode, x.Arrivals, x.Rate = load.Open, l.Arrivals, r
			add(x, max(1, int(r)))
		}
	}
	if len(out) == 0 {
		return nil, &UserError{fmt.Sprintf("suite %s names neither a concurrency nor a rate", s.ID), "plan again with --load-concurrency"}
	}
	for _, x := range out {
		if _, err := load.NewSchedule(x); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// setups are an arm in each of its configurations, its own first.
func setups(s spec.Suite, a spec.Arm) []spec.Arm {
	out := []spec.Arm{a}
	seen := []int{max(1, a.TP)}
	for _, tp := range s.Load.TP {
		if tp < 1 || slices.Contains(seen, tp) {
			continue
		}
		seen = append(seen, tp)
		b := a
		b.TP, b.GPUs = tp, 0
		out = append(out, b)
	}
	return out
}
