package runner

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/harness"
)

// curvePoints is how many looks of a comparison a report shows.
const curvePoints = 24

// curves is how each comparison of the run's suites stood after some of its
// questions, by suite and candidate. Intervals are of sequential methods, whose
// own hold at all looks at once.
func (rec *Record) curves(ctx context.Context) (map[string][]report.Look, error) {
	out := map[string][]report.Look{}
	for _, o := range rec.Outcome.Suites {
		if o.Result == nil || len(o.Result.Comparisons) == 0 || rec.suite(o.Suite).Compare == nil {
			continue
		}
		sums := map[string]map[int][2]float64{} // score and answers by arm and question
		err := rec.answers(ctx, o, func(a harness.Answer) error {
			if a.Grade.Outcome == suites.Error {
				return nil
			}
			if sums[a.Arm] == nil {
				sums[a.Arm] = map[int][2]float64{}
			}
			s := sums[a.Arm][a.Position]
			sums[a.Arm][a.Position] = [2]float64{s[0] + a.Grade.Score, s[1] + 1}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("answers of suite %s: %w", o.Suite, err)
		}
		for _, c := range o.Result.Comparisons {
			var diffs []float64
			base, cand := sums[c.Baseline], sums[c.Candidate]
			for _, pos := range slices.Sorted(maps.Keys(base)) {
				if b, x := base[pos], cand[pos]; x[1] > 0 && len(diffs) < c.Result.Used {
					diffs = append(diffs, x[0]/x[1]-b[0]/b[1])
				}
			}
			if out[o.Suite+"\x00"+c.Candidate], err = curve(diffs, c.Result, rec.suite(o.Suite).Compare.Look); err != nil {
				return nil, fmt.Errorf("looks of suite %s: %w", o.Suite, err)
			}
		}
	}
	return out, nil
}

// curve goes through the differences again.
func curve(diffs []float64, r compare.Result, look int) ([]report.Look, error) {
	var m *compare.Monitor
	method, err := compare.Find(r.Method)
	if err != nil {
		return nil, err
	}
	if s, ok := method.(compare.Sequential); ok {
		if m, err = s.Start(compare.Options{Margin: r.Margin, Alpha: r.Alpha, Total: max(r.Total, len(diffs)), Look: max(look, 1), OneSided: r.OneSided}); err != nil {
			return nil, err
		}
	}
	var out []report.Look
	sum, next := 0.0, 1
	for i, d := range diffs {
		if m != nil {
			if err := m.Observe(d); err != nil {
				return nil, err
			}
		}
		sum += d
		if n := i + 1; n >= next || n == len(diffs) {
			p := report.Look{N: n, Diff: sum / float64(n)}
			if m != nil {
				lo, hi := m.Interval()
				p.Lo, p.Hi = &lo, &hi
			}
			out = append(out, p)
			next = n + max(1, len(diffs)/curvePoints)
		}
	}
	return out, nil
}
