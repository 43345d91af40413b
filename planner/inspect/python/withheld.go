package python

import (
	"regexp"
	"strings"
)

// Withheld is a statement that stands in a comment although the block around it
// is empty without it, so that the file cannot be compiled as it is published.
// Evaluators of generated code hold their call of exec back in this way, for
// the reader to uncomment where it is safe (openai/human-eval, execution.py).
type Withheld struct {
	Line          int    // of the comment
	Before, After string // the line as it stands, and with the statement
	Head          int    // line of the block's head
}

var (
	headRE      = regexp.MustCompile(`^(\s*)(?:with|for|while|if|elif|else|try|except|finally|def|async)\b.*:\s*(?:#.*)?$`)
	statementRE = regexp.MustCompile(`^(?:(?:return|raise|yield|del)\b.*|[A-Za-z_][\w.]*\s*\(.*\)|[A-Za-z_][\w., \[\]'"]*=[^=].*)$`)
)

// withheld finds blocks that hold comments alone, of which one is a statement
// indented as the block's own.
func withheld(src string) (out []Withheld) {
	lines := strings.Split(src, "\n")
	text := false
	for i, l := range lines {
		quotes := strings.Count(l, `"""`) + strings.Count(l, `'''`)
		if text || quotes > 0 {
			text = text != (quotes%2 == 1)
			continue
		}
		m := headRE.FindStringSubmatch(l)
		if m == nil || strings.HasSuffix(l, "\r") || len(out) == maxRows {
			continue
		}
		if w, ok := onlyComment(lines[i+1:], len(m[1])); ok {
			w.Line += i + 1
			w.Head = i + 1
			out = append(out, w)
		}
	}
	return out
}

// onlyComment looks at what follows a head that is indented by a number of
// columns. Line is counted from 1.
func onlyComment(lines []string, indent int) (w Withheld, ok bool) {
	for i, l := range lines {
		code := strings.TrimLeft(l, " ")
		if strings.TrimSpace(l) == "" {
			continue
		}
		if code[0] != '#' {
			return w, w.Line > 0 && code[0] != '\t' && len(l)-len(code) <= indent
		}
		if len(l) > maxRowLine || strings.HasSuffix(l, "\r") {
			return w, false
		}
		after := strings.Replace(l, "#", " ", 1)
		body := strings.TrimLeft(after, " ")
		if len(after)-len(body) < indent+2 || !statementRE.MatchString(strings.TrimSpace(body)) {
			continue // words
		}
		if w.Line > 0 {
			return w, false // which of them is meant cannot be known
		}
		w = Withheld{Line: i + 1, Before: l, After: after}
	}
	return w, w.Line > 0
}
