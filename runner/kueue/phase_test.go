package kueue

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares with testdata/NAME, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		os.WriteFile(path+".got", []byte(got), 0o644)
		t.Errorf("%s differs; see %s.got, accept it with -update", path, path)
	}
}

func transcripts(t testing.TB) map[string]Observed {
	t.Helper()
	files, err := filepath.Glob("testdata/transcripts/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	out := map[string]Observed{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var o Observed
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".json")] = o
	}
	return out
}

// TestPhases reads what a live cluster showed (TestRecord) and says it in words.
func TestPhases(t *testing.T) {
	var b strings.Builder
	all := transcripts(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p := PhaseOf(all[name])
		fmt.Fprintf(&b, "%s\n  %s (%s) flavour=%s node=%s evictions=%d\n  %s\n  fix: %s\n", name, p.State, p.Reason, p.Flavor, p.Node, p.Evictions, p.Message, p.Fix)
	}
	golden(t, "phases.golden", b.String())
}

// change is a transcript with its Workload's words exchanged.
func change(t *testing.T, from string, edit func(*Observed)) Observed {
	t.Helper()
	o := transcripts(t)[from]
	edit(&o)
	return o
}

func condition(o *Observed, kind, status, reason, message string) {
	for i := range o.Workload.Status.Conditions {
		if c := &o.Workload.Status.Conditions[i]; c.Type == kind {
			c.Status, c.Reason, c.Message = status, reason, message
			return
		}
	}
	o.Workload.Status.Conditions = append(o.Workload.Status.Conditions, Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: o.Now})
}

// TestLaterVocabulary covers reasons that other versions of Kueue use, and
// ones that nobody has thought of yet.
func TestLaterVocabulary(t *testing.T) {
	for _, tc := range []struct {
		reason, message string
		want            State
	}{
		{"WaitingForQuota", "insufficient unused quota for cpu", Queued},
		{"ExceedsMaxQuota", "the request exceeds the maximum", Blocked},
		{"NoMatchingFlavor", "no flavor matches", Blocked},
		{"TopologyPlacementFailed", "topology \"default\" doesn't allow to fit any of 1 pod(s)", Queued},
		{"WaitingForPreemptedWorkloads", "waiting for 2 workloads", Queued},
		{"Misconfigured", "bad", Blocked},
		{"Suspended", "ClusterQueue x is stopped", Blocked},
		{"PendingEvaluation", "", Queued},
		{"WaitingForPodsReady", "", Queued},
		{"AdmissionGated", "", Blocked},
		{"SomethingNew", "a sentence from the future", Queued},
	} {
		o := change(t, "queued", func(o *Observed) { condition(o, "QuotaReserved", "False", tc.reason, tc.message) })
		p := PhaseOf(o)
		if p.State != tc.want || p.Reason != tc.reason || p.Message == "" {
			t.Errorf("%s: %s (%s) %q, want %s", tc.reason, p.State, p.Reason, p.Message, tc.want)
		}
		if (p.State == Blocked) != (p.Fix != "") {
			t.Errorf("%s: what is blocked names a fix, and nothing else does: %+v", tc.reason, p)
		}
	}
	for _, reason := range []string{"PodsReadyTimeout", "AdmissionCheck", "ClusterQueueStopped", "LocalQueueStopped", "NodeFailures", "FlavorMigration", "SomethingNew"} {
		o := change(t, "preempted", func(o *Observed) { condition(o, "Evicted", "True", reason, "why") })
		if p := PhaseOf(o); p.State != Preempted && p.State != Blocked || p.Message == "" {
			t.Errorf("%s: %+v", reason, p)
		}
	}
}

func TestConditionsAreReadByStatus(t *testing.T) {
	o := transcripts(t)["readmitted"]
	c := o.Workload.condition("Evicted")
	if c == nil || c.Status != "False" {
		t.Fatalf("the transcript shows no past eviction: %+v", c)
	}
	if p := PhaseOf(o); p.State != Running || p.Evictions != 1 {
		t.Errorf("%+v", p)
	}
}

func TestWithoutAWorkload(t *testing.T) {
	o := change(t, "queued", func(o *Observed) { o.Workload = nil })
	o.Now = o.Job.CreationTimestamp.Add(time.Second)
	if p := PhaseOf(o); p.State != Queued {
		t.Errorf("after a second: %+v", p)
	}
	o.Now = o.Job.CreationTimestamp.Add(time.Minute)
	if p := PhaseOf(o); p.State != Unmanaged || p.Fix == "" {
		t.Errorf("after a minute: %+v", p)
	}
	o.Job.Spec.Suspend = ptr(false)
	if p := PhaseOf(o); p.State != Unmanaged || p.Reason != "Unsuspended" {
		t.Errorf("unsuspended: %+v", p)
	}
}

func TestAJobThatIsGone(t *testing.T) {
	o := change(t, "running", func(o *Observed) { o.Job, o.Workload = nil, nil })
	if p := PhaseOf(o); p.State != Stopping {
		t.Errorf("with a pod: %+v", p)
	}
	o.Pods = nil
	if p := PhaseOf(o); p.State != Lost {
		t.Errorf("without: %+v", p)
	}
}

func TestPositionIsShown(t *testing.T) {
	o := change(t, "queued", func(o *Observed) { o.Position = ptr(2) })
	if p := PhaseOf(o); !strings.Contains(p.Message, "2 ahead of it") {
		t.Errorf("%+v", p)
	}
}

func TestFailuresNameTheirCause(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*Observed)
		want string // of the message and the reason
	}{
		"deadline": {func(o *Observed) { o.Job.Status.Conditions[0].Reason = "DeadlineExceeded" }, "longer than it was allowed"},
		"memory": {func(o *Observed) {
			for i := range o.Pods {
				s := &o.Pods[i].Status.ContainerStatuses[0].State
				s.Terminated.Reason, s.Terminated.ExitCode, s.Terminated.Message = "OOMKilled", 137, ""
			}
		}, "OOMKilled"},
	} {
		o := change(t, "failed", func(o *Observed) {
			for i := range o.Job.Status.Conditions {
				if o.Job.Status.Conditions[i].Type == "Failed" {
					o.Job.Status.Conditions = o.Job.Status.Conditions[i : i+1]
					break
				}
			}
			tc.edit(o)
		})
		if p := PhaseOf(o); p.State != Failed || !strings.Contains(p.Message+p.Reason, tc.want) || p.Fix == "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func BenchmarkPhaseOf(b *testing.B) {
	var all []Observed
	for _, o := range transcripts(b) {
		all = append(all, o)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		PhaseOf(all[i%len(all)])
	}
}

func FuzzPhaseOf(f *testing.F) {
	for _, o := range transcripts(f) {
		b, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var o Observed
		if json.Unmarshal(b, &o) != nil {
			return
		}
		if p := PhaseOf(o); p.State == "" {
			t.Errorf("no state for %s", b)
		}
	})
}

// TestWrongModelIsVoid: what ran on another GPU model than the plan is for does
// not count, however it ended.
func TestWrongModelIsVoid(t *testing.T) {
	dir := t.TempDir()
	at := pod.Folder(dir)
	e := &Executor{cfg: Config{SKUOf: func(p string) string { return map[string]string{"NVIDIA-H200": "h200"}[p] }}}
	e.notePlace(at, Phase{Flavor: "any", Product: "NVIDIA-H200", Evictions: 1})
	e.notePlace(at, Phase{Flavor: "any", Evictions: 1}) // its pod is gone
	done := runner.Status{Phase: runner.Succeeded, Placement: runner.Placement{SKU: "unknown"}}
	for name, tc := range map[string]struct {
		a    runner.Attempt
		want runner.Reason
		sku  string
	}{
		"the right one": {runner.Attempt{GPUs: 1, SKU: "h200"}, runner.ReasonNone, "h200"},
		"any":           {runner.Attempt{GPUs: 1}, runner.ReasonNone, "h200"},
		"another":       {runner.Attempt{GPUs: 1, SKU: "b200"}, runner.ReasonWrongSKU, "h200"},
		"no GPU":        {runner.Attempt{SKU: "b200"}, runner.ReasonNone, "unknown"},
	} {
		st := e.placed(t.Context(), at, "", tc.a, done)
		if st.Reason != tc.want || st.Placement.SKU != tc.sku || st.Placement.Evictions != 1 || (tc.want != "") != (st.Phase == runner.Failed) {
			t.Errorf("%s: %+v", name, st)
		}
	}
	e.notePlace(at, Phase{Flavor: "other", Evictions: 2}) // evicted and admitted again, its new place not known yet
	if st := e.placed(t.Context(), at, "", runner.Attempt{GPUs: 1, SKU: "b200"}, done); st.Reason != runner.ReasonNone {
		t.Errorf("judged by a place that it has left: %+v", st)
	}
}

// TestShape: Jobs that differ in their attempts only are validated once.
func TestShape(t *testing.T) {
	e := offline(nil)
	shapeOf := func(change func(*runner.Attempt)) string {
		a := exampleAttempt()
		change(&a)
		job, err := e.job(e.folder(a.Key), a)
		if err != nil {
			t.Fatal(err)
		}
		s, err := shape(job)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	base := shapeOf(func(*runner.Attempt) {})
	if shapeOf(func(a *runner.Attempt) { a.Key.N, a.Key.RunID = 3, "another" }) != base {
		t.Error("the next attempt has another shape")
	}
	if shapeOf(func(a *runner.Attempt) { a.GPUs = 4 }) == base {
		t.Error("an attempt with other GPUs has the same shape")
	}
}
