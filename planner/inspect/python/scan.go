package python

import (
	"strings"
)

// Module is what can be read off one source file.
type Module struct {
	Doc     string
	Imports []Import
	Flags   []Flag
	Prints  []Print
	Writes  []Write
	Env     []Literal // names read from the environment
	Needs   []Literal // of those, the ones without which the program fails
	Main    bool      // has a __main__ block
	Calls   map[string]int
	// Assigns holds the last assignment of each plain name, at any depth.
	Assigns map[string]Expr
	// Dicts holds the string keys of dictionaries by the name they are bound
	// to; a function's returned dictionary is under its name followed by "()".
	Dicts map[string]*Dict
	// Hydra is the configuration that a program started by Hydra reads; nil
	// where it is none.
	Hydra *Hydra
	// Rows are statements that load rows of data, with a form that loads a hundred.
	Rows []Row
	// Withheld are statements without which the file cannot be compiled.
	Withheld []Withheld
	// Remarks are comments that hold a number, and lines of docstrings that do.
	Remarks []Literal
	// Paths are the string literals that look like a file with a suffix.
	Paths []Literal
}

// Import is one imported module.
type Import struct {
	Name  string   // dotted; of "from a.b import c" it is "a.b"
	Names []string // of "from a.b import c, d": c, d
	Level int      // leading dots of a relative import
	Line  int
	Guard bool // inside a try or an if, so it may be optional
	Inner bool // inside a function, so it happens when that is called
}

// Flag is one command-line option or positional argument.
type Flag struct {
	Names    []string // as declared: "--steps", "-n", or "input" for a positional
	Default  string   // source text; empty when none is given
	Type     string
	Action   string
	Choices  []string
	Help     string
	Required bool
	Line     int
	By       string // argparse|click|absl|dataclass|global
}

// Literal is a string in the source.
type Literal struct {
	Text string
	Line int
}

// Expr is the source text of an expression, its tokens joined.
type Expr struct {
	Text string
	Line int
	toks []Token
}

// Scan reads one module.
func Scan(src string) *Module {
	s := &scanner{toks: Lex(src), m: &Module{Calls: map[string]int{}, Assigns: map[string]Expr{}, Dicts: map[string]*Dict{}}}
	s.run()
	s.m.Rows = rows(src)
	s.m.Withheld = withheld(src)
	return s.m
}

type scanner struct {
	toks []Token
	m    *Module
	// fn is the stack of enclosing function names with their columns.
	fn    []scope
	class []scope
	guard []int // columns of enclosing try, if and except
}

type scope struct {
	name string
	col  int
	data bool // of a class: decorated as a dataclass
}

func (s *scanner) run() {
	start := true
	var decorator string
	for i := 0; i < len(s.toks); i++ {
		t := s.toks[i]
		if t.Kind == Newline {
			start = true
			continue
		}
		if t.Kind == Comment {
			s.remark(t.Text, t.Line)
			continue
		}
		if start {
			start = false
			s.leave(t.Col)
			if t.Kind == Op && t.Text == "@" && i+1 < len(s.toks) {
				decorator = s.text(i+1, s.end(i))
				s.statement(i)
				continue
			}
			s.define(i, decorator)
			if t.Text != "async" {
				decorator = ""
			}
			s.statement(i)
		}
		s.token(i)
	}
}

// leave closes the scopes that a line starting at col ends.
func (s *scanner) leave(col int) {
	for len(s.fn) > 0 && s.fn[len(s.fn)-1].col >= col {
		s.fn = s.fn[:len(s.fn)-1]
	}
	for len(s.class) > 0 && s.class[len(s.class)-1].col >= col {
		s.class = s.class[:len(s.class)-1]
	}
	for len(s.guard) > 0 && s.guard[len(s.guard)-1] >= col {
		s.guard = s.guard[:len(s.guard)-1]
	}
}

func (s *scanner) define(i int, decorator string) {
	t := s.toks[i]
	at := func(k int) Token {
		if i+k < len(s.toks) {
			return s.toks[i+k]
		}
		return Token{}
	}
	switch {
	case t.Text == "def" && at(1).Kind == Name:
		s.fn = append(s.fn, scope{name: at(1).Text, col: t.Col})
	case t.Text == "async" && at(1).Text == "def":
		s.fn = append(s.fn, scope{name: at(2).Text, col: t.Col})
	case t.Text == "class" && at(1).Kind == Name:
		s.class = append(s.class, scope{name: at(1).Text, col: t.Col, data: strings.Contains(decorator, "dataclass")})
	case t.Kind == Name && (t.Text == "try" || t.Text == "if" || t.Text == "except" || t.Text == "else" || t.Text == "elif"):
		s.guard = append(s.guard, t.Col)
		if t.Text == "if" && at(1).Text == "__name__" {
			s.m.Main = true
		}
	}
}

// statement reads what is recognised by how a line begins.
func (s *scanner) statement(i int) {
	t := s.toks[i]
	switch {
	case t.Kind == String && i == 0 || t.Kind == String && s.m.Doc == "" && s.onlyTrivia(i):
		s.m.Doc = t.Text
		for i, l := range strings.Split(t.Text, "\n") {
			s.remark(l, t.Line+i)
		}
	case t.Kind == Name && t.Text == "import":
		s.importStmt(i)
	case t.Kind == Name && t.Text == "from":
		s.fromStmt(i)
	case t.Kind == Name && t.Text == "return":
		s.returnStmt(i)
	case t.Kind == Name:
		s.assign(i)
	}
}

const maxRemarks = 100

// remark keeps a line of prose that may state a result: it holds a digit and a
// word.
func (s *scanner) remark(text string, line int) {
	text = strings.TrimSpace(strings.TrimLeft(text, "#! "))
	if len(text) < 8 || len(text) > 300 || len(s.m.Remarks) >= maxRemarks || !strings.ContainsAny(text, "0123456789") || !strings.Contains(text, " ") {
		return
	}
	s.m.Remarks = append(s.m.Remarks, Literal{text, line})
}

func (s *scanner) onlyTrivia(i int) bool {
	for _, t := range s.toks[:i] {
		if t.Kind != Newline && t.Kind != Comment {
			return false
		}
	}
	return true
}

// end is the index after the last token of the statement that starts at i.
func (s *scanner) end(i int) int {
	for j := i; j < len(s.toks); j++ {
		if s.toks[j].Kind == Newline || s.toks[j].Kind == Op && s.toks[j].Text == ";" && s.toks[j].Depth == 0 {
			return j
		}
	}
	return len(s.toks)
}

func (s *scanner) dotted(i int) (string, int) {
	var b strings.Builder
	for i < len(s.toks) && (s.toks[i].Kind == Name || s.toks[i].Text == ".") {
		if s.toks[i].Text == "import" || s.toks[i].Text == "as" {
			break
		}
		b.WriteString(s.toks[i].Text)
		i++
	}
	return b.String(), i
}

func (s *scanner) importStmt(i int) {
	for j, end := i+1, s.end(i); j < end; {
		name, next := s.dotted(j)
		if name == "" {
			return
		}
		s.m.Imports = append(s.m.Imports, Import{Name: name, Line: s.toks[i].Line, Guard: len(s.guard) > 0, Inner: len(s.fn) > 0})
		for j = next; j < end && s.toks[j].Text != ","; j++ {
		}
		j++
	}
}

func (s *scanner) fromStmt(i int) {
	end := s.end(i)
	im := Import{Line: s.toks[i].Line, Guard: len(s.guard) > 0, Inner: len(s.fn) > 0}
	j := i + 1
	for ; j < end && (s.toks[j].Text == "." || s.toks[j].Text == "..."); j++ {
		im.Level += len(s.toks[j].Text)
	}
	im.Name, j = s.dotted(j)
	if j >= end || s.toks[j].Text != "import" {
		return
	}
	skip := false
	for j++; j < end; j++ {
		switch t := s.toks[j]; {
		case t.Text == "as":
			skip = true
		case t.Kind == Name && !skip:
			im.Names = append(im.Names, t.Text)
		case t.Text == ",":
			skip = false
		}
	}
	s.m.Imports = append(s.m.Imports, im)
}

// token reads what is recognised by a call anywhere in an expression.
func (s *scanner) token(i int) {
	t := s.toks[i]
	if t.Kind == String {
		s.path(t)
		return
	}
	if t.Kind != Name || i+1 >= len(s.toks) {
		return
	}
	next := s.toks[i+1]
	if next.Text == "[" && t.Text == "environ" && i+2 < len(s.toks) && s.toks[i+2].Kind == String {
		if e := s.close(i + 1); e+1 >= len(s.toks) || s.toks[e+1].Text != "=" {
			s.m.Env = append(s.m.Env, Literal{s.toks[i+2].Text, t.Line})
			if len(s.guard) == 0 {
				s.m.Needs = append(s.m.Needs, Literal{s.toks[i+2].Text, t.Line})
			}
		}
		return
	}
	if next.Text != "(" {
		return
	}
	name := s.callee(i)
	s.m.Calls[name]++
	args := s.args(i + 1)
	switch {
	case t.Text == "mark_flag_as_required" || t.Text == "mark_flags_as_required":
		s.requireFlags(args)
	case name == "hydra.main" || name == "hydra_main":
		s.hydra(args)
	case t.Text == "getenv" || strings.HasSuffix(name, "environ.get"):
		if len(args) > 0 && len(args[0].value) == 1 && args[0].value[0].Kind == String {
			s.m.Env = append(s.m.Env, Literal{args[0].value[0].Text, t.Line})
		}
	case t.Text == "add_argument" || t.Text == "option" || t.Text == "argument" || strings.HasPrefix(t.Text, "DEFINE_"):
		s.flag(t, name, args)
	case isPrint(t.Text, name):
		s.print(t, args)
	default:
		s.write(i, name, args)
	}
}

// callee is the dotted name that is called, read backwards from token i.
func (s *scanner) callee(i int) string {
	start := i
	for start >= 2 && s.toks[start-1].Text == "." && s.toks[start-2].Kind == Name {
		start -= 2
	}
	return s.text(start, i+1)
}

// close is the index of the bracket that closes the one at i.
func (s *scanner) close(i int) int {
	d := s.toks[i].Depth
	for j := i + 1; j < len(s.toks); j++ {
		if t := s.toks[j]; t.Kind == Op && t.Depth == d && (t.Text == ")" || t.Text == "]" || t.Text == "}") {
			return j
		}
	}
	return len(s.toks)
}

type arg struct {
	key   string
	value []Token
}

// args splits the call whose opening bracket is at i; at most 64 arguments.
func (s *scanner) args(i int) []arg {
	end := s.close(i)
	return splitArgs(s.toks[min(i+1, len(s.toks)):end], s.toks[i].Depth+1)
}

func splitArgs(toks []Token, depth int) []arg {
	var out []arg
	var cur []Token
	flush := func() {
		if len(cur) == 0 {
			return
		}
		a := arg{value: cur}
		if len(cur) > 2 && cur[0].Kind == Name && cur[1].Text == "=" {
			a = arg{key: cur[0].Text, value: cur[2:]}
		}
		out = append(out, a)
		cur = nil
	}
	for _, t := range toks {
		if t.Kind == Comment || t.Kind == Newline {
			continue
		}
		if t.Text == "," && t.Kind == Op && t.Depth == depth {
			if flush(); len(out) >= 64 {
				return out
			}
			continue
		}
		cur = append(cur, t)
	}
	flush()
	return out
}

// text joins the tokens [i, j) as source-like text.
func (s *scanner) text(i, j int) string { return source(s.toks[i:min(j, len(s.toks))]) }

func source(toks []Token) string {
	var b strings.Builder
	for i, t := range toks {
		if i > 0 && (t.Kind == Name || t.Kind == Number) && (toks[i-1].Kind == Name || toks[i-1].Kind == Number) {
			b.WriteByte(' ')
		}
		if t.Kind == String {
			b.WriteString(t.Prefix + "'" + t.Text + "'")
		} else {
			b.WriteString(t.Text)
		}
		if b.Len() > 2000 {
			break
		}
	}
	return b.String()
}

// text1 joins adjacent string tokens, as Python does, if toks is nothing else.
func text1(toks []Token) (string, bool) {
	var b strings.Builder
	for _, t := range toks {
		if t.Kind != String {
			return "", false
		}
		b.WriteString(t.Text)
	}
	return b.String(), len(toks) > 0
}

func (s *scanner) path(t Token) {
	if len(s.m.Paths) < 500 && looksLikeFile(t.Text) {
		s.m.Paths = append(s.m.Paths, Literal{t.Text, t.Line})
	}
}

func looksLikeFile(p string) bool {
	if len(p) > 200 || strings.ContainsAny(p, " \n\t*<>|") || strings.Contains(p, "://") {
		return false
	}
	dot := strings.LastIndexByte(p, '.')
	if dot < 0 || len(p)-dot > 8 {
		return false
	}
	switch strings.ToLower(p[dot+1:]) {
	case "json", "jsonl", "csv", "tsv", "txt", "npy", "npz", "pt", "pth", "ckpt", "pkl", "bin", "safetensors", "h5", "yaml", "yml", "parquet", "md", "log", "ipynb":
		return true
	}
	return false
}
