//go:build !linux

package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a command that runs.
type Process struct {
	cmd     *exec.Cmd
	started time.Time
	once    sync.Once
	done    chan struct{}
	result  Result
}

// Remains names what may be left of a sandbox whose parent died.
type Remains struct {
	Init int `json:"init,omitempty"`
}

// Plan has nothing to name here.
func Plan(string) Remains { return Remains{} }

// Sweep kills the process group of the command.
func (r Remains) Sweep(context.Context) error {
	if r.Init > 1 {
		syscall.Kill(-r.Init, syscall.SIGKILL)
	}
	return nil
}

// Probe reports that this system has no sandbox.
func Probe(Config) Capabilities {
	return Capabilities{Layer: None, Problems: []string{"sandboxes need Linux, and this is " + runtime.GOOS}}
}

// InterpreterPaths is nil where no private root exists.
func InterpreterPaths(string) ([]string, error) { return nil, nil }

// InitMain has nothing to do here.
func InitMain([]string) int { return 2 }

// HandOver has nobody to give anything to here.
func HandOver(string, int, int) error { return nil }

// SweepOrphans has nothing to do here.
func SweepOrphans() {}

// KeepDescriptors marks every descriptor beyond the standard ones.
func KeepDescriptors() error {
	for fd := 3; fd < 256; fd++ {
		syscall.CloseOnExec(fd)
	}
	return nil
}

// AdoptOrphans has nothing to do here.
func AdoptOrphans() error { return nil }

// Start runs the command in a process group of its own, which is all that
// there is: it refuses any layer but None.
func Start(cfg Config, spec Spec) (*Process, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if cfg.Layer != None {
		return nil, &UnavailableError{Probe(cfg).Problems}
	}
	home, tmp := filepath.Join(spec.Scratch, "home"), filepath.Join(spec.Scratch, "tmp")
	for _, d := range []string{home, tmp} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make scratch folder: %w", err)
		}
	}
	p := &Process{done: make(chan struct{}), started: time.Now()}
	env := environ(home, tmp, "", spec.Env)
	path := lookExecutable(spec.Argv[0], envPath(env))
	if path == "" {
		path = spec.Argv[0]
	}
	p.cmd = &exec.Cmd{Path: path, Args: spec.Argv, Dir: spec.Dir, Env: env, Stdout: spec.Stdout, Stderr: spec.Stderr, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := p.cmd.Start(); err != nil {
		p.result = Result{StartError: err.Error(), Started: p.started, Finished: time.Now()}
		close(p.done)
		return p, nil
	}
	if spec.BeforeRun != nil {
		if err := spec.BeforeRun(p.Placement(), Remains{Init: p.cmd.Process.Pid}); err != nil {
			p.Kill()
			p.cmd.Wait()
			return nil, err
		}
	}
	go p.finish()
	return p, nil
}

func envPath(env []string) string {
	for _, kv := range env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			return kv[5:]
		}
	}
	return ""
}

func (p *Process) finish() {
	defer close(p.done)
	p.cmd.Wait()
	st := p.cmd.ProcessState
	p.result = Result{Code: st.ExitCode(), Started: p.started, Finished: time.Now(), CPUSeconds: (st.UserTime() + st.SystemTime()).Seconds()}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		p.result.Signal = int(ws.Signal())
		p.result.Code = 128 + p.result.Signal
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what the command left behind
}

// Kill ends the command's process group.
func (p *Process) Kill() {
	p.once.Do(func() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
}

// Wait returns when the command has ended.
func (p *Process) Wait() Result {
	<-p.done
	return p.result
}

// Placement says what isolates the command.
func (p *Process) Placement() Placement {
	return Placement{Layers: []string{"none"}, Missing: []string{
		"nothing is isolated: the command can read and change whatever the user can, and reach the network",
		"limits on memory, processes and file size do not hold, and a process that leaves its session outlives the command",
	}}
}
