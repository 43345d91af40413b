package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/tree"
)

// execute runs every eligible run with each of its seeds, one after the
// other, until a cap is used up.
func (d *drive) execute(ctx context.Context, prep Prepared) (out Executed, skipped string, err error) {
	runs := d.eligible(prep.Refused)
	switch {
	case len(runs) == 0:
		return out, "there is nothing to execute", nil
	case prep.InstallFailed != "":
		return out, prep.InstallFailed, nil
	}
	for _, i := range runs {
		r := &d.plan.Runs[i]
		seeds := r.Seeds
		if len(seeds) == 0 {
			seeds = []int64{0}
		}
		for k, seed := range seeds {
			u := unit{run: r, index: i, seed: seed, shard: k, prep: prep}
			if cap := d.capReached(); cap != "" && !d.tries(u, 0) {
				out.Stopped = cap
				if k == 0 {
					out.Refused = append(out.Refused, Refusal{r.ID, cap})
				}
				break
			}
			done, err := d.unit(ctx, u)
			if err != nil {
				return out, "", err
			}
			out.Units = append(out.Units, done)
			if done.Reason != "" {
				if done.Reason == d.capReached() {
					out.Stopped = done.Reason
				}
				break // what one seed breaks, another breaks too
			}
		}
	}
	if out.Stopped != "" {
		d.pending = append(d.pending, event(StageExecute, Log, map[string]any{"stopped": out.Stopped}))
	}
	return out, "", nil
}

// unit is one run of the plan with one seed.
type unit struct {
	run   *spec.Run
	index int
	seed  int64
	shard int
	prep  Prepared
}

// name is the folder of a unit's try.
func (u unit) name(n int) string {
	return fmt.Sprintf("%02d-%s-s%d-n%d", u.index, safeName(u.run.ID), u.shard, n)
}

// safeName makes a word of the plan fit for a file name.
func safeName(s string) string {
	return fmt.Sprintf("%.40s", strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, s))
}

// unitAttempts are the commands of one try: the setup steps, then the run.
func (d *drive) unitAttempts(u unit, n int) []Attempt {
	base := Attempt{
		Key:      AttemptKey{RunID: d.run.ID, Stage: StageExecute, Shard: u.shard, N: n},
		Env:      d.unitEnv(u),
		Writable: []string{d.work()}, ReadOnly: d.readOnly(u.prep.Python),
		Limits: d.cfg.Limits, GPUs: u.run.GPUs.Min, NoSandbox: d.req.NoSandbox,
	}
	if base.GPUs > 0 {
		base.SKU = d.plan.Environment.SKU
	}
	if u.prep.Venv {
		base.ReadOnly = append(base.ReadOnly, d.venv())
	}
	d.inImage(&base, u.prep.Image)
	for _, in := range u.bound(d.plan) {
		base.ReadOnly, base.Inputs = append(base.ReadOnly, in.Path), append(base.Inputs, in)
	}
	base.Limits.Wall = d.wallLimit(time.Duration(u.run.TimeoutS)*time.Second, base.GPUs)
	var out []Attempt
	for i, s := range u.run.Setup {
		a := base
		a.Key.Arm = fmt.Sprintf("%s+setup%d", u.run.ID, i+1)
		a.Dir = filepath.Join(d.work(), filepath.FromSlash(s.Cwd))
		a.Argv = d.argv(u, s.Argv)
		out = append(out, a)
	}
	main := base
	main.Key.Arm = u.run.ID
	main.Expected = expectedWall(d.plan, u.run.ID)
	main.Dir = d.cwd(u.run)
	main.Argv = d.argv(u, u.run.Argv)
	if s := u.run.Script; s != nil {
		main.Argv = d.argv(u, scriptArgv(s))
	}
	return append(out, main)
}

// expectedWall is how long a run takes by the plan's estimate for the GPU model
// that it is meant for, nil where there is none. That of the whole job is the
// run's where nothing else is in the job.
func expectedWall(p *spec.Plan, run string) *spec.Interval {
	selected := 0
	for i := range p.Runs {
		if p.Runs[i].Selected {
			selected++
		}
	}
	alone := selected == 1 && len(p.Suites) == 0
	for i := range p.Estimates {
		e := &p.Estimates[i]
		if e.WallS != nil && e.SKU == cmp.Or(p.Environment.SKU, "cpu") && (e.Scope == "run/"+run || e.Scope == "" && alone) {
			return e.WallS
		}
	}
	return nil
}

func (d *drive) cwd(r *spec.Run) string { return filepath.Join(d.work(), filepath.FromSlash(r.Cwd)) }

// scriptFile is where a run's script stands, in its working directory, so that
// Python finds the modules beside it.
func scriptFile(s *spec.Script) string {
	if s.Interpreter == "python" {
		return ".repromill-script.py"
	}
	return ".repromill-script.sh"
}

// scriptArgv stops a shell at the first command that fails, as nobody is there
// to see it.
func scriptArgv(s *spec.Script) []string {
	if s.Interpreter == "python" {
		return []string{"python", scriptFile(s)}
	}
	return []string{s.Interpreter, "-e", scriptFile(s)}
}

// argv fills in the seed for "{seed}", the working directory for "$PWD" and
// what is bound for its token, and names the interpreter that was chosen in place of "python".
func (d *drive) argv(u unit, argv []string) []string {
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = d.fill(u, a)
	}
	if isPython(out) && u.prep.Python.Path != "" {
		out[0] = u.prep.Python.Path
		if u.prep.Venv {
			out[0] = filepath.Join(d.venv(), "bin", "python")
		}
	}
	return out
}

func (d *drive) fill(u unit, s string) string {
	words := []string{"{seed}", strconv.FormatInt(u.seed, 10), "$PWD", d.cwd(u.run), "${PWD}", d.cwd(u.run), "$(pwd)", d.cwd(u.run)}
	return strings.NewReplacer(append(words, u.tokens(d.plan)...)...).Replace(s)
}

// tokens are the words that stand for what is bound, each with its path.
func (u unit) tokens(p *spec.Plan) (out []string) {
	for _, in := range u.bound(p) {
		b := spec.Binding{Name: in.Name}
		out = append(out, b.Token(), in.Path)
	}
	return out
}

// unitEnv is the environment of a unit: what keeps foreign code quiet, offline
// and repeatable, then what the plan adds.
func (d *drive) unitEnv(u unit) map[string]string {
	env := map[string]string{
		"WANDB_MODE": "offline", "HF_HUB_DISABLE_TELEMETRY": "1", "MPLBACKEND": "Agg",
		"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "USER": "repromill", "REPROMILL_SEED": strconv.FormatInt(u.seed, 10),
	}
	if len(u.run.Seeds) > 1 && u.seed >= 0 && u.seed <= math.MaxUint32 {
		env["PYTHONHASHSEED"] = strconv.FormatInt(u.seed, 10)
	}
	if u.prep.Venv {
		env["VIRTUAL_ENV"] = d.venv()
		env["PATH"] = filepath.Join(d.venv(), "bin") + ":/usr/local/bin:/usr/bin:/bin"
	} else if u.prep.Python.Path != "" {
		env["PATH"] = d.bin() + ":/usr/local/bin:/usr/bin:/bin"
	}
	for k, v := range u.run.Env {
		env[k] = d.fill(u, v)
	}
	return env
}

// tries reports whether the try n of the unit has begun.
func (d *drive) tries(u unit, n int) bool {
	for _, a := range d.unitAttempts(u, n) {
		if _, known := d.attempts[a.Key.String()]; known {
			return true
		}
	}
	return false
}

// unit runs one unit to its end, again when it was lost or when an earlier
// driver was interrupted. Every try starts with a fresh tree, so that nothing
// an earlier one wrote is counted twice.
func (d *drive) unit(ctx context.Context, u unit) (Unit, error) {
	out := Unit{Run: u.run.ID, Seed: u.seed, SeedIndex: u.shard}
	lost := 0
	for n := 0; ; n++ {
		out.Tries, out.Dir = n+1, filepath.Join("units", u.name(n))
		var unfit mismatch
		if err := d.placeUnit(ctx, u, n); errors.As(err, &unfit) { // the installation changed the file
			out.Status, out.Reason = Status{Phase: Failed, Reason: ReasonStart, Message: string(unfit)}, string(unfit)
			return out, nil
		} else if err != nil {
			return out, err
		}
		st, key, setup, err := d.try(ctx, u, n)
		if err != nil {
			return out, err
		}
		out.Key, out.Status = key, st
		if out.Reason = failure(st); out.Reason != "" && setup > 0 {
			out.Reason = fmt.Sprintf("setup step %d: %s", setup, out.Reason)
		}
		if err := d.keepUnit(u, n); err != nil {
			return out, err
		}
		stopped := d.capReached()
		switch {
		case st.Phase == Failed && st.Reason == ReasonLost && lost+1 < d.cfg.MaxTries && stopped == "":
			lost++
		case st.Phase == Cancelled && stopped == "" && d.inherited[key]:
			// An earlier driver was interrupted here.
		case st.Phase != Succeeded && stopped != "":
			out.Reason = stopped
			return out, nil
		default:
			return out, nil
		}
		out.Causes = append(out.Causes, string(st.Reason))
		next := AttemptKey{RunID: d.run.ID, Stage: StageExecute, Arm: u.run.ID, Shard: u.shard, N: n + 1}
		if err := d.retried(ctx, next, st); err != nil {
			return out, err
		}
	}
}

// try runs the commands of one try in order and returns how the last one
// ended; setup is its number when it was a setup step, from 1.
func (d *drive) try(ctx context.Context, u unit, n int) (st Status, key string, setup int, err error) {
	list := d.unitAttempts(u, n)
	for i, a := range list {
		key = a.Key.String()
		if _, known := d.attempts[key]; !known {
			if why := d.makeDir(a.Dir); why != "" {
				return Status{Phase: Failed, Reason: ReasonStart, Message: why}, key, 0, nil
			}
		}
		if st, err = d.attempt(ctx, a); err != nil {
			return st, "", 0, err
		}
		if i < len(list)-1 && st.Phase != Succeeded {
			return st, key, i + 1, nil
		}
	}
	return st, key, 0, nil
}

// makeDir makes the directory that a command starts in, below the working
// folder, where the commands before it have not.
func (d *drive) makeDir(dir string) (why string) {
	rel, err := filepath.Rel(d.work(), dir)
	if err != nil {
		return err.Error()
	}
	root, err := os.OpenRoot(d.work())
	if err != nil {
		return err.Error()
	}
	defer root.Close()
	if err := root.MkdirAll(rel, 0o755); err != nil {
		return fmt.Sprintf("its directory %s cannot be used: %v", rel, err)
	}
	return ""
}

// placeUnit makes the working folder of a try, unless the try has begun: then
// it is there, or is already set aside. Before a try begins nothing in the
// working folder is worth keeping.
func (d *drive) placeUnit(ctx context.Context, u unit, n int) error {
	if d.tries(u, n) {
		return nil
	}
	tmp := d.work() + tmpSuffix
	err := d.step(stepClean, func() error { return errors.Join(tree.Remove(d.work()), tree.Remove(tmp)) })
	if err != nil {
		return err
	}
	err = d.step(stepUnitCopy, func() error {
		if err := tree.Copy(ctx, d.source(), tmp, nil); err != nil {
			return err
		}
		for _, p := range u.run.Patches {
			if !containsPatch(u.prep.Shared, p) {
				if err := applyPatch(tmp, p); err != nil {
					return err
				}
			}
		}
		return errors.Join(d.placeInputs(u, tmp), d.placeScript(u, tmp))
	})
	if err != nil {
		return fmt.Errorf("make working folder: %w", err)
	}
	return d.step(stepUnitPlace, func() error { return os.Rename(tmp, d.work()) })
}

func containsPatch(list []spec.Patch, p spec.Patch) bool {
	for _, q := range list {
		if q == p {
			return true
		}
	}
	return false
}

// placeScript writes the run's script.
func (d *drive) placeScript(u unit, tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	if u.run.Script == nil {
		return nil
	}
	cwd := filepath.Join(".", filepath.FromSlash(u.run.Cwd))
	if err := root.MkdirAll(cwd, 0o755); err != nil {
		return err
	}
	return root.WriteFile(filepath.Join(cwd, scriptFile(u.run.Script)), []byte(strings.NewReplacer(u.tokens(d.plan)...).Replace(u.run.Script.Text)), 0o644)
}

// keepUnit sets the working folder of an ended try aside. The next try's
// folder is made only after that, so whatever lies there is this try's.
func (d *drive) keepUnit(u unit, n int) error {
	to := filepath.Join(d.units(), u.name(n))
	if exists(to) || !exists(d.work()) {
		return nil
	}
	return d.step(stepUnitKeep, func() error {
		if err := os.MkdirAll(d.units(), 0o755); err != nil {
			return err
		}
		return os.Rename(d.work(), to)
	})
}
