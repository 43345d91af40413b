package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner/kueue"
	"github.com/repromill/repromill/runner/store"
)

// clusterView looks at the cluster of the configuration; it needs no volume and
// no image.
func (a *app) clusterView() (*kueue.View, error) {
	return kueue.NewView(kueue.Config{Kubeconfig: a.env["KUBECONFIG"], Context: a.cfg.String("cluster.context"), Namespace: a.cfg.String("cluster.namespace"), Now: a.now})
}

// statusCluster shows how all Jobs of the namespace stand.
func (a *app) statusCluster(ctx context.Context) error {
	v, err := a.clusterView()
	if err != nil {
		return err
	}
	s, err := v.Summary(ctx)
	if err != nil {
		return err
	}
	if a.jsonOut {
		return a.printJSON(s)
	}
	_, err = io.WriteString(a.stdout, summaryText(s))
	return err
}

// Between two pictures of a watch: on a terminal, where each replaces the one
// before, and in a file.
const (
	drawEvery  = time.Second
	printEvery = 10 * time.Second
)

// watchCluster follows all Jobs of the namespace until it is stopped.
func (a *app) watchCluster(ctx context.Context) error {
	v, err := a.clusterView()
	if err != nil {
		return err
	}
	f, err := v.Fleet(ctx)
	if err != nil {
		return err
	}
	_, tty := isTerminal(a.stdout)
	every := printEvery
	if tty = tty && a.env["TERM"] != "dumb"; tty || a.jsonOut {
		every = drawEvery
	}
	enc := json.NewEncoder(a.stdout)
	drawn, last := 0, ""
	return f.Each(ctx, every, func(s kueue.Summary) error {
		if a.jsonOut {
			return enc.Encode(s)
		}
		text := summaryText(s)
		switch {
		case tty && drawn > 0:
			fmt.Fprintf(a.stdout, "\x1b[%dA\x1b[J", drawn)
		case !tty && text == last:
			return nil
		case !tty:
			fmt.Fprintln(a.stdout, s.Time.Format("15:04:05 UTC"))
		}
		drawn, last = strings.Count(text, "\n"), text
		_, err := io.WriteString(a.stdout, text)
		return err
	})
}

// summaryText is a summary in a few lines, however many Jobs there are.
func summaryText(s kueue.Summary) string {
	var b strings.Builder
	if s.Stale != "" {
		fmt.Fprintf(&b, "the cluster cannot be seen at the moment; what was seen last: (%s)\n", clean(oneLine(s.Stale)))
	}
	if s.Jobs == 0 {
		fmt.Fprintf(&b, "no Jobs in namespace %s\n", s.Namespace)
		return b.String()
	}
	fmt.Fprintf(&b, "namespace %s: %s of %s: %s\n", s.Namespace, count(s.Jobs, "Job"), count(s.Runs, "run"), statesText(s.States))
	for _, q := range s.Queues {
		fmt.Fprintf(&b, "%s: %s of %s: %s\n", q.Queue, count(q.Jobs, "Job"), count(q.Runs, "run"), statesText(q.States))
		if len(q.Workers) > 0 {
			var parts []string
			for _, name := range sortedKeys(q.Workers) {
				parts = append(parts, fmt.Sprintf("%d on %s", q.Workers[name], name))
			}
			fmt.Fprintf(&b, "  worker clusters: %s\n", strings.Join(parts, ", "))
		}
		if o := q.Oldest; o != nil {
			fmt.Fprintf(&b, "  longest waiting, %s: %s, %s\n", roughly(s.Time.Sub(o.Since).Seconds()), o.Job, clean(oneLine(o.Message)))
			if o.Start != nil {
				fmt.Fprintf(&b, "    starts %s\n", waitText(*o.Start))
			}
		}
		for _, n := range q.Needs {
			fmt.Fprintf(&b, "  %s %s: %s\n    fix: %s\n", count(n.Jobs, "Job"), n.State, clean(oneLine(n.Message)), clean(oneLine(n.Fix)))
		}
		if q.Done != nil {
			fmt.Fprintf(&b, "  all end %s\n", waitText(*q.Done))
		}
	}
	return b.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// stateOrder is how far a Job has come.
var stateOrder = []kueue.State{
	kueue.Running, kueue.Starting, kueue.Provisioning, kueue.Queued, kueue.Preempted, kueue.Blocked, kueue.Unmanaged, kueue.Stopping,
	kueue.Succeeded, kueue.Failed, kueue.Cancelled, kueue.Lost,
}

func statesText(states map[kueue.State]int) string {
	var parts []string
	for _, s := range stateOrder {
		if n := states[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(parts, ", ")
}

// waitText says how long something takes, what kind of number that is and where
// it comes from.
func waitText(w kueue.Wait) string {
	return fmt.Sprintf("in about %s (%s to %s in four of five cases; %s: %s)", roughly(w.P50), roughly(w.P10), roughly(w.P90), w.Kind, clean(w.Source))
}

// roughly is a time in the words that an estimate deserves.
func roughly(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()+0.5))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

// onCluster reports whether a run has attempts in a cluster that have not ended.
func onCluster(list []store.Attempt) bool {
	return slices.ContainsFunc(list, func(t store.Attempt) bool { return !t.Final && kueue.IsHandle(t.Handle) })
}

// lookTime is how long `status` waits for a cluster.
const lookTime = 10 * time.Second

// jobsOf are the Jobs of a run, and why they cannot be seen where they cannot.
func (a *app) jobsOf(ctx context.Context, run string) ([]kueue.Line, error) {
	v, err := a.clusterView()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return v.Jobs(ctx, run)
}

func printJobs(w io.Writer, jobs []kueue.Line) {
	for _, j := range jobs {
		fmt.Fprintf(w, "job\t%s %s in %s: %s\n", j.Job, j.State, j.Queue, clean(oneLine(j.Message)))
		if j.Fix != "" {
			fmt.Fprintf(w, "\tfix: %s\n", clean(oneLine(j.Fix)))
		}
		if j.Blocks != nil {
			for _, b := range j.Blocks.Live {
				fmt.Fprintf(w, "\t%s\n", clean(oneLine(b.String())))
			}
		}
		if j.Start != nil {
			fmt.Fprintf(w, "\tstarts %s\n", waitText(*j.Start))
		}
		if j.End != nil {
			fmt.Fprintf(w, "\tends %s\n", waitText(*j.End))
		}
	}
}
