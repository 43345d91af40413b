package kueue

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/shard"
)

const (
	clientContainer = "client"
	serverContainer = "server-" // with the arm
	// clientMemory is what a client may use: answers are on the volume.
	clientMemory = 512 << 20
	// seedMemory is what a seed may use beside its pieces.
	seedMemory = 512 << 20
	// shardWall is how long the pods of a suite may run where nobody says.
	shardWall = 14 * 24 * time.Hour
	// Loading may take as long as on one machine.
	probePeriod, probeFailures = 2, 1350

	labelSuite = "repromill.dev/suite"
)

// suiteJob renders the Job of a suite's shards from that of an attempt: an index
// is a block, and its pod holds a client with the servers of all arms as native
// sidecars, which kubelets start before it and end after it.
func (e *Executor) suiteJob(at pod.Folder, a runner.Attempt) (*batchv1.Job, error) {
	s := a.Shards
	own := a
	own.Shards, own.GPUs = nil, 0
	own.Limits.MemoryBytes = clientMemory
	job, err := e.job(at, own)
	if err != nil {
		return nil, err
	}
	job.Labels[labelSuite], job.Spec.Template.Labels[labelSuite] = "true", "true"
	spec := &job.Spec
	spec.Completions, spec.Parallelism = ptr(int32(s.Of)), ptr(int32(s.Parallel))
	// An index that fails for good leaves a gap that the others cannot close.
	spec.MaxFailedIndexes = ptr(int32(0))
	exits := func(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			ContainerName: ptr(clientContainer), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}}
	}
	spec.PodFailurePolicy.Rules = append(spec.PodFailurePolicy.Rules[:1],
		exits(batchv1.PodFailurePolicyActionFailIndex, shard.ExitVoid), exits(batchv1.PodFailurePolicyActionFailJob, shard.ExitRefused))
	if s.Alone && e.cfg.Topology != "" {
		t := &spec.Template
		t.Annotations = maps.Clone(t.Annotations)
		if t.Annotations == nil {
			t.Annotations = map[string]string{}
		}
		t.Annotations[annotationRequired] = e.cfg.Topology
	}
	return job, e.suitePod(&spec.Template.Spec, a)
}

// seedJob renders the Job that fills the cache: this program alone, on a queue of
// CPUs, with the hub's token beside nothing foreign.
func (e *Executor) seedJob(at pod.Folder, a runner.Attempt) (*batchv1.Job, error) {
	own := a
	own.Limits.MemoryBytes = seedMemory
	job, err := e.job(at, own)
	if err != nil {
		return nil, err
	}
	c := &job.Spec.Template.Spec.Containers[0]
	c.Command = []string{e.cfg.Worker, "worker", "seed", string(at)}
	c.VolumeMounts = e.only(c.VolumeMounts, string(at), a.Seed.Dir, e.cfg.Worker)
	if e.cfg.HubEndpoint != "" {
		c.Env = append(c.Env, corev1.EnvVar{Name: "HF_ENDPOINT", Value: e.cfg.HubEndpoint})
	}
	if e.cfg.HubSecret != "" {
		c.Env = append(c.Env, corev1.EnvVar{Name: "HF_TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: e.cfg.HubSecret}, Key: "HF_TOKEN", Optional: ptr(true)}}})
	}
	return job, nil
}

// suitePod makes the worker a client, and adds the servers.
func (e *Executor) suitePod(p *corev1.PodSpec, a runner.Attempt) error {
	c := &p.Containers[0]
	c.Name, c.Command = clientContainer, []string{e.cfg.Worker, "worker", "shard", a.Dir}
	c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError // a volume that is full cannot tell
	cache := e.cfg.Cache
	if !within(cache, e.cfg.Root) {
		return fmt.Errorf("render suite: the cache %q does not lie below the volume %q", cache, e.cfg.Root)
	}
	c.Env = append(c.Env, fromCache(cache)...)
	c.VolumeMounts = e.only(c.VolumeMounts, a.Dir, e.cfg.Worker)
	c.VolumeMounts = append(c.VolumeMounts, e.cacheMount())
	gpus := false
	for _, s := range a.Shards.Servers {
		ctr, err := e.server(s, c.SecurityContext)
		if err != nil {
			return err
		}
		// Engines compile and download into their home; every server has its own.
		tmp := ctr.Name + "-tmp"
		p.Volumes = append(p.Volumes, corev1.Volume{Name: tmp, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(32<<30, resource.BinarySI)}}})
		ctr.VolumeMounts = []corev1.VolumeMount{{Name: tmp, MountPath: "/tmp"}, {Name: "shm", MountPath: "/dev/shm"}, e.cacheMount()}
		if a.Shards.Alone && within(e.cfg.Worker, e.cfg.Root) {
			e.tellGPUs(p, ctr)
		}
		p.InitContainers = append(p.InitContainers, *ctr)
		gpus = gpus || s.GPUs > 0
	}
	if a.Shards.Alone && gpus {
		e.wholeNode(p, a)
	}
	if gpus {
		for i := range p.Volumes { // what tensor parallelism needs; it counts against the servers' memory
			if p.Volumes[i].Name == "shm" {
				p.Volumes[i].EmptyDir.SizeLimit = resource.NewQuantity(32<<30, resource.BinarySI)
			}
		}
		if e.cfg.Product != "" {
			p.NodeSelector[labelProduct] = e.cfg.Product
		}
	}
	p.TerminationGracePeriodSeconds = ptr(int64(60))
	return nil
}

// tellGPUs has this program, which is in no image of a server, say to the client
// which GPUs the server's container has. Nobody but the container sees that, and
// the program ends well whatever it finds, as a hook that fails ends its container.
func (e *Executor) tellGPUs(p *corev1.PodSpec, server *corev1.Container) {
	const name = "seen"
	client := &p.Containers[0]
	p.Volumes = append(p.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(1<<20, resource.BinarySI)}}})
	for _, m := range client.VolumeMounts {
		if m.MountPath == e.cfg.Worker {
			server.VolumeMounts = append(server.VolumeMounts, m)
		}
	}
	dir := filepath.Dir(shard.SeenFile)
	server.VolumeMounts = append(server.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: dir})
	client.VolumeMounts = append(client.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: dir, ReadOnly: true})
	server.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{e.cfg.Worker, "worker", "gpus", shard.SeenFile}}}}
}

// wholeNode keeps the rest of a node's GPUs for the client, which uses none, so that
// nobody else does.
func (e *Executor) wholeNode(p *corev1.PodSpec, a runner.Attempt) {
	rest := a.GPUs
	for _, s := range a.Shards.Servers {
		rest -= s.GPUs
	}
	if rest <= 0 {
		return
	}
	r := &p.Containers[0].Resources
	r.Requests, r.Limits = maps.Clone(r.Requests), maps.Clone(r.Limits)
	r.Requests[gpuResource], r.Limits[gpuResource] = *resource.NewQuantity(int64(rest), resource.DecimalSI), *resource.NewQuantity(int64(rest), resource.DecimalSI)
}

// only leaves out the mounts of the volume but those named.
func (e *Executor) only(mounts []corev1.VolumeMount, paths ...string) []corev1.VolumeMount {
	return slices.DeleteFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == volume && !slices.Contains(paths, m.MountPath) })
}

func (e *Executor) cacheMount() corev1.VolumeMount {
	rel, err := filepath.Rel(e.cfg.Root, e.cfg.Cache)
	if err != nil { // it was looked at before
		rel = "."
	}
	return corev1.VolumeMount{Name: volume, MountPath: e.cfg.Cache, SubPath: rel, ReadOnly: true}
}

// fromCache makes the hub's tools read the cache and nothing else
// (huggingface_hub, src/huggingface_hub/constants.py).
func fromCache(cache string) []corev1.EnvVar {
	return []corev1.EnvVar{{Name: "HF_HUB_CACHE", Value: filepath.Join(cache, "hub")}, {Name: "HF_HUB_OFFLINE", Value: "1"},
		{Name: "TRANSFORMERS_OFFLINE", Value: "1"}, {Name: "HF_DATASETS_OFFLINE", Value: "1"}, {Name: "HF_HUB_DISABLE_TELEMETRY", Value: "1"}}
}

var unfitArm = regexp.MustCompile(`[^a-z0-9]+`)

// serverName is the name of an arm's container.
func serverName(arm string) string {
	name := serverContainer + strings.Trim(unfitArm.ReplaceAllString(strings.ToLower(arm), "-"), "-")
	return strings.Trim(name[:min(len(name), 58)], "-") // its volume's name is longer
}

// server is the native sidecar of an arm.
func (e *Executor) server(s runner.Sidecar, sc *corev1.SecurityContext) (*corev1.Container, error) {
	image := first(s.Image, e.cfg.Images[s.Engine], e.cfg.Image)
	cpu, memory := first(e.cfg.ServerCPU, "500m"), first(e.cfg.ServerMemory, "1Gi")
	if s.GPUs > 0 {
		cpu, memory = first(e.cfg.ServerCPU, "8"), first(e.cfg.ServerMemory, "64Gi")
	}
	resources := corev1.ResourceList{}
	for name, v := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory} {
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return nil, &UserError{fmt.Sprintf("the amount of %s of model servers is %q", name, v), "give a Kubernetes quantity, such as 8 or 64Gi"}
		}
		resources[name] = q
	}
	if s.GPUs > 0 {
		resources[gpuResource] = *resource.NewQuantity(int64(s.GPUs), resource.DecimalSI)
	}
	c := &corev1.Container{
		Name: serverName(s.Arm), Image: image, RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways),
		Ports:     []corev1.ContainerPort{{Name: "port-" + strconv.Itoa(s.Port), ContainerPort: int32(s.Port)}},
		Resources: corev1.ResourceRequirements{Requests: resources, Limits: resources},
		StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health", Port: intstr.FromInt32(int32(s.Port))}},
			PeriodSeconds: probePeriod, FailureThreshold: probeFailures, TimeoutSeconds: 5},
		SecurityContext:          sc.DeepCopy(),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	c.Env = e.serverEnv(s)
	c.Command, c.Args = entry(s.Argv)
	return c, nil
}

// serverEnv is the environment of an arm's server. The pod's template must name no
// variable twice: Kueue could not write it.
func (e *Executor) serverEnv(s runner.Sidecar) (out []corev1.EnvVar) {
	env := map[string]string{"HOME": "/tmp", "VLLM_NO_USAGE_STATS": "1"}
	for _, v := range fromCache(e.cfg.Cache) {
		env[v.Name] = v.Value
	}
	maps.Copy(env, s.Env)
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, corev1.EnvVar{Name: k, Value: env[k]})
	}
	return out
}

// entry are command and arguments of a container: flags alone are for the image's
// own entry point.
func entry(argv []string) (command, args []string) {
	if len(argv) > 0 && !strings.HasPrefix(argv[0], "-") {
		return argv[:1], argv[1:]
	}
	return nil, argv
}
