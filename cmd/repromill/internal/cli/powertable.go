package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/repromill/repromill/suites/compare"
)

// tableRow is one sequential method at one margin: how often it passes what must
// not pass, and what it saves on what should.
type tableRow struct {
	Margin     float64       `json:"margin"`
	Discordant float64       `json:"discordant"`
	Method     string        `json:"method"`
	AtMargin   compare.Tally `json:"at_margin"` // the candidate is worse by exactly the margin
	Same       compare.Tally `json:"same"`      // the candidate is as good as the baseline
}

// powerTable plays comparisons through the code that decides real ones, at margins
// of one and two points.
func (a *app) powerTable(f *powerFlags) error {
	plan, err := f.plan()
	if err != nil {
		return err
	}
	runs, total := f.runs, f.total
	if runs == 0 {
		runs = 10_000
	}
	if total == 0 {
		total = 12032
	}
	if runs < 1 || total < 1 {
		return usererrf("give positive numbers", "--simulate %d --total %d", runs, total)
	}
	var rows []tableRow
	for _, margin := range []float64{0.01, 0.02} {
		var games [2][]game
		for i, diff := range []float64{-margin, 0} {
			p, g := plan, *f
			p.Margin, p.Diff, g.runs = margin, diff, runs
			if games[i], err = g.simulate(p, total); err != nil {
				return err
			}
		}
		for i, g := range games[0] {
			rows = append(rows, tableRow{margin, plan.Discordant, g.Method, g.Tally, games[1][i].Tally})
		}
	}
	if a.jsonOut {
		return a.printJSON(rows)
	}
	fmt.Fprintf(a.stdout, "%s questions, %.1f %% of them differ, %d runs, a look every %d questions, alpha %v per side\n", grouped(total), 100*plan.Discordant, runs, f.look, plan.Alpha)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MARGIN\tMETHOD\tWORSE BY THE MARGIN: PASSES %\t±\tSAME: PASSES %\tQUESTIONS\tSAVED %")
	for _, r := range rows {
		fmt.Fprintf(w, "%.0f pt\t%s\t%.2f\t%.2f\t%.1f\t%.0f\t%.1f\n", 100*r.Margin, r.Method, 100*r.AtMargin.Passed, 100*r.AtMargin.PassedErr, 100*r.Same.Passed, r.Same.MeanUsed, 100*r.Same.Saved)
	}
	return w.Flush()
}
