//go:build !linux

package git

import (
	"fmt"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent has no counterpart here: the child ends when it finds its
// pipes closed.
func dieWithParent() *syscall.SysProcAttr { return nil }

// confine limits processor time and file size; this system has neither Landlock
// nor a limit on address space that the Go runtime can live with.
func confine(req *workRequest) error {
	l := req.Limits
	for _, r := range []struct {
		what string
		id   int
		max  uint64
	}{
		{"processor time", unix.RLIMIT_CPU, uint64(2*l.Time.Seconds()) + 1},
		{"file size", unix.RLIMIT_FSIZE, uint64(max(req.spoolLimit(), l.TransferBytes))},
		{"core size", unix.RLIMIT_CORE, 0},
	} {
		if err := unix.Setrlimit(r.id, &unix.Rlimit{Cur: r.max, Max: r.max}); err != nil {
			return fmt.Errorf("limit %s: %w", r.what, err)
		}
	}
	debug.SetMemoryLimit(l.MemoryBytes / 2)
	return nil
}
