package kueue

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// unmadeJob is an admitted Job that has no pod for a time.
func unmadeJob(t *testing.T, age time.Duration, r *Refusal) Observed {
	t.Helper()
	o := transcripts(t)["running"]
	o.Pods, o.Refused = nil, r
	o.Now = o.Workload.is("Admitted").LastTransitionTime.Add(age)
	if r != nil {
		r.First, r.Last = o.Now.Add(-age/2), o.Now
	}
	return o
}

// TestRefused: what keeps a pod from being made is said, with who can change it.
func TestRefused(t *testing.T) {
	pod := `Error creating: pods "rm-x-0-abcde" is forbidden: `
	for name, tc := range map[string]struct{ event, says, fix string }{
		"quota":          {pod + "exceeded quota: no-pods, requested: pods=1, used: pods=0, limited: pods=0", "ResourceQuota has no room for its pod (no-pods, requested: pods=1, used: pods=0, limited: pods=0)", "have the quota raised"},
		"quota, unasked": {pod + "failed quota: cpu: must specify limits.ephemeral-storage for: client", "ResourceQuota refuses its pod: failed quota", "does not state"},
		"limits":         {pod + "[maximum cpu usage per Container is 200m, but limit is 1, maximum memory usage per Pod is 1Gi, but limit is 2Gi]", "LimitRange does not allow its pod: [maximum cpu", "cluster.server_memory"},
		"security":       {pod + `violates PodSecurity "restricted:latest": runAsNonRoot != true`, "Pod Security refuses its pod", "report this"},
		"webhook":        {`Error creating: Internal error occurred: failed calling webhook "pods.example.org": connection refused`, "a webhook that looks at pods does not answer", "repaired"},
		"other":          {`Error creating: pods "rm-x-0-abcde" is forbidden: error looking up service account team/default: serviceaccount "default" not found`, "the cluster refuses its pod: error looking up service account", "correct what the message names"},
	} {
		p := PhaseOf(unmadeJob(t, time.Minute, &Refusal{Message: tc.event}))
		if p.State != Starting || p.Reason != failedCreate || !strings.HasPrefix(p.Message, "admitted, but ") || !strings.Contains(p.Message, tc.says) || !strings.Contains(p.Fix, tc.fix) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestRefusedWhen: an old event says nothing of now, and a Job that has its pods
// needs none.
func TestRefusedWhen(t *testing.T) {
	event := func() *Refusal { return &Refusal{Message: "Error creating: exceeded quota: q, requested: pods=1"} }
	o := unmadeJob(t, time.Minute, event())
	o.Refused.Last = o.Now.Add(-2 * time.Minute)
	if p := PhaseOf(o); p.Reason != "NoPod" || !strings.Contains(p.Fix, "kubectl describe job "+o.Job.Name) {
		t.Errorf("refused before it was admitted: %+v", p)
	}
	if p := PhaseOf(unmadeJob(t, 2*time.Second, nil)); p.Reason != "Admitted" || p.Fix != "" {
		t.Errorf("a moment after it was admitted: %+v", p)
	}
	if o := unmadeJob(t, 2*time.Second, nil); overdue(o) {
		t.Error("its events are read at once")
	}
	if o := unmadeJob(t, 5*time.Second, nil); !overdue(o) {
		t.Error("its events are not read")
	}
	running := transcripts(t)["running"]
	running.Refused = event()
	running.Refused.Last = running.Now
	if p := PhaseOf(running); p.State != Running || p.Fix != "" || overdue(running) {
		t.Errorf("it has its pod: %+v", p)
	}
	running.Job.Spec.Parallelism, running.Job.Spec.Completions = ptr(int32(2)), ptr(int32(6))
	if p := PhaseOf(running); p.State != Running || !strings.Contains(p.Message, "gets no further pod: the namespace's ResourceQuota") {
		t.Errorf("one of two: %+v", p)
	}
	if why := stuck(unmadeJob(t, 3*time.Hour, event()), time.Hour); !strings.Contains(why, "no pod after 1h0m0s: the namespace's ResourceQuota") {
		t.Errorf("after three hours: %q", why)
	}
	if why := stuck(unmadeJob(t, time.Minute, event()), time.Hour); why != "" {
		t.Errorf("after a minute: %q", why)
	}
}

// TestRefusalEvents: events are read by the Job's name, whichever way they are counted.
func TestRefusalEvents(t *testing.T) {
	at := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	event := func(name, message string, change func(*corev1.Event)) *corev1.Event {
		e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: name + message, Namespace: "team"}, Reason: failedCreate, Message: message, InvolvedObject: corev1.ObjectReference{Kind: "Job", Name: name}}
		change(e)
		return e
	}
	c := &client{kube: fake.NewClientset(
		event("a", "old", func(e *corev1.Event) {
			e.FirstTimestamp, e.LastTimestamp = metav1.NewTime(at), metav1.NewTime(at.Add(time.Minute))
		}),
		event("a", "new", func(e *corev1.Event) {
			e.EventTime = metav1.NewMicroTime(at.Add(time.Minute))
			e.Series = &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(at.Add(time.Hour))}
		}),
		event("b", "once", func(e *corev1.Event) { e.EventTime = metav1.NewMicroTime(at) }),
	), namespace: "team"}
	got := c.refusals(t.Context(), "")
	if a := got["a"]; a == nil || a.Message != "new" || !a.First.Equal(at) || !a.Last.Equal(at.Add(time.Hour)) {
		t.Errorf("a: %+v", a)
	}
	if b := got["b"]; b == nil || !b.First.Equal(at) || !b.Last.Equal(at) {
		t.Errorf("b: %+v", b)
	}
}

// TestLostNode: a node that has fallen silent is told of, and one that does not
// say that a pod has ended too.
func TestLostNode(t *testing.T) {
	o := transcripts(t)["running"]
	pod := &o.Pods[0]
	heard := metav1.NewTime(o.Now.Add(-time.Minute))
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: heard}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}
	if p := PhaseOf(o); p.State != Running || p.Reason != "NodeUnreachable" || !strings.Contains(p.Message, "has not answered since "+heard.UTC().Format(time.TimeOnly)) {
		t.Errorf("silent: %+v", p)
	}
	kept, _ := prune(pod)
	if at := silent(kept.(*corev1.Pod)); !at.Equal(heard.Time) {
		t.Errorf("a fleet does not see it: %v", at)
	}
	pod.Status.Conditions[1].Status = corev1.ConditionFalse // a server is started again
	if p := PhaseOf(o); p.Reason != "" {
		t.Errorf("not ready: %+v", p)
	}
	pod.DeletionTimestamp = ptr(metav1.NewTime(o.Now.Add(time.Minute)))
	if p := PhaseOf(o); p.Reason != "Terminating" {
		t.Errorf("ending: %+v", p)
	}
	pod.DeletionTimestamp = ptr(metav1.NewTime(o.Now.Add(-time.Minute)))
	if p := PhaseOf(o); p.State != Starting || p.Reason != "NodeLost" || !strings.Contains(p.Fix, "kubectl delete node "+pod.Spec.NodeName) {
		t.Errorf("lost: %+v", p)
	}
}

// TestServerOutOfMemory: what killed a server is said with what to change, also by
// its last words.
func TestServerOutOfMemory(t *testing.T) {
	o := transcripts(t)["running"]
	server := corev1.ContainerStatus{Name: "server-fp8", RestartCount: 1, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled", Message: "INFO loading\nINFO 40 % of weights\n"}}}
	o.Pods[0].Status.InitContainerStatuses = []corev1.ContainerStatus{server}
	p := PhaseOf(o)
	if p.Reason != "Loading" || !strings.HasSuffix(p.Message, "start 2: the one before ended with status 137 (OOMKilled): INFO 40 % of weights") || !strings.Contains(p.Fix, "cluster.server_memory") {
		t.Errorf("%+v", p)
	}
	server.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s restarting failed container"}}
	o.Pods[0].Status.InitContainerStatuses = []corev1.ContainerStatus{server}
	if p := PhaseOf(o); p.Reason != "CrashLoopBackOff" || !strings.Contains(p.Fix, "cluster.server_memory") {
		t.Errorf("%+v", p)
	}
}

// TestStoppedOnALostNode: what lies on a node that is gone does not hold up a suite
// whose verdict is in; what still ends there does.
func TestStoppedOnALostNode(t *testing.T) {
	for name, tc := range map[string]struct {
		due  time.Duration
		want bool
	}{"ends": {time.Minute, false}, "lost": {-time.Minute, true}} {
		e := offline(suiteConfig)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "team", Labels: map[string]string{"batch.kubernetes.io/job-name": "rm-x"},
			Finalizers: []string{"batch.kubernetes.io/job-tracking"}, DeletionTimestamp: ptr(metav1.NewTime(time.Now().Add(tc.due)))}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		e.c = &client{kube: fake.NewClientset(pod), namespace: "team"}
		if got := e.onlyLost(t.Context(), "rm-x"); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
		if e.onlyLost(t.Context(), "rm-y") {
			t.Errorf("%s: a Job without pods is held by none", name)
		}
	}
}

// TestDetail: what follows of itself is one piece of news, what is in the way is
// another.
func TestDetail(t *testing.T) {
	o := transcripts(t)["running"]
	pod := &o.Pods[0]
	pod.Status.Phase, pod.Status.ContainerStatuses = corev1.PodPending, nil
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for _, tc := range []struct {
		servers []corev1.ContainerStatus
		want    string
		says    string
	}{
		{[]corev1.ContainerStatus{{Name: "server-fp8", State: waiting}, {Name: "server-nvfp4", State: waiting}}, "", "is starting on"},
		{[]corev1.ContainerStatus{{Name: "server-fp8", State: runs, Started: ptr(false)}, {Name: "server-nvfp4", State: waiting}}, "Loading", "arm fp8 loads on"},
		{[]corev1.ContainerStatus{{Name: "server-fp8", State: runs, Started: ptr(true)}, {Name: "server-nvfp4", State: waiting}}, "Loading", "1 of 2 model servers are up on"},
		{[]corev1.ContainerStatus{{Name: "server-fp8", State: runs, Started: ptr(true)}, {Name: "server-nvfp4", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}}}}, "ImagePullBackOff", "cannot be pulled"},
	} {
		pod.Status.InitContainerStatuses = tc.servers
		if p := PhaseOf(o); p.State != Starting || p.detail() != tc.want || !strings.Contains(p.Message, tc.says) {
			t.Errorf("%q: %+v, want %q and %q", p.detail(), p, tc.want, tc.says)
		}
	}
}
