// Package problem reads why an installer failed: which package, for what
// reason, and what is missing, out of the words of uv, pip, compilers and
// build backends. It is pure, and it never fails: text that it cannot read is
// no problem it knows.
package problem

import (
	"regexp"
	"slices"
	"strings"
)

// Kind says what is wrong.
type Kind string

// The kinds of problem.
const (
	NoPackage      Kind = "no_package"      // the index does not have it
	NoVersion      Kind = "no_version"      // not in this version
	NoWheel        Kind = "no_wheel"        // only built for other Pythons or machines, and there is no source
	RequiresPython Kind = "requires_python" // it refuses this Python; Needs says which it takes
	Conflict       Kind = "conflict"        // Package is fixed, and By needs another version: Needs
	Module         Kind = "module"          // its build imports Name, which it does not declare
	Header         Kind = "header"          // a C header
	Library        Kind = "library"         // a shared library
	Program        Kind = "program"         // a program such as swig or git
	PkgConfig      Kind = "pkg_config"      // a library by the name it has in pkg-config
	OldTools       Kind = "old_tools"       // it needs build tools of its time; Name is the tool
	Replaced       Kind = "replaced"        // it is a withdrawn name of Name
	Build          Kind = "build"           // it cannot be built for another reason
	Download       Kind = "download"        // a URL that does not give it
	Unreachable    Kind = "unreachable"     // Name is a host that does not answer
	NoDates        Kind = "no_dates"        // the index does not say when files of Package were uploaded
	TooNew         Kind = "too_new"         // Package came out after the date that bounds the versions
	NoInterpreter  Kind = "no_interpreter"  // there is no such Python
	DiskFull       Kind = "disk_full"
	BadRequirement Kind = "bad_requirement" // a line that is no requirement; Name is the line
)

// Problem is one reason for a failure.
type Problem struct {
	Kind    Kind     `json:"kind"`
	Package string   `json:"package,omitempty"` // normalised as in PEP 503
	Version string   `json:"version,omitempty"`
	By      string   `json:"by,omitempty"`    // who asks for it
	Name    string   `json:"name,omitempty"`  // what is missing
	Needs   []string `json:"needs,omitempty"` // clauses such as ">=1.22,<1.24", one of which must hold
	Text    string   `json:"text"`            // the line that says it
}

// maxText bounds what is read: an installer ends with its reasons.
const maxText = 512 << 10

var (
	ansiRE      = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)
	separatorRE = regexp.MustCompile(`[-_.]+`)
	buildRE     = regexp.MustCompile("(?i)failed to (?:download and )?(?:build|prepare)[^`\n]*`([A-Za-z0-9][A-Za-z0-9._-]*)(?:\\[[^\\]]*\\])?(?: ?(?:==|@ ?)([^`\\s]*)[^`]*)?`")
	wheelForRE  = regexp.MustCompile(`(?:Failed building wheel for|Failed to build) ([A-Za-z0-9][A-Za-z0-9._-]*)\s*$`)
)

func normal(name string) string {
	return strings.ToLower(strings.Trim(separatorRE.ReplaceAllString(name, "-"), "-"))
}

// Parse lists what an installer's output says went wrong, the most specific
// first. Problems of one build carry the package whose build it was.
func Parse(text string) []Problem {
	text = text[max(0, len(text)-maxText):]
	text = strings.ReplaceAll(ansiRE.ReplaceAllString(text, ""), "\r", "")
	var out []Problem
	add := func(p Problem) {
		same := func(q Problem) bool {
			return q.Kind == p.Kind && q.Package == p.Package && q.Name == p.Name && q.Version == p.Version
		}
		if len(out) < 50 && !slices.ContainsFunc(out, same) {
			if len(p.Text) > 300 {
				p.Text = p.Text[:300]
			}
			p.Text = strings.ToValidUTF8(strings.TrimSpace(p.Text), "")
			out = append(out, p)
		}
	}
	resolution(text, add)
	inner, outer := builds(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		next := ""
		if i+1 < len(lines) {
			next = lines[i+1]
		}
		for _, p := range line(strings.TrimSpace(l), strings.TrimSpace(next)) {
			if p.Package == "" {
				p.Package, p.Version, p.By = inner.Package, inner.Version, outer.Package
			}
			add(p)
		}
	}
	if inner.Package != "" {
		inner.By = outer.Package
		add(inner)
	}
	slices.SortStableFunc(out, func(a, b Problem) int { return order(a.Kind) - order(b.Kind) })
	return out
}

// order puts what explains others before them: without a disk nothing works,
// and a build that fails for a missing header fails for that.
func order(k Kind) int {
	return slices.Index([]Kind{
		DiskFull, NoInterpreter, BadRequirement, NoDates, TooNew, Unreachable, RequiresPython, NoWheel, NoVersion, NoPackage, Conflict, Replaced, Program, Module,
		Header, Library, PkgConfig, OldTools, Download, Build,
	}, k)
}

// builds finds the package whose build failed, and the one for whose sake it
// was built.
func builds(text string) (inner, outer Problem) {
	all := buildRE.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		for l := range strings.Lines(text) {
			if m := wheelForRE.FindStringSubmatch(strings.TrimRight(l, "\n")); m != nil {
				return Problem{Kind: Build, Package: normal(m[1]), Text: l}, Problem{Package: normal(m[1])}
			}
		}
		return inner, outer
	}
	first, last := all[0], all[len(all)-1]
	version := func(m []string) string {
		if strings.Contains(m[2], "://") {
			return ""
		}
		return m[2]
	}
	return Problem{Kind: Build, Package: normal(last[1]), Version: version(last), Text: cause(text, last[0])}, Problem{Package: normal(first[1])}
}

var errorLineRE = regexp.MustCompile(`(?m)^\s*((?:[A-Za-z_.]*(?:Error|Exception)|error|ERROR): .*)$`)

// cause is the last line in which the build itself speaks of an error.
func cause(text, otherwise string) string {
	all := errorLineRE.FindAllStringSubmatch(text, -1)
	for _, m := range slices.Backward(all) {
		if !buildRE.MatchString(m[1]) {
			return m[1]
		}
	}
	return otherwise
}
