package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/servers"
)

// addSuites adds the answers, comparisons and servers of the run's suites.
func (rec *Record) addSuites(ctx context.Context, tx *recording) {
	n := int64(0)
	for _, o := range rec.Outcome.Suites {
		if o.Result == nil || tx.err != nil {
			continue
		}
		// In batches: a run may have a million answers.
		var batch []schema.SampleRow
		flush := func() error {
			n += int64(len(batch))
			tx.addQuietly(batch)
			batch = batch[:0]
			return tx.err
		}
		err := rec.answers(ctx, o, func(a harness.Answer) error {
			batch = append(batch, rec.sampleRow(o, a))
			if len(batch) < 1000 {
				return nil
			}
			return flush()
		})
		if err == nil {
			err = flush()
		}
		if err != nil && tx.err == nil {
			tx.err = fmt.Errorf("answers of suite %s: %w", o.Suite, err)
		}
	}
	if n > 0 {
		tx.count(schema.Samples, n)
	}
	rec.addThroughput(tx)
	add(tx, rec.comparisonRows())
	add(tx, rec.serverRows())
}

// suite is what the plan says of a suite.
func (rec *Record) suite(id string) *spec.Suite {
	return &rec.Plan.Suites[slices.IndexFunc(rec.Plan.Suites, func(s spec.Suite) bool { return s.ID == id })]
}

func (rec *Record) arm(suite, name string) (out spec.Arm) {
	for _, a := range rec.suite(suite).Arms {
		if a.Name == name {
			return a
		}
	}
	return out
}

// suiteAttempt is the attempt key that rows of a suite carry.
func (rec *Record) suiteAttempt(id, arm string) string {
	return AttemptKey{RunID: rec.Run.ID, Stage: StageSuite(id), Arm: arm}.String()
}

func (rec *Record) sampleRow(o SuiteOutcome, a harness.Answer) schema.SampleRow {
	arm := rec.arm(o.Suite, a.Arm)
	rule, version, _ := strings.Cut(a.Grade.Rule, "@")
	row := schema.SampleRow{
		Common: rec.common(schema.Measured, rec.suiteAttempt(o.Suite, a.Arm)), Suite: o.Result.Suite, DatasetSHA: o.Result.DatasetSHA,
		ItemID: a.ItemID, Repeat: int64(a.Repeat), Arm: a.Arm, Model: arm.Model, Revision: arm.Revision, Precision: arm.Format,
		Position: int64(a.Position), Category: a.Item.Category, Cluster: a.Item.Cluster, PromptSHA: a.PromptSHA,
		Outcome: string(a.Grade.Outcome), Reference: a.Item.Reference, Extracted: a.Grade.Extracted, Stage: a.Stage, Rule: rule, RuleVersion: version,
		FinishReason: a.FinishReason, Output: a.Text, Reasoning: a.Reasoning, Retries: int64(a.Retries), Seed: schema.Int(a.Seed),
		ServerID: a.ServerID, AskedAt: a.Asked, Error: a.Error,
	}
	if a.Error == "" {
		sum := sha256.Sum256([]byte(a.Text))
		row.OutputSHA = hex.EncodeToString(sum[:])
		row.Score = schema.Float(a.Grade.Score)
		row.PromptTokens, row.OutputTokens = schema.Int(a.PromptTokens), schema.Int(a.OutputTokens)
		row.ReasoningTokens, row.CachedTokens = schema.Int(a.ReasoningTokens), schema.Int(a.CachedTokens)
		row.TTFTS, row.LatencyS = schema.Float(a.TTFT), schema.Float(a.Latency)
	}
	return row
}

func (rec *Record) comparisonRows() (out []schema.ComparisonRow) {
	for _, o := range rec.Outcome.Suites {
		if o.Result == nil {
			continue
		}
		for _, c := range o.Result.Comparisons {
			r := c.Result
			row := schema.ComparisonRow{
				Common: rec.common(schema.Derived, ""), Suite: o.Result.Suite, Metric: "score", Unit: "fraction", Arm: c.Candidate, Baseline: c.Baseline,
				Model: rec.arm(o.Suite, c.Candidate).Model, BaselineModel: rec.arm(o.Suite, c.Baseline).Model, Method: r.Method, Final: true, Paired: true,
				Margin: schema.Float(r.Margin), Alpha: schema.Float(r.Alpha), N: schema.Int(r.Used), Clusters: schema.Int(r.Clusters),
				Value: schema.Float(r.Cand), BaselineValue: schema.Float(r.Base), Diff: schema.Float(r.Diff), Stderr: schema.Float(r.StdErr),
				PValue: schema.FromPtr(r.PValue), EValue: schema.FromPtr(r.EValue), B: schema.Int(r.BaseOnly), C: schema.Int(r.CandOnly), MDE: schema.Float(r.MDE),
				QuestionsPlanned: schema.Int(o.Result.Questions), QuestionsUsed: schema.Int(r.Used), QuestionsSaved: schema.Int(r.Saved),
				Verdict: string(r.Verdict), Reason: Why(r), Assumptions: strings.Join(r.Assumptions, "; "),
				Seed: schema.Int(int64(o.Result.Seed)), ComputedAt: rec.Outcome.Finished,
			}
			if r.Level > 0 {
				row.CILo, row.CIHi, row.CILevel = schema.Float(r.Lo), schema.Float(r.Hi), schema.Float(r.Level)
			}
			out = append(out, looks(&row, r)...)
			out = append(out, row)
		}
	}
	return out
}

// looks are the rows of a sequential method's looks before the last, whose row is
// final: what was seen, without what only the end of a comparison has.
func looks(final *schema.ComparisonRow, r compare.Result) (out []schema.ComparisonRow) {
	for i, k := range r.Looks {
		row := schema.ComparisonRow{
			Common: final.Common, Suite: final.Suite, Metric: final.Metric, Unit: final.Unit, Arm: final.Arm, Baseline: final.Baseline, Model: final.Model, BaselineModel: final.BaselineModel,
			Method: final.Method, Look: int64(i), Paired: true, Margin: final.Margin, Alpha: final.Alpha, N: schema.Int(k.Pairs), Value: schema.Float(k.Cand), BaselineValue: schema.Float(k.Base),
			Diff: schema.Float(k.Cand - k.Base), B: schema.Int(k.BaseOnly), C: schema.Int(k.CandOnly), EValue: schema.FromPtr(k.Within), EBeyond: schema.FromPtr(k.Beyond),
			QuestionsPlanned: final.QuestionsPlanned, QuestionsUsed: schema.Int(k.Pairs), Verdict: string(k.Verdict), Seed: final.Seed,
		}
		if i == len(r.Looks)-1 {
			final.Look, final.EValue, final.EBeyond = row.Look, row.EValue, row.EBeyond
			break
		}
		out = append(out, row)
	}
	return out
}

// Why says in a sentence what a comparison rests on.
func Why(r compare.Result) string {
	s := fmt.Sprintf("difference %+.2f points", 100*r.Diff)
	if r.Level > 0 {
		s += fmt.Sprintf(" (%.0f %% interval %+.2f to %+.2f)", 100*r.Level, 100*r.Lo, 100*r.Hi)
	}
	s += fmt.Sprintf(" over %d of %d questions", r.Used, r.Total)
	if r.Verdict == compare.Undecided {
		s += ": the answers do not tell, which is no pass"
	}
	return s
}

func (rec *Record) serverRows() (out []schema.ServerRow) {
	n := map[string]int64{} // looks at an arm over all suites
	for _, o := range rec.Outcome.Suites {
		if o.Result == nil {
			continue
		}
		for _, k := range o.Result.Looks {
			a, id := rec.arm(o.Suite, k.Arm), k.Identity
			row := schema.ServerRow{
				Common: rec.common(schema.Measured, rec.suiteAttempt(o.Suite, k.Arm)), ServerID: id.ID(), Seq: n[k.Arm], Arm: k.Arm, Moment: k.Moment, ObservedAt: k.At,
				Engine: id.Engine, EngineVersion: id.Version, Model: id.Model, Revision: id.Revision, WeightsSHA: id.WeightsSHA, Precision: a.Format,
				KVDtype: id.KVDtype, Kernel: id.Kernel, StartedAt: id.StartTime, SKU: a.SKU, GPUUUIDs: strings.Join(id.GPUUUIDs, ","), Driver: id.Driver,
				Image: a.Image, Endpoint: rec.Outcome.Endpoints[k.Arm], Flags: strings.Join(a.Flags, " "), Changed: k.Void, Reason: k.Reason,
			}
			if id.KVTokens > 0 {
				row.KVTokens = schema.Int(id.KVTokens)
			}
			for _, in := range o.Started {
				if in.Arm == k.Arm {
					startedBy(&row, in)
				}
			}
			n[k.Arm]++
			out = append(out, row)
		}
	}
	return out
}

// startedBy adds what is known only of a server that this program started.
func startedBy(row *schema.ServerRow, in servers.Instance) {
	row.Endpoint = in.Endpoint
	in.Facts.Describe(row)
	if n := len(in.Identity.GPUUUIDs); n > 0 {
		row.GPUs = schema.Some(int64(n))
	}
}

// suiteVerdicts are the verdicts on comparisons.
func (rec *Record) suiteVerdicts() (out []schema.VerdictRow) {
	for _, o := range rec.Outcome.Suites {
		if o.Result == nil {
			continue
		}
		for _, c := range o.Result.Comparisons {
			r := c.Result
			params, err := json.Marshal(map[string]any{"method": r.Method, "alpha": r.Alpha, "one_sided": r.OneSided, "margin": r.Margin})
			if err != nil { // text and finite numbers
				params = nil
			}
			row := schema.VerdictRow{
				Common: rec.common(schema.Derived, ""), Subject: "comparison", SubjectID: fmt.Sprintf("%s/%s/%s", o.Suite, c.Candidate, c.Baseline),
				Suite: o.Result.Suite, Arm: c.Candidate, Baseline: c.Baseline, Metric: "score", Unit: "fraction", Relation: "difference",
				Measured: schema.Float(r.Diff), Tolerance: schema.Float(r.Margin), ToleranceKind: "absolute", ToleranceSource: "the plan's margin",
				Verdict: string(r.Verdict), Reason: Why(r), USD: schema.Float(o.Result.Paid.USD), WallS: schema.Float(o.Result.Paid.Seconds),
				Params: string(params), DecidedAt: rec.Outcome.Finished,
			}
			if r.Level > 0 {
				row.MeasuredLo, row.MeasuredHi = schema.Float(r.Lo), schema.Float(r.Hi)
			}
			out = append(out, row)
		}
	}
	return out
}

// outcomesOf lists an arm's outcomes that there are, in their order.
func outcomesOf(a harness.ArmResult) (out []string) {
	for _, o := range suites.Outcomes() {
		if n := a.Outcomes[o]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", strings.ReplaceAll(string(o), "_", " "), n))
		}
	}
	return out
}

const simulatedServer = "a simulated server answered: these numbers say nothing of a model"

// reportSuites are the suites as the report has them.
func (rec *Record) reportSuites(ctx context.Context) (out []report.Suite, err error) {
	curves, err := rec.curves(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range rec.Outcome.Suites {
		if o.Throughput != nil {
			out = append(out, o.reportThroughput())
			continue
		}
		s := report.Suite{ID: o.Suite, Refused: o.Refused, Variant: rec.suite(o.Suite).Variant}
		r := o.Result
		if r == nil {
			out = append(out, s)
			continue
		}
		s.Rule, s.Questions, s.Repeats, s.Stopped, s.Warnings = r.Rule, r.Questions, r.Repeats, r.Stopped, r.Warnings
		if o.simulated() {
			s.Warnings = append(s.Warnings, simulatedServer)
		}
		s.Paid = report.Paid{Requests: r.Paid.Requests, Repeated: r.Paid.Repeated, Void: r.Paid.Void, Overrun: r.Paid.Overrun, Tokens: r.Paid.Tokens, USD: r.Paid.USD}
		s.Repeats = max(r.Units/max(r.Used, 1), 1) // fewer than planned where a budget ended it
		for _, a := range r.Arms {
			s.Arms = append(s.Arms, report.Arm{Name: a.Arm, Model: rec.arm(o.Suite, a.Arm).Model, Score: a.Score, MajAt: a.MajAt, PassAt: a.PassAt, Answers: a.Answers, Outcomes: outcomesOf(a)})
		}
		for _, c := range r.Comparisons {
			x := c.Result
			row := report.Comparison{Candidate: c.Candidate, Baseline: c.Baseline, Verdict: string(x.Verdict), Margin: x.Margin, Method: x.Method, Diff: x.Diff,
				BaseOnly: x.BaseOnly, CandOnly: x.CandOnly, Used: x.Used, Saved: x.Saved, Assumptions: x.Assumptions, Warnings: x.Warnings}
			if x.Level > 0 {
				row.Lo, row.Hi, row.Level = &x.Lo, &x.Hi, &x.Level
			}
			row.Curve = curves[o.Suite+"\x00"+c.Candidate]
			s.Comparisons = append(s.Comparisons, row)
		}
		out = append(out, s)
	}
	return out, nil
}
