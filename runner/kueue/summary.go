package kueue

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// Summary is a fleet in a few lines.
type Summary struct {
	Time      time.Time     `json:"time"`
	Namespace string        `json:"namespace"`
	Jobs      int           `json:"jobs"`
	Runs      int           `json:"runs"`
	States    map[State]int `json:"states"`
	Queues    []QueueLine   `json:"queues"` // those with Jobs, by name
	// Stale says why the picture is not up to date, where it is not.
	Stale string `json:"stale,omitempty"`
}

// QueueLine is a LocalQueue's part of a summary.
type QueueLine struct {
	Queue  string        `json:"queue"`
	Jobs   int           `json:"jobs"`
	Runs   int           `json:"runs"`
	States map[State]int `json:"states"`
	// Oldest is the Job that has waited longest of those that wait.
	Oldest *Waiter `json:"oldest_waiting,omitempty"`
	// Needs are what somebody has to do something about, most Jobs first.
	Needs []Need `json:"needs,omitempty"`
	// Workers are the clusters that have Jobs of this queue, by MultiKueue.
	Workers map[string]int `json:"workers,omitempty"`
	// Done is when the last of them is expected to end.
	Done *Wait `json:"done_in,omitempty"`
}

// Waiter is a Job that waits.
type Waiter struct {
	Job     string    `json:"job"`
	Run     string    `json:"run,omitempty"`
	Attempt string    `json:"attempt,omitempty"`
	Since   time.Time `json:"since"`
	State   State     `json:"state"`
	Message string    `json:"message"`
	// Start is when it is expected to be admitted.
	Start *Wait `json:"start_in,omitempty"`
}

// Need is a reason that holds Jobs up, with what to do.
type Need struct {
	State   State  `json:"state"`
	Reason  string `json:"reason"`
	Message string `json:"message"` // of one of the Jobs
	Fix     string `json:"fix"`
	Jobs    int    `json:"jobs"`
	Job     string `json:"job"` // one of them
}

// waits are the states in which a Job holds no quota.
func waits(s State) bool { return s == Queued || s == Preempted || s == Blocked || s == Unmanaged }

// mostNeeds bounds the lines of a queue.
const mostNeeds = 4

// Summary is what the picture shows now, with an outlook for the queues in
// which something waits or runs.
func (f *Fleet) Summary(ctx context.Context) Summary {
	f.askRefusals(ctx)
	out := f.tally()
	if out.Stale != "" {
		return out
	}
	for i := range out.Queues {
		l := &out.Queues[i]
		if l.Jobs == l.States[Succeeded]+l.States[Failed]+l.States[Cancelled] {
			continue
		}
		o := f.outlook(ctx, l.Queue)
		l.Done = o.Done
		if w, ok := o.Start[l.oldest()]; ok {
			l.Oldest.Start = &w
		}
	}
	return out
}

func (l *QueueLine) oldest() string {
	if l.Oldest == nil {
		return ""
	}
	return l.Oldest.Job
}

func (f *Fleet) tally() Summary {
	out := Summary{Time: f.now().UTC(), Namespace: f.c.namespace, States: map[State]int{}}
	if err := f.Fresh(); err != nil {
		out.Stale = err.Error()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := map[string]*queueTally{}
	runs := map[string]bool{}
	for name, job := range f.jobs {
		queue, run := job.Labels[labelQueue], job.Labels[labelRun]
		l := lines[queue]
		if l == nil {
			l = &queueTally{line: QueueLine{Queue: queue, States: map[State]int{}}, runs: map[string]bool{}, needs: map[string]*Need{}}
			lines[queue] = l
		}
		p := f.phase(name)
		out.Jobs++
		out.States[p.State]++
		runs[run], l.runs[run] = true, true
		l.add(f, name, p)
	}
	out.Runs = len(runs)
	for _, l := range lines {
		out.Queues = append(out.Queues, l.end())
	}
	slices.SortFunc(out.Queues, func(a, b QueueLine) int { return strings.Compare(a.Queue, b.Queue) })
	return out
}

type queueTally struct {
	line  QueueLine
	runs  map[string]bool
	needs map[string]*Need
}

func (l *queueTally) add(f *Fleet, name string, p Phase) {
	job := f.jobs[name]
	l.line.Jobs++
	l.line.States[p.State]++
	if waits(p.State) {
		since := job.CreationTimestamp.Time
		if o := l.line.Oldest; o == nil || since.Before(o.Since) || since.Equal(o.Since) && name < o.Job {
			l.line.Oldest = &Waiter{Job: name, Run: job.Labels[labelRun], Attempt: job.Annotations[annotationKey], Since: since, State: p.State, Message: p.Message}
		}
	}
	if w := f.workloads[f.byJob[job.UID]]; w != nil && w.Status.ClusterName != "" {
		if l.line.Workers == nil {
			l.line.Workers = map[string]int{}
		}
		l.line.Workers[w.Status.ClusterName]++
	}
	if p.Fix == "" || p.State == Succeeded || p.State == Cancelled {
		return
	}
	key := string(p.State) + "/" + p.Reason + "/" + p.Fix
	n := l.needs[key]
	if n == nil {
		n = &Need{State: p.State, Reason: p.Reason, Message: p.Message, Fix: p.Fix, Job: name}
		l.needs[key] = n
	}
	if n.Jobs++; name < n.Job {
		n.Job, n.Message = name, p.Message
	}
}

func (l *queueTally) end() QueueLine {
	l.line.Runs = len(l.runs)
	for _, n := range l.needs {
		l.line.Needs = append(l.line.Needs, *n)
	}
	slices.SortFunc(l.line.Needs, func(a, b Need) int {
		return cmp.Or(cmp.Compare(b.Jobs, a.Jobs), strings.Compare(a.Message, b.Message))
	})
	l.line.Needs = l.line.Needs[:min(len(l.line.Needs), mostNeeds)]
	return l.line
}

// Line is one Job in a few words.
type Line struct {
	Job     string `json:"job"`
	Run     string `json:"run,omitempty"`
	Attempt string `json:"attempt,omitempty"`
	Queue   string `json:"queue"`
	Phase
	Start *Wait `json:"start_in,omitempty"` // of one that waits
	End   *Wait `json:"end_in,omitempty"`
	// Blocks are the shards of a Job that has several.
	Blocks *Blocks `json:"blocks,omitempty"`
}

// lines are the Jobs of a run, in the order of their names.
func (f *Fleet) lines(ctx context.Context, run string) (out []Line) {
	queues := map[string]Outlook{}
	f.askRefusals(ctx)
	f.mu.Lock()
	for name, job := range f.jobs {
		if job.Labels[labelRun] == labelValue(run) {
			o, _ := f.observed(name)
			out = append(out, Line{Job: name, Run: run, Attempt: job.Annotations[annotationKey], Queue: job.Labels[labelQueue], Phase: f.phase(name), Blocks: blocksOf(job, o.Pods)})
		}
	}
	f.mu.Unlock()
	slices.SortFunc(out, func(a, b Line) int { return strings.Compare(a.Job, b.Job) })
	for i := range out {
		l := &out[i]
		if !waits(l.State) && l.State != Running && l.State != Starting {
			continue
		}
		o, ok := queues[l.Queue]
		if !ok {
			o = f.outlook(ctx, l.Queue)
			queues[l.Queue] = o
		}
		if w, ok := o.Start[l.Job]; ok {
			l.Start = &w
		}
		if w, ok := o.End[l.Job]; ok {
			l.End = &w
		}
	}
	return out
}
