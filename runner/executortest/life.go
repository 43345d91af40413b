package executortest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
)

func cancelled(t *testing.T, b *bench) {
	a := b.attempt(t, "hide", "beat")
	h := b.submit(t, a)
	b.waitFor(t, a.Dir, "beat")
	if st := b.until(t, b.Executor, h, func(st runner.Status) bool { return st.Phase != runner.Pending }); st.Phase != runner.Running {
		t.Fatalf("the phase is %s, want running", st.Phase)
	}
	for range 2 { // cancelling twice is no error
		if err := b.Executor.Cancel(t.Context(), h); err != nil {
			t.Fatalf("cancel: %v", err)
		}
	}
	st := b.wait(t, h)
	expect(t, st, "", runner.Cancelled, runner.ReasonCancelled)
	still(t, a.Dir, "beat")

	done := b.attempt(t, "exit", "0")
	h = b.submit(t, done)
	b.wait(t, h)
	if err := b.Executor.Cancel(t.Context(), h); err != nil {
		t.Errorf("cancel a finished attempt: %v", err)
	}
	expect(t, b.wait(t, h), "", runner.Succeeded, runner.ReasonNone)
}

// adopt: a program that was killed finds its attempt again.
func adopt(t *testing.T, b *bench) {
	a := b.attempt(t, "count", "count", "go")
	h := b.submit(t, a)
	b.waitFor(t, a.Dir, "count")
	second := b.Reopen(t)
	h2, err := second.Submit(t.Context(), a)
	if err != nil || h2 != h {
		t.Fatalf("the second submission gave %q, %v; the first gave %q", h2, err, h)
	}
	if st, err := second.Observe(t.Context(), h); err != nil || st.Phase.Final() {
		t.Fatalf("the adopted attempt is %+v, %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(a.Dir, "go"), []byte("go"), 0o644); err != nil {
		t.Fatal(err)
	}
	st := b.until(t, second, h, func(st runner.Status) bool { return st.Phase.Final() })
	expect(t, st, "", runner.Succeeded, runner.ReasonNone)
	if got := content(t, a.Dir, "count"); got != "started\n" {
		t.Errorf("the command ran %d times", strings.Count(got, "started"))
	}
}

func submitTwice(t *testing.T, b *bench) {
	a := b.attempt(t, "count", "count", "-")
	h := b.submit(t, a)
	first := b.wait(t, h)
	h2, err := b.Reopen(t).Submit(t.Context(), a)
	if err != nil || h2 != h {
		t.Fatalf("the second submission gave %q, %v; the first gave %q", h2, err, h)
	}
	second := b.wait(t, h)
	if first.Phase != second.Phase || !first.Finished.Equal(second.Finished) {
		t.Errorf("a final state changed from %+v to %+v", first, second)
	}
	if got := content(t, a.Dir, "count"); got != "started\n" {
		t.Errorf("the command ran %d times", strings.Count(got, "started"))
	}
}

func submitAtOnce(t *testing.T, b *bench) {
	a := b.attempt(t, "count", "count", "-")
	executors := []runner.Executor{b.Executor, b.Reopen(t)}
	handles := make([]runner.Handle, 10)
	var wg sync.WaitGroup
	for i := range handles {
		wg.Go(func() {
			var err error
			if handles[i], err = executors[i%2].Submit(t.Context(), a); err != nil {
				t.Errorf("submit: %v", err)
			}
		})
	}
	wg.Wait()
	if slices.ContainsFunc(handles, func(h runner.Handle) bool { return h != handles[0] }) {
		t.Errorf("the handles differ: %q", handles)
	}
	expect(t, b.wait(t, handles[0]), "", runner.Succeeded, runner.ReasonNone)
	if got := content(t, a.Dir, "count"); got != "started\n" {
		t.Errorf("the command ran %d times", strings.Count(got, "started"))
	}
}

func logs(t *testing.T, b *bench) {
	if _, ok := b.Executor.(runner.Logger); !ok {
		return
	}
	a := b.attempt(t, "talk", "go")
	h := b.submit(t, a)
	for end := time.Now().Add(b.Patience); b.output(t, h) != "first\n"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("while it runs the output is %q", b.output(t, h))
		}
	}
	if err := os.WriteFile(filepath.Join(a.Dir, "go"), []byte("go"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, b.wait(t, h), "", runner.Succeeded, runner.ReasonNone)
	for from, want := range map[int64]string{0: "first\nsecond\n", 6: "second\n", 8: "cond\n", 13: "", 1000: ""} {
		if got := b.outputFrom(t, h, from); got != want {
			t.Errorf("from byte %d: %q, want %q", from, got, want)
		}
	}
}

// lostWorker: when what watches over an attempt is killed, everything of the
// attempt dies, it is never begun again, and the next try works.
func lostWorker(t *testing.T, b *bench) {
	if b.KillWorker == nil {
		return
	}
	a := b.attempt(t, "hide", "beat")
	h := b.submit(t, a)
	b.waitFor(t, a.Dir, "beat")
	b.KillWorker(t, h)
	expect(t, b.wait(t, h), "", runner.Failed, runner.ReasonLost)
	still(t, a.Dir, "beat")
	if h2, err := b.Reopen(t).Submit(t.Context(), a); err != nil || h2 != h {
		t.Fatalf("submitting a lost attempt gave %q, %v", h2, err)
	}
	expect(t, b.wait(t, h), "", runner.Failed, runner.ReasonLost)
	still(t, a.Dir, "beat")
	again := a
	again.Key.N += 100
	again.Argv = append(slices.Clone(b.Program), "exit", "0")
	st, out := b.finish(t, again)
	expect(t, st, out, runner.Succeeded, runner.ReasonNone)
}
