// Package bench measures a server in cells: it looks at the server's identity
// and counters before and after, proves that the load generator is not the
// bottleneck, sends the schedule and says which numbers hold.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/load/wire"
	"github.com/repromill/repromill/suites/servers"
)

// Config says what is measured. URLs is needed.
type Config struct {
	URLs       []string // of endpoints, with or without /v1
	Model      string   // "" for the only one that is served
	Key        endpoint.Secret
	Chat       bool
	Continuous bool           // ask for token counts in every chunk
	Extra      map[string]any // more fields of each request
	EOS        bool           // let the model stop by itself
	SLO        measure.SLO
	Router     load.Router // nil sends to the endpoints in turn
	MaxOpen    int
	Timeout    time.Duration
	Drain      time.Duration
	NullURL    string        // of a null server for the self-check, "" for none
	CheckOnce  bool          // a cell is checked at its first repeat only
	NullITL    time.Duration // the pace at which the self-check begins, 0 for 10 ms; a faster server is met by a second check
	Seed       uint64
	Poll       time.Duration // of the server's counters, 0 for 1 s
	// Identify asks the server of an endpoint what it is, where somebody knows more
	// of it than the endpoint says; nil asks the endpoint. A [*servers.EndedError]
	// makes the cell void.
	Identify func(ctx context.Context, endpoint int) (endpoint.Identity, error)
	Progress func(Live) // called a few times a second; may be nil
	Now      func() time.Time
}

// Bench is a server that is being measured.
type Bench struct {
	cfg     Config
	clock   wire.Clock
	sides   []*endpoint.Client
	clients []*wire.Client
	words   load.Words
	checks  map[string]*Check // by cell, of those made
	fresh   bool              // the servers were started for this bench

	Identities []endpoint.Identity // of each endpoint, when it was opened
	Warnings   []string
}

// Open looks at the endpoints and learns how long prompts become. Close it.
func Open(ctx context.Context, cfg Config) (*Bench, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("open bench: no endpoint")
	}
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Bench{cfg: cfg, clock: wire.NewClock(), checks: map[string]*Check{}}
	for _, u := range cfg.URLs {
		side, err := endpoint.New(endpoint.Config{URL: u, Model: cfg.Model, Key: cfg.Key, Now: cfg.Now})
		if err != nil {
			b.Close()
			return nil, err
		}
		b.sides = append(b.sides, side)
		id, err := b.see(ctx, len(b.sides)-1)
		if err != nil {
			b.Close()
			return nil, err
		}
		b.Identities = append(b.Identities, id)
		if b.cfg.Model == "" {
			b.cfg.Model = id.Model
		}
		path := "/completions"
		if cfg.Chat {
			path = "/chat/completions"
		}
		c, err := b.client(side.URL() + path)
		if err != nil {
			b.Close()
			return nil, err
		}
		b.clients = append(b.clients, c)
	}
	if cfg.Router == nil && len(cfg.URLs) > 1 {
		b.cfg.Router = &load.Round{Endpoints: len(cfg.URLs)}
	}
	b.words = load.Words{Model: b.cfg.Model, Chat: cfg.Chat, Continuous: cfg.Continuous, Extra: cfg.Extra, EOS: cfg.EOS}
	words, err := b.words.Calibrate(ctx, b.clients[0], cfg.Seed^0x5eed)
	if err != nil {
		if ctx.Err() != nil {
			b.Close()
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, wire.ErrHTTP2) {
			b.Close()
			return nil, fmt.Errorf("open %s: %w", cfg.URLs[0], err)
		}
		b.Warnings = append(b.Warnings, fmt.Sprintf("input lengths are approximate, one token a word: %v", err))
	}
	b.words = words
	if len(words.Without) > 0 {
		b.Warnings = append(b.Warnings, fmt.Sprintf("the server refuses requests with %s, so they are sent without: outputs may end early, which makes their cells void", strings.Join(words.Without, " and ")))
	}
	return b, nil
}

func (b *Bench) client(url string) (*wire.Client, error) {
	h := map[string]string{}
	if b.cfg.Key != "" {
		h["Authorization"] = "Bearer " + string(b.cfg.Key)
	}
	return wire.New(wire.Config{URL: url, Header: h, Clock: b.clock, IdleTimeout: b.cfg.Timeout})
}

// Close closes all connections.
func (b *Bench) Close() {
	for _, c := range b.clients {
		c.Close()
	}
	for _, s := range b.sides {
		s.Close()
	}
}

// Model is the model's name, as the server gives it.
func (b *Bench) Model() string { return b.cfg.Model }

// Simulated says whether the server says of itself that it is a simulation.
func (b *Bench) Simulated() bool {
	for _, id := range b.Identities {
		if id.Simulated() {
			return true
		}
	}
	return false
}

// Cell is one measured cell.
type Cell struct {
	Name       string              `json:"cell"`
	Spec       load.Spec           `json:"-"`
	Mode       string              `json:"mode"`
	Rate       float64             `json:"rate,omitempty"`
	Concurrent int                 `json:"concurrency,omitempty"`
	ISL        int                 `json:"isl"`
	OSL        int                 `json:"osl"`
	Began      time.Time           `json:"began"`
	Summary    measure.Summary     `json:"summary"`
	Check      *Check              `json:"self_check,omitempty"`
	Flags      []measure.Flag      `json:"flags"` // all of them, those of the counters too
	Void       bool                `json:"void"`  // the numbers must not be quoted as the server's
	Before     []endpoint.Identity `json:"-"`
	After      []endpoint.Identity `json:"-"`
	Pool       map[string]Pool     `json:"pools,omitempty"`
	GPUSeconds *float64            `json:"gpu_s,omitempty"` // that the servers' own counters give
	Preempted  *float64            `json:"preemptions,omitempty"`
	PeakKV     *float64            `json:"peak_kv_usage,omitempty"`
	PeakQueue  *float64            `json:"peak_waiting,omitempty"`

	Result *load.Result `json:"-"`
	gone   string       // why a server of ours is no more
}

// Pool is what one pool of a dual-pool cell got.
type Pool struct {
	Requests int          `json:"requests"`
	TTFT     measure.Dist `json:"ttft_intended_s"`
}

// Name names a cell after what it does.
func Name(s load.Spec) string {
	lengths := s.Lengths()
	switch {
	case s.Mode == load.Closed:
		return fmt.Sprintf("closed-c%d-%s", s.Concurrency, lengths)
	case s.Arrivals == load.Trace:
		return "open-trace"
	case s.Arrivals == load.Gamma:
		return fmt.Sprintf("open-r%g-gamma%g-%s", s.Rate, s.Burstiness, lengths)
	case s.Arrivals == load.Constant:
		return fmt.Sprintf("open-r%g-constant-%s", s.Rate, lengths)
	}
	return fmt.Sprintf("open-r%g-%s", s.Rate, lengths)
}

// Cell measures one cell. The spec's seed is mixed with the cell's name and the
// repeat, so that no two cells of a bench share a prompt. When ctx ends, the
// cell holds what was measured until then.
func (b *Bench) Cell(ctx context.Context, spec load.Spec, repeat int) (*Cell, error) {
	name := Name(spec)
	spec.Seed = mix(spec.Seed, name, repeat)
	sched, err := load.NewSchedule(spec)
	if err != nil {
		return nil, err
	}
	c := &Cell{Name: name, Spec: spec, Mode: spec.Mode, Rate: spec.Rate, Concurrent: spec.Concurrency, ISL: spec.ISL.Mean, OSL: spec.OSL.Mean}
	if b.cfg.NullURL != "" {
		if c.Check = b.checks[name]; c.Check == nil || !b.cfg.CheckOnce {
			if c.Check, err = b.check(ctx, sched, cmp.Or(b.cfg.NullITL, 10*time.Millisecond)); err != nil {
				return nil, fmt.Errorf("self-check: %w", err)
			}
		}
		b.checks[name] = c.Check
	}
	c.Before = b.identify(ctx)
	before := b.counters(ctx)
	live := newLiveView(b.cfg, name, len(sched.Requests))
	watch := b.watch(ctx, live)
	senders := make([]load.Sender, len(b.clients))
	for i, cl := range b.clients {
		senders[i] = cl
	}
	res, err := load.Run(ctx, load.Config{Clock: b.clock, Endpoints: senders, Prompts: b.words, Router: b.cfg.Router, Timeout: b.cfg.Timeout, Drain: b.cfg.Drain, MaxOpen: b.cfg.MaxOpen, Observe: live.observe}, sched)
	peaks := watch()
	if err != nil {
		return nil, err
	}
	after := b.counters(context.WithoutCancel(ctx))
	c.After = b.identify(context.WithoutCancel(ctx))
	c.gone = b.gone(context.WithoutCancel(ctx))
	c.Result, c.Began = res, res.Began
	b.finish(c, before, after, peaks)
	if itl := c.Summary.Whole.ITL.P(50); c.Check != nil && ctx.Err() == nil && itl > 0 && c.Summary.Events > measure.Unproven*c.Check.EventsPerS {
		// The server was faster than the check: prove this pace, too.
		if again, err := b.check(ctx, sched, max(fastest, time.Duration(0.9e9*itl))); err == nil {
			c.Check, b.checks[name] = again, again
			b.finish(c, before, after, peaks)
		}
	}
	return c, nil
}

func (b *Bench) finish(c *Cell, before, after []Counters, p peaks) {
	cfg := measure.Config{SLO: b.cfg.SLO, Seed: c.Spec.Seed}
	if c.Check != nil {
		cfg.Proven, cfg.ProvenLag = c.Check.EventsPerS, c.Check.LagP99
	}
	c.Summary = measure.Sum(c.Result, cfg)
	c.Flags, c.Void, c.GPUSeconds, c.Preempted = c.Summary.Flags, false, nil, nil
	for i := range before {
		in, out := tokens(c.Result, i)
		c.Flags = append(c.Flags, counterFlags(before[i], after[i], in, out)...)
		addTo(&c.GPUSeconds, after[i].GPUSecondsTotal-before[i].GPUSecondsTotal)
		addTo(&c.Preempted, after[i].PreemptionsTotal-before[i].PreemptionsTotal)
	}
	for i := range c.Before {
		if ch := c.After[i].Since(c.Before[i]); ch.Changed() {
			c.Flags = append(c.Flags, measure.Flag{Code: Restarted, Void: true, Message: "the server changed during the cell: " + ch.String()})
		}
	}
	if c.gone != "" {
		c.Flags = append(c.Flags, measure.Flag{Code: Gone, Void: true, Message: c.gone})
	}
	c.PeakKV, c.PeakQueue = p.kv, p.queue
	for _, f := range c.Flags {
		c.Void = c.Void || f.Void
	}
	byPool := map[string][]*load.Record{}
	for _, r := range c.Result.Records {
		if r.Pool != "" && !r.Warmup {
			byPool[r.Pool] = append(byPool[r.Pool], r)
		}
	}
	for name, recs := range byPool {
		s := measure.Sum(&load.Result{Schedule: c.Result.Schedule, Records: recs}, cfg)
		if c.Pool == nil {
			c.Pool = map[string]Pool{}
		}
		c.Pool[name] = Pool{len(recs), s.Whole.TTFTIntended}
	}
}

func addTo(sum **float64, v float64) {
	if math.IsNaN(v) {
		return
	}
	if *sum == nil {
		*sum = new(float64)
	}
	**sum += v
}

// tokens counts what an endpoint gave, warm-up included: its counters do so too.
func tokens(res *load.Result, endpoint int) (in, out float64) {
	for _, r := range res.Records {
		if r.Endpoint == endpoint {
			in, out = in+float64(max(0, r.ISL)), out+float64(max(0, r.OSL))
		}
	}
	return in, out
}

func mix(seed uint64, name string, repeat int) uint64 {
	h := seed ^ 0x9e3779b97f4a7c15*uint64(repeat+1)
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return rand.New(rand.NewPCG(h, 5)).Uint64()
}

// see asks what the server of an endpoint is.
func (b *Bench) see(ctx context.Context, i int) (endpoint.Identity, error) {
	if b.cfg.Identify != nil {
		return b.cfg.Identify(ctx, i)
	}
	return b.sides[i].Identity(ctx)
}

// gone says why a server that somebody watches is no more, "" if none is.
func (b *Bench) gone(ctx context.Context) string {
	if b.cfg.Identify == nil {
		return ""
	}
	for i := range b.sides {
		var ended *servers.EndedError
		if _, err := b.cfg.Identify(ctx, i); errors.As(err, &ended) {
			line, _, _ := strings.Cut(err.Error(), "\n")
			return line
		}
	}
	return ""
}

func (b *Bench) identify(ctx context.Context) []endpoint.Identity {
	out := make([]endpoint.Identity, len(b.sides))
	for i := range b.sides {
		id, err := b.see(ctx, i)
		if err != nil { // not to be seen is not to have changed
			id = b.Identities[i]
		}
		out[i] = id
	}
	return out
}

func (b *Bench) counters(ctx context.Context) []Counters {
	out := make([]Counters, len(b.sides))
	for i, s := range b.sides {
		m, _ := s.Metrics(ctx) // a server without metrics has none to compare
		out[i] = Normalise(m)
	}
	return out
}

type peaks struct{ kv, queue *float64 }

// watch polls the counters until its result is called.
func (b *Bench) watch(ctx context.Context, live *liveView) func() peaks {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var p peaks
	top := func(best **float64, v float64) {
		if !math.IsNaN(v) && (*best == nil || v > **best) {
			*best = &v
		}
	}
	wg.Add(2)
	go func() { defer wg.Done(); live.run(ctx) }()
	go func() {
		defer wg.Done()
		t := time.NewTicker(b.cfg.Poll)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				for _, c := range b.counters(ctx) {
					top(&p.kv, c.KVUsage)
					top(&p.queue, c.Waiting)
				}
			}
		}
	}()
	return func() peaks { stop(); wg.Wait(); return p }
}
