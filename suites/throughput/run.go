package throughput

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/load/measure"
	"github.com/repromill/repromill/suites/servers"
)

// Bench carries out throughput suites.
type Bench struct {
	// Null starts the self-check's server, in a process of its own; nil makes no
	// self-check.
	Null   func(ctx context.Context, itl time.Duration) (url string, stop func(), err error)
	Getenv func(string) string // for keys of endpoints
	Now    func() time.Time
	Hook   func(point string)
}

// Job is one suite with all that is needed to carry it out.
type Job struct {
	Suite    spec.Suite
	URL      func(spec.Arm) string // of an arm that somebody else serves, else ""
	Starter  servers.Starter       // of the others
	Dir      string                // of this suite's run, kept over a resume
	Bounds   Bounds
	Progress func(what string, done, total int)
	// Elsewhere has a turn measured by somebody who calls [Bench.Turn], once for
	// each turn that is needed; nil measures here. Bounds within a turn are for it to
	// hold.
	Elsewhere func(ctx context.Context, t Turn) (Turned, error)
	// Host stands for the address of servers in results, where it says nothing to
	// anybody else; "" leaves it.
	Host string
}

// Bounds are what a suite may use; 0 is no bound. They hold within a round, too: its
// servers are ended when a bound is reached, and what the round measured until
// then is not counted, since its arms were not measured alike.
type Bounds struct {
	Wall          time.Duration
	GPUHours, USD float64
	// Price is USD for an hour of one of an arm's GPUs; nil is free.
	Price func(spec.Arm) float64
}

// Spend is what was used.
type Spend struct {
	Seconds    float64 `json:"seconds"`
	GPUSeconds float64 `json:"gpu_s"`
	USD        float64 `json:"usd,omitempty"`
}

func (s *Spend) add(t Spend) {
	s.Seconds += t.Seconds
	s.GPUSeconds += t.GPUSeconds
	s.USD += t.USD
}

// reached says which bound a spend reaches, "" if none.
func (b Bounds) reached(s Spend) string {
	switch {
	case b.Wall > 0 && s.Seconds >= b.Wall.Seconds():
		return fmt.Sprintf("the cap of wall time is used up (%s were left for this suite)", b.Wall.Round(time.Second))
	case b.GPUHours > 0 && s.GPUSeconds/3600 >= b.GPUHours:
		return fmt.Sprintf("the cap of GPU-hours is used up (%.3g were left for this suite)", b.GPUHours)
	case b.USD > 0 && s.USD >= b.USD:
		return fmt.Sprintf("the cap in USD is used up (%.3g were left for this suite)", b.USD)
	}
	return ""
}

// next says why another round is not begun: a bound is reached, or would be before
// a round like those before was complete.
func (b Bounds) next(s Spend, rounds int) string {
	if why := b.reached(s); why != "" || rounds == 0 {
		return why
	}
	n := float64(rounds)
	with := s
	with.add(Spend{s.Seconds / n, s.GPUSeconds / n, s.USD / n})
	if b.reached(with) == "" {
		return ""
	}
	return fmt.Sprintf("another round like the %d before takes more than the caps leave (%s, %.3g GPU-hours, $%.2f a round)",
		rounds, time.Duration(s.Seconds/n*float64(time.Second)).Round(time.Second), s.GPUSeconds/n/3600, s.USD/n)
}

// left is how long it takes to reach a bound at a rate of spending; false if none
// will be reached.
func (b Bounds) left(s Spend, gpus, price float64) (d time.Duration, bounded bool) {
	least := math.Inf(1)
	for _, x := range [][3]float64{{b.Wall.Seconds(), s.Seconds, 1}, {b.GPUHours * 3600, s.GPUSeconds, gpus}, {b.USD, s.USD, gpus * price / 3600}} {
		if bound, used, rate := x[0], x[1], x[2]; bound > 0 && rate > 0 {
			least = min(least, max(0, (bound-used)/rate))
		}
	}
	if math.IsInf(least, 1) || least > 1e9 {
		return 0, false
	}
	return time.Duration(least * float64(time.Second)), true
}

// Result is what came of a suite.
type Result struct {
	Rounds      int                  `json:"rounds"` // complete
	Planned     int                  `json:"rounds_planned"`
	Stopped     string               `json:"stopped,omitempty"` // why not all
	Blocks      []bench.Observed     `json:"blocks"`
	Comparisons []compare.Comparison `json:"comparisons"`
	Servers     []servers.Instance   `json:"servers"`               // one for each start
	Lost        int                  `json:"lost_starts,omitempty"` // that ended in the middle and were measured anew
	Spend
	Simulated bool     `json:"simulated,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// Refusal says why a suite is not attempted, "" if nothing stands against it.
func (b *Bench) Refusal(s spec.Suite) string {
	if s.Status != "" && s.Status != "auto" {
		return strings.Join(append([]string{"it cannot be run (" + s.Status + ")"}, s.Reasons...), ": ")
	}
	if len(s.Arms) < 2 {
		return "there is nothing to compare with"
	}
	if _, err := Specs(s); err != nil {
		return err.Error()
	}
	return ""
}

// Run measures what is left to measure and compares all of it. Whatever its error
// is, the suite can be taken up again from the last complete round.
func (b *Bench) Run(ctx context.Context, j Job) (res Result, err error) {
	specs, err := Specs(j.Suite)
	if err != nil {
		return res, err
	}
	res.Planned = max(1, j.Suite.Repeats)
	own := *b
	own.defaults()
	m := &measuring{Bench: &own, Job: j, specs: specs, total: res.Planned * len(specs)}
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		return res, fmt.Errorf("make folder of suite: %w", err)
	}
	for n := range res.Planned {
		r, have, err := readRound(j.Dir, n)
		if err != nil {
			return res, err
		}
		if !have {
			if res.Stopped = j.Bounds.next(res.Spend, res.Rounds); res.Stopped != "" {
				break
			}
			m.before = res.Spend
			if r, err = m.round(ctx, n); err != nil {
				return res, err
			}
		}
		if res.Stopped = r.Stopped; res.Stopped != "" {
			res.Spend.add(r.Spend)
			break
		}
		res.add(r)
	}
	b.compare(j, &res)
	return res, nil
}

func (b *Bench) defaults() {
	if b.Now == nil {
		b.Now = time.Now
	}
	if b.Hook == nil {
		b.Hook = func(string) {}
	}
	if b.Getenv == nil {
		b.Getenv = func(string) string { return "" }
	}
}

func (res *Result) add(r round) {
	res.Rounds++
	res.Blocks = append(res.Blocks, r.Blocks...)
	res.Servers = append(res.Servers, r.Instances...)
	res.Lost += r.Lost
	res.Spend.add(r.Spend)
	res.Simulated = res.Simulated || r.Simulated
	for _, w := range r.Warnings {
		if !slices.Contains(res.Warnings, w) {
			res.Warnings = append(res.Warnings, w)
		}
	}
}

// compare asks both questions of every candidate.
func (b *Bench) compare(j Job, res *Result) {
	blocks := bench.Blocks(res.Blocks)
	res.Warnings = append(res.Warnings, voids(blocks)...)
	base := j.Suite.Arms[0]
	o := compare.Options{Seed: uint64(j.Suite.Seed)}
	for _, cand := range j.Suite.Arms[1:] {
		var own []compare.Block // those of the arms' own configuration
		for _, x := range blocks {
			if x.Arm == base.Name && x.Setup.TP == base.TP || x.Arm == cand.Name && x.Setup.TP == cand.TP {
				own = append(own, x)
			}
		}
		equal, err := compare.Equal(own, base.Name, cand.Name, o)
		if err != nil {
			res.Warnings = append(res.Warnings, fmt.Sprintf("%s against %s at equal configuration: %v", cand.Name, base.Name, err))
		}
		res.Comparisons = append(res.Comparisons, equal...)
		for _, floor := range j.Suite.Load.Floors {
			best, err := compare.Best(blocks, base.Name, cand.Name, floor, o)
			if err != nil {
				res.Warnings = append(res.Warnings, fmt.Sprintf("%s against %s at their best: %v", cand.Name, base.Name, err))
			}
			res.Comparisons = append(res.Comparisons, best...)
		}
	}
	for _, a := range j.Suite.Arms {
		if j.URL(a) != "" {
			res.Warnings = append(res.Warnings, (&servers.NotOursError{Arm: a.Name, URL: j.URL(a)}).Error())
		}
	}
}

// voids say how many blocks of each arm count for nothing, and the first reason.
func voids(blocks []compare.Block) (out []string) {
	all, void, why := map[string]int{}, map[string]int{}, map[string]string{}
	var arms []string
	for _, b := range blocks {
		if all[b.Arm]++; all[b.Arm] == 1 {
			arms = append(arms, b.Arm)
		}
		if b.Void {
			if void[b.Arm]++; void[b.Arm] == 1 {
				why[b.Arm] = b.Why
			}
		}
	}
	for _, a := range arms {
		if void[a] > 0 {
			out = append(out, fmt.Sprintf("%s: %d of %d cells are void, the first because %s", a, void[a], all[a], why[a]))
		}
	}
	return out
}

// measuring is a suite under way.
type measuring struct {
	*Bench
	Job
	specs  []load.Spec
	total  int
	before Spend // of earlier rounds
	now    round
	cut    context.CancelCauseFunc // ends the round
}

// errBound ends a round.
var errBound = errors.New("a cap is used up")

// round starts every arm once and measures all cells.
func (m *measuring) round(ctx context.Context, n int) (round, error) {
	m.now = round{}
	if m.Elsewhere != nil {
		if err := m.elsewhere(ctx, n); err != nil {
			return m.now, err
		}
		return m.now, m.keep(n)
	}
	c, stop, err := m.contest(ctx, n)
	if err != nil {
		return m.now, err
	}
	defer stop()
	began := m.Now()
	within, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	m.cut = cut
	if d, bounded := m.Bounds.left(m.before, 0, 0); bounded {
		defer time.AfterFunc(d, func() { cut(errBound) }).Stop()
	}
	_, err = c.Run(within)
	m.now.Seconds = m.Now().Sub(began).Seconds()
	if ctx.Err() == nil && errors.Is(context.Cause(within), errBound) {
		why := m.Bounds.reached(m.spent())
		if why == "" {
			why = errBound.Error() // by the timer's clock, which is not ours
		}
		m.stopped(n, why)
		return m.now, m.keep(n)
	}
	if err != nil {
		return m.now, err
	}
	if ctx.Err() != nil {
		return m.now, context.Cause(ctx)
	}
	return m.now, m.keep(n)
}

// contest is round n; stop ends what it needs beside the servers.
func (m *measuring) contest(ctx context.Context, n int) (c bench.Contest, stop func(), err error) {
	stop = func() {}
	cfg := bench.Config{Chat: true, CheckOnce: true, Timeout: 30 * time.Minute, Drain: 30 * time.Minute, Seed: uint64(m.Suite.Seed), Now: m.Now, SLO: slo(m.Suite.Load.SLO)}
	if m.Null != nil {
		if cfg.NullURL, stop, err = m.Null(ctx, 10*time.Millisecond); err != nil {
			return c, nil, err
		}
	}
	c = bench.Contest{Specs: m.specs, Rounds: n + 1, First: n, Repeats: 1, Seen: m.seen, Doing: func(what string) { m.tell(what, n) }}
	for _, a := range m.Suite.Arms {
		for _, x := range setups(m.Suite, a) {
			arm := bench.Arm{Name: a.Name, Setup: compare.Setup{SKU: x.SKU, GPUs: max(x.GPUs, x.TP), TP: x.TP}}
			arm.Start = func(ctx context.Context) (bench.Up, error) { return m.start(ctx, x, cfg) }
			c.Arms = append(c.Arms, arm)
			if m.URL(a) != "" {
				break // it is what it is
			}
		}
	}
	return c, stop, nil
}

// spent is what was used until now.
func (m *measuring) spent() Spend {
	s := m.before
	s.add(m.now.Spend)
	return s
}

// stopped makes the round one of which nothing counts but what it took.
func (m *measuring) stopped(n int, why string) {
	m.now = round{Spend: m.now.Spend, Stopped: fmt.Sprintf("%s in round %d, which is not counted", why, n+1)}
}

func (m *measuring) tell(what string, round int) {
	if m.Progress != nil {
		m.Progress(what, round*len(m.specs), m.total)
	}
}

// start brings an arm up for a round.
func (m *measuring) start(ctx context.Context, a spec.Arm, cfg bench.Config) (bench.Up, error) {
	cfg.Key = endpoint.KeyFor(a.Name, m.Getenv)
	if url := m.URL(a); url != "" {
		cfg.URLs = []string{url}
		return bench.Up{Config: cfg}, nil
	}
	if m.Starter == nil {
		return bench.Up{}, &UserError{fmt.Sprintf("nobody serves arm %s", a.Name), fmt.Sprintf("give --server %s=vllm, or --endpoint %s=URL", a.Name, a.Name)}
	}
	began := m.Now()
	srv, err := m.Starter.Start(ctx, a)
	if err != nil {
		return bench.Up{}, err
	}
	in := servers.Instance{Arm: a.Name, N: len(m.now.Instances), Endpoint: m.shown(srv.Endpoint()), Began: began.UTC(), Facts: srv.Facts()}
	if in.Identity, err = srv.Identity(ctx); err != nil {
		return bench.Up{}, errors.Join(err, srv.Stop(context.WithoutCancel(ctx)))
	}
	cfg.URLs = []string{srv.Endpoint()}
	cfg.Identify = func(ctx context.Context, _ int) (endpoint.Identity, error) { return srv.Identity(ctx) }
	gpus, price := float64(len(in.Identity.GPUUUIDs)), 0.0
	if m.Bounds.Price != nil {
		price = m.Bounds.Price(a)
	}
	// Arms are up one after the other, so that what this one spends is all.
	stopClock := func() bool { return true }
	if d, bounded := m.Bounds.left(m.spent(), gpus, price); bounded {
		stopClock = time.AfterFunc(d-m.Now().Sub(began), func() { m.cut(errBound) }).Stop
	}
	stop := func() error {
		stopClock()
		in.Ended = m.Now().UTC()
		m.now.Instances = append(m.now.Instances, in)
		took := in.Ended.Sub(in.Began).Seconds() * gpus
		m.now.Spend.add(Spend{GPUSeconds: took, USD: took / 3600 * price})
		return srv.Stop(context.WithoutCancel(ctx))
	}
	return bench.Up{Config: cfg, Fresh: true, Stop: stop}, nil
}

// seen keeps a cell's rows.
func (m *measuring) seen(c bench.Measured) {
	r := &m.now
	r.Blocks = append(r.Blocks, c.Observe())
	r.Simulated = r.Simulated || c.Bench.Simulated()
	for _, w := range c.Bench.Warnings {
		if !slices.Contains(r.Warnings, c.Arm.Name+": "+w) {
			r.Warnings = append(r.Warnings, c.Arm.Name+": "+w)
		}
	}
	name := setupName(m.Suite, c.Arm.Name, c.Arm.Setup.TP)
	place := bench.Place{Suite: m.Suite.ID, Arm: name, Repeat: c.Index}
	requests, metrics := c.Bench.Rows(c.Cell, place)
	r.Requests, r.Metrics = append(r.Requests, requests...), append(r.Metrics, metrics...)
	rows := c.Bench.ServerRows([]*bench.Cell{c.Cell}, place)
	for i := range rows {
		rows[i].Endpoint = m.shown(rows[i].Endpoint)
	}
	r.Servers = append(r.Servers, rows...)
}

// shown is the URL of a server as results have it.
func (m *measuring) shown(at string) string {
	u, err := url.Parse(at)
	if m.Host == "" || err != nil {
		return at
	}
	u.Host = net.JoinHostPort(m.Host, u.Port())
	return u.String()
}

// setupName names an arm in one of its configurations.
func setupName(s spec.Suite, arm string, tp int) string {
	if tp == armTP(s, arm) {
		return arm
	}
	return fmt.Sprintf("%s-tp%d", arm, tp)
}

func armTP(s spec.Suite, name string) int {
	for _, a := range s.Arms {
		if a.Name == name {
			return a.TP
		}
	}
	return 0
}

func slo(m map[string]float64) measure.SLO {
	return measure.SLO{TTFT: m["ttft"], TPOT: m["tpot"], E2E: m["e2e"]}
}
