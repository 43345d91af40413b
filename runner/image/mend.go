package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner/image/problem"
	"github.com/repromill/repromill/runner/pip"
)

// missingSystem adds the packages of the distribution that have what is
// missing. Compilers and headers are for building alone.
func (j *job) missingSystem(p *problem.Problem) bool {
	d, ok := p.System()
	if !ok || !j.st.once("system "+d.Run+" "+d.Build) {
		return false
	}
	var used []string
	if d.Run != "" {
		j.st.packages = append(j.st.packages, d.Run)
		used = append(used, d.Run)
	}
	if d.Build != "" {
		j.st.tools = append(j.st.tools, d.Build)
		used = append(used, d.Build+" (while building)")
	}
	if p.Package != "" && j.st.once("toolchain") {
		j.st.tools = append(j.st.tools, toolchain...)
	}
	j.st.deviate("system package", "none", strings.Join(used, ", "), fmt.Sprintf("%s is missing for %s: %s", p.Name, or(p.Package, "a package"), p.Text))
	return true
}

// moduleNames are distributions whose module has another name, among those
// that builds import.
var moduleNames = map[string]string{
	"Cython": "cython", "skbuild": "scikit-build", "setuptools_scm": "setuptools-scm", "setuptools_rust": "setuptools-rust", "yaml": "pyyaml", "sklearn": "scikit-learn", "pkgconfig": "pkgconfig", "git": "gitpython", "jinja2": "jinja2", "mako": "mako", "PIL": "pillow", "attr": "attrs", "poetry": "poetry-core", "flit_core": "flit-core", "google": "protobuf", "mesonpy": "meson-python", "hatchling": "hatchling", "pbr": "pbr", "versioneer": "versioneer", "cv2": "opencv-python-headless", "Crypto": "pycryptodome",
}

// missingModule gives a build what it imports and does not declare: in the
// version that the environment has, where that is fixed.
func (j *job) missingModule(p *problem.Problem) bool {
	if p.Package == "" {
		return false
	}
	dist := or(moduleNames[p.Name], pip.Normalise(p.Name))
	if !j.st.once("module " + p.Package + " " + dist) {
		return false
	}
	want := dist
	if l := j.r.declared(dist); l.Name != "" && !l.Edit {
		want = or(j.st.edited[l.Name], l.Text)
	}
	j.st.extraBuild[p.Package] = append(j.st.extraBuild[p.Package], want)
	if !slices.Contains(j.st.extraBuild[p.Package], "setuptools") {
		j.st.extraBuild[p.Package] = append(j.st.extraBuild[p.Package], "setuptools")
	}
	j.st.deviate("build dependency of "+p.Package, "none", want, "its build imports "+p.Name+" and does not declare it")
	return true
}

// cannotBuild is for a source distribution that does not build for no reason
// that can be named. One that has wheels for another Python is not built by
// most people, so that Python or the nearest version with a wheel is taken;
// one that is always built gets the tools of its time.
func (j *job) cannotBuild(ctx context.Context, p *problem.Problem) (bool, error) {
	name := or(p.By, p.Package)
	if l := j.r.declared(p.Package); l.Name != "" {
		name = p.Package
	}
	l := j.r.declared(name)
	if l.Name == "" {
		return j.toolsOfTheTime(ctx, p.Package, p.Version, p.Name)
	}
	_, version, ok := pip.Pin(or(j.st.edited[l.Name], l.Text))
	if !ok {
		if name != p.Package {
			return false, nil
		}
		return j.toolsOfTheTime(ctx, p.Package, p.Version, p.Name)
	}
	list, err := j.releases(ctx, l.Name)
	if err != nil {
		return false, err
	}
	v, _ := pip.ParseVersion(version)
	if r := find(list, v); r != nil && len(r.Wheels) == 0 {
		if fixed, err := j.toolsOfTheTime(ctx, l.Name, version, p.Name); fixed || err != nil {
			return fixed, err
		}
	}
	return j.noBuild(ctx, l.Name, "it does not build: "+p.Text)
}

// buildTools are what old source distributions ask for in whatever version.
var buildTools = []string{"setuptools", "cython", "numpy"}

// toolsOfTheTime bounds the build tools to the versions that were there when a
// package was released, and half a year after.
func (j *job) toolsOfTheTime(ctx context.Context, name, version, tool string) (bool, error) {
	list, err := j.releases(ctx, name)
	if err != nil {
		return false, err
	}
	v, _ := pip.ParseVersion(version)
	r := find(list, v)
	if r == nil || r.Uploaded.IsZero() {
		return false, nil
	}
	tools := buildTools
	if slices.Contains(tools, tool) {
		tools = []string{tool}
	}
	until := r.Uploaded.AddDate(0, 6, 0)
	var used []string
	for _, t := range tools {
		if !j.st.once("tool " + t) {
			continue
		}
		have, err := j.releases(ctx, t)
		if err != nil {
			return false, err
		}
		for _, c := range slices.Backward(have) {
			if !c.Version.Pre() && !c.Yanked && !c.Uploaded.After(until) && usable(c, j.st.python, false) {
				j.st.buildConstraints = append(j.st.buildConstraints, t+"<="+c.Version.Text)
				used = append(used, t+"<="+c.Version.Text)
				break
			}
		}
	}
	if len(used) == 0 {
		return false, nil
	}
	j.st.deviate("build tools", "any version", strings.Join(used, ", "), fmt.Sprintf("%s==%s is of %s and does not build with newer ones", name, version, r.Uploaded.Format(time.DateOnly)))
	return true, nil
}

// failure is what a person is told: the package, what was declared, where it
// stands, and the installer's own words.
func (j *job) failure(text string) *Failure {
	list := problem.Parse(text)
	if len(list) == 0 {
		return &Failure{Reason: "the installation failed: " + or(pip.Complaint(strings.Split(text, "\n")), lastLines(text, 3))}
	}
	p := list[0]
	f := &Failure{Package: p.Package, Reason: reason(&p)}
	l := j.r.declared(p.Package)
	if l.Name == "" && p.By != "" {
		l = j.r.declared(p.By)
	}
	if l.Name != "" {
		f.Constraint, f.Where = l.Text, l.Where()
	}
	if p.Kind == problem.BadRequirement {
		for _, l := range j.r.inputs.Lines {
			if strings.Contains(text, l.Text) {
				f.Constraint, f.Where, f.Package = l.Text, l.Where(), or(l.Name, l.Text)
			}
		}
	}
	return f
}

func reason(p *problem.Problem) string {
	words := map[problem.Kind]string{
		problem.NoPackage: "no package index has it", problem.NoVersion: "no package index has this version", problem.NoWheel: "it is not built for this Python and has no source",
		problem.RequiresPython: "it needs Python " + strings.Join(p.Needs, " or "), problem.Conflict: p.By + " needs " + strings.Join(p.Needs, " or "),
		problem.Module: "its build needs " + p.Name, problem.Header: "its build needs the header " + p.Name, problem.Library: "it needs the library " + p.Name,
		problem.Program: "its build needs the program " + p.Name, problem.PkgConfig: "its build needs the library " + p.Name, problem.OldTools: "it does not build with the tools of today",
		problem.Replaced: "the name is withdrawn; the package is " + p.Name, problem.Build: "it does not build", problem.Download: "it cannot be downloaded", problem.Unreachable: p.Name + " cannot be reached",
		problem.NoInterpreter: "there is no Python " + p.Name, problem.BadRequirement: "this is no requirement", problem.TooNew: "it came out after the date that bounds the versions", problem.NoDates: "the index has no upload dates",
	}
	return words[p.Kind] + " (" + p.Text + ")"
}
