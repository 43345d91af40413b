package image_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/image"
	"github.com/repromill/repromill/runner/image/layer"
	"github.com/repromill/repromill/runner/image/registry"
)

// site is a registry with a base image that says it has Python 3.11.
func site(t testing.TB) (host string, client *registry.Client) {
	t.Helper()
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	host = strings.TrimPrefix(srv.URL, "http://")
	client = registry.New(registry.Config{Backoff: time.Millisecond, Tries: 2})
	base, err := random.Image(1000, 2)
	must(t, err)
	base, err = mutate.Config(base, v1.Config{Env: []string{"PATH=/usr/bin", "PYTHON_VERSION=3.11.9"}})
	must(t, err)
	_, err = client.Push(context.Background(), host+"/python:3.11-slim", base)
	must(t, err)
	return host, client
}

// offline is a builder without an engine, with a repository that other
// machines push to. Its clock is a day ahead, so that nothing is young.
func offline(t testing.TB, host string, client *registry.Client) *image.Builder {
	t.Helper()
	b, err := image.New(image.Config{
		Dir: filepath.Join(t.TempDir(), "images"), Registry: client, Bases: []string{host + "/python:{python}-slim"}, Repository: host + "/team/envs",
		Now: func() time.Time { return time.Now().Add(24 * time.Hour) },
	})
	must(t, err)
	return b
}

func TestNoEngine(t *testing.T) {
	host, client := site(t)
	b := offline(t, host, client)
	_, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("numpy"), Source: t.TempDir()})
	var user interface{ UserError() string }
	if !errors.As(err, &user) || !strings.Contains(user.UserError(), "start Docker") {
		t.Errorf("%v", err)
	}
}

func TestOutcomes(t *testing.T) {
	host, client := site(t)
	b := offline(t, host, client)
	for _, c := range []struct{ req, want string }{
		{"-r none.txt", "there is no such file in the checkout"},
		{"--index-url http://x", "not allowed"},
		{"-f environment.yml", "set images.micromamba"},
	} {
		env, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants(c.req), Source: t.TempDir()})
		must(t, err)
		if env.Failure == nil || !strings.Contains(env.Failure.String(), c.want) {
			t.Errorf("%s: %s", c.req, env.Failure)
		}
		if _, err := b.WithSource(context.Background(), env, image.SourceRequest{Dir: t.TempDir()}); err == nil {
			t.Errorf("%s: source was appended to nothing", c.req)
		}
	}
	_, err := b.Environment(context.Background(), image.EnvRequest{Environment: wants("x"), Source: t.TempDir(), Base: host + "/none:1"})
	if err == nil || !strings.Contains(err.Error(), "there is no such image") {
		t.Errorf("%v", err)
	}
}

// TestKeys has what changes the key of an environment and what does not.
func TestKeys(t *testing.T) {
	host, client := site(t)
	b := offline(t, host, client)
	files := map[string]string{"r.txt": "numpy==1.26.4\n", "setup.py": "setup()", "pkg/__init__.py": "", "main.py": "1"}
	base := image.EnvRequest{Environment: wants("-r r.txt", "-e ."), Source: checkout(t, files)}
	key := func(change func(map[string]string, *image.EnvRequest)) string {
		t.Helper()
		copied := map[string]string{}
		for k, v := range files {
			copied[k] = v
		}
		req := base
		change(copied, &req)
		req.Source = checkout(t, copied)
		k, err := b.Key(context.Background(), req)
		must(t, err)
		return k
	}
	day := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	want := key(func(map[string]string, *image.EnvRequest) {})
	for name, change := range map[string]func(map[string]string, *image.EnvRequest){
		"code":     func(f map[string]string, _ *image.EnvRequest) { f["main.py"], f["pkg/a.py"] = "2", "3" },
		"comment":  func(f map[string]string, _ *image.EnvRequest) { f["r.txt"] = "# why\nnumpy==1.26.4  # this\n" },
		"evidence": func(_ map[string]string, r *image.EnvRequest) { r.Environment.Framework.Name = "pytorch" },
	} {
		if key(change) != want {
			t.Errorf("%s changes the key", name)
		}
	}
	for name, change := range map[string]func(map[string]string, *image.EnvRequest){
		"version": func(f map[string]string, _ *image.EnvRequest) { f["r.txt"] = "numpy==1.26.3\n" },
		"build":   func(f map[string]string, _ *image.EnvRequest) { f["setup.py"] = "setup(1)" },
		"package": func(f map[string]string, _ *image.EnvRequest) { f["pkg2/__init__.py"] = "" },
		"source":  func(f map[string]string, _ *image.EnvRequest) { f["pkg/x.cu"] = "" },
		"system":  func(_ map[string]string, r *image.EnvRequest) { r.Environment.SystemPackages = []string{"git"} },
		"date":    func(_ map[string]string, r *image.EnvRequest) { r.Environment.ExcludeNewer = &day },
		"python":  func(_ map[string]string, r *image.EnvRequest) { r.Environment.Python.Version = "3.11" },
		"floor": func(_ map[string]string, r *image.EnvRequest) {
			r.SKU = "b200"
			r.Environment.SKUs = map[string]spec.SKUFit{"b200": {Deviations: []spec.Deviation{{What: "torch", Declared: "1.10", Used: "2.7.1+cu128"}}}}
		},
	} {
		if key(change) == want {
			t.Errorf("%s does not change the key", name)
		}
	}
}

// TestSourceWithoutDaemon takes an environment out of a repository, appends
// two commits, and writes and pushes them: no engine is there.
func TestSourceWithoutDaemon(t *testing.T) {
	host, client := site(t)
	ctx := context.Background()
	b := offline(t, host, client)
	req := image.EnvRequest{Environment: wants("numpy"), Source: t.TempDir()}
	key, err := b.Key(ctx, req)
	must(t, err)
	// What another machine built and pushed.
	built, err := client.Image(ctx, host+"/python:3.11-slim")
	must(t, err)
	built, err = image.Labelled(built, key, "numpy==2.0.0\n", []spec.Deviation{{What: "python", Declared: "3.7", Used: "3.11"}})
	must(t, err)
	_, err = client.Push(ctx, host+"/team/envs:env-"+key, built)
	must(t, err)

	env, err := b.Environment(ctx, req)
	must(t, err)
	if !env.Reused || env.Lock != "numpy==2.0.0\n" || len(env.Deviations) != 1 {
		t.Fatalf("%+v", env)
	}
	src := checkout(t, map[string]string{"main.py": "print(1)\n", ".git/config": "x"})
	one, err := b.WithSource(ctx, env, image.SourceRequest{Dir: src, Commit: "c1", Time: time.Unix(1e9, 0)})
	must(t, err)
	again, err := b.WithSource(ctx, env, image.SourceRequest{Dir: src, Commit: "c1", Time: time.Unix(1e9, 0)})
	must(t, err)
	if one.Digest != again.Digest || one.Source.Files != 2 {
		t.Errorf("%s %s %+v", one.Digest, again.Digest, one.Source)
	}
	must(t, os.WriteFile(filepath.Join(src, "main.py"), []byte("print(2)\n"), 0o644))
	two, err := b.WithSource(ctx, env, image.SourceRequest{Dir: src, Commit: "c2", Time: time.Unix(1e9, 0)})
	must(t, err)
	if two.Digest == one.Digest {
		t.Error("another commit has the same image")
	}
	must(t, validate.Image(two.Image))
	pin, err := b.Push(ctx, two)
	must(t, err)
	pulled, err := client.Image(ctx, pin)
	must(t, err)
	must(t, validate.Image(pulled))

	out := filepath.Join(t.TempDir(), "oci")
	must(t, b.Layout(two.Image, out))
	idx, err := layout.ImageIndexFromPath(out)
	must(t, err)
	must(t, validate.Index(idx))
	if err := b.Layout(two.Image, out); err == nil {
		t.Error("a folder that is not empty was written to")
	}
	lists(t, b)
}

func lists(t *testing.T, b *image.Builder) {
	t.Helper()
	list, err := b.List()
	must(t, err)
	kinds := map[string]int{}
	for _, e := range list {
		kinds[e.Kind]++
		if e.Kind == "environments" && e.Count != 1 {
			t.Errorf("%+v", e)
		}
	}
	if kinds["environments"] != 1 || kinds["sources"] != 2 || kinds["bases"] != 1 {
		t.Errorf("%v", kinds)
	}
	p, err := b.Prune(context.Background(), 1<<40)
	if err != nil || p.Images != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	p, err = b.Prune(context.Background(), 0)
	if err != nil || p.Images != 3 || p.Bytes <= 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestBaseWhoseRegistryIsGone takes the base as it was when last seen.
func TestBaseWhoseRegistryIsGone(t *testing.T) {
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	host := strings.TrimPrefix(srv.URL, "http://")
	client := registry.New(registry.Config{Backoff: time.Millisecond, Tries: 2})
	img, err := random.Image(100, 1)
	must(t, err)
	_, err = client.Push(context.Background(), host+"/base:1", img)
	must(t, err)
	b, err := image.New(image.Config{Dir: filepath.Join(t.TempDir(), "images"), Registry: client, Bases: []string{host + "/base:1"}})
	must(t, err)
	req := image.EnvRequest{Environment: wants("x"), Source: t.TempDir()}
	before, err := b.Key(context.Background(), req)
	must(t, err)
	srv.Close()
	after, err := b.Key(context.Background(), req)
	must(t, err)
	if before != after {
		t.Error("the key changed with the registry's absence")
	}
}

func TestSelf(t *testing.T) {
	host, client := site(t)
	b := offline(t, host, client)
	exe, err := os.Executable()
	must(t, err)
	img, err := b.Self(context.Background(), image.SelfRequest{Binary: exe, Base: host + "/python:3.11-slim", Version: "v1", Time: layer.Epoch()})
	must(t, err)
	pin, err := b.PushTo(context.Background(), host+"/self:v1", img)
	must(t, err)
	got, err := client.Image(context.Background(), pin)
	must(t, err)
	cfg, err := got.ConfigFile()
	must(t, err)
	if cfg.Config.Entrypoint[0] != image.SelfPath || cfg.Config.User == "" || cfg.Config.Labels["org.opencontainers.image.version"] != "v1" {
		t.Errorf("%+v", cfg.Config)
	}
	if _, err := b.Self(context.Background(), image.SelfRequest{Binary: "image_test.go"}); err == nil {
		t.Error("a text was taken for a program")
	}
}
