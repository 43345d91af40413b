package kueue

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/repromill/repromill/runner/pod"
)

// workers are the clusters that MultiKueue sends Jobs to, as far as this machine
// may look at them: a context of the kubeconfig that has the name of the
// MultiKueueCluster.
type workers struct {
	mu     sync.Mutex
	byName map[string]*client // nil where there is no such context
}

// of is the way to a worker cluster, nil for none.
func (w *workers) of(name string, connect func(name string) (*client, error)) *client {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, known := w.byName[name]
	if known {
		return c
	}
	c, err := connect(name)
	if err != nil {
		c = nil
	}
	if w.byName == nil {
		w.byName = map[string]*client{}
	}
	w.byName[name] = c
	return c
}

// elsewhere is where a Job that MultiKueue has sent away is looked at: the
// manager cluster shows its status and never its pods.
func (e *Executor) elsewhere(w *Workload) *client {
	if w == nil || w.Status.ClusterName == "" {
		return nil
	}
	return e.workers.of(w.Status.ClusterName, func(name string) (*client, error) { return connect(e.cfg.Kubeconfig, name, e.cfg.Namespace) })
}

// dispatched is a Job on a worker cluster whose pods are not seen here.
func dispatched(p Phase, o Observed) Phase {
	name := o.Workload.Status.ClusterName
	p.Message = "admitted by the worker cluster " + name + ", which starts it"
	if s := o.Job.Status; s.Ready != nil && *s.Ready > 0 {
		p.State, p.Reason, p.Message = Running, "", "runs on the worker cluster "+name
	} else if s.Active > 0 {
		p.Message = "its pod is starting on the worker cluster " + name
	}
	return p
}

// early is what the newest pod of an attempt printed by itself, while nothing of
// the attempt's is on the volume: what its node or its image had to say. It is
// read from the cluster that has the pod, and is empty where that cannot be
// read.
func (e *Executor) early(ctx context.Context, at pod.Folder, job string, from int64) io.ReadCloser {
	nothing := io.NopCloser(strings.NewReader(""))
	b, err := os.ReadFile(filepath.Join(string(at), fileMade))
	var m made
	if err != nil || json.Unmarshal(b, &m) != nil {
		return nothing
	}
	c := e.c
	if w, err := c.workload(ctx, string(m.Job)); err == nil {
		if there := e.elsewhere(w); there != nil {
			c = there
		}
	}
	pods, err := c.pods(ctx, job)
	if err != nil || len(pods) == 0 {
		return nothing
	}
	r, err := c.kube.CoreV1().Pods(c.namespace).GetLogs(newest(pods).Name, &corev1.PodLogOptions{Container: container}).Stream(ctx)
	if err != nil {
		return nothing
	}
	if _, err := io.CopyN(io.Discard, r, from); err != nil {
		r.Close()
		return nothing
	}
	return r
}
