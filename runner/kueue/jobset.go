package kueue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/server"
)

// Serving is a model server over several nodes, for an arm that no node can
// hold, with the attempt that asks it as its client.
type Serving struct {
	Server   runner.Sidecar // its GPUs are those of all nodes
	TP       int            // over how many GPUs of a node each layer is split; the rest is a pipeline over nodes
	NodeGPUs int            // of one node
	// Client is the attempt that runs beside the first part of the server, which
	// it finds at http://127.0.0.1:8000.
	Client runner.Attempt
	CPU    string // of each part of the server; empty is 8
	Memory string // likewise; empty is 64Gi
	// Topology is the node label below which all parts should lie, such as that
	// of a block with one fabric; empty is anywhere.
	Topology string
}

// jobSet is what this package writes of JobSet (sigs.k8s.io/jobset,
// api/jobset/v1alpha2): its own Go package would bring a controller's libraries
// along.
type jobSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              jobSetSpec `json:"spec"`
}

type jobSetSpec struct {
	Suspend        bool            `json:"suspend"`
	ReplicatedJobs []replicatedJob `json:"replicatedJobs"`
	Network        struct {
		EnableDNSHostnames       bool `json:"enableDNSHostnames"`
		PublishNotReadyAddresses bool `json:"publishNotReadyAddresses"`
	} `json:"network"`
	SuccessPolicy struct {
		Operator             string   `json:"operator"`
		TargetReplicatedJobs []string `json:"targetReplicatedJobs"`
	} `json:"successPolicy"`
	FailurePolicy struct {
		MaxRestarts int `json:"maxRestarts"`
	} `json:"failurePolicy"`
	TTLSecondsAfterFinished int32 `json:"ttlSecondsAfterFinished"`
}

type replicatedJob struct {
	Name     string                  `json:"name"`
	Replicas int32                   `json:"replicas"`
	Template batchv1.JobTemplateSpec `json:"template"`
}

const (
	servingPort = 8000
	leader      = "leader"
	labelJobSet = "jobset.sigs.k8s.io/jobset-name" // on every pod, by JobSet's controller

	annotationRequired  = "kueue.x-k8s.io/podset-required-topology"
	annotationPreferred = "kueue.x-k8s.io/podset-preferred-topology"
	annotationGroup     = "kueue.x-k8s.io/podset-group-name"
)

// nodes is over how many nodes an arm is served, or what is wrong with that.
func (s *Serving) nodes() (int, error) {
	tp, n, srv := max(1, s.TP), s.NodeGPUs, s.Server
	switch {
	case n < 1 || srv.GPUs <= n:
		return 0, &UserError{fmt.Sprintf("arm %s takes %d GPUs and a node has %d", srv.Arm, srv.GPUs, n), "serve it on one node"}
	case tp > n || n%tp != 0:
		return 0, &UserError{fmt.Sprintf("arm %s splits each layer over %d GPUs and a node has %d", srv.Arm, tp, n), "use a tensor-parallel size that divides a node's GPUs, and a pipeline over nodes: links between them are too slow for layers"}
	case srv.GPUs%n != 0:
		return 0, &UserError{fmt.Sprintf("%d GPUs of arm %s are no whole number of nodes with %d", srv.GPUs, srv.Arm, n), "use whole nodes"}
	case srv.Engine != server.VLLM:
		return 0, &UserError{fmt.Sprintf("arm %s is served by %s over several nodes", srv.Arm, first(srv.Engine, "an unknown engine")), "use vLLM for it, which is what is known here"}
	case slices.ContainsFunc(srv.Argv, func(w string) bool { return strings.HasPrefix(w, "--data-parallel-size") || w == "-dp" }):
		return 0, &UserError{fmt.Sprintf("arm %s has replicas of its model", srv.Arm), "measure one replica: leave out --data-parallel-size"}
	}
	return srv.GPUs / n, nil
}

// overNodes are flags that the number of nodes decides, all with a value.
var overNodes = []string{"--host", "--port", "--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--distributed-executor-backend", "--nnodes", "--node-rank", "--master-addr", "--master-port"}

// argv is the server's command on one of the nodes: every node runs the same
// program with its rank, and all but the first without an API (vLLM,
// docs/serving/parallelism_scaling.md, "multiprocessing").
func (s *Serving) argv(name string, nodes, rank int) (out []string) {
	for i := 0; i < len(s.Server.Argv); i++ {
		flag, _, joined := strings.Cut(s.Server.Argv[i], "=")
		if !slices.Contains(overNodes, flag) {
			out = append(out, s.Server.Argv[i])
		} else if !joined {
			i++
		}
	}
	tp := max(1, s.TP)
	out = append(out, "--host", "0.0.0.0", "--port", strconv.Itoa(servingPort),
		"--tensor-parallel-size", strconv.Itoa(tp), "--pipeline-parallel-size", strconv.Itoa(s.Server.GPUs/tp),
		"--distributed-executor-backend", "mp", "--nnodes", strconv.Itoa(nodes), "--node-rank", strconv.Itoa(rank), "--master-addr", name+"-"+leader+"-0-0."+name)
	if rank > 0 {
		out = append(out, "--headless")
	}
	return out
}

// jobSet renders the JobSet of a serving: a Job for the first node, whose server
// is a native sidecar of the client, and one for each other node. They start
// together, since the first is not ready before all have come. The client's end
// is the end of all.
func (e *Executor) jobSet(s Serving) (*jobSet, error) {
	nodes, err := s.nodes()
	if err != nil {
		return nil, err
	}
	a := s.Client
	a.Limits, a.GPUs = fill(a.Limits, e.cfg.Limits), 0
	job, err := e.job(e.folder(a.Key), a)
	if err != nil {
		return nil, err
	}
	name := job.Name
	set := &jobSet{TypeMeta: metav1.TypeMeta{APIVersion: "jobset.x-k8s.io/v1alpha2", Kind: "JobSet"}, ObjectMeta: job.ObjectMeta}
	set.Spec.Suspend = true
	set.Spec.Network.EnableDNSHostnames, set.Spec.Network.PublishNotReadyAddresses = true, true
	set.Spec.SuccessPolicy.Operator, set.Spec.SuccessPolicy.TargetReplicatedJobs = "All", []string{leader}
	// A preemption counts as a failure here (kubernetes-sigs/jobset#1117), so as
	// many restarts are left as evictions are borne.
	set.Spec.FailurePolicy.MaxRestarts = e.cfg.MaxEvictions
	set.Spec.TTLSecondsAfterFinished = *job.Spec.TTLSecondsAfterFinished
	for rank := range nodes {
		part, err := e.part(s, job, nodes, rank)
		if err != nil {
			return nil, err
		}
		set.Spec.ReplicatedJobs = append(set.Spec.ReplicatedJobs, *part)
	}
	set.Name = name
	return set, nil
}

// part is the Job of one node.
func (e *Executor) part(s Serving, client *batchv1.Job, nodes, rank int) (*replicatedJob, error) {
	template := *client.Spec.Template.DeepCopy()
	template.Annotations = maps.Clone(template.Annotations)
	if s.Topology != "" {
		if template.Annotations == nil {
			template.Annotations = map[string]string{}
		}
		template.Annotations[annotationPreferred], template.Annotations[annotationGroup] = s.Topology, "arm"
	}
	pod := &template.Spec
	ctr, err := e.servingContainer(s, pod, s.argv(client.Name, nodes, rank))
	if err != nil {
		return nil, err
	}
	if e.cfg.Product != "" {
		pod.NodeSelector = maps.Clone(pod.NodeSelector)
		pod.NodeSelector[labelProduct] = e.cfg.Product
	}
	name := leader
	if rank == 0 {
		ctr.RestartPolicy = ptr(corev1.ContainerRestartPolicyAlways)
		ctr.StartupProbe = &corev1.Probe{PeriodSeconds: 5, FailureThreshold: 720, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health", Port: intstr.FromInt32(servingPort)}}}
		pod.InitContainers = append(pod.InitContainers, *ctr)
	} else {
		name = fmt.Sprintf("rank-%d", rank)
		pod.Containers = []corev1.Container{*ctr}
	}
	for i := range pod.Volumes {
		if v := &pod.Volumes[i]; v.Name == "shm" { // collectives within a node go through it
			v.EmptyDir.SizeLimit = resource.NewQuantity(32<<30, resource.BinarySI)
		}
	}
	return &replicatedJob{Name: name, Replicas: 1, Template: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
		Completions: ptr(int32(1)), Parallelism: ptr(int32(1)), BackoffLimit: ptr(int32(0)), ActiveDeadlineSeconds: client.Spec.ActiveDeadlineSeconds, Template: template,
	}}}, nil
}

func (e *Executor) servingContainer(s Serving, pod *corev1.PodSpec, argv []string) (*corev1.Container, error) {
	asks := corev1.ResourceList{gpuResource: *resource.NewQuantity(int64(s.NodeGPUs), resource.DecimalSI)}
	for name, v := range map[corev1.ResourceName]string{corev1.ResourceCPU: first(s.CPU, "8"), corev1.ResourceMemory: first(s.Memory, "64Gi")} {
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return nil, &UserError{fmt.Sprintf("the amount of %s is %q", name, v), "give a Kubernetes quantity, such as 8 or 64Gi"}
		}
		asks[name] = q
	}
	image := first(s.Server.Image, e.cfg.Images[s.Server.Engine])
	if image == "" {
		return nil, &UserError{"arm " + s.Server.Arm + " has no image", "name the engine's image with its digest: set cluster.vllm_image"}
	}
	worker := pod.Containers[0]
	mounts := slices.DeleteFunc(slices.Clone(worker.VolumeMounts), func(m corev1.VolumeMount) bool { return m.Name == volume && !m.ReadOnly })
	if within(e.cfg.Cache, e.cfg.Root) {
		mounts = append(mounts, e.cacheMount())
	}
	c := &corev1.Container{
		Name: serverName(s.Server.Arm), Image: image, Env: e.serverEnv(s.Server), // a run's pods have no way out, so weights come from the volume
		Ports:     []corev1.ContainerPort{{ContainerPort: servingPort}},
		Resources: corev1.ResourceRequirements{Requests: asks, Limits: asks}, VolumeMounts: mounts, SecurityContext: worker.SecurityContext.DeepCopy(),
	}
	c.Command, c.Args = entry(argv)
	return c, nil
}

// inside lets the pods of one JobSet speak to one another, and to the cluster's
// names; the policy of examples/cluster keeps everything else from them.
func inside(set *jobSet) *networkingv1.NetworkPolicy {
	own := metav1.LabelSelector{MatchLabels: map[string]string{labelJobSet: set.Name}}
	peers := []networkingv1.NetworkPolicyPeer{{PodSelector: &own}}
	udp, tcp, dns := corev1.ProtocolUDP, corev1.ProtocolTCP, intstr.FromInt32(53)
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: set.Name, Namespace: set.Namespace, Labels: map[string]string{labelManaged: managedBy}},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: own, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers}},
			Egress:  []networkingv1.NetworkPolicyEgressRule{{To: peers}, {Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &dns}, {Protocol: &tcp, Port: &dns}}}},
		},
	}
}
