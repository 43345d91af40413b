package mmlupro

import (
	"strings"

	"github.com/repromill/repromill/suites/choice"
)

// The published rules are Python patterns, some of which take quadratic time on
// long texts. What follows gives the same letters by scanning, in linear time.

// firstMatch is the chain of re.search calls.
func firstMatch(text string) (string, int) {
	if l := firstAnswerIs(text); l != "" {
		return l, 1
	}
	if l := firstLineAnswerColon(text); l != "" {
		return l, 2
	}
	return choice.Staged(choice.LastStandalone(text), 3)
}

// lastMatch is the chain of re.findall(…)[-1] calls.
func lastMatch(text string) (string, int) {
	if l := lastAnswerIs(text); l != "" {
		return l, 1
	}
	if l := lastAnswerColon(text); l != "" {
		return l, 2
	}
	return choice.Staged(choice.LastStandalone(text), 3)
}

const answerIs = "answer is "

// letterAfterIs reads \(?([A-J])\)? at text[i:].
func letterAfterIs(text string, i int) string {
	if i < len(text) && text[i] == '(' {
		i++
	}
	return choice.LetterAt(text, i)
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
	i = choice.SkipSpace(text, i+len(answerColon))
	return choice.LetterAt(text, i), i
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
