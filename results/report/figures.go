package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/repromill/repromill/results/plot"
)

// InkOf is the colour in which a verdict is drawn; words always stand beside it.
func InkOf(verdict string) plot.Ink {
	switch verdict {
	case Aligned, "equivalent", "better", "not_worse", "improvement", "no_change":
		return plot.Green
	case "worse", "regression", "failed":
		return plot.Red
	case NotAttempted, NotCheckable, "missing", "insufficient_data":
		return plot.Muted
	}
	return plot.Orange
}

// Figures lists the drawings of the report, by name, in the order in which they
// are shown: claims, cost, differences, and evidence/<suite>/<candidate> for
// each comparison that was looked at more than once.
func (r *Report) Figures() (names []string, figures map[string]*plot.Figure) {
	figures = map[string]*plot.Figure{}
	add := func(name string, f *plot.Figure) {
		if f != nil {
			names, figures[name] = append(names, name), f
		}
	}
	add("claims", r.claimsFigure())
	add("differences", r.Differences())
	for i := range r.Suites {
		for j := range r.Suites[i].Comparisons {
			c := &r.Suites[i].Comparisons[j]
			if len(c.Curve) > 1 {
				add("evidence/"+r.Suites[i].ID+"/"+c.Candidate, c.evidence(r.Suites[i].Questions))
			}
		}
	}
	add("cost", r.costFigure())
	add("card", r.Card())
	return names, figures
}

func (r *Report) claimsFigure() *plot.Figure {
	var list []plot.Stated
	for _, c := range r.ordered() {
		q := c.Reported.finite()
		if q == nil || len(list) == maxClaims {
			continue
		}
		s := plot.Stated{Name: words(clean(c.name())), Verdict: words(c.Verdict), Ink: InkOf(c.Verdict), Href: "#claim-" + clean(c.ID)}
		switch {
		case q.Lo != nil && q.Hi != nil:
			s.Lo, s.Hi = *q.Lo, *q.Hi
		case q.Value != nil:
			s.Lo, s.Hi = *q.Value, *q.Value
		default:
			continue
		}
		s.TolLo, s.TolHi = s.Lo, s.Hi
		if t := c.Tolerance; t != nil {
			lo, hi := t.Value, t.Value
			if t.Kind == "relative" {
				lo, hi = t.Value*math.Abs(s.Lo), t.Value*math.Abs(s.Hi)
			}
			s.TolLo, s.TolHi = s.Lo-lo, s.Hi+hi
		}
		if m := c.Measured.finite(); m != nil {
			s.Measured, s.MLo, s.MHi, s.MeasuredText = m.Value, m.Lo, m.Hi, clean(c.short())
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil
	}
	return plot.Claims(list)
}

func (r *Report) costFigure() *plot.Figure {
	var list []plot.Spent
	for _, l := range []struct {
		name   string
		a      Amount
		format func(float64) string
	}{
		{"GPU time", r.Cost.GPUHours, func(v float64) string { return WithUnit(Number(v, 3), "GPU h") }},
		{"money", r.Cost.USD, func(v float64) string { return WithUnit(Number(v, 3), "USD") }},
		{"wall clock", r.Cost.WallS, Seconds},
		{"CPU time", r.Cost.CPUS, Seconds},
	} {
		a := Amount{finite(l.a.P10), finite(l.a.P50), finite(l.a.P90), finite(l.a.Measured)}
		if a.zero() {
			continue
		}
		list = append(list, plot.Spent{Name: l.name, Estimated: a.estimated(l.format), Used: a.measured(l.format), P10: a.P10, P50: a.P50, P90: a.P90, Measured: a.Measured})
	}
	if len(list) == 0 {
		return nil
	}
	return plot.Cost(list)
}

// short is the measured value without its interval, which is drawn.
func (c *Claim) short() string {
	if c.Measured == nil || c.Measured.Value == nil {
		return ""
	}
	return WithUnit(Number(*c.Measured.Value, 4), c.Unit)
}

func points(p *float64) *float64 {
	if p = finite(p); p == nil {
		return nil
	}
	v := 100 * *p
	return &v
}

// Differences draws the paired differences of all suites; nil without any.
func (r *Report) Differences() *plot.Figure {
	var list []plot.Compared
	for _, s := range r.Suites {
		for _, c := range s.Comparisons {
			if math.IsNaN(c.Diff) {
				continue
			}
			list = append(list, plot.Compared{
				Name: clean(s.ID + ": " + c.Candidate), Verdict: words(c.Verdict), Ink: InkOf(c.Verdict), Diff: 100 * c.Diff,
				Lo: points(c.Lo), Hi: points(c.Hi), Margin: 100 * c.Margin, Href: "#suite-" + clean(s.ID),
			})
		}
	}
	if len(list) == 0 {
		return nil
	}
	return plot.Paired(list)
}

func (c *Comparison) evidence(total int) *plot.Figure {
	looks := make([]plot.Look, len(c.Curve))
	for i, l := range c.Curve {
		looks[i] = plot.Look{N: l.N, Diff: 100 * l.Diff, Lo: points(l.Lo), Hi: points(l.Hi)}
	}
	return plot.Evidence(looks, 100*c.Margin, total, words(c.Verdict))
}

// Card is the picture of the verdict.
func (r *Report) Card() *plot.Figure {
	title, id := r.subject()
	c := plot.Card{Title: clean(title), Subject: clean(id), Verdict: words(r.Headline()), Ink: InkOf(r.Headline()), Tally: r.Tally(), Foot: "run " + clean(r.RunID)}
	if !r.Finished.IsZero() {
		c.Foot += ", " + r.Finished.UTC().Format("2 January 2006")
	}
	for _, x := range r.ordered() {
		m := x.measured()
		if x.Measured != nil && x.Measured.Simulated {
			m += " simulated"
		}
		c.Lines = append(c.Lines, [3]string{words(clean(x.name())), "stated " + clean(x.reported()), clean(m)})
	}
	for _, s := range r.Suites {
		for _, x := range s.Comparisons {
			c.Lines = append(c.Lines, [3]string{clean(s.ID), clean(x.Candidate + " − " + x.Baseline), fmt.Sprintf("%+.2f points", 100*x.Diff)})
		}
	}
	if len(r.Notices) > 0 {
		c.Notice = clean(r.Notices[0])
	}
	return plot.VerdictCard(c)
}

// Headline is the one verdict of the page: of the claims, else of the first
// comparison that has another than equivalent.
func (r *Report) Headline() string {
	if r.Verdict != "" {
		return r.Verdict
	}
	out := NotAttempted
	for _, s := range r.Suites {
		for _, c := range s.Comparisons {
			if out = c.Verdict; out != "equivalent" {
				return out
			}
		}
	}
	return out
}

// Inline is a figure for a page that has [StyleSheet], which gives it colours.
func Inline(f *plot.Figure) template.HTML {
	var b strings.Builder
	if err := f.SVG(&b, nil); err != nil {
		return ""
	}
	return template.HTML(b.String()) // every text in it was escaped by SVG
}
