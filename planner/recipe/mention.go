package recipe

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
)

// repeats is how often a command asks for the experiment to be repeated.
func repeats(c *Command) int {
	n := 0
	arguments(c.Args, func(name, val string) {
		if v, err := strconv.Atoi(val); err == nil && repeatRE.MatchString(name) {
			n = max(n, v)
		}
	})
	return n
}

var (
	acronymRE   = regexp.MustCompile(`\(([A-Za-z0-9\-]{3,14})\)`)
	methodRE    = regexp.MustCompile(`^[A-Za-z]*[A-Z][A-Za-z0-9\-]*[A-Z0-9][A-Za-z0-9\-]*$`)
	titleHeadRE = regexp.MustCompile(`^\W*([\w\-]+)\s*(?::|–|—|$)`)
)

// method is the name of the authors' method, as the title of the README gives
// it: before a colon, alone, or in brackets as an abbreviation. It is "" where
// the title has no such name.
func method(f *inspect.Facts) string {
	for i := range f.Docs {
		if f.Docs[i].Path != f.Readme || len(f.Docs[i].Doc.Headings) == 0 {
			continue
		}
		title := f.Docs[i].Doc.Headings[0].Text
		for _, re := range []*regexp.Regexp{acronymRE, titleHeadRE} {
			if m := re.FindStringSubmatch(title); m != nil && len(m[1]) > 2 && methodRE.MatchString(m[1]) {
				return m[1]
			}
		}
	}
	return ""
}

// ofMethod says that a command names the method: in the file it runs, in its
// options, or in the comment above it.
func ofMethod(c *Command, own string) bool {
	own = squashed(own)
	for _, text := range []string{path.Base(c.Entry), path.Base(c.core().Entry), c.Comment} {
		if strings.Contains(squashed(text), own) {
			return true
		}
	}
	for _, a := range c.core().Args {
		if s := squashed(a); s == own || len(own) >= 4 && strings.Contains(s, own) {
			return true
		}
	}
	return false
}

// mentioned says that the README names a file.
func mentioned(f *inspect.Facts, name string) bool {
	for i := range f.Docs {
		if d := &f.Docs[i]; d.Path == f.Readme {
			for _, p := range d.Doc.Paras {
				if strings.Contains(p.Text, name) || strings.Contains(p.Text, strings.ReplaceAll(name, " ", "%20")) {
					return true
				}
			}
			for _, t := range d.Doc.Tables {
				for _, r := range t.Rows {
					for _, l := range r.Links {
						if slices.ContainsFunc(l, func(u string) bool { return strings.HasSuffix(u, name) }) {
							return true
						}
					}
				}
			}
		}
	}
	return false
}

// vendored says that a file lies in another project within the checkout: a
// folder with its own licence and its own packaging.
func vendored(f *inspect.Facts, p string) bool {
	for d := path.Dir(p); d != "." && d != "/"; d = path.Dir(d) {
		if pointed(f, d) {
			return false
		}
		own := f.Has(d+"/LICENSE") || f.Has(d+"/LICENSE.md") || f.Has(d+"/LICENSE.txt")
		if own && (f.Has(d+"/setup.py") || f.Has(d+"/README.md") || f.Has(d+"/pyproject.toml")) {
			return true
		}
	}
	return false
}

var globRE = regexp.MustCompile(`[\w./\-]*(?:[*]|\{[\w.\-*|, ]*\})(?:[\w./\-*|]|\{[\w.\-*|, ]*\})*\.sh`)

// braces expands "{a,b}" as a shell does, at most thirty ways.
func braces(g string, depth int) []string {
	i := strings.IndexByte(g, '{')
	j := strings.IndexByte(g, '}')
	if i < 0 || j < i || depth > 3 {
		return []string{g}
	}
	var out []string
	for _, part := range strings.FieldsFunc(g[i+1:j], func(r rune) bool { return r == ',' || r == '|' }) {
		out = append(out, braces(g[:i]+part+g[j+1:], depth+1)...)
	}
	return out[:min(len(out), 30)]
}

// globbed is the paragraph of a document that names a script by a pattern, such
// as "scripts/train_*.sh", or "".
func globbed(f *inspect.Facts, entry string) string {
	for i := range f.Docs {
		d := &f.Docs[i]
		for _, p := range d.Doc.Paras {
			for _, g := range globRE.FindAllString(p.Text, 4) {
				for _, one := range braces(strings.ReplaceAll(g, " ", ""), 0) {
					if ok, err := path.Match(path.Join(path.Dir(d.Path), one), entry); err == nil && ok {
						return p.Text
					}
				}
			}
		}
	}
	return ""
}

// pointed says that the README sends its reader to a folder.
func pointed(f *inspect.Facts, dir string) bool {
	for i := range f.Docs {
		if f.Docs[i].Path != f.Readme {
			continue
		}
		for _, p := range f.Docs[i].Doc.Paras {
			if j := strings.Index(p.Text, dir); j >= 0 && (j+len(dir) == len(p.Text) || strings.IndexByte(")/`\"' ,.", p.Text[j+len(dir)]) >= 0) {
				return true
			}
		}
	}
	return false
}
