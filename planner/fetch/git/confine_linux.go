package git

import (
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// dieWithParent has the kernel kill the child when its parent is gone.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// addressSpace is what this process has mapped, most of it reserved by the Go
// runtime and never touched (proc(5), statm).
func addressSpace() (uint64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("measure address space: %w", err)
	}
	var pages uint64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		return 0, fmt.Errorf("measure address space: %w", err)
	}
	return pages * uint64(os.Getpagesize()), nil
}

// confine takes from this process, for good, all it does not need: memory,
// processor time and file size beyond the request's limits, every file but the
// stage and the repository it reads, and TCP. Landlock is used as far as the
// kernel has it.
func confine(req *workRequest) error {
	l := req.Limits
	mapped, err := addressSpace()
	if err != nil {
		return err
	}
	cpu := uint64(2*l.Time.Seconds()) + 1
	for _, r := range []struct {
		what string
		id   int
		max  uint64
	}{
		{"address space", unix.RLIMIT_AS, mapped + uint64(l.MemoryBytes)},
		{"processor time", unix.RLIMIT_CPU, cpu},
		{"file size", unix.RLIMIT_FSIZE, uint64(max(req.spoolLimit(), l.TransferBytes))},
		{"core size", unix.RLIMIT_CORE, 0},
	} {
		if err := unix.Setrlimit(r.id, &unix.Rlimit{Cur: r.max, Max: r.max}); err != nil {
			return fmt.Errorf("limit %s: %w", r.what, err)
		}
	}
	debug.SetMemoryLimit(l.MemoryBytes / 2)
	var rules []landlock.Rule
	if req.Dir != "" {
		rules = append(rules, landlock.RWDirs(req.Dir))
	}
	if req.Repo != nil {
		rules = append(rules, landlock.RODirs(req.Repo.folders()...).IgnoreIfMissing())
	}
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("restrict file access: %w", err)
	}
	return nil
}
