package recipe

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// GPU is one model of GPU that an environment is judged for.
type GPU struct {
	ID         string // of the catalogue
	Capability int    // 90 for compute capability 9.0
}

// GPUs are the models that are judged when the caller names none: the
// data-centre and workstation parts of Hopper and Blackwell.
func GPUs() []GPU {
	return []GPU{
		{"h100", 90}, {"h100-pcie", 90}, {"h100-nvl", 90}, {"h200", 90}, {"h200-nvl", 90}, {"h20", 90}, {"gh200", 90},
		{"b200", 100}, {"gb200", 100}, {"b300", 103}, {"gb300", 103}, {"rtx-pro-6000", 120}, {"rtx-5090", 120},
	}
}

//go:embed fit.json
var fitJSON []byte

// fitTable is the embedded knowledge of which build runs where; every part
// names its source.
type fitTable struct {
	Torch, TensorFlow, JAX *framework
	Images                 struct {
		Source string
		Tags   map[string]string
	}
	Companions []struct {
		Package, Below, Status, Used, Reason, Source string
		Capability                                   int
	}
	Extras []struct {
		Match, Used, Reason, Source string
		Capability                  int
	}
}

type framework struct {
	Source string
	Builds []build
	Floors []floor
}

// build is a set of releases with the CUDA versions they are built for, the
// one of the package index, and the first and last Python.
type build struct {
	Versions []string
	CUDA     []string
	Default  string
	Python   [2]string
}

// floor is the first release with kernels for a compute capability.
type floor struct {
	Capability    int
	Version, CUDA string
	Used          string // the release that is taken instead of an older one
	Sure          string // from here on known to work; before it unknown. Empty: Version
	Released      string
	Source        string
}

func readFit() (*fitTable, error) {
	t := &fitTable{}
	if err := json.Unmarshal(fitJSON, t); err != nil {
		return nil, fmt.Errorf("read the table of builds: %w", err)
	}
	return t, nil
}

// Fit judges the environment for each GPU: whether what is declared has
// kernels for it, and what would have to be used instead.
func Fit(f *inspect.Facts, env *Environment, c *Command, run *spec.Run, gpus []GPU, commitDate *time.Time) (map[string]spec.SKUFit, error) {
	t, err := readFit()
	if err != nil {
		return nil, err
	}
	j := &fitter{t: t, env: env, cpu: cpuSized(c, run), date: commitDate, entries: env.declared(f), needsGPU: run != nil && run.GPUs.Min > 0}
	j.sized = modelSizeRE.MatchString(strings.Join(c.Args, " "))
	out := make(map[string]spec.SKUFit, len(gpus))
	for _, g := range gpus {
		out[g.ID] = j.judge(g)
	}
	return out, nil
}

// declared are the packages of the sources that are used, by name.
func (env *Environment) declared(f *inspect.Facts) map[string]inspect.Entry {
	out := map[string]inspect.Entry{}
	for _, role := range []string{"primary", "also"} {
		for _, s := range env.DependencySources {
			if s.Role != role {
				continue
			}
			for _, d := range f.Closure(s.Path) {
				for _, x := range d.Entries {
					if old, ok := out[x.Name]; !ok || x.Pinned && !old.Pinned {
						out[x.Name] = x
					}
				}
			}
		}
	}
	return out
}

var (
	classicRE   = regexp.MustCompile(`(?i)\b(?:CartPole|Acrobot|MountainCar|Pendulum|FrozenLake|CliffWalking|Taxi|Blackjack)(?:-v\d)?\b`)
	modelSizeRE = regexp.MustCompile(`(?i)(?:^|[^a-z])(?:bert|base|large|xl|xxl|huge|giant|\d+[mb])(?:[^a-z]|$)`)
	versionRE   = regexp.MustCompile(`\d+(?:\.\d+)+`)
)

// cpuSized says that the run is known not to need a GPU: it asks for the CPU,
// or works on a classic control task.
func cpuSized(c *Command, run *spec.Run) bool {
	if run == nil || run.GPUs.Min > 0 {
		return false
	}
	return onCPU(c) || classicRE.MatchString(strings.Join(c.Args, " "))
}

type fitter struct {
	t        *fitTable
	env      *Environment
	entries  map[string]inspect.Entry
	cpu      bool
	needsGPU bool
	sized    bool // the command names a size of model that is too much for a CPU
	date     *time.Time
}

func (j *fitter) judge(g GPU) spec.SKUFit {
	var fw *framework
	name := j.env.Framework.Name
	switch name {
	case "pytorch":
		fw, name = j.t.Torch, "torch"
	case "tensorflow":
		fw = j.t.TensorFlow
	case "jax":
		fw = j.t.JAX
	case "":
		if j.needsGPU || j.env.Manager == "unknown" {
			return spec.SKUFit{Status: "unknown"}
		}
		return spec.SKUFit{Status: "cpu_ok", BaseImage: j.cpuImage()}
	default:
		return spec.SKUFit{Status: "unknown"}
	}
	fit := j.framework(fw, name, g)
	j.companions(&fit, g)
	j.extras(&fit, name)
	if fit.Status == "needs_bump" && (j.cpu || name == "tensorflow" && !j.needsGPU && !j.sized && strings.HasPrefix(versionOf(j.env.Framework.Version), "1.")) {
		return spec.SKUFit{Status: "cpu_ok", BaseImage: j.cpuImage()}
	}
	return fit
}

func (j *fitter) floor(fw *framework, capability int) *floor {
	var best *floor
	for i := range fw.Floors {
		if f := &fw.Floors[i]; f.Capability <= capability && (best == nil || f.Capability > best.Capability) {
			best = f
		}
	}
	return best
}

// framework compares what is declared with the floor of the GPU.
func (j *fitter) framework(fw *framework, name string, g GPU) spec.SKUFit {
	fl := j.floor(fw, g.Capability)
	if fl == nil {
		return spec.SKUFit{Status: "unknown"}
	}
	declared := j.env.Framework.Version
	version, exact := fw.resolve(declared, j.pythons())
	b := fw.build(version)
	why := fmt.Sprintf("compute capability %d.%d needs %s %s or later built for CUDA %s or later (%s)", g.Capability/10, g.Capability%10, name, fl.Version, fl.CUDA, fl.Source)
	if b == nil && version != "" && less(version, fw.Builds[0].Versions[0]) {
		b = &fw.Builds[0]
	}
	switch {
	case version == "" || b == nil || less(version, fl.Version):
		return j.bump(fw, fl, name, declared, version, why)
	case fl.Sure == "never" || fl.Sure != "" && less(version, fl.Sure) && exact:
		return spec.SKUFit{Status: "unknown"}
	}
	cuda := localCUDA(declared)
	if cuda == "" && exact {
		cuda = j.env.CUDA.Version
	}
	if cuda == "" || !versionRE.MatchString(cuda) {
		cuda = b.Default
	}
	fit := spec.SKUFit{Status: "ok"}
	if less(cuda, fl.CUDA) {
		other := b.atLeast(fl.CUDA)
		if other == "" {
			return j.bump(fw, fl, name, declared, version, why)
		}
		if exact {
			fit.Status = "other_cuda_build"
			fit.Deviations = append(fit.Deviations, spec.Deviation{What: "CUDA", Declared: cuda, Used: other, Reason: why})
		}
		cuda = other
	}
	fit.BaseImage = j.image(cuda)
	if released, err := time.Parse("2006-01-02", fl.Released); err == nil && !exact && j.date != nil && j.date.Before(released) {
		fit.Deviations = append(fit.Deviations, spec.Deviation{What: name, Declared: "none newer than " + j.date.UTC().Format("2006-01-02"), Used: version,
			Reason: "the commit is older than the first release for this GPU, " + fl.Version + " of " + fl.Released})
	}
	return fit
}

// bump says what must move for the GPU: the framework, and Python where the
// newer framework has no build for it.
func (j *fitter) bump(fw *framework, fl *floor, name, declared, version, why string) spec.SKUFit {
	fit := spec.SKUFit{Status: "needs_bump"}
	if fl.Used == "" {
		fit.Deviations = append(fit.Deviations, spec.Deviation{What: name, Declared: or(declared, version), Used: "none", Reason: why})
		return fit
	}
	b := fw.build(fl.Used)
	if b == nil {
		return fit
	}
	cuda := b.atLeast(fl.CUDA)
	fit.BaseImage = j.image(cuda)
	if declared != "" || version != "" && less(version, fl.Version) {
		fit.Deviations = append(fit.Deviations, spec.Deviation{What: name, Declared: or(declared, version), Used: fl.Used + "+cu" + strings.ReplaceAll(cuda, ".", ""), Reason: why})
	}
	if py := j.env.Python.Version; len(j.within(b, j.pythons())) == 0 {
		fit.Deviations = append(fit.Deviations, spec.Deviation{What: "Python", Declared: py, Used: b.Python[0], Reason: name + " " + fl.Used + " has no build for it"})
	}
	return fit
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (j *fitter) companions(fit *spec.SKUFit, g GPU) {
	for _, c := range j.t.Companions {
		x, ok := j.entries[c.Package]
		v := x.VersionOf()
		if !ok || !x.Pinned || v == "" || g.Capability < c.Capability || !less(v, c.Below) {
			continue
		}
		switch {
		case c.Status == "unknown" && (fit.Status == "ok" || fit.Status == "other_cuda_build"):
			fit.Status = "unknown"
		case c.Status == "needs_bump":
			fit.Status = "needs_bump"
		}
		if c.Used != "" {
			fit.Deviations = append(fit.Deviations, spec.Deviation{What: c.Package, Declared: v, Used: c.Used, Reason: c.Reason + " (" + c.Source + ")"})
		}
	}
}

func (j *fitter) extras(fit *spec.SKUFit, name string) {
	x := strings.ReplaceAll(j.entries[name].Spec, " ", "")
	for _, e := range j.t.Extras {
		if strings.HasPrefix(x, e.Match) && !j.entries[name].Pinned {
			fit.Status = "needs_bump"
			fit.Deviations = append(fit.Deviations, spec.Deviation{What: name, Declared: x, Used: e.Used, Reason: e.Reason + " (" + e.Source + ")"})
			return
		}
	}
}

// image is the base image with a CUDA version: with the compiler where
// something must be compiled.
func (j *fitter) image(cuda string) string {
	tag := j.t.Images.Tags[cuda]
	if tag == "" {
		return ""
	}
	kind := "runtime"
	if j.env.NeedsCompile {
		kind = "devel"
	}
	return "docker.io/nvidia/cuda:" + fmt.Sprintf(tag, kind)
}

func (j *fitter) cpuImage() string {
	if p := j.pythons(); len(p) > 0 {
		return "docker.io/library/python:" + p[len(p)-1] + "-slim"
	}
	return ""
}

// minors are the Python versions that are considered, oldest first.
func minors() []string {
	out := []string{"2.7"}
	for i := 3; i <= 14; i++ {
		out = append(out, "3."+strconv.Itoa(i))
	}
	return out
}

// pythons are those that the declared version allows.
func (j *fitter) pythons() []string {
	var out []string
	for _, m := range minors() {
		if allows(j.env.Python.Version, m) {
			out = append(out, m)
		}
	}
	return out
}

func (j *fitter) within(b *build, pythons []string) []string {
	var out []string
	for _, p := range pythons {
		if !less(p, b.Python[0]) && !less(b.Python[1], p) {
			out = append(out, p)
		}
	}
	return out
}

// resolve is the release that a declaration leads to with one of the Pythons:
// the pin itself, or the newest that a range allows. exact says that it is
// pinned.
func (fw *framework) resolve(declared string, pythons []string) (version string, exact bool) {
	clean := strings.TrimSpace(strings.SplitN(declared, "+", 2)[0])
	if clean != "" && !strings.ContainsAny(clean, "<>~!*^,") {
		return versionOf(clean), true
	}
	for _, b := range slices.Backward(fw.Builds) {
		fits := len(pythons) == 0
		for _, p := range pythons {
			fits = fits || !less(p, b.Python[0]) && !less(b.Python[1], p)
		}
		if !fits {
			continue
		}
		for _, v := range slices.Backward(b.Versions) {
			if clean == "" || allows(clean, v) {
				return v, false
			}
		}
	}
	return "", false
}

// build is the row of a release: the one that lists it, or the newest that is
// not newer.
func (fw *framework) build(version string) *build {
	var best *build
	for i := range fw.Builds {
		if b := &fw.Builds[i]; !less(version, b.Versions[0]) {
			best = b
		}
	}
	return best
}

func (b *build) atLeast(cuda string) string {
	for _, c := range b.CUDA {
		if !less(c, cuda) {
			return c
		}
	}
	return ""
}

var cuRE = regexp.MustCompile(`\+cu(\d{2,3})\b`)

// localCUDA is the CUDA version of a local version label such as "+cu118".
func localCUDA(declared string) string {
	m := cuRE.FindStringSubmatch(declared)
	if m == nil {
		return ""
	}
	return m[1][:len(m[1])-1] + "." + m[1][len(m[1])-1:]
}

func versionOf(s string) string {
	if v := versionRE.FindString(s); v != "" {
		return v
	}
	return strings.Trim(s, "=v ")
}

// less compares dotted numbers; what is not a number counts as 0. A missing
// part is 0.
func less(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i])
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m < n
		}
	}
	return false
}

var clauseRE = regexp.MustCompile(`^(===?|>=|<=|~=|!=|<|>|=|\^|~)?\s*v?(\d[\d.]*?)(\.\*)?$`)

// allows says whether a version satisfies a list of clauses; a bare version
// means that release and its patches. What it cannot read it allows.
func allows(clauses, v string) bool {
	for _, c := range strings.Split(clauses, ",") {
		m := clauseRE.FindStringSubmatch(strings.TrimSpace(c))
		if m == nil {
			continue
		}
		op, want := m[1], strings.TrimSuffix(m[2], ".")
		// "3.9" as a candidate stands for all of 3.9.x
		short := cut(want, strings.Count(v, ".")+1)
		ok := true
		switch op {
		case "", "=", "==", "===":
			ok = v == short || strings.HasPrefix(v, want+".")
		case "!=":
			ok = v != want
		case ">=":
			ok = !less(v, short)
		case ">":
			ok = less(short, v) || short != want
		case "<=":
			ok = !less(want, v)
		case "<":
			ok = less(v, want)
		case "~=", "~", "^":
			ok = !less(v, short) && strings.HasPrefix(v+".", cut(want, max(1, strings.Count(want, ".")))+".")
		}
		if !ok {
			return false
		}
	}
	return true
}

// cut keeps the first n parts of a version.
func cut(v string, n int) string {
	p := strings.Split(v, ".")
	return strings.Join(p[:min(n, len(p))], ".")
}
