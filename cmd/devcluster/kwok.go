package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Simulated nodes carry this label, and a taint of the same words, so that
// nothing meant for a real kubelet lands on them.
const simulatedLabel = "repromill.dev/simulated"

// simulate makes kwok play the kubelets of n nodes, beside the real one.
func (c *cluster) simulate(ctx context.Context, n int) error {
	if !c.running() || !c.Ready {
		return &needError{"the cluster does not run", "start it: devcluster up"}
	}
	if n < 0 || n > 5000 {
		return &needError{fmt.Sprintf("%d nodes cannot be simulated", n), "use 0 to 5000"}
	}
	src, err := sourceDir(ctx)
	if err != nil {
		return err
	}
	if err := c.build(ctx, src, []target{c.Versions.simulator()}); err != nil {
		return err
	}
	mod, err := moduleDir(ctx, src, "kwok", "sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	stages, err := manifests.ReadFile("stages/pods.yaml")
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if err := writeFile(c.path("etc/kwok-stages.yaml"), stages, 0o644); err != nil {
		return err
	}
	err = c.start("kwok", c.bin(c.Versions.simulator().name), "--kubeconfig="+c.kubeconfig(), "--config="+c.path("etc/kwok-stages.yaml"),
		"--config="+filepath.Join(mod, "kustomize/stage/node/fast/node-initialize.yaml"), "--config="+filepath.Join(mod, "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml"),
		"--manage-nodes-with-label-selector="+simulatedLabel+"=kwok", "--cidr="+simulatedCIDR, "--node-ip="+c.NodeIP, "--node-lease-duration-seconds=40")
	if err != nil {
		return err
	}
	if err := c.simulatedNodes(ctx, n); err != nil {
		return err
	}
	if c.Name == "" {
		if err := c.startJobSet(ctx, src); err != nil {
			return err
		}
	}
	b, err := c.render("kwok-queues.yaml")
	if err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, b, "apply", "-f", "-"); err != nil {
		return err
	}
	err = c.await(ctx, "kwok", fmt.Sprintf("%d simulated nodes are ready", n), 2*time.Minute, func() error {
		out, err := c.kubectl(ctx, nil, "get", "nodes", "-l", simulatedLabel+"=kwok", "-o",
			`jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{.spec.taints[?(@.effect=="NoSchedule")].key}{"\n"}{end}`)
		if ready := strings.Count(out, "True"+simulatedLabel+"\n"); err == nil && ready != n {
			err = fmt.Errorf("%d of %d are", ready, n)
		}
		return err
	})
	if err != nil {
		return err
	}
	c.say("%d nodes are simulated; queues: repromill-simulated, repromill-simulated-narrow", n)
	return nil
}

// simulatedCIDR is where the addresses of simulated pods come from; nothing
// answers there.
const simulatedCIDR = "10.215.0.0/16"

// simulatedNodes makes the nodes 0 to n-1 and removes others. Every other one
// has GPUs of another model, so that a Job may ask for either.
func (c *cluster) simulatedNodes(ctx context.Context, n int) error {
	have, err := c.kubectl(ctx, nil, "get", "nodes", "-l", simulatedLabel+"=kwok", "-o", "name")
	if err != nil {
		return err
	}
	want := map[string]bool{}
	var list strings.Builder
	for i := range n {
		name := fmt.Sprintf("simulated-%04d", i)
		want["node/"+name] = true
		product := []string{"NVIDIA-H200", "NVIDIA-B200"}[i%2]
		fmt.Fprintf(&list, `---
apiVersion: v1
kind: Node
metadata:
  name: %[1]s
  annotations: {kwok.x-k8s.io/node: fake}
  labels: {%[2]s: kwok, kubernetes.io/hostname: %[1]s, kubernetes.io/os: linux, nvidia.com/gpu.product: %[3]s, repromill.dev/simulated-gpus: "true"}
spec:
  taints: [{key: %[2]s, value: kwok, effect: NoSchedule}]
status:
  capacity: &room {cpu: "1000", memory: 4Ti, pods: "2000", nvidia.com/gpu: "8"}
  allocatable: *room
`, name, simulatedLabel, product)
	}
	extra := []string{"delete", "--wait=false"}
	for _, name := range strings.Fields(have) {
		if !want[name] {
			extra = append(extra, name)
		}
	}
	if len(extra) > 2 {
		if _, err := c.kubectl(ctx, nil, extra...); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	_, err = c.kubectl(ctx, []byte(list.String()), "apply", "-f", "-")
	return err
}
