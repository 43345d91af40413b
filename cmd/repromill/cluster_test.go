//go:build linux && cluster

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// site is an installation whose runs go to the development cluster.
type site struct {
	exe string
	env []string
}

func newSite(t *testing.T, settings string) site {
	t.Helper()
	if os.Getenv("REPROMILL_CLUSTER_IMAGE") == "" || os.Getenv("REPROMILL_CLUSTER_VOLUME") == "" {
		t.Fatal(`no cluster: run eval "$(go run ./cmd/devcluster env)" after "devcluster up" and "devcluster image"`)
	}
	dir := t.TempDir()
	s := site{exe: filepath.Join(dir, "repromill")}
	if built := os.Getenv("REPROMILL_BINARY"); built != "" { // linking takes longer than most of what is tested
		s.exe = built
	} else {
		build := exec.Command("go", "build", "-trimpath", "-o", s.exe, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(), "HOME="+dir, "XDG_STATE_HOME="+dir+"/state", "XDG_DATA_HOME="+dir+"/data", "XDG_CACHE_HOME="+dir+"/cache", "REPROMILL_CONFIG="+file)
	kubectl(t, "delete", "jobs", "--all", "-n", "repromill", "--cascade=foreground", "--timeout=180s")
	return s
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("kubectl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (s site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.exe, args...)
	cmd.Env = s.env
	return cmd
}

// json runs a command and decodes what it prints.
func (s site) json(t *testing.T, into any, args ...string) {
	t.Helper()
	cmd := s.command(append(args, "--json")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out, errs.String())
	}
}

func demo(more ...string) []string {
	return append([]string{"run", "--mirror", "../../examples/mirror", "--executor", "kueue", "--yes", "2604.08075"}, more...)
}

// committed checks that the one run of the site is committed, whole and once.
func (s site) committed(t *testing.T) {
	t.Helper()
	var runs []struct {
		ID      string `json:"id"`
		State   string `json:"state"`
		Verdict string `json:"verdict"`
	}
	s.json(t, &runs, "status")
	if len(runs) != 1 || runs[0].State != "done" || runs[0].Verdict != "partially_aligned" {
		t.Fatalf("runs: %+v", runs)
	}
	if out, err := s.command("results", "verify").CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	var rep struct {
		Claims []struct {
			Metric string `json:"metric"`
			Status string `json:"status"`
		} `json:"claims"`
	}
	s.json(t, &rep, "results", "show", runs[0].ID)
	if len(rep.Claims) != 3 {
		t.Errorf("claims: %+v", rep.Claims)
	}
	var st struct {
		Attempts []struct {
			Key    string `json:"key"`
			Final  bool   `json:"final"`
			Status struct {
				Phase     string
				Placement struct {
					Node, Flavor string
					Evictions    int
				}
			} `json:"status"`
		} `json:"attempts"`
	}
	s.json(t, &st, "status", runs[0].ID)
	if len(st.Attempts) != 1 || !st.Attempts[0].Final || st.Attempts[0].Status.Phase != "succeeded" || st.Attempts[0].Status.Placement.Flavor != "cpu" {
		t.Errorf("attempts: %+v", st.Attempts)
	}
}

// TestDemoPaperOnACluster is the demo paper as a Kueue Job in a real container,
// from its id to committed Parquet.
func TestDemoPaperOnACluster(t *testing.T) {
	s := newSite(t, "")
	if out, err := s.command(demo()...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.committed(t)
}

// TestDemoPaperPreempted: the Job loses its place in the middle and gets it
// back; the run notices nothing but the time.
func TestDemoPaperPreempted(t *testing.T) {
	s := newSite(t, "cluster: {cpu: 1500m, priority: repromill-nightly}\n")
	run := s.command(demo()...)
	var out bytes.Buffer
	run.Stdout, run.Stderr = &out, &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	waitPod(t, "app.kubernetes.io/managed-by=repromill")
	preempt(t)
	if err := run.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "preempted by a Job that goes first") {
		t.Errorf("nobody was told of the preemption:\n%s", &out)
	}
	s.committed(t)
}

// TestDemoPaperWithoutItsSubmitter: the submitter is killed in the middle, and
// the next one finds the Job again.
func TestDemoPaperWithoutItsSubmitter(t *testing.T) {
	s := newSite(t, "")
	run := s.command(demo()...)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	waitPod(t, "app.kubernetes.io/managed-by=repromill")
	run.Process.Kill()
	run.Wait()
	var runs []struct {
		ID string `json:"id"`
	}
	s.json(t, &runs, "status")
	if len(runs) != 1 {
		t.Fatalf("runs: %+v", runs)
	}
	if out, err := s.command("run", "--resume", runs[0].ID, "--yes").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.committed(t)
	if jobs := strings.Fields(kubectl(t, "get", "jobs", "-n", "repromill", "-o", "name")); len(jobs) != 1 {
		t.Errorf("jobs: %v", jobs)
	}
}

// TestClusterIsRefusedWithTheFix: what is missing is said before a run is made.
func TestClusterIsRefusedWithTheFix(t *testing.T) {
	s := newSite(t, "")
	for name, tc := range map[string]struct{ env, want string }{
		"no volume":  {"REPROMILL_CLUSTER_VOLUME=", "cluster.volume"},
		"no image":   {"REPROMILL_CLUSTER_IMAGE=", "cluster.image"},
		"no cluster": {"KUBECONFIG=/no/such/file", "devcluster up"},
	} {
		cmd := s.command(demo()...)
		cmd.Env = append(cmd.Env, tc.env)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	var runs []any
	if s.json(t, &runs, "status"); len(runs) != 0 {
		t.Errorf("a run was made: %v", runs)
	}
}

// waitPod waits until a pod of the namespace runs.
func waitPod(t *testing.T, selector string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if strings.Contains(kubectl(t, "get", "pods", "-n", "repromill", "-l", selector, "-o", "jsonpath={.items[*].status.phase}"), "Running") {
			return
		}
	}
	t.Fatalf("no pod with %s runs\n%s\n%s", selector, kubectl(t, "get", "pods,jobs,workloads", "-n", "repromill", "-o", "wide"), kubectl(t, "get", "events", "-n", "repromill", "--sort-by=.lastTimestamp"))
}

// object is what the tests look at of a Job.
type object struct {
	Kind     string
	Metadata struct{ Labels map[string]string }
	Spec     struct {
		Completions int
		Template    struct {
			Spec struct {
				InitContainers, Containers []struct {
					Name    string
					Command []string
				}
			}
		}
	}
}

// dryRun is what the cluster would make of what `submit --dry-run` prints, which has
// to be the same in both formats.
func (s site) dryRun(t *testing.T, args ...string) []object {
	t.Helper()
	var made []string
	for _, format := range []string{"yaml", "json"} {
		cmd := s.command(append([]string{"submit", "--dry-run", "-o", format}, args...)...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, &errs)
		}
		apply := exec.Command("kubectl", "apply", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")
		apply.Stdin = bytes.NewReader(out)
		o, err := apply.Output()
		if err != nil {
			t.Fatalf("the cluster refuses the dry run: %v\n%s", err, out)
		}
		made = append(made, string(o))
	}
	read := func(text string) []object {
		var list struct{ Items []object }
		var one object
		if json.Unmarshal([]byte(text), &list) != nil || json.Unmarshal([]byte(text), &one) != nil {
			t.Fatalf("kubectl prints %s", text)
		}
		if one.Kind != "List" { // it is that of one object
			return []object{one}
		}
		return list.Items
	}
	if a, b := read(made[0]), read(made[1]); !reflect.DeepEqual(a, b) {
		t.Errorf("as YAML they are %+v, as JSON %+v", a, b)
	}
	return read(made[0])
}

// TestSubmit: submit returns when the run is queued, and the run ends by itself.
func TestSubmit(t *testing.T) {
	s := newSite(t, "")
	target := []string{"--mirror", "../../examples/mirror", "2604.08075"}
	var previews []struct {
		Run, Fits, Flavor string
		Requests          map[string]string
	}
	s.json(t, &previews, append([]string{"submit", "--explain"}, target...)...)
	if len(previews) != 1 || previews[0].Fits != "now" || previews[0].Flavor != "cpu" || previews[0].Requests["cpu"] != "1" {
		t.Errorf("explained as %+v", previews)
	}
	if got := s.dryRun(t, append([]string{"--queue", "reserved"}, target...)...); len(got) != 1 || got[0].Kind != "Job" || got[0].Metadata.Labels["kueue.x-k8s.io/queue-name"] != "repromill-reserved" {
		t.Errorf("the dry run is %+v", got)
	}
	var run struct {
		ID string `json:"run_id"`
	}
	s.json(t, &run, append([]string{"submit", "--yes"}, target...)...)
	var counted struct {
		Jobs   int
		Queues []struct{ Queue string }
	}
	for end := time.Now().Add(time.Minute); counted.Jobs == 0; time.Sleep(200 * time.Millisecond) {
		if s.json(t, &counted, "status", "--cluster"); time.Now().After(end) {
			t.Fatalf("the cluster's Jobs: %+v", counted)
		}
	}
	if len(counted.Queues) == 0 || counted.Queues[0].Queue != "repromill-small" {
		t.Errorf("the cluster's Jobs: %+v", counted)
	}
	if out, err := s.command("watch", run.ID).CombinedOutput(); err != nil {
		t.Errorf("watch: %v\n%s", err, out)
	}
	s.committed(t)
}
