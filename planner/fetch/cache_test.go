package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// files lists the files below a part of the cache.
func files(t *testing.T, c *Client, part string) []string {
	t.Helper()
	var out []string
	err := walkFiles(t.Context(), filepath.Join(c.cache.dir, part), func(path string, _ os.FileInfo) error {
		out = append(out, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCorruptEntryIsFetchedAgain damages each file of an entry in several ways.
func TestCorruptEntryIsFetchedAgain(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the right body") })
	c, _ := client(t, srv, nil)
	get := func() {
		t.Helper()
		if res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"}); err != nil || string(res.Body) != "the right body" {
			t.Fatalf("%v, %v", res, err)
		}
	}
	get()
	meta, blob := files(t, c, "meta")[0], files(t, c, "blobs")[0]
	good, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	want := 1
	for name, damage := range map[string]func() error{
		"empty metadata": func() error { return os.WriteFile(meta, nil, 0o600) },
		"torn metadata":  func() error { return os.WriteFile(meta, good[:len(good)/2], 0o600) },
		"other key": func() error {
			return os.WriteFile(meta, bytes.Replace(good, []byte(`"key":"`), []byte(`"key":"0`), 1), 0o600)
		},
		"climbing hash": func() error {
			return os.WriteFile(meta, bytes.Replace(good, []byte(`"sha256":"`), []byte(`"sha256":"../../`), 1), 0o600)
		},
		"other version": func() error {
			return os.WriteFile(meta, bytes.Replace(good, []byte(`"v":1`), []byte(`"v":2`), 1), 0o600)
		},
		"negative size": func() error {
			return os.WriteFile(meta, bytes.Replace(good, []byte(`"size":`), []byte(`"size":-`), 1), 0o600)
		},
		"no metadata":      func() error { return os.Remove(meta) },
		"flipped body":     func() error { return os.WriteFile(blob, []byte("the wrong body"), 0o600) },
		"short body":       func() error { return os.Truncate(blob, 3) },
		"no body":          func() error { return os.Remove(blob) },
		"body is a folder": func() error { return errors.Join(os.Remove(blob), os.Mkdir(blob, 0o700)) },
		"future, by a year": func() error {
			return os.WriteFile(meta, bytes.Replace(good, []byte(`"2026-`), []byte(`"2027-`), 1), 0o600)
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if name == "body is a folder" {
			// Only a person makes one; it is reported, not removed.
			if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"}); err == nil {
				t.Error("a folder passes for a body")
			}
			if err := os.Remove(blob); err != nil {
				t.Fatal(err)
			}
			want++
		}
		get()
		want++
		if n.get() != want {
			t.Errorf("%s: %d requests, want %d", name, n.get(), want)
		}
		get()
		if n.get() != want {
			t.Errorf("%s: not healed", name)
		}
	}
}

func TestRevalidation(t *testing.T) {
	content, tag := "one", `"1"`
	var conditions []string
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conditions = append(conditions, r.Header.Get("If-None-Match"))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, content)
	})
	c, ck := client(t, srv, nil)
	get := func(maxAge time.Duration) *Response {
		t.Helper()
		res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x", MaxAge: maxAge})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	get(0)
	ck.Advance(25 * time.Hour)
	if res := get(0); string(res.Body) != "one" || !res.FromCache || !res.FetchedAt.Equal(ck.Now()) || res.Status != 200 {
		t.Errorf("confirmed: %+v", res)
	}
	get(0) // free again
	content, tag = "two", `"2"`
	ck.Advance(time.Second)
	if res := get(-1); string(res.Body) != "two" || res.FromCache {
		t.Errorf("changed: %+v", res)
	}
	blob := files(t, c, "blobs")
	for _, b := range blob {
		_ = os.Truncate(b, 1)
	}
	if res := get(-1); string(res.Body) != "two" || res.FromCache {
		t.Errorf("with a damaged body: %+v", res)
	}
	if got := strings.Join(conditions, " "); got != ` "1" "1" ` {
		t.Errorf("conditions %q", got)
	}
}

func TestMaxBytesOfCachedAnswer(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") })
	c, _ := client(t, srv, nil)
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x", MaxBytes: 10}); err != nil {
		t.Fatal(err)
	}
	var large *TooLargeError
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x", MaxBytes: 9}); !errors.As(err, &large) || n.get() != 1 {
		t.Errorf("error = %v after %d requests", err, n.get())
	}
}

func TestConcurrentGetsFetchOnce(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, r.URL.Path)
	})
	c, err := New(Config{CacheDir: t.TempDir(), Endpoints: map[Site]string{HF: srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			path := fmt.Sprintf("/api/models/%d", i%4)
			res, err := c.Get(t.Context(), Request{URL: "https://huggingface.co" + path})
			if err != nil || string(res.Body) != path {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	wg.Wait()
	if n.get() != 4 {
		t.Errorf("%d requests, want 4", n.get())
	}
}

func TestPrune(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Path, 500))
	})
	c, ck := client(t, srv, nil)
	ck.t = time.Now()
	for i := range 5 {
		if _, err := c.Get(t.Context(), Request{URL: fmt.Sprintf("https://huggingface.co/%d", i)}); err != nil {
			t.Fatal(err)
		}
		ck.Advance(24 * time.Hour)
	}
	for _, name := range []string{"tmp/body-1", "meta/00/tmp-1", "blobs/00/" + strings.Repeat("0", 64)} {
		write(t, c.cache.dir, name, "left behind")
	}
	if _, err := c.Prune(t.Context(), PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if m, b := len(files(t, c, "meta")), len(files(t, c, "blobs")); m != 5 || b != 5 {
		t.Errorf("after pruning what was left behind: %d entries, %d bodies", m, b)
	}
	rep, err := c.Prune(t.Context(), PruneOptions{MaxAge: 3*24*time.Hour + time.Hour})
	if err != nil || rep.Entries != 2 || rep.Blobs != 2 || rep.Bytes != 2000 {
		t.Errorf("by age: %+v, %v", rep, err)
	}
	rep, err = c.Prune(t.Context(), PruneOptions{MaxBytes: 2500})
	if err != nil || rep.Entries != 1 || rep.Blobs != 1 {
		t.Errorf("by size: %+v, %v", rep, err)
	}
	for i, want := range []bool{false, false, false, true, true} {
		res, err := c.Get(t.Context(), Request{URL: fmt.Sprintf("https://huggingface.co/%d", i), MaxAge: 1000 * time.Hour})
		if err != nil || res.FromCache != want {
			t.Errorf("%d: from the cache %v, want %v (%v)", i, res.FromCache, want, err)
		}
	}
	// A body that was stored this moment may be waiting for its entry.
	ck.t = time.Now()
	fresh := "blobs/11/" + strings.Repeat("1", 64)
	write(t, c.cache.dir, fresh, "x")
	if _, err := c.Prune(t.Context(), PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.cache.dir, filepath.FromSlash(fresh))); err != nil {
		t.Error(err)
	}
}

func TestCacheIsPrivate(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "gated") })
	c, _ := client(t, srv, nil)
	if _, err := c.Get(t.Context(), Request{URL: "https://huggingface.co/x"}); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"meta", "blobs"} {
		for _, f := range files(t, c, part) {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", f, info.Mode(), err)
			}
		}
	}
}

func BenchmarkCachedGet(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			c, err := New(Config{CacheDir: dir, Endpoints: map[Site]string{HF: "http://127.0.0.1:9"}})
			if err != nil {
				b.Fatal(err)
			}
			// The entry is put there as an answer would be; nothing listens.
			r := Request{URL: "https://huggingface.co/api/models/a/b"}
			j, err := c.newJob(r)
			if err != nil {
				b.Fatal(err)
			}
			p := &partial{}
			if err := p.reset(c.cache); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Write(bytes.Repeat([]byte("x"), size)); err != nil {
				b.Fatal(err)
			}
			sum := fmt.Sprintf("%x", p.h.Sum(nil))
			if err := c.cache.storeBlob(p.f.Name(), sum); err != nil {
				b.Fatal(err)
			}
			e := &entry{V: metaVersion, Key: j.key, URL: j.url, FinalURL: j.url, Status: 200, Header: http.Header{}, SHA256: sum, Size: int64(size), FetchedAt: time.Now()}
			if err := c.cache.storeMeta(e); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if res, err := c.Get(b.Context(), r); err != nil || !res.FromCache {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMirrorGet(b *testing.B) {
	dir := b.TempDir()
	write(b, dir, "huggingface.co/api/models/a/b", strings.Repeat(`"x",`, 1<<10))
	write(b, dir, "huggingface.co/api/models/a/b.meta.json", `{"status":200,"content_type":"application/json"}`)
	c, err := New(Config{Mirror: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), Request{URL: "https://huggingface.co/api/models/a/b"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNetworkGet(b *testing.B) {
	srv := newBenchServer(b)
	c, err := New(Config{CacheDir: b.TempDir(), Endpoints: map[Site]string{HF: srv}, Limits: map[Site]Limit{HF: {}}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(16 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), Request{URL: "https://huggingface.co/x", MaxAge: -1, NoBody: true}); err != nil {
			b.Fatal(err)
		}
	}
}
