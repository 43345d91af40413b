package wire

import "time"

// Clock counts nanoseconds that never go back. On Linux they are those of
// CLOCK_MONOTONIC, so that two processes of one machine may subtract each
// other's.
type Clock struct {
	start time.Time
	base  int64
}

// NewClock returns a clock that runs.
func NewClock() Clock {
	before := time.Now()
	base := monotonic()
	return Clock{start: before.Add(time.Since(before) / 2), base: base}
}

// Now is the time in nanoseconds.
func (c Clock) Now() int64 { return c.base + int64(time.Since(c.start)) }

// At is what Now gave, or will give, at a time of this process.
func (c Clock) At(t time.Time) int64 { return c.base + int64(t.Sub(c.start)) }

// Wall is the time of day at which Now gives ns.
func (c Clock) Wall(ns int64) time.Time { return c.start.Add(time.Duration(ns - c.base)).Round(0) }
