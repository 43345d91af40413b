package python

import "strings"

// Setup is what a setup.py declares, read without running it.
type Setup struct {
	Found          bool // a setup(...) call stands in the file
	Requires       []Literal
	Extras         map[string][]Literal
	PythonRequires Literal
	Reads          []Literal // requirement files it names
	Extensions     bool      // builds C, C++ or CUDA code
	Consoles       []Literal // "name = module:function" of its programs
	Executes       []Literal // starts other programs while it is run
}

// ReadSetup reads setup.py by its tokens.
func ReadSetup(src string) *Setup {
	out := &Setup{Extras: map[string][]Literal{}}
	s := &scanner{toks: Lex(src), m: &Module{Calls: map[string]int{}, Assigns: map[string]Expr{}, Dicts: map[string]*Dict{}}}
	s.run()
	for i, t := range s.toks {
		if t.Kind == String && strings.Contains(t.Text, "requirements") && strings.HasSuffix(t.Text, ".txt") {
			out.Reads = append(out.Reads, Literal{t.Text, t.Line})
		}
		if t.Kind != Name || i+1 >= len(s.toks) || s.toks[i+1].Text != "(" {
			continue
		}
		switch name := s.callee(i); {
		case t.Text == "CUDAExtension" || t.Text == "CppExtension" || t.Text == "Extension" || t.Text == "cythonize":
			out.Extensions = true
		case name == "os.system" || strings.HasPrefix(name, "subprocess."):
			out.Executes = append(out.Executes, Literal{name, t.Line})
		case t.Text == "setup":
			out.Found = true
			s.setupArgs(out, s.args(i+1))
		}
	}
	return out
}

func (s *scanner) setupArgs(out *Setup, args []arg) {
	for _, a := range args {
		switch a.key {
		case "install_requires":
			out.Requires = append(out.Requires, s.strings(a.value, 0)...)
		case "python_requires":
			if t, ok := text1(a.value); ok {
				out.PythonRequires = Literal{t, a.value[0].Line}
			}
		case "entry_points":
			v := a.value
			if len(v) == 1 && v[0].Kind == Name {
				v = s.m.Assigns[v[0].Text].toks
			}
			if d := display(v, 0); d != nil {
				for _, k := range d.Keys {
					if k.Name == "console_scripts" {
						out.Consoles = append(out.Consoles, s.strings(k.Value.toks, 0)...)
					}
				}
			}
		case "extras_require":
			v := a.value
			if len(v) == 1 && v[0].Kind == Name {
				v = s.m.Assigns[v[0].Text].toks
			}
			if d := display(v, 0); d != nil {
				for _, k := range d.Keys {
					out.Extras[k.Name] = s.strings(k.Value.toks, 0)
				}
			}
		}
	}
}

// strings lists the string constants of a list, through names and "+".
func (s *scanner) strings(toks []Token, depth int) []Literal {
	var out []Literal
	if depth > 4 {
		return nil
	}
	for i, t := range toks {
		switch {
		case t.Kind == String && !strings.Contains(t.Prefix, "f"):
			if i > 0 && toks[i-1].Kind == String {
				out[len(out)-1].Text += t.Text
				continue
			}
			out = append(out, Literal{t.Text, t.Line})
		case t.Kind == Name && len(toks) <= 9:
			out = append(out, s.strings(s.m.Assigns[t.Text].toks, depth+1)...)
		}
	}
	return out
}
