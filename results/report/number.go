package report

import (
	"math"
	"strconv"
	"strings"
)

// Number formats v with at most sig significant digits, no trailing zeros, and
// thousands separated from 10,000 on. What has no decimal digits of interest
// (12,032; 5) is written as an integer.
func Number(v float64, sig int) string {
	switch {
	case math.IsNaN(v):
		return "n/a"
	case math.IsInf(v, 1):
		return "∞"
	case math.IsInf(v, -1):
		return "−∞"
	case v == 0:
		return "0"
	}
	abs := math.Abs(v)
	if abs < 1e-4 || abs >= 1e15 {
		return minus(strconv.FormatFloat(v, 'g', sig, 64))
	}
	decimals := max(0, sig-1-int(math.Floor(math.Log10(abs))))
	return group(strconv.FormatFloat(v, 'f', decimals, 64))
}

// Exact formats v with the digits it was stated with.
func Exact(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) || v != 0 && (math.Abs(v) < 1e-4 || math.Abs(v) >= 1e15) {
		return Number(v, 6)
	}
	return group(strconv.FormatFloat(v, 'f', -1, 64))
}

// group trims trailing zeros and separates thousands.
func group(s string) string {
	whole, frac, _ := strings.Cut(s, ".")
	frac = strings.TrimRight(frac, "0")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "−", whole[1:]
	}
	if len(whole) > 4 {
		for i := len(whole) - 3; i > 0; i -= 3 {
			whole = whole[:i] + "," + whole[i:]
		}
	}
	if frac != "" {
		whole += "." + frac
	}
	if whole == "0" {
		return whole
	}
	return sign + whole
}

func minus(s string) string { return strings.ReplaceAll(s, "-", "−") }

// WithUnit joins a formatted number and its unit: "31 %", "5.4×", "$0.42",
// "12 ms".
func WithUnit(num, unit string) string {
	switch strings.ToLower(unit) {
	case "", "1":
		return num
	case "x", "×", "times", "ratio":
		return num + "×"
	case "usd", "$":
		if rest, neg := strings.CutPrefix(num, "−"); neg {
			return "−$" + rest
		}
		return "$" + num
	case "percent", "%":
		return num + " %"
	}
	return num + " " + unit
}

// Seconds formats a duration as people say it: "12 ms", "8.4 s", "3 min 20 s",
// "5 h 10 min".
func Seconds(s float64) string {
	switch abs := math.Abs(s); {
	case math.IsNaN(s) || math.IsInf(s, 0):
		return Number(s, 2)
	case s == 0:
		return "0 s"
	case s < 0:
		return "−" + Seconds(-s)
	case abs < 1e-3:
		return Number(s*1e6, 3) + " µs"
	case abs < 1:
		return Number(s*1e3, 3) + " ms"
	case abs < 99.5:
		return Number(s, 2+min(1, int(abs/10))) + " s"
	case abs < 3600:
		return twoUnits(s, 60, "min", 1, "s")
	case abs < 48*3600:
		return twoUnits(s, 3600, "h", 60, "min")
	}
	return twoUnits(s, 86400, "d", 3600, "h")
}

func twoUnits(s, big float64, bigName string, small float64, smallName string) string {
	n := int64(math.Round(s / small))
	per := int64(big / small)
	out := Number(float64(n/per), 15) + " " + bigName
	if rest := n % per; rest != 0 {
		out += " " + strconv.FormatInt(rest, 10) + " " + smallName
	}
	return out
}

// reported is a stated value or range with its unit, "31–42 %".
func (c *Claim) reported() string {
	q := c.Reported
	switch {
	case q == nil:
		return "–"
	case q.Lo != nil && q.Hi != nil:
		return WithUnit(Exact(*q.Lo)+"–"+Exact(*q.Hi), c.Unit)
	case q.Value != nil:
		return WithUnit(Exact(*q.Value), c.Unit)
	case q.Lo != nil:
		return "at least " + WithUnit(Exact(*q.Lo), c.Unit)
	case q.Hi != nil:
		return "at most " + WithUnit(Exact(*q.Hi), c.Unit)
	}
	return "–"
}

// measured is the measured value with its interval, "36.5 % [35.1, 37.9]". It
// has as many digits as the interval supports, or two more than were stated.
func (c *Claim) measured() string {
	q := c.Measured
	if q == nil || q.Value == nil {
		return "–"
	}
	v := *q.Value
	if q.Lo == nil || q.Hi == nil {
		return WithUnit(Number(v, 4), c.Unit)
	}
	decimals := intervalDecimals(*q.Lo, *q.Hi)
	f := func(v float64) string {
		if decimals < 0 {
			return Number(v, 4)
		}
		return group(strconv.FormatFloat(v, 'f', decimals, 64))
	}
	return WithUnit(f(v), c.Unit) + " [" + f(*q.Lo) + ", " + f(*q.Hi) + "]"
}

// intervalDecimals is how many decimals leave two significant digits of the
// interval's half-width, -1 when the interval is no guide.
func intervalDecimals(lo, hi float64) int {
	half := (hi - lo) / 2
	if !(half > 0) || math.IsInf(half, 0) || half < 1e-6 {
		return -1
	}
	return min(6, max(0, 1-int(math.Floor(math.Log10(half)))))
}

// tolerance is "±0.5 % (rounding)" or "±5 % of it (default)".
func (c *Claim) tolerance() string {
	t := c.Tolerance
	if t == nil {
		return "–"
	}
	s := "±" + WithUnit(Exact(t.Value), c.Unit)
	if t.Kind == "relative" {
		s = "±" + Number(t.Value*100, 4) + " % of it"
	}
	if t.Source != "" {
		s += " (" + t.Source + ")"
	}
	return s
}

// versus names what a relative value is against. Which way is better says
// nothing about which way the value was meant, so it is not printed here: the
// metric's name says whether a reduction or an increase is claimed.
func (c *Claim) versus() string {
	if c.Baseline == "" {
		return ""
	}
	return "against " + c.Baseline
}
