package kueue

import (
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// State is where a Job stands, in words that a person understands.
type State string

// The states of a Job in a cluster with Kueue.
const (
	Unmanaged    State = "unmanaged"    // Kueue has not taken notice of the Job
	Queued       State = "queued"       // waits for quota that will come
	Blocked      State = "blocked"      // waits for somebody to change something
	Provisioning State = "provisioning" // has quota, admission checks are under way
	Starting     State = "starting"     // admitted, no pod runs yet
	Running      State = "running"
	Preempted    State = "preempted" // was evicted and waits again
	Stopping     State = "stopping"  // is being deleted or deactivated, pods remain
	Succeeded    State = "succeeded"
	Failed       State = "failed"
	Cancelled    State = "cancelled" // deactivated, nothing runs
	Lost         State = "lost"      // the Job is gone
)

// Phase is what the cluster's objects say about a Job.
type Phase struct {
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"`  // Kubernetes' or Kueue's own word, unknown ones included
	Message string    `json:"message,omitempty"` // one sentence
	Fix     string    `json:"fix,omitempty"`     // what to do, where somebody has to do something
	Since   time.Time `json:"since,omitzero"`

	Flavor    string `json:"flavor,omitempty"` // the ResourceFlavor of the GPUs, or else of the CPUs
	Node      string `json:"node,omitempty"`
	Product   string `json:"product,omitempty"` // label nvidia.com/gpu.product that its node has to have
	Evictions int    `json:"evictions,omitempty"`
	Cluster   string `json:"cluster,omitempty"` // the worker cluster, by MultiKueue's name
}

// detail is the reason, but one for what follows of itself and one for what
// changes to and fro.
func (p Phase) detail() string {
	switch p.Reason {
	case "Admitted", "ContainerCreating", "PodInitializing":
		return ""
	case "ErrImagePull":
		return "ImagePullBackOff"
	}
	return p.Reason
}

// Observed is one look at a Job. Everything but Now may be missing.
type Observed struct {
	Job      *batchv1.Job
	Workload *Workload
	Pods     []corev1.Pod
	// Position is the Job's place in its LocalQueue from 0 on; nil is unknown.
	Position *int
	// Refused is why the Job's pods are not made, as far as that was asked.
	Refused *Refusal `json:",omitempty"`
	Now     time.Time
}

// noticeTime is how long Kueue may take to notice a Job before that is worth
// a word.
const noticeTime = 30 * time.Second

// PhaseOf says where a Job stands. It reads conditions by their status and
// never by their presence: after a second admission Kueue leaves
// Evicted=False behind. Reasons are passed on as they are, since their
// vocabulary differs between versions of Kueue; the first rule that fits
// decides (see sigs.k8s.io/kueue, apis/kueue/v1beta2/workload_types.go).
func PhaseOf(o Observed) Phase {
	if o.Job == nil {
		return lost(o)
	}
	p := phaseOf(o)
	p.Flavor, p.Evictions = o.Workload.flavor(), o.Workload.evictions()
	if o.Workload != nil {
		p.Cluster = o.Workload.Status.ClusterName
	}
	if pod := foremost(o.Pods); pod != nil {
		p.Node = pod.Spec.NodeName
		// Kueue adds the labels of the flavour's nodes when it admits a Job, and
		// the scheduler holds to them.
		p.Product = pod.Spec.NodeSelector[labelProduct]
	}
	return p
}

func lost(o Observed) Phase {
	if pod := alive(o.Pods); pod != nil {
		return Phase{State: Stopping, Reason: "JobDeleted", Message: "the Job is gone and its pod " + pod.Name + " is about to end", Node: pod.Spec.NodeName}
	}
	return Phase{State: Lost, Reason: "JobDeleted", Message: "the Job is gone: somebody deleted it, or its time to live was over"}
}

func phaseOf(o Observed) Phase {
	job, w := o.Job, o.Workload
	if job.DeletionTimestamp != nil {
		return Phase{State: Stopping, Reason: "Deleted", Message: "the Job is being deleted", Since: job.DeletionTimestamp.Time}
	}
	if c := jobCondition(job, batchv1.JobComplete); c != nil {
		return Phase{State: Succeeded, Reason: c.Reason, Since: c.LastTransitionTime.Time}
	}
	if c := jobCondition(job, batchv1.JobFailed); c != nil {
		return failed(c, o.Pods)
	}
	if w == nil {
		return unmanaged(o)
	}
	if c := w.is("Finished"); c != nil {
		if c.Reason == "Succeeded" || c.Reason == "JobFinished" && strings.Contains(c.Message, "success") {
			return Phase{State: Succeeded, Reason: c.Reason, Since: c.LastTransitionTime}
		}
		return Phase{State: Failed, Reason: c.Reason, Message: "Kueue gave the Job up: " + c.Message, Since: c.LastTransitionTime}
	}
	if w.Spec.Active != nil && !*w.Spec.Active {
		return deactivated(w, o.Pods)
	}
	reserved, evicted := w.is("QuotaReserved"), w.is("Evicted")
	switch {
	case evicted != nil && reserved == nil:
		return preempted(w, evicted, o)
	case w.is("Admitted") != nil:
		return admitted(w, o)
	case reserved != nil:
		return provisioning(w, reserved)
	}
	return waiting(w, o)
}

func jobCondition(job *batchv1.Job, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// failed looks for the cause in the pods: the Job itself only counts.
func failed(c *batchv1.JobCondition, pods []corev1.Pod) Phase {
	p := Phase{State: Failed, Reason: c.Reason, Message: sentence(c.Message), Since: c.LastTransitionTime.Time}
	switch c.Reason {
	case "DeadlineExceeded":
		p.Message, p.Fix = "it ran longer than it was allowed to", "choose a smaller run, or raise the limit"
	case "PodFailurePolicy":
		p.Message = "the worker refused to run: " + p.Message
	}
	if pod := newest(pods); pod != nil {
		if why := terminated(pod); why != "" {
			p.Message += "; its last pod " + why
			if strings.Contains(why, "OOMKilled") {
				p.Reason, p.Fix = "OOMKilled", "ask for more memory"
			}
			if strings.Contains(why, "StartError") {
				p.Reason, p.Fix = "StartError", "use an image in which every user may enter the folders above the volume, and may run what lies there"
			}
		}
	}
	return p
}

// terminated says how a pod's container ended, "" while it has not.
func terminated(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return ending(t)
		}
	}
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		return "was ended by the node (" + pod.Status.Reason + ": " + sentence(pod.Status.Message) + ")"
	}
	return ""
}

func unmanaged(o Observed) Phase {
	since := o.Job.CreationTimestamp.Time
	if o.Job.Spec.Suspend != nil && !*o.Job.Spec.Suspend {
		return Phase{State: Unmanaged, Reason: "Unsuspended", Message: "the Job runs outside of Kueue: nothing suspended it and it has no Workload", Since: since,
			Fix: "make sure that Kueue runs, that its webhooks are installed and that it manages this namespace"}
	}
	if o.Now.Sub(since) < noticeTime {
		return Phase{State: Queued, Reason: "Submitted", Message: "submitted; Kueue has not noticed it yet", Since: since}
	}
	return Phase{State: Unmanaged, Reason: "NoWorkload", Message: "Kueue has made no Workload for the Job", Since: since,
		Fix: "make sure that Kueue's controller runs, that it manages this namespace, and that no environment variable is named twice (kubectl describe job shows its events)"}
}

func deactivated(w *Workload, pods []corev1.Pod) Phase {
	p := Phase{State: Cancelled, Reason: "Deactivated", Message: "deactivated: it will not be admitted again", Fix: "submit it again"}
	if c := w.is("Evicted"); c != nil {
		p.Reason, p.Since = c.Reason, c.LastTransitionTime
		if cause := strings.TrimPrefix(c.Reason, "DeactivatedDueTo"); cause != c.Reason {
			p.Message = "given up by Kueue: " + sentence(c.Message)
			p.State = Failed
		}
		if strings.Contains(c.Reason+c.Message, "MaximumExecutionTimeExceeded") || strings.Contains(c.Message, "maximum execution time") {
			p.Message, p.Fix = "it ran longer than its queue's budget for it", "choose a smaller run, or raise the limit"
		}
	}
	if pod := alive(pods); pod != nil {
		p.State, p.Message = Stopping, p.Message+"; its pod "+pod.Name+" is about to end"
	}
	return p
}

func preempted(w *Workload, evicted *Condition, o Observed) Phase {
	p := Phase{State: Preempted, Reason: evicted.Reason, Since: evicted.LastTransitionTime}
	switch evicted.Reason {
	case "Preempted":
		p.Message = "preempted by a Job that goes first; it starts again by itself"
		if c := w.is("Preempted"); c != nil {
			p.Reason = c.Reason
		}
	case "PodsReadyTimeout":
		p.Message = "its pods did not become ready in time; it is queued again"
		p.Fix = "look at why starting is slow: a large image or checkpoint wants a cache on the node"
	case "AdmissionCheck":
		p.Message = "an admission check withdrew its consent; it is queued again"
	case "ClusterQueueStopped", "LocalQueueStopped":
		p.State, p.Message, p.Fix = Blocked, "its queue was stopped", "ask an administrator to start the queue again, or use another queue"
	case "NodeFailures":
		p.Message = "its node failed; it starts again on another"
	default:
		p.Message = "evicted (" + evicted.Reason + "): " + sentence(evicted.Message)
	}
	if r := w.Status.RequeueState; r != nil && r.RequeueAt != nil && r.RequeueAt.After(o.Now) {
		p.Message += fmt.Sprintf("; not before %s", r.RequeueAt.UTC().Format("15:04:05 UTC"))
	}
	p.Message += place(o.Position)
	return p
}

func place(position *int) string {
	switch {
	case position == nil:
		return ""
	case *position == 0:
		return "; it is the first in its queue"
	}
	return fmt.Sprintf("; %d ahead of it in its queue", *position)
}

func provisioning(w *Workload, reserved *Condition) Phase {
	p := Phase{State: Provisioning, Reason: reserved.Reason, Message: "it has its quota and waits for admission checks", Since: reserved.LastTransitionTime}
	for _, c := range w.Status.AdmissionChecks {
		if c.State != "Ready" {
			p.Reason = c.State
			p.Message = fmt.Sprintf("it has its quota and waits for the admission check %s (%s): %s", c.Name, c.State, sentence(c.Message))
			break
		}
	}
	if names := w.Status.NominatedClusterNames; len(names) > 0 && w.Status.ClusterName == "" {
		p.Message += "; asked: " + strings.Join(names, ", ")
	}
	return p
}

// waiting is a Job without quota. Up to v0.18 "never" and "not yet" share the
// reason Pending and differ in the message only.
func waiting(w *Workload, o Observed) Phase {
	c := w.condition("QuotaReserved")
	if c == nil {
		return Phase{State: Queued, Reason: "Submitted", Message: "in its queue, not looked at yet" + place(o.Position), Since: w.Metadata.CreationTimestamp}
	}
	p := Phase{State: Queued, Reason: c.Reason, Message: "waits for free quota: " + sentence(c.Message) + place(o.Position), Since: c.LastTransitionTime}
	text := strings.ToLower(c.Message)
	block := func(what, fix string) Phase {
		p.State, p.Message, p.Fix = Blocked, what+": "+sentence(c.Message), fix
		return p
	}
	switch {
	case c.Reason == "ExceedsMaxQuota", strings.Contains(text, "> maximum capacity"), strings.Contains(text, "previously considered podsets requests"):
		return block("it asks for more than its queue can ever give", "ask for less, or use a larger queue")
	case strings.Contains(text, "localqueue") && (strings.Contains(text, "doesn't exist") || strings.Contains(text, "not found")):
		return block("its LocalQueue "+w.Spec.QueueName+" does not exist in this namespace", "name one that exists (kubectl get localqueues), or have it created")
	case strings.Contains(text, "clusterqueue") && (strings.Contains(text, "doesn't exist") || strings.Contains(text, "not found")):
		return block("the ClusterQueue behind its LocalQueue does not exist", "have an administrator create it, or use another queue")
	case c.Reason == "Suspended", strings.Contains(text, "inactive"), strings.Contains(text, "stopped"), strings.Contains(text, "is on hold"):
		return block("its queue is stopped", "ask an administrator to start the queue, or use another queue")
	case c.Reason == "NoMatchingFlavor", strings.Contains(text, "doesn't match node affinity"), strings.Contains(text, "untolerated taint"), strings.Contains(text, "unavailable in clusterqueue"):
		return block("no flavour of its queue fits", "use a queue that has the GPU model and the resources it asks for")
	case c.Reason == "Misconfigured", c.Reason == "Inadmissible" && !strings.Contains(text, "quota"):
		return block("Kueue cannot admit it", "correct what the message names")
	case c.Reason == "AdmissionGated":
		return block("it is held by an admission gate", "remove the annotation kueue.x-k8s.io/admission-gated-by when it may go")
	case c.Reason == "WaitingForPodsReady":
		p.Message = "waits until the pods of the Job before it are ready" + place(o.Position)
	case strings.Contains(c.Reason, "TopologyPlacement"):
		p.Message = "waits for nodes that lie close enough together: " + sentence(c.Message) + place(o.Position)
	}
	return p
}

// admitted is a Job that may run: what its newest pod does is the phase.
func admitted(w *Workload, o Observed) Phase {
	at := w.is("Admitted")
	p := Phase{State: Starting, Reason: "Admitted", Message: "admitted; its pod is about to be made", Since: at.LastTransitionTime}
	pod := foremost(o.Pods)
	if pod == nil && w.Status.ClusterName != "" {
		return dispatched(p, o)
	}
	if pod == nil || alive(o.Pods) == nil && withheld(o) != nil {
		return unmade(p, o)
	}
	if pod.DeletionTimestamp != nil {
		return terminating(p, pod, o.Now)
	}
	p.Message = "its pod " + pod.Name + " is starting"
	if q := starting(p, pod); q.Reason != p.Reason {
		q.Message = ofBlocks(o) + q.Message
		return q
	}
	switch pod.Status.Phase {
	case corev1.PodRunning:
		p.State, p.Reason, p.Message = Running, "", ofBlocks(o)+"runs on "+pod.Spec.NodeName
		if c := w.Status.ClusterName; c != "" {
			p.Message += " of the worker cluster " + c
		}
		for _, s := range pod.Status.ContainerStatuses {
			if s.State.Running != nil {
				p.Since = s.State.Running.StartedAt.Time
			}
		}
		if at := silent(pod); !at.IsZero() {
			p.Reason, p.Message = "NodeUnreachable", fmt.Sprintf("its node %s has not answered since %s; what runs there may go on, and if it does not come back another pod follows", pod.Spec.NodeName, at.UTC().Format(time.TimeOnly))
		}
		if r := withheld(o); r != nil {
			why, fix := refusal(r)
			p.Message, p.Fix = p.Message+"; it gets no further pod: "+why, fix
		}
	case corev1.PodSucceeded, corev1.PodFailed:
		p.State, p.Reason, p.Message = Running, string(pod.Status.Phase), "its pod has ended; the Job is about to say how"
		if why := terminated(pod); why != "" {
			p.Message = "its pod " + why + "; the Job tries again or gives up"
		}
	}
	return p
}

// terminating is a Job whose pod is to end. A node that is gone does not say that
// it has, and then no other follows.
func terminating(p Phase, pod *corev1.Pod, now time.Time) Phase {
	p.Reason, p.Message = "Terminating", "its pod "+pod.Name+" is ending; another one follows"
	if due := pod.DeletionTimestamp.Time; now.Sub(due) > lostTime { // the time to end it by, not that of the request
		p.Reason = "NodeLost"
		p.Message = fmt.Sprintf("its pod %s had to end by %s and its node %s does not say that it has: the node is gone or cut off; what was answered is kept", pod.Name, due.UTC().Format(time.TimeOnly), pod.Spec.NodeName)
		p.Fix = "nothing if the node comes back; if it does not, have it taken out (kubectl delete node " + pod.Spec.NodeName + "), and another pod goes on"
	}
	return p
}

// lostTime is how much longer than it may a pod takes to end before its node is
// said to be lost.
const lostTime = 15 * time.Second

// silent is since when the cluster has not heard of a running pod's node. Then,
// and for pods of ours only then, the one condition that others than the kubelet
// set contradicts the kubelet's own (k8s.io/kubernetes,
// pkg/controller/util/node/controller_utils.go, MarkPodsNotReady).
func silent(pod *corev1.Pod) (since time.Time) {
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse:
			since = c.LastTransitionTime.Time
		case c.Type == corev1.ContainersReady && c.Status != corev1.ConditionTrue:
			return time.Time{}
		}
	}
	return since
}

// starting says what a pod that has not begun waits for.
func starting(p Phase, pod *corev1.Pod) Phase {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			p.Reason, p.Since = c.Reason, c.LastTransitionTime.Time
			p.Message = "admitted, but no node takes its pod yet: " + sentence(c.Message)
			p.Fix = "nothing for a minute, while what was preempted still ends; after that the queue's quota promises more than the nodes have"
			return p
		}
	}
	if what, fix := loading(pod); what != "" {
		p.Reason, p.Message, p.Fix = "Loading", what, fix
		return p
	}
	for _, s := range append(append([]corev1.ContainerStatus{}, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...) {
		if s.State.Waiting != nil {
			return waitingContainer(p, pod, s)
		}
	}
	return p
}

// up is how many model servers of a pod have loaded.
func up(pod *corev1.Pod) (n int) {
	for _, s := range pod.Status.InitContainerStatuses {
		if strings.HasPrefix(s.Name, serverContainer) && s.State.Running != nil && s.Started != nil && *s.Started {
			n++
		}
	}
	return n
}

func waitingContainer(p Phase, pod *corev1.Pod, s corev1.ContainerStatus) Phase {
	wait := s.State.Waiting
	p.Reason = wait.Reason
	switch wait.Reason {
	case "ImagePullBackOff", "ErrImagePull":
		p.Message = "the image " + s.Image + " cannot be pulled: " + sentence(wait.Message)
		p.Fix = "correct the image's name, push it, or give the namespace access to its registry"
	case "InvalidImageName", "ErrImageNeverPull":
		p.Message, p.Fix = "the image "+s.Image+" cannot be used: "+sentence(wait.Message), "correct the image's name"
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff":
		p.Message = "its container " + s.Name + " cannot be started: " + sentence(wait.Message)
		p.Fix = "correct what the message names; submit it again"
		if t := s.LastTerminationState.Terminated; t != nil {
			p.Message += "; it " + ending(t)
			p.Fix = first(memoryFix(s.Name, t), p.Fix)
		}
	case "ContainerCreating", "PodInitializing":
		p.Message = "its pod " + pod.Name + " is starting on " + pod.Spec.NodeName + ": pulling the image or mounting volumes"
		if n := up(pod); n > 0 {
			p.Reason, p.Message = "Loading", fmt.Sprintf("%d of %d model servers are up on %s; the next container is about to start", n, len(pod.Status.InitContainerStatuses), pod.Spec.NodeName)
		}
	default:
		p.Message = "its container waits (" + wait.Reason + "): " + sentence(wait.Message)
	}
	return p
}

// newest is the pod that was made last; a Job of ours has one at a time.
func newest(pods []corev1.Pod) *corev1.Pod {
	var out *corev1.Pod
	for i := range pods {
		if out == nil || pods[i].CreationTimestamp.After(out.CreationTimestamp.Time) {
			out = &pods[i]
		}
	}
	return out
}

// alive is a pod whose containers may still run.
func alive(pods []corev1.Pod) *corev1.Pod {
	for i := range pods {
		if f := pods[i].Status.Phase; f != corev1.PodSucceeded && f != corev1.PodFailed {
			return &pods[i]
		}
	}
	return nil
}

// lastWords is the last line of what a container said, which is what ended it.
func lastWords(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return sentence(lines[len(lines)-1])
}

// sentence fits a message of the cluster into one of ours.
func sentence(s string) string {
	s = strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[:400], "") + "…"
	}
	return s
}
