package compare

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/results/stat"
)

// neededPower is the chance of a decision that [Result.Needed] is for.
const neededPower = 0.8

// maxNeeded is a number of questions beyond which nobody asks for an answer.
const maxNeeded = 1e7

// needed returns how many questions a fixed test takes to decide with power 0.8,
// were the difference, and the share of questions on which the arms differ, what
// they were so far; 0 where no number that can be asked does, as the difference
// lies at the margin.
//
//	within the margin: [Plan.Questions]
//	beyond it:         (z_{1−α} + z_power)²·(d − δ²)/(|δ| − m)²
func (r Result) needed() int {
	if r.Used == 0 || r.Margin <= 0 {
		return 0
	}
	// Arms that never differed so far may still do so on one question of as many.
	d := max(r.Discordant(), math.Abs(r.Diff), 1/float64(r.Used))
	if r.Diff > -r.Margin && (r.OneSided || r.Diff < r.Margin) {
		n, err := Plan{Margin: r.Margin, Diff: r.Diff, Discordant: d, Alpha: r.Alpha, OneSided: r.OneSided, Power: neededPower}.Questions()
		if err != nil || n > maxNeeded {
			return 0
		}
		return n
	}
	z := stat.NormalQuantile(1-r.Alpha) + stat.NormalQuantile(neededPower)
	beyond := math.Abs(r.Diff) - r.Margin
	n := math.Ceil(z * z * (d - r.Diff*r.Diff) / (beyond * beyond))
	if !(n <= maxNeeded) { // also catches a difference of the margin itself
		return 0
	}
	return max(int(n), 1)
}

// undecided says what it would take to decide.
func (r *Result) undecided() {
	r.Needed = r.needed()
	if r.Needed == 0 {
		r.Warnings = append(r.Warnings, "the difference seen lies so near to the margin that no number of questions is likely to decide it; another margin may")
		return
	}
	if r.Needed <= r.Used { // this many were too few by chance, or the method asks for more than a fixed test does
		r.Warnings = append(r.Warnings, fmt.Sprintf("about %d questions decide a difference like this one with power %g, and this time they did not; the method takes more to stop early", r.Needed, neededPower))
		return
	}
	r.Warnings = append(r.Warnings, fmt.Sprintf("about %d questions would decide it with power %g, were the arms to go on differing as they did", r.Needed, neededPower))
}
