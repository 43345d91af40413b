package inspect

import (
	"path"
	"regexp"
	"sort"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Dependency is one place that declares what must be installed.
type Dependency struct {
	Path     string
	Kind     DependencyKind
	Entries  []Entry
	Extras   map[string][]Entry // optional groups by name
	Includes []Include          // other requirement files, paths from the root of the checkout
	Indexes  []Entry            // index, find-links and channel options
	System   []Entry            // packages of the operating system
	Python   Version            // empty Spec when not stated
	CUDA     Version
	Manager  string // pip|conda|uv|poetry|pdm|pipenv
	Compiles bool   // builds C++ or CUDA code
	// Library says that it declares how the project itself is packaged.
	Library bool
	// Project says that installing it installs the project's own package.
	Project string
	// Cloned says that the document clones a repository before it installs.
	Cloned bool
	// Consoles are the programs that installing the project provides.
	Consoles []Console
	// Runs are commands that the file would execute, kept as evidence only.
	Runs   []Entry
	Broken string // why it could not be read to the end
}

// DependencyKind is the format of a dependency file.
type DependencyKind string

// The formats.
const (
	Requirements DependencyKind = "requirements"
	Conda        DependencyKind = "conda"
	PyProject    DependencyKind = "pyproject"
	SetupPy      DependencyKind = "setup.py"
	SetupCfg     DependencyKind = "setup.cfg"
	Pipfile      DependencyKind = "pipfile"
	Lock         DependencyKind = "lock"
	Cog          DependencyKind = "cog"
	Apt          DependencyKind = "apt"
	Dockerfile   DependencyKind = "dockerfile"
	Prose        DependencyKind = "prose"
	PythonPin    DependencyKind = "python"
)

// Entry is one declared package.
type Entry struct {
	Spec   string // as the installer takes it
	Name   string // normalised: lower case, "-" between parts; empty for an option
	Pinned bool   // an exact version or commit
	Line   int
	Conda  bool   // from a conda channel, not from the package index
	Quote  string // the line as it stands
}

// Include is a reference to another requirement file.
type Include struct {
	Path       string
	Constraint bool
	Line       int
}

// Evidence is where the entry stands.
func (e Entry) Evidence(file string) spec.Evidence {
	return spec.Evidence{File: file, Line: e.Line, Quote: clip(e.Quote)}
}

func clip(s string) string {
	s = strings.TrimSpace(s)
	if len(s) <= 300 {
		return s
	}
	s = s[:297]
	for len(s) > 0 && s[len(s)-1] >= 0x80 {
		s = s[:len(s)-1]
	}
	return s + "..."
}

var (
	reqNameRE  = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*(.*)$`)
	pinRE      = regexp.MustCompile(`===?\s*[0-9][^,*\s]*\s*$`)
	separators = regexp.MustCompile(`[-_.]+`)
	commitRE   = regexp.MustCompile(`@[0-9a-f]{7,40}(#|$)`)
)

// NormalName is the canonical form of a distribution's name (PEP 503).
func NormalName(s string) string { return separators.ReplaceAllString(strings.ToLower(s), "-") }

// ParseRequirement reads one PEP 508 requirement, URL or path.
func ParseRequirement(s string) Entry {
	s = strings.TrimSpace(s)
	e := Entry{Spec: s}
	bare := s
	if i := strings.Index(bare, ";"); i >= 0 {
		bare = strings.TrimSpace(bare[:i])
	}
	if strings.Contains(bare, "://") && !strings.Contains(bare, " @ ") || strings.HasPrefix(bare, "git+") {
		e.Pinned = commitRE.MatchString(bare)
		if _, egg, ok := strings.Cut(bare, "#egg="); ok {
			if i := strings.IndexAny(egg, "&["); i >= 0 {
				egg = egg[:i]
			}
			e.Name = NormalName(egg)
			return e
		}
		base := strings.TrimSuffix(path.Base(strings.Split(bare, "#")[0]), ".git")
		base, _, _ = strings.Cut(base, "@")
		e.Name = NormalName(strings.TrimSuffix(base, ".git"))
		if i := strings.Index(e.Name, "-"); strings.HasSuffix(base, ".whl") && i > 0 {
			e.Name, e.Pinned = e.Name[:i], true
		}
		return e
	}
	m := reqNameRE.FindStringSubmatch(bare)
	if m == nil || m[3] != "" && strings.IndexByte("<>=!~@(", m[3][0]) < 0 {
		return e
	}
	e.Name = NormalName(m[1])
	rest := strings.Trim(m[3], "() ")
	e.Pinned = pinRE.MatchString(rest) && !strings.Contains(rest, ",") || strings.HasPrefix(rest, "@") && commitRE.MatchString(rest)
	return e
}

// VersionOf is the version part of an entry: "==1.2", ">=1.0,<2", or "".
func (e Entry) VersionOf() string {
	bare, _, _ := strings.Cut(e.Spec, ";")
	m := reqNameRE.FindStringSubmatch(strings.TrimSpace(bare))
	if m == nil || e.Name == "" || strings.Contains(bare, "://") {
		return ""
	}
	v := strings.ReplaceAll(strings.Trim(m[3], "() "), " ", "")
	if e.Conda && strings.HasPrefix(v, "=") { // "=1.12.1=build"
		v, _, _ = strings.Cut(strings.TrimLeft(v, "="), "=")
		v = "==" + v
	}
	return v
}

// pinned is full, partial or none.
func (d *Dependency) Pinned() string {
	n, total := 0, 0
	for _, e := range d.Entries {
		if e.Name == "" || e.Name == "python" || e.Name == "pip" {
			continue
		}
		total++
		if e.Pinned {
			n++
		}
	}
	switch {
	case d.Kind == Lock || total > 0 && n == total:
		return "full"
	case n > 0:
		return "partial"
	}
	return "none"
}

var (
	requirementFileRE = regexp.MustCompile(`(?i)^(?:[\w.\-]*[_\-.])?req(?:uirement|uirements|s)?(?:[_\-.][\w.\-]*)?\.(?:txt|in|pip)$`)
	condaFileRE       = regexp.MustCompile(`(?i)^(?:[\w\-]*conda[\w\-]*|[\w\-.]*environment[\w\-.]*|[\w\-]*env)\.ya?ml$`)
)

// kindOf is the format of a file by its name, or "".
func kindOf(p, base string) DependencyKind {
	switch base {
	case "pyproject.toml":
		return PyProject
	case "setup.py":
		return SetupPy
	case "setup.cfg":
		return SetupCfg
	case "Pipfile":
		return Pipfile
	case "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "conda-lock.yml", "pixi.lock", "pylock.toml":
		return Lock
	case "cog.yaml", "cog.yml":
		return Cog
	case "apt.txt", "packages.txt":
		return Apt
	case ".python-version", "runtime.txt", ".tool-versions", "mise.toml":
		return PythonPin
	}
	switch {
	case base == "Dockerfile" || strings.HasPrefix(base, "Dockerfile.") || strings.HasSuffix(base, ".Dockerfile"):
		return Dockerfile
	case requirementFileRE.MatchString(base):
		return Requirements
	case strings.HasSuffix(base, ".txt") && strings.HasSuffix(path.Base(path.Dir(p)), "requirements"):
		return Requirements
	case condaFileRE.MatchString(base):
		return Conda
	}
	return ""
}

func (r *reader) dependencies() error {
	paths := r.byDepth(maxDependencies, func(p, base, _ string) bool { return kindOf(p, base) != "" })
	for _, p := range paths {
		src, ok, err := r.text(p)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		d := ParseDependency(p, src)
		if d == nil {
			continue
		}
		if d.Broken != "" {
			r.facts.warn("broken_dependency_file", p+": "+d.Broken, spec.Evidence{File: p})
		}
		r.facts.Dependencies = append(r.facts.Dependencies, *d)
	}
	if err := r.odd(); err != nil {
		return err
	}
	r.facts.Dependencies = append(r.facts.Dependencies, r.facts.prose()...)
	sort.SliceStable(r.facts.Dependencies, func(i, j int) bool {
		return depth(r.facts.Dependencies[i].Path) < depth(r.facts.Dependencies[j].Path)
	})
	return nil
}

// ParseDependency reads one dependency file; nil when the name or the content
// says that it is none.
func ParseDependency(p, src string) *Dependency {
	switch kindOf(p, path.Base(p)) {
	case Requirements:
		return parseRequirements(p, src)
	case Conda:
		return parseConda(p, src)
	case PyProject:
		return parsePyProject(p, src)
	case SetupPy:
		return parseSetupPy(p, src)
	case SetupCfg:
		return parseSetupCfg(p, src)
	case Pipfile:
		return parsePipfile(p, src)
	case Lock:
		return &Dependency{Path: p, Kind: Lock, Manager: lockManager(path.Base(p))}
	case Cog:
		return parseCog(p, src)
	case Apt:
		return parseApt(p, src)
	case PythonPin:
		return parsePin(p, src)
	case Dockerfile:
		return parseDockerfile(p, src)
	}
	return nil
}

func lockManager(base string) string {
	switch base {
	case "uv.lock":
		return "uv"
	case "poetry.lock":
		return "poetry"
	case "pdm.lock":
		return "pdm"
	case "Pipfile.lock":
		return "pipenv"
	case "conda-lock.yml", "pixi.lock":
		return "conda"
	}
	return "pip"
}

// Closure lists the requirement files that the one at p leads to, itself
// first; a file that includes itself, directly or not, is listed once.
func (f *Facts) Closure(p string) []*Dependency {
	var out []*Dependency
	seen := map[string]bool{}
	var add func(p string)
	add = func(p string) {
		d := f.Dependency(p)
		if d == nil || seen[d.Path] || len(out) > 100 {
			return
		}
		seen[d.Path] = true
		out = append(out, d)
		for _, in := range d.Includes {
			add(in.Path)
		}
	}
	add(p)
	return out
}
