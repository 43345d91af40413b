package kueue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// fakeAPI speaks as much of the API server's protocol as a watch needs: lists
// page by page, watches from a version on, versions that have expired.
type fakeAPI struct {
	*httptest.Server
	mu      sync.Mutex
	version int
	objects map[string]map[string]any // by resource and name
	events  map[string][]string       // of a resource, each with its version
	oldest  int                       // versions before that have expired
	changed chan struct{}
	down    bool
	lists   map[string]int
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{version: 1, objects: map[string]map[string]any{}, events: map[string][]string{}, changed: make(chan struct{}), lists: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAPI) client(t *testing.T) *client {
	t.Helper()
	c, err := newClient(&rest.Config{Host: f.URL}, "team")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// set makes, changes or, with nil, deletes an object, and tells the watches.
func (f *fakeAPI) set(resource, name string, o map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	kind := "MODIFIED"
	if f.objects[resource] == nil {
		f.objects[resource] = map[string]any{}
	}
	switch old, had := f.objects[resource][name]; {
	case o == nil:
		kind, o = "DELETED", old.(map[string]any)
		delete(f.objects[resource], name)
	case !had:
		kind = "ADDED"
	}
	o["apiVersion"], o["kind"] = map[string][2]string{"jobs": {"batch/v1", "Job"}, "pods": {"v1", "Pod"}, "workloads": {"kueue.x-k8s.io/v1beta2", "Workload"}}[resource][0], map[string]string{"jobs": "Job", "pods": "Pod", "workloads": "Workload"}[resource]
	o["metadata"].(map[string]any)["resourceVersion"] = fmt.Sprint(f.version)
	if kind != "DELETED" {
		f.objects[resource][name] = o
	}
	b, _ := json.Marshal(map[string]any{"type": kind, "object": o})
	f.events[resource] = append(f.events[resource], fmt.Sprintf("%08d %s", f.version, b))
	f.wake()
}

func (f *fakeAPI) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	resource := parts[len(parts)-1]
	w.Header().Set("Content-Type", "application/json")
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	switch {
	case down:
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"ServiceUnavailable","code":503}`)
	case r.URL.Path == kueueAPI:
		fmt.Fprint(w, `{"kind":"APIResourceList","groupVersion":"kueue.x-k8s.io/v1beta2","resources":[]}`)
	case resource == "pendingworkloads":
		fmt.Fprint(w, `{"items":[{"metadata":{"name":"w2"},"positionInLocalQueue":0}]}`)
	case !slices.Contains([]string{"jobs", "pods", "workloads"}, resource):
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	case r.URL.Query().Has("watch"):
		f.watch(w, r, resource)
	default:
		f.list(w, r, resource)
	}
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request, resource string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists[resource]++
	names := slices.Sorted(maps.Keys(f.objects[resource]))
	from := 0
	fmt.Sscan(r.URL.Query().Get("continue"), &from)
	limit := 1 // whatever was asked for: a server may give less
	meta := map[string]any{"resourceVersion": fmt.Sprint(f.version)}
	items := []any{}
	for _, n := range names[from:min(len(names), from+limit)] {
		items = append(items, f.objects[resource][n])
	}
	if from+limit < len(names) {
		meta["continue"] = fmt.Sprint(from + limit)
	}
	api := map[string]string{"jobs": "batch/v1", "pods": "v1", "workloads": "kueue.x-k8s.io/v1beta2"}[resource]
	kind := map[string]string{"jobs": "JobList", "pods": "PodList", "workloads": "WorkloadList"}[resource]
	json.NewEncoder(w).Encode(map[string]any{"apiVersion": api, "kind": kind, "metadata": meta, "items": items})
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, resource string) {
	from := 0
	fmt.Sscan(r.URL.Query().Get("resourceVersion"), &from)
	w.(http.Flusher).Flush()
	for {
		f.mu.Lock()
		changed, down := f.changed, f.down
		var out []string
		if from < f.oldest {
			b, _ := json.Marshal(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410})
			out, down = []string{fmt.Sprintf(`{"type":"ERROR","object":%s}`, b)}, true
		}
		for _, e := range f.events[resource] {
			v, _ := strconv.Atoi(e[:8])
			if v > from && !down {
				from = v
				out = append(out, e[9:])
			}
		}
		f.mu.Unlock()
		for _, e := range out {
			fmt.Fprintln(w, e)
		}
		w.(http.Flusher).Flush()
		if down {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func meta(name, uid string, labels map[string]any) map[string]any {
	return map[string]any{"name": name, "namespace": "team", "uid": uid, "creationTimestamp": "2026-01-02T03:04:05Z", "labels": labels}
}

func (f *fakeAPI) job(name, run string) {
	f.set("jobs", name, map[string]any{"metadata": meta(name, "uid-"+name, map[string]any{labelQueue: "small", labelRun: run, labelManaged: managedBy}), "spec": map[string]any{"suspend": true, "template": map[string]any{"spec": map[string]any{"containers": []any{}}}}, "status": map[string]any{}})
}

func (f *fakeAPI) workload(name, job string, conditions ...any) {
	f.set("workloads", name, map[string]any{"metadata": meta(name, "uid-"+name, map[string]any{labelJobUID: "uid-" + job}), "spec": map[string]any{"queueName": "small"}, "status": map[string]any{"conditions": conditions}})
}

func statusOf(kind, status, reason, message string) any {
	return map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-02T03:05:00Z"}
}

func testFleet(t *testing.T, api *fakeAPI) *Fleet {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC) }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	f, err := (&View{c: api.client(t), now: now}).Fleet(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// until waits for a state of the picture.
func until(t *testing.T, f *Fleet, what string, ok func(Summary) bool) Summary {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := f.tally()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%s: still %+v", what, s)
		}
	}
}

func TestFleetFollows(t *testing.T) {
	api := newFakeAPI(t)
	api.job("a", "R1")
	api.job("b", "R1")
	api.job("c", "R2")
	api.workload("w1", "a", statusOf("QuotaReserved", "True", "QuotaReserved", ""), statusOf("Admitted", "True", "Admitted", ""))
	api.workload("w2", "b", statusOf("QuotaReserved", "False", "Pending", "insufficient unused quota"))
	f := testFleet(t, api)
	s := f.tally()
	if s.Jobs != 3 || s.Runs != 2 || s.States[Starting] != 1 || s.States[Queued] != 1 || s.States[Unmanaged] != 1 {
		t.Fatalf("at first: %+v", s)
	}
	q := s.Queues[0]
	if q.Oldest == nil || q.Oldest.Job != "b" || len(q.Needs) != 1 || q.Needs[0].Job != "c" {
		t.Errorf("the queue: %+v", q)
	}
	api.set("pods", "a-0", map[string]any{"metadata": meta("a-0", "p", map[string]any{"batch.kubernetes.io/job-name": "a"}), "spec": map[string]any{"nodeName": "n1"},
		"status": map[string]any{"phase": "Running", "containerStatuses": []any{map[string]any{"name": "worker", "state": map[string]any{"running": map[string]any{"startedAt": "2026-01-02T03:06:00Z"}}}}}})
	until(t, f, "a pod runs", func(s Summary) bool { return s.States[Running] == 1 })
	api.set("jobs", "c", nil)
	until(t, f, "a Job is gone", func(s Summary) bool { return s.Jobs == 2 && s.Runs == 1 })
	if p := f.Positions(t.Context(), "small"); p["w2"] != 0 || len(p) != 1 {
		t.Errorf("positions: %v", p)
	}
	api.workload("w2", "b", statusOf("Finished", "True", "Succeeded", ""))
	until(t, f, "a Workload has ended", func(s Summary) bool { return s.States[Succeeded] == 1 })
}

// TestFleetSaysWhenItIsBlind: while the server is away the picture says so and
// stays; afterwards it is right again, whether or not its versions have expired.
func TestFleetSaysWhenItIsBlind(t *testing.T) {
	for name, expired := range map[string]bool{"goes on": false, "begins anew": true} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.job("a", "R1")
			f := testFleet(t, api)
			lists := api.lists["jobs"]
			api.mu.Lock()
			api.down = true
			api.wake()
			api.mu.Unlock()
			until(t, f, "blind", func(Summary) bool { return f.Fresh() != nil })
			if s := f.Summary(t.Context()); s.Jobs != 1 || s.Stale == "" {
				t.Errorf("while blind: %+v", s)
			}
			api.mu.Lock()
			api.down = false
			api.mu.Unlock()
			api.job("b", "R1")
			if expired {
				api.mu.Lock()
				api.oldest = api.version
				api.mu.Unlock()
			}
			until(t, f, "sees again", func(s Summary) bool { return s.Jobs == 2 && f.Fresh() == nil })
			api.mu.Lock()
			defer api.mu.Unlock()
			if again := api.lists["jobs"] > lists; again != expired {
				t.Errorf("read everything again: %v", again)
			}
		})
	}
}

// TestNothingNeededIsCut: what a fleet keeps of the objects says the same of a Job
// as the objects do.
func TestNothingNeededIsCut(t *testing.T) {
	for name, o := range transcripts(t) {
		t.Run(name, func(t *testing.T) {
			cut := Observed{Now: o.Now, Position: o.Position, Refused: o.Refused}
			if o.Job != nil {
				kept, _ := prune(o.Job)
				cut.Job = kept.(*batchv1.Job)
			}
			if o.Workload != nil {
				kept, _ := prune(&workloadEvent{o.Workload})
				cut.Workload = kept.(*Workload)
			}
			for i := range o.Pods {
				kept, _ := prune(&o.Pods[i])
				cut.Pods = append(cut.Pods, *kept.(*corev1.Pod))
			}
			if got, want := PhaseOf(cut), PhaseOf(o); !reflect.DeepEqual(got, want) {
				t.Errorf("%+v\nof all of it %+v", got, want)
			}
		})
	}
}
