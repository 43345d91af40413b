package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/repromill/repromill/suites/load/wire"
)

// Prompter makes the body of a request. Body must be safe for use by many
// goroutines, and give another prompt for every other seed.
type Prompter interface {
	Body(r Request) (body []byte, promptSHA string, err error)
}

// Sender sends a body and reports what comes; [wire.Client] is one.
type Sender interface {
	Do(ctx context.Context, body []byte, event func(data []byte, at int64) error) (wire.Answer, error)
}

// Router chooses an endpoint for a request, and learns from answers. Calls come
// from many goroutines.
type Router interface {
	Route(r Request) (endpoint int, pool string)
	Done(r Request, rec *Record)
}

// Config says how a schedule is sent.
type Config struct {
	Clock     wire.Clock
	Endpoints []Sender
	Prompts   Prompter
	Router    Router           // nil sends everything to the first endpoint
	Timeout   time.Duration    // of one request, 0 for 30 minutes
	Drain     time.Duration    // open loop: how long after the last arrival answers are waited for, 0 for Timeout
	MaxOpen   int              // requests in flight at most, 0 for no bound; what waits for it is counted from its intended time
	Lag       *Lag             // gathers how late stamped events were read; may be nil
	Observe   func(*Record)    // called with each finished record, from many goroutines; may be nil
	Now       func() time.Time // of day, nil for time.Now; it tells when the machine slept
	Files     int              // that may be opened, 0 for what the system allows, less a reserve
}

// Result is a cell as it was measured.
type Result struct {
	Schedule Schedule
	Began    time.Time // of day, the cell's start
	Elapsed  time.Duration
	Records  []*Record // in the schedule's order; what was never begun is missing
	Stopped  bool      // by the user, before the schedule was over
	Slept    time.Duration
	Peak     int // most requests in flight
	Files    int // bound on requests in flight by files that may be open; 0 for none
	Waited   int // requests that waited for that bound
	Client   Health
}

// Run sends a schedule and returns when all answers are over. When ctx ends it
// stops, and what was measured until then is returned; the error is nil then,
// too. Errors are those of a config or of prompts.
func Run(ctx context.Context, cfg Config, s Schedule) (*Result, error) {
	if len(cfg.Endpoints) == 0 || cfg.Prompts == nil {
		return nil, errors.New("run cell: no endpoint or no prompts")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Minute
	}
	if cfg.Drain == 0 {
		cfg.Drain = cfg.Timeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &cell{Config: cfg, s: s, records: make([]*Record, len(s.Requests))}
	if err := c.bound(); err != nil {
		return nil, err
	}
	var err error
	if c.bodies, err = prepare(ctx, cfg.Prompts, s); err != nil {
		return nil, err
	}
	watch := startHealth()
	began, day := time.Now(), cfg.Now().Round(0)
	c.epoch = cfg.Clock.At(began)
	reqCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if s.Mode == Open {
		c.open(ctx, reqCtx, stop)
	} else {
		c.closed(ctx, reqCtx)
	}
	end := cfg.Clock.Now()
	res := &Result{Schedule: s, Began: day, Elapsed: time.Duration(end - c.epoch), Stopped: ctx.Err() != nil, Peak: int(c.peak.Load()), Files: c.files, Waited: int(c.waited.Load()), Client: watch.stop()}
	// The wall clock goes on while a machine sleeps, the monotonic one does not.
	res.Slept = max(0, cfg.Now().Round(0).Sub(day)-res.Elapsed)
	for _, r := range c.records {
		if r != nil {
			res.Records = append(res.Records, r)
		}
	}
	return res, nil
}

// prepare makes the bodies before the clock runs: making them costs time that
// the measurement must not see. Large schedules are made in pieces, see cell.
func prepare(ctx context.Context, p Prompter, s Schedule) (*bodies, error) {
	b := &bodies{p: p, reqs: s.Requests, made: make([]body, len(s.Requests))}
	var size int64
	for i := range s.Requests {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := b.make(i); err != nil {
			return nil, fmt.Errorf("make prompt %d: %w", i, err)
		}
		if size += int64(len(b.made[i].data)); size > maxPrepared {
			break // the rest is made when it is sent
		}
	}
	return b, nil
}

// maxPrepared bounds the memory of the bodies that wait.
const maxPrepared = 256 << 20

type body struct {
	data []byte
	sha  string
}

type bodies struct {
	p    Prompter
	reqs []Request
	made []body
}

func (b *bodies) make(i int) error {
	data, sha, err := b.p.Body(b.reqs[i])
	b.made[i] = body{data, sha}
	return err
}

// take hands out a body, once.
func (b *bodies) take(i int) (body, error) {
	if b.made[i].data == nil {
		if err := b.make(i); err != nil {
			return body{}, err
		}
	}
	out := b.made[i]
	b.made[i].data = nil
	return out, nil
}

type cell struct {
	Config
	s       Schedule
	bodies  *bodies
	epoch   int64
	records []*Record
	slots   chan struct{}
	files   int // bound by files, where that is what slots hold
	waited  atomic.Int64
	flying  atomic.Int64
	peak    atomic.Int64
}

// open sends each request at its time, whatever became of those before it.
func (c *cell) open(ctx, reqCtx context.Context, stop context.CancelCauseFunc) {
	var wg sync.WaitGroup
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		wire.FineTimers()
		for i, r := range c.s.Requests {
			// Long gaps are slept in pieces, so that the user can stop.
			at := c.epoch + int64(r.At)
			for ctx.Err() == nil && at-c.Clock.Now() > int64(100*time.Millisecond) {
				c.Clock.SleepUntil(c.Clock.Now() + int64(50*time.Millisecond))
			}
			if ctx.Err() != nil {
				return
			}
			c.Clock.SleepUntil(at)
			wg.Add(1)
			go func() {
				defer wg.Done()
				c.one(reqCtx, i, int64(r.At), -1)
			}()
		}
	}()
	<-sent
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	t := time.NewTimer(c.Drain)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		stop(errDrain)
		<-done
	case <-ctx.Done():
		<-done
	}
}

var errDrain = errors.New("the cell was over")

// closed keeps Concurrency requests in flight.
func (c *cell) closed(ctx, reqCtx context.Context) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range min(c.s.Concurrency, len(c.s.Requests)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(c.s.Requests) || ctx.Err() != nil {
					return
				}
				c.one(reqCtx, i, c.Clock.Now()-c.epoch, w)
			}
		}()
	}
	wg.Wait()
}

func (c *cell) one(ctx context.Context, i int, intended int64, worker int) {
	req := c.s.Requests[i]
	rec := newRecord(i, req)
	rec.Intended, rec.Worker, rec.Warmup = intended, worker, i < c.s.Warmup
	// The record is written last, so that a reader of the slice sees it whole.
	defer func() {
		c.records[i] = rec
		if c.Router != nil {
			c.Router.Done(req, rec)
		}
		if c.Observe != nil {
			c.Observe(rec)
		}
	}()
	if c.slots != nil {
		if err := c.slot(ctx); err != nil {
			rec.Status, rec.Error = Cancelled, err.Error()
			return
		}
		defer func() { <-c.slots }()
	}
	b, err := c.bodies.take(i)
	if err != nil {
		rec.Status, rec.Error = Failed, err.Error()
		return
	}
	rec.PromptSHA = b.sha
	if c.Router != nil {
		rec.Endpoint, rec.Pool = c.Router.Route(req)
	}
	n := c.flying.Add(1)
	defer c.flying.Add(-1)
	for p := c.peak.Load(); n > p && !c.peak.CompareAndSwap(p, n); p = c.peak.Load() {
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
	defer cancel()
	a := answer{rec: rec, epoch: c.epoch, lag: c.Lag}
	w, err := c.Endpoints[rec.Endpoint].Do(ctx, b.data, a.event)
	c.finish(rec, w, err)
}

var errTimeout = errors.New("the request took longer than it may")

func (c *cell) finish(rec *Record, w wire.Answer, err error) {
	at := func(ns int64) int64 {
		if ns == 0 {
			return -1
		}
		return ns - c.epoch
	}
	rec.Start, rec.Sent, rec.Headers, rec.FirstByte, rec.End = at(w.Start), at(w.Sent), at(w.Headers), at(w.FirstByte), at(w.End)
	rec.HTTP, rec.Retries = w.Status, w.Retries
	rec.SendLag = rec.Start - rec.Intended
	switch {
	case errors.Is(err, errTimeout) || errors.Is(err, wire.ErrIdle):
		rec.Status = TimedOut
	case errors.Is(err, errDrain) || errors.Is(err, context.Canceled):
		rec.Status = Cancelled
	case errors.Is(err, io.ErrUnexpectedEOF) && rec.FirstChoice >= 0:
		rec.Status = Incomplete
	case err != nil:
		rec.Status = Failed
	case w.Status != 200:
		rec.Status, rec.Error = Failed, fmt.Sprintf("HTTP %d: %s", w.Status, clip(w.Body))
	case rec.Finish == "": // some servers leave [DONE] out
		rec.Status, rec.Error = Incomplete, "the stream ended without a finish reason"
	default:
		rec.Status = OK
	}
	if err != nil {
		rec.Error = err.Error()
	}
}
