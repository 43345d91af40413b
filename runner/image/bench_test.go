package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image"
)

// BenchmarkCold makes an environment of numpy and scipy from nothing, its layer
// included: as we do, and as the RUN step of a hand-written Dockerfile does with
// the same uv, base and index. No cache is kept from one to the next. Ours also
// resolves with hashes, looks for missing libraries and leaves an image that
// needs no engine.
func BenchmarkCold(b *testing.B) {
	reqs := "numpy==1.26.4\nscipy==1.13.1\n"
	b.Run("ours", func(b *testing.B) {
		dir := checkout(b, map[string]string{"requirements.txt": reqs})
		b.StopTimer()
		for range b.N {
			build := builder(b, func(c *image.Config) { c.Progress = nil })
			warm, err := build.Environment(context.Background(), image.EnvRequest{Environment: wants("six"), Source: dir}) // the tool and the probe
			must(b, err)
			if warm.Failure != nil {
				b.Fatal(warm.Failure)
			}
			b.StartTimer()
			env, err := build.Environment(context.Background(), image.EnvRequest{Environment: wants("-r requirements.txt"), Source: dir})
			b.StopTimer()
			must(b, err)
			if env.Failure != nil {
				b.Fatal(env.Failure)
			}
		}
	})
	b.Run("Dockerfile", func(b *testing.B) {
		b.StopTimer()
		base := os.Getenv("REPROMILL_TEST_DOCKER_BASE")
		if base == "" {
			b.Skip("REPROMILL_TEST_DOCKER_BASE names no base image for a Docker engine")
		}
		eng, err := engine.Open(b.Context(), engine.Config{Getenv: os.Getenv})
		if err != nil {
			b.Skip("no Docker engine answers: ", err)
		}
		defer eng.Close()
		context := dockerContext(b, base, reqs)
		for range b.N {
			b.StartTimer()
			id, err := eng.Build(b.Context(), engine.Build{Context: bytes.NewReader(context), NoCache: true})
			b.StopTimer()
			must(b, err)
			must(b, eng.RemoveImage(b.Context(), id))
		}
	})
}

// dockerContext is the folder of the hand-written Dockerfile as a tar file.
func dockerContext(b *testing.B, base, reqs string) []byte {
	tool, err := os.ReadFile(uv(b))
	must(b, err)
	file := "FROM " + base + "\nCOPY uv requirements.txt ca.pem /build/\nRUN "
	var pem []byte
	if p := os.Getenv("PIP_CERT"); p != "" {
		pem, err = os.ReadFile(p)
		must(b, err)
		file += "export SSL_CERT_FILE=/build/ca.pem && "
	}
	if x := os.Getenv("PIP_INDEX_URL"); x != "" {
		file += "export UV_DEFAULT_INDEX=" + x + " && "
	}
	file += "/build/uv venv --python 3.11 /opt/env && /build/uv pip install --no-cache --python /opt/env/bin/python -r /build/requirements.txt\n"
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, body := range map[string][]byte{"Dockerfile": []byte(file), "uv": tool, "requirements.txt": []byte(reqs), "ca.pem": pem} {
		must(b, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg}))
		_, err := w.Write(body)
		must(b, err)
	}
	must(b, w.Close())
	return buf.Bytes()
}

// BenchmarkNewCommit is what a nightly run of a new commit costs: the same
// environment, 50 MB of source.
func BenchmarkNewCommit(b *testing.B) {
	build := builder(b, func(c *image.Config) { c.Progress = nil })
	dir := b.TempDir()
	line := strings.Repeat("def f(x): return x + 1  # some code\n", 1800)
	for i := range 800 { // 64 KiB each
		p := filepath.Join(dir, fmt.Sprintf("pkg%d", i/20), fmt.Sprintf("m%d.py", i%20))
		must(b, os.MkdirAll(filepath.Dir(p), 0o755))
		must(b, os.WriteFile(p, []byte(fmt.Sprint("# ", i, "\n")+line), 0o644))
	}
	req := image.EnvRequest{Environment: wants("six"), Source: dir}
	_, err := build.Environment(context.Background(), req)
	must(b, err)
	n := 0
	for b.Loop() {
		n++
		env, err := build.Environment(context.Background(), req)
		must(b, err)
		_, err = build.WithSource(context.Background(), env, image.SourceRequest{Dir: dir, Commit: fmt.Sprint(n), Time: time.Unix(int64(n), 0)})
		must(b, err)
	}
}
