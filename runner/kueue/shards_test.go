package kueue

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/shard"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/throughput"
)

func suiteConfig(c *Config) {
	c.Queue, c.Cache = "repromill-reserved", "/volume/repromill/cache"
	c.Images = map[string]string{"vllm": "docker.io/vllm/vllm-openai:v0.11.0"}
	c.HubEndpoint, c.HubSecret = "https://hub.example.org", "hub-token"
}

func exampleSuite() runner.Attempt {
	s := spec.Suite{ID: "mmlu-pro", Questions: 12032, Arms: []spec.Arm{
		{Name: "fp8", Model: "org/m-FP8", Revision: strings.Repeat("b", 40), SKU: "h200", GPUs: 2, TP: 2, Flags: []string{"VLLM_USE_V1=1", "--max-model-len", "32768"}},
		{Name: "nvfp4", Model: "org/m-NVFP4", Revision: strings.Repeat("a", 40), SKU: "h200", GPUs: 1, Image: "registry.example/vllm@sha256:2222"}}}
	key := runner.AttemptKey{RunID: "01K9AAAAAAAAAAAAAAAAAAAAAA", Stage: runner.StageSuite(s.ID)}
	a, err := runner.Sharding{Parallel: 2}.Attempt(key, s, accuracy.Serving{}, "/volume/repromill/runs/01K9AAAAAAAAAAAAAAAAAAAAAA/answers/mmlu-pro/shards")
	if err != nil {
		panic(err)
	}
	return a
}

// exampleTurn is a start of an arm in the second round, in another configuration
// than its own.
func exampleTurn() runner.Attempt {
	x := throughput.Turn{Round: 1, N: 3, Name: "nvfp4-tp2", Arm: spec.Arm{Name: "nvfp4", Model: "org/m-NVFP4", Revision: strings.Repeat("a", 40), SKU: "h200", TP: 2}}
	a, err := runner.TurnAttempt(runner.AttemptKey{RunID: "01K9AAAAAAAAAAAAAAAAAAAAAA", Stage: runner.StageSuite("throughput")}, x, accuracy.Serving{},
		"/volume/repromill/runs/01K9AAAAAAAAAAAAAAAAAAAAAA/answers/throughput/turns/001-03")
	if err != nil {
		panic(err)
	}
	return a
}

// TestTurnJob: a pod that measures speed gets a node of its own where that is set up,
// and what it keeps others off counts as used.
func TestTurnJob(t *testing.T) {
	for name, tc := range map[string]struct {
		node         int
		topology     string
		gpus, client int64
	}{
		"nothing set up": {0, "", 2, 0},
		"whole node":     {8, "kubernetes.io/hostname", 8, 6},
		"exactly a node": {2, "", 2, 0},
		"a smaller node": {1, "", 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := offline(func(c *Config) { suiteConfig(c); c.NodeGPUs, c.Topology = tc.node, tc.topology })
			a := e.filled(exampleTurn())
			job, err := e.render(e.folder(a.Key), a)
			if err != nil {
				t.Fatal(err)
			}
			p := job.Spec.Template.Spec
			asked := requests(job)[gpuResource]
			rest := p.Containers[0].Resources.Limits[gpuResource]
			if int64(a.GPUs) != tc.gpus || asked.Value() != tc.gpus || rest.Value() != tc.client || len(p.InitContainers) != 1 {
				t.Errorf("%d GPUs are counted, %s asked for, %s of them by the client; %d servers", a.GPUs, asked.String(), rest.String(), len(p.InitContainers))
			}
			if got := job.Spec.Template.Annotations[annotationRequired]; got != tc.topology || e.cfg.Annotations != nil {
				t.Errorf("topology %q; every Job has %v", got, e.cfg.Annotations)
			}
			if a.Key.String() != "01K9AAAAAAAAAAAAAAAAAAAAAA/suite/throughput/nvfp4-tp2/1/0" || a.SKU != "h200" || *job.Spec.Completions != 1 {
				t.Errorf("attempt %s on %q, %d completions", a.Key, a.SKU, *job.Spec.Completions)
			}
		})
	}
}

// TestSuiteJob: what a suite's Job must and must not be, beside its golden file.
func TestSuiteJob(t *testing.T) {
	e := offline(suiteConfig)
	a := e.filled(exampleSuite())
	job, err := e.render(e.folder(a.Key), a)
	if err != nil {
		t.Fatal(err)
	}
	if *job.Spec.Completions != 49 || *job.Spec.Parallelism != 2 || !*job.Spec.Suspend || a.GPUs != 6 || a.SKU != "h200" {
		t.Errorf("%d blocks, %d at a time; %d GPUs", *job.Spec.Completions, *job.Spec.Parallelism, a.GPUs)
	}
	p := job.Spec.Template.Spec
	if len(p.InitContainers) != 2 || len(p.Containers) != 1 || p.Containers[0].Name != clientContainer {
		t.Fatalf("%d servers, %d containers", len(p.InitContainers), len(p.Containers))
	}
	for _, c := range p.InitContainers {
		if *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.StartupProbe == nil || c.Resources.Limits.Cpu().IsZero() {
			t.Errorf("%s is no native sidecar: %+v", c.Name, c)
		}
		seen := map[string]bool{}
		for _, v := range c.Env {
			if seen[v.Name] {
				t.Errorf("%s names %s twice, which Kueue cannot write", c.Name, v.Name)
			}
			seen[v.Name] = true
		}
		for _, m := range c.VolumeMounts {
			if m.Name == volume && (!m.ReadOnly || m.MountPath != e.cfg.Cache) {
				t.Errorf("%s sees %s", c.Name, m.MountPath)
			}
		}
	}
	want := requests(job)
	if q := want[gpuResource]; q.Value() != 6 {
		t.Errorf("asks for %v", want)
	}
}

// suiteFolder is a suite with three blocks on a volume.
func suiteFolder(t *testing.T) (*Executor, pod.Folder, pod.Record, shard.Folder) {
	t.Helper()
	root := t.TempDir()
	e := offline(func(c *Config) { suiteConfig(c); c.Root, c.Dir, c.Cache = root, root+"/attempts", root+"/cache" })
	f := shard.Folder(filepath.Join(root, "shards"))
	if _, err := f.Declare(shard.Suite{Of: 3}); err != nil {
		t.Fatal(err)
	}
	a := runner.Attempt{Key: runner.AttemptKey{RunID: "r", Stage: "suite/s"}, Dir: string(f), GPUs: 2, Shards: &runner.Shards{Of: 3, Parallel: 1}}
	at := e.folder(a.Key)
	rec := pod.Record{Key: a.Key.String(), Attempt: a}
	if err := at.Create(rec); err != nil {
		t.Fatal(err)
	}
	return e, at, rec, f
}

func put(t *testing.T, f shard.Folder, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(f), "blocks", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const aBlock = `{"pod":"p","began":"2026-11-01T10:00:00Z","ended":"2026-11-01T10:30:00Z","answers":10,"requests":10}`

// TestShardsEnd: what the cluster says and what the volume holds come to one end.
func TestShardsEnd(t *testing.T) {
	ended := time.Now().Add(-time.Hour)
	for name, tc := range map[string]struct {
		blocks  int
		stopped string
		trouble string
		p       Phase
		o       Observed
		phase   runner.Phase
		reason  runner.Reason
		says    string
	}{
		"all complete":           {3, "", "", Phase{State: Running}, Observed{}, runner.Succeeded, runner.ReasonNone, "all 3 shards"},
		"status 0, nothing done": {1, "", "", Phase{State: Succeeded, Since: ended}, Observed{}, runner.Failed, runner.ReasonLost, "shards 2, 3 ended with status 0 and left no complete answers"},
		"a client gave up":       {1, "", "write answers: no space left on device", Phase{State: Failed, Message: "an index failed"}, Observed{}, runner.Failed, runner.ReasonStart, "1 of 3 shards are complete; shard 2: write answers: no space left"},
		"given up and gone":      {0, "", "", Phase{State: Lost}, Observed{}, runner.Failed, runner.ReasonStart, "no server after"},
		"deleted":                {1, "", "", Phase{State: Lost, Message: "the Job is gone"}, Observed{}, runner.Failed, runner.ReasonLost, "trying again is safe"},
		"stopped and gone":       {2, "the comparison is decided", "", Phase{State: Lost}, Observed{}, runner.Succeeded, runner.ReasonNone, "decided"},
	} {
		t.Run(name, func(t *testing.T) {
			e, at, rec, f := suiteFolder(t)
			for i := range tc.blocks {
				put(t, f, string(rune('0'+i))+"/end.json", aBlock)
			}
			if tc.trouble != "" {
				put(t, f, "1/trouble", tc.trouble)
			}
			if tc.reason == runner.ReasonStart && tc.p.State == Lost {
				if err := os.WriteFile(filepath.Join(string(at), fileGivenUp), []byte("no server after 1h0m0s"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if tc.stopped != "" {
				if err := f.Stop(tc.stopped); err != nil {
					t.Fatal(err)
				}
			}
			st, ok, err := e.shards(at, rec)
			if !ok && err == nil {
				st, err = e.status(t.Context(), at, rec, tc.o, tc.p)
			}
			if err != nil || st.Phase != tc.phase || st.Reason != tc.reason || !strings.Contains(st.Message, tc.says) {
				t.Errorf("%+v, %v", st, err)
			}
			if held, done, err := at.Exit(); !done || err != nil || held.Message != st.Message {
				t.Errorf("it did not hold: %+v, %v, %v", held, done, err)
			}
			if st.Phase == runner.Succeeded && (st.Usage.WallSeconds != 1800*float64(tc.blocks) || st.Usage.GPUHours != float64(tc.blocks)) {
				t.Errorf("used %+v", st.Usage)
			}
		})
	}
}

// TestStuck: a pod that waits too long for an image or a server is given up with
// the reason; one that waits for a node is not.
func TestStuck(t *testing.T) {
	now := time.Now()
	pending := func(change func(*corev1.Pod)) Observed {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: metav1.NewTime(now.Add(-2 * time.Hour))}, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
		change(&p)
		return Observed{Pods: []corev1.Pod{p}, Now: now}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "manifest unknown"}}
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		says   string
	}{
		"image of one arm": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "server-fp8", Started: ptr(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
				{Name: "server-nvfp4", Image: "registry.example/none:1", State: waiting("ImagePullBackOff")}}
		}, "the image registry.example/none:1 cannot be pulled: manifest unknown; correct the image's name"},
		"out of memory": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "server-fp8", RestartCount: 4, State: waiting("CrashLoopBackOff"),
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}}}
		}, "container server-fp8 cannot be started: manifest unknown; it ended with status 137 (OOMKilled)"},
		"loads for ever": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "server-fp8", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}, "the model server of arm fp8 loads on n"},
		"no node": {func(p *corev1.Pod) { p.Spec.NodeName = "" }, ""},
		"young":   {func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now) }, ""},
		"ending":  {func(p *corev1.Pod) { p.DeletionTimestamp = ptr(metav1.NewTime(now)) }, ""},
		"running": {func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, ""},
	} {
		got := stuck(pending(tc.change), time.Hour)
		if (tc.says == "") != (got == "") || !strings.Contains(got, tc.says) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestShardsArePatient: evictions that leave something behind are no thrashing.
func TestShardsArePatient(t *testing.T) {
	e, at, rec, f := suiteFolder(t)
	put(t, f, "0/end.json", aBlock)
	p := Phase{State: Preempted, Evictions: 9}
	if st, err := e.status(t.Context(), at, rec, Observed{}, p); err != nil || st.Phase != runner.Pending {
		t.Errorf("after 9 evictions and a block: %+v, %v", st, err)
	}
	p.Evictions = 10
	if st, err := e.status(t.Context(), at, rec, Observed{}, p); err != nil || st.Reason != ReasonEvicted {
		t.Errorf("after 10: %+v, %v", st, err)
	}
}
