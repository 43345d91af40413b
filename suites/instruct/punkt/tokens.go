package punkt

import (
	"iter"
	"strings"
	"unicode"

	"github.com/repromill/repromill/suites/pytext"
)

func isDigit(r rune) bool { return unicode.IsDigit(r) }

// tokens is PunktLanguageVars.word_tokenize on one line.
func tokens(line string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i < len(line); {
			r := pytext.First(line[i:])
			size := len(string(r))
			if r == unicode.ReplacementChar { // a byte of damaged text
				size = 1
				if strings.HasPrefix(line[i:], "\uFFFD") {
					size = 3
				}
			}
			if pytext.IsSpace(r) {
				i += size
				continue
			}
			end := i + size
			if n := multi(line[i:]); n > 0 {
				end = i + n
			} else if !strings.ContainsRune("(\"`{[:;&#*@)}]-,", r) {
				for end < len(line) && !wordEnds(line[end:]) {
					_, n := next(line[end:])
					end += n
				}
			}
			if !yield(line[i:end]) {
				return
			}
			i = end
		}
	}
}

// next is the first character and its length in bytes, 1 for damaged ones.
func next(s string) (rune, int) {
	for i, r := range s {
		if i > 0 {
			return pytext.First(s), i
		}
		_ = r
	}
	return pytext.First(s), len(s)
}

// wordEnds reports whether a word ends before s.
func wordEnds(s string) bool {
	r := pytext.First(s)
	if pytext.IsSpace(r) || nonWord(r) || multi(s) > 0 {
		return true
	}
	if r != ',' {
		return false
	}
	if len(s) == 1 {
		return true
	}
	r = pytext.First(s[1:])
	return pytext.IsSpace(r) || nonWord(r) || multi(s[1:]) > 0
}

// multi matches (?:\-{2,}|\.{2,}|(?:\.\s){2,}\.) at the beginning of s.
func multi(s string) int {
	if len(s) < 2 || (s[0] != '-' && s[0] != '.') {
		return 0
	}
	if s[1] == s[0] {
		n := 2
		for n < len(s) && s[n] == s[0] {
			n++
		}
		return n
	}
	if s[0] == '-' {
		return 0
	}
	// Stops with one white space each between them.
	n, stops, two := 0, 0, 0
	for n < len(s) && s[n] == '.' {
		n++
		stops++
		if stops >= 3 {
			two = n
		}
		r, size := next(s[n:])
		if n == len(s) || !pytext.IsSpace(r) {
			break
		}
		n += size
	}
	return two
}

// numeric is _RE_NUMERIC: ^-?[\.,]?\d[\d,\.-]*\.?$.
func numeric(s string) bool {
	s = strings.TrimPrefix(s, "-")
	if s != "" && (s[0] == '.' || s[0] == ',') {
		s = s[1:]
	}
	for i, r := range s {
		if !isDigit(r) && (i == 0 || !strings.ContainsRune(",.-", r)) {
			return false
		}
	}
	return s != ""
}
