package recipe

import (
	"encoding/json"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/spec"
)

// Number is one number that a run is known to print or write.
type Number struct {
	Label string
	Key   claim.Key
	Rule  spec.Collect // Metric is set when a claim takes it
	At    spec.Evidence
	Unit  string  // "%" or "fraction" where it is known, else ""
	Stale float64 // the value that a committed or shown output has
	Shown bool    // Stale is set
}

// Numbers lists what a run is known to give: keys of files it writes, lines it
// prints, lines that a document shows as its output. Files come first, since a
// pointer into a file is surer than a pattern over a log.
func Numbers(f *inspect.Facts, c *Command) []Number {
	n := &finder{f: f, c: c.core()}
	n.files()
	n.prints()
	n.libraries()
	n.shown()
	n.notebook()
	// a shown value tells the size of what is printed under the same name
	for i := range n.out {
		for _, o := range n.out {
			if o.Shown && !n.out[i].Shown && o.Key == n.out[i].Key && n.out[i].Unit == "" {
				n.out[i].Stale, n.out[i].Unit = o.Stale, o.Unit
				n.out[i].Shown = true
				break
			}
		}
	}
	return n.out
}

// notebook reads the stored output of the notebook that the command executes:
// the executed copy, which nbconvert names so, will show the same lines.
func (n *finder) notebook() {
	if n.c.Program != "jupyter" || !strings.HasSuffix(n.c.Entry, ".ipynb") {
		return
	}
	out := strings.TrimSuffix(relTo(n.c.Cwd, n.c.Entry), ".ipynb") + ".nbconvert.ipynb"
	for i := range n.f.Docs {
		if d := &n.f.Docs[i]; d.Path == n.c.Entry {
			for _, o := range d.Outputs {
				n.outputLine(d.Path, o)
			}
		}
	}
	for i := range n.out {
		if n.out[i].Rule.Kind == "stdout_regex" {
			n.out[i].Rule.Kind, n.out[i].Rule.Path = "notebook", out
		}
	}
}

// Measures says that a command evaluates something by the name of what it runs,
// or prints or writes a number that has the name of a metric.
func Measures(f *inspect.Facts, c *Command) bool {
	if c == nil {
		return false
	}
	if evalRE.MatchString(path.Base(c.core().Entry)) || len(Numbers(f, c)) > 0 {
		return true
	}
	if m := f.Modules[c.core().Entry]; m != nil {
		for _, p := range m.Prints {
			if len(p.Parts) == 1 && p.Parts[0].Expr != "" { // print(ppl.item())
				if _, ok := claim.ParseLabel(strings.TrimSuffix(p.Parts[0].Expr, ".item()")); ok {
					return true
				}
			}
		}
	}
	return false
}

type finder struct {
	f   *inspect.Facts
	c   *Command
	out []Number
}

const maxNumbers = 400

func (n *finder) add(x Number) {
	k, ok := claim.ParseLabel(x.Label)
	if !ok || len(n.out) >= maxNumbers || x.Rule.Kind == "stdout_regex" && !claim.EndsLabel(x.Label) {
		return
	}
	x.Key = k
	if x.Unit == "" {
		x.Unit = k.Unit
	}
	for _, old := range n.out {
		if old.Rule == x.Rule {
			return
		}
	}
	n.out = append(n.out, x)
}

var outFlagRE = regexp.MustCompile(`(?i)^--?(?:o|out|output|outfile|results?|metrics?|save|log|report|json|csv)(?:[_\-]?(?:file|path|json|csv|fn|name|to|metrics))?$`)

// outFlag recognises options that name a file to write.
func outFlag(name string) bool { return outFlagRE.MatchString(name) }

// outputs lists the JSON files that the run writes: named in its arguments, or
// by the default of such an option, or literally in the script.
func (n *finder) outputs() []output {
	var out []output
	seen := map[string]bool{}
	add := func(p string, at spec.Evidence, w *write) {
		if p = path.Clean(p); strings.HasSuffix(p, ".json") && !seen[p] && !path.IsAbs(p) && !strings.HasPrefix(p, "..") && !strings.ContainsAny(p, "{}<>$*%") {
			seen[p] = true
			out = append(out, output{path: p, at: at, w: w})
		}
	}
	given := map[string]bool{}
	for i, a := range n.c.Args {
		name, val, eq := strings.Cut(a, "=")
		if !eq && i+1 < len(n.c.Args) {
			val = n.c.Args[i+1]
		}
		if outFlag(name) {
			given[name] = true
			add(val, n.c.Evidence, nil)
		}
	}
	m := n.f.Modules[n.c.Entry]
	if m != nil {
		for _, fl := range m.Flags {
			name := fl.Names[len(fl.Names)-1]
			if outFlag(name) && !given[name] && fl.By != "global" {
				add(strings.Trim(fl.Default, `'"`), spec.Evidence{File: n.c.Entry, Line: fl.Line, Quote: name + " defaults to " + fl.Default}, nil)
			}
		}
	}
	for _, p := range n.f.Reach(n.c.Entry) {
		mod := n.f.Modules[p]
		if mod == nil {
			continue
		}
		for _, w := range mod.Writes {
			if w.Format == "json" && strings.Contains(w.Path, ".json") {
				add(w.Path, spec.Evidence{File: p, Line: w.Line, Quote: "writes " + w.Path}, &write{mod, w})
			}
		}
	}
	return out
}

type output struct {
	path string
	at   spec.Evidence
	w    *write // the statement that writes it, where it is known
}

type write struct {
	m *python.Module
	w python.Write
}

// files reads the keys of the JSON files that the run writes.
func (n *finder) files() {
	outs := n.outputs()
	for _, o := range outs {
		n.documentedKeys(o)
		n.committed(o)
		w := o.w
		if w == nil {
			w = n.onlyWrite()
		}
		if w == nil {
			continue
		}
		for _, leaf := range w.m.Leaves(w.w, n.lookup) {
			if strings.HasPrefix(leaf.Pointer, "/config") || strings.HasPrefix(leaf.Pointer, "/args") {
				continue
			}
			n.add(Number{
				Label: strings.Join(leaf.Path, " "), Unit: unitOf(w.m, leaf.Expr),
				Rule: spec.Collect{Kind: "json", Path: o.path, Pointer: leaf.Pointer},
				At:   spec.Evidence{File: n.fileOf(w.m), Line: leaf.Line, Quote: clip(leaf.Path[len(leaf.Path)-1] + ": " + leaf.Expr)},
			})
		}
	}
}

func (n *finder) fileOf(m *python.Module) string {
	for _, p := range n.f.Reach(n.c.Entry) {
		if n.f.Modules[p] == m {
			return p
		}
	}
	return n.c.Entry
}

// onlyWrite is the single statement of the entry script, or of what it
// imports, that writes JSON; nil when there are several.
func (n *finder) onlyWrite() *write {
	var found *write
	for _, p := range n.f.Reach(n.c.Entry) {
		m := n.f.Modules[p]
		if m == nil {
			continue
		}
		for _, w := range m.Writes {
			if w.Format != "json" {
				continue
			}
			if found != nil {
				return nil
			}
			found = &write{m, w}
		}
		if found != nil && p == n.c.Entry {
			return found
		}
	}
	return found
}

// lookup finds the one local module that the entry reaches and that returns a
// dictionary from a function of that name.
func (n *finder) lookup(fn string) *python.Module {
	var found *python.Module
	for _, p := range n.f.Reach(n.c.Entry) {
		m := n.f.Modules[p]
		if m == nil {
			continue
		}
		if _, ok := m.Assigns[fn+"()"]; ok {
			if found != nil {
				return nil
			}
			found = m
		}
	}
	return found
}

// committed reads the keys of a result file that is in the repository.
func (n *finder) committed(o output) {
	for _, r := range n.f.Results {
		if r.Path != path.Join(n.c.Cwd, o.path) {
			continue
		}
		var v any
		if json.Unmarshal(r.Data, &v) == nil {
			n.leaves(v, nil, o.path, spec.Evidence{File: r.Path, Quote: "a committed result"}, 0)
		}
	}
}

func (n *finder) leaves(v any, at []string, file string, ev spec.Evidence, depth int) {
	switch v := v.(type) {
	case float64:
		if len(at) > 0 {
			n.add(Number{Label: strings.Join(at, " "), Stale: v, Shown: true, At: ev,
				Rule: spec.Collect{Kind: "json", Path: file, Pointer: pointer(at)}})
		}
	case map[string]any:
		if depth > 4 || len(at) > 0 && (at[0] == "config" || at[0] == "args") {
			return
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			n.leaves(v[k], append(at[:len(at):len(at)], k), file, ev, depth+1)
		}
	}
}

func pointer(keys []string) string {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString("/" + strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1"))
	}
	return b.String()
}

var keyHeaderRE = regexp.MustCompile(`(?i)^(?:key|field|name|metric|json key|entry|column|property)s?$`)

// documentedKeys reads a table or a JSON block that a document gives right
// after it names the file.
func (n *finder) documentedKeys(o output) {
	for i := range n.f.Docs {
		d := &n.f.Docs[i]
		for j := range d.Doc.Paras {
			p := &d.Doc.Paras[j]
			if !strings.Contains(p.Text, o.path) {
				continue
			}
			end := p.LineAt(len(p.Text))
			for _, t := range d.Doc.Tables {
				if t.Line <= end || t.Line > end+4 || len(t.Header) == 0 || !keyHeaderRE.MatchString(t.Header[0]) {
					continue
				}
				for _, row := range t.Rows {
					name := row.Cells[0]
					if strings.ContainsAny(name, " ,/") {
						continue
					}
					keys := strings.Split(name, ".")
					n.add(Number{Label: strings.Join(keys, " "), Rule: spec.Collect{Kind: "json", Path: o.path, Pointer: pointer(keys)},
						At: spec.Evidence{File: d.Path, Line: row.Line, Quote: clip(strings.Join(row.Cells, " | "))}})
				}
			}
			for _, b := range d.Doc.Blocks {
				if b.Line <= end || b.Line > end+6 {
					continue
				}
				var v any
				if json.Unmarshal([]byte(strings.Join(b.Text, "\n")), &v) == nil {
					n.leaves(v, nil, o.path, spec.Evidence{File: d.Path, Line: b.Line, Quote: clip(strings.Join(b.Text, " "))}, 0)
				}
			}
		}
	}
}

// near says whether output at a line of the command's document belongs to the
// command: it stands in the same block after it, or in a later block with no
// other run between.
func near(f *inspect.Facts, d *inspect.Document, c *Command, block, line int) bool {
	if line <= c.Line || line > c.Line+80 {
		return false
	}
	if block == c.Block {
		for _, mc := range d.Commands {
			if mc.Block == block && mc.Line > c.Line && mc.Line < line && starts(f, mc.Text) {
				return false
			}
		}
		return true
	}
	for _, mc := range d.Commands {
		if mc.Block >= 0 && mc.Line > c.Line && mc.Line < line && starts(f, mc.Text) && !quickRE.MatchString(mc.Text) && !testsRE.MatchString(mc.Text) {
			return false
		}
	}
	return true
}

var (
	startsRE = regexp.MustCompile(`(?:^|[\s;&])(?:python[0-9.]*|torchrun|accelerate|deepspeed|bash|sh|uv run|poetry run|papermill|\./\S+|\S+\.(?:sh|py))\s`)
	testsRE  = regexp.MustCompile(`\b(?:unittest|pytest|pip|venv)\b`)
)

// starts says that a command line runs a program of the repository.
func starts(f *inspect.Facts, text string) bool {
	if startsRE.MatchString(text) {
		return true
	}
	w, _, _ := strings.Cut(text, " ")
	return f.Console(w) != nil
}

// shown turns the output that a document shows after the command into rules.
func (n *finder) shown() {
	if n.c.Doc < 0 {
		return
	}
	d := &n.f.Docs[n.c.Doc]
	n.grids(d)
	for _, o := range d.Outputs {
		if !near(n.f, d, n.c, o.Block, o.Line) {
			continue
		}
		if file := catOf(d, o); file != "" {
			n.catLine(d.Path, file, o)
			continue
		}
		n.outputLine(d.Path, o)
	}
}

// catOf is the JSON file that the command before a line of output shows.
func catOf(d *inspect.Document, o markdown.Output) string {
	file := ""
	for _, mc := range d.Commands {
		if mc.Block != o.Block || mc.Line > o.Line {
			continue
		}
		file = ""
		if w := strings.Fields(mc.Text); len(w) == 2 && w[0] == "cat" && strings.HasSuffix(w[1], ".json") {
			file = w[1]
		}
	}
	return file
}

var jsonLineRE = regexp.MustCompile(`^\s*"([^"]+)"\s*:\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*,?\s*$`)

// catLine reads one member at the top level of a shown JSON file.
func (n *finder) catLine(doc, file string, o markdown.Output) {
	m := jsonLineRE.FindStringSubmatch(o.Text)
	if m == nil || len(o.Text)-len(strings.TrimLeft(o.Text, " \t")) > 4 || path.IsAbs(file) || strings.HasPrefix(path.Clean(file), "..") {
		return
	}
	v, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		return
	}
	n.add(Number{Label: m[1], Stale: v, Shown: true, Rule: spec.Collect{Kind: "json", Path: path.Clean(file), Pointer: pointer([]string{m[1]})},
		At: spec.Evidence{File: doc, Line: o.Line, Quote: clip(o.Text)}})
}

var (
	labelNumRE = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_@/.\- ()]{0,50}?)["']?\s*([:=]\s*|\s+)([-+]?(?:\d+\.\d+|\d+|\.\d+)(?:[eE][-+]?\d+)?)(\s*%)?`)
	numberPart = `([-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)`
)

// outputLine makes a pattern of each label and number of a shown line.
func (n *finder) outputLine(file string, o markdown.Output) {
	for _, m := range labelNumRE.FindAllStringSubmatch(o.Text, 12) {
		label := strings.Trim(m[1], " -*")
		if i := strings.LastIndexAny(label, "(|,"); i >= 0 {
			label = strings.TrimSpace(label[i+1:])
		}
		if _, ok := claim.ParseLabel(label); !ok {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		unit := ""
		if m[4] != "" {
			unit = "%"
		}
		sep := `["']?\s*[:=]?\s*`
		if strings.ContainsAny(m[0], `"'`) {
			sep += wrapped // a dictionary
		}
		n.add(Number{Label: label, Unit: unit, Stale: v, Shown: true,
			Rule: spec.Collect{Kind: "stdout_regex", Pattern: bounded(label) + sep + numberPart},
			At:   spec.Evidence{File: file, Line: o.Line, Quote: clip(o.Text)}})
	}
}

// bounded quotes a label so that it matches as words of its own, with any
// white space between them: "pass@1" is not found in "pass@10".
func bounded(label string) string {
	words := strings.Fields(label)
	for i, w := range words {
		words[i] = regexp.QuoteMeta(w)
	}
	end := ""
	if n := len(label); n > 0 && label[n-1] >= '0' && label[n-1] <= '9' {
		end = `\b`
	}
	return `(?:^|[^A-Za-z0-9_])` + strings.Join(words, `\s+`) + end
}
