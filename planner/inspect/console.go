package inspect

import (
	"path"
	"regexp"
	"sort"
	"strings"
)

// Console is a program that installing the project puts on the search path.
type Console struct {
	Name   string
	Module string // dotted
	Func   string // empty where the declaration names none, which installers refuse
	Dir    string // of the project, from the root of the checkout
	File   string // that declares it
	Line   int
}

var consoleRE = regexp.MustCompile(`^\s*([A-Za-z0-9][\w.\-]*)\s*=\s*["']?([A-Za-z_][\w.]*)(?::([A-Za-z_][\w.]*))?\s*(?:\[.*\])?["']?\s*$`)

// console reads one "name = module:function" line.
func console(s, file string, line int) (Console, bool) {
	m := consoleRE.FindStringSubmatch(s)
	if m == nil {
		return Console{}, false
	}
	return Console{Name: m[1], Module: m[2], Func: m[3], Dir: path.Dir(file), File: file, Line: line}, true
}

// consoles reads a table of a pyproject file that maps names to functions.
func (t *tomlFile) consoles(p string, table map[string]any) []Console {
	var out []Console
	for name, v := range table {
		target, ok := v.(string)
		if !ok {
			if m, isMap := v.(map[string]any); isMap {
				target, ok = m["callable"].(string)
			}
		}
		if !ok {
			continue
		}
		if c, ok := console(name+"="+target, p, t.line(target)); ok {
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Console is the program of that name which the project nearest to the root
// declares, or nil.
func (f *Facts) Console(name string) *Console {
	for i := range f.Dependencies {
		for j := range f.Dependencies[i].Consoles {
			if c := &f.Dependencies[i].Consoles[j]; c.Name == name {
				return c
			}
		}
	}
	return nil
}

// reread reads the commands of the documents again when the project declares
// programs of its own: their names begin a command too.
func (f *Facts) reread() {
	names := map[string]bool{}
	for _, d := range f.Dependencies {
		for _, c := range d.Consoles {
			names[c.Name] = true
		}
	}
	if len(names) == 0 {
		return
	}
	for i := range f.Docs {
		d := &f.Docs[i]
		if d.CI || d.Notebook {
			continue
		}
		d.Commands, d.Outputs = d.Doc.Shell(func(line string) bool {
			w, _, _ := strings.Cut(line, " ")
			return names[w]
		})
	}
}
