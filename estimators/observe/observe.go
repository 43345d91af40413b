// Package observe reads what this program measured itself, as the rows of its
// results, into what estimates learn from: throughput of load cells, lengths of
// answers, and how earlier estimates fared.
package observe

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/repromill/repromill/estimators/calibrate"
	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/results/schema"
)

// Run is what of one run is read.
type Run struct {
	Run      schema.RunRow
	Servers  []schema.ServerRow
	Requests []schema.RequestRow
}

// Skipped says why a cell teaches nothing.
type Skipped struct {
	Cell string `json:"cell"` // run/suite/arm/cell
	Why  string `json:"why"`
}

// minRequests of a cell are what a mean needs; fewer are noise.
const minRequests = 8

// Rows are the throughputs of the closed-loop cells of a run. In a steady closed
// loop the requests in flight over their mean duration is the rate (Little's
// law), whatever the ramp and the drain: requests of those phases are left out.
func Rows(r Run) (rows []calibrate.Row, skipped []Skipped) {
	type key struct{ suite, arm, cell string }
	cells := map[key][]*schema.RequestRow{}
	for i := range r.Requests {
		q := &r.Requests[i]
		k := key{q.Suite, q.Arm, q.Cell}
		cells[k] = append(cells[k], q)
	}
	keys := make([]key, 0, len(cells))
	for k := range cells {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.suite, b.suite), cmp.Compare(a.arm, b.arm), cmp.Compare(a.cell, b.cell))
	})
	for _, k := range keys {
		row, why := cellRow(r, k.arm, cells[k])
		if why != "" {
			skipped = append(skipped, Skipped{strings.Join([]string{r.Run.RunID, k.suite, k.arm, k.cell}, "/"), why})
			continue
		}
		row.Source = "run " + r.Run.RunID
		rows = append(rows, row)
	}
	return rows, skipped
}

func cellRow(r Run, arm string, list []*schema.RequestRow) (row calibrate.Row, why string) {
	first := list[0]
	if first.Simulated || r.Run.Simulated {
		return row, "its numbers are simulated"
	}
	if first.Mode != "closed" || first.Concurrency.V < 1 {
		return row, "an open loop below saturation says nothing of the capacity"
	}
	if why = describe(&row, r, arm, first.ServerID); why != "" {
		return row, why
	}
	var e2e, isl, osl, ttft, tpot, n, nt float64
	for _, q := range list {
		if q.Status != "ok" || (q.Phase != "steady" && q.Phase != "") || !(q.E2ES.V > 0) || q.OSL.V < 1 {
			continue
		}
		n++
		e2e, isl, osl, ttft = e2e+q.E2ES.V, isl+float64(q.ISL.V), osl+float64(q.OSL.V), ttft+q.TTFTS.V
		if q.TPOTS.Valid {
			tpot, nt = tpot+q.TPOTS.V, nt+1
		}
	}
	if n < minRequests {
		return row, fmt.Sprintf("%.0f steady requests are fewer than %d", n, minRequests)
	}
	row.Concurrency = int(first.Concurrency.V)
	row.ISL, row.OSL = max(1, int(isl/n+0.5)), max(1, int(osl/n+0.5))
	row.Throughput = float64(row.Concurrency) * (osl / n) / (e2e / n)
	row.TTFT = ttft / n
	if nt > 0 {
		row.TPOT = tpot / nt
	}
	if math.IsInf(row.Throughput, 0) || math.IsNaN(row.Throughput) || row.Throughput > 1e9 {
		return row, "its times are absurd"
	}
	return row, ""
}

// describe fills what was served on what.
func describe(row *calibrate.Row, r Run, arm, server string) string {
	var s *schema.ServerRow
	for i := range r.Servers {
		if c := &r.Servers[i]; (server != "" && c.ServerID == server) || (server == "" && c.Arm == arm) {
			if c.Changed {
				return "the server changed while it was measured"
			}
			s = c
		}
	}
	if s == nil {
		return "no row says which server answered"
	}
	row.Model, row.SKU = s.Model, cmp.Or(s.SKU, r.Run.SKU)
	row.Family = row.Model
	row.GPUs = int(max(s.GPUs.V, s.TP.V))
	if row.GPUs == 0 {
		row.GPUs = int(r.Run.GPUs.V)
	}
	row.TP = int(s.TP.V)
	if row.TP == 0 {
		row.TP = row.GPUs
	}
	row.Framework = strings.ToLower(s.Engine)
	if s.EngineVersion != "" {
		row.Framework += "-" + s.EngineVersion
	}
	row.Precision = precision(s.Precision, s.KVDtype)
	row.Measured = s.ObservedAt.Format("2006-01")
	switch {
	case row.Model == "":
		return "the server's model is not known"
	case row.SKU == "" || row.SKU == "cpu" || row.SKU == "unknown":
		return "it did not run on a GPU of the catalogue"
	case row.GPUs < 1:
		return "the number of GPUs is not known"
	case row.Precision == "":
		return "the number format of the weights is not known"
	}
	return ""
}

// precision is a format of weights with that of the cache, "" where it is none
// that is known.
func precision(weights, kv string) string {
	p, err := serving.ParsePrecision(weights)
	if err != nil {
		return ""
	}
	if c, err := serving.ParsePrecision(kv); err == nil && kv != "" {
		p.KV = c.Weights
	}
	return p.String()
}

// Lengths are the tokens of answers by suite and model.
type Lengths struct {
	sum map[[2]string]*calibrate.LengthRow
}

// Add takes the answers of a run.
func (l *Lengths) Add(samples []schema.SampleRow) {
	if l.sum == nil {
		l.sum = map[[2]string]*calibrate.LengthRow{}
	}
	for i := range samples {
		s := &samples[i]
		if s.Simulated || !s.OutputTokens.Valid || s.OutputTokens.V < 1 || s.Model == "" || s.Outcome == "error" {
			continue
		}
		k := [2]string{s.Suite, s.Model}
		row := l.sum[k]
		if row == nil {
			row = &calibrate.LengthRow{Suite: s.Suite, Model: s.Model}
			l.sum[k] = row
		}
		row.Add(float64(s.PromptTokens.V), float64(s.OutputTokens.V))
	}
}

// Rows are in the order of suite and model.
func (l *Lengths) Rows() []calibrate.LengthRow {
	out := make([]calibrate.LengthRow, 0, len(l.sum))
	for _, r := range l.sum {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b calibrate.LengthRow) int {
		return cmp.Or(cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Model, b.Model))
	})
	return out
}

// Scores are how earlier estimates fared, by quantity and GPU.
func Scores(rows []schema.EstimateRow) []calibrate.Score {
	groups := map[string][]calibrate.Prediction{}
	for i := range rows {
		r := &rows[i]
		if r.Simulated || !r.Measured.Valid || !r.P50.Valid || !(r.P50.V > 0) || !(r.Measured.V > 0) {
			continue
		}
		p := calibrate.Prediction{Model: r.Model, SKU: r.SKU, Measured: r.Measured.V, P10: r.P10.V, P50: r.P50.V, P90: r.P90.V}
		groups[r.Quantity] = append(groups[r.Quantity], p)
		groups[r.Quantity+" on "+r.SKU] = append(groups[r.Quantity+" on "+r.SKU], p)
	}
	out := make([]calibrate.Score, 0, len(groups))
	for name, ps := range groups {
		out = append(out, calibrate.ScoreOf(name, ps))
	}
	slices.SortFunc(out, func(a, b calibrate.Score) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
