package kueue

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Blocks is how the shards of a Job stand that has several.
type Blocks struct {
	Done int     `json:"done"`
	Of   int     `json:"of"`
	Live []Block `json:"live,omitempty"` // those that have a pod now, in their order
}

// Block is one shard with the pod that has it.
type Block struct {
	Shard      int         `json:"shard"` // from 1 on
	Pod        string      `json:"pod"`
	Node       string      `json:"node,omitempty"`
	Containers []Container `json:"containers,omitempty"` // servers first
}

// Container is one container of a pod.
type Container struct {
	Name     string `json:"name"`
	State    string `json:"state"` // "waits", "loads" (no server answers yet), "runs" or "ended"
	Reason   string `json:"reason,omitempty"`
	Restarts int    `json:"restarts,omitempty"`
	Last     string `json:"last,omitempty"` // how the start before ended
}

// blocksOf is nil for a Job of one.
func blocksOf(job *batchv1.Job, pods []corev1.Pod) *Blocks {
	if job == nil || job.Spec.Completions == nil || *job.Spec.Completions < 2 {
		return nil
	}
	out := &Blocks{Done: int(job.Status.Succeeded), Of: int(*job.Spec.Completions)}
	for i := range pods {
		p := &pods[i]
		index, err := strconv.Atoi(p.Labels[batchv1.JobCompletionIndexAnnotation])
		if err != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		b := Block{Shard: index + 1, Pod: p.Name, Node: p.Spec.NodeName}
		for _, s := range p.Status.InitContainerStatuses {
			b.Containers = append(b.Containers, containerOf(s, true))
		}
		for _, s := range p.Status.ContainerStatuses {
			b.Containers = append(b.Containers, containerOf(s, false))
		}
		out.Live = append(out.Live, b)
	}
	slices.SortFunc(out.Live, func(a, b Block) int { return cmp.Or(a.Shard-b.Shard, strings.Compare(a.Pod, b.Pod)) })
	return out
}

func containerOf(s corev1.ContainerStatus, sidecar bool) Container {
	c := Container{Name: s.Name, State: "waits", Restarts: int(s.RestartCount)}
	switch {
	case s.State.Running != nil && sidecar && (s.Started == nil || !*s.Started):
		c.State = "loads"
	case s.State.Running != nil:
		c.State = "runs"
	case s.State.Terminated != nil:
		c.State, c.Reason = "ended", ending(s.State.Terminated)
	case s.State.Waiting != nil && s.State.Waiting.Reason != "PodInitializing":
		c.Reason = s.State.Waiting.Reason
	}
	if t := s.LastTerminationState.Terminated; t != nil {
		c.Last = ending(t)
	}
	return c
}

// String is a block in a line.
func (b Block) String() string {
	var parts []string
	for _, c := range b.Containers {
		s := c.Name + " " + c.State
		if c.State == "ended" {
			s = c.Name + " " + c.Reason
		} else if c.Reason != "" {
			s += " (" + c.Reason + ")"
		}
		if c.Restarts > 0 {
			s += fmt.Sprintf(", start %d", c.Restarts+1)
			if c.Last != "" {
				s += ": the one before " + c.Last
			}
		}
		parts = append(parts, s)
	}
	at := "has no node yet"
	if b.Node != "" {
		at = "on " + b.Node
	}
	return fmt.Sprintf("shard %d %s: %s", b.Shard, at, cmp.Or(strings.Join(parts, "; "), "not begun"))
}

// ofBlocks says which shards run, for a message; "" for a Job of one.
func ofBlocks(o Observed) string {
	b := blocksOf(o.Job, o.Pods)
	if b == nil {
		return ""
	}
	var live []string
	for _, x := range b.Live {
		live = append(live, strconv.Itoa(x.Shard))
	}
	live = slices.Compact(live)
	what := "no shard"
	switch len(live) {
	case 0:
	case 1:
		what = "shard " + live[0]
	default:
		what = "shards " + few(live)
	}
	return fmt.Sprintf("%s of %d, %d complete: ", what, b.Of, b.Done)
}
