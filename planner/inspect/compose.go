package inspect

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/python"
)

// Option is one value of a settings file under its path of keys.
type Option struct {
	Key   string // dotted
	Value string
	File  string
	Line  int
}

var optionRE = regexp.MustCompile(`^( *)([A-Za-z_][\w\-]*)\s*:\s*(.*?)\s*$`)

// maxOptions bounds how many options of one file are kept.
const maxOptions = 400

// options reads the scalar values of a YAML file of settings by its
// indentation, with the line of each.
func options(file, src string) []Option {
	var out []Option
	type level struct {
		indent int
		key    string
	}
	var stack []level
	for i, l := range strings.Split(src, "\n") {
		m := optionRE.FindStringSubmatch(strings.TrimRight(l, "\r"))
		if m == nil {
			continue
		}
		n := len(m[1])
		for len(stack) > 0 && stack[len(stack)-1].indent >= n {
			stack = stack[:len(stack)-1]
		}
		value := m[3]
		if j := strings.Index(value, " #"); j >= 0 {
			value = strings.TrimSpace(value[:j])
		}
		if value == "" || value[0] == '#' {
			if len(stack) < 8 {
				stack = append(stack, level{n, m[2]})
			}
			continue
		}
		if strings.ContainsAny(value[:1], "[{|>&*") || len(out) >= maxOptions {
			continue
		}
		var b strings.Builder
		for _, s := range stack {
			b.WriteString(s.key + ".")
		}
		out = append(out, Option{Key: b.String() + m[2], Value: strings.Trim(value, `"'`), File: file, Line: i + 1})
	}
	return out
}

// remarks makes a document of what comments and docstrings say, of each Python
// file that the documents start and of each file of settings: authors note there
// what a configuration reached.
func (f *Facts) remarks() {
	said := map[string][]python.Literal{}
	for p, m := range f.Modules {
		if (f.Starts[p] > 0 || configRE.MatchString(p)) && !strings.HasSuffix(p, ".ipynb") {
			said[p] = m.Remarks
		}
	}
	for p, r := range f.comments {
		said[p] = r
	}
	f.comments = nil
	for _, p := range slices.Sorted(maps.Keys(said)) {
		doc := &markdown.Doc{}
		for _, r := range said[p] {
			if stateRE.MatchString(r.Text) {
				doc.Paras = append(doc.Paras, markdown.Para{Line: r.Line, Text: r.Text})
			}
		}
		if len(doc.Paras) > 0 && len(f.Docs) < 2*maxDocs {
			f.Docs = append(f.Docs, Document{Path: p, Remarks: true, Doc: doc})
		}
	}
}

var (
	configRE  = regexp.MustCompile(`(?i)(?:^|/)(?:conf|configs?|settings|experiments?|recipes)/|config[\w\-]*\.py$`)
	stateRE   = regexp.MustCompile(`\d\s*%|\d\.\d`)
	commentRE = regexp.MustCompile(`^\s*#+\s*(.{8,300})$`)
)

// comments are the lines of a settings file that are a comment with a number.
func comments(src string) []python.Literal {
	var out []python.Literal
	for i, l := range strings.Split(src, "\n") {
		if m := commentRE.FindStringSubmatch(strings.TrimRight(l, " \t\r")); m != nil && stateRE.MatchString(m[1]) && len(out) < 40 {
			out = append(out, python.Literal{Text: m[1], Line: i + 1})
		}
	}
	return out
}

// Composed are the options of a configuration as Hydra composes it: those of
// the file of that name, then those of the files in folders beside it, each
// under the name of its folder.
func (f *Facts) Composed(dir, name string) []Option {
	dir = path.Clean(dir)
	var out []Option
	out = append(out, f.options[path.Join(dir, name)+".yaml"]...)
	var groups []string
	for p := range f.options {
		if rel, ok := strings.CutPrefix(p, dir+"/"); ok && strings.Contains(rel, "/") {
			groups = append(groups, p)
		}
	}
	sort.Strings(groups)
	seen := map[string]bool{}
	for _, o := range out {
		seen[o.Key] = true
	}
	for _, p := range groups {
		prefix := strings.ReplaceAll(path.Dir(strings.TrimPrefix(p, dir+"/")), "/", ".") + "."
		for _, o := range f.options[p] {
			if o.Key = prefix + o.Key; !seen[o.Key] {
				seen[o.Key] = true
				out = append(out, o)
			}
		}
	}
	return out
}
