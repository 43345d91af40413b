// Package image makes the images that plans run in, in two layers with two keys.
//
// The environment image is a base image with what a plan requires: an
// interpreter and packages below [EnvPath], and system packages where they are
// needed. Its key covers everything that decides its content, so that it is
// built once. The source layer is the checkout at [SourcePath]. It is appended
// without a daemon, which is all that a new commit costs.
//
// Packages are installed in a throw-away container, and its output folder
// becomes a layer. That is the one way for all engines, instead of BuildKit
// secrets where there are some: nothing of the container but that folder can
// reach the image, so that indexes, proxies and certificates cannot be baked
// in; untrusted code builds without root and without capabilities, which an
// engine's build steps have; and the result needs no engine to be pushed. A
// RUN step of a Dockerfile does the same work and then hashes the same layer.
// Only packages of the operating system are built with a Dockerfile of ours:
// they change the whole root file system and come from the distribution.
package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image/layer"
	"github.com/repromill/repromill/runner/image/registry"
	"github.com/repromill/repromill/runner/pip"
)

// Where things lie in an image.
const (
	EnvPath    = "/opt/env"    // the virtual environment; its bin is first in PATH
	PythonPath = "/opt/python" // an interpreter that the base does not have
	SourcePath = "/src"        // the checkout
)

// builderVersion is part of every key: it changes when the same inputs would
// give another image.
const builderVersion = 1

// Labels of images and containers that this package makes.
const (
	LabelKey         = "org.repromill.key"         // of the environment
	LabelEnvironment = "org.repromill.environment" // the record as JSON, with the lock
	LabelBuild       = "org.repromill.build"       // on containers and images of builds in progress
)

// Config says how images are made. Dir must be set.
type Config struct {
	Dir string // blobs, records, logs and work in progress

	// Engine builds environments; without one, images can be appended to,
	// pushed and written, and environments found but not built.
	Engine *engine.Engine
	// Registry is how registries are reached; nil for the Docker configuration's logins.
	Registry *registry.Client
	// Repository is where images are pushed and looked for, such as
	// "registry.example.org/team/repromill"; empty for none.
	Repository string

	// Bases are the base images to be tried in order; "{python}" stands for
	// each acceptable version of Python in turn. For a GPU the plan's image for
	// it comes first. Nil means [DefaultBases].
	Bases []string
	// Interpreters are the places that a Python is taken from, in order: "base"
	// (the base image's own), "uv" (a standalone build), "apt" (the
	// distribution's package). Nil means all three.
	Interpreters []string
	Index        Index
	// Program is the path of a static Linux binary that runs supervisor.Main
	// (runner/docker/supervisor) when it is called with ProgramArgs. With it,
	// builds reach the package indexes and nothing else, and their disk is
	// bounded. Without it they have the engine's default network.
	Program     string
	ProgramArgs []string
	UV          string // path of the uv program; empty: fetched from the index, see runner/image/tool
	// Micromamba is the path of a static micromamba, or of a program with its
	// command line, for conda environments. Empty means a solver of the same
	// kind, rattler's, from the package index.
	Micromamba string
	Limits     Limits

	HTTP     *http.Client // to the package index; nil for one made of Index
	Now      func() time.Time
	Hook     func(point string)
	Progress func(Event) // may be nil
}

// Index is where packages come from. None of it reaches an image.
type Index struct {
	URL      string   // package index; empty for pypi.org
	Extra    []string // further ones
	CABundle string   // path of a PEM file
	Hosts    []string // further "host:port" pairs of the site that installing may reach
	Proxy    string   // for http and https
	NoProxy  string
	Torch    string // index of PyTorch's builds by CUDA version; empty for download.pytorch.org
	Python   string // mirror of standalone interpreters (UV_PYTHON_INSTALL_MIRROR)
	Conda    string // mirror of the conda channels, in place of conda.anaconda.org and repo.anaconda.com/pkgs
	Debian   string // mirror of the distribution's packages, in place of the base image's
}

// Limits bound a build; zero fields mean the defaults in parentheses.
type Limits struct {
	Wall        time.Duration // of one try (1 h)
	MemoryBytes int64         // of the container (8 GiB)
	Processes   int64         // (4096)
	LogBytes    int64         // (64 MiB)
	FreeBytes   int64         // that a build must find on the disk (3 GiB)
	DiskBytes   int64         // that a build may write (32 GiB)
	Tries       int           // repairs of one environment (8)
}

// Event is something that happens while an environment is made.
type Event struct {
	Stage string // base|system|resolve|install|layer|repair|push|load
	Text  string
}

// DefaultBases are the official Python images.
func DefaultBases() []string { return []string{"docker.io/library/python:{python}-slim"} }

// Builder makes and finds images. It is safe for concurrent use, also by
// several processes on one Dir.
type Builder struct {
	cfg   Config
	blobs layer.Store
}

// New returns a builder; it makes the folder when it lacks.
func New(cfg Config) (*Builder, error) {
	if !filepath.IsAbs(cfg.Dir) {
		return nil, fmt.Errorf("open image store: %q is no absolute path", cfg.Dir)
	}
	if cfg.Registry == nil {
		cfg.Registry = registry.New(registry.Config{})
	}
	if cfg.Bases == nil {
		cfg.Bases = DefaultBases()
	}
	if cfg.Interpreters == nil {
		cfg.Interpreters = []string{fromBase, fromUV, fromApt}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Event) {}
	}
	if cfg.Index.URL != "" {
		if u, err := url.Parse(cfg.Index.URL); err != nil || u.Host == "" {
			return nil, &UserError{fmt.Sprintf("indexes.url is %q", cfg.Index.URL), "write a URL such as https://pypi.example.org/simple"}
		}
	}
	if p := cfg.Micromamba; p != "" && (!filepath.IsAbs(p) || !exists(p)) {
		return nil, &UserError{fmt.Sprintf("images.micromamba is %q, where there is no program", p), "write the absolute path of a static micromamba, or leave it out"}
	}
	l := &cfg.Limits
	l.Wall = or(l.Wall, time.Hour)
	l.MemoryBytes = or(l.MemoryBytes, 8<<30)
	l.Processes = or(l.Processes, 4096)
	l.LogBytes = or(l.LogBytes, 64<<20)
	l.FreeBytes = or(l.FreeBytes, 3<<30)
	l.DiskBytes = or(l.DiskBytes, 32<<30)
	l.Tries = or(l.Tries, 8)
	if cfg.HTTP == nil {
		var err error
		if cfg.HTTP, err = cfg.Index.client(); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{kindEnvironment, kindSystem, kindBase, kindSource, "logs", "work", "probes"} {
		if err := atomicfile.MkdirAll(filepath.Join(cfg.Dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	return &Builder{cfg: cfg, blobs: layer.Store{Dir: cfg.Dir, Hook: cfg.Hook}}, nil
}

// client reaches the package index as builds do.
func (x *Index) client() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if x.CABundle != "" {
		pem, err := os.ReadFile(x.CABundle)
		if err != nil {
			return nil, &UserError{"the CA bundle cannot be read: " + err.Error(), "correct indexes.ca_bundle"}
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM(pem)
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, Timeout: 10 * time.Minute}, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// UserError is something the user has to change, with the fix.
type UserError struct{ Problem, Fix string }

func (e *UserError) Error() string { return e.Problem + "; " + e.Fix }

// UserError is the remedy.
func (e *UserError) UserError() string { return e.Fix }

// EnvRequest asks for an environment.
type EnvRequest struct {
	Environment spec.Environment // as planned
	Source      string           // the checkout, only read
	SKU         string           // an id of estimators/sku; empty for a CPU
	Base        string           // this base image instead of the configured ones
	Pins        []string         // "name==version" of packages, wherever they come in
}

// Environment is an environment image.
type Environment struct {
	Key        string           `json:"key"`             // 64 hex digits
	Digest     v1.Hash          `json:"digest,omitzero"` // of the manifest
	Base       string           `json:"base"`            // by digest
	Python     string           `json:"python"`          // "3.11.2"
	System     []string         `json:"system,omitempty"`
	Lock       string           `json:"lock"` // what is installed, one requirement a line with hashes, as uv writes it
	Deviations []spec.Deviation `json:"deviations,omitempty"`
	Log        string           `json:"log,omitempty"`     // path of the build's whole output
	Overlay    string           `json:"overlay,omitempty"` // folder of what was built inside the checkout, to be laid over a tree at [SourcePath]
	Reused     bool             `json:"reused"`
	Image      v1.Image         `json:"-"`
	// Failure says that no such environment can be made. It is an outcome: all
	// other fields but Key, Base, Deviations and Log are then empty.
	Failure *Failure `json:"failure,omitempty"`
}

// Failure is why an environment cannot be made.
type Failure struct {
	Package    string `json:"package,omitempty"`
	Constraint string `json:"constraint,omitempty"` // as declared
	Where      string `json:"where,omitempty"`      // file:line
	Reason     string `json:"reason"`
	Log        string `json:"log,omitempty"`
}

func (f *Failure) String() string {
	var sb strings.Builder
	if f.Package != "" {
		sb.WriteString(f.Package)
		if f.Constraint != "" && f.Constraint != f.Package {
			fmt.Fprintf(&sb, " (%s)", f.Constraint)
		}
		if f.Where != "" {
			fmt.Fprintf(&sb, " from %s", f.Where)
		}
		sb.WriteString(": ")
	}
	sb.WriteString(f.Reason)
	if f.Log != "" {
		fmt.Fprintf(&sb, "; the full log is %s", f.Log)
	}
	return sb.String()
}

// Environment returns the image of an environment: the one that was made
// before from the same inputs, here or in the repository, else a new one.
func (b *Builder) Environment(ctx context.Context, req EnvRequest) (*Environment, error) {
	if len(req.Pins) > 0 {
		// The environment that the pins were read from may still be here.
		free := req
		free.Pins = nil
		if r, fail, err := b.recipe(ctx, free); err != nil {
			return nil, err
		} else if fail == nil {
			env, err := b.find(ctx, r.key)
			if err != nil {
				return nil, err
			}
			if env != nil && slices.Equal(pip.Pins(env.Lock), req.Pins) {
				return env, nil
			}
		}
	}
	r, fail, err := b.recipe(ctx, req)
	if err != nil {
		return nil, err
	}
	if fail != nil {
		return &Environment{Failure: fail}, nil
	}
	if env, err := b.find(ctx, r.key); env != nil || err != nil {
		return env, err
	}
	unlock, err := b.lock(ctx, r.key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if env, err := b.find(ctx, r.key); env != nil || err != nil {
		return env, err // another process made it meanwhile
	}
	return b.build(ctx, r)
}

// find returns the environment of a key from the records, else from the
// repository, else nil.
func (b *Builder) find(ctx context.Context, key string) (*Environment, error) {
	rec, err := b.readRecord(kindEnvironment, key)
	if err != nil {
		return nil, err
	}
	if rec != nil {
		img, err := b.open(rec)
		if err == nil {
			b.touch(rec)
			return rec.environment(img), nil
		}
		// Blobs that are gone only mean that it is made again.
	}
	if b.cfg.Repository == "" {
		return nil, nil
	}
	return b.fromRepository(ctx, key)
}

// logPath is where the output of a build goes.
func (b *Builder) logPath(key string) string { return filepath.Join(b.cfg.Dir, "logs", key+".log") }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
