package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/suites/load"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/load/measure"
)

// Arm is one side of a contest.
type Arm struct {
	Name  string
	Setup compare.Setup
	// Start brings the arm's servers up and is called once a round.
	Start func(ctx context.Context) (Up, error)
}

// Up is an arm whose servers answer.
type Up struct {
	Config Config
	Fresh  bool         // the servers were started just now, and were not running before
	Stop   func() error // may be nil
}

// Contest measures arms in interleaved blocks: in each round every arm is
// started once, and is sent the same schedules as the others in the same places.
type Contest struct {
	Arms     []Arm
	Specs    []load.Spec
	Rounds   int
	First    int  // the round to begin with, those before having been measured
	Repeats  int  // of each cell on each start
	Only     *int // the one arm that is measured, by its index; nil measures all
	Together bool // all arms are up during a round and take turns within it
	Doing    func(what string)
	Seen     func(Measured) // called after each cell
}

// Measured is a cell of a contest.
type Measured struct {
	Arm           Arm
	Round, Repeat int
	Index         int // of the cell among those of its name and arm: round and repeat in one
	Bench         *Bench
	Cell          *Cell
}

// Run measures. When ctx ends, or with an error, it returns the blocks measured
// until then.
func (c Contest) Run(ctx context.Context) ([]compare.Block, error) {
	if len(c.Arms) < 2 || c.Rounds < 1 || c.Repeats < 1 || len(c.Specs) == 0 {
		return nil, errors.New("run contest: two arms, a round, a repeat and a cell are needed")
	}
	r := &contest{Contest: c, up: make([]*running, len(c.Arms))}
	defer func() { _ = r.stopAll() }() // after an error; otherwise nothing is up any more
	steps := compare.Order(len(c.Arms), c.Rounds, c.Repeats, c.Together)
	for i, s := range steps {
		if s.Round < c.First || c.Only != nil && s.Arm != *c.Only {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		if err := r.step(ctx, s); err != nil {
			if ctx.Err() != nil {
				break
			}
			return r.finish(), fmt.Errorf("arm %s, round %d: %w", c.Arms[s.Arm].Name, s.Round+1, err)
		}
		last := i+1 == len(steps) || steps[i+1].Round != s.Round
		if last || !c.Together && steps[i+1].Arm != s.Arm {
			if err := r.stopAll(); err != nil {
				return r.finish(), err
			}
		}
	}
	return r.finish(), r.stopAll()
}

type contest struct {
	Contest
	up       []*running
	measured []Measured
}

type running struct {
	bench *Bench
	up    Up
}

func (r *contest) step(ctx context.Context, s compare.Step) error {
	if r.Together {
		for i := range r.Arms {
			if err := r.start(ctx, i, s.Round); err != nil {
				return err
			}
		}
	} else if err := r.start(ctx, s.Arm, s.Round); err != nil {
		return err
	}
	on, arm := r.up[s.Arm], r.Arms[s.Arm]
	for _, spec := range r.Specs {
		if ctx.Err() != nil {
			return nil
		}
		index := s.Round*r.Repeats + s.Repeat
		r.doing(fmt.Sprintf("round %d of %d, %s: %s", s.Round+1, r.Rounds, arm.Name, Name(spec)))
		cell, err := on.bench.Cell(ctx, spec, index)
		if err != nil {
			return err
		}
		m := Measured{arm, s.Round, s.Repeat, index, on.bench, cell}
		r.measured = append(r.measured, m)
		if r.Seen != nil {
			r.Seen(m)
		}
	}
	return nil
}

func (r *contest) doing(what string) {
	if r.Doing != nil {
		r.Doing(what)
	}
}

func (r *contest) start(ctx context.Context, arm, round int) error {
	if r.up[arm] != nil {
		return nil
	}
	r.doing(fmt.Sprintf("round %d of %d: starting %s", round+1, r.Rounds, r.Arms[arm].Name))
	up, err := r.Arms[arm].Start(ctx)
	if err != nil {
		return err
	}
	b, err := Open(ctx, up.Config)
	if err != nil {
		if up.Stop != nil {
			err = errors.Join(err, up.Stop())
		}
		return err
	}
	b.fresh = up.Fresh
	r.up[arm] = &running{b, up}
	return nil
}

func (r *contest) stopAll() (err error) {
	for i, on := range r.up {
		if on == nil {
			continue
		}
		on.bench.Close()
		if on.up.Stop != nil {
			err = errors.Join(err, on.up.Stop())
		}
		r.up[i] = nil
	}
	return err
}

// Observed is a block in both its readings: of the whole run, and of the steady
// window where there is one.
type Observed struct {
	Whole  compare.Block  `json:"whole"`
	Steady *compare.Block `json:"steady,omitempty"`
}

// Observe reads a cell for comparison.
func (m Measured) Observe() Observed {
	o := Observed{Whole: m.block(false)}
	if m.Cell.Summary.Steady != nil {
		b := m.block(true)
		o.Steady = &b
	}
	return o
}

// Blocks chooses a reading for each cell: the steady window if all its blocks
// have one, else the whole run. One figure has one meaning.
func Blocks(all []Observed) (out []compare.Block) {
	uneven := map[string]bool{}
	for _, o := range all {
		uneven[o.Whole.Cell] = uneven[o.Whole.Cell] || o.Steady == nil && !o.Whole.Void
	}
	for _, o := range all {
		if o.Steady != nil && !uneven[o.Whole.Cell] {
			out = append(out, *o.Steady)
		} else {
			out = append(out, o.Whole)
		}
	}
	return out
}

func (r *contest) finish() []compare.Block {
	var all []Observed
	for _, m := range r.measured {
		all = append(all, m.Observe())
	}
	return Blocks(all)
}

func (m Measured) block(steady bool) compare.Block {
	c := m.Cell
	b := compare.Block{Arm: m.Arm.Name, Setup: m.Arm.Setup, Round: m.Round, Repeat: m.Repeat, Process: m.process(), Cell: c.Name,
		Workload: workload(c.Spec), Open: c.Mode == load.Open, Void: c.Void, Values: map[string]float64{}}
	for _, f := range c.Flags {
		if f.Void || f.Code == measure.StoppedEarly {
			// That the server was another says more than what followed from it.
			if b.Why == "" || f.Code == Restarted {
				b.Why = f.Message
			}
			b.Void = true
		}
	}
	p := &c.Summary.Whole
	if steady && c.Summary.Steady != nil {
		p = c.Summary.Steady
	}
	set := func(name string, v float64) {
		if v > 0 { // false for NaN
			b.Values[name] = v
		}
	}
	set(compare.OutputPerGPU, p.OutputRate.Value)
	set(compare.TotalPerGPU, p.TotalRate.Value)
	set(compare.Interactive, p.Interactive)
	// Whoever arrives in ramp and drain waits, too.
	w := &c.Summary.Whole
	set(compare.TTFTp50, w.TTFTIntended.P(50))
	set(compare.TTFTp99, w.TTFTIntended.P(99))
	set(compare.TPOTp50, w.TPOT.P(50))
	set(compare.TPOTp99, w.TPOT.P(99))
	set(compare.ITLp99, w.ITL.P(99))
	set(compare.E2Ep50, w.E2EIntended.P(50))
	if n := len(c.Result.Records); c.GPUSeconds != nil && n > 0 {
		set(compare.GPUSeconds, *c.GPUSeconds/float64(n)) // the counters count warm-up, too
	}
	return b
}

// process tells this start of an arm's servers from others. A server that is
// not ours and hides when it was started counts as the same one for ever.
func (m Measured) process() string {
	if m.Bench.fresh {
		return fmt.Sprintf("started in round %d", m.Round)
	}
	var out []string
	for i, id := range m.Cell.Before {
		start := "unknown"
		if !id.StartTime.IsZero() {
			start = id.StartTime.UTC().Format("2006-01-02T15:04:05")
		}
		out = append(out, m.Bench.sides[i].URL()+" "+start)
	}
	return strings.Join(out, ", ")
}

func workload(s load.Spec) string {
	if s.Arrivals == load.Trace {
		return "trace"
	}
	return s.Lengths()
}

// Processes are the distinct processes of an arm that were measured.
func Processes(blocks []compare.Block, arm string) (out []string) {
	for _, b := range blocks {
		if b.Arm == arm && !slices.Contains(out, b.Process) {
			out = append(out, b.Process)
		}
	}
	return out
}
