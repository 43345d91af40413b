//go:build linux

package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/executortest"
	"github.com/repromill/repromill/runner/folder"
	"github.com/repromill/repromill/runner/sandbox"
)

func TestMain(m *testing.M) {
	// Not os.Exit, which a race detector lets wait a second in every process.
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "__worker":
			syscall.Exit(WorkerMain(args))
		case "__sandbox-init":
			syscall.Exit(sandbox.InitMain(args))
		case "__worker-kill": // point, folder
			syscall.Exit(Worker{Hook: killAt(args[0])}.Main(args[1:]))
		case "__submit-kill": // folder, point, program…
			syscall.Exit(submitAndDie(args[0], args[1], args[2:]))
		case "__program":
			syscall.Exit(executortest.Main(args))
		}
	}
	os.Exit(m.Run())
}

func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func newExecutor(t testing.TB, dir string, sb sandbox.Config, change ...func(*Config)) *Executor {
	t.Helper()
	exe := self(t)
	sb.Init = []string{exe, "__sandbox-init"}
	cfg := Config{Dir: filepath.Join(dir, "attempts"), Self: []string{exe, "__worker"}, Sandbox: sb}
	for _, c := range change {
		c(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func harness(sb sandbox.Config, noSandbox bool) func(t *testing.T) executortest.Harness {
	return func(t *testing.T) executortest.Harness {
		dir := executortest.Place(t)
		e := newExecutor(t, dir, sb)
		h := executortest.Harness{
			Executor: e, NoSandbox: noSandbox,
			Reopen:  func(t *testing.T) runner.Executor { return newExecutor(t, dir, sb) },
			Program: []string{self(t), "__program"},
			Folder:  executortest.FoldersIn(dir),
			KillWorker: func(t *testing.T, h runner.Handle) {
				t.Helper()
				var w work
				if err := e.folder(h).Read(fileWorker, &w); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
		}
		t.Cleanup(func() { noLeftovers(t, filepath.Join(dir, "attempts")) })
		return h
	}
}

// noLeftovers: an attempt that has ended holds no file that only served it.
func noLeftovers(t *testing.T, attempts string) {
	t.Helper()
	filepath.WalkDir(attempts, func(p string, d os.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(p, folder.TmpSuffix) || d.Name() == dirScratch) {
			t.Errorf("%s is left", p)
		}
		return nil
	})
	folders, _ := filepath.Glob(attempts + "/*")
	for _, f := range folders {
		for _, dir := range sandbox.Plan(attemptIn(f).Name()).Cgroups {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is left", dir)
			}
		}
	}
}

func TestConformanceNamespaces(t *testing.T) {
	t.Parallel()
	executortest.Run(t, harness(sandbox.Config{Layer: sandbox.Namespaces}, false))
}

func TestConformanceLandlock(t *testing.T) {
	t.Parallel()
	executortest.Run(t, harness(sandbox.Config{Layer: sandbox.Landlock}, false))
}

func TestConformanceNoSandbox(t *testing.T) {
	t.Parallel()
	executortest.Run(t, harness(sandbox.Config{}, true))
}

// TestConformanceUnprivileged runs the suite once more as an ordinary user,
// which is what the tool's users are.
func TestConformanceUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // the other tests are that run
	}
	dir := executortest.Place(t)
	exe := filepath.Join(dir, "test")
	// Copied by another process: a file that this one has open for writing may
	// be inherited by a test that forks meanwhile, and cannot be started then.
	if out, err := exec.Command("cp", self(t), exe).CombinedOutput(); err != nil {
		t.Fatalf("copy test: %v\n%s", err, out)
	}
	if err := os.Chmod(exe, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	const uid = 54321
	if err := os.Chown(tmp, uid, uid); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TestConformanceNamespaces", "TestConformanceLandlock"} {
		t.Run(strings.TrimPrefix(name, "TestConformance"), func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), exe, "-test.run", "^"+name+"$", "-test.timeout=2m", "-test.v")
			cmd.Env = []string{"TMPDIR=" + tmp, "HOME=" + tmp, "PATH=/usr/bin:/bin"}
			cmd.Dir = tmp
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			cmd.WaitDelay = time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
