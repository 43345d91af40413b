package runner

import "github.com/repromill/repromill/runner/store"

// The durable steps of this package that are not writes to the store.
const (
	stepLock      = "lock"        // the run's lock file is taken and names this process
	stepClean     = "clean"       // leftovers of an interrupted step are removed
	stepCheckout  = "copy_source" // the checkout is copied beside its final name
	stepSource    = "place_tree"  // that copy gets its name
	stepPatch     = "patch"       // the patches of all runs are applied
	stepLink      = "link_python" // python and python3 get their place
	stepKeep      = "keep_source" // the prepared tree becomes the source of all units
	stepUnitCopy  = "copy_unit"   // a unit's tree is copied beside its final name
	stepUnitPlace = "place_unit"  // that copy becomes the working folder
	stepUnitKeep  = "keep_unit"   // the working folder of an ended unit is set aside
	stepSubmit    = "submit"      // the executor is given an attempt
	stepCancel    = "cancel"      // the executor is told to stop one
	stepCommit    = "commit"      // the results are committed
	stepRemove    = "remove_work" // the working folders are removed
)

// HookPoints lists every point at which Config.Hook is called by this package
// and, when it is given the same function, by the store: right before and
// right after each durable step. The names are stable. The executors and the
// dataset have points of their own.
func HookPoints() []string {
	out := store.HookPoints()
	for _, s := range []string{
		stepLock, stepClean, stepCheckout, stepSource, stepPatch, stepLink, stepKeep, stepUnitCopy, stepUnitPlace,
		stepUnitKeep, stepSubmit, stepCancel, stepCommit, stepRemove,
	} {
		out = append(out, "runner:"+s+":before", "runner:"+s+":after")
	}
	return out
}

// step does fn between its two hook points.
func (r *Runner) step(name string, fn func() error) error {
	r.cfg.Hook("runner:" + name + ":before")
	if err := fn(); err != nil {
		return err
	}
	r.cfg.Hook("runner:" + name + ":after")
	return nil
}
