package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// real opens the engine of this machine and its base image, or skips.
func real(t *testing.T) (*Engine, string) {
	t.Helper()
	base := os.Getenv("REPROMILL_TEST_DOCKER_BASE")
	if base == "" {
		t.Skip("needs Docker and a base image: run `make e2e-docker`")
	}
	e, err := Open(t.Context(), Config{Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, base
}

func buildContext(t *testing.T, files map[string]string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(body))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestInfo(t *testing.T) {
	e, _ := real(t)
	i, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i.ID == "" || i.OS != "linux" || i.CPUs == 0 || i.MemoryBytes == 0 || i.StorageDriver == "" || i.APIVersion < "1.24" {
		t.Errorf("info is %+v", i)
	}
}

func TestBuild(t *testing.T) {
	e, base := real(t)
	for _, kit := range []bool{false, true} {
		t.Run(fmt.Sprintf("buildkit=%v", kit), func(t *testing.T) {
			tag := fmt.Sprintf("repromill-engine-test:%d", time.Now().UnixNano())
			t.Cleanup(func() { e.RemoveImage(context.Background(), tag) })
			var log bytes.Buffer
			in := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nARG X\nCOPY a /a\nRUN echo said-$X\n", "a": "text"})
			id, err := e.Build(t.Context(), Build{Context: in, Tags: []string{tag}, Labels: map[string]string{"k": "v"}, Args: map[string]string{"X": "so"}, NoCache: true, BuildKit: kit, Log: &log})
			if err != nil {
				t.Fatalf("%v\n%s", err, &log)
			}
			if !strings.Contains(log.String(), "said-so\n") {
				t.Errorf("the log lacks what the command printed:\n%s", &log)
			}
			img, err := e.InspectImage(t.Context(), tag)
			if err != nil || img.ID != id || img.Labels["k"] != "v" {
				t.Errorf("image is %+v, %v; built %s", img, err, id)
			}

			log.Reset()
			in = buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nRUN echo last words; exit 3\n"})
			_, err = e.Build(t.Context(), Build{Context: in, BuildKit: kit, Log: &log})
			var be *BuildError
			if !errors.As(err, &be) || !strings.Contains(log.String(), "last words") {
				t.Errorf("a failing command gave %v with the log\n%s", err, &log)
			}
		})
	}
}

func TestBuildWithoutBase(t *testing.T) {
	e, _ := real(t)
	registry := os.Getenv("REPROMILL_TEST_REGISTRY")
	in := buildContext(t, map[string]string{"Dockerfile": "FROM " + registry + "/no/such:tag\n"})
	_, err := e.Build(t.Context(), Build{Context: in})
	var re *RegistryError
	if !errors.As(err, &re) || re.Kind != Missing {
		t.Errorf("got %v, want a missing image", err)
	}
}

// TestBuildCancelled: a build that waits for something is over when its
// context is, and leaves no container.
func TestBuildCancelled(t *testing.T) {
	e, base := real(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := buildContext(t, map[string]string{"Dockerfile": "FROM " + base + "\nLABEL waits=yes\nRUN echo waiting; read x < /dev/stdin; sleep 600\n"})
	_, err := e.Build(ctx, Build{Context: in, Log: cancelOn{"waiting\n", cancel}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := e.List(t.Context(), map[string]string{"waits": "yes"})
		if err == nil && len(list) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a container is left: %+v, %v", list, err)
		}
	}
}

type cancelOn struct {
	word   string
	cancel func()
}

func (c cancelOn) Write(p []byte) (int, error) {
	if strings.HasSuffix(string(p), c.word) {
		c.cancel()
	}
	return len(p), nil
}

func TestMove(t *testing.T) {
	e, base := real(t)
	registry := os.Getenv("REPROMILL_TEST_REGISTRY")
	ref := registry + "/engine/test:move"
	if err := e.Tag(t.Context(), base, ref); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.RemoveImage(context.Background(), ref) })
	digest, err := e.Push(t.Context(), ref, Auth{}, nil)
	if err != nil || !strings.HasPrefix(digest, "sha256:") {
		t.Fatalf("push gave %q, %v", digest, err)
	}
	if err := e.RemoveImage(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	lines := 0
	if err := e.Pull(t.Context(), registry+"/engine/test@"+digest, Auth{}, func(string) { lines++ }); err != nil || lines == 0 {
		t.Fatalf("pull by digest gave %v with %d lines", err, lines)
	}
	e.RemoveImage(t.Context(), registry+"/engine/test@"+digest)

	var re *RegistryError
	if err := e.Pull(t.Context(), registry+"/no/such:tag", Auth{}, nil); !errors.As(err, &re) || re.Kind != Missing {
		t.Errorf("a missing image gave %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // a registry that drops every connection
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer l.Close()
	if err := e.Pull(t.Context(), l.Addr().String()+"/a/b:c", Auth{}, nil); !errors.As(err, &re) || re.Kind != Unreachable || !re.Temporary() {
		t.Errorf("a registry that drops connections gave %v", err)
	}
}

func TestSaveLoadImport(t *testing.T) {
	e, _ := real(t)
	ref := "repromill-engine-test:import"
	id, err := e.Import(t.Context(), buildContext(t, map[string]string{"file": "text"}), ref, "LABEL a=b")
	if err != nil || !strings.HasPrefix(id, "sha256:") {
		t.Fatalf("import gave %q, %v", id, err)
	}
	t.Cleanup(func() { e.RemoveImage(context.Background(), ref) })
	r, err := e.Save(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var kept bytes.Buffer
	if _, err := kept.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveImage(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := e.InspectImage(t.Context(), ref); !errors.Is(err, ErrNotFound) {
		t.Fatalf("the image was removed and gave %v", err)
	}
	names, err := e.Load(t.Context(), &kept)
	if err != nil || len(names) != 1 || names[0] != ref {
		t.Errorf("load gave %q, %v", names, err)
	}
	if list, err := e.ListImages(t.Context(), map[string]string{"a": "b"}); err != nil || len(list) == 0 {
		t.Errorf("images by label: %+v, %v", list, err)
	}
}

func TestContainer(t *testing.T) {
	e, base := real(t)
	label := map[string]string{"dev.repromill.test": fmt.Sprint(time.Now().UnixNano())}
	name := fmt.Sprintf("repromill-engine-test-%d", time.Now().UnixNano())
	c := Container{Name: name, Image: base, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 5"}, Labels: label, Network: "none", CapDrop: []string{"ALL"}, ReadOnlyRoot: true}
	id, err := e.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Remove(context.Background(), id) })
	if _, err := e.Create(t.Context(), c); !errors.Is(err, ErrConflict) {
		t.Errorf("a taken name gave %v", err)
	}
	if st, err := e.Inspect(t.Context(), name); err != nil || st.Status != "created" || !st.Started.IsZero() {
		t.Errorf("before the start: %+v, %v", st, err)
	}
	seen := make(chan string, 16)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go e.Events(ctx, label, func(ev Event) error { seen <- ev.Action; return nil })
	time.Sleep(200 * time.Millisecond) // the engine has no past events to give
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if code, err := e.Wait(t.Context(), id); err != nil || code != 5 {
		t.Errorf("wait gave %d, %v", code, err)
	}
	var out, errs bytes.Buffer
	if err := e.Logs(t.Context(), id, true, &out, &errs); err != nil || out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("logs are %q, %q, %v", &out, &errs, err)
	}
	st, err := e.Inspect(t.Context(), id)
	if err != nil || st.Status != "exited" || st.ExitCode != 5 || st.Started.IsZero() || st.Finished.IsZero() {
		t.Errorf("after the end: %+v, %v", st, err)
	}
	if err := e.Kill(t.Context(), id, "KILL"); !errors.Is(err, ErrConflict) {
		t.Errorf("killing the dead gave %v", err)
	}
	if list, err := e.List(t.Context(), label); err != nil || len(list) != 1 || list[0].Name != name {
		t.Errorf("list is %+v, %v", list, err)
	}
	for range 2 {
		if err := e.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := e.Inspect(t.Context(), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed container gave %v", err)
	}
	for want := "die"; want != ""; {
		select {
		case a := <-seen:
			if a == want {
				want = ""
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %q came", want)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	refused := filepath.Join(dir, "s")
	l, err := net.Listen("unix", refused)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for host, want := range map[string]string{
		"unix://" + dir + "/none": "apt-get install",
		"unix://" + refused:       "systemctl start docker",
		"tcp://127.0.0.1:1":       "start the engine",
		"nonsense":                "DOCKER_HOST",
	} {
		_, err := Open(t.Context(), Config{Host: host})
		var u *UnavailableError
		if !errors.As(err, &u) || !strings.Contains(u.UserError(), want) {
			t.Errorf("%s: %v, want a fix with %q", host, err, want)
		}
	}
}

func TestEndpoint(t *testing.T) {
	home := t.TempDir()
	write := func(body string, path ...string) {
		t.Helper()
		p := filepath.Join(append([]string{home, ".docker"}, path...)...)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := func(kv ...string) func(string) string {
		m := map[string]string{"HOME": home}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return func(k string) string { return m[k] }
	}
	write(`{"currentContext":"far"}`, "config.json")
	write(`{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}`, "contexts", "meta", contextID("far"), "meta.json")
	for _, tc := range []struct {
		name, want string
		env        func(string) string
	}{
		{"host", "tcp://near:1", env("DOCKER_HOST", "tcp://near:1")},
		{"current context", "tcp://far:2376", env()},
		{"default context", defaultHost, env("DOCKER_CONTEXT", "default", "XDG_RUNTIME_DIR", home)},
	} {
		got, err := endpoint(Config{Getenv: tc.env})
		if err != nil || got.host != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.name, got.host, err, tc.want)
		}
	}
	if _, err := endpoint(Config{Getenv: env("DOCKER_CONTEXT", "gone")}); err == nil {
		t.Error("a context that does not exist was taken")
	}
}

func TestRegistryError(t *testing.T) {
	for msg, want := range map[string]RegistryProblem{
		"manifest for a/b:c not found: manifest unknown: manifest unknown":                            Missing,
		"pull access denied for nosuch, repository does not exist or may require 'docker login'":      Denied,
		"toomanyrequests: You have reached your pull rate limit.":                                     Limited,
		`Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host`: Unreachable,
		"unexpected EOF": Unreachable,
		"received unexpected HTTP status: 503 Service Unavailable": Unreachable,
	} {
		var re *RegistryError
		if err := registryError("a/b:c", msg); !errors.As(err, &re) || re.Kind != want {
			t.Errorf("%q is %v, want %s", msg, err, want)
		}
	}
	var full *DiskFullError
	if err := registryError("a", "write /x: no space left on device"); !errors.As(err, &full) {
		t.Errorf("a full disk gave %v", err)
	}
}

// FuzzTrace: whatever an engine sends as a trace, nothing breaks.
func FuzzTrace(f *testing.F) {
	f.Add([]byte("\x0a\x05\x1a\x03abc"))
	f.Add([]byte("\x1a\x04\x22\x02hi"))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		fields(b, func(_ int, v []byte) {
			if len(v) > len(b) {
				t.Fatal("a field is longer than its message")
			}
			fields(v, func(int, []byte) {})
		})
	})
}
