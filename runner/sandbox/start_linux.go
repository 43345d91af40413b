package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// prepare decides everything that is decided outside and makes what the
// sandbox needs out there.
func (p *Process) prepare(cfg Config) (*initSpec, error) {
	s := &p.spec
	in := &initSpec{
		Layer: cfg.Layer, Argv: s.Argv, Dir: s.Dir, Writable: outermost(s.Writable), ReadOnly: s.ReadOnly, Scratch: s.Scratch,
		TmpBytes: cfg.tmpBytes(), UID: os.Getuid(), GID: os.Getgid(), Limits: s.Limits, GPUs: s.GPUs,
	}
	if s.GPUs > 0 && len(gpuDevices()) == 0 {
		return nil, &SpecError{fmt.Sprintf("%d GPUs are asked for, and this machine shows no NVIDIA device", s.GPUs), "run it on a machine with GPUs, or plan it for a CPU"}
	}
	in.Executables = s.executables()
	if cfg.Layer != None {
		in.DropCaps = true
		in.SwitchUser = os.Geteuid() == 0
	}
	if in.SwitchUser {
		in.UID, in.GID = cfg.uid(), cfg.gid()
	}
	var gaps []string
	if cfg.Layer == Landlock && in.SwitchUser {
		if bad := unreachable(in); bad != "" {
			if landlockABI() < abiScope {
				return nil, &SpecError{fmt.Sprintf("%s cannot be reached by an unprivileged uid", bad), "keep the tool's state under a folder that everyone may enter, such as /var/lib, or run it as an ordinary user"}
			}
			in.SwitchUser, in.UID, in.GID = false, 0, 0
			gaps = append(gaps, "the command runs as uid 0, without any capability, because "+bad+" cannot be reached by another uid")
		}
	}
	if in.SwitchUser {
		for _, w := range in.Writable {
			if err := chown(w, in.UID, in.GID); err != nil {
				return nil, err
			}
		}
	}
	home, tmp := privateHome, "/tmp"
	if cfg.Layer != Namespaces {
		var err error
		if home, tmp, err = scratch(s.Scratch, in); err != nil {
			return nil, err
		}
	}
	proxyURL, err := p.prepareNetwork(in)
	if err != nil {
		return nil, err
	}
	in.Env = environ(home, tmp, proxyURL, s.Env)
	p.group = newCgroup(s.Name, Limits{MemoryBytes: s.Limits.MemoryBytes, Processes: withThreads(s.Limits.Processes)})
	in.NProc = processLimit(in, p.group, !cfg.NoUserNS)
	p.placement = p.place(cfg, in, gaps)
	return in, nil
}

func withThreads(n int) int {
	if n <= 0 {
		return 0
	}
	return n + initThreads
}

// executables are the parts of the machine that argv[0] needs. A program that
// lies in one of the given paths needs none: links in there may be the work of
// untrusted code.
func (s *Spec) executables() []string {
	pathList := defaultPath
	if v, ok := s.Env["PATH"]; ok {
		pathList = v
	}
	given := slices.Concat(s.Writable, s.ReadOnly)
	exe := lookExecutable(s.Argv[0], pathList)
	if exe == "" || withinAny(exe, given) {
		return nil
	}
	var out []string
	for _, p := range ExecutablePaths(exe, "") {
		if _, err := os.Stat(p); err == nil && !withinAny(p, given) && !withinAny(p, systemPaths) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// outermost leaves out the paths that lie in another one. They are writable
// with it, and their names may be links that an earlier run has made.
func outermost(paths []string) []string {
	var out []string
	for _, p := range paths {
		others := slices.DeleteFunc(slices.Clone(paths), func(o string) bool { return o == p })
		if !withinAny(p, others) && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// unreachable names the first path that an unprivileged uid cannot come to.
func unreachable(in *initSpec) string {
	for _, p := range slices.Concat(in.Writable, in.ReadOnly, in.Executables, []string{in.Scratch}) {
		for dir := filepath.Dir(p); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
			var st unix.Stat_t
			if unix.Stat(dir, &st) != nil || (st.Mode&0o001 == 0 && int(st.Uid) != in.UID) {
				return dir
			}
		}
	}
	return ""
}

// scratch makes the home and temporary folders where /tmp is shared.
func scratch(dir string, in *initSpec) (home, tmp string, err error) {
	if dir == "" {
		return "", "", &SpecError{"no scratch folder was given", "name an empty folder"}
	}
	home, tmp = filepath.Join(dir, "home"), filepath.Join(dir, "tmp")
	for _, d := range []string{dir, home, tmp} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return "", "", fmt.Errorf("make scratch folder: %w", err)
		}
		if in.SwitchUser {
			if err := os.Chown(d, in.UID, in.GID); err != nil {
				return "", "", fmt.Errorf("hand over scratch folder: %w", err)
			}
		}
	}
	return home, tmp, nil
}

// prepareNetwork decides the socket rules and where the proxy listens.
func (p *Process) prepareNetwork(in *initSpec) (proxyURL string, err error) {
	switch {
	case in.Layer == None:
		return "", nil
	case in.Layer == Namespaces:
		in.Sockets = sockets{Unix: true, Inet: true}
		in.Listen = p.spec.Proxy != nil
		if in.Listen {
			proxyURL = fmt.Sprintf("http://127.0.0.1:%d", proxyPort)
		}
		return proxyURL, nil
	}
	in.Sockets = sockets{Unix: landlockABI() >= abiResolveUnix, TCP: p.spec.Proxy != nil}
	if p.spec.Proxy == nil {
		return "", nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for proxy: %w", err)
	}
	p.proxy = proxy.Serve(l, *p.spec.Proxy)
	in.ProxyPort = l.Addr().(*net.TCPAddr).Port
	return fmt.Sprintf("http://127.0.0.1:%d", in.ProxyPort), nil
}

// processLimit is RLIMIT_NPROC, the substitute for a pids cgroup. The kernel
// counts it per user namespace since 5.14, and per user before that and
// without one; what the user runs already is then added to it.
func processLimit(in *initSpec, g *cgroup, userns bool) int {
	if in.Limits.Processes <= 0 || slices.Contains(g.controllers(), "pids") || in.UID == 0 {
		return 0
	}
	n := withThreads(in.Limits.Processes)
	if in.Layer == Namespaces && userns && kernelAtLeast(5, 14) {
		return n
	}
	return n + userThreads(in.UID)
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return a > major || a == major && b >= minor
}

func userThreads(uid int) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	n := 0
	for _, d := range dirs {
		var st unix.Stat_t
		if unix.Stat(d, &st) == nil && int(st.Uid) == uid {
			t, _ := os.ReadDir(d + "/task")
			n += len(t)
		}
	}
	return n
}

// place says what holds and what does not; the layers that take hold inside
// are added when the first process reports them.
func (p *Process) place(cfg Config, in *initSpec, gaps []string) Placement {
	var pl Placement
	pl.Missing = gaps
	miss := func(s string) { pl.Missing = append(pl.Missing, s) }
	switch in.Layer {
	case None:
		return Placement{Layers: []string{"none"}, Missing: []string{"nothing is isolated: the command can read and change whatever the user can, and reach the network"}}
	case Namespaces:
		if !cfg.NoUserNS {
			pl.Layers = append(pl.Layers, "userns")
		} else {
			miss("no user namespace: the sandbox's first process is the machine's root")
		}
		pl.Layers = append(pl.Layers, "mountns", "pidns", "netns", "ipcns", "utsns")
		if landlockABI() == 0 {
			miss("no Landlock behind the private root")
		}
	case Landlock:
		pl.Missing = append(pl.Missing, landlockGaps(landlockABI(), p.spec.Proxy != nil, haveSeccomp())...)
		in.ReadOnly = slices.DeleteFunc(slices.Clone(in.ReadOnly), func(r string) bool {
			inside := withinAny(r, in.Writable)
			if inside {
				miss(r + " lies in a writable folder and can be written")
			}
			return inside
		})
	}
	if !haveSeccomp() {
		miss("no system call filter")
	}
	if in.SwitchUser {
		pl.Layers = append(pl.Layers, "uid")
	}
	have := p.group.controllers()
	if len(have) > 0 {
		pl.Layers = append(pl.Layers, "cgroup")
	}
	if !slices.Contains(have, "memory") {
		miss("memory is measured ten times a second instead of being bounded by the kernel")
	}
	if !slices.Contains(have, "pids") && in.Layer == Landlock {
		miss("the number of processes is bounded together with the user's other processes")
	}
	miss("disk space in writable folders is bounded per file only")
	if in.GPUs > 0 {
		miss("GPU devices are passed through, with their driver's whole interface")
	}
	return pl
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
