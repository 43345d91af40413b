package kueue

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/repromill/repromill/runner"
)

// Explanation says what would become of an attempt, without submitting it.
type Explanation struct {
	Queue        string `json:"queue"`
	ClusterQueue string `json:"cluster_queue,omitempty"`
	// Fits is "now", "later", "never" or "unknown".
	Fits     string            `json:"fits"`
	Flavor   string            `json:"flavor,omitempty"`
	Requests map[string]string `json:"requests"` // by resource
	Reason   string            `json:"reason"`
	Fix      string            `json:"fix,omitempty"`
	Pending  int               `json:"pending"` // Workloads that wait in the queue now
	// Wait is until it is admitted. Absent where nothing is known.
	Wait *Wait `json:"wait,omitempty"`
}

// localQueue and clusterQueue are what is read of Kueue's objects of these
// names (apis/kueue/v1beta2).
type localQueue struct {
	Spec struct {
		ClusterQueue string `json:"clusterQueue"`
		StopPolicy   string `json:"stopPolicy"`
	} `json:"spec"`
	Status struct {
		PendingWorkloads int         `json:"pendingWorkloads"`
		Conditions       []Condition `json:"conditions"`
	} `json:"status"`
}

type quantity struct {
	Name           string             `json:"name"`
	NominalQuota   resource.Quantity  `json:"nominalQuota"`
	BorrowingLimit *resource.Quantity `json:"borrowingLimit"`
	Total          resource.Quantity  `json:"total"`
}

type flavorQuota struct {
	Name      string     `json:"name"`
	Resources []quantity `json:"resources"`
}

type clusterQueue struct {
	Spec struct {
		CohortName       string `json:"cohortName"`
		QueueingStrategy string `json:"queueingStrategy"`
		StopPolicy       string `json:"stopPolicy"`
		ResourceGroups   []struct {
			CoveredResources []string      `json:"coveredResources"`
			Flavors          []flavorQuota `json:"flavors"`
		} `json:"resourceGroups"`
	} `json:"spec"`
	Status struct {
		PendingWorkloads   int           `json:"pendingWorkloads"`
		FlavorsReservation []flavorQuota `json:"flavorsReservation"`
	} `json:"status"`
}

// Explain compares what an attempt asks for with the quota of its queue.
func (e *Executor) Explain(ctx context.Context, a runner.Attempt) (Explanation, error) {
	a = e.filled(a)
	x := Explanation{Queue: e.cfg.Queue, Fits: "unknown"}
	job, err := e.render(e.folder(a.Key), a)
	if err != nil {
		return x, err
	}
	if err := e.findKueue(ctx); err != nil {
		return x, err
	}
	want := requests(job)
	x.Requests = map[string]string{}
	for name, q := range want {
		x.Requests[string(name)] = q.String()
	}
	var lq localQueue
	err = e.c.raw(ctx, &lq, e.c.kueue("localqueues")+"/"+e.cfg.Queue)
	if apierrors.IsNotFound(err) {
		x.Fits, x.Reason, x.Fix = "never", "there is no LocalQueue "+e.cfg.Queue+" in namespace "+e.cfg.Namespace, "name one that exists (kubectl get localqueues), or have it created"
		return x, nil
	} else if err != nil {
		return x, e.c.explain("look at the queue", err)
	}
	x.ClusterQueue, x.Pending = lq.Spec.ClusterQueue, lq.Status.PendingWorkloads
	var cq clusterQueue
	err = e.c.raw(ctx, &cq, kueueAPI+"/clusterqueues/"+lq.Spec.ClusterQueue)
	switch {
	case apierrors.IsForbidden(err):
		x.Reason, x.Fix = "its ClusterQueue may not be read, so nothing is known of its quota", "ask for the right to get clusterqueues"
		return x, nil
	case apierrors.IsNotFound(err):
		x.Fits, x.Reason, x.Fix = "never", "the ClusterQueue "+lq.Spec.ClusterQueue+" does not exist", "have an administrator create it, or use another queue"
		return x, nil
	case err != nil:
		return x, e.c.explain("look at the queue", err)
	}
	e.compare(&x, cq, want)
	if p := firstOf(lq.Spec.StopPolicy, cq.Spec.StopPolicy); p != "" && p != "None" && x.Fits != "never" {
		x.Fits, x.Reason, x.Fix = "later", "its queue is stopped ("+p+")", "ask an administrator to start the queue, or use another queue"
	}
	e.estimate(ctx, &x, job)
	return x, nil
}

// requests are what a Job's pods ask for that run at a time, servers included.
func requests(job *batchv1.Job) corev1.ResourceList {
	out := corev1.ResourceList{}
	pod := job.Spec.Template.Spec
	for range *job.Spec.Parallelism {
		for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
			for name, q := range c.Resources.Requests {
				sum := out[name]
				sum.Add(q)
				out[name] = sum
			}
		}
	}
	return out
}

func firstOf(a, b string) string {
	if a != "" && a != "None" {
		return a
	}
	return b
}

// compare finds the first flavour that the request fits into, as Kueue does
// without topology, affinity and preemption. In a cohort more may be borrowed
// than is to be seen here.
func (e *Executor) compare(x *Explanation, cq clusterQueue, want corev1.ResourceList) {
	x.Fits, x.Reason, x.Fix = "never", "no flavour of its queue covers what it asks for", "use a queue that has the resources it asks for"
	for _, g := range cq.Spec.ResourceGroups {
		if want[gpuResource] != (resource.Quantity{}) && !slices.Contains(g.CoveredResources, gpuResource) {
			continue
		}
		for _, f := range g.Flavors {
			now, ever, why := fits(f, cq.Status.FlavorsReservation, want)
			switch {
			case now && x.Pending == 0:
				x.Fits, x.Flavor, x.Reason, x.Fix = "now", f.Name, "its queue has that much free", ""
				return
			case ever:
				x.Fits, x.Flavor, x.Reason, x.Fix = "later", f.Name, "its queue is busy", ""
				if now {
					x.Reason = fmt.Sprintf("%d wait in its queue", x.Pending)
				}
				return
			case cq.Spec.CohortName != "":
				x.Fits, x.Flavor, x.Reason, x.Fix = "unknown", f.Name, why+", and what its cohort "+cq.Spec.CohortName+" can lend is not known", ""
			case x.Fits == "never":
				x.Flavor, x.Reason, x.Fix = f.Name, why, "ask for less, or use a larger queue"
			}
		}
	}
}

func fits(f flavorQuota, used []flavorQuota, want corev1.ResourceList) (now, ever bool, why string) {
	now, ever = true, true
	for name, q := range want {
		i := slices.IndexFunc(f.Resources, func(r quantity) bool { return r.Name == string(name) })
		if i < 0 {
			continue // of another group, or not counted
		}
		if q.Cmp(f.Resources[i].NominalQuota) > 0 {
			quota := f.Resources[i].NominalQuota
			return false, false, fmt.Sprintf("it asks for %s of %s and the flavour %s has %s", q.String(), name, f.Name, quota.String())
		}
		total := q.DeepCopy()
		for _, u := range used {
			if u.Name != f.Name {
				continue
			}
			for _, r := range u.Resources {
				if r.Name == string(name) {
					total.Add(r.Total)
				}
			}
		}
		now = now && total.Cmp(f.Resources[i].NominalQuota) <= 0
	}
	return now, ever, ""
}

// estimate says how long the wait may be: the queue as it stands, with the
// attempt at its end.
func (e *Executor) estimate(ctx context.Context, x *Explanation, job *batchv1.Job) {
	if x.Fits != "later" {
		return
	}
	f, err := (&View{c: e.c, now: e.cfg.Now}).snapshot(ctx)
	if err != nil {
		return // a wait that is not known is left out
	}
	t := task{name: "this", need: jobRequests(job), expected: expectedOf(job), limit: float64(*job.Spec.ActiveDeadlineSeconds)}
	if w, ok := foresee(f.line(ctx, e.cfg.Queue, &t), 1).start[t.name]; ok {
		x.Wait = &w
	}
}
