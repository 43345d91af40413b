package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/cache"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image"
)

func (a *app) imageCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build, list and remove the images that plans run in",
		Long: `An environment is built once for the same inputs and found again by its key, here
or in the repository that the setting registry names. The checkout is a layer of
its own, so that a new commit costs seconds.

Indexes, proxies and certificates of a site (indexes.*, HTTPS_PROXY) are used
while building and never become part of an image.`,
	}
	cmd.AddCommand(a.imageBuildCmd(), a.imageListCmd(), a.imagePruneCmd(), a.imageSelfCmd())
	return cmd
}

// imageFlags say what becomes of a built image.
type imageFlags struct {
	plan, source, sku, base, layout string
	push, load                      bool
}

func (a *app) imageBuildCmd() *cobra.Command {
	var f imageFlags
	cmd := &cobra.Command{
		Use:   "build -f PLAN",
		Short: "Build the image of a plan: its environment and its checkout",
		Long: `Build the image of a plan, or find the environment that was built from the same
inputs. What does not install as written is repaired where that is possible, and
every change is printed as a deviation.`,
		Example: `  repromill plan 2604.08075 -o plan.json && repromill image build -f plan.json
  repromill image build -f plan.json --layout ./image       an OCI image layout, without any registry
  repromill image build -f plan.json --push                 to the repository of the setting registry`,
		Args: exactArgs(0, "no arguments; the plan is named with -f"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.imageBuild(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.plan, "file", "f", "", "the plan in `PLAN` (- is standard input)")
	fl.StringVar(&f.source, "source", "", "the checkout in `DIR` instead of the plan's repository")
	fl.StringVar(&f.sku, "sku", "", "for this `GPU` of the plan (default: the CPU, or the plan's first GPU where a run needs one)")
	fl.StringVar(&f.base, "base", "", "on this base `IMAGE` instead of the configured ones")
	fl.StringVar(&f.layout, "layout", "", "write an OCI image layout to `DIR`")
	fl.BoolVar(&f.push, "push", false, "push the image to the repository of the setting registry")
	fl.BoolVar(&f.load, "load", false, "load the image into Docker's engine")
	return cmd
}

// builtImage is what `image build --json` prints.
type builtImage struct {
	Key        string           `json:"key"`
	Digest     string           `json:"digest,omitempty"`
	Base       string           `json:"base"`
	Python     string           `json:"python,omitempty"`
	Reused     bool             `json:"reused"`
	Seconds    float64          `json:"seconds"`
	Lock       string           `json:"lock,omitempty"`
	Deviations []spec.Deviation `json:"deviations"`
	Pushed     string           `json:"pushed,omitempty"`
	Loaded     string           `json:"loaded,omitempty"`
	Layout     string           `json:"layout,omitempty"`
	Log        string           `json:"log,omitempty"`
	Failure    *image.Failure   `json:"failure,omitempty"`
}

func (a *app) imageBuild(ctx context.Context, f *imageFlags) error {
	if f.plan == "" {
		return usererrf("write one with `repromill plan TARGET -o plan.json` and name it with -f plan.json", "image build takes a plan")
	}
	if f.push && a.cfg.String("registry") == "" {
		return usererrf("set registry (REPROMILL_REGISTRY) to HOST/REPOSITORY", "there is no repository to push to")
	}
	p, err := a.readPlan(f.plan)
	if err != nil {
		return err
	}
	if f.sku == "" {
		f.sku = imageSKU(p)
	} else if _, ok := p.Environment.SKUs[f.sku]; !ok {
		return usererrf("name one of the plan's environment.skus, or leave --sku out", "the plan says nothing of the GPU %q", f.sku)
	}
	if f.source == "" {
		if p.Source.Repo == "" {
			return usererrf("name the code with --source DIR", "the plan has no code")
		}
		if f.source, err = outside(sync.OnceValues(a.pipeline)).Checkout(ctx, p.Source.Repo, p.Source.Commit, p.Source.Submodules); err != nil {
			return err
		}
	}
	ui := a.ui()
	defer ui.abandon()
	b, closeEngine, err := a.builder(ctx, ui)
	if err != nil {
		return err
	}
	defer closeEngine()
	start := a.now()
	out, err := a.imageMake(ctx, b, f, p)
	if err != nil {
		return err
	}
	out.Seconds = a.now().Sub(start).Seconds()
	ui.abandon()
	if a.jsonOut {
		err = a.printJSON(out)
	} else {
		a.printBuilt(out)
	}
	if err == nil && out.Failure != nil {
		err = &exitError{exitUser}
	}
	return err
}

// builder is one with the engine where one answers; without it, whatever needs
// no engine still works.
func (a *app) builder(ctx context.Context, ui *ui) (b *image.Builder, closeEngine func(), err error) {
	eng, err := a.connectDocker(ctx)
	var none *engine.UnavailableError
	if err != nil && !errors.As(err, &none) {
		return nil, nil, err
	}
	closeEngine = func() {}
	if eng != nil {
		closeEngine = func() { _ = eng.Close() }
	}
	b, err = a.imageBuilder(eng, func(e image.Event) {
		if e.Stage == "repair" {
			ui.note("repaired " + clean(e.Text))
			return
		}
		ui.progress(0, 0, "", strings.TrimSpace(e.Stage+" "+clean(e.Text)))
	})
	if err != nil {
		closeEngine()
	}
	return b, closeEngine, err
}

func (a *app) imageMake(ctx context.Context, b *image.Builder, f *imageFlags, p *spec.Plan) (*builtImage, error) {
	env, err := b.Environment(ctx, image.EnvRequest{Environment: p.Environment, Source: f.source, SKU: f.sku, Base: f.base})
	if err != nil {
		return nil, err
	}
	out := &builtImage{Key: env.Key, Base: env.Base, Python: env.Python, Reused: env.Reused, Lock: env.Lock, Deviations: env.Deviations, Log: env.Log, Failure: env.Failure}
	if out.Deviations == nil {
		out.Deviations = []spec.Deviation{}
	}
	if env.Failure != nil {
		return out, nil
	}
	when := time.Time{}
	if p.Source.CommitDate != nil {
		when = *p.Source.CommitDate
	}
	commit := p.Source.Commit
	if f.source != "" && p.Source.Repo == "" {
		commit = "" // a folder that may change
	}
	img, err := b.WithSource(ctx, env, image.SourceRequest{Dir: f.source, Commit: commit, Time: when})
	if err != nil {
		return nil, err
	}
	out.Digest = img.Digest.String()
	if f.layout != "" {
		if err := b.Layout(img.Image, f.layout); err != nil {
			return nil, err
		}
		out.Layout = f.layout
	}
	if f.push {
		if out.Pushed, err = b.Push(ctx, img); err != nil {
			return nil, err
		}
	}
	if f.load {
		out.Loaded, err = b.Load(ctx, img.Image, "repromill/run:"+img.Digest.Hex[:16])
	}
	return out, err
}

func (a *app) printBuilt(o *builtImage) {
	say := func(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }
	how := "built"
	if o.Reused {
		how = "found"
	}
	if o.Failure != nil {
		how = "not built"
	}
	say("environment %s  %s in %.1f s", short(o.Key), how, o.Seconds)
	say("  on %s, Python %s", o.Base, firstOf(o.Python, "-"))
	n := 0
	for l := range strings.Lines(o.Lock) {
		if strings.Contains(l, "==") && l[0] != ' ' {
			n++
		}
	}
	if o.Failure == nil {
		say("  %d packages", n)
	}
	for _, d := range o.Deviations {
		say("  deviation: %s: %s → %s (%s)", clean(d.What), clean(d.Declared), clean(d.Used), clean(d.Reason))
	}
	if o.Failure != nil {
		say("failed: %s", clean(o.Failure.String()))
		return
	}
	say("image %s", o.Digest)
	for what, at := range map[string]string{"layout": o.Layout, "pushed": o.Pushed, "loaded": o.Loaded} {
		if at != "" {
			say("  %s: %s", what, at)
		}
	}
}

func (a *app) imageListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List environments, bases and source layers, the last used first",
		Example: "  repromill image list\n  repromill image list --json",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			b, err := a.imageBuilder(nil, nil)
			if err != nil {
				return err
			}
			list, err := b.List()
			if err != nil {
				return err
			}
			if a.jsonOut {
				if list == nil {
					list = []image.Entry{}
				}
				return a.printJSON(list)
			}
			if len(list) == 0 {
				fmt.Fprintf(a.stdout, "there are no images in %s yet\n", a.imageDir())
				return nil
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "KEY\tKIND\tUSED (UTC)\tSIZE\tPYTHON\tPACKAGES\tBASE")
			for _, e := range list {
				packages := "-"
				if e.Kind == "environments" {
					packages = fmt.Sprint(e.Count)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", short(e.Key), strings.TrimSuffix(e.Kind, "s"), e.Used.UTC().Format("2006-01-02 15:04"), cache.Size(e.Bytes),
					firstOf(e.Python, "-"), packages, firstOf(clean(e.Base), "-"))
			}
			return w.Flush()
		},
	}
}

func (a *app) imagePruneCmd() *cobra.Command {
	var keep string
	cmd := &cobra.Command{
		Use:     "prune --keep SIZE",
		Short:   "Remove the images used longest ago until the rest takes SIZE",
		Example: "  repromill image prune --keep 20GiB\n  repromill image prune --keep 0",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := cache.ParseSize(keep)
			if err != nil {
				return usererrf("write a size such as 500MB or 20GiB; 0 removes all", "--keep is %q", keep)
			}
			b, closeEngine, err := a.builder(cmd.Context(), a.ui())
			if err != nil {
				return err
			}
			defer closeEngine()
			out, err := b.Prune(cmd.Context(), n)
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(out)
			}
			fmt.Fprintf(a.stdout, "removed %d images, %s; %s are left\n", out.Images, cache.Size(out.Bytes), cache.Size(out.Left))
			return nil
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "what may stay, such as 20GiB")
	return cmd
}

func (a *app) imageSelfCmd() *cobra.Command {
	var base, push, layout, binary string
	cmd := &cobra.Command{
		Use:   "self (--push NAME | --layout DIR)",
		Short: "Make an image of this program, for the workers of a cluster",
		Long: `Append this program to a base image, or to an empty one, and push it. No container
engine is needed. With an empty base the program must be linked statically.`,
		Example: `  repromill image self --push registry.example.org/team/repromill:v1
  repromill image self --layout ./image --base docker.io/library/debian:bookworm-slim`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.imageSelf(cmd.Context(), base, push, layout, binary)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&base, "base", "", "base `IMAGE`; none when it is left out")
	fl.StringVar(&push, "push", "", "push the image under `NAME`")
	fl.StringVar(&layout, "layout", "", "write an OCI image layout to `DIR`")
	fl.StringVar(&binary, "binary", "", "the program in `FILE` instead of this one")
	return cmd
}

func (a *app) imageSelf(ctx context.Context, base, push, layout, binary string) error {
	if push == "" && layout == "" {
		return usererrf("name a place with --push NAME or --layout DIR", "the image has nowhere to go")
	}
	if binary == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		binary = exe
	}
	ui := a.ui()
	defer ui.abandon()
	b, err := a.imageBuilder(nil, func(e image.Event) { ui.progress(0, 0, "", e.Stage+" "+e.Text) })
	if err != nil {
		return err
	}
	img, err := b.Self(ctx, image.SelfRequest{Binary: binary, Base: base, Version: buildVersion().Version})
	if err != nil {
		return err
	}
	d, err := img.Digest()
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	out := map[string]string{"digest": d.String()}
	if layout != "" {
		if err := b.Layout(img, layout); err != nil {
			return err
		}
		out["layout"] = layout
	}
	if push != "" {
		if out["pushed"], err = b.PushTo(ctx, push, img); err != nil {
			return err
		}
	}
	if a.jsonOut {
		return a.printJSON(out)
	}
	fmt.Fprintln(a.stdout, firstOf(out["pushed"], layout+" "+d.String()))
	return nil
}
