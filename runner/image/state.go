package image

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

// The places an interpreter is taken from.
const (
	fromBase = "base"
	fromUV   = "uv"
	fromApt  = "apt"
)

// interpreter is one Python that could be used.
type interpreter struct{ version, from string }

// state is what repairs have changed of a recipe.
type state struct {
	python, from string        // the interpreter of this try
	others       []interpreter // that could be used instead, best first

	edited           map[string]string    // requirement by name, in place of the declared one; empty leaves it out
	extraBuild       map[string][]string  // build dependencies by name, beside the declared ones
	buildConstraints []string             // "setuptools<58"
	late             []string             // packages that the bounding date does not hold for
	later            map[string]time.Time // a later date for a package that has no build of the time for this Python
	packages         []string             // Debian packages for the image
	tools            []string             // Debian packages for building alone
	unbounded        bool                 // the index has no upload times
	dates            dates                // what stands in their place
	tool             string               // the Python that the conda tool runs on
	looseBuilds      bool                 // any build of a conda package
	condaUnbounded   bool                 // conda packages of any date
	plainTorch       bool                 // PyTorch's own index cannot be reached
	dropped          map[string]bool
	devs             []spec.Deviation
	tried            map[string]bool
}

func newState() *state {
	return &state{dates: dates{bounds: map[string]string{}}, later: map[string]time.Time{}, edited: map[string]string{}, extraBuild: map[string][]string{}, dropped: map[string]bool{}, tried: map[string]bool{}}
}

// once says whether a repair is made for the first time.
func (st *state) once(repair string) bool {
	if st.tried[repair] {
		return false
	}
	st.tried[repair] = true
	return true
}

func (st *state) deviate(what, declared, used, reason string) {
	st.devs = append(st.devs, spec.Deviation{What: what, Declared: declared, Used: used, Reason: reason})
}

// files writes the lists that uv reads.
func (st *state) files(r *recipe, files, env map[string]string) {
	list := func(name, variable string, lines []string) {
		if len(lines) == 0 {
			return
		}
		files[name] = strings.Join(lines, "\n") + "\n"
		if variable != "" {
			env[variable] = settingsPath + "/" + name
		}
	}
	var in, constraints []string
	for _, l := range r.inputs.Lines {
		switch edit, ok := st.edited[l.Name]; {
		case l.Edit:
			in = append(in, "-e "+strings.TrimSuffix(SourcePath+"/"+l.Text, "/."))
		case ok && edit == "": // left out
		case ok && l.Name != "":
			in = append(in, edit)
		default:
			in = append(in, l.Text)
		}
	}
	for _, l := range append(slices.Clone(r.inputs.Constraints), r.inputs.Locked...) {
		switch edit, ok := st.edited[l.Name]; {
		case strings.Contains(l.Text, "["):
		case !ok:
			constraints = append(constraints, l.Text)
		case edit != "":
			constraints = append(constraints, edit)
		}
	}
	constraints = append(constraints, slices.Sorted(maps.Values(st.dates.bounds))...)
	files["in.txt"] = "" // the script tests whether there is anything in it
	list("in.txt", "", in)
	list("constraints.txt", "UV_CONSTRAINT", constraints)
	list("overrides.txt", "UV_OVERRIDE", r.overrides)
	list("build-constraints.txt", "UV_BUILD_CONSTRAINT", st.buildConstraints)
}

// declared finds the line that brought a package in, the zero Line when it is
// a dependency of another.
func (r *recipe) declared(name string) pip.Line {
	name = pip.Normalise(name)
	for _, list := range [][]pip.Line{r.inputs.Lines, r.inputs.Constraints, r.inputs.Locked} {
		for _, l := range list {
			if l.Name == name {
				return l
			}
		}
	}
	return pip.Line{}
}
