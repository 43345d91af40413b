//go:build unix

package load

import (
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
