package verdict

import (
	"fmt"
	"math"
	"strings"
)

// Overall is the verdict on the whole run. Claims that could not be checked or
// were not attempted do not count when others were:
//
//   - aligned: every claim that was attempted is aligned;
//   - partially_aligned: at least one is aligned or partially aligned;
//   - inconclusive: some were attempted, none of them aligned even in part;
//   - not_attempted: none was attempted, though some could be checked;
//   - not_checkable: there is nothing to check.
func Overall(rows []Row) (Verdict, string) {
	n := map[Verdict]int{}
	for _, r := range rows {
		n[r.Verdict]++
	}
	attempted := n[Aligned] + n[PartiallyAligned] + n[Inconclusive]
	var v Verdict
	switch {
	case attempted > 0 && n[Aligned] == attempted:
		v = Aligned
	case n[Aligned]+n[PartiallyAligned] > 0:
		v = PartiallyAligned
	case attempted > 0:
		v = Inconclusive
	case n[NotAttempted] > 0:
		v = NotAttempted
	default:
		return NotCheckable, "no claim with a number that a run can give"
	}
	var parts []string
	for _, k := range []Verdict{Aligned, PartiallyAligned, Inconclusive, NotAttempted, NotCheckable} {
		if n[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[k], strings.ReplaceAll(string(k), "_", " ")))
		}
	}
	claims := "claims"
	if len(rows) == 1 {
		claims = "claim"
	}
	return v, fmt.Sprintf("of %d %s: %s", len(rows), claims, strings.Join(parts, ", "))
}

// summary is a sample of seeds. With one seed lo and hi are its value.
type summary struct {
	n            int
	mean, lo, hi float64
}

func summarise(values []Value) summary {
	s := summary{n: len(values)}
	for _, v := range values {
		s.mean += v.Value / float64(s.n)
	}
	s.lo, s.hi = s.mean, s.mean
	if s.n < 2 {
		return s
	}
	var ss float64
	for _, v := range values {
		ss += (v.Value - s.mean) * (v.Value - s.mean)
	}
	half := studentT975(s.n-1) * math.Sqrt(ss/float64(s.n-1)/float64(s.n))
	s.lo, s.hi = s.mean-half, s.mean+half
	return s
}

// t975 holds the 97.5 % quantiles of Student's t for 1 to 30 degrees of
// freedom (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2).
var t975 = [30]float64{
	12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
	2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
	2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
}

// studentT975 continues the table by the expansion of Abramowitz and Stegun
// 26.7.5, exact to five digits beyond 30 degrees of freedom.
func studentT975(df int) float64 {
	if df <= len(t975) {
		return t975[df-1]
	}
	const z = 1.959963984540054
	n := float64(df)
	z3, z5, z7 := math.Pow(z, 3), math.Pow(z, 5), math.Pow(z, 7)
	return z + (z3+z)/(4*n) + (5*z5+16*z3+3*z)/(96*n*n) + (3*z7+19*z5+17*z3-15*z)/(384*n*n*n)
}
