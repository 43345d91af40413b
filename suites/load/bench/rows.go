package bench

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/measure"
)

// Place says where a cell belongs in the results.
type Place struct {
	Common schema.Common // Kind and Simulated are set by Rows
	Suite  string
	Arm    string
	Repeat int
}

// Rows are a cell's rows of the tables requests and metrics.
func (b *Bench) Rows(c *Cell, p Place) ([]schema.RequestRow, []schema.MetricRow) {
	p.Common.Kind, p.Common.Simulated, p.Common.SchemaVersion = schema.Measured, b.Simulated(), schema.Version
	requests := make([]schema.RequestRow, len(c.Result.Records))
	for i, r := range c.Result.Records {
		requests[i] = b.requestRow(c, r, p)
	}
	return requests, b.metricRows(c, p)
}

func (b *Bench) requestRow(c *Cell, r *load.Record, p Place) schema.RequestRow {
	q := measure.Derive(r, b.cfg.SLO)
	s := func(ns int64) schema.Opt[float64] {
		if ns < 0 {
			return schema.Opt[float64]{}
		}
		return schema.Some(float64(ns) / 1e9)
	}
	n := func(v int) schema.Opt[int64] {
		if v < 0 {
			return schema.Opt[int64]{}
		}
		return schema.Some(int64(v))
	}
	f := func(v float64) schema.Opt[float64] {
		if v != v {
			return schema.Opt[float64]{}
		}
		return schema.Some(v)
	}
	row := schema.RequestRow{
		Common: p.Common, Suite: p.Suite, Arm: p.Arm, Cell: c.Name, Block: int64(p.Repeat), RequestID: int64(r.Index), Mode: c.Mode, Pool: r.Pool,
		ServerID: c.Before[r.Endpoint].ID(), Phase: b.phase(c, r), Arrival: c.Began.Add(time.Duration(r.Intended)),
		IntendedS: s(r.Intended), SentS: s(r.Sent), HeadersS: s(r.Headers), FirstByteS: s(r.FirstByte), FirstRoleS: s(r.FirstRole),
		FirstReasoningS: s(r.FirstReasoning), FirstContentS: s(r.FirstContent), EndS: s(r.End),
		TTFTS: f(q.TTFT), TTFTIntendedS: f(q.TTFTIntended), TPOTS: f(q.TPOT), E2ES: f(q.E2E), E2EIntendedS: f(q.E2EIntended),
		ClientLagS: s(max(0, r.SendLag, r.ReadLag)), Chunks: n(r.Chunks), ISLTarget: n(r.ISLTarget), OSLTarget: n(r.OSLTarget), ISL: n(r.ISL), OSL: n(r.OSL),
		ReasoningTokens: n(r.Reasoning), CachedTokens: n(r.CachedInput), PromptSHA: r.PromptSHA, Status: r.Status, FinishReason: r.Finish,
		Retries: int64(r.Retries), Error: r.Error,
	}
	if r.HTTP > 0 {
		row.HTTPStatus = schema.Some(int64(r.HTTP))
	}
	if b.cfg.SLO != (measure.SLO{}) {
		row.SLOMet = schema.Some(q.SLOMet)
	}
	if c.Mode == load.Open {
		row.TargetRate = schema.Some(c.Rate)
	} else {
		row.Concurrency, row.Worker = schema.Some(int64(c.Concurrent)), n(r.Worker)
	}
	if len(r.Gaps) > 0 {
		row.ITLS = make([]float64, len(r.Gaps))
		for i, g := range r.Gaps {
			row.ITLS[i] = float64(g) / 1e6
		}
	}
	return row
}

// phase says in which part of its cell a request ended.
func (b *Bench) phase(c *Cell, r *load.Record) string {
	switch st := c.Summary.Steady; {
	case r.Warmup:
		return "warmup"
	case st == nil || r.End < 0:
		return ""
	case float64(r.End)/1e9 < st.From:
		return "ramp"
	case float64(r.End)/1e9 > st.To:
		return "drain"
	}
	return "steady"
}

// metricRows are a cell's summary: those of the steady window where there is
// one, those of the whole run under names that say so, and each tool's columns.
func (b *Bench) metricRows(c *Cell, p Place) []schema.MetricRow {
	status, reason := "ok", ""
	for _, f := range c.Flags {
		if f.Void && status == "ok" {
			status, reason = "invalid", f.Code+": "+f.Message
			if f.Code == measure.ClientLimited {
				status = measure.ClientLimited
			}
		}
	}
	row := func(name, unit, method string, lower bool, v, lo, hi float64, n int) schema.MetricRow {
		m := schema.MetricRow{Common: p.Common, Suite: p.Suite, Task: c.Name, Arm: p.Arm, Model: b.cfg.Model, Metric: name, Unit: unit, LowerIsBetter: schema.Some(lower),
			Repetition: int64(p.Repeat), N: schema.Some(int64(n)), Method: method, Status: status, Reason: reason, MeasuredAt: c.Began}
		if status == "ok" {
			m.Value = schema.Some(v)
			if lo == lo && hi == hi && (lo != 0 || hi != 0) {
				m.CILo, m.CIHi, m.CILevel = schema.Some(lo), schema.Some(hi), schema.Some(0.95)
			}
		}
		return m
	}
	var out []schema.MetricRow
	part := func(prefix string, q *measure.Part) {
		const block = "moving_block_bootstrap"
		for _, r := range []struct {
			name string
			rate measure.Rate
		}{{"requests_per_s", q.RequestRate}, {"output_tokens_per_s", q.OutputRate}, {"total_tokens_per_s", q.TotalRate}, {"goodput_requests_per_s", q.Goodput}} {
			out = append(out, row(prefix+r.name, "1/s", block, false, r.rate.Value, r.rate.Lo, r.rate.Hi, q.Requests))
		}
		for _, d := range []struct {
			name string
			dist measure.Dist
		}{{"ttft", q.TTFT}, {"ttft_intended", q.TTFTIntended}, {"tpot", q.TPOT}, {"itl", q.ITL}, {"e2e", q.E2E}, {"e2e_intended", q.E2EIntended}} {
			if d.dist.N == 0 {
				continue
			}
			out = append(out, row(prefix+d.name+"_mean", "s", block, true, d.dist.Mean, d.dist.MeanLo, d.dist.MeanHi, d.dist.N))
			for _, z := range d.dist.Quantiles {
				if z.Supported {
					out = append(out, row(prefix+d.name+"_p"+trim(z.P), "s", block, true, z.Value, z.Lo, z.Hi, d.dist.N))
				}
			}
		}
	}
	if c.Summary.Steady != nil {
		part("", c.Summary.Steady)
	}
	part("whole_run_", &c.Summary.Whole)
	for _, t := range c.Summary.Tools {
		unit, lower := "1/s", false
		if strings.HasSuffix(t.Name, "_ms") {
			unit, lower = "ms", true
		}
		out = append(out, row(t.Name, unit, t.Tool, lower, t.Value, 0, 0, c.Summary.Statuses[load.OK]))
	}
	if c.GPUSeconds != nil {
		out = append(out, row("gpu_s", "s", "server_counter", true, *c.GPUSeconds, 0, 0, c.Summary.Sent))
	}
	if c.Preempted != nil {
		out = append(out, row("preemptions", "1", "server_counter", true, *c.Preempted, 0, 0, c.Summary.Sent))
	}
	return out
}

func trim(p float64) string {
	s := strconv.FormatFloat(p, 'f', -1, 64)
	return strings.ReplaceAll(s, ".", "_")
}

// ServerRows are what was seen of the servers before and after the cells.
func (b *Bench) ServerRows(cells []*Cell, p Place) []schema.ServerRow {
	p.Common.Kind, p.Common.Simulated, p.Common.SchemaVersion = schema.Measured, b.Simulated(), schema.Version
	var out []schema.ServerRow
	for _, c := range cells {
		for i, seen := range slices.Concat(c.Before, c.After) {
			e, moment := i, "before"
			if i >= len(c.Before) {
				e, moment = i-len(c.Before), "after"
			}
			change := seen.Since(b.Identities[e])
			row := schema.ServerRow{Common: p.Common, ServerID: seen.ID(), Seq: int64(len(out)), Arm: p.Arm, Moment: moment, ObservedAt: c.Began, Engine: seen.Engine, EngineVersion: seen.Version,
				Model: seen.Model, Revision: seen.Revision, WeightsSHA: seen.WeightsSHA, KVDtype: seen.KVDtype, Kernel: seen.Kernel, StartedAt: seen.StartTime,
				GPUUUIDs: strings.Join(seen.GPUUUIDs, ","), Driver: seen.Driver, Endpoint: b.sides[e].URL(), Changed: change.Changed(), Reason: change.String()}
			if seen.KVTokens > 0 {
				row.KVTokens = schema.Some(seen.KVTokens)
			}
			out = append(out, row)
		}
	}
	return out
}
