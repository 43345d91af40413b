package kueue

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Workload is what this package reads of Kueue's Workload
// (kueue.x-k8s.io/v1beta2, sigs.k8s.io/kueue apis/kueue/v1beta2): its own Go
// package is no module of its own and would bring all of Kueue along.
type Workload struct {
	Metadata struct {
		Name              string            `json:"name"`
		UID               string            `json:"uid"`
		ResourceVersion   string            `json:"resourceVersion,omitempty"`
		Labels            map[string]string `json:"labels,omitempty"`
		CreationTimestamp time.Time         `json:"creationTimestamp"`
	} `json:"metadata"`
	Spec struct {
		QueueName         string `json:"queueName,omitempty"`
		Active            *bool  `json:"active,omitempty"`
		Priority          int32  `json:"priority,omitempty"`
		PriorityClassName string `json:"priorityClassName,omitempty"`
	} `json:"spec"`
	Status struct {
		Conditions      []Condition      `json:"conditions,omitempty"`
		Admission       *Admission       `json:"admission,omitempty"`
		AdmissionChecks []AdmissionCheck `json:"admissionChecks,omitempty"`
		RequeueState    *RequeueState    `json:"requeueState,omitempty"`
		SchedulingStats *SchedulingStats `json:"schedulingStats,omitempty"`
		// ResourceRequests are what it asks for, while it has not been admitted.
		ResourceRequests []struct {
			Resources map[string]resource.Quantity `json:"resources,omitempty"`
		} `json:"resourceRequests,omitempty"`
		// ClusterName is the worker cluster that has it, by MultiKueue's name for
		// it, and NominatedClusterNames are those that may get it.
		ClusterName           string   `json:"clusterName,omitempty"`
		NominatedClusterNames []string `json:"nominatedClusterNames,omitempty"`
	} `json:"status"`
}

// Condition is a condition of a Workload.
type Condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"` // True, False, Unknown
	Reason             string    `json:"reason,omitempty"`
	Message            string    `json:"message,omitempty"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// Admission is the quota that a Workload was given.
type Admission struct {
	ClusterQueue      string `json:"clusterQueue"`
	PodSetAssignments []struct {
		Name          string                       `json:"name"`
		Flavors       map[string]string            `json:"flavors,omitempty"` // by resource
		ResourceUsage map[string]resource.Quantity `json:"resourceUsage,omitempty"`
	} `json:"podSetAssignments,omitempty"`
}

// AdmissionCheck is one consent that an admission needs beside quota.
type AdmissionCheck struct {
	Name    string `json:"name"`
	State   string `json:"state"` // Pending, Ready, Retry, Rejected
	Message string `json:"message,omitempty"`
}

// RequeueState says when an evicted Workload is queued again.
type RequeueState struct {
	Count     int        `json:"count,omitempty"`
	RequeueAt *time.Time `json:"requeueAt,omitempty"`
}

// SchedulingStats counts evictions by reason.
type SchedulingStats struct {
	Evictions []struct {
		Reason string `json:"reason"`
		Count  int    `json:"count"`
	} `json:"evictions,omitempty"`
}

func (w *Workload) condition(kind string) *Condition {
	if w == nil {
		return nil
	}
	for i := range w.Status.Conditions {
		if w.Status.Conditions[i].Type == kind {
			return &w.Status.Conditions[i]
		}
	}
	return nil
}

// is returns a condition that holds.
func (w *Workload) is(kind string) *Condition {
	if c := w.condition(kind); c != nil && c.Status == "True" {
		return c
	}
	return nil
}

// gpuResource is how nodes offer NVIDIA's GPUs.
const gpuResource = "nvidia.com/gpu"

// flavor is the ResourceFlavor that was assigned: that of the GPUs where there
// are any, since it decides what a number was measured on.
func (w *Workload) flavor() string {
	if w == nil || w.Status.Admission == nil {
		return ""
	}
	out := ""
	for _, a := range w.Status.Admission.PodSetAssignments {
		if f := a.Flavors[gpuResource]; f != "" {
			return f
		}
		if f := a.Flavors["cpu"]; f != "" {
			out = f
		}
	}
	return out
}

func (w *Workload) evictions() (n int) {
	if w == nil || w.Status.SchedulingStats == nil {
		return 0
	}
	for _, e := range w.Status.SchedulingStats.Evictions {
		n += e.Count
	}
	return n
}

// requests is what it takes of its queue's quota, by resource.
func (w *Workload) requests() map[string]float64 {
	out := map[string]float64{}
	add := func(list map[string]resource.Quantity) {
		for name, q := range list {
			out[name] += q.AsApproximateFloat64()
		}
	}
	if a := w.Status.Admission; a != nil {
		for _, p := range a.PodSetAssignments {
			add(p.ResourceUsage)
		}
		return out
	}
	for _, p := range w.Status.ResourceRequests {
		add(p.Resources)
	}
	return out
}
