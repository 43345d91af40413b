package cli

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// giveWay lets other programs of this machine go first, so that a server which
// shares the processors of those that time it does not keep them waiting. It asks
// for its share of time in long slices, which the scheduler interrupts for whoever
// asks for short ones, as everybody else does (EEVDF; slices since Linux 6.12,
// sched_setattr(2)). Its share stays the same: on a busy machine it is late, and
// not starved. What the kernel refuses is left as it is.
func giveWay() {
	const slice = 100 * time.Millisecond // the longest there is
	for done := map[string]bool{}; ; {
		tasks, _ := os.ReadDir("/proc/self/task")
		fresh := false
		for _, t := range tasks {
			id, err := strconv.Atoi(t.Name())
			if err != nil || done[t.Name()] {
				continue
			}
			// A thread that comes meanwhile is the child of one of either kind.
			done[t.Name()], fresh = true, true
			if attr, err := unix.SchedGetAttr(id, 0); err == nil && (attr.Policy == unix.SCHED_NORMAL || attr.Policy == unix.SCHED_BATCH) {
				attr.Runtime = uint64(slice)
				_ = unix.SchedSetAttr(id, attr, 0)
			}
		}
		if !fresh {
			return
		}
	}
}
