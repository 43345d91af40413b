package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// started waits until the code of some run has printed its first line, n times
// over all attempts, and returns the id of the newest run.
func (w *world) started(n int) string {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(w.home, "state/repromill/attempts/*/stdout"))
		found := 0
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("starting")) {
				found++
			}
		}
		if found >= n {
			return w.lastRun()
		}
	}
	w.t.Fatal("nothing was started")
	return ""
}

// runState is what the tests look at of `status ID --json`.
type runState struct {
	ID, State, Verdict string
	Attempts           []struct{ Key string }
	DrivenBy           int `json:"driven_by"`
}

func (w *world) state(id string) runState {
	w.t.Helper()
	return decode[runState](w.t, w.must(w.t, 0, "status", id, "--json").stdout)
}

// TestInterruptAndResume is Ctrl-C in the middle of the code, and going on.
func TestInterruptAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := w.command("run", "--yes", w.folder("slow", smallPaper(1)))
	stdout, stderr := w.start(cmd)
	id := w.started(1)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	o := w.finish(cmd, stdout, stderr)
	if o.code != 130 {
		t.Errorf("exit %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	has(t, o.stderr, "repromill run --resume "+id)
	nothingRuns(t, w.home)
	if s := w.state(id); s.State != "interrupted" {
		t.Errorf("state %+v", s)
	}
	has(t, w.must(t, 0, "status", id).stdout, "nobody drives it", "--resume")
	has(t, w.must(t, 0, "run", "--resume", id).stdout, "aligned", "93.4")
	has(t, w.must(t, 0, "results", "verify").stdout, "1 run", "clean")
	// A finished run is not done again, only shown.
	has(t, w.must(t, 0, "run", "--resume", id).stdout, "aligned", "93.4")
}

// TestInterruptWhileAsking is Ctrl-C while a server takes its time.
func TestInterruptWhileAsking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.queueLens(0)
	hang := func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}
	for i, at := range [][2]string{{"arxiv_api", apiPath("2511.50000")}, {"github", "/ada-example/queue_lens/git-upload-pack"}} {
		w.handle(at[0], at[1], hang)
		args := []string{"plan", "2511.50000"}
		if i == 1 {
			args = []string{"run", "--yes", "2511.98765"}
		}
		cmd := w.command(args...)
		stdout, stderr := w.start(cmd)
		for end := time.Now().Add(20 * time.Second); len(w.requests(at[0], at[1])) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s was not asked", at)
			}
		}
		begun := time.Now()
		_ = cmd.Process.Signal(os.Interrupt)
		o := w.finish(cmd, stdout, stderr)
		if o.code != 130 || time.Since(begun) > 10*time.Second {
			t.Errorf("%v: exit %d after %s\n%s%s", args, o.code, time.Since(begun), o.stdout, o.stderr)
		}
		has(t, o.stderr, "interrupted")
	}
	left, _ := filepath.Glob(filepath.Join(w.home, "cache/repromill/*/tmp/*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	w.mu.Lock()
	delete(w.answers, "github /ada-example/queue_lens/git-upload-pack")
	w.mu.Unlock()
	has(t, w.must(t, 0, "run", "--yes", "--resume", w.lastRun()).stdout, "aligned")
}

// TestKilledDriver: the code goes on without its driver, others can watch it
// or try to drive it, and whoever resumes adopts it.
func TestKilledDriver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := w.command("run", "--yes", w.folder("slow", smallPaper(4)))
	stdout, stderr := w.start(cmd)
	id := w.started(1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.finish(cmd, stdout, stderr)
	if s := w.state(id); s.DrivenBy != 0 || len(s.Attempts) != 1 {
		t.Errorf("after the kill: %+v", s)
	}
	watch := w.command("watch", "--json", id)
	watched, watchErr := w.start(watch)
	resume := w.command("run", "--yes", "--resume", id)
	resumed, resumeErr := w.start(resume)
	for end := time.Now().Add(20 * time.Second); w.state(id).DrivenBy != resume.Process.Pid; {
		if time.Now().After(end) {
			t.Fatal("nobody took the run up")
		}
	}
	o := w.must(t, 2, "run", "--yes", "--resume", id)
	has(t, o.stderr, "is being driven by process", "repromill watch "+id)
	has(t, w.must(t, 0, "status", id).stdout, "driven by process")
	o = w.finish(resume, resumed, resumeErr)
	if o.code != 0 || !strings.Contains(o.stdout, "93.4") {
		t.Errorf("resumed: exit %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if s := w.state(id); s.State != "done" || s.Verdict != "aligned" || len(s.Attempts) != 1 {
		t.Errorf("after the resume: %+v", s)
	}
	if logs := w.must(t, 0, "logs", id).stdout; strings.Count(logs, "starting") != 1 {
		t.Errorf("the code ran more than once:\n%s", logs)
	}
	if o := w.finish(watch, watched, watchErr); o.code != 0 {
		t.Errorf("watch: exit %d\n%s", o.code, o.stderr)
	}
	seq, last := int64(0), ""
	for line := range strings.Lines(watched.String()) {
		var e struct {
			Seq  int64
			Kind string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Seq != seq+1 {
			t.Errorf("after event %d comes %s", seq, line)
		}
		seq, last = e.Seq, e.Kind
	}
	if last != "run.finished" {
		t.Errorf("the last event is %q of %d", last, seq)
	}
}

// TestCancelFromOutside ends a run that another process drives.
func TestCancelFromOutside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cmd := w.command("run", "--yes", w.folder("slow", smallPaper(60)))
	stdout, stderr := w.start(cmd)
	id := w.started(1)
	has(t, w.must(t, 0, "cancel", id).stdout, id)
	o := w.finish(cmd, stdout, stderr)
	if o.code != 0 {
		t.Errorf("the driver: exit %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	has(t, o.stdout, "cancelled by tester")
	nothingRuns(t, w.home)
	has(t, w.must(t, 0, "cancel", id).stdout, "is cancelled")
	has(t, w.must(t, 0, "run", "--resume", id).stdout, "cancelled")
	has(t, w.must(t, 2, "cancel", "01ARZ3NDEKTSV4RRFFQ69G5FAV").stderr, "there is no run", "repromill status")
	has(t, w.must(t, 2, "run", "--resume", "01ARZ3NDEKTSV4RRFFQ69G5FAV").stderr, "there is no run", "repromill status")
}
