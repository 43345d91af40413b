package web

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/bundle"
	"github.com/repromill/repromill/runner/queue"
	"github.com/repromill/repromill/runner/store"
)

// world is a server over a real store, runner, queue and data set. Attempts are
// not processes: writer leaves the file that the demo's simulation writes.
type world struct {
	t     testing.TB
	dir   string
	store *store.Store
	srv   *Server
	http  *httptest.Server
	exec  *writer
	plans *plans
	stop  context.CancelFunc
	done  chan struct{}
}

// writer is an executor whose commands write what the demo's command writes,
// once the gate is open.
type writer struct {
	dir  string
	gate chan struct{}
	mu   sync.Mutex
	jobs map[runner.Handle]runner.Attempt
	n    int // how often something was begun
}

const simulated = `{
  "gpu_time_reduction_percent": 66.35168132977718,
  "preemption_ratio": 0.0,
  "p99_ttft_improvement_percent": 7.944330450567112
}
`

func (w *writer) Submit(_ context.Context, a runner.Attempt) (runner.Handle, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := runner.Handle(a.Key.String())
	if _, known := w.jobs[h]; !known {
		w.jobs[h], w.n = a, w.n+1
		if err := os.WriteFile(w.out(h), []byte("loading traces\n\x1b[31m<script>alert(1)</script>\x1b[0m\n"), 0o600); err != nil {
			return "", err
		}
	}
	return h, nil
}

func (w *writer) out(h runner.Handle) string {
	return filepath.Join(w.dir, strings.ReplaceAll(string(h), "/", "_")+".out")
}

func (w *writer) Observe(_ context.Context, h runner.Handle) (runner.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.jobs[h]
	st := runner.Status{Phase: runner.Running, Stdout: w.out(h), Started: time.Now().Add(-time.Second), Placement: runner.Placement{SKU: "cpu"}}
	select {
	case <-w.gate:
	default:
		return st, nil
	}
	if err := os.MkdirAll(filepath.Join(a.Dir, "results"), 0o755); err != nil {
		return st, err
	}
	if err := os.WriteFile(filepath.Join(a.Dir, "results", "metrics.json"), []byte(simulated), 0o600); err != nil {
		return st, err
	}
	st.Phase, st.Finished = runner.Succeeded, time.Now()
	return st, nil
}

func (w *writer) Cancel(_ context.Context, h runner.Handle) error { return nil }

// plans answers every target with the demo's plan.
type plans struct {
	change func(*spec.Plan)
	fail   error
	asked  int
	mu     sync.Mutex
}

func demoPlan(t testing.TB) *spec.Plan {
	t.Helper()
	b, err := os.ReadFile("testdata/plan.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := spec.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plans) Plan(_ context.Context, req runner.PlanRequest, emit func(string, runner.EventKind, any)) (*spec.Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked++; p.fail != nil {
		return nil, p.fail
	}
	b, err := os.ReadFile("testdata/plan.json")
	if err != nil {
		return nil, err
	}
	var plan spec.Plan
	if err := json.Unmarshal(b, &plan); err != nil {
		return nil, err
	}
	for _, st := range []string{runner.StageResolve, runner.StageFetch, runner.StagePlan} {
		emit(st, runner.StageStarted, nil)
		emit(st, runner.StageFinished, map[string]string{"message": st + " done"})
	}
	plan.Target.Input = req.Target
	if p.change != nil {
		p.change(&plan)
	}
	plan.Seal()
	return &plan, nil
}

type checkout string

func (s checkout) Checkout(context.Context, string, string, bool) (string, error) {
	return string(s), nil
}

func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, dir: dir, exec: &writer{dir: dir, gate: make(chan struct{}), jobs: map[runner.Handle]runner.Attempt{}}, plans: &plans{}, done: make(chan struct{})}
	var err error
	if w.store, err = store.Open(t.Context(), filepath.Join(dir, "store.db"), store.Config{}); err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "simulate.py"), []byte("print(1)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := dataset.Open(filepath.Join(dir, "results"), dataset.Config{})
	if err != nil {
		t.Fatal(err)
	}
	run, err := runner.New(runner.Config{
		Store: w.store, Executors: map[string]runner.Executor{"local": w.exec, "second": w.exec}, Planner: w.plans, Source: checkout(src),
		Results: runner.InDataset(data), Dir: filepath.Join(dir, "state"), Rand: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	q := queue.New(queue.Config{Store: w.store, Driver: run, Poll: 20 * time.Millisecond, Executing: map[string]int{"local": 4},
		Approve: func(ctx context.Context, x store.Waiting) error { return w.srv.AutoApprove(ctx, x) }})
	cfg := Config{Store: w.store, Runner: run, Data: data, Queue: q, Queues: []string{"local", "second"}, Rand: rand.Reader, Secret: bytes.Repeat([]byte("s"), 32), Version: "repromill test"}
	if change != nil {
		change(&cfg)
	}
	if w.srv, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewServer(w.srv.Handler())
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { defer close(w.done); q.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-w.done
		w.srv.Drain()
		w.http.CloseClientConnections()
		w.http.Close()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// open lets the commands end.
func (w *world) open() { close(w.exec.gate) }

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request; headers are pairs.
func (w *world) ask(method, path, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.http.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (w *world) get(path string, headers ...string) answer {
	return w.ask(http.MethodGet, path, "", headers...)
}

// form sends a form as a page of the server would.
func (w *world) form(path string, values url.Values, headers ...string) answer {
	return w.ask(http.MethodPost, path, values.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded", "Origin", w.http.URL, "Sec-Fetch-Site", "same-origin"}, headers...)...)
}

func (w *world) json(path, body string, headers ...string) answer {
	return w.ask(http.MethodPost, path, body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// submit posts the demo and returns its id.
func (w *world) submit(headers ...string) string {
	w.t.Helper()
	a := w.json("/v1/runs", `{"target":"https://arxiv.org/abs/2604.08075"}`, headers...)
	var run apiRun
	if err := json.Unmarshal([]byte(a.body), &run); err != nil || a.status != http.StatusCreated {
		w.t.Fatalf("submit: %d %s %v", a.status, a.body, err)
	}
	return run.ID
}

// wait polls until the run is in the state.
func (w *world) wait(id string, want store.State) store.Run {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		run, err := w.store.Run(context.Background(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		if run.State == want {
			return run
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("run %s is %s (%s), want %s", id, run.State, run.Error, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (a answer) want(t testing.TB, status int, parts ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %.300s", a.status, status, a.body)
	}
	for _, p := range parts {
		if !strings.Contains(a.body, p) {
			t.Errorf("the answer lacks %q: %.2000s", p, a.body)
		}
	}
}

func TestFromPasteToVerdict(t *testing.T) {
	w := newWorld(t, nil)
	w.get("/").want(t, 200, "Paste a paper", `name="target"`)
	a := w.form("/runs", url.Values{"target": {"2604.08075"}, "token": {"abc"}})
	a.want(t, http.StatusSeeOther)
	at := a.header.Get("Location")
	if again := w.form("/runs", url.Values{"target": {"2604.08075"}, "token": {"abc"}}).header.Get("Location"); again != at {
		t.Errorf("the same form twice gives %s and %s", at, again)
	}
	id := strings.TrimPrefix(at, "/runs/")
	w.wait(id, store.Planned)
	w.get(at).want(t, 200, "waits for approval", "Dual-Pool", "31–42", "README.md:13", "Approve and run", "8 s (2.4 s to 38 s)", "published")
	if w.exec.n != 0 {
		t.Error("something ran before the approval")
	}
	w.form(at+"/approve", nil).want(t, http.StatusSeeOther)
	w.wait(id, store.Running)
	for i := 0; !strings.Contains(w.get(at).body, "loading traces"); i++ {
		if i == 500 {
			t.Fatal("the output is never shown")
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.get(at).want(t, 200, "running", "Cost so far", "&lt;script&gt;alert(1)", "expected")
	w.open()
	w.wait(id, store.Done)
	w.get(at).want(t, 200, "partially aligned", "66.35", "<svg", "Notebook", "results/metrics.json:2", "read_parquet")
	w.get(at+"/report.html").want(t, 200, "<!doctype html>", "partially aligned", "<style>")
	w.get(at+"/report.md").want(t, 200, "# ")
	w.get(at+"/report.json").want(t, 200, `"schema": "repromill.report/v1"`)
	w.get(at+"/figures/claims.svg").want(t, 200, "<svg", "gpu time reduction")
	if a := w.get(at + "/figures/card.png"); a.status != 200 || !strings.HasPrefix(a.body, "\x89PNG") {
		t.Errorf("card: %d, %.20q", a.status, a.body)
	}
	w.get(at+"/figures/..%2f..%2fpasswd.svg").want(t, 404)
	w.get(at+"/parquet").want(t, 200, "claims", "metrics")
	if a := w.get(at + "/parquet/0.parquet"); a.status != 200 || !strings.HasPrefix(a.body, "PAR1") {
		t.Errorf("parquet: %d, %.20q", a.status, a.body)
	}
	w.get(at+"/parquet/99.parquet").want(t, 404)
	archive := w.get(at + "/bundle.zip")
	if b, err := bundle.Read(strings.NewReader(archive.body), int64(len(archive.body))); err != nil || b.Verify(t.Context()) != nil || archive.header.Get("Content-Type") != "application/zip" {
		t.Errorf("the bundle of %d bytes: %v", len(archive.body), err)
	}
	nb := w.get(at + "/notebook.ipynb")
	nb.want(t, 200, "duckdb")
	if !json.Valid([]byte(nb.body)) {
		t.Error("the notebook is no JSON")
	}
	w.get("/abs/2604.08075v1").want(t, 200, "Latest verdict", "partially aligned")
	w.get("/audit").want(t, 200, "run.submit", "run.approve")
	w.get("/runs?state=done").want(t, 200, id)
	w.get("/runs?q=nothing-like-it").want(t, 200, "No run is like that")
}

func TestOpeningAPageStartsNothing(t *testing.T) {
	w := newWorld(t, nil)
	for _, p := range []string{"/abs/2604.08075", "/pdf/2604.08075v2", "/abs/hep-th/9901001", "/nvidia/Qwen3.6-27B-NVFP4", "/?target=2604.08075"} {
		w.get(p).want(t, 200, "lan it")
	}
	time.Sleep(100 * time.Millisecond)
	if runs, err := w.store.List(t.Context(), store.Filter{}); err != nil || len(runs) != 0 || w.plans.asked != 0 {
		t.Errorf("%d runs, %d plans, %v", len(runs), w.plans.asked, err)
	}
}

func TestSwappedHosts(t *testing.T) {
	for path, want := range map[string]string{
		"/abs/2604.08075": "arxiv 2604.08075", "/pdf/2604.08075v2": "arxiv 2604.08075v2", "/html/2604.08075v1": "arxiv 2604.08075v1", "/pdf/2604.08075v2.pdf": "arxiv 2604.08075v2",
		"/abs/hep-th/9901001": "arxiv hep-th/9901001", "/abs/math.GT/0309136v1": "arxiv math/0309136v1",
		"/nvidia/Qwen3.6-27B-NVFP4": "hf_model nvidia/Qwen3.6-27B-NVFP4", "/nvidia/Qwen3.6-27B-NVFP4/tree/main": "hf_model nvidia/Qwen3.6-27B-NVFP4",
		"/abs/not-an-id": "", "/a/b/c/d/e": "", "/.env": "", "/wp-login.php": "", "/abs/": "",
	} {
		got, err := swapped(path)
		text := strings.TrimSpace(got.Kind + " " + got.ID + got.Version)
		if text != want || (err != nil) != (want == "") {
			t.Errorf("swapped(%q) = %q, %v; want %q", path, text, err, want)
		}
	}
}

func TestEditingAPlan(t *testing.T) {
	w := newWorld(t, nil)
	id := w.submit()
	w.wait(id, store.Planned)
	w.get("/runs/"+id+"/plan").want(t, 200, "Show what changes", "timeout_min")
	edit := url.Values{"chosen": {"1"}, "run": {"smoke"}, "seeds": {"3"}, "timeout_min": {"5"}, "do": {"diff"}}
	w.form("/runs/"+id+"/plan", edit).want(t, 200, "What the change does", "what is executed", "runs.minimal.selected", "make this run")
	w.form("/runs/"+id+"/plan", url.Values{"plan": {"{"}, "do": {"diff"}}).want(t, 422, "cannot be read")
	w.form("/runs/"+id+"/plan", url.Values{"seeds": {"-1"}, "do": {"diff"}}).want(t, 422, "seeds")
	edit.Set("do", "run")
	a := w.form("/runs/"+id+"/plan", edit)
	a.want(t, http.StatusSeeOther)
	next := strings.TrimPrefix(a.header.Get("Location"), "/runs/")
	w.wait(next, store.Planned)
	w.wait(id, store.Cancelled)
	p, err := w.srv.cfg.Runner.Plan(t.Context(), next)
	if err != nil || !p.Runs[0].Selected || p.Runs[1].Selected || len(p.Runs[1].Seeds) != 3 || p.Runs[0].TimeoutS != 300 {
		t.Errorf("plan = %+v, %v", p.Runs, err)
	}
}

func TestIdempotency(t *testing.T) {
	w := newWorld(t, nil)
	var wg sync.WaitGroup
	ids := make(chan string, 20)
	for range 20 {
		wg.Go(func() {
			a := w.json("/v1/runs", `{"target":"2604.08075"}`, "Idempotency-Key", "one")
			var run apiRun
			if json.Unmarshal([]byte(a.body), &run) != nil || a.status != 201 && a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
			ids <- run.ID
		})
	}
	wg.Wait()
	close(ids)
	seen := map[string]bool{}
	for id := range ids {
		seen[id] = true
	}
	if len(seen) != 1 {
		t.Errorf("%d runs of one key", len(seen))
	}
	w.json("/v1/runs", `{"target":"2604.08076"}`, "Idempotency-Key", "one").want(t, 422, "another request")
	w.json("/v1/runs", `{"target":"2604.08075"}`, "Idempotency-Key", strings.Repeat("x", 300)).want(t, 400)
	if list, err := w.store.List(t.Context(), store.Filter{}); err != nil || len(list) != 1 {
		t.Errorf("%d runs, %v", len(list), err)
	}
}

func TestRetryAndCancel(t *testing.T) {
	w := newWorld(t, nil)
	w.plans.fail = errors.New("the site answers nonsense")
	id := w.submit()
	w.wait(id, store.Failed)
	w.get("/runs/"+id).want(t, 200, "It stopped", "Try again")
	w.plans.mu.Lock()
	w.plans.fail = nil
	w.plans.mu.Unlock()
	w.form("/runs/"+id+"/retry", nil).want(t, http.StatusSeeOther)
	w.wait(id, store.Planned)
	w.json("/v1/runs/"+id+"/retry", "").want(t, 409)
	w.json("/v1/runs/"+id+"/cancel", "").want(t, 200, `"cancelled"`)
	w.json("/v1/runs/"+id+"/approve", "").want(t, 409)
	w.get("/v1/runs/"+fmt.Sprintf("%026d", 7)).want(t, 404)
}
