// Package inspect reads a checkout into facts: what it documents, which
// commands it shows, what it depends on, what its scripts print and write.
//
// Everything is read through [os.Root], within bounds, and nothing is executed.
// Symbolic links are not followed. What a bound leaves out is itself a fact.
package inspect

import (
	"context"
	"path"
	"sort"
	"strings"
	"sync"

	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/spec"
)

// Config bounds what is read. The zero value is ready to use.
type Config struct {
	MaxFiles         int   // files listed; 0 means 200,000
	MaxFileBytes     int64 // bytes of one text file; 0 means 2 MiB
	MaxNotebookBytes int64 // bytes of one notebook; 0 means 100 MiB
	MaxTotalBytes    int64 // bytes read in all; 0 means 256 MiB
	MaxModules       int   // Python files scanned; 0 means 400
}

func (c Config) withDefaults() Config {
	if c.MaxFiles == 0 {
		c.MaxFiles = 200_000
	}
	if c.MaxFileBytes == 0 {
		c.MaxFileBytes = 2 << 20
	}
	if c.MaxNotebookBytes == 0 {
		c.MaxNotebookBytes = 100 << 20
	}
	if c.MaxTotalBytes == 0 {
		c.MaxTotalBytes = 256 << 20
	}
	if c.MaxModules == 0 {
		c.MaxModules = 400
	}
	return c
}

// Facts is what was read. Slices are sorted by path, so that the same checkout
// always gives the same facts.
type Facts struct {
	Files        []File
	Truncated    bool // the listing stopped at a bound
	Readme       string
	Docs         []Document
	Scripts      []Script
	Modules      map[string]*python.Module // scanned Python files
	Results      []Result                  // small JSON files that are committed
	Settings     map[string][]Setting      // paths outside the checkout, by the YAML file that sets them
	Dependencies []Dependency
	Python       []Version // statements about the Python version, strongest first
	CUDA         []Version
	Frameworks   []Version // Name is set
	Licence      string    // SPDX id, or "" when unknown
	LicencePath  string
	Languages    map[string]int // files by language
	Unsupported  string         // the language of a repository that holds none of ours
	Warnings     []spec.Warning

	// Starts are the Python files that the README's commands name, with their
	// order, from 1.
	Starts map[string]int

	dirs  map[string]bool
	index map[string]int
	cells map[string]string // code of the notebooks

	options map[string][]Option // by settings file

	comments map[string][]python.Literal // of settings files, until they are documents

	mu      sync.Mutex
	reached map[string][]string // answers of Reach
}

// File is one regular file or link of the checkout.
type File struct {
	Path string
	Size int64
	Link bool // a symbolic link, never followed
}

// Document is one file of prose, or one notebook.
type Document struct {
	Path     string
	Notebook bool
	CI       bool // a workflow of a continuous integration service
	Remarks  bool // what comments and docstrings of a source or settings file say
	Doc      *markdown.Doc
	Commands []markdown.Command
	Outputs  []markdown.Output // shown output: of blocks, or stored in cells
}

// Script is one shell script or Makefile.
type Script struct {
	Path        string
	Interpreter string // bash|sh
	Text        string
	Commands    []markdown.Command
}

// Result is a committed JSON file.
type Result struct {
	Path string
	Data []byte
}

// Setting is one value of a settings file that is an absolute path.
type Setting struct {
	Key, Value string
	Line       int
}

// Version is one statement about a version.
type Version struct {
	Name string // of a framework: pytorch, tensorflow, jax, …
	Spec string // as stated: "3.9", ">=3.8", "==1.12.1"
	Kind spec.Kind
	At   spec.Evidence
}

// Has says whether the checkout holds a regular file at p.
func (f *Facts) Has(p string) bool {
	i, ok := f.index[path.Clean(p)]
	return ok && !f.Files[i].Link
}

// HasDir says whether the checkout holds a directory at p.
func (f *Facts) HasDir(p string) bool {
	p = path.Clean(p)
	return p == "." || f.dirs[p]
}

// Size is the size of the file at p, or -1.
func (f *Facts) Size(p string) int64 {
	if i, ok := f.index[path.Clean(p)]; ok {
		return f.Files[i].Size
	}
	return -1
}

// Script is the shell script at p, or nil.
func (f *Facts) Script(p string) *Script {
	for i := range f.Scripts {
		if f.Scripts[i].Path == path.Clean(p) {
			return &f.Scripts[i]
		}
	}
	return nil
}

// Dependency is the dependency file at p, or nil.
func (f *Facts) Dependency(p string) *Dependency {
	for i := range f.Dependencies {
		if f.Dependencies[i].Path == path.Clean(p) {
			return &f.Dependencies[i]
		}
	}
	return nil
}

// Dir reads the checkout at dir.
func Dir(ctx context.Context, dir string, cfg Config) (*Facts, error) {
	r, err := open(ctx, dir, cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.walk(); err != nil {
		return nil, err
	}
	reread := func() error { r.facts.reread(); return nil }
	for _, step := range []func() error{r.docs, r.notebooks, r.scripts, r.dependencies, reread, r.modules, r.results, r.settings} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	r.facts.remarks()
	r.facts.versions()
	r.facts.languages()
	return r.facts, nil
}

func (f *Facts) buildIndex() {
	sort.Slice(f.Files, func(i, j int) bool { return f.Files[i].Path < f.Files[j].Path })
	f.index = make(map[string]int, len(f.Files))
	f.dirs = map[string]bool{}
	for i, file := range f.Files {
		f.index[file.Path] = i
		for d := path.Dir(file.Path); d != "." && !f.dirs[d]; d = path.Dir(d) {
			f.dirs[d] = true
		}
	}
}

var languageOf = map[string]string{
	".py": "Python", ".ipynb": "Python", ".r": "R", ".rmd": "R", ".jl": "Julia", ".m": "MATLAB", ".mlx": "MATLAB",
	".c": "C", ".cc": "C++", ".cpp": "C++", ".cu": "CUDA", ".go": "Go", ".rs": "Rust", ".java": "Java", ".js": "JavaScript", ".ts": "TypeScript",
	".sh": "Shell", ".lua": "Lua", ".scala": "Scala", ".hs": "Haskell", ".do": "Stata",
}

// languages counts source files and names the language of a repository in
// which this program cannot plan a run.
func (f *Facts) languages() {
	f.Languages = map[string]int{}
	for _, file := range f.Files {
		if l := languageOf[strings.ToLower(path.Ext(file.Path))]; l != "" {
			f.Languages[l]++
		}
	}
	best := ""
	for _, l := range []string{"R", "Julia", "MATLAB", "Stata", "C++", "C", "CUDA", "Go", "Rust", "Java", "JavaScript", "TypeScript", "Lua", "Scala", "Haskell"} {
		if f.Languages[l] > f.Languages[best] {
			best = l
		}
	}
	ours := f.Languages["Python"] + f.Languages["Shell"]
	if ours > 0 && !(statistical[best] && ours*5 <= f.Languages[best] && len(f.Starts) == 0) {
		return
	}
	f.Unsupported = best
}

// statistical are languages of research code in which a few helpers of another
// language do not make the repository one of ours.
var statistical = map[string]bool{"R": true, "Julia": true, "MATLAB": true, "Stata": true}

func (f *Facts) warn(code, message string, at ...spec.Evidence) {
	if len(f.Warnings) < 200 {
		f.Warnings = append(f.Warnings, spec.Warning{Code: code, Message: message, Evidence: at})
	}
}
