package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/repromill/repromill/runner/collect"
	"github.com/repromill/repromill/runner/store"
)

// spendEvery is how often the spend of a running attempt is written down: what
// a kill of the driver may lose of it before the executor is asked again.
const spendEvery = 15 * time.Second

// record is an attempt as the store keeps it: what was asked for, so that any
// later process can submit it again, and what was seen.
type record struct {
	Attempt Attempt `json:"attempt"`
}

// attempt submits an attempt, or adopts it, and waits for its end. It does
// nothing when the store knows the end already.
func (d *drive) attempt(ctx context.Context, a Attempt) (Status, error) {
	key := a.Key.String()
	rec, known := d.attempts[key]
	if known && rec.Final {
		return decodeStatus(rec)
	}
	if err := d.check(ctx); err != nil {
		return Status{}, err
	}
	if !known {
		body, err := json.Marshal(record{a})
		if err != nil {
			return Status{}, fmt.Errorf("encode attempt: %w", err)
		}
		rec = store.Attempt{Key: key, RunID: a.Key.RunID, Stage: a.Key.Stage, Arm: a.Key.Arm, Shard: a.Key.Shard, N: a.Key.N, Spec: body}
		err = d.cfg.Store.PutAttempt(ctx, rec, event(a.Key.Stage, PhaseChanged, phaseData(rec, Status{Phase: Pending})))
		if err != nil {
			return Status{}, err
		}
		d.attempts[key] = rec
	} else {
		var r record
		if err := json.Unmarshal(rec.Spec, &r); err != nil {
			return Status{}, fmt.Errorf("decode attempt %s: %w", key, err)
		}
		a = r.Attempt
	}
	var st Status
	err := d.submit(ctx, &rec, a)
	if err == nil {
		st, err = d.await(ctx, &rec, a)
	}
	if err != nil && errors.Is(context.Cause(ctx), ErrLeave) {
		return st, err
	}
	if err != nil && ctx.Err() != nil {
		// Wherever the context's end struck, the command may be running.
		return st, d.interrupt(ctx, &rec)
	}
	return st, err
}

func decodeStatus(rec store.Attempt) (st Status, err error) {
	if err := json.Unmarshal(rec.Status, &st); err != nil {
		return st, fmt.Errorf("decode status of %s: %w", rec.Key, err)
	}
	return st, nil
}

// submit gives the attempt to the executor, which adopts what it has, and
// stores the handle. It is done once by every driver: a handle alone does not
// say that anything began before the machine went down.
func (d *drive) submit(ctx context.Context, rec *store.Attempt, a Attempt) error {
	known := rec.Handle
	err := d.step(stepSubmit, func() error {
		h, err := d.exec.Submit(ctx, a)
		if err == nil {
			rec.Handle = string(h)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("submit %s: %w", rec.Key, err)
	}
	if rec.Handle == known {
		return nil
	}
	if err := d.cfg.Store.SetHandle(ctx, rec.Key, rec.Handle); err != nil {
		return err
	}
	d.attempts[rec.Key] = *rec
	return nil
}

func phaseData(rec store.Attempt, st Status) map[string]any {
	m := map[string]any{"attempt": rec.Key, "arm": rec.Arm, "shard": rec.Shard, "n": rec.N, "phase": st.Phase}
	if st.Reason != "" {
		m["reason"] = st.Reason
	}
	if st.Message != "" {
		m["message"] = st.Message
	}
	if st.Phase.Final() {
		m["exit_code"] = st.ExitCode
	}
	return m
}

// await observes until the end. That the executor cannot look changes nothing
// but the phase that is shown.
func (d *drive) await(ctx context.Context, rec *store.Attempt, a Attempt) (Status, error) {
	seen := Status{Phase: Pending}
	if len(rec.Status) > 0 {
		var err error
		if seen, err = decodeStatus(*rec); err != nil {
			return seen, err
		}
	}
	wait := d.cfg.PollMin
	saved, stopping, blind := d.cfg.Now(), false, false
	clock := stopwatch{now: d.cfg.Now, inherited: d.inherited[rec.Key], before: rec.Spend.WallSeconds}
	for {
		st, err := d.exec.Observe(ctx, Handle(rec.Handle))
		switch {
		case ctx.Err() != nil:
			return seen, ctx.Err()
		case err != nil:
			if !blind {
				blind = true
				lost := phaseData(*rec, Status{Phase: Unknown, Message: err.Error()})
				if err := d.cfg.Store.Append(ctx, d.run.ID, event(rec.Stage, PhaseChanged, lost)); err != nil {
					return seen, err
				}
			}
		default:
			clock.see(st)
			changed := blind || st.Phase != seen.Phase || st.Reason != seen.Reason || st.Detail != seen.Detail
			blind = false
			if changed || d.cfg.Now().Sub(saved) >= spendEvery {
				if err := d.observed(ctx, rec, a, st, clock.seconds(st), changed); err != nil {
					return st, err
				}
				seen, saved = st, d.cfg.Now()
			}
			if st.Phase.Final() {
				return st, nil
			}
			rec.Spend = d.spend(a, st, clock.seconds(st))
			d.attempts[rec.Key] = *rec
			if err := d.between(ctx, rec); err != nil {
				return seen, err
			}
		}
		if !stopping && d.capReached() != "" {
			stopping = true
			if err := d.step(stepCancel, func() error { return d.exec.Cancel(ctx, Handle(rec.Handle)) }); err != nil {
				return seen, fmt.Errorf("stop %s: %w", rec.Key, err)
			}
			wait = d.cfg.PollMin
		}
		if err := d.cfg.Sleep(ctx, wait); err != nil {
			return seen, err
		}
		wait = min(wait*3/2, d.cfg.PollMax)
	}
}

// observed stores a status with what was spent so far.
func (d *drive) observed(ctx context.Context, rec *store.Attempt, a Attempt, st Status, wall float64, changed bool) error {
	body, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	rec.Status, rec.Final, rec.Spend = body, st.Phase.Final(), d.spend(a, st, wall)
	var events []store.Event
	if changed {
		events = append(events, event(rec.Stage, PhaseChanged, phaseData(*rec, st)))
	}
	if rec.Spend.WallSeconds > 0 && (rec.Final || !changed) {
		events = append(events, event(rec.Stage, CostSeen, struct {
			Attempt string `json:"attempt"`
			store.Spend
		}{rec.Key, rec.Spend}))
	}
	if err := d.cfg.Store.SetStatus(ctx, d.run.ID, rec.Key, body, rec.Final, rec.Spend, events...); err != nil {
		return err
	}
	d.attempts[rec.Key] = *rec
	return nil
}

// spend is what an attempt has used: its wall time, times its GPUs, times the
// price of a GPU-hour.
func (d *drive) spend(a Attempt, st Status, wall float64) store.Spend {
	s := store.Spend{WallSeconds: wall, GPUHours: wall * float64(a.GPUs) / 3600}
	if st.Usage.GPUHours > 0 {
		s.GPUHours = st.Usage.GPUHours
	}
	s.USD = s.GPUHours * d.priceOf(st.Placement.SKU)
	return s
}

// priceOf is USD for an hour of a GPU. One whose price is not known costs as much
// as the dearest that is, so that a cap in money always holds.
func (d *drive) priceOf(sku string) float64 {
	if price, known := d.cfg.PriceUSDPerGPUHour[sku]; known {
		return price
	}
	return d.dearest()
}

func (d *drive) dearest() (price float64) {
	for _, p := range d.cfg.PriceUSDPerGPUHour {
		price = max(price, p)
	}
	return price
}

// stopwatch measures how long an attempt has run, by this process's own
// monotonic clock: a machine whose clock is set must not use up a cap.
type stopwatch struct {
	now       func() time.Time
	inherited bool
	before    float64 // seconds that earlier drivers measured
	since     time.Time
}

// see notes when the attempt is first seen running. What an attempt of an
// earlier driver ran before that is known by the wall clock only.
func (w *stopwatch) see(st Status) {
	if st.Phase != Running || !w.since.IsZero() {
		return
	}
	w.since = w.now()
	if w.inherited && !st.Started.IsZero() {
		w.before = max(w.before, w.since.Sub(st.Started).Seconds())
	}
}

func (w *stopwatch) seconds(st Status) float64 {
	switch {
	case st.Phase.Final():
		return endedSeconds(st)
	case st.Usage.WallSeconds > 0:
		return st.Usage.WallSeconds
	case w.since.IsZero():
		return w.before
	}
	return w.before + w.now().Sub(w.since).Seconds()
}

// endedSeconds is how long an ended attempt ran, as the executor measured it.
func endedSeconds(st Status) float64 {
	if st.Usage.WallSeconds > 0 {
		return st.Usage.WallSeconds
	}
	if st.Started.IsZero() {
		return 0
	}
	return max(0, st.Finished.Sub(st.Started).Seconds())
}

// interrupt stops an attempt because the caller's context has ended. Should
// even that fail, the attempt stays open and a resume adopts it.
func (d *drive) interrupt(ctx context.Context, rec *store.Attempt) error {
	bg, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	return errors.Join(ctx.Err(), d.stopAttempt(bg, rec))
}

// stopAttempt cancels an open attempt and stores its end. An attempt whose
// handle was not stored is submitted once more to get it: the executor adopts
// what it has, and starts nothing that it does not stop again right away.
func (d *drive) stopAttempt(ctx context.Context, rec *store.Attempt) error {
	var r record
	if err := json.Unmarshal(rec.Spec, &r); err != nil {
		return fmt.Errorf("decode attempt %s: %w", rec.Key, err)
	}
	if rec.Handle == "" {
		if err := d.submit(ctx, rec, r.Attempt); err != nil {
			return err
		}
	}
	if err := d.step(stepCancel, func() error { return d.exec.Cancel(ctx, Handle(rec.Handle)) }); err != nil {
		return fmt.Errorf("stop %s: %w", rec.Key, err)
	}
	for {
		st, err := d.exec.Observe(ctx, Handle(rec.Handle))
		if err == nil && st.Phase.Final() {
			return d.observed(ctx, rec, r.Attempt, st, endedSeconds(st), true)
		}
		if serr := d.cfg.Sleep(ctx, d.cfg.PollMin); serr != nil {
			return errors.Join(fmt.Errorf("wait for the end of %s: %w", rec.Key, serr), err)
		}
	}
}

// retried records that a piece of work is tried again, and why.
func (d *drive) retried(ctx context.Context, next AttemptKey, last Status) error {
	if _, known := d.attempts[next.String()]; known {
		return nil
	}
	return d.cfg.Store.Append(ctx, d.run.ID, event(next.Stage, StageRetried,
		map[string]any{"attempt": next.String(), "n": next.N, "cause": last.Reason, "message": last.Message}))
}

// total is what all attempts of the run have used, of earlier drivers too.
func (d *drive) total() (s store.Spend) {
	for _, a := range d.attempts {
		s.WallSeconds += a.Spend.WallSeconds
		s.GPUHours += a.Spend.GPUHours
		s.USD += a.Spend.USD
	}
	return s
}

// capReached says which cap is used up, empty when none is.
func (d *drive) capReached() string { return d.req.Caps.reached(d.total()) }

// reached says which cap a spend uses up, empty when it uses up none.
func (c Caps) reached(s store.Spend) string {
	switch {
	case c.Wall > 0 && s.WallSeconds >= c.Wall.Seconds():
		return fmt.Sprintf("the cap of %s wall time is used up", c.Wall)
	case c.GPUHours > 0 && s.GPUHours >= c.GPUHours:
		return fmt.Sprintf("the cap of %g GPU-hours is used up", c.GPUHours)
	case c.USD > 0 && s.USD >= c.USD:
		return fmt.Sprintf("the cap of %g USD is used up", c.USD)
	}
	return ""
}

// left are the caps after a spend that reaches none of them. What is bounded stays
// bounded.
func (c Caps) left(s store.Spend) Caps {
	if c.Wall > 0 {
		c.Wall = max(1, c.Wall-time.Duration(s.WallSeconds*float64(time.Second)))
	}
	if c.GPUHours > 0 {
		c.GPUHours = max(1e-9, c.GPUHours-s.GPUHours)
	}
	if c.USD > 0 {
		c.USD = max(1e-9, c.USD-s.USD)
	}
	return c
}

// wallLimit bounds an attempt so that the caps hold even while no driver
// watches; the price is that of the dearest GPU.
func (d *drive) wallLimit(timeout time.Duration, gpus int) time.Duration {
	limit := timeout
	if limit == 0 {
		limit = d.cfg.Limits.Wall
	}
	s, c := d.total(), d.req.Caps
	lower := func(seconds float64) {
		// A second more, so that the driver, where there is one, is first and
		// names the cap.
		if w := time.Duration((max(0, seconds) + 1) * float64(time.Second)); limit == 0 || w < limit {
			limit = w
		}
	}
	if c.Wall > 0 {
		lower(c.Wall.Seconds() - s.WallSeconds)
	}
	if c.GPUHours > 0 && gpus > 0 {
		lower((c.GPUHours - s.GPUHours) * 3600 / float64(gpus))
	}
	if price := d.dearest(); c.USD > 0 && gpus > 0 && price > 0 {
		lower((c.USD - s.USD) * 3600 / float64(gpus) / price)
	}
	return limit
}

// statusWords names an end in words.
func statusWords(st Status) string {
	switch st.Reason {
	case ReasonExit:
		return fmt.Sprintf("the command ended with code %d", st.ExitCode)
	case ReasonTimeout:
		return "the command was stopped by its time limit"
	case ReasonOutputLimit:
		return "the command was stopped, since it wrote too much"
	case ReasonResource:
		return "the command was stopped by a resource limit"
	case ReasonSignal:
		return "the command was killed"
	case ReasonStart:
		return "the command could not be started"
	case ReasonLost:
		return "the command was lost"
	case ReasonCancelled:
		return "the command was stopped"
	case ReasonWrongSKU:
		return "the command was given another GPU model than the plan is for"
	}
	if st.Phase == Succeeded {
		return ""
	}
	return "the command ended as " + string(st.Phase)
}

// failure says why an attempt did not end well, with the executor's message or
// the last line that the command wrote to its standard error.
func failure(st Status) string {
	words := statusWords(st)
	if words == "" {
		return ""
	}
	if st.Message != "" && st.Reason != ReasonExit {
		return words + ": " + st.Message
	}
	if lines := tailLines(st.Stderr, 8<<10); len(lines) > 0 {
		return words + ": " + lines[len(lines)-1]
	}
	return words
}

// tailLines returns the non-empty lines of the end of a file, made fit to be
// shown. A file that cannot be read has none.
func tailLines(path string, n int64) (out []string) {
	for line := range bytes.Lines(tail(path, n)) {
		if s := collect.Clean(string(line)); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// tail returns the last n bytes of a file, nothing when it cannot be read.
func tail(path string, n int64) []byte {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	} else if info.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return nil
	}
	return b
}
