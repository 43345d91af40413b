package plot

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// Ink is the part that a colour plays; what it looks like depends on where the
// figure stands. The data colours are Okabe's and Ito's (Color Universal
// Design, 2008), which most colour-blind readers tell apart; no figure rests on
// colour alone.
type Ink string

// The parts of colours.
const (
	Text   Ink = "text"
	Muted  Ink = "muted" // labels and axes
	Line   Ink = "line"  // grids
	Band   Ink = "band"  // areas that are allowed
	Blue   Ink = "blue"
	Orange Ink = "orange"
	Green  Ink = "green"
	Pink   Ink = "pink"
	Sky    Ink = "sky"
	Red    Ink = "red"
	Paper  Ink = "paper" // the background
)

// series are the inks of arms and the like, in their order.
var series = []Ink{Blue, Orange, Green, Pink, Sky, Red}

// Series is the ink of the i-th of several things.
func Series(i int) Ink { return series[i%len(series)] }

// mark is one primitive of a figure.
type mark struct {
	kind   string // line|rect|circle|text|path|diamond
	ink    Ink
	x, y   float64
	x2, y2 float64 // end of a line, size of a rectangle
	r      float64 // radius, corner or stroke width
	text   string
	size   float64
	anchor string // start|middle|end
	bold   bool
	mono   bool
	dash   bool
	fill   bool
	soft   bool // drawn at low opacity
	points [][2]float64
	href   string
	title  string
}

// Figure is a drawing of primitives in a coordinate system whose y grows
// downwards. Title and Desc say what it shows to who cannot see it.
type Figure struct {
	W, H  float64
	Title string
	Desc  string
	marks []mark
}

func (f *Figure) line(ink Ink, x, y, x2, y2, width float64) *mark {
	return f.add(mark{kind: "line", ink: ink, x: x, y: y, x2: x2, y2: y2, r: width})
}

func (f *Figure) rect(ink Ink, x, y, w, h, corner float64) *mark {
	return f.add(mark{kind: "rect", ink: ink, x: x, y: y, x2: max(w, 0), y2: max(h, 0), r: corner, fill: true})
}

func (f *Figure) circle(ink Ink, x, y, r float64) *mark {
	return f.add(mark{kind: "circle", ink: ink, x: x, y: y, r: r, fill: true})
}

func (f *Figure) diamond(ink Ink, x, y, r float64) *mark {
	return f.add(mark{kind: "path", ink: ink, fill: true, points: [][2]float64{{x, y - r}, {x + r, y}, {x, y + r}, {x - r, y}}})
}

func (f *Figure) text(ink Ink, x, y, size float64, anchor, s string) *mark {
	return f.add(mark{kind: "text", ink: ink, x: x, y: y, size: size, anchor: anchor, text: s})
}

func (f *Figure) path(ink Ink, width float64, points [][2]float64) *mark {
	return f.add(mark{kind: "path", ink: ink, r: width, points: points})
}

func (f *Figure) area(ink Ink, points [][2]float64) *mark {
	m := f.path(ink, 0, points)
	m.fill, m.soft = true, true
	return m
}

func (f *Figure) add(m mark) *mark {
	// A rasteriser does not end on what is no number.
	for _, p := range []*float64{&m.x, &m.y, &m.x2, &m.y2, &m.r} {
		*p = place(*p)
	}
	for i := range m.points {
		m.points[i] = [2]float64{place(m.points[i][0]), place(m.points[i][1])}
	}
	f.marks = append(f.marks, m)
	return &f.marks[len(f.marks)-1]
}

// Theme gives inks their colours, for a figure that stands by itself. The zero
// theme leaves them to the style sheet of the page, by the classes "ink-…" and
// "fill-…".
type Theme map[Ink]string

// Light is a theme on white.
func Light() Theme {
	return Theme{Text: "#1b1f24", Muted: "#5b6570", Line: "#d9dee3", Band: "#dcebf5", Blue: "#0072b2", Orange: "#b87500",
		Green: "#00805d", Pink: "#b0538a", Sky: "#2f8fc4", Red: "#c14f00", Paper: "#ffffff"}
}

// SVG writes the figure. Every text in it is escaped: it may come from a
// stranger's paper.
func (f *Figure) SVG(w io.Writer, t Theme) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 %s %s" width="%s" height="%s" role="img" aria-label="%s" font-family="system-ui, 'Helvetica Neue', Arial, sans-serif">`,
		num(f.W), num(f.H), num(f.W), num(f.H), html.EscapeString(visible(f.Title)))
	fmt.Fprintf(&b, "<title>%s</title>", html.EscapeString(visible(f.Title)))
	if f.Desc != "" {
		fmt.Fprintf(&b, "<desc>%s</desc>", html.EscapeString(visible(f.Desc)))
	}
	if t != nil {
		fmt.Fprintf(&b, `<rect width="%s" height="%s" fill="%s"/>`, num(f.W), num(f.H), t[Paper])
	}
	for i := range f.marks {
		f.marks[i].svg(&b, t)
	}
	b.WriteString("</svg>")
	_, err := io.WriteString(w, b.String())
	return err
}

// place is a coordinate that can be drawn.
func place(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return min(max(v, -1e5), 1e5)
}

// num is a coordinate, short.
func num(v float64) string {
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// paint is how a mark's colour is written.
func (m *mark) paint(t Theme) string {
	attr := "stroke"
	if m.fill || m.kind == "text" {
		attr = "fill"
	}
	out := ""
	if t != nil {
		out = fmt.Sprintf(` %s="%s"`, attr, t[m.ink])
	} else {
		out = fmt.Sprintf(` class="%s-%s"`, map[string]string{"fill": "fill", "stroke": "ink"}[attr], m.ink)
	}
	if attr == "stroke" {
		out += fmt.Sprintf(` fill="none" stroke-width="%s" stroke-linecap="round" stroke-linejoin="round"`, num(m.r))
	}
	if m.soft {
		out += ` fill-opacity="0.18"`
	}
	if m.dash {
		out += ` stroke-dasharray="4 4"`
	}
	return out
}

func (m *mark) svg(b *strings.Builder, t Theme) {
	if m.href != "" {
		fmt.Fprintf(b, `<a href="%s">`, html.EscapeString(visible(m.href)))
	}
	tip := ""
	if m.title != "" {
		tip = "<title>" + html.EscapeString(visible(m.title)) + "</title>"
	}
	switch m.kind {
	case "line":
		fmt.Fprintf(b, `<line x1="%s" y1="%s" x2="%s" y2="%s"%s>%s</line>`, num(m.x), num(m.y), num(m.x2), num(m.y2), m.paint(t), tip)
	case "rect":
		fmt.Fprintf(b, `<rect x="%s" y="%s" width="%s" height="%s" rx="%s"%s>%s</rect>`, num(m.x), num(m.y), num(m.x2), num(m.y2), num(m.r), m.paint(t), tip)
	case "circle":
		fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="%s"%s>%s</circle>`, num(m.x), num(m.y), num(m.r), m.paint(t), tip)
	case "path":
		var d strings.Builder
		for i, p := range m.points {
			fmt.Fprintf(&d, "%s%s %s", map[bool]string{true: "M", false: "L"}[i == 0], num(p[0]), num(p[1]))
		}
		if m.fill {
			d.WriteString("Z")
		}
		fmt.Fprintf(b, `<path d="%s"%s>%s</path>`, d.String(), m.paint(t), tip)
	case "text":
		more := ""
		if m.bold {
			more += ` font-weight="600"`
		}
		if m.mono {
			more += ` font-family="ui-monospace, Menlo, Consolas, monospace"`
		}
		fmt.Fprintf(b, `<text x="%s" y="%s" font-size="%s" text-anchor="%s"%s%s>%s</text>`, num(m.x), num(m.y), num(m.size), m.anchor, more, m.paint(t), html.EscapeString(visible(m.text)))
	}
	if m.href != "" {
		b.WriteString("</a>")
	}
}

// visible drops what no reader sees, and what XML cannot hold.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == 0xfffe || r == 0xffff || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
}

// scale maps values to places.
type scale struct{ lo, hi, from, to float64 }

func (s scale) at(v float64) float64 {
	if s.hi <= s.lo {
		return (s.from + s.to) / 2
	}
	return s.from + (min(max(v, s.lo), s.hi)-s.lo)/(s.hi-s.lo)*(s.to-s.from)
}

// ticks are round values of the scale, about n of them.
func (s scale) ticks(n int) (out []float64) {
	span := s.hi - s.lo
	if !(span > 0) || math.IsInf(span, 0) {
		return []float64{s.lo}
	}
	step := math.Pow(10, math.Floor(math.Log10(span/float64(n))))
	for _, k := range []float64{1, 2, 5, 10} {
		if span/(step*k) <= float64(n) {
			step *= k
			break
		}
	}
	first := math.Ceil(s.lo/step - 1e-9)
	for i := range 4 * n { // by count: far from zero a step may change nothing
		v := (first + float64(i)) * step
		if v > s.hi+step*1e-9 {
			break
		}
		out = append(out, v)
	}
	return out
}

// widened adds room at both ends.
func widened(lo, hi, share float64) (float64, float64) {
	d := (hi - lo) * share
	if d == 0 {
		d = max(math.Abs(lo)*share, 1e-9)
	}
	return lo - d, hi + d
}

// short is a number as a tick says it.
func short(v float64) string {
	if v == 0 {
		return "0" // and not −0
	}
	s := strconv.FormatFloat(v, 'g', 4, 64)
	if a := math.Abs(v); a >= 1e4 && a < 1e15 {
		s = strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strings.ReplaceAll(s, "-", "−")
}

// clip shortens a label to n characters.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return strings.TrimSpace(string(r[:n-1])) + "…"
	}
	return s
}
