//go:build linux

package sandbox

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// Not os.Exit, which a race detector lets wait a second in every process.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "__sandbox-init":
			syscall.Exit(InitMain(os.Args[2:]))
		case "__calls":
			tryCalls()
			syscall.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func testConfig(layer Layer) Config {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Config{Init: []string{exe, "__sandbox-init"}, Layer: layer}
}

// execute runs a command to its end and returns what it printed.
func execute(t testing.TB, cfg Config, spec Spec) (out string, res Result, p *Process) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if spec.Dir == "" {
		spec.Dir = t.TempDir()
		spec.Writable = append(spec.Writable, spec.Dir)
	}
	spec.Scratch = t.TempDir()
	spec.Name = fmt.Sprintf("test-%d", os.Getpid())
	spec.Stdout, spec.Stderr = w, w
	p, err = Start(cfg, spec)
	w.Close()
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	timer := time.AfterFunc(20*time.Second, p.Kill)
	defer timer.Stop()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), p.Wait(), p
}

func TestProbe(t *testing.T) {
	c := Probe(testConfig(Auto))
	if c.Layer == None {
		t.Fatalf("nothing isolates here: %q", c.Problems)
	}
	if got := c.Apply(testConfig(Landlock)).Layer; got != Landlock {
		t.Errorf("a forced layer became %s", got)
	}
	if got := c.Apply(testConfig(Auto)).Layer; got != c.Layer {
		t.Errorf("auto became %s, want %s", got, c.Layer)
	}
	broken := testConfig(Auto)
	broken.Init = []string{"/nonexistent"}
	if c := Probe(broken); c.Layer == Namespaces || len(c.Problems) == 0 {
		t.Errorf("a first process that cannot start gives %+v", c)
	}
}

// TestState looks at what the kernel says of a command in a sandbox.
func TestState(t *testing.T) {
	for _, layer := range []Layer{Namespaces, Landlock} {
		out, res, p := execute(t, testConfig(layer), Spec{Argv: []string{"sh", "-c", "cat /proc/self/status; ls /proc/self/fd; ulimit -c; hostname"}})
		if res.Code != 0 {
			t.Fatalf("%s: %+v\n%s", layer, res, out)
		}
		for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if strings.HasPrefix(want, "CapBnd") && os.Geteuid() != 0 && layer == Landlock {
				continue // an ordinary user cannot drop it, and no_new_privs makes it useless
			}
			if !strings.Contains(out, want+"\n") {
				t.Errorf("%s: the command's state lacks %q:\n%s", layer, want, out)
			}
		}
		if !strings.Contains(out, "\n0\n1\n2\n3\n0\n") { // 3 is the folder that ls reads
			t.Errorf("%s: it has other descriptors than 0, 1 and 2, or dumps core:\n%s", layer, out)
		}
		if layer == Namespaces && !strings.HasSuffix(out, "\nsandbox\n") {
			t.Errorf("the host name is the machine's:\n%s", out)
		}
		if os.Geteuid() == 0 && layer == Namespaces && !strings.Contains(out, "Uid:\t65532\t65532\t65532\t65532\n") {
			t.Errorf("the command runs as root:\n%s", out)
		}
		for _, want := range []string{"landlock", "seccomp", "rlimit"} {
			if !slices.Contains(p.Placement().Layers, want) {
				t.Errorf("%s: %s is not in force: %q", layer, want, p.Placement().Layers)
			}
		}
	}
}

// calls are system calls and what the filter answers them with.
var calls = map[string]func() error{
	"unshare user":  func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"mount":         func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
	"ptrace":        func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0) },
	"keyctl":        func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err },
	"bpf":           func() error { return raw(unix.SYS_BPF, 0, 0, 0) },
	"io_uring":      func() error { return raw(unix.SYS_IO_URING_SETUP, 1, 0, 0) },
	"clone3":        func() error { return raw(unix.SYS_CLONE3, 0, 0, 0) },
	"clone user":    func() error { return raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0) },
	"openat2":       func() error { _, err := unix.Openat2(unix.AT_FDCWD, ".", &unix.OpenHow{}); return err },
	"chmod set-uid": func() error { return unix.Fchmodat(unix.AT_FDCWD, "f", 0o4755, 0) },
	"create set-uid": func() error {
		_, err := unix.Openat(unix.AT_FDCWD, "g", unix.O_CREAT|unix.O_WRONLY, 0o4755)
		return err
	},
	"open with odd mode": func() error { _, err := unix.Openat(unix.AT_FDCWD, "f", unix.O_RDONLY, 0o4755); return err },
	"chmod":              func() error { return unix.Fchmodat(unix.AT_FDCWD, "f", 0o755, 0) },
	"vsock":              func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
	"packet":             func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
	"udp":                func() error { return socket(unix.AF_INET, unix.SOCK_DGRAM, 0) },
	"tcp":                func() error { return socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP) },
	"netlink":            func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
	"pair":               func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
}

func raw(nr, a, b, c uintptr) error {
	if _, _, e := unix.RawSyscall(nr, a, b, c); e != 0 {
		return e
	}
	return nil
}

func socket(family, kind, proto int) error {
	_, err := unix.Socket(family, kind, proto)
	return err
}

// tryCalls prints the answer to every call; it runs inside.
func tryCalls() {
	os.WriteFile("f", nil, 0o644)
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		err := calls[name]()
		text := "ok"
		if e, isErrno := err.(syscall.Errno); isErrno {
			text = unix.ErrnoName(e)
		} else if err != nil {
			text = err.Error()
		}
		fmt.Printf("%s: %s\n", name, text)
	}
}

func TestCalls(t *testing.T) {
	common := map[string]string{
		"unshare user": "EPERM", "mount": "EPERM", "ptrace": "EPERM", "keyctl": "EPERM", "bpf": "EPERM", "io_uring": "EPERM", "clone3": "ENOSYS",
		"clone user": "EPERM", "openat2": "ENOSYS", "chmod set-uid": "EPERM", "create set-uid": "EPERM", "open with odd mode": "ok", "chmod": "ok",
		"vsock": "EAFNOSUPPORT", "packet": "EAFNOSUPPORT", "netlink": "ok", "pair": "ok",
	}
	for layer, network := range map[Layer]map[string]string{
		Namespaces: {"udp": "ok", "tcp": "ok"}, // in an empty network namespace
		Landlock:   {"udp": "EAFNOSUPPORT", "tcp": "EAFNOSUPPORT"},
	} {
		out, res, _ := execute(t, testConfig(layer), Spec{Argv: []string{testConfig("").Init[0], "__calls"}})
		if res.Code != 0 || !haveSeccomp() {
			t.Fatalf("%s: %+v\n%s", layer, res, out)
		}
		maps.Copy(network, common)
		for name, want := range network {
			if !strings.Contains("\n"+out, "\n"+name+": "+want+"\n") {
				t.Errorf("%s: %s is not answered with %s:\n%s", layer, name, want, out)
			}
		}
	}
}

// TestFilterFits: jumps are 8 bits wide and a program has at most 4096 steps.
func TestFilterFits(t *testing.T) {
	for _, s := range []sockets{{}, {Unix: true, Inet: true}, {TCP: true}, {Unix: true, TCP: true}} {
		f := filter(s)
		if len(f) > 4096 || unsafe.Sizeof(f[0]) != 8 {
			t.Fatalf("%d steps", len(f))
		}
		for i, in := range f {
			if in.Code&7 == unix.BPF_JMP && (i+1+int(in.Jf) >= len(f) || i+1+int(in.Jt) >= len(f)) {
				t.Errorf("step %d jumps out of the program", i)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	for _, layer := range []Layer{Namespaces, Landlock} {
		_, res, _ := execute(t, testConfig(layer), Spec{Argv: []string{"dd", "if=/dev/zero", "of=big", "bs=1M", "count=4"}, Limits: Limits{FileBytes: 1 << 20}})
		if res.Limit != FileSize || res.Signal != int(unix.SIGXFSZ) {
			t.Errorf("%s: a file that is too large gives %+v", layer, res)
		}
	}
}

func TestKill(t *testing.T) {
	for _, layer := range []Layer{Namespaces, Landlock, None} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		p, err := Start(testConfig(layer), Spec{
			Name: fmt.Sprintf("kill-%d", os.Getpid()), Argv: []string{"sh", "-c", "trap '' TERM INT HUP; (setsid sleep 60 &) ; echo up; sleep 60"},
			Dir: dir, Writable: []string{dir}, Scratch: t.TempDir(), Stdout: w, Stderr: w,
		})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		r.Read(make([]byte, 3))
		begin := time.Now()
		p.Kill()
		res := p.Wait()
		// Every process held the pipe: its end is everybody's end.
		r.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := r.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: somebody is left: %v", layer, err)
		}
		if res.Signal == 0 || time.Since(begin) > killGrace {
			t.Errorf("%s: %+v after %v", layer, res, time.Since(begin))
		}
		r.Close()
	}
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Spec{
		"empty":            {Dir: dir},
		"link as writable": {Argv: []string{"x"}, Dir: dir, Writable: []string{filepath.Join(dir, "link")}},
		"unclean":          {Argv: []string{"x"}, Dir: dir + "/."},
		"root":             {Argv: []string{"x"}, Dir: dir, ReadOnly: []string{"/"}},
		"huge environment": {Argv: []string{"x"}, Dir: dir, Env: map[string]string{"A": strings.Repeat("x", maxEnvBytes)}},
	} {
		err := s.Validate()
		if u, ok := err.(interface{ UserError() string }); !ok || u.UserError() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExecutablePaths(t *testing.T) {
	home := t.TempDir()
	mk := func(p string, text string) {
		t.Helper()
		p = filepath.Join(home, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mk("py/bin/python3.11", "")
	mk("py/lib/python3.11/os.py", "")
	mk(".local/bin/tool", "")
	mk(".local/share/keyrings/login", "secret")
	mk("venv/pyvenv.cfg", "home = "+home+"/py/bin\nversion = 3.11\n")
	mk("evil/pyvenv.cfg", "home = "+home+"/.local/bin\n")
	mk("evil/bin/python", "")
	if err := os.MkdirAll(filepath.Join(home, "venv", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"py/bin/python3": "python3.11", "venv/bin/python": home + "/py/bin/python3", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	in := func(rel ...string) (out []string) {
		for _, r := range rel {
			out = append(out, filepath.Join(home, r))
		}
		return out
	}
	for _, c := range []struct {
		name, path string
		want       []string
	}{
		{home + "/venv/bin/python", "", in("py", "py/bin/python3", "py/bin/python3.11", "venv", "venv/bin/python")},
		{"python3", home + "/py/bin", in("py", "py/bin/python3", "py/bin/python3.11")},
		{home + "/.local/bin/tool", "", in(".local/bin/tool")},
		{home + "/evil/bin/python", "", in("evil", "evil/bin/python")},
		{"relative/tool", "", nil},
		{"missing", home, nil},
	} {
		got := ExecutablePaths(c.name, c.path)
		slices.Sort(got)
		got = slices.Compact(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	ExecutablePaths(home+"/loop", "") // ends
}

// TestChown: what a hard or symbolic link leads to is not handed over.
func TestChown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	outside, tree := t.TempDir(), t.TempDir()
	for _, p := range []string{outside + "/hard", outside + "/soft", tree + "/plain"} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(tree+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside+"/hard", tree+"/a/hard"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside+"/soft", tree+"/a/b/soft"); err != nil {
		t.Fatal(err)
	}
	if err := chown(tree, 65532, 65531); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]uint32{tree: 65532, tree + "/plain": 65532, tree + "/a/b": 65532, tree + "/a/b/soft": 65532, outside + "/hard": 0, outside + "/soft": 0} {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil || st.Uid != want {
			t.Errorf("%s belongs to %d, want %d (%v)", p, st.Uid, want, err)
		}
	}
	if err := os.Symlink(outside, tree+"/top"); err != nil {
		t.Fatal(err)
	}
	if err := chown(tree+"/top", 65532, 65532); err == nil {
		t.Error("a link at the top was followed")
	}
}

func TestRemoveCgroupTouchesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	if !removeCgroup(dir) {
		t.Error("a foreign folder counts as left over")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a foreign folder was removed: %v", err)
	}
}

func BenchmarkTrue(b *testing.B) {
	for _, l := range []Layer{Namespaces, Landlock, None} {
		b.Run(string(l), func(b *testing.B) {
			for b.Loop() {
				if _, res, _ := execute(b, testConfig(l), Spec{Argv: []string{"true"}}); res.Code != 0 {
					b.Fatalf("%+v", res)
				}
			}
		})
	}
}
