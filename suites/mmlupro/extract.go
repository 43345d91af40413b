package mmlupro

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The published rules are Python patterns, some of which take quadratic time on
// long texts. What follows gives the same letters by scanning, in linear time.
// Python's \s and \b know Unicode, Go's do not, hence isSpace and isWord.

// firstMatch is the chain of re.search calls.
func firstMatch(text string) (string, int) {
	if l := firstAnswerIs(text); l != "" {
		return l, 1
	}
	if l := firstLineAnswerColon(text); l != "" {
		return l, 2
	}
	return staged(lastStandalone(text), 3)
}

// lastMatch is the chain of re.findall(…)[-1] calls.
func lastMatch(text string) (string, int) {
	if l := lastAnswerIs(text); l != "" {
		return l, 1
	}
	if l := lastAnswerColon(text); l != "" {
		return l, 2
	}
	return staged(lastStandalone(text), 3)
}

func staged(letter string, stage int) (string, int) {
	if letter == "" {
		return "", 0
	}
	return letter, stage
}

// letterAt returns the letter A to J at text[i], or "".
func letterAt(text string, i int) string {
	if i < len(text) && text[i] >= 'A' && text[i] <= 'J' {
		return text[i : i+1]
	}
	return ""
}

const answerIs = "answer is "

// letterAfterIs reads \(?([A-J])\)? at text[i:].
func letterAfterIs(text string, i int) string {
	if i < len(text) && text[i] == '(' {
		i++
	}
	return letterAt(text, i)
}

// firstAnswerIs is re.search(r"answer is \(?([A-J])\)?").
func firstAnswerIs(text string) string {
	for i := 0; ; {
		k := strings.Index(text[i:], answerIs)
		if k < 0 {
			return ""
		}
		i += k + len(answerIs)
		if l := letterAfterIs(text, i); l != "" {
			return l
		}
	}
}

// lastAnswerIs is re.findall of the same pattern, [-1].
func lastAnswerIs(text string) string {
	for end := len(text); ; {
		k := strings.LastIndex(text[:end], answerIs)
		if k < 0 {
			return ""
		}
		if l := letterAfterIs(text, k+len(answerIs)); l != "" {
			return l
		}
		end = k
	}
}

const answerColon = "nswer:"

// colonLetter reads [aA]nswer:\s*([A-J]), where "nswer:" stands at text[i:]. It
// returns the letter and where it stands.
func colonLetter(text string, i int) (string, int) {
	if i == 0 || (text[i-1] != 'a' && text[i-1] != 'A') {
		return "", 0
	}
	i = skipSpace(text, i+len(answerColon))
	return letterAt(text, i), i
}

// firstLineAnswerColon is re.search(r".*[aA]nswer:\s*([A-J])"): the first line
// in which a match begins, its last match there. The letter may be on a later
// line, since \s* crosses line ends.
func firstLineAnswerColon(text string) string {
	for i := 0; ; {
		k := strings.Index(text[i:], answerColon)
		if k < 0 {
			return ""
		}
		start := i + k
		line := len(text)
		if n := strings.IndexByte(text[start:], '\n'); n >= 0 {
			line = start + n
		}
		last := ""
		for k >= 0 { // every candidate of this line
			if l, _ := colonLetter(text, start); l != "" {
				last = l
			}
			i = start + len(answerColon)
			k = strings.Index(text[i:line], answerColon)
			start = i + k
		}
		if last != "" {
			return last
		}
		i = line
	}
}

// lastAnswerColon is re.findall(r"[aA]nswer:\s*([A-J])")[-1]. Matches do not
// overlap: in "answer: Answer: B" the A of the second word belongs to the first
// match, so the second does not count.
func lastAnswerColon(text string) string {
	last, used := "", 0
	for i := 0; ; {
		k := strings.Index(text[i:], answerColon)
		if k < 0 {
			return last
		}
		at := i + k
		i = at + len(answerColon)
		if at-1 < used {
			continue // its first letter was taken by the match before
		}
		if l, end := colonLetter(text, at); l != "" {
			last, used = l, end+1
		}
	}
}

// lastStandalone is the last match of r"\b[A-J]\b".
func lastStandalone(text string) string {
	for i := len(text) - 1; i >= 0; i-- {
		if letterAt(text, i) == "" {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+1:])
		if (i == 0 || !isWord(before)) && (i+1 == len(text) || !isWord(after)) {
			return text[i : i+1]
		}
	}
	return ""
}

// isWord is Python's \w: str.isalnum and the underscore.
func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }

// isSpace is Python's \s, which has U+001C to U+001F beside Unicode's spaces.
func isSpace(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) }

// skipSpace returns the index of the first rune from i on that is no space.
func skipSpace(text string, i int) int {
	for i < len(text) {
		r, n := utf8.DecodeRuneInString(text[i:])
		if !isSpace(r) {
			break
		}
		i += n
	}
	return i
}

// boxed is extract_letter: a box, else the last "Answer: X".
func boxed(text string) (string, int) {
	box, ok := lastBox(text)
	if !ok {
		return staged(lastAnswerLine(text), 3)
	}
	if utf8.RuneCountInString(box) == 1 {
		return box, 1
	}
	if l := lastStandalone(box); l != "" {
		return l, 2
	}
	return staged(box, 4)
}

// lastBox returns the content of the last \boxed if it opens with a brace that
// is closed. An unclosed last box is no box, even where an earlier one is whole.
func lastBox(text string) (string, bool) {
	const box = `\boxed`
	i := strings.LastIndex(text, box)
	if i < 0 {
		return "", false
	}
	rest, ok := strings.CutPrefix(text[i+len(box):], "{")
	if !ok {
		return "", false
	}
	depth := 1
	for k := range len(rest) {
		switch rest[k] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return rest[:k], true
			}
		}
	}
	return "", false
}

// lastAnswerLine is the last match of Artificial Analysis' pattern
//
//	(?i)[\*\_]{0,2}Answer[\*\_]{0,2}\s*:[\s\*\_]{0,2}\s*([A-Z])(?![a-zA-Z0-9])
//
// Under (?i) Python's [A-Z] also takes İ, ı, ſ and the Kelvin sign, and s takes ſ.
func lastAnswerLine(text string) string {
	last := ""
	for i := 0; i < len(text); i++ {
		if text[i]|0x20 != 'a' {
			continue
		}
		end, ok := foldedAnswer(text, i)
		if !ok {
			continue
		}
		for n := 0; n < 2 && end < len(text) && (text[end] == '*' || text[end] == '_'); n++ {
			end++
		}
		end = skipSpace(text, end)
		if end == len(text) || text[end] != ':' {
			continue
		}
		if l := letterAfterColon(text, end+1); l != "" {
			last = l
		}
	}
	return last
}

// foldedAnswer matches "answer" at i whatever the case and returns its end.
func foldedAnswer(text string, i int) (int, bool) {
	for _, want := range "answer" {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r != want && r != unicode.ToUpper(want) && !(want == 's' && r == 'ſ') {
			return 0, false
		}
		i += n
	}
	return i, true
}

// letterAfterColon matches [\s\*\_]{0,2}\s*([A-Z])(?![a-zA-Z0-9]) at i.
func letterAfterColon(text string, i int) string {
	for n := 0; n < 2 && i < len(text); n++ {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r != '*' && r != '_' && !isSpace(r) {
			break
		}
		i += size
	}
	i = skipSpace(text, i)
	r, size := utf8.DecodeRuneInString(text[i:])
	if !foldedLetter(r) {
		return ""
	}
	if next, _ := utf8.DecodeRuneInString(text[i+size:]); foldedLetter(next) || (next >= '0' && next <= '9') {
		return ""
	}
	return text[i : i+size]
}

// foldedLetter is (?i)[A-Z] in Python.
func foldedLetter(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return true
	}
	return r == 'İ' || r == 'ı' || r == 'ſ' || r == '\u212a'
}
