package runner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/verdict"
)

// InDataset commits records as rows of the tables runs, claims, metrics,
// events, verdicts and estimates, with the plan, the outcome, the report and
// the ends of the logs beside them.
func InDataset(d *dataset.Dataset) Results { return inDataset{d} }

type inDataset struct{ d *dataset.Dataset }

// Commit is one transaction of the dataset, idempotent by run id.
func (r inDataset) Commit(ctx context.Context, rec *Record) (string, error) {
	tx := &recording{tx: r.d.Begin(rec.Run.ID, rec.Run.Created)}
	tx.tx.SetPlanHash(rec.Plan.Hash)
	add(tx, []schema.RunRow{rec.runRow()})
	add(tx, rec.claimRows())
	add(tx, rec.metricRows())
	add(tx, rec.estimateRows())
	add(tx, rec.eventRows())
	add(tx, rec.verdictRows())
	rec.addSuites(ctx, tx)
	manifest := filepath.Join(r.d.Root(), "_runs", rec.Run.ID, "manifest.json")
	if tx.err == nil {
		rep := rec.report(r.d.Root(), manifest, tx.counts)
		if rep.Suites, tx.err = rec.reportSuites(ctx); tx.err == nil {
			tx.err = rec.attach(tx.tx, rep)
		}
	}
	if tx.err != nil {
		return "", errors.Join(tx.err, tx.tx.Abort())
	}
	_, err := tx.tx.Commit(ctx)
	return manifest, err
}

// recording is a transaction that remembers its first error and counts its
// rows.
type recording struct {
	tx     *dataset.Txn
	counts []report.TableCount
	err    error
}

func add[T schema.Row](r *recording, rows []T) {
	if len(rows) == 0 || r.err != nil {
		return
	}
	r.err = dataset.Add(r.tx, rows...)
	r.count(rows[0].Table(), int64(len(rows)))
}

func (r *recording) count(table string, rows int64) {
	for i := range r.counts {
		if r.counts[i].Table == table {
			r.counts[i].Rows += rows
			return
		}
	}
	r.counts = append(r.counts, report.TableCount{Table: table, Rows: rows})
}

// addQuietly adds rows of a table that is counted by the caller.
func (r *recording) addQuietly(rows []schema.SampleRow) {
	if len(rows) > 0 && r.err == nil {
		r.err = dataset.Add(r.tx, rows...)
	}
}

func (rec *Record) common(kind, attempt string) schema.Common {
	return schema.Common{
		RunID: rec.Run.ID, Attempt: attempt, PlanHash: rec.Plan.Hash, Kind: kind,
		Simulated: rec.Outcome.Simulated && kind != schema.Published, SchemaVersion: schema.Version,
	}
}

func (rec *Record) runRow() schema.RunRow {
	p, o := rec.Plan, rec.Outcome
	row := schema.RunRow{
		Common: rec.common(schema.Measured, ""),
		Status: rec.status(), Verdict: string(o.Verdict), Reason: o.Reason, Notice: p.Source.Note,
		CreatedAt: rec.Run.Created, StartedAt: rec.Run.Created, FinishedAt: o.Finished,
		TargetInput: p.Target.Input, TargetKind: p.Target.Kind, TargetID: p.Target.ID, TargetVersion: p.Target.Version,
		TargetRevision: p.Target.Revision, TargetURL: p.Target.URL,
		SourceRepo: p.Source.Repo, SourceCommit: p.Source.Commit, SourceSubdir: p.Source.Subdir, SourceStatedBy: p.Source.StatedBy,
		Executor: o.Executor, Host: o.Placement.Node, Sandbox: strings.Join(o.Placement.Sandbox, ","),
		SandboxMissing: strings.Join(o.Placement.Missing, "; "), NoSandbox: rec.Request.NoSandbox,
		Python: o.Python, SKU: o.Placement.SKU, Seeds: rec.seeds(),
		FetchS: rec.stageSeconds(StageFetch), PrepareS: rec.stageSeconds(StagePrepare),
		ExecuteS: rec.stageSeconds(StageExecute), CollectS: rec.stageSeconds(StageCollect),
		WallS:    schema.Float(o.Finished.Sub(rec.Run.Created).Seconds()),
		GPUHours: schema.Float(o.Spend.GPUHours), USD: schema.Float(o.Spend.USD),
		Deviations: schema.Int(len(o.Deviations)), Warnings: schema.Int(len(p.Warnings)),
		ToolVersion: rec.Version, IdempotencyKey: rec.Run.IdempotencyKey,
	}
	if p.Paper != nil {
		row.Title = p.Paper.Title
	} else if p.Model != nil {
		row.Title = p.Model.ID
	}
	if f := p.Environment.Framework; f.Name != "" {
		row.Framework = strings.TrimSuffix(f.Name+"=="+f.Version, "==")
	}
	var cpu float64
	var rss, retries int64
	gpus := 0
	for _, a := range rec.Attempts {
		st, err := decodeStatus(a)
		if err != nil {
			continue // an attempt that was never observed used nothing that is known
		}
		cpu += st.Usage.CPUSeconds
		rss = max(rss, st.Usage.MaxRSSBytes)
		if a.N > 0 {
			retries++
		}
	}
	for _, r := range p.Runs {
		if slices.ContainsFunc(o.Units, func(u Unit) bool { return u.Run == r.ID }) {
			gpus = max(gpus, r.GPUs.Min)
		}
	}
	row.CPUS, row.Retries, row.GPUs = schema.Float(cpu), schema.Int(retries), schema.Int(gpus)
	if rss > 0 {
		row.MaxRSSBytes = schema.Int(rss)
	}
	return row
}

// status is how the run ended, in the words of the table runs.
func (rec *Record) status() string {
	o := rec.Outcome
	switch {
	case o.Stopped != "":
		return "capped"
	case o.InstallFailed != "" || slices.ContainsFunc(o.Units, func(u Unit) bool { return u.Reason != "" }):
		return "failed"
	case len(o.Units) == 0 && !slices.ContainsFunc(o.Suites, func(s SuiteOutcome) bool { return s.Result != nil }):
		return "blocked"
	}
	return "succeeded"
}

func (rec *Record) seeds() string {
	var out []string
	for _, u := range rec.Outcome.Units {
		out = append(out, strconv.FormatInt(u.Seed, 10))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ",")
}

// stageSeconds is how long a stage took, from its last start to its end.
func (rec *Record) stageSeconds(stage string) (out schema.Opt[float64]) {
	var started time.Time
	for _, e := range rec.Events {
		switch {
		case e.Stage != stage:
		case e.Kind == StageStarted:
			started = e.Time
		case e.Kind == StageFinished && !started.IsZero():
			out = schema.Float(e.Time.Sub(started).Seconds())
		}
	}
	return out
}

func (rec *Record) claimRows() (out []schema.ClaimRow) {
	for _, c := range rec.Plan.Claims {
		row := schema.ClaimRow{
			Common: rec.common(schema.Published, ""), ClaimID: c.ID, Text: c.Text, Metric: c.Metric, Unit: c.Unit,
			Relation: c.Relation, Direction: c.Direction, Baseline: c.Baseline, Dataset: c.Dataset,
			Value: schema.FromPtr(c.Value), ValueLo: schema.FromPtr(c.ValueLo), ValueHi: schema.FromPtr(c.ValueHi),
			Paper: c.Where.Paper, File: c.Where.File, Line: line(c.Where.Line), Checkable: c.Checkable, Route: c.Route,
		}
		if t := c.Tolerance; t != nil {
			row.Tolerance, row.ToleranceKind, row.ToleranceSource = schema.Float(t.Value), t.Kind, t.Source
		}
		out = append(out, row)
	}
	return out
}

func line(n int) schema.Opt[int64] {
	if n <= 0 {
		return schema.Opt[int64]{}
	}
	return schema.Int(n)
}

func (rec *Record) metricRows() (out []schema.MetricRow) {
	o := rec.Outcome
	for _, m := range o.Metrics {
		row := rec.metricRow(m.Run, m.Attempt, m.Metric, m.SeedIndex)
		row.Unit, row.Seed, row.Value, row.Status = m.Unit, schema.Int(m.Seed), schema.Float(m.Value.Value), "ok"
		row.File, row.Line, row.Quote, row.N = m.File, line(m.Line), m.Quote, schema.Int(1)
		if i := rec.unit(m.Run, m.SeedIndex); i >= 0 && o.Units[i].Reason != "" {
			row.Reason = "the run did not end well: " + o.Units[i].Reason
		}
		out = append(out, row)
	}
	for _, m := range o.Missing {
		i := rec.unit(m.Run, m.SeedIndex)
		row := rec.metricRow(m.Run, o.Units[i].Key, m.Metric, m.SeedIndex)
		row.Seed, row.Status, row.Reason = schema.Int(o.Units[i].Seed), "not_found", m.Reason
		out = append(out, row)
	}
	for _, v := range o.Claims {
		if v.Seeds < 2 {
			continue
		}
		row := rec.metricRow(v.RunID, "", v.Metric, -1)
		row.Kind, row.Method, row.Unit, row.Status, row.N = schema.Derived, "mean", v.Unit, "ok", schema.Int(v.Seeds)
		row.Value, row.CILo, row.CIHi = schema.FromPtr(v.Measured), schema.FromPtr(v.MeasuredLo), schema.FromPtr(v.MeasuredHi)
		row.CILevel = schema.Float(0.95)
		out = append(out, row) // of two claims about one metric the second is the same row
	}
	return out
}

// unit is the index of an execution, -1 when there is none.
func (rec *Record) unit(run string, seedIndex int) int {
	return slices.IndexFunc(rec.Outcome.Units, func(u Unit) bool { return u.Run == run && u.SeedIndex == seedIndex })
}

// metricRow fills in what all rows about a metric of a run have in common.
func (rec *Record) metricRow(run, attempt, metric string, repetition int) schema.MetricRow {
	row := schema.MetricRow{
		Common: rec.common(schema.Measured, attempt), PlanRun: run, Metric: metric, Repetition: int64(repetition),
		SKU: rec.Outcome.Placement.SKU, MeasuredAt: rec.Outcome.Finished,
	}
	for _, r := range rec.Plan.Runs {
		if r.ID != run {
			continue
		}
		row.GPUs = schema.Int(r.GPUs.Min)
		for _, c := range r.Collect {
			if c.Metric == metric && row.Method == "" {
				row.Method = c.Kind
			}
		}
	}
	for _, u := range rec.Outcome.Units {
		if u.Key == attempt {
			row.MeasuredAt, row.SKU = u.Status.Finished, u.Status.Placement.SKU
		}
	}
	for _, c := range rec.Plan.Claims {
		if c.Metric == metric && c.Direction != "" {
			row.LowerIsBetter = schema.Bool(c.Direction == "lower")
		}
	}
	return row
}

func (rec *Record) eventRows() (out []schema.EventRow) {
	for _, e := range rec.Events {
		out = append(out, schema.EventRow{
			Common: rec.common(schema.Measured, ""), Seq: e.Seq, Time: e.Time, Stage: e.Stage, Event: cmp.Or(string(e.Kind), string(Log)), Data: string(e.Data),
		})
	}
	return out
}

func (rec *Record) verdictRows() (out []schema.VerdictRow) {
	o := rec.Outcome
	for i, v := range o.Claims {
		c := rec.Plan.Claims[i]
		row := schema.VerdictRow{
			Common: rec.common(schema.Derived, ""), Subject: "claim", SubjectID: v.ClaimID, Metric: v.Metric, Unit: v.Unit,
			Relation: c.Relation, Baseline: c.Baseline,
			Reported: schema.FromPtr(v.Reported), ReportedLo: schema.FromPtr(v.ReportedLo), ReportedHi: schema.FromPtr(v.ReportedHi),
			Measured: schema.FromPtr(v.Measured), MeasuredLo: schema.FromPtr(v.MeasuredLo), MeasuredHi: schema.FromPtr(v.MeasuredHi),
			Verdict: string(v.Verdict), Reason: v.Reason, File: v.File, Line: line(v.Line), Quote: v.Quote, DecidedAt: o.Finished,
		}
		if t := v.Tolerance; t != nil {
			row.Tolerance, row.ToleranceKind, row.ToleranceSource = schema.Float(t.Value), t.Kind, t.Source
		}
		rec.spent(&row, v)
		out = append(out, row)
	}
	whole := schema.VerdictRow{
		Common: rec.common(schema.Derived, ""), Subject: "run", Verdict: string(o.Verdict), Reason: o.Reason, DecidedAt: o.Finished,
		GPUHours: schema.Float(o.Spend.GPUHours), USD: schema.Float(o.Spend.USD), WallS: schema.Float(o.Spend.WallSeconds),
	}
	return append(append(out, rec.suiteVerdicts()...), whole)
}

// spent is the cost of the executions that a verdict rests on.
func (rec *Record) spent(row *schema.VerdictRow, v verdict.Row) {
	if v.RunID == "" {
		return
	}
	var wall, gpu, usd, cpu float64
	for _, a := range rec.Attempts {
		arm, _, _ := strings.Cut(a.Arm, "+setup")
		if a.Stage != StageExecute || arm != v.RunID {
			continue
		}
		wall, gpu, usd = wall+a.Spend.WallSeconds, gpu+a.Spend.GPUHours, usd+a.Spend.USD
		if st, err := decodeStatus(a); err == nil {
			cpu += st.Usage.CPUSeconds
		}
	}
	row.WallS, row.GPUHours, row.USD, row.CPUS = schema.Float(wall), schema.Float(gpu), schema.Float(usd), schema.Float(cpu)
}

// estimateRows holds what was estimated against what the run used, for the GPU
// it ran on. A quantity that nobody could estimate has a row too where it was
// measured: that is what the next estimate learns from.
func (rec *Record) estimateRows() (out []schema.EstimateRow) {
	o := rec.Outcome
	for i := range rec.Plan.Estimates {
		e := &rec.Plan.Estimates[i]
		ran := e.Scope == "" && e.SKU == o.Placement.SKU && rec.status() == "succeeded"
		for _, q := range []struct {
			name, unit string
			iv         *spec.Interval
			measured   float64
		}{{"gpu_hours", "GPU h", e.GPUHours, o.Spend.GPUHours}, {"usd", "USD", e.USD, o.Spend.USD}, {"wall_s", "s", e.WallS, o.Spend.WallSeconds}} {
			if q.iv == nil && !ran {
				continue
			}
			row := schema.EstimateRow{
				Common: rec.common(kindOf(e.Kind), ""), Scope: cmp.Or(e.Scope, "job"), SKU: cmp.Or(e.SKU, "unknown"), GPUs: int64(e.GPUs), Quantity: q.name, Unit: q.unit,
				Method: e.Method, SupportedBy: strings.Join(e.SupportedBy, "; "), Assumptions: strings.Join(e.Assumptions, "; "),
			}
			row.Simulated = false
			if q.iv != nil {
				row.P10, row.P50, row.P90 = schema.Float(q.iv.P10), schema.Float(q.iv.P50), schema.Float(q.iv.P90)
			}
			if ran {
				row.Measured = schema.Float(q.measured)
			}
			if ran && q.iv != nil {
				row.Covered = schema.Bool(q.iv.P10 <= q.measured && q.measured <= q.iv.P90)
				if q.iv.P50 > 0 {
					row.Ratio = schema.Float(q.measured / q.iv.P50)
				}
			}
			out = append(out, row)
		}
	}
	return out
}

// kindOf is a plan's word for how a number came to be, "assumed" where a plan
// written by hand has none.
func kindOf(k spec.Kind) string {
	switch k {
	case spec.Measured, spec.Published, spec.Derived, spec.Estimated:
		return string(k)
	}
	return schema.Assumed
}

// attach puts the documents and logs beside the rows.
func (rec *Record) attach(tx *dataset.Txn, rep *report.Report) error {
	plan, err := indented(rec.Plan)
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	outcome, err := indented(rec.Outcome)
	if err != nil {
		return fmt.Errorf("encode outcome: %w", err)
	}
	var page, doc bytes.Buffer
	if err := errors.Join(rep.JSON(&doc), rep.Markdown(&page)); err != nil {
		return err
	}
	files := map[string][]byte{"plan.json": plan, "outcome.json": outcome, "report.json": doc.Bytes(), "report.md": page.Bytes()}
	for name, body := range rec.Logs {
		files["logs/"+name] = body
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := tx.Attach(name, files[name]); err != nil {
			return err
		}
	}
	return nil
}

func indented(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
