package kueue

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func shardPod(name, index, node string, phase corev1.PodPhase, servers, client []corev1.ContainerStatus) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{batchv1.JobCompletionIndexAnnotation: index, labelSuite: "true", batchv1.JobNameLabel: "j"}},
		Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase, InitContainerStatuses: servers, ContainerStatuses: client}}
}

func TestBlocks(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	killed := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}
	waits := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
	pulls := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
	pods := []corev1.Pod{
		shardPod("c", "2", "n2", corev1.PodRunning, []corev1.ContainerStatus{
			{Name: "server-fp8", State: running, Started: ptr(true), RestartCount: 1, LastTerminationState: killed}, {Name: "server-nvfp4", State: running, Started: ptr(true)},
		}, []corev1.ContainerStatus{{Name: "client", State: running}}),
		shardPod("a", "0", "n1", corev1.PodSucceeded, nil, nil),
		shardPod("b", "1", "n1", corev1.PodPending, []corev1.ContainerStatus{{Name: "server-fp8", State: running}, {Name: "server-nvfp4", State: pulls}}, []corev1.ContainerStatus{{Name: "client", State: waits}}),
		shardPod("d", "3", "", corev1.PodPending, nil, nil),
	}
	job := &batchv1.Job{Spec: batchv1.JobSpec{Completions: ptr(int32(12))}, Status: batchv1.JobStatus{Succeeded: 1}}
	b := blocksOf(job, pods)
	if b == nil || b.Done != 1 || b.Of != 12 {
		t.Fatalf("they are %+v", b)
	}
	var got []string
	for _, x := range b.Live {
		got = append(got, x.String())
	}
	want := []string{
		"shard 2 on n1: server-fp8 loads; server-nvfp4 waits (ImagePullBackOff); client waits",
		"shard 3 on n2: server-fp8 runs, start 2: the one before ended with status 137 (OOMKilled); server-nvfp4 runs; client runs",
		"shard 4 has no node yet: not begun",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("they are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if j, err := json.Marshal(b); err != nil || !strings.Contains(string(j), `"last":"ended with status 137 (OOMKilled)"`) {
		t.Errorf("%s, %v", j, err)
	}
	if s := ofBlocks(Observed{Job: job, Pods: pods}); s != "shards 2, 3, 4 of 12, 1 complete: " {
		t.Errorf("in a message they are %q", s)
	}
	if b := blocksOf(&batchv1.Job{Spec: batchv1.JobSpec{Completions: ptr(int32(1))}}, pods); b != nil {
		t.Errorf("a Job of one has blocks: %+v", b)
	}
}

func TestNewestPodOfEachShard(t *testing.T) {
	old := shardPod("old", "0", "n1", corev1.PodFailed, nil, nil)
	made := shardPod("new", "0", "n1", corev1.PodRunning, nil, nil)
	made.CreationTimestamp = metav1.NewTime(time.Unix(1_790_000_000, 0))
	other := shardPod("other", "1", "n1", corev1.PodRunning, nil, nil)
	var names []string
	for _, p := range newestOfEach([]corev1.Pod{old, other, made}) {
		names = append(names, p.Name)
	}
	if strings.Join(names, " ") != "new other" {
		t.Errorf("they are %v", names)
	}
	alone := shardPod("alone", "0", "n1", corev1.PodRunning, nil, nil)
	delete(alone.Labels, labelSuite)
	if shardOf(&other) != 2 || shardOf(&alone) != 0 {
		t.Errorf("shards %d and %d", shardOf(&other), shardOf(&alone))
	}
}
