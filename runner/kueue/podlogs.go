package kueue

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Printed is what one container of one pod of a run has printed.
type Printed struct {
	Job, Pod, Container string
	Shard               int    // from 1 on; 0 where the Job has one pod
	Cluster             string // MultiKueue's name of the worker cluster; empty is this one

	c *client
}

// String names it in a few words.
func (p Printed) String() string {
	out := p.Job
	if p.Shard > 0 {
		out += fmt.Sprintf(" shard %d", p.Shard)
	}
	out += " " + p.Container
	if p.Cluster != "" {
		out += " on the worker cluster " + p.Cluster
	}
	return out
}

// Printed lists what the newest pod of each shard of a run has printed: of all
// containers, or of one; of all shards, or of one from 1 on. The pods of Jobs that
// MultiKueue has sent away are looked for where they are.
func (v *View) Printed(ctx context.Context, run string, shard int, container string) ([]Printed, error) {
	f, err := v.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	away := f.sentAway(run)
	sources := map[string]*client{"": v.c}
	for _, cluster := range away {
		c := v.workers.of(cluster, v.elsewhere)
		if c == nil {
			return nil, &UserError{"the run's pods are on the worker cluster " + cluster + ", which cannot be reached from here", "add a context named " + cluster + " to the kubeconfig"}
		}
		sources[cluster] = c
	}
	var out []Printed
	known := map[string]bool{}
	pods := 0
	for cluster, c := range sources {
		list, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: labelRun + "=" + labelValue(run)})
		if err != nil {
			return nil, c.explain("look for the run's pods", err)
		}
		for _, p := range newestOfEach(list.Items) {
			if away[p.Labels[batchv1.JobNameLabel]] != cluster || shard > 0 && shardOf(&p) != shard {
				continue
			}
			pods++
			for _, ctr := range append(slices.Clone(p.Spec.InitContainers), p.Spec.Containers...) {
				if known[ctr.Name] = true; container == "" || ctr.Name == container {
					out = append(out, Printed{p.Labels[batchv1.JobNameLabel], p.Name, ctr.Name, shardOf(&p), cluster, c})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Printed) int { return cmp.Or(strings.Compare(a.Job, b.Job), a.Shard-b.Shard) })
	switch {
	case pods == 0:
		return nil, &UserError{fmt.Sprintf("no pod of run %s is there that this is about", run), "see which shards have one with `repromill status " + run + "`; what its commands and clients printed is kept: `repromill logs " + run + "`"}
	case len(out) == 0:
		var names []string
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, &UserError{"no pod of the run has a container " + container, "use one of " + strings.Join(names, ", ")}
	}
	return out, nil
}

// shardOf is a pod's shard from 1 on, 0 for one of a Job of one.
func shardOf(p *corev1.Pod) int {
	i, err := strconv.Atoi(p.Labels[batchv1.JobCompletionIndexAnnotation])
	if err != nil || p.Labels[labelSuite] == "" {
		return 0
	}
	return i + 1
}

// newestOfEach leaves one pod for each index of each Job.
func newestOfEach(pods []corev1.Pod) []corev1.Pod {
	at := map[string]int{}
	var out []corev1.Pod
	for _, p := range pods {
		key := p.Labels[batchv1.JobNameLabel] + "/" + p.Labels[batchv1.JobCompletionIndexAnnotation]
		i, ok := at[key]
		if !ok {
			at[key] = len(out)
			out = append(out, p)
		} else if p.CreationTimestamp.After(out[i].CreationTimestamp.Time) {
			out[i] = p
		}
	}
	return out
}

// NothingPrintedError is a container that has not begun.
type NothingPrintedError struct{ Why string }

func (e *NothingPrintedError) Error() string { return "nothing printed yet: " + e.Why }

// Open reads what was printed: of the start before this one, or of this one, and on
// until the container ends if it is followed.
func (p Printed) Open(ctx context.Context, previous, follow bool) (io.ReadCloser, error) {
	r, err := p.c.kube.CoreV1().Pods(p.c.namespace).GetLogs(p.Pod, &corev1.PodLogOptions{Container: p.Container, Previous: previous, Follow: follow}).Stream(ctx)
	switch {
	case apierrors.IsBadRequest(err), apierrors.IsNotFound(err):
		return nil, &NothingPrintedError{sentence(err.Error())}
	case err != nil:
		return nil, p.c.explain("read the logs of "+p.String(), err)
	}
	return r, nil
}
