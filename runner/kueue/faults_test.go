//go:build linux && cluster

package kueue

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/repromill/repromill/runner"
)

// counting is an attempt that notes every start of its own in a file and goes
// on when the file "go" comes.
func (r *recorder) counting(t *testing.T) runner.Attempt {
	t.Helper()
	work, err := os.MkdirTemp(r.dir, "work-")
	if err != nil {
		t.Fatal(err)
	}
	r.n++
	return runner.Attempt{
		Key:  runner.AttemptKey{RunID: t.Name(), Stage: "execute", N: r.n},
		Argv: []string{r.cfg.Worker, "__program", "count", "count", "go"}, Dir: work, Writable: []string{work}, ReadOnly: []string{r.cfg.Worker},
		Limits: runner.Limits{Wall: 10 * time.Minute, MemoryBytes: 256 << 20},
	}
}

func newRecorder(t *testing.T) *recorder {
	clean(t)
	dir := folderIn(t)
	return &recorder{dir: dir, cfg: liveConfig(t, dir)}
}

func wait(t *testing.T, e runner.Executor, h runner.Handle, ok func(runner.Status) bool) runner.Status {
	t.Helper()
	var st runner.Status
	var err error
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if st, err = e.Observe(t.Context(), h); err == nil && ok(st) {
			return st
		}
	}
	t.Fatalf("still %+v, %v", st, err)
	return st
}

func final(st runner.Status) bool   { return st.Phase.Final() }
func running(st runner.Status) bool { return st.Phase == runner.Running }

// started waits until the command has begun, as its file shows.
func started(t *testing.T, a runner.Attempt) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if b, _ := os.ReadFile(filepath.Join(a.Dir, "count")); len(b) > 0 {
			return
		}
	}
	t.Fatal("the command does not begin")
}

func letGo(t *testing.T, a runner.Attempt) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.Dir, "go"), []byte("go"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// once fails unless exactly one start is to be seen in the attempt's folder.
func once(t *testing.T, a runner.Attempt) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Join(a.Dir, "count")); err != nil || string(b) != "started\n" {
		t.Errorf("the folder shows %q, %v; want one start", b, err)
	}
}

// most takes so much of the small queue that two do not fit. The GPUs of the
// reserved one are simulated, and a sandbox refuses a node that shows none.
func most(priority string) func(*Config) {
	return func(c *Config) { c.Priority, c.CPU = priority, "1500m" }
}

// TestPreemptedTwice: a command that was stopped in the middle begins anew in
// another pod, and nothing of the earlier tries is to be seen in the end.
func TestPreemptedTwice(t *testing.T) {
	r := newRecorder(t)
	cfg := r.cfg
	most("repromill-nightly")(&cfg)
	e := liveExecutor(t, cfg)
	a := r.counting(t)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wait(t, e, h, running)
		started(t, a)
		e2, h2 := r.submit(t, most("repromill-interactive"), 0, "beat", "beat")
		look(t, e, h, is(Preempted))
		look(t, e2, h2, is(Running))
		if err := e2.Cancel(t.Context(), h2); err != nil {
			t.Fatal(err)
		}
		wait(t, e, h, running) // its command runs: the folder was put back before that
	}
	letGo(t, a)
	st := wait(t, e, h, final)
	if st.Phase != runner.Succeeded || st.Placement.Evictions != 2 || st.Placement.Flavor != "cpu" {
		t.Errorf("ended %+v, want success after 2 evictions on the flavour cpu", st)
	}
	once(t, a)
}

// TestThrashingIsStopped: what is evicted too often is given up with a reason.
func TestThrashingIsStopped(t *testing.T) {
	r := newRecorder(t)
	cfg := r.cfg
	most("repromill-nightly")(&cfg)
	cfg.MaxEvictions = 1
	e := liveExecutor(t, cfg)
	a := r.counting(t)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	started(t, a)
	r.submit(t, most("repromill-interactive"), 0, "beat", "beat")
	st := wait(t, e, h, final)
	if st.Phase != runner.Failed || st.Reason != ReasonEvicted || !strings.Contains(st.Message, "not preempted") {
		t.Errorf("ended %+v, want it given up", st)
	}
}

// kill is what a hook does in place of kill -9: nothing after it happens.
type kill struct{ point string }

// TestKilledAtEveryStep: a submitter that dies at any step is followed by one
// that finds everything as if it had not died.
func TestKilledAtEveryStep(t *testing.T) {
	r := newRecorder(t)
	var points []string
	trace := r.cfg
	trace.Hook = func(p string) { points = append(points, p) }
	a := r.counting(t)
	letGo(t, a)
	e := liveExecutor(t, trace)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, e, h, final)
	if len(points) < 4 {
		t.Fatalf("the steps are %q", points)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			a := r.counting(t)
			a.Key.RunID = "killed" + strings.Map(func(r rune) rune {
				if r == ':' || r == '.' {
					return -1
				}
				return r
			}, point)
			letGo(t, a)
			cfg := r.cfg
			cfg.Hook = func(p string) {
				if p == point {
					panic(kill{p})
				}
			}
			func() {
				defer func() {
					if k, ok := recover().(kill); !ok {
						t.Errorf("%v was not reached", k)
					}
				}()
				liveExecutor(t, cfg).Submit(t.Context(), a)
			}()
			e := liveExecutor(t, r.cfg)
			h, err := e.Submit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			if st := wait(t, e, h, final); st.Phase != runner.Succeeded {
				t.Errorf("ended %+v", st)
			}
			once(t, a)
			list, err := e.c.kube.BatchV1().Jobs("repromill").List(t.Context(), metav1.ListOptions{LabelSelector: labelAttempt + "=" + a.Key.Hash()})
			if err != nil || len(list.Items) != 1 {
				t.Errorf("%d Jobs, %v", len(list.Items), err)
			}
		})
	}
}

// TestLosingSight: whatever the API server does while a command runs, the
// command goes on and its result is found.
func TestLosingSight(t *testing.T) {
	r := newRecorder(t)
	f, cfg := newFront(t)
	e := through(t, r, cfg)
	a := r.counting(t)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	started(t, a)
	for name, fail := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"server down": func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) },
		"token expired": func(w http.ResponseWriter, _ *http.Request) bool {
			status(w, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
			return true
		},
		"too busy": func(w http.ResponseWriter, _ *http.Request) bool {
			status(w, 429, metav1.StatusReasonTooManyRequests, "busy")
			return true
		},
		"another cluster": func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/jobs/") {
				status(w, 404, metav1.StatusReasonNotFound, "not found")
				return true
			}
			if strings.HasSuffix(r.URL.Path, "/namespaces/repromill") {
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte(`{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"repromill","uid":"another"}}`))
				return true
			}
			return false
		},
	} {
		f.failing(fail)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if st, err := e.Observe(ctx, h); err == nil {
			t.Errorf("%s: nothing was seen and yet %+v is known", name, st)
		}
		cancel()
	}
	letGo(t, a) // it ends while nobody can look
	f.failing(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	if st := wait(t, e, h, final); st.Phase != runner.Succeeded {
		t.Errorf("ended %+v", st)
	}
	once(t, a)
}

// TestRefusals: what stands in the way of a submission is named, with the fix.
func TestRefusals(t *testing.T) {
	r := newRecorder(t)
	f, cfg := newFront(t)
	for name, tc := range map[string]struct {
		fail func(http.ResponseWriter, *http.Request) bool
		want string
	}{
		"no Kueue": {func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/apis/kueue") {
				status(w, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource")
				return true
			}
			return false
		}, "the cluster has no Kueue"},
		"an old Kueue": {func(w http.ResponseWriter, r *http.Request) bool {
			switch r.URL.Path {
			case kueueAPI:
				status(w, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource")
			case "/apis/kueue.x-k8s.io":
				w.Header().Set("Content-Type", "application/json")
				w.Write([]byte(`{"kind":"APIGroup","versions":[{"groupVersion":"kueue.x-k8s.io/v1beta1"}]}`))
			default:
				return false
			}
			return true
		}, "upgraded to v0.15"},
	} {
		t.Run(name, func(t *testing.T) {
			f.failing(tc.fail)
			refused(t, through(t, r, cfg), r.counting(t), tc.want)
		})
	}
	f.failing(nil)
	t.Run("not allowed", func(t *testing.T) {
		nobody, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
		if err != nil {
			t.Fatal(err)
		}
		nobody.Impersonate.UserName = "nobody"
		refused(t, through(t, r, nobody), r.counting(t), "examples/cluster/submitter.yaml")
	})
	t.Run("no namespace", func(t *testing.T) {
		c := r.cfg
		c.Namespace = "nowhere"
		refused(t, liveExecutor(t, c), r.counting(t), "create it, or name another")
	})
}

func refused(t *testing.T, e *Executor, a runner.Attempt, want string) {
	t.Helper()
	_, err := e.Submit(t.Context(), a)
	var user interface{ UserError() string }
	if !errors.As(err, &user) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want a user error with %q", err, want)
	}
	if _, err := os.Stat(string(e.folder(a.Key))); err == nil {
		t.Error("the refused attempt left a folder")
	}
}

// pid is a process of the development cluster.
func pid(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.Command("pgrep", "-f", "k8s-.*/"+name+" ").Output()
	var n int
	if err == nil {
		n = atoi(strings.Fields(string(out))[0])
	}
	if n == 0 {
		t.Fatalf("no process %s: %v", name, err)
	}
	return n
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = 10*n + int(c-'0')
	}
	return n
}

// TestWebhookDown: while Kueue's controller hangs no Job can be made; a
// submission waits for it.
func TestWebhookDown(t *testing.T) {
	r := newRecorder(t)
	e := liveExecutor(t, r.cfg)
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := pid(t, "kueue")
	if err := syscall.Kill(p, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := time.AfterFunc(15*time.Second, func() { syscall.Kill(p, syscall.SIGCONT) })
	defer func() { resume.Stop(); syscall.Kill(p, syscall.SIGCONT) }()
	a := r.counting(t)
	letGo(t, a)
	from := time.Now()
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(from); took < 10*time.Second {
		t.Errorf("the submission waited %v for a webhook that was down", took)
	}
	if st := wait(t, e, h, final); st.Phase != runner.Succeeded {
		t.Errorf("ended %+v", st)
	}
	once(t, a)
}

// TestNodeGone: a node that falls silent and comes back has lost nothing.
func TestNodeGone(t *testing.T) {
	r := newRecorder(t)
	e := liveExecutor(t, r.cfg)
	a := r.counting(t)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	started(t, a)
	p := pid(t, "kubelet")
	if err := syscall.Kill(p, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(p, syscall.SIGCONT)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		out, err := exec.Command("kubectl", "get", "nodes", "-o", `jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}`).Output()
		if err == nil && string(out) == "Unknown" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the node is still seen: %s, %v", out, err)
		}
	}
	if st, err := e.Observe(t.Context(), h); err != nil || st.Phase.Final() {
		t.Errorf("while the node is silent: %+v, %v", st, err)
	}
	letGo(t, a)
	if st := wait(t, e, h, final); st.Phase != runner.Succeeded { // the volume tells
		t.Errorf("ended %+v", st)
	}
	once(t, a)
}

// TestJobDeleted: a Job that somebody deletes is lost for good, once.
func TestJobDeleted(t *testing.T) {
	r := newRecorder(t)
	e := liveExecutor(t, r.cfg)
	a := r.counting(t)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	started(t, a)
	kubectl(t, "delete", "job", "-n", "repromill", JobName(a.Key), "--cascade=foreground")
	if st := wait(t, e, h, final); st.Phase != runner.Failed || st.Reason != runner.ReasonLost {
		t.Errorf("ended %+v", st)
	}
	if h2, err := e.Submit(t.Context(), a); err != nil || h2 != h {
		t.Errorf("submitting it again gave %q, %v", h2, err)
	}
	if out, _ := exec.Command("kubectl", "get", "jobs", "-n", "repromill", "-o", "name").Output(); len(out) > 0 {
		t.Errorf("it was begun again: %s", out)
	}
}

// TestWrongSKU: an attempt that its queue gives another GPU model than the plan
// is for is stopped, and void.
func TestWrongSKU(t *testing.T) {
	r := newRecorder(t)
	cfg := r.cfg
	cfg.Queue, cfg.CPU = "repromill-reserved", "100m"
	cfg.SKUOf = func(product string) string {
		return map[string]string{"NVIDIA-H200": "h200", "NVIDIA-B200": "b200"}[product]
	}
	e := liveExecutor(t, cfg)
	for sku, want := range map[string]runner.Reason{"b200": runner.ReasonWrongSKU, "h200": runner.ReasonStart} {
		t.Run(sku, func(t *testing.T) {
			a := r.counting(t)
			a.Key.RunID, a.GPUs, a.SKU = "sku"+sku, 1, sku
			h, err := e.Submit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			st := wait(t, e, h, final)
			// The right model is refused too, by the sandbox: the node's GPUs are
			// simulated and it has no device.
			if st.Phase != runner.Failed || st.Reason != want || st.Placement.Product != "NVIDIA-H200" || st.Placement.SKU != "h200" || st.Placement.Flavor != "h200" {
				t.Errorf("ended %+v, want %s on an H200", st, want)
			}
			if again, err := e.Observe(t.Context(), h); err != nil || again.Reason != want {
				t.Errorf("then it is %+v, %v", again, err)
			}
		})
	}
}

// TestHundred: submitting is fast.
func TestHundred(t *testing.T) {
	r := newRecorder(t)
	r.cfg.Queue = "nowhere" // nothing of it is to run
	e := liveExecutor(t, r.cfg)
	var attempts []runner.Attempt
	for range 100 {
		attempts = append(attempts, r.counting(t))
	}
	from := time.Now()
	var g errgroup.Group
	g.SetLimit(8)
	for _, a := range attempts {
		g.Go(func() error {
			_, err := e.Submit(t.Context(), a)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("submitted 100 Jobs, 8 at a time, in %v", time.Since(from))
}
