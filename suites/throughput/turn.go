package throughput

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/servers"
)

// Turn is one start of an arm's server, on which every cell is measured once. A
// round is a turn for each arm and configuration.
type Turn struct {
	Round int      `json:"round"`
	N     int      `json:"n"`    // among those of a round, in the suite's order
	Name  string   `json:"name"` // the arm's, and the configuration's where it is not the arm's own
	Arm   spec.Arm `json:"arm"`  // as it is served
}

// Turned is what came of a turn that was measured elsewhere.
type Turned struct {
	Dir     string // in which [Bench.Turn] left what it measured
	Spend   Spend  // of lost starts, too
	Lost    int    // starts that ended in the middle; nothing of them is counted
	Stopped string // by a bound, so that nothing was measured
}

// Counts say how much a turn measured.
type Counts struct {
	Cells, Void, Requests int
	Server                servers.Instance
}

// AnotherError says that the server of a turn did not stay the one that it began
// with. What was measured until then mixes two starts, and is not kept.
type AnotherError struct{ What string }

func (e *AnotherError) Error() string {
	return "the model server did not stay the one that was started for this turn: " + e.What
}

// Turns are those of a round, in the order in which they are measured.
func Turns(s spec.Suite, n int) (out []Turn) {
	var all []Turn
	for _, a := range s.Arms {
		for _, x := range setups(s, a) {
			all = append(all, Turn{Round: n, N: len(all), Name: setupName(s, a.Name, x.TP), Arm: x})
		}
	}
	for _, step := range compare.Order(len(all), n+1, 1, false) {
		if step.Round == n {
			out = append(out, all[step.Arm])
		}
	}
	return out
}

const fileTurn = "turn.json.gz"

// Turn measures one turn of j.Suite on a server of j.Starter, and leaves it in
// j.Dir for a job of the same suite whose Elsewhere names that folder. Nothing is
// kept of a turn with an error; an [*AnotherError] is worth another try.
func (b *Bench) Turn(ctx context.Context, j Job, t Turn) (n Counts, err error) {
	specs, err := Specs(j.Suite)
	if err != nil {
		return n, err
	}
	own := *b
	own.defaults()
	up := &starter{Starter: j.Starter}
	j.Starter = up
	m := &measuring{Bench: &own, Job: j, specs: specs, total: max(1, j.Suite.Repeats) * len(specs)}
	if err := os.MkdirAll(j.Dir, 0o700); err != nil {
		return n, fmt.Errorf("make folder of turn: %w", err)
	}
	within, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	m.cut = cut
	c, stop, err := m.contest(within, t.Round)
	if err != nil {
		return n, err
	}
	defer stop()
	c.Only = &t.N
	c.Seen = func(x bench.Measured) {
		m.seen(x)
		for _, f := range x.Cell.Flags {
			if f.Code == bench.Restarted || f.Code == bench.Gone {
				cut(&AnotherError{f.Message})
			}
		}
	}
	_, err = c.Run(within)
	switch cause := context.Cause(within); {
	case ctx.Err() != nil:
		return n, context.Cause(ctx)
	case cause != nil:
		return n, cause
	case err != nil:
		return n, err
	}
	if err := up.same(ctx, m.now.Instances); err != nil {
		return n, err
	}
	m.now.Turn = &t
	n = Counts{Cells: len(m.now.Blocks), Requests: len(m.now.Requests), Server: m.now.Instances[0]}
	for _, x := range m.now.Blocks {
		if x.Whole.Void {
			n.Void++
		}
	}
	if err := write(filepath.Join(j.Dir, fileTurn), m.now, m.Hook, "throughput:turn:"); err != nil {
		return n, fmt.Errorf("write turn: %w", err)
	}
	return n, nil
}

// starter remembers the server that was started.
type starter struct {
	servers.Starter
	up servers.Server
}

// Start implements [servers.Starter].
func (s *starter) Start(ctx context.Context, a spec.Arm) (servers.Server, error) {
	srv, err := s.Starter.Start(ctx, a)
	s.up = srv
	return srv, err
}

// same is an error unless the server is the one that the turn began with. A cell
// whose server has just gone may have ended before the next one answered.
func (s *starter) same(ctx context.Context, list []servers.Instance) error {
	if s.up == nil || len(list) != 1 {
		return errors.New("measure turn: no server was started for it")
	}
	id, err := s.up.Identity(ctx)
	if err != nil {
		return &AnotherError{fmt.Sprintf("it cannot be seen any more: %v", err)}
	}
	if ch := id.Since(list[0].Identity); ch.Changed() {
		return &AnotherError{ch.String()}
	}
	return nil
}

// elsewhere has the turns of a round measured, one after another, so that nothing
// else of this suite runs meanwhile.
func (m *measuring) elsewhere(ctx context.Context, n int) error {
	list := Turns(m.Suite, n)
	for i, t := range list {
		m.tell(fmt.Sprintf("round %d of %d, %s", n+1, max(1, m.Suite.Repeats), t.Name), n)
		got, err := m.Elsewhere(ctx, t)
		if err != nil {
			return err
		}
		m.now.Spend.add(got.Spend)
		m.now.Lost += got.Lost
		why := got.Stopped
		if why == "" && i+1 < len(list) {
			why = m.Bounds.reached(m.spent())
		}
		if why != "" {
			m.stopped(n, why)
			return nil
		}
		if err := m.take(t, got); err != nil {
			return fmt.Errorf("read round %d of arm %s: %w", n+1, t.Name, err)
		}
	}
	return nil
}

// take adds a turn to the round.
func (m *measuring) take(t Turn, from Turned) error {
	r, err := read(filepath.Join(from.Dir, fileTurn))
	if err != nil {
		return err
	}
	if r.Turn == nil || r.Turn.Round != t.Round || r.Turn.N != t.N || r.Turn.Name != t.Name || len(r.Blocks) != len(m.specs) || len(r.Instances) != 1 {
		return errors.New("the folder holds another turn")
	}
	now := &m.now
	now.Requests, now.Metrics, now.Servers = append(now.Requests, r.Requests...), append(now.Metrics, r.Metrics...), append(now.Servers, r.Servers...)
	now.Blocks = append(now.Blocks, r.Blocks...)
	now.Simulated = now.Simulated || r.Simulated
	for _, in := range r.Instances {
		in.N = len(now.Instances)
		now.Instances = append(now.Instances, in)
	}
	for _, w := range r.Warnings {
		if !slices.Contains(now.Warnings, w) {
			now.Warnings = append(now.Warnings, w)
		}
	}
	if from.Lost > 0 {
		now.Warnings = append(now.Warnings, fmt.Sprintf("round %d of %s: %d starts ended in the middle, and it was measured anew", t.Round+1, t.Name, from.Lost))
	}
	return nil
}
