// Package executortest is the suite that every [runner.Executor] passes.
//
// An executor's test calls [Run] with a [Harness], and the binary that runs
// inside of the attempts calls [Main] first: usually both are the executor's
// own test binary. The programs of the suite are hostile on purpose: they
// flood, fork, hoard, snoop and hide, and the suite looks at what comes of it
// from outside, through files in shared folders. Nothing is downloaded, and
// nothing is assumed about where attempts run.
//
// The suite exists for the day on which a sandbox does not hold, so every
// program is harmless without one: none changes, truncates or shows anything
// that it did not make, and those that grow stop by themselves.
package executortest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
)

// Harness is one executor under test.
type Harness struct {
	Executor runner.Executor
	// Reopen returns another executor over the same state, as a program that
	// was started again after a crash has it.
	Reopen func(t *testing.T) runner.Executor
	// Program is the command line that runs [Main] inside of an attempt, and
	// ReadOnly are the paths that it needs there.
	Program  []string
	ReadOnly []string
	// Folder makes an empty folder that both the test and, as one of Writable,
	// an attempt can use. The name may hold any character but '/'.
	Folder func(t *testing.T, name string) string
	// KillWorker kills, as kill -9 does, whatever watches over the attempt,
	// and nothing else; nil where there is no such process to kill.
	KillWorker func(t *testing.T, h runner.Handle)
	// Unbounded lists the limits that this executor cannot hold here:
	// "memory", "processes".
	Unbounded []string
	// NoSandbox says that attempts run without isolation; the parts of the
	// suite that need it are left out.
	NoSandbox bool
	// Patience is how long an attempt may take to get anywhere; 0 is 30 s.
	Patience time.Duration
}

// Run runs the suite. The factory is called once for every part.
func Run(t *testing.T, factory func(t *testing.T) Harness) {
	parts := []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"Success", success}, {"ExitCode", exitCode}, {"Signal", signalled}, {"CannotStart", cannotStart}, {"Timeout", timeout},
		{"OutputFlood", outputFlood}, {"ForkBomb", forkBomb}, {"MemoryHog", memoryHog}, {"FileSize", fileSize}, {"LeftBehind", leftBehind},
		{"Secrets", secrets}, {"Network", network}, {"ProxyRefuses", proxyRefuses}, {"WriteOutside", writeOutside}, {"PlantedLink", plantedLink},
		{"Cancel", cancelled}, {"Adopt", adopt}, {"SubmitTwice", submitTwice}, {"SubmitAtOnce", submitAtOnce}, {"Logs", logs}, {"LostWorker", lostWorker},
		{"OddNames", oddNames}, {"UnknownHandle", unknownHandle}, {"BadAttempt", badAttempt},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			h := factory(t)
			if h.Patience == 0 {
				h.Patience = 30 * time.Second
			}
			p.run(t, &bench{Harness: h, run: fmt.Sprintf("%s-%d", p.name, serial.Add(1))})
		})
	}
}

// serial keeps the keys of parts apart where harnesses share their state.
var serial atomic.Int64

// bench is a harness with what the parts of the suite have in common.
type bench struct {
	Harness
	run string
	n   int
}

// attempt is a fresh attempt of a program of this package, in a folder of its own.
func (b *bench) attempt(t *testing.T, argv ...string) runner.Attempt {
	t.Helper()
	dir := b.Folder(t, "work")
	b.n++
	return runner.Attempt{
		Key:  runner.AttemptKey{RunID: b.run, Stage: runner.StageExecute, N: b.n},
		Argv: append(append([]string{}, b.Program...), argv...), Dir: dir, Writable: []string{dir}, ReadOnly: b.ReadOnly,
		Limits:    runner.Limits{Wall: b.Patience, OutputBytes: 1 << 20, MemoryBytes: 1 << 30, Processes: 256, FileBytes: 64 << 20},
		NoSandbox: b.NoSandbox,
	}
}

func (b *bench) submit(t *testing.T, a runner.Attempt) runner.Handle {
	t.Helper()
	h, err := b.Executor.Submit(t.Context(), a)
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.Patience)
		defer cancel()
		b.Executor.Cancel(ctx, h)
	})
	return h
}

// until observes until ok says so.
func (b *bench) until(t *testing.T, e runner.Executor, h runner.Handle, ok func(runner.Status) bool) runner.Status {
	t.Helper()
	var st runner.Status
	var err error
	for end := time.Now().Add(b.Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if st, err = e.Observe(t.Context(), h); err == nil && ok(st) {
			return st
		}
	}
	t.Fatalf("still %+v, %v after %v; output:\n%s", st, err, b.Patience, b.output(t, h))
	return st
}

func (b *bench) wait(t *testing.T, h runner.Handle) runner.Status {
	t.Helper()
	return b.until(t, b.Executor, h, func(st runner.Status) bool { return st.Phase.Final() })
}

// finish runs an attempt to its end.
func (b *bench) finish(t *testing.T, a runner.Attempt) (runner.Status, string) {
	t.Helper()
	h := b.submit(t, a)
	st := b.wait(t, h)
	return st, b.output(t, h)
}

// output is what the attempt has printed so far, as far as the executor shows it.
func (b *bench) output(t *testing.T, h runner.Handle) string {
	t.Helper()
	return b.outputFrom(t, h, 0)
}

func (b *bench) outputFrom(t *testing.T, h runner.Handle, from int64) string {
	t.Helper()
	l, ok := b.Executor.(runner.Logger)
	if !ok {
		return ""
	}
	r, err := l.Logs(t.Context(), h, from)
	if err != nil {
		t.Fatalf("logs: %v", err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read logs: %v", err)
	}
	return string(out)
}

func expect(t *testing.T, st runner.Status, out string, phase runner.Phase, why runner.Reason) {
	t.Helper()
	if st.Phase != phase || st.Reason != why {
		t.Fatalf("ended %s (%s: %s) with status %d, want %s (%s); output:\n%s", st.Phase, st.Reason, st.Message, st.ExitCode, phase, why, out)
	}
}

// content reads a file of a shared folder; "" while it does not exist.
func content(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// waitFor waits until a file of a shared folder holds something.
func (b *bench) waitFor(t *testing.T, path ...string) {
	t.Helper()
	for end := time.Now().Add(b.Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if content(t, path...) != "" {
			return
		}
	}
	t.Fatalf("nothing came into %s", filepath.Join(path...))
}

// still fails if a program of the attempt is alive: the programs that hide
// write a beat every few milliseconds.
func still(t *testing.T, path ...string) {
	t.Helper()
	before := content(t, path...)
	if before == "" {
		t.Fatalf("%s: nothing ever beat", filepath.Join(path...))
	}
	time.Sleep(20 * beatEvery)
	if after := content(t, path...); len(after) != len(before) {
		t.Fatalf("a process of the attempt outlived it: %d beats came after its end", len(after)-len(before))
	}
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }
