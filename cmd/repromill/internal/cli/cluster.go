package cli

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/kueue"
	"github.com/repromill/repromill/runner/server"
)

// clusterExecutor is the name of the executor that uses the queue "small".
const clusterExecutor = "kueue"

// queue is a LocalQueue that runs may be sent to, and the executor's name for it.
type queue struct{ executor, name string }

// queues are those of the configuration; the first is the one of minimal runs.
func (a *app) queues() []queue {
	out := []queue{{clusterExecutor, "repromill-small"}}
	group := a.cfg.Group("queues")
	var purposes []string
	for p, v := range group {
		if p == "small" {
			out[0].name = v.Value
		}
		purposes = append(purposes, p)
	}
	if len(purposes) == 0 {
		return append(out, queue{clusterExecutor + ":small", out[0].name}, queue{clusterExecutor + ":reserved", "repromill-reserved"})
	}
	sort.Strings(purposes)
	for _, p := range purposes {
		out = append(out, queue{clusterExecutor + ":" + p, group[p].Value})
	}
	return out
}

// clusterExecutors are the executors of the cluster. None of them does or
// checks anything before a run uses it.
func (a *app) clusterExecutors(hook func(string)) (map[string]runner.Executor, map[string]runner.Place) {
	executors, places := map[string]runner.Executor{}, map[string]runner.Place{}
	volume := a.cfg.String("cluster.volume")
	for _, q := range a.queues() {
		executors[q.executor] = lateExecutor(sync.OnceValues(func() (*kueue.Executor, error) { return a.kueue(q.name, hook) }))
		places[q.executor] = runner.Place{
			Dir: filepath.Join(volume, "repromill"), GPUs: int(a.cfg.Int("cluster.gpus")), NodeGPUs: a.nodeGPUs,
			Python: runner.Interpreter{Path: a.cfg.String("cluster.python"), Version: a.cfg.String("cluster.python_version"), Prefix: "/usr"},
		}
	}
	return executors, places
}

// kueue connects to the cluster of the configuration.
func (a *app) kueue(queue string, hook func(string)) (*kueue.Executor, error) {
	volume, image := a.cfg.String("cluster.volume"), a.cfg.String("cluster.image")
	switch {
	case volume == "":
		return nil, usererrf("mount the claim's volume on this machine and set cluster.volume (REPROMILL_CLUSTER_VOLUME) to that folder", "no volume is configured that pods and this machine share")
	case image == "":
		return nil, usererrf("set cluster.image (REPROMILL_CLUSTER_IMAGE), for example to docker.io/library/python:3.12-slim with its digest", "no image is configured for pods")
	}
	real, err := filepath.EvalSymlinks(volume)
	if info, serr := os.Stat(volume); err != nil || serr != nil || !info.IsDir() || real != volume {
		return nil, usererrf("set cluster.volume to the folder at which the claim's volume is mounted, by its real name", "the volume %q is no folder", volume)
	}
	dir := filepath.Join(volume, "repromill")
	worker, err := placeWorker(filepath.Join(dir, "bin"))
	if err != nil {
		return nil, err
	}
	return kueue.New(kueue.Config{
		Kubeconfig: a.env["KUBECONFIG"], Context: a.cfg.String("cluster.context"), Namespace: a.cfg.String("cluster.namespace"),
		Queue: queue, Priority: a.cfg.String("cluster.priority"), Root: volume, Dir: filepath.Join(dir, "attempts"), Claim: a.cfg.String("cluster.claim"),
		Image: image, Worker: worker, CPU: a.cfg.String("cluster.cpu"), Product: a.cfg.String("cluster.product"), SKUOf: skuOf,
		AllowPrivate: a.indexHosts(), Now: a.now, Hook: hook,
		Images: map[string]string{server.VLLM: a.cfg.String("cluster.vllm_image"), server.SGLang: a.cfg.String("cluster.sglang_image")},
		Cache:  filepath.Join(dir, "cache"), HubEndpoint: a.hubEndpoint(), HubSecret: a.cfg.String("cluster.hub_secret"),
		ServerCPU: a.cfg.String("cluster.server_cpu"), ServerMemory: a.cfg.String("cluster.server_memory"), StartPatience: a.cfg.Duration("cluster.start_patience"),
		NodeGPUs: int(a.cfg.Int("cluster.node_gpus")), Topology: a.cfg.String("cluster.topology"),
		VolumeDelay: a.cfg.Duration("cluster.volume_delay"),
	})
}

// hubEndpoint is what stands for the hub, "" where it is the hub itself.
func (a *app) hubEndpoint() string {
	at, _ := a.endpoints()
	return firstOf(at[fetch.HF], a.env["HF_ENDPOINT"])
}

// skuOf is the GPU model that a node's label names.
func skuOf(product string) string {
	s, err := sku.Find(product)
	if err != nil {
		return ""
	}
	return s.ID
}

// placeWorker copies this program to the volume, where pods find the very
// worker that this submitter speaks to, whatever their image is.
func placeWorker(dir string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := static(exe); err != nil {
		return "", err
	}
	f, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	to := filepath.Join(dir, "repromill-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	b, err := os.ReadFile(exe)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = atomicfile.Write(to, b, atomicfile.Options{Perm: 0o755})
	}
	if err != nil {
		return "", usererrf("make the volume writable for you, with room for it", "cannot put the worker on the cluster's volume: %v", err)
	}
	return to, nil
}

// static refuses a program that a pod's image cannot run.
func static(exe string) error {
	const fix = "use a release build for Linux, or build with CGO_ENABLED=0"
	f, err := elf.Open(exe)
	if err != nil {
		return usererrf(fix, "this program cannot be the worker in a pod: %v", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return usererrf(fix, "this program is linked dynamically and cannot be the worker in a pod")
		}
	}
	return nil
}

// clusterReady says what is missing for a run on the cluster before a run is
// made.
func (a *app) clusterReady(ctx context.Context, executor string) error {
	if executor != clusterExecutor && !strings.HasPrefix(executor, clusterExecutor+":") {
		return nil
	}
	e, err := a.clusterOf(executor)
	if err != nil {
		return err
	}
	return e.Ready(ctx)
}

// lateExecutor is an executor that is made when it is first used.
type lateExecutor func() (*kueue.Executor, error)

// Submit is the executor's own; see [runner.Executor].
func (l lateExecutor) Submit(ctx context.Context, at runner.Attempt) (runner.Handle, error) {
	e, err := l()
	if err != nil {
		return "", err
	}
	return e.Submit(ctx, at)
}

// Observe is the executor's own; see [runner.Executor].
func (l lateExecutor) Observe(ctx context.Context, h runner.Handle) (runner.Status, error) {
	e, err := l()
	if err != nil {
		return runner.Status{}, err
	}
	return e.Observe(ctx, h)
}

// Cancel is the executor's own; see [runner.Executor].
func (l lateExecutor) Cancel(ctx context.Context, h runner.Handle) error {
	e, err := l()
	if err != nil {
		return err
	}
	return e.Cancel(ctx, h)
}

// Stop is the executor's own; see [runner.Sharder].
func (l lateExecutor) Stop(ctx context.Context, h runner.Handle, why string) error {
	e, err := l()
	if err != nil {
		return err
	}
	return e.Stop(ctx, h, why)
}

// Logs is the executor's own; see [runner.Logger].
func (l lateExecutor) Logs(ctx context.Context, h runner.Handle, from int64) (io.ReadCloser, error) {
	e, err := l()
	if err != nil {
		return nil, err
	}
	return e.Logs(ctx, h, from)
}
