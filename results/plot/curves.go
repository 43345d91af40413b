package plot

import (
	"math"
	"slices"
)

// Look is a comparison after some questions, in percentage points.
type Look struct {
	N      int
	Diff   float64
	Lo, Hi *float64
}

// Evidence draws how the paired difference and its interval, which holds at all
// looks at once, narrow with the questions, and where the test stopped.
func Evidence(looks []Look, margin float64, total int, verdict string) *Figure {
	const left, right, top, bottom = 64, 830, 22, 230
	f := &Figure{W: 860, H: 272, Title: "evidence over questions", Desc: "The running difference with its interval, the margin, and the question at which the comparison was decided."}
	if len(looks) == 0 {
		return f
	}
	reach := margin * 2.5
	last := looks[len(looks)-1]
	for _, l := range looks[len(looks)/3:] {
		reach = max(reach, math.Abs(l.Diff)*1.2)
	}
	if last.Lo != nil && last.Hi != nil {
		reach = max(reach, math.Abs(*last.Lo)*1.3, math.Abs(*last.Hi)*1.3)
	}
	x := scale{0, float64(max(total, last.N, 1)), left, right}
	y := scale{-reach, reach, bottom, top}
	f.rect(Band, left, y.at(margin), right-left, y.at(-margin)-y.at(margin), 0)
	for _, m := range []float64{-margin, margin} {
		f.line(Blue, left, y.at(m), right, y.at(m), 1).dash = true
	}
	f.text(Blue, right-4, y.at(margin)-5, 11, "end", "margin")
	f.line(Muted, left, y.at(0), right, y.at(0), 1)
	var upper, lower, mid [][2]float64
	for _, l := range looks {
		at := x.at(float64(l.N))
		mid = append(mid, [2]float64{at, y.at(l.Diff)})
		if l.Lo != nil && l.Hi != nil {
			upper, lower = append(upper, [2]float64{at, y.at(*l.Hi)}), append(lower, [2]float64{at, y.at(*l.Lo)})
		}
	}
	if len(upper) > 1 {
		slices.Reverse(lower)
		f.area(Red, append(slices.Clone(upper), lower...))
		f.path(Red, 1, upper)
		f.path(Red, 1, lower)
	}
	f.path(Red, 2.2, mid)
	at := x.at(float64(last.N))
	f.line(Text, at, top, at, bottom, 1.5).dash = true
	anchor, dx := "start", 6.0
	if at > (left+right)/2 {
		anchor, dx = "end", -6
	}
	f.text(Text, at+dx, top+10, 12, anchor, verdict+" after "+short(float64(last.N))+" of "+short(float64(max(total, last.N)))+" questions").bold = true
	axes(f, x, y, left, right, top, bottom, "questions asked", "points")
	return f
}

func axes(f *Figure, x, y scale, left, right, top, bottom float64, xl, yl string) {
	f.line(Muted, left, bottom, right, bottom, 1)
	f.line(Muted, left, top, left, bottom, 1)
	for _, v := range x.ticks(8) {
		f.line(Muted, x.at(v), bottom, x.at(v), bottom+4, 1)
		f.text(Muted, x.at(v), bottom+17, 10, "middle", short(v))
	}
	for _, v := range y.ticks(5) {
		f.line(Muted, left-4, y.at(v), left, y.at(v), 1)
		f.text(Muted, left-8, y.at(v)+3.5, 10, "end", short(v))
	}
	f.text(Muted, (left+right)/2, bottom+35, 11, "middle", xl)
	f.text(Muted, left-8, top-8, 11, "start", yl)
}

// Point is one operating point of a server.
type Point struct {
	Arm        string
	X, Y       float64 // latency, and throughput
	Label      string
	Dominated  bool // another point of the arm has both better
	Simulated  bool
	Href, Note string
}

// Frontier draws throughput over latency: of each arm its operating points, and
// the line through those that no other point of it beats in both.
func Frontier(points []Point, xl, yl string) *Figure {
	const left, right, top, bottom = 74, 830, 34, 300
	f := &Figure{W: 860, H: 342, Title: "throughput and latency", Desc: "Every operating point; the line joins those that no other point of the same arm beats in both."}
	if len(points) == 0 {
		return f
	}
	xhi, yhi := 0.0, 0.0
	var arms []string
	for _, p := range points {
		xhi, yhi = max(xhi, p.X), max(yhi, p.Y)
		if !slices.Contains(arms, p.Arm) {
			arms = append(arms, p.Arm)
		}
	}
	x, y := scale{0, xhi * 1.08, left, right}, scale{0, yhi * 1.1, bottom, top}
	for _, v := range y.ticks(5) {
		f.line(Line, left, y.at(v), right, y.at(v), 1)
	}
	lx := float64(left)
	var labels [][2]float64 // where one begins
	for i, arm := range arms {
		ink := Series(i)
		f.circle(ink, lx+6, 10, 5)
		f.text(Text, lx+16, 14, 12, "start", clip(arm, 28))
		lx += 40 + 7*float64(len([]rune(clip(arm, 28))))
		var best []Point
		for _, p := range points {
			if p.Arm == arm && !p.Dominated {
				best = append(best, p)
			}
		}
		slices.SortFunc(best, func(a, b Point) int { return int(math.Copysign(1, a.X-b.X)) })
		var line [][2]float64
		for _, p := range best {
			line = append(line, [2]float64{x.at(p.X), y.at(p.Y)})
		}
		if len(line) > 1 {
			f.path(ink, 2, line)
		}
		for _, p := range points {
			if p.Arm != arm {
				continue
			}
			m := f.circle(ink, x.at(p.X), y.at(p.Y), 4.5)
			m.soft, m.href, m.title = p.Dominated, p.Href, p.Note
			at := [2]float64{x.at(p.X) + 7, y.at(p.Y) - 7}
			covered := slices.ContainsFunc(labels, func(o [2]float64) bool {
				return math.Abs(o[1]-at[1]) < 11 && math.Abs(o[0]-at[0]) < 7*float64(len(p.Label))
			})
			if p.Label != "" && !p.Dominated && !covered {
				f.text(Muted, at[0], at[1], 10, "start", p.Label)
				labels = append(labels, at)
			}
		}
	}
	axes(f, x, y, left, right, top, bottom, xl, yl)
	return f
}

// Night is one value of a series; NaN is a night without one.
type Night struct {
	Value float64
	Ink   Ink // "" is no mark
}

// Sparkline draws a series small enough for a line of a table.
func Sparkline(nights []Night, title string) *Figure {
	f := &Figure{W: 140, H: 28, Title: title}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, n := range nights {
		if !math.IsNaN(n.Value) {
			lo, hi = min(lo, n.Value), max(hi, n.Value)
		}
	}
	if lo > hi {
		return f
	}
	x, y := scale{0, float64(max(len(nights)-1, 1)), 4, 136}, scale{lo, hi, 23, 5}
	var run [][2]float64
	flush := func() {
		if len(run) > 1 {
			f.path(Blue, 1.5, run)
		}
		run = nil
	}
	for i, n := range nights {
		if math.IsNaN(n.Value) {
			flush()
			continue
		}
		run = append(run, [2]float64{x.at(float64(i)), y.at(n.Value)})
	}
	flush()
	for i, n := range nights {
		if n.Ink != "" && !math.IsNaN(n.Value) {
			f.circle(n.Ink, x.at(float64(i)), y.at(n.Value), 3)
		}
	}
	return f
}

// Card is what the picture of a verdict says.
type Card struct {
	Title   string
	Subject string // "arXiv 2604.08075v1"
	Verdict string // in words
	Ink     Ink
	Tally   string
	Lines   [][3]string // a claim: name, reported, measured
	Notice  string
	Foot    string
}

// VerdictCard is a picture of the size that chats show beside a link.
func VerdictCard(c Card) *Figure {
	f := &Figure{W: 1200, H: 630, Title: c.Title + ": " + c.Verdict, Desc: c.Tally}
	f.rect(c.Ink, 0, 0, 14, 630, 0)
	f.text(Muted, 64, 74, 24, "start", c.Subject)
	y := 124.0
	for _, l := range lines(c.Title, 52, 2) {
		f.text(Text, 64, y, 38, "start", l).bold = true
		y += 48
	}
	f.text(c.Ink, 64, y+34, 52, "start", c.Verdict).bold = true
	f.text(Muted, 64, y+76, 24, "start", clip(c.Tally, 84))
	y += 122
	for _, l := range c.Lines[:min(3, len(c.Lines))] {
		f.line(Line, 64, y-20, 1136, y-20, 1)
		f.text(Text, 64, y+12, 24, "start", clip(l[0], 30)).bold = true
		f.text(Muted, 560, y+12, 24, "start", clip(l[1], 24))
		f.text(Text, 860, y+12, 24, "start", clip(l[2], 24))
		y += 52
	}
	if c.Notice != "" {
		f.text(Orange, 64, 556, 20, "start", clip(c.Notice, 105))
	}
	f.text(Muted, 64, 596, 20, "start", c.Foot)
	f.text(Text, 1136, 596, 22, "end", "repromill").bold = true
	return f
}

// lines breaks a text at spaces, into at most n lines of width characters.
func lines(s string, width, n int) (out []string) {
	for s != "" && len(out) < n {
		r := []rune(s)
		if len(r) <= width {
			return append(out, s)
		}
		if len(out) == n-1 {
			return append(out, clip(s, width))
		}
		cut := width
		for i := width; i > width/2; i-- {
			if r[i] == ' ' {
				cut = i
				break
			}
		}
		out, s = append(out, string(r[:cut])), string(r[min(cut+1, len(r)):])
	}
	return out
}
