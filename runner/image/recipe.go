package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/image/tool"
	"github.com/repromill/repromill/runner/pip"
)

// recipe is everything that decides an environment.
type recipe struct {
	key    string
	req    EnvRequest
	base   *base
	inputs *pip.Inputs
	devs   []spec.Deviation // known before anything is built

	pythons   []string // acceptable versions, best first
	overrides []string // the floors of the GPU's framework, "torch==2.7.1"
	backend   string   // PyTorch's builds: "cu128", "cpu", or empty for those of the index
	system    []string // Debian packages, sorted
}

// keyed is the part of a recipe whose digest is the key.
type keyed struct {
	Builder     int
	UV          string
	Base        string
	Python      string // as declared, since a deviation names it
	Pythons     []string
	Interpreter []string
	Lines       []string
	Constraints []string
	Locked      []string
	Projects    map[string]string
	Pre         bool
	System      []string
	Compile     bool
	Newest      string
	Overrides   []string
	Backend     string
	Indexes     []spec.Index
	Conda       []string `json:",omitempty"` // the tool, the channels and their specifications
}

var (
	packageRE = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,100}(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+)?$`)
	releaseRE = regexp.MustCompile(`^\d+(\.\d+)*(\+cu\d+)?$`)
)

// recipe reads what decides the environment. A plan that cannot be built is a
// Failure.
func (b *Builder) recipe(ctx context.Context, req EnvRequest) (*recipe, *Failure, error) {
	root, err := os.OpenRoot(req.Source)
	if err != nil {
		return nil, nil, fmt.Errorf("open checkout: %w", err)
	}
	defer root.Close()
	env := &req.Environment
	r := &recipe{req: req, pythons: pythonOrder(env.Python.Version, env.ExcludeNewer)}
	r.inputs, err = pip.Read(root.FS(), *env)
	var bad *pip.UnreadableError
	if errors.As(err, &bad) {
		return nil, &Failure{Where: bad.File, Reason: bad.Why}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read requirements: %w", err)
	}
	for _, pin := range req.Pins {
		name, _, _ := strings.Cut(pin, "==")
		r.inputs.Constraints = append(r.inputs.Constraints, pip.Line{Text: pin, Name: pip.Normalise(name)})
	}
	r.devs = slices.Clone(r.inputs.Deviations)
	for _, p := range env.SystemPackages {
		if !packageRE.MatchString(p) {
			return nil, &Failure{Package: p, Reason: "this is no name of a system package"}, nil
		}
		r.system = append(r.system, p)
	}
	slices.Sort(r.system)
	r.system = slices.Compact(r.system)
	r.floors()
	var devs []spec.Deviation
	candidates := append(slices.Clone(r.pythons), pythonOrder("", env.ExcludeNewer)...) // any base is better than none
	if r.inputs.Conda != nil {
		candidates = pythonOrder("", nil) // of which the conda tool needs a new one
	}
	if r.base, devs, err = b.findBase(ctx, &r.req, candidates); err != nil {
		return nil, nil, err
	}
	r.devs = append(r.devs, devs...)
	return r, nil, b.seal(r)
}

func where(ev []spec.Evidence) string {
	if len(ev) == 0 || ev[0].File == "" {
		return ""
	}
	if ev[0].Line == 0 {
		return ev[0].File
	}
	return fmt.Sprintf("%s:%d", ev[0].File, ev[0].Line)
}

// floors takes over what the plan says must move for the GPU.
func (r *recipe) floors() {
	fit, ok := r.req.Environment.SKUs[r.req.SKU]
	if !ok {
		return
	}
	r.devs = append(r.devs, fit.Deviations...)
	for _, d := range fit.Deviations {
		switch {
		case d.What == "CUDA":
			r.backend = "cu" + strings.ReplaceAll(d.Used, ".", "")
		case d.What == "Python":
			r.pythons = pythonOrder(d.Used, nil)
		case releaseRE.MatchString(d.Used):
			version, cuda, _ := strings.Cut(d.Used, "+")
			if cuda != "" {
				r.backend = cuda
			}
			r.overrides = append(r.overrides, pip.Normalise(d.What)+"=="+version)
		}
	}
}

// seal computes the key.
func (b *Builder) seal(r *recipe) error {
	env := &r.req.Environment
	k := keyed{
		Builder: builderVersion, UV: tool.UVVersion, Base: r.base.digest(), Python: env.Python.Version, Pythons: r.pythons, Interpreter: b.cfg.Interpreters, Pre: r.inputs.Pre, Projects: r.inputs.Files,
		System: r.system, Compile: env.NeedsCompile, Overrides: r.overrides, Backend: r.backend, Indexes: slices.Clone(env.Indexes),
	}
	for i := range k.Indexes {
		k.Indexes[i].Evidence = nil // where it stands changes nothing
	}
	texts := func(lines []pip.Line) (out []string) {
		for _, l := range lines {
			s := l.Text
			if l.Edit {
				s = "-e " + s
			}
			out = append(out, s)
		}
		return out
	}
	k.Lines, k.Constraints, k.Locked = texts(r.inputs.Lines), texts(r.inputs.Constraints), texts(r.inputs.Locked)
	if c := r.inputs.Conda; c != nil {
		k.Conda = append([]string{or(b.cfg.Micromamba, condaTool)}, c.Channels...)
		k.Conda = append(append(k.Conda, ""), texts(c.Specs)...)
	}
	if env.ExcludeNewer != nil {
		k.Newest = env.ExcludeNewer.UTC().Format("2006-01-02T15:04:05Z")
	}
	body, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("compute key: %w", err)
	}
	sum := sha256.Sum256(body)
	r.key = hex.EncodeToString(sum[:])
	return nil
}
