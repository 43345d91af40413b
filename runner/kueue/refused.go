package kueue

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Refusal is what the Job controller was told when it last tried to make a pod: a
// ResourceQuota without room, a LimitRange, Pod Security, a webhook. Nothing but
// an event tells of it (k8s.io/kubernetes, pkg/controller/controller_utils.go,
// FailedCreatePodReason).
type Refusal struct {
	Message string    `json:"message"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

const (
	failedCreate = "FailedCreate"
	// podTime is how long the Job controller may take to make a pod before that is
	// worth a request, and silentTime before it is worth a word.
	podTime, silentTime = 3 * time.Second, 30 * time.Second
)

// refusals are the last ones of Jobs, by the Jobs' names; of all where none is
// named. Where events may not be read there are none.
func (c *client) refusals(ctx context.Context, job string) map[string]*Refusal {
	which := fields.Set{"involvedObject.kind": "Job", "reason": failedCreate}
	if job != "" {
		which["involvedObject.name"] = job
	}
	list, err := c.kube.CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: which.AsSelector().String()})
	if err != nil {
		return nil
	}
	out := map[string]*Refusal{}
	for i := range list.Items {
		ev := &list.Items[i]
		first, last := span(ev)
		have := out[ev.InvolvedObject.Name]
		if have == nil {
			have = &Refusal{First: first}
			out[ev.InvolvedObject.Name] = have
		}
		if first.Before(have.First) {
			have.First = first
		}
		if last.After(have.Last) {
			have.Last, have.Message = last, ev.Message
		}
	}
	return out
}

// span is when an event was first and last seen: events are counted in one of two
// ways, and old ones in neither.
func span(ev *corev1.Event) (first, last time.Time) {
	first, last = ev.FirstTimestamp.Time, ev.LastTimestamp.Time
	if first.IsZero() {
		first = ev.EventTime.Time
	}
	if ev.Series != nil && ev.Series.LastObservedTime.After(last) {
		last = ev.Series.LastObservedTime.Time
	}
	if last.IsZero() {
		last = first
	}
	return first, last
}

// lacks is since when an admitted Job has had fewer pods than it may have; zero
// where it has enough, or where that is the way of things.
func lacks(o Observed) time.Time {
	if o.Job == nil || o.Job.DeletionTimestamp != nil || o.Job.Spec.Suspend == nil || *o.Job.Spec.Suspend {
		return time.Time{}
	}
	admitted := o.Workload.is("Admitted")
	if admitted == nil || o.Workload.is("Finished") != nil || o.Workload.Status.ClusterName != "" {
		return time.Time{}
	}
	want, open, since := 1, 0, admitted.LastTransitionTime
	if n := o.Job.Spec.Parallelism; n != nil {
		want = int(*n)
	}
	if n := o.Job.Spec.Completions; n != nil {
		want = min(want, int(*n-o.Job.Status.Succeeded))
	}
	for i := range o.Pods {
		p := &o.Pods[i]
		if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			open++
		}
		if t := lastOf(p); t.After(since) {
			since = t
		}
	}
	if open >= want {
		return time.Time{}
	}
	return since
}

// lastOf is when a pod was made, or else ended.
func lastOf(p *corev1.Pod) time.Time {
	at := p.CreationTimestamp.Time
	for _, s := range p.Status.ContainerStatuses {
		if t := s.State.Terminated; t != nil && t.FinishedAt.After(at) {
			at = t.FinishedAt.Time
		}
	}
	return at
}

// overdue reports whether a Job has lacked a pod for so long that its events are
// worth reading.
func overdue(o Observed) bool {
	since := lacks(o)
	return !since.IsZero() && o.Now.Sub(since) >= podTime
}

// withheld is the refusal that keeps a Job from the pods it lacks, nil for none.
// Events are kept for an hour, and their times are whole seconds.
func withheld(o Observed) *Refusal {
	since := lacks(o)
	if o.Refused == nil || since.IsZero() || o.Refused.Last.Before(since) {
		return nil
	}
	return o.Refused
}

// unmade is the phase of a Job that is admitted and whose pod is not made.
func unmade(p Phase, o Observed) Phase {
	if r := withheld(o); r != nil {
		p.Reason = failedCreate
		p.Message, p.Fix = refusal(r)
		p.Message = "admitted, but " + p.Message
		return p
	}
	if since := lacks(o); !since.IsZero() && o.Now.Sub(since) >= silentTime {
		p.Reason, p.Message = "NoPod", "admitted, and its pod is not made"
		p.Fix = "its events say why: kubectl describe job " + o.Job.Name
	}
	return p
}

// refusal says what refuses a pod, and what to do.
func refusal(r *Refusal) (message, fix string) {
	what := sentence(strings.TrimPrefix(r.Message, "Error creating: "))
	if _, after, ok := strings.Cut(what, " is forbidden: "); ok {
		what = after
	}
	text := strings.ToLower(what)
	switch {
	case strings.Contains(text, "exceeded quota"):
		_, what, _ = strings.Cut(what, "exceeded quota: ")
		return "the namespace's ResourceQuota has no room for its pod (" + what + ")",
			"wait until other pods of the namespace have ended, ask for less, or have the quota raised (kubectl describe resourcequota); it is tried again by itself"
	case strings.Contains(text, "failed quota"):
		return "the namespace's ResourceQuota refuses its pod: " + what, "have the quota changed: it counts what the pod does not state"
	case strings.Contains(text, "violates podsecurity"):
		return "the namespace's Pod Security refuses its pod: " + what, "report this: the pod is meant to pass the restricted standard"
	case strings.Contains(text, " usage per "), strings.Contains(text, "limit to request ratio"):
		return "the namespace's LimitRange does not allow its pod: " + what,
			"ask for what it allows (cluster.cpu, cluster.server_cpu, cluster.server_memory), or have it changed (kubectl describe limitrange); it is tried again by itself"
	case strings.Contains(text, "failed calling webhook"):
		return "a webhook that looks at pods does not answer: " + what, "have it repaired by who runs the cluster; it is tried again by itself"
	}
	return "the cluster refuses its pod: " + what, "correct what the message names; it is tried again by itself"
}
