package server

import (
	"path/filepath"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/docker/engine"
)

// label is on the containers of servers.
const label = "io.repromill.server"

// dockerEnv are the variables by which an engine is found.
var dockerEnv = []string{"HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION", "XDG_RUNTIME_DIR"}

// inContainer turns an order into one for a container: on the machine's own
// network, so that the port is where it would be without it, with the hub's cache
// and a model's folder at their own paths, and the machine's shared memory, which
// tensor parallelism needs.
func (h *Host) inContainer(o *order, rec *record, arm spec.Arm, c *command, l *lease) {
	o.Docker = map[string]string{}
	for _, k := range dockerEnv {
		if v := h.getenv(k); v != "" {
			o.Docker[k] = v
		}
	}
	name := "repromill-server-" + rec.Token
	rec.Container, rec.Docker = name, o.Docker
	env := map[string]string{}
	for _, kv := range h.cfg.Environ {
		k, v, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(k, "HF_") || strings.HasPrefix(k, "VLLM_") || strings.HasPrefix(k, "SGLANG_") || strings.HasPrefix(k, "NCCL_") || strings.HasSuffix(strings.ToLower(k), "_proxy") {
			env[k] = v
		}
	}
	ct := &engine.Container{
		Name: name, Image: c.image, Cmd: c.argv, Labels: map[string]string{label: rec.Token},
		Network: "host", IPC: "host", NoLog: false, Init: true,
	}
	hub := h.getenv("HF_HOME")
	if hub == "" && h.getenv("HOME") != "" {
		hub = filepath.Join(h.getenv("HOME"), ".cache", "huggingface")
	}
	if isDir(hub) {
		ct.Mounts = append(ct.Mounts, engine.Mount{Source: hub, Target: hub})
		env["HF_HOME"] = hub
	}
	if filepath.IsAbs(arm.Model) && isDir(arm.Model) {
		ct.Mounts = append(ct.Mounts, engine.Mount{Source: arm.Model, Target: arm.Model, ReadOnly: true})
	}
	if l != nil {
		ct.GPUIDs = l.uuids()
	}
	// The first word of a whole command is a program, and not an argument of the
	// image's own server.
	if len(c.argv) > 0 && !strings.HasPrefix(c.argv[0], "-") {
		ct.Entrypoint, ct.Cmd = c.argv[:1], c.argv[1:]
	}
	ct.Env = environ(nil, env, c.env, map[string]string{marker: rec.Token})
	o.Container = ct
}
