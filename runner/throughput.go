package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/throughput"
)

// throughput carries out a throughput suite. The servers of suites before it are
// ended first: whatever else runs on the machine would be measured, too.
func (d *drive) throughput(ctx context.Context, s spec.Suite, left Caps, f *fleet) (out SuiteOutcome, skipped string, err error) {
	out.Suite = s.ID
	if err := f.stop(ctx); err != nil {
		return out, "", err
	}
	j := d.throughputJob(s)
	j.Bounds = throughput.Bounds{Wall: left.Wall, GPUHours: left.GPUHours, USD: left.USD, Price: d.price}
	if d.sharded(s) {
		if err := d.inPods(ctx, s, &j); err != nil {
			return out, "", err
		}
		out.Shards = max(1, s.Repeats) * len(throughput.Turns(s, 0))
	} else if j.Starter, err = f.timed(StageSuite(s.ID)); err != nil {
		return out, "", err
	}
	j.Progress = func(what string, done, total int) {
		data := map[string]any{"done": done, "total": total, "unit": "cells", "message": what}
		_ = d.cfg.Store.Append(ctx, d.run.ID, event(StageSuite(s.ID), Progress, data)) // what is lost is only seen later
	}
	res, err := d.cfg.Throughput.Run(ctx, j)
	var void *voidSuite
	if errors.As(err, &void) {
		out.Refused = void.Error()
		return out, out.Refused, nil
	}
	if err != nil {
		return out, "", err
	}
	out.Throughput = &res
	for _, c := range res.Comparisons {
		if c.Metric == compare.OutputPerGPU {
			d.pending = append(d.pending, event(StageSuite(s.ID), VerdictGiven, c))
		}
	}
	return out, "", nil
}

// price is USD for an hour of one of an arm's GPUs.
func (d *drive) price(a spec.Arm) float64 { return d.priceOf(a.SKU) }

func (d *drive) throughputJob(s spec.Suite) throughput.Job {
	return throughput.Job{Suite: s, URL: d.serving().URL, Dir: d.job(s).Dir}
}

// ratio says in words how fast the candidate is, over all cells where there are
// several.
func (o SuiteOutcome) ratio() string {
	var best *compare.Comparison
	for i := range o.Throughput.Comparisons {
		if c := &o.Throughput.Comparisons[i]; c.Question == compare.EqualConfiguration && c.Metric == compare.OutputPerGPU && (best == nil || c.Base.Cell == "") {
			best = c
		}
	}
	if best == nil || best.Ratio == 0 {
		return o.Suite + " gives no ratio"
	}
	s := fmt.Sprintf("%s: %s gives %.3f times the output of %s per GPU at equal configuration", o.Suite, best.Cand.Arm, best.Ratio, best.Base.Arm)
	if i := best.Interval; i != nil && best.Over == compare.OverStarts {
		s += fmt.Sprintf(" (%.0f %% interval %.3f to %.3f)", 100*i.Level, i.Lo, i.Hi)
	}
	if best.Verdict == compare.Refused {
		s += ", which is no claim: " + best.Reason
	}
	return s
}

// addThroughput adds the requests, metrics, servers and ratios of the run's
// throughput suites.
func (rec *Record) addThroughput(tx *recording) {
	seq := int64(0) // after the looks of the other suites
	for _, o := range rec.Outcome.Suites {
		if o.Result != nil {
			seq += int64(len(o.Result.Looks))
		}
	}
	for _, o := range rec.Outcome.Suites {
		if o.Throughput == nil || tx.err != nil {
			continue
		}
		common := func(arm string) schema.Common { return rec.common(schema.Measured, rec.suiteAttempt(o.Suite, arm)) }
		err := rec.rows(o, func(r throughput.Rows) error {
			for i := range r.Requests {
				r.Requests[i].Common = common(r.Requests[i].Arm)
			}
			for i := range r.Metrics {
				r.Metrics[i].Common = common(r.Metrics[i].Arm)
			}
			for i := range r.Servers {
				row := &r.Servers[i]
				arm := rec.arm(o.Suite, row.Arm)
				row.Common, row.Seq = common(row.Arm), seq
				row.Precision, row.SKU, row.Image, row.Flags = arm.Format, arm.SKU, arm.Image, strings.Join(arm.Flags, " ")
				seq++
			}
			add(tx, r.Requests)
			add(tx, r.Metrics)
			add(tx, r.Servers)
			return tx.err
		})
		if err != nil && tx.err == nil {
			tx.err = fmt.Errorf("rows of suite %s: %w", o.Suite, err)
		}
		add(tx, compare.Rows(o.Throughput.Comparisons, rec.common(schema.Derived, ""), o.Suite, rec.Outcome.Finished))
	}
}

// reportThroughput is a throughput suite as the report has it.
func (o SuiteOutcome) reportThroughput() report.Suite {
	r := o.Throughput
	s := report.Suite{ID: o.Suite, Stopped: r.Stopped, Warnings: r.Warnings, Rounds: r.Rounds}
	if r.Simulated {
		s.Warnings = append(s.Warnings, simulatedServer)
	}
	for _, c := range r.Comparisons {
		if c.Metric != compare.OutputPerGPU && c.Metric != compare.TTFTp50 && c.Metric != compare.TPOTp50 {
			continue // the others are in the comparisons table
		}
		x := report.Ratio{Question: c.Question, Floor: c.Floor, Metric: c.Metric, Unit: c.Unit, Cell: c.Base.Cell, CandidateCell: c.Cand.Cell, Baseline: c.Base.Arm, Candidate: c.Cand.Arm,
			BaselineValue: c.Base.Value, CandidateValue: c.Cand.Value, Ratio: c.Ratio, Verdict: string(c.Verdict), Reason: c.Reason, Starts: min(c.Base.Starts, c.Cand.Starts)}
		if i := c.Interval; i != nil {
			x.Lo, x.Hi, x.Level = &i.Lo, &i.Hi, &i.Level
			x.Processes = c.Over == compare.OverProcesses
		}
		s.Ratios = append(s.Ratios, x)
	}
	return s
}

var errNoThroughput = errors.New("this program reads no throughput suites")

// rows calls f for the rows of a throughput suite.
func (rec *Record) rows(o SuiteOutcome, f func(throughput.Rows) error) error {
	if rec.throughput == nil {
		return errNoThroughput
	}
	return rec.throughput(o, f)
}
