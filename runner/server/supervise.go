package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/sandbox"
)

// The descriptors that a supervisor is given.
const (
	controlFD = 3 // its order comes in here; its end is the order to stop
	reportFD  = 4
	recordFD  = 5 // the record's lock, held for as long as the supervisor lives
)

// order is what a supervisor is to run.
type order struct {
	Argv  []string      `json:"argv"`
	Env   []string      `json:"env"`
	Dir   string        `json:"dir"`
	Log   string        `json:"log"`
	Grace time.Duration `json:"grace"` // between asking for the end and forcing it
	// Container, when set, is run in place of Argv, which are its arguments.
	Container *engine.Container `json:"container,omitempty"`
	Docker    map[string]string `json:"docker,omitempty"` // environment by which the engine is found
}

// said is what a supervisor reports, one JSON object a line.
type said struct {
	PID   int    `json:"pid,omitempty"` // it has started
	Ended bool   `json:"ended,omitempty"`
	How   string `json:"how,omitempty"` // in words
	Error string `json:"error,omitempty"`
}

// marker is in the environment of all that belongs to one server, so that what
// outlives its supervisor is found.
const marker = "REPROMILL_SERVER"

// SuperviseMain is the process beside a server: it starts it, and takes it down
// with everything that it started when its own parent closes the control pipe or
// dies in whatever way. It is the hidden command that [Config].Self names.
func SuperviseMain([]string) int {
	if err := sandbox.KeepDescriptors(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	control, report := os.NewFile(controlFD, "control"), os.NewFile(reportFD, "report")
	in := bufio.NewReader(control)
	text, err := in.ReadBytes('\n')
	var o order
	if err != nil || json.Unmarshal(text, &o) != nil {
		fmt.Fprintln(os.Stderr, "this command is started by repromill itself to watch over a model server, and not by hand")
		return 2
	}
	stop := make(chan struct{})
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	go func() {
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, in); close(ended) }()
		select {
		case <-ended:
		case <-term:
		}
		close(stop)
	}()
	tell := func(s said) {
		b, err := json.Marshal(s)
		if err == nil { // numbers and text always marshal
			_, _ = report.Write(append(b, '\n')) // a parent that is gone need not hear
		}
	}
	if o.Container != nil {
		tell(superviseContainer(o, stop, tell))
	} else {
		tell(superviseProcess(o, stop, tell))
	}
	return 0
}

func superviseProcess(o order, stop <-chan struct{}, tell func(said)) said {
	if err := sandbox.AdoptOrphans(); err != nil {
		return said{Ended: true, Error: err.Error()}
	}
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return said{Ended: true, Error: err.Error()}
	}
	defer log.Close()
	cmd := &exec.Cmd{Path: o.Argv[0], Args: o.Argv, Env: o.Env, Dir: o.Dir, Stdout: log, Stderr: log, SysProcAttr: ownGroup()}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The kernel sends the parent-death signal when this thread ends.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in cmd.ProcessState
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return said{Ended: true, Error: err.Error()}
	}
	tell(said{PID: cmd.Process.Pid})
	asked := false
	select {
	case <-ended:
	case <-stop:
		asked = true
		_ = cmd.Process.Signal(syscall.SIGTERM) // one that has ended needs none
		select {
		case <-ended:
		case <-time.After(o.Grace):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	}
	// What it started is given a moment to notice, as helpers clean up shared
	// memory after their parent.
	settle(o.Grace / 10)
	sandbox.SweepOrphans()
	how := cmd.ProcessState.String() // "exit status 1", "signal: killed"
	if asked {
		how = "stopped"
	}
	return said{Ended: true, How: how}
}

// settle waits until this process has no children, for a while.
func settle(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil); errors.Is(err, syscall.ECHILD) {
			return
		}
	}
}

// superviseContainer runs a container and removes it in the end.
func superviseContainer(o order, stop <-chan struct{}, tell func(said)) said {
	failed := func(err error) said { return said{Ended: true, Error: err.Error()} }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e, err := engine.Open(ctx, engine.Config{Getenv: func(k string) string { return o.Docker[k] }})
	if err != nil {
		return failed(err)
	}
	defer e.Close()
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return failed(err)
	}
	defer log.Close()
	id, err := e.Create(ctx, *o.Container)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = e.Remove(ctx, id) }() // what cannot be removed is found by its label
	if err := e.Start(ctx, id); err != nil {
		return failed(err)
	}
	st, err := e.Inspect(ctx, id)
	if err != nil {
		return failed(err)
	}
	tell(said{PID: max(1, st.PID)})
	copied := make(chan struct{})
	go func() { defer close(copied); _ = e.Logs(ctx, id, true, log, log) }()
	ended := make(chan string, 1)
	go func() {
		code, err := e.Wait(ctx, id)
		how := fmt.Sprintf("exit status %d", code)
		if err != nil {
			how = err.Error()
		} else if st, err := e.Inspect(ctx, id); err == nil && st.OOMKilled {
			how += ", killed for want of memory"
		}
		ended <- how
	}()
	var how string
	select {
	case how = <-ended:
	case <-stop:
		_ = e.Kill(ctx, id, "TERM") // one that has ended needs none
		select {
		case <-ended:
		case <-time.After(o.Grace):
			_ = e.Kill(ctx, id, "KILL")
			<-ended
		}
		how = "stopped"
	}
	select {
	case <-copied:
	case <-time.After(5 * time.Second):
	}
	return said{Ended: true, How: how}
}

// record is what is kept of a server that runs, so that a later process can
// clear up when this one and the supervisor died together. The file is locked for
// as long as either lives.
type record struct {
	Token     string            `json:"token"`
	Arm       string            `json:"arm"`
	Began     time.Time         `json:"began"`
	Container string            `json:"container,omitempty"` // its name
	Docker    map[string]string `json:"docker,omitempty"`
}

const recordSuffix = ".server.json"

// Sweep ends what earlier processes left: servers whose supervisor died together
// with its parent. It returns the arms that it found.
func (h *Host) Sweep(ctx context.Context) (arms []string, err error) {
	list, _ := filepath.Glob(filepath.Join(h.cfg.Dir, "*"+recordSuffix)) // the pattern is well formed
	for _, path := range list {
		lock, err := tryLock(path)
		if err != nil {
			return arms, err
		}
		if lock == nil {
			continue // somebody is at it
		}
		arm, err := h.sweepOne(ctx, path)
		lock.Close()
		if err != nil {
			return arms, err
		}
		if arm != "" {
			arms = append(arms, arm)
		}
	}
	return arms, nil
}

func (h *Host) sweepOne(ctx context.Context, path string) (arm string, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read record of a server: %w", err)
	}
	var r record
	if json.Unmarshal(b, &r) == nil && r.Token != "" { // else it was never written to its end, and nothing was started
		if err := r.clear(ctx); err != nil {
			return "", err
		}
		arm = r.Arm
	}
	return arm, os.Remove(path)
}

// clear ends what a supervisor that died may have left.
func (r record) clear(ctx context.Context) error {
	killMarked(r.Token)
	if r.Container == "" {
		return nil
	}
	e, err := engine.Open(ctx, engine.Config{Getenv: func(k string) string { return r.Docker[k] }})
	if err != nil {
		return err
	}
	defer e.Close()
	return e.Remove(ctx, r.Container)
}

// killMarked ends every process with the marker of a server in its environment,
// this one excepted, until none is left.
func killMarked(token string) {
	want := marker + "=" + token
	for range 100 {
		left := false
		dirs, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is well formed
		for _, f := range dirs {
			b, err := os.ReadFile(f)
			if err != nil || !hasVar(string(b), want) {
				continue
			}
			var pid int
			if _, err := fmt.Sscanf(f, "/proc/%d/environ", &pid); err == nil && pid != os.Getpid() {
				left = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !left {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func hasVar(environ, want string) bool {
	for kv := range strings.SplitSeq(environ, "\x00") {
		if kv == want {
			return true
		}
	}
	return false
}
