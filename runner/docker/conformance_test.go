//go:build linux

package docker

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/executortest"
	"github.com/repromill/repromill/runner/folder"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "__docker-init":
			syscall.Exit(supervisor.Main())
		case "__docker-proxy":
			syscall.Exit(ProxyMain(args))
		case "__program":
			syscall.Exit(executortest.Main(args))
		case "__submit-kill": // folder, point, work folder
			syscall.Exit(submitAndDie(args[0], args[1], args[2]))
		}
	}
	os.Exit(m.Run())
}

func connect(ctx context.Context) (*engine.Engine, error) {
	return engine.Open(ctx, engine.Config{Getenv: os.Getenv})
}

func config(dir string) (Config, error) {
	exe, err := os.Executable()
	return Config{
		Dir: filepath.Join(dir, "attempts"), Connect: connect, Program: exe, ProgramArgs: []string{"__docker-init"},
		Proxy: []string{exe, "__docker-proxy"}, Image: os.Getenv("REPROMILL_TEST_DOCKER_BASE"),
	}, err
}

func newExecutor(t testing.TB, dir string, change ...func(*Config)) *Executor {
	t.Helper()
	if os.Getenv("REPROMILL_TEST_DOCKER_BASE") == "" {
		t.Skip("needs Docker and a base image: run `make e2e-docker`")
	}
	cfg, err := config(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func harness(t *testing.T) executortest.Harness {
	t.Helper()
	dir := executortest.Place(t)
	e := newExecutor(t, dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noLeftovers(t, e) })
	return executortest.Harness{
		Executor: e, Patience: time.Minute,
		Reopen:   func(t *testing.T) runner.Executor { return newExecutor(t, dir) },
		Program:  []string{exe, "__program"},
		ReadOnly: []string{exe},
		Folder:   executortest.FoldersIn(dir),
		KillWorker: func(t *testing.T, h runner.Handle) {
			t.Helper()
			if os.Geteuid() != 0 {
				t.Skip("only root can kill a container's first process from outside")
			}
			st := container(t, e, h)
			if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// container looks at the container of an attempt.
func container(t *testing.T, e *Executor, h runner.Handle) engine.State {
	t.Helper()
	eng, _, err := e.engine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err := eng.Inspect(t.Context(), e.folder(h).container())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// noLeftovers: an attempt that has ended holds neither a container nor a file
// or process that only served it.
func noLeftovers(t *testing.T, e *Executor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	eng, _, err := e.engine(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	list, err := eng.List(ctx, map[string]string{LabelOwner: e.cfg.Dir})
	if err != nil {
		t.Error(err)
	}
	for _, c := range list {
		t.Errorf("container %s is left, %s", c.Name, c.Status)
		eng.Remove(ctx, c.ID)
	}
	filepath.WalkDir(e.cfg.Dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(p, folder.TmpSuffix) || d.Name() == dirOut || d.Name() == dirHome || d.Name() == dirNet) {
			t.Errorf("%s is left", p)
		}
		return nil
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := processes(t, e.cfg.Dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("processes are left: %q", left)
		}
	}
}

// processes are those whose command line holds a word.
func processes(t *testing.T, word string) (out []string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lists {
		b, err := os.ReadFile(l)
		if err == nil && strings.Contains(string(b), word) {
			out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

func TestConformance(t *testing.T) { executortest.Run(t, harness) }

// TestConformanceUnprivileged runs the suite once more as an ordinary user who
// may use the engine's socket: files stay that user's own.
func TestConformanceUnprivileged(t *testing.T) {
	if os.Getenv("REPROMILL_TEST_DOCKER_BASE") == "" {
		t.Skip("needs Docker and a base image: run `make e2e-docker`")
	}
	info, err := os.Stat("/var/run/docker.sock")
	if os.Geteuid() != 0 || err != nil {
		return // the other test is that run
	}
	group := info.Sys().(*syscall.Stat_t).Gid
	if group == 0 {
		t.Skip("the engine's socket has no group for ordinary users")
	}
	dir := executortest.Place(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Copied by another process: a file that this one has open for writing
	// could not be started by a fork of another test.
	bin, tmp := filepath.Join(dir, "test"), filepath.Join(dir, "tmp")
	if out, err := exec.Command("cp", exe, bin).CombinedOutput(); err != nil {
		t.Fatalf("copy test: %v\n%s", err, out)
	}
	const uid = 54321
	if err := errors.Join(os.Chmod(bin, 0o755), os.Mkdir(tmp, 0o700), os.Chown(tmp, uid, uid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-test.run", "^TestConformance$", "-test.timeout=4m")
	cmd.Env = []string{"TMPDIR=" + tmp, "HOME=" + tmp, "PATH=/usr/bin:/bin", "REPROMILL_TEST_DOCKER_BASE=" + os.Getenv("REPROMILL_TEST_DOCKER_BASE")}
	cmd.Dir = tmp
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{group}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
