//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/executortest"
	"github.com/repromill/repromill/runner/sandbox"
)

// killAt is a hook that kills this process at a point, as kill -9 does.
func killAt(point string) func(string) {
	return func(p string) {
		if p == point {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

func countingAttempt(dir string, argv []string) runner.Attempt {
	return runner.Attempt{
		Key:  runner.AttemptKey{RunID: "kill", Stage: runner.StageExecute},
		Argv: argv, Dir: filepath.Join(dir, "work"), Writable: []string{filepath.Join(dir, "work")},
		Limits: runner.Limits{Wall: 20 * time.Second},
	}
}

// submitAndDie is a submitter in a process of its own that is killed at point.
func submitAndDie(dir, point string, argv []string) int {
	exe, err := os.Executable()
	if err != nil {
		return 1
	}
	e, err := New(Config{
		Dir: filepath.Join(dir, "attempts"), Self: []string{exe, "__worker"}, Hook: killAt(point),
		Sandbox: sandbox.Config{Init: []string{exe, "__sandbox-init"}, Layer: sandbox.Namespaces},
	})
	if err == nil {
		_, err = e.Submit(context.Background(), countingAttempt(dir, argv))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// workFolder makes the folder of countingAttempt and its command.
func workFolder(t *testing.T) (dir string, argv []string) {
	t.Helper()
	dir = executortest.Place(t)
	if err := os.Mkdir(filepath.Join(dir, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, []string{self(t), "__program", "count", "count", "-"}
}

func started(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "work", "count"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(b), "started")
}

func final(t *testing.T, e *Executor, h runner.Handle) runner.Status {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if st, err := e.Observe(t.Context(), h); err == nil && st.Phase.Final() {
			return st
		}
	}
	t.Fatal("the attempt never ended")
	return runner.Status{}
}

// TestKillSubmitter kills the submitter at every durable step. Submitting
// again then brings the attempt to its end, begun exactly once.
func TestKillSubmitter(t *testing.T) {
	t.Parallel()
	for _, point := range []string{
		"local:attempt.json:before", "local:attempt.json:rename", "local:attempt.json:after", "local:spawn:before", "local:spawn:after",
	} {
		dir, argv := workFolder(t)
		out, err := exec.Command(self(t), append([]string{"__submit-kill", dir, point}, argv...)...).CombinedOutput()
		if ee := (*exec.ExitError)(nil); !errors.As(err, &ee) || ee.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the submitter was not killed there: %v\n%s", point, err, out)
		}
		e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
		h, err := e.Submit(t.Context(), countingAttempt(dir, argv))
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		if st := final(t, e, h); st.Phase != runner.Succeeded || started(t, dir) != 1 {
			t.Errorf("%s: ended %s (%s), begun %d times", point, st.Phase, st.Message, started(t, dir))
		}
		noLeftovers(t, filepath.Join(dir, "attempts"))
	}
}

// TestKillWorker kills the worker at every durable step. The attempt ends, is
// begun at most once, and counts as lost unless its end was recorded.
func TestKillWorker(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]runner.Reason{
		"local:worker.json:before": runner.ReasonNone, // not begun: a second submission runs it
		"local:worker.json:rename": runner.ReasonNone,
		"local:worker.json:after":  runner.ReasonLost,
		"local:exit.json:before":   runner.ReasonLost,
		"local:exit.json:rename":   runner.ReasonLost,
		"local:exit.json:after":    runner.ReasonNone,
	} {
		dir, argv := workFolder(t)
		dying := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces}, func(c *Config) { c.Self = []string{self(t), "__worker-kill", point} })
		a := countingAttempt(dir, argv)
		dying.Submit(t.Context(), a) // fails where the worker dies before it begins
		e := newExecutor(t, dir, sandbox.Config{Layer: sandbox.Namespaces})
		h, err := e.Submit(t.Context(), a)
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		st := final(t, e, h)
		if st.Reason != want || want == runner.ReasonNone && st.Phase != runner.Succeeded || started(t, dir) > 1 {
			t.Errorf("%s: ended %s (%s: %s), begun %d times", point, st.Phase, st.Reason, st.Message, started(t, dir))
		}
		if again := final(t, e, h); again.Reason != st.Reason || !again.Since.Equal(st.Since) {
			t.Errorf("%s: the final state changed from %+v to %+v", point, st, again)
		}
		noLeftovers(t, filepath.Join(dir, "attempts"))
	}
}

// TestKillAnywhere kills workers at random moments: every attempt ends, was
// begun at most once, and leaves nothing.
func TestKillAnywhere(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	delays := make([]time.Duration, 30)
	for i := range delays {
		delays[i] = time.Duration(rng.IntN(30_000)) * time.Microsecond
	}
	var wg sync.WaitGroup
	for _, layer := range []sandbox.Layer{sandbox.Namespaces, sandbox.Landlock} {
		wg.Go(func() {
			for _, delay := range delays {
				dir, argv := workFolder(t)
				e := newExecutor(t, dir, sandbox.Config{Layer: layer})
				h, err := e.Submit(t.Context(), countingAttempt(dir, argv))
				if err != nil {
					t.Errorf("submit: %v", err)
					return
				}
				time.Sleep(delay)
				var w work
				if err := e.folder(h).Read(fileWorker, &w); err != nil {
					t.Error(err)
					return
				}
				// The worker is this process's child, so its pid is its own
				// until it is waited for; by then the lock is free.
				if lock, _ := e.folder(h).lock(syscall.LOCK_SH); lock != nil {
					lock.Close()
				} else {
					syscall.Kill(w.PID, syscall.SIGKILL)
				}
				st := final(t, e, h)
				if n := started(t, dir); n > 1 || st.Phase == runner.Succeeded && n != 1 || st.Phase == runner.Failed && st.Reason != runner.ReasonLost {
					t.Errorf("after %v: ended %s (%s: %s), begun %d times", delay, st.Phase, st.Reason, st.Message, n)
				}
				noLeftovers(t, filepath.Join(dir, "attempts"))
			}
		})
	}
	wg.Wait()
}
