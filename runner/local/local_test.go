//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/executortest"
	"github.com/repromill/repromill/runner/sandbox"
)

// try runs a command to its end and returns what it printed.
func try(t testing.TB, e *Executor, dir string, a runner.Attempt) (runner.Status, string) {
	t.Helper()
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if a.Dir == "" {
		a.Dir, a.Writable = work, append(a.Writable, work)
	}
	if a.Key.RunID == "" {
		a.Key = runner.AttemptKey{RunID: t.Name(), Stage: runner.StageExecute}
	}
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	for {
		st, err := e.Observe(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if st.Phase.Final() {
			out, err := os.ReadFile(filepath.Join(e.folder(h).Dir, fileOutput))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			return st, string(out)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestPackageIndex reaches a server at a private address that the user has
// configured, and no other, and says what was refused.
func TestPackageIndex(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "index of", r.URL.Path) }))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	for _, layer := range []sandbox.Layer{sandbox.Namespaces, sandbox.Landlock} {
		dir := executortest.Place(t)
		e := newExecutor(t, dir, sandbox.Config{Layer: layer}, func(c *Config) { c.AllowPrivate = []string{host} })
		st, out := try(t, e, dir, runner.Attempt{
			Argv:    []string{self(t), "__program", "get", srv.URL + "/simple/", "http://elsewhere.example/"},
			Network: runner.Network{Hosts: []string{host}},
		})
		if st.Phase != runner.Succeeded || !strings.Contains(out, "/simple/ status 200") || !strings.Contains(out, "elsewhere.example/ status 403") {
			t.Errorf("%s: %+v\n%s", layer, st, out)
		}
		log, err := os.ReadFile(filepath.Join(filepath.Dir(st.Stdout), fileNetwork))
		if err != nil || !strings.Contains(string(log), `"host":"elsewhere.example:80","allowed":false`) || !strings.Contains(string(log), `"host":"`+host+`","allowed":true`) {
			t.Errorf("%s: the record of the network is %s, %v", layer, log, err)
		}
	}
}

// TestRefusalIsReported: a command that fails for want of a host says so.
func TestRefusalIsReported(t *testing.T) {
	t.Parallel()
	dir := executortest.Place(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	st, _ := try(t, e, dir, runner.Attempt{
		Argv:    []string{"sh", "-c", `"$0" __program get http://pypi.example/; exit 3`, self(t)},
		Network: runner.Network{Hosts: []string{"other.example:443"}}, ReadOnly: []string{self(t)},
	})
	if st.Reason != runner.ReasonExit || !strings.Contains(st.Message, "the network was refused: pypi.example:80") {
		t.Errorf("%+v", st)
	}
}

// TestClosedHome: neither the interpreter nor the work has to lie where
// everyone may look, which they do not when the tool runs as root.
func TestClosedHome(t *testing.T) {
	t.Parallel()
	for layer, want := range map[sandbox.Layer]string{sandbox.Namespaces: "uid=", sandbox.Landlock: "uid="} {
		dir := executortest.Place(t)
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		bin := filepath.Join(dir, "my tools", "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "/usr/bin/id", filepath.Join(bin, "real")).CombinedOutput(); err != nil {
			t.Fatalf("copy program: %v\n%s", err, out)
		}
		if err := os.Symlink("real", filepath.Join(bin, "link")); err != nil {
			t.Fatal(err)
		}
		e := newExecutor(t, dir, sandbox.Config{Layer: layer})
		st, out := try(t, e, dir, runner.Attempt{Argv: []string{filepath.Join(bin, "link")}})
		if st.Phase != runner.Succeeded || !strings.HasPrefix(out, want) {
			t.Errorf("%s: %+v\n%s", layer, st, out)
		}
		if os.Geteuid() != 0 {
			continue
		}
		switch layer {
		case sandbox.Namespaces:
			if strings.Contains(out, "uid=0") {
				t.Errorf("%s runs as %s", layer, out)
			}
		case sandbox.Landlock:
			if strings.Contains(out, "uid=0") && !strings.Contains(strings.Join(st.Placement.Missing, ";"), "uid 0") {
				t.Errorf("%s runs as root and does not say so: %q", layer, st.Placement.Missing)
			}
		}
	}
}

// TestPython runs an interpreter from where it is installed.
func TestPython(t *testing.T) {
	t.Parallel()
	dir := executortest.Place(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	code := `import sys, os, json, ssl, sqlite3, ctypes, multiprocessing as mp
if __name__ == "__main__":
    with mp.Pool(2) as p: print(p.map(abs, [-1, -2]))
    print(os.getuid() != 0, sorted(os.listdir("/proc/self/fd"))[:3], os.environ.get("HOME"))
`
	if err := os.MkdirAll(filepath.Join(dir, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "work", "a.py"), []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	st, out := try(t, e, dir, runner.Attempt{Argv: []string{"python3", "a.py"}})
	if st.Phase == runner.Failed && st.Reason == runner.ReasonStart {
		t.Skip("this machine has no python3")
	}
	if st.Phase != runner.Succeeded || !strings.HasPrefix(out, "[1, 2]\nTrue ") {
		t.Errorf("%+v\n%s", st, out)
	}
}

// TestTerminate: a machine that shuts down asks the worker to end first, and
// the attempt may be tried again.
func TestTerminate(t *testing.T) {
	t.Parallel()
	dir, _ := workFolder(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	h, err := e.Submit(t.Context(), countingAttempt(dir, []string{self(t), "__program", "count", "count", "never"}))
	if err != nil {
		t.Fatal(err)
	}
	for started(t, dir) == 0 {
		time.Sleep(time.Millisecond)
	}
	var w work
	if err := e.folder(h).Read(fileWorker, &w); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(w.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if st := final(t, e, h); st.Phase != runner.Failed || st.Reason != runner.ReasonLost || !strings.Contains(st.Message, "terminate") {
		t.Errorf("%+v", st)
	}
}

// TestRefusesWithoutSandbox: untrusted code does not run where nothing isolates.
func TestRefusesWithoutSandbox(t *testing.T) {
	t.Parallel()
	dir := executortest.Place(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.None})
	_, err := e.Submit(t.Context(), runner.Attempt{Key: runner.AttemptKey{RunID: "r"}, Argv: []string{"true"}, Dir: dir, Writable: []string{dir}})
	var u *sandbox.UnavailableError
	if !errors.As(err, &u) || !strings.Contains(u.UserError(), "--no-sandbox") {
		t.Errorf("the error is %v", err)
	}
	st, _ := try(t, e, dir, runner.Attempt{Argv: []string{"true"}, NoSandbox: true})
	if st.Phase != runner.Succeeded || st.Placement.Sandbox[0] != "none" || len(st.Placement.Missing) == 0 {
		t.Errorf("%+v", st)
	}
}

// TestCancelBeforeStart: an attempt whose submission was interrupted can be
// cancelled, and then never starts.
func TestCancelBeforeStart(t *testing.T) {
	t.Parallel()
	dir, argv := workFolder(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces}, func(c *Config) { c.Self = []string{"/nonexistent/worker"} })
	a := countingAttempt(dir, argv)
	if _, err := e.Submit(t.Context(), a); err == nil {
		t.Fatal("no error")
	}
	h := runner.Handle(a.Key.Hash())
	// A process that is being started elsewhere may hold a copy of the lock's
	// descriptor for a moment.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := e.Observe(t.Context(), h)
		if err == nil && st.Phase == runner.Pending && st.Message != "" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, %v", st, err)
		}
	}
	if err := e.Cancel(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	good := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	if _, err := good.Submit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if st := final(t, good, h); st.Phase != runner.Cancelled || started(t, dir) != 0 {
		t.Errorf("%+v, begun %d times", st, started(t, dir))
	}
}

// TestSubmitGivesUp: a submitter that waits for another one honours its context.
func TestSubmitGivesUp(t *testing.T) {
	t.Parallel()
	dir, argv := workFolder(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	a := countingAttempt(dir, argv)
	at := e.folder(runner.Handle(a.Key.Hash()))
	if err := os.MkdirAll(at.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := at.lock(syscall.LOCK_EX)
	if err != nil || lock == nil {
		t.Fatal(lock, err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Submit(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

// TestGPUsAreMissing: asking for what the machine lacks fails with the fix.
func TestGPUsAreMissing(t *testing.T) {
	t.Parallel()
	if found, _ := filepath.Glob("/dev/nvidia*"); len(found) > 0 {
		t.Skip("this machine has GPUs")
	}
	dir := executortest.Place(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	st, _ := try(t, e, dir, runner.Attempt{Argv: []string{"true"}, GPUs: 2})
	if st.Reason != runner.ReasonStart || !strings.Contains(st.Message, "2 GPUs") {
		t.Errorf("%+v", st)
	}
}

func TestWorkerRefusesPeople(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileLock), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {dir}} {
		cmd := exec.Command(self(t), append([]string{"__worker"}, args...)...)
		if cmd.Run(); cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%q: %v", args, cmd.ProcessState)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an empty config gave no error")
	}
}

// BenchmarkTrue is a whole attempt: submit, sandbox, run, observe the end.
func BenchmarkTrue(b *testing.B) {
	for _, layer := range []sandbox.Layer{sandbox.Namespaces, sandbox.Landlock} {
		b.Run(string(layer), func(b *testing.B) {
			dir := executortest.Place(b)
			e := newExecutor(b, dir, sandbox.Config{Layer: layer})
			n := 0
			for b.Loop() {
				n++
				st, _ := try(b, e, dir, runner.Attempt{Key: runner.AttemptKey{RunID: "bench", N: n}, Argv: []string{"true"}})
				if st.Phase != runner.Succeeded {
					b.Fatalf("%+v", st)
				}
			}
		})
	}
}

// TestVenv makes a virtual environment in one attempt and uses it in another,
// as preparing and executing a plan do.
func TestVenv(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err == nil {
		var out []byte
		if out, err = exec.Command(python, "-c", "import sys, venv, ensurepip; print(sys._base_executable)").Output(); err == nil {
			python = strings.TrimSpace(string(out))
		}
	}
	if err != nil {
		t.Skip("this machine has no python3 with venv")
	}
	shown, err := sandbox.InterpreterPaths(python)
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range []sandbox.Layer{sandbox.Namespaces, sandbox.Landlock} {
		dir := executortest.Place(t)
		e := newExecutor(t, dir, sandbox.Config{Layer: layer})
		venv := filepath.Join(dir, "venv")
		if err := os.Mkdir(venv, 0o755); err != nil {
			t.Fatal(err)
		}
		st, out := try(t, e, dir, runner.Attempt{Key: runner.AttemptKey{RunID: "venv", N: 0}, Argv: []string{python, "-m", "venv", "--without-pip", venv}, Writable: []string{venv}})
		if st.Phase != runner.Succeeded {
			t.Fatalf("%s: %+v\n%s", layer, st, out)
		}
		st, out = try(t, e, dir, runner.Attempt{
			Key: runner.AttemptKey{RunID: "venv", N: 1}, ReadOnly: append(slices.Clone(shown), venv),
			Argv: []string{filepath.Join(venv, "bin", "python"), "-c", "import sys, json; print(sys.prefix)"},
		})
		if st.Phase != runner.Succeeded || out != venv+"\n" {
			t.Errorf("%s: %+v\n%s", layer, st, out)
		}
	}
}

// TestGPU shows the devices to an attempt that was given them, and to no other.
func TestGPU(t *testing.T) {
	t.Parallel()
	smi, err := exec.LookPath("nvidia-smi")
	if err != nil {
		t.Skip("this machine has no NVIDIA driver")
	}
	dir := executortest.Place(t)
	e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
	for n, want := range []bool{false, true} {
		st, out := try(t, e, dir, runner.Attempt{Key: runner.AttemptKey{RunID: "gpu", N: n}, GPUs: n, Argv: []string{smi, "-L"}})
		if got := st.Phase == runner.Succeeded && strings.Contains(out, "GPU 0"); got != want {
			t.Errorf("with %d GPUs: %+v\n%s", n, st, out)
		}
	}
}
