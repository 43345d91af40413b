package image_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// builder is one with a real engine; the test is skipped without one.
func builder(t testing.TB, change func(*image.Config)) *image.Builder {
	t.Helper()
	base := os.Getenv("REPROMILL_TEST_DOCKER_BASE")
	if base == "" {
		t.Skip("REPROMILL_TEST_DOCKER_BASE names no base image for a Docker engine")
	}
	e, err := engine.Open(t.Context(), engine.Config{Getenv: os.Getenv})
	if err != nil {
		t.Skip("no Docker engine answers: ", err)
	}
	t.Cleanup(func() { e.Close() })
	cfg := image.Config{
		Dir: filepath.Join(t.TempDir(), "images"), Engine: e, Bases: []string{base}, Interpreters: []string{"base"}, UV: os.Getenv("REPROMILL_TEST_UV"),
		Index:    image.Index{URL: os.Getenv("PIP_INDEX_URL"), CABundle: os.Getenv("PIP_CERT")},
		Progress: func(e image.Event) { t.Logf("%s %s", e.Stage, e.Text) },
	}
	if change != nil {
		change(&cfg)
	}
	b, err := image.New(cfg)
	must(t, err)
	return b
}

func checkout(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(body), 0o644))
	}
	return dir
}

func wants(reqs ...string) (e spec.Environment) {
	for _, r := range reqs {
		e.Requirements = append(e.Requirements, spec.Requirement{Spec: r})
	}
	return e
}

// runIn runs a command in an image and returns what it printed.
func runIn(t testing.TB, ref string, argv ...string) (string, int) {
	t.Helper()
	ctx := context.Background()
	e, err := engine.Open(ctx, engine.Config{Getenv: os.Getenv})
	must(t, err)
	defer e.Close()
	id, err := e.Create(ctx, engine.Container{Image: ref, Entrypoint: argv, Network: "none", Labels: map[string]string{image.LabelBuild: "test"}})
	must(t, err)
	defer func() { must(t, e.Remove(ctx, id)) }()
	must(t, e.Start(ctx, id))
	code, err := e.Wait(ctx, id)
	must(t, err)
	var out bytes.Buffer
	must(t, e.Logs(ctx, id, false, &out, &out))
	return out.String(), code
}

func remove(t testing.TB, ref string) {
	t.Cleanup(func() {
		e, err := engine.Open(context.Background(), engine.Config{Getenv: os.Getenv})
		must(t, err)
		defer e.Close()
		must(t, e.RemoveImage(context.Background(), ref))
	})
}

// TestNumpyPaper goes the whole way: build, append, load, run; then a new
// commit, which costs an append.
func TestNumpyPaper(t *testing.T) {
	b := builder(t, nil)
	ctx := context.Background()
	dir := checkout(t, map[string]string{"main.py": "import numpy; print('numpy', numpy.__version__)\n", "requirements.txt": "numpy==1.26.4\n"})
	req := image.EnvRequest{Environment: wants("-r requirements.txt"), Source: dir}
	env, err := b.Environment(ctx, req)
	must(t, err)
	if env.Failure != nil || env.Reused || !strings.Contains(env.Lock, "numpy==1.26.4 \\\n    --hash=sha256:") || !strings.HasPrefix(env.Python, "3.11.") {
		log, _ := os.ReadFile(env.Log)
		t.Fatalf("%+v\n%s", env, log)
	}
	img, err := b.WithSource(ctx, env, image.SourceRequest{Dir: dir, Commit: "1", Time: time.Unix(1.6e9, 0)})
	must(t, err)
	ref, err := b.Load(ctx, img.Image, "repromill/test:numpy")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "main.py"); out != "numpy 1.26.4\n" || code != 0 {
		t.Errorf("%d %q", code, out)
	}

	must(t, os.WriteFile(filepath.Join(dir, "main.py"), []byte("import numpy; print('second')\n"), 0o644))
	start := time.Now()
	again, err := b.Environment(ctx, req)
	must(t, err)
	if !again.Reused || again.Digest != env.Digest || again.Lock != env.Lock {
		t.Errorf("%+v", again)
	}
	img, err = b.WithSource(ctx, again, image.SourceRequest{Dir: dir, Commit: "2", Time: time.Unix(1.7e9, 0)})
	must(t, err)
	ready := time.Since(start)
	ref, err = b.Load(ctx, img.Image, "repromill/test:numpy2")
	must(t, err)
	remove(t, ref)
	if out, code := runIn(t, ref, "python", "main.py"); out != "second\n" || code != 0 {
		t.Errorf("%d %q", code, out)
	}
	t.Logf("a new commit took %s, and %s with loading", ready, time.Since(start))
}
