package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// workerName is what the worker cluster is called: its MultiKueueCluster, and
// the context of the kubeconfigs.
const workerName = "worker"

// startWorker brings a second cluster up, without a kubelet, to which the first
// one's Kueue sends the Jobs of the queue repromill-multikueue. kwok plays the
// nodes of both.
func (c *cluster) startWorker(ctx context.Context, nodes int) error {
	if !c.running() || !c.Ready {
		return &needError{"the cluster does not run", "start it: devcluster up"}
	}
	src, err := sourceDir(ctx)
	if err != nil {
		return err
	}
	w, err := open(c.path(workerName), c.log)
	if err != nil {
		return err
	}
	w.Name, w.Node, w.NodeIP, w.Versions, w.Started = workerName, c.Node, c.NodeIP, c.Versions, time.Now().UTC().Truncate(time.Second)
	if err := w.ports("etcd", "etcdPeer", "apiserver", "controllerManager", "scheduler", "kubelet", "registry", "kueueHealth", "kueueMetrics", "kueueWebhook", "kueueVisibility"); err != nil {
		return err
	}
	for _, dir := range []string{"etcd", "run"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	if err := w.save(); err != nil {
		return err
	}
	if err := w.secrets(); err != nil {
		return err
	}
	if err := w.writeConfigs(); err != nil {
		return err
	}
	if err := w.startControlPlane(ctx); err != nil {
		return err
	}
	// Its manager finds the first one's certificates where it looks for its own.
	if err := w.startKueue(ctx, src, "--feature-gates=VisibilityOnDemand=false"); err != nil {
		return err
	}
	if err := w.furnished(ctx, "worker.yaml"); err != nil {
		return err
	}
	w.Ready = true
	if err := w.save(); err != nil {
		return err
	}
	if err := w.simulate(ctx, nodes); err != nil {
		return err
	}
	if err := c.furnished(ctx, "multikueue.yaml"); err != nil {
		return err
	}
	err = c.await(ctx, "kueue", "the worker cluster is connected", 2*time.Minute, func() error {
		out, err := c.kubectl(ctx, nil, "get", "multikueueclusters", workerName, "-o", `jsonpath={.status.conditions[?(@.type=="Active")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("its condition Active is %q", out)
		}
		return err
	})
	if err != nil {
		return err
	}
	c.say("the worker cluster is up; queue: repromill-multikueue, context: %s", workerName)
	return nil
}

// furnished applies a manifest. The webhooks of a manager that has just started
// may refuse for a moment.
func (c *cluster) furnished(ctx context.Context, manifest string) error {
	b, err := c.render(manifest)
	if err != nil {
		return err
	}
	return c.await(ctx, "kueue", "its objects are accepted", time.Minute, func() error {
		_, err := c.kubectl(ctx, b, "apply", "-f", "-")
		return err
	})
}

// stopWorker stops the second cluster, where there is one.
func (c *cluster) stopWorker(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(c.path(workerName), "cluster.json")); err != nil {
		return nil
	}
	w, err := open(c.path(workerName), c.log)
	if err != nil {
		return err
	}
	return w.down(ctx)
}
