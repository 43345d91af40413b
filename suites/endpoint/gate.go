package endpoint

import (
	"context"
	"sync"
	"time"
)

// GateConfig bounds a gate. Zero means the default.
type GateConfig struct {
	Min   int // 1
	Start int // 8
	Max   int // 512
	Now   func() time.Time
}

// Gate holds how many requests are in flight near what the server can work on
// at once, which it finds out by itself.
//
// It begins by doubling. Every window (as many answers as are allowed in flight,
// at least 100 ms) compares the work done per second with that of the window
// before: where more in flight brought hardly more work, the server's capacity is
// found, and the excess, which would only wait in the server's queue, is taken
// back. From then on it probes with small steps, up and down alike. A refusal
// (429 or a failing server) cuts the limit by three tenths, once per window, and
// the limit grows back the same way.
type Gate struct {
	c  GateConfig
	mu sync.Mutex

	limit    int
	inFlight int
	waiters  []chan struct{}

	doubling bool
	full     bool // the limit was reached in this window
	cut      bool // it was cut in this window
	since    time.Time
	answers  int
	work     float64
	rate     float64 // work per second of the window before
	before   int     // limit in the window before
	hold     int     // windows without a probe
}

// NewGate returns a gate.
func NewGate(c GateConfig) *Gate {
	c.Min = max(c.Min, 1)
	if c.Max == 0 {
		c.Max = 512
	}
	c.Max = max(c.Max, c.Min)
	if c.Start == 0 {
		c.Start = 8
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	g := &Gate{c: c, limit: min(max(c.Start, c.Min), c.Max), doubling: true}
	g.before, g.since = g.limit, c.Now()
	return g
}

// Acquire waits for a place. Each is given back with [Gate.Release].
func (g *Gate) Acquire(ctx context.Context) error {
	g.mu.Lock()
	if g.inFlight < g.limit && len(g.waiters) == 0 {
		g.take()
		g.mu.Unlock()
		return nil
	}
	g.full = true
	w := make(chan struct{})
	g.waiters = append(g.waiters, w)
	g.mu.Unlock()
	select {
	case <-w:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w: // the place came in the same moment
		g.inFlight--
		g.wake()
	default:
		for i, o := range g.waiters {
			if o == w {
				g.waiters = append(g.waiters[:i], g.waiters[i+1:]...)
				break
			}
		}
	}
	return context.Cause(ctx)
}

func (g *Gate) take() {
	g.inFlight++
	if g.inFlight >= g.limit {
		g.full = true
	}
}

func (g *Gate) wake() {
	for g.inFlight < g.limit && len(g.waiters) > 0 {
		w := g.waiters[0]
		g.waiters = g.waiters[1:]
		g.take()
		close(w)
	}
}

// Feedback is how a request went.
type Feedback struct {
	Refused bool // throttled, or the server failed
	Work    int64
}

// Release gives a place back. Work is what was done for it, such as its tokens.
func (g *Gate) Release(f Feedback) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if f.Refused {
		g.refused()
	} else {
		g.answers++
		g.work += float64(max(f.Work, 1))
		g.window()
	}
	g.wake()
}

// refused cuts the limit, once per window.
func (g *Gate) refused() {
	g.doubling = false
	if g.cut {
		return
	}
	g.cut = true
	g.limit = max(g.c.Min, g.limit*7/10)
	g.hold = 2
	g.restart()
}

func (g *Gate) restart() {
	g.since, g.answers, g.work, g.full = g.c.Now(), 0, 0, g.inFlight >= g.limit
}

// window ends a window when it is long enough, and sets the next one's limit.
func (g *Gate) window() {
	const least = 100 * time.Millisecond
	d := g.c.Now().Sub(g.since)
	if g.answers < g.limit || d < least {
		return
	}
	g.cut = false
	rate := g.work / d.Seconds()
	was, limit := g.before, g.limit
	prev := g.rate
	g.rate, g.before = rate, limit
	switch {
	case !g.full: // too little to do to tell
		g.rate = 0
	case prev == 0 || limit == was:
		g.step(limit, false)
	default:
		// Of what the change in the limit could have brought, how much did it?
		gain := (rate/prev - 1) / (float64(limit)/float64(was) - 1)
		g.step(limit, gain < 0.2)
	}
	g.restart()
}

// step moves the limit on, or back where the last move brought nothing.
func (g *Gate) step(limit int, useless bool) {
	switch {
	case useless && g.doubling:
		g.doubling = false
		g.limit, g.hold = max(limit*3/4, g.c.Min), 2
	case useless && limit > g.c.Min:
		// Going down costs nothing either way: where it does, the next window says so
		// and the limit comes back.
		g.limit, g.hold = max(limit-max(limit/16, 1), g.c.Min), 4
	case g.doubling:
		g.limit = min(limit*2, g.c.Max)
	case g.hold > 0:
		g.hold--
	default:
		g.limit = min(limit+max(limit/8, 1), g.c.Max)
	}
}

// Limit returns how many requests may be in flight.
func (g *Gate) Limit() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit
}
