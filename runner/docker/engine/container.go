package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/pkg/stdcopy"
)

// Container is a container to be made. Nothing is granted that is not asked
// for, except what the engine's defaults grant and CapDrop, SecurityOpt and
// the like take away.
type Container struct {
	Name       string
	Image      string // a reference or an id
	Entrypoint []string
	Cmd        []string
	Env        []string // "NAME=value", added to the image's
	Dir        string
	User       string // "uid:gid"
	Hostname   string
	Labels     map[string]string

	Mounts       []Mount
	Tmpfs        map[string]string // path to mount options
	ReadOnlyRoot bool
	CapDrop      []string
	SecurityOpt  []string
	Network      string // "none", "bridge"; empty means the engine's default
	IPC          string
	HostUserNS   bool // no remapping of user ids
	NoLog        bool // the engine keeps no output of the container
	Init         bool // the engine's own init as process 1

	MemoryBytes int64 // swap is not granted on top
	ShmBytes    int64
	Processes   int64
	CPUs        float64
	GPUs        int      // -1 for all
	GPUIDs      []string // these GPUs, by UUID or index, in place of a number
	OOMScoreAdj int
}

// Mount shows a path of the engine's machine inside.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Create makes a container and does not start it. The error wraps
// [ErrConflict] when the name is taken and [ErrNotFound] when the image is not
// there.
func (e *Engine) Create(ctx context.Context, c Container) (id string, err error) {
	cfg := &container.Config{
		Image: c.Image, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.Dir, User: c.User, Hostname: c.Hostname,
		Labels:      c.Labels,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(c.Network), IpcMode: container.IpcMode(c.IPC), CapDrop: c.CapDrop, SecurityOpt: c.SecurityOpt,
		ReadonlyRootfs: c.ReadOnlyRoot, Tmpfs: c.Tmpfs, ShmSize: c.ShmBytes, Init: &c.Init, OomScoreAdj: c.OOMScoreAdj,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
	}
	if c.HostUserNS {
		host.UsernsMode = "host"
	}
	if c.NoLog {
		host.LogConfig = container.LogConfig{Type: "none"}
	}
	host.Memory, host.MemorySwap, host.NanoCPUs = c.MemoryBytes, c.MemoryBytes, int64(c.CPUs*1e9)
	if c.Processes > 0 {
		host.PidsLimit = &c.Processes
	}
	if len(c.GPUIDs) > 0 {
		host.DeviceRequests = []container.DeviceRequest{{Driver: "nvidia", DeviceIDs: c.GPUIDs, Capabilities: [][]string{{"gpu"}}}}
	} else if c.GPUs != 0 {
		host.DeviceRequests = []container.DeviceRequest{{Driver: "nvidia", Count: c.GPUs, Capabilities: [][]string{{"gpu"}}}}
	}
	for _, m := range c.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly,
			BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate}})
	}
	r, err := e.cli.ContainerCreate(ctx, cfg, host, nil, nil, c.Name)
	if err != nil {
		return "", e.wrap("create container "+c.Name, err)
	}
	return r.ID, nil
}

// Start starts a container; starting a running one is no error.
func (e *Engine) Start(ctx context.Context, id string) error {
	return e.wrap("start container "+id, e.cli.ContainerStart(ctx, id, container.StartOptions{}))
}

// State is where a container stands.
type State struct {
	ID        string
	Name      string
	ImageID   string
	Labels    map[string]string
	Status    string // "created", "running", "paused", "restarting", "removing", "exited", "dead"
	Running   bool
	Paused    bool
	OOMKilled bool
	ExitCode  int
	Error     string // why it could not be started
	PID       int    // of process 1, on the engine's machine; 0 when it does not run
	Created   time.Time
	Started   time.Time // zero when it never started
	Finished  time.Time
}

// Inspect says where a container stands; the error wraps [ErrNotFound] when
// there is none.
func (e *Engine) Inspect(ctx context.Context, id string) (State, error) {
	r, err := e.cli.ContainerInspect(ctx, id)
	if err != nil {
		return State{}, e.wrap("inspect container "+id, err)
	}
	st := State{ID: r.ID, Name: trimSlash(r.Name), ImageID: r.Image, Created: instant(r.Created)}
	if r.Config != nil {
		st.Labels = r.Config.Labels
	}
	if s := r.State; s != nil {
		st.Status, st.Running, st.Paused, st.OOMKilled = string(s.Status), s.Running, s.Paused, s.OOMKilled
		st.ExitCode, st.Error, st.PID = s.ExitCode, s.Error, s.Pid
		st.Started, st.Finished = instant(s.StartedAt), instant(s.FinishedAt)
	}
	return st, nil
}

// instant reads the engine's times; its "never" is the zero time.
func instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

func trimSlash(s string) string {
	if len(s) > 0 && s[0] == '/' {
		return s[1:]
	}
	return s
}

// List returns the containers that carry all of the labels, running or not. An
// empty value stands for any.
func (e *Engine) List(ctx context.Context, labels map[string]string) ([]State, error) {
	f := filters.NewArgs()
	for _, p := range labelPairs(labels) {
		f.Add("label", p)
	}
	list, err := e.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: f})
	if err != nil {
		return nil, e.wrap("list containers", err)
	}
	out := make([]State, len(list))
	for i, c := range list {
		out[i] = State{ID: c.ID, ImageID: c.ImageID, Labels: c.Labels, Status: string(c.State), Running: c.State == "running", Created: time.Unix(c.Created, 0)}
		if len(c.Names) > 0 {
			out[i].Name = trimSlash(c.Names[0])
		}
	}
	return out, nil
}

// Wait returns when the container does not run, with its exit code.
func (e *Engine) Wait(ctx context.Context, id string) (code int, err error) {
	done, failed := e.cli.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case r := <-done:
		if r.Error != nil {
			return 0, fmt.Errorf("wait for container %s: %s", id, r.Error.Message)
		}
		return int(r.StatusCode), nil
	case err := <-failed:
		return 0, e.wrap("wait for container "+id, err)
	}
}

// Kill sends a signal such as "KILL" or "TERM" to process 1; the error wraps
// [ErrConflict] when the container does not run.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	return e.wrap("kill container "+id, e.cli.ContainerKill(ctx, id, signal))
}

// Remove kills and removes a container with its anonymous volumes. One that is
// not there, or is being removed, is no error.
func (e *Engine) Remove(ctx context.Context, id string) error {
	err := e.wrap("remove container "+id, e.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// Logs copies what the engine kept of a container's output, and with follow
// what comes until it ends. A slow writer slows the container down.
func (e *Engine) Logs(ctx context.Context, id string, follow bool, stdout, stderr io.Writer) error {
	r, err := e.cli.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow})
	if err != nil {
		return e.wrap("read logs of container "+id, err)
	}
	defer r.Close()
	_, err = stdcopy.StdCopy(stdout, stderr, r)
	return e.wrap("read logs of container "+id, err)
}

// Event is something that happened to a container.
type Event struct {
	ID     string
	Action string // "create", "start", "die", "oom", "kill", "destroy", …
	Labels map[string]string
	Time   time.Time
}

func (e *Engine) events(ctx context.Context, labels map[string]string, fn func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)))
	for _, p := range labelPairs(labels) {
		f.Add("label", p)
	}
	msgs, errs := e.cli.Events(ctx, events.ListOptions{Filters: f})
	for {
		select {
		case m := <-msgs:
			ev := Event{ID: m.Actor.ID, Action: string(m.Action), Labels: m.Actor.Attributes, Time: time.Unix(0, m.TimeNano)}
			if err := fn(ev); err != nil {
				return err
			}
		case err := <-errs:
			return e.wrap("follow events", err)
		}
	}
}
