package runner_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
)

// TestMain lets the test binary be the worker, the first process of a sandbox,
// and the driver that a test kills.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "__worker":
			os.Exit(local.WorkerMain(args))
		case "__sandbox-init":
			os.Exit(sandbox.InitMain(args))
		case "__drive":
			if err := driveMain(args[0], args[1], args[2], args[3]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// driveMain creates and drives the run of a folder, killing itself at the
// given hit of a hook point; 0 is never. It writes the points it passed to
// stdout. In the modes "cancel" and "interrupt" it does so once the command
// has started.
func driveMain(dir, mode, at, hit string) error {
	n, err := strconv.Atoi(hit)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	hits := map[string]int{}
	w, err := newWorld(dir, func(point string) {
		mu.Lock()
		defer mu.Unlock()
		hits[point]++
		fmt.Println(point)
		if point == at && hits[point] == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if err != nil {
		return err
	}
	defer w.store.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if mode != "run" {
		go func() {
			for len(glob(dir, "state", "runs", "*", "work", "started")) == 0 {
				time.Sleep(5 * time.Millisecond)
			}
			if mode == "interrupt" {
				stop()
			} else if _, err := w.runner.Cancel(ctx, runID(w), "test"); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
	if _, err = w.drive(ctx); mode == "interrupt" && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func glob(parts ...string) []string {
	out, _ := filepath.Glob(filepath.Join(parts...))
	return out
}

// runID is the id of the only run there is.
func runID(w *world) string {
	runs, err := w.store.List(context.Background(), store.Filter{})
	if err != nil || len(runs) == 0 {
		return ""
	}
	return runs[0].ID
}

// world is everything real: store, local executor, dataset.
type world struct {
	runner *runner.Runner
	store  *store.Store
	data   *dataset.Dataset
	exec   *local.Executor
}

func newWorld(dir string, hook func(string)) (*world, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &world{}
	if w.store, err = store.Open(context.Background(), filepath.Join(dir, "state", "store.db"), store.Config{Hook: hook}); err != nil {
		return nil, err
	}
	w.exec, err = local.New(local.Config{
		Dir: filepath.Join(dir, "state", "attempts"), Self: []string{exe, "__worker"},
		Sandbox: sandbox.Config{Init: []string{exe, "__sandbox-init"}}, Hook: hook,
	})
	if err != nil {
		return nil, err
	}
	if w.data, err = dataset.Open(filepath.Join(dir, "results"), dataset.Config{Hook: hook}); err != nil {
		return nil, err
	}
	w.runner, err = runner.New(runner.Config{
		Store: w.store, Executors: map[string]runner.Executor{"local": w.exec}, Source: checkout(filepath.Join(dir, "src")),
		Results: runner.InDataset(w.data), Dir: filepath.Join(dir, "state"), Rand: rand.Reader, Hook: hook,
		Getenv: os.Getenv, Version: "test",
	})
	return w, err
}

type checkout string

func (c checkout) Checkout(context.Context, string, string, bool) (string, error) {
	return string(c), nil
}

const key = "the one run"

func (w *world) drive(ctx context.Context) (runner.Outcome, error) {
	run, _, err := w.runner.Create(ctx, runner.Request{
		Plan: killPlan(), Yes: true, Key: key, NoSandbox: w.exec.Capabilities().Layer == sandbox.None,
	})
	if err != nil {
		return runner.Outcome{}, err
	}
	return w.runner.Drive(ctx, run.ID)
}

func killPlan() *spec.Plan {
	v := 0.85
	p := &spec.Plan{
		Target: spec.Target{Input: "x", Kind: "git", ID: "x"},
		Source: spec.Source{Repo: "https://example.org/x", Commit: strings.Repeat("a", 40)},
		Claims: []spec.Claim{{ID: "c", Text: "0.85", Metric: "acc", Value: &v, Checkable: "numeric"}},
		Runs: []spec.Run{{
			ID: "main", Kind: "full", Route: "recompute", ClaimIDs: []string{"c"}, Argv: []string{"sh", "main.sh", "{seed}"}, Cwd: ".",
			Seeds: []int64{8, 9}, Status: "auto", Selected: true,
			Collect: []spec.Collect{{Metric: "acc", Kind: "json", Path: "out.json", Pointer: "/acc"}},
		}},
	}
	p.Seal()
	return p
}

// layOut makes the folder that a driver works in.
func layOut(t testing.TB, script string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "runner-test")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "src"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "src", "main.sh"), []byte(script), 0o644))
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// once appends to its output, so that a second start in the same folder shows.
const once = `[ -e out.json ] && exit 7
echo "{\"acc\": 0.$1}" >> out.json
`

// driver runs the test binary as a driver that dies at the n-th hit of a point.
func driver(dir, mode, at string, n int) *exec.Cmd {
	return exec.Command(os.Args[0], "__drive", dir, mode, at, strconv.Itoa(n))
}

// steps are the points that an undisturbed driver passes, in their order.
func steps(t *testing.T, dir, mode string) []string {
	t.Helper()
	cmd := driver(dir, mode, "", 0)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	return strings.Fields(string(out))
}

// strike kills a driver.
func strike(t *testing.T, dir, mode, at string, n int) {
	t.Helper()
	err := driver(dir, mode, at, n).Run()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		// How often a running command is observed depends on the time.
		if !strings.HasPrefix(at, "store:set_status") || err != nil {
			t.Fatalf("the driver was not killed: %v", err)
		}
	}
}

// whole resumes the run and asserts everything that must hold then; again
// says that the command may have been started more than once.
func whole(t *testing.T, dir string, again bool) {
	t.Helper()
	w, err := newWorld(dir, nil)
	must(t, err)
	defer w.store.Close()
	out, err := w.drive(t.Context())
	must(t, err)
	if out.State != store.Done || out.Verdict != verdict.Aligned || len(out.Metrics) != 2 {
		t.Errorf("outcome = %s %s %+v", out.State, out.Verdict, out.Units)
	}
	for i, m := range out.Metrics {
		if want := []float64{0.8, 0.9}[i]; m.Value.Value != want {
			t.Errorf("metric %d = %g, want %g", i, m.Value.Value, want)
		}
	}
	list, err := w.data.List(t.Context())
	must(t, err)
	if len(list) != 1 {
		t.Errorf("%d committed results", len(list))
	}
	rows, err := dataset.Read[schema.MetricRow](t.Context(), w.data, out.RunID)
	must(t, err)
	if len(rows) != 3 { // one per seed, and their mean
		t.Errorf("%d rows of metrics", len(rows))
	}
	rep, err := w.data.Verify(t.Context(), false)
	must(t, err)
	if len(rep.Problems) > 0 {
		t.Errorf("the dataset: %+v", rep.Problems)
	}
	problems, err := w.store.Check(t.Context())
	must(t, err)
	if len(problems) > 0 {
		t.Errorf("the store: %v", problems)
	}
	attempts, err := w.store.Attempts(t.Context(), out.RunID)
	must(t, err)
	for _, a := range attempts {
		if !a.Final || a.N > 0 && !again {
			t.Errorf("attempt %s: final %v", a.Key, a.Final)
		}
	}
	noTrace(t, dir)
}

// noTrace looks for temporary files and processes of the folder.
func noTrace(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") || strings.Contains(path, "/_staging/") || strings.HasSuffix(path, "/scratch") || strings.HasSuffix(path, "/work") {
			t.Errorf("%s is left", path)
		}
		return err
	}))
	deadline := time.Now().Add(3 * time.Second) // a worker ends just after its last word
	for {
		left := processes(dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes are left: %v", left)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func processes(dir string) (out []string) {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		b, err := os.ReadFile(p)
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(p), "cwd"))
		if err == nil && (bytes.Contains(b, []byte(dir)) || strings.HasPrefix(cwd, dir)) {
			out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

// TestKilledAtEveryStep kills the driver at every hit of every hook point once
// and resumes. Without the tag e2e it takes the first hit of this package's own
// points only.
func TestKilledAtEveryStep(t *testing.T) {
	dir := layOut(t, once)
	points := steps(t, dir, "run")
	whole(t, dir, false)
	for _, p := range runner.HookPoints() {
		// A run that is neither planned here nor cancelled does not pass these.
		if name := strings.Split(p, ":")[1]; !slices.Contains(points, p) && !slices.Contains([]string{"request_cancel", "cancel", "append_events", "put_key", "audit"}, name) {
			t.Errorf("the run does not pass %s", p)
		}
	}
	t.Logf("%d steps", len(points))
	for k, p := range points {
		if !everyStep && (slices.Index(points, p) != k || !strings.HasPrefix(p, "runner:")) {
			continue
		}
		t.Run(fmt.Sprintf("%03d/%s", k+1, p), func(t *testing.T) {
			t.Parallel()
			dir := layOut(t, once)
			n := 0
			for _, q := range points[:k+1] {
				if q == p {
					n++
				}
			}
			strike(t, dir, "run", p, n)
			whole(t, dir, false)
		})
	}
}

// TestKilledAgain kills the driver, and those that resume as well.
func TestKilledAgain(t *testing.T) {
	for _, list := range [][]string{
		{"runner:submit:after", "store:set_status:after", "dataset:data-rename:after"},
		{"store:create_run:before", "runner:lock:after", "runner:copy_unit:after"},
		{"store:put_attempt:after", "runner:keep_unit:before", "runner:keep_unit:after", "store:finish:before"},
	} {
		t.Run(list[0], func(t *testing.T) {
			t.Parallel()
			dir := layOut(t, once)
			for _, p := range list {
				strike(t, dir, "run", p, 1)
			}
			whole(t, dir, false)
		})
	}
}

// TestKilledWhileTheCommandRuns shows that the command goes on without its
// driver and is adopted, not started again.
func TestKilledWhileTheCommandRuns(t *testing.T) {
	for i := range 4 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			dir := layOut(t, "touch started; sleep 0.4\n"+once)
			cmd := driver(dir, "run", "", 0)
			must(t, cmd.Start())
			for len(glob(dir, "state", "runs", "*", "work", "started")) == 0 {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Duration(i) * 130 * time.Millisecond)
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			whole(t, dir, false)
		})
	}
}

// TestKilledWhileStopping kills the driver in the middle of a cancellation and
// of an interrupt: nothing runs on, and the run can be cancelled or resumed.
func TestKilledWhileStopping(t *testing.T) {
	for _, mode := range []string{"cancel", "interrupt"} {
		script := "touch started; sleep 1\n" + once
		points := steps(t, layOut(t, script), mode)
		at := slices.IndexFunc(points, func(p string) bool { return p == "store:request_cancel:before" || p == "runner:cancel:before" })
		if at < 0 {
			t.Fatalf("%s: nothing was stopped in %v", mode, points)
		}
		for _, p := range slices.Compact(slices.Sorted(slices.Values(points[at:]))) {
			n := 1
			for _, q := range points[:at] {
				if q == p {
					n++
				}
			}
			if !everyStep && !strings.HasPrefix(p, "runner:") {
				continue
			}
			t.Run(mode+"/"+p, func(t *testing.T) {
				t.Parallel()
				dir := layOut(t, script)
				strike(t, dir, mode, p, n)
				if mode == "interrupt" {
					whole(t, dir, true)
					return
				}
				w, err := newWorld(dir, nil)
				must(t, err)
				defer w.store.Close()
				if st, err := w.runner.Cancel(t.Context(), runID(w), "test"); err != nil || st != store.Cancelled {
					t.Errorf("Cancel = %s, %v", st, err)
				}
				if problems, err := w.store.Check(t.Context()); err != nil || len(problems) > 0 {
					t.Errorf("the store: %v, %v", problems, err)
				}
				if list, err := w.data.List(t.Context()); err != nil || len(list) > 0 {
					t.Errorf("a cancelled run has results: %v, %v", list, err)
				}
				noTrace(t, dir)
			})
		}
	}
}
