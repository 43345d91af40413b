// Package regress says which series of nightly results have changed, and since
// when.
//
// It cries neither wolf nor sleeps: one bad night is suspicious and no alarm; an
// alarm needs two nights, an effect above a floor, and evidence that holds over
// all series looked at that night and over looking every night. A change of
// driver, engine or image opens a new segment and is no alarm. A night without a
// result is a result of its own.
package regress

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Key names a series. Two nights are compared only within one.
type Key struct {
	Suite     string `json:"suite"`
	Task      string `json:"task,omitzero"` // cell of a throughput suite, category of an accuracy suite
	Metric    string `json:"metric"`
	Model     string `json:"model"`
	Precision string `json:"precision,omitzero"`
	SKU       string `json:"sku,omitzero"`
	Engine    string `json:"engine,omitzero"` // with its major version
	Image     string `json:"image,omitzero"`  // lineage, without tag
}

// String returns the parts that are set, separated by slashes.
func (k Key) String() string {
	var parts []string
	for _, p := range []string{k.Suite, k.Task, k.Metric, k.Model, k.Precision, k.SKU, k.Engine, k.Image} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

// Paired is a candidate's accuracy against the baseline's on the same items, as
// a paired test has it.
type Paired struct {
	Items    int     `json:"items"`
	Diff     float64 `json:"diff"`     // candidate less baseline, a fraction
	Lo       float64 `json:"lo"`       // interval of Diff
	Hi       float64 `json:"hi"`       //
	P        float64 `json:"p"`        // two-sided p-value of no difference
	Resolves float64 `json:"resolves"` // smallest difference that these items show with power 0.8
}

// Night is what one slot gave of one series. Exactly one of Candidate, Paired and
// Missing is set.
type Night struct {
	Slot time.Time `json:"slot"`
	Run  string    `json:"run_id,omitzero"`
	// Candidate are the repetitions of a speed. Canary are those of a pinned
	// configuration on the same node in the same night, by which drift of the
	// machine is told from a change; it may be empty.
	Candidate []float64 `json:"candidate,omitempty"`
	Canary    []float64 `json:"canary,omitempty"`
	Paired    *Paired   `json:"paired,omitempty"`
	Missing   string    `json:"missing,omitzero"` // why there is no result
	// Segment is what the night ran on: driver, exact engine version, image digest.
	Segment   string `json:"segment,omitzero"`
	Simulated bool   `json:"simulated,omitzero"` // the numbers are of a simulation
}

// Series is the history of one key.
type Series struct {
	Key           Key     `json:"key"`
	LowerIsBetter bool    `json:"lower_is_better"`
	Nights        []Night `json:"nights"` // in any order, one for a slot
	// Accepted are slots whose level was declared the new normal by a person: an
	// open regression ends there.
	Accepted []time.Time `json:"accepted,omitempty"`
}

// Status of a series in a night.
type Status string

// The statuses, as the verdicts table spells them.
const (
	Regression       Status = "regression"
	Suspicious       Status = "suspicious"
	Improvement      Status = "improvement"
	NoChange         Status = "no_change"
	InsufficientData Status = "insufficient_data"
	Missing          Status = "missing"
)

// Policy is how decisions are taken. The zero value is the default of every field.
type Policy struct {
	// Floor is the smallest change of a speed that is worth an alarm, a fraction: 0.02.
	Floor float64 `json:"floor"`
	// Margin is the same for accuracy, a fraction: 0.01.
	Margin float64 `json:"margin"`
	// Alpha bounds the chance of a false alarm of one series in one night: 0.0005.
	Alpha float64 `json:"alpha"`
	// FDR bounds the share of false alarms among a night's alarms, over all series
	// (Benjamini and Hochberg): 0.05.
	FDR float64 `json:"fdr"`
	// Nights is how many a change lasts before it is an alarm: 2.
	Nights int `json:"nights"`
	// Before is how many nights a level needs before changes from it are seen: 5.
	Before int `json:"before"`
	// Window is over how many recent nights a change is sought: 28.
	Window int `json:"window"`
	// Baseline is how many nights before a change its level is taken from: 60.
	Baseline int `json:"baseline"`
}

// WithDefaults returns the policy with its zero fields filled in.
func (p Policy) WithDefaults() Policy {
	p.Floor, p.Margin = cmp.Or(p.Floor, 0.02), cmp.Or(p.Margin, 0.01)
	p.Alpha, p.FDR = cmp.Or(p.Alpha, 0.0005), cmp.Or(p.FDR, 0.05)
	p.Nights, p.Before = cmp.Or(p.Nights, 2), cmp.Or(p.Before, 5)
	p.Window, p.Baseline = cmp.Or(p.Window, 28), cmp.Or(p.Baseline, 60)
	return p
}

// Check refuses a policy that decides nothing or everything.
func (p Policy) Check() error {
	p = p.WithDefaults()
	switch {
	case !(p.Floor > 0 && p.Floor < 1), !(p.Margin > 0 && p.Margin < 1):
		return fmt.Errorf("check policy: floor %v and margin %v are fractions between 0 and 1", p.Floor, p.Margin)
	case !(p.Alpha > 0 && p.Alpha < 0.5), !(p.FDR > 0 && p.FDR < 1):
		return fmt.Errorf("check policy: alpha %v lies between 0 and 0.5, fdr %v between 0 and 1", p.Alpha, p.FDR)
	case p.Nights < 1 || p.Before < 3 || p.Window < p.Nights || p.Baseline < p.Before:
		return fmt.Errorf("check policy: nights %d are at least 1, before %d at least 3, window %d at least nights, baseline %d at least before", p.Nights, p.Before, p.Window, p.Baseline)
	}
	return nil
}

// Verdict is what is held of one series after one night.
type Verdict struct {
	Key    Key       `json:"key"`
	Slot   time.Time `json:"slot"`
	Run    string    `json:"run_id,omitzero"`
	Status Status    `json:"status"`
	// Alarm is set in the night in which a regression is established, and not again
	// while it lasts.
	Alarm bool `json:"alarm,omitzero"`
	// Effect is the change against the level before: relative for speeds (−0.03 is
	// 3 % worse whatever the metric's direction), a difference for accuracy. Lo and Hi
	// are its 95 % interval.
	Effect float64 `json:"effect"`
	Lo     float64 `json:"lo"`
	Hi     float64 `json:"hi"`
	P      float64 `json:"p"`
	// Resolves is the smallest change that tonight would have shown at once.
	Resolves float64   `json:"resolves,omitzero"`
	Since    time.Time `json:"since,omitzero"` // first night of the change
	Reason   string    `json:"reason"`
	Segment  string    `json:"segment,omitzero"`
	// NewSegment is set in the first night of a segment.
	NewSegment bool `json:"new_segment,omitzero"`
	Simulated  bool `json:"simulated,omitzero"`
}

// family is how far back the tests lie that count as those of one night: series
// that begin at different hours are looked at by the same people.
const family = 12 * time.Hour

// Evaluate replays the histories slot by slot and returns the verdicts of every
// series, in the order of series, each in the order of its slots. Series may have
// different slots; that one is missing is what its [Night] says. False discoveries
// are bounded over all tests of the last twelve hours.
//
// It is deterministic: the verdict of a night depends on that night and those
// before it alone, so that yesterday's report can be recomputed tomorrow.
func Evaluate(series []Series, p Policy) ([][]Verdict, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	p = p.WithDefaults()
	trackers := make([]*tracker, len(series))
	t975 := map[float64]float64{}
	var slots []time.Time
	for i, s := range series {
		t, err := newTracker(s, p, t975)
		if err != nil {
			return nil, err
		}
		trackers[i] = t
		for _, n := range s.Nights {
			slots = append(slots, n.Slot.UTC())
		}
	}
	slices.SortFunc(slots, time.Time.Compare)
	slots = slices.CompactFunc(slots, time.Time.Equal)
	out := make([][]Verdict, len(series))
	var tonight []finding // those of the slot last
	for _, slot := range slots {
		tonight = slices.DeleteFunc(tonight, func(f finding) bool { return slot.Sub(f.night.Slot) >= family })
		earlier := len(tonight)
		for i, t := range trackers {
			if f, ok := t.look(slot); ok {
				f.series = i
				tonight = append(tonight, f)
			}
		}
		holds := benjaminiHochberg(tonight, p.FDR)
		for j := earlier; j < len(tonight); j++ {
			f := &tonight[j]
			out[f.series] = append(out[f.series], trackers[f.series].decide(f, holds[j] && f.p <= p.Alpha))
		}
	}
	return out, nil
}

// benjaminiHochberg says which findings hold when the share of false ones is
// bounded by q. Only tests that were made count.
//
// Source: Benjamini and Hochberg 1995, J. R. Statist. Soc. B 57, 289–300.
func benjaminiHochberg(f []finding, q float64) []bool {
	var order []int
	for i := range f {
		if !math.IsNaN(f[i].p) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(f[a].p, f[b].p) })
	holds := make([]bool, len(f))
	for k := len(order) - 1; k >= 0; k-- {
		if f[order[k]].p <= q*float64(k+1)/float64(len(order)) {
			for _, i := range order[:k+1] {
				holds[i] = true
			}
			break
		}
	}
	return holds
}
