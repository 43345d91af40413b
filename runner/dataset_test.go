package runner_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch/git"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/sandbox"
)

// commit drives a plan for real and returns its outcome and dataset.
func commit(t *testing.T, script string, edit func(*spec.Plan)) (runner.Outcome, *world) {
	t.Helper()
	w, err := newWorld(layOut(t, script), nil)
	must(t, err)
	t.Cleanup(func() { w.store.Close() })
	p := killPlan()
	edit(p)
	p.Seal()
	run, _, err := w.runner.Create(t.Context(), runner.Request{Plan: p, Yes: true, By: "me", NoSandbox: w.exec.Capabilities().Layer == sandbox.None})
	must(t, err)
	out, err := w.runner.Drive(t.Context(), run.ID)
	must(t, err)
	return out, w
}

func rows[T schema.Row](t *testing.T, w *world, id string) []T {
	t.Helper()
	out, err := dataset.Read[T](t.Context(), w.data, id)
	must(t, err)
	return out
}

func TestRows(t *testing.T) {
	out, w := commit(t, once, func(p *spec.Plan) {
		p.Source.Simulated, p.Source.Note = true, "a re-implementation"
		p.Paper = &spec.Paper{ID: "1", Title: "A Title"}
		lo := 1.0
		p.Claims = append(p.Claims,
			spec.Claim{ID: "d", Metric: "loss", ValueLo: &lo, Checkable: "numeric", Direction: "lower"},
			spec.Claim{ID: "e", Checkable: "figure_only"})
		p.Runs[0].ClaimIDs = []string{"c", "d"}
		p.Runs[0].Collect = append(p.Runs[0].Collect, spec.Collect{Metric: "loss", Kind: "json", Path: "out.json", Pointer: "/loss"})
		p.Estimates = []spec.Estimate{
			{SKU: "cpu", GPUHours: &spec.Interval{P10: 0, P50: 0, P90: 1}, WallS: &spec.Interval{P10: 0, P50: 1e-9, P90: 1e9}, Kind: spec.Estimated},
			{SKU: "h200", GPUs: 1, USD: &spec.Interval{P10: 1, P50: 2, P90: 3}, Reason: "nothing is known"},
		}
	})
	run := rows[schema.RunRow](t, w, out.RunID)
	if len(run) != 1 {
		t.Fatalf("%d rows of the run", len(run))
	}
	r := run[0]
	if r.Status != "succeeded" || r.Verdict != "partially_aligned" || !r.Simulated || r.Notice != "a re-implementation" || r.Title != "A Title" ||
		r.SourceCommit != strings.Repeat("a", 40) || r.Executor != "local" || r.SKU != "cpu" || r.Seeds != "8,9" || !r.ExecuteS.Valid || r.Sandbox == "" || r.ToolVersion != "test" {
		t.Errorf("run = %+v", r)
	}
	metrics := map[string]int{}
	for _, m := range rows[schema.MetricRow](t, w, out.RunID) {
		metrics[m.Metric+" "+m.Status+" "+m.Method]++
		if !m.Simulated || m.PlanRun != "main" || (m.Status == "ok") != m.Value.Valid {
			t.Errorf("metric = %+v", m)
		}
	}
	if metrics["acc ok json"] != 2 || metrics["acc ok mean"] != 1 || metrics["loss not_found json"] != 2 || len(metrics) != 3 {
		t.Errorf("metrics = %v", metrics)
	}
	verdicts := map[string]string{}
	for _, v := range rows[schema.VerdictRow](t, w, out.RunID) {
		verdicts[v.Subject+v.SubjectID] = v.Verdict
	}
	if verdicts["claimc"] != "aligned" || verdicts["claimd"] != "inconclusive" || verdicts["claime"] != "not_checkable" || verdicts["run"] != "partially_aligned" {
		t.Errorf("verdicts = %v", verdicts)
	}
	for _, e := range rows[schema.EstimateRow](t, w, out.RunID) {
		if e.Measured.Valid != (e.SKU == "cpu") || e.Kind != map[string]string{"cpu": "estimated", "h200": "assumed"}[e.SKU] || e.Simulated {
			t.Errorf("estimate = %+v", e)
		}
	}
	events, err := w.runner.Events(t.Context(), out.RunID, 0, 0)
	must(t, err)
	if n := len(rows[schema.EventRow](t, w, out.RunID)); n == 0 || n > len(events) {
		t.Errorf("%d rows of %d events", n, len(events))
	}
	rep, err := w.runner.Report(t.Context(), out.RunID)
	must(t, err)
	var page strings.Builder
	must(t, rep.Terminal(&page, report.Style{Width: 100}))
	for _, want := range []string{"a re-implementation", "A Title", "partially aligned", "metric loss was not found", "repromill run -f "} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, page.String())
		}
	}
	for _, name := range []string{"plan.json", "outcome.json", "report.json", "report.md", "logs/execute-main-s0-n0.out"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(out.Manifest), name)); err != nil {
			t.Error(err)
		}
	}
}

func TestRowsOfRunsThatDidNotEndWell(t *testing.T) {
	for want, edit := range map[string]func(*spec.Plan){
		"blocked": func(p *spec.Plan) { p.Runs[0].Placeholders = []string{"X"} },
		"failed":  func(p *spec.Plan) { p.Runs[0].Argv = []string{"no-such-program"} },
	} {
		out, w := commit(t, once, edit)
		r := rows[schema.RunRow](t, w, out.RunID)[0]
		if r.Status != want {
			t.Errorf("status = %s, want %s; %+v", r.Status, want, out.Units)
		}
		if rep, err := w.runner.Report(t.Context(), out.RunID); err != nil || len(rep.Runs) != 1 || rep.Runs[0].Reason == "" {
			t.Errorf("%s: report %+v, %v", want, rep, err)
		}
	}
}

// TestCloned drives a plan whose code is a folder on this machine.
func TestCloned(t *testing.T) {
	dir := layOut(t, "echo acc=0.9\n")
	c, err := git.New(git.Config{CacheDir: filepath.Join(dir, "cache")})
	must(t, err)
	co, err := c.Checkout(t.Context(), git.Request{Repo: filepath.Join(dir, "src")})
	must(t, err)
	got, err := runner.Cloned(c).Checkout(t.Context(), filepath.Join(dir, "src"), co.Commit, false)
	if err != nil || got != co.Dir {
		t.Errorf("Checkout = %s, %v, want %s", got, err, co.Dir)
	}
	if _, err := runner.Cloned(c).Checkout(t.Context(), filepath.Join(dir, "src"), strings.Repeat("b", 40), false); err == nil {
		t.Error("a commit that is not there was checked out")
	}
}
