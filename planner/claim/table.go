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
			if i == 0 || i >= len(keys) || keys[i] == nil || theirs(t.Header, keys, i) {
				continue
			}
			if c, ok := fromCell(cell, *keys[i]); ok {
				c.Text = strings.TrimSpace(label + ": " + t.Header[i] + " " + cell)
				c.Dataset = first(Dataset(t.Header[i]), Dataset(label), Dataset(strings.Join(row.Cells, " ")), Dataset(t.Intro))
				c.Line, c.Group, c.Source = row.Line, group, Table
				c.Links, c.Names, c.Settings = linksOf(row, i), row.Cells, settings(t.Header, row.Cells)
				out = append(out, c)
			}
		}
	}
	for _, read := range []func(markdown.Table, int) []Claim{byMethod, byDataset, transposed, captioned} {
		if len(out) == 0 {
			out = read(t, group)
		}
	}
	return out
}

var (
	optionRE = regexp.MustCompile(`^(?:--)?([a-z][a-z0-9]*(?:_[a-z0-9]+)+)$`)
	valueRE  = regexp.MustCompile(`^\d[\d.,]*(?:e-?\d+)?$`)
)

// settings reads columns whose header is the name of an option, or several
// with "/" between, and whose cell is as many numbers.
func settings(header, cells []string) []Setting {
	var out []Setting
	for i := 1; i < len(header) && i < len(cells); i++ {
		names, values := strings.Split(header[i], "/"), strings.Split(cells[i], "/")
		if len(names) != len(values) {
			continue
		}
		for n := range names {
			m := optionRE.FindStringSubmatch(strings.TrimSpace(names[n]))
			v := strings.TrimSpace(values[n])
			if m == nil || !valueRE.MatchString(v) {
				continue
			}
			if _, metric := ParseLabel(m[1]); !metric {
				out = append(out, Setting{m[1], strings.ReplaceAll(v, ",", "")})
			}
		}
	}
	return out
}

// linksOf are the addresses of a cell, or of its whole row when it has none
// itself.
func linksOf(row markdown.Row, i int) []string {
	if i < len(row.Links) && len(row.Links[i]) > 0 {
		return row.Links[i]
	}
	var out []string
	for _, l := range row.Links {
		out = append(out, l...)
	}
	return out
}

var oursRE = regexp.MustCompile(`(?i)\.py\b|\bours?\b|\bthis (?:repo|work|code|implementation)|reproduced|re-?implement|we (?:get|obtain)`)

// captioned reads a table whose headers name no metric, where the words before
// it name exactly one: of its numeric columns the one that names a script or
// says that it is the authors' own, or the only one.
func captioned(t markdown.Table, group int) []Claim {
	k, _ := oneMetric(t)
	if k.Base == "" {
		return nil
	}
	column, numeric := -1, 0
	for i := 1; i < len(t.Header); i++ {
		filled := len(t.Rows) > 0
		for _, row := range t.Rows {
			if i >= len(row.Cells) {
				filled = false
				break
			}
			_, ok := fromCell(row.Cells[i], k)
			filled = filled && ok
		}
		if !filled {
			continue
		}
		numeric++
		if column < 0 || own(t, t.Header[i]) && !own(t, t.Header[column]) {
			column = i
		}
	}
	if column < 0 || numeric > 1 && !own(t, t.Header[column]) {
		return nil
	}
	var out []Claim
	for n, row := range t.Rows {
		if n >= maxRows {
			break
		}
		c, _ := fromCell(row.Cells[column], k)
		c.Text = strings.TrimSpace(row.Cells[0] + ": " + t.Header[column] + " " + row.Cells[column])
		c.Dataset = first(Dataset(row.Cells[0]), Dataset(t.Intro))
		c.Line, c.Group, c.Source, c.Names, c.Links = row.Line, group, Table, row.Cells, linksOf(row, column)
		out = append(out, c)
	}
	return out
}

var metricHeaderRE = regexp.MustCompile(`(?i)^(?:metrics?|measures?|measurement|quantity|results?|score|)$`)

// transposed reads a table whose rows name metrics, when one and only one other
// column holds numbers: with more it is not clear whose numbers those are,
// unless a number links to what it was measured with.
func transposed(t markdown.Table, group int) []Claim {
	if len(t.Header) == 0 || !metricHeaderRE.MatchString(t.Header[0]) {
		return nil
	}
	columns := map[int]bool{}
	for _, row := range t.Rows {
		for i, cell := range row.Cells {
			if _, ok := fromCell(cell, Key{}); ok && i > 0 {
				columns[i] = true
			}
		}
	}
	var out []Claim
	for n, row := range t.Rows {
		if n >= maxRows {
			break
		}
		at := 0
		for at+1 < len(row.Cells) && row.Cells[at] == "" {
			at++
		}
		k, ok := ParseLabel(row.Cells[at])
		if !ok {
			continue
		}
		for i := at + 1; i < len(row.Cells); i++ {
			linked := i < len(row.Links) && len(row.Links[i]) > 0
			if !columns[i] || len(columns) > 1 && !linked {
				continue
			}
			c, ok := fromCell(row.Cells[i], k)
			if !ok {
				continue
			}
			c.Text = strings.TrimSpace(row.Cells[at] + ": " + row.Cells[i])
			c.Dataset = first(Dataset(row.Cells[at]), Dataset(t.Intro))
			c.Line, c.Group, c.Source = row.Line, group, Table
			if linked {
				c.Links = row.Links[i]
			}
			out = append(out, c)
		}
	}
	return out
}

// fromCell reads a cell that is a number, perhaps with ± and a unit.
func fromCell(cell string, k Key) (Claim, bool) {
	cell = strings.TrimLeft(cleanSentence(cell), " ~≈<>*↑↓")
	if i := strings.IndexByte(cell, '/'); i > 0 && i+1 < len(cell) && cell[i+1] >= '0' && cell[i+1] <= '9' {
		cell = cell[:i] // two numbers of two settings: the first
	}
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
