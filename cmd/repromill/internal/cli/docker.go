package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/docker"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image"
	"github.com/repromill/repromill/runner/pip"
)

// connectDocker opens the engine that the environment names.
func (a *app) connectDocker(ctx context.Context) (*engine.Engine, error) {
	return engine.Open(ctx, engine.Config{Getenv: a.getenv})
}

// dockerExecutor is the executor of containers. It needs no engine before the
// first attempt does.
func (a *app) dockerExecutor(state string, private []string, hook func(string)) (*docker.Executor, error) {
	program, err := self(containerEntry)
	if err != nil {
		return nil, err
	}
	way, err := self(proxyEntry)
	if err != nil {
		return nil, err
	}
	return docker.New(docker.Config{
		Dir: filepath.Join(state, "containers"), Connect: a.connectDocker, Program: program[0], ProgramArgs: program[1:],
		Proxy: way, AllowPrivate: private, Now: a.now, Hook: hook,
	})
}

// chooseExecutor settles where a new run is executed, says so, and refuses
// what cannot be before anything is made.
func (a *app) chooseExecutor(ctx context.Context, f *runFlags) error {
	if f.executor == "auto" {
		f.executor = a.cfg.String("executor")
	}
	if kind, _, _ := strings.Cut(f.executor, ":"); !slices.Contains([]string{"auto", "local", "docker", "kueue"}, kind) {
		return usererrf("use auto, local, docker or kueue", "there is no executor %q", f.executor)
	}
	asked, why := f.executor, ""
	if asked == "auto" {
		f.executor, why = a.autoExecutor(ctx, f)
	}
	switch {
	case f.executor == "docker" && f.noSandbox:
		return usererrf("leave --no-sandbox out, or use --executor local", "containers always isolate")
	case f.executor != "docker" && f.image != "":
		return usererrf("add --executor docker", "--image is for containers, and this run is executed by %s%s", f.executor, because(why))
	}
	if asked == "docker" {
		eng, err := a.connectDocker(ctx)
		if err != nil {
			return err
		}
		return eng.Close()
	}
	if why != "" {
		a.ui().note("executor " + f.executor + because(why))
	}
	return nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ", since " + why
}

// autoExecutor takes containers where an engine answers.
func (a *app) autoExecutor(ctx context.Context, f *runFlags) (name, why string) {
	switch {
	case f.noSandbox:
		return "local", "--no-sandbox was given"
	case a.cfg.String("mirror") != "" && f.image == "":
		return "local", "with a mirror nothing may be fetched to build an image from"
	}
	eng, err := a.connectDocker(ctx)
	var none *engine.UnavailableError
	switch {
	case errors.As(err, &none):
		return "local", fmt.Sprintf("no Docker engine answers at %s (%s)", none.Host, none.Why)
	case err != nil:
		return "local", "Docker's engine cannot be used: " + err.Error()
	}
	defer eng.Close()
	info, err := eng.Info(ctx)
	if err != nil {
		return "local", "Docker's engine does not say what it is: " + err.Error()
	}
	if !eng.Local() {
		return "local", "the Docker engine at " + eng.Host() + " does not see this machine's files"
	}
	return "docker", "Docker " + info.ServerVersion + " answers at " + eng.Host()
}

// envRepository names the environment images in the engine; the tag is the key.
const envRepository = "repromill/env"

// images makes the images of environments; see runner.Images.
type images struct{ a *app }

// Image makes the image of a plan's environment, or takes the one that the
// user named.
func (m images) Image(ctx context.Context, req runner.ImageRequest) (runner.Image, error) {
	eng, err := m.a.connectDocker(ctx)
	if err != nil {
		return runner.Image{}, err
	}
	defer eng.Close()
	if req.Given != "" {
		return m.given(ctx, eng, req)
	}
	b, err := m.a.imageBuilder(eng, func(e image.Event) { req.Progress(e.Stage + ": " + e.Text) })
	if err != nil {
		return runner.Image{}, err
	}
	env, err := b.Environment(ctx, image.EnvRequest{Environment: req.Plan.Environment, Source: req.Source, SKU: imageSKU(req.Plan), Pins: pip.Pins(req.Lock)})
	if err != nil {
		return runner.Image{}, err
	}
	out := runner.Image{
		Key: env.Key, Base: env.Base, Python: env.Python, Lock: env.Lock, Reused: env.Reused, Log: env.Log,
		Deviations: env.Deviations, Source: image.SourcePath, Overlay: env.Overlay,
	}
	if env.Failure != nil {
		out.Failure = env.Failure.String()
		return out, nil
	}
	out.Digest = env.Digest.String()
	name, err := b.Load(ctx, env.Image, envRepository+":"+env.Key)
	if err != nil {
		return out, err
	}
	// The name may be moved, the id not.
	img, err := eng.InspectImage(ctx, name)
	out.Ref = img.ID
	return out, err
}

// imageSKU is the GPU that an environment is made for: the one that the plan
// names, and none where no selected run needs one.
func imageSKU(p *spec.Plan) string {
	if p.Environment.SKU != "" {
		return p.Environment.SKU
	}
	for _, r := range p.Runs {
		if r.Selected && r.GPUs.Min > 0 {
			for _, sku := range slices.Sorted(maps.Keys(p.Environment.SKUs)) {
				return sku
			}
		}
	}
	return ""
}

// imageBuilder makes images as the configuration says. Without an engine it
// finds, appends and pushes.
func (a *app) imageBuilder(eng *engine.Engine, progress func(image.Event)) (*image.Builder, error) {
	list := func(setting string) []string { // an empty one means the default
		if l := a.cfg.List(setting); len(l) > 0 {
			return l
		}
		return nil
	}
	program, err := self(containerEntry)
	if err != nil {
		return nil, err
	}
	return image.New(image.Config{
		Program: program[0], ProgramArgs: program[1:],
		Dir: a.imageDir(), Engine: eng, Repository: a.cfg.String("registry"),
		Bases: list("images.bases"), Interpreters: list("images.interpreters"),
		UV: a.cfg.String("images.uv"), Micromamba: a.cfg.String("images.micromamba"),
		Index: image.Index{
			URL: a.cfg.String("indexes.url"), Hosts: a.cfg.List("indexes.hosts"), Extra: a.cfg.List("indexes.extra"), CABundle: a.cfg.String("indexes.ca_bundle"),
			Proxy:   firstOf(a.env["HTTPS_PROXY"], a.env["https_proxy"], a.env["HTTP_PROXY"], a.env["http_proxy"]),
			NoProxy: firstOf(a.env["NO_PROXY"], a.env["no_proxy"]),
			Torch:   a.cfg.String("indexes.torch"), Python: a.cfg.String("indexes.python"), Debian: a.cfg.String("indexes.debian"), Conda: a.cfg.String("indexes.conda"),
		},
		Now: a.now, Hook: a.failpoint(), Progress: progress,
	})
}

// imageDir holds what image builds keep.
func (a *app) imageDir() string { return filepath.Join(a.cfg.String("paths.cache"), "images") }

// given is an image that is taken as it is.
func (m images) given(ctx context.Context, eng *engine.Engine, req runner.ImageRequest) (runner.Image, error) {
	img, err := eng.InspectImage(ctx, req.Given)
	if errors.Is(err, engine.ErrNotFound) {
		req.Progress("pulling " + req.Given)
		if err = eng.Pull(ctx, req.Given, engine.Auth{}, nil); err == nil {
			img, err = eng.InspectImage(ctx, req.Given)
		}
	}
	if err != nil {
		return runner.Image{}, err
	}
	out := runner.Image{Ref: img.ID, Key: img.ID, Digest: img.ID, Base: req.Given, Reused: true}
	if len(img.Digests) > 0 {
		out.Base = img.Digests[0]
	}
	out.Deviations = []spec.Deviation{{What: "environment", Declared: declared(req.Plan), Used: "image " + out.Base, Reason: "given with --image; nothing was installed"}}
	return out, nil
}

func declared(p *spec.Plan) string {
	n := len(p.Environment.Requirements)
	if n == 0 {
		return "no package"
	}
	return fmt.Sprintf("%d requirements", n)
}
