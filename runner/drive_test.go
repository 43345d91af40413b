package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
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

// TestInterruptedAnywhere ends the context right before each kind of write
// that happens while a command runs: the command never runs on.
func TestInterruptedAnywhere(t *testing.T) {
	for _, point := range []string{"store:put_attempt:before", "store:put_attempt:after", "store:set_handle:before", "store:set_handle:after", "store:set_status:before", "store:set_status:after"} {
		b := newBench(t, map[string]string{"main.sh": "sleep 0.3; echo acc=0.9\n"}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		b.hook = func(p string) {
			if p == point {
				cancel()
			}
		}
		id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
		out, err := b.Drive(ctx, id)
		if !errors.Is(err, context.Canceled) || out.State != store.Interrupted {
			t.Errorf("%s: %+v, %v", point, out, err)
		}
		for key, j := range b.exec.jobs {
			if !j.st.Phase.Final() {
				t.Errorf("%s: %s runs on", point, key)
			}
		}
		if out, err = b.Drive(t.Context(), id); err != nil || out.Verdict != verdict.Aligned {
			t.Errorf("%s: after the resume %+v, %v", point, out, err)
		}
		b.consistent(id)
	}
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
	req := Request{Target: "x", Plan: simple("true"), Caps: Caps{Wall: time.Hour, USD: 2}, Wishes: Wishes{SKU: "h200"}, Key: "k"}
	body, err := json.Marshal(req)
	must(t, err)
	var back Request
	must(t, json.Unmarshal(body, &back))
	if again, _ := json.Marshal(back); string(again) != string(body) {
		t.Errorf("%s\nbecame\n%s", body, again)
	}
}

// TestClockIsSet holds a cap although the machine's clock was set back by an
// hour after the command had started.
func TestClockIsSet(t *testing.T) {
	b := newBench(t, map[string]string{"main.sh": "sleep 0.2; echo acc=0.9\n"}, nil)
	b.exec.started = func() time.Time { return time.Now().Add(-time.Hour) }
	id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true, Caps: Caps{Wall: 30 * time.Minute}})
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	if out.Stopped != "" || out.Verdict != verdict.Aligned {
		t.Errorf("outcome = %s %q", out.Verdict, out.Stopped)
	}
}

// TestStoppedByOthers does not start again what somebody else stopped.
func TestStoppedByOthers(t *testing.T) {
	b := newBench(t, map[string]string{"main.sh": "touch started; sleep 60\n"}, nil)
	id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
	go func() {
		for !exists(filepath.Join(b.runDir(id), "work", "started")) {
			time.Sleep(time.Millisecond)
		}
		_ = b.exec.Cancel(context.Background(), Handle(id+"/execute/main/0/0"))
	}()
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	if out.Verdict != verdict.Inconclusive || len(b.exec.keys) != 1 || out.Units[0].Reason != "the command was stopped" {
		t.Errorf("%s, %+v", out.Verdict, out.Units)
	}
}

func TestCancelWhilePlanning(t *testing.T) {
	b := newBench(t, nil, nil)
	b.cfg.Planner = waiting{}
	id := b.create(Request{Target: "x", Yes: true})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if run, _ := b.store.Run(context.Background(), id); run.State == store.Planning {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if _, err := b.Cancel(context.Background(), id, "me"); err != nil {
			t.Error(err)
		}
	})
	out, err := b.Drive(t.Context(), id)
	wg.Wait()
	if err != nil || out.State != store.Cancelled {
		t.Errorf("Drive = %+v, %v", out, err)
	}
	b.consistent(id)
}

// waiting is a planner that waits for the end of its context.
type waiting struct{}

func (waiting) Plan(ctx context.Context, _ PlanRequest, _ func(string, EventKind, any)) (*spec.Plan, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAttemptsAndLogs(t *testing.T) {
	p := simple("sh", "-c", "echo acc=0.9")
	for _, id := range []string{"a b", "a-b"} {
		r := p.Runs[0]
		r.ID, r.Argv = id, []string{"echo", id}
		p.Runs = append(p.Runs, r)
	}
	b := newBench(t, nil, nil)
	id := b.create(Request{Plan: p, Yes: true})
	_, err := b.Drive(t.Context(), id)
	must(t, err)
	list, err := b.Attempts(t.Context(), id)
	if err != nil || len(list) != 3 || list[0].Status.Phase != Succeeded || list[0].Spend.WallSeconds <= 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	r, err := b.Logs(t.Context(), id, list[0], 4)
	must(t, err)
	defer r.Close()
	if body, err := io.ReadAll(r); err != nil || string(body) != "0.9\n" {
		t.Errorf("logs from byte 4 = %q, %v", body, err)
	}
	seen := map[string]bool{}
	for _, body := range b.res.recs[id].Logs {
		seen[string(body)] = true
	}
	if !seen["a b\n"] || !seen["a-b\n"] {
		t.Errorf("one log took the place of another: %v", seen)
	}
}

// FuzzLife drives a run through faults that follow from the seed: lost
// workers, an executor that cannot look, interrupts, commits that fail.
// Whatever happens, it ends with one result and a consistent store.
func FuzzLife(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := mathrand.New(mathrand.NewPCG(seed, 1))
		b := newBench(t, map[string]string{"main.sh": "[ -e mark ] && exit 5; touch mark; sleep 0.0$2; echo acc=0.$1\n"}, nil)
		p := simple("sh", "main.sh", "{seed}", fmt.Sprint(rng.IntN(4)))
		p.Runs[0].Seeds = []int64{8, 9}
		p.Runs[0].Setup = []spec.Step{{Argv: []string{"true"}}}
		b.exec.lose["main"], b.exec.lose["main+setup1"], b.exec.blind = rng.IntN(3), rng.IntN(2), rng.IntN(4)
		id := b.create(Request{Plan: p, Yes: true})
		var out Outcome
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(60))*time.Millisecond)
			if b.res.fail = nil; rng.IntN(4) == 0 {
				b.res.fail = errors.New("no space left on device")
			}
			var err error
			if out, err = b.Drive(ctx, id); err == nil {
				cancel()
				break
			}
			cancel()
		}
		b.res.fail = nil
		out, err := b.Drive(t.Context(), id)
		must(t, err)
		if out.State != store.Done || len(b.res.recs) != 1 {
			t.Fatalf("outcome %+v, %d records", out, len(b.res.recs))
		}
		// A piece of work that is lost three times is given up.
		if len(out.Metrics) != 2 && !strings.Contains(out.Units[len(out.Units)-1].Reason, "lost") {
			t.Errorf("metrics %+v, units %+v", out.Metrics, out.Units)
		}
		b.consistent(id)
	})
}
