package kueue

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/shard"
)

var _ runner.Sharder = (*Executor)(nil)

// fileGivenUp is why an attempt's Job was deleted that could not begin.
const fileGivenUp = "given-up"

// Stop implements [runner.Sharder]: the reason is kept on the volume first, so
// that a pod which begins just now ends at once, and whoever finds the Job gone
// knows that it was not lost.
func (e *Executor) Stop(ctx context.Context, h runner.Handle, why string) error {
	at, name, rec, err := e.open(h)
	if err != nil {
		return err
	}
	if rec.Attempt.Shards == nil {
		return fmt.Errorf("stop %s: it has no shards", rec.Key)
	}
	if _, ok, err := at.Exit(); ok || err != nil {
		return err
	}
	e.cfg.Hook("kueue:stop:before")
	if err := shard.Folder(rec.Attempt.Dir).Stop(why); err != nil {
		return err
	}
	e.cfg.Hook("kueue:stop:after")
	if err := e.removeAll(ctx, name, rec.Key); err != nil {
		return err
	}
	_, err = at.Conclude(e.enough(rec, why))
	return err
}

// removeAll deletes a Job of shards and returns when nothing of it is left but
// what lies on nodes that are lost: a client that goes on there spoils nothing.
func (e *Executor) removeAll(ctx context.Context, name, key string) error {
	for {
		gone, err := e.remove(ctx, name)
		if err != nil && !temporary(err) {
			return e.c.explain("stop "+key, err)
		}
		if gone || err == nil && e.onlyLost(ctx, name) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop %s: it was asked to end and has not yet: %w", key, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// onlyLost reports whether all that is left of a Job that is being deleted are pods
// whose nodes do not say that they have ended.
func (e *Executor) onlyLost(ctx context.Context, name string) bool {
	pods, err := e.c.pods(ctx, name)
	if err != nil {
		return false
	}
	lost := 0
	for i := range pods {
		if alive(pods[i:i+1]) == nil {
			continue
		}
		if t := pods[i].DeletionTimestamp; t == nil || e.cfg.Now().Sub(t.Time) <= lostTime {
			return false
		}
		lost++
	}
	return lost > 0
}

// enough is the end of shards of which no more is needed, or of which all are
// there.
func (e *Executor) enough(rec pod.Record, why string) runner.Status {
	st := e.ended(runner.Succeeded, runner.ReasonNone, why)
	st.ExitCode, st.Stdout = 0, shard.Folder(rec.Attempt.Dir).Log()
	ends, err := shard.Folder(rec.Attempt.Dir).Ends(rec.Attempt.Shards.Of)
	if err != nil {
		return st
	}
	busy := 0.0
	for _, b := range ends {
		if st.Started.IsZero() || b.Began.Before(st.Started) {
			st.Started = b.Began
		}
		busy += b.Ended.Sub(b.Began).Seconds()
		st.Placement.Node = b.Node
	}
	p := float64(max(1, rec.Attempt.Shards.Parallel))
	st.Usage.WallSeconds = busy / p
	st.Usage.GPUHours = busy / p * float64(rec.Attempt.GPUs) / 3600 // GPUs are those of all pods at a time
	return st
}

// shards settles an attempt whose blocks are all there; ok is false while some are
// missing.
func (e *Executor) shards(at pod.Folder, rec pod.Record) (st runner.Status, ok bool, err error) {
	s := rec.Attempt.Shards
	if s == nil {
		return st, false, nil
	}
	ends, err := shard.Folder(rec.Attempt.Dir).Ends(s.Of)
	if err != nil || len(ends) < s.Of {
		return st, false, nil //nolint:nilerr // what the volume does not show now it may show later
	}
	st, err = at.Conclude(e.enough(rec, fmt.Sprintf("all %d shards are complete", s.Of)))
	return st, err == nil, err
}

// ofShards adds to a status what the blocks tell, and settles what the cluster
// has ended or cannot begin.
func (e *Executor) ofShards(ctx context.Context, at pod.Folder, rec pod.Record, o Observed, p Phase) (st runner.Status, settled bool, err error) {
	s := rec.Attempt.Shards
	f := shard.Folder(rec.Attempt.Dir)
	ends, err := f.Ends(s.Of)
	if err != nil {
		return st, false, err
	}
	var missing []string
	for i := range s.Of {
		if _, ok := ends[i]; !ok {
			missing = append(missing, fmt.Sprint(i+1))
		}
	}
	switch p.State {
	case Succeeded:
		if e.cfg.Now().Sub(p.Since) < e.cfg.VolumeDelay {
			break
		}
		st, err = e.settle(at, runner.Failed, runner.ReasonLost, fmt.Sprintf("the clients of shards %s ended with status 0 and left no complete answers", few(missing)), p)
		return st, true, err
	case Failed:
		st, err = e.settle(at, runner.Failed, runner.ReasonStart, fmt.Sprintf("%d of %d shards are complete; %s", len(ends), s.Of, trouble(f, s.Of, p)), p)
		return st, true, err
	case Lost:
		if why := f.Stopped(); why != "" {
			st, err = at.Conclude(e.enough(rec, why))
			return st, true, err
		}
		if why, err := os.ReadFile(filepath.Join(string(at), fileGivenUp)); err == nil {
			st, err = e.settle(at, runner.Failed, runner.ReasonStart, string(why), p)
			return st, true, err
		}
	case Starting, Running:
		why := stuck(o, e.cfg.StartPatience)
		if why == "" {
			break
		}
		// The Job is gone before all of it is: who finds that has to know why.
		if err := atomicfile.Write(filepath.Join(string(at), fileGivenUp), []byte(why), atomicfile.Options{}); err != nil {
			return st, false, err
		}
		gone, err := e.remove(ctx, JobName(rec.Attempt.Key))
		if err != nil || !gone {
			return runner.Status{Phase: runner.Running, Message: "about to be given up: " + why, Since: p.Since}, true, err
		}
		st, err = e.settle(at, runner.Failed, runner.ReasonStart, why, p)
		return st, true, err
	}
	return st, false, nil
}

// few is a list that fits into a sentence.
func few(list []string) string {
	if len(list) > 5 {
		return strings.Join(list[:5], ", ") + fmt.Sprintf(" and %d more", len(list)-5)
	}
	return strings.Join(list, ", ")
}

// trouble says why shards failed, as their clients told it, or else as the cluster
// does.
func trouble(f shard.Folder, of int, p Phase) string {
	for i := range of {
		if _, done, _ := f.End(i); done {
			continue
		}
		if why := f.Trouble(i); why != "" {
			return fmt.Sprintf("shard %d: %s", i+1, why)
		}
	}
	if p.Fix != "" {
		return p.Message + "; " + p.Fix
	}
	return p.Message
}

// stuck says what has kept a pod from beginning for longer than it may take, ""
// if nothing has.
func stuck(o Observed, patience time.Duration) string {
	if r := withheld(o); r != nil && alive(o.Pods) == nil {
		since := lacks(o)
		if r.First.After(since) {
			since = r.First
		}
		if o.Now.Sub(since) >= patience {
			why, fix := refusal(r)
			return fmt.Sprintf("no pod after %s: %s; %s", patience, why, fix)
		}
	}
	for i := range o.Pods {
		pod := &o.Pods[i]
		if pod.Status.Phase != corev1.PodPending || pod.DeletionTimestamp != nil || pod.Spec.NodeName == "" || o.Now.Sub(pod.CreationTimestamp.Time) < patience {
			continue
		}
		p := starting(Phase{Message: "its pod " + pod.Name + " does not start"}, pod)
		why := fmt.Sprintf("no server after %s: %s", patience, p.Message)
		if p.Fix != "" {
			why += "; " + p.Fix
		}
		return why
	}
	return ""
}

// foremost is the pod that a Job's phase is told by: of those that still run the
// newest, else the newest of all.
func foremost(pods []corev1.Pod) *corev1.Pod {
	open := slices.DeleteFunc(slices.Clone(pods), func(p corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	if p := newest(open); p != nil {
		return p
	}
	return newest(pods)
}

// loading says which model server a pod waits for, "" if none, and what to do
// where it does not come up.
func loading(pod *corev1.Pod) (what, fix string) {
	for _, s := range pod.Status.InitContainerStatuses {
		arm, is := strings.CutPrefix(s.Name, serverContainer)
		if !is || s.State.Running == nil || s.Started != nil && *s.Started {
			continue
		}
		what = fmt.Sprintf("the model server of arm %s loads on %s", arm, pod.Spec.NodeName)
		if t := s.LastTerminationState.Terminated; t != nil {
			what += fmt.Sprintf(", start %d: the one before %s", s.RestartCount+1, cmp.Or(ending(t), "ended"))
			fix = memoryFix(s.Name, t)
		}
		return what, fix
	}
	return "", ""
}

// memoryFix is what to do about a container that was killed for its memory.
func memoryFix(name string, t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "OOMKilled":
		return ""
	case strings.HasPrefix(name, serverContainer):
		return "if that goes on, give model servers more memory: cluster.server_memory"
	}
	return "ask for more memory"
}

// ending says how a container ended.
func ending(t *corev1.ContainerStateTerminated) string {
	out := fmt.Sprintf("ended with status %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		out += " (" + t.Reason + ")"
	}
	if t.Message != "" {
		out += ": " + lastWords(t.Message)
	}
	return out
}
