package harness

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
)

// task is one request to be made.
type task struct {
	unit, arm, pos, repeat int
	prompt                 suites.Prompt
}

// engine asks. Its fields below mu are guarded by it.
type engine struct {
	c      *Config
	l      *layout
	s      *state
	judged suites.Judged
	shas   []string // of the items
	gates  []*endpoint.Gate
	cancel context.CancelCauseFunc
	begun  time.Time
	worked time.Duration // by the processes before this one

	mu       sync.Mutex
	moved    *sync.Cond // something below changed
	done     []bool     // by cell
	scores   []float64  // by cell; NaN where the request failed
	frontier int        // units complete in all arms, from the first on
	observed int        // questions that the monitors have seen
	monitors []*compare.Monitor
	arms     []armState
	answers  int
	session  int // answers since this process began
	tokens   int64
	usd      float64
	stopped  string // why nothing more is sent
	err      error
}

// armState is what an arm is at.
type armState struct {
	inFlight int
	// held are failures that count only when the server answers a request that was
	// sent after them: until then the fault may be the server's.
	held []held
}

type held struct {
	t   task
	rec suites.Record
	at  time.Time
}

const (
	decided = "the comparison is decided"
	// maxFailures is how many requests of an arm may fail one after the other
	// before the server, and not the requests, is at fault.
	maxFailures = 20
)

var errDecided = errors.New(decided)

func newEngine(c *Config, l *layout, s *state) *engine {
	cells := l.units() * len(c.Arms)
	e := &engine{c: c, l: l, s: s, shas: make([]string, len(l.items)), done: make([]bool, cells), scores: make([]float64, cells), arms: make([]armState, len(c.Arms))}
	e.moved = sync.NewCond(&e.mu)
	e.judged, _ = c.Suite.(suites.Judged)
	for i, it := range l.items {
		e.shas[i] = it.SHA()
	}
	for a := range c.Arms {
		e.gates = append(e.gates, endpoint.NewGate(c.Gate))
		for u := 0; u < l.units() && !c.asks(a); u++ {
			e.done[c.cell(u, a)] = true // for all that this folder is to hold
		}
	}
	return e
}

// run asks what is left, and returns why it stopped before the last question.
func (e *engine) run(parent context.Context) (stopped string, err error) {
	if e.judged != nil && e.c.Judge == nil {
		return "", &UserError{fmt.Sprintf("suite %s needs a judge", e.c.Name), "name one with --judge URL"}
	}
	if err := e.begin(parent); err != nil {
		return "", err
	}
	if e.stopped == "" && e.frontier < e.l.units() {
		e.send(parent)
	}
	if e.err != nil {
		return "", e.err
	}
	if parent.Err() != nil {
		return "", context.Cause(parent)
	}
	return e.stopped, e.lookAll(parent, "after")
}

// begin takes up what is there.
func (e *engine) begin(ctx context.Context) error {
	e.worked = worked(e.s.looks)
	for a := range e.c.Arms {
		if !e.c.asks(a) {
			continue
		}
		if err := e.s.look(ctx, a, "before"); err != nil {
			return err
		}
		_, k := e.s.firstAndLast(e.c.Arms[a].Name)
		if n := k.Identity.MaxModelLen; n > 0 && e.c.Sampling.MaxTokens >= n {
			return &UserError{fmt.Sprintf("suite %s allows answers of %d tokens, but arm %s is served with a context of %d", e.c.Name, e.c.Sampling.MaxTokens, k.Arm, n),
				"serve it with a larger --max-model-len, or plan with a smaller --max-tokens for all arms"}
		}
	}
	if e.l.watch != nil {
		for range e.c.Arms[1:] {
			m, err := e.l.watch.Start(e.c.Terms.Options)
			if err != nil {
				return err
			}
			e.monitors = append(e.monitors, m)
		}
	}
	_, err := replay(e.c.Dir, e.s.looks, func(r suites.Record) error {
		pos, known := e.l.at[r.ItemID]
		a := e.c.arm(r.Arm)
		if !known || a < 0 || r.Repeat < 0 || r.Repeat >= e.l.repeats {
			return fmt.Errorf("take up answers: %+v is no question of this run", r.Key)
		}
		e.count(task{unit: e.l.index(pos, r.Repeat), arm: a, pos: pos}, r)
		return nil
	})
	e.advance()
	return err
}

// send runs everything that works at once, until all is answered or stopped.
func (e *engine) send(parent context.Context) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	e.cancel, e.begun = cancel, e.c.Now()
	unblock := context.AfterFunc(ctx, func() { e.mu.Lock(); e.moved.Broadcast(); e.mu.Unlock() })
	defer unblock()
	side, stopSide := context.WithCancel(ctx)
	var beside, requests, senders sync.WaitGroup
	beside.Go(func() { e.every(side, e.c.Check, func() { e.fail(e.lookAll(side, "between")) }) })
	beside.Go(func() { e.every(side, time.Second, e.report) })
	for a := range e.c.Arms {
		if !e.c.asks(a) {
			continue
		}
		senders.Go(func() { e.sender(ctx, a, &requests) })
	}
	senders.Wait()
	requests.Wait()
	stopSide()
	beside.Wait()
	e.report()
}

// every calls f again and again.
func (e *engine) every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}

func (e *engine) lookAll(ctx context.Context, moment string) error {
	for a := range e.c.Arms {
		if !e.c.asks(a) {
			continue
		}
		if err := e.s.look(ctx, a, moment); err != nil {
			return err
		}
	}
	return nil
}

// fail ends the run with its first error.
func (e *engine) fail(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil && e.stopped != decided && !errors.Is(err, errDecided) {
		e.err = err
		e.cancel(err)
	}
}

// sender sends the requests of one arm in the declared order.
func (e *engine) sender(ctx context.Context, a int, requests *sync.WaitGroup) {
	for u := range e.l.units() {
		if !e.mayPass(ctx, u, a) {
			break
		}
		if e.answered(u, a) {
			continue
		}
		if err := e.gates[a].Acquire(ctx); err != nil {
			break
		}
		t := task{unit: u, arm: a}
		t.pos, t.repeat = e.l.unit(u)
		var err error
		if !e.take(a) {
			e.gates[a].Release(endpoint.Feedback{})
			break
		} else if t.prompt, err = e.prompts(u); err == nil {
			err = e.s.send(u, a)
		}
		if err != nil {
			e.fail(err)
			e.leave(a)
			e.gates[a].Release(endpoint.Feedback{})
			break
		}
		requests.Go(func() { e.one(ctx, t) })
	}
	e.mu.Lock()
	for e.arms[a].inFlight > 0 {
		e.moved.Wait()
	}
	e.mu.Unlock()
	if ctx.Err() == nil {
		e.fail(e.letGo(a, time.Time{})) // nobody else will show whether the server was at fault
	}
}

func (e *engine) answered(u, a int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.done[e.c.cell(u, a)]
}

// mayPass waits until a unit is near enough to what is complete: one arm must not
// run ahead of the others, nor all of them of the decision. The distance leaves
// room for answers that take much longer than others.
func (e *engine) mayPass(ctx context.Context, u, a int) bool {
	ahead := 32
	if e.l.watch != nil {
		ahead = 8
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for ctx.Err() == nil && e.stopped == "" && u >= e.frontier+ahead*e.gates[a].Limit()+e.c.Terms.Look {
		if st := &e.arms[a]; st.inFlight == 0 && len(st.held) > 0 {
			e.mu.Unlock()
			err := e.letGo(a, time.Time{})
			e.mu.Lock()
			if err != nil {
				return false
			}
			continue
		}
		e.moved.Wait()
	}
	return ctx.Err() == nil && e.stopped == ""
}

// take begins a request, if the budget has room for it beside those in flight.
func (e *engine) take(a int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped != "" {
		return false
	}
	flying := 1
	for _, st := range e.arms {
		flying += st.inFlight
	}
	b, n := e.c.Budget, float64(max(e.answers, 1))
	switch {
	case b.Tokens > 0 && float64(e.tokens)*(1+float64(flying)/n) > float64(b.Tokens):
		e.stopped = fmt.Sprintf("the budget of %d tokens is used up", b.Tokens)
	case b.Wall > 0 && e.worked+e.c.Now().Sub(e.begun) >= b.Wall:
		e.stopped = fmt.Sprintf("the budget of %s is used up", b.Wall)
	case b.USD > 0 && e.usd*(1+float64(flying)/n) > b.USD:
		e.stopped = fmt.Sprintf("the budget of %g USD is used up", b.USD)
	default:
		e.arms[a].inFlight++
		return true
	}
	e.moved.Broadcast()
	return false
}

func (e *engine) leave(a int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.arms[a].inFlight--
	e.moved.Broadcast()
}

// one asks for one answer and makes it durable.
func (e *engine) one(ctx context.Context, t task) {
	defer e.leave(t.arm)
	sent := e.c.Now()
	rec, refused, err := e.ask(ctx, t)
	release := func() { e.gates[t.arm].Release(endpoint.Feedback{Refused: refused, Work: tokens(rec)}) }
	if b := e.c.Budget; b.Tokens > 0 || b.USD > 0 {
		defer release() // once it is counted: answers that wait for the disk must not overrun the budget
	} else {
		release()
	}
	switch {
	case err != nil:
		// A server that does not know its model any more may be another one.
		var f *endpoint.Error
		if errors.As(err, &f) && f.Fatal() {
			var void *VoidError
			if lerr := e.s.look(ctx, t.arm, "between"); errors.As(lerr, &void) {
				err = void
			}
		}
		e.fail(err)
	case rec.Error != "":
		e.hold(t, rec)
	default:
		if err := e.letGo(t.arm, sent); err != nil {
			e.fail(err)
		} else if err := e.accept(t, rec); err != nil {
			e.fail(err)
		}
	}
}

// accept makes a record durable and then counts it.
func (e *engine) accept(t task, rec suites.Record) error {
	if err := e.s.journal.Append(rec); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.session++
	e.count(t, rec)
	e.advance()
	e.moved.Broadcast()
	return nil
}

// hold keeps a failed request until the server has answered another.
func (e *engine) hold(t task, rec suites.Record) {
	e.mu.Lock()
	e.arms[t.arm].held = append(e.arms[t.arm].held, held{t, rec, e.c.Now()})
	n := len(e.arms[t.arm].held)
	e.mu.Unlock()
	if n >= maxFailures {
		e.fail(&UserError{fmt.Sprintf("the last %d requests to arm %s failed: %s", n, rec.Arm, rec.Error), "see what its server says, and take the run up again; none of these requests is counted"})
	}
}

// letGo counts the failures that were held back before a time, all with none.
func (e *engine) letGo(a int, before time.Time) error {
	e.mu.Lock()
	var list, rest []held
	for _, h := range e.arms[a].held {
		if before.IsZero() || h.at.Before(before) {
			list = append(list, h)
		} else {
			rest = append(rest, h)
		}
	}
	e.arms[a].held = rest
	e.mu.Unlock()
	for _, h := range list {
		if err := e.accept(h.t, h.rec); err != nil {
			return err
		}
	}
	return nil
}

// count enters a record into the tables.
func (e *engine) count(t task, rec suites.Record) {
	i := e.c.cell(t.unit, t.arm)
	if e.done[i] {
		return
	}
	e.done[i] = true
	e.answers++
	e.tokens += tokens(rec)
	e.usd += e.c.Arms[t.arm].usd(rec)
	e.scores[i] = math.NaN()
	if g := grade(e.c.Suite, e.l.items[t.pos], rec); g.Outcome != suites.Error {
		e.scores[i] = g.Score
	}
}

// advance moves over what is complete, and looks at whole questions.
func (e *engine) advance() {
	for e.frontier < e.l.units() && e.complete(e.frontier) {
		e.frontier++
	}
	if e.l.watch == nil || e.stopped == decided {
		return
	}
	for ; e.observed < e.l.questions(e.frontier); e.observed++ {
		open := 0
		for j, m := range e.monitors {
			if m.Verdict() == compare.Undecided {
				if p, ok := pair(e.l, e.c, e.scores, e.observed, j+1, e.frontier); ok {
					if err := m.Observe(p.Diff()); err != nil && e.err == nil { // scores are from 0 to 1
						e.err = err
					}
				}
			}
			if m.Verdict() == compare.Undecided {
				open++
			}
		}
		if open == 0 {
			e.stopped = decided
			if e.cancel != nil {
				e.cancel(errDecided)
			}
			return
		}
	}
}

func (e *engine) complete(u int) bool {
	for a := range e.c.Arms {
		if !e.done[e.c.cell(u, a)] {
			return false
		}
	}
	return true
}

// pair is a question in the baseline and in another arm, over the repeats that
// both answered; false if there is none.
func pair(l *layout, c *Config, scores []float64, pos, arm, units int) (compare.Pair, bool) {
	p := compare.Pair{ID: l.items[pos].ID, Cluster: l.items[pos].Cluster}
	n := 0.0
	for r := range l.repeats {
		u := l.index(pos, r)
		if u >= units {
			continue
		}
		b, x := scores[c.cell(u, 0)], scores[c.cell(u, arm)]
		if math.IsNaN(b) || math.IsNaN(x) {
			continue
		}
		p.Base, p.Cand, n = p.Base+b, p.Cand+x, n+1
	}
	if n == 0 {
		return p, false
	}
	p.Base, p.Cand = min(p.Base/n, 1), min(p.Cand/n, 1)
	return p, true
}

// report tells how far the run has come.
func (e *engine) report() {
	e.mu.Lock()
	arms := len(e.c.Arms)
	if e.c.Only != "" {
		arms = 1
	}
	p := Progress{Done: e.answers, Total: e.l.units() * arms, Questions: e.l.questions(e.frontier), Tokens: e.tokens, USD: e.usd}
	for _, st := range e.arms {
		p.InFlight += st.inFlight
	}
	session := e.session
	e.mu.Unlock()
	for _, g := range e.gates {
		p.Limits = append(p.Limits, g.Limit())
	}
	if d := e.c.Now().Sub(e.begun).Seconds(); d > 0 && session > 0 {
		p.Rate = float64(session) / d
		p.ETA = time.Duration(float64(p.Total-p.Done) / p.Rate * float64(time.Second))
	}
	e.c.Progress(p)
}
