package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Probe finds out, by trying, what this machine allows. It starts the first
// process of an empty sandbox once or twice, which takes some 10 ms each.
func Probe(cfg Config) Capabilities {
	c := Capabilities{Layer: None, LandlockABI: landlockABI(), Seccomp: haveSeccomp()}
	if g := newCgroup("probe-"+strconv.Itoa(os.Getpid()), Limits{MemoryBytes: 1 << 30, Processes: 64}); g != nil {
		c.Cgroups = g.controllers()
		g.remove()
	}
	cfg.NoUserNS = false
	err := try(cfg)
	switch {
	case err == nil:
		c.Layer, c.UserNS = Namespaces, true
		return c
	case os.Geteuid() == 0:
		c.Problems = append(c.Problems, "user namespaces: "+err.Error())
		cfg.NoUserNS = true
		if err = try(cfg); err == nil {
			c.Layer = Namespaces
			return c
		}
	}
	c.Problems = append(c.Problems, "namespaces: "+err.Error()+namespaceAdvice())
	if c.LandlockABI > 0 {
		c.Layer = Landlock
		return c
	}
	c.Problems = append(c.Problems, "Landlock: this kernel has none, or it is not among the modules named by the lsm= boot parameter")
	return c
}

// namespaceAdvice names the setting that usually stands in the way.
func namespaceAdvice() string {
	for file, bad := range map[string]string{
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
		"/proc/sys/kernel/unprivileged_userns_clone":             "0",
		"/proc/sys/user/max_user_namespaces":                     "0",
	} {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == bad {
			name := strings.ReplaceAll(strings.TrimPrefix(file, "/proc/sys/"), "/", ".")
			return fmt.Sprintf(" (%s is %s; an administrator can change it with sysctl)", name, bad)
		}
	}
	return ""
}

// try builds an empty sandbox of namespaces and takes it down again.
func try(cfg Config) error {
	cfg.Layer = Namespaces
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	p := &Process{layer: Namespaces, exited: make(chan struct{}), done: make(chan struct{}), spec: Spec{Argv: []string{"-"}, Stdout: null, Stderr: null}}
	in := &initSpec{Layer: Namespaces, Probe: true, Dir: "/", TmpBytes: 1 << 20, UID: os.Getuid(), GID: os.Getgid(), DropCaps: true}
	if os.Geteuid() == 0 {
		in.UID, in.GID = cfg.uid(), cfg.gid()
	}
	in.Sockets = sockets{Unix: true, Inet: true}
	if err := p.spawn(cfg, in); err != nil {
		return err
	}
	<-p.done
	return nil
}

// InterpreterPaths is what a command that uses this interpreter through a
// virtual environment needs read-only besides the environment itself.
func InterpreterPaths(exe string) ([]string, error) {
	abs, err := filepath.Abs(exe)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", exe, err)
	}
	var out []string
	for _, p := range ExecutablePaths(abs, "") {
		if !withinAny(p, systemPaths) {
			out = append(out, p)
		}
	}
	return out, nil
}
