// Package sandbox runs one untrusted command in the strongest isolation that
// the machine allows, and says in words what that isolation does not cover.
//
// There are three layers, tried in this order by [Probe]:
//
//   - [Namespaces]: own user, mount, pid, network, IPC and UTS namespaces with
//     a private root that holds read-only system folders, the caller's
//     read-only and writable paths at their own names, a fresh /proc, a minimal
//     /dev and a /tmp in memory. No network but the allow-listing proxy.
//     Landlock, seccomp, rlimits and cgroups are added where the kernel has them.
//   - [Landlock]: the same command in the machine's own namespaces, confined by
//     Landlock, seccomp and rlimits.
//   - [None]: nothing is isolated; only a caller that was told so by the user
//     asks for it. The environment is scrubbed and nothing outlives the run.
//
// The command never runs through a shell, its standard input is /dev/null, it
// inherits no file descriptor and no environment variable, and when the caller
// is root it runs under an unprivileged uid with no capability.
//
// The first process of a sandbox is this program again ([Config].Init, which
// must call [InitMain]): it sets the sandbox up from the inside, starts the
// command, reaps orphans, and takes everything down when its parent is gone.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner/sandbox/proxy"
)

// Layer is a kind of isolation.
type Layer string

// The layers, from the strongest to none. Auto takes the strongest that works.
const (
	Auto       Layer = ""
	Namespaces Layer = "namespaces"
	Landlock   Layer = "landlock"
	None       Layer = "none"
)

// Config is what the program decides once. Only Init is required.
type Config struct {
	// Init is the command line that runs [InitMain] in this program.
	Init []string `json:"init"`
	// Layer forces a layer; Auto probes.
	Layer Layer `json:"layer,omitempty"`
	// NoUserNS leaves the user namespace out of the namespaces layer; only
	// root can do that. Probe sets it where the kernel refuses one to root.
	NoUserNS bool `json:"no_userns,omitempty"`
	// UID and GID are the command's when the caller is root; 0 means 65532.
	UID int `json:"uid,omitempty"`
	GID int `json:"gid,omitempty"`
	// TmpBytes bounds the private /tmp; 0 means 2 GiB.
	TmpBytes int64 `json:"tmp_bytes,omitempty"`
}

const (
	defaultID       = 65532
	defaultTmpBytes = 2 << 30
	maxEnvBytes     = 1 << 20
)

func (c Config) uid() int {
	if c.UID > 0 {
		return c.UID
	}
	return defaultID
}

func (c Config) gid() int {
	if c.GID > 0 {
		return c.GID
	}
	return defaultID
}

func (c Config) tmpBytes() int64 {
	if c.TmpBytes > 0 {
		return c.TmpBytes
	}
	return defaultTmpBytes
}

// Spec is one command.
type Spec struct {
	// Name names kernel objects and must be this sandbox's alone on the
	// machine; letters, digits and '-'.
	Name string
	Argv []string
	// Dir is the absolute working directory.
	Dir string
	// Env is added to PATH, HOME, TMPDIR and LANG and overrides them.
	Env map[string]string
	// Writable and ReadOnly are absolute, existing paths that keep their names
	// inside. Writable ones hold no symlink in their names and are handed over
	// to the command's uid when the caller is root (see chown in this package
	// for what is left alone). A symlink in a read-only name is followed,
	// unless it lies below a writable path: no other may be the work of
	// untrusted code.
	Writable []string
	ReadOnly []string
	// Scratch is an empty folder of the caller's that serves as home and
	// temporary folder where there is no private root.
	Scratch string
	// Proxy, when not nil, is the only way out.
	Proxy  *proxy.Config
	Limits Limits
	// GPUs above 0 makes the machine's NVIDIA devices visible.
	GPUs int
	// Stdout and Stderr are the write ends given to the command.
	Stdout, Stderr *os.File
	// BeforeRun is called when everything stands and the command has not
	// started; an error from it ends the sandbox. Remains is what has to be
	// swept should the caller die.
	BeforeRun func(Placement, Remains) error
}

// Limits bound the resources of a command; 0 is no bound.
type Limits struct {
	MemoryBytes int64 `json:"memory_bytes,omitempty"` // all processes together
	Processes   int   `json:"processes,omitempty"`    // processes and threads together
	FileBytes   int64 `json:"file_bytes,omitempty"`   // one file
}

// Resource names a limit that was hit.
type Resource string

// The limits that end a command.
const (
	Memory    Resource = "memory"
	Processes Resource = "processes"
	FileSize  Resource = "file_size"
)

// Result is how the command ended. Exactly one of StartError, Signal and Code
// tells; Limit is set besides when a limit was the cause.
type Result struct {
	Code        int
	Signal      int // the signal that ended the command, 0 when it exited
	StartError  string
	Limit       Resource
	CPUSeconds  float64
	MaxRSSBytes int64 // the largest total seen, never below the largest process
	Started     time.Time
	Finished    time.Time
}

// Placement says which layers hold and what they leave open.
type Placement struct {
	Layers  []string // "userns","mountns","pidns","netns","ipcns","utsns","landlock","seccomp","cgroup","uid","rlimit"; or "none"
	Missing []string
}

// Capabilities is what [Probe] found.
type Capabilities struct {
	Layer       Layer    `json:"layer"` // the strongest that works; None when nothing does
	UserNS      bool     `json:"userns"`
	LandlockABI int      `json:"landlock_abi"` // 0 where the kernel has none
	Seccomp     bool     `json:"seccomp"`
	Cgroups     []string `json:"cgroups"`            // controllers this process can limit with: "memory", "pids"
	Problems    []string `json:"problems,omitempty"` // why a stronger layer does not work, and what to do
}

// Apply returns the config that makes use of what was found.
func (c Capabilities) Apply(cfg Config) Config {
	if cfg.Layer == Auto {
		cfg.Layer = c.Layer
		cfg.NoUserNS = c.Layer == Namespaces && !c.UserNS
	}
	return cfg
}

// UnavailableError says that nothing isolates on this machine.
type UnavailableError struct{ Problems []string }

func (e *UnavailableError) Error() string {
	return "no sandbox works on this machine: " + strings.Join(e.Problems, "; ") + "; " + e.UserError()
}

// UserError returns the way out.
func (e *UnavailableError) UserError() string {
	return "allow unprivileged user namespaces or Landlock, use another executor, or accept the risk with --no-sandbox"
}

// SpecError is a command that cannot be sandboxed as it was asked for.
type SpecError struct{ What, Fix string }

func (e *SpecError) Error() string { return e.What + "; " + e.Fix }

// UserError returns the fix.
func (e *SpecError) UserError() string { return e.Fix }

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is the command's whole environment, sorted.
func environ(home, tmp, proxyURL string, given map[string]string) []string {
	env := map[string]string{"PATH": defaultPath, "HOME": home, "TMPDIR": tmp, "LANG": "C.UTF-8"}
	if proxyURL != "" {
		for _, k := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
			env[k] = proxyURL
		}
	}
	for k, v := range given {
		env[k] = v
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// Validate refuses what could never run, before anything is started.
func (s *Spec) Validate() error {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return &SpecError{"the command is empty", "give at least the program's name"}
	}
	for _, a := range s.Argv {
		if strings.ContainsRune(a, 0) {
			return &SpecError{fmt.Sprintf("argument %q holds a NUL byte", a), "remove it"}
		}
	}
	size := 0
	for k, v := range s.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return &SpecError{fmt.Sprintf("environment variable %q is malformed", k), "names hold no '=', and neither names nor values hold a NUL byte"}
		}
		size += len(k) + len(v) + 2
	}
	if size > maxEnvBytes {
		return &SpecError{fmt.Sprintf("the environment is %d bytes long", size), fmt.Sprintf("keep it under %d", maxEnvBytes)}
	}
	for _, p := range slices.Concat(s.Writable, s.ReadOnly, []string{s.Dir}) {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
			return &SpecError{fmt.Sprintf("path %q cannot be given to a sandbox", p), "use a clean absolute path below /"}
		}
		if _, err := os.Stat(p); err != nil {
			return &SpecError{fmt.Sprintf("path %q cannot be used: %v", p, errors.Unwrap(err)), "create it first, or correct it"}
		}
	}
	for _, p := range s.Writable {
		if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
			return &SpecError{fmt.Sprintf("writable path %q leads through a symlink to %q", p, real), "resolve the folder's name once, before any untrusted code could write there, and use that"}
		}
	}
	return nil
}

// within reports whether p is dir or lies below it; both are clean.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

func withinAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return within(p, d) })
}
