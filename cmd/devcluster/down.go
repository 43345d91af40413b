package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// down stops everything and removes what the cluster made, but for the
// programs in the cache.
func (c *cluster) down(ctx context.Context) error {
	if _, err := os.Stat(c.path("cluster.json")); err != nil {
		c.say("no cluster")
		return nil
	}
	if err := c.stopWorker(ctx); err != nil {
		return err
	}
	c.Ready = false
	c.emptyNode(ctx)
	for _, name := range []string{"kueue", "kwok", "kubelet", "kube-scheduler", "kube-controller-manager"} {
		if err := c.stop(name, 10*time.Second); err != nil {
			return err
		}
	}
	if err := c.killShims(); err != nil {
		return err
	}
	for _, name := range []string{"containerd", "kube-apiserver", "objects", "registry", "etcd"} {
		if err := c.stop(name, 10*time.Second); err != nil {
			return err
		}
	}
	if err := c.sweep(); err != nil {
		return err
	}
	for _, dir := range c.Outside {
		if err := removeOutside(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the cluster's folder: %w", err)
	}
	*c = cluster{dir: c.dir, log: c.log, Ports: map[string]int{}}
	c.say("the cluster is down")
	return nil
}

// emptyNode lets the kubelet take the pods down in an orderly way, which also
// takes their networks down. Where that cannot be done, sweep does the rest.
func (c *cluster) emptyNode(ctx context.Context) {
	up := false
	for _, p := range c.Procs {
		up = up || p.Name == "kube-apiserver" && p.alive()
	}
	if !up {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	c.stop("kueue", 5*time.Second)
	c.stop("kwok", 5*time.Second)
	c.stop("kube-scheduler", 5*time.Second)
	c.stop("kube-controller-manager", 5*time.Second)
	c.kubectl(ctx, nil, "delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all", "--wait=false")
	// Nobody ends the pods of simulated nodes any more, and nothing is left of them.
	c.kubectl(ctx, nil, "delete", "nodes", "-l", simulatedLabel+"=kwok", "--wait=false")
	if pods, err := c.kubectl(ctx, nil, "get", "pods", "-A", "-o", `jsonpath={range .items[?(@.spec.nodeName=="`+c.Node+`")]}{.metadata.name}{end}`); err == nil && pods == "" {
		return
	}
	c.kubectl(ctx, nil, "delete", "pods", "--all", "-A", "--grace-period=1", "--timeout=30s")
}

// detach is MNT_DETACH of umount2(2), which other systems' syscall packages lack.
const detach = 2

// sweep removes mounts, network interfaces and cgroups that are left.
func (c *cluster) sweep() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	lines := strings.Split(string(mounts), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) > 1 && strings.HasPrefix(unescape(f[1]), c.dir+"/") {
			syscall.Unmount(unescape(f[1]), detach)
		}
	}
	// Interfaces of pods hang on the bridge and go with their namespaces.
	exec.Command("ip", "link", "delete", bridge).Run()
	for _, root := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods"} {
		found, _ := filepath.Glob(root)
		for _, dir := range found {
			removeCgroup(dir)
		}
	}
	// Shared with other users of runc; only what is empty goes.
	for _, dir := range []string{"runc/k8s.io", "runc", "s", ""} {
		os.Remove(filepath.Join("/run/containerd", dir))
	}
	return nil
}

// unescape undoes the octal escapes of /proc/mounts.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func removeCgroup(dir string) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if e.IsDir() {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}

// removeOutside removes a folder that the cluster made, and the parents that
// are empty then.
func removeOutside(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	for d := filepath.Dir(dir); d != "/" && d != "/etc" && d != "/var/lib" && d != "/srv"; d = filepath.Dir(d) {
		if os.Remove(d) != nil {
			break
		}
	}
	return nil
}
