package web

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
)

// measured commits a measurement as `repromill load` does, and returns its id.
func measured(t testing.TB, d *dataset.Dataset, at time.Time, title string, arms ...string) string {
	t.Helper()
	id := ulid.MustNewDefault(at).String()
	common := schema.Common{RunID: id, Kind: schema.Measured, Simulated: true, SchemaVersion: schema.Version}
	tx := d.Begin(id, at)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(dataset.Add(tx, schema.RunRow{Common: common, Status: "succeeded", CreatedAt: at, Title: title}))
	row := func(arm, cell, metric string, v float64, lower bool) schema.MetricRow {
		return schema.MetricRow{Common: common, Suite: "load", Task: cell, Arm: arm, Model: "org/m", Metric: metric, Unit: "1/s", LowerIsBetter: schema.Bool(lower), Value: schema.Float(v),
			CILo: schema.Float(.9 * v), CIHi: schema.Float(1.1 * v), N: schema.Int(100), Method: "moving_block_bootstrap", Status: "ok", MeasuredAt: at}
	}
	for i, arm := range arms {
		for j, cell := range []string{"c1", "c8", "c64"} {
			v, slow := float64(100*(j+1)*(i+1)), .05*float64((j+1)*(j+1))
			check(dataset.Add(tx, row(arm, cell, "output_tokens_per_s", v, false), row(arm, cell, "requests_per_s", v/50, false),
				row(arm, cell, "whole_run_ttft_intended_p50", slow/2, true), row(arm, cell, "whole_run_ttft_intended_p99", slow, true), row(arm, cell, "tpot_p50", slow/10, true)))
		}
		void := row(arm, "c512", "output_tokens_per_s", 1, false)
		void.Value, void.CILo, void.CIHi, void.Status, void.Reason = schema.Opt[float64]{}, schema.Opt[float64]{}, schema.Opt[float64]{}, "client_limited", "client_limited: the client was late <b>"
		check(dataset.Add(tx, void))
		check(dataset.Add(tx, schema.RequestRow{Common: common, Suite: "load", RequestID: int64(i), Arm: arm, Cell: "c1", Status: "ok"}))
	}
	if len(arms) > 1 {
		check(dataset.Add(tx, schema.ComparisonRow{Common: common, Suite: "load", Task: "c8", Metric: "output_tokens_per_s", Arm: arms[1], Baseline: arms[0], Method: "block_bootstrap_ratio", Final: true,
			Ratio: schema.Float(2), CILo: schema.Float(1.9), CIHi: schema.Float(2.1), Verdict: "better", Reason: "beyond the margin"}))
	}
	_, err := tx.Commit(t.Context())
	check(err)
	return id
}

// TestLoads shows measurements: all of them page by page, each with its frontier.
func TestLoads(t *testing.T) {
	w := newWorld(t, nil)
	d := w.srv.cfg.Data
	w.get("/loads").want(t, 200, "Nothing has been measured yet")
	at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	ids := map[string]bool{}
	for i := range loadsPerPage + 2 {
		ids[measured(t, d, at.Add(time.Duration(i)*time.Minute), fmt.Sprintf("model <%d>", i), "fp8")] = true
	}
	both := measured(t, d, at.Add(time.Hour), "org/contest", "fp8", "nvfp4")
	ids[both] = true
	// A run of the store is no measurement, and is not listed.
	w.open()
	run := w.submit()

	link := regexp.MustCompile(`href="/loads/([0-9A-Z]{26})"`)
	next := regexp.MustCompile(`rel="next" href="([^"]+)"`)
	seen := map[string]bool{}
	for path, pages := "/loads", 0; path != "" && pages < 5; pages++ {
		a := w.get(path)
		a.want(t, 200, "simulated", "&lt;")
		for _, m := range link.FindAllStringSubmatch(a.body, -1) {
			if seen[m[1]] {
				t.Errorf("%s is listed twice", m[1])
			}
			seen[m[1]] = true
		}
		path = ""
		if m := next.FindStringSubmatch(a.body); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(seen) != len(ids) || seen[run] {
		t.Errorf("%d measurements are listed, want %d", len(seen), len(ids))
	}
	if found := link.FindAllString(w.get("/loads?q=CONTEST").body, -1); len(found) != 1 {
		t.Errorf("found %q", found)
	}
	w.get("/loads?q=nothing-like-it").want(t, 200, "None here is like that")
	w.get("/loads?before=../../etc").want(t, 200)

	page := w.get("/loads/" + both)
	page.want(t, 200, "org/contest", "nvfp4", "P99 TTFT", "<svg", "×2", "[1.9, 2.1]", "client limited", "the client was late &lt;b&gt;", "450 ms", "600 [540, 660]", `href="#cell-3"`)
	if strings.Contains(page.body, "<b>") {
		t.Error("text of a measurement is markup")
	}
	if a := w.get("/runs/" + both); a.status != 303 || a.header.Get("Location") != "/loads/"+both {
		t.Errorf("its run page answers %d to %q", a.status, a.header.Get("Location"))
	}
	w.get("/runs/"+both+"/parquet").want(t, 200, "requests")
	w.get("/runs/"+both+"/bundle.zip").want(t, 200, "PK")
	for _, bad := range []string{run, "01ARZ3NDEKTSV4RRFFQ69G5FAV", "..%2f..", "x"} {
		if a := w.get("/loads/" + bad); a.status != 404 {
			t.Errorf("/loads/%s: %d", bad, a.status)
		}
	}
}

// TestComparePages reaches every comparison, and finds those of a model.
func TestComparePages(t *testing.T) {
	w := newWorld(t, nil)
	dir := filepath.Join(w.dir, "shown")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lo, hi := -.01, .02
	rep := &report.Report{RunID: "x", Verdict: "equivalent", Suites: []report.Suite{{ID: "aime", Questions: 100, Comparisons: []report.Comparison{{Candidate: "nvfp4", Baseline: "fp8", Diff: .005, Lo: &lo, Hi: &hi, Margin: .05, Verdict: "equivalent", Used: 100}}}}}
	f, err := os.Create(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.JSON(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	const runs = 40
	outcome, _ := json.Marshal(map[string]string{"manifest": filepath.Join(dir, "manifest.json")})
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.dir, "store.db")+"?_pragma=busy_timeout(15000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	w.many(500) // papers, newer and older ones
	for i := range runs {
		id := fmt.Sprintf("01B%023d", i)
		if _, err := db.Exec(`INSERT INTO runs (id, created_at, updated_at, target, state, subject, title) VALUES (?, ?, 1, ?, 'done', ?, ?)`,
			id, 1700000000000000+int64(i)*7000000, fmt.Sprintf("https://huggingface.co/org/m%d", i), fmt.Sprintf("hf_model:org/m%d", i), fmt.Sprintf("org/m%d", i)); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 { // one that was given up before it compared anything
			continue
		}
		if _, err := db.Exec(`INSERT INTO documents (run_id, name, body) VALUES (?, 'outcome', ?)`, id, outcome); err != nil {
			t.Fatal(err)
		}
	}
	link := regexp.MustCompile(`<h2><a href="/runs/(01B[0-9]+)"`)
	next := regexp.MustCompile(`rel="next" href="([^"]+)"`)
	seen := map[string]bool{}
	pages := 0
	for path := "/compare"; path != "" && pages < 9; pages++ {
		a := w.get(path)
		a.want(t, 200, "Compare")
		for _, m := range link.FindAllStringSubmatch(a.body, -1) {
			if seen[m[1]] {
				t.Errorf("%s is shown twice", m[1])
			}
			seen[m[1]] = true
		}
		path = ""
		if m := next.FindStringSubmatch(a.body); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(seen) != runs*3/4 || pages < 2 {
		t.Errorf("%d comparisons on %d pages", len(seen), pages)
	}
	if got := link.FindAllString(w.get("/compare?q=org/m17").body, -1); len(got) != 1 {
		t.Errorf("found %q", got)
	}
	w.get("/compare?q=org/m16").want(t, 200, "org/m16", "aime: nvfp4")
	w.get("/compare?q=nobody").want(t, 200, "No comparison here is like that")
	if a := w.get("/compare?before=01ZZZZZZZZ"); a.status != 404 {
		t.Errorf("from a run that is not there: %d", a.status)
	}
}
