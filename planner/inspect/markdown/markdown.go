// Package markdown reads README-like files for what a planner needs of them:
// headings, code blocks of every kind, tables and paragraphs, each with its
// line number.
//
// It is a line scanner, not a renderer. Research READMEs break CommonMark in
// all ways (code in list items at any indent, HTML in the middle, fences of
// seven backticks, blocks never closed), so the scanner takes what a reader
// would take for code. It also reads reStructuredText well enough for the same.
package markdown

import (
	"strings"
)

// Doc is one document.
type Doc struct {
	Headings []Heading
	Blocks   []Block
	Tables   []Table
	Paras    []Para
	Spans    []Span // inline code in prose
}

// Heading is one section title.
type Heading struct {
	Level int
	Text  string
	Line  int
}

// BlockKind says how a code block was written.
type BlockKind string

// The ways to write a code block.
const (
	Fenced   BlockKind = "fenced"
	Indented BlockKind = "indented"
	HTML     BlockKind = "html"
	Cell     BlockKind = "cell" // a code cell of a notebook
)

// Block is a stretch of code or output.
type Block struct {
	Kind BlockKind
	Lang string // lower case, first word of the info string
	Line int    // of the first line of its content
	Text []string
	// Intro is the text of the paragraph right before the block, and After that
	// of the one right after it.
	Intro, After string
}

// Table is a pipe table or an HTML table.
type Table struct {
	Line   int
	Header []string
	Rows   []Row
	Intro  string
	// Heading is the innermost heading above it, and Title the first of the
	// document.
	Heading, Title string
}

// Row is one row with the line it stands on.
type Row struct {
	Line  int
	Cells []string
	Links [][]string // addresses that each cell links to; nil where none does
}

// Para is a paragraph or list item, its lines joined by spaces.
type Para struct {
	Line   int
	Text   string
	starts []int // offset in Text at which each line begins
}

// LineAt is the line of the byte at offset in Text.
func (p *Para) LineAt(offset int) int {
	n := 0
	for n+1 < len(p.starts) && p.starts[n+1] <= offset {
		n++
	}
	return p.Line + n
}

// Span is one stretch of inline code.
type Span struct {
	Text string
	Line int
}

// Section is the innermost heading above a line, and the path to it.
func (d *Doc) Section(line int) (Heading, []string) {
	var stack []Heading
	for _, h := range d.Headings {
		if h.Line > line {
			break
		}
		for len(stack) > 0 && stack[len(stack)-1].Level >= h.Level {
			stack = stack[:len(stack)-1]
		}
		stack = append(stack, h)
	}
	if len(stack) == 0 {
		return Heading{}, nil
	}
	path := make([]string, len(stack))
	for i, h := range stack {
		path[i] = h.Text
	}
	return stack[len(stack)-1], path
}

// Limits of one document; what lies beyond is left out.
const (
	MaxLines  = 50_000
	maxBlocks = 5_000
)

type scanner struct {
	doc   *Doc
	lines []string
	para  []string
	start int // line of the paragraph being gathered
	// list is the content column of the list item the scanner is in, or 0.
	list int
	// pending is the block whose following paragraph is awaited, or -1.
	pending int
}

// Scan reads a document. It never fails.
func Scan(src string) *Doc {
	src = strings.ReplaceAll(src, "\r\n", "\n")
	lines := strings.SplitN(src, "\n", MaxLines+1)
	if len(lines) > MaxLines {
		lines = lines[:MaxLines]
	}
	s := &scanner{doc: &Doc{}, lines: lines, pending: -1}
	for i := 0; i < len(lines); {
		i = s.line(i)
	}
	s.flush()
	return s.doc
}

// line handles the construct that starts at index i and returns the index
// after it.
func (s *scanner) line(i int) int {
	raw := s.lines[i]
	quoteless := unquote(raw)
	trimmed := strings.TrimSpace(quoteless)
	switch {
	case trimmed == "":
		s.flush()
		return i + 1
	case fence(trimmed) != "":
		return s.fenced(i, fence(trimmed))
	case s.rstCode(trimmed):
		s.flush()
		return s.literal(i + 1)
	case startsTag(trimmed, "<pre"):
		return s.pre(i)
	case startsTag(trimmed, "<table"):
		return s.htmlTable(i)
	case s.indentedCode(i):
		return s.indented(i)
	case trimmed[0] == '#' && heading(trimmed) > 0:
		s.flush()
		n := heading(trimmed)
		s.heading(n, strings.Trim(trimmed[n:], " #\t"), i+1)
		return i + 1
	case len(s.para) == 1 && setext(trimmed) > 0 && s.list == 0:
		text := s.para[0]
		s.para = nil
		s.heading(setext(trimmed), text, i)
		return i + 1
	case isTableRow(trimmed) && i+1 < len(s.lines) && isDelimiter(unquote(s.lines[i+1])):
		return s.table(i)
	}
	if col := listItem(quoteless); col > 0 {
		s.flush()
		s.list = col
	} else if indent(quoteless) == 0 && len(s.para) == 0 {
		s.list = 0
	}
	if len(s.para) == 0 {
		s.start = i + 1
	}
	s.para = append(s.para, trimmed)
	return i + 1
}

func (s *scanner) heading(level int, text string, line int) {
	s.list = 0
	s.pending = -1
	s.doc.Headings = append(s.doc.Headings, Heading{Level: level, Text: plain(text), Line: line})
}

// flush ends the paragraph being gathered.
func (s *scanner) flush() {
	if len(s.para) == 0 {
		return
	}
	p := Para{Line: s.start}
	var b strings.Builder
	for n, l := range s.para {
		if n > 0 {
			b.WriteByte(' ')
		}
		p.starts = append(p.starts, b.Len())
		b.WriteString(l)
		for _, sp := range spans(l) {
			s.doc.Spans = append(s.doc.Spans, Span{Text: sp, Line: s.start + n})
		}
	}
	p.Text = b.String()
	s.para = nil
	s.doc.Paras = append(s.doc.Paras, p)
	if s.pending >= 0 {
		s.doc.Blocks[s.pending].After = p.Text
		s.pending = -1
	}
}

// intro is the paragraph right before the construct at line (1-based).
func (s *scanner) intro(line int) string {
	if n := len(s.doc.Paras); n > 0 {
		if p := s.doc.Paras[n-1]; line-(p.Line+len(p.starts)-1) <= 3 {
			return p.Text
		}
	}
	return ""
}

// newTable is a table that starts at a line, with the words around it.
func (s *scanner) newTable(line int) Table {
	t := Table{Line: line, Intro: s.intro(line)}
	if h := s.doc.Headings; len(h) > 0 {
		t.Heading, t.Title = h[len(h)-1].Text, h[0].Text
	}
	return t
}

func (s *scanner) add(b Block) {
	for len(b.Text) > 0 && strings.TrimSpace(b.Text[len(b.Text)-1]) == "" {
		b.Text = b.Text[:len(b.Text)-1]
	}
	for len(b.Text) > 0 && strings.TrimSpace(b.Text[0]) == "" {
		b.Text = b.Text[1:]
		b.Line++
	}
	if len(b.Text) == 0 || len(s.doc.Blocks) >= maxBlocks {
		return
	}
	b.Intro = s.intro(b.Line)
	s.doc.Blocks = append(s.doc.Blocks, b)
	s.pending = len(s.doc.Blocks) - 1
}

// fenced reads a block between fences. It ends at a fence of the same
// character that is at least as long, or at the end of the document.
func (s *scanner) fenced(i int, open string) int {
	s.flush()
	first := strings.TrimSpace(unquote(s.lines[i]))
	info := strings.TrimSpace(first[len(open):])
	if end := strings.Index(info, open); end >= 0 { // ```cmd``` on one line
		s.add(Block{Kind: Fenced, Line: i + 1, Text: []string{strings.TrimSpace(info[:end])}})
		return i + 1
	}
	margin := indent(s.lines[i])
	b := Block{Kind: Fenced, Lang: lang(info), Line: i + 2}
	j := i + 1
	for ; j < len(s.lines); j++ {
		line := unquote(s.lines[j])
		if f := fence(strings.TrimSpace(line)); strings.HasPrefix(f, open) && strings.TrimSpace(line) == f {
			break
		}
		b.Text = append(b.Text, outdent(line, margin))
	}
	s.add(b)
	return j + 1
}

// rstCode says whether a line opens a reStructuredText literal block.
func (s *scanner) rstCode(t string) bool {
	return strings.HasPrefix(t, ".. code") || strings.HasPrefix(t, ".. sourcecode")
}

// literal reads the indented text after a reStructuredText directive.
func (s *scanner) literal(i int) int {
	for i < len(s.lines) && (strings.TrimSpace(s.lines[i]) == "" || strings.HasPrefix(strings.TrimSpace(s.lines[i]), ":")) {
		i++
	}
	if i >= len(s.lines) || indent(s.lines[i]) == 0 {
		return i
	}
	return s.indented(i)
}

// indentedCode says whether line i starts a block indented by four columns
// beyond its surroundings. Inside a list that is often plain prose, so there it
// must also look like a command.
func (s *scanner) indentedCode(i int) bool {
	l := s.lines[i]
	if len(s.para) > 0 || indent(l) < 4 {
		return false
	}
	if s.list > 0 {
		t := strings.TrimSpace(l)
		return indent(l) >= s.list+4 || strings.HasPrefix(t, "$ ") || LooksLikeCommand(t)
	}
	return listItem(l) == 0 || indent(l) >= 8
}

func (s *scanner) indented(i int) int {
	s.flush()
	margin := indent(s.lines[i])
	b := Block{Kind: Indented, Line: i + 1}
	j := i
	for ; j < len(s.lines); j++ {
		l := s.lines[j]
		if strings.TrimSpace(l) == "" {
			b.Text = append(b.Text, "")
			continue
		}
		if indent(l) < margin {
			break
		}
		b.Text = append(b.Text, outdent(l, margin))
	}
	s.add(b)
	return j
}

// unquote strips block quote marks.
func unquote(l string) string {
	t := strings.TrimLeft(l, " ")
	for strings.HasPrefix(t, "> ") || t == ">" || strings.HasPrefix(t, ">```") {
		t = strings.TrimPrefix(t[1:], " ")
		l = t
	}
	return l
}

// fence is the run of three or more backticks or tildes that t starts with.
func fence(t string) string {
	if len(t) < 3 || t[0] != '`' && t[0] != '~' {
		return ""
	}
	n := 0
	for n < len(t) && t[n] == t[0] {
		n++
	}
	if n < 3 {
		return ""
	}
	return t[:n]
}

func lang(info string) string {
	info = strings.ToLower(strings.Trim(info, "{}. "))
	if i := strings.IndexAny(info, " ,:{"); i >= 0 {
		info = info[:i]
	}
	return info
}

func heading(t string) int {
	n := 0
	for n < len(t) && t[n] == '#' {
		n++
	}
	if n > 6 || n == len(t) || t[n] != ' ' && t[n] != '\t' {
		return 0
	}
	return n
}

func setext(t string) int {
	switch {
	case len(t) >= 3 && strings.Trim(t, "=") == "":
		return 1
	case len(t) >= 3 && strings.Trim(t, "-") == "", len(t) >= 3 && strings.Trim(t, "~") == "":
		return 2
	}
	return 0
}

// listItem is the column at which the text of a list item begins, or 0.
func listItem(l string) int {
	n := indent(l)
	t := strings.TrimLeft(l, " \t")
	switch {
	case len(t) > 1 && (t[0] == '-' || t[0] == '*' || t[0] == '+') && (t[1] == ' ' || t[1] == '\t'):
		return n + 2
	case len(t) > 2 && t[0] >= '0' && t[0] <= '9':
		k := 0
		for k < len(t) && t[k] >= '0' && t[k] <= '9' {
			k++
		}
		if k < 4 && k+1 < len(t) && (t[k] == '.' || t[k] == ')') && t[k+1] == ' ' {
			return n + k + 2
		}
	}
	return 0
}

func indent(l string) int {
	n := 0
	for i := 0; i < len(l); i++ {
		switch l[i] {
		case ' ':
			n++
		case '\t':
			n += 4 - n%4
		default:
			return n
		}
	}
	return n
}

func outdent(l string, n int) string {
	col := 0
	for i := 0; i < len(l); i++ {
		if col >= n || l[i] != ' ' && l[i] != '\t' {
			return l[i:]
		}
		if l[i] == ' ' {
			col++
		} else {
			col += 4 - col%4
		}
	}
	return ""
}

// spans lists the inline code of a line.
func spans(l string) []string {
	var out []string
	for {
		i := strings.IndexByte(l, '`')
		if i < 0 {
			return out
		}
		n := 1
		for i+n < len(l) && l[i+n] == '`' {
			n++
		}
		mark := l[i : i+n]
		j := strings.Index(l[i+n:], mark)
		if j < 0 {
			return out
		}
		if t := strings.TrimSpace(l[i+n : i+n+j]); t != "" {
			out = append(out, t)
		}
		l = l[i+n+j+n:]
	}
}
