package recipe

import (
	"fmt"
	"path"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/spec"
)

func topLevelPrints(ps []python.Print) int {
	n := 0
	for _, p := range ps {
		if p.Func == "" {
			n++
		}
	}
	return n
}

func (e *envBuilder) require(s string, ev ...spec.Evidence) {
	for _, r := range e.out.Requirements {
		if r.Spec == s {
			return
		}
	}
	if len(e.out.Requirements) < 300 {
		e.out.Requirements = append(e.out.Requirements, spec.Requirement{Spec: s, Evidence: ev})
	}
}

// install turns one source into lines for the installer.
func (e *envBuilder) install(d *inspect.Dependency) {
	at := spec.Evidence{File: d.Path}
	primary := d == e.primary
	if primary {
		e.out.Manager = d.Manager
	}
	for _, in := range d.Includes {
		if !e.f.Has(in.Path) {
			e.warn("missing_include", fmt.Sprintf("%s names %s, which is not in the repository", d.Path, in.Path), spec.Evidence{File: d.Path, Line: in.Line})
		}
	}
	switch d.Kind {
	case inspect.Requirements:
		e.require("-r "+d.Path, at)
	case inspect.Conda:
		e.require("-f "+d.Path, at)
	case inspect.PyProject, inspect.SetupPy, inspect.SetupCfg:
		if path.Dir(d.Path) == "." {
			e.require("-e .", at)
		} else {
			e.require("-e ./"+path.Dir(d.Path), at)
		}
		if d.Manager != "" && d.Manager != "pip" && primary {
			e.out.Manager = d.Manager
		}
	case inspect.Pipfile:
		for _, x := range d.Entries {
			e.require(x.Spec, x.Evidence(d.Path))
		}
	case inspect.Cog, inspect.Prose:
		entries := d.Entries
		if d.Kind == inspect.Prose {
			entries = e.fresh(d)
			if primary {
				entries = e.proseEntries(d)
			}
		}
		conda := false
		for _, x := range entries {
			conda = conda || x.Conda && primary
			if x.Conda && !primary {
				x.Spec = pipSpec(x)
			}
			e.require(x.Spec, x.Evidence(d.Path))
		}
		if conda {
			e.out.Manager = "conda"
		}
		for _, in := range d.Includes {
			if d.Kind == inspect.Cog && e.f.Has(in.Path) {
				e.require("-r "+in.Path, spec.Evidence{File: d.Path, Line: in.Line})
			}
		}
	}
	for _, in := range e.f.Closure(d.Path) {
		e.indexes(in)
	}
	e.indexes(d)
	if d.Compiles {
		e.out.NeedsCompile = true
	}
	if d.Broken != "" {
		e.warn("broken_dependency_file", d.Path+": "+d.Broken, at)
	}
}

// indexes records the other places with packages that a source names.
func (e *envBuilder) indexes(d *inspect.Dependency) {
	for _, x := range d.Indexes {
		opt, url, _ := strings.Cut(x.Spec, " ")
		kind := map[string]string{"-i": "index", "--index-url": "index", "--extra-index-url": "index", "-f": "find_links", "--find-links": "find_links", "--channel": "channel"}[opt]
		if kind == "" || url == "" || strings.ContainsAny(url, " <>{}$") {
			continue
		}
		known := false
		for _, have := range e.out.Indexes {
			known = known || have.URL == url && have.Kind == kind
		}
		if !known && len(e.out.Indexes) < 20 {
			e.out.Indexes = append(e.out.Indexes, spec.Index{URL: url, Kind: kind, Evidence: []spec.Evidence{x.Evidence(d.Path)}})
		}
	}
}

// pipSpec is the requirement of the package index for one of a conda channel.
func pipSpec(x inspect.Entry) string {
	name := x.Name
	if name == "pytorch" {
		name = "torch"
	}
	version := strings.TrimPrefix(x.Spec, x.Spec[:min(len(x.Name), len(x.Spec))])
	if i := strings.LastIndex(version, "="); i > 0 && !strings.ContainsAny(version[i-1:i], "=<>!") {
		version = version[:i] // the build
	}
	if strings.HasPrefix(version, "=") && !strings.HasPrefix(version, "==") {
		version = "=" + version
	}
	return name + version
}

// proseEntries keeps the first way to install each package: later lines are
// alternatives for other systems.
func (e *envBuilder) proseEntries(d *inspect.Dependency) []inspect.Entry {
	var out []inspect.Entry
	seen := map[string]bool{}
	for _, x := range d.Entries {
		if x.Name == "" || seen[x.Name] || e.own(x.Name) || e.idleTool(x.Name, e.c.Before) {
			continue
		}
		seen[x.Name] = true
		out = append(out, x)
	}
	return out
}

// project installs the checkout itself where a document says so and the
// primary source does not do it already.
func (e *envBuilder) project() {
	if e.c.Installed != "" {
		e.installed()
		return
	}
	if e.primary.Library || !e.needsProject() {
		return
	}
	for i := range e.f.Dependencies {
		d := &e.f.Dependencies[i]
		if d.Kind != inspect.Prose || d.Project == "" || e.distance(d.Path) < 0 {
			continue
		}
		dir := path.Join(path.Dir(d.Path), strings.SplitN(d.Project, "[", 2)[0])
		if d.Cloned && !e.f.HasDir(dir) {
			dir = "." // the folder that the clone made
		}
		for j := range e.f.Dependencies {
			p := &e.f.Dependencies[j]
			if p.Library && path.Dir(p.Path) == dir && e.distance(p.Path) >= 0 {
				target := "-e ."
				if dir != "." {
					target = "-e ./" + dir
				}
				if i := strings.IndexByte(d.Project, '['); i >= 0 {
					target += d.Project[i:]
				}
				e.require(target, spec.Evidence{File: d.Path, Quote: "installs " + d.Project})
				if p.Compiles {
					e.out.NeedsCompile = true
				}
				return
			}
		}
	}
}

// installed installs the project that provides the program of the command.
func (e *envBuilder) installed() {
	target := "-e ."
	if e.c.Installed != "." {
		target = "-e ./" + e.c.Installed
	}
	for _, r := range e.out.Requirements {
		if strings.HasPrefix(r.Spec, target) {
			return
		}
	}
	for i := range e.f.Dependencies {
		if d := &e.f.Dependencies[i]; d.Library && path.Dir(d.Path) == e.c.Installed && len(d.Consoles) > 0 {
			e.require(target, spec.Evidence{File: d.Path, Line: d.Consoles[0].Line, Quote: "provides " + e.c.Program})
			return
		}
	}
}

// needsProject says that the entry imports local code that Python finds only
// when the project is installed: under src/, or outside the script's own folder.
func (e *envBuilder) needsProject() bool {
	if e.c.Entry == "" {
		return true
	}
	start := path.Dir(e.c.Entry)
	if e.c.Module != "" {
		start = e.c.Cwd
	}
	for _, p := range e.f.Reach(e.c.Entry) {
		m := e.f.Modules[p]
		if m == nil {
			continue
		}
		for _, im := range m.Imports {
			if im.Level > 0 || inspect.Stdlib(im.Name) {
				continue
			}
			for _, at := range e.f.Locate(p, im) {
				top, _, _ := strings.Cut(im.Name, ".")
				if !strings.HasPrefix(at, path.Join(start, top)) {
					return true
				}
			}
		}
	}
	for i := range e.f.Dependencies {
		if d := &e.f.Dependencies[i]; d.Library && d.Compiles && e.distance(d.Path) >= 0 {
			return true
		}
	}
	return false
}

// missing adds the numerical framework that the entry imports and no source
// lists: authors often leave it to the reader.
func (e *envBuilder) missing() {
	listed := map[string]bool{}
	for _, d := range append([]*inspect.Dependency{e.primary}, e.also...) {
		for _, in := range e.f.Closure(d.Path) {
			for _, x := range in.Entries {
				listed[x.Name] = true
				listed[inspect.FrameworkOf(x.Name)] = true
			}
		}
		for _, x := range d.Entries {
			listed[x.Name] = true
			listed[inspect.FrameworkOf(x.Name)] = true
		}
	}
	if e.primary.Kind == inspect.Lock {
		return
	}
	for _, t := range e.third {
		if e.primary.Kind == inspect.Prose && !listed[t.dist] && !t.guard && inspect.FrameworkOf(t.dist) == "" {
			e.require(t.dist, t.at)
			e.warn("dependency_from_import", t.dist+" is imported but the documents do not list it", t.at)
			listed[t.dist] = true
		}
		if fw := inspect.FrameworkOf(t.dist); fw != "" && !listed[fw] && !t.guard {
			e.require(t.dist, t.at)
			e.warn("framework_not_declared", fmt.Sprintf("%s is imported but no dependency source lists it; the newest version that fits is taken", t.dist), t.at)
			listed[fw] = true
		}
	}
}

// legacy are packages that need binaries, drivers or interpreters of their
// time, so that a fresh environment cannot be made of them alone.
var legacy = map[string]string{
	"mujoco-py": "needs the MuJoCo 2.1 binaries and compiles against them at import", "d4rl": "is archived, and needs mujoco-py with the MuJoCo 2.1 binaries",
	"atari-py": "is withdrawn, and needs game files that it no longer brings", "roboschool": "is withdrawn",
}

// legacyUse is the reason for which the environment is one of the past, or "".
func (e *envBuilder) legacyUse() string {
	for _, t := range e.third {
		if why := legacy[t.dist]; why != "" && !t.guard {
			return fmt.Sprintf("%s (%s) %s", t.dist, place(t.at), why)
		}
	}
	if e.primary == nil || e.out.Manager == "none" {
		return ""
	}
	for _, d := range e.f.Closure(e.primary.Path) {
		for _, x := range d.Entries {
			if why := legacy[x.Name]; why != "" {
				return fmt.Sprintf("%s (%s:%d) %s", x.Name, d.Path, x.Line, why)
			}
		}
	}
	return ""
}

// runner adds what the command itself needs: a notebook is executed by
// nbconvert with a kernel.
func (e *envBuilder) runner() {
	if e.c.Program == "jupyter" && e.out.Manager != "none" {
		e.require("nbconvert", e.c.Evidence)
		e.require("ipykernel", e.c.Evidence)
	}
}

// system gathers packages of the operating system.
func (e *envBuilder) system() {
	seen := map[string]bool{}
	for i := range e.f.Dependencies {
		d := &e.f.Dependencies[i]
		if len(d.System) == 0 || e.distance(d.Path) < 0 || d.Kind == inspect.Dockerfile && e.primary != d {
			continue
		}
		for _, s := range d.System {
			if !seen[s.Name] {
				seen[s.Name] = true
				e.out.SystemPackages = append(e.out.SystemPackages, s.Name)
			}
		}
	}
}

// fromImports is the last resort: the distributions of what is imported.
func (e *envBuilder) fromImports() {
	defer e.runner()
	if len(e.third) == 0 {
		if e.c.Entry != "" {
			e.warn("no_dependencies", "no dependency source was found, and "+e.c.Entry+" could not be read to the end")
		}
		return
	}
	e.out.Manager = "pip"
	for _, t := range e.third {
		if t.guard {
			continue
		}
		e.require(t.dist, t.at)
	}
	e.out.DependencySources = append(e.out.DependencySources, spec.DependencyFile{Path: e.c.Entry, Role: "primary", Pinned: "none", Reason: "nothing is declared, so the imports name the packages"})
	e.decide("dependency source", "imports of "+e.c.Entry, nil, "no file and no document declares dependencies")
	e.warn("dependencies_guessed_from_imports", "package names were taken from import statements, without versions", e.third[0].at)
}

func (e *envBuilder) warn(code, msg string, at ...spec.Evidence) {
	e.out.Warnings = append(e.out.Warnings, spec.Warning{Code: code, Message: msg, Evidence: at})
}

// version chooses the Python and CUDA versions: the primary source first, then
// other near sources, then prose.
func (e *envBuilder) version() {
	e.out.Python = e.pick("Python version", e.f.Python)
	if e.out.Manager != "none" {
		e.out.CUDA = e.pick("CUDA version", e.f.CUDA)
	}
}

func (e *envBuilder) pick(what string, all []inspect.Version) spec.VersionFact {
	best, bestScore := -1, -1
	for i, v := range all {
		dist := e.distance(v.At.File)
		if dist < 0 || v.Spec == "" {
			continue
		}
		score := 100 - dist*10 - i/4
		if e.primary != nil && v.At.File == e.primary.Path {
			score += 50
		}
		if k := e.f.Dependency(v.At.File); k != nil && k.Kind == inspect.Dockerfile {
			score -= 60
		}
		if score > bestScore {
			best, bestScore = i, score
		}
	}
	if best < 0 {
		return spec.VersionFact{}
	}
	chosen := all[best]
	var over []string
	for _, v := range all {
		s := v.Spec + " (" + v.At.File + ")"
		if v.Spec != chosen.Spec && v.Spec != "" && len(over) < 6 && !contains(over, s) && e.distance(v.At.File) >= 0 {
			over = append(over, s)
		}
	}
	if len(over) > 0 {
		e.decide(what, chosen.Spec, over, "stated in "+place(chosen.At)+", the strongest source near "+e.entryName())
	}
	return spec.VersionFact{Version: chosen.Spec, Kind: chosen.Kind, Evidence: []spec.Evidence{chosen.At}}
}

func contains(s []string, x string) bool {
	for _, v := range s {
		if v == x {
			return true
		}
	}
	return false
}

func place(at spec.Evidence) string {
	if at.Line > 0 {
		return fmt.Sprintf("%s:%d", at.File, at.Line)
	}
	return at.File
}

// ignores says that a dependency file is not used for this run, so that what it
// pins is not what will run.
func (e *envBuilder) ignores(p string) bool {
	d := e.f.Dependency(p)
	if d == nil || d.Kind == inspect.Prose {
		return false
	}
	for _, s := range e.out.DependencySources {
		if s.Path == p {
			return s.Role == "ignored"
		}
	}
	return false
}

// frameworks names the framework that the entry imports, with the version that
// a source states for it.
func (e *envBuilder) frameworks() {
	name := ""
	var at spec.Evidence
	for _, t := range e.third {
		if fw := inspect.FrameworkOf(t.dist); fw != "" && (name == "" || name == "tensorflow") {
			name, at = fw, t.at
		}
	}
	if name == "" && e.out.Manager != "none" {
		for _, v := range e.f.Frameworks {
			if e.distance(v.At.File) >= 0 {
				name, at = v.Name, v.At
				break
			}
		}
	}
	if name == "" {
		return
	}
	e.out.Framework.Name = name
	e.out.Framework.Evidence = []spec.Evidence{at}
	var of []inspect.Version
	for _, v := range e.f.Frameworks {
		if v.Name == name && v.Spec != "" && !e.ignores(v.At.File) {
			of = append(of, v)
		}
	}
	if v := e.pick(name+" version", of); v.Version != "" {
		e.out.Framework.VersionFact = v
	}
}
