package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/repromill/repromill/planner/spec"
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

// printable is a copy of a plan with every text made safe for a terminal: all
// of them may come from outside.
func printable(p *spec.Plan) *spec.Plan {
	var doc any
	out := new(spec.Plan)
	b, err := json.Marshal(p)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		err = d.Decode(&doc)
	}
	if err == nil {
		b, err = json.Marshal(cleanAll(doc))
	}
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil { // a number without a JSON form, which no valid plan holds
		return &spec.Plan{Warnings: []spec.Warning{{Code: "unprintable", Message: clean(err.Error())}}}
	}
	return out
}

func cleanAll(v any) any {
	switch v := v.(type) {
	case string:
		return clean(v)
	case []any:
		for i := range v {
			v[i] = cleanAll(v[i])
		}
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, x := range v {
			m[clean(k)] = cleanAll(x)
		}
		return m
	}
	return v
}

// shown is where text of foreign programs is printed: as it is to a pipe, and
// made safe to a terminal.
func shown(w io.Writer) io.Writer {
	if _, tty := isTerminal(w); tty {
		return &cleanWriter{w: w}
	}
	return w
}

// cleanWriter passes text on without what a terminal would obey. A character
// that is cut between two writes waits for its end.
type cleanWriter struct {
	w    io.Writer
	tail []byte
}

func (c *cleanWriter) Write(b []byte) (int, error) {
	text := append(c.tail, b...)
	keep := 0
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if at := len(text) - i; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				keep = i
			}
			break
		}
	}
	c.tail = bytes.Clone(text[len(text)-keep:])
	s := strings.ReplaceAll(string(text[:len(text)-keep]), "\r\n", "\n")
	if _, err := io.WriteString(c.w, clean(strings.ReplaceAll(s, "\r", "\n"))); err != nil {
		return 0, err
	}
	return len(b), nil
}
