// Package compare says by which factor one server is faster than another.
//
// The unit of repetition is the start of a server, not the request: the same
// binary decodes at 33 or at 26 tokens per second depending on how its process
// came up (ROCm issue 6347), and no number of requests to one process shows
// that. A [Block] is one cell measured on one start. [Order] interleaves the
// blocks of the arms, so that what drifts over time falls on all of them alike.
//
// Two questions are asked, and never mixed. [Equal]: how do the arms differ at
// the same configuration, load for load? [Best]: how do they differ when each is
// run in the configuration that suits it best, so long as every user gets a
// number of tokens per second? An arm that saves memory may be equal in the
// first and far ahead in the second; a figure that does not say which of them it
// answers says nothing.
//
// Ratios are candidate over baseline, their intervals are made on the logarithm.
package compare

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Metric is a figure that blocks are compared by.
type Metric struct {
	Name   string
	Unit   string
	Higher bool // is better
	Rate   bool // in open loop it follows the arrivals until the server is full
}

// Names of metrics, as the metrics table has them; throughputs are per GPU.
const (
	OutputPerGPU = "output_tokens_per_s_per_gpu"
	TotalPerGPU  = "total_tokens_per_s_per_gpu"
	Interactive  = "tokens_per_s_per_user" // 1 / median TPOT
	TTFTp50      = "ttft_intended_p50"
	TTFTp99      = "ttft_intended_p99"
	TPOTp50      = "tpot_p50"
	TPOTp99      = "tpot_p99"
	ITLp99       = "itl_p99"
	E2Ep50       = "e2e_intended_p50"
	GPUSeconds   = "gpu_s_per_request" // by the server's own counters
)

// Metrics are those that can be compared, in the order in which they are shown.
func Metrics() []Metric {
	return []Metric{
		{OutputPerGPU, "1/s", true, true}, {TotalPerGPU, "1/s", true, true}, {Interactive, "1/s", true, false},
		{TTFTp50, "s", false, false}, {TTFTp99, "s", false, false}, {TPOTp50, "s", false, false}, {TPOTp99, "s", false, false},
		{ITLp99, "s", false, false}, {E2Ep50, "s", false, false}, {GPUSeconds, "s", false, false},
	}
}

// Setup is a server's configuration, apart from what makes the arms differ.
type Setup struct {
	SKU     string `json:"sku,omitempty"`
	GPUs    int    `json:"gpus,omitempty"` // 0 counts as 1
	TP      int    `json:"tp,omitempty"`
	Engine  string `json:"engine,omitempty"`
	Version string `json:"engine_version,omitempty"`
	Flags   string `json:"flags,omitempty"` // that make a configuration of their own
}

func (s Setup) String() string {
	var out []string
	for _, p := range []string{s.Engine, s.Version} {
		if p != "" {
			out = append(out, p)
		}
	}
	out = append(out, strings.TrimSpace(fmt.Sprintf("%d× %s", max(1, s.GPUs), cmp.Or(s.SKU, "GPU"))))
	if s.TP > 1 {
		out = append(out, fmt.Sprintf("TP%d", s.TP))
	}
	if s.Flags != "" {
		out = append(out, s.Flags)
	}
	return strings.Join(out, " ")
}

// Block is one cell measured once on one start of an arm's server.
type Block struct {
	Arm      string
	Setup    Setup
	Round    int    // starts of the arms in one round were measured beside each other
	Process  string // tells one process from another, such as its start time; "" where it is not known, and Round is believed
	Repeat   int    // of the cell on this start: arms send the same schedule in the same repeat
	Cell     string // the load, as [bench.Name] calls it
	Workload string // lengths alone: what stays the same between loads
	Open     bool   // open loop
	Void     bool   // the numbers are not the server's
	Why      string // it is void
	Values   map[string]float64
}

// The questions.
const (
	EqualConfiguration = "equal_configuration"
	BestAtFloor        = "best_at_floor"
)

// Verdict is the outcome of a comparison.
type Verdict string

// The verdicts. Better and Worse: the interval excludes 1. Equivalent: it lies
// within the margin. Refused: the data cannot carry a claim, whatever they show.
const (
	Better     Verdict = "better"
	Worse      Verdict = "worse"
	Equivalent Verdict = "equivalent"
	Undecided  Verdict = "undecided"
	Refused    Verdict = "refused"
)

// Options are the terms of a comparison. The zero value is ready.
type Options struct {
	Method  Method   // nil for the default: paired by rounds where there are rounds, else Welch's
	Margin  float64  // ratio within which arms count as equal: 0.02 is from 1/1.02 to 1.02; 0 for 0.02
	Level   float64  // of intervals, 0 for 0.95
	Metrics []string // nil for all
	Seed    uint64   // of methods that draw
}

func (o Options) withDefaults() Options {
	o.Margin, o.Level = cmp.Or(o.Margin, 0.02), cmp.Or(o.Level, 0.95)
	return o
}

// Interval is one of a ratio.
type Interval struct {
	Lo    float64 `json:"lo"`
	Hi    float64 `json:"hi"`
	Level float64 `json:"level"`
}

// What an interval speaks of.
const (
	OverStarts    = "starts"    // of the servers as they come up
	OverProcesses = "processes" // of the very processes that were measured
)

// Side is one arm of a comparison.
type Side struct {
	Arm    string  `json:"arm"`
	Setup  Setup   `json:"setup"`
	Cell   string  `json:"cell,omitempty"` // "" over all cells
	Value  float64 `json:"value"`          // geometric mean over starts
	Starts int     `json:"starts"`
	Blocks int     `json:"blocks"`
}

// Comparison is one ratio and what it rests on.
type Comparison struct {
	Question  string    `json:"question"`
	Workload  string    `json:"workload,omitempty"`
	Floor     float64   `json:"floor_tokens_per_s_per_user,omitempty"`
	Metric    string    `json:"metric"`
	Unit      string    `json:"unit"`
	Higher    bool      `json:"higher_is_better"`
	Base      Side      `json:"baseline"`
	Cand      Side      `json:"candidate"`
	Ratio     float64   `json:"ratio"` // candidate over baseline; 0 where there is none
	Interval  *Interval `json:"interval,omitempty"`
	Over      string    `json:"interval_over,omitempty"` // starts or processes
	Method    string    `json:"method,omitempty"`
	BetweenSD float64   `json:"sd_between_starts,omitempty"` // of the logarithm of the ratio
	WithinSD  float64   `json:"sd_within_start,omitempty"`   // of it, from block to block
	Verdict   Verdict   `json:"verdict"`
	Reason    string    `json:"reason,omitempty"`
	Needs     int       `json:"needs_starts,omitempty"` // of each arm, to tell a difference of the margin, as far as these starts show
	Warnings  []string  `json:"warnings,omitempty"`
}

// TermsError says that blocks cannot be compared as asked; it is the user's to
// correct.
type TermsError struct{ Problem, Fix string }

func (e *TermsError) Error() string { return e.Problem }

// UserError returns the fix.
func (e *TermsError) UserError() string { return e.Fix }

// Equal compares two arms at the same configuration: cell by cell, and, where
// there are several cells, over all of them (Cell ""; the geometric mean of the
// cells' ratios). Blocks of an arm with several setups, or of arms with
// different ones, are no such comparison: the error is a [*TermsError].
func Equal(blocks []Block, base, cand string, o Options) ([]Comparison, error) {
	o = o.withDefaults()
	var setups [2][]Setup
	for i, arm := range []string{base, cand} {
		for _, b := range blocks {
			if b.Arm == arm && !slices.Contains(setups[i], b.Setup) {
				setups[i] = append(setups[i], b.Setup)
			}
		}
		if len(setups[i]) == 0 {
			return nil, &TermsError{fmt.Sprintf("no block of arm %s was measured", arm), "measure both arms"}
		}
	}
	if len(setups[0]) != 1 || len(setups[1]) != 1 || setups[0][0] != setups[1][0] {
		return nil, &TermsError{
			fmt.Sprintf("the arms do not run in one configuration: %s in %s, %s in %s", base, list(setups[0]), cand, list(setups[1])),
			"compare them at their best configuration under an interactivity floor, or measure both in the same one"}
	}
	d := newData(blocks, base, cand)
	var out []Comparison
	for _, m := range o.metrics() {
		var each []*sample
		for _, cell := range d.cells {
			s := d.sample(m.Name, config{base, setups[0][0], cell}, config{cand, setups[0][0], cell})
			if s == nil {
				continue
			}
			c := o.judge(m, s)
			c.Question, c.Base.Cell, c.Cand.Cell, c.Workload = EqualConfiguration, cell, cell, d.workload[cell]
			if m.Rate && d.open[cell] {
				c.Warnings = append(c.Warnings, "in open loop throughput follows the arrivals for as long as a server keeps up: compare latencies, or closed loops")
			}
			out = append(out, c)
			if !(m.Rate && d.open[cell]) {
				each = append(each, s)
			}
		}
		if len(each) > 1 {
			c := o.judge(m, over(each))
			c.Question = EqualConfiguration
			out = append(out, c)
		}
	}
	for i := range out {
		out[i].Base.Arm, out[i].Cand.Arm = base, cand
		out[i].Base.Setup, out[i].Cand.Setup = setups[0][0], setups[1][0]
	}
	return out, nil
}

func (o Options) metrics() []Metric {
	if o.Metrics == nil {
		return Metrics()
	}
	return slices.DeleteFunc(Metrics(), func(m Metric) bool { return !slices.Contains(o.Metrics, m.Name) })
}

func list(s []Setup) string {
	var out []string
	for _, x := range s {
		out = append(out, x.String())
	}
	return strings.Join(out, " and ")
}

// config is a configuration of an arm under a load.
type config struct {
	arm   string
	setup Setup
	cell  string
}

// data are the blocks that count, by configuration, unit and place in it.
type data struct {
	cells    []string // in the order in which they were first measured
	open     map[string]bool
	workload map[string]string
	units    []int // of independent starts: those of rounds, joined where rounds share a process
	values   map[config]map[int]map[place]map[string]float64
	void     map[config]int
}

// place tells the blocks of a unit apart. Arms sent the same schedule in the
// same place.
type place struct{ round, repeat int }

func newData(blocks []Block, arms ...string) *data {
	d := &data{open: map[string]bool{}, workload: map[string]string{}, values: map[config]map[int]map[place]map[string]float64{}, void: map[config]int{}}
	unit := units(blocks, arms)
	for _, b := range blocks {
		if !slices.Contains(arms, b.Arm) {
			continue
		}
		if !slices.Contains(d.cells, b.Cell) {
			d.cells = append(d.cells, b.Cell)
		}
		d.open[b.Cell], d.workload[b.Cell] = b.Open, b.Workload
		c := config{b.Arm, b.Setup, b.Cell}
		if b.Void {
			d.void[c]++
			continue
		}
		u := unit[b.Round]
		if !slices.Contains(d.units, u) {
			d.units = append(d.units, u)
		}
		if d.values[c] == nil {
			d.values[c] = map[int]map[place]map[string]float64{}
		}
		if d.values[c][u] == nil {
			d.values[c][u] = map[place]map[string]float64{}
		}
		v := maps.Clone(b.Values)
		for _, name := range []string{OutputPerGPU, TotalPerGPU} {
			if x, ok := v[name]; ok {
				v[name] = x / float64(max(1, b.Setup.GPUs))
			}
		}
		d.values[c][u][place{b.Round, b.Repeat}] = v
	}
	slices.Sort(d.units)
	return d
}

// units joins rounds that share a process of an arm: what was measured twice on
// one process is no second start of it. A unit is called after its first round.
func units(blocks []Block, arms []string) map[int]int {
	parent := map[int]int{}
	find := func(r int) int {
		for parent[r] != r {
			r = parent[r]
		}
		return r
	}
	type proc struct {
		arm   string
		setup Setup
		id    string
	}
	first := map[proc]int{}
	for _, b := range blocks {
		if !slices.Contains(arms, b.Arm) {
			continue
		}
		if _, ok := parent[b.Round]; !ok {
			parent[b.Round] = b.Round
		}
		if b.Process == "" {
			continue
		}
		p := proc{b.Arm, b.Setup, b.Process}
		r, seen := first[p]
		if !seen {
			first[p] = b.Round
			continue
		}
		x, y := find(r), find(b.Round)
		parent[max(x, y)] = min(x, y)
	}
	out := map[int]int{}
	for r := range parent {
		out[r] = find(r)
	}
	return out
}

// sample gathers a metric of two configurations; nil when either has no value.
func (d *data) sample(metric string, base, cand config) *sample {
	s := &sample{void: d.void[base] + d.void[cand]}
	for _, u := range d.units {
		a, b := d.values[base][u], d.values[cand][u]
		var x, y []float64
		lone := 0
		both := maps.Clone(a)
		if both == nil {
			both = map[place]map[string]float64{}
		}
		maps.Copy(both, b)
		for _, p := range slices.SortedFunc(maps.Keys(both), byPlace) {
			la, okA := logOf(a[p], metric)
			lb, okB := logOf(b[p], metric)
			if okA && okB { // a schedule that only one arm sent is left out
				x, y = append(x, la), append(y, lb)
			} else if okA || okB {
				lone++
			}
		}
		if len(x) > 0 {
			s.base, s.cand = append(s.base, x), append(s.cand, y)
			s.lone += lone
			continue
		}
		s.loneBase, s.loneCand = s.alone(s.loneBase, a, metric), s.alone(s.loneCand, b, metric)
	}
	if len(s.base) == 0 && (len(s.loneBase) == 0 || len(s.loneCand) == 0) {
		return nil
	}
	return s
}

// alone keeps a unit in which only one arm was measured.
func (s *sample) alone(to [][]float64, blocks map[place]map[string]float64, metric string) [][]float64 {
	var x []float64
	for _, p := range slices.SortedFunc(maps.Keys(blocks), byPlace) {
		if l, ok := logOf(blocks[p], metric); ok {
			x = append(x, l)
		}
	}
	if len(x) == 0 {
		return to
	}
	return append(to, x)
}

func byPlace(a, b place) int {
	return cmp.Or(cmp.Compare(a.round, b.round), cmp.Compare(a.repeat, b.repeat))
}

func logOf(v map[string]float64, metric string) (float64, bool) {
	x, ok := v[metric]
	return math.Log(x), ok && x > 0 && !math.IsInf(x, 1)
}
