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
