// Package estimators holds what all estimates share: an estimate is a point
// with an interval, what it was made from, and what had to be assumed.
package estimators

import (
	"math"
)

// Interval is a distribution by three of its quantiles.
type Interval struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}

// Widen stretches an interval of a positive quantity on the logarithmic scale.
func (i Interval) Widen(by float64) Interval {
	if i.P10 <= 0 || i.P50 <= 0 {
		return i
	}
	return Interval{P10: i.P50 * math.Pow(i.P10/i.P50, by), P50: i.P50, P90: i.P50 * math.Pow(i.P90/i.P50, by)}
}

// Inverse is the interval of by/x: of a time when x is a rate.
func (i Interval) Inverse(by float64) Interval {
	return Interval{P10: by / i.P90, P50: by / i.P50, P90: by / i.P10}
}

// Scale multiplies.
func (i Interval) Scale(by float64) Interval {
	return Interval{P10: i.P10 * by, P50: i.P50 * by, P90: i.P90 * by}
}

// Plus adds quantities that are large or small together: their quantiles add.
func (i Interval) Plus(o Interval) Interval {
	return Interval{P10: i.P10 + o.P10, P50: i.P50 + o.P50, P90: i.P90 + o.P90}
}

// Times multiplies positive quantities that know nothing of each other: on the
// logarithmic scale the widths of a side add as squares.
func (i Interval) Times(o Interval) Interval {
	if i.P10 <= 0 || i.P50 <= 0 || o.P10 <= 0 || o.P50 <= 0 {
		return Interval{P10: i.P10 * o.P10, P50: i.P50 * o.P50, P90: i.P90 * o.P90}
	}
	mid := i.P50 * o.P50
	lo := math.Hypot(math.Log(i.P50/i.P10), math.Log(o.P50/o.P10))
	hi := math.Hypot(math.Log(i.P90/i.P50), math.Log(o.P90/o.P50))
	return Interval{P10: mid * math.Exp(-lo), P50: mid, P90: mid * math.Exp(hi)}
}

// Most is the larger of two quantities that wait for each other, quantile by
// quantile.
func (i Interval) Most(o Interval) Interval {
	return Interval{P10: max(i.P10, o.P10), P50: max(i.P50, o.P50), P90: max(i.P90, o.P90)}
}

// Exact is a quantity that is known.
func Exact(v float64) Interval { return Interval{P10: v, P50: v, P90: v} }
