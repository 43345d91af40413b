package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
	"github.com/repromill/repromill/runner/tree"
)

// refusal says why a run of the plan is not executed, empty when nothing
// stands against it.
func (d *drive) refusal(r *spec.Run) string {
	beyond := beyondCaps(d.plan, d.req.Caps)
	switch {
	case d.plan.Source.Repo == "":
		return "no code was found"
	case r.Status != "auto" && (r.Status != "smoke_only" || r.Kind != "smoke"):
		why := "it cannot be run without somebody's help (" + r.Status + ")"
		if len(r.Reasons) > 0 {
			why += ": " + strings.Join(r.Reasons, "; ")
		}
		return why
	case len(r.Placeholders) > 0:
		return "the command has placeholders that nothing fills: " + strings.Join(r.Placeholders, ", ")
	case len(r.Secrets) > 0:
		return "the code asks for secrets, which untrusted code is never given: " + strings.Join(r.Secrets, ", ")
	case r.GPUs.Min > 0 && d.req.Caps.USD > 0 && d.dearest() == 0:
		return "its cost cannot be capped, since no price of a GPU-hour is known"
	case beyond != "":
		return beyond
	case r.GPUs.Min > d.cfg.GPUs:
		return fmt.Sprintf("it needs %d GPUs and there are %d", r.GPUs.Min, d.cfg.GPUs)
	}
	for _, s := range r.Setup {
		if s.Network {
			return "a setup step needs the network: " + strings.Join(s.Argv, " ")
		}
	}
	for _, a := range r.Assets {
		if a.Access == "manual" || a.Access == "gated" || a.Access == "missing" {
			return fmt.Sprintf("the %s %s is not at hand (%s)", a.Kind, a.Name, a.Access)
		}
	}
	if s := r.Script; s != nil && s.SHA256 != "" {
		if sum := sha256.Sum256([]byte(s.Text)); hex.EncodeToString(sum[:]) != s.SHA256 {
			return "the text of its script is not the one that its SHA-256 names"
		}
	}
	return ""
}

// eligible returns the selected runs that nothing stands against, by index
// into the plan.
func (d *drive) eligible(refused []Refusal) (out []int) {
	for i := range d.plan.Runs {
		r := &d.plan.Runs[i]
		known := slices.ContainsFunc(refused, func(x Refusal) bool { return x.Run == r.ID })
		if r.Selected && !known && d.refusal(r) == "" {
			out = append(out, i)
		}
	}
	return out
}

// prepare copies the source, patches it and installs what the plan requires.
func (d *drive) prepare(ctx context.Context) (out Prepared, skipped string, err error) {
	for i := range d.plan.Runs {
		if r := &d.plan.Runs[i]; r.Selected {
			if why := d.refusal(r); why != "" {
				out.Refused = append(out.Refused, Refusal{r.ID, why})
			}
		}
	}
	if len(d.eligible(out.Refused)) == 0 {
		return out, "there is nothing to execute", nil
	}
	if d.req.NoSandbox {
		out.Deviations = append(out.Deviations, spec.Deviation{
			What: "isolation", Declared: "sandbox", Used: "none", Reason: "asked for with --no-sandbox",
		})
	}
	if err := d.inputs(ctx, &out); err != nil {
		return out, "", err
	}
	if len(d.eligible(out.Refused)) == 0 {
		return out, "there is nothing to execute", nil
	}
	out.Shared = d.sharedPatches(out.Refused)
	if err := d.placeSource(ctx, &out); err != nil {
		return out, "", err
	}
	if len(d.eligible(out.Refused)) == 0 {
		return out, "", nil
	}
	install := d.install
	if d.images() != nil {
		install = d.environment
	}
	if err := install(ctx, &out); err != nil {
		return out, "", err
	}
	for _, dev := range out.Deviations {
		d.pending = append(d.pending, event(StagePrepare, DeviationSeen, dev))
	}
	if exists(d.source()) { // an interrupted prepare came this far
		return out, "", nil
	}
	// What an editable install built inside the tree belongs to every unit.
	return out, "", d.step(stepKeep, func() error { return os.Rename(d.work(), d.source()) })
}

// sharedPatches are those that every eligible run carries. They are applied to
// the source before anything is installed from it.
func (d *drive) sharedPatches(refused []Refusal) []spec.Patch {
	runs := d.eligible(refused)
	shared := slices.Clone(d.plan.Runs[runs[0]].Patches)
	for _, i := range runs[1:] {
		shared = slices.DeleteFunc(shared, func(p spec.Patch) bool { return !slices.Contains(d.plan.Runs[i].Patches, p) })
	}
	return shared
}

// placeSource copies the checkout to the working folder, with the shared
// patches. A patch that does not fit refuses the runs that carry it.
func (d *drive) placeSource(ctx context.Context, out *Prepared) error {
	if exists(d.work()) || exists(d.source()) {
		return d.checkPatches(out, d.tree())
	}
	dir, err := d.cfg.Source.Checkout(ctx, d.plan.Source.Repo, d.plan.Source.Commit, d.plan.Source.Submodules)
	if err != nil {
		return fmt.Errorf("get the source: %w", err)
	}
	if err := d.room(ctx, dir); err != nil {
		return err
	}
	tmp := d.work() + tmpSuffix
	if err := d.step(stepCheckout, func() error { return tree.Copy(ctx, dir, tmp, nil) }); err != nil {
		return fmt.Errorf("copy the source: %w", err)
	}
	err = d.step(stepPatch, func() error {
		if err := d.checkPatches(out, tmp); err != nil {
			return err
		}
		for _, p := range out.Shared {
			if err := applyPatch(tmp, p); err != nil {
				var m mismatch
				if errors.As(err, &m) { // every run carries it and is refused
					return nil
				}
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.step(stepSource, func() error { return os.Rename(tmp, d.work()) })
}

// tree is where the source lies during prepare.
func (d *drive) tree() string {
	if exists(d.source()) {
		return d.source()
	}
	return d.work()
}

// checkPatches refuses the runs whose patches do not fit the tree. Shared
// patches that were applied already are found by their result.
func (d *drive) checkPatches(out *Prepared, tree string) error {
	for _, i := range d.eligible(out.Refused) {
		r := &d.plan.Runs[i]
		for _, p := range r.Patches {
			err := fits(tree, p)
			var m mismatch
			if err != nil && !errors.As(err, &m) {
				return err
			}
			applied := p
			applied.Before = p.After
			if err != nil && (!slices.Contains(out.Shared, p) || fits(tree, applied) != nil) {
				out.Refused = append(out.Refused, Refusal{r.ID, string(m)})
				break
			}
		}
	}
	return nil
}

// install makes the environment: nothing but a way to call Python where the
// plan requires no package, else a virtual environment.
func (d *drive) install(ctx context.Context, out *Prepared) error {
	reqs := d.plan.Environment.Requirements
	m := moved(&d.plan.Environment)
	if m.none != "" {
		out.InstallFailed = m.none
		return nil
	}
	version := d.plan.Environment.Python.Version
	if m.python != "" {
		version = m.python
	}
	py, devs, err := d.findPython(ctx, version)
	if err != nil {
		return err
	}
	if needed := len(reqs) > 0 || d.needsPython(); py.Path == "" {
		if needed {
			out.InstallFailed = "no Python interpreter was found on this machine"
		}
		return nil
	} else if needed {
		out.Deviations = append(out.Deviations, devs...)
	}
	out.Python = py
	if len(reqs) == 0 {
		return d.linkPython(py)
	}
	want, why := pip.Parse(reqs)
	if want.Conda != "" {
		why = fmt.Sprintf("the environment is a conda one (%s), and the local executor cannot make conda environments: run it with --executor docker, or give a plan with pip requirements", want.Conda)
	}
	if why != "" {
		out.InstallFailed = why
		return nil
	}
	out.Venv = true
	for _, dir := range []string{d.venv(), d.cache()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make environment: %w", err)
		}
	}
	out.Deviations = append(out.Deviations, m.devs...)
	steps, devs, err := d.installSteps(py, want.Args, &m)
	if err != nil {
		return err
	}
	out.Deviations = append(out.Deviations, devs...)
	for _, s := range steps {
		why, err := d.installStep(ctx, s)
		if err != nil {
			return err
		}
		if why != "" {
			out.InstallFailed = why
			return nil
		}
	}
	out.Lock, err = installed(d.venv())
	return err
}

// installStep runs one step of the installation, again when it is lost.
func (d *drive) installStep(ctx context.Context, a Attempt) (why string, err error) {
	tries := 0
	for {
		st, err := d.attempt(ctx, a)
		if err != nil {
			return "", err
		}
		switch {
		case st.Phase == Succeeded:
			return "", nil
		case st.Phase == Failed && st.Reason == ReasonLost && tries+1 < d.cfg.MaxTries:
			tries++
		case st.Phase == Cancelled && d.capReached() == "" && d.inherited[a.Key.String()]:
			// An earlier driver was interrupted here.
		case d.capReached() != "":
			return "the installation was stopped: " + d.capReached(), nil
		default:
			return "the installation failed: " + installFailure(st), nil
		}
		a.Key.N++
		if err := d.retried(ctx, a.Key, st); err != nil {
			return "", err
		}
	}
}

// needsPython reports whether anything of the eligible runs calls Python
// itself. A shell script may call it too, which only shows when it runs.
func (d *drive) needsPython() bool {
	for _, i := range d.eligible(nil) {
		r := &d.plan.Runs[i]
		if r.Script != nil && r.Script.Interpreter == "python" || isPython(r.Argv) || slices.ContainsFunc(r.Setup, func(s spec.Step) bool { return isPython(s.Argv) }) {
			return true
		}
	}
	return false
}

func isPython(argv []string) bool {
	return len(argv) > 0 && (argv[0] == "python" || argv[0] == "python3")
}

// linkPython makes `python` and `python3` mean the chosen interpreter for
// scripts and for commands that start Python themselves.
func (d *drive) linkPython(py Interpreter) error {
	if exists(d.bin()) {
		return nil
	}
	err := d.step(stepLink, func() error {
		tmp := d.bin() + tmpSuffix
		if err := os.Mkdir(tmp, 0o755); err != nil {
			return err
		}
		for _, name := range []string{"python", "python3"} {
			if err := os.Symlink(py.Path, filepath.Join(tmp, name)); err != nil {
				return err
			}
		}
		return os.Rename(tmp, d.bin())
	})
	if err != nil {
		return fmt.Errorf("link python: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
