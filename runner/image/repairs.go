package image

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/repromill/repromill/runner/image/problem"
	"github.com/repromill/repromill/runner/pip"
)

// repair changes what is tried next, so that the first of the problems that
// can be mended is. Every change is a deviation; none touches the checkout.
func (j *job) repair(ctx context.Context, text string) (bool, error) {
	for _, p := range problem.Parse(text) {
		fixed, err := j.mend(ctx, &p)
		if fixed || err != nil {
			return fixed, err
		}
	}
	return false, nil
}

func (j *job) mend(ctx context.Context, p *problem.Problem) (bool, error) {
	switch p.Kind {
	case problem.DiskFull:
		return false, fmt.Errorf("install packages: %s: %w", p.Text, unix.ENOSPC)
	case problem.NoInterpreter:
		return j.nextInterpreter(), nil
	case problem.NoDates:
		return j.undated(p), nil
	case problem.TooNew:
		return j.tooNew(p), nil
	case problem.Unreachable:
		return j.unreachable(p)
	case problem.NoPackage:
		return j.noPackage(p), nil
	case problem.Replaced:
		return j.replace(p.Package, p.Name, "the name is withdrawn: "+p.Text), nil
	case problem.Conflict:
		return j.movePin(ctx, p.Package, p.Needs, fmt.Sprintf("%s needs %s", p.By, strings.Join(p.Needs, " or ")))
	case problem.NoVersion:
		return j.noVersion(ctx, p)
	case problem.NoWheel, problem.RequiresPython:
		return j.noBuild(ctx, p.Package, p.Text)
	case problem.Program, problem.Header, problem.Library, problem.PkgConfig, problem.Module:
		if fixed, err := j.builtElsewhere(ctx, p); fixed || err != nil {
			return fixed, err
		}
		if p.Kind == problem.Module {
			return j.missingModule(p), nil
		}
		return j.missingSystem(p), nil
	case problem.OldTools, problem.Build:
		return j.cannotBuild(ctx, p)
	}
	return false, nil
}

// tooNew lets a package be newer than the date that bounds the others, when
// its version is declared or is the floor of a GPU.
func (j *job) tooNew(p *problem.Problem) bool {
	if !j.st.once("late " + p.Package) {
		return false
	}
	j.st.late = append(j.st.late, p.Package)
	j.st.deviate(p.Package, "none newer than "+j.r.req.Environment.ExcludeNewer.UTC().Format(time.DateOnly), or(p.Version, "newer"),
		"no version of that time satisfies what is declared")
	return true
}

// unreachable drops an index that only the plan names. That the site's own
// index does not answer is nothing to repair.
func (j *job) unreachable(p *problem.Problem) (bool, error) {
	for _, x := range j.r.req.Environment.Indexes {
		if u, err := url.Parse(x.URL); err == nil && u.Hostname() == p.Name && j.st.once("drop "+u.Host) {
			j.st.dropped[u.Host] = true
			j.st.deviate("package index", x.URL, "none", "it cannot be reached")
			return true, nil
		}
	}
	if j.r.backend != "" && !j.st.plainTorch && strings.HasSuffix(p.Name, "pytorch.org") {
		j.st.plainTorch = true
		j.st.deviate("torch build", j.r.backend, "that of the package index", p.Name+" cannot be reached")
		return true, nil
	}
	index, _, _, _ := j.b.indexes(j.r, j.st)
	if p.Name != index.Hostname() {
		return false, nil
	}
	return false, &UserError{fmt.Sprintf("the package index %s cannot be reached", index.Redacted()),
		"check the network; a site sets indexes.url, indexes.ca_bundle and indexes.proxy (HTTPS_PROXY)"}
}

// otherDistributions are names under which packages are listed that no index
// has under that name. An empty name is left out: `pip freeze` on Ubuntu lists
// what its own packages brought, and conda environments list libraries.
var otherDistributions = map[string]string{
	"pkg-resources": "", "distro-info": "", "python-apt": "", "ubuntu-drivers-common": "", "unattended-upgrades": "", "ufw": "", "command-not-found": "", "language-selector": "", "apt-clone": "", "cudatoolkit": "", "mkl": "", "blas": "", "anaconda": "", "libgcc-ng": "", "ca-certificates": "", "cudnn": "",
	"pytorch": "torch", "opencv": "opencv-python", "sklearn": "scikit-learn", "skimage": "scikit-image", "cv2": "opencv-python", "yaml": "pyyaml", "pil": "pillow", "attr": "attrs", "tensorboard-pytorch": "tensorboard", "faiss": "faiss-cpu", "py-opencv": "opencv-python", "bs4": "beautifulsoup4",
}

func (j *job) noPackage(p *problem.Problem) bool {
	other, ok := otherDistributions[p.Package]
	if j.r.declared(p.Package).Conda {
		ok = true // a library of the system, or a package that only conda has
	}
	return ok && j.replace(p.Package, other, "no index has a package of that name")
}

// replace installs another distribution for a name, in any version.
func (j *job) replace(name, other, why string) bool {
	l := j.r.declared(name)
	if l.Name == "" || !j.st.once("replace "+name) {
		return false
	}
	j.st.edited[l.Name] = other
	j.st.deviate(name, l.Text+" ("+l.Where()+")", or(other, "none"), why)
	return true
}

// noVersion moves a pin that no index has; a build label is what goes first.
func (j *job) noVersion(ctx context.Context, p *problem.Problem) (bool, error) {
	l := j.r.declared(p.Package)
	_, version, ok := pip.Pin(l.Text)
	if plain, label, has := strings.Cut(version, "+"); ok && has && j.st.once("label "+l.Name) {
		j.st.edited[l.Name] = strings.Replace(l.Text, version, plain, 1)
		j.st.deviate(l.Name, version+" ("+l.Where()+")", plain, "the index has no build labelled "+label)
		return true, nil
	}
	if l.Name == "" {
		return false, nil
	}
	return j.movePin(ctx, p.Package, nil, or(p.Text, "the index has no such version"))
}

// noBuild is for a version that has no build for this Python: another Python
// for which it has one comes before another version.
func (j *job) noBuild(ctx context.Context, name, why string) (bool, error) {
	l := j.r.declared(name)
	_, version, ok := pip.Pin(or(j.st.edited[l.Name], l.Text))
	if !ok {
		return false, nil
	}
	list, err := j.releases(ctx, l.Name)
	if err != nil || list == nil {
		return false, err
	}
	v, _ := pip.ParseVersion(version)
	for i, o := range j.st.others {
		r := find(list, v)
		if r == nil || !usable(*r, o.version, len(r.Wheels) > 0) || !j.st.once("python "+o.version+" "+o.from) {
			continue
		}
		declared := or(j.r.req.Environment.Python.Version, "not stated")
		j.st.others = slices.Delete(j.st.others, i, i+1)
		was := j.st.python
		j.st.python, j.st.from = o.version, o.from
		j.st.deviate("python", declared, o.version, fmt.Sprintf("%s (%s) has no build for Python %s", l.Text, l.Where(), was))
		return true, nil
	}
	moved, err := j.movePin(ctx, name, nil, why)
	if moved && err == nil {
		err = j.sweep(ctx)
	}
	return moved, err
}

func find(list []pip.Release, v pip.Version) *pip.Release {
	for i := range list {
		if list[i].Version.Compare(v) == 0 {
			return &list[i]
		}
	}
	return nil
}

// usable says whether a release can be installed on a Python such as "3.11";
// wheel asks for one that needs no compiling.
func usable(r pip.Release, python string, wheel bool) bool {
	minor, err := strconv.Atoi(strings.TrimPrefix(python, "3."))
	if err != nil {
		return false
	}
	if v, ok := pip.ParseVersion(python + ".99"); ok && r.Python != "" {
		if allowed, known := pip.Allows(r.Python, v); known && !allowed {
			return false
		}
	}
	for _, w := range r.Wheels {
		if pip.Runs(w, minor, "x86_64") {
			return true
		}
	}
	return !wheel && r.Sdist
}

// releases lists what the index has; nil when it cannot be asked, since then a
// repair is merely not known.
func (j *job) releases(ctx context.Context, name string) ([]pip.Release, error) {
	index, _, _, _ := j.b.indexes(j.r, j.st)
	list, err := pip.Releases(ctx, j.b.cfg.HTTP, index, name)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && !errors.Is(err, pip.ErrNoProject) {
		fmt.Fprintf(j.log, "::repromill:: %v\n", err)
	}
	return list, nil
}

// movePin moves a fixed version by the least amount: to the release nearest to
// it that satisfies one of needs and can be installed on this Python.
func (j *job) movePin(ctx context.Context, name string, needs []string, why string) (bool, error) {
	l := j.r.declared(name)
	if l.Name == "" {
		return false, nil
	}
	text := or(j.st.edited[l.Name], l.Text)
	_, version, ok := pip.Pin(text)
	if !ok {
		return false, nil
	}
	v, ok := pip.ParseVersion(version)
	if !ok {
		return false, nil
	}
	list, err := j.releases(ctx, l.Name)
	if err != nil {
		return false, err
	}
	next := j.nearest(list, v, l.Name, needs)
	if next == nil {
		return false, nil
	}
	j.st.edited[l.Name] = strings.Replace(text, version, next.Version.Text, 1)
	j.st.deviate(l.Name, l.Text+" ("+l.Where()+")", next.Version.Text, why)
	return true, nil
}

// until leaves out the wheels of a release that came after a date: builds for
// a new Python are often added later.
func until(r pip.Release, newest *time.Time) pip.Release {
	if newest == nil {
		return r
	}
	var keep []string
	for i, w := range r.Wheels {
		if !r.Times[i].After(*newest) {
			keep = append(keep, w)
		}
	}
	r.Wheels = keep
	return r
}

func (j *job) nearest(list []pip.Release, v pip.Version, name string, needs []string) *pip.Release {
	var newest *time.Time
	if !j.st.unbounded && !slices.Contains(j.st.late, name) {
		newest = j.r.req.Environment.ExcludeNewer
	}
	// A wheel of the time, else a later wheel, else something to build.
	for _, try := range []struct {
		wheel bool
		bound *time.Time
	}{{true, newest}, {true, nil}, {false, newest}} {
		for _, r := range pip.Nearest(list, v, try.bound) {
			fits := len(needs) == 0
			for _, n := range needs {
				if ok, known := pip.Allows(n, r.Version); ok && known {
					fits = true
				}
			}
			if fits && r.Version.Compare(v) != 0 && usable(until(r, try.bound), j.st.python, try.wheel) && j.st.once(name+"=="+r.Version.Text) {
				if newest != nil && try.bound == nil {
					j.st.late = append(j.st.late, name)
				}
				return &r
			}
		}
	}
	return nil
}
