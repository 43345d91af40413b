package recipe

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

var fileArgRE = regexp.MustCompile(`(?i)\.(?:json|jsonl|csv|tsv|txt|npy|npz|pkl|parquet|h5|hdf5|pt|pth|ckpt|bin|safetensors|ya?ml|gz|zip|tar|db|mat|png|jpe?g|wav)$`)

// complete says that all input which a command is known to read lies in the
// repository: it names at least one such file, and neither its arguments, nor
// the defaults of its flags, nor the file names in its source lack one. Nothing
// has to be prepared for such a command.
func complete(f *inspect.Facts, c *Command) bool {
	core := c.core()
	m := f.Modules[core.Entry]
	if m == nil || c.Script != nil {
		return false
	}
	found := 0
	lacks := false
	given := map[string]bool{}
	check := func(p string) {
		switch p = strings.TrimSuffix(p, "/"); {
		case strings.Contains(p, "://"):
		case path.IsAbs(p) || !in(f, c, p):
			lacks = true
		case dataRE.MatchString(p):
			found++
		}
	}
	arguments(core.Args, func(name, val string) {
		given[name] = true
		if fileArgRE.MatchString(val) || strings.Contains(val, "/") {
			check(val)
		}
	})
	for _, fl := range m.Flags {
		name := fl.Names[len(fl.Names)-1]
		def := strings.Trim(fl.Default, `'"`)
		if fl.By == "global" || anyGiven(fl.Names, given) || outFlag(name) || outDirRE.MatchString(name) || !fileArgRE.MatchString(def) && !strings.Contains(def, "/") {
			continue
		}
		check(def)
	}
	written := map[string]bool{}
	for _, p := range f.Reach(core.Entry) {
		mod := f.Modules[p]
		if mod == nil {
			return false
		}
		for _, w := range mod.Writes {
			written[w.Path] = true
		}
	}
	for _, l := range m.Paths {
		if !written[l.Text] && !in(f, c, l.Text) && !in(f, c, path.Join(path.Dir(core.Entry), l.Text)) {
			lacks = lacks || fileArgRE.MatchString(l.Text) && !strings.HasPrefix(l.Text, ".")
		}
	}
	return found > 0 && !lacks
}

// arguments calls each for the values of an argument vector that are read: the
// name is of the option before it, or "" for a positional one.
func arguments(args []string, each func(name, val string)) {
	prev := ""
	for _, a := range args {
		name, val, eq := strings.Cut(a, "=")
		if strings.HasPrefix(a, "-") {
			prev = name
			if !eq {
				each(name, "")
				continue
			}
			prev = ""
		} else {
			name, val = prev, a
			prev = ""
		}
		if !outFlag(name) && !outDirRE.MatchString(name) {
			each(name, val)
		}
	}
}

// producer is the last command before c in its document that writes the file p
// and needs nothing but what the repository holds; nil when there is none or
// the file is there already.
func producer(f *inspect.Facts, c *Command, p string, cmds []*Command) *Command {
	if !dataRE.MatchString(p) || in(f, c, p) || c.Doc < 0 {
		return nil
	}
	var found *Command
	for _, o := range cmds {
		if o == c || o.Doc != c.Doc || o.Line >= c.Line || o.Role != RoleRun || o.Missing != "" || len(o.Unbound) > 0 || !complete(f, o) {
			continue
		}
		for i, a := range o.Args {
			name, val, eq := strings.Cut(a, "=")
			if !eq && i+1 < len(o.Args) {
				val = o.Args[i+1]
			}
			if (outFlag(name) || outDirRE.MatchString(name)) && path.Join(o.Cwd, val) == path.Join(c.Cwd, p) {
				found = o
			}
		}
	}
	return found
}

// producers are the commands whose output a command reads, in the order in
// which they stand.
func producers(f *inspect.Facts, c *Command, cmds []*Command) []*Command {
	var out []*Command
	arguments(c.Args, func(_, val string) {
		o := producer(f, c, val, cmds)
		if m := maker(f, c, val, cmds); o == nil && m != nil && m.Entry != c.Entry && route(f, m) != "reduced_training" {
			o = m
		}
		if o != nil && !slices.Contains(out, o) {
			out = append(out, o)
		}
	})
	slices.SortStableFunc(out, func(a, b *Command) int { return a.Line - b.Line })
	return out
}

// dataRE are files that hold data and not settings.
var dataRE = regexp.MustCompile(`(?i)\.(?:json|jsonl|csv|tsv|txt|npy|npz|pkl|parquet|h5|hdf5|gz|zip|tar|db|mat|png|jpe?g|wav)$`)

// lacking are the data files that a command names as input and that are
// neither in the repository nor made by a step before it.
func lacking(f *inspect.Facts, c *Command, cmds []*Command) []string {
	var out []string
	arguments(c.Args, func(_, val string) {
		if producer(f, c, val, cmds) != nil {
			return
		}
		if m := maker(f, c, val, cmds); m != nil {
			if m.Role == RoleRun && route(f, m) == "reduced_training" && !contains(out, val) {
				out = append(out, val+", which the training at "+place(m.Evidence)+" would make,")
			}
			return
		}
		if !strings.Contains(val, "/") && dataRE.MatchString(val) && (anywhere(f, val) || link(f, val) != "") {
			return
		}
		if !dataRE.MatchString(val) || strings.ContainsAny(val, "<>${}*") || strings.Contains(val, "://") || in(f, c, val) || contains(out, val) {
			return
		}
		for _, o := range cmds {
			if o != c && o.Doc == c.Doc && o.Line < c.Line && o.Role != RoleOther && o.Role != RoleRun && (strings.Contains(o.Display, path.Base(val)) || o.Role == RoleSetup || o.Role == RoleDownload) {
				return
			}
		}
		out = append(out, val)
	})
	return append(out, undelivered(f, c, cmds)...)
}

// anywhere says that a file of that name lies somewhere in the checkout: many
// programs put the folder before it themselves.
func anywhere(f *inspect.Facts, name string) bool {
	for _, x := range f.Files {
		if strings.HasSuffix(x.Path, "/"+name) {
			return true
		}
	}
	return false
}

var outDirRE = regexp.MustCompile(`(?i)^--?\w*(?:out|save|log|result|dump|cache|tmp|temp)\w*`)

func anyGiven(names []string, given map[string]bool) bool {
	for _, n := range names {
		if given[n] {
			return true
		}
	}
	return false
}

// in says that a path, seen from the command's directory, is in the checkout.
func in(f *inspect.Facts, c *Command, p string) bool {
	p = path.Join(c.Cwd, p)
	return f.Has(p) || p != "." && f.HasDir(p)
}

// tools are programs that only fetch, with the distribution that brings them.
var tools = map[string]string{"gdown": "gdown", "kaggle": "kaggle", "wget": "wget", "aws": "awscli", "gsutil": "gsutil", "huggingface-cli": "huggingface-hub", "hf": "huggingface-hub", "dvc": "dvc"}

// idleTool says that a distribution brings a program that fetches data, and
// that neither the code nor a step before it uses it.
func (e *envBuilder) idleTool(dist string, steps []spec.Step) bool {
	is := false
	for prog, d := range tools {
		if d != dist {
			continue
		}
		is = true
		for _, s := range steps {
			if len(s.Argv) > 0 && s.Argv[0] == prog {
				return false
			}
		}
	}
	if !is || !e.known {
		return false
	}
	for _, t := range e.third {
		if t.dist == dist {
			return false
		}
	}
	return true
}

var inputKeyRE = regexp.MustCompile(`(?i)root|data|dir|path|image|train|val|test|ann`)

// foreign lists the input folders outside the checkout that the settings file
// of a command names: the file in its arguments, or the default of its flag.
func foreign(f *inspect.Facts, c *Command) []string {
	core := c.core()
	var files []string
	given := map[string]bool{}
	arguments(core.Args, func(name, val string) {
		given[name] = true
		files = append(files, val)
	})
	if m := f.Modules[core.Entry]; m != nil {
		for _, fl := range m.Flags {
			if fl.By != "global" && !anyGiven(fl.Names, given) {
				files = append(files, strings.Trim(fl.Default, `'"`))
			}
		}
	}
	var out []string
	for _, name := range files {
		p := path.Join(c.Cwd, name)
		for _, s := range f.Settings[p] {
			if inputKeyRE.MatchString(s.Key) && !outDirRE.MatchString("-"+s.Key) && len(out) < 4 {
				out = append(out, s.Key+" is "+s.Value+" ("+p+":"+strconv.Itoa(s.Line)+"), a folder of the authors' machine")
			}
		}
	}
	return out
}
