package report

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// clean makes a stranger's text safe to show on one line: no control
// characters, so no terminal escapes, and nothing that reorders or hides text.
// What is taken out stays visible as a picture of it.
func clean(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	marks := 0
	for _, r := range strings.TrimSpace(s) {
		if marks++; !unicode.Is(unicode.Mn, r) {
			marks = 0
		}
		switch {
		case marks > maxMarks:
			continue
		case r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029':
			r = ' '
		case r < 0x20:
			r += 0x2400 // control pictures
		case r == 0x7f:
			r = '\u2421'
		case hidden(r):
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

// maxMarks is how many combining marks one letter may carry; more of them would
// paint over the lines above and below.
const maxMarks = 4

// isClean is the common case, checked without a copy.
func isClean(s string) bool {
	if !utf8.ValidString(s) || strings.TrimSpace(s) != s {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == '\u2028' || r == '\u2029' || hidden(r) || unicode.Is(unicode.Mn, r) {
			return false
		}
	}
	return true
}

// hidden reports runes that steer a terminal, reorder text or cannot be seen:
// C1 controls, bidirectional controls, zero-width and tag characters. The
// joiners that emoji and some scripts need stay.
func hidden(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f, r >= 0xe0000 && r <= 0xe007f:
		return true
	case r == '\u200c' || r == '\u200d':
		return false
	}
	return unicode.Is(unicode.Cf, r)
}

// markdown makes a stranger's text safe inside a line of Markdown, in a table
// cell too: no markup, no HTML, no links, no mentions.
func markdown(s string) string {
	s = markdownEscaper.Replace(clean(s))
	return strings.ReplaceAll(s, "www.", `www\.`)
}

var markdownEscaper = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "|", `\|`, "~", `\~`, "#", `\#`, "!", `\!`, "$", `\$`,
	"&", "&amp;", "<", "&lt;", ">", "&gt;", "://", `\://`, "@", "@&#8203;",
)

// code is a code span with s as it is.
func code(s string) string {
	s = clean(s)
	if s == "" {
		return ""
	}
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	return fence + s + fence
}

// split cuts s after at most width columns, between graphemes, and returns both
// parts.
func split(s string, width int) (head, tail string) {
	used, end := 0, 0
	for g := uniseg.NewGraphemes(s); g.Next(); {
		if used += g.Width(); used > width {
			break
		}
		_, end = g.Positions()
	}
	return s[:end], s[end:]
}

// truncate shortens s to width columns with an ellipsis where something was
// cut.
func truncate(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if uniseg.StringWidth(s) <= width {
		return s
	}
	head, _ := split(s, width-1)
	return head + "…"
}

// wrap breaks s into lines of at most width columns, at blanks where there are
// any. A word that is longer is broken between graphemes.
func wrap(s string, width int) []string {
	width = max(width, 8)
	var lines []string
	line, used := "", 0
	for _, word := range strings.Fields(s) {
		w := uniseg.StringWidth(word)
		if used > 0 && used+1+w <= width {
			line, used = line+" "+word, used+1+w
			continue
		}
		if used > 0 {
			lines = append(lines, line)
		}
		for w > width {
			head, tail := split(word, width)
			lines = append(lines, head)
			word, w = tail, uniseg.StringWidth(tail)
		}
		line, used = word, w
	}
	if used > 0 || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}
