package recipe

import (
	"fmt"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// Environment is the environment with the choices that led to it.
type Environment struct {
	spec.Environment
	Decisions []spec.Decision
	Warnings  []spec.Warning
	Legacy    string // why it cannot be made as it is; empty when it can
}

// ranks of dependency sources: a complete recipe before a lock, a lock before
// a list, a list before prose.
var rank = map[inspect.DependencyKind]int{
	inspect.Cog: -10, inspect.Lock: 1, inspect.Conda: 2, inspect.Requirements: 3, inspect.PyProject: 4, inspect.Pipfile: 5,
	inspect.SetupPy: 6, inspect.SetupCfg: 6, inspect.Prose: 7, inspect.Apt: 20, inspect.PythonPin: 20, inspect.Dockerfile: 20,
}

// ForEntry chooses the environment of one run: its entry script and working
// directory decide which declarations are meant. commitDate may be nil.
func ForEntry(f *inspect.Facts, c *Command, commitDate *time.Time) *Environment {
	e := &envBuilder{f: f, c: c.core(), out: &Environment{}}
	e.out.Manager = "unknown"
	e.imports()
	e.sources()
	e.choose()
	e.version()
	e.frameworks()
	e.out.Legacy = e.legacyUse()
	if e.out.Manager != "none" && e.pinned() != "full" && commitDate != nil && len(e.out.Requirements) > 0 {
		d := commitDate.UTC()
		e.out.ExcludeNewer = &d
		e.decide("package versions", "none newer than "+d.Format("2006-01-02"), nil, "not everything is pinned, and the commit's date bounds what the authors could have had")
	}
	return e.out
}

type envBuilder struct {
	f   *inspect.Facts
	c   *Command
	out *Environment

	third   []third // third-party imports of the entry and what it reaches
	known   bool    // the entry was read, so third is complete
	primary *inspect.Dependency
	also    []*inspect.Dependency
}

type third struct {
	module, dist string
	at           spec.Evidence
	guard        bool
}

func (e *envBuilder) decide(what, chosen string, over []string, because string) {
	e.out.Decisions = append(e.out.Decisions, spec.Decision{What: what, Chosen: chosen, Over: over, Because: because})
}

// imports lists what the entry script needs beyond the standard library.
func (e *envBuilder) imports() {
	if e.c == nil || e.c.scanned(e.f) == nil {
		return
	}
	e.known = true
	seen := map[string]bool{}
	for _, p := range e.f.Reach(e.c.Entry) {
		m := e.f.Modules[p]
		if p == "" {
			m, p = e.c.scanned(e.f), e.c.Evidence.File
		}
		if m == nil {
			e.known = false
			continue
		}
		if m.Calls["importlib.import_module"]+m.Calls["__import__"]+m.Calls["exec"] > 0 {
			e.known = false
		}
		for _, im := range m.Imports {
			if im.Level > 0 || inspect.Stdlib(im.Name) || e.f.Local(p, im) || e.above(p, im.Name) {
				continue
			}
			dist := inspect.Distribution(im.Name)
			if seen[dist] {
				continue
			}
			seen[dist] = true
			e.third = append(e.third, third{module: im.Name, dist: dist, guard: im.Guard,
				at: spec.Evidence{File: p, Line: im.Line, Quote: "import " + im.Name}})
		}
	}
}

// above says that a module lies in a folder above the file that imports it,
// which such files put on the search path themselves.
func (e *envBuilder) above(p, name string) bool {
	top, _, _ := strings.Cut(name, ".")
	for dir := path.Dir(p); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if up := path.Dir(dir); e.f.Has(path.Join(up, top+".py")) || e.f.Has(path.Join(up, top, "__init__.py")) {
			return true
		}
	}
	return false
}

// needsNothing says that every module the entry reaches was read and imports
// the standard library alone.
func (e *envBuilder) needsNothing() bool {
	if !e.known || e.c.Script != nil {
		return false
	}
	for _, t := range e.third {
		if !t.guard {
			return false
		}
	}
	return true
}

// homes are folder names in which a project keeps its dependency files.
var homes = map[string]bool{"deps": true, "dependencies": true, "requirements": true, "env": true, "envs": true, "environment": true, "environments": true, "conda": true, "docker": true, "install": true, "setup": true, ".devcontainer": true,
	"scripts": true, "tools": true, "misc": true, "build": true, "config": true, "configs": true}

// distance says how far a dependency file lies from the entry: how many
// folders the entry lies below the file's own, or -1 for a file that belongs
// to another project of the checkout.
func (e *envBuilder) distance(p string) int {
	dir := path.Dir(p)
	if homes[strings.ToLower(path.Base(dir))] {
		dir = path.Dir(dir)
	}
	for _, anchor := range []string{e.c.Cwd, path.Dir(e.c.Entry)} {
		if anchor == "" {
			anchor = "."
		}
		if dir == "." {
			return 1 + strings.Count(anchor, "/") + btoi(anchor != ".")
		}
		if anchor == dir || strings.HasPrefix(anchor, dir+"/") {
			return strings.Count(anchor[len(dir):], "/")
		}
	}
	return -1
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sources lists every dependency file with its role, nearest and strongest
// first.
func (e *envBuilder) sources() {
	named := e.named()
	type cand struct {
		d    *inspect.Dependency
		dist int
		rank int
	}
	var cands []cand
	for i := range e.f.Dependencies {
		d := &e.f.Dependencies[i]
		k, dist := rank[d.Kind], e.distance(d.Path)
		switch {
		case k >= 20:
			continue
		case dist < 0 && d.Kind == inspect.Prose && path.Dir(d.Path) == path.Dir(e.c.Evidence.File):
			dist = 0
		case dist < 0:
			e.source(d, "ignored", "belongs to another part of the repository than "+e.entryName())
			continue
		case d.Library && len(d.Entries) == 0 && len(d.Includes) == 0 && d.Project != "":
			e.source(d, "ignored", "declares no dependencies: it only packages the library")
			continue
		case d.Kind != inspect.Lock && d.Kind != inspect.Prose && len(d.Entries) == 0 && len(d.Includes) == 0:
			e.source(d, "ignored", "lists nothing to install")
			continue
		case d.Kind == inspect.Prose && !e.useful(d):
			continue
		}
		r := k*10 + dist
		if at, ok := named[d.Path]; ok && d.Kind != inspect.Prose {
			r -= 35 - min(at, 5) // a document says to install it
		}
		if d.Kind == inspect.Requirements && secondary(path.Base(d.Path)) && !has(named, d.Path) {
			r += 30
		}
		if d.Kind == inspect.PyProject && len(d.Entries) > 0 && e.usesProject(d) {
			r -= 15 // the project itself is what the entry uses
		}
		if e.c.isSnippet() && d.Kind == inspect.Prose && d.Path == e.c.Evidence.File {
			r -= 200 // the example stands beside what it asks to install
		}
		if e.c.Tool != "" && d.Manager == e.c.Tool {
			r -= 45 // the command itself runs in that manager's environment
		}
		if d.Kind == inspect.Prose && d.Path == e.f.Readme {
			r -= 5
		}
		if d.Library && e.libraryOnly(d) {
			r += 25
		}
		cands = append(cands, cand{d, dist, r})
	}
	sort.SliceStable(cands, func(i, j int) bool { return cands[i].rank < cands[j].rank })
	for i, c := range cands {
		if i == 0 {
			e.primary = c.d
			continue
		}
		e.also = append(e.also, c.d)
	}
}

// usesProject says that the entry is no part of a project and imports it.
func (e *envBuilder) usesProject(d *inspect.Dependency) bool {
	m := e.f.Modules[e.c.Entry]
	if m == nil {
		return false
	}
	dir := path.Dir(d.Path)
	for _, im := range m.Imports {
		top, _, _ := strings.Cut(im.Name, ".")
		for _, src := range []string{dir, path.Join(dir, "src")} {
			pkg := path.Join(src, top)
			if im.Level == 0 && e.f.Has(path.Join(pkg, "__init__.py")) && !strings.HasPrefix(e.c.Entry, pkg+"/") && path.Dir(e.c.Entry) != src {
				return true
			}
		}
	}
	return false
}

func has(m map[string]int, k string) bool { _, ok := m[k]; return ok }

// secondary are names of lists for developers, tests and documents.
func secondary(base string) bool {
	base = strings.ToLower(base)
	for _, w := range []string{"dev", "test", "doc", "lint", "ci", "extra", "optional", "constraint", "min", "demo"} {
		if strings.Contains(base, w) {
			return true
		}
	}
	return false
}

// libraryOnly says that a package's own dependencies do not cover what the
// entry imports, so they are those of a library that experiments use.
func (e *envBuilder) libraryOnly(d *inspect.Dependency) bool {
	declared := map[string]bool{}
	for _, x := range d.Entries {
		declared[x.Name] = true
	}
	miss := 0
	for _, t := range e.third {
		if !declared[t.dist] && !t.guard {
			miss++
		}
	}
	return len(e.third) > 2 && miss*2 > len(e.third)
}

// named are the files that installation lines of near documents name, in the
// order in which they stand.
func (e *envBuilder) named() map[string]int {
	out := map[string]int{}
	for i := range e.f.Dependencies {
		d := &e.f.Dependencies[i]
		if d.Kind != inspect.Prose || e.distance(d.Path) < 0 {
			continue
		}
		for _, in := range d.Includes {
			for _, p := range []string{in.Path, path.Base(in.Path)} {
				if e.f.Dependency(p) != nil && !has(out, p) {
					out[p] = len(out)
				}
			}
		}
	}
	return out
}

// useful says that prose installs something, not only the project's own
// published package or a file.
func (e *envBuilder) useful(d *inspect.Dependency) bool {
	n := 0
	for _, x := range d.Entries {
		if x.Name != "" && x.Name != "pip" && x.Name != "setuptools" && x.Name != "wheel" && !e.own(x.Name) && !e.idleTool(x.Name, e.c.Before) {
			n++
		}
	}
	return n > 0
}

// own says that a distribution is this project itself.
func (e *envBuilder) own(name string) bool {
	for _, t := range e.third {
		if t.dist == name {
			return false
		}
	}
	return e.f.HasDir(strings.ReplaceAll(name, "-", "_")) || e.f.HasDir(path.Join("src", strings.ReplaceAll(name, "-", "_")))
}

func (e *envBuilder) entryName() string {
	if e.c.Entry != "" {
		return e.c.Entry
	}
	return "the chosen command"
}

func (e *envBuilder) source(d *inspect.Dependency, role, reason string) {
	if len(e.out.DependencySources) < 60 {
		e.out.DependencySources = append(e.out.DependencySources, spec.DependencyFile{Path: d.Path, Role: role, Pinned: d.Pinned(), Reason: reason})
	}
}

func (e *envBuilder) pinned() string {
	if e.primary == nil {
		return "none"
	}
	return e.primary.Pinned()
}

// choose fixes the manager and what it installs.
func (e *envBuilder) choose() {
	ignored := e.out.DependencySources
	e.out.DependencySources = nil
	defer func() { e.out.DependencySources = append(e.out.DependencySources, ignored...) }()
	if e.needsNothing() {
		e.out.Manager = "none"
		var over []string
		for _, d := range append([]*inspect.Dependency{e.primary}, e.also...) {
			if d != nil {
				over = append(over, d.Path)
				e.source(d, "ignored", e.c.Entry+" imports the standard library alone")
			}
		}
		e.decide("environment", "none", over, fmt.Sprintf("%s and the %d local modules it reaches import the standard library alone", e.c.Entry, len(e.f.Reach(e.c.Entry))-1))
		return
	}
	if e.primary == nil {
		e.fromImports()
		return
	}
	d := e.primary
	e.source(d, "primary", e.why(d))
	var over []string
	for _, a := range e.also {
		role, why := e.second(a)
		e.source(a, role, why)
		if role != "also" {
			over = append(over, a.Path)
		}
	}
	for i, s := range ignored {
		for _, in := range e.f.Closure(d.Path) {
			if in.Path == s.Path && in != d {
				ignored[i].Role, ignored[i].Reason = "also", "included by "+d.Path
			}
		}
	}
	e.decide("dependency source", d.Path, over, e.why(d))
	e.install(d)
	for _, a := range e.also {
		if role, _ := e.second(a); role == "also" {
			e.install(a)
		}
	}
	e.project()
	e.missing()
	e.runner()
	e.system()
}

func (e *envBuilder) why(d *inspect.Dependency) string {
	if has(e.named(), d.Path) {
		return "a document says to install it"
	}
	switch d.Kind {
	case inspect.Cog:
		return "a complete recipe: Python, CUDA, system and Python packages"
	case inspect.Lock:
		return "a lock file fixes every version"
	case inspect.Conda:
		return "a conda environment near " + e.entryName()
	case inspect.Prose:
		return "installation lines in prose; no dependency file applies"
	}
	return "the nearest list of dependencies to " + e.entryName()
}

// second says what a source that lost still adds: prose that installs what the
// primary does not list is kept.
func (e *envBuilder) second(d *inspect.Dependency) (role, why string) {
	if d.Kind == inspect.Prose && len(e.fresh(d)) > 0 && (e.primary.Kind == inspect.Requirements || e.primary.Kind == inspect.Prose || e.primary.Kind == inspect.SetupPy || e.primary.Kind == inspect.PyProject) {
		return "also", "installs what " + e.primary.Path + " does not fix"
	}
	for _, in := range e.f.Closure(e.primary.Path) {
		if in == d {
			return "also", "included by " + e.primary.Path
		}
	}
	if (d.Kind == inspect.PyProject || d.Kind == inspect.Pipfile) && e.primary.Kind == inspect.Lock && path.Dir(d.Path) == path.Dir(e.primary.Path) {
		return "also", "the project that " + e.primary.Path + " locks"
	}
	return "ignored", e.primary.Path + " comes first: " + e.why(e.primary)
}

// fresh are the entries of prose that name a framework version, or a package
// that the entry imports and the primary source does not list.
func (e *envBuilder) fresh(d *inspect.Dependency) []inspect.Entry {
	declared := map[string]inspect.Entry{}
	declare := func(x inspect.Entry) {
		declared[canonical(x.Name)] = x
	}
	for _, in := range e.f.Closure(e.primary.Path) {
		for _, x := range in.Entries {
			declare(x)
		}
	}
	if e.primary.Kind == inspect.Prose {
		for _, x := range e.primary.Entries {
			declare(x)
		}
	}
	wanted := map[string]bool{}
	for _, t := range e.third {
		wanted[t.dist] = true
	}
	var out []inspect.Entry
	seen := map[string]bool{}
	for _, x := range d.Entries {
		old, listed := declared[canonical(x.Name)]
		fw := inspect.FrameworkOf(x.Name) != ""
		if seen[x.Name] || x.Name == "" || listed && !(fw && x.Pinned && !old.Pinned) || !listed && !wanted[x.Name] && !fw || e.own(x.Name) {
			continue
		}
		seen[x.Name] = true
		out = append(out, x)
	}
	return out
}

// canonical is the name in the package index of what a channel of conda calls
// otherwise.
func canonical(name string) string {
	if name == "pytorch" || name == "pytorch-gpu" {
		return "torch"
	}
	return name
}
