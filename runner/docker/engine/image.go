package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/client"
)

// Image is an image that the engine has.
type Image struct {
	ID         string // "sha256:…" of its configuration
	Tags       []string
	Digests    []string // "repository@sha256:…" of registries that it came from or went to
	Labels     map[string]string
	Env        []string
	Entrypoint []string
	Cmd        []string
	User       string
	Dir        string
	Layers     []string // diff ids, the lowest first
	Arch, OS   string
	Size       int64 // bytes, with the layers that it shares
	Created    time.Time
}

// Auth is what a registry wants to see.
type Auth struct {
	Username, Password string
	IdentityToken      string // in place of a password
	RegistryToken      string // a bearer token
}

func (a Auth) header() (string, error) {
	if a == (Auth{}) {
		return "", nil
	}
	return registry.EncodeAuthConfig(a.config(""))
}

func (a Auth) config(server string) registry.AuthConfig {
	return registry.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken, ServerAddress: server}
}

// InspectImage describes an image; the error wraps [ErrNotFound] when the
// engine does not have it.
func (e *Engine) InspectImage(ctx context.Context, ref string) (Image, error) {
	r, err := e.cli.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, e.wrap("inspect image "+ref, err)
	}
	out := Image{ID: r.ID, Tags: r.RepoTags, Digests: r.RepoDigests, Layers: r.RootFS.Layers, Arch: r.Architecture, OS: r.Os, Size: r.Size, Created: instant(r.Created)}
	if c := r.Config; c != nil {
		out.Labels, out.Env, out.Entrypoint, out.Cmd, out.User, out.Dir = c.Labels, c.Env, c.Entrypoint, c.Cmd, c.User, c.WorkingDir
	}
	return out, nil
}

// ListImages returns the images that carry all of the labels; an empty value
// stands for any. Only ID, Tags, Digests, Labels, Size and Created are set.
func (e *Engine) ListImages(ctx context.Context, labels map[string]string) ([]Image, error) {
	f := filters.NewArgs()
	for _, p := range labelPairs(labels) {
		f.Add("label", p)
	}
	list, err := e.cli.ImageList(ctx, image.ListOptions{Filters: f})
	if err != nil {
		return nil, e.wrap("list images", err)
	}
	out := make([]Image, len(list))
	for i, m := range list {
		out[i] = Image{ID: m.ID, Tags: m.RepoTags, Digests: m.RepoDigests, Labels: m.Labels, Size: m.Size, Created: time.Unix(m.Created, 0)}
	}
	return out, nil
}

// RemoveImage takes a name away, and the image with its last name. An image
// that is not there is no error; one that a container uses is [ErrConflict].
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	_, err := e.cli.ImageRemove(ctx, ref, image.RemoveOptions{PruneChildren: true})
	if err = e.wrap("remove image "+ref, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Tag gives an image one more name.
func (e *Engine) Tag(ctx context.Context, id, ref string) error {
	return e.wrap("tag image "+ref, e.cli.ImageTag(ctx, id, ref))
}

// Load puts images from a tar file, as Save writes it, into the engine and
// returns their names or ids.
func (e *Engine) Load(ctx context.Context, tar io.Reader) ([]string, error) {
	r, err := e.cli.ImageLoad(ctx, tar, client.ImageLoadWithQuiet(true))
	if err != nil {
		return nil, e.wrap("load image", err)
	}
	defer drain(r.Body)
	var names []string
	err = messages(r.Body, func(m message) {
		for _, prefix := range []string{"Loaded image ID: ", "Loaded image: "} {
			if s, ok := strings.CutPrefix(strings.TrimSpace(m.Stream), prefix); ok {
				names = append(names, s)
			}
		}
	})
	if err != nil {
		return nil, e.wrap("load image", err)
	}
	if len(names) == 0 {
		return nil, errors.New("load image: the engine named none")
	}
	return names, nil
}

// Save returns images as a tar file.
func (e *Engine) Save(ctx context.Context, refs ...string) (io.ReadCloser, error) {
	r, err := e.cli.ImageSave(ctx, refs)
	return r, e.wrap("save image "+strings.Join(refs, " "), err)
}

// Import makes an image of one layer from a tar file of a root file system and
// returns its id; ref may be empty. Changes are Dockerfile instructions.
func (e *Engine) Import(ctx context.Context, tar io.Reader, ref string, changes ...string) (string, error) {
	r, err := e.cli.ImageImport(ctx, image.ImportSource{Source: tar, SourceName: "-"}, ref, image.ImportOptions{Changes: changes})
	if err != nil {
		return "", e.wrap("import image", err)
	}
	defer drain(r)
	id := ""
	err = messages(r, func(m message) {
		if strings.HasPrefix(m.Status, "sha256:") {
			id = m.Status
		}
	})
	return id, e.wrap("import image", err)
}

// Pull fetches an image. progress may be nil; it gets one line per step.
func (e *Engine) Pull(ctx context.Context, ref string, auth Auth, progress func(string)) error {
	head, err := auth.header()
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	r, err := e.cli.ImagePull(ctx, ref, image.PullOptions{RegistryAuth: head})
	return e.move(ctx, ref, r, err, progress, nil)
}

// Push sends an image to the registry in its name and returns the digest that
// it has there, "sha256:…".
func (e *Engine) Push(ctx context.Context, ref string, auth Auth, progress func(string)) (digest string, err error) {
	head, err := auth.header()
	if err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	if head == "" {
		head = "e30=" // the engine wants a header; this one is an empty object
	}
	r, err := e.cli.ImagePush(ctx, ref, image.PushOptions{RegistryAuth: head})
	err = e.move(ctx, ref, r, err, progress, func(m message) {
		var aux struct{ Digest string }
		if json.Unmarshal(m.Aux, &aux) == nil && aux.Digest != "" {
			digest = aux.Digest
		}
	})
	return digest, err
}

func (e *Engine) move(ctx context.Context, ref string, r io.ReadCloser, err error, progress func(string), also func(message)) error {
	if err == nil {
		defer drain(r)
		err = messages(r, func(m message) {
			if progress != nil && m.Status != "" && len(m.ProgressDetail) <= 2 {
				progress(strings.TrimSpace(m.ID + " " + m.Status))
			}
			if also != nil {
				also(m)
			}
		})
	}
	var said *engineError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("move image %s: %w", ref, ctx.Err())
	case errors.As(err, &said):
		return registryError(ref, said.msg)
	case client.IsErrConnectionFailed(err), isConnection(err):
		return e.unavailable(err)
	}
	return registryError(ref, err.Error())
}

// Build is an image to be built.
type Build struct {
	Context    io.Reader // a tar file
	Dockerfile string    // its path in the context; empty means "Dockerfile"
	Tags       []string
	Labels     map[string]string
	Args       map[string]string // they stay visible in the image: never secrets
	Target     string            // the stage that is wanted; empty means the last
	Platform   string            // "linux/amd64"
	NoCache    bool
	Pull       bool // look for a newer base image
	Network    string
	// MemoryBytes and CPUs bound a build step. The engine's BuildKit ignores them.
	MemoryBytes int64
	CPUs        float64
	// BuildKit uses the newer builder, which runs independent stages at once.
	// No secret can be handed to it.
	BuildKit bool
	Auth     map[string]Auth // by registry, for base images
	// Log gets the output of the build as it comes; nil drops it.
	Log io.Writer
}

// BuildError is a build that failed on its own account.
type BuildError struct {
	Msg  string // the engine's last word, such as "The command '…' returned a non-zero code: 1"
	Code int    // of the command that failed, 0 when there is none
}

func (e *BuildError) Error() string { return "the image build failed: " + e.Msg }

// Build builds an image and returns its id. When the context ends, the engine
// stops building and removes its intermediate containers.
func (e *Engine) Build(ctx context.Context, b Build) (id string, err error) {
	opts := build.ImageBuildOptions{
		Tags: b.Tags, Labels: b.Labels, Dockerfile: b.Dockerfile, Target: b.Target, Platform: b.Platform, NoCache: b.NoCache, PullParent: b.Pull,
		NetworkMode: b.Network, Remove: true, ForceRemove: true, Version: build.BuilderV1, BuildArgs: map[string]*string{}, AuthConfigs: map[string]registry.AuthConfig{},
		Memory: b.MemoryBytes, MemorySwap: b.MemoryBytes,
	}
	if b.CPUs > 0 {
		opts.CPUPeriod, opts.CPUQuota = 100_000, int64(b.CPUs*100_000)
	}
	if b.BuildKit {
		opts.Version = build.BuilderBuildKit
	}
	for k, v := range b.Args {
		opts.BuildArgs[k] = &v
	}
	for server, a := range b.Auth {
		opts.AuthConfigs[server] = a.config(server)
	}
	log := b.Log
	if log == nil {
		log = io.Discard
	}
	r, err := e.cli.ImageBuild(ctx, b.Context, opts)
	if err != nil {
		return "", e.wrap("build image", err)
	}
	defer r.Body.Close() // not drained: closing early stops the build
	var logErr error
	write := func(p []byte) {
		if _, err := log.Write(p); err != nil && logErr == nil {
			logErr = err
		}
	}
	err = messages(r.Body, func(m message) {
		switch {
		case m.ID == "moby.buildkit.trace":
			traceLog(m.Aux, write)
		case len(m.Aux) > 0:
			var aux struct{ ID string }
			if json.Unmarshal(m.Aux, &aux) == nil && aux.ID != "" {
				id = aux.ID
			}
		case m.Stream != "":
			write([]byte(m.Stream))
		case m.Status != "" && len(m.ProgressDetail) <= 2:
			write([]byte(strings.TrimSpace(m.ID+" "+m.Status) + "\n"))
		}
	})
	var said *engineError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("build image: %w", ctx.Err())
	case errors.As(err, &said):
		return "", buildError(said)
	case err != nil:
		return "", e.wrap("build image", err)
	case logErr != nil:
		return "", fmt.Errorf("write build log: %w", logErr)
	case id == "":
		return "", errors.New("build image: the engine named no image")
	}
	return id, nil
}

// buildError tells a base image that cannot be fetched and a full disk from a
// command that failed.
func buildError(said *engineError) error {
	if said.code == 0 {
		err := registryError(baseOf(said.msg), said.msg)
		var re *RegistryError
		var full *DiskFullError
		if errors.As(err, &full) || errors.As(err, &re) && !strings.Contains(said.msg, "failed: ") {
			return err
		}
	}
	return &BuildError{Msg: said.msg, Code: said.code}
}

// baseOf finds the image's name in an engine's complaint about it.
func baseOf(msg string) string {
	for _, lead := range []string{"manifest for ", "pull access denied for ", "docker.io/", "Get \""} {
		if _, rest, ok := strings.Cut(msg, lead); ok {
			if f := strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune(" ,\":", r) && r != ':' }); len(f) > 0 {
				return f[0]
			}
		}
	}
	return "named in the build's FROM"
}
