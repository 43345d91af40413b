package compare

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/results/stat"
)

// Plan is what a comparison is expected to meet.
type Plan struct {
	Margin     float64 // largest difference that counts as equal, a fraction
	Diff       float64 // true difference expected, candidate minus baseline
	Discordant float64 // share of questions on which the arms differ
	Alpha      float64 // error rate per side; 0 is 0.05
	Power      float64 // chance of the right verdict; 0 is 0.8
	OneSided   bool    // non-inferiority in place of equivalence
}

// WithDefaults fills in alpha and power.
func (p Plan) WithDefaults() Plan {
	if p.Alpha == 0 {
		p.Alpha = 0.05
	}
	if p.Power == 0 {
		p.Power = 0.8
	}
	return p
}

func (p Plan) check() error {
	switch {
	case !(p.Margin > 0 && p.Margin < 1):
		return &TermsError{fmt.Sprintf("margin %v is not between 0 and 1", p.Margin), "give a margin such as 0.01, which is one point"}
	case !(p.Discordant > 0 && p.Discordant <= 1):
		return &TermsError{fmt.Sprintf("a share of %v of the questions differs", p.Discordant), "give a share between 0 and 1, such as 0.06"}
	case math.Abs(p.Diff) > p.Discordant:
		return &TermsError{fmt.Sprintf("a difference of %v needs more than %v of the questions to differ", p.Diff, p.Discordant), "give a smaller difference or a larger share"}
	case !(p.Alpha > 0 && p.Alpha < 0.5) || !(p.Power > 0 && p.Power < 1):
		return &TermsError{fmt.Sprintf("alpha %v and power %v", p.Alpha, p.Power), "alpha is between 0 and 0.5, power between 0 and 1"}
	case p.Diff <= -p.Margin || (!p.OneSided && p.Diff >= p.Margin):
		return &TermsError{"the expected difference is not within the margin", "no number of questions shows a claim that is false"}
	}
	return nil
}

// At returns the power of n pairs.
//
//	SE = sqrt((d − δ²)/n)
//	non-inferiority: Φ((δ+m)/SE − z_{1−α})
//	equivalence:     Φ((δ+m)/SE − z_{1−α}) + Φ((m−δ)/SE − z_{1−α}) − 1
//
// Source: Chow, Shao, Wang, "Sample Size Calculations in Clinical Research",
// chapter 3, with the variance of a paired difference of binary scores.
func (p Plan) At(n float64) float64 {
	se := math.Sqrt((p.Discordant - p.Diff*p.Diff) / n)
	z := stat.NormalQuantile(1 - p.Alpha)
	power := stat.NormalCDF((p.Diff+p.Margin)/se - z)
	if !p.OneSided {
		power += stat.NormalCDF((p.Margin-p.Diff)/se-z) - 1
	}
	return max(power, 0)
}

// Questions returns how many pairs reach the planned power. At a true
// difference of 0 this is (z_{1−α} + z_{1−(1−power)/2})²·d/m² for equivalence
// and (z_{1−α} + z_power)²·d/m² for non-inferiority.
func (p Plan) Questions() (int, error) {
	p = p.WithDefaults()
	if err := p.check(); err != nil {
		return 0, err
	}
	lo, hi := 0.0, 1.0
	for p.At(hi) < p.Power {
		if hi *= 2; hi > 1e15 {
			return 0, &TermsError{"more questions than can be asked", "the expected difference lies too near to the margin"}
		}
	}
	for range 100 {
		mid := (lo + hi) / 2
		if p.At(mid) < p.Power {
			lo = mid
		} else {
			hi = mid
		}
	}
	return int(math.Ceil(hi - 1e-6)), nil
}

// Detect returns how many pairs show a loss of delta as different from 0, two
// sided at alpha: (z_{1−α/2} + z_power)²·(d − δ²)/δ².
func Detect(delta, discordant, alpha, power float64) int {
	z := stat.NormalQuantile(1-alpha/2) + stat.NormalQuantile(power)
	return int(math.Ceil(z * z * (discordant - delta*delta) / (delta * delta)))
}

// RepeatError returns the standard error of the difference on a fixed set of n
// questions with k repeats per arm, where w is the mean variance p(1−p) of one
// answer around its question's own rate: sqrt(2w/(nk)).
//
// Source: Miller, arXiv 2411.00640, with the questions fixed.
func RepeatError(n, k int, w float64) float64 { return math.Sqrt(2 * w / (float64(n) * float64(k))) }

// Repeats returns how many repeats per question make n questions show
// non-inferiority at a true difference of 0: (z_{1−α} + z_power)²·2w/(n·m²).
func Repeats(n int, w, margin, alpha, power float64) int {
	z := stat.NormalQuantile(1-alpha) + stat.NormalQuantile(power)
	return max(int(math.Ceil(z*z*2*w/(float64(n)*margin*margin))), 1)
}

// Resolves returns the smallest true difference that pairs with standard error
// se show at alpha per side with the given power: (z_{1−α} + z_power)·se. It is
// in the units of the difference, not of the discordant pairs.
func Resolves(se, alpha, power float64) float64 {
	return (stat.NormalQuantile(1-alpha) + stat.NormalQuantile(power)) * se
}

// Within estimates the mean variance of one answer around its question's own
// rate from repeats: the mean over questions of the sample variance. It returns
// how many questions had two repeats or more; with none the estimate is 0.
func Within(scores [][]float64) (w float64, questions int) {
	for _, s := range scores {
		if len(s) < 2 {
			continue
		}
		var mean, squares float64
		for _, v := range s {
			mean += v / float64(len(s))
		}
		for _, v := range s {
			squares += (v - mean) * (v - mean)
		}
		w += squares / float64(len(s)-1)
		questions++
	}
	if questions == 0 {
		return 0, 0
	}
	return w / float64(questions), questions
}
