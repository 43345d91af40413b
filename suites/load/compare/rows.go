package compare

import (
	"fmt"
	"strings"
	"time"

	"github.com/repromill/repromill/results/schema"
)

// Rows are ratios as rows of the comparisons table; what carries no claim is
// undecided there.
func Rows(all []Comparison, common schema.Common, suite string, at time.Time) (out []schema.ComparisonRow) {
	for _, c := range all {
		if c.Ratio == 0 {
			continue
		}
		task := c.Base.Cell
		if c.Question == BestAtFloor {
			task = fmt.Sprintf("%s at %g tokens/s/user: %s, %s", c.Question, c.Floor, c.Base.Cell, c.Cand.Cell)
		}
		row := schema.ComparisonRow{Common: common, Suite: suite, Task: task, Metric: c.Metric, Unit: c.Unit, Arm: c.Cand.Arm, Baseline: c.Base.Arm, Method: methodName(c), Final: true, Paired: true,
			N: schema.Some(int64(c.Cand.Starts)), Value: schema.Some(c.Cand.Value), BaselineValue: schema.Some(c.Base.Value), Diff: schema.Some(c.Cand.Value - c.Base.Value),
			Ratio: schema.Some(c.Ratio), Verdict: string(c.Verdict), Reason: c.Reason, Assumptions: strings.Join(c.Warnings, "; "), ComputedAt: at}
		if c.Verdict == Refused {
			row.Verdict, row.Reason = string(Undecided), "refused: "+c.Reason
		}
		if c.Interval != nil && c.Over == OverStarts {
			row.CILo, row.CIHi, row.CILevel = schema.Some(c.Interval.Lo), schema.Some(c.Interval.Hi), schema.Some(c.Interval.Level)
		}
		out = append(out, row)
	}
	return out
}

func methodName(c Comparison) string {
	if c.Method == "" {
		return "ratio"
	}
	return c.Method + "_log_ratio"
}
