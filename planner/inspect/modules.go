package inspect

import (
	"maps"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/python"
)

// modules scans the Python files that commands name, then what those import
// from the checkout, then scripts near the root.
func (r *reader) modules() error {
	r.facts.Modules = map[string]*python.Module{}
	if err := r.licence(); err != nil {
		return err
	}
	queue := r.facts.named()
	for _, d := range r.facts.Dependencies {
		for _, c := range d.Consoles {
			if p := r.facts.Module(c.Dir, c.Module); p != "" {
				queue = append(queue, p)
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.facts.cells)) {
		m := python.Scan(r.facts.cells[p])
		r.facts.Modules[p] = m
		for _, im := range m.Imports {
			queue = append(queue, r.facts.Locate(p, im)...)
		}
	}
	r.facts.cells = nil
	queue = append(queue, r.byDepth(100, func(p, _, ext string) bool { return ext == ".py" && depth(p) <= 1 })...)
	for len(queue) > 0 && len(r.facts.Modules) < r.cfg.MaxModules {
		p := queue[0]
		queue = queue[1:]
		if r.facts.Modules[p] != nil || !r.facts.Has(p) {
			continue
		}
		src, ok, err := r.text(p)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		m := python.Scan(src)
		r.facts.Modules[p] = m
		for _, im := range m.Imports {
			queue = append(queue, r.facts.Locate(p, im)...)
		}
	}
	return nil
}

// named lists the Python files that documents, scripts and workflows mention,
// by how often, so that a bound cuts the least named ones.
func (f *Facts) named() []string {
	count := map[string]int{}
	f.Starts = map[string]int{}
	readme := false
	mention := func(dir string, cmds []markdown.Command) {
		cwd := ""
		for _, c := range cmds {
			words := strings.FieldsFunc(c.Text, func(r rune) bool { return strings.ContainsRune(" \t\n;&|'\"`()", r) })
			for i, w := range words {
				if w == "cd" && i+1 < len(words) {
					cwd = words[i+1]
				}
				for _, base := range []string{".", dir, cwd, path.Join(dir, cwd)} {
					if p := path.Join(base, w); strings.HasSuffix(w, ".py") && f.Has(p) {
						count[p]++
						if readme && f.Starts[p] == 0 {
							f.Starts[p] = len(f.Starts) + 1
						}
					}
					if i > 0 && words[i-1] == "-m" {
						for _, p := range modulePaths(base, w) {
							if f.Has(p) {
								count[p]++
							}
						}
					}
				}
			}
		}
	}
	for i := range f.Docs {
		readme = f.Docs[i].Path == f.Readme
		mention(path.Dir(f.Docs[i].Path), f.Docs[i].Commands)
		readme = false
		for _, sp := range f.Docs[i].Doc.Spans {
			if p := path.Join(path.Dir(f.Docs[i].Path), sp.Text); strings.HasSuffix(sp.Text, ".py") && f.Has(p) {
				count[p]++
			}
		}
	}
	for i := range f.Scripts {
		mention(path.Dir(f.Scripts[i].Path), f.Scripts[i].Commands)
	}
	out := make([]string, 0, len(count))
	for p := range count {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool {
		if count[out[i]] != count[out[j]] {
			return count[out[i]] > count[out[j]]
		}
		return out[i] < out[j]
	})
	return out
}

func modulePaths(base, dotted string) []string {
	p := path.Join(base, strings.ReplaceAll(dotted, ".", "/"))
	return []string{p + ".py", path.Join(p, "__main__.py"), path.Join(p, "__init__.py")}
}

// Module is the file that "python -m dotted" would run in the directory dir of
// the checkout, or "".
func (f *Facts) Module(dir, dotted string) string {
	for _, base := range []string{dir, path.Join(dir, "src")} {
		for _, p := range modulePaths(base, dotted) {
			if f.Has(p) {
				return p
			}
		}
	}
	return ""
}

// Locate lists the files of the checkout that an import in file p may mean.
func (f *Facts) Locate(p string, im python.Import) []string {
	dir := path.Dir(p)
	bases := []string{dir, ".", "src"}
	if im.Level > 0 {
		for range im.Level - 1 {
			dir = path.Dir(dir)
		}
		bases = []string{dir}
	}
	var out []string
	for _, b := range bases {
		for _, c := range modulePaths(b, im.Name) {
			if f.Has(c) {
				out = append(out, c)
			}
		}
		for _, n := range im.Names {
			for _, c := range modulePaths(b, strings.TrimPrefix(im.Name+"."+n, ".")) {
				if f.Has(c) {
					out = append(out, c)
				}
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// Local says whether an import of file p is found in the checkout.
func (f *Facts) Local(p string, im python.Import) bool {
	if im.Level > 0 || len(f.Locate(p, im)) > 0 {
		return true
	}
	top, _, _ := strings.Cut(im.Name, ".")
	for _, b := range []string{path.Dir(p), ".", "src"} {
		if f.HasDir(path.Join(b, top)) || f.Has(path.Join(b, top+".py")) {
			return true
		}
	}
	return false
}

// Reach lists the modules that the entry script leads to within the checkout,
// itself first, as far as they were scanned.
func (f *Facts) Reach(entry string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if out, ok := f.reached[entry]; ok {
		return out
	}
	out := f.reach(entry)
	if f.reached == nil {
		f.reached = map[string][]string{}
	}
	f.reached[entry] = out
	return out
}

func (f *Facts) reach(entry string) []string {
	seen := map[string]bool{entry: true}
	out := []string{entry}
	for i := 0; i < len(out) && len(out) < 200; i++ {
		m := f.Modules[out[i]]
		if m == nil {
			continue
		}
		for _, im := range m.Imports {
			for _, p := range f.Locate(out[i], im) {
				if !seen[p] {
					seen[p] = true
					out = append(out, p)
				}
			}
		}
	}
	return out
}
