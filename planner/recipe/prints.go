package recipe

import (
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/spec"
)

// prints turns the print statements of the entry script and of what it imports
// into patterns.
func (n *finder) prints() {
	for i, p := range n.f.Reach(n.c.Entry) {
		m := n.f.Modules[p]
		if m == nil || i > 40 {
			continue
		}
		for _, pr := range m.Prints {
			if pr.Via == "file" || pr.Via == "stderr" {
				continue
			}
			n.print(p, m, pr)
		}
	}
}

var counterRE = regexp.MustCompile(`(?i)epoch|step|iter|batch|time|loss|lr|len\(|^i$|^it$|round|seed|elapsed|total|num|count|best`)

// print reads one template. A line that starts with a name the template fills
// in (a model, a data set) may stand for many things, so it gives no rule.
func (n *finder) print(file string, m *python.Module, pr python.Print) {
	pattern := ""
	label := ""
	for i, part := range pr.Parts {
		if part.Expr == "" {
			label = tail(part.Text)
			pattern += spaced(part.Text)
			continue
		}
		if label != "" && numeric(m, part) {
			at := spec.Evidence{File: file, Line: pr.Line, Quote: clip(render(pr.Parts))}
			if strings.HasSuffix(file, ".ipynb") {
				at.Line = 0 // lines of cells are not lines of the file
			}
			unit := exprUnit(part.Expr)
			if e, ok := m.Assigns[part.Expr]; ok && unit == "" {
				unit = exprUnit(e.Text)
			}
			if i+1 < len(pr.Parts) && strings.HasPrefix(strings.TrimSpace(pr.Parts[i+1].Text), "%") || strings.HasSuffix(part.Spec, "%") {
				unit = "%"
			}
			n.add(Number{Label: label, Unit: unit, At: at,
				Rule: spec.Collect{Kind: "stdout_regex", Pattern: strings.TrimPrefix(pattern, `\s+`) + numberPart}})
		}
		if !counterRE.MatchString(part.Expr) && !strings.HasSuffix(part.Spec, "f") && !strings.HasSuffix(part.Spec, "d") && !strings.HasSuffix(part.Spec, "g") {
			return
		}
		pattern = strings.TrimSuffix(pattern, `\s*`) + `\s*\S+?`
		label = ""
	}
}

// tail is the label right before a value: what follows the last separator.
func tail(s string) string {
	s = strings.TrimRight(s, " \t:=([{|>~")
	if i := strings.LastIndexAny(s, ",;|\n([{\t"); i >= 0 {
		s = s[i+1:]
	}
	return strings.Trim(s, " \t:=-*'\"")
}

func numeric(m *python.Module, p python.Part) bool {
	if p.Spec != "" {
		return strings.ContainsAny(p.Spec[len(p.Spec)-1:], "fgdeiGE%")
	}
	e := strings.ToLower(p.Expr)
	if strings.ContainsAny(e, `'"`) && strings.Contains(e, "if") {
		return false
	}
	return true
}

func spaced(s string) string {
	var b strings.Builder
	for i, w := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }) {
		if i > 0 || s[0] == ' ' || s[0] == '\t' || s[0] == '\n' {
			b.WriteString(`\s+`)
		}
		b.WriteString(regexp.QuoteMeta(w))
	}
	if s != "" && strings.HasSuffix(s, " ") || strings.HasSuffix(s, "\t") {
		b.WriteString(`\s*`)
	}
	return b.String()
}

func render(parts []python.Part) string {
	var b strings.Builder
	for _, p := range parts {
		if p.Expr == "" {
			b.WriteString(p.Text)
		} else {
			b.WriteString("{" + p.Expr + "}")
		}
	}
	return b.String()
}

// exprUnit says whether an expression is a percentage or a fraction by how it
// is computed; "" when that does not show.
func exprUnit(e string) string {
	switch {
	case strings.Contains(e, "100*") || strings.Contains(e, "*100") || strings.Contains(e, "100.*") || strings.Contains(e, "100.0*"):
		return "%"
	case strings.Contains(e, "accuracy_score(") || strings.Contains(e, ".mean()") && strings.Contains(e, "=="):
		return "fraction"
	case strings.Contains(e, "/") && !strings.Contains(e, "//") && !strings.Contains(e, "'"):
		return "ratio?"
	}
	return ""
}
