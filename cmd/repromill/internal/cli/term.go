package cli

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// painter colours text, or does not.
type painter bool

func (p painter) code(c, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + c + "m" + s + "\x1b[0m"
}

func (p painter) bold(s string) string   { return p.code("1", s) }
func (p painter) dim(s string) string    { return p.code("2", s) }
func (p painter) yellow(s string) string { return p.code("33", s) }

// isTerminal reports whether w is a terminal, and its width.
func isTerminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		width = 80
	}
	return width, true
}

// style says how to print on w. Piped output is 100 columns without colour.
func (a *app) style(w io.Writer) (width int, color bool) {
	width, tty := isTerminal(w)
	if !tty {
		width = 100
	}
	_, no := a.env["NO_COLOR"]
	return width, tty && !a.noColor && !(no && a.env["NO_COLOR"] != "") && a.env["TERM"] != "dumb"
}

// wrap breaks text into lines of at most width columns, at spaces where there
// are any. Escape sequences made by painter count as nothing.
func wrap(s string, width int) []string {
	var lines []string
	for _, para := range strings.Split(s, "\n") {
		var line strings.Builder
		n := 0
		for _, word := range strings.Fields(para) {
			w := columns(word)
			if n > 0 && n+1+w > width {
				lines = append(lines, line.String())
				line.Reset()
				n = 0
			}
			if n > 0 {
				line.WriteByte(' ')
				n++
			}
			line.WriteString(word)
			n += w
		}
		lines = append(lines, line.String())
	}
	return lines
}

func columns(s string) int {
	n := utf8.RuneCountInString(s)
	for rest := s; ; {
		i := strings.Index(rest, "\x1b[")
		if i < 0 {
			return n
		}
		j := strings.IndexByte(rest[i:], 'm')
		if j < 0 {
			return n
		}
		n -= j + 1
		rest = rest[i+j+1:]
	}
}
