package instruct

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/repromill/repromill/suites/pytext"
)

func (a Args) has(name string) bool {
	v, ok := a[name]
	return ok && string(v) != "null"
}

// Int reads a number; data sets in Parquet have 5.0 for 5.
func (a Args) Int(name string) (int, error) {
	var f float64
	if !a.has(name) {
		return 0, fmt.Errorf("there is no argument %s", name)
	}
	if err := json.Unmarshal(a[name], &f); err != nil || f != math.Trunc(f) || math.Abs(f) > 1e9 {
		return 0, fmt.Errorf("argument %s is %s, want an integer", name, a[name])
	}
	return int(f), nil
}

// Count reads a number that is not negative.
func (a Args) Count(name string) (int, error) {
	n, err := a.Int(name)
	if err == nil && n < 0 {
		err = fmt.Errorf("argument %s is %d", name, n)
	}
	return n, err
}

// Text reads a string that is not empty.
func (a Args) Text(name string) (string, error) {
	var s string
	if !a.has(name) {
		return "", fmt.Errorf("there is no argument %s", name)
	}
	if err := json.Unmarshal(a[name], &s); err != nil || s == "" {
		return "", fmt.Errorf("argument %s is %s, want a text", name, a[name])
	}
	return s, nil
}

// Texts reads a list of strings.
func (a Args) Texts(name string) ([]string, error) {
	var s []string
	if !a.has(name) {
		return nil, fmt.Errorf("there is no argument %s", name)
	}
	if err := json.Unmarshal(a[name], &s); err != nil || len(s) == 0 {
		return nil, fmt.Errorf("argument %s is %s, want texts", name, a[name])
	}
	return s, nil
}

// Enough reads a relation and a threshold and returns what a count is held to.
func (a Args) Enough(relation, threshold string) (func(n int) bool, error) {
	want, err := a.Count(threshold)
	if err != nil {
		return nil, err
	}
	rel, err := a.Text(relation)
	if err != nil {
		return nil, err
	}
	switch rel {
	case "less than":
		return func(n int) bool { return n < want }, nil
	case "at least":
		return func(n int) bool { return n >= want }, nil
	}
	return nil, fmt.Errorf("argument %s is %q, want \"less than\" or \"at least\"", relation, rel)
}

// Pattern translates a Python pattern into one of Go's that matches the same: the
// classes of \s, \d and \w are Unicode's there.
func Pattern(p string) *regexp.Regexp { return regexp.MustCompile(translate(p)) }

func translate(p string) string {
	return strings.NewReplacer(`\\`, `\\`, `\s`, pytext.Space, `\S`, pytext.NotSpace, `\d`, pytext.Digit, `\w`, pytext.Word, `\W`, pytext.NotWord).Replace(p)
}

// Folded compiles what upstream hands to re with IGNORECASE: a keyword, which is a
// pattern where it is a valid one.
func Folded(word string) *regexp.Regexp {
	if regexp.QuoteMeta(word) != word {
		if re, err := regexp.Compile("(?i)" + translate(word)); err == nil {
			return re
		}
	}
	return FoldedText(word)
}

// FoldedText compiles a text to be found whatever its case. Python's IGNORECASE
// also takes İ and ı for i.
func FoldedText(word string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("(?i)")
	for _, r := range word {
		switch r {
		case 'i', 'I', 'İ', 'ı':
			b.WriteString("[iIİı]")
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	return regexp.MustCompile(strings.ToValidUTF8(b.String(), "\uFFFD"))
}

// WholeWord reports whether a pattern matches between two \b.
func WholeWord(re *regexp.Regexp, text string) bool {
	for at := 0; at <= len(text); {
		m := re.FindStringIndex(text[at:])
		if m == nil {
			return false
		}
		start, end := at+m[0], at+m[1]
		if Boundary(text, start) && Boundary(text, end) {
			return true
		}
		_, n := utf8.DecodeRuneInString(text[start:])
		at = start + max(n, 1)
	}
	return false
}

// Boundary is \b at byte i of text.
func Boundary(text string, i int) bool {
	before := i > 0 && pytext.IsWord(pytext.Last(text[:i]))
	after := i < len(text) && pytext.IsWord(pytext.First(text[i:]))
	return before != after
}

// Words counts what \w+ matches.
func Words(text string) int {
	n, inside := 0, false
	for _, r := range text {
		w := pytext.IsWord(r)
		if w && !inside {
			n++
		}
		inside = w
	}
	return n
}

// Always makes a verifier that has no arguments.
func Always(v Verifier) Maker { return func(Args) (Verifier, error) { return v, nil } }
