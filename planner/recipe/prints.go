package recipe

import (
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/claim"
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
	n.dictionary(file, m, pr)
	pattern := ""
	label := ""
	for i, part := range pr.Parts {
		if part.Expr == "" {
			label = tail(part.Text)
			pattern += spaced(part.Text)
			continue
		}
		if _, ok := claim.ParseLabel(label); !ok && i > 1 && soleNumber(pr.Parts, i) {
			label = sentence(pr.Parts[:i])
		}
		if label != "" && numeric(m, part) {
			at := spec.Evidence{File: file, Line: pr.Line, Quote: clip(render(pr.Parts))}
			if strings.HasSuffix(file, ".ipynb") {
				at.Line = 0 // lines of cells are not lines of the file
			}
			unit := unitOf(m, part.Expr)
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

// soleNumber says that of the values of a printed sentence the one at i is the
// only one with decimals: the others are counts and names.
func soleNumber(parts []python.Part, i int) bool {
	for j, p := range parts {
		if p.Expr != "" && (strings.HasSuffix(p.Spec, "f") || strings.HasSuffix(p.Spec, "%")) != (i == j) {
			return false
		}
	}
	return true
}

// sentence is the metric that a printed sentence names before its value, or "".
func sentence(parts []python.Part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text + " ")
	}
	ms := claim.Mentions(b.String())
	if len(ms) != 1 {
		return ""
	}
	return b.String()[ms[0].Start:ms[0].End]
}

// dictionary reads the keys of a dictionary that is printed whole. Its values
// may show with their type, as numpy's and torch's numbers do.
func (n *finder) dictionary(file string, m *python.Module, pr python.Print) {
	for _, part := range pr.Parts {
		if part.Expr == "" || part.Spec != "" {
			continue
		}
		for _, leaf := range m.LeavesOf(part.Expr, n.lookup) {
			n.add(Number{Label: strings.Join(leaf.Path, " "), Unit: unitOf(m, leaf.Expr), At: spec.Evidence{File: file, Line: leaf.Line, Quote: clip(leaf.Path[len(leaf.Path)-1] + ": " + leaf.Expr)},
				Rule: spec.Collect{Kind: "stdout_regex", Pattern: `["']` + regexp.QuoteMeta(leaf.Path[len(leaf.Path)-1]) + `["']\s*:\s*` + wrapped + numberPart}})
		}
	}
}

// wrapped is the type that may stand around a printed number, such as
// "np.float64(" or "tensor(".
const wrapped = `(?:[A-Za-z_][\w.]*\(\s*)?`

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

// scoreCallRE matches calls that give a fraction by their documentation.
var scoreCallRE = regexp.MustCompile(`\b(?:accuracy_score|balanced_accuracy_score|f1_score|precision_score|recall_score|roc_auc_score|average_precision_score)\(`)

var (
	nameRE   = regexp.MustCompile(`^[A-Za-z_]\w*$`)
	meanOfRE = regexp.MustCompile(`^(?:(?:np|numpy|torch|statistics)\.mean\((\w+)\)|(\w+)\.(?:float\(\)\.)?mean\(\)|sum\((\w+)\)/len\(\w+\))(?:\.item\(\))?$`)
)

// unitOf is the unit of an expression, through the names it is assigned from:
// the mean of comparisons is a fraction.
func unitOf(m *python.Module, e string) string {
	for range 4 {
		if u := exprUnit(e); u != "" && u != "ratio?" {
			return u
		}
		next := ""
		if nameRE.MatchString(e) {
			next = m.Assigns[e].Text
		} else if g := meanOfRE.FindStringSubmatch(strings.ReplaceAll(e, " ", "")); g != nil {
			of := m.Assigns[g[1]+g[2]+g[3]].Text
			if strings.Contains(of, "==") {
				return "fraction"
			}
			return exprUnit(e)
		}
		if next == "" || next == e {
			break
		}
		e = next
	}
	return exprUnit(e)
}

// exprUnit says whether an expression is a percentage or a fraction by how it
// is computed; "" when that does not show.
func exprUnit(e string) string {
	switch {
	case strings.Contains(e, "100*") || strings.Contains(e, "*100") || strings.Contains(e, "100.*") || strings.Contains(e, "100.0*"):
		return "%"
	case scoreCallRE.MatchString(e) || strings.Contains(e, ".mean()") && strings.Contains(e, "=="):
		return "fraction"
	case strings.Contains(e, "/") && !strings.Contains(e, "//") && !strings.Contains(e, "'"):
		return "ratio?"
	}
	return ""
}
