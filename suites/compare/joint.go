package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Named is the result of one suite.
type Named struct {
	Suite  string `json:"suite"`
	Result Result `json:"result"`
}

// Joint is the claim over several suites at once.
type Joint struct {
	Verdict   Verdict  `json:"verdict"`
	Failed    []string `json:"failed,omitempty"`    // suites whose verdict is worse
	Undecided []string `json:"undecided,omitempty"` // suites that do not tell
	Differing []string `json:"differing,omitempty"` // suites singled out by Holm's procedure
	Alpha     float64  `json:"alpha"`
}

// All decides the joint claim "the candidate holds on every suite". It is an
// intersection–union test: each suite is tested at the full alpha, and the joint
// claim is made only if every suite passes, so no correction is needed. Averaging
// e-values would test only that all suites are equal at once, and is not done.
//
// One suite that is worse makes the joint verdict worse; that verdict rests on a
// single suite among several, so Differing names the suites for which worse or
// better also stands after Holm's correction over all suites.
//
// Source: Berger 1982 (Technometrics 24:295); Holm 1979 (Scand. J. Stat. 6:65),
// on e-values through p = 1/e.
func All(results []Named, alpha float64) (Joint, error) {
	if len(results) == 0 {
		return Joint{}, &TermsError{"there are no suites", "give the result of at least one suite"}
	}
	j := Joint{Alpha: alpha}
	verdict := Better
	p := make([]float64, len(results))
	for i, r := range results {
		p[i] = 1
		switch r.Result.Verdict {
		case Worse:
			j.Failed = append(j.Failed, r.Suite)
		case Better:
		case NotWorse:
			verdict = NotWorse
		case Equivalent:
			if verdict == Better {
				verdict = Equivalent
			}
		case Undecided:
			j.Undecided = append(j.Undecided, r.Suite)
		default:
			return Joint{}, fmt.Errorf("join verdicts: suite %s has verdict %q", r.Suite, r.Result.Verdict)
		}
		if v := r.Result.Verdict; v == Worse || v == Better {
			p[i] = strength(r.Result)
		}
	}
	switch {
	case len(j.Failed) > 0:
		verdict = Worse
	case len(j.Undecided) > 0:
		verdict = Undecided
	}
	j.Verdict = mixed(verdict, results)
	for i, rejected := range Holm(p, alpha) {
		if rejected {
			j.Differing = append(j.Differing, results[i].Suite)
		}
	}
	return j, nil
}

// mixed weakens a joint verdict that some suites pass by being better: together
// they are only not worse.
func mixed(v Verdict, results []Named) Verdict {
	if v != Equivalent {
		return v
	}
	for _, r := range results {
		if r.Result.Verdict == Better {
			return NotWorse
		}
	}
	return v
}

// strength is the p-value of a verdict of worse or better, 1/e where the method
// gives e-values.
func strength(r Result) float64 {
	switch {
	case r.EValue != nil && *r.EValue > 0:
		return min(1 / *r.EValue, 1)
	case r.PValue != nil:
		return *r.PValue
	}
	return 1
}

// Holm reports which of several hypotheses are rejected while the chance of any
// false rejection among them stays at most alpha: the i-th smallest of k
// p-values is compared with alpha/(k-i+1), until one is larger. A NaN is never
// rejected.
//
// Source: Holm 1979 (Scand. J. Stat. 6:65).
func Holm(p []float64, alpha float64) []bool {
	one := func(v float64) float64 {
		if math.IsNaN(v) {
			return 1
		}
		return v
	}
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(one(p[a]), one(p[b])), cmp.Compare(a, b)) })
	out := make([]bool, len(p))
	for rank, i := range order {
		if !(one(p[i]) <= alpha/float64(len(p)-rank)) {
			break
		}
		out[i] = true
	}
	return out
}
