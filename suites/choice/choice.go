// Package choice takes the letters that stand for options out of answers, by
// rules that several suites share. The published ones are Python patterns, some
// of which take quadratic time on long texts; what stands here gives the same
// letters in linear time. Python's \s and \b know Unicode, Go's do not, hence
// pytext and the test of neighbours.
package choice

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/repromill/repromill/suites/pytext"
)

// Staged is a letter with its stage, and 0 with none.
func Staged(letter string, stage int) (string, int) {
	if letter == "" {
		return "", 0
	}
	return letter, stage
}

// LetterAt returns the letter A to J at text[i], or "".
func LetterAt(text string, i int) string {
	if i < len(text) && text[i] >= 'A' && text[i] <= 'J' {
		return text[i : i+1]
	}
	return ""
}

// LastStandalone is the last match of r"\b[A-J]\b".
func LastStandalone(text string) string {
	for i := len(text) - 1; i >= 0; i-- {
		if LetterAt(text, i) == "" {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+1:])
		if (i == 0 || !pytext.IsWord(before)) && (i+1 == len(text) || !pytext.IsWord(after)) {
			return text[i : i+1]
		}
	}
	return ""
}

// SkipSpace returns the index of the first rune from i on that is no space.
func SkipSpace(text string, i int) int {
	for i < len(text) {
		r, n := utf8.DecodeRuneInString(text[i:])
		if !pytext.IsSpace(r) {
			break
		}
		i += n
	}
	return i
}

// BoxedStages are the stages of [Boxed].
var BoxedStages = []string{"box", "letter_in_box", "answer_line", "text_in_box"}

// Boxed takes the content of the last \boxed{} as it is if it is one character,
// else the last letter A to J that stands alone in it, else the content itself.
// Only without a balanced box does the last "Answer: X" count. The stage is a
// place in [BoxedStages], from 1; 0 if nothing was found.
//
// Source: NVIDIA-NeMo/Skills 8b18f39, nemo_skills/evaluation/evaluator/mcq.py
// and math_grader.py, extract_answer.
func Boxed(text string) (answer string, stage int) {
	box, ok := lastBox(text)
	if !ok {
		return Staged(lastAnswerLine(text), 3)
	}
	if utf8.RuneCountInString(box) == 1 {
		return box, 1
	}
	if l := LastStandalone(box); l != "" {
		return l, 2
	}
	return Staged(box, 4)
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
		end, ok := FoldedAnswer(text, i)
		if !ok {
			continue
		}
		for n := 0; n < 2 && end < len(text) && (text[end] == '*' || text[end] == '_'); n++ {
			end++
		}
		end = SkipSpace(text, end)
		if end == len(text) || text[end] != ':' {
			continue
		}
		if l := letterAfterColon(text, end+1); l != "" {
			last = l
		}
	}
	return last
}

// FoldedAnswer matches "answer" at i whatever the case and returns its end.
func FoldedAnswer(text string, i int) (int, bool) {
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
		if r != '*' && r != '_' && !pytext.IsSpace(r) {
			break
		}
		i += size
	}
	i = SkipSpace(text, i)
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
