package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// proc is a process of the cluster. A pid alone is never trusted: the time at
// which the kernel started it belongs to its identity.
type proc struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start string `json:"start"` // field 22 of /proc/PID/stat, in clock ticks since boot
}

// startTime reads when a process was started; "" when there is none.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the program's name in parentheses and may hold spaces.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return ""
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 || f[0] == "Z" {
		return ""
	}
	return f[19]
}

func (p proc) alive() bool { return p.PID > 0 && p.Start != "" && startTime(p.PID) == p.Start }

// start runs a program of the cluster detached from this one, with its output
// in logs/NAME.log, unless it runs already.
func (c *cluster) start(name, program string, args ...string) error {
	return c.startWith(nil, name, program, args...)
}

// startWith is start with more in the environment, where what is secret
// belongs: every user can read the arguments of a process.
func (c *cluster) startWith(env []string, name, program string, args ...string) error {
	for i, p := range c.Procs {
		if p.Name != name {
			continue
		}
		if p.alive() {
			return nil
		}
		c.Procs = append(c.Procs[:i], c.Procs[i+1:]...)
		break
	}
	if err := os.MkdirAll(c.path("logs"), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	log, err := os.OpenFile(c.logOf(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.dir}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c.Procs = append(c.Procs, proc{name, cmd.Process.Pid, startTime(cmd.Process.Pid)})
	go cmd.Wait() // it outlives this process, and leaves no zombie if it does not
	return c.save()
}

func (c *cluster) logOf(name string) string { return c.path("logs", name+".log") }

// stop ends a process: politely, then for good. A process of another name, or
// one that has taken the pid over, is left alone.
func (c *cluster) stop(name string, grace time.Duration) error {
	for i, p := range c.Procs {
		if p.Name != name {
			continue
		}
		if p.alive() && grace > 0 {
			syscall.Kill(p.PID, syscall.SIGTERM)
		}
		for end := time.Now().Add(grace); p.alive() && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		}
		for end := time.Now().Add(10 * time.Second); p.alive(); time.Sleep(50 * time.Millisecond) {
			syscall.Kill(p.PID, syscall.SIGKILL)
			if time.Now().After(end) {
				return fmt.Errorf("stop %s: process %d does not end", name, p.PID)
			}
		}
		c.Procs = append(c.Procs[:i], c.Procs[i+1:]...)
		return c.save()
	}
	return nil
}

// outage kills the API server, without a chance to say goodbye, and starts it
// again after a while.
func (c *cluster) outage(ctx context.Context, pause time.Duration) error {
	if !c.running() {
		return &needError{"the cluster does not run", "start it: devcluster up"}
	}
	if err := c.stop("kube-apiserver", 0); err != nil {
		return err
	}
	c.say("the API server is gone for %s", pause)
	select {
	case <-ctx.Done(): // it is started again in any case
	case <-time.After(pause):
	}
	return c.startAPIServer(context.WithoutCancel(ctx))
}

type procState struct {
	proc
	State string `json:"state"`
	Log   string `json:"log"`
}

func (c *cluster) procStates() (out []procState) {
	for _, p := range c.Procs {
		state := "running"
		if !p.alive() {
			state = "dead"
		}
		out = append(out, procState{p, state, c.logOf(p.Name)})
	}
	return out
}

// running reports whether every process of a started cluster is alive.
func (c *cluster) running() bool {
	for _, p := range c.Procs {
		if !p.alive() {
			return false
		}
	}
	return len(c.Procs) > 0
}

// await polls until ok, and says what the process logged last when it does not
// come to that.
func (c *cluster) await(ctx context.Context, name, what string, patience time.Duration, ok func() error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = ok(); err == nil {
			return nil
		}
		for _, p := range c.Procs {
			if p.Name == name && !p.alive() {
				return fmt.Errorf("%s ended before %s; its last words:\n%s", name, what, tail(c.logOf(name)))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("no sign that %s within %v (%w); the last words of %s:\n%s", what, patience, err, name, tail(c.logOf(name)))
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-3000):])
}

// orphans are the pids of containerd's shims that serve this cluster: they
// outlive containerd by design.
func (c *cluster) orphans() (out []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil {
			continue
		}
		argv := strings.Split(string(b), "\x00")
		if filepath.Base(argv[0]) != "containerd-shim-runc-v2" {
			continue
		}
		for i, a := range argv {
			if a == "-address" && i+1 < len(argv) && strings.HasPrefix(argv[i+1], c.dir+"/") {
				var pid int
				if _, err := fmt.Sscan(filepath.Base(d), &pid); err == nil {
					out = append(out, pid)
				}
			}
		}
	}
	return out
}

// killShims ends the shims of this cluster and the containers below them.
func (c *cluster) killShims() error {
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		pids := c.orphans()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			for _, child := range children(pid) {
				syscall.Kill(child, syscall.SIGKILL)
			}
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(end) {
			return errors.New("some container shims do not end")
		}
	}
}

func children(pid int) (out []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(b)) {
			var child int
			if _, err := fmt.Sscan(f, &child); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// kubectl runs kubectl as the cluster's administrator.
func (c *cluster) kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Versions.binDir(), "kubectl"), append([]string{"--kubeconfig", c.kubeconfig()}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{"HOME=" + c.dir, "PATH=/usr/bin:/bin"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}
