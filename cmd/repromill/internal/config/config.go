// Package config reads the one configuration file of a site and remembers
// where each value came from.
//
// A value is taken from, in this order: a flag, an environment variable, the
// file, the built-in default. The file is YAML; its keys are listed by [Keys].
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Key describes one setting. A name that ends in ".*" stands for any name in
// its place.
type Key struct {
	Name    string
	Env     []string // environment variables that set it, first wins
	Default string
	Help    string
	check   func(string) error
}

// Keys lists every setting there is.
func Keys() []Key {
	return []Key{
		{Name: "mirror", Env: []string{"REPROMILL_MIRROR"}, Help: "offline mirror folder; when set, nothing outside this machine is contacted"},
		{Name: "paths.cache", Env: []string{"REPROMILL_CACHE"}, Help: "pages, API answers and checkouts; safe to delete"},
		{Name: "paths.state", Env: []string{"REPROMILL_STATE"}, Help: "runs in progress, their events and logs"},
		{Name: "paths.results", Env: []string{"REPROMILL_RESULTS"}, Help: "committed Parquet tables and manifests"},
		{Name: "results.bucket", Env: []string{"REPROMILL_RESULTS_BUCKET"}, Help: "object store that runs are committed to as well: s3://, gs://, azblob:// or file:///"},
		{Name: "endpoints.arxiv_api", Default: "https://export.arxiv.org", Help: "arXiv Atom API", check: checkURL},
		{Name: "endpoints.arxiv", Default: "https://arxiv.org", Help: "arXiv pages", check: checkURL},
		{Name: "endpoints.hf", Env: []string{"HF_ENDPOINT"}, Default: "https://huggingface.co", Help: "the hub", check: checkURL},
		{Name: "endpoints.github", Default: "https://github.com", Help: "GitHub pages and git", check: checkURL},
		{Name: "endpoints.gitlab", Default: "https://gitlab.com", Help: "GitLab pages and git", check: checkURL},
		{Name: "endpoints.codeberg", Default: "https://codeberg.org", Help: "Codeberg pages and git", check: checkURL},
		{Name: "endpoints.bitbucket", Default: "https://bitbucket.org", Help: "Bitbucket pages and git", check: checkURL},
		{Name: "endpoints.alphaxiv", Default: "https://api.alphaxiv.org", Help: "aggregator of code links, asked when the authors state none", check: checkURL},
		{Name: "git.files", Help: "most files of a repository (50000)", check: checkAmount},
		{Name: "git.file_bytes", Help: "largest file of a repository in bytes (512 MiB)", check: checkAmount},
		{Name: "git.total_bytes", Help: "all files of a repository in bytes (2 GiB)", check: checkAmount},
		{Name: "git.transfer_bytes", Help: "most to receive for a repository in bytes (2 GiB)", check: checkAmount},
		{Name: "git.memory_bytes", Help: "memory for unpacking a repository in bytes (4 GiB)", check: checkAmount},
		{Name: "git.time", Help: "longest time for a repository (10m)", check: checkDuration},
		{Name: "git.idle", Help: "longest silence of a git server (1m)", check: checkDuration},
		{Name: "indexes.url", Env: []string{"UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"}, Default: "https://pypi.org/simple", Help: "package index for prepared environments", check: checkURL},
		{Name: "indexes.hosts", Help: "further host:port pairs that installing may reach, comma separated (a file host of the index)"},
		{Name: "indexes.ca_bundle", Env: []string{"PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}, Help: "CA bundle for the package index"},
		{Name: "executor", Env: []string{"REPROMILL_EXECUTOR"}, Default: "auto", Help: "default for --executor: auto, local, docker or kueue", check: checkExecutor},
		{Name: "indexes.extra", Env: []string{"UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"}, Help: "further package indexes for images, comma separated"},
		{Name: "indexes.torch", Help: "index of PyTorch's builds by CUDA version, for images", check: checkURL},
		{Name: "indexes.python", Env: []string{"UV_PYTHON_INSTALL_MIRROR"}, Help: "mirror of standalone Python interpreters, for images", check: checkURL},
		{Name: "indexes.conda", Env: []string{"CONDA_CHANNEL_ALIAS"}, Help: "mirror of the conda channels, for images", check: checkURL},
		{Name: "indexes.debian", Help: "mirror of the distribution's packages, for images", check: checkURL},
		{Name: "images.bases", Env: []string{"REPROMILL_IMAGE_BASES"}, Help: "base images to try in order, comma separated; {python} is each acceptable version (docker.io/library/python:{python}-slim)"},
		{Name: "images.interpreters", Help: "where a Python is taken from, in order: base, uv, apt"},
		{Name: "images.micromamba", Env: []string{"MAMBA_EXE"}, Help: "path of a static micromamba for conda environments in images; otherwise rattler's solver from the package index makes them"},
		{Name: "images.uv", Env: []string{"REPROMILL_UV"}, Help: "path of the uv program for images; otherwise it is fetched from the package index"},
		{Name: "registry", Env: []string{"REPROMILL_REGISTRY"}, Help: "container registry for built images"},
		{Name: "queues.*", Help: "Kueue LocalQueue by purpose (small, reserved); `run --executor kueue:PURPOSE` uses it"},
		{Name: "cluster.context", Help: "context of the kubeconfig (KUBECONFIG); the current one when empty"},
		{Name: "cluster.namespace", Help: "namespace for Jobs; the context's when empty"},
		{Name: "cluster.volume", Env: []string{"REPROMILL_CLUSTER_VOLUME"}, Help: "folder of this machine at which the claim's volume is mounted"},
		{Name: "cluster.claim", Default: "repromill-runs", Help: "PersistentVolumeClaim that pods mount"},
		{Name: "cluster.image", Env: []string{"REPROMILL_CLUSTER_IMAGE"}, Help: "image that pods run, with its digest (python:3.12-slim@sha256:… will do)"},
		{Name: "cluster.python", Default: "/usr/bin/python3", Help: "Python in that image"},
		{Name: "cluster.python_version", Default: "3.11", Help: "and its version"},
		{Name: "cluster.priority", Help: "WorkloadPriorityClass"},
		{Name: "cluster.product", Help: "label nvidia.com/gpu.product of the nodes for runs with GPUs"},
		{Name: "cluster.gpus", Default: "8", Help: "most GPUs that one run may ask for", check: checkCount},
		{Name: "cluster.cpu", Default: "1", Help: "CPUs of a pod"},
		{Name: "cluster.vllm_image", Default: "docker.io/vllm/vllm-openai:v0.11.0", Help: "image of vLLM for arms whose plan names none"},
		{Name: "cluster.sglang_image", Default: "docker.io/lmsysorg/sglang:v0.5.3", Help: "image of SGLang for arms whose plan names none"},
		{Name: "cluster.server_cpu", Help: "CPUs of a model server (8 with a GPU)"},
		{Name: "cluster.server_memory", Help: "memory of a model server, /dev/shm included (64Gi with a GPU)"},
		{Name: "cluster.node_gpus", Help: "GPUs of a node, all of which throughput suites ask for; those that an arm uses when empty", check: checkCount},
		{Name: "cluster.topology", Help: "node label of the lowest level of the Topology that the queue's flavours name, such as kubernetes.io/hostname; for throughput suites, none when empty"},
		{Name: "cluster.start_patience", Help: "longest time for the pods of a suite to pull images and load models (1h)", check: checkDuration},
		{Name: "cluster.volume_delay", Help: "longest time for the volume to show here what a pod wrote (1m)", check: checkDuration},
		{Name: "cluster.hub_secret", Help: "Secret of the namespace whose key HF_TOKEN lets seeds read gated repositories"},
		{Name: "server.how", Env: []string{"REPROMILL_SERVER"}, Help: "default for --server: vllm, sglang, repromill, docker:IMAGE or a command with {port} and {model}"},
		{Name: "server.healthy", Help: "longest time for a model server to come up (45m)", check: checkDuration},
		{Name: "server.grace", Help: "time for a model server to end by itself (20s)", check: checkDuration},
		{Name: "server.nvidia_smi", Help: "path of nvidia-smi, to tell which GPUs are free"},
		{Name: "prices.*", Help: "USD per GPU-hour on demand, by SKU id", check: checkNumber},
		{Name: "prices_owned.*", Help: "USD per GPU-hour of owned or contracted GPUs, by SKU id", check: checkNumber},
		{Name: "prices_as_of", Help: "month of the prices above, such as 2026-11"},
		{Name: "hosted_prices", Help: "CSV file with prices per million tokens: model, input_usd_per_m, output_usd_per_m, host, as_of, source"},
		{Name: "calibration", Env: []string{"REPROMILL_CALIBRATION"}, Help: "file written by `repromill estimate calibrate`, for every estimate"},
		{Name: "caps.gpu_hours", Help: "default for --max-gpu-hours", check: checkNumber},
		{Name: "caps.usd", Help: "default for --max-usd", check: checkNumber},
		{Name: "caps.wall", Help: "default for --max-wall, such as 2h", check: checkDuration},
		{Name: "concurrency", Default: "2", Help: "targets of a batch worked on at once", check: checkCount},
	}
}

// Value is a setting with its origin.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"` // "default", "env NAME", "flag --name" or "FILE:LINE"
	Help   string `json:"help,omitempty"`
}

// Config is every setting of this invocation.
type Config struct {
	File   string // where the file is or would be
	values map[string]Value
}

// Error is a mistake in the configuration, which the user can mend.
type Error struct{ Where, Problem, Fix string }

func (e *Error) Error() string     { return e.Where + ": " + e.Problem }
func (e *Error) UserError() string { return e.Fix }

// Load reads the file (REPROMILL_CONFIG, else repromill/config.yaml in the
// XDG configuration folder; a missing file is an empty one) and lays the
// environment over it.
func Load(getenv func(string) string) (*Config, error) {
	c := &Config{values: map[string]Value{}}
	for _, k := range Keys() {
		if !strings.HasSuffix(k.Name, ".*") {
			c.values[k.Name] = Value{Key: k.Name, Value: k.Default, Source: "default", Help: k.Help}
		}
	}
	c.defaultPaths(getenv)
	c.File = getenv("REPROMILL_CONFIG")
	named := c.File != ""
	if !named {
		c.File = filepath.Join(xdg(getenv, "XDG_CONFIG_HOME", ".config"), "repromill", "config.yaml")
	}
	b, err := os.ReadFile(c.File)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
	case err != nil:
		return nil, &Error{c.File, "cannot be read: " + err.Error(), "check REPROMILL_CONFIG and the file's permissions"}
	default:
		if err := c.merge(b); err != nil {
			return nil, err
		}
	}
	for _, k := range Keys() {
		for _, name := range k.Env {
			v := getenv(name)
			if v == "" {
				continue
			}
			if err := c.set(k.Name, v, "env "+name); err != nil {
				return nil, err
			}
			break
		}
	}
	return c, nil
}

func xdg(getenv func(string) string, name, fallback string) string {
	if v := getenv(name); filepath.IsAbs(v) {
		return v
	}
	return filepath.Join(getenv("HOME"), fallback)
}

func (c *Config) defaultPaths(getenv func(string) string) {
	for key, dir := range map[string]string{
		"paths.cache":   xdg(getenv, "XDG_CACHE_HOME", ".cache"),
		"paths.state":   xdg(getenv, "XDG_STATE_HOME", ".local/state"),
		"paths.results": xdg(getenv, "XDG_DATA_HOME", ".local/share"),
	} {
		v := c.values[key]
		v.Value = filepath.Join(dir, "repromill")
		c.values[key] = v
	}
}

func find(name string) (Key, bool) {
	for _, k := range Keys() {
		if k.Name == name {
			return k, true
		}
		if p, ok := strings.CutSuffix(k.Name, "*"); ok && strings.HasPrefix(name, p) && len(name) > len(p) {
			return k, true
		}
	}
	return Key{}, false
}

func (c *Config) set(name, value, source string) error {
	k, ok := find(name)
	if !ok {
		return &Error{source, fmt.Sprintf("unknown setting %q", name), "settings are " + strings.Join(names(), ", ")}
	}
	if k.check != nil && value != "" {
		if err := k.check(value); err != nil {
			return &Error{source, fmt.Sprintf("%s is %q: %v", name, value, err), "correct it; `repromill config show` prints every value with its source"}
		}
	}
	c.values[name] = Value{Key: name, Value: value, Source: source, Help: k.Help}
	return nil
}

func names() []string {
	var out []string
	for _, k := range Keys() {
		out = append(out, k.Name)
	}
	return out
}

// SetFlag overrides a setting from the command line.
func (c *Config) SetFlag(name, value, flag string) error { return c.set(name, value, "flag --"+flag) }

func (c *Config) merge(b []byte) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return &Error{c.File, "is not YAML: " + err.Error(), "correct the file or move it away"}
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return c.walk("", doc.Content[0], 0)
}

func (c *Config) walk(prefix string, n *yaml.Node, depth int) error {
	at := fmt.Sprintf("%s:%d", c.File, n.Line)
	if n.Kind != yaml.MappingNode || depth > 3 {
		return &Error{at, "expected settings as `name: value`", "see `repromill config show` for the names"}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, v := prefix+n.Content[i].Value, n.Content[i+1]
		at := fmt.Sprintf("%s:%d", c.File, n.Content[i].Line)
		switch v.Kind {
		case yaml.MappingNode:
			if err := c.walk(name+".", v, depth+1); err != nil {
				return err
			}
		case yaml.ScalarNode:
			if err := c.set(name, v.Value, at); err != nil {
				return err
			}
		case yaml.SequenceNode:
			var parts []string
			for _, e := range v.Content {
				if e.Kind != yaml.ScalarNode {
					return &Error{at, name + " holds something other than plain values", "write a list of plain values"}
				}
				parts = append(parts, e.Value)
			}
			if err := c.set(name, strings.Join(parts, ","), at); err != nil {
				return err
			}
		default:
			return &Error{at, name + " is neither a value nor a group of settings", "write `name: value`"}
		}
	}
	return nil
}

// Absolute makes settings that are paths mean the same in every folder.
func (c *Config) Absolute(names ...string) error {
	for _, name := range names {
		v := c.values[name]
		if v.Value == "" || filepath.IsAbs(v.Value) {
			continue
		}
		abs, err := filepath.Abs(v.Value)
		if err != nil {
			return fmt.Errorf("locate %s: %w", name, err)
		}
		v.Value = abs
		c.values[name] = v
	}
	return nil
}

// String returns a setting's value, "" when it is not set.
func (c *Config) String(name string) string { return c.values[name].Value }

// Float returns a numeric setting; ok is false when it is not set.
func (c *Config) Float(name string) (v float64, ok bool) {
	v, err := strconv.ParseFloat(c.values[name].Value, 64)
	return v, err == nil
}

// Int returns a whole number, 0 when it is not set.
func (c *Config) Int(name string) int64 {
	n, err := strconv.ParseInt(c.values[name].Value, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Duration returns a duration setting, 0 when it is not set.
func (c *Config) Duration(name string) time.Duration {
	d, err := time.ParseDuration(c.values[name].Value)
	if err != nil {
		return 0
	}
	return d
}

// List returns a comma-separated setting.
func (c *Config) List(name string) []string {
	return strings.FieldsFunc(c.String(name), func(r rune) bool { return r == ',' || r == ' ' })
}

// Group returns the values of an open group such as "prices".
func (c *Config) Group(name string) map[string]Value {
	out := map[string]Value{}
	for k, v := range c.values {
		if rest, ok := strings.CutPrefix(k, name+"."); ok {
			out[rest] = v
		}
	}
	return out
}

// All lists every setting, sorted by name.
func (c *Config) All() []Value {
	out := make([]Value, 0, len(c.values))
	for _, v := range c.values {
		out = append(out, v)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

func checkURL(s string) error {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !slices.Contains([]string{"https", "http"}, scheme) || rest == "" {
		return errors.New("not an http(s) URL")
	}
	return nil
}

func checkExecutor(s string) error {
	if kind, _, _ := strings.Cut(s, ":"); !slices.Contains([]string{"auto", "local", "docker", "kueue"}, kind) {
		return errors.New("not auto, local, docker or kueue")
	}
	return nil
}

func checkNumber(s string) error {
	if v, err := strconv.ParseFloat(s, 64); err != nil || v < 0 || v != v || v > 1e12 {
		return errors.New("not a number of at least 0")
	}
	return nil
}

func checkCount(s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > 64 {
		return errors.New("not a whole number from 1 to 64")
	}
	return nil
}

func checkAmount(s string) error {
	if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < 1 {
		return errors.New("not a whole number of at least 1")
	}
	return nil
}

func checkDuration(s string) error {
	if d, err := time.ParseDuration(s); err != nil || d <= 0 {
		return errors.New("not a duration such as 90m or 2h")
	}
	return nil
}
