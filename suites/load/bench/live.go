package bench

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/repromill/repromill/suites/load"
)

// Live is how a cell stands while it runs. Latencies are over the requests that
// have ended, in seconds.
type Live struct {
	Cell           string
	Elapsed        time.Duration
	Done, Total    int
	Bad            int     // of Done
	Rate           float64 // requests per second that ended, over the last second
	TokensPerS     float64 // output tokens of them
	TTFT50, TTFT99 float64
	ITL50, ITL99   float64
	Lag99          float64   // of sending
	TTFT           []float64 // median of each past interval, newest last: a sparkline
	ITL            []float64 // likewise, of the gaps between chunks
	Tokens         []float64 // tokens per second of each past interval
}

type liveView struct {
	cfg   Config
	name  string
	total int
	began time.Time

	mu             sync.Mutex
	ttft, itl, lag *hdrhistogram.Histogram // microseconds
	tick, tickITL  *hdrhistogram.Histogram // of this interval
	done, bad      int
	tokens         int
	past           []moment
	sparkTTFT      []float64
	sparkITL       []float64
	sparkTokens    []float64
}

type moment struct {
	at           time.Time
	done, tokens int
}

func newLiveView(cfg Config, name string, total int) *liveView {
	h := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, 3_600_000_000, 3) }
	return &liveView{cfg: cfg, name: name, total: total, began: time.Now(), ttft: h(), itl: h(), lag: h(), tick: h(), tickITL: h()}
}

func (l *liveView) observe(r *load.Record) {
	if l.cfg.Progress == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done++
	if r.Status != load.OK {
		l.bad++
		return
	}
	l.tokens += max(r.OSL, r.Chunks)
	rec := func(h *hdrhistogram.Histogram, us int64) { _ = h.RecordValue(min(max(us, 1), 3_600_000_000)) }
	if r.FirstText >= 0 {
		rec(l.ttft, (r.FirstText-r.Sent)/1000)
		rec(l.tick, (r.FirstText-r.Sent)/1000)
	}
	for _, g := range r.Gaps {
		rec(l.itl, int64(g))
		rec(l.tickITL, int64(g))
	}
	rec(l.lag, r.SendLag/1000)
}

// interval is how often the view is drawn.
const interval = 250 * time.Millisecond

func (l *liveView) run(ctx context.Context) {
	if l.cfg.Progress == nil {
		return
	}
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			l.cfg.Progress(l.now())
			return
		case <-t.C:
			l.cfg.Progress(l.now())
		}
	}
}

func (l *liveView) now() Live {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.past = append(l.past, moment{now, l.done, l.tokens})
	if len(l.past) > 5 {
		l.past = l.past[1:]
	}
	first := l.past[0]
	s := max(1e-9, now.Sub(first.at).Seconds())
	at := func(h *hdrhistogram.Histogram, p float64) float64 { return float64(h.ValueAtQuantile(p)) / 1e6 }
	out := Live{Cell: l.name, Elapsed: now.Sub(l.began), Done: l.done, Total: l.total, Bad: l.bad,
		TTFT50: at(l.ttft, 50), TTFT99: at(l.ttft, 99), ITL50: at(l.itl, 50), ITL99: at(l.itl, 99), Lag99: at(l.lag, 99)}
	if len(l.past) > 1 {
		out.Rate, out.TokensPerS = float64(l.done-first.done)/s, float64(l.tokens-first.tokens)/s
	}
	const keep = 40
	l.sparkTTFT = last(append(l.sparkTTFT, at(l.tick, 50)), keep)
	l.sparkITL = last(append(l.sparkITL, at(l.tickITL, 50)), keep)
	l.sparkTokens = last(append(l.sparkTokens, out.TokensPerS), keep)
	l.tick.Reset()
	l.tickITL.Reset()
	out.ITL = append([]float64(nil), l.sparkITL...)
	out.TTFT, out.Tokens = append([]float64(nil), l.sparkTTFT...), append([]float64(nil), l.sparkTokens...)
	return out
}

func last(x []float64, n int) []float64 { return x[max(0, len(x)-n):] }
