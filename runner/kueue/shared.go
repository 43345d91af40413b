package kueue

import (
	"context"
	"sync"
	"time"
)

// shared is the fleet that an executor's observers have together. One or two
// attempts are looked at with requests of their own; from a few on, one watch
// of all is cheaper for both sides.
type shared struct {
	mu    sync.Mutex
	live  map[string]time.Time // Jobs that somebody asked for lately
	fleet *Fleet
	stop  context.CancelFunc
	idle  *time.Timer
}

// watchFrom is how many live Jobs are worth a watch, and idleTime is how long
// it goes on when nobody asks any more.
const (
	watchFrom = 4
	idleTime  = 5 * time.Minute
)

// of returns the fleet that a Job may be looked up in, nil for none.
func (s *shared) of(e *Executor, job string) *Fleet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fleet != nil {
		s.idle.Reset(idleTime)
		return s.fleet
	}
	now := e.cfg.Now()
	if s.live == nil {
		s.live = map[string]time.Time{}
	}
	s.live[job] = now
	for name, t := range s.live {
		if now.Sub(t) > time.Minute {
			delete(s.live, name)
		}
	}
	if len(s.live) < watchFrom {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	s.live, s.stop, s.fleet = nil, stop, newFleet(e.c, e.cfg.Now)
	s.fleet.start(ctx)
	s.idle = time.AfterFunc(idleTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stop()
		s.fleet = nil
	})
	return s.fleet
}

// glance looks at the objects of a Job in the shared picture where that is up
// to date and shows the Job at work, and else at the cluster. Whatever ends an
// attempt is never decided on a picture alone, whose parts may be of different
// moments.
func (e *Executor) glance(ctx context.Context, name string, m made) (Observed, error) {
	f := e.shared.of(e, name)
	if f == nil || f.Fresh() != nil {
		return e.observe(ctx, name, m)
	}
	o, ok := f.Observed(name)
	if !ok || m.Job != "" && o.Job.UID != m.Job {
		return e.observe(ctx, name, m)
	}
	p := PhaseOf(o)
	switch p.State {
	case Queued, Preempted, Blocked, Unmanaged, Provisioning, Starting, Running:
	default:
		return e.observe(ctx, name, m)
	}
	if p.Evictions >= e.cfg.MaxEvictions || overdue(o) {
		return e.observe(ctx, name, m)
	}
	if o.Workload != nil && (p.State == Queued || p.State == Preempted) {
		o.Position = at(f.Positions(ctx, e.cfg.Queue), o.Workload.Metadata.Name)
	}
	return o, nil
}
