package git

import (
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// midSize fills a repository with 2,000 files of 50 MB in all: source-like
// text for the most part, and some content that does not compress.
func midSize(t testing.TB, r *repo) {
	t.Helper()
	rnd := rand.New(rand.NewSource(7))
	words := make([]string, 4000)
	for i := range words {
		w := make([]byte, 3+rnd.Intn(9))
		for k := range w {
			w[k] = byte('a' + rnd.Intn(26))
		}
		words[i] = string(w)
	}
	for i := range 2000 {
		dir := filepath.Join(r.dir, fmt.Sprintf("pkg%02d/sub%d", i%40, i%7))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		size := 4_000 + rnd.Intn(30_000)
		if i%50 == 0 {
			size = 400_000
		}
		b := make([]byte, 0, size+16)
		if i%20 == 0 {
			b = b[:size]
			rnd.Read(b)
		}
		for len(b) < size {
			b = append(b, words[int(rnd.ExpFloat64()*300)%len(words)]...)
			b = append(b, " \n_(="[rnd.Intn(5)])
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%04d.py", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.commit("all")
	r.git("gc", "-q")
}

// BenchmarkClone measures a checkout of a mid-size repository over local HTTP,
// and git clone --depth 1 of the same for comparison.
func BenchmarkClone(b *testing.B) {
	s := newServer(b)
	r := s.repo(b, "mid")
	midSize(b, r)
	url := s.URL + "/mid"
	b.Run("git", func(b *testing.B) {
		for b.Loop() {
			dst := filepath.Join(b.TempDir(), "x")
			cmd := exec.Command("git", "clone", "-q", "--depth", "1", url, dst)
			cmd.Env = gitEnv()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
	for name, child := range map[string][]string{"here": nil, "child": childCommand()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c := newCloner(b, s.config(b, child))
				checkout(b, c, Request{Repo: url})
			}
		})
	}
	b.Run("cached", func(b *testing.B) {
		c := newCloner(b, s.config(b, nil))
		co := checkout(b, c, Request{Repo: url})
		b.ResetTimer()
		for b.Loop() {
			if !checkout(b, c, Request{Repo: url, Ref: co.Commit}).FromCache {
				b.Fatal("not from cache")
			}
		}
	})
}
