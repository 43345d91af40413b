package inspect

import (
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/repromill/repromill/planner/spec"
)

// tomlFile is a decoded document with its text, to find lines again.
type tomlFile struct {
	src  string
	tree map[string]any
}

func readTOML(src string) (*tomlFile, error) {
	t := &tomlFile{src: src}
	if _, err := toml.Decode(src, &t.tree); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *tomlFile) table(keys ...string) map[string]any {
	cur := t.tree
	for _, k := range keys {
		next, ok := cur[k].(map[string]any)
		if !ok {
			return nil
		}
		cur = next
	}
	return cur
}

// line is the first line that holds needle, or 0.
func (t *tomlFile) line(needle string) int {
	i := strings.Index(t.src, needle)
	if i < 0 {
		return 0
	}
	return strings.Count(t.src[:i], "\n") + 1
}

func (t *tomlFile) version(p, key, spc string) Version {
	return Version{Spec: spc, Kind: spec.Published, At: spec.Evidence{File: p, Line: t.line(key), Quote: key + " = " + spc}}
}

func (t *tomlFile) entries(v any) []Entry {
	list, _ := v.([]any)
	var out []Entry
	for _, x := range list {
		if s, ok := x.(string); ok {
			e := ParseRequirement(s)
			e.Line, e.Quote = t.line(s), s
			out = append(out, e)
		}
	}
	return out
}

// parsePyProject reads PEP 621 metadata and the tables of poetry, pdm and uv.
// A file that only configures linters is no dependency file.
func parsePyProject(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: PyProject, Manager: "pip", Library: true, Project: path.Dir(p)}
	t, err := readTOML(src)
	if err != nil {
		d.Broken = fmt.Sprintf("not valid TOML: %v", err)
		return d
	}
	project, poetry := t.table("project"), t.table("tool", "poetry")
	if project == nil && poetry == nil && t.table("tool", "pdm") == nil {
		return nil
	}
	d.Entries = t.entries(project["dependencies"])
	if v, ok := project["requires-python"].(string); ok {
		d.Python = t.version(p, "requires-python", v)
	}
	groups := func(table map[string]any) {
		for name, v := range table {
			if g := t.entries(v); len(g) > 0 {
				if d.Extras == nil {
					d.Extras = map[string][]Entry{}
				}
				d.Extras[name] = g
			}
		}
	}
	groups(t.table("project", "optional-dependencies"))
	groups(t.table("dependency-groups"))
	d.Consoles = append(t.consoles(p, t.table("project", "scripts")), t.consoles(p, t.table("tool", "poetry", "scripts"))...)
	if poetry != nil {
		d.Manager = "poetry"
		d.poetry(t, t.table("tool", "poetry", "dependencies"))
	}
	if t.table("tool", "pdm") != nil {
		d.Manager = "pdm"
	}
	if uv := t.table("tool", "uv"); uv != nil {
		d.Manager = "uv"
		d.uvIndexes(t, uv)
	}
	if b, ok := t.table("build-system")["build-backend"].(string); ok && (strings.Contains(b, "scikit_build") || strings.Contains(b, "mesonpy") || strings.Contains(b, "maturin")) {
		d.Compiles = true
	}
	return d
}

func (d *Dependency) uvIndexes(t *tomlFile, uv map[string]any) {
	list, _ := uv["index"].([]map[string]any)
	for _, m := range list {
		if u, ok := m["url"].(string); ok {
			d.Indexes = append(d.Indexes, Entry{Spec: "--extra-index-url " + u, Line: t.line(u), Quote: u})
		}
	}
}

// poetry turns caret and tilde constraints into PEP 440 ranges.
func (d *Dependency) poetry(t *tomlFile, deps map[string]any) {
	names := make([]string, 0, len(deps))
	for n := range deps {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		constraint, git := "", ""
		switch v := deps[n].(type) {
		case string:
			constraint = v
		case map[string]any:
			constraint, _ = v["version"].(string)
			git, _ = v["git"].(string)
			if o, _ := v["optional"].(bool); o {
				continue
			}
		}
		spc := PoetryRange(constraint)
		at := t.line("\n" + n)
		if at > 0 {
			at++
		}
		quote := strings.TrimSpace(n + " = " + constraint)
		if n == "python" {
			d.Python = Version{Spec: spc, Kind: spec.Published, At: spec.Evidence{File: d.Path, Line: at, Quote: quote}}
			continue
		}
		e := Entry{Spec: n + spc, Name: NormalName(n), Pinned: strings.HasPrefix(spc, "=="), Line: at, Quote: quote}
		if git != "" {
			e.Spec = n + " @ git+" + git
		}
		d.Entries = append(d.Entries, e)
	}
}

// PoetryRange rewrites a poetry constraint as a PEP 440 one:
// ^1.2.3 is >=1.2.3,<2.0, ^0.2 is >=0.2,<0.3, ~1.2 is >=1.2,<1.3, 1.2 is ==1.2.
func PoetryRange(c string) string {
	c = strings.TrimSpace(c)
	switch {
	case c == "" || c == "*":
		return ""
	case strings.ContainsAny(c, ",|"):
		var parts []string
		for _, p := range strings.Split(strings.Split(c, "||")[0], ",") {
			parts = append(parts, PoetryRange(p))
		}
		return strings.Join(parts, ",")
	case c[0] == '^' || c[0] == '~' && !strings.HasPrefix(c, "~="):
		v := strings.TrimSpace(c[1:])
		parts := strings.Split(v, ".")
		n := 0
		if c[0] == '~' && len(parts) > 1 {
			n = 1
		} else if c[0] == '^' {
			for n+1 < len(parts) && strings.Trim(parts[n], "0") == "" {
				n++
			}
		}
		upper := append([]string(nil), parts[:n+1]...)
		var x int
		if _, err := fmt.Sscanf(upper[n], "%d", &x); err != nil {
			return ">=" + v
		}
		upper[n] = fmt.Sprint(x + 1)
		return ">=" + v + ",<" + strings.Join(upper, ".")
	case c[0] >= '0' && c[0] <= '9':
		return "==" + c
	}
	return strings.ReplaceAll(c, " ", "")
}

func parsePipfile(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: Pipfile, Manager: "pipenv"}
	t, err := readTOML(src)
	if err != nil {
		d.Broken = fmt.Sprintf("not valid TOML: %v", err)
		return d
	}
	d.poetry(t, t.table("packages"))
	for _, k := range []string{"python_version", "python_full_version"} {
		if v, ok := t.table("requires")[k].(string); ok {
			d.Python = t.version(p, k, v)
		}
	}
	return d
}
