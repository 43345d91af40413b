package image

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/image/problem"
	"github.com/repromill/repromill/runner/pip"
)

// compiled are packages that take minutes to build and that others bring in:
// they are looked at also where no file lists them.
var compiled = []string{"numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "pillow", "pyyaml", "lxml", "h5py", "cython", "numba", "llvmlite", "grpcio", "tokenizers", "sentencepiece", "pyarrow", "aiohttp", "cffi", "contourpy", "kiwisolver", "regex", "safetensors", "torch", "opencv-python", "statsmodels", "scikit-image", "pywavelets", "shapely", "psutil", "wrapt", "markupsafe", "multidict", "yarl", "frozenlist"}

// bridge prepares for a Python that is newer than the code: pins and versions of
// the time that have builds, but none for it, are moved before anything is
// tried, since building them from source takes long and mostly fails.
func (j *job) bridge(ctx context.Context) error {
	if j.st.from == fromConda {
		return nil // its channels have what the code was written for
	}
	env := &j.r.req.Environment
	newer := env.Python.Version != "" && !slices.Contains(j.r.pythons, j.st.python)
	if t := env.ExcludeNewer; t != nil {
		newer = newer || pythonReleased(j.st.python).AddDate(0, -3, 0).After(*t)
	}
	if !newer || !j.st.once("bridge "+j.st.python) {
		return nil
	}
	if err := j.sweep(ctx); err != nil {
		return err
	}
	if env.ExcludeNewer == nil || j.st.unbounded {
		return nil
	}
	names := slices.Clone(compiled)
	for _, l := range j.r.inputs.Lines {
		if _, _, pinned := pip.Pin(l.Text); l.Name != "" && !pinned {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	all, err := j.releasesOf(ctx, slices.Compact(names))
	if err != nil {
		return err
	}
	for name, list := range all {
		if until, ok := firstBuild(list, j.st.python, *env.ExcludeNewer); ok {
			j.st.later[name] = until
		}
	}
	return nil
}

func pythonReleased(version string) time.Time {
	minor, _ := strconv.Atoi(strings.TrimPrefix(version, "3."))
	for _, r := range released {
		if r.minor == minor {
			return time.Date(r.year, time.Month(r.month), 1, 0, 0, 0, 0, time.UTC)
		}
	}
	return time.Time{}
}

// firstBuild is the time of the first release with a wheel for a Python, when
// all until the bound have wheels, but none for it.
func firstBuild(list []pip.Release, python string, bound time.Time) (until time.Time, ok bool) {
	wheels := false
	for _, r := range list {
		if r.Version.Pre() || r.Yanked {
			continue
		}
		for i, w := range r.Wheels {
			one := pip.Release{Version: r.Version, Python: r.Python, Wheels: []string{w}}
			switch at := r.Times[i]; {
			case at.IsZero():
			case !at.After(bound):
				if usable(one, python, true) {
					return time.Time{}, false
				}
				wheels = true
			case usable(one, python, true) && (until.IsZero() || at.Before(until)):
				until = at
			}
		}
	}
	return until.Add(time.Minute), wheels && !until.IsZero()
}

// bridged are the deviations of the later dates that came to something.
func (j *job) bridged(lock string) (out []spec.Deviation) {
	bound := j.r.req.Environment.ExcludeNewer
	for l := range strings.Lines(lock) {
		name, rest, ok := strings.Cut(strings.TrimSpace(l), "==")
		if until, late := j.st.later[name]; ok && late && !j.st.unbounded {
			version, _, _ := strings.Cut(rest, " ")
			out = append(out, spec.Deviation{What: name, Declared: "none newer than " + bound.UTC().Format(time.DateOnly), Used: version,
				Reason: "no version of that time has a build for Python " + j.st.python + "; the first that has is of " + until.UTC().Format(time.DateOnly)})
		}
	}
	return out
}

// builtElsewhere moves a pin, or Python, for a package whose build lacks
// something although most people never build it: it has wheels, but none here.
func (j *job) builtElsewhere(ctx context.Context, p *problem.Problem) (bool, error) {
	l := j.r.declared(p.Package)
	_, version, ok := pip.Pin(or(j.st.edited[l.Name], l.Text))
	if !ok || l.Name == "" {
		return false, nil
	}
	list, err := j.releases(ctx, l.Name)
	if err != nil {
		return false, err
	}
	v, _ := pip.ParseVersion(version)
	if r := find(list, v); r == nil || len(r.Wheels) == 0 || usable(*r, j.st.python, true) {
		return false, nil
	}
	return j.noBuild(ctx, l.Name, "it has no build for Python "+j.st.python)
}

// releasesOf lists the releases of many packages; what cannot be listed is
// left out.
func (j *job) releasesOf(ctx context.Context, names []string) (map[string][]pip.Release, error) {
	index, _, _, _ := j.b.indexes(j.r, j.st)
	out := map[string][]pip.Release{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, name := range names {
		g.Go(func() error {
			if list, err := pip.Releases(gctx, j.b.cfg.HTTP, index, name); err == nil {
				mu.Lock()
				out[name] = list
				mu.Unlock()
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	return out, nil
}

// sweep moves every pin that has builds, but none for this Python: a frozen
// list has many of them, and finding them one by one would take a try each.
func (j *job) sweep(ctx context.Context) error {
	if !j.st.once("sweep " + j.st.python) {
		return nil
	}
	var pins []pip.Line
	var names []string
	for _, l := range append(slices.Clone(j.r.inputs.Lines), j.r.inputs.Locked...) {
		if _, _, ok := pip.Pin(l.Text); ok && j.st.edited[l.Name] == "" {
			pins, names = append(pins, l), append(names, l.Name)
		}
	}
	all, err := j.releasesOf(ctx, slices.Compact(slices.Sorted(slices.Values(names))))
	if err != nil {
		return err
	}
	for _, l := range pins {
		_, version, _ := pip.Pin(l.Text)
		v, ok := pip.ParseVersion(version)
		list := all[l.Name]
		if r := find(list, v); !ok || r == nil || len(r.Wheels) == 0 || usable(*r, j.st.python, true) {
			continue
		}
		if next := j.nearest(list, v, l.Name, nil); next != nil && len(next.Wheels) > 0 {
			j.st.edited[l.Name] = strings.Replace(l.Text, version, next.Version.Text, 1)
			j.st.deviate(l.Name, l.Text+" ("+l.Where()+")", next.Version.Text, "it has no build for Python "+j.st.python)
		}
	}
	return nil
}
