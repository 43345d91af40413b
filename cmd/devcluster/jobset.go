package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// jobSets is the program that makes Jobs of JobSets, of the version that Kueue's
// manager is built with.
func (v versions) jobSets() target {
	return target{"jobset-" + v.JobSet, "kueue", "sigs.k8s.io/jobset", "-s -w"}
}

// startJobSet starts JobSet's controller with its webhooks, which complete what
// is left out of a JobSet.
func (c *cluster) startJobSet(ctx context.Context, src string) error {
	if err := c.build(ctx, src, []target{c.Versions.jobSets()}); err != nil {
		return err
	}
	mod, err := moduleDir(ctx, src, "kueue", "sigs.k8s.io/jobset")
	if err != nil {
		return err
	}
	if err := c.ports("jobsetHealth", "jobsetMetrics", "jobsetWebhook"); err != nil {
		return err
	}
	b, err := c.render("jobset.yaml")
	if err != nil {
		return err
	}
	if err := writeFile(c.path("etc/jobset.yaml"), b, 0o644); err != nil {
		return err
	}
	if err := c.start("jobset", c.bin(c.Versions.jobSets().name), "--config="+c.path("etc/jobset.yaml"), "--kubeconfig="+c.path("kueue.kubeconfig")); err != nil {
		return err
	}
	if err := c.await(ctx, "jobset", "JobSet is ready", 2*time.Minute, func() error { return answers(fmt.Sprintf("http://127.0.0.1:%d/readyz", c.Ports["jobsetHealth"])) }); err != nil {
		return err
	}
	return c.installWebhooks(ctx, filepath.Join(mod, "config/components/webhook/manifests.yaml"), "jobset-", c.Ports["jobsetWebhook"], "-jobset-x-k8s-io-v1alpha2-jobset")
}

// installWebhooks points webhooks of a manager's own manifest at the one on this
// machine: those whose path ends with one of the endings.
func (c *cluster) installWebhooks(ctx context.Context, manifest, prefix string, port int, endings ...string) error {
	hooks, err := os.ReadFile(manifest)
	if err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}
	ca, err := os.ReadFile(c.path("pki/ca.crt"))
	if err != nil {
		return fmt.Errorf("read authority: %w", err)
	}
	local, err := localWebhooks(hooks, ca, prefix, port, endings)
	if err != nil {
		return err
	}
	_, err = c.kubectl(ctx, local, "apply", "-f", "-")
	return err
}
