package claim

import (
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

// maxRows bounds how many rows of one table are read.
const maxRows = 40

// FromTable finds the claims of a table: columns whose header names a metric,
// or, where the first column names metrics, its only numeric column. group
// identifies the table.
func FromTable(t markdown.Table, group int) []Claim {
	var out []Claim
	keys := make([]*Key, len(t.Header))
	for i, h := range t.Header {
		if k, ok := ParseLabel(h); ok && i > 0 {
			keys[i] = &k
		}
	}
	for n, row := range t.Rows {
		if n >= maxRows {
			break
		}
		label := ""
		if len(row.Cells) > 0 {
			label = row.Cells[0]
		}
		for i, cell := range row.Cells {
			if i == 0 || i >= len(keys) || keys[i] == nil {
				continue
			}
			if c, ok := fromCell(cell, *keys[i]); ok {
				c.Text = strings.TrimSpace(label + ": " + t.Header[i] + " " + cell)
				c.Dataset = first(Dataset(t.Header[i]), Dataset(label), Dataset(strings.Join(row.Cells, " ")), Dataset(t.Intro))
				c.Line, c.Group, c.Source = row.Line, group, Table
				out = append(out, c)
			}
		}
	}
	if len(out) == 0 {
		out = transposed(t, group)
	}
	return out
}

var metricHeaderRE = regexp.MustCompile(`(?i)^(?:metrics?|measures?|measurement|quantity|results?|score|)$`)

// transposed reads a table whose first column names metrics, when one and only
// one other column holds numbers: with more it is not clear whose numbers
// those are.
func transposed(t markdown.Table, group int) []Claim {
	if len(t.Header) == 0 || !metricHeaderRE.MatchString(t.Header[0]) {
		return nil
	}
	column := -1
	for _, row := range t.Rows {
		for i, cell := range row.Cells {
			if i == 0 || i == column {
				continue
			}
			if _, ok := fromCell(cell, Key{}); ok {
				if column > 0 {
					return nil
				}
				column = i
			}
		}
	}
	if column < 0 {
		return nil
	}
	var out []Claim
	for n, row := range t.Rows {
		if n >= maxRows || column >= len(row.Cells) {
			continue
		}
		k, ok := ParseLabel(row.Cells[0])
		if !ok {
			continue
		}
		if c, ok := fromCell(row.Cells[column], k); ok {
			c.Text = strings.TrimSpace(row.Cells[0] + ": " + row.Cells[column])
			c.Dataset = first(Dataset(row.Cells[0]), Dataset(t.Intro))
			c.Line, c.Group, c.Source = row.Line, group, Table
			out = append(out, c)
		}
	}
	return out
}

// fromCell reads a cell that is a number, perhaps with ± and a unit.
func fromCell(cell string, k Key) (Claim, bool) {
	cell = strings.TrimLeft(cleanSentence(cell), " ~≈<>*↑↓")
	ns := numbers(cell)
	if len(ns) == 0 || ns[0].start != 0 {
		return Claim{}, false
	}
	n := ns[0]
	if rest := strings.TrimLeft(cell[n.end:], " *"); rest != "" && letter(rest[0]) {
		return Claim{}, false
	}
	c := fromNumber(n, k)
	return c, k.Base == "" || relativeKey(k) || plausibleCell(k, n)
}

func plausibleCell(k Key, n number) bool {
	if n.unit == "x" {
		return false
	}
	return n.decimals > 0 || n.unit == "%" || k.Base == "preemptions"
}

func relativeKey(k Key) bool { return k.Effect != "" }

// fromNumber makes the claim that the metric k has the value n.
func fromNumber(n number, k Key) Claim {
	c := Claim{Key: k, Relation: "absolute", Unit: n.unit, PlusMinus: n.pm, Decimals: n.decimals}
	switch {
	case k.Effect == "ratio":
		c.Relation, c.Unit = "ratio", first(n.unit, "x")
	case k.Effect != "":
		c.Relation, c.Unit = "difference", first(n.unit, k.Unit)
	case c.Unit == "" && k.Unit == "%":
		c.Unit = "%"
	}
	lo, hi := n.lo, n.hi
	if n.ranged {
		c.Lo, c.Hi = &lo, &hi
	} else {
		c.Value = &lo
	}
	return c
}

// FromOutput finds the claims of one line of shown output: labels and numbers
// in turn, such as "* Acc@1 83.664 Acc@5 96.530" or `"val_loss": 1.47,`.
func FromOutput(text string, line, group int) []Claim {
	if len(text) > 1000 {
		return nil
	}
	var out []Claim
	prev := 0
	for _, n := range numbers(text) {
		label := strings.Trim(text[prev:n.start], " \t:=,;|\"'*>-([{")
		if i := strings.LastIndexAny(label, ",;|(["); i >= 0 {
			label = strings.Trim(label[i+1:], " \t:=\"'")
		}
		prev = n.end
		if len(label) > 60 || label == "" {
			continue
		}
		k, ok := ParseLabel(label)
		if !ok || !EndsLabel(label) || !plausibleCell(k, n) && !relativeKey(k) {
			continue
		}
		c := fromNumber(n, k)
		c.Text, c.Line, c.Group, c.Source = strings.TrimSpace(text), line, group, Output
		c.Dataset = Dataset(label)
		out = append(out, c)
	}
	return out
}

func first(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}
