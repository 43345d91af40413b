package registry_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/repromill/repromill/runner/image/registry"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a registry behind a handler that may spoil a request.
func serve(t *testing.T, spoil func(w http.ResponseWriter, r *http.Request) bool) string {
	real := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if spoil == nil || !spoil(w, r) {
			real.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// drop reads a part of the request and closes the connection.
func drop(w http.ResponseWriter, r *http.Request) {
	_, _ = io.CopyN(io.Discard, r.Body, 1000)
	c, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		c.Close()
	}
}

func client() *registry.Client {
	return registry.New(registry.Config{Backoff: time.Millisecond})
}

func image(t *testing.T) v1.Image {
	img, err := random.Image(20_000, 3)
	must(t, err)
	return img
}

func TestPushAndPullByDigest(t *testing.T) {
	host := serve(t, nil)
	img := image(t)
	ctx := context.Background()
	d, err := client().Push(ctx, host+"/a/b:env-1", img)
	must(t, err)
	again, err := client().Resolve(ctx, host+"/a/b:env-1")
	must(t, err)
	if d != again {
		t.Errorf("pushed %s, resolved %s", d, again)
	}
	got, err := client().Image(ctx, d.Name())
	must(t, err)
	must(t, validate.Image(got))
	must(t, client().Tag(ctx, host+"/a/b:other", got))
	h, ok, err := client().Digest(ctx, host+"/a/b:other")
	must(t, err)
	if want, _ := img.Digest(); !ok || h != want {
		t.Errorf("%v %v", h, ok)
	}
	if _, ok, err := client().Digest(ctx, host+"/a/b:none"); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
}

// TestResolvePlatform pins the image of the platform and not the list of all.
func TestResolvePlatform(t *testing.T) {
	host := serve(t, nil)
	amd, arm := image(t), image(t)
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	ref, err := name.ParseReference(host + "/base:1")
	must(t, err)
	must(t, remote.WriteIndex(ref, idx))
	d, err := client().Resolve(context.Background(), host+"/base:1")
	must(t, err)
	if want, _ := amd.Digest(); d.DigestStr() != want.String() {
		t.Errorf("%s, want %s", d, want)
	}
}

// TestFlaky drops connections in every kind of request; all goes through, and
// what was sent once is not sent again.
func TestFlaky(t *testing.T) {
	var dropped atomic.Int64
	var mu sync.Mutex
	seen := map[string]bool{}
	host := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		key := r.Method + " " + r.URL.Path
		if i := strings.Index(key, "/uploads/"); i > 0 { // the rest is random
			key = key[:i] + r.URL.Query().Get("digest")
		}
		mu.Lock()
		first := !seen[key]
		seen[key] = true
		mu.Unlock()
		if !first {
			return false
		}
		dropped.Add(1)
		if dropped.Load()%3 == 0 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		drop(w, r)
		return true
	})
	cl := registry.New(registry.Config{Backoff: time.Millisecond, Tries: 30})
	img := image(t)
	d, err := cl.Push(context.Background(), host+"/flaky:1", img)
	must(t, err)
	if dropped.Load() < 8 {
		t.Errorf("only %d requests were dropped", dropped.Load())
	}
	got, err := client().Image(context.Background(), d.Name())
	must(t, err)
	must(t, validate.Image(got))
}

// TestNothingHalfPushed breaks every upload of one blob: no manifest arrives.
func TestNothingHalfPushed(t *testing.T) {
	var uploads, manifests atomic.Int64
	host := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			manifests.Add(1)
		}
		if r.Method == http.MethodPatch && uploads.Add(1) > 1 {
			drop(w, r)
			return true
		}
		return false
	})
	_, err := client().Push(context.Background(), host+"/half:1", image(t))
	if err == nil || manifests.Load() != 0 {
		t.Errorf("err %v, %d manifests", err, manifests.Load())
	}
	if _, ok, err := client().Digest(context.Background(), host+"/half:1"); ok || err != nil {
		t.Errorf("the tag is there: %v, %v", ok, err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	host := serve(t, nil)
	private := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret")) {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	for ref, want := range map[string]string{
		host + "/none:1":             "there is no such image; check the name",
		private + "/x:1":             "docker login " + private,
		"127.0.0.1:1/x:1":            "cannot be reached",
		"no.such.host.invalid/x:1":   "cannot be reached",
		"UPPER CASE":                 "write HOST/REPOSITORY:TAG",
		"python@sha256:0123":         "write HOST/REPOSITORY:TAG",
		"docker.io/library/a:b:c":    "write HOST/REPOSITORY:TAG",
		"host.example/../etc/passwd": "write HOST/REPOSITORY:TAG",
	} {
		_, err := client().Resolve(context.Background(), ref)
		var user interface{ UserError() string }
		if !errors.As(err, &user) || !strings.Contains(err.Error()+"; "+user.UserError(), want) {
			t.Errorf("%s: %v; want %q", ref, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v shows the login", ref, err)
		}
	}
	// The login of the Docker configuration opens the private one.
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"`+private+`":{"auth":"`+auth+`"}}}`), 0o600))
	t.Setenv("DOCKER_CONFIG", dir)
	if _, err := client().Push(context.Background(), private+"/x:1", image(t)); err != nil {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	host := serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		cancel()
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if _, err := registry.New(registry.Config{Backoff: time.Hour}).Resolve(ctx, host+"/x:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
