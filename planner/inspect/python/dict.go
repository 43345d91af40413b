package python

import (
	"path"
	"strings"
)

// maxKeys bounds the keys of one dictionary.
const maxKeys = 500

// bind records what a name is assigned: its expression and, for a dictionary
// display or dict(...) call, the keys.
func (s *scanner) bind(name string, i, end int) {
	if i >= end {
		return
	}
	for end > i+1 && s.toks[end-1].Kind == Comment {
		end--
	}
	value := s.toks[i:end]
	s.m.Assigns[name] = Expr{Text: source(value), Line: value[0].Line, toks: value}
	if d := display(value, 0); d != nil {
		s.m.Dicts[name] = merge(s.m.Dicts[name], d)
	}
}

// returnStmt records the dictionary that a function returns, or the name of it.
func (s *scanner) returnStmt(i int) {
	if len(s.fn) == 0 || i+1 >= s.end(i) {
		return
	}
	fn := s.fn[len(s.fn)-1].name + "()"
	value := s.toks[i+1 : s.end(i)]
	s.m.Assigns[fn] = Expr{Text: source(value), Line: value[0].Line, toks: value}
	if d := display(value, 0); d != nil {
		s.m.Dicts[fn] = merge(s.m.Dicts[fn], d)
	} else if len(value) == 1 && value[0].Kind == Name {
		if d := s.m.Dicts[value[0].Text]; d != nil {
			s.m.Dicts[fn] = merge(s.m.Dicts[fn], d)
		}
	}
}

// setKey reads name["a"]["b"] = value.
func (s *scanner) setKey(i, end int) {
	name := s.toks[i].Text
	var keys []string
	j := i + 1
	for j+2 < end && s.toks[j].Text == "[" && s.toks[j+1].Kind == String && s.toks[j+2].Text == "]" {
		if strings.Contains(s.toks[j+1].Prefix, "f") {
			return
		}
		keys = append(keys, s.toks[j+1].Text)
		j += 3
	}
	if len(keys) == 0 || j+1 >= end || s.toks[j].Text != "=" {
		return
	}
	value := s.toks[j+1 : end]
	k := Key{Name: keys[len(keys)-1], Line: s.toks[i].Line, Sub: display(value, 0),
		Value: Expr{Text: source(value), Line: value[0].Line, toks: value}}
	for n := len(keys) - 2; n >= 0; n-- {
		k = Key{Name: keys[n], Line: k.Line, Sub: &Dict{Keys: []Key{k}, Line: k.Line}}
	}
	s.m.Dicts[name] = merge(s.m.Dicts[name], &Dict{Keys: []Key{k}, Line: k.Line})
}

// merge adds the keys of b to a; of a key that both have the later stays.
func merge(a, b *Dict) *Dict {
	if a == nil {
		return b
	}
	for _, k := range b.Keys {
		found := false
		for i := range a.Keys {
			if a.Keys[i].Name == k.Name {
				if a.Keys[i].Sub != nil && k.Sub != nil {
					merge(a.Keys[i].Sub, k.Sub)
				} else {
					a.Keys[i] = k
				}
				found = true
				break
			}
		}
		if !found && len(a.Keys) < maxKeys {
			a.Keys = append(a.Keys, k)
		}
	}
	return a
}

// display reads {"key": value, …} and dict(key=value, …); nil when value is
// neither or has no constant string key.
func display(value []Token, nest int) *Dict {
	if len(value) < 3 || nest > 6 {
		return nil
	}
	d := &Dict{Line: value[0].Line}
	switch {
	case value[0].Text == "{" && value[0].Kind == Op && value[len(value)-1].Text == "}":
		for _, a := range splitArgs(value[1:len(value)-1], value[0].Depth+1) {
			if k, ok := pair(a.value, value[0].Depth+1, nest); ok && len(d.Keys) < maxKeys {
				d.Keys = append(d.Keys, k)
			}
		}
	case value[0].Text == "dict" && value[1].Text == "(" && value[len(value)-1].Text == ")":
		for _, a := range splitArgs(value[2:len(value)-1], value[1].Depth+1) {
			if a.key != "" && len(d.Keys) < maxKeys {
				d.Keys = append(d.Keys, Key{Name: a.key, Line: a.value[0].Line, Sub: display(a.value, nest+1),
					Value: Expr{Text: source(a.value), Line: a.value[0].Line, toks: a.value}})
			}
		}
	}
	if len(d.Keys) == 0 {
		return nil
	}
	return d
}

func pair(toks []Token, depth, nest int) (Key, bool) {
	for i, t := range toks {
		if t.Text == "for" && t.Kind == Name && t.Depth == depth {
			return Key{}, false // a comprehension has no constant keys
		}
		if t.Text == ":" && t.Kind == Op && t.Depth == depth {
			name, ok := text1(toks[:i])
			if !ok || i+1 >= len(toks) || strings.Contains(toks[0].Prefix, "f") {
				return Key{}, false
			}
			v := toks[i+1:]
			return Key{Name: name, Line: toks[0].Line, Sub: display(v, nest+1), Value: Expr{Text: source(v), Line: v[0].Line, toks: v}}, true
		}
	}
	return Key{}, false
}

// write recognises the calls that put results into a file.
func (s *scanner) write(i int, name string, args []arg) {
	if len(s.m.Writes) >= 500 {
		return
	}
	t := s.toks[i]
	w := Write{Line: t.Line}
	value := func(n int) []Token {
		if n < len(args) {
			return args[n].value
		}
		return nil
	}
	switch last := t.Text; {
	case name == "json.dump" || name == "ujson.dump" || name == "simplejson.dump":
		w.Format, w.tree = "json", value(0)
		w.Target = source(value(1))
	case name == "json.dumps" || name == "orjson.dumps":
		w.Format, w.tree = "json", value(0)
		w.Target = s.enclosing(i)
		if w.Target == "" {
			return // not written by this statement
		}
	case last == "to_csv" || last == "savetxt" || last == "to_json":
		w.Format = map[string]string{"to_csv": "csv", "savetxt": "text", "to_json": "json"}[last]
		w.Target = source(value(0))
	case last == "writer" && strings.HasPrefix(name, "csv"), last == "DictWriter":
		w.Format, w.Target = "csv", source(value(0))
		for _, a := range args {
			if a.key == "fieldnames" {
				w.tree = a.value
			}
		}
	default:
		return
	}
	w.From = source(w.tree)
	w.Path = s.nearPath(i)
	s.m.Writes = append(s.m.Writes, w)
}

// enclosing is the source of the receiver of a write call around token i, such
// as "out.write_text(json.dumps(x))" or "f.write(json.dumps(x))".
func (s *scanner) enclosing(i int) string {
	for j := i - 1; j >= 0 && j > i-40; j-- {
		t := s.toks[j]
		if t.Kind == Newline && t.Depth == 0 {
			return ""
		}
		if t.Kind == Name && (t.Text == "write_text" || t.Text == "write" || t.Text == "write_bytes") {
			k := j
			for k > 0 && s.toks[k-1].Kind != Newline && s.toks[k-1].Kind != Comment {
				k--
			}
			if src := s.text(k, max(k, j-1)); !strings.Contains(src, "stdout") {
				return src
			}
			return ""
		}
	}
	return ""
}

// nearPath is the literal file name in the statement of token i or in the
// three statements before it (where the file is opened).
func (s *scanner) nearPath(i int) string {
	lines := 0
	found := ""
	for j := i; j >= 0 && lines < 4; j-- {
		t := s.toks[j]
		if t.Kind == Newline {
			lines++
		}
		if t.Kind == String && found == "" && looksLikeFile(t.Text) && !strings.Contains(t.Prefix, "f") {
			found = t.Text
		}
	}
	for j, end := i, s.end(i); j < end && found == ""; j++ {
		if t := s.toks[j]; t.Kind == String && looksLikeFile(t.Text) && !strings.Contains(t.Prefix, "f") {
			found = t.Text
		}
	}
	return found
}

// Leaf is one number that a written dictionary carries.
type Leaf struct {
	Pointer string // RFC 6901
	Path    []string
	Expr    string
	Line    int
}

// Leaves resolves what w writes to its keys, through names, returned
// dictionaries and nested displays, to a depth of six. The lookup answers for
// functions that this module imports; it may be nil.
func (m *Module) Leaves(w Write, lookup func(fn string) *Module) []Leaf {
	r := &resolver{lookup: lookup}
	r.expr(m, w.tree, nil, 0)
	return r.out
}

// LeavesOf resolves an expression in the same way.
func (m *Module) LeavesOf(expr string, lookup func(fn string) *Module) []Leaf {
	r := &resolver{lookup: lookup}
	toks := Lex(expr)
	for len(toks) > 0 && (toks[len(toks)-1].Kind == Newline || toks[len(toks)-1].Text == "") {
		toks = toks[:len(toks)-1]
	}
	r.expr(m, toks, nil, 0)
	return r.out
}

type resolver struct {
	lookup func(string) *Module
	out    []Leaf
}

const maxLeaves = 400

func (r *resolver) dict(m *Module, d *Dict, at []string, depth int) {
	for _, k := range d.Keys {
		if len(r.out) >= maxLeaves {
			return
		}
		p := append(at[:len(at):len(at)], k.Name)
		if k.Sub != nil {
			r.dict(m, k.Sub, p, depth+1)
			continue
		}
		if !r.expr(m, k.Value.toks, p, depth+1) {
			r.out = append(r.out, Leaf{Pointer: pointer(p), Path: p, Expr: k.Value.Text, Line: k.Line})
		}
	}
}

// expr follows an expression to a dictionary and says whether it found one.
func (r *resolver) expr(m *Module, toks []Token, at []string, depth int) bool {
	if depth > 6 || len(toks) == 0 || m == nil {
		return false
	}
	if d := display(toks, 0); d != nil {
		r.dict(m, d, at, depth)
		return true
	}
	if toks[0].Kind != Name {
		return false
	}
	if len(toks) == 1 {
		name := toks[0].Text
		if d := m.Dicts[name]; d != nil {
			r.dict(m, d, at, depth)
			return true
		}
		if e, ok := m.Assigns[name]; ok && len(e.toks) > 1 {
			return r.expr(m, e.toks, at, depth+1)
		}
		return false
	}
	// a call, plain or dotted, with nothing after its closing bracket
	open := 1
	for open+1 < len(toks) && toks[open].Text == "." {
		open += 2
	}
	if open >= len(toks) || toks[open].Text != "(" || toks[len(toks)-1].Text != ")" || toks[len(toks)-1].Depth != toks[open].Depth {
		return false
	}
	fn := toks[open-1].Text
	for _, mod := range []*Module{m, r.find(fn)} {
		if mod == nil {
			continue
		}
		if d := mod.Dicts[fn+"()"]; d != nil {
			r.dict(mod, d, at, depth)
			return true
		}
		if e, ok := mod.Assigns[fn+"()"]; ok && r.expr(mod, e.toks, at, depth+1) {
			return true
		}
	}
	return false
}

func (r *resolver) find(fn string) *Module {
	if r.lookup == nil {
		return nil
	}
	return r.lookup(fn)
}

func pointer(keys []string) string {
	var b strings.Builder
	for _, k := range keys {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1"))
	}
	return b.String()
}

// Base is the last element of a written path.
func (w Write) Base() string { return path.Base(w.Path) }
