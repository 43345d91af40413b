// Package python reads Python source as text, without running or importing it.
//
// It is a lexer and a set of small readers over the tokens: imports,
// command-line flags, what is printed, which files are written, which keys
// dictionaries carry. A module that does not lex still gives what stood before
// the break; nothing here returns an error, because a repository's source is
// evidence and evidence may be poor.
package python

import (
	"strings"
	"unicode/utf8"
)

// Kind is the class of a token.
type Kind uint8

// The classes of token. Indentation is not a token: Col of a line's first
// token carries it.
const (
	Name Kind = iota
	Number
	String
	Op
	Newline
	Comment
)

// Token is one lexical unit.
type Token struct {
	Kind   Kind
	Text   string // of a String: its content, escapes resolved for the common ones
	Prefix string // of a String: lower-case prefix letters, such as "f" or "rb"
	Line   int    // 1-based
	Col    int    // 0-based, in bytes; tabs count as one
	Depth  int    // how many brackets are open before the token
}

// MaxTokens bounds how many tokens of one file are read.
const MaxTokens = 400_000

type lexer struct {
	src       string
	pos, line int
	lineStart int
	depth     int
	toks      []Token
}

// Lex splits src into tokens. It stops at MaxTokens and never fails: a
// character that belongs to no token is skipped.
func Lex(src string) []Token {
	l := &lexer{src: src, line: 1, toks: make([]Token, 0, len(src)/5)}
	for l.pos < len(l.src) && len(l.toks) < MaxTokens {
		l.next()
	}
	return l.toks
}

func (l *lexer) add(k Kind, text, prefix string, line, col int) {
	l.toks = append(l.toks, Token{Kind: k, Text: text, Prefix: prefix, Line: line, Col: col, Depth: l.depth})
}

func (l *lexer) next() {
	c := l.src[l.pos]
	switch {
	case c == '\n':
		if l.depth == 0 {
			l.add(Newline, "\n", "", l.line, l.pos-l.lineStart)
		}
		l.newline()
	case c == ' ' || c == '\t' || c == '\r' || c == '\f':
		l.pos++
	case c == '\\' && l.pos+1 < len(l.src) && (l.src[l.pos+1] == '\n' || l.src[l.pos+1] == '\r'):
		l.pos++
		if l.src[l.pos] == '\r' && l.pos+1 < len(l.src) && l.src[l.pos+1] == '\n' {
			l.pos++
		}
		l.newline()
	case c == '#':
		end := strings.IndexByte(l.src[l.pos:], '\n')
		if end < 0 {
			end = len(l.src) - l.pos
		}
		l.add(Comment, strings.TrimSpace(l.src[l.pos+1:l.pos+end]), "", l.line, l.pos-l.lineStart)
		l.pos += end
	case c == '"' || c == '\'':
		l.str("", l.pos)
	case isNameStart(c):
		l.name()
	case c >= '0' && c <= '9' || c == '.' && l.pos+1 < len(l.src) && isDigit(l.src[l.pos+1]):
		start := l.pos
		for l.pos < len(l.src) && (isNamePart(l.src[l.pos]) || l.src[l.pos] == '.' ||
			(l.src[l.pos] == '-' || l.src[l.pos] == '+') && (l.src[l.pos-1] == 'e' || l.src[l.pos-1] == 'E')) {
			l.pos++
		}
		l.add(Number, l.src[start:l.pos], "", l.line, start-l.lineStart)
	default:
		l.op(c)
	}
}

func (l *lexer) newline() {
	l.pos++
	l.line++
	l.lineStart = l.pos
}

func (l *lexer) name() {
	start := l.pos
	for l.pos < len(l.src) && isNamePart(l.src[l.pos]) {
		l.pos++
	}
	word := l.src[start:l.pos]
	if len(word) <= 2 && l.pos < len(l.src) && (l.src[l.pos] == '"' || l.src[l.pos] == '\'') {
		p := strings.ToLower(word)
		if strings.Trim(p, "rbfut") == "" {
			l.str(p, start)
			return
		}
	}
	l.add(Name, word, "", l.line, start-l.lineStart)
}

func (l *lexer) str(prefix string, start int) {
	line, col := l.line, start-l.lineStart
	q := l.src[l.pos]
	triple := strings.HasPrefix(l.src[l.pos:], strings.Repeat(string(q), 3))
	if triple {
		l.pos += 3
	} else {
		l.pos++
	}
	raw := strings.Contains(prefix, "r")
	var b strings.Builder
	for l.pos < len(l.src) {
		c := l.src[l.pos]
		switch {
		case c == '\\' && l.pos+1 < len(l.src):
			l.escape(&b, raw)
		case triple && c == q && strings.HasPrefix(l.src[l.pos:], strings.Repeat(string(q), 3)):
			l.pos += 3
			l.add(String, b.String(), prefix, line, col)
			return
		case !triple && (c == q || c == '\n'):
			if c == q {
				l.pos++
			}
			l.add(String, b.String(), prefix, line, col)
			return
		case c == '\n':
			b.WriteByte(c)
			l.newline()
		default:
			b.WriteByte(c)
			l.pos++
		}
	}
	l.add(String, b.String(), prefix, line, col)
}

// escape resolves the escapes that change what a printed line looks like; the
// others keep their backslash.
func (l *lexer) escape(b *strings.Builder, raw bool) {
	n := l.src[l.pos+1]
	if n == '\n' {
		l.pos++
		l.newline()
		return
	}
	l.pos += 2
	switch {
	case raw:
		b.WriteByte('\\')
		b.WriteByte(n)
	case n == 'n':
		b.WriteByte('\n')
	case n == 't':
		b.WriteByte('\t')
	case n == 'r':
		b.WriteByte('\r')
	case n == '\\' || n == '\'' || n == '"':
		b.WriteByte(n)
	default:
		b.WriteByte('\\')
		b.WriteByte(n)
	}
}

func (l *lexer) op(c byte) {
	size := 1
	if c >= utf8.RuneSelf {
		_, size = utf8.DecodeRuneInString(l.src[l.pos:])
		l.pos += size
		return
	}
	for _, three := range []string{"**=", "//=", ">>=", "<<=", "...", "==", "!=", "<=", ">=", "->", "+=", "-=", "*=", "/=", "%=", ":=", "**", "//", "|=", "&="} {
		if strings.HasPrefix(l.src[l.pos:], three) {
			size = len(three)
			break
		}
	}
	text := l.src[l.pos : l.pos+size]
	if text == ")" || text == "]" || text == "}" {
		l.depth = max(0, l.depth-1)
	}
	l.add(Op, text, "", l.line, l.pos-l.lineStart)
	if text == "(" || text == "[" || text == "{" {
		l.depth++
	}
	l.pos += size
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
func isNamePart(c byte) bool { return isNameStart(c) || isDigit(c) || c >= utf8.RuneSelf }
