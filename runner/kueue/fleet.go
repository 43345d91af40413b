package kueue

import (
	"context"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Fleet is a live picture of all Jobs of repromill in a namespace, whoever
// submitted them: three watches, of Jobs, of their pods and of Workloads, in
// place of four requests for each Job and look. It keeps of the objects what
// [PhaseOf] and the summary read, which is a small part of them.
//
// A picture that is not up to date, because the server is away, says so: see
// Fresh. Its last content is kept meanwhile.
type Fleet struct {
	c   *client
	now func() time.Time

	mu        sync.Mutex
	jobs      map[string]*batchv1.Job           // by name
	pods      map[string]map[string]*corev1.Pod // by the Job's name and their own
	workloads map[string]*Workload              // by name
	byJob     map[types.UID]string              // name of a Job's Workload
	jobOf     map[types.UID]string              // name of the Job of a UID
	phases    map[string]Phase                  // of Jobs that have not changed since
	noticed   time.Time                         // when Kueue last made a Workload
	loaded    map[string]bool                   // kinds that were read once
	stale     map[string]error                  // kinds whose watch is broken
	changed   chan struct{}                     // closed at the next change
	positions map[string]places                 // by LocalQueue
	refused   map[string]*Refusal               // by the Job's name, of those that lack pods
	asked     time.Time                         // when refusals were read
	outlooks  map[string]seenOutlook            // by LocalQueue
}

// seenOutlook is an outlook of a moment ago.
type seenOutlook struct {
	at time.Time
	Outlook
}

// outlookAge is how old an outlook may be: working one out costs as much as
// hundreds of changes.
const outlookAge = 30 * time.Second

// places are the positions in one queue, as they were a moment ago.
type places struct {
	at   time.Time
	list map[string]int
}

// placesAge is how old positions may be: all of a queue come with one request.
const placesAge = 10 * time.Second

func newFleet(c *client, now func() time.Time) *Fleet {
	return &Fleet{
		c: c, now: now, jobs: map[string]*batchv1.Job{}, pods: map[string]map[string]*corev1.Pod{}, workloads: map[string]*Workload{},
		byJob: map[types.UID]string{}, jobOf: map[types.UID]string{}, phases: map[string]Phase{}, loaded: map[string]bool{}, stale: map[string]error{},
		changed: make(chan struct{}), positions: map[string]places{}, outlooks: map[string]seenOutlook{},
	}
}

func (f *Fleet) complete() bool { return len(f.loaded) == kinds && len(f.stale) == 0 }

// Fresh returns nil while the picture is complete and its watches stand, and
// else why not.
func (f *Fleet) Fresh() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for kind, err := range f.stale {
		return fmt.Errorf("watch %s: %w", kind, err)
	}
	if len(f.loaded) < kinds {
		return fmt.Errorf("read the namespace: %w", errLoading)
	}
	return nil
}

// Changed is closed when something has changed since it was asked for. Who
// waits a while after it sees many changes as one.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Each calls fn with a summary now and after changes, at most once in the given
// time, until fn returns an error or the context ends.
func (f *Fleet) Each(ctx context.Context, least time.Duration, fn func(Summary) error) error {
	for {
		changed := f.Changed()
		if err := fn(f.Summary(ctx)); err != nil {
			return err
		}
		again := after(30 * least) // time alone changes an estimate
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-after(least):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-again:
		}
	}
}

func after(d time.Duration) <-chan struct{} {
	out := make(chan struct{})
	time.AfterFunc(d, func() { close(out) })
	return out
}

func (f *Fleet) touch() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Len is how many Jobs there are.
func (f *Fleet) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.jobs)
}

// Observed is what there is of a Job, without its position. ok is false for a
// Job that is not seen, which is not to say that there is none.
func (f *Fleet) Observed(name string) (o Observed, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.observed(name)
}

func (f *Fleet) observed(name string) (o Observed, ok bool) {
	o.Now = f.now()
	if o.Job, ok = f.jobs[name]; !ok {
		return o, false
	}
	o.Workload = f.workloads[f.byJob[o.Job.UID]]
	for _, p := range f.pods[name] {
		o.Pods = append(o.Pods, *p)
	}
	o.Refused = f.refused[name]
	return o, true
}

// askRefusals reads why pods are not made, once in a while and with one request,
// where a Job lacks some.
func (f *Fleet) askRefusals(ctx context.Context) {
	f.mu.Lock()
	var lacking []string
	if f.now().Sub(f.asked) >= placesAge {
		for name := range f.jobs {
			if o, _ := f.observed(name); overdue(o) {
				lacking = append(lacking, name)
			}
		}
	}
	f.mu.Unlock()
	if len(lacking) == 0 {
		return
	}
	refused := f.c.refusals(ctx, "")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused, f.asked = refused, f.now()
	for _, name := range lacking {
		delete(f.phases, name)
	}
}

// sentAway are the Jobs of a run that have been sent to worker clusters, with
// their names.
func (f *Fleet) sentAway(run string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]string{}
	for name, job := range f.jobs {
		w := f.workloads[f.byJob[job.UID]]
		if w != nil && w.Status.ClusterName != "" && job.Labels[labelRun] == labelValue(run) {
			out[name] = w.Status.ClusterName
		}
	}
	return out
}

// phase is where a Job stands; it is worked out once for each change.
func (f *Fleet) phase(name string) Phase {
	p, ok := f.phases[name]
	if !ok {
		o, _ := f.observed(name)
		p = PhaseOf(o)
		if p.Reason == "NoWorkload" && f.now().Sub(f.noticed) < noticeTime {
			p = Phase{State: Queued, Reason: "Submitted", Message: "submitted; Kueue is busy with other Jobs and has not come to it yet", Since: p.Since}
		}
		if o.Workload != nil && p.Reason != "Admitted" && p.Reason != "Terminating" { // else it becomes another with time alone
			f.phases[name] = p
		}
	}
	return p
}

// Positions are the places in a LocalQueue by the names of Workloads.
func (f *Fleet) Positions(ctx context.Context, queue string) map[string]int {
	f.mu.Lock()
	p := f.positions[queue]
	f.mu.Unlock()
	if f.now().Sub(p.at) < placesAge {
		return p.list
	}
	p = places{f.now(), f.c.positions(ctx, queue)}
	f.mu.Lock()
	f.positions[queue] = p
	f.mu.Unlock()
	return p.list
}

func (f *Fleet) outlook(ctx context.Context, queue string) Outlook {
	f.mu.Lock()
	o := f.outlooks[queue]
	f.mu.Unlock()
	if f.now().Sub(o.at) < outlookAge {
		return o.Outlook
	}
	o = seenOutlook{f.now(), f.Outlook(ctx, queue)}
	f.mu.Lock()
	f.outlooks[queue] = o
	f.mu.Unlock()
	return o.Outlook
}

// put and drop take over what a watch tells.
func (f *Fleet) put(obj any) {
	switch x := obj.(type) {
	case *batchv1.Job:
		f.jobs[x.Name], f.jobOf[x.UID] = x, x.Name
		delete(f.phases, x.Name)
	case *corev1.Pod:
		job := x.Labels[batchv1.JobNameLabel]
		if f.pods[job] == nil {
			f.pods[job] = map[string]*corev1.Pod{}
		}
		f.pods[job][x.Name] = x
		delete(f.phases, job)
	case *Workload:
		uid := types.UID(x.Metadata.Labels[labelJobUID])
		f.workloads[x.Metadata.Name] = x
		if t := x.Metadata.CreationTimestamp; t.After(f.noticed) {
			f.noticed = t
		}
		if uid != "" {
			f.byJob[uid] = x.Metadata.Name
			delete(f.phases, f.jobOf[uid])
		}
	}
}

func (f *Fleet) drop(obj any) {
	switch x := obj.(type) {
	case *batchv1.Job:
		if have := f.jobs[x.Name]; have != nil && have.UID == x.UID {
			delete(f.jobs, x.Name)
			delete(f.phases, x.Name)
		}
		delete(f.jobOf, x.UID)
	case *corev1.Pod:
		job := x.Labels[batchv1.JobNameLabel]
		if delete(f.pods[job], x.Name); len(f.pods[job]) == 0 {
			delete(f.pods, job)
		}
		delete(f.phases, job)
	case *Workload:
		uid := types.UID(x.Metadata.Labels[labelJobUID])
		delete(f.workloads, x.Metadata.Name)
		if f.byJob[uid] == x.Metadata.Name {
			delete(f.byJob, uid)
			delete(f.phases, f.jobOf[uid])
		}
	}
}

// forget empties the picture of one kind before it is read anew.
func (f *Fleet) forget(kind string) {
	switch kind {
	case "jobs":
		clear(f.jobs)
		clear(f.jobOf)
		clear(f.phases)
	case "pods":
		clear(f.pods)
		clear(f.phases)
	case "workloads":
		clear(f.workloads)
		clear(f.byJob)
		clear(f.phases)
	}
}

func (f *Fleet) broken(kind string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.stale, kind)
	} else {
		f.stale[kind] = err
	}
	f.touch()
}

// gone reports whether a watch cannot go on from where it was.
func gone(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }
