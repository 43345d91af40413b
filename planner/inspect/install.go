package inspect

import (
	"path"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

// Install is what one installation command asks for.
type Install struct {
	Tool    string // pip|conda|apt|project
	Entries []Entry
	Files   []string // requirement or environment files
	Indexes []Entry
	Project string // "-e ." and the like: the path that is installed
	Python  string // conda create python=…
}

// ParseInstall reads pip, uv pip, conda, mamba, apt and "setup.py install"
// lines; nil when the command installs nothing.
func ParseInstall(text string) *Install {
	l, err := shell.Parse(text)
	if err != nil || len(l.Commands) == 0 {
		return nil
	}
	var out *Install
	for _, c := range l.Commands {
		if in := installOf(c.Argv()); in != nil {
			if out == nil {
				out = in
				continue
			}
			if out.Tool == in.Tool {
				out.Entries = append(out.Entries, in.Entries...)
				out.Files = append(out.Files, in.Files...)
				out.Indexes = append(out.Indexes, in.Indexes...)
			}
		}
	}
	return out
}

func installOf(w []string) *Install {
	w = dropWrappers(w)
	if len(w) < 2 {
		return nil
	}
	base := path.Base(w[0])
	switch {
	case strings.HasPrefix(base, "python") && len(w) > 3 && w[1] == "-m" && w[2] == "pip":
		return pipInstall(w[3:])
	case strings.HasPrefix(base, "python") && len(w) > 2 && path.Base(w[1]) == "setup.py" && (w[2] == "install" || w[2] == "develop" || w[2] == "build_ext"):
		return &Install{Tool: "project", Project: path.Dir(w[1])}
	case base == "pip" || base == "pip3" || strings.HasPrefix(base, "pip3."):
		return pipInstall(w[1:])
	case base == "uv" && len(w) > 2 && w[1] == "pip":
		return pipInstall(w[2:])
	case base == "uv" && (w[1] == "sync" || w[1] == "add") || base == "poetry" && w[1] == "install" || base == "pdm" && (w[1] == "install" || w[1] == "sync"):
		return &Install{Tool: "project", Project: "."}
	case base == "conda" || base == "mamba" || base == "micromamba":
		return condaInstall(w[1:])
	case base == "apt" || base == "apt-get" || base == "brew":
		return aptInstall(w[1:])
	}
	return nil
}

func dropWrappers(w []string) []string {
	for len(w) > 1 && (w[0] == "sudo" || w[0] == "time" || w[0] == "env" || strings.Contains(w[0], "=")) {
		w = w[1:]
	}
	return w
}

func pipInstall(w []string) *Install {
	if len(w) < 2 || w[0] != "install" {
		return nil
	}
	in := &Install{Tool: "pip"}
	for i := 1; i < len(w); i++ {
		a := w[i]
		next := ""
		if i+1 < len(w) {
			next = w[i+1]
		}
		switch {
		case a == "-r" || a == "--requirement":
			in.Files = append(in.Files, next)
			i++
		case strings.HasPrefix(a, "-r") && len(a) > 2:
			in.Files = append(in.Files, a[2:])
		case a == "-e" || a == "--editable":
			if i++; strings.Contains(next, "://") {
				in.Entries = append(in.Entries, editable(next))
			} else {
				in.Project = next
			}
		case a == "-f" || a == "--find-links" || a == "-i" || a == "--index-url" || a == "--extra-index-url":
			in.Indexes = append(in.Indexes, Entry{Spec: a + " " + next})
			i++
		case strings.HasPrefix(a, "--extra-index-url=") || strings.HasPrefix(a, "--index-url=") || strings.HasPrefix(a, "--find-links="):
			in.Indexes = append(in.Indexes, Entry{Spec: strings.Replace(a, "=", " ", 1)})
		case a == "-c" || a == "-t" || a == "--target" || a == "--prefix" || a == "--python":
			i++
		case strings.HasPrefix(a, "-"):
		case a == "." || strings.HasPrefix(a, "./") || strings.HasPrefix(a, ".[") || strings.HasPrefix(a, "../"):
			in.Project = a
		default:
			if e := ParseRequirement(a); e.Name != "" && !strings.ContainsAny(a, "<{$") || strings.Contains(a, "==") {
				in.Entries = append(in.Entries, e)
			} else if r := ParseRequirement(a); r.Name != "" && versioned(a) {
				in.Entries = append(in.Entries, r)
			}
		}
	}
	return in
}

var versionedRE = regexp.MustCompile(`^[A-Za-z0-9._\-\[\],]+(?:[<>=!~]=?\s*[0-9][\w.*]*,?)+$`)

// versioned tells "torch<3" from the placeholder "<package>".
func versioned(a string) bool { return versionedRE.MatchString(a) }

func editable(url string) Entry {
	e := ParseRequirement(url)
	e.Spec = "-e " + url
	return e
}

func condaInstall(w []string) *Install {
	in := &Install{Tool: "conda"}
	if len(w) > 1 && w[0] == "env" {
		w = w[1:]
	}
	if len(w) < 2 || w[0] != "install" && w[0] != "create" && w[0] != "update" {
		return nil
	}
	for i := 1; i < len(w); i++ {
		a := w[i]
		switch {
		case a == "-f" || a == "--file":
			if i++; i < len(w) {
				in.Files = append(in.Files, w[i])
			}
		case strings.HasPrefix(a, "--file="):
			in.Files = append(in.Files, strings.TrimPrefix(a, "--file="))
		case a == "-c" || a == "--channel":
			if i++; i < len(w) {
				in.Indexes = append(in.Indexes, Entry{Spec: "--channel " + w[i]})
			}
		case a == "--name" || a == "--prefix" || shortNameRE.MatchString(a):
			i++
		case strings.HasPrefix(a, "-"):
		default:
			d := &Dependency{}
			d.condaEntry(a, 0)
			if d.Python.Spec != "" {
				in.Python = d.Python.Spec
			} else {
				in.Entries = append(in.Entries, d.Entries...)
			}
		}
	}
	return in
}

// shortNameRE is "-n" or "-p", alone or behind other short options as in "-yn".
var shortNameRE = regexp.MustCompile(`^-[a-z]*[np]$`)

func aptInstall(w []string) *Install {
	in := &Install{Tool: "apt"}
	seen := false
	for _, a := range w {
		switch {
		case a == "install":
			seen = true
		case strings.HasPrefix(a, "-") || !seen || strings.ContainsAny(a, "/$<>"):
		default:
			in.Entries = append(in.Entries, Entry{Spec: a, Name: a})
		}
	}
	if !seen {
		return nil
	}
	return in
}

var (
	pinnedSpanRE = regexp.MustCompile(`^([A-Za-z][\w.\-]*)(?:\[[\w,]+\])?\s*(?:==|>=|<=|~=)\s*\d[\w.+]*$`)
	depHeadingRE = regexp.MustCompile(`(?i)depend|require|install|setup|set-up|environment|prerequisite|getting started|usage`)
)

// notPackage are programs and drivers whose versions prose states like those of
// packages.
var notPackage = map[string]bool{"cuda": true, "cudnn": true, "nccl": true, "nvcr": true, "gcc": true, "g": true, "nvcc": true, "cmake": true, "ubuntu": true, "python": true, "conda": true, "driver": true, "docker": true, "node": true, "java": true, "cudatoolkit": true}

// prose collects the installation lines of every document that is not a
// workflow: one dependency record per document.
func (f *Facts) prose() []Dependency {
	var out []Dependency
	for i := range f.Docs {
		doc := &f.Docs[i]
		if doc.CI {
			continue
		}
		d := Dependency{Path: doc.Path, Kind: Prose, Manager: "pip"}
		for _, c := range doc.Commands {
			d.install(c)
		}
		for _, sp := range doc.Doc.Spans {
			if m := pinnedSpanRE.FindStringSubmatch(sp.Text); m == nil || notPackage[strings.ToLower(m[1])] {
				continue
			}
			if h, _ := doc.Doc.Section(sp.Line); doc.Path == f.Readme || depHeadingRE.MatchString(h.Text) {
				e := ParseRequirement(strings.ReplaceAll(sp.Text, " ", ""))
				e.Line, e.Quote = sp.Line, sp.Text
				d.Entries = append(d.Entries, e)
			}
		}
		d.versionLists(doc)
		if doc.Path == f.Readme || !doc.Notebook {
			d.bullets(doc)
		}
		if len(d.Entries)+len(d.Includes)+len(d.System) > 0 || d.Python.Spec != "" || d.Project != "" {
			out = append(out, d)
		}
	}
	for i := range f.Scripts {
		s := &f.Scripts[i]
		if !installScriptRE.MatchString(path.Base(s.Path)) || s.Interpreter == "make" {
			continue
		}
		d := Dependency{Path: s.Path, Kind: Prose, Manager: "pip"}
		for _, c := range s.Commands {
			d.install(c)
		}
		if len(d.Entries) > 0 {
			out = append(out, d)
		}
	}
	return out
}

// installScriptRE are names of scripts that make the environment: their lines
// say what the documents would.
var installScriptRE = regexp.MustCompile(`(?i)^(?:install|setup|create|make|build|init)?[_\-]?(?:install|setup|env|environment|conda|conda_?env|deps|dependencies|requirements)\w*\.(?:sh|bash)$`)

var versionLineRE = regexp.MustCompile(`^[-*]?\s*([A-Za-z][\w.\-]*)(?:\s*[:=]=?\s*|\s+v?)(\d+(?:\.\d+)+)$`)

// versionLists reads blocks in which every line is a package and its version,
// as authors paste them under a heading such as "Requirements".
func (d *Dependency) versionLists(doc *Document) {
	for _, b := range doc.Doc.Blocks {
		if h, _ := doc.Doc.Section(b.Line); !depHeadingRE.MatchString(h.Text) && !depHeadingRE.MatchString(b.Intro) {
			continue
		}
		var list []Entry
		for i, l := range b.Text {
			if l = strings.TrimSpace(l); l == "" {
				continue
			}
			m := versionLineRE.FindStringSubmatch(l)
			if m == nil {
				list = nil
				break
			}
			switch e := ParseRequirement(m[1] + "==" + m[2]); {
			case strings.EqualFold(m[1], "python"):
				d.Python = Version{Spec: m[2], Kind: spec.Published, At: spec.Evidence{File: doc.Path, Line: b.Line + i, Quote: l}}
			case !Stdlib(m[1]):
				e.Line, e.Quote = b.Line+i, l
				list = append(list, e)
			}
		}
		if len(list) > 1 {
			d.Entries = append(d.Entries, list...)
		}
	}
}

func (d *Dependency) install(c markdown.Command) {
	if strings.HasPrefix(c.Text, "git clone") {
		d.Cloned = true
	}
	in := ParseInstall(c.Text)
	if in == nil {
		return
	}
	ev := spec.Evidence{File: d.Path, Line: c.Line, Quote: clip(c.Text)}
	if in.Python != "" {
		d.Python = Version{Spec: in.Python, Kind: spec.Published, At: ev}
	}
	if in.Project != "" {
		d.Project = in.Project
	}
	for _, e := range in.Entries {
		e.Line, e.Quote = c.Line, clip(c.Text)
		if in.Tool == "apt" {
			d.System = append(d.System, e)
			continue
		}
		if in.Tool == "conda" && (e.Name == "cudatoolkit" || e.Name == "pytorch-cuda") {
			d.CUDA = Version{Spec: strings.TrimLeft(e.Spec[len(e.Name):], "="), Kind: spec.Published, At: ev}
		}
		d.Entries = append(d.Entries, e)
	}
	for _, x := range in.Indexes {
		x.Line, x.Quote = c.Line, clip(c.Text)
		d.Indexes = append(d.Indexes, x)
	}
	for _, file := range in.Files {
		if strings.ContainsAny(file, "<{$") || strings.Contains(file, "://") {
			continue
		}
		d.Includes = append(d.Includes, Include{Path: join(d.Path, file), Line: c.Line})
	}
}
