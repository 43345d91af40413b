package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/runner/capture"
)

// Main is the container's first process; its result is the exit status, which
// says nothing of the command.
func Main() int {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this command is started by repromill itself in a container, and not by hand")
		return 2
	}
	b, err := os.ReadFile(SpecPath)
	var s Spec
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "read what to run:", err)
		return 2
	}
	warmUp()
	// No process with the same user id may look into this one.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "hide from other processes:", err)
		return 2
	}
	v := &supervisor{spec: s, now: time.Now, stop: make(chan Cause, 1)}
	if err := v.write(v.run()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// warmUp makes the threads that this process will need: when the command has
// used up the container's processes, none can be made any more.
func warmUp() {
	const threads = 12
	var here, done sync.WaitGroup
	here.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread() // unlocked, the thread stays
			here.Done()
			here.Wait()
		})
	}
	done.Wait()
}

type supervisor struct {
	spec Spec
	now  func() time.Time
	stop chan Cause // why the command is to end; the first word counts
	base int64      // bytes in the writable folders at the start

	rss peak
}

// end asks for the end of the command.
func (v *supervisor) end(why Cause) {
	select {
	case v.stop <- why:
	default:
	}
}

func (v *supervisor) run() (e Exit) {
	defer func() { e.Finished = v.now().UTC() }()
	fail := func(err error) Exit { return Exit{StartError: err.Error(), Code: -1} }
	if err := os.Chdir(v.spec.Dir); err != nil {
		return fail(fmt.Errorf("enter working folder: %w", err))
	}
	if v.spec.Proxy {
		if err := v.openWay(); err != nil {
			return fail(err)
		}
	}
	v.base = diskUse(v.watched())
	out, err := capture.New(OutDir, v.spec.OutputBytes)
	if err != nil {
		return fail(err)
	}
	children, term := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Notify(term, unix.SIGTERM)
	// Whatever else the command sends is taken and dropped. Ignored it would
	// stay ignored in the command.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGPIPE, unix.SIGABRT)
	e.Started = v.now().UTC()
	pid, err := v.start(out)
	out.Started()
	if err != nil {
		out.Finish()
		return fail(err)
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { v.watch(out, ended) })
	v.reap(pid, children, term, &e)
	close(ended)
	watching.Wait()
	killAll(&e)
	e.OutputBytes = out.Finish()
	e.MaxRSSBytes = max(e.MaxRSSBytes, v.rss.get())
	e.DiskBytes = max(0, diskUse(v.watched())-v.base)
	v.judge(&e)
	return e
}

// judge names the limit that the command ran into where the kernel held it.
func (v *supervisor) judge(e *Exit) {
	switch {
	case e.Cause == Output && e.OutputBytes < v.spec.OutputBytes:
		e.Cause = DiskFull // the output could not be stored, long before there was too much of it
	case e.Cause != None:
	case counter("memory.events", "oom_kill")+counter("memory/memory.oom_control", "oom_kill") > 0 && e.Code != 0:
		e.Cause = Memory
	case pidsRefused() && e.Code != 0:
		e.Cause = Processes
	case e.Signal == int(unix.SIGXFSZ):
		e.Cause = FileSize
	}
}

// start starts the command, looked up the way execvp(3) does.
func (v *supervisor) start(out *capture.Capture) (int, error) {
	env := v.environ()
	path, err := lookPath(v.spec.Argv[0], env)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if err := bound(); err != nil {
		return 0, err
	}
	restore := lowerFileSize(v.spec.FileBytes)
	pid, err := syscall.ForkExec(path, v.spec.Argv, &syscall.ProcAttr{
		Env: env, Files: []uintptr{null.Fd(), out.Stdout.Fd(), out.Stderr.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	restore()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", path, err)
	}
	if v.spec.FileBytes > 0 {
		lim := unix.Rlimit{Cur: uint64(v.spec.FileBytes), Max: uint64(v.spec.FileBytes)}
		unix.Prlimit(pid, unix.RLIMIT_FSIZE, &lim, nil) // fails when it has ended already
	}
	// When memory runs out, the command's tree goes before this process.
	os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("800"), 0)
	return pid, nil
}

// bound lowers what the kernel counts per process and nothing of ours needs;
// the command inherits it. The engine may not be allowed to raise anything, so
// it is not asked to set these.
func bound() error {
	for _, l := range []struct {
		which int
		max   uint64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, openFiles}, {unix.RLIMIT_MSGQUEUE, 1 << 20}} {
		var cur syscall.Rlimit
		if err := syscall.Getrlimit(l.which, &cur); err != nil {
			return fmt.Errorf("read limit: %w", err)
		}
		// The syscall package must be the one to set RLIMIT_NOFILE: it puts
		// its own start value back at exec otherwise.
		n := min(l.max, cur.Max)
		if err := syscall.Setrlimit(l.which, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("set limit: %w", err)
		}
	}
	return nil
}

const openFiles = 65536

// lowerFileSize sets the soft limit for the command that is forked next. This
// process keeps its hard limit and takes its soft one back.
func lowerFileSize(bytes int64) (restore func()) {
	var old syscall.Rlimit
	if bytes <= 0 || syscall.Getrlimit(unix.RLIMIT_FSIZE, &old) != nil {
		return func() {}
	}
	low := syscall.Rlimit{Cur: min(uint64(bytes), old.Max), Max: old.Max}
	syscall.Setrlimit(unix.RLIMIT_FSIZE, &low)
	return func() { syscall.Setrlimit(unix.RLIMIT_FSIZE, &old) }
}

// environ is the command's whole environment: the image's, then ours, then
// what the attempt adds.
func (v *supervisor) environ() []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
	for _, kv := range os.Environ() {
		if k, val, ok := strings.Cut(kv, "="); ok && k != "HOSTNAME" {
			env[k] = val
		}
	}
	env["HOME"], env["TMPDIR"] = HomeDir, "/tmp"
	if v.spec.Proxy {
		for _, k := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
			env[k] = proxyURL
		}
	}
	for k, val := range v.spec.Env {
		env[k] = val
	}
	out := make([]string, 0, len(env))
	for k, val := range env {
		out = append(out, k+"="+val)
	}
	slices.Sort(out)
	return out
}

func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			p := filepath.Join(dir, name)
			if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%q is not found in the image: its folder is not in PATH, or the environment lacks it: %w", name, exec.ErrNotFound)
}

// reap collects every process that ends until the command does, and ends the
// command when somebody says so.
func (v *supervisor) reap(pid int, children, term <-chan os.Signal, e *Exit) {
	for {
		select {
		case why := <-v.stop:
			if e.Cause == None {
				e.Cause = why
			}
			unix.Kill(-1, unix.SIGKILL)
		case <-term:
			v.end(Terminated)
			continue
		case <-children:
		}
		for {
			got, ws, ok := wait(unix.WNOHANG, e)
			if !ok {
				break
			}
			if got != pid {
				continue
			}
			if e.Code = ws.ExitStatus(); ws.Signaled() {
				e.Signal = int(ws.Signal())
				e.Code = 128 + e.Signal
			} else {
				e.Cause = ownEnd(e.Cause)
			}
			return
		}
	}
}

// ownEnd drops the causes that came too late: the command had ended by itself.
func ownEnd(c Cause) Cause {
	if c == Timeout || c == Terminated || c == LostProxy {
		return None
	}
	return c
}

// wait collects one child that has ended.
func wait(flags int, e *Exit) (pid int, ws unix.WaitStatus, ok bool) {
	for {
		var ru unix.Rusage
		got, err := unix.Wait4(-1, &ws, flags, &ru)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if got <= 0 || err != nil {
			return 0, ws, false
		}
		e.CPUSeconds += time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
		e.MaxRSSBytes = max(e.MaxRSSBytes, ru.Maxrss<<10)
		return got, ws, true
	}
}

// killAll ends what the command left behind, until this process is alone.
func killAll(e *Exit) {
	for {
		unix.Kill(-1, unix.SIGKILL)
		if _, _, ok := wait(0, e); !ok {
			return
		}
	}
}

// write leaves the last word. The command's processes are gone, but whatever
// they made in the folder is still there.
func (v *supervisor) write(e Exit) error {
	os.Chmod(OutDir, 0o700)
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode exit: %w", err)
	}
	final := filepath.Join(OutDir, ExitFile)
	tmp := final + ".tmp"
	for range 60 { // a full disk may have room again
		if err = errors.Join(os.RemoveAll(tmp), os.RemoveAll(final)); err == nil {
			err = writeFile(tmp, b)
		}
		if err == nil {
			err = os.Rename(tmp, final)
		}
		if err == nil {
			return nil
		}
		time.Sleep(time.Second)
	}
	return fmt.Errorf("write exit: %w", err)
}

func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
