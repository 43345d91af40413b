// Package recipe turns the facts about a checkout into an environment and
// candidate runs: ordered detectors over what was read, each choice with the
// place it was read from. It is pure; nothing is executed or fetched.
package recipe

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

// Role is what a command is for.
type Role string

// The roles of a command.
const (
	RoleRun      Role = "run"
	RoleSetup    Role = "setup"    // prepares data for other commands
	RoleDownload Role = "download" // fetches from the network
	RoleInstall  Role = "install"
	RoleBlocking Role = "blocking" // serves or waits for a person
	RoleCluster  Role = "cluster"  // needs a batch scheduler
	RoleOther    Role = "other"    // nothing that is run: cd, ls, git clone
)

// Command is one documented command, resolved against the checkout.
type Command struct {
	Role    Role
	Display string // as a person would type it
	Argv    []string
	Script  *spec.Script
	Cwd     string // from the root of the checkout
	Env     map[string]string
	Entry   string // file that is executed, from the root; "" when none
	Module  string // of "python -m"
	Program string // python, bash, torchrun, …
	Args    []string
	GPUs    int // processes per node that a launcher asks for
	Nodes   int
	// Installed is the folder of the project that provides the program; empty
	// when the program does not come from the checkout.
	Installed string
	Missing   string // why the entry cannot be executed
	Reasons   []string
	Unbound   []string // placeholders
	Patches   []spec.Patch
	Adapted   bool        // has settings that a table states a result for
	Tool      string      // uv, poetry, …: the manager whose "run" stands before the command
	Before    []spec.Step // the set-up of the run, once it is chosen
	Inner     *Command    // of a shell script: the last run inside it
	Evidence  spec.Evidence
	Quoted    bool
	Doc       int // index into Facts.Docs; -1 for a script
	Block     int // index into the document's blocks; -1 for inline code
	Line      int
	Section   []string
	Comment   string
	Context   string // the words before and after the command
	Order     int
	last      string // the folder that the document entered last
}

// core is the command with the program that it ends up running: of a shell
// script the last run inside it, where that is known.
func (c *Command) core() *Command {
	if c.Inner == nil || c.Inner.Entry == "" {
		return c
	}
	in := c.Inner
	for in.Inner != nil && in.Inner.Entry != "" {
		in = in.Inner
	}
	x := *c
	x.Entry, x.Module, x.Args, x.Program = in.Entry, in.Module, in.Args, in.Program
	return &x
}

// state is what the lines of a document leave behind for the next ones.
type state struct {
	cwd    string
	env    map[string]string // set anywhere before in the document
	block  map[string]bool   // names exported in the block at hand
	cloned bool
	last   string // the folder that was entered last, in whichever block
}

// resolver reads commands against one checkout.
type resolver struct {
	f *inspect.Facts
}

// wrappers start another program and may be left out.
var wrappers = map[string]bool{"sudo": true, "time": true, "nohup": true, "env": true, "exec": true}

// line resolves one command line. A line with several simple commands gives
// one command: the last that runs something, with "cd" before it as its
// directory and assignments as its environment, or else a script.
func (r *resolver) line(mc markdown.Command, dir string, st *state) *Command {
	c := &Command{Display: strings.TrimSpace(mc.Text), Line: mc.Line, Comment: mc.Comment, Quoted: true, Cwd: st.cwd, Env: map[string]string{}}
	if fixed, n := dashes(c.Display); n > 0 {
		c.Patches = append(c.Patches, spec.Patch{Kind: "flag", Line: mc.Line, Before: c.Display, After: fixed, Reason: "a dash of typography stands where the option needs \"-\""})
		c.Display = fixed
	}
	if left := optionalRE.ReplaceAllString(c.Display, ""); left != c.Display {
		c.Patches = append(c.Patches, spec.Patch{Kind: "flag", Line: mc.Line, Before: c.Display, After: left, Reason: "an option in brackets may be left out"})
		c.Display, c.Quoted = left, false
	}
	l, err := shell.Parse(spacedRE.ReplaceAllString(angleRE.ReplaceAllString(c.Display, "$1'$2'"), "$1'$2'"))
	if err != nil {
		c.Role = RoleOther
		return c
	}
	if l.Compound != "" {
		return r.script(c, l.Compound, st)
	}
	var main *shell.Command
	why := ""
	decorated := false
	for i := range l.Commands {
		sc := &l.Commands[i]
		words := sc.Argv()
		switch {
		case sc.Op == "|" && why == "":
			if w := words; len(w) > 0 && w[0] != "tee" && w[0] != "cat" {
				why = "a pipe"
			}
			decorated = true
			continue
		case len(words) == 0:
			r.assign(sc, st, c, true)
			continue
		case words[0] == "cd" && len(words) > 1:
			if d, ok := r.cd(c.Cwd, dir, words[1], st); ok {
				c.Cwd, st.last = d, d
			} else {
				c.Reasons = append(c.Reasons, fmt.Sprintf("directory %s is not in the repository", words[1]))
			}
			continue
		case words[0] == "git" && len(l.Commands) > 1:
			st.cloned = st.cloned || len(words) > 1 && words[1] == "clone"
			continue
		case words[0] == "export" || words[0] == "set" || words[0] == "unset" || words[0] == "source" || words[0] == "." || words[0] == "mkdir" || words[0] == "clear" || words[0] == "echo":
			r.export(words, st)
			continue
		case main != nil:
			if !trivial(words) {
				why = "several commands on one line"
			}
			continue
		}
		main = sc
	}
	if main == nil {
		c.Role = RoleOther
		st.cwd = c.Cwd
		return c
	}
	r.assign(main, st, c, false)
	c.last = st.last
	if len(l.Commands) > 1 && l.Commands[0].Argv() != nil && len(l.Commands[0].Words) > 0 && l.Commands[0].Words[0].Text == "cd" {
		st.cwd = c.Cwd // the shell stays there
	}
	r.simple(c, main, dir, st)
	if decorated = decorated || len(main.Redirs) > 0; decorated && why == "" && c.Role == RoleRun && c.Script == nil && len(l.Commands) <= 2 {
		c.plain()
	}
	if why != "" && (c.Role == RoleRun || c.Role == RoleSetup) {
		return r.script(c, why, st)
	}
	return c
}

// plain shows the command without the redirections and the "tee" that keep a
// copy of its output: the runner keeps it anyway.
func (c *Command) plain() {
	var pre strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		pre.WriteString(k + "=" + shell.Quote([]string{c.Env[k]}) + " ")
	}
	c.Display = pre.String() + shell.Quote(c.Argv)
}

func trivial(w []string) bool {
	switch w[0] {
	case "tee", "wait", "true", "sleep", "ls", "cat", "head", "tail":
		return true
	}
	return false
}

// angleRE finds "<placeholder>", which a shell would take for redirections.
var angleRE = regexp.MustCompile(`(^|[^<'"A-Za-z0-9])(<[A-Za-z](?:[^<>\n'"]*[^<>\s'"])?>)`)

// dashes replaces typographic dashes at the start of options.
var dashRE = regexp.MustCompile(`(^|\s)[–—]{1,2}([A-Za-z])`)

func dashes(s string) (string, int) {
	n := len(dashRE.FindAllString(s, -1))
	if n == 0 {
		return s, 0
	}
	return dashRE.ReplaceAllString(s, "$1--$2"), n
}

// cd resolves a change of directory. Entering the clone of the repository
// itself is entering its root.
func (r *resolver) cd(cwd, dir, to string, st *state) (string, bool) {
	to = strings.TrimSuffix(to, "/")
	if to == "" || to == "~" || strings.HasPrefix(to, "/") || strings.ContainsAny(to, "$<{") {
		return cwd, false
	}
	if r.f.HasDir(path.Join(cwd, to)) && !strings.HasPrefix(path.Join(cwd, to), "..") {
		return path.Join(cwd, to), true
	}
	for _, base := range []string{dir, "."} {
		if p := path.Join(base, to); r.f.HasDir(p) && !strings.HasPrefix(p, "..") {
			return p, true
		}
	}
	if st.cloned || cwd == "." {
		// the name of the clone: "git clone …/x && cd x[/sub]"
		_, rest, sub := strings.Cut(to, "/")
		if !sub {
			return ".", st.cloned
		}
		if r.f.HasDir(rest) {
			return path.Clean(rest), true
		}
	}
	return cwd, false
}

func (r *resolver) export(words []string, st *state) {
	if words[0] != "export" {
		return
	}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok && !strings.Contains(v, "$") {
			st.env[k] = v
			st.block[k] = true
		}
	}
}

// assign records leading assignments; alone on a line they last for the
// following lines too.
func (r *resolver) assign(sc *shell.Command, st *state, c *Command, alone bool) {
	for _, a := range sc.Assign {
		v, ok := r.expand(a.Value, c.Cwd, st, c.Env)
		if !ok {
			continue
		}
		if alone {
			st.env[a.Name] = v
		} else {
			c.Env[a.Name] = v
		}
	}
}

var pwdRE = regexp.MustCompile(`\$\(pwd\)|\$\{PWD\}|\$PWD|` + "`pwd`")

// expand resolves what a word needs of a shell as far as the document says it:
// variables that were set before, and the working directory. A path below the
// working directory becomes relative to it.
func (r *resolver) expand(w shell.Word, cwd string, st *state, env map[string]string) (string, bool) {
	if w.Plain() {
		return w.Text, true
	}
	if w.Glob || w.Brace || w.Tilde {
		return w.Text, false
	}
	t := w.Text
	for _, v := range w.Vars {
		if v == "PWD" {
			continue
		}
		val, ok := st.env[v]
		if own, set := env[v]; set {
			val, ok = own, true
		}
		if !ok {
			return t, false
		}
		t = strings.ReplaceAll(t, "${"+v+"}", val)
		t = strings.ReplaceAll(t, "$"+v, val)
	}
	if pwdRE.MatchString(t) {
		t = pwdRE.ReplaceAllString(t, "\x00")
		t = strings.ReplaceAll(t, "\x00/", "")
		t = strings.ReplaceAll(t, "\x00", ".")
	}
	return t, !strings.Contains(t, "$(") && !strings.Contains(t, "`") && !strings.Contains(t, "$")
}

// devices replaces hard-coded GPU numbers by the first ones: another machine
// has others, and a scheduler numbers those it gives from 0.
func (r *resolver) devices(c *Command) {
	v := c.Env["CUDA_VISIBLE_DEVICES"]
	if v == "" || !deviceListRE.MatchString(v) {
		return
	}
	ids := strings.Split(v, ",")
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	if after := strings.Join(ids, ","); after != v {
		c.Env["CUDA_VISIBLE_DEVICES"] = after
		c.Patches = append(c.Patches, spec.Patch{Kind: "env", Line: c.Line, Before: "CUDA_VISIBLE_DEVICES=" + v, After: "CUDA_VISIBLE_DEVICES=" + after,
			Reason: "the numbers are those of the authors' machine"})
	}
}

var deviceListRE = regexp.MustCompile(`^\d+(?:,\d+)*$`)

// split gives the words of a variable that stands alone and unquoted, as a shell
// does.
func split(w shell.Word, st *state, env map[string]string) []string {
	if w.Quoted || len(w.Vars) != 1 || len(w.Substs) > 0 || w.Text != "$"+w.Vars[0] && w.Text != "${"+w.Vars[0]+"}" {
		return nil
	}
	v, ok := env[w.Vars[0]]
	if !ok {
		v = st.env[w.Vars[0]]
	}
	if strings.ContainsAny(v, "$`*?") {
		return nil
	}
	return strings.Fields(v)
}

// unset lists the variables of a word that nothing before it sets.
func (r *resolver) unset(w shell.Word, st *state, env map[string]string) []string {
	var out []string
	for _, v := range w.Vars {
		_, a := st.env[v]
		_, b := env[v]
		if !a && !b && v != "PWD" {
			out = append(out, "${"+v+"}")
		}
	}
	return out
}

// simple turns one simple command into an argument vector, or a script where a
// word needs a shell.
func (r *resolver) simple(c *Command, sc *shell.Command, dir string, st *state) {
	words := sc.Words
	for len(words) > 1 && wrappers[words[0].Text] {
		words = words[1:]
	}
	needs := ""
	for _, w := range words {
		if parts := split(w, st, c.Env); len(parts) > 1 {
			c.Argv = append(c.Argv, parts...)
			continue
		}
		v, ok := r.expand(w, c.Cwd, st, c.Env)
		switch unset := r.unset(w, st, c.Env); {
		case len(unset) > 0:
			c.Unbound = append(c.Unbound, unset...)
		case !ok:
			needs = "an expansion: " + w.Text
		}
		c.Argv = append(c.Argv, v)
	}
	for k, v := range st.env {
		if _, own := c.Env[k]; !own && st.block[k] {
			c.Env[k] = v
		}
	}
	for _, rd := range sc.Redirs {
		if !strings.Contains(rd.Op, "&") && rd.Target.Text != "/dev/null" && strings.Contains(rd.Op, "<") {
			needs = "input from a file"
		}
	}
	r.outputs(c)
	c.Unbound = drop(append(c.Unbound, placeholders(c.Argv, c.Env)...))
	r.entry(c, dir)
	r.devices(c)
	c.Role = r.role(c)
	if needs != "" && c.Role == RoleRun && len(c.Unbound) == 0 {
		entry, argv := c.Entry, c.Argv
		*c = *r.script(c, needs, st)
		c.Entry, c.Args = entry, argv
	}
}

// outFolder is where a run writes what its documented command leaves to the
// reader.
const outFolder = "run_output"

// outputs binds placeholders that say where the run writes, for which any new
// folder of the checkout will do, and the port of a launcher.
func (r *resolver) outputs(c *Command) {
	before := shell.Quote(c.Argv)
	bound := false
	for i := 1; i < len(c.Argv); i++ {
		name, val, eq := strings.Cut(c.Argv[i], "=")
		if !eq {
			name, val = c.Argv[i-1], c.Argv[i]
		}
		dashed := "--" + strings.TrimLeft(name, "-")
		set := outFolder
		switch {
		case !eq && !strings.HasPrefix(name, "-") || len(placeholders([]string{"", name + "=" + val, val}, nil)) == 0:
			continue
		case portRE.MatchString(dashed):
			set = "29500" // the port that PyTorch's launcher takes by default
		case fileArgRE.MatchString(val) || !writeDirRE.MatchString(dashed) && !outWordRE.MatchString(val):
			continue
		}
		bound = true
		if c.Argv[i] = set; eq {
			c.Argv[i] = name + "=" + set
		}
	}
	if bound {
		c.Display, c.Quoted = shell.Quote(c.Argv), false
		c.Patches = append(c.Patches, spec.Patch{Kind: "flag", Line: c.Line, Before: before, After: c.Display, Reason: "where to write, and on which port processes meet, is the reader's to choose"})
	}
}

var (
	portRE    = regexp.MustCompile(`(?i)^--(?:master|main|rdzv)[_\-]?(?:process[_\-])?port$`)
	outWordRE = regexp.MustCompile(`^<?(?:OUTPUT|OUT|SAVE|LOG|RESULT)S?[_\-][A-Z_\-]+>?$`)
)

var writeDirRE = regexp.MustCompile(`(?i)^--(?:out(?:put)?|save|log|result|ckpt_save|checkpoint_save|work|exp)s?(?:[_\-]?(?:dir|directory|path|folder|root|location))?$`)

// script makes the command a shell text.
func (r *resolver) script(c *Command, why string, st *state) *Command {
	text := c.Display
	var pre strings.Builder
	for _, k := range slices.Sorted(maps.Keys(st.env)) {
		fmt.Fprintf(&pre, "%s=%s\n", k, shell.Quote([]string{st.env[k]}))
	}
	if strings.Contains(text, "$") {
		text = pre.String() + text
	}
	text = "set -e\n" + text + "\n"
	sum := sha256.Sum256([]byte(text))
	c.Script = &spec.Script{Interpreter: "bash", Text: text, SHA256: hex.EncodeToString(sum[:])}
	c.Unbound = append(c.Unbound, textPlaceholders(c.Display)...)
	if c.Entry == "" {
		r.scriptEntry(c)
	}
	c.Argv = nil
	c.Reasons = append(c.Reasons, "needs a shell: "+why)
	return c
}

// scriptEntry finds the first program that a script text runs.
func (r *resolver) scriptEntry(c *Command) {
	probe := &Command{Cwd: c.Cwd, Env: map[string]string{}}
	for _, l := range strings.Split(c.Display, "\n") {
		parsed, err := shell.Parse(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(l), "do ")))
		if err != nil {
			continue
		}
		for _, sc := range parsed.Commands {
			probe.Argv = sc.Argv()
			if len(probe.Argv) > 1 && probe.Argv[0] == "do" {
				probe.Argv = probe.Argv[1:]
			}
			if len(probe.Argv) == 0 {
				continue
			}
			r.entry(probe, c.Cwd)
			if probe.Entry != "" || probe.Module != "" {
				c.Entry, c.Module, c.Program, c.Args, c.GPUs = probe.Entry, probe.Module, probe.Program, probe.Args, probe.GPUs
				c.Role = r.role(probe)
				return
			}
		}
	}
	c.Role = RoleOther
}
