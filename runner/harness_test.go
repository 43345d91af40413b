package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
)

// process executes attempts as plain child processes. Its faults stand for
// what an executor may meet: lost workers and times in which it cannot look.
type process struct {
	dir     string
	mu      sync.Mutex
	jobs    map[string]*job
	keys    []string
	lose    map[string]int   // by arm: how many tries are lost
	blind   int              // observations that fail
	started func() time.Time // when an attempt says it started; nil is now
}

type job struct {
	a      Attempt
	cmd    *exec.Cmd
	st     Status
	done   chan struct{}
	cancel bool
}

func (p *process) Submit(_ context.Context, a Attempt) (Handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := a.Key.String()
	if p.jobs[key] != nil {
		return Handle(key), nil
	}
	j := &job{a: a, done: make(chan struct{}), st: Status{Phase: Running, Started: time.Now(), Since: time.Now(), Placement: Placement{SKU: "h200"}}}
	if p.started != nil {
		j.st.Started = p.started()
	}
	p.jobs[key], p.keys = j, append(p.keys, key)
	if p.lose[a.Key.Arm] > 0 {
		p.lose[a.Key.Arm]--
		j.end(Failed, ReasonLost, 0)
		return Handle(key), nil
	}
	j.st.Stdout = filepath.Join(p.dir, a.Key.Hash()+".out")
	j.st.Stderr = filepath.Join(p.dir, a.Key.Hash()+".err")
	out, err := os.Create(j.st.Stdout)
	if err != nil {
		return "", err
	}
	errs, err := os.Create(j.st.Stderr)
	if err != nil {
		return "", err
	}
	ctx, stop := context.WithCancel(context.Background())
	if a.Limits.Wall > 0 {
		ctx, stop = context.WithTimeout(context.Background(), a.Limits.Wall)
	}
	j.cmd = exec.CommandContext(ctx, a.Argv[0], a.Argv[1:]...)
	j.cmd.Dir, j.cmd.Stdout, j.cmd.Stderr = a.Dir, out, errs
	j.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent"}
	for k, v := range a.Env {
		j.cmd.Env = append(j.cmd.Env, k+"="+v)
	}
	if err := j.cmd.Start(); err != nil {
		stop()
		j.st.Message = err.Error()
		j.end(Failed, ReasonStart, 0)
		return Handle(key), nil
	}
	go func() {
		defer stop()
		err := j.cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		switch code := j.cmd.ProcessState.ExitCode(); {
		case j.cancel:
			j.end(Cancelled, ReasonCancelled, code)
		case ctx.Err() != nil:
			j.end(Failed, ReasonTimeout, code)
		case err != nil:
			j.end(Failed, ReasonExit, code)
		default:
			j.end(Succeeded, "", 0)
		}
	}()
	return Handle(key), nil
}

func (j *job) end(p Phase, r Reason, code int) {
	j.st.Phase, j.st.Reason, j.st.ExitCode, j.st.Finished = p, r, code, time.Now()
	close(j.done)
}

func (p *process) Observe(_ context.Context, h Handle) (Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blind > 0 {
		p.blind--
		return Status{}, errors.New("the network is down")
	}
	j := p.jobs[string(h)]
	if j == nil {
		return Status{}, fmt.Errorf("no such attempt %s", h)
	}
	return j.st, nil
}

func (p *process) Cancel(_ context.Context, h Handle) error {
	p.mu.Lock()
	j := p.jobs[string(h)]
	if j == nil || j.st.Phase.Final() {
		p.mu.Unlock()
		return nil
	}
	j.cancel = true
	p.mu.Unlock()
	err := j.cmd.Process.Kill()
	<-j.done
	return err
}

// kept keeps the records in memory, by run id.
type kept struct {
	mu   sync.Mutex
	recs map[string]*Record
	fail error
}

func (k *kept) Commit(_ context.Context, rec *Record) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return "", k.fail
	}
	k.recs[rec.Run.ID] = rec
	return "manifest/" + rec.Run.ID, nil
}

type folder string

func (f folder) Checkout(context.Context, string, string, bool) (string, error) {
	return string(f), nil
}

type planned struct{ plan *spec.Plan }

func (p planned) Plan(_ context.Context, _ PlanRequest, emit func(string, EventKind, any)) (*spec.Plan, error) {
	emit(StageResolve, StageStarted, nil)
	emit(StageResolve, StageFinished, map[string]string{"id": "x"})
	return p.plan, nil
}

type bench struct {
	*Runner
	t     *testing.T
	exec  *process
	res   *kept
	store *store.Store
	src   string
	hook  func(point string) // of the store
}

// newBench lays out a checkout and a runner over it.
func newBench(t *testing.T, files map[string]string, edit func(*Config)) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, hook: func(string) {}}
	s, err := store.Open(t.Context(), filepath.Join(dir, "store.db"), store.Config{Hook: func(p string) { b.hook(p) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	*b = bench{t: t, hook: b.hook, store: s, src: filepath.Join(dir, "src"), res: &kept{recs: map[string]*Record{}},
		exec: &process{dir: t.TempDir(), jobs: map[string]*job{}, lose: map[string]int{}}}
	for name, body := range files {
		p := filepath.Join(b.src, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(body), 0o644))
	}
	must(t, os.MkdirAll(b.src, 0o755))
	cfg := Config{
		Store: s, Executors: map[string]Executor{"local": b.exec}, Source: folder(b.src), Results: b.res, Dir: dir,
		Rand: rand.Reader, PollMin: time.Millisecond, PollMax: 5 * time.Millisecond,
	}
	if edit != nil {
		edit(&cfg)
	}
	b.Runner, err = New(cfg)
	must(t, err)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }

// simple is a plan of one run with one claim about its metric "acc".
func simple(argv ...string) *spec.Plan {
	p := &spec.Plan{
		Schema: spec.SchemaV1, Target: spec.Target{Input: "demo", Kind: "git", ID: "demo"},
		Source: spec.Source{Repo: "https://example.org/x", Commit: strings.Repeat("a", 40)},
		Claims: []spec.Claim{{ID: "c1", Text: "0.9 accuracy", Metric: "acc", Value: ptr(0.9), Checkable: "numeric"}},
		Runs: []spec.Run{{
			ID: "main", Kind: "full", Route: "recompute", ClaimIDs: []string{"c1"}, Argv: argv, Cwd: ".", Status: "auto", Selected: true,
			Collect: []spec.Collect{{Metric: "acc", Kind: "stdout_regex", Pattern: `acc=(\S+)`}},
		}},
	}
	p.Seal()
	return p
}

func (b *bench) create(req Request) string {
	b.t.Helper()
	run, created, err := b.Create(b.t.Context(), req)
	must(b.t, err)
	if !created {
		b.t.Fatal("the run was there already")
	}
	return run.ID
}

func (b *bench) kinds(id string) string {
	b.t.Helper()
	ev, err := b.Events(b.t.Context(), id, 0, 10000)
	must(b.t, err)
	var out []string
	for i, e := range ev {
		if e.Seq != int64(i+1) {
			b.t.Errorf("event %d has the number %d", i+1, e.Seq)
		}
		if e.Kind != PhaseChanged && e.Kind != CostSeen {
			out = append(out, strings.TrimPrefix(e.Stage+":"+string(e.Kind), ":"))
		}
	}
	return strings.Join(out, " ")
}

func (b *bench) consistent(id string) {
	b.t.Helper()
	problems, err := b.store.Check(b.t.Context())
	must(b.t, err)
	if len(problems) > 0 {
		b.t.Errorf("the store is inconsistent: %v", problems)
	}
	entries, err := os.ReadDir(b.runDir(id))
	must(b.t, err)
	for _, e := range entries {
		if e.Name() != "lock" {
			b.t.Errorf("%s is left in the run's folder", e.Name())
		}
	}
}
