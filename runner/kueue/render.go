package kueue

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/pod"
)

// Labels and annotations of what this package makes. The NetworkPolicy of
// examples/cluster selects by labelNetwork.
const (
	labelManaged  = "app.kubernetes.io/managed-by"
	labelRun      = "repromill.dev/run"
	labelAttempt  = "repromill.dev/attempt"
	labelNetwork  = "repromill.dev/network" // "none" or "listed"
	annotationKey = "repromill.dev/attempt-key"
	annotationAt  = "repromill.dev/volume-path"
	// annotationExpected is how long it is expected to run: quantiles in seconds.
	annotationExpected = "repromill.dev/expected-duration"

	labelQueue    = "kueue.x-k8s.io/queue-name"
	labelPriority = "kueue.x-k8s.io/priority-class"
	labelMaxExec  = "kueue.x-k8s.io/max-exec-time-seconds"
	labelJobUID   = "kueue.x-k8s.io/job-uid"
	labelProduct  = "nvidia.com/gpu.product"

	managedBy = "repromill"
	container = "worker"
	volume    = "run"
)

// JobName is the name of an attempt's Job: resubmitting the attempt finds it,
// tomorrow's run of the same plan gets another.
func JobName(k runner.AttemptKey) string {
	short := unfit.ReplaceAllString(strings.ToLower(k.RunID), "")
	return "rm-" + short[max(0, len(short)-10):] + "-" + k.Hash()
}

var unfit = regexp.MustCompile(`[^a-z0-9]`)

// labelValue makes a run id fit for a label.
func labelValue(s string) string {
	s = regexp.MustCompile(`[^A-Za-z0-9_.-]`).ReplaceAllString(s, "_")
	return strings.Trim(s[:min(len(s), 63)], "_.-")
}

// render makes the Job of an attempt of any kind.
func (e *Executor) render(at pod.Folder, a runner.Attempt) (*batchv1.Job, error) {
	switch {
	case a.Shards != nil:
		return e.suiteJob(at, a)
	case a.Seed != nil:
		return e.seedJob(at, a)
	}
	return e.job(at, a)
}

// startSlack is what a pod may take beside its command: pulling an image,
// copying the writable folders, ending.
const startSlack = 30 * time.Minute

// job renders the Job of an attempt. It is created suspended: Kueue's webhook
// would do that too, but where that is missing the Job would start at once and
// outside of any quota. All of it is what the "restricted" Pod Security
// Standard asks for, with a read-only root and no API token besides.
func (e *Executor) job(at pod.Folder, a runner.Attempt) (*batchv1.Job, error) {
	c := e.cfg
	labels := map[string]string{labelManaged: managedBy, labelRun: labelValue(a.Key.RunID), labelAttempt: a.Key.Hash(), labelNetwork: "none"}
	if len(a.Network.Hosts) > 0 {
		labels[labelNetwork] = "listed"
	}
	meta := metav1.ObjectMeta{
		Name: JobName(a.Key), Namespace: c.Namespace, Labels: map[string]string{labelQueue: c.Queue},
		Annotations: map[string]string{annotationKey: a.Key.String(), annotationAt: string(at)},
	}
	for k, v := range labels {
		meta.Labels[k] = v
	}
	if x := a.Expected; x != nil {
		b, err := json.Marshal(x)
		if err != nil {
			return nil, fmt.Errorf("encode the expected duration: %w", err)
		}
		meta.Annotations[annotationExpected] = string(b)
	}
	if c.Priority != "" {
		meta.Labels[labelPriority] = c.Priority
	}
	// The budget of all tries together; the deadline of each begins anew when
	// the Job is resumed, and only guards against a worker that hangs.
	each := a.Limits.Wall + startSlack
	meta.Labels[labelMaxExec] = strconv.Itoa(int((time.Duration(c.MaxEvictions+1) * each).Seconds()))
	spec, err := e.podSpec(at, a)
	if err != nil {
		return nil, err
	}
	return &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: meta,
		Spec: batchv1.JobSpec{
			Suspend: ptr(true), CompletionMode: ptr(batchv1.IndexedCompletion), Completions: ptr(int32(1)), Parallelism: ptr(int32(1)),
			BackoffLimitPerIndex: ptr(int32(2)), MaxFailedIndexes: ptr(int32(1)), PodReplacementPolicy: ptr(batchv1.Failed),
			ActiveDeadlineSeconds: ptr(int64(each.Seconds())), TTLSecondsAfterFinished: ptr(int32(c.TTL.Seconds())),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
				{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
				{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
					ContainerName: ptr(container), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{pod.ExitRefused}}},
			}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: c.Annotations}, Spec: *spec},
		},
	}, nil
}

// shape is what Jobs have in common that differ in their attempts only: whose
// validation holds for one holds for all.
func shape(job *batchv1.Job) (string, error) {
	j := job.DeepCopy()
	j.Name, j.Annotations = "", nil
	t := &j.Spec.Template
	for _, labels := range []map[string]string{j.Labels, t.Labels} {
		delete(labels, labelRun)
		delete(labels, labelAttempt)
	}
	t.Spec.SecurityContext.RunAsUser, t.Spec.SecurityContext.RunAsGroup = nil, nil
	for i := range t.Spec.Containers {
		c := &t.Spec.Containers[i]
		c.Command = c.Command[:1]
		c.VolumeMounts = c.VolumeMounts[:min(2, len(c.VolumeMounts))] // those that are not of the attempt
	}
	b, err := json.Marshal(j)
	if err != nil {
		return "", fmt.Errorf("encode the Job: %w", err)
	}
	return string(b), nil
}

func ptr[T any](v T) *T { return &v }

func (e *Executor) podSpec(at pod.Folder, a runner.Attempt) (*corev1.PodSpec, error) {
	c := e.cfg
	mounts, err := e.mounts(at, a)
	if err != nil {
		return nil, err
	}
	resources := corev1.ResourceList{}
	for name, v := range map[corev1.ResourceName]string{
		corev1.ResourceCPU: c.CPU, corev1.ResourceMemory: strconv.FormatInt((a.Limits.MemoryBytes+workerMemory)>>20, 10) + "Mi",
	} {
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return nil, &UserError{fmt.Sprintf("the amount of %s is %q", name, v), "give a Kubernetes quantity, such as 2 or 500m"}
		}
		resources[name] = q
	}
	if a.GPUs > 0 {
		resources[gpuResource] = *resource.NewQuantity(int64(a.GPUs), resource.DecimalSI)
	}
	selector := map[string]string{}
	for k, v := range c.NodeSelector {
		selector[k] = v
	}
	if c.Product != "" && a.GPUs > 0 {
		selector[labelProduct] = c.Product
	}
	uid, gid := e.userOf(a)
	image := c.Image
	if a.Image != "" {
		image = a.Image
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
	}
	spec := &corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: ptr(false), EnableServiceLinks: ptr(false), TerminationGracePeriodSeconds: ptr(int64(45)),
		NodeSelector: selector,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(uid)), RunAsGroup: ptr(int64(gid)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: container, Image: image, Command: []string{c.Worker, "worker", string(at)},
			Env:       []corev1.EnvVar{{Name: "POD_UID", ValueFrom: field("metadata.uid")}, {Name: "NODE_NAME", ValueFrom: field("spec.nodeName")}, {Name: "HOME", Value: "/tmp"}},
			Resources: corev1.ResourceRequirements{Requests: resources, Limits: resources}, VolumeMounts: mounts,
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		}},
		Volumes: []corev1.Volume{
			{Name: volume, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Claim}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(2<<30, resource.BinarySI)}}},
			{Name: "shm", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: resource.NewQuantity(shmBytes(a), resource.BinarySI)}}},
		},
	}
	if c.RuntimeClass != "" {
		spec.RuntimeClassName = ptr(c.RuntimeClass)
	}
	return spec, nil
}

// workerMemory is what the worker itself may use beside its command.
const workerMemory = 192 << 20

// shmBytes is the size of /dev/shm, which counts against the pod's memory.
func shmBytes(a runner.Attempt) int64 { return min(max(a.Limits.MemoryBytes/2, 64<<20), 32<<30) }

// mounts are the parts of the volume that the attempt may use, at the names
// that they have on the submitter's machine. Whatever else the volume holds,
// other runs above all, is not in the pod.
func (e *Executor) mounts(at pod.Folder, a runner.Attempt) ([]corev1.VolumeMount, error) {
	out := []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}, {Name: "shm", MountPath: "/dev/shm"}}
	seen := map[string]bool{}
	add := func(path string, readOnly bool) error {
		rel, err := filepath.Rel(e.cfg.Root, path)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			return &UserError{fmt.Sprintf("the path %s does not lie below %s, the volume that pods see", path, e.cfg.Root), "keep runs on the cluster's volume"}
		}
		if strings.Contains(path, ":") {
			return &UserError{fmt.Sprintf("the path %s holds a colon, which a mount cannot", path), "rename the folder"}
		}
		if !seen[path] {
			seen[path] = true
			out = append(out, corev1.VolumeMount{Name: volume, MountPath: path, SubPath: rel, ReadOnly: readOnly})
		}
		return nil
	}
	if err := add(string(at), false); err != nil {
		return nil, err
	}
	for _, p := range a.Writable {
		if err := add(p, false); err != nil {
			return nil, err
		}
	}
	readOnly := slices.Clone(a.ReadOnly)
	if within(e.cfg.Worker, e.cfg.Root) {
		readOnly = append(readOnly, e.cfg.Worker)
	}
	for _, p := range readOnly {
		if !within(p, e.cfg.Root) {
			continue // has to be in the image, under that name
		}
		if err := add(p, true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
