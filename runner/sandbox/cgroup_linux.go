package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroup limits a tree of processes. Version 2 has one folder for all
// controllers, version 1 one per controller (cgroups(7)).
type cgroup struct {
	v2     string            // folder in the unified hierarchy, or empty
	v1     map[string]string // controller to folder
	limits Limits
}

// hierarchies finds this process's own folder in every mounted hierarchy.
func hierarchies() (v2 string, v1 map[string]string) {
	own := map[string]string{} // controller, "" for version 2, to path
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 {
			for _, c := range strings.Split(f[1], ",") {
				own[c] = f[2]
			}
		}
	}
	v1 = map[string]string{}
	m, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", v1
	}
	defer m.Close()
	for sc := bufio.NewScanner(m); sc.Scan(); {
		// 36 35 98:0 /root /mount opts … - type source superopts (proc_pid_mountinfo(5))
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		root, mount := l[3], l[4]
		switch r[0] {
		case "cgroup2":
			if p, ok := own[""]; ok {
				v2 = under(mount, root, p)
			}
		case "cgroup":
			for _, c := range strings.Split(r[2], ",") {
				if p, ok := own[c]; ok && (c == "memory" || c == "pids") {
					v1[c] = under(mount, root, p)
				}
			}
		}
	}
	return v2, v1
}

// under translates a cgroup's path to where it is mounted.
func under(mount, root, p string) string {
	if rel, ok := strings.CutPrefix(p, root); ok && root != "/" {
		return filepath.Join(mount, rel)
	}
	return filepath.Join(mount, p)
}

// cgroupParent is a folder of the unified hierarchy in which a group can be
// made that limits memory and processes: this process's own, or the nearest
// ancestor that passes the controllers on and may be written.
func cgroupParent(own string) string {
	for dir := own; strings.HasPrefix(dir, "/sys/fs/cgroup"); dir = filepath.Dir(dir) {
		if unix.Access(dir, unix.W_OK) != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
			return ""
		}
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil {
			return ""
		}
		if hasAll(string(b)) {
			return dir
		}
		avail, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		// Refused with EBUSY where the group holds processes of its own.
		if hasAll(string(avail)) && os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids"), 0) == nil {
			return dir
		}
	}
	return ""
}

func hasAll(controllers string) bool {
	f := strings.Fields(controllers)
	return slices.Contains(f, "memory") && slices.Contains(f, "pids")
}

// cgroupPrefix marks the folders that this package makes, and removes.
const cgroupPrefix = "repromill-"

// planCgroup says where groups of that name would be made.
func planCgroup(name string) (v2 string, v1 map[string]string) {
	own, parents := hierarchies()
	if parent := cgroupParent(own); parent != "" {
		v2 = filepath.Join(parent, cgroupPrefix+name)
	}
	v1 = map[string]string{}
	for c, parent := range parents {
		v1[c] = filepath.Join(parent, cgroupPrefix+name)
	}
	return v2, v1
}

// newCgroup makes a group with the limits. A nil group means that none can be
// made here.
func newCgroup(name string, l Limits) *cgroup {
	v2, v1 := planCgroup(name)
	if v2 != "" {
		if err := os.Mkdir(v2, 0o755); err == nil {
			g := &cgroup{v2: v2, limits: l}
			if g.limitV2() == nil {
				return g
			}
			g.remove()
		}
	}
	g := &cgroup{v1: map[string]string{}, limits: l}
	for c, dir := range v1 {
		if os.Mkdir(dir, 0o755) == nil {
			g.v1[c] = dir
		}
	}
	if len(g.v1) == 0 {
		return nil
	}
	if err := g.limitV1(); err != nil {
		g.remove()
		return nil
	}
	return g
}

func (g *cgroup) limitV2() error {
	if g.limits.MemoryBytes > 0 {
		if err := writeValue(g.v2, "memory.max", g.limits.MemoryBytes); err != nil {
			return err
		}
		writeValue(g.v2, "memory.swap.max", 0) // absent without swap accounting
		writeValue(g.v2, "memory.oom.group", 1)
	}
	if g.limits.Processes > 0 {
		return writeValue(g.v2, "pids.max", int64(g.limits.Processes))
	}
	return nil
}

func (g *cgroup) limitV1() error {
	if dir := g.v1["memory"]; dir != "" && g.limits.MemoryBytes > 0 {
		if err := writeValue(dir, "memory.limit_in_bytes", g.limits.MemoryBytes); err != nil {
			return err
		}
		writeValue(dir, "memory.memsw.limit_in_bytes", g.limits.MemoryBytes) // absent without swap accounting
	}
	if dir := g.v1["pids"]; dir != "" && g.limits.Processes > 0 {
		return writeValue(dir, "pids.max", int64(g.limits.Processes))
	}
	return nil
}

func writeValue(dir, file string, v int64) error {
	// Not os.WriteFile, which would create the file on a file system that is
	// no cgroup at all.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer f.Close()
	if _, err := f.WriteString(strconv.FormatInt(v, 10)); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func (g *cgroup) dirs() []string {
	if g == nil {
		return nil
	}
	if g.v2 != "" {
		return []string{g.v2}
	}
	var out []string
	for _, c := range []string{"memory", "pids"} {
		if d := g.v1[c]; d != "" {
			out = append(out, d)
		}
	}
	return out
}

// controllers names what the group limits.
func (g *cgroup) controllers() []string {
	switch {
	case g == nil:
		return nil
	case g.v2 != "":
		return []string{"memory", "pids"}
	}
	var out []string
	for _, c := range []string{"memory", "pids"} {
		if g.v1[c] != "" {
			out = append(out, c)
		}
	}
	return out
}

// add puts a process into the group; its future children are born there.
func (g *cgroup) add(pid int) error {
	for _, d := range g.dirs() {
		if err := writeValue(d, "cgroup.procs", int64(pid)); err != nil {
			return err
		}
	}
	return nil
}

// hit reports which limit the kernel has enforced so far, if any.
func (g *cgroup) hit() Resource {
	if g == nil {
		return ""
	}
	memory, memoryFile, pids := g.v2, "memory.events", g.v2
	if g.v2 == "" {
		memory, memoryFile, pids = g.v1["memory"], "memory.oom_control", g.v1["pids"]
	}
	switch {
	case memory != "" && counter(filepath.Join(memory, memoryFile), "oom_kill") > 0:
		return Memory
	case pids != "" && counter(filepath.Join(pids, "pids.events"), "max") > 0:
		return Processes
	}
	return ""
}

// counter reads one "name value" line.
func counter(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 2 && string(f[0]) == name {
			v, _ := strconv.ParseInt(string(f[1]), 10, 64)
			return v
		}
	}
	return 0
}

func (g *cgroup) remove() {
	for _, d := range g.dirs() {
		removeCgroup(d)
	}
}

// removeCgroup kills what is in the folder and removes it; it reports whether
// the folder is gone. Only folders that this package made are touched.
func removeCgroup(dir string) bool {
	if !strings.HasPrefix(filepath.Base(dir), cgroupPrefix) {
		return true
	}
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return true
	}
	if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) != nil {
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, f := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(f)); err == nil && pid > 1 {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	return unix.Rmdir(dir) == nil
}
