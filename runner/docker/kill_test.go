//go:build linux

package docker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/executortest"
)

// counting is an attempt that notes in its folder that it ran.
func counting(work string) runner.Attempt {
	exe, _ := os.Executable()
	return runner.Attempt{
		Key:  runner.AttemptKey{RunID: "kill", Stage: runner.StageExecute},
		Argv: []string{exe, "__program", "count", "count", "-"}, Dir: work, Writable: []string{work}, ReadOnly: []string{exe},
		Limits: runner.Limits{Wall: time.Minute, MemoryBytes: 256 << 20, Processes: 100},
	}
}

// submitAndDie drives one attempt to its end and kills itself at the point.
func submitAndDie(dir, point, work string) int {
	cfg, err := config(dir)
	if err != nil {
		return 1
	}
	cfg.Hook = func(p string) {
		if p == point {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	e, err := New(cfg)
	if err != nil {
		return 1
	}
	if err := drive(context.Background(), e, counting(work)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// drive submits an attempt and waits for its end.
func drive(ctx context.Context, e *Executor, a runner.Attempt) error {
	h, err := e.Submit(ctx, a)
	for err == nil {
		var st runner.Status
		if st, err = e.Observe(ctx, h); err == nil && st.Phase.Final() {
			if st.Phase != runner.Succeeded {
				return fmt.Errorf("ended %s (%s: %s)", st.Phase, st.Reason, st.Message)
			}
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// TestKill: whoever submits or observes may die at every durable step; the
// next one finds the attempt, which runs exactly once.
func TestKill(t *testing.T) {
	if os.Getenv("REPROMILL_TEST_DOCKER_BASE") == "" {
		t.Skip("needs Docker and a base image: run `make e2e-docker`")
	}
	var points []string
	for _, step := range []string{fileAttempt, "create", fileBegun, "start", fileStatus, "remove"} {
		points = append(points, "docker:"+step+":before", "docker:"+step+":after")
	}
	for _, point := range points {
		t.Run(strings.ReplaceAll(point, ":", "-"), func(t *testing.T) {
			t.Parallel()
			dir := executortest.Place(t)
			work := filepath.Join(dir, "work")
			if err := os.Mkdir(work, 0o755); err != nil {
				t.Fatal(err)
			}
			exe, _ := os.Executable()
			cmd := exec.Command(exe, "__submit-kill", dir, point, work)
			out, err := cmd.CombinedOutput()
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
				t.Fatalf("it did not reach the point: %v\n%s", err, out)
			}
			e := newExecutor(t, dir)
			if err := drive(t.Context(), e, counting(work)); err != nil {
				t.Error(err)
			}
			b, err := os.ReadFile(filepath.Join(work, "count"))
			if n := strings.Count(string(b), "started"); err != nil || n != 1 {
				t.Errorf("the command ran %d times, %v", n, err)
			}
			noLeftovers(t, e)
		})
	}
}
