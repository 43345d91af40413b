package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/repromill/repromill/runner/sandbox/proxy"
	"golang.org/x/sys/unix"
)

// Process is a sandbox that runs.
type Process struct {
	spec      Spec
	layer     Layer
	placement Placement
	started   time.Time
	cmd       *exec.Cmd
	control   *net.UnixConn
	group     *cgroup
	proxy     *proxy.Proxy

	killOnce sync.Once
	exited   chan struct{} // closed when the first process is gone
	done     chan struct{} // closed when result is set

	mu     sync.Mutex
	limit  Resource
	maxRSS int64
	result Result
}

// initThreads is how many threads the first process may have beside the
// command's own processes.
const initThreads = 16

// Start builds a sandbox and starts the command in it. It returns when the
// command is about to start; an error means that nothing runs.
func Start(cfg Config, spec Spec) (*Process, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if cfg.Layer == Auto {
		found := Probe(cfg)
		if found.Layer == None {
			return nil, &UnavailableError{found.Problems}
		}
		cfg = found.Apply(cfg)
	}
	p := &Process{spec: spec, layer: cfg.Layer, exited: make(chan struct{}), done: make(chan struct{})}
	in, err := p.prepare(cfg)
	if err != nil {
		p.release()
		return nil, err
	}
	if err := p.spawn(cfg, in); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

// spawn starts the first process, and lets the command go when all stands.
func (p *Process) spawn(cfg Config, in *initSpec) error {
	if len(cfg.Init) == 0 {
		return errors.New("start sandbox: no command for its first process is configured")
	}
	mem, err := specFile(in)
	if err != nil {
		return err
	}
	defer mem.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	p.control = ours
	p.cmd = exec.Command(cfg.Init[0], cfg.Init[1:]...)
	p.cmd.Env = []string{"PATH=" + defaultPath, "GOMAXPROCS=2"}
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = p.spec.Stdout, p.spec.Stderr
	p.cmd.ExtraFiles = []*os.File{theirs, mem}
	p.cmd.SysProcAttr = attributes(cfg, in)

	// The kernel sends the parent-death signal when the thread that started
	// the process ends, so one thread lives as long as the process does.
	startErr := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		startErr <- err
		if err == nil {
			p.cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-startErr; err != nil {
		return fmt.Errorf("start sandbox: %w", err)
	}
	theirs.Close()
	if err := p.letGo(in); err != nil {
		p.Kill()
		<-p.exited
		return err
	}
	p.started = time.Now()
	go p.watch()
	go p.finish()
	return nil
}

func specFile(in *initSpec) (*os.File, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode sandbox: %w", err)
	}
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	if _, err := f.WriteAt(b, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write memory file: %w", err)
	}
	return f, nil
}

// socketPair is a connection that keeps messages apart and carries descriptors.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control socket: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	f := os.NewFile(uintptr(fds[0]), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("open control socket: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}

func attributes(cfg Config, in *initSpec) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if in.Layer != Namespaces {
		// The first process sweeps its tree when its control socket closes; a
		// kill would leave the tree to somebody else.
		attr.Pdeathsig = 0
		return attr
	}
	attr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	if cfg.NoUserNS {
		return attr
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	if os.Geteuid() == 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: in.UID, HostID: in.UID, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: in.GID, HostID: in.GID, Size: 1}}
		attr.GidMappingsEnableSetgroups = true
		return attr
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	// A uid other than 0 loses its capabilities at exec unless they are
	// ambient; the first process clears them before the command starts.
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		attr.AmbientCaps = append(attr.AmbientCaps, c)
	}
	return attr
}

// letGo waits for the first process to report that the sandbox stands.
func (p *Process) letGo(in *initSpec) error {
	if p.group != nil {
		if err := p.group.add(p.cmd.Process.Pid); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	r, fd, err := p.receive()
	if err != nil {
		return fmt.Errorf("the sandbox ended before it stood: %w", err)
	}
	if !r.Ready {
		if fd >= 0 {
			unix.Close(fd)
		}
		return fmt.Errorf("set up sandbox: %s", r.Failed)
	}
	if in.Layer != None {
		p.placement.Layers = append(p.placement.Layers, r.Applied...)
	}
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), "listener")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("take over listener: %w", err)
		}
		p.proxy = proxy.Serve(l, *p.spec.Proxy)
	}
	if p.spec.BeforeRun != nil {
		ticks, _, _ := startTime(p.cmd.Process.Pid)
		if err := p.spec.BeforeRun(p.placement, Remains{Boot: bootID(), Init: p.cmd.Process.Pid, Ticks: ticks, Cgroups: p.group.dirs()}); err != nil {
			return err
		}
	}
	if _, err := p.control.Write([]byte("go")); err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	return nil
}

// receive reads one message; fd is -1 when none came along.
func (p *Process) receive() (r report, fd int, err error) {
	buf, oob := make([]byte, 64<<10), make([]byte, 64)
	fd = -1
	n, oobn, _, _, err := p.control.ReadMsgUnix(buf, oob)
	if err != nil {
		return r, fd, err
	}
	if n == 0 {
		return r, fd, errors.New("its control socket closed")
	}
	if msgs, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for _, m := range msgs {
			if fds, err := syscall.ParseUnixRights(&m); err == nil && len(fds) > 0 {
				fd = fds[0]
			}
		}
	}
	return r, fd, json.Unmarshal(buf[:n], &r)
}

// watch enforces what the kernel does not and records the memory in use.
func (p *Process) watch() {
	capped := p.group.controllers()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-p.exited:
			return
		case <-time.After(wait):
		}
		pids := descendants(p.cmd.Process.Pid)
		all, own := resident(pids)
		hit := p.group.hit()
		l := p.spec.Limits
		switch {
		case hit != "":
		case l.MemoryBytes > 0 && own > l.MemoryBytes && !slices.Contains(capped, "memory"):
			hit = Memory
		case l.Processes > 0 && !slices.Contains(capped, "pids") && threads(pids) >= l.Processes:
			hit = Processes
		}
		p.mu.Lock()
		p.maxRSS = max(p.maxRSS, all)
		if p.limit == "" {
			p.limit = hit
		}
		p.mu.Unlock()
		if hit != "" {
			p.Kill()
		}
	}
}

// finish gathers how the command ended and takes the sandbox down.
func (p *Process) finish() {
	defer close(p.done)
	final, fd, err := p.receive()
	if fd >= 0 {
		unix.Close(fd)
	}
	<-p.exited
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit == "" {
		p.limit = p.group.hit()
	}
	r := Result{Started: p.started, Finished: time.Now(), Limit: p.limit, MaxRSSBytes: p.maxRSS}
	switch {
	case err == nil && final.Exited:
		r.Code, r.Signal, r.CPUSeconds = final.Code, final.Signal, final.CPUSeconds
		r.MaxRSSBytes = max(r.MaxRSSBytes, final.MaxRSS)
		if r.Signal == int(unix.SIGXFSZ) && r.Limit == "" {
			r.Limit = FileSize
		}
	case err == nil:
		r.StartError = strings.Join(slices.DeleteFunc([]string{final.StartError, final.Failed}, func(s string) bool { return s == "" }), "; ")
	default:
		// The whole sandbox was killed: by Kill, by the kernel for want of
		// memory, or by a person.
		st := p.cmd.ProcessState
		r.Code, r.Signal = 137, int(unix.SIGKILL)
		r.CPUSeconds = (st.UserTime() + st.SystemTime()).Seconds()
		if ru, ok := st.SysUsage().(*syscall.Rusage); ok {
			r.MaxRSSBytes = max(r.MaxRSSBytes, ru.Maxrss<<10)
		}
	}
	p.result = r
	p.release()
}

// release lets go of everything outside of the sandbox.
func (p *Process) release() {
	if p.proxy != nil {
		p.proxy.Close()
	}
	if p.control != nil {
		p.control.Close()
	}
	for range 100 {
		left := false
		for _, d := range p.group.dirs() {
			left = !removeCgroup(d) || left
		}
		if !left {
			return
		}
		time.Sleep(2 * time.Millisecond) // the dead take a moment to leave
	}
}

// killGrace is how long the first process of a sandbox without a pid namespace
// may take to sweep its tree.
const killGrace = 3 * time.Second

// Kill ends everything in the sandbox. It does not wait; Wait does.
func (p *Process) Kill() {
	p.killOnce.Do(func() {
		if p.layer == Namespaces {
			p.cmd.Process.Kill()
			return
		}
		p.control.Close()
		go func() {
			select {
			case <-p.exited:
			case <-time.After(killGrace):
				p.cmd.Process.Kill()
			}
		}()
	})
}

// Wait returns when nothing of the sandbox is left.
func (p *Process) Wait() Result {
	<-p.done
	return p.result
}

// Placement says what isolates the command.
func (p *Process) Placement() Placement { return p.placement }
