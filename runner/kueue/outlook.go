package kueue

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/repromill/repromill/planner/spec"
)

// Outlook is when the Jobs of a LocalQueue are expected to start and to end.
type Outlook struct {
	Queue string          `json:"queue"`
	Start map[string]Wait `json:"start_in"` // of those that wait, by the name of the Job
	End   map[string]Wait `json:"end_in"`
	Done  *Wait           `json:"done_in,omitempty"` // of all
}

// recent is how far back newcomers are counted.
const recent = 6 * time.Hour

// Outlook foresees a queue from what the picture shows of it, from its quota
// where that may be read, and from the positions where the visibility API is
// installed. It holds for a moment and is an estimate.
func (f *Fleet) Outlook(ctx context.Context, queue string) Outlook {
	out := Outlook{Queue: queue, Start: map[string]Wait{}, End: map[string]Wait{}}
	l := f.line(ctx, queue, nil)
	if len(l.tasks) == 0 {
		return out
	}
	fc := foresee(l, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, w := range fc.end { // tasks have the names of Workloads
		job := f.jobOf[jobUID(f.workloads[name])]
		if job == "" {
			continue
		}
		out.End[job] = w
		if s, ok := fc.start[name]; ok {
			out.Start[job] = s
		}
	}
	if len(fc.end) == len(l.tasks) {
		out.Done = &fc.done
	}
	return out
}

// line is the queue as a forecast takes it, with one more task at its end where
// that is not nil.
func (f *Fleet) line(ctx context.Context, queue string, more *task) line {
	positions := f.Positions(ctx, queue)
	quota, basis := f.quota(ctx, queue)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	var l line
	var waiting []*Workload
	var stays []stay
	since := now
	for name, w := range f.workloads {
		if w.Spec.QueueName != queue {
			continue
		}
		t := f.task(name, w, now)
		if t.lag > 0 {
			l.record.lags = append(l.record.lags, t.lag)
		}
		stays = append(stays, stayOf(w))
		if created := w.Metadata.CreationTimestamp; now.Sub(created) < recent {
			l.like = append(l.like, t)
			if created.Before(since) {
				since = created
			}
		}
		switch {
		case w.is("Finished") != nil:
			f.record(&l.record, w, t)
		case w.Spec.Active != nil && !*w.Spec.Active:
		case t.runs:
			l.tasks = append(l.tasks, t)
		default:
			waiting = append(waiting, w)
		}
	}
	l.record.gaps = handovers(stays)
	slices.SortFunc(l.tasks, func(a, b task) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(l.like, func(a, b task) int { return strings.Compare(a.name, b.name) })
	if window := now.Sub(since); window > time.Minute {
		l.rate = float64(len(l.like)) / window.Seconds()
	}
	slices.SortFunc(waiting, func(a, b *Workload) int {
		pa, oka := positions[a.Metadata.Name]
		pb, okb := positions[b.Metadata.Name]
		if oka && okb {
			return pa - pb
		}
		return cmp.Or(int(b.Spec.Priority)-int(a.Spec.Priority), a.Metadata.CreationTimestamp.Compare(b.Metadata.CreationTimestamp), strings.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	for _, w := range waiting {
		l.tasks = append(l.tasks, f.task(w.Metadata.Name, w, now))
	}
	if more != nil {
		l.tasks = append(l.tasks, *more)
	}
	quota.apply(&l, len(waiting))
	l.basis = basis
	return l
}

func jobUID(w *Workload) (uid types.UID) {
	if w == nil {
		return ""
	}
	return types.UID(w.Metadata.Labels[labelJobUID])
}

// task is a Workload as a forecast takes it.
func (f *Fleet) task(name string, w *Workload, now time.Time) task {
	t := task{name: name, need: w.requests()}
	if at := w.is("QuotaReserved"); at != nil {
		t.runs, t.elapsed = true, max(0, now.Sub(at.LastTransitionTime).Seconds())
	}
	name = f.jobOf[jobUID(w)]
	job := f.jobs[name]
	if job == nil {
		return t
	}
	if from, _ := f.command(name); !from.IsZero() {
		if at := w.is("Admitted"); at != nil {
			t.lag = max(timestamp/2, from.Sub(at.LastTransitionTime).Seconds())
		}
	}
	if len(t.need) == 0 {
		t.need = jobRequests(job)
	}
	t.expected = expectedOf(job)
	if s := job.Spec.ActiveDeadlineSeconds; s != nil {
		t.limit = float64(*s)
	}
	return t
}

// expectedOf reads how long a Job is expected to run, nil where that is not said.
func expectedOf(job *batchv1.Job) *spec.Interval {
	text := job.Annotations[annotationExpected]
	if text == "" {
		return nil
	}
	var in spec.Interval
	if json.Unmarshal([]byte(text), &in) != nil || !(in.P50 > 0) || in.P10 > in.P50 || in.P90 < in.P50 {
		return nil // of somebody else's making
	}
	return &in
}

func jobRequests(job *batchv1.Job) map[string]float64 {
	out := map[string]float64{}
	add := func(list corev1.ResourceList) {
		for name, q := range list {
			out[string(name)] += q.AsApproximateFloat64()
		}
	}
	for _, c := range append(slices.Clone(job.Spec.Template.Spec.InitContainers), job.Spec.Template.Spec.Containers...) {
		add(c.Resources.Requests)
	}
	for name := range out {
		if p := job.Spec.Parallelism; p != nil {
			out[name] *= float64(*p)
		}
	}
	return out
}

// record takes what a Workload that has ended tells: how long it had its quota.
func (f *Fleet) record(h *history, w *Workload, t task) {
	end, begin := w.is("Finished"), w.is("Admitted")
	if begin == nil || end.Reason == "Failed" {
		return // what failed early says nothing of what succeeds
	}
	took := end.LastTransitionTime.Sub(begin.LastTransitionTime).Seconds()
	if took <= 0 {
		return
	}
	h.took = append(h.took, took)
	if t.expected == nil {
		return
	}
	if from, to := f.command(f.jobOf[jobUID(w)]); to.After(from) {
		took = to.Sub(from).Seconds()
	}
	h.ratios = append(h.ratios, took/t.expected.P50)
}

// timestamp is the resolution of the cluster's times, in seconds.
const timestamp = 1.0

// command is when the command of a Job of one pod began and ended, as far as that is
// seen; an earlier pod of it, that ended without success, is not looked at.
func (f *Fleet) command(name string) (from, to time.Time) {
	job := f.jobs[name]
	if job == nil || job.Spec.Completions != nil && *job.Spec.Completions > 1 || len(f.pods[name]) != 1 {
		return from, to
	}
	for _, p := range f.pods[name] {
		for _, s := range p.Status.ContainerStatuses {
			if r := s.State.Running; r != nil {
				from = r.StartedAt.Time
			}
			if t := s.State.Terminated; t != nil {
				from, to = t.StartedAt.Time, t.FinishedAt.Time
			}
		}
	}
	return from, to
}

// stayOf is a Workload's way through its queue, in seconds.
func stayOf(w *Workload) stay {
	out := stay{created: float64(w.Metadata.CreationTimestamp.Unix())}
	if c := w.is("Admitted"); c != nil {
		out.admitted = float64(c.LastTransitionTime.Unix())
	}
	if c := w.is("Finished"); c != nil {
		out.ended = float64(c.LastTransitionTime.Unix())
	}
	return out
}

// quota is what is known of the ClusterQueue behind a LocalQueue.
type quota struct {
	known   bool
	nominal map[string]float64 // by resource, all flavours together
	used    map[string]float64
	strict  bool
	pending int
}

// quota reads it; a submitter may not be allowed to.
func (f *Fleet) quota(ctx context.Context, queue string) (q quota, basis string) {
	var lq localQueue
	var cq clusterQueue
	err := f.c.raw(ctx, &lq, f.c.kueue("localqueues")+"/"+queue)
	if err == nil {
		err = f.c.raw(ctx, &cq, kueueAPI+"/clusterqueues/"+lq.Spec.ClusterQueue)
	}
	if err != nil {
		return q, "its quota may not be read and is taken for what runs now"
	}
	q = quota{known: true, nominal: map[string]float64{}, used: map[string]float64{}, strict: cq.Spec.QueueingStrategy == "StrictFIFO", pending: cq.Status.PendingWorkloads}
	for _, g := range cq.Spec.ResourceGroups {
		for _, fl := range g.Flavors {
			for _, r := range fl.Resources {
				q.nominal[r.Name] += r.NominalQuota.AsApproximateFloat64()
			}
		}
	}
	for _, fl := range cq.Status.FlavorsReservation {
		for _, r := range fl.Resources {
			q.used[r.Name] += r.Total.AsApproximateFloat64()
		}
	}
	return q, ""
}

// apply gives a line its room: the quota without what others hold of it.
func (q quota) apply(l *line, waiting int) {
	ours := map[string]float64{}
	for i := range l.tasks {
		if l.tasks[i].runs {
			for name, n := range l.tasks[i].need {
				ours[name] += n
			}
		}
	}
	l.room = ours // the queue is full, or nothing would wait
	if q.known {
		l.room = map[string]float64{}
		for name, n := range q.nominal {
			l.room[name] = n - max(0, q.used[name]-ours[name])
		}
	}
	l.strict, l.others = q.strict, max(0, q.pending-waiting)
}
