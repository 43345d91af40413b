package kueue

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/shard"
)

// The reasons of an attempt that waits are its [State]; this one is final.
const ReasonEvicted runner.Reason = "evicted" // too often to go on

// status turns a phase into the runner's words, and settles an attempt that
// the cluster has ended without a word from its pod.
func (e *Executor) status(ctx context.Context, at pod.Folder, rec pod.Record, o Observed, p Phase) (runner.Status, error) {
	if why := e.wrong(rec.Attempt, first(p.Product, recorded(at).Product)); why != "" {
		return e.stopWrong(ctx, at, rec, why, p)
	}
	st := runner.Status{Phase: runner.Pending, Reason: runner.Reason(p.State), Detail: p.detail(), Message: p.Message, Since: p.Since, Placement: runner.Placement{Node: p.Node, Flavor: p.Flavor, Evictions: p.Evictions}}
	if p.Fix != "" {
		st.Message += "; " + p.Fix
	}
	if rec.Attempt.Shards != nil {
		if st, settled, err := e.ofShards(ctx, at, rec, o, p); settled || err != nil {
			return st, err
		}
	}
	if p.Evictions >= e.patience(rec) && !slices.Contains([]State{Running, Succeeded, Failed, Lost}, p.State) {
		return e.giveUp(ctx, at, o, p)
	}
	switch p.State {
	case Running, Stopping:
		st.Phase, st.Reason = runner.Running, runner.ReasonNone
		if seen, ok := at.Running(); ok && !seen.Phase.Final() {
			st.Started, st.Placement.Sandbox, st.Placement.Missing = seen.Started, seen.Placement.Sandbox, seen.Placement.Missing
		}
		if p.State == Running && st.Started.IsZero() && rec.Attempt.Shards == nil {
			st.Phase, st.Reason, st.Message = runner.Pending, runner.Reason(Starting), p.Message+"; its worker prepares"
		}
		return st, nil
	case Succeeded:
		// The Job cannot complete before its worker has committed, but a volume
		// may show that later.
		if e.cfg.Now().Sub(p.Since) < e.cfg.VolumeDelay {
			st.Phase, st.Reason, st.Message = runner.Running, runner.ReasonNone, "it has ended; the volume does not show how yet"
			return st, nil
		}
		return e.settle(at, runner.Failed, runner.ReasonLost, "the Job completed and its result is not on the volume: is the volume of the pods the one that is mounted here?", p)
	case Failed:
		return e.settleFailed(at, rec, p)
	case Cancelled:
		if p.Reason == "DeactivatedDueToMaximumExecutionTimeExceeded" {
			return e.settle(at, runner.Failed, runner.ReasonTimeout, p.Message, p)
		}
		return e.settle(at, runner.Cancelled, runner.ReasonCancelled, "its Workload was deactivated from outside", p)
	case Lost:
		if at.Cancelled() {
			return e.settle(at, runner.Cancelled, runner.ReasonCancelled, "cancelled", p)
		}
		return e.settle(at, runner.Failed, runner.ReasonLost, p.Message+"; trying again is safe", p)
	}
	return st, nil
}

// patience is how often an attempt may be evicted: shards that were completed
// since are worth as much each.
func (e *Executor) patience(rec pod.Record) int {
	n := e.cfg.MaxEvictions
	if s := rec.Attempt.Shards; s != nil {
		if ends, err := shard.Folder(rec.Attempt.Dir).Ends(s.Of); err == nil {
			n *= 1 + len(ends)
		}
	}
	return n
}

func (e *Executor) settleFailed(at pod.Folder, rec pod.Record, p Phase) (runner.Status, error) {
	why := runner.ReasonLost
	switch p.Reason {
	case "OOMKilled":
		return e.settle(at, runner.Failed, runner.ReasonResource, fmt.Sprintf("used more than the %d MiB of memory of its pod", (rec.Attempt.Limits.MemoryBytes+workerMemory)>>20), p)
	case "DeadlineExceeded", "DeactivatedDueToMaximumExecutionTimeExceeded":
		why = runner.ReasonTimeout
	case "PodFailurePolicy", "StartError":
		why = runner.ReasonStart
	}
	message := p.Message
	if p.Fix != "" {
		message += "; " + p.Fix
	}
	return e.settle(at, runner.Failed, why, message, p)
}

// settle makes an end final that no pod has committed, unless one has.
func (e *Executor) settle(at pod.Folder, phase runner.Phase, why runner.Reason, message string, p Phase) (runner.Status, error) {
	st := e.ended(phase, why, message)
	st.Placement = runner.Placement{Node: p.Node, Flavor: p.Flavor, Evictions: p.Evictions}
	e.cfg.Hook("kueue:settle:before")
	st, err := at.Conclude(st)
	if err == nil {
		e.cfg.Hook("kueue:settle:after")
	}
	return st, err
}

// giveUp takes an attempt that is evicted again and again out of its queue:
// Kueue itself would go on for ever.
func (e *Executor) giveUp(ctx context.Context, at pod.Folder, o Observed, p Phase) (runner.Status, error) {
	if o.Workload != nil && (o.Workload.Spec.Active == nil || *o.Workload.Spec.Active) {
		_, err := e.c.kube.Discovery().RESTClient().Patch(types.MergePatchType).AbsPath(e.c.kueue("workloads"), o.Workload.Metadata.Name).
			Body([]byte(`{"spec":{"active":false}}`)).DoRaw(ctx)
		if err != nil {
			return runner.Status{}, e.c.explain("give up", err)
		}
	}
	if alive(o.Pods) != nil {
		return runner.Status{Phase: runner.Running, Message: "given up after too many evictions; its pod is about to end", Since: p.Since}, nil
	}
	return e.settle(at, runner.Failed, ReasonEvicted, fmt.Sprintf("evicted %d times and given up; use a queue or a priority that is not preempted", p.Evictions), p)
}

// filePlace is what the cluster said of an attempt's place, which its pod
// cannot know: kept beside the attempt, since the Workload goes with its Job.
const filePlace = "place.json"

type placeRecord struct {
	Flavor    string `json:"flavor"`
	Product   string `json:"product,omitempty"`
	Evictions int    `json:"evictions"`
}

// recorded is what was kept of an attempt's place so far.
func recorded(at pod.Folder) (r placeRecord) {
	b, err := os.ReadFile(filepath.Join(string(at), filePlace))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return placeRecord{}
	}
	return r
}

// notePlace keeps what a look at the cluster told. That it fails costs no
// more than a column.
func (e *Executor) notePlace(at pod.Folder, p Phase) {
	if p.Flavor == "" {
		return
	}
	old := recorded(at)
	r := placeRecord{p.Flavor, p.Product, p.Evictions}
	if r.Product == "" && r.Evictions == old.Evictions {
		r.Product = old.Product // the pod is gone, its place is known
	}
	if r == old {
		return
	}
	if b, err := json.Marshal(r); err == nil {
		_ = atomicfile.Write(filepath.Join(string(at), filePlace), b, atomicfile.Options{})
	}
}

// placed adds the place to a status that a pod has committed, which is void
// where the place is not the one that was asked for.
func (e *Executor) placed(ctx context.Context, at pod.Folder, job string, a runner.Attempt, st runner.Status) runner.Status {
	r := recorded(at)
	if r.Flavor == "" {
		// Nobody looked while it ran; the Job may still be there.
		b, err := os.ReadFile(filepath.Join(string(at), fileMade))
		var m made
		if err != nil || json.Unmarshal(b, &m) != nil {
			return st
		}
		o, err := e.observe(ctx, job, m)
		if err != nil || o.Job == nil {
			return st
		}
		p := PhaseOf(o)
		e.notePlace(at, p)
		r = placeRecord{p.Flavor, p.Product, p.Evictions}
	}
	if st.Placement.Flavor == "" {
		st.Placement.Flavor = r.Flavor
	}
	st.Placement.Evictions = max(st.Placement.Evictions, r.Evictions)
	if a.GPUs == 0 {
		return st
	}
	st.Placement.Product = r.Product
	st.Placement.SKU = first(e.cfg.SKUOf(r.Product), st.Placement.SKU)
	if why := e.wrong(a, r.Product); why != "" && st.Phase != runner.Cancelled {
		st.Phase, st.Reason, st.Message = runner.Failed, runner.ReasonWrongSKU, why
	}
	return st
}

// wrong says that a GPU model is not the one that an attempt is meant for; ""
// where it is, or where there is nothing to compare.
func (e *Executor) wrong(a runner.Attempt, product string) string {
	if a.GPUs == 0 || a.SKU == "" || product == "" {
		return ""
	}
	have := e.cfg.SKUOf(product)
	if have == a.SKU {
		return ""
	}
	return fmt.Sprintf("its nodes have %s (%s) and the plan is for %s, so what it gives is void; use a queue with that GPU model, or set cluster.product to its label",
		product, first(have, "a model that is not in the catalogue"), a.SKU)
}

// stopWrong ends an attempt that was admitted to the wrong GPU model: nothing
// that it could still measure would count.
func (e *Executor) stopWrong(ctx context.Context, at pod.Folder, rec pod.Record, why string, p Phase) (runner.Status, error) {
	gone, err := e.remove(ctx, JobName(rec.Attempt.Key))
	if err != nil {
		return runner.Status{}, e.c.explain("stop "+rec.Key, err)
	}
	if !gone {
		return runner.Status{Phase: runner.Running, Message: "about to be stopped: " + why, Since: p.Since}, nil
	}
	st, err := e.settle(at, runner.Failed, runner.ReasonWrongSKU, why, p)
	return e.placed(ctx, at, JobName(rec.Attempt.Key), rec.Attempt, st), err
}
