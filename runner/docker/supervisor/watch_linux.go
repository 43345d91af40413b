package supervisor

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/runner/capture"
)

// How often limits are looked at. Walking the folders never takes more than a
// twentieth of the time.
const (
	tick        = 100 * time.Millisecond
	diskTick    = 2 * time.Second
	diskShare   = 20
	minFreeDisk = 64 << 20 // below this much room nothing works any more, for anybody
)

// watch ends the command when a limit is passed.
func (v *supervisor) watch(out *capture.Capture, ended <-chan struct{}) {
	wall := time.NewTimer(v.spec.Wall)
	defer wall.Stop()
	poll := time.NewTicker(tick)
	defer poll.Stop()
	nextDisk := time.Now().Add(diskTick)
	full := out.Full
	for {
		select {
		case <-ended:
			return
		case <-wall.C:
			v.end(Timeout)
		case <-full:
			v.end(Output)
			full = nil
		case <-poll.C:
			v.rss.add(resident())
			if v.spec.Processes > 0 && (pidsCurrent() > v.spec.Processes+Reserve/2 || pidsRefused()) {
				v.end(Processes)
			}
			if now := time.Now(); now.After(nextDisk) {
				v.checkDisk()
				nextDisk = time.Now().Add(max(diskTick, diskShare*time.Since(now)))
			}
		}
	}
}

func (v *supervisor) checkDisk() {
	if v.spec.DiskBytes > 0 && diskUse(v.watched())-v.base > v.spec.DiskBytes {
		v.end(Disk)
		return
	}
	for _, dir := range v.watched() {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && int64(st.Bavail)*st.Bsize < min(minFreeDisk, int64(st.Blocks)*st.Bsize/20) {
			v.end(DiskFull)
			return
		}
	}
}

// watched are the folders that may grow.
func (v *supervisor) watched() []string {
	return append([]string{OutDir, HomeDir}, v.spec.Writable...)
}

// diskUse adds up what the folders take on disk, each file once.
func diskUse(dirs []string) (sum int64) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone, or closed by the command: its parent shows in the free space
			}
			info, err := d.Info()
			if err != nil {
				return nil
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return nil
			}
			if st.Nlink > 1 && !d.IsDir() {
				key := inode{uint64(st.Dev), st.Ino}
				if seen[key] {
					return nil
				}
				seen[key] = true
			}
			sum += st.Blocks * 512
			return nil
		})
	}
	return sum
}

// peak is the largest value seen.
type peak struct {
	mu  sync.Mutex
	max int64
}

func (p *peak) add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max = max(p.max, n)
}

func (p *peak) get() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.max
}

// resident sums the memory of all processes but this one, in bytes.
func resident() (sum int64) {
	page := int64(os.Getpagesize())
	entries, err := os.ReadDir("/proc")
	if err != nil || len(entries) > 2000 {
		return 0
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/statm")
		if f := bytes.Fields(b); err == nil && len(f) > 1 {
			n, _ := strconv.ParseInt(string(f[1]), 10, 64)
			sum += n * page
		}
	}
	return sum
}

// cgroupRoot is where a container sees its own control group: one folder in
// version 2, one per controller in version 1.
const cgroupRoot = "/sys/fs/cgroup"

// counter reads one value of a file of "name value" lines.
func counter(file, name string) int64 {
	b, err := os.ReadFile(filepath.Join(cgroupRoot, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// pidsRefused reports whether the kernel refused to make a process.
func pidsRefused() bool {
	return counter("pids.events", "max")+counter("pids/pids.events", "max") > 0
}

// pidsCurrent counts processes and threads, this one's too.
func pidsCurrent() int {
	for _, file := range []string{"pids.current", "pids/pids.current"} {
		if b, err := os.ReadFile(filepath.Join(cgroupRoot, file)); err == nil {
			n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			return n
		}
	}
	return 0
}
