package runner

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
)

// process executes attempts as plain child processes. Its faults stand for
// what an executor may meet: lost workers and times in which it cannot look.
type process struct {
	dir    string
	mu     sync.Mutex
	jobs   map[string]*job
	keys   []string
	lose   map[string]int // by arm: how many tries are lost
	blind  int            // observations that fail
	submit func(a Attempt) error
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
	if p.submit != nil {
		if err := p.submit(a); err != nil {
			return "", err
		}
	}
	key := a.Key.String()
	if p.jobs[key] != nil {
		return Handle(key), nil
	}
	j := &job{a: a, done: make(chan struct{}), st: Status{Phase: Running, Started: time.Now(), Since: time.Now(), Placement: Placement{SKU: "h200"}}}
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
}

// newBench lays out a checkout and a runner over it.
func newBench(t *testing.T, files map[string]string, edit func(*Config)) *bench {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), filepath.Join(dir, "store.db"), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bench{t: t, store: s, src: filepath.Join(dir, "src"), res: &kept{recs: map[string]*Record{}},
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

func TestDriveToAVerdict(t *testing.T) {
	b := newBench(t, map[string]string{"main.sh": "echo acc=0.91\necho noise >&2\n"}, nil)
	id := b.create(Request{Plan: simple("sh", "main.sh")})
	out, err := b.Drive(t.Context(), id)
	if err != nil || out.State != store.Planned {
		t.Fatalf("before approval: %+v, %v", out, err)
	}
	if len(b.exec.keys) > 0 {
		t.Fatal("something was executed before it was approved")
	}
	must(t, b.Approve(t.Context(), id, "me"))
	out, err = b.Drive(t.Context(), id)
	must(t, err)
	if out.State != store.Done || out.Verdict != verdict.Aligned || out.Manifest != "manifest/"+id {
		t.Errorf("outcome = %+v", out)
	}
	if m := out.Metrics; len(m) != 1 || m[0].Value.Value != 0.91 || m[0].Quote != "acc=0.91" || m[0].Attempt != id+"/execute/main/0/0" {
		t.Errorf("metrics = %+v", m)
	}
	rec := b.res.recs[id]
	if rec == nil || string(rec.Logs["execute-main-s0-n0.err"]) != "noise\n" || rec.Run.ApprovedBy != "me" {
		t.Errorf("record = %+v", rec)
	}
	want := "run.created resolve:stage.skipped fetch:stage.skipped plan:stage.skipped run.approved " +
		"prepare:stage.started prepare:stage.finished execute:stage.started execute:stage.finished " +
		"collect:stage.started collect:metric collect:stage.finished commit:stage.started commit:verdict commit:stage.finished run.finished"
	if got := b.kinds(id); got != want {
		t.Errorf("events:\n%s\nwant\n%s", got, want)
	}
	b.consistent(id)
	again, err := b.Drive(t.Context(), id)
	if err != nil || again.Verdict != out.Verdict || len(b.exec.keys) != 1 {
		t.Errorf("driving a finished run: %+v, %v, %d attempts", again, err, len(b.exec.keys))
	}
}

func TestPlannerIsAsked(t *testing.T) {
	b := newBench(t, nil, nil)
	b.cfg.Planner = planned{simple("true")}
	id := b.create(Request{Target: "https://example.org", Yes: true, By: "cli"})
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	if out.Verdict != verdict.Inconclusive || !strings.Contains(out.Claims[0].Reason, "no line of stdout matches") {
		t.Errorf("outcome = %s, %+v", out.Verdict, out.Claims)
	}
	if got := b.kinds(id); !strings.HasPrefix(got, "run.created resolve:stage.started resolve:stage.finished run.approved prepare:") {
		t.Errorf("events: %s", got)
	}
}

func TestUnits(t *testing.T) {
	p := simple("sh", "go.sh", "{seed}")
	p.Runs[0].Seeds = []int64{7, 8, 9}
	p.Runs[0].Cwd = "sub"
	p.Runs[0].Env = map[string]string{"WHERE": "$PWD/x"}
	p.Runs[0].Setup = []spec.Step{{Argv: []string{"sh", "-c", "echo set > sub/setup.txt"}}}
	p.Runs[0].Patches = []spec.Patch{{Kind: "source", File: "sub/go.sh", Line: 2, Before: "S=x", After: "S=$1", Reason: "seed"}}
	p.Runs[0].Expects = &spec.Expectation{Metric: "acc"}
	p.Runs = append(p.Runs, spec.Run{ID: "two words/..", Kind: "smoke", Route: "demo", Status: "auto", Selected: true, Cwd: "new",
		Script: &spec.Script{Interpreter: "bash", Text: "pwd > where\nfalse\necho never\n"}})
	p.Seal()
	b := newBench(t, map[string]string{"sub/go.sh": "# sets\nS=x\n[ -e done ] && exit 9\ntouch done; cat setup.txt\necho acc=0.$S $WHERE\n"}, nil)
	id := b.create(Request{Plan: p, Yes: true, KeepWork: true})
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	var got []string
	for _, m := range out.Metrics {
		got = append(got, fmt.Sprintf("%d:%g", m.Seed, m.Value.Value))
	}
	if want := "7:0.7 8:0.8 9:0.9"; strings.Join(got, " ") != want {
		t.Errorf("metrics = %v, want %s; %+v", got, want, out.Units)
	}
	if !strings.Contains(out.Metrics[0].Quote, filepath.Join(b.runDir(id), "work", "sub", "x")) {
		t.Errorf("$PWD was not filled in: %s", out.Metrics[0].Quote)
	}
	if len(out.Units) != 4 || out.Units[3].Reason != "the command ended with code 1" {
		t.Errorf("units = %+v", out.Units)
	}
	if out.Claims[0].Seeds != 3 {
		t.Errorf("claim = %+v", out.Claims[0])
	}
	if _, err := os.Stat(filepath.Join(b.runDir(id), out.Units[3].Dir, "new", "where")); err != nil {
		t.Errorf("--keep-work kept nothing: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for want, edit := range map[string]func(*spec.Plan){
		"no code was found":            func(p *spec.Plan) { p.Source.Repo = "" },
		"(gated): ask for it":          func(p *spec.Plan) { p.Runs[0].Status, p.Runs[0].Reasons = "gated", []string{"ask for it"} },
		"placeholders":                 func(p *spec.Plan) { p.Runs[0].Placeholders = []string{"DATA"} },
		"secrets":                      func(p *spec.Plan) { p.Runs[0].Secrets = []string{"HF_TOKEN"} },
		"needs 8 GPUs and there are 0": func(p *spec.Plan) { p.Runs[0].GPUs.Min = 8 },
		"setup step needs the network": func(p *spec.Plan) { p.Runs[0].Setup = []spec.Step{{Argv: []string{"curl"}, Network: true}} },
		"dataset ImageNet is not at": func(p *spec.Plan) {
			p.Runs[0].Assets = []spec.Asset{{Kind: "dataset", Name: "ImageNet", Access: "manual"}}
		},
		"does not select it": func(p *spec.Plan) { p.Runs[0].Selected = false },
		"main.sh:1 does not fit: expec": func(p *spec.Plan) {
			p.Runs[0].Patches = []spec.Patch{{File: "main.sh", Line: 1, Before: "no", After: "x"}}
		},
		"not the one that its SHA-256": func(p *spec.Plan) {
			p.Runs[0].Argv, p.Runs[0].Script = nil, &spec.Script{Interpreter: "sh", Text: "x", SHA256: strings.Repeat("0", 64)}
		},
	} {
		t.Run(want, func(t *testing.T) {
			b := newBench(t, map[string]string{"main.sh": "echo acc=0.9\n"}, nil)
			p := simple("sh", "main.sh")
			edit(p)
			p.Seal()
			id := b.create(Request{Plan: p, Yes: true})
			out, err := b.Drive(t.Context(), id)
			must(t, err)
			if out.Verdict != verdict.NotAttempted || !strings.Contains(out.Claims[0].Reason, want) {
				t.Errorf("%s: %+v", out.Verdict, out.Claims)
			}
			if len(b.exec.keys) > 0 {
				t.Error("something was executed")
			}
			b.consistent(id)
		})
	}
}

func TestLostWorkIsTriedAgain(t *testing.T) {
	for lost, want := range map[int]verdict.Verdict{1: verdict.Aligned, 2: verdict.Aligned, 3: verdict.Inconclusive} {
		b := newBench(t, map[string]string{"main.sh": "[ -e mark ] && exit 5; touch mark; echo acc=0.9\n"}, nil)
		b.exec.lose["main"] = lost
		b.exec.blind = 5
		id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
		out, err := b.Drive(t.Context(), id)
		must(t, err)
		if out.Verdict != want || out.Units[0].Tries != min(lost+1, 3) || len(out.Units[0].Causes) != min(lost, 2) {
			t.Errorf("%d lost: %s, %+v", lost, out.Verdict, out.Units)
		}
		if n := strings.Count(b.kinds(id), "stage.retried"); n != min(lost, 2) {
			t.Errorf("%d lost: %d events stage.retried", lost, n)
		}
		ev, err := b.Events(t.Context(), id, 0, 0)
		must(t, err)
		unknown := 0
		for _, e := range ev {
			if strings.Contains(string(e.Data), `"phase":"unknown"`) {
				unknown++
			}
		}
		if unknown != 1 {
			t.Errorf("%d events say that the executor cannot look, want 1", unknown)
		}
		b.consistent(id)
	}
}

func TestInterruptAndResume(t *testing.T) {
	b := newBench(t, map[string]string{"main.sh": "touch started; [ -e $GO ] || sleep 60; echo acc=0.9\n"}, nil)
	p := simple("sh", "main.sh")
	flag := filepath.Join(t.TempDir(), "go")
	p.Runs[0].Env = map[string]string{"GO": flag}
	id := b.create(Request{Plan: p, Yes: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for !exists(filepath.Join(b.runDir(id), "work", "started")) {
			time.Sleep(time.Millisecond)
		}
		if _, err := b.Drive(t.Context(), id); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("driven by process %d", os.Getpid())) {
			t.Errorf("a second driver: %v", err)
		}
		if pid, driven, err := b.Driver(id); err != nil || !driven || pid != os.Getpid() {
			t.Errorf("Driver = %d, %v, %v", pid, driven, err)
		}
		cancel()
	}()
	out, err := b.Drive(ctx, id)
	if !errors.Is(err, context.Canceled) || out.State != store.Interrupted {
		t.Fatalf("Drive = %+v, %v", out, err)
	}
	if j := b.exec.jobs[id+"/execute/main/0/0"]; j.st.Phase != Cancelled {
		t.Errorf("the command is %s", j.st.Phase)
	}
	if _, driven, _ := b.Driver(id); driven {
		t.Error("the lock was not given back")
	}
	must(t, os.WriteFile(flag, nil, 0o644))
	out, err = b.Drive(t.Context(), id)
	must(t, err)
	if out.Verdict != verdict.Aligned || out.Units[0].Tries != 2 || !slices.Equal(out.Units[0].Causes, []string{"cancelled"}) {
		t.Errorf("after the resume: %s, %+v", out.Verdict, out.Units)
	}
	b.consistent(id)
}

func TestCancel(t *testing.T) {
	b := newBench(t, map[string]string{"main.sh": "touch started; sleep 60\n"}, nil)
	id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
	var wg sync.WaitGroup
	wg.Go(func() {
		for !exists(filepath.Join(b.runDir(id), "work", "started")) {
			time.Sleep(time.Millisecond)
		}
		if _, err := b.Cancel(context.Background(), id, "me"); err != nil {
			t.Error(err)
		}
	})
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	wg.Wait()
	if out.State != store.Cancelled || out.Reason != "cancelled by me" || b.exec.jobs[b.exec.keys[0]].st.Phase != Cancelled {
		t.Errorf("outcome = %+v", out)
	}
	b.consistent(id)
	if len(b.res.recs) > 0 {
		t.Error("a cancelled run was committed")
	}
	// One that nobody drives.
	id = b.create(Request{Plan: simple("sh", "main.sh")})
	if st, err := b.Cancel(t.Context(), id, "me"); err != nil || st != store.Cancelled {
		t.Errorf("Cancel = %s, %v", st, err)
	}
	if st, err := b.Cancel(t.Context(), id, "you"); err != nil || st != store.Cancelled {
		t.Errorf("second Cancel = %s, %v", st, err)
	}
	b.consistent(id)
}

func TestCaps(t *testing.T) {
	p := simple("sh", "-c", "echo acc=0.9; sleep 30")
	p.Runs[0].GPUs.Min = 2
	later := p.Runs[0]
	later.ID = "later"
	p.Runs = append(p.Runs, later)
	p.Seal()
	for want, caps := range map[string]Caps{
		"the cap of 300ms wall time is used up":  {Wall: 300 * time.Millisecond},
		"the cap of 0.0002 GPU-hours is used up": {GPUHours: 0.0002},
		"the cap of 0.0006 USD is used up":       {USD: 0.0006},
	} {
		b := newBench(t, nil, func(c *Config) { c.GPUs, c.PriceUSDPerGPUHour = 8, map[string]float64{"h200": 3} })
		id := b.create(Request{Plan: p, Yes: true, Caps: caps})
		out, err := b.Drive(t.Context(), id)
		must(t, err)
		if out.State != store.Done || out.Stopped != want || out.Verdict != verdict.Inconclusive || !strings.Contains(out.Claims[0].Reason, want) {
			t.Errorf("%s: %+v", want, out)
		}
		if len(out.Metrics) != 1 || len(out.Refused) != 1 || out.Refused[0].Run != "later" {
			t.Errorf("%s: metrics %+v, refused %+v", want, out.Metrics, out.Refused)
		}
		if s := out.Spend; s.WallSeconds < 0.2 || s.WallSeconds > 10 || s.GPUHours <= 0 || s.USD <= 0 {
			t.Errorf("%s: spend %+v", want, s)
		}
		b.consistent(id)
	}
}

func TestErrorsOfOursCanBeRetried(t *testing.T) {
	b := newBench(t, map[string]string{"main.sh": "echo acc=0.9\n"}, nil)
	b.res.fail = errors.New("no space left on device")
	id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
	out, err := b.Drive(t.Context(), id)
	if err == nil || out.State != store.Failed {
		t.Fatalf("Drive = %+v, %v", out, err)
	}
	if run, _ := b.store.Run(t.Context(), id); run.State != store.Failed || !strings.Contains(run.Error, "no space left") {
		t.Errorf("run = %+v", run)
	}
	b.res.fail = nil
	out, err = b.Drive(t.Context(), id)
	if err != nil || out.Verdict != verdict.Aligned || len(b.exec.keys) != 1 {
		t.Errorf("Drive = %+v, %v, %d attempts", out, err, len(b.exec.keys))
	}
	b.consistent(id)
}

func TestCreate(t *testing.T) {
	b := newBench(t, nil, nil)
	req := Request{Plan: simple("true"), Key: "nightly/2026-11-21"}
	first, created, err := b.Create(t.Context(), req)
	if err != nil || !created || len(first.ID) != 26 || first.ID[0] != 'K' {
		t.Fatalf("%+v, %v, %v", first, created, err)
	}
	second, created, err := b.Create(t.Context(), req)
	if err != nil || created || second.ID != first.ID {
		t.Errorf("%+v, %v, %v", second, created, err)
	}
	bad := simple("true")
	bad.Runs[0].Cwd = "../.."
	for name, req := range map[string]Request{
		"nothing": {}, "bad plan": {Plan: bad}, "no such executor": {Plan: simple("true"), Executor: "cloud"},
	} {
		var ue interface{ UserError() string }
		if _, _, err := b.Create(t.Context(), req); !errors.As(err, &ue) {
			t.Errorf("%s: %v, want a user error", name, err)
		}
	}
	// A plan edited by hand keeps its warning and gets its own hash.
	edited := simple("true")
	edited.Runs[0].Argv = []string{"false"}
	id := b.create(Request{Plan: edited})
	_, err = b.Drive(t.Context(), id)
	must(t, err)
	p, err := b.Plan(t.Context(), id)
	must(t, err)
	if p.Hash != p.ComputeHash() || len(p.Warnings) != 1 {
		t.Errorf("plan %s, warnings %+v", p.Hash, p.Warnings)
	}
}

func TestRequestRoundTrips(t *testing.T) {
	req := Request{Target: "x", Plan: simple("true"), Caps: Caps{Wall: time.Hour, USD: 2}, SKUs: []string{"h200"}, Key: "k"}
	body, err := json.Marshal(req)
	must(t, err)
	var back Request
	must(t, json.Unmarshal(body, &back))
	if again, _ := json.Marshal(back); string(again) != string(body) {
		t.Errorf("%s\nbecame\n%s", body, again)
	}
}
