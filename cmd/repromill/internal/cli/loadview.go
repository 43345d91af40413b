package cli

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/measure"
)

// liveLine is a cell as it runs: rates, latencies with their course, and how
// late requests were sent.
func liveLine(l bench.Live) string {
	s := fmt.Sprintf("%.1f/s %.0f tok/s  TTFT %s %s  ITL %s %s  late %s", l.Rate, l.TokensPerS,
		millis(l.TTFT50), sparkline(last(l.TTFT, 10)), millis(l.ITL50), sparkline(last(l.ITL, 10)), millis(l.Lag99))
	if l.Bad > 0 {
		s += fmt.Sprintf("  %d bad", l.Bad)
	}
	return s
}

func last(x []float64, n int) []float64 { return x[max(0, len(x)-n):] }

func sparkline(x []float64) string {
	const bars = "▁▂▃▄▅▆▇█"
	top := 0.0
	for _, v := range x {
		top = max(top, v)
	}
	var b strings.Builder
	for _, v := range x {
		i := 0
		if top > 0 {
			i = int(v / top * 7)
		}
		b.WriteString(string([]rune(bars)[min(max(i, 0), 7)]))
	}
	return b.String()
}

func millis(s float64) string {
	switch {
	case math.IsNaN(s):
		return "–"
	case s >= 10:
		return fmt.Sprintf("%.1f s", s)
	case s >= 0.1:
		return fmt.Sprintf("%.0f ms", 1e3*s)
	}
	return fmt.Sprintf("%.1f ms", 1e3*s)
}

const cellFormat = "%-32s %8s %10s %16s %16s %9s %9s %6s  %s\n"

func (a *app) printLoadHead(out *loadReport) {
	what := "measured"
	if out.Simulated {
		what = "simulated: the server has no model"
	}
	fmt.Fprintf(a.stdout, "%s on %s (%s)\n", clean(out.Model), clean(strings.Join(out.Servers, ", ")), what)
	if out.Facts != nil {
		a.printFacts(*out.Facts)
	}
	for _, w := range out.Warnings {
		fmt.Fprintf(a.stdout, "warning: %s\n", clean(w))
	}
	fmt.Fprintln(a.stdout, "\nTTFT counts from the intended moment; p50 / p99 where the sample supports it; rates are those of the steady window")
	fmt.Fprintf(a.stdout, cellFormat, "CELL", "REQ/S", "OUT TOK/S", "TTFT", "E2E", "TPOT", "ITL p99", "OK", "")
}

func (a *app) printCellRow(c *bench.Cell) {
	p, mark := &c.Summary.Whole, "whole run"
	if c.Summary.Steady != nil {
		p, mark = c.Summary.Steady, ""
	}
	if c.Void {
		mark = "VOID"
	}
	two := func(d measure.Dist) string { return pair(d.P(50), d.P(99)) }
	fmt.Fprintf(a.stdout, cellFormat, c.Name, fmt.Sprintf("%.2f", p.RequestRate.Value), fmt.Sprintf("%.1f", p.OutputRate.Value), two(p.TTFTIntended), two(p.E2EIntended),
		millis(p.TPOT.P(50)), millis(p.ITL.P(99)), fmt.Sprintf("%d/%d", c.Summary.Statuses[load.OK], c.Summary.Sent), mark)
	for _, f := range c.Flags {
		sign := "note"
		if f.Void {
			sign = "void"
		}
		fmt.Fprintf(a.stdout, "  %s: %s: %s\n", sign, f.Code, clean(f.Message))
	}
}

func pair(a, b float64) string { return millis(a) + " / " + millis(b) }

// printLoadFoot says what the table cannot.
func (a *app) printLoadFoot(out *loadReport, f *loadFlags) {
	fmt.Fprintln(a.stdout)
	for _, c := range out.Cells {
		for _, q := range c.Summary.Whole.TTFTIntended.Quantiles {
			if !q.Supported {
				fmt.Fprintf(a.stdout, "%s: p%g takes %d requests, %d ended well\n", c.Name, q.P, q.Needs, c.Summary.Statuses[load.OK])
			}
		}
		if ch := c.Check; ch != nil {
			fmt.Fprintf(a.stdout, "%s: self-check at %.0f events/s: read late by %s (p99), sent late by %s (p99)\n", c.Name, ch.EventsPerS, millis(ch.LagP99), millis(ch.SendP99))
		}
		if f.slo != "" {
			fmt.Fprintf(a.stdout, "%s: %.1f %% of the requests kept the SLO, goodput %.2f/s\n", c.Name, 100*c.Summary.Whole.SLOFraction, c.Summary.Whole.Goodput.Value)
		}
		for _, name := range []string{load.Short, load.Long, load.Shared} {
			if p, ok := c.Pool[name]; ok {
				fmt.Fprintf(a.stdout, "%s: %s pool: %d requests, TTFT %s\n", c.Name, name, p.Requests, pair(p.TTFT.P(50), p.TTFT.P(99)))
			}
		}
		if c.GPUSeconds != nil && c.Summary.Sent > 0 {
			fmt.Fprintf(a.stdout, "%s: %.3f GPU s a request by the servers' own counters, %.0f preemptions\n", c.Name, *c.GPUSeconds/float64(c.Summary.Sent), orZero(c.Preempted))
		}
	}
	if out.Goodput != nil {
		if *out.Goodput > 0 {
			fmt.Fprintf(a.stdout, "highest rate at which %.0f %% of the requests keep the SLO: %.3g/s\n", 100*f.share, *out.Goodput)
		} else {
			fmt.Fprintln(a.stdout, "no rate that was tried keeps the SLO")
		}
	}
	if out.RunID != "" {
		fmt.Fprintf(a.stdout, "saved as run %s in %s\n", out.RunID, out.Dataset)
	}
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// saveLoad commits the cells as one run.
func (a *app) saveLoad(ctx context.Context, b *bench.Bench, out *loadReport, f *loadFlags, began time.Time) error {
	d, err := a.dataset()
	if err != nil {
		return err
	}
	id := ulid.Make().String()
	tx := d.Begin(id, began)
	place := bench.Place{Common: schema.Common{RunID: id}, Suite: "load", Arm: b.Model()}
	common := place.Common
	common.Kind, common.Simulated, common.SchemaVersion = schema.Measured, b.Simulated(), schema.Version
	end := a.now()
	err = dataset.Add(tx, schema.RunRow{Common: common, Status: "succeeded", CreatedAt: began, StartedAt: began, FinishedAt: end,
		TargetInput: strings.Join(out.Endpoints, " "), Title: out.Model, Seeds: fmt.Sprint(f.seed), WallS: schema.Some(end.Sub(began).Seconds())})
	seen := map[string]int{}
	for _, c := range out.Cells {
		place.Repeat = seen[c.Name]
		seen[c.Name]++
		reqs, metrics := b.Rows(c, place)
		if err == nil {
			err = dataset.Add(tx, reqs...)
		}
		if err == nil {
			err = dataset.Add(tx, metrics...)
		}
	}
	if err == nil {
		err = dataset.Add(tx, withFacts(b.ServerRows(out.Cells, place), out.Facts)...)
	}
	if err == nil {
		_, err = tx.Commit(ctx)
	} else {
		_ = tx.Abort()
	}
	if err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	out.RunID, out.Dataset = id, d.Root()
	return nil
}
