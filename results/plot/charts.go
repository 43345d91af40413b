package plot

import (
	"fmt"
	"math"
)

// Stated is a claim's value beside what was measured, in the claim's unit.
type Stated struct {
	Name     string  // the metric
	Verdict  string  // in words
	Ink      Ink     // of the verdict
	Lo, Hi   float64 // the reported value or range
	TolLo    float64 // with its tolerance
	TolHi    float64
	Measured *float64
	MLo, MHi *float64 // interval of the measured value
	// MeasuredText is the measured value with its unit.
	MeasuredText string
	Href         string
}

// Claims draws every claim on a scale of its own: the reported value with its
// tolerance as a band, the measured value as a point with its whiskers.
func Claims(list []Stated) *Figure {
	const row, left, right, top = 54, 210, 700, 26
	f := &Figure{W: 860, H: top + row*float64(len(list)) + 8, Title: "claims: reported and measured",
		Desc: "One line for each claim. The bar is what is reported, with its tolerance around it; the point is what was measured."}
	f.rect(Blue, left, 6, 22, 8, 2)
	f.text(Muted, left+28, 14, 11, "start", "reported")
	f.rect(Band, left+96, 4, 22, 12, 2)
	f.text(Muted, left+124, 14, 11, "start", "with tolerance")
	f.diamond(Red, left+226, 10, 6)
	f.text(Muted, left+240, 14, 11, "start", "measured")
	for i, c := range list {
		y := top + row*float64(i) + row/2
		if i > 0 {
			f.line(Line, 0, y-row/2, f.W, y-row/2, 1)
		}
		t := f.text(Text, 0, y-1, 13, "start", clip(c.Name, 30))
		t.bold, t.href = true, c.Href
		f.text(c.Ink, 0, y+15, 12, "start", c.Verdict)
		lo, hi := min(c.TolLo, c.Lo), max(c.TolHi, c.Hi)
		for _, v := range []*float64{c.Measured, c.MLo, c.MHi} {
			if v != nil {
				lo, hi = min(lo, *v), max(hi, *v)
			}
		}
		lo, hi = widened(lo, hi, 0.14)
		s := scale{lo, hi, left, right}
		f.line(Line, left, y+12, right, y+12, 1)
		for _, v := range s.ticks(5) {
			f.line(Muted, s.at(v), y+12, s.at(v), y+15, 1)
			f.text(Muted, s.at(v), y+25, 9.5, "middle", short(v))
		}
		f.rect(Band, s.at(c.TolLo), y-12, s.at(c.TolHi)-s.at(c.TolLo), 18, 3)
		w := max(s.at(c.Hi)-s.at(c.Lo), 3)
		f.rect(Blue, (s.at(c.Lo)+s.at(c.Hi))/2-w/2, y-9, w, 12, 2).title = "reported"
		if c.Measured == nil {
			f.text(Muted, right+16, y, 12, "start", "not measured")
			continue
		}
		if c.MLo != nil && c.MHi != nil {
			whisker(f, Red, s.at(*c.MLo), s.at(*c.MHi), y-3, 5)
		}
		f.diamond(Red, s.at(*c.Measured), y-3, 7).title = "measured"
		m := f.text(Text, right+16, y, 14, "start", clip(c.MeasuredText, 20))
		m.bold = true
		f.text(Muted, right+16, y+15, 11, "start", "measured")
	}
	return f
}

func whisker(f *Figure, ink Ink, x, x2, y, h float64) {
	f.line(ink, x, y, x2, y, 2)
	f.line(ink, x, y-h, x, y+h, 2)
	f.line(ink, x2, y-h, x2, y+h, 2)
}

// Spent is one kind of cost, estimated and measured.
type Spent struct {
	Name          string
	Estimated     string // in words
	Used          string
	P10, P50, P90 *float64
	Measured      *float64
}

// Cost draws what was expected, by its 10 % to 90 % interval, and what was used
// of it, each kind on a scale of its own.
func Cost(list []Spent) *Figure {
	const row, left, right, top = 50, 130, 610, 8
	f := &Figure{W: 860, H: top + row*float64(len(list)), Title: "cost: estimated and measured",
		Desc: "One line for each kind of cost. The bar is the estimate's 10 to 90 % interval with its median; the filled bar below is what was measured."}
	for i, c := range list {
		y := top + row*float64(i) + row/2
		if i > 0 {
			f.line(Line, 0, y-row/2, f.W, y-row/2, 1)
		}
		f.text(Text, 0, y+4, 13, "start", c.Name).bold = true
		hi := 0.0
		for _, v := range []*float64{c.P10, c.P50, c.P90, c.Measured} {
			if v != nil {
				hi = max(hi, *v)
			}
		}
		s := scale{0, hi * 1.04, left, right}
		f.rect(Line, left, y+3, right-left, 9, 4).soft = true
		if c.P10 != nil && c.P90 != nil {
			f.rect(Band, s.at(*c.P10), y-13, s.at(*c.P90)-s.at(*c.P10), 11, 3).title = "10 % to 90 % of the estimate"
		}
		if c.P50 != nil {
			f.line(Blue, s.at(*c.P50), y-15, s.at(*c.P50), y, 2.5).title = "median of the estimate"
		}
		if c.Measured != nil {
			f.rect(Blue, left, y+3, max(s.at(*c.Measured)-left, 2), 9, 4).title = "measured"
		}
		f.text(Muted, right+18, y-4, 12, "start", "est. "+c.Estimated)
		f.text(Text, right+18, y+12, 13, "start", c.Used).bold = true
	}
	return f
}

// Compared is the paired difference of a candidate from its baseline, in
// percentage points.
type Compared struct {
	Name    string
	Verdict string
	Ink     Ink
	Diff    float64
	Lo, Hi  *float64
	Margin  float64
	Href    string
}

// Paired draws paired differences with their intervals on one scale, and the
// margin within which they count as equal.
func Paired(list []Compared) *Figure {
	const row, left, right, top = 46, 230, 690, 30
	f := &Figure{W: 860, H: top + row*float64(len(list)) + 40, Title: "paired differences with their intervals and the margin",
		Desc: "Candidate minus baseline in percentage points. The shaded zone is the margin within which the difference counts as none."}
	reach := 0.0
	for _, c := range list {
		reach = max(reach, c.Margin, math.Abs(c.Diff))
		if c.Lo != nil && c.Hi != nil {
			reach = max(reach, math.Abs(*c.Lo), math.Abs(*c.Hi))
		}
	}
	reach = max(reach*1.15, 1e-6)
	s := scale{-reach, reach, left, right}
	bottom := top + row*float64(len(list))
	f.text(Muted, s.at(0)-10, 14, 11, "end", "← candidate worse")
	f.text(Muted, s.at(0)+10, 14, 11, "start", "candidate better →")
	for i, c := range list {
		y := top + row*float64(i)
		f.rect(Band, s.at(-c.Margin), y, s.at(c.Margin)-s.at(-c.Margin), row, 0).title = "margin ±" + short(c.Margin) + " points"
		for _, m := range []float64{-c.Margin, c.Margin} {
			f.line(Blue, s.at(m), y, s.at(m), y+row, 1).dash = true
		}
	}
	f.line(Muted, s.at(0), top, s.at(0), bottom, 1)
	for i, c := range list {
		y := top + row*float64(i) + row/2
		t := f.text(Text, 0, y-1, 13, "start", clip(c.Name, 32))
		t.bold, t.href = true, c.Href
		f.text(c.Ink, 0, y+15, 12, "start", c.Verdict)
		if c.Lo != nil && c.Hi != nil {
			whisker(f, c.Ink, s.at(*c.Lo), s.at(*c.Hi), y, 6)
		}
		f.circle(c.Ink, s.at(c.Diff), y, 5.5)
		f.text(Text, right+18, y-1, 13, "start", fmt.Sprintf("%s points", signed(c.Diff))).bold = true
		if c.Lo != nil && c.Hi != nil {
			f.text(Muted, right+18, y+15, 11, "start", signed(*c.Lo)+" to "+signed(*c.Hi))
		}
	}
	f.line(Muted, left, bottom, right, bottom, 1)
	for _, v := range s.ticks(7) {
		f.line(Muted, s.at(v), bottom, s.at(v), bottom+4, 1)
		f.text(Muted, s.at(v), bottom+17, 10, "middle", signed(v))
	}
	f.text(Muted, (left+right)/2, bottom+33, 11, "middle", "candidate minus baseline, percentage points")
	return f
}

func signed(v float64) string {
	s := fmt.Sprintf("%+.2f", v)
	if s[0] == '-' {
		s = "−" + s[1:]
	}
	return s
}
