package recipe

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

// maxCommands bounds how many commands of a checkout are considered.
const maxCommands = 3000

// Commands resolves every command that the checkout documents, in the order of
// the documents, followed by shell scripts and notebooks that nothing names.
func Commands(f *inspect.Facts) []*Command {
	r := &resolver{f: f}
	var out []*Command
	for i := range f.Docs {
		if len(out) > maxCommands {
			break
		}
		out = append(out, r.document(i)...)
	}
	out = append(out, r.mentions(out)...)
	out = append(out, r.unnamed(out)...)
	out = append(out, r.snippets(out)...)
	for i, c := range out {
		c.Order = i
		r.unpublish(c)
		r.uncomment(c)
	}
	return out
}

var publishRE = regexp.MustCompile(`^--push[_-]to[_-]hub(?:=(?:True|true|1))?$`)

// unpublish takes the option away by which a run would upload its model to the
// authors' account, which nobody else can do.
func (r *resolver) unpublish(c *Command) {
	const why = "the run would upload its model to the authors' account"
	if c.Role != RoleRun {
		return
	}
	if i := slices.IndexFunc(c.Argv, publishRE.MatchString); i > 0 {
		before, j := shell.Quote(c.Argv), i+1
		if j < len(c.Argv) && (c.Argv[j] == "True" || c.Argv[j] == "true") {
			j++
		}
		c.Argv = slices.Concat(c.Argv[:i], c.Argv[j:])
		c.Args = slices.DeleteFunc(slices.Clone(c.Args), publishRE.MatchString)
		c.Display, c.Quoted = shell.Quote(c.Argv), false
		c.Patches = append(slices.Clone(c.Patches), spec.Patch{Kind: "flag", Line: c.Line, Before: before, After: c.Display, Reason: why})
	}
	s := r.f.Script(c.Entry)
	if s == nil {
		return
	}
	for i, l := range strings.Split(s.Text, "\n") {
		opt := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(l), "\\"))
		if !publishRE.MatchString(opt) || strings.HasSuffix(l, "\r") || len(c.Patches) > 20 {
			continue
		}
		after := ""
		if strings.HasSuffix(strings.TrimSpace(l), "\\") {
			after = "\\"
		}
		c.Patches = append(slices.Clone(c.Patches), spec.Patch{Kind: "source", File: s.Path, Line: i + 1, Before: l, After: after, Reason: why})
	}
}

// uncomment puts statements in force without which a file of the run does not
// compile, and which its authors hold back until it runs in a sandbox.
func (r *resolver) uncomment(c *Command) {
	if c.Role != RoleRun {
		return
	}
	for _, p := range r.f.Reach(c.Entry) {
		m := r.f.Modules[p]
		if m == nil || strings.HasSuffix(p, ".ipynb") {
			continue
		}
		for _, w := range m.Withheld {
			c.Patches = append(slices.Clone(c.Patches), spec.Patch{Kind: "source", File: p, Line: w.Line, Before: w.Before, After: w.After,
				Reason: fmt.Sprintf("the block of line %d is empty without it, so that the file does not compile as published; it runs in the sandbox", w.Head)})
		}
	}
}

// document resolves the commands of one document.
func (r *resolver) document(i int) []*Command {
	d := &r.f.Docs[i]
	dir := path.Dir(d.Path)
	if d.CI {
		dir = "."
	}
	st := &state{env: map[string]string{}, block: map[string]bool{}, cwd: "."}
	block := -2
	var out []*Command
	for _, mc := range d.Commands {
		if mc.Block != block {
			block = mc.Block
			st.cwd, st.block = start(dir), map[string]bool{}
		}
		if strings.HasPrefix(mc.Text, "git clone") {
			st.cloned = true
		}
		c := r.line(mc, dir, st)
		if c.Role == RoleOther {
			continue
		}
		r.place(c, d, i, mc)
		if s := r.f.Script(c.Entry); s != nil && c.Role == RoleRun {
			c.Unbound = append(c.Unbound, r.insideScript(c, s, 0)...)
		}
		if c.Block < 0 && !spanRuns(c) {
			continue
		}
		out = append(out, c)
	}
	return out
}

// spanRuns says whether inline code is a command and not the name of a file.
func spanRuns(c *Command) bool { return strings.Contains(c.Display, " ") && c.Missing == "" }

// start is the directory in which a document's commands begin: its own, unless
// it is a folder of documents.
func start(dir string) string {
	if strings.HasPrefix(dir, ".") {
		return "." // settings of a service, such as templates for issues
	}
	switch strings.ToLower(path.Base(dir)) {
	case "docs", "doc", "documentation", "assets", ".github", "wiki":
		return "."
	}
	return dir
}

func (r *resolver) place(c *Command, d *inspect.Document, i int, mc markdown.Command) {
	c.Doc, c.Block = i, mc.Block
	c.Evidence = spec.Evidence{File: d.Path, Line: mc.Line, Quote: clip(mc.Text)}
	for n := range c.Patches {
		c.Patches[n].File = d.Path
	}
	_, c.Section = d.Doc.Section(mc.Line)
	if mc.Block < 0 {
		c.Context = paragraph(d, mc.Line)
	}
	if mc.Block >= 0 && mc.Block < len(d.Doc.Blocks) {
		b := d.Doc.Blocks[mc.Block]
		c.Context = b.Intro + "\n" + mc.Comment + "\n" + b.After
	}
}

func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= 300 {
		return s
	}
	s = s[:297]
	for len(s) > 0 && s[len(s)-1] >= 0x80 {
		s = s[:len(s)-1]
	}
	return s + "..."
}

var mentionVerbRE = regexp.MustCompile(`(?i)\b(run|execut\w*|launch\w*|reproduc\w*|train\w*|evaluat\w*|use|script)\b`)

// mentions makes commands of scripts that prose names beside a verb, such as
// "may be executed through `x.py`".
func (r *resolver) mentions(have []*Command) []*Command {
	named := map[string]bool{}
	for _, c := range have {
		if c.Block >= 0 || c.Entry != "" {
			named[c.Entry] = true
		}
	}
	var out []*Command
	for i := range r.f.Docs {
		d := &r.f.Docs[i]
		for _, sp := range d.Doc.Spans {
			if len(out) > 200 || !strings.HasSuffix(sp.Text, ".py") && !strings.HasSuffix(sp.Text, ".sh") || strings.Contains(sp.Text, " ") {
				continue
			}
			text := paragraph(d, sp.Line)
			if !mentionVerbRE.MatchString(text) {
				continue
			}
			c := &Command{Display: sp.Text, Line: sp.Line, Cwd: start(path.Dir(d.Path)), Env: map[string]string{}, Argv: []string{sp.Text}}
			r.entry(c, path.Dir(d.Path))
			if c.Entry == "" || named[c.Entry] || !r.runnable(c.Entry) {
				continue
			}
			named[c.Entry] = true
			c.Role = r.role(c)
			c.Display = strings.Join(c.Argv, " ")
			c.Doc, c.Block = i, -1
			c.Evidence = spec.Evidence{File: d.Path, Line: sp.Line, Quote: clip(text)}
			_, c.Section = d.Doc.Section(sp.Line)
			c.Context = text
			c.Unbound = r.required(c)
			if s := r.f.Script(c.Entry); s != nil && c.Role == RoleRun {
				c.Unbound = append(c.Unbound, r.insideScript(c, s, 0)...)
			}
			out = append(out, c)
		}
	}
	return out
}

func paragraph(d *inspect.Document, line int) string {
	for i := range d.Doc.Paras {
		p := &d.Doc.Paras[i]
		if p.Line <= line && line <= p.LineAt(len(p.Text)) {
			return p.Text
		}
	}
	return ""
}

// runnable says whether a file does something when it is executed: a script,
// or a module with a main block, flags or statements that print.
func (r *resolver) runnable(entry string) bool {
	m := r.f.Modules[entry]
	if m == nil {
		return strings.HasSuffix(entry, ".sh")
	}
	return m.Main || len(m.Flags) > 0 && m.Calls["parser.parse_args"]+m.Calls["argparse.ArgumentParser"] > 0 || topLevelPrints(m.Prints) > 0
}

// required lists the flags that the entry script insists on and the command
// does not give.
func (r *resolver) required(c *Command) []string {
	m := r.f.Modules[c.Entry]
	if m == nil {
		return nil
	}
	var out []string
	for _, fl := range m.Flags {
		if fl.By != "argparse" && fl.By != "click" && fl.By != "absl" {
			continue
		}
		positional := !strings.HasPrefix(fl.Names[0], "-")
		if !fl.Required && !(positional && fl.By == "argparse" && fl.Default == "") {
			continue
		}
		given := positional && len(c.Args) > 0
		for _, a := range c.Args {
			name, _, _ := strings.Cut(a, "=")
			for _, n := range fl.Names {
				given = given || n == name
			}
		}
		if !given {
			out = append(out, fl.Names[len(fl.Names)-1])
		}
	}
	return out
}

// mainProgram is the evidence of a program that no document names.
const mainProgram = "a main program; no document names it"

// mainRE are names of main programs at the root, with what they are about.
var mainRE = regexp.MustCompile(`^(?:main|run|experiment|reproduce|simulate|train|eval|evaluate)(?:_[A-Za-z0-9_]+)?\.py$`)

// maxScripts bounds how many scripts that nothing names become candidates.
const maxScripts = 60

// unnamed makes candidates of shell scripts, of notebooks with stored output,
// and, where a repository documents nothing, of its main programs.
func (r *resolver) unnamed(have []*Command) []*Command {
	named := map[string]bool{}
	runs := 0
	for _, c := range have {
		named[c.Entry] = true
		if c.Role == RoleRun && c.Missing == "" {
			runs++
		}
	}
	var out []*Command
	add := func(argv []string, entry, cwd string, line int, why string) {
		c := &Command{Role: RoleRun, Argv: argv, Display: strings.Join(argv, " "), Cwd: cwd, Env: map[string]string{}, Doc: -1, Block: -1, Line: line,
			Evidence: spec.Evidence{File: entry, Line: line, Quote: why}}
		r.entry(c, cwd)
		c.Role = r.role(c)
		c.Unbound = append(c.Unbound, r.required(c)...)
		if s := r.f.Script(entry); s != nil {
			c.Unbound = append(c.Unbound, r.insideScript(c, s, 0)...)
		}
		out = append(out, c)
	}
	for i := range r.f.Scripts {
		s := &r.f.Scripts[i]
		if named[s.Path] || s.Interpreter == "make" || len(out) >= maxScripts {
			continue
		}
		add([]string{s.Interpreter, s.Path}, s.Path, ".", 1, "a shell script of the repository")
	}
	for i := range r.f.Docs {
		d := &r.f.Docs[i]
		if !d.Notebook || named[d.Path] || len(d.Outputs) == 0 {
			continue
		}
		add([]string{"jupyter", "nbconvert", "--to", "notebook", "--execute", d.Path}, d.Path, ".", d.Outputs[0].Line, "a notebook with stored output")
	}
	if runs == 0 {
		for _, f := range r.f.Files {
			if mainRE.MatchString(f.Path) && !f.Link && !named[f.Path] && r.runnable(f.Path) && len(out) < maxScripts {
				add([]string{"python", f.Path}, f.Path, ".", 1, mainProgram)
			}
		}
	}
	return out
}

var positionalRE = regexp.MustCompile(`(?m)(?:^|[^\\'$])\$\{?([1-9])\}?(?:[^0-9]|$)`)

// positional lists the arguments that a script reads by their number and that
// are not given.
func positional(text string, given int) []string {
	var out []string
	for _, m := range positionalRE.FindAllStringSubmatch(text, 20) {
		if n := int(m[1][0] - '0'); n > given && !slices.Contains(out, "$"+m[1]) && !strings.Contains(text, "${"+m[1]+":") && !strings.Contains(text, "awk") {
			out = append(out, "$"+m[1])
		}
	}
	return out
}

// insideScript reads what a script will run: its device needs and what it
// leaves unbound.
func (r *resolver) insideScript(c *Command, s *inspect.Script, depth int) []string {
	unbound := positional(s.Text, len(c.Args))
	st := &state{cwd: c.Cwd, env: map[string]string{}, block: map[string]bool{}}
	for _, mc := range s.Commands {
		in := r.line(mc, path.Dir(s.Path), st)
		if in.Role != RoleRun {
			if in.Role == RoleCluster {
				c.Role = RoleCluster
			}
			continue
		}
		c.GPUs = max(c.GPUs, in.GPUs)
		c.Inner = in
		if next := r.f.Script(in.Entry); next != nil && next != s && depth < 3 {
			unbound = append(unbound, r.insideScript(in, next, depth+1)...)
		}
		for _, u := range in.Unbound {
			if !strings.HasPrefix(u, "$") {
				unbound = append(unbound, u)
			}
		}
		if in.Missing != "" && c.Missing == "" && in.Entry == "" {
			c.Missing = s.Path + ": " + in.Missing
		}
	}
	return unbound
}
