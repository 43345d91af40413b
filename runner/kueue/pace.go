package kueue

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// pace is how many requests a process has under way at one API server. There
// is no rate to guess: the server shares itself out by priority and fairness,
// says 429 with Retry-After where its queues are full, and answers later where
// they are filling. So the window grows by one for each window of good answers
// and is halved by a refusal, at most once for what was under way then
// (additive increase and multiplicative decrease, as in RFC 5681), and nobody
// sends before the time that the server named. Watches have no end and do not
// count. The zero value is not usable; see newPace.
type pace struct {
	next http.RoundTripper
	now  func() time.Time

	mu        sync.Mutex
	window    float64
	under     int
	waiting   []chan struct{}
	cut       time.Time // when the window was last made smaller
	notBefore time.Time
	best      float64 // seconds of a good answer, smoothed; 0 is unknown
	wake      *time.Timer
	refused   int // answers of 429, for who asks
}

// Bounds of the window. A single submitter gains nothing beyond the upper one:
// the server runs its calls one after another for each flow anyway.
const (
	firstWindow = 8
	mostWindow  = 64
)

func newPace(next http.RoundTripper, now func() time.Time) *pace {
	return &pace{next: next, now: now, window: firstWindow}
}

// RoundTrip sends a request when its turn has come.
func (p *pace) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Has("watch") {
		return p.next.RoundTrip(r)
	}
	if err := p.enter(r.Context()); err != nil {
		return nil, err
	}
	sent := p.now()
	resp, err := p.next.RoundTrip(r)
	p.leave(sent, resp, err)
	return resp, err
}

// enter waits for a place, first come first served.
func (p *pace) enter(ctx context.Context) error {
	p.mu.Lock()
	if len(p.waiting) == 0 && p.free() {
		p.under++
		p.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	p.waiting = append(p.waiting, turn)
	p.admit()
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.waiting {
		if w == turn {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return ctx.Err()
		}
	}
	p.under-- // its turn had come already
	p.admit()
	return ctx.Err()
}

func (p *pace) free() bool {
	return float64(p.under) < math.Floor(p.window) && !p.now().Before(p.notBefore)
}

// admit lets those in that have a place, and comes back when the server's
// pause is over.
func (p *pace) admit() {
	for len(p.waiting) > 0 && p.free() {
		close(p.waiting[0])
		p.waiting = p.waiting[1:]
		p.under++
	}
	if pause := p.notBefore.Sub(p.now()); len(p.waiting) > 0 && pause > 0 && p.wake == nil {
		p.wake = time.AfterFunc(pause, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.wake = nil
			p.admit()
		})
	}
}

// slow is an answer so late that it has waited in a queue of the server's.
func slow(took, best float64) bool { return best > 0 && took > 1 && took > 8*best }

func (p *pace) leave(sent time.Time, resp *http.Response, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under--
	took := p.now().Sub(sent).Seconds()
	busy := err == nil && (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusGatewayTimeout)
	switch {
	case busy:
		if resp.StatusCode == http.StatusTooManyRequests {
			p.refused++
		}
		if s, e := strconv.ParseFloat(resp.Header.Get("Retry-After"), 64); e == nil && s > 0 {
			if t := p.now().Add(time.Duration(min(s, 60) * float64(time.Second))); t.After(p.notBefore) {
				p.notBefore = t
			}
		}
		p.shrink(sent, 0.5)
	case err != nil:
		p.shrink(sent, 0.5)
	case slow(took, p.best):
		p.shrink(sent, 0.8)
	default:
		if float64(p.under+1) >= math.Floor(p.window) { // the window is what holds us back
			p.window = min(p.window+1/p.window, mostWindow)
		}
		if p.best == 0 {
			p.best = took
		}
		p.best += (took - p.best) / 16
	}
	p.admit()
}

// shrink makes the window smaller, once for all that was sent before the last
// time.
func (p *pace) shrink(sent time.Time, by float64) {
	if sent.Before(p.cut) {
		return
	}
	p.cut = p.now()
	p.window = max(1, p.window*by)
}
