package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/rivo/uniseg"
)

// Style says what the terminal can show.
type Style struct {
	Width int  // columns; 0 means 80, less than 40 counts as 40
	Color bool // false where NO_COLOR is set or the output is not a terminal
}

// SGR codes. Colour only repeats what the words say.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// colorOf gives a verdict its colour.
func colorOf(verdict string) string {
	switch verdict {
	case Aligned, "equivalent", "better", "not_worse", "improvement":
		return green
	case "worse", "regression":
		return red
	}
	return yellow
}

// Terminal writes the report as one page of text.
func (r *Report) Terminal(w io.Writer, s Style) error {
	if s.Width == 0 {
		s.Width = 80
	}
	s.Width = max(s.Width, 40)
	b := bufio.NewWriter(w)
	p := &page{w: b, s: s}
	r.head(p)
	r.suites(p)
	r.claims(p)
	r.runs(p)
	r.costs(p)
	r.remarks(p)
	r.tail(p)
	return b.Flush()
}

// page writes lines of a given width. Every text it gets may be a stranger's.
type page struct {
	w *bufio.Writer
	s Style
}

func (p *page) paint(code, s string) string {
	if !p.s.Color || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) blank() { fmt.Fprintln(p.w) }

func (p *page) section(title string) {
	p.blank()
	fmt.Fprintln(p.w, p.paint(bold, truncate(clean(title), p.s.Width)))
}

// labelled writes text behind a label in a column of its own, cut to limit
// columns, wrapped, in color when one is given.
func (p *page) labelled(indent int, label, text, color string, limit int) {
	column := 11
	text = truncate(clean(text), limit)
	if text == "" {
		return
	}
	label = truncate(clean(label), column)
	column = max(column, uniseg.StringWidth(label)+1)
	pad := strings.Repeat(" ", indent)
	for i, line := range wrap(text, p.s.Width-indent-column) {
		if i > 0 {
			label = ""
		}
		fill := strings.Repeat(" ", column-uniseg.StringWidth(label))
		fmt.Fprintln(p.w, pad+p.paint(dim, label)+fill+p.paint(color, line))
	}
}

// command writes a shell command unwrapped, so that it can be copied: a line
// break inside it would change it.
func (p *page) command(text string) { fmt.Fprintln(p.w, "  "+clean(text)) }

func (r *Report) head(p *page) {
	for _, n := range r.Notices {
		p.labelled(0, "Notice", n, bold, 2*maxReason)
	}
	if len(r.Notices) > 0 {
		p.blank()
	}
	title, id := r.subject()
	for _, line := range wrap(truncate(clean(title), 3*p.s.Width), p.s.Width) {
		fmt.Fprintln(p.w, p.paint(bold, line))
	}
	p.labelled(0, "target", id, "", maxReason)
	if r.Source != nil || r.Model == nil {
		p.labelled(0, "code", r.Source.line(), "", maxReason)
	}
	p.labelled(0, "run", r.RunID, "", maxReason)
	p.blank()
	p.labelled(0, "Verdict", words(r.Verdict), colorOf(r.Verdict), maxReason)
	p.labelled(0, "", r.Tally(), "", maxReason)
	p.labelled(0, "", r.Reason, "", maxReason)
}

func (r *Report) claims(p *page) {
	if len(r.Claims) == 0 {
		return
	}
	p.section("Claims")
	shown, rest := cut(r.ordered(), maxClaims)
	for len(shown) > 0 {
		n := alike(shown)
		if n == 1 {
			shown[0].terminal(p, r.untold(shown[0].Reason))
		} else {
			p.together(shown[:n], r.untold(shown[0].Reason))
		}
		shown = shown[n:]
	}
	p.labelled(2, "", rest, dim, maxReason)
}

// together prints claims that were not judged, for the same reason, as one.
func (p *page) together(list []Claim, reason string) {
	verdict := list[0].Verdict
	fmt.Fprintln(p.w, "  "+p.paint(colorOf(verdict), clean(words(verdict)))+"  "+p.paint(bold, fmt.Sprintf("%d claims", len(list))))
	for i := range list {
		c := &list[i]
		label := ""
		if i == 0 {
			label = "reported"
		}
		p.labelled(4, label, join("  ", c.name(), c.reported(), c.versus(), paren(c.Stated.place())), "", maxReason)
	}
	p.labelled(4, "because", reason, "", maxReason)
}

// untold is a reason, or a hint to the verdict's own where that tells it.
func (r *Report) untold(reason string) string {
	const telling = 60 // each copy may be cut at another place
	if start := truncate(reason, telling); len(reason) > telling && strings.Contains(r.Reason, strings.TrimSuffix(start, "…")) {
		return "as said above"
	}
	return reason
}

func (c *Claim) terminal(p *page, reason string) {
	verdict := words(c.Verdict)
	name := truncate(clean(c.name()), p.s.Width-uniseg.StringWidth(verdict)-4)
	fmt.Fprintln(p.w, "  "+p.paint(colorOf(c.Verdict), clean(verdict))+"  "+p.paint(bold, name))
	p.labelled(4, "reported", join("  ", c.reported(), c.versus(), paren(c.Stated.place())), "", maxReason)
	p.labelled(4, "measured", join("  ", c.measured(), paren(c.Measured.notes())), "", maxReason)
	if c.Tolerance != nil {
		p.labelled(4, "tolerance", c.tolerance(), "", maxReason)
	}
	p.labelled(4, "read from", join("  ", c.Read.place(), c.Read.Quote), dim, maxQuote)
	p.labelled(4, "because", reason, "", maxReason)
}

func (r *Report) runs(p *page) {
	if len(r.Runs) == 0 {
		return
	}
	p.section("Executed")
	shown, rest := cut(r.Runs, maxRuns)
	for i := range shown {
		run := &shown[i]
		p.labelled(2, run.ID, run.Command, bold, maxReason)
		p.labelled(2, "", run.how(), "", maxReason)
		p.labelled(2, "", r.untold(run.Reason), "", maxReason)
		if run.Cwd != "" && run.Cwd != "." {
			p.labelled(2, "", "in "+run.Cwd, "", maxReason)
		}
		if run.Seeds != "" {
			p.labelled(2, "", run.Seeds, "", maxReason)
		}
		if i == 0 || run.isolation() != shown[i-1].isolation() {
			p.labelled(2, "sandbox", run.isolation(), "", maxReason)
		}
	}
	p.labelled(2, "", rest, dim, maxReason)
}

func (r *Report) costs(p *page) {
	lines := r.Cost.lines()
	if len(lines) == 0 {
		return
	}
	title := "Cost"
	if r.Cost.SKU != "" {
		title += fmt.Sprintf(" on %d × %s", max(1, r.Cost.GPUs), r.Cost.SKU)
		if r.Cost.GPUs == 0 {
			title = "Cost on " + r.Cost.SKU
		}
	}
	p.section(title)
	for _, l := range lines {
		text := l[1]
		if l[2] != "–" {
			text += ", estimated " + l[2]
		}
		p.labelled(2, l[0], text, "", maxReason)
	}
}

func (r *Report) remarks(p *page) {
	if len(r.Deviations) > 0 {
		p.section("Deviations from what the authors declare")
		shown, rest := cut(r.Deviations, maxDeviations)
		for i := range shown {
			p.item(shown[i].line())
		}
		p.labelled(2, "", rest, dim, maxReason)
	}
	if len(r.Warnings) > 0 {
		p.section("Warnings")
		shown, rest := cut(r.Warnings, maxWarnings)
		for _, w := range shown {
			p.item(w.Message)
		}
		p.labelled(2, "", rest, dim, maxReason)
	}
}

// item writes one entry of a list.
func (p *page) item(text string) {
	for i, line := range wrap(truncate(clean(text), maxReason), p.s.Width-4) {
		mark := "  – "
		if i > 0 {
			mark = "    "
		}
		fmt.Fprintln(p.w, mark+line)
	}
}

func (r *Report) tail(p *page) {
	if r.Results.Root != "" {
		p.section("Results")
		p.labelled(2, "Parquet", r.Results.Root, "", maxReason)
		p.labelled(2, "rows", r.Results.tableCounts(), "", maxReason)
	}
	for _, h := range r.Look {
		p.section("Look: " + h.Shows)
		p.command(h.Command)
	}
	if r.Rerun != "" {
		p.section("Run again")
		p.command(r.Rerun)
	}
}

// join puts the parts that are not empty together.
func join(sep string, parts ...string) string {
	var out []string
	for _, s := range parts {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, sep)
}

func paren(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}
