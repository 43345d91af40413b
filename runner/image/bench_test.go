package image_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner/image"
)

// BenchmarkCold builds an environment of numpy and scipy from nothing, with
// its layer written, as a RUN step of a Dockerfile does.
func BenchmarkCold(b *testing.B) {
	dir := checkout(b, map[string]string{"requirements.txt": "numpy==1.26.4\nscipy==1.13.1\n"})
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
