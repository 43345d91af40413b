//go:build !linux

package wire

import "time"

func monotonic() int64 { return time.Now().UnixNano() }

// SleepUntil returns at time ns of the clock or shortly after.
func (c Clock) SleepUntil(ns int64) { time.Sleep(time.Duration(ns - c.Now())) }

// FineTimers does nothing on this system.
func FineTimers() {}
