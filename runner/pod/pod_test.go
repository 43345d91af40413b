//go:build linux

package pod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/executortest"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/tree"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "__worker":
			syscall.Exit(local.WorkerMain(args))
		case "__sandbox-init":
			syscall.Exit(sandbox.InitMain(args))
		case "__probe":
			syscall.Exit(ProbeMain(args))
		case "__program":
			syscall.Exit(executortest.Main(args))
		}
	}
	os.Exit(m.Run())
}

// attempt is one on a "volume" of the test's own.
type attempt struct {
	folder Folder
	work   string
	events *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func newAttempt(t *testing.T, argv ...string) (attempt, Record) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pod test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Remove(dir) })
	os.Chmod(dir, 0o755)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	key := runner.AttemptKey{RunID: strings.ReplaceAll(t.Name(), "/", "-"), Stage: runner.StageExecute}
	a := attempt{Folder(filepath.Join(dir, "attempts", key.Hash())), filepath.Join(dir, "work"), &lockedBuffer{}}
	if err := os.Mkdir(a.work, 0o755); err != nil {
		t.Fatal(err)
	}
	rec := Record{Key: key.String(), Submitted: time.Now(), Attempt: runner.Attempt{
		Key: key, Argv: append([]string{exe, "__program"}, argv...), Dir: a.work, Writable: []string{a.work}, ReadOnly: []string{exe},
		Limits: runner.Limits{Wall: time.Minute, OutputBytes: 1 << 20, MemoryBytes: 1 << 30, Processes: 256, FileBytes: 1 << 20},
	}}
	if err := a.folder.Create(rec); err != nil {
		t.Fatal(err)
	}
	return a, rec
}

func (a attempt) pod(t *testing.T, uid string) Config {
	exe, _ := os.Executable()
	return Config{
		Folder: a.folder, UID: uid, Node: "node-" + uid, Self: []string{exe, "__worker"}, Init: []string{exe, "__sandbox-init"},
		Probe: []string{exe, "__probe"}, ProbeReadOnly: []string{exe}, Events: a.events, Now: time.Now,
	}
}

func (a attempt) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.work, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func (a attempt) waitFor(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); a.file(t, name) == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing came into %s; events:\n%s", name, &a.events.b)
		}
	}
}

func TestAPodCommitsHowItEnded(t *testing.T) {
	a, rec := newAttempt(t, "hello")
	code, err := a.pod(t, "one").Run(t.Context())
	if code != ExitCommitted || err != nil {
		t.Fatalf("exit %d, %v; events:\n%s", code, err, &a.events.b)
	}
	st, ok, err := a.folder.Exit()
	if err != nil || !ok || st.Phase != runner.Succeeded || st.Placement.Node != "node-one" {
		t.Errorf("committed %+v, %v, %v", st, ok, err)
	}
	if b, _ := os.ReadFile(a.folder.Output()); !strings.Contains(string(b), "to stdout") {
		t.Errorf("the output is %q", b)
	}
	// One event a line, in the envelope of all events.
	text, seq := "", int64(0)
	for _, line := range strings.Split(strings.TrimSpace(a.events.b.String()), "\n") {
		var e runner.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Seq != seq+1 || e.RunID != rec.Attempt.Key.RunID || e.Stage != runner.StageExecute {
			t.Fatalf("event %s: %v", line, err)
		}
		seq = e.Seq
		if e.Kind == runner.Log {
			var d struct{ Message string }
			json.Unmarshal(e.Data, &d)
			text += d.Message
		}
	}
	if !strings.Contains(text, "to stdout\n") || !strings.Contains(text, "to stderr\n") {
		t.Errorf("the events show %q", text)
	}
	// Another pod finds it done.
	if code, err := a.pod(t, "two").Run(t.Context()); code != ExitCommitted || err != nil {
		t.Errorf("the second pod: exit %d, %v", code, err)
	}
	if again, _, _ := a.folder.Exit(); again.Placement.Node != "node-one" {
		t.Errorf("the end changed to %+v", again)
	}
}

func TestAFailureOfTheCommandIsACommittedEnd(t *testing.T) {
	a, _ := newAttempt(t, "exit", "7")
	if code, err := a.pod(t, "one").Run(t.Context()); code != ExitCommitted || err != nil {
		t.Fatalf("exit %d, %v", code, err)
	}
	if st, _, _ := a.folder.Exit(); st.Phase != runner.Failed || st.ExitCode != 7 {
		t.Errorf("committed %+v", st)
	}
}

// TestAnInterruptedPodIsFollowedByAnother: what the first pod wrote is gone
// when the second one begins.
func TestAnInterruptedPodIsFollowedByAnother(t *testing.T) {
	a, _ := newAttempt(t, "count", "count", "go")
	for name, content := range map[string]string{"sub/input": "given", "script": "#!"} {
		p := filepath.Join(a.work, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/input", filepath.Join(a.work, "link")); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan int)
	go func() { code, _ := a.pod(t, "one").Run(ctx); done <- code }()
	a.waitFor(t, "count")
	os.WriteFile(filepath.Join(a.work, "sub", "input"), []byte("spoilt"), 0o644)
	os.Remove(filepath.Join(a.work, "script"))
	interrupt()
	if code := <-done; code != ExitAgain {
		t.Fatalf("the interrupted pod ended with %d", code)
	}
	if _, ended, _ := a.folder.Exit(); ended {
		t.Fatal("an interrupted pod committed an end")
	}
	go func() { code, _ := a.pod(t, "two").Run(t.Context()); done <- code }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if st, ok := a.folder.Running(); ok && st.Placement.Node == "node-two" && st.Phase == runner.Running {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the second pod does not begin")
		}
	}
	a.waitFor(t, "count")
	os.WriteFile(filepath.Join(a.work, "go"), []byte("go"), 0o644)
	if code := <-done; code != ExitCommitted {
		t.Fatalf("the second pod ended with %d", code)
	}
	if got := a.file(t, "count"); got != "started\n" {
		t.Errorf("the folder shows %q, want one start", got)
	}
	if a.file(t, "link") != "given" || a.file(t, "script") != "#!" {
		t.Errorf("the folder was not put back: %q, %q", a.file(t, "link"), a.file(t, "script"))
	}
	if info, err := os.Stat(filepath.Join(a.work, "script")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the mode was not put back: %v, %v", info, err)
	}
}

func TestCancelled(t *testing.T) {
	a, _ := newAttempt(t, "beat", "beat")
	done := make(chan int)
	go func() { code, _ := a.pod(t, "one").Run(t.Context()); done <- code }()
	a.waitFor(t, "beat")
	if err := a.folder.Cancel(); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != ExitCommitted {
		t.Errorf("exit %d", code)
	}
	if st, _, _ := a.folder.Exit(); st.Phase != runner.Cancelled {
		t.Errorf("committed %+v", st)
	}
}

// TestAPodThatLostTheAttemptStops: two pods are alive when a node that was
// given up comes back.
func TestAPodThatLostTheAttemptStops(t *testing.T) {
	a, _ := newAttempt(t, "beat", "beat")
	done := make(chan int)
	go func() { code, _ := a.pod(t, "one").Run(t.Context()); done <- code }()
	a.waitFor(t, "beat")
	if err := os.WriteFile(a.folder.path(fileOwner), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != ExitAgain {
		t.Errorf("exit %d", code)
	}
	if _, ended, _ := a.folder.Exit(); ended {
		t.Error("it committed an end")
	}
}

func TestTheFirstEndHolds(t *testing.T) {
	a, _ := newAttempt(t, "exit", "0")
	var wg sync.WaitGroup
	got := make([]runner.Status, 8)
	for i := range got {
		wg.Go(func() {
			st, err := a.folder.Conclude(runner.Status{Phase: runner.Failed, ExitCode: i + 1})
			if err != nil {
				t.Error(err)
			}
			got[i] = st
		})
	}
	wg.Wait()
	for _, st := range got {
		if st.ExitCode != got[0].ExitCode || st.ExitCode == 0 {
			t.Fatalf("the ends differ: %+v", got)
		}
	}
}

func TestAFolderBelongsToOneAttempt(t *testing.T) {
	a, rec := newAttempt(t, "exit", "0")
	if err := a.folder.Create(rec); err != nil {
		t.Errorf("creating it again: %v", err)
	}
	rec.Key = "another/execute/-/0/0"
	if err := a.folder.Create(rec); !errors.Is(err, ErrTaken) {
		t.Errorf("another key: %v", err)
	}
}

func TestKilledWhileItKeepsTheFolders(t *testing.T) {
	a, rec := newAttempt(t, "exit", "0")
	os.WriteFile(filepath.Join(a.work, "input"), []byte("given"), 0o644)
	// A pod that died left half a copy.
	half := a.folder.path(dirPristine, "0.tmp")
	if err := os.MkdirAll(half, 0o755); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(half, "half"), nil, 0o644)
	for range 2 {
		if err := a.folder.begin(rec.Attempt.Writable); err != nil {
			t.Fatal(err)
		}
		if list, _ := os.ReadDir(a.work); len(list) != 1 || a.file(t, "input") != "given" {
			t.Errorf("the folder holds %v", list)
		}
		os.WriteFile(filepath.Join(a.work, "input"), []byte("spoilt"), 0o644)
		os.Mkdir(filepath.Join(a.work, "closed"), 0o000)
	}
}

func TestProbeSeesAnOpenWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if code := ProbeMain([]string{l.Addr().String()}); code == 0 {
		t.Error("an open way was not seen")
	}
	l.Close()
	if code := ProbeMain([]string{l.Addr().String()}); code != 0 {
		t.Error("a closed way was seen as open")
	}
}

// TestNothingRunsWhereTheProbeFails: a probe that reports an open way, or
// cannot run, keeps the command from running.
func TestNothingRunsWhereTheProbeFails(t *testing.T) {
	a, _ := newAttempt(t, "count", "count", "-")
	p := a.pod(t, "one")
	p.Probe = []string{p.Probe[0], "__program", "exit", "1"}
	if code, err := p.Run(t.Context()); code == ExitCommitted && err != nil {
		t.Fatal(err)
	}
	st, ended, err := a.folder.Exit()
	if err != nil || !ended || st.Reason != runner.ReasonStart || !strings.Contains(st.Message, "nothing was run") {
		t.Errorf("committed %+v, %v, %v", st, ended, err)
	}
	if a.file(t, "count") != "" {
		t.Error("the command ran")
	}
}
