// Package engine is the one adapter over Docker's engine API: everything that
// builds images or runs containers goes through it, so that the frozen client
// library behind it can be changed in one place.
//
// An [Engine] negotiates the API version with the daemon (1.41, Docker 20.10,
// is known to work) and turns the engine's answers into errors that say what a
// person has to do: an [UnavailableError] when nobody answers, a
// [RegistryError] when an image cannot be moved, a [BuildError] when a build
// failed, a [DiskFullError] when there is no room.
package engine

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/docker/client"
)

// Config says which engine is meant. The zero value is the default socket.
type Config struct {
	// Host is a URL such as "unix:///var/run/docker.sock" or
	// "tcp://host:2376". Empty means what the environment and the Docker
	// configuration say: DOCKER_HOST, DOCKER_CONTEXT, the current context,
	// then the default socket, then the rootless one.
	Host string
	// Getenv reads the environment; nil means that it is empty.
	Getenv func(string) string
}

// Engine is a connection to one daemon. It is safe for concurrent use.
type Engine struct {
	cli  *client.Client
	host string
}

// Open connects and negotiates the API version. Its error is an
// [UnavailableError] when no engine answers.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	ep, err := endpoint(cfg)
	if err != nil {
		return nil, err
	}
	opts := []client.Opt{client.WithHost(ep.host), client.WithAPIVersionNegotiation(), client.WithUserAgent("repromill")}
	if ep.certs != "" {
		opts = append(opts, client.WithTLSClientConfig(ep.certs+"/ca.pem", ep.certs+"/cert.pem", ep.certs+"/key.pem"))
	}
	if v := cfg.Getenv("DOCKER_API_VERSION"); v != "" {
		opts = append(opts, client.WithVersion(strings.TrimPrefix(v, "v")))
	}
	cli, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, &UnavailableError{Host: ep.host, Why: err.Error(), Fix: "correct DOCKER_HOST or the Docker context"}
	}
	e := &Engine{cli: cli, host: ep.host}
	if _, err := cli.Ping(ctx); err != nil {
		cli.Close()
		return nil, e.wrap("connect to Docker", err)
	}
	return e, nil
}

// Close lets go of the connections.
func (e *Engine) Close() error { return e.cli.Close() }

// Host is the address of the engine.
func (e *Engine) Host() string { return e.host }

// Local reports whether the engine is reached through a socket of this
// machine, so that it may see this machine's files.
func (e *Engine) Local() bool { return strings.HasPrefix(e.host, "unix://") }

// Ping asks the engine for a sign of life.
func (e *Engine) Ping(ctx context.Context) error {
	_, err := e.cli.Ping(ctx)
	return e.wrap("ping Docker", err)
}

// Info is what an engine says of itself.
type Info struct {
	ID              string   `json:"id"` // of this engine's data folder; another one sees other containers
	ServerVersion   string   `json:"server_version"`
	APIVersion      string   `json:"api_version"` // negotiated
	OS              string   `json:"os"`          // "linux"
	Arch            string   `json:"arch"`        // as the kernel says it: "x86_64"
	OperatingSystem string   `json:"operating_system"`
	Kernel          string   `json:"kernel"`
	StorageDriver   string   `json:"storage_driver"`
	CgroupVersion   string   `json:"cgroup_version"`
	RootDir         string   `json:"root_dir"`
	CPUs            int      `json:"cpus"`
	MemoryBytes     int64    `json:"memory_bytes"`
	Runtimes        []string `json:"runtimes"` // sorted; "nvidia" where GPUs can be handed out
	LiveRestore     bool     `json:"live_restore"`
	Rootless        bool     `json:"rootless"`
	UserNSRemap     bool     `json:"userns_remap"`
	Seccomp         bool     `json:"seccomp"`
	MemoryLimit     bool     `json:"memory_limit"` // false where the kernel cannot bound memory
	SwapLimit       bool     `json:"swap_limit"`
	PidsLimit       bool     `json:"pids_limit"`
	CPULimit        bool     `json:"cpu_limit"`
	Warnings        []string `json:"warnings,omitempty"`
}

// Info returns what the engine says of itself.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	i, err := e.cli.Info(ctx)
	if err != nil {
		return Info{}, e.wrap("ask Docker what it is", err)
	}
	out := Info{
		ID: i.ID, ServerVersion: i.ServerVersion, APIVersion: e.cli.ClientVersion(), OS: i.OSType, Arch: i.Architecture,
		OperatingSystem: i.OperatingSystem, Kernel: i.KernelVersion, StorageDriver: i.Driver, CgroupVersion: i.CgroupVersion,
		RootDir: i.DockerRootDir, CPUs: i.NCPU, MemoryBytes: i.MemTotal, LiveRestore: i.LiveRestoreEnabled,
		MemoryLimit: i.MemoryLimit, SwapLimit: i.SwapLimit, PidsLimit: i.PidsLimit, CPULimit: i.CPUCfsQuota, Warnings: i.Warnings,
	}
	for name := range i.Runtimes {
		out.Runtimes = append(out.Runtimes, name)
	}
	slices.Sort(out.Runtimes)
	for _, o := range i.SecurityOptions {
		name, _, _ := strings.Cut(strings.TrimPrefix(o, "name="), ",")
		switch name {
		case "rootless":
			out.Rootless = true
		case "userns":
			out.UserNSRemap = true
		case "seccomp":
			out.Seccomp = true
		}
	}
	return out, nil
}

// Events calls fn for every event of containers with all of the labels until
// the context ends or fn fails.
func (e *Engine) Events(ctx context.Context, labels map[string]string, fn func(Event) error) error {
	return e.events(ctx, labels, fn)
}

// drain reads a stream to its end, so that the connection can be used again.
func drain(r io.ReadCloser) {
	io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	r.Close()
}

func labelPairs(labels map[string]string) (out []string) {
	for k, v := range labels {
		if v == "" {
			out = append(out, k)
			continue
		}
		out = append(out, fmt.Sprintf("%s=%s", k, v))
	}
	slices.Sort(out)
	return out
}
