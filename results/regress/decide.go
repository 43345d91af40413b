package regress

import (
	"fmt"
	"math"
	"time"
)

// decide turns a finding into the night's verdict. holds says that its p-value
// stands among the night's others.
func (t *tracker) decide(f *finding, holds bool) Verdict {
	v := Verdict{Key: t.series.Key, Slot: f.night.Slot.UTC(), Run: f.night.Run, P: f.p, Segment: f.night.Segment, NewSegment: f.fresh, Simulated: f.night.Simulated}
	if math.IsNaN(v.P) {
		v.P = 1
	}
	if f.missing {
		v.Status, v.Reason = Missing, f.why
		return v
	}
	t.settle(f.night.Slot)
	v.Effect, v.Lo, v.Hi, v.Resolves = t.relative(f, f.effect), t.relative(f, f.lo), t.relative(f, f.hi), f.resolves
	switch {
	case f.why != "" && t.open == nil:
		v.Status, v.Reason = InsufficientData, f.why
		if f.fresh {
			v.Reason = "driver, engine or image changed, which opens a new segment: " + f.why
		}
	case holds:
		t.change(f, &v)
	case t.open != nil && !t.over(f):
		v.Status, v.Since, v.Reason = Regression, t.open.Since, fmt.Sprintf("%s since %s", amount(f, t.open.Effect), day(t.open.Since))
	case f.single:
		v.Status = Suspicious
		v.Reason = fmt.Sprintf("%s tonight; an alarm takes %d nights", amount(f, v.Effect), t.policy.Nights)
	default:
		v.Status, v.Reason = NoChange, fmt.Sprintf("%s, within what nights differ by", amount(f, v.Effect))
	}
	return v
}

// change records an established change, and makes the new level the one that
// later nights are compared with.
func (t *tracker) change(f *finding, v *Verdict) {
	effect, from := f.effect, f.from
	if f.night.Paired == nil {
		c := cumulate(t.adjusted())
		from = t.date(c, t.policy.Nights)
		d, se, df := c.split(max(0, from-t.policy.Baseline), from, len(t.points))
		effect = d
		half := t.quantile(df) * se
		v.Effect, v.Lo, v.Hi = t.relative(f, effect), t.relative(f, effect-half), t.relative(f, effect+half)
	}
	v.Since = t.points[from].slot.UTC()
	v.Status = Improvement
	if effect < 0 {
		v.Status, v.Alarm = Regression, true
	}
	v.Reason = fmt.Sprintf("%s since %s, over %d nights", amount(f, v.Effect), day(v.Since), len(t.points)-from)
	if f.night.Paired != nil {
		// The baseline of paired nights is another run, not the history: the same
		// difference holds on and is no second alarm.
		if t.open != nil && (t.open.Effect < 0) == (effect < 0) {
			v.Alarm, v.Since = false, t.open.Since
			v.Reason = fmt.Sprintf("%s since %s", amount(f, v.Effect), day(v.Since))
			return
		}
	} else {
		t.points = t.points[from:]
	}
	if t.open != nil && effect > 0 {
		v.Reason += fmt.Sprintf(", which ends or lessens the regression of %s", day(t.open.Since))
	}
	t.open = nil
	if effect < 0 {
		kept := *v
		t.open = &kept
	}
}

// date returns where a change of at least so many nights most likely began: the
// split of the recent nights that leaves the smallest sum of squares.
func (t *tracker) date(c sums, nights int) int {
	n := len(t.points)
	from := max(0, n-t.policy.Window-t.policy.Baseline)
	best, at := math.Inf(1), n-nights
	for i := max(from+t.policy.Before, n-t.policy.Window); i <= n-nights; i++ {
		_, before := c.spread(from, i)
		_, after := c.spread(i, n)
		if s := before + after; s < best {
			best, at = s, i
		}
	}
	return at
}

// settle closes what a person has accepted.
func (t *tracker) settle(slot time.Time) {
	for _, a := range t.series.Accepted {
		if t.open != nil && !a.Before(t.open.Since) && !a.After(slot) {
			t.open = nil
		}
	}
}

// over reports that an open regression of accuracy is gone: the last nights show
// no difference beyond the margin. That of a speed ends with an improvement, since
// its level has become the one that nights are compared with.
func (t *tracker) over(f *finding) bool {
	if f.night.Paired == nil || len(t.points) < t.policy.Nights {
		return false
	}
	for _, p := range t.points[len(t.points)-t.policy.Nights:] {
		if p.pair.Diff <= -t.policy.Margin {
			return false
		}
	}
	t.open = nil
	return true
}

// relative turns an effect into what people read: a fraction of the level before
// for speeds, the difference for accuracy.
func (t *tracker) relative(f *finding, effect float64) float64 {
	if f.night.Paired != nil {
		return effect
	}
	return math.Expm1(effect)
}

func amount(f *finding, effect float64) string {
	unit := "%"
	if f.night.Paired != nil {
		unit = " points"
	}
	word := "better"
	if effect < 0 {
		word = "worse"
	}
	return fmt.Sprintf("%.1f%s %s", 100*math.Abs(effect), unit, word)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
