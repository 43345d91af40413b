package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/repromill/repromill/runner/docker/engine"
)

// engineChecks say what Docker's engine can do here, and what it lacks.
func (a *app) engineChecks(ctx context.Context) []check {
	eng, err := a.connectDocker(ctx)
	var none *engine.UnavailableError
	if errors.As(err, &none) {
		return []check{{What: "docker", Status: "missing", Found: "no engine at " + none.Host + ": " + none.Why, Fix: none.Fix}}
	}
	if err != nil {
		return []check{{What: "docker", Status: "missing", Found: err.Error(), Fix: "look at `docker info`"}}
	}
	defer eng.Close()
	i, err := eng.Info(ctx)
	if err != nil {
		return []check{{What: "docker", Status: "missing", Found: err.Error(), Fix: "look at `docker info`"}}
	}
	return []check{engineCheck(eng, i), engineDisk(eng, i), a.imagesCheck(ctx, eng), gpuRuntime(i)}
}

func engineCheck(eng *engine.Engine, i engine.Info) check {
	mode := ""
	if i.Rootless {
		mode = ", rootless"
	}
	c := check{What: "docker", Status: "ok", Found: fmt.Sprintf("%s at %s, API %s, %s, cgroup v%s, %d CPUs, %.0f GB%s",
		i.ServerVersion, eng.Host(), i.APIVersion, i.StorageDriver, i.CgroupVersion, i.CPUs, float64(i.MemoryBytes)/1e9, mode)}
	var lacks []string
	for what, has := range map[string]bool{"memory limit": i.MemoryLimit, "process limit": i.PidsLimit, "CPU limit": i.CPULimit, "seccomp": i.Seccomp} {
		if !has {
			lacks = append(lacks, what)
		}
	}
	slices.Sort(lacks)
	switch {
	case !eng.Local():
		c.Status, c.Fix = "weak", "it does not see this machine's files: unset DOCKER_HOST, or run repromill where the engine is"
	case i.OS != "linux":
		c.Status, c.Fix = "missing", "switch the engine to Linux containers"
	case len(lacks) > 0:
		c.Status, c.Found = "weak", c.Found+"; without "+strings.Join(lacks, ", ")
		c.Fix = "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), and see the warnings of `docker info`"
	case !i.LiveRestore:
		c.Found += "; its restart ends running containers"
		c.Fix = `optional: set {"live-restore": true} in /etc/docker/daemon.json, then sudo systemctl reload docker`
	}
	return c
}

func engineDisk(eng *engine.Engine, i engine.Info) check {
	c := check{What: "docker disk", Status: "ok", Found: i.RootDir}
	var fs syscall.Statfs_t
	if !eng.Local() || syscall.Statfs(i.RootDir, &fs) != nil && syscall.Statfs(filepath.Dir(i.RootDir), &fs) != nil {
		c.Found += ", free space unknown from here"
		return c
	}
	free := float64(fs.Bavail) * float64(fs.Bsize)
	c.Found += fmt.Sprintf(", %.0f GB free", free/1e9)
	if free < 20e9 {
		c.Status, c.Fix = "weak", "GPU environments take 10 GB and more: docker system prune, or repromill cache prune --keep 20GB"
	}
	return c
}

// imagesCheck says which base images can be used without a network.
func (a *app) imagesCheck(ctx context.Context, eng *engine.Engine) check {
	c := check{What: "images", Status: "ok"}
	list, err := eng.ListImages(ctx, nil)
	if err != nil {
		return check{What: "images", Status: "missing", Found: err.Error(), Fix: "look at `docker images`"}
	}
	var sum int64
	made := 0
	for _, img := range list {
		if slices.ContainsFunc(img.Tags, func(t string) bool { return strings.HasPrefix(t, envRepository+":") }) {
			made++
			sum += img.Size
		}
	}
	c.Found = fmt.Sprintf("%d images, %d of them environments of ours with %.1f GB", len(list), made, float64(sum)/1e9)
	if bases := a.cfg.String("images.bases"); bases != "" {
		c.Found += "; bases " + bases
	}
	return c
}

// conda is what makes conda environments in images.
func (a *app) conda() check {
	c := check{What: "conda", Status: "ok", Found: "rattler's solver, fetched from the package index when an environment needs it"}
	if p := a.cfg.String("images.micromamba"); p != "" {
		c.Found = p
		if st, err := os.Stat(p); err != nil || st.Mode()&0o111 == 0 {
			c.Status, c.Fix = "missing", "set images.micromamba (MAMBA_EXE) to a static micromamba, or leave it out"
		}
	}
	return c
}

func gpuRuntime(i engine.Info) check {
	found := gpuDevices()
	if slices.Contains(i.Runtimes, "nvidia") {
		return check{What: "docker GPUs", Status: "ok", Found: "the nvidia runtime is configured"}
	}
	c := check{What: "docker GPUs", Status: "ok", Found: "none on this machine"}
	if len(found) > 0 {
		c.Status, c.Found = "missing", fmt.Sprintf("%d GPUs, which containers cannot use", len(found))
		c.Fix = "sudo apt-get install nvidia-container-toolkit && sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
	}
	return c
}

// gpuDevices are this machine's NVIDIA GPUs.
func gpuDevices() []string {
	found, err := filepath.Glob("/dev/nvidia[0-9]*")
	if err != nil {
		return nil // the pattern is a constant
	}
	return found
}

func gpus() check {
	found := gpuDevices()
	if len(found) == 0 {
		return check{What: "GPUs", Status: "ok", Found: "none; runs that need one are planned and estimated, not executed"}
	}
	return check{What: "GPUs", Status: "ok", Found: fmt.Sprintf("%d (%s)", len(found), strings.Join(found, ", "))}
}
