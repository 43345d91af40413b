//go:build linux && cluster

package kueue

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
)

// scenario brings a Job to a state of interest on the live cluster.
type scenario struct {
	name  string
	cfg   func(*Config)
	gpus  int
	argv  []string
	until func(Phase) bool
	// before runs before the Job is submitted.
	before func(t *testing.T)
	// meanwhile runs once the Job was submitted.
	meanwhile func(t *testing.T, r *recorder, h runner.Handle)
}

// recorder submits attempts of test programs to the live cluster.
type recorder struct {
	dir string
	cfg Config
	n   int
}

func (r *recorder) submit(t *testing.T, change func(*Config), gpus int, argv ...string) (*Executor, runner.Handle) {
	t.Helper()
	cfg := r.cfg
	if change != nil {
		change(&cfg)
	}
	e := liveExecutor(t, cfg)
	work, err := os.MkdirTemp(r.dir, "work-")
	if err != nil {
		t.Fatal(err)
	}
	r.n++
	h, err := e.Submit(t.Context(), runner.Attempt{
		Key:  runner.AttemptKey{RunID: fmt.Sprintf("%s%d", strings.NewReplacer("/", "", "_", "").Replace(t.Name()), time.Now().UnixNano()), Stage: "execute", N: r.n},
		Argv: append([]string{cfg.Worker, "__program"}, argv...), Dir: work, Writable: []string{work}, ReadOnly: []string{cfg.Worker}, GPUs: gpus,
		Limits: runner.Limits{Wall: 10 * time.Minute, MemoryBytes: 256 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := e.Cancel(ctx, h); err != nil {
			t.Error(err)
		}
	})
	return e, h
}

// look observes until the phase is the wanted one.
func look(t *testing.T, e *Executor, h runner.Handle, ok func(Phase) bool) (Observed, Phase) {
	t.Helper()
	at, name, _, err := e.open(h)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(string(at), fileMade))
	if err != nil {
		t.Fatal(err)
	}
	var m made
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	var p Phase
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		o, err := e.observe(t.Context(), name, m)
		if err != nil {
			t.Fatal(err)
		}
		if p = PhaseOf(o); ok(p) {
			return o, p
		}
	}
	t.Fatalf("still %+v", p)
	return Observed{}, p
}

func is(s State) func(Phase) bool { return func(p Phase) bool { return p.State == s } }

func because(s State, reason string) func(Phase) bool {
	return func(p Phase) bool { return p.State == s && p.Reason == reason }
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("kubectl", args...).CombinedOutput(); err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
}

const holdQueue = `{"spec":{"stopPolicy":%q}}`

func scenarios() []scenario {
	small := func(cpu string) func(*Config) { return func(c *Config) { c.CPU = cpu } }
	reserved := func(priority string) func(*Config) {
		return func(c *Config) { c.Queue, c.Priority, c.CPU = "repromill-reserved", priority, "100m" }
	}
	return []scenario{
		{name: "running", argv: []string{"beat", "beat"}, until: is(Running)},
		{name: "succeeded", argv: []string{"exit", "0"}, until: is(Succeeded)},
		{name: "queued", cfg: small("1500m"), argv: []string{"beat", "beat"}, until: func(p Phase) bool { return p.State == Queued && strings.Contains(p.Message, "quota") }, meanwhile: nil},
		{name: "never-fits", cfg: small("16"), argv: []string{"exit", "0"}, until: is(Blocked)},
		{name: "no-local-queue", cfg: func(c *Config) { c.Queue = "nowhere" }, argv: []string{"exit", "0"}, until: is(Blocked)},
		{name: "no-flavour", cfg: func(c *Config) { reserved("")(c); c.Product = "NVIDIA-L4" }, gpus: 1, argv: []string{"exit", "0"}, until: is(Blocked)},
		{name: "image", cfg: func(c *Config) { c.Image = os.Getenv("REPROMILL_DEVCLUSTER_REGISTRY") + "/repromill/none:1" }, argv: []string{"exit", "0"}, until: because(Starting, "ImagePullBackOff")},
		{name: "unschedulable", cfg: func(c *Config) { reserved("")(c); c.CPU = "32" }, argv: []string{"exit", "0"}, until: because(Starting, "Unschedulable")},
		{name: "deactivated", argv: []string{"beat", "beat"}, until: is(Cancelled), meanwhile: func(t *testing.T, r *recorder, h runner.Handle) {
			e := liveExecutor(t, r.cfg)
			o, _ := look(t, e, h, is(Running))
			kubectl(t, "patch", "workload", "-n", "repromill", o.Workload.Metadata.Name, "--type=merge", "-p", `{"spec":{"active":false}}`)
		}},
		{name: "stopped-queue", argv: []string{"exit", "0"}, cfg: small("1900m"), until: is(Blocked), meanwhile: func(t *testing.T, r *recorder, _ runner.Handle) {
			kubectl(t, "patch", "clusterqueue", "repromill-small", "--type=merge", "-p", fmt.Sprintf(holdQueue, "HoldAndDrain"))
			t.Cleanup(func() {
				kubectl(t, "patch", "clusterqueue", "repromill-small", "--type=merge", "-p", fmt.Sprintf(holdQueue, "None"))
			})
		}},
		{name: "no-pod", argv: []string{"exit", "0"}, until: because(Starting, failedCreate), before: func(t *testing.T) {
			kubectl(t, "create", "resourcequota", "no-pods", "-n", "repromill", "--hard=pods=0")
			t.Cleanup(func() { kubectl(t, "delete", "resourcequota", "no-pods", "-n", "repromill") })
			for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // it holds once it is counted
				if out, _ := exec.Command("kubectl", "get", "resourcequota", "no-pods", "-n", "repromill", "-o", "jsonpath={.status.hard.pods}").Output(); string(out) == "0" || time.Now().After(end) {
					return
				}
			}
		}},
		{name: "failed", argv: []string{"exit", "0"}, cfg: func(c *Config) { c.Worker = "/no/such/worker" }, until: is(Failed)},
	}
}

// TestRecord brings Jobs to every state on the live cluster. With -update it
// keeps what the cluster showed for the tests that run without one.
func TestRecord(t *testing.T) {
	clean(t)
	dir := folderIn(t)
	r := &recorder{dir: dir, cfg: liveConfig(t, dir)}
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			if s.name == "queued" || s.name == "stopped-queue" { // somebody else has the quota
				e, h := r.submit(t, func(c *Config) { c.CPU = "1500m" }, 0, "beat", "beat")
				look(t, e, h, is(Running))
			}
			if s.before != nil {
				s.before(t)
			}
			e, h := r.submit(t, s.cfg, s.gpus, s.argv...)
			if s.meanwhile != nil {
				s.meanwhile(t, r, h)
			}
			o, _ := look(t, e, h, s.until)
			keep(t, s.name, o)
		})
	}
	t.Run("preemption", func(t *testing.T) {
		reserved := func(priority string) func(*Config) {
			return func(c *Config) { c.Queue, c.Priority, c.CPU = "repromill-reserved", priority, "100m" }
		}
		e1, h1 := r.submit(t, reserved("repromill-nightly"), 8, "beat", "beat")
		o, _ := look(t, e1, h1, is(Running))
		keep(t, "gpus", o)
		e2, h2 := r.submit(t, reserved("repromill-interactive"), 8, "beat", "beat")
		o, _ = look(t, e1, h1, is(Preempted))
		keep(t, "preempted", o)
		o, _ = look(t, e2, h2, is(Running))
		keep(t, "preemptor", o)
		if err := e2.Cancel(t.Context(), h2); err != nil {
			t.Fatal(err)
		}
		o, p := look(t, e1, h1, is(Running))
		keep(t, "readmitted", o)
		if p.Evictions != 1 || p.Flavor != "h200" {
			t.Errorf("%d evictions, flavour %q; want 1 and h200", p.Evictions, p.Flavor)
		}
	})
}

// keep writes what was observed, without what only the server needs.
func keep(t *testing.T, name string, o Observed) {
	t.Helper()
	if !*update {
		return
	}
	o.Job.ManagedFields = nil
	for i := range o.Pods {
		o.Pods[i].ManagedFields = nil
		o.Pods[i].ObjectMeta.OwnerReferences = nil
	}
	o.Job.Spec.Template.Spec.Volumes = nil
	o.Now = o.Now.UTC().Truncate(time.Second)
	b, err := json.MarshalIndent(o, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(volumeRoot(t), "/volume", os.Getenv("REPROMILL_DEVCLUSTER_REGISTRY"), "registry.example", filepath.Base(filepath.Dir(o.Job.Annotations[annotationAt])), "x").Replace(string(b))
	host, _ := os.Hostname()
	text = strings.ReplaceAll(text, fmt.Sprintf("%q", host), `"node-1"`)
	if err := os.WriteFile(filepath.Join("testdata", "transcripts", name+".json"), []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
