package wire

import (
	"time"

	"golang.org/x/sys/unix"
)

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Now().UnixNano()
	}
	return ts.Nano()
}

// SleepUntil returns at time ns of the clock or shortly after: the thread sleeps
// in the kernel, whose timers are finer than the runtime's millisecond. The
// caller has its thread to itself (runtime.LockOSThread).
func (c Clock) SleepUntil(ns int64) {
	for {
		d := ns - c.Now()
		if d <= 0 {
			return
		}
		ts := unix.NsecToTimespec(d)
		_ = unix.Nanosleep(&ts, nil) // woken early by a signal, it sleeps on
	}
}

// FineTimers asks the kernel to wake this thread within a microsecond of the
// time it asked for, instead of the usual fifty.
func FineTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0) }
