package sandbox

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/repromill/repromill/runner/sandbox/proxy"
	"golang.org/x/sys/unix"
)

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

// otherThreads is room for the threads that this process itself may grow, and
// for what else the user starts. A bomb must not have much more of it: what
// counts it shares its processors.
const otherThreads = 64

// processLimit is RLIMIT_NPROC, the substitute for a pids cgroup. The kernel
// counts it per user namespace since 5.14, and per user before that and
// without one; what the user runs already is then added to it, with room for
// more: where the kernel refused first, [Process.watch] would never see its
// own count reach the limit.
func processLimit(in *initSpec, g *cgroup, userns bool) int {
	if in.Limits.Processes <= 0 || slices.Contains(g.controllers(), "pids") || in.UID == 0 {
		return 0
	}
	n := withThreads(in.Limits.Processes)
	if in.Layer == Namespaces && userns && kernelAtLeast(5, 14) {
		return n
	}
	return n + userThreads(in.UID) + otherThreads
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
		miss("the number of processes is counted ten times a second instead of being bounded by the kernel")
	}
	miss("disk space in writable folders is bounded per file only")
	if in.GPUs > 0 {
		miss("GPU devices are passed through, with their driver's whole interface")
	}
	return pl
}
