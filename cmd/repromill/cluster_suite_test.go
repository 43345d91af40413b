//go:build linux && cluster

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// modelImage pushes an image with nothing but this test binary, which is a model
// server under its entry point.
func modelImage(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(modelLayer(w, exe)) }()
		return r, nil
	}, tarball.WithCompressionLevel(1))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(os.Getenv("REPROMILL_DEVCLUSTER_REGISTRY")+"/repromill/test-models:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Digest(d.String()).String()
}

func modelLayer(to io.Writer, exe string) error {
	w := tar.NewWriter(to)
	for _, dir := range []string{"tmp", "bin"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: "bin/models", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(b))}); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Close()
}

// suiteSite is a site with a mirror of two models and a data set.
type suiteSite struct {
	site
	dir, mirror, image string
}

func newSuiteSite(t *testing.T, questions int, settings string) suiteSite {
	t.Helper()
	s := suiteSite{site: newSite(t, settings), dir: t.TempDir(), image: modelImage(t)}
	s.env = append(s.env, "HOME="+s.dir, "XDG_STATE_HOME="+s.dir+"/state", "XDG_DATA_HOME="+s.dir+"/data", "XDG_CACHE_HOME="+s.dir+"/cache")
	s.mirror = filepath.Join(s.dir, "mirror")
	if err := modelMirror(s.mirror, questions); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(filepath.Join(os.Getenv("REPROMILL_CLUSTER_VOLUME"), "repromill", "cache"))
	})
	return s
}

// suite are the arguments of a two-arm run whose servers the cluster starts.
func (s suiteSite) suite(right float64, fp8, nvfp4 string, more ...string) []string {
	serve := func(arm string, right float64, extra string) string {
		return fmt.Sprintf("%s=docker:%s /bin/models %s --host {host} --port {port} --model {model} --salt %s --right %g %s", arm, s.image, modelEntry, arm, right, extra)
	}
	return append([]string{"run", "org/tiny-NVFP4", "--baseline", "org/tiny-FP8", "--suites", "mmlu-pro", "--margin", "5pt", "--max-tokens", "256", "--mirror", s.mirror,
		"--server", serve("fp8", 0.95, fp8), "--server", serve("nvfp4", right, nvfp4), "--executor", "kueue", "--yes"}, more...)
}

// rows are the samples of the site's runs, without when and where they were asked.
func (s suiteSite) rows(t *testing.T, runID string) (lines []string) {
	t.Helper()
	for _, x := range samplesIn(t, s.dir) {
		if x.RunID == runID {
			lines = append(lines, fmt.Sprintln(x.Arm, x.ItemID, x.Repeat, x.OutputSHA, x.Outcome, x.Score, x.Position, x.Rule, x.Seed))
		}
	}
	slices.Sort(lines)
	return lines
}

// suiteOutcome is what the tests look at of `run --json`.
type suiteOutcome struct {
	RunID   string `json:"run_id"`
	Verdict string `json:"verdict"`
	Suites  []struct {
		Shards int `json:"shards"`
		Result struct {
			Used    int    `json:"questions_used"`
			Stopped string `json:"stopped"`
			Paid    struct {
				Requests, Repeated, Overrun, Void int
			} `json:"paid"`
			Comparisons []struct {
				Result json.RawMessage `json:"result"`
			} `json:"comparisons"`
			Warnings []string `json:"warnings"`
		} `json:"result"`
	} `json:"suites"`
}

// local is the run without a cluster and without an interruption.
func (s suiteSite) local(t *testing.T, right float64) suiteOutcome {
	t.Helper()
	fp8, nvfp4 := modelServer("org/tiny-FP8", "fp8", 0.95, 8, 0), modelServer("org/tiny-NVFP4", "nvfp4", right, 8, 0)
	defer fp8.Close()
	defer nvfp4.Close()
	var out suiteOutcome
	s.json(t, &out, "run", "org/tiny-NVFP4", "--baseline", "org/tiny-FP8", "--suites", "mmlu-pro", "--margin", "5pt", "--max-tokens", "256", "--mirror", s.mirror,
		"--endpoint", "fp8="+fp8.URL, "--endpoint", "nvfp4="+nvfp4.URL, "--yes")
	return out
}

// waitFor waits until something is true of the cluster.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("still waiting: %s\n%s", what, kubectl(t, "get", "pods,jobs,workloads", "-n", "repromill", "-o", "wide"))
}

// clientLogs is what the clients of all suites on the volume said.
func clientLogs() string {
	list, _ := filepath.Glob(filepath.Join(os.Getenv("REPROMILL_CLUSTER_VOLUME"), "repromill", "runs", "*", "answers", "*", "shards", "log"))
	var out []string
	for _, name := range list {
		b, _ := os.ReadFile(name)
		out = append(out, string(b))
	}
	return strings.Join(out, "\n")
}

// TestClusterSuite: a two-arm suite in shards, preempted in the middle, with a
// server that dies in every pod, and stopped when the verdict is in, gives the rows
// and the verdict of a local run that nothing interrupted.
func TestClusterSuite(t *testing.T) {
	s := newSuiteSite(t, 900, "cluster: {cpu: 300m, priority: repromill-nightly}\n")
	want := s.local(t, 0.80)
	run := s.command(append(s.suite(0.80, "--die 40", "", "--shards", "6"), "--json")...)
	var out, errs bytes.Buffer
	run.Stdout, run.Stderr = &out, &errs
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	defer func() {
		if t.Failed() {
			t.Logf("the run said:\n%s\nits clients said:\n%s", &errs, clientLogs())
		}
	}()
	waitPod(t, "repromill.dev/suite=true")
	look := s.looker()
	preempt(t)
	err := run.Wait()
	look.check(t, s.site)
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	var got suiteOutcome
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if got.Verdict != want.Verdict || got.Verdict != "worse" {
		t.Errorf("the verdict is %s, want %s", got.Verdict, want.Verdict)
	}
	a, b := got.Suites[0].Result, want.Suites[0].Result
	if a.Used != b.Used || string(a.Comparisons[0].Result) != string(b.Comparisons[0].Result) {
		t.Errorf("compared as %s over %d, want %s over %d", a.Comparisons[0].Result, a.Used, b.Comparisons[0].Result, b.Used)
	}
	if x, y := s.rows(t, got.RunID), s.rows(t, want.RunID); !slices.Equal(x, y) || len(x) != 2*b.Used {
		t.Errorf("%d rows, want %d of the local run", len(x), len(y))
	}
	if got.Suites[0].Shards != 6 || !strings.Contains(a.Stopped, "decided") || a.Paid.Requests > 2*900*2/3 {
		t.Errorf("%d shards, stopped %q, paid %+v", got.Suites[0].Shards, a.Stopped, a.Paid)
	}
	if !strings.Contains(strings.Join(a.Warnings, "\n"), "started again") {
		t.Errorf("nobody was told of the server that died: %q", a.Warnings)
	}
	if jobs := strings.TrimSpace(kubectl(t, "get", "jobs", "-n", "repromill", "-o", "name")); jobs != "" {
		t.Errorf("jobs are left: %s", jobs)
	}
	if o, err := s.command("results", "verify").CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, o)
	}
	t.Logf("asked %d requests, %d again, %d beyond the decision", a.Paid.Requests, a.Paid.Repeated, a.Paid.Overrun)
}

// preempt takes the queue away for a moment.
func preempt(t *testing.T) {
	t.Helper()
	leave := rival(t, "repromill-small", "cpu: 1500m, memory: 64Mi", "{}")
	waitPod(t, "job-name=first-repromill-small")
	leave()
}

// rival submits a Job that goes before all others of a queue; it stays until it is
// told to leave.
func rival(t *testing.T, queue, resources, selector string) (leave func()) {
	t.Helper()
	apply(t, `apiVersion: batch/v1
kind: Job
metadata:
  name: first-`+queue+`
  namespace: repromill
  labels: {kueue.x-k8s.io/queue-name: `+queue+`, kueue.x-k8s.io/priority-class: repromill-interactive}
spec:
  suspend: true
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      nodeSelector: `+selector+`
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: c
        image: `+os.Getenv("REPROMILL_CLUSTER_IMAGE")+`
        command: [sleep, "600"]
        resources: {requests: {`+resources+`}, limits: {`+resources+`}}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`)
	return func() {
		t.Helper()
		kubectl(t, "delete", "job", "first-"+queue, "-n", "repromill", "--cascade=foreground")
	}
}

func apply(t *testing.T, objects string) {
	t.Helper()
	cmd := exec.Command("kubectl", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(objects)
	if o, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, o)
	}
}
