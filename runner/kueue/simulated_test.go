//go:build linux && cluster

package kueue

import (
	"fmt"
	"math"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
)

// TestSimulatedQuota: a ResourceQuota that is used up holds attempts back, and
// they go on by themselves when there is room.
func TestSimulatedQuota(t *testing.T) {
	simulated(t)
	clean(t)
	dir := folderIn(t)
	kubectl(t, "create", "quota", "few", "-n", "repromill", "--hard=count/jobs.batch=2")
	t.Cleanup(func() { kubectl(t, "delete", "quota", "few", "-n", "repromill") })
	// The quota counts once its controller has looked at it.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if q, err := liveExecutor(t, simulatedConfig(t, dir, "repromill-simulated", time.Hour)).c.kube.CoreV1().ResourceQuotas("repromill").Get(t.Context(), "few", metav1.GetOptions{}); err == nil && len(q.Status.Hard) > 0 {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	e := liveExecutor(t, simulatedConfig(t, dir, "repromill-simulated", time.Hour))
	var handles []runner.Handle
	for i := range 4 {
		h, err := e.Submit(t.Context(), simulatedAttempt(t, dir, "QUOTA", i))
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	held := func(st runner.Status) bool {
		return st.Phase == runner.Pending && st.Reason == runner.Reason(Held) && strings.Contains(st.Message, "count/jobs.batch=2")
	}
	for i, h := range handles {
		st, err := e.Observe(t.Context(), h)
		if err != nil || held(st) != (i >= 2) {
			t.Errorf("attempt %d: %+v, %v", i, st, err)
		}
	}
	if err := e.Cancel(t.Context(), handles[0]); err != nil {
		t.Fatal(err)
	}
	st := wait(t, e, handles[2], func(st runner.Status) bool { return !held(st) })
	if st.Phase.Final() {
		t.Errorf("after there was room: %+v", st)
	}
	if st, err := e.Observe(t.Context(), handles[3]); err != nil || !held(st) {
		t.Errorf("the last one: %+v, %v", st, err)
	}
	if err := e.Cancel(t.Context(), handles[3]); err != nil { // there is no Job to cancel
		t.Fatal(err)
	}
	if st, err := e.Observe(t.Context(), handles[3]); err != nil || st.Phase != runner.Cancelled {
		t.Errorf("cancelled while held: %+v, %v", st, err)
	}
}

// TestSimulatedForecast: what a queue of Kueue's does is what was foreseen, when
// the estimates are right but for chance.
func TestSimulatedForecast(t *testing.T) {
	simulated(t)
	clean(t)
	dir := folderIn(t)
	const jobs = 24
	names := map[string]int{}
	for i := range jobs {
		lasting := time.Duration([]int{4, 7, 10}[i%3]) * time.Second
		e := liveExecutor(t, simulatedConfig(t, dir, "repromill-simulated-narrow", lasting))
		a := simulatedAttempt(t, dir, fmt.Sprintf("ETA%d", i), i)
		s := lasting.Seconds() + 1 // a Job takes a moment to begin and to end
		a.Expected = &spec.Interval{P10: 0.75 * s, P50: s, P90: 1.4 * s}
		if _, err := e.Submit(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		names[JobName(a.Key)] = i
	}
	v, err := NewView(Config{Namespace: "repromill"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := v.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out Outlook
	var at time.Time
	for end := time.Now().Add(time.Minute); len(out.Start) < jobs/2; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the queue does not fill: %+v", f.tally())
		}
		at = time.Now()
		out = f.Outlook(t.Context(), "repromill-simulated-narrow")
	}
	t.Logf("%s", summaryOf(f))
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if s := f.tally(); s.States[Succeeded] == jobs {
			break
		} else if time.Now().After(end) {
			t.Fatalf("still %+v", s)
		}
	}
	done := time.Since(at).Seconds()
	var sc score
	for name, w := range out.Start {
		o, ok := f.Observed(name)
		if !ok || o.Workload.is("Admitted") == nil {
			t.Fatalf("%s has gone", name)
		}
		real := o.Workload.is("Admitted").LastTransitionTime.Sub(at).Seconds()
		sc.add(w, real, 0)
	}
	coverage, rel := float64(sc.held)/float64(sc.n), median(sc.relative)
	t.Logf("%d waits foreseen: the 80 %% interval held %.0f %%, median error %.0f %% of a minute; all ended after %.0f s, foreseen %.0f (%.0f to %.0f): %s",
		sc.n, 100*coverage, 100*rel, done, out.Done.P50, out.Done.P10, out.Done.P90, out.Done.Source)
	// The waits of one queue share their luck, so a coverage is of many queues:
	// see TestForecastsAreScored.
	if math.Abs(out.Done.P50-done) > 0.5*done {
		t.Error("that was not foreseen")
	}
}

func summaryOf(f *Fleet) string {
	s := f.tally()
	return fmt.Sprintf("%d Jobs: %v", s.Jobs, s.States)
}

// TestSimulatedJobSet: Kueue lets in what is rendered for several nodes as one, and
// JobSet's controller makes the pods of it, on nodes of their own, which the names
// that the servers look for one another by belong to; the client's end is the end of
// all.
func TestSimulatedJobSet(t *testing.T) {
	simulated(t)
	clean(t)
	dir := folderIn(t)
	cfg := simulatedConfig(t, dir, "repromill-simulated", 10*time.Second)
	cfg.Product = "NVIDIA-H200"
	e := liveExecutor(t, cfg)
	s := exampleServing()
	s.Client = simulatedAttempt(t, dir, "JOBSET", 0)
	s.Topology = "" // these nodes name no place
	objects, err := e.ServingManifests(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("kubectl", "create", "--validate=strict", "-f", "-")
	cmd.Stdin = strings.NewReader(asYAML(t, objects...))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name := JobName(s.Client.Key)
	t.Cleanup(func() {
		kubectl(t, "delete", "jobset,networkpolicy", name, "-n", "repromill", "--cascade=foreground", "--timeout=60s")
	})
	awaitOutput(t, "True", "get", "workloads", "-n", "repromill", "-o", `jsonpath={.items[?(@.metadata.ownerReferences[0].kind=="JobSet")].status.conditions[?(@.type=="Admitted")].status}`)
	var pods []corev1.Pod
	for end := time.Now().Add(time.Minute); len(pods) < 2 || pods[0].Spec.NodeName == "" || pods[1].Spec.NodeName == ""; time.Sleep(200 * time.Millisecond) {
		list, err := e.c.kube.CoreV1().Pods("repromill").List(t.Context(), metav1.ListOptions{LabelSelector: labelJobSet + "=" + name})
		if err != nil {
			t.Fatal(err)
		}
		if pods = list.Items; time.Now().After(end) {
			t.Fatalf("its pods are %+v", pods)
		}
	}
	hosts := map[string]bool{}
	for _, p := range pods {
		hosts[p.Spec.Hostname+"."+p.Spec.Subdomain] = true
		if gpus := podGPUs(&p); gpus != 8 || p.Spec.NodeSelector[labelProduct] != "NVIDIA-H200" {
			t.Errorf("the pod %s asks for %d GPUs of %v", p.Name, gpus, p.Spec.NodeSelector)
		}
	}
	if pods[0].Spec.NodeName == pods[1].Spec.NodeName || !hosts[name+"-leader-0-0."+name] || !hosts[name+"-rank-1-0-0."+name] {
		t.Errorf("its pods are %v on %s and %s", hosts, pods[0].Spec.NodeName, pods[1].Spec.NodeName)
	}
	awaitOutput(t, "Completed", "get", "jobset", name, "-n", "repromill", "-o", "jsonpath={.status.terminalState}")
	awaitOutput(t, "True", "get", "workloads", "-n", "repromill", "-o", `jsonpath={.items[?(@.metadata.ownerReferences[0].kind=="JobSet")].status.conditions[?(@.type=="Finished")].status}`)
}

func podGPUs(p *corev1.Pod) (n int64) {
	for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		q := c.Resources.Requests[gpuResource]
		n += q.Value()
	}
	return n
}

// TestSimulatedMultiKueue: a Job that the manager's Kueue sends to the worker
// cluster is followed there.
func TestSimulatedMultiKueue(t *testing.T) {
	simulated(t)
	if out, err := exec.Command("kubectl", "config", "get-contexts", "worker", "-o", "name").CombinedOutput(); err != nil {
		t.Skipf("no worker cluster: run `devcluster worker`: %s", out)
	}
	clean(t)
	dir := folderIn(t)
	e := liveExecutor(t, simulatedConfig(t, dir, "repromill-multikueue", 8*time.Second))
	a := simulatedAttempt(t, dir, "MULTI", 0)
	h, err := e.Submit(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	_, p := look(t, e, h, is(Running))
	if p.Cluster != "worker" || !strings.HasPrefix(p.Node, "simulated-") || !strings.Contains(p.Message, "worker cluster worker") {
		t.Errorf("while it runs: %+v", p)
	}
	if pods, err := e.c.pods(t.Context(), JobName(a.Key)); err != nil || len(pods) != 0 {
		t.Errorf("the manager cluster has %d pods of it, %v", len(pods), err)
	}
	v, err := NewView(Config{Namespace: "repromill"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := v.Summary(t.Context())
	if err != nil || len(s.Queues) != 1 || s.Queues[0].Workers["worker"] != 1 {
		t.Errorf("the summary: %+v, %v", s, err)
	}
	if jobs, err := v.Jobs(t.Context(), "MULTI"); err != nil || len(jobs) != 1 || jobs[0].Node != p.Node || jobs[0].Phase.Cluster != "worker" {
		t.Errorf("its Job: %+v, %v", jobs, err)
	}
	if list, err := v.Printed(t.Context(), "MULTI", 0, ""); err != nil || len(list) != 1 || list[0].Cluster != "worker" || list[0].Container != container {
		t.Errorf("who prints for it: %+v, %v", list, err)
	}
	r, err := e.Logs(t.Context(), h, 0) // nothing is printed by a pod that is simulated
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, p := look(t, e, h, is(Succeeded)); p.Cluster != "worker" {
		t.Errorf("when it has ended: %+v", p)
	}
}
