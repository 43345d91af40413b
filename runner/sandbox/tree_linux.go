package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// descendants lists the processes below pid, parents first.
func descendants(pid int) []int {
	var out []int
	queue := []int{pid}
	seen := map[int]bool{pid: true}
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p))
		for _, l := range lists {
			b, err := os.ReadFile(l)
			if err != nil {
				continue
			}
			for _, f := range bytes.Fields(b) {
				c, err := strconv.Atoi(string(f))
				if err == nil && !seen[c] {
					seen[c] = true
					out = append(out, c)
					queue = append(queue, c)
				}
			}
		}
	}
	return out
}

// sweepDescendants kills everything below pid, which is this process and a
// subreaper, until nothing is left. Everything is stopped before it is killed,
// so that a process that forks without end loses the race.
func sweepDescendants(pid int) {
	for range 10000 {
		kids := descendants(pid)
		if len(kids) == 0 {
			return
		}
		for _, k := range kids {
			unix.Kill(k, unix.SIGSTOP)
		}
		for _, k := range kids {
			unix.Kill(k, unix.SIGKILL)
		}
		for {
			got, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if got <= 0 || err != nil {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// SweepOrphans kills all descendants of this process. Only a process that has
// no children but a sandbox may call it, once the sandbox has ended.
func SweepOrphans() { sweepDescendants(os.Getpid()) }

// AdoptOrphans makes the orphans of this process's descendants its own
// children, so that [SweepOrphans] finds them.
func AdoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

// resident sums the memory of processes in bytes: all of it, and what is not
// shared with a file or another process.
func resident(pids []int) (all, own int64) {
	page := int64(os.Getpagesize())
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p))
		if err != nil {
			continue
		}
		f := bytes.Fields(b)
		if len(f) < 3 {
			continue
		}
		rss, _ := strconv.ParseInt(string(f[1]), 10, 64)
		shared, _ := strconv.ParseInt(string(f[2]), 10, 64)
		all += rss * page
		own += max(rss-shared, 0) * page
	}
	return all, own
}

// threads counts the threads of the processes.
func threads(pids []int) int {
	n := 0
	for _, p := range pids {
		t, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p))
		n += len(t)
	}
	return n
}

// startTime is the process's start in clock ticks since boot, which together
// with its pid names it for good (proc_pid_stat(5), field 22); state is its
// state letter. ok is false when there is no such process.
func startTime(pid int) (ticks uint64, state byte, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// The name, field 2, may hold anything but ends at the last parenthesis.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, 0, false
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 {
		return 0, 0, false
	}
	ticks, err = strconv.ParseUint(string(f[19]), 10, 64)
	return ticks, f[0][0], err == nil
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b))
}

// Remains names what may be left of a sandbox whose parent died. It can be
// stored and swept by another process.
type Remains struct {
	Boot    string   `json:"boot,omitempty"` // the machine's boot; nothing remains after another one
	Init    int      `json:"init,omitempty"` // pid of the first process
	Ticks   uint64   `json:"ticks,omitempty"`
	Cgroups []string `json:"cgroups,omitempty"`
}

// Plan names what a sandbox of that name may leave before its BeforeRun is
// called, so that a caller can store it before the sandbox starts.
func Plan(name string) Remains {
	r := Remains{Boot: bootID()}
	v2, v1 := planCgroup(name)
	if v2 != "" {
		r.Cgroups = append(r.Cgroups, v2)
	}
	for _, dir := range v1 {
		r.Cgroups = append(r.Cgroups, dir)
	}
	return r
}

// Sweep kills what is left and returns when nothing is.
func (r Remains) Sweep(ctx context.Context) error {
	if r.Boot != "" && r.Boot != bootID() {
		return nil
	}
	begin := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		left := false
		if r.alive() {
			// The first process takes its tree along: through its pid
			// namespace, or by sweeping when its parent's socket closes. It is
			// given time for the second before it is killed.
			left = true
			if time.Since(begin) > killGrace {
				r.kill()
			}
		}
		for _, dir := range r.Cgroups {
			left = !removeCgroup(dir) || left
		}
		if !left {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sweep what a dead worker left: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}

// alive reports whether the first process is there and not merely unburied.
func (r Remains) alive() bool {
	ticks, state, ok := startTime(r.Init)
	return r.Init > 0 && ok && ticks == r.Ticks && state != 'Z' && state != 'X'
}

// kill ends the first process, and no other that has its pid by now.
func (r Remains) kill() {
	fd, err := unix.PidfdOpen(r.Init, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if r.alive() {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
