//go:build unix

package load

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func procs() int { return runtime.GOMAXPROCS(0) }

func cpuSeconds() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	sec := func(t unix.Timeval) float64 { return float64(t.Nano()) / 1e9 }
	return sec(u.Utime) + sec(u.Stime)
}

// freeFiles is how many more files this process may open.
func freeFiles() (n int, known bool) {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, false
	}
	used := 16
	if open, err := os.ReadDir("/dev/fd"); err == nil {
		used = len(open)
	}
	return int(min(uint64(l.Cur), 1<<30)) - used, true
}

func peakRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10 // elsewhere it is in KiB
}
