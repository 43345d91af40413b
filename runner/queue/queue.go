// Package queue drives the runs that were submitted to a server. What waits is
// in the store and follows from the states of the runs, so a queue has no state
// of its own: after a kill the next one goes on with the same runs, and nothing
// is lost or done twice.
package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/store"
)

// Driver takes a run as far as it goes; [runner.Runner] is one.
type Driver interface {
	Drive(ctx context.Context, id string) (runner.Outcome, error)
}

// Config is what a Queue works with. Store and Driver are needed.
type Config struct {
	Store  *store.Store
	Driver Driver
	// Approve is asked for a planned run whose submitter approved it in advance.
	Approve func(ctx context.Context, w store.Waiting) error

	Planning  int            // runs planned at once; 0 means 4
	Executing map[string]int // runs executed at once, by queue; 0 means 1
	Poll      time.Duration  // between looks at the store; 0 means 1 s
	Grace     time.Duration  // at the end, for drivers to finish before they leave; 0 is none
	Log       *slog.Logger   // nil is silent
}

// Queue drives submitted runs.
type Queue struct {
	cfg  Config
	kick chan struct{}

	mu      sync.Mutex
	driving map[string]string    // class of each run that is driven
	after   map[string]time.Time // not before, for runs that another process drives or that could not be driven
	tries   map[string]int
	slots   map[string]int
}

// New returns a queue that does nothing until Run.
func New(cfg Config) *Queue {
	if cfg.Planning == 0 {
		cfg.Planning = 4
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Queue{
		cfg: cfg, kick: make(chan struct{}, 1),
		driving: map[string]string{}, after: map[string]time.Time{}, tries: map[string]int{}, slots: map[string]int{},
	}
}

// Kick makes the queue look at once.
func (q *Queue) Kick() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// Driving returns how many runs are driven at this moment.
func (q *Queue) Driving() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.driving)
}

// planning is the class of runs that are not approved yet.
const planning = "plan"

// most bounds how much of the queue is looked at.
const most = 5000

// Run drives what waits until the context ends. Then it starts nothing more,
// gives the drivers the time of grace, and has them leave what they started for
// the next queue to adopt.
func (q *Queue) Run(ctx context.Context) {
	work, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	defer leave(nil)
	var wg sync.WaitGroup
	for ctx.Err() == nil {
		list, err := q.cfg.Store.Waiting(ctx, most)
		if err != nil && ctx.Err() == nil {
			q.cfg.Log.Error("the queue cannot be read", "error", err)
		}
		for _, w := range list {
			if class, ok := q.take(w); ok {
				wg.Go(func() {
					defer q.release(w.RunID, class)
					q.drive(work, w)
				})
			}
		}
		timer := time.NewTimer(q.cfg.Poll)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-q.kick:
		}
		timer.Stop()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	timer := time.NewTimer(q.cfg.Grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		leave(runner.ErrLeave)
		<-done
	}
}

// take gives a waiting run a place, if one is free.
func (q *Queue) take(w store.Waiting) (class string, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.driving[w.RunID]; ok || time.Now().Before(q.after[w.RunID]) {
		return "", false
	}
	class, limit := "queue "+w.Queue, max(1, q.cfg.Executing[w.Queue])
	if !w.Approved {
		class, limit = planning, q.cfg.Planning
	}
	if q.slots[class] >= limit {
		return "", false
	}
	q.slots[class]++
	q.driving[w.RunID] = class
	return class, true
}

func (q *Queue) release(id, class string) {
	q.mu.Lock()
	q.slots[class]--
	delete(q.driving, id)
	q.mu.Unlock()
	q.Kick()
}

// longest is the longest pause before a run is tried again that could neither
// be driven nor be marked as failed, such as on a full disk.
const longest = time.Minute

func (q *Queue) drive(ctx context.Context, w store.Waiting) {
	err := q.guarded(ctx, w)
	var driven *runner.DrivenError
	switch {
	case err == nil || ctx.Err() != nil:
		q.settle(w.RunID, 0)
		return
	case errors.As(err, &driven):
		q.settle(w.RunID, 5*time.Second)
		return
	}
	q.cfg.Log.Warn("run stopped by an error", "run", w.RunID, "error", err)
	q.mu.Lock()
	q.tries[w.RunID]++
	pause := min(longest, time.Second<<min(q.tries[w.RunID], 6))
	q.mu.Unlock()
	q.settle(w.RunID, pause)
}

func (q *Queue) settle(id string, pause time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if pause > 0 {
		q.after[id] = time.Now().Add(pause)
		return
	}
	delete(q.after, id)
	delete(q.tries, id)
}

// guarded drives a run; a defect that one input brings out fails that run alone.
func (q *Queue) guarded(ctx context.Context, w store.Waiting) (err error) {
	defer func() {
		if p := recover(); p != nil {
			q.cfg.Log.Error("panic while driving a run", "run", w.RunID, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("a defect of this program: %v", p)
			err = errors.Join(err, q.cfg.Store.SetState(context.WithoutCancel(ctx), w.RunID, store.Failed, err.Error()))
		}
	}()
	if w.State == store.Planned && !w.Approved && w.AutoApprove != "" {
		return q.cfg.Approve(ctx, w)
	}
	_, err = q.cfg.Driver.Drive(ctx, w.RunID)
	return err
}
