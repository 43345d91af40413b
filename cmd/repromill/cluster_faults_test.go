//go:build linux && cluster

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// faults are suites that something happens to, side by side.
type faults struct {
	base suiteSite
	want suiteOutcome
	rows []string
}

const faultQuestions = 60

// flavour is one of a queue's; it has room for one suite.
func flavour(name string, gpus int) string {
	out := `
    - name: ` + name + `
      resources: [{name: cpu, nominalQuota: 300m}, {name: memory, nominalQuota: 4Gi}`
	if gpus > 0 {
		out += fmt.Sprintf(`, {name: nvidia.com/gpu, nominalQuota: %d}`, gpus)
	}
	return out + "]"
}

// site makes a queue that one suite fills, and who submits to it.
func (f *faults) site(t *testing.T, name, covered, flavours, settings string) faultSite {
	t.Helper()
	return f.siteIn(t, "repromill", os.Getenv("REPROMILL_CLUSTER_VOLUME"), name, covered, flavours, settings)
}

func (f *faults) siteIn(t *testing.T, namespace, volume, name, covered, flavours, settings string) faultSite {
	t.Helper()
	queue := "repromill-" + name
	s := faultSite{suiteSite: f.base, volume: volume, namespace: namespace, gates: name,
		settings: fmt.Sprintf("queues: {small: %s}\ncluster: {cpu: 100m, server_cpu: 100m, server_memory: 192Mi, priority: repromill-nightly", queue)}
	apply(t, `apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: `+queue+`}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: `+covered+`
    flavors:`+flavours+`
  preemption: {withinClusterQueue: LowerPriority}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: `+queue+`, namespace: `+namespace+`}
spec: {clusterQueue: `+queue+`}
`)
	t.Cleanup(func() {
		kubectl(t, "delete", "localqueue", queue, "-n", namespace, "--wait=false")
		kubectl(t, "delete", "clusterqueue", queue, "--wait=false")
	})
	s.dir = t.TempDir()
	s.configure(t, s.settings+settings+"}\n")
	s.env = append(slices.Clone(s.env), "HOME="+s.dir, "XDG_STATE_HOME="+s.dir+"/state", "XDG_DATA_HOME="+s.dir+"/data", "XDG_CACHE_HOME="+s.dir+"/cache",
		"REPROMILL_CONFIG="+s.dir+"/config.yaml", "REPROMILL_CLUSTER_VOLUME="+volume)
	if err := os.MkdirAll(filepath.Join(volume, "repromill", "cache", s.gates), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// exactly is same, with nothing that was void.
func (f *faults) exactly(t *testing.T, r *faultRun) suiteOutcome {
	t.Helper()
	got := f.same(t, r)
	if n := got.Suites[0].Result.Paid.Void; n != 0 {
		t.Errorf("%d answers are void", n)
	}
	return got
}

// same waits for the end of the run, which has to be that of the run which nothing
// happened to.
func (f *faults) same(t *testing.T, r *faultRun) suiteOutcome {
	t.Helper()
	r.over(t)
	var got suiteOutcome
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.json(t, &got, "run", "--resume", r.id(), "--yes") // it has ended: this only tells how
	a, b := got.Suites[0].Result, f.want.Suites[0].Result
	if got.Verdict != f.want.Verdict || a.Used != b.Used || string(a.Comparisons[0].Result) != string(b.Comparisons[0].Result) {
		t.Errorf("%s by %s over %d, want %s by %s over %d", got.Verdict, a.Comparisons[0].Result, a.Used, f.want.Verdict, b.Comparisons[0].Result, b.Used)
	}
	if rows := r.rows(t, got.RunID); !slices.Equal(rows, f.rows) || len(rows) != 2*b.Used {
		t.Errorf("%d rows, want the %d of the local run", len(rows), len(f.rows))
	}
	if a.Paid.Requests < 2*faultQuestions || a.Paid.Repeated > a.Paid.Requests-2*faultQuestions {
		t.Errorf("paid for %+v", a.Paid)
	}
	if o, err := r.command("results", "verify").CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, o)
	}
	t.Logf("%d requests, %d of them again", a.Paid.Requests, a.Paid.Repeated)
	return got
}

// TestClusterFaults: whatever happens to a suite in the cluster, no answer is lost
// or counted twice, and what cannot go on says why.
func TestClusterFaults(t *testing.T) {
	f := &faults{base: newSuiteSite(t, faultQuestions, "")}
	f.want = f.base.local(t, 0.90)
	f.rows = f.base.rows(t, f.want.RunID)
	t.Run("", func(t *testing.T) { // ends when all of them have
		for name, fault := range map[string]func(*testing.T){
			"preempted in every phase":       f.preempted,
			"memory and the node":            f.brokenNode,
			"an image is missing":            f.missingImage,
			"another server":                 f.anotherServer,
			"another flavour":                f.anotherFlavour,
			"no pod, nothing asked, no room": f.ownVolume,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				fault(t)
			})
		}
	})
}

const cpus = "[cpu, memory]"

// preempted: the queue is taken away before the start, while servers load, while
// questions are asked, when a block has ended and its pod has not, and between two
// blocks.
func (f *faults) preempted(t *testing.T) {
	s := f.site(t, "phases", cpus, flavour("cpu", 0), "")
	queue := "repromill-phases"
	const loads, lost = "the model server of arm fp8 loads on", "preempted by a Job that goes first"
	lose := func(r *faultRun, meanwhile func()) {
		t.Helper()
		n := r.said(lost)
		leave := rival(t, queue, "cpu: 20m, memory: 64Mi", "{}")
		r.says(t, lost, n+1)
		meanwhile()
		leave()
	}
	nothing := func() {}
	leave := rival(t, queue, "cpu: 20m, memory: 64Mi", "{}")
	waitPod(t, "job-name=first-"+queue)
	s.shut(t, gateLoad)
	r := s.begin(t, "", "--shards", "2")
	r.says(t, "quota", 1)
	leave()
	r.says(t, loads, 1)
	lose(r, nothing)
	s.shut(t, gateAsk)
	s.open(gateLoad)
	r.asking(t, 1, 1)
	lose(r, nothing)
	s.shut(t, gateEnd)
	s.open(gateAsk)
	r.complete(t, 1)
	s.shut(t, gateLoad)
	n := r.said(loads)
	lose(r, func() { s.open(gateEnd) })
	r.says(t, loads, n+1)
	lose(r, nothing)
	s.open(gateLoad)
	got := f.exactly(t, r)
	if n := got.Suites[0].Result.Paid.Repeated; n > 2*16 { // what was under way when the one pod ended that asked
		t.Errorf("%d answers were asked for again", n)
	}
}

// brokenNode: a server is killed for its memory in the middle of a block, then the
// node falls silent, its pods are evicted, and it comes back.
func (f *faults) brokenNode(t *testing.T) {
	apply(t, `apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: repromill-impatient}
spec:
  tolerations:
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
`)
	t.Cleanup(func() { kubectl(t, "delete", "resourceflavor", "repromill-impatient", "--wait=false") })
	s := f.site(t, "node", cpus, flavour("repromill-impatient", 0), "")
	s.shut(t, gateAsk)
	r := s.begin(t, "--swell 12", "--shards", "1")
	r.asking(t, 1, 1)
	s.shut(t, gateLoad)
	s.open(gateAsk)
	r.says(t, "start 2: the one before ended with status 137 (OOMKilled)", 1)
	if !strings.Contains(r.told.String(), "cluster.server_memory") {
		t.Error("nobody is told what to do about it")
	}
	s.shut(t, gateAsk)
	s.open(gateLoad)
	r.says(t, ": runs on ", 2)
	bystander(t)
	// That the node has not answered since is said as well, if not for too short a
	// time to be seen: TestLostNode.
	frozen(t, "kubelet", func() { r.says(t, "is ending; another one follows", 1) })
	r.asking(t, 1, 2)
	s.open(gateAsk)
	got := f.exactly(t, r)
	if w := strings.Join(got.Suites[0].Result.Warnings, "\n"); !strings.Contains(w, "shard 1: a model server was started again") {
		t.Errorf("it warns %q", w)
	}
}

// missingImage: a run whose one arm has no image is given up with the reason, and
// is taken up again when the image is there.
func (f *faults) missingImage(t *testing.T) {
	s := f.site(t, "image", cpus, flavour("cpu", 0), ", start_patience: 40s")
	args := s.suite(0.90, "", "", "--shards", "2")
	missing := os.Getenv("REPROMILL_DEVCLUSTER_REGISTRY") + "/repromill/late-models:1"
	for i, a := range args {
		if rest, ok := strings.CutPrefix(a, "nvfp4=docker:"+s.image); ok {
			args[i] = "nvfp4=docker:" + missing + rest
		}
	}
	r := s.start(t, args...)
	r.over(t)
	if said := r.told.String(); r.cmd.ProcessState.ExitCode() != 2 || !strings.Contains(said, "is incomplete: 0 of 2 shards") || !strings.Contains(said, missing+" cannot be pulled") || !strings.Contains(said, "run --resume") {
		t.Fatalf("it ended with %d", r.cmd.ProcessState.ExitCode())
	}
	tag(t, s.image, missing)
	s.configure(t, s.settings+"}\n")
	f.exactly(t, s.start(t, "run", "--resume", r.id(), "--yes"))
}

// anotherServer: a server that comes back as another system ends its block, which
// is void from there on; the run is taken up again with the server that it had.
func (f *faults) anotherServer(t *testing.T) {
	s := f.site(t, "server", cpus, flavour("cpu", 0), "")
	s.shut(t, gateSame)
	r := s.begin(t, "", "--shards", "2")
	r.over(t)
	if said := r.told.String(); r.cmd.ProcessState.ExitCode() != 2 || !strings.Contains(said, "0.15.0") || !strings.Contains(said, "run --resume") {
		t.Fatalf("it ended with %d", r.cmd.ProcessState.ExitCode())
	}
	s.open(gateSame)
	got := f.same(t, s.start(t, "run", "--resume", r.id(), "--yes"))
	if n := got.Suites[0].Result.Paid.Void; n == 0 { // of what it had answered since it was last looked at
		t.Error("nothing is void")
	}
}

// anotherFlavour: a suite that is preempted and admitted again to another GPU
// model is stopped, and nothing of it counts; where the model is asked for it waits.
func (f *faults) anotherFlavour(t *testing.T) {
	for _, model := range []string{"H200", "B200"} {
		apply(t, `apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: repromill-first-`+strings.ToLower(model)+`}
spec: {nodeLabels: {nvidia.com/gpu.product: NVIDIA-`+model+`}}
`)
		t.Cleanup(func() {
			kubectl(t, "delete", "resourceflavor", "repromill-first-"+strings.ToLower(model), "--wait=false")
		})
	}
	s := f.site(t, "flavours", "[cpu, memory, nvidia.com/gpu]", flavour("repromill-first-h200", 2)+flavour("repromill-first-b200", 2), "")
	s.shut(t, gateAsk)
	args := append([]string{"run", "-f", s.gpuPlan(t, "h200")}, s.suite(0.90, "--gates "+s.gates, "", "--shards", "2")[10:]...)
	r := s.start(t, args...)
	r.asking(t, 1, 1)
	leave := rival(t, "repromill-flavours", "cpu: 20m, memory: 64Mi, nvidia.com/gpu: 1", "{nvidia.com/gpu.product: NVIDIA-H200}")
	r.over(t)
	const why = "its nodes have NVIDIA-B200 (b200) and the plan is for h200, so what it gives is void; use a queue with that GPU model, or set cluster.product"
	if files, _ := filepath.Glob(filepath.Join(s.dir, "data", "repromill", "samples", "*", "*", "*", "*.parquet")); len(files) > 0 || !strings.Contains(r.told.String(), why) {
		t.Fatalf("it ended with %d, and samples in %q", r.cmd.ProcessState.ExitCode(), files)
	}
	s.configure(t, s.settings+", product: NVIDIA-H200}\n")
	r = s.start(t, append(args, "--key", "again")...)
	r.says(t, "quota", 1)
	leave()
	r.asking(t, 1, 1)
	s.open(gateAsk)
	f.exactly(t, r)
}

// ownVolume: in a namespace whose quota allows no pod nothing runs, and it is said
// why; clients that end with status 0 and asked nothing count for nothing; and a
// volume that is full in the middle of a block costs the answers that it could not
// take, which are asked for again when it has room.
func (f *faults) ownVolume(t *testing.T) {
	const ns = "repromill-own"
	volume := os.Getenv("REPROMILL_CLUSTER_VOLUME") + "-own"
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=200m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer func() { // whatever the cluster says
			if err := syscall.Unmount(volume, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
			os.Remove(volume)
		}()
		kubectl(t, "delete", "namespace", ns)
		kubectl(t, "delete", "persistentvolume", ns, "--wait=false")
	})
	apply(t, `apiVersion: v1
kind: Namespace
metadata: {name: `+ns+`, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: no-pods, namespace: `+ns+`}
spec: {hard: {pods: "0"}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: `+ns+`}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: ""
  claimRef: {namespace: `+ns+`, name: repromill-runs}
  hostPath: {path: `+volume+`, type: Directory}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: repromill-runs, namespace: `+ns+`}
spec: {accessModes: [ReadWriteMany], storageClassName: "", volumeName: `+ns+`, resources: {requests: {storage: 1Gi}}}
`)
	s := f.siteIn(t, ns, volume, "own", cpus, flavour("cpu", 0), ", namespace: "+ns+", volume_delay: 1s")
	s.shut(t, gateAsk)
	fill(t, filepath.Join(volume, "filler"))
	r := s.begin(t, "", "--shards", "1")
	r.over(t)
	if r.cmd.ProcessState.ExitCode() != 2 || !strings.Contains(r.told.String(), "no space left on device") {
		t.Fatalf("on a full volume it ended with %d", r.cmd.ProcessState.ExitCode())
	}
	if err := os.Remove(filepath.Join(volume, "filler")); err != nil {
		t.Fatal(err)
	}
	r = s.begin(t, "", "--shards", "1")
	r.says(t, "admitted, but the namespace's ResourceQuota has no room for its pod (no-pods, requested: pods=1, used: pods=0, limited: pods=0)", 1)
	for _, view := range [][]string{{"status", r.id()}, {"status", "--cluster"}} {
		if o, err := s.command(view...).CombinedOutput(); err != nil || !strings.Contains(string(o), "have the quota raised") {
			t.Errorf("%v: %v\n%s", view, err, o)
		}
	}
	workers, err := filepath.Glob(filepath.Join(volume, "repromill", "bin", "repromill-*"))
	if err != nil || len(workers) != 1 {
		t.Fatalf("the workers are %q, %v", workers, err)
	}
	kept := filepath.Join(volume, "kept")
	if err := errors.Join(os.Rename(workers[0], kept), os.WriteFile(workers[0], []byte("#!/bin/sh\nexit 0\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "delete", "resourcequota", "no-pods", "-n", ns)
	r.says(t, "the clients of shards 1 ended with status 0 and left no complete answers", 1)
	if err := os.Rename(kept, workers[0]); err != nil {
		t.Fatal(err)
	}
	r.asking(t, 1, 1)
	fill(t, filepath.Join(volume, "filler"))
	s.open(gateAsk)
	r.says(t, "no space left on device", 1)
	if err := os.Remove(filepath.Join(volume, "filler")); err != nil {
		t.Fatal(err)
	}
	f.exactly(t, r)
}
