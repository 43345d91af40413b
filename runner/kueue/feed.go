package kueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// feed is the list and the watch of one kind of object. What they give is cut
// down to what is kept as it comes, page by page.
type feed struct {
	kind  string
	list  func(context.Context, metav1.ListOptions) (items []any, meta metav1.ListMeta, err error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// kinds is how many feeds a fleet has.
const kinds = 3

var errLoading = errors.New("it is not complete yet")

// pageSize keeps what is decoded at once small.
const pageSize = 500

func (f *Fleet) start(ctx context.Context) {
	for _, d := range f.feeds() {
		go f.follow(ctx, d)
	}
}

func (f *Fleet) feeds() [kinds]feed {
	jobs, pods := f.c.kube.BatchV1().Jobs(f.c.namespace), f.c.kube.CoreV1().Pods(f.c.namespace)
	ours := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector = labelManaged + "=" + managedBy
		return o
	}
	return [kinds]feed{
		{"jobs", func(ctx context.Context, o metav1.ListOptions) ([]any, metav1.ListMeta, error) {
			l, err := jobs.List(ctx, ours(o))
			if err != nil {
				return nil, metav1.ListMeta{}, err
			}
			return slim(l.Items), l.ListMeta, nil
		}, func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return jobs.Watch(ctx, ours(o))
		}},
		{"pods", func(ctx context.Context, o metav1.ListOptions) ([]any, metav1.ListMeta, error) {
			l, err := pods.List(ctx, ours(o))
			if err != nil {
				return nil, metav1.ListMeta{}, err
			}
			return slim(l.Items), l.ListMeta, nil
		}, func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, ours(o))
		}},
		{"workloads", f.c.listWorkloads, f.c.watchWorkloads},
	}
}

// follow keeps one kind up to date until the context ends.
func (f *Fleet) follow(ctx context.Context, d feed) {
	version := ""
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		began := time.Now()
		err := f.once(ctx, d, &version)
		if ctx.Err() != nil {
			return
		}
		if gone(err) {
			version = ""
		}
		f.broken(d.kind, err)
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + time.Duration(rand.Int64N(int64(pause)))): // so that many watchers do not come back at once
		}
	}
}

// once reads everything, unless it was read before, and watches until that
// fails.
func (f *Fleet) once(ctx context.Context, d feed, version *string) error {
	if *version == "" {
		var err error
		if *version, err = f.load(ctx, d); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		timeout := int64(300 + rand.IntN(300))
		w, err := d.watch(ctx, metav1.ListOptions{ResourceVersion: *version, AllowWatchBookmarks: true, TimeoutSeconds: &timeout})
		if err != nil {
			return err
		}
		f.broken(d.kind, nil)
		err = f.drain(d, w, version)
		w.Stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) load(ctx context.Context, d feed) (version string, err error) {
	o := metav1.ListOptions{Limit: pageSize}
	for first := true; first || o.Continue != ""; first = false {
		items, meta, err := d.list(ctx, o)
		if err != nil {
			return "", err
		}
		f.mu.Lock()
		if first {
			f.forget(d.kind)
		}
		for _, it := range items {
			f.put(it)
		}
		f.mu.Unlock()
		version, o.Continue = meta.ResourceVersion, meta.Continue
	}
	f.mu.Lock()
	f.loaded[d.kind] = true
	f.touch()
	f.mu.Unlock()
	return version, nil
}

// drain takes events until the server ends the watch, which it does now and
// then. All that have come meanwhile are one change.
func (f *Fleet) drain(d feed, w watch.Interface, version *string) error {
	events := w.ResultChan()
	for ev := range events {
		f.mu.Lock()
		err := f.take(ev, version)
		for n := len(events); err == nil && n > 0; n-- {
			if ev, ok := <-events; ok {
				err = f.take(ev, version)
			}
		}
		f.touch()
		f.mu.Unlock()
		if err != nil {
			return fmt.Errorf("watch %s: %w", d.kind, err)
		}
	}
	return nil
}

func (f *Fleet) take(ev watch.Event, version *string) error {
	if ev.Type == watch.Error {
		return apierrors.FromObject(ev.Object)
	}
	obj, v := prune(ev.Object)
	if v != "" {
		*version = v
	}
	switch ev.Type {
	case watch.Added, watch.Modified:
		f.put(obj)
	case watch.Deleted:
		f.drop(obj)
	}
	return nil
}

func slim[T any](items []T) []any {
	out := make([]any, len(items))
	for i := range items {
		if o, ok := any(&items[i]).(runtime.Object); ok {
			out[i], _ = prune(o)
		}
	}
	return out
}

// prune copies of an object what a fleet keeps.
func prune(obj runtime.Object) (kept any, version string) {
	switch x := obj.(type) {
	case *batchv1.Job:
		j := &batchv1.Job{ObjectMeta: slimMeta(x.ObjectMeta, labelQueue, labelRun, labelAttempt, labelPriority, annotationKey, annotationExpected)}
		j.Spec.Suspend, j.Spec.Completions, j.Spec.ManagedBy = x.Spec.Suspend, x.Spec.Completions, x.Spec.ManagedBy
		j.Spec.Parallelism, j.Spec.ActiveDeadlineSeconds = x.Spec.Parallelism, x.Spec.ActiveDeadlineSeconds
		j.Spec.Template.Spec.InitContainers, j.Spec.Template.Spec.Containers = asking(x.Spec.Template.Spec.InitContainers), asking(x.Spec.Template.Spec.Containers)
		j.Status = *x.Status.DeepCopy()
		j.Status.UncountedTerminatedPods = nil
		return j, x.ResourceVersion
	case *corev1.Pod:
		p := &corev1.Pod{ObjectMeta: slimMeta(x.ObjectMeta, batchv1.JobNameLabel, batchv1.JobCompletionIndexAnnotation)}
		p.Spec.NodeName = x.Spec.NodeName
		if product := x.Spec.NodeSelector[labelProduct]; product != "" {
			p.Spec.NodeSelector = map[string]string{labelProduct: product}
		}
		p.Status = corev1.PodStatus{Phase: x.Status.Phase, Reason: x.Status.Reason, Message: x.Status.Message}
		for _, c := range x.Status.Conditions {
			if c.Status != corev1.ConditionTrue && (c.Type == corev1.PodScheduled || c.Type == corev1.PodReady || c.Type == corev1.ContainersReady) {
				p.Status.Conditions = append(p.Status.Conditions, c)
			}
		}
		p.Status.InitContainerStatuses, p.Status.ContainerStatuses = slimContainers(x.Status.InitContainerStatuses), slimContainers(x.Status.ContainerStatuses)
		return p, x.ResourceVersion
	case *workloadEvent:
		return x.Workload, x.Metadata.ResourceVersion
	}
	return nil, ""
}

func slimMeta(m metav1.ObjectMeta, keys ...string) metav1.ObjectMeta {
	out := metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp}
	for _, k := range keys {
		if v, ok := m.Labels[k]; ok {
			if out.Labels == nil {
				out.Labels = map[string]string{}
			}
			out.Labels[k] = v
		}
		if v, ok := m.Annotations[k]; ok {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[k] = v
		}
	}
	return out
}

// asking are the containers that count against a quota from start to end, with
// nothing but what they ask for.
func asking(list []corev1.Container) (out []corev1.Container) {
	for _, c := range list {
		if len(c.Resources.Requests) > 0 {
			out = append(out, corev1.Container{Resources: corev1.ResourceRequirements{Requests: c.Resources.Requests}})
		}
	}
	return out
}

func slimContainers(list []corev1.ContainerStatus) (out []corev1.ContainerStatus) {
	for _, s := range list {
		out = append(out, corev1.ContainerStatus{
			Name: s.Name, Image: s.Image, State: *s.State.DeepCopy(), LastTerminationState: *s.LastTerminationState.DeepCopy(), Started: s.Started, RestartCount: s.RestartCount,
		})
	}
	return out
}

// workloadEvent is a Workload as the watch of client-go wants it.
type workloadEvent struct{ *Workload }

// GetObjectKind is part of runtime.Object and not used.
func (workloadEvent) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject is part of runtime.Object; an event is handed on, never
// shared.
func (w *workloadEvent) DeepCopyObject() runtime.Object { return w }

func (c *client) listWorkloads(ctx context.Context, o metav1.ListOptions) ([]any, metav1.ListMeta, error) {
	var list struct {
		Metadata metav1.ListMeta `json:"metadata"`
		Items    []Workload      `json:"items"`
	}
	err := c.raw(ctx, &list, c.kueue("workloads"), "limit", fmt.Sprint(o.Limit), "continue", o.Continue)
	out := make([]any, len(list.Items))
	for i := range list.Items {
		w := list.Items[i]
		out[i] = &w
	}
	return out, list.Metadata, err
}

// watchWorkloads reads a watch as it is on the wire: a JSON document for each
// event.
func (c *client) watchWorkloads(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	body, err := c.kube.Discovery().RESTClient().Get().AbsPath(c.kueue("workloads")).SetHeader("Accept", "application/json").
		Param("watch", "true").Param("allowWatchBookmarks", "true").Param("resourceVersion", o.ResourceVersion).Param("timeoutSeconds", fmt.Sprint(*o.TimeoutSeconds)).Stream(ctx)
	if err != nil {
		return nil, err
	}
	return watch.NewStreamWatcher(&workloadStream{json.NewDecoder(body), body}, errorReporter{}), nil
}

type workloadStream struct {
	dec  *json.Decoder
	body io.Closer
}

// Decode reads one event.
func (s *workloadStream) Decode() (watch.EventType, runtime.Object, error) {
	var ev struct {
		Type   watch.EventType `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := s.dec.Decode(&ev); err != nil {
		return "", nil, err
	}
	if ev.Type == watch.Error {
		var st metav1.Status
		err := json.Unmarshal(ev.Object, &st)
		return ev.Type, &st, err
	}
	var w Workload
	err := json.Unmarshal(ev.Object, &w)
	return ev.Type, &workloadEvent{&w}, err
}

// Close ends the stream.
func (s *workloadStream) Close() { s.body.Close() }

// errorReporter turns a stream that cannot be read into an event.
type errorReporter struct{}

// AsObject wraps the error as the API would.
func (errorReporter) AsObject(err error) runtime.Object {
	st := apierrors.NewInternalError(fmt.Errorf("decode a watch event: %w", err)).Status()
	return &st
}
