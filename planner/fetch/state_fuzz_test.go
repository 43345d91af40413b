package fetch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzLimitState: whatever stands in the state file, the wait has an end.
func FuzzLimitState(f *testing.F) {
	f.Add([]byte(`{"last":"2026-03-01T12:00:00Z","tokens":3,"filled":"2026-03-01T11:59:00Z","set":"2026-03-01T12:00:00Z","until":"2026-03-01T12:00:10Z"}`))
	f.Add([]byte(`{"last":"9999-12-31T23:59:59Z","tokens":-1e300,"filled":"0001-01-01T00:00:00Z","set":"9999-01-01T00:00:00Z","until":"9999-12-31T00:00:00Z"}`))
	f.Add([]byte(`{"tokens":1e400}`))
	f.Add([]byte("\x00"))
	dir := f.TempDir()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	lim := Limit{Every: 15 * time.Second, Burst: 10, Per: time.Minute}
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(dir, "site.json")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		turn := &turn{key: "site", lim: lim}
		s, err := turn.read(path, now)
		if err != nil {
			t.Fatal(err)
		}
		if s.Last.After(now) || s.Until.Sub(now) > longestBlock || !(s.Tokens >= -1 && s.Tokens <= float64(lim.Burst)) || !s.Filled.Equal(now) {
			t.Fatalf("%q reads as %+v", raw, s)
		}
	})
}

// FuzzEntry: only a document of ours is an entry.
func FuzzEntry(f *testing.F) {
	key := cacheKey("x")
	dir := f.TempDir()
	c, err := openCache(dir, time.Now, func(string) {})
	if err != nil {
		f.Fatal(err)
	}
	good := &entry{V: metaVersion, Key: key, URL: "https://huggingface.co/x", Status: 200, SHA256: key, FetchedAt: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	if err := c.storeMeta(good); err != nil {
		f.Fatal(err)
	}
	doc, err := os.ReadFile(c.metaPath(key))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(c.metaPath(key), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := c.find(key)
		if err != nil {
			t.Fatal(err)
		}
		if e != nil && (e.Key != key || !isSHA256(e.SHA256) || e.Size < 0 || e.Check != e.sum()) {
			t.Fatalf("%q passes for %+v", raw, e)
		}
	})
}

// FuzzSidecar: a mirror's sidecar is read or reported, never half believed.
func FuzzSidecar(f *testing.F) {
	f.Add([]byte(`{"url":"https://huggingface.co/x","status":200,"content_type":"text/html","fetched_at":"2026-03-01T00:00:00Z","header":{"link":["<x>"]}}`))
	f.Add([]byte(`{"status":404}`))
	f.Add([]byte(`{"status":1e9}`))
	f.Add([]byte(`{}{}`))
	dir := f.TempDir()
	write(f, dir, "huggingface.co/x", "body")
	c, err := New(Config{Mirror: dir})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		write(t, dir, "huggingface.co/x.meta.json", string(raw))
		res, err := c.do(t.Context(), Request{URL: "https://huggingface.co/x"})
		var user *configError
		if err != nil && !errors.As(err, &user) {
			t.Fatalf("%q: %v", raw, err)
		}
		if err == nil && (res.Status < 200 || res.Status > 599 || string(res.Body) != "body" || res.Header.Get("Content-Type") == "") {
			t.Fatalf("%q: %+v", raw, res)
		}
	})
}
