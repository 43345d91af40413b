package docker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/sandbox"
)

// The labels of a container.
const (
	LabelOwner = "dev.repromill.attempts" // the folder that the attempt lies in
	labelKey   = "dev.repromill.key"
	labelRun   = "dev.repromill.run"
	labelStage = "dev.repromill.stage"
)

// Defaults of runner.Limits, and of what a container is given besides.
const (
	defaultWall        = 24 * time.Hour
	defaultOutputBytes = 64 << 20
	defaultProcesses   = 4096
	defaultFileBytes   = 64 << 30
	defaultDiskBytes   = 64 << 30
	defaultID          = 65532
)

func firstPositive[T int | int64 | time.Duration](values ...T) T {
	for _, v := range values {
		if v > 0 {
			return v
		}
	}
	return 0
}

func fill(l, defaults runner.Limits, memory int64) runner.Limits {
	l.Wall = firstPositive(l.Wall, defaults.Wall, defaultWall)
	l.OutputBytes = firstPositive(l.OutputBytes, defaults.OutputBytes, defaultOutputBytes)
	l.MemoryBytes = firstPositive(l.MemoryBytes, defaults.MemoryBytes, memory*3/4)
	l.Processes = firstPositive(l.Processes, defaults.Processes, defaultProcesses)
	l.FileBytes = firstPositive(l.FileBytes, defaults.FileBytes, defaultFileBytes)
	l.DiskBytes = firstPositive(l.DiskBytes, defaults.DiskBytes, defaultDiskBytes)
	return l
}

// record decides everything about an attempt and refuses what can never run.
func (e *Executor) record(ctx context.Context, eng *engine.Engine, info engine.Info, at attempt, a runner.Attempt) (record, error) {
	a.Limits = fill(a.Limits, e.cfg.Limits, info.MemoryBytes)
	if a.Image == "" {
		a.Image = e.cfg.Image
	}
	if a.Image == "" {
		return record{}, &UnsuitableError{"no image is configured for attempts that name none", "set docker.image to one with Python, such as python:3.11-slim"}
	}
	if err := validate(a); err != nil {
		return record{}, fmt.Errorf("submit %s: %w", a.Key, err)
	}
	if a.GPUs > 0 && !slices.Contains(info.Runtimes, "nvidia") {
		return record{}, &UnsuitableError{"it hands out no GPUs", "install nvidia-container-toolkit and run `sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"}
	}
	if _, err := eng.InspectImage(ctx, a.Image); err != nil {
		return record{}, imageError(a.Image, err)
	}
	rec := record{Key: a.Key.String(), Submitted: e.cfg.Now().UTC(), Attempt: a, Engine: info.ID, Container: at.container(), Private: e.cfg.AllowPrivate}
	rec.Sandbox = []string{"container", "userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroup", "uid", "capabilities", "no_new_privileges", "readonly_root", "rlimit"}
	if !info.Rootless && !info.UserNSRemap {
		rec.Sandbox = slices.DeleteFunc(rec.Sandbox, func(s string) bool { return s == "userns" })
	}
	if info.Seccomp {
		rec.Sandbox = append(rec.Sandbox, "seccomp")
	} else {
		rec.Missing = append(rec.Missing, "the engine filters no system calls (seccomp)")
	}
	for what, held := range map[string]bool{"memory": info.MemoryLimit, "swap": info.SwapLimit, "processes": info.PidsLimit} {
		if !held {
			rec.Missing = append(rec.Missing, "the engine cannot bound "+what)
		}
	}
	slices.Sort(rec.Missing)
	rec.Missing = append(rec.Missing, "the kernel is shared with this machine")
	return rec, nil
}

// validate refuses what could never run. A read-only name that leads through a
// symlink below a writable path could be the work of an earlier attempt.
func validate(a runner.Attempt) error {
	spec := sandbox.Spec{Argv: a.Argv, Dir: a.Dir, Env: a.Env, Writable: a.Writable, ReadOnly: a.ReadOnly}
	if err := spec.Validate(); err != nil {
		return err
	}
	for _, p := range slices.Concat(a.Writable, a.ReadOnly, []string{a.Dir}) {
		for _, no := range []string{"/proc", "/sys", "/dev", supervisor.Root} {
			if within(p, no) {
				return &sandbox.SpecError{What: fmt.Sprintf("path %q cannot be given to a container", p), Fix: "use a folder outside of " + no}
			}
		}
	}
	for at, from := range a.Alias {
		if !filepath.IsAbs(at) || filepath.Clean(at) != at || within(at, supervisor.Root) ||
			!slices.ContainsFunc(slices.Concat(a.Writable, a.ReadOnly), func(p string) bool { return within(from, p) }) {
			return &sandbox.SpecError{What: fmt.Sprintf("%q cannot be shown as %q in a container", from, at), Fix: "name a path that the attempt may use"}
		}
	}
	for _, p := range slices.Concat(a.ReadOnly, []string{a.Dir}) {
		real, err := filepath.EvalSymlinks(p)
		if err == nil && real != p && slices.ContainsFunc(a.Writable, func(w string) bool { return within(p, w) }) {
			return &sandbox.SpecError{What: fmt.Sprintf("path %q leads through a symlink to %q", p, real), Fix: "name the folder itself"}
		}
	}
	return nil
}

func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// owner is the user in a container. An ordinary caller's files stay the
// caller's. A rootless engine's root is the caller too, and nobody else's files
// could be removed by the caller afterwards.
func (e *Executor) owner(info engine.Info) owner {
	switch uid := os.Geteuid(); {
	case info.Rootless:
		return owner{0, 0, false}
	case uid != 0:
		return owner{uid, os.Getegid(), false}
	}
	return owner{firstPositive(e.cfg.UID, defaultID), firstPositive(e.cfg.GID, defaultID), true}
}

// container is the attempt with everything taken away that it does not need.
func (e *Executor) container(info engine.Info, at attempt, rec record) engine.Container {
	a, own := rec.Attempt, e.owner(info)
	mounts := []engine.Mount{
		{Source: e.cfg.Program, Target: supervisor.InitPath, ReadOnly: true},
		{Source: at.Path(fileSpec), Target: supervisor.SpecPath, ReadOnly: true},
		{Source: at.Path(dirOut), Target: supervisor.OutDir},
		{Source: at.Path(dirHome), Target: supervisor.HomeDir},
	}
	if len(a.Network.Hosts) > 0 {
		mounts = append(mounts, engine.Mount{Source: at.Path(dirNet), Target: supervisor.NetDir, ReadOnly: true})
	}
	tmpfs := map[string]string{"/tmp": fmt.Sprintf("rw,exec,nosuid,nodev,mode=1777,size=%d", max(a.Limits.MemoryBytes/4, 64<<20))}
	for _, list := range []struct {
		paths    []string
		readOnly bool
	}{{a.Writable, false}, {a.ReadOnly, true}} {
		for _, p := range list.paths {
			mounts = append(mounts, engine.Mount{Source: p, Target: p, ReadOnly: list.readOnly})
			if within(p, "/root") { // which images close to everybody but root
				tmpfs["/root"] = "rw,nosuid,nodev,mode=0755,size=64k"
			}
		}
	}
	for _, at := range slices.Sorted(maps.Keys(a.Alias)) {
		from := a.Alias[at]
		writable := slices.ContainsFunc(a.Writable, func(w string) bool { return within(from, w) })
		mounts = append(mounts, engine.Mount{Source: from, Target: at, ReadOnly: !writable})
	}
	return engine.Container{
		Name: rec.Container, Image: a.Image, Entrypoint: append([]string{supervisor.InitPath}, e.cfg.ProgramArgs...), Dir: "/",
		User: fmt.Sprintf("%d:%d", own.uid, own.gid), Hostname: "repromill", HostUserNS: info.UserNSRemap,
		Labels: map[string]string{
			LabelOwner: filepath.Dir(at.Dir), labelKey: rec.Key, labelRun: a.Key.RunID, labelStage: a.Key.Stage,
		},
		Mounts: mounts, Tmpfs: tmpfs, ReadOnlyRoot: true, CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"},
		Network: "none", IPC: "private", NoLog: true,
		MemoryBytes: a.Limits.MemoryBytes + supervisor.ReserveBytes, ShmBytes: max(a.Limits.MemoryBytes/2, 64<<20),
		Processes: int64(a.Limits.Processes + supervisor.Reserve), CPUs: e.cfg.CPUs, GPUs: a.GPUs,
		OOMScoreAdj: 500,
	}
}

func (e *Executor) placement(info engine.Info, rec record) runner.Placement {
	host, _ := os.Hostname()
	p := runner.Placement{Node: host, Sandbox: rec.Sandbox, Missing: rec.Missing}
	if rec.Attempt.GPUs == 0 {
		p.SKU = "cpu"
	}
	return p
}

func imageError(image string, err error) error {
	return fmt.Errorf("image %s: %w", image, err)
}

// startError explains why the engine could not start a container. It names
// our own binary only where the engine does not see this machine's files.
func startError(rec record, err error) error {
	msg := err.Error()
	switch {
	case strings.Contains(msg, supervisor.InitPath) && strings.Contains(msg, "no such file"), strings.Contains(msg, "bind source path does not exist"):
		return &UnsuitableError{"it does not see this machine's files (" + msg + ")", "run repromill on the engine's machine and outside of containers, or keep its state in a folder that both see (REPROMILL_STATE)"}
	case strings.Contains(msg, "could not select device driver"), strings.Contains(msg, "nvidia-container-cli"):
		return &UnsuitableError{"it cannot hand out GPUs (" + msg + ")", "check `nvidia-smi` and nvidia-container-toolkit on this machine"}
	}
	return fmt.Errorf("submit %s: %w", rec.Key, err)
}
