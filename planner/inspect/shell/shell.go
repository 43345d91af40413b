// Package shell splits shell text into simple commands without running or
// expanding anything, so that a plan can turn what a README says into an
// argument vector, and can say precisely why it cannot.
//
// The grammar is the common part of POSIX sh and bash: words, quotes,
// assignments, redirections, operators and the parts of words that only a
// running shell could expand. See POSIX.1-2017, Shell & Utilities, 2.2-2.10.
package shell

import (
	"errors"
	"regexp"
	"strings"
)

// Line is one parsed text: simple commands and the operators between them.
type Line struct {
	Commands []Command
	// Compound says that the text holds a construct that has no simple
	// command: a loop, a test, a function, a subshell, a here document.
	Compound string
}

// Command is one simple command.
type Command struct {
	Assign []Assign
	Words  []Word
	Redirs []Redir
	// Op is the operator before this command: "", "&&", "||", ";", "|" or "&"
	// (the command before it is put into the background).
	Op string
	// Background says that the command itself ends with "&".
	Background bool
}

// Assign is one leading NAME=value.
type Assign struct {
	Name  string
	Value Word
}

// Word is one word after quote removal.
type Word struct {
	Text string // quotes removed, expansions kept as written
	// Vars are the parameters that the word would expand: "HOME", "1", "@".
	Vars []string
	// Substs are command substitutions, without their "$(" and ")".
	Substs []string
	// Glob says that an unquoted part would be matched against file names.
	Glob bool
	// Brace says that an unquoted part would be expanded as {a,b}.
	Brace bool
	// Tilde says that the word starts with an unquoted "~".
	Tilde  bool
	Quoted bool
}

// Plain says that a shell would leave the word's text as it is.
func (w Word) Plain() bool {
	return len(w.Vars) == 0 && len(w.Substs) == 0 && !w.Glob && !w.Brace && !w.Tilde
}

// Redir is one redirection.
type Redir struct {
	Op     string // ">", ">>", "<", "2>", "2>&1", "&>", …
	Target Word
}

// Argv is the text of the words.
func (c Command) Argv() []string {
	out := make([]string, len(c.Words))
	for i, w := range c.Words {
		out[i] = w.Text
	}
	return out
}

// ErrUnterminated reports a quote or bracket that is never closed.
var ErrUnterminated = errors.New("shell text ends inside a quote or an expansion")

// MaxBytes bounds the text that Parse reads.
const MaxBytes = 1 << 20

// Parse reads shell text.
func Parse(text string) (*Line, error) {
	if len(text) > MaxBytes {
		return nil, errors.New("shell text is larger than 1 MiB")
	}
	p := &parser{src: text, line: &Line{}}
	if kind := compound(text); kind != "" {
		p.line.Compound = kind
	}
	if err := p.run(); err != nil {
		return p.line, err
	}
	return p.line, nil
}

var (
	compoundRE = regexp.MustCompile(`(?m)^\s*(for|while|until|if|case|select|function)\s|^\s*\w+\s*\(\)\s*\{|^\s*(\[\[)\s`)
	heredocRE  = regexp.MustCompile(`<<-?\s*['"]?\w`)
	assignRE   = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)=`)
)

func compound(text string) string {
	if m := compoundRE.FindStringSubmatch(text); m != nil {
		if m[1] != "" {
			return m[1]
		}
		if m[2] != "" {
			return "test"
		}
		return "function"
	}
	if heredocRE.MatchString(text) {
		return "here document"
	}
	return ""
}

type parser struct {
	src  string
	pos  int
	line *Line
	cur  Command
}

func (p *parser) run() error {
	for p.pos < len(p.src) {
		c := p.src[p.pos]
		switch {
		case c == ' ' || c == '\t' || c == '\r':
			p.pos++
		case c == '\\' && strings.HasPrefix(p.src[p.pos:], "\\\n"):
			p.pos += 2
		case c == '#':
			if i := strings.IndexByte(p.src[p.pos:], '\n'); i >= 0 {
				p.pos += i
			} else {
				p.pos = len(p.src)
			}
		case c == '\n':
			p.finish(";")
			p.pos++
		case c == '(' || c == ')':
			if p.line.Compound == "" {
				p.line.Compound = "subshell"
			}
			p.pos++
		case c == '&' || c == '|' || c == ';':
			p.operator()
		case c == '<' || c == '>' || isFD(p.src[p.pos:]):
			if err := p.redirect(); err != nil {
				return err
			}
		default:
			w, err := p.word()
			if err != nil {
				return err
			}
			p.put(w)
		}
	}
	p.finish("")
	return nil
}

func isFD(s string) bool {
	return len(s) > 1 && (s[0] == '1' || s[0] == '2') && (s[1] == '>' || s[1] == '<')
}

// put adds a word to the current command, as an assignment where it stands
// before the first word and looks like one.
func (p *parser) put(w Word) {
	if m := assignRE.FindStringSubmatch(w.Text); m != nil && len(p.cur.Words) == 0 {
		v := w
		v.Text = w.Text[len(m[0]):]
		p.cur.Assign = append(p.cur.Assign, Assign{Name: m[1], Value: v})
		return
	}
	p.cur.Words = append(p.cur.Words, w)
}

// finish closes the current command; next is the operator that follows it.
func (p *parser) finish(next string) {
	op := p.cur.Op
	if len(p.cur.Words) > 0 || len(p.cur.Assign) > 0 {
		if next == "&" {
			p.cur.Background = true
		}
		p.line.Commands = append(p.line.Commands, p.cur)
		op = ""
	}
	p.cur = Command{Op: op}
	if next != "" && len(p.line.Commands) > 0 {
		p.cur.Op = next
	}
}

func (p *parser) operator() {
	for _, op := range []string{"&&", "||", ";;", "|&", "&>", "&", "|", ";"} {
		if !strings.HasPrefix(p.src[p.pos:], op) {
			continue
		}
		p.pos += len(op)
		switch op {
		case "&>":
			p.pos -= 2
			if err := p.redirect(); err != nil {
				p.pos = len(p.src)
			}
			return
		case "|&":
			op = "|"
		case ";;":
			op = ";"
		}
		p.finish(op)
		return
	}
}

func (p *parser) redirect() error {
	start := p.pos
	for p.pos < len(p.src) && strings.IndexByte("<>&|0123456789", p.src[p.pos]) >= 0 {
		c := p.src[p.pos]
		p.pos++
		if c >= '0' && c <= '9' && p.pos-start > 1 { // "2>&1": the digit ends it
			break
		}
		if p.pos-start >= 4 {
			break
		}
	}
	r := Redir{Op: p.src[start:p.pos]}
	for p.pos < len(p.src) && (p.src[p.pos] == ' ' || p.src[p.pos] == '\t') {
		p.pos++
	}
	if !strings.Contains(r.Op, ">&") && p.pos < len(p.src) && p.src[p.pos] != '\n' && strings.IndexByte("|&;()<>", p.src[p.pos]) < 0 {
		w, err := p.word()
		if err != nil {
			return err
		}
		r.Target = w
	}
	p.cur.Redirs = append(p.cur.Redirs, r)
	return nil
}

// word reads one word up to an unquoted separator.
func (p *parser) word() (Word, error) {
	var w Word
	var b strings.Builder
	for p.pos < len(p.src) {
		c := p.src[p.pos]
		switch {
		case strings.IndexByte(" \t\r\n|&;()<>", c) >= 0:
			w.Text = b.String()
			return w, nil
		case c == '\\':
			if p.pos+1 >= len(p.src) {
				p.pos++
				continue
			}
			if p.src[p.pos+1] != '\n' {
				b.WriteByte(p.src[p.pos+1])
			}
			p.pos += 2
		case c == '\'':
			end := strings.IndexByte(p.src[p.pos+1:], '\'')
			if end < 0 {
				return w, ErrUnterminated
			}
			w.Quoted = true
			b.WriteString(p.src[p.pos+1 : p.pos+1+end])
			p.pos += end + 2
		case c == '"':
			if err := p.double(&w, &b); err != nil {
				return w, err
			}
		case c == '$' || c == '`':
			if err := p.expansion(&w, &b); err != nil {
				return w, err
			}
		default:
			p.unquoted(&w, b.Len(), c)
			b.WriteByte(c)
			p.pos++
		}
	}
	w.Text = b.String()
	return w, nil
}

func (p *parser) unquoted(w *Word, at int, c byte) {
	switch {
	case c == '*' || c == '?':
		w.Glob = true
	case c == '[' && strings.IndexByte(p.src[p.pos:], ']') > 1 && at > 0 && !pythonic(p.src[p.pos:]):
		w.Glob = true
	case c == '~' && at == 0:
		w.Tilde = true
	case c == '{':
		if i := strings.IndexAny(p.src[p.pos:], "} \n"); i > 0 && p.src[p.pos+i] == '}' && strings.ContainsAny(p.src[p.pos:p.pos+i], ",") {
			w.Brace = true
		}
	}
}

// pythonic recognises extras such as "pkg[dev]" and lists such as "[1,2]",
// which people write unquoted and which match no file.
func pythonic(s string) bool {
	i := strings.IndexByte(s, ']')
	return i > 0 && !strings.ContainsAny(s[1:i], "*?-!^ ") || i > 0 && strings.ContainsAny(s[1:i], ",")
}

func (p *parser) double(w *Word, b *strings.Builder) error {
	w.Quoted = true
	p.pos++
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; c {
		case '"':
			p.pos++
			return nil
		case '\\':
			if p.pos+1 < len(p.src) && strings.IndexByte("$`\"\\\n", p.src[p.pos+1]) >= 0 {
				if p.src[p.pos+1] != '\n' {
					b.WriteByte(p.src[p.pos+1])
				}
				p.pos += 2
				continue
			}
			b.WriteByte(c)
			p.pos++
		case '$', '`':
			if err := p.expansion(w, b); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return ErrUnterminated
}

// expansion reads $NAME, ${…}, $(…), $((…)) and `…`, keeping the text.
func (p *parser) expansion(w *Word, b *strings.Builder) error {
	rest := p.src[p.pos:]
	if rest[0] == '`' {
		end := strings.IndexByte(rest[1:], '`')
		if end < 0 {
			return ErrUnterminated
		}
		w.Substs = append(w.Substs, rest[1:1+end])
		b.WriteString(rest[:end+2])
		p.pos += end + 2
		return nil
	}
	if len(rest) == 1 {
		b.WriteByte('$')
		p.pos++
		return nil
	}
	switch c := rest[1]; {
	case c == '{' || c == '(':
		end := balanced(rest[1:])
		if end < 0 {
			return ErrUnterminated
		}
		body := rest[2 : 1+end]
		if c == '{' {
			w.Vars = append(w.Vars, paramName(body))
		} else {
			w.Substs = append(w.Substs, body)
		}
		b.WriteString(rest[:end+2])
		p.pos += end + 2
	case nameByte(c) && !(c >= '0' && c <= '9'):
		n := 1
		for n < len(rest) && nameByte(rest[n]) {
			n++
		}
		w.Vars = append(w.Vars, rest[1:n])
		b.WriteString(rest[:n])
		p.pos += n
	case strings.IndexByte("0123456789@*#?$!-", c) >= 0:
		w.Vars = append(w.Vars, string(c))
		b.WriteString(rest[:2])
		p.pos += 2
	default:
		b.WriteByte('$')
		p.pos++
	}
	return nil
}

// paramName is the name in "NAME:-default" and the like.
func paramName(body string) string {
	n := 0
	for n < len(body) && nameByte(body[n]) {
		n++
	}
	if n == 0 {
		return body
	}
	return body[:n]
}

func nameByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// balanced is the index of the bracket that closes s[0], or -1.
func balanced(s string) int {
	depth := 0
	var q byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\':
			i++
		case q != 0:
			if c == q {
				q = 0
			}
		case c == '\'' || c == '"':
			q = c
		case c == '(' || c == '{':
			depth++
		case c == ')' || c == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// Quote writes argv as a person would type it.
func Quote(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		if a != "" && strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:=,@%^[]") == "" {
			out[i] = a
		} else {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
