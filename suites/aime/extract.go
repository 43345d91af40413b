package aime

import (
	"strings"
	"unicode"
)

const boxCommand = `\boxed`

// lastBox returns the content of the box that opens last among those that are
// closed, in one pass over the text. Escaped braces do not count.
func lastBox(text string) (content string, found bool) {
	type brace struct {
		inside int  // index after the brace
		box    bool // opens a box
	}
	var open []brace
	last := -1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if !strings.HasPrefix(text[i:], boxCommand) {
				i++ // an escaped brace, or the first letter of a command
				continue
			}
			k := i + len(boxCommand)
			for k < len(text) && (text[k] == ' ' || text[k] == '\t') {
				k++
			}
			if k < len(text) && text[k] == '{' {
				open = append(open, brace{k + 1, true})
				i = k
				continue
			}
			if end := digits(text, k); end > k {
				last, content = k, text[k:end]
			}
			i = k - 1
		case '{':
			open = append(open, brace{inside: i + 1})
		case '}':
			if len(open) == 0 {
				continue
			}
			b := open[len(open)-1]
			open = open[:len(open)-1]
			if b.box && b.inside > last {
				last, content = b.inside, text[b.inside:i]
			}
		}
	}
	return content, last >= 0
}

// digits returns the end of the run of ASCII digits at i.
func digits(text string, i int) int {
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	return i
}

// lastInteger returns the last run of digits that is no part of a word, of a
// decimal fraction or of a negative number.
func lastInteger(text string) (string, bool) {
	for end := len(text); end > 0; {
		if text[end-1] < '0' || text[end-1] > '9' {
			end--
			continue
		}
		start := end
		for start > 0 && text[start-1] >= '0' && text[start-1] <= '9' {
			start--
		}
		if standsAlone(text[:start], text[end:]) {
			return text[start:end], true
		}
		end = start
	}
	return "", false
}

// standsAlone judges digits by what stands before and after them.
func standsAlone(before, after string) bool {
	if n := len(before); n > 0 {
		c := rune(before[n-1])
		if c >= 0x80 || unicode.IsLetter(c) || c == '_' || c == '-' {
			return false
		}
		if c == '.' && n > 1 && before[n-2] >= '0' && before[n-2] <= '9' {
			return false
		}
	}
	if after == "" {
		return true
	}
	c := rune(after[0])
	if c == '.' {
		return len(after) == 1 || after[1] < '0' || after[1] > '9'
	}
	return c < 0x80 && !unicode.IsLetter(c) && c != '_'
}

// parse reads an integer from 0 to 999 out of LaTeX dress: dollar signs, thin
// spaces, thousands commas, a degree sign, a final stop, and text commands, kept
// if the number is inside them and dropped if they hold a unit.
func parse(s string) (int, bool) {
	if len(s) > 4096 {
		return 0, false
	}
	for _, keep := range []bool{true, false} {
		if n, ok := integer(bare(untext(s, keep))); ok {
			return n, true
		}
	}
	return 0, false
}

// untext takes off \text{…} and its like, with or without what it holds.
func untext(s string, keep bool) string {
	for _, cmd := range []string{`\text{`, `\textbf{`, `\mathrm{`, `\mathbf{`, `\mbox{`} {
		for {
			i := strings.Index(s, cmd)
			if i < 0 {
				break
			}
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				break
			}
			inner := ""
			if keep {
				inner = s[i+len(cmd) : i+end]
			}
			s = s[:i] + inner + s[i+end+1:]
		}
	}
	return s
}

// bare removes what LaTeX puts around and into a number.
func bare(s string) string {
	s = strings.NewReplacer(`^{\circ}`, "", `^\circ`, "", `{,}`, "", `\,`, "", `\!`, "", `\;`, "", `\:`, "", `\ `, "",
		`\(`, "", `\)`, "", "$", "", ",", "", "°", "").Replace(s)
	return strings.TrimSuffix(strings.TrimSpace(s), ".")
}

func integer(s string) (int, bool) {
	if s == "" || digits(s, 0) != len(s) {
		return 0, false
	}
	s = strings.TrimLeft(s, "0")
	if len(s) > 3 {
		return 0, false
	}
	n := 0
	for _, c := range s {
		n = 10*n + int(c-'0')
	}
	return n, true
}
