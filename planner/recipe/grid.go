package recipe

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// grid is one row of numbers in a table of characters that a document shows as
// output, as prettytable and tabulate draw them.
type grid struct {
	header, cells []string
	line, block   int
}

var (
	gridNumberRE = regexp.MustCompile(`^[-+]?\d*\.?\d+%?$`)
	averageRE    = regexp.MustCompile(`(?i)^(?:avg\.?|average|mean|overall)$`)
)

func gridCells(text string) []string {
	t := strings.TrimSpace(text)
	if !strings.HasPrefix(t, "|") || !strings.HasSuffix(t, "|") || len(t) < 3 {
		return nil
	}
	out := strings.Split(t[1:len(t)-1], "|")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// grids finds the rows of numbers below a header of the same width.
func grids(d *inspect.Document) []grid {
	var out []grid
	var header []string
	block := -1
	for _, o := range d.Outputs {
		if o.Block != block {
			header, block = nil, o.Block
		}
		cells := gridCells(o.Text)
		if cells == nil {
			continue
		}
		numbers := 0
		for _, c := range cells {
			if gridNumberRE.MatchString(c) {
				numbers++
			}
		}
		switch {
		case numbers == 0:
			header = cells
		case numbers == len(cells) && len(header) == len(cells) && len(out) < 200:
			out = append(out, grid{header: header, cells: cells, line: o.Line, block: o.Block})
		}
	}
	return out
}

// label names a column: a metric, or the average over the others.
func (g *grid) label(i int) string {
	if averageRE.MatchString(g.header[i]) && len(g.header) > 2 {
		return "average score"
	}
	return g.header[i]
}

// Grids are the claims of the tables of characters that a document shows.
func Grids(d *inspect.Document) []claim.Claim {
	var out []claim.Claim
	for _, g := range grids(d) {
		for i := range g.cells {
			if label := g.label(i); label != "" {
				for _, c := range claim.FromOutput(label+": "+g.cells[i], g.line, g.block+1) {
					c.Text = strings.Join(g.header, " | ") + ": " + strings.Join(g.cells, " | ")
					out = append(out, c)
				}
			}
		}
	}
	return out
}

// grids turns a shown table into a pattern of its row: so many numbers, of
// which the column's is taken. A later table of the same width is another one.
func (n *finder) grids(d *inspect.Document) {
	for _, g := range grids(d) {
		if !near(n.f, d, n.c, g.block, g.line) {
			continue
		}
		for i := range g.cells {
			claims := claim.FromOutput(g.label(i)+": "+g.cells[i], g.line, 0)
			if len(claims) != 1 || claims[0].Value == nil {
				continue
			}
			const cell = `\s*[-+]?\d*\.?\d+%?\s*\|`
			n.add(Number{Label: g.label(i), Stale: *claims[0].Value, Shown: true,
				At: spec.Evidence{File: d.Path, Line: g.line, Quote: clip(strings.Join(g.cells, " | "))},
				Rule: spec.Collect{Kind: "stdout_regex", Select: "first",
					Pattern: fmt.Sprintf(`^\s*\|(?:%s){%d}\s*%s%%?\s*\|(?:%s){%d}\s*$`, cell, i, numberPart, cell, len(g.cells)-i-1)}})
		}
	}
}
